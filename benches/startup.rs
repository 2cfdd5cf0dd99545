//! How long `topo run` of an empty script takes, as a ratio to `/bin/true`, measured in turn in one run.
//!
//! Run with `cargo bench --bench startup`. As root, so that no sandbox is made; nothing is changed.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

#[path = "common/installed.rs"]
mod installed;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 200;

fn time(command: &mut Command) -> Duration {
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("the command starts");
    assert!(status.success(), "{command:?} failed");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let state = std::env::temp_dir().join(format!("topo-bench-{}", std::process::id()));
    installed::install();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(time(&mut Command::new("/bin/true")));
        ours.push(time(Command::new(installed::TOPO).args(["run", "-e", ""]).env("TOPO_STATE", &state)));
    }
    std::fs::remove_dir_all(&state).expect("the state directory goes");
    let (ours, floor) = (median(ours), median(floor));
    let ratio = ours.as_secs_f64() / floor.as_secs_f64();
    println!("/bin/true {floor:?}, topo run of an empty script {ours:?}, ratio {ratio:.1} (medians of {ROUNDS})");
}
