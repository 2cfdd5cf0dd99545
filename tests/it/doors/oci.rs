//! The hook of OCI runtimes. The container judges from inside; `ip`, `nft` and the dump of the machine from outside.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{FETCH, ROOTFS, endpoints, mount_cgroups, topo};
use crate::tier::spread;
use crate::world::{Ran, World};

/// The runtimes, which differ in what they hand over: runc leaves the pid out at the end, crun says 0.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// Makes a world with a root file system for containers, a bundle, and the network `web`.
fn in_runtime_world(test: impl FnOnce(&World)) {
    let w = World::new();
    mount_cgroups(&w);
    w.run("ip netns add pod; ip netns del pod; ip link set lo up; mkdir bundle; cd bundle; runc spec").ok();
    w.run(ROOTFS).ok();
    topo(&w, "network create web --subnet 10.5.0.0/24").ok();
    // A container leaves more than the network has: the locks of all networks and ports, and the runtime's own directories.
    for runtime in RUNTIMES {
        run(&w, runtime, &["true"], &json!({ "dev.toposcript.publish": "1:1" }), &json!({})).ok();
    }
    // The network comes anew: its pool goes on behind the addresses that were given. Full blocks of a pool are marked in a directory.
    topo(&w, "network rm web").ok();
    w.run("mkdir -m 700 state/store/full").ok();
    let before = w.snapshot();
    topo(&w, "network create web --subnet 10.5.0.0/24").ok();
    test(&w);
    topo(&w, "network rm web").ok();
    w.assert_clean(&before);
}

