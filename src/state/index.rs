//! What labs have to do with each other, kept so that the others need not be looked through for it.
//!
//! ```text
//! <root>/labs/NAME/parts/PART   the lab PART is a part of the lab NAME
//! ```
//!
//! An entry is an empty file: made before what it stands for, and removed after it. So there may be one too many, and its lab's own
//! record or journal tells; there is never one too few. Both are done under the lock of the state directory, since a directory goes
//! with its last entry.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::dir::{Record, StateDir};
use super::error::{Error, Kind, Result};
use super::files;
use super::name;

impl StateDir {
    fn parts_of(&self, name: &str) -> PathBuf {
        self.root().join("labs").join(name).join("parts")
    }

    /// Notes that a lab is a part of another one, before it is there.
    pub(crate) fn note_part(&self, name: &str, whole: &str) -> Result<()> {
        files::point().and_then(|()| enter(&self.parts_of(whole), name)).map_err(|source| {
            let doing = format!("make lab `{name}`, a part of lab `{whole}`");
            match source.kind() {
                ErrorKind::NotFound => Error::new(Kind::Gone, doing).because(format!("lab `{whole}` is gone")),
                _ => Error::file(doing, &source),
            }
        })
    }

    /// Removes what was noted of a lab, which is no more; `record` is what it was, if that is known.
    pub(super) fn forget_entries(&self, name: &str, record: Option<&Record>) -> Result<()> {
        let wholes = match record {
            Some(record) => record.parent.iter().cloned().collect(),
            // It may have been a part of any.
            None => self.names()?,
        };
        let mut dirs = wholes.iter().map(|whole| self.parts_of(whole));
        dirs.try_for_each(|dir| self.leave(&dir, name))
            .map_err(|source| Error::file(format!("remove what was noted of lab `{name}`"), &source))
    }

    /// Removes an entry from a directory, which goes with its last one.
    fn leave(&self, dir: &Path, entry: &str) -> io::Result<()> {
        match std::fs::remove_file(dir.join(entry)) {
            // It was never made, or went with the lab that it was a part of.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        tidy(dir);
        Ok(())
    }

    /// Removes what killed processes left noted of labs that are no more. For whoever has the lock of the state directory.
    pub(super) fn sweep_entries(&self) -> Result<()> {
        let names = self.names()?;
        let failed = |source: io::Error| Error::file(format!("tidy `{}`", self.root().display()), &source);
        for dir in names.iter().map(|name| self.parts_of(name)) {
            let mut dead = entries(&dir).map_err(failed)?;
            dead.retain(|name| names.binary_search(name).is_err());
            dead.iter().try_for_each(|name| self.leave(&dir, name)).map_err(failed)?;
            // One that was made, and then the process was killed.
            tidy(&dir);
        }
        Ok(())
    }

    /// Returns the names of the labs that are parts of the lab `name`, sorted; one whose record is damaged is among them.
    pub fn children(&self, name: &str) -> Result<Vec<String>> {
        Ok(self.parts(name)?.into_iter().map(|(name, _)| name).collect())
    }

    /// Returns the same with their records; without where that is damaged.
    pub(crate) fn parts(&self, name: &str) -> Result<Vec<(String, Option<Record>)>> {
        let dir = self.parts_of(name);
        let names = entries(&dir).map_err(|source| Error::file(format!("list the parts of lab `{name}`"), &source))?;
        let part = |part: String| match self.lab_dir(&part).record() {
            Ok(record) if record.parent.as_deref() == Some(name) => Some((part, Some(record))),
            Ok(_) => None,
            // One that is not there any more, or not yet, is missing.
            Err(error) => (error.kind() == Kind::State).then_some((part, None)),
        };
        let mut parts: Vec<_> = names.into_iter().filter_map(part).collect();
        parts.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(parts)
    }
}

/// Removes a directory that is empty; one with something in it stays.
fn tidy(dir: &Path) {
    let _ = std::fs::remove_dir(dir);
}

/// Makes an entry in a directory, which is made for its first one.
fn enter(dir: &Path, entry: &str) -> io::Result<()> {
    make_dir(dir)?;
    files::open_lock(&dir.join(entry)).map(|_| ())
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Returns the names in a directory; none where there is no such directory.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let read = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
        read => read?,
    };
    for entry in read {
        names.extend(entry?.file_name().into_string().ok().filter(|name| name::check("lab", name).is_ok()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::LabKind;
    use super::super::dir::{Status, boot_id};
    use super::*;
    use crate::net::ProcessId;

    fn record(name: &str, parent: Option<&str>) -> Record {
        Record {
            name: name.into(),
            status: Status::Up,
            boot_id: boot_id().expect("the boot"),
            creator: ProcessId { pid: 1, start: 1 },
            script: "-e".into(),
            created: 0,
            marks: super::super::Marks::default(),
            holder: None,
            kind: LabKind::Lab,
            parent: parent.map(Into::into),
            host: None,
            tied_to: None,
        }
    }

    fn empty() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let state =
            StateDir::open(&dir.path().join("state"), &dir.path().join("store"), None).expect("a state directory");
        (dir, state)
    }

    #[test]
    fn parts_are_found_and_forgotten() {
        let (_dir, state) = empty();
        let (whole, _) = state.claim(&record("net", None), |_| Ok(())).expect("a lab");
        let parts = ["b", "a"].map(|name| state.claim(&record(name, Some("net")), |_| Ok(())).expect("a part"));
        state.claim(&record("else", None), |_| Ok(())).expect("another lab");
        assert_eq!(state.children("net").expect("a list"), ["a", "b"]);
        // An entry alone says nothing: of a lab that is not there, or is no part.
        state.note_part("c", "net").expect("noted");
        state.note_part("else", "net").expect("noted");
        assert_eq!(state.children("net").expect("a list"), ["a", "b"]);
        let [(b, _), _a] = parts;
        b.remove(&state).expect("removed");
        assert_eq!(entries(&state.parts_of("net")).expect("a list").len(), 3);
        assert_eq!(state.children("net").expect("a list"), ["a"]);
        whole.remove(&state).expect("removed");
        assert!(state.children("net").expect("a list").is_empty());
        let error = state.claim(&record("d", Some("net")), |_| Ok(())).expect_err("no such lab");
        assert_eq!(error.to_string(), "make lab `d`, a part of lab `net`: lab `net` is gone");
        assert_eq!(state.names().expect("a list"), ["a", "else"]);
    }
}
