//! Links: read, change, rename, move, delete, and wait for their end. Like `ip link`.

pub mod bridge;
pub mod config;
pub mod fdb;
pub(super) mod feature;
pub mod group;
pub mod kind;
pub(super) mod mac;
pub mod port_vlan;
pub(super) mod probe;
pub mod tap;
pub mod tc;
pub mod veth;
pub(super) mod worded;

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_packet_core::NLM_F_APPEND;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, Prop, State,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sched::{CloneFlags, setns};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use serde::Serialize;

use super::netlink::rtnl;
use super::netlink::rtnl::{NEW, raw_attribute};
use super::netlink::{Events, Subsystem};
use super::netns::visit::visit;
use super::{Error, Mac, Netlink, Netns, Request, Result};
use bridge::{Bridge, Port};

/// The longest name of a link in bytes (IFNAMSIZ less its NUL); a longer one can only be an altname.
const NAME_MAX: usize = 15;

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The number, unique in its namespace.
    pub index: u32,
    /// The name.
    pub name: String,
    /// Further names.
    pub altnames: Vec<String>,
    /// The text that somebody put on it (`ip link set alias`).
    pub alias: Option<String>,
    /// The driver: "veth", "bridge". `lo` and hardware have none.
    pub kind: Option<String>,
    /// The Ethernet address.
    pub mac: Option<Mac>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Whether it was set up (IFF_UP).
    pub up: bool,
    /// Whether the cable is in (IFF_LOWER_UP).
    pub carrier: bool,
    /// The operational state of RFC 2863 in lower case: "up", "down", "unknown", "lowerlayerdown", …
    pub state: String,
    /// The bridge, bond or vrf that it is a port of.
    pub controller: Option<u32>,
    /// The link below it, or the other end of a veth (IFLA_LINK).
    pub link: Option<u32>,
    /// Where `link` is, if it is in another namespace.
    pub link_netnsid: Option<i32>,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// The group, 0 by default.
    pub group: u32,
    /// What it is set to, if it is a bridge.
    pub bridge: Option<Bridge>,
    /// What it is set to, if it is a port of a bridge.
    pub port: Option<Port>,
}

impl Link {
    /// Tells whether `name` is its name or one of its altnames.
    pub fn goes_by(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }
}

/// What every new link is given at birth. Fixed indexes save reading them back; take them from about 1000 up, since some
/// hosts fill each new namespace with gre0, tunl0 and their like.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// The name, of at most 15 bytes.
    pub name: &'a str,
    /// The number.
    pub index: u32,
    /// The Ethernet address.
    pub mac: Mac,
    /// The MTU; the driver's default if none is given.
    pub mtu: Option<u32>,
}

impl NewLink<'_> {
    /// Begins the message that makes such a link, of that kind if one is given; without its Ethernet address where it has none.
    pub(super) fn builder(&self, kind: Option<InfoKind>, has_mac: bool) -> LinkMessageBuilder<LinkUnspec> {
        let mut builder = match kind {
            Some(kind) => LinkMessageBuilder::new_with_info_kind(kind),
            None => LinkMessageBuilder::<LinkUnspec>::new(),
        };
        builder = builder.index(self.index).name(self.name);
        if has_mac {
            builder = builder.address(self.mac.0.to_vec());
        }
        match self.mtu {
            Some(mtu) => builder.mtu(mtu),
            None => builder,
        }
    }
}

/// What to change on a link; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// A new name.
    pub name: Option<&'a str>,
    /// A new MTU.
    pub mtu: Option<u32>,
    /// A new Ethernet address.
    pub mac: Option<Mac>,
    /// The bridge to become a port of; `Some(None)` takes it out of the one it is in.
    pub controller: Option<Option<u32>>,
    /// A new alias; an empty one removes it.
    pub alias: Option<&'a str>,
    /// The namespace to move to. Costs the kernel 16 ms; a veth is better made in place.
    pub netns: Option<&'a Netns>,
    /// The index to have in the namespace `netns`; without it the kernel keeps the old one, or takes a free one.
    pub new_index: Option<u32>,
}

