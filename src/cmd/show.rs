//! `topo show`: a lab as the kernel has it now.

use serde_json::Value;

use super::context::Context;
use super::inside;
use super::output::Trouble;
use crate::lab;
use crate::prim;
use crate::terminal::{self, data, exit};

/// Shows what a lab holds, as the kernel has it now: namespaces, devices with their addresses, routes.
///
/// The lab is `damaged` if others took away something of it or of a part of it. What was lost is named first, by the steps that made it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Print the commands of iproute2 that do what the lab did
    #[arg(long, conflicts_with = "json")]
    steps: bool,
    /// The lab
    #[arg(value_name = "LAB")]
    lab: String,
}

/// Runs `topo show`.
pub(super) fn show(args: &Args, context: &Context) -> Result<u8, Trouble> {
    let state = context.state()?;
    let record = state.find(&args.lab)?.record()?;
    if let Some(holder) = record.holder.filter(|_| context.inside.is_none() && !state.has_ended(&record)) {
        return Ok(inside::relay(&args.lab, holder, context)?);
    }
    if record.holder.is_none() && !lab::can_build_here() {
        return Err(inside::not_allowed(&format!("look into lab `{}`", args.lab)).into());
    }
    let view = crate::survey::view(&state, &args.lab, &prim::steps())?;
    if args.json {
        terminal::json(&serde_json::to_value(&view).unwrap_or(Value::Null));
    } else if args.steps {
        view.steps.iter().for_each(|step| data(&format!("{step}\n")));
    } else {
        data(&terminal::lab_text(&view));
    }
    view.error.map_or(Ok(exit::DONE), |error| Err(error.into()))
}
