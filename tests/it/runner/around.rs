//! What is around the tests: Ctrl-C, kept labs, many at once, sandboxes side by side.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{as_root, as_user, timeless};
use crate::stage::{KILLED, in_used_world};
use crate::world::World;

const BUSY: &str = r#"
    fn test_a() { }
    fn test_busy() {
        veth(netns("h")["eth0"], bridge("br0"));
        host.exec("echo >ready; sleep 1000");
    }
    fn test_later() { }
"#;

fn start_busy(w: &World, options: &[&str]) -> crate::world::Running {
    w.write("t.rhai", BUSY);
    w.run("mkfifo ready").ok();
    let running = w.start_topo(&[&["test", "-j1"], options, &["t.rhai"]].concat());
    w.run("cat ready; rm ready").ok();
    running
}

/// Ctrl-C ends what runs, and what ran is told.
#[test]
fn interrupted() {
    as_root(|w| {
        let running = start_busy(w, &[]);
        running.signal(Signal::SIGINT);
        let ran = running.wait().fails(130);
        let told =
            "ok    t.rhai::test_a  (T s)\nstop  t.rhai::test_busy  (T s)\n1 passed, 1 interrupted, 1 not run in T s\n";
        assert_eq!(timeless(ran.out()), told);
    });
    as_user(|w| {
        let running = start_busy(w, &["--tap"]);
        running.signal(Signal::SIGTERM);
        assert!(running.wait().fails(143).out().ends_with("Bail out! interrupted\n"));
        let running = start_busy(w, &["--json"]);
        running.signal(Signal::SIGINT);
        let ran = running.wait().fails(130);
        let report: Value = serde_json::from_str(ran.out()).expect("JSON");
        assert!(report["interrupted"] == true && report["ok"] == false && report["not_run"] == 2, "{report:#}");
    });
}

/// A runner that is killed takes its tests with it; `gc` removes what it kept of them.
#[test]
fn killed() {
    in_used_world("", |w, before| {
        let running = start_busy(w, &[]);
        running.signal(Signal::SIGKILL);
        running.wait().fails(KILLED);
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// A kept lab is one like any other: it can be looked at, gone on with and taken down.
#[test]
fn kept() {
    let life = |w: &World| {
        w.write("t.rhai", "fn test_it() { let h = netns(\"h\"); veth(h[\"eth0\"], bridge(\"br0\")); h.start(\"echo hello; sleep 1000\", #{ name: \"p\", ready: \"hello\" }); assert(false); }\n");
        let ran = w.topo(&["test", "--keep", "t.rhai"]).fails(1);
        ran.says("its lab is kept as `t.test_it`").says("topo exec t.test_it/NETNS COMMAND");
        w.topo(&["ls"]).ok().says("t.test_it").says("up (sandbox)");
        w.topo(&["show", "t.test_it"]).ok().says("-- h/eth0");
        w.topo(&["exec", "t.test_it/h", "ip", "-br", "link"]).ok().says("eth0");
        w.topo(&["logs", "t.test_it"]).ok().says("hello");
        w.topo_stdin("netns(\"more\"); print(\"in\")\n", &["repl", "t.test_it"]).ok().says("in");
        w.topo(&["exec", "t.test_it/more", "true"]).ok();
        // The next one has another name.
        w.topo(&["test", "--keep", "t.rhai"]).fails(1).says("its lab is kept as `t.test_it-2`");
        w.topo(&["gc"]).ok();
        w.topo(&["down", "--all"]).ok();
        // Of a test that was ended, too.
        w.write("t.rhai", "fn test_it() { netns(\"h\").exec(\"true\"); host.exec(\"kill -9 $PPID\"); }\n");
        w.topo(&["test", "--keep", "t.rhai"]).fails(1).says("its lab is kept as `t.test_it`");
        w.topo(&["exec", "t.test_it/h", "true"]).ok();
        w.topo(&["down", "t.test_it"]).ok();
    };
    as_root(life);
    as_user(life);
}

/// Fifty files, all with the same names of everything, many at once.
#[test]
fn many_at_once() {
    as_root(|w| {
        for n in 0..50 {
            let text = format!(
                "fn test_ping() {{\n    let h = netns(\"h1\");\n    let br = bridge(\"br0\");\n    \
                 veth(h[\"eth0\"], br);\n    br.addr(\"10.0.0.1/24\");\n    h[\"eth0\"].addr(\"10.0.0.2/24\");\n    \
                 assert(h.ping(\"10.0.0.1\"));\n    print({n});\n}}\n"
            );
            w.write(&format!("tests/t{n}.rhai"), &text);
        }
        let running = w.start_topo(&["test", "-j8"]);
        running.wait_for_output(" passed in ", Duration::from_secs(300));
        running.wait().ok().says("50 passed in ");
    });
}

/// Runs in sandboxes see nothing of each other, whatever names they give.
#[test]
fn sandboxes_side_by_side() {
    as_root(|w| {
        let script = "let h = netns(\"h1\"); veth(h[\"eth0\"], bridge(\"br0\")); h[\"eth0\"].addr(\"10.0.0.2/24\"); \
                      assert_eq(host.exec(\"ls /run/netns\").stdout, \"h1\\n\"); assert(h.ping(\"10.0.0.2\"));";
        let start = |n: usize| {
            let name = format!("side-{n}");
            w.start_topo(&["run", "--sandbox", "--rm", "--name", &name, "-e", script])
        };
        let running: Vec<_> = (0..8).map(start).collect();
        running.into_iter().for_each(|running| drop(running.wait().ok()));
    });
}