/// Writes the bundle, on that of `runc spec`: what the container does, its annotations, and more of its configuration.
pub(super) fn bundle(w: &World, process: &[&str], annotations: &Value, more: &Value) {
    let program = w.program();
    let state = w.state();
    let hook = |words: &[&str]| {
        let args = [&["topo", "hook", "oci"], words].concat();
        json!({ "path": program, "args": args, "timeout": 30, "env": [format!("TOPO_STATE={}", state.display())] })
    };
    let path = w.dir().join("bundle/config.json");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(process);
    config["root"] = json!({ "path": w.dir().join("rootfs"), "readonly": false });
    for set in config["process"]["capabilities"].as_object_mut().expect("sets").values_mut() {
        set.as_array_mut().expect("a list").push(json!("CAP_NET_RAW"));
    }
    config["annotations"] = annotations.clone();
    config["hooks"] =
        json!({ "createRuntime": [hook(&["createRuntime", "--network", "web"])], "poststop": [hook(&["poststop"])] });
    for (key, value) in more.as_object().expect("a map") {
        config[key] = value.clone();
    }
    // All worlds see the machine's control groups: in one of another container's the runtime could not take its own away.
    static GROUPS: AtomicU32 = AtomicU32::new(0);
    let world = w.dir().file_name().expect("a name").display();
    config["linux"]["cgroupsPath"] = json!(format!("/{world}-{}", GROUPS.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(path, config.to_string()).expect("write the configuration");
}

/// Runs a container to its end.
fn run(w: &World, runtime: &str, process: &[&str], annotations: &Value, more: &Value) -> Ran {
    bundle(w, process, annotations, more);
    w.run(&format!("{runtime} --root $PWD/run-{runtime} run --bundle bundle c1 </dev/null"))
}

/// A container has its address, its hardware address and a way out before its first command, and leaves nothing.
#[test]
fn a_container_has_what_it_asks_for() {
    in_runtime_world(|w| {
        for runtime in RUNTIMES {
            let look = ["sh", "-c", "ip -o addr show eth0; ip link show eth0; ip route; ping -c 1 -W 2 10.5.0.1"];
            let asked = json!({ "dev.toposcript.ip": "10.5.0.77", "dev.toposcript.mac": "02:00:00:00:00:77" });
            let ran = run(w, runtime, &look, &asked, &json!({})).ok();
            for seen in ["inet 10.5.0.77/24", "02:00:00:00:00:77", "default via 10.5.0.1", " 0% packet loss"] {
                ran.says(seen);
            }
            assert_eq!(endpoints(w, "web"), Vec::<Value>::new(), "{runtime}");
        }
    });
}

/// A published port of a container that runs in the background answers from the host; a kill of its process ends it all.
#[test]
fn a_published_port_until_the_container_is_killed() {
    in_runtime_world(|w| {
        for runtime in RUNTIMES {
            let root = format!("{runtime} --root $PWD/run-{runtime}");
            let serve = ["sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp"];
            bundle(
                w,
                &serve,
                &json!({ "dev.toposcript.publish": "8080:80", "dev.toposcript.alias": "shop,front" }),
                &json!({}),
            );
            w.run(&format!("{root} run --detach --bundle bundle c1 </dev/null >/dev/null")).ok();
            let known = endpoints(w, "web");
            assert_eq!(
                (&known[0]["target"], &known[0]["aliases"], &known[0]["state"]),
                (&json!("c1"), &json!(["shop", "front"]), &json!("up"))
            );
            w.run(&format!("{FETCH} http://127.0.0.1:8080/")).ok().says("hello");
            w.run(&format!(
                "{root} kill c1 KILL; until {root} state c1 | grep -q stopped; do :; done; {root} delete c1"
            ))
            .ok();
            assert_eq!(endpoints(w, "web"), Vec::<Value>::new(), "{runtime}");
            w.run("curl --silent --max-time 2 http://127.0.0.1:8080/").fails(7);
        }
    });
}

/// Several networks by annotation, beside the hook's own; an address goes to the network that it is of.
#[test]
fn several_networks() {
    in_runtime_world(|w| {
        topo(w, "network create db --subnet 10.6.0.0/24 --internal").ok();
        let asked = json!({ "dev.toposcript.network": "db, web", "dev.toposcript.ip": "10.6.0.9,10.5.0.9" });
        let look = ["sh", "-c", "ip -o addr; ping -c 1 -W 2 10.5.0.1 && ping -c 1 -W 2 10.6.0.1"];
        let ran = run(w, "runc", &look, &asked, &json!({})).ok();
        ran.says("eth0    inet 10.5.0.9/24").says("eth1    inet 10.6.0.9/24");
        topo(w, "network rm db").ok();
    });
}

/// A container of a pod shares the netns of another one: they share its endpoint, and the last one takes it along.
#[test]
fn a_netns_that_outlives_its_containers() {
    in_runtime_world(|w| {
        w.run("ip netns add pod").ok();
        let mut linux: Value = serde_json::from_str(
            &std::fs::read_to_string(w.dir().join("bundle/config.json")).expect("the configuration"),
        )
        .expect("JSON");
        let mut linux = linux["linux"].take();
        for namespace in linux["namespaces"].as_array_mut().expect("a list") {
            if namespace["type"] == "network" {
                namespace["path"] = json!("/run/netns/pod");
            }
        }
        let more = json!({ "linux": linux });
        for runtime in RUNTIMES {
            let root = format!("{runtime} --root $PWD/run-{runtime}");
            bundle(w, &["sleep", "1000"], &json!({}), &more);
            w.run(&format!("{root} run --detach --bundle bundle infra </dev/null >/dev/null")).ok();
            run(w, runtime, &["ping", "-c", "1", "-W", "2", "10.5.0.1"], &json!({}), &more).ok();
            assert_eq!(endpoints(w, "web").len(), 1, "the first one is still there");
            w.run("ip netns exec pod ping -c 1 -W 2 10.5.0.1").ok();
            w.run(&format!(
                "{root} kill infra KILL; until {root} state infra | grep -q stopped; do :; done; {root} delete infra"
            ))
            .ok();
            assert_eq!(endpoints(w, "web"), Vec::<Value>::new());
            w.run("ip -n pod link show eth0").fails(1);
        }
        w.run("ip netns del pod").ok();
    });
}

/// What can't be connected does not start, the reason is in the runtime's own error, and nothing is left.
#[test]
fn a_container_that_cant_be_connected_does_not_start() {
    in_runtime_world(|w| {
        let long = ["sleep", "1000"];
        // The first container of a network leaves what its pool and its bridge keep.
        run(w, "runc", &["true"], &json!({}), &json!({})).ok();
        let before = w.snapshot();
        let taken = json!({ "dev.toposcript.ip": "10.5.0.1" });
        for (asked, because) in [
            (json!({ "dev.toposcript.network": "nosuch" }), "find network `nosuch`: there is no network of this name"),
            (json!({ "dev.toposcript.publish": "80:0" }), "publish `80:0`: `0` is no port"),
            (json!({ "dev.toposcript.mac": "a,b" }), "it asks for several hardware addresses"),
            (json!({ "dev.toposcript.ip": "10.9.0.1" }), "`10.9.0.1` is in none of its subnets"),
            (taken, "10.5.0.1"),
        ] {
            let ran = run(w, "runc", &long, &asked, &json!({})).fails(1);
            assert!(ran.err().contains(because), "{because}: {ran:?}");
            w.assert_clean_so_far(&before);
        }
        // Who has no netns of its own has the host's.
        let host = json!({ "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "uts" }] } });
        let ran = run(w, "runc", &long, &json!({}), &host).fails(1);
        assert!(ran.err().contains("it shares the netns of the host"), "{ran:?}");
    });
}

/// Kind of fault: crun shows its user only that a hook failed, and nobody learns why.
#[test]
fn why_a_hook_failed_is_kept_for_whom_the_runtime_does_not_tell() {
    in_runtime_world(|w| {
        topo(w, "logs").ok().says("nothing was refused to a container runtime");
        for (runtime, code) in [("runc", 1), ("crun", 255)] {
            run(w, runtime, &["true"], &json!({ "dev.toposcript.network": "nosuch" }), &json!({})).fails(code);
        }
        let kept = topo(w, "logs").ok();
        let line = "oci createRuntime  c1         find network `nosuch`: there is no network of this name";
        assert_eq!(kept.out().matches(line).count(), 2, "{kept:?}");
        let last = super::json(&topo(w, "logs --json -n 1").ok());
        assert_eq!((&last[0]["door"], &last[0]["container"]), (&json!("oci createRuntime"), &json!("c1")));
        assert_eq!(last.as_array().map(Vec::len), Some(1));
        // However many are refused, the files stay small.
        let state = w.state();
        std::fs::write(state.join("refused"), "x\n".repeat(40_000)).expect("write");
        w.topo_stdin("nonsense", &["hook", "oci", "poststop"]).fails(1);
        topo(w, "logs").ok().says("oci poststop").says("read the container's state");
        assert!(state.join("refused").metadata().expect("the file").len() < 1000);
        std::fs::remove_file(state.join("refused.1")).expect("remove");
    });
}

/// Gives the bundle's hooks a script, instead of a network.
fn bundle_with_script(w: &World, process: &[&str], annotations: &Value, script: &str) {
    let file = w.write("legs.rhai", script);
    bundle(w, process, annotations, &json!({}));
    let path = w.dir().join("bundle/config.json");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["hooks"]["createRuntime"][0]["args"] = json!(["topo", "hook", "oci", "createRuntime", "--script", file]);
    std::fs::write(path, config.to_string()).expect("write the configuration");
}

/// A script connects the container as it likes; what it made is a lab that goes with the container, and nothing if it fails.
#[test]
fn a_script_behind_the_hook() {
    in_runtime_world(|w| {
        let legs = r#"
            let left = bridge("left");
            let right = bridge("right");
            left.addr("10.71.0.1/24");
            veth(container.netns["eth0"], left);
            veth(container.netns["eth1"], right);
            container.netns["eth0"].addr(container.annotations["own.address"]);
            container.netns["eth1"].shape(#{ rate: "10mbit" });
            check("the container is named", container.name == "c1" && container.ports == ["8080:80"]);
        "#;
        let asked = json!({ "own.address": "10.71.0.9/24", "dev.toposcript.publish": "8080:80" });
        let look = ["sh", "-c", "ip -o addr; ip link show eth1; ping -c 1 -W 2 10.71.0.1"];
        for runtime in RUNTIMES {
            bundle_with_script(w, &look, &asked, legs);
            let ran = w.run(&format!("{runtime} --root $PWD/run-{runtime} run --bundle bundle c1 </dev/null")).ok();
            ran.says("inet 10.71.0.9/24").says("qdisc tbf").says(" 0% packet loss");
            assert!(!w.ip("-o link").contains("left") && !topo(w, "ls").ok().out().contains("container-"), "{runtime}");
        }
        // It is tied to the container: where nobody calls `poststop`, `gc` finds it.
        bundle_with_script(w, &["sleep", "1000"], &asked, legs);
        let root = "runc --root $PWD/run-runc";
        w.run(&format!("{root} run --detach --bundle bundle c1 </dev/null >/dev/null")).ok();
        topo(w, "ls").ok().says("container-");
        let pid = super::json(&w.run(&format!("{root} state c1")).ok())["pid"].clone();
        w.run(&format!("kill -9 {pid}; while [ -e /proc/{pid}/ns/net ]; do :; done")).ok();
        topo(w, "gc").ok();
        assert!(!w.ip("-o link").contains("left"));
        w.run(&format!("{root} delete c1")).ok();
        for (wrong, because) in [
            (r#"bridge("left"); check("it is so", false);"#, "a check has failed: it is so"),
            (r#"bridge("left"); container.netns["eth7"].up();"#, "find device `eth7`"),
            ("let x = ;", "legs.rhai`: unexpected ';'"),
        ] {
            bundle_with_script(w, &["sleep", "1000"], &asked, wrong);
            let ran = w.run(&format!("{root} run --bundle bundle c1 </dev/null")).fails(1);
            assert!(ran.err().contains(because), "{because}: {ran:?}");
            assert!(!w.ip("-o link").contains("left"), "{because}");
        }
    });
}

/// The hook alone, with what no runtime should hand over: an error in two lines, and nothing done.
#[test]
fn wrong_input() {
    in_runtime_world(|w| {
        let hook = |stage: &str, input: &str| w.topo_stdin(input, &["hook", "oci", stage, "--network", "web"]);
        for (stage, input, because) in [
            ("createRuntime", "", "read the container's state from standard input: EOF"),
            ("createRuntime", "[]", "read the container's state"),
            ("createRuntime", "{\"id\":7}", "read the container's state"),
            ("createRuntime", "{\"id\":\"\"}", "the container has no id"),
            ("createRuntime", "{\"id\":\"c1\"}", "its state has no process of this host"),
            ("createRuntime", "{\"id\":\"c1\",\"pid\":0}", "its state has no process of this host"),
            ("createRuntime", "{\"id\":\"c1\",\"pid\":4194304}", "/proc/4194304/ns/net"),
            ("createContainer", "{\"id\":\"c1\",\"pid\":1}", "networks are made at `createRuntime`"),
        ] {
            let ran = hook(stage, input).fails(1);
            assert!(ran.err().contains(because) && ran.err().lines().count() <= 2, "{input}: {ran:?}");
        }
        // What is gone is gone, however often it is said, and whatever the pid is.
        for input in [
            "{\"id\":\"c1\"}",
            "{\"id\":\"c1\",\"pid\":0}",
            "{\"id\":\"c1\",\"pid\":1,\"more\":[],\"annotations\":null}",
        ] {
            hook("poststop", input).ok();
        }
    });
}

/// A hook that is killed at its work: the runtime's own clean-up, and `topo gc`, leave nothing.
#[test]
fn a_hook_that_is_killed() {
    in_runtime_world(|w| {
        let mut points = 0;
        for point in spread((1..=72).collect::<Vec<u32>>(), 9) {
            bundle(w, &["sleep", "1000"], &json!({}), &json!({}));
            let path = w.dir().join("bundle/config.json");
            let mut config: Value =
                serde_json::from_str(&std::fs::read_to_string(&path).expect("the configuration")).expect("JSON");
            let fault = json!(format!("TOPO_FAULT=kill:{point}"));
            config["hooks"]["createRuntime"][0]["env"].as_array_mut().expect("a list").push(fault);
            std::fs::write(&path, config.to_string()).expect("write the configuration");
            let ran = w.run("runc --root $PWD/run-runc run --detach --bundle bundle c1 </dev/null >/dev/null");
            if ran.code == 0 {
                w.run("runc --root $PWD/run-runc delete --force c1").ok();
                continue;
            }
            points += 1;
            topo(w, "gc").ok();
            assert_eq!(endpoints(w, "web"), Vec::<Value>::new(), "killed at {point}");
            assert!(topo(w, "network ls").ok().out().contains(" up "), "killed at {point}");
        }
        assert!(points > 3, "only {points} points were met");
    });
}

/// The files by which Podman and CRI-O call the hook, and by which engines know networks as devices.
#[test]
fn files_for_engines() {
    in_runtime_world(|w| {
        let hooks = w.dir().join("hooks.d");
        topo(w, &format!("hook install --dir {}", hooks.display()))
            .ok()
            .says("toposcript.json")
            .says("toposcript-poststop.json");
        for (file, stage) in [("toposcript.json", "createRuntime"), ("toposcript-poststop.json", "poststop")] {
            let text = std::fs::read_to_string(hooks.join(file)).expect(file);
            let written: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(
                (&written["stages"], &written["hook"]["args"]),
                (&json!([stage]), &json!(["topo", "hook", "oci", stage]))
            );
            assert_eq!(written["when"]["annotations"], json!({ "^dev\\.toposcript\\.network$": ".+" }));
            assert!(written["hook"]["path"].as_str().is_some_and(|path| path.starts_with('/')));
        }
        let cdi = w.dir().join("cdi");
        topo(w, "network create db --subnet 10.6.0.0/24").ok();
        topo(w, &format!("cdi generate --dir {}", cdi.display())).ok();
        let text = std::fs::read_to_string(cdi.join("toposcript.json")).expect("the file");
        let written: Value = serde_json::from_str(&text).expect("JSON");
        let names: Vec<&Value> =
            written["devices"].as_array().expect("a list").iter().map(|device| &device["name"]).collect();
        assert_eq!((names, &written["kind"]), (vec![&json!("db"), &json!("web")], &json!("toposcript.dev/net")));
        let hook = &written["devices"][1]["containerEdits"]["hooks"][0];
        assert_eq!(hook["args"], json!(["topo", "hook", "oci", "createRuntime", "--network", "web"]));
        topo(w, &format!("cdi remove --dir {}", cdi.display())).ok();
        assert!(!cdi.join("toposcript.json").exists());
        topo(w, "network rm db").ok();
        std::fs::remove_dir_all(hooks).expect("remove");
        std::fs::remove_dir_all(cdi).expect("remove");
    });
}

/// A file of devices that is where engines read it follows the networks, and one of another user's networks stays.
#[test]
fn the_file_of_devices_follows_the_networks() {
    in_runtime_world(|w| {
        let devices = || {
            let ran = w.run("cat /var/run/cdi/toposcript.json").ok();
            let written: Value = serde_json::from_str(ran.out()).expect("JSON");
            written["devices"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|device| device["name"].clone())
                .collect::<Vec<_>>()
        };
        topo(w, "cdi generate --dir /var/run/cdi").ok();
        topo(w, "network create db --subnet 10.6.0.0/24").ok();
        assert_eq!(devices(), [json!("db"), json!("web")]);
        topo(w, "network rm db").ok();
        assert_eq!(devices(), [json!("web")]);
        // One odd name must not cost all others their devices.
        let odd = topo(w, "network create a+b --subnet 10.7.0.0/24").ok();
        assert!(odd.err().contains("network `a+b` can't be a device"), "{odd:?}");
        assert_eq!(devices(), [json!("web")]);
        topo(w, "network rm a+b").ok();
        w.run("sed -i s/TOPO_STATE=/TOPO_STATE=other/ /var/run/cdi/toposcript.json").ok();
        topo(w, "network create db --subnet 10.6.0.0/24").ok();
        assert_eq!(devices(), [json!("web")], "it is another user's");
        topo(w, "network rm db").ok();
        w.run("rm -r /var/run/cdi").ok();
    });
}
