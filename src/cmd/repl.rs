//! `topo repl`: a lab built by hand.

use super::context::{self, Context};
use super::inside;
use super::output::Trouble;
use crate::lab::{Lab, Origin};
use crate::net;
use crate::prim;
use crate::repl::{self, Setup};
use crate::state::{Error, Kind, LabKind, name};

/// Builds a lab by hand: statements are run as they are typed, and can be undone.
///
/// Without LAB it is a new one, which is taken down at the end unless it is kept. With LAB it is one that is up, and stays up.
/// `:help` lists the commands. Statements that are piped in are run without prompts; the first error ends them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leave a new lab up at the end, unasked
    #[arg(long)]
    keep: bool,
    /// Build a new lab in a private machine of its own (always so without root)
    #[arg(long, conflicts_with = "lab")]
    sandbox: bool,
    /// Refuse statements all commands (`exec`, `start`) and files; `:sh` and `:load` are yours
    #[arg(long)]
    no_exec: bool,
    /// Name the new lab
    #[arg(long, value_name = "NAME", conflicts_with = "lab")]
    name: Option<String>,
    /// A lab that is up, to go on with
    #[arg(value_name = "LAB")]
    lab: Option<String>,
}

/// Runs `topo repl`.
pub(super) fn repl(args: &Args, context: &Context) -> Result<u8, Trouble> {
    let state = context.state()?;
    context.trust_own_scripts()?;
    if let Some(name) = &args.name {
        name::check("lab", name)?;
    }
    if let Some(lab) = &args.lab {
        let record = state.find(lab)?.record()?;
        if let Some(holder) = record.holder.filter(|_| context.inside.is_none() && !state.has_ended(&record)) {
            return Ok(inside::relay(lab, holder, context)?);
        }
        if !crate::lab::can_build_here() {
            return Err(inside::not_allowed(&format!("join lab `{lab}`")).into());
        }
        if record.kind != LabKind::Lab {
            return Err(Error::new(Kind::Invalid, format!("join lab `{lab}`"))
                .because(format!("it is a part of a container network, of kind `{}`", record.kind.word()))
                .hint("`topo network` works on it")
                .into());
        }
    } else if inside::needs_sandbox(args.sandbox, context) {
        return Ok(inside::run_in_new(context, None)?);
    }
    net::process::signal::catch().map_err(|source| Error::kernel("catch signals", &source))?;
    context::arm_fault();
    let (listener, trace) = repl::listener();
    let setup = Setup {
        dirs: context.dirs.clone(),
        history: context::history(),
        joined: args.lab.is_some(),
        keep: args.keep,
        no_exec: args.no_exec,
    };
    let lab = match &args.lab {
        Some(lab) => Lab::join(state, lab, &prim::steps(), listener)?,
        None => {
            let origin = Origin {
                name: args.name.clone().map_or_else(|| state.free_name("repl"), Ok)?,
                named: args.name.is_some(),
                any_name: args.name.is_none(),
                script: "repl".into(),
                kind: LabKind::Lab,
                parent: None,
                tied_to: None,
            };
            Lab::begin(origin, state, listener)?
        }
    };
    Ok(repl::run(lab, trace, setup))
}
