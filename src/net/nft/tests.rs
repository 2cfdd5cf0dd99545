//! What the kernel makes of our batches, as `nft` sees it.

use std::net::IpAddr;

use super::list::Ruleset;
use super::*;
use crate::net::Netns;
use crate::net::testing::{netns, said};

pub(super) const TABLE: &str = "topo-test";

/// Returns a base chain.
pub(super) fn base(name: &str, kind: ChainKind, hook: Hook, priority: i32, policy: Policy) -> Chain {
    chain(name, Some(Base { kind, hook, priority, policy }))
}

/// Returns a chain of the test's table.
pub(super) fn chain(name: &str, base: Option<Base>) -> Chain {
    Chain { family: Family::Inet, table: TABLE.into(), name: name.into(), base }
}

pub(super) fn net(text: &str) -> ipnetwork::IpNetwork {
    text.parse().expect("a network")
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns the map `name` of the test's table, from protocol and port to address and port.
pub(super) fn map_v4(name: &str) -> Set {
    let (key, data) = (vec![Field::Proto, Field::Port], Some(vec![Field::Ipv4, Field::Port]));
    Set { family: Family::Inet, table: TABLE.into(), name: name.into(), key, data }
}

pub(super) fn element(proto: L4Proto, port: u16, to: &str, to_port: u16) -> Element {
    Element {
        key: vec![Value::Proto(proto), Value::Port(port)],
        data: Some(vec![Value::Ip(ip(to)), Value::Port(to_port)]),
        comment: None,
    }
}

pub(super) fn commit(netns: &Netns, fill: impl FnOnce(&mut Batch)) -> crate::net::Result<()> {
    let mut batch = Batch::new();
    fill(&mut batch);
    batch.commit(netns)
}

/// Returns the lines of `nft list ruleset` that begin with none of its structure's words.
pub(super) fn rules_by_nft(netns: &Netns) -> Vec<String> {
    let structure = ["table", "chain", "type", "map", "set", "elements", "}"];
    let lines = said(netns, "nft list ruleset", "");
    let lines = lines.lines().map(|line| line.trim().replace(" packets 0 bytes 0", ""));
    lines.filter(|line| !line.is_empty() && !structure.iter().any(|word| line.starts_with(word))).collect()
}

pub(super) fn a_rule(action: Action) -> Rule {
    Rule::new(Vec::new(), action)
}

/// Rules for a forward chain of family inet, and `nft`'s text of each.
fn rules() -> Vec<(Rule, &'static str)> {
    let in_dev = |name: &str, not| Match::InDev { name: name.into(), not };
    let out_dev = |name: &str, not| Match::OutDev { name: name.into(), not };
    let src = |text, not| Match::Src { net: net(text), not };
    let dst = |text, not| Match::Dst { net: net(text), not };
    let rule = |matches: Vec<Match>, action| Rule::new(matches, action);
    use Action::{Accept, Drop, Jump, Reject, Return, SetMarkBits};
    vec![
        (rule(vec![], Accept), "accept"),
        (rule(vec![Match::Nfproto(IpVersion::V4)], Drop), "meta nfproto ipv4 drop"),
        (rule(vec![Match::Nfproto(IpVersion::V6)], Return), "meta nfproto ipv6 return"),
        (
            rule(vec![in_dev("eth0", false), out_dev("br-lan", true)], Accept),
            "iifname \"eth0\" oifname != \"br-lan\" accept",
        ),
        (rule(vec![in_dev("abcdefghijklmno", true)], Drop), "iifname != \"abcdefghijklmno\" drop"),
        (rule(vec![src("10.0.0.0/20", false)], Accept), "ip saddr 10.0.0.0/20 accept"),
        (rule(vec![src("10.0.1.5/24", true)], Accept), "ip saddr != 10.0.1.0/24 accept"),
        (rule(vec![dst("192.0.2.1/32", false)], Accept), "ip daddr 192.0.2.1 accept"),
        (rule(vec![src("0.0.0.0/0", false)], Accept), "ip saddr 0.0.0.0/0 accept"),
        (
            rule(vec![src("fd00:1::/61", false), dst("fd00::1/128", true)], Drop),
            "ip6 saddr fd00:1::/61 ip6 daddr != fd00::1 drop",
        ),
        (
            rule(vec![Match::Nfproto(IpVersion::V4), src("10.0.0.0/8", false), dst("10.1.0.0/16", false)], Accept),
            "ip saddr 10.0.0.0/8 ip daddr 10.1.0.0/16 accept",
        ),
        (rule(vec![Match::L4Proto(L4Proto::Tcp)], Drop), "meta l4proto tcp drop"),
        (rule(vec![Match::L4Proto(L4Proto::Icmpv6)], Drop), "meta l4proto ipv6-icmp drop"),
        (rule(vec![Match::L4Proto(L4Proto::Other(99))], Drop), "meta l4proto 99 drop"),
        (rule(vec![Match::DstPort(80.into()), Match::L4Proto(L4Proto::Tcp)], Accept), "tcp dport 80 accept"),
        (
            rule(
                vec![
                    Match::L4Proto(L4Proto::Udp),
                    Match::SrcPort(53.into()),
                    Match::DstPort(PortRange { from: 1024, to: 65535 }),
                ],
                Accept,
            ),
            "udp sport 53 udp dport 1024-65535 accept",
        ),
        (
            rule(vec![Match::L4Proto(L4Proto::Sctp), Match::DstPort(PortRange { from: 0, to: 9 })], Accept),
            "sctp dport 0-9 accept",
        ),
        (rule(vec![Match::DstPort(80.into())], Accept), "th dport 80 accept"),
        (
            rule(
                vec![
                    in_dev("x", false),
                    src("10.0.0.0/8", false),
                    Match::L4Proto(L4Proto::Tcp),
                    Match::DstPort(22.into()),
                ],
                Reject,
            ),
            "iifname \"x\" ip saddr 10.0.0.0/8 tcp dport 22 reject",
        ),
        (
            rule(vec![Match::CtState(vec![CtState::Related, CtState::Established])], Accept),
            "ct state established,related accept",
        ),
        (rule(vec![Match::CtState(vec![CtState::New])], Jump("sub".into())), "ct state new jump sub"),
        (rule(vec![Match::CtState(vec![CtState::Invalid])], Drop), "ct state invalid drop"),
        (rule(vec![Match::CtStatusDnat], Accept), "ct status dnat accept"),
        (rule(vec![Match::DaddrLocal], Accept), "fib daddr type local accept"),
        (rule(vec![Match::DaddrReachedByIn], Accept), "fib daddr . iif oif != 0 accept"),
        (rule(vec![Match::MarkBits(0x100)], Accept), "meta mark & 0x00000100 == 0x00000100 accept"),
        (rule(vec![], SetMarkBits(0x8000_0001)), "meta mark set meta mark | 0x80000001"),
        (rule(vec![], Action::SetMark(7)), "meta mark set 0x00000007"),
        (
            rule(vec![Match::L4Proto(L4Proto::Tcp), Match::TcpSyn], Action::ClampMss(None)),
            "tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
        ),
        (
            rule(
                vec![src("10.0.0.0/8", false), Match::L4Proto(L4Proto::Tcp), Match::DstPort(80.into()), Match::TcpSyn],
                Action::ClampMss(Some(1200)),
            ),
            "ip saddr 10.0.0.0/8 tcp dport 80 tcp flags syn / syn,rst tcp option maxseg size set 1200",
        ),
        (rule(vec![], Reject), "reject"),
        (
            Rule { counter: true, comment: Some("a note: 1/2 ü".into()), ..rule(vec![in_dev("x", false)], Drop) },
            "iifname \"x\" counter drop comment \"a note: 1/2 ü\"",
        ),
    ]
}

#[test]
fn rules_read_as_nft_writes_them() {
    let netns = netns();
    let rules = rules();
    commit(&netns, |batch| {
        batch.add_table(Family::Inet, TABLE, None).add_chain(&chain("sub", None));
        batch.add_chain(&base("forward", ChainKind::Filter, Hook::Forward, 0, Policy::Accept));
        for (rule, _) in &rules {
            batch.add_rule(Family::Inet, TABLE, "forward", rule, At::End);
        }
    })
    .expect("committed");
    let texts: Vec<&str> = rules.iter().map(|(_, text)| *text).collect();
    assert_eq!(rules_by_nft(&netns), texts, "by nft");
    let ours: Vec<String> = rules.iter().map(|(rule, _)| rule.to_string()).collect();
    assert_eq!(ours, texts, "by Display");
    let listed = list_rules(&netns, Family::Inet, TABLE).expect("listed");
    let listed: Vec<String> = listed
        .into_iter()
        .map(|rule| match rule.comment {
            Some(comment) => format!("{} comment \"{comment}\"", rule.text),
            None => rule.text,
        })
        .collect();
    assert_eq!(listed, texts, "by list_rules");
    // What nft wrote, it reads: the same ruleset again, in another namespace.
    let (written, again) = (said(&netns, "nft list ruleset", ""), crate::net::testing::netns());
    said(&again, "nft -f -", &written);
    // But that it knows the version of IP when it rejects.
    let same = |text: &str| text.replace("reject with icmp port-unreachable", "reject");
    assert_eq!(same(&said(&again, "nft list ruleset", "")), written);
    // And its own form of the rules reads the same here.
    let texts = |netns| -> Vec<String> {
        list_rules(netns, Family::Inet, TABLE).expect("listed").into_iter().map(|rule| same(&rule.text)).collect()
    };
    assert_eq!(texts(&again), texts(&netns));
}

#[test]
fn rules_survive_the_journal() {
    for (rule, text) in rules() {
        let json = serde_json::to_string(&rule).expect("JSON");
        assert_eq!(serde_json::from_str::<Rule>(&json).expect(&json), rule, "{text}");
    }
}

#[test]
fn translation_reads_as_nft_writes_it() {
    let netns = netns();
    let dnat = |family, key, map: &str| a_rule(Action::DnatByMap { family, key, map: map.into() });
    let set = |name: &str, key, data| Set { name: name.into(), key, data: Some(data), ..map_v4("") };
    let rules = [
        dnat(IpVersion::V4, DnatKey::ProtoAddrPort, "v4_at"),
        dnat(IpVersion::V4, DnatKey::ProtoPort, "v4"),
        dnat(IpVersion::V6, DnatKey::ProtoAddrPort, "v6_at"),
        dnat(IpVersion::V6, DnatKey::ProtoPort, "v6"),
    ];
    let out = [
        Rule::new(vec![Match::Src { net: net("10.0.0.0/24"), not: false }], Action::Masquerade),
        a_rule(Action::Snat { to: ip("192.0.2.1") }),
        Rule::new(vec![Match::Nfproto(IpVersion::V6)], Action::Snat { to: ip("2001:db8::1") }),
    ];
    commit(&netns, |batch| {
        batch.add_table(Family::Inet, TABLE, Some("of a test"));
        batch.add_set(&map_v4("v4"));
        let (v4, v6) = (vec![Field::Ipv4, Field::Port], vec![Field::Ipv6, Field::Port]);
        batch.add_set(&set("v4_at", vec![Field::Proto, Field::Ipv4, Field::Port], v4));
        batch.add_set(&set("v6", vec![Field::Proto, Field::Port], v6.clone()));
        batch.add_set(&set("v6_at", vec![Field::Proto, Field::Ipv6, Field::Port], v6));
        batch.add_chain(&chain("published", None));
        for rule in &rules {
            batch.add_rule(Family::Inet, TABLE, "published", rule, At::End);
        }
        batch.add_chain(&base("pre", ChainKind::Nat, Hook::Prerouting, -100, Policy::Accept));
        let local = Rule::new(vec![Match::DaddrLocal], Action::Jump("published".into()));
        batch.add_rule(Family::Inet, TABLE, "pre", &local, At::End);
        batch.add_chain(&base("post", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept));
        for rule in &out {
            batch.add_rule(Family::Inet, TABLE, "post", rule, At::End);
        }
        batch.add_elements(
            Family::Inet,
            TABLE,
            "v4",
            &[Element { comment: Some("web".into()), ..element(L4Proto::Tcp, 8080, "10.0.0.2", 80) }],
            true,
        );
        let at = Element {
            key: vec![Value::Proto(L4Proto::Udp), Value::Ip(ip("2001:db8::5")), Value::Port(53)],
            data: Some(vec![Value::Ip(ip("fd00::2")), Value::Port(5353)]),
            comment: None,
        };
        batch.add_elements(Family::Inet, TABLE, "v6_at", &[at], true);
    })
    .expect("committed");
    let expected = "table inet topo-test {
	comment \"of a test\"
	map v4 {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 comment \"web\" : 10.0.0.2 . 80 }
	}

	map v4_at {
		type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
	}

	map v6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
	}

	map v6_at {
		type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service
		elements = { udp . 2001:db8::5 . 53 : fd00::2 . 5353 }
	}

	chain published {
		dnat ip to meta l4proto . ip daddr . th dport map @v4_at
		dnat ip to meta l4proto . th dport map @v4
		dnat ip6 to meta l4proto . ip6 daddr . th dport map @v6_at
		dnat ip6 to meta l4proto . th dport map @v6
	}

	chain pre {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump published
	}

	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.0.0.0/24 masquerade
		snat ip to 192.0.2.1
		meta nfproto ipv6 snat ip6 to 2001:db8::1
	}
}
";
    assert_eq!(said(&netns, "nft list ruleset", ""), expected);
    let all = list(&netns).expect("listed");
    let json = serde_json::to_string(&all).expect("JSON");
    assert_eq!(serde_json::from_str::<Ruleset>(&json).expect("read"), all);
    let table = Table {
        family: Family::Inet,
        name: TABLE.into(),
        comment: Some("of a test".into()),
        dormant: false,
        owner: None,
    };
    assert_eq!(all.tables, [table]);
    assert_eq!(all.chains[2], base("post", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept));
    let texts: Vec<&str> = all.rules.iter().map(|rule| rule.text.as_str()).collect();
    let ours: Vec<String> = rules.iter().map(Rule::to_string).collect();
    assert_eq!(texts[..4], ours, "chain `published`");
    assert_eq!(texts[5..], out.map(|rule| rule.to_string()), "chain `post`");
    assert_eq!(all.sets[0].set, map_v4("v4"));
    assert_eq!(all.sets[0].elements[0].to_string(), "tcp . 8080 comment \"web\" : 10.0.0.2 . 80");
    assert_eq!(all.sets[3].elements[0].to_string(), "udp . 2001:db8::5 . 53 : fd00::2 . 5353");
}

