//! Files that are ours alone: directories that nobody else may change, and contents that are replaced whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{Error, Kind, Result};
use crate::net;

/// What is said of a file that can't be understood.
pub(crate) const DAMAGED: &str = "the file is damaged; nothing was changed. Put back a copy of it, or take down the lab that it is \
                                  about (`topo down --force LAB`) and delete it";

/// Opens the directory `root` and makes `below` in it, both with mode 0700, if they aren't there; returns its full path.
///
/// `what` is the word for it in the errors, `variable` what the user may set instead. Fails with `state` where it belongs to another user, or others can write to it.
pub(super) fn own_dir(what: &str, variable: &str, root: &Path, below: &str) -> Result<PathBuf> {
    let doing = || format!("open the {what} `{}`", root.display());
    DirBuilder::new().recursive(true).mode(0o700).create(root.join(below)).map_err(|source| {
        Error::file(doing(), &source).hint(format!("set {variable} to a directory that you can write to"))
    })?;
    let meta = std::fs::metadata(root).map_err(|source| Error::file(doing(), &source))?;
    let me = me();
    if meta.uid() != me {
        return Err(Error::new(Kind::State, doing())
            .because(format!("it belongs to user {}, and you are user {me}", meta.uid()))
            .hint(format!("set {variable} to a directory of your own")));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Error::new(Kind::State, doing())
            .because(format!("others can write to it (mode {:04o})", meta.mode() & 0o7777))
            .hint(format!("run `chmod 700 {}`", root.display())));
    }
    root.canonicalize().map_err(|source| Error::file(doing(), &source))
}

/// Returns the user that this process acts as.
pub(crate) fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Opens a file that is only ever locked, and makes it if it isn't there.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    match net::regular::open(path, OpenOptions::new().create(true).truncate(false).write(true).mode(0o600)) {
        // flock(2) asks for no right to write.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => File::open(path).map_err(|_| error),
        opened => opened,
    }
}

/// Writes `text` to the file `temp`, which then takes the place of `path`; both are on one file system.
///
/// After an error `path` is as it was, except that a failure of the very last fsync leaves open which content outlives a
/// power cut. `temp` must be the caller's alone, by a lock; what a killed process left there goes.
pub(crate) fn replace(temp: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    replace_unsynced(temp, path, text)?;
    sync_dir_of(path)
}

/// Does the same but for the last: until its directory is synced, a power cut may bring back what was there before.
pub(super) fn replace_unsynced(temp: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    point()?;
    // A second one: what is killed here leaves the temporary file.
    let written = write_new(temp, text).and_then(|()| point()).and_then(|()| std::fs::rename(temp, path));
    if written.is_err() {
        // It is of no use to anybody; if it stays, the next write takes it over.
        let _ = std::fs::remove_file(temp);
    }
    written
}

/// Tells whether an operation failed since there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Tells whether an operation failed since nothing can be written now: there is no room, no descriptor, or no right to.
pub(super) fn is_refused(error: &io::Error) -> bool {
    is_full(error)
        || matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
        || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Writes `text` over the file `path`, whose length it must have: that needs no room. A power cut may leave a mixture.
pub(super) fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    point()?;
    let file = net::regular::open(path, OpenOptions::new().write(true))?;
    if file.metadata()?.len() != text.len() as u64 {
        return Err(ErrorKind::StorageFull.into());
    }
    file.write_all_at(text, 0)?;
    file.sync_all()
}

/// Passes a point of the crash tests, before a change of a file.
pub(crate) fn point() -> io::Result<()> {
    net::fault::file_point("change a file").map_err(io::Error::other)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let file = || OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    let mut file = match file() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => std::fs::remove_file(path).and_then(|()| file())?,
        opened => opened?,
    };
    file.write_all(text)?;
    file.sync_all()
}

/// Makes the names in the directory of `path` outlive a power cut (fsync(2): a file's own fsync doesn't do that).
pub(super) fn sync_dir_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a file; returns whether it was there.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    point()?;
    match std::fs::remove_file(path) {
        Ok(()) => sync_dir_of(path).map(|()| true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the place of a JSON error in `text` in bytes, counted from 0; serde counts lines, and columns in bytes.
pub(super) fn byte_of(text: &[u8], error: &serde_json::Error) -> usize {
    if error.is_eof() {
        return text.len();
    }
    let before = text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let line: usize = before.map(<[u8]>::len).sum();
    (line + error.column().saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_error_is_placed_by_its_byte() {
        for (text, byte) in [("", 0), ("{\n\"ä\": x}", 8), ("[1,2", 4), ("{}\n\nx", 4), ("\u{0}", 0), ("[1\n", 3)] {
            let error = serde_json::from_str::<serde_json::Value>(text).expect_err(text);
            assert_eq!(byte_of(text.as_bytes(), &error), byte, "{text:?}: {error}");
        }
    }

    #[test]
    fn what_cant_be_replaced_stays_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let (temp, path) = (dir.path().join("x.tmp"), dir.path().join("x"));
        replace(&temp, &path, b"old").expect("a first write");
        std::fs::create_dir(&temp).expect("an obstacle");
        replace(&temp, &path, b"new").expect_err("the temporary file can't be made");
        assert_eq!(std::fs::read(&path).expect("the file"), b"old");
        std::fs::remove_dir(&temp).expect("no obstacle");
        std::fs::write(&temp, "a longer text that a killed process left").expect("a leftover");
        replace(&temp, &path, b"new").expect("a second write");
        assert_eq!(std::fs::read(&path).expect("the file"), b"new");
        assert!(!temp.exists());
        assert_eq!(std::fs::metadata(&path).expect("its mode").mode() & 0o777, 0o600);
    }
}
