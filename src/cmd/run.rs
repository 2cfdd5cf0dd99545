//! `topo run`, and the workflows: building a lab from a script.

use std::cell::RefCell;
use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use clap::{ArgMatches, FromArgMatches};

use super::args::RunOptions;
use super::context::{self, Context};
use super::inside;
use super::output::{self, Trouble};
use crate::lab::{CheckResult, Lab, Origin};
use crate::net;
use crate::prim::{self, LabHandle};
use crate::script::header::{Header, HeaderError, RESERVED_OPTIONS, ValueType};
use crate::script::{Failure, FailureKind, Script, Session, Texts, Workflow};
use crate::state::{LabKind, StateDir, name};
use crate::terminal::{self, Said, Style, counted, exit, report, talk};

/// Runs a script: builds its lab, and leaves it up.
///
/// If the script fails, or a check in it, everything that it made is taken back. Arguments after FILE are the script's own;
/// `topo run FILE --help` shows them.
///
/// A script runs commands as you, like a shell script. A sandbox (`--sandbox`) has a network and processes of its own, but your files:
/// what a script does to them is done. `--no-exec` refuses a script all commands and files. Read the scripts of strangers first.
#[derive(Debug, clap::Args)]
#[command(override_usage = "topo run [OPTIONS] FILE [ARGS]...\n       topo run [OPTIONS] -e STATEMENTS [ARGS]...")]
pub(super) struct Args {
    /// Run these statements instead of a file
    #[arg(short = 'e', long = "exec", value_name = "STATEMENTS")]
    exec: Option<String>,
    /// The script, or `-` for standard input, and its arguments
    #[arg(value_name = "FILE", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
    #[command(flatten)]
    options: RunOptions,
}

/// Runs `topo run`.
pub(super) fn run(args: Args, context: &Context) -> Result<u8, Trouble> {
    if let Some(wrong) = unknown_option(&args) {
        talk(&wrong);
        return Ok(exit::USAGE);
    }
    let mut words = args.words.into_iter();
    let script = match (args.exec, words.next()) {
        (Some(text), first) => {
            words = first.into_iter().chain(words).collect::<Vec<_>>().into_iter();
            Script::inline("-e", text)
        }
        (None, Some(file)) if file == "-" => Script::from_stdin()?,
        (None, Some(file)) => Script::read(Path::new(&file))?,
        (None, None) => {
            talk(
                "error: no script is given\n\nUsage: topo run [OPTIONS] FILE [ARGS]...\n\nhint: `topo run -e 'STATEMENTS'` runs statements, `topo scripts` lists the workflows\n",
            );
            return Ok(exit::USAGE);
        }
    };
    let header = match Header::parse(&script.text) {
        Ok(header) => header,
        Err(error) => return Ok(bad_header(&script, &error)),
    };
    let command = header.command(format!("topo run {}", script.name)).no_binary_name(true).max_term_width(100);
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            let code = output::usage(&error);
            hint_at_own_option(&error);
            return Ok(code);
        }
    };
    execute(&script, &header, &matches, &args.options, context)
}

/// Says that what stands in the place of the script is an option that topo doesn't have; as clap says it, which leaves all
/// that begins with `-` to the script.
fn unknown_option(args: &Args) -> Option<String> {
    let first = args.words.first().filter(|_| args.exec.is_none())?.to_str()?;
    if first == "-" || !first.starts_with('-') {
        return None;
    }
    let near = name::nearest(first.trim_start_matches('-'), RESERVED_OPTIONS.iter().copied());
    let tip = near.map_or(String::new(), |near| format!("\n  tip: a similar argument exists: '--{near}'\n"));
    let usage = "Usage: topo run [OPTIONS] FILE [ARGS]...\n\nFor more information, try '--help'.";
    Some(format!("error: unexpected argument '{}' found\n{tip}\n{usage}\n", name::shown(first)))
}

/// Says where topo's own options go, if one of them was given as the script's.
fn hint_at_own_option(error: &clap::Error) {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return };
    if RESERVED_OPTIONS.contains(&given.trim_start_matches('-')) {
        talk(&format!("\nhint: `{given}` is an option of topo itself: it goes before the script\n"));
    }
}

