//! The largest packet that goes to an address in one piece.
//!
//! Routers say when a packet is too big, and for what (RFC 1191, RFC 8201); where they don't, the packets vanish, and only sizes
//! that are tried tell (RFC 4821).

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::echoes::{EchoWay, Echoes};
use super::icmp_packet::Answer;
use crate::net::error::io_text;
use crate::net::ip::route;
use crate::net::{Error, Netlink, Netns, Result, link};

/// The header of an echo request (RFC 792, RFC 4443).
const ECHO_HEADER: u32 = 8;
/// The largest packet that there is.
const PACKET_MAX: u32 = 65_535;
/// How many sizes are tried at once.
const AT_ONCE: u32 = 16;
/// How often each is sent before it counts as lost.
const TRIES: u32 = 3;

/// A path that is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtu {
    /// Where to.
    pub way: EchoWay,
    /// The time for all of it.
    pub deadline: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMtuReport {
    /// The largest packet that was answered, with its IP header.
    pub mtu: Option<u32>,
    /// The router that says that more is too big for what is behind it.
    pub narrowed_by: Option<IpAddr>,
    /// Whether bigger ones vanish without a word.
    pub black_hole: bool,
    /// What is wrong, if something is.
    pub why: Option<String>,
}

/// What became of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fits,
    /// A router says that it is too big, and what would fit.
    TooBig(IpAddr, u32),
    /// The first link is too small.
    TooBigHere,
    Unknown,
}

/// Measures the path to an address by echo requests that may not be broken up.
///
/// Like `tracepath`, or `ping -M probe -s SIZE` again and again. What the namespace has learnt of the path before plays no part.
/// Fails only if there can be no such socket, as `ping` does.
pub async fn path_mtu(netns: &Netns, rtnl: &Netlink, path: &PathMtu) -> Result<PathMtuReport> {
    let doing = format!("measure the path to {}", path.way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let nothing = |why: String| PathMtuReport { mtu: None, narrowed_by: None, black_hole: false, why: Some(why) };
    let echoes = Echoes::open(netns, &path.way, &doing)?;
    echoes.set_whole().map_err(failed)?;
    let mut search = Search {
        echoes,
        headers: ECHO_HEADER + if path.way.to.is_ipv4() { 20 } else { 40 },
        seq: 0,
        end: Instant::now() + path.deadline,
        wait: (path.deadline / 2).min(Duration::from_secs(1)),
        refused: None,
    };
    // The smallest that every link must take (RFC 791, RFC 8200), and what the first link takes.
    let least = if path.way.to.is_ipv4() { 68 } else { 1280 };
    let first = first_link(rtnl, path.way.to).await?.unwrap_or(1500).clamp(least, PACKET_MAX);
    let start = Instant::now();
    let fates = search.try_sizes(&[least]).await.map_err(failed)?;
    if fates[0] != Fate::Fits {
        let silent = format!("no answer within {}", super::socket::in_words(search.wait));
        return Ok(nothing(search.refused.unwrap_or(silent)));
    }
    // Whoever has answered once answers again in about that time, unless it is far away and busy.
    search.wait = (start.elapsed() * 4).clamp(Duration::from_millis(60), path.deadline / 4);
    let (mut fits, mut too_big) = (least, first + 1);
    let mut narrowed_by = None;
    let mut black_hole = false;
    // First by what the routers say.
    while fits + 1 < too_big {
        let size = too_big - 1;
        match search.try_sizes(&[size]).await.map_err(failed)?[0] {
            Fate::Fits => fits = size,
            Fate::TooBig(router, mtu) if (fits..size).contains(&mtu) => {
                narrowed_by = Some(router);
                too_big = mtu + 1;
                if mtu == fits {
                    break;
                }
            }
            Fate::TooBigHere => too_big = size,
            // It doesn't say what fits, or nobody says anything.
            Fate::TooBig(router, _) => {
                narrowed_by = Some(router);
                too_big = size;
                break;
            }
            Fate::Unknown => {
                (black_hole, narrowed_by, too_big) = (true, None, size);
                break;
            }
        }
    }
    // Then by what gets through.
    while fits + 1 < too_big {
        let step = (too_big - fits).div_ceil(AT_ONCE + 1).max(1);
        let sizes: Vec<u32> = (1..=AT_ONCE).map(|n| fits + n * step).take_while(|size| *size < too_big).collect();
        let fates = search.try_sizes(&sizes).await.map_err(failed)?;
        let largest = sizes.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Fits).map(|(size, _)| *size).max();
        fits = largest.unwrap_or(fits);
        too_big = sizes.iter().copied().find(|size| *size > fits).unwrap_or(too_big);
        if Instant::now() >= search.end && fits + 1 < too_big {
            let why = format!("{fits} bytes fit and {too_big} don't; there was no time to find out more");
            return Ok(PathMtuReport { mtu: Some(fits), narrowed_by, black_hole, why: Some(why) });
        }
    }
    Ok(PathMtuReport { mtu: Some(fits), narrowed_by, black_hole, why: None })
}

/// Returns what the link takes by which packets to `ip` leave.
async fn first_link(rtnl: &Netlink, ip: IpAddr) -> Result<Option<u32>> {
    let Some(index) = route::get(rtnl, ip)?.and_then(|route| route.dev) else { return Ok(None) };
    Ok(link::get(rtnl, index)?.map(|link| link.mtu))
}

struct Search {
    echoes: Echoes,
    headers: u32,
    seq: u16,
    end: Instant,
    wait: Duration,
    refused: Option<String>,
}

impl Search {
    /// Sends packets of these sizes at once, those that are not answered again; returns what became of each.
    async fn try_sizes(&mut self, sizes: &[u32]) -> std::io::Result<Vec<Fate>> {
        let mut fates = vec![Fate::Unknown; sizes.len()];
        // Which size each request was of, from the first one's number on.
        let (first, mut asked) = (self.seq, Vec::new());
        for _ in 0..TRIES {
            for (at, size) in sizes.iter().enumerate().filter(|(at, _)| fates[*at] == Fate::Unknown).collect::<Vec<_>>()
            {
                match self.echoes.send(self.seq, size.saturating_sub(self.headers) as usize) {
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => fates[at] = Fate::TooBigHere,
                    Err(error) => self.refused = Some(io_text(&error).to_lowercase()),
                    Ok(()) => {}
                }
                asked.push(at);
                self.seq = self.seq.wrapping_add(1);
            }
            let until = (Instant::now() + self.wait / TRIES).min(self.end);
            while fates.contains(&Fate::Unknown) && self.refused.is_none() {
                let Some((answer, _)) = self.echoes.receive(until).await? else { break };
                let (Answer::Echo(seq) | Answer::Refusal(seq, _)) = answer;
                let Some(at) = asked.get(usize::from(seq.wrapping_sub(first))) else { continue };
                match answer {
                    Answer::Echo(_) => fates[*at] = Fate::Fits,
                    Answer::Refusal(_, refusal) => match refusal.mtu {
                        Some(mtu) => fates[*at] = Fate::TooBig(refusal.from, mtu),
                        None => self.refused = Some(refusal.to_string()),
                    },
                }
            }
            if !fates.contains(&Fate::Unknown) || self.refused.is_some() || Instant::now() >= self.end {
                break;
            }
        }
        Ok(fates)
    }
}
