//! Processes that run beside the script: servers, daemons, traffic.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::process::{CommandLine, SHELL_WORDS};
use super::ready::{Ready, become_ready};
use super::supervised::{self, StartProcess, State};
use crate::lab::Lab;
use crate::net;
use crate::prim::Group;
use crate::prim::call::beyond::{Beyond, reach};
use crate::prim::call::context::{RhaiResultOf, ask, text_of, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{FromScript, argument};
use crate::state::{Error, Kind, NetnsRef, ProcessRef, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "start",
    about: "Processes that run beside the script, in a namespace.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(StartProcess)],
    options: &[StartOptions::SET, StopOptions::SET, WaitOptions::SET],
};

options! {
    /// Options of `start`.
    pub struct StartOptions of "start" {
        /// What tells that it is ready: a TCP port that it listens at, `#{ port: 53, proto: "udp" }`, a text in a line of its
        /// output, `#{ line: "REGEX" }` for a whole line, or a closure that returns true or a result that is `ok`. Unless given, the
        /// process counts as ready once its program runs.
        ready: Ready,
        /// How long it may take until it is ready; 10s unless given.
        deadline: Duration,
        /// Its name, one for each process of a netns; that of the program unless given, with a number if that is taken.
        name: String,
        /// What is set in its environment, besides the script's own.
        env: Env,
        /// Its working directory; the script's own unless given.
        cwd: String,
        /// What it reads from its standard input; nothing unless given.
        stdin: String,
    }
}

options! {
    /// Options of `stop`.
    pub struct StopOptions of "stop" {
        /// How long it may take before it is killed; 5s unless given.
        deadline: Duration,
        /// The signal that asks it to end, such as "INT"; "TERM" unless given.
        signal: SignalName,
    }
}

options! {
    /// Options of `wait`.
    pub struct WaitOptions of "wait" {
        /// How long it may take; then the call fails with `timeout`. No limit unless given.
        deadline: Duration,
    }
}

/// How long a process may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a process may take to end before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Variables of an environment.
#[derive(Debug, Clone)]
pub struct Env(Vec<(String, String)>);

impl FromScript for Env {
    const WHAT: &'static str = r#"a map such as #{ LANG: "C" }"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let map = value.try_cast::<Map>().ok_or_else(String::new)?;
        let entry = |(name, value): (rhai::Identifier, Dynamic)| {
            let value = text_of(&value);
            match name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                true => Err(format!("{name:?} can't be set in an environment")),
                false => Ok((name.to_string(), value)),
            }
        };
        map.into_iter().map(entry).collect::<std::result::Result<_, _>>().map(Env)
    }
}

/// A signal, by its name or number.
#[derive(Debug, Clone, Copy)]
pub struct SignalName(i32);

impl FromScript for SignalName {
    const WHAT: &'static str = r#"a signal such as "HUP", or its number"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = if value.is_int() { value.to_string() } else { value.into_string().map_err(|_| String::new())? };
        net::process::signal::number(&text).map(SignalName).ok_or_else(|| {
            match name::nearest(&text.to_ascii_uppercase(), net::process::signal::names()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => String::new(),
            }
        })
    }
}

/// A process that runs beside the script, as the script holds it.
#[derive(Debug, Clone)]
pub struct Process(pub Rc<ProcessRef>);

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}", self.0.shown())
    }
}

/// What is to be started, once all of it is known to be good.
#[derive(Debug)]
pub(super) struct Start {
    /// The namespace.
    pub netns: NetnsRef,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its name; one is found unless given.
    pub name: Option<String>,
    /// What is set in its environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: Option<PathBuf>,
    /// What it reads.
    pub stdin: Option<String>,
}

