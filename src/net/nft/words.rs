//! The words of `nft` for what chains and sets are.

use std::fmt;

use super::{ChainKind, Field, Hook, Policy, Set};

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Ingress => "ingress",
            Hook::Other(number) => return write!(f, "hook {number}"),
        })
    }
}

impl fmt::Display for ChainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        })
    }
}

/// Writes the set as `nft add` takes it: `map inet t v4 '{ type inet_proto . inet_service : ipv4_addr . inet_service; }'`.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |fields: &[Field]| fields.iter().map(ToString::to_string).collect::<Vec<_>>().join(" . ");
        let word = if self.data.is_some() { "map" } else { "set" };
        write!(f, "{word} {} {} {} '{{ type {}", self.family, self.table, self.name, fields(&self.key))?;
        if let Some(data) = &self.data {
            write!(f, " : {}", fields(data))?;
        }
        f.write_str("; }'")
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Proto => "inet_proto",
            Field::Ipv4 => "ipv4_addr",
            Field::Ipv6 => "ipv6_addr",
            Field::Port => "inet_service",
            Field::Dev => "ifname",
            Field::Other(number) => return write!(f, "type_{number}"),
        })
    }
}
