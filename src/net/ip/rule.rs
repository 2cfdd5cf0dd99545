//! Policy routing rules: which table a packet asks. Like `ip rule`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange, RuleUidRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::net::netlink::rtnl::NEW;
use crate::net::{Error, Netlink, Result};

/// What becomes of packets that a rule is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// They ask the rule's table.
    #[default]
    ToTable,
    /// They are dropped without a word.
    Blackhole,
    /// The sender hears that the network is unreachable.
    Unreachable,
    /// The sender hears that it is forbidden.
    Prohibit,
    /// Another of the kernel's kinds (FR_ACT_… of linux/fib_rules.h).
    Other(u8),
}

impl From<RuleKind> for RuleAction {
    fn from(kind: RuleKind) -> RuleAction {
        match kind {
            RuleKind::ToTable => RuleAction::ToTable,
            RuleKind::Blackhole => RuleAction::Blackhole,
            RuleKind::Unreachable => RuleAction::Unreachable,
            RuleKind::Prohibit => RuleAction::Prohibit,
            RuleKind::Other(number) => RuleAction::from(number),
        }
    }
}

impl From<RuleAction> for RuleKind {
    fn from(action: RuleAction) -> RuleKind {
        match action {
            RuleAction::ToTable => RuleKind::ToTable,
            RuleAction::Blackhole => RuleKind::Blackhole,
            RuleAction::Unreachable => RuleKind::Unreachable,
            RuleAction::Prohibit => RuleKind::Prohibit,
            other => RuleKind::Other(u8::from(other)),
        }
    }
}

/// A rule. What is `None` fits every packet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub v6: bool,
    /// Where packets come from.
    pub from: Option<IpNetwork>,
    /// Where packets go.
    pub to: Option<IpNetwork>,
    /// The link that packets came in by; "lo" for those of this host's own.
    pub iif: Option<String>,
    /// The link that the sending socket is bound to.
    pub oif: Option<String>,
    /// The mark that packets bear.
    pub fwmark: Option<u32>,
    /// The number of the transport protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// The source ports, both ends included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<(u16, u16)>,
    /// The destination ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<(u16, u16)>,
    /// The users whose sockets send the packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<(u32, u32)>,
    /// The table to ask, for `ToTable`.
    pub table: u32,
    /// Routes of the table whose prefix is at most so long don't count; 0 leaves out the default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_prefixlength: Option<u32>,
    /// Its place, the lowest first; without one `add` lets the kernel put it before all others but the first.
    pub priority: Option<u32>,
    /// What becomes of the packets.
    pub kind: RuleKind,
    /// Who put it there (RTPROT_… of rtnetlink(7)).
    pub protocol: u8,
}

impl Rule {
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        let header = &mut message.header;
        header.family = if self.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        header.action = self.kind.into();
        let attributes = &mut message.attributes;
        if let Some(net) = self.from {
            header.src_len = net.prefix();
            attributes.push(RuleAttribute::Source(net.ip()));
        }
        if let Some(net) = self.to {
            header.dst_len = net.prefix();
            attributes.push(RuleAttribute::Destination(net.ip()));
        }
        if self.table != 0 {
            // Only small numbers fit into the header; the attribute counts for all.
            header.table = u8::try_from(self.table).unwrap_or(0);
            attributes.push(RuleAttribute::Table(self.table));
        }
        attributes.extend(self.iif.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.oif.clone().map(RuleAttribute::Oifname));
        attributes.extend(self.fwmark.map(RuleAttribute::FwMark));
        let ports = |(start, end)| RulePortRange { start, end };
        attributes.extend(self.proto.map(|proto| RuleAttribute::IpProtocol(IpProtocol::from(i32::from(proto)))));
        attributes.extend(self.sport.map(|range| RuleAttribute::SourcePortRange(ports(range))));
        attributes.extend(self.dport.map(|range| RuleAttribute::DestinationPortRange(ports(range))));
        attributes.extend(self.uid.map(|(start, end)| RuleAttribute::UidRange(RuleUidRange { start, end })));
        attributes.extend(self.suppress_prefixlength.map(RuleAttribute::SuppressPrefixLen));
        attributes.extend(self.priority.map(RuleAttribute::Priority));
        if self.protocol != 0 {
            attributes.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        }
        message
    }

    /// Tells whether `known`, as the kernel has it, is this rule.
    pub fn is(&self, known: &Rule) -> bool {
        let everything = |net: &Option<IpNetwork>| net.filter(|net| net.prefix() > 0);
        self.v6 == known.v6
            && everything(&self.from) == everything(&known.from)
            && everything(&self.to) == everything(&known.to)
            && (&self.iif, &self.oif, self.fwmark) == (&known.iif, &known.oif, known.fwmark)
            && (self.proto, self.sport, self.dport, self.uid) == (known.proto, known.sport, known.dport, known.uid)
            && (self.table, self.kind, self.protocol) == (known.table, known.kind, known.protocol)
            && self.suppress_prefixlength == known.suppress_prefixlength
            && self.priority.is_none_or(|priority| known.priority == Some(priority))
    }
}

