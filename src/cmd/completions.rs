//! `topo completions`: completion for shells, the workflows' arguments included.

use clap::CommandFactory;
use clap_complete::Shell;

use super::context::Context;
use super::output::Trouble;
use super::{Cli, scripts};
use crate::terminal::{data, exit};

/// Prints a completion script for a shell; the workflows, your own included, complete with their arguments.
///
/// For bash: `topo completions bash > ~/.local/share/bash-completion/completions/topo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// Runs `topo completions`.
pub(super) fn completions(args: &Args, context: &Context) -> Result<u8, Trouble> {
    let mut command = context.workflows().iter().fold(Cli::command(), scripts::add_command);
    // Into memory first: the generator panics where the reader has gone away.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "topo", &mut text);
    data(&String::from_utf8_lossy(&text));
    Ok(exit::DONE)
}
