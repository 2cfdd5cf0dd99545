//! `topo run`: what a script prints, its arguments, and what becomes of its lab.

use std::time::Duration;

use expect_test::expect;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PAIR, Terminal, as_root, seen};
use crate::world::World;

#[test]
fn a_lab_is_left_up() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.session(expect![[r#"
            $ topo run pair.rhai
            ok   h1 reaches h2
            --- stderr
            lab `pair` is up: 2 netns, 2 devices; `topo down pair` takes it down
            $ ip -n h1 -4 -br addr show dev eth0
            eth0@if1000      UP             10.0.0.1/24
            $ topo run pair.rhai
            --- stderr
            error: make lab `pair`: it is up, made by `pair.rhai`
             --> pair.rhai:1:10
              |
            1 | let h1 = netns("h1");
              |          ^^^^^
              |
              = hint: `topo down pair` takes it down; `--name` gives this run another name
            --- exit code 1
            $ topo down pair
            --- stderr
            lab `pair` is down
            $ topo run --rm pair.rhai
            ok   h1 reaches h2
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// A run that fails takes everything back, unless it is told to keep it.
#[test]
fn a_failed_lab_is_kept_when_asked() {
    as_root(|w| {
        w.write("half.rhai", "let h = netns(\"h1\");\nveth(h[\"eth0\"], \"up0\");\nh.devs();\nthrow \"enough\";\n");
        w.write("unsound.rhai", "netns(\"h2\");\ncheck(\"it\", false);\n");
        w.session(expect![[r#"
            $ topo run half.rhai
            --- stderr
            error: the script threw: enough
             --> half.rhai:4:1
              |
            4 | throw "enough";
              | ^^^^^
            everything that lab `half` had made was taken back
            --- exit code 1
            $ ip netns list
            $ topo run --keep half.rhai
            --- stderr
            error: the script threw: enough
             --> half.rhai:4:1
              |
            4 | throw "enough";
              | ^^^^^
            lab `half` is up: 1 netns, 2 devices; `topo down half` takes it down
            --- exit code 1
            $ ip netns list
            h1 (id: 0)
            $ topo run --keep unsound.rhai
            FAIL it  (unsound.rhai:2:1)
            --- stderr
            1 of 1 check failed
            lab `unsound` is up: 1 netns, 0 devices; `topo down unsound` takes it down
            --- exit code 1
            $ topo ls
            NAME     KIND  STATE  NETNS  DEVS  AGE  SCRIPT
            half     lab   up     1      2     Ns   half.rhai
            unsound  lab   up     1      0     Ns   unsound.rhai
            $ topo down --all
            --- stderr
            lab `half` is down
            lab `unsound` is down
        "#]]);
    });
}

/// A script that makes nothing leaves no lab.
#[test]
fn nothing_made() {
    as_root(|w| {
        w.session(expect![[r#"
            $ topo run -e 'print(1 + 1); debug(2);'
            2
            --- stderr
            -e:1:15: 2
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// The name: of the file, of `lab(…)`, of `--name`; the later one wins. Those without a name of their own are numbered.
#[test]
fn names_of_labs() {
    as_root(|w| {
        w.write("my lab (2).rhai", "netns(\"a\");");
        w.write("named.rhai", "lab(\"office\");\nnetns(\"b\");\n");
        w.session(expect![[r#"
            $ topo run 'my lab (2).rhai'
            --- stderr
            lab `my-lab--2-` is up: 1 netns, 0 devices; `topo down my-lab--2-` takes it down
            $ topo run named.rhai
            --- stderr
            lab `office` is up: 1 netns, 0 devices; `topo down office` takes it down
            $ topo down office
            --- stderr
            lab `office` is down
            $ topo run --name lab.1 named.rhai
            --- stderr
            lab `lab.1` is up: 1 netns, 0 devices; `topo down lab.1` takes it down
            $ topo run --name a/b named.rhai
            --- stderr
            error: lab name `a/b`: '/' is not allowed in it
            hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            --- exit code 1
            $ topo run -e 'netns("c")'
            --- stderr
            lab `lab` is up: 1 netns, 0 devices; `topo down lab` takes it down
            $ topo run -e 'netns("d")'
            --- stderr
            lab `lab-2` is up: 1 netns, 0 devices; `topo down lab-2` takes it down
            $ topo down --all
            --- stderr
            lab `lab` is down
            lab `lab-2` is down
            lab `lab.1` is down
            lab `my-lab--2-` is down
        "#]]);
    });
}

/// Each step, with the commands that do the same, and its place; then its undo.
#[test]
fn traced() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.session(expect![[r#"
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
        "#]]);
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
            r#"let h = netns("h1");
print("hello");
debug("out of the way");
table([#{ name: h, ip: ip("10.0.0.1"), n: 1 }]);
check("it is so", true);
"#,
        );
        w.session(expect![[r#"
            $ topo run --rm --json data.rhai
            {
              "checks": [
                {
                  "at": [
                    {
                      "column": 1,
                      "line": 5,
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
            --- stderr
            data.rhai:3:1: "out of the way"
            $ topo run --json -e 'netns("h1"); netns("a/b")'
            {
              "checks": [],
              "error": {
                "also": [],
                "at": [
                  {
                    "column": 14,
                    "line": 1,
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
        "#]]);
        let json_of = |script: &str| -> Value {
            serde_json::from_str(w.topo(&["run", "--json", "-e", script]).fails(1).out()).expect("JSON")
        };
        let json = json_of("check(\"it\", false)");
        assert_eq!((&json["ok"], &json["error"]), (&false.into(), &Value::Null));
        assert_eq!(json["checks"][0]["sentence"], "it");
        // A script that can't even be read is told as JSON, too.
        assert_eq!(json_of("let x = ;")["error"]["kind"], "syntax");
    });
}

#[test]
fn what_a_script_prints() {
    as_root(|w| {
        w.write(
            "prints.rhai",
            r#"let h = netns("h1");
print(h);
print(h["lo"]);
print(net("10.0.0.0/24"));
print([1, 2.5, true, ()]);
print(#{ a: 1 });
print([h, h["lo"], ip("10.0.0.1")]);
print();
print("two\nlines");
table([#{ name: "h1", ip: ip("10.0.0.1") }, #{ name: "a-longer-name", ip: () }], ["name", "ip"]);
"#,
        );
        w.session(expect![[r#"
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
        "#]]);
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

/// A script's own arguments: declared in its header, parsed, and explained. An option of `topo run` behind the script is the
/// script's, which has none such; a script without a header takes none.
#[test]
fn arguments_of_a_script() {
    let w = World::new();
    w.write("greet.rhai", GREETING);
    w.write("plain.rhai", "print(1);");
    w.session(expect![[r#"
        $ topo run greet.rhai world
        hello world
        soft false 0
        $ topo run greet.rhai --count 2 -v --how loud --subnet 10.0.0.0/24 world a b
        hello world
        hello world
        loud true 2 10.0.0.0/24
        10.0.0.1
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
        $ topo run greet.rhai
        --- stderr
        error: the following required arguments were not provided:
          <NAME>

        Usage: topo run greet.rhai <NAME> [FILE]...

        For more information, try '--help'.
        --- exit code 2
        $ topo run greet.rhai world --count many
        --- stderr
        error: invalid value 'many' for '--count <N>': not a whole number

        For more information, try '--help'.
        --- exit code 2
        $ topo run greet.rhai world --how lout
        --- stderr
        error: invalid value 'lout' for '--how <WORD>'
          [possible values: loud, soft]

          tip: a similar value exists: 'loud'

        For more information, try '--help'.
        --- exit code 2
        $ topo run greet.rhai world --subnet 10.0.0.5/24
        --- stderr
        error: invalid value '10.0.0.5/24' for '--subnet <CIDR>': host bits are set; did you mean `10.0.0.0/24`?

        For more information, try '--help'.
        --- exit code 2
        $ topo run greet.rhai world --cuont 2
        --- stderr
        error: unexpected argument '--cuont' found

          tip: a similar argument exists: '--count'

        Usage: topo run greet.rhai --count <N> <NAME> [FILE]...

        For more information, try '--help'.
        --- exit code 2
        $ topo run greet.rhai world --json
        --- stderr
        error: unexpected argument '--json' found

          tip: to pass '--json' as a value, use '-- --json'

        Usage: topo run greet.rhai <NAME> [FILE]...

        For more information, try '--help'.

        hint: `--json` is an option of topo itself: it goes before the script
        --- exit code 2
        $ topo run plain.rhai world
        --- stderr
        error: unexpected argument 'world' found

        Usage: topo run plain.rhai

        For more information, try '--help'.
        --- exit code 2
    "#]]);
}

/// `#!/usr/bin/env -S topo run` makes a script a program.
#[test]
fn an_executable_script() {
    let w = World::new();
    w.write("greet.rhai", GREETING);
    let ran = w.run("chmod +x greet.rhai; ./greet.rhai --count 2 world").ok();
    assert_eq!(ran.out(), "hello world\nhello world\nsoft false 0 \n");
}

/// Statements on the command line, and a script on standard input, with arguments.
#[test]
fn other_sources() {
    as_root(|w| {
        w.session(expect![[r#"
            $ topo run --rm -e 'print(netns("h1").name)'
            h1
            $ topo run -e 'print(netns("h1").name)' --rm
            h1
            $ topo run -
        "#]]);
        w.topo_stdin(PAIR, &["run", "--rm", "-"]).ok().says("ok   h1 reaches h2");
        let ran = w.topo_stdin(GREETING, &["run", "-", "--count", "2", "world"]).ok();
        assert_eq!(ran.out(), "hello world\nhello world\nsoft false 0 \n");
        w.topo_stdin("\nnetns(\"a/b\");", &["run", "-"]).fails(1).says("--> -:2:1").says("2 | netns(\"a/b\");");
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
        w.write("loop.rhai", "print(\"ready\");\nloop { }\n");
        let running = w.start_topo(&["run", "loop.rhai"]);
        running.wait_for_output("ready", Duration::from_secs(20));
        running.signal(Signal::SIGINT);
        let ran = running.wait().fails(130);
        let seen = seen(w, "topo run loop.rhai", &ran);
        assert!(seen.contains("error: the script was stopped by SIGINT\n --> loop.rhai:2:"), "{seen}");
    });
}

/// A module of the library has what each of its importers calls, though no more of it is read than one of them needs: the script, a module
/// of the user's that comes later, a function that imports when it is called, the statements of a session one by one.
#[test]
fn a_module_has_what_each_importer_calls() {
    as_root(|w| {
        w.write(
            "own.rhai",
            "import \"topology\" as t;\nfn one() { t::line(1, #{ names: \"own\", pool: \"10.9.0.0/16\" }).names }\n",
        );
        w.write(
            "lab.rhai",
            "import \"topology\" as shapes;\nimport \"./own\" as own;\n\
             fn later() { import \"topology\" as t; t::ring(3, #{ names: \"late\", pool: \"10.8.0.0/16\" }).names.len() }\n\
             print(shapes::star(1).names.len()); print(own::one().len()); print(later());\n\
             print(`${shapes::tree(1, 2, #{ names: \"s\", pool: \"10.7.0.0/16\" }).names.len()}`);\n",
        );
        let ran = w.topo(&["run", "--rm", "lab.rhai"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "2\n1\n3\n1\n"), "{}", ran.stderr);
        let session = "import \"topology\" as t;\nt::star(1).names.len()\nt::line(2, #{ names: \"l\", pool: \"10.7.0.0/16\" }).names.len()\n";
        let ran = w.topo_stdin(session, &["repl"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "2\n2\n"), "{}", ran.stderr);
    });
}
