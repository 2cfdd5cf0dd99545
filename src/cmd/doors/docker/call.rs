//! One request of Docker: what it asks for in the words of the library, and what it is answered.

use std::ffi::OsString;

use serde_json::{Map, Value, json};

use super::pools::PendingPool;
use super::{error_reply, with_hint};
use crate::cmd::context::Context;
use crate::cmd::doors::act::{Refusal, act};
use crate::cmd::doors::{port_text, read_stdin};
use crate::state::name;
use crate::terminal::{exit, raw};

/// The word by which this program runs itself for a request. Nobody types it.
pub(in crate::cmd::doors) const CALL: &str = "__docker";

/// The requests that are answered. Any other gets a 404, which Docker accepts.
pub(super) const METHODS: [&str; 24] = [
    "Plugin.Activate",
    "NetworkDriver.GetCapabilities",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.EndpointOperInfo",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "NetworkDriver.DiscoverNew",
    "NetworkDriver.DiscoverDelete",
    "NetworkDriver.AllocateNetwork",
    "NetworkDriver.FreeNetwork",
    "IpamDriver.GetCapabilities",
    "IpamDriver.GetDefaultAddressSpaces",
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
    "IpamDriver.Discover",
    "IpamDriver.Probe",
    "Plugin.Deactivate",
];

/// What this program asks itself for when Docker has told what it calls a network.
pub(super) const NAME: &str = "NameNetwork";

/// What this program asks itself for when it begins to serve.
pub(super) const SWEEP: &str = "Sweep";

/// Returns Docker's number for a network that is to be made, where no option says what it is called here.
pub(super) fn unnamed_network(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let named = &body["Options"]["com.docker.network.generic"]["network"];
    if named.is_null() { number(&body, "NetworkID").ok() } else { None }
}

/// Looks for our word, and does the request on standard input; always answers, also that it is refused.
pub(in crate::cmd::doors) fn answer(words: &[OsString]) -> u8 {
    let context = Context::new(None, words.to_vec());
    let method = words.get(2).and_then(|word| word.to_str()).unwrap_or_default();
    let done = read().and_then(|input| match asked(method, &input["body"], &input["pools"])? {
        DockerRequest::Known(reply) => Ok(reply),
        DockerRequest::Of(call) => {
            let statement = format!("import \"doors/docker\" as door; result(door::{}(args));", call.function);
            act(&context, &statement, &call.args).map(|told| (call.reply)(&told, &call.args))
        }
    });
    let reply =
        done.unwrap_or_else(|refusal| error_reply(method, &with_hint(&refusal.message, refusal.hint.as_deref())));
    raw(&format!("{reply}\n"));
    exit::DONE
}

const DOING: &str = "read what Docker asks for";

fn wrong(because: impl Into<String>) -> Refusal {
    Refusal::invalid(DOING, because.into(), "Docker speaks version 1 of the protocol of its network and IPAM drivers")
}

