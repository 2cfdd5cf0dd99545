//! Ports: whether one is free in a namespace, and who has it if it is not.

pub(super) mod bound;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Error, Netns, ProcessId, Result, process};

/// The protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP. A kernel that has none of it has no port of it in use.
    Sctp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "TCP",
            Proto::Udp => "UDP",
            Proto::Sctp => "SCTP",
        })
    }
}

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Its number.
    pub pid: u32,
    /// Its name, of at most 15 bytes (proc_pid_comm(5)).
    pub name: String,
}

/// A port that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInUse {
    /// The protocol.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// The address that it is in use at, `0.0.0.0` or `::` for all; none if the kernel shows the socket in no table.
    pub at: Option<IpAddr>,
    /// Who has it; none if it is the kernel, or a process that the caller may not look at.
    pub owner: Option<PortOwner>,
}

impl fmt::Display for PortInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {} is in use", self.proto, self.port)?;
        if let Some(at) = self.at {
            write!(f, " at `{}`", SocketAddr::new(at, self.port))?;
        }
        match &self.owner {
            Some(owner) => write!(f, " by `{}` (process {})", owner.name, owner.pid),
            None => f.write_str(" by the kernel, or by a process that can't be looked at"),
        }
    }
}

/// Why a port can't be had.
#[derive(Debug)]
pub enum PortRefusal {
    /// Somebody has it.
    InUse(PortInUse),
    /// The address is not one of the namespace's.
    NotHere(IpAddr),
    /// The kernel refused for another reason, such as the right to ports below 1024.
    Kernel(Error),
}

impl fmt::Display for PortRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRefusal::InUse(in_use) => in_use.fmt(f),
            PortRefusal::NotHere(ip) => write!(f, "`{ip}` is no address of this netns"),
            PortRefusal::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PortRefusal {}

impl From<Error> for PortRefusal {
    fn from(error: Error) -> PortRefusal {
        PortRefusal::Kernel(error)
    }
}

/// Ports that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The protocol.
    pub proto: Proto,
    /// The address: one, all of one family (`0.0.0.0` or `::`), or all of both (`None`).
    pub at: Option<IpAddr>,
    /// The ports.
    pub ports: RangeInclusive<u16>,
}

/// Checks that all ports that are wanted are free in a namespace. Nothing stays bound. 60000 ports take half a second.
///
/// A port is free if bind(2) takes it from a socket without SO_REUSEADDR, which finds whatever is bound, listening or not.
/// It also finds connections that have ended and wait for their last packets (TIME_WAIT), which keep no server from the
/// port: where the kernel's tables show nothing but those, the port is free. A connection that a process still has counts.
/// Where many are wanted at one address, those to which the kernel knows no socket to be bound are not tried.
///
/// Like `ss -Hlntup 'sport = PORT'`. Names the first port that is in use and who has it. Blocks the calling thread.
pub fn check_free(netns: &Netns, wanted: &[Wanted]) -> std::result::Result<(), PortRefusal> {
    // All in one visit: each is on a thread of its own.
    netns.inside(|| {
        let mut known = KnownFree::of(wanted);
        wanted.iter().try_for_each(|wanted| check_here(wanted, &mut known))
    })?
}

/// Checks that a namespace has these addresses, as far as bind(2) can tell. Nothing stays bound. Blocks the calling thread.
pub fn check_addresses(netns: &Netns, ips: &BTreeSet<IpAddr>) -> std::result::Result<(), PortRefusal> {
    // Port 0 is whichever is free.
    netns.inside(|| ips.iter().try_for_each(|ip| is_free(Proto::Udp, Some(*ip), 0).map(|_| ())))?
}

/// From how many ports of a protocol on the kernel is asked for all that are bound: for few a bind(2) each is quicker.
const MANY: usize = 64;

/// What is known to be free without a try.
struct KnownFree {
    /// The ports to which sockets are bound, of the protocols of which many are wanted. Nothing is bound to any other.
    bound: Vec<(Proto, HashSet<u16>)>,
    /// The addresses that are the namespace's, as a first bind(2) has told.
    here: HashSet<Option<IpAddr>>,
}

impl KnownFree {
    fn of(wanted: &[Wanted]) -> KnownFree {
        let count = |proto| wanted.iter().filter(|one| one.proto == proto).map(|one| one.ports.len()).sum::<usize>();
        let bound = |(proto, number): (Proto, i32)| {
            // The kernel is asked for a probe's port too, whose absence tells that it does not tell all.
            let probe = bind(proto, Ipv4Addr::UNSPECIFIED.into(), true, 0).ok()?;
            bound::ports(number, &probe).map(|ports| (proto, ports))
        };
        let asked = [(Proto::Tcp, libc::IPPROTO_TCP), (Proto::Udp, libc::IPPROTO_UDP)];
        let bound = asked.into_iter().filter(|(proto, _)| count(*proto) >= MANY).filter_map(bound).collect();
        KnownFree { bound, here: HashSet::new() }
    }

