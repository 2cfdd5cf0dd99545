//! Forwarding: containers reach what the host reaches, now and later (D15); the host is no router between its own devices because
//! of that; and all is back as it was when the last network is gone (D8).

use super::servers::LOST;
use super::{Site, on_both_sites, on_site};
use crate::tier;

/// The settings that make a device forward, and the one for all, with their values on the host.
fn forwarding(site: &Site) -> Vec<(String, String)> {
    let read = "cd /proc/sys/net; grep -H . ipv4/conf/*/forwarding ipv4/ip_forward ipv6/conf/*/forwarding";
    let ran = site.w.run(read).ok();
    let line = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
    ran.out().lines().filter_map(line).collect()
}

/// Returns the devices that forward IPv4.
fn forwards(site: &Site) -> Vec<String> {
    let name = |key: &str| Some(key.strip_prefix("ipv4/conf/")?.strip_suffix("/forwarding")?.to_owned());
    forwarding(site).iter().filter(|(_, value)| value == "1").filter_map(|(key, _)| name(key)).collect()
}

/// D8: as long as there is a network the host forwards; nothing of that outlives the last one.
#[test]
fn d8_forwarding_goes_with_the_last_network() {
    on_both_sites(
        "ip link add other0 type veth peer name other1; ip link set other0 up; ip link set other1 up",
        |site| {
            assert!(forwards(site).is_empty());
            let before = forwarding(site);
            site.network("create web --subnet 10.5.0.0/24");
            assert_eq!(site.sysctl("net/ipv4/ip_forward"), "1");
            assert_eq!(site.sysctl("net/ipv6/conf/all/forwarding"), "0");
            site.network("connect web c1 --ip 10.5.0.11 --publish 8080:80");
            site.serve("c1", "80");
            site.answers(&[("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2")]);
            site.network("create inner --subnet 10.6.0.0/24 --internal");
            site.network("disconnect web c1");
            site.network("rm web");
            assert_eq!(forwards(site), Vec::<String>::new(), "an internal network needs none");
            site.network("rm inner");
            assert_eq!(forwarding(site), before);
            site.is_clean();
        },
    );
}

/// A snapshot of the host, taken once: a container reaches what the host reaches, by a second device, by one that comes later, after
/// the default route has moved or came after the network was made; a published port answers there too. For all drivers with a way
/// out, both families.
#[test]
fn d15_every_way_out_now_and_later() {
    // The world outside has a way back, as `routed` needs one.
    let back = "ip -n NS route replace 10.5.0.0/24 via 4; ip -n NS route replace fd00:5::/64 via 6";
    let way = |name: &str, four: &str, six: &str| {
        back.replace("NS", name).replace("via 4", &format!("via {four}")).replace("via 6", &format!("via {six}"))
    };
    for driver in tier::spread(["bridge", "routed"], 1) {
        let others = format!(
            "ip route del default; ip -6 route del default; {}; {}; ip netns add new; ip -n new link set lo up",
            way("out", "192.0.2.1", "2001:db8::1"),
            way("lan", "198.51.100.1", "2001:db8:1::1")
        );
        on_site(&others, |site| {
            let hides = driver == "bridge";
            site.network(&format!("create web --driver {driver} --subnet 10.5.0.0/24 --ipv6 fd00:5::/64"));
            site.network("connect web c1 --ip 10.5.0.11 --publish 8080:80");
            site.w
                .run("ip -n out addr add 203.0.113.9/32 dev lo; ip -n out addr add 2001:db8:9::9/128 dev lo nodad")
                .ok();
            ["out", "lan", "c1"].iter().for_each(|name| site.serve(name, "80"));
            let reaches = |address: &str, by: &str| {
                let (at, host) = address.split_once(' ').expect("an address and the host's");
                let inner = if at.starts_with('[') { "fd00:5::2" } else { "10.5.0.11" };
                let ran = site.w.run(&format!("ip netns exec c1 ip route get {}", at.trim_matches(['[', ']']))).ok();
                println!("{}", ran.out());
                site.answers(&[("c1", &format!("{at}:80"), &format!("{by} saw {}", if hides { host } else { inner }))]);
            };
            // By a device that has no default route.
            reaches("192.0.2.2 192.0.2.1", "out");
            reaches("198.51.100.2 198.51.100.1", "lan");
            reaches("[2001:db8:1::2] 2001:db8:1::1", "lan");
            // A default route that comes later.
            site.w.run("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2").ok();
            reaches("203.0.113.9 192.0.2.1", "out");
            reaches("[2001:db8:9::9] 2001:db8::1", "out");
            // That moves.
            site.w.run(
                "ip -n lan addr add 203.0.113.8/32 dev lo; ip route replace default via 198.51.100.2; ip -6 route replace default via 2001:db8:1::2",
            )
            .ok();
            reaches("203.0.113.8 198.51.100.1", "lan");
            // By a device that comes later, with an address of its own, where a published port answers too.
            site.w.run_as_root(&format!(
                "ip link add new0 type veth peer name eth0 netns new; ip addr add 192.0.9.1/24 dev new0; ip addr add 2001:db8:7::1/64 dev new0 nodad
                 ip link set new0 up; ip -n new addr add 192.0.9.2/24 dev eth0; ip -n new addr add 2001:db8:7::2/64 dev eth0 nodad; ip -n new link set eth0 up
                 {}", way("new", "192.0.9.1", "2001:db8:7::1")
            ))
            .ok();
            site.serve("new", "80");
            reaches("192.0.9.2 192.0.9.1", "new");
            reaches("[2001:db8:7::2] 2001:db8:7::1", "new");
            site.answers(&[
                ("new", "192.0.9.1:8080", "c1 saw 192.0.9.2"),
                ("new", "[2001:db8:7::1]:8080", "c1 saw 2001:db8:7::2"),
                ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
            ]);
            assert!(site.network("inspect web").out().contains("\"drift\": []"));
            site.network("rm --force web");
            site.w.run_as_root(
                "ip link del new0; ip -n out addr del 203.0.113.9/32 dev lo; ip -n out addr del 2001:db8:9::9/128 dev lo; ip -n lan addr del 203.0.113.8/32 dev lo
                 ip route del default; ip -6 route del default",
            )
            .ok();
        });
    }
}

