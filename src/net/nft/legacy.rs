//! ip_tables, the kernel's packet filter before nf_tables and beside it: only whether it drops forwarded packets
//! (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h).

use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::IpVersion;
use crate::net::{Error, Netns, Result};

/// NF_INET_FORWARD of linux/netfilter.h.
const FORWARD: usize = 2;

/// `struct ipt_getinfo` and `struct ip6t_getinfo`.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// The name and the size that stand before the entries, in `struct ipt_get_entries`.
const ENTRIES_HEAD: usize = 40;

/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, the same numbers for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// Where ip_tables drops what no rule of FORWARD let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyDrop {
    /// By its policy.
    Policy,
    /// By a rule that takes all that is left: which one of the chain, counted from 1.
    Rule(usize),
}

/// Tells whether and where the table `filter` of ip_tables (`iptables-legacy`) drops what it is to forward: by the policy of
/// FORWARD or by a last rule that drops or rejects all. A kernel or a namespace without that table does not, and is not made to
/// have it.
///
/// Like `iptables-legacy -S FORWARD` and `ip6tables-legacy -S FORWARD`. EPERM without CAP_NET_ADMIN.
pub fn legacy_forward_drop(netns: &Netns, version: IpVersion) -> Result<Option<LegacyDrop>> {
    let doing = match version {
        IpVersion::V4 => "ask ip_tables for its table `filter`",
        IpVersion::V6 => "ask ip6_tables for its table `filter`",
    };
    let entries = netns.inside(|| entries(version))?.map_err(|error| Error::io(doing, error))?;
    Ok(entries.and_then(|(info, entries)| drops(version, &info, &entries)))
}

/// Reads the table in the namespace of the calling thread; none if it was never used there.
fn entries(version: IpVersion) -> std::io::Result<Option<(Info, Vec<u8>)>> {
    // Asked about a table that is not there, the kernel would load it.
    let (names, domain, level) = match version {
        IpVersion::V4 => ("/proc/thread-self/net/ip_tables_names", Domain::IPV4, libc::IPPROTO_IP),
        IpVersion::V6 => ("/proc/thread-self/net/ip6_tables_names", Domain::IPV6, libc::IPPROTO_IPV6),
    };
    match std::fs::read_to_string(names) {
        Ok(names) if names.lines().any(|name| name == "filter") => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A namespace that was made before its user was mapped (net/netfilter/x_tables.c, xt_proto_init): a sandbox of an
        // ordinary user, in which nobody has used the table.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    }
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let mut bytes = [0; size_of::<Info>()];
    bytes[..6].copy_from_slice(b"filter");
    ask(&socket, level, GET_INFO, &mut bytes)?;
    let Some(info) = Info::read(&bytes) else { return Ok(None) };
    let mut bytes = vec![0; ENTRIES_HEAD + info.size as usize];
    bytes[..32].copy_from_slice(&info.name);
    bytes[32..36].copy_from_slice(&info.size.to_ne_bytes());
    // EAGAIN if somebody changed it since.
    ask(&socket, level, GET_ENTRIES, &mut bytes)?;
    Ok(Some((info, bytes.split_off(ENTRIES_HEAD))))
}

fn ask(socket: &Socket, level: libc::c_int, name: libc::c_int, bytes: &mut [u8]) -> std::io::Result<()> {
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel reads and writes at most `length` bytes, which is what the buffer has, and the buffer lives on.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, bytes.as_mut_ptr().cast(), &raw mut length) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

impl Info {
    fn read(bytes: &[u8]) -> Option<Info> {
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(32 + at * 4..)?.first_chunk()?));
        let words = |at: usize| Some([word(at)?, word(at + 1)?, word(at + 2)?, word(at + 3)?, word(at + 4)?]);
        Some(Info {
            name: *bytes.first_chunk()?,
            valid_hooks: word(0)?,
            hook_entry: words(1)?,
            underflow: words(6)?,
            num_entries: word(11)?,
            size: word(12)?,
        })
    }
}

