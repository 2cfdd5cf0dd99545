//! `topo show`: a lab as the kernel has it now.

use serde_json::Value;

use super::context::Context;
use super::inside;
use super::output::{self, Trouble, age, counted, data};
use crate::lab::{self, DevView, LabView, NetnsView};
use crate::prim;

/// Shows what a lab holds, as the kernel has it now: namespaces, devices with their addresses, routes.
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
    let view = lab::view(&state, &args.lab, &prim::steps())?;
    if args.json {
        output::json(&serde_json::to_value(&view).unwrap_or(Value::Null));
    } else if args.steps {
        view.steps.iter().for_each(|step| data(&format!("{step}\n")));
    } else {
        data(&text(&view));
    }
    Ok(0)
}

fn text(view: &LabView) -> String {
    let summary = &view.summary;
    let sandbox = if summary.sandbox { ", in a sandbox" } else { "" };
    let mut text = format!(
        "lab {}: {}{sandbox}, {} netns, {}, made by {} {} ago\n",
        summary.name,
        summary.state,
        summary.netns,
        counted(summary.devs, "device", "devices"),
        summary.script,
        age(summary.created, lab::now())
    );
    for netns in &view.namespaces {
        text.push_str(&netns_text(netns));
    }
    text
}

fn netns_text(netns: &NetnsView) -> String {
    let note = if netns.made { "" } else { "  (not made by this lab)" };
    let mut text = format!("\n{}{note}\n", netns.name);
    if let Some(gone) = &netns.gone {
        text.push_str(&format!("  gone: {gone}\n"));
    }
    let rows: Vec<[String; 3]> = netns.devs.iter().map(dev_row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [name, what, rest] in &rows {
        text.push_str(format!("  {name:first$}  {what:second$}  {rest}").trim_end());
        text.push('\n');
    }
    for route in &netns.routes {
        text.push_str(&format!("  route {route}\n"));
    }
    text
}

fn dev_row(dev: &DevView) -> [String; 3] {
    let name = match &dev.kernel_name {
        Some(kernel_name) => format!("{} ({kernel_name})", dev.name),
        None => dev.name.clone(),
    };
    let mut rest = dev.addresses.clone();
    if let Some(controller) = &dev.controller {
        rest.push(format!("port of {controller}"));
    }
    if let Some(peer) = &dev.peer {
        rest.push(format!("-- {peer}"));
    }
    [name, format!("{} {}", dev.kind, dev.state), rest.join("  ")]
}
