//! The store in a local directory: one file a value, written beside and renamed.
//!
//! ```text
//! <root>/KIND.lock               the lock of a whole kind
//! <root>/KIND/NAME.json          the value of KIND/NAME
//! <root>/KIND/NAME.lock          its lock; goes with its holder where there is no value
//! <root>/KIND/NAME.tmp           what a holder of that lock just writes, for whichever key
//! <root>/KIND/NAME.d/OTHER.json  the value of KIND/NAME/OTHER
//! ```
//!
//! No name begins with a dot or holds a slash, and each sort of file has an ending of its own, so that names can't collide.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Guard, Key, Store};
use crate::net::regular::{self, STATE_BYTES_MAX};
use crate::state::error::{Error, Kind, Result};
use crate::state::{files, name, sum};

/// How long `lock` waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often who waits for a lock asks whether the wait is over: after a signal.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A store in a directory of this machine, for one user.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
    patience: Duration,
}

impl LocalStore {
    /// Opens the store, and makes its directory (mode 0700) if it isn't there; one of another user is refused.
    pub fn open(root: &Path) -> Result<LocalStore> {
        Ok(LocalStore { root: files::own_dir("store", "TOPO_STORE", root, "")?, patience: PATIENCE })
    }

    /// Sets how long `lock` waits before it is `busy`; half a minute unless set.
    pub fn with_patience(mut self, patience: Duration) -> LocalStore {
        self.patience = patience;
        self
    }

    /// Returns the directory or, with an ending, the file of `key`.
    fn path(&self, key: &Key, ending: &str) -> PathBuf {
        let mut path = self.root.clone();
        let Some((last, above)) = key.names().split_last() else {
            // All of a kind is in a directory with the kind's bare name.
            path.push(format!("{}{}", key.kind_word(), if ending == DIR { "" } else { ending }));
            return path;
        };
        path.push(key.kind_word());
        path.extend(above.iter().map(|name| format!("{name}{DIR}")));
        path.push(format!("{last}{ending}"));
        path
    }

