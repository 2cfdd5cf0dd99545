//! How `nft list` writes a rule.

use std::fmt;

use ipnetwork::IpNetwork;

use super::rule::{Action, CtState, DnatKey, Match, Rule};
use super::{IpVersion, PortRange};

/// As it reads in a table of family inet, with the comment and without the numbers of the counter.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> =
            self.in_order().filter(|wanted| !self.is_implied(wanted)).map(|m| self.word(m)).collect();
        if self.counter {
            words.push("counter".into());
        }
        words.push(self.action.to_string());
        words.extend(self.comment.as_ref().map(|comment| format!("comment \"{comment}\"")));
        f.write_str(&words.join(" "))
    }
}

impl Rule {
    /// Tells whether another match or the action says the same, so that `nft` leaves the word out.
    fn is_implied(&self, wanted: &Match) -> bool {
        match wanted {
            Match::Nfproto(version) => {
                let by_action = matches!(&self.action,
                    Action::DnatByMap { family, key: DnatKey::ProtoAddrPort, .. } if family == version);
                by_action || self.matches.iter().any(|other| other.addresses() == Some(*version))
            }
            Match::L4Proto(_) => {
                let of_header = |m: &Match| matches!(m, Match::SrcPort(_) | Match::DstPort(_) | Match::TcpSyn);
                self.matches.iter().any(of_header)
            }
            _ => false,
        }
    }

    fn word(&self, wanted: &Match) -> String {
        let ports = |which: &str, range: &PortRange| {
            let header = self.l4_proto().and_then(|proto| proto.header_with_ports()).unwrap_or("th");
            format!("{header} {which} {range}")
        };
        match wanted {
            Match::Nfproto(IpVersion::V4) => "meta nfproto ipv4".into(),
            Match::Nfproto(IpVersion::V6) => "meta nfproto ipv6".into(),
            Match::InDev { name, not } => format!("iifname {}\"{name}\"", unless(*not)),
            Match::OutDev { name, not } => format!("oifname {}\"{name}\"", unless(*not)),
            Match::InDevOf(set) => format!("iifname @{set}"),
            Match::OutDevOf(set) => format!("oifname @{set}"),
            Match::Src { net, not } => address("saddr", net, *not),
            Match::Dst { net, not } => address("daddr", net, *not),
            Match::L4Proto(proto) => format!("meta l4proto {proto}"),
            Match::SrcPort(range) => ports("sport", range),
            Match::DstPort(range) => ports("dport", range),
            Match::CtState(states) => {
                let states = CtState::ALL.iter().filter(|state| states.contains(state)).map(|state| state.word());
                format!("ct state {}", states.collect::<Vec<_>>().join(","))
            }
            Match::CtStatusDnat => "ct status dnat".into(),
            Match::DaddrLocal => "fib daddr type local".into(),
            Match::DaddrReachedByIn => "fib daddr . iif oif != 0".into(),
            Match::TcpSyn => "tcp flags syn / syn,rst".into(),
            Match::MarkBits(bits) => format!("meta mark & {bits:#010x} == {bits:#010x}"),
        }
    }
}

impl Match {
    /// Returns the version of IP whose addresses this looks at.
    pub(super) fn addresses(&self) -> Option<IpVersion> {
        match self {
            Match::Src { net, .. } | Match::Dst { net, .. } => Some(IpVersion::of(net.ip())),
            _ => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Accept => f.write_str("accept"),
            Action::Drop => f.write_str("drop"),
            Action::Reject => f.write_str("reject"),
            Action::Return => f.write_str("return"),
            Action::Jump(chain) => write!(f, "jump {chain}"),
            Action::Masquerade => f.write_str("masquerade"),
            Action::Snat { to } => write!(f, "snat {} to {to}", IpVersion::of(*to).word()),
            Action::SetMarkBits(bits) => write!(f, "meta mark set meta mark | {bits:#010x}"),
            Action::SetMark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Action::ClampMss(None) => f.write_str("tcp option maxseg size set rt mtu"),
            Action::ClampMss(Some(bytes)) => write!(f, "tcp option maxseg size set {bytes}"),
            Action::DnatByMap { family, key, map } => {
                let ip = family.word();
                let address = match key {
                    DnatKey::ProtoPort => String::new(),
                    DnatKey::ProtoAddrPort => format!("{ip} daddr . "),
                };
                write!(f, "dnat {ip} to meta l4proto . {address}th dport map @{map}")
            }
        }
    }
}

pub(super) fn unless(not: bool) -> &'static str {
    if not { "!= " } else { "" }
}

/// Writes a network as `nft` does: without its prefix if that is the whole address.
pub(super) fn network(net: &IpNetwork) -> String {
    let whole = if net.is_ipv4() { 32 } else { 128 };
    match net.prefix() == whole {
        true => net.ip().to_string(),
        false => format!("{}/{}", net.network(), net.prefix()),
    }
}

fn address(which: &str, net: &IpNetwork, not: bool) -> String {
    format!("{} {which} {}{}", IpVersion::of(net.ip()).word(), unless(not), network(net))
}
