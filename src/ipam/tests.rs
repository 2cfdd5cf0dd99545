//! The allocator, as its users see it; `model` compares it with a naive one, `crash` kills it at each write.

mod batch;
mod crash;
mod model;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::batch::Batch;
use super::reserve::Reservation;
use super::testing::Memory;
use super::*;
use crate::state::LocalStore;
use crate::state::sum::reseal;

fn net(text: &str) -> IpNetwork {
    text.parse().expect(text)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

/// Takes the next address, and commits it.
fn take(ipam: Ipam, subnet: &str, owner: &str) -> Result<String> {
    let reservation = ipam.reserve(net(subnet), None, owner, NoPool::Refuse)?;
    reservation.commit().map(|lease| lease.ip.to_string())
}

fn take_wanted(ipam: Ipam, subnet: &str, wanted: &str, owner: &str) -> Result<String> {
    let reservation = ipam.reserve(net(subnet), Some(ip(wanted)), owner, NoPool::Refuse)?;
    reservation.commit().map(|lease| lease.ip.to_string())
}

fn add(ipam: Ipam, subnet: &str) {
    ipam.add_pool(&PoolSpec::new(net(subnet), "web")).expect(subnet);
}

/// A pool of `blocks` blocks that hands out two addresses of each.
fn two_of_each(blocks: u128) -> PoolSpec {
    let prefix = 26 - u8::try_from(blocks.ilog2()).expect("a few bits");
    let base = IpNetwork::new(ip("10.0.0.0"), prefix).expect("a network");
    let subnet = Subnet::of(base).expect("a subnet");
    let at = |n: u128| subnet.nth(n).expect("inside");
    let gap = |block: u128| Range::new(at(block * 64 + 3), at((block * 64 + 64).min(subnet.last())));
    let reserved = (0..blocks).map(|block| gap(block).expect("in order")).collect();
    PoolSpec { reserved, ..PoolSpec::new(base, "web") }
}

fn local() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = LocalStore::open(dir.path()).expect("a store");
    (dir, store)
}

#[test]
fn i1_any_number_of_pools() {
    let (_dir, store) = local();
    let ipam = Ipam::new(&store);
    for n in 0..60 {
        add(ipam, &format!("10.0.{n}.0/24"));
        take(ipam, &format!("10.0.{n}.0/24"), "c1").expect("an address");
    }
    assert_eq!(ipam.pools().expect("pools").len(), 60);
    assert_eq!(ipam.pool(net("10.0.59.0/24")).expect("a pool").spec.owner, "web");
    assert_eq!(take(ipam, "10.0.59.0/24", "c2").expect("an address"), "10.0.59.2");
}

#[test]
fn i2_no_host_gets_network_broadcast_or_gateway() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    for (subnet, gateway, expected) in [
        ("10.0.0.0/29", Some("10.0.0.1"), vec!["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]),
        ("10.0.1.0/30", Some("10.0.1.2"), vec!["10.0.1.1"]),
        ("10.0.2.0/31", None, vec!["10.0.2.0", "10.0.2.1"]),
        ("10.0.2.2/31", Some("10.0.2.2"), vec!["10.0.2.3"]),
        ("10.0.3.7/32", None, vec!["10.0.3.7"]),
        ("fd00::/126", Some("fd00::2"), vec!["fd00::1", "fd00::3"]),
        ("fd00::4/127", None, vec!["fd00::4", "fd00::5"]),
        ("fd00::6/128", None, vec!["fd00::6"]),
    ] {
        let spec = PoolSpec { gateway: gateway.map(ip), ..PoolSpec::new(net(subnet), "web") };
        ipam.add_pool(&spec).expect(subnet);
        let usage = ipam.usage(net(subnet)).expect("usage");
        assert_eq!(usage, Usage { used: 0, size: expected.len() as u128 });
        for expected in expected {
            assert_eq!(take(ipam, subnet, "c").expect(expected), expected);
        }
        assert_eq!(take(ipam, subnet, "c").expect_err("no more").kind(), Kind::Exhausted);
    }
}

#[test]
fn i2_nothing_wraps_at_255() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/22");
    let taken: Vec<String> = (0..1022).map(|_| take(ipam, "10.0.0.0/22", "c").expect("an address")).collect();
    let expected: Vec<String> = (1..1023).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    assert_eq!(taken, expected);
    assert_eq!(take(ipam, "10.0.0.0/22", "c").expect_err("no more").kind(), Kind::Exhausted);
}

