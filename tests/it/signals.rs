//! Signals: Ctrl-C and SIGTERM end a run wherever it is, and all that it made is taken back; SIGKILL leaves it to `gc`.

use nix::sys::signal::Signal;

use super::stage::{KILLED, build, in_used_user_world, in_used_world};
use super::tier::spread;
use super::world::{Running, Snapshot, World};

/// What a run is busy with when the signal comes; each says `ready` in its own way just before.
const BUSY: [(&str, &str); 12] = [
    ("exec in a netns", r#"h.exec("echo >ready; sleep 60");"#),
    ("exec on the host", r#"host.exec("echo >ready; sleep 60");"#),
    ("exec of a program", r#"host.exec("echo >ready"); h.exec(["sleep", "60"]);"#),
    ("exec that ignores SIGTERM", r#"h.exec("trap '' TERM INT; echo >ready; sleep 60; sleep 60");"#),
    ("a process that never gets ready", r#"h.start("echo >ready; exec sleep 60", #{ ready: 80, deadline: "60s" });"#),
    ("the wait for a process", r#"let p = h.start("echo >ready; sleep 60"); p.wait();"#),
    (
        "the stop of a process",
        r#"let p = h.start("trap 'trap \"\" TERM; echo >ready' TERM; echo up; while :; do sleep 1; done", #{ ready: "up" }); p.stop(#{ deadline: "60s" });"#,
    ),
    ("a loop", r#"host.exec("echo >ready"); loop {}"#),
    (
        "a function that calls itself",
        r#"fn f(n) { if n > 0 { f(n - 1); f(n - 1); } } host.exec("echo >ready"); f(50);"#,
    ),
    ("ping", r#"host.exec("echo >ready"); h.ping("192.0.2.1", #{ count: 1000, interval: "100ms", deadline: "60s" });"#),
    ("check_within", r#"host.exec("echo >ready"); check_within("never", "60s", || false);"#),
    ("check_within that looks", r#"host.exec("echo >ready"); check_within("never", "60s", || h.exec("false"));"#),
];

const LAB: &str = r#"
    let h = netns("h");
    veth(h["eth0"], bridge("br0"));
    h["eth0"].addr("192.0.2.9/24");
    h.exec("sleep 1000 >/dev/null 2>&1 &");
"#;

/// Starts a run that is busy, and returns when it is.
fn start_busy(w: &World, options: &[&str], busy: &str) -> Running {
    println!("{busy}");
    w.run("mkfifo ready").ok();
    let script = format!("{LAB}{busy}");
    let running = w.start_topo(&[&["run", "--name", "lab"], options, &["-e", &script]].concat());
    w.run("cat ready; rm ready").ok();
    running
}

fn interrupted(w: &World, before: &Snapshot, options: &[&str], signal: Signal, busy: &str) {
    let running = start_busy(w, options, busy);
    running.signal(signal);
    let ran = running.wait().fails(128 + signal as i32);
    assert!(!ran.err().contains("panicked"), "{}", ran.err());
    w.assert_clean(before);
}

/// SIGINT, whatever the run is busy with: exit code 130, all undone.
#[test]
fn sigint_takes_everything_back() {
    in_used_world("", |w, before| {
        BUSY.iter().for_each(|(_, busy)| interrupted(w, before, &[], Signal::SIGINT, busy));
    });
}

/// SIGTERM likewise: 143.
#[test]
fn sigterm_takes_everything_back() {
    in_used_world("", |w, before| {
        spread(BUSY, 4).iter().for_each(|(_, busy)| interrupted(w, before, &[], Signal::SIGTERM, busy));
    });
}

/// A script can't catch Ctrl-C, and what it asks for after it is not made.
#[test]
fn an_interruption_is_not_caught() {
    in_used_world("", |w, before| {
        for busy in [
            r#"loop { try { host.exec("echo >ready; sleep 60"); } catch (e) { host.exec("touch caught"); } }"#,
            r#"try { host.exec("echo >ready"); loop {} } catch (e) { host.exec("touch caught"); loop {} }"#,
            r#"try { host.exec("echo >ready"); check_within("never", "60s", || false); } catch { bridge("br9"); settle(); loop {} }"#,
        ] {
            interrupted(w, before, &[], Signal::SIGINT, busy);
            assert!(!w.dir().join("caught").exists(), "{busy}");
        }
    });
}

/// With `--keep`, what was built stays; `down` then takes it.
#[test]
fn an_interrupted_run_is_kept_if_asked_for() {
    in_used_world("", |w, before| {
        let running = start_busy(w, &["--keep"], r#"host.exec("echo >ready; sleep 60");"#);
        running.signal(Signal::SIGINT);
        running.wait().fails(130).says("topo down lab");
        w.ip("-n h link show eth0");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// Signals during the undo change nothing: it runs to its end. The process in the namespace ignores SIGTERM and tells when
/// it gets one, so the undo is under way then.
#[test]
fn a_second_signal_does_not_stop_the_undo() {
    in_used_world("", |w, before| {
        for (first, second) in
            [(Signal::SIGINT, Signal::SIGINT), (Signal::SIGINT, Signal::SIGTERM), (Signal::SIGTERM, Signal::SIGINT)]
        {
            w.run("mkfifo undoing").ok();
            let busy = r#"h.exec("(trap 'echo >undoing' TERM; echo >ready; while :; do sleep 1; done) >/dev/null 2>&1 &"); loop {}"#;
            let running = start_busy(w, &[], busy);
            running.signal(first);
            w.run("cat undoing; rm undoing").ok();
            running.signal(second);
            running.signal(Signal::SIGHUP);
            running.wait().fails(128 + first as i32);
            w.assert_clean(before);
        }
    });
}

/// SIGKILL, whatever the run is busy with: `gc` takes everything back, processes included.
#[test]
fn sigkill_leaves_it_to_gc() {
    in_used_world("", |w, before| {
        for (_, busy) in spread(BUSY, 4) {
            let running = start_busy(w, &[], busy);
            running.signal(Signal::SIGKILL);
            running.wait().fails(KILLED);
            w.topo(&["ls"]).ok().says("dead");
            build(w, "lab", "netns(\"x\");").fails(1).says("a run that died left it behind").says("topo gc");
            w.topo(&["gc"]).ok().says("removed lab `lab`");
            w.assert_clean(before);
        }
    });
}

/// The same in a sandbox, as root and as an ordinary user: the signal reaches the run inside, and the sandbox ends with it.
#[test]
fn a_sandbox_ends_with_its_run() {
    fn all(w: &World, before: &Snapshot) {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            for (_, busy) in spread(BUSY, 3) {
                interrupted(w, before, &["--sandbox"], signal, busy);
            }
        }
    }
    in_used_world("", all);
    in_used_user_world("", all);
}

/// Killed, the run leaves its sandbox to end by itself, and its record to `gc`.
#[test]
fn a_sandbox_ends_with_its_killed_run() {
    fn all(w: &World, before: &Snapshot) {
        for (_, busy) in spread(BUSY, 3) {
            let running = start_busy(w, &["--sandbox"], busy);
            running.signal(Signal::SIGKILL);
            running.wait().fails(KILLED);
            w.topo(&["gc"]).ok();
            w.assert_clean(before);
        }
    }
    in_used_world("", all);
    in_used_user_world("", all);
}

/// Ctrl-C before anything was made, and while waiting for standard input, ends it too.
#[test]
fn an_early_signal_is_heard() {
    in_used_world("", |w, before| {
        w.run("mkfifo ready").ok();
        let running = w.start_topo(&["run", "-e", r#"host.exec("echo >ready"); loop {}"#]);
        w.run("cat ready; rm ready").ok();
        running.signal(Signal::SIGINT);
        running.wait().fails(130);
        w.assert_clean(before);
    });
}

/// Commands that wait for a lock which a run holds: each signal ends them at once, with its own exit code, and nothing is changed.
#[test]
fn a_command_that_waits_ends_by_a_signal() {
    in_used_world("ip netns add n; ip netns add m", |w, before| {
        w.topo(&["network", "create", "web", "--subnet", "10.5.0.0/24"]).ok();
        w.topo(&["network", "connect", "web", "n"]).ok();
        let up = w.snapshot();
        w.run("mkfifo ready").ok();
        let script =
            r#"with_lock("network/web", || { host.exec("echo >ready"); check_within("never", "60s", || false); });"#;
        let holder = w.start_topo(&["run", "--rm", "-e", script]);
        w.run("cat ready; rm ready").ok();
        let catching = r#"try { with_lock("network/web", || 1); } catch (e) { }"#;
        let commands: [(&[&str], Signal); 8] = [
            (&["network", "connect", "web", "m"], Signal::SIGINT),
            (&["network", "connect", "web", "m"], Signal::SIGTERM),
            (&["network", "connect", "web", "m"], Signal::SIGHUP),
            (&["network", "disconnect", "web", "n"], Signal::SIGINT),
            (&["network", "rm", "--force", "web"], Signal::SIGTERM),
            (&["network", "repair", "web"], Signal::SIGHUP),
            (&["network", "restore", "web"], Signal::SIGINT),
            (&["run", "--rm", "-e", catching], Signal::SIGTERM),
        ];
        for (command, signal) in commands {
            let waiting = w.start_topo(command);
            w.run("until grep -q -- '-> FLOCK' /proc/locks; do sleep 0.02; done").ok();
            waiting.signal(signal);
            waiting.wait().fails(128 + signal as i32).says("lock `locks/network/web`: the run was interrupted");
        }
        holder.signal(Signal::SIGINT);
        holder.wait().fails(130);
        w.assert_clean(&up);
        w.topo(&["network", "rm", "--force", "web"]).ok();
        w.assert_clean(before);
    });
}

/// Commands that show or run something until they are ended, and one that takes down: each ends with the signal's own exit code. What a
/// removal had still to do, the next one does.
#[test]
fn commands_end_with_the_code_of_their_signal() {
    in_used_world("ip netns add n", |w, before| {
        w.run("mkfifo told").ok();
        // It ignores SIGTERM, and tells when it gets one: the removal is under way then.
        let stubborn = r#"trap 'trap \"\" TERM; echo >told' TERM; echo up; while :; do sleep 1; done"#;
        let lab = format!(r#"netns("h"); netns_get("n").start("{stubborn}", #{{ ready: "up", name: "p" }});"#);
        w.topo(&["run", "--name", "lab", "-e", &lab]).ok();
        let commands: [&[&str]; 2] =
            [&["exec", "lab/h", "sh", "-c", "echo up; exec sleep 60"], &["logs", "lab", "p", "--follow"]];
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            for command in commands {
                let running = w.start_topo(command);
                running.wait_for_output("up", std::time::Duration::from_secs(10));
                running.signal(signal);
                running.wait().fails(128 + signal as i32);
            }
        }
        let removal = w.start_topo(&["down", "lab"]);
        w.run("cat told; rm told").ok();
        removal.signal(Signal::SIGINT);
        removal.wait().fails(130);
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}
