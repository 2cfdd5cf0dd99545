//! Processes that run beside the script: they stay with the lab, and end with it, however it ends.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::stage::{KILLED, build, in_used_user_world, in_used_world};
use super::tier::{full, points};
use super::world::{Running, World};

/// A server, one that hides from everything but its parent and the control group, and one that has ended.
const SERVERS: &str = r#"
    let h = netns("h");
    h.start("echo serving; exec sleep 1111", #{ ready: "serving", name: "server" });
    h.start("env -i setsid unshare --net sleep 2222 & echo started; exec sleep 3333", #{ ready: "started", name: "hider" });
    h.start("trap '' TERM; echo stubborn; while :; do sleep 1; done", #{ ready: "stubborn", name: "stubborn" });
    h.start("(exec sleep 4444) & exit 0", #{ name: "daemon" });
    h.start("echo done; exit 3", #{ name: "done" }).wait();
"#;

/// Starts a run that builds `SERVERS` and then stays busy.
fn start_run(w: &World) -> Running {
    w.run("mkfifo ready").ok();
    let script = format!(r#"{SERVERS} host.exec("echo >ready; sleep 60");"#);
    let running = w.start_topo(&["run", "--name", "lab", "-e", &script]);
    w.run("cat ready; rm ready").ok();
    running
}

/// Returns how many processes run the command.
fn count(w: &World, command: &str) -> String {
    w.run(&format!("pgrep -fxc '{command}'")).out().trim().to_owned()
}

/// Waits, for as long as the world's commands may take, until nobody runs the command any more.
fn gone(w: &World, command: &str) {
    w.run(&format!("while pgrep -fx '{command}' >/dev/null; do sleep 0.05; done")).ok();
}

/// Kills the supervisor of the process `name` in the netns `h`.
fn kill_supervisor(w: &World, name: &str) {
    w.run(&format!("pkill -KILL -f '^topo __supervise [^ ]* h/{name}$'")).ok();
}

/// Left up, they run on without the run; `down` ends them all.
#[test]
fn they_live_and_end_with_the_lab() {
    in_used_world("", |w, before| {
        build(w, "lab", SERVERS).ok();
        for command in ["sleep 1111", "sleep 2222", "sleep 3333", "sleep 4444"] {
            assert_eq!(count(w, command), "1", "{command}");
        }
        let shown = w.topo(&["show", "lab"]).ok();
        for line in ["server    in h  pid ", "done      in h  pid "] {
            shown.says(line);
        }
        let state = |name: &str| {
            let line = shown.out().lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
            line.rsplit("  ").next().unwrap_or_default().to_owned()
        };
        assert_eq!([state("server"), state("daemon"), state("done")], ["running", "running", "exit code 3"]);
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A run that fails ends them, and so does `--rm`.
#[test]
fn they_end_with_the_run() {
    in_used_world("", |w, before| {
        build(w, "lab", &format!("{SERVERS} throw 1;")).fails(1);
        w.assert_clean(before);
        w.topo(&["run", "--rm", "-e", SERVERS]).ok();
        w.assert_clean(before);
    });
}

/// A run that is killed leaves them to `gc`.
#[test]
fn a_killed_run_leaves_them_to_gc() {
    in_used_world("", |w, before| {
        let running = start_run(w);
        running.signal(Signal::SIGKILL);
        running.wait().fails(KILLED);
        assert_eq!(count(w, "sleep 1111"), "1");
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// A supervisor that is killed takes its process along; whoever hid is found by the control group.
#[test]
fn a_killed_supervisor_leaves_nobody_to_down() {
    in_used_world("", |w, before| {
        build(w, "lab", SERVERS).ok();
        kill_supervisor(w, "server");
        kill_supervisor(w, "hider");
        gone(w, "sleep 1111");
        gone(w, "sleep 3333");
        w.topo(&["show", "lab"]).ok().says("killed with its supervisor");
        if w.run("grep -q cgroup2 /proc/self/mountinfo").code == 0 {
            assert_eq!(count(w, "sleep 2222"), "1", "it hid");
        } else {
            // What nothing can find is not left in a world without control groups either, for the next test's sake.
            w.run("pkill -KILL -fx 'sleep 2222'").ok();
        }
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// Everything of ours killed at once, the journal lost: `gc` goes by the marks.
#[test]
fn they_are_found_by_their_marks() {
    in_used_world("", |w, before| {
        build(w, "lab", SERVERS).ok();
        w.run("pkill -KILL -f '^topo __supervise'; rm -r $TOPO_STATE/labs/lab").ok();
        w.topo(&["gc"]).ok();
        if w.run("grep -q cgroup2 /proc/self/mountinfo").code != 0 {
            w.run("pkill -KILL -fx 'sleep [24]+'").ok();
        }
        w.assert_clean(before);
    });
}

/// In an ordinary user's sandbox they live on too, their logs can be read from outside, and they end with the sandbox.
#[test]
fn they_live_in_a_sandbox() {
    in_used_user_world("", |w, before| {
        build(w, "lab", SERVERS).ok();
        w.topo(&["logs", "lab", "server"]).ok().says("serving");
        w.topo(&["show", "lab"]).ok().says("running");
        w.topo(&["exec", "lab/h", "pgrep", "-fx", "sleep 1111"]).ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// Logs: of all with their names, of one alone, the last lines, as JSON; a wrong name is told with the right ones.
#[test]
fn logs_are_shown() {
    in_used_world("", |w, _| {
        let two = r#"
            let (a, b) = (netns("a"), netns("b"));
            a.start("seq 5", #{ name: "web" }).wait();
            b.start("echo b >&2", #{ name: "web" }).wait();
            b.start("true", #{ name: "idle" }).wait();"#
            .replace("let (a, b) = (netns(\"a\"), netns(\"b\"));", "let a = netns(\"a\"); let b = netns(\"b\");");
        build(w, "lab", &two).ok();
        let out = |words: &[&str]| w.topo(&[&["logs", "lab"], words].concat()).ok().out().to_owned();
        assert_eq!(out(&["a/web", "--lines", "2"]), "4\n5\n");
        assert_eq!(out(&["--lines", "1"]), "a/web | 5\nb/web | b\n");
        assert_eq!(out(&["--follow", "b/web"]), "b\n");
        assert_eq!(out(&["idle"]), "");
        let json: serde_json::Value = serde_json::from_str(&out(&["--json"])).expect("JSON");
        assert_eq!((&json[1]["name"], &json[1]["log"], &json[1]["code"]), (&"web".into(), &"b\n".into(), &0.into()));
        w.topo(&["logs", "lab", "web"]).fails(1).says("say which: `a/web`, `b/web`");
        w.topo(&["logs", "lab", "wob"]).fails(1).says("did you mean `web`?");
        w.topo(&["logs", "lba"]).fails(1).says("did you mean `lab`?");
        w.topo(&["down", "lab"]).ok();
        w.topo(&["run", "--name", "lab", "-e", "netns(\"h\");"]).ok();
        w.topo(&["logs", "lab"]).ok().says("has started no process");
        w.topo(&["down", "lab"]).ok();
    });
}

/// `--follow` shows what comes, and ends with the process, or with the lab.
#[test]
fn a_log_is_followed() {
    in_used_world("", |w, _| {
        w.run("mkfifo go").ok();
        build(w, "lab", r#"netns("h").start("echo one; read x <go; echo two; exit 3", #{ name: "p" });"#).ok();
        let following = w.start_topo(&["logs", "lab", "--follow"]);
        w.run("echo >go").ok();
        assert_eq!(following.wait().ok().out(), "one\ntwo\n");
        w.topo(&["down", "lab"]).ok();
        build(w, "lab", r#"netns("h").start("echo one; exec sleep 1000");"#).ok();
        let following = w.start_topo(&["logs", "lab", "--follow"]);
        following.wait_for_output("one", Duration::from_secs(60));
        w.topo(&["down", "lab"]).ok();
        following.wait().ok();
        w.run("rm go").ok();
    });
}

/// A flood does not fill the disk, and is not waited for.
#[test]
fn a_flood_is_bounded() {
    in_used_world("", |w, _| {
        build(w, "lab", r#"let p = netns("h").start("yes"); check_within("much is written", "60s", || p.log().contains("dropped"));"#).ok();
        let kept =
            w.run("cat $TOPO_STATE/labs/lab/processes/*.log* | wc -c").out().trim().parse::<u64>().expect("bytes");
        assert!(kept <= 5 * (256 << 10), "{kept}");
        w.topo(&["down", "lab"]).ok();
    });
}

/// Names of nodes are known in the lab, and only there; the user's own files for a netns come first.
#[test]
fn nodes_are_known_by_their_names() {
    let lab = r#"
        let h1 = netns("h1");
        let h2 = netns("a-host-with-a-name-longer-than-any-device");
        veth(h1["eth0"], h2["eth0"]);
        h1["eth0"].addr("10.0.0.1/24").addr("fd00::1/64");
        h2["eth0"].addr("10.0.0.2/24").addr("fd00::2/64");
        h1.resolver("10.0.0.2", #{ search: "lab.example" });
        let p = h1.start("while ! grep -q late /etc/hosts; do sleep 0.05; done");
        let late = netns("late");
        late["lo"].addr("10.0.0.3/32");
        late.exec("true");
        assert(p.wait(#{ deadline: "60s" }).ok, "what runs already sees it too");
    "#;
    in_used_world("mkdir -p /run/etc-netns", |w, _| {
        let before = w.run("cat /etc/hosts /etc/resolv.conf").out().to_owned();
        build(w, "lab", lab).ok();
        let ask = |netns: &str, words: &[&str]| w.topo(&[&["exec", netns], words].concat()).ok().out().to_owned();
        let name = "a-host-with-a-name-longer-than-any-device";
        assert!(ask("h1", &["getent", "ahostsv4", name]).starts_with("10.0.0.2 "));
        assert!(ask("h1", &["getent", "ahostsv6", name]).starts_with("fd00::2 "));
        assert!(ask(name, &["getent", "ahostsv4", "h1"]).starts_with("10.0.0.1 "));
        assert!(ask("h1", &["getent", "hosts", "localhost"]).contains("localhost"));
        assert_eq!(ask("h1", &["cat", "/etc/resolv.conf"]), "search lab.example\nnameserver 10.0.0.2\n");
        assert_eq!(w.run("cat /etc/hosts /etc/resolv.conf").out(), before, "the host keeps its own");
        assert_eq!(ask("host", &["cat", "/etc/hosts", "/etc/resolv.conf"]), before);
        w.topo(&["down", "lab"]).ok();
    });
}

/// Returns the numbers in the lines of a file.
fn numbers(w: &World, file: &str) -> Vec<u64> {
    let text = w.run(&format!("cat {file}")).ok().stdout.clone();
    text.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

/// What a lab keeps of processes that have ended does not grow with their number: files, journal, descriptors, control groups. Those that
/// the script or their name still tells apart stay.
#[test]
fn finished_processes_give_way() {
    let many = if full() { 400 } else { 130 };
    // What is left of a journal that was being written anew is in nobody's way.
    let script = r#"
        let h = netns("h");
        let first = h.start("echo first");
        first.wait();
        h.start("echo served", #{ name: "server" }).wait();
        for n in 1..=MANY {
            h.start(["true"]).wait();
            h.start(["true"], #{ name: "job" }).wait();
            try { h.start(["/no/such/program"]); } catch (e) { assert(e.kind == "missing"); }
            if n == 50 || n == MANY {
                host.exec("P=$PPID; cd $TOPO_STATE/labs/ended; (ls processes | wc -l; stat -c %s journal; ls /proc/$P/fd | wc -l; \
                    find /sys/fs/cgroup -maxdepth 2 -name 'topo:*:ended:*' 2>/dev/null | wc -l) >>$HOME/counts; echo torn >journal.new");
            }
        }
        assert(first.log() == "first\n" && first.wait().ok && !first.running);
    "#
    .replace("MANY", &many.to_string());
    in_used_world("", |w, _| {
        w.run("rm -f $HOME/counts").ok();
        build(w, "ended", &script).ok();
        let counts = numbers(w, "$HOME/counts");
        let (early, late) = counts.split_at(counts.len() / 2);
        println!("{early:?} {late:?}");
        let most = |what: usize, more: u64| assert!(late[what] <= early[what] + more, "{early:?} {late:?}");
        most(0, 40);
        most(1, 12 << 10);
        // The command may run before what started it is closed.
        most(2, 4);
        most(3, 0);
        let out = |name: &str| w.topo(&["logs", "ended", name]).ok().out().to_owned();
        assert_eq!((out("echo"), out(&format!("true-{many}"))), ("first\n".to_owned(), String::new()));
        w.topo(&["logs", "ended", "true-7"]).fails(1).says("of those that have ended the last 32 are kept");
        w.topo(&["ls"]).ok().says("up");
        w.topo(&["repair", "ended"]).ok();
        w.run("rm $HOME/counts").ok();
        w.topo(&["down", "ended"]).ok();
    });
}

/// A process that runs is never forgotten, however many start and end after it, nor one that ended after them.
#[test]
fn those_that_run_are_not_forgotten() {
    in_used_world("mkfifo go", |w, _| {
        let script = r#"
            let h = netns("h");
            h.start("exec sleep 1111");
            h.start("echo late; read x <go", #{ name: "late" });
            for n in 0..60 { h.start(["true"]).wait(); }
            let running = h.start(["sleep", "1112"]);
            h.exec("echo >go");
            for n in 0..20 { h.start(["true"]).wait(); }
            assert(running.running);
        "#;
        build(w, "lab", script).ok();
        assert_eq!((count(w, "sleep 1111"), count(w, "sleep 1112")), ("1".to_owned(), "1".to_owned()));
        assert_eq!(w.topo(&["logs", "lab", "late"]).ok().out(), "late\n");
        w.topo(&["show", "lab"]).ok().says("sleep    in h  pid");
        w.topo(&["down", "lab"]).ok();
        w.run("rm go").ok();
    });
}

/// Killed, or refused, wherever finished processes are being forgotten: the lab is whole, its other logs can be read, and it goes.
#[test]
fn forgetting_is_cut_short_anywhere() {
    in_used_world("", |w, before| {
        build(w, "lab", r#"let h = netns("h"); for n in 1..=48 { h.start(`echo ${n}`).wait(); }"#).ok();
        w.run("cp -a state/labs/lab saved").ok();
        w.write("session.rhai", "netns_get(\"h\").start([\"true\"]).wait();\n");
        let session =
            |fault: &str| w.run(&format!("TOPO_FAULT={fault} {} repl lab <session.rhai 2>&1", w.program().display()));
        for point in points("forgetting") {
            for fault in ["kill", "fail"] {
                let ran = session(&format!("{fault}:{point}"));
                assert_eq!(w.topo(&["logs", "lab", "echo-48"]).ok().out(), "48\n", "{fault} at {point}");
                w.topo(&["show", "lab"]).ok().says("echo-47");
                if fault == "kill" && ran.code != KILLED {
                    w.run("rm -r saved session.rhai").ok();
                    w.topo(&["down", "lab"]).ok();
                    w.assert_clean(before);
                    return;
                }
                // Nothing is in the way of the next one.
                session("").ok().says("");
                w.run("rm -r state/labs/lab && cp -a saved state/labs/lab").ok();
            }
        }
    });
}

/// A session goes back behind processes that were forgotten since.
#[test]
fn a_session_goes_back_behind_forgotten_processes() {
    in_used_world("", |w, _| {
        let lines = r#"
let h = netns("h");
for n in 0..60 { h.start(["true"]).wait(); }
let x = netns("x"); for n in 0..60 { x.start(["true"]).wait(); }
:undo
h.exec(["true"]).ok
:undo
:undo
h.start("echo again").wait().ok
"#;
        w.write("session.rhai", lines);
        let ran = w.run(&format!("{} repl <session.rhai 2>&1", w.program().display())).ok();
        println!("{}", ran.stdout);
        assert_eq!(ran.stdout.matches("true\n").count(), 2, "{}", ran.stdout);
        w.run("rm session.rhai").ok();
    });
}
