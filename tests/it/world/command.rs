//! A command inside a world: how it gets in, and its output, deadline and end.
//!
//! It is a child of the test process, so its process id and its end are those of the command itself, without a helper in
//! between that signals would have to pass.

use std::ffi::{CString, c_int, c_long, c_ulong};
use std::fs::File;
use std::io::{self, Error, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, pipe2};

use super::holder::NAMESPACES;
use super::sys::{checked, clone, errno, pidfd_of, signal};
use super::{DEADLINE, Login, Tty, USER, World};

/// A command that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// The exit code, or 128 and the signal's number.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) command: String,
}

impl Ran {
    /// Panics with everything it said unless the command succeeded.
    pub(crate) fn ok(self) -> Ran {
        self.fails(0)
    }

    /// Panics with everything it said unless the command ended with `code`.
    pub(crate) fn fails(self, code: i32) -> Ran {
        assert!(self.code == code, "expected exit code {code}, got {}:\n{}", self.code, self.shown());
        self
    }

    pub(crate) fn out(&self) -> &str {
        &self.stdout
    }

    pub(crate) fn err(&self) -> &str {
        &self.stderr
    }

    /// Panics with both outputs unless one of them contains `text`.
    pub(crate) fn says(&self, text: &str) -> &Ran {
        assert!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "`{text}` was not said (exit code {}):\n{}",
            self.code,
            self.shown()
        );
        self
    }

    fn shown(&self) -> String {
        format!("$ {}\n--- stdout\n{}\n--- stderr\n{}\n---", self.command, self.stdout, self.stderr)
    }
}

/// A command in the background. Dropped, it is killed; what it started lives on as long as the world.
#[derive(Debug)]
pub(crate) struct Running {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    heard: Arc<Heard>,
    pump: Option<JoinHandle<()>>,
    command: String,
}

/// What a command said so far, and whether it ended; a thread fills it in.
#[derive(Debug, Default)]
struct Heard {
    so_far: Mutex<SoFar>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct SoFar {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: Option<i32>,
}

impl Running {
    fn new(child: Spawned, command: String) -> Running {
        let Spawned { pid, pidfd, stdout, stderr, .. } = child;
        let (pidfd, heard) = (Arc::new(pidfd), Arc::new(Heard::default()));
        let pump = {
            let (pidfd, heard) = (Arc::clone(&pidfd), Arc::clone(&heard));
            thread::spawn(move || listen(&pidfd, [stdout, stderr], &heard))
        };
        Running { pid, pidfd, heard, pump: Some(pump), command }
    }

