//! Blocks: 64 addresses of a pool with their leases, the record that an allocation reads and writes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::pool::Layout;
use super::subnet::Span;

/// How many bits number the addresses of a block.
pub(super) const BITS: u8 = 6;
/// How many addresses a block has.
pub(super) const SIZE: u128 = 1 << BITS;

/// A lease: an address, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// The address.
    pub ip: IpAddr,
    /// Who holds it.
    pub owner: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// A block. An address is numbered from the block's first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// In which passage through the pool `next` was set; in any other one the search begins at the block's first address.
    pub(super) lap: u64,
    /// Where the search goes on; 64 is its end.
    pub(crate) next: u8,
    pub(crate) leases: BTreeMap<u8, Lease>,
}

/// A block as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockText {
    lap: u64,
    next: u8,
    leases: Vec<(IpAddr, String, u64)>,
}

impl BlockText {
    /// Returns the number of the block, which its leases tell.
    pub(crate) fn index(&self, layout: &Layout) -> Result<u128, String> {
        let (ip, ..) = self.leases.first().ok_or("it has a block without leases")?;
        layout.offset_for_lease(*ip).map(|offset| offset >> BITS).map_err(|why| format!("it leases `{ip}`, but {why}"))
    }
}

impl Block {
    /// Reads the block `index` of a pool; says what is wrong where it can't be right.
    pub(crate) fn read(layout: &Layout, index: u128, value: serde_json::Value) -> Result<Block, String> {
        Block::of(layout, index, serde_json::from_value(value).map_err(|error| error.to_string())?)
    }

    /// Takes what was written of the block `index`.
    pub(crate) fn of(layout: &Layout, index: u128, text: BlockText) -> Result<Block, String> {
        if u128::from(text.next) > SIZE {
            return Err(format!("`next` is {}, at most {SIZE} is possible", text.next));
        }
        let mut block = Block { lap: text.lap, next: text.next, leases: BTreeMap::new() };
        for (ip, owner, since) in text.leases {
            let offset = layout.offset_for_lease(ip).map_err(|why| format!("it leases `{ip}`, but {why}"))?;
            if offset >> BITS != index {
                return Err(format!("it leases `{ip}`, which belongs in another file"));
            }
            if block.leases.insert((offset % SIZE) as u8, Lease { ip, owner, since }).is_some() {
                return Err(format!("it has two leases of `{ip}`"));
            }
        }
        Ok(block)
    }

    /// Writes the block.
    pub(crate) fn to_value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self.text())
    }

    /// Returns the block as it is written.
    pub(crate) fn text(&self) -> BlockText {
        let leases = self.leases.values().map(|lease| (lease.ip, lease.owner.clone(), lease.since)).collect();
        BlockText { lap: self.lap, next: self.next, leases }
    }

    /// Returns the addresses that are leased, one bit each.
    fn taken(&self) -> u64 {
        self.leases.keys().fold(0, |bits, place| bits | 1 << place)
    }

    /// Returns the free addresses of those in `mask`, one bit each.
    pub(crate) fn free(&self, mask: u64) -> u64 {
        mask & !self.taken()
    }

    /// Returns the first free address from `from` on, of those in `mask`.
    pub(super) fn first_free(&self, mask: u64, from: u8) -> Option<u8> {
        let free = self.free(mask) & u64::MAX.checked_shl(from.into()).unwrap_or(0);
        (free != 0).then(|| free.trailing_zeros() as u8)
    }

    /// Tells whether it hands out some addresses, and all of them are leased.
    pub(crate) fn is_full(&self, mask: u64) -> bool {
        mask != 0 && mask & !self.taken() == 0
    }
}

/// Returns which addresses of the block `index` a pool hands out by itself, one bit each.
pub(super) fn mask_of(layout: &Layout, index: u128) -> u64 {
    let block = Span { first: index << BITS, last: (index << BITS) | (SIZE - 1) };
    let mut mask = 0;
    let mut from = block.first;
    while let Some(span) = layout.span_at(from).filter(|span| span.overlaps(block)) {
        let (first, last) = (span.first.max(block.first) - block.first, span.last.min(block.last) - block.first);
        mask |= (u64::MAX << first) & (u64::MAX >> (SIZE - 1 - last));
        match span.last.checked_add(1) {
            Some(next) if next <= block.last => from = next,
            _ => break,
        }
    }
    mask
}
