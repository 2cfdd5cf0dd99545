//! Rules that others remove: `inspect` shows what is gone, `repair` puts back exactly what was (D13).

use super::{Site, on_both_sites, on_site};

/// A network with two published containers, and what works there.
fn network(site: &Site) {
    site.web(&["8080:80", "5353:53/udp", "192.0.2.1:9090:80"]);
    site.network("disconnect web c2");
    site.network("connect web c2 --ip 10.5.0.12 --publish 8081:80");
    site.serve("out", "80");
    works(site);
}

fn works(site: &Site) {
    site.answers(&[
        ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
        ("out", "192.0.2.1:5353/udp", "c1 saw 192.0.2.2"),
        ("out", "192.0.2.1:9090", "c1 saw 192.0.2.2"),
        ("out", "192.0.2.1:8081", "c2 saw 192.0.2.2"),
        ("host", "127.0.0.1:8080", "c1 saw 10.5.0.1"),
        ("c1", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
        ("out", "[2001:db8::1]:8080", "c1 saw 2001:db8::2"),
        ("c1", "192.0.2.2:80", "out saw 192.0.2.1"),
        ("lan", "10.5.0.11:80", "lost"),
    ]);
}

/// The tables, sorted, each in the order of its own rules: one that is made anew comes last.
fn sorted(rules: &str) -> Vec<String> {
    let mut tables: Vec<String> = format!("\n{rules}").split("\ntable ").map(|table| table.trim().to_owned()).collect();
    tables.sort();
    tables
}

/// The chains, sorted, each in the order of its rules.
fn chains(rules: &str) -> Vec<String> {
    let end = |c: char| c == '}' || c.is_whitespace();
    let mut chains: Vec<String> =
        rules.split("\n\tchain ").map(|chain| chain.trim_end_matches(end).to_owned()).collect();
    chains.sort();
    chains
}

fn lines(rules: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = rules.lines().collect();
    lines.sort_unstable();
    lines
}

/// Does each damage to a network that is up, checks that `inspect` tells and `repair` puts all back: the same rules in the
/// same order, the same settings, and works again.
fn damaged(site: &Site, damages: &[(&str, &str)]) {
    let (rules, up) = (site.rules(), site.w.snapshot());
    let drift = || -> Vec<String> {
        let ran = site.network("inspect web");
        let all: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
        serde_json::from_value(all["drift"].clone()).expect("a list of words")
    };
    assert!(drift().is_empty());
    for (damage, lost) in crate::tier::spread(damages, 4) {
        println!("{damage}");
        let table = rules.split_whitespace().find(|word| word.starts_with("topo-")).expect("the network's table");
        site.w.run(&damage.replace("TABLE", &format!("inet {table}"))).ok();
        assert_ne!(
            (site.rules(), up.diff(&site.w.snapshot()).is_empty()),
            (rules.clone(), true),
            "`{damage}` did nothing"
        );
        let told = drift();
        assert!(told.iter().any(|what| what.contains(lost)), "`{lost}` is not in {told:?}");
        let ran = site.network("repair web");
        for what in &told {
            ran.says(&format!("put back: {what}"));
        }
        if told.iter().any(|what| what.starts_with("let ")) {
            // In another's chain they are in any order: each lets through, whatever stands before it.
            assert_eq!(lines(&site.rules()), lines(&rules), "after `{damage}`");
        } else {
            assert_eq!(chains(&site.rules()), chains(&rules), "after `{damage}`");
        }
        site.w.assert_clean(&up);
        assert!(drift().is_empty());
        site.network("repair web").says("nothing is amiss");
    }
    works(site);
}

/// Deletes the first rule of a chain of the network's table that a pattern finds.
fn delete_rule(chain: &str, pattern: &str) -> String {
    format!(
        "handle=$(nft -a list chain TABLE {chain} | grep -F -m 1 '{pattern}' | sed 's/.*# handle //'); \
         nft delete rule TABLE {chain} handle $handle"
    )
}

/// D13: everything, the network's table, the elements of a map, or one of them.
#[test]
fn d13_what_was_flushed_is_put_back() {
    on_both_sites("", |site| {
        network(site);
        damaged(
            site,
            &[
                ("nft flush ruleset", "add table"),
                ("nft delete table TABLE", "add table"),
                ("nft flush table TABLE", "masquerade `10.5.0.0/24`"),
                ("nft flush map TABLE v4", "publish `8081/tcp` to `10.5.0.12:80`"),
                ("nft delete element TABLE v4 '{ udp . 5353 }'", "publish `8080/tcp`"),
                ("nft delete element TABLE v4_at '{ tcp . 192.0.2.1 . 9090 }'", "publish `8080/tcp`"),
                ("nft delete element TABLE v4 '{ tcp . 8081 }'", "publish `8081/tcp` to `10.5.0.12:80`"),
            ],
        );
        site.network("rm --force web");
    });
}

/// D13: one rule, whichever it was, comes back at its own place: what drops all else stays the last.
#[test]
fn d13_one_rule_is_put_back_at_its_place() {
    on_both_sites("", |site| {
        network(site);
        let damages = [
            (delete_rule("forward", "ct state"), "accept what goes the way `forward`"),
            (delete_rule("forward", "ct status dnat"), "accept what goes the way `forward`"),
            (delete_rule("forward", "drop"), "drop what goes the way `forward`"),
            (delete_rule("postrouting", "10.5.0.0/24"), "masquerade `10.5.0.0/24`"),
            (delete_rule("postrouting", "meta mark"), "ready for published ports"),
            (delete_rule("published", "@v4_at"), "ready for published ports"),
            (delete_rule("local", "fib"), "ready for published ports"),
            (
                "nft flush chain TABLE forward; nft delete chain TABLE forward".into(),
                "drop what goes the way `forward`",
            ),
            ("nft flush chain TABLE prerouting; nft delete chain TABLE prerouting".into(), "ready for published ports"),
        ];
        let damages: Vec<(&str, &str)> = damages.iter().map(|(damage, lost)| (damage.as_str(), *lost)).collect();
        damaged(site, &damages);
        site.network("rm --force web");
    });
}

/// D13: an accept was deleted and the drop behind it stays: nothing gets through until it is put back before the drop.
#[test]
fn d13_an_accept_comes_back_before_the_drop() {
    on_both_sites("", |site| {
        network(site);
        let rules = site.rules();
        let table = rules.split_whitespace().find(|word| word.starts_with("topo-")).expect("the network's table");
        for pattern in ["ct state", "ct status dnat"] {
            site.w.run(&delete_rule("forward", pattern).replace("TABLE", &format!("inet {table}"))).ok();
        }
        site.answers(&[("out", "192.0.2.1:8080", "lost"), ("c1", "192.0.2.2:80", "lost")]);
        site.network("repair web");
        works(site);
        assert_eq!(site.rules(), rules);
        site.network("rm --force web");
    });
}

/// D13: settings that somebody turned, addresses and links that somebody took.
#[test]
fn d13_settings_and_addresses_are_put_back() {
    on_site("", |site| {
        network(site);
        damaged(
            site,
            &[
                ("echo 0 >/proc/sys/net/ipv4/conf/br-web/forwarding", "net.ipv4.ip_forward"),
                ("echo 0 >/proc/sys/net/ipv4/conf/wan0/forwarding", "net.ipv4.ip_forward"),
                ("echo 0 >/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
                ("nft delete table inet $(nft list tables | grep -o 'toposcript-[0-9a-f]*$')", "net.ipv4.ip_forward"),
                (
                    "nft delete table inet $(nft list tables | grep -o 'toposcript-inbound-.*')",
                    "what all published ports need",
                ),
                (
                    "nft flush table inet $(nft list tables | grep -o 'toposcript-inbound-.*')",
                    "what all published ports need",
                ),
                ("echo 0 >/proc/sys/net/ipv4/conf/br-web/route_localnet", "net/ipv4/conf/br-web/route_localnet"),
                ("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
                ("ip address del 10.5.0.1/24 dev br-web", "10.5.0.1/24"),
                ("bridge link set dev c1-eth0 hairpin off", "hairpin"),
            ],
        );
        site.network("rm --force web");
    });
}

/// D13: in the firewall of others too, whether they removed all, the table or one rule of two.
#[test]
fn d13_what_lets_through_another_firewall_is_put_back() {
    let firewall = "for command in iptables ip6tables; do $command -P FORWARD DROP; done";
    on_both_sites(firewall, |site| {
        network(site);
        damaged(
            site,
            &[
                ("iptables -F FORWARD", "through other firewalls"),
                (
                    "iptables -D FORWARD $(iptables -S FORWARD | grep -n -m 1 -e '-i br-web' | sed 's/:.*//;s/$/ - 1/' | xargs expr)",
                    "through other firewalls",
                ),
                (
                    "iptables -D FORWARD $(iptables -S FORWARD | grep -n -m 1 -e '-o br-web' | sed 's/:.*//;s/$/ - 1/' | xargs expr)",
                    "through other firewalls",
                ),
                ("ip6tables -F FORWARD", "through other firewalls"),
            ],
        );
        site.network("rm --force web");
    });
}

/// D13: all networks are repaired where none is named, and one that is whole is left alone.
#[test]
fn d13_all_networks_are_repaired() {
    on_site("", |site| {
        site.web(&["8080:80"]);
        site.network("create db --subnet 10.6.0.0/24");
        site.network("connect db c3 --publish 8082:80");
        let (rules, up) = (site.rules(), site.w.snapshot());
        site.w.run("nft flush ruleset").ok();
        let ran = site.network("repair");
        ran.says("web: put back: masquerade `10.5.0.0/24`").says("db: put back: masquerade `10.6.0.0/24`");
        assert_eq!(sorted(&site.rules()), sorted(&rules));
        site.w.assert_clean(&up);
        site.network("repair").says("web: nothing is amiss").says("db: nothing is amiss");
        // One rule more is not the network's.
        site.w.run("nft add table inet mine").ok();
        site.network("repair").says("web: nothing is amiss");
        site.w.run("nft delete table inet mine").ok();
        site.network("rm --force web db");
    });
}
