//! `topo run`: what a script prints, its arguments, and what becomes of its lab.

use std::time::Duration;

use expect_test::expect;
use nix::sys::signal::Signal;

use super::{PAIR, as_root, seen, shows};
use crate::world::World;

#[test]
fn a_lab_is_left_up() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        shows(
            w,
            &["run", "pair.rhai"],
            expect![[r#"
            $ topo run pair.rhai
            ok   h1 reaches h2
            --- stderr
            lab `pair` is up: 2 netns, 2 devices; `topo down pair` takes it down
        "#]],
        );
        assert!(w.ip("-n h1 -br addr").contains("10.0.0.1/24"));
        shows(
            w,
            &["run", "pair.rhai"],
            expect![[r#"
            $ topo run pair.rhai
            --- stderr
            error: add netns `h1`: lab `pair` has made one of this name
             --> pair.rhai:1:10
              |
            1 | let h1 = netns("h1");
              |          ^^^^^
              |
              = hint: `topo down pair` removes it, `topo gc` if its run died; `--sandbox` runs labs with the same names side by side
            --- exit code 1
        "#]],
        );
        w.topo(&["down", "pair"]).ok();
        shows(
            w,
            &["run", "--rm", "pair.rhai"],
            expect![[r#"
            $ topo run --rm pair.rhai
            ok   h1 reaches h2
        "#]],
        );
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            --- stderr
            no lab is up
        "#]],
        );
    });
}

/// A run that fails takes everything back, unless it is told to keep it.
#[test]
fn a_failed_lab_is_kept_when_asked() {
    as_root(|w| {
        w.write("half.rhai", "let h = netns(\"h1\");\nveth(h[\"eth0\"], \"up0\");\nthrow \"enough\";\n");
        shows(
            w,
            &["run", "half.rhai"],
            expect![[r#"
            $ topo run half.rhai
            --- stderr
            error: the script threw: enough
             --> half.rhai:3:1
              |
            3 | throw "enough";
              | ^^^^^
            --- exit code 1
        "#]],
        );
        assert_eq!(w.ip("netns list"), "");
        shows(
            w,
            &["run", "--keep", "half.rhai"],
            expect![[r#"
            $ topo run --keep half.rhai
            --- stderr
            error: the script threw: enough
             --> half.rhai:3:1
              |
            3 | throw "enough";
              | ^^^^^
            lab `half` is up: 1 netns, 2 devices; `topo down half` takes it down
            --- exit code 1
        "#]],
        );
        assert!(w.ip("-n h1 -br link").contains("eth0"));
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            NAME  STATE  NETNS  DEVS  AGE  SCRIPT
            half  up     1      2     Ns   half.rhai
        "#]],
        );
        w.topo(&["down", "half"]).ok();

        w.write("unsound.rhai", "netns(\"h1\");\ncheck(\"it\", false);\n");
        shows(
            w,
            &["run", "--keep", "unsound.rhai"],
            expect![[r#"
            $ topo run --keep unsound.rhai
            FAIL it  (unsound.rhai:2:1)
            --- stderr
            1 of 1 check failed
            lab `unsound` is up: 1 netns, 0 devices; `topo down unsound` takes it down
            --- exit code 1
        "#]],
        );
        w.topo(&["down", "unsound"]).ok();
    });
}

/// A script that makes nothing leaves no lab.
#[test]
fn nothing_made() {
    as_root(|w| {
        shows(
            w,
            &["run", "-e", "print(1 + 1); debug(2);"],
            expect![[r#"
            $ topo run -e 'print(1 + 1); debug(2);'
            2
            -e @ 1:15 | 2
        "#]],
        );
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            --- stderr
            no lab is up
        "#]],
        );
    });
}

/// The name: of the file, of `lab(…)`, of `--name`; the later one wins.
#[test]
fn names_of_labs() {
    as_root(|w| {
        w.write("my lab (2).rhai", "netns(\"a\");");
        w.write("named.rhai", "lab(\"office\");\nnetns(\"b\");\n");
        shows(
            w,
            &["run", "my lab (2).rhai"],
            expect![[r#"
            $ topo run 'my lab (2).rhai'
            --- stderr
            lab `my-lab--2-` is up: 1 netns, 0 devices; `topo down my-lab--2-` takes it down
        "#]],
        );
        shows(
            w,
            &["run", "named.rhai"],
            expect![[r#"
            $ topo run named.rhai
            --- stderr
            lab `office` is up: 1 netns, 0 devices; `topo down office` takes it down
        "#]],
        );
        w.topo(&["down", "office"]).ok();
        shows(
            w,
            &["run", "--name", "lab.1", "named.rhai"],
            expect![[r#"
            $ topo run --name lab.1 named.rhai
            --- stderr
            lab `lab.1` is up: 1 netns, 0 devices; `topo down lab.1` takes it down
        "#]],
        );
        shows(
            w,
            &["run", "--name", "a/b", "named.rhai"],
            expect![[r#"
            $ topo run --name a/b named.rhai
            --- stderr
            error: lab name `a/b`: '/' is not allowed in it
             |
             = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            --- exit code 1
        "#]],
        );
        // Several without a name of their own are numbered.
        shows(
            w,
            &["run", "-e", "netns(\"c\")"],
            expect![[r#"
            $ topo run -e 'netns("c")'
            --- stderr
            lab `lab` is up: 1 netns, 0 devices; `topo down lab` takes it down
        "#]],
        );
        shows(
            w,
            &["run", "-e", "netns(\"d\")"],
            expect![[r#"
            $ topo run -e 'netns("d")'
            --- stderr
            lab `lab-2` is up: 1 netns, 0 devices; `topo down lab-2` takes it down
        "#]],
        );
        w.topo(&["down", "--all"]).ok();
    });
}

/// Each step, with the commands that do the same, and its place; then its undo.
#[test]
fn traced() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        shows(
            w,
            &["run", "--trace", "--rm", "pair.rhai"],
            expect![[r#"
            $ topo run --trace --rm pair.rhai
            ok   h1 reaches h2
            --- stderr
            # add netns `h1`  (pair.rhai:1:10)
            + ip netns add h1
            + ip -n h1 link set dev lo up
            # add netns `h2`  (pair.rhai:2:10)
            + ip netns add h2
            + ip -n h2 link set dev lo up
            # add veth `eth0` of `h1` -- `eth0` of `h2`  (pair.rhai:3:1)
            + ip link add eth0 netns h1 type veth peer name eth0 netns h2
            + ip -n h1 link set dev eth0 up
            + ip -n h2 link set dev eth0 up
            # add address `10.0.0.1/24` to `eth0` of `h1`  (pair.rhai:4:12)
            + ip -n h1 addr add 10.0.0.1/24 brd + dev eth0
            # add address `10.0.0.2/24` to `eth0` of `h2`  (pair.rhai:5:12)
            + ip -n h2 addr add 10.0.0.2/24 brd + dev eth0
            - undo: add netns `h2`
            - undo: add netns `h1`
        "#]],
        );
    });
}

/// What `--trace` prints, typed by hand, builds the same.
#[test]
fn a_trace_can_be_typed() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        let traced = w.topo(&["run", "--trace", "--rm", "pair.rhai"]).ok();
        let commands: String =
            traced.err().lines().filter_map(|line| line.strip_prefix("+ ")).map(|line| format!("{line}\n")).collect();
        w.run(&commands).ok();
        assert!(w.ip("-n h1 -br addr").contains("10.0.0.1/24"));
        w.run("ip netns del h1; ip netns del h2; umount /run/netns; rmdir /run/netns").ok();
    });
}

#[test]
fn as_json() {
    as_root(|w| {
        w.write(
            "data.rhai",
            "let h = netns(\"h1\");\nprint(\"hello\");\ntable([#{ name: h, ip: ip(\"10.0.0.1\"), n: 1 }]);\ncheck(\"it is so\", true);\n",
        );
        shows(
            w,
            &["run", "--rm", "--json", "data.rhai"],
            expect![[r#"
            $ topo run --rm --json data.rhai
            {
              "checks": [
                {
                  "at": [
                    {
                      "column": 1,
                      "line": 4,
                      "source": "data.rhai"
                    }
                  ],
                  "measured": null,
                  "ok": true,
                  "sentence": "it is so"
                }
              ],
              "error": null,
              "lab": "data",
              "ok": true,
              "printed": [
                "hello"
              ],
              "tables": [
                [
                  {
                    "ip": "10.0.0.1",
                    "n": 1,
                    "name": "h1"
                  }
                ]
              ],
              "up": false
            }
        "#]],
        );
        shows(
            w,
            &["run", "--json", "-e", "netns(\"h1\");\nnetns(\"a/b\")"],
            expect![[r#"
            $ topo run --json -e 'netns("h1");
            netns("a/b")'
            {
              "checks": [],
              "error": {
                "also": [],
                "at": [
                  {
                    "column": 1,
                    "line": 2,
                    "source": "-e"
                  }
                ],
                "hint": "a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _",
                "kind": "invalid",
                "message": "netns name `a/b`: '/' is not allowed in it"
              },
              "lab": "lab",
              "ok": false,
              "printed": [],
              "tables": [],
              "up": false
            }
            --- exit code 1
        "#]],
        );
        let failed = w.topo(&["run", "--json", "-e", "check(\"it\", false)"]).fails(1);
        let json: serde_json::Value = serde_json::from_str(failed.out()).expect("JSON");
        assert_eq!((&json["ok"], &json["error"]), (&false.into(), &serde_json::Value::Null));
        assert_eq!(json["checks"][0]["sentence"], "it");
        // A script that can't even be read is told as JSON, too.
        let failed = w.topo(&["run", "--json", "-e", "let x = ;"]).fails(1);
        let json: serde_json::Value = serde_json::from_str(failed.out()).expect("JSON");
        assert_eq!(json["error"]["kind"], "syntax");
    });
}

#[test]
fn what_a_script_prints() {
    as_root(|w| {
        w.write(
            "prints.rhai",
            "let h = netns(\"h1\");\nprint(h);\nprint(h[\"lo\"]);\nprint(net(\"10.0.0.0/24\"));\nprint([1, 2.5, true, ()]);\nprint(#{ a: 1 });\nprint([h, h[\"lo\"], ip(\"10.0.0.1\")]);\nprint();\nprint(\"two\\nlines\");\ntable([#{ name: \"h1\", ip: ip(\"10.0.0.1\") }, #{ name: \"a-longer-name\", ip: () }], [\"name\", \"ip\"]);\n",
        );
        shows(
            w,
            &["run", "--rm", "prints.rhai"],
            expect![[r#"
            $ topo run --rm prints.rhai
            h1
            lo
            10.0.0.0/24
            [1, N.N, true, ()]
            #{"a": 1}
            [netns `h1`, dev `lo` of `h1`, 10.0.0.1]

            two
            lines
            NAME           IP
            h1             10.0.0.1
            a-longer-name
        "#]],
        );
    });
}

const GREETING: &str = "#!/usr/bin/env -S topo run
//! Greets.
//!
//! Longer prose.
//!
//! Arguments:
//!   NAME             to whom
//!   [FILE...]        files
//!   --count N        how often                [default: 1]
//!   --subnet CIDR    where
//!   --how WORD       in which way             [possible: loud, soft] [default: soft]
//!   -v, --verbose    tell more
for n in 1..=args.count { print(`hello ${args.name}`); }
print(`${args.how} ${args.verbose} ${args.file.len()} ${args.subnet}`);
if args.subnet != () { print(args.subnet.host(1)); }
";

/// A script's own arguments: declared in its header, parsed, and explained.
#[test]
fn arguments_of_a_script() {
    let w = &World::new();
    w.write("greet.rhai", GREETING);
    shows(
        w,
        &["run", "greet.rhai", "world"],
        expect![[r#"
        $ topo run greet.rhai world
        hello world
        soft false 0
    "#]],
    );
    shows(
        w,
        &["run", "greet.rhai", "--count", "2", "-v", "--how", "loud", "--subnet", "10.0.0.0/24", "world", "a", "b"],
        expect![[r#"
            $ topo run greet.rhai --count 2 -v --how loud --subnet 10.0.0.0/24 world a b
            hello world
            hello world
            loud true 2 10.0.0.0/24
            10.0.0.1
        "#]],
    );
    shows(
        w,
        &["run", "greet.rhai"],
        expect![[r#"
        $ topo run greet.rhai
        --- stderr
        error: the following required arguments were not provided:
          <NAME>

        Usage: topo run greet.rhai <NAME> [FILE]...

        For more information, try '--help'.
        --- exit code 2
    "#]],
    );
    shows(
        w,
        &["run", "greet.rhai", "--help"],
        expect![[r#"
        $ topo run greet.rhai --help
        Greets.

        Longer prose.

        Usage: topo run greet.rhai [OPTIONS] <NAME> [FILE]...

        Arguments:
          <NAME>
                  to whom

          [FILE]...
                  files

        Options:
              --count <N>
                  how often

                  [default: 1]

              --subnet <CIDR>
                  where

              --how <WORD>
                  in which way

                  [default: soft]
                  [possible values: loud, soft]

          -v, --verbose
                  tell more

          -h, --help
                  Print help (see a summary with '-h')
    "#]],
    );
    shows(
        w,
        &["run", "greet.rhai", "world", "--count", "many"],
        expect![[r#"
        $ topo run greet.rhai world --count many
        --- stderr
        error: invalid value 'many' for '--count <N>': not a whole number

        For more information, try '--help'.
        --- exit code 2
    "#]],
    );
    shows(
        w,
        &["run", "greet.rhai", "world", "--how", "lout"],
        expect![[r#"
        $ topo run greet.rhai world --how lout
        --- stderr
        error: invalid value 'lout' for '--how <WORD>'
          [possible values: loud, soft]

          tip: a similar value exists: 'loud'

        For more information, try '--help'.
        --- exit code 2
    "#]],
    );
    shows(
        w,
        &["run", "greet.rhai", "world", "--subnet", "10.0.0.5/24"],
        expect![[r#"
        $ topo run greet.rhai world --subnet 10.0.0.5/24
        --- stderr
        error: invalid value '10.0.0.5/24' for '--subnet <CIDR>': host bits are set; did you mean `10.0.0.0/24`?

        For more information, try '--help'.
        --- exit code 2
    "#]],
    );
    shows(
        w,
        &["run", "greet.rhai", "world", "--cuont", "2"],
        expect![[r#"
        $ topo run greet.rhai world --cuont 2
        --- stderr
        error: unexpected argument '--cuont' found

          tip: a similar argument exists: '--count'

        Usage: topo run greet.rhai --count <N> <NAME> [FILE]...

        For more information, try '--help'.
        --- exit code 2
    "#]],
    );
    // An option of `topo run` behind the script is the script's, which has none such.
    shows(
        w,
        &["run", "greet.rhai", "world", "--json"],
        expect![[r#"
        $ topo run greet.rhai world --json
        --- stderr
        error: unexpected argument '--json' found

          tip: to pass '--json' as a value, use '-- --json'

        Usage: topo run greet.rhai <NAME> [FILE]...

        For more information, try '--help'.

        hint: `--json` is an option of topo itself: it goes before the script
        --- exit code 2
    "#]],
    );
    // A script without a header takes none.
    w.write("plain.rhai", "print(1);");
    shows(
        w,
        &["run", "plain.rhai", "world"],
        expect![[r#"
        $ topo run plain.rhai world
        --- stderr
        error: unexpected argument 'world' found

        Usage: topo run plain.rhai

        For more information, try '--help'.
        --- exit code 2
    "#]],
    );
}

/// `#!/usr/bin/env -S topo run` makes a script a program.
#[test]
fn an_executable_script() {
    let w = &World::new();
    w.write("greet.rhai", GREETING);
    let topo = std::path::Path::new(env!("CARGO_BIN_EXE_topo")).parent().expect("a directory").display().to_string();
    let ran = w.run(&format!("chmod +x greet.rhai; PATH={topo}:$PATH; ./greet.rhai --count 2 world")).ok();
    assert_eq!(ran.out(), "hello world\nhello world\nsoft false 0 \n");
}

/// Statements on the command line, and a script on standard input, with arguments.
#[test]
fn other_sources() {
    as_root(|w| {
        shows(
            w,
            &["run", "-e", "print(netns(\"h1\").name)", "--rm"],
            expect![[r#"
            $ topo run -e 'print(netns("h1").name)' --rm
            h1
        "#]],
        );
        shows(
            w,
            &["run", "--rm", "-e", "print(netns(\"h1\").name)"],
            expect![[r#"
            $ topo run --rm -e 'print(netns("h1").name)'
            h1
        "#]],
        );
        let ran = w.topo_stdin(PAIR, &["run", "--rm", "-"]);
        expect![[r#"
            $ topo run --rm -
            ok   h1 reaches h2
        "#]]
        .assert_eq(&seen(w, &ran));
        let ran = w.topo_stdin(GREETING, &["run", "-", "--count", "2", "world"]).ok();
        assert_eq!(ran.out(), "hello world\nhello world\nsoft false 0 \n");
        let ran = w.topo_stdin("netns(\"a/b\");", &["run", "-"]);
        expect![[r#"
            $ topo run -
            --- stderr
            error: netns name `a/b`: '/' is not allowed in it
             --> -:1:1
              |
            1 | netns("a/b");
              | ^^^^^
              |
              = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            --- exit code 1
        "#]]
        .assert_eq(&seen(w, &ran));
        let ran = w.topo_stdin("", &["run", "-"]);
        expect![[r#"
            $ topo run -
        "#]]
        .assert_eq(&seen(w, &ran));
    });
}

/// Ctrl-C in the midst of a script: everything is taken back, and the exit code says so.
#[test]
fn interrupted() {
    as_root(|w| {
        w.write("long.rhai", "let h = netns(\"h1\");\nh.devs();\nprint(\"ready\");\nh.exec(\"sleep 100\");\n");
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
            let running = w.start_topo(&["run", "long.rhai"]);
            running.wait_for_output("ready", Duration::from_secs(20));
            running.signal(signal);
            let ran = running.wait().fails(code);
            ran.says("everything that lab `long` had made was taken back");
            assert_eq!(w.ip("netns list"), "");
        }
        // A loop that calls nothing is ended, too.
        let running = w.start_topo(&["run", "-e", "print(\"ready\"); loop { }"]);
        running.wait_for_output("ready", Duration::from_secs(20));
        running.signal(Signal::SIGINT);
        let ran = running.wait().fails(130);
        expect![[r#"
            $ topo run -e 'print("ready"); loop { }'
            ready
            --- stderr
            error: the script was stopped by signal 2
             --> -e:1:22
              |
            1 | print("ready"); loop { }
              |                      ^
            --- exit code 130
        "#]]
        .assert_eq(&seen(w, &ran));
    });
}
