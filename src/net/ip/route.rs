//! Routes. Like `ip route`.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};
use serde::{Deserialize, Serialize};

use super::addr::family;
use crate::net::netlink::Events;
use crate::net::netlink::rtnl::NEW;
use crate::net::{Error, Netlink, Netns, Request, Result};

/// The table that ordinary routes are in (RT_TABLE_MAIN).
pub const MAIN: u32 = 254;
/// The table of the kernel's own routes to itself (RT_TABLE_LOCAL).
pub const LOCAL: u32 = 255;
/// The protocol of the routes that the kernel makes along with an address (RTPROT_KERNEL).
pub const BY_KERNEL: u8 = 2;

/// The metric that an IPv6 route without one gets (IP6_RT_PRIO_USER in include/uapi/linux/ipv6_route.h).
const METRIC_V6: u32 = 1024;

/// What becomes of packets that take a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// They go to the next hop.
    #[default]
    Unicast,
    /// They are dropped without a word.
    Blackhole,
    /// The sender hears that the host is unreachable.
    Unreachable,
    /// The sender hears that it is forbidden.
    Prohibit,
    /// They are for this host.
    Local,
    /// They are for this host and all others on the link.
    Broadcast,
    /// Another of the kernel's kinds (RTN_… of rtnetlink(7)).
    Other(u8),
}

impl From<RouteKind> for RouteType {
    fn from(kind: RouteKind) -> RouteType {
        match kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
            RouteKind::Local => RouteType::Local,
            RouteKind::Broadcast => RouteType::Broadcast,
            RouteKind::Other(number) => RouteType::from(number),
        }
    }
}

impl From<RouteType> for RouteKind {
    fn from(kind: RouteType) -> RouteKind {
        match kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            RouteType::Local => RouteKind::Local,
            RouteType::Broadcast => RouteKind::Broadcast,
            other => RouteKind::Other(u8::from(other)),
        }
    }
}

/// One of several ways that a route shares its packets out to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The link.
    pub dev: Option<u32>,
    /// Its share, from 1; 0 counts as 1.
    pub weight: u8,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to. The bits behind the prefix must be zero.
    pub dst: IpNetwork,
    /// The gateway; for an IPv4 route it may be an IPv6 address (RFC 5549).
    pub via: Option<IpAddr>,
    /// The link.
    pub dev: Option<u32>,
    /// The metric, the lowest wins. None is 0 for IPv4 and 1024 for IPv6, which the kernel then shows.
    pub metric: Option<u32>,
    /// The table, `MAIN` by default.
    pub table: u32,
    /// The address that packets of this host's own leave with.
    pub src: Option<IpAddr>,
    /// What becomes of the packets.
    pub kind: RouteKind,
    /// Who put it there (RTPROT_… of rtnetlink(7)).
    pub protocol: u8,
    /// Whether the gateway is taken to be on the link even if no address says so.
    pub onlink: bool,
    /// The ways, if there are several; `via` and `dev` are then empty.
    pub hops: Vec<NextHop>,
    /// How far away it is (RT_SCOPE_… of rtnetlink(7)); 0 lets `add` choose as iproute2 does.
    pub scope: u8,
}

impl Route {
    /// Returns a route to `dst` in the main table, with nothing else said, by protocol RTPROT_BOOT as iproute2 has it.
    pub fn new(dst: IpNetwork) -> Route {
        Route {
            dst,
            via: None,
            dev: None,
            metric: None,
            table: MAIN,
            src: None,
            kind: RouteKind::Unicast,
            protocol: u8::from(RouteProtocol::Boot),
            onlink: false,
            hops: Vec::new(),
            scope: 0,
        }
    }

    /// Tells whether the kernel can have only one of the two: they have destination, table and metric in common.
    pub fn takes_the_place_of(&self, other: &Route) -> bool {
        let metric = |route: &Route| route.metric.unwrap_or(if route.dst.is_ipv6() { METRIC_V6 } else { 0 });
        (self.dst, self.table, metric(self)) == (other.dst, other.table, metric(other))
    }

    /// Tells whether `known`, as the kernel has it, is this route.
    pub fn is(&self, known: &Route) -> bool {
        let as_said = |known: Option<u32>, wanted: Option<u32>| wanted.is_none() || known == wanted;
        let hops = |route: &Route| -> Vec<Option<IpAddr>> {
            let mut hops: Vec<_> = route.hops.iter().map(|hop| hop.via).collect();
            hops.sort();
            hops
        };
        self.takes_the_place_of(known)
            && (self.protocol, self.kind, self.via) == (known.protocol, known.kind, known.via)
            && as_said(known.dev, self.dev)
            && (self.src.is_none() || self.src == known.src)
            && hops(self) == hops(known)
    }

