//! The same networks by other means: our script, `ip -batch`, one `ip` a command.

use std::fmt::Write;
use std::process::Command;

/// A network to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Hosts on one bridge, with a default route.
    Star,
    /// Routers in a row between two hosts.
    Chain,
}

impl Job {
    /// Returns the job of that word.
    pub(crate) fn of(word: &str) -> Job {
        if word == "star" { Job::Star } else { Job::Chain }
    }

    /// Returns its word.
    pub(crate) fn word(self) -> &'static str {
        if self == Job::Star { "star" } else { "chain" }
    }
}

/// How many hosts are on one bridge: the kernel allows 1023 ports.
pub(crate) const PORTS_EACH: usize = 1000;

/// How many bridges a star of `n` hosts has.
pub(crate) fn bridges(n: usize) -> usize {
    n.div_ceil(PORTS_EACH)
}

/// Returns the address of a bridge.
pub(crate) fn gateway(bridge: usize) -> [u8; 4] {
    [10, u8::try_from(bridge).unwrap_or(0), 0, 1]
}

/// Returns the address of a host of a star, counted from 0.
pub(crate) fn host_address(i: usize) -> [u8; 4] {
    let [high, low] = u16::try_from(i % PORTS_EACH + 2).unwrap_or(0).to_be_bytes();
    [10, u8::try_from(i / PORTS_EACH).unwrap_or(0), high, low]
}

/// Returns an address as text.
pub(crate) fn text(ip: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(ip).to_string()
}

