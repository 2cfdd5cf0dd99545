//! Firewalls of others: which of them drop forwarded packets, and rules in them that let some through. A packet must pass
//! every base chain of the hook, so that an accept in a table of one's own is of no use against a drop in another's.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::batch::{At, Batch};
use super::encode;
use super::expr::{self, Expr};
use super::list;
use super::rule::{Action, CtState, Match, Rule};
use super::{Chain, ChainKind, Family, Hook, IpVersion, Table, spot};
use crate::net::netlink::nfnl;
use crate::net::{Netns, Result};

/// A base chain that drops forwarded packets, and where to put rules that let some through: behind all rules that look at something,
/// so that what one of those drops stays dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardDrop {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// The base chain.
    pub base_chain: String,
    /// Why packets are dropped at its end.
    pub cause: DropCause,
    /// The chain to add rules to: the base chain, or one that it always comes to.
    pub chain: String,
    /// The rule there that they come before, by its handle, and as which rule, counted from 1; else they come last.
    pub before: Option<(u64, usize)>,
    /// Whether the table is one of the `iptables` command, which understands only some expressions.
    pub iptables: bool,
    /// The netlink port of the process that alone may change the table, such as firewalld's: others get EPERM.
    pub owner: Option<u32>,
}

/// Why packets are dropped at a chain's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropCause {
    /// The chain's policy.
    Policy,
    /// Its last rule, which takes all that is left.
    LastRule(String),
}

/// Forwarded packets to let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// All that comes in from there.
    From(Peer),
    /// All that goes out there.
    To(Peer),
    /// What comes in from there and goes out there again: what a bridge passes from port to port, which br_netfilter shows to
    /// the firewall (net.bridge.bridge-nf-call-iptables).
    Within(Peer),
    /// Of what goes out there that which belongs to a connection that was answered, is related to one, or has a
    /// translated destination.
    Replies(Peer),
}

impl Through {
    /// Returns where the packets come from or go to.
    pub fn peer(&self) -> &Peer {
        let (Through::From(peer) | Through::To(peer) | Through::Within(peer) | Through::Replies(peer)) = self;
        peer
    }
}

/// What a device leads to, or a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// All behind a device; it need not be there.
    Dev(String),
    /// A network.
    Net(IpNetwork),
}

/// Finds the base chains at hook forward that drop what no rule let through, in all tables of IP but dormant ones and
/// `is_ours`: by their policy, or by a rule that takes all that is left, in the chain or in one that it always comes to.
///
/// Fails as `list`.
pub fn forward_drops(netns: &Netns, is_ours: impl Fn(&Table) -> bool) -> Result<Vec<ForwardDrop>> {
    let nfnl = nfnl::open(netns)?;
    let mut tables = list::tables(&nfnl)?;
    tables.retain(|table| !table.dormant && !is_ours(table));
    let chains = list::chains(&nfnl)?;
    let at_forward = |chain: &&Chain| {
        matches!(chain.family, Family::Inet | Family::Ip | Family::Ip6)
            && chain.base.is_some_and(|base| base.hook == Hook::Forward && base.kind == ChainKind::Filter)
    };
    let mut drops = Vec::new();
    for chain in chains.iter().filter(at_forward) {
        let of_chain = |table: &&Table| table.family == chain.family && table.name == chain.table;
        let Some(table) = tables.iter().find(of_chain) else { continue };
        let Some((spot, cause)) = spot::find(&nfnl, chain, &chains)? else { continue };
        drops.push(ForwardDrop {
            family: chain.family,
            table: chain.table.clone(),
            base_chain: chain.name.clone(),
            cause,
            chain: spot.chain,
            before: spot.before,
            iptables: is_of_iptables(table, &chains),
            owner: table.owner,
        });
    }
    Ok(drops)
}

/// Tells whether a table is that of iptables-nft: it alone makes `filter` with base chains in capital letters.
fn is_of_iptables(table: &Table, chains: &[Chain]) -> bool {
    let has = |name: &str| {
        chains.iter().any(|chain| {
            (chain.family, &chain.table, chain.name.as_str()) == (table.family, &table.name, name)
                && chain.base.is_some()
        })
    };
    matches!(table.family, Family::Ip | Family::Ip6) && table.name == "filter" && has("FORWARD")
}

impl ForwardDrop {
    /// Returns how many rules `Batch::let_through` inserts for this: none where the table never sees such packets.
    pub fn rules_for(&self, through: &Through) -> usize {
        match through {
            _ if !sees(self.family, through.peer()) => 0,
            Through::Replies(_) if !self.iptables => 2,
            _ => 1,
        }
    }
}

