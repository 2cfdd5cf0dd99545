//! Running tests, several at once: each in a sandbox and a process of its own, watched from outside.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::child;
use super::outcome::{TestOutcome, TestOutput, TestStatus};
use super::protocol::{TestMessage, TestPhase, TestRequest, TestTrouble, Verdict};
use crate::cmd::context::this_program;
use crate::cmd::inside;
use crate::lab::Private;
use crate::net;
use crate::script::FailureKind;
use crate::state::{Error, Kind, Result, StateDir};
use crate::terminal::environment;

/// How long a test that was told to stop may take to say where it was, and to tidy up.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at the clock and for signals.
const TICK: Duration = Duration::from_millis(50);
/// A message longer than this is none.
const MESSAGE_MAX: usize = 64 << 20;

/// What happens to a test.
pub(super) enum RunnerEvent {
    /// It begins.
    Begun(usize),
    /// It has ended.
    Ended(usize, Box<TestOutcome>),
    /// It could not be run at all, and no other can.
    Impossible(Error),
}

/// How tests are run.
pub(super) struct Plan {
    /// The state directory that kept labs go to.
    pub state: StateDir,
    /// Where the state directories of the tests are.
    pub scratch: PathBuf,
    pub timeout: Duration,
    pub no_skip: bool,
    pub fail_fast: bool,
    /// The tests that are still to be run.
    pub queue: Mutex<VecDeque<(usize, TestRequest)>>,
    pub stop: AtomicBool,
}

/// Runs tests from the queue until it is empty or all shall stop.
pub(super) fn work(plan: &Arc<Plan>, events: &Sender<RunnerEvent>) {
    loop {
        let next = plan.queue.lock().map_or(None, |mut queue| queue.pop_front());
        let Some((index, request)) = next else { return };
        if plan.stop.load(Ordering::SeqCst) || net::process::signal::caught().is_some() {
            return;
        }
        let _ = events.send(RunnerEvent::Begun(index));
        let event = match run(plan, index, &request) {
            Ok(outcome) => {
                if plan.fail_fast && outcome.status.is_failure() {
                    plan.stop.store(true, Ordering::SeqCst);
                }
                RunnerEvent::Ended(index, Box::new(outcome))
            }
            // A signal that also met the sandbox's first moments.
            Err(_) if net::process::signal::caught().is_some() => {
                RunnerEvent::Ended(index, Box::new(TestOutcome::interrupted()))
            }
            Err(error) => {
                plan.stop.store(true, Ordering::SeqCst);
                RunnerEvent::Impossible(error)
            }
        };
        let _ = events.send(event);
    }
}

fn run(plan: &Plan, index: usize, request: &TestRequest) -> Result<TestOutcome> {
    let began = Instant::now();
    let root = plan.scratch.join(index.to_string());
    let state = StateDir::open(&root, &root.join("store"), None)?;
    let program = this_program()?;
    let sandbox = Private::start(&program, &[inside::HOLDER])?;
    let mut watched = match start(&program, &sandbox, state.root(), request) {
        Ok(child) => WatchedTest::new(child, plan.timeout),
        Err(error) => {
            let _ = sandbox.abandon();
            return Err(error);
        }
    };
    let ending = watched.attend(&sandbox);
    let seconds = began.elapsed();
    let mut outcome = watched.conclude(ending, plan, seconds);
    if request.keep && outcome.status.is_failure() && outcome.status != TestStatus::Interrupted {
        match plan.state.adopt(&state, &kept_name(request)) {
            Ok(Some(lab)) => {
                outcome.kept = Some(lab);
                sandbox.keep()?;
                let _ = std::fs::remove_dir_all(&root);
                return Ok(outcome);
            }
            Ok(None) => {}
            Err(error) => {
                outcome.troubles.push(TestTrouble::plain(TestPhase::Runner, error.kind(), error.to_string(), None));
            }
        }
    }
    if let Err(error) = sandbox.abandon() {
        outcome.fail(TestTrouble::plain(TestPhase::Runner, error.kind(), error.to_string(), None));
    }
    let _ = std::fs::remove_dir_all(&root);
    Ok(outcome)
}