/// Our script of a job.
pub(crate) fn script(job: Job, n: usize) -> String {
    match job {
        Job::Star => format!(
            r#"for b in 0..{bridges} {{
    let lan = net(`10.${{b}}.0.0/16`);
    let sw = bridge(`sw${{b}}`);
    sw.addr(lan.cidr(1));
    for i in 0..min({PORTS_EACH}, {n} - b * {PORTS_EACH}) {{
        let h = netns(`h${{b * {PORTS_EACH} + i + 1}}`);
        veth(h["eth0"], sw);
        h["eth0"].addr(lan.cidr(i + 2));
        h.route("default", #{{ via: lan.host(1) }});
    }}
}}
"#,
            bridges = bridges(n)
        ),
        Job::Chain => format!(
            r#"let last = {n} + 1;
let before = ();
for i in 0..=last {{
    let node = netns(`h${{i + 1}}`);
    if i > 0 {{
        let link = net(`10.${{(i - 1) / 256}}.${{(i - 1) % 256}}.0/24`);
        veth(node["left"], before["right"]);
        node["left"].addr(link.cidr(2));
        before["right"].addr(link.cidr(1));
    }}
    before = node;
}}
for i in 0..=last {{
    let node = netns_get(`h${{i + 1}}`);
    let left = `10.${{(i - 1) / 256}}.${{(i - 1) % 256}}.1`;
    let right = `10.${{i / 256}}.${{i % 256}}.2`;
    if i == 0 {{
        node.route("default", #{{ via: right }});
    }} else if i == last {{
        node.route("default", #{{ via: left }});
    }} else {{
        node.forward(true);
        if i > 1 {{ node.route("10.0.0.0/24", #{{ via: left }}); }}
        if i < last - 1 {{ node.route(`10.${{(last - 1) / 256}}.${{(last - 1) % 256}}.0/24`, #{{ via: right }}); }}
    }}
}}
"#
        ),
    }
}

/// The commands of `ip` for a job: the namespace that each is of (the host's if there is none), and its words.
fn commands(job: Job, n: usize) -> Vec<(Option<usize>, String)> {
    let mut commands: Vec<(Option<usize>, String)> = Vec::new();
    let last = n + 1;
    let on_link = |k: usize, end: usize| format!("10.{}.{}.{end}", k / 256, k % 256);
    match job {
        Job::Star => {
            for b in 0..bridges(n) {
                commands.push((None, format!("link add sw{b} type bridge mcast_snooping 0")));
                commands.push((None, format!("addr add {}/16 dev sw{b}", text(gateway(b)))));
            }
            for i in 1..=n {
                let b = (i - 1) / PORTS_EACH;
                commands.push((None, format!("link add h{i}-eth0 numtxqueues 1 numrxqueues 1 up master sw{b} type veth peer name eth0 numtxqueues 1 numrxqueues 1 netns h{i}")));
                commands.push((Some(i), "link set dev lo up".into()));
                commands.push((Some(i), "link set dev eth0 up".into()));
                commands.push((Some(i), format!("addr add {}/16 dev eth0", text(host_address(i - 1)))));
                commands.push((Some(i), format!("route add default via {}", text(gateway(b)))));
            }
            for b in 0..bridges(n) {
                commands.push((None, format!("link set dev sw{b} type bridge mcast_snooping 1")));
                commands.push((None, format!("link set dev sw{b} up")));
            }
        }
        Job::Chain => {
            for i in 0..=last {
                let name = i + 1;
                commands.push((Some(name), "link set dev lo up".into()));
                if i > 0 {
                    commands.push((Some(name), format!("link add left numtxqueues 1 numrxqueues 1 up type veth peer name right numtxqueues 1 numrxqueues 1 netns h{i}")));
                    commands.push((Some(name), format!("addr add {}/24 dev left", on_link(i - 1, 2))));
                    commands.push((Some(i), "link set dev right up".into()));
                    commands.push((Some(i), format!("addr add {}/24 dev right", on_link(i - 1, 1))));
                }
            }
            for i in 0..=last {
                let name = i + 1;
                if i == 0 {
                    commands.push((Some(name), format!("route add default via {}", on_link(0, 2))));
                } else if i == last {
                    commands.push((Some(name), format!("route add default via {}", on_link(n, 1))));
                } else {
                    if i > 1 {
                        commands.push((Some(name), format!("route add 10.0.0.0/24 via {}", on_link(i - 1, 1))));
                    }
                    if i < n {
                        commands.push((Some(name), format!("route add {}/24 via {}", on_link(n, 0), on_link(i, 2))));
                    }
                }
            }
        }
    }
    commands
}

/// How many namespaces a job has.
pub(crate) fn namespaces(job: Job, n: usize) -> usize {
    if job == Job::Star { n } else { n + 2 }
}

/// Which namespaces forward.
fn routers(job: Job, n: usize) -> std::ops::RangeInclusive<usize> {
    #[expect(clippy::reversed_empty_ranges, reason = "a star has none")]
    if job == Job::Star { 1..=0 } else { 2..=n + 1 }
}

/// One `ip` a command.
pub(crate) fn shell(job: Job, n: usize) -> String {
    let mut text = String::from("set -e\n");
    for i in 1..=namespaces(job, n) {
        let _ = writeln!(text, "ip netns add h{i}");
    }
    for (netns, words) in commands(job, n) {
        let _ = match netns {
            Some(netns) => writeln!(text, "ip -n h{netns} {words}"),
            None => writeln!(text, "ip {words}"),
        };
    }
    for i in routers(job, n) {
        let _ = writeln!(text, "ip netns exec h{i} sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }
    text
}

/// All commands of a namespace by one `ip -batch`.
pub(crate) fn batch(job: Job, n: usize) -> String {
    let mut text = String::from("set -e\nip -batch - <<END\n");
    for i in 1..=namespaces(job, n) {
        let _ = writeln!(text, "netns add h{i}");
    }
    text.push_str("END\n");
    let commands = commands(job, n);
    // Links first, those of a namespace together: the rest needs them on both ends.
    for links in [true, false] {
        for netns in std::iter::once(None).chain((1..=namespaces(job, n)).map(Some)) {
            let mine = commands.iter().filter(|(of, words)| *of == netns && words.starts_with("link add") == links);
            let words: String = mine.map(|(_, words)| format!("{words}\n")).collect();
            if !words.is_empty() {
                let whose = netns.map_or(String::new(), |netns| format!("-n h{netns} "));
                let _ = write!(text, "ip {whose}-batch - <<END\n{words}END\n");
            }
        }
    }
    for i in routers(job, n) {
        let _ = writeln!(text, "ip netns exec h{i} sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }
    text
}

/// Removes what a shell has built.
pub(crate) fn shell_removal(job: Job, n: usize) -> String {
    let names = (1..=namespaces(job, n)).map(|i| format!("ip netns delete h{i}\n"));
    names.chain(bridge_removal(job, n).map(|line| format!("ip {line}"))).collect()
}

/// Removes it by one `ip -batch`.
pub(crate) fn batch_removal(job: Job, n: usize) -> String {
    let names: String = (1..=namespaces(job, n)).map(|i| format!("netns delete h{i}\n")).collect();
    let bridges: String = bridge_removal(job, n).collect();
    format!("ip -batch - <<END\n{names}{bridges}END\n")
}

fn bridge_removal(job: Job, n: usize) -> impl Iterator<Item = String> {
    (0..if job == Job::Star { bridges(n) } else { 0 }).map(|b| format!("link delete sw{b}\n"))
}

/// Runs a shell script; it must succeed.
pub(crate) fn sh(script: &str) {
    let file = std::env::temp_dir().join("script.sh");
    std::fs::write(&file, script).expect("the script is written");
    let output = Command::new("sh").arg(&file).output().expect("sh starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A star by Mininet; it goes once its input ends. Without `fixLimits`, which changes settings of the host.
pub(crate) const MININET: &str = r#"
import sys
import mininet.net
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge

mininet.net.fixLimits = lambda: None
net = Mininet(switch=LinuxBridge, controller=None)
switch = net.addSwitch("sw0")
for i in range(1, int(sys.argv[1]) + 1):
    ip = f"10.0.{(i + 1) // 256}.{(i + 1) % 256}/16"
    net.addLink(net.addHost(f"h{i}", ip=ip, defaultRoute="via 10.0.0.1"), switch)
net.start()
print("built", flush=True)
last = net.hosts[-1].IP()
assert ", 0% packet loss" in net.hosts[0].cmd(f"ping -c 1 -W 5 -q {last}")
print("proved", flush=True)
sys.stdin.read()
net.stop()
"#;

/// Tells whether Mininet and what it needs for a Linux bridge are installed.
pub(crate) fn has_mininet() -> bool {
    let asked = Command::new("/usr/bin/python3").args(["-c", "import mininet.net"]).output();
    asked.is_ok_and(|output| output.status.success()) && Command::new("brctl").arg("--version").output().is_ok()
}
