//! Bridges and their ports: options as names, times in milliseconds.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::net::link::kind::VlanProtocol;
use crate::net::netlink::rtnl::NEW;
use crate::net::{Netlink, NewLink, Request, Result};

/// The options of a bridge; what is `None` is left as the kernel has it. Times are rounded up to 10 ms, and
/// may be read back as less where the kernel's own clock is coarser.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeOptions {
    /// Whether it speaks the spanning tree protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stp: Option<bool>,
    /// Whether it looks at VLAN tags. EOPNOTSUPP if the kernel was built without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_filtering: Option<bool>,
    /// The VLAN that a new port puts untagged packets into; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_default_pvid: Option<u16>,
    /// The kind of tag that it looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_protocol: Option<VlanProtocol>,
    /// Whether it learns who listens to which multicast group. A port costs the kernel twice as much with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast_snooping: Option<bool>,
    /// Whether it asks who listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast_querier: Option<bool>,
    /// How long a port listens and learns before it forwards; 0, or 2 s to 30 s with `stp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_delay_ms: Option<u32>,
    /// The time between two hellos of the spanning tree protocol, 1 s to 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello_time_ms: Option<u32>,
    /// How long a hello counts, 6 s to 40 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// How long a learnt address is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing_time_ms: Option<u32>,
    /// The priority in the election of the spanning tree's root; the lowest wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Which link-local groups (01:80:c2:00:00:0X, bit X) it forwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_fwd_mask: Option<u16>,
    /// Whether iptables and nftables see bridged IPv4 packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nf_call_iptables: Option<bool>,
    /// Whether iptables and nftables see bridged IPv6 packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nf_call_ip6tables: Option<bool>,
    /// Whether arptables and nftables see bridged ARP packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nf_call_arptables: Option<bool>,
}

impl BridgeOptions {
    /// Returns those that are not the same in `now`, as the kernel has it. Times count as the same within its clock's tick.
    pub fn unlike(&self, now: &BridgeOptions) -> BridgeOptions {
        let (wanted, now) = (serde_json::to_value(self), serde_json::to_value(now));
        let (Ok(Value::Object(mut wanted)), Ok(now)) = (wanted, now) else { return BridgeOptions::default() };
        wanted.retain(|key, value| match (value.as_u64(), now.get(key).and_then(Value::as_u64)) {
            (Some(wanted), Some(now)) if key.ends_with("_ms") => wanted.abs_diff(now) > ms(1).into(),
            // What the kernel does not tell, it does not have.
            _ => now.get(key).is_some_and(|now| now != value),
        });
        serde_json::from_value(Value::Object(wanted)).unwrap_or_default()
    }

