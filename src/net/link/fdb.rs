//! Forwarding tables: behind which port of a bridge, or which host of a VXLAN, an Ethernet address is. Like `bridge fdb`.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::net::{Mac, Netlink, Result};

/// Where an Ethernet address is, for the link whose table it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fdb {
    /// The address; all zeros stand for all that are not in the table.
    pub mac: Mac,
    /// The host behind which it is, of a VXLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// That host's number of the network, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// That host's UDP port, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The VLAN, of a bridge's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

/// An entry as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FdbEntry {
    /// The link: a VXLAN, or a bridge's port.
    pub index: u32,
    /// What it says.
    #[serde(flatten)]
    pub fdb: Fdb,
    /// Whether it is in the table of the bridge that the link is a port of, and not in the link's own.
    pub of_bridge: bool,
    /// "permanent" for one that is the host's own or stays, "static" for one that stays, "learned" for others.
    pub state: &'static str,
}

/// Adds an entry that stays: to the link's own table where it has a `dst`, else to that of its bridge.
///
/// Like `bridge fdb append MAC dev LINK dst IP`, and `bridge fdb add MAC dev LINK master static`. EEXIST if somebody has added the
/// address, unless it stands for several (a group's, or all zeros), which may be behind many hosts; what was learnt gives way.
/// EINVAL if the link has no table.
pub fn add(rtnl: &Netlink, index: u32, fdb: &Fdb) -> Result<()> {
    let mut message = message(index, fdb);
    message.header.state = if fdb.dst.is_some() { NeighbourState::Permanent } else { NeighbourState::Noarp };
    let several = fdb.mac.0[0] & 1 == 1 || fdb.mac == Mac([0; 6]);
    let flags = NLM_F_CREATE | if several && fdb.dst.is_some() { NLM_F_APPEND } else { NLM_F_EXCL };
    let doing = format!("add {} to the forwarding table of link {index}", fdb.mac);
    let new = RouteNetlinkMessage::NewNeighbour(message);
    match rtnl.change(&doing, new.clone(), flags) {
        Err(error) if error.is_exists() && is_learnt(rtnl, index, fdb)? => {
            rtnl.change(&doing, new, NLM_F_CREATE | NLM_F_REPLACE)
        }
        done => done,
    }
}

/// Tells whether the table has the address by learning alone: behind the same link, or another port of the same bridge.
fn is_learnt(rtnl: &Netlink, index: u32, fdb: &Fdb) -> Result<bool> {
    let links = super::list(rtnl)?;
    let bridge_of = |index| links.iter().find(|link| link.index == index).and_then(|link| link.controller);
    let bridge = if fdb.dst.is_none() { bridge_of(index) } else { None };
    let answers = rtnl.query("list forwarding tables", dump())?;
    let external = |message: &NeighbourMessage| message.header.flags.contains(NeighbourFlags::ExtLearned);
    let in_the_way = answers.into_iter().filter_map(|answer| {
        let by_others = matches!(&answer, RouteNetlinkMessage::NewNeighbour(message) if external(message));
        let known = read(answer)?;
        let same_table = match bridge {
            Some(bridge) => known.of_bridge && bridge_of(known.index) == Some(bridge),
            None => !known.of_bridge && known.index == index,
        };
        (same_table && known.fdb.mac == fdb.mac && known.fdb.vlan == fdb.vlan).then_some((known, by_others))
    });
    Ok(in_the_way.into_iter().all(|(known, by_others)| known.state == "learned" && !by_others))
}

/// Deletes an entry.
///
/// Like `bridge fdb del`. ENOENT if the address is not in the table; behind another host of several it is passed over.
pub fn delete(rtnl: &Netlink, index: u32, fdb: &Fdb) -> Result<()> {
    let doing = format!("delete {} from the forwarding table of link {index}", fdb.mac);
    rtnl.change(&doing, RouteNetlinkMessage::DelNeighbour(message(index, fdb)), 0)
}

fn message(index: u32, fdb: &Fdb) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = if fdb.dst.is_some() { NeighbourFlags::Own } else { NeighbourFlags::Controller };
    let attributes = [
        Some(NeighbourAttribute::LinkLayerAddress(fdb.mac.0.to_vec())),
        fdb.dst.map(|ip| NeighbourAttribute::Destination(ip.into())),
        fdb.vlan.map(NeighbourAttribute::Vlan),
        fdb.port.map(NeighbourAttribute::Port),
        fdb.vni.map(NeighbourAttribute::Vni),
    ];
    message.attributes = attributes.into_iter().flatten().collect();
    message
}

/// Lists the entries of all tables, or of one link's.
///
/// Like `bridge fdb show`.
pub fn list(rtnl: &Netlink) -> Result<Vec<FdbEntry>> {
    let answers = rtnl.query("list forwarding tables", dump())?;
    Ok(answers.into_iter().filter_map(read).collect())
}

/// Returns the request for all entries.
fn dump() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    RouteNetlinkMessage::GetNeighbour(message)
}

