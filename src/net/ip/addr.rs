//! Addresses. Like `ip address`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::AddressMessageBuilder;
use serde::Serialize;

use crate::net::netlink::rtnl::NEW;
use crate::net::{Error, Mac, Netlink, Request, Result};

/// Who gives a link its link-local address: the kernel (IFAPROT_KERNEL_LL of linux/if_addr.h).
pub const BY_KERNEL: u8 = 3;

/// An address of a link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address and the length of its network's prefix.
    pub net: IpNetwork,
    /// The address of the other end, if it was given one.
    pub peer: Option<IpAddr>,
    /// "global", "link", "host" or "site", or a number.
    pub scope: String,
    /// Who put it there (IFA_PROTO); 0 if nobody said, and always before Linux 5.18.
    pub protocol: u8,
    /// Whether it stays until it is deleted.
    pub permanent: bool,
    /// Whether the kernel is still finding out if somebody else has it (RFC 4862, 5.4).
    pub tentative: bool,
    /// The label of an IPv4 address, the link's name by default.
    pub label: Option<String>,
}

impl Address {
    /// Tells whether this is the link-local address that every link gets by itself; `mac` is the link's.
    pub fn is_automatic(&self, mac: Option<Mac>) -> bool {
        let IpAddr::V6(ip) = self.net.ip() else { return false };
        // A kernel before Linux 5.18 doesn't say that it gave the address.
        let by_mac = || mac.is_some_and(|mac| mac.link_local() == ip);
        ip.is_unicast_link_local() && (self.protocol == BY_KERNEL || by_mac())
    }
}

/// What may be said about a new address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddrOptions {
    /// Who puts it there (IFA_PROTO); 0 for nobody in particular.
    pub protocol: u8,
    /// Whether an IPv6 address is used at once, without finding out if somebody else has it.
    pub nodad: bool,
    /// The address of the other end of a point-to-point link.
    pub peer: Option<IpAddr>,
}

/// Adds an address. An IPv4 one gets its network's broadcast address, unless it has a peer or its prefix is 31 or 32
/// long (RFC 3021).
///
/// Like `ip address add NET broadcast + dev LINK`. EEXIST if the link has it, ENODEV if there is no such link, EACCES
/// ("IPv6 is disabled on this device") for IPv6 where it is switched off.
pub fn add(rtnl: &Netlink, index: u32, net: IpNetwork, options: &AddrOptions) -> Result<()> {
    rtnl.send(add_request(index, net, options))
}

/// Returns the request of `add`.
pub fn add_request(index: u32, net: IpNetwork, options: &AddrOptions) -> Request {
    let mut message = message(index, net, options.peer);
    if net.ip().is_ipv4() && net.ip().is_loopback() {
        message.header.scope = AddressScope::Host;
    }
    if options.nodad {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    if options.protocol != 0 {
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(options.protocol)));
    }
    Request::new(format!("add address {net} to link {index}"), RouteNetlinkMessage::NewAddress(message), NEW)
}

/// Deletes an address. With the first one of an IPv4 network the kernel also deletes the others of that network, unless
/// net.ipv4.conf.*.promote_secondaries is 1.
///
/// Like `ip address delete NET dev LINK`. EADDRNOTAVAIL if the link does not have it.
pub fn delete(rtnl: &Netlink, index: u32, net: IpNetwork) -> Result<()> {
    match delete_with_peer(rtnl, index, net, None) {
        Err(error) if error.errno() == libc::EADDRNOTAVAIL => {
            // The kernel compares the peer's address too, which the caller need not know.
            let addresses = list(rtnl)?;
            let known = addresses.iter().find(|address| address.index == index && address.net == net);
            match known.and_then(|address| address.peer) {
                peer @ Some(_) => delete_with_peer(rtnl, index, net, peer),
                None => Err(error),
            }
        }
        deleted => deleted,
    }
}

fn delete_with_peer(rtnl: &Netlink, index: u32, net: IpNetwork, peer: Option<IpAddr>) -> Result<()> {
    let doing = format!("delete address {net} of link {index}");
    rtnl.change(&doing, RouteNetlinkMessage::DelAddress(message(index, net, peer)), 0)
}

fn message(index: u32, net: IpNetwork, peer: Option<IpAddr>) -> AddressMessage {
    let mut message = match net {
        IpNetwork::V4(net) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.ip(), net.prefix()).build()
        }
        IpNetwork::V6(net) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.ip(), net.prefix()).build()
        }
    };
    if let Some(peer) = peer {
        // The builder knows of no other end, and a link that has one has no broadcast address.
        message.attributes = vec![AddressAttribute::Local(net.ip()), AddressAttribute::Address(peer)];
    }
    message
}

/// Returns the family of an address.
pub(in crate::net) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Lists all addresses of the namespace, by link.
///
/// Like `ip address show`.
pub fn list(rtnl: &Netlink) -> Result<Vec<Address>> {
    let doing = "list addresses";
    let answers = rtnl.query(doing, RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut addresses = Vec::new();
    for answer in answers {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            addresses.extend(read(doing, message)?);
        }
    }
    addresses.sort_by_key(|address| address.index);
    Ok(addresses)
}

