//! Many addresses at once; that they are those which single calls would have, `model` shows.

use super::crash::{assert_whole, at_each_write, held};
use super::*;

fn take_many(ipam: Ipam, subnet: &str, count: u32) -> Result<Vec<String>> {
    let batch = ipam.reserve_many(net(subnet), count, "c", NoPool::Refuse)?;
    let chosen: Vec<IpAddr> = batch.ips().collect();
    let leases = batch.commit()?;
    assert_eq!(leases.iter().map(|lease| lease.ip).collect::<Vec<_>>(), chosen);
    Ok(chosen.iter().map(IpAddr::to_string).collect())
}

#[test]
fn a_batch_is_what_single_calls_would_have() {
    for subnet in ["10.0.0.0/22", "11.0.0.0/8", "fd00::/64"] {
        let (one, all) = (Memory::default(), Memory::default());
        let single = Ipam::new(&one);
        add(single, subnet);
        add(Ipam::new(&all), subnet);
        let singles: Vec<String> = (0..500).map(|_| take(single, subnet, "c").expect("an address")).collect();
        assert_eq!(take_many(Ipam::new(&all), subnet, 500).expect("a batch"), singles);
        let leases = |store: &Memory| {
            let leases = Ipam::new(store).leases(net(subnet)).expect("leases");
            leases.into_iter().map(|lease| (lease.ip, lease.owner)).collect::<Vec<_>>()
        };
        assert_eq!(leases(&one), leases(&all));
        assert_eq!(take(Ipam::new(&all), subnet, "c").expect("the next"), take(single, subnet, "c").expect("it too"));
    }
}

#[test]
fn i7_a_batch_writes_each_record_once() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    for subnet in ["172.16.0.0/16", "11.0.0.0/8", "fd00::/64"] {
        add(ipam, subnet);
        for _ in 0..3 {
            store.die_at(0);
            take_many(ipam, subnet, 6400).expect("a batch");
            let (reads, writes) = store.counts();
            // The pool, 100 or 101 blocks, and the few records of which of them are full.
            assert!(writes <= 1 + 101 + 5, "{writes} writes in {subnet}");
            assert!(reads <= 2 + 3 * 102, "{reads} reads in {subnet}");
        }
    }
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
}

#[test]
fn i3_a_batch_that_is_too_large_takes_nothing_and_says_what_is_left() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/24");
    assert_eq!(take_many(ipam, "10.0.0.0/24", 200).expect("a batch").len(), 200);
    let before = store.dump();
    let error = take_many(ipam, "10.0.0.0/24", 55).expect_err("54 are left");
    assert_eq!(error.kind(), Kind::Exhausted);
    let text = "take 55 addresses of the pool `10.0.0.0/24`: 54 of its 254 addresses are left: `c` holds 200";
    assert_eq!(error.to_string(), text);
    assert_eq!(store.dump(), before);
    assert_eq!(take_many(ipam, "10.0.0.0/24", 54).expect("the rest").len(), 54);
    let error = take_many(ipam, "10.0.0.0/24", 2).expect_err("none is left");
    let text = "take 2 addresses of the pool `10.0.0.0/24`: all 254 addresses are leased: `c` holds 254";
    assert_eq!(error.to_string(), text);
    let error = ipam.reserve_many(net("10.9.0.0/30"), 3, "c", NoPool::Make).map(|_| ()).expect_err("two at most");
    assert!(error.to_string().ends_with("2 of its 2 addresses are left"), "{error}");
    assert_eq!(ipam.pools().expect("pools").len(), 1);
}

#[test]
fn a_batch_that_is_dropped_has_changed_nothing() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    drop(ipam.reserve_many(net("10.0.0.0/16"), 1000, "c", NoPool::Make).expect("a batch"));
    assert!(store.dump().is_empty());
}

#[test]
fn many_are_given_back_by_their_holder_alone() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let subnet = net("10.0.0.0/16");
    let batch = ipam.reserve_many(subnet, 300, "c", NoPool::Make).expect("a batch");
    let ips: Vec<IpAddr> = batch.ips().collect();
    batch.commit().expect("leases");
    assert!(ipam.release(subnet, ips[7], Some("c")).expect("released"));
    assert!(ipam.reserve(subnet, Some(ips[7]), "d", NoPool::Refuse).and_then(Reservation::commit).is_ok());
    store.die_at(0);
    assert_eq!(ipam.release_many(subnet, ips.iter().copied(), "c").expect("released"), 299);
    let (_, writes) = store.counts();
    // Five blocks, of which the first is left, and the marks of the four that were full: each unmarked before it has room.
    assert!(writes <= 5 + 4, "{writes} writes");
    assert_eq!(held(ipam, subnet), BTreeSet::from([ips[7]]));
    assert_eq!(ipam.release_many(subnet, ips.iter().copied(), "c").expect("nothing"), 0);
    assert_eq!(ipam.release_many(subnet, [ips[7]], "d").expect("released"), 1);
    assert!(store.dump().is_empty());
}

