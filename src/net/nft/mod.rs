//! nf_tables: packet filtering and address translation, as `nft` has it, over netlink and without any binary.
//!
//! The first line of each file says what it is for; `cargo doc --document-private-items` lists them.

pub mod conntrack;

mod batch;
mod decode;
mod encode;
mod expr;
mod foreign;
mod generation;
mod legacy;
mod list;
mod loss;
#[cfg(test)]
mod refused;
mod rule;
mod set;
mod spot;
#[cfg(test)]
mod tests;
mod text;
#[cfg(test)]
mod traffic;
mod words;

use std::fmt;
use std::net::IpAddr;

use netlink_packet_netfilter::NetfilterProtoFamily;
use serde::{Deserialize, Serialize};

pub use batch::{At, Batch};
pub use foreign::{ForwardDrop, Peer, Through, forward_drops};
pub use generation::{Generation, generation};
pub use legacy::{LegacyDrop, legacy_forward_drop};
pub use list::{
    Counter, ListedRule, RuleRef, SetWithElements, commented_rules, elements, list, list_chains, list_comments,
    list_rules, list_sets, list_tables, rules_with_comment, sets_of, with_elements,
};
pub use loss::{drop_incoming, drop_nothing, drops_incoming};
pub use rule::{Action, CtState, DnatKey, L4Proto, Match, PortRange, Rule};
pub use set::{Element, Field, Set, Value};

/// The most bytes that the name of a table, chain or set has (NFT_NAME_MAXLEN of linux/netfilter/nf_tables.h, less the
/// NUL at the end).
pub const NAME_BYTES_MAX: usize = 255;

/// The most bytes that a comment has: NFT_USERDATA_MAXLEN of linux/netfilter/nf_tables.h, less its type, its length and
/// the NUL at its end. `nft` shows a longer one than 128 bytes, but does not read it.
pub const COMMENT_BYTES_MAX: usize = 253;

/// The most bytes that the comment of an element has. The kernel keeps the length of what belongs to an element in 8 bits,
/// refuses one byte more and silently forgets a comment of two more (nft_set_ext_add_length()).
pub const ELEMENT_COMMENT_BYTES_MAX: usize = 251;

/// Whose packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Another one (NFPROTO_… of linux/netfilter.h).
    Other(u8),
}

impl From<Family> for NetfilterProtoFamily {
    fn from(family: Family) -> NetfilterProtoFamily {
        match family {
            Family::Inet => NetfilterProtoFamily::Inet,
            Family::Ip => NetfilterProtoFamily::IPv4,
            Family::Ip6 => NetfilterProtoFamily::IPv6,
            Family::Other(number) => NetfilterProtoFamily::from(number),
        }
    }
}

impl From<NetfilterProtoFamily> for Family {
    fn from(family: NetfilterProtoFamily) -> Family {
        match family {
            NetfilterProtoFamily::Inet => Family::Inet,
            NetfilterProtoFamily::IPv4 => Family::Ip,
            NetfilterProtoFamily::IPv6 => Family::Ip6,
            other => Family::Other(u8::from(other)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NetfilterProtoFamily::from(*self) {
            NetfilterProtoFamily::Inet => f.write_str("inet"),
            NetfilterProtoFamily::IPv4 => f.write_str("ip"),
            NetfilterProtoFamily::IPv6 => f.write_str("ip6"),
            NetfilterProtoFamily::ARP => f.write_str("arp"),
            NetfilterProtoFamily::Bridge => f.write_str("bridge"),
            NetfilterProtoFamily::NetDev => f.write_str("netdev"),
            other => write!(f, "{}", u8::from(other)),
        }
    }
}

/// One of the two versions of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Returns the version that an address is of.
    pub fn of(ip: IpAddr) -> IpVersion {
        if ip.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 }
    }

