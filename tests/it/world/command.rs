//! A command inside a world: how it gets in, and its output, deadline and end.
//!
//! It is a child of the test process, so its process id and its end are those of the command itself, without a helper in
//! between that signals would have to pass.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Error, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::pipe2;

use super::holder::NAMESPACES;
use super::launch::Launch;
use super::sys::{pidfd_of, signal};
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
        let null = || File::options().read(true).open("/dev/null");
        let shown = shown(program, args, env);
        let start = || {
            let (typed, stdin) = match input {
                Some(_) => {
                    let (end, stdin) = pipe2(OFlag::O_CLOEXEC)?;
                    (File::from(end), Some(File::from(stdin)))
                }
                None => (null()?, None),
            };
            let (stdout, told) = pipe2(OFlag::O_CLOEXEC)?;
            let (stderr, complained) = pipe2(OFlag::O_CLOEXEC)?;
            let ends = [typed.as_fd(), told.as_fd(), complained.as_fd()];
            let pid = self.spawn(login, program, args, env, ends, false)?;
            let (stdout, stderr) = (Some(File::from(stdout)), Some(File::from(stderr)));
            Ok((Spawned { pid, pidfd: pidfd_of(pid)?, stdout, stderr }, stdin))
        };
        let (child, stdin) = start().unwrap_or_else(|err| not_started(&shown, &err));
        if let (Some(text), Some(mut stdin)) = (input, stdin) {
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
        let shown = shown(program, args, env);
        let start = || {
            let line = tty.line();
            let pid = self.spawn(login, program, args, env, [line.as_fd(); 3], true)?;
            Ok(Spawned { pid, pidfd: pidfd_of(pid)?, stdout: None, stderr: None })
        };
        Running::new(start().unwrap_or_else(|err| not_started(&shown, &err)), shown)
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

    fn spawn(
        &self,
        login: Login,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        ends: [BorrowedFd<'_>; 3],
        at_terminal: bool,
    ) -> io::Result<i32> {
        let own = self.env(login);
        let env: Vec<(&str, &str)> =
            own.iter().map(|(name, value)| (*name, value.as_str())).chain(env.iter().copied()).collect();
        let mapped = self.holder.mapped();
        let namespaces = NAMESPACES | if mapped { libc::CLONE_NEWUSER } else { 0 };
        let world = (self.holder.pidfd().as_raw_fd(), namespaces);
        let mut launch = Launch::new(program, args, &env, world, self.dir())?;
        launch.stdio = ends.map(|end| end.as_raw_fd());
        launch.become_user = login == Login::User && !mapped;
        launch.keep_rights = login == Login::Root && mapped;
        launch.at_terminal = at_terminal;
        launch.start()
    }
}

/// A command that was started, with its pipes; at a terminal it has none.
struct Spawned {
    pid: i32,
    pidfd: OwnedFd,
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
