//! What is piped into a session: no prompts, no questions, and the first error ends it. `UPDATE_EXPECT=1 cargo test` writes
//! the transcripts anew; read them then as a user would.

use expect_test::{Expect, expect};

use super::as_root;
use crate::cli::seen;
use crate::world::World;

/// Pipes `statements` into a session and compares what is seen: output, messages, exit code.
pub(super) fn piped(statements: &str, transcript: Expect) {
    as_root(|w, _| piped_in(w, statements, transcript));
}

/// The same in a world with files.
pub(super) fn piped_in(w: &World, statements: &str, transcript: Expect) {
    let ran = w.topo_stdin(statements, &["repl"]);
    transcript.assert_eq(&seen(w, "topo repl", &ran));
}

/// Values are shown, unless a statement ends with a semicolon; the lab goes at the end.
#[test]
fn values_are_shown() {
    piped(
        r#"let h = netns("h");
let g = netns("g");
veth(h["eth0"], g["eth0"])
h["eth0"].addr("10.0.0.1/24");
g["eth0"].addr("10.0.0.2/24")
h
h["eth0"]
h["eth7"]
h.ping("10.0.0.2").ok
h.exec("ip -br addr show lo")
h.exec("false")
[1, 2.5, "three", (), #{ a: [h] }]
#{}
"text"
"two\nlines"
'c'
()
1 + 1;
2 + 2 // with a comment
h.routes()
h.devs()
check("it is so", 1 + 1 == 2)
print("printed")
:ls
"#,
        expect![[r#"
            $ topo repl
            dev eth0 of h: veth up  -- g/eth0
            dev eth0 of g: veth up  -- h/eth0
            dev eth0 of g: veth up  10.0.0.2/24  -- h/eth0
            netns h: eth0 10.0.0.1/24
            dev eth0 of h: veth up  10.0.0.1/24  -- g/eth0
            dev eth7 of h: not there
            true
            code:   0
            ok:     true
            stderr: ""
            stdout: "lo               UNKNOWN        127.0.0.1/8 ::1/128 "
            code:   1
            ok:     false
            stderr: ""
            stdout: ""
            [1, N.N, "three", (), #{ a: ["h"] }]
            #{}
            "text"
            two
            lines
            c
            4
            DEV   DST          HOPS               KIND     METRIC  PROTOCOL  SRC       TABLE  VIA
            eth0  10.0.0.0/24  dev eth0 weight 1  unicast  0       kernel    10.0.0.1  main
            eth0  fe80::X    dev eth0 weight 1  unicast  256     kernel              main
            dev lo of h
            dev eth0 of h: veth up  10.0.0.1/24  -- g/eth0
            ok   it is so
            printed
            repl: 2 netns, 2 devices
            ├─ h
            │  └─ eth0  veth up  10.0.0.1/24  -- g/eth0
            └─ g
               └─ eth0  veth up  10.0.0.2/24  -- h/eth0
        "#]],
    );
}

/// Statements go on over lines; an empty line ends none.
#[test]
fn statements_of_several_lines() {
    piped(
        r"for i in 0..2 {

    print(i);

}
let a = [
    1,
    2
]; a
let t = `a

b`; t


/* a
comment */ 3
",
        expect![[r#"
        $ topo repl
        0
        1
        [1, 2]
        a

        b
        3
    "#]],
    );
}

/// The first error ends it, with an exit code; what comes later is not run.
#[test]
fn the_first_error_ends_it() {
    piped(
        "netns(\"h\");\nlet x = \"a\";\nx.no_such_thing(1)\nprint(\"never\")\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: unknown function `no_such_thing`
         --> [3]:1:3
          |
        1 | x.no_such_thing(1)
          |   ^^^^^^^^^^^^^
          |
          = hint: `topo doc` lists the functions
        stopped at line 3 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "1 + 1\nlet let\n",
        expect![[r#"
        $ topo repl
        2
        --- stderr
        error: expecting name of a variable
         --> [2]:1:5
          |
        1 | let let
          |     ^^^
        stopped at line 2 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "\n\nthrow \"a reason\"\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: the script threw: a reason
         --> [1]:1:1
          |
        1 | throw "a reason"
          | ^^^^^
        stopped at line 3 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "fn f(x) {\n    g(x)\n}\nf(1)\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: unknown function `g`
         --> [1]:2:5
          |
        2 |     g(x)
          |     ^
          |
         ::: [2]:1:1
          |
        1 | f(1)
          | - called from here
          |
          = hint: `topo doc` lists the functions
        stopped at line 4 of standard input
        --- exit code 1
    "#]],
    );
}

/// A check that fails ends nothing, and is in the exit code.
#[test]
fn a_failed_check_is_in_the_exit_code() {
    piped(
        "check(\"it is so\", 1 == 2)\nprint(\"on\")\n",
        expect![[r#"
            $ topo repl
            FAIL it is so  ([1]:1:1)
            on
            --- exit code 1
        "#]],
    );
}

/// What ends in the middle is said to.
#[test]
fn what_is_not_whole() {
    piped(
        "let x = \"a\nlet y = 1;\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: open string is not terminated
         --> [1]:1:9
          |
        1 | let x = "a
          |         ^
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "let x = `a\nlet y = 1;\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: open string is not terminated
         --> [1]:1:9
          |
        1 | let x = `a
          |         ^
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "/* a comment\nnetns(\"h\");\n",
        expect![[r#"
            $ topo repl
            --- stderr
            error: comment is not terminated
             --> [1]:1:1
              |
            1 | /* a comment
              | ^
              |
              = hint: a comment that begins with `/*` ends with `*/`
            stopped at line 1 of standard input
            --- exit code 1
        "#]],
    );
    piped(
        "for i in 0..3 {\n    netns(`h${i}`);\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: expecting '}' to terminate this block
         --> [1]:2:21
          |
        2 |     netns(`h${i}`);
          |                    ^
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "1 + 1",
        expect![[r#"
        $ topo repl
        2
    "#]],
    );
    piped(
        "",
        expect![[r#"
        $ topo repl
    "#]],
    );
    piped(
        "\n \n// nothing\n",
        expect![[r#"
        $ topo repl
    "#]],
    );
}

/// Bytes that are no text are an error at their line.
#[test]
fn bytes_that_are_no_text() {
    as_root(|w, _| {
        let piped = |bytes: &str, transcript: Expect| {
            let ran = w.run(&format!("printf '{bytes}' | {} repl", w.program().display()));
            transcript.assert_eq(&seen(w, &format!("printf '{bytes}' | topo repl"), &ran));
        };
        piped(
            r#"netns("h")\nlet x = "\377\376";\n"#,
            expect![[r#"
            $ printf 'netns("h")\nlet x = "\377\376";\n' | topo repl
            netns h: no devices but lo
            --- stderr
            error: read the next line: line 2, byte 10 is not UTF-8 text
            --- exit code 1
        "#]],
        );
        piped(
            r"1 + 1\000\n",
            expect![[r#"
                $ printf '1 + 1\000\n' | topo repl
                --- stderr
                error: unexpected '\0'
                 --> [1]:1:6
                  |
                1 | 1 + 1␀
                  |      ^
                stopped at line 1 of standard input
                --- exit code 1
            "#]],
        );
        piped(
            r#""\033[31m\007"\n"#,
            expect![[r#"
            $ printf '"\033[31m\007"\n' | topo repl
            "\u001b[31m\u0007"
        "#]],
        );
        piped(
            r"\357\273\2771 + 1\r\n2 + 2\r\n",
            expect![[r#"
                $ printf '\357\273\2771 + 1\r\n2 + 2\r\n' | topo repl
                2
                4
            "#]],
        );
        piped(
            r"\000\001\002\003\200\n",
            expect![[r#"
            $ printf '\000\001\002\003\200\n' | topo repl
            --- stderr
            error: read the next line: line 1, byte 5 is not UTF-8 text
            --- exit code 1
        "#]],
        );
    });
}

/// A line of a million bytes, and ten thousand lines, as statements of their own and as one.
#[test]
fn a_lot_is_read() {
    let long = "a".repeat(1_000_000);
    piped(
        &format!("let s = \"{long}\"; s.len\n"),
        expect![[r#"
        $ topo repl
        1000000
    "#]],
    );
    as_root(|w, _| {
        let ran = w.topo_stdin(&format!("s{long}\n"), &["repl"]).fails(1);
        ran.says("unknown variable").says("stopped at line 1");
        assert!(ran.err().len() < 1000, "a name of {} bytes is told in {}", long.len(), ran.err().len());
    });
    let lines: String = (0..10_000).map(|i| format!("sum += {i};\n")).collect();
    piped(
        &format!("let sum = 0;\n{lines}sum\n"),
        expect![[r#"
        $ topo repl
        49995000
    "#]],
    );
    piped(
        &format!("let sum = 0;\nif true {{\n{lines}}}\nsum\n"),
        expect![[r#"
        $ topo repl
        49995000
    "#]],
    );
}
