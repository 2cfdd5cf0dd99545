//! Leases: addresses that the journal knows before the store does.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::ipam::AllocOptions;
use crate::ipam::{Ipam, NoPool, Range};
use crate::lab::{Footprint, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net;
use crate::state::{Error, Place, Result, as_refusal, name};

/// Leases addresses. Its making waits for nothing but the journal: they are kept by a lock until it is written there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lease {
    subnet: IpNetwork,
    /// The addresses, in runs.
    ips: Vec<Range>,
    owner: String,
    /// Whether the leases were begun to be written; before that the pool is locked by this process. None for a step that was
    /// read from a journal, of which nobody knows.
    #[serde(skip)]
    begun: Option<Rc<Cell<bool>>>,
}

impl StepSort for Lease {
    const WORD: &'static str = "lease";
}

impl Step for Lease {
    fn doing(&self) -> String {
        let what = match self.ips.as_slice() {
            [one] if one.count() == 1 => format!("`{one}`"),
            runs => format!("{} addresses", runs.iter().map(|run| run.count()).sum::<u128>()),
        };
        format!("lease {what} of the pool `{}`", self.subnet)
    }

    fn like(&self) -> Vec<String> {
        Vec::new()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { ..Footprint::default() }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|_| {
            // Whoever asks holds the reservation, and commits it once this is in the journal.
            net::fault::point(&self.doing())
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if self.begun.as_ref().is_some_and(|begun| !begun.get()) {
            return Ok(());
        }
        let release = || {
            let store = kernel.store()?;
            let ips = self.ips.iter().flat_map(|run| run.ips());
            // One that was released, and is another's by now, stays.
            Ipam::new(store.as_ref()).release_many(self.subnet, ips, &self.owner)
        };
        release().map(|_| ()).map_err(as_refusal)
    }

    // A lease is in the store, and `ipam_release` gives it back earlier.
    fn is_held(&self, _kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        Ok(true)
    }
}

/// Names who an address is leased to: the lab, and whom the script says.
fn owner_of(lab: &Lab, owner: Option<&str>) -> String {
    match owner {
        // A line of its own, however long the path of a container is.
        Some(owner) => format!("{}: {}", lab.name(), name::shown(owner)),
        None => lab.name().to_string(),
    }
}

pub(super) fn alloc(lab: &mut Lab, subnet: IpNetwork, options: AllocOptions, place: Place) -> Result<IpAddr> {
    lab.take_name()?;
    // What is asked for before is settled before: the lock of the pool is held for the lease alone.
    lab.settle()?;
    let owner = owner_of(lab, options.owner.as_deref());
    let store = lab.store()?;
    let reservation = Ipam::new(store.as_ref()).reserve(subnet, options.ip, &owner, NoPool::Make)?;
    let ip = reservation.ip();
    let begun = Rc::new(Cell::new(false));
    lab.ask(Lease { subnet, ips: vec![Range::from(ip)], owner, begun: Some(begun.clone()) }, place)?;
    lab.settle()?;
    begun.set(true);
    reservation.commit()?;
    Ok(ip)
}

/// Leases `count` addresses, or none: one line in the journal and a write for each block of them, however many there are.
pub(super) fn alloc_many(
    lab: &mut Lab,
    subnet: IpNetwork,
    count: u32,
    options: AllocOptions,
    place: Place,
) -> Result<Vec<IpAddr>> {
    if let Some(ip) = options.ip {
        return Err(Error::invalid(format!("lease {count} addresses of the pool `{subnet}`"))
            .because(format!("`ip` asks for one, `{ip}`"))
            .hint(format!("leave the number out: `ipam_alloc(\"{subnet}\", #{{ ip: \"{ip}\" }})`")));
    }
    lab.take_name()?;
    lab.settle()?;
    let owner = owner_of(lab, options.owner.as_deref());
    let store = lab.store()?;
    let batch = Ipam::new(store.as_ref()).reserve_many(subnet, count, &owner, NoPool::Make)?;
    let ips: Vec<IpAddr> = batch.ips().collect();
    let begun = Rc::new(Cell::new(false));
    lab.ask(Lease { subnet, ips: Range::runs(&ips), owner, begun: Some(begun.clone()) }, place)?;
    lab.settle()?;
    begun.set(true);
    let committed = batch.commit().map(|_| ips);
    if committed.is_err() {
        // All or none: what of it was written goes back now, not with the lab.
        let _ = lab.take_back_last("its addresses could not be leased");
    }
    committed
}
