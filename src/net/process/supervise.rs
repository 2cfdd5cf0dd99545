//! Supervisors: each process that is started to run beside a script has a small one of its own, which outlives the script.
//!
//! It is its process's parent and that of all orphans below (PR_SET_CHILD_SUBREAPER), so that it knows how the process ended,
//! and nothing that the process starts gets away from it: not by a fork into the background, not by a cleared environment. It
//! copies their output into a bounded log, keeps a record in a file, and ends when all of them have ended. If it is killed
//! itself, the process goes with it (PR_SET_PDEATHSIG), and the control group tells who else there is.
//!
//! It is told what to do by signals: SIGTERM has it end all below it, SIGTERM first; a real-time signal passes on the signal of
//! the number above `PASS_ON`, and for SIGKILL it goes on killing until nobody is left.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid, setsid};
use serde::{Deserialize, Serialize};

use super::bounded_log::LogWriter;
use super::cgroup::Cgroup;
use super::fresh::{self, OpenFiles};
use crate::net::{Error, EtcFile, Netns, ProcessId, Result, fault, process};

/// How long the processes have between SIGTERM and SIGKILL when the supervisor is told to end; less than whoever ends a lab's
/// processes gives the supervisor itself.
const GRACE: Duration = Duration::from_secs(1);
/// How often those that don't die of SIGKILL, or were started meanwhile, are killed again.
const KILL_AGAIN: Duration = Duration::from_millis(50);
/// The signal above which those stand that are passed on: the last one that glibc keeps for itself.
const PASS_ON: i32 = 33;
/// The highest signal that can be passed on: the last one with a name of its own.
const PASSED_ON_MAX: i32 = 31;

/// What is to be started, and where its files are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Supervised {
    /// The program, looked for in PATH, and its arguments.
    pub argv: Vec<String>,
    /// What is set in its environment besides the caller's own.
    pub env: Vec<(String, String)>,
    /// Its working directory; the caller's own if none is given.
    pub cwd: Option<PathBuf>,
    /// What it can read; nothing (/dev/null) if none is given.
    pub stdin: Option<String>,
    /// The log of its output.
    pub log: PathBuf,
    /// Where its supervisor keeps the record.
    pub record: PathBuf,
    /// The files of /etc that it sees otherwise.
    #[serde(default)]
    pub etc: Vec<EtcFile>,
    /// The control group that it joins.
    pub cgroup: Option<PathBuf>,
}

/// What is known of a supervised process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The supervisor.
    pub supervisor: ProcessId,
    /// The process; of one that forked into the background, what it left there.
    pub process: ProcessId,
    /// How it ended, once it has and nothing that it started is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code; 128 and the signal's number if one ended it, as a shell has it.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl ProcessRecord {
    /// Reads the record in a file; none if there is no such file.
    pub fn read(path: &Path) -> Result<Option<ProcessRecord>> {
        let doing = || format!("read `{}`", path.display());
        match crate::net::regular::read(path, crate::net::regular::STATE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(doing(), error)),
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| Error::new(doing(), libc::EPROTO).saying(error.to_string())),
        }
    }

    /// Writes it beside the file, whose place it then takes.
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(&beside, path)
    }

    /// Passes a signal on to the process and all that it has started; tells whether the supervisor was still there.
    pub fn pass_on(&self, signal: i32) -> Result<bool> {
        if !(1..=PASSED_ON_MAX).contains(&signal) {
            return Err(Error::new(format!("send signal {signal}"), libc::EINVAL));
        }
        process::signal(self.supervisor, PASS_ON + signal)
    }
}