    /// Returns the process id as the host (and so the test) sees it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal to the command itself; none if it has ended.
    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pidfd.as_fd(), which as c_int);
    }

    /// Returns its exit code, once it has ended.
    pub(crate) fn code(&self) -> Option<i32> {
        self.heard.lock().code
    }

    /// Waits for the end; panics, and kills it, if it takes longer than [`DEADLINE`] from now.
    ///
    /// All that the command itself wrote is then there; what it left running may still hold the pipes, and isn't waited for.
    pub(crate) fn wait(self) -> Ran {
        let so_far = self.listen(DEADLINE, "did not end", |so_far| so_far.code.is_some());
        let ran = self.ran(&so_far);
        drop(so_far);
        ran
    }

    /// Waits until the output contains `text`; panics with the output if it ends before, or after `deadline`.
    pub(crate) fn wait_for_output(&self, text: &str, deadline: Duration) {
        let said = |so_far: &SoFar| {
            [&so_far.stdout, &so_far.stderr].iter().any(|bytes| String::from_utf8_lossy(bytes).contains(text))
        };
        let missing = format!("did not say `{text}`");
        let so_far = self.listen(deadline, &missing, |so_far| so_far.code.is_some() || said(so_far));
        if !said(&so_far) {
            let ran = self.ran(&so_far);
            drop(so_far);
            panic!("ended (exit code {}) and {missing}:\n{}", ran.code, ran.shown());
        }
    }

    fn listen(&self, limit: Duration, missing: &str, done: impl Fn(&SoFar) -> bool) -> MutexGuard<'_, SoFar> {
        let so_far = self.heard.lock();
        let (so_far, _) = self
            .heard
            .more
            .wait_timeout_while(so_far, limit, |so_far| !done(so_far))
            .unwrap_or_else(PoisonError::into_inner);
        if !done(&so_far) {
            let ran = self.ran(&so_far);
            drop(so_far);
            panic!("{missing} within {limit:?}, killed:\n{}", ran.shown());
        }
        so_far
    }

    fn ran(&self, so_far: &SoFar) -> Ran {
        Ran {
            code: so_far.code.unwrap_or(-1),
            stdout: String::from_utf8_lossy(&so_far.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&so_far.stderr).into_owned(),
            command: self.command.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(pump) = self.pump.take() {
            pump.join().ok();
        }
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Starts a command inside, as `login`.
    pub(super) fn start(
        &self,
        login: Login,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        input: Option<&str>,
    ) -> Running {
        let mut command = self.command(login, program, args, env);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = shown(program, args, env);
        let mut child = self.spawn(login, command, false).unwrap_or_else(|err| not_started(&shown, &err));
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            let text = text.to_owned();
            // Beside the reading, since a command may answer before it has read all. It may also end before.
            thread::spawn(move || stdin.write_all(text.as_bytes()).ok());
        }
        Running::new(child, shown)
    }

    /// Starts a command inside, as `login`, at a terminal: its input, its outputs, and where its signals come from.
    pub(super) fn start_at(
        &self,
        tty: &Tty,
        login: Login,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Running {
        let mut command = self.command(login, program, args, env);
        command.stdin(tty.line()).stdout(tty.line()).stderr(tty.line());
        let shown = shown(program, args, env);
        let child = self.spawn(login, command, true).unwrap_or_else(|err| not_started(&shown, &err));
        Running::new(child, shown)
    }

    fn command(&self, login: Login, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(self.env(login)).envs(env.iter().copied());
        command
    }

    fn env(&self, login: Login) -> Vec<(&'static str, String)> {
        let topo = self.program().parent().expect("a directory").display();
        let path = std::env::var("PATH").unwrap_or_default();
        let inside = |name: &str| self.dir().join(name).display().to_string();
        let mut env = vec![
            ("PATH", format!("{topo}:{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
            ("HOME", inside("home")),
            ("TMPDIR", inside("tmp")),
            ("TOPO_STATE", self.state().display().to_string()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("NO_COLOR", "1".to_owned()),
            ("COLUMNS", "100".to_owned()),
            ("TERM", "dumb".to_owned()),
        ];
        if login == Login::User {
            env.push(("XDG_RUNTIME_DIR", format!("/run/user/{USER}")));
        }
        env
    }

    fn spawn(&self, login: Login, mut command: Command, at_terminal: bool) -> io::Result<Spawned> {
        let (pid_end, report) = pipe2(OFlag::O_CLOEXEC)?;
        let enter = Enter {
            world: self.holder.pidfd().as_raw_fd(),
            namespaces: NAMESPACES | if self.holder.mapped() { libc::CLONE_NEWUSER } else { 0 },
            directory: CString::new(self.dir().as_os_str().as_bytes())?,
            become_user: login == Login::User && !self.holder.mapped(),
            keep_rights: login == Login::Root && self.holder.mapped(),
            at_terminal,
            report: report.as_raw_fd(),
        };
        // SAFETY: `enter` makes only system calls, on what was prepared above.
        unsafe { command.pre_exec(move || enter.enter()) };
        let started = command.spawn();
        drop(report);
        let mut pid = [0; 4];
        let reported = File::from(pid_end).read_exact(&mut pid);
        let pid = i32::from_ne_bytes(pid);
        let mut middle = match started {
            Ok(middle) => middle,
            Err(err) => {
                if reported.is_ok() {
                    waitpid(Pid::from_raw(pid), None).ok();
                }
                return Err(err);
            }
        };
        // Before the wait, which closes it.
        let stdin = middle.stdin.take();
        middle.wait()?;
        reported?;
        Ok(Spawned {
            pid,
            pidfd: pidfd_of(pid)?,
            stdin: stdin.map(|stdin| File::from(OwnedFd::from(stdin))),
            stdout: middle.stdout.take().map(|stdout| File::from(OwnedFd::from(stdout))),
            stderr: middle.stderr.take().map(|stderr| File::from(OwnedFd::from(stderr))),
        })
    }
}

/// A command that was started, with its pipes; at a terminal it has none.
struct Spawned {
    pid: i32,
    pidfd: OwnedFd,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

fn not_started(shown: &str, err: &Error) -> ! {
    panic!("start `{shown}` in the world: {err}")
}

fn shown(program: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let env = env.iter().map(|(name, value)| format!("{name}={value} "));
    let args = args.iter().map(|arg| {
        let plain = !arg.is_empty() && !arg.contains(|c: char| c.is_whitespace() || "'\"$;&|<>(){}*?\\".contains(c));
        if plain { format!(" {arg}") } else { format!(" '{}'", arg.replace('\'', r"'\''")) }
    });
    env.chain([program.into_owned()]).chain(args).collect()
}

/// The way of a fork of the test process into a world.
struct Enter {
    world: RawFd,
    namespaces: c_int,
    directory: CString,
    become_user: bool,
    keep_rights: bool,
    at_terminal: bool,
    report: RawFd,
}

impl Enter {
    /// Goes in. Runs in the child of a fork, so only by system calls.
    fn enter(&self) -> io::Result<()> {
        // SAFETY: numbers, and pointers to what lives longer than the calls.
        unsafe {
            checked(libc::setns(self.world, self.namespaces))?;
            checked(libc::chdir(self.directory.as_ptr()))?;
            libc::umask(0o022);
            // However the tests were started: `nohup` and a shell's `&` have them ignore signals, and each of their children too.
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }

            // A process never changes its own pid namespace, only that of its children. The child made here gets our own
            // parent as its parent (CLONE_PARENT), so the test process can wait for it, and we are done.
            match clone(libc::CLONE_PARENT | libc::SIGCHLD) {
                0 => {}
                -1 => return Err(Error::last_os_error()),
                pid => {
                    libc::write(self.report, ptr::from_ref(&pid).cast(), 4);
                    libc::_exit(0);
                }
            }
            if self.at_terminal {
                // Only the first process of a session can make its input the session's terminal.
                checked(libc::setsid())?;
                checked(libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0))?;
            }
            if self.become_user {
                // By number, not by libc's functions: those want to stop threads that this fork doesn't have.
                let (id, none) = (c_long::from(USER), 0 as c_long);
                checked(libc::syscall(libc::SYS_setgroups, none, ptr::null::<libc::gid_t>()))?;
                checked(libc::syscall(libc::SYS_setresgid, id, id, id))?;
                checked(libc::syscall(libc::SYS_setresuid, id, id, id))?;
            }
            if self.keep_rights {
                keep_capabilities()?;
            }
        }
        Ok(())
    }
}

/// Makes all capabilities survive the exec of a process whose id isn't 0.
fn keep_capabilities() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = [[0_u32; 3]; 2]; // For the low and the high 32: effective, permitted, inheritable.
    // SAFETY: the structures have the size and layout that version 3 of the call asks for.
    unsafe {
        checked(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()))?;
        for set in &mut sets {
            set[2] = set[1];
        }
        checked(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()))?;
        for capability in 0..64 {
            let (raise, none): (c_ulong, c_ulong) = (libc::PR_CAP_AMBIENT_RAISE as c_ulong, 0);
            if libc::prctl(libc::PR_CAP_AMBIENT, raise, capability as c_ulong, none, none) < 0
                && errno() == libc::EINVAL
            {
                break; // The kernel knows no more.
            }
        }
    }
    Ok(())
}

