//! A process that dies at each write in turn: nothing is handed out twice, and nothing is lost for good.

use super::*;

pub(super) fn held(ipam: Ipam, subnet: IpNetwork) -> BTreeSet<IpAddr> {
    let leases = ipam.leases(subnet).expect("leases");
    let held: BTreeSet<IpAddr> = leases.iter().map(|lease| lease.ip).collect();
    assert_eq!(held.len(), leases.len());
    held
}

/// Has all leases in their blocks.
pub(super) fn carry_all(store: &Memory, subnet: IpNetwork) {
    let subnet = Subnet::of(subnet).expect("no host bits");
    let guard = store.lock(&pool_key(subnet).expect("a key")).expect("a lock");
    let mut opened = Opened::read(store, subnet).expect("sound").expect("a pool");
    let fresh: Vec<u128> = opened.fresh.keys().copied().collect();
    opened.write_blocks(&guard, &fresh).expect("written");
    opened.write_without(&guard, fresh).expect("written");
}

/// Checks that all that is free can still be had, once.
pub(super) fn assert_whole(store: &Memory, subnet: IpNetwork) {
    let ipam = Ipam::new(store);
    let before = store.dump();
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
    let Usage { used, size } = ipam.usage(subnet).expect("usage");
    let had = held(ipam, subnet);
    for _ in used..size {
        let taken = ipam.reserve(subnet, None, "c", NoPool::Refuse).and_then(Reservation::commit).expect("room");
        assert!(!had.contains(&taken.ip), "{} twice", taken.ip);
    }
    assert_eq!(ipam.reserve(subnet, None, "c", NoPool::Refuse).expect_err("full").kind(), Kind::Exhausted);
    assert_eq!(held(ipam, subnet).len() as u128, size);
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
    store.restore(&before);
}

/// Kills `work` at its first write, its second and so on; `check` looks at what is left. Returns at how many.
pub(super) fn at_each_write(store: &Memory, work: impl Fn() -> Result<()>, check: impl Fn(Result<()>)) -> u64 {
    let before = store.dump();
    for at in 1.. {
        store.restore(&before);
        store.die_at(at);
        let done = work();
        let (_, writes) = store.counts();
        store.die_at(0);
        check(done);
        if writes < at {
            return at - 1;
        }
    }
    unreachable!("it ends")
}

#[test]
fn i6_a_crash_in_an_allocation_loses_nothing_and_repeats_nothing() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    // Marks have two levels, and with the last allocations the first node of them fills up.
    let spec = two_of_each(128);
    let subnet = spec.subnet;
    ipam.add_pool(&spec).expect("a pool");
    let mut most = 0;
    for n in 0..256 {
        let before = held(ipam, subnet);
        let take = || ipam.reserve(subnet, None, "c", NoPool::Refuse)?.commit().map(drop);
        // A check of the whole costs more than the rest: only where something happens.
        let interesting = n < 4 || (124..130).contains(&n) || n > 250;
        let writes = at_each_write(&store, take, |done| {
            if !interesting {
                return;
            }
            let after = held(ipam, subnet);
            assert!(after.is_superset(&before) && after.len() <= before.len() + 1);
            assert!(done.is_err() || after.len() == before.len() + 1, "a lease that was promised");
            assert_whole(&store, subnet);
        });
        most = most.max(writes);
    }
    assert_eq!(most, 12, "eight blocks that leases are carried into, their marks, and the pool");
    assert_eq!(held(ipam, subnet).len(), 256);
}

#[test]
fn i6_a_crash_in_a_release_loses_nothing_and_repeats_nothing() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let spec = two_of_each(128);
    let subnet = spec.subnet;
    ipam.add_pool(&spec).expect("a pool");
    for _ in 0..256 {
        ipam.reserve(subnet, None, "c", NoPool::Refuse).and_then(Reservation::commit).expect("an address");
    }
    let full = held(ipam, subnet);
    let one = *full.iter().nth(77).expect("one of them");
    let release = || ipam.release(subnet, one, Some("c")).map(drop);
    let writes = at_each_write(&store, release, |done| {
        let after = held(ipam, subnet);
        assert_eq!(after.contains(&one), done.is_err());
        assert_eq!(after.len(), if done.is_err() { 256 } else { 255 });
        assert_whole(&store, subnet);
    });
    assert_eq!(writes, 3, "two marks and the block");
}

#[test]
fn i6_a_crash_where_many_leases_go_at_once_loses_nothing_and_repeats_nothing() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let spec = two_of_each(8);
    ipam.add_pool(&spec).expect("a pool");
    for _ in 0..16 {
        ipam.reserve(spec.subnet, None, "c", NoPool::Refuse).and_then(Reservation::commit).expect("an address");
    }
    carry_all(&store, spec.subnet);
    let release = || ipam.release_owned(&|_| true).map(drop);
    let writes = at_each_write(&store, release, |_| assert_whole(&store, spec.subnet));
    assert_eq!(writes, 16, "a mark and a block, eight times");
    assert!(held(ipam, spec.subnet).is_empty());
}

#[test]
fn i6_a_crash_where_a_pool_is_made_for_a_lease_leaves_nothing_in_the_way() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let (subnet, wider) = (net("10.0.0.0/24"), net("10.0.0.0/16"));
    let take = || ipam.reserve(subnet, None, "c", NoPool::Make)?.commit().map(drop);
    let writes = at_each_write(&store, take, |done| {
        let leased = ipam.leases(subnet).is_ok_and(|leases| !leases.is_empty());
        assert_eq!(leased, done.is_ok());
        let before = store.dump();
        if !leased {
            ipam.add_pool(&PoolSpec::new(wider, "db")).expect("a pool in its place");
            assert_eq!(ipam.pools().expect("pools").len(), 1);
            store.restore(&before);
            assert_eq!(ipam.release_owned(&|_| false).expect("nothing to release"), []);
            assert!(store.dump().is_empty());
            store.restore(&before);
        }
        take().expect("an address");
    });
    assert_eq!(writes, 1, "the pool with its lease");
    // The last release, which takes the pool along.
    store.restore(&Default::default());
    take().expect("an address");
    let release = || ipam.release(subnet, ip("10.0.0.1"), None).map(drop);
    let writes = at_each_write(&store, release, |_| {
        let before = store.dump();
        ipam.release_owned(&|_| true).expect("released");
        assert!(store.dump().is_empty(), "{:?}", store.dump());
        store.restore(&before);
        let again = ipam.release(subnet, ip("10.0.0.1"), None).expect("released");
        assert!(!again || !before.is_empty());
    });
    assert_eq!(writes, 4, "the block emptied, the pool without its lease, the block removed, the pool removed");
}

#[test]
fn i6_a_crash_in_a_removal_leaves_a_pool_or_none() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let spec = two_of_each(4);
    let subnet = spec.subnet;
    let make = at_each_write(
        &store,
        || ipam.add_pool(&spec).map(drop),
        |done| {
            assert_eq!(ipam.pool(subnet).is_ok(), done.is_ok());
        },
    );
    assert_eq!(make, 1);
    for _ in 0..6 {
        ipam.reserve(subnet, None, "c", NoPool::Refuse).and_then(Reservation::commit).expect("an address");
    }
    at_each_write(
        &store,
        || ipam.remove_pool(subnet, true),
        |done| {
            if done.is_err() {
                assert_whole(&store, subnet);
                ipam.remove_pool(subnet, true).expect("removed");
            }
            assert!(store.dump().is_empty(), "{:?}", store.dump());
        },
    );
}
