//! Allocation: which address comes next, and the two phases in which it becomes a lease.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Ipam;
use super::block::{self, Block, Lease};
use super::opened::{Opened, holders, pool_key};
use super::pool::check_owner;
use super::subnet::Subnet;
use crate::state::store::Guard;
use crate::state::{Error, Kind, Result, now};

/// What `reserve` does where the subnet has no pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPool {
    /// It fails with `missing`.
    Refuse,
    /// It makes a pool of the whole subnet, owned by the lease's owner, which goes away again with its last lease.
    Make,
}

/// An address that is chosen and not yet leased. Nobody else can get one of its pool meanwhile.
///
/// Dropped, it has changed nothing.
#[must_use = "without a commit nothing is leased"]
pub struct Reservation<'a> {
    opened: Opened<'a>,
    guard: Guard,
    // Where the pool is made with this lease: no other pool may come to be in its place.
    _pools: Option<Guard>,
    found: Found,
    lease: Lease,
    is_new_pool: bool,
}

/// A free address.
pub(crate) struct Found {
    pub(crate) index: u128,
    pub(crate) place: u8,
    pub(crate) block: Block,
    /// The passage through the pool that the search is in now; nothing for an address that was asked for.
    lap: Option<u64>,
    seen: Seen,
}

/// What a search learns on its way, for later ones.
#[derive(Default)]
pub(crate) struct Seen {
    /// Blocks that turned out to be full, marked or not.
    full: Vec<u128>,
    /// The block from which the search went on, if nothing is left in it.
    empty: Option<u128>,
}

impl<'a> Ipam<'a> {
    /// Chooses an address of the pool `subnet` for `owner`: `wanted`, or the next free one; the pool stays locked until the
    /// reservation is committed or dropped.
    ///
    /// A fresh pool begins with its lowest address. Then it goes on through the pool, and only at its end comes back to what was
    /// released: caches of neighbours and connections have forgotten the old holder by then.
    ///
    /// Whoever holds a reservation and reserves in the same pool waits for itself; so does, with `NoPool::Make`, whoever holds
    /// a reservation that makes a pool and makes another.
    ///
    /// Fails with `exhausted` where all are leased, naming who holds how many; with `exists` where `wanted` is, naming the
    /// holder; with `invalid` where `wanted` is nobody's to have; with `missing` where there is no pool; with `busy` where
    /// somebody keeps the lock.
    pub fn reserve(
        &self,
        subnet: IpNetwork,
        wanted: Option<IpAddr>,
        owner: &str,
        no_pool: NoPool,
    ) -> Result<Reservation<'a>> {
        let subnet = Subnet::of(subnet)?;
        check_owner(owner)?;
        let (opened, guard, pools) = self.open_for_lease(subnet, owner, no_pool)?;
        let found = match wanted {
            Some(ip) => opened.claim(ip)?,
            None => opened.search()?.ok_or_else(|| opened.exhausted(None))?,
        };
        let offset = (found.index << block::BITS) | u128::from(found.place);
        let ip = subnet.nth(offset).unwrap_or(subnet.net().ip());
        let lease = Lease { ip, owner: owner.to_string(), since: now() };
        Ok(Reservation { opened, guard, is_new_pool: pools.is_some(), _pools: pools, found, lease })
    }

    /// Locks and reads a pool; one that is made comes with the lock of all pools.
    pub(super) fn open_for_lease(
        &self,
        subnet: Subnet,
        owner: &str,
        no_pool: NoPool,
    ) -> Result<(Opened<'a>, Guard, Option<Guard>)> {
        let guard = self.store.lock(&pool_key(subnet)?)?;
        if let Some(opened) = Opened::read(self.store, subnet)? {
            return Ok((opened, guard, None));
        }
        if no_pool == NoPool::Refuse {
            return Err(self.missing(format!("take an address of the pool `{subnet}`")));
        }
        // The lock of all pools comes before that of one.
        drop(guard);
        let pools = self.lock_pools()?;
        let guard = self.store.lock(&pool_key(subnet)?)?;
        if let Some(opened) = Opened::read(self.store, subnet)? {
            return Ok((opened, guard, None));
        }
        let spec = super::PoolSpec::new(subnet.net(), owner);
        Ok((self.new_pool(spec, true)?, guard, Some(pools)))
    }
}