/// Tells whether the supervisor whose log is `log` is at work, from within another pid namespace too.
pub fn is_at_work(log: &Path) -> bool {
    // It holds a lock on the file for as long as it lives.
    crate::net::regular::open(log, File::options().read(true))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

/// What the supervisor answers once.
#[derive(Debug, Serialize, Deserialize)]
enum SupervisorReply {
    Started(ProcessRecord),
    Failed { errno: i32, doing: String, text: String },
}

/// Starts a process in a namespace, under a supervisor: this program, run with the words `words`, which must call `supervise`
/// at once. Returns when the process is running its own program.
///
/// Both bear `mark` in their environment. Like `ip netns exec NETNS setsid COMMAND > LOG 2>&1 &`. ENOENT if there is no such
/// program, EACCES if it is not executable.
pub fn start(netns: &Netns, what: &Supervised, mark: (&str, &str), words: &[&str]) -> Result<ProcessRecord> {
    let doing = format!("start `{}`", what.argv.first().map_or("", String::as_str));
    fault::point(&doing)?;
    let failed = |error| Error::io(format!("{doing}, its supervisor"), error);
    let mut command = Command::new("/proc/self/exe");
    command.arg0("topo").args(words).env(mark.0, mark.1);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    crate::net::command_in(netns, &mut command, OpenFiles::None);
    let mut child = command.spawn().map_err(failed)?;
    let mut text = Vec::new();
    let talked = match (child.stdin.take(), child.stdout.take()) {
        (Some(mut to), Some(mut from)) => {
            serde_json::to_vec(what).map_err(io::Error::other).and_then(|spec| to.write_all(&spec)).and_then(|()| {
                drop(to);
                from.read_to_end(&mut text)
            })
        }
        _ => Ok(0),
    };
    // The first process only forks the supervisor, and ends.
    child.wait().map_err(failed)?;
    talked.map_err(failed)?;
    match serde_json::from_slice(&text) {
        Ok(SupervisorReply::Started(record)) => Ok(record),
        Ok(SupervisorReply::Failed { errno, doing, text }) => Err(Error::new(doing, errno).saying(text)),
        Err(_) => Err(Error::new(doing, libc::EPIPE).saying("its supervisor ended without an answer")),
    }
}

/// Becomes a supervisor; to be called at once by a process that `start` started, with one thread. Returns the exit code.
pub fn supervise() -> u8 {
    let mut text = Vec::new();
    // What started this process may be killed in the middle of it: then nothing was asked for.
    let read = io::stdin().read_to_end(&mut text);
    let Ok(what) = read.and_then(|_| Ok(serde_json::from_slice::<Supervised>(&text)?)) else { return 2 };
    // SAFETY: the process has one thread, as the caller promises, so the child may go on as any process may.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { .. }) => return 0,
        Ok(ForkResult::Child) => {}
        Err(errno) => {
            answer(&failure(&Error::new("fork a supervisor", errno as i32)));
            return 1;
        }
    }
    match Supervisor::begin(what) {
        Ok(supervisor) => {
            answer(&SupervisorReply::Started(supervisor.record.clone()));
            // Nobody waits for the output of this process.
            drop(close_output());
            supervisor.attend();
            0
        }
        Err(error) => {
            answer(&failure(&error));
            1
        }
    }
}

fn failure(error: &Error) -> SupervisorReply {
    SupervisorReply::Failed { errno: error.errno(), doing: error.doing().to_string(), text: error.to_string() }
}

fn answer(answer: &SupervisorReply) {
    let text = serde_json::to_vec(answer).unwrap_or_default();
    let _ = io::stdout().write_all(&text).and_then(|()| io::stdout().flush());
}

fn close_output() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    // It keeps no file system busy.
    std::env::set_current_dir("/")
}

/// How far the end of the processes has come.
#[derive(Debug, Clone, Copy)]
enum EndPhase {
    Running,
    /// Asked to end, and killed at this time.
    Asked(Instant),
    /// Killed, again and again.
    Killed,
}

struct Supervisor {
    what: Supervised,
    record: ProcessRecord,
    log: LogWriter,
    /// The first file of the log, locked for as long as this process lives.
    _lock: File,
    output: Option<OwnedFd>,
    signals: SignalFd,
    phase: EndPhase,
    ended: Option<Ended>,
}

