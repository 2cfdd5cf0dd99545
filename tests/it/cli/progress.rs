//! What a person sees who waits: how far a run has come, on one line of the terminal, and nothing of it elsewhere.

use super::as_root;
use crate::repl::screen::Screen;

/// A second passes first, of which nothing is said.
const LARGE: &str = r#"
    sleep("1s");
    let br = bridge("br0");
    for n in range(0, 400) { let h = netns(`h${n}`); veth(h["eth0"], br); h["eth0"].addr(`10.0.${n / 250}.${n % 250 + 1}/16`); }
    print("built");
"#;

#[test]
fn a_long_run_shows_how_far_it_is() {
    as_root(|w| {
        w.write("large.rhai", LARGE);
        let run = format!("{} run large.rhai; echo ended", env!("CARGO_BIN_EXE_topo"));
        let mut screen = Screen::at_shell(w, &run);
        screen.shows("\nended\n");
        let written = screen.written();
        assert!(written.contains("building: namespaces "), "{written}");
        assert!(written.contains("/400, cables "), "{written}");
        // What is on the screen in the end has none of it.
        let text = screen.text();
        assert!(text.contains("built\nlab `large` is up after "), "{text}");
        assert!(!text.contains("building"), "{text}");
        screen.ends();

        let mut screen = Screen::at_shell(w, &format!("{} down large; echo ended", env!("CARGO_BIN_EXE_topo")));
        screen.shows("\nended\n");
        assert!(!screen.text().contains("taking back"), "{}", screen.text());
        screen.ends();
    });
}

#[test]
fn a_check_that_waits_says_so() {
    as_root(|w| {
        w.write("waits.rhai", r#"check_within("never", "1800ms", || false);"#);
        let mut screen = Screen::at_shell(w, &format!("{} run waits.rhai; echo ended", env!("CARGO_BIN_EXE_topo")));
        screen.shows("\nended\n");
        let written = screen.written();
        assert!(written.contains("check \"never\": it does not hold for 1 of 1.8s"), "{written}");
        assert!(!screen.text().contains("does not hold"), "{}", screen.text());
        assert!(screen.text().contains("1 of 1 check failed\nfailed after "), "{}", screen.text());
        screen.ends();
    });
}

/// A command, a ping and a process that take long say so; what is around them goes on with its own line.
#[test]
fn what_takes_long_says_so() {
    as_root(|w| {
        let script = r#"
            let h = netns("h"); h.lo_up();
            h.exec("sleep 1.6");
            h.ping("127.0.0.1", #{ count: 3, interval: "800ms" });
            h.start(["sleep", "1.6"]).wait();
            sleep("1600ms");
            print("done");
        "#;
        w.write("long.rhai", script);
        let mut screen = Screen::at_shell(w, &format!("{} run long.rhai; echo ended", env!("CARGO_BIN_EXE_topo")));
        screen.shows("\nended\n");
        let written = screen.written();
        for said in [
            "run `sleep 1.6` in netns `h`: 1 s",
            "ping `127.0.0.1` from netns `h`: 1 s",
            "wait for process `sleep`",
            "wait: 1 s",
        ] {
            assert!(written.contains(said), "no {said}: {written}");
        }
        let text = screen.text();
        assert!(text.contains("done\nlab `long` is up after "), "{text}");
        assert!(!text.contains(": 1 s"), "{text}");
        screen.ends();
        w.topo(&["down", "long"]).ok();
    });
}

/// A script that takes long before anything is built says what it has asked for, and while a check waits it says nothing.
#[test]
fn a_script_that_runs_for_long_says_so() {
    as_root(|w| {
        let script = r#"
            for name in ["a", "b", "c"] { netns(name); }
            let began = timestamp();
            while began.elapsed < 1.5 {}
            settle();
            check_within("it holds", "2s", || { let began = timestamp(); while began.elapsed < 0.3 {} false });
            began = timestamp();
            while began.elapsed < 0.3 {}
            print("built");
        "#;
        w.write("runs.rhai", script);
        let mut screen = Screen::at_shell(w, &format!("{} run runs.rhai; echo ended", env!("CARGO_BIN_EXE_topo")));
        screen.shows("\nended\n");
        let written = screen.written();
        let lines: Vec<&str> = written.split("\r\x1b[K").collect();
        assert!(lines.contains(&"running the script: namespaces 3"), "{written}");
        let waits = |line: &str| line.starts_with("check \"it holds\": ");
        let first = lines.iter().position(|line| waits(line)).expect("the check is shown");
        let last = lines.iter().rposition(|line| waits(line)).expect("the check is shown");
        assert!(lines[first..=last].iter().all(|line| waits(line)), "{written}");
        assert!(lines[last..].contains(&"running the script"), "{written}");
        assert!(!screen.text().contains("running"), "{}", screen.text());
        screen.ends();
    });
}

/// Where nobody looks on, there is no such line.
#[test]
fn a_pipe_gets_none_of_it() {
    as_root(|w| {
        w.write("large.rhai", LARGE);
        let ran = w.topo(&["run", "large.rhai"]).ok();
        assert_eq!(ran.out(), "built\n");
        assert_eq!(ran.err(), "lab `large` is up: 400 netns, 801 devices; `topo down large` takes it down\n");
        w.topo(&["down", "large"]).ok();
    });
}
