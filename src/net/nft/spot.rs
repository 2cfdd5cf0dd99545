//! Where a chain of others drops what no rule of it let through, and so where a rule that lets packets through stands: behind all
//! rules that look at something. What one of those drops is dropped on purpose.

use netlink_packet_netfilter::nftables::RuleAttribute;

use super::expr::Expr;
use super::foreign::DropCause;
use super::list::{self, ListedRule};
use super::{Chain, Family, Policy, decode};
use crate::net::Result;
use crate::net::netlink::Netlink;

/// A place for a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleSpot {
    pub(super) chain: String,
    /// The rule that it comes before, by its handle, and as which rule of the chain, counted from 1; else it comes last.
    pub(super) before: Option<(u64, usize)>,
}

/// The kernel follows no more jumps than these (NFT_JUMP_STACK_SIZE).
const DEPTH_MAX: usize = 16;

/// How a chain ends for what none of its rules decided on.
enum ChainEnd {
    /// Behind its last rule.
    Falls,
    /// It is left earlier, here.
    Leaves(RuleSpot),
    /// It is dropped, here.
    Drops(RuleSpot, DropCause),
    Accepts,
}

/// What a rule without conditions does.
enum RuleVerdict {
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
    Other,
}

/// Finds where a base chain drops what is left; nothing where it does not.
pub(super) fn find(nfnl: &Netlink, base: &Chain, chains: &[Chain]) -> Result<Option<(RuleSpot, DropCause)>> {
    let table = Tree { nfnl, base, chains };
    let is_dropped = base.base.is_some_and(|base| base.policy == Policy::Drop);
    Ok(match table.end_of(&base.name, 0)? {
        ChainEnd::Drops(spot, cause) => Some((spot, cause)),
        ChainEnd::Accepts => None,
        ChainEnd::Leaves(spot) => is_dropped.then_some((spot, DropCause::Policy)),
        ChainEnd::Falls => is_dropped.then(|| (RuleSpot { chain: base.name.clone(), before: None }, DropCause::Policy)),
    })
}

/// A base chain with the chains of its table.
struct Tree<'a> {
    nfnl: &'a Netlink,
    base: &'a Chain,
    chains: &'a [Chain],
}

impl Tree<'_> {
    fn rules(&self, chain: &str) -> Result<Vec<(ListedRule, Vec<Expr>)>> {
        let asked = vec![RuleAttribute::Table(self.base.table.clone()), RuleAttribute::Chain(chain.to_string())];
        list::rules(self.nfnl, Some(self.base.family), asked)
    }

    fn end_of(&self, chain: &str, depth: usize) -> Result<ChainEnd> {
        if depth > DEPTH_MAX {
            return Ok(ChainEnd::Falls);
        }
        for (at, (rule, exprs)) in self.rules(chain)?.iter().enumerate() {
            if !takes_all(exprs) {
                continue;
            }
            let here = RuleSpot { chain: chain.to_string(), before: Some((rule.at.handle, at + 1)) };
            let (target, comes_back) = match verdict(exprs) {
                RuleVerdict::Drop => return Ok(ChainEnd::Drops(here, DropCause::LastRule(rule.text.clone()))),
                RuleVerdict::Accept => return Ok(ChainEnd::Accepts),
                RuleVerdict::Return => return Ok(ChainEnd::Leaves(here)),
                RuleVerdict::Other => continue,
                RuleVerdict::Jump(target) => (target, true),
                RuleVerdict::Goto(target) => (target, false),
            };
            // What also filters what comes in or goes out is not the place: the rule would let that through too.
            let inner = |spot: RuleSpot| Ok(if self.is_shared(&target)? { here.clone() } else { spot });
            match self.end_of(&target, depth + 1)? {
                ChainEnd::Accepts => return Ok(ChainEnd::Accepts),
                ChainEnd::Drops(spot, cause) => return Ok(ChainEnd::Drops(inner(spot)?, cause)),
                ChainEnd::Falls | ChainEnd::Leaves(_) if comes_back => {}
                ChainEnd::Leaves(spot) => return Ok(ChainEnd::Leaves(inner(spot)?)),
                ChainEnd::Falls => {
                    return Ok(ChainEnd::Leaves(inner(RuleSpot { chain: target.clone(), before: None })?));
                }
            }
        }
        Ok(ChainEnd::Falls)
    }

    /// Tells whether another base chain leads to a chain too.
    fn is_shared(&self, chain: &str) -> Result<bool> {
        let asked = vec![RuleAttribute::Table(self.base.table.clone())];
        let rules = list::rules(self.nfnl, Some(self.base.family), asked)?;
        let is_other = |known: &&Chain| {
            (known.family, &known.table) == (self.base.family, &self.base.table)
                && known.base.is_some()
                && known.name != self.base.name
        };
        let mut reached: Vec<&str> = self.chains.iter().filter(is_other).map(|chain| chain.name.as_str()).collect();
        let mut next = 0;
        while let Some(from) = reached.get(next).copied() {
            next += 1;
            for (rule, _) in rules.iter().filter(|(rule, _)| rule.at.chain == from) {
                let words: Vec<&str> = rule.text.split(' ').collect();
                if let [.., "jump" | "goto", target] = words.as_slice()
                    && !reached.contains(target)
                {
                    reached.push(target);
                }
            }
        }
        Ok(reached.contains(&chain))
    }
}

/// Tells whether a rule looks at nothing: it consists of what decides, after what only notes.
fn takes_all(exprs: &[Expr]) -> bool {
    let mut parts: Vec<(String, &Expr)> =
        exprs.iter().filter_map(|expr| Some((decode::parts(expr)?.0, expr))).collect();
    let decides = |name: &str| matches!(name, "immediate" | "reject" | "target");
    let notes = |name: &str, expr: &Expr| {
        matches!(name, "counter" | "log") || decode::xt_comment(std::slice::from_ref(expr)).is_some()
    };
    let last = parts.pop();
    last.is_some_and(|(name, _)| decides(&name)) && parts.iter().all(|(name, expr)| notes(name, expr))
}

fn verdict(exprs: &[Expr]) -> RuleVerdict {
    let (text, _) = decode::rule(Family::Inet, exprs.split_at(exprs.len().saturating_sub(1)).1);
    match text.split_once(' ') {
        Some(("jump", chain)) => RuleVerdict::Jump(chain.to_string()),
        Some(("goto", chain)) => RuleVerdict::Goto(chain.to_string()),
        _ if text.starts_with("reject") => RuleVerdict::Drop,
        _ => match text.as_str() {
            "drop" | "[xt target REJECT]" | "[xt target DROP]" => RuleVerdict::Drop,
            "accept" => RuleVerdict::Accept,
            "return" => RuleVerdict::Return,
            _ => RuleVerdict::Other,
        },
    }
}
