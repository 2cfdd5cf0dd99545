//! Looking into the sandboxes of labs from outside: a process in each, `__look LAB…`, says how its labs are.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Child, Output, Stdio};

use serde::{Deserialize, Serialize};

use super::context::{Context, this_program};
use super::inside;
use super::output::Trouble;
use crate::net::ProcessId;
use crate::prim;
use crate::state::{Error, Kind, Result, StateDir};
use crate::survey::Summary;
use crate::terminal::{self, environment, exit};

/// How many sandboxes are looked into at a time.
const AT_A_TIME: usize = 32;

/// The word of the process that looks at labs in their sandbox; their names follow.
pub(super) const LOOK: &str = "__look";

/// What is said of a lab in its sandbox.
#[derive(Serialize, Deserialize)]
struct SandboxedLab {
    name: String,
    state: String,
    unseen: Option<String>,
}

/// Looks into the sandboxes of labs that are up, into several at a time, and enters how the labs are. Returns what went wrong.
pub(super) fn look_into_sandboxes(summaries: &mut Vec<Summary>, state: &StateDir) -> Result<Vec<Error>> {
    let mut sandboxes: BTreeMap<(u32, u64), Vec<String>> = BTreeMap::new();
    for summary in summaries.iter().filter(|summary| summary.state == "up") {
        if let Some(holder) = summary.holder {
            sandboxes.entry((holder.pid, holder.start)).or_default().push(summary.name.clone());
        }
    }
    if sandboxes.is_empty() {
        return Ok(Vec::new());
    }
    let program = this_program()?;
    let sandboxes: Vec<(ProcessId, Vec<String>)> =
        sandboxes.into_iter().map(|((pid, start), labs)| (ProcessId { pid, start }, labs)).collect();
    let mut errors = Vec::new();
    for some in sandboxes.chunks(AT_A_TIME) {
        let begun: Vec<Result<Child>> =
            some.iter().map(|(holder, labs)| begin(&program, *holder, labs, state)).collect();
        for ((holder, labs), child) in some.iter().zip(begun) {
            let doing = format!("look into the sandbox of lab `{}`", labs.join("`, `"));
            let (seen, error) = child.map_or_else(|error| (Vec::new(), Some(error)), |child| end(child, &doing));
            let all_seen = enter(summaries, seen, *holder, state);
            let error =
                error.or_else(|| (!all_seen).then(|| Error::new(Kind::Missing, doing).because("it is not there")));
            // That a sandbox has ended meanwhile is no failure.
            errors.extend(error.filter(|_| holder.is_alive()));
        }
    }
    Ok(errors)
}

fn begin(program: &Path, holder: ProcessId, labs: &[String], state: &StateDir) -> Result<Child> {
    let mut command = inside::command_in(program, holder)?;
    command.arg(LOOK).args(labs);
    command.env(environment::STATE.name(), state.root());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|source| Error::file("look into a sandbox", &source))
}

/// Looks at labs of the sandbox that this process is in; says how they are, and returns the exit code.
pub(super) fn look(context: &Context) -> u8 {
    let names: Vec<String> = context.words.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
    let looked = context.state().and_then(|state| crate::survey::summaries(&state, &prim::steps(), Some(&names)));
    let (summaries, errors) = match looked {
        Ok(looked) => looked,
        Err(error) => return Trouble::from(error).report(),
    };
    let seen =
        |summary: Summary| SandboxedLab { name: summary.name, state: summary.state.into(), unseen: summary.unseen };
    let seen: Vec<SandboxedLab> = summaries.into_iter().map(seen).collect();
    terminal::json(&serde_json::to_value(seen).unwrap_or_default());
    if errors.is_empty() { exit::DONE } else { Trouble::from(errors).report() }
}

/// Waits for a look; returns what it saw, and its first error.
fn end(child: Child, doing: &str) -> (Vec<SandboxedLab>, Option<Error>) {
    let output = match child.wait_with_output() {
        Ok(output) => output,
        Err(source) => return (Vec::new(), Some(Error::file(doing, &source))),
    };
    let error = error_of(&output, doing);
    match serde_json::from_slice(&output.stdout) {
        Ok(seen) => (seen, error),
        Err(source) => (Vec::new(), error.or_else(|| Some(Error::new(Kind::Failed, doing).because(source)))),
    }
}

/// Returns the first error that a look reported, with its hint.
fn error_of(output: &Output, doing: &str) -> Option<Error> {
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)).map(str::to_string);
    let because = first("error: ").unwrap_or_else(|| output.status.to_string());
    Some(first("hint: ").into_iter().fold(Error::new(Kind::Failed, doing).because(because), Error::hint))
}

/// Enters what was seen of the labs of a sandbox; tells whether each was seen that is there.
fn enter(summaries: &mut Vec<Summary>, seen: Vec<SandboxedLab>, holder: ProcessId, state: &StateDir) -> bool {
    let mut seen: HashMap<String, SandboxedLab> = seen.into_iter().map(|seen| (seen.name.clone(), seen)).collect();
    let mut all_seen = true;
    summaries.retain_mut(|summary| {
        if summary.holder != Some(holder) || summary.state != "up" {
            return true;
        }
        let found =
            seen.remove(&summary.name).and_then(|seen| Some((crate::survey::state_word(&seen.state)?, seen.unseen)));
        match found {
            Some(found) => (summary.state, summary.unseen) = found,
            // It was taken down meanwhile.
            None if state.find(&summary.name).is_err() => return false,
            None if !holder.is_alive() => (summary.state, summary.unseen) = ("dead", None),
            None => {
                summary.unseen = Some("its sandbox could not be looked into".into());
                all_seen = false;
            }
        }
        true
    });
    all_seen
}