/// Changes a link, all at once but not atomically: on an error some of it may be done.
///
/// Like `ip link set`. ENODEV if there is no such link, EEXIST if the name is taken, EBUSY for a device that is already
/// a port of another.
pub fn change(rtnl: &Netlink, index: u32, change: &Change<'_>) -> Result<()> {
    rtnl.send(change_request(index, change))
}

/// Returns the request of `change`.
pub fn change_request(index: u32, change: &Change<'_>) -> Request {
    let mut builder = LinkUnspec::new_with_index(index);
    builder = match change.up {
        Some(true) => builder.up(),
        Some(false) => builder.down(),
        None => builder,
    };
    let attributes = [
        change.netns.map(|netns| LinkAttribute::NetNsFd(netns.fd().as_raw_fd())),
        change.new_index.map(|index| LinkAttribute::NewIfIndex(index.cast_signed())),
        change.name.map(|name| LinkAttribute::IfName(name.to_string())),
        change.mtu.map(LinkAttribute::Mtu),
        change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())),
        change.controller.map(|controller| LinkAttribute::Controller(controller.unwrap_or(0))),
        change.alias.map(alias_attribute),
    ];
    let builder = attributes.into_iter().flatten().fold(builder, LinkMessageBuilder::append_extra_attribute);
    let request = Request::new(format!("set link {index}"), RouteNetlinkMessage::NewLink(builder.build()), 0);
    change.netns.iter().fold(request, |request, netns| request.keeping(netns))
}

/// Returns a request that asks for a link, which makes the kernel do what waits for its link-watch worker: a carrier that came
/// counts from then on, and not a moment later (net/core/link_watch.c, linkwatch_sync_dev). One that is gone has nothing to do.
pub fn touch_request(index: u32) -> Request {
    Request::new(format!("read link {index}"), RouteNetlinkMessage::GetLink(question(index)), 0).unless(Error::is_gone)
}

/// Returns the message that asks for a link.
pub(super) fn question(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index).append_extra_attribute(without_statistics()).build()
}

/// Returns the attribute of an alias, which has 255 bytes at most.
///
/// The packet crate would add a NUL, which the kernel counts in.
pub(super) fn alias_attribute(alias: &str) -> LinkAttribute {
    /// IFLA_IFALIAS of linux/if_link.h.
    const IFLA_IFALIAS: u16 = 20;
    LinkAttribute::Other(raw_attribute(IFLA_IFALIAS, alias.as_bytes().to_vec()))
}

/// Returns the request that gives a link a further name, of at most 127 bytes.
///
/// Like `ip link property add altname NAME dev LINK`. EEXIST if the namespace has a link of that name.
pub fn altname_request(index: u32, name: &str) -> Request {
    let doing = format!("add altname `{name}` to link {index}");
    Request::new(doing, RouteNetlinkMessage::NewLinkProp(altname(index, name)), NEW | NLM_F_APPEND)
}

/// Sends the request of `altname_request`.
#[cfg(test)]
pub(crate) fn add_altname(rtnl: &Netlink, index: u32, name: &str) -> Result<()> {
    rtnl.send(altname_request(index, name))
}

/// Takes a further name from a link.
///
/// Like `ip link property del altname NAME dev LINK`. EINVAL or ENOENT if the link does not have it.
pub fn delete_altname(rtnl: &Netlink, index: u32, name: &str) -> Result<()> {
    let doing = format!("delete altname `{name}` of link {index}");
    rtnl.change(&doing, RouteNetlinkMessage::DelLinkProp(altname(index, name)), 0)
}

fn altname(index: u32, name: &str) -> LinkMessage {
    let names = LinkAttribute::PropList(vec![Prop::AltIfName(name.to_string())]);
    LinkUnspec::new_with_index(index).append_extra_attribute(names).build()
}

/// Deletes a link; of a veth both ends. Costs the kernel 16 ms: many end faster with their namespace.
///
/// Like `ip link delete`. ENODEV if there is no such link.
pub fn delete(rtnl: &Netlink, index: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).build();
    rtnl.change(&format!("delete link {index}"), RouteNetlinkMessage::DelLink(message), 0)
}

