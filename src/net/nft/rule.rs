//! A rule as data: what it looks at, and what it does.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::IpVersion;

/// A rule: if all of `matches` hold, `action` is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What must hold. Those on the version of IP and the transport protocol are looked at first, wherever they stand.
    pub matches: Vec<Match>,
    /// What is done then.
    pub action: Action,
    /// Whether the packets that match are counted.
    #[serde(default)]
    pub counter: bool,
    /// A note for people, by which a rule can also be found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Rule {
    /// Returns a rule that doesn't count and has no comment.
    pub fn new(matches: Vec<Match>, action: Action) -> Rule {
        Rule { matches, action, counter: false, comment: None }
    }

    /// Returns the matches in the order in which they are looked at.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Match> {
        let first = |wanted: &&Match| matches!(wanted, Match::Nfproto(_) | Match::L4Proto(_));
        self.matches.iter().filter(first).chain(self.matches.iter().filter(move |wanted| !first(wanted)))
    }

    /// Returns the transport protocol that the rule is for.
    pub(super) fn l4_proto(&self) -> Option<L4Proto> {
        self.matches.iter().find_map(|wanted| match wanted {
            Match::L4Proto(proto) => Some(*proto),
            _ => None,
        })
    }
}

/// One thing that a rule looks at. `not` turns it round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// The packet is of that version of IP. Like `meta nfproto ipv4`.
    Nfproto(IpVersion),
    /// It came in by the device. Like `iifname "eth0"`.
    InDev {
        /// The device; it need not be there.
        name: String,
        /// By any other.
        #[serde(default)]
        not: bool,
    },
    /// It goes out by the device. Like `oifname "eth0"`.
    OutDev {
        /// The device; it need not be there.
        name: String,
        /// By any other.
        #[serde(default)]
        not: bool,
    },
    /// It came in by a device of the set. Like `iifname @SET`.
    InDevOf(String),
    /// It goes out by a device of the set. Like `oifname @SET`.
    OutDevOf(String),
    /// It comes from the network. Like `ip saddr 10.0.0.0/8`. Packets of the other version of IP never match.
    Src {
        /// The network.
        net: IpNetwork,
        /// From any other of that version.
        #[serde(default)]
        not: bool,
    },
    /// It goes to the network. Like `ip daddr 10.0.0.0/8`. Packets of the other version of IP never match.
    Dst {
        /// The network.
        net: IpNetwork,
        /// To any other of that version.
        #[serde(default)]
        not: bool,
    },
    /// It is of that transport protocol. Like `meta l4proto tcp`.
    L4Proto(L4Proto),
    /// It comes from one of the ports: of the rule's `L4Proto`, like `tcp sport 80`; without one of whatever stands where
    /// tcp, udp, sctp and dccp have it, like `th sport 80`.
    SrcPort(PortRange),
    /// It goes to one of the ports. Like `tcp dport 80-90` or `th dport 80`, as for `SrcPort`.
    DstPort(PortRange),
    /// Its connection is in one of the states. Like `ct state established,related`.
    CtState(Vec<CtState>),
    /// Its connection has a translated destination. Like `ct status dnat`.
    CtStatusDnat,
    /// Its destination is an address of this host. Like `fib daddr type local`.
    DaddrLocal,
    /// Its destination is reached by the device that it came in by: it goes back out there. Valid in the hooks prerouting,
    /// input and forward, since Linux 5.17. Like `fib daddr . iif oif != 0`.
    DaddrReachedByIn,
    /// It is a TCP segment that begins a connection, or the answer to it. With `L4Proto`. Like `tcp flags syn / syn,rst`.
    TcpSyn,
    /// All of these bits of its mark are set. Like `meta mark & 0x00000100 == 0x00000100`.
    MarkBits(u32),
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The packet passes this base chain.
    Accept,
    /// It is gone without a word.
    Drop,
    /// It is gone, and the sender hears "port unreachable" by ICMP. In the hooks input, forward and output.
    Reject,
    /// The rest of this chain is left out.
    Return,
    /// The rules of another chain of the table come next.
    Jump(String),
    /// It gets the address of the device that it goes out by as its source. In chains of kind nat at postrouting.
    Masquerade,
    /// It gets another source. In chains of kind nat at postrouting and input.
    Snat {
        /// The address.
        to: IpAddr,
    },
    /// These bits of its mark are set and the others kept. Like `meta mark set meta mark | 0x00000100`.
    SetMarkBits(u32),
    /// Its mark is this one. Like `meta mark set 0x00000007`.
    SetMark(u32),
    /// The largest segment that it announces is at most so many bytes, or what the path's MTU leaves. For TCP segments with SYN.
    /// Like `tcp option maxseg size set rt mtu`.
    ClampMss(Option<u16>),
    /// It gets the destination, address and port, that a map has for it; if the map has none, the next rule decides. In
    /// chains of kind nat at prerouting and output. Like `dnat ip to meta l4proto . th dport map @MAP`.
    DnatByMap {
        /// Which version of IP the map's addresses are of.
        family: IpVersion,
        /// What the map is asked for.
        key: DnatKey,
        /// The map, whose data are address and port.
        map: String,
    },
}