    fn message(&self) -> RouteMessage {
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .table_id(self.table)
            .protocol(RouteProtocol::from(self.protocol))
            .kind(self.kind.into());
        if self.onlink && self.hops.is_empty() {
            builder = builder.onlink();
        }
        let mut message = builder.build();
        // What depends on the version of IP is for the kernel to refuse, which says why.
        let header = &mut message.header;
        header.address_family = family(self.dst.ip());
        header.destination_prefix_length = self.dst.prefix();
        let attributes = &mut message.attributes;
        if self.dst.prefix() > 0 {
            attributes.push(RouteAttribute::Destination(self.dst.ip().into()));
        }
        attributes.extend(self.via.map(|via| self.gateway(via)));
        attributes.extend(self.dev.map(RouteAttribute::Oif));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        attributes.extend(self.src.map(|src| RouteAttribute::PrefSource(src.into())));
        if !self.hops.is_empty() {
            attributes.push(RouteAttribute::MultiPath(self.hops.iter().map(|hop| self.hop(hop)).collect()));
        }
        message
    }

    fn gateway(&self, via: IpAddr) -> RouteAttribute {
        if via.is_ipv4() == self.dst.is_ipv4() {
            return RouteAttribute::Gateway(via.into());
        }
        RouteAttribute::Via(via.into())
    }

    fn hop(&self, hop: &NextHop) -> RouteNextHop {
        // The kernel counts from 0 here (fib_get_nhs in net/ipv4/fib_semantics.c).
        let mut builder = RouteNextHopBuilder::new(family(self.dst.ip()))
            .weight(hop.weight.saturating_sub(1))
            .interface(hop.dev.unwrap_or(0));
        if self.onlink {
            builder = builder.onlink();
        }
        let mut message = builder.build();
        message.attributes.extend(hop.via.map(|via| self.gateway(via)));
        message
    }

    /// Returns the scope that iproute2 chooses (iproute_modify in ip/iproute.c).
    fn scope_for_add(&self) -> RouteScope {
        if self.scope != 0 || self.dst.is_ipv6() {
            return RouteScope::from(self.scope);
        }
        match self.kind {
            RouteKind::Local => RouteScope::Host,
            RouteKind::Broadcast => RouteScope::Link,
            RouteKind::Unicast if self.via.is_none() && self.hops.is_empty() => RouteScope::Link,
            _ => RouteScope::Universe,
        }
    }
}

/// Returns the request that adds a route.
///
/// Like `ip route add`. EEXIST if the table has one to the same destination with the same metric, ENETUNREACH ("Nexthop
/// has invalid gateway") if no address of a link that is up covers the gateway, ENODEV if there is no such link,
/// ENETDOWN if it is down, EINVAL if bits behind the prefix are set.
pub fn add_request(route: &Route) -> Request {
    let mut message = route.message();
    message.header.scope = route.scope_for_add();
    Request::new(format!("add route {}", route.dst), RouteNetlinkMessage::NewRoute(message), NEW)
}

/// Sends the request of `add_request`.
#[cfg(test)]
pub(crate) fn add(rtnl: &Netlink, route: &Route) -> Result<()> {
    rtnl.send(add_request(route))
}

/// Deletes the route of this destination, table, metric, kind and protocol through this gateway and link.
///
/// Like `ip route delete`. ESRCH if there is none.
pub fn delete(rtnl: &Netlink, route: &Route) -> Result<()> {
    let doing = format!("delete route {}", route.dst);
    let mut exact = route.clone();
    // To the kernel a metric of 0 means any, and it would take somebody else's route where ours is gone already.
    if route.metric.unwrap_or(0) == 0 {
        match route.dst {
            IpNetwork::V6(_) => exact.metric = Some(METRIC_V6),
            IpNetwork::V4(_) => {
                let here =
                    |known: &Route| known.metric.is_none() && known.dst == route.dst && known.table == route.table;
                if !list_of(rtnl, AddressFamily::Inet)?.iter().any(here) {
                    return Err(Error::new(doing, libc::ESRCH));
                }
            }
        }
    }
    let mut message = exact.message();
    // Any scope: the destination and the metric tell it from others.
    message.header.scope = RouteScope::NoWhere;
    rtnl.change(&doing, RouteNetlinkMessage::DelRoute(message), 0)
}

/// Lists the routes of all tables and both families, without those that the kernel learnt for single hosts (path MTU).
///
/// Like `ip route show table all`.
pub fn list(rtnl: &Netlink) -> Result<Vec<Route>> {
    let mut routes = list_of(rtnl, AddressFamily::Inet)?;
    routes.extend(list_of(rtnl, AddressFamily::Inet6)?);
    Ok(routes)
}

