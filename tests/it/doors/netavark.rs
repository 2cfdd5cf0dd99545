//! The netavark plugin, called as Podman's netavark calls it: a word, and JSON on standard input.

use serde_json::{Value, json};

use super::{endpoints, json as read, topo};
use crate::world::{Ran, World};

/// Makes a world with the plugin in its directory, as `netavark_plugin_dirs` would name it, and containers that others made.
fn in_plugin_world(test: impl FnOnce(&World)) {
    let w = World::new();
    let program = w.program().display();
    w.run(&format!(
        "ip link set lo up; for c in c1 c2; do ip netns add $c; done; mkdir plugins; ln -s {program} plugins/toposcript"
    ))
    .ok();
    call(
        &w,
        "setup /run/netns/c1",
        &container("c1", json!([{ "container_port": 1, "host_port": 1, "protocol": "tcp", "range": 1 }])),
    )
    .ok();
    call(&w, "teardown /run/netns/c1", &container("c1", Value::Null)).ok();
    let before = w.snapshot();
    test(&w);
    w.assert_clean(&before);
}

fn call(w: &World, words: &str, input: &Value) -> Ran {
    call_with(w, words, &input.to_string())
}

fn call_with(w: &World, words: &str, input: &str) -> Ran {
    w.write("input.json", input);
    let ran = w.run(&format!("plugins/toposcript {words} <input.json"));
    w.run("rm input.json").ok();
    ran
}

/// A network as Podman stores it.
fn n1() -> Value {
    json!({
        "name": "n1", "id": "6f1d", "driver": "toposcript", "created": "0001-01-01T00:00:00Z", "internal": false, "dns_enabled": true,
        "subnets": [{ "subnet": "10.61.0.0/24", "gateway": "10.61.0.1" }], "ipv6_enabled": false, "labels": { "a": "b" },
        "options": { "mtu": "1450" }, "unheard": [1],
    })
}

/// What netavark hands over for a container; Podman has chosen its address.
fn container(name: &str, ports: Value) -> Value {
    let host = if name == "c1" { 2 } else { 3 };
    json!({
        "container_id": format!("{name}-id"), "container_name": name, "port_mappings": ports, "network": n1(),
        "network_options": { "aliases": [format!("{name}-id")], "interface_name": "eth0", "static_ips": [format!("10.61.0.{host}")],
            "static_mac": null, "options": null },
    })
}

/// The life of a network with two containers: made with the first one, gone with the last one.
#[test]
fn the_life_of_a_network() {
    in_plugin_world(|w| {
        let made = read(&call(w, "create", &n1()).ok());
        assert_eq!(
            (&made["network_interface"], &made["name"], &made["labels"]),
            (&json!("br-n1"), &json!("n1"), &json!({ "a": "b" }))
        );
        assert!(!topo(w, "network ls").ok().out().contains("n1"));
        let ports = json!([
            { "container_port": 80, "host_ip": "", "host_port": 8070, "protocol": "tcp", "range": 1 },
            { "container_port": 9000, "host_ip": "127.0.0.1", "host_port": 9100, "protocol": "udp", "range": 3 },
        ]);
        let told = read(&call(w, "setup /run/netns/c1", &container("c1", ports.clone())).ok());
        let dev = &told["interfaces"]["eth0"];
        assert_eq!(dev["subnets"], json!([{ "gateway": "10.61.0.1", "ipnet": "10.61.0.2/24" }]));
        w.run("ip -n c1 link show eth0").ok().says(dev["mac_address"].as_str().expect("a MAC")).says("mtu 1450");
        w.run("ip netns exec c1 ping -c 1 -W 2 10.61.0.1").ok();
        let known = &endpoints(w, "n1")[0];
        assert_eq!(
            (&known["target"], &known["ports"]),
            (&json!("c1"), &json!(["8070:80/tcp", "127.0.0.1:9100-9102:9000-9002/udp"]))
        );
        call(w, "setup /run/netns/c2", &container("c2", Value::Null)).ok();
        w.run("ip netns exec c1 ping -c 1 -W 2 10.61.0.3").ok();
        assert_eq!(call(w, "teardown /run/netns/c1", &container("c1", ports.clone())).ok().out(), "");
        assert_eq!(endpoints(w, "n1").len(), 1);
        // Again, and of a netns that is gone.
        call(w, "teardown /run/netns/c1", &container("c1", ports)).ok();
        call(w, "teardown /run/netns/gone", &container("c2", Value::Null)).ok();
        assert!(!topo(w, "network ls").ok().out().contains("n1"));
    });
}