#[test]
fn i2_what_nobody_can_have_is_refused_saying_why() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let reserved = vec![ip("10.0.0.5").into(), "10.0.0.10-10.0.0.19".parse().expect("a range")];
    let range = Range::new(ip("10.0.0.2"), ip("10.0.0.100")).ok();
    let spec = PoolSpec { gateway: Some(ip("10.0.0.1")), reserved, range, ..PoolSpec::new(net("10.0.0.0/24"), "web") };
    ipam.add_pool(&spec).expect("a pool");
    ipam.add_pool(&PoolSpec::new(net("fd00::/64"), "web")).expect("a pool");
    for (subnet, wanted, why) in [
        ("10.0.0.0/24", "10.0.0.0", "it is the network's own address"),
        ("10.0.0.0/24", "10.0.0.255", "it is the broadcast address"),
        ("10.0.0.0/24", "10.0.0.1", "it is the gateway's"),
        ("10.0.0.0/24", "10.0.0.5", "it is reserved"),
        ("10.0.0.0/24", "10.0.0.12", "it is reserved, with `10.0.0.10-10.0.0.19`"),
        ("10.0.0.0/24", "10.0.1.0", "it lies outside of `10.0.0.0/24`"),
        ("10.0.0.0/24", "fd00::1", "it lies outside of `10.0.0.0/24`"),
        ("fd00::/64", "fd00::", "it is the anycast address of the subnet's routers"),
        ("fd00::/64", "10.0.0.1", "it lies outside of `fd00::/64`"),
    ] {
        let error = take_wanted(ipam, subnet, wanted, "c").expect_err(wanted);
        assert_eq!(error.kind(), Kind::Invalid);
        assert_eq!(error.to_string(), format!("take `{wanted}` of the pool `{subnet}`: {why}"));
    }
    // The range is for what is handed out by itself.
    assert_eq!(take_wanted(ipam, "10.0.0.0/24", "10.0.0.200", "c").expect("outside of the range"), "10.0.0.200");
    let taken: Vec<String> = (0..8).map(|_| take(ipam, "10.0.0.0/24", "c").expect("an address")).collect();
    assert_eq!(taken.join(" ").replace("10.0.0.", ""), "2 3 4 6 7 8 9 20");
}

#[test]
fn i3_a_full_pool_says_who_has_it() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/29");
    for owner in ["db", "web", "web", "web", "dns", "db"] {
        take(ipam, "10.0.0.0/29", owner).expect("an address");
    }
    let before = store.dump();
    let error = take(ipam, "10.0.0.0/29", "one more").expect_err("all are leased");
    assert_eq!((error.kind(), error.kind().word()), (Kind::Exhausted, "exhausted"));
    assert_eq!(
        error.to_string(),
        "take an address of the pool `10.0.0.0/29`: all 6 addresses are leased: `web` holds 3, `db` holds 2, `dns` holds 1"
    );
    assert_eq!(store.dump(), before);
    assert!(ipam.release(net("10.0.0.0/29"), ip("10.0.0.3"), Some("web")).expect("released"));
    assert_eq!(take(ipam, "10.0.0.0/29", "one more").expect("room"), "10.0.0.3");
}

#[test]
fn i3_a_full_range_is_not_a_full_pool() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let range = "10.0.0.9".parse().ok();
    ipam.add_pool(&PoolSpec { range, ..PoolSpec::new(net("10.0.0.0/24"), "web") }).expect("a pool");
    take(ipam, "10.0.0.0/24", "a").expect("the one");
    take_wanted(ipam, "10.0.0.0/24", "10.0.0.3", "b").expect("outside of the range");
    let error = take(ipam, "10.0.0.0/24", "c").expect_err("the range is full");
    assert!(error.to_string().ends_with("the one address of `10.0.0.9` is leased: `a` holds 1"), "{error}");
}