    fn has(&self, proto: Proto, at: Option<IpAddr>, port: u16) -> bool {
        self.here.contains(&at) && self.bound.iter().any(|(of, bound)| *of == proto && !bound.contains(&port))
    }
}

/// Checks ports in the namespace of the calling thread.
fn check_here(wanted: &Wanted, known: &mut KnownFree) -> std::result::Result<(), PortRefusal> {
    let Wanted { proto, at, ports } = wanted;
    match first_taken(*proto, *at, ports.clone(), known)? {
        None => Ok(()),
        Some((port, held)) => {
            // One may be on its way out: with a process that has just been forked, and runs another program by now.
            let owned = held.iter().find_map(|held| owner_of(held.inode).map(|owner| (held.at, owner)));
            let at = owned.as_ref().map(|(at, _)| *at).or_else(|| held.first().map(|held| held.at));
            Err(PortRefusal::InUse(PortInUse { proto: *proto, port, at, owner: owned.map(|(_, owner)| owner) }))
        }
    }
}

/// A port that is in use, with the sockets that have it, as far as the kernel's tables show them.
type TakenPort = Option<(u16, Vec<BoundSocket>)>;

/// Finds the first port that is in use, in the namespace of the calling thread.
fn first_taken(
    proto: Proto,
    at: Option<IpAddr>,
    ports: RangeInclusive<u16>,
    free: &mut KnownFree,
) -> std::result::Result<TakenPort, PortRefusal> {
    // Asking for a socket would load the module, and nobody has a port of a protocol that is not there.
    if proto == Proto::Sctp && !has_sctp()? {
        return Ok(None);
    }
    let mut known: Option<SocketTable> = None;
    for port in ports {
        if free.has(proto, at, port) || is_free(proto, at, port)? {
            free.here.insert(at);
            continue;
        }
        let table = match known.take() {
            // One that came meanwhile is in no table of before.
            Some(table) if table.in_the_way(at, port).next().is_some() => table,
            _ => SocketTable::read(proto)?,
        };
        let (held, ended): (Vec<BoundSocket>, Vec<BoundSocket>) =
            table.in_the_way(at, port).partition(|held| held.inode != 0);
        if !held.is_empty() {
            return Ok(Some((port, held)));
        }
        // Bound, but neither listening nor connected, a TCP socket is in no table; or it is closed by now.
        if ended.is_empty() && !is_free(proto, at, port)? {
            return Ok(Some((port, held)));
        }
        known = Some(table);
    }
    Ok(None)
}

/// Tells whether something that `process` is, or has started, takes what comes to a port in the namespace of that process: by a
/// socket that listens, or for UDP by one that is bound and not connected.
///
/// Like `ss -Hlntup 'sport = PORT'`, of one process and those below it.
pub fn is_served(process: ProcessId, proto: Proto, port: u16) -> Result<bool> {
    let wanted: Vec<PathBuf> =
        served(process.pid, proto, port)?.iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    if wanted.is_empty() {
        return Ok(false);
    }
    let has = |pid: u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| wanted.contains(&link)))
    };
    Ok(has(process.pid) || process::descendants_of(process.pid).iter().any(|below| has(below.pid)))
}

/// Returns the inodes of the sockets that take what comes to a port, in the namespace of a process.
fn served(pid: u32, proto: Proto, port: u16) -> Result<Vec<u64>> {
    // The states of include/net/tcp_states.h: TCP_LISTEN, and TCP_CLOSE for a socket of UDP that is not connected.
    let (names, state): (&[&str], &str) = match proto {
        Proto::Tcp => (&["tcp", "tcp6"], "0A"),
        Proto::Udp => (&["udp", "udp6"], "07"),
        Proto::Sctp => (&["sctp/eps"], ""),
    };
    let mut inodes = Vec::new();
    for name in names {
        let path = format!("/proc/{pid}/net/{name}");
        let text = match fs::read_to_string(&path) {
            // A kernel without IPv6, or a process that has just ended.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL)) => continue,
            read => read.map_err(|error| Error::io(format!("read `{path}`"), error))?,
        };
        for line in text.lines().skip(1) {
            let takes = proto == Proto::Sctp || line.split_whitespace().nth(3) == Some(state);
            let read = if proto == Proto::Sctp { endpoint(line) } else { socket(line) };
            if let Some((_, held)) = read.filter(|(found, _)| takes && *found == port) {
                inodes.extend(held.iter().map(|held| held.inode).filter(|inode| *inode != 0));
            }
        }
    }
    Ok(inodes)
}

fn has_sctp() -> Result<bool> {
    let path = "/proc/thread-self/net/protocols";
    let text = fs::read_to_string(path).map_err(|error| Error::io(format!("read `{path}`"), error))?;
    Ok(text.lines().any(|line| line.split_whitespace().next() == Some("SCTP")))
}