/// A network that is there under the same name is joined, and stays; with other subnets it is refused.
#[test]
fn a_network_that_is_there() {
    in_plugin_world(|w| {
        topo(w, "network create n1 --subnet 10.61.0.0/24").ok();
        call(w, "create", &n1()).ok();
        call(w, "setup /run/netns/c1", &container("c1", Value::Null)).ok();
        call(w, "teardown /run/netns/c1", &container("c1", Value::Null)).ok();
        topo(w, "network rm n1").ok();
        topo(w, "network create n1 --subnet 10.62.0.0/24").ok();
        let refused = read(&call(w, "create", &n1()).fails(1));
        assert!(
            refused["error"].as_str().expect("a text").contains("there is one of this name, with 10.62.0.0/24"),
            "{refused}"
        );
        call(w, "setup /run/netns/c1", &container("c1", Value::Null)).fails(1);
        topo(w, "network rm n1").ok();
    });
}

/// What is wrong is told as netavark has it, and nothing is left, no network either.
#[test]
fn wrong_input() {
    in_plugin_world(|w| {
        let about = read(&call(w, "info", &json!({})).ok());
        assert_eq!((&about["api_version"], about["version"].is_string()), (&json!("1.0.0"), true));
        let with = |change: &dyn Fn(&mut Value)| {
            let mut asked = container("c1", Value::Null);
            change(&mut asked);
            asked.to_string()
        };
        for (words, input) in [
            ("create", "nonsense".to_string()),
            ("create", "[]".to_string()),
            ("create", json!({ "name": "a b" }).to_string()),
            ("create", json!({ "name": "n1", "id": "1" }).to_string()),
            ("create", json!({ "name": "n1", "id": "1", "subnets": [{}] }).to_string()),
            ("create", json!({ "name": "n1", "id": "1", "subnets": [{ "subnet": "10.61.0.0/24" }, { "subnet": "10.62.0.0/24" }] }).to_string()),
            ("create", json!({ "name": "n1", "id": "1", "subnets": [{ "subnet": "10.61.0.0/24" }], "options": { "colour": "red" } }).to_string()),
            ("create", json!({ "name": "n1", "id": "1", "subnets": [{ "subnet": "10.61.0.0/24" }], "options": { "driver": "nosuch" } }).to_string()),
            ("setup", container("c1", Value::Null).to_string()),
            ("setup /run/netns/nosuch", container("c1", Value::Null).to_string()),
            ("setup /proc/self/ns/net", container("c1", Value::Null).to_string()),
            ("setup /run/netns/c1", "{}".to_string()),
            ("setup /run/netns/c1", with(&|asked| asked["network_options"]["static_ips"] = json!(["10.99.0.1"]))),
            ("setup /run/netns/c1", with(&|asked| asked["network_options"]["static_mac"] = json!("nonsense"))),
            ("setup /run/netns/c1", with(&|asked| asked["port_mappings"] = json!([{ "container_port": 80 }]))),
            ("setup /run/netns/c1", with(&|asked| asked["network"]["subnets"][0]["subnet"] = json!("nonsense"))),
        ] {
            let ran = call_with(w, words, &input).fails(1);
            assert!(read(&ran)["error"].as_str().is_some_and(|text| text.len() > 10), "{words} {input}: {ran:?}");
            assert!(topo(w, "network ls").ok().out().lines().count() <= 1, "{words} {input}");
        }
    });
}
