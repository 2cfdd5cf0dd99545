//! Whether each of many hosts reaches each other one: one socket a namespace, as many echoes under way as the network bears.
//!
//! What has to be minded are the neighbour tables. Hosts on one link ask all others for their Ethernet addresses, by broadcasts that
//! a bridge copies to every port: a host learns from whom it is asked, so the way back goes unasked, and comes second. And the kernel
//! has one table for all namespaces together, with room for 1024 neighbours by default (arp(7), gc_thresh3): where there are more
//! pairs, what a pair has made the tables learn is deleted again once it is done.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::icmp_packet::{Answer, echo_request, read_any};
use super::socket::set_option;
use crate::net::error::io_text;
use crate::net::ip::neigh;
use crate::net::{Address, Error, Neigh, Netlink, Netns, Result};

/// How many pairs are under way at first, and at least.
const WINDOW_MIN: usize = 8;
/// An answer that takes no longer than the fastest one and this shows a network that is not busy.
const NOT_BUSY: Duration = Duration::from_millis(2);
/// How often an echo is sent before its pair is late.
const TRIES: u8 = 3;
/// How often what was late is asked again, when all others are done.
const ROUNDS: u8 = 2;
/// From how many pairs on their own number may make some late: a bridge copies each question for a neighbour to all its ports.
const MANY: usize = 500;
/// The size of the kernel's neighbour tables unless somebody has changed it.
const NEIGHBOURS: usize = 1024;

/// A host: what was opened in its namespace, and its addresses.
#[derive(Debug)]
pub struct PingHost {
    v4: Option<Socket>,
    v6: Option<Socket>,
    route: Netlink,
    addresses: Vec<Address>,
    asked: Option<IpAddr>,
    known: BTreeSet<(u32, IpAddr)>,
}

impl PingHost {
    /// Opens what is needed in a namespace that has these addresses, and knows these neighbours. Others ask it by the address
    /// `asked`, or by the nearest.
    pub fn open(
        netns: &Netns,
        addresses: Vec<Address>,
        neighbours: &[Neigh],
        asked: Option<IpAddr>,
    ) -> Result<PingHost> {
        let doing = "open sockets for echoes";
        let of = |v6: bool| addresses.iter().any(|address| address.net.is_ipv6() == v6);
        let (want_v4, want_v6) = (of(false), of(true));
        let open = || -> io::Result<_> {
            let v4 = want_v4.then(|| raw_socket(false)).transpose()?;
            let v6 = want_v6.then(|| raw_socket(true)).transpose()?;
            Ok((v4, v6))
        };
        let (v4, v6) = netns.inside(open)?.map_err(|error| Error::io(doing, error))?;
        let route = Netlink::open(netns)?;
        let known = neighbours.iter().map(|neighbour| (neighbour.index, neighbour.ip)).collect();
        Ok(PingHost { v4, v6, route, addresses, asked, known })
    }

    fn socket(&self, v6: bool) -> Option<&Socket> {
        if v6 { self.v6.as_ref() } else { self.v4.as_ref() }
    }

    /// Returns the address to ask `other` by, and the link of this host that it is on: the nearest, which is one on a link of this host
    /// before others and IPv4 before IPv6, if nothing else was asked for.
    fn address_of(&self, other: &PingHost, v6: Option<bool>) -> Option<(IpAddr, Option<u32>)> {
        let global = |address: &&Address| address.scope == "global" && v6.is_none_or(|v6| v6 == address.net.is_ipv6());
        let link = |ip: IpAddr| self.addresses.iter().find(|own| own.net.contains(ip)).map(|own| own.index);
        if let Some(ip) = other.asked {
            return self.socket(ip.is_ipv6()).map(|_| (ip, link(ip)));
        }
        let near = other.addresses.iter().filter(global).filter(|address| self.socket(address.net.is_ipv6()).is_some());
        let near = near.map(|address| (address.net.ip(), link(address.net.ip())));
        near.min_by_key(|(ip, link)| (link.is_none(), ip.is_ipv6()))
    }
}

