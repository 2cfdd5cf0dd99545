//! Leases and pools of labs that are no more: given back once it is certain that nobody holds them.
//!
//! A lease and a pool bear the name of their lab. A lab is alive here as long as it has a directory, or a network or endpoint
//! that is on record names it: those outlive a restart of the machine, and their addresses wait for them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use crate::ipam::{Held, Ipam};
use crate::state::{Error, Key, Kind, RECORDS, Result, StateDir, Store};

/// What was given back.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    pub(crate) leases: Vec<Held>,
    pub(crate) pools: Vec<IpNetwork>,
}

/// Gives back what labs hold that are no more, of those that `concerned` holds for.
///
/// Fails with `state` where the store has a damaged file; what that might keep alive stays.
pub(crate) fn release_dead(state: &StateDir, concerned: impl Fn(&str) -> bool) -> Result<Freed> {
    if !state.has_store() {
        return Ok(Freed::default());
    }
    let store = state.store()?;
    let ipam = Ipam::new(store.as_ref());
    let living = Living { state, store: store.as_ref(), on_record: RefCell::default(), unread: RefCell::default() };
    let dead = |owner: &str| {
        let lab = lab_of(owner);
        concerned(lab) && living.is_dead(lab)
    };
    let leases = ipam.release_owned(&dead)?;
    let pools = ipam.remove_owned(&dead)?;
    let unread = living.unread.into_inner();
    unread.map_or(Ok(Freed { leases, pools }), Err)
}

/// Returns the leases that labs hold that are no more, which `gc` would give back.
///
/// Fails with `state` where the store has a damaged file.
pub fn audit(state: &StateDir) -> Result<Vec<Held>> {
    let store = state.store()?;
    let living = Living { state, store: store.as_ref(), on_record: RefCell::default(), unread: RefCell::default() };
    let dead = Ipam::new(store.as_ref()).audit(&|owner| !living.is_dead(lab_of(owner)))?;
    living.unread.into_inner().map_or(Ok(dead), Err)
}

/// Returns the lab of an owner: its name, behind which may be for whom it holds the lease.
fn lab_of(owner: &str) -> &str {
    owner.split_once(": ").map_or(owner, |(lab, _)| lab)
}

/// Knows which labs are alive. Asked under the lock of a pool: whoever takes an address has its lab's directory before.
struct Living<'a> {
    state: &'a StateDir,
    store: &'a dyn Store,
    /// The labs that a record named when it was last looked for. Only what is not among them is looked for again.
    on_record: RefCell<BTreeSet<String>>,
    /// Why a record could not be read: then nobody is dead for sure.
    unread: RefCell<Option<Error>>,
}

impl Living<'_> {
    fn is_dead(&self, lab: &str) -> bool {
        match self.state.find(lab) {
            Err(error) if error.kind() == Kind::Missing => {}
            // Also a name that no lab can have: nobody knows whose it is.
            _ => return false,
        }
        if self.on_record.borrow().contains(lab) || self.unread.borrow().is_some() {
            return false;
        }
        match self.read_records() {
            Ok(labs) => {
                let dead = !labs.contains(lab);
                self.on_record.replace(labs);
                dead
            }
            // The record that can't be read may be the one that names it.
            Err(error) => {
                self.unread.replace(Some(error));
                false
            }
        }
    }

    /// Reads which labs the networks and endpoints on record have.
    fn read_records(&self) -> Result<BTreeSet<String>> {
        let mut labs = BTreeSet::new();
        for folder in ["networks", "endpoints"] {
            for key in self.store.list(&Key::kind(RECORDS).below(folder)?)? {
                let record = self.store.get(&key)?;
                let lab = record.as_ref().and_then(|record| record.get("lab")?.as_str());
                labs.extend(lab.map(String::from));
            }
        }
        Ok(labs)
    }
}
