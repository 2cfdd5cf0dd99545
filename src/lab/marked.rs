//! Removing what has a mark of this state directory, where no journal tells of it: of labs that are lost, or of one whose journal is
//! damaged. Never by a pattern of names.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::ended::{EndedProcess, end_processes};
use super::kernel::Kernel;
use super::undo;
use crate::ipam::Held;
use crate::net::{self, Entry, Netns, nft};
use crate::state::{Error, NetnsAt, NetnsRef, Result, StateDir, lab_of_mark, name};

/// What was removed, and what could not be.
#[derive(Debug, Default)]
pub struct Collected {
    /// Labs that dead runs left.
    pub labs: Vec<String>,
    /// Named namespaces that belong to no lab that is known.
    pub netns: Vec<String>,
    /// Devices of the host that belong to no lab that is known.
    pub devs: Vec<String>,
    /// Tables of nf_tables on the host that belong to no lab that is known.
    pub tables: Vec<String>,
    /// Rules in tables of others on the host that belong to no lab that is known, each as its table and chain.
    pub rules: Vec<String>,
    /// Control groups that runs left whose state directory may be gone.
    pub groups: Vec<String>,
    /// Processes that were ended.
    pub processes: Vec<EndedProcess>,
    /// Addresses that labs held which are no more.
    pub leases: Vec<Held>,
    /// Pools that labs made which are no more.
    pub pools: Vec<IpNetwork>,
    /// What went wrong.
    pub errors: Vec<Error>,
}

impl Collected {
    /// Tells whether there was nothing to remove, and nothing went wrong.
    pub fn is_empty(&self) -> bool {
        let Collected { labs, netns, devs, tables, rules, groups, processes, leases, pools, errors } = self;
        [labs, netns, devs, tables, rules, groups].iter().all(|names| names.is_empty())
            && processes.is_empty()
            && leases.is_empty()
            && pools.is_empty()
            && errors.is_empty()
    }
}

/// Removes what has the mark of one lab.
pub(super) fn remove_marked(state: &StateDir, mark: &str) -> Result<()> {
    collect_marked(state, &mut Collected::default(), Some(mark))
}

/// Removes what has a mark of this state directory for a lab that it doesn't know, or the mark `only`.
///
/// A namespace is told by its file, which only root can write; what others could write proves nothing: the alias of a device in
/// a namespace, the environment of a process. On the host, only root can give a device an alias, or make a table.
pub(crate) fn collect_marked(state: &StateDir, collected: &mut Collected, only: Option<&str>) -> Result<()> {
    let failed = |source: net::Error| Error::kernel("look for what lost labs left", &source);
    let mut kernel = Kernel::open().map_err(failed)?;
    let host = NetnsRef::host();
    let rtnl = kernel.rtnl(&host).map_err(failed)?;
    let links = net::link::list(&rtnl).map_err(failed)?;
    let names = kernel.dir().list().map_err(failed)?;
    let rules = Marked::find(&kernel.netns(&host).map_err(failed)?).map_err(failed)?;
    // Asked for after what they own: a lab that began meanwhile is among them.
    let known = state.names()?;
    let is_known = |lab: &str| known.iter().any(|name| name == lab);
    let orphan = |mark: &str| match only {
        Some(only) => Ok(mark == only),
        // What is for all labs has a mark with a name that no lab can have.
        None => state.lab_of(mark).map(|lab| lab.is_some_and(|lab| name::check("lab", lab).is_ok() && !is_known(lab))),
    };

    if only.is_none() {
        let creators: Vec<net::ProcessId> =
            known.iter().filter_map(|name| Some(state.find(name).ok()?.record().ok()?.creator)).collect();
        state.end_lost_trails(is_known, &creators, &mut collected.processes)?;
    }
    let owners = kernel.dir().owners();
    for name in names {
        let (netns, mark) = match kernel.dir().entry(&name).map_err(failed)? {
            Entry::Netns(netns) => {
                let mark = owners.mark_of(&name, &netns).map_err(failed)?;
                (Some(netns), mark.unwrap_or_default())
            }
            Entry::Placeholder(mark) => (None, mark),
            Entry::Absent | Entry::Other => continue,
        };
        if !orphan(&mark)? {
            continue;
        }
        if let Some(netns) = netns {
            end_processes(&BTreeSet::from([netns.id()]), &mut collected.processes)?;
        }
        if let Err(errors) = give_back_lost(&mut kernel, &name) {
            collected.errors.extend(errors.iter().map(|source| undo::failed_way_back(source.doing(), source)));
            continue;
        }
        match kernel.dir().unbind(&name) {
            Err(error) if !error.is_gone() => return Err(failed(error)),
            _ => collected.netns.push(name),
        }
    }
    for link in links {
        if !link.alias.as_deref().map_or(Ok(false), orphan)? {
            continue;
        }
        match net::link::delete(&rtnl, link.index) {
            // The end of a veth whose other end was removed, or went with its namespace, just now.
            Err(error) if !error.is_gone() => return Err(failed(error)),
            _ => collected.devs.push(link.name),
        }
    }
    let host = kernel.netns(&host).map_err(failed)?;
    (collected.tables, collected.rules) = rules.remove(&host, orphan)?;
    let _all = state.lock_all()?;
    undo::retire_dir(&kernel, state, &|| Ok(state.names()?.is_empty()))
}