impl Supervisor {
    fn begin(what: Supervised) -> Result<Supervisor> {
        let doing = |doing: &str| {
            let doing = doing.to_string();
            move |errno: nix::Error| Error::new(doing, errno as i32)
        };
        let failed = |doing: String| move |error: io::Error| Error::io(doing, error);
        setsid().map_err(doing("start a session"))?;
        nix::sys::prctl::set_child_subreaper(true).map_err(doing("become the parent of orphans"))?;
        let signals = wanted_signals();
        signals.thread_block().map_err(doing("block signals"))?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(doing("listen to signals"))?;
        let shown = what.log.display().to_string();
        let log = LogWriter::create(&what.log).map_err(failed(format!("write `{shown}`")))?;
        let lock = File::open(&what.log).map_err(failed(format!("open `{shown}`")))?;
        lock.try_lock().map_err(|error| Error::io(format!("lock `{shown}`"), error.into()))?;
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(doing("make a pipe"))?;
        let process = spawn(&what, input)?;
        let me = ProcessId::current()?;
        let record = ProcessRecord { supervisor: me, process, ended: None };
        record.write(&what.record).map_err(failed(format!("write `{}`", what.record.display())))?;
        let (phase, ended, output) = (EndPhase::Running, None, Some(output));
        Ok(Supervisor { what, record, log, _lock: lock, output, signals, phase, ended })
    }

    /// Attends to the processes until none is left.
    fn attend(mut self) {
        loop {
            self.wait();
            self.hear();
            if !self.reap() {
                break;
            }
            self.press_on();
        }
        // Nobody of ours can write any more; what is in the pipe is read, and not waited for.
        if let Some(output) = &self.output {
            let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
            let _ = nix::fcntl::fcntl(output, flags);
            while self.copy() {}
        }
        self.record.ended = self.ended;
        let _ = self.record.write(&self.what.record);
        if let Some(group) = &self.what.cgroup {
            let _ = std::fs::remove_dir(group);
        }
    }

    /// Waits for output, a signal, or the time to do more.
    fn wait(&mut self) {
        let timeout = match self.phase {
            EndPhase::Running => PollTimeout::NONE,
            EndPhase::Asked(until) => {
                let rest = until.saturating_duration_since(Instant::now());
                PollTimeout::try_from(rest.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
            }
            EndPhase::Killed => PollTimeout::try_from(KILL_AGAIN).unwrap_or(PollTimeout::ZERO),
        };
        let signals = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
        let readable = match &self.output {
            Some(output) => {
                let mut fds = [signals, PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                // An interruption is as good as nothing: the loop comes back.
                poll(&mut fds, timeout).is_ok_and(|count| count > 0) && fds[1].any() == Some(true)
            }
            None => {
                let _ = poll(&mut [signals], timeout);
                false
            }
        };
        if readable && !self.copy() {
            self.output = None;
        }
    }

    /// Copies some output into the log; tells whether there may be more.
    fn copy(&mut self) -> bool {
        let mut bytes = [0; 1 << 16];
        let Some(output) = &self.output else { return false };
        match nix::unistd::read(output, &mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.log.write(&bytes[..count]);
                true
            }
            Err(errno) => errno == nix::Error::EINTR,
        }
    }

    /// Does what signals ask for.
    fn hear(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
            match signal {
                libc::SIGCHLD => {}
                libc::SIGTERM => self.end(),
                _ if signal == PASS_ON + libc::SIGKILL => self.kill(),
                _ => self.send(signal - PASS_ON),
            }
        }
    }

