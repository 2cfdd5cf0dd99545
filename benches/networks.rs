//! Container networks as they grow: what it takes to connect a container, to disconnect it, with a published port and without, in a network
//! of 1, 100 and 300 others; by the command, and by our CNI plugin; beside the CNI plugins (bridge, host-local, portmap) and netavark where these are
//! installed.
//!
//! `cargo bench --bench networks -- [SIZE…] [rounds=R] [records=N] [topo] [plugin] [cni] [netavark]`; the sizes are 1, 100 and 300 and R is 7 unless said.
//! A bridge takes 1023; with `records` N more endpoints are there by their records alone. Needs util-linux, iproute2 and procps; each way has a user, network, mount and pid namespace of its own. All state is in
//! memory.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

#[path = "common/installed.rs"]
mod installed;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

const WAYS: [&str; 4] = ["topo", "plugin", "cni", "netavark"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rounds: usize = words.iter().find_map(|word| word.strip_prefix("rounds=")?.parse().ok()).unwrap_or(7);
    let records: usize = words.iter().find_map(|word| word.strip_prefix("records=")?.parse().ok()).unwrap_or(0);
    let mut sizes: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1, 100, 300];
    }
    if let Some(way) = words.first().and_then(|word| word.strip_prefix("measure-")) {
        return measure(way, &sizes, rounds, records);
    }
    let wanted: Vec<&str> = WAYS.into_iter().filter(|way| words.iter().any(|word| word == way)).collect();
    let this = installed::install();
    for way in if wanted.is_empty() { WAYS.to_vec() } else { wanted } {
        match missing(way) {
            Some(what) => println!("{way}: {what} is not installed"),
            None => in_namespaces(&this, way, &sizes, rounds, records),
        }
    }
    println!("(medians of {rounds}, in ms; ratios to the smallest network)");
}

/// Returns what a way needs and this machine doesn't have.
fn missing(way: &str) -> Option<&'static str> {
    match way {
        "cni" if plugins().is_none() => Some("a directory of CNI plugins"),
        "netavark" if netavark().is_none() => Some("netavark"),
        _ => None,
    }
}

fn plugins() -> Option<PathBuf> {
    let dirs = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].into_iter().map(PathBuf::from);
    dirs.into_iter().find(|dir| ["bridge", "host-local", "portmap"].iter().all(|name| dir.join(name).exists()))
}

fn netavark() -> Option<PathBuf> {
    let paths = ["/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"].into_iter().map(PathBuf::from);
    paths.into_iter().find(|path| path.exists())
}

/// Measures a way in namespaces that are new.
fn in_namespaces(this: &Path, way: &str, sizes: &[usize], rounds: usize, records: usize) {
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .arg(this)
        .arg(format!("measure-{way}"))
        .args(sizes.iter().map(usize::to_string))
        .args([format!("rounds={rounds}"), format!("records={records}")])
        .status();
    assert!(status.expect("unshare starts").success(), "{way} failed");
}

/// Runs a command with an input, and returns what it wrote.
fn run(mut command: Command, input: &str) -> String {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the command starts");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("its input is read");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn ip(words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    run(command, "");
}

/// A way to connect containers, the one with the number `n` with a published port or without.
struct Way {
    connect: fn(usize, bool),
    disconnect: fn(usize, bool),
}

fn topo(words: &[&str]) -> String {
    let mut command = Command::new(installed::TOPO);
    command.args(words).env("TOPO_STATE", "/run/topo");
    run(command, "")
}

const TOPO: Way = Way {
    connect: |n, published| {
        let (container, port) = (format!("c{n}"), format!("{}:80", 10_000 + n));
        let publish: &[&str] = if published { &["--publish", &port] } else { &[] };
        topo(&[&["network", "connect", "web", &container], publish].concat());
    },
    disconnect: |n, _| drop(topo(&["network", "disconnect", "web", &format!("c{n}")])),
};

/// Calls a plugin of the reference as a runtime does.
fn plugin(name: &str, verb: &str, n: usize, conf: &Value) -> String {
    let dir = plugins().expect("the plugins");
    call_plugin(Command::new(dir.join(name)), &dir, verb, n, conf)
}

fn call_plugin(mut command: Command, dir: &Path, verb: &str, n: usize, conf: &Value) -> String {
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", format!("c{n}")).env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", format!("/run/netns/c{n}")).env("CNI_PATH", dir);
    run(command, &conf.to_string())
}

/// Calls our plugin: one does what three of the reference do.
fn call_ours(verb: &str, n: usize, published: bool) {
    let mut conf = json!({ "cniVersion": "1.0.0", "name": "web", "type": "toposcript", "network": "web" });
    if published {
        conf["runtimeConfig"] =
            json!({ "portMappings": [{ "hostPort": 10_000 + n, "containerPort": 80, "protocol": "tcp" }] });
    }
    let mut command = Command::new(installed::TOPO);
    command.arg0("toposcript").env("TOPO_STATE", "/run/topo");
    call_plugin(command, Path::new("/run"), verb, n, &conf);
}

const PLUGIN: Way = Way {
    connect: |n, published| call_ours("ADD", n, published),
    disconnect: |n, published| call_ours("DEL", n, published),
};