    /// Makes the directory of `path`, and those above it up to the root.
    fn make_dir_of(&self, path: &Path) -> io::Result<()> {
        let Some(dir) = path.parent().filter(|dir| dir.starts_with(&self.root) && !dir.is_dir()) else { return Ok(()) };
        self.make_dir_of(dir)?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => files::sync_dir_of(dir),
        }
    }

    /// Removes the directories that `key` is in as far as they are empty now; the directory of a kind stays.
    fn tidy_dir_of(&self, key: &Key) {
        let path = self.path(key, VALUE);
        let dirs = path.ancestors().skip(1).take(key.names().len().saturating_sub(1));
        // The first that is not empty ends it.
        let _ = dirs.map(std::fs::remove_dir).find(std::io::Result::is_err);
    }

    /// Writes a value; its name outlives a power cut only once its directory is synced.
    fn write(&self, guard: &Guard, key: &Key, value: &Value) -> Result<()> {
        let (path, temp) = (self.path(key, VALUE), self.path(guard.key(), TEMP));
        let doing = || format!("write `{}`", path.display());
        if key.names().is_empty() {
            return Err(Error::invalid(doing()).because("a kind has no value of its own"));
        }
        let text = sum::seal(&Sealed { value }).map_err(|source| Error::new(Kind::State, doing()).because(source))?;
        let replaced = self.in_dir_of(&path, || files::replace_unsynced(&temp, &path, &text));
        let written = match replaced {
            // What gives something back must not need room for it.
            Err(error) if files::is_full(&error) => self.overwrite(&path, value).map_err(|_| error),
            replaced => replaced,
        };
        written.map_err(|source| {
            self.tidy_dir_of(key);
            let error = Error::file(doing(), &source);
            match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    error.hint(format!("nothing was changed; make room in `{}`", self.root.display()))
                }
                _ => error,
            }
        })
    }

    /// Writes a value over an older one that is as long or longer.
    fn overwrite(&self, path: &Path, value: &Value) -> io::Result<()> {
        let length = usize::try_from(std::fs::metadata(path)?.len()).unwrap_or(0);
        files::overwrite(path, &sum::seal_padded(&Sealed { value }, length).map_err(io::Error::other)?)
    }

    fn sync_dir_of(&self, key: &Key) -> Result<()> {
        let path = self.path(key, VALUE);
        files::sync_dir_of(&path).map_err(|source| Error::file(format!("write `{}`", path.display()), &source))
    }

    /// Does `work` on a file whose directories another process may remove, since it just emptied them.
    fn in_dir_of<T>(&self, path: &Path, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
        const TRIES: usize = 100;
        for _ in 1..TRIES {
            match self.make_dir_of(path).and_then(|()| work()) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done,
            }
        }
        work()
    }

    /// Waits for a lock; nothing if one process has held it for as long as the patience lasts. Where others get it in turn, ours comes.
    ///
    /// The wait is in a thread of its own: flock(2) has no deadline. A thread that nobody waits for any more ends as soon as it
    /// gets the lock, and lets it go. EINTR once `is_over` says so.
    fn wait_for(&self, file: File, path: &Path, is_over: &dyn Fn() -> bool) -> io::Result<Option<File>> {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut turn = Turn::of(path);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("lock".into()).spawn(move || {
            let locked = loop {
                match file.lock() {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    done => break done,
                }
            };
            let _ = sender.send(locked.map(|()| file));
        })?;
        let (mut holder, mut until) = (None, Instant::now() + self.patience);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Ok(locked) = receiver.recv_timeout(left.min(ASK_AGAIN).min(self.patience / 2)) {
                return locked.map(Some);
            }
            if is_over() {
                return Err(ErrorKind::Interrupted.into());
            }
            // The kernel's list has all locks and all who wait, so it is asked late: of many who wait most never ask.
            if holder.is_none() && Instant::now() + self.patience / 2 >= until {
                holder = Some(holder_pid(path));
            }
            if Instant::now() < until {
                continue;
            }
            let now = Turn::of(path);
            if now == turn && holder == Some(holder_pid(path)) {
                return Ok(None);
            }
            (turn, holder, until) = (now, None, Instant::now() + self.patience);
        }
    }

    /// Reads all values, and returns what is wrong with them.
    pub fn check(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        self.check_below(&self.root, &mut errors);
        errors
    }

    fn check_below(&self, dir: &Path, errors: &mut Vec<Error>) {
        // One that another process has emptied holds nothing that is wrong.
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                self.check_below(&path, errors);
            } else if path.is_file() && name.strip_suffix(VALUE).is_some_and(|name| name::check("value", name).is_ok())
            {
                errors.extend(read_value(&path).err());
            }
        }
    }

    /// Removes what killed processes left: locks for nothing, and values half written. A lock that is held stays.
    pub fn tidy(&self) -> Result<()> {
        self.tidy_below(&self.root).map_err(|source| Error::file(format!("tidy `{}`", self.root.display()), &source))
    }

    fn tidy_below(&self, dir: &Path) -> io::Result<()> {
        let entries = match std::fs::read_dir(dir) {
            // Another process just emptied it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let has_ending = |ending: &str| path.to_str().is_some_and(|path| path.ends_with(ending));
            if path.is_dir() && !path.is_symlink() {
                self.tidy_below(&path)?;
                if has_ending(DIR) {
                    // Only one that is empty goes.
                    let _ = std::fs::remove_dir(&path);
                }
            } else if has_ending(LOCK) || has_ending(TEMP) {
                self.tidy_lock(&path.with_extension("lock"))?;
            }
        }
        Ok(())
    }

    /// Takes a lock that nobody has, and removes what its last holder was writing, and itself if it is for nothing.
    fn tidy_lock(&self, path: &Path) -> io::Result<()> {
        let file = match files::open_lock(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if file.try_lock().is_err() || !is_at(&file, path)? {
            return Ok(());
        }
        let _ = std::fs::remove_file(path.with_extension("tmp"));
        // That of a kind has no value, and stays.
        if path.parent() != Some(self.root.as_path()) && !path.with_extension("json").exists() {
            let _ = std::fs::remove_file(path);
        }
        file.unlock()
    }

    fn try_lock(&self, path: &Path, is_over: &dyn Fn() -> bool) -> io::Result<Locked> {
        loop {
            let file = match self.in_dir_of(path, || files::open_lock(path)) {
                // Nobody can make it, so nobody has it; and no value can be written.
                Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(Locked::Unmade),
                opened => opened?,
            };
            let Some(file) = self.wait_for(file, path, is_over)? else {
                return Ok(Locked::ByAnother);
            };
            if is_at(&file, path)? {
                // Those who wait see by it that somebody's turn has come.
                let _ = file.set_modified(SystemTime::now());
                return Ok(Locked::ByUs(file));
            }
        }
    }
}

