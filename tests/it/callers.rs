//! What stays has nothing of the caller's: a process that outlives `topo`, or that a script runs, has none of the caller's descriptors,
//! process group, ignored signals or umask.

use nix::sys::signal::Signal;

use super::stage::{in_used_user_world, in_used_world};
use super::world::World;

/// Leaves something behind in each way there is: a process that was started, a server, a child of a command, one of each in a lab within.
const LEAVES: [&str; 4] = [
    r#"netns("a").start("exec sleep 300");"#,
    r#"netns("a").serve("http", 80);"#,
    r#"netns("a").exec("sleep 300 >/dev/null 2>&1 &");"#,
    r#"lab_within("inner", #{}, || { netns("b").start("exec sleep 300"); });"#,
];

/// A lock that is held while `topo` runs is free afterwards, and who reads from it meets the end.
fn nothing_is_held(w: &World, options: &str) {
    let topo = w.program().display();
    for script in LEAVES {
        println!("{script}");
        let run = format!("{topo} run {options} --name left -e '{script}'");
        w.run(&format!("(flock 9; {run}) 9>lock; flock -n lock true")).ok();
        w.run(&format!("{topo} down left")).ok();
        // By a descriptor that nobody expects, and by the usual ones.
        w.run(&format!("{run} 7>&1 >/dev/null 2>&1 | timeout 30 cat; {topo} down left")).ok();
        w.run(&format!("{run} 2>&1 | timeout 30 cat; {topo} down left")).ok();
    }
    // A session that keeps its lab, too.
    let session = format!("echo '{}' | {topo} repl --keep --name left", LEAVES[0]);
    w.run(&format!("(flock 9; {session}) 9>lock; flock -n lock true; {topo} down left")).ok();
}

#[test]
fn descriptors_are_closed() {
    in_used_world("", |w, _| nothing_is_held(w, ""));
}

/// The sandbox's own process closes them as well; a failed test that is kept leaves a sandbox likewise.
#[test]
fn descriptors_are_closed_in_a_sandbox() {
    in_used_user_world("", |w, _| {
        nothing_is_held(w, "");
        let topo = w.program().display();
        w.write("kept.rhai", "fn test_kept() { netns(\"a\").start(\"exec sleep 300\"); assert(false); }");
        w.run(&format!("(flock 9; {topo} test --keep kept.rhai || true) 9>lock; flock -n lock true")).ok();
        w.run(&format!("{topo} down --all")).ok();
    });
}

