//! The configuration of a network as a runtime hands it over. Runtimes spell keys differently (containerd has Go's names of fields in
//! `runtimeConfig`), so that keys are found whatever their case, and those that are not known are passed over.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{NEWEST, Problem, VERSIONS, code};
use crate::cmd::context::Places;
use crate::cmd::doors::port_text;
use crate::state::name;
use crate::terminal::environment::{self, EnvVariable};

/// Returns the value of a key, whatever its case.
pub(super) fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.get(key).or_else(|| map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value))
}

/// A configuration.
pub(super) struct Conf {
    pub(super) version: String,
    pub(super) value: Value,
}

/// What ADD is to make.
pub(super) struct Wanted {
    pub(super) network: String,
    /// Options of the network, where the plugin makes it.
    pub(super) create: Option<Value>,
    /// Options of the connection.
    pub(super) options: Map<String, Value>,
    /// The limits of what the container sends and gets.
    pub(super) shape: Option<Value>,
    pod: Option<String>,
}

impl Conf {
    pub(super) fn parse(text: &str) -> Result<Conf, Problem> {
        let wrong = |because: String| {
            Problem::new(code::DECODE, format!("read the configuration: {because}"), "it is a JSON object")
        };
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if !value.is_object() {
            return Err(wrong("it is no object".into()));
        }
        let version = match find(&value, "cniVersion") {
            None => "0.3.0".to_string(),
            Some(Value::String(version)) => version.clone(),
            Some(other) => return Err(wrong(format!("`cniVersion` is {other}"))),
        };
        if !VERSIONS.contains(&version.as_str()) {
            return Err(Problem::new(
                code::VERSION,
                format!("read the configuration: its version is `{}`", name::shown(&version)),
                format!("the plugin knows {} to {NEWEST}", VERSIONS[0]),
            ));
        }
        Ok(Conf { version, value })
    }

    fn wrong(&self, key: &str, because: &str) -> Problem {
        Problem::new(code::CONFIG, format!("read the configuration: `{key}` {because}"), "").at(&self.version)
    }

    fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        match find(&self.value, key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(key, "is no text")),
        }
    }

    /// Returns where the networks are, if `env` says so, which has the form that it has in an OCI hook. Variables that the plugin does not
    /// know are passed over.
    pub(super) fn places(&self) -> Result<Option<Places>, Problem> {
        let Some(env) = find(&self.value, "env").filter(|env| !env.is_null()) else { return Ok(None) };
        let entries: Option<Vec<_>> =
            env.as_array().map(|list| list.iter().filter_map(|entry| entry.as_str()?.split_once('=')).collect());
        let entries = entries.ok_or_else(|| self.wrong("env", "is no list of `VARIABLE=VALUE`"))?;
        let path = |variable: &EnvVariable| {
            let named = entries.iter().find(|(name, value)| *name == variable.name() && !value.is_empty());
            match named.map(|(_, path)| PathBuf::from(path)) {
                Some(path) if !path.is_absolute() => Err(self.wrong("env", "has a path that is not absolute")),
                path => Ok(path),
            }
        };
        let places = Places { state: path(&environment::STATE)?, store: path(&environment::STORE)? };
        Ok((places.state.is_some() || places.store.is_some()).then_some(places))
    }

    /// Returns the name of the network: the one that is meant, or that of the configuration.
    pub(super) fn network(&self) -> Result<String, Problem> {
        let name = match self.text("network")? {
            Some(name) => Some(name),
            None => self.text("name")?,
        };
        let name = name.ok_or_else(|| self.wrong("name", "is missing"))?;
        name::check("network", &name).map_err(|error| Problem::of(error.into()).at(&self.version))?;
        Ok(name)
    }

    /// Returns a part of what the runtime says of this call.
    fn of_call(&self, key: &str) -> Option<&Value> {
        find(find(&self.value, "runtimeConfig")?, key).filter(|value| !value.is_null())
    }

    /// Returns the script that connects the container as it likes, beside the network.
    pub(super) fn script(&self) -> Result<Option<PathBuf>, Problem> {
        let script = self.text("script")?.map(PathBuf::from);
        match script {
            Some(path) if !path.is_absolute() => Err(self.wrong("script", "is a path that is not absolute")),
            script => Ok(script),
        }
    }

    /// Returns what a pod is annotated with, if the runtime hands it over.
    pub(super) fn annotations(&self) -> Value {
        self.of_call("io.kubernetes.cri.pod-annotations")
            .filter(|given| given.is_object())
            .cloned()
            .unwrap_or_else(|| json!({}))
    }

    pub(super) fn previous(&self) -> Option<&Value> {
        find(&self.value, "prevResult").filter(|value| value.is_object())
    }

    /// Returns the settings of name servers: those of the call, or of the configuration.
    pub(super) fn dns(&self) -> Option<Value> {
        let given = self.of_call("dns").or_else(|| find(&self.value, "dns"))?;
        let mut dns = Map::new();
        for (key, names) in [
            ("nameservers", ["nameservers", "servers"]),
            ("search", ["search", "searches"]),
            ("options", ["options", "options"]),
        ] {
            if let Some(list) = names.iter().find_map(|name| find(given, name)).filter(|list| list.is_array()) {
                dns.insert(key.into(), list.clone());
            }
        }
        if let Some(domain) = find(given, "domain").filter(|domain| domain.is_string()) {
            dns.insert("domain".into(), domain.clone());
        }
        Some(Value::Object(dns))
    }

    /// Returns what is valid still, of which GC keeps all.
    pub(super) fn valid(&self) -> Result<Vec<(String, String)>, Problem> {
        let list = ["cni.dev/valid-attachments", "cni.dev/attachments"].iter().find_map(|key| find(&self.value, key));
        let list = match list {
            None => return Err(self.wrong("cni.dev/valid-attachments", "is missing")),
            Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong("cni.dev/valid-attachments", "is no list")),
        };
        let text = |one: &Value, key: &str| find(one, key).and_then(Value::as_str).map(String::from);
        let one = |one: &Value| text(one, "containerID").zip(text(one, "ifname"));
        let all: Option<Vec<_>> = list.iter().map(one).collect();
        all.ok_or_else(|| self.wrong("cni.dev/valid-attachments", "has an entry without `containerID` and `ifname`"))
    }

    /// Returns what ADD is to make.
    pub(super) fn wanted(&self) -> Result<Wanted, Problem> {
        let network = self.network()?;
        let create = match self.text("network")? {
            Some(_) => None,
            None => self.network_options()?,
        };
        let mut options = Map::new();
        let ports = self.ports()?;
        if !ports.is_empty() {
            options.insert("publish".into(), json!(ports));
        }
        let addresses = self.addresses()?;
        if !addresses.is_empty() {
            options.insert("ip".into(), json!(addresses));
        }
        let args = words_of_args();
        let arg = |name: &str| args.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        if let Some(mac) = self
            .of_call("mac")
            .and_then(Value::as_str)
            .map(String::from)
            .or_else(|| arg("MAC"))
            .filter(|mac| !mac.is_empty())
        {
            options.insert("mac".into(), json!(mac));
        }
        let aliases = self.aliases(&network);
        if !aliases.is_empty() {
            options.insert("aliases".into(), json!(aliases));
        }
        Ok(Wanted {
            network,
            create,
            options,
            shape: self.shape()?,
            pod: arg("K8S_POD_NAME").filter(|pod| !pod.is_empty()),
        })
    }

    /// Returns the options of a network that the plugin makes; none where the configuration says nothing of one.
    fn network_options(&self) -> Result<Option<Value>, Problem> {
        let mut options = Map::new();
        for key in ["subnet", "gateway", "range", "driver", "ipv6", "parent"] {
            if let Some(text) = self.text(key)? {
                options.insert(key.into(), json!(text));
            }
        }
        match find(&self.value, "mtu") {
            None | Some(Value::Null) => {}
            Some(Value::Number(mtu)) if mtu.is_u64() => {
                if mtu.as_u64() != Some(0) {
                    options.insert("mtu".into(), json!(mtu));
                }
            }
            Some(_) => return Err(self.wrong("mtu", "is no number")),
        }
        match find(&self.value, "internal") {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::Bool(true)) => {
                options.insert("internal".into(), json!(true));
            }
            Some(_) => return Err(self.wrong("internal", "is neither true nor false")),
        }
        for range in
            self.of_call("ipRanges").and_then(Value::as_array).into_iter().flatten().filter_map(|set| set.get(0))
        {
            let subnet = find(range, "subnet").and_then(Value::as_str).unwrap_or_default();
            let key = if subnet.contains(':') && options.contains_key("subnet") { "ipv6" } else { "subnet" };
            options.entry(key).or_insert_with(|| json!(subnet));
            if let (Some(first), Some(last)) =
                (find(range, "rangeStart").and_then(Value::as_str), find(range, "rangeEnd").and_then(Value::as_str))
            {
                options.entry("range").or_insert_with(|| json!(format!("{first}-{last}")));
            }
        }
        Ok((!options.is_empty()).then_some(Value::Object(options)))
    }

    /// Returns the ports to publish, as `network::connect` takes them.
    fn ports(&self) -> Result<Vec<String>, Problem> {
        let Some(list) = self.of_call("portMappings") else { return Ok(Vec::new()) };
        let list = list.as_array().ok_or_else(|| self.wrong("portMappings", "is no list"))?;
        let mut ports = Vec::new();
        for mapping in list {
            let number = |key: &str| find(mapping, key).and_then(Value::as_u64);
            let text = |key: &str| find(mapping, key).and_then(Value::as_str).filter(|text| !text.is_empty());
            // Without a port of the host there is nothing to publish.
            let Some(host_port) = number("hostPort").filter(|port| *port > 0) else { continue };
            let Some(port) = number("containerPort") else {
                return Err(self.wrong("portMappings", "has an entry without `containerPort`"));
            };
            let proto = text("protocol").unwrap_or("tcp");
            ports.push(port_text(text("hostIP"), &host_port.to_string(), &port.to_string(), proto));
        }
        Ok(ports)
    }

    /// Returns the addresses that are asked for: by the call, by `args.cni`, or by CNI_ARGS, of which each goes before the next.
    fn addresses(&self) -> Result<Vec<String>, Problem> {
        let of_args = find(&self.value, "args").and_then(|args| find(args, "cni")).and_then(|cni| find(cni, "ips"));
        let list = match self.of_call("ips").or(of_args) {
            Some(Value::Array(list)) => list.iter().map(|ip| ip.as_str().map(String::from)).collect::<Option<Vec<_>>>(),
            Some(Value::Null) => Some(Vec::new()),
            Some(_) => None,
            None => Some(words_of_args().into_iter().filter(|(key, _)| key == "IP").map(|(_, ip)| ip).collect()),
        };
        let list = list.ok_or_else(|| self.wrong("ips", "is no list of addresses"))?;
        let mut addresses: Vec<String> = Vec::new();
        for ip in list.iter().flat_map(|ip| ip.split(',')) {
            let ip = ip.split('/').next().unwrap_or(ip).trim();
            // `podman network reload` asks twice for the address that a container has.
            if !ip.is_empty() && !addresses.iter().any(|known| known == ip) {
                addresses.push(ip.to_string());
            }
        }
        Ok(addresses)
    }

    fn aliases(&self, network: &str) -> Vec<String> {
        let list = match self.of_call("aliases") {
            Some(Value::Array(list)) => Some(list),
            Some(of_networks) => find(of_networks, network).and_then(Value::as_array),
            None => None,
        };
        list.into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
    }

    /// Returns the limits, in bits a second. Ingress is what the container gets (CONVENTIONS.md, "bandwidth").
    fn shape(&self) -> Result<Option<Value>, Problem> {
        let Some(given) = self.of_call("bandwidth") else { return Ok(None) };
        let mut shape = Map::new();
        for (key, name) in [("ingress", "ingressRate"), ("egress", "egressRate")] {
            match find(given, name) {
                None | Some(Value::Null) => {}
                Some(rate) => match rate.as_u64() {
                    Some(0) => {}
                    Some(rate) => {
                        shape.insert(key.into(), json!(format!("{rate}bit")));
                    }
                    None => return Err(self.wrong(name, "is no number of bits a second")),
                },
            }
        }
        Ok((!shape.is_empty()).then_some(Value::Object(shape)))
    }
}

