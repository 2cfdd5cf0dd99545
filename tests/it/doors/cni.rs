//! The CNI plugin, called as runtimes call it: by the environment and standard input. What it answers is read as the specification has it.

use serde_json::{Value, json};

use super::{endpoints, topo};
use crate::tier::points;
use crate::world::{Ran, World};

/// A configuration that makes its network itself.
fn conf(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "tbnet", "type": "toposcript", "subnet": "10.9.0.0/24" })
}

/// Makes a world with the plugin installed and containers that others made.
fn in_plugin_world(test: impl FnOnce(&World)) {
    let w = World::new();
    w.run("ip link set lo up; for c in c1 c2 c3; do ip netns add $c; done").ok();
    topo(&w, "cni install --bin-dir bin --conf-dir conf tbnet")
        .ok()
        .says("bin/toposcript")
        .says("conf/10-tbnet.conflist");
    topo(&w, "network create tbnet --subnet 10.9.0.0/24").ok();
    // With a port: the lock of all ports stays.
    let mut first = conf("1.0.0");
    first["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 1, "containerPort": 1 }] });
    call(&w, "ADD", "c1", &first).ok();
    call(&w, "DEL", "c1", &first).ok();
    // The network comes anew: its pool goes on behind the addresses that were given. Full blocks of a pool are marked in a directory.
    topo(&w, "network rm tbnet").ok();
    w.run("mkdir -m 700 state/store/full").ok();
    let before = w.snapshot();
    topo(&w, "network create tbnet --subnet 10.9.0.0/24").ok();
    test(&w);
    topo(&w, "network rm tbnet").ok();
    w.assert_clean(&before);
}

/// Calls the plugin for the device `eth0` of a container, in the netns of its name.
fn call(w: &World, command: &str, container: &str, conf: &Value) -> Ran {
    call_in(w, command, container, &format!("/run/netns/{container}"), "toposcript", &conf.to_string(), "")
}

fn call_in(w: &World, command: &str, container: &str, netns: &str, plugin: &str, conf: &str, env: &str) -> Ran {
    w.write("conf.json", conf);
    let dir = w.dir().display();
    let ran = w.run(&format!(
        "env CNI_COMMAND={command} CNI_CONTAINERID='{container}' CNI_NETNS={netns} CNI_IFNAME=eth0 CNI_PATH={dir}/bin:/usr/lib/cni {env} bin/{plugin} <conf.json"
    ));
    w.run("rm conf.json").ok();
    ran
}

fn answer(ran: &Ran) -> Value {
    super::json(ran)
}

/// ADD answers in the form that it is asked for, and the container is connected as it says.
#[test]
fn add_answers_as_it_is_asked() {
    in_plugin_world(|w| {
        for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let told = answer(&call(w, "ADD", "c1", &conf(version)).ok());
            assert_eq!(told["cniVersion"], version);
            let at = told["interfaces"].as_array().expect("a list").len() - 1;
            let inside = &told["interfaces"][at];
            assert_eq!((&inside["name"], &inside["sandbox"]), (&json!("eth0"), &json!("/run/netns/c1")));
            assert_eq!(inside.get("mtu"), (version == "1.1.0").then_some(&json!(1500)));
            let ip = &told["ips"][0];
            assert_eq!((&ip["interface"], &ip["gateway"]), (&json!(at), &json!("10.9.0.1")));
            assert_eq!(ip.get("version"), (version < "1.0.0").then_some(&json!("4")), "{version}");
            assert_eq!(told["routes"], json!([{ "dst": "0.0.0.0/0", "gw": "10.9.0.1" }]));
            let seen = w.run("ip -n c1 -o addr show eth0; ip -n c1 link show eth0").ok();
            seen.says(ip["address"].as_str().expect("an address")).says(inside["mac"].as_str().expect("a MAC"));
            let host = told["interfaces"][0]["name"].as_str().expect("a name");
            w.run(&format!("ip link show {host}")).ok().says(told["interfaces"][0]["mac"].as_str().expect("a MAC"));
            w.run("ip netns exec c1 ping -c 1 -W 2 10.9.0.1").ok();
            assert_eq!(call(w, "DEL", "c1", &conf(version)).ok().out(), "");
            w.run("ip -n c1 link show eth0").fails(1);
        }
    });
}

