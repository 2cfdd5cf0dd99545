//! The netavark plugin (containers/netavark, plugin-API.md): the word on the command line says what Podman asks for, JSON comes on standard
//! input and goes to standard output, an error is `{"error": "…"}`.

use std::ffi::{OsStr, OsString};

use serde_json::{Map, Value, json};

use super::act::{Refusal, act, collect};
use super::{port_text, refused};
use crate::cmd::context::Context;
use crate::state::name;
use crate::terminal::{exit, raw};

/// The words by which netavark calls a plugin.
const WORDS: [&str; 4] = ["create", "setup", "teardown", "info"];
const API_VERSION: &str = "1.0.0";

/// Tells whether a command line is netavark's.
pub(super) fn is_call(words: &[OsString]) -> bool {
    words.get(1).and_then(|word| word.to_str()).is_some_and(|word| WORDS.contains(&word))
}

/// Runs the plugin.
pub(super) fn plugin(words: &[OsString]) -> u8 {
    let context = Context::new(None, words.to_vec());
    let word = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let netns = words.get(2).map(OsString::as_os_str);
    let done = match word(1) {
        "info" => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": API_VERSION }))),
        "create" => read().and_then(|network| create(network, &context)).map(Some),
        "setup" => read().and_then(|call| setup(&Call::of(call, netns)?, &context)).map(Some),
        _ => read().and_then(|call| teardown(&Call::of(call, netns)?, &context)).map(|()| None),
    };
    match done {
        Ok(answer) => {
            if let Some(answer) = answer {
                raw(&format!("{answer}\n"));
            }
            exit::DONE
        }
        Err(refusal) => {
            refused::note(&context, &format!("netavark {}", word(1)), "", &refusal);
            let hint = refusal.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
            raw(&format!("{}\n", json!({ "error": format!("{}{hint}", refusal.message) })));
            refusal.code()
        }
    }
}

