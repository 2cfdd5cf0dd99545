//! Neighbours: which Ethernet address an IP address has. Like `ip neighbour`.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use serde::Serialize;

use super::addr::family;
use crate::net::netlink::rtnl::{NEW, Request};
use crate::net::{Mac, Netlink, Result};

/// A neighbour as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neigh {
    /// The link that it is on.
    pub index: u32,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
    /// "permanent", "reachable", "stale", "delay", "probe", "incomplete" or "failed"; "none" for a proxy entry.
    pub state: String,
    /// Who put it there (RTPROT_… of rtnetlink(7)).
    pub protocol: u8,
    /// Whether this host answers in its place.
    pub proxy: bool,
}

/// Adds a permanent neighbour. One of that address which the kernel found out by itself, or asks for, gives way.
///
/// Like `ip neighbour add IP lladdr MAC dev LINK`. EEXIST if somebody has added one of that address; ENODEV if there is no such
/// link.
pub fn add(rtnl: &Netlink, index: u32, ip: IpAddr, mac: Mac, protocol: u8) -> Result<()> {
    let mut message = message(index, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    if protocol != 0 {
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(protocol)));
    }
    let doing = format!("add neighbour {ip} to link {index}");
    let new = RouteNetlinkMessage::NewNeighbour(message);
    match rtnl.change(&doing, new.clone(), NEW) {
        Err(error) if error.is_exists() && is_learnt(rtnl, index, ip)? => {
            rtnl.change(&doing, new, NLM_F_CREATE | NLM_F_REPLACE)
        }
        done => done,
    }
}

/// Tells whether the kernel has the neighbour by its own finding out, or has no such neighbour any more. What somebody added names
/// who did, or stays.
fn is_learnt(rtnl: &Netlink, index: u32, ip: IpAddr) -> Result<bool> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = family(ip);
    let answers = rtnl.query("list neighbours", RouteNetlinkMessage::GetNeighbour(ask))?;
    let here = |message: &&NeighbourMessage| {
        let is_its = |one: &NeighbourAttribute| *one == NeighbourAttribute::Destination(ip.into());
        message.header.ifindex == index && message.attributes.iter().any(is_its)
    };
    let found = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => Some(message),
        _ => None,
    });
    Ok(found.filter(here).all(|message| {
        let stays = matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
        let by = |one: &NeighbourAttribute| matches!(one, NeighbourAttribute::Protocol(by) if u8::from(*by) != 0);
        !stays && !message.header.flags.contains(NeighbourFlags::ExtLearned) && !message.attributes.iter().any(by)
    }))
}

/// Deletes a neighbour.
///
/// Like `ip neighbour delete IP dev LINK`. ENOENT if there is none.
pub fn delete(rtnl: &Netlink, index: u32, ip: IpAddr) -> Result<()> {
    let doing = format!("delete neighbour {ip} of link {index}");
    rtnl.change(&doing, RouteNetlinkMessage::DelNeighbour(message(index, ip)), 0)
}

/// Has the kernel ask the link for the Ethernet address of `ip` once, and forget that it asked. False where there is an entry for
/// `ip`, which stays; then nothing is asked.
///
/// Like `ip neighbour add IP dev LINK use nud none && ip neighbour delete IP dev LINK`.
pub(in crate::net) fn ask(rtnl: &Netlink, index: u32, ip: IpAddr) -> Result<bool> {
    let doing = format!("ask link {index} for {ip}");
    let mut ask = message(index, ip);
    ask.header.flags = NeighbourFlags::Use;
    let send = |message, flags| rtnl.send(Request::new(&*doing, message, flags).without_point());
    match send(RouteNetlinkMessage::NewNeighbour(ask), NEW) {
        Err(error) if error.is_exists() => return Ok(false),
        asked => asked?,
    }
    send(RouteNetlinkMessage::DelNeighbour(message(index, ip)), 0)?;
    Ok(true)
}

/// Deletes a neighbour that a probe has made the kernel learn: no change of its own.
pub(in crate::net) fn forget(rtnl: &Netlink, index: u32, ip: IpAddr) {
    let doing = format!("delete neighbour {ip} of link {index}");
    let request = Request::new(doing, RouteNetlinkMessage::DelNeighbour(message(index, ip)), 0).without_point();
    // One that is gone is as good, and one that stays is no harm: the kernel forgets it by and by.
    let _ = rtnl.send(request);
}

fn message(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
    message
}

/// Lists the neighbours of both families, without those that need no finding out (multicast), and the proxy entries.
///
/// Like `ip neighbour show` and `ip neighbour show proxy`.
pub fn list(rtnl: &Netlink) -> Result<Vec<Neigh>> {
    let mut neighbours = Vec::new();
    for flags in [NeighbourFlags::empty(), NeighbourFlags::Proxy] {
        let mut message = NeighbourMessage::default();
        message.header.flags = flags;
        let answers = rtnl.query("list neighbours", RouteNetlinkMessage::GetNeighbour(message))?;
        neighbours.extend(answers.into_iter().filter_map(read));
    }
    neighbours.sort_by_key(|neighbour| (neighbour.index, neighbour.ip, neighbour.proxy));
    Ok(neighbours)
}

