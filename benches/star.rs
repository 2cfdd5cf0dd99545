//! A star of N hosts, built and taken down by `topo run --rm` and by one `ip` command a step, measured in turn in one run.
//!
//! Run with `cargo bench --bench star` (N = 100) or `cargo bench --bench star -- 1000`. As root; each build has a network, mount
//! and pid namespace of its own, by `unshare` of util-linux, whose own time is measured and taken off.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;

/// The star in our language. The same objects as `shell`.
fn script(n: usize) -> String {
    format!(
        r#"
let lan = net("10.0.0.0/8");
let sw = bridge("sw0");
sw.addr(lan.cidr(1));
for i in 1..={n} {{
    let h = netns(`h${{i}}`);
    veth(h["eth0"], sw);
    h["eth0"].addr(lan.cidr(i + 1));
    h.route("default", #{{ via: lan.host(1) }});
}}
"#
    )
}

/// The star by one `ip` a step, in place: the best that a shell script can do without batches.
fn shell(n: usize) -> String {
    format!(
        r"set -e
ip link add sw0 type bridge
ip addr add 10.0.0.1/8 dev sw0
for i in $(seq 1 {n}); do
    ip netns add h$i
    ip link add h$i-eth0 master sw0 type veth peer name eth0 netns h$i
    ip -n h$i link set dev lo up
    ip -n h$i link set dev eth0 up
    ip link set dev h$i-eth0 up
    ip -n h$i addr add 10.0.$(((i + 1) / 256)).$(((i + 1) % 256))/8 dev eth0
    ip -n h$i route add default via 10.0.0.1
done
ip link set dev sw0 up
for i in $(seq 1 {n}); do ip netns delete h$i; done
ip link delete sw0
"
    )
}

/// Runs a shell script in namespaces of its own.
fn time(body: &str) -> Duration {
    let body = format!("mount --make-rprivate / && mount -t tmpfs tmpfs /run && ip link set lo up\n{body}");
    let began = Instant::now();
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", &body])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("unshare starts");
    assert!(status.success(), "failed:\n{body}");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let n = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(100);
    let file = std::env::temp_dir().join(format!("topo-star-{}.rhai", std::process::id()));
    std::fs::write(&file, script(n)).expect("the script is written");
    let topo = Path::new(env!("CARGO_BIN_EXE_topo"));
    let ours = format!("{} run --rm {}", topo.display(), file.display());
    let (mut empty, mut by_topo, mut by_ip) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        empty.push(time("true"));
        by_topo.push(time(&ours));
        by_ip.push(time(&shell(n)));
    }
    std::fs::remove_file(&file).expect("the script goes");
    let empty = median(empty);
    let (by_topo, by_ip) = (median(by_topo).saturating_sub(empty), median(by_ip).saturating_sub(empty));
    let ratio = by_ip.as_secs_f64() / by_topo.as_secs_f64();
    println!(
        "star of {n}, up and down: topo {by_topo:.1?}, one ip a step {by_ip:.1?}, ratio {ratio:.1} (medians of {ROUNDS})"
    );
}