fn kept_name(request: &TestRequest) -> String {
    let file = crate::cmd::context::lab_name_of(Path::new(&request.file));
    let name = format!("{file}.{}", request.test);
    // The longest name that a lab can have, with room for a number.
    name.chars().take(120).collect()
}

/// Starts the process that runs the test.
fn start(program: &Path, sandbox: &Private, state: &Path, request: &TestRequest) -> Result<Child> {
    let failed = |source: std::io::Error| Error::file("start a test's process", &source);
    let mut command = inside::command_in(program, sandbox.holder())?;
    command.arg(child::WORD).env(environment::STATE.name(), state);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // It stops at SIGINT, even where the runner itself was started with that ignored.
    net::as_any_command(&mut command, net::OpenFiles::None);
    // Ctrl-C at a terminal is for the runner, which then ends the tests.
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let text =
        serde_json::to_vec(request).map_err(|source| Error::new(Kind::State, "ask for a test").because(source))?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that has died already is told of at its end.
        let _ = pipe.write_all(&text);
    }
    Ok(child)
}

/// Why nobody watches a test any more.
enum Ending {
    /// Its process has ended.
    Exited(ExitStatus),
    /// It was ended, since it did not stop after its time.
    Killed,
    /// The runner was interrupted.
    Interrupted,
}

/// A test's process, as it is seen from outside.
struct WatchedTest {
    child: Child,
    began: Instant,
    limit: Duration,
    /// When it was told to stop.
    told: Option<Instant>,
    buffer: Vec<u8>,
    output: TestOutput,
    noise: TestOutput,
    phase: String,
    checks: (usize, usize),
    verdict: Option<Verdict>,
    garbled: bool,
}

impl WatchedTest {
    fn new(child: Child, limit: Duration) -> WatchedTest {
        WatchedTest {
            child,
            began: Instant::now(),
            limit,
            told: None,
            buffer: Vec::new(),
            output: TestOutput::default(),
            noise: TestOutput::default(),
            phase: String::new(),
            checks: (0, 0),
            verdict: None,
            garbled: false,
        }
    }

    /// Listens to the process until it ends, and sees to it that it does.
    fn attend(&mut self, sandbox: &Private) -> Ending {
        let (mut stdout, mut stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let process = net::ProcessId::of(self.child.id()).and_then(net::process::open).ok().flatten();
        loop {
            let mut fds = Vec::new();
            fds.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            fds.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            fds.extend(process.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
            let _ = poll(&mut fds, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::MAX));
            let mut ready = fds.iter().map(|fd| fd.any() == Some(true)).collect::<Vec<_>>().into_iter();
            let out_ready = stdout.is_some() && ready.next() == Some(true);
            let err_ready = stderr.is_some() && ready.next() == Some(true);
            drop(fds);
            // Looked at before the last read: what it wrote before its end is in the pipe.
            let status = self.child.try_wait().ok().flatten();
            if out_ready && !self.hear(&mut stdout) {
                stdout = None;
            }
            if err_ready && !overhear(&mut stderr, &mut self.noise) {
                stderr = None;
            }
            if let Some(status) = status.filter(|_| !out_ready && !err_ready) {
                return Ending::Exited(status);
            }
            if net::process::signal::caught().is_some() {
                self.end(sandbox);
                return Ending::Interrupted;
            }
            match self.told {
                None if self.began.elapsed() > self.limit => {
                    self.told = Some(Instant::now());
                    let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
                }
                Some(since) if since.elapsed() > GRACE => {
                    self.end(sandbox);
                    return Ending::Killed;
                }
                _ => {}
            }
        }
    }

    /// Ends the process with its sandbox.
    fn end(&mut self, sandbox: &Private) {
        let _ = net::process::end(&[sandbox.holder()], Duration::ZERO);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Reads what the process says; tells whether it may say more.
    fn hear(&mut self, pipe: &mut Option<impl Read>) -> bool {
        let mut bytes = [0; 64 << 10];
        let read = pipe.as_mut().map_or(0, |pipe| pipe.read(&mut bytes).unwrap_or(0));
        self.buffer.extend_from_slice(&bytes[..read]);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.take_in(&line);
        }
        if self.buffer.len() > MESSAGE_MAX {
            self.garbled = true;
            self.buffer.clear();
        }
        read > 0
    }

    fn take_in(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(TestMessage::Phase(phase)) => self.phase = phase,
            Ok(TestMessage::Output(text)) => self.output.add(&text),
            Ok(TestMessage::Check { ok, .. }) => {
                self.checks.0 += 1;
                self.checks.1 += usize::from(!ok);
            }
            Ok(TestMessage::TimeLimit(limit)) => self.limit = limit,
            Ok(TestMessage::Done(verdict)) => self.verdict = Some(verdict),
            Err(_) => self.garbled = true,
        }
    }

