//! Giving back: one address, or all that belong to owners that are no more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::Ipam;
use super::block::{self, Lease};
use super::opened::{Opened, pool_key};
use super::subnet::Subnet;
use crate::state::store::Guard;
use crate::state::{Error, Kind, Result};

/// A lease, and the pool that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The pool.
    pub subnet: IpNetwork,
    /// The lease.
    #[serde(flatten)]
    pub lease: Lease,
}

impl Ipam<'_> {
    /// Gives an address back; returns whether it was leased, so that a second time does no harm.
    ///
    /// Fails with `invalid` where the address lies outside of the subnet; with `denied` where `owner` is given and another one
    /// holds it, naming that one.
    pub fn release(&self, subnet: IpNetwork, ip: IpAddr, owner: Option<&str>) -> Result<bool> {
        let subnet = Subnet::of(subnet)?;
        let doing = || format!("release `{ip}` of the pool `{subnet}`");
        let outside = || Error::invalid(doing()).because(format!("it lies outside of `{subnet}`"));
        let offset = subnet.offset(ip).ok_or_else(outside)?;
        let guard = self.store.lock(&pool_key(subnet)?)?;
        let Some(mut opened) = Opened::read(self.store, subnet)? else { return Ok(false) };
        let (index, place) = (offset >> block::BITS, (offset % block::SIZE) as u8);
        let released = opened.release_in(&guard, index, |lease_place, lease| match owner {
            _ if lease_place != place => Ok(false),
            Some(owner) if owner != lease.owner => {
                Err(Error::new(Kind::Denied, doing()).because(format!("`{}` holds it, not `{owner}`", lease.owner)))
            }
            _ => Ok(true),
        })?;
        opened.write_without(&guard, (!released.is_empty()).then_some(index))?;
        // Also one of which nothing was leased yet: a process ended, or a disk failed, between the pool and its first lease.
        opened.remove_if_unused(&guard)?;
        Ok(!released.is_empty())
    }

    /// Gives back those of the addresses that `owner` holds, a block of them in one write; returns how many that were.
    pub fn release_many(&self, subnet: IpNetwork, ips: impl IntoIterator<Item = IpAddr>, owner: &str) -> Result<usize> {
        let subnet = Subnet::of(subnet)?;
        let mut blocks = BTreeMap::<u128, u64>::new();
        for offset in ips.into_iter().filter_map(|ip| subnet.offset(ip)) {
            *blocks.entry(offset >> block::BITS).or_default() |= 1 << (offset % block::SIZE);
        }
        let guard = self.store.lock(&pool_key(subnet)?)?;
        let Some(mut opened) = Opened::read(self.store, subnet)? else { return Ok(0) };
        let mut released = 0;
        let mut written = Vec::new();
        for (index, places) in blocks {
            let goes = |place: u8, lease: &Lease| Ok(places & (1 << place) != 0 && lease.owner == owner);
            let count = opened.release_in(&guard, index, goes)?.len();
            released += count;
            written.extend((count > 0).then_some(index));
        }
        opened.write_without(&guard, written)?;
        opened.remove_if_unused(&guard)?;
        Ok(released)
    }

    /// Gives back all addresses whose owner is `dead`, and removes pools that were made for leases and have none left;
    /// returns what was given back.
    ///
    /// It goes on after a failure: the error has the others with it.
    pub fn release_owned(&self, dead: &dyn Fn(&str) -> bool) -> Result<Vec<Held>> {
        let mut released = Vec::new();
        let mut errors = Vec::new();
        for subnet in self.subnets()? {
            if let Err(error) = self.release_owned_in(subnet, dead, &mut released) {
                errors.push(error);
            }
        }
        match errors.is_empty() {
            true => Ok(released),
            false => Err(errors.remove(0).also(errors)),
        }
    }

    fn release_owned_in(&self, subnet: Subnet, dead: &dyn Fn(&str) -> bool, all: &mut Vec<Held>) -> Result<()> {
        let guard = self.store.lock(&pool_key(subnet)?)?;
        let Some(mut opened) = Opened::read(self.store, subnet)? else { return Ok(()) };
        let mut written = Vec::new();
        for index in opened.block_numbers()? {
            let released = opened.release_in(&guard, index, |_, lease| Ok(dead(&lease.owner)))?;
            written.extend((!released.is_empty()).then_some(index));
            all.extend(released.into_iter().map(|lease| Held { subnet: subnet.net(), lease }));
        }
        opened.write_without(&guard, written)?;
        opened.remove_if_unused(&guard)
    }

    /// Removes the pools whose owner is `dead` and of which nothing is leased; returns what was removed.
    ///
    /// It goes on after a failure: the error has the others with it.
    pub fn remove_owned(&self, dead: &dyn Fn(&str) -> bool) -> Result<Vec<IpNetwork>> {
        let mut removed = Vec::new();
        let mut errors = Vec::new();
        for subnet in self.subnets()? {
            match self.remove_owned_pool(subnet, dead) {
                Ok(true) => removed.push(subnet.net()),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(removed),
            false => Err(errors.remove(0).also(errors)),
        }
    }

    fn remove_owned_pool(&self, subnet: Subnet, dead: &dyn Fn(&str) -> bool) -> Result<bool> {
        let guard = self.store.lock(&pool_key(subnet)?)?;
        let Some(opened) = Opened::read(self.store, subnet)? else { return Ok(false) };
        let unwanted = !opened.is_in_use()? && dead(&opened.record.pool.spec.owner);
        if unwanted {
            opened.remove(&guard)?;
        }
        Ok(unwanted)
    }

    /// Reads all pools, and returns the leases whose owner doesn't live.
    ///
    /// Fails with `state` where a file can't be right; a block that is marked full and isn't counts too.
    pub fn audit(&self, lives: &dyn Fn(&str) -> bool) -> Result<Vec<Held>> {
        let mut dead = Vec::new();
        for subnet in self.subnets()? {
            // Under the lock: what is being released is unmarked first.
            let _guard = self.store.lock(&pool_key(subnet)?)?;
            let Some(opened) = Opened::read(self.store, subnet)? else { continue };
            opened.check_marks()?;
            let leases = opened.leases()?.into_iter().filter(|lease| !lives(&lease.owner));
            dead.extend(leases.map(|lease| Held { subnet: subnet.net(), lease }));
        }
        Ok(dead)
    }
}