/// `topo exec` takes the place of a command at a shell: what the shell opened for it, it gets.
#[test]
fn exec_at_a_shell_gets_what_was_opened_for_it() {
    in_used_user_world("", |w, _| {
        let topo = w.program().display();
        w.topo(&["run", "--name", "lab", "-e", r#"netns("a");"#]).ok();
        let ran = w.run(&format!("echo given >file; {topo} exec lab/a sh -c 'cat <&7' 7<file")).ok();
        assert_eq!(ran.out(), "given\n");
        w.topo(&["down", "lab"]).ok();
    });
}

/// Says which signals a process has blocked and ignores, its umask, and its open files.
const LOOK: &str = r#"grep -hE "Sig(Blk|Ign)" /proc/self/status; umask; ls -m /proc/$$/fd"#;

/// What any command begins with.
const CLEAN: &str = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n0022\n0, 1, 2\n";

/// Starts a command with all signals ignored and blocked, with an odd umask and open files.
const ODD_CALLER: &str = r#"
import os, signal, sys
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
os.umask(0o777 if sys.argv[1] == "all" else 0o000)
for number in (5, 9, 200):
    os.dup2(1, number, inheritable=True)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[2], sys.argv[2:])
"#;

/// Default signals, an empty mask, umask 022 and no open file but its own, whatever `topo` was started with: for what `start`, `exec` and
/// `serve` run, what tests run, and what a person runs in a netns. A `trap` in a started shell fires.
fn begins_clean(w: &World, umask: &str) {
    let topo = w.program().display();
    w.write("caller.py", ODD_CALLER);
    let look = LOOK.replace('"', "\\\"");
    w.write(
        "look.rhai",
        &format!(
            r#"let h = netns("h");
            print(h.exec("{look}").stdout);
            let p = h.start("{look}; trap 'echo heard' INT; echo up; while :; do sleep 0.01; done", #{{ ready: "up" }});
            host.exec(["kill", "-INT", `${{p.pid}}`]);
            check_within("the trap fires", "10s", || p.log().contains("heard"));
            print(p.log());
            let s = h.serve("echo", 7);
            print(host.exec(`grep -hE "Sig(Blk|Ign)" /proc/${{s.pid}}/status; ls /proc/${{s.pid}}/fd | grep -xc 200`).stdout);"#
        ),
    );
    let odd = |args: &str| w.run(&format!("umask 022; python3 caller.py {umask} {topo} {args}"));
    let ran = odd("run --name lab look.rhai").ok();
    let servers = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\n0\n";
    let text = ran.out();
    assert_eq!(text.matches(CLEAN).count(), 2, "{text}");
    // Rust's own start ignores SIGPIPE (13) in the server, which is `topo`.
    assert!(text.contains(servers), "{text}");
    // At a shell the caller's files are meant for the command.
    let at_shell = odd(&format!("exec lab/h sh -c '{LOOK}'")).ok();
    let (signals, files) = at_shell.out().rsplit_once("0022\n").unwrap_or_default();
    assert!(CLEAN.starts_with(signals) && files.split(", ").any(|file| file == "200"), "{at_shell:?}");
    w.run(&format!("{topo} down lab")).ok();
    w.write("session", &format!("let h = netns(\"h\");\n:sh h {LOOK}\n"));
    odd("repl <session").ok().says(CLEAN);
}

#[test]
fn what_is_run_begins_clean() {
    in_used_world("", |w, _| begins_clean(w, "all"));
}

#[test]
fn what_is_run_in_a_sandbox_begins_clean() {
    in_used_user_world("", |w, _| begins_clean(w, "none"));
}

/// A stricter umask of the caller stays, in a file that a command of a script writes too; one that is laxer, or that takes rights from
/// the owner, does not.
#[test]
fn a_stricter_umask_stays() {
    in_used_world("", |w, _| {
        let topo = w.program().display();
        for (callers, commands) in [("077", "0077"), ("027", "0027"), ("002", "0022"), ("0", "0022"), ("0777", "0022")]
        {
            let script = r#"let h = netns("h"); print(h.exec("umask; echo secret >written").stdout);
                print(h.start("umask; exec sleep 100", #{ ready: "0" }).log());"#;
            let ran = w
                .run(&format!("umask {callers}; {topo} run --rm -e '{script}'; stat -c %a written; rm -f written"))
                .ok();
            assert_eq!(ran.out().matches(commands).count(), 2, "{callers}: {}", ran.out());
            let mode = 0o666 & !u32::from_str_radix(commands, 8).expect("octal");
            assert!(ran.out().ends_with(&format!("\n{mode:o}\n")), "{callers}: {}", ran.out());
        }
    });
}

/// A lab within another one that fails ends its own commands alone: what the outer lab had started on the host before it had a name goes on.
#[test]
fn a_lab_within_that_fails_ends_its_own_commands() {
    in_used_world("", |w, before| {
        let begins = ["", r#"lab("other");"#, r#"lab("other"); netns("h0");"#];
        for (begin, options) in begins.iter().flat_map(|begin| ["", "standalone: true"].map(|options| (begin, options)))
        {
            let part = format!(
                r#"lab_within("part", #{{ {options} }}, || {{
                    netns("h"); host.exec("sleep 1002 >/dev/null 2>&1 &"); throw "enough";
                }})"#
            );
            let script = format!(
                r#"host.exec("sleep 1001 >/dev/null 2>&1 &"); {begin}
                try {{ {part}; }} catch (e) {{ print(e.to_string()); }}
                print(host.exec("ps -A -o args").stdout); netns("after");"#
            );
            println!("{begin} {options}");
            let ran = w.topo(&["run", "-e", &script]).ok();
            assert!(ran.out().contains("sleep 1001") && !ran.out().contains("sleep 1002"), "{}", ran.out());
            w.topo(&["down", "--all"]).ok();
            w.assert_clean(before);
        }
    });
}

/// A test that takes too long is stopped at its line, though the runner was started with SIGINT ignored.
#[test]
fn tests_stop_though_the_runner_ignores_signals() {
    in_used_user_world("", |w, _| {
        w.write("caller.py", ODD_CALLER);
        w.write("slow.rhai", "fn test_slow() {\n    time_limit(\"300ms\");\n    loop {}\n}");
        let topo = w.program().display();
        let ran = w.run(&format!("python3 caller.py none {topo} test slow.rhai")).fails(1);
        assert!(
            ran.says("it took longer than").out().contains("slow.rhai::test_slow")
                && !ran.out().contains("did not stop"),
            "{ran:?}"
        );
    });
}

/// What the caller ignores, `topo` ignores: `nohup topo run` goes on when its terminal is closed, a run behind `&` does not end by the
/// Ctrl-C of another. SIGTERM still ends it.
fn ignored_stays_ignored(w: &World) {
    let topo = w.program().display();
    w.run("mkfifo ready go").ok();
    let script = r#"netns("h").exec("echo >ready; read x <go"); print("went on");"#;
    let running = w.start_run(&format!("trap '' INT HUP; exec {topo} run --rm -e '{script}'"));
    w.run("cat ready").ok();
    running.signal(Signal::SIGINT);
    running.signal(Signal::SIGHUP);
    w.run("echo >go").ok();
    assert_eq!(running.wait().ok().out(), "went on\n");
    let running = w.start_run(&format!("trap '' INT HUP; exec {topo} run --rm -e '{script}'"));
    w.run("cat ready; rm ready go").ok();
    running.signal(Signal::SIGTERM);
    running.wait().fails(128 + Signal::SIGTERM as i32);
}

#[test]
fn what_the_caller_ignores_is_ignored() {
    in_used_world("", |w, before| {
        ignored_stays_ignored(w);
        w.assert_clean(before);
    });
}

#[test]
fn what_the_caller_ignores_is_ignored_in_a_sandbox() {
    in_used_user_world("", |w, before| {
        ignored_stays_ignored(w);
        w.assert_clean(before);
    });
}

/// Closed standard streams are no reason to fail, nor does what `topo` opens take their place.
#[test]
fn closed_standard_streams() {
    in_used_user_world("", |w, before| {
        let topo = w.program().display();
        let script = r#"let h = netns("h"); h.start("exec sleep 300"); print(h.exec("echo said").stdout);"#;
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            println!("{closed}");
            w.run(&format!("{topo} run --name lab -e '{script}' {closed}; {topo} exec lab/h true {closed}; {topo} down lab {closed}")).ok();
            w.assert_clean(before);
        }
    });
}

/// A command of a script has no terminal: one that asks for a password there fails at once, and does not wait stopped for ever.
#[test]
fn a_command_of_a_script_has_no_terminal() {
    in_used_world("", |w, _| {
        let mut screen = super::repl::Screen::open(w, &[]);
        screen.enter(r#"let h = netns("h"); h.exec("read answer </dev/tty").code"#);
        screen.shows("\n2\n");
        screen.leave();
    });
}