fn raw_socket(v6: bool) -> io::Result<Socket> {
    /// The types that are let in: a bit that is set keeps one out (ICMP_FILTER of raw(7)): echo replies, unreachable, time exceeded.
    const WANTED_V4: u32 = !(1 << 0 | 1 << 3 | 1 << 11);
    const ICMP_FILTER: libc::c_int = 1;
    let socket = match v6 {
        false => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?,
        true => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?,
    };
    socket.set_nonblocking(true)?;
    if !v6 {
        set_option(&socket, libc::SOL_RAW, ICMP_FILTER, WANTED_V4 as libc::c_int)?;
    }
    Ok(socket)
}

/// What is to be found out.
#[derive(Debug, Clone, Copy)]
pub struct PingAll {
    /// IPv6 or IPv4 alone; whichever there is, IPv4 first, if it is not said.
    pub v6: Option<bool>,
    /// How long one pair may take.
    pub deadline: Duration,
}

/// A pair that does not reach each other, in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The number of the host that sent.
    pub from: usize,
    /// The number of the host that did not answer.
    pub to: usize,
    /// The address that was tried.
    pub ip: Option<IpAddr>,
    /// Why, or that nothing was heard.
    pub why: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingAllReport {
    /// How many ordered pairs there are.
    pub pairs: usize,
    /// How many echoes were sent.
    pub sent: usize,
    /// The pairs that were lost, by their numbers.
    pub lost: Vec<Lost>,
}

/// One direction of a pair.
#[derive(Debug, Clone)]
struct Leg {
    from: usize,
    to: usize,
    ip: Option<IpAddr>,
    link: Option<u32>,
    tries: u8,
    sent_at: Instant,
    settled: bool,
    why: Option<String>,
}

struct Pair {
    legs: [Leg; 2],
    began: Instant,
}

/// Sends an echo from each host to each other one, and again where none comes back; returns who was not reached.
///
/// Like `pingall` of Mininet. Fails only if the sockets can't be used.
pub async fn ping_all(mut hosts: Vec<PingHost>, ask: &PingAll) -> Result<PingAllReport> {
    let failed = |error| Error::io("ping all pairs", error);
    let token = RandomState::new().hash_one(hosts.len()).to_ne_bytes();
    let id = u16::from_ne_bytes([token[0], token[1]]);
    let (tell, mut heard) = mpsc::unbounded_channel();
    let mut readers = JoinSet::new();
    for (number, host) in hosts.iter_mut().enumerate() {
        for (v6, socket) in [(false, &host.v4), (true, &host.v6)] {
            let Some(socket) = socket else { continue };
            let reader = EchoReader { host: number, v6, id, token, tell: tell.clone() };
            let socket = socket.try_clone().map_err(failed)?;
            // SAFETY: a `Socket` owns its descriptor, keeps it open while it lives, and always shows the same one.
            let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| failed(error.into()))?;
            readers.spawn(reader.read(socket));
        }
    }
    let mut work = PingWork::new(hosts, ask, id, token);
    while !work.is_done() {
        work.send_more();
        if let Ok(Some((host, answer))) = timeout_at(work.next_look(), heard.recv()).await {
            work.hear(host, answer);
            // As many as there are: each wake-up costs more than an answer.
            while let Ok((host, answer)) = heard.try_recv() {
                work.hear(host, answer);
            }
        }
        work.look();
    }
    readers.shutdown().await;
    work.report.lost.sort_by_key(|lost| (lost.from, lost.to));
    Ok(work.report)
}

struct EchoReader {
    host: usize,
    v6: bool,
    id: u16,
    token: [u8; 8],
    tell: mpsc::UnboundedSender<(usize, Answer)>,
}

