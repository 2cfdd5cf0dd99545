//! Echo requests one by one, for probes that change what is sent from one to the next: hop limit, size, destination.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::icmp_packet::{Answer, echo_request, read_answer};
use super::socket::set_option;
use crate::net::{Error, Netns, Result};

/// Where echo requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoWay {
    /// Where to.
    pub to: IpAddr,
    /// The address to send from.
    pub src: Option<IpAddr>,
    /// The link to send by; a must for link-local IPv6 addresses.
    pub dev: Option<String>,
}

/// A raw socket in a namespace, and who it sends to.
pub(super) struct Echoes {
    socket: AsyncFd<Socket>,
    to: SocketAddr,
    id: u16,
    /// The start of each request's bytes, so that another process's answers are not taken for ours.
    token: [u8; 8],
    buffer: Vec<u8>,
}

impl Echoes {
    /// Opens the socket. EPERM without CAP_NET_RAW, ENODEV for an unknown link, EADDRNOTAVAIL for a source address that the
    /// namespace does not have.
    pub(in crate::net) fn open(netns: &Netns, way: &EchoWay, doing: &str) -> Result<Echoes> {
        let failed = |error| Error::io(doing, error);
        let (socket, to) = netns.inside(|| open_here(way))?.map_err(failed)?;
        // SAFETY: a `Socket` owns its descriptor, keeps it open while it lives, and always shows the same one.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| failed(error.into()))?;
        let token = RandomState::new().hash_one(way.to);
        let [.., a, b] = RandomState::new().hash_one(token).to_ne_bytes();
        let id = u16::from_ne_bytes([a, b]);
        Ok(Echoes { socket, to, id, token: token.to_ne_bytes(), buffer: vec![0; 1 << 16] })
    }

    /// Sets the hop limit of what is sent from now on.
    pub(in crate::net) fn set_hops(&self, hops: u8) -> io::Result<()> {
        match self.to {
            SocketAddr::V4(_) => self.socket.get_ref().set_ttl_v4(hops.into()),
            SocketAddr::V6(_) => self.socket.get_ref().set_unicast_hops_v6(hops.into()),
        }
    }

    /// Lets nobody break up what is sent from now on, and lets it be as big as the link takes, whatever is known of the path.
    pub(super) fn set_whole(&self) -> io::Result<()> {
        let socket = self.socket.get_ref();
        match self.to {
            SocketAddr::V4(_) => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            SocketAddr::V6(_) => {
                set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
                set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
            }
        }
    }

    /// Sends the request of this number with `size` bytes of payload.
    pub(in crate::net) fn send(&self, seq: u16, size: usize) -> io::Result<()> {
        let request = echo_request(self.to.is_ipv6(), self.id, seq, &self.token, size);
        self.socket.get_ref().send_to(&request, &self.to.into()).map(|_| ())
    }

    /// Waits for the next answer until `end`; returns it with its sender.
    pub(super) async fn receive(&mut self, end: Instant) -> io::Result<Option<(Answer, IpAddr)>> {
        loop {
            let mut ready = match timeout_at(end, self.socket.readable()).await {
                Ok(ready) => ready?,
                Err(_) => return Ok(None),
            };
            let (length, from) = match recvfrom::<SockaddrStorage>(self.socket.get_ref().as_raw_fd(), &mut self.buffer)
            {
                Ok(received) => received,
                Err(nix::Error::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                // An error that was kept for the socket, and is gone with this; whose request it was can't be told.
                Err(_) => continue,
            };
            let v4 = || from.as_ref().and_then(|from| from.as_sockaddr_in()).map(|from| IpAddr::V4(from.ip()));
            let v6 = from.as_ref().and_then(|from| from.as_sockaddr_in6()).map(|from| IpAddr::V6(from.ip()));
            let Some(sender) = v6.or_else(v4) else { continue };
            let packet = &self.buffer[..length];
            if let Some(answer) = read_answer(packet, Some(sender), self.to.ip(), self.id, &self.token) {
                return Ok(Some((answer, sender)));
            }
        }
    }
}

fn open_here(way: &EchoWay) -> io::Result<(Socket, SocketAddr)> {
    let (domain, protocol) = match way.to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Big ones come many at a time; the kernel gives what its limit allows.
    socket.set_recv_buffer_size(4 << 20)?;
    let scope = match &way.dev {
        Some(dev) => {
            socket.bind_device(Some(dev.as_bytes()))?;
            nix::net::if_::if_nametoindex(dev.as_str())?
        }
        None => 0,
    };
    let complete = |ip: IpAddr| match ip {
        IpAddr::V6(ip) => {
            SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, if ip.is_unicast_link_local() { scope } else { 0 }))
        }
        ip => SocketAddr::new(ip, 0),
    };
    if let Some(src) = way.src {
        socket.bind(&complete(src).into())?;
    }
    Ok((socket, complete(way.to)))
}
