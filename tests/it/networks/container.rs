//! A container is one, whoever made its namespace: its loopback is up, it and the host learn nothing from its neighbours, and all find
//! it at once at an address that was another's (N15 to N17).

use std::time::Duration;

use super::{CONTAINERS, anonymous, in_network_world, network};
use crate::tier::spread;
use crate::world::World;

/// Sends what a rogue router sends, from the device given: see rogue.py.
const ROGUE: &str = include_str!("rogue.py");

/// What a container's own network is: its host, and a machine on the cable of `lan0`, which macvlans share.
const LAN: &str = "for c in c1 c2 c3 lan; do ip netns add $c; done
    ip link add lan0 type veth peer name eth0 netns lan; ip link set lan0 up; ip -n lan link set eth0 up
    ip -n lan addr add 10.7.0.1/24 dev eth0; ip -n lan addr add fd00:7::1/64 dev eth0 nodad";

/// The networks of each kind that there is: options of `create`.
const KINDS: [&str; 6] = [
    "--subnet 10.5.0.0/24",
    "--subnet 10.5.0.0/24 --ipv6 fd00:5::/64",
    "--subnet fd00:5::/64",
    "--subnet 10.5.0.0/24 --internal",
    "--subnet 10.5.0.0/24 --driver routed",
    "--subnet 10.7.0.0/24 --gateway 10.7.0.1 --driver macvlan --parent lan0",
];

/// Enters a container by its name or, with `-t`, a process.
fn enter(target: &str) -> String {
    let is_pid = target.chars().all(|c| c.is_ascii_digit());
    if is_pid { format!("nsenter -t {target} -n") } else { format!("nsenter --net=/run/netns/{target}") }
}

/// N15: `lo` is up after a connect, by name and by process, for every driver; it stays up, and its end is seen and mended.
#[test]
fn n15_the_loopback_is_up() {
    in_network_world(LAN, |w, _| {
        let (container, pid) = anonymous(w);
        for kind in spread(KINDS, 3) {
            network(w, &format!("create web {kind}")).ok();
            for target in ["c1", &pid] {
                let enter = enter(target);
                w.run(&format!("{enter} ip link set lo down")).ok();
                network(w, &format!("connect web {target}")).ok();
                w.run(&format!("{enter} ping -c 1 -W 2 127.0.0.1")).ok();
                let own = w.run(&format!("{enter} ip -o addr show eth0 scope global | awk '{{print $4}}'")).ok().stdout;
                for own in own.lines().filter_map(|line| line.split('/').next()) {
                    w.run(&format!("{enter} ping -c 1 -W 2 {own}")).ok();
                }
            }
            w.run("ip -n c1 link set lo down").ok();
            network(w, "inspect web").ok().says("set `lo` up");
            network(w, "repair web").ok().says("put back: set `lo` up");
            network(w, "rm --force web").ok();
            w.run("ip -n c1 -br link show lo | grep UP").ok();
        }
        drop(container);
    });
}

/// Reads a counter of a namespace's IPv6: how many router advertisements or redirects have come.
fn received(w: &World, enter: &str, what: &str) -> u64 {
    let seen = w.run(&format!("{enter} awk '$1 == \"Icmp6In{what}\" {{print $2}}' /proc/net/snmp6")).ok().stdout;
    seen.trim().parse().expect("a number")
}

/// Sends a router advertisement and redirects from a container, and waits until each of `heard` has got the advertisement.
fn misdirect(w: &World, from: &str, heard: &[&str]) {
    let before: Vec<u64> = heard.iter().map(|enter| received(w, enter, "RouterAdvertisements")).collect();
    w.run(&format!("{} python3 -I -S rogue.py eth0", enter(from))).ok();
    let begun = std::time::Instant::now();
    for (enter, before) in heard.iter().zip(before) {
        while received(w, enter, "RouterAdvertisements") == before {
            assert!(begun.elapsed() < Duration::from_secs(20), "the advertisement does not come: {enter}");
        }
    }
}

/// Returns what a namespace has learnt from advertisements: routes and addresses.
fn learnt(w: &World, enter: &str) -> String {
    w.run(&format!("{enter} ip -6 route show proto ra; {enter} ip -6 -o addr | grep 2001:db8:bad || true")).ok().stdout
}

/// N16: the host and the neighbours get the advertisement of a container, and take nothing of it, in networks of every kind; a device
/// that the kernel is let configure takes it.
#[test]
fn n16_nothing_is_learnt_from_a_container() {
    in_network_world(LAN, |w, _| {
        w.write("rogue.py", ROGUE);
        for kind in spread(KINDS, 3) {
            network(w, &format!("create web {kind}")).ok();
            for c in ["c1", "c2", "c3"] {
                network(w, &format!("connect web {c}")).ok();
            }
            // Only to show that the advertisement is a good one.
            w.run("ip netns exec c3 sysctl -qw net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.eth0.autoconf=1").ok();
            let shares = kind.contains("macvlan");
            let (victim, gullible) = (enter("c2"), enter("c3"));
            let heard = if shares { vec![victim.as_str(), &gullible] } else { vec![victim.as_str(), &gullible, ""] };
            misdirect(w, "c1", &heard);
            assert_eq!(learnt(w, &victim), "", "{kind}: a neighbour");
            assert_eq!(learnt(w, ""), "", "{kind}: the host");
            assert!(learnt(w, &gullible).contains("default via fe80::"), "{kind}: {}", learnt(w, &gullible));
            let settings = "grep . /proc/sys/net/ipv[46]/conf/eth0/accept_redirects /proc/sys/net/ipv4/conf/all/accept_redirects /proc/sys/net/ipv6/conf/eth0/autoconf";
            let settings = w.run(&format!("{victim} sh -c '{settings}'")).ok().stdout;
            assert!(settings.lines().count() == 4 && settings.lines().all(|line| line.ends_with(":0")), "{settings}");
            network(w, "rm --force web").ok();
        }
    });
}