/// Tells whether a socket can be bound to the port, and closes it again.
fn is_free(proto: Proto, at: Option<IpAddr>, port: u16) -> std::result::Result<bool, PortRefusal> {
    let Some(ip) = at else {
        // One of IPv6 that takes IPv4 too meets those of both families.
        return match bind(proto, Ipv6Addr::UNSPECIFIED.into(), false, port) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                is_free(proto, Some(Ipv4Addr::UNSPECIFIED.into()), port)
            }
            bound => is_bound(bound, Ipv6Addr::UNSPECIFIED.into(), proto, port),
        };
    };
    is_bound(bind(proto, ip, true, port), ip, proto, port)
}

fn bind(proto: Proto, ip: IpAddr, alone: bool, port: u16) -> std::io::Result<Socket> {
    let (kind, number) = match proto {
        Proto::Tcp => (Type::STREAM, libc::IPPROTO_TCP),
        Proto::Udp => (Type::DGRAM, libc::IPPROTO_UDP),
        Proto::Sctp => (Type::STREAM, libc::IPPROTO_SCTP),
    };
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), kind, Some(number.into()))?;
    if ip.is_ipv6() {
        socket.set_only_v6(alone)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn is_bound(
    bound: std::io::Result<Socket>,
    ip: IpAddr,
    proto: Proto,
    port: u16,
) -> std::result::Result<bool, PortRefusal> {
    let Err(error) = bound else { return Ok(true) };
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => Ok(false),
        Some(libc::EADDRNOTAVAIL) => Err(PortRefusal::NotHere(ip)),
        _ => Err(Error::io(format!("bind {proto} port {port}"), error).into()),
    }
}

/// A socket that is bound to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BoundSocket {
    at: IpAddr,
    /// What tells it in /proc/PID/fd; 0 for one that no process has any more.
    inode: u64,
}

/// The sockets of one protocol, by their port.
#[derive(Debug)]
struct SocketTable(BTreeMap<u16, Vec<BoundSocket>>);

impl SocketTable {
    /// Reads the tables of the namespace that the calling thread is in.
    fn read(proto: Proto) -> Result<SocketTable> {
        let names: &[&str] = match proto {
            Proto::Tcp => &["tcp", "tcp6"],
            Proto::Udp => &["udp", "udp6"],
            Proto::Sctp => &["sctp/eps"],
        };
        let mut sockets: BTreeMap<u16, Vec<BoundSocket>> = BTreeMap::new();
        for name in names {
            let path = format!("/proc/thread-self/net/{name}");
            let text = match fs::read_to_string(&path) {
                // A kernel without IPv6.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.map_err(|error| Error::io(format!("read `{path}`"), error))?,
            };
            for line in text.lines().skip(1) {
                let read = if proto == Proto::Sctp { endpoint(line) } else { socket(line) };
                let Some((port, held)) = read else { continue };
                sockets.entry(port).or_default().extend(held);
            }
        }
        Ok(SocketTable(sockets))
    }

    /// Returns the sockets at the port that are in the way of one at `at`.
    fn in_the_way(&self, at: Option<IpAddr>, port: u16) -> impl Iterator<Item = BoundSocket> {
        let sockets = self.0.get(&port).into_iter().flatten();
        sockets.filter(move |held| at.is_none_or(|at| is_in_the_way(held.at, at))).copied()
    }
}

/// Tells whether a socket at `there` keeps one at `at` from the same port. One at `::` may or may not take IPv4 too, which no
/// table tells; where it does not, bind(2) would not have refused.
fn is_in_the_way(there: IpAddr, at: IpAddr) -> bool {
    let [there, at] = [there, at].map(|ip| ip.to_canonical());
    let everywhere = there == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    everywhere || there == at || there.is_ipv4() == at.is_ipv4() && (there.is_unspecified() || at.is_unspecified())
}

/// Reads a line of /proc/net/tcp, udp and their like (proc_pid_net(5)).
fn socket(line: &str) -> Option<(u16, Vec<BoundSocket>)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let inode = fields.get(9)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((port, vec![BoundSocket { at: ip_of_words(ip)?, inode }]))
}

/// Reads an address that is written as the hexadecimal numbers of its 32-bit words as they are in memory.
fn ip_of_words(text: &str) -> Option<IpAddr> {
    let words = (0..text.len()).step_by(8).map(|at| u32::from_str_radix(text.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from)
}

/// Reads a line of /proc/net/sctp/eps: a port, a user, an inode, and all addresses (net/sctp/proc.c).
fn endpoint(line: &str) -> Option<(u16, Vec<BoundSocket>)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (port, inode) = (fields.get(5)?.parse().ok()?, fields.get(7)?.parse().ok()?);
    let addresses = fields.iter().skip(8).filter_map(|ip| ip.parse().ok());
    Some((port, addresses.map(|at| BoundSocket { at, inode }).collect()))
}

/// Finds the process with the lowest number that has the socket, among those that the caller may look at.
fn owner_of(inode: u64) -> Option<PortOwner> {
    let wanted = format!("socket:[{inode}]");
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(&wanted)))
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_string();
    Some(PortOwner { pid, name })
}

#[cfg(test)]
mod tests;
