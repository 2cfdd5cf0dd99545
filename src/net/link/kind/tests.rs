//! Links are born as asked for, and asked for in the words of the kernel.

use std::collections::BTreeMap;

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator};
use netlink_packet_route::link::LinkMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::*;
use crate::net::link::kind::{BondMode, Primary, TunnelMode};
use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
use crate::net::{Mac, Netlink, link};

fn new(name: &str, index: u32) -> NewLink<'_> {
    NewLink { name, index, mac: Mac::local(u64::from(index)), mtu: Some(1400) }
}

/// a(up0) -- b(up1); m0 in c on up0, made from a.
#[test]
fn it_is_born_in_place_with_all_that_it_was_given() {
    block_on(async {
        let (a, rtnl) = netns_and_rtnl();
        let (b, c) = (netns(), netns());
        pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
        let modes = [MacvlanMode::Bridge, MacvlanMode::Private, MacvlanMode::Vepa];
        for (at, mode) in modes.into_iter().enumerate() {
            let (name, index) = (format!("m{at}"), 2000 + at as u32);
            let kind = LinkKind::Macvlan(Macvlan { mode });
            add_link(&rtnl, &new(&name, index), &c, Some(1001), &kind).expect("a macvlan");
            let inside = Netlink::open(&c).expect("a socket");
            let link = link::find(&inside, &name).expect("read").expect("a link");
            assert_eq!((link.index, link.mtu, link.up), (index, 1400, false));
            assert_eq!((link.mac, link.link), (Some(Mac::local(u64::from(index))), Some(1001)));
            let seen = &judge(&c, &format!("ip -j -d link show {name}")).await[0]["linkinfo"];
            assert_eq!((&seen["info_kind"], &seen["info_data"]["mode"]), (&"macvlan".into(), &mode.word().into()));
        }
        assert_eq!(link::list(&rtnl).expect("links").len(), 2, "lo and up0, no more");
    });
}

#[test]
fn in_mode_passthru_it_has_the_link_and_its_address_for_itself() {
    block_on(async {
        let (a, rtnl) = netns_and_rtnl();
        let (b, c) = (netns(), netns());
        pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
        let alone = LinkKind::Macvlan(Macvlan { mode: MacvlanMode::Passthru });
        add_link(&rtnl, &new("m0", 2000), &c, Some(1001), &alone).expect("a macvlan");
        let inside = Netlink::open(&c).expect("a socket");
        let link = link::find(&inside, "m0").expect("read").expect("m0");
        assert_eq!(link.mac, Some(Mac::local(1001)));
        let second = add_link(&rtnl, &new("m1", 2001), &c, Some(1001), &alone).expect_err("it has it for itself");
        assert_eq!(second.errno(), libc::EINVAL);
    });
}

#[test]
fn what_the_kernel_refuses() {
    block_on(async {
        let (a, rtnl) = netns_and_rtnl();
        let b = netns();
        pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
        let bridge = LinkKind::Macvlan(Macvlan { mode: MacvlanMode::Bridge });
        let refused =
            |link: NewLink<'_>, parent| add_link(&rtnl, &link, &b, Some(parent), &bridge).expect_err("refused");
        let taken = refused(new("up1", 2000), 1001);
        assert!(taken.is_exists() && taken.doing() == "add macvlan `up1` on link 1001", "{taken:?}");
        assert!(refused(new("m0", 2000), 4711).is_gone());
        assert_eq!(refused(new("m0", 2000), 1).errno(), libc::EINVAL, "on lo");
        let wide = NewLink { mtu: Some(1501), ..new("m0", 2000) };
        assert_eq!(refused(wide, 1001).errno(), libc::EINVAL);
        let inside = Netlink::open(&b).expect("a socket");
        assert_eq!(link::list(&inside).expect("links").len(), 2, "nothing is left of those refused");
    });
}

/// A kernel without ipvlan says so; one with it makes the link.
#[test]
fn an_ipvlan_is_made_or_said_to_be_lacking() {
    block_on(async {
        let (a, rtnl) = netns_and_rtnl();
        let (b, c) = (netns(), netns());
        pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
        let known = crate::net::has_link_kind(&rtnl, "ipvlan").expect("probed");
        for (at, mode) in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s].into_iter().enumerate() {
            let name = format!("i{at}");
            let made =
                add_link(&rtnl, &new(&name, 2000 + at as u32), &c, Some(1001), &LinkKind::Ipvlan(Ipvlan { mode }));
            match made {
                Ok(()) => {
                    let inside = Netlink::open(&c).expect("a socket");
                    let link = link::find(&inside, &name).expect("read").expect("a link");
                    assert_eq!((link.mac, link.link), (Some(Mac::local(1001)), Some(1001)));
                    link::delete(&inside, link.index).expect("deleted");
                }
                // The mode l3s has an option of its own in the kernel's configuration.
                Err(error) => assert!(error.is_unsupported() && (!known || mode == IpvlanMode::L3s), "{error:?}"),
            }
        }
    });
}

