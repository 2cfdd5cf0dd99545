//! What steps and records refer to: namespaces, devices, tables, processes, each by what tells it from others of its name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use crate::net::{self, Mac, Netns, NetnsDir, NetnsId, ProcessId};

/// How a namespace is found again, by this process or by a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetnsAt {
    /// The namespace in which the script runs.
    Host,
    /// By its name, as `ip netns` knows it: one of the lab's own, which its mark proves.
    Named,
    /// By its name, and what it was when it was first opened.
    NamedAs(Identity),
    /// By a path, and what it was when it was first opened.
    Path(PathBuf, Identity),
    /// By a process, and what it was when it was first opened.
    Process(ProcessId, Identity),
}

/// What tells a namespace of others from all that there are in this boot: a name, a path and the number of a process are given again,
/// and so is the inode; the cookie is not (net/core/net_namespace.c, net_gen_cookie).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The file that stands for it.
    pub id: NetnsId,
    /// Its cookie, where the kernel tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
}

impl Identity {
    /// Looks at a namespace.
    pub fn of(netns: &Netns) -> net::Result<Identity> {
        Ok(Identity { id: netns.id(), cookie: netns.cookie()? })
    }

    /// Tells whether it is this one.
    pub fn is(&self, netns: &Netns) -> net::Result<bool> {
        Ok(netns.id() == self.id && (self.cookie.is_none() || netns.cookie()? == self.cookie))
    }
}

/// A namespace as steps refer to it: a number within the lab, the user's word for it, and how to find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsRef {
    /// Its number within the lab; 0 is the host.
    pub no: u32,
    /// The user's word for it.
    pub name: String,
    /// How it is found.
    pub at: NetnsAt,
    /// Whether this lab made it, and may remove it.
    pub made: bool,
}

impl NetnsRef {
    /// Returns the namespace in which the script runs.
    pub fn host() -> NetnsRef {
        NetnsRef { no: 0, name: "host".into(), at: NetnsAt::Host, made: false }
    }

    /// Tells whether a namespace of somebody else has ended for sure: it isn't where it was, and neither a process nor a mount
    /// holds it.
    pub fn has_ended(&self) -> Result<bool> {
        let at = self;
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
}

/// A device as steps refer to it: by its namespace and index, with the name and address that it should bear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevRef {
    /// Its number within the lab.
    pub no: u32,
    /// The namespace that it is in.
    pub netns: NetnsRef,
    /// The user's name for it; the kernel's is `name::kernel_name` of it.
    pub name: String,
    /// Its index in the namespace.
    pub index: u32,
    /// Its hardware address: with the index it tells our device from another one that took its place.
    pub mac: Option<Mac>,
    /// Whether this lab made it.
    pub made: bool,
}

impl DevRef {
    /// Returns the device for a message: `eth0` of `h1`.
    pub fn shown(&self) -> String {
        shown_dev(&self.name, &self.netns.name)
    }
}

/// Returns a device for a message, by its name and its namespace's.
pub fn shown_dev(name: &str, netns: &str) -> String {
    if netns == "host" { format!("`{name}`") } else { format!("`{name}` of `{netns}`") }
}

/// A table of nf_tables as steps refer to it: in a namespace, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableRef {
    /// The number of the namespace.
    pub netns: u32,
    /// Its name.
    pub name: String,
}

/// A process that runs beside the script, as steps refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Its number within the lab.
    pub no: u32,
    /// The user's word for it, one for each process of a namespace.
    pub name: String,
    /// The namespace that it was started in.
    pub netns: NetnsRef,
}

impl ProcessRef {
    /// Returns the process for a message: `web` of `h1`.
    pub fn shown(&self) -> String {
        shown_dev(&self.name, &self.netns.name)
    }
}
