//! Ports that sockets are bound to, all at once (sock_diag(7)): a bind(2) for each of a thousand takes longer than all else that
//! publishing them does.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How long the kernel may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What netlink_dump() fills at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// All states but TIME_WAIT, of include/net/tcp_states.h. That of a socket which is bound and no more (TCP_BOUND_INACTIVE) is
/// told since Linux 6.8.
const STATES: u32 = !(1 << 6);
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// Returns the ports to which sockets of TCP or UDP (`protocol`) of either version of IP are bound, in the namespace of the
/// calling thread. None where the kernel does not tell, or not all: `probe`, which is bound, must be among them.
pub(super) fn ports(protocol: i32, probe: &Socket) -> Option<HashSet<u16>> {
    let inode = nix::sys::stat::fstat(probe).ok()?.st_ino;
    let mut found = HashSet::new();
    let mut inodes = HashSet::new();
    for request in requests(protocol) {
        let note = |port, of| {
            found.insert(port);
            inodes.insert(u64::from(of));
        };
        dump(&request, note).ok()?;
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
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// Asks for sockets; each one's port and inode are noted.
fn dump(request: &[u8], mut note: impl FnMut(u16, u32)) -> io::Result<()> {
    let mut socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_SOCK_DIAG)))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.write_all(request)?;
    let mut bytes = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = match socket.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let mut rest = bytes.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
            let number = |at: usize| rest.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            let size = number(0).ok_or_else(short)? as usize;
            let kind = rest.get(4..).and_then(|bytes| bytes.first_chunk()).ok_or_else(short)?;
            match i32::from(u16::from_ne_bytes(*kind)) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let errno = number(HEADER_BYTES).ok_or_else(short)? as i32;
                    return Err(io::Error::from_raw_os_error(-errno));
                }
                _ => {
                    // In `struct inet_diag_msg` the port stands behind four small fields, and the inode last.
                    let port = rest.get(HEADER_BYTES + 4..).and_then(|bytes| bytes.first_chunk()).ok_or_else(short)?;
                    note(u16::from_be_bytes(*port), number(HEADER_BYTES + 68).ok_or_else(short)?);
                }
            }
            rest = rest.get(size.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

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