impl Batch {
    /// Adds rules behind those of the chain that look at something, which let packets through, each counted and with `comment`, by which
    /// `rules_with_comment` finds them again. Nothing is inserted where the table never sees such packets, such as those of
    /// an IPv6 network in a table for IPv4.
    ///
    /// In a table of `iptables` they are what `iptables -A CHAIN -i DEV -m comment --comment … -j ACCEPT` makes. EPERM if
    /// the table is another process's own.
    pub fn let_through(&mut self, drop: &ForwardDrop, through: &Through, comment: &str) -> &mut Batch {
        if !sees(drop.family, through.peer()) {
            return self;
        }
        let place = (drop.family, drop.table.as_str(), drop.chain.as_str());
        let rule = |matches: Vec<Match>| Rule {
            counter: true,
            comment: Some(comment.to_string()),
            ..Rule::new([peer_match(through), matches].concat(), Action::Accept)
        };
        let at = drop.before.map_or(At::End, |(handle, _)| At::Before(handle));
        let answered = Match::CtState(vec![CtState::Established, CtState::Related]);
        let add = |batch: &mut Batch, rule: &Rule| {
            batch.add_rule(place.0, place.1, place.2, rule, at);
        };
        match through {
            Through::Replies(_) if drop.iptables => {
                // What it means; `iptables` asks for both by one match of its own.
                let rule = rule(vec![answered]);
                match encode::rule(drop.family, &Rule { matches: peer_match(through), ..rule.clone() }, &|_| None) {
                    Ok(mut exprs) => {
                        // Before the counter and the verdict.
                        exprs.insert(exprs.len().saturating_sub(2), xt_conntrack_state());
                        self.add_exprs(place, exprs, &rule, at);
                    }
                    // The plain way has the same fault, and tells it.
                    Err(_) => add(self, &rule),
                }
            }
            Through::Replies(_) => {
                add(self, &rule(vec![answered]));
                add(self, &rule(vec![Match::CtStatusDnat]));
            }
            _ => add(self, &rule(Vec::new())),
        }
        self
    }
}

fn sees(family: Family, peer: &Peer) -> bool {
    match (peer, family) {
        (Peer::Net(net), Family::Ip) => IpVersion::of(net.ip()) == IpVersion::V4,
        (Peer::Net(net), Family::Ip6) => IpVersion::of(net.ip()) == IpVersion::V6,
        _ => true,
    }
}

fn peer_match(through: &Through) -> Vec<Match> {
    let from = |peer: &Peer| match peer {
        Peer::Dev(name) => Match::InDev { name: name.clone(), not: false },
        Peer::Net(net) => Match::Src { net: *net, not: false },
    };
    let to = |peer: &Peer| match peer {
        Peer::Dev(name) => Match::OutDev { name: name.clone(), not: false },
        Peer::Net(net) => Match::Dst { net: *net, not: false },
    };
    match through {
        Through::From(peer) => vec![from(peer)],
        Through::To(peer) | Through::Replies(peer) => vec![to(peer)],
        Through::Within(peer) => vec![from(peer), to(peer)],
    }
}

