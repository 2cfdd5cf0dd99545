//! The firewalls of others: what they would drop of a lab's packets is let through in their own chains, and taken back.

use serde::{Deserialize, Serialize};

use super::ruleset::{self, enter, in_netns};
use crate::lab::{Event, Footprint, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net;
use crate::net::nft::{self, Batch, Family, IpVersion, Peer, Through};
use crate::state::{Error, NetnsRef, Place, Result, TableRef};

/// Lets packets through the firewalls of others that would drop them: in the chains that these drop in.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LetThrough {
    netns: NetnsRef,
    through: Vec<Through>,
    tag: String,
    /// The chains that were in the way when it was asked for, for what it is like.
    #[serde(default)]
    chains: Vec<nft::ForwardDrop>,
}

impl LetThrough {
    /// Makes the step, with a tag of its own.
    fn new(netns: &NetnsRef, through: Vec<Through>, tag: String) -> LetThrough {
        LetThrough { netns: netns.clone(), through, tag, chains: Vec::new() }
    }

    /// Returns the conditions and the verdict of the rules, as `iptables` takes them.
    fn words(&self) -> Vec<String> {
        let words = |through: &Through| {
            let (from, to) = match through.peer() {
                Peer::Dev(dev) => (format!("-i {dev}"), format!("-o {dev}")),
                Peer::Net(net) => (format!("-s {net}"), format!("-d {net}")),
            };
            match through {
                Through::From(_) => format!("{from} -j ACCEPT"),
                Through::To(_) => format!("{to} -j ACCEPT"),
                Through::Within(_) => format!("{from} {to} -j ACCEPT"),
                Through::Replies(_) => format!("{to}{REPLIES} -j ACCEPT"),
            }
        };
        self.through.iter().map(words).collect()
    }

    /// Finds the chains that would drop, and that can be changed.
    fn in_the_way(netns: &net::Netns) -> net::Result<Vec<nft::ForwardDrop>> {
        let mut drops = match nft::forward_drops(netns, ruleset::is_a_labs) {
            Err(error) if error.is_unsupported() => Vec::new(),
            drops => drops?,
        };
        drops.retain(|drop| drop.owner.is_none());
        Ok(drops)
    }
}

impl StepSort for LetThrough {
    const WORD: &'static str = "let-through";
}

impl Step for LetThrough {
    fn doing(&self) -> String {
        let all: Vec<String> = self.through.iter().map(shown).collect();
        format!("let {} through other firewalls{}", all.join(" and "), in_netns(&self.netns))
    }

