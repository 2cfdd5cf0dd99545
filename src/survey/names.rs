//! What is asked of a lab most: the namespaces that commands run in, and how much it holds. It is kept beside the journal, of which
//! it is a small part.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::glance::HostDev;
use crate::lab::fold::fold;
use crate::lab::{Model, Steps, etc};
use crate::net::EtcFile;
use crate::net::regular::{self, STATE_BYTES_MAX};
use crate::state::{LabDir, NetnsRef, Result, sum};

/// The namespaces of a lab, what its nodes are called, and how many there are.
#[derive(Debug, Serialize, Deserialize)]
pub struct Names {
    /// The namespaces that it knows, in the order of their making.
    pub netns: Vec<NetnsRef>,
    /// The numbers of those with name servers of their own.
    resolvers: Vec<u32>,
    /// The lines of /etc/hosts about its nodes.
    nodes: String,
    /// The devices that it made on the host.
    pub(super) host_devs: Vec<HostDev>,
    /// The names of the tables of nf_tables that it made on the host.
    pub(super) host_tables: Vec<String>,
    /// How many namespaces the lab made.
    pub netns_made: usize,
    /// How many devices the lab made.
    pub devs_made: usize,
    /// The state of the journal that they were read from, if they are not kept yet.
    #[serde(skip)]
    journal: Option<Stamp>,
}

/// The file of names, as it is kept.
#[derive(Serialize, Deserialize)]
struct NamesFile<N> {
    journal: Stamp,
    names: N,
}

fn file_of(dir: &LabDir) -> PathBuf {
    dir.path().join("names")
}

/// A state of the journal, which is only ever written at its end.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl From<Metadata> for Stamp {
    fn from(meta: Metadata) -> Stamp {
        Stamp { inode: meta.ino(), length: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

impl Names {
    /// Returns the names of a lab by its journal, which is read only if it has changed since they were kept.
    pub fn of(dir: &LabDir, steps: &Steps) -> Result<Names> {
        // Taken before the journal is read: what is written meanwhile makes the names old.
        let journal = std::fs::metadata(dir.journal()).ok().map(Stamp::from);
        match Names::kept(&file_of(dir)) {
            Some(kept) if journal.as_ref() == Some(&kept.journal) => Ok(kept.names),
            _ => fold(dir, &dir.record()?, steps).map(|(model, _)| Names { journal, ..Names::in_model(&model) }),
        }
    }

    pub(super) fn in_model(model: &Model) -> Names {
        let netns: Vec<NetnsRef> = model.all_netns().map(|entry| entry.at.clone()).collect();
        Names {
            resolvers: netns.iter().map(|at| at.no).filter(|no| model.resolver(*no).is_some()).collect(),
            nodes: etc::nodes(model),
            host_devs: HostDev::all(model),
            host_tables: model
                .tables()
                .iter()
                .filter(|table| table.netns == 0)
                .map(|table| table.name.clone())
                .collect(),
            netns_made: netns.iter().filter(|at| at.made).count(),
            devs_made: model.all_devs().filter(|entry| entry.dev.made).count(),
            journal: None,
            netns,
        }
    }

    fn kept(path: &Path) -> Option<NamesFile<Names>> {
        let text = regular::read(path, STATE_BYTES_MAX).ok()?;
        sum::check_seal(&text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps the names for the next who asks; if that can't be done, the journal is read again.
    pub fn keep(&mut self, dir: &LabDir) {
        let Some(journal) = self.journal.take() else { return };
        let Ok(text) = sum::seal(&NamesFile { journal, names: self }) else { return };
        let path = file_of(dir);
        // Several may be at it at the same time, without a lock; what one that was killed left goes with the lab.
        let temp = path.with_extension(std::process::id().to_string());
        if std::fs::write(&temp, text).and_then(|()| std::fs::rename(&temp, path)).is_err() {
            let _ = std::fs::remove_file(&temp);
        }
    }

    /// Returns the namespace of this name.
    pub fn find(&self, name: &str) -> Option<&NetnsRef> {
        self.netns.iter().find(|at| at.name == name)
    }

    /// Returns what a command in one of the namespaces sees of /etc otherwise.
    pub fn etc_of(&self, dir: &LabDir, at: &NetnsRef) -> Result<Vec<EtcFile>> {
        etc::files_for(|| self.nodes.clone(), self.resolvers.contains(&at.no), dir.path(), at)
    }
}