/// Gives the devices back that no lab made, of a namespace of a lab that is not known any more.
fn give_back_lost(kernel: &mut Kernel, name: &str) -> std::result::Result<(), Vec<net::Error>> {
    let at = NetnsRef { no: u32::MAX, name: name.to_string(), at: NetnsAt::Named, made: true };
    let found = kernel.find_foreign(&[&at], &[&at], &[]);
    let given = match found {
        Ok(found) => found.iter().try_for_each(|(at, links)| {
            let ways = kernel.ways_back(at, links, &[], &BTreeSet::from([at.no]));
            kernel.give_back(&ways)
        }),
        // A file on which nothing was mounted yet.
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(vec![error]),
    };
    kernel.forget(&at);
    given
}

/// What nf_tables has with a mark as its comment: tables, and rules in tables of others.
#[derive(Default)]
struct Marked {
    tables: Vec<nft::Table>,
    /// Each with its comment.
    rules: Vec<(nft::RuleRef, String)>,
}

impl Marked {
    fn find(netns: &Netns) -> net::Result<Marked> {
        let mut tables = match nft::list_tables(netns) {
            // Who may not look at them could not make any: both need CAP_NET_ADMIN on the host (nfnetlink.c, nfnetlink_rcv).
            Err(error) if error.is_unsupported() || error.is_denied() => return Ok(Marked::default()),
            tables => tables?,
        };
        tables.retain(|table| table.comment.as_deref().is_some_and(|mark| lab_of_mark(mark).is_some()));
        let mut rules = nft::commented_rules(netns)?;
        rules.retain(|(rule, _)| !tables.iter().any(|table| table.family == rule.family && table.name == rule.table));
        Ok(Marked { tables, rules })
    }

    /// Removes those whose mark is an orphan's, and returns their names.
    fn remove(self, netns: &Netns, orphan: impl Fn(&str) -> Result<bool>) -> Result<(Vec<String>, Vec<String>)> {
        let (mut tables, mut rules) = (Vec::new(), Vec::new());
        let mut batch = nft::Batch::new();
        for (rule, comment) in self.rules {
            // Behind the mark is the number of the step.
            let mark = comment.rsplit_once(':').map_or("", |(mark, _)| mark);
            if orphan(mark)? {
                batch.delete_rule(rule.family, &rule.table, &rule.chain, rule.handle);
                rules.push(format!("{} {} {}", rule.family, rule.table, rule.chain));
            }
        }
        for table in self.tables {
            if orphan(table.comment.as_deref().unwrap_or_default())? {
                batch.delete_table(table.family, &table.name);
                tables.push(table.name);
            }
        }
        batch.commit(netns).map_err(|source| Error::kernel("remove the rules of lost labs", &source))?;
        Ok((tables, rules))
    }
}
