//! `topo logs`: what the processes of a lab have written.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::doors::refused;
use super::output::Trouble;
use crate::prim;
use crate::state::Kind;
use crate::survey::LogView;
use crate::terminal::{self, data, exit, foreign, talk};

/// Shows what the processes that a lab has started have written, of all or of one; or, without a lab, what container runtimes were refused.
///
/// Of more than 1 MiB the beginning and the end are kept. Of the processes that have ended, the last 32 are kept, and of those of one name in
/// a netns the last one. Where there are several processes, each line begins with its
/// process: `NETNS/NAME`.
///
/// Of refusals some hundreds are kept, until the machine is restarted. Some runtimes, such as crun, do not show why a hook failed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what is written from now on, until the processes have ended
    #[arg(short, long, requires = "lab")]
    follow: bool,
    /// Show only the last lines of each
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    /// Print the logs as JSON, with how the processes are
    #[arg(long, conflicts_with = "follow")]
    json: bool,
    /// The lab
    #[arg(value_name = "LAB")]
    lab: Option<String>,
    /// The process; the netns may be left out where only one has a process of that name
    #[arg(value_name = "[NETNS/]NAME")]
    name: Option<String>,
}

/// How long to wait for a change at most: a supervisor that was killed tells of none.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs `topo logs`.
pub(super) fn logs(args: &Args, context: &Context) -> Result<u8, Trouble> {
    let state = context.state()?;
    let Some(lab) = &args.lab else { return Ok(refusals(args, state.root())) };
    let look = || crate::survey::logs_of(&state, lab, args.name.as_deref(), &prim::steps());
    let logs = look()?;
    if args.json {
        let all: Result<Value, crate::state::Error> = logs.iter().map(|log| as_json(log, args.lines)).collect();
        terminal::json(&all?);
        return Ok(exit::DONE);
    }
    if logs.is_empty() {
        talk(&format!("lab `{}` has started no process\n", lab));
    }
    let mut shown = ShownLogs { several: logs.len() > 1, next: BTreeMap::new() };
    for log in &logs {
        shown.first(log, args.lines)?;
    }
    if !args.follow {
        return Ok(exit::DONE);
    }
    let Some(changes) = crate::survey::watch_logs(&state, lab)? else { return Ok(exit::DONE) };
    loop {
        // Of a lab that is being built more may come.
        let logs = match look() {
            Ok(logs) => logs,
            Err(error) if error.kind() == Kind::Missing => return Ok(exit::DONE),
            Err(error) => return Err(error.into()),
        };
        // Asked before the look at their output: what is written last is shown too.
        let running = logs.iter().any(|log| log.process.running);
        shown.several |= logs.len() > 1;
        for log in &logs {
            shown.more(log)?;
        }
        if !running {
            return Ok(exit::DONE);
        }
        changes.wait(LOOK_AGAIN);
    }
}

/// Shows what container runtimes were refused.
fn refusals(args: &Args, root: &Path) -> u8 {
    let mut all = refused::all(root);
    if let Some(lines) = args.lines {
        all.drain(..all.len().saturating_sub(lines));
    }
    if args.json {
        terminal::json(&all.into());
        return exit::DONE;
    }
    if all.is_empty() {
        talk("nothing was refused to a container runtime\n");
        return exit::DONE;
    }
    let titles = ["age", "door", "container", "error"].map(String::from);
    let row = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_string();
        let age = terminal::age(one["at"].as_u64().unwrap_or_default(), crate::state::now());
        let hint = Some(text("hint")).filter(|hint| !hint.is_empty()).map_or(String::new(), |hint| format!("; {hint}"));
        vec![age, text("door"), text("container"), format!("{}{hint}", text("error"))]
    };
    data(&terminal::table(&titles, &all.iter().map(row).collect::<Vec<_>>()));
    exit::DONE
}

fn as_json(log: &LogView, lines: Option<usize>) -> Result<Value, crate::state::Error> {
    let mut value = json!(log.process);
    value["log"] = last(&log.files.text()?, lines).into();
    Ok(value)
}

/// Returns the last lines of a text, or all.
fn last(text: &str, lines: Option<usize>) -> &str {
    let Some(lines) = lines else { return text };
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).filter(|end| *end < text.len()).collect();
    let starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
    match starts.len().checked_sub(lines) {
        _ if lines == 0 => "",
        Some(first) => &text[starts[first]..],
        None => text,
    }
}

/// What was shown so far.
struct ShownLogs {
    /// Whether lines begin with their process.
    several: bool,
    /// Where each log goes on, by the number of the process.
    next: BTreeMap<u32, u64>,
}

impl ShownLogs {
    /// Shows what is there of a log.
    fn first(&mut self, log: &LogView, lines: Option<usize>) -> Result<(), crate::state::Error> {
        let (text, next) = log.files.text_and_end()?;
        self.next.insert(log.no, next);
        self.say(log, last(&text, lines));
        Ok(())
    }

    /// Shows what has come since.
    fn more(&mut self, log: &LogView) -> Result<(), crate::state::Error> {
        loop {
            let next = self.next.entry(log.no).or_insert(0);
            let piece = log.files.text_from(*next)?;
            if piece.bytes.is_empty() {
                return Ok(());
            }
            *next = piece.next;
            let text = piece.text();
            self.say(log, &text);
        }
    }

    fn say(&self, log: &LogView, text: &str) {
        if !self.several {
            return foreign(text);
        }
        let who = format!("{}/{}", log.process.netns, log.process.name);
        foreign(&text.lines().map(|line| format!("{who} | {line}\n")).collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use super::last;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = "a\nb\nc\n";
        assert_eq!([last(text, None), last(text, Some(2)), last(text, Some(9))], [text, "b\nc\n", text]);
        assert_eq!([last("a\nb", Some(1)), last("", Some(1)), last(text, Some(0))], ["b", "", ""]);
    }
}
