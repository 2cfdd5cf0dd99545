//! A star of N hosts and a chain of N routers: built and removed by the floor program, by `topo`, by `ip -batch`, by one `ip` a
//! command and, the star, by Mininet with Linux bridges, in turn in one run. Removal is over when the kernel has freed every
//! namespace.
//!
//! `cargo bench --bench scale -- [N] [star|chain] [floor|topo|batch|shell|mininet …] [rounds=R]`; N is 100 and all that are
//! installed are measured unless said. Needs util-linux, iproute2 and procps; Mininet is Debian's `mininet` with `bridge-utils`. Each
//! measurement has a user, network, mount and pid namespace of its own.
//!
//! `… -- [N] memory` tells by how much the memory of `topo` grows for each host of a star, from 10 to N, and how many threads it has,
//! with 1024 open files as the hard limit.
//!
//! `… -- [N] pair` runs two builds of a star side by side, by the floor program and by `topo`: each ratio is to one alone.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement prints, and stops where it can't be made"
)]

mod floor;
#[path = "../common/freed.rs"]
mod freed;
#[path = "../common/installed.rs"]
mod installed;
mod netlink;
mod ways;

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use ways::Job;

/// By what a job can be done.
const WAYS: [&str; 5] = ["floor", "topo", "batch", "shell", "mininet"];

/// What building and removing took.
#[derive(Clone, Copy)]
struct Times {
    build: Duration,
    removal: Duration,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let as_number = |n: &str| n.parse().expect("a number");
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["measure", way, job, n] => {
            let times = measure(way, Job::of(job), as_number(n));
            return println!("{} {}", times.build.as_micros(), times.removal.as_micros());
        }
        ["weigh", n] => return weigh(as_number(n)),
        ["build", job, n] => return floor::build(Job::of(job), as_number(n)).expect("the floor builds"),
        ["remove", job, n] => return floor::remove(Job::of(job), as_number(n)).expect("the floor removes"),
        _ => {}
    }
    let this = installed::install();
    let n: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(100);
    let rounds = words.iter().find_map(|word| word.strip_prefix("rounds=")?.parse().ok()).unwrap_or(3);
    let asked = |word: &&str| words.iter().any(|given| given == word);
    let jobs: Vec<&str> = ["star", "chain"].into_iter().filter(asked).collect();
    let ways: Vec<&str> = WAYS.into_iter().filter(asked).collect();
    if asked(&"memory") {
        return compare_memory(&this, n);
    }
    if asked(&"pair") {
        return compare_pairs(&this, n, rounds);
    }
    for job in if jobs.is_empty() { vec!["star", "chain"] } else { jobs } {
        compare(&this, job, n, if ways.is_empty() { &WAYS } else { &ways }, rounds);
    }
}

/// Measures the ways in turn, and prints the medians with their ratios to the first one's.
fn compare(this: &Path, job: &str, n: usize, ways: &[&str], rounds: usize) {
    let can = |way: &&str| *way != "mininet" || job == "star" && n <= ways::PORTS_EACH && ways::has_mininet();
    let ways: Vec<&str> = ways.iter().copied().filter(can).collect();
    let mut times: Vec<Vec<Times>> = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (at, way) in ways.iter().enumerate() {
            times[at].push(in_namespaces(this, way, job, n));
        }
    }
    println!("{job} of {n}: medians of {rounds}, ratios to {}", ways[0]);
    let medians: Vec<Times> = times.iter().map(|times| median(times)).collect();
    for (way, times) in ways.iter().zip(&medians) {
        let ratio = |time: Duration, to: Duration| time.as_secs_f64() / to.as_secs_f64();
        println!(
            "  {way:7} build {:>9.1?} {:>6.2}   removal {:>9.1?} {:>6.2}",
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

/// Measures one build of a star alone and two side by side, by the floor program and by `topo`.
fn compare_pairs(this: &Path, n: usize, rounds: usize) {
    println!("two stars of {n} side by side: medians of {rounds}, ratios to one alone");
    for way in ["floor", "topo"] {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            alone.push(in_namespaces(this, way, "star", n));
            let two = std::thread::scope(|scope| {
                [0, 1]
                    .map(|_| scope.spawn(|| in_namespaces(this, way, "star", n)))
                    .map(|one| one.join().expect("no panic"))
            });
            beside.extend(two);
        }
        let (alone, beside) = (median(&alone).build, median(&beside).build);
        println!(
            "  {way:7} {alone:>9.1?} alone, {beside:>9.1?} beside another {:>6.2}",
            beside.as_secs_f64() / alone.as_secs_f64()
        );
    }
}

/// Prints by how much memory grows for each host.
fn compare_memory(this: &Path, n: usize) {
    const FEW: usize = 10;
    let weighed = |n: usize| two_numbers(this, &["weigh", &n.to_string()]);
    let ((few, few_threads), (many, many_threads)) = (weighed(FEW), weighed(n));
    let each = many.saturating_sub(few) as f64 / n.saturating_sub(FEW).max(1) as f64;
    println!(
        "star of {FEW}: {few} KiB, {few_threads} threads; of {n}: {many} KiB, {many_threads} threads; {each:.1} KiB for each host"
    );
}

/// Builds a star by `topo`, and prints how much memory that took at most, in KiB, and how many threads there were.
fn weigh(n: usize) {
    own_dirs();
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024).expect("a limit of open files");
    std::fs::write("/tmp/job.rhai", ways::script(Job::Star, n)).expect("the script is written");
    let mut child = topo(&["run", "/tmp/job.rhai"]).stderr(Stdio::null()).spawn().expect("topo starts");
    let tasks = format!("/proc/{}/task", child.id());
    let mut threads = 0;
    while child.try_wait().expect("its end").is_none() {
        threads = threads.max(std::fs::read_dir(&tasks).map_or(0, Iterator::count));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().expect("its end").success(), "topo builds");
    println!("{} {threads}", getrusage(UsageWho::RUSAGE_CHILDREN).expect("its use").max_rss());
    run(&mut topo(&["down", "job"]));
}