/// Returns the words of CNI_ARGS: `K=V;K=V`.
fn words_of_args() -> Vec<(String, String)> {
    let text = environment::CNI_ARGS.text().unwrap_or_default();
    text.split(';')
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

impl Wanted {
    /// Returns what the container is called in lists: its pod, or its id.
    pub(super) fn name(&self, container: &str) -> String {
        self.pod.clone().unwrap_or_else(|| container.to_string())
    }

    /// Takes what a plugin for addresses gave: the addresses, and their subnets for a network that is not there yet.
    pub(super) fn take_delegated(&mut self, given: super::ipam::Given) {
        self.options.insert("ip".into(), json!(given.addresses));
        let Value::Object(create) = self.create.get_or_insert_with(|| json!({})) else { return };
        for (subnet, gateway) in given.subnets {
            let key = if create.contains_key("subnet") { "ipv6" } else { "subnet" };
            create.insert(key.into(), json!(subnet));
            if let Some(gateway) = gateway.filter(|_| key == "subnet") {
                create.insert("gateway".into(), json!(gateway));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doors::mutated;

    /// Whatever a configuration is, it is read or refused; and one that is read can be asked for all that it may have.
    #[test]
    fn any_text_is_read_or_refused() {
        let good = json!({
            "cniVersion": "1.1.0", "name": "tbnet", "type": "toposcript", "subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "mtu": 1400,
            "env": ["TOPO_STATE=/run/s"], "internal": false, "ipam": { "type": "host-local" }, "args": { "cni": { "ips": ["10.9.0.5/24"] } },
            "dns": { "nameservers": ["10.9.0.1"], "domain": "lan" }, "cni.dev/valid-attachments": [{ "containerID": "a", "ifname": "eth0" }],
            "runtimeConfig": {
                "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "::1" }], "ips": ["10.9.0.5"],
                "mac": "02:00:00:00:00:01", "aliases": { "tbnet": ["a"] }, "bandwidth": { "ingressRate": 1000, "egressRate": 2000 },
                "ipRanges": [[{ "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.9" }]],
            },
            "prevResult": { "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/a" }], "ips": [{ "address": "10.9.0.5/24", "interface": 0 }] },
        });
        let (mut read, mut refused) = (0, 0);
        for text in mutated(&good, 100_000) {
            let Ok(conf) = Conf::parse(&text) else {
                refused += 1;
                continue;
            };
            read += 1;
            let _ = (conf.wanted(), conf.valid(), conf.dns(), conf.places());
            if let Some(previous) = conf.previous() {
                let _ = super::super::answer::told(previous, "/run/netns/a");
            }
            let _ = super::super::answer::of_add(&conf, &json!({}), "/run/netns/a");
        }
        assert!(read > 10_000 && refused > 1_000, "{read} {refused}");
    }
}