    /// Takes notice of who has ended; tells whether anybody is left.
    fn reap(&mut self) -> bool {
        let mut over = false;
        let left = loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ended { code, signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, Ended { code: 128 + signal as i32, signal: Some(signal as i32) })
                }
                Ok(WaitStatus::StillAlive) => break true,
                Err(nix::Error::EINTR) | Ok(_) => continue,
                Err(_) => break false,
            };
            if u32::try_from(pid.as_raw()) == Ok(self.record.process.pid) {
                self.ended = Some(ended);
                over = true;
            }
        };
        if over && left && matches!(self.phase, EndPhase::Running) {
            self.go_on_without();
        }
        left
    }

    /// Goes on when the process has ended and has left others: if it ended well, what it left is what it was for, as with a
    /// daemon that forks into the background; else that ends too.
    fn go_on_without(&mut self) {
        let me = self.record.supervisor.pid;
        let oldest = process::children_of(me).into_iter().min_by_key(|child| (child.start, child.pid));
        match (self.ended, oldest) {
            (Some(Ended { code: 0, .. }), Some(child)) => {
                self.record.process = child;
                let _ = self.record.write(&self.what.record);
            }
            _ => self.end(),
        }
    }

    /// Asks all to end, and kills them a little later.
    fn end(&mut self) {
        if matches!(self.phase, EndPhase::Running) {
            self.send(libc::SIGTERM);
            // One that was stopped gets it only so.
            self.send(libc::SIGCONT);
            self.phase = EndPhase::Asked(Instant::now() + GRACE);
        }
    }

    fn press_on(&mut self) {
        match self.phase {
            EndPhase::Asked(until) if until <= Instant::now() => self.kill(),
            EndPhase::Killed => self.kill(),
            _ => {}
        }
    }

    fn kill(&mut self) {
        self.phase = EndPhase::Killed;
        if let Some(group) = self.group() {
            let _ = group.kill();
        }
        for process in process::descendants_of(self.record.supervisor.pid) {
            kill(process.pid, libc::SIGKILL);
        }
    }

    /// Sends a signal to all below.
    fn send(&self, signal: i32) {
        let in_group = self.group().map(|group| group.processes()).unwrap_or_default();
        if !in_group.is_empty() {
            in_group.into_iter().for_each(|pid| kill(pid, signal));
            return;
        }
        for process in process::descendants_of(self.record.supervisor.pid) {
            kill(process.pid, signal);
        }
    }

    fn group(&self) -> Option<Cgroup> {
        self.what.cgroup.as_deref().map(Cgroup::at)
    }
}

/// Sends a signal to a process below this one: its number is nobody else's before this process has taken notice of its end, or
/// the kernel has for one further below.
fn kill(pid: u32, signal: i32) {
    if let (Ok(pid), Ok(signal)) = (i32::try_from(pid), Signal::try_from(signal)) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
    }
}

/// Returns the signals that a supervisor listens to.
fn wanted_signals() -> SigSet {
    // SAFETY: `sigemptyset` makes a set of the memory that it is given, and `sigaddset` takes any number; those of real-time
    // signals have no name in `SigSet`, whose memory this is.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        let passed_on = (1..=PASSED_ON_MAX).map(|signal| PASS_ON + signal);
        for signal in [libc::SIGCHLD, libc::SIGTERM].into_iter().chain(passed_on) {
            libc::sigaddset(&raw mut set, signal);
        }
        SigSet::from_sigset_t_unchecked(set)
    }
}

fn spawn(what: &Supervised, output: OwnedFd) -> Result<ProcessId> {
    let Some((program, arguments)) = what.argv.split_first() else {
        return Err(Error::new("start a command", libc::EINVAL).saying("no program is named"));
    };
    let doing = format!("start `{program}`");
    let failed = |error| Error::io(doing.clone(), error);
    let mut command = Command::new(program);
    command.args(arguments).envs(what.env.iter().map(|(name, value)| (name, value)));
    if let Some(cwd) = &what.cwd {
        command.current_dir(cwd);
    }
    command.stdin(input(what.stdin.as_deref()).map_err(failed)?);
    command.stdout(output.try_clone().map_err(failed)?).stderr(output);
    let group = what.cgroup.as_deref().map(Cgroup::at).and_then(|group| {
        // Without it all works but the finding of those who hide after this process was killed.
        File::options().write(true).open(group.entrance()).ok()
    });
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if let Some(group) = &group {
            nix::unistd::write(group, b"0")?;
        }
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        // This process has blocked the signals that it waits for.
        fresh::begin(OpenFiles::None)?;
        Ok(())
    };
    crate::net::see(&what.etc, &mut command).map_err(failed)?;
    // SAFETY: the process has one thread, so that whatever is called between fork and exec finds no lock held.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn().map_err(failed)?;
    ProcessId::of(child.id())
}

/// Returns what a process reads: a file in memory, so that nobody has to wait until it has read all.
fn input(text: Option<&str>) -> io::Result<Stdio> {
    let Some(text) = text else { return Ok(Stdio::null()) };
    let file = nix::sys::memfd::memfd_create(c"stdin", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}
