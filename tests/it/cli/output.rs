//! What is written: to a full device, to a pipe whose reader has gone, and what of it a terminal gets.

use super::{PAIR, as_root};

/// An output that is lost in silence: a full device is an error, whatever prints.
#[test]
fn a_full_device() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.topo(&[
            "run",
            "--name",
            "lab",
            "-e",
            "netns(\"h9\").start(\"echo hello; exec sleep 1000\", #{ ready: \"hello\", name: \"p\" });",
        ])
        .ok();
        for command in [
            "ls",
            "ls --json",
            "show lab",
            "show lab --json",
            "logs lab",
            "doc",
            "doc veth",
            "doc --markdown",
            "completions bash",
            "scripts",
            "scripts --source bridge",
            "--help",
            "run --help",
            "doctor",
            "check --json pair.rhai",
            "repl -e",
            "test --list .",
        ] {
            let ran = w.run(&format!("topo {command} >/dev/full"));
            if ran.code != 2 {
                assert_eq!(ran.code, 1, "{command}: {}", ran.err());
                ran.says("write to standard output: No space left on device");
            }
            let ran = w.run(&format!("set +e; (topo {command}; echo $? >code) | true; cat code"));
            assert!(
                !ran.err().contains("standard output") && !ran.err().contains("panicked"),
                "{command}: {}",
                ran.err()
            );
        }
        let ran = w.run("topo run pair.rhai >/dev/full");
        assert_eq!(ran.code, 1, "{}", ran.err());
        ran.says("everything that lab `pair` had made was taken back");
        let ran = w.run("topo run --rm -e 'print(1);' >/dev/full");
        assert_eq!(ran.code, 1, "{}", ran.err());
        w.run("topo run --rm -e 'for i in 0..100000 { print(i); }' | head -1").ok();
        w.topo(&["down", "lab"]).ok();
    });
}

/// What others wrote is told to a terminal: control characters of names, sentences, logs and errors are escaped.
#[test]
fn control_characters() {
    as_root(|w| {
        w.run("ip link add \"$(printf 'e\\033[2Jv')\" type bridge").ok();
        w.write(
            "look.rhai",
            r#"
            let h = netns("h1");
            check("a\u001b]0;title\u0007b\u009bm\u202ec", true);
            check("d\u001b[2Je", false);
            table([#{ name: "f\u001b[2J\ng" }]);
            h.exec(["\u001b[2Jno-such"]);
        "#,
        );
        let ran = w.topo(&["run", "look.rhai"]).fails(1);
        let odd = |text: &str| text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'));
        assert!(!odd(ran.out()) && !odd(ran.err()), "{ran:?}");
        ran.says("a\\u{1b}]0;title\\u{7}b\\u{9b}m\\u{202e}c").says("f\\u{1b}[2J\\ng");
        w.topo(&["run", "--name", "lab", "-e", "netns(\"h1\"); host.devs();"]).ok();
        w.run("ip -n h1 link add \"$(printf 'e\\033[2Jv')\" type bridge").ok();
        for command in [&["show", "lab"][..], &["show", "--json", "lab"]] {
            let ran = w.topo(command);
            assert!(!odd(ran.out()) && !odd(ran.err()), "{ran:?}");
        }
        // What a script prints is its own.
        assert_eq!(w.topo(&["run", "--rm", "-e", "print(\"\\x1b[1mx\");"]).out(), "\x1b[1mx\n");
        w.topo(&["down", "lab"]).ok();
        w.run("ip link del \"$(printf 'e\\033[2Jv')\"").ok();
    });
}
