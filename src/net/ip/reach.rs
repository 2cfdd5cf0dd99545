//! Which address of one namespace another one can go to.

use std::net::IpAddr;

use super::addr;
use super::route::{self, RouteKind};
use crate::net::{Netlink, Result};

/// Returns the address of `to` that `from` has the nearest way to: on the same link before behind a router, IPv4 before IPv6, the
/// first given before later ones. None if it has none, or `from` has no route.
pub fn address_of(to: &Netlink, from: &Netlink, v6: Option<bool>) -> Result<Option<IpAddr>> {
    let mut near = Vec::new();
    for address in addr::list(to)? {
        let ip = address.net.ip();
        if address.scope != "global" || ip.is_loopback() || v6.is_some_and(|v6| v6 != ip.is_ipv6()) {
            continue;
        }
        // One that `from` has too leads to itself.
        if let Some(route) = route::get(from, ip)?.filter(|route| route.kind == RouteKind::Unicast) {
            near.push((route.via.is_some(), ip.is_ipv6(), ip));
        }
    }
    // The sort is stable.
    near.sort_by_key(|(behind, v6, _)| (*behind, *v6));
    Ok(near.first().map(|(_, _, ip)| *ip))
}
