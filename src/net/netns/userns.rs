//! A private machine for an ordinary user: a user, mount, pid and network namespace, held by a small process that is
//! pid 1 in it. End that process and the kernel ends every process inside and frees every namespace (pid_namespaces(7)).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, getegid, geteuid, setsid};

use crate::net::process::fresh;
use crate::net::{Error, ProcessId, Result};

/// The namespaces that a sandbox has of its own.
const OWN: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNET);

/// What the holder and the process that starts it say to each other, a byte each.
mod word {
    pub(super) const UNSHARED: u8 = b'u';
    pub(super) const MAPPED: u8 = b'm';
    pub(super) const PID: u8 = b'p';
    pub(super) const GO: u8 = b'g';
    pub(super) const READY: u8 = b'r';
    pub(super) const KEEP: u8 = b'k';
    pub(super) const FAILED: u8 = b'!';
}

/// A sandbox that this process started, and that ends with it unless it is kept.
#[derive(Debug)]
pub struct Sandbox {
    holder: ProcessId,
    lifeline: ChildStdin,
}

impl Sandbox {
    /// Starts a sandbox by running `program` with `args`, which must call `hold` at once.
    ///
    /// Like `unshare --user --map-root-user --mount --pid --fork --net --mount-proc`. As root all ids stay as they are;
    /// as an ordinary user the caller's own becomes root inside. Fails where the kernel forbids user namespaces:
    /// EPERM, ENOSPC (user.max_user_namespaces) or EINVAL.
    pub fn start(program: &Path, args: &[&str]) -> Result<Sandbox> {
        let failed = |error| Error::io("start the sandbox's holder", error);
        let mut child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let started = Sandbox::introduce(&mut child);
        // The first process only forks the holder, and ends.
        let _ = child.wait();
        started
    }

    fn introduce(child: &mut Child) -> Result<Sandbox> {
        let broken = || Error::new("talk to the sandbox's holder", libc::EPIPE);
        let (Some(mut lifeline), Some(mut answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(broken());
        };
        expect(&mut answers, word::UNSHARED)?;
        write_maps(child.id())?;
        lifeline.write_all(&[word::MAPPED]).map_err(|_| broken())?;
        expect(&mut answers, word::PID)?;
        let mut pid = [0; 4];
        answers.read_exact(&mut pid).map_err(|_| broken())?;
        let holder = ProcessId::of(u32::from_le_bytes(pid))?;
        lifeline.write_all(&[word::GO]).map_err(|_| broken())?;
        expect(&mut answers, word::READY)?;
        Ok(Sandbox { holder, lifeline })
    }

    /// Returns the process that holds the sandbox.
    pub fn holder(&self) -> ProcessId {
        self.holder
    }

    /// Lets the sandbox outlive this process.
    pub fn keep(mut self) -> Result<()> {
        self.lifeline.write_all(&[word::KEEP]).map_err(|error| Error::io("keep the sandbox", error))
    }
}

fn expect(answers: &mut impl Read, wanted: u8) -> Result<()> {
    let mut answer = [0];
    let read = answers.read_exact(&mut answer);
    match (read, answer[0]) {
        (Ok(()), got) if got == wanted => Ok(()),
        (Ok(()), word::FAILED) => {
            let mut text = Vec::new();
            let _ = answers.read_to_end(&mut text);
            let (errno, doing) = text.split_at(text.len().min(4));
            let errno = errno.try_into().map_or(libc::EPROTO, i32::from_le_bytes);
            Err(Error::new(String::from_utf8_lossy(doing), errno))
        }
        _ => Err(Error::new("talk to the sandbox's holder", libc::EPIPE)),
    }
}

/// Maps the ids of the user namespace of `pid`: all of ours as they are if we are root, else ours alone, to root
/// (user_namespaces(7), "Defining user and group ID mappings").
fn write_maps(pid: u32) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::write(&path, text).map_err(|error| Error::io(format!("write `{path}`"), error))
    };
    if geteuid().is_root() {
        write("uid_map", &identity("/proc/self/uid_map")?)?;
        return write("gid_map", &identity("/proc/self/gid_map")?);
    }
    write("uid_map", &format!("0 {} 1\n", geteuid()))?;
    write("setgroups", "deny")?;
    write("gid_map", &format!("0 {} 1\n", getegid()))
}