#[test]
fn sets_of_one_field_and_base_chains_of_every_kind() {
    let netns = netns();
    let devs = Set { name: "devs".into(), key: vec![Field::Dev], data: None, ..map_v4("") };
    let ports = Set { name: "ports".into(), key: vec![Field::Port], data: Some(vec![Field::Ipv6]), ..map_v4("") };
    let both = Set { name: "both".into(), key: vec![Field::Dev, Field::Proto], data: None, ..map_v4("") };
    let pair = vec![Value::Dev("eth0".into()), Value::Proto(L4Proto::Sctp)];
    let pair = Element { key: pair, data: None, comment: None };
    let dev = Element { key: vec![Value::Dev("abcdefghijklmno".into())], data: None, comment: None };
    let port = Element { key: vec![Value::Port(80)], data: Some(vec![Value::Ip(ip("fd00::1"))]), comment: None };
    let chains = [
        base("c0", ChainKind::Filter, Hook::Prerouting, -300, Policy::Drop),
        base("c1", ChainKind::Filter, Hook::Input, -1, Policy::Accept),
        base("c2", ChainKind::Filter, Hook::Forward, 7, Policy::Drop),
        base("c3", ChainKind::Route, Hook::Output, -150, Policy::Accept),
        base("c4", ChainKind::Nat, Hook::Postrouting, 100, Policy::Accept),
    ];
    commit(&netns, |batch| {
        batch.add_table(Family::Inet, TABLE, None).add_set(&devs).add_set(&ports).add_set(&both);
        batch.add_elements(Family::Inet, TABLE, "both", std::slice::from_ref(&pair), false);
        batch.add_elements(Family::Inet, TABLE, "devs", std::slice::from_ref(&dev), false);
        batch.add_elements(Family::Inet, TABLE, "ports", std::slice::from_ref(&port), false);
        for chain in &chains {
            batch.add_chain(chain);
        }
    })
    .expect("committed");
    assert_eq!(list_chains(&netns).expect("listed"), chains);
    assert_eq!(list_sets(&netns).expect("listed"), [devs, ports, both]);
    assert_eq!(elements(&netns, Family::Inet, TABLE, "devs").expect("listed"), [dev]);
    assert_eq!(elements(&netns, Family::Inet, TABLE, "ports").expect("listed"), [port]);
    assert!(elements(&netns, Family::Inet, TABLE, "no").expect_err("none").is_gone());
    let seen = said(&netns, "nft list ruleset", "");
    for line in [
        "elements = { \"abcdefghijklmno\" }",
        "elements = { 80 : fd00::1 }",
        "type ifname . inet_proto",
        "elements = { \"eth0\" . sctp }",
        "type filter hook prerouting priority raw; policy drop;",
        "type filter hook input priority filter - 1; policy accept;",
        "type filter hook forward priority filter + 7; policy drop;",
        "type route hook output priority mangle; policy accept;",
    ] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
}

