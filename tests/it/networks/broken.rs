//! N19: what others delete or change of a network is told, and put back; a container that has ended gives way.
//!
//! Kind of fault: a record is taken for the state of the kernel.

use expect_test::expect;
use serde_json::Value;

use super::{CONTAINERS, in_network_world, network};
use crate::cli::Terminal;
use crate::repair::whole::Whole;
use crate::world::{Ran, World};

fn inspect(w: &World) -> Value {
    serde_json::from_str(network(w, "inspect web").ok().out()).expect("JSON")
}

/// Returns the state of the network, and of its endpoints by their addresses.
fn states(w: &World) -> Vec<String> {
    let all = inspect(w);
    let word = |value: &Value| value["state"].as_str().expect("a word").to_owned();
    std::iter::once(word(&all)).chain(all["endpoints"].as_array().expect("a list").iter().map(word)).collect()
}

fn listed(w: &World) -> String {
    let all: Value = serde_json::from_str(w.topo(&["network", "ls", "--json"]).ok().out()).expect("JSON");
    all[0]["state"].as_str().expect("a word").to_owned()
}

/// Returns the state of the network's lab in `topo ls`, which looks at each step.
fn lab_state(w: &World) -> String {
    let all: Value = serde_json::from_str(w.topo(&["ls", "--json"]).ok().out()).expect("JSON");
    let lab = all.as_array().expect("a list").iter().find(|lab| lab["name"] == "net.web").expect("the network");
    lab["state"].as_str().expect("a word").to_owned()
}

fn two_containers(w: &World) {
    network(w, "create web --subnet 10.5.0.0/24 --ipv6 fd05::/64").ok();
    network(w, "connect web c1 --publish 8080:80").ok();
    network(w, "connect web c2").ok();
}

fn works(w: &World) {
    w.run("ip netns exec c1 ping -nqc1 -W2 10.5.0.1 && ip netns exec c1 ping -nqc1 -W2 10.5.0.3 && ip netns exec c2 ping -nqc1 -W2 fd05::1")
        .ok();
}

/// Each damage is told by `inspect`, what a glance finds by `ls` too, and put back so that the world is as it was.
#[test]
fn n19_damage_is_told_and_put_back() {
    in_network_world(CONTAINERS, |w, _| {
        two_containers(w);
        let whole = Whole::of_networks(w);
        // The damage, whether a glance finds it, and the states of the network, c1 and c2.
        for (damage, at_a_glance, wanted) in [
            ("ip link del br-web", true, ["damaged", "up", "up"]),
            ("ip link set br-web name other0", true, ["damaged", "up", "up"]),
            ("ip link set br-web down", true, ["damaged", "up", "up"]),
            ("ip link del c1-eth0", true, ["damaged", "damaged", "up"]),
            ("ip link set c1-eth0 nomaster", true, ["damaged", "damaged", "up"]),
            ("ip -n c2 link del eth0", true, ["damaged", "up", "damaged"]),
            ("ip -n c2 link set eth0 down", false, ["damaged", "up", "damaged"]),
            ("ip -n c1 route del default", false, ["damaged", "damaged", "up"]),
            ("ip -n c1 addr flush dev eth0 scope global", false, ["damaged", "damaged", "up"]),
            ("ip addr flush dev br-web scope global", true, ["damaged", "up", "up"]),
            ("ip addr del fd05::1/64 dev br-web", true, ["damaged", "up", "up"]),
            ("nft flush ruleset", true, ["damaged", "damaged", "up"]),
            (
                "nft delete table inet $(nft list tables | grep -o 'topo-[^ ]*net.web$')",
                true,
                ["damaged", "damaged", "up"],
            ),
        ] {
            println!("{damage}");
            w.run(damage).ok();
            assert_eq!(states(w), wanted);
            assert_eq!(listed(w), if at_a_glance { "damaged" } else { "up" });
            assert_eq!(lab_state(w), "damaged");
            network(w, "repair").ok().says("web: put back: ");
            assert_eq!(states(w), ["up"; 3]);
            whole.assert_is(w);
            works(w);
        }
        // `restore` does the same for a network that is up.
        w.run("ip link del br-web").ok();
        network(w, "restore").ok().says("web: put back: add bridge `br-web`");
        whole.assert_is(w);
        network(w, "rm --force web").ok();
    });
}