/// What a map of destinations is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnatKey {
    /// Transport protocol and destination port.
    ProtoPort,
    /// Transport protocol, destination address and destination port.
    ProtoAddrPort,
}

/// The state of a connection, as conntrack sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CtState {
    /// Its packets make no sense.
    Invalid,
    /// It was answered.
    Established,
    /// It belongs to another one, such as an ICMP error does.
    Related,
    /// It is beginning.
    New,
}

impl CtState {
    /// All, in the order in which `nft` writes them.
    pub(super) const ALL: [CtState; 4] = [CtState::Invalid, CtState::Established, CtState::Related, CtState::New];

    /// Returns its bit (NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h).
    pub(super) fn bit(self) -> u32 {
        match self {
            CtState::Invalid => 1,
            CtState::Established => 2,
            CtState::Related => 4,
            CtState::New => 8,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            CtState::Invalid => "invalid",
            CtState::Established => "established",
            CtState::Related => "related",
            CtState::New => "new",
        }
    }
}

/// A transport protocol, or what IP carries in place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum L4Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP.
    Icmp,
    /// ICMP of IPv6.
    Icmpv6,
    /// Another number of IANA's list.
    Other(u8),
}

impl L4Proto {
    /// Returns its number.
    pub fn number(self) -> u8 {
        match self {
            L4Proto::Icmp => 1,
            L4Proto::Tcp => 6,
            L4Proto::Udp => 17,
            L4Proto::Icmpv6 => 58,
            L4Proto::Sctp => 132,
            L4Proto::Other(number) => number,
        }
    }

    /// Returns nf_tables' word for its header, if it begins with a source and a destination port.
    pub(super) fn header_with_ports(self) -> Option<&'static str> {
        match self.number() {
            6 => Some("tcp"),
            17 => Some("udp"),
            33 => Some("dccp"),
            132 => Some("sctp"),
            136 => Some("udplite"),
            _ => None,
        }
    }
}

impl From<u8> for L4Proto {
    fn from(number: u8) -> L4Proto {
        match number {
            1 => L4Proto::Icmp,
            6 => L4Proto::Tcp,
            17 => L4Proto::Udp,
            58 => L4Proto::Icmpv6,
            132 => L4Proto::Sctp,
            other => L4Proto::Other(other),
        }
    }
}

impl fmt::Display for L4Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match L4Proto::from(self.number()) {
            L4Proto::Tcp => f.write_str("tcp"),
            L4Proto::Udp => f.write_str("udp"),
            L4Proto::Sctp => f.write_str("sctp"),
            L4Proto::Icmp => f.write_str("icmp"),
            L4Proto::Icmpv6 => f.write_str("ipv6-icmp"),
            L4Proto::Other(number) => write!(f, "{number}"),
        }
    }
}

/// Ports that follow each other, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub from: u16,
    /// The highest.
    pub to: u16,
}

impl From<u16> for PortRange {
    fn from(port: u16) -> PortRange {
        PortRange { from: port, to: port }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from == self.to {
            true => write!(f, "{}", self.from),
            false => write!(f, "{}-{}", self.from, self.to),
        }
    }
}