/// N16: a cable that somebody pulls out of the bridge is no way in either.
#[test]
fn n16_nor_by_the_hosts_end_of_a_cable() {
    in_network_world(CONTAINERS, |w, _| {
        w.write("rogue.py", ROGUE);
        network(w, "create web --subnet 10.5.0.0/24").ok();
        network(w, "connect web c1").ok();
        let port = w.run("basename /sys/class/net/br-web/brif/*").ok().stdout;
        w.run(&format!("ip link set {} nomaster", port.trim())).ok();
        misdirect(w, "c1", &[""]);
        assert_eq!(learnt(w, ""), "");
        network(w, "rm --force web").ok();
    });
}

/// The hardware address of `eth0` in a container.
fn mac_of(w: &World, name: &str) -> String {
    w.run(&format!("ip -n {name} -br link show eth0 | awk '{{print $3}}'")).ok().out().trim().to_owned()
}

/// N17: a container gets the address of another one: who remembers that takes the new hardware address at once, in both families, on a
/// bridge, on a LAN and on the host; at each connect.
#[test]
fn n17_an_address_is_found_at_its_new_place() {
    in_network_world(LAN, |w, _| {
        let bridge = "--subnet 10.5.0.0/24 --ipv6 fd00:5::/64";
        let macvlan = "--subnet 10.7.0.0/24 --gateway 10.7.0.1 --ipv6 fd00:7::/64 --driver macvlan --parent lan0";
        for (kind, v4, v6, third) in
            [(bridge, "10.5.0.77", "fd00:5::2", ("", "br-web")), (macvlan, "10.7.0.77", "fd00:7::2", ("lan", "eth0"))]
        {
            network(w, &format!("create web {kind}")).ok();
            // Takes fd00:…::2, whichever that is next.
            network(w, &format!("connect web c2 --ip {v6}")).ok();
            network(w, "connect web c3").ok();
            network(w, "disconnect web c2").ok();
            let ip_of = |name: &str| if name.is_empty() { "ip".to_owned() } else { format!("ip -n {name}") };
            let third = (ip_of(third.0), third.1);
            let knowing = [(ip_of("c3"), "eth0"), third];
            for container in ["c1", "c2", "c1"] {
                for (ip, dev) in &knowing {
                    for address in [v4, v6] {
                        w.run(&format!(
                            "{ip} neigh replace {address} lladdr 02:00:00:00:00:99 dev {dev} nud reachable"
                        ))
                        .ok();
                    }
                }
                let address = if container == "c2" { v6 } else { v4 };
                network(w, &format!("connect web {container} --ip {address}")).ok();
                let mac = mac_of(w, container);
                for (ip, dev) in &knowing {
                    let seen = w.run(&format!("{ip} neigh show {address} dev {dev}")).ok().stdout;
                    assert!(seen.contains(&mac), "{container} ({mac}) at {address} of {kind}: {seen}");
                }
                network(w, &format!("disconnect web {container}")).ok();
            }
            w.run(&format!("ip neigh flush dev {} 2>/dev/null || true", "br-web")).ok();
            network(w, "rm --force web").ok();
        }
    });
}

/// A setting that two things of ours hold and the first that goes takes back, or nobody: that of all devices of a container comes back
/// with the last of its networks, whichever goes first, and a container that ends leaves no note of it.
#[test]
fn n16_the_setting_of_all_comes_back_with_the_last_network() {
    in_network_world("ip netns add other", |w, _| {
        w.run("ip netns add c1; ip -n c1 link set lo up").ok();
        network(w, "create one --subnet 10.5.0.0/24").ok();
        network(w, "create two --subnet 10.6.0.0/24").ok();
        let of_all =
            || w.run("ip netns exec c1 cat /proc/sys/net/ipv4/conf/all/accept_redirects").ok().out().trim().to_owned();
        assert_eq!(of_all(), "1");
        for [first, last] in [["one", "two"], ["two", "one"]] {
            network(w, "connect one c1").ok();
            network(w, "connect two c1").ok();
            assert_eq!(of_all(), "0");
            network(w, &format!("disconnect {first} c1")).ok();
            assert_eq!(of_all(), "0", "{last} still counts on it");
            network(w, &format!("disconnect {last} c1")).ok();
            assert_eq!(of_all(), "1", "{last} was the last one");
        }
        // Somebody else has set it meanwhile.
        network(w, "connect one c1").ok();
        w.run("ip netns exec c1 sysctl -qw net.ipv4.conf.all.accept_redirects=1").ok();
        assert!(network(w, "repair one").ok().out().contains("c1"));
        assert_eq!(of_all(), "0");
        w.run("ip netns del c1; ip netns add c1").ok();
        network(w, "rm --force one two").ok();
        w.run("ip netns del c1").ok();
    });
}