/// DEL succeeds however little is left, and however often: containerd calls it twice more without a netns, Nomad after a failed ADD.
#[test]
fn del_is_done_however_little_is_left() {
    in_plugin_world(|w| {
        for gone in ["true", "ip netns del c4", "ip -n c4 link del eth0"] {
            w.run("ip netns add c4").ok();
            call(w, "ADD", "c4", &conf("1.0.0")).ok();
            w.run(gone).ok();
            for netns in ["/run/netns/c4", "''", "''"] {
                assert_eq!(call_in(w, "DEL", "c4", netns, "toposcript", &conf("1.0.0").to_string(), "").ok().out(), "");
            }
            assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new(), "{gone}");
            w.run("ip netns del c4 || true").ok();
        }
        // Of a network that was never made, nothing is left either.
        let other = json!({ "cniVersion": "1.0.0", "name": "nosuch", "type": "toposcript" });
        assert_eq!(call(w, "DEL", "c1", &other).ok().out(), "");
    });
}

/// The keys are read whatever their case, unknown ones are passed over, and what the call asks for goes before all else.
#[test]
fn what_the_runtime_says_of_the_call() {
    in_plugin_world(|w| {
        let mut asked = conf("1.0.0");
        asked["unheard"] = json!({ "of": [1] });
        asked["args"] = json!({ "cni": { "ips": ["10.9.0.50"] } });
        asked["runtimeConfig"] = json!({
            "PortMappings": [
                { "HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "" },
                { "hostPort": 8053, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0" },
                { "HostPort": 0, "ContainerPort": 90, "Protocol": "tcp" },
            ],
            "IPs": ["10.9.0.77/24", "10.9.0.77"], "mac": "02:00:00:00:00:77", "aliases": { "tbnet": ["shop"] },
            "dns": { "Servers": ["10.9.0.1"], "Searches": ["lan"], "Options": ["ndots:2"] },
            "bandwidth": { "IngressRate": 8_000_000, "egressRate": 4_000_000 },
        });
        let args = "CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;IP=10.9.0.60'";
        let text = asked.to_string();
        let told = answer(&call_in(w, "ADD", "c1", "/run/netns/c1", "toposcript", &text, args).ok());
        assert_eq!(
            (&told["ips"][0]["address"], &told["interfaces"][1]["mac"]),
            (&json!("10.9.0.77/24"), &json!("02:00:00:00:00:77"))
        );
        assert_eq!(told["dns"], json!({ "nameservers": ["10.9.0.1"], "search": ["lan"], "options": ["ndots:2"] }));
        let known = &endpoints(w, "tbnet")[0];
        assert_eq!(
            (&known["target"], &known["aliases"], &known["ports"]),
            (&json!("web"), &json!(["shop"]), &json!(["8080:80/tcp", "8053:53/udp"]))
        );
        w.run("tc -n c1 qdisc show dev eth0").ok().says("rate 4Mbit");
        w.run(&format!("tc qdisc show dev {}", told["interfaces"][0]["name"].as_str().expect("a name")))
            .ok()
            .says("rate 8Mbit");
        call(w, "DEL", "c1", &asked).ok();
        // CNI_ARGS alone.
        let told =
            answer(&call_in(w, "ADD", "c1", "/run/netns/c1", "toposcript", &conf("1.0.0").to_string(), args).ok());
        assert_eq!(told["ips"][0]["address"], "10.9.0.60/24");
        call(w, "DEL", "c1", &conf("1.0.0")).ok();
    });
}

/// CHECK sees what others took: an address, the device, a rule of a published port, another hardware address.
#[test]
fn check_sees_what_others_took() {
    in_plugin_world(|w| {
        let mut asked = conf("1.0.0");
        asked["runtimeConfig"] =
            json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
        let add = |w: &World| {
            let mut with = asked.clone();
            with["prevResult"] = answer(&call(w, "ADD", "c1", &asked).ok());
            with
        };
        let with = add(w);
        assert_eq!(call(w, "CHECK", "c1", &with).ok().out(), "");
        let without = answer(&call(w, "CHECK", "c1", &asked).fails(1));
        assert_eq!(without["code"], 7);
        for (taken, because) in [
            ("ip -n c1 addr flush dev eth0 scope global", "add address"),
            ("ip -n c1 link del eth0", "c1"),
            ("nft flush ruleset", "the kernel no longer has"),
            (
                "ip -n c1 link set eth0 down; ip -n c1 link set eth0 address 02:00:00:00:00:99; ip -n c1 link set eth0 up",
                "add veth `eth0`",
            ),
        ] {
            w.run(taken).ok();
            let refused = answer(&call(w, "CHECK", "c1", &with).fails(1));
            assert!(refused["code"].as_u64() >= Some(100) && refused["cniVersion"] == "1.0.0", "{taken}: {refused}");
            assert!(refused["msg"].as_str().expect("a text").contains(because), "{taken}: {refused}");
            call(w, "DEL", "c1", &asked).ok();
            topo(w, "network repair tbnet").ok();
            assert_eq!(call(w, "CHECK", "c1", &add(w)).ok().out(), "");
        }
        call(w, "DEL", "c1", &asked).ok();
    });
}

/// GC frees links, ports and leases of what is not listed, and of no other network.
#[test]
fn gc_frees_what_is_not_listed() {
    in_plugin_world(|w| {
        topo(w, "network create other --subnet 10.8.0.0/24").ok();
        let other = json!({ "cniVersion": "1.1.0", "name": "other", "type": "toposcript", "network": "other" });
        for container in ["c1", "c2"] {
            call(w, "ADD", container, &conf("1.1.0")).ok();
        }
        call(w, "ADD", "c3", &other).ok();
        topo(w, "network connect tbnet c3").ok();
        let mut gc = conf("1.1.0");
        gc["cni.dev/valid-attachments"] =
            json!([{ "containerID": "c2", "ifname": "eth0" }, { "containerID": "c1", "ifname": "eth1" }]);
        assert_eq!(call(w, "GC", "x", &gc).ok().out(), "");
        let left: Vec<Value> = endpoints(w, "tbnet").iter().map(|known| known["target"].clone()).collect();
        assert_eq!(left, [json!("c2"), json!("c3")], "one by hand stays");
        w.run("ip -n c1 link show eth0").fails(1);
        gc["cni.dev/valid-attachments"] = Value::Null;
        call(w, "GC", "x", &gc).ok();
        assert_eq!((endpoints(w, "tbnet").len(), endpoints(w, "other").len()), (1, 1));
        topo(w, "network disconnect tbnet c3").ok();
        call(w, "DEL", "c3", &other).ok();
        topo(w, "network rm other").ok();
        assert_eq!(answer(&call(w, "GC", "x", &conf("1.1.0")).fails(1))["code"], 7, "a list must be there");
    });
}

/// STATUS says when ADD would fail: no such network, no address left. Of a network that others damaged it says that its containers are
/// limited, and what is missing.
#[test]
fn status_says_when_add_would_fail() {
    in_plugin_world(|w| {
        assert_eq!(call(w, "STATUS", "x", &conf("1.1.0")).ok().out(), "");
        let named = |name: &str| json!({ "cniVersion": "1.1.0", "name": name, "type": "toposcript", "network": name });
        let missing = answer(&call(w, "STATUS", "x", &named("nosuch")).fails(1));
        assert_eq!(
            (&missing["code"], missing["msg"].as_str().map(|text| text.contains("nosuch"))),
            (&json!(50), Some(true))
        );
        topo(w, "network create tiny --subnet 10.7.0.0/30").ok();
        assert_eq!(call(w, "STATUS", "x", &named("tiny")).ok().out(), "");
        call(w, "ADD", "c1", &named("tiny")).ok();
        let full = answer(&call(w, "STATUS", "x", &named("tiny")).fails(1));
        assert_eq!(full["code"], 50, "{full}");
        call(w, "DEL", "c1", &named("tiny")).ok();
        assert_eq!(call(w, "STATUS", "x", &named("tiny")).ok().out(), "");
        topo(w, "network rm tiny").ok();
        call(w, "ADD", "c1", &conf("1.1.0")).ok();
        for (damage, missing) in [
            ("ip link set br-tbnet down", "set `br-tbnet` up"),
            ("ip link del br-tbnet", "add bridge `br-tbnet`"),
            ("ip addr flush dev br-tbnet", "add address `10.9.0.1/24` to `br-tbnet`"),
            ("nft flush ruleset", "masquerade `10.9.0.0/24`"),
            ("echo 0 >/proc/sys/net/ipv4/ip_forward", "set `net.ipv4.ip_forward` to `1`"),
        ] {
            w.run(damage).ok();
            let told = answer(&call(w, "STATUS", "x", &conf("1.1.0")).fails(1));
            assert_eq!(
                (&told["code"], told["msg"].as_str().map(|text| text.contains(missing))),
                (&json!(51), Some(true)),
                "{told}"
            );
            assert_eq!(told["details"], "`topo network repair tbnet` puts it back");
            topo(w, "network repair tbnet").ok();
            assert_eq!(call(w, "STATUS", "x", &conf("1.1.0")).ok().out(), "");
        }
        call(w, "DEL", "c1", &conf("1.1.0")).ok();
    });
}

/// Addresses by another plugin: the reference's host-local, which gets the same call, and gets its address back.
#[test]
fn addresses_by_another_plugin() {
    in_plugin_world(|w| {
        let dir = w.dir().join("leases");
        let asked = json!({
            "cniVersion": "1.0.0", "name": "dele", "type": "toposcript",
            "ipam": { "type": "host-local", "subnet": "10.22.0.0/24", "dataDir": dir },
        });
        let told = answer(&call(w, "ADD", "c1", &asked).ok());
        assert_eq!(
            (&told["ips"][0]["address"], &told["ips"][0]["gateway"]),
            (&json!("10.22.0.2/24"), &json!("10.22.0.1"))
        );
        w.run("ip netns exec c1 ping -c 1 -W 2 10.22.0.1; ls leases/dele").ok().says("10.22.0.2");
        call(w, "DEL", "c1", &asked).ok();
        assert!(!w.run("ls leases/dele").ok().out().contains("10.22.0.2"));
        topo(w, "network rm dele").ok();
        w.run("rm -r leases").ok();
        let mut wrong = asked.clone();
        wrong["ipam"]["type"] = json!("nosuch");
        assert_eq!(answer(&call(w, "ADD", "c1", &wrong).fails(1))["code"], 7);
    });
}

/// VERSION, and a start without a word, which Nomad reads a version from.
#[test]
fn version_and_about() {
    in_plugin_world(|w| {
        for (given, version) in [("", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), ("nonsense", "1.1.0")] {
            w.write("conf.json", given);
            let told = answer(&w.run("CNI_COMMAND=VERSION bin/toposcript <conf.json").ok());
            assert_eq!(
                (&told["cniVersion"], told["supportedVersions"].as_array().map(Vec::len)),
                (&json!(version), Some(5))
            );
        }
        w.run("rm conf.json").ok();
        let about = w.run("bin/toposcript </dev/null 2>&1").ok();
        assert!(about.out().starts_with(&format!("CNI topo plugin v{}\n", env!("CARGO_PKG_VERSION"))), "{about:?}");
    });
}

/// The loopback plugin, which containerd before 2.0 calls beside.
#[test]
fn the_loopback_plugin() {
    in_plugin_world(|w| {
        let conf = r#"{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}"#;
        let told = answer(&call_in(w, "ADD", "c2", "/run/netns/c2", "loopback", conf, "").ok());
        assert_eq!((&told["interfaces"][0]["name"], &told["ips"][0]["address"]), (&json!("lo"), &json!("127.0.0.1/8")));
        w.run("ip netns exec c2 ping -c 1 -W 2 127.0.0.1").ok();
        assert_eq!(call_in(w, "DEL", "c2", "''", "loopback", conf, "").ok().out(), "");
        w.run("ip -n c2 link set lo down").ok();
    });
}

/// Wrong environments and configurations, each with the specification's code, and nothing done.
#[test]
fn wrong_input() {
    in_plugin_world(|w| {
        let good = conf("1.0.0").to_string();
        for (container, netns, conf, env, code) in [
            ("a/b", "/run/netns/c1", &*good, "", 4),
            ("-a", "/run/netns/c1", &good, "", 4),
            ("c1", "''", &good, "", 4),
            ("c1", "/run/netns/c1", &good, "CNI_IFNAME=a-name-of-16-byte", 4),
            ("c1", "/run/netns/c1", &good, "CNI_IFNAME=a/b", 4),
            ("c1", "/run/netns/c1", &good, "CNI_COMMAND=PLAY", 4),
            ("c1", "/run/netns/c1", "nonsense", "", 6),
            ("c1", "/run/netns/c1", "[]", "", 6),
            ("c1", "/run/netns/c1", r#"{"cniVersion":7}"#, "", 6),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"2.0.0","name":"x"}"#, "", 1),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"0.2.0","name":"x"}"#, "", 1),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"1.0.0"}"#, "", 7),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"1.0.0","name":"a b"}"#, "", 7),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"1.0.0","name":"x","subnet":"10.9.0.0/24"}"#, "", 100),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"1.0.0","name":"x","subnet":"nonsense"}"#, "", 7),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"1.0.0","name":"x","mtu":"many"}"#, "", 7),
            (
                "c1",
                "/run/netns/c1",
                r#"{"cniVersion":"1.0.0","name":"tbnet","runtimeConfig":{"portMappings":7}}"#,
                "",
                7,
            ),
            (
                "c1",
                "/run/netns/c1",
                r#"{"cniVersion":"1.0.0","name":"tbnet","runtimeConfig":{"ips":["nonsense"]}}"#,
                "",
                7,
            ),
            ("c1", "/run/netns/c1", r#"{"cniVersion":"1.0.0","name":"nosuch"}"#, "", 101),
            ("c1", "/run/netns/nosuch", &good, "", 101),
            ("c1", "/proc/self/ns/net", &good, "", 7),
        ] {
            let ran = call_in(w, "ADD", container, netns, "toposcript", conf, env).fails(1);
            let told = answer(&ran);
            assert_eq!(told["code"], code, "{container} {netns} {conf} {env}: {told}");
            assert!(
                told["msg"].as_str().is_some_and(|text| !text.is_empty()) && told["cniVersion"].is_string(),
                "{told}"
            );
        }
        assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new());
        // An ADD once more.
        call(w, "ADD", "c1", &conf("1.0.0")).ok();
        assert_eq!(answer(&call(w, "ADD", "c1", &conf("1.0.0")).fails(1))["code"], 100);
        call(w, "DEL", "c1", &conf("1.0.0")).ok();
    });
}

/// The configuration says where the networks are, whatever the environment does: Podman calls DEL without the environment of ADD.
#[test]
fn the_configuration_says_where_the_networks_are() {
    in_plugin_world(|w| {
        let text = std::fs::read_to_string(w.dir().join("conf/10-tbnet.conflist")).expect("the configuration");
        let written: Value = serde_json::from_str(&text).expect("JSON");
        let env = json!([format!("TOPO_STATE={}", w.state().display())]);
        assert_eq!(written["plugins"][0]["env"], env);
        let mut with = conf("1.0.0");
        with["env"] = env;
        let elsewhere = w.dir().join("elsewhere");
        let other = format!("TOPO_STATE={}", elsewhere.display());
        call_in(w, "ADD", "c1", "/run/netns/c1", "toposcript", &with.to_string(), &other).ok();
        assert_eq!(endpoints(w, "tbnet").len(), 1);
        call_in(w, "DEL", "c1", "''", "toposcript", &with.to_string(), &other).ok();
        assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new());
        assert!(!elsewhere.exists());
        for wrong in [json!("TOPO_STATE=/run"), json!(["TOPO_STATE=run"])] {
            with["env"] = wrong;
            assert_eq!(answer(&call(w, "ADD", "c1", &with).fails(1))["code"], 7);
        }
    });
}

/// A hundred ADDs at once all succeed, with addresses of their own, and as many DELs give all back.
#[test]
fn many_at_once() {
    in_plugin_world(|w| {
        w.write("conf.json", &conf("1.0.0").to_string());
        let dir = w.dir().display();
        let all = |command: &str, netns: &str| {
            let ran = w.run(&format!(
                "for n in $(seq 100); do
                    env CNI_COMMAND={command} CNI_CONTAINERID=m$n CNI_NETNS={netns} CNI_IFNAME=eth0 CNI_PATH={dir}/bin bin/toposcript <conf.json >m$n.out 2>&1 &
                done; wait; cat m*.out; rm m*.out"
            ));
            ran.ok().stdout
        };
        w.run("for n in $(seq 100); do ip netns add m$n; done").ok();
        let told = all("ADD", "/run/netns/m$n");
        let addresses = told.split("\"address\":\"").skip(1).map(|rest| rest.split('"').next().expect("a text"));
        assert_eq!(addresses.collect::<std::collections::BTreeSet<_>>().len(), 100, "{told}");
        w.run("for n in $(seq 100); do ip -n m$n -o addr show eth0 | grep -q 'inet 10.9.0'; done").ok();
        assert_eq!(all("DEL", ""), "");
        assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new());
        w.run("for n in $(seq 100); do ip netns del m$n; done; rm conf.json").ok();
    });
}

/// After a restart of the machine the first ADD builds the network again; before it, STATUS says that ADD will do.
#[test]
fn after_a_restart_of_the_machine() {
    let store = tempfile::Builder::new().prefix("topo-store-").tempdir().expect("a store");
    let env = format!("TOPO_STORE={}/store", store.path().display());
    for boot in 1..=2 {
        let w = World::new();
        let id = w.write("boot_id", &format!("00000000-0000-4000-8000-{boot:012}\n"));
        w.run(&format!("mount --bind {} /proc/sys/kernel/random/boot_id; ip netns add c1", id.display())).ok();
        topo(&w, "cni install --bin-dir bin --conf-dir conf tbnet").ok();
        let call = |command: &str, netns: &str| {
            call_in(&w, command, "c1", netns, "toposcript", &conf("1.1.0").to_string(), &env)
        };
        call("STATUS", "''").ok();
        // The kubelet stops the pods of before first.
        call("DEL", "''").ok();
        let told = answer(&call("ADD", "/run/netns/c1").ok());
        assert!(told["ips"][0]["address"].as_str().is_some_and(|ip| ip.starts_with("10.9.0.")), "{told}");
        w.run("ip netns exec c1 ping -c 1 -W 2 10.9.0.1").ok();
        call("STATUS", "''").ok();
    }
}

/// A configuration whose ADD and DEL do all that there is to do.
fn conf_of_all() -> Value {
    let mut asked = conf("1.1.0");
    asked["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80 }],
        "bandwidth": { "ingressRate": 8_000_000, "egressRate": 4_000_000 },
    });
    asked
}

