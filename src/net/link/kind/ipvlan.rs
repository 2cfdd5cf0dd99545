//! Ipvlans: they share the cable and the Ethernet address of the link below.

use netlink_packet_route::link::{InfoData, InfoIpVlan, IpVlanMode};
use serde::{Deserialize, Serialize};

use super::{Below, LinkAddress, LinkSort};
use crate::net::link::feature::LinkFeature;
use crate::net::link::worded::worded;

worded! {
    /// What an ipvlan does by itself.
    IpvlanMode = r#"one of "l2", "l3" and "l3s""# {
        /// Its own neighbours: it sees broadcasts and asks by ARP.
        L2 = "l2", 0;
        /// Nothing below IP: the namespace of the link below routes for it.
        L3 = "l3", 1;
        /// As `L3`, and the netfilter hooks of that namespace see its packets.
        L3s = "l3s", 2;
    }
}

/// What an ipvlan is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipvlan {
    /// What it does by itself.
    pub mode: IpvlanMode,
}

pub(super) const FEATURES: &[LinkFeature] =
    &[LinkFeature { kind: "ipvlan", option: "CONFIG_IPVLAN", module: "ipvlan", about: "several hosts on one link" }];

impl LinkSort for Ipvlan {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }

    fn words(&self, _below: Option<&str>) -> Vec<Option<String>> {
        vec![Some(format!("mode {}", self.mode.word()))]
    }

    fn data(&self, _below: Option<u32>) -> Option<InfoData> {
        Some(InfoData::IpVlan(vec![InfoIpVlan::Mode(IpVlanMode::from(self.mode.number() as u16))]))
    }

    fn below(&self) -> Below {
        Below::Cable
    }

    fn address(&self) -> LinkAddress {
        LinkAddress::OfBelow
    }

    fn excludes(&self) -> Option<&'static str> {
        Some("macvlan")
    }

    fn lacking(&self) -> String {
        let lacking = FEATURES[0].lacking();
        match self.mode {
            IpvlanMode::L3s => format!("CONFIG_IPVLAN_L3S, or all of ipvlan: {lacking}"),
            _ => format!("ipvlan: {lacking}"),
        }
    }
}
