//! The rules that all published ports of the host have in common: one table of nf_tables for all labs of the state directory.
//!
//! They say nothing of one lab. If each lab had its own, each would take two of the 1024 base chains that the kernel has room for before
//! routing (net/netfilter/core.c, MAX_HOOK_COUNT), and each packet would pass all of them.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use super::guard;
use crate::net::nft::{self, Action, Base, Batch, Chain, ChainKind, CtState, Family, Hook, Match, Policy, Rule};
use crate::net::{Netns, Result};
use crate::state::StateDir;

const FAMILY: Family = Family::Inet;

/// What stands for the rules among the settings that labs hold.
pub const KEY: &str = "nft/inbound";
/// The value of it where labs hold it.
pub const HELD: &str = "1";
/// The value of it where there is no table.
pub(super) const GONE: &str = "0";
/// The value of it where others have changed the table.
const CHANGED: &str = "changed";

/// The bit of a packet's mark that is set where its destination was translated and it leaves by the device by which it came. Its source
/// must then be translated too: else the answers don't come through this namespace.
pub const HAIRPIN_MARK: u32 = 0x1000_0000;

/// Returns the rules, each with its chain and the priority of that.
pub fn rules() -> [(&'static str, i32, Rule); 2] {
    let loopback = IpNetwork::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let loopback = IpNetwork::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8).unwrap_or(loopback);
    // `route_localnet` lets 127.0.0.0/8 out and in by a device; nobody there may reach what listens on it.
    let martian = [Match::InDev { name: "lo".into(), not: true }, Match::Dst { net: loopback, not: false }];
    let back = [Match::CtState(vec![CtState::New]), Match::CtStatusDnat, Match::DaddrReachedByIn];
    [
        ("martians", -300, Rule::new(martian.to_vec(), Action::Drop)),
        ("hairpin", -90, Rule::new(back.to_vec(), Action::SetMarkBits(HAIRPIN_MARK))),
    ]
}

/// Returns a chain of these rules in a table.
pub fn chain(table: &str, name: &str, priority: i32) -> Chain {
    let base = Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority, policy: Policy::Accept };
    Chain { family: FAMILY, table: table.into(), name: name.into(), base: Some(base) }
}

/// Returns the name and the comment of the table. It is no lab's, and so has no lab's mark.
fn table(state: &StateDir) -> (String, String) {
    let word = state.table_word();
    (format!("toposcript-inbound-{word}"), format!("toposcript: what published ports have in common ({word})"))
}

/// Tells in the words of a setting how the rules are.
pub(crate) fn read(netns: &Netns, state: &StateDir) -> Result<&'static str> {
    let (table, comment) = table(state);
    if !guard::is_table_in(nft::list_tables(netns), &table, &comment)? {
        return Ok(GONE);
    }
    let mut found: Vec<String> =
        nft::list_comments(netns, FAMILY, &table)?.into_iter().map(|(at, _)| at.chain).collect();
    found.sort();
    let mut wanted = rules().map(|(chain, ..)| chain.to_string());
    wanted.sort();
    Ok(if found == wanted { HELD } else { CHANGED })
}

/// Makes the rules be there, or removes them.
pub(crate) fn write(netns: &Netns, state: &StateDir, value: &str) -> Result<()> {
    let (table, comment) = table(state);
    let mut batch = Batch::new();
    if read(netns, state)? != GONE {
        batch.delete_table(FAMILY, &table);
    }
    if value != GONE {
        batch.create_table(FAMILY, &table, Some(&comment));
        for (name, priority, rule) in rules() {
            batch.add_chain(&chain(&table, name, priority));
            // The comment is what a look finds the rule by.
            let rule = Rule { comment: Some(comment.clone()), ..rule };
            batch.add_rule(FAMILY, &table, name, &rule, nft::At::End);
        }
    }
    match batch.commit(netns) {
        Err(error) if error.is_gone() && value == GONE => Ok(()),
        done => done,
    }
}
