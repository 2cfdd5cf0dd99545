//! Other firewalls on the host that drop what is forwarded: traffic passes where it can, they stay readable, and all is taken
//! back (D9).

use super::servers::LOST;
use super::{Site, on_both_sites, on_site};

/// What passes a host whose firewall drops all else: published ports, the way out, and a network's inner traffic.
fn passes(site: &Site) {
    site.answers(&[
        ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
        ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
        ("out", "192.0.2.1:5353/udp", "c1 saw 192.0.2.2"),
        ("host", "127.0.0.1:8080", "c1 saw 10.5.0.1"),
        ("c1", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
        ("c2", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
        ("c2", "10.5.0.11:80", "c1 saw 10.5.0.12"),
        ("c1", "192.0.2.2:80", "out saw 192.0.2.1"),
        ("c1", "192.0.2.2:53/udp", "out saw 192.0.2.1"),
        ("out", "[2001:db8::1]:8080", "c1 saw 2001:db8::2"),
        ("c1", "[2001:db8::1]:8080", "c1 saw fd00:5::1"),
        ("c1", "[2001:db8::2]:80", "out saw 2001:db8::1"),
    ]);
    // And nothing else does: what the firewall dropped before, it still drops.
    site.answers(&[("lan", "192.0.2.2:80", LOST), ("lan", "[2001:db8::2]:80", LOST)]);
}

/// The tables of the host, each in the order of its own rules; iptables-restore makes its tables anew, behind the others.
fn tables(site: &Site) -> Vec<String> {
    let mut tables: Vec<String> = format!("\n{}", site.rules()).split("\ntable ").map(str::to_owned).collect();
    tables.sort();
    tables
}

/// What iptables-restore adds to a table, it adds before the test too: the chains that nobody used.
const RESTORED: &str = "for command in iptables ip6tables; do
    if nft list ruleset | grep -q 'chain FORWARD'; then $command-save -t filter >saved; $command-restore saved; rm saved; fi
done";

/// Builds the network on a host with a firewall, checks what passes and that all goes again.
fn behind(firewall: &str, then: impl Fn(&Site)) {
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    on_both_sites(&format!("{forward}\n{firewall}\n{RESTORED}"), |site| {
        let before = tables(site);
        site.serve("out", "80 53/udp");
        site.answers(&[("lan", "192.0.2.2:80", LOST)]);
        site.web(&["8080:80", "5353:53/udp"]);
        passes(site);
        then(site);
        site.network("rm --force web");
        assert_eq!(tables(site), before);
        site.is_clean();
    });
}

/// Both iptables commands, one after the other.
fn both(arguments: &str) -> String {
    format!("iptables {arguments}; ip6tables {arguments}")
}

/// The rules that iptables has for the network, which it reads and writes like its own.
fn iptables_can_read(site: &Site, chain: &str) {
    for (command, subnet) in [("iptables", "10.5.0.0/24"), ("ip6tables", "fd00:5::/64")] {
        let listed = site.w.run(&format!("{command} -S {chain}; {command} -L {chain} -n -v")).ok();
        assert_eq!(listed.err(), "", "{listed:?}");
        let rules: Vec<String> =
            listed.out().lines().filter(|line| line.starts_with("-A ")).map(without_comment).collect();
        for expected in [
            format!("-A {chain} -i br-web -j ACCEPT"),
            format!("-A {chain} -o br-web -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"),
            format!("-A {chain} -s {subnet} -j ACCEPT"),
            format!("-A {chain} -d {subnet} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"),
        ] {
            let times = rules.iter().filter(|rule| **rule == expected).count();
            assert_eq!(times, 1, "`{expected}` in:\n{}", listed.out());
        }
        // What it saves it restores, and what it wrote itself is taken back as well.
        let saved =
            site.w.run(&format!("{command}-save -t filter >saved; {command}-restore saved; {command} -S {chain}")).ok();
        let again: Vec<String> =
            saved.out().lines().filter(|line| line.starts_with("-A ")).map(without_comment).collect();
        assert_eq!(again, rules, "{}", saved.err());
        site.w.run("rm saved").ok();
    }
    passes(site);
}

fn without_comment(rule: &str) -> String {
    let Some((before, rest)) = rule.split_once(" -m comment --comment \"topo:") else { return rule.to_owned() };
    format!("{before}{}", rest.split_once('"').map_or("", |(_, after)| after))
}

/// D9: `iptables -P FORWARD DROP`, as one's own script has it.
#[test]
fn d9_iptables_with_the_policy_drop() {
    behind(&both("-P FORWARD DROP"), |site| iptables_can_read(site, "FORWARD"));
}

/// D9: a chain of one's own that ends in a rule that rejects all.
#[test]
fn d9_iptables_with_a_last_rule_that_rejects() {
    let mine = [
        both("-A FORWARD -p tcp --dport 22 -j ACCEPT"),
        both("-A FORWARD -m comment --comment \"all else\" -j REJECT"),
        // With an answer for whom it rejects, `lost` would be another word.
        both("-R FORWARD 2 -j DROP"),
    ];
    behind(&mine.join("; "), |site| iptables_can_read(site, "FORWARD"));
}

/// D9: Docker's chains are not touched: the place is behind them, where the policy would drop.
#[test]
fn d9_docker() {
    let docker = [
        "-P FORWARD DROP",
        "-N DOCKER",
        "-N DOCKER-USER",
        "-N DOCKER-FORWARD",
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -j DOCKER-FORWARD",
        "-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A DOCKER-FORWARD -i docker0 -j ACCEPT",
        "-A DOCKER-FORWARD -o docker0 -j DOCKER",
        "-A DOCKER ! -i docker0 -o docker0 -j DROP",
        "-A DOCKER-USER -j RETURN",
    ];
    behind(&docker.map(both).join("; "), |site| {
        let others = |site: &Site| {
            site.w.run("iptables -S DOCKER-USER; iptables -S DOCKER-FORWARD; iptables -S DOCKER").ok().stdout
        };
        let before = others(site);
        assert!(!before.contains("br-web"), "{before}");
        iptables_can_read(site, "FORWARD");
        assert_eq!(others(site), before);
    });
}

/// D9: firewalld's table: a chain without a policy whose last rule takes all. (It rejects; here it drops, so that what does
/// not pass is lost like elsewhere.)
#[test]
fn d9_firewalld() {
    let firewalld = "nft -f - <<'END'
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state established,related accept
        ct status dnat accept
        iifname \"lo\" accept
        ct state invalid drop
        jump filter_FORWARD_POLICIES
        VERDICT
    }
    chain filter_FORWARD_POLICIES {
        iifname \"docker0\" accept
    }
}
END";
    for verdict in ["reject with icmpx type admin-prohibited", "drop"] {
        if verdict == "drop" {
            behind(&firewalld.replace("VERDICT", verdict), |_| {});
            continue;
        }
        on_both_sites(&firewalld.replace("VERDICT", verdict), |site| {
            site.serve("out", "80");
            site.web(&["8080:80"]);
            site.answers(&[
                ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
                ("c1", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
                ("c1", "192.0.2.2:80", "out saw 192.0.2.1"),
                ("c1", "[2001:db8::2]:80", "out saw 2001:db8::1"),
            ]);
            site.network("rm --force web");
        });
    }
}

/// D9: a hand-written nftables.conf with the policy drop, one table a family and one of both.
#[test]
fn d9_nft_with_the_policy_drop() {
    let table = |family: &str| {
        format!(
            "add table {family} mine; add chain {family} mine f {{ type filter hook forward priority 0; policy drop; }}; \
             add rule {family} mine f udp dport 5000 accept; "
        )
    };
    for families in [vec!["inet"], vec!["ip", "ip6"], vec!["inet", "ip"]] {
        let all: String = families.into_iter().map(table).collect();
        behind(&format!("nft '{all}'"), |_| {});
    }
}

/// D9: several at once, each of which must let the traffic through.
#[test]
fn d9_several_firewalls_at_once() {
    let all = format!(
        "{}; nft 'add table inet mine; add chain inet mine f {{ type filter hook forward priority 5; policy drop; }}'",
        both("-P FORWARD DROP")
    );
    behind(&all, |site| iptables_can_read(site, "FORWARD"));
}

/// D9: what comes when the network is up is shown as its drift, and `repair` lets the traffic through.
#[test]
fn d9_a_firewall_that_comes_later() {
    on_both_sites("iptables -A FORWARD -j ACCEPT; iptables -F FORWARD", |site| {
        site.serve("out", "80");
        site.web(&["8080:80"]);
        site.w.run("iptables -P FORWARD DROP").ok();
        site.answers(&[("out", "192.0.2.1:8080", LOST), ("c1", "192.0.2.2:80", LOST)]);
        site.network("inspect web").says("let what comes from `br-web`");
        site.network("repair web").says("put back: let what comes from `br-web`");
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"), ("c1", "192.0.2.2:80", "out saw 192.0.2.1")]);
        site.network("repair web").says("nothing is amiss");
        site.network("rm --force web");
        assert_eq!(site.w.run("iptables -S FORWARD").ok().out(), "-P FORWARD DROP\n");
        site.w.run("iptables -P FORWARD ACCEPT").ok();
    });
}

/// A rule of ours before the rules of others: what an administrator drops or rejects by a rule of its own stays dropped, for all
/// firewalls alike; what they accept, and what only the policy or the last rule drops, passes. `out` is what is forbidden by IPv4,
/// udp is what is forbidden by IPv6.
#[test]
fn d9_an_explicit_drop_wins() {
    let explicit =
        [both("-A FORWARD -p udp -j DROP"), "iptables -A FORWARD -d 192.0.2.2 -j DROP".to_owned()].join("; ");
    let user = explicit.replace("FORWARD", "DOCKER-USER");
    let nft = |chain: &str, last: &str| {
        format!(
            "nft -f - <<'END'
table inet mine {{
    chain zone {{
        ip daddr 192.0.2.2 drop
        meta l4proto udp drop
        {last}
    }}
    chain f {{
        type filter hook forward priority 0; policy {chain};
    }}
}}
END"
        )
    };
    let into = |rule: &str| format!("\nnft add rule inet mine f {rule}");
    let shared = "\nnft 'add chain inet mine in { type filter hook input priority 0; }; add rule inet mine in iifname nobody jump zone'";
    let cases = [
        // By hand, by the policy and by a last rule, with a note.
        format!("{}; {explicit}", both("-P FORWARD DROP")),
        format!("{explicit}; {}", both("-A FORWARD -m comment --comment \"all else\" -j DROP")),
        // Docker with its users' chain.
        [
            both("-P FORWARD DROP"),
            both("-N DOCKER-USER"),
            both("-A FORWARD -j DOCKER-USER"),
            user.clone(),
            both("-A DOCKER-USER -j RETURN"),
        ]
        .join("; "),
        // And with a rule behind the jump there.
        [both("-P FORWARD DROP"), both("-N DOCKER-USER"), both("-A FORWARD -j DOCKER-USER"), explicit.clone()]
            .join("; "),
        // As ufw: chains that are gone through one after the other, the last of which may reject all.
        [
            both("-P FORWARD DROP"),
            both("-N ufw-user-forward"),
            both("-N ufw-reject-forward"),
            both("-A FORWARD -j ufw-user-forward"),
            both("-A FORWARD -j ufw-reject-forward"),
            explicit.replace("FORWARD", "ufw-user-forward"),
            both("-A ufw-reject-forward -j DROP"),
        ]
        .join("; "),
        [nft("drop", "return"), into("jump zone")].concat(),
        [nft("drop", "return"), into("goto zone")].concat(),
        // As firewalld: the zone rejects all, and is where all goes.
        [nft("accept", "drop"), into("goto zone")].concat(),
        [nft("accept", "drop"), into("iifname nobody accept"), into("jump zone"), into("counter drop")].concat(),
    ];
    for firewall in cases {
        println!("{firewall}");
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        on_site(&format!("{forward}\n{firewall}\n{RESTORED}"), |site| {
            let before = site.rules();
            site.serve("out", "80 53/udp");
            site.serve("lan", "80");
            site.web(&["8080:80"]);
            site.answers(&[
                ("c1", "192.0.2.2:80", LOST),
                ("c1", "192.0.2.2:53/udp", LOST),
                ("c1", "[2001:db8::2]:53/udp", LOST),
                ("c1", "198.51.100.2:80", "lan saw 198.51.100.1"),
                ("c1", "[2001:db8::2]:80", "out saw 2001:db8::1"),
                ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
            ]);
            site.network("rm --force web");
            assert_eq!(site.rules(), before);
        });
    }
    // What another hook goes through too is not the place: what is let through here would come in there.
    let firewall = [nft("accept", "drop"), into("jump zone"), shared.to_owned()].concat();
    on_site(&firewall, |site| {
        let zone = || site.w.run("nft -s list chain inet mine zone").ok().stdout;
        let before = zone();
        site.web(&[]);
        assert_eq!(zone(), before);
        assert!(site.rules().contains("br-web"));
        site.network("rm --force web");
    });
}

/// A drop that an administrator adds behind ours: `inspect` shows it, and `repair` puts ours behind it.
#[test]
fn d9_an_explicit_drop_that_comes_later() {
    on_site(&both("-P FORWARD DROP"), |site| {
        site.serve("out", "80");
        site.web(&[]);
        site.answers(&[("c1", "192.0.2.2:80", "out saw 192.0.2.1")]);
        site.w.run("iptables -A FORWARD -d 192.0.2.2 -j DROP").ok();
        site.network("inspect web").says("let what comes from `br-web`");
        site.network("repair web").says("put back: let what comes from `br-web`");
        site.answers(&[("c1", "192.0.2.2:80", LOST), ("c1", "[2001:db8::2]:80", "out saw 2001:db8::1")]);
        site.network("repair web").says("nothing is amiss");
        site.network("rm --force web");
        site.w.run("iptables -D FORWARD -d 192.0.2.2 -j DROP").ok();
    });
}

/// D9: two networks behind one firewall come and go, each with its own rules.
#[test]
fn d9_two_networks_behind_one_firewall() {
    on_both_sites(&both("-P FORWARD DROP"), |site| {
        site.web(&["8080:80"]);
        let with_web = site.rules();
        site.network("create db --subnet 10.6.0.0/24");
        site.network("connect db c3 --publish 8081:80");
        site.serve("c3", "80");
        site.answers(&[
            ("out", "192.0.2.1:8081", "c3 saw 192.0.2.2"),
            ("c1", "192.0.2.1:8081", "c3 saw 10.6.0.1"),
            ("c1", "10.6.0.2:80", LOST),
        ]);
        site.network("rm --force db");
        assert_eq!(site.rules(), with_web);
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2")]);
        site.network("rm --force web");
    });
}

/// D9: the iptables of before nf_tables is not changed; a warning names what helps, and it does.
#[test]
fn d9_the_old_iptables_is_warned_of_with_its_remedy() {
    for (family, out, to) in [("ip", "192.0.2.1:8080", "192.0.2.2"), ("ip6", "[2001:db8::1]:8080", "2001:db8::2")] {
        on_site(&format!("{family}tables-legacy -P FORWARD DROP"), |site| {
            let before = site.w.run(&format!("{family}tables-legacy -S FORWARD")).ok().stdout;
            let ran = site.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
            ran.says("warning: the old iptables drops what `host` forwards, and topo does not change it: ");
            site.network("connect web c1 --publish 8080:80");
            site.serve("c1", "80");
            site.answers(&[("out", out, LOST)]);
            let remedies: Vec<&str> =
                ran.err().split('`').filter(|word| word.contains("-legacy -A FORWARD ")).collect();
            assert!(!remedies.is_empty() && remedies.iter().all(|remedy| remedy.starts_with(family)), "{remedies:?}");
            remedies.iter().for_each(|remedy| drop(site.w.run(remedy).ok()));
            site.answers(&[("out", out, &format!("c1 saw {to}"))]);
            site.network("rm --force web");
            // Theirs is theirs.
            site.w.run(&format!("{family}tables-legacy -F FORWARD")).ok();
            assert_eq!(site.w.run(&format!("{family}tables-legacy -S FORWARD")).ok().stdout, before);
        });
    }
}

/// D9: a table that only its owner can change, as firewalld's may be: a warning names it and what it must allow.
#[test]
fn d9_a_table_that_has_an_owner_is_warned_of() {
    on_site("", |site| {
        let owner = site.start(
            "host",
            "mkfifo gate; \
             { echo 'add table inet theirs { flags owner; }'; \
               echo 'add chain inet theirs f { type filter hook forward priority 0; policy drop; }'; \
               echo 'list tables'; cat gate; } | nft -i",
        );
        owner.wait_for_output("table inet theirs", std::time::Duration::from_secs(10));
        let ran = site.network("create web --subnet 10.5.0.0/24");
        ran.says("warning: table `theirs` drops what `host` forwards, and only the process that owns it can change it");
        ran.says("what comes from `br-web`");
        site.network("rm web");
        site.w.run("echo quit >gate").ok();
        owner.wait();
        site.w.run("rm gate").ok();
    });
}
