//! The labs that are up: `ls`, `show`, `exec`, `down`, `gc`; and what this machine can do.

use std::fs;
use std::time::Duration;

use expect_test::expect;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{PAIR, Terminal, as_root};
use crate::world::World;

/// A script that takes its time, and says when it has begun to.
const LONG: &str = r#"let h = netns("h1");
veth(h["eth0"], "up0");
h.devs();
print("ready");
h.exec("exec sleep 100");
"#;

#[test]
fn no_labs() {
    as_root(|w| {
        w.session(expect![[r#"
            $ topo ls
            --- stderr
            no lab is up
            $ topo ls --json
            []
            $ topo show pair
            --- stderr
            error: find lab `pair`: there is no lab of this name
            hint: `topo ls` lists the labs
            --- exit code 1
            $ topo down pair
            --- stderr
            error: find lab `pair`: there is no lab of this name
            hint: `topo ls` lists the labs
            --- exit code 1
            $ topo down a/b
            --- stderr
            error: lab name `a/b`: '/' is not allowed in it
            hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            --- exit code 1
            $ topo down --all
            --- stderr
            no lab is up
            $ topo gc
            --- stderr
            nothing was left behind
            $ topo exec h1 true
            --- stderr
            error: find netns `h1`: no lab has a netns of this name
            hint: `topo ls` lists the labs, `topo show LAB` what one holds
            --- exit code 1
        "#]]);
    });
}

#[test]
fn the_list() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.topo(&["run", "pair.rhai"]).ok();
        w.topo(&["bridge", "--netns", "ns9"]).ok();
        w.session(expect![[r#"
            $ topo ls
            NAME    KIND  STATE  NETNS  DEVS  AGE  SCRIPT
            bridge  lab   up     1      3     Ns   scripts/bridge.rhai
            pair    lab   up     2      2     Ns   pair.rhai
        "#]]);
        let json: Value = serde_json::from_str(w.topo(&["ls", "--json"]).ok().out()).expect("JSON");
        let mut row = json[1].clone();
        let created = row.as_object_mut().and_then(|row| row.remove("created")).and_then(|time| time.as_u64());
        assert!(created.is_some_and(|time| time > 1_700_000_000), "{created:?}");
        assert_eq!(
            row,
            json!({ "name": "pair", "kind": "lab", "state": "up", "netns": 2, "devs": 2, "sandbox": false, "script": "pair.rhai" })
        );
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
        w.session(expect![[r#"
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
        "#]]);
        let json: Value = serde_json::from_str(w.topo(&["show", "--json", "site"]).ok().out()).expect("JSON");
        let h1 = json["namespaces"].as_array().expect("a list").iter().find(|one| one["name"] == "h1").expect("h1");
        assert_eq!(h1["devs"][0]["addresses"], json!(["10.0.0.1/24", "fd00::1/64"]));
        assert_eq!((&json["state"], &json["script"]), (&"up".into(), &"site.rhai".into()));
        // What others changed shows. The kernel frees a namespace a little later.
        w.ip("netns del h1");
        w.run("while ip link show dev h1-eth0 >/dev/null 2>&1; do :; done").ok();
        w.session(expect![[r#"
            $ topo show site
            lab site: damaged, 3 netns, 7 devices, made by site.rhai Ns ago
            lost: add netns `h1`
            lost: add veth `eth0` of `h1` -- `h1-eth0`
            `topo repair site` puts back what others took away

            host  (not made by this lab)
              the-switch-of-the-upper-floor (the-sw-d0995ef3)  bridge up        10.0.0.254/24
              r1-uplink-to-the-upper-floor (r1-upl-fbc30250)   veth up          port of the-switch-of-the-upper-floor  -- r1/uplink-to-the-upper-floor
              h2-eth0                                          veth no carrier  port of the-switch-of-the-upper-floor  -- h2/eth0
              h1-eth0                                          veth gone

            h1
              gone: something else removed it

            r1
              uplink-to-the-upper-floor (uplink-5a663aa6)  veth up  10.0.0.2/24  -- r1-uplink-to-the-upper-floor (the-switch-of-the-upper-floor)

            h2
              eth0  veth down  -- h2-eth0 (the-switch-of-the-upper-floor)
            $ topo exec site/h1 true
            --- stderr
            error: enter netns `h1` of lab `site`: something else removed it
            hint: `topo down site` removes the rest
            --- exit code 1
            $ topo show sit
            --- stderr
            error: find lab `sit`: there is no lab of this name
            hint: did you mean `site`?
            --- exit code 1
        "#]]);
        w.topo(&["down", "site"]).ok();
    });
}

#[test]
fn taken_down() {
    as_root(|w| {
        for name in ["aa", "bb", "cc", "dd", "office"] {
            w.topo(&["run", "--name", name, "-e", &format!("netns(\"{name}\")")]).ok();
        }
        // One that isn't there keeps no other from being taken down.
        w.session(expect![[r#"
            $ topo down aa
            --- stderr
            lab `aa` is down
            $ topo down aa
            --- stderr
            error: find lab `aa`: there is no lab of this name
            hint: `topo ls` lists the labs
            --- exit code 1
            $ topo down bb zebra cc
            --- stderr
            lab `bb` is down
            lab `cc` is down
            error: find lab `zebra`: there is no lab of this name
            hint: `topo ls` lists the labs
            --- exit code 1
            $ topo down ofice
            --- stderr
            error: find lab `ofice`: there is no lab of this name
            hint: did you mean `office`?
            --- exit code 1
            $ topo down --all dd
            --- stderr
            error: the argument '--all' cannot be used with '[LAB]...'

            Usage: topo down --all [LAB]...

            For more information, try '--help'.
            --- exit code 2
            $ topo down --all --trace
            --- stderr
            - undo: add netns `dd`
            lab `dd` is down
            - undo: add netns `office`
            lab `office` is down
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// `down` needs neither the script nor its directory.
#[test]
fn taken_down_without_the_script() {
    as_root(|w| {
        w.write("here/pair.rhai", PAIR);
        w.topo(&["run", "here/pair.rhai"]).ok();
        w.run(&format!("rm -r here; cd /; {} down pair", env!("CARGO_BIN_EXE_topo"))).ok();
    });
}

/// What is kept of a lab's names is neither trusted when the lab has changed since, nor missed when it is damaged.
#[test]
fn commands_in_a_netns_that_was_added_later() {
    as_root(|w| {
        w.write("pair.rhai", PAIR);
        w.topo(&["run", "pair.rhai"]).ok();
        let kept = w.state().join("labs/pair/names");
        let hosts = |netns: &str| w.topo(&["exec", netns, "cat", "/etc/hosts"]).ok().out().to_owned();
        assert!(hosts("h1").contains("10.0.0.2\th2"));
        let before = std::fs::read(&kept).expect("the names are kept");
        assert!(hosts("h2").contains("10.0.0.1\th1"));
        assert_eq!(std::fs::read(&kept).expect("they stay"), before);
        w.topo(&["ls"]).ok().says("up     2      2");
        let more =
            r#"let h9 = netns("h9"); veth(h9["eth0"], netns_get("h1")["eth9"]); h9["eth0"].addr("10.9.0.9/24");"#;
        w.topo_stdin(more, &["repl", "pair"]).ok();
        assert!(hosts("h9").contains("10.9.0.9\th9"));
        assert!(hosts("h1").contains("10.9.0.9\th9"));
        w.topo(&["ls"]).ok().says("up     3      4");

        for damaged in ["", "{", "{}", "\u{0}"] {
            std::fs::write(&kept, damaged).expect("damaged");
            assert!(hosts("pair/h9").contains("10.9.0.9\th9"), "{damaged:?}");
        }
        // Where nothing can be kept, all works the same.
        std::fs::remove_file(&kept).and_then(|()| std::fs::create_dir(&kept)).expect("an obstacle");
        assert!(hosts("h2").contains("10.9.0.9\th9"));
        w.topo(&["down", "pair"]).ok();
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
        assert_eq!(w.topo_stdin("abc", &["exec", "h1", "cat"]).ok().out(), "abc");
        assert_eq!(w.topo(&["exec", "h1", "sh", "-c", "kill -9 $$"]).code, 137);
        let here = w.topo_env(&[("SHELL", "/bin/pwd")], &["exec", "h1"]).ok();
        assert_eq!(here.out().trim(), w.dir().display().to_string());
        w.session(expect![[r#"
            $ topo exec h1 sh -c 'echo out; echo err >&2; exit 7'
            out
            --- stderr
            err
            --- exit code 7
            $ topo exec h1 printf '%s ' --rm -h
            --rm -h
            $ topo exec h1 no-such-program
            --- stderr
            error: run `no-such-program`: No such file or directory
            hint: there is no such program, or its directory is not in PATH
            --- exit code 127
            $ topo exec h1 /etc/passwd
            --- stderr
            error: run `/etc/passwd`: Permission denied
            --- exit code 126
            $ topo exec h4 true
            --- stderr
            error: find netns `h4`: no lab has a netns of this name
            hint: `topo ls` lists the labs, `topo show LAB` what one holds
            --- exit code 1
            $ topo exec pair/h4 true
            --- stderr
            error: find netns `pair/h4`: lab `pair` has no such netns
            hint: did you mean `pair/h1`?
            --- exit code 1
            $ topo exec pear/h1 true
            --- stderr
            error: find lab `pear`: there is no lab of this name
            hint: did you mean `pair`?
            --- exit code 1
            $ topo exec host true
            --- stderr
            error: find netns `host`: several labs have one
            hint: say which: `other/host`, `pair/host`
            --- exit code 1
        "#]]);
        w.topo(&["down", "--all"]).ok();
    });
}

/// A lab that is being built is listed, and nobody else's to take down.
#[test]
fn a_lab_that_is_being_built() {
    as_root(|w| {
        w.write("long.rhai", LONG);
        let running = w.start_topo(&["run", "long.rhai"]);
        running.wait_for_output("ready", Duration::from_secs(20));
        w.session(expect![[r#"
            $ topo ls
            NAME  KIND  STATE     NETNS  DEVS  AGE  SCRIPT
            long  lab   building  1      2     Ns   long.rhai
            $ topo down long
            --- stderr
            error: lock lab `long`: process PID is at work on it
            hint: wait until it has ended, or end it
            --- exit code 1
            $ topo run long.rhai
            --- stderr
            error: make lab `long`: process PID is at work on it
             --> long.rhai:1:9
              |
            1 | let h = netns("h1");
              |         ^^^^^
              |
              = hint: wait for it, or give this run another name: `--name long-2`
            --- exit code 1
            $ topo gc
            --- stderr
            nothing was left behind
            $ topo exec h1 true
        "#]]);
        running.signal(Signal::SIGINT);
        running.wait().fails(130);
    });
}

/// What a killed run left is told as such, and `gc` removes it.
#[test]
fn what_a_killed_run_left() {
    as_root(|w| {
        w.write("long.rhai", LONG);
        let running = w.start_topo(&["run", "long.rhai"]);
        running.wait_for_output("ready", Duration::from_secs(20));
        w.run("until pgrep -x sleep >/dev/null; do :; done").ok();
        running.signal(Signal::SIGKILL);
        running.wait().fails(137);
        w.session(expect![[r#"
            $ topo ls
            NAME  KIND  STATE  NETNS  DEVS  AGE  SCRIPT
            long  lab   dead   1      2     Ns   long.rhai
            $ topo run long.rhai
            --- stderr
            error: make lab `long`: a run that died left it behind
             --> long.rhai:1:9
              |
            1 | let h = netns("h1");
              |         ^^^^^
              |
              = hint: `topo gc` or `topo down long` removes what is left of it
            --- exit code 1
            $ topo run --name long -e 'netns("h7")'
            --- stderr
            error: make lab `long`: a run that died left it behind
             --> -e:1:1
              |
            1 | netns("h7")
              | ^^^^^
              |
              = hint: `topo gc` or `topo down long` removes what is left of it
            --- exit code 1
            $ topo run --name other -e 'veth("up0", "up1")'
            --- stderr
            error: add veth `up0` -- `up1`: there is a device `up0` already
             --> -e:1:1
              |
            1 | veth("up0", "up1")
              | ^^^^
              |
              = hint: this lab did not make it, and leaves it alone: take another name
            --- exit code 1
            $ topo gc
            --- stderr
            removed lab `long`
            ended process PID `sleep 100`
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// A damaged record or journal is told with its file, never passed over, and keeps no other lab from being listed.
#[test]
fn damaged_files() {
    as_root(|w| {
        w.topo(&["run", "--name", "a", "-e", "netns(\"a\")"]).ok();
        w.topo(&["run", "--name", "b", "-e", "netns(\"b\")"]).ok();
        let read = |name: &str| fs::read_to_string(w.state().join("labs/a").join(name)).expect("a file of the lab's");
        let (record, journal) = (read("lab.json"), read("journal"));
        w.write("state/labs/a/lab.json", "{\"name\":");
        w.session(expect![[r#"
            $ topo ls
            NAME  KIND  STATE  NETNS  DEVS  AGE  SCRIPT
            b     lab   up     1      0     Ns   -e
            --- stderr
            error: read the record `DIR/state/labs/a/lab.json`: EOF while parsing a value at line 1 column 8
            hint: the file is damaged; nothing was changed. `topo down --force a` takes down what can still be read or has the lab's mark
            --- exit code 1
            $ topo down a
            --- stderr
            error: read the record `DIR/state/labs/a/lab.json`: EOF while parsing a value at line 1 column 8
            hint: the file is damaged; nothing was changed. `topo down --force a` takes down what can still be read or has the lab's mark
            --- exit code 1
        "#]]);
        w.topo(&["gc"]).fails(1).says("labs/a/lab.json");
        w.write("state/labs/a/lab.json", &record);
        w.write("state/labs/a/journal", &journal.replace("netns", "nonsense"));
        w.session(expect![[r#"
            $ topo down a
            --- stderr
            error: read the journal `DIR/state/labs/a/journal`: it has 304 bytes, and 301 were written
            hint: the file is damaged; nothing was changed. `topo down --force a` takes down what can still be read or has the lab's mark
            --- exit code 1
        "#]]);
        w.write("state/labs/a/journal", &journal);
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
        // Each kind that a primitive makes is asked for, and the kernel's answer is the one that `ip` gets.
        let kinds: Vec<(&str, bool)> = json
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|row| Some((row["what"].as_str()?.strip_prefix("link kind ")?, row["ok"] == true)))
            .collect();
        for made in [
            "macvlan",
            "ipvlan",
            "vlan",
            "vxlan",
            "bond",
            "vrf",
            "ifb",
            "tun",
            "gre",
            "ip6gretap",
            "ipip",
            "sit",
            "ip6tnl",
        ] {
            assert!(kinds.iter().any(|(kind, _)| *kind == made), "{made} is not asked for");
        }
        for (kind, ok) in kinds {
            let ip = w.run(&format!("unshare -n ip link add probe0 type {kind}"));
            assert_eq!(ok, !ip.err().contains("Unknown device type"), "{kind}: {}", ip.err());
        }
    });
}

/// A directory of one's own for the state, by a path from here.
#[test]
fn a_state_directory_of_ones_own() {
    World::new().session(expect![[r#"
        $ TOPO_STATE=deep/er/state topo run -e 'netns("h1")'
        --- stderr
        lab `lab` is up: 1 netns, 0 devices; `topo down lab` takes it down
        $ TOPO_STATE=deep/er/state topo ls
        NAME  KIND  STATE  NETNS  DEVS  AGE  SCRIPT
        lab   lab   up     1      0     Ns   -e
        $ stat -c %a deep/er/state deep/er/state/labs
        700
        700
        $ TOPO_STATE=deep/er/state topo down lab
        --- stderr
        lab `lab` is down
        $ ls -A deep/er/state
        labs
        lock
        secret
    "#]]);
}
