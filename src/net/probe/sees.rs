//! What the far end of a connection sees: a listener in one namespace, a client in another.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::datagrams::Datagrams;
use super::server::bind;
use super::socket::{self, Outcome, Way};
use super::tcp::{Connected, connect};
use crate::net::{Error, Netns, Result};

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Sees {
    /// Where the client goes; the listener's port stands for port 0.
    pub way: Way,
    /// The port of the listener; 0 for one that is free.
    pub port: u16,
    /// Whether it is over UDP.
    pub udp: bool,
    /// The time for all of it.
    pub deadline: Duration,
}

/// What the far end saw.
#[derive(Debug, Clone)]
pub struct SeesReport {
    /// Whether the client came there.
    pub outcome: Outcome,
    /// The client, as the far end saw it.
    pub client: Option<SocketAddr>,
    /// Where it came to: the far end's own address and port.
    pub local: Option<SocketAddr>,
    /// The client, as itself saw it.
    pub from: Option<SocketAddr>,
    /// What is wrong, if something is.
    pub why: Option<String>,
}

/// Listens in `server`, lets a client in `client` come there, and returns what the server saw of it.
///
/// Like `nc -l -v`. EADDRINUSE if the server's port is taken, EADDRNOTAVAIL for a source address that the client does not have.
pub async fn sees(server: &Netns, client: &Netns, sees: &Sees) -> Result<SeesReport> {
    let doing = format!("listen at {} port {}", if sees.udp { "UDP" } else { "TCP" }, sees.port);
    let failed = |error| Error::io(doing.clone(), error);
    let v6 = sees.way.to.is_ipv6();
    let everywhere = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    // Whoever comes from the other family, as through a translation, is for nobody to see.
    let listener = server.inside(|| bind(SocketAddr::new(everywhere, sees.port), sees.udp))?.map_err(failed)?;
    let port = socket::local_of(&listener).map_or(sees.port, |local| local.port());
    let mut way = sees.way.clone();
    if way.to.port() == 0 {
        way.to.set_port(port);
    }
    let end = Instant::now() + sees.deadline;
    let token = RandomState::new().hash_one(port).to_ne_bytes();
    let mut report = SeesReport { outcome: Outcome::Silent, client: None, local: None, from: None, why: None };
    let seen = if sees.udp {
        by_datagram(listener, client, &way, &token, sees.deadline, end, &mut report).await?
    } else {
        listener.listen(16).map_err(failed)?;
        let listener = TcpListener::from_std(listener.into()).map_err(failed)?;
        by_connection(&listener, client, &way, &token, sees.deadline, end, &mut report).await?
    };
    if let Some((client, local)) = seen {
        report = SeesReport { outcome: Outcome::Answered, client: Some(client), local, why: None, ..report };
    }
    Ok(report)
}

type SeenPackets = Option<(SocketAddr, Option<SocketAddr>)>;

async fn by_connection(
    listener: &TcpListener,
    client: &Netns,
    way: &Way,
    token: &[u8],
    deadline: Duration,
    end: Instant,
    report: &mut SeesReport,
) -> Result<SeenPackets> {
    let failed = |error| Error::io(format!("connect to {}", way.to), error);
    let mut stream = match connect(client, way, deadline, end).await? {
        Connected::Stream(stream, _) => stream,
        Connected::Refused(outcome, why) => {
            (report.outcome, report.why) = (outcome, Some(why));
            return Ok(None);
        }
    };
    report.from = stream.local_addr().ok();
    stream.write_all(token).await.map_err(failed)?;
    let look = async {
        loop {
            let Ok((mut coming, from)) = listener.accept().await else { continue };
            let mut said = vec![0; token.len()];
            // Somebody else may come to this port at the same time.
            if coming.read_exact(&mut said).await.is_ok() && said == token {
                return (from, coming.local_addr().ok());
            }
        }
    };
    let seen = timeout_at(end, look).await.ok();
    if seen.is_none() {
        report.why = Some(format!("`{}` took the connection, and it was not this server", way.to));
    }
    Ok(seen)
}

async fn by_datagram(
    listener: Socket,
    client: &Netns,
    way: &Way,
    token: &[u8],
    deadline: Duration,
    end: Instant,
    report: &mut SeesReport,
) -> Result<SeenPackets> {
    let doing = format!("send a datagram to {}", way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let listener = Datagrams::new(listener).map_err(failed)?;
    let (socket, to) = socket::open(client, Type::DGRAM, way, &doing)?;
    let watched = socket.try_clone().map_err(failed)?;
    let talk = UdpSocket::from_std(socket.into()).map_err(failed)?;
    let sent = match watched.connect(&to) {
        Ok(()) => talk.send(token).await.map(|_| ()),
        Err(error) => Err(error),
    };
    report.from = socket::local_of(&watched);
    let refused = |report: &mut SeesReport, error: &std::io::Error| {
        let (outcome, why) = socket::refusal(&watched, error);
        (report.outcome, report.why) = (outcome, Some(why));
    };
    if let Err(error) = sent {
        refused(report, &error);
        return Ok(None);
    }
    let mut buffer = vec![0; 1 << 16];
    let look = async {
        loop {
            if let Ok((length, Some(from), to)) = listener.receive_from(&mut buffer).await
                && &buffer[..length] == token
            {
                return (from, to);
            }
        }
    };
    let mut answer = [0; 64];
    tokio::select! {
        seen = timeout_at(end, look) => {
            if seen.is_err() {
                (report.outcome, report.why) = socket_silence(deadline);
            }
            Ok(seen.ok())
        }
        // Nobody answers here but by an error.
        heard = talk.recv(&mut answer) => {
            match heard {
                Err(error) => refused(report, &error),
                Ok(_) => report.why = Some(format!("`{}` answered, and it was not this server", way.to)),
            }
            Ok(None)
        }
    }
}

fn socket_silence(deadline: Duration) -> (Outcome, Option<String>) {
    let (outcome, _) = socket::silence("datagram", deadline);
    (outcome, Some(format!("the server saw no datagram within {}", socket::in_words(deadline))))
}
