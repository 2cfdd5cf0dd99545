//! Labs beside labs: `gc` and `down` touch what is dead and known to be theirs, two runs at once go their ways, and what
//! others did to a lab meanwhile is respected.

use std::path::Path;

use super::stage::{KILLED, build, collect_cut_down, in_used_world, with_fault};
use super::tier::{self, points};
use super::world::{Running, World};

/// Starts a run that builds `statements`, then holds still until `release` lets it go on.
fn hold(w: &World, name: &str, statements: &str) -> Running {
    w.run(&format!("mkfifo {name}.in {name}.gate")).ok();
    let script = format!("{statements}\nhost.exec(\"echo >{name}.in; cat {name}.gate\");");
    let running = w.start_topo(&["run", "--name", name, "-e", &script]);
    w.run(&format!("cat {name}.in; rm {name}.in")).ok();
    running
}

fn release(w: &World, name: &str) {
    w.run(&format!("echo >{name}.gate; rm {name}.gate")).ok();
}

const PAIR: &str = r#"
    let a = netns("a");
    veth(a["eth0"], bridge("br0"));
    a["eth0"].addr("10.0.0.1/24");
    a.exec("sleep 1000 >/dev/null 2>&1 &");"#;

/// A lab that is being built, and one that is up, are nobody's rubbish; killed, the first one is.
#[test]
fn gc_leaves_the_living_alone() {
    in_used_world("", |w, before| {
        let running = hold(w, "live", PAIR);
        let built = w.snapshot();
        assert_eq!(w.topo(&["gc"]).ok().err(), "nothing was left behind\n");
        w.assert_clean(&built);
        release(w, "live");
        running.wait().ok();
        let up = w.snapshot();
        assert_eq!(w.topo(&["gc"]).ok().err(), "nothing was left behind\n");
        w.assert_clean(&up);
        w.topo(&["down", "live"]).ok();
        w.assert_clean(before);

        let running = hold(w, "live", PAIR);
        running.signal(nix::sys::signal::Signal::SIGKILL);
        running.wait().fails(KILLED);
        w.topo(&["gc"]).ok().says("removed lab `live`");
        w.run("rm live.gate").ok();
        w.assert_clean(before);
    });
}

/// A lab that is being built can't be taken down, nor built a second time; another one can, beside it.
#[test]
fn a_lab_at_work_is_busy() {
    in_used_world("", |w, before| {
        let running = hold(w, "first", PAIR);
        let built = w.snapshot();
        let busy = w.topo(&["down", "first"]).fails(1);
        busy.says("first").says(&format!("process {} is at work on it", pid_inside(w, "first")));
        w.assert_clean(&built);
        build(w, "first", r#"bridge("br9");"#)
            .fails(1)
            .says("lab `first`")
            .says("at work on it")
            .says("--name first-2");
        w.assert_clean(&built);
        build(w, "second", r#"bridge("br9");"#).ok();
        w.topo(&["down", "second"]).ok();
        w.assert_clean(&built);
        release(w, "first");
        running.wait().ok();
        build(w, "first", r#"bridge("br9");"#).fails(1).says("lab `first`").says("topo down first");
        w.topo(&["down", "first"]).ok();
        w.assert_clean(before);
    });
}

/// Returns the process id in the world of the run that builds a lab.
fn pid_inside(w: &World, lab: &str) -> String {
    w.run(&format!("pgrep -f -- '--name {lab} ' | head -1")).ok().out().trim().to_owned()
}

/// Two labs are built at the same time, and taken down in either order.
#[test]
fn two_runs_at_once_succeed() {
    in_used_world("", |w, before| {
        let star = |n: u32| {
            format!(
                r#"let br = bridge("br{n}");
                   for i in 1..=8 {{ let h = netns(`h{n}-${{i}}`); veth(h["eth0"], br); h["eth0"].addr(`10.{n}.0.${{i}}/24`); }}
                   check("two reach each other", netns_get("h{n}-1").ping("10.{n}.0.8"));"#
            )
        };
        for order in [["x1", "x2", "x3"], ["x3", "x1", "x2"]] {
            let runs: Vec<Running> =
                (1..=3).map(|n| w.start_topo(&["run", "--name", &format!("x{n}"), "-e", &star(n)])).collect();
            runs.into_iter().for_each(|run| drop(run.wait().ok()));
            let downs: Vec<Running> = order.iter().map(|name| w.start_topo(&["down", name])).collect();
            downs.into_iter().for_each(|down| drop(down.wait().ok()));
            w.assert_clean(before);
        }
    });
}

/// Of many runs that want one name at once, one gets it, and the others are told.
#[test]
fn one_of_many_gets_the_name() {
    in_used_world("", |w, before| {
        let runs: Vec<Running> =
            (0..8).map(|n| w.start_topo(&["run", "--name", "one", "-e", &format!("netns(\"n{n}\");")])).collect();
        let codes: Vec<i32> = runs.into_iter().map(|run| run.wait().code).collect();
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| *code < 2), "{codes:?}");
        w.topo(&["down", "one"]).ok();
        w.assert_clean(before);
    });
}

/// Whoever looks (`ls`, `show`, `gc`) while labs come and go disturbs none of them.
#[test]
fn looking_disturbs_nobody() {
    in_used_world("", |w, before| {
        let rounds = if tier::full() { 25 } else { 5 };
        std::thread::scope(|scope| {
            for n in 0..2 {
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let (name, netns) = (format!("lab{n}"), format!("netns(\"n{n}\");"));
                        build(w, &name, &netns).ok();
                        w.topo(&["down", &name]).ok();
                    }
                });
            }
            for command in ["gc", "ls"] {
                scope.spawn(move || {
                    for _ in 0..2 * rounds {
                        w.topo(&[command]).ok();
                    }
                });
            }
        });
        w.assert_clean(before);
    });
}

