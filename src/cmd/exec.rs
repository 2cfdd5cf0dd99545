//! `topo exec`: a command in a namespace of a lab.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::context::Context;
use super::inside;
use super::output::Trouble;
use crate::lab::{self, Kernel};
use crate::net;
use crate::prim;
use crate::state::{Error, Kind, LabDir, NetnsRef, Result, StateDir, name};
use crate::survey::Names;
use crate::terminal::{environment, exit};

/// Runs a command in a namespace of a lab, with this terminal. `host` is the namespace in which the lab's script ran.
///
/// The command has this shell's environment, working directory and open files. Its signals are the default ones, and its umask is 022 or a stricter one of the shell's:
/// `topo exec NETNS nohup COMMAND` ignores SIGHUP, `nohup topo exec` does not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The namespace; the lab may be left out where only one has a namespace of that name
    #[arg(value_name = "[LAB/]NETNS")]
    netns: String,
    /// The command and its arguments; a shell unless given
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Runs `topo exec`.
pub(super) fn exec(args: Args, context: &Context) -> std::result::Result<u8, Trouble> {
    let state = context.state()?;
    let (dir, netns, mut names) = find(&state, &args.netns)?;
    let record = dir.record()?;
    if let Some(holder) = record.holder.filter(|_| context.inside.is_none()) {
        return Ok(inside::relay(dir.name(), holder, context)?);
    }
    if record.holder.is_none() && !lab::can_build_here() {
        return Err(inside::not_allowed(&format!("enter netns `{}`", args.netns)).into());
    }
    if !netns.made {
        state.check_host(&record, || format!("enter netns `{}` of lab `{}`", netns.name, dir.name()))?;
    }
    let doing = format!("enter netns `{}` of lab `{}`", netns.name, dir.name());
    let failed = |source: net::Error| Error::kernel(doing.clone(), &source);
    let mut kernel = Kernel::open_for(&state, dir.name(), &record.marks).map_err(failed)?;
    if netns.made && kernel.ours(&netns).map_err(failed)?.is_none() {
        return Err(Error::new(Kind::Gone, doing)
            .because("something else removed it")
            .hint(format!("`topo down {}` removes the rest", dir.name()))
            .into());
    }
    names.keep(&dir);
    let etc = names.etc_of(&dir, &netns)?;
    let netns = kernel.netns(&netns).map_err(failed)?;
    let (error, code) = replace_with(&netns, &etc, args.command);
    Trouble::from(error).report();
    Ok(code)
}

/// Becomes the command, in the namespace; returns only if that fails, with the exit code that shells have for it.
fn replace_with(netns: &net::Netns, etc: &[net::EtcFile], words: Vec<OsString>) -> (Error, u8) {
    let shell = || vec![environment::SHELL.value().unwrap_or_else(|| "/bin/sh".into())];
    let words = if words.is_empty() { shell() } else { words };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // A descriptor of the caller's is meant for the command: `topo exec h1 diff <(…) <(…)`.
    net::command_in(netns, &mut command, net::OpenFiles::Callers);
    let source = net::see(etc, &mut command).err().unwrap_or_else(|| command.exec());
    let error = Error::file(format!("run `{}`", name::shown(&words[0].to_string_lossy())), &source);
    match source.kind() {
        std::io::ErrorKind::NotFound => {
            (error.hint("there is no such program, or its directory is not in PATH"), exit::NO_COMMAND)
        }
        _ => (error, exit::CANNOT_RUN),
    }
}

/// Finds the lab and the namespace that `[LAB/]NETNS` names, and what else the lab has.
fn find(state: &StateDir, wanted: &str) -> Result<(LabDir, NetnsRef, Names)> {
    let doing = format!("find netns `{}`", name::shown(wanted));
    let steps = prim::steps();
    if let Some((lab, netns)) = wanted.split_once('/') {
        let dir = state.find(lab)?;
        let names = Names::of(&dir, &steps)?;
        if let Some(at) = names.find(netns) {
            return Ok((dir, at.clone(), names));
        }
        let all: Vec<&str> = names.netns.iter().map(|at| at.name.as_str()).collect();
        let missing = Error::new(Kind::Missing, doing).because(format!("lab `{lab}` has no such netns"));
        return Err(match name::nearest(netns, all.iter().copied()) {
            Some(near) => missing.hint(format!("did you mean `{lab}/{near}`?")),
            None => missing.hint(format!("it has: {}", all.join(", "))),
        });
    }
    let mut found = Vec::new();
    for lab in state.names()? {
        let dir = state.find(&lab)?;
        let names = Names::of(&dir, &steps)?;
        if let Some(at) = names.find(wanted).cloned() {
            found.push((dir, at, names));
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::new(Kind::Missing, doing)
            .because("no lab has a netns of this name")
            .hint("`topo ls` lists the labs, `topo show LAB` what one holds")),
        _ => {
            let labs: Vec<String> = found.iter().map(|(dir, ..)| format!("`{}/{wanted}`", dir.name())).collect();
            Err(Error::invalid(doing).because("several labs have one").hint(format!("say which: {}", labs.join(", "))))
        }
    }
}