/// Kind of fault: an ADD that is killed at its work stands in its own way when the runtime tries again, or leaves a lease, a port or a
/// device that DEL does not give back.
#[test]
fn an_add_that_is_killed() {
    in_plugin_world(|w| {
        let (asked, netns) = (conf_of_all(), "/run/netns/c1");
        let killed = |point: u32| {
            let fault = format!("TOPO_FAULT=kill:{point}");
            call_in(w, "ADD", "c1", netns, "toposcript", &asked.to_string(), &fault).code != 0
        };
        for (met, point) in points("an ADD").enumerate() {
            if !killed(point) {
                call(w, "DEL", "c1", &asked).ok();
                assert!(met > 4, "only {met} points were met");
                break;
            }
            let again = call(w, "ADD", "c1", &asked);
            if again.code != 0 {
                // It was killed behind its last change.
                again.says("it has it already");
                call(w, "DEL", "c1", &asked).ok();
                call(w, "ADD", "c1", &asked).ok();
            }
            w.run("ip netns exec c1 ping -c 1 -W 2 10.9.0.1").ok();
            call(w, "DEL", "c1", &asked).ok();
            // A runtime that gives up.
            killed(point);
            call(w, "DEL", "c1", &asked).ok();
            assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new(), "killed at {point}");
            let left =
                w.run("ip -n c1 link show eth0 || ls -d state/store/leases/*/10.* || nft list ruleset | grep 8080");
            assert!(left.code != 0, "killed at {point}: {left:?}");
            topo(w, "gc").ok();
        }
    });
}

