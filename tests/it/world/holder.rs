//! Pid 1 of a world: a fork of the test process, in namespaces of its own, that does nothing but hold them.
//!
//! It ends at the end of a pipe that only the test process holds, so also when that is killed; and the kernel ends every
//! process of a pid namespace with its pid 1. (`PR_SET_PDEATHSIG` would do less: it follows the *thread* that made the
//! child, and libtest's threads come and go.) What it does before it waits is a list of steps that was written before the
//! fork, since a fork of a process with threads may neither allocate nor lock.

use std::ffi::{CString, c_int, c_long, c_ulong};
use std::fs::{self, File};
use std::io::{self, Error, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::ptr;

use nix::fcntl::OFlag;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::pipe2;

use super::sys::{checked, clone, errno, pidfd_of, signal};
use super::{Login, TOPO, TOPO_FOR_USER, USER};

/// The namespaces of a world, but for the user namespace, which it has only where the test process isn't root.
pub(super) const NAMESPACES: c_int = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;

/// The process that holds a world; the world ends with it.
#[derive(Debug)]
pub(super) struct Holder {
    pid: i32,
    pidfd: OwnedFd,
    life: Option<File>,
    mapped: bool,
}

/// Why there is no world: what was attempted, and the kernel's answer.
struct Refused {
    doing: String,
    because: Error,
}

impl Refused {
    fn doing(doing: &str) -> impl FnOnce(Error) -> Refused {
        move |because| Refused { doing: doing.to_owned(), because }
    }
}

impl Holder {
    /// Makes the namespaces, sets them up, and returns when all is ready.
    pub(super) fn start(login: Login) -> Holder {
        let mapped = !nix::unistd::geteuid().is_root();
        match Holder::try_start(login, mapped) {
            // Root of a container may lack the rights over the real network but have them over one of its own.
            Err(refused) if refused.because.raw_os_error() == Some(libc::EPERM) && !mapped => {
                Holder::try_start(login, true)
            }
            result => result,
        }
        .unwrap_or_else(|Refused { doing, because }| {
            panic!(
                "no private machine for this test: {doing}: {because}\n\
                 fix: run the tests as root, or allow user namespaces to everyone, by what applies of\n  \
                 sysctl -w user.max_user_namespaces=10000 user.max_net_namespaces=10000\n  \
                 sysctl -w kernel.unprivileged_userns_clone=1\n  \
                 sysctl -w kernel.apparmor_restrict_unprivileged_userns=0\n  \
                 or, in a container, --privileged"
            )
        })
    }

    fn try_start(login: Login, mapped: bool) -> Result<Holder, Refused> {
        let steps = steps(login, mapped);
        let (life_end, life) = pipe2(OFlag::O_CLOEXEC).map_err(Error::from).map_err(Refused::doing("make a pipe"))?;
        let (status, status_end) =
            pipe2(OFlag::O_CLOEXEC).map_err(Error::from).map_err(Refused::doing("make a pipe"))?;
        let user = if mapped { libc::CLONE_NEWUSER } else { 0 };

        // SAFETY: the child makes only system calls, on what was prepared above, and never returns.
        let pid = unsafe { clone(NAMESPACES | user | libc::SIGCHLD) };
        if pid == 0 {
            hold(&steps, life_end.as_raw_fd(), status_end.as_raw_fd());
        }
        if pid < 0 {
            return Err(Refused::doing("make its namespaces")(Error::last_os_error()));
        }
        drop((life_end, status_end));
        let pidfd = pidfd_of(pid).map_err(Refused::doing("watch its first process"))?;
        let mut life = File::from(life);
        if mapped {
            map_ids(pid, login).map_err(Refused::doing("map its user"))?;
        }
        life.write_all(b"!").map_err(Refused::doing("start its first process"))?;
        let holder = Holder { pid, pidfd, life: Some(life), mapped };

        let mut report = [0; 8];
        File::from(status).read_exact(&mut report).map_err(Refused::doing("wait for its first process"))?;
        let [a, b, c, d, error @ ..] = report;
        match steps.get(u32::from_ne_bytes([a, b, c, d]) as usize) {
            Some(failed) => Err(Refused::doing(&failed.says)(Error::from_raw_os_error(i32::from_ne_bytes(error)))),
            None => Ok(holder),
        }
    }

    /// Returns the holder's process id, as the host sees it.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Tells whether the world has a user namespace, and so a single user id.
    pub(super) fn mapped(&self) -> bool {
        self.mapped
    }

    /// Lets go of the holder without killing it, as the death of the test process does.
    pub(super) fn let_go(&mut self) {
        self.life = None;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        signal(self.pidfd(), libc::SIGKILL);
        // Returns when every other process of the world has ended, too.
        waitid(Id::PIDFd(self.pidfd()), WaitPidFlag::WEXITED).ok();
    }
}

fn map_ids(pid: i32, login: Login) -> io::Result<()> {
    let inside = if login == Login::Root { 0 } else { USER };
    let proc = PathBuf::from(format!("/proc/{pid}"));
    fs::write(proc.join("setgroups"), "deny")?;
    fs::write(proc.join("gid_map"), format!("{inside} {} 1", nix::unistd::getegid()))?;
    fs::write(proc.join("uid_map"), format!("{inside} {} 1", nix::unistd::geteuid()))
}

/// One thing that the holder does before it waits, as data.
struct Step {
    says: String,
    call: Call,
}

enum Call {
    Mount {
        source: CString,
        target: CString,
        fstype: CString,
        flags: c_ulong,
        data: CString,
    },
    /// Takes away a mount of the host's that a fresh one would only hide; a user namespace doesn't allow that.
    Detach(CString),
    Directory(CString),
    File(CString),
    Give(CString),
    /// A sysfs that shows the network of the world, with the host's control groups kept in it.
    Sys,
    LoopbackUp,
}

fn steps(login: Login, mapped: bool) -> Vec<Step> {
    let c = |text: &str| CString::new(text).expect("a text of ours has no null byte");
    let mount = |source: &str, target: &str, fstype: &str, flags: c_ulong, data: &str| Step {
        says: format!("mount {target}"),
        call: Call::Mount { source: c(source), target: c(target), fstype: c(fstype), flags, data: c(data) },
    };
    let on_path = |doing: &str, path: &str, call: fn(CString) -> Call| Step {
        says: format!("{doing} {path}"),
        call: call(c(path)),
    };
    let hard = libc::MS_NOSUID | libc::MS_NODEV;
    // Where root and the user are one id, only this keeps the user, who lacks root's capabilities, from writing there.
    let run = if login == Login::User && mapped { "mode=555" } else { "mode=755" };
    let mut steps = vec![mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")];
    steps.extend(mounts_in_run().iter().map(|path| on_path("take away", path, Call::Detach)));
    steps.extend([
        mount("tmpfs", "/run", "tmpfs", hard, run),
        // As on any machine where mount(8) ever ran: it leaves this behind, and a test's use of it is no leak.
        on_path("make", "/run/mount", Call::Directory),
        mount("proc", "/proc", "proc", hard | libc::MS_NOEXEC, ""),
        Step { says: "mount /sys".to_owned(), call: Call::Sys },
        Step { says: "set lo up".to_owned(), call: Call::LoopbackUp },
    ]);
    if login == Login::User {
        let runtime = format!("/run/user/{USER}");
        steps.push(on_path("make", "/run/user", Call::Directory));
        steps.push(on_path("make", &runtime, Call::Directory));
        steps.push(on_path("hand over", &runtime, Call::Give));
        if !mapped {
            steps.push(on_path("make", "/run/world", Call::Directory));
            steps.push(on_path("make", TOPO_FOR_USER, Call::File));
            steps.push(mount(TOPO, TOPO_FOR_USER, "", libc::MS_BIND, ""));
        }
    }
    steps
}

/// Lists the host's mounts in `/run`, the innermost first. Hidden under ours, they would still show in `mountinfo`, where a
/// `/run/netns` of the host's would pass for one of the world's.
fn mounts_in_run() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with("/run")).map(str::to_owned).collect()
}

