//! What the kernel refuses, and what is refused before it is asked.

use super::conntrack;
use super::list::Ruleset;
use super::tests::{TABLE, a_rule, base, chain, commit, element, map_v4, net, rules_by_nft};
use super::*;
use crate::net::Error;
use crate::net::fault::{self, Counted, FaultKind};
use crate::net::testing::{in_own_process, netns, said};

#[test]
fn a_batch_with_one_wrong_message_leaves_nothing() {
    let netns = netns();
    let error = commit(&netns, |batch| {
        batch.add_table(Family::Inet, TABLE, None).add_chain(&chain("here", None));
        batch.add_rule(Family::Inet, TABLE, "here", &a_rule(Action::Accept), At::End);
        batch.add_rule(Family::Inet, TABLE, "here", &a_rule(Action::Jump("nowhere".into())), At::End);
        batch.add_rule(Family::Inet, TABLE, "here", &a_rule(Action::Drop), At::End);
    })
    .expect_err("no such chain");
    assert!(error.is_gone(), "{error:?}");
    assert_eq!(error.doing(), "add rule `jump nowhere` to chain `here` of table `inet topo-test`");
    assert_eq!(said(&netns, "nft list ruleset", ""), "");
    assert_eq!(list(&netns).expect("listed"), Ruleset::default());
    Batch::new().commit(&netns).expect("nothing to do");
}

#[test]
fn an_exclusive_table_and_what_is_there_already() {
    let netns = netns();
    let table = |exclusive| {
        commit(&netns, |batch| {
            match exclusive {
                true => batch.create_table(Family::Inet, TABLE, Some("b")),
                false => batch.add_table(Family::Inet, TABLE, Some("a")),
            };
            batch.add_chain(&base("c", ChainKind::Filter, Hook::Input, 0, Policy::Accept)).add_set(&map_v4("m"));
            batch.add_elements(Family::Inet, TABLE, "m", &[element(L4Proto::Tcp, 1, "10.0.0.1", 1)], false);
        })
    };
    table(false).expect("made");
    table(false).expect("there");
    let error = table(true).expect_err("there");
    assert!(error.is_exists() && error.doing() == "add table `inet topo-test`", "{error:?}");
    assert_eq!(list_tables(&netns).expect("listed")[0].comment.as_deref(), Some("a"));
    let elsewhere = base("c", ChainKind::Filter, Hook::Output, 0, Policy::Accept);
    let error = commit(&netns, |batch| _ = batch.add_chain(&elsewhere)).expect_err("another");
    assert!(error.is_unsupported(), "{error:?}");
    let other = Set { data: None, ..map_v4("m") };
    assert!(commit(&netns, |batch| _ = batch.add_set(&other)).expect_err("another").is_exists());
}

