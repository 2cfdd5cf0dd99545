//! Many addresses at once: chosen one after the other as single ones are, and written together, a block once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::block::{self, Lease};
use super::opened::{LEASES, Opened, POOLS};
use super::pool::check_owner;
use super::subnet::Subnet;
use super::{Ipam, NoPool};
use crate::lab::error::Result;
use crate::lab::state::now;
use crate::lab::store::{Guard, Key, Store};

/// Addresses that are chosen and not yet leased. Nobody else can get one of their pool meanwhile.
///
/// Dropped, it has changed nothing.
#[must_use = "without a commit nothing is leased"]
pub struct Batch<'a> {
    store: &'a dyn Store,
    guard: Guard,
    // Where the pool is made with these leases: no other pool may come to be in its place.
    _pools: Option<Guard>,
    leases: Vec<Lease>,
    changes: BTreeMap<Key, Option<Value>>,
}

impl<'a> Ipam<'a> {
    /// Chooses `count` addresses of the pool `subnet` for `owner`, the ones that as many calls of `reserve` would; the pool stays
    /// locked until the batch is committed or dropped.
    ///
    /// Fails as `reserve`; with `exhausted` where fewer are left, saying how many.
    pub fn reserve_many(&self, subnet: IpNetwork, count: u32, owner: &str, no_pool: NoPool) -> Result<Batch<'a>> {
        let subnet = Subnet::of(subnet)?;
        check_owner(owner)?;
        let (read, guard, pools) = self.open_for_lease(subnet, owner, no_pool)?;
        let staged = Staged { store: self.store, changes: Mutex::default() };
        let Opened { record, layout, at, .. } = read;
        let mut opened = Opened { store: &staged, record, layout, at };
        let (mut leases, since) = (Vec::with_capacity(count as usize), now());
        while leases.len() < count as usize {
            let Some(found) = opened.search()? else {
                let opened = Opened { store: self.store, ..opened };
                return Err(opened.exhausted(Some((count, leases.len()))));
            };
            let (mask, index) = (opened.mask(found.index), found.index);
            let mut next = Some(found.place);
            let mut taken = Vec::new();
            while let Some(place) = next.filter(|_| leases.len() < count as usize) {
                let offset = (index << block::BITS) | u128::from(place);
                let ip = subnet.nth(offset).unwrap_or(subnet.net().ip());
                let lease = Lease { ip, owner: owner.to_string(), since };
                leases.push(lease.clone());
                taken.push((place, lease));
                next = found.block.first_free(mask, place + 1);
            }
            let is_first = leases.len() == taken.len();
            opened.take(&guard, found, taken, is_first && pools.is_some())?;
        }
        drop(opened);
        let changes = staged.changes.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Batch { store: self.store, guard, _pools: pools, leases, changes })
    }
}

impl Batch<'_> {
    /// Returns the addresses, in the order in which they were chosen.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.leases.iter().map(|lease| lease.ip)
    }

    /// Writes the leases, and lets go of the pool.
    ///
    /// After an error some of the leases may have been written all the same: release them.
    pub fn commit(self) -> Result<Vec<Lease>> {
        let Batch { store, guard, _pools, leases, changes } = self;
        let (mut pools, mut blocks, mut marks, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, value) in changes {
            match value {
                Some(value) if key.kind_word() == POOLS => pools.push((key, value)),
                Some(value) if key.kind_word() == LEASES => blocks.push((key, value)),
                Some(value) => marks.push((key, value)),
                None => gone.push(key),
            }
        }
        // In the order that a single lease has, and for the same reasons.
        store.put_all(&guard, &pools)?;
        store.put_all(&guard, &blocks)?;
        // The leases stand. What follows saves time later, and a later search does it if it fails here.
        let _ = store.put_all(&guard, &marks);
        for key in gone {
            let _ = store.remove(&guard, &key);
        }
        Ok(leases)
    }
}

/// A store with changes that are not written yet.
struct Staged<'a> {
    store: &'a dyn Store,
    changes: Mutex<BTreeMap<Key, Option<Value>>>,
}

impl Staged<'_> {
    fn note(&self, key: &Key, value: Option<Value>) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), value);
    }
}

impl Store for Staged<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        let noted = self.changes.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        noted.map_or_else(|| self.store.get(key), Ok)
    }

    fn list(&self, above: &Key) -> Result<Vec<Key>> {
        let mut keys = self.store.list(above)?;
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_below =
            |key: &Key| key != above && key.kind_word() == above.kind_word() && key.names().starts_with(above.names());
        keys.retain(|key| !changes.contains_key(key));
        keys.extend(changes.iter().filter(|(key, value)| is_below(key) && value.is_some()).map(|(key, _)| key.clone()));
        keys.sort();
        Ok(keys)
    }

    fn lock(&self, key: &Key) -> Result<Guard> {
        self.store.lock(key)
    }

    fn put(&self, _guard: &Guard, key: &Key, value: &Value) -> Result<()> {
        self.note(key, Some(value.clone()));
        Ok(())
    }

    fn remove(&self, _guard: &Guard, key: &Key) -> Result<bool> {
        let was = self.get(key)?.is_some();
        self.note(key, None);
        Ok(was)
    }

    fn place(&self, key: &Key) -> String {
        self.store.place(key)
    }
}
