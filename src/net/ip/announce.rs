//! Announcements: a link tells its neighbours which Ethernet address an IP address has now, so that they do not go on with an older
//! one. Like `arping -U` and an unsolicited neighbour advertisement.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use socket2::{Domain, Protocol, Socket, Type};

use super::neigh;
use crate::net::{Error, Mac, Netlink, Netns, Result, fault};

const BROADCAST: Mac = Mac([0xff; 6]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a link tells its neighbours.
pub struct Announcement<'a> {
    /// The link.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The addresses to announce, in the order in which the kernel has them.
    pub addresses: &'a [IpNetwork],
    /// Whether the namespace forwards IPv6, which an advertisement says too.
    pub router: bool,
}

/// Tells the neighbours of a link of `netns`, which is up, about its addresses. `rtnl` is a socket in `netns`.
///
/// Neighbours that know the address take the new Ethernet address over at once (arp(7); RFC 4861, 7.2.6). An address that is still
/// tentative is left out. EAFNOSUPPORT if the kernel lacks CONFIG_PACKET, where an IPv4 address is not the first of its subnet.
pub fn announce(netns: &Netns, rtnl: &Netlink, told: &Announcement<'_>) -> Result<()> {
    fault::point(&format!("announce the addresses of link {}", told.index))?;
    let (mut further, mut v6) = (Vec::new(), Vec::new());
    for net in told.addresses {
        match net.ip() {
            IpAddr::V6(ip) => v6.push(ip),
            IpAddr::V4(ip) if is_first(ip, told.addresses) && neigh::ask(rtnl, told.index, ip.into())? => {}
            IpAddr::V4(ip) => further.push(ip),
        }
    }
    let failed = |error| Error::io(format!("announce the addresses of link {}", told.index), error);
    if !further.is_empty() {
        send_frames(netns, told, &further)?.map_err(failed)?;
    }
    if !v6.is_empty() {
        advertise(netns, told, &v6)?.map_err(failed)?;
    }
    Ok(())
}

/// Tells whether the kernel asks for neighbours in the subnet of `ip` in the name of `ip`: it takes the first address of the
/// subnet (net/ipv4/devinet.c, inet_select_addr). A question for that address itself is then an ARP announcement (RFC 5227, 3).
fn is_first(ip: Ipv4Addr, addresses: &[IpNetwork]) -> bool {
    addresses.iter().find(|net| net.contains(ip.into())).is_some_and(|net| net.ip() == ip)
}

/// Sends an ARP announcement for each address. Slow: the kernel waits some 10 ms when it closes a packet socket
/// (net/packet/af_packet.c, packet_release).
fn send_frames(netns: &Netns, told: &Announcement<'_>, addresses: &[Ipv4Addr]) -> Result<io::Result<()>> {
    netns.inside(|| {
        // Of no protocol: it sends, and is given nothing to receive (packet(7)).
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        addresses.iter().try_for_each(|ip| send(&socket, told.index, &arp(told.mac, *ip)))
    })
}

/// Sends an unsolicited neighbour advertisement to all nodes for each address, which overrides what they know (RFC 4861, 4.4).
fn advertise(netns: &Netns, told: &Announcement<'_>, addresses: &[Ipv6Addr]) -> Result<io::Result<()>> {
    netns.inside(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // A hop limit of 255 shows that no router was between.
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(told.index)?;
        socket.set_multicast_loop_v6(false)?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, told.index);
        for ip in addresses {
            let from = SocketAddrV6::new(*ip, 0, 0, told.index);
            match socket.bind(&from.into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => continue,
                bound => bound?,
            }
            socket.send_to(&advertisement(told.mac, *ip, told.router), &to.into())?;
        }
        Ok(())
    })
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

/// Returns an ARP announcement: a request for the sender's own address (RFC 5227, 3).
fn arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    /// Ethernet, IPv4, lengths of 6 and 4, request.
    const HEADER: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    const ETH_P_ARP: [u8; 2] = [0x08, 0x06];
    let frame = [&BROADCAST.0[..], &mac.0, &ETH_P_ARP, &HEADER].concat();
    [&frame[..], &mac.0, &ip.octets(), &[0; 6], &ip.octets()].concat()
}

/// Returns an unsolicited neighbour advertisement, whose check sum the kernel adds (raw(7), ICMPv6).
fn advertisement(mac: Mac, ip: Ipv6Addr, router: bool) -> Vec<u8> {
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    let flags = if router { ROUTER | OVERRIDE } else { OVERRIDE };
    // Type 136; the option is that of the sender's Ethernet address (RFC 4861, 4.6.1).
    [&[136, 0, 0, 0, flags, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac.0].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{addr, neigh};
    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
    use crate::net::{AddrOptions, Change, link};

    /// a(eth0) -- b(eth0): b remembers another Ethernet address, and takes that of the announcement; what it does not know it does not
    /// learn. 10.0.0.3 is not the first address of its subnet.
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
            let nets =
                |nets: &[&str]| nets.iter().map(|net| net.parse().expect("a network")).collect::<Vec<IpNetwork>>();
            for net in nets(&["10.0.0.2/24", "192.168.5.2/24", "fd00::2/64"]) {
                addr::add(&inside, 1002, net, &options).expect("an address");
            }
            let addresses =
                nets(&["10.0.0.1/24", "10.0.0.3/24", "10.0.0.9/24", "192.168.5.1/24", "fd00::1/64", "fd00::9/64"]);
            for net in &addresses {
                addr::add(&rtnl, 1001, *net, &options).expect("an address");
            }
            let known = ["10.0.0.1", "10.0.0.3", "192.168.5.1", "fd00::1"];
            for ip in known {
                judge(&b, &format!("ip neighbour add {ip} lladdr 02:00:00:00:00:99 dev eth0 nud stale")).await;
            }
            let mac = link::get(&rtnl, 1001).expect("read").and_then(|link| link.mac).expect("an address");
            let told = Announcement { index: 1001, mac, addresses: &addresses, router: false };
            announce(&a, &rtnl, &told).expect("announced");
            let listed = neigh::list(&inside).expect("neighbours");
            let seen: Vec<(String, Option<Mac>)> =
                listed.iter().map(|neigh| (neigh.ip.to_string(), neigh.mac)).collect();
            assert_eq!(seen, known.map(|ip| (ip.to_string(), Some(mac))));
            assert_eq!(neigh::list(&rtnl).expect("neighbours"), [], "no question is left open");
        });
    }

    /// An entry for the own address that somebody made stays, and is no hindrance.
    #[test]
    fn an_entry_of_others_stays() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            judge(&a, "ip link set eth0 up").await;
            judge(&a, "ip address add 10.0.0.1/24 dev eth0").await;
            judge(&a, "ip neighbour add 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0").await;
            let addresses = ["10.0.0.1/24".parse().expect("a network")];
            let told = Announcement { index: 1001, mac: Mac::local(1), addresses: &addresses, router: false };
            announce(&a, &rtnl, &told).expect("announced");
            assert_eq!(neigh::list(&rtnl).expect("neighbours").len(), 1);
        });
    }
}
