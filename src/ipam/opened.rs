//! A pool as it was read from the store, and its blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::block::{self, Block, Lease};
use super::full;
use super::pool::{Layout, Pool};
use super::subnet::Subnet;
use crate::state::store::Guard;
use crate::state::{Error, Key, Kind, Result, Store, files};

/// The kind of the pools in the store.
pub(super) const POOLS: &str = "pools";
/// The kind of their blocks.
pub(super) const LEASES: &str = "leases";

/// A pool as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) pool: Pool,
    /// The first address of the block in which the search goes on.
    pub(crate) at: IpAddr,
    /// How often the search came to the pool's end.
    pub(super) lap: u64,
    /// What is not in its blocks yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fresh: Vec<block::BlockText>,
}

/// A pool that was read.
pub(crate) struct Opened<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) record: Record,
    pub(super) layout: Layout,
    /// The block in which the search goes on.
    pub(crate) at: u128,
    /// Whether that block is known to be full.
    pub(super) is_at_full: bool,
    /// Leases that are not in the files of their blocks yet, and where the search goes on there.
    pub(crate) fresh: BTreeMap<u128, Block>,
}

impl<'a> Opened<'a> {
    /// Reads a pool; nothing where there is none. One that can't be right is `state`.
    pub(crate) fn read(store: &'a dyn Store, subnet: Subnet) -> Result<Option<Opened<'a>>> {
        let key = pool_key(subnet)?;
        let Some(value) = store.get(&key)? else { return Ok(None) };
        let damaged = |because: &dyn fmt::Display| damaged(store, &key, because);
        let record: Record = serde_json::from_value(value).map_err(|error| damaged(&error))?;
        if record.pool.spec.subnet != subnet.net() {
            return Err(damaged(&format!("it is the pool `{}`", record.pool.spec.subnet)));
        }
        Opened::new(store, record).map(Some).map_err(|error| damaged(&error))
    }

    /// Takes a pool that is not in the store yet, or was just read.
    pub(crate) fn new(store: &'a dyn Store, mut record: Record) -> Result<Opened<'a>> {
        let layout = Layout::of(&record.pool.spec)?;
        let at = layout.subnet.offset(record.at).filter(|offset| offset % block::SIZE == 0);
        let at = at.ok_or_else(|| Error::invalid(format!("`{}` is not the first of a block", record.at)))?;
        let fresh = std::mem::take(&mut record.fresh).into_iter().map(|text| {
            let index = text.index(&layout)?;
            Block::of(&layout, index, text).map(|block| (index, block))
        });
        let fresh = fresh.collect::<std::result::Result<_, String>>();
        let fresh = fresh.map_err(|why| Error::invalid("read what is not in its blocks yet").because(why))?;
        Ok(Opened { store, record, layout, at: at >> block::BITS, is_at_full: false, fresh })
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.layout.subnet
    }

    /// Returns the number of the last block.
    pub(super) fn last_block(&self) -> u128 {
        self.subnet().last() >> block::BITS
    }

    /// Returns the key that all records of one kind are below.
    pub(super) fn key_of_all(&self, kind: &'static str) -> Result<Key> {
        below(self.subnet(), kind)
    }

    /// Returns the key of a record.
    pub(super) fn key_below(&self, kind: &'static str, name: &str) -> Result<Key> {
        self.key_of_all(kind)?.below(name)
    }

    /// Writes the pool itself, with what is not in its blocks yet.
    pub(crate) fn write(&mut self, guard: &Guard) -> Result<()> {
        let key = pool_key(self.subnet())?;
        self.record.fresh = self.fresh.values().map(Block::text).collect();
        let value = serde_json::to_value(&self.record);
        self.record.fresh.clear();
        let value = value.map_err(|error| unwritable(&key, &error))?;
        self.store.put(guard, &key, &value)
    }

    /// Reads a block, with what is not in its file yet; one that was never written is empty.
    pub(crate) fn block(&self, index: u128) -> Result<Block> {
        let mut block = self.block_in_file(index)?;
        if let Some(fresh) = self.fresh.get(&index) {
            (block.lap, block.next) = (fresh.lap, fresh.next);
            block.leases.extend(fresh.leases.iter().map(|(place, lease)| (*place, lease.clone())));
        }
        Ok(block)
    }

    pub(super) fn block_in_file(&self, index: u128) -> Result<Block> {
        let key = self.key_below(LEASES, &format!("{index:x}"))?;
        match self.store.get(&key)? {
            Some(value) => {
                Block::read(&self.layout, index, value).map_err(|because| damaged(self.store, &key, because))
            }
            None => Ok(Block::default()),
        }
    }

    /// Writes a block.
    pub(super) fn write_block(&self, guard: &Guard, index: u128, block: &Block) -> Result<()> {
        let (key, value) = self.to_write(index, block)?;
        self.store.put(guard, &key, &value)
    }

    /// Returns the key of a block, and what is written there.
    pub(super) fn to_write(&self, index: u128, block: &Block) -> Result<(Key, Value)> {
        let key = self.key_below(LEASES, &format!("{index:x}"))?;
        let value = block.to_value().map_err(|error| unwritable(&key, &error))?;
        Ok((key, value))
    }

    /// Removes a block that has no leases.
    pub(super) fn remove_block(&self, guard: &Guard, index: u128) -> Result<()> {
        self.store.remove(guard, &self.key_below(LEASES, &format!("{index:x}"))?).map(drop)
    }

    /// Returns which addresses of a block are handed out, one bit each.
    pub(crate) fn mask(&self, index: u128) -> u64 {
        block::mask_of(&self.layout, index)
    }

    /// Returns the numbers of the blocks that are written, ascending.
    pub(super) fn block_numbers(&self) -> Result<Vec<u128>> {
        let keys = self.store.list(&self.key_of_all(LEASES)?)?;
        let mut numbers = Vec::with_capacity(keys.len());
        for key in keys {
            // A name of ours, or else a stray file.
            let number = u128::from_str_radix(key.last(), 16).ok().filter(|number| format!("{number:x}") == key.last());
            numbers.extend(number.filter(|number| key.names().len() == 2 && *number <= self.last_block()));
        }
        numbers.extend(self.fresh.keys());
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Returns all leases, by address.
    pub(crate) fn leases(&self) -> Result<Vec<Lease>> {
        let mut leases = Vec::new();
        for index in self.block_numbers()? {
            leases.extend(self.block(index)?.leases.into_values());
        }
        Ok(leases)
    }

    /// Tells whether it has a lease.
    pub(super) fn is_in_use(&self) -> Result<bool> {
        for index in self.block_numbers()? {
            if !self.block(index)?.leases.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the pool with all its leases: first the marks, which must not outlive what they are about, last the pool itself.
    pub(crate) fn remove(&self, guard: &Guard) -> Result<()> {
        for kind in [full::KIND, LEASES] {
            for key in self.store.list(&self.key_of_all(kind)?)? {
                self.store.remove(guard, &key)?;
            }
        }
        self.store.remove(guard, &pool_key(self.subnet())?).map(drop)
    }
}

/// Returns the key of a pool, whose lock guards all that belongs to it.
pub(super) fn pool_key(subnet: Subnet) -> Result<Key> {
    below(subnet, POOLS)
}

fn below(subnet: Subnet, kind: &'static str) -> Result<Key> {
    Key::kind(kind).below(&subnet.key_name())
}

/// Returns the key of the first lease that is there though its pool is not.
pub(crate) fn orphan(store: &dyn Store, subnet: Subnet) -> Result<Option<Key>> {
    Ok(store.list(&below(subnet, LEASES)?)?.into_iter().next())
}

/// Makes the error for a value that can't be right.
pub(crate) fn damaged(store: &dyn Store, key: &Key, because: impl fmt::Display) -> Error {
    Error::new(Kind::State, format!("read `{}`", store.place(key))).because(because).hint(files::DAMAGED)
}

fn unwritable(key: &Key, error: &serde_json::Error) -> Error {
    Error::new(Kind::State, format!("write `{key}`")).because(error)
}

/// Writes who holds how many, the most first, then who comes first: "`web` holds 200, `db` holds 53".
pub(crate) fn holders<'l>(owners: impl IntoIterator<Item = &'l str>) -> String {
    const SHOWN: usize = 5;
    let mut found = BTreeMap::<&str, (usize, usize)>::new();
    for (at, owner) in owners.into_iter().enumerate() {
        found.entry(owner).or_insert((at, 0)).1 += 1;
    }
    let mut counts: Vec<_> = found.into_iter().collect();
    counts.sort_by_key(|(_, (first, count))| (std::cmp::Reverse(*count), *first));
    let counts: Vec<_> = counts.into_iter().map(|(owner, (_, count))| (owner, count)).collect();
    let mut words: Vec<String> =
        counts.iter().take(SHOWN).map(|(owner, count)| format!("`{owner}` holds {count}")).collect();
    if let Some(rest) = counts.get(SHOWN..).filter(|rest| !rest.is_empty()) {
        let sum: usize = rest.iter().map(|(_, count)| count).sum();
        words.push(format!("{} others hold {sum}", rest.len()));
    }
    words.join(", ")
}
