//! Tunnels from one address to another: GRE, IP in IP. Like `ip link add type gre`, `ipip`, `sit` and `ip6tnl`.

use std::net::IpAddr;

use netlink_packet_route::IpProtocol;
use netlink_packet_route::link::{GreIOFlags, InfoData, InfoGre, InfoGre6, InfoIpTunnel, Ip6TunnelFlags};
use serde::{Deserialize, Serialize};

use super::{LinkAddress, LinkSort, RefusedLink};
use crate::net::link::feature::LinkFeature;
use crate::net::netlink::rtnl::raw_attribute;

/// What a tunnel carries, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelMode {
    /// Packets of any protocol, behind a GRE header (RFC 2784).
    Gre,
    /// Ethernet frames, behind a GRE header.
    Gretap,
    /// IPv4 packets in IPv4 ones (RFC 2003).
    Ipip,
    /// IPv6 packets in IPv4 ones (RFC 4213).
    Sit,
    /// IPv4 and IPv6 packets in IPv6 ones (RFC 2473).
    Ip6tnl,
}

/// What a tunnel is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// What it carries, and in what.
    pub mode: TunnelMode,
    /// The address that it sends from; the one that the route to the other end has unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The address of the other end.
    pub remote: IpAddr,
    /// A number that both ends must have; of GRE alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,
    /// Whether there is a checksum on each packet; of GRE alone.
    #[serde(default)]
    pub csum: bool,
    /// The hop limit of what it sends; that of the packet inside unless given, or 64 in IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Whether a packet that is too large on the way comes back rather than in pieces; over IPv4 alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pmtudisc: Option<bool>,
}

/// The hop limit over IPv6, where 0 would not mean that of the packet inside.
const HOP_LIMIT: u8 = 64;

const GRE: LinkFeature =
    LinkFeature { kind: "gre", option: "CONFIG_NET_IPGRE", module: "ip_gre", about: "GRE tunnels over IPv4" };
const GRETAP: LinkFeature = LinkFeature {
    kind: "gretap",
    option: "CONFIG_NET_IPGRE",
    module: "ip_gre",
    about: "Ethernet in GRE tunnels over IPv4",
};
const IP6GRE: LinkFeature =
    LinkFeature { kind: "ip6gre", option: "CONFIG_IPV6_GRE", module: "ip6_gre", about: "GRE tunnels over IPv6" };
const IP6GRETAP: LinkFeature = LinkFeature {
    kind: "ip6gretap",
    option: "CONFIG_IPV6_GRE",
    module: "ip6_gre",
    about: "Ethernet in GRE tunnels over IPv6",
};
const IPIP: LinkFeature =
    LinkFeature { kind: "ipip", option: "CONFIG_NET_IPIP", module: "ipip", about: "IPv4 in IPv4 tunnels" };
const SIT: LinkFeature =
    LinkFeature { kind: "sit", option: "CONFIG_IPV6_SIT", module: "sit", about: "IPv6 in IPv4 tunnels" };
const IP6TNL: LinkFeature =
    LinkFeature { kind: "ip6tnl", option: "CONFIG_IPV6_TUNNEL", module: "ip6_tunnel", about: "tunnels over IPv6" };

pub(super) const FEATURES: &[LinkFeature] = &[GRE, GRETAP, IP6GRE, IP6GRETAP, IPIP, SIT, IP6TNL];

impl LinkSort for Tunnel {
    fn feature(&self) -> LinkFeature {
        match (self.mode, self.remote) {
            (TunnelMode::Gre, IpAddr::V4(_)) => GRE,
            (TunnelMode::Gre, IpAddr::V6(_)) => IP6GRE,
            (TunnelMode::Gretap, IpAddr::V4(_)) => GRETAP,
            (TunnelMode::Gretap, IpAddr::V6(_)) => IP6GRETAP,
            (TunnelMode::Ipip, _) => IPIP,
            (TunnelMode::Sit, _) => SIT,
            (TunnelMode::Ip6tnl, _) => IP6TNL,
        }
    }

    fn data(&self, below: Option<u32>) -> Option<InfoData> {
        Some(match (self.mode, self.remote.is_ipv4()) {
            (TunnelMode::Gre, true) => InfoData::GreTun(self.gre(below)),
            (TunnelMode::Gretap, true) => InfoData::GreTap(self.gre(below)),
            (TunnelMode::Gre, false) => InfoData::GreTun6(self.gre6(below)),
            (TunnelMode::Gretap, false) => InfoData::GreTap6(self.gre6(below)),
            _ => InfoData::IpTunnel(self.ip(below)),
        })
    }

