//! Probes and the servers that they ask: a server lives and dies with its lab, Ctrl-C ends whatever a probe waits for.

use nix::sys::signal::Signal;

use super::stage::in_used_world;

const SERVING: &str = r#"
    let h = netns("h1");
    h.serve("http", 80);
    h.serve("echo", 7, #{ proto: "udp" });
    check("it answers", h.http("http://127.0.0.1/", #{ deadline: "30s" }));
"#;

/// The run is over and the server goes on; `down` ends it, and nothing is left.
#[test]
fn a_server_outlives_the_run_and_not_the_lab() {
    in_used_world("", |w, before| {
        w.topo(&["run", "--name", "web", "-e", SERVING]).ok();
        let seen = w.run("ip netns exec h1 curl --silent --max-time 30 http://127.0.0.1/x").ok();
        seen.says(r#""name":"h1""#).says(r#""client_ip":"127.0.0.1""#).says(r#""path":"/x""#);
        w.topo(&["down", "web"]).ok();
        w.assert_clean(before);
    });
}

/// In a sandbox too, where the program is another one's child.
#[test]
fn a_server_of_a_sandbox() {
    in_used_world("", |w, before| {
        w.topo(&["run", "--sandbox", "--name", "web", "-e", SERVING]).ok();
        w.topo(&["exec", "web/h1", "curl", "--silent", "--max-time", "30", "http://127.0.0.1/"]).ok().says(r#""h1""#);
        w.topo(&["down", "web"]).ok();
        w.assert_clean(before);
    });
}

/// A server that somebody kills is no hindrance to anything.
#[test]
fn a_server_that_was_killed() {
    in_used_world("", |w, before| {
        w.topo(&["run", "--name", "web", "-e", SERVING]).ok();
        // Its supervisor takes it along, perhaps before its own turn comes.
        w.run("kill -KILL $(ip netns pids h1) || :").ok();
        w.topo(&["down", "web"]).ok();
        w.assert_clean(before);
    });
}

/// A run that is killed leaves its servers to `gc`.
#[test]
fn a_run_that_was_killed_leaves_its_servers_to_gc() {
    in_used_world("", |w, before| {
        w.run("mkfifo ready").ok();
        let script = format!("{SERVING} host.exec(\"echo >ready\"); loop {{}}");
        let running = w.start_topo(&["run", "--name", "web", "-e", &script]);
        w.run("cat ready; rm ready").ok();
        running.signal(Signal::SIGKILL);
        running.wait();
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// What is said to 192.0.2.1 vanishes without a word.
const VANISHING: &str = r#"
    let h = netns("h");
    let k = netns("k");
    veth(h["eth0"], k["eth0"]);
    h["eth0"].addr("192.0.2.9/24");
    h.neigh("192.0.2.1", #{ dev: h["eth0"], mac: "02:00:00:00:00:01" });
    k["lo"].addr("192.0.2.1/32");
    settle();
    host.exec("echo >ready");
"#;

/// Each probe, with a deadline that nobody waits for.
const PROBES: [&str; 9] = [
    r#"h.tcp("192.0.2.1:80", #{ deadline: "600s" });"#,
    r#"h.udp("192.0.2.1:80", #{ deadline: "600s" });"#,
    r#"h.http("http://192.0.2.1/", #{ deadline: "600s" });"#,
    r#"h.trace("192.0.2.1", #{ deadline: "600s" });"#,
    r#"h.mtu("192.0.2.1", #{ deadline: "600s" }); loop {}"#,
    r#"k.sees(h, #{ to: "192.0.2.1:80", deadline: "600s" });"#,
    r#"throughput(h, h, #{ time: "600s" });"#,
    r#"throughput(h, h, #{ time: "600s", proto: "udp" });"#,
    r#"ping_all([h, k], #{ deadline: "600s" });"#,
];

/// Ctrl-C ends each of them at once, threads and all, and everything is taken back.
#[test]
fn ctrl_c_ends_every_probe() {
    in_used_world("", |w, before| {
        for probe in PROBES {
            println!("{probe}");
            w.run("mkfifo ready").ok();
            let running = w.start_topo(&["run", "--name", "lab", "-e", &format!("{VANISHING}{probe}")]);
            w.run("cat ready; rm ready").ok();
            running.signal(Signal::SIGINT);
            let ran = running.wait().fails(130);
            assert!(!ran.err().contains("panicked"), "{}", ran.err());
            w.assert_clean(before);
        }
    });
}