/// A host that learns its way out by router advertisements keeps it, and learns by a device that comes later.
#[test]
fn d15_router_advertisements_are_learnt_on() {
    const ADVERTISE: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex('eth0'))
s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0), ('ff02::1', 0))
"#;
    let others = "ip -6 route del default; ip netns add new; ip -n new link set lo up; ip link add quiet type bridge
                  echo 0 >/proc/sys/net/ipv6/conf/quiet/accept_ra";
    on_site(others, |site| {
        site.w.write("advertise.py", ADVERTISE);
        let learns = |from: &str, dev: &str| {
            let dir = site.w.dir().display();
            let ran = site.w.run_as_root(&format!(
                "n=0; until ip -6 route show default proto ra | grep -q 'dev {dev}'; do
                     n=$((n + 1)); test $n -lt 200; ip netns exec {from} python3 {dir}/advertise.py || :
                 done"
            ));
            ran.ok();
        };
        learns("out", "wan0");
        let before = site.w.run("ip -6 route show default").ok().stdout;
        site.network("create six --subnet fd00:5::/64");
        assert!(site.w.run("ip -6 route show default").ok().out().contains("proto ra"), "lost: {before}");
        assert_eq!(site.sysctl("net/ipv6/conf/quiet/accept_ra"), "0");
        site.w.run("ip -6 route del default").ok();
        learns("out", "wan0");
        site.w
            .run_as_root(
                "ip link add new0 type veth peer name eth0 netns new; ip link set new0 up; ip -n new link set eth0 up",
            )
            .ok();
        learns("new", "new0");
        site.network("rm six");
        assert_eq!(site.sysctl("net/ipv6/conf/wan0/accept_ra"), "1");
        site.w.run_as_root("ip link del new0; ip -6 route del default || :; rm -f advertise.py").ok();
    });
}

