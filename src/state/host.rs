//! The host of a lab: the network and pid namespaces in which its script ran. What the lab made on `host` is there and nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::dir::{Record, StateDir, boot_id};
use super::error::{Error, Kind, Result};
use super::refs::Identity;
use crate::net::{self, Entry, Netns, NetnsDir};

/// The namespaces in which a lab's script ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    netns: Identity,
    /// The pid namespace, by its device and inode.
    pids: Option<(u64, u64)>,
}

/// Where a lab's host is, seen from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is the namespace that this process is in.
    Here,
    /// It has ended, with all that was in it.
    Ended,
    /// It is another one: why that is known, and how to go there.
    Elsewhere(&'static str, String),
}

const OTHER_NETNS: &str = "it was made in another network namespace, and what it has on `host` is there";
/// Says that a lab's host has ended.
pub(crate) const HOST_ENDED: &str = "the network namespace that was its host has ended";
const OTHER_PIDS: &str = "it was made in another pid namespace, such as a container's, and its processes are there";

impl Host {
    /// Returns the host of what this process makes.
    pub(crate) fn here() -> net::Result<Host> {
        let netns = Netns::current()?;
        let pids = fs::metadata("/proc/self/ns/pid").ok().map(|meta| (meta.dev(), meta.ino()));
        Ok(Host { netns: Identity::of(&netns)?, pids })
    }

    fn is_netns_of(&self, other: &Host) -> bool {
        match (self.netns.cookie, other.netns.cookie) {
            (Some(cookie), Some(other)) => cookie == other,
            _ => self.netns.id == other.netns.id,
        }
    }

    fn is(&self, netns: &Netns) -> bool {
        self.netns.is(netns).unwrap_or_default()
    }

    /// Tells where it is, seen from a process whose host is `here`.
    fn seen_from(&self, here: &Host, lab: &str) -> net::Result<Seen> {
        let (same_netns, same_pids) = (self.is_netns_of(here), self.pids == here.pids);
        if same_netns && same_pids {
            return Ok(Seen::Here);
        }
        if !same_netns && let Some(way) = self.way()? {
            return Ok(Seen::Elsewhere(OTHER_NETNS, format!("`{way} topo …` runs the command there")));
        }
        if same_pids {
            return Ok(Seen::Ended);
        }
        // The processes of another pid namespace can't be seen, and may hold it.
        let hint =
            format!("run topo there; if that has ended, `topo down --forget {lab}` removes what is known of the lab");
        Ok(Seen::Elsewhere(OTHER_PIDS, hint))
    }

    /// Returns the command that enters it, if anything is found that holds it.
    fn way(&self) -> net::Result<Option<String>> {
        let dir = NetnsDir::system();
        for name in dir.list()? {
            if let Ok(Entry::Netns(netns)) = dir.entry(&name)
                && self.is(&netns)
            {
                // Not by `ip netns exec`: what is unmounted in its mount namespace stays mounted outside.
                return Ok(Some(format!("nsenter --net={}", dir.path(&name).display())));
            }
        }
        for process in net::process::in_netns(&BTreeSet::from([self.netns.id]))? {
            if Netns::of_pid(process.pid).is_ok_and(|netns| self.is(&netns)) {
                return Ok(Some(format!("nsenter -t {} -n", process.pid)));
            }
        }
        Ok(None)
    }
}

impl StateDir {
    /// Returns the host of this process; looked up once.
    pub(crate) fn host(&self) -> Result<&Host> {
        if let Some(host) = self.known_host().get() {
            return Ok(host);
        }
        let host = Host::here().map_err(|source| Error::kernel("look at this network namespace", &source))?;
        Ok(self.known_host().get_or_init(|| host))
    }

    /// Tells where the host of a lab is. That of a sandbox goes with its holder, and is entered by it.
    pub(crate) fn host_of(&self, record: &Record) -> Result<Seen> {
        let here = self.inside().map(|inside| inside.holder);
        let Some(host) = record.host.as_ref().filter(|_| record.holder == here) else { return Ok(Seen::Here) };
        let seen = host.seen_from(self.host()?, &record.name);
        seen.map_err(|source| Error::kernel(format!("look for the host of lab `{}`", record.name), &source))
    }

    /// Tells whether the host of a lab is the one of this process, without looking for it elsewhere.
    pub(crate) fn is_host_here(&self, record: &Record) -> Result<bool> {
        let here = self.inside().map(|inside| inside.holder);
        match &record.host {
            _ if record.holder != here => Ok(false),
            Some(host) => self.host().map(|here| host.is_netns_of(here) && host.pids == here.pids),
            None => Ok(true),
        }
    }

    /// Tells whether a lab was made in another pid namespace, such as a container's: only there is known whether its run is alive.
    pub(crate) fn is_of_other_pids(&self, record: &Record) -> Result<bool> {
        let here = self.inside().map(|inside| inside.holder);
        let boot_id = boot_id()?;
        match record.host.as_ref().filter(|_| record.holder == here && record.boot_id == boot_id) {
            Some(host) => Ok(host.pids != self.host()?.pids),
            None => Ok(false),
        }
    }

    /// Refuses what can only be done on the host of a lab, where this process is on another one.
    pub fn check_host(&self, record: &Record, doing: impl FnOnce() -> String) -> Result<()> {
        match self.host_of(record)? {
            Seen::Here => Ok(()),
            Seen::Ended => Err(Error::new(Kind::Gone, doing())
                .because(HOST_ENDED)
                .hint(format!("`topo down {}` removes what is left of it", record.name))),
            Seen::Elsewhere(because, hint) => Err(Error::new(Kind::Denied, doing()).because(because).hint(hint)),
        }
    }
}
