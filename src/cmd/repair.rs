//! `topo repair`: what others took from a lab is put back.

use super::context::Context;
use super::inside;
use super::output::Trouble;
use crate::lab;
use crate::prim;
use crate::terminal::{self, Style, data, exit};

/// Puts back what others took from a lab: devices, addresses, routes, rules and settings that were deleted or changed.
///
/// The exit code is 0 once nothing is amiss, and 1 if something could not be put back.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print each step that is made again
    #[arg(long)]
    trace: bool,
    /// The lab
    #[arg(value_name = "LAB")]
    lab: String,
}

/// Runs `topo repair`.
pub(super) fn repair(args: &Args, context: &Context) -> Result<u8, Trouble> {
    super::context::arm_fault();
    let state = context.state()?;
    let record = state.find(&args.lab)?.record()?;
    if let Some(holder) = record.holder.filter(|_| context.inside.is_none() && !state.has_ended(&record)) {
        return Ok(inside::relay(&args.lab, holder, context)?);
    }
    if record.holder.is_none() && !lab::can_build_here() {
        return Err(inside::not_allowed(&format!("repair lab `{}`", args.lab)).into());
    }
    let (mut listener, _) = terminal::listener(Style { json: false, trace: args.trace });
    let repaired = crate::survey::repair(&state, &args.lab, &prim::steps(), &mut listener)?;
    repaired.made.iter().for_each(|what| data(&format!("put back: {what}\n")));
    if !repaired.errors.is_empty() {
        return Err(repaired.errors.into());
    }
    if repaired.made.is_empty() {
        data("nothing is amiss\n");
    }
    Ok(exit::DONE)
}
