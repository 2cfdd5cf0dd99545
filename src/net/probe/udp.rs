//! A datagram to a port, and the one that comes back.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::Type;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::socket::{self, Outcome, Way};
use super::tcp::holds;
use crate::net::{Error, Netns, Result};

/// A datagram that is to be sent.
#[derive(Debug, Clone)]
pub struct Udp {
    /// Where to.
    pub way: Way,
    /// How long the reply may take.
    pub deadline: Duration,
    /// What is sent.
    pub send: Vec<u8>,
    /// What the reply must hold.
    pub expect: Option<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct UdpReport {
    /// Whether somebody replied.
    pub outcome: Outcome,
    /// How long the reply took.
    pub rtt: Option<Duration>,
    /// Who replied, where many were asked.
    pub from: Option<SocketAddr>,
    /// This end.
    pub local: Option<SocketAddr>,
    /// The last datagram that came back.
    pub reply: Option<Vec<u8>>,
    /// What is wrong, if something is.
    pub why: Option<String>,
}

/// Sends a datagram from inside `netns` and waits for one from the address that it was sent to; or from anybody, where that is a
/// broadcast address or a group's.
///
/// Like `nc -u`. Fails only if there can be no such socket: ENODEV for an unknown link, EADDRNOTAVAIL for a source address that
/// the namespace does not have. All else is in the report.
pub async fn udp(netns: &Netns, udp: &Udp) -> Result<UdpReport> {
    let doing = format!("send a datagram to {}", udp.way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let (socket, to) = socket::open(netns, Type::DGRAM, &udp.way, &doing)?;
    let refused = |error: &std::io::Error, local| {
        let (outcome, why) = socket::refusal(&socket, error);
        UdpReport { outcome, rtt: None, from: None, local, reply: None, why: Some(why) }
    };
    let mut many = udp.way.to.ip().is_multicast();
    if !many && let Err(error) = socket.connect(&to) {
        // The kernel alone knows what is a broadcast address: it is one that a socket must be allowed to send to (ip4_datagram_connect).
        if error.raw_os_error() != Some(libc::EACCES) {
            return Ok(refused(&error, None));
        }
        socket.set_broadcast(true).map_err(failed)?;
        many = true;
    }
    let local = socket::local_of(&socket);
    let talk = UdpSocket::from_std(socket.try_clone().map_err(failed)?.into()).map_err(failed)?;
    let start = Instant::now();
    let target = to.as_socket().filter(|_| many);
    let sent = match target {
        Some(to) => talk.send_to(&udp.send, to).await,
        None => talk.send(&udp.send).await,
    };
    if let Err(error) = sent {
        return Ok(refused(&error, local));
    }
    let mut buffer = vec![0; 1 << 16];
    let mut report = UdpReport { outcome: Outcome::Silent, rtt: None, from: None, local, reply: None, why: None };
    loop {
        match timeout_at(start + udp.deadline, talk.recv_from(&mut buffer)).await {
            Ok(Ok((length, from))) => {
                report.from = target.map(|_| from);
                report.outcome = Outcome::Answered;
                report.rtt = Some(start.elapsed());
                report.reply = Some(buffer[..length].to_vec());
                if udp.expect.as_deref().is_none_or(|expect| holds(&buffer[..length], expect)) {
                    return Ok(report);
                }
            }
            Ok(Err(error)) => return Ok(refused(&error, local)),
            Err(_) => break,
        }
    }
    report.why = Some(match (&report.reply, &udp.expect) {
        (Some(_), Some(expect)) => format!("the reply holds no {:?}", String::from_utf8_lossy(expect)),
        _ => socket::silence("reply", udp.deadline).1,
    });
    Ok(report)
}
