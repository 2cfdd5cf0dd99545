//! How `ip` writes what is in this module: for messages, and for the commands that a step is like.

use std::net::IpAddr;

use super::{BridgeOptions, PortOptions, Route, RouteKind, Rule, RuleKind};

/// Joins the words that are there.
fn join(words: impl IntoIterator<Item = Option<String>>) -> String {
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The tables that have a name (RT_TABLE_… of linux/rtnetlink.h).
pub const TABLES: [(u32, &str); 3] = [(253, "default"), (254, "main"), (255, "local")];

/// Returns the name of a routing table, if it has one.
pub fn table_name(table: u32) -> Option<&'static str> {
    TABLES.into_iter().find(|(number, _)| *number == table).map(|(_, name)| name)
}

/// Returns the name of who added a route or rule, if the kernel has one (RTPROT_… of linux/rtnetlink.h).
pub fn protocol_name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        10 => "mrt",
        11 => "zebra",
        12 => "bird",
        13 => "dnrouted",
        14 => "xorp",
        15 => "ntk",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        _ => return None,
    })
}

impl RouteKind {
    /// Returns iproute2's word for the kind.
    pub fn word(self) -> String {
        match self {
            RouteKind::Unicast => "unicast".into(),
            RouteKind::Blackhole => "blackhole".into(),
            RouteKind::Unreachable => "unreachable".into(),
            RouteKind::Prohibit => "prohibit".into(),
            RouteKind::Local => "local".into(),
            RouteKind::Broadcast => "broadcast".into(),
            RouteKind::Other(number) => number.to_string(),
        }
    }
}

impl Route {
    /// Tells whether the route leaves by the device `index`.
    pub fn uses(&self, index: u32) -> bool {
        self.dev == Some(index) || self.hops.iter().any(|hop| hop.dev == Some(index))
    }

    /// Writes the route as `ip route` does; `name` gives the names of devices.
    pub fn shown(&self, name: &dyn Fn(u32) -> Option<String>) -> String {
        let dev = |index: Option<u32>| {
            index.map(|index| format!("dev {}", name(index).unwrap_or_else(|| format!("if{index}"))))
        };
        // A gateway of the other family has its family before it.
        let via = |via: IpAddr| format!("via {}{via}", if via.is_ipv4() == self.dst.is_ipv4() { "" } else { "inet6 " });
        let everything = self.dst.prefix() == 0;
        let hops = self.hops.iter().map(|hop| {
            Some(format!("nexthop {}", join([hop.via.map(via), dev(hop.dev), Some(format!("weight {}", hop.weight))])))
        });
        let words = [
            (self.kind != RouteKind::Unicast).then(|| self.kind.word()),
            Some(if everything { "default".into() } else { self.dst.to_string() }),
            self.via.map(via),
            dev(self.dev),
            self.onlink.then(|| "onlink".into()),
            self.src.map(|src| format!("src {src}")),
            self.metric.map(|metric| format!("metric {metric}")),
            (self.table != super::ip::route::MAIN).then(|| format!("table {}", self.table)),
        ];
        join(words.into_iter().chain(hops))
    }
}

/// Returns the word for a transport protocol, as `ip rule` takes it.
pub fn proto_word(number: u8) -> String {
    match i32::from(number) {
        libc::IPPROTO_TCP => "tcp".into(),
        libc::IPPROTO_UDP => "udp".into(),
        libc::IPPROTO_SCTP => "sctp".into(),
        libc::IPPROTO_ICMP => "icmp".into(),
        libc::IPPROTO_ICMPV6 => "ipv6-icmp".into(),
        other => other.to_string(),
    }
}

/// Writes a range as one number, where it is one.
pub fn range_text<N: PartialEq + std::fmt::Display>((from, to): (N, N)) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

impl RuleKind {
    /// Returns iproute2's word for what becomes of the packets.
    pub fn word(self) -> String {
        match self {
            RuleKind::ToTable => "lookup".into(),
            RuleKind::Blackhole => "blackhole".into(),
            RuleKind::Unreachable => "unreachable".into(),
            RuleKind::Prohibit => "prohibit".into(),
            RuleKind::Other(number) => format!("action {number}"),
        }
    }
}

impl Rule {
    /// Writes the rule as `ip rule` does.
    pub fn shown(&self) -> String {
        join([
            self.from.map(|from| format!("from {from}")),
            self.to.map(|to| format!("to {to}")),
            self.iif.as_ref().map(|dev| format!("iif {dev}")),
            self.oif.as_ref().map(|dev| format!("oif {dev}")),
            self.fwmark.map(|mark| format!("fwmark {mark:#x}")),
            self.proto.map(|proto| format!("ipproto {}", proto_word(proto))),
            self.sport.map(|range| format!("sport {}", range_text(range))),
            self.dport.map(|range| format!("dport {}", range_text(range))),
            self.uid.map(|(from, to)| format!("uidrange {from}-{to}")),
            Some(match self.kind {
                RuleKind::ToTable => format!("table {}", self.table),
                kind => kind.word(),
            }),
            self.suppress_prefixlength.map(|length| format!("suppress_prefixlength {length}")),
            self.priority.map(|priority| format!("priority {priority}")),
        ])
    }
}

fn switch(key: &str, value: Option<bool>) -> Option<String> {
    value.map(|on| format!("{key} {}", u8::from(on)))
}

/// Bridge times go to the kernel, and to `ip`, in hundredths of a second.
fn time(key: &str, ms: Option<u32>) -> Option<String> {
    ms.map(|ms| format!("{key} {}", ms / 10))
}

impl BridgeOptions {
    /// Writes the options as `ip link add … type bridge` takes them.
    pub fn like(&self) -> String {
        join([
            switch("stp_state", self.stp),
            switch("vlan_filtering", self.vlan_filtering),
            self.vlan_default_pvid.map(|vid| format!("vlan_default_pvid {vid}")),
            self.vlan_protocol.map(|protocol| format!("vlan_protocol {}", protocol.word())),
            switch("mcast_snooping", self.mcast_snooping),
            time("forward_delay", self.forward_delay_ms),
            time("hello_time", self.hello_time_ms),
            time("max_age", self.max_age_ms),
            time("ageing_time", self.ageing_time_ms),
            self.priority.map(|priority| format!("priority {priority}")),
        ])
    }
}

impl PortOptions {
    /// Writes the options as `ip link set … type bridge_slave` takes them.
    pub fn like(&self) -> String {
        let on_off =
            |key: &str, value: Option<bool>| value.map(|on| format!("{key} {}", if on { "on" } else { "off" }));
        join([
            on_off("isolated", self.isolated),
            on_off("hairpin", self.hairpin),
            on_off("learning", self.learning),
            on_off("flood", self.flood),
            on_off("mcast_flood", self.mcast_flood),
            on_off("bcast_flood", self.bcast_flood),
            self.cost.map(|cost| format!("cost {cost}")),
            self.priority.map(|priority| format!("priority {priority}")),
            on_off("guard", self.guard),
            on_off("root_block", self.root_block),
            on_off("fastleave", self.fast_leave),
            on_off("neigh_suppress", self.neigh_suppress),
            on_off("proxy_arp", self.proxy_arp),
            on_off("locked", self.locked),
        ])
    }
}