/// Measures once, in namespaces that are new.
fn in_namespaces(this: &Path, way: &str, job: &str, n: usize) -> Times {
    let (build, removal) = two_numbers(this, &["measure", way, job, &n.to_string()]);
    Times { build: Duration::from_micros(build), removal: Duration::from_micros(removal) }
}

/// Runs this program in namespaces that are new, and returns the two numbers that it prints.
fn two_numbers(this: &Path, words: &[&str]) -> (u64, u64) {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .arg(this)
        .args(words)
        .output()
        .expect("unshare starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [one, other] => (*one, *other),
        _ => panic!("{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Builds and removes, here.
fn measure(way: &str, job: Job, n: usize) -> Times {
    own_dirs();
    let began = Instant::now();
    let mut mininet = None;
    match way {
        "floor" => itself(&["build", job.word(), &n.to_string()]),
        "topo" => {
            std::fs::write("/tmp/job.rhai", ways::script(job, n)).expect("the script is written");
            run(&mut topo(&["run", "/tmp/job.rhai"]));
        }
        "batch" => ways::sh(&ways::batch(job, n)),
        "mininet" => mininet = Some(Mininet::build(n)),
        _ => ways::sh(&ways::shell(job, n)),
    }
    let build = began.elapsed();
    match &mut mininet {
        Some(mininet) => mininet.wait_for("proved"),
        None => prove(job, n),
    }
    let began = Instant::now();
    match (way, mininet) {
        (_, Some(mininet)) => mininet.remove(),
        ("floor", _) => itself(&["remove", job.word(), &n.to_string()]),
        ("topo", _) => run(&mut topo(&["down", "job"])),
        ("batch", _) => ways::sh(&ways::batch_removal(job, n)),
        _ => ways::sh(&ways::shell_removal(job, n)),
    }
    freed::wait(0);
    Times { build, removal: began.elapsed() }
}

/// Mininet, which holds what it has built until its input ends.
struct Mininet {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Mininet {
    fn build(n: usize) -> Mininet {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", ways::MININET, &n.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut mininet = Mininet { child, lines };
        mininet.wait_for("built");
        mininet
    }

    fn wait_for(&mut self, word: &str) {
        assert!(self.lines.by_ref().map_while(Result::ok).any(|line| line == word), "Mininet says {word}");
    }

    fn remove(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("Mininet ends").success());
    }
}

/// Runs the floor program, which is this one.
fn itself(words: &[&str]) {
    run(Command::new(std::env::current_exe().expect("this program")).args(words));
}

fn topo(words: &[&str]) -> Command {
    let mut command = Command::new(installed::TOPO);
    command.args(words).env("TOPO_STATE", "/run/topo");
    command
}

fn own_dirs() {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /run of our own");
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a /tmp of our own");
    std::fs::create_dir("/run/netns").expect("/run/netns");
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Shows that it is the network that was asked for, in what the kernel has by default or not, and that it works from its first to its
/// last node; a chain as far as the hop limit lets it.
fn prove(job: Job, n: usize) {
    ways::sh(match job {
        Job::Star => "ip -j -d link show dev sw0 | grep -q '\"mcast_snooping\":1,'",
        Job::Chain => {
            "test \"$(ip netns exec h2 sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding | xargs)\" = '1 1'"
        }
    });
    let to = match job {
        Job::Star => ways::text(ways::host_address(n.min(ways::PORTS_EACH) - 1)),
        Job::Chain => format!("10.{}.{}.2", n.min(60) / 256, n.min(60) % 256),
    };
    if job == Job::Chain && n > 60 {
        return;
    }
    ways::sh(&format!("ip netns exec h1 ping -c 1 -W 5 -q {to} >&2"));
}