#[test]
fn i4_a_damaged_pool_is_named_and_left_alone() {
    let (dir, store) = local();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/24");
    add(ipam, "10.1.0.0/24");
    take(ipam, "10.0.0.0/24", "c").expect("an address");
    let subnet = net("10.0.0.0/24");
    let pool = dir.path().join("pools/10.0.0.0-24.json");
    let block = dir.path().join("leases/10.0.0.0-24.d/0.json");
    let (good_pool, good_block) = (fs::read_to_string(&pool).expect("it"), fs::read_to_string(&block).expect("it"));
    let leases = |leases: &str| reseal(&format!("{{\"value\":{{\"lap\":0,\"next\":2,\"leases\":[{leases}]}}}}"));
    for (path, damage, says) in [
        (&pool, String::new(), "byte 0: EOF"),
        (&pool, reseal(&good_pool.replace("\"lap\":0", "\"lap\":0,\"more\":1")), "unknown field `more`"),
        (&pool, reseal(&good_pool.replace("10.0.0.0/24", "10.1.0.0/24")), "it is the pool `10.1.0.0/24`"),
        (
            &pool,
            reseal(&good_pool.replace("\"at\":\"10.0.0.0\"", "\"at\":\"10.0.0.7\"")),
            "`10.0.0.7` is not the first of a block",
        ),
        (&block, "{\"value\":{}}}".into(), "byte 12: trailing characters"),
        (&block, reseal(&good_block.replace("\"lap\"", "\"lapse\"")), "unknown field `lapse`"),
        (&block, leases("[\"10.0.9.1\",\"c\",1]"), "it leases `10.0.9.1`, but it lies outside of `10.0.0.0/24`"),
        (&block, leases("[\"10.0.0.0\",\"c\",1]"), "it leases `10.0.0.0`, but it is the network's own address"),
        (&block, leases("[\"10.0.0.77\",\"c\",1]"), "it leases `10.0.0.77`, which belongs in another file"),
        (&block, leases("[\"10.0.0.3\",\"c\",1],[\"10.0.0.3\",\"d\",1]"), "it has two leases of `10.0.0.3`"),
        (&block, reseal(&good_block.replace("\"next\":2", "\"next\":65")), "`next` is 65, at most 64 is possible"),
    ] {
        fs::write(path, &damage).expect("damage it");
        let errors = [
            take(ipam, "10.0.0.0/24", "c").map(drop).expect_err(&damage),
            take_wanted(ipam, "10.0.0.0/24", "10.0.0.9", "c").map(drop).expect_err(&damage),
            ipam.release(subnet, ip("10.0.0.1"), None).map(drop).expect_err(&damage),
            ipam.leases(subnet).map(drop).expect_err(&damage),
            ipam.remove_pool(subnet, false).expect_err(&damage),
            ipam.release_owned(&|_| true).map(drop).expect_err(&damage),
            ipam.audit(&|_| true).map(drop).expect_err(&damage),
        ];
        for error in errors {
            assert_eq!(error.kind(), Kind::State);
            let text = error.to_string();
            assert!(text.starts_with(&format!("read `{}`: ", path.display())) && text.contains(says), "{text}");
        }
        assert_eq!(fs::read_to_string(path).expect("it"), damage);
        // Another pool is none the worse for it.
        take(ipam, "10.1.0.0/24", "c").expect("an address");
        fs::write(&pool, &good_pool).and_then(|()| fs::write(&block, &good_block)).expect("mend it");
    }
    assert_eq!(take(ipam, "10.0.0.0/24", "c").expect("an address"), "10.0.0.2");
    fs::remove_file(&pool).expect("lose it");
    let error = ipam.add_pool(&PoolSpec::new(subnet, "web")).expect_err("leases are there");
    assert_eq!(
        error.to_string(),
        format!("read `{}`: it has leases of a pool whose own file is gone", block.display())
    );
}

