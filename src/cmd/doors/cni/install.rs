//! `topo cni install`: links the plugin where runtimes look for it, and writes a configuration for a network.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{LOOPBACK, PLUGIN};
use crate::cmd::context::this_program;
use crate::cmd::doors::hook::{environment, write_whole};
use crate::cmd::output::Trouble;
use crate::state::{Error, Kind, name};
use crate::terminal::{data, exit};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of CNI plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// The directory of configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// The network; it need not be there yet
    #[arg(value_name = "NETWORK")]
    network: String,
}

pub(super) fn install(args: &Args) -> Result<u8, Trouble> {
    name::check("network", &args.network)?;
    let program = this_program()?;
    for dir in [&args.bin_dir, &args.conf_dir] {
        std::fs::create_dir_all(dir).map_err(|source| Error::file(format!("make `{}`", dir.display()), &source))?;
    }
    link(&program, &args.bin_dir.join(PLUGIN))?;
    // The plugin of another maker does as well.
    let loopback = args.bin_dir.join(LOOPBACK);
    if loopback.symlink_metadata().is_err() {
        link(&program, &loopback)?;
    }
    let capabilities = json!({
        "portMappings": true, "ips": true, "mac": true, "ipRanges": true, "dns": true, "aliases": true, "bandwidth": true,
        // For a script that connects the container: containerd hands over what the pod is annotated with.
        "io.kubernetes.cri.pod-annotations": true,
    });
    let mut plugin = json!({ "type": PLUGIN, "network": args.network, "capabilities": capabilities });
    // Podman calls DEL without the environment of ADD.
    let env = environment()?;
    if !env.is_empty() {
        plugin["env"] = json!(env);
    }
    let value = json!({
        // The newest that containerd 1.6 and 1.7 know; `cniVersions` has those above.
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": args.network,
        "plugins": [plugin],
    });
    let path = args.conf_dir.join(format!("10-{}.conflist", args.network));
    write_whole(&path, &format!("{value:#}\n"))?;
    data(&format!("{}\n{}\n", args.bin_dir.join(PLUGIN).display(), path.display()));
    Ok(exit::DONE)
}

/// Makes a link to the program; one that is there already is renewed.
fn link(program: &Path, at: &Path) -> Result<(), Error> {
    let doing = || format!("link `{}` to `{}`", at.display(), program.display());
    match at.symlink_metadata() {
        Ok(seen) if seen.file_type().is_symlink() => {
            std::fs::remove_file(at).map_err(|source| Error::file(doing(), &source))?;
        }
        Ok(_) => {
            return Err(Error::new(Kind::Exists, doing()).because("another program is there").hint("move it away"));
        }
        Err(_) => {}
    }
    std::os::unix::fs::symlink(program, at).map_err(|source| Error::file(doing(), &source))
}
