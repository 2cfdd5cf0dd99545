//! How sessions end, and what becomes of their labs; several sessions at once.

use expect_test::expect;
use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;

use super::screen::{CTRL_D, Desk, Screen};
use super::{as_root, assert_same};
use crate::stage::{KILLED, build, in_used_user_world};
use crate::unwind_networks::dump::Dump;
use crate::world::World;

const LAB: &str = r#"let h = netns("h"); veth(h["eth0"], bridge("br0")); h.exec("sleep 1000 >/dev/null 2>&1 &");"#;

/// The exit code of a session whose terminal was closed.
const HUNG_UP: i32 = 128 + Signal::SIGHUP as i32;

/// Opens a session that has made something.
fn at_work(w: &World) -> Screen {
    let mut screen = Screen::open(w, &[]);
    screen.enter(LAB);
    w.ip("-n h link show eth0");
    screen
}

/// Ctrl-D asks whether to keep the lab: `y` keeps it, and it is one as any other.
#[test]
fn a_lab_is_kept_if_wanted() {
    as_root(|w, before| {
        let mut screen = at_work(w);
        screen.keys(CTRL_D);
        screen.shows("keep lab `repl`, with 1 netns, 3 devices? [y/N]");
        screen.keys("y\r");
        assert_eq!(screen.ends(), 0);
        screen.shows("lab `repl` is up: 1 netns, 3 devices; `topo down repl` takes it down");
        w.topo(&["ls"]).ok().says("repl").says("up");
        w.ip("-n h link show eth0");
        w.topo(&["down", "repl"]).ok();
        w.assert_clean(before);
    });
}

/// Any other answer takes it down: `n`, none, Ctrl-C, Ctrl-D again.
#[test]
fn a_lab_goes_unless_it_is_wanted() {
    as_root(|w, before| {
        for answer in ["n\r", "\r", "\x03", CTRL_D] {
            let mut screen = at_work(w);
            screen.keys(CTRL_D);
            screen.shows("[y/N]");
            screen.keys(answer);
            assert_eq!(screen.ends(), 0, "{answer:?}");
            screen.shows("lab `repl` is down");
            w.assert_clean(before);
        }
    });
}

/// `:quit` asks likewise; `--keep` answers in advance, and a lab that holds nothing is nothing to ask about.
#[test]
fn quit_and_keep() {
    as_root(|w, before| {
        let mut screen = at_work(w);
        screen.begin(":quit");
        screen.shows("[y/N]");
        screen.keys("n\r");
        assert_eq!(screen.ends(), 0);
        w.assert_clean(before);

        let mut screen = Screen::open(w, &["--keep", "--name", "mine"]);
        screen.begin(":quit");
        assert_eq!(screen.ends(), 0);
        assert!(!screen.text().contains("[y/N]"), "{}", screen.text());
        w.assert_clean(before);

        let mut screen = Screen::open(w, &["--keep", "--name", "mine"]);
        screen.enter("netns(\"h\");");
        screen.keys(CTRL_D);
        assert_eq!(screen.ends(), 0);
        screen.shows("lab `mine` is up");
        assert!(!screen.text().contains("[y/N]"), "{}", screen.text());
        w.topo(&["down", "mine"]).ok();
    });
}

