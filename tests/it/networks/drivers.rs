//! The drivers: what each lets through, and drivers of one's own.

use expect_test::expect;

use super::{CONTAINERS, in_network_world, network, nothing_happens};
use crate::cli::Terminal;
use crate::world::World;

/// c1, c2 -- web (host, 192.0.2.1) -- out (192.0.2.9), which has no route back. The cable to it has no duplicate address
/// detection: as long as that goes on, the first packet over it is lost.
const OUTSIDE: &str = "for c in c1 c2 c3 out; do ip netns add $c; ip -n $c link set lo up; done
    ip link add up0 type veth peer name eth0 netns out
    sysctl -qw net.ipv6.conf.up0.accept_dad=0; ip netns exec out sysctl -qw net.ipv6.conf.eth0.accept_dad=0
    ip link set up0 up; ip -n out link set eth0 up
    ip addr add 192.0.2.1/24 dev up0; ip -n out addr add 192.0.2.9/24 dev eth0
    ip addr add fd00:9::1/64 dev up0 nodad; ip -n out addr add fd00:9::9/64 dev eth0 nodad
    ip route add default via 192.0.2.9; ip route add default via fd00:9::9
    sysctl -qw net.ipv4.conf.all.rp_filter=0";

fn pings(w: &World, from: &str, to: &str) -> bool {
    let six = if to.contains(':') { "-6" } else { "-4" };
    w.run(&format!("ip netns exec {from} ping {six} -c 1 -W 1 {to}")).code == 0
}

/// Tells whether an echo is answered in time: an address is tentative for a second or two.
fn reaches(w: &World, from: &str, to: &str) -> bool {
    let six = if to.contains(':') { "-6" } else { "-4" };
    w.run(&format!("ip netns exec {from} ping {six} -i 0.2 -c 1 -w 10 {to}")).code == 0
}

/// Returns the address under which `out` sees what asks it.
fn seen_as(w: &World, from: &str) -> String {
    let server = w.start_run(
        "exec ip netns exec out python3 -c \"import socket; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('', 7)); s.listen(); print('ready', flush=True); c, a = s.accept(); c.send(a[0].encode())\"",
    );
    server.wait_for_output("ready", std::time::Duration::from_secs(20));
    let script = format!(
        "ip netns exec {from} python3 -c \"import socket; print(socket.create_connection(('192.0.2.9', 7), 3).recv(99).decode())\""
    );
    w.run(&script).ok().out().trim().to_owned()
}

#[test]
fn bridge_hides_its_containers() {
    in_network_world(OUTSIDE, |w, _| {
        for nf_call in [0, 1] {
            w.run(&format!("sysctl -qw net.bridge.bridge-nf-call-iptables={nf_call} || true")).ok();
            let before = w.snapshot();
            network(w, "create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64").ok();
            network(w, "connect web c1").ok();
            network(w, "connect web c2").ok();
            assert!(reaches(w, "c1", "10.5.0.3") && reaches(w, "c2", "fd00:5::2"), "neighbours");
            assert!(
                reaches(w, "c1", "10.5.0.1") && reaches(w, "c1", "192.0.2.1") && reaches(w, "c1", "fd00:5::1"),
                "the host"
            );
            assert!(reaches(w, "c1", "192.0.2.9") && reaches(w, "c1", "fd00:9::9"), "outside");
            assert_eq!(seen_as(w, "c1"), "192.0.2.1");
            w.run("ip -n out route add 10.5.0.0/24 via 192.0.2.1; ip -n out route add fd00:5::/64 via fd00:9::1").ok();
            assert!(!pings(w, "out", "10.5.0.2") && !pings(w, "out", "fd00:5::2"), "nobody comes in");
            w.run("ip -n out route del 10.5.0.0/24; ip -n out route del fd00:5::/64").ok();
            network(w, "rm --force web").ok();
            w.assert_clean(&before);
        }
        w.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1 || true").ok();
    });
}

