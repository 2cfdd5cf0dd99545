//! The routers on the way to an address: echo requests with rising hop limits, all at once.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::echoes::{EchoWay, Echoes};
use super::icmp_packet::Answer;
use crate::net::error::io_text;
use crate::net::{Error, Netns, Result};

/// A way that is to be traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Where to.
    pub way: EchoWay,
    /// The longest way that is looked at.
    pub hops_max: u8,
    /// The time for all of it.
    pub deadline: Duration,
}

/// A router on the way, or what is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// How far away it is, from 1.
    pub hop: u8,
    /// Its address; none if it says nothing.
    pub ip: Option<IpAddr>,
    /// How long its answer took.
    pub rtt: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceReport {
    /// The hops, up to the last one that said something, and where the end was not reached, the silent one behind it.
    pub hops: Vec<Hop>,
    /// Whether the last one is the address itself.
    pub reached: bool,
    /// What is wrong, if something is.
    pub why: Option<String>,
}

/// The numbers of second requests are so much higher than those of first ones.
const AGAIN: u16 = 256;

/// How long a router that says nothing is waited for at least.
const PATIENCE: Duration = Duration::from_millis(100);

/// What was sent with one hop limit.
struct Probe {
    sent_at: Instant,
    again_at: Instant,
    heard: Option<(IpAddr, Duration)>,
    end: bool,
}

/// Sends echo requests with the hop limits 1, 2, 3 … at once, and again to those that stay silent.
/// Returns when the address and all routers before it have answered, or at the deadline.
///
/// Like `traceroute -I`. Routers limit how many errors they send to one host (net.ipv4.icmp_ratelimit): asked often, they fall
/// silent. Fails only if there can be no such socket, as `ping` does.
pub async fn trace(netns: &Netns, trace: &Trace) -> Result<TraceReport> {
    let doing = format!("trace the way to {}", trace.way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let mut echoes = Echoes::open(netns, &trace.way, &doing)?;
    let start = Instant::now();
    let end = start + trace.deadline;
    let mut probes = Vec::new();
    for hops in 1..=trace.hops_max {
        echoes.set_hops(hops).map_err(failed)?;
        if let Err(error) = echoes.send(hops.into(), 32) {
            if hops == 1 {
                let why = Some(io_text(&error).to_lowercase());
                return Ok(TraceReport { hops: Vec::new(), reached: false, why });
            }
            break;
        }
        let now = Instant::now();
        probes.push(Probe { sent_at: now, again_at: now, heard: None, end: false });
    }
    let mut refused: Option<(usize, String)> = None;
    // Once more for each that is silent, on a way on which something may get lost.
    let again = start + trace.deadline / 3;
    let mut sent_again = None;
    loop {
        let last = probes.iter().position(|probe| probe.end).or(refused.as_ref().map(|(at, _)| *at));
        if last.is_some_and(|last| probes[..=last].iter().all(|probe| probe.heard.is_some())) {
            break;
        }
        // Once the end has answered, a router before it that says nothing is not waited for much longer than the end was.
        let rtt = last.and_then(|last| probes[last].heard).map(|(_, rtt)| (rtt * 3).max(PATIENCE));
        let until = match sent_again {
            None => rtt.map_or(again, |rtt| again.min(start + rtt)),
            Some(sent) => rtt.map_or(end, |rtt| end.min(sent + rtt)),
        };
        match echoes.receive(until).await.map_err(failed)? {
            Some((answer, from)) => {
                let (Answer::Echo(seq) | Answer::Refusal(seq, _)) = answer;
                let at = usize::from((seq % AGAIN).wrapping_sub(1));
                let Some(probe) = probes.get_mut(at) else { continue };
                let sent_at = if seq > AGAIN { probe.again_at } else { probe.sent_at };
                probe.heard.get_or_insert((from, sent_at.elapsed()));
                match answer {
                    Answer::Echo(_) => probe.end = true,
                    Answer::Refusal(_, refusal) if !refusal.expired => {
                        if refused.as_ref().is_none_or(|(first, _)| at < *first) {
                            refused = Some((at, refusal.to_string()));
                        }
                    }
                    Answer::Refusal(..) => {}
                }
            }
            None if sent_again.is_some() => break,
            None => {
                sent_again = Some(Instant::now());
                let last = last.map_or(probes.len(), |last| last + 1);
                for (hops, probe) in (1u8..).zip(&mut probes[..last]).filter(|(_, probe)| probe.heard.is_none()) {
                    echoes.set_hops(hops).map_err(failed)?;
                    let _ = echoes.send(AGAIN + u16::from(hops), 32);
                    probe.again_at = Instant::now();
                }
            }
        }
    }
    Ok(report(&probes, refused, trace))
}

fn report(probes: &[Probe], refused: Option<(usize, String)>, trace: &Trace) -> TraceReport {
    let reached = probes.iter().position(|probe| probe.end);
    let heard = probes.iter().rposition(|probe| probe.heard.is_some());
    let last = match (reached, &refused, heard) {
        (Some(last), _, _) => last + 1,
        (None, Some((at, _)), _) => at + 1,
        (None, None, Some(heard)) => (heard + 2).min(probes.len()),
        (None, None, None) => 1.min(probes.len()),
    };
    let hop = |(hop, probe): (u8, &Probe)| Hop {
        hop,
        ip: probe.heard.map(|(ip, _)| ip),
        rtt: probe.heard.map(|(_, rtt)| rtt),
    };
    let hops: Vec<Hop> = (1..).zip(&probes[..last]).map(hop).collect();
    let why = match (reached, refused, heard) {
        (Some(_), _, _) => None,
        (None, Some((_, text)), _) => Some(text),
        (None, None, Some(heard)) if heard + 1 == probes.len() => {
            Some(format!("it is more than {} hops away", trace.hops_max))
        }
        (None, None, Some(heard)) => {
            let ip = probes[heard].heard.map(|(ip, _)| ip.to_string()).unwrap_or_default();
            Some(format!("no answer from beyond hop {} ({ip})", heard + 1))
        }
        (None, None, None) => Some(format!("no answer within {}", super::socket::in_words(trace.deadline))),
    };
    TraceReport { hops, reached: reached.is_some(), why }
}