/// Where the state of a lab is lost, its mark tells whose its namespaces and devices are; those of another state
/// directory have another one.
#[test]
fn gc_finds_what_is_lost_by_its_mark() {
    in_used_world("ip link add other type bridge; ip netns add other", |w, before| {
        let elsewhere = w.dir().join("elsewhere").display().to_string();
        let env = [("TOPO_STATE", elsewhere.as_str())];
        let there = r#"let b = netns("b"); veth(b["eth0"], bridge("br1")); veth("c0", "c1");"#;
        w.topo_env(&env, &["run", "--name", "there", "-e", there]).ok();
        let up = w.snapshot();
        let here =
            format!("{PAIR} veth(\"long-name-of-a-cable\", \"d1\"); netns(\"x\"); bridge(netns_get(\"x\"), \"br0\");");
        build(w, "here", &here).ok();
        assert!(w.state().join("labs/here/journal").is_file());
        w.run("rm -r state/labs/here").ok();
        w.topo(&["gc"]).ok().says("removed netns `a`").says("removed netns `x`").says("removed device `br0`");
        w.assert_clean(&up);

        // And the other way round: the lab here stays when there is nothing known of it there.
        build(w, "here", &here).ok();
        let both = w.snapshot();
        w.topo_env(&env, &["gc"]).ok();
        w.assert_clean(&both);
        w.topo_env(&env, &["down", "there"]).ok();
        w.topo(&["down", "here"]).ok();
        w.assert_clean(before);
    });
}

