//! Echo requests (RFC 792, RFC 4443) from inside a namespace, over a raw socket that was born there.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{SockaddrStorage, recvfrom};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::icmp_packet::{Answer, echo_request, read_answer};
use super::socket::set_option;
use crate::net::error::io_text;
use crate::net::{Error, Netns, Result};

/// What to send, and how long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Where to.
    pub to: IpAddr,
    /// How many echo requests.
    pub count: u32,
    /// The time between two of them.
    pub interval: Duration,
    /// The time for all of it.
    pub deadline: Duration,
    /// How many bytes each carries.
    pub size: usize,
    /// How many routers it may pass; the kernel's default if none is given.
    pub ttl: Option<u8>,
    /// Whether routers must refuse it rather than cut it up.
    pub dont_fragment: bool,
    /// The address to send from.
    pub src: Option<IpAddr>,
    /// The link to send by; a must for link-local IPv6 addresses.
    pub dev: Option<String>,
}

impl Ping {
    /// Returns one echo request of 56 bytes, as ping(8) sends it, with one second to be answered. More than one go out
    /// every 200 ms; raise `deadline` with `count`.
    pub fn new(to: IpAddr) -> Ping {
        Ping {
            to,
            count: 1,
            interval: Duration::from_millis(200),
            deadline: Duration::from_secs(1),
            size: 56,
            ttl: None,
            dont_fragment: false,
            src: None,
            dev: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PingReport {
    /// How many requests were sent, or would have been if the kernel had let them.
    pub sent: u32,
    /// How many of them were answered.
    pub received: u32,
    /// How many answers came more than once.
    pub duplicates: u32,
    /// The time from each answered request to its answer, in the order of the answers.
    pub rtt: Vec<Duration>,
    /// The last refusal: "Destination Host Unreachable from 10.0.0.1", "Network is unreachable".
    pub refused: Option<String>,
}

/// Sends echo requests from inside `netns`, and returns when all are answered or refused, or at the deadline.
///
/// Like `ping`. Fails only if there can be no such socket: EPERM without CAP_NET_RAW, ENODEV for an unknown link,
/// EADDRNOTAVAIL for a source address that the namespace does not have. All else is in the report.
pub async fn ping(netns: &Netns, ping: &Ping) -> Result<PingReport> {
    let failed = |error| Error::io(format!("ping {}", ping.to), error);
    let (socket, to) = netns.inside(|| open(ping))?.map_err(failed)?;
    // SAFETY: a `Socket` owns its descriptor, keeps it open while it lives, and always shows the same one.
    let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| failed(error.into()))?;
    let start = Instant::now();
    let mut echoes = PendingEchoes::new(ping);
    while !echoes.all_settled() {
        let next = start + ping.interval.saturating_mul(echoes.report.sent);
        let send = echoes.report.sent < ping.count && Instant::now() >= next;
        if send {
            echoes.send(socket.get_ref(), &to);
            continue;
        }
        let end = start + ping.deadline;
        let until = if echoes.report.sent < ping.count { next.min(end) } else { end };
        match timeout_at(until, socket.readable()).await {
            Ok(ready) => {
                let mut ready = ready.map_err(failed)?;
                if echoes.receive(socket.get_ref()) {
                    ready.clear_ready();
                }
            }
            Err(_) if until == end => break,
            Err(_) => {}
        }
    }
    Ok(echoes.report)
}

/// Opens the socket, in the namespace of the calling thread, and completes the address.
fn open(ping: &Ping) -> io::Result<(Socket, SocketAddr)> {
    let (domain, protocol) = match ping.to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let scope = match &ping.dev {
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
    if let Some(src) = ping.src {
        socket.bind(&complete(src).into())?;
    }
    match ping.to {
        IpAddr::V4(_) => {
            socket.set_broadcast(true)?;
            if let Some(ttl) = ping.ttl {
                socket.set_ttl_v4(ttl.into())?;
            }
            if ping.dont_fragment {
                set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
            }
        }
        IpAddr::V6(_) => {
            if let Some(ttl) = ping.ttl {
                socket.set_unicast_hops_v6(ttl.into())?;
            }
            if ping.dont_fragment {
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
            }
        }
    }
    Ok((socket, complete(ping.to)))
}

struct Echo {
    sent_at: Instant,
    answered: bool,
    refused: bool,
}

/// The requests that are under way.
struct PendingEchoes<'a> {
    ping: &'a Ping,
    id: u16,
    /// The start of each request's bytes, so that another process's answers are not taken for ours.
    token: [u8; 8],
    echoes: Vec<Echo>,
    unsettled: u32,
    report: PingReport,
    buffer: Vec<u8>,
}

impl<'a> PendingEchoes<'a> {
    fn new(ping: &'a Ping) -> PendingEchoes<'a> {
        let token = RandomState::new().hash_one(ping.to);
        let [.., a, b] = RandomState::new().hash_one(token).to_ne_bytes();
        PendingEchoes {
            ping,
            id: u16::from_ne_bytes([a, b]),
            token: token.to_ne_bytes(),
            echoes: Vec::new(),
            unsettled: ping.count,
            report: PingReport::default(),
            buffer: vec![0; 1 << 16],
        }
    }

    fn all_settled(&self) -> bool {
        self.unsettled == 0
    }

    fn send(&mut self, socket: &Socket, to: &SocketAddr) {
        let seq = self.echoes.len() as u16;
        let request = echo_request(self.ping.to.is_ipv6(), self.id, seq, &self.token, self.ping.size);
        self.echoes.push(Echo { sent_at: Instant::now(), answered: false, refused: false });
        self.report.sent += 1;
        if let Err(error) = socket.send_to(&request, &(*to).into()) {
            self.refuse(seq, io_text(&error));
        }
    }

    /// Reads what has come; returns whether that was all.
    fn receive(&mut self, socket: &Socket) -> bool {
        loop {
            let (length, from) = match recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut self.buffer) {
                Ok(received) => received,
                Err(nix::Error::EAGAIN) => return true,
                // An error that was kept for the socket, and is gone with this; whose request it was can't be told.
                Err(_) => return false,
            };
            let now = Instant::now();
            let from = from.as_ref().and_then(|from| from.as_sockaddr_in6()).map(|from| IpAddr::V6(from.ip()));
            match read_answer(&self.buffer[..length], from, self.ping.to, self.id, &self.token) {
                Some(Answer::Echo(seq)) => self.answer(seq, now),
                Some(Answer::Refusal(seq, refusal)) => self.refuse(seq, refusal.to_string()),
                None => {}
            }
        }
    }

    fn answer(&mut self, seq: u16, now: Instant) {
        let Some(echo) = newest(&mut self.echoes, seq) else { return };
        if echo.answered {
            self.report.duplicates += 1;
            return;
        }
        if !echo.refused {
            self.unsettled -= 1;
        }
        echo.answered = true;
        self.report.received += 1;
        self.report.rtt.push(now - echo.sent_at);
    }

    fn refuse(&mut self, seq: u16, text: String) {
        let Some(echo) = newest(&mut self.echoes, seq) else { return };
        self.report.refused = Some(text);
        if !echo.answered && !echo.refused {
            echo.refused = true;
            self.unsettled -= 1;
        }
    }
}

/// Returns the newest request of that number: numbers come round again after 65536.
fn newest(echoes: &mut [Echo], seq: u16) -> Option<&mut Echo> {
    let last = echoes.len().checked_sub(1)?;
    let back = usize::from((last as u16).wrapping_sub(seq));
    echoes.get_mut(last.checked_sub(back)?)
}

#[cfg(test)]
mod tests;
