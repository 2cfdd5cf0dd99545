//! `topo ls`: the labs.

use serde_json::Value;

use super::context::Context;
use super::output::Trouble;
use super::sandboxes::look_into_sandboxes;
use crate::prim;
use crate::state::LabKind;
use crate::survey::Summary;
use crate::terminal::{self, age, data, exit, talk};

/// Lists the labs and networks: how they are, what they hold, who made them.
///
/// topo looks into each lab that is up, step by step. The lab is `damaged` if others took away something of it or of a part of it. topo
/// can't look into a lab of another host, or without rights: such a lab is `unseen`, and its state is the one of its record.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// List the containers' attachments to networks too
    #[arg(long)]
    all: bool,
}

/// Runs `topo ls`.
pub(super) fn ls(args: &Args, context: &Context) -> Result<u8, Trouble> {
    let state = context.state()?;
    let (mut summaries, mut errors) = crate::survey::summaries(&state, &prim::steps(), None)?;
    if context.inside.is_none() {
        errors.extend(look_into_sandboxes(&mut summaries, &state)?);
    }
    summaries.retain(|summary| args.all || summary.kind != LabKind::Endpoint);
    if args.json {
        terminal::json(&summaries.iter().map(|summary| serde_json::to_value(summary).unwrap_or(Value::Null)).collect());
    } else if summaries.is_empty() {
        talk("no lab is up\n");
    } else {
        let titles = ["name", "kind", "state", "netns", "devs", "age", "script"].map(String::from);
        let rows: Vec<Vec<String>> = summaries.iter().map(row).collect();
        data(&terminal::table(&titles, &rows));
    }
    if errors.is_empty() { Ok(exit::DONE) } else { Err(errors.into()) }
}

fn row(summary: &Summary) -> Vec<String> {
    let notes = [
        (summary.state == "gone").then_some("restarted"),
        (summary.sandbox && summary.state != "gone").then_some("sandbox"),
        summary.unseen.as_ref().map(|_| "unseen"),
    ];
    let notes: Vec<&str> = notes.into_iter().flatten().collect();
    let state = match notes.is_empty() {
        true => summary.state.to_string(),
        false => format!("{} ({})", summary.state, notes.join(", ")),
    };
    vec![
        summary.name.clone(),
        summary.kind.word().to_string(),
        state,
        summary.netns.to_string(),
        summary.devs.to_string(),
        age(summary.created, crate::state::now()),
        summary.script.clone(),
    ]
}
