//! VLANs: they have those frames of the link below that have their tag.

use netlink_packet_route::link::{InfoData, InfoVlan, VlanProtocol as Protocol};
use serde::{Deserialize, Serialize};

use super::{Below, LinkSort, RefusedLink};
use crate::net::link::feature::LinkFeature;
use crate::net::link::worded::worded;

worded! {
    /// The tag of a VLAN.
    VlanProtocol = r#""802.1q" or "802.1ad""# {
        /// A customer's tag, EtherType 0x8100.
        Dot1q = "802.1q", 0x8100;
        /// A provider's tag around that, EtherType 0x88a8 (Q-in-Q).
        Dot1ad = "802.1ad", 0x88a8;
    }
}

impl From<VlanProtocol> for Protocol {
    fn from(protocol: VlanProtocol) -> Protocol {
        match protocol {
            VlanProtocol::Dot1q => Protocol::Ieee8021Q,
            VlanProtocol::Dot1ad => Protocol::Ieee8021Ad,
        }
    }
}

impl From<Protocol> for VlanProtocol {
    fn from(protocol: Protocol) -> VlanProtocol {
        match protocol {
            Protocol::Ieee8021Ad => VlanProtocol::Dot1ad,
            _ => VlanProtocol::Dot1q,
        }
    }
}

/// What a VLAN is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The number in the tag.
    pub id: u16,
    /// The tag's kind.
    pub protocol: VlanProtocol,
}

pub(super) const FEATURES: &[LinkFeature] =
    &[LinkFeature { kind: "vlan", option: "CONFIG_VLAN_8021Q", module: "8021q", about: "tagged links" }];

impl LinkSort for Vlan {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }

    fn words(&self, _below: Option<&str>) -> Vec<Option<String>> {
        let other = (self.protocol != VlanProtocol::Dot1q).then(|| format!("protocol {}", self.protocol.word()));
        vec![other, Some(format!("id {}", self.id))]
    }

    fn data(&self, _below: Option<u32>) -> Option<InfoData> {
        Some(InfoData::Vlan(vec![InfoVlan::Id(self.id), InfoVlan::Protocol(self.protocol.into())]))
    }

    fn below(&self) -> Below {
        Below::Cable
    }

    fn advice(&self, refused: &RefusedLink<'_>) -> Option<String> {
        (refused.errno == libc::EEXIST).then(|| format!("{} has a VLAN {} already", refused.below, self.id))
    }
}
