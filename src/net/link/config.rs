//! The configuration of a link: addresses, routes and fixed neighbours, kept word for word as the kernel tells them. So another link
//! can have them for a while, and the first one gets them back as they were.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::net::ip::{addr, neigh, route};
use crate::net::netlink::rtnl::NEW;
use crate::net::netlink::{self, rtnl};
use crate::net::{Address, Error, Link, Neigh, Netlink, Netns, Result, Route};

/// The lifetime that never ends (INFINITY_LIFE_TIME in include/net/addrconf.h).
const FOREVER: u32 = u32::MAX;
/// How many of a route's units of time are a second (USER_HZ).
const USER_HZ: u32 = 100;

/// All that a link has and that it would not get again by itself: every address but the link-local one that the kernel
/// makes, every route but those that come with an address, permanent neighbours and proxy entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct LinkConfig {
    index: u32,
    name: String,
    /// When it was read, in seconds since boot: lifetimes run.
    read_at: i64,
    /// In the order in which they are listed when they were added in this order.
    addresses: Vec<AddressMessage>,
    neighbours: Vec<NeighbourMessage>,
    /// Those that a gateway of another one may need come first.
    routes: Vec<RouteMessage>,
}

impl LinkConfig {
    /// Reads what `link` has. EOPNOTSUPP for a route over a next hop object (`ip nexthop`), which belongs to one link.
    ///
    /// Like `ip address show dev LINK`, `ip route show table all dev LINK` and `ip neighbour show nud permanent dev LINK`.
    pub fn of(rtnl: &Netlink, link: &Link) -> Result<LinkConfig> {
        let doing = "read the configuration of a link";
        let index = link.index;
        let (mut addresses, mut newest_first) = (Vec::new(), Vec::new());
        for address in addresses_of(rtnl, index)? {
            match address.header.family {
                AddressFamily::Inet => addresses.push(address),
                // The kernel puts each before those of its scope (ipv6_link_dev_addr in net/ipv6/addrconf.c).
                AddressFamily::Inet6 if !comes_by_itself(&address, link) => newest_first.push(address),
                _ => {}
            }
        }
        addresses.extend(newest_first.into_iter().rev());
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            for answer in rtnl.query(doing, RouteNetlinkMessage::GetRoute(message))? {
                let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
                if is_kept(&route, index) {
                    routes.push(route);
                }
            }
        }
        if routes.iter().any(|route| has(route, |attribute| matches!(attribute, RouteAttribute::NhId(_)))) {
            let text = format!("a route over `{}` uses a next hop object, which stays with it", link.name);
            return Err(Error::new(doing, libc::EOPNOTSUPP).saying(text));
        }
        routes.sort_by_key(has_gateway);
        let mut neighbours = Vec::new();
        for flags in [NeighbourFlags::empty(), NeighbourFlags::Proxy] {
            let mut message = NeighbourMessage::default();
            message.header.flags = flags;
            for answer in rtnl.query(doing, RouteNetlinkMessage::GetNeighbour(message))? {
                let RouteNetlinkMessage::NewNeighbour(message) = answer else { continue };
                let fixed = message.header.state == NeighbourState::Permanent || flags == NeighbourFlags::Proxy;
                let ip = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
                if message.header.ifindex == index && fixed && ip {
                    neighbours.push(message);
                }
            }
        }
        Ok(LinkConfig { index, name: link.name.clone(), read_at: uptime()?, addresses, neighbours, routes })
    }

    /// Leaves of the routes and neighbours those that bear the protocol number given: what a daemon has put there is its own to put
    /// back.
    pub fn of_protocol(mut self, protocol: u8) -> LinkConfig {
        self.routes.retain(|route| u8::from(route.header.protocol) == protocol);
        let ours = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::Protocol(by) if u8::from(*by) == protocol);
        self.neighbours.retain(|neighbour| neighbour.attributes.iter().any(ours));
        self
    }

    /// Returns the addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.addresses
            .iter()
            .filter_map(|address| addr::read("read an address", address.clone()).ok().flatten())
            .collect()
    }

    /// Returns the routes, with those that the kernel made along with the addresses.
    pub fn routes(&self) -> Vec<Route> {
        self.routes.iter().filter_map(|route| route::read("read a route", route.clone()).ok()).collect()
    }

    /// Returns the fixed neighbours.
    pub fn neighbours(&self) -> Vec<Neigh> {
        let messages = self.neighbours.iter().cloned().map(RouteNetlinkMessage::NewNeighbour);
        messages.filter_map(neigh::read).collect()
    }

    /// Gives all of it to the link `to` too, in its order; what it has already stays as it is. `twin` is a link that may
    /// have had it since, on which the kernel may have made an address last longer.
    ///
    /// What can't be added doesn't keep the rest off; the first refusal is returned. What has run out meanwhile is left out.
    pub fn put_on(&self, rtnl: &Netlink, to: &Link, twin: Option<u32>) -> Result<()> {
        let passed = uptime()?.saturating_sub(self.read_at).max(0);
        let passed = u32::try_from(passed).unwrap_or(FOREVER);
        let here = addresses_of(rtnl, to.index)?;
        let there = match twin {
            Some(twin) => addresses_of(rtnl, twin)?,
            None => Vec::new(),
        };
        let find = |list: &[AddressMessage], address| list.iter().find(|other| are_same(address, other)).cloned();
        let mut due: Vec<Due<'_>> = self
            .addresses
            .iter()
            .map(|address| {
                let here = find(&here, address);
                let life = match here.clone().or_else(|| find(&there, address)) {
                    Some(now) => lifetimes(&now),
                    None => lifetimes(address).map(|life| aged(life, passed)),
                };
                Due { address, here, life }
            })
            .collect();
        due.retain(|due| due.life.is_none_or(|life| life.ifa_valid > 0));
        let mut first = Ok(());
        // Of those of one IPv4 network the first is the one that packets leave with. Where one was refused before, those that
        // came after it make way for it.
        let is_v4 = |due: &Due<'_>| due.address.header.family == AddressFamily::Inet;
        let missing = due.iter().position(|due| is_v4(due) && due.here.is_none()).unwrap_or(due.len());
        for due in due[missing..].iter_mut().rev().filter(|due| is_v4(due)) {
            if due.here.take().is_some() {
                first = first.and(delete_address(rtnl, due.address, to.index));
            }
        }
        for due in &due {
            first = first.and(self.put_address(rtnl, due, to));
        }
        for neighbour in &self.neighbours {
            let message = RouteNetlinkMessage::NewNeighbour(neighbour_for(neighbour, to.index));
            let doing = format!("add a neighbour to link {}", to.index);
            // It may be known by itself there already, but not as a fixed one.
            first = first.and(rtnl.change(&doing, message, NLM_F_CREATE | NLM_F_REPLACE));
        }
        let mut added = Vec::new();
        for route in &self.routes {
            first = first.and(self.put_route(rtnl, route, to.index, passed, &mut added));
        }
        first
    }

    /// Waits until its IPv6 addresses work on the link `on`, as they do a moment after they were put there.
    pub async fn wait_working(&self, netns: &Netns, rtnl: &Netlink, on: &Link) -> Result<()> {
        /// Far longer than the kernel's worker takes.
        const WORKER: Duration = Duration::from_secs(2);
        let addresses = self.addresses();
        let ips: Vec<IpAddr> = addresses.iter().map(|address| address.net.ip()).filter(IpAddr::is_ipv6).collect();
        route::wait_local(netns, rtnl, &ips, Some(on.index), WORKER).await
    }

    /// Adds a route; `added` are those that were added before, and that it must stand behind.
    fn put_route(
        &self,
        rtnl: &Netlink,
        route: &RouteMessage,
        to: u32,
        passed: u32,
        added: &mut Vec<Route>,
    ) -> Result<()> {
        let Some(message) = self.route_for(route, to, Some(passed)) else { return Ok(()) };
        let doing = format!("add a route over link {to}");
        if to == self.index && self.has_hops_elsewhere(route) {
            // All at once, so that the hops stand in their order.
            let mut whole = message.clone();
            set_hops(&mut whole, hops_of(route).cloned().map(as_asked).collect());
            let how = NLM_F_CREATE | NLM_F_REPLACE;
            match rtnl.change(&doing, RouteNetlinkMessage::NewRoute(whole), how) {
                // Over a link that is gone; ours then goes to the end.
                Err(error) if error.is_gone() || error.errno() == libc::ENETDOWN => {}
                done => return done,
            }
        }
        let known = route::read(&doing, route.clone())?;
        // Beside one to the same destination over the other link; the very same one is EEXIST.
        let append = || {
            let new = RouteNetlinkMessage::NewRoute(message.clone());
            rtnl.change(&doing, new, NLM_F_CREATE | NLM_F_APPEND)
        };
        match append() {
            Ok(()) => added.push(known),
            Err(error) if !error.is_exists() => return Err(error),
            // Of those to one destination the first one counts: where one was refused before, this one goes behind it.
            Err(_) if added.iter().any(|other| known.takes_the_place_of(other)) => {
                let old = RouteNetlinkMessage::DelRoute(message.clone());
                rtnl.change(&doing, old, 0)?;
                append()?;
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Tells whether an IPv6 route, of which each hop is a route to the kernel, has some over other links.
    fn has_hops_elsewhere(&self, route: &RouteMessage) -> bool {
        route.header.address_family == AddressFamily::Inet6
            && hops_of(route).any(|hop| hop.interface_index != self.index)
    }

    /// Adds an address to `to`, or gives the one that is there its own flags.
    fn put_address(&self, rtnl: &Netlink, due: &Due<'_>, to: &Link) -> Result<()> {
        let Due { address, here, life } = due;
        let home = to.index == self.index;
        let mut flags = flags_of(address) & settable();
        if !home {
            // Privacy addresses of its own are made by the first link alone.
            flags -= AddressFlags::Managetempaddr;
        }
        let v6 = address.header.family == AddressFamily::Inet6;
        let doing = format!("add an address to link {}", to.index);
        let send = |flags, how| {
            let message = self.address_for(address, to, flags, *life);
            rtnl.change(&doing, RouteNetlinkMessage::NewAddress(message), how)
        };
        let now = match here {
            Some(here) => flags_of(here),
            // At once, without finding out who else has it: nobody had.
            None => {
                let at_once = if v6 { flags | AddressFlags::Nodad } else { flags };
                send(at_once, NEW)?;
                at_once
            }
        };
        if v6 && home && now & settable() != flags { send(flags, NLM_F_REPLACE) } else { Ok(()) }
    }

    /// Takes all of it from the link `from`; what that doesn't have (any more) is no matter.
    ///
    /// What can't be taken doesn't keep the rest on; the first refusal is returned.
    pub fn take_off(&self, rtnl: &Netlink, from: &Link) -> Result<()> {
        let mut first = Ok(());
        let tolerant = |done: Result<()>| match done {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        };
        for route in self.routes.iter().rev() {
            let Some(message) = self.route_for(route, from.index, None) else { continue };
            let doing = format!("delete a route over link {}", from.index);
            first = first.and(tolerant(rtnl.change(&doing, RouteNetlinkMessage::DelRoute(message), 0)));
        }
        for neighbour in &self.neighbours {
            let message = RouteNetlinkMessage::DelNeighbour(neighbour_for(neighbour, from.index));
            let doing = format!("delete a neighbour of link {}", from.index);
            first = first.and(tolerant(rtnl.change(&doing, message, 0)));
        }
        // The last one first: with the first of an IPv4 network the kernel deletes the others (__inet_del_ifa).
        for address in self.addresses.iter().rev() {
            first = first.and(tolerant(delete_address(rtnl, address, from.index)));
        }
        first
    }

    fn address_for(
        &self,
        address: &AddressMessage,
        to: &Link,
        flags: AddressFlags,
        life: Option<CacheInfo>,
    ) -> AddressMessage {
        let mut message = address.clone();
        message.header.index = to.index;
        message.header.flags = AddressHeaderFlags::from_bits_truncate(flags.bits() as u8);
        message.attributes.retain_mut(|attribute| match attribute {
            AddressAttribute::Flags(all) => {
                *all = flags;
                true
            }
            AddressAttribute::Label(label) => {
                *label = self.label_for(label, &to.name);
                true
            }
            AddressAttribute::CacheInfo(_) => false,
            _ => true,
        });
        message.attributes.extend(life.map(AddressAttribute::CacheInfo));
        message
    }

    /// Returns the label that stands for `label` on the link `to`: `eth0:1` is `br0:1` there.
    fn label_for(&self, label: &str, to: &str) -> String {
        /// IFNAMSIZ less its NUL.
        const LABEL_MAX: usize = 15;
        let rest = label.strip_prefix(&self.name).filter(|rest| rest.is_empty() || rest.starts_with(':'));
        match rest {
            Some(rest) if to.len() + rest.len() <= LABEL_MAX => format!("{to}{rest}"),
            Some(_) => to.to_string(),
            None => label.to_string(),
        }
    }

    /// Returns a route as it is over the link `to`, after the seconds `passed` if they matter; none if it has run out.
    fn route_for(&self, route: &RouteMessage, to: u32, passed: Option<u32>) -> Option<RouteMessage> {
        let mut message = route.clone();
        // The rest is what the kernel finds out by itself.
        message.header.flags &= RouteFlags::Onlink | RouteFlags::Pervasive;
        if self.has_hops_elsewhere(route) {
            let ours = hops_of(route).filter(|hop| hop.interface_index == self.index);
            set_hops(&mut message, ours.cloned().collect());
        }
        let mut expires = None;
        message.attributes.retain_mut(|attribute| match attribute {
            RouteAttribute::Oif(index) => {
                *index = to;
                true
            }
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    *hop = as_asked(hop.clone());
                    if hop.interface_index == self.index {
                        hop.interface_index = to;
                    }
                }
                true
            }
            RouteAttribute::CacheInfo(info) => {
                expires = (info.expires != 0).then_some(info.expires.cast_signed() / USER_HZ.cast_signed());
                false
            }
            RouteAttribute::Uid(_) | RouteAttribute::MfcStats(_) => false,
            _ => true,
        });
        if let (Some(seconds), Some(passed)) = (expires, passed) {
            let left = u32::try_from(seconds).unwrap_or(0).saturating_sub(passed);
            if left == 0 {
                return None;
            }
            message.attributes.push(RouteAttribute::Expires(left));
        }
        Some(message)
    }
}

