//! Labs without root: each in a private machine of its own, for an ordinary user always, for root with `--sandbox`.

use expect_test::expect;
use serde_json::Value;

use super::{PAIR, Terminal, as_root, as_user};
use crate::world::World;

/// The whole life of a lab in a sandbox; `flag` is what asks for it.
fn life(w: &World, flag: &[&str]) {
    let run = |args: &[&str]| {
        let words: Vec<&str> = ["run"].into_iter().chain(flag.iter().copied()).chain(args.iter().copied()).collect();
        w.topo(&words)
    };
    w.write("pair.rhai", PAIR);
    let first = run(&["pair.rhai"]).ok();
    assert_eq!(first.out(), "ok   h1 reaches h2\n");
    assert_eq!(first.err(), "lab `pair` is up: 2 netns, 2 devices; `topo down pair` takes it down\n");
    w.topo(&["ls"]).ok().says("pair  lab   up (sandbox)  2      2 ");
    w.topo(&["show", "pair"]).ok().says("lab pair: up, in a sandbox, 2 netns, 2 devices, made by pair.rhai");
    assert!(w.topo(&["exec", "h1", "ip", "-br", "addr"]).ok().out().contains("10.0.0.1/24"));
    w.topo(&["exec", "h1", "sh", "-c", "exit 7"]).fails(7);
    assert_eq!(w.topo_stdin("abc", &["exec", "pair/h1", "cat"]).ok().out(), "abc");
    // None of it is on the host.
    assert_eq!(w.ip("netns list"), "");
    assert!(!w.ip("-br link").contains("eth0"));

    run(&["pair.rhai"]).fails(1).says("make lab `pair`: it is up, made by `pair.rhai`");
    // The same names side by side.
    run(&["--name", "pair-2", "pair.rhai"]).ok();
    assert!(w.topo(&["exec", "pair-2/h1", "ip", "-br", "addr"]).ok().out().contains("10.0.0.1/24"));
    w.topo(&["exec", "h1", "true"]).fails(1).says("say which: `pair/h1`, `pair-2/h1`");
    let json: Value = serde_json::from_str(w.topo(&["ls", "--json"]).ok().out()).expect("JSON");
    assert!(json.as_array().expect("a list").iter().all(|row| row["sandbox"] == true), "{json}");
    w.topo(&["gc"]).ok();
    w.topo(&["down", "pair"]).ok();
    w.topo(&["exec", "h1", "true"]).ok();
    w.topo(&["down", "--all"]).ok();
}

#[test]
fn as_an_ordinary_user() {
    as_user(|w| life(w, &[]));
}

#[test]
fn as_root_who_asks_for_it() {
    as_root(|w| life(w, &["--sandbox"]));
}

