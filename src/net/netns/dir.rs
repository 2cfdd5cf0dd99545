//! Named namespaces, kept as `ip netns` keeps them: files under /run/netns on which namespaces are mounted.
//!
//! A file of ours contains its owner's mark and the number of the namespace, from the moment that it appears. Only a user who may
//! write to the directory can write such a file. What is inside the namespace can be changed from inside, so it proves nothing.

use std::cell::OnceCell;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

use super::is_netns;
use crate::net::{Error, Netns, Result, fault};

/// More than this of a placeholder is nobody's mark.
const MARK_MAX: u64 = 4096;

/// A directory of named namespaces.
#[derive(Debug, Clone)]
pub struct NetnsDir {
    dir: PathBuf,
}

/// What is found under a name.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A namespace.
    Netns(Netns),
    /// A file with nothing mounted on it, and its content: the mark of whoever made it.
    Placeholder(String),
    /// Something else: a directory, a socket, another kind of namespace.
    Other,
}

impl NetnsDir {
    /// Returns the directory of `ip netns`.
    pub fn system() -> NetnsDir {
        NetnsDir::at(PathBuf::from("/run/netns"))
    }

    /// Returns a directory of the caller's choice.
    pub fn at(dir: PathBuf) -> NetnsDir {
        NetnsDir { dir }
    }

    /// Returns the file that stands, or would stand, for `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Tells whether the directory is there.
    pub fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// Opens the files below the mounts, which tell the owners of the namespaces that are mounted on them.
    pub fn owners(&self) -> Owners {
        Owners { dir: self.dir.clone(), files: OnceCell::new() }
    }