/// An address that is to be put on a link: as it is there already, and how long it is to last, if not for ever.
struct Due<'a> {
    address: &'a AddressMessage,
    here: Option<AddressMessage>,
    life: Option<CacheInfo>,
}

fn delete_address(rtnl: &Netlink, address: &AddressMessage, from: u32) -> Result<()> {
    let mut message = address.clone();
    message.header.index = from;
    let tells_it =
        |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(_) | AddressAttribute::Address(_));
    message.attributes.retain(tells_it);
    rtnl.change(&format!("delete an address of link {from}"), RouteNetlinkMessage::DelAddress(message), 0)
}

/// The flags that whoever adds an address may set (inet6_rtm_newaddr in net/ipv6/addrconf.c); the others are the kernel's.
fn settable() -> AddressFlags {
    AddressFlags::Nodad
        | AddressFlags::Homeaddress
        | AddressFlags::Managetempaddr
        | AddressFlags::Noprefixroute
        | AddressFlags::Mcautojoin
}

fn flags_of(address: &AddressMessage) -> AddressFlags {
    let all = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    all.unwrap_or(AddressFlags::from_bits_retain(u32::from(address.header.flags.bits())))
}

/// Returns how long an address still lasts; none if for ever.
fn lifetimes(address: &AddressMessage) -> Option<CacheInfo> {
    let found = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::CacheInfo(info) => Some(*info),
        _ => None,
    });
    found.filter(|life| (life.ifa_valid, life.ifa_preferred) != (FOREVER, FOREVER))
}