    fn attributes(&self) -> Vec<InfoBridge> {
        let stp = |on| if on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
        [
            self.stp.map(|on| InfoBridge::StpState(stp(on))),
            self.vlan_filtering.map(InfoBridge::VlanFiltering),
            self.vlan_default_pvid.map(InfoBridge::VlanDefaultPvid),
            self.vlan_protocol.map(|protocol| InfoBridge::VlanProtocol(protocol.into())),
            self.mcast_snooping.map(InfoBridge::MulticastSnooping),
            self.mcast_querier.map(InfoBridge::MulticastQuerier),
            self.forward_delay_ms.map(|ms| InfoBridge::ForwardDelay(ticks(ms))),
            self.hello_time_ms.map(|ms| InfoBridge::HelloTime(ticks(ms))),
            self.max_age_ms.map(|ms| InfoBridge::MaxAge(ticks(ms))),
            self.ageing_time_ms.map(|ms| InfoBridge::AgeingTime(ticks(ms))),
            self.priority.map(InfoBridge::Priority),
            self.group_fwd_mask.map(InfoBridge::GroupFwdMask),
            self.nf_call_iptables.map(InfoBridge::NfCallIpTables),
            self.nf_call_ip6tables.map(InfoBridge::NfCallIp6Tables),
            self.nf_call_arptables.map(InfoBridge::NfCallArpTables),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Returns milliseconds in the units of user space, USER_HZ, which is 100 on every architecture with bridges (time(7)).
fn ticks(ms: u32) -> u32 {
    ms.div_ceil(10)
}

fn ms(ticks: u32) -> u32 {
    ticks.saturating_mul(10)
}

/// A bridge as the kernel shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bridge {
    /// What it is set to.
    #[serde(flatten)]
    pub options: BridgeOptions,
}

impl Bridge {
    pub(in crate::net) fn read(data: InfoData) -> Option<Bridge> {
        let InfoData::Bridge(attributes) = data else { return None };
        let mut options = BridgeOptions::default();
        for attribute in attributes {
            match attribute {
                InfoBridge::StpState(state) => options.stp = Some(state != BridgeStpState::Disabled),
                InfoBridge::VlanFiltering(on) => options.vlan_filtering = Some(on),
                InfoBridge::VlanDefaultPvid(vid) => options.vlan_default_pvid = Some(vid),
                InfoBridge::VlanProtocol(protocol) => options.vlan_protocol = Some(protocol.into()),
                InfoBridge::MulticastSnooping(on) => options.mcast_snooping = Some(on),
                InfoBridge::MulticastQuerier(on) => options.mcast_querier = Some(on),
                InfoBridge::ForwardDelay(time) => options.forward_delay_ms = Some(ms(time)),
                InfoBridge::HelloTime(time) => options.hello_time_ms = Some(ms(time)),
                InfoBridge::MaxAge(time) => options.max_age_ms = Some(ms(time)),
                InfoBridge::AgeingTime(time) => options.ageing_time_ms = Some(ms(time)),
                InfoBridge::Priority(priority) => options.priority = Some(priority),
                InfoBridge::GroupFwdMask(mask) => options.group_fwd_mask = Some(mask),
                InfoBridge::NfCallIpTables(on) => options.nf_call_iptables = Some(on),
                InfoBridge::NfCallIp6Tables(on) => options.nf_call_ip6tables = Some(on),
                InfoBridge::NfCallArpTables(on) => options.nf_call_arptables = Some(on),
                _ => {}
            }
        }
        Some(Bridge { options })
    }
}

/// Returns the request that makes a bridge, which is down.
///
/// Like `ip link add NAME type bridge`. EEXIST if the name or number is taken.
pub fn bridge_request(link: &NewLink<'_>, options: &BridgeOptions) -> Request {
    let builder = link.builder(Some(InfoKind::Bridge), true).set_info_data(InfoData::Bridge(options.attributes()));
    Request::new(format!("add bridge `{}`", link.name), RouteNetlinkMessage::NewLink(builder.build()), NEW)
}

/// Sends the request of `bridge_request`.
#[cfg(test)]
pub(crate) fn add_bridge(rtnl: &Netlink, link: &NewLink<'_>, options: &BridgeOptions) -> Result<()> {
    rtnl.send(bridge_request(link, options))
}

/// Returns the request that changes the options of a bridge.
///
/// Like `ip link set NAME type bridge`. ERANGE for a time out of its range, which for `forward_delay_ms` depends on
/// whether the spanning tree is on beforehand; EOPNOTSUPP for what the kernel lacks.
pub fn set_bridge_request(index: u32, options: &BridgeOptions) -> Request {
    let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge).index(index);
    let message = builder.set_info_data(InfoData::Bridge(options.attributes())).build();
    Request::new(format!("set bridge {index}"), RouteNetlinkMessage::NewLink(message), 0)
}

/// Sends the request of `set_bridge_request`.
#[cfg(test)]
pub(crate) fn set_bridge(rtnl: &Netlink, index: u32, options: &BridgeOptions) -> Result<()> {
    rtnl.send(set_bridge_request(index, options))
}

/// The options of a bridge's port; what is `None` is left as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortOptions {
    /// Whether packets may go back out of the port that they came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hairpin: Option<bool>,
    /// Whether it can't talk to other isolated ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Whether the bridge learns addresses from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<bool>,
    /// Whether unicast packets to unknown addresses go out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<bool>,
    /// Whether multicast packets that nobody asked for go out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast_flood: Option<bool>,
    /// Whether broadcast packets go out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bcast_flood: Option<bool>,
    /// The cost of the way through it, for the spanning tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// Its priority for the spanning tree, 0 to 63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Whether it shuts when it hears a hello of the spanning tree protocol (BPDU guard).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<bool>,
    /// Whether it leaves a multicast group at the first word, without asking round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_leave: Option<bool>,
    /// Whether it can't become the way to the spanning tree's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_block: Option<bool>,
    /// Whether the bridge answers ARP and neighbour solicitations for those it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neigh_suppress: Option<bool>,
    /// Whether the bridge answers ARP in place of hosts behind other ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_arp: Option<bool>,
    /// Whether only addresses that are in the forwarding table already may send through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
}