    /// Lists the names in order; none if there is no directory.
    ///
    /// Like `ip netns list`.
    pub fn list(&self) -> Result<Vec<String>> {
        let failed = |error| Error::io(format!("list `{}`", self.dir.display()), error);
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 can't have been given here.
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Tells what is found under `name`. EINVAL if that can't be a file name.
    pub fn entry(&self, name: &str) -> Result<Entry> {
        let doing = format!("look at netns `{name}`");
        let path = self.checked(&doing, name)?;
        let failed = |error| Error::io(doing.clone(), error);
        let is_file = match fs::symlink_metadata(&path) {
            // One to nothing is there all the same.
            Ok(meta) if meta.is_symlink() => fs::metadata(&path).is_ok_and(|meta| meta.is_file()),
            Ok(meta) => meta.is_file(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entry::Absent),
            Err(error) => return Err(failed(error)),
        };
        // Opened only if it is a file in the end: opening a FIFO would wait for its other end.
        if !is_file {
            return Ok(Entry::Other);
        }
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entry::Absent),
            file => file.map_err(failed)?,
        };
        if is_netns(&file) {
            return Netns::of_file(file).map(Entry::Netns).map_err(failed);
        }
        match content(file) {
            Ok(text) => Ok(Entry::Placeholder(NetnsFile::read(&text).mark.to_string())),
            // Files of nsfs can't be read: another kind of namespace.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Entry::Other),
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens the namespace `name`. ENOENT if there is none; EINVAL if the name stands for something else.
    pub fn open(&self, name: &str) -> Result<Netns> {
        let doing = format!("open netns `{name}`");
        match self.entry(name)? {
            Entry::Netns(netns) => Ok(netns),
            Entry::Absent => Err(Error::new(doing, libc::ENOENT)),
            Entry::Placeholder(_) | Entry::Other => {
                let text = format!("`{}` is no network namespace", self.path(name).display());
                Err(Error::new(doing, libc::EINVAL).saying(text))
            }
        }
    }

    /// Makes the directory, and a shared mount of it, so that namespaces that are bound or unbound later are so in every
    /// mount namespace; returns whether there was anything to make.
    ///
    /// As `ip netns add` does it (create_netns_dir and netns_add of ip/ipnetns.c in iproute2), under the same lock.
    pub fn prepare(&self) -> Result<bool> {
        self.prepared(&format!("make `{}` a shared mount", self.dir.display())).map(|(_, made)| made)
    }

    /// Prepares the directory, and keeps the lock on it, so that nobody retires it meanwhile.
    fn prepared(&self, doing: &str) -> Result<(File, bool)> {
        let (lock, made) = self.locked(doing)?;
        let (lock, mounted) = self.shared(doing, lock)?;
        Ok((lock, made || mounted))
    }

    /// Makes the directory that `lock` is on a shared mount, if it is none; returns whether it was none.
    fn shared(&self, doing: &str, lock: File) -> Result<(File, bool)> {
        let none = None::<&str>;
        if mount(none, &self.dir, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none) != Err(nix::Error::EINVAL) {
            return Ok((lock, false));
        }
        // EINVAL: no mount point yet.
        fault::point(doing)?;
        mount(Some(&self.dir), &self.dir, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .and_then(|()| mount(none, &self.dir, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none))
            .map_err(|errno| Error::new(doing, errno as i32))?;
        Ok((lock, true))
    }

    /// Locks the directory, and tells whether it had to be made for that.
    fn locked(&self, doing: &str) -> Result<(File, bool)> {
        let failed = |error| Error::io(doing, error);
        let mut made = false;
        loop {
            let dir = match File::open(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fault::point(doing)?;
                    match fs::DirBuilder::new().mode(0o755).create(&self.dir) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                        created => made |= created.is_ok(),
                    }
                    continue;
                }
                dir => dir.map_err(failed)?,
            };
            dir.lock().map_err(failed)?;
            // Between the opening and the lock another process may have retired it, and yet another made it anew.
            let locked = dir.metadata().map_err(failed)?;
            if fs::metadata(&self.dir).is_ok_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino())) {
                return Ok((dir, made));
            }
        }
    }

    /// Takes down what `prepare` made, if the directory is empty and its mount is one onto itself; returns whether it is
    /// gone. A directory that holds something, is in use or was mounted by somebody else stays, which is no error.
    pub fn retire(&self) -> Result<bool> {
        let doing = format!("remove `{}`", self.dir.display());
        let failed = |error: io::Error| Error::io(doing.clone(), error);
        if !self.is_empty_and_our_own().map_err(failed)? {
            return Ok(false);
        }
        fault::point(&doing)?;
        // Unlocked, since the open lock would keep the mount busy, as it does for whoever binds a name just now.
        loop {
            match umount2(&self.dir, MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                // Not a mount point (any more).
                Err(nix::Error::EINVAL) => break,
                Err(nix::Error::EBUSY | nix::Error::ENOENT) => return Ok(false),
                Err(errno) => return Err(Error::new(doing, errno as i32)),
            }
        }
        let lock = match File::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            dir => dir.map_err(failed)?,
        };
        lock.lock().map_err(failed)?;
        match fs::remove_dir(&self.dir) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOTEMPTY | libc::EBUSY | libc::ENOENT | libc::EEXIST) => Ok(false),
                _ => Err(failed(error)),
            },
        }
    }

    fn is_empty_and_our_own(&self) -> io::Result<bool> {
        let above = self.dir.parent().unwrap_or(Path::new("/"));
        let look = || -> io::Result<bool> {
            let lock = File::open(&self.dir)?;
            lock.lock()?;
            // Another file system than the one above it was not put there by a mount onto itself.
            Ok(lock.metadata()?.dev() == fs::metadata(above)?.dev() && fs::read_dir(&self.dir)?.next().is_none())
        };
        match look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            looked => looked,
        }
    }

    /// Gives a namespace a name. The file appears with `mark` and the namespace's number as its content, or not at all; then the
    /// namespace is mounted on it.
    ///
    /// Like `ip netns attach`. EEXIST if the name is taken; EINVAL if it can't be a file name.
    pub fn bind(&self, name: &str, netns: &Netns, mark: &str) -> Result<()> {
        let doing = format!("name a netns `{name}`");
        let path = self.checked(&doing, name)?;
        // Prepared once more: another process may have retired it by now. On a directory that is no mount the name would
        // be mounted twice as soon as somebody prepares it, and could not be removed.
        let (lock, _) = self.locked(&doing)?;
        let _lock = if is_mount_point(&self.dir) { lock } else { self.shared(&doing, lock)?.0 };
        fault::point(&doing)?;
        let content = NetnsFile { mark, id: netns.id().to_string() }.to_text();
        place(&self.dir, &path, &content).map_err(|error| Error::io(doing.clone(), error))?;
        let source = PathBuf::from(format!("/proc/self/fd/{}", netns.fd().as_raw_fd()));
        let none = None::<&str>;
        let mounted = fault::point(&doing).and_then(|()| {
            mount(Some(&source), &path, none, MsFlags::MS_BIND, none).map_err(|errno| Error::new(doing, errno as i32))
        });
        if mounted.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&path);
        }
        mounted
    }

    /// Takes a name away; the namespace lives on while something else keeps it. ENOENT if there is no such name.
    ///
    /// Like `ip netns delete`.
    pub fn unbind(&self, name: &str) -> Result<()> {
        let doing = format!("remove netns name `{name}`");
        let path = self.checked(&doing, name)?;
        fault::point(&doing)?;
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // EINVAL: a file with nothing mounted on it.
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(errno) => return Err(Error::new(doing, errno as i32)),
        }
        fs::remove_file(&path).map_err(|error| Error::io(doing, error))
    }

    fn checked(&self, doing: &str, name: &str) -> Result<PathBuf> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Error::new(doing, libc::EINVAL).saying(format!("`{name}` can't be a file name")));
        }
        Ok(self.path(name))
    }
}

