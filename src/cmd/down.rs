//! `topo down`: taking labs down.

use super::context::Context;
use super::inside;
use super::output::{self, Style, Trouble, talk};
use crate::lab::{self, Error, Kind, StateDir};
use crate::prim;

/// Takes labs down: ends their processes and removes all that they made. Needs neither the script nor its directory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Take all labs down
    #[arg(long, conflicts_with = "labs")]
    all: bool,
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
    let names = if args.all { state.names()? } else { args.labs.clone() };
    if names.is_empty() {
        talk("no lab is up\n");
    }
    let mut errors = Vec::new();
    for name in &names {
        let mut failed = down_one(&state, name, args.trace);
        if args.all {
            // One that went with the lab that it was a part of.
            failed.retain(|error| error.kind() != Kind::Missing);
        }
        if failed.is_empty() {
            talk(&format!("lab `{name}` is down\n"));
        }
        errors.extend(failed);
    }
    if errors.is_empty() { Ok(0) } else { Err(errors.into()) }
}

fn down_one(state: &StateDir, name: &str, trace: bool) -> Vec<Error> {
    let sandboxed = state.find(name).and_then(|dir| dir.record()).is_ok_and(|record| record.holder.is_some());
    if !sandboxed && !lab::can_build_here() {
        // A name that is not there is the better thing to say.
        let missing = state.find(name).err();
        return vec![missing.unwrap_or_else(|| inside::not_allowed(&format!("take down lab `{name}`")))];
    }
    let (mut listener, _) = output::listener(Style { json: false, trace });
    lab::down(state, name, &prim::steps(), &mut listener)
}