/// Runs a workflow: a script that is a command.
pub(super) fn workflow(workflow: &Workflow, matches: &ArgMatches, context: &Context) -> Result<u8, Trouble> {
    let header = match Header::parse(&workflow.script.text) {
        Ok(header) => header,
        Err(error) => return Ok(bad_header(&workflow.script, &error)),
    };
    let options = match RunOptions::from_arg_matches(matches) {
        Ok(options) => options,
        Err(error) => return Ok(output::usage(&error)),
    };
    execute(&workflow.script, &header, matches, &options, context)
}

/// Reports a script whose header can't be read, and returns the exit code.
fn bad_header(script: &Script, error: &HeaderError) -> u8 {
    let texts = Texts::default();
    texts.keep(script);
    report(&header_failure(script, error), &texts);
    exit::FAILED
}

/// Returns a mistake in a script's header as a failure at its line.
pub(super) fn header_failure(script: &Script, error: &HeaderError) -> Failure {
    let spot = crate::state::Spot { source: script.name.as_str().into(), line: error.line, column: 1 };
    Failure {
        kind: FailureKind::Syntax,
        message: format!("read the script's header: {}", error.message),
        hint: error.hint.clone(),
        place: crate::state::Place(vec![spot]),
        also: Vec::new(),
    }
}

fn execute(
    script: &Script,
    header: &Header,
    matches: &ArgMatches,
    options: &RunOptions,
    context: &Context,
) -> Result<u8, Trouble> {
    if let Some(name) = &options.name {
        name::check("lab", name)?;
    }
    context.trust_own_scripts()?;
    if inside::needs_sandbox(options.sandbox, context) {
        // A script that can't even be compiled needs no sandbox to be told so.
        if let Err(failure) = crate::script::check_syntax(script) {
            let texts = Texts::default();
            texts.keep(script);
            report(&failure, &texts);
            return Ok(exit::FAILED);
        }
        // Standard input can be read once: the run in the sandbox gets what this process has read.
        let stdin = (script.name == "-").then_some(script.text.as_str());
        return Ok(inside::run_in_new(context, stdin)?);
    }
    net::process::signal::catch().map_err(|source| crate::state::Error::kernel("catch signals", &source))?;
    context::arm_fault();
    let state = context.state()?;
    let begun = Instant::now();
    let style = Style { json: options.json, trace: options.trace };
    let (listener, said) = terminal::listener(style);
    let origin = Origin {
        name: options.name.clone().map_or_else(|| lab_name(script, &state), Ok)?,
        named: options.name.is_some(),
        any_name: options.name.is_none() && is_nameless(script),
        script: script.name.clone(),
        kind: LabKind::Lab,
        parent: None,
        tied_to: None,
    };
    let mut lab = Lab::begin(origin, state, listener)?;
    // Made while the engine is, where the script is likely to want some.
    if script.text.contains("netns(") {
        lab.expect_netns();
    }
    let handle = LabHandle::new(lab, &script.name);
    handle.confine(options.no_exec);
    // The process ends soon after its script: the kernel frees an engine at once, which would take a part of the run.
    let mut session = ManuallyDrop::new(Session::new(&handle, &context.dirs, script_args(header, matches)));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        session.run(script)?;
        // What was asked for at the end is part of the script: its refusal is the script's failure.
        handle.with(|lab| lab.settle()).map_err(|error| Box::new(Failure::from(&error)))
    }));
    let texts = session.texts().clone();
    let Some(mut lab) = handle.take() else { return Ok(exit::FAILED) };
    match ran {
        Ok(ran) => Ok(RunEnd { lab, texts, options, said, begun }.conclude(ran)),
        Err(panic) => {
            // A defect of ours must leave nothing behind either.
            let _ = lab.take_down(&prim::steps());
            resume_unwind(panic)
        }
    }
}

fn lab_name(script: &Script, state: &StateDir) -> crate::state::Result<String> {
    if is_nameless(script) { state.free_name("lab") } else { Ok(context::lab_name_of(Path::new(&script.name))) }
}

/// Tells whether a script is in no file that could give the lab a name.
fn is_nameless(script: &Script) -> bool {
    matches!(script.name.as_str(), "-e" | "-")
}

