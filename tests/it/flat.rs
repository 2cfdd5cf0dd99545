//! A thousand cycles of making and removing leave the process as it was: descriptors, threads, memory.

use std::fs;
use std::time::Duration;

use super::stage::in_used_world;

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy)]
struct Weight {
    descriptors: usize,
    threads: usize,
    resident_kib: usize,
}

fn weight(pid: i32) -> Weight {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the run is there");
    let number = |key: &str| -> usize {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of /proc/PID/status");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the run's descriptors").count();
    Weight { descriptors, threads: number("Threads:"), resident_kib: number("VmRSS:") }
}

/// h1 -- up0, a thousand times in one run.
#[test]
fn a_thousand_cycles_leave_a_run_as_it_was() {
    in_used_world("", |w, _| {
        let script = r#"
            for n in 1..=1000 {
                let h = netns("h1");
                let ends = veth(h["eth0"], h["eth1"]);
                h["eth0"].addr("10.0.0.1/24");
                h.remove();
                if n == 100 || n == 1000 { print(`cycle ${n}`); host.exec("cat", #{ deadline: "20s", stdin: "" }); host.exec("read x < gate"); }
            }
        "#;
        w.run("mkfifo gate").ok();
        let running = w.start_topo(&["run", "--rm", "-e", script]);
        let mut seen = Vec::new();
        for cycle in ["cycle 100\n", "cycle 1000\n"] {
            running.wait_for_output(cycle, Duration::from_secs(58));
            seen.push(weight(running.pid()));
            w.run("echo go > gate").ok();
        }
        running.wait().ok();
        let (first, last) = (seen[0], seen[1]);
        assert_eq!(first.descriptors, last.descriptors, "{seen:?}");
        assert_eq!(first.threads, last.threads, "{seen:?}");
        assert!(last.resident_kib < first.resident_kib + 4096, "{seen:?}");
        w.run("rm gate").ok();
    });
}