impl Opened<'_> {
    fn claim(&self, ip: IpAddr) -> Result<Found> {
        let doing = || format!("take `{ip}` of the pool `{}`", self.subnet());
        let offset = self.layout.offset_for_lease(ip).map_err(|why| Error::invalid(doing()).because(why))?;
        let (index, place) = (offset >> block::BITS, (offset % block::SIZE) as u8);
        let block = self.block(index)?;
        match block.leases.get(&place) {
            Some(lease) => Err(Error::new(Kind::Exists, doing()).because(format!("`{}` holds it", lease.owner))),
            None => Ok(Found { index, place, block, lap: None, seen: Seen::default() }),
        }
    }

    /// Finds the next free address: from where the search was to the pool's end, then once through all of it.
    pub(crate) fn search(&self) -> Result<Option<Found>> {
        let mut seen = Seen::default();
        if let Some(found) = self.pass(self.at, self.record.lap, &mut seen)? {
            return Ok(Some(Found { seen, ..found }));
        }
        let lap = self.record.lap.wrapping_add(1);
        if let Some(found) = self.pass(0, lap, &mut seen)? {
            // In a pool of one block its own place is all there is to know, and the pool needs no write.
            let lap = if self.last_block() == 0 { self.record.lap } else { lap };
            return Ok(Some(Found { seen, lap: Some(lap), ..found }));
        }
        Ok(None)
    }

    /// Looks for a free address from the block `from` on, in the passage `lap`.
    fn pass(&self, from: u128, lap: u64, seen: &mut Seen) -> Result<Option<Found>> {
        let mut index = from;
        loop {
            // Skips what is not handed out, then what is full, until neither applies.
            let Some(span) = self.layout.span_at(index << block::BITS) else { return Ok(None) };
            index = index.max(span.first >> block::BITS);
            // The first block mostly has room, and a look at it tells as much as its mark.
            if index == self.at && self.is_at_full {
                index += 1;
                if index > self.last_block() {
                    return Ok(None);
                }
                continue;
            }
            if index > from {
                match self.next_with_room(index)? {
                    None => return Ok(None),
                    Some(next) if next > index => {
                        index = next;
                        continue;
                    }
                    Some(_) => {}
                }
            }
            let (block, mask) = (self.block(index)?, self.mask(index));
            let place = if block.lap == lap { block.next } else { 0 };
            if let Some(place) = block.first_free(mask, place) {
                return Ok(Some(Found { index, place, block, lap: Some(lap), seen: Seen::default() }));
            }
            if block.is_full(mask) && !seen.full.contains(&index) {
                seen.full.push(index);
            }
            if block.leases.is_empty() && index == self.at {
                seen.empty = Some(index);
            }
            index += 1;
            if index > self.last_block() {
                return Ok(None);
            }
        }
    }

    /// Says that there is no address left, or of several that were wanted only so many.
    pub(crate) fn exhausted(&self, several: Option<(u32, usize)>) -> Error {
        let count = self.layout.count();
        let doing = match several {
            Some((wanted, _)) => format!("take {wanted} addresses of the pool `{}`", self.subnet()),
            None => format!("take an address of the pool `{}`", self.subnet()),
        };
        let leases = match self.leases() {
            Ok(leases) => leases,
            Err(error) => return error,
        };
        // What was asked for by number may lie outside of what is handed out.
        let handed_out = |lease: &&Lease| self.subnet().offset(lease.ip).is_some_and(|at| self.layout.hands_out(at));
        let who = holders(leases.iter().filter(handed_out).map(|lease| lease.owner.as_str()));
        let all = if count == 1 { "the one address".into() } else { format!("all {count} addresses") };
        let verb = if count == 1 { "is" } else { "are" };
        let range = self.record.pool.spec.range.map_or(String::new(), |range| format!(" of `{range}`"));
        let because = match several {
            Some((_, left)) if left > 0 => {
                let verb = if left == 1 { "is" } else { "are" };
                let who = if who.is_empty() { String::new() } else { format!(": {who}") };
                format!("{left} of its {count} addresses{range} {verb} left{who}")
            }
            _ => format!("{all}{range} {verb} leased: {who}"),
        };
        Error::new(Kind::Exhausted, doing)
            .because(because)
            .hint("release some, or use a larger subnet; `topo gc` frees those of owners that are no more")
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Reservation<'_> {
    /// Returns the address.
    pub fn ip(&self) -> IpAddr {
        self.lease.ip
    }

    /// Writes the lease, and lets go of the pool.
    ///
    /// After an error the lease may have been written all the same, if the store couldn't tell: release it.
    pub fn commit(self) -> Result<Lease> {
        let Reservation { mut opened, guard, _pools, found, lease, is_new_pool } = self;
        opened.take(&guard, found, lease.clone(), is_new_pool)?;
        Ok(lease)
    }
}