/// Reads an address; one that names no IP address is none.
pub(in crate::net) fn read(doing: &str, message: AddressMessage) -> Result<Option<Address>> {
    let (mut local, mut other, mut label, mut protocol) = (None, None, None, 0);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => other = Some(ip),
            AddressAttribute::Label(name) => label = Some(name),
            AddressAttribute::Protocol(by) => protocol = u8::from(by),
            // All 32 of them; the header has room for the first eight.
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    // IPv6 says where it is only if there is a peer.
    let Some(ip) = local.or(other) else { return Ok(None) };
    let net = IpNetwork::new(ip, message.header.prefix_len)
        .map_err(|error| Error::new(doing, libc::EBADMSG).saying(error.to_string()))?;
    Ok(Some(Address {
        index: message.header.index,
        net,
        peer: other.filter(|other| *other != ip),
        scope: scope_name(message.header.scope),
        protocol,
        permanent: flags.contains(AddressFlags::Permanent),
        tentative: flags.contains(AddressFlags::Tentative),
        label,
    }))
}

fn scope_name(scope: AddressScope) -> String {
    match scope {
        // As iproute2 has it in /etc/iproute2/rt_scopes.
        AddressScope::Universe => "global".to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
    use crate::net::{Change, link};

    fn net(text: &str) -> IpNetwork {
        text.parse().expect("a network")
    }

    #[test]
    fn an_ipv4_address_has_its_broadcast() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            let ours = AddrOptions { protocol: 77, ..AddrOptions::default() };
            for (text, broadcast) in [
                ("10.1.0.1/24", json!("10.1.0.255")),
                ("10.2.0.0/31", json!(null)),
                ("10.3.0.1/32", json!(null)),
                ("10.4.0.1/30", json!("10.4.0.3")),
            ] {
                add(&rtnl, 1001, net(text), &ours).expect(text);
                let seen = judge(&a, "ip -j address show dev eth0").await;
                let last = seen[0]["addr_info"].as_array().and_then(|list| list.last()).expect("an address").clone();
                assert_eq!(
                    (&last["broadcast"], &last["scope"], &last["label"]),
                    (&broadcast, &json!("global"), &json!("eth0"))
                );
                assert!(add(&rtnl, 1001, net(text), &ours).expect_err("twice").is_exists());
            }
            let listed = list(&rtnl).expect("addresses");
            let first = listed.iter().find(|address| address.index == 1001).expect("an address");
            assert_eq!((first.net, first.scope.as_str(), first.protocol), (net("10.1.0.1/24"), "global", 77));
            assert_eq!((first.permanent, first.tentative, first.label.as_deref()), (true, false, Some("eth0")));
            delete(&rtnl, 1001, net("10.1.0.1/24")).expect("deleted");
            let error = delete(&rtnl, 1001, net("10.1.0.1/24")).expect_err("gone");
            assert!(error.is_gone() && error.doing() == "delete address 10.1.0.1/24 of link 1001", "{error:?}");
        });
    }

    #[test]
    fn an_ipv6_address_is_used_at_once_without_dad() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            for (netns, index) in [(&a, 1001), (&b, 1002)] {
                let rtnl = Netlink::open(netns).expect("a socket");
                link::change(&rtnl, index, &Change { up: Some(true), ..Change::default() }).expect("up");
            }
            let at_once = AddrOptions { nodad: true, protocol: 77, ..AddrOptions::default() };
            add(&rtnl, 1001, net("fd00::1/64"), &at_once).expect("added");
            add(&rtnl, 1001, net("fd00::2/64"), &AddrOptions::default()).expect("added");
            let listed = list(&rtnl).expect("addresses");
            let of = |text| listed.iter().find(|address| address.net == net(text)).expect(text);
            assert_eq!((of("fd00::1/64").tentative, of("fd00::1/64").protocol), (false, 77));
            assert!(of("fd00::2/64").tentative);
            let seen = judge(&a, "ip -j -6 address show dev eth0").await;
            let mut infos = seen[0]["addr_info"].as_array().expect("addresses").iter();
            let info = infos.find(|info| info["local"] == "fd00::1").expect("fd00::1");
            assert_eq!((&info["nodad"], &info["scope"]), (&json!(true), &json!("global")));
            delete(&rtnl, 1001, net("fd00::1/64")).expect("deleted");
            assert!(delete(&rtnl, 1001, net("fd00::1/64")).expect_err("gone").is_gone());
        });
    }

    #[test]
    fn one_with_a_peer_is_deleted_without_naming_it() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            for (text, peer) in [("10.0.0.1/32", "10.9.9.9"), ("fd00::1/128", "fd09::9")] {
                let peer = Some(peer.parse().expect("an address"));
                add(&rtnl, 1001, net(text), &AddrOptions { peer, ..AddrOptions::default() }).expect(text);
                let listed = list(&rtnl).expect("addresses");
                let known = listed.iter().find(|address| address.net == net(text)).expect(text);
                assert_eq!(known.peer, peer);
                delete(&rtnl, 1001, net(text)).expect(text);
                assert!(!list(&rtnl).expect("addresses").iter().any(|address| address.net == net(text)));
            }
        });
    }

    #[test]
    fn of_two_prefixes_the_named_one_goes() {
        block_on(async {
            let (_netns, rtnl) = netns_and_rtnl();
            for text in ["10.0.0.1/24", "10.0.0.1/16"] {
                add(&rtnl, 1, net(text), &AddrOptions::default()).expect(text);
            }
            delete(&rtnl, 1, net("10.0.0.1/16")).expect("deleted");
            let left: Vec<IpNetwork> = list(&rtnl).expect("addresses").iter().map(|address| address.net).collect();
            assert!(left.contains(&net("10.0.0.1/24")) && !left.contains(&net("10.0.0.1/16")), "{left:?}");
            let error = add(&rtnl, 4711, net("10.0.0.1/16"), &AddrOptions::default()).expect_err("no such link");
            assert!(error.is_gone());
        });
    }
}