/// D8: devices that were there and did not forward do not forward to each other because of a network, in either family; one that comes
/// later does, and so do all as long as somebody makes the host a router by a lab.
#[test]
fn d8_devices_of_the_host_stay_apart() {
    on_both_sites("", |site| {
        let far = [("lan", "192.0.2.2:80"), ("lan", "[2001:db8::2]:80"), ("out", "198.51.100.2:80")];
        let pass = |passes: bool| {
            let answers = far.map(|(from, to)| {
                let (by, saw) = match (from, to.starts_with('[')) {
                    ("out", _) => ("lan", "192.0.2.2"),
                    (_, true) => ("out", "2001:db8:1::2"),
                    _ => ("out", "198.51.100.2"),
                };
                (from, to, if passes { format!("{by} saw {saw}") } else { LOST.to_owned() })
            });
            site.answers(&answers.each_ref().map(|(from, to, answer)| (*from, *to, answer.as_str())));
        };
        site.serve("out", "80");
        site.serve("lan", "80");
        pass(false);
        site.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
        site.network("create db --subnet 10.6.0.0/24 --ipv6 fd00:6::/64");
        pass(false);
        // The networks' own traffic passes, with each other's rules.
        site.network("connect web c1 --publish 8080:80");
        site.network("connect db c2 --publish 8081:80");
        site.serve("c1", "80");
        site.serve("c2", "80");
        let own = || {
            site.answers(&[
                ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
                ("out", "[2001:db8::1]:8081", "c2 saw 2001:db8::2"),
                ("c2", "198.51.100.2:80", "lan saw 198.51.100.1"),
                ("c1", "192.0.2.1:8081", "c2 saw 10.6.0.1"),
            ]);
        };
        own();
        // What somebody makes later counts on forwarding: a container of another tool, by a cable of its own.
        site.w.run_as_root(
            "ip link add ptp0 type veth peer name eth0 netns c3; ip addr add 10.88.0.1/24 dev ptp0; ip link set ptp0 up
             ip -n c3 addr add 10.88.0.2/24 dev eth0; ip -n c3 link set eth0 up; ip -n c3 route add default via 10.88.0.1
             ip -n out route add 10.88.0.0/24 via 192.0.2.1",
        )
        .ok();
        site.answers(&[("c3", "192.0.2.2:80", "out saw 10.88.0.2")]);
        pass(false);
        site.network("rm --force web");
        site.answers(&[("c3", "192.0.2.2:80", "out saw 10.88.0.2"), ("c2", "198.51.100.2:80", "lan saw 198.51.100.1")]);
        pass(false);
        // A lab that makes the host a router.
        site.lab("router", "host.forward(true);").ok();
        pass(true);
        site.w.topo(&["down", "router"]).ok();
        pass(false);
        site.w.run("nft flush ruleset").ok();
        site.network("inspect db").says("net.ipv4.ip_forward");
        site.network("repair db");
        pass(false);
        site.network("rm --force db");
        pass(false);
        site.w.run_as_root("ip link del ptp0; ip -n out route del 10.88.0.0/24").ok();
    });
}

/// D8: of IPv6 there is one switch for all; a host that learnt its way out by router advertisements keeps it.
#[test]
fn d8_ipv6_forwards_as_a_whole_and_back() {
    on_site("", |site| {
        site.network("create six --subnet fd00:5::/64");
        assert_eq!(site.sysctl("net/ipv6/conf/all/forwarding"), "1");
        assert_eq!(site.sysctl("net/ipv6/conf/wan0/accept_ra"), "2");
        assert!(forwards(site).is_empty(), "IPv4 has nothing to do with it");
        site.network("create seven --subnet fd00:7::/64");
        site.network("rm six");
        assert_eq!(site.sysctl("net/ipv6/conf/all/forwarding"), "1");
        assert_eq!(site.sysctl("net/ipv6/conf/wan0/accept_ra"), "2");
        site.network("rm seven");
        site.is_clean();
    });
}

/// D8: two networks, removed in either order; the one that stays still works.
#[test]
fn d8_the_last_user_turns_it_off() {
    for order in [["web", "db"], ["db", "web"]] {
        on_site("", |site| {
            site.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
            site.network("create db --subnet 10.6.0.0/24 --ipv6 fd00:6::/64");
            site.network("connect web c1 --publish 8080:80");
            site.network("connect db c2 --publish 8081:80");
            site.serve("c1", "80");
            site.serve("c2", "80");
            site.serve("out", "80");
            let [first, last] = order;
            let (from, port) = if last == "db" { ("c2", 8081) } else { ("c1", 8080) };
            let (v4, v6) = (format!("192.0.2.1:{port}"), format!("[2001:db8::1]:{port}"));
            let works = || {
                site.answers(&[
                    ("out", &v4, &format!("{from} saw 192.0.2.2")),
                    ("lan", &v4, &format!("{from} saw 198.51.100.2")),
                    ("out", &v6, &format!("{from} saw 2001:db8::2")),
                    (from, "192.0.2.2:80", "out saw 192.0.2.1"),
                ]);
            };
            works();
            site.network(&format!("rm --force {first}"));
            works();
            site.network(&format!("rm --force {last}"));
            site.is_clean();
        });
    }
}

/// D8: what forwarded before does so afterwards.
#[test]
fn d8_what_was_on_before_stays_on() {
    let on = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
              echo 0 >/proc/sys/net/ipv4/conf/lan0/forwarding";
    on_site(on, |site| {
        let before = forwarding(site);
        for _ in 0..2 {
            site.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
            site.network("connect web c1 --publish 8080:80");
            site.network("disconnect web c1");
            site.network("rm web");
            assert_eq!(forwarding(site), before);
        }
        site.is_clean();
    });
}

/// D8: what somebody sets while a network is up is theirs: a value of their own, or one of a device.
#[test]
fn d8_what_others_set_meanwhile_is_theirs() {
    on_site("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.w.run("echo 0 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/conf/lan0/forwarding").ok();
        site.network("rm web");
        assert_eq!(forwards(site), ["lan0"]);
        site.w.run("echo 0 >/proc/sys/net/ipv4/conf/lan0/forwarding").ok();
    });
}
