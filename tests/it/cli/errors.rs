//! What is said of a script that fails: where, why, and what to do next.

use expect_test::expect;

use super::{Terminal, as_root};
use crate::world::World;

#[test]
fn a_failing_script() {
    as_root(|w| {
        w.write(
            "late.rhai",
            r#"let h = netns("h1");

// Nobody has this address.
h.route("default", #{ via: "192.0.2.1" });
h.devs();
"#,
        );
        w.session(expect![[r#"
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
        "#]]);
    });
}

/// The chain goes from the primitive through the library to the script's own line.
#[test]
fn a_chain_through_the_library() {
    as_root(|w| {
        w.write(
            "office.rhai",
            r#"import "lan" as lan;
netns("h2");
let office = lan::star("sw0", 3, net("10.0.0.0/24"));
"#,
        );
        w.session(expect![[r#"
            $ topo run office.rhai
            --- stderr
            error: add netns `h2`: this lab has one of this name
             --> office.rhai:3:19
              |
            3 | let office = lan::star("sw0", 3, net("10.0.0.0/24"));
              |                   ^^^^
              |
              = hint: `netns_get("h2")` returns it
            --- exit code 1
        "#]]);
    });
}

#[test]
fn a_chain_through_a_module_of_the_users() {
    as_root(|w| {
        w.write(
            "lib/cables.rhai",
            r#"fn join(a, b) {
    lay(a["eth0"], b);
}

fn lay(end, name) {
    veth(end, name, #{ mtuu: 1400 });
}
"#,
        );
        w.write(
            "lab.rhai",
            r#"import "./lib/cables" as cables;

fn build() {
    cables::join(netns("h1"), "up0");
}

build();
"#,
        );
        w.session(expect![[r#"
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
        "#]]);
    });
}

/// A refusal at the settling shows who asked, through the module too.
#[test]
fn a_chain_of_a_late_refusal() {
    as_root(|w| {
        w.write(
            "lib/ways.rhai",
            r#"fn out(h) {
    h.route("default", #{ via: "192.0.2.1" });
}
"#,
        );
        w.write(
            "lab.rhai",
            r#"import "./lib/ways" as ways;
let h = netns("h1");
ways::out(h);
print(h.devs().len());
"#,
        );
        w.session(expect![[r#"
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
        "#]]);
    });
}

/// A failed check doesn't end the script, but the run.
#[test]
fn failed_checks() {
    as_root(|w| {
        w.write(
            "checks.rhai",
            r#"let h = netns("h1");
check("one is one", 1 == 1);
check("h1 has a way out", h.ping("192.0.2.1"));
check("one is two", 1 == 2);
check("it runs", h.exec("echo oh >&2; exit 3"));
print("goes on");
"#,
        );
        w.session(expect![[r#"
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
            $ topo run -e 'check("it", false)'
            FAIL it  (-e:1:1)
            --- stderr
            1 of 1 check failed
            --- exit code 1
            $ topo run -e 'check_within("it comes", "30ms", || false)'
            FAIL it comes: after TIME  (-e:1:1)
            --- stderr
            1 of 1 check failed
            --- exit code 1
        "#]]);
    });
}

#[test]
fn a_failed_assert() {
    as_root(|w| {
        w.session(expect![[r#"
            $ topo run -e 'let h = netns("h1"); assert(h.ping("192.0.2.1"), "h1 has a way out")'
            --- stderr
            error: assert "h1 has a way out": Network is unreachable
             --> -e:1:22
              |
            1 | let h = netns("h1"); assert(h.ping("192.0.2.1"), "h1 has a way out")
              |                      ^^^^^^
            everything that lab `lab` had made was taken back
            --- exit code 1
        "#]]);
    });
}

#[test]
fn syntax_errors() {
    World::new().session(expect![[r#"
        $ topo run -e 'let x = ;'
        --- stderr
        error: unexpected ';'
         --> -e:1:9
          |
        1 | let x = ;
          |         ^
        --- exit code 1
        $ topo run -e 'let h = netns("h1";'
        --- stderr
        error: expecting ',' to separate the arguments to function call 'netns'
         --> -e:1:19
          |
        1 | let h = netns("h1";
          |                   ^
        --- exit code 1
        $ topo run -e 'if true { netns("h1");'
        --- stderr
        error: expecting '}' to terminate this block
         --> -e:1:23
          |
        1 | if true { netns("h1");
          |                       ^
        --- exit code 1
        $ topo run -e 'let s = "open'
        --- stderr
        error: open string is not terminated
         --> -e:1:9
          |
        1 | let s = "open
          |         ^
        --- exit code 1
        $ topo run -e 'let spawn = 1;'
        --- stderr
        error: `spawn` is a reserved word
         --> -e:1:5
          |
        1 | let spawn = 1;
          |     ^^^^^
          |
          = hint: take another name for it
        --- exit code 1
        $ topo run -e 'veth("a", "b", #{ with: 1 });'
        --- stderr
        error: `with` is a reserved word
         --> -e:1:19
          |
        1 | veth("a", "b", #{ with: 1 });
          |                   ^^^^
          |
          = hint: take another name for it
        --- exit code 1
        $ topo run -e 'veth("a", "b", { mtu: 1400 });'
        --- stderr
        error: unknown variable `mtu`
         --> -e:1:18
          |
        1 | veth("a", "b", { mtu: 1400 });
          |                  ^^^
          |
          = hint: a map begins with `#{`
        --- exit code 1
    "#]]);
}

#[test]
fn unknown_names() {
    World::new().session(expect![[r#"
        $ topo run -e 'netn("h1")'
        --- stderr
        error: unknown function `netn`
         --> -e:1:1
          |
        1 | netn("h1")
          | ^^^^
          |
          = hint: did you mean `netns`?
        --- exit code 1
        $ topo run -e 'let h = netns("h1"); h.pnig("10.0.0.1")'
        --- stderr
        error: unknown function `pnig`
         --> -e:1:24
          |
        1 | let h = netns("h1"); h.pnig("10.0.0.1")
          |                        ^^^^
          |
          = hint: did you mean `ping`?
        --- exit code 1
        $ topo run -e 'zebra(1)'
        --- stderr
        error: unknown function `zebra`
         --> -e:1:1
          |
        1 | zebra(1)
          | ^^^^^
          |
          = hint: `topo doc` lists the functions
        --- exit code 1
        $ topo run -e 'let h1 = netns("h1"); print(hl)'
        --- stderr
        error: unknown variable `hl`
         --> -e:1:29
          |
        1 | let h1 = netns("h1"); print(hl)
          |                             ^^
          |
          = hint: did you mean `h1`?
        --- exit code 1
        $ topo run -e 'let h1 = netns("h1"); fn f() { h1.devs() } f()'
        --- stderr
        error: unknown variable `h1`
         --> -e:1:32
          |
        1 | let h1 = netns("h1"); fn f() { h1.devs() } f()
          |                                ^^
          |
          = hint: a function sees its parameters, not the variables around it: pass `h1` to it
        --- exit code 1
        $ topo run -e 'print(netns)'
        --- stderr
        error: unknown variable `netns`
         --> -e:1:7
          |
        1 | print(netns)
          |       ^^^^^
          |
          = hint: `netns` is a function: call it, `netns(…)`
        --- exit code 1
        $ topo run -e 'hosts["eth0"]'
        --- stderr
        error: unknown variable `hosts`
         --> -e:1:1
          |
        1 | hosts["eth0"]
          | ^^^^^
          |
          = hint: did you mean `host`?
        --- exit code 1
        $ topo run -e 'print(host["lo"].nam)'
        --- stderr
        error: unknown property `nam` of type `Dev`
         --> -e:1:18
          |
        1 | print(host["lo"].nam)
          |                  ^^^
          |
          = hint: did you mean `name`?
        --- exit code 1
        $ topo run -e 'print(args.subnet)'
        --- stderr
        error: unknown argument `subnet`
         --> -e:1:11
          |
        1 | print(args.subnet)
          |           ^
          |
          = hint: a script's header declares its arguments
        --- exit code 1
    "#]]);
}

#[test]
fn wrong_arguments() {
    World::new().session(expect![[r#"
        $ topo run -e 'netns("a", "b")'
        --- stderr
        error: call `netns` with (string, string): no such form of it
         --> -e:1:1
          |
        1 | netns("a", "b")
          | ^^^^^
          |
          = hint: it is called as `netns(name: string)`
        --- exit code 1
        $ topo run -e 'let h = netns("h1"); h.route("default")'
        --- stderr
        error: call `route` with (Netns, string): no such form of it
         --> -e:1:24
          |
        1 | let h = netns("h1"); h.route("default")
          |                        ^^^^^
          |
          = hint: it is called as `netns.route(dst: any, options: map)`
        --- exit code 1
        $ topo run -e 'let h = netns("h1"); h.addr("10.0.0.1/24")'
        --- stderr
        error: call `addr` with (Netns, string): no such form of it
         --> -e:1:24
          |
        1 | let h = netns("h1"); h.addr("10.0.0.1/24")
          |                        ^^^^
          |
          = hint: it is called as `dev.addr(cidr: any)`
        --- exit code 1
        $ topo run -e 'veth("a", "b", #{ mtu: "1400" })'
        --- stderr
        error: option `mtu` of `veth`: expected a number of bytes from 68 to 65535, got "1400"
         --> -e:1:1
          |
        1 | veth("a", "b", #{ mtu: "1400" })
          | ^^^^
        --- exit code 1
        $ topo run -e 'netns("h1/eth0")'
        --- stderr
        error: netns name `h1/eth0`: '/' is not allowed in it
         --> -e:1:1
          |
        1 | netns("h1/eth0")
          | ^^^^^
          |
          = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
        --- exit code 1
        $ topo run -e 'import "lan" as lan; lan::star("sw0")'
        --- stderr
        error: no function `lan::star` takes these arguments
         --> -e:1:27
          |
        1 | import "lan" as lan; lan::star("sw0")
          |                           ^^^^
          |
          = hint: `topo check` tells what the module has, and how it is called
        --- exit code 1
    "#]]);
}

#[test]
fn missing_modules() {
    let w = World::new();
    w.write("broken.rhai", "fn f( {\n");
    w.session(expect![[r#"
        $ topo run -e 'import "lann" as lan;'
        --- stderr
        error: import "lann": there is no module of this name
         --> -e:1:8
          |
        1 | import "lann" as lan;
          |        ^^^^^^
          |
          = hint: did you mean "lan"?
        --- exit code 1
        $ topo run -e 'import "zebra" as z;'
        --- stderr
        error: import "zebra": there is no module of this name
         --> -e:1:8
          |
        1 | import "zebra" as z;
          |        ^^^^^^^
          |
          = hint: the standard library has: bird, container, dhcp, dns, expect, lan, nat, network, router, segment, topology, wan; a path begins with `./`
        --- exit code 1
        $ topo run -e 'import "./nowhere" as n;'
        --- stderr
        error: read the script `nowhere.rhai`: No such file or directory
         --> -e:1:8
          |
        1 | import "./nowhere" as n;
          |        ^^^^^^^^^^^
        --- exit code 1
        $ topo run -e 'import "./broken" as b; b::f()'
        --- stderr
        error: expecting ')' to close the parameters list of function 'f'
         --> broken.rhai:1:7
          |
        1 | fn f( {
          |       ^
          |
         ::: -e:1:8
          |
        1 | import "./broken" as b; b::f()
          |        ---------- called from here
        --- exit code 1
    "#]]);
}

/// What is thrown by the script itself, and what the language refuses.
#[test]
fn the_scripts_own_errors() {
    World::new().session(expect![[r#"
        $ topo run -e 'throw "enough"'
        --- stderr
        error: the script threw: enough
         --> -e:1:1
          |
        1 | throw "enough"
          | ^^^^^
        --- exit code 1
        $ topo run -e 'let list = [1, 2]; list[7]'
        --- stderr
        error: array index 7 out of bounds: only 2 elements in array
         --> -e:1:25
          |
        1 | let list = [1, 2]; list[7]
          |                         ^
        --- exit code 1
        $ topo run -e 'let x = 1 / 0;'
        --- stderr
        error: division by zero: 1 / 0
         --> -e:1:11
          |
        1 | let x = 1 / 0;
          |           ^
        --- exit code 1
        $ topo run -e 'fn f(n) { f(n + 1) } f(0)'
        --- stderr
        error: calls are nested too deep
         --> -e:1:22
          |
        1 | fn f(n) { f(n + 1) } f(0)
          |                      ^
          |
          = hint: does a function call itself without end?
        --- exit code 1
        $ topo run -e 'let n = 9223372036854775807; n += 1'
        --- stderr
        error: addition overflow: 9223372036854775807 + 1
         --> -e:1:32
          |
        1 | let n = 9223372036854775807; n += 1
          |                                ^
        --- exit code 1
    "#]]);
}