/// Lists all links of the namespace, by index.
///
/// Like `ip link show`.
pub fn list(rtnl: &Netlink) -> Result<Vec<Link>> {
    let answers = rtnl.query("list links", RouteNetlinkMessage::GetLink(question(0)))?;
    let mut links: Vec<Link> = answers.into_iter().filter_map(read).collect();
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// Lists the links of several namespaces, in one visit to all of them.
pub fn list_each(namespaces: &[Netns]) -> Result<Vec<Result<Vec<Link>>>> {
    const DOING: &str = "list links";
    let Some(first) = namespaces.first() else { return Ok(Vec::new()) };
    let list = |netns: &Netns| {
        setns(netns.fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| Error::new(DOING, errno as i32))?;
        list(&Netlink::here(Subsystem::Route)?)
    };
    visit(DOING, first, || namespaces.iter().map(list).collect())
}

/// Returns the number by which a namespace knows another one, if it does.
///
/// Like `ip netns list-id`.
pub fn number_of(rtnl: &Netlink, other: &Netns) -> Result<Option<i32>> {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(other.fd().as_raw_fd().cast_unsigned())];
    let answer = rtnl.get("read the number of a network namespace", RouteNetlinkMessage::GetNsId(message))?;
    let Some(RouteNetlinkMessage::NewNsId(answer)) = answer else { return Ok(None) };
    let number = answer.attributes.into_iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) => Some(number),
        _ => None,
    });
    // NETNSA_NSID_NOT_ASSIGNED
    Ok(number.filter(|number| *number >= 0))
}

/// Reads the link of that number, if there is one.
///
/// Like `ip link show`. The kernel does its pending work on the link's state first, so that what it says is true
/// (linkwatch_sync_dev in net/core/link_watch.c).
pub fn get(rtnl: &Netlink, index: u32) -> Result<Option<Link>> {
    get_one(rtnl, &format!("read link {index}"), question(index))
}

/// Reads the link of that name or altname, if there is one.
///
/// Like `ip link show dev NAME`.
pub fn find(rtnl: &Netlink, name: &str) -> Result<Option<Link>> {
    /// IFLA_ALT_IFNAME of linux/if_link.h.
    const IFLA_ALT_IFNAME: u16 = 53;
    let mut message = question(0);
    // The kernel looks among both kinds of names whichever attribute it is given, but checks their lengths.
    message.attributes.push(match name.len() {
        ..=NAME_MAX => LinkAttribute::IfName(name.to_string()),
        _ => LinkAttribute::Other(raw_attribute(IFLA_ALT_IFNAME, [name.as_bytes(), &[0]].concat())),
    });
    get_one(rtnl, &format!("find link `{name}`"), message)
}

