//! Ports that sockets are bound to, all at once (sock_diag(7)): a bind(2) for each of a thousand takes longer than all else that
//! publishing them does.

use std::collections::HashSet;

use socket2::Socket;

use crate::net::netlink::{self, Netlink, Subsystem};

/// All states but TIME_WAIT, of include/net/tcp_states.h. That of a socket which is bound and no more (TCP_BOUND_INACTIVE) is
/// told since Linux 6.8.
const STATES: u32 = !(1 << 6);

/// Returns the ports to which sockets of TCP or UDP (`protocol`) of either version of IP are bound, in the namespace of the
/// calling thread. None where the kernel does not tell, or not all: `probe`, which is bound, must be among them.
pub(in crate::net) fn ports(protocol: i32, probe: &Socket) -> Option<HashSet<u16>> {
    let inode = nix::sys::stat::fstat(probe).ok()?.st_ino;
    let mut found = HashSet::new();
    let mut inodes = HashSet::new();
    let netlink = Netlink::here(Subsystem::Sockets).ok()?;
    for request in requests(protocol) {
        for (port, of) in netlink.dump("list sockets", &request, |_, body| Ok(read(body))).ok()? {
            found.insert(port);
            inodes.insert(u64::from(of));
        }
    }
    inodes.contains(&inode).then_some(found)
}

/// Returns the messages that ask for all sockets. The older one goes through the tables of TCP, which are large, once for both
/// versions of IP; UDP has only the newer one, a version at a time.
fn requests(protocol: i32) -> Vec<Vec<u8>> {
    /// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h, and TCPDIAG_GETSOCK of linux/inet_diag.h.
    const BY_FAMILY: u16 = 20;
    const OF_TCP: u16 = 18;
    /// `struct inet_diag_sockid`.
    const SOCKET: [u8; 48] = [0; 48];
    let [any, states] = [[0; 4], STATES.to_ne_bytes()];
    let [four, six] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
    if protocol == libc::IPPROTO_TCP {
        return vec![message(OF_TCP, &[&[four, 0, 0, 0], &SOCKET[..], &states, &any].concat())];
    }
    let of = |family| message(BY_FAMILY, &[&[family, protocol as u8, 0, 0], &states[..], &SOCKET].concat());
    vec![of(four), of(six)]
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    netlink::frame(kind, 0, |bytes| bytes.extend_from_slice(body))
}

/// Reads the port and the inode of a socket: in `struct inet_diag_msg` the port stands behind four small fields, and the inode last.
fn read(body: &[u8]) -> Option<(u16, u32)> {
    let port = body.get(4..)?.first_chunk()?;
    Some((u16::from_be_bytes(*port), netlink::word(body, 68)?))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use socket2::{Domain, Type};

    use super::*;
    use crate::net::testing::netns;

    #[test]
    fn whatever_is_bound_is_found() {
        let netns = netns();
        let bound = |kind, ip: std::net::IpAddr, port| {
            let address = SocketAddr::new(ip, port);
            let socket = Socket::new(Domain::for_address(address), kind, None).expect("a socket");
            socket.bind(&address.into()).expect("a port");
            socket
        };
        netns
            .inside(|| {
                let (any, any6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
                for (protocol, kind) in [(libc::IPPROTO_TCP, Type::STREAM), (libc::IPPROTO_UDP, Type::DGRAM)] {
                    let probe = bound(kind, any, 0);
                    let Some(before) = ports(protocol, &probe) else {
                        // A kernel before 6.8 has no word of a socket of TCP that is bound alone.
                        assert_eq!(protocol, libc::IPPROTO_TCP);
                        continue;
                    };
                    assert_eq!(before.len(), 1);
                    let idle = bound(kind, any, 5001);
                    let other = bound(kind, any6, 5002);
                    let listener = bound(Type::STREAM, any, 5003);
                    listener.listen(1).expect("a listener");
                    let now = ports(protocol, &probe).expect("the ports");
                    assert!(now.contains(&5001) && now.contains(&5002), "{now:?}");
                    assert_eq!(now.contains(&5003), protocol == libc::IPPROTO_TCP);
                    drop((idle, other, listener));
                    assert_eq!(ports(protocol, &probe), Some(before));
                }
            })
            .expect("a namespace");
    }
}