#[test]
fn thousands_of_elements_and_rules_go_in_one_batch() {
    for count in [1000, 5000] {
        let netns = netns();
        let all: Vec<Element> = (1..=count).map(|port| element(L4Proto::Udp, port, "10.0.0.2", port)).collect();
        commit(&netns, |batch| {
            batch.add_table(Family::Inet, TABLE, None).add_set(&map_v4("v4")).add_chain(&chain("c", None));
            batch.add_elements(Family::Inet, TABLE, "v4", &all, true);
            for port in 1..=count {
                let rule = Rule::new(vec![Match::L4Proto(L4Proto::Tcp), Match::DstPort(port.into())], Action::Accept);
                batch.add_rule(Family::Inet, TABLE, "c", &rule, At::End);
            }
        })
        .expect("committed");
        let mut read = elements(&netns, Family::Inet, TABLE, "v4").expect("listed");
        read.sort_by_key(|element| element.to_string());
        let mut sorted = all.clone();
        sorted.sort_by_key(|element| element.to_string());
        assert!(read == sorted, "{} of {count}", read.len());
        assert_eq!(list_rules(&netns, Family::Inet, TABLE).expect("listed").len(), usize::from(count));
        // The very element that is in the way is named, wherever it stands.
        let mut more: Vec<Element> = (1..=count).map(|port| element(L4Proto::Tcp, port, "10.0.0.2", port)).collect();
        more.insert(usize::from(count) - 100, element(L4Proto::Udp, 17, "10.0.0.3", 1));
        let add = |exclusive| {
            commit(&netns, |batch| {
                batch.add_elements(Family::Inet, TABLE, "v4", &more, exclusive);
            })
        };
        let error = add(true).expect_err("taken");
        assert!(error.is_exists(), "{error:?}");
        assert_eq!(error.doing(), "add element `udp . 17 : 10.0.0.3 . 1` to `v4` of table `inet topo-test`");
        assert_eq!(add(false).expect_err("other data").errno(), libc::EEXIST);
        assert_eq!(elements(&netns, Family::Inet, TABLE, "v4").expect("listed").len(), usize::from(count));
        commit(&netns, |batch| {
            batch.delete_elements(Family::Inet, TABLE, "v4", &all);
        })
        .expect("deleted");
        assert_eq!(elements(&netns, Family::Inet, TABLE, "v4").expect("listed"), []);
    }
}