impl PortOptions {
    fn attributes(&self) -> Vec<InfoBridgePort> {
        [
            self.hairpin.map(InfoBridgePort::HairpinMode),
            self.isolated.map(InfoBridgePort::Isolated),
            self.learning.map(InfoBridgePort::Learning),
            self.flood.map(InfoBridgePort::UnicastFlood),
            self.mcast_flood.map(InfoBridgePort::MulticastFlood),
            self.bcast_flood.map(InfoBridgePort::BroadcastFlood),
            self.cost.map(InfoBridgePort::Cost),
            self.priority.map(InfoBridgePort::Priority),
            self.guard.map(InfoBridgePort::Guard),
            self.fast_leave.map(InfoBridgePort::FastLeave),
            self.root_block.map(InfoBridgePort::Protect),
            self.neigh_suppress.map(InfoBridgePort::NeighSupress),
            self.proxy_arp.map(InfoBridgePort::ProxyARP),
            self.locked.map(InfoBridgePort::Locked),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl PortOptions {
    /// Returns those whose key, as they are stored, passes.
    fn filtered(&self, mut passes: impl FnMut(&str, &Value) -> bool) -> PortOptions {
        let Ok(Value::Object(mut all)) = serde_json::to_value(self) else { return PortOptions::default() };
        all.retain(|key, value| passes(key, value));
        serde_json::from_value(all.into()).unwrap_or_default()
    }

    /// Returns those that `other` has as well, as they are here.
    pub fn of_those_in(&self, other: &PortOptions) -> PortOptions {
        let other = serde_json::to_value(other).unwrap_or_default();
        self.filtered(|key, _| other.get(key).is_some())
    }

    /// Returns the names of those that are given.
    pub fn given(&self) -> Vec<String> {
        let all = serde_json::to_value(self).unwrap_or_default();
        all.as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns those whose names are `wanted`.
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> PortOptions {
        self.filtered(|key, _| wanted(key))
    }

    /// Returns those that are not the same in `other`.
    pub fn unlike(&self, other: &PortOptions) -> PortOptions {
        let other = serde_json::to_value(other).unwrap_or_default();
        self.filtered(|key, value| other.get(key) != Some(value))
    }
}

/// A bridge's port as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// "disabled", "listening", "learning", "forwarding" or "blocking" (IEEE 802.1D).
    pub state: String,
    /// What it is set to.
    #[serde(flatten)]
    pub options: PortOptions,
}

impl Port {
    pub(in crate::net) fn read(data: InfoPortData) -> Option<Port> {
        let InfoPortData::BridgePort(attributes) = data else { return None };
        let mut port = Port { state: String::new(), options: PortOptions::default() };
        let options = &mut port.options;
        for attribute in attributes {
            match attribute {
                InfoBridgePort::State(state) => port.state = state_name(state),
                InfoBridgePort::HairpinMode(on) => options.hairpin = Some(on),
                InfoBridgePort::Isolated(on) => options.isolated = Some(on),
                InfoBridgePort::Learning(on) => options.learning = Some(on),
                InfoBridgePort::UnicastFlood(on) => options.flood = Some(on),
                InfoBridgePort::MulticastFlood(on) => options.mcast_flood = Some(on),
                InfoBridgePort::BroadcastFlood(on) => options.bcast_flood = Some(on),
                InfoBridgePort::Cost(cost) => options.cost = Some(cost),
                InfoBridgePort::Priority(priority) => options.priority = Some(priority),
                InfoBridgePort::Guard(on) => options.guard = Some(on),
                InfoBridgePort::FastLeave(on) => options.fast_leave = Some(on),
                InfoBridgePort::Protect(on) => options.root_block = Some(on),
                InfoBridgePort::NeighSupress(on) => options.neigh_suppress = Some(on),
                InfoBridgePort::ProxyARP(on) => options.proxy_arp = Some(on),
                InfoBridgePort::Locked(on) => options.locked = Some(on),
                _ => {}
            }
        }
        Some(port)
    }
}

fn state_name(state: BridgePortState) -> String {
    match state {
        BridgePortState::Disabled => "disabled".to_string(),
        BridgePortState::Listening => "listening".to_string(),
        BridgePortState::Learning => "learning".to_string(),
        BridgePortState::Forwarding => "forwarding".to_string(),
        BridgePortState::Blocking => "blocking".to_string(),
        other => u8::from(other).to_string(),
    }
}

/// Changes the options of a link as a port of its bridge.
///
/// Like `ip link set NAME type bridge_slave` and `bridge link set`. EINVAL if the link is not a port of a bridge.
pub fn set_port(rtnl: &Netlink, index: u32, options: &PortOptions) -> Result<()> {
    let settings = InfoPortData::BridgePort(options.attributes());
    let message = LinkUnspec::new_with_index(index).set_port_kind(InfoPortKind::Bridge).set_port_data(settings).build();
    rtnl.change(&format!("set bridge port {index}"), RouteNetlinkMessage::NewLink(message), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, judge, netns_and_rtnl, pair};
    use crate::net::{Change, Mac, link};

    const BRIDGE: NewLink<'_> = NewLink { name: "br0", index: 1000, mac: Mac([2, 0, 0, 0, 0, 1]), mtu: Some(1400) };

    #[test]
    fn options_are_those_that_ip_sees() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let options = BridgeOptions {
                stp: Some(true),
                mcast_snooping: Some(false),
                forward_delay_ms: Some(4000),
                hello_time_ms: Some(1200),
                max_age_ms: Some(6000),
                ageing_time_ms: Some(15_000),
                priority: Some(0x1000),
                group_fwd_mask: Some(8),
                nf_call_iptables: Some(false),
                nf_call_ip6tables: Some(true),
                ..BridgeOptions::default()
            };
            add_bridge(&rtnl, &BRIDGE, &options).expect("a bridge");
            let link = link::get(&rtnl, 1000).expect("read").expect("br0");
            assert_eq!((link.mac, link.mtu, link.kind.as_deref()), (Some(BRIDGE.mac), 1400, Some("bridge")));
            let bridge = link.bridge.expect("a bridge").options;
            // What was not asked for is read back too, so only what was is compared.
            let asked = serde_json::to_value(&options).expect("JSON");
            let mut got = serde_json::to_value(&bridge).expect("JSON");
            got.as_object_mut().expect("a map").retain(|name, _| asked.get(name).is_some());
            assert_eq!(got, asked);
            let seen = &judge(&netns, "ip -j -d link show br0").await[0]["linkinfo"]["info_data"];
            assert_eq!(
                (&seen["stp_state"], &seen["forward_delay"], &seen["hello_time"]),
                (&1.into(), &400.into(), &120.into())
            );
            assert_eq!((&seen["mcast_snooping"], &seen["nf_call_iptables"]), (&0.into(), &0.into()));

            // Not at once: the kernel sets the delay first, and with the spanning tree on it may not be 0.
            for change in [
                BridgeOptions { stp: Some(false), ..BridgeOptions::default() },
                BridgeOptions { forward_delay_ms: Some(0), ..BridgeOptions::default() },
            ] {
                set_bridge(&rtnl, 1000, &change).expect("set");
            }
            let bridge = link::get(&rtnl, 1000).expect("read").expect("br0").bridge.expect("a bridge").options;
            assert_eq!((bridge.stp, bridge.forward_delay_ms, bridge.priority), (Some(false), Some(0), Some(0x1000)));
        });
    }

