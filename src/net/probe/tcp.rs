//! A connection to a port, and what is said there.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::socket::{self, Outcome, Way};
use crate::net::{Error, Netns, Result};

/// The most that is kept of a reply.
const REPLY_MAX: usize = 1 << 20;
/// How long a far end that has said something, and doesn't close, is listened to when nobody said what to expect.
const QUIET: Duration = Duration::from_millis(50);

/// A connection that is to be made.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Where to.
    pub way: Way,
    /// The time for all of it.
    pub deadline: Duration,
    /// What is sent.
    pub send: Option<Vec<u8>>,
    /// What the reply must hold.
    pub expect: Option<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct TcpReport {
    /// Whether the far end took the connection.
    pub outcome: Outcome,
    /// How long that took.
    pub connect: Option<Duration>,
    /// This end.
    pub local: Option<SocketAddr>,
    /// What the far end said, where something was sent or expected.
    pub reply: Option<Vec<u8>>,
    /// What is wrong, if something is.
    pub why: Option<String>,
}

/// A connection, or why there is none.
pub(super) enum Connected {
    /// The stream, and a second descriptor of its socket, from which errors are read.
    Stream(TcpStream, Socket),
    /// What the network said.
    Refused(Outcome, String),
}

/// Connects from inside `netns`. Fails only where there can be no such socket.
pub(super) async fn connect(netns: &Netns, way: &Way, deadline: Duration, end: Instant) -> Result<Connected> {
    let doing = format!("connect to {}", way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let (socket, to) = socket::open(netns, Type::STREAM, way, &doing)?;
    let watched = socket.try_clone().map_err(failed)?;
    let to = to.as_socket().unwrap_or(way.to);
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
    Ok(match timeout_at(end, connecting).await {
        Ok(Ok(stream)) => Connected::Stream(stream, watched),
        Ok(Err(error)) => {
            let (outcome, why) = socket::refusal(&watched, &error);
            Connected::Refused(outcome, why)
        }
        Err(_) => {
            let (outcome, why) = socket::silence("answer", deadline);
            Connected::Refused(outcome, why)
        }
    })
}

/// Connects to a port from inside `netns`, says something if asked to, and listens to the reply.
///
/// Like `nc -z` or `nc -w`. Fails only if there can be no such socket: ENODEV for an unknown link, EADDRNOTAVAIL for a source
/// address that the namespace does not have. All else is in the report.
pub async fn tcp(netns: &Netns, tcp: &Tcp) -> Result<TcpReport> {
    let start = Instant::now();
    let end = start + tcp.deadline;
    let mut report = TcpReport { outcome: Outcome::Silent, connect: None, local: None, reply: None, why: None };
    let (mut stream, socket) = match connect(netns, &tcp.way, tcp.deadline, end).await? {
        Connected::Stream(stream, socket) => (stream, socket),
        Connected::Refused(outcome, why) => return Ok(TcpReport { outcome, why: Some(why), ..report }),
    };
    report.outcome = Outcome::Answered;
    report.connect = Some(start.elapsed());
    report.local = stream.local_addr().ok();
    if tcp.send.is_none() && tcp.expect.is_none() {
        return Ok(report);
    }
    let mut reply = Vec::new();
    let talk = async {
        if let Some(send) = &tcp.send {
            stream.write_all(send).await?;
        }
        listen(&mut stream, tcp.expect.as_deref(), &mut reply).await
    };
    let met = match timeout_at(end, talk).await {
        Ok(Ok(met)) => met,
        Ok(Err(error)) => {
            report.why = Some(format!("connected, but {}", socket::refusal(&socket, &error).1));
            false
        }
        Err(_) => false,
    };
    if !met && report.why.is_none() {
        let within = socket::in_words(tcp.deadline);
        report.why = Some(match &tcp.expect {
            Some(expect) if !reply.is_empty() => {
                format!("the reply holds no {:?}", String::from_utf8_lossy(expect))
            }
            _ if Instant::now() < end => "connected, but the far end closed without a reply".to_string(),
            _ => format!("connected, but no reply within {within}"),
        });
    }
    report.reply = Some(reply);
    Ok(report)
}

/// Reads until what is expected was read, or, where nothing is, until the far end closes or has nothing more to say.
async fn listen(stream: &mut TcpStream, expect: Option<&[u8]>, reply: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut buffer = vec![0; 1 << 14];
    loop {
        let more = match expect {
            None if !reply.is_empty() => match timeout(QUIET, stream.read(&mut buffer)).await {
                Ok(more) => more?,
                Err(_) => return Ok(true),
            },
            _ => stream.read(&mut buffer).await?,
        };
        // Only the part that can be new is looked through.
        let from = reply.len().saturating_sub(expect.map_or(0, <[u8]>::len));
        reply.extend(&buffer[..more]);
        match expect {
            Some(expect) if holds(&reply[from..], expect) => return Ok(true),
            None if more == 0 => return Ok(!reply.is_empty()),
            _ if more == 0 => return Ok(false),
            _ if reply.len() >= REPLY_MAX => return Ok(expect.is_none()),
            _ => {}
        }
    }
}

/// Tells whether `part` is somewhere in `whole`.
pub(super) fn holds(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}
