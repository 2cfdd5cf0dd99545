//! What is said of a script that fails: where, why, and what to do next.

use expect_test::expect;

use super::{as_root, seen, shows};
use crate::world::World;

#[test]
fn a_failing_script() {
    as_root(|w| {
        w.write("late.rhai", "let h = netns(\"h1\");\n\n// Nobody has this address.\nh.route(\"default\", #{ via: \"192.0.2.1\" });\nh.devs();\n");
        shows(
            w,
            &["run", "late.rhai"],
            expect![[r#"
            $ topo run late.rhai
            --- stderr
            error: add route `default via 192.0.2.1` to netns `h1`: Nexthop has invalid gateway
             --> late.rhai:4:3
              |
            4 | h.route("default", #{ via: "192.0.2.1" });
              |   ^^^^^
              |
              = hint: a gateway must be on a network that `h1` has an address in; `onlink: true` takes it to be there
            everything that lab `late` had made was taken back
            --- exit code 1
        "#]],
        );
    });
}

/// The chain goes from the primitive through the library to the script's own line.
#[test]
fn a_chain_through_the_library() {
    as_root(|w| {
        w.write(
            "office.rhai",
            "import \"lan\" as lan;\nnetns(\"h2\");\nlet office = lan::star(\"sw0\", 3, net(\"10.0.0.0/24\"));\n",
        );
        shows(
            w,
            &["run", "office.rhai"],
            expect![[r#"
            $ topo run office.rhai
            --- stderr
            error: add netns `h2`: this lab has one of this name
              --> stdlib/lan.rhai:19:17
               |
            19 |         let h = netns(`h${n}`);
               |                 ^^^^^
               |
              ::: office.rhai:3:19
               |
             3 | let office = lan::star("sw0", 3, net("10.0.0.0/24"));
               |                   ---- called from here
               |
               = hint: `netns_get("h2")` returns it
            --- exit code 1
        "#]],
        );
    });
}

#[test]
fn a_chain_through_a_module_of_the_users() {
    as_root(|w| {
        w.write("lib/cables.rhai", "fn join(a, b) {\n    lay(a[\"eth0\"], b);\n}\n\nfn lay(end, name) {\n    veth(end, name, #{ mtuu: 1400 });\n}\n");
        w.write("lab.rhai", "import \"./lib/cables\" as cables;\n\nfn build() {\n    cables::join(netns(\"h1\"), \"up0\");\n}\n\nbuild();\n");
        shows(
            w,
            &["run", "lab.rhai"],
            expect![[r#"
                $ topo run lab.rhai
                --- stderr
                error: unknown option `mtuu` of `veth`
                 --> lib/cables.rhai:6:5
                  |
                6 |     veth(end, name, #{ mtuu: 1400 });
                  |     ^^^^
                  |
                 ::: lib/cables.rhai:2:5
                  |
                2 |     lay(a["eth0"], b);
                  |     --- called from here
                  |
                 ::: lab.rhai:4:13
                  |
                4 |     cables::join(netns("h1"), "up0");
                  |             ---- called from here
                  |
                 ::: lab.rhai:7:1
                  |
                7 | build();
                  | ----- called from here
                  |
                  = hint: did you mean `mtu`?
                --- exit code 1
            "#]],
        );
    });
}

/// A refusal at the settling shows who asked, through the module too.
#[test]
fn a_chain_of_a_late_refusal() {
    as_root(|w| {
        w.write("lib/ways.rhai", "fn out(h) {\n    h.route(\"default\", #{ via: \"192.0.2.1\" });\n}\n");
        w.write(
            "lab.rhai",
            "import \"./lib/ways\" as ways;\nlet h = netns(\"h1\");\nways::out(h);\nprint(h.devs().len());\n",
        );
        shows(
            w,
            &["run", "lab.rhai"],
            expect![[r#"
                $ topo run lab.rhai
                --- stderr
                error: add route `default via 192.0.2.1` to netns `h1`: Nexthop has invalid gateway
                 --> lib/ways.rhai:2:7
                  |
                2 |     h.route("default", #{ via: "192.0.2.1" });
                  |       ^^^^^
                  |
                 ::: lab.rhai:3:7
                  |
                3 | ways::out(h);
                  |       --- called from here
                  |
                  = hint: a gateway must be on a network that `h1` has an address in; `onlink: true` takes it to be there
                everything that lab `lab` had made was taken back
                --- exit code 1
            "#]],
        );
    });
}

/// A failed check doesn't end the script, but the run.
#[test]
fn failed_checks() {
    as_root(|w| {
        w.write("checks.rhai", "let h = netns(\"h1\");\ncheck(\"one is one\", 1 == 1);\ncheck(\"h1 has a way out\", h.ping(\"192.0.2.1\"));\ncheck(\"one is two\", 1 == 2);\ncheck(\"it runs\", h.exec(\"echo oh >&2; exit 3\"));\nprint(\"goes on\");\n");
        shows(
            w,
            &["run", "checks.rhai"],
            expect![[r#"
            $ topo run checks.rhai
            ok   one is one
            FAIL h1 has a way out: Network is unreachable  (checks.rhai:3:1)
            FAIL one is two  (checks.rhai:4:1)
            FAIL it runs: code 3, stderr oh  (checks.rhai:5:1)
            goes on
            --- stderr
            3 of 4 checks failed
            everything that lab `checks` had made was taken back
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["run", "-e", "check(\"it\", false)"],
            expect![[r#"
            $ topo run -e 'check("it", false)'
            FAIL it  (-e:1:1)
            --- stderr
            1 of 1 check failed
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["run", "-e", "check_within(\"it comes\", \"30ms\", || false)"],
            expect![[r#"
            $ topo run -e 'check_within("it comes", "30ms", || false)'
            FAIL it comes: after TIME  (-e:1:1)
            --- stderr
            1 of 1 check failed
            --- exit code 1
        "#]],
        );
    });
}

#[test]
fn a_failed_assert() {
    as_root(|w| {
        w.write("assert.rhai", "let h = netns(\"h1\");\nassert(h.ping(\"192.0.2.1\"), \"h1 has a way out\");\n");
        shows(
            w,
            &["run", "assert.rhai"],
            expect![[r#"
            $ topo run assert.rhai
            --- stderr
            error: assert "h1 has a way out": Network is unreachable
             --> assert.rhai:2:1
              |
            2 | assert(h.ping("192.0.2.1"), "h1 has a way out");
              | ^^^^^^
            everything that lab `assert` had made was taken back
            --- exit code 1
        "#]],
        );
    });
}

#[test]
fn syntax_errors() {
    let w = &World::new();
    let run = |text: &str| {
        w.write("bad.rhai", text);
        seen(w, &w.topo(&["run", "bad.rhai"]).fails(1))
    };
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unexpected ';'
         --> bad.rhai:1:9
          |
        1 | let x = ;
          |         ^
        --- exit code 1
    "#]]
    .assert_eq(&run("let x = ;\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: expecting ',' to separate the arguments to function call 'netns'
         --> bad.rhai:1:19
          |
        1 | let h = netns("h1";
          |                   ^
        --- exit code 1
    "#]]
    .assert_eq(&run("let h = netns(\"h1\";\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: expecting '}' to terminate this block
         --> bad.rhai:2:18
          |
        2 |     netns("h1");
          |                 ^
        --- exit code 1
    "#]]
    .assert_eq(&run("if true {\n    netns(\"h1\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: open string is not terminated
         --> bad.rhai:1:9
          |
        1 | let s = "open
          |         ^
        --- exit code 1
    "#]]
    .assert_eq(&run("let s = \"open\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: `spawn` is a reserved word
         --> bad.rhai:1:5
          |
        1 | let spawn = 1;
          |     ^^^^^
          |
          = hint: take another name for it
        --- exit code 1
    "#]]
    .assert_eq(&run("let spawn = 1;\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: `with` is a reserved word
         --> bad.rhai:1:19
          |
        1 | veth("a", "b", #{ with: 1 });
          |                   ^^^^
          |
          = hint: take another name for it
        --- exit code 1
    "#]]
    .assert_eq(&run("veth(\"a\", \"b\", #{ with: 1 });\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown variable `mtu`
         --> bad.rhai:1:18
          |
        1 | veth("a", "b", { mtu: 1400 });
          |                  ^^^
        --- exit code 1
    "#]]
    .assert_eq(&run("veth(\"a\", \"b\", { mtu: 1400 });\n"));
}

#[test]
fn unknown_names() {
    let w = &World::new();
    let run = |text: &str| {
        w.write("bad.rhai", text);
        seen(w, &w.topo(&["run", "bad.rhai"]).fails(1))
    };
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown function `netn`
         --> bad.rhai:1:1
          |
        1 | netn("h1");
          | ^^^^
          |
          = hint: did you mean `net`?
        --- exit code 1
    "#]]
    .assert_eq(&run("netn(\"h1\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown function `pnig`
         --> bad.rhai:2:3
          |
        2 | h.pnig("10.0.0.1");
          |   ^^^^
          |
          = hint: did you mean `ping`?
        --- exit code 1
    "#]]
    .assert_eq(&run("let h = netns(\"h1\");\nh.pnig(\"10.0.0.1\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown function `zebra`
         --> bad.rhai:1:1
          |
        1 | zebra(1);
          | ^^^^^
          |
          = hint: `topo doc` lists the functions
        --- exit code 1
    "#]]
    .assert_eq(&run("zebra(1);\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown variable `hl`
         --> bad.rhai:2:7
          |
        2 | print(hl);
          |       ^^
        --- exit code 1
    "#]]
    .assert_eq(&run("let h1 = netns(\"h1\");\nprint(hl);\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown variable `h1`
         --> bad.rhai:2:10
          |
        2 | fn f() { h1.devs() }
          |          ^^
          |
          = hint: a function sees its parameters and constants alone, not the variables around it
        --- exit code 1
    "#]]
    .assert_eq(&run("let h1 = netns(\"h1\");\nfn f() { h1.devs() }\nf();\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown variable `netns`
         --> bad.rhai:1:7
          |
        1 | print(netns);
          |       ^^^^^
          |
          = hint: `netns` is a function: call it, `netns(…)`
        --- exit code 1
    "#]]
    .assert_eq(&run("print(netns);\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown variable `hosts`
         --> bad.rhai:1:1
          |
        1 | hosts["eth0"];
          | ^^^^^
          |
          = hint: did you mean `host`?
        --- exit code 1
    "#]]
    .assert_eq(&run("hosts[\"eth0\"];\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown property 'nam' - a getter is not registered for type 'Dev'
         --> bad.rhai:2:15
          |
        2 | print(h["lo"].nam);
          |               ^^^
        --- exit code 1
    "#]]
    .assert_eq(&run("let h = netns(\"h1\");\nprint(h[\"lo\"].nam);\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: property not found: subnet
         --> bad.rhai:1:12
          |
        1 | print(args.subnet);
          |            ^^^^^^
        --- exit code 1
    "#]]
    .assert_eq(&run("print(args.subnet);\n"));
}

#[test]
fn wrong_arguments() {
    let w = &World::new();
    let run = |text: &str| {
        w.write("bad.rhai", text);
        seen(w, &w.topo(&["run", "bad.rhai"]).fails(1))
    };
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: call `netns` with (str | ImmutableString | String, str | ImmutableString | String): no such form of it
         --> bad.rhai:1:1
          |
        1 | netns("a", "b");
          | ^^^^^
          |
          = hint: it is called as `netns(name: string)`
        --- exit code 1
    "#]]
    .assert_eq(&run("netns(\"a\", \"b\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: call `route` with (Netns, str | ImmutableString | String): no such form of it
         --> bad.rhai:2:3
          |
        2 | h.route("default");
          |   ^^^^^
          |
          = hint: it is called as `netns.route(dst: any, options: map)`
        --- exit code 1
    "#]]
    .assert_eq(&run("let h = netns(\"h1\");\nh.route(\"default\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: call `addr` with (Netns, str | ImmutableString | String): no such form of it
         --> bad.rhai:2:3
          |
        2 | h.addr("10.0.0.1/24");
          |   ^^^^
          |
          = hint: it is called as `dev.addr(cidr: any)`
        --- exit code 1
    "#]]
    .assert_eq(&run("let h = netns(\"h1\");\nh.addr(\"10.0.0.1/24\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: option `mtu` of `veth`: expected a number of bytes from 68 to 65535, got "1400"
         --> bad.rhai:2:1
          |
        2 | veth(h["eth0"], "up0", #{ mtu: "1400" });
          | ^^^^
        --- exit code 1
    "#]]
    .assert_eq(&run("let h = netns(\"h1\");\nveth(h[\"eth0\"], \"up0\", #{ mtu: \"1400\" });\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: netns name `h1/eth0`: '/' is not allowed in it
         --> bad.rhai:1:1
          |
        1 | netns("h1/eth0");
          | ^^^^^
          |
          = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
        --- exit code 1
    "#]]
    .assert_eq(&run("netns(\"h1/eth0\");\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: unknown function `lan::star`
         --> bad.rhai:2:6
          |
        2 | lan::star("sw0");
          |      ^^^^
          |
          = hint: `topo doc` lists the functions of each module
        --- exit code 1
    "#]]
    .assert_eq(&run("import \"lan\" as lan;\nlan::star(\"sw0\");\n"));
}

#[test]
fn missing_modules() {
    let w = &World::new();
    let run = |text: &str| {
        w.write("bad.rhai", text);
        seen(w, &w.topo(&["run", "bad.rhai"]).fails(1))
    };
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: import "lann": there is no module of this name
         --> bad.rhai:1:8
          |
        1 | import "lann" as lan;
          |        ^
          |
          = hint: did you mean "lan"?
        --- exit code 1
    "#]]
    .assert_eq(&run("import \"lann\" as lan;\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: import "zebra": there is no module of this name
         --> bad.rhai:1:8
          |
        1 | import "zebra" as z;
          |        ^
          |
          = hint: the standard library has: lan; a path begins with `./`
        --- exit code 1
    "#]]
    .assert_eq(&run("import \"zebra\" as z;\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: read the script `nowhere.rhai`: No such file or directory
         --> bad.rhai:1:8
          |
        1 | import "./nowhere" as n;
          |        ^
        --- exit code 1
    "#]]
    .assert_eq(&run("import \"./nowhere\" as n;\n"));
    w.write("broken.rhai", "fn f( {\n");
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: expecting ')' to close the parameters list of function 'f'
         --> broken.rhai:1:7
          |
        1 | fn f( {
          |       ^
          |
         ::: bad.rhai:1:8
          |
        1 | import "./broken" as b;
          |        - called from here
        --- exit code 1
    "#]]
    .assert_eq(&run("import \"./broken\" as b;\nb::f();\n"));
}

/// What is thrown by the script itself, and what the language refuses.
#[test]
fn the_scripts_own_errors() {
    let w = &World::new();
    let run = |text: &str| {
        w.write("bad.rhai", text);
        seen(w, &w.topo(&["run", "bad.rhai"]).fails(1))
    };
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: the script threw: enough
         --> bad.rhai:1:1
          |
        1 | throw "enough";
          | ^^^^^
        --- exit code 1
    "#]]
    .assert_eq(&run("throw \"enough\";\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: array index 7 out of bounds: only 2 elements in array
         --> bad.rhai:2:6
          |
        2 | list[7];
          |      ^
        --- exit code 1
    "#]]
    .assert_eq(&run("let list = [1, 2];\nlist[7];\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: division by zero: 1 / 0
         --> bad.rhai:1:11
          |
        1 | let x = 1 / 0;
          |           ^
        --- exit code 1
    "#]]
    .assert_eq(&run("let x = 1 / 0;\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: calls are nested too deep
         --> bad.rhai:2:1
          |
        2 | f(0);
          | ^
          |
          = hint: does a function call itself without end?
        --- exit code 1
    "#]]
    .assert_eq(&run("fn f(n) { f(n + 1) }\nf(0);\n"));
    expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: addition overflow: 9223372036854775807 + 1
         --> bad.rhai:2:3
          |
        2 | n += 1;
          |   ^
        --- exit code 1
    "#]]
    .assert_eq(&run("let n = 9223372036854775807;\nn += 1;\n"));
}
