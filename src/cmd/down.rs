//! `topo down`: taking labs down.

use std::time::Instant;

use super::context::Context;
use super::inside;
use super::output::{self, Trouble};
use crate::lab;
use crate::prim;
use crate::state::{Error, LabKind, Record, StateDir};
use crate::terminal::{self, Style, exit, talk};

/// Takes labs down: ends their processes and removes all that they made. Needs neither the script nor its directory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Take all labs down; container networks stay, which `topo network rm` removes
    #[arg(long, conflicts_with = "labs")]
    all: bool,
    /// Take down a damaged lab as far as possible, say what is left, and forget it
    #[arg(long, conflicts_with = "forget")]
    force: bool,
    /// Only remove what is known of a lab, and leave alone what it made: for one whose container has ended; `gc` frees its addresses
    #[arg(long, conflicts_with = "all")]
    forget: bool,
    /// Print each step that is taken back
    #[arg(long)]
    trace: bool,
    /// The labs
    #[arg(value_name = "LAB", required_unless_present = "all")]
    labs: Vec<String>,
}

/// Runs `topo down`.
pub(super) fn down(args: &Args, context: &Context) -> Result<u8, Trouble> {
    super::context::arm_fault();
    let state = context.state()?;
    let names = if args.all { all_labs(&state)? } else { args.labs.clone() };
    if names.is_empty() {
        talk("no lab is up\n");
    }
    let mut errors = Vec::new();
    for name in &names {
        let begun = Instant::now();
        let failed = down_one(&state, name, args);
        if failed.is_empty() {
            let what = if args.forget { "forgotten" } else { "down" };
            let after = output::took(begun).map_or(String::new(), |time| format!(" after {time}"));
            talk(&format!("lab `{name}` is {what}{after}\n"));
        }
        errors.extend(failed);
    }
    if errors.is_empty() { Ok(exit::DONE) } else { Err(errors.into()) }
}

/// Returns the labs that are not networks, and not parts of others: those go with what they are parts of.
fn all_labs(state: &StateDir) -> Result<Vec<String>, Error> {
    let mut names = state.names()?;
    let stands = |record: &Record| record.kind == LabKind::Lab && record.parent.is_none();
    // What is wrong with a record that can't be read is told by the attempt.
    names.retain(|name| state.find(name).and_then(|dir| dir.record()).map_or(true, |record| stands(&record)));
    Ok(names)
}

fn down_one(state: &StateDir, name: &str, args: &Args) -> Vec<Error> {
    let sandboxed = state.find(name).and_then(|dir| dir.record()).is_ok_and(|record| record.holder.is_some());
    if !sandboxed && !lab::can_build_here() {
        // A name that is not there is the better thing to say.
        let missing = state.find(name).err();
        return vec![missing.unwrap_or_else(|| inside::not_allowed(&format!("take down lab `{name}`")))];
    }
    if args.forget {
        return lab::forget(state, name);
    }
    let (mut listener, _) = terminal::listener(Style { json: false, trace: args.trace });
    let down = if args.force { lab::down_by_force } else { lab::down };
    down(state, name, &prim::steps(), &mut listener)
}