fn read() -> Result<Value, Refusal> {
    let text = read_stdin().map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// What is to be done.
enum DockerRequest {
    /// Nothing but to answer.
    Known(Value),
    /// A function of `doors/docker`.
    Of(Call),
}

struct Call {
    function: &'static str,
    args: Value,
    /// Makes the answer of what the function returns and what it was called with.
    reply: fn(&Value, &Value) -> Value,
}

fn call(function: &'static str, args: Value, reply: fn(&Value, &Value) -> Value) -> DockerRequest {
    DockerRequest::Of(Call { function, args, reply })
}

fn nothing(_: &Value, _: &Value) -> Value {
    json!({})
}

/// Returns a route as Docker's Join has it; 0 is one by an address (libnetwork, types.NEXTHOP).
fn static_route(route: &Value) -> Value {
    json!({ "Destination": route["dst"], "RouteType": 0, "NextHop": route["via"] })
}

/// Reads a request.
fn asked(method: &str, body: &Value, pools: &Value) -> Result<DockerRequest, Refusal> {
    if !body.is_object() && !body.is_null() {
        return Err(wrong("it is no object"));
    }
    Ok(match method {
        "Plugin.Activate" => DockerRequest::Known(json!({ "Implements": ["NetworkDriver", "IpamDriver"] })),
        "NetworkDriver.GetCapabilities" => {
            DockerRequest::Known(json!({ "Scope": "local", "ConnectivityScope": "local" }))
        }
        "IpamDriver.GetCapabilities" => {
            DockerRequest::Known(json!({ "RequiresMACAddress": false, "RequiresRequestReplay": false }))
        }
        "IpamDriver.GetDefaultAddressSpaces" => DockerRequest::Known(json!({
            "LocalDefaultAddressSpace": "toposcript", "GlobalDefaultAddressSpace": "toposcript-global",
        })),
        "NetworkDriver.CreateNetwork" => call("create_network", network(body, pools)?, nothing),
        SWEEP => call("sweep", json!({}), nothing),
        NAME => call(
            "name_network",
            json!({ "network_id": number(body, "NetworkID")?, "name": text(body, "Name")? }),
            nothing,
        ),
        "NetworkDriver.DeleteNetwork" => {
            call("delete_network", json!({ "network_id": number(body, "NetworkID")? }), nothing)
        }
        "NetworkDriver.CreateEndpoint" => call("create_endpoint", endpoint(body)?, |told, args| {
            // What Docker has chosen it takes for an error to be told again.
            let interface = match args["options"]["mac"].is_null() {
                true => json!({ "MacAddress": told["mac"] }),
                false => json!({}),
            };
            json!({ "Interface": interface })
        }),
        "NetworkDriver.EndpointOperInfo" => call("describe", one(body)?, |told, _| json!({ "Value": told })),
        "NetworkDriver.DeleteEndpoint" => call("delete_endpoint", one(body)?, nothing),
        "NetworkDriver.Join" => call("join_sandbox", one(body)?, |told, _| {
            json!({
                "InterfaceName": { "SrcName": told["dev"], "DstPrefix": "eth" },
                "StaticRoutes": told["routes"].as_array().into_iter().flatten().map(static_route).collect::<Vec<_>>(),
                "Gateway": told["gateway"].as_str().unwrap_or_default(),
                "GatewayIPv6": told["gateway6"].as_str().unwrap_or_default(),
                // Else Docker looks for a way out in a network of its own.
                "DisableGatewayService": told["gateway"].is_null(),
            })
        }),
        "NetworkDriver.ProgramExternalConnectivity" => {
            let mut args = one(body)?;
            args["publish"] = json!(published(&body["Options"])?);
            call("publish", args, nothing)
        }
        "NetworkDriver.RevokeExternalConnectivity" => call("unpublish", one(body)?, nothing),
        "IpamDriver.RequestPool" => call("request_pool", pool(body, pools)?, |told, args| {
            let range = args["range"].as_str().map(String::from);
            let pool = PendingPool { subnet: told["subnet"].as_str().unwrap_or_default().into(), range };
            json!({ "PoolID": pool.id(), "Pool": pool.subnet, "Data": {} })
        }),
        "IpamDriver.RequestAddress" => {
            let gateway = body["Options"]["RequestAddressType"] == "com.docker.network.gateway";
            let subnet = PendingPool::of_id(&text(body, "PoolID")?).subnet;
            let args = json!({ "subnet": subnet, "address": given(body, "Address")?, "gateway": gateway });
            call("request_address", args, |told, _| json!({ "Address": told["cidr"], "Data": {} }))
        }
        "IpamDriver.ReleaseAddress" => {
            let subnet = PendingPool::of_id(&text(body, "PoolID")?).subnet;
            call("release_address", json!({ "subnet": subnet, "address": text(body, "Address")? }), nothing)
        }
        method if METHODS.contains(&method) => DockerRequest::Known(json!({})),
        other => return Err(wrong(format!("there is no `{}`", name::shown(other)))),
    })
}

/// Returns a field that must be a text; an empty one counts as none.
fn given(body: &Value, key: &str) -> Result<Option<String>, Refusal> {
    match &body[key] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        _ => Err(wrong(format!("its `{key}` is no text"))),
    }
}

fn text(body: &Value, key: &str) -> Result<String, Refusal> {
    given(body, key)?.ok_or_else(|| wrong(format!("it has no `{key}`")))
}

