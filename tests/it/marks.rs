//! What proves that something is a lab's can't be written by others: no command ends or deletes on the strength of a mark that
//! another machine, an ordinary user or a namespace could have made.

use super::stage::{KILLED, in_used_world, with_fault};
use super::world::{Ran, World};

/// A lab with something of each sort: namespaces, devices, rules, and processes in a namespace, on the host and left by a command.
const LAB: &str = r#"
    let a = netns("a");
    let br = bridge("b0");
    br.addr("10.9.0.1/24");
    veth(a["eth0"], br);
    a["eth0"].addr("10.9.0.2/24");
    host.masquerade("10.9.0.0/24");
    a.start("sleep 1001");
    host.start("sleep 1002");
    host.exec("sleep 1003 >/dev/null 2>&1 &");
    a.exec("sleep 1004 >/dev/null 2>&1 &");"#;

/// Starts a machine with pid, mount and network namespaces of its own, and returns its first process.
fn machine(w: &World, name: &str) -> String {
    let inside = "mount -t tmpfs n /run; mkdir -p /run/netns; ip link set lo up; echo up >$0; exec sleep 9999";
    let script = format!(
        "mkfifo {name}; unshare -nmpf --mount-proc --propagation private sh -ec '{inside}' $PWD/{name} >/dev/null 2>&1 & \
         cat {name} >/dev/null; rm {name}; pgrep -P $!"
    );
    w.run(&script).ok().out().trim().to_owned()
}

/// Runs a shell script in a machine, in which `topo` has its default state directory.
fn run_in(w: &World, machine: &str, script: &str) -> Ran {
    let script = format!("unset TOPO_STATE; export TOPO_STORE=/run/store; {script}");
    w.run(&format!("nsenter -t {machine} -n -m -p sh -ec '{}'", script.replace('\'', r"'\''")))
}

/// Returns what a machine has: links, namespaces, rules, and processes with their numbers.
fn state_of(w: &World, machine: &str) -> String {
    let script = "ip link; ip netns; ip -n a link; nft list ruleset; pgrep -fa '^(sleep 10|topo __supervise)'; ls /run/toposcript/labs";
    run_in(w, machine, script).ok().out().to_owned()
}

/// Two machines with one path for the state directory, labs of one name and the kernel's control groups in common: no command of
/// the one touches the other.
#[test]
fn two_machines_never_touch_each_other() {
    in_used_world("", |w, before| {
        let (one, two) = (machine(w, "one"), machine(w, "two"));
        w.write("lab.rhai", LAB);
        let lab = w.dir().join("lab.rhai").display().to_string();
        // Before, a lab of the world's own, which sees the processes of both.
        w.topo(&["run", "--name", "x", &lab]).ok();
        run_in(w, &one, &format!("topo run --name x {lab}")).ok();
        let untouched = state_of(w, &one);
        for processes in ["sleep 1001", "sleep 1002", "sleep 1003", "sleep 1004"] {
            assert!(untouched.contains(processes), "{untouched}");
        }
        let own = w.topo(&["show", "x"]).ok().out().to_owned();
        assert!(own.contains("running"), "{own}");
        let commands = [
            format!("topo run --name x {lab}; topo gc; topo down x"),
            format!("topo run --rm --name x {lab}"),
            r#"! topo run --name x -e 'netns("a"); host.exec("sleep 1009 &"); throw 1;'"#.into(),
            format!("topo run --name x {lab}; rm -r /run/toposcript/labs/x; topo gc"),
            format!("! TOPO_FAULT=kill:20 topo run --name x {lab}; topo gc"),
            format!("topo run --name x {lab}; kill -9 $(pgrep -f \"^topo __supervise\"); topo down --all"),
            r#"printf 'host.exec("sleep 1009 &");\nbridge("b7");\n:undo\n:undo\n:quit\n' | topo repl; topo gc"#.into(),
        ];
        for command in commands {
            run_in(w, &two, &command).ok();
            assert_eq!(state_of(w, &one), untouched, "{command}");
            let left = run_in(w, &two, "pgrep -fa \"^sleep 10\" || true; ip netns; nft list tables; topo ls").ok();
            assert!(!left.out().contains("sleep") && !left.out().contains("topo-"), "{command}: {}", left.out());
        }
        // The machine that sees the processes of both.
        w.topo(&["gc"]).ok().says("nothing was left behind");
        w.topo(&["down", "x"]).ok();
        w.run(&format!("! TOPO_FAULT=kill:20 {} run --name x {lab}", w.program().display())).ok();
        w.topo(&["gc"]).ok();
        assert_eq!(state_of(w, &one), untouched);
        run_in(w, &one, "topo down x").ok();
        w.run(&format!("kill -9 {one} {two}; rm lab.rhai")).ok();
        w.assert_clean(before);
    });
}

