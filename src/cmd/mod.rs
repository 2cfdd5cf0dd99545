//! The command line: one file a subcommand. Data goes to stdout, talk to stderr.

mod args;
mod check;
mod completions;
mod context;
mod doc;
mod doctor;
mod doors;
mod down;
mod exec;
mod gc;
mod inside;
mod logs;
mod ls;
mod output;
mod repair;
mod repl;
mod run;
mod sandboxes;
mod scripts;
mod serve;
mod show;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use context::Context;
use doors::{cdi, cni, docker, hook};
use output::Trouble;

use crate::net;
use crate::script::{Workflow, elsewhere, has_workflows_below};
use crate::terminal;

/// Builds, checks and takes down real Linux networks from a script.
#[derive(Debug, Parser)]
#[command(name = "topo", version, propagate_version = true, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = after_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What stands below the commands.
fn after_help() -> String {
    format!(
        "\
Begin with:
  topo run examples/01-pair.rhai    build a lab, and be told what it holds
  topo ls                           list the labs that are up
  topo doc veth                     read about a primitive
  topo scripts                      list the workflows, which are commands too

{}

{}",
        terminal::environment::help(),
        terminal::exit::help()
    )
}

/// Declares the commands, each with a line about it, its module and its function there. What clap is told of a command's own words
/// is told when that command is looked at: all of them together are a third of a millisecond at each start.
macro_rules! commands {
    ($(#[doc = $about:literal] $name:ident: $module:ident,)*) => {
        /// The commands that are no workflows.
        #[derive(Debug)]
        enum Command {
            $(#[doc = $about] $name($module::Args),)*
        }

        impl Subcommand for Command {
            fn augment_subcommands(command: clap::Command) -> clap::Command {
                command$(.subcommand(
                    clap::Command::new(stringify!($module)).about($about.trim()).defer(|command| {
                        let command = <$module::Args as clap::Args>::augment_args(command);
                        // What the documentation of the arguments says of them in general is for who reads the code.
                        command.about($about.trim()).long_about(None)
                    }),
                ))*
            }

            fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                [$(stringify!($module)),*].contains(&name)
            }
        }

        impl FromArgMatches for Command {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                match matches.subcommand() {
                    $(Some((stringify!($module), words)) => {
                        <$module::Args as FromArgMatches>::from_arg_matches(words).map(Command::$name)
                    })*
                    _ => Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand)),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                Self::from_arg_matches(matches).map(|command| *self = command)
            }
        }
    };
}

commands! {
    /// Runs a script: builds its lab, and leaves it up
    Run: run,
    /// Builds a lab by hand, at a prompt
    Repl: repl,
    /// Runs tests, each in a sandbox of its own
    Test: test,
    /// Checks a script without running it: syntax, unknown functions, wrong arguments, unknown options
    Check: check,
    /// Lists the labs
    Ls: ls,
    /// Shows what a lab holds: namespaces, devices, addresses, routes
    Show: show,
    /// Puts back what others took from a lab
    Repair: repair,
    /// Takes labs down, with all that they made
    Down: down,
    /// Runs a command in a namespace of a lab
    Exec: exec,
    /// Shows what the processes of a lab have written
    Logs: logs,
    /// Removes what dead runs left behind
    Gc: gc,
    /// Shows the documentation of a primitive, a library function or a workflow
    Doc: doc,
    /// Tells what this machine can do, and how to get what is missing
    Doctor: doctor,
    /// Lists the workflows: the scripts that are commands of topo
    Scripts: scripts,
    /// Connects containers as a hook of runc, crun and other OCI runtimes
    Hook: hook,
    /// Makes networks known to Podman, Docker and others as devices (CDI)
    Cdi: cdi,
    /// Is the CNI plugin, for containerd, CRI-O, Podman and Nomad
    Cni: cni,
    /// Is the network driver of Docker
    Docker: docker,
    /// Prints a completion script for a shell
    Completions: completions,
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let code = run_words(std::env::args_os().collect());
    // Of a run that has failed for it, it was told.
    match terminal::failed().filter(|_| code == terminal::exit::DONE) {
        Some(error) => ExitCode::from(Trouble::from(error).report()),
        None => ExitCode::from(code),
    }
}

