//! `topo ls`: the labs.

use serde_json::Value;

use super::context::Context;
use super::output::Trouble;
use crate::lab::{self, LabKind, Summary};
use crate::prim;
use crate::terminal::{self, age, data, talk};

/// Lists the labs and networks: how they are, what they hold, who made them.
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
    let (mut summaries, errors) = lab::summaries(&state, &prim::steps())?;
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
    if errors.is_empty() { Ok(0) } else { Err(errors.into()) }
}

fn row(summary: &Summary) -> Vec<String> {
    let state = match summary.state {
        "gone" => "gone (restarted)".to_string(),
        state if summary.sandbox => format!("{state} (sandbox)"),
        state => state.to_string(),
    };
    vec![
        summary.name.clone(),
        summary.kind.word().to_string(),
        state,
        summary.netns.to_string(),
        summary.devs.to_string(),
        age(summary.created, lab::now()),
        summary.script.clone(),
    ]
}
