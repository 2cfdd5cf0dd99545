//! Addresses: which are handed out, to whom, and how they come back.

use std::collections::BTreeSet;

use expect_test::expect;

use super::{CONTAINERS, in_network_world, make_web, network, nothing_happens};
use crate::cli::Terminal;
use crate::stage::{KILLED, with_fault};
use crate::tier::{full, points};
use crate::world::World;

/// Returns the addresses of a network's containers, as `inspect` has them.
pub(super) fn addresses(w: &World, name: &str) -> Vec<String> {
    let shown = network(w, &format!("inspect {name}")).ok().stdout;
    let all: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let endpoints = all["endpoints"].as_array().expect("a list");
    let of = |endpoint: &serde_json::Value| endpoint["addresses"].as_array().expect("a list").clone();
    endpoints.iter().flat_map(of).map(|cidr| cidr.as_str().expect("text").to_owned()).collect()
}

/// I1: more networks than the first 2000 bytes of a file have room for.
#[test]
fn i1_many_networks() {
    in_network_world(CONTAINERS, |w, _| {
        let names: Vec<String> = (0..7).map(|n| format!("net{n}")).collect();
        for name in &names {
            network(w, &format!("create {name} --subnet 10.9.{}.0/24", &name[3..])).ok();
        }
        network(w, "connect net6 c1").ok().says("eth0 has 10.9.6.2/24");
        network(w, "connect net0 c1").ok().says("eth1 has 10.9.0.2/24");
        assert_eq!(network(w, "ls").ok().out().lines().count(), 8);
        network(w, &format!("rm --force {}", names.join(" "))).ok();
    });
}

/// I2: never the network's own address, nor broadcast, nor the gateway; beyond .255 it goes on.
#[test]
fn i2_small_subnets_and_large_ones() {
    in_network_world("for n in 1 2 3 4 5 6; do ip netns add c$n; done", |w, before| {
        for (subnet, gateway, given) in [
            ("10.5.0.0/31", "10.5.0.0", vec!["10.5.0.1/31"]),
            ("10.5.0.4/30", "10.5.0.5", vec!["10.5.0.6/30"]),
            (
                "10.5.0.248/29",
                "10.5.0.249",
                vec!["10.5.0.250/29", "10.5.0.251/29", "10.5.0.252/29", "10.5.0.253/29", "10.5.0.254/29"],
            ),
            ("fd00:5::/127", "fd00:5::", vec!["fd00:5::1/127"]),
            ("fd00:5::/126", "fd00:5::1", vec!["fd00:5::2/126", "fd00:5::3/126"]),
        ] {
            network(w, &format!("create small --subnet {subnet}")).ok().says(&format!("{subnet}, gateway {gateway},"));
            for (n, address) in (1..).zip(&given) {
                network(w, &format!("connect small c{n}")).ok().says(&format!("eth0 has {address}"));
                let gateway = if gateway.contains(':') { format!("-6 {gateway}") } else { gateway.to_owned() };
                w.run(&format!("ip netns exec c{n} ping -c 1 -W 2 {gateway}")).ok();
            }
            let full = network(w, &format!("connect small c{}", given.len() + 1)).fails(1);
            full.says(&format!("the pool `{subnet}`"));
            assert_eq!(addresses(w, "small"), given);
            network(w, "rm --force small").ok();
            w.assert_clean(before);
        }
        // A subnet of two times 256, from just before its middle on.
        let script = r#"
            let all = [];
            for n in 0..300 { all.push(ipam_alloc("10.6.0.0/23")); }
            check("the last of the first half is a host's", ip("10.6.0.255") in all && ip("10.6.1.0") in all);
            check("the ends are nobody's", !(ip("10.6.0.0") in all) && !(ip("10.6.1.255") in all));
            try { ipam_alloc("10.6.0.0/23", #{ ip: "10.6.1.255" }); } catch (e) { check("broadcast", e.kind == "invalid"); }"#;
        w.topo(&["run", "--rm", "-e", script]).ok().says("ok   broadcast");
        network(w, "create wide --subnet 10.6.0.0/23").ok();
        network(w, "connect wide c1 --ip 10.6.0.255").ok();
        network(w, "connect wide c2 --ip 10.6.1.0").ok();
        w.run("ip netns exec c1 ping -c 1 -W 2 10.6.1.0").ok();
        network(w, "rm --force wide").ok();
        network(w, "create six --subnet fd00:6::/64").ok();
        network(w, "connect six c1").ok().says("eth0 has fd00:6::2/64");
        network(w, "connect six c2 --ip fd00:6::ffff:ffff:ffff:ffff").ok();
        w.run("ip netns exec c1 ping -6 -c 1 -W 2 fd00:6::ffff:ffff:ffff:ffff").ok();
        network(w, "rm --force six").ok();
    });
}

/// I3: a full pool says which, how large it is, and who holds how many.
#[test]
fn i3_a_full_network() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create tiny --subnet 10.5.0.0/29 --gateway 10.5.0.6").ok();
        let taken = r#"for n in 0..3 { ipam_alloc("10.5.0.0/29", #{ owner: "printers" }); }"#;
        w.topo(&["run", "--name", "office", "-e", taken]).ok();
        network(w, "connect tiny c1").ok();
        network(w, "connect tiny c2").ok();
        let before = w.snapshot();
        let full = network(w, "connect tiny c3").fails(1);
        full.says("take an address of the pool `10.5.0.0/29`: all 5 addresses are leased: `office: printers` holds 3, `net.tiny.");
        full.says(": c1` holds 1").says(": c2` holds 1").says("`topo gc` frees those of owners that are no more");
        w.assert_clean(&before);
        w.topo(&["down", "office"]).ok();
        network(w, "connect tiny c3").ok();
        network(w, "rm --force tiny").ok();
    });
}