    fn like(&self) -> Vec<String> {
        let enter = enter(&self.netns);
        let lines = |drop: &nft::ForwardDrop| {
            let command = if drop.family == Family::Ip6 { "ip6tables" } else { "iptables" };
            let rule = |words: String| match (drop.iptables, drop.before) {
                (true, None) => format!("{enter}{command} -A {} {words}", drop.chain),
                (true, Some((_, number))) => format!("{enter}{command} -I {} {number} {words}", drop.chain),
                (false, at) => {
                    let verb = if at.is_some() { "insert" } else { "add" };
                    let at = at.map_or(String::new(), |(handle, _)| format!(" handle {handle}"));
                    let (family, table, chain) = (drop.family, &drop.table, &drop.chain);
                    format!("{enter}nft {verb} rule {family} {table} {chain}{at} …  # as {command} {words}")
                }
            };
            self.words().into_iter().map(rule).collect::<Vec<_>>()
        };
        self.chains.iter().flat_map(lines).collect()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { lives_in: vec![&self.netns], ..Footprint::default() }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        self.chains = LetThrough::in_the_way(&kernel.netns(&self.netns)?)?;
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let netns = kernel.netns(&self.netns)?;
            let mut batch = Batch::new();
            for drop in LetThrough::in_the_way(&netns)? {
                for through in &self.through {
                    batch.let_through(&drop, through, &self.tag);
                }
            }
            batch.commit(&netns)
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let netns = kernel.netns(&self.netns)?;
        let rules = match nft::rules_with_comment(&netns, |comment| comment == self.tag) {
            Err(error) if error.is_unsupported() => return Ok(()),
            rules => rules?,
        };
        let mut batch = Batch::new();
        for rule in rules {
            batch.delete_rule(rule.family, &rule.table, &rule.chain, rule.handle);
        }
        batch.commit(&netns)
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        let drops = kernel.once(&self.netns, "", |kernel| LetThrough::in_the_way(&kernel.netns(&self.netns)?))?;
        for drop in drops.iter() {
            let wanted: usize = self.through.iter().map(|through| drop.rules_for(through)).sum();
            let all = kernel.nft_rules(&self.netns, drop.family, &drop.table)?;
            let rules = || all.iter().filter(|rule| rule.at.chain == drop.chain);
            let is_ours = |rule: &nft::ListedRule| rule.comment.as_deref() == Some(self.tag.as_str());
            if rules().filter(|rule| is_ours(rule)).count() != wanted {
                return Ok(false);
            }
            // What others have put behind them since is to count before them, too.
            let behind = rules().skip_while(|rule| !is_ours(rule));
            let theirs = |rule: &nft::ListedRule| {
                let last = drop.before.is_some_and(|(handle, _)| handle == rule.at.handle);
                !last && !rule.comment.as_deref().is_some_and(|comment| comment.starts_with("topo:"))
            };
            if behind.into_iter().any(theirs) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const REPLIES: &str = " -m conntrack --ctstate ESTABLISHED,RELATED,DNAT";

fn shown(through: &Through) -> String {
    let peer = |peer: &Peer| match peer {
        Peer::Dev(dev) => format!("`{dev}`"),
        Peer::Net(net) => format!("`{net}`"),
    };
    match through {
        Through::From(from) => format!("what comes from {}", peer(from)),
        Through::To(to) => format!("what goes to {}", peer(to)),
        Through::Within(within) => format!("what stays on {}", peer(within)),
        Through::Replies(to) => format!("answers to {}", peer(to)),
    }
}

/// Asks to let packets through the firewalls of others, in a namespace that the lab did not make; in one of its own there are
/// none. Warns of those that topo can't change.
pub(super) fn ask_let_through(lab: &mut Lab, at: &NetnsRef, mut through: Vec<Through>, place: &Place) -> Result<()> {
    if at.made {
        return Ok(());
    }
    // Several primitives need the same of a device: it stands in another's chain once.
    let noted = |one: &Through| TableRef { netns: at.no, name: format!("lets {} through", shown(one)) };
    through.retain(|one| !lab.model().has_table(&noted(one)));
    if through.is_empty() {
        return Ok(());
    }
    through.iter().for_each(|one| lab.model().add_table(noted(one)));
    warn_of_firewalls(lab, at, &through)?;
    let tag = ruleset::tag(lab);
    lab.ask(LetThrough::new(at, through, tag), place.clone())
}

/// Asks to let through what a bridge passes from port to port, if the namespace's firewalls see it (br_netfilter) and one of
/// them would drop it.
pub(in crate::prim) fn ask_let_through_bridge(lab: &mut Lab, at: &NetnsRef, dev: &str, place: &Place) -> Result<()> {
    const SEEN: &str = "net.bridge.bridge-nf-call-iptables";
    let none = TableRef { netns: at.no, name: "no firewall sees bridges".into() };
    if at.made || lab.model().has_table(&none) {
        return Ok(());
    }
    let failed = |source: net::Error| Error::kernel("look at the firewalls of others", &source);
    let (kernel, _) = lab.foreign();
    let netns = kernel.netns(at).map_err(failed)?;
    let seen = net::netns::sysctl::read(&netns, SEEN).is_ok_and(|value| value.trim() == "1");
    let in_the_way = seen
        && (!LetThrough::in_the_way(&netns).map_err(failed)?.is_empty()
            || [IpVersion::V4, IpVersion::V6]
                .into_iter()
                .any(|version| legacy_drops(&netns, version).is_ok_and(|drop| drop.is_some())));
    if !in_the_way {
        lab.model().add_table(none);
        return Ok(());
    }
    ask_let_through(lab, at, vec![Through::Within(Peer::Dev(dev.to_string()))], place)
}

/// Tells whether and where the old iptables drops what a namespace forwards.
fn legacy_drops(netns: &net::Netns, version: IpVersion) -> net::Result<Option<nft::LegacyDrop>> {
    match nft::legacy_forward_drop(netns, version) {
        // In a sandbox of an ordinary user nobody else has rules, and the list of them is not ours to read.
        Err(error) if error.is_denied() => Ok(None),
        drops => drops,
    }
}

/// Says which firewalls drop what a namespace forwards and can't be changed here; once for each, of a sort of packets.
fn warn_of_firewalls(lab: &mut Lab, at: &NetnsRef, through: &[Through]) -> Result<()> {
    let failed = |source: net::Error| Error::kernel("look at the firewalls of others", &source);
    let (kernel, _) = lab.foreign();
    let netns = kernel.netns(at).map_err(failed)?;
    let mut warnings = Vec::new();
    let drops = match nft::forward_drops(&netns, ruleset::is_a_labs) {
        Err(error) if error.is_unsupported() => Vec::new(),
        drops => drops.map_err(failed)?,
    };
    for drop in drops.iter().filter(|drop| drop.owner.is_some()) {
        warnings.push(format!(
            "table `{}` drops what `{}` forwards, and only the process that owns it can change it: it must allow {}",
            drop.table,
            at.name,
            through.iter().map(shown).collect::<Vec<_>>().join(" and ")
        ));
    }
    for (version, command) in [(IpVersion::V4, "iptables-legacy"), (IpVersion::V6, "ip6tables-legacy")] {
        // A network of the other family is nothing to it.
        let seen = |one: &&Through| match one.peer() {
            Peer::Net(net) => IpVersion::of(net.ip()) == version,
            Peer::Dev(_) => true,
        };
        let through: Vec<Through> = through.iter().filter(seen).cloned().collect();
        if through.is_empty() {
            continue;
        }
        if let Some(drop) = legacy_drops(&netns, version).map_err(failed)? {
            // Behind all that drops on purpose; each one goes before the last rule, and so behind the one before it.
            let verb = |at: usize| match drop {
                nft::LegacyDrop::Policy => "-A FORWARD".to_string(),
                nft::LegacyDrop::Rule(number) => format!("-I FORWARD {}", number + at),
            };
            let words = LetThrough::new(at, through, String::new()).words();
            let like: Vec<String> =
                words.iter().enumerate().map(|(at, words)| format!("`{command} {} {words}`", verb(at))).collect();
            warnings.push(format!(
                "the old iptables drops what `{}` forwards, and topo does not change it: run {}",
                at.name,
                like.join(" and ")
            ));
        }
    }
    for warning in warnings {
        let said = TableRef { netns: at.no, name: warning.clone() };
        if !lab.model().has_table(&said) {
            lab.model().add_table(said);
            lab.say(&Event::Warning(warning));
        }
    }
    Ok(())
}