/// Waits until the kernel takes in packets for all of these addresses, on the link `dev` or on any, at most until the deadline.
///
/// An IPv6 address is there at once and works a little later, when a worker of the kernel's has made the route to it
/// (net/ipv6/addrconf.c, addrconf_dad_work); an echo that comes before is lost.
pub async fn wait_local(
    netns: &Netns,
    rtnl: &Netlink,
    ips: &[IpAddr],
    dev: Option<u32>,
    deadline: Duration,
) -> Result<()> {
    /// RTMGRP_IPV6_ROUTE of linux/rtnetlink.h.
    const RTMGRP_IPV6_ROUTE: u32 = 0x400;
    if are_local(rtnl, ips, dev)? {
        return Ok(());
    }
    // One that was taken away since, as by a move of its device, is not waited for.
    let there = super::addr::list(rtnl)?;
    let is_there =
        |ip: &IpAddr| there.iter().any(|address| address.net.ip() == *ip && dev.is_none_or(|dev| address.index == dev));
    let ips: Vec<IpAddr> = ips.iter().copied().filter(is_there).collect();
    // Heard first and looked at then: what is made in between is heard.
    let events = Events::listen(netns, RTMGRP_IPV6_ROUTE)?;
    let listen = async {
        while !are_local(rtnl, &ips, dev)? {
            events.next("wait for addresses to work", |_, _| {}).await?;
        }
        Ok(())
    };
    tokio::time::timeout(deadline, listen).await.unwrap_or(Ok(()))
}

/// Returns the route that packets of the namespace's own to `ip` take; none where the kernel refuses to send them.
///
/// Like `ip route get`.
pub fn get(rtnl: &Netlink, ip: IpAddr) -> Result<Option<Route>> {
    let doing = format!("find the route to {ip}");
    let mut message = RouteMessage::default();
    message.header.address_family = family(ip);
    message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(ip.into()));
    match rtnl.get(&doing, RouteNetlinkMessage::GetRoute(message)) {
        Ok(Some(RouteNetlinkMessage::NewRoute(message))) => read(&doing, message).map(Some),
        Ok(_) => Ok(None),
        // What the kernel says for unreachable, prohibit and blackhole routes, and for none (fib_props of net/ipv4/fib_semantics.c).
        Err(error) if matches!(error.errno(), libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn are_local(rtnl: &Netlink, ips: &[IpAddr], dev: Option<u32>) -> Result<bool> {
    let routes = list_of(rtnl, AddressFamily::Inet6)?;
    let is_local = |ip: &IpAddr| {
        routes.iter().any(|route| {
            route.kind == RouteKind::Local && route.dst.ip() == *ip && dev.is_none_or(|dev| route.uses(dev))
        })
    };
    Ok(ips.iter().all(is_local))
}

fn list_of(rtnl: &Netlink, family: AddressFamily) -> Result<Vec<Route>> {
    let doing = "list routes";
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let mut routes = Vec::new();
    for answer in rtnl.query(doing, RouteNetlinkMessage::GetRoute(message))? {
        match answer {
            RouteNetlinkMessage::NewRoute(message) if !message.header.flags.contains(RouteFlags::Cloned) => {
                routes.push(read(doing, message)?);
            }
            _ => {}
        }
    }
    Ok(routes)
}

/// Reads a route.
pub(in crate::net) fn read(doing: &str, message: RouteMessage) -> Result<Route> {
    let header = &message.header;
    let invalid = |text: String| Error::new(doing, libc::EBADMSG).saying(text);
    let everything: IpAddr = match header.address_family {
        AddressFamily::Inet => [0; 4].into(),
        _ => [0; 16].into(),
    };
    let prefix = header.destination_prefix_length;
    let mut route = Route::new(IpNetwork::new(everything, prefix).map_err(|error| invalid(error.to_string()))?);
    route.table = u32::from(header.table);
    route.kind = header.kind.into();
    route.protocol = u8::from(header.protocol);
    route.scope = u8::from(header.scope);
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                let ip = ip_of(address).unwrap_or(everything);
                route.dst = IpNetwork::new(ip, prefix).map_err(|error| invalid(error.to_string()))?;
            }
            RouteAttribute::Gateway(address) => route.via = ip_of(address),
            RouteAttribute::Via(via) => route.via = ip_of_via(via),
            RouteAttribute::Oif(index) => route.dev = Some(index),
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::PrefSource(address) => route.src = ip_of(address),
            RouteAttribute::MultiPath(hops) => {
                route.onlink |= hops.iter().any(|hop| hop.flags.contains(RouteNextHopFlags::Onlink));
                route.hops = hops.into_iter().map(read_hop).collect();
            }
            _ => {}
        }
    }
    Ok(route)
}