fn get_one(rtnl: &Netlink, doing: &str, message: LinkMessage) -> Result<Option<Link>> {
    match rtnl.get(doing, RouteNetlinkMessage::GetLink(message)) {
        Ok(answer) => Ok(answer.and_then(read)),
        Err(error) if error.errno() == libc::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// Statistics are most of what a link has to say, and nobody reads them here.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// Waits until all of these links are gone from the namespace, and returns those that still are there at the deadline.
///
/// `rtnl` is a socket in the same namespace. A link ends later than the call that ends it: a veth when the kernel gets
/// round to freeing the namespace of its other end.
pub async fn wait_gone(netns: &Netns, rtnl: &Netlink, indexes: &[u32], deadline: Duration) -> Result<Vec<u32>> {
    /// RTMGRP_LINK of linux/rtnetlink.h.
    const RTMGRP_LINK: u32 = 1;
    let wanted: BTreeSet<u32> = indexes.iter().copied().collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // Heard first and looked at then: what ends in between is heard.
    let events = Events::listen(netns, RTMGRP_LINK)?;
    let mut left = present(rtnl, &wanted)?;
    let listen = async {
        while !left.is_empty() {
            let whole = events.next("wait for links to end", |kind, body| {
                left.retain(|index| Some(*index) != ended(kind, body));
            });
            if !whole.await? {
                left = present(rtnl, &left)?;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(deadline, listen).await {
        Ok(heard) => heard?,
        Err(_) => left = present(rtnl, &left)?,
    }
    Ok(left.into_iter().collect())
}

fn present(rtnl: &Netlink, wanted: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
    Ok(list(rtnl)?.iter().map(|link| link.index).filter(|index| wanted.contains(index)).collect())
}

/// Returns the link that has ended, if an event says so.
fn ended(kind: u16, body: &[u8]) -> Option<u32> {
    match rtnl::read(kind, body) {
        // A port that leaves its bridge is said to be deleted too, from the bridge (net/bridge/br_netlink.c).
        Ok(RouteNetlinkMessage::DelLink(link)) if link.header.interface_family != AddressFamily::Bridge => {
            Some(link.header.index)
        }
        _ => None,
    }
}

pub(super) fn read(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        altnames: Vec::new(),
        alias: None,
        kind: None,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        state: String::new(),
        controller: None,
        link: None,
        link_netnsid: None,
        loopback: flags.contains(LinkFlags::Loopback),
        group: 0,
        bridge: None,
        port: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::PropList(properties) => {
                link.altnames.extend(properties.into_iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name),
                    _ => None,
                }));
            }
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Address(bytes) => link.mac = Mac::of_bytes(&bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.state = state_name(state),
            LinkAttribute::Controller(index) => link.controller = Some(index),
            // A veth whose other end is gone, and a device on top of nothing, say 0.
            LinkAttribute::Link(index) => link.link = (index != 0).then_some(index),
            LinkAttribute::LinkNetNsId(id) => link.link_netnsid = Some(id),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| read_info(&mut link, info)),
            _ => {}
        }
    }
    Some(link)
}

fn read_info(link: &mut Link, info: LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind_name(kind)),
        LinkInfo::Data(data) => link.bridge = Bridge::read(data),
        LinkInfo::PortData(data) => link.port = Port::read(data),
        _ => {}
    }
}

fn kind_name(kind: InfoKind) -> String {
    kind.to_string()
}

