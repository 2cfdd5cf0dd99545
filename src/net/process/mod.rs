//! Processes: who they are, who is in a namespace, and how they are ended.

pub mod bounded_log;
pub(super) mod cgroup;
pub(super) mod descriptors;
pub(super) mod etc;
pub(super) mod foreground;
pub(super) mod fresh;
pub mod run;
pub mod signal;
pub mod supervise;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Error, NetnsId, Result, fault};

/// How long a process that was killed may take to be gone. It takes long only in the kernel: a stuck disk, a core dump.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// A process, told from later ones of the same number by the time that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    pub start: u64,
}

impl ProcessId {
    /// Returns the process that has this number now. ESRCH if there is none.
    pub fn of(pid: u32) -> Result<ProcessId> {
        let doing = || format!("look at process {pid}");
        match stat(pid) {
            Ok(stat) => Ok(ProcessId { pid, start: stat.start }),
            Err(error) if is_over(&error) => Err(Error::new(doing(), libc::ESRCH)),
            Err(error) => Err(Error::io(doing(), error)),
        }
    }

    /// Returns the calling process.
    pub fn current() -> Result<ProcessId> {
        ProcessId::of(std::process::id())
    }

    /// Tells whether it still runs; one that only waits for its parent to take notice does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|stat| stat.start == self.start && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Tells whether it was started by one of `others`, or by one that was, as far as those still run.
    pub fn comes_from(&self, others: &[ProcessId]) -> bool {
        let mut pid = self.pid;
        // The first process of all has no parent: 0.
        while let Ok(parent) = stat(pid).map(|stat| stat.parent)
            && parent != 0
        {
            if others.iter().any(|other| other.pid == parent && other.is_alive()) {
                return true;
            }
            pid = parent;
        }
        false
    }
}

/// What /proc/PID/stat says of a process.
struct Stat {
    state: char,
    parent: u32,
    /// Its process group and its session.
    group: u32,
    session: u32,
    start: u64,
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces and parentheses itself.
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let mut fields = fields.split(' ');
    // The state is field 3.
    let state = fields.next().and_then(|state| state.chars().next());
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let (parent, group, session) = (number(), number(), number());
    let start = fields.nth(22 - 7).and_then(|start| start.parse().ok());
    let read = || Some(Stat { state: state?, parent: parent?, group: group?, session: session?, start: start? });
    read().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is odd")))
}

fn is_over(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Lists the processes in any of the namespaces, in the order of their numbers, without the calling one.
///
/// Like `ip netns pids`. Processes that the caller may not look at are left out.
pub fn in_netns(ids: &BTreeSet<NetnsId>) -> Result<Vec<ProcessId>> {
    list(|pid| is_in(pid, ids))
}

/// Lists the processes whose parent is `pid`, in the order of their numbers.
///
/// Like `pgrep -P PID`.
pub fn children_of(pid: u32) -> Vec<ProcessId> {
    alive().into_iter().filter(|(_, stat)| stat.parent == pid).map(|(child, _)| child).collect()
}

/// Lists the processes that `pid` has started, directly or through others, parents first.
pub fn descendants_of(pid: u32) -> Vec<ProcessId> {
    let all = alive();
    let mut found: Vec<ProcessId> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for (child, _) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            found.push(*child);
            parents.push(child.pid);
        }
    }
    found
}

/// Lists all processes that have not ended.
fn alive() -> Vec<(ProcessId, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found =
        pids.filter_map(|pid| Some((pid, stat(pid).ok()?))).filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X'));
    let mut found: Vec<(ProcessId, Stat)> =
        found.map(|(pid, stat)| (ProcessId { pid, start: stat.start }, stat)).collect();
    found.sort_by_key(|(process, _)| process.pid);
    found
}

/// Lists the processes that are wanted, without the calling one.
fn list(wanted: impl Fn(u32) -> bool) -> Result<Vec<ProcessId>> {
    let entries = fs::read_dir("/proc").map_err(|error| Error::io("list processes", error))?;
    let mut processes: Vec<ProcessId> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != std::process::id() && wanted(pid))
        .filter_map(|pid| ProcessId::of(pid).ok())
        .collect();
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// Lists all processes but the calling one and the first, each as its command line, or its name in brackets where it has none.
///
/// Like `ps -eo args`. One that only waits for its parent to take notice is left out.
pub fn all() -> Result<Vec<String>> {
    let alive = list(|pid| pid != 1)?.into_iter().filter(ProcessId::is_alive);
    Ok(alive.map(|process| words(process.pid)).collect())
}

