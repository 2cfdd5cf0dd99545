//! How long `ping_all` takes for all pairs of the hosts on one bridge.
//!
//! `cargo bench --bench pings -- [N] [rounds=R]`; N is 100 and R is 5 unless said. Needs util-linux; the lab is in user, network, mount and
//! pid namespaces of its own.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

use std::process::Command;

use nix::mount::{MsFlags, mount};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let n: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(100);
    let rounds: usize = words.iter().find_map(|word| word.strip_prefix("rounds=")?.parse().ok()).unwrap_or(5);
    if words.first().is_some_and(|word| word == "measure") {
        measure(n, rounds);
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["measure", &n.to_string(), &format!("rounds={rounds}")])
        .status();
    assert!(status.expect("unshare starts").success(), "the measurement failed");
}

fn measure(n: usize, rounds: usize) {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /run of our own");
    std::fs::create_dir("/run/netns").expect("/run/netns");
    // The library's check of all pairs is measured beside the primitive.
    let script = format!(
        r#"import "segment" as segment;
import "expect" as expect;
let lan = segment::create("lan", #{{ subnet: "10.0.0.0/16", hosts: {n} }});
let names = lan.names;
let of = lan.hosts;
let hosts = names.map(|name| of[name]);
for round in 0..{rounds} {{
    let all = ping_all(hosts);
    print(`ping_all ${{all.time_ms}} ${{all.pairs}} ${{all.sent}} ${{all.lost}}`);
}}
let began = timestamp();
assert(expect::all_pairs(#{{ ends: lan.names, hosts: lan.hosts, nodes: #{{}}, ip: lan.ip, ip6: #{{}} }}));
print(`all_pairs ${{began.elapsed * 1000.0}} 0 0 0`);
"#
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_topo"));
    let output = command.args(["run", "--rm", "-e", &script]).env("TOPO_STATE", "/run/topo").output();
    let output = output.expect("topo starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let mut times = Vec::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, ms, pairs, sent, lost] = words.as_slice() else { continue };
        let ms: f64 = ms.parse().expect("milliseconds");
        match *what {
            "ping_all" => {
                assert_eq!(*lost, "0", "{line}");
                println!("ping_all of {pairs} pairs: {ms:.0} ms, {sent} echoes sent");
                times.push(ms);
            }
            _ => println!("expect::all_pairs of {n} hosts: {ms:.0} ms"),
        }
    }
    times.sort_by(f64::total_cmp);
    println!("ping_all of {n} hosts on one bridge: {:.0} ms (median of {rounds})", times[times.len() / 2]);
}
