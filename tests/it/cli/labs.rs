//! The labs that are up: `ls`, `show`, `exec`, `down`, `gc`; and what this machine can do.

use std::fs;
use std::time::Duration;

use expect_test::expect;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PAIR, as_root, seen, shows};
use crate::world::World;

#[test]
fn no_labs() {
    as_root(|w| {
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            --- stderr
            no lab is up
        "#]],
        );
        assert_eq!(w.topo(&["ls", "--json"]).ok().out().trim(), "[]");
        shows(
            w,
            &["show", "pair"],
            expect![[r#"
            $ topo show pair
            --- stderr
            error: find lab `pair`: there is no lab of this name
             |
             = hint: `topo ls` lists the labs
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["down", "pair"],
            expect![[r#"
            $ topo down pair
            --- stderr
            error: find lab `pair`: there is no lab of this name
             |
             = hint: `topo ls` lists the labs
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["down", "a/b"],
            expect![[r#"
            $ topo down a/b
            --- stderr
            error: lab name `a/b`: '/' is not allowed in it
             |
             = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["down", "--all"],
            expect![[r#"
            $ topo down --all
        "#]],
        );
        shows(
            w,
            &["gc"],
            expect![[r#"
            $ topo gc
        "#]],
        );
        shows(
            w,
            &["exec", "h1", "true"],
            expect![[r#"
            $ topo exec h1 true
            --- stderr
            error: find netns `h1`: no lab has a netns of this name
             |
             = hint: `topo ls` lists the labs, `topo show LAB` what one holds
            --- exit code 1
        "#]],
        );
    });
}

#[test]
fn the_list() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.topo(&["run", "pair.rhai"]).ok();
        w.topo(&["bridge", "--netns", "ns9"]).ok();
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            NAME    STATE  NETNS  DEVS  AGE  SCRIPT
            bridge  up     1      3     Ns   scripts/bridge.rhai
            pair    up     2      2     Ns   pair.rhai
        "#]],
        );
        let json: Value = serde_json::from_str(w.topo(&["ls", "--json"]).ok().out()).expect("JSON");
        let row = &json[1];
        assert_eq!(
            (&row["name"], &row["state"], &row["netns"], &row["devs"], &row["sandbox"], &row["script"]),
            (&"pair".into(), &"up".into(), &2.into(), &2.into(), &false.into(), &"pair.rhai".into())
        );
        assert!(row["created"].as_u64().is_some_and(|time| time > 1_700_000_000));
        w.topo(&["down", "--all"]).ok();
    });
}

/// One lab as the kernel has it: long names, ports, routes of both families, what others took away.
#[test]
fn one_lab() {
    as_root(|w| {
        w.write(
            "site.rhai",
            r#"let sw = bridge("the-switch-of-the-upper-floor");
let h1 = netns("h1");
let r1 = netns("r1").forward(true);
let h2 = netns("h2");
veth(h1["eth0"], sw);
veth(r1["uplink-to-the-upper-floor"], sw);
sw.addr("10.0.0.254/24");
h1["eth0"].addr("10.0.0.1/24").addr("fd00::1/64");
r1["uplink-to-the-upper-floor"].addr("10.0.0.2/24");
h1.route("default", #{ via: "10.0.0.2" });
h1.route("10.9.0.0/16", #{ blackhole: true });
host.route("10.8.0.0/16", #{ via: "10.0.0.2" });
veth(h2["eth0"], sw);
h2["eth0"].down();
"#,
        );
        w.topo(&["run", "site.rhai"]).ok();
        shows(
            w,
            &["show", "site"],
            expect![[r#"
            $ topo show site
            lab site: up, 3 netns, 7 devices, made by site.rhai Ns ago

            host  (not made by this lab)
              the-switch-of-the-upper-floor (the-sw-d0995ef3)  bridge up        10.0.0.254/24
              h1-eth0                                          veth up          port of the-switch-of-the-upper-floor  -- h1/eth0
              r1-uplink-to-the-upper-floor (r1-upl-fbc30250)   veth up          port of the-switch-of-the-upper-floor  -- r1/uplink-to-the-upper-floor
              h2-eth0                                          veth no carrier  port of the-switch-of-the-upper-floor  -- h2/eth0

            h1
              eth0  veth up  10.0.0.1/24  fd00::1/64  -- h1-eth0 (the-switch-of-the-upper-floor)
              route default via 10.0.0.2 dev eth0
              route blackhole 10.9.0.0/16

            r1
              uplink-to-the-upper-floor (uplink-5a663aa6)  veth up  10.0.0.2/24  -- r1-uplink-to-the-upper-floor (the-switch-of-the-upper-floor)

            h2
              eth0  veth down  -- h2-eth0 (the-switch-of-the-upper-floor)
        "#]],
        );
        shows(
            w,
            &["show", "--steps", "site"],
            expect![[r#"
            $ topo show --steps site
            ip link add the-sw-d0995ef3 type bridge
            ip link set dev the-sw-d0995ef3 up
            ip netns add h1
            ip -n h1 link set dev lo up
            ip netns add r1
            ip -n r1 link set dev lo up
            ip netns exec r1 sysctl -w net.ipv4.ip_forward=1
            ip netns exec r1 sysctl -w net.ipv6.conf.all.forwarding=1
            ip netns add h2
            ip -n h2 link set dev lo up
            ip link add h1-eth0 type veth peer name eth0 netns h1
            ip link set dev h1-eth0 master the-sw-d0995ef3 up
            ip -n h1 link set dev eth0 up
            ip link add r1-upl-fbc30250 type veth peer name uplink-5a663aa6 netns r1
            ip link set dev r1-upl-fbc30250 master the-sw-d0995ef3 up
            ip -n r1 link set dev uplink-5a663aa6 up
            ip addr add 10.0.0.254/24 brd + dev the-sw-d0995ef3
            ip -n h1 addr add 10.0.0.1/24 brd + dev eth0
            ip -n h1 addr add fd00::1/64 nodad dev eth0
            ip -n r1 addr add 10.0.0.2/24 brd + dev uplink-5a663aa6
            ip -n h1 route add default via 10.0.0.2
            ip -n h1 route add blackhole 10.9.0.0/16
            ip route add 10.8.0.0/16 via 10.0.0.2
            ip link add h2-eth0 type veth peer name eth0 netns h2
            ip link set dev h2-eth0 master the-sw-d0995ef3 up
            ip -n h2 link set dev eth0 up
            ip -n h2 link set dev eth0 down
        "#]],
        );
        let json: Value = serde_json::from_str(w.topo(&["show", "--json", "site"]).ok().out()).expect("JSON");
        let h1 = json["namespaces"].as_array().expect("a list").iter().find(|one| one["name"] == "h1").expect("h1");
        assert_eq!(h1["devs"][0]["addresses"], serde_json::json!(["10.0.0.1/24", "fd00::1/64"]));
        assert_eq!((&json["state"], &json["script"]), (&"up".into(), &"site.rhai".into()));
        // What others changed shows.
        w.ip("netns del h1");
        // The kernel frees it a little later.
        w.run("while ip link show dev h1-eth0 >/dev/null 2>&1; do :; done").ok();
        w.ip("-n r1 link set lo down");
        shows(
            w,
            &["show", "site"],
            expect![[r#"
            $ topo show site
            lab site: up, 3 netns, 7 devices, made by site.rhai Ns ago

            host  (not made by this lab)
              the-switch-of-the-upper-floor (the-sw-d0995ef3)  bridge up        10.0.0.254/24
              r1-uplink-to-the-upper-floor (r1-upl-fbc30250)   veth up          port of the-switch-of-the-upper-floor  -- r1/uplink-to-the-upper-floor
              h2-eth0                                          veth no carrier  port of the-switch-of-the-upper-floor  -- h2/eth0

            h1
              gone: No such file or directory

            r1
              uplink-to-the-upper-floor (uplink-5a663aa6)  veth up  10.0.0.2/24  -- r1-uplink-to-the-upper-floor (the-switch-of-the-upper-floor)

            h2
              eth0  veth down  -- h2-eth0 (the-switch-of-the-upper-floor)
        "#]],
        );
        shows(
            w,
            &["exec", "site/h1", "true"],
            expect![[r#"
            $ topo exec site/h1 true
            --- stderr
            error: enter netns `h1` of lab `site`: something else removed it
             |
             = hint: `topo down site` removes the rest
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["show", "sit"],
            expect![[r#"
            $ topo show sit
            --- stderr
            error: find lab `sit`: there is no lab of this name
             |
             = hint: did you mean `site`?
            --- exit code 1
        "#]],
        );
        w.topo(&["down", "site"]).ok();
    });
}

#[test]
fn taken_down() {
    as_root(|w| {
        for name in ["a", "b", "c", "d"] {
            w.topo(&["run", "--name", name, "-e", &format!("netns(\"{name}\")")]).ok();
        }
        shows(
            w,
            &["down", "a"],
            expect![[r#"
            $ topo down a
            --- stderr
            lab `a` is down
        "#]],
        );
        shows(
            w,
            &["down", "a"],
            expect![[r#"
            $ topo down a
            --- stderr
            error: find lab `a`: there is no lab of this name
             |
             = hint: did you mean `b`?
            --- exit code 1
        "#]],
        );
        // One that isn't there keeps no other from being taken down.
        shows(
            w,
            &["down", "b", "bb", "c"],
            expect![[r#"
            $ topo down b bb c
            --- stderr
            lab `b` is down
            lab `c` is down
            error: find lab `bb`: there is no lab of this name
             |
             = hint: `topo ls` lists the labs
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["down", "--all", "d"],
            expect![[r#"
            $ topo down --all d
            --- stderr
            error: the argument '--all' cannot be used with '[LAB]...'

            Usage: topo down --all [LAB]...

            For more information, try '--help'.
            --- exit code 2
        "#]],
        );
        shows(
            w,
            &["down", "--all", "--trace"],
            expect![[r#"
            $ topo down --all --trace
            --- stderr
            - undo: add netns `d`
            lab `d` is down
        "#]],
        );
        w.topo(&["run", "--name", "office", "-e", "netns(\"a\")"]).ok();
        shows(
            w,
            &["down", "ofice"],
            expect![[r#"
            $ topo down ofice
            --- stderr
            error: find lab `ofice`: there is no lab of this name
             |
             = hint: did you mean `office`?
            --- exit code 1
        "#]],
        );
        w.topo(&["down", "office"]).ok();
    });
}

/// `down` needs neither the script nor its directory.
#[test]
fn taken_down_without_the_script() {
    as_root(|w| {
        w.write("here/pair.rhai", PAIR);
        w.topo(&["run", "here/pair.rhai"]).ok();
        w.run("rm -r here").ok();
        let topo = env!("CARGO_BIN_EXE_topo");
        w.run(&format!("cd /; {topo} down pair")).ok();
    });
}

#[test]
fn commands_in_a_netns() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.topo(&["run", "pair.rhai"]).ok();
        w.topo(&["run", "--name", "other", "-e", "netns(\"h3\")"]).ok();
        assert!(w.topo(&["exec", "h1", "ip", "-br", "addr"]).ok().out().contains("10.0.0.1/24"));
        assert!(w.topo(&["exec", "pair/h2", "ip", "-br", "addr"]).ok().out().contains("10.0.0.2/24"));
        assert!(!w.topo(&["exec", "pair/host", "ip", "-br", "addr"]).ok().out().contains("10.0.0."));
        // The exit code, both outputs, options of the command's own, and standard input pass through.
        let ran = w.topo(&["exec", "h1", "sh", "-c", "echo out; echo err >&2; exit 7"]).fails(7);
        assert_eq!((ran.out(), ran.err()), ("out\n", "err\n"));
        assert_eq!(w.topo_stdin("abc", &["exec", "h1", "cat"]).ok().out(), "abc");
        assert_eq!(w.topo(&["exec", "h1", "printf", "%s", "--rm"]).ok().out(), "--rm");
        assert_eq!(w.topo(&["exec", "h1", "sh", "-c", "kill -9 $$"]).code, 137);
        assert_eq!(
            w.topo_env(&[("SHELL", "/bin/pwd")], &["exec", "h1"]).ok().out().trim(),
            w.dir().to_str().expect("UTF-8")
        );
        shows(
            w,
            &["exec", "h1", "no-such-program"],
            expect![[r#"
            $ topo exec h1 no-such-program
            --- stderr
            error: run `no-such-program`: No such file or directory
             |
             = hint: there is no such program, or its directory is not in PATH
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["exec", "h1", "/etc/passwd"],
            expect![[r#"
            $ topo exec h1 /etc/passwd
            --- stderr
            error: run `/etc/passwd`: Permission denied
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["exec", "h4", "true"],
            expect![[r#"
            $ topo exec h4 true
            --- stderr
            error: find netns `h4`: no lab has a netns of this name
             |
             = hint: `topo ls` lists the labs, `topo show LAB` what one holds
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["exec", "pair/h4", "true"],
            expect![[r#"
            $ topo exec pair/h4 true
            --- stderr
            error: find netns `pair/h4`: lab `pair` has no such netns
             |
             = hint: did you mean `pair/h1`?
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["exec", "pear/h1", "true"],
            expect![[r#"
            $ topo exec pear/h1 true
            --- stderr
            error: find lab `pear`: there is no lab of this name
             |
             = hint: did you mean `pair`?
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["exec", "host", "true"],
            expect![[r#"
            $ topo exec host true
            --- stderr
            error: find netns `host`: several labs have one
             |
             = hint: say which: `other/host`, `pair/host`
            --- exit code 1
        "#]],
        );
        w.topo(&["down", "--all"]).ok();
    });
}

/// A lab that is being built is listed, and nobody else's to take down.
#[test]
fn a_lab_that_is_being_built() {
    as_root(|w| {
        w.write("long.rhai", "let h = netns(\"h1\");\nh.devs();\nprint(\"ready\");\nh.exec(\"sleep 100\");\n");
        let running = w.start_topo(&["run", "long.rhai"]);
        running.wait_for_output("ready", Duration::from_secs(20));
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            NAME  STATE     NETNS  DEVS  AGE  SCRIPT
            long  building  1      0     Ns   long.rhai
        "#]],
        );
        shows(
            w,
            &["down", "long"],
            expect![[r#"
            $ topo down long
            --- stderr
            error: lock lab `long`: process PID is at work on it
             |
             = hint: wait until it has ended, or end it: it takes the lab down itself
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["run", "long.rhai"],
            expect![[r#"
            $ topo run long.rhai
            --- stderr
            error: add netns `h1`: lab `long` has made one of this name
             --> long.rhai:1:9
              |
            1 | let h = netns("h1");
              |         ^^^^^
              |
              = hint: `topo down long` removes it, `topo gc` if its run died; `--sandbox` runs labs with the same names side by side
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["gc"],
            expect![[r#"
            $ topo gc
        "#]],
        );
        w.topo(&["exec", "h1", "true"]).ok();
        running.signal(Signal::SIGINT);
        running.wait().fails(130);
    });
}

/// What a killed run left is told as such, and `gc` removes it.
#[test]
fn what_a_killed_run_left() {
    as_root(|w| {
        w.write("long.rhai", "let h = netns(\"h1\");\nveth(h[\"eth0\"], \"up0\");\nh.devs();\nprint(\"ready\");\nh.exec(\"sleep 100\");\n");
        let running = w.start_topo(&["run", "long.rhai"]);
        running.wait_for_output("ready", Duration::from_secs(20));
        running.signal(Signal::SIGKILL);
        running.wait().fails(137);
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            NAME  STATE  NETNS  DEVS  AGE  SCRIPT
            long  dead   1      2     Ns   long.rhai
        "#]],
        );
        shows(
            w,
            &["run", "long.rhai"],
            expect![[r#"
            $ topo run long.rhai
            --- stderr
            error: add netns `h1`: lab `long` has made one of this name
             --> long.rhai:1:9
              |
            1 | let h = netns("h1");
              |         ^^^^^
              |
              = hint: `topo down long` removes it, `topo gc` if its run died; `--sandbox` runs labs with the same names side by side
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["run", "--name", "other", "-e", "netns(\"h1\")"],
            expect![[r#"
            $ topo run --name other -e 'netns("h1")'
            --- stderr
            error: add netns `h1`: lab `long` has made one of this name
             --> -e:1:1
              |
            1 | netns("h1")
              | ^^^^^
              |
              = hint: `topo down long` removes it, `topo gc` if its run died; `--sandbox` runs labs with the same names side by side
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["gc"],
            expect![[r#"
            $ topo gc
            --- stderr
            removed lab `long`
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

/// A damaged record or journal is told with its file, never passed over, and keeps no other lab from being listed.
#[test]
fn damaged_files() {
    as_root(|w| {
        w.topo(&["run", "--name", "a", "-e", "netns(\"a\")"]).ok();
        w.topo(&["run", "--name", "b", "-e", "netns(\"b\")"]).ok();
        let (record, journal) = (w.state().join("labs/a/lab.json"), w.state().join("labs/a/journal"));
        let (good_record, good_journal) =
            (fs::read_to_string(&record).expect("a record"), fs::read_to_string(&journal).expect("a journal"));
        w.write("state/labs/a/lab.json", "{\"name\":");
        shows(
            w,
            &["ls"],
            expect![[r#"
            $ topo ls
            NAME  STATE  NETNS  DEVS  AGE  SCRIPT
            b     up     1      0     Ns   -e
            --- stderr
            error: read the record `DIR/state/labs/a/lab.json`: EOF while parsing a value at line 1 column 8
             |
             = hint: the file is damaged; nothing was changed
            --- exit code 1
        "#]],
        );
        shows(
            w,
            &["down", "a"],
            expect![[r#"
            $ topo down a
            --- stderr
            error: read the record `DIR/state/labs/a/lab.json`: EOF while parsing a value at line 1 column 8
             |
             = hint: the file is damaged; nothing was changed
            --- exit code 1
        "#]],
        );
        w.topo(&["gc"]).fails(1).says("labs/a/lab.json");
        w.write("state/labs/a/lab.json", &good_record);
        w.write("state/labs/a/journal", &good_journal.replace("netns", "nonsense"));
        shows(
            w,
            &["down", "a"],
            expect![[r#"
            $ topo down a
            --- stderr
            error: read the journal `DIR/state/labs/a/journal`, line 1: read a step of sort `nonsense`: this release knows no such step
             |
             = hint: the file is damaged; nothing was changed. What the lab made bears its mark: `ip -d link` shows it
            --- exit code 1
        "#]],
        );
        w.write("state/labs/a/journal", &good_journal);
        w.topo(&["down", "a", "b"]).ok();
    });
}

/// What the kernel lacks is told with the way to get it.
#[test]
fn the_doctor() {
    as_root(|w| {
        let text = w.topo(&["doctor"]).ok();
        for part in ["STATE", "kernel", "state directory", "network namespaces", "link kind veth", "cables", "ping"] {
            text.says(part);
        }
        let json: Value = serde_json::from_str(w.topo(&["doctor", "--json"]).ok().out()).expect("JSON");
        for row in json.as_array().expect("a list") {
            let what = row["what"].as_str().expect("a word");
            text.says(what);
            let (ok, fix) = (row["ok"] == true, row["fix"].as_str().expect("a text"));
            assert_eq!(ok, fix.is_empty(), "{what}: ok has nothing to fix, and what is not ok has a fix: {row}");
        }
    });
}

/// An own directory for the state, by a path from here.
#[test]
fn a_state_directory_of_ones_own() {
    let w = World::new();
    let env = &[("TOPO_STATE", "deep/er/state")];
    w.topo_env(env, &["run", "-e", "netns(\"h1\")"]).ok();
    expect![[r#"
        $ TOPO_STATE=deep/er/state topo ls
        NAME  STATE  NETNS  DEVS  AGE  SCRIPT
        lab   up     1      0     Ns   -e
    "#]]
    .assert_eq(&seen(&w, &w.topo_env(env, &["ls"])));
    assert_eq!(w.run("stat -c %a deep/er/state deep/er/state/labs").ok().out(), "700\n700\n");
    w.topo_env(env, &["down", "lab"]).ok();
    assert_eq!(w.run("ls deep/er/state/labs").ok().out(), "");
}
