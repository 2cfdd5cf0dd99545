//! Macvlans: they share the cable of the link below, each with an Ethernet address of its own.

use netlink_packet_route::link::{InfoData, InfoMacVlan, MacVlanMode};
use serde::{Deserialize, Serialize};

use super::{Below, LinkAddress, LinkSort, RefusedLink};
use crate::net::link::feature::LinkFeature;
use crate::net::link::worded::worded;

worded! {
    /// Which macvlans on the same link a macvlan receives frames from.
    MacvlanMode = r#"one of "bridge", "private", "vepa" and "passthru""# {
        /// None of them.
        Private = "private", 1;
        /// Those whose frames the switch at the other end of the cable sends back (IEEE 802.1Qbg).
        Vepa = "vepa", 2;
        /// The others in this mode, at once.
        Bridge = "bridge", 4;
        /// There are no others: it has the link and its address for itself.
        Passthru = "passthru", 8;
    }
}

/// What a macvlan is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macvlan {
    /// Which others it receives frames from.
    pub mode: MacvlanMode,
}

pub(super) const FEATURES: &[LinkFeature] = &[LinkFeature {
    kind: "macvlan",
    option: "CONFIG_MACVLAN",
    module: "macvlan",
    about: "several addresses on one link",
}];

impl LinkSort for Macvlan {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }

    fn words(&self, _below: Option<&str>) -> Vec<Option<String>> {
        vec![Some(format!("mode {}", self.mode.word()))]
    }

    fn data(&self, _below: Option<u32>) -> Option<InfoData> {
        Some(InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::from(self.mode.number()))]))
    }

    fn below(&self) -> Below {
        Below::Cable
    }

    fn address(&self) -> LinkAddress {
        if self.mode == MacvlanMode::Passthru { LinkAddress::OfBelow } else { LinkAddress::Own }
    }

    fn excludes(&self) -> Option<&'static str> {
        Some("ipvlan")
    }

    fn advice(&self, refused: &RefusedLink<'_>) -> Option<String> {
        (refused.errno == libc::EINVAL).then(|| {
            format!("{} must be of Ethernet, and a macvlan in mode `passthru` has it for itself", refused.below)
        })
    }
}
