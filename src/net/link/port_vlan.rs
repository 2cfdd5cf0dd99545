//! The VLANs of a bridge's ports, and of the bridge itself. Like `bridge vlan`.

use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfoFlags as Flags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use serde::{Deserialize, Serialize};

use crate::net::netlink::rtnl::raw_attribute;
use crate::net::{Netlink, Result};

/// A range of VLANs, both ends in it.
pub type Vids = (u16, u16);

/// The last VLAN: 4095 is reserved (IEEE 802.1Q, table 9-2).
const LAST: u16 = 4094;

/// The VLANs that a port is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVlans {
    /// The one that frames without a tag are put into; one of `untagged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvid: Option<u16>,
    /// Those whose frames leave with a tag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tagged: Vec<Vids>,
    /// Those whose frames leave without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untagged: Vec<Vids>,
}

/// One VLAN of one port, or of a bridge itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PortVlan {
    /// The port, or the bridge.
    pub index: u32,
    /// The VLAN.
    pub vid: u16,
    /// Whether frames without a tag are put into it.
    pub pvid: bool,
    /// Whether its frames leave without a tag.
    pub untagged: bool,
}

impl PortVlans {
    /// Gathers what is listed of one port.
    pub fn of(vlans: &[PortVlan], index: u32) -> PortVlans {
        let mut of = PortVlans::default();
        for vlan in vlans.iter().filter(|vlan| vlan.index == index) {
            of.pvid = of.pvid.or(vlan.pvid.then_some(vlan.vid));
            let list = if vlan.untagged { &mut of.untagged } else { &mut of.tagged };
            match list.last_mut() {
                Some((_, last)) if *last + 1 == vlan.vid => *last = vlan.vid,
                _ => list.push((vlan.vid, vlan.vid)),
            }
        }
        of
    }

    /// Returns all of them as ranges: whether each is tagged, and in what order they are told to the kernel.
    fn ranges(&self) -> impl Iterator<Item = (Vids, Flags)> {
        let tagged = self.tagged.iter().map(|vids| (*vids, Flags::empty()));
        let untagged = self.untagged.iter().map(|vids| (*vids, Flags::Untagged));
        // A range has no pvid in it (br_process_vlan_info in net/bridge/br_netlink.c), so that one is told once more.
        let tagged_pvid = |vid| self.tagged.iter().any(|(low, high)| (*low..=*high).contains(&vid));
        let pvid = self.pvid.map(|vid| {
            let untagged = if tagged_pvid(vid) { Flags::empty() } else { Flags::Untagged };
            ((vid, vid), Flags::Pvid | untagged)
        });
        tagged.chain(untagged).chain(pvid)
    }

    /// Returns those that it is not in.
    fn others(&self) -> Vec<Vids> {
        let mut taken: Vec<Vids> = self.ranges().map(|(vids, _)| vids).collect();
        taken.sort_unstable();
        let (mut others, mut from) = (Vec::new(), 1);
        for (low, high) in taken {
            if from < low {
                others.push((from, low - 1));
            }
            from = from.max(high + 1);
        }
        if from <= LAST {
            others.push((from, LAST));
        }
        others
    }

    /// Writes those that it is not in, as `bridge vlan del` takes them.
    pub fn words_of_others(&self) -> Vec<String> {
        self.others().into_iter().map(|vids| format!("vid {}", shown(vids))).collect()
    }

    /// Writes them as `bridge vlan add` takes them.
    pub fn words(&self) -> Vec<String> {
        self.ranges()
            .map(|(vids, flags)| {
                let pvid = if flags.contains(Flags::Pvid) { " pvid" } else { "" };
                let untagged = if flags.contains(Flags::Untagged) { " untagged" } else { "" };
                format!("vid {}{pvid}{untagged}", shown(vids))
            })
            .collect()
    }
}

fn shown((low, high): Vids) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

/// Puts a port, or with `own` a bridge itself, into these VLANs and into no others. It first gets those that it shall have, so
/// that what it keeps is not interrupted.
///
/// Like `bridge vlan add` and `bridge vlan del`. EOPNOTSUPP if the kernel's bridges know no VLANs or the link is no port.
pub fn set(rtnl: &Netlink, index: u32, own: bool, vlans: &PortVlans) -> Result<()> {
    let add: Vec<_> = vlans.ranges().collect();
    if !add.is_empty() {
        let doing = format!("add VLANs to link {index}");
        rtnl.change(&doing, RouteNetlinkMessage::SetLink(message(index, own, &add)), 0)?;
    }
    let others: Vec<_> = vlans.others().into_iter().map(|vids| (vids, Flags::empty())).collect();
    if others.is_empty() {
        return Ok(());
    }
    let doing = format!("delete VLANs of link {index}");
    rtnl.change(&doing, RouteNetlinkMessage::DelLink(message(index, own, &others)), 0)
}

