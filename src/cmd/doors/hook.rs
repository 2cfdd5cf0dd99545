//! `topo hook`: OCI hooks, and the files by which Podman and CRI-O call them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::oci;
use crate::cmd::context::{Context, this_program};
use crate::cmd::output::Trouble;
use crate::state::{Error, Kind};
use crate::terminal::{data, environment, exit};

/// Connects containers as a hook of an OCI runtime, or installs that hook for Podman and CRI-O
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(in crate::cmd) struct Args {
    #[command(subcommand)]
    command: Hook,
}

#[derive(Debug, Subcommand)]
enum Hook {
    /// Connects a container at `createRuntime`, and disconnects it at `poststop`
    ///
    /// An OCI runtime calls this with the container's state on standard input. The networks are those of `--network` and of the annotation
    /// `dev.toposcript.network`. More annotations: `dev.toposcript.publish` (8080:80,53:53/udp), `.ip`, `.mac`, `.alias`.
    Oci(oci::Args),
    /// Writes the files by which Podman and CRI-O call the hook, for containers with the annotation `dev.toposcript.network`
    Install(Install),
}

#[derive(Debug, clap::Args)]
struct Install {
    /// Where the engine reads its hooks; where the installed engines do unless given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Where engines read hooks: Podman 5 reads the first alone by default, Podman 4 and CRI-O both.
pub(super) const HOOK_DIRS: [&str; 2] = ["/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"];

/// Runs `topo hook`.
pub(in crate::cmd) fn hook(args: &Args, context: &Context) -> Result<u8, Trouble> {
    match &args.command {
        Hook::Oci(args) => Ok(oci::hook(args, context)),
        Hook::Install(args) => install(args.dir.as_deref().unwrap_or(Path::new(HOOK_DIRS[0]))),
    }
}

/// A file has one command line for all its stages, so that each stage has a file.
fn install(dir: &Path) -> Result<u8, Trouble> {
    let program = this_program()?;
    let doing = |path: &Path| format!("write `{}`", path.display());
    std::fs::create_dir_all(dir).map_err(|source| Error::file(doing(dir), &source))?;
    for (file, stage) in [("toposcript.json", oci::CREATE), ("toposcript-poststop.json", oci::POSTSTOP)] {
        let value = json!({
            "version": "1.0.0",
            "hook": { "path": program, "args": ["topo", "hook", "oci", stage], "env": environment()? },
            "when": { "annotations": { format!("^{}$", oci::NETWORK.replace('.', "\\.")): ".+" } },
            "stages": [stage],
        });
        let path = dir.join(file);
        write_whole(&path, &format!("{value:#}\n"))?;
        data(&format!("{}\n", path.display()));
    }
    Ok(exit::DONE)
}

/// Returns the variables that a hook must have to find the networks of this user: an engine hands none of its own on.
pub(super) fn environment() -> Result<Vec<String>, Error> {
    let mut variables = Vec::new();
    for variable in [environment::STATE, environment::STORE] {
        let Some(path) = variable.path() else { continue };
        let path = std::path::absolute(path).map_err(|source| Error::file("find the state directory", &source))?;
        variables.push(format!("{}={}", variable.name(), path.display()));
    }
    Ok(variables)
}

/// Writes a file that others read: they see the old text or the new one, never a part.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let doing = || format!("write `{}`", path.display());
    if path.symlink_metadata().is_ok_and(|seen| !seen.is_file()) {
        return Err(Error::new(Kind::Exists, doing())
            .because("something that is no file is there")
            .hint("move it away"));
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&beside);
        Error::file(doing(), &source)
    })
}