    /// Returns nf_tables' word for its headers: "ip" or "ip6".
    fn word(self) -> &'static str {
        match self {
            IpVersion::V4 => "ip",
            IpVersion::V6 => "ip6",
        }
    }

    /// Returns its NFPROTO_ number.
    fn number(self) -> u8 {
        match self {
            IpVersion::V4 => NetfilterProtoFamily::IPv4.into(),
            IpVersion::V6 => NetfilterProtoFamily::IPv6.into(),
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Whose packets it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether it does nothing at present (NFT_TABLE_F_DORMANT).
    pub dormant: bool,
    /// The netlink port of the process that alone may change it and takes it along when it ends (NFT_TABLE_F_OWNER).
    pub owner: Option<u32>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where the kernel calls it; none if only rules jump to it.
    pub base: Option<Base>,
}

/// Where and how the kernel calls a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// What its rules may do.
    pub kind: ChainKind,
    /// When it is called.
    pub hook: Hook,
    /// Its place among the chains of that hook, the lowest first: -300 raw, -100 dstnat, 0 filter, 100 srcnat.
    pub priority: i32,
    /// What becomes of packets that no rule decided on.
    pub policy: Policy,
}

/// What the rules of a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// Let packets pass or not.
    Filter,
    /// Translate addresses; it sees the first packet of each connection only.
    Nat,
    /// Change what the route is chosen by.
    Route,
}

impl ChainKind {
    fn word(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }
}

/// When a base chain is called: a place on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// It came in.
    Prerouting,
    /// It is for this host.
    Input,
    /// It came in and goes on to another host.
    Forward,
    /// It comes from this host.
    Output,
    /// It goes out.
    Postrouting,
    /// It came in by a device, and nobody has looked at it yet.
    Ingress,
    /// Another number, in families that have hooks of their own.
    Other(u32),
}

impl Hook {
    /// Returns its number (`enum nf_inet_hooks` of linux/netfilter.h).
    fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
            Hook::Ingress => 5,
            Hook::Other(number) => number,
        }
    }

    fn of(family: Family, number: u32) -> Hook {
        if matches!(family, Family::Other(_)) {
            return Hook::Other(number);
        }
        match number {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            5 => Hook::Ingress,
            other => Hook::Other(other),
        }
    }
}

/// What becomes of packets at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// They pass.
    Accept,
    /// They do not.
    Drop,
}

/// Returns what is wrong with a name. `nft` prints any name, but reads back only those that this lets through (its
/// scanner.l), so that a host's saved ruleset stays loadable; its own keywords, such as "dnat", are up to the caller.
fn wrong_name(of: &str, name: &str) -> Option<String> {
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("the name of a {of} has at most {NAME_BYTES_MAX} bytes, this one {}", name.len()));
    }
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.');
    let other = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if name.starts_with(first) && name.chars().all(other) {
        return None;
    }
    Some(format!(
        "`{}` is no name of a {of}: letters, digits and _ . - / after a letter, _ or .",
        name.escape_default()
    ))
}

/// Returns what is wrong with a comment. `nft` writes it in quotes and knows no escapes.
fn wrong_comment(comment: &str, bytes_max: usize) -> Option<String> {
    if comment.len() > bytes_max {
        return Some(format!("a comment here has at most {bytes_max} bytes, this one {}", comment.len()));
    }
    let bad = comment.chars().find(|c| c.is_control() || *c == '"')?;
    Some(format!("a comment can't have the character `{}`", bad.escape_default()))
}

/// Returns what is wrong with a device's name (dev_valid_name() of net/core/dev.c).
fn wrong_dev(name: &str) -> Option<String> {
    if name.len() > 15 {
        return Some(format!(
            "the name of a device has at most 15 bytes, `{}` has {}",
            name.escape_default(),
            name.len()
        ));
    }
    let good =
        !name.is_empty() && !name.contains(|c: char| c == '/' || c == '"' || c.is_whitespace() || c.is_control());
    (!good).then(|| format!("`{}` is no name of a device", name.escape_default()))
}