#[test]
fn what_is_gone_is_said_to_be_gone() {
    let netns = netns();
    let missing = element(L4Proto::Tcp, 2, "10.0.0.1", 1);
    commit(&netns, |batch| {
        batch.add_table(Family::Inet, TABLE, None).add_set(&map_v4("m")).add_chain(&chain("c", None));
        batch.add_rule(Family::Inet, TABLE, "c", &a_rule(Action::Drop), At::End);
        batch.add_rule(Family::Inet, TABLE, "c", &a_rule(Action::Accept), At::End);
    })
    .expect("committed");
    let rules = list_rules(&netns, Family::Inet, TABLE).expect("listed");
    let texts: Vec<&str> = rules.iter().map(|rule| rule.text.as_str()).collect();
    assert_eq!(texts, ["drop", "accept"]);
    let handle = rules[0].at.handle;
    let delete = |batch: &mut Batch| _ = batch.delete_rule(Family::Inet, TABLE, "c", handle);
    commit(&netns, delete).expect("deleted");
    assert_eq!(rules_by_nft(&netns), ["accept"]);
    type Fill<'a> = &'a dyn Fn(&mut Batch);
    let gone: [(Fill<'_>, String); 6] = [
        (&delete, format!("delete rule {handle} of chain `c` of table `inet topo-test`")),
        (
            &|batch| _ = batch.delete_rule(Family::Inet, TABLE, "d", 1),
            "delete rule 1 of chain `d` of table `inet topo-test`".into(),
        ),
        (&|batch| _ = batch.delete_table(Family::Ip, TABLE), "delete table `ip topo-test`".into()),
        (
            &|batch| _ = batch.delete_elements(Family::Inet, TABLE, "m", std::slice::from_ref(&missing)),
            "delete element `tcp . 2` of `m` of table `inet topo-test`".into(),
        ),
        (
            &|batch| _ = batch.add_elements(Family::Inet, TABLE, "n", std::slice::from_ref(&missing), true),
            "add element `tcp . 2 : 10.0.0.1 . 1` to `n` of table `inet topo-test`".into(),
        ),
        (
            &|batch| _ = batch.add_chain(&Chain { table: "no".into(), ..chain("c", None) }),
            "add chain `c` of table `inet no`".into(),
        ),
    ];
    for (fill, doing) in gone {
        let error = commit(&netns, fill).expect_err(&doing);
        assert!(error.is_gone(), "{doing}: {error:?}");
        assert_eq!(error.doing(), doing);
    }
    commit(&netns, |batch| {
        batch.delete_table(Family::Inet, TABLE);
    })
    .expect("deleted");
    assert_eq!(list(&netns).expect("listed"), Ruleset::default());
}

#[test]
fn names_and_comments_as_long_as_the_kernel_takes_them() {
    let netns = netns();
    let (name, comment) = ("n".repeat(NAME_BYTES_MAX), "c".repeat(COMMENT_BYTES_MAX));
    let set = Set { table: name.clone(), name: name.clone(), ..map_v4("") };
    let of_one = "c".repeat(ELEMENT_COMMENT_BYTES_MAX);
    let one = Element { comment: Some(of_one), ..element(L4Proto::Tcp, 1, "10.0.0.1", 1) };
    let rule = Rule { comment: Some(comment.clone()), ..a_rule(Action::Accept) };
    commit(&netns, |batch| {
        batch.add_table(Family::Inet, &name, Some(&comment));
        batch.add_chain(&Chain { table: name.clone(), name: name.clone(), ..chain("", None) }).add_set(&set);
        batch.add_elements(Family::Inet, &name, &name, std::slice::from_ref(&one), true);
        batch.add_rule(Family::Inet, &name, &name, &rule, At::End);
    })
    .expect("committed");
    let all = list(&netns).expect("listed");
    assert_eq!((all.tables[0].name.as_str(), all.tables[0].comment.as_ref()), (name.as_str(), Some(&comment)));
    assert_eq!((&all.rules[0].at.chain, all.rules[0].comment.as_ref()), (&name, Some(&comment)));
    assert_eq!(all.sets[0].elements, [one]);
    assert!(said(&netns, "nft list ruleset", "").contains(&format!("accept comment \"{comment}\"")));
}

/// Says of a batch what is wrong with it before the kernel is asked.
fn wrong(fill: impl FnOnce(&mut Batch)) -> Error {
    let error = commit(&netns(), fill).expect_err("wrong");
    assert_eq!(error.errno(), libc::EINVAL);
    error
}

#[test]
fn what_is_wrong_is_said_before_the_kernel_is_asked() {
    let long = "n".repeat(256);
    let add = |rule: Rule| wrong(move |batch| _ = batch.add_rule(Family::Ip, "t", "c", &rule, At::End)).to_string();
    let of = |one: Match| add(Rule::new(vec![one], Action::Accept));
    let too_long = "the name of a table has at most 255 bytes, this one 256";
    assert_eq!(wrong(|batch| _ = batch.add_table(Family::Ip, &long, None)).to_string(), too_long);
    assert!(wrong(|batch| _ = batch.add_chain(&chain(&long, None))).to_string().contains("of a chain"));
    assert!(wrong(|batch| _ = batch.add_set(&map_v4(&long))).to_string().contains("of a map"));
    for name in ["", "a b", "1a", "a\nb", "ä"] {
        assert!(wrong(|batch| _ = batch.add_table(Family::Ip, name, None)).to_string().contains("is no name"));
    }
    let comment = |text: &str| Rule { comment: Some(text.into()), ..a_rule(Action::Accept) };
    assert_eq!(add(comment(&"c".repeat(254))), "a comment here has at most 253 bytes, this one 254");
    let one = Element { comment: Some("c".repeat(252)), ..element(L4Proto::Tcp, 1, "10.0.0.1", 1) };
    let error = wrong(|batch| _ = batch.add_elements(Family::Ip, "t", "s", &[one], true));
    assert_eq!(error.to_string(), "a comment here has at most 251 bytes, this one 252");
    assert_eq!(add(comment("a\"b")), "a comment can't have the character `\\\"`");
    assert!(wrong(|batch| _ = batch.add_table(Family::Ip, "t", Some("\n"))).to_string().contains("`\\n`"));
    let dev = |name: &str| Match::InDev { name: name.into(), not: false };
    assert!(of(dev("abcdefghijklmnop")).contains("at most 15 bytes"));
    assert!(of(dev("")).contains("is no name of a device"));
    assert_eq!(of(Match::Src { net: net("fd00::/8"), not: false }), "no IPv4 packet has an IPv6 address");
    assert_eq!(of(Match::DstPort(PortRange { from: 2, to: 1 })), "ports 2-1 are the wrong way round");
    assert_eq!(of(Match::CtState(Vec::new())), "no state of a connection is named");
    let icmp = Rule::new(vec![Match::L4Proto(L4Proto::Icmp), Match::DstPort(1.into())], Action::Accept);
    assert_eq!(add(icmp), "protocol icmp has no ports");
    let both = vec![Match::Src { net: net("10.0.0.0/8"), not: false }, Match::Dst { net: net("fd00::/8"), not: false }];
    let both = Rule::new(both, Action::Accept);
    let error = wrong(|batch| _ = batch.add_rule(Family::Inet, "t", "c", &both, At::End));
    assert_eq!(error.to_string(), "no IPv4 packet has an IPv6 address");
    assert_eq!(
        error.doing(),
        "add rule `ip saddr 10.0.0.0/8 ip6 daddr fd00::/8 accept` to chain `c` of table `inet t`"
    );
    let only_read = Element { key: vec![Value::Other("x".into())], data: None, comment: None };
    let error = wrong(|batch| _ = batch.add_elements(Family::Ip, "t", "s", &[only_read], true));
    assert_eq!(error.doing(), "add element `x` to `s` of table `ip t`");
}

/// The kernel's refusal of one rule in the wrong place.
#[test]
fn a_rule_that_its_hook_can_not_have_is_unsupported() {
    let netns = netns();
    let error = commit(&netns, |batch| {
        batch.add_table(Family::Inet, TABLE, None);
        batch.add_chain(&base("c", ChainKind::Filter, Hook::Forward, 0, Policy::Accept));
        batch.add_rule(Family::Inet, TABLE, "c", &a_rule(Action::Masquerade), At::End);
    })
    .expect_err("no nat chain");
    assert!(error.is_unsupported(), "{error:?}");
    assert!(error.doing().starts_with("add rule `masquerade`"));
}

/// The counter of points is the process's.
#[test]
fn a_batch_is_one_point_of_the_fault_seam() {
    in_own_process("net::nft::refused::a_batch_is_one_point_of_the_fault_seam", || {
        let netns = netns();
        let two = |batch: &mut Batch| {
            batch.add_table(Family::Inet, TABLE, None).add_chain(&chain("c", None));
        };
        fault::arm(1, Counted::All, FaultKind::Fail);
        let error = commit(&netns, two).expect_err("injected");
        assert_eq!(error.doing(), "add table `inet topo-test`, the first of 2 changes");
        assert_eq!(list(&netns).expect("listed"), Ruleset::default());
        commit(&netns, two).expect("committed");
        assert_eq!(fault::points(), 2);
        fault::arm(1, Counted::All, FaultKind::Fail);
        let flow = conntrack::Flow::To { proto: L4Proto::Udp, port: 1, ip: None };
        assert_eq!(conntrack::flush(&netns, &[flow]).expect_err("injected").errno(), libc::EIO);
        assert_eq!(conntrack::flush(&netns, &[flow]).expect("none"), 0);
        assert_eq!(fault::points(), 2);
    });
}