    fn conclude(self, ending: Ending, plan: &Plan, time: Duration) -> TestOutcome {
        let mut output = self.output;
        let noise = self.noise.text();
        let during = if self.phase.is_empty() { String::new() } else { format!(", during its {}", self.phase) };
        let late = self.told.is_some();
        let limit = shown_time(self.limit);
        let hint = "`--timeout` allows all tests more, `time_limit(\"2m\")` this one";
        let mut verdict = self.verdict.clone().unwrap_or_default();
        let mut own = Vec::new();
        match ending {
            Ending::Interrupted => return TestOutcome { output: output.text(), ..TestOutcome::interrupted() },
            Ending::Killed => {
                let message = format!(
                    "it took longer than {limit}{during}, did not stop when it was told to, and was killed after {} more",
                    shown_time(GRACE)
                );
                own.push(TestTrouble::plain(TestPhase::Runner, FailureKind::Time, message, Some(hint)));
            }
            Ending::Exited(_) if late => {
                let stopped = verdict.troubles.iter().position(|trouble| trouble.kind == Kind::Interrupted.word());
                let message = format!("it took longer than {limit}");
                let mut trouble = TestTrouble::plain(TestPhase::Runner, FailureKind::Time, message.clone(), Some(hint));
                if let Some(at) = stopped {
                    // The line at which it was stopped is the one that it took the time for.
                    let found = verdict.troubles.remove(at);
                    let retitle = |text: &str| text.replacen(&found.message, &message, 1);
                    trouble.text = format!("{}hint: {hint}\n", retitle(&found.text));
                    trouble.shown = found.shown.as_ref().map(|text| format!("{}hint: {hint}\n", retitle(text)));
                    trouble.at = found.at;
                }
                own.push(trouble);
            }
            Ending::Exited(_) if self.verdict.is_some() => {}
            Ending::Exited(status) => {
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) if code > 128 => format!("by {}", signal_name(code - 128)),
                    (Some(code), _) => format!("with exit code {code}"),
                    (None, Some(signal)) => format!("by {}", signal_name(signal)),
                    (None, None) => "in an unknown way".into(),
                };
                let message = format!("its process ended {how}{during}, and gave no report");
                own.push(TestTrouble::plain(TestPhase::Runner, FailureKind::Died, message, None));
            }
        }
        if self.garbled {
            own.push(TestTrouble::plain(
                TestPhase::Runner,
                FailureKind::Died,
                "its process gave a report that can't be read".into(),
                None,
            ));
        }
        own.append(&mut verdict.troubles);
        verdict.troubles = own;
        if !noise.is_empty() {
            output.add(&noise);
        }
        TestOutcome::of(verdict, output.text(), self.checks, time, plan.no_skip)
    }
}

fn overhear(pipe: &mut Option<impl Read>, into: &mut TestOutput) -> bool {
    let mut bytes = [0; 16 << 10];
    let read = pipe.as_mut().map_or(0, |pipe| pipe.read(&mut bytes).unwrap_or(0));
    into.add(&String::from_utf8_lossy(&bytes[..read]));
    read > 0
}

fn signal_name(number: i32) -> String {
    let signal = nix::sys::signal::Signal::try_from(number).ok();
    signal.map_or_else(|| format!("signal {number}"), |signal| signal.as_str().to_string())
}

/// Writes a time as its user would: `60 s`, `1.5 s`.
pub(super) fn shown_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if (seconds - seconds.round()).abs() < 0.001 { format!("{seconds:.0} s") } else { format!("{seconds:.2} s") }
}