/// Reads a neighbour; one that nobody has to find out is none.
pub(in crate::net) fn read(message: RouteNetlinkMessage) -> Option<Neigh> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let proxy = message.header.flags.contains(NeighbourFlags::Proxy);
    if !proxy && matches!(message.header.state, NeighbourState::Noarp | NeighbourState::None) {
        return None;
    }
    let (mut ip, mut mac, mut protocol) = (None, None, 0);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(IpAddr::V4(address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some(IpAddr::V6(address)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::of_bytes(&bytes),
            NeighbourAttribute::Protocol(by) => protocol = u8::from(by),
            _ => {}
        }
    }
    let state = message.header.state.to_string();
    Some(Neigh { index: message.header.ifindex, ip: ip?, mac, state, protocol, proxy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
    use crate::net::{Change, link};

    #[test]
    fn neighbours_come_back_as_they_were_added() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            link::change(&rtnl, 1001, &Change { up: Some(true), ..Change::default() }).expect("up");
            for text in ["10.0.0.2", "fd00::2"] {
                let ip: IpAddr = text.parse().expect("an address");
                let mac = Mac::local(2);
                add(&rtnl, 1001, ip, mac, 77).expect(text);
                assert!(add(&rtnl, 1001, ip, mac, 77).expect_err("twice").is_exists());
                let expected = Neigh {
                    index: 1001,
                    ip,
                    mac: Some(mac),
                    state: "permanent".to_string(),
                    protocol: 77,
                    proxy: false,
                };
                assert_eq!(list(&rtnl).expect("neighbours"), [expected]);
                let seen = judge(&a, &format!("ip -j neighbour show {text}")).await;
                assert_eq!((&seen[0]["lladdr"], &seen[0]["state"][0]), (&mac.to_string().into(), &"PERMANENT".into()));
                delete(&rtnl, 1001, ip).expect(text);
                assert_eq!(list(&rtnl).expect("neighbours"), []);
                assert!(delete(&rtnl, 1001, ip).expect_err("gone").is_gone());
            }
            assert!(add(&rtnl, 4711, [10, 0, 0, 2].into(), Mac::local(2), 0).expect_err("no such link").is_gone());
        });
    }

    /// An entry of a cache that is taken for one that somebody made: what the kernel found out, or failed to, gives way; what was
    /// added stays.
    #[test]
    fn what_was_learnt_gives_way() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            // The kernel forgets neighbours when it comes to know that a link has no carrier (net/ipv4/arp.c, neigh_carrier_down).
            judge(&b, "ip link set eth0 up").await;
            link::change(&rtnl, 1001, &Change { up: Some(true), ..Change::default() }).expect("up");
            let mac = Mac::local(2);
            for (no, what) in ["nud stale", "nud reachable", "nud failed", "nud incomplete"].into_iter().enumerate() {
                for ip in [format!("10.0.0.{}", no + 2), format!("fd00::{}", no + 2)] {
                    let lladdr =
                        if what.contains("nud s") || what.contains("nud r") { "lladdr 02:00:00:00:00:99" } else { "" };
                    judge(&a, &format!("ip neighbour add {ip} {lladdr} dev eth0 {what}")).await;
                    add(&rtnl, 1001, ip.parse().expect("an address"), mac, 77).expect(what);
                    let seen = judge(&a, &format!("ip -j neighbour show {ip}")).await;
                    assert_eq!(
                        (&seen[0]["lladdr"], &seen[0]["state"][0]),
                        (&mac.to_string().into(), &"PERMANENT".into())
                    );
                }
            }
            for what in ["nud permanent", "nud noarp", "nud stale protocol zebra", "nud stale extern_learn"] {
                judge(&a, &format!("ip neighbour replace 10.0.1.1 lladdr 02:00:00:00:00:99 dev eth0 {what}")).await;
                assert!(add(&rtnl, 1001, [10, 0, 1, 1].into(), mac, 77).expect_err(what).is_exists(), "{what}");
                judge(&a, "ip neighbour delete 10.0.1.1 dev eth0").await;
            }
        });
    }

    #[test]
    fn proxy_entries_are_listed() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            judge(&netns, "ip neighbour add proxy 10.0.0.7 dev lo").await;
            let listed = list(&rtnl).expect("neighbours");
            assert!(listed.len() == 1 && listed[0].proxy && listed[0].ip == IpAddr::from([10, 0, 0, 7]), "{listed:?}");
        });
    }
}