#[test]
fn i4_stray_files_are_passed_over() {
    let (dir, store) = local();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/24");
    take(ipam, "10.0.0.0/24", "c").expect("an address");
    for stray in
        ["pools/notes.json", "pools/10.0.0.5-24.json", "leases/10.0.0.0-24.d/x y.json", "leases/10.0.0.0-24.d/00.json"]
    {
        fs::write(dir.path().join(stray), "not ours").expect("a stray file");
    }
    fs::create_dir(dir.path().join("pools/10.9.0.0-24.json")).expect("a stray directory");
    assert_eq!(ipam.pools().expect("pools").len(), 1);
    assert_eq!(ipam.leases(net("10.0.0.0/24")).expect("leases").len(), 1);
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
}

#[test]
fn i5_threads_get_distinct_addresses() {
    let (_dir, store) = local();
    let (pool, made) = ("10.0.0.0/24", "fd00::/64");
    add(Ipam::new(&store), pool);
    let taken: Vec<IpAddr> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..16)
            .map(|n| {
                let store = store.clone();
                scope.spawn(move || {
                    let ipam = Ipam::new(&store);
                    let both = [net(pool), net(made)].into_iter().cycle().take(12);
                    let take = |subnet| ipam.reserve(subnet, None, &format!("c{n}"), NoPool::Make).expect("an address");
                    both.map(|subnet| take(subnet).commit().expect("a lease").ip).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    assert_eq!(taken.len(), 16 * 12);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 16 * 12);
    let ipam = Ipam::new(&store);
    for subnet in [pool, made] {
        assert_eq!(ipam.usage(net(subnet)).expect("usage").used, 16 * 6);
    }
    assert!(ipam.pool(net(made)).expect("the one that was made").implicit);
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
}

/// Who holds an address was looked for among all leases of the pool: a disconnect from a large network read them all.
#[test]
fn who_holds_an_address_is_told_by_its_block() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    ipam.add_pool(&two_of_each(64)).expect("a pool");
    let subnet = "10.0.0.0/20";
    for n in 0..100 {
        take(ipam, subnet, &format!("c{n}")).expect("an address");
    }
    take_wanted(ipam, subnet, "10.0.15.193", "last").expect("an address");
    store.die_at(0);
    assert_eq!(ipam.holder(net(subnet), ip("10.0.15.193")).expect("read").as_deref(), Some("last"));
    let (reads, _) = store.counts();
    assert!(reads <= 3, "{reads} reads");
    for free in ["10.0.8.5", "10.1.0.1", "fd00::1"] {
        assert_eq!(ipam.holder(net(subnet), ip(free)).expect("read"), None, "{free}");
    }
    assert_eq!(ipam.holder(net("10.9.0.0/24"), ip("10.9.0.1")).expect_err("no pool").kind(), Kind::Missing);
}

/// What an allocation reads and writes is what it costs, whatever the machine.
#[test]
fn i7_the_cost_is_flat_in_size_and_fill() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let cost = |subnet: &str| {
        store.die_at(0);
        take(ipam, subnet, "c").expect(subnet);
        store.counts()
    };
    for subnet in ["10.0.0.0/24", "11.0.0.0/8", "172.16.0.0/18", "fd00::/64", "fd01::/16"] {
        add(ipam, subnet);
        assert_eq!((cost(subnet), cost(subnet)), ((2, 1), (2, 1)), "{subnet}, fresh");
    }
    // All but the last address, then a hole at every hundredth, and all of those and the last.
    let subnet = "172.16.0.0/18";
    let mut most = (0, 0);
    let mut sum = 0;
    let mut count = |(reads, writes): (u64, u64)| {
        most = (reads.max(most.0), writes.max(most.1));
        sum += writes;
    };
    for _ in 2..16_381 {
        count(cost(subnet));
    }
    assert!(most.0 <= 10 && most.1 <= 4, "{most:?} while it filled up");
    assert!(sum < 16_381 * 21 / 20, "{sum} writes");
    let (mut most, mut holes) = ((0, 0), 0);
    for n in (1..16_380).step_by(100) {
        let address = ip(&format!("172.16.{}.{}", n / 256, n % 256));
        store.die_at(0);
        assert!(ipam.release(net(subnet), address, Some("c")).expect("released"));
        let (reads, writes) = store.counts();
        assert!(reads <= 6 && writes <= 3, "{reads} reads, {writes} writes for a release");
        holes += 1;
    }
    for _ in 0..=holes {
        let (reads, writes) = cost(subnet);
        most = (reads.max(most.0), writes.max(most.1));
    }
    assert!(most.0 <= 24 && most.1 <= 12, "{most:?} with holes");
    assert_eq!(take(ipam, subnet, "c").expect_err("no more").kind(), Kind::Exhausted);
    assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
}