/// I5: many processes at once get distinct addresses.
#[test]
fn i5_many_at_once() {
    in_network_world("", |w, _| {
        let script = r#"for n in 0..8 { print(`got ${ipam_alloc("10.5.0.0/24")}`); }"#;
        let runs: Vec<_> = (0..8).map(|n| w.start_topo(&["run", "--name", &format!("x{n}"), "-e", script])).collect();
        let said: Vec<String> = runs.into_iter().map(|run| run.wait().ok().stdout).collect();
        let got: Vec<&str> = said.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("got")).collect();
        assert_eq!(got.len(), 64);
        assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 64, "{got:?}");
        w.topo(&["down", "--all"]).ok();
    });
}

/// I6: killed anywhere between the reservation of an address and its use, a run loses none and blocks none.
#[test]
fn i6_killed_between_reservation_and_commit() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        network(w, "disconnect web c1").ok();
        let script =
            r#"ipam_alloc("10.5.0.0/24", #{ ip: "10.5.0.77" }); ipam_alloc("10.6.0.0/24", #{ ip: "10.6.0.77" });"#;
        for point in points(script) {
            let ran = with_fault(w, &format!("kill:{point}"), &["run", "--rm", "--name", "killed", "-e", script]);
            println!("point {point}: {}", ran.code);
            if ran.code != KILLED {
                assert!(ran.code == 0 && (point > 2 || !full()), "{}", ran.err());
                break;
            }
            w.topo(&["gc"]).ok();
            let left = "assert(ipam_list(\"10.5.0.0/24\").is_empty() && ipam_list(\"10.6.0.0/24\").is_empty()); assert(ipam_list().len == 1);";
            w.topo(&["run", "--rm", "-e", left]).ok();
        }
        network(w, "rm web").ok();
    });
}

/// I7: what is written for an address is small, however large the pool is.
#[test]
fn i7_a_large_pool_costs_no_more() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create vast --subnet 10.0.0.0/8 --ipv6 fd00:5::/32").ok();
        network(w, "connect vast c1").ok();
        network(w, "connect vast c2").ok();
        w.run("test -z \"$(find state/store -type f -size +2k)\"").ok();
        network(w, "rm --force vast").ok();
    });
}

/// I8: what is released twice, or was never held, is said so and harms nobody.
#[test]
fn i8_releasing_what_one_does_not_hold() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.session(expect![[r#"
            $ topo run --rm -e 'let a = ipam_alloc("10.6.0.0/24"); print(ipam_release("10.6.0.0/24", a)); print(ipam_release("10.6.0.0/24", a));'
            true
            false
            $ topo run --rm -e 'ipam_release("10.5.0.0/24", "10.5.0.2");'
            --- stderr
            error: release `10.5.0.2`: `net.web.XXXXXXXXXXXX: c1` holds it, not this lab
             --> -e:1:1
              |
            1 | ipam_release("10.5.0.0/24", "10.5.0.2");
              | ^^^^^^^^^^^^
            --- exit code 1
            $ topo run --rm -e 'ipam_release("10.5.0.0/24", "10.7.0.2");'
            --- stderr
            error: release `10.7.0.2` of the pool `10.5.0.0/24`: it lies outside of `10.5.0.0/24`
             --> -e:1:1
              |
            1 | ipam_release("10.5.0.0/24", "10.7.0.2");
              | ^^^^^^^^^^^^
            --- exit code 1
            $ topo run --rm -e 'ipam_release("10.5.0.0/24", "fd00::1");'
            --- stderr
            error: release `fd00::1` of the pool `10.5.0.0/24`: it lies outside of `10.5.0.0/24`
             --> -e:1:1
              |
            1 | ipam_release("10.5.0.0/24", "fd00::1");
              | ^^^^^^^^^^^^
            --- exit code 1
            $ topo run --rm -e 'ipam_release("10.5.0.0/16", "10.5.0.2");'
            $ topo network disconnect web c1
            c1 is disconnected from web
            $ topo network disconnect web c1
            --- stderr
            error: find `c1` in network `web`: it is not connected
            hint: nothing is connected to it
            --- exit code 1
            $ topo network rm web
            network web is removed
        "#]]);
    });
}