/// A run that fails leaves no sandbox, and says the same as without one.
#[test]
fn a_failed_run() {
    as_user(|w| {
        w.write("half.rhai", "let h = netns(\"h1\");\nveth(h[\"eth0\"], \"up0\");\nh.devs();\nnetns(\"a/b\");\n");
        w.session(expect![[r#"
            $ topo run half.rhai
            --- stderr
            error: netns name `a/b`: '/' is not allowed in it
             --> half.rhai:4:1
              |
            4 | netns("a/b");
              | ^^^^^
              |
              = hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
            everything that lab `half` had made was taken back
            --- exit code 1
            $ topo run --rm -e 'netns("h1"); check("it", false)'
            FAIL it  (-e:1:14)
            --- stderr
            1 of 1 check failed
            everything that lab `lab` had made was taken back
            --- exit code 1
            $ topo run -e 'print(1)'
            1
            $ topo run -e 'let x = ;'
            --- stderr
            error: unexpected ';'
             --> -e:1:9
              |
            1 | let x = ;
              |         ^
            --- exit code 1
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// What failed is kept when asked for, to be looked into.
#[test]
fn a_failed_run_is_kept() {
    as_user(|w| {
        w.session(expect![[r#"
            $ topo run --keep --name half -e 'netns("h1"); throw "enough"'
            --- stderr
            error: the script threw: enough
             --> -e:1:14
              |
            1 | netns("h1"); throw "enough"
              |              ^^^^^
            lab `half` is up: 1 netns, 0 devices; `topo down half` takes it down
            --- exit code 1
            $ topo exec half/h1 ip -br addr
            lo               UNKNOWN        127.0.0.1/8 ::1/128
            $ topo down half
            --- stderr
            lab `half` is down
        "#]]);
    });
}

#[test]
fn a_script_on_standard_input() {
    as_user(|w| {
        w.topo_stdin(PAIR, &["run", "--rm", "-"]).ok().says("ok   h1 reaches h2");
        w.topo_stdin("\nnetns(\"a/b\");", &["run", "-"]).fails(1).says("--> -:2:1").says("2 | netns(\"a/b\");");
    });
}

#[test]
fn workflows_and_arguments() {
    as_user(|w| {
        w.topo(&["veth-pair", "--rm", "--subnet", "10.7.0.0/24"]).ok().says("ok   ns1 reaches ns2 at 10.7.0.3");
        w.topo(&["bridge", "--rm"]).ok().says("the host reaches ns1");
        w.topo(&["veth-pair", "--subnet", "x"]).fails(2);
    });
}

/// Kills the process that holds the sandbox of the lab `pair`, and waits until it is gone.
fn kill_holder(w: &World) {
    let holder = holder_of_pair(w);
    w.run(&format!("kill -9 {holder}; while [ -d /proc/{holder} ]; do :; done")).ok();
}

/// Returns the state of each lab in `topo ls`.
fn states(w: &World) -> Vec<String> {
    let rows: Value = serde_json::from_str(w.topo(&["ls", "--json"]).out()).expect("JSON");
    let word = |row: &Value| row["state"].as_str().expect("a word").to_owned();
    rows.as_array().expect("a list").iter().map(word).collect()
}

/// Kind of fault: a lab in a sandbox is called up by its record, where nobody goes in to look.
fn damage(w: &World, flag: &[&str]) {
    for name in ["a", "b", "c"] {
        let words = ["run"].into_iter().chain(flag.iter().copied()).chain(["--name", name, "-e", PAIR]);
        w.topo(&words.collect::<Vec<_>>()).ok();
    }
    assert_eq!(states(w), ["up"; 3]);
    for (damage, lost) in [
        (&["exec", "b/h1", "ip", "link", "set", "lo", "down"][..], "lost: add netns `h1`"),
        (&["exec", "b/h2", "ip", "addr", "del", "10.0.0.2/24", "dev", "eth0"], "lost: add address `10.0.0.2/24`"),
        (&["exec", "b/h1", "ip", "link", "del", "eth0"], "lost: add veth `eth0` of `h1`"),
    ] {
        w.topo(damage).ok();
        assert_eq!(states(w), ["up", "damaged", "up"]);
        w.topo(&["ls"]).ok().says("b     lab   damaged (sandbox)");
        w.topo(&["show", "b"]).ok().says("lab b: damaged, in a sandbox").says(lost);
        w.topo(&["repair", "b"]).ok();
        assert_eq!(states(w), ["up"; 3]);
    }
    w.topo(&["down", "--all"]).ok();
}

#[test]
fn damage_is_seen_from_outside() {
    as_user(|w| damage(w, &[]));
}

#[test]
fn damage_is_seen_from_outside_by_root() {
    as_root(|w| damage(w, &["--sandbox"]));
}

/// A sandbox that can't be looked into: the others are, and what went wrong is said beside the list.
#[test]
fn a_look_that_fails_is_an_error() {
    as_user(|w| {
        for name in ["a", "pair"] {
            w.topo(&["run", "--name", name, "-e", PAIR]).ok();
        }
        // Inside, another state directory is in the place of this one.
        let holder = holder_of_pair(w);
        let state = w.state().display().to_string();
        w.run(&format!("nsenter -t {holder} -U --preserve-credentials -m mount -t tmpfs none {state}")).ok();
        let ran = w.topo(&["ls"]).fails(1);
        ran.says("a     lab   up (sandbox) ").says("pair  lab   up (sandbox, unseen)");
        ran.says("error: look into the sandbox of lab `pair`: ");
        w.run(&format!("nsenter -t {holder} -U --preserve-credentials -m umount {state}")).ok();
        assert_eq!(states(w), ["up"; 2]);
        // One that ends is dead, whenever that is seen.
        kill_holder(w);
        assert_eq!(states(w), ["up", "dead"]);
        w.topo(&["gc"]).ok();
        w.topo(&["down", "a"]).ok();
    });
}

/// Returns the process that holds the sandbox of the lab `pair`.
fn holder_of_pair(w: &World) -> Value {
    let record = std::fs::read_to_string(w.state().join("labs/pair/lab.json")).expect("the record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    record["holder"]["pid"].clone()
}

/// The sandbox's holder was killed: the lab is dead, nothing can be done in it, and it can be removed.
#[test]
fn a_killed_holder() {
    as_user(|w| {
        w.write("pair.rhai", PAIR);
        w.topo(&["run", "pair.rhai"]).ok();
        kill_holder(w);
        w.session(expect![[r#"
            $ topo ls
            NAME  KIND  STATE           NETNS  DEVS  AGE  SCRIPT
            pair  lab   dead (sandbox)  2      2     Ns   pair.rhai
            $ topo show pair
            lab pair: dead, in a sandbox, 2 netns, 2 devices, made by pair.rhai Ns ago

            h1
              gone: its sandbox has ended

            h2
              gone: its sandbox has ended
            $ topo exec h1 true
            --- stderr
            error: enter the sandbox of lab `pair`: the process that held it has ended
            hint: `topo down pair` removes what is left of it
            --- exit code 1
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
            $ topo gc
            --- stderr
            removed lab `pair`
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
        w.topo(&["run", "pair.rhai"]).ok();
        kill_holder(w);
        w.topo(&["down", "pair"]).ok();
    });
}

/// A machine that allows no user namespaces: exit code 3, and the setting that is to be changed.
#[test]
fn where_sandboxes_are_forbidden() {
    as_user(|w| {
        w.write("pair.rhai", PAIR);
        // In a user namespace of its own, where the limit can be set without touching the machine's.
        w.write(
            "forbidden",
            "echo 0 >/proc/sys/user/max_user_namespaces\nexec setpriv --inh-caps=-all --ambient-caps=-all topo \"$@\"\n",
        );
        w.write("topo", "exec unshare --user --map-current-user --keep-caps sh -e ./forbidden \"$@\"\n");
        w.session(expect![[r#"
            $ sh ./topo run pair.rhai
            --- stderr
            error: make a sandbox: make a user namespace: the limit of namespaces is reached
            hint: no user namespace is left: `sudo sysctl -w user.max_user_namespaces=10000`, or run topo as root
            --- exit code 3
            $ sh ./topo check pair.rhai
            $ sh ./topo ls
            --- stderr
            no lab is up
        "#]]);
        let ran = w.run("sh ./topo doctor").fails(3);
        ran.says("MISSING").says("sandbox").says("sysctl -w user.max_user_namespaces=10000");
    });
}

/// What an ordinary user's doctor says: labs are built in sandboxes, and what works in there.
#[test]
fn the_doctor_of_an_ordinary_user() {
    as_user(|w| {
        let ran = w.topo(&["doctor"]).ok();
        ran.says("no rights on the host: labs are built in sandboxes").says("link kind veth").says("ping");
    });
}