/// Returns the user that this process acts as, as the user namespace above has it if this is root of one without rights over what is
/// around it: there, root is any user.
pub fn uid_outside() -> u32 {
    let uid = geteuid().as_raw();
    let map = if owns_namespaces() {
        String::new()
    } else {
        std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
    };
    let outside = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        uid.checked_sub(inside).filter(|offset| *offset < count).map(|offset| outside + offset)
    });
    outside.unwrap_or(uid)
}

/// Tells whether the network and mount namespaces of this process belong to its user namespace, or to one below: else its capabilities
/// are none over them (user_namespaces(7), "Interaction of user namespaces and other types of namespaces").
pub fn owns_namespaces() -> bool {
    /// `_IO(0xb7, 0x1)` of linux/nsfs.h. EPERM where the owner is an ancestor (ioctl_nsfs(2)).
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    ["/proc/self/ns/net", "/proc/self/ns/mnt"].into_iter().filter_map(|path| File::open(path).ok()).all(|file| {
        // SAFETY: this ioctl has no argument, and the descriptor is open for the whole call.
        let owner = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_USERNS) };
        if owner < 0 {
            return nix::errno::Errno::last() != nix::errno::Errno::EPERM;
        }
        // SAFETY: the ioctl has just opened this descriptor, which nothing else has.
        drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(owner) });
        true
    })
}

fn identity(path: &str) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(format!("read `{path}`"), error))?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(inside), _, Some(count)) => Some(format!("{inside} {inside} {count}\n")),
            _ => None,
        }
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Becomes the holder of a sandbox; to be called at once by a process that `Sandbox::start` started, with one thread.
///
/// Returns the exit code, when the process that started it ended without keeping it, or at a failure.
pub fn hold() -> u8 {
    let Err(error) = try_hold() else { return 0 };
    let mut text = vec![word::FAILED];
    text.extend(error.errno().to_le_bytes());
    text.extend(error.doing().as_bytes());
    let _ = say(&text);
    1
}

fn try_hold() -> Result<()> {
    fresh::be_nobodys().map_err(failed("close what the caller has open"))?;
    unshare(OWN).map_err(failed("make a user namespace"))?;
    say(&[word::UNSHARED])?;
    if hear()? != Some(word::MAPPED) {
        return Ok(());
    }
    // SAFETY: the process has one thread, as the caller promises, so the child may go on as any process may.
    match unsafe { fork() }.map_err(failed("fork the sandbox's holder"))? {
        ForkResult::Parent { child } => {
            let mut text = vec![word::PID];
            text.extend((child.as_raw() as u32).to_le_bytes());
            say(&text)
        }
        ForkResult::Child => be_pid_1(),
    }
}

fn failed(doing: &'static str) -> impl Fn(nix::Error) -> Error {
    move |errno| Error::new(doing, errno as i32)
}

/// Writes to the process that started this one, past any buffer: a fork must not copy one.
fn say(bytes: &[u8]) -> Result<()> {
    match nix::unistd::write(std::io::stdout(), bytes) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Error::new("answer", errno as i32)),
    }
}

/// Waits for a byte from the process that started this one; nothing once that has ended.
fn hear() -> Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match nix::unistd::read(std::io::stdin(), &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(Error::new("listen", errno as i32)),
        }
    }
}

