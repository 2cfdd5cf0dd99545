//! Addresses from another plugin: `ipam.type` names it, and it is called as this one was (SPEC.md, "Section 4: Plugin Delegation").

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::conf::{Conf, find};
use super::{PLUGIN, Problem, code, needed};
use crate::state::name;
use crate::terminal::environment;

/// A plugin for addresses.
pub(super) struct Delegate {
    path: PathBuf,
    name: String,
    stdin: String,
    version: String,
}

/// What it gave.
pub(super) struct Given {
    pub(super) addresses: Vec<String>,
    /// The subnets of the addresses, with the gateway of each.
    pub(super) subnets: Vec<(String, Option<String>)>,
}

impl Delegate {
    /// Returns the plugin that a configuration names, if it is another one.
    pub(super) fn of(conf: &Conf) -> Result<Option<Delegate>, Problem> {
        let kind = find(&conf.value, "ipam").and_then(|ipam| find(ipam, "type")).and_then(Value::as_str);
        let Some(kind) = kind.filter(|kind| !kind.is_empty() && *kind != PLUGIN) else { return Ok(None) };
        let wrong = |because: &str, hint: &str| {
            Problem::new(code::CONFIG, format!("use the address plugin `{}`: {because}", name::shown(kind)), hint)
        };
        if kind.contains('/') || kind.starts_with('.') {
            return Err(wrong("it is no name of a file", "`ipam.type` is the name of a plugin in CNI_PATH"));
        }
        let dirs = needed(&environment::CNI_PATH)?;
        let path = dirs.split(':').map(|dir| PathBuf::from(dir).join(kind)).find(|path| path.is_file());
        let path =
            path.ok_or_else(|| wrong("there is none of this name", "CNI_PATH has the directories of plugins"))?;
        Ok(Some(Delegate {
            path,
            name: kind.to_string(),
            stdin: conf.value.to_string(),
            version: conf.version.clone(),
        }))
    }

    /// Asks for addresses.
    pub(super) fn add(&self) -> Result<Given, Problem> {
        let answer = self.call("ADD").inspect_err(|_| {
            // It may have given some before it failed.
            let _ = self.call("DEL");
        })?;
        let ips = find(&answer, "ips").and_then(Value::as_array).cloned().unwrap_or_default();
        let (mut addresses, mut subnets) = (Vec::new(), Vec::new());
        for ip in &ips {
            let text = find(ip, "address").and_then(Value::as_str).unwrap_or_default();
            let Ok(net) = text.parse::<IpNetwork>() else {
                return Err(self.problem(&format!("it gave the address `{}`", name::shown(text))));
            };
            addresses.push(net.ip().to_string());
            let gateway = find(ip, "gateway").and_then(Value::as_str).map(String::from);
            subnets.push((format!("{}/{}", net.network(), net.prefix()), gateway));
        }
        if addresses.is_empty() {
            return Err(self.problem("it gave no address"));
        }
        Ok(Given { addresses, subnets })
    }

    fn problem(&self, because: &str) -> Problem {
        Problem::new(code::OTHER, format!("use the address plugin `{}`: {because}", self.name), "")
    }

    /// Calls it, and returns its answer. What it says on standard error is shown.
    pub(super) fn call(&self, command: &str) -> Result<Value, Problem> {
        let failed = |error: std::io::Error| self.problem(&error.to_string());
        let child =
            Command::new(&self.path).env("CNI_COMMAND", command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that doesn't read its configuration says why itself.
            let _ = stdin.write_all(self.stdin.as_bytes());
        }
        let done = child.wait_with_output().map_err(failed)?;
        let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
        if done.status.success() {
            return Ok(answer);
        }
        let text = |key: &str| find(&answer, key).and_then(Value::as_str).unwrap_or_default().to_string();
        let code = find(&answer, "code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
        let message = if text("msg").is_empty() { format!("it ended with {}", done.status) } else { text("msg") };
        Err(Problem { code: code.unwrap_or(code::OTHER), details: text("details"), ..self.problem(&message) }
            .at(&self.version))
    }
}