#[test]
fn i8_releasing_twice_is_harmless_and_a_foreign_address_an_error() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let subnet = net("10.0.0.0/24");
    add(ipam, "10.0.0.0/24");
    let taken = ip(&take(ipam, "10.0.0.0/24", "web/c1").expect("an address"));
    let before = store.dump();
    let error = ipam.release(subnet, taken, Some("web/c2")).expect_err("another's");
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().ends_with("`web/c1` holds it, not `web/c2`"), "{error}");
    let error = ipam.release(subnet, ip("10.0.1.1"), None).expect_err("outside");
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(ipam.release(net("10.0.0.5/24"), taken, None).expect_err("host bits").kind(), Kind::Invalid);
    for never in ["10.0.0.0", "10.0.0.77", "10.0.0.255"] {
        assert!(!ipam.release(subnet, ip(never), None).expect("never leased"));
    }
    assert!(!ipam.release(net("10.9.0.0/24"), ip("10.9.0.1"), None).expect("no such pool"));
    assert_eq!(store.dump(), before);
    assert!(ipam.release(subnet, taken, Some("web/c1")).expect("released"));
    assert!(!ipam.release(subnet, taken, Some("web/c1")).expect("released already"));
    assert_eq!(ipam.leases(subnet).expect("leases"), []);
}

#[test]
fn i9_a_released_address_comes_last() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    for (subnet, size) in [("10.0.0.0/29", 6), ("10.1.0.0/24", 254), ("fd00::/120", 255)] {
        add(ipam, subnet);
        let first = take(ipam, subnet, "c").expect("an address");
        // One after the other, each given back at once: all others come before the first comes again.
        let mut seen = BTreeSet::from([first.clone()]);
        let mut last = first.clone();
        for _ in 1..size {
            assert!(ipam.release(net(subnet), ip(&last), None).expect("released"));
            last = take(ipam, subnet, "c").expect("an address");
            assert!(seen.insert(last.clone()), "{last} again after {} of {size}", seen.len());
        }
        assert_eq!(take(ipam, subnet, "c").expect("an address"), first);
        // One that is asked for is given at once.
        assert!(ipam.release(net(subnet), ip(&last), None).expect("released"));
        assert_eq!(take_wanted(ipam, subnet, &last, "c").expect("it is free"), last);
        let error = take_wanted(ipam, subnet, &last, "d").expect_err("it is leased");
        assert_eq!(error.kind(), Kind::Exists);
        assert_eq!(error.to_string(), format!("take `{last}` of the pool `{subnet}`: `c` holds it"));
    }
}

#[test]
fn i10_pools_that_overlap_are_refused_by_name() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/16");
    add(ipam, "fd00::/64");
    for (subnet, other) in [("10.0.7.0/24", "10.0.0.0/16"), ("10.0.0.0/8", "10.0.0.0/16"), ("fd00::/48", "fd00::/64")] {
        let error = ipam.add_pool(&PoolSpec::new(net(subnet), "db")).expect_err(subnet);
        assert_eq!(error.kind(), Kind::Exists);
        let says = format!("make the pool `{subnet}`: it overlaps the pool `{other}` of `web`");
        assert_eq!(error.to_string(), says);
        let error = ipam.reserve(net(subnet), None, "c", NoPool::Make).expect_err(subnet);
        assert_eq!(error.to_string(), says);
    }
    let error = ipam.add_pool(&PoolSpec::new(net("10.0.0.0/16"), "db")).expect_err("the same");
    assert_eq!(error.to_string(), "make the pool `10.0.0.0/16`: there is one of `web`");
    add(ipam, "10.1.0.0/16");
    // A small number of the other family is no neighbour.
    add(ipam, "::a00:0/112");
}