/// Returns the command line of a process, or its name in brackets where it has none.
///
/// Like `ps -o args= -p PID`.
pub fn words(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    if !line.is_empty() {
        return line;
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("[{}]", name.trim_end())
}

/// Splits processes by their pid namespace: first those that are in the caller's, or were started by one of those among
/// `processes`; then the others, which are those of containers.
///
/// A process that the caller may not look at is among the others.
pub fn by_pid_namespace(processes: Vec<ProcessId>) -> (Vec<ProcessId>, Vec<ProcessId>) {
    let ours = pid_namespace("self");
    let (here, others): (Vec<ProcessId>, Vec<ProcessId>) =
        processes.into_iter().partition(|process| ours.is_some() && pid_namespace(&process.pid.to_string()) == ours);
    let (started, others): (Vec<ProcessId>, Vec<ProcessId>) =
        others.into_iter().partition(|process| process.comes_from(&here));
    (here.into_iter().chain(started).collect(), others)
}

/// A process, by its number in a pid namespace that need not be the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignProcess {
    process: ProcessId,
    /// The pid namespace, by its device and inode.
    namespace: (u64, u64),
}

/// The inode of the first pid namespace, PROC_PID_INIT_INO (include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

impl ForeignProcess {
    /// Returns the calling process.
    pub fn current() -> Result<ForeignProcess> {
        let process = ProcessId::current()?;
        let namespace = pid_namespace("self").ok_or_else(|| Error::new("look at the pid namespace", libc::ENOENT))?;
        Ok(ForeignProcess { process, namespace })
    }

    /// Tells whether it has ended for sure. From another pid namespace that is known only in the first one, which sees all processes,
    /// and only once none of the process's own namespace is left.
    pub fn has_ended(&self) -> bool {
        let here = pid_namespace("self");
        if here == Some(self.namespace) {
            return !self.process.is_alive();
        }
        if here.is_none_or(|(_, inode)| inode != FIRST_PID_NAMESPACE) || is_nested(1) != Some(false) {
            return false;
        }
        let may_be_in_it = |pid: u32| {
            is_nested(pid) != Some(false) && pid_namespace(&pid.to_string()).is_none_or(|other| other == self.namespace)
        };
        list(may_be_in_it).is_ok_and(|left| left.is_empty())
    }

    /// Returns it as text.
    pub(super) fn to_text(self) -> String {
        let ForeignProcess { process, namespace: (device, inode) } = self;
        format!("{} {} {device} {inode}", process.pid, process.start)
    }

    /// Reads it back.
    pub(super) fn of_text(text: &str) -> Option<ForeignProcess> {
        let words: Vec<&str> = text.split(' ').collect();
        let [pid, start, device, inode] = words.as_slice() else { return None };
        let process = ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? };
        Some(ForeignProcess { process, namespace: (device.parse().ok()?, inode.parse().ok()?) })
    }
}

/// Tells whether a process is in a pid namespace below the caller's; none where that can't be seen (proc_pid_status(5), `NSpid`).
fn is_nested(pid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(numbers.split_whitespace().count() > 1)
}

fn pid_namespace(pid: &str) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Returns those of `processes` that are in a process group or session of one of `leaders`, or were started by one that still
/// runs; and that are in the caller's pid namespace and act as the user `uid` alone, so that they are no set-user-ID program of
/// another user's.
pub fn led_by(leaders: &[ProcessId], processes: &[ProcessId], uid: u32) -> Vec<ProcessId> {
    // The number of a group is not given again while the group lasts (credentials(7)). Where it belongs to a process that started at
    // another time, the group is a later one.
    let leads = |number: u32| {
        let is_later = |start: u64| stat(number).is_ok_and(|now| now.start != start);
        leaders.iter().any(|leader| leader.pid == number && !is_later(leader.start))
    };
    let is_led = |process: &ProcessId| {
        leaders.contains(process)
            || stat(process.pid).is_ok_and(|stat| leads(stat.group) || leads(stat.session))
            || process.comes_from(leaders)
    };
    let ours = pid_namespace("self");
    let is_ours = |process: &ProcessId| {
        ours.is_some() && pid_namespace(&process.pid.to_string()) == ours && acts_as(process.pid, uid)
    };
    processes.iter().copied().filter(|process| is_ours(process) && is_led(process)).collect()
}

