//! Which blocks are full: a tree of bit maps, so that a search skips them without a look.
//!
//! A node of level 1 has a bit for each of 64 blocks, one of level 2 a bit for each of 64 such nodes, and so on. A bit is set
//! only where all below is full. A node that isn't there has no bit set, so a pool that is nearly empty has no nodes.
//!
//! The bits only save time. Set, they are true: a block is full before it is marked, and unmarked before it gets room. Clear,
//! they may be late: a process can die between the two. The next search that finds such a block full marks it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::opened::{Opened, damaged};
use crate::state::store::Guard;
use crate::state::{Key, Result};

/// The kind of the nodes in the store.
pub(super) const KIND: &str = "full";
/// How many bits number the children of a node.
const BITS: u32 = 6;

impl Opened<'_> {
    /// Returns how many levels there are: none where one block is all.
    fn levels(&self) -> u32 {
        (128 - self.last_block().leading_zeros()).div_ceil(BITS)
    }

    fn node_key(&self, level: u32, node: u128) -> Result<Key> {
        self.key_below(KIND, &format!("{level}-{node:x}"))
    }

    fn node(&self, level: u32, node: u128) -> Result<u64> {
        let key = self.node_key(level, node)?;
        let Some(value) = self.store.get(&key)? else { return Ok(0) };
        let bits = value.as_str().filter(|text| text.len() == 16 && !text.contains('+'));
        bits.and_then(|text| u64::from_str_radix(text, 16).ok())
            .ok_or_else(|| damaged(self.store, &key, "it is not a text of 16 hexadecimal digits"))
    }

    fn write_node(&self, guard: &Guard, level: u32, node: u128, bits: u64) -> Result<()> {
        let key = self.node_key(level, node)?;
        match bits {
            0 => self.store.remove(guard, &key).map(drop),
            _ => self.store.put(guard, &key, &Value::String(format!("{bits:016x}"))),
        }
    }

    /// Returns the first block from `block` on that isn't marked full; nothing where all up to the last one are.
    pub(super) fn next_with_room(&self, mut block: u128) -> Result<Option<u128>> {
        'search: while block <= self.last_block() {
            let mut level = 1;
            // The block itself counts, above it only what comes after: a node below is known to be full from here on.
            let mut from = Some((block & 63) as u32);
            while level <= self.levels() {
                let node = shift(block, level);
                let bits = self.node(level, node)?;
                if let Some(child) = from.and_then(|from| first_clear(bits, from)) {
                    let found = (node << BITS) | u128::from(child);
                    if level == 1 {
                        return Ok(Some(found).filter(|found| *found <= self.last_block()));
                    }
                    block = found << (BITS * (level - 1));
                    continue 'search;
                }
                let child = (shift(block, level) & 63) as u32;
                from = (child < 63).then_some(child + 1);
                level += 1;
            }
            // One block is all there is, and has no mark.
            return Ok((self.levels() == 0).then_some(block));
        }
        Ok(None)
    }

    /// Marks blocks that are full, each node once.
    pub(crate) fn mark(&self, guard: &Guard, blocks: impl IntoIterator<Item = u128>) -> Result<()> {
        let mut full: Vec<u128> = blocks.into_iter().collect();
        for level in 1..=self.levels() {
            let mut nodes = BTreeMap::<u128, u64>::new();
            full.drain(..).for_each(|child| *nodes.entry(child >> BITS).or_default() |= 1 << (child & 63));
            for (node, new) in nodes {
                let old = self.node(level, node)?;
                let bits = old | new;
                if bits != old {
                    self.write_node(guard, level, node, bits)?;
                }
                full.extend((bits == u64::MAX).then_some(node));
            }
        }
        Ok(())
    }

    /// Takes the mark off a block that is about to have room again, from the top of the tree down.
    pub(super) fn unmark(&self, guard: &Guard, block: u128) -> Result<()> {
        let mut marked = Vec::new();
        for level in 1..=self.levels() {
            let (node, bit) = (shift(block, level), bit(block, level));
            let bits = self.node(level, node)?;
            // Where a bit is clear, none above is set.
            if bits & bit == 0 {
                break;
            }
            marked.push((level, node, bits & !bit));
        }
        marked.into_iter().rev().try_for_each(|(level, node, bits)| self.write_node(guard, level, node, bits))
    }

    /// Checks that all below a mark is full; `state`, naming the record, where it isn't.
    pub(super) fn check_marks(&self) -> Result<()> {
        for key in self.store.list(&self.key_of_all(KIND)?)? {
            let parsed = key
                .last()
                .split_once('-')
                .and_then(|(level, node)| Some((level.parse::<u32>().ok()?, u128::from_str_radix(node, 16).ok()?)));
            let Some((level, node)) = parsed.filter(|(level, _)| (1..=self.levels()).contains(level)) else { continue };
            let bits = self.node(level, node)?;
            for child in (0..64).filter(|child| bits & (1 << child) != 0) {
                let below = (node << BITS) | child;
                let is_full = match level {
                    1 => self.block(below)?.is_full(self.mask(below)),
                    _ => self.node(level - 1, below)? == u64::MAX,
                };
                if !is_full {
                    return Err(damaged(self.store, &key, format!("it says that {below:x} is full, and it is not")));
                }
            }
        }
        Ok(())
    }
}

/// Returns the node of `level` that a block is below.
fn shift(block: u128, level: u32) -> u128 {
    block.checked_shr(BITS * level).unwrap_or(0)
}

/// Returns the bit that stands, in its node of `level`, for what a block is in.
fn bit(block: u128, level: u32) -> u64 {
    1 << (shift(block, level - 1) & 63)
}

fn first_clear(bits: u64, from: u32) -> Option<u32> {
    let clear = !bits & u64::MAX.checked_shl(from).unwrap_or(0);
    (clear != 0).then(|| clear.trailing_zeros())
}