/// The list looks at the host once for all networks, and calls only those damaged that are.
#[test]
fn n19_only_the_damaged_network_is_called_so() {
    in_network_world(CONTAINERS, |w, _| {
        two_containers(w);
        network(w, "create other --subnet 10.6.0.0/24").ok();
        network(w, "create third --subnet 10.7.0.0/24 --internal").ok();
        network(w, "connect other c3").ok();
        let words = |w: &World| {
            let all: Value = serde_json::from_str(w.topo(&["network", "ls", "--json"]).ok().out()).expect("JSON");
            let word =
                |row: &Value| format!("{} {}", row["name"].as_str().unwrap_or(""), row["state"].as_str().unwrap_or(""));
            all.as_array().expect("a list").iter().map(word).collect::<Vec<_>>().join(", ")
        };
        for damage in [
            "ip addr del 10.6.0.1/24 dev br-other",
            "nft delete table inet $(nft list tables | grep -o 'topo-[^ ]*net.other$')",
            "ip link set br-other down",
        ] {
            println!("{damage}");
            w.run(damage).ok();
            assert_eq!(words(w), "other damaged, third up, web up");
            network(w, "repair other").ok();
            assert_eq!(words(w), "other up, third up, web up");
        }
        for name in ["web", "other", "third"] {
            network(w, &format!("rm --force {name}")).ok();
        }
    });
}

/// A network that is damaged is put back before a container joins it.
#[test]
fn n19_a_container_joins_a_damaged_network() {
    in_network_world(CONTAINERS, |w, _| {
        two_containers(w);
        for damage in
            ["ip link del br-web", "ip link set br-web name other0", "ip link set br-web down", "nft flush ruleset"]
        {
            println!("{damage}");
            w.run(damage).ok();
            network(w, "connect web c3 --publish 8081:80").ok().says("warning: network `web` was damaged; put back: ");
            w.run("ip netns exec c3 ping -nqc1 -W2 10.5.0.1").ok();
            works(w);
            assert_eq!(states(w), ["up"; 4]);
            network(w, "disconnect web c3").ok();
        }
        network(w, "rm --force web").ok();
    });
}