impl Opened<'_> {
    /// Writes a lease of the block that was found, in one write: to the block, or with all else that changes to the pool.
    fn take(&mut self, guard: &Guard, found: Found, lease: Lease, is_new_pool: bool) -> Result<()> {
        let index = found.index;
        let moved = found.lap.is_some_and(|lap| self.at != index || self.record.lap != lap);
        if moved || is_new_pool || self.fresh.contains_key(&index) {
            self.carry_some(guard)?;
            let left = self.enter(found, [lease]);
            self.write(guard)?;
            self.tidy(guard, [left]);
            return Ok(());
        }
        let Found { place, mut block, lap, seen, .. } = found;
        if let Some(lap) = lap {
            (block.lap, block.next) = (lap, place + 1);
        }
        block.leases.insert(place, lease);
        self.write_block(guard, index, &block)?;
        let full = block.is_full(self.mask(index)).then_some(index);
        self.tidy(guard, [Seen { full: seen.full.into_iter().chain(full).collect(), ..seen }]);
        Ok(())
    }

    /// Enters leases of the block that was found, from the place that was found on; returns what the search has learned.
    pub(crate) fn enter(&mut self, found: Found, leases: impl IntoIterator<Item = Lease>) -> Seen {
        let Found { index, block, lap, seen, .. } = found;
        let (subnet, mask) = (self.subnet(), self.mask(index));
        let fresh = self.fresh.entry(index).or_insert(Block { lap: block.lap, next: block.next, ..Block::default() });
        let places =
            leases.into_iter().filter_map(|lease| Some(((subnet.offset(lease.ip)? % block::SIZE) as u8, lease)));
        let (mut last, mut free) = (None, block.free(mask));
        fresh.leases.extend(places.inspect(|(place, _)| {
            last = Some(*place);
            free &= !(1 << place);
        }));
        if let (Some(lap), Some(last)) = (lap, last) {
            (fresh.lap, fresh.next) = (lap, last + 1);
            self.record.at = subnet.nth(index << block::BITS).unwrap_or(self.record.at);
            (self.record.lap, self.at) = (lap, index);
            self.is_at_full = free == 0;
        }
        seen
    }

    /// Marks what searches have found full, and removes the blocks that they came from if nothing is left in them. That saves time
    /// later, and a later search does it if it fails here.
    pub(crate) fn tidy(&self, guard: &Guard, seen: impl IntoIterator<Item = Seen>) {
        let (mut full, mut empty) = (Vec::new(), Vec::new());
        for seen in seen {
            // What is not in its block yet is marked when it comes there.
            full.extend(seen.full.into_iter().filter(|index| !self.fresh.contains_key(index)));
            empty.extend(seen.empty.filter(|index| *index != self.at && !self.fresh.contains_key(index)));
        }
        let _ = self.mark(guard, full);
        for index in empty {
            // Those of a batch may have come to be in it since.
            if self.block(index).is_ok_and(|block| block.leases.is_empty()) {
                let _ = self.remove_block(guard, index);
            }
        }
    }
}