/// The life of a holder. Runs in the child of a `clone`: no allocation, no lock, no panic, no return.
fn hold(steps: &[Step], life: RawFd, status: RawFd) -> ! {
    keep_only(life, status);
    // SAFETY: system calls, and pointers only to constants and to what the parent prepared.
    unsafe {
        // Out of the terminal's process group: Ctrl-C is for the test process, and reaches us through its death.
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"world".as_ptr());
        libc::umask(0o022);
        libc::chdir(c"/".as_ptr());
        // Orphans of the world are then reaped by the kernel, as a real pid 1 would.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    // The first byte says that our user is mapped; none says that the test process has gone.
    if !byte_from(life) {
        exit();
    }
    let mut report = (u32::MAX, 0);
    for (index, step) in steps.iter().enumerate() {
        if let Err(errno) = step.call.make() {
            report = (u32::try_from(index).unwrap_or(0), errno);
            break;
        }
    }
    let ([a, b, c, d], [e, f, g, h]) = (report.0.to_ne_bytes(), report.1.to_ne_bytes());
    let bytes = [a, b, c, d, e, f, g, h];
    // SAFETY: eight bytes from an array of eight, then a descriptor of ours.
    unsafe {
        libc::write(status, bytes.as_ptr().cast(), bytes.len());
        libc::close(status);
    }
    while byte_from(life) {}
    exit();
}

