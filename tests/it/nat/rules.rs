//! The rules themselves: exactly those that are needed, by netlink alone, and one look-up however many ports there are.

use super::servers::REFUSED;
use super::{Site, on_both_sites, on_site};

/// Runs the commands, and returns the rules that there are then.
fn after(site: &Site, commands: &[&str]) -> String {
    commands.iter().for_each(|words| drop(site.network(words)));
    site.rules()
}

/// Leaves the elements of the maps out of a list of rules.
fn without_elements(rules: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in rules.lines() {
        inside |= line.trim_start().starts_with("elements = {");
        if !inside {
            kept += &format!("{line}\n");
        }
        inside &= !line.ends_with('}');
    }
    kept
}

/// Leaves the comments out, in which the steps of a lab are numbered.
fn without_comments(rules: &str) -> String {
    let mut parts = rules.split("comment \"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.filter_map(|part| part.split_once('"')).fold(first, |all, (_, rest)| all + rest)
}

/// D1: publishing, unpublishing and publishing again ends with the same rules, in whatever order, and none twice.
#[test]
fn d1_the_rules_are_exactly_those_that_are_needed() {
    on_both_sites("", |site| {
        let empty = after(site, &["create web --subnet 10.5.0.0/24", "create six --subnet fd00:5::/64"]);
        assert!(!empty.contains("elements"), "{empty}");
        let publish = [
            "connect web c1 --ip 10.5.0.11 --publish 8080:80 --publish 5353:53/udp",
            "connect six c1 --ip fd00:5::11 --publish 8081:80 --publish 192.0.2.1:9090:80",
        ];
        let wrong = site.try_network(publish[1]).fails(1);
        wrong.says("no address of the family of `192.0.2.1`");
        assert_eq!(site.rules(), empty);
        let publish = [publish[0], "connect six c1 --ip fd00:5::11 --publish 8081:80 --publish [2001:db8::1]:9090:80"];
        let both = after(site, &publish);
        for element in [
            "tcp . 8080 ",
            ": 10.5.0.11 . 80",
            "udp . 5353 ",
            ": 10.5.0.11 . 53",
            "tcp . 8081 ",
            "tcp . 2001:db8::1 . 9090 ",
        ] {
            assert_eq!(both.matches(element).count(), 1, "`{element}` in:\n{both}");
        }
        assert_eq!(both.matches(": fd00:5::11 . 80").count(), 2, "{both}");
        assert_eq!(without_elements(&both), without_elements(&empty), "only the maps' elements differ");
        // Asked for again, nothing is added.
        assert_eq!(after(site, &publish), both);
        for _ in 0..2 {
            assert_eq!(after(site, &["disconnect web c1", "disconnect six c1"]), empty);
            assert_eq!(after(site, &publish), both);
        }
        assert_eq!(after(site, &["disconnect six c1", "disconnect web c1"]), empty);
        let turned = after(site, &[publish[1], publish[0]]);
        assert_eq!(without_comments(&turned), without_comments(&both), "in the other order");
        // Each takes its own along, and no other's.
        let other = after(site, &["connect web c2 --publish 8082:80", "disconnect web c1"]);
        assert!(other.contains("tcp . 8082 ") && other.contains("tcp . 8081 ") && !other.contains("8080"), "{other}");
        after(site, &["rm --force web six"]);
        site.is_clean();
    });
}

/// D1: more ports of a container that is connected, one by one; its disconnection takes all back.
#[test]
fn d1_ports_that_are_published_later_go_with_the_container() {
    on_site("", |site| {
        site.web(&["8080:80"]);
        let before = site.rules();
        for port in 8081..=8083 {
            let statements = format!(r#"network::publish("web", "c1", "{port}:80");"#);
            site.lab("more", &statements).ok();
        }
        assert_eq!(site.rules().matches("tcp . 808").count(), 2 * 4, "{}", site.rules());
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"), ("out", "192.0.2.1:8083", "c1 saw 192.0.2.2")]);
        // The same again is refused, and changes nothing.
        let rules = site.rules();
        site.lab("more", r#"network::publish("web", "c1", "8081:80");"#)
            .fails(1)
            .says("publish `8081:80/tcp` of `c1`: it is published already");
        site.lab("more", r#"network::publish("web", "c2", "8081:80");"#)
            .fails(1)
            .says("port 8081/tcp is published already");
        assert_eq!(site.rules(), rules);
        site.answers(&[("out", "192.0.2.1:8081", "c1 saw 192.0.2.2")]);
        site.network("disconnect web c1");
        assert!(!site.rules().contains("elements"), "{}", site.rules());
        assert_eq!(without_elements(&site.rules()), without_elements(&before));
        site.answers(&[("out", "192.0.2.1:8081", REFUSED)]);
        site.network("rm --force web");
    });
}

/// D1: what `nft list ruleset` shows of a network is what nft itself can read: a firewall's rules are often saved and restored.
#[test]
fn d1_what_nft_lists_it_can_restore() {
    on_site("", |site| {
        site.web(&["8080:80", "127.0.0.1:9090:80", "[2001:db8::1]:7070:80", "5353:53/udp"]);
        let filters = r#"host.filter("input", "drop", #{ proto: "tcp", port: "2000-2010", state: ["new", "invalid"] });
                         host.filter("forward", "accept", #{ src: "198.51.100.0/24", in_dev: "lan0", not_out: "wan0" });
                         host.filter("output", "accept", #{ proto: "icmpv6" });
                         host.snat("10.99.0.0/16", #{ to: "192.0.2.1", out: "wan0", dst: "203.0.113.0/24" });"#;
        site.lab("plain", filters).ok();
        let rules = site.rules();
        site.w.run("nft list ruleset >saved; nft flush ruleset; nft -f saved; rm saved").ok();
        assert_eq!(site.rules(), rules);
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"), ("host", "127.0.0.1:9090", "c1 saw 10.5.0.1")]);
        site.network("repair web").says("nothing is amiss");
        site.w.topo(&["down", "plain"]).ok();
        site.network("rm --force web");
    });
}

/// D11: all of it without any program but topo; another firewall's rules are changed too.
#[test]
fn d11_no_other_program_is_needed() {
    on_both_sites("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP", |site| {
        let topo = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            site.w.topo_env(&[("PATH", "/nowhere")], &words).ok()
        };
        topo("network create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
        topo("network connect web c1 --publish 8080:80 --publish 5353:53/udp");
        site.serve("c1", "80 53/udp");
        site.answers(&[
            ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
            ("host", "127.0.0.1:8080", "c1 saw 10.5.0.1"),
            ("out", "192.0.2.1:5353/udp", "c1 saw 192.0.2.2"),
            ("out", "[2001:db8::1]:8080", "c1 saw 2001:db8::2"),
        ]);
        site.w.run("nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP").ok();
        topo("network inspect web");
        topo("network repair web");
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2")]);
        topo("network disconnect web c1");
        topo("network rm web");
    });
}

/// D12: a thousand ports are a thousand elements of the same map, and no rule more than one port needs.
#[test]
fn d12_the_number_of_rules_does_not_grow_with_the_ports() {
    on_site("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("connect web c1 --ip 10.5.0.11");
        site.serve("c1", "80");
        let many = |count: u32| {
            let statements = format!(
                r#"let list = [];
                   for n in 0..{count} {{ list.push(#{{ port: 20000 + n * 2, to: "10.5.0.11:80" }}); }}
                   host.dnat(list);"#
            );
            site.lab("many", &statements).ok();
            let rules = site.rules();
            assert_eq!(rules.matches("10.5.0.11 . 80").count(), count as usize);
            let last = format!("192.0.2.1:{}", 20000 + (count - 1) * 2);
            site.answers(&[("out", &last, "c1 saw 192.0.2.2"), ("out", "192.0.2.1:20001", REFUSED)]);
            site.w.topo(&["down", "many"]).ok();
            without_elements(&rules)
        };
        assert_eq!(many(1), many(1000));
        site.network("rm --force web");
    });
}

/// Each network had two chains before routing that said nothing of it: half of the networks that the kernel has room for, and every packet
/// passed all of them. They are there once, from the first lab to the last, in whatever order they go.
#[test]
fn what_published_ports_have_in_common_is_there_once() {
    on_site("", |site| {
        let chains = |hook: &str| {
            let count = format!("nft list chains | grep -c 'type filter hook {hook} ' || true");
            site.w.run(&count).ok().out().trim().parse::<u32>().expect("a number")
        };
        site.network("create web --subnet 10.5.0.0/24");
        let (pre, post, forward) = (chains("prerouting"), chains("postrouting"), chains("forward"));
        assert_eq!((pre, post), (2, 1));
        site.network("create two --subnet 10.6.0.0/24");
        site.network("create in --subnet 10.7.0.0/24 --internal");
        site.lab("own", "host.dnat(#{ port: 7000, to: \"10.5.0.11:80\", dev: \"wan0\" });").ok();
        assert_eq!((chains("prerouting"), chains("postrouting"), chains("forward")), (2, 2, forward + 2));
        site.network("rm web");
        site.w.topo(&["down", "own"]).ok();
        assert_eq!(chains("prerouting"), 2);
        // A killed run does not hold them.
        let killed =
            "host.dnat(#{ port: 7000, to: \"10.6.0.11:80\", dev: \"wan0\" }); settle(); host.exec(\"kill -9 $PPID\");";
        site.w.topo(&["run", "--name", "killed", "-e", killed]).fails(137);
        for network in ["two", "in"] {
            site.network(&format!("rm {network}"));
        }
        site.w.topo(&["gc"]).ok();
        assert_eq!(chains("prerouting"), 0, "{}", site.w.run("nft list ruleset").ok().out());
    });
}
