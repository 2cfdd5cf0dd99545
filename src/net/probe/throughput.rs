//! How much goes through: streams of TCP, or datagrams at a rate, from one namespace to another, measured where they arrive.
//!
//! The sending and the receiving are done by threads that live as long as the measuring; their sockets were born in the
//! namespaces, and the threads stay where they are.

mod crew;
mod datagrams;
mod streams;
mod window;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::server::bind;
use super::socket::{self, Way};
use crate::net::{Error, Netns, Result};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Throughput {
    /// Where the client goes; the server's port stands for port 0.
    pub way: Way,
    /// The port of the server; 0 for one that is free.
    pub port: u16,
    /// Whether it is over UDP.
    pub udp: bool,
    /// How many connections at once; over UDP there is one flow.
    pub streams: u32,
    /// How long it is measured.
    pub time: Duration,
    /// How long it runs before; 200 ms or ten round trips unless given.
    pub omit: Option<Duration>,
    /// The bits in a second that are sent, over all streams; as many as go through if none is given.
    pub rate: Option<u64>,
    /// Whether the server sends.
    pub reverse: bool,
    /// How long the connecting may take.
    pub deadline: Duration,
}

/// What came of it. All bytes are those of the payload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ThroughputReport {
    /// How much arrived while it was measured.
    pub bytes: u64,
    /// In what time.
    pub time: Duration,
    /// How many bytes were sent of datagrams while it was measured: fewer than asked for where the sender can't keep up.
    pub sent: Option<u64>,
    /// What was lost of the datagrams that were sent while it was measured, from 0 to 1.
    pub loss: Option<f64>,
    /// How much the times that datagrams take differ (RFC 3550, 6.4.1).
    pub jitter: Option<Duration>,
    /// Why there is nothing to tell.
    pub why: Option<String>,
}

impl ThroughputReport {
    fn nothing(why: impl Into<String>) -> ThroughputReport {
        ThroughputReport { why: Some(why.into()), ..ThroughputReport::default() }
    }

    /// Returns the bits of a second.
    pub fn bits_per_second(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.bytes as f64 * 8.0 / self.time.as_secs_f64() }
    }
}

/// Measures what goes from `client` to `server`, or back.
///
/// The first part is left out: TCP finds out how much goes through, and a shaper lets a burst pass. The time counts from one
/// arrival to another, so that slow links are measured as exactly as fast ones. Like `iperf3 -c`, `-u`, `-b`, `-P`, `-R`, `-O`. EADDRINUSE
/// if the server's port is taken, EADDRNOTAVAIL for a source address that the client does not have.
pub async fn throughput(client: &Netns, server: &Netns, ask: &Throughput) -> Result<ThroughputReport> {
    let doing = format!("measure the throughput to {}", ask.way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let v6 = ask.way.to.is_ipv6();
    let everywhere = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let listener = server.inside(|| bind(SocketAddr::new(everywhere, ask.port), ask.udp))?.map_err(failed)?;
    let mut way = ask.way.clone();
    if way.to.port() == 0 {
        way.to.set_port(socket::local_of(&listener).map_or(ask.port, |local| local.port()));
    }
    match ask.udp {
        true => datagrams::measure(client, listener, &way, ask).await,
        false => streams::measure(client, listener, &way, ask).await,
    }
}

/// Returns how long the beginning is that is left out: until TCP has found its speed, as far as a guess can tell.
fn warm_up(ask: &Throughput, round_trip: Duration) -> Duration {
    ask.omit.unwrap_or_else(|| Duration::from_millis(200).max(round_trip * 10))
}