/// I9: a released address is the last to be handed out again, unless it is asked for.
#[test]
fn i9_a_released_address_waits() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create web --subnet 10.5.0.0/29").ok();
        for host in [2, 3, 4, 5, 6, 2, 3] {
            network(w, "connect web c1").ok().says(&format!("eth0 has 10.5.0.{host}/29"));
            network(w, "disconnect web c1").ok();
        }
        network(w, "connect web c1 --ip 10.5.0.3").ok();
        network(w, "connect web c2 --ip 10.5.0.2").ok();
        network(w, "connect web c3").ok().says("eth0 has 10.5.0.4/29");
        network(w, "rm --force web").ok();
    });
}

/// I10: what overlaps another network, a route or an address is refused, and named.
#[test]
fn i10_overlaps() {
    let others = "for c in c1; do ip netns add $c; done; ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up
        ip addr add 192.0.2.7/28 dev up0; ip addr add fd00:7::7/64 dev up0; ip route add 172.20.0.0/16 via 192.0.2.1
        ip route add blackhole 172.30.0.0/16; ip route add default via 192.0.2.1";
    in_network_world(others, |w, _| {
        network(w, "create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64").ok();
        // One that is not in the kernel: it has no device of the host.
        network(w, "create lan --driver macvlan --parent up1 --subnet 10.6.0.0/24").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network create two --subnet 10.5.0.0/24
                --- stderr
                error: make the pool `10.5.0.0/24`: there is one of `net.web`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
                $ topo network create two --subnet 10.5.0.128/25
                --- stderr
                error: make the pool `10.5.0.128/25`: it overlaps the pool `10.5.0.0/24` of `net.web`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
                $ topo network create two --subnet 10.0.0.0/8
                --- stderr
                error: make the pool `10.0.0.0/8`: it overlaps the pool `10.5.0.0/24` of `net.web`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
                $ topo network create two --subnet 10.6.0.0/25
                --- stderr
                error: make the pool `10.6.0.0/25`: it overlaps the pool `10.6.0.0/24` of `net.lan`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
                $ topo network create two --subnet fd00:5::/48
                --- stderr
                error: make the pool `fd00:5::/48`: it overlaps the pool `fd00:5::/64` of `net.web`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
                $ topo network create two --subnet 10.7.0.0/24 --ipv6 fd00:5::/64
                --- stderr
                error: make the pool `fd00:5::/64`: there is one of `net.web`
                hint: take another subnet; `ipam_subnet` finds a free one
                --- exit code 1
                $ topo network create two --subnet 192.0.2.0/24
                --- stderr
                error: make the pool `192.0.2.0/24`: it overlaps the address `192.0.2.7/28` of `up0` of the host
                hint: take another subnet; without one a network gets one that is free, as `ipam_subnet` finds it
                --- exit code 1
                $ topo network create two --subnet 172.20.5.0/24
                --- stderr
                error: make the pool `172.20.5.0/24`: it overlaps the route to `172.20.0.0/16` of the host
                hint: take another subnet; without one a network gets one that is free, as `ipam_subnet` finds it
                --- exit code 1
                $ topo network create two --subnet 172.30.5.0/24
                --- stderr
                error: make the pool `172.30.5.0/24`: it overlaps the route to `172.30.0.0/16` of the host
                hint: take another subnet; without one a network gets one that is free, as `ipam_subnet` finds it
                --- exit code 1
                $ topo network create two --subnet fd00:7::/96
                --- stderr
                error: make the pool `fd00:7::/96`: it overlaps the address `fd00:7::7/64` of `up0` of the host
                hint: take another subnet; without one a network gets one that is free, as `ipam_subnet` finds it
                --- exit code 1
            "#]],
        );
        network(w, "rm web lan").ok();
    });
}

/// A subnet that nobody asked for is free, and the next one too.
#[test]
fn a_subnet_is_chosen_around_what_is_there() {
    let others = "ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up
        ip addr add 10.224.0.200/24 dev up0; ip route add 10.224.1.0/24 via 10.224.0.1; ip route add default via 10.224.0.1";
    in_network_world(others, |w, _| {
        network(w, "create one").ok().says("10.224.2.0/24");
        network(w, "create two --ipv6 fd00:2::/64").ok().says("10.224.3.0/24").says("fd00:2::/64");
        network(w, "rm one").ok();
        network(w, "create three").ok().says("10.224.2.0/24");
        network(w, "rm two three").ok();
    });
}
