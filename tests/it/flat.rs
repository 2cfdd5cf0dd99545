//! A long life: what a run makes and removes a thousand times leaves nothing in its own process either.

use std::fs;
use std::time::{Duration, Instant};

use super::stage::in_used_world;
use super::tier::full;
use super::world::World;

/// What a process has, as `/proc` tells it.
#[derive(Debug)]
struct Load {
    descriptors: usize,
    threads: usize,
    rss_kib: u64,
}

impl Load {
    fn of(pid: i32) -> Load {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("a process of ours").count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for it");
        let rss_kib = rss.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        Load { descriptors: count("fd"), threads: count("task"), rss_kib }
    }

    fn held(&self) -> (usize, usize) {
        (self.descriptors, self.threads)
    }
}

/// Looks at the process at its next stop, and lets it go on.
fn at_stop(w: &World, pid: i32) -> Load {
    w.run("cat stop").ok();
    let begun = Instant::now();
    while !is_idle(pid) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never waits for its command");
        std::thread::yield_now();
    }
    let load = Load::of(pid);
    w.run("echo >go").ok();
    load
}

/// Tells whether all threads sleep: the command runs before the process has closed what it needed to start it, and a thread
/// that was joined may still be listed for a moment.
fn is_idle(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('S'))
    })
}

/// 1000 times, or 200 in the fast tier, in one process: a netns with a cable to the host, an address, a ping, and all of it removed.
#[test]
fn a_thousand_cycles_leave_a_process_as_it_was() {
    const MOST_KIB: u64 = 4096;
    let cycles = if full() { 1000 } else { 200 };
    in_used_world("mkfifo stop go", |w, before| {
        let script = &r#"
            for n in 1..=CYCLES {
                let h = netns("h");
                veth(h["eth0"], "up0");
                h["eth0"].addr("10.0.0.1/24");
                assert(h.ping("10.0.0.1").ok);
                h.remove();
                if n == 100 || n == CYCLES { host.exec("echo >stop; cat go"); }
            }"#
        .replace("CYCLES", &cycles.to_string());
        let running = w.start_topo(&["run", "--rm", "-e", script]);
        let pid = running.pid();
        let (early, late) = (at_stop(w, pid), at_stop(w, pid));
        println!("{early:?} {late:?}");
        running.wait().ok();
        assert_eq!(late.held(), early.held());
        assert!(late.rss_kib <= early.rss_kib + MOST_KIB, "from {} to {} KiB", early.rss_kib, late.rss_kib);
        w.assert_clean(before);
    });
}

/// 300 commands, or 100 in the fast tier, refused settlings and probes in one process leave no descriptor and no thread.
#[test]
fn commands_and_refusals_leave_a_process_as_it_was() {
    in_used_world("mkfifo stop go", |w, before| {
        let times = if full() { 300 } else { 100 };
        let script = &r#"
            let h = netns("h");
            for n in 1..=TIMES {
                h.exec("true");
                try { h.exec(["/no/such/program"]); } catch (e) { }
                try { h.exec("sleep 10", #{ deadline: "1ms" }); } catch (e) { assert(e.kind == "timeout"); }
                try { h.route("default", #{ via: "192.0.2.1" }); netns("x"); settle(); } catch (e) { }
                h.ping("127.0.0.1");
                if n == 50 || n == TIMES { host.exec("echo >stop; cat go"); }
            }"#
        .replace("TIMES", &times.to_string());
        let running = w.start_topo(&["run", "--rm", "-e", script]);
        let pid = running.pid();
        let (early, late) = (at_stop(w, pid), at_stop(w, pid));
        println!("{early:?} {late:?}");
        running.wait().ok();
        assert_eq!(late.held(), early.held());
        w.assert_clean(before);
    });
}