/// A DEL that is killed at its work: the next one gives the rest back.
#[test]
fn a_del_that_is_killed() {
    in_plugin_world(|w| {
        let (asked, netns) = (conf_of_all(), "/run/netns/c1");
        for (met, point) in points("a DEL").enumerate() {
            call(w, "ADD", "c1", &asked).ok();
            let fault = format!("TOPO_FAULT=kill:{point}");
            if call_in(w, "DEL", "c1", netns, "toposcript", &asked.to_string(), &fault).code == 0 {
                assert!(met > 2, "only {met} points were met");
                break;
            }
            call(w, "DEL", "c1", &asked).ok();
            assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new(), "killed at {point}");
            w.run("ip -n c1 link show eth0").fails(1);
            topo(w, "gc").ok();
        }
    });
}

/// What Nomad and go-cni do: the plugins of a list at once, an ADD that fails tried again with the same ids, CHECK when the agent is
/// started anew, and DEL to be sure, with what was answered, without it, and without a netns.
#[test]
fn as_nomad_calls() {
    in_plugin_world(|w| {
        let id = "0e7c7a8e-1f0d-6c0a-8a5f-2f9bfe0d2f3b";
        let args = "CNI_ARGS='IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_ALLOC_ID=0e7c7a8e;NOMAD_GROUP_NAME=web'";
        let mut asked = conf_of_all();
        call(w, "ADD", "c2", &asked).ok();
        let netns = "/run/netns/c1";
        for _ in 0..2 {
            let refused = call_in(w, "ADD", id, netns, "toposcript", &asked.to_string(), args).fails(1);
            assert_eq!(answer(&refused)["code"], 100, "the port is taken");
        }
        call(w, "DEL", "c2", &asked).ok();
        let told = answer(&call_in(w, "ADD", id, netns, "toposcript", &asked.to_string(), args).ok());
        assert_eq!(endpoints(w, "tbnet").len(), 1);
        let without = asked.to_string();
        asked["prevResult"] = told;
        call_in(w, "CHECK", id, netns, "toposcript", &asked.to_string(), args).ok();
        for (netns, conf) in [(netns, &asked.to_string()), ("''", &without), ("''", &without)] {
            assert_eq!(call_in(w, "DEL", id, netns, "toposcript", conf, args).ok().out(), "");
        }
        assert_eq!(endpoints(w, "tbnet"), Vec::<Value>::new());
    });
}