fn state_name(state: State) -> String {
    state.to_string().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};

    #[test]
    fn changes_are_those_that_ip_sees() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            let mac = Mac([2, 0, 0, 0, 0, 9]);
            let change = Change {
                up: Some(true),
                name: Some("wan"),
                mtu: Some(1300),
                mac: Some(mac),
                alias: Some("to b"),
                ..Change::default()
            };
            super::change(&rtnl, 1001, &change).expect("changed");
            let link = get(&rtnl, 1001).expect("read").expect("wan");
            assert_eq!((link.name.as_str(), link.mtu, link.mac, link.up), ("wan", 1300, Some(mac), true));
            assert_eq!((link.alias.as_deref(), link.loopback, link.group), (Some("to b"), false, 0));
            let seen = &judge(&a, "ip -j link show wan").await[0];
            assert_eq!(
                (&seen["ifalias"], &seen["mtu"], &seen["address"]),
                (&"to b".into(), &1300.into(), &mac.to_string().into())
            );
            super::change(&rtnl, 1001, &Change { up: Some(false), alias: Some(""), ..Change::default() })
                .expect("down");
            let link = get(&rtnl, 1001).expect("read").expect("wan");
            assert_eq!((link.up, link.alias, link.state.as_str()), (false, None, "down"));
        });
    }

    #[test]
    fn moved_it_keeps_its_number_or_says_why_not() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let (b, c) = (netns(), netns());
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            let change = Change { netns: Some(&c), name: Some("eth7"), ..Change::default() };
            super::change(&rtnl, 1001, &change).expect("moved");
            assert_eq!(get(&rtnl, 1001).expect("read"), None);
            let there = Netlink::open(&c).expect("a socket");
            assert_eq!(find(&there, "eth7").expect("found").expect("eth7").index, 1001);
            let again = Change { netns: Some(&a), new_index: Some(1234), ..Change::default() };
            super::change(&there, 1001, &again).expect("moved");
            assert_eq!(find(&rtnl, "eth7").expect("found").expect("eth7").index, 1234);
            let (there, index) = (rtnl, 1234);
            let back = Change { netns: Some(&b), name: Some("eth0"), ..Change::default() };
            assert!(super::change(&there, index, &back).expect_err("b has an eth0").is_exists());
        });
    }

    #[test]
    fn altnames_find_it_too() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            let long = "the-uplink-to-the-second-router";
            add_altname(&rtnl, 1001, long).expect("added");
            add_altname(&rtnl, 1001, "up").expect("added");
            for name in ["eth0", "up", long] {
                let link = find(&rtnl, name).expect("found").expect(name);
                assert!(link.index == 1001 && link.goes_by(name) && !link.goes_by("down"), "{link:?}");
            }
            assert_eq!(judge(&a, "ip -j link show eth0").await[0]["altnames"], serde_json::json!([long, "up"]));
            assert!(add_altname(&rtnl, 1, "up").expect_err("taken").is_exists());
            delete_altname(&rtnl, 1001, long).expect("deleted");
            assert_eq!(find(&rtnl, long).expect("looked"), None);
            assert!(delete_altname(&rtnl, 1001, long).is_err());
            assert_eq!(find(&rtnl, &"x".repeat(127)).expect("looked"), None);
        });
    }

    #[test]
    fn what_is_not_there() {
        block_on(async {
            let (_netns, rtnl) = netns_and_rtnl();
            assert_eq!(get(&rtnl, 4711).expect("looked"), None);
            assert_eq!(find(&rtnl, "eth0").expect("looked"), None);
            let error = delete(&rtnl, 4711).expect_err("no such link");
            assert!(error.is_gone() && error.doing() == "delete link 4711", "{error:?}");
            let error = super::change(&rtnl, 4711, &Change { up: Some(true), ..Change::default() });
            assert!(error.expect_err("no such link").is_gone());
        });
    }

    /// a(eth0) -- b(eth0), a(eth1) -- c(eth0): b goes, c stays.
    #[test]
    fn it_waits_for_those_that_go_and_names_those_that_stay() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let (b, c) = (netns(), netns());
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            pair(&rtnl, (&a, "eth1", 1003), (&c, "eth0", 1004)).await;
            drop(b);
            let left = wait_gone(&a, &rtnl, &[1001], Duration::from_secs(10)).await.expect("waited");
            assert_eq!(left, [0u32; 0]);
            assert_eq!(get(&rtnl, 1001).expect("looked"), None);
            let left = wait_gone(&a, &rtnl, &[1001, 1003, 4711], Duration::from_millis(20)).await.expect("waited");
            assert_eq!(left, [1003]);
            let left = wait_gone(&a, &rtnl, &[], Duration::ZERO).await.expect("nothing to wait for");
            assert_eq!(left, [0u32; 0]);
        });
    }

    /// br0(p1) -- b: a port that leaves its bridge is not gone.
    #[test]
    fn to_leave_a_bridge_is_not_to_end() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            let bridge = NewLink { name: "br0", index: 1000, mac: Mac::local(0), mtu: None };
            super::bridge::add_bridge(&rtnl, &bridge, &crate::net::BridgeOptions::default()).expect("a bridge");
            pair(&rtnl, (&a, "p1", 1001), (&b, "eth0", 1002)).await;
            super::change(&rtnl, 1001, &Change { controller: Some(Some(1000)), ..Change::default() }).expect("in");
            assert_eq!(get(&rtnl, 1001).expect("read").expect("p1").controller, Some(1000));
            let wait = wait_gone(&a, &rtnl, &[1001], Duration::from_millis(200));
            let leave = async {
                super::change(&rtnl, 1001, &Change { controller: Some(None), ..Change::default() }).expect("out");
            };
            let (left, ()) = futures_util::future::join(wait, leave).await;
            assert_eq!(left.expect("waited"), [1001]);
            assert_eq!(get(&rtnl, 1001).expect("read").expect("p1").controller, None);
        });
    }
}
