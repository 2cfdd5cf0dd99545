//! `topo cdi`: networks as devices of the Container Device Interface (cncf-tags/container-device-interface, SPEC.md), which Podman, Docker,
//! containerd and CRI-O read. A container that asks for the device gets the OCI hooks of its network.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::act::act;
use super::{hook, oci};
use crate::cmd::context::{Context, this_program};
use crate::cmd::output::Trouble;
use crate::state::{Error, Kind};
use crate::terminal::{data, exit, talk};

/// Makes networks known to container engines as devices: `--device toposcript.dev/net=NETWORK`
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(in crate::cmd) struct Args {
    #[command(subcommand)]
    command: Cdi,
}

#[derive(Debug, Subcommand)]
enum Cdi {
    /// Writes the file with one device for each network
    Generate(Dir),
    /// Removes the file
    Remove(Dir),
}

#[derive(Debug, clap::Args)]
struct Dir {
    /// Where container engines read such files
    #[arg(long, value_name = "DIR", default_value = DIRS[0])]
    dir: PathBuf,
}

pub(super) const FILE: &str = "toposcript.json";
/// Where engines read such files.
pub(super) const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Runs `topo cdi`.
pub(in crate::cmd) fn cdi(args: &Args, context: &Context) -> Result<u8, Trouble> {
    match &args.command {
        Cdi::Generate(args) => generate(&args.dir, context),
        Cdi::Remove(args) => {
            let path = args.dir.join(FILE);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::file(format!("remove `{}`", path.display()), &source).into())
                }
                _ => Ok(exit::DONE),
            }
        }
    }
}

fn generate(dir: &Path, context: &Context) -> Result<u8, Trouble> {
    let names = networks(context)?;
    if names.is_empty() {
        return Err(Error::new(Kind::Missing, "make devices of networks")
            .because("there are no networks that can be devices")
            .hint("`topo network create NETWORK` makes one")
            .into());
    }
    std::fs::create_dir_all(dir).map_err(|source| Error::file(format!("make `{}`", dir.display()), &source))?;
    let path = dir.join(FILE);
    write(&path, &names)?;
    data(&format!("{}\n", path.display()));
    Ok(exit::DONE)
}

/// Brings the files up to date that are of this user's networks. Without a network there is no file: engines refuse one without devices.
pub(in crate::cmd) fn renew(context: &Context) -> Result<(), Error> {
    let env = hook::environment()?;
    for path in DIRS.map(|dir| Path::new(dir).join(FILE)) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let written: Value = serde_json::from_str(&text).unwrap_or_default();
        if written["devices"][0]["containerEdits"]["hooks"][0]["env"] != json!(env) {
            continue;
        }
        let names = networks(context)?;
        if names.is_empty() {
            std::fs::remove_file(&path)
                .map_err(|source| Error::file(format!("remove `{}`", path.display()), &source))?;
        } else {
            write(&path, &names)?;
        }
    }
    Ok(())
}

fn networks(context: &Context) -> Result<Vec<String>, Error> {
    let listed = act(context, "result(#{ names: records(\"networks\") });", &json!({}));
    let listed = listed.map_err(|refusal| {
        Error::new(refusal.kind.unwrap_or(Kind::State), "list the networks").because(refusal.message)
    })?;
    let names = listed["names"].as_array().into_iter().flatten();
    let (names, others): (Vec<&str>, Vec<&str>) = names.filter_map(Value::as_str).partition(|name| can_be_device(name));
    for name in others {
        talk(&format!(
            "warning: network `{name}` can't be a device: engines take 63 letters, digits, `_`, `-` and `.`\n"
        ));
    }
    Ok(names.into_iter().map(String::from).collect())
}

/// Tells whether engines take a name as that of a device: of a file with another one they would refuse all devices (SPEC.md, "devices").
fn can_be_device(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= 63 && name.bytes().all(plain) && ends.into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
}

fn write(path: &Path, networks: &[String]) -> Result<(), Error> {
    let (program, env) = (this_program()?, hook::environment()?);
    let devices: Vec<Value> = networks.iter().map(|name| device(&program, &env, name)).collect();
    // Readers refuse what they don't know: the lowest version that has hooks.
    let value = json!({ "cdiVersion": "0.5.0", "kind": "toposcript.dev/net", "devices": devices });
    hook::write_whole(path, &format!("{value:#}\n"))
}

fn device(program: &Path, env: &[String], network: &str) -> Value {
    let hook = |stage: &str| {
        json!({
            "hookName": stage,
            "path": program,
            "args": ["topo", "hook", "oci", stage, "--network", network],
            "env": env,
            "timeout": 30,
        })
    };
    json!({ "name": network, "containerEdits": { "hooks": [hook(oci::CREATE), hook(oci::POSTSTOP)] } })
}