/// Starts a process and waits until it is ready; one that does not become so is ended, and nothing of it stays.
pub(super) fn begin(
    ctx: &NativeCallContext,
    start: Start,
    ready: Option<&Ready>,
    deadline: Duration,
) -> RhaiResultOf<Process> {
    let failed = |source: net::Error| Error::kernel("look for devices of the process", &source);
    let (process, etc, before) = with_lab(ctx, |lab| {
        lab.forget_finished()?;
        let etc = lab.etc_for(&start.netns)?;
        let process = name_for(lab, &start)?;
        let before =
            if ready.is_some() { lab.foreign().0.devs_before(&start.netns).map_err(failed)? } else { [].into() };
        Ok((process, etc, before))
    })?;
    let Start { argv, env, cwd, stdin, .. } = start;
    ask(ctx, StartProcess { process: process.clone(), argv, env, cwd, stdin, etc })?;
    with_lab(ctx, Lab::settle)?;
    let (step, handle) = with_lab(ctx, |lab| Ok((lab.last_applied(), lab.model().handle_of(&process)?)))?;
    let Some(ready) = ready else { return Ok(Process(handle)) };
    match become_ready(ctx, &process, ready, deadline) {
        Ok(()) => {
            // What it has made by then is the lab's.
            with_lab(ctx, |lab| lab.foreign().0.mark_since(&process.netns, &before).map_err(failed))?;
            Ok(Process(handle))
        }
        Err(failed) => {
            let errors = with_lab(ctx, |lab| Ok(give_up(lab, &process, step)))?;
            Err(crate::prim::lab::within::with_errors(ctx, failed, errors))
        }
    }
}

/// Ends a process that did not become ready, and takes back its start.
fn give_up(lab: &mut Lab, process: &ProcessRef, step: u64) -> Vec<Error> {
    // A closure may have asked for more since: the start is then taken back with the rest, at the lab's end.
    if lab.last_applied() == step {
        return lab.take_back_last("it did not become ready");
    }
    supervised::stop(lab, process, libc::SIGTERM, STOP_WITHIN).err().into_iter().collect()
}

/// Finds the number and the name of a new process.
fn name_for(lab: &mut Lab, start: &Start) -> Result<ProcessRef> {
    let no = lab.model().next_no();
    let named = |name: String| ProcessRef { no, name, netns: start.netns.clone() };
    if let Some(name) = &start.name {
        let process = named(name.clone());
        if let Some(pid) = running_as(lab, &process)? {
            return Err(Error::new(Kind::Exists, supervised::doing(&process))
                .because(format!("a process of this name runs there already, as process {pid}"))
                .hint("`name` gives this one another name; `stop()` ends the other one"));
        }
        return Ok(process);
    }
    let base = name_of_program(&start.argv);
    // Not the first free number: one that has ended and was forgotten had it, and would be taken for this one.
    let beside = lab.model().all_processes().filter(|known| known.netns.no == start.netns.no);
    Ok(named(match beside.filter_map(|known| number_in(&known.name, &base)).max() {
        Some(last) => format!("{base}-{}", last.saturating_add(1)),
        None => base,
    }))
}

/// Returns the number that a name has behind `base`, 1 where it has none; nothing for another name.
fn number_in(name: &str, base: &str) -> Option<u32> {
    match name.strip_prefix(base)? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse().ok(),
    }
}

/// Returns the pid of the process that runs under a name.
fn running_as(lab: &mut Lab, process: &ProcessRef) -> Result<Option<u32>> {
    let like = |known: &&ProcessRef| known.netns.no == process.netns.no && known.name == process.name;
    let known: Vec<ProcessRef> = lab.model().all_processes().filter(like).cloned().collect();
    for known in &known {
        if let State::Running(record) = supervised::state(lab, known)? {
            return Ok(Some(record.process.pid));
        }
    }
    Ok(None)
}

