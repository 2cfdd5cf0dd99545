//! `topo scripts`, and how workflows become commands.

use clap::{ArgMatches, Args as _, Command};
use serde_json::json;

use super::args::RunOptions;
use super::context::Context;
use super::output::Trouble;
use crate::script::Workflow;
use crate::script::header::Header;
use crate::terminal::{self, data, exit, foreign};

/// Lists the workflows: the scripts that are commands of topo, with what they do. `topo NAME --help` shows the arguments
/// of one, `topo scripts --source NAME` its text, to begin a script of your own with.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the text of one
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Print them as JSON
    #[arg(long, conflicts_with = "source")]
    json: bool,
}

/// Runs `topo scripts`.
pub(super) fn scripts(args: &Args, context: &Context) -> Result<u8, Trouble> {
    if let Some(name) = &args.source {
        let words: Vec<String> = name.split_whitespace().map(String::from).collect();
        let workflow = context.workflows().get(&words).ok_or_else(|| {
            let error = crate::state::Error::new(crate::state::Kind::Missing, format!("find workflow `{name}`"));
            let names: Vec<String> = context.workflows().keys().map(|words| words.join(" ")).collect();
            match crate::state::name::nearest(name, names.iter().map(String::as_str)) {
                Some(near) => error.because("there is none of this name").hint(format!("did you mean `{near}`?")),
                None => error.because("there is none of this name").hint("`topo scripts` lists them"),
            }
        })?;
        foreign(&workflow.script.text);
        return Ok(exit::DONE);
    }
    let about = |workflow: &Workflow| {
        Header::parse(&workflow.script.text)
            .map_or_else(|error| format!("(its header is wrong: {error})"), |header| header.about)
    };
    if args.json {
        let row = |workflow: &Workflow| json!({ "name": workflow.words.join(" "), "about": about(workflow), "script": workflow.script.name, "own": workflow.own });
        terminal::json(&context.workflows().values().map(row).collect());
    } else {
        let rows: Vec<Vec<String>> =
            context.workflows().values().map(|workflow| vec![workflow.words.join(" "), about(workflow)]).collect();
        data(&terminal::table(&["name".into(), "what it does".into()], &rows));
    }
    if context.unreadable().is_empty() { Ok(exit::DONE) } else { Err(context.unreadable().to_vec().into()) }
}

/// Adds a workflow to the command line: `["network", "create"]` becomes `topo network create`.
pub(super) fn add_command(command: Command, (words, workflow): (&Vec<String>, &Workflow)) -> Command {
    // One of the program's own names stays the program's.
    if words.len() == 1 && command.find_subcommand(&words[0]).is_some() {
        return command;
    }
    let (Some(last), parents) = (words.last(), &words[..words.len().saturating_sub(1)]) else { return command };
    // A wrong header is told when the workflow is run, not whenever topo starts.
    let header = Header::parse(&workflow.script.text).unwrap_or_default();
    let leaf = RunOptions::augment_args(header.command(last));
    let leaf = if parents.first().is_some_and(|word| word == NETWORK) { hide_options_of_labs(leaf) } else { leaf };
    // As in the list of topo's own commands.
    let leaf = leaf.about(header.about.trim_end_matches('.').to_string());
    add_below(command, parents, leaf)
}

/// The workflows of networks, which are no part of a lab that the command builds.
const NETWORK: &str = "network";

/// Leaves out of the help what is about the lab that a script builds. It is still taken.
fn hide_options_of_labs(leaf: Command) -> Command {
    const OF_LABS: [&str; 5] = ["rm", "keep", "sandbox", "no-exec", "name"];
    leaf.mut_args(|arg| {
        let is_of_run = arg.get_help_heading() == Some("Run options");
        let hidden = is_of_run && arg.get_long().is_some_and(|long| OF_LABS.contains(&long));
        if hidden { arg.hide(true) } else { arg }
    })
}

fn add_below(command: Command, parents: &[String], leaf: Command) -> Command {
    let Some((first, rest)) = parents.split_first() else { return command.subcommand(leaf) };
    let known = command.find_subcommand(first).is_some();
    if known {
        return command.mut_subcommand(first, |parent| add_below(parent, rest, leaf));
    }
    let about = format!("Workflows of `{first}`");
    let parent = Command::new(first.clone()).about(about).subcommand_required(true).arg_required_else_help(true);
    command.subcommand(add_below(parent, rest, leaf))
}

/// Returns the workflow that the command line asks for, with its arguments.
pub(super) fn chosen<'a>(matches: &'a ArgMatches, context: &'a Context) -> Option<(&'a Workflow, &'a ArgMatches)> {
    let mut words = Vec::new();
    let mut matches = matches;
    while let Some((word, below)) = matches.subcommand() {
        words.push(word.to_string());
        matches = below;
        if let Some(workflow) = context.workflows().get(&words) {
            return is_free(&words).then_some((workflow, matches));
        }
    }
    None
}

/// Tells whether a workflow's words are none of the program's own commands.
fn is_free(words: &[String]) -> bool {
    use clap::CommandFactory;
    words.len() > 1 || super::Cli::command().find_subcommand(&words[0]).is_none()
}