fn aged(mut life: CacheInfo, passed: u32) -> CacheInfo {
    for left in [&mut life.ifa_valid, &mut life.ifa_preferred] {
        if *left != FOREVER {
            *left = left.saturating_sub(passed);
        }
    }
    life
}

/// Tells whether two addresses are one to the kernel, whatever link they are on.
fn are_same(one: &AddressMessage, other: &AddressMessage) -> bool {
    let told_by = |message: &AddressMessage| {
        let ip = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
        let local = ip(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
        let peer = ip(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
        (message.header.prefix_len, local.or(peer), peer)
    };
    told_by(one) == told_by(other)
}

/// Tells whether the kernel makes an IPv6 address by itself wherever the link is, or has found that somebody else has it.
fn comes_by_itself(address: &AddressMessage, link: &Link) -> bool {
    /// IFAPROT_KERNEL_LL of linux/if_addr.h, since Linux 5.18; before, one that does not follow from the MAC is kept too.
    const LINK_LOCAL: u8 = 3;
    let by_kernel = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Protocol(by) if *by == AddressProtocol::from(LINK_LOCAL));
    let of_mac = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(ip) => link.mac.is_some_and(|mac| *ip == IpAddr::V6(mac.link_local())),
        _ => false,
    };
    address.attributes.iter().any(|attribute| by_kernel(attribute) || of_mac(attribute))
        || flags_of(address).contains(AddressFlags::Dadfailed)
}

