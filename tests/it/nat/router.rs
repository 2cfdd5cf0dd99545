//! The same primitives in a plain lab: in a router of its own, and on the host, beside networks and other labs.

use super::servers::{LOST, REFUSED};
use super::{Site, on_both_sites, on_site};

/// in -- (lan0) r1 (wan0) -- far: a router that hides `in` behind an address of its own, and publishes what it serves.
const ROUTER: &str = r#"
let r1 = netns("r1");
let inner = netns("in");
let far = netns("far");
veth(r1["lan0"], inner["eth0"]);
veth(r1["wan0"], far["eth0"]);
r1["lan0"].addr("10.0.0.1/24").addr("fd00:1::1/64");
inner["eth0"].addr("10.0.0.2/24").addr("fd00:1::2/64");
r1["wan0"].addr("203.0.113.1/24").addr("203.0.113.9/24").addr("2001:db8:9::1/64");
far["eth0"].addr("203.0.113.2/24").addr("2001:db8:9::2/64");
inner.route("default", #{ via: "10.0.0.1" });
inner.route("::/0", #{ via: "fd00:1::1" });
r1.forward(true);
"#;

/// Builds the router with more statements, and starts servers on both sides.
fn router(site: &Site, statements: &str) {
    site.lab("lab", &format!("{ROUTER}{statements}")).ok();
    site.serve("in", "80 53/udp");
    site.serve("far", "80 53/udp");
}

fn down(site: &Site) {
    site.servers.borrow_mut().clear();
    site.w.topo(&["down", "lab"]).ok();
    site.is_clean();
}

/// What leaves by the way out, and only that, bears the router's address.
#[test]
fn masquerade_hides_the_network() {
    on_both_sites("", |site| {
        router(
            site,
            r#"r1.masquerade("10.0.0.0/24", #{ out: "wan0" }); r1.masquerade("fd00:1::/64", #{ not_out: r1["lan0"] });"#,
        );
        site.serve("r1", "8080");
        site.answers(&[
            ("in", "203.0.113.2:80", "far saw 203.0.113.1"),
            ("in", "203.0.113.2:53/udp", "far saw 203.0.113.1"),
            ("in", "[2001:db8:9::2]:80", "far saw 2001:db8:9::1"),
            ("in", "203.0.113.1:8080", "r1 saw 10.0.0.2"),
            ("r1", "10.0.0.2:80", "in saw 10.0.0.1"),
        ]);
        down(site);
    });
}

/// A source of one's choice, for one destination alone.
#[test]
fn snat_gives_an_address_of_choice() {
    on_both_sites("", |site| {
        router(
            site,
            r#"far["eth0"].addr("203.0.113.3/24");
               r1.snat("10.0.0.0/24", #{ to: "203.0.113.9", out: "wan0", dst: "203.0.113.2/32" });
               r1.masquerade("10.0.0.0/24", #{ out: "wan0" });"#,
        );
        site.answers(&[
            ("in", "203.0.113.2:80", "far saw 203.0.113.9"),
            ("in", "203.0.113.3:80", "far saw 203.0.113.1"),
        ]);
        down(site);
    });
}

/// A published port of a router works from outside, from the router and from the target, and leaves transit alone.
#[test]
fn dnat_of_a_router() {
    on_both_sites("", |site| {
        router(
            site,
            r#"far.route("10.0.0.0/24", #{ via: "203.0.113.1" });
               r1.dnat([#{ port: 8080, to: "10.0.0.2:80" }, #{ proto: "udp", port: "5000-5009", to: "10.0.0.2", to_port: "50-59" },
                        #{ port: 8080, to: "[fd00:1::2]:80" }, #{ port: 9090, to: "10.0.0.2:80", host_ip: "203.0.113.9" }]);"#,
        );
        site.serve("far", "8080");
        site.answers(&[
            ("far", "203.0.113.1:8080", "in saw 203.0.113.2"),
            ("far", "203.0.113.9:8080", "in saw 203.0.113.2"),
            ("far", "203.0.113.9:9090", "in saw 203.0.113.2"),
            ("far", "203.0.113.1:9090", REFUSED),
            ("far", "203.0.113.1:5003/udp", "in saw 203.0.113.2"),
            ("far", "[2001:db8:9::1]:8080", "in saw 2001:db8:9::2"),
            ("r1", "203.0.113.1:8080", "in saw 203.0.113.1"),
            ("r1", "127.0.0.1:8080", "in saw 10.0.0.1"),
            ("in", "203.0.113.1:8080", "in saw 10.0.0.1"),
            ("in", "[2001:db8:9::1]:8080", "in saw fd00:1::1"),
            ("in", "203.0.113.2:8080", "far saw 10.0.0.2"),
            ("far", "10.0.0.2:80", "in saw 203.0.113.2"),
        ]);
        down(site);
    });
}

/// What a firewall of a router lets pass, what it refuses and what it swallows; its rules count.
#[test]
fn filter_of_a_router() {
    on_both_sites("", |site| {
        router(
            site,
            r#"far.route("10.0.0.0/24", #{ via: "203.0.113.1" });
               r1.filter("forward", "drop");
               r1.filter("forward", "accept", #{ state: ["established", "related"] });
               r1.filter("forward", "accept", #{ proto: "tcp", port: 80, in_dev: "lan0" });
               r1.filter("forward", "reject", #{ proto: "udp", src: "10.0.0.0/24" });
               r1.filter("input", "drop", #{ proto: "tcp", port: "8080-8089", not_in_dev: "lan0" });
               r1.filter("output", "reject", #{ proto: "tcp", dst: "203.0.113.2/32" });"#,
        );
        site.serve("far", "81");
        site.serve("r1", "8080");
        site.answers(&[
            ("in", "203.0.113.2:80", "far saw 10.0.0.2"),
            ("in", "203.0.113.2:81", LOST),
            ("in", "203.0.113.2:53/udp", REFUSED),
            ("far", "10.0.0.2:80", LOST),
            ("far", "203.0.113.1:8080", LOST),
            ("in", "203.0.113.1:8080", "r1 saw 10.0.0.2"),
            ("r1", "203.0.113.2:80", REFUSED),
        ]);
        let counted = r#"let rules = netns_get("r1").filters().map(|rule| `${rule.chain}: ${rule.rule} (${rule.packets > 0})`);
                         for rule in rules { print(rule); }"#;
        let ran = site.w.topo(&["run", "--rm", "-e", counted]).ok();
        let lines: Vec<&str> = ran.out().lines().collect();
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains("counter") && line.ends_with("(true)")), "{lines:#?}");
        down(site);
    });
}

/// Two labs on the host at once, each with rules of its own: the one that goes takes its own along.
#[test]
fn two_labs_on_the_host_at_once() {
    let others = "echo 1 >/proc/sys/net/ipv4/ip_forward; ip -n c1 link add eth1 type veth peer name cab0
                  ip -n c1 link set cab0 netns 1; ip address add 10.9.0.1/24 dev cab0; ip link set cab0 up
                  ip -n c1 address add 10.9.0.2/24 dev eth1; ip -n c1 link set eth1 up; ip -n c1 route add default via 10.9.0.1";
    for order in [["one", "two"], ["two", "one"]] {
        on_site(others, |site| {
            site.serve("c1", "80");
            site.serve("out", "80");
            let alone = |name: &str, statements: &str| {
                let before = site.rules();
                site.lab(name, statements).ok();
                assert_ne!(site.rules(), before);
            };
            alone(
                "one",
                r#"host.masquerade("10.9.0.0/24", #{ out: "wan0" }); host.dnat(#{ port: 8080, to: "10.9.0.2:80" });"#,
            );
            alone(
                "two",
                r#"host.snat("10.9.0.0/24", #{ to: "192.0.2.1" }); host.dnat(#{ port: 8081, to: "10.9.0.2:80" });
                            host.filter("input", "drop", #{ proto: "tcp", port: 7777 });"#,
            );
            site.answers(&[
                ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
                ("out", "192.0.2.1:8081", "c1 saw 192.0.2.2"),
                ("host", "127.0.0.1:8080", "c1 saw 10.9.0.1"),
                ("host", "127.0.0.1:8081", "c1 saw 10.9.0.1"),
                ("c1", "192.0.2.2:80", "out saw 192.0.2.1"),
                ("out", "192.0.2.1:7777", LOST),
            ]);
            site.w.topo(&["down", order[0]]).ok();
            let (stays, gone) = if order[0] == "one" { (8081, 8080) } else { (8080, 8081) };
            site.answers(&[
                ("out", &format!("192.0.2.1:{stays}"), "c1 saw 192.0.2.2"),
                ("host", &format!("127.0.0.1:{stays}"), "c1 saw 10.9.0.1"),
                ("out", &format!("192.0.2.1:{gone}"), REFUSED),
                ("c1", "192.0.2.2:80", "out saw 192.0.2.1"),
                ("out", "192.0.2.1:7777", if order[0] == "one" { LOST } else { REFUSED }),
            ]);
            site.w.topo(&["down", order[1]]).ok();
            site.is_clean();
        });
    }
}

/// A lab that is killed, or refused, at any point leaves no rule, setting or element.
#[test]
fn a_lab_that_is_cut_short_leaves_nothing() {
    let statements = r#"host.masquerade("10.9.0.0/24", #{ out: "wan0" });
        host.filter("forward", "drop");
        host.filter("forward", "accept", #{ in_dev: "wan0", state: "dnat" });
        host.dnat([#{ port: 8080, to: "192.0.2.2:80" }, #{ proto: "udp", port: 53, to: "192.0.2.2:53" }]);"#;
    let firewall = "iptables -P FORWARD DROP; echo 0 >/proc/sys/net/ipv4/conf/wan0/route_localnet";
    on_site(firewall, |site| {
        crate::stage::kill_at_each_point(&site.w, &site.before, statements);
        site.is_clean();
    });
}
