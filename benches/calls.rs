//! What calls cost: programs in a run of topo and in an engine of nothing but rhai, as ratios, measured in turn in one run.
//!
//! Run with `cargo bench --bench calls`, or `… -- rounds=1`. As root, so that no sandbox is made; nothing is changed.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

#[path = "common/installed.rs"]
mod installed;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The programs: a name, and the text.
const PROGRAMS: [(&str, &str); 6] = [
    ("push, 20000 times", "let a = []; for i in 0..20000 { a.push(i); } print(a.len());"),
    (
        "filter of 1000 maps, 100 times",
        "let a = []; for i in 0..1000 { a.push(#{ n: i, name: `x${i}`, list: [1, 2, 3] }); }
         let found = 0; for i in 0..100 { found += a.filter(|m| m.n == 5).len(); } print(found);",
    ),
    (
        "map and some of 1000 numbers, 100 times",
        "let a = []; for i in 0..1000 { a.push(i); }
         let found = 0; for i in 0..100 { if a.map(|x| x + 1).some(|x| x == 1000) { found += 1; } } print(found);",
    ),
    (
        "index and len of 1000, 50000 times",
        "let a = []; for i in 0..1000 { a.push(i); } let s = 0; for i in 0..50000 { s += a[i % a.len()]; } print(s);",
    ),
    (
        "a function of the script, 50000 times",
        "fn add(a, b) { a + b } let s = 0; for i in 0..50000 { s = add(s, i); } print(s);",
    ),
    (
        "a function that is given a list of 1000, 2000 times",
        "fn first(l, i) { l[i] } let a = []; for i in 0..1000 { a.push(i); }
         let s = 0; for i in 0..2000 { s += first(a, i % 1000); } print(s);",
    ),
];

fn run(text: &str) -> Duration {
    let state = std::env::temp_dir().join(format!("topo-bench-{}", std::process::id()));
    let mut command = Command::new(installed::TOPO);
    command.args(["run", "-e", text]).env("TOPO_STATE", &state).stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().expect("topo starts");
    let took = began.elapsed();
    assert!(status.success(), "{text} failed");
    std::fs::remove_dir_all(&state).expect("the state directory goes");
    took
}

fn bare(text: &str) -> Duration {
    let mut engine = rhai::Engine::new();
    engine.on_print(|_| {});
    let began = Instant::now();
    engine.run(text).expect("rhai runs it");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    installed::install();
    let rounds =
        std::env::args().find_map(|word| word.strip_prefix("rounds=").map(|number| number.parse().expect("a number")));
    let rounds: usize = rounds.unwrap_or(5);
    for (name, text) in PROGRAMS {
        let (mut ours, mut empty, mut floor) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            floor.push(bare(text));
            empty.push(run(""));
            ours.push(run(text));
        }
        let (ours, empty, floor) = (median(ours), median(empty), median(floor));
        let ratio = ours.saturating_sub(empty).as_secs_f64() / floor.as_secs_f64();
        println!(
            "{name}: rhai {floor:?}, topo {ours:?} of which an empty run {empty:?}, ratio {ratio:.2} (medians of {rounds})"
        );
    }
}
