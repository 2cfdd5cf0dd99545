//! VRFs: a routing table that the ports of one look up alone.

use netlink_packet_route::link::{InfoData, InfoVrf};
use serde::{Deserialize, Serialize};

use super::{LinkSort, RefusedLink};
use crate::net::link::feature::LinkFeature;

/// What a VRF is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vrf {
    /// The table.
    pub table: u32,
}

pub(super) const FEATURES: &[LinkFeature] = &[LinkFeature {
    kind: "vrf",
    option: "CONFIG_NET_VRF",
    module: "vrf",
    about: "several routing domains in one host",
}];

impl LinkSort for Vrf {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }

    fn words(&self, _below: Option<&str>) -> Vec<Option<String>> {
        vec![Some(format!("table {}", self.table))]
    }

    fn data(&self, _below: Option<u32>) -> Option<InfoData> {
        Some(InfoData::Vrf(vec![InfoVrf::TableId(self.table)]))
    }

    fn advice(&self, refused: &RefusedLink<'_>) -> Option<String> {
        (refused.errno == libc::EINVAL).then(|| format!("table {} can't be that of a VRF", self.table))
    }
}
