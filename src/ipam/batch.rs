//! Many addresses at once: chosen one after the other as single ones are, and written together, a block once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::block::{self, Block, Lease};
use super::opened::Opened;
use super::pool::check_owner;
use super::reserve::Seen;
use super::subnet::Subnet;
use super::{Ipam, NoPool};
use crate::state::store::Guard;
use crate::state::{Result, now};

/// Addresses that are chosen and not yet leased. Nobody else can get one of their pool meanwhile.
///
/// Dropped, it has changed nothing.
#[must_use = "without a commit nothing is leased"]
pub struct Batch<'a> {
    opened: Opened<'a>,
    guard: Guard,
    // Where the pool is made with these leases: no other pool may come to be in its place.
    _pools: Option<Guard>,
    leases: Vec<Lease>,
    /// What was not in its blocks before.
    before: BTreeMap<u128, Block>,
    seen: Vec<Seen>,
}

impl<'a> Ipam<'a> {
    /// Chooses `count` addresses of the pool `subnet` for `owner`, the ones that as many calls of `reserve` would; the pool stays
    /// locked until the batch is committed or dropped.
    ///
    /// Fails as `reserve`; with `exhausted` where fewer are left, saying how many.
    pub fn reserve_many(&self, subnet: IpNetwork, count: u32, owner: &str, no_pool: NoPool) -> Result<Batch<'a>> {
        let subnet = Subnet::of(subnet)?;
        check_owner(owner)?;
        let (mut opened, guard, pools) = self.open_for_lease(subnet, owner, no_pool)?;
        let before = opened.fresh.clone();
        let (mut leases, since) = (Vec::with_capacity(count as usize), now());
        let mut seen = Vec::new();
        while leases.len() < count as usize {
            let Some(found) = opened.search()? else {
                opened.fresh = before;
                return Err(opened.exhausted(Some((count, leases.len()))));
            };
            let (mask, index) = (opened.mask(found.index), found.index);
            let mut next = Some(found.place);
            let first = leases.len();
            while let Some(place) = next.filter(|_| leases.len() < count as usize) {
                let offset = (index << block::BITS) | u128::from(place);
                let ip = subnet.nth(offset).unwrap_or(subnet.net().ip());
                leases.push(Lease { ip, owner: owner.to_string(), since });
                next = found.block.first_free(mask, place + 1);
            }
            seen.push(opened.enter(found, leases[first..].iter().cloned()));
        }
        Ok(Batch { opened, guard, _pools: pools, leases, before, seen })
    }
}

impl Batch<'_> {
    /// Returns the addresses, in the order in which they were chosen.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.leases.iter().map(|lease| lease.ip)
    }

    /// Writes the leases, and lets go of the pool: in one write, unless there are more than a thousand.
    ///
    /// After an error some of the leases may have been written all the same: release them.
    pub fn commit(self) -> Result<Vec<Lease>> {
        let Batch { mut opened, guard, _pools, leases, before, seen } = self;
        opened.write_entered(&guard, before)?;
        opened.tidy(&guard, seen);
        Ok(leases)
    }
}
