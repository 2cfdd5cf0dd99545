//! The session at a prompt: what a Tab takes in a lab of 1000 namespaces, and how long a session takes to begin and end, beside
//! `python3 -c pass`.
//!
//! Run with `cargo bench --bench repl`. As root; the sessions have a network and a mount namespace of their own, by `unshare` of
//! util-linux, for which the same is measured with `true` and taken off.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

#[path = "common/installed.rs"]
mod installed;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toposcript::for_tests::{Dirs, Known, Variable, Vocabulary, complete, hint};

const ROUNDS: usize = 21;
const NETNS: usize = 1000;

fn known() -> Known {
    let variable = |n: usize| Variable {
        name: format!("host{n}"),
        kind: "Netns".into(),
        keys: Vec::new(),
        netns: Some(format!("h{n}")),
    };
    Known {
        vocabulary: Arc::new(Vocabulary::collect(&Dirs::default())),
        variables: (0..NETNS).map(variable).collect(),
        devs: (0..NETNS).map(|n| (format!("h{n}"), vec!["eth0".to_string(), "eth1".to_string()])).collect(),
        ..Known::default()
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn time(work: impl Fn()) -> Duration {
    let run = |_| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    median((0..ROUNDS).map(run).collect())
}

fn run(program: &str) {
    let status = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c"])
        .arg(format!("mount --make-rprivate / && mount -t tmpfs tmpfs /run && {program}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("unshare starts");
    assert!(status.success(), "failed: {program}");
}

fn main() {
    let known = known();
    for text in ["netns_get(\"h99", "host99", "host999.", "host999[\"", "host1.ping(\"10.0.0.1\", #{ "] {
        let (_, found) = complete(&known, text);
        let took = time(|| drop((complete(&known, text), hint(&known, text))));
        println!("{NETNS} namespaces, `{text}`: {} results in {:.3} ms", found.len(), took.as_secs_f64() * 1000.0);
    }
    let vocabulary = time(|| drop(Vocabulary::collect(&Dirs::default())));
    println!("what there is to complete, once a session: {:.1} ms", vocabulary.as_secs_f64() * 1000.0);

    installed::install();
    let topo = installed::TOPO;
    let nothing = time(|| run("true"));
    let ours = time(|| run(&format!("{topo} repl </dev/null"))).saturating_sub(nothing);
    let python = time(|| run("/usr/bin/python3 -c pass")).saturating_sub(nothing);
    let ratio = ours.as_secs_f64() / python.as_secs_f64();
    println!(
        "a session begun and ended: {ours:.1?}, `python3 -c pass`: {python:.1?}, ratio {ratio:.2} (medians of {ROUNDS})"
    );
}