impl EchoReader {
    async fn read(self, socket: AsyncFd<Socket>) {
        let mut buffer = vec![0; 2048];
        while let Ok(mut ready) = socket.readable().await {
            loop {
                let (length, from) = match recvfrom::<SockaddrStorage>(socket.get_ref().as_raw_fd(), &mut buffer) {
                    Ok(received) => received,
                    Err(nix::Error::EAGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    // An error that was kept for the socket, and is gone with this.
                    Err(_) => continue,
                };
                let from = from.as_ref().and_then(|from| from.as_sockaddr_in6()).map(|from| IpAddr::V6(from.ip()));
                if let Some(answer) = read_any(&buffer[..length], from, self.v6, self.id, &self.token)
                    && self.tell.send((self.host, answer)).is_err()
                {
                    return;
                }
            }
        }
    }
}

/// All that is under way.
struct PingWork {
    hosts: Vec<PingHost>,
    ask: PingAll,
    id: u16,
    token: [u8; 8],
    /// Pairs that were not begun: how far apart, and the first of the two.
    next: (usize, usize),
    under_way: BTreeMap<(usize, usize), Pair>,
    /// Pairs that are asked again now.
    again: VecDeque<(usize, usize)>,
    /// Pairs that were late, to be asked again.
    late: Vec<(usize, usize)>,
    /// How often the late ones were asked again.
    round: u8,
    /// Whether this machine was late itself.
    was_busy: bool,
    window: f64,
    window_max: usize,
    fastest: Duration,
    forget: bool,
    looked_at: Instant,
    report: PingAllReport,
}

impl PingWork {
    fn new(hosts: Vec<PingHost>, ask: &PingAll, id: u16, token: [u8; 8]) -> PingWork {
        let pairs = hosts.len() * hosts.len().saturating_sub(1);
        let room = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3");
        let room: usize = room.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(NEIGHBOURS);
        // Half of the table may be others'. Each pair takes two.
        let window_max = (room / 4).clamp(WINDOW_MIN, 1024);
        PingWork {
            hosts,
            ask: *ask,
            id,
            token,
            next: (1, 0),
            under_way: BTreeMap::new(),
            late: Vec::new(),
            again: VecDeque::new(),
            round: 0,
            was_busy: false,
            window: WINDOW_MIN as f64,
            window_max,
            fastest: ask.deadline,
            forget: pairs > room / 2,
            looked_at: Instant::now(),
            report: PingAllReport { pairs, ..PingAllReport::default() },
        }
    }

    /// Tells whether nothing is left; of what was late, another round is begun.
    fn is_done(&mut self) -> bool {
        if !self.under_way.is_empty() || self.next.0 < self.hosts.len() || !self.again.is_empty() {
            return false;
        }
        if self.late.is_empty() {
            return true;
        }
        self.round += 1;
        self.again = std::mem::take(&mut self.late).into();
        self.window = WINDOW_MIN as f64;
        false
    }

    /// Tells whether late pairs are asked again, and not lost yet. A network that is all right has few of them, and only where this
    /// machine has much to do: the kernel asks for a neighbour once a second, and drops what a busy processor can't take.
    fn is_patient(&self) -> bool {
        let is_few = self.late.len() < (self.report.pairs / 16).max(64);
        self.round < ROUNDS && is_few && (self.report.pairs >= MANY || self.was_busy)
    }

    /// Returns the next pair: neighbours first, so that no host has all of its echoes at once.
    fn next_pair(&mut self) -> Option<(usize, usize)> {
        if let Some(pair) = self.again.pop_front() {
            return Some(pair);
        }
        let (apart, first) = self.next;
        if apart >= self.hosts.len() {
            return None;
        }
        self.next = if first + apart + 1 < self.hosts.len() { (apart, first + 1) } else { (apart + 1, 0) };
        Some((first, first + apart))
    }

    fn send_more(&mut self) {
        while self.under_way.len() < self.window as usize {
            let Some(key @ (a, b)) = self.next_pair() else { return };
            let now = Instant::now();
            let leg = |from: usize, to: usize| {
                let found = self.hosts[from].address_of(&self.hosts[to], self.ask.v6);
                let (ip, link) = found.map_or((None, None), |(ip, link)| (Some(ip), link));
                let why = ip.is_none().then(|| "it has no address that can be asked".to_string());
                Leg { from, to, ip, link, tries: 0, sent_at: now, settled: ip.is_none(), why }
            };
            let mut pair = Pair { legs: [leg(a, b), leg(b, a)], began: now };
            self.send(&mut pair.legs[0]);
            if pair.legs[0].settled {
                self.send(&mut pair.legs[1]);
            }
            self.put(key, pair);
        }
    }

    /// Keeps a pair, unless it is done.
    fn put(&mut self, key: (usize, usize), pair: Pair) {
        if !pair.legs.iter().all(|leg| leg.settled) {
            self.under_way.insert(key, pair);
            return;
        }
        for leg in pair.legs {
            let Some(ip) = leg.ip else {
                self.lose(leg);
                continue;
            };
            let from = &self.hosts[leg.from];
            if let Some(link) = leg.link
                && self.forget
                && !from.known.contains(&(link, ip))
            {
                neigh::forget(&from.route, link, ip);
            }
            if leg.why.is_some() {
                self.lose(leg);
            }
        }
    }

