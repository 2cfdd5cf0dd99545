//! Removing what dead runs left: by journal, and by owner mark where a journal is lost. Never by a pattern of names, and
//! never what belongs to a lab that is up.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::down::{down_locked, end_sandbox};
use super::error::{Error, Kind, Result};
use super::event::{EndedProcess, Listener};
use super::ipam::Held;
use super::journal;
use super::kernel::Kernel;
use super::leases::{Freed, release_dead};
use super::marks::lab_of_mark;
use super::model::{NetnsAt, NetnsRef};
use super::name;
use super::state::{LabDir, Record, StateDir, Status};
use super::step::Steps;
use super::undo;
use crate::net::{self, Entry, Netns, NetnsDir, nft};

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

/// Removes what dead runs of this state directory left behind.
pub fn gc(state: &StateDir, steps: &Steps, listener: &mut Listener) -> Result<Collected> {
    let mut collected = Collected::default();
    // On a file system that can't be written to the kernel's part is removed all the same.
    collected.errors.extend(state.sweep().err());
    for name in state.names()? {
        match collect_lab(state, &name, steps, listener) {
            Ok(true) => collected.labs.push(name),
            Ok(false) => {}
            Err(errors) => collected.errors.extend(errors),
        }
        collected.processes.extend(listener.take_ended());
    }
    if let Err(error) = collect_marked(state, &mut collected, None) {
        collected.errors.push(error);
    }
    match state.remove_abandoned_groups() {
        Ok(groups) => collected.groups = groups,
        Err(error) => collected.errors.push(error),
    }
    if let Err(error) = state.sweep_settings() {
        collected.errors.push(error);
    }
    // The locks of the dead go last. A store that can't be opened is told of once.
    let freed = release_dead(state, |_| true).and_then(|freed| state.tidy_store().map(|()| freed));
    match freed {
        Ok(Freed { leases, pools }) => (collected.leases, collected.pools) = (leases, pools),
        Err(error) => collected.errors.push(error),
    }
    // What is damaged may not have been needed so far.
    let known: BTreeSet<String> = collected.errors.iter().map(Error::to_string).collect();
    collected.errors.extend(state.check_store().into_iter().filter(|error| !known.contains(&error.to_string())));
    Ok(collected)
}

fn collect_lab(
    state: &StateDir,
    name: &str,
    steps: &Steps,
    listener: &mut Listener,
) -> std::result::Result<bool, Vec<Error>> {
    let one = |error: Error| vec![error];
    let Ok(mut dir) = state.find(name) else { return Ok(false) };
    if let Ok(record) = dir.record()
        && !is_dead(state, &record).map_err(one)?
    {
        // Not even locked: that would keep its owner out.
        return match journal::verify(&dir, &record) {
            Err(error) if error.kind() == Kind::State => Err(one(error)),
            _ => Ok(false),
        };
    }
    end_orphaned(state, &dir).map_err(one)?;
    if !is_free(&mut dir, state).map_err(one)? {
        return Ok(false);
    }
    let record = match dir.record() {
        Ok(record) => record,
        // Killed between making the directory and writing the record: before anything else was made.
        Err(_) if is_empty(&dir) => return dir.remove(state).map(|()| true).map_err(one),
        Err(error) => return Err(one(error)),
    };
    if !is_dead(state, &record).map_err(one)? || state.is_of_other_pids(&record).map_err(one)? {
        return Ok(false);
    }
    match down_locked(state, dir, &record, steps, listener) {
        errors if errors.is_empty() => Ok(true),
        errors => Err(errors),
    }
}

/// Ends the sandbox of a run whose process outside of it was killed: it ends by itself, but some moments later.
fn end_orphaned(state: &StateDir, dir: &LabDir) -> Result<()> {
    match dir.record() {
        Ok(Record { holder: Some(holder), creator, .. }) if state.inside().is_none() && !creator.is_alive() => {
            end_sandbox(holder)
        }
        _ => Ok(()),
    }
}

/// Locks a lab's directory; tells whether that was possible: not if somebody is at work on it, or has removed it.
fn is_free(dir: &mut LabDir, state: &StateDir) -> Result<bool> {
    match dir.lock(state) {
        Err(error) if matches!(error.kind(), Kind::Busy | Kind::Missing) => Ok(false),
        locked => locked.map(|()| true),
    }
}