fn read() -> Result<Value, Refusal> {
    let wrong =
        |because: String| Refusal::invalid("read what netavark asks for", because, "netavark hands over a JSON object");
    let text = super::read_stdin().map_err(|error| wrong(error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(wrong("it is no object".into())) }
}

/// A network of Podman's.
struct Described {
    name: String,
    id: String,
    /// Options for `network::create`.
    options: Map<String, Value>,
}

impl Described {
    fn of(network: &Value) -> Result<Described, Refusal> {
        let wrong = |because: &str| {
            Refusal::invalid(
                "read the network",
                because,
                "`podman network create --driver toposcript --subnet SUBNET NAME`",
            )
        };
        let text = |key: &str| network[key].as_str().unwrap_or_default().to_string();
        let (name, id) = (text("name"), text("id"));
        name::check("network", &name).map_err(Refusal::from)?;
        let mut options = Map::new();
        for subnet in network["subnets"].as_array().into_iter().flatten() {
            let Some(cidr) = subnet["subnet"].as_str() else { return Err(wrong("one of its subnets has no `subnet`")) };
            let key = if options.contains_key("subnet") { "ipv6" } else { "subnet" };
            if key == "ipv6" && (options.contains_key("ipv6") || !cidr.contains(':')) {
                return Err(wrong("it has more subnets than one of IPv4 and one of IPv6"));
            }
            options.insert(key.into(), json!(cidr));
            if let Some(gateway) = subnet["gateway"].as_str().filter(|_| key == "subnet") {
                options.insert("gateway".into(), json!(gateway));
            }
            if !subnet["lease_range"].is_null() && key == "subnet" {
                let range = |end: &str| subnet["lease_range"][end].as_str().map(String::from);
                if let Some((first, last)) = range("start_ip").zip(range("end_ip")) {
                    options.insert("range".into(), json!(format!("{first}-{last}")));
                }
            }
        }
        if options.is_empty() {
            return Err(wrong("it has no subnet"));
        }
        if network["internal"] == true {
            options.insert("internal".into(), json!(true));
        }
        for (key, value) in network["options"].as_object().into_iter().flatten() {
            match (key.as_str(), value.as_str()) {
                ("mtu", Some(mtu)) => {
                    let mtu: u32 =
                        mtu.parse().map_err(|_| wrong(&format!("its option `mtu` is `{}`", name::shown(mtu))))?;
                    options.insert("mtu".into(), json!(mtu));
                }
                ("driver" | "parent", Some(text)) => {
                    options.insert(key.clone(), json!(text));
                }
                _ => {
                    return Err(wrong(&format!(
                        "its option `{}` is none of `mtu`, `driver` and `parent`",
                        name::shown(key)
                    )));
                }
            }
        }
        Ok(Described { name, id, options })
    }
}

/// What netavark asks for a container.
struct Call {
    network: Described,
    netns: String,
    container: String,
    shown: String,
    /// Options for `network::connect`.
    options: Map<String, Value>,
}

impl Call {
    fn of(call: Value, netns: Option<&OsStr>) -> Result<Call, Refusal> {
        let wrong = |because: &str| {
            Refusal::invalid("read what netavark asks for", because, "netavark names the container and its netns")
        };
        let netns = netns.and_then(OsStr::to_str).filter(|path| !path.is_empty());
        let netns = netns.ok_or_else(|| wrong("the path of the netns is missing"))?.to_string();
        let container = call["container_id"].as_str().filter(|id| !id.is_empty());
        let container = container.ok_or_else(|| wrong("`container_id` is missing"))?.to_string();
        let shown = call["container_name"].as_str().filter(|name| !name.is_empty()).unwrap_or(&container).to_string();
        let given = &call["network_options"];
        let mut options = Map::new();
        for (key, name) in
            [("ip", "static_ips"), ("aliases", "aliases"), ("mac", "static_mac"), ("dev", "interface_name")]
        {
            if !given[name].is_null() {
                options.insert(key.into(), given[name].clone());
            }
        }
        let mut publish = Vec::new();
        for one in call["port_mappings"].as_array().into_iter().flatten() {
            let number = |key: &str| one[key].as_u64();
            let Some((port, host_port)) = number("container_port").zip(number("host_port")) else {
                return Err(wrong("a port mapping lacks a port"));
            };
            let more = number("range").unwrap_or(1).saturating_sub(1);
            let ports = |first: u64| {
                if more == 0 { first.to_string() } else { format!("{first}-{}", first.saturating_add(more)) }
            };
            for proto in one["protocol"].as_str().unwrap_or("tcp").split(',') {
                publish.push(port_text(one["host_ip"].as_str(), &ports(host_port), &ports(port), proto));
            }
        }
        options.insert("publish".into(), json!(publish));
        Ok(Call { network: Described::of(&call["network"])?, netns, container, shown, options })
    }

    /// Returns what the library knows the container's device by.
    fn key(&self) -> String {
        format!("netavark {} {}", self.network.id, self.container)
    }

    fn args(&self) -> Value {
        json!({
            "network": self.network.name, "network_id": self.network.id, "create": self.network.options, "id": self.key(),
            "netns": self.netns, "name": self.shown, "options": self.options,
        })
    }
}

/// Completes a network: the bridge's name. It is made with its first container, since nobody says when it is removed.
fn create(mut network: Value, context: &Context) -> Result<Value, Refusal> {
    let described = Described::of(&network)?;
    let args = json!({ "network": described.name, "create": described.options });
    act(context, "import \"doors/netavark\" as door; door::check(args);", &args)?;
    if network["network_interface"].as_str().is_none_or(str::is_empty) {
        network["network_interface"] = json!(name::kernel_name(&format!("br-{}", described.name)));
    }
    Ok(network)
}

fn setup(call: &Call, context: &Context) -> Result<Value, Refusal> {
    let joined = act(context, "import \"doors/netavark\" as door; result(door::setup(args));", &call.args())?;
    let subnets = joined["addresses"].as_array().into_iter().flatten();
    let subnets: Vec<Value> =
        subnets.map(|given| json!({ "ipnet": given["cidr"], "gateway": given["gateway"] })).collect();
    let dev = joined["dev"].as_str().unwrap_or_default();
    Ok(json!({
        "dns_search_domains": [],
        "dns_server_ips": [],
        "interfaces": { dev: { "mac_address": joined["mac"], "subnets": subnets } },
    }))
}

fn teardown(call: &Call, context: &Context) -> Result<(), Refusal> {
    let done = act(context, "import \"doors/netavark\" as door; result(door::teardown(args));", &call.args())?;
    // A setup that was killed may have left what is no endpoint yet.
    if done["was_connected"] == false {
        collect(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doors::mutated;

    #[test]
    fn any_call_is_read_or_refused() {
        let good = json!({
            "container_id": "c1", "container_name": "shop",
            "port_mappings": [{ "container_port": 80, "host_ip": "127.0.0.1", "host_port": 8070, "protocol": "tcp,udp", "range": 3 }],
            "network": {
                "name": "n1", "id": "6f", "internal": true, "options": { "mtu": "1400", "driver": "bridge" },
                "subnets": [{ "subnet": "10.61.0.0/24", "gateway": "10.61.0.1", "lease_range": { "start_ip": "10.61.0.5", "end_ip": "10.61.0.9" } }],
            },
            "network_options": { "aliases": ["a"], "interface_name": "eth0", "static_ips": ["10.61.0.5"], "static_mac": "02:00:00:00:00:01" },
        });
        let mut read = 0;
        for text in mutated(&good, 100_000) {
            let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
            read += usize::from(
                Call::of(value, Some(OsStr::new("/run/netns/c1"))).is_ok_and(|call| call.args().is_object()),
            );
        }
        assert!(read > 5_000, "{read}");
    }
}