/// Adds a rule.
///
/// Like `ip rule add`. EEXIST if there is the same one, EINVAL for `ToTable` without a table.
pub fn add(rtnl: &Netlink, rule: &Rule) -> Result<()> {
    rtnl.change(&doing("add", rule), RouteNetlinkMessage::NewRule(rule.message()), NEW)
}

/// Deletes this rule; without a priority, the first one that is otherwise the same.
///
/// Like `ip rule delete`. ENOENT if there is none.
pub fn delete(rtnl: &Netlink, rule: &Rule) -> Result<()> {
    let doing = doing("delete", rule);
    // The kernel takes the first rule that has all that the request names, even if it has more: another one than meant.
    let known = list(rtnl)?.into_iter().find(|known| rule.is(known));
    let known = known.ok_or_else(|| Error::new(&doing, libc::ENOENT))?;
    rtnl.change(&doing, RouteNetlinkMessage::DelRule(known.message()), 0)
}

fn doing(verb: &str, rule: &Rule) -> String {
    let mut text = format!("{verb} rule");
    for (word, net) in [("from", rule.from), ("to", rule.to)] {
        if let Some(net) = net {
            text += &format!(" {word} {net}");
        }
    }
    if let Some(priority) = rule.priority {
        text += &format!(" priority {priority}");
    }
    text
}

/// Lists the rules of both families in the order in which they are asked.
///
/// Like `ip rule list` and `ip -6 rule list`.
pub fn list(rtnl: &Netlink) -> Result<Vec<Rule>> {
    let doing = "list rules";
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let answers = match rtnl.query(doing, RouteNetlinkMessage::GetRule(message)) {
            // A kernel without IPv6, or without rules for it.
            Err(error) if error.is_unsupported() && family == AddressFamily::Inet6 => Vec::new(),
            answers => answers?,
        };
        for answer in answers {
            if let RouteNetlinkMessage::NewRule(message) = answer {
                rules.push(read(doing, message)?);
            }
        }
    }
    Ok(rules)
}

