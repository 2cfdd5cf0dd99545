//! A glance at many labs: what they have on the host, by one list each of its links, addresses and tables of nf_tables, and the names of
//! their namespaces.
//!
//! It tells what most damage begins with, whatever the number of labs. What is inside of namespaces, routes, rules and settings it does
//! not see: `look` looks at each step.

use std::collections::{HashMap, HashSet};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::names::Names;
use crate::lab::{Kernel, Model, Steps};
use crate::net::{self, Entry, Mac, NetnsDir, Owners};
use crate::state::{Error, LabDir, NetnsAt, NetnsRef, Record, Result, StateDir, name};

/// A device that a lab has on the host, as its steps left it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HostDev {
    index: u32,
    name: String,
    mac: Option<Mac>,
    controller: Option<u32>,
    up: bool,
    addresses: Vec<IpNetwork>,
}

impl HostDev {
    /// Returns those of a lab.
    pub(crate) fn all(model: &Model) -> Vec<HostDev> {
        let here = model.all_devs().filter(|entry| entry.dev.made && entry.dev.netns.at == NetnsAt::Host);
        here.map(|entry| HostDev {
            index: entry.dev.index,
            name: name::kernel_name(&entry.dev.name),
            mac: entry.dev.mac,
            controller: entry.controller.and_then(|no| model.dev(no)).map(|bridge| bridge.dev.index),
            up: entry.up == Some(true),
            addresses: entry.addresses.clone(),
        })
        .collect()
    }
}

/// The host, looked at once for all labs.
#[derive(Debug)]
pub struct Glance {
    links: HashMap<u32, net::Link>,
    addresses: HashSet<(u32, IpNetwork)>,
    /// Names and comments; none where this process may not list them.
    tables: Option<HashSet<(String, String)>>,
    dir: NetnsDir,
    owners: Owners,
}

impl Glance {
    /// Looks at the host.
    pub fn take() -> Result<Glance> {
        Glance::list().map_err(|source| Error::kernel("look at the host", &source))
    }

    fn list() -> net::Result<Glance> {
        let host = NetnsRef::host();
        let mut kernel = Kernel::open()?;
        let rtnl = kernel.rtnl(&host)?;
        let links = net::link::list(&rtnl)?.into_iter().map(|link| (link.index, link)).collect();
        let addresses = kernel.addresses(&host)?.iter().map(|address| (address.index, address.net)).collect();
        let tables = match kernel.nft_tables(&host) {
            Err(error) if error.is_unsupported() || error.is_denied() => None,
            tables => {
                Some(tables?.iter().filter_map(|table| Some((table.name.clone(), table.comment.clone()?))).collect())
            }
        };
        let dir = NetnsDir::system();
        Ok(Glance { links, addresses, tables, owners: dir.owners(), dir })
    }

    /// Tells whether devices, addresses or tables on the host or names of namespaces of a lab that is up are missing or changed, or the
    /// namespace has ended that it is for. One whose host is another than that of this process, such as a sandbox, can't be looked at from here.
    pub(super) fn is_amiss(&self, state: &StateDir, record: &Record, names: &Names) -> Result<bool> {
        if !state.is_host_here(record)? {
            return Ok(false);
        }
        let mark = &record.marks.mark;
        let has_table =
            |name: &String| self.tables.as_ref().is_none_or(|all| all.contains(&(name.clone(), mark.clone())));
        if !names.host_devs.iter().all(|dev| self.has(dev, mark)) || !names.host_tables.iter().all(has_table) {
            return Ok(true);
        }
        for at in names.netns.iter().filter(|at| at.made && at.at == NetnsAt::Named) {
            let found = self.has_netns(&at.name, mark);
            if !found.map_err(|source| Error::kernel(format!("look at netns `{}`", at.name), &source))? {
                return Ok(true);
            }
        }
        record.tied_to.as_ref().map_or(Ok(false), NetnsRef::has_ended)
    }

    /// Tells whether there is a namespace under a name whose owner has this mark.
    fn has_netns(&self, name: &str, mark: &str) -> net::Result<bool> {
        let Entry::Netns(netns) = self.dir.entry(name)? else { return Ok(false) };
        match self.owners.mark_of(name, &netns) {
            // Only root can tell.
            Err(error) if error.is_denied() => Ok(true),
            owner => Ok(owner?.as_deref() == Some(mark)),
        }
    }

    fn has(&self, dev: &HostDev, mark: &str) -> bool {
        self.links.get(&dev.index).is_some_and(|link| {
            (link.alias.as_deref() == Some(mark) || dev.mac.is_some() && link.mac == dev.mac)
                && link.name == dev.name
                && (dev.controller.is_none() || link.controller == dev.controller)
                && (link.up || !dev.up)
                // What is down has no IPv6 address (net/ipv6/addrconf.c, addrconf_ifdown).
                && dev.addresses.iter().filter(|net| link.up || net.is_ipv4()).all(|net| self.addresses.contains(&(link.index, *net)))
        })
    }

    /// Tells in a word how a lab is with its parts: "up", "damaged", or "down" where it is not of this boot or not there.
    pub fn state_of(&self, state: &StateDir, name: &str, steps: &Steps) -> Result<&'static str> {
        let dir = state.lab_dir(name);
        let record = match dir.record() {
            Err(error) if error.kind() == crate::state::Kind::Missing && !dir.path().is_dir() => return Ok("down"),
            record => record?,
        };
        if !state.is_up(&record)? {
            return Ok("down");
        }
        Ok(if self.is_amiss_with_parts(state, &dir, &record, steps)? { "damaged" } else { "up" })
    }

    fn is_amiss_with_parts(&self, state: &StateDir, dir: &LabDir, record: &Record, steps: &Steps) -> Result<bool> {
        let mut names = Names::of(dir, steps)?;
        names.keep(dir);
        if self.is_amiss(state, record, &names)? {
            return Ok(true);
        }
        for part in state.children(dir.name())? {
            // One that somebody took down since it was listed is not missed.
            let Ok(dir) = state.find(&part) else { continue };
            let record = dir.record()?;
            if state.is_up(&record)? && self.is_amiss_with_parts(state, &dir, &record, steps)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