fn is_empty(dir: &LabDir) -> bool {
    !dir.has_record() && !journal::has_steps(&dir.journal())
}

/// Tells whether nobody wants the lab: its run or its removal was cut short, its sandbox ended, or the machine restarted.
fn is_dead(state: &StateDir, record: &Record) -> Result<bool> {
    if !state.is_up(record)? {
        return Ok(true);
    }
    if let Some(parent) = &record.parent {
        match state.find(parent) {
            // What it was a part of is no more.
            Err(error) if error.kind() == Kind::Missing => return Ok(true),
            _ => {}
        }
    }
    record.tied_to.as_ref().map_or(Ok(false), has_ended)
}

/// Tells whether a namespace of somebody else has ended for sure: it isn't where it was, and neither a process nor a mount
/// holds it.
pub(super) fn has_ended(at: &NetnsRef) -> Result<bool> {
    let failed = |source: net::Error| Error::kernel(format!("look for netns `{}`", at.name), &source);
    let (opened, seen) = match &at.at {
        NetnsAt::NamedAs(seen) => (NetnsDir::system().open(&at.name), seen),
        NetnsAt::Path(path, seen) => (Netns::open(path), seen),
        NetnsAt::Process(process, seen) => (Netns::of_pid(process.pid), seen),
        NetnsAt::Host | NetnsAt::Named => return Ok(false),
    };
    let id = &seen.id;
    let found = || match opened {
        // An inode is given again; where it is another's by now, the first one has ended.
        Ok(netns) if netns.id() == *id => seen.is(&netns).map(Some),
        Ok(_) => Ok(None),
        Err(source) if source.is_gone() || source.errno() == libc::EINVAL => Ok(None),
        Err(source) => Err(source),
    };
    if let Some(is_it) = found().map_err(failed)? {
        return Ok(!is_it);
    }
    let mounts = id.mounts().map_err(failed)?;
    let mounted = mounts.iter().filter_map(|path| Netns::open(path).ok()).find(|netns| netns.id() == *id);
    match mounted {
        Some(netns) => return seen.is(&netns).map(|is_it| !is_it).map_err(failed),
        // What can't be looked at may be it.
        None if !mounts.is_empty() => return Ok(false),
        None => {}
    }
    for process in net::process::in_netns(&BTreeSet::from([*id])).map_err(failed)? {
        match Netns::of_pid(process.pid).and_then(|netns| seen.is(&netns)) {
            Ok(false) => return Ok(true),
            Ok(true) => return Ok(false),
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(true)
}

/// Removes what has the mark of one lab.
pub(super) fn remove_marked(state: &StateDir, mark: &str) -> Result<()> {
    collect_marked(state, &mut Collected::default(), Some(mark))
}

/// Removes what has a mark of this state directory for a lab that it doesn't know, or the mark `only`.
///
/// A namespace is told by its file, which only root can write; what others could write proves nothing: the alias of a device in
/// a namespace, the environment of a process. On the host, only root can give a device an alias, or make a table.
fn collect_marked(state: &StateDir, collected: &mut Collected, only: Option<&str>) -> Result<()> {
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
            undo::end_processes(&BTreeSet::from([netns.id()]), &mut collected.processes)?;
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

/// Ends a sandbox whose run died before it had a lab, or after; for the process that started it.
pub(super) fn end_unclaimed(state: &StateDir, holder: net::ProcessId) -> Result<bool> {
    for name in state.names()? {
        let Ok(mut dir) = state.find(&name) else { continue };
        match dir.record() {
            Ok(record) if record.holder == Some(holder) => {
                if record.status == Status::Up {
                    return Ok(true);
                }
                end_sandbox(holder)?;
                state.drop_store_of(holder)?;
                dir.lock(state)?;
                dir.remove(state)?;
                return Ok(false);
            }
            _ => {}
        }
    }
    end_sandbox(holder)?;
    state.drop_store_of(holder)?;
    // The run may have been killed before its lab had a record.
    for name in state.names()? {
        let Ok(mut dir) = state.find(&name) else { continue };
        if is_empty(&dir) && is_free(&mut dir, state)? && is_empty(&dir) {
            dir.remove(state)?;
        }
    }
    Ok(false)
}