#[test]
fn i11_what_dead_owners_hold_is_freed() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    add(ipam, "10.0.0.0/24");
    for owner in ["web/c1", "web/c2", "web/c1"] {
        take(ipam, "10.0.0.0/24", owner).expect("an address");
    }
    ipam.reserve(net("fd00::/64"), None, "web/c1", NoPool::Make).and_then(Reservation::commit).expect("an address");
    let lives = |owner: &str| owner != "web/c1";
    let dead = ipam.audit(&lives).expect("sound");
    let shown: Vec<String> = dead.iter().map(|held| held.lease.ip.to_string()).collect();
    assert_eq!(shown, ["10.0.0.1", "10.0.0.3", "fd00::1"]);
    assert_eq!(ipam.release_owned(&|owner| !lives(owner)).expect("released"), dead);
    assert_eq!(ipam.audit(&lives).expect("sound"), []);
    assert_eq!(ipam.pools().expect("pools").len(), 1, "the pool that was made for a lease is gone");
    assert_eq!(ipam.leases(net("10.0.0.0/24")).expect("leases").len(), 1);
}

#[test]
fn a_pool_that_cant_be_is_refused() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let range = |text: &str| text.parse::<Range>().ok();
    let of = |subnet: &str| PoolSpec::new(net(subnet), "web");
    for (spec, says) in [
        (of("10.0.0.5/24"), "take `10.0.0.5/24` as a subnet: host bits are set; did you mean `10.0.0.0/24`?"),
        (
            PoolSpec { gateway: Some(ip("10.0.1.1")), ..of("10.0.0.0/24") },
            "make the pool `10.0.0.0/24`: its gateway `10.0.1.1` lies outside",
        ),
        (
            PoolSpec { gateway: Some(ip("10.0.0.255")), ..of("10.0.0.0/24") },
            "make the pool `10.0.0.0/24`: `10.0.0.255` can't be its gateway: it is the broadcast address",
        ),
        (
            PoolSpec { gateway: Some(ip("10.0.0.0")), ..of("10.0.0.0/32") },
            "make the pool `10.0.0.0/32`: it is too small: no address is left to hand out",
        ),
        (
            PoolSpec { range: range("10.0.0.0-10.0.1.1"), ..of("10.0.0.0/24") },
            "make the pool `10.0.0.0/24`: `10.0.0.0-10.0.1.1` does not lie in it",
        ),
        (
            PoolSpec { range: range("10.0.0.255"), ..of("10.0.0.0/24") },
            "make the pool `10.0.0.0/24`: it is too small: no address in `10.0.0.255` is left to hand out",
        ),
        (
            PoolSpec { reserved: vec![net("fd00::/64").into()], ..of("fd00::/64") },
            "make the pool `fd00::/64`: it is too small: no address is left to hand out",
        ),
        (
            PoolSpec { owner: "a\nb".into(), ..of("10.0.0.0/24") },
            "take `a\\nb` as an owner: '\\n' is not allowed in it",
        ),
    ] {
        let error = ipam.add_pool(&spec).expect_err(says);
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, says));
    }
    assert!(store.dump().is_empty());
    for bad in ["10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1-", "x", "10.0.0.0/24"] {
        bad.parse::<Range>().expect_err(bad);
    }
}

#[test]
fn a_pool_in_use_is_removed_only_by_force() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let subnet = net("10.0.0.0/24");
    assert_eq!(ipam.remove_pool(subnet, true).expect_err("none").kind(), Kind::Missing);
    add(ipam, "10.0.0.0/24");
    for n in 0..130 {
        take(ipam, "10.0.0.0/24", if n == 7 { "db" } else { "web" }).expect("an address");
    }
    let error = ipam.remove_pool(subnet, false).expect_err("in use");
    assert_eq!(error.kind(), Kind::Busy);
    assert_eq!(
        error.to_string(),
        "remove the pool `10.0.0.0/24`: 130 addresses are leased: `web` holds 129, `db` holds 1"
    );
    ipam.remove_pool(subnet, true).expect("removed");
    assert!(store.dump().is_empty(), "{:?}", store.dump());
    let error = take(ipam, "10.0.0.0/24", "c").expect_err("no pool");
    assert_eq!(error.kind(), Kind::Missing);
}