/// Returns a message that has the kind of a link and its data alone.
fn message(kind: &LinkKind) -> LinkMessage {
    let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::from(kind.kind()));
    match kind.sort().data(None) {
        Some(data) => builder.set_info_data(data).build(),
        None => builder.build(),
    }
}

/// What this machine's kernel may lack is compared with what linux/if_link.h says.
#[test]
fn an_ipvlan_is_asked_for_in_the_kernels_words() {
    for (mode, number) in [(IpvlanMode::L2, 0), (IpvlanMode::L3, 1), (IpvlanMode::L3s, 2)] {
        let message = message(&LinkKind::Ipvlan(Ipvlan { mode }));
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        // IFLA_LINKINFO { IFLA_INFO_KIND "ipvlan", IFLA_INFO_DATA { IFLA_IPVLAN_MODE: u16 } }, behind the header.
        let words = |pair: [u16; 2]| pair.map(u16::to_ne_bytes).concat();
        let expected = [
            words([28, 18]),
            words([11, 1]),
            b"ipvlan\0\0".to_vec(),
            words([12, 2]),
            words([6, 1]),
            words([number, 0]),
        ];
        assert_eq!(bytes[16..], expected.concat());
    }
}

/// Returns the attributes in IFLA_INFO_DATA of an IFLA_LINKINFO, by their numbers.
fn data_of(link_info: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let inside = |bytes: &[u8]| -> BTreeMap<u16, Vec<u8>> {
        NlasIterator::new(bytes).flatten().map(|nla: NlaBuffer<&[u8]>| (nla.kind(), nla.value().to_vec())).collect()
    };
    inside(&inside(&inside(link_info)[&18])[&2])
}

/// What this machine's kernel may lack is compared with what `ip` was seen to ask for; what it asks for besides, which are
/// the kernel's own defaults, is listed.
#[test]
fn each_kind_is_asked_for_as_ip_does() {
    let v4 = |last| std::net::IpAddr::from([192, 0, 2, last]);
    let v6 = |last| std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let tunnel = |mode, local, remote, key, ttl| {
        LinkKind::Tunnel(Tunnel { mode, local: Some(local), remote, key, csum: false, ttl, pmtudisc: None })
    };
    let bond = Bond {
        mode: BondMode::ActiveBackup,
        miimon: 100,
        updelay: None,
        downdelay: None,
        primary: Some(Primary { index: 3, name: "e0".into() }),
        xmit_hash_policy: None,
        lacp_rate: None,
        min_links: None,
        fail_over_mac: None,
    };
    let cases: [(LinkKind, &str, &[u16]); 6] = [
        // ip link add link e0 name v type vlan proto 802.1ad id 10
        (
            LinkKind::Vlan(Vlan { id: 10, protocol: VlanProtocol::Dot1ad }),
            "2000120008000100766c616e140002000600050088a80000060001000a000000",
            &[],
        ),
        // ip link add v type vrf table 10
        (LinkKind::Vrf(Vrf { table: 10 }), "1800120007000100767266000c000200080001000a000000", &[]),
        // ip link add v type bond mode active-backup miimon 100 primary e0
        (LinkKind::Bond(bond), "2800120008000100626f6e641c0002000500010001000000080003006400000008000b0003000000", &[]),
        // ip link add v type gre local 192.0.2.1 remote 192.0.2.2 key 7 ttl 64
        (
            tunnel(TunnelMode::Gre, v4(1), v4(2), Some(7), Some(64)),
            "8000120007000100677265007400020008000400000000070800050000000007060002002000000006000300200000000\
             8000600c000020108000700c000020205000a000100000005000900000000000500080040000000080014000000000006\
             000e000000000006000f000000000006001000000000000600110000000000",
            &[9, 10, 14, 15, 16, 17, 20],
        ),
        // ip link add v type ipip local 192.0.2.1 remote 192.0.2.2
        (
            tunnel(TunnelMode::Ipip, v4(1), v4(2), None, None),
            "70001200080001006970697064000200050009000000000008000200c000020108000300c000020205000a00010000000\
             50005000000000005000400000000000800010000000000080014000000000006000f0000000000060010000000000006\
             001100000000000600120000000000",
            &[1, 4, 5, 9, 10, 15, 16, 17, 18, 20],
        ),
        // ip link add v type ip6tnl mode any local fd00::1 remote fd00::2 encaplimit none
        (
            tunnel(TunnelMode::Ip6tnl, v6(1), v6(2), None, None),
            "940012000a000100697036746e6c000084000200050009000000000014000200fd0000000000000000000000000000011\
             4000300fd00000000000000000000000000000205000400400000000500060004000000080007000000000008000800010\
             000000800010000000000080014000000000006000f0000000000060010000200000006001100000000000600120000000\
             000",
            &[1, 6, 7, 15, 16, 17, 18, 20],
        ),
    ];
    for (kind, hex, besides) in cases {
        let seen: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a byte")).collect();
        let mut theirs = data_of(&seen);
        let message = message(&kind);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let only_theirs = besides.iter().filter(|number| theirs.remove(number).is_some()).count();
        assert_eq!((data_of(&bytes[16..]), only_theirs), (theirs, besides.len()), "{kind:?}");
    }
}