/// A terminal that is closed, at the prompt, in a statement or at the question, takes the lab with it.
#[test]
fn a_closed_terminal_takes_the_lab_down() {
    as_root(|w, before| {
        // At the prompt, the end of the input may be met before the signal is.
        let code = at_work(w).close().wait().code;
        assert!([0, HUNG_UP].contains(&code), "{code}");
        w.assert_clean(before);

        let mut screen = at_work(w);
        w.run("mkfifo ready").ok();
        screen.begin(r#"host.exec("echo >ready"); loop {}"#);
        w.run("cat ready; rm ready").ok();
        screen.close().wait().fails(HUNG_UP);
        w.assert_clean(before);

        let mut screen = at_work(w);
        screen.keys(CTRL_D);
        screen.shows("[y/N]");
        let code = screen.close().wait().code;
        assert!([0, HUNG_UP].contains(&code), "{code}");
        w.assert_clean(before);
    });
}

/// SIGTERM ends a session at its prompt, and in a statement: 143, the lab is down, and the terminal is as it was.
#[test]
fn sigterm_takes_the_lab_down() {
    as_root(|w, before| {
        let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        let mut screen = at_work(w);
        assert!(!screen.modes().local_flags.intersects(cooked), "the editor reads keys");
        screen.keys("half a li");
        screen.shows("half a li");
        screen.signal(Signal::SIGTERM);
        assert_eq!(screen.ends(), 143);
        assert!(screen.modes().local_flags.contains(cooked), "{:?}", screen.modes().local_flags);
        w.assert_clean(before);

        let mut screen = at_work(w);
        w.run("mkfifo ready").ok();
        screen.begin(r#"host.exec("echo >ready"); loop {}"#);
        w.run("cat ready; rm ready").ok();
        screen.signal(Signal::SIGTERM);
        assert_eq!(screen.ends(), 143);
        assert!(screen.modes().local_flags.contains(cooked), "{:?}", screen.modes().local_flags);
        w.assert_clean(before);
    });
}

/// Killed, a session leaves its lab to `gc`.
#[test]
fn sigkill_leaves_it_to_gc() {
    as_root(|w, before| {
        let mut screen = at_work(w);
        screen.enter(":undo");
        screen.enter(LAB);
        screen.signal(Signal::SIGKILL);
        assert_eq!(screen.ends(), KILLED);
        w.topo(&["ls"]).ok().says("dead");
        w.topo(&["gc"]).ok().says("removed lab `repl`");
        w.assert_clean(before);
    });
}

/// Two sessions build two labs; each undoes its own. A lab gets its name when it gets its first part.
#[test]
fn two_sessions_at_once() {
    as_root(|w, before| {
        let (mut one, mut other) = (Screen::open(w, &[]), Screen::open(w, &[]));
        one.enter("netns(\"one\");");
        other.enter("netns(\"other\");");
        assert_eq!((one.line(), other.line()), ("repl>".into(), "repl-2>".into()));
        w.topo(&["ls"]).ok().says("repl-2");
        one.enter("netns(\"more\");");
        other.enter(":undo");
        assert_eq!(w.run("ip netns list | cut -d' ' -f1 | sort").ok().out(), "more\none\n");
        one.leave();
        assert_eq!(w.ip("netns list"), "");
        other.enter("netns(\"one\");");
        other.leave();
        w.assert_clean(before);
    });
}

/// A lab that a session is at work on is nobody else's: not another session's, at a terminal or piped, and not `down`'s.
#[test]
fn a_lab_has_one_session() {
    as_root(|w, before| {
        build(w, "lab", "netns(\"h\");").ok();
        for (args, lab) in [(&["lab"][..], "lab"), (&[], "repl")] {
            let mut screen = Screen::open(w, args);
            screen.enter("netns(\"k\");");
            let mut second = Screen::start(w, &Desk::USUAL, &[lab]);
            assert_eq!(second.ends(), 1);
            second.shows("is at work on it");
            w.topo_stdin("netns(\"x\")", &["repl", lab]).fails(1).says("is at work on it");
            w.topo(&["down", lab]).fails(1).says("is at work on it");
            screen.enter("netns(\"l\");");
            screen.enter(":undo 2");
            screen.leave_unasked();
        }
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A lab that is up is joined, and stays up; `down` takes what was added too.
#[test]
fn a_joined_lab_stays_up() {
    as_root(|w, before| {
        build(w, "lab", LAB).ok();
        let up = w.snapshot();
        let mut screen = Screen::open(w, &["lab"]);
        screen.shows("lab `lab`, which was up");
        screen.enter(r#"let g = netns("g"); veth(g["eth0"], netns_get("h")["eth1"]); bridge("br1");"#);
        screen.enter(":undo 2");
        screen.shows("only 1");
        screen.leave_unasked();
        w.topo(&["ls"]).ok().says("up");
        w.ip("-n g link show eth0");
        w.ip("-n h link show eth0");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
        assert!(!before.diff(&up).is_empty());
    });
}

/// `:reset` of a joined lab takes back what this session made, and no more.
#[test]
fn reset_of_a_joined_lab_leaves_what_was_there() {
    as_root(|w, _| {
        build(w, "lab", LAB).ok();
        let mut screen = Screen::open(w, &["lab"]);
        screen.enter(r#"netns_get("h").exec("true");"#);
        let up = Dump::take(w);
        screen.enter(r#"let g = netns("g"); veth(g["eth0"], netns_get("h")["eth1"]); bridge("br1");"#);
        screen.enter("bridge(\"br2\");");
        assert!(!up.diff(&Dump::take(w)).is_empty());
        screen.enter(":reset");
        assert_same(w, &up);
        screen.enter(":history");
        screen.enter("g");
        screen.shows("unknown variable `g`");
        screen.leave_unasked();
        w.topo(&["down", "lab"]).ok();
    });
}

/// A lab whose record is removed behind the session's back is told of, and nothing is left of it.
#[test]
fn a_lab_that_is_taken_away() {
    as_root(|w, before| {
        let mut screen = at_work(w);
        w.run("rm -r state/labs/repl").ok();
        screen.enter("1 + 1");
        screen.looks(expect![[r#"
            repl> 1 + 1
            error: go on with lab `repl`: something else took it down
            hint: `:save FILE` keeps the statements, `:quit` ends the session
            repl>
        "#]]);
        screen.enter(":save kept.rhai");
        screen.looks(expect![[r#"
            repl> :save kept.rhai
            saved 1 statement to kept.rhai; `topo run kept.rhai` runs them
            repl>
        "#]]);
        screen.keys(CTRL_D);
        assert_eq!(screen.ends(), 1);
        screen.shows("was taken down by something else");
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// An ordinary user builds in a sandbox, which goes with the session.
#[test]
fn a_session_of_an_ordinary_user() {
    in_used_user_world("", |w, before| {
        let mut screen = Screen::open(w, &[]);
        screen.enter(r#"let h = netns("h"); veth(h["eth0"], bridge("br0")); h["eth0"].addr("10.0.0.1/24");"#);
        screen.enter("h");
        screen.shows("netns h: eth0 10.0.0.1/24");
        w.topo(&["ls"]).ok().says("repl");
        assert_eq!(w.ip("netns list"), "", "nothing is outside of the sandbox");
        screen.leave();
        w.assert_clean(before);

        // Kept, it is joined again, and goes by `down`.
        let mut screen = Screen::open(w, &["--keep"]);
        screen.enter(r#"let h = netns("h");"#);
        screen.leave_unasked();
        let mut screen = Screen::open(w, &["repl"]);
        screen.enter(r#"netns_get("h")"#);
        screen.shows("netns h: no devices but lo");
        screen.leave_unasked();
        w.topo(&["down", "repl"]).ok();
        w.assert_clean(before);

        // However it ends.
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGKILL, KILLED)] {
            let mut screen = Screen::open(w, &[]);
            screen.enter(r#"let h = netns("h");"#);
            screen.signal(signal);
            assert_eq!(screen.ends(), code);
            w.topo(&["gc"]).ok();
            w.assert_clean(before);
        }
        let mut screen = Screen::open(w, &[]);
        screen.enter(r#"let h = netns("h");"#);
        screen.close().wait();
        w.topo(&["gc"]).ok();
    });
}
