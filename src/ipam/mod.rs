//! IP address management: pools of addresses in the store, and who holds which.
//!
//! Three kinds of records:
//!
//! | key | what |
//! | --- | --- |
//! | `pools/10.0.0.0-16` | what the pool was asked to be, in which block the search goes on, and leases that are not in their blocks yet |
//! | `leases/10.0.0.0-16/1f` | a block of 64 addresses: their leases, and where in it the search goes on |
//! | `full/10.0.0.0-16/1-0` | which of 64 blocks are full; on higher levels, which of 64 such records are |
//!
//! An allocation reads the pool and one block, and writes the block: 64 leases at most, however large or full the pool is.
//! Where the search leaves a block, it writes the pool instead, with the lease in it (`fresh`): the block and its mark would be two
//! writes more. So does an allocation in a block of which the pool has a lease already. A pool that has 64 leases of its own carries
//! them into eight blocks at a time, and marks those that are full. So a lease that fills the last hole of a block is one write, and
//! another one and a little later. A search for room reads at most one record a level: two levels in a /16, four in a /8.
//! A run-length code of full blocks in the pool's own record would be smaller at first, and grow with every hole in a pool.
//!
//! A batch of allocations is chosen as single ones are, and then is one write of the pool. Where the pool would have more than 1024
//! leases of its own, its blocks are written at once.
//!
//! Every write is atomic, and a crash between two is harmless by their order:
//!
//! - leases that are carried into their blocks: the blocks, then their marks, then the pool without the leases. In between both have
//!   the leases, which says the same; a block that is full and not marked is marked by the next search that finds it;
//! - a lease that fills a block: the block, then its mark. In between, the same holds;
//! - a release from a full block: the marks from the top down, then the block. In between, the same holds;
//! - a release of a lease that the pool has: the block without it, then the pool. In between it is still leased;
//! - a large batch: the pool, then the blocks, then marks. In between some of its leases are there, which the lab's journal knows and
//!   gives back;
//! - a pool that is removed: marks, leases, pool. In between it is a pool with fewer leases.
//!
//! Locks: one for each pool, by its key, held for every change in it; and that of the kind `pools`, taken first, while a pool
//! comes to be. Readers take none.

mod batch;
mod block;
mod fresh;
mod full;
mod opened;
mod pool;
mod release;
mod reserve;
mod subnet;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

pub use block::Lease;
pub use pool::{Pool, PoolSpec, Range};
pub use release::Held;
pub use reserve::NoPool;
pub use subnet::{Subnet, bits_of, span, without_host_bits};

use crate::state::store::Guard;
use crate::state::{Error, Key, Kind, Result, Store, now};
use opened::{Opened, POOLS, Record, damaged, holders, orphan, pool_key};

/// The pools of a store.
#[derive(Clone, Copy)]
pub struct Ipam<'a> {
    store: &'a dyn Store,
}

/// How much of a pool is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many addresses are leased, those included that were asked for by number outside of the pool's range.
    pub used: u128,
    /// How many addresses the pool hands out by itself.
    pub size: u128,
}

impl<'a> Ipam<'a> {
    /// Takes the pools of `store`.
    pub fn new(store: &'a dyn Store) -> Ipam<'a> {
        Ipam { store }
    }

    /// Makes a pool.
    ///
    /// Fails with `invalid` where it can't be: host bits, a gateway or range that lies outside, no address left to hand out;
    /// with `exists` where it overlaps another pool, naming that one.
    pub fn add_pool(&self, spec: &PoolSpec) -> Result<Pool> {
        let subnet = Subnet::of(spec.subnet)?;
        let _pools = self.lock_pools()?;
        let mut opened = self.new_pool(spec.clone(), false)?;
        let guard = self.store.lock(&pool_key(subnet)?)?;
        opened.write(&guard)?;
        Ok(opened.record.pool)
    }

    /// Checks whether a pool could be made now, with the errors of `add_pool`.
    pub fn check_pool(&self, spec: &PoolSpec) -> Result<()> {
        let _pools = self.lock_pools()?;
        self.new_pool(spec.clone(), false).map(|_| ())
    }

    /// Locks all pools: none comes to be meanwhile.
    fn lock_pools(&self) -> Result<Guard> {
        self.store.lock(&Key::kind(POOLS))
    }

    /// Checks a pool that is not written yet; for whoever holds the lock of all pools.
    fn new_pool(&self, spec: PoolSpec, implicit: bool) -> Result<Opened<'a>> {
        let at = spec.subnet.ip();
        let record = Record { pool: Pool { spec, created: now(), implicit }, at, lap: 0, fresh: Vec::new() };
        let opened = Opened::new(self.store, record)?;
        self.refuse_overlap(opened.subnet())?;
        if let Some(key) = orphan(self.store, opened.subnet())? {
            return Err(damaged(self.store, &key, "it has leases of a pool whose own file is gone"));
        }
        Ok(opened)
    }

    fn refuse_overlap(&self, subnet: Subnet) -> Result<()> {
        for other in self.subnets()?.into_iter().filter(|other| other.overlaps(subnet)) {
            let opened = Opened::read(self.store, other)?;
            // What a process that was killed between two writes made for a lease.
            if let Some(opened) = opened.as_ref().filter(|opened| opened.record.pool.implicit)
                && !opened.is_in_use()?
            {
                let guard = self.store.lock(&pool_key(other)?)?;
                if let Some(opened) = Opened::read(self.store, other)? {
                    opened.remove_if_unused(&guard)?;
                }
                if self.store.get(&pool_key(other)?)?.is_none() {
                    continue;
                }
            }
            let Some(opened) = opened else { continue };
            let because =
                if other == subnet { "there is one".to_string() } else { format!("it overlaps the pool `{other}`") };
            return Err(Error::new(Kind::Exists, format!("make the pool `{subnet}`"))
                .because(format!("{because} of `{}`", opened.record.pool.spec.owner))
                .hint("take another subnet; `ipam_subnet` finds a free one"));
        }
        Ok(())
    }