    #[test]
    fn what_the_kernel_refuses() {
        block_on(async {
            let (_netns, rtnl) = netns_and_rtnl();
            add_bridge(&rtnl, &BRIDGE, &BridgeOptions::default()).expect("a bridge");
            let again = add_bridge(&rtnl, &BRIDGE, &BridgeOptions::default()).expect_err("taken");
            assert!(again.is_exists() && again.doing() == "add bridge `br0`", "{again:?}");
            set_bridge(&rtnl, 1000, &BridgeOptions { stp: Some(true), ..BridgeOptions::default() }).expect("set");
            let short = BridgeOptions { forward_delay_ms: Some(10), ..BridgeOptions::default() };
            assert_eq!(set_bridge(&rtnl, 1000, &short).expect_err("too short").errno(), libc::ERANGE);
            let port = set_port(&rtnl, 1000, &PortOptions { hairpin: Some(true), ..PortOptions::default() });
            assert!(port.is_err(), "no port of a bridge");
        });
    }

    /// br0(p1) -- h(eth0)
    #[test]
    fn port_options_are_those_that_ip_sees() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let host = crate::net::testing::netns();
            add_bridge(&rtnl, &BRIDGE, &BridgeOptions::default()).expect("a bridge");
            pair(&rtnl, (&netns, "p1", 1001), (&host, "eth0", 1002)).await;
            link::change(&rtnl, 1001, &Change { controller: Some(Some(1000)), ..Change::default() }).expect("a port");
            let options = PortOptions {
                hairpin: Some(true),
                isolated: Some(true),
                learning: Some(false),
                flood: Some(false),
                mcast_flood: Some(false),
                bcast_flood: Some(false),
                cost: Some(50),
                priority: Some(9),
                guard: Some(true),
                fast_leave: Some(true),
                root_block: Some(true),
                neigh_suppress: Some(true),
                proxy_arp: Some(true),
                locked: Some(true),
            };
            set_port(&rtnl, 1001, &options).expect("set");
            let port = link::get(&rtnl, 1001).expect("read").expect("p1").port.expect("a port");
            assert_eq!((port.options, port.state.as_str()), (options, "disabled"));
            let seen = &judge(&netns, "ip -j -d link show p1").await[0]["linkinfo"]["info_slave_data"];
            for (name, value) in [("hairpin", true), ("isolated", true), ("learning", false), ("guard", true)] {
                assert_eq!(seen[name], value, "{name}");
            }
            assert_eq!((&seen["cost"], &seen["priority"]), (&50.into(), &9.into()));
            set_port(&rtnl, 1001, &PortOptions { isolated: Some(false), ..PortOptions::default() }).expect("set");
            let port = link::get(&rtnl, 1001).expect("read").expect("p1").port.expect("a port");
            assert_eq!((port.options.isolated, port.options.hairpin), (Some(false), Some(true)));
        });
    }
}