/// A device of others in the place of the bridge stays, and the way on is said.
#[test]
fn n19_the_place_of_the_bridge_is_taken() {
    in_network_world(CONTAINERS, |w, _| {
        two_containers(w);
        w.run("ip link del br-web; ip link add br-web type veth peer name theirs").ok();
        let theirs = w.ip("-d link show br-web");
        w.session(expect![[r#"
            $ topo network connect web c3
            --- stderr
            error: use network `web`: its bridge was replaced: `br-web` is another's now
            hint: rename or delete that, and connect again; or `topo network rm --force web`, and create it again
            --- exit code 1
            $ topo network repair
            --- stderr
            error: put back all: web: put back: add bridge `br-web`: File exists
            hint: another device has the name or the number of `br-web`: rename or delete that, and repair again
            --- exit code 1
        "#]]);
        assert_eq!(w.ip("-d link show br-web"), theirs);
        w.run("ip link del br-web").ok();
        network(w, "repair").ok();
        works(w);
        network(w, "rm --force web").ok();
    });
}

/// A container that ended without notice: it is told, its address waits for one of its name, and gives way to others that ask for it.
#[test]
fn n19_a_container_that_has_ended_gives_way() {
    in_network_world("ip netns add c3", |w, _| {
        w.run("ip netns add c1; ip netns add c2").ok();
        two_containers(w);
        w.run("ip netns del c1").ok();
        assert_eq!(states(w), ["damaged", "ended", "up"]);
        assert_eq!(listed(w), "damaged");
        network(w, "repair")
            .fails(1)
            .says("`c1` has ended without being disconnected; it had 10.5.0.2, fd05::2, 8080:80/tcp");
        w.run("ip netns add c1; ip netns add c4").ok();
        // One of its name takes its place, and its port.
        network(w, "connect web c1 --publish 8080:80").ok().says("warning: `c1` has ended without being disconnected");
        works(w);
        // One of another name that asks for its port, in another network.
        w.run("ip netns del c1").ok();
        network(w, "create other --subnet 10.6.0.0/24").ok();
        network(w, "connect other c3 --publish 8080:80")
            .ok()
            .says("warning: `c1` has ended without being disconnected");
        assert_eq!(states(w), ["up", "up"]);
        // One that asks for its address; one that lives keeps it.
        w.run("ip netns del c2").ok();
        network(w, "connect web c4 --ip 10.5.0.3").ok().says("warning: `c2` has ended without being disconnected");
        w.run("ip netns add c5").ok();
        network(w, "connect web c5 --ip 10.5.0.3").fails(1);
        network(w, "connect web c5 --publish 8080:80").fails(1);
        // Repair connects a container that is there again.
        w.run("ip netns del c4; ip netns add c4").ok();
        network(w, "repair web").ok().says("web: put back: connect `c4` as 10.5.0.3");
        assert_eq!(states(w), ["up", "up"]);
        network(w, "rm --force web").ok();
        network(w, "rm --force other").ok();
        w.run("ip netns del c4; ip netns del c5").ok();
    });
}

/// Kind of fault: a namespace is told by its number, which the kernel gives again. Another container has the number of one that has ended,
/// which gives way all the same.
#[test]
fn n19_a_container_whose_number_another_one_has_gives_way() {
    in_network_world("ip netns add c2", |w, _| {
        network(w, "create web --subnet 10.5.0.0/24").ok();
        // The kernel gives the lowest number that is free; what runs beside this test may be faster.
        let again = "ip netns add c1; old=$(stat -L -c %i /run/netns/c1); $topo network connect web c1 --publish 8080:80 >&2; ip netns del c1
            for n in $(seq 100); do
                ip netns add x$n
                if [ $(stat -L -c %i /run/netns/x$n) = $old ]; then echo found; break; fi
            done";
        let again = format!("topo={}\n{again}", w.program().display());
        let clear = "for n in $(ls /run/netns | grep ^x); do ip netns del $n; done";
        for round in 1.. {
            if w.run(&again).ok().out() == "found\n" {
                break;
            }
            assert!(round < 50, "the number is not given again");
            network(w, "disconnect web c1").ok();
            w.run(clear).ok();
        }
        assert_eq!(states(w), ["damaged", "ended"]);
        let ran = network(w, "connect web c2 --publish 8080:80").ok();
        ran.says("warning: `c1` has ended without being disconnected");
        network(w, "rm --force web").ok();
        w.run(clear).ok();
    });
}

/// The same for a container that is a process, named by its number or by a path; and for one that asks for any address where all are
/// taken.
#[test]
fn n19_a_process_that_has_ended_gives_way() {
    in_network_world("", |w, _| {
        network(w, "create web --subnet 10.5.0.0/29").ok();
        // A process that ends right after it was connected, and has reached the gateway.
        let connect = |target: &str, options: &str| {
            w.run(&format!(
                "unshare -n sleep 1002 & p=$!
                until [ \"$(readlink /proc/$p/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done
                {} network connect web {target} {options}
                nsenter -t $p -n ping -nqc1 -W2 10.5.0.1 >/dev/null
                kill $p; wait $p || true",
                w.program().display()
            ))
        };
        let has_warned = |ran: Ran| ran.err().contains("warning: ");
        assert!(!has_warned(connect("$p", "--publish 8080:80").ok()));
        connect("/proc/$p/ns/net", "--publish 8080:80")
            .ok()
            .says("has ended without being disconnected; it had 10.5.0");
        let warned: Vec<bool> = (0..5).map(|_| has_warned(connect("$p", "").ok())).collect();
        assert_eq!(warned, [false, false, false, false, true], "five addresses, all taken once");
        assert_eq!(states(w), ["damaged", "ended", "ended", "ended", "ended", "ended"]);
        network(w, "rm --force web").ok();
    });
}