impl Opened<'_> {
    /// Gives back those leases of a block that `goes` holds for, in one write; nothing if it fails for one.
    fn release_in(&self, guard: &Guard, index: u128, goes: impl Fn(u8, &Lease) -> Result<bool>) -> Result<Vec<Lease>> {
        let mut block = self.block(index)?;
        let was_full = block.is_full(self.mask(index));
        let (mut kept, mut released) = (BTreeMap::new(), Vec::new());
        for (place, lease) in std::mem::take(&mut block.leases) {
            match goes(place, &lease)? {
                true => released.push(lease),
                false => drop(kept.insert(place, lease)),
            }
        }
        if released.is_empty() {
            return Ok(released);
        }
        block.leases = kept;
        if was_full && !block.is_full(self.mask(index)) {
            self.unmark(guard, index)?;
        }
        // The block in which the search is keeps its place, or the address would be the next one to be handed out.
        if block.leases.is_empty() && index != self.at {
            self.remove_block(guard, index)?;
        } else {
            self.write_block(guard, index, &block)?;
        }
        Ok(released)
    }

    /// Removes a pool that was made for a lease and has none left.
    pub(super) fn remove_if_unused(&self, guard: &Guard) -> Result<()> {
        match self.record.pool.implicit && !self.is_in_use()? {
            true => self.remove(guard),
            false => Ok(()),
        }
    }
}
