//! What is said before a script runs: of files that can't be read, rights that are missing, wrong headers, and the mistakes
//! that `topo check` finds.

use std::path::Path;

use expect_test::expect;

use super::{PAIR, Terminal, as_root, as_user};
use crate::world::World;

#[test]
fn files_that_cant_be_read() {
    as_user(|w| {
        w.write("secret.rhai", "netns(\"h1\");");
        w.run("mkdir dir; printf 'netns(\\377)' >binary.rhai; chmod 000 secret.rhai; : >empty.rhai").ok();
        w.session(expect![[r#"
            $ topo run nowhere.rhai
            --- stderr
            error: read the script `nowhere.rhai`: No such file or directory
            --- exit code 1
            $ topo run dir
            --- stderr
            error: read the script `dir`: it is a directory, and a regular file is expected
            --- exit code 1
            $ topo run binary.rhai
            --- stderr
            error: read the script `binary.rhai`: byte 6 is not UTF-8 text
            --- exit code 1
            $ topo run secret.rhai
            --- stderr
            error: read the script `secret.rhai`: Permission denied
            --- exit code 1
            $ topo run empty.rhai
            $ topo check nowhere.rhai binary.rhai empty.rhai
            --- stderr
            error: read the script `nowhere.rhai`: No such file or directory
            error: read the script `binary.rhai`: byte 6 is not UTF-8 text
            2 mistakes found
            --- exit code 1
        "#]]);
        w.topo(&["run", "line\nbreak.rhai"]).fails(1).says(r"read the script `line\nbreak.rhai`");
    });
}

/// A state directory that others can write to, a file, one that can't be made.
#[test]
fn state_directories_that_cant_be_used() {
    as_user(|w| {
        w.run("mkdir open; chmod 777 open; : >file").ok();
        w.session(expect![[r#"
            $ TOPO_STATE=open topo ls
            --- stderr
            error: open the state directory `DIR/open`: others can write to it (mode 0777)
            hint: run `chmod 700 DIR/open`
            --- exit code 1
            $ TOPO_STATE=file topo ls
            --- stderr
            error: open the state directory `DIR/file`: Not a directory
            hint: set TOPO_STATE to a directory that you can write to
            --- exit code 1
            $ TOPO_STATE=/proc/topo topo ls
            --- stderr
            error: open the state directory `/proc/topo`: No such file or directory
            hint: set TOPO_STATE to a directory that you can write to
            --- exit code 1
        "#]]);
        w.run("rm -r open file").ok();
    });
}

/// The labs of root are root's.
#[test]
fn a_lab_of_roots() {
    as_user(|w| {
        w.write("pair.rhai", PAIR);
        let as_root = format!("TOPO_STATE=/run/roots {}", env!("CARGO_BIN_EXE_topo"));
        w.run_as_root(&format!("{as_root} run pair.rhai")).ok();
        for args in [&["show", "pair"][..], &["exec", "h1", "true"], &["down", "pair"], &["down", "--all"]] {
            let ran = w.topo_env(&[("TOPO_STATE", "/run/roots")], args).fails(1);
            // Where the two are one user with other rights, the directory can be read, and the lab is not to be touched.
            let reasons = ["Permission denied", "it needs CAP_NET_ADMIN and CAP_SYS_ADMIN"];
            assert!(reasons.iter().any(|reason| ran.err().contains(reason)), "{ran:?}");
        }
        w.run_as_root(&format!("{as_root} show pair; {as_root} down pair; rm -r /run/roots")).ok().says("10.0.0.1/24");
    });
}

/// A lab in a state directory that the user may use, made with rights that the user lacks.
#[test]
fn a_lab_that_needs_rights() {
    as_user(|w| {
        w.write("pair.rhai", PAIR);
        // As the user, but with root's rights over this world.
        let id = w.run("id -u").ok().stdout;
        let rights = "+net_admin,+net_raw,+sys_admin,+dac_override";
        let able = format!(
            "umask 022; setpriv --reuid {} --keep-groups --inh-caps={rights} --ambient-caps={rights} {}",
            id.trim(),
            env!("CARGO_BIN_EXE_topo")
        );
        w.run_as_root(&format!("{able} run pair.rhai")).ok();
        w.session(expect![[r#"
            $ topo ls
            NAME  KIND  STATE        NETNS  DEVS  AGE  SCRIPT
            pair  lab   up (unseen)  2      2     Ns   pair.rhai
            $ topo show pair
            --- stderr
            error: look into lab `pair`: it needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this process doesn't have
            hint: run it as root; labs of an ordinary user are built in sandboxes, which need no rights
            --- exit code 1
            $ topo exec h1 true
            --- stderr
            error: enter netns `h1`: it needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this process doesn't have
            hint: run it as root; labs of an ordinary user are built in sandboxes, which need no rights
            --- exit code 1
            $ topo down pair pear
            --- stderr
            error: take down lab `pair`: it needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this process doesn't have
            hint: run it as root; labs of an ordinary user are built in sandboxes, which need no rights
            error: find lab `pear`: there is no lab of this name
            hint: did you mean `pair`?
            --- exit code 1
        "#]]);
        w.run_as_root(&format!("{able} down pair")).ok();
    });
}

/// `topo check` tells several mistakes at once, and needs neither rights nor a kernel.
#[test]
fn mistakes_that_are_known_beforehand() {
    as_user(|w| {
        w.write(
            "bad.rhai",
            r#"import "lan" as lan;
let h = nets("h1");
veth(h["eth0"], "up0", #{ mtuu: 1400 });
h.route("default");
lan::sta("sw0", 3, net("10.0.0.0/24"));
lan::star("sw0");
if false { bridgge("br0"); }
let out = h.exec("cat /proc/sys/net/ipv4/ip_forward").stdout;
if out.trim() == "0" { netns("my host"); }
h["eth0"].addr("10.0.0.1");
h["eth0"].addr("10.0.0.300/24");
"#,
        );
        w.session(expect![[r#"
            $ topo check bad.rhai
            --- stderr
            error: unknown function `nets`
             --> bad.rhai:2:9
              |
            2 | let h = nets("h1");
              |         ^^^^
              |
              = hint: did you mean `netns`?
            error: unknown option `mtuu` of `veth`
             --> bad.rhai:3:27
              |
            3 | veth(h["eth0"], "up0", #{ mtuu: 1400 });
              |                           ^^^^
              |
              = hint: did you mean `mtu`?
            error: call `route` with 1 argument: no such form of it
             --> bad.rhai:4:3
              |
            4 | h.route("default");
              |   ^^^^^
              |
              = hint: it is called as `netns.route(dst: any, options: map)`
            error: unknown function `lan::sta`
             --> bad.rhai:5:6
              |
            5 | lan::sta("sw0", 3, net("10.0.0.0/24"));
              |      ^^^
              |
              = hint: did you mean `lan::star`?
            error: call `lan::star` with 1 argument
             --> bad.rhai:6:6
              |
            6 | lan::star("sw0");
              |      ^^^^
              |
              = hint: it takes 3
            error: unknown function `bridgge`
             --> bad.rhai:7:12
              |
            7 | if false { bridgge("br0"); }
              |            ^^^^^^^
              |
              = hint: did you mean `bridge`?
            error: `trim` changes what it is called on, and returns nothing
             --> bad.rhai:9:8
              |
            9 | if out.trim() == "0" { netns("my host"); }
              |        ^^^^
              |
              = hint: call it in a statement before: `out.trim(…);`, and use `out`
            error: netns name `my host`: ' ' is not allowed in it
             --> bad.rhai:9:24
              |
            9 | if out.trim() == "0" { netns("my host"); }
              |                        ^^^^^
              |
              = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            error: add an address: expected an address with its prefix length, such as "10.0.0.1/24" or "fd00::1/64", got "10.0.0.1" (the prefix length is missing; `10.0.0.1/32` is one host)
              --> bad.rhai:10:11
               |
            10 | h["eth0"].addr("10.0.0.1");
               |           ^^^^
            error: add an address: expected an address with its prefix length, such as "10.0.0.1/24" or "fd00::1/64", got "10.0.0.300/24" (it is not an IP address)
              --> bad.rhai:11:11
               |
            11 | h["eth0"].addr("10.0.0.300/24");
               |           ^^^^
            10 mistakes found
            --- exit code 1
        "#]]);
        let json: serde_json::Value =
            serde_json::from_str(w.topo(&["check", "--json", "bad.rhai"]).fails(1).out()).expect("JSON");
        let lines: Vec<_> = json.as_array().expect("a list").iter().map(|one| one["at"][0]["line"].as_u64()).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 9, 9, 10, 11].map(Some));
        w.topo(&["run", "bad.rhai"]).fails(1).says("bad.rhai:2:");
    });
}

#[test]
fn nothing_to_find() {
    as_user(|w| {
        w.write("pair.rhai", PAIR);
        w.session(expect![[r#"
            $ topo check pair.rhai
            $ topo check --json pair.rhai
            []
        "#]]);
    });
}

/// All that ships is free of mistakes.
#[test]
fn shipped_scripts_have_no_mistakes() {
    let w = World::new();
    let found = w.run(&format!("cd {}; find scripts stdlib examples -name '*.rhai'", env!("CARGO_MANIFEST_DIR"))).ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let paths: Vec<String> = found.out().lines().map(|path| root.join(path).display().to_string()).collect();
    assert!(paths.len() > 3, "only {paths:?}");
    let args: Vec<&str> = ["check"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    w.topo(&args).ok();
}

/// A wrong header is told at its line, by `check` and by `run`.
#[test]
fn a_wrong_header() {
    let w = World::new();
    w.write(
        "bad.rhai",
        "//! Does it.\n//!\n//! Arguments:\n//!   --count N   how many  [default: x]\nprint(args.count);\n",
    );
    w.session(expect![[r#"
        $ topo run bad.rhai
        --- stderr
        error: read the script's header: `x` of `--count` is not of the type N: not a whole number
         --> bad.rhai:4:1
          |
        4 | //!   --count N   how many  [default: x]
          | ^
          |
          = hint: the placeholder word is the type of an argument's values
        --- exit code 1
    "#]]);
    w.topo(&["check", "bad.rhai"]).fails(1).says("bad.rhai:4:");
}

/// A comment without an end would swallow the rest of the script in silence.
#[test]
fn a_comment_without_an_end() {
    as_root(|w| {
        w.write("cut.rhai", "netns(\"h1\");\n/* the rest\nnetns(\"h2\");\n");
        w.session(expect![[r#"
            $ topo run cut.rhai
            --- stderr
            error: comment is not terminated
             --> cut.rhai:2:1
              |
            2 | /* the rest
              | ^
              |
              = hint: a comment that begins with `/*` ends with `*/`
            --- exit code 1
            $ topo check cut.rhai
            --- stderr
            error: comment is not terminated
             --> cut.rhai:2:1
              |
            2 | /* the rest
              | ^
              |
              = hint: a comment that begins with `/*` ends with `*/`
            1 mistake found
            --- exit code 1
            $ topo run -e 'import "./cut" as cut;'
            --- stderr
            error: read the module `cut.rhai`: comment is not terminated (cut.rhai:2:1)
             --> -e:1:8
              |
            1 | import "./cut" as cut;
              |        ^^^^^^^
              |
              = hint: a comment that begins with `/*` ends with `*/`
            --- exit code 1
        "#]]);
    });
}