/// Makes a name of a command: of `/usr/sbin/nginx -g …` it is `nginx`.
fn name_of_program(argv: &[String]) -> String {
    let line = match argv {
        [shell, option, line] if shell == "/bin/sh" && option == "-c" => line.as_str(),
        _ => argv.first().map_or("", String::as_str),
    };
    // `exec` and variables that are set for the program are not its name.
    let word = line.split_whitespace().find(|word| *word != "exec" && !word.contains('=')).unwrap_or_default();
    let word = if SHELL_WORDS.contains(&word) { "sh" } else { word };
    let name: String = word.rsplit('/').next().unwrap_or_default().chars().take(32).collect();
    if name::check("process", &name).is_ok() { name } else { "sh".into() }
}

fn start(ctx: &NativeCallContext, netns: &NetnsHandle, command: Dynamic, options: Map) -> RhaiResultOf<Process> {
    reach(ctx, Beyond::Command, || format!("start `{}` in netns `{}`", CommandLine::shown(&command), netns.0.name))?;
    let prepared = with_lab(ctx, |lab| {
        let options = StartOptions::parse(options)?;
        let at = netns.living(lab)?;
        let doing = format!("start `{}` in netns `{}`", CommandLine::shown(&command), at.name);
        let CommandLine(argv) = argument::<CommandLine>(&doing, command)?.without_shell();
        if let Some(name) = &options.name {
            name::check("process", name)?;
        }
        let cwd = options.cwd.map(PathBuf::from);
        if let Some(cwd) = cwd.as_deref().filter(|cwd| !cwd.is_dir()) {
            return Err(Error::new(Kind::Missing, doing).because(format!("there is no directory `{}`", cwd.display())));
        }
        let env = options.env.map(|Env(env)| env).unwrap_or_default();
        let start = Start { netns: at, argv, name: options.name, env, cwd, stdin: options.stdin };
        Ok((start, options.ready, options.deadline.unwrap_or(READY_WITHIN)))
    });
    let (start, ready, deadline) = prepared?;
    begin(ctx, start, ready.as_ref(), deadline)
}

/// Returns how a process ended, as a script gets it.
fn end_as_map(ended: Option<net::Ended>, ok: bool, why: Option<String>) -> Map {
    let code = ended.map_or(Dynamic::UNIT, |ended| i64::from(ended.code).into());
    let signal = ended.and_then(|ended| ended.signal).map_or(Dynamic::UNIT, |signal| {
        net::process::signal::name(signal).trim_start_matches("SIG").to_string().into()
    });
    let why = why.map_or(Dynamic::UNIT, Into::into);
    Map::from_iter([("ok".into(), ok.into()), ("code".into(), code), ("signal".into(), signal), ("why".into(), why)])
}

fn wait(lab: &mut Lab, process: &Process, options: Map) -> Result<Map> {
    let options = WaitOptions::parse(options)?;
    lab.settle()?;
    let Some(ended) = supervised::wait(lab, &process.0, options.deadline)? else {
        let deadline = options.deadline.unwrap_or_default();
        return Err(Error::new(Kind::Timeout, format!("wait for process {}", process.0.shown()))
            .because(format!("it was still running after {deadline:?}")));
    };
    let ok = ended.is_some_and(|ended| ended.code == 0);
    Ok(end_as_map(ended, ok, (!ok).then(|| format!("it {}", supervised::end_in_words(ended)))))
}

fn stop(lab: &mut Lab, process: &Process, options: Map) -> Result<Map> {
    let options = StopOptions::parse(options)?;
    lab.settle()?;
    lab.note_act();
    let signal = options.signal.map_or(libc::SIGTERM, |signal| signal.0);
    let deadline = options.deadline.unwrap_or(STOP_WITHIN);
    let (ended, killed) = supervised::stop(lab, &process.0, signal, deadline)?;
    let why = match (killed, ended) {
        (true, _) => {
            Some(format!("it was killed: {} did not end it within {deadline:?}", net::process::signal::name(signal)))
        }
        (false, None) => Some(format!("it {}", supervised::end_in_words(ended))),
        _ => None,
    };
    Ok(end_as_map(ended, why.is_none(), why))
}

