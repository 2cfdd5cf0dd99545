//! What ADD answers, in the form of the version that was asked for.

use serde_json::{Map, Value, json};

use super::conf::{Conf, find};

/// Returns the answer for what the library made.
pub(super) fn of_add(conf: &Conf, joined: &Value, netns: &str) -> Value {
    let new = conf.version.as_str() >= "1.1.0";
    let mut interfaces = Vec::new();
    if let Some(host) = joined["host_dev"].as_str() {
        interfaces.push(interface(host, &joined["host_mac"], None));
    }
    let mut inside = interface(joined["dev"].as_str().unwrap_or_default(), &joined["mac"], Some(netns));
    if new {
        inside["mtu"] = joined["mtu"].clone();
    }
    interfaces.push(inside);
    let at = interfaces.len() - 1;
    let addresses = joined["addresses"].as_array().cloned().unwrap_or_default();
    let ips = addresses
        .iter()
        .map(|given| ip(conf, given["cidr"].as_str().unwrap_or_default(), given["gateway"].as_str(), at));
    let routes = joined["routes"].as_array().cloned().unwrap_or_default();
    whole(conf, interfaces, ips.collect(), routes)
}

/// Returns the answer for the loopback device.
pub(super) fn of_loopback(conf: &Conf, netns: &str) -> Value {
    let lo = interface("lo", &json!("00:00:00:00:00:00"), Some(netns));
    let ips = ["127.0.0.1/8", "::1/128"].map(|cidr| ip(conf, cidr, None, 0)).to_vec();
    whole(conf, vec![lo], ips, Vec::new())
}

fn interface(name: &str, mac: &Value, sandbox: Option<&str>) -> Value {
    let mut interface = Map::from_iter([("name".to_string(), json!(name)), ("mac".to_string(), mac.clone())]);
    if let Some(sandbox) = sandbox {
        interface.insert("sandbox".into(), json!(sandbox));
    }
    Value::Object(interface)
}

fn ip(conf: &Conf, cidr: &str, gateway: Option<&str>, interface: usize) -> Value {
    let mut ip = json!({ "interface": interface, "address": cidr });
    if let Some(gateway) = gateway {
        ip["gateway"] = json!(gateway);
    }
    if conf.version.as_str() < "1.0.0" {
        ip["version"] = json!(if cidr.contains(':') { "6" } else { "4" });
    }
    ip
}

/// Puts an answer together, behind what plugins before this one answered.
fn whole(conf: &Conf, interfaces: Vec<Value>, ips: Vec<Value>, routes: Vec<Value>) -> Value {
    let before = |key: &str| {
        conf.previous().and_then(|previous| find(previous, key)).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let earlier = before("interfaces").len();
    let moved = ips.into_iter().map(|mut ip| {
        if let Some(at) = ip["interface"].as_u64() {
            ip["interface"] = json!(at + earlier as u64);
        }
        ip
    });
    let dns = conf.dns().or_else(|| conf.previous().and_then(|previous| find(previous, "dns")).cloned());
    let interfaces = [before("interfaces"), interfaces].concat();
    let ips = [before("ips"), moved.collect()].concat();
    let routes = [before("routes"), routes].concat();
    json!({
        "cniVersion": conf.version,
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": dns.unwrap_or_else(|| json!({})),
    })
}

/// Returns what an answer says of a container: its devices, and their addresses.
pub(super) fn told(answer: &Value, netns: &str) -> (Vec<Value>, Vec<Value>) {
    let list = |key: &str| find(answer, key).and_then(Value::as_array).cloned().unwrap_or_default();
    let interfaces = list("interfaces");
    let text = |value: &Value, key: &str| find(value, key).and_then(Value::as_str).unwrap_or_default().to_string();
    let is_inside = |interface: &Value| text(interface, "sandbox") == netns;
    let devs = interfaces.iter().filter(|interface| is_inside(interface)).map(|interface| {
        let mac = text(interface, "mac");
        json!({ "name": text(interface, "name"), "mac": (!mac.is_empty()).then_some(mac.to_lowercase()) })
    });
    let ips = list("ips");
    let ips = ips.iter().filter_map(|ip| {
        let at = find(ip, "interface").and_then(Value::as_u64)?;
        let interface = interfaces.get(usize::try_from(at).ok()?).filter(|interface| is_inside(interface))?;
        Some(json!({ "dev": text(interface, "name"), "address": text(ip, "address") }))
    });
    (devs.collect(), ips.collect())
}
