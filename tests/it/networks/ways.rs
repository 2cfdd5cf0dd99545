//! A container in several networks has one default route of each version of IP: which network gives it, that another one takes over,
//! and that what is of others stays (N18).

use super::{in_network_world, network};
use crate::stage::{KILLED, with_fault};
use crate::tier::{spread, stride};
use crate::world::{Snapshot, World};

/// c1, c2, and the host with a way out in both families: out.
const OTHERS: &str = "for c in c1 c2 out; do ip netns add $c; done; ip -n out link set lo up
    ip link add up0 type veth peer name eth0 netns out; ip link set up0 up; ip -n out link set eth0 up
    ip addr add 192.0.2.1/24 dev up0; ip -n out addr add 192.0.2.9/24 dev eth0
    ip addr add fd00:9::1/64 dev up0 nodad; ip -n out addr add fd00:9::9/64 dev eth0 nodad
    ip route add default via 192.0.2.9; ip route add default via fd00:9::9";

/// Makes two networks of both families and an internal one.
fn in_several(test: impl FnOnce(&World, &Snapshot)) {
    in_network_world(OTHERS, |w, before| {
        network(w, "create front --subnet 10.5.0.0/24 --ipv6 fd00:5::/64").ok();
        network(w, "create other --subnet 10.6.0.0/24 --ipv6 fd00:6::/64").ok();
        network(w, "create back --subnet 10.7.0.0/24 --ipv6 fd00:7::/64 --internal").ok();
        test(w, before);
        network(w, "rm --force front other back").ok();
    });
}

/// The devices of the default routes of the main tables, of IPv4 and IPv6.
fn defaults(w: &World, name: &str) -> [String; 2] {
    ["-4", "-6"].map(|family| {
        let routes = w.ip(&format!("-n {name} {family} route show default"));
        let devs = routes
            .lines()
            .map(|line| line.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("?"));
        devs.collect::<Vec<_>>().join(" ")
    })
}

#[track_caller]
fn assert_by(w: &World, name: &str, dev: &str) {
    assert_eq!(defaults(w, name), [dev, dev], "the default routes of {name}");
}

fn reaches_outside(w: &World, name: &str) {
    for to in ["192.0.2.9", "fd00:9::9"] {
        w.run(&format!("ip netns exec {name} ping -i 0.2 -c 1 -w 5 {to}")).ok();
    }
}

/// N18: the network that gave the default route is left, or removed: another one that has a way out gives it, and an internal one never.
#[test]
fn n18_another_network_takes_over() {
    in_several(|w, _| {
        network(w, "connect back c1").ok();
        assert_by(w, "c1", "");
        network(w, "connect front c1").ok();
        network(w, "connect other c1").ok();
        assert_by(w, "c1", "eth1");
        network(w, "disconnect other c1").ok();
        assert_by(w, "c1", "eth1");
        network(w, "connect other c1").ok();
        network(w, "disconnect front c1").ok();
        assert_by(w, "c1", "eth2");
        reaches_outside(w, "c1");
        network(w, "connect front c1").ok();
        assert_by(w, "c1", "eth2");
        network(w, "rm --force other").ok();
        assert_by(w, "c1", "eth1");
        reaches_outside(w, "c1");
        network(w, "disconnect front c1").ok();
        network(w, "disconnect back c1").ok();
        // Nothing of it stays: no rule, no table.
        let rules = ["-4", "-6"].map(|family| w.ip(&format!("-n c1 {family} rule"))).concat();
        assert!(!rules.contains("10.") && !rules.contains("fd00"), "{rules}");
        assert_eq!(
            w.ip("-n c1 route show table all")
                .replace("local ", "")
                .lines()
                .filter(|line| line.contains("10."))
                .count(),
            0
        );
        network(w, "create other --subnet 10.6.0.0/24").ok();
    });
}

/// The highest priority gives it, also to one that is connected later; `none` never; families are chosen apart.
#[test]
fn the_priority_says_which_network_gives_it() {
    in_several(|w, _| {
        network(w, "connect front c1 --gateway-priority 5").ok();
        network(w, "connect other c1 --gateway-priority 7").ok();
        assert_by(w, "c1", "eth1");
        network(w, "disconnect other c1").ok();
        assert_by(w, "c1", "eth0");
        network(w, "connect other c1 --gateway-priority none").ok();
        assert_by(w, "c1", "eth0");
        network(w, "disconnect front c1").ok();
        assert_by(w, "c1", "");
        network(w, "connect front c1 --gateway-priority=-3").ok();
        assert_by(w, "c1", "eth0");
        // IPv6 by the one network that has it.
        network(w, "create four --subnet 10.8.0.0/24").ok();
        network(w, "connect front c2").ok();
        network(w, "connect four c2 --gateway-priority 1").ok();
        assert_eq!(defaults(w, "c2"), ["eth1", "eth0"]);
        network(w, "disconnect front c2").ok();
        assert_eq!(defaults(w, "c2"), ["eth1", ""]);
        network(w, "rm --force four").ok();
        network(w, "connect other c2 --gateway-priority high")
            .fails(1)
            .says("the gateway's priority is `high`")
            .says("a whole number, of which the highest gives the default route, or `none`");
        // The same again is the same; another one is not.
        network(w, "connect front c1 --gateway-priority=-3").ok();
        network(w, "connect front c1 --gateway-priority 4").fails(1).says("it is connected already");
    });
}