/// The content of a file of ours.
struct NetnsFile<'a> {
    mark: &'a str,
    /// The namespace that is mounted on it, as the kernel writes it: `net:[4026532008]`.
    id: String,
}

impl NetnsFile<'_> {
    fn to_text(&self) -> String {
        format!("{} {}", self.mark, self.id)
    }

    fn read(text: &str) -> NetnsFile<'_> {
        let (mark, id) = text.split_once(' ').unwrap_or((text, ""));
        NetnsFile { mark, id: id.to_string() }
    }
}

fn content(file: File) -> io::Result<String> {
    let mut content = Vec::new();
    file.take(MARK_MAX).read_to_end(&mut content)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// The files of a directory of named namespaces, as they are below the mounts.
#[derive(Debug)]
pub struct Owners {
    dir: PathBuf,
    /// Opened for the first one who asks: mostly nobody does.
    files: OnceCell<Option<OwnedFd>>,
}

impl Owners {
    /// Returns the mark in the file `name`, if it was written for this namespace.
    ///
    /// Where the kernel can't show files below mounts (before Linux 5.2), it is the alias of the namespace's `lo`.
    pub fn mark_of(&self, name: &str, netns: &Netns) -> Result<Option<String>> {
        let Some(dir) = self.files.get_or_init(|| files_below(&self.dir).ok()) else {
            return crate::net::mark_of(netns);
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = match openat(dir, name, flags, Mode::empty()) {
            // It has gone meanwhile, or is no file that anybody could have written a mark into.
            Err(nix::Error::ENOENT | nix::Error::ELOOP | nix::Error::ENXIO) => return Ok(None),
            file => file.map_err(|errno| Error::new(format!("look for the owner of netns `{name}`"), errno as i32))?,
        };
        let file = File::from(file);
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        let text = content(file).map_err(|error| Error::io(format!("look for the owner of netns `{name}`"), error))?;
        let NetnsFile { mark, id } = NetnsFile::read(&text);
        Ok((id == netns.id().to_string()).then(|| mark.to_string()))
    }
}

/// Opens a copy of the mount that a directory is in, without what is mounted on it: open_tree(2) with OPEN_TREE_CLONE and without
/// AT_RECURSIVE. EPERM without CAP_SYS_ADMIN.
fn files_below(dir: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path ends with a zero and lives during the call, which writes no memory.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Tells whether something is mounted on a directory (statx(2), STATX_ATTR_MOUNT_ROOT, Linux 5.8); no where the kernel can't say.
fn is_mount_point(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path ends with a zero, and the kernel writes no more than the structure.
    let done = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_BASIC_STATS, found.as_mut_ptr()) };
    // SAFETY: all zeros are a value of it, whatever the kernel wrote.
    let found = unsafe { found.assume_init() };
    done == 0 && found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0
}

/// Makes a file with its content in one step: whoever sees it sees whose it is.
fn place(dir: &Path, path: &Path, mark: &str) -> io::Result<()> {
    let nameless = OpenOptions::new().write(true).mode(0o444).custom_flags(libc::O_TMPFILE).open(dir);
    let mut file = match nameless {
        Ok(file) => file,
        // Not every file system has nameless files (open(2), O_TMPFILE).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            return OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?.write_all(mark.as_bytes());
        }
        Err(error) => return Err(error),
    };
    file.write_all(mark.as_bytes())?;
    let nameless = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Ok(nix::unistd::linkat(AT_FDCWD, &nameless, AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::net::fault::{Counted, FaultKind, arm, points};
    use crate::net::testing::{in_own_process, netns};

    /// Runs a test on a thread that has mounts of its own, and an empty /run/netns to be of its own too.
    fn in_own_mounts(test: impl FnOnce() + Send) {
        drop(netns());
        let none = None::<&str>;
        let work = || {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
            // Covered, it would still be listed.
            while umount2("/run/netns", MntFlags::MNT_DETACH).is_ok() {}
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("an empty /run");
            test();
        };
        std::thread::scope(|scope| scope.spawn(work).join().expect("the test"));
    }

    fn mounts_of(dir: &Path) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        let at = dir.display().to_string();
        mounts.lines().filter(|line| line.split(' ').nth(4) == Some(&at)).map(str::to_string).collect()
    }

    fn ip(arguments: &str) -> String {
        let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[test]
    fn prepared_once_and_retired_once() {
        in_own_mounts(|| {
            let dir = NetnsDir::system();
            assert_eq!(dir.list().expect("no directory"), [""; 0]);
            assert!(!dir.retire().expect("nothing to retire"));
            assert!(dir.prepare().expect("made"));
            let mounts = mounts_of(&dir.dir);
            assert!(mounts.len() == 1 && mounts[0].contains(" shared:"), "{mounts:?}");
            assert!(!dir.prepare().expect("there"));
            assert_eq!(mounts_of(&dir.dir).len(), 1);
            dir.bind("a", &netns(), "mark").expect("bound");
            assert!(!dir.retire().expect("in use"));
            dir.unbind("a").expect("unbound");
            assert!(dir.retire().expect("empty"));
            assert!(!dir.dir.exists() && mounts_of(&dir.dir).is_empty());
        });
    }

    #[test]
    fn a_file_system_of_somebody_elses_stays() {
        in_own_mounts(|| {
            fs::create_dir("/run/netns").expect("made");
            let none = None::<&str>;
            mount(Some("tmpfs"), "/run/netns", Some("tmpfs"), MsFlags::empty(), none).expect("mounted");
            let dir = NetnsDir::system();
            assert!(!dir.prepare().expect("there"));
            assert!(!dir.retire().expect("not ours"));
            assert_eq!(mounts_of(&dir.dir).len(), 1);
        });
    }

    #[test]
    fn names_are_those_of_iproute2() {
        in_own_mounts(|| {
            let dir = NetnsDir::system();
            ip("netns add theirs");
            assert!(!dir.prepare().expect("made by ip"));
            let ours = netns();
            dir.bind("ours", &ours, "mark").expect("bound");
            assert_eq!(dir.list().expect("names"), ["ours", "theirs"]);
            let mut seen: Vec<String> = ip("netns list").lines().map(str::to_string).collect();
            seen.sort();
            assert_eq!(seen, ["ours", "theirs"]);
            assert!(ip("-n ours link show lo").contains("LOOPBACK,UP"));
            assert_eq!(dir.open("ours").expect("opened").id(), ours.id());
            assert!(matches!(dir.entry("theirs"), Ok(Entry::Netns(_))));
            ip("netns delete ours");
            assert!(matches!(dir.entry("ours"), Ok(Entry::Absent)));
            dir.unbind("theirs").expect("unbound");
            assert!(dir.open("theirs").expect_err("gone").is_gone());
            assert!(dir.unbind("theirs").expect_err("gone").is_gone());
        });
    }

    #[test]
    fn a_taken_name_stays_whose_it_is() {
        in_own_mounts(|| {
            let dir = NetnsDir::system();
            fs::create_dir(&dir.dir).expect("made");
            fs::write(dir.path("a"), "somebody's").expect("written");
            assert!(dir.bind("a", &netns(), "ours").expect_err("taken").is_exists());
            assert!(matches!(dir.entry("a"), Ok(Entry::Placeholder(mark)) if mark == "somebody's"));
            dir.unbind("a").expect("removed, though nothing is mounted on it");
            assert!(matches!(dir.entry("a"), Ok(Entry::Absent)));
        });
    }

    #[test]
    fn what_else_is_found_under_a_name() {
        in_own_mounts(|| {
            let dir = NetnsDir::system();
            fs::create_dir_all(dir.path("dir")).expect("made");
            nix::unistd::mkfifo(&dir.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
            for (name, target) in [("net", "/proc/self/ns/net"), ("mnt", "/proc/self/ns/mnt"), ("void", "/no/such")] {
                std::os::unix::fs::symlink(target, dir.path(name)).expect("linked");
            }
            assert!(matches!(dir.entry("net"), Ok(Entry::Netns(_))));
            for name in ["dir", "fifo", "mnt", "void"] {
                assert!(matches!(dir.entry(name), Ok(Entry::Other)), "{name}: {:?}", dir.entry(name));
            }
            for name in ["", ".", "..", "a/b", "a\0b"] {
                assert_eq!(dir.entry(name).expect_err("no name").errno(), libc::EINVAL, "{name:?}");
                assert_eq!(dir.unbind(name).expect_err("no name").errno(), libc::EINVAL, "{name:?}");
            }
        });
    }

    #[test]
    fn a_bind_that_fails_leaves_nothing() {
        in_own_process("net::netns::dir::tests::a_bind_that_fails_leaves_nothing", || {
            in_own_mounts(|| {
                let dir = NetnsDir::system();
                let netns = netns();
                arm(u64::MAX, Counted::All, FaultKind::Fail);
                dir.bind("a", &netns, "mark").expect("bound, the directory made for it");
                dir.unbind("a").expect("unbound");
                for at in 1..points() {
                    arm(at, Counted::All, FaultKind::Fail);
                    let bound = dir.bind("b", &netns, "mark");
                    if bound.is_ok() {
                        break;
                    }
                    assert_eq!(dir.list().expect("names"), [""; 0], "after a failure at point {at}");
                }
            });
        });
    }

    #[test]
    fn many_at_once_do_not_stumble_over_each_other() {
        in_own_mounts(|| {
            let dir = NetnsDir::system();
            let netns = netns();
            std::thread::scope(|scope| {
                for no in 0..4 {
                    let (dir, netns) = (&dir, &netns);
                    scope.spawn(move || {
                        for _ in 0..100 {
                            let name = format!("n{no}");
                            dir.prepare().expect("prepared");
                            dir.bind(&name, netns, "mark").expect("bound");
                            assert_eq!(dir.open(&name).expect("opened").id(), netns.id());
                            dir.unbind(&name).expect("unbound");
                            dir.retire().expect("retired or in use");
                        }
                    });
                }
            });
            dir.retire().expect("empty");
            assert!(!dir.dir.exists(), "{:?}", mounts_of(&dir.dir));
        });
    }
}
