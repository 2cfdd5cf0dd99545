//! Sockets for probes: born in a namespace, used from outside, and what the network says about them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use serde::Serialize;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::net::error::io_text;
use crate::net::{Error, Netns, Result};

/// Where a probe goes, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where to.
    pub to: SocketAddr,
    /// The address and port that it comes from; port 0 is any.
    pub from: Option<SocketAddr>,
    /// The link that it leaves by; a must for link-local IPv6 addresses.
    pub dev: Option<String>,
}

#[cfg(test)]
impl Way {
    /// Returns the way that the kernel finds.
    pub fn to(to: SocketAddr) -> Way {
        Way { to, from: None, dev: None }
    }
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The far end answered.
    Answered,
    /// The far end, or something on the way, said that nobody is there: a reset, a port that is unreachable.
    Refused,
    /// Something on the way, or the kernel itself, said that there is no way.
    Unreachable,
    /// Nobody said anything.
    Silent,
}

impl Outcome {
    /// Returns the word for scripts.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Unreachable => "unreachable",
            Outcome::Silent => "silent",
        }
    }
}

/// Opens a socket inside `netns` that is not connected yet, and completes the address that it goes to.
///
/// Fails only where there can be no such socket: ENODEV for an unknown link, EADDRNOTAVAIL for a source address that the
/// namespace does not have.
pub(in crate::net) fn open(netns: &Netns, kind: Type, way: &Way, doing: &str) -> Result<(Socket, SockAddr)> {
    netns.inside(|| open_here(kind, way))?.map_err(|error| Error::io(doing, error))
}

fn open_here(kind: Type, way: &Way) -> io::Result<(Socket, SockAddr)> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(way.to), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if way.to.is_ipv4() {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    } else {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    let scope = match &way.dev {
        Some(dev) => {
            socket.bind_device(Some(dev.as_bytes()))?;
            nix::net::if_::if_nametoindex(dev.as_str())?
        }
        None => 0,
    };
    if let Some(from) = way.from {
        socket.bind(&scoped(from, scope).into())?;
    }
    Ok((socket, scoped(way.to, scope).into()))
}

fn scoped(address: SocketAddr, scope: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) if v6.ip().is_unicast_link_local() => {
            v6.set_scope_id(scope);
            SocketAddr::V6(v6)
        }
        address => address,
    }
}

/// Sets an option that is an int.
pub(super) fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live int and the length is that of an int, which these options are (ip(7), ipv6(7)).
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option that is an int.
pub(in crate::net) fn option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has as many.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Tells who refused what a socket sent, and whether by a rule, where that was said by ICMP (ip(7), IP_RECVERR).
fn teller(socket: &impl AsRawFd) -> Option<(IpAddr, bool)> {
    let mut cited = [0u8; 128];
    let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    loop {
        let mut parts = [io::IoSliceMut::new(&mut cited)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        for control in message.cmsgs().ok()? {
            match control {
                ControlMessageOwned::Ipv4RecvErr(error, Some(from)) if error.ee_origin == libc::SO_EE_ORIGIN_ICMP => {
                    let prohibited = error.ee_type == 3 && matches!(error.ee_code, 9 | 10 | 13);
                    return Some((IpAddr::from(from.sin_addr.s_addr.to_ne_bytes()), prohibited));
                }
                ControlMessageOwned::Ipv6RecvErr(error, Some(from)) if error.ee_origin == libc::SO_EE_ORIGIN_ICMP6 => {
                    let prohibited = error.ee_type == 1 && matches!(error.ee_code, 1 | 5 | 6);
                    return Some((IpAddr::from(from.sin6_addr.s6_addr), prohibited));
                }
                _ => {}
            }
        }
    }
}

/// Reads a refusal of the network: what it is, and in words.
pub(in crate::net) fn refusal(socket: &impl AsRawFd, error: &io::Error) -> (Outcome, String) {
    let teller = teller(socket);
    let text = match (error.raw_os_error(), teller) {
        (_, Some((_, true))) => "administratively prohibited".to_string(),
        // A TCP port that is closed answers with a reset, a UDP port by ICMP.
        (Some(libc::ECONNREFUSED), Some(_)) => "port unreachable".to_string(),
        (Some(libc::EPERM), None) => "a rule of its own doesn't let it out".to_string(),
        _ => io_text(error).to_lowercase(),
    };
    let outcome = match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE) => Outcome::Refused,
        _ => Outcome::Unreachable,
    };
    (outcome, teller.map_or(text.clone(), |(ip, _)| format!("{text}, says {ip}")))
}

/// Says how long nobody answered.
pub(super) fn silence(what: &str, deadline: Duration) -> (Outcome, String) {
    (Outcome::Silent, format!("no {what} within {}", in_words(deadline)))
}

/// Writes a time as a script does: `1s`, `250ms`.
pub fn in_words(time: Duration) -> String {
    format!("{time:?}")
}

/// Returns the local address of a socket.
pub(super) fn local_of(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok().and_then(|address| address.as_socket())
}

/// Returns an address as people know it: an IPv4 one that a socket for both families shows is an IPv4 one.
pub(in crate::net) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
