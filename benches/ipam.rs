//! Addresses a second from pools of several sizes and fills, measured in turn in one run, on a disk and in memory.
//!
//! Run with `cargo bench --bench ipam`. An allocation is a lock, a look and a write that outlives a power cut; on a disk the
//! last takes most of the time (fsync), in /dev/shm none. Ratios are to the empty /24 of the same place.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, and stops where it can't be made")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use toposcript::lab::ipam::{Ipam, NoPool, PoolSpec};
use toposcript::lab::{LocalStore, Store};

const ROUNDS: usize = 5;
/// How many addresses a round takes; a fresh /24 has room for them.
const COUNT: usize = 200;

fn take(ipam: Ipam, subnet: IpNetwork) -> IpAddr {
    let reservation = ipam.reserve(subnet, None, "bench", NoPool::Make).expect("an address");
    reservation.commit().expect("a lease").ip
}

/// Takes the addresses of a round, and gives them back unmeasured.
fn time(ipam: Ipam, subnet: IpNetwork) -> Duration {
    let began = Instant::now();
    let taken: Vec<IpAddr> = (0..COUNT).map(|_| take(ipam, subnet)).collect();
    let time = began.elapsed();
    for ip in taken {
        ipam.release(subnet, ip, None).expect("released");
    }
    time
}

/// Copies a store: filling a /16 takes a while, and on a disk a long one.
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

/// Makes the pools in a directory in memory, the last two nearly full: once with room at the end, once with scattered holes.
fn pools(root: &Path) -> [(&'static str, IpNetwork); 6] {
    let pools = [
        ("/24, empty", "10.1.0.0/24"),
        ("/16, empty", "10.2.0.0/16"),
        ("/8, empty", "11.0.0.0/8"),
        ("IPv6 /64, empty", "fd00::/64"),
        ("/16, full but for the end", "10.3.0.0/16"),
        ("/16, full but for holes", "10.4.0.0/16"),
    ]
    .map(|(what, net)| (what, net.parse().expect("a network")));
    let store = LocalStore::open(root).expect("a store");
    let ipam = Ipam::new(&store);
    for (_, net) in pools {
        ipam.add_pool(&PoolSpec::new(net, "bench")).expect("a pool");
    }
    for (_, net) in &pools[4..] {
        for _ in 0..65_534 - 2 * COUNT {
            take(ipam, *net);
        }
    }
    // A hole in a block of its own each, but for a few.
    let (_, holes) = pools[5];
    for n in 0..COUNT as u32 {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 4, 0, 9)) + n * 320);
        assert!(ipam.release(holes, ip.into(), None).expect("released"));
    }
    // The end comes before the holes.
    for _ in 0..2 * COUNT {
        take(ipam, holes);
    }
    pools
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let pools = pools(memory.path());
    copy(memory.path(), disk.path());
    for (place, dir) in [("in memory", memory.path()), ("on the disk", disk.path())] {
        // A copy's directory has the mode that the umask gives.
        let store = LocalStore::open(dir).expect("a store");
        let store: &dyn Store = &store;
        let mut times = pools.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for ((_, net), times) in pools.iter().zip(&mut times) {
                times.push(time(Ipam::new(store), *net));
            }
        }
        let medians = times.map(|mut times| median(&mut times).as_secs_f64());
        for ((what, _), time) in pools.iter().zip(medians) {
            let (rate, ratio) = (COUNT as f64 / time, time / medians[0]);
            println!("{place}, {what}: {rate:.0} addresses a second, ratio of times {ratio:.2} (medians of {ROUNDS})");
        }
    }
}