#[test]
fn routed_shows_its_containers() {
    in_network_world(OUTSIDE, |w, _| {
        network(w, "create web --driver routed --subnet 10.5.0.0/24 --ipv6 fd00:5::/64").ok();
        network(w, "connect web c1").ok();
        assert!(!pings(w, "c1", "192.0.2.9"), "outside has no way back");
        w.run("ip -n out route add 10.5.0.0/24 via 192.0.2.1; ip -n out route add fd00:5::/64 via fd00:9::1").ok();
        assert!(reaches(w, "c1", "192.0.2.9") && reaches(w, "c1", "fd00:9::9"));
        assert!(reaches(w, "out", "10.5.0.2") && reaches(w, "out", "fd00:5::2"));
        assert_eq!(seen_as(w, "c1"), "10.5.0.2");
        w.run("ip -n out route del 10.5.0.0/24; ip -n out route del fd00:5::/64").ok();
        network(w, "rm --force web").ok();
    });
}

/// No way out, no way in; the host's address is reached, and so are neighbours.
#[test]
fn isolated_and_internal() {
    in_network_world(OUTSIDE, |w, _| {
        let routes = "ip -n out route add 10.5.0.0/24 via 192.0.2.1; ip -n c1 route add default via 10.5.0.1";
        for how in ["--driver isolated", "--internal", "--driver routed --internal"] {
            network(w, &format!("create web --subnet 10.5.0.0/24 {how}")).ok();
            network(w, "create other --subnet 10.6.0.0/24").ok();
            network(w, "connect web c1").ok();
            network(w, "connect web c2").ok();
            network(w, "connect other c3").ok();
            assert!(reaches(w, "c1", "10.5.0.3") && reaches(w, "c1", "10.5.0.1"), "{how}");
            assert!(!w.ip("-n c1 route").contains("default"), "{how}");
            // Also where the container, or the world outside, has a route of its own.
            w.run(routes).ok();
            assert!(!pings(w, "c1", "192.0.2.9") && !pings(w, "out", "10.5.0.2"), "{how}");
            assert!(!pings(w, "c1", "10.6.0.2") && !pings(w, "c3", "10.5.0.2"), "{how}");
            w.run("ip -n out route del 10.5.0.0/24").ok();
            network(w, "rm --force web other").ok();
        }
    });
}

/// Two networks of one host do not reach each other.
#[test]
fn two_networks_are_apart() {
    in_network_world(OUTSIDE, |w, _| {
        network(w, "create one --subnet 10.5.0.0/24 --ipv6 fd00:5::/64").ok();
        network(w, "create two --subnet 10.6.0.0/24 --ipv6 fd00:6::/64").ok();
        network(w, "connect one c1").ok();
        network(w, "connect two c2").ok();
        for (from, to) in [("c1", "10.6.0.2"), ("c2", "10.5.0.2"), ("c1", "fd00:6::2"), ("c2", "fd00:5::2")] {
            assert!(!pings(w, from, to), "{from} reaches {to}");
        }
        assert!(reaches(w, "c1", "192.0.2.9") && reaches(w, "c2", "192.0.2.9"));
        // A container of both reaches both, by a device each, and has one way out.
        network(w, "connect one c3").ok().says("eth0 has 10.5.0.3/24");
        network(w, "connect two c3").ok().says("eth1 has 10.6.0.3/24");
        assert!(reaches(w, "c3", "10.5.0.2") && reaches(w, "c3", "10.6.0.2") && reaches(w, "c3", "192.0.2.9"));
        for six in ["", "-6 "] {
            let routes = w.ip(&format!("-n c3 {six}route show default"));
            assert_eq!(routes.lines().count(), 1, "{routes}");
        }
        network(w, "disconnect one c3").ok();
        assert_eq!(w.ip("-n c3 -o link").lines().count(), 2);
        assert!(reaches(w, "c3", "10.6.0.2"));
        network(w, "rm --force one two").ok();
    });
}