#[test]
fn i6_a_crash_in_a_batch_repeats_nothing_and_is_given_back_whole() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let spec = two_of_each(128);
    let subnet = spec.subnet;
    ipam.add_pool(&spec).expect("a pool");
    ipam.reserve_many(subnet, 101, "before", NoPool::Refuse).and_then(Batch::commit).expect("others");
    let before = held(ipam, subnet);
    let ips: Vec<IpAddr> = ipam.reserve_many(subnet, 60, "c", NoPool::Refuse).expect("a batch").ips().collect();
    let take = || ipam.reserve_many(subnet, 60, "c", NoPool::Refuse)?.commit().map(drop);
    let writes = at_each_write(&store, take, |done| {
        let after = held(ipam, subnet);
        assert!(after.is_superset(&before));
        assert!(done.is_err() || after.len() == before.len() + 60, "leases that were promised");
        assert_whole(&store, subnet);
        let dump = store.dump();
        ipam.release_many(subnet, ips.iter().copied(), "c").expect("given back");
        assert_eq!(held(ipam, subnet), before);
        assert_whole(&store, subnet);
        store.restore(&dump);
    });
    assert_eq!(writes, 1, "all of it at once");
}

#[test]
fn i6_a_crash_in_a_batch_that_makes_a_pool_leaves_none() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let subnet = net("10.0.0.0/24");
    let ips: Vec<IpAddr> = ipam.reserve_many(subnet, 100, "c", NoPool::Make).expect("a batch").ips().collect();
    let take = || ipam.reserve_many(subnet, 100, "c", NoPool::Make)?.commit().map(drop);
    at_each_write(&store, take, |_| {
        let dump = store.dump();
        ipam.release_many(subnet, ips.iter().copied(), "c").expect("given back");
        assert!(store.dump().is_empty(), "{:?}", store.dump());
        store.restore(&dump);
    });
}

#[test]
fn runs_put_addresses_together() {
    let ips: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.0", "fd00::1", "fd00::2"].map(ip).to_vec();
    let runs = Range::runs(&ips);
    assert_eq!(
        runs.iter().map(Range::to_string).collect::<Vec<_>>(),
        ["10.0.0.1-10.0.0.3", "10.0.1.0", "fd00::1-fd00::2"]
    );
    assert_eq!(runs.iter().flat_map(|run| run.ips()).collect::<Vec<_>>(), ips);
    assert_eq!(runs.iter().map(|run| run.count()).sum::<u128>(), 6);
}

/// A hole in each of a thousand blocks: many in one call are one write, one by one they are little more than a write each, and they are the
/// ones that single calls would have.
#[test]
fn i7_single_holes_cost_little_more_than_a_plain_address() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let subnet = "10.0.0.0/16";
    add(ipam, subnet);
    take_many(ipam, subnet, 65_534).expect("all");
    let holes: Vec<IpAddr> = (0..1000).map(|n| ip(&format!("10.0.{}.{}", n / 4, n % 4 * 64 + 9))).collect();
    let dig = || assert_eq!(ipam.release_many(net(subnet), holes.iter().copied(), "c").expect("released"), 1000);
    dig();
    store.die_at(0);
    assert_eq!(
        take_many(ipam, subnet, 1000).expect("all holes"),
        holes.iter().map(IpAddr::to_string).collect::<Vec<_>>()
    );
    assert_eq!(store.counts().1, 1, "one durable write");
    assert_eq!(take_many(ipam, subnet, 1).expect_err("full").kind(), Kind::Exhausted);
    dig();
    let mut most = 0;
    let mut sum = 0;
    for hole in &holes {
        store.die_at(0);
        assert_eq!(take(ipam, subnet, "c").expect("a hole"), hole.to_string());
        let (_, writes) = store.counts();
        most = most.max(writes);
        sum += writes;
    }
    assert!(most <= 12 && sum <= 2300, "{sum} writes, {most} at most");
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
    assert_eq!(ipam.usage(net(subnet)).expect("usage").used, 65_534);
}
