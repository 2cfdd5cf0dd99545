//! Going into a sandbox: the words by which the program calls itself, before the command line proper is read.
//!
//! `__holder` is the sandbox's pid 1; `__enter WHO …` goes into a sandbox and runs the rest of the words there, as
//! `__inside WHO …`. `__supervise` is the parent of a process that a script started. Namespaces of users and pids can be entered by a process with one thread only, so all of this
//! happens before any other is started.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::context::{Context, this_program};
use super::output::Trouble;
use crate::lab::{self, Private};
use crate::net::{self, Foreground, ProcessId};
use crate::prim;
use crate::state::{Error, Inside, Kind, Result};
use crate::terminal::{environment, exit};

/// The word of the process that holds a sandbox.
pub(super) const HOLDER: &str = "__holder";
const ENTER: &str = "__enter";
const INSIDE: &str = "__inside";

/// Looks for our own words; returns the sandbox that this process is in, and the words of the command line proper, or the
/// exit code of what they asked for.
pub(super) fn begin(mut words: Vec<OsString>) -> std::result::Result<(Option<Inside>, Vec<OsString>), u8> {
    let second = words.get(1).and_then(|word| word.to_str()).unwrap_or("");
    if second == HOLDER {
        return Err(net::netns::userns::hold());
    }
    if second == prim::SUPERVISE {
        return Err(net::process::supervise::supervise());
    }
    if second != ENTER && second != INSIDE {
        return Ok((None, words));
    }
    let enter = second == ENTER;
    let Some(inside) = words.get(2).and_then(|word| word.to_str()).and_then(Inside::from_word) else {
        return Err(exit::USAGE);
    };
    words.drain(1..3);
    if !enter {
        return Ok((Some(inside), words));
    }
    Err(go_in("of this run", inside, &words[1..], None).unwrap_or_else(|error| Trouble::from(error).report()))
}

/// Goes into a sandbox and runs the program with `words` there; returns its exit code.
fn go_in(lab: &str, inside: Inside, words: &[OsString], state: Option<&Path>) -> Result<u8> {
    let program = this_program()?;
    // Looked at before: inside, our group has no number.
    let foreground = wants_terminal(words).then(net::Foreground::ours).flatten();
    lab::enter(lab, inside.holder)?;
    let mut command = Command::new(program);
    if foreground.is_some() {
        net::in_foreground(&mut command);
    }
    // Inside, an ordinary user is root, and the default would be root's directory.
    command.envs(state.map(|root| (environment::STATE.name(), root)));
    command.arg(INSIDE).arg(inside.to_word()).args(words);
    wait_for(command, None, foreground)
}

/// Tells whether a command line runs shells, or what else gives the terminal on and takes it back.
fn wants_terminal(words: &[OsString]) -> bool {
    words.first().is_some_and(|word| word == "exec" || word == "repl")
}

/// Runs a command that gets the signals that we get, and returns its exit code.
fn wait_for(mut command: Command, stdin: Option<&str>, foreground: Option<Foreground>) -> Result<u8> {
    let failed = |source: std::io::Error| Error::file("run in the sandbox", &source);
    if stdin.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        // A run that ends before it has read all has said why.
        let _ = pipe.write_all(text.as_bytes());
    }
    let status = net::process::signal::wait_passing_on(&mut child, foreground)
        .map_err(|source| Error::kernel("run in the sandbox", &source))?;
    let signalled = || std::os::unix::process::ExitStatusExt::signal(&status).map(exit::of_signal);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.or_else(signalled).unwrap_or(exit::FAILED))
}

/// Runs this same command line in the sandbox of a lab.
pub(super) fn relay(lab: &str, holder: ProcessId, context: &Context) -> Result<u8> {
    let creator = ProcessId::current().map_err(|source| Error::kernel("look at this process", &source))?;
    let state = context.state()?;
    go_in(lab, Inside { holder, creator }, &context.words[1..], Some(state.root()))
}

/// Runs this same command line in a new sandbox, which stays if the run leaves a lab up.
pub(super) fn run_in_new(context: &Context, stdin: Option<&str>) -> Result<u8> {
    let state = context.state()?;
    let program = this_program()?;
    let sandbox = Private::start(&program, &[HOLDER])?;
    let mut command = command_in(&program, sandbox.holder())?;
    command.args(&context.words[1..]).env(environment::STATE.name(), state.root());
    let code = wait_for(command, stdin, None)?;
    sandbox.end(&state)?;
    Ok(code)
}

/// Returns the command that runs the program inside a sandbox; its words are still to be added.
pub(super) fn command_in(program: &Path, holder: ProcessId) -> Result<Command> {
    let creator = ProcessId::current().map_err(|source| Error::kernel("look at this process", &source))?;
    let mut command = Command::new(program);
    command.arg(ENTER).arg(Inside { holder, creator }.to_word());
    Ok(command)
}

/// Tells whether a run needs a sandbox of its own.
pub(super) fn needs_sandbox(wanted: bool, context: &Context) -> bool {
    context.inside.is_none() && (wanted || !lab::can_build_here())
}

/// Returns the error for a command that needs rights this process doesn't have.
pub(super) fn not_allowed(doing: &str) -> Error {
    Error::new(Kind::Denied, doing)
        .because("it needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this process doesn't have")
        .hint("run it as root; labs of an ordinary user are built in sandboxes, which need no rights")
}