fn exit() -> ! {
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Closes all but two descriptors. One that stays open here would keep another world's pipe, or the test's output, open.
fn keep_only(one: RawFd, two: RawFd) {
    let (low, high) = (one.min(two), one.max(two));
    let close = |first: RawFd, last: RawFd| {
        if first <= last {
            // SAFETY: nothing of this process uses the descriptors between the two.
            unsafe { libc::syscall(libc::SYS_close_range, c_long::from(first), c_long::from(last), 0 as c_long) };
        }
    };
    close(0, low - 1);
    close(low + 1, high - 1);
    close(high + 1, RawFd::MAX);
}

/// Waits for one byte; returns false at the end of the pipe.
fn byte_from(fd: RawFd) -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: one byte into a variable of one byte.
        match unsafe { libc::read(fd, ptr::from_mut(&mut byte).cast(), 1) } {
            1 => return true,
            -1 if errno() == libc::EINTR => {}
            _ => return false,
        }
    }
}

impl Call {
    /// Makes the call; in the child, so only by system calls.
    fn make(&self) -> Result<(), c_int> {
        // SAFETY: every pointer is to a null-terminated string or a structure that outlives its call.
        unsafe {
            match self {
                Call::Mount { source, target, fstype, flags, data } => {
                    let (source, target, fstype) = (source.as_ptr(), target.as_ptr(), fstype.as_ptr());
                    ok(libc::mount(source, target, fstype, *flags, data.as_ptr().cast()))
                }
                Call::Detach(path) => {
                    libc::umount2(path.as_ptr(), libc::MNT_DETACH);
                    Ok(())
                }
                Call::Directory(path) => ok(libc::mkdir(path.as_ptr(), 0o755)),
                Call::File(path) => ok(libc::mknod(path.as_ptr(), libc::S_IFREG | 0o755, 0)),
                Call::Give(path) => {
                    ok(libc::chmod(path.as_ptr(), 0o700))?;
                    ok(libc::chown(path.as_ptr(), USER, USER))
                }
                Call::Sys => mount_sys(),
                Call::LoopbackUp => loopback_up(),
            }
        }
    }
}

fn ok(result: c_int) -> Result<(), c_int> {
    checked(result).map_err(|err| err.raw_os_error().unwrap_or(libc::EIO))
}

fn mount_sys() -> Result<(), c_int> {
    let (sys, groups, sysfs) = (c"/sys".as_ptr(), c"/sys/fs/cgroup".as_ptr(), c"sysfs".as_ptr());
    let how = c_long::from(libc::AT_RECURSIVE) | 1 | c_long::from(libc::O_CLOEXEC); // 1: OPEN_TREE_CLONE
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: system calls with pointers to constants.
    unsafe {
        let tree = libc::syscall(libc::SYS_open_tree, c_long::from(libc::AT_FDCWD), groups, how);
        ok(libc::mount(sysfs, sys, sysfs, flags, ptr::null()))?;
        if tree < 0 {
            return Ok(()); // A host without control groups.
        }
        let (here, empty) = (c_long::from(libc::AT_FDCWD), c"".as_ptr());
        let from_itself: c_long = 4; // MOVE_MOUNT_F_EMPTY_PATH
        let moved = libc::syscall(libc::SYS_move_mount, tree, empty, here, groups, from_itself);
        ok(if moved < 0 { -1 } else { 0 })
    }
}

fn loopback_up() -> Result<(), c_int> {
    // SAFETY: the structure is plain data, for which zeros are valid, and the kernel reads no more than it.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        ok(socket)?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = from.cast_signed() as _;
        }
        request.ifr_ifru.ifru_flags = libc::IFF_UP as _;
        ok(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, ptr::from_mut(&mut request)))?;
        ok(libc::close(socket))
    }
}
