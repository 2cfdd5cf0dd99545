//! Whether the user's own scripts and modules may be used: nobody but root and the user who runs may be able to write them.
//!
//! The rule is that of sshd's StrictModes, up to the root directory: each directory on the way, through symbolic links too, belongs to root
//! or to the user, and neither group nor others can write it. A directory with the sticky bit (`/tmp`) may be on the way, since nobody can
//! replace there what belongs to another.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::sources::{Dirs, own_scripts};
use crate::state::{Error, Kind, Result, name};

/// How many symbolic links may be on a way, as for the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
const STICKY: u32 = 0o1000;
const GROUP_AND_OTHERS_WRITE: u32 = 0o022;

impl Dirs {
    /// Fails with `denied` if somebody else could have written a script or module in these directories, or the directories themselves.
    pub fn trust(&self) -> Result<()> {
        let judge = Judge::new();
        for (what, variable, dir) in
            [("modules", "TOPO_STDLIB", &self.stdlib), ("workflows", "TOPO_SCRIPTS", &self.scripts)]
        {
            let Some(dir) = dir else { continue };
            let doing = || format!("use your own {what} in `{}`", name::shown_path(dir));
            let dir = std::path::absolute(dir).map_err(|source| Error::file(doing(), &source))?;
            let files = own_scripts(&dir);
            let folders = files.iter().filter_map(|file| file.parent()).filter(|folder| *folder != dir);
            let all = [dir.as_path()].into_iter().chain(folders).chain(files.iter().map(PathBuf::as_path));
            for path in all {
                judge.walk(path).map_err(|(at, wrong)| {
                    let at = name::shown_path(at);
                    let error = Error::new(Kind::Denied, doing());
                    match wrong {
                        Wrong::Owner(owner) => error
                            .because(format!("`{at}` belongs to user {owner}, who could change what runs as you"))
                            .hint(format!("`chown {} {at}`, or name another directory by {variable}", judge.user)),
                        Wrong::Writable(mode) => error
                            .because(format!(
                                "others can write `{at}` (mode {mode:04o}), and so change what runs as you"
                            ))
                            .hint(format!("`chmod go-w {at}`, or name another directory by {variable}")),
                        Wrong::Unreadable(source) => Error::file(doing(), &source),
                    }
                })?;
            }
        }
        Ok(())
    }
}

/// What is wrong with a file or directory on a way.
enum Wrong {
    Owner(u32),
    Writable(u32),
    Unreadable(std::io::Error),
}

struct Judge {
    user: u32,
    /// What owners are shown as that have no number in this user namespace, as that of `/` in a container without root.
    unmapped: Option<u32>,
}

impl Judge {
    fn new() -> Judge {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        // The namespace in which the machine began has all numbers (user_namespaces(7)).
        let all = read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]);
        let unmapped = if all { None } else { read("/proc/sys/kernel/overflowuid").trim().parse().ok() };
        Judge { user: nix::unistd::geteuid().as_raw(), unmapped }
    }

    /// Goes from the root directory to a file, through symbolic links, and looks at all that is on the way.
    fn walk(&self, path: &Path) -> std::result::Result<(), (PathBuf, Wrong)> {
        let parts = |path: &Path| -> VecDeque<OsString> {
            path.components().map(|part| part.as_os_str().to_os_string()).collect()
        };
        let mut rest = parts(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match Path::new(&part).components().next() {
                Some(Component::ParentDir) => {
                    at.pop();
                    continue;
                }
                Some(Component::CurDir) | None => continue,
                // The root directory takes the place of what is before it.
                Some(_) => at.push(&part),
            }
            let unreadable = |source| (at.clone(), Wrong::Unreadable(source));
            let found = std::fs::symlink_metadata(&at).map_err(unreadable)?;
            if found.is_symlink() && links < LINKS_MAX {
                links += 1;
                self.belongs(&found).map_err(|wrong| (at.clone(), wrong))?;
                let mut to = parts(&std::fs::read_link(&at).map_err(unreadable)?);
                to.append(&mut rest);
                rest = to;
                at.pop();
                continue;
            }
            self.look(&found, rest.is_empty()).map_err(|wrong| (at.clone(), wrong))?;
        }
        Ok(())
    }

    fn look(&self, found: &Metadata, is_last: bool) -> std::result::Result<(), Wrong> {
        // On the way, but not as the directory of scripts itself, where anybody may add one.
        let sticky = found.is_dir() && found.mode() & STICKY != 0 && !is_last;
        if found.mode() & GROUP_AND_OTHERS_WRITE != 0 && !sticky {
            return Err(Wrong::Writable(found.mode() & 0o7777));
        }
        match self.belongs(found) {
            Err(_) if !is_last && self.unmapped == Some(found.uid()) => Ok(()),
            judged => judged,
        }
    }

    fn belongs(&self, found: &Metadata) -> std::result::Result<(), Wrong> {
        if found.uid() == 0 || found.uid() == self.user { Ok(()) } else { Err(Wrong::Owner(found.uid())) }
    }
}
