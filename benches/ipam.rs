//! Addresses a second from pools of several sizes and fills, one by one and many at once, measured in turn in one run, on a disk
//! and in memory.
//!
//! Run with `cargo bench --bench ipam`, or with `cargo bench --bench ipam -- 20` for a short run that shows no more than that it
//! works. An allocation is a lock, a look and a write that outlives a power cut; on a disk the last takes most of the time
//! (fsync), in /dev/shm none. Ratios are to the empty /24 of the same place, taken in the same way.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use toposcript::for_tests::{Ipam, LocalStore, NoPool, PoolSpec, Store};

const ROUNDS: usize = 5;
/// How many addresses a round takes; a fresh /24 has room for them.
const COUNT: u32 = 200;
/// The pool from which batches of several sizes are taken.
const LARGE: &str = "12.0.0.0/8";

/// Takes addresses, so many at a time.
fn take(ipam: Ipam, subnet: IpNetwork, count: u32, at_once: u32) -> Vec<IpAddr> {
    let mut taken = Vec::with_capacity(count as usize);
    while (taken.len() as u32) < count {
        match at_once.min(count - taken.len() as u32) {
            1 => {
                let reservation = ipam.reserve(subnet, None, "bench", NoPool::Make).expect("an address");
                taken.push(reservation.commit().expect("a lease").ip);
            }
            many => {
                let batch = ipam.reserve_many(subnet, many, "bench", NoPool::Make).expect("addresses");
                taken.extend(batch.commit().expect("leases").into_iter().map(|lease| lease.ip));
            }
        }
    }
    taken
}

/// Takes the addresses of a round, and gives them back unmeasured.
fn time(ipam: Ipam, subnet: IpNetwork, count: u32, at_once: u32) -> Duration {
    let began = Instant::now();
    let taken = take(ipam, subnet, count, at_once);
    let time = began.elapsed();
    let released = ipam.release_many(subnet, taken.iter().copied(), "bench").expect("released");
    assert_eq!(released, taken.len());
    time
}

/// Copies a store.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(std::fs::copy(&path, &to).expect("a copy")),
        }
    }
}

/// Makes the pools in a directory in memory, the last three filled: a half, all but the end, and all but scattered holes.
fn pools(root: &Path) -> [(&'static str, IpNetwork); 7] {
    let pools = [
        ("/24, empty", "10.1.0.0/24"),
        ("/16, empty", "10.2.0.0/16"),
        ("/8, empty", "11.0.0.0/8"),
        ("IPv6 /64, empty", "fd00::/64"),
        ("/16, half full", "10.5.0.0/16"),
        ("/16, full but for the end", "10.3.0.0/16"),
        ("/16, full but for holes", "10.4.0.0/16"),
    ]
    .map(|(what, net)| (what, net.parse().expect("a network")));
    let store = LocalStore::open(root).expect("a store");
    let ipam = Ipam::new(&store);
    for (_, net) in pools {
        ipam.add_pool(&PoolSpec::new(net, "bench")).expect("a pool");
    }
    let large = LARGE.parse().expect("a network");
    ipam.add_pool(&PoolSpec::new(large, "bench")).expect("a pool");
    for ((_, net), filled) in pools[4..].iter().zip([32_767, 65_534 - 2 * COUNT, 65_534 - 2 * COUNT]) {
        take(ipam, *net, filled, filled);
    }
    // A hole in a block of its own each, but for a few.
    let (_, holes) = pools[6];
    for n in 0..COUNT {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 4, 0, 9)) + n * 320);
        assert!(ipam.release(holes, ip.into(), None).expect("released"));
    }
    // The end comes before the holes.
    take(ipam, holes, 2 * COUNT, 2 * COUNT);
    pools
}

/// Measures in turn, and returns the median of each in seconds.
fn medians<const N: usize>(rounds: usize, mut measure: impl FnMut(usize) -> Duration) -> [f64; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..rounds {
        times.iter_mut().enumerate().for_each(|(at, times)| times.push(measure(at)));
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    })
}

fn main() {
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(COUNT).clamp(1, COUNT);
    let (rounds, batches) = match count {
        COUNT => (ROUNDS, [1, 10, 100, 1000, 10_000]),
        few => (1, [1, 2, 3, 5, few]),
    };
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let pools = pools(memory.path());
    copy(memory.path(), disk.path());
    for (place, dir) in [("in memory", memory.path()), ("on the disk", disk.path())] {
        // A copy's directory has the mode that the umask gives.
        let store = LocalStore::open(dir).expect("a store");
        let store: &dyn Store = &store;
        let ipam = Ipam::new(store);
        for (way, at_once) in [("one by one", 1), ("at once", count)] {
            let times: [f64; 7] = medians(rounds, |at| time(ipam, pools[at].1, count, at_once));
            for ((what, _), time) in pools.iter().zip(times) {
                let (rate, ratio) = (f64::from(count) / time, time / times[0]);
                println!("{place}, {what}, {count} {way}: {rate:.0} addresses a second, ratio of times {ratio:.2}");
            }
        }
        let large = LARGE.parse().expect("a network");
        let times: [f64; 5] = medians(rounds, |at| time(ipam, large, batches[at].max(count), batches[at]));
        for (size, time) in batches.iter().zip(times) {
            let rate = f64::from((*size).max(count)) / time;
            println!("{place}, /8, {size} at once: {rate:.0} addresses a second");
        }
    }
    println!("(medians of {rounds})");
}
