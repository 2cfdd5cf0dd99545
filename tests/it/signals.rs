//! Ctrl-C and its kin: the run ends, everything is undone, the exit code says why; a second one doesn't break the undo.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::stage::in_used_world;

const SOON: Duration = Duration::from_secs(20);

/// Runs a script that says when it is there, then sends it signals.
fn interrupted(options: &[&str], waits: &str, signals: &[Signal], code: i32) {
    in_used_world("", |w, before| {
        let script = format!(r#"let h = netns("h1"); veth(h["eth0"], "up0"); settle(); print("there"); {waits}"#);
        let args: Vec<&str> = ["run", "--name", "lab"].iter().chain(options).copied().chain(["-e", &script]).collect();
        let running = w.start_topo(&args);
        running.wait_for_output("there", SOON);
        signals.iter().for_each(|signal| running.signal(*signal));
        running.wait().fails(code);
        w.assert_clean(before);
    });
}

#[test]
fn ctrl_c_ends_an_endless_loop() {
    interrupted(&[], "loop {}", &[Signal::SIGINT], 130);
}

#[test]
fn ctrl_c_ends_a_command() {
    interrupted(&[], r#"h.exec("sleep 60");"#, &[Signal::SIGINT], 130);
}

#[test]
fn ctrl_c_ends_a_ping() {
    interrupted(&[], r#"h.ping("127.0.0.1", #{ count: 1000, interval: "1s" });"#, &[Signal::SIGINT], 130);
}

#[test]
fn ctrl_c_ends_a_check_that_waits() {
    interrupted(&[], r#"check_within("never", "1m", || false);"#, &[Signal::SIGINT], 130);
}

#[test]
fn ctrl_c_is_not_for_the_script_to_catch() {
    interrupted(&[], r#"loop { try { h.exec("sleep 60"); } catch { } }"#, &[Signal::SIGINT], 130);
}

#[test]
fn terminate_says_143() {
    interrupted(&[], r#"h.exec("sleep 60");"#, &[Signal::SIGTERM], 143);
}

#[test]
fn more_of_them_do_not_break_the_undo() {
    let many = [Signal::SIGINT, Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    interrupted(&[], r#"h.exec("sleep 60");"#, &many, 130);
}

#[test]
fn a_sandbox_ends_with_its_run() {
    interrupted(&["--sandbox"], r#"h.exec("sleep 60");"#, &[Signal::SIGINT], 130);
    interrupted(&["--sandbox"], "loop {}", &[Signal::SIGTERM], 143);
}

/// SIGKILL gives no time to undo: the next `gc` does it, and says what it was.
#[test]
fn a_killed_run_is_collected() {
    in_used_world("", |w, before| {
        let script = r#"let h = netns("h1"); veth(h["eth0"], "up0"); settle(); print("there"); h.exec("sleep 60");"#;
        let running = w.start_topo(&["run", "--name", "lab", "-e", script]);
        running.wait_for_output("there", SOON);
        running.signal(Signal::SIGKILL);
        running.wait().fails(137);
        let listed = w.topo(&["ls"]).ok();
        assert!(listed.out().contains("dead"), "{}", listed.out());
        w.topo(&["run", "--name", "lab", "-e", "netns(\"x\")"])
            .fails(1)
            .says("a run that died left it behind")
            .says("topo gc");
        w.topo(&["gc"]).ok().says("removed lab `lab`");
        w.assert_clean(before);
    });
}

/// The process that started a sandbox is killed: the sandbox ends with all that is in it.
#[test]
fn a_sandbox_does_not_outlive_a_killed_run() {
    in_used_world("", |w, before| {
        let script = r#"let h = netns("h1"); settle(); print("there"); h.exec("sleep 60");"#;
        let running = w.start_topo(&["run", "--sandbox", "--name", "lab", "-e", script]);
        running.wait_for_output("there", SOON);
        running.signal(Signal::SIGKILL);
        running.wait().fails(137);
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// a: built by one run while another builds b; a third wants a as well.
#[test]
fn two_runs_at_once_and_one_too_many() {
    in_used_world("", |w, _| {
        let script = |netns: &str| {
            format!(r#"let h = netns("{netns}"); settle(); print("there"); h.exec("cat /dev/zero >/dev/null");"#)
        };
        let first = w.start_topo(&["run", "--name", "a", "-e", &script("h1")]);
        first.wait_for_output("there", SOON);
        let second = w.start_topo(&["run", "--name", "b", "-e", &script("h2")]);
        second.wait_for_output("there", SOON);
        w.topo(&["run", "--name", "a", "-e", &script("h3")]).fails(1).says("make lab `a`").says("is at work on it");
        w.topo(&["down", "a"]).fails(1).says("lock lab `a`");
        w.topo(&["gc"]).ok();
        assert!(w.run("ip netns list").ok().out().contains("h1"), "gc leaves what is being built");
        for running in [first, second] {
            running.signal(Signal::SIGINT);
            running.wait().fails(130);
        }
    });
}