/// Tells whether the real, effective, saved and file system user of a process are all `uid` (proc_pid_status(5)).
fn acts_as(pid: u32, uid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("Uid:")) else { return false };
    line.split_whitespace().count() == 4 && line.split_whitespace().all(|id| id.parse() == Ok(uid))
}

/// Lists the processes, without the calling one, that were started with `NAME=VALUE` in their environment for a value that
/// `wanted` accepts, in the order of their numbers.
///
/// Like `grep -lz '^NAME=' /proc/*/environ`. Processes that the caller may not look at are left out.
pub fn with_env(name: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<ProcessId>> {
    let has = |pid: u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| {
            let entry = std::str::from_utf8(entry).unwrap_or_default();
            entry.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).is_some_and(&wanted)
        })
    };
    list(has)
}

fn is_in(pid: u32, ids: &BTreeSet<NetnsId>) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|meta| ids.contains(&NetnsId { dev: meta.dev(), ino: meta.ino() }))
}

/// Ends processes: asks them (SIGTERM), waits up to `grace`, then kills them (SIGKILL) and waits up to 5 s; returns those
/// that remain.
///
/// Each is held by a descriptor from before its start time is compared, so that no later process of the same number is
/// ever hit (pidfd_open(2)). Blocks the calling thread.
pub fn end(processes: &[ProcessId], grace: Duration) -> Result<Vec<ProcessId>> {
    let mut left = Vec::new();
    for process in processes {
        left.extend(hold(*process)?);
    }
    for (signal, within) in [(libc::SIGTERM, grace), (libc::SIGKILL, KILLED_WITHIN)] {
        for held in &left {
            send(held, signal)?;
        }
        wait(&mut left, within)?;
    }
    Ok(left.into_iter().map(|held| held.process).collect())
}

/// Waits until a process is over, however long that takes. Blocks the calling thread.
///
/// Like `tail --pid=PID -f /dev/null`.
pub fn wait_over(process: ProcessId) -> Result<()> {
    let Some(held) = hold(process)? else { return Ok(()) };
    loop {
        let mut fds = [PollFd::new(held.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::new(format!("wait for process {}", process.pid), errno as i32)),
        }
    }
}

/// Sends a signal to a process; tells whether it was there to get it.
///
/// Like `kill -SIGNAL PID`.
pub fn signal(process: ProcessId, signal: i32) -> Result<bool> {
    let Some(held) = hold(process)? else { return Ok(false) };
    send(&held, signal).map(|()| true)
}

/// Waits until a process is over or the time is up, and tells whether it is over.
pub async fn over_within(process: ProcessId, within: Option<Duration>) -> Result<bool> {
    let Some(held) = hold(process)? else { return Ok(true) };
    let doing = format!("wait for process {}", process.pid);
    // SAFETY: the descriptor is its owner's, which gives out the same one as long as it lives.
    let fd = unsafe { AsyncFd::register_with_interest(held.fd, Interest::READABLE) }
        .map_err(|error| Error::io(doing.clone(), error.into()))?;
    let over = async { fd.readable().await.map(|_| true) };
    let over = match within {
        Some(within) => tokio::time::timeout(within, over).await.unwrap_or(Ok(false)),
        None => over.await,
    };
    over.map_err(|error| Error::io(doing, error))
}

/// Opens a process, so that its end can be waited for beside other things: the descriptor can be read then (pidfd_open(2)).
/// One that is over is none.
pub fn open(process: ProcessId) -> Result<Option<OwnedFd>> {
    Ok(hold(process)?.map(|held| held.fd))
}

struct Held {
    process: ProcessId,
    fd: OwnedFd,
}

/// Opens a process; one that is over is none.
fn hold(process: ProcessId) -> Result<Option<Held>> {
    // SAFETY: pidfd_open takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid as libc::pid_t, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        if is_over(&error) {
            return Ok(None);
        }
        return Err(Error::io(format!("open process {}", process.pid), error));
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    Ok(process.is_alive().then_some(Held { process, fd }))
}