fn send(lab: &mut Lab, process: &Process, signal: Dynamic) -> Result<()> {
    let doing = format!("send a signal to process {}", process.0.shown());
    let SignalName(signal) = argument(&doing, signal)?;
    lab.note_act();
    let ended = match supervised::state(lab, &process.0)? {
        State::Running(record) => {
            let sent = net::process::signal(record.process, signal).map_err(|source| Error::kernel(&doing, &source))?;
            if sent {
                return Ok(());
            }
            None
        }
        State::Ended(ended) => Some(supervised::end_in_words(ended)),
    };
    Err(Error::new(Kind::Gone, doing).because(format!("it {}", ended.unwrap_or_else(|| "has just ended".into()))))
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// The script's word for it.
    pub type Process = super::Process;

    /// Starts a command that runs beside the script, and returns it once it is `ready`: a line for `/bin/sh`, or a list of a
    /// program and its arguments. A line of plain words is run without the shell.
    ///
    /// Its output goes to a log (`p.log()`, `topo logs`), of which the beginning and the end are kept, 1 MiB at most. Of the processes that
    /// have ended, the last 32 are kept with their logs, and those that the script still has a handle to. A program that
    /// forks into the background is followed there. It runs on while the lab is up, and ends with the lab, however that
    /// ends, with all that it has started. It has no open files of the caller of `topo`, no ignored or blocked signals, and a umask of 022
    /// or a stricter one of the caller's.
    ///
    /// Like `ip netns exec NETNS sh -c 'COMMAND' > LOG 2>&1 &`, and a loop until it is ready.
    ///
    /// Fails with `missing` where there is no such program, with `failed` where it ends before it is ready, with `timeout` where
    /// it is not ready in time, with `exists` where a process of that `name` runs in the netns, and with `denied` under `--no-exec`.
    /// Nothing of it is left then.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let p = h.start("echo serving; exec sleep 1000", #{ ready: "serving", name: "server" });
    /// assert(p.running && p.name == "server" && p.log() == "serving\n");
    /// try {
    ///     h.start("echo oops >&2; exit 3", #{ ready: 80 });
    /// } catch (e) {
    ///     assert(e.kind == "failed" && e.message.contains("exit code 3") && e.message.contains("oops"));
    /// }
    /// ```
    #[rhai_fn(name = "start", return_raw)]
    pub fn start_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        command: Dynamic,
        options: Map,
    ) -> RhaiResultOf<Process> {
        start(&ctx, &netns, command, options)
    }

    /// Starts a command that counts as ready once its program runs.
    #[rhai_fn(name = "start", return_raw)]
    pub fn start_plain(ctx: NativeCallContext, netns: NetnsHandle, command: Dynamic) -> RhaiResultOf<Process> {
        start(&ctx, &netns, command, Map::new())
    }

    /// Returns a process as text.
    ///
    /// Like `print(p)`.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// let p = netns("h1").start("sleep 1000");
    /// assert(p.to_string() == "process `sleep` of `h1`" && `${p}` == p.to_string());
    /// ```
    #[rhai_fn(name = "to_string", pure)]
    pub fn process_text(process: &mut Process) -> String {
        process.to_string()
    }

    /// Returns the name of a process.
    #[rhai_fn(get = "name", pure)]
    pub fn process_name(process: &mut Process) -> String {
        process.0.name.clone()
    }

    /// Returns the netns that a process was started in.
    #[rhai_fn(get = "netns", pure)]
    pub fn process_netns(process: &mut Process) -> NetnsHandle {
        NetnsHandle::new(process.0.netns.clone())
    }

    /// Returns the pid of a process, that of the program itself; `()` once it has ended.
    #[rhai_fn(get = "pid", return_raw, pure)]
    pub fn process_pid(ctx: NativeCallContext, process: &mut Process) -> RhaiResultOf<Dynamic> {
        with_lab(&ctx, |lab| match supervised::state(lab, &process.0)? {
            State::Running(record) => Ok(i64::from(record.process.pid).into()),
            State::Ended(_) => Ok(Dynamic::UNIT),
        })
    }

    /// Tells whether a process runs, or something that it has started.
    #[rhai_fn(get = "running", return_raw, pure)]
    pub fn process_running(ctx: NativeCallContext, process: &mut Process) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| Ok(matches!(supervised::state(lab, &process.0)?, State::Running(_))))
    }

    /// Returns what a process has written so far, to its standard output and error. Of more than 1 MiB the middle is left out, and a
    /// line says how much.
    ///
    /// Like `topo logs LAB NAME`.
    ///
    /// Fails with `gone` where the start of the process was taken back.
    ///
    /// ```rhai
    /// let p = netns("h1").start("echo out; echo err >&2");
    /// p.wait();
    /// assert(p.log() == "out\nerr\n");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn log(ctx: NativeCallContext, process: Process) -> RhaiResultOf<String> {
        with_lab(&ctx, |lab| supervised::files(lab, &process.0)?.text())
    }

    /// Waits until a process and all that it has started have ended; returns `#{ ok, code, signal, why }`.
    ///
    /// `ok` is whether the exit code is 0; `code` is 128 and the signal's number where a signal ended it, whose name is in
    /// `signal`. `why` says how it ended where it is not `ok`.
    ///
    /// Like `wait PID`.
    ///
    /// Fails with `timeout` after the `deadline`. Ctrl-C ends the wait with the run.
    ///
    /// ```rhai
    /// let p = netns("h1").start("exit 3");
    /// let end = p.wait(#{ deadline: "10s" });
    /// assert(!end.ok && end.code == 3 && end.signal == ());
    /// assert(!p.running);
    /// ```
    #[rhai_fn(name = "wait", return_raw)]
    pub fn wait_with(ctx: NativeCallContext, process: Process, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| wait(lab, &process, options))
    }

    /// Waits until a process has ended, however long that takes.
    #[rhai_fn(name = "wait", return_raw)]
    pub fn wait_plain(ctx: NativeCallContext, process: Process) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| wait(lab, &process, Map::new()))
    }

    /// Ends a process and all that it has started: by SIGTERM, and by SIGKILL after the `deadline`. Returns how it ended, `#{ ok,
    /// code, signal, why }`; `ok` is false where it had to be killed, and `why` says so then. One that has ended already is left at that.
    ///
    /// Like `kill PID; wait PID`.
    ///
    /// Fails with `invalid` for what is no signal, and with `timeout` where something of it survives SIGKILL for 5 s.
    ///
    /// ```rhai
    /// let p = netns("h1").start(["sleep", "1000"]);
    /// let end = p.stop();
    /// assert(end.ok && end.signal == "TERM" && end.code == 143);
    /// assert(p.stop().code == 143);
    /// ```
    #[rhai_fn(name = "stop", return_raw)]
    pub fn stop_with(ctx: NativeCallContext, process: Process, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| stop(lab, &process, options))
    }

    /// Ends a process by SIGTERM, and by SIGKILL after 5 s.
    #[rhai_fn(name = "stop", return_raw)]
    pub fn stop_plain(ctx: NativeCallContext, process: Process) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| stop(lab, &process, Map::new()))
    }

    /// Sends a signal to a process, by its name or its number: to the program itself, not to what it has started. The program of
    /// a line is the shell, unless the line is `exec PROGRAM`.
    ///
    /// Like `kill -HUP PID`.
    ///
    /// Fails with `invalid` for what is no signal, and with `gone` where the process has ended.
    ///
    /// ```rhai
    /// let p = netns("h1").start("trap 'echo again' HUP; echo up; while :; do sleep 0.1; done", #{ ready: "up" });
    /// p.signal("HUP");
    /// assert(check_within("it heard", "10s", || p.log().contains("again")));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn signal(ctx: NativeCallContext, process: Process, signal: Dynamic) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| send(lab, &process, signal))
    }
}