/// Tells where the chain FORWARD ends in a drop; none also if the bytes make no sense.
fn drops(version: IpVersion, info: &Info, entries: &[u8]) -> Option<LegacyDrop> {
    let (start, end) = (info.hook_entry[FORWARD] as usize, info.underflow[FORWARD] as usize);
    let policy = RuleMatch::read(version, entries.get(end..)?)?;
    let (mut at, mut last, mut number) = (start, None, 0);
    while at < end {
        let entry = RuleMatch::read(version, entries.get(at..)?)?;
        at += entry.length;
        number += 1;
        last = Some(entry);
    }
    match last.filter(|last| last.takes_all) {
        Some(last) if last.target == LegacyTarget::Accept => None,
        Some(last) if last.target == LegacyTarget::Drop => Some(LegacyDrop::Rule(number)),
        _ => (policy.target == LegacyTarget::Drop).then_some(LegacyDrop::Policy),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum LegacyTarget {
    Accept,
    Drop,
    Other,
}

/// What is asked of a rule.
struct RuleMatch {
    /// In bytes.
    length: usize,
    /// Whether it looks at nothing.
    takes_all: bool,
    target: LegacyTarget,
}

impl RuleMatch {
    fn read(version: IpVersion, bytes: &[u8]) -> Option<RuleMatch> {
        // The bytes of `struct ipt_ip` or `struct ip6t_ip6` with padding, of all of the entry, and of `nfcache` between.
        let (ip, size) = match version {
            IpVersion::V4 => (84, 112),
            IpVersion::V6 => (136, 168),
        };
        let number = |at: usize| Some(usize::from(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
        let (target, length) = (number(ip + 4)?, number(ip + 6)?);
        if length < size || target < size {
            return None;
        }
        // No addresses, devices, protocol or flags, and no matches.
        let takes_all = bytes.get(..ip)?.iter().all(|byte| *byte == 0) && target == size;
        Some(RuleMatch { length, takes_all, target: RuleMatch::target(bytes.get(target..length)?)? })
    }

    /// Reads `struct xt_entry_target`: its size, a name of 29 bytes, a revision, and for the standard target, which has no
    /// name, a verdict.
    fn target(bytes: &[u8]) -> Option<LegacyTarget> {
        /// -NF_DROP - 1 and -NF_ACCEPT - 1.
        const DROP: i32 = -1;
        const ACCEPT: i32 = -2;
        let name = bytes.get(2..31)?.split(|byte| *byte == 0).next()?;
        let verdict = i32::from_ne_bytes(*bytes.get(32..)?.first_chunk()?);
        Some(match (name, verdict) {
            (b"", DROP) | (b"REJECT", _) => LegacyTarget::Drop,
            (b"", ACCEPT) => LegacyTarget::Accept,
            _ => LegacyTarget::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{netns, said};

    const VERSIONS: [(IpVersion, &str, &str); 2] = [
        (IpVersion::V4, "iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
        (IpVersion::V6, "ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
    ];

    #[test]
    fn what_iptables_legacy_drops_is_seen() {
        for (version, command, _) in VERSIONS {
            let netns = netns();
            let (policy, rule) = (Some(LegacyDrop::Policy), |number| Some(LegacyDrop::Rule(number)));
            for (arguments, drops) in [
                ("-P FORWARD ACCEPT", None),
                ("-P INPUT DROP", None),
                ("-P FORWARD DROP", policy),
                ("-A FORWARD -i eth0 -j DROP", policy),
                ("-A FORWARD -j ACCEPT", None),
                ("-F FORWARD", policy),
                ("-P FORWARD ACCEPT", None),
                ("-A FORWARD -i eth0 -m comment --comment x -j DROP", None),
                ("-A FORWARD -m conntrack --ctstate NEW -j DROP", None),
                ("-A FORWARD -p tcp -j REJECT", None),
                ("-A FORWARD -j REJECT", rule(4)),
                ("-A FORWARD -i eth0 -j ACCEPT", None),
                ("-A FORWARD -j DROP", rule(6)),
            ] {
                said(&netns, &format!("{command} {arguments}"), "");
                assert_eq!(legacy_forward_drop(&netns, version).expect("asked"), drops, "{command} {arguments}");
            }
        }
    }

    #[test]
    fn a_namespace_without_the_table_is_left_without() {
        let netns = netns();
        for (version, command, names) in VERSIONS {
            let names = || netns.inside(|| std::fs::read_to_string(names)).expect("inside").unwrap_or_default();
            assert_eq!(legacy_forward_drop(&netns, version).expect("asked"), None);
            assert_eq!(names(), "");
            said(&netns, &format!("{command} -t nat -S"), "");
            assert_eq!(legacy_forward_drop(&netns, version).expect("asked"), None);
            assert_eq!(names(), "nat\n");
        }
    }

    #[test]
    fn bytes_that_make_no_sense_are_no_drop() {
        let info = |bytes: [u8; size_of::<Info>()]| Info::read(&bytes).expect("read");
        let zero = info([0; size_of::<Info>()]);
        let far_away = info([0x11; size_of::<Info>()]);
        for entries in [&[] as &[u8], &[0; 40], &[0; 400], &[0xff; 400]] {
            for version in [IpVersion::V4, IpVersion::V6] {
                assert_eq!(drops(version, &zero, entries), None);
                assert_eq!(drops(version, &far_away, entries), None);
            }
        }
    }
}
