//! What is not in its blocks yet. An allocation that would write several records, such as one of each block with a single free
//! address, writes the pool alone: the leases stand in the pool's own record. Later allocations carry them into their blocks, some each.
//!
//! Blocks are written before the pool's record lets go of what is in them. So a crash between the two leaves it in both, which says the
//! same.

use std::collections::BTreeMap;

use super::block::Block;
use super::opened::Opened;
use crate::state::Result;
use crate::state::store::Guard;

/// With how many leases an allocation of one address carries some into their blocks.
const LEASES_MANY: usize = 64;
/// The same for one of many addresses, which is to be one write where it can be.
const LEASES_MANY_IN_BATCH: usize = LEASES_MAX / 2;
/// How many leases there are at most; what is more goes into its blocks at once.
const LEASES_MAX: usize = 1024;
/// Into how many blocks leases are carried at a time.
const BLOCKS: usize = 8;

impl Opened<'_> {
    /// Returns how many leases are not in their blocks yet.
    fn fresh_leases(&self) -> usize {
        self.fresh.values().map(|block| block.leases.len()).sum()
    }

    /// Carries some leases into their blocks where there are many. The pool is still to be written.
    pub(super) fn carry_some(&mut self, guard: &Guard) -> Result<()> {
        match self.fresh_leases() {
            0..LEASES_MANY => Ok(()),
            _ => self.carry(guard, BLOCKS),
        }
    }

    fn carry(&mut self, guard: &Guard, blocks: usize) -> Result<()> {
        let carried: Vec<u128> = self.fresh.keys().copied().take(blocks).collect();
        self.write_blocks(guard, &carried)?;
        self.fresh.retain(|index, _| !carried.contains(index));
        Ok(())
    }

    /// Writes blocks with what is not in their files yet, and marks those that are full.
    pub(super) fn write_blocks(&self, guard: &Guard, indexes: &[u128]) -> Result<()> {
        let mut full = Vec::new();
        let mut values = Vec::with_capacity(indexes.len());
        for index in indexes {
            let block = self.block(*index)?;
            full.extend(block.is_full(self.mask(*index)).then_some(*index));
            values.push(self.to_write(*index, &block)?);
        }
        self.store.put_all(guard, &values)?;
        // The leases stand. A later search marks what is not marked here.
        let _ = self.mark(guard, full);
        Ok(())
    }

    /// Writes the leases that were entered since `before` was what is not in its blocks yet.
    pub(super) fn write_entered(&mut self, guard: &Guard, before: BTreeMap<u128, Block>) -> Result<()> {
        let entered = std::mem::replace(&mut self.fresh, before);
        let leases: usize = entered.values().map(|block| block.leases.len()).sum();
        if leases <= LEASES_MAX {
            let mut carried: Vec<u128> = Vec::new();
            if self.fresh_leases() >= LEASES_MANY_IN_BATCH {
                carried.extend(self.fresh.keys());
                // As many as come, so that there are never more.
                self.carry(guard, BLOCKS.max(entered.len() - self.fresh.len()))?;
                carried.retain(|index| !self.fresh.contains_key(index));
            }
            self.fresh = entered;
            self.let_go(&carried)?;
            return self.write(guard);
        }
        // All that was there before first: what is written of a block from now on is newer.
        let old: Vec<u128> = self.fresh.keys().copied().collect();
        self.write_blocks(guard, &old)?;
        self.fresh.clear();
        // Before the leases: after a crash between the two the search has gone on, and nothing is lost.
        self.write(guard)?;
        self.fresh = entered;
        let all: Vec<u128> = self.fresh.keys().copied().collect();
        self.write_blocks(guard, &all)?;
        self.fresh.clear();
        Ok(())
    }

    /// Lets go of leases that are in their blocks.
    fn let_go(&mut self, indexes: &[u128]) -> Result<()> {
        for index in indexes {
            let in_file = self.block_in_file(*index)?;
            let Some(fresh) = self.fresh.get_mut(index) else { continue };
            fresh.leases.retain(|place, _| !in_file.leases.contains_key(place));
            if fresh.leases.is_empty() {
                self.fresh.remove(index);
            }
        }
        Ok(())
    }

    /// Writes the pool where it has something of blocks that were just written.
    pub(super) fn write_without(&mut self, guard: &Guard, indexes: impl IntoIterator<Item = u128>) -> Result<()> {
        let had = indexes.into_iter().filter_map(|index| self.fresh.remove(&index)).count();
        if had > 0 { self.write(guard) } else { Ok(()) }
    }
}