/// `-m conntrack --ctstate RELATED,ESTABLISHED,DNAT` of iptables: struct xt_conntrack_mtinfo3 of
/// linux/netfilter/xt_conntrack.h, in which all else is 0.
fn xt_conntrack_state() -> Expr {
    /// 162 bytes, aligned to 8 as XT_ALIGN does.
    const BYTES: usize = 168;
    /// Behind eight addresses of 16 bytes, two times of 4, the protocol and four ports of 2.
    const MATCH_FLAGS: usize = 8 * 16 + 2 * 4 + 2 + 4 * 2;
    /// Behind the flags and the inverted flags.
    const STATE_MASK: usize = MATCH_FLAGS + 4;
    const XT_CONNTRACK_STATE: u16 = 1;
    /// XT_CONNTRACK_STATE_BIT of established (0) and related (1), and XT_CONNTRACK_STATE_DNAT, whose IP_CT_NUMBER is 5.
    const STATES: u16 = 1 << 1 | 1 << 2 | 1 << 7;
    let mut info = vec![0; BYTES];
    info[MATCH_FLAGS..MATCH_FLAGS + 2].copy_from_slice(&XT_CONNTRACK_STATE.to_ne_bytes());
    info[STATE_MASK..STATE_MASK + 2].copy_from_slice(&STATES.to_ne_bytes());
    expr::xt_match("conntrack", 3, info)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_CREATE;
    use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableFlags, TableMessage};

    use super::*;
    use crate::net::netlink::nfnl;
    use crate::net::nft::tests::{TABLE, element, net};
    use crate::net::nft::traffic::{ARRIVES, IS_LOST, Servers, Site, answer, publishing};
    use crate::net::nft::{L4Proto, rules_with_comment};
    use crate::net::testing::{in_own_process, netns, said};

    const COMMENT: &str = "of the lab: a b";

    fn found(netns: &Netns) -> Vec<ForwardDrop> {
        forward_drops(netns, |table| table.name == TABLE).expect("asked")
    }

    fn let_through(netns: &Netns, through: &[Through]) {
        let mut batch = Batch::new();
        for drop in found(netns) {
            for through in through {
                batch.let_through(&drop, through, COMMENT);
            }
        }
        batch.commit(netns).expect("committed");
    }

    fn take_back(netns: &Netns) {
        let mut batch = Batch::new();
        for rule in rules_with_comment(netns, |comment| comment == COMMENT).expect("listed") {
            batch.delete_rule(rule.family, &rule.table, &rule.chain, rule.handle);
        }
        batch.commit(netns).expect("committed");
    }

    fn dev(name: &str) -> Peer {
        Peer::Dev(name.into())
    }

    /// Checks what of `web`'s traffic gets through: out to `far`, in from there, in to a published port; by IPv4, and the
    /// same by IPv6.
    #[track_caller]
    fn gets_through(site: &Site, expected: [bool; 6]) {
        let ways = [
            (&site.web, "192.0.2.2:80"),
            (&site.far, "10.0.0.2:80"),
            (&site.far, "192.0.2.1:8080"),
            (&site.web, "[2001:db8::2]:80"),
            (&site.far, "[fd00::2]:80"),
            (&site.far, "[2001:db8::1]:8080"),
        ];
        for ((netns, to), expected) in ways.into_iter().zip(expected) {
            let within = if expected { ARRIVES } else { IS_LOST };
            assert_eq!(answer(netns, L4Proto::Tcp, to, within).is_some(), expected, "to {to}");
        }
    }

    /// A site with servers on both sides, whose web's port is published.
    fn published() -> (Site, [Servers; 2]) {
        let site = Site::new(true);
        let at = |at: [&str; 2]| at.map(|at| at.parse().expect("an address"));
        let servers = [
            Servers::start(&site.web, "web", &at(["10.0.0.2:80", "[fd00::2]:80"])),
            Servers::start(&site.far, "far", &at(["192.0.2.2:80", "[2001:db8::2]:80"])),
        ];
        let mut batch = Batch::new();
        publishing(&mut batch);
        for (map, to) in [("v4", "10.0.0.2"), ("v6", "fd00::2")] {
            batch.add_elements(Family::Inet, TABLE, map, &[element(L4Proto::Tcp, 8080, to, 80)], true);
        }
        batch.commit(&site.host).expect("committed");
        gets_through(&site, [true; 6]);
        (site, servers)
    }

    #[test]
    fn what_iptables_drops_is_let_through_and_iptables_can_read_it() {
        let (site, _servers) = published();
        let host = &site.host;
        let both = |arguments: &str| {
            said(host, &format!("iptables {arguments}"), "")
                + said(host, &format!("ip6tables {arguments}"), "").as_str()
        };
        both("-P FORWARD DROP");
        both("-A FORWARD -i other -j ACCEPT");
        let before = both("-S");
        let drops = found(host);
        let of = |family| ForwardDrop {
            family,
            table: "filter".into(),
            base_chain: "FORWARD".into(),
            cause: DropCause::Policy,
            chain: "FORWARD".into(),
            before: None,
            iptables: true,
            owner: None,
        };
        assert_eq!(drops, [of(Family::Ip), of(Family::Ip6)]);
        gets_through(&site, [false; 6]);
        let_through(host, &[Through::From(dev("br0")), Through::Replies(dev("br0"))]);
        let rules = "-P FORWARD DROP
-A FORWARD -i other -j ACCEPT
-A FORWARD -i br0 -m comment --comment \"of the lab: a b\" -j ACCEPT
-A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment \"of the lab: a b\" -j ACCEPT
";
        assert_eq!(both("-S FORWARD"), rules.repeat(2));
        gets_through(&site, [true, false, true, true, false, true]);
        // iptables writes all of it anew, with the comments in a form of its own.
        let saved = said(host, "iptables-save -t filter", "");
        said(host, "iptables-restore", &saved);
        assert_eq!(said(host, "iptables -S FORWARD", ""), rules);
        take_back(host);
        assert_eq!(both("-S"), before);
        gets_through(&site, [false; 6]);
        let_through(host, &[Through::To(dev("br0")), Through::From(dev("br0"))]);
        gets_through(&site, [true; 6]);
    }

    #[test]
    fn a_last_rule_that_drops_is_passed() {
        let (site, _servers) = published();
        let host = &site.host;
        for command in [
            "iptables -N DOCKER-USER",
            "iptables -A FORWARD -j DOCKER-USER",
            "iptables -A FORWARD -j REJECT",
            "ip6tables -N DOCKER-USER",
            "ip6tables -A FORWARD -m conntrack --ctstate INVALID -j DROP",
            "ip6tables -A FORWARD -j DROP",
        ] {
            said(host, command, "");
        }
        let drops = found(host);
        let short = |drop: &ForwardDrop| (drop.chain.clone(), drop.cause.clone(), drop.iptables);
        assert_eq!(
            drops.iter().map(short).collect::<Vec<_>>(),
            [
                ("FORWARD".to_string(), DropCause::LastRule("counter [xt target REJECT]".into()), true),
                ("FORWARD".to_string(), DropCause::LastRule("counter drop".into()), true),
            ]
        );
        gets_through(&site, [false; 6]);
        let nets = || [net("10.0.0.0/24"), net("fd00::/64")].into_iter().map(Peer::Net);
        let through: Vec<Through> = nets().map(Through::From).chain(nets().map(Through::Replies)).collect();
        let_through(host, &through);
        let rules = "-P FORWARD ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -s 10.0.0.0/24 -m comment --comment \"of the lab: a b\" -j ACCEPT
-A FORWARD -d 10.0.0.0/24 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment \"of the lab: a b\" -j ACCEPT
-A FORWARD -j REJECT --reject-with icmp-port-unreachable
";
        assert_eq!(said(host, "iptables -S FORWARD", ""), rules);
        let rules = "-P FORWARD ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -s fd00::/64 -m comment --comment \"of the lab: a b\" -j ACCEPT
-A FORWARD -d fd00::/64 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment \"of the lab: a b\" -j ACCEPT
-A FORWARD -j DROP
";
        assert_eq!(said(host, "ip6tables -S FORWARD", ""), rules);
        gets_through(&site, [true, false, true, true, false, true]);
        take_back(host);
        gets_through(&site, [false; 6]);
    }

    /// As firewalld has it, and by hand.
    #[test]
    fn what_tables_of_nft_drop_is_let_through() {
        let (site, _servers) = published();
        let host = &site.host;
        let rules = "table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state invalid drop
		jump zones
		reject with icmpx admin-prohibited
	}

	chain zones {
	}
}
table ip mine {
	chain f {
		type filter hook forward priority filter; policy drop;
		udp dport 53 accept
	}
}
";
        said(host, "nft -f -", rules);
        let drops = found(host);
        let short = |drop: &ForwardDrop| (drop.family, drop.chain.clone(), drop.cause.clone(), drop.iptables);
        assert_eq!(
            drops.iter().map(short).collect::<Vec<_>>(),
            [
                (
                    Family::Inet,
                    "filter_FORWARD".to_string(),
                    DropCause::LastRule("reject with icmpx admin-prohibited".into()),
                    false
                ),
                (Family::Ip, "f".to_string(), DropCause::Policy, false),
            ]
        );
        gets_through(&site, [false; 6]);
        let_through(host, &[Through::From(dev("br0")), Through::Replies(Peer::Net(net("10.0.0.0/24")))]);
        let seen = said(host, "nft list table ip mine", "");
        let lines: Vec<String> = seen.lines().map(|line| line.trim().to_string()).collect();
        let counted = |text: &str| format!("{text} counter packets 0 bytes 0 accept comment \"of the lab: a b\"");
        assert_eq!(
            lines[3..7],
            [
                "udp dport 53 accept".to_string(),
                counted("iifname \"br0\""),
                counted("ip daddr 10.0.0.0/24 ct state established,related"),
                counted("ip daddr 10.0.0.0/24 ct status dnat"),
            ]
        );
        gets_through(&site, [true, false, true, false, false, false]);
        let_through(host, &[Through::Replies(dev("br0"))]);
        gets_through(&site, [true, false, true, true, false, true]);
        take_back(host);
        for line in ["table inet firewalld", "table ip mine"] {
            let now = said(host, &format!("nft list {line}"), "");
            assert!(rules.contains(&now), "{now}");
        }
    }

    #[test]
    fn chains_that_let_all_through_are_left_alone() {
        let netns = netns();
        said(
            &netns,
            "nft -f -",
            "
            table inet a { chain f { type filter hook forward priority 0; policy drop; counter accept; }; }
            table inet b { chain f { type filter hook forward priority 0; policy accept; tcp dport 1 drop; }; }
            table inet c { flags dormant; chain f { type filter hook forward priority 0; policy drop; }; }
            table inet d { chain f { type filter hook input priority 0; policy drop; }; }
            table inet topo-test { chain f { type filter hook forward priority 0; policy drop; }; }
            table bridge e { chain f { type filter hook forward priority 0; policy drop; }; }
        "
            .replace("; }", ";\n}")
            .replace("; };", ";\n};")
            .replace("};", "}\n")
            .as_str(),
        );
        assert_eq!(found(&netns), []);
        assert_eq!(forward_drops(&netns, |_| false).expect("asked").len(), 1, "ours");
    }

    #[test]
    fn a_table_of_a_living_process_is_reported() {
        // Alone: a child that another test forks has the socket too until its own program runs.
        in_own_process("net::nft::foreign::tests::a_table_of_a_living_process_is_reported", || {
            let netns = netns();
            let nfnl = nfnl::open(&netns).expect("a socket");
            let attributes = vec![TableAttribute::Name("own".into()), TableAttribute::Flags(TableFlags::Owner)];
            let own = NfTablesMessage::NewTable(TableMessage { attributes });
            let own = nfnl::frame(nfnl::message(Family::Inet, own), NLM_F_CREATE);
            nfnl::transact(&nfnl, &[&own]).map_err(|(_, refusal)| refusal.error).expect("made");
            let chain = NfTablesMessage::NewChain(netlink_packet_netfilter::nftables::ChainMessage {
                attributes: {
                    use netlink_packet_netfilter::nftables::{ChainAttribute, Hook as HookAttribute, InetHookNumber};
                    vec![
                        ChainAttribute::Table("own".into()),
                        ChainAttribute::Name("f".into()),
                        ChainAttribute::Hook(vec![
                            HookAttribute::Number(InetHookNumber::Forward.into()),
                            HookAttribute::Priority(0),
                        ]),
                        ChainAttribute::Type("filter".into()),
                        ChainAttribute::Policy(0),
                    ]
                },
            });
            let chain = nfnl::frame(nfnl::message(Family::Inet, chain), NLM_F_CREATE);
            nfnl::transact(&nfnl, &[&chain]).map_err(|(_, refusal)| refusal.error).expect("made");
            let drops = found(&netns);
            assert_eq!(drops.len(), 1);
            assert!(drops[0].owner.is_some(), "{drops:?}");
            let mut batch = Batch::new();
            batch.let_through(&drops[0], &Through::From(dev("br0")), COMMENT);
            let error = batch.commit(&netns).expect_err("another's");
            assert!(error.is_denied(), "{error:?}");
            drop(nfnl);
            assert_eq!(found(&netns), []);
        });
    }

    #[test]
    fn what_is_journaled_comes_back() {
        let all = [
            Through::From(dev("br0")),
            Through::To(Peer::Net(net("10.0.0.0/8"))),
            Through::Replies(Peer::Net(net("fd00::/8"))),
        ];
        let json = serde_json::to_string(&all).expect("JSON");
        assert_eq!(serde_json::from_str::<[Through; 3]>(&json).expect("read"), all);
        let too_long = "a_name_too_long_for_a_device".to_string();
        let drop = ForwardDrop {
            family: Family::Ip,
            table: "filter".into(),
            base_chain: "FORWARD".into(),
            cause: DropCause::Policy,
            chain: "FORWARD".into(),
            before: None,
            iptables: true,
            owner: None,
        };
        let mut batch = Batch::new();
        batch.let_through(&drop, &Through::Replies(Peer::Dev(too_long)), COMMENT);
        assert_eq!(batch.commit(&netns()).expect_err("wrong").errno(), libc::EINVAL);
    }
}
