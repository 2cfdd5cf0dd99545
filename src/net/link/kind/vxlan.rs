//! VXLAN (RFC 7348): Ethernet in UDP.

use std::net::IpAddr;

use netlink_packet_route::link::{InfoData, InfoVxlan};
use serde::{Deserialize, Serialize};

use super::{Below, LinkSort, RefusedLink};
use crate::net::link::feature::LinkFeature;

/// The UDP port of RFC 7348; the kernel's own default is an older one.
const PORT: u16 = 4789;

/// What a VXLAN is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// The network's number, of 24 bits.
    pub vni: u32,
    /// The address that it sends from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Where frames go whose way isn't known: another host, or a group of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The UDP port of all of them; that of the standard unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it learns from what comes in behind which host an address is; the kernel's default is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<bool>,
    /// The hop limit of what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// How long a learnt address is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ageing_s: Option<u32>,
}

impl Vxlan {
    /// Returns how many bytes it adds to a frame: Ethernet, VXLAN, UDP and IP.
    pub fn overhead(&self) -> u32 {
        let v6 = [self.local, self.remote].into_iter().flatten().any(|ip| ip.is_ipv6());
        if v6 { 70 } else { 50 }
    }
}

pub(super) const FEATURES: &[LinkFeature] =
    &[LinkFeature { kind: "vxlan", option: "CONFIG_VXLAN", module: "vxlan", about: "tunnels between hosts" }];

impl LinkSort for Vxlan {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }

    fn data(&self, below: Option<u32>) -> Option<InfoData> {
        let remote = self.remote.map(|ip| match ip {
            IpAddr::V4(ip) => InfoVxlan::Group(ip),
            IpAddr::V6(ip) => InfoVxlan::Group6(ip),
        });
        let local = self.local.map(|ip| match ip {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        });
        let attributes = [
            Some(InfoVxlan::Id(self.vni)),
            remote,
            local,
            below.map(InfoVxlan::Link),
            self.ttl.map(InfoVxlan::Ttl),
            self.learning.map(InfoVxlan::Learning),
            self.ageing_s.map(InfoVxlan::Ageing),
            Some(InfoVxlan::Port(self.port.unwrap_or(PORT))),
        ];
        Some(InfoData::Vxlan(attributes.into_iter().flatten().collect()))
    }

    fn words(&self, below: Option<&str>) -> Vec<Option<String>> {
        let remote = |ip: IpAddr| format!("{} {ip}", if ip.is_multicast() { "group" } else { "remote" });
        vec![
            Some(format!("id {}", self.vni)),
            self.local.map(|ip| format!("local {ip}")),
            self.remote.map(remote),
            below.map(|below| format!("dev {below}")),
            Some(format!("dstport {}", self.port.unwrap_or(PORT))),
            self.ttl.map(|ttl| format!("ttl {ttl}")),
            self.ageing_s.map(|seconds| format!("ageing {seconds}")),
            self.learning.map(|on| if on { "learning" } else { "nolearning" }.to_string()),
        ]
    }

    fn below(&self) -> Below {
        Below::Addresses
    }

    fn advice(&self, refused: &RefusedLink<'_>) -> Option<String> {
        (refused.errno == libc::EEXIST)
            .then(|| format!("`{}` has a VXLAN of number {} on that port already", refused.netns, self.vni))
    }
}
