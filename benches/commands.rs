//! The commands that look at labs, enter them and take them down: `topo exec` in a large lab beside `ip netns exec`, and `ls`,
//! `show` and `down` of a small lab beside one other lab and beside many.
//!
//! `cargo bench --bench commands -- [N] [others=M] [rounds=R]`; N, the namespaces of the large lab, is 1000, M is 200 and R is 21 unless
//! said. Needs util-linux, iproute2 and procps; each part has a user, network, mount and pid namespace of its own.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

#[path = "common/freed.rs"]
mod freed;
#[path = "common/installed.rs"]
mod installed;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

/// A lab of two hosts on a cable.
const OTHER: &str = r#"
let left = netns("LAB-left");
let right = netns("LAB-right");
veth(left["eth0"], right["eth0"]);
left["eth0"].addr("10.0.0.1/24");
right["eth0"].addr("10.0.0.2/24");
"#;

/// What the small lab does before, as one with NAT: a setting that labs share.
const FORWARDS: &str = "host.forward(true);";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let given = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
    let n: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1000);
    let (others, rounds) = (given("others").unwrap_or(200), given("rounds").unwrap_or(21));
    match words.first().map(String::as_str) {
        Some("measure-exec") => measure_exec(n, rounds),
        Some("measure-others") => measure_others(others, rounds),
        _ => {
            let this = installed::install();
            for part in ["measure-exec", "measure-others"] {
                in_namespaces(&this, &[part, &n.to_string(), &format!("others={others}"), &format!("rounds={rounds}")]);
            }
        }
    }
}

/// Runs a part of this program in namespaces that are new.
fn in_namespaces(this: &Path, words: &[&str]) {
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .arg(this)
        .args(words)
        .status();
    assert!(status.expect("unshare starts").success(), "{words:?} failed");
}

fn own_run() {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /run of our own");
    std::fs::create_dir("/run/netns").expect("/run/netns");
}

fn topo(words: &[&str]) -> Command {
    let mut command = Command::new(installed::TOPO);
    command.args(words).env("TOPO_STATE", "/run/topo");
    command
}

fn time(mut command: Command) -> Duration {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let took = began.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ratio(time: Duration, to: Duration) -> f64 {
    time.as_secs_f64() / to.as_secs_f64()
}

/// Runs `true` in a namespace of a lab of `n`, by `topo` and by `ip`, in turn.
fn measure_exec(n: usize, rounds: usize) {
    own_run();
    // In lines of two, so that no bridge is too small.
    let script = format!(
        r#"for i in 1..={n} {{
    let h = netns(`h${{i}}`);
    if i % 2 == 0 {{
        veth(h["eth0"], netns_get(`h${{i - 1}}`)["eth0"]);
        h["eth0"].addr(`10.${{i / 256}}.${{i % 256}}.1/24`);
    }}
}}
"#
    );
    time(topo(&["run", "--name", "large", "-e", &script]));
    let (mut ours, mut plain, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let name = format!("h{}", 1 + round * 37 % n);
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &name, "/bin/true"]);
        theirs.push(time(ip));
        ours.push(time(topo(&["exec", &format!("large/{name}"), "/bin/true"])));
        plain.push(time(topo(&["exec", &name, "/bin/true"])));
    }
    let first = ours[0];
    let (ours, plain, theirs) = (median(ours), median(plain), median(theirs));
    println!("in a lab of {n} namespaces (medians of {rounds}, ratios to `ip netns exec`)");
    println!("  ip netns exec NETNS      {theirs:>9.1?}");
    println!("  topo exec LAB/NETNS      {ours:>9.1?} {:>6.2}   the first {first:.1?}", ratio(ours, theirs));
    println!("  topo exec NETNS          {plain:>9.1?} {:>6.2}", ratio(plain, theirs));
    time(topo(&["down", "large"]));
}

/// Looks at a small lab, and takes it down, beside one other lab and then beside many.
fn measure_others(others: usize, rounds: usize) {
    own_run();
    let mut before: Option<[Duration; 4]> = None;
    println!("a small lab beside others (medians of {rounds}, ratios to one other)");
    let mut built = 0;
    for count in [1, others] {
        while built < count {
            built += 1;
            let name = format!("other{built}");
            time(topo(&["run", "--name", &name, "-e", &OTHER.replace("LAB", &name)]));
        }
        let mut times: [Vec<Duration>; 4] = Default::default();
        for _ in 0..rounds {
            times[0].push(time(topo(&[
                "run",
                "--name",
                "small",
                "-e",
                &(FORWARDS.to_string() + &OTHER.replace("LAB", "small")),
            ])));
            times[1].push(time(topo(&["show", "small"])));
            times[2].push(time(topo(&["ls"])));
            times[3].push(time(topo(&["down", "small"])));
            // What the kernel still has to do for it is not the next one's.
            freed::wait(2 * count);
        }
        let medians = times.map(median);
        for (what, at) in [("run", 0), ("show LAB", 1), ("ls", 2), ("down LAB", 3)] {
            let against = before.map_or(String::new(), |before| format!("{:>6.2}", ratio(medians[at], before[at])));
            println!("  {count:>4} others, topo {what:9} {:>9.1?} {against}", medians[at]);
        }
        let grown = before.map(|before| medians[2].saturating_sub(before[2]) / (others.max(2) - 1) as u32);
        if let Some(grown) = grown {
            println!("  `topo ls` takes {grown:.1?} for each lab more");
        }
        before = Some(medians);
    }
    time(topo(&["down", "--all"]));
}
