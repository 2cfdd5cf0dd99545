//! OCI hooks (opencontainers/runtime-spec, config.md "POSIX-platform Hooks", runtime.md "State"): a container is connected when its
//! namespaces are made, before its first process starts, and disconnected when it is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::act::{Refusal, act, collect};
use super::{own_script, read_stdin, refused};
use crate::cmd::context::Context;
use crate::state::name;
use crate::terminal::{exit, talk};

/// The stage at which a container is connected.
pub(super) const CREATE: &str = "createRuntime";
/// The stage at which it is disconnected.
pub(super) const POSTSTOP: &str = "poststop";
/// The annotation that names its networks.
pub(super) const NETWORK: &str = "dev.toposcript.network";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// createRuntime or poststop
    #[arg(value_name = "STAGE")]
    stage: String,
    /// A network to connect it to, beside those of its annotation
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// A script that connects it as it likes, beside networks or instead of them; it sees the container as `container`
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

/// The state of a container. Runtimes differ in what more they tell, and in what the pid is after the end: absent, 0 or 1.
#[derive(Debug, Deserialize)]
struct State {
    id: String,
    #[serde(default)]
    pid: Option<i64>,
    #[serde(default)]
    bundle: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl State {
    fn read() -> Result<State, Refusal> {
        let doing = "read the container's state from standard input";
        let hint = "an OCI runtime calls this as a hook; `topo network connect` connects a container by hand";
        let text = read_stdin().map_err(|error| Refusal::invalid(doing, error.to_string(), hint))?;
        let state: State =
            serde_json::from_str(&text).map_err(|error| Refusal::invalid(doing, error.to_string(), hint))?;
        if state.id.is_empty() {
            return Err(Refusal::invalid(doing, "the container has no id", hint));
        }
        Ok(state)
    }

    /// Returns the words of an annotation, which commas part.
    fn annotation(&self, key: &str) -> Vec<&str> {
        let text = self.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str);
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
    }

    /// Returns what the container is called in lists: Podman and Docker show 12 digits of their ids of 64.
    fn shown(&self) -> &str {
        let is_long = self.id.len() == 64 && self.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_long { &self.id[..12] } else { &self.id }
    }

    /// Returns the name of the lab that a script makes for the container.
    fn lab(&self) -> String {
        own_script::lab_of(&self.key())
    }

    /// Returns what the container is known by: two runtimes may have one of the same id.
    fn key(&self) -> String {
        format!("oci {} {}", self.id, self.bundle.as_deref().unwrap_or_default())
    }
}

/// Runs `topo hook oci`: says what is wrong on standard error, which not every runtime shows.
pub(super) fn hook(args: &Args, context: &Context) -> u8 {
    let read = State::read();
    let shown = read.as_ref().map_or(String::new(), |state| state.shown().to_string());
    let done = read.and_then(|state| match args.stage.as_str() {
        CREATE | "prestart" => connect(&state, args, context),
        POSTSTOP => disconnect(&state, context),
        other => Err(Refusal::invalid(
            format!("run as the hook `{}`", name::shown(other)),
            "networks are made at `createRuntime` and given back at `poststop`",
            "put the hook under one of these two in `hooks` of config.json",
        )),
    });
    match done {
        Ok(()) => exit::DONE,
        Err(refusal) => {
            refused::note(context, &format!("oci {}", args.stage), &shown, &refusal);
            talk(&refusal.lines());
            refusal.code()
        }
    }
}

const JOIN: &str = "import \"container\" as container; container::join(args.container, args.networks);";
/// What a script made goes first; the networks are left whatever becomes of that.
const LEAVE: &str = "import \"container\" as container;
    let failed = failure_of(|| lab_down([args.lab]));
    result(container::leave(args.id));
    if failed != () { throw failed; }";

fn disconnect(state: &State, context: &Context) -> Result<(), Refusal> {
    let left = act(context, LEAVE, &json!({ "id": state.key(), "lab": state.lab() }))?;
    // A hook that was killed may have left what is no endpoint yet.
    if left.as_array().is_some_and(Vec::is_empty) {
        collect(context)?;
    }
    Ok(())
}

fn connect(state: &State, args: &Args, context: &Context) -> Result<(), Refusal> {
    let doing = || format!("connect container `{}`", name::shown(state.shown()));
    let Some(pid) = state.pid.filter(|pid| *pid > 1) else {
        return Err(Refusal::invalid(
            doing(),
            "its state has no process of this host",
            "the hook belongs under `createRuntime`, where the runtime gives the process",
        ));
    };
    let mut names: Vec<&str> = args.network.iter().map(String::as_str).collect();
    for name in state.annotation(NETWORK) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() && args.script.is_none() {
        return Err(Refusal::invalid(
            doing(),
            "no network is named",
            "give the hook `--network NETWORK` or `--script FILE`, or the container an annotation `dev.toposcript.network`",
        ));
    }
    let (ip, publish) = (state.annotation("dev.toposcript.ip"), state.annotation("dev.toposcript.publish"));
    let (mac, alias) = (state.annotation("dev.toposcript.mac"), state.annotation("dev.toposcript.alias"));
    if mac.len() > 1 {
        return Err(Refusal::invalid(
            doing(),
            "it asks for several hardware addresses",
            "`dev.toposcript.mac` is that of the first network's device",
        ));
    }
    let wanted = |(at, network): (usize, &&str)| {
        let mut wanted = json!({ "network": network, "ip": ip, "aliases": alias });
        // A port of the host leads to one place, and so does a hardware address.
        if at == 0 {
            wanted["publish"] = json!(publish);
            wanted["mac"] = mac.first().map_or(Value::Null, |mac| json!(mac));
        }
        wanted
    };
    let networks: Vec<Value> = names.iter().enumerate().map(wanted).collect();
    let netns = format!("/proc/{pid}/ns/net");
    let container = json!({ "id": state.key(), "netns": netns, "name": state.shown() });
    act(context, JOIN, &json!({ "container": container, "networks": networks }))?;
    let Some(script) = &args.script else { return Ok(()) };
    let annotations = json!(state.annotations.clone().unwrap_or_default());
    let told = json!({ "id": state.id, "name": state.shown(), "annotations": annotations, "ports": publish });
    own_script::run(context, &state.lab(), script, Path::new(&netns), &told).inspect_err(|_| {
        // The script's failure is told; what can't be given back now is given back at `poststop`.
        let _ = disconnect(state, context);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doors::mutated;

    #[test]
    fn any_state_is_read_or_refused() {
        let good = json!({
            "ociVersion": "1.0.2-dev", "id": "c1", "status": "creating", "pid": 2039, "bundle": "/b", "root": "/r",
            "annotations": { NETWORK: "web,db", "dev.toposcript.publish": "8080:80", "dev.toposcript.ip": "10.5.0.9" },
        });
        let mut read = 0;
        for text in mutated(&good, 100_000) {
            let Ok(state) = serde_json::from_str::<State>(&text) else { continue };
            let _ = (state.key(), state.shown().len(), state.annotation(NETWORK));
            read += 1;
        }
        assert!(read > 5_000, "{read}");
    }
}