fn bridge_conf() -> Value {
    let ipam = json!({ "type": "host-local", "dataDir": "/run/cni", "ranges": [[{ "subnet": "10.6.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] });
    json!({ "cniVersion": "0.4.0", "name": "web", "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": ipam })
}

fn portmap_conf(n: usize, result: &str) -> Value {
    let mapping = json!([{ "hostPort": 10_000 + n, "containerPort": 80, "protocol": "tcp" }]);
    let mut conf = json!({ "cniVersion": "0.4.0", "name": "web", "type": "portmap", "runtimeConfig": { "portMappings": mapping } });
    if let Ok(result) = serde_json::from_str::<Value>(result) {
        conf["prevResult"] = result;
    }
    conf
}

const CNI: Way = Way {
    connect: |n, published| {
        let result = plugin("bridge", "ADD", n, &bridge_conf());
        if published {
            plugin("portmap", "ADD", n, &portmap_conf(n, &result));
        }
    },
    disconnect: |n, published| {
        if published {
            plugin("portmap", "DEL", n, &portmap_conf(n, ""));
        }
        plugin("bridge", "DEL", n, &bridge_conf());
    },
};

/// Calls netavark as podman does. Addresses are podman's own to give.
fn call_netavark(verb: &str, n: usize, published: bool) {
    let id = format!("{n:064x}");
    let ports = if published {
        json!([{ "host_ip": "", "container_port": 80, "host_port": 10_000 + n, "range": 1, "protocol": "tcp" }])
    } else {
        Value::Null
    };
    let address = format!("10.7.{}.{}", (n + 1) / 250, (n + 1) % 250 + 2);
    let about = json!({
        "container_id": id, "container_name": format!("c{n}"), "port_mappings": ports,
        "networks": { "web": { "interface_name": "eth0", "static_ips": [address] } },
        "network_info": { "web": {
            "name": "web", "id": format!("{:064x}", 7), "driver": "bridge", "network_interface": "nv0", "internal": false, "ipv6_enabled": false,
            "dns_enabled": false, "subnets": [{ "subnet": "10.7.0.0/16", "gateway": "10.7.0.1" }], "ipam_options": { "driver": "host-local" },
        } },
    });
    let mut command = Command::new(netavark().expect("netavark"));
    command.args(["--config", "/run/netavark", verb, &format!("/run/netns/c{n}")]);
    run(command, &about.to_string());
}

const NETAVARK: Way = Way {
    connect: |n, published| call_netavark("setup", n, published),
    disconnect: |n, published| call_netavark("teardown", n, published),
};

/// Connects and disconnects one more, beside so many, and says what that takes.
fn measure(name: &str, sizes: &[usize], rounds: usize, records: usize) {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /run of our own");
    for dir in ["/run/netns", "/run/netavark", "/run/cni"] {
        std::fs::create_dir(dir).expect("a directory");
    }
    ip("link set lo up");
    let way = match name {
        "cni" => CNI,
        "netavark" => NETAVARK,
        _ => {
            topo(&["network", "create", "web", "--subnet", "10.5.0.0/16"]);
            if name == "plugin" { PLUGIN } else { TOPO }
        }
    };
    let mut connected = 0;
    let mut first: Option<[f64; 4]> = None;
    for size in sizes {
        while connected < *size {
            connected += 1;
            ip(&format!("netns add c{connected}"));
            (way.connect)(connected, false);
        }
        let times = one_more(&way, connected, rounds);
        say(name, connected, times, *first.get_or_insert(times));
    }
    if name == "topo" {
        let began = Instant::now();
        topo(&["network", "ls"]);
        let listed = began.elapsed();
        if records > 0 {
            topo(&[
                "run",
                "--name",
                "records",
                "-e",
                &RECORDS.replace("LEASED", &records.to_string()).replace("RECORDED", &records.to_string()),
            ]);
            let times = one_more(&way, connected, rounds);
            say("records", records, times, *first.get_or_insert(times));
            topo(&["down", "records"]);
        }
        let began = Instant::now();
        topo(&["network", "rm", "--force", "web"]);
        println!("{name:>8} beside {connected:>5}: network ls {listed:.1?}, rm --force {:.2?}", began.elapsed());
    }
}

/// Endpoints by their records alone: a bridge takes 1023.
const RECORDS: &str = include_str!("../tests/it/networks/simulated.rhai");

/// Connects and disconnects one more, and returns the medians, in ms: connected, disconnected, and both with a port.
fn one_more(way: &Way, connected: usize, rounds: usize) -> [f64; 4] {
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        for (at, published) in [(0, false), (2, true)] {
            let next = connected + 1;
            ip(&format!("netns add c{next}"));
            for (at, work) in [(at, way.connect), (at + 1, way.disconnect)] {
                let began = Instant::now();
                work(next, published);
                times[at].push(began.elapsed());
            }
            ip(&format!("netns del c{next}"));
        }
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    })
}

fn say(name: &str, size: usize, times: [f64; 4], base: [f64; 4]) {
    let shown = |at: usize| format!("{:>6.1} {:>5.2}", times[at], times[at] / base[at]);
    println!(
        "{name:>8} beside {size:>5}: connect {}, disconnect {}; with a port: connect {}, disconnect {}",
        shown(0),
        shown(1),
        shown(2),
        shown(3)
    );
}
