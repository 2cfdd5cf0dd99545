//! A star of N hosts and a chain of N routers: built and removed by the floor program, by `topo`, by `ip -batch` and by one `ip` a
//! command, in turn in one run. Removal is over when the kernel has freed every namespace.
//!
//! `cargo bench --bench scale -- [N] [star|chain] [floor|topo|batch|shell …] [rounds=R]`; N is 100 and all of them are measured
//! unless said. Needs util-linux, iproute2 and procps; each measurement has a user, network, mount and pid namespace of its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement prints, and stops where it can't be made"
)]

mod floor;
mod netlink;
mod ways;

use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ways::Job;

/// By what a job can be done.
const WAYS: [&str; 4] = ["floor", "topo", "batch", "shell"];

/// What building and removing took.
#[derive(Clone, Copy)]
struct Times {
    build: Duration,
    removal: Duration,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [first, way, job, n] = words.as_slice()
        && first == "measure"
    {
        let job = if job == "star" { Job::Star } else { Job::Chain };
        let times = measure(way, job, n.parse().expect("a number"));
        println!("{} {}", times.build.as_micros(), times.removal.as_micros());
        return;
    }
    let n: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(100);
    let rounds = words.iter().find_map(|word| word.strip_prefix("rounds=")?.parse().ok()).unwrap_or(3);
    let asked = |word: &&str| words.iter().any(|given| given == word);
    let jobs: Vec<&str> = ["star", "chain"].into_iter().filter(asked).collect();
    let ways: Vec<&str> = WAYS.into_iter().filter(asked).collect();
    for job in if jobs.is_empty() { vec!["star", "chain"] } else { jobs } {
        compare(job, n, if ways.is_empty() { &WAYS } else { &ways }, rounds);
    }
}

/// Measures the ways in turn, and prints the medians with their ratios to the first one's.
fn compare(job: &str, n: usize, ways: &[&str], rounds: usize) {
    let mut times: Vec<Vec<Times>> = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (at, way) in ways.iter().enumerate() {
            times[at].push(in_namespaces(way, job, n));
        }
    }
    println!("{job} of {n}: medians of {rounds}, ratios to {}", ways[0]);
    let medians: Vec<Times> = times.iter().map(|times| median(times)).collect();
    for (way, times) in ways.iter().zip(&medians) {
        let ratio = |time: Duration, to: Duration| time.as_secs_f64() / to.as_secs_f64();
        println!(
            "  {way:6} build {:>9.1?} {:>6.2}   removal {:>9.1?} {:>6.2}",
            times.build,
            ratio(times.build, medians[0].build),
            times.removal,
            ratio(times.removal, medians[0].removal),
        );
    }
}

fn median(times: &[Times]) -> Times {
    let middle = |of: fn(&Times) -> Duration| {
        let mut sorted: Vec<Duration> = times.iter().map(of).collect();
        sorted.sort();
        sorted[sorted.len() / 2]
    };
    Times { build: middle(|times| times.build), removal: middle(|times| times.removal) }
}

/// Measures once, in namespaces that are new.
fn in_namespaces(way: &str, job: &str, n: usize) -> Times {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .arg(this)
        .args(["measure", way, job, &n.to_string()])
        .output()
        .expect("unshare starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let mut numbers = said.split_whitespace().filter_map(|word| word.parse().ok()).map(Duration::from_micros);
    match (numbers.next(), numbers.next()) {
        (Some(build), Some(removal)) => Times { build, removal },
        _ => panic!("{way}, {job} of {n}: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Builds and removes, here.
fn measure(way: &str, job: Job, n: usize) -> Times {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /run of our own");
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /tmp of our own");
    std::fs::create_dir("/run/netns").expect("/run/netns");
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("limits");
    let began = Instant::now();
    let built = match way {
        "floor" => {
            nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).expect("more files");
            let built = if job == Job::Star { floor::star(n) } else { floor::chain(n) };
            Some(built.expect("the floor builds"))
        }
        "topo" => {
            std::fs::write("/tmp/job.rhai", ways::script(job, n)).expect("the script is written");
            topo(&["run", "/tmp/job.rhai"]);
            None
        }
        "batch" => {
            ways::sh(&ways::batch(job, n));
            None
        }
        _ => {
            ways::sh(&ways::shell(job, n));
            None
        }
    };
    let build = began.elapsed();
    assert!(soft <= hard);
    prove(job, n);
    let began = Instant::now();
    match (way, built) {
        (_, Some(built)) => built.remove().expect("the floor removes"),
        ("topo", _) => topo(&["down", "job"]),
        ("batch", _) => ways::sh(&ways::batch_removal(job, n)),
        _ => ways::sh(&ways::shell_removal(job, n)),
    }
    wait_freed();
    Times { build, removal: began.elapsed() }
}

fn topo(words: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_topo")).args(words).env("TOPO_STATE", "/run/topo").output();
    let output = output.expect("topo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Shows that the network works from its first to its last node; a chain as far as the hop limit lets it.
fn prove(job: Job, n: usize) {
    let to = match job {
        Job::Star => format!("10.0.{}.{}", (n + 1) / 256, (n + 1) % 256),
        Job::Chain => format!("10.{}.{}.2", n.min(60) / 256, n.min(60) % 256),
    };
    if job == Job::Chain && n > 60 {
        return;
    }
    ways::sh(&format!("ip netns exec h1 ping -c 1 -W 5 -q {to} >&2"));
}

/// Waits until no namespace is left but this one: as long as one is charged, no other one fits under the limit.
fn wait_freed() {
    std::fs::write("/proc/sys/user/max_net_namespaces", "2").expect("the limit of this user namespace");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let made = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().expect("no panic");
        match made {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < deadline, "namespaces stay: {error}"),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}