/// Without CAP_NET_ADMIN in the first user namespace the buffer can't grow beyond net.core.wmem_max.
#[test]
fn a_batch_that_does_not_fit_is_split() {
    let netns = netns();
    let mut batch = Batch::new();
    batch.add_table(Family::Inet, TABLE, None).add_chain(&chain("c", None));
    for port in 1..=2000u16 {
        let rule = Rule::new(vec![Match::L4Proto(L4Proto::Tcp), Match::DstPort(port.into())], Action::Accept);
        batch.add_rule(Family::Inet, TABLE, "c", &rule, At::End);
    }
    batch.commit_within(&netns, |_, _| Ok(50_000)).expect("committed");
    assert_eq!(list_rules(&netns, Family::Inet, TABLE).expect("listed").len(), 2000);
}

/// The comments of rules are found without what the rules say: of one table `nft`'s, of all tables `iptables`'s too.
#[test]
fn comments_are_read_alone() {
    let netns = netns();
    let rules =
        "table inet mine { chain c { accept comment \"a\"; drop comment \"b\"; accept comment \"a\"; counter; }; }
        table ip other { chain c { accept comment \"a\"; }; }";
    said(&netns, "nft -f -", rules);
    said(&netns, "iptables -A FORWARD -m comment --comment x -j ACCEPT", "");
    let of_table = |table| {
        let listed = list_comments(&netns, Family::Inet, table).expect("listed");
        listed.into_iter().map(|(at, comment)| format!("{} {comment}", at.chain)).collect::<Vec<_>>()
    };
    assert_eq!(of_table("mine"), ["c a", "c b", "c a"]);
    assert!(of_table("none").is_empty());
    let all = commented_rules(&netns).expect("listed").into_iter();
    let all: Vec<String> = all.map(|(at, comment)| format!("{} {} {comment}", at.table, at.chain)).collect();
    assert_eq!(all, ["mine c a", "mine c b", "mine c a", "other c a", "filter FORWARD x"]);
}

/// Rules of others, of which not every expression is known here.
#[test]
fn rulesets_of_others_are_read() {
    let netns = netns();
    said(
        &netns,
        "nft -f -",
        "
        table ip t {
            set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.1.0.0/16 } }
            map verdicts { type inet_service : verdict; elements = { 22 : accept } }
            chain in {
                type filter hook input priority 0; policy drop;
                ip saddr @nets tcp dport vmap @verdicts
                tcp flags syn limit rate 5/second accept
                ip protocol icmp icmp type echo-request accept
                tcp dport != 80-90 oifname \"e*\" ct mark 0x1 goto other
                log prefix \"x\" reject with tcp reset
            }
            chain other { ip saddr != { 10.0.0.1, 10.0.0.2 } dnat to 10.0.0.1:80; }
        }
        table netdev n { chain c {
            type filter hook ingress device lo priority 0;
        }
        }
        table bridge b { chain c {
            ether type vlan accept;
        }
        }
    "
        .replace("dnat to 10.0.0.1:80", "notrack")
        .as_str(),
    );
    let all = list(&netns).expect("listed");
    let texts: Vec<&str> = all.rules.iter().map(|rule| rule.text.as_str()).collect();
    assert_eq!(texts[0], "ip saddr @nets tcp dport vmap @verdicts");
    assert!(texts[1].contains("[limit] accept"), "{texts:?}");
    assert!(texts[3].contains("oifname \"e*\" ct mark 0x00000001 goto other"), "{texts:?}");
    assert_eq!(texts[4], "meta l4proto tcp [log] reject with tcp reset");
    assert_eq!(all.tables.iter().map(|table| table.family.to_string()).collect::<Vec<_>>(), ["ip", "netdev", "bridge"]);
    let nets = &all.sets[0];
    assert!(nets.elements.iter().any(|element| element.to_string() == "10.1.0.0"), "{nets:?}");
    let verdicts = all.sets.iter().find(|set| set.set.name == "verdicts").expect("a map");
    assert_eq!(verdicts.elements[0].to_string(), "22 : accept");
}