fn has(route: &RouteMessage, wanted: impl FnMut(&RouteAttribute) -> bool) -> bool {
    route.attributes.iter().any(wanted)
}

/// Tells whether a route goes over the link and is not one that every address, or every link, has in the table of its own.
fn is_kept(message: &RouteMessage, index: u32) -> bool {
    let Ok(known) = route::read("read a route", message.clone()) else { return false };
    let by_kernel = known.protocol == route::BY_KERNEL;
    let link_local = matches!(known.dst.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    let own = known.table == route::LOCAL || link_local || message.header.kind == RouteType::Multicast;
    known.uses(index) && !message.header.flags.contains(RouteFlags::Cloned) && !(by_kernel && own)
}

fn has_gateway(route: &RouteMessage) -> bool {
    has(route, |attribute| {
        matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_))
    })
}

fn hops_of(route: &RouteMessage) -> impl Iterator<Item = &RouteNextHop> {
    let hops = route.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    hops.flatten()
}

fn set_hops(route: &mut RouteMessage, new: Vec<RouteNextHop>) {
    for attribute in &mut route.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            *hops = new.clone();
        }
    }
}

/// Returns a hop without what the kernel finds out by itself.
fn as_asked(mut hop: RouteNextHop) -> RouteNextHop {
    hop.flags &= RouteNextHopFlags::Onlink | RouteNextHopFlags::Pervasive;
    hop
}