/// A value as it is in its file, with its check sum behind it.
#[derive(Serialize, Deserialize)]
struct Sealed<V> {
    value: V,
}

/// The ending of a directory.
const DIR: &str = ".d";
/// The ending of a value's file.
const VALUE: &str = ".json";
/// The ending of a lock.
const LOCK: &str = ".lock";
/// The ending of what is being written.
const TEMP: &str = ".tmp";

impl Store for LocalStore {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        read_value(&self.path(key, VALUE))
    }

    fn list(&self, above: &Key) -> Result<Vec<Key>> {
        let mut found = Vec::new();
        let mut left = vec![above.clone()];
        while let Some(key) = left.pop() {
            let dir = self.path(&key, DIR);
            let failed = |source: io::Error| Error::file(format!("list `{}`", dir.display()), &source);
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let (file_name, sort) = (entry.file_name(), entry.file_type().map_err(failed)?);
                // What has none of our endings, or isn't what its ending says, is somebody else's.
                let Some(file_name) = file_name.to_str() else { continue };
                let below = |ending: &str| file_name.strip_suffix(ending).and_then(|name| key.below(name).ok());
                if sort.is_file() {
                    found.extend(below(VALUE));
                } else if sort.is_dir() {
                    left.extend(below(DIR));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn lock_unless(&self, key: &Key, is_over: &dyn Fn() -> bool) -> Result<Guard> {
        let path = self.path(key, LOCK);
        let doing = || format!("lock `{key}`");
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::Interrupted => Error::new(Kind::Interrupted, doing()).because("the run was interrupted"),
            _ => Error::file(format!("lock `{}`", path.display()), &source),
        };
        let file = match self.try_lock(&path, is_over).map_err(failed)? {
            Locked::ByUs(file) => Some(file),
            Locked::Unmade => None,
            Locked::ByAnother => {
                return Err(Error::new(Kind::Busy, doing())
                    .because(format!("{} has held it for {:?}", holder_of(&path), self.patience))
                    .hint("wait until it has ended, or end it"));
            }
        };
        // What a killed holder was writing.
        let _ = std::fs::remove_file(self.path(key, TEMP));
        Ok(Guard::new(key.clone(), HeldLock { file, path, key: key.clone(), store: self.clone() }))
    }

    fn put(&self, guard: &Guard, key: &Key, value: &Value) -> Result<()> {
        self.write(guard, key, value)?;
        self.sync_dir_of(key)
    }

    fn put_all(&self, guard: &Guard, values: &[(Key, Value)]) -> Result<()> {
        for (key, value) in values {
            self.write(guard, key, value)?;
        }
        // The names last, once for all that are in one directory: each time costs as much as the writing of a value.
        let mut synced = BTreeSet::new();
        for (key, _) in values {
            if synced.insert(self.path(key, VALUE).parent().map(Path::to_path_buf)) {
                self.sync_dir_of(key)?;
            }
        }
        Ok(())
    }

    fn remove(&self, guard: &Guard, key: &Key) -> Result<bool> {
        let path = self.path(key, VALUE);
        let removed =
            files::remove(&path).map_err(|source| Error::file(format!("remove `{}`", path.display()), &source))?;
        if removed && key != guard.key() {
            // Its lock would be left behind for ever, unless somebody holds it, who then removes it.
            let path = self.path(key, LOCK);
            if let Some(file) =
                regular::open(&path, File::options().read(true)).ok().filter(|file| file.try_lock().is_ok())
            {
                drop(HeldLock { file: Some(file), path, key: key.clone(), store: self.clone() });
            }
            self.tidy_dir_of(key);
        }
        Ok(removed)
    }

    fn place(&self, key: &Key) -> String {
        self.path(key, VALUE).display().to_string()
    }
}

/// Whose turn a lock is: its file, and when that was locked last by one of us. Nothing where it is just being made or removed.
#[derive(Debug, PartialEq, Eq)]
struct Turn(Option<(u64, i64, i64)>);

impl Turn {
    fn of(path: &Path) -> Turn {
        Turn(std::fs::metadata(path).ok().map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec())))
    }
}