fn read_hop(message: RouteNextHop) -> NextHop {
    let dev = (message.interface_index != 0).then_some(message.interface_index);
    let mut hop = NextHop { via: None, dev, weight: message.hops.saturating_add(1) };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => hop.via = ip_of(address),
            RouteAttribute::Via(via) => hop.via = ip_of_via(via),
            _ => {}
        }
    }
    hop
}

fn ip_of(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn ip_of_via(via: RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some(ip.into()),
        RouteVia::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::addr;
    use super::super::addr::AddrOptions;
    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
    use crate::net::{Change, Netns, link};

    const OURS: u8 = 77;

    fn to(text: &str) -> Route {
        Route { protocol: OURS, ..Route::new(text.parse().expect("a network")) }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    /// a(eth0 10.0.0.1 fd00::1, eth1 10.1.0.1 fd01::1) -- b, all up.
    async fn between_two_links() -> (Netns, Netns, Netlink) {
        let (a, rtnl) = netns_and_rtnl();
        let b = netns();
        let there = Netlink::open(&b).expect("a socket");
        for (no, name) in ["eth0", "eth1"].into_iter().enumerate() {
            let index = 1001 + 2 * no as u32;
            pair(&rtnl, (&a, name, index), (&b, name, index + 1)).await;
            let up = Change { up: Some(true), ..Change::default() };
            link::change(&rtnl, index, &up).expect("up");
            link::change(&there, index + 1, &up).expect("up");
            for text in [format!("10.{no}.0.1/24"), format!("fd0{no}::1/64")] {
                let options = AddrOptions { nodad: true, ..AddrOptions::default() };
                addr::add(&rtnl, index, text.parse().expect("a network"), &options).expect("added");
            }
        }
        (a, b, rtnl)
    }

    async fn ours(rtnl: &Netlink) -> Vec<Route> {
        list(rtnl).expect("routes").into_iter().filter(|route| route.protocol == OURS).collect()
    }

    /// What is added is what is listed, and what `ip` sees; deleted, nothing is left.
    #[test]
    fn routes_come_back_as_they_were_added() {
        block_on(async {
            let (a, _b, rtnl) = between_two_links().await;
            let hop = |via: &str, weight| NextHop { via: ip(via), dev: None, weight };
            let routes = [
                Route { via: ip("10.0.0.9"), ..to("0.0.0.0/0") },
                Route { via: ip("10.0.0.9"), metric: Some(50), src: ip("10.1.0.1"), ..to("10.8.0.0/16") },
                Route { dev: Some(1003), ..to("10.7.0.0/16") },
                Route { via: ip("192.0.2.1"), dev: Some(1001), onlink: true, ..to("10.6.0.0/16") },
                Route { via: ip("fd00::9"), dev: Some(1001), ..to("10.5.0.0/16") },
                Route { via: ip("10.0.0.9"), table: 100, ..to("10.4.0.0/16") },
                Route { via: ip("10.0.0.9"), table: 100_000, ..to("10.4.0.0/16") },
                Route { kind: RouteKind::Blackhole, ..to("10.30.0.0/16") },
                Route { kind: RouteKind::Unreachable, ..to("10.31.0.0/16") },
                Route { kind: RouteKind::Prohibit, metric: Some(7), ..to("10.32.0.0/16") },
                Route { kind: RouteKind::Local, dev: Some(1), table: 255, ..to("10.33.0.0/16") },
                Route { hops: vec![hop("10.0.0.9", 1), hop("10.1.0.9", 3)], ..to("10.34.0.0/16") },
                Route { via: ip("fd00::9"), ..to("::/0") },
                Route { dev: Some(1003), metric: Some(5), ..to("fd77::/64") },
                Route { kind: RouteKind::Unreachable, ..to("fd78::/64") },
                Route { hops: vec![hop("fd00::9", 2), hop("fd01::9", 1)], ..to("fd79::/64") },
            ];
            for route in &routes {
                add(&rtnl, route).unwrap_or_else(|error| panic!("{route:?}: {error}"));
                assert!(add(&rtnl, route).expect_err("twice").is_exists());
            }
            let listed = ours(&rtnl).await;
            assert_eq!(listed.len(), routes.len(), "{listed:#?}");
            for route in &routes {
                let same = |known: &&Route| (known.dst, known.table) == (route.dst, route.table);
                let known = listed.iter().find(same).unwrap_or_else(|| panic!("{route:?} in {listed:#?}"));
                // The kernel adds the link, its default metric and the scope.
                let mut expected = Route { scope: known.scope, dev: route.dev.or(known.dev), ..route.clone() };
                expected.metric = route.metric.or(route.dst.is_ipv6().then_some(METRIC_V6));
                for (hop, known) in expected.hops.iter_mut().zip(&known.hops) {
                    hop.dev = known.dev;
                }
                assert_eq!(known, &expected);
            }
            let seen = judge(&a, "ip -j -d route show table all proto 77").await;
            let of =
                |dst: &str| seen.as_array().and_then(|list| list.iter().find(|route| route["dst"] == dst)).expect(dst);
            assert_eq!((&of("10.7.0.0/16")["scope"], &of("10.8.0.0/16")["metric"]), (&json!("link"), &json!(50)));
            assert_eq!(
                (&of("10.30.0.0/16")["type"], &of("10.33.0.0/16")["scope"]),
                (&json!("blackhole"), &json!("host"))
            );
            let hops = &of("10.34.0.0/16")["nexthops"];
            assert_eq!(
                (&hops[0]["weight"], &hops[1]["weight"], &hops[1]["dev"]),
                (&json!(1), &json!(3), &json!("eth1"))
            );
            assert_eq!(of("10.5.0.0/16")["via"]["host"], "fd00::9");

            for route in &routes {
                delete(&rtnl, route).unwrap_or_else(|error| panic!("{route:?}: {error}"));
                assert!(delete(&rtnl, route).expect_err("gone").is_gone(), "{route:?}");
            }
            assert_eq!(ours(&rtnl).await, []);
        });
    }

    /// A listed route can be added again as it is.
    #[test]
    fn what_is_listed_can_be_put_back() {
        block_on(async {
            let (_a, _b, rtnl) = between_two_links().await;
            for route in [
                Route { via: ip("10.0.0.9"), ..to("10.8.0.0/16") },
                Route { dev: Some(1003), ..to("10.7.0.0/16") },
                Route { kind: RouteKind::Blackhole, ..to("10.30.0.0/16") },
                Route { via: ip("fd00::9"), ..to("fd77::/64") },
            ] {
                add(&rtnl, &route).expect("added");
                let listed = ours(&rtnl).await;
                delete(&rtnl, &listed[0]).expect("deleted");
                add(&rtnl, &listed[0]).expect("added again");
                assert_eq!(ours(&rtnl).await, listed);
                delete(&rtnl, &listed[0]).expect("deleted");
            }
        });
    }

    #[test]
    fn only_the_very_route_is_deleted() {
        block_on(async {
            let (_a, _b, rtnl) = between_two_links().await;
            for family in ["10.8.0.0/16", "fd77::/64"] {
                let with = |metric, dev| Route { metric, dev: Some(dev), ..to(family) };
                let theirs = with(Some(100), 1001);
                add(&rtnl, &theirs).expect("added");
                for other in [with(None, 1001), with(Some(99), 1001), with(Some(100), 1003)] {
                    assert!(delete(&rtnl, &other).expect_err("not there").is_gone(), "{other:?}");
                }
                let not_ours = Route { protocol: 76, ..theirs.clone() };
                assert!(delete(&rtnl, &not_ours).expect_err("not there").is_gone());
                assert_eq!(ours(&rtnl).await.len(), 1);
                delete(&rtnl, &theirs).expect("deleted");
            }
        });
    }

    #[test]
    fn what_the_kernel_refuses() {
        block_on(async {
            let (_a, _b, rtnl) = between_two_links().await;
            let no_way = Route { via: ip("192.0.2.1"), ..to("10.8.0.0/16") };
            let error = add(&rtnl, &no_way).expect_err("no such gateway");
            assert_eq!((error.to_string().as_str(), error.errno()), ("Nexthop has invalid gateway", libc::ENETUNREACH));
            let no_link = Route { dev: Some(4711), ..to("10.8.0.0/16") };
            assert!(add(&rtnl, &no_link).expect_err("no such link").is_gone());
            let host_bits = Route { dev: Some(1001), ..to("10.8.0.1/16") };
            assert_eq!(add(&rtnl, &host_bits).expect_err("bits").errno(), libc::EINVAL);
            link::change(&rtnl, 1001, &Change { up: Some(false), ..Change::default() }).expect("down");
            let down = Route { dev: Some(1001), ..to("10.8.0.0/16") };
            assert_eq!(add(&rtnl, &down).expect_err("down").errno(), libc::ENETDOWN);
        });
    }
}