    fn lose(&mut self, leg: Leg) {
        let why = leg.why.unwrap_or_default();
        self.report.lost.push(Lost { from: leg.from, to: leg.to, ip: leg.ip, why });
    }

    fn send(&mut self, leg: &mut Leg) {
        let Some(ip) = leg.ip.filter(|_| !leg.settled) else { return };
        let Some(socket) = self.hosts[leg.from].socket(ip.is_ipv6()) else { return };
        let request = echo_request(ip.is_ipv6(), self.id, leg.to as u16, &self.token, 32);
        leg.sent_at = Instant::now();
        leg.tries += 1;
        self.report.sent += 1;
        match socket.send_to(&request, &SocketAddr::new(ip, 0).into()) {
            Ok(_) => {}
            // The queue or the neighbour table is full for the moment: tried again as if it was lost.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => self.window_shrinks(),
            Err(error) => {
                leg.settled = true;
                leg.why = Some(io_text(&error).to_lowercase());
            }
        }
    }

    fn window_shrinks(&mut self) {
        self.window = (self.window / 2.0).max(WINDOW_MIN as f64);
    }

    fn hear(&mut self, host: usize, answer: Answer) {
        let (Answer::Echo(seq) | Answer::Refusal(seq, _)) = answer;
        let other = usize::from(seq);
        let key = (host.min(other), host.max(other));
        let Some(mut pair) = self.under_way.remove(&key) else { return };
        let at = usize::from(host > other);
        let now = Instant::now();
        let leg = &mut pair.legs[at];
        match answer {
            Answer::Echo(_) => {
                (leg.settled, leg.why) = (true, None);
                if leg.tries == 1 {
                    let rtt = now - leg.sent_at;
                    self.was_busy |= rtt > self.ask.deadline / 4;
                    self.fastest = self.fastest.min(rtt);
                    match rtt {
                        rtt if rtt < self.fastest + NOT_BUSY => self.window += 1.0,
                        rtt if rtt > self.fastest * 2 + NOT_BUSY * 4 => self.window -= 1.0,
                        _ => {}
                    }
                    self.window = self.window.clamp(WINDOW_MIN as f64, self.window_max as f64);
                }
            }
            Answer::Refusal(_, refusal) => (leg.settled, leg.why) = (true, Some(refusal.to_string())),
        }
        if pair.legs[1 - at].tries == 0 {
            self.send(&mut pair.legs[1 - at]);
        }
        self.put(key, pair);
    }

    /// Returns when to look at what is late.
    fn next_look(&self) -> Instant {
        self.looked_at + self.ask.deadline / 20
    }

    /// Sends again what is late, and gives up what is too late.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.next_look() {
            return;
        }
        // It comes twenty times a deadline, unless the processor has other things to do.
        self.was_busy |= now > self.next_look() + self.ask.deadline / 5;
        self.looked_at = now;
        let patience = self.ask.deadline / u32::from(TRIES + 1);
        let mut lost = 0;
        let late: Vec<(usize, usize)> = self
            .under_way
            .iter()
            .filter(|(_, pair)| now.saturating_duration_since(pair.began) >= patience)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            let Some(mut pair) = self.under_way.remove(&key) else { continue };
            let over = now >= pair.began + self.ask.deadline;
            if over && self.is_patient() {
                self.late.push(key);
                continue;
            }
            for leg in pair.legs.iter_mut().filter(|leg| !leg.settled) {
                if over {
                    leg.settled = true;
                    leg.why = Some(format!("no answer within {}", super::socket::in_words(self.ask.deadline)));
                } else if leg.tries == 0 || now >= leg.sent_at + patience && leg.tries < TRIES {
                    lost += u32::from(leg.tries > 0);
                    self.send(leg);
                }
            }
            self.put(key, pair);
        }
        // Where few get lost, it may be that there were too many at once; where many do, it is something else.
        if (1..=4).contains(&lost) {
            self.window_shrinks();
        }
    }
}