/// Returns the arguments as the script sees them: addresses and networks as values, the rest as plain ones.
fn script_args(header: &Header, matches: &ArgMatches) -> rhai::Map {
    let kinds: std::collections::HashMap<&str, ValueType> =
        header.arguments.iter().map(|argument| (argument.name.as_str(), argument.value)).collect();
    let values = header.values(matches);
    let value = |(name, value): (&String, &serde_json::Value)| {
        let as_value = |value: &serde_json::Value| match (kinds.get(name.as_str()), value.as_str()) {
            (Some(ValueType::Network), Some(text)) => crate::prim::net_value(text),
            (Some(ValueType::Ip), Some(text)) => crate::prim::ip_value(text),
            _ => None,
        };
        let plain = |value: &serde_json::Value| rhai::serde::to_dynamic(value).unwrap_or(rhai::Dynamic::UNIT);
        let dynamic = match value.as_array() {
            Some(list) => {
                list.iter().map(|value| as_value(value).unwrap_or_else(|| plain(value))).collect::<Vec<_>>().into()
            }
            None => as_value(value).unwrap_or_else(|| plain(value)),
        };
        (name.as_str().into(), dynamic)
    };
    values.iter().map(value).collect()
}

/// The end of a run: the lab stays or goes, and what happened is said.
struct RunEnd<'a> {
    lab: Lab,
    texts: Texts,
    options: &'a RunOptions,
    said: Rc<RefCell<Said>>,
    begun: Instant,
}

impl RunEnd<'_> {
    fn conclude(mut self, ran: Result<(), Box<Failure>>) -> u8 {
        let name = self.lab.name().to_string();
        let checks = self.lab.checks().to_vec();
        let failed = checks.iter().filter(|check| !check.ok).count();
        if ran.is_err() && self.options.keep {
            // What was asked for before the failure shows what it failed on.
            let _ = self.lab.settle();
        }
        // A script whose output is lost has not done its work.
        let failure = ran.err().map(|failure| *failure).or_else(|| terminal::failed().as_ref().map(Failure::from));
        let fine = failure.is_none() && failed == 0;
        let stays = if fine { !self.options.rm } else { self.options.keep };
        let mut code = match &failure {
            Some(failure) => exit::of_failure(failure.kind),
            None => exit::of_failed(failed > 0),
        };
        if let Some(failure) = failure.as_ref().filter(|_| !self.options.json) {
            report(failure, &self.texts);
        }
        if failed > 0 && !self.options.json {
            talk(&format!("{} failed\n", of_checks(failed, checks.len())));
        }
        let up = match stays {
            true => self.leave_up(&name, &mut code),
            false => self.take_down(&name, fine, &mut code),
        };
        if let Some(time) = output::took(self.begun).filter(|_| !up && !self.options.json) {
            talk(&format!("{} after {time}\n", if code == exit::DONE { "done" } else { "failed" }));
        }
        self.print_json(&name, up, failure.as_ref(), &checks);
        // Like the engine: what a large lab holds in memory goes at once.
        std::mem::forget(self.lab);
        code
    }

    fn leave_up(&mut self, name: &str, code: &mut u8) -> bool {
        let holds = terminal::holds(&mut self.lab);
        let up = match self.lab.leave_up() {
            Ok(up) => up,
            Err(error) => {
                // A lab of which nobody knows that it is up would be taken for a dead one.
                report(&Failure::from(&error), &self.texts);
                *code = (*code).max(exit::FAILED);
                return self.take_down(name, false, code);
            }
        };
        if up && !self.options.json {
            let after = output::took(self.begun).map_or(String::new(), |time| format!(" after {time}"));
            talk(&format!("lab `{name}` is up{after}: {holds}; `topo down {name}` takes it down\n"));
        }
        up
    }

    fn take_down(&mut self, name: &str, fine: bool, code: &mut u8) -> bool {
        let any = self.lab.last_applied() > 0;
        let errors = self.lab.take_down(&prim::steps());
        for error in &errors {
            report(&Failure::from(error), &self.texts);
        }
        if !errors.is_empty() {
            *code = (*code).max(exit::FAILED);
            talk(&format!("lab `{name}` is not wholly gone: `topo down {name}` tries again\n"));
        } else if any && !fine && !self.options.json {
            talk(&format!("everything that lab `{name}` had made was taken back\n"));
        }
        !errors.is_empty()
    }

    fn print_json(&self, name: &str, up: bool, failure: Option<&Failure>, checks: &[CheckResult]) {
        if self.options.json {
            terminal::json(&output::run_as_json(name, up, failure, checks, &self.said.borrow()));
        }
    }
}

fn of_checks(failed: usize, all: usize) -> String {
    format!("{failed} of {}", counted(all, "check", "checks"))
}