/// A route that somebody deleted comes back, by `repair` and by the same `connect` again.
#[test]
fn a_deleted_default_route_is_put_back() {
    in_several(|w, _| {
        network(w, "connect front c1").ok();
        network(w, "connect other c1").ok();
        let deleted = "ip -n c1 route del default; ip -n c1 -6 route del default";
        w.run(deleted).ok();
        network(w, "repair front").ok().says("put back: ");
        assert_by(w, "c1", "eth0");
        w.run(deleted).ok();
        network(w, "connect front c1").ok();
        assert_by(w, "c1", "eth0");
        assert!(!network(w, "repair front other").ok().out().contains("put back"), "nothing is amiss any more");
        // Once the device of it is gone, another one gives it.
        w.run("ip -n c1 link del eth0").ok();
        network(w, "repair other").ok().says("the default route of `c1`, by `eth1`");
        assert_by(w, "c1", "eth1");
    });
}

/// A default route that no network gave stays, and no network gives one; nor are the container's own routes and rules passed over.
#[test]
fn what_the_container_had_stays() {
    in_several(|w, _| {
        w.run("ip -n c1 link set lo up; ip link add own0 type veth peer name own1 netns c1; ip link set own0 up; ip -n c1 link set own1 up
            ip -n c1 addr add 10.9.0.2/24 dev own1; ip -n c1 route add default via 10.9.0.1 dev own1 metric 50
            ip -n c1 rule add to 203.0.113.0/24 lookup 99; ip -n c1 route add 203.0.113.0/24 via 10.9.0.7 table 99").ok();
        let own = w.ip("-n c1 route show default");
        network(w, "connect front c1").ok();
        network(w, "connect other c1").ok();
        assert_eq!(defaults(w, "c1"), ["own1", "eth0"]);
        assert_eq!(w.ip("-n c1 route show default"), own);
        // From an address in a network by that network, but by the routes that the container has itself.
        w.run("ip -n c1 route add 198.51.100.0/24 via 10.6.0.77").ok();
        let goes = |to: &str, by: &str| {
            let route = w.ip(&format!("-n c1 route get {to} from 10.6.0.2"));
            assert!(route.contains(by), "to {to}: {route}");
        };
        goes("192.0.2.9", "via 10.6.0.1 dev eth1");
        goes("198.51.100.5", "via 10.6.0.77 dev eth1");
        goes("203.0.113.5", "via 10.9.0.7 dev own1");
        network(w, "repair front other").ok();
        network(w, "disconnect front c1").ok();
        assert_eq!(w.ip("-n c1 route show default"), own);
        // Put in place of ours, it stays too.
        w.run("ip -n c1 -6 route del default; ip -n c1 -6 route add default via fd00:6::77 dev eth1").ok();
        network(w, "connect front c1").ok();
        assert!(w.ip("-n c1 -6 route show default").starts_with("default via fd00:6::77"));
        w.run("ip link del own0").ok();
    });
}

/// Whatever operation is the last before a SIGKILL, `gc` and `repair` leave one default route, by a network that is joined.
#[test]
fn a_killed_disconnect_is_repaired() {
    const STRIDE: usize = 5;
    in_several(|w, _| {
        for point in (1..).step_by(stride(STRIDE)) {
            network(w, "connect front c1").ok();
            network(w, "connect other c1").ok();
            let ran = with_fault(w, &format!("kill:{point}"), &["network", "disconnect", "front", "c1"]);
            w.topo(&["gc"]).ok();
            network(w, "disconnect front c1");
            network(w, "repair other").ok();
            assert_by(w, "c1", "eth1");
            network(w, "disconnect other c1").ok();
            if ran.code != KILLED {
                ran.ok();
                break;
            }
        }
    });
}

/// Networks that are joined and left at once by many processes: no two wait for each other, and one default route is left.
#[test]
fn joined_and_left_at_once() {
    in_several(|w, _| {
        for _ in spread(0..3, 1) {
            let both =
                "for n in front other back; do topo network connect $n c1 & topo network connect $n c2 & done; wait
                for n in other front; do topo network disconnect $n c1 & topo network disconnect $n c2 & done; wait";
            let path = w.program().parent().map(|dir| dir.display().to_string()).unwrap_or_default();
            w.run(&format!(
                "PATH={path}:$PATH; {both}; topo network connect front c1 & topo network connect other c1 & wait"
            ))
            .ok();
            let [four, six] = defaults(w, "c1");
            assert!(four.starts_with("eth") && !four.contains(' ') && four == six, "{four}, {six}");
            for n in ["front", "other", "back"] {
                network(w, &format!("disconnect {n} c1"));
                network(w, &format!("disconnect {n} c2"));
            }
        }
    });
}