/// What became of the wish for a lock.
enum Locked {
    ByUs(File),
    ByAnother,
    /// Its file can't be made on a read-only file system.
    Unmade,
}

/// A lock that is held.
#[derive(Debug)]
struct HeldLock {
    /// The file, unless it can't be made on a read-only file system.
    file: Option<File>,
    path: PathBuf,
    key: Key,
    store: LocalStore,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // A lock for nothing would be left behind for ever, but that of a kind, which has no value. The file goes while the
        // lock is held: whoever waits for it sees that it is gone.
        let for_nothing = !self.key.names().is_empty() && !self.store.path(&self.key, VALUE).exists();
        if for_nothing && std::fs::remove_file(&self.path).is_ok() {
            self.store.tidy_dir_of(&self.key);
        }
        // By name: a child that was forked a moment ago shares the open file, and would keep the lock.
        let _ = self.file.as_ref().map(File::unlock);
    }
}

/// Tells whether a file that was opened is still the one at `path`: the last holder of a lock may have removed it, and then
/// others lock the new one.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())))
}

/// Reads the value in a file; nothing if there is none.
fn read_value(path: &Path) -> Result<Option<Value>> {
    let doing = || format!("read `{}`", path.display());
    let Some(text) = read_own(path).map_err(|source| Error::file(doing(), &source))? else { return Ok(None) };
    let damaged = |because: String| Error::new(Kind::State, doing()).because(because).hint(files::DAMAGED);
    let at_byte = |error| damaged(format!("byte {}: {error}", files::byte_of(&text, &error)));
    let Sealed { value } = serde_json::from_slice(&text).map_err(at_byte)?;
    sum::check_seal(&text).map_err(|because| damaged(because.into()))?;
    Ok(Some(value))
}

/// Reads a file of ours; nothing if there is none.
fn read_own(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Without O_NONBLOCK the opening of a pipe that somebody put there would wait for its writer.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(io::Error::other("it is a symbolic link"));
        }
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if meta.uid() != files::me() {
        return Err(io::Error::other(format!("it belongs to user {}, and you are user {}", meta.uid(), files::me())));
    }
    regular::read_whole(file, STATE_BYTES_MAX, meta.len()).map(Some)
}

/// Returns who holds a lock, in words.
fn holder_of(path: &Path) -> String {
    match holder_pid(path) {
        Some(pid) if pid == std::process::id().to_string() => format!("this process ({pid}) itself"),
        Some(pid) => format!("process {pid}"),
        None => "another process".into(),
    }
}

/// Returns the process that holds a lock, as far as /proc/locks tells (proc_locks(5)): it knows none outside of our pid namespace.
fn holder_pid(path: &Path) -> Option<String> {
    let meta = std::fs::metadata(path).ok()?;
    let (major, minor) = (nix::sys::stat::major(meta.dev()), nix::sys::stat::minor(meta.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `1: FLOCK ADVISORY WRITE 4242 00:1a:77 0 EOF`; those who wait have an arrow behind the number.
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file.as_str())).then(|| words[4].to_string())
    })
}

#[cfg(test)]
mod tests;