fn send(held: &Held, signal: libc::c_int) -> Result<()> {
    let doing = format!("send signal {signal} to process {}", held.process.pid);
    fault::point(&doing)?;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null siginfo is allowed (pidfd_send_signal(2)).
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held.fd.as_raw_fd(), signal, none, 0) };
    if sent == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if is_over(&error) => Ok(()),
        error => Err(Error::io(doing, error)),
    }
}

/// Waits until all are over or the time is up, and drops those that are over.
fn wait(left: &mut Vec<Held>, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    while !left.is_empty() {
        let mut fds: Vec<PollFd<'_>> =
            left.iter().map(|held| PollFd::new(held.fd.as_fd(), PollFlags::POLLIN)).collect();
        let remaining = deadline.saturating_duration_since(Instant::now());
        // Rounded up: with a rest of less than a millisecond this would spin.
        let timeout = PollTimeout::try_from(remaining.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(errno) => return Err(Error::new("wait for processes to end", errno as i32)),
        }
        let mut over = fds.iter().map(|fd| fd.any() == Some(true)).collect::<Vec<_>>().into_iter();
        left.retain(|_| over.next() != Some(true));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::net::testing::netns;
    use crate::net::{Netns, OpenFiles, command_in};

    /// Starts a shell script in `netns` that says a line when it is ready.
    fn start(netns: &Netns, script: &str) -> (Child, ProcessId) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        command_in(netns, &mut command, OpenFiles::None);
        let mut child = command.spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let process = ProcessId::of(child.id()).expect("it runs");
        (child, process)
    }

    #[test]
    fn who_one_is_and_whether_one_lives() {
        let me = ProcessId::current().expect("me");
        assert!(me.is_alive() && me.pid == std::process::id());
        assert!(!ProcessId { start: me.start + 1, ..me }.is_alive(), "of the same number, but another");
        assert_eq!(ProcessId::of(u32::MAX).expect_err("nobody").errno(), libc::ESRCH);
        let json = serde_json::to_string(&me).expect("JSON");
        assert_eq!(serde_json::from_str::<ProcessId>(&json).expect("read"), me);
    }

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let netns = netns();
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("a) R 1 (b");
        let script = format!("cp $(command -v sleep) '{0}'; echo; exec '{0}' 1000", program.display());
        let (mut child, process) = start(&netns, &script);
        assert!(process.is_alive());
        assert_eq!(end(&[process], Duration::from_secs(10)).expect("ended"), []);
        child.wait().expect("reaped");
    }

    #[test]
    fn those_in_a_namespace_are_found_and_ended() {
        let netns = netns();
        assert_eq!(in_netns(&[netns.id()].into()).expect("nobody"), []);
        let (mut a, first) = start(&netns, "echo; exec sleep 1000");
        // SIGTERM, ignored by the shell, stays ignored after exec.
        let (mut b, second) = start(&netns, "trap '' TERM; echo; exec sleep 1000");
        let mut found = in_netns(&[netns.id()].into()).expect("two");
        found.sort_by_key(|process| process.pid);
        let mut both = [first, second];
        both.sort_by_key(|process| process.pid);
        assert_eq!(found, both);
        assert_eq!(end(&found, Duration::from_millis(20)).expect("ended"), []);
        // Both still wait for their parent, and are no longer alive for all that.
        assert!(!first.is_alive() && !second.is_alive());
        assert_eq!(in_netns(&[netns.id()].into()).expect("nobody"), []);
        let signal = |child: &mut Child| std::os::unix::process::ExitStatusExt::signal(&child.wait().expect("reaped"));
        assert_eq!((signal(&mut a), signal(&mut b)), (Some(libc::SIGTERM), Some(libc::SIGKILL)));
        assert_eq!(end(&both, Duration::ZERO).expect("nothing to do"), []);
    }

    #[test]
    fn a_later_process_of_the_same_number_is_let_be() {
        let netns = netns();
        let (mut child, process) = start(&netns, "echo; exec sleep 1000");
        let earlier = ProcessId { start: process.start - 1, ..process };
        assert_eq!(end(&[earlier], Duration::ZERO).expect("nothing to do"), []);
        assert!(process.is_alive());
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    #[test]
    fn the_caller_is_never_among_them() {
        let ours = Netns::current().expect("ours").id();
        assert!(in_netns(&[ours].into()).expect("many").iter().all(|process| process.pid != std::process::id()));
    }
}
