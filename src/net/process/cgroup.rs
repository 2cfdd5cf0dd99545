//! Control groups, for one thing alone: to find and end what a process has started, however well that hides (cgroups(7)).
//!
//! A group is told by its name. Where no tree of version 2 is mounted, or it can't be written to, there are none, and
//! nothing depends on them.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::ForeignProcess;
use crate::net::{Error, ProcessId, Result, fault};

/// How long the processes of a group may take to be gone once they are killed.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// The attribute that says who has made a group.
const MAKER: &CStr = c"user.made_by";

/// A group directly below the root of the tree.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

/// Where systemd mounts the tree of version 2: as the only one, and beside version 1 (cgroups(7)).
const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Returns where the tree of version 2 is mounted. The list of all mounts, which is as long as there are named namespaces, is read only
/// where it isn't at a usual place (proc_pid_mountinfo(5)).
fn tree() -> Option<PathBuf> {
    let is_one = |path: &&str| statfs(*path).is_ok_and(|about| about.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if let Some(path) = USUAL.iter().find(|path| is_one(path)) {
        return Some(PathBuf::from(path));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line =
        mounts.lines().find(|line| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup2 ")))?;
    // Spaces in it are written in octal; such a place is nobody's.
    line.split(' ').nth(4).filter(|path| !path.contains('\\')).map(PathBuf::from)
}

/// Tells whether a name is that of a group of ours: never the root of the tree, or what is elsewhere.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/')
}

impl Cgroup {
    /// Makes a group, if it isn't there. None where that can't be: no tree of version 2, or one that can't be written to.
    ///
    /// Like `mkdir /sys/fs/cgroup/NAME`.
    pub fn make(name: &str) -> Result<Option<Cgroup>> {
        let Some(tree) = tree().filter(|_| is_name(name)) else { return Ok(None) };
        let group = Cgroup { path: tree.join(name) };
        fault::point(&format!("make the control group `{name}`"))?;
        match fs::create_dir(&group.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Ok(None),
            // A tree of somebody else's can be seen, and not joined.
            _ if fs::OpenOptions::new().write(true).open(group.entrance()).is_err() => {
                let _ = fs::remove_dir(&group.path);
                Ok(None)
            }
            _ => {
                group.note_maker();
                Ok(Some(group))
            }
        }
    }

    /// Notes in the group itself who has made it: an attribute that its owner alone can write (xattr(7), kernfs since Linux 5.7).
    ///
    /// Like `setfattr -n user.made_by -v "PID START DEVICE INODE" /sys/fs/cgroup/NAME`. Without it nobody but its state directory
    /// removes the group.
    fn note_maker(&self) {
        let Ok(maker) = ForeignProcess::current().map(ForeignProcess::to_text) else { return };
        let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) else { return };
        // SAFETY: two texts that end with a zero, and as many bytes of a third as there are.
        unsafe {
            libc::setxattr(path.as_ptr(), MAKER.as_ptr(), maker.as_ptr().cast(), maker.len(), 0);
        }
    }

    fn maker(&self) -> Option<ForeignProcess> {
        let path = CString::new(self.path.as_os_str().as_bytes()).ok()?;
        let mut text = [0_u8; 128];
        // SAFETY: two texts that end with a zero, and room for as many bytes as are named.
        let length = unsafe { libc::getxattr(path.as_ptr(), MAKER.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
        let text = text.get(..usize::try_from(length).ok()?)?;
        ForeignProcess::of_text(std::str::from_utf8(text).ok()?)
    }

    /// Removes it where nobody can need it: nothing is in it, and who made it, to put something there, has ended. Tells whether it did.
    ///
    /// Like `rmdir /sys/fs/cgroup/NAME`, which fails where something is in it.
    pub fn remove_abandoned(&self) -> Result<bool> {
        if !self.maker().is_some_and(|maker| maker.has_ended()) || !self.members().is_empty() {
            return Ok(false);
        }
        let doing = format!("remove the control group `{}`", self.path.display());
        fault::point(&doing)?;
        match self.remove() {
            Ok(()) => Ok(true),
            // Something is in it by now, or another `gc` was quicker.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOENT)) => Ok(false),
            Err(error) => Err(Error::io(doing, error)),
        }
    }

    /// Returns the group of this name, if there is one and the caller's user owns it.
    pub fn find(name: &str) -> Option<Cgroup> {
        Some(Cgroup { path: tree().filter(|_| is_name(name))?.join(name) }).filter(Cgroup::is_ours)
    }

    /// Returns the groups whose names `is_wanted`, with these names, as far as the caller's user owns them.
    pub fn all(is_wanted: impl Fn(&str) -> bool) -> Vec<(String, Cgroup)> {
        let entries = tree().and_then(|tree| fs::read_dir(tree).ok());
        let named = entries.into_iter().flatten().flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| is_wanted(name))?;
            Some((name, Cgroup { path: entry.path() }))
        });
        named.filter(|(_, group)| group.is_ours()).collect()
    }

    /// Tells whether the caller's user owns it: one that another user made, or was given, holds what that user has put there.
    fn is_ours(&self) -> bool {
        let is_ours = |meta: fs::Metadata| meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw();
        fs::symlink_metadata(&self.path).is_ok_and(is_ours)
    }

    /// Takes the group that is at a path.
    pub(in crate::net) fn at(path: &Path) -> Cgroup {
        Cgroup { path: path.to_path_buf() }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file by which a process joins it: it writes `0` there.
    pub(super) fn entrance(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Returns the processes in it and in groups below it.
    pub(super) fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.entrance()).unwrap_or_default();
        let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        pids.extend(self.below().iter().flat_map(Cgroup::processes));
        pids
    }

    /// Returns the processes in it and in groups below it that have not ended.
    pub fn members(&self) -> Vec<ProcessId> {
        self.processes().into_iter().filter_map(|pid| ProcessId::of(pid).ok()).filter(ProcessId::is_alive).collect()
    }

    fn below(&self) -> Vec<Cgroup> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| Cgroup { path: entry.path() }).collect()
    }

    /// Kills all that is in it, those that are just being started too.
    pub(in crate::net) fn kill(&self) -> io::Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            // Before Linux 5.14.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for pid in self.processes() {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Kills all that is in it, waits until that is gone, and removes it; one that is gone is removed.
    ///
    /// Like `echo 1 > cgroup.kill; rmdir .` inside it. ETIMEDOUT where something in it does not die within 5 s.
    pub fn end(&self) -> Result<()> {
        let doing = format!("remove the control group `{}`", self.path.display());
        fault::point(&doing)?;
        let deadline = Instant::now() + KILLED_WITHIN;
        loop {
            match self.remove() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(Error::io(doing, error)),
                Err(_) if Instant::now() >= deadline => {
                    let left: Vec<String> = self.processes().iter().map(u32::to_string).collect();
                    let text = format!("still running after SIGKILL: {}", left.join(", "));
                    return Err(Error::new(doing, libc::ETIMEDOUT).saying(text));
                }
                Err(_) => {}
            }
            if let Err(error) = self.kill()
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(Error::io(doing, error));
            }
            self.await_change();
        }
    }

    /// Moves all that is in it into another group, and removes it.
    ///
    /// Like `for pid in $(cat cgroup.procs); do echo $pid > ../OTHER/cgroup.procs; done; rmdir .` inside it. EBUSY where processes are
    /// started faster than they are moved.
    pub fn move_into(&self, other: &Cgroup) -> Result<()> {
        const ROUNDS_MAX: usize = 100;
        let doing = format!("move what is in the control group `{}`", self.path.display());
        fault::point(&doing)?;
        for _ in 0..ROUNDS_MAX {
            for pid in self.processes() {
                match fs::write(other.entrance(), pid.to_string()) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(Error::io(doing, error)),
                    _ => {}
                }
            }
            match self.remove() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(doing, error)),
                _ => return Ok(()),
            }
        }
        Err(Error::new(doing, libc::EBUSY))
    }

    fn remove(&self) -> io::Result<()> {
        for group in self.below() {
            group.remove()?;
        }
        fs::remove_dir(&self.path)
    }

    /// Waits until the kernel tells of a change in who is in it, or a moment.
    fn await_change(&self) {
        let Ok(events) = File::open(self.path.join("cgroup.events")) else { return };
        // The kernel tells of changes since the last reading.
        let Ok(text) = io::read_to_string(&events) else { return };
        if text.contains("populated 1") {
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::from(50_u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_itself_is_no_group() {
        for name in ["", ".", "..", "a/b", "/", "../x"] {
            assert!(Cgroup::find(name).is_none(), "{name:?}");
            assert!(Cgroup::make(name).expect("nothing tried").is_none(), "{name:?}");
        }
    }
}