#[test]
fn a_reservation_that_is_dropped_changes_nothing() {
    let (dir, store) = local();
    let store = store.with_patience(Duration::from_millis(50));
    let ipam = Ipam::new(&store);
    let subnet = net("10.0.0.0/24");
    let files = || -> BTreeSet<String> {
        let keys = [POOLS, "leases"].map(|kind| store.list(&Key::kind(kind)).expect("a list"));
        keys.into_iter().flatten().map(|key| format!("{key} {:?}", store.get(&key))).collect()
    };
    for no_pool in [NoPool::Make, NoPool::Refuse] {
        let before = files();
        let reservation = ipam.reserve(subnet, None, "c", no_pool).expect("an address");
        assert_eq!(reservation.ip(), ip("10.0.0.1"));
        assert_eq!(ipam.reserve(subnet, None, "d", no_pool).expect_err("locked").kind(), Kind::Busy);
        assert_eq!(files(), before);
        drop(reservation);
        assert_eq!(files(), before);
        if no_pool == NoPool::Make {
            add(ipam, "10.0.0.0/24");
        }
    }
    assert_eq!(take(ipam, "10.0.0.0/24", "c").expect("an address"), "10.0.0.1");
    assert_eq!(take(ipam, "10.0.0.0/24", "c").expect("an address"), "10.0.0.2");
    ipam.remove_pool(subnet, true).expect("removed");
    assert_eq!(fs::read_dir(dir.path().join("pools")).expect("a directory").count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("leases")).expect("a directory").count(), 0);
}

#[test]
fn a_pool_made_for_a_lease_goes_with_its_last_one() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let subnet = net("10.0.0.0/16");
    let take = |wanted: Option<&str>| {
        ipam.reserve(subnet, wanted.map(ip), "c", NoPool::Make).and_then(Reservation::commit).expect("an address").ip
    };
    assert_eq!(take(None), ip("10.0.0.1"));
    assert_eq!(take(Some("10.0.200.1")), ip("10.0.200.1"));
    assert!(ipam.pool(subnet).expect("a pool").implicit);
    assert!(ipam.release(subnet, ip("10.0.0.1"), None).expect("released"));
    assert_eq!(ipam.leases(subnet).expect("leases").len(), 1);
    assert!(ipam.release(subnet, ip("10.0.200.1"), None).expect("released"));
    assert!(store.dump().is_empty(), "{:?}", store.dump());
    assert!(!ipam.release(subnet, ip("10.0.200.1"), None).expect("released already"));
    assert_eq!(take(Some("10.0.3.3")), ip("10.0.3.3"));
}

#[test]
fn a_free_subnet_is_found_at_once_in_any_size() {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let free = |within: &str, prefix, taken: &[&str]| {
        let taken: Vec<IpNetwork> = taken.iter().map(|text| net(text)).collect();
        ipam.free_subnet(net(within), prefix, &taken).map(|net| net.to_string())
    };
    assert_eq!(free("10.0.0.0/8", 30, &[]).expect("free"), "10.0.0.0/30");
    assert_eq!(free("10.0.0.0/8", 30, &["10.0.0.0/9", "10.128.0.5/10"]).expect("free"), "10.192.0.0/30");
    assert_eq!(free("fd00::/48", 64, &["fd00::/49", "10.0.0.0/8"]).expect("free"), "fd00:0:0:8000::/64");
    assert_eq!(free("::/0", 128, &["::/1"]).expect("free"), "8000::/128");
    add(ipam, "10.0.0.0/24");
    assert_eq!(free("10.0.0.0/8", 24, &["10.0.1.77/32"]).expect("free"), "10.0.2.0/24");
    let error = free("10.0.0.0/23", 24, &["10.0.1.77/32"]).expect_err("full");
    assert_eq!(error.kind(), Kind::Exhausted);
    assert_eq!(error.to_string(), "find a free /24 in `10.0.0.0/23`: 2 networks are in the way");
    for (within, prefix) in [("10.0.0.0/24", 23), ("10.0.0.0/24", 33), ("fd00::/64", 129), ("10.0.0.1/24", 25)] {
        assert_eq!(free(within, prefix, &[]).expect_err(within).kind(), Kind::Invalid);
    }
}