/// Returns a number of Docker's: 64 hexadecimal digits.
fn number(body: &Value, key: &str) -> Result<String, Refusal> {
    let text = text(body, key)?;
    let is_one = (12..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { Ok(text) } else { Err(wrong(format!("its `{key}` is `{}`", name::shown(&text)))) }
}

/// Returns the first digits of a number, which is what Docker shows of it.
fn shown(number: &str) -> &str {
    &number[..12]
}

/// Reads which endpoint of which network is meant.
fn one(body: &Value) -> Result<Value, Refusal> {
    let (network, endpoint) = (number(body, "NetworkID")?, number(body, "EndpointID")?);
    Ok(json!({ "network_id": network, "holder": format!("docker {endpoint} {network}") }))
}

/// Returns an address without the length of its prefix.
fn address_of(cidr: &str) -> &str {
    cidr.split('/').next().unwrap_or(cidr)
}

/// Reads the network that is to be made: options of `network::create`.
fn network(body: &Value, pools: &Value) -> Result<Value, Refusal> {
    let id = number(body, "NetworkID")?;
    let (mut subnets, mut gateways, mut reserved, mut ranges) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let pending: Vec<PendingPool> = pools.as_array().into_iter().flatten().map(PendingPool::of_value).collect();
    let data = ["IPv4Data", "IPv6Data"].into_iter().flat_map(|key| body[key].as_array().into_iter().flatten());
    for data in data {
        let subnet = text(data, "Pool")?;
        gateways.extend(given(data, "Gateway")?.map(|cidr| address_of(&cidr).to_string()));
        ranges.extend(pending.iter().find(|pool| pool.subnet == subnet).and_then(|pool| pool.range.clone()));
        for aux in data["AuxAddresses"].as_object().into_iter().flat_map(Map::values) {
            let aux = aux.as_str().ok_or_else(|| wrong("one of its `AuxAddresses` is no text"))?;
            reserved.push(address_of(aux).to_string());
        }
        subnets.push(subnet);
    }
    if subnets.is_empty() {
        return Err(wrong("its network has no subnet"));
    }
    let mut create = json!({ "subnet": subnets, "gateway": gateways, "reserve": reserved, "range": ranges });
    let options = &body["Options"];
    if options["com.docker.network.internal"] == true {
        create["internal"] = json!(true);
    }
    let mut wanted = None;
    for (key, value) in options["com.docker.network.generic"].as_object().into_iter().flatten() {
        let Some(value) = value.as_str() else { continue };
        match key.as_str() {
            "network" => wanted = Some(value.to_string()),
            "mtu" | "com.docker.network.driver.mtu" => {
                let mtu: u32 = value.parse().map_err(|_| option(key, value, "a number of bytes"))?;
                create["mtu"] = json!(mtu);
            }
            "driver" | "parent" => create[key] = json!(value),
            _ => return Err(unknown(key)),
        }
    }
    let network = wanted.unwrap_or_else(|| shown(&id).to_string());
    name::check("network", &network)?;
    Ok(json!({ "network_id": id, "network": network, "create": create }))
}

fn option(key: &str, value: &str, what: &str) -> Refusal {
    Refusal::invalid(
        format!("read the option `{}`", name::shown(key)),
        format!("it is `{}`", name::shown(value)),
        &format!("it takes {what}"),
    )
}

fn unknown(key: &str) -> Refusal {
    Refusal::invalid(
        format!("read the option `{}`", name::shown(key)),
        "there is no such option",
        "`docker network create --opt` takes `network`, `driver`, `mtu` and `parent` here",
    )
}

/// Reads the endpoint that is to be made: options of `network/giving`.
fn endpoint(body: &Value) -> Result<Value, Refusal> {
    let mut args = one(body)?;
    let id = number(body, "EndpointID")?;
    let interface = &body["Interface"];
    let mut addresses = Vec::new();
    for key in ["Address", "AddressIPv6"] {
        addresses.extend(given(interface, key)?.map(|cidr| address_of(&cidr).to_string()));
    }
    args["options"] = json!({
        "holder": args["holder"], "name": shown(&id), "ip": addresses, "mac": given(interface, "MacAddress")?,
        // A name of the host until Docker takes the device.
        "dev": format!("tp{}", name::short_hash(id.as_bytes())),
    });
    Ok(args)
}

/// Reads the subnet that is asked for.
fn pool(body: &Value, pools: &Value) -> Result<Value, Refusal> {
    if let Some(key) = body["Options"].as_object().and_then(|options| options.keys().next()) {
        return Err(Refusal::invalid(
            format!("read the option `{}`", name::shown(key)),
            "there is no such option",
            "`docker network create --subnet`, `--ip-range` and `--gateway` say which addresses; `--ipam-opt` has none here",
        ));
    }
    let pending: Vec<Value> = pools.as_array().into_iter().flatten().map(|pool| pool["subnet"].clone()).collect();
    let (pool, range) = (given(body, "Pool")?, given(body, "SubPool")?);
    if range.as_ref().is_some_and(|range| range.contains(',')) {
        return Err(wrong("its `SubPool` is no subnet"));
    }
    let v6 = body["V6"] == true;
    Ok(json!({ "pool": pool, "range": range, "v6": v6, "pending": pending }))
}

/// Reads the ports that are to be published, as `network::connect` takes them.
fn published(options: &Value) -> Result<Vec<String>, Refusal> {
    let mut all: Vec<String> = Vec::new();
    for one in options["com.docker.network.portmap"].as_array().into_iter().flatten() {
        let port = |key: &str| one[key].as_u64().filter(|port| *port <= 65_535);
        let Some(inside) = port("Port").filter(|port| *port > 0) else {
            return Err(wrong("a port mapping has no port"));
        };
        let proto = match one["Proto"].as_u64() {
            Some(6) => "tcp",
            Some(17) => "udp",
            Some(132) => "sctp",
            _ => return Err(wrong("a port mapping has no protocol with ports")),
        };
        let first = port("HostPort").unwrap_or_default();
        let last = port("HostPortEnd").filter(|last| *last > first).unwrap_or(first);
        let outside = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let text = port_text(one["HostIP"].as_str(), &outside, &inside.to_string(), proto);
        if !all.contains(&text) {
            all.push(text);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doors::mutated;

    /// A request of each sort, as Docker 20.10 sends them.
    fn requests() -> Vec<(&'static str, Value)> {
        let id = "6f1d".repeat(16);
        let one = json!({ "NetworkID": id, "EndpointID": id });
        let with = |more: Value| {
            let mut all = one.clone();
            more.as_object().into_iter().flatten().for_each(|(key, value)| all[key] = value.clone());
            all
        };
        let ports = json!({ "com.docker.network.portmap": [
            { "Proto": 6, "IP": "", "Port": 80, "HostIP": "127.0.0.1", "HostPort": 8088, "HostPortEnd": 8090 },
        ] });
        vec![
            (
                "NetworkDriver.CreateNetwork",
                json!({
                    "NetworkID": id,
                    "Options": {
                        "com.docker.network.internal": true, "com.docker.network.enable_ipv6": true,
                        "com.docker.network.generic": { "network": "web", "mtu": "1400", "driver": "bridge", "parent": "eth0" },
                    },
                    "IPv4Data": [{
                        "AddressSpace": "toposcript", "Pool": "10.50.0.0/24", "Gateway": "10.50.0.1/24",
                        "AuxAddresses": { "router": "10.50.0.9/24" },
                    }],
                    "IPv6Data": [{ "AddressSpace": "toposcript", "Pool": "fd50::/64", "Gateway": "fd50::1/64" }],
                }),
            ),
            (
                "NetworkDriver.CreateEndpoint",
                with(
                    json!({ "Interface": { "Address": "10.50.0.2/24", "AddressIPv6": "fd50::2/64", "MacAddress": "02:42:0a:32:00:02" }, "Options": ports }),
                ),
            ),
            ("NetworkDriver.Join", with(json!({ "SandboxKey": "/var/run/docker/netns/d2bc", "Options": ports }))),
            ("NetworkDriver.ProgramExternalConnectivity", with(json!({ "Options": ports }))),
            (
                "IpamDriver.RequestPool",
                json!({ "AddressSpace": "toposcript", "Pool": "10.50.0.0/24", "SubPool": "10.50.0.128/25", "Options": {}, "V6": false }),
            ),
            (
                "IpamDriver.RequestAddress",
                json!({ "PoolID": "10.50.0.0/24,10.50.0.128/25", "Address": "10.50.0.1", "Options": { "RequestAddressType": "com.docker.network.gateway" } }),
            ),
            ("IpamDriver.ReleaseAddress", json!({ "PoolID": "10.50.0.0/24", "Address": "10.50.0.2" })),
        ]
    }

    #[test]
    fn any_request_is_read_or_refused() {
        let pools = json!([{ "subnet": "10.50.0.0/24", "range": "10.50.0.128/25" }]);
        for (method, good) in requests() {
            assert!(matches!(asked(method, &good, &pools), Ok(DockerRequest::Of(_))), "{method}");
            let mut read = 0;
            for text in mutated(&good, 20_000) {
                let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
                if let Ok(DockerRequest::Of(call)) = asked(method, &value, &pools) {
                    let _ = (call.reply)(&value, &call.args);
                    read += 1;
                }
            }
            assert!(read > 1_000, "{method} {read}");
        }
    }

    #[test]
    fn ports_are_read_as_docker_means_them() {
        let ports = |list: Value| published(&json!({ "com.docker.network.portmap": list }));
        let one = json!({ "Proto": 17, "Port": 53, "HostIP": "0.0.0.0", "HostPort": 5353, "HostPortEnd": 5353 });
        let any = json!({ "Proto": 6, "Port": 80, "HostIP": "::1", "HostPort": 0, "HostPortEnd": 0 });
        let some = json!({ "Proto": 6, "Port": 80, "HostPort": 8000, "HostPortEnd": 8010 });
        let read = ports(json!([one, one, any, some])).expect("read");
        assert_eq!(read, ["5353:53/udp", "[::1]:0:80/tcp", "8000-8010:80/tcp"]);
        assert!(ports(json!([{ "Proto": 1, "Port": 80 }])).is_err() && ports(json!([{ "Proto": 6 }])).is_err());
        assert_eq!(published(&Value::Null).expect("read"), Vec::<String>::new());
    }
}