fn read(message: RouteNetlinkMessage) -> Option<FdbEntry> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let mut fdb = Fdb { mac: Mac([0; 6]), dst: None, vni: None, port: None, vlan: None };
    let mut of_bridge = message.header.flags.contains(NeighbourFlags::Controller);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => fdb.mac = Mac::of_bytes(&bytes)?,
            NeighbourAttribute::Destination(address) => fdb.dst = ip_of(address),
            NeighbourAttribute::Vlan(vlan) => fdb.vlan = Some(vlan),
            NeighbourAttribute::Port(port) => fdb.port = Some(port),
            NeighbourAttribute::Vni(vni) => fdb.vni = Some(vni),
            NeighbourAttribute::Controller(_) => of_bridge = true,
            _ => {}
        }
    }
    /// NUD_NOARP and NUD_PERMANENT of linux/neighbour.h.
    const NOARP: u16 = 0x40;
    const PERMANENT: u16 = 0x80;
    let state = match u16::from(message.header.state) {
        state if state & PERMANENT != 0 => "permanent",
        state if state & NOARP != 0 => "static",
        _ => "learned",
    };
    Some(FdbEntry { index: message.header.ifindex, fdb, of_bridge, state })
}

/// Of what is in a table of Ethernet addresses, the packet crate can't tell of which family a host's address is.
fn ip_of(address: NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(ip.into()),
        NeighbourAddress::Inet6(ip) => Some(ip.into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::link::kind::Vxlan;
    use crate::net::testing::{block_on, judge, netns_and_rtnl, pair};
    use crate::net::{BridgeOptions, Change, LinkKind, NewLink, link};

    const VXLAN: Vxlan =
        Vxlan { vni: 42, local: None, remote: None, port: None, learning: None, ttl: None, ageing_s: None };

    #[test]
    fn entries_of_a_vxlan_are_those_that_bridge_sees() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let new = NewLink { name: "vx0", index: 1000, mac: Mac::local(1), mtu: None };
            super::super::kind::add_link(&rtnl, &new, &netns, None, &LinkKind::Vxlan(VXLAN)).expect("a vxlan");
            let entry = |mac, ip: &str, vni, port| Fdb {
                mac,
                dst: Some(ip.parse().expect("an address")),
                vni,
                port,
                vlan: None,
            };
            let entries = [
                entry(Mac([0; 6]), "10.0.0.2", None, None),
                entry(Mac([0; 6]), "10.0.0.3", None, None),
                entry(Mac::local(9), "10.0.0.2", Some(43), Some(8472)),
            ];
            for entry in &entries {
                add(&rtnl, 1000, entry).expect("added");
            }
            assert!(add(&rtnl, 1000, &entries[2]).expect_err("twice").is_exists());
            let listed = list(&rtnl).expect("listed");
            for entry in &entries {
                let found = listed.iter().find(|one| one.fdb == *entry).unwrap_or_else(|| panic!("{listed:?}"));
                assert_eq!((found.index, found.of_bridge, found.state), (1000, false, "permanent"));
            }
            let seen = judge(&netns, "bridge -j fdb show dev vx0").await;
            let seen = seen.as_array().expect("a list");
            assert_eq!(seen.len(), 3, "{seen:?}");
            let one = seen.iter().find(|one| one["mac"] == Mac::local(9).to_string()).expect("the third");
            assert_eq!((&one["dst"], &one["vni"], &one["port"]), (&"10.0.0.2".into(), &43.into(), &8472.into()));
            for entry in &entries {
                delete(&rtnl, 1000, entry).expect("deleted");
            }
            assert_eq!(list(&rtnl).expect("listed"), []);
        });
    }

    #[test]
    fn entries_of_a_port_are_in_its_bridge() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let bridge = NewLink { name: "br0", index: 1000, mac: Mac::local(1), mtu: None };
            super::super::bridge::add_bridge(&rtnl, &bridge, &BridgeOptions::default()).expect("a bridge");
            pair(&rtnl, (&netns, "p1", 1001), (&netns, "p2", 1002)).await;
            let port = Change { controller: Some(Some(1000)), ..Change::default() };
            link::change(&rtnl, 1001, &port).expect("a port");
            let entry = Fdb { mac: Mac::local(9), dst: None, vni: None, port: None, vlan: None };
            add(&rtnl, 1001, &entry).expect("added");
            assert!(add(&rtnl, 1001, &entry).expect_err("twice").is_exists());
            let found = list(&rtnl).expect("listed").into_iter().find(|one| one.fdb == entry).expect("there");
            assert_eq!((found.index, found.of_bridge, found.state), (1001, true, "static"));
            let seen = judge(&netns, "bridge -j fdb show dev p1").await.to_string();
            assert!(seen.contains(&Mac::local(9).to_string()) && seen.contains("static"), "{seen}");
            delete(&rtnl, 1001, &entry).expect("deleted");
            assert!(list(&rtnl).expect("listed").iter().all(|one| one.fdb != entry));
        });
    }
}