/// An ordinary user, and root inside a namespace of their own, copy every mark that they can read: nothing of theirs is touched.
#[test]
fn forged_marks_prove_nothing() {
    in_used_world("", |w, before| {
        w.topo(&["run", "--name", "lab", "-e", LAB]).ok();
        // The marks, as others can read them; and those of a lab that is gone, which `gc` looks for.
        let forge = r#"
            mark=$(ip -j link show b0 | grep -o 'topo:[0-9a-f]*:lab'); gone=${mark%lab}gone
            env=$(tr '\0' '\n' </proc/$(pgrep -fx 'sleep 1002')/environ | grep TOPO_MARK)
            case $mark in topo:*) ;; *) exit 1 ;; esac
            case $env in TOPO_MARK=topo:*) ;; *) exit 1 ;; esac
            case $env in *$mark*) exit 1 ;; esac
            start() { "$@" >/dev/null 2>&1 & }
            n=2000
            user=env
            if setpriv --reuid 12345 true 2>/dev/null; then
                user="setpriv --reuid 12345 --regid 12345 --clear-groups env"
                cp $(command -v setpriv) suid; chmod 4755 suid; chmod 711 .
                # A set-user-ID program that another user has started.
                start $user $env $PWD/suid --reuid 0 --clear-groups sleep 2999
            fi
            for mark in $mark $gone; do
                n=$((n + 10))
                start $user $env sleep $((n + 1))
                start $user TOPO_MARK=$mark setsid sleep $((n + 2))
                # A namespace of the user's own, with each mark in it.
                start $user unshare -rn sh -ec "ip link set lo alias $mark; ip link add b0 type bridge; ip link set b0 alias $mark
                    nft add table inet t '{ comment \"$mark\"; }'; exec sleep $((n + 3))"
                # One that got a name from somebody else, as a container's has.
                ip netns add forged$n; ip -n forged$n link set lo alias $mark
                start ip netns exec forged$n sleep $((n + 4))
                ip -n forged$n link add b0 type bridge; ip -n forged$n link set b0 alias $mark
                ip netns exec forged$n nft add table inet t "{ comment \"$mark\"; }"
                # Root's own, with the environment of a command from a script.
                start env $env sleep $((n + 5))
                start env TOPO_MARK=$mark sleep $((n + 6))
            done
            until [ $(pgrep -fxc 'sleep 20[12][0-9]') = 12 ]; do sleep 0.02; done"#;
        w.run(forge).ok();
        let forged = || {
            w.run("pgrep -fa '^(.*/)?sleep 2[0-9]{3}$'; ip netns | grep forged; ip -n forged2010 -d link; ip netns exec forged2020 nft list tables").ok().out().to_owned()
        };
        let untouched = forged();
        w.topo(&["gc"]).ok().says("nothing was left behind");
        assert_eq!(forged(), untouched, "gc");
        let mark = w.run("ip -j link show b0 | grep -o 'topo:[0-9a-f]*:'").ok().out().trim().to_owned();
        w.run(&format!(
            r#"! {} run --name gone -e 'netns("g"); host.exec("sleep 1009 >/dev/null 2>&1 &"); throw 1;'"#,
            w.program().display()
        ))
        .ok();
        assert_eq!(forged(), untouched, "a run that fails, {mark}");
        w.topo(&["run", "--rm", "--name", "gone", "-e", "netns(\"g\"); host.start(\"sleep 1009\");"]).ok();
        assert_eq!(forged(), untouched, "a run with --rm");
        with_fault(
            w,
            "kill:12",
            &["run", "--name", "gone", "-e", LAB.replace("b0", "b8").replace("\"a\"", "\"g\"").as_str()],
        )
        .fails(KILLED);
        w.topo(&["gc"]).ok();
        assert_eq!(forged(), untouched, "gc after a run that was killed");
        w.topo(&["down", "lab"]).ok();
        assert_eq!(forged(), untouched, "down");
        w.run("kill -9 $(pgrep -fx '(.*/)?sleep 2[0-9]{3}'); ip netns del forged2010; ip netns del forged2020; rm -f suid; chmod 700 .").ok();
        // The directory of names goes with the last one.
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// A container that joined a namespace of the lab is not ended: `down` and `remove` say who is in there, and go on once it has left.
#[test]
fn a_container_in_a_namespace_of_the_lab_is_not_ended() {
    in_used_world("", |w, before| {
        w.topo(&["run", "--name", "lab", "-e", r#"let h = netns("h"); h.exec("sleep 1001 >/dev/null 2>&1 &");"#]).ok();
        // Its first process was started from outside of the namespace, and has pids of its own.
        w.run(
            "unshare -pf --kill-child sh -c 'nsenter --net=/run/netns/h sleep 2001' >/dev/null 2>&1 &
             # What was started from inside goes with the lab, whatever pid namespace it is in.
             nsenter --net=/run/netns/h setsid unshare -pf sleep 2002 >/dev/null 2>&1 &
             until [ $(pgrep -fxc 'sleep 200[12]') = 2 ]; do sleep 0.02; done",
        )
        .ok();
        let down = w.topo(&["down", "lab"]);
        down.fails(1).says("sleep 2001").says("another pid namespace").says("stop it");
        assert_eq!(w.run("pgrep -fa '^sleep'").ok().out().lines().count(), 1, "the container alone runs");
        assert!(w.ip("netns").contains('h'), "its namespace keeps its name");
        w.run("kill $(pgrep -fx 'sleep 2001'); while pgrep -fx 'sleep 2001'; do sleep 0.02; done").ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// The directory of a lab is lost: `gc` finds namespaces, devices, tables, rules in chains of others, control groups and processes
/// by their marks, and names them.
#[test]
fn gc_finds_and_names_all_that_has_a_mark() {
    let others = "nft add table inet others; nft add chain inet others forward '{ type filter hook forward priority 0; policy drop; }'";
    in_used_world(others, |w, before| {
        w.topo(&["run", "--name", "lab", "-e", LAB]).ok();
        w.run("rm -r $TOPO_STATE/labs/lab").ok();
        let rules = w.run("nft list chain inet others forward").ok().out().contains(":lab:");
        let gc = w.topo(&["gc", "--json"]).ok();
        let said: serde_json::Value = serde_json::from_str(gc.out()).expect("JSON");
        assert_eq!(said["netns"], serde_json::json!(["a"]), "{said}");
        assert!(said["devices"].as_array().expect("a list").contains(&"b0".into()), "{said}");
        assert_eq!(said["tables"].as_array().expect("a list").len(), 1, "{said}");
        assert_eq!(said["rules"].as_array().expect("a list").is_empty(), !rules, "{said}");
        let grouped = w.run("grep -q cgroup2 /proc/self/mountinfo").code == 0;
        let has = |command: &str| {
            said["processes"].as_array().expect("a list").iter().any(|process| process["command"] == command)
        };
        assert!(has("sleep 1001") && has("sleep 1004"), "{said}");
        assert_eq!((has("sleep 1002"), has("sleep 1003")), (grouped, grouped), "{said}");
        w.run("pkill -fx 'sleep 100[23]' || true; while pgrep -fx 'sleep 100[23]'; do sleep 0.02; done").ok();
        w.topo(&["gc"]).ok();
        // A setting of the host is in the journal alone.
        w.run("sysctl -qw net.ipv4.ip_forward=0").ok();
        w.assert_clean(before);
    });
}

/// Where no control group can be made, what a command left on the host is found by its process group, its session or its parent.
#[test]
fn what_commands_leave_is_found_without_control_groups() {
    in_used_world("", |w, before| {
        let lab = r#"bridge("b0"); host.exec("sleep 1001 >/dev/null 2>&1 & setsid sleep 1002 >/dev/null 2>&1 & (sleep 1003; true) >/dev/null 2>&1 &");"#;
        // `ip netns exec` would hide them too, and is another host.
        let hide = "umount -l /sys/fs/cgroup 2>/dev/null || true;";
        let topo = w.program().display();
        w.run(&format!("unshare -m sh -ec '{hide} exec {topo} run --name lab -e \"$0\"' '{lab}'")).ok();
        assert_eq!(w.run("pgrep -fxc 'sleep 100[123]'").ok().out().trim(), "3");
        w.run("env TOPO_MARK=x sleep 2001 >/dev/null 2>&1 &").ok();
        w.run(&format!("unshare -m sh -ec '{hide} exec {topo} down lab'")).ok();
        // One that has begun a session of its own and outlived its command has nothing that proves it to be the lab's.
        assert_eq!(w.run("pgrep -fa '^sleep'").ok().out().lines().count(), 2);
        w.run("kill $(pgrep -fx 'sleep (1002|2001)')").ok();
        w.assert_clean(before);
    });
}

/// A secret that was damaged or lost while there are labs is an error that names the file; `down` still works.
#[test]
fn a_damaged_secret_is_named() {
    in_used_world("", |w, before| {
        for damage in
            ["echo x >$TOPO_STATE/secret", "rm $TOPO_STATE/secret", "mv $TOPO_STATE/secret s; mkdir $TOPO_STATE/secret"]
        {
            w.topo(&["run", "--name", "lab", "-e", LAB]).ok();
            w.run(&format!("cp $TOPO_STATE/secret kept; {damage}")).ok();
            w.topo(&["run", "--name", "other", "-e", "netns(\"o\");"]).fails(1).says("/state/secret");
            w.topo(&["down", "lab"]).ok();
            w.run("rm -rf $TOPO_STATE/secret s; mv kept $TOPO_STATE/secret; pkill -fx 'sleep 1003' || true").ok();
            w.assert_clean(before);
        }
    });
}

/// Control groups of a run that was killed, whose state directory is gone: `gc` of another one removes them. What may be needed stays: a
/// group in which something runs, that of a run that is alive, of a run in a pid namespace that can't be seen, and one of another
/// program's.
#[test]
fn gc_removes_groups_of_lost_state_directories() {
    in_used_world("ip netns add n", |w, before| {
        if w.run("grep -q cgroup2 /proc/self/mountinfo").code != 0 {
            return;
        }
        let groups = |lab: &str| {
            let found = w.run(&format!("find /sys/fs/cgroup -maxdepth 2 -name 'topo:*:{lab}:*' | sort")).ok();
            found.out().lines().map(String::from).collect::<Vec<_>>()
        };
        let lose = |lab: &str, script: &str| {
            let run = format!(
                "export TOPO_STATE=$HOME/lost TOPO_STORE=$HOME/lost/store; topo run --name {lab} -e '{script}'"
            );
            w.run(&format!("{run}; rm -r $HOME/lost")).ok();
        };
        let mark = format!("lost{}", std::process::id());
        let name = |what: &str| format!("{mark}-{what}");
        // Killed with its supervisor: both groups are empty.
        lose(&name("empty"), r#"netns_get("n").start("sleep 1001"); host.exec("sleep 1003 >/dev/null 2>&1 &");"#);
        w.run("pkill -KILL -f '^topo __supervise'; pkill -KILL -fx 'sleep 1003'; while pgrep -fx 'sleep 100[13]'; do sleep 0.02; done").ok();
        // Something runs in it.
        lose(&name("full"), r#"host.exec("sleep 1002 >/dev/null 2>&1 &");"#);
        // A run that is at work, with a group in which nothing is for the moment.
        w.run("mkfifo ready").ok();
        let script = r#"host.exec("echo >ready"); check_within("never", "60s", || false);"#;
        let alive = w.start_topo(&["run", "--rm", "--name", &name("alive"), "-e", script]);
        w.run("cat ready").ok();
        // In a pid namespace of its own, as in a container.
        let elsewhere = machine(w, "box");
        run_in(
            w,
            &elsewhere,
            &format!(
                "topo run --name {} -e 'host.exec(\"sleep 1004 >/dev/null 2>&1 &\"); ' && pkill -KILL -fx 'sleep 1004'",
                name("box")
            ),
        )
        .ok();
        // Of this name, by another program.
        let one = groups(&name("empty"))[0].clone();
        let foreign =
            format!("{}/topo:0123456789abcdef:{}:3", one.rsplit_once('/').expect("a path").0, name("foreign"));
        w.run(&format!("mkdir '{foreign}'")).ok();

        assert_eq!(groups(&name("empty")).len(), 2);
        let gc = w.topo(&["gc"]).ok();
        assert_eq!(groups(&name("empty")), [""; 0], "{gc:?}");
        gc.says("removed control group `topo:");
        assert_eq!(gc.err().matches("removed control group").count(), 2, "{gc:?}");
        for kept in ["full", "alive", "box", "foreign"] {
            assert_eq!(groups(&name(kept)).len(), 1, "{kept}");
        }
        w.run("pkill -KILL -fx 'sleep 1002'; while pgrep -fx 'sleep 1002'; do sleep 0.02; done").ok();
        w.topo(&["gc"]).ok().says(&name("full"));
        alive.signal(nix::sys::signal::Signal::SIGINT);
        alive.wait();
        w.run(&format!("kill -9 {elsewhere}; rm ready")).ok();
        w.run(&format!("rmdir '{foreign}' {}", groups(&name("box")).join(" "))).ok();
        w.assert_clean(before);
    });
}