/// `ip netns del` of a namespace of the lab's: `down` takes the rest, `gc` after a kill too.
#[test]
fn a_netns_that_somebody_removed_is_no_hindrance() {
    in_used_world("", |w, before| {
        build(w, "lab", PAIR).ok();
        w.run("ip netns pids a | xargs kill; ip netns del a").ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
        with_fault(w, "kill:12", &["run", "--name", "lab", "-e", &format!("{PAIR} settle();")]).fails(KILLED);
        w.run("! test -e /run/netns/a || ip netns del a").ok();
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// What somebody made in the place of the lab's, under the same name, is theirs: netns, bridge, end of a veth.
#[test]
fn what_took_the_place_of_ours_stays() {
    let replace = "ip netns pids a | xargs -r kill; ip netns del a; ip netns add a; ip -n a link add inside type bridge
                   ip link del br0; ip link add br0 type bridge; ip addr add 10.9.0.1/24 dev br0
                   ip link del cable0; ip link add cable0 type veth peer name cable1";
    let lab = format!("{PAIR} veth(\"cable0\", \"cable1\"); bridge(\"br1\");");
    in_used_world("ip netns add keep", |w, before| {
        for end in ["down", "gc"] {
            build(w, "lab", &lab).ok();
            // Also one that has our index, under our name.
            let index = w.run("cat /sys/class/net/br1/ifindex").ok().out().trim().to_owned();
            w.run(&format!("{replace}\nip link del br1; ip link add br1 index {index} type bridge")).ok();
            let theirs = w.snapshot();
            match end {
                "down" => {
                    w.topo(&["down", "lab"]).fails(1).says("others changed it, and it was left");
                }
                _ => drop(w.run("rm -r state/labs/lab; \"$TOPO\" gc")),
            }
            drop(theirs);
            w.run("ip -n a link show inside; ip addr show br0 | grep 10.9.0.1; ip link show br1; ip link show cable0")
                .ok();
            w.run("ip netns del a; for dev in br0 br1 cable0; do ip link del $dev; done").ok();
            if end == "down" {
                w.topo(&["down", "lab"]).ok().says("lab `lab` is down");
            }
            w.topo(&["gc"]).ok();
            w.assert_clean(before);
        }
    });
}

/// What somebody made anew of the lab's on a device that both use, or set since, is theirs.
#[test]
fn what_others_set_since_stays() {
    let others = "ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up";
    in_used_world(others, |w, _| {
        let lab = r#"
            host["ext0"].addr("203.0.113.1/24");
            host.route("192.0.2.0/24", #{ blackhole: true });
            host.rule(#{ from: "10.0.0.0/24", table: 77, priority: 500 });
            host.neigh("203.0.113.9", #{ dev: "ext0", mac: "02:00:00:00:00:09" });
            host.sysctl("net.ipv4.ip_default_ttl", 33);"#;
        build(w, "lab", lab).ok();
        w.run(
            "ip addr del 203.0.113.1/24 dev ext0; ip addr add 203.0.113.1/24 dev ext0
             ip route del blackhole 192.0.2.0/24; ip route add blackhole 192.0.2.0/24
             ip rule del priority 500; ip rule add from 10.0.0.0/24 table 77 priority 500
             ip neigh replace 203.0.113.9 lladdr 02:00:00:00:00:0a dev ext0 nud permanent
             echo 99 >/proc/sys/net/ipv4/ip_default_ttl",
        )
        .ok();
        w.topo(&["down", "lab"]).fails(1).says("address `203.0.113.1/24` of `ext0`").says("it was left");
        w.run(
            "ip addr show ext0 | grep 203.0.113.1/24; ip route | grep 'blackhole 192.0.2.0/24'; ip rule | grep '^500:'
             ip neigh | grep '203.0.113.9.*02:00:00:00:00:0a'; grep -x 99 /proc/sys/net/ipv4/ip_default_ttl",
        )
        .ok();
        w.run(
            "ip neigh del 203.0.113.9 dev ext0; ip addr del 203.0.113.1/24 dev ext0
             ip route del blackhole 192.0.2.0/24; ip rule del priority 500; echo 64 >/proc/sys/net/ipv4/ip_default_ttl",
        )
        .ok();
        w.topo(&["down", "lab"]).ok().says("lab `lab` is down");
    });
}

/// Addresses that others add beside the lab's, in the same network, do not go with it, wherever `down` is cut short.
#[test]
fn an_address_beside_ours_stays() {
    let others = "ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up";
    in_used_world(others, |w, before| {
        for point in points("down") {
            build(w, "lab", r#"host["ext0"].addr("203.0.113.1/24");"#).ok();
            w.ip("addr add 203.0.113.2/24 dev ext0 label ext0:two");
            w.ip("addr add 203.0.113.3/24 dev ext0 broadcast 203.0.113.77");
            let seen =
                || w.run("ip -o addr show ext0 | grep -o '203.0.113.[23]/24.*' | sed 's/ secondary//'").ok().stdout;
            let theirs = seen();
            let ran = with_fault(w, &format!("kill:{point}"), &["down", "lab"]);
            println!("point {point}: {}", ran.code);
            if ran.code == KILLED {
                collect_cut_down(w, point, "lab");
            }
            assert_eq!(seen(), theirs);
            w.run("ip addr del 203.0.113.3/24 dev ext0; ip addr del 203.0.113.2/24 dev ext0").ok();
            w.assert_clean(before);
            if ran.code == 0 {
                break;
            }
        }
    });
}

/// With its last IPv4 address a device loses all IPv4 routes and neighbours: where it had none before, it gets none.
#[test]
fn routes_of_others_without_an_address_stay() {
    let others = "ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up
                  ip route add 10.66.0.0/16 dev ext0
                  ip neigh add 10.66.0.9 lladdr 02:00:00:00:00:09 dev ext0 nud permanent";
    in_used_world(others, |w, before| {
        for statements in [r#"host["ext0"].addr("203.0.113.1/24");"#, r#"host["ext0"].addr("fd00::1/64");"#] {
            let ran = build(w, "lab", statements);
            assert!(ran.code < 2, "{}", ran.err());
            w.topo(&["down", "--all"]).ok();
            w.assert_clean(before);
        }
    });
}

/// A bridge of others with the address of its own port (p0) gets one of ours, with a lower one; wherever the run is killed,
/// it has its address back in the end.
#[test]
fn a_bridge_of_others_gets_its_address_back_after_a_kill() {
    in_used_world("", |w, before| {
        for point in points("down") {
            w.run(
                "ip link add p0 address fe:ff:ff:ff:ff:ff type veth peer name p1; ip link add auto type bridge
                 ip link set p0 master auto; ip link set auto up",
            )
            .ok();
            let statements = r#"
                veth(netns("h")["eth0"], host["auto"]);
                veth("a0", "a1"); host["auto"].attach(host["a0"]); settle();"#;
            let ran = with_fault(w, &format!("kill:{point}"), &["run", "--rm", "--name", "lab", "-e", statements]);
            println!("point {point}: {}", ran.code);
            if ran.code == KILLED {
                w.topo(&["gc"]).ok();
            }
            assert_eq!(w.run("cat /sys/class/net/auto/address").ok().out(), "fe:ff:ff:ff:ff:ff\n");
            w.run("ip link del auto; ip link del p0").ok();
            w.assert_clean(before);
            if ran.code == 0 {
                break;
            }
        }
    });
}

/// Forwarding that two labs have in common ends with the last of them, also if that, or the other one, was killed.
#[test]
fn forwarding_of_killed_labs_ends() {
    in_used_world("", |w, before| {
        build(w, "one", "host.forward(true);").ok();
        let up = w.snapshot();
        super::stage::kill_at_each_point(w, &up, "host.forward(true); bridge(\"br0\");");
        for point in points("down") {
            build(w, "two", "host.forward(true);").ok();
            let both = w.snapshot();
            let ran = with_fault(w, &format!("kill:{point}"), &["down", "one"]);
            println!("point {point}: {}", ran.code);
            if ran.code == KILLED {
                collect_cut_down(w, point, "one");
            }
            w.run("grep -x 1 /proc/sys/net/ipv4/ip_forward; grep -x 1 /proc/sys/net/ipv6/conf/all/forwarding").ok();
            drop(both);
            w.topo(&["down", "two"]).ok();
            w.assert_clean(before);
            if ran.code == 0 {
                break;
            }
            build(w, "one", "host.forward(true);").ok();
        }
    });
}

/// Of two labs that forward, the one that goes first does not stop the other; the last one sets all back.
#[test]
fn forwarding_ends_with_its_last_user() {
    in_used_world("", |w, before| {
        for order in [["one", "two"], ["two", "one"]] {
            build(w, "one", "host.forward(true);").ok();
            build(w, "two", "host.forward(true);").ok();
            w.topo(&["down", order[0]]).ok();
            w.run("grep -x 1 /proc/sys/net/ipv4/ip_forward; grep -x 1 /proc/sys/net/ipv6/conf/all/forwarding").ok();
            w.topo(&["down", order[1]]).ok();
            w.assert_clean(before);
        }
    });
}

/// A device that the lab took into a namespace of its own is renamed there: it comes back under the name that its owner knows.
#[test]
fn a_device_that_was_renamed_by_others_comes_back() {
    in_used_world("ip link add ext0 type veth peer name ext1", |w, before| {
        build(w, "lab", r#"host["ext0"].move_to(netns("h"));"#).ok();
        w.ip("-n h link set ext0 name mine0");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// Where its old name is taken, a device of others is not lost: `down` says so, and succeeds once the name is free.
#[test]
fn a_device_that_cannot_come_back_is_not_lost() {
    in_used_world("ip link add ext0 type veth peer name ext1", |w, before| {
        build(w, "lab", r#"host["ext0"].move_to(netns("h"));"#).ok();
        w.ip("link add ext0 type bridge");
        w.topo(&["down", "lab"]).fails(1).says("ext0");
        w.ip("-n h link show ext0");
        w.ip("link del ext0");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A run that was killed before it wrote its record left a directory, which `gc` removes, and so does the next run's name.
#[test]
fn half_a_lab_is_removed() {
    in_used_world("", |w, before| {
        let labs = w.state().join("labs");
        let dir = |name: &str| std::fs::create_dir(Path::new(&labs).join(name)).expect("make a directory");
        dir("half");
        dir(".removed-gone-1");
        std::fs::write(labs.join(".removed-gone-1/lab.json"), "{}").expect("write");
        dir("locked");
        std::fs::write(labs.join("locked/lock"), "").expect("write");
        build(w, "half", r#"bridge("br0");"#).fails(1).says("half").says("topo gc");
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}