/// A script of the user's connects the container beside the network. What it made goes with DEL and GC, and nothing is left if it fails.
#[test]
fn a_script_in_the_configuration() {
    in_plugin_world(|w| {
        let file = w.write(
            "leg.rhai",
            r#"
                let ns = container.netns;
                let back = bridge("back0");
                back.addr("10.71.0.1/24");
                veth(ns["eth9"], back);
                ns["eth9"].addr(container.annotations["com.example.address"]).shape(#{ rate: "10mbit" });
                check("the container is named", container.name == "shop" && container.dev == "eth0");
            "#,
        );
        let mut conf = conf("1.0.0");
        conf["script"] = json!(file);
        conf["runtimeConfig"] =
            json!({ "io.kubernetes.cri.pod-annotations": { "com.example.address": "10.71.0.9/24" } });
        let add = |conf: &Value| {
            call_in(w, "ADD", "c1", "/run/netns/c1", "toposcript", &conf.to_string(), "CNI_ARGS='K8S_POD_NAME=shop'")
        };
        for gone in ["DEL", "GC"] {
            add(&conf).ok();
            w.run("ip netns exec c1 ping -c 1 -W 2 10.71.0.1; ip netns exec c1 ping -c 1 -W 2 10.9.0.1; tc -n c1 qdisc show dev eth9")
                .ok()
                .says("qdisc tbf");
            conf["cni.dev/valid-attachments"] = json!([]);
            call(w, gone, "c1", &conf).ok();
            assert!(!w.ip("-o link").contains("back0") && endpoints(w, "tbnet").is_empty(), "{gone}");
            w.run("ip -n c1 link show eth9").fails(1);
        }
        conf["runtimeConfig"] = json!({});
        let told = answer(&add(&conf).fails(1));
        let message = told["msg"].as_str().expect("a message");
        assert!(message.contains("leg.rhai`: ") && message.contains("com.example.address"), "{message}");
        assert!(!w.ip("-o link").contains("back0") && endpoints(w, "tbnet").is_empty());
        for (wrong, because) in [(json!("leg.rhai"), "is a path that is not absolute"), (json!(7), "is no text")] {
            conf["script"] = wrong;
            let told = answer(&add(&conf).fails(1));
            assert!(told["msg"].as_str().is_some_and(|message| message.contains(because)), "{told}");
        }
    });
}