/// Reads both outputs until the command has ended, then takes note of its end.
fn listen(pidfd: &OwnedFd, mut pipes: [Option<File>; 2], heard: &Heard) {
    for pipe in pipes.iter().flatten() {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("read a pipe without waiting");
    }
    let mut ended = false;
    while !ended {
        let mut ready = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        ready.extend(pipes.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(err) => panic!("wait for a command: {err}"),
        }
        ended = ready.first().and_then(PollFd::any).unwrap_or(false);
        let mut so_far = heard.lock();
        let SoFar { stdout, stderr, .. } = &mut *so_far;
        // Also, and last, when it has ended: what it wrote is then all in the pipes.
        for (pipe, all) in pipes.iter_mut().zip([stdout, stderr]) {
            if pipe.as_mut().is_some_and(|pipe| drained(pipe, all)) {
                *pipe = None;
            }
        }
        heard.more.notify_all();
    }
    let code = match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        other => panic!("a command ended in an unknown way: {other:?}"),
    };
    heard.lock().code = Some(code);
    heard.more.notify_all();
}

/// Appends what there is to read, a pipe's worth at most; returns true at the end of the pipe.
fn drained(pipe: &mut File, all: &mut Vec<u8>) -> bool {
    // A pipe holds no more, so that this reads all of a command that has ended, and not for ever from one that floods.
    const PIPE: u64 = 65_536;
    let before = all.len();
    match pipe.take(PIPE).read_to_end(all) {
        Ok(read) => (read as u64) < PIPE,
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => false,
        Err(err) => panic!("read the output of a command, after {before} bytes: {err}"),
    }
}

/// Gives the kernel and the other tests a moment, 10 ms at most.
pub(super) fn breathe() {
    poll(&mut [], PollTimeout::from(10_u8)).ok();
}