/// c1, c2 (macvlan) -- lan0 | lan1 (router, 192.0.2.254): the containers are on the router's own network.
#[test]
fn macvlan_joins_the_network_outside() {
    let others = "for c in c1 c2 c3 router; do ip netns add $c; ip -n $c link set lo up; done
        ip link add lan0 type veth peer name lan1 netns router; ip link set lan0 up; ip -n router link set lan1 up
        ip -n router addr add 192.0.2.254/24 dev lan1; ip -n router addr add 203.0.113.1/32 dev lan1; ip addr add 192.0.2.1/24 dev lan0";
    in_network_world(others, |w, _| {
        let alone = w.ip("-n c1 -o link");
        network(w, "create lan --driver macvlan --parent lan0 --subnet 192.0.2.0/24 --gateway 192.0.2.254").ok();
        network(w, "connect lan c1 --ip 192.0.2.50").ok();
        network(w, "connect lan c2 --ip 192.0.2.51").ok();
        assert!(reaches(w, "c1", "192.0.2.51") && reaches(w, "c1", "192.0.2.254") && reaches(w, "c2", "203.0.113.1"));
        assert!(reaches(w, "router", "192.0.2.50"));
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect lan c3 --ip 192.0.2.60 --publish 80:80
                --- stderr
                error: publish ports of `c3`: the driver `macvlan` has no way through this host to publish on
                hint: its containers are reached at their own addresses
                --- exit code 3
                $ topo network create lan2 --driver macvlan --parent lan0 --subnet 192.0.2.0/24
                --- stderr
                error: make the pool `192.0.2.0/24`: there is one of `net.lan`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
            "#]],
        );
        network(w, "disconnect lan c1").ok();
        assert_eq!(w.ip("-n c1 -o link"), alone);
        network(w, "rm --force lan").ok();
    });
}

/// This kernel has no ipvlan, and says so at once, when the network is made; one that has it connects.
#[test]
fn ipvlan_or_a_clear_answer() {
    let others = "ip netns add c1; ip netns add router; ip link add lan0 type veth peer name lan1 netns router; ip link set lan0 up
        ip -n router link set lan1 up; ip -n router addr add 192.0.2.254/24 dev lan1";
    in_network_world(others, |w, _| {
        // The first one: after it the store's locks are there.
        network(w, "create first --subnet 10.77.0.0/24").ok();
        network(w, "rm first").ok();
        let before = w.snapshot();
        let made = network(w, "create lan --driver ipvlan --parent lan0 --subnet 192.0.2.0/24 --gateway 192.0.2.254");
        if made.code == 0 {
            network(w, "connect lan c1 --ip 192.0.2.50").ok();
            assert!(reaches(w, "c1", "192.0.2.254"));
            network(w, "rm --force lan").ok();
        } else {
            made.says("create network `lan`").says("this kernel lacks ipvlan: CONFIG_IPVLAN, module `ipvlan`");
            w.assert_clean(&before);
        }
    });
}

