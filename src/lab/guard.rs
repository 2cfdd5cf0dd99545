//! Devices of the host that are kept apart: what comes in by one of them is not forwarded out by another.
//!
//! Networks of containers make the host forward, by all its devices. Its own cards did not forward to each other before, and do not
//! because of that either: one table of nf_tables, for all labs of the state directory, drops what would pass between them.

use std::collections::BTreeSet;

use crate::net::nft::{
    self, Action, Base, Batch, Chain, ChainKind, Element, Family, Field, Hook, IpVersion, Match, Policy, Rule, Set,
    Value,
};
use crate::net::{Netns, Result};
use crate::state::{StateDir, name};

/// Devices that are kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Apart {
    /// What comes in by one of these
    pub(crate) from: Vec<String>,
    /// does not go out by one of these.
    pub(crate) to: Vec<String>,
}

impl Apart {
    pub(crate) fn is_empty(&self) -> bool {
        self.from.is_empty() || self.to.is_empty()
    }
}

const FAMILY: Family = Family::Inet;
const CHAIN: &str = "forward";
/// The chain that has the last word about what comes in by a device and goes out by one that are both kept apart.
const BETWEEN: &str = "between";

impl StateDir {
    /// Returns the name and the comment of the table that keeps devices apart. It is no lab's, and so has no lab's mark.
    fn guard_table(&self) -> (String, String) {
        let word = self.table_word();
        (format!("toposcript-{word}"), format!("toposcript: devices that stay apart ({word})"))
    }

    /// Returns what tells the tables of this state directory from those of others. What is in a sandbox may get another state directory.
    pub(super) fn table_word(&self) -> String {
        match self.inside() {
            Some(_) => "sandbox".into(),
            None => name::short_hash(self.root().as_os_str().as_encoded_bytes()),
        }
    }
}

/// Tells whether the table is there.
pub(super) fn is_there(netns: &Netns, state: &StateDir) -> Result<bool> {
    is_in(nft::list_tables(netns), state)
}

/// Tells whether the table is in a list of those that there are.
pub(super) fn is_in<T: AsRef<Vec<nft::Table>>>(tables: Result<T>, state: &StateDir) -> Result<bool> {
    let (name, comment) = state.guard_table();
    is_table_in(tables, &name, &comment)
}

/// Tells whether a table of all labs is in a list of those that there are: by its name and its comment.
pub(super) fn is_table_in<T: AsRef<Vec<nft::Table>>>(tables: Result<T>, name: &str, comment: &str) -> Result<bool> {
    let tables = match tables {
        // An ordinary user has no such table, and may not ask.
        Err(error) if error.is_unsupported() || error.is_denied() => return Ok(false),
        tables => tables?,
    };
    Ok(tables
        .as_ref()
        .iter()
        .any(|table| table.family == FAMILY && table.name == name && table.comment.as_deref() == Some(comment)))
}

/// Makes the table, in place of the one that is there.
pub(crate) fn put(netns: &Netns, state: &StateDir, apart: &[Apart; 2]) -> Result<()> {
    let (table, comment) = state.guard_table();
    let mut batch = Batch::new();
    if is_there(netns, state)? {
        batch.delete_table(FAMILY, &table);
    }
    batch.create_table(FAMILY, &table, Some(&comment));
    let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, policy: Policy::Accept };
    for (name, base) in [(BETWEEN, None), (CHAIN, Some(base))] {
        batch.add_chain(&Chain { family: FAMILY, table: table.clone(), name: name.into(), base });
    }
    for (version, apart) in [IpVersion::V4, IpVersion::V6].into_iter().zip(apart) {
        if apart.is_empty() {
            continue;
        }
        let digit = if version == IpVersion::V4 { 4 } else { 6 };
        let (from, to) = (format!("from{digit}"), format!("to{digit}"));
        for (name, devs) in [(&from, &apart.from), (&to, &apart.to)] {
            let set =
                Set { family: FAMILY, table: table.clone(), name: name.clone(), key: vec![Field::Dev], data: None };
            batch.add_set(&set);
            let element = |dev: &String| Element { key: vec![Value::Dev(dev.clone())], data: None, comment: None };
            let elements: Vec<Element> = devs.iter().map(element).collect();
            batch.add_elements(FAMILY, &table, name, &elements, false);
        }
        let matches = vec![Match::Nfproto(version), Match::InDevOf(from), Match::OutDevOf(to)];
        batch.add_rule(FAMILY, &table, CHAIN, &Rule::new(matches, Action::Jump(BETWEEN.into())), nft::At::End);
    }
    // With net.bridge.bridge-nf-call-iptables a bridge shows here what it passes from port to port: that never leaves the bridge.
    let within: BTreeSet<&String> = apart.iter().flat_map(|apart| &apart.from).collect();
    for dev in within {
        let matches = [Match::InDev { name: dev.clone(), not: false }, Match::OutDev { name: dev.clone(), not: false }];
        batch.add_rule(FAMILY, &table, BETWEEN, &Rule::new(matches.to_vec(), Action::Accept), nft::At::End);
    }
    let rule = Rule { counter: true, ..Rule::new(Vec::new(), Action::Drop) };
    batch.add_rule(FAMILY, &table, BETWEEN, &rule, nft::At::End);
    batch.commit(netns)
}

/// Removes the table.
pub(crate) fn remove(netns: &Netns, state: &StateDir) -> Result<()> {
    if !is_there(netns, state)? {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.delete_table(FAMILY, &state.guard_table().0);
    match batch.commit(netns) {
        Err(error) if error.is_gone() => Ok(()),
        done => done,
    }
}
