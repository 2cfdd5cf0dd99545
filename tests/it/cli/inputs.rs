//! What is read from files that others made: circular imports, and what is no file.

use std::time::{Duration, Instant};

use expect_test::expect;

use super::{Terminal, as_root};

/// Recursion outside of rhai's own limits: a circular import is an error with the chain of files, wherever it is met.
#[test]
fn circular_imports() {
    as_root(|w| {
        w.write("one.rhai", "let netns_of_one = 1;\nimport \"./dir/two\" as two;\n");
        w.write("dir/two.rhai", "import \"../dir/../one\" as one;\n");
        w.write("self.rhai", "import \"./self\" as me;\n");
        w.write("test.rhai", "fn test_it() { import \"./one\" as one; }\n");
        w.write("main.rhai", "netns(\"left\");\nsettle();\nimport \"./one\" as one;\n");
        w.session(expect![[r#"
            $ topo run main.rhai
            --- stderr
            error: import `dir/../dir/../one.rhai`: the import is circular: one.rhai (line 2) imports dir/two.rhai (line 1) imports dir/../dir/../one.rhai
             --> dir/two.rhai:1:8
              |
            1 | import "../dir/../one" as one;
              |        ^^^^^^^^^^^^^^^
              |
             ::: one.rhai:2:8
              |
            2 | import "./dir/two" as two;
              |        ----------- called from here
              |
             ::: main.rhai:3:8
              |
            3 | import "./one" as one;
              |        ------- called from here
              |
              = hint: move what both need to a third file
            everything that lab `main` had made was taken back
            --- exit code 1
            $ topo check main.rhai
            --- stderr
            error: import `dir/../dir/../one.rhai`: the import is circular: one.rhai (line 2) imports dir/two.rhai (line 1) imports dir/../dir/../one.rhai
             --> dir/two.rhai:1:1
              |
            1 | import "../dir/../one" as one;
              | ^^^^^^
              |
             ::: one.rhai:2:1
              |
            2 | import "./dir/two" as two;
              | ------ called from here
              |
             ::: main.rhai:3:1
              |
            3 | import "./one" as one;
              | ------ called from here
              |
              = hint: move what both need to a third file
            1 mistake found
            --- exit code 1
            $ topo run self.rhai
            --- stderr
            error: import `self.rhai`: the import is circular: self.rhai (line 1) imports self.rhai
             --> self.rhai:1:8
              |
            1 | import "./self" as me;
              |        ^^^^^^^^
              |
              = hint: move what both need to a third file
            --- exit code 1
            $ topo check self.rhai one.rhai
            --- stderr
            error: import `self.rhai`: the import is circular: self.rhai (line 1) imports self.rhai
             --> self.rhai:1:1
              |
            1 | import "./self" as me;
              | ^^^^^^
              |
              = hint: move what both need to a third file
            error: import `dir/../dir/../one.rhai`: the import is circular: one.rhai (line 2) imports dir/two.rhai (line 1) imports dir/../dir/../one.rhai
             --> dir/two.rhai:1:1
              |
            1 | import "../dir/../one" as one;
              | ^^^^^^
              |
             ::: one.rhai:2:1
              |
            2 | import "./dir/two" as two;
              | ------ called from here
              |
              = hint: move what both need to a third file
            2 mistakes found
            --- exit code 1
            $ topo test test.rhai
            FAIL  test.rhai::test_it  (N.N s)

            ---- test.rhai::test_it ----
            error: import `dir/../dir/../one.rhai`: the import is circular: one.rhai (line 2) imports dir/two.rhai (line 1) imports dir/../dir/../one.rhai
             --> dir/two.rhai:1:8
              |
            1 | import "../dir/../one" as one;
              |        ^^^^^^^^^^^^^^^
              |
             ::: one.rhai:2:8
              |
            2 | import "./dir/two" as two;
              |        ----------- called from here
              |
             ::: test.rhai:1:23
              |
            1 | fn test_it() { import "./one" as one; }
              |                       ------- called from here
              |
              = hint: move what both need to a third file
            run it alone: topo test test.rhai::test_it

            0 passed, 1 failed in N.N s
            --- exit code 1
            $ ip netns
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// Recursion outside of rhai's own limits: at the prompt nothing is lost.
#[test]
fn a_circular_import_at_the_prompt() {
    as_root(|w| {
        w.write("one.rhai", "import \"./two\" as two;\n");
        w.write("two.rhai", "import \"./one\" as one;\n");
        let lines = "let a = netns(\"kept\");\nimport \"./one\" as q;\nprint(a.name);\n";
        let ran = w.topo_stdin(lines, &["repl", "--name", "lab", "--keep"]);
        ran.says("the import is circular: one.rhai (line 1) imports two.rhai (line 1) imports one.rhai");
        ran.says("lab `lab` is up: 1 netns");
        assert!(w.run("ip netns").out().contains("kept"));
        w.topo(&["down", "lab"]).ok();
    });
}

/// Recursion outside of rhai's own limits: an override of a library module that imports itself by its name, and a driver.
#[test]
fn circular_imports_in_the_users_directory() {
    as_root(|w| {
        w.write("own/lan.rhai", "import \"lan\" as lan;\n");
        w.write("own/drivers/ring.rhai", "import \"drivers/other\" as other;\n");
        w.write("own/drivers/other.rhai", "import \"drivers/ring\" as ring;\n");
        for (text, chain) in [
            ("import \"lan\" as lan;", "own/lan.rhai (line 1) imports own/lan.rhai"),
            (
                "import \"drivers/ring\" as r;",
                "own/drivers/ring.rhai (line 1) imports own/drivers/other.rhai (line 1) imports own/drivers/ring.rhai",
            ),
        ] {
            let ran = w.topo_env(&[("TOPO_STDLIB", "own")], &["run", "--rm", "-e", text]);
            assert_eq!(ran.code, 1);
            assert!(ran.err().contains(chain), "{}", ran.err());
        }
    });
}

/// Recursion outside of rhai's own limits: imports may be deep and come together again, but not without an end; and calls that rhai
/// counts may be too deep for the stack.
#[test]
fn deep_imports_and_calls() {
    as_root(|w| {
        for n in 0..40 {
            w.write(&format!("m{n}.rhai"), &format!("import \"./m{}\" as a;\nimport \"./m{}\" as b;\n", n + 1, n + 2));
        }
        w.write("m40.rhai", "");
        w.write("m41.rhai", "");
        w.topo(&["run", "--rm", "m12.rhai"]).ok();
        w.topo(&["check", "m12.rhai"]).ok();
        for command in ["run", "check"] {
            let ran = w.topo(&[command, "m0.rhai"]);
            assert_eq!(ran.code, 1);
            assert!(
                ran.err().contains("modules import each other more than 32 deep, from m0.rhai on"),
                "{}",
                ran.err()
            );
        }
        let (open, close) = ("g(".repeat(60), ")".repeat(60));
        w.write(
            "calls.rhai",
            &format!("fn g(x) {{ x }}\nfn f(n) {{ if n == 0 {{ return 0; }} {open}f(n - 1){close} }}\nf(60);\n"),
        );
        let ran = w.run("ulimit -s 2000; topo run --rm calls.rhai");
        assert_eq!(ran.code, 1, "{}", ran.err());
        assert!(ran.err().contains("its calls are nested too deep for the stack"), "{}", ran.err());
    });
}

/// What is opened without a look: a FIFO, device, socket or directory where a file is expected is an error at once.
#[test]
fn what_is_no_file() {
    as_root(|w| {
        w.run("mkfifo fifo.rhai; mkdir dir.rhai tests; mkfifo tests/x.rhai; ln -s /dev/zero zero.rhai; truncate -s 1T huge.rhai").ok();
        w.write("imports.rhai", "import \"./fifo\" as f;\n");
        let begun = Instant::now();
        w.session(expect![[r#"
            $ topo check imports.rhai
            --- stderr
            error: read the script `fifo.rhai`: it is a FIFO, and a regular file is expected
             --> imports.rhai:1:1
              |
            1 | import "./fifo" as f;
              | ^^^^^^
            1 mistake found
            --- exit code 1
            $ topo run imports.rhai
            --- stderr
            error: read the script `fifo.rhai`: it is a FIFO, and a regular file is expected
             --> imports.rhai:1:8
              |
            1 | import "./fifo" as f;
              |        ^^^^^^^^
            --- exit code 1
            $ topo run zero.rhai
            --- stderr
            error: read the script `zero.rhai`: it is a device, and a regular file is expected
            --- exit code 1
            $ topo run dir.rhai
            --- stderr
            error: read the script `dir.rhai`: it is a directory, and a regular file is expected
            --- exit code 1
            $ topo check huge.rhai
            --- stderr
            error: read the script `huge.rhai`: it has more than 16 MiB
            1 mistake found
            --- exit code 1
            $ topo test --list tests
            --- stderr
            error: read the script `tests/x.rhai`: it is a FIFO, and a regular file is expected
            --- exit code 2
        "#]]);
        assert!(begun.elapsed() < Duration::from_secs(20), "it waited");
        assert_eq!(w.run("topo run - < /dev/zero").code, 1);
        assert_eq!(w.run("topo repl < /dev/zero").code, 1);
        let ran = w.run("bash -c \"topo run <(echo 'print(1);')\" && echo 'print(2);' | topo run -").ok();
        assert_eq!(ran.out(), "1\n2\n");
    });
}

/// What is opened without a look: state files, lock files and names of namespaces.
#[test]
fn state_that_is_no_file() {
    as_root(|w| {
        w.topo(&["run", "--name", "lab", "-e", "netns(\"h1\");"]).ok();
        w.run("mkfifo fifo").ok();
        let dir = w.state().join("labs/lab").display().to_string();
        for file in ["lab.json", "journal", "names"] {
            w.run(&format!("touch {dir}/{file}; mv {dir}/{file} {dir}/kept && mkfifo {dir}/{file}")).ok();
            let begun = Instant::now();
            for command in [&["ls"][..], &["show", "lab"], &["exec", "lab/h1", "true"]] {
                w.topo(command);
            }
            if file != "names" {
                let ran = w.topo(&["down", "lab"]);
                assert!(ran.code == 1 && ran.err().contains("it is a FIFO"), "{file}: {}", ran.err());
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{file}: it waited");
            w.run(&format!("mv {dir}/kept {dir}/{file}")).ok();
        }
        w.topo(&["down", "lab"]).ok();
        let ran = w.topo(&["run", "--rm", "-e", "netns_open(\"./fifo\");"]);
        assert!(ran.err().contains("it is a FIFO"), "{}", ran.err());
    });
}