fn be_pid_1() -> Result<()> {
    if hear()? != Some(word::GO) {
        return Ok(());
    }
    setsid().map_err(failed("start a session"))?;
    mount_proc_and_run()?;
    std::env::set_current_dir("/").map_err(|error| Error::io("go to /", error))?;
    super::set_lo_up()?;
    // SAFETY: no handler is installed. Ignored, SIGCHLD makes the kernel reap what ends in here.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.map_err(failed("ignore SIGCHLD"))?;
    say(&[word::READY])?;
    // The terminal, or whoever reads the script's output, must not wait for this process.
    let null =
        File::options().read(true).write(true).open("/dev/null").map_err(|error| Error::io("open /dev/null", error))?;
    nix::unistd::dup2_stdout(&null).map_err(failed("close the output"))?;
    nix::unistd::dup2_stderr(&null).map_err(failed("close the output"))?;
    if hear()? == Some(word::KEEP) {
        nix::unistd::dup2_stdin(&null).map_err(failed("close the input"))?;
        loop {
            nix::unistd::pause();
        }
    }
    Ok(())
}

/// Mounts what a process in the sandbox expects to be its own: /proc, /sys where the kernel lets us, and /run/netns.
fn mount_proc_and_run() -> Result<()> {
    let none = None::<&str>;
    // As a slave: what the host unmounts goes here too, what is mounted here stays here (mount_namespaces(7)).
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(failed("make the mounts private"))?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, none).map_err(failed("mount /proc"))?;
    // Some containers mask parts of /sys, and the kernel then refuses a fresh one. Only tools that look for devices
    // under /sys/class/net miss it.
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), quiet, none);
    if Path::new("/run/netns").is_dir() {
        return mount(Some("tmpfs"), "/run/netns", Some("tmpfs"), quiet, Some("mode=0755"))
            .map_err(failed("mount /run/netns"));
    }
    mount_over_run()
}

/// Mounts a fresh /run in which all of the old one is seen: the one way to have a /run/netns where an ordinary user
/// can't make that directory.
fn mount_over_run() -> Result<()> {
    let none = None::<&str>;
    let io = |error| Error::io("mount /run", error);
    let old = File::open("/run").map_err(io)?;
    let old = format!("/proc/self/fd/{}", old.as_raw_fd());
    let entries: Vec<_> = std::fs::read_dir(&old).map_err(io)?.collect::<std::io::Result<_>>().map_err(io)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
        .map_err(failed("mount /run"))?;
    for entry in entries {
        let (from, to) = (Path::new(&old).join(entry.file_name()), Path::new("/run").join(entry.file_name()));
        let kind = entry.file_type().map_err(io)?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from).map_err(io)?, &to).map_err(io)?;
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir(&to).map_err(io)?;
        } else {
            File::create(&to).map_err(io)?;
        }
        mount(Some(&from), &to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(failed("mount /run"))?;
    }
    std::fs::create_dir("/run/netns").map_err(io)
}

/// Enters the sandbox that `holder` holds: from here on this process is root in it, and its children have its pids.
///
/// Like `nsenter --target PID --user --mount --pid --net`. The process must have one thread. The working directory stays,
/// if it is there too.
pub fn enter(holder: ProcessId) -> Result<()> {
    let doing = "enter the sandbox";
    let io = |error| Error::io(doing, error);
    let cwd = std::env::current_dir();
    let open = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", holder.pid)).map_err(io);
    let namespaces = [
        (open("user")?, CloneFlags::CLONE_NEWUSER),
        (open("pid")?, CloneFlags::CLONE_NEWPID),
        (open("net")?, CloneFlags::CLONE_NEWNET),
        (open("mnt")?, CloneFlags::CLONE_NEWNS),
    ];
    if !holder.is_alive() {
        return Err(Error::new(doing, libc::ESRCH));
    }
    for (file, kind) in &namespaces {
        setns(file.as_fd(), *kind).map_err(|errno| Error::new(doing, errno as i32))?;
    }
    if let Ok(cwd) = cwd {
        let _ = std::env::set_current_dir(cwd);
    }
    Ok(())
}