    fn words(&self, below: Option<&str>) -> Vec<Option<String>> {
        let over_v6 = self.remote.is_ipv6();
        let ttl = self.ttl.or(over_v6.then_some(HOP_LIMIT));
        vec![
            (self.mode == TunnelMode::Ip6tnl).then(|| "mode any".to_string()),
            self.local.map(|ip| format!("local {ip}")),
            Some(format!("remote {}", self.remote)),
            self.key.map(|key| format!("key {key}")),
            self.csum.then(|| "csum".to_string()),
            ttl.map(|ttl| format!("{} {ttl}", if over_v6 { "hoplimit" } else { "ttl" })),
            over_v6.then(|| "encaplimit none".to_string()),
            self.pmtudisc.map(|on| if on { "pmtudisc" } else { "nopmtudisc" }.to_string()),
            below.map(|below| format!("dev {below}")),
        ]
    }

    fn address(&self) -> LinkAddress {
        if self.mode == TunnelMode::Gretap { LinkAddress::Own } else { LinkAddress::None }
    }

    fn advice(&self, refused: &RefusedLink<'_>) -> Option<String> {
        (refused.errno == libc::EEXIST)
            .then(|| "there is a tunnel between these two addresses already; a `key` tells them apart".into())
    }
}

impl Tunnel {
    fn flags(&self) -> GreIOFlags {
        let mut flags = GreIOFlags::empty();
        flags.set(GreIOFlags::Key, self.key.is_some());
        flags.set(GreIOFlags::Checksum, self.csum);
        flags
    }

    fn gre(&self, below: Option<u32>) -> Vec<InfoGre> {
        let v4 = |ip: IpAddr| if let IpAddr::V4(ip) = ip { Some(ip) } else { None };
        [
            self.key.map(InfoGre::IKey),
            self.key.map(InfoGre::OKey),
            Some(InfoGre::IFlags(self.flags())),
            Some(InfoGre::OFlags(self.flags())),
            self.local.and_then(v4).map(InfoGre::Local),
            v4(self.remote).map(InfoGre::Remote),
            self.pmtudisc.map(InfoGre::PathMTUDiscovery),
            self.ttl.map(InfoGre::Ttl),
            below.map(InfoGre::Link),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn gre6(&self, below: Option<u32>) -> Vec<InfoGre6> {
        /// IFLA_GRE_FLAGS of linux/if_tunnel.h.
        const IFLA_GRE_FLAGS: u16 = 13;
        let v6 = |ip: IpAddr| if let IpAddr::V6(ip) = ip { Some(ip) } else { None };
        let no_limit = Ip6TunnelFlags::IgnEncapLimit.bits().to_ne_bytes().to_vec();
        [
            self.key.map(InfoGre6::IKey),
            self.key.map(InfoGre6::OKey),
            Some(InfoGre6::IFlags(self.flags())),
            Some(InfoGre6::OFlags(self.flags())),
            self.local.and_then(v6).map(InfoGre6::Local),
            v6(self.remote).map(InfoGre6::Remote),
            Some(InfoGre6::Ttl(self.ttl.unwrap_or(HOP_LIMIT))),
            Some(InfoGre6::Other(raw_attribute(IFLA_GRE_FLAGS, no_limit))),
            below.map(InfoGre6::Link),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn ip(&self, below: Option<u32>) -> Vec<InfoIpTunnel> {
        let over_v6 = self.mode == TunnelMode::Ip6tnl;
        let any = IpProtocol::from(0);
        [
            self.local.map(InfoIpTunnel::Local),
            Some(InfoIpTunnel::Remote(self.remote)),
            over_v6.then_some(InfoIpTunnel::Protocol(any)),
            over_v6.then_some(InfoIpTunnel::Ipv6Flags(Ip6TunnelFlags::IgnEncapLimit)),
            self.ttl.or(over_v6.then_some(HOP_LIMIT)).map(InfoIpTunnel::Ttl),
            self.pmtudisc.map(InfoIpTunnel::PMtuDisc),
            below.map(InfoIpTunnel::Link),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