/// A driver of one's own is called with what it needs, in order, and what it returns at `create` is kept.
#[test]
fn a_driver_of_ones_own() {
    in_network_world(CONTAINERS, |w, _| {
        w.write(
            "lib/drivers/noted.rhai",
            r#"//! Notes what it is asked for.
import "drivers/bridge" as bridge_driver;
fn note(text) { host.exec("echo '" + text + "' >>noted"); }
fn create(network) {
    note(`create ${network.name} ${network.subnets[0].subnet}`);
    let made = bridge_driver::create(network);
    made.colour = "blue";
    made
}
fn delete(network) { note(`delete ${network.name} ${network.colour}`); }
fn connect(network, endpoint, ns) {
    note(`connect ${network.name} ${network.colour} ${endpoint.target} ${endpoint.addresses[0].ip} ${ns.name}`);
    bridge_driver::connect(network, endpoint, ns);
}
fn disconnect(network, endpoint) { note(`disconnect ${network.name} ${endpoint.target}`); }
"#,
        );
        w.session_env(
            &[("TOPO_STDLIB", "lib")],
            expect![[r#"
                $ topo network create web --driver noted --subnet 10.5.0.0/24
                network web: 10.5.0.0/24, gateway 10.5.0.1, driver noted
                $ topo network connect web c1
                c1 is connected to web: eth0 has 10.5.0.2/24
                $ topo network connect web /run/netns/c2
                /run/netns/c2 is connected to web: eth0 has 10.5.0.3/24
                $ topo network connect web c3
                c3 is connected to web: eth0 has 10.5.0.4/24
                $ topo network connect web c3
                c3 is connected to web: eth0 has 10.5.0.4/24
                $ topo network ls
                NAME  SUBNET       DRIVER  GATEWAY   STATE  ENDPOINTS  LABELS
                web   10.5.0.0/24  noted   10.5.0.1  up     3
                $ topo network disconnect web c1
                c1 is disconnected from web
                $ topo network rm --force web
                network web is removed
                $ cat noted
                create web 10.5.0.0/24
                connect web blue c1 10.5.0.2 c1
                connect web blue /run/netns/c2 10.5.0.3 /run/netns/c2
                connect web blue c3 10.5.0.4 c3
                disconnect web c1
                disconnect web /run/netns/c2
                disconnect web c3
                delete web blue
                $ topo network create web --driver nothed
                --- stderr
                error: use driver `nothed`: there is no driver of this name
                hint: did you mean `noted`? there are: bridge, ipvlan, isolated, macvlan, noted, routed
                --- exit code 1
                $ topo network create web --driver zzz
                --- stderr
                error: use driver `zzz`: there is no driver of this name
                hint: there are: bridge, ipvlan, isolated, macvlan, noted, routed
                --- exit code 1
            "#]],
        );
    });
}

/// What a driver did before it failed is taken back.
#[test]
fn a_driver_that_fails() {
    in_network_world(CONTAINERS, |w, _| {
        w.write(
            "lib/drivers/late.rhai",
            r#"//! Fails when all is made.
import "drivers/bridge" as bridge_driver;
fn create(network) {
    let made = bridge_driver::create(network);
    settle();
    if network.name == "bad" { throw "no more"; }
    made
}
fn delete(network) { if network.name == "sticky" { fail("busy", "delete it", "it sticks", "wait"); } }
fn connect(network, endpoint, ns) {
    bridge_driver::connect(network, endpoint, ns);
    settle();
    if endpoint.target == "c2" { network.nothing.at.all; }
}
fn disconnect(network, endpoint) {}
"#,
        );
        w.write("lib/drivers/broken.rhai", "//! Has a mistake.\n\nfn create(network) {\n    let x = ;\n}\n");
        w.write("lib/drivers/half.rhai", "//! Lacks functions.\nfn create(network) {}\n");
        let env = [("TOPO_STDLIB", "lib")];
        w.topo_env(&env, &["network", "create", "good", "--driver", "late", "--subnet", "10.6.0.0/24"]).ok();
        w.topo_env(&env, &["network", "connect", "good", "c1"]).ok();
        let before = w.snapshot();
        let topo = |words: &str| w.topo_env(&env, &words.split_whitespace().collect::<Vec<_>>());
        topo("network create bad --driver late").fails(1).says("no more").says("--> lib/drivers/late.rhai:6:32");
        let unknown = topo("network connect good c2 --ip 10.6.0.9").fails(1);
        unknown.says("unknown property `nothing`").says("--> lib/drivers/late.rhai:13:42");
        let mistake = topo("network create bad --driver broken").fails(1);
        mistake.says("error: unexpected ';'").says("--> lib/drivers/broken.rhai:4:13").says("4 |     let x = ;");
        w.assert_clean(&before);
        w.topo_env(&env, &["network", "create", "half", "--driver", "half", "--subnet", "10.7.0.0/24"]).ok();
        topo("network connect half c3").fails(1).says("no function `driver::connect`");
        topo("network rm half").fails(1).says("no function `driver::delete`");
        topo("network create sticky --driver late").ok();
        topo("network rm sticky").fails(1).says("delete it: it sticks").says("--> lib/drivers/late.rhai:9:52");
        topo("network rm sticky half").fails(1);
        assert_eq!(topo("network ls").ok().out().matches(" up ").count(), 3);
        w.write("lib/drivers/half.rhai", "//! Whole now.\nfn create(network) {} fn delete(network) {} fn connect(n, e, ns) {} fn disconnect(n, e) {}\n");
        w.write("lib/drivers/late.rhai", "//! Mild now.\nfn delete(network) {} fn disconnect(network, endpoint) {}\n");
        w.topo_env(&env, &["network", "rm", "--force", "good", "half", "sticky"]).ok();
    });
}