    /// Removes a pool.
    ///
    /// Fails with `missing` where there is none; with `busy` where addresses are leased, naming who holds how many, unless
    /// `force` is set: then the leases go too.
    pub fn remove_pool(&self, subnet: IpNetwork, force: bool) -> Result<()> {
        let subnet = Subnet::of(subnet)?;
        let doing = || format!("remove the pool `{subnet}`");
        let guard = self.store.lock(&pool_key(subnet)?)?;
        let opened = Opened::read(self.store, subnet)?.ok_or_else(|| self.missing(doing()))?;
        let leases = if force { Vec::new() } else { opened.leases()? };
        if !leases.is_empty() {
            let who = holders(leases.iter().map(|lease| lease.owner.as_str()));
            let what =
                if leases.len() == 1 { "one address is".into() } else { format!("{} addresses are", leases.len()) };
            return Err(Error::new(Kind::Busy, doing())
                .because(format!("{what} leased: {who}"))
                .hint("release them first, or force the removal"));
        }
        opened.remove(&guard)
    }

    /// Returns all pools, by address.
    pub fn pools(&self) -> Result<Vec<Pool>> {
        let mut pools = Vec::new();
        for subnet in self.subnets()? {
            // One that was listed may be gone by now.
            pools.extend(Opened::read(self.store, subnet)?.map(|opened| opened.record.pool));
        }
        Ok(pools)
    }

    /// Returns a pool; `missing` where there is none.
    pub fn pool(&self, subnet: IpNetwork) -> Result<Pool> {
        self.opened(subnet, "find").map(|opened| opened.record.pool)
    }

    /// Returns the leases of a pool, by address; `missing` where there is no pool.
    pub fn leases(&self, subnet: IpNetwork) -> Result<Vec<Lease>> {
        self.opened(subnet, "list the leases of")?.leases()
    }

    /// Returns who holds an address, if somebody does; `missing` where there is no pool. One block is read, however many are leased.
    pub fn holder(&self, subnet: IpNetwork, ip: IpAddr) -> Result<Option<String>> {
        let opened = self.opened(subnet, "look into")?;
        let Some(offset) = opened.subnet().offset(ip) else { return Ok(None) };
        let leases = opened.block(offset >> block::BITS)?.leases;
        Ok(leases.into_values().find(|lease| lease.ip == ip).map(|lease| lease.owner))
    }

    /// Returns how much of a pool is leased; `missing` where there is no pool.
    pub fn usage(&self, subnet: IpNetwork) -> Result<Usage> {
        let opened = self.opened(subnet, "count the leases of")?;
        Ok(Usage { used: opened.leases()?.len() as u128, size: opened.layout.count() })
    }

    /// Returns the first subnet of `prefix` bits in `within` that overlaps no pool and nothing of `taken`: the networks of routes
    /// and addresses, for one. It stays free only until somebody takes it.
    ///
    /// Fails with `invalid` where `within` has host bits or no subnet of that length; with `exhausted` where none is free.
    pub fn free_subnet(&self, within: IpNetwork, prefix: u8, taken: &[IpNetwork]) -> Result<IpNetwork> {
        let within = Subnet::of(within)?;
        let doing = || format!("find a free /{prefix} in `{within}`");
        let longest = bits_of(within.net().ip());
        if !(within.net().prefix()..=longest).contains(&prefix) {
            return Err(Error::invalid(doing())
                .because(format!("the prefix length must be from {} to {longest}", within.net().prefix())));
        }
        let mut taken = taken.to_vec();
        taken.extend(self.subnets()?.into_iter().map(Subnet::net));
        let free = pool::first_free(within, prefix, &taken);
        free.map(Subnet::net).ok_or_else(|| {
            let here = taken.iter().filter(|net| net.is_ipv4() == within.net().is_ipv4());
            let here = here.filter(|net| span(net).overlaps(within.span())).count();
            Error::new(Kind::Exhausted, doing()).because(match here {
                1 => "one network is in the way".to_string(),
                more => format!("{more} networks are in the way"),
            })
        })
    }

    /// Returns the subnets that have a pool, by address.
    fn subnets(&self) -> Result<Vec<Subnet>> {
        let keys = self.store.list(&Key::kind(POOLS))?;
        let own = keys.iter().filter(|key| key.names().len() == 1);
        let mut subnets: Vec<Subnet> = own.filter_map(|key| Subnet::from_key_name(key.last())).collect();
        subnets.sort_unstable();
        Ok(subnets)
    }

    fn opened(&self, subnet: IpNetwork, verb: &str) -> Result<Opened<'a>> {
        let subnet = Subnet::of(subnet)?;
        Opened::read(self.store, subnet)?.ok_or_else(|| self.missing(format!("{verb} the pool `{subnet}`")))
    }

    fn missing(&self, doing: String) -> Error {
        let error = Error::new(Kind::Missing, doing).because("there is no such pool");
        let known: Vec<String> = self.subnets().unwrap_or_default().iter().map(Subnet::to_string).collect();
        match known.as_slice() {
            [] => error,
            [one] => error.hint(format!("there is `{one}`")),
            more => error.hint(format!(
                "there are {}",
                more.iter().take(5).map(|net| format!("`{net}`")).collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
