//! Announcements: a link tells its neighbours which Ethernet address an IP address has now, so that they do not go on with an older
//! one. Like `arping -U` and an unsolicited neighbour advertisement.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::icmp_packet::checksum;
use super::{Error, Mac, Netns, Result, fault};

const BROADCAST: Mac = Mac([0xff; 6]);
/// The Ethernet address of ff02::1, all nodes (RFC 2464, 7).
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Sends one frame by the link `index` of `netns` for each of its addresses, from its Ethernet address `mac`. `router` says whether
/// the namespace forwards IPv6, which an advertisement tells too.
///
/// Neighbours that know the address take the new Ethernet address over at once (arp(7); RFC 4861, 7.2.6); the others need no word.
/// ENETDOWN if the link is down, ENXIO if there is no such link, EAFNOSUPPORT if the kernel lacks CONFIG_PACKET.
pub fn announce(netns: &Netns, index: u32, mac: Mac, addresses: &[IpAddr], router: bool) -> Result<()> {
    let doing = || format!("announce the addresses of link {index}");
    fault::point(&doing())?;
    // Of no protocol: it sends, and is given nothing to receive (packet(7)).
    let socket = netns.inside(|| Socket::new(Domain::PACKET, Type::RAW, None))?;
    let socket = socket.map_err(|error| Error::io(doing(), error))?;
    for ip in addresses {
        let frame = match ip {
            IpAddr::V4(ip) => arp(mac, *ip),
            IpAddr::V6(ip) => advertisement(mac, *ip, router),
        };
        send(&socket, index, &frame).map_err(|error| Error::io(doing(), error))?;
    }
    Ok(())
}

fn send(socket: &Socket, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::c_ushort;
    to.sll_ifindex = index.cast_signed();
    let size = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the frame and the address are valid for the lengths given, for as long as the call lasts.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), size)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to.0[..], &from.0, &kind.to_be_bytes()].concat()
}

/// Returns an ARP announcement: a request for the sender's own address (RFC 5227, 3).
fn arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    /// Ethernet, IPv4, lengths of 6 and 4, request.
    const HEADER: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let frame = [ethernet(BROADCAST, mac, 0x0806), HEADER.to_vec()].concat();
    [&frame[..], &mac.0, &ip.octets(), &[0; 6], &ip.octets()].concat()
}

/// Returns an unsolicited neighbour advertisement to all nodes, which overrides what they know (RFC 4861, 4.4).
fn advertisement(mac: Mac, ip: Ipv6Addr, router: bool) -> Vec<u8> {
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    let flags = if router { ROUTER | OVERRIDE } else { OVERRIDE };
    // Type 136; the option is that of the sender's Ethernet address (4.6.1).
    let mut message = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac.0].concat();
    let length = message.len() as u16;
    let pseudo = [&ip.octets()[..], &ALL_NODES.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, 58]].concat();
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // Version 6; a hop limit of 255 shows that no router was between.
    let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[58, 255], &ip.octets(), &ALL_NODES.octets()].concat();
    [ethernet(ALL_NODES_MAC, mac, 0x86dd), header, message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
    use crate::net::{AddrOptions, Change, addr, link, neigh};

    /// a(eth0) -- b(eth0): b remembers another Ethernet address, and takes that of the announcement; what it does not know it does not learn.
    #[test]
    fn neighbours_take_the_new_address_over() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            let inside = crate::net::Netlink::open(&b).expect("a socket");
            let up = Change { up: Some(true), ..Change::default() };
            link::change(&rtnl, 1001, &up).expect("up");
            link::change(&inside, 1002, &up).expect("up");
            let options = AddrOptions { nodad: true, ..AddrOptions::default() };
            for net in ["10.0.0.2/24", "fd00::2/64"] {
                addr::add(&inside, 1002, net.parse().expect("a network"), &options).expect(net);
            }
            let known = ["10.0.0.1", "fd00::1"];
            for ip in known {
                judge(&b, &format!("ip neighbour add {ip} lladdr 02:00:00:00:00:99 dev eth0 nud stale")).await;
            }
            let mac = link::get(&rtnl, 1001).expect("read").and_then(|link| link.mac).expect("an address");
            let told: Vec<IpAddr> =
                ["10.0.0.1", "fd00::1", "10.0.0.9", "fd00::9"].map(|ip| ip.parse().expect("an address")).into();
            announce(&a, 1001, mac, &told, false).expect("announced");
            let listed = neigh::list(&inside).expect("neighbours");
            let seen: Vec<(String, Option<Mac>)> =
                listed.iter().map(|neigh| (neigh.ip.to_string(), neigh.mac)).collect();
            assert_eq!(seen, known.map(|ip| (ip.to_string(), Some(mac))));
        });
    }

    #[test]
    fn a_link_that_is_down_or_missing_can_tell_nothing() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            let told = ["10.0.0.1".parse().expect("an address")];
            let refused = |index| announce(&a, index, Mac::local(1), &told, false).expect_err("refused").errno();
            assert_eq!((refused(1001), refused(4711)), (libc::ENETDOWN, libc::ENXIO));
        });
    }
}