/// IFLA_BRIDGE_VLAN_INFO of linux/if_bridge.h.
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;

fn message(index: u32, own: bool, ranges: &[(Vids, Flags)]) -> LinkMessage {
    let mut spec: Vec<AfSpecBridge> = own.then_some(AfSpecBridge::Flags(BridgeFlag::LowerDev)).into_iter().collect();
    // The packet crate reads a `struct bridge_vlan_info`, but makes none.
    let info = |flags: Flags, vid: u16| {
        let bytes = [flags.bits().to_ne_bytes(), vid.to_ne_bytes()].concat();
        AfSpecBridge::Other(raw_attribute(IFLA_BRIDGE_VLAN_INFO, bytes))
    };
    for ((low, high), flags) in ranges {
        match low == high {
            true => spec.push(info(*flags, *low)),
            false => spec.extend([info(*flags | Flags::RangeBegin, *low), info(*flags | Flags::RangeEnd, *high)]),
        }
    }
    let builder = LinkUnspec::new_with_index(index).interface_family(AddressFamily::Bridge);
    builder.append_extra_attribute(LinkAttribute::AfSpecBridge(spec)).build()
}

/// Lists the VLANs of all ports and bridges, by port and number.
///
/// Like `bridge vlan show`.
pub fn list(rtnl: &Netlink) -> Result<Vec<PortVlan>> {
    let builder = LinkMessageBuilder::<LinkUnspec>::new().interface_family(AddressFamily::Bridge);
    let builder = builder.append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::Brvlan]));
    let answers = rtnl.query("list VLANs", RouteNetlinkMessage::GetLink(builder.build()))?;
    let mut vlans: Vec<PortVlan> = answers.into_iter().flat_map(read).collect();
    vlans.sort_by_key(|vlan| (vlan.index, vlan.vid));
    vlans.dedup();
    Ok(vlans)
}

fn read(message: RouteNetlinkMessage) -> Vec<PortVlan> {
    let RouteNetlinkMessage::NewLink(message) = message else { return Vec::new() };
    let index = message.header.index;
    let specs = message.attributes.into_iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(spec) => Some(spec),
        _ => None,
    });
    let infos = specs.flatten().filter_map(|spec| match spec {
        AfSpecBridge::VlanInfo(info) => Some(info),
        _ => None,
    });
    infos
        .map(|info| PortVlan {
            index,
            vid: info.vid,
            pvid: info.flags.contains(Flags::Pvid),
            untagged: info.flags.contains(Flags::Untagged),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    fn bytes(message: &LinkMessage) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn what_it_is_not_in_is_the_rest() {
        let vlans = PortVlans { pvid: Some(10), tagged: vec![(20, 20), (30, 39)], untagged: vec![(10, 10)] };
        assert_eq!(vlans.others(), [(1, 9), (11, 19), (21, 29), (40, 4094)]);
        assert_eq!(PortVlans::default().others(), [(1, 4094)]);
        let all = PortVlans { tagged: vec![(1, 4094)], ..PortVlans::default() };
        assert_eq!(all.others(), []);
        assert_eq!(vlans.words(), ["vid 20", "vid 30-39", "vid 10 untagged", "vid 10 pvid untagged"]);
    }

    #[test]
    fn what_is_listed_is_gathered_into_ranges() {
        let one = |vid, pvid, untagged| PortVlan { index: 7, vid, pvid, untagged };
        let other = PortVlan { index: 8, vid: 31, pvid: false, untagged: false };
        let listed = [one(10, true, true), one(30, false, false), other, one(31, false, false), one(40, false, false)];
        let vlans = PortVlans { pvid: Some(10), tagged: vec![(30, 31), (40, 40)], untagged: vec![(10, 10)] };
        assert_eq!(PortVlans::of(&listed, 7), vlans);
    }

    /// As `bridge vlan add vid 10 dev … pvid untagged`, `bridge vlan add vid 30-39 dev …` and `… self` were seen to ask.
    #[test]
    fn they_are_asked_for_as_bridge_does() {
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        // IFLA_AF_SPEC, with the flag of a nested attribute or without, holding IFLA_BRIDGE_VLAN_INFO { flags, vid }.
        let pvid = bytes(&message(7, false, &[((10, 10), Flags::Pvid | Flags::Untagged)]));
        assert_eq!((pvid[0], &pvid[16..]), (libc::AF_BRIDGE as u8, &*words(&[12, 26, 8, 2, 0x6, 10])));
        let range = bytes(&message(7, false, &[((30, 39), Flags::empty())]));
        assert_eq!(range[16..], words(&[20, 26, 8, 2, 0x8, 30, 8, 2, 0x10, 39]));
        let own = bytes(&message(7, true, &[((10, 10), Flags::empty())]));
        assert_eq!(own[16..], words(&[20, 26, 6, 0, 2, 0, 8, 2, 0, 10]));
    }
}