fn read(doing: &str, message: RuleMessage) -> Result<Rule> {
    let header = &message.header;
    let net = |ip: IpAddr, prefix: u8| {
        IpNetwork::new(ip, prefix).map_err(|error| Error::new(doing, libc::EBADMSG).saying(error.to_string()))
    };
    let mut rule = Rule {
        v6: header.family == AddressFamily::Inet6,
        table: u32::from(header.table),
        kind: header.action.into(),
        // The kernel does not show 0, which is that of the first rule.
        priority: Some(0),
        ..Rule::default()
    };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => rule.from = Some(net(ip, header.src_len)?),
            RuleAttribute::Destination(ip) => rule.to = Some(net(ip, header.dst_len)?),
            RuleAttribute::Iifname(name) => rule.iif = Some(name),
            RuleAttribute::Oifname(name) => rule.oif = Some(name),
            RuleAttribute::FwMark(mark) => rule.fwmark = Some(mark),
            RuleAttribute::IpProtocol(proto) => rule.proto = u8::try_from(i32::from(proto)).ok(),
            RuleAttribute::SourcePortRange(range) => rule.sport = Some((range.start, range.end)),
            RuleAttribute::DestinationPortRange(range) => rule.dport = Some((range.start, range.end)),
            RuleAttribute::UidRange(range) => rule.uid = Some((range.start, range.end)),
            RuleAttribute::Table(table) => rule.table = table,
            // The kernel shows -1 for none (net/core/fib_rules.c, fib_nl_fill_rule).
            RuleAttribute::SuppressPrefixLen(length) if length != u32::MAX => rule.suppress_prefixlength = Some(length),
            RuleAttribute::Priority(priority) => rule.priority = Some(priority),
            RuleAttribute::Protocol(protocol) => rule.protocol = u8::from(protocol),
            _ => {}
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::net::testing::{block_on, judge, netns_and_rtnl};

    fn net(text: &str) -> Option<IpNetwork> {
        Some(text.parse().expect("a network"))
    }

    #[test]
    fn rules_come_back_as_they_were_added() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let born = list(&rtnl).expect("rules");
            let kinds = [RuleKind::ToTable, RuleKind::Blackhole, RuleKind::Unreachable, RuleKind::Prohibit];
            let mut rules = Vec::new();
            for (no, kind) in kinds.into_iter().enumerate() {
                let table = if kind == RuleKind::ToTable { 100_000 } else { 0 };
                let of = |v6, from, to| Rule {
                    v6,
                    from,
                    to,
                    iif: Some("eth0".to_string()),
                    oif: Some("eth1".to_string()),
                    fwmark: Some(0x17),
                    proto: Some(17),
                    sport: Some((1, 9)),
                    dport: Some((53, 53)),
                    uid: Some((1000, 1999)),
                    table,
                    suppress_prefixlength: (kind == RuleKind::ToTable).then_some(0),
                    priority: Some(1000 + no as u32),
                    kind,
                    protocol: 77,
                };
                rules.push(of(false, net("10.0.0.0/8"), net("10.1.2.3/32")));
                rules.push(of(true, net("fd00::/8"), net("fd01::/64")));
            }
            for rule in &rules {
                add(&rtnl, rule).unwrap_or_else(|error| panic!("{rule:?}: {error}"));
                assert!(add(&rtnl, rule).expect_err("twice").is_exists());
            }
            let listed = list(&rtnl).expect("rules");
            assert!(rules.iter().all(|rule| listed.contains(rule)), "{listed:#?}");
            assert_eq!(listed.len(), born.len() + rules.len());
            let seen = judge(&netns, "ip -j -d rule show priority 1000").await;
            assert_eq!(
                (&seen[0]["src"], &seen[0]["srclen"], &seen[0]["dst"]),
                (&json!("10.0.0.0"), &json!(8), &json!("10.1.2.3"))
            );
            assert_eq!(
                (&seen[0]["table"], &seen[0]["fwmark"], &seen[0]["protocol"]),
                (&json!("100000"), &json!("0x17"), &json!("77"))
            );
            assert_eq!(
                (&seen[0]["ipproto"], &seen[0]["sport_start"], &seen[0]["sport_end"], &seen[0]["dport"]),
                (&json!("udp"), &json!(1), &json!(9), &json!(53))
            );
            assert_eq!((&seen[0]["uid_start"], &seen[0]["uid_end"]), (&json!(1000), &json!(1999)));
            for rule in &rules {
                delete(&rtnl, rule).unwrap_or_else(|error| panic!("{rule:?}: {error}"));
                assert!(delete(&rtnl, rule).expect_err("gone").is_gone());
            }
            assert_eq!(list(&rtnl).expect("rules"), born);
        });
    }

    #[test]
    fn only_the_very_rule_is_deleted() {
        block_on(async {
            let (_netns, rtnl) = netns_and_rtnl();
            let from = Rule { from: net("10.0.0.0/8"), table: 100, protocol: 77, ..Rule::default() };
            let all = Rule { table: 100, protocol: 77, ..Rule::default() };
            add(&rtnl, &from).expect("added");
            assert!(delete(&rtnl, &all).expect_err("not there").is_gone());
            add(&rtnl, &all).expect("added");
            delete(&rtnl, &all).expect("deleted");
            assert!(list(&rtnl).expect("rules").iter().any(|known| from.is(known)));
            delete(&rtnl, &from).expect("deleted, whatever its priority");
        });
    }
}