fn run_words(words: Vec<OsString>) -> u8 {
    net::process::signal::begin();
    if let Some(code) = doors::begin(&words) {
        return code;
    }
    if let Some(code) = serve::begin(&words) {
        return code;
    }
    let (inside, words) = match inside::begin(words) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let context = Context::new(inside, words.clone());
    if inside.is_some() && words.get(1).is_some_and(|word| word == test::CHILD) {
        return test::child(&context);
    }
    if inside.is_some() && words.get(1).is_some_and(|word| word == sandboxes::LOOK) {
        return sandboxes::look(&context);
    }
    let mut command = Cli::command();
    // For a command of the program's own no workflow has to be looked at.
    let own = words
        .get(1)
        .and_then(|word| word.to_str())
        .is_some_and(|word| command.find_subcommand(word).is_some() && !has_workflows_below(&context.dirs, word));
    if !own {
        command = context.workflows().iter().fold(command, scripts::add_command);
    }
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return output::usage(&with_command_of_ours(error)),
    };
    let chosen = if own { None } else { scripts::chosen(&matches, &context) };
    let done = match dispatch(&matches, chosen, &context) {
        Ok(code) => return code,
        Err(trouble) => trouble,
    };
    done.report()
}

/// Names the command that does what one of another tool does: `topo destroy`.
fn with_command_of_ours(mut error: clap::Error) -> clap::Error {
    let typed = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(typed))) => typed,
        _ => return error,
    };
    if let Some(command) = elsewhere::command(typed) {
        error.remove(ContextKind::SuggestedSubcommand);
        let tip = format!("`topo {command}` does that here");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn dispatch(matches: &ArgMatches, chosen: Option<(&Workflow, &ArgMatches)>, context: &Context) -> Result<u8, Trouble> {
    if let Some((workflow, matches)) = chosen {
        if context.inside.is_none() && workflow.words.first().is_some_and(|word| word == "network") {
            docker::wait_for_names(context);
        }
        let code = run::workflow(workflow, matches, context)?;
        // A sandbox's networks are no engine's, and what failed has changed none.
        if code == terminal::exit::DONE
            && context.inside.is_none()
            && matches!(workflow.words.iter().map(String::as_str).collect::<Vec<_>>()[..], ["network", "create" | "rm"])
        {
            cdi::renew(context)?;
        }
        return Ok(code);
    }
    // clap has checked the words against the same declaration.
    let cli = match Cli::from_arg_matches(matches) {
        Ok(cli) => cli,
        Err(error) => return Ok(output::usage(&error)),
    };
    match cli.command {
        Command::Run(args) => run::run(args, context),
        Command::Repl(args) => repl::repl(&args, context),
        Command::Test(args) => test::test(&args, context),
        Command::Check(args) => check::check(&args, context),
        Command::Ls(args) => ls::ls(&args, context),
        Command::Show(args) => show::show(&args, context),
        Command::Repair(args) => repair::repair(&args, context),
        Command::Down(args) => down::down(&args, context),
        Command::Exec(args) => exec::exec(args, context),
        Command::Logs(args) => logs::logs(&args, context),
        Command::Gc(args) => gc::gc(&args, context),
        Command::Doc(args) => doc::doc(&args, context),
        Command::Doctor(args) => doctor::doctor(&args, context),
        Command::Scripts(args) => scripts::scripts(&args, context),
        Command::Hook(args) => hook::hook(&args, context),
        Command::Cdi(args) => cdi::cdi(&args, context),
        Command::Cni(args) => cni::cni(&args, context),
        Command::Docker(args) => docker::docker(&args, context),
        Command::Completions(args) => completions::completions(&args, context),
    }
}
