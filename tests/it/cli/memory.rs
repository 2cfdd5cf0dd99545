//! Scripts that ask for more memory than a script may hold: the script ends, and not the machine.

use expect_test::expect;

use super::{Terminal, as_root};

/// What grows by its own size is met between two operations, and can't be caught.
#[test]
fn growth_without_an_end() {
    as_root(|w| {
        w.write(
            "grows.rhai",
            "netns(\"h1\");\nlet list = [1];\ntry { loop { list += list; } } catch { print(\"caught\"); }\n",
        );
        w.session(expect![[r#"
            $ topo run grows.rhai
            --- stderr
            error: run the script: it holds more than 1024 MiB in memory
             --> grows.rhai:3:14
              |
            3 | try { loop { list += list; } } catch { print("caught"); }
              |              ^^^^
              |
              = hint: a list or a text that grows in a loop without an end does that
            --- exit code 1
        "#]]);
    });
}

/// What is told a length asks before it takes the memory.
#[test]
fn lengths_that_no_machine_has() {
    as_root(|w| {
        let calls =
            ["[].pad(9999999999, 1)", "\"\".pad(9999999999, 'x')", "\"\".pad(9999999999, \"ab\")", "blob(99999999999)"];
        let nested = "let row = []; row.pad(100000, 0); let rows = []; rows.pad(100000, row);";
        for call in calls.into_iter().chain([nested]) {
            let ran = w.topo(&["run", "--rm", "-e", &format!("try {{ {call}; }} catch (e) {{ print(e.kind); }}")]);
            assert_eq!((ran.out(), ran.code), ("exhausted\n", 0), "{call}: {}", ran.err());
        }
        let ran = w.topo(&[
            "run",
            "--rm",
            "-e",
            r#"let s = "a"; s.pad(4, "bc"); let l = [1]; l.pad(3, 2); l.pad(-1, 0); print(`${s} ${l} ${blob(2, 7)}`);"#,
        ]);
        assert_eq!(ran.out(), "abcb [1, 2, 2] [0707]\n", "{}", ran.err());
    });
}
