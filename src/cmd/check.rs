//! `topo check`: what can be known of a script without running it.

use std::path::PathBuf;

use super::context::Context;
use super::output::Trouble;
use crate::script::{Failure, Script, Texts, header::Header};
use crate::terminal::{self, counted, exit, report, talk};

/// Checks scripts without running them: syntax, unknown variables and functions, wrong numbers of arguments, unknown
/// options, missing imports, a wrong header. Needs no rights and asks the kernel nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
    /// The scripts
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Runs `topo check`.
pub(super) fn check(args: &Args, context: &Context) -> Result<u8, Trouble> {
    let texts = Texts::default();
    let mut found: Vec<Failure> = Vec::new();
    for file in &args.files {
        match Script::read(file) {
            Ok(script) => {
                if let Err(error) = Header::parse(&script.text) {
                    texts.keep(&script);
                    found.push(super::run::header_failure(&script, &error));
                }
                found.extend(crate::script::check(&script, &context.dirs, &texts));
            }
            Err(error) => found.push(Failure::from(&error)),
        }
    }
    if args.json {
        terminal::json(&found.iter().map(Failure::as_json).collect());
    } else {
        found.iter().for_each(|failure| report(failure, &texts));
        if !found.is_empty() {
            talk(&format!("{} found\n", counted(found.len(), "mistake", "mistakes")));
        }
    }
    Ok(exit::of_failed(!found.is_empty()))
}