fn neighbour_for(neighbour: &NeighbourMessage, to: u32) -> NeighbourMessage {
    let mut message = neighbour.clone();
    message.header.ifindex = to;
    message
        .attributes
        .retain(|attribute| !matches!(attribute, NeighbourAttribute::CacheInfo(_) | NeighbourAttribute::Probes(_)));
    message
}

fn addresses_of(rtnl: &Netlink, index: u32) -> Result<Vec<AddressMessage>> {
    let all = rtnl.query("list addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let here = all.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(address) if address.header.index == index => Some(address),
        _ => None,
    });
    Ok(here.collect())
}

/// Returns the seconds since boot (proc_uptime(5)).
fn uptime() -> Result<i64> {
    let doing = "read `/proc/uptime`";
    let text = fs::read_to_string("/proc/uptime").map_err(|error| Error::io(doing, error))?;
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    seconds.ok_or_else(|| Error::new(doing, libc::EBADMSG))
}

/// A configuration as a journal has it: netlink messages with their headers, in hexadecimal digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    index: u32,
    name: String,
    read_at: i64,
    messages: Vec<String>,
}

impl From<LinkConfig> for Stored {
    fn from(config: LinkConfig) -> Stored {
        let addresses = config.addresses.into_iter().map(RouteNetlinkMessage::NewAddress);
        let neighbours = config.neighbours.into_iter().map(RouteNetlinkMessage::NewNeighbour);
        let routes = config.routes.into_iter().map(RouteNetlinkMessage::NewRoute);
        let messages = addresses.chain(neighbours).chain(routes).map(digits).collect();
        Stored { index: config.index, name: config.name, read_at: config.read_at, messages }
    }
}

impl TryFrom<Stored> for LinkConfig {
    type Error = String;

    fn try_from(stored: Stored) -> std::result::Result<LinkConfig, String> {
        let Stored { index, name, read_at, messages } = stored;
        let mut config =
            LinkConfig { index, name, read_at, addresses: Vec::new(), neighbours: Vec::new(), routes: Vec::new() };
        for text in messages {
            match message(&text) {
                Some(RouteNetlinkMessage::NewAddress(address)) => config.addresses.push(address),
                Some(RouteNetlinkMessage::NewNeighbour(neighbour)) => config.neighbours.push(neighbour),
                Some(RouteNetlinkMessage::NewRoute(route)) => config.routes.push(route),
                _ => return Err(format!("`{text}` is no message of an address, a neighbour or a route")),
            }
        }
        Ok(config)
    }
}

fn digits(message: RouteNetlinkMessage) -> String {
    rtnl::written(&message, 0).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn message(digits: &str) -> Option<RouteNetlinkMessage> {
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    let message = netlink::messages_in(&bytes).next()?;
    rtnl::read(message.kind, message.body).ok()
}

#[cfg(test)]
mod tests;
