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

/// A limit that is checked afterwards: one operation that makes much of little asks first, and the error has its line.
#[test]
fn one_operation_makes_much_of_little() {
    as_root(|w| {
        let long = "let s = \"y\"; s.pad(20000000, \"y\"); let r = \"z\"; r.pad(100, \"z\");";
        let wide = "let s = \"a\"; s.pad(100000000, \"b\"); let l = []; l.pad(1000, s);";
        for (before, call) in [
            (long, "s.replace(\"y\", r)"),
            (long, "s.replace(\"\", r)"),
            (long, "s.replace('y', r)"),
            (long, "s.split(\"\")"),
            (long, "s.split('y')"),
            (long, "s.split(\"y\", 20000000)"),
            (long, "s.split_rev(\"y\")"),
            (long, "s += s; s += s; s.to_chars()"),
            (long, "s.replace(\"y\", \"y \"); s.split()"),
            (long, "s.replace(\"y\", \"[],\"); parse_json(`[${s}1]`)"),
            (wide, "#{ a: l }.to_json()"),
            ("let b = blob(200000000);", "b.to_array()"),
        ] {
            let ran =
                w.topo(&["run", "--rm", "-e", &format!("{before}\ntry {{ {call}; }} catch (e) {{ print(e.kind); }}")]);
            assert_eq!((ran.out(), ran.code), ("exhausted\n", 0), "{call}: {}", ran.err());
        }
    });
}

/// A limit that is checked afterwards: a text of values that hold one long text many times ends the script.
#[test]
fn a_text_of_many_values() {
    as_root(|w| {
        for call in
            ["l.to_string()", "print(l)", "`${l}`", "#{ a: l }.to_debug()", "\"\" + l", "[[l]].to_string().len()"]
        {
            let text = format!("let s = \"a\"; s.pad(100000000, \"b\"); let l = []; l.pad(1000, s);\n{call};");
            let ran = w.topo(&["run", "--rm", "-e", &text]).fails(1);
            ran.says("it holds more than 1024 MiB in memory");
        }
    });
}

/// What asks first does as rhai's own.
#[test]
fn small_values_are_as_ever() {
    as_root(|w| {
        let text = r#"
            let s = "a-b-c"; s.replace("-", "+++"); s.replace('a', 'A'); s.replace('b', "BB"); s.replace("c", 'C');
            print(s);
            print("a b  c".split() + "a,b,c".split(",") + "a,b,c".split(',', 2) + "a,b".split(";") + "".split(",") + "abc".split(""));
            print("a,b,c".split_rev(",") + "a,b,c".split_rev(',', 2) + "abc".to_chars() + "a,b".split(",", 1) + "abc".split(1));
            print(parse_json(`{"a": [1, 2.5, null, "x"]}`));
            print(#{ a: [1, "x\n", 'c', ()], b: #{} }.to_json() + [1, "x\"", #{ k: ip("10.0.0.1") }] + blob(2, 7).to_array());
            print(`${[1, "x"]} ${#{ "a b": 1 }}`);
        "#;
        let ran = w.topo(&["run", "--rm", "-e", text]);
        expect![[r##"
            A+++BB+++C
            ["a", "b", "c", "a", "b", "c", "a", "b,c", "a,b", "", "", "a", "b", "c", ""]
            ["c", "b", "a", "c", "a,b", a, b, c, "a,b", "a", "bc"]
            #{"a": [1, 2.5, (), "x"]}
            {"a":[1,"x\n","c",null],"b":{}}[1, "x\"", #{"k": 10.0.0.1}][7, 7]
            [1, "x"] #{"a b": 1}
        "##]]
        .assert_eq(ran.out());
    });
}
