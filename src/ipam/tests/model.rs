//! The allocator against one that anybody can see through: a set of addresses, and a place to go on from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use proptest::prelude::*;

use super::*;
use crate::ipam::subnet::number;

/// What is done to a pool; addresses are numbers, brought into the pool's size.
#[derive(Debug, Clone)]
enum Op {
    Take { many: u16, commit: bool },
    TakeAtOnce { many: u16, commit: bool },
    TakeWanted { at: u128, commit: bool },
    Release { at: u128, as_owner: Option<bool> },
    ReleaseFrom { at: u128, many: u16 },
}

struct Model {
    subnet: Subnet,
    /// What is handed out.
    free: Vec<u128>,
    /// What can be had by asking for it.
    leasable: BTreeSet<u128>,
    leases: BTreeMap<u128, String>,
    next: u128,
}

impl Model {
    fn of(spec: &PoolSpec) -> Model {
        let subnet = Subnet::of(spec.subnet).expect("a subnet");
        let address = |offset| subnet.nth(offset).expect("inside");
        let is_leasable = |offset: &u128| {
            let ip = address(*offset);
            let reserved = spec.reserved.iter().any(|range| range.contains(ip));
            subnet.unusable(*offset).is_none() && spec.gateway != Some(ip) && !reserved
        };
        let leasable: BTreeSet<u128> = (0..=subnet.last()).filter(is_leasable).collect();
        let in_range = |offset: &&u128| spec.range.is_none_or(|range| range.contains(address(**offset)));
        let free = leasable.iter().filter(in_range).copied().collect();
        Model { subnet, free, leasable, leases: BTreeMap::new(), next: 0 }
    }

    fn next(&self) -> Option<u128> {
        let is_free = |at: &&u128| !self.leases.contains_key(at);
        let ahead = self.free.iter().filter(is_free).find(|at| **at >= self.next);
        ahead.or_else(|| self.free.iter().find(is_free)).copied()
    }
}

fn ops(fills: u16) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..=fills, prop::bool::weighted(0.9)).prop_map(|(many, commit)| Op::Take { many, commit }),
        2 => (1..=fills, prop::bool::weighted(0.9)).prop_map(|(many, commit)| Op::TakeAtOnce { many, commit }),
        2 => (any::<u128>(), prop::bool::weighted(0.9)).prop_map(|(at, commit)| Op::TakeWanted { at, commit }),
        3 => (any::<u128>(), any::<Option<bool>>()).prop_map(|(at, as_owner)| Op::Release { at, as_owner }),
        1 => (any::<u128>(), 1..=fills).prop_map(|(at, many)| Op::ReleaseFrom { at, many }),
    ];
    prop::collection::vec(op, 1..60)
}

/// Does all of it to both, and compares what they say and what they hold.
fn compare(spec: &PoolSpec, ops: &[Op]) -> std::result::Result<(), TestCaseError> {
    let store = Memory::default();
    let ipam = Ipam::new(&store);
    let mut model = Model::of(spec);
    if model.free.is_empty() {
        prop_assert_eq!(ipam.add_pool(spec).expect_err("nothing to hand out").kind(), Kind::Invalid);
        return Ok(());
    }
    ipam.add_pool(spec).expect("a pool");
    let subnet = model.subnet;
    let address = |at: u128| subnet.nth(at).expect("inside");
    for (number, op) in ops.iter().enumerate() {
        let owner = format!("c{}", number % 3);
        match op {
            Op::Take { many, commit } => {
                for _ in 0..*many {
                    let reserved = ipam.reserve(spec.subnet, None, &owner, NoPool::Refuse);
                    let Some(at) = model.next() else {
                        prop_assert_eq!(reserved.expect_err("all are leased").kind(), Kind::Exhausted);
                        break;
                    };
                    let reservation = reserved.expect("an address");
                    prop_assert_eq!(reservation.ip(), address(at));
                    if *commit {
                        reservation.commit().expect("a lease");
                        model.leases.insert(at, owner.clone());
                        model.next = at + 1;
                    }
                }
            }
            Op::TakeAtOnce { many, commit } => {
                let reserved = ipam.reserve_many(spec.subnet, (*many).into(), &owner, NoPool::Refuse);
                let (before, next) = (model.leases.clone(), model.next);
                let mut expected = Vec::new();
                while let Some(at) = model.next().filter(|_| expected.len() < usize::from(*many)) {
                    expected.push(at);
                    model.leases.insert(at, owner.clone());
                    model.next = at + 1;
                }
                if expected.len() == usize::from(*many) {
                    let batch = reserved.expect("addresses");
                    let ips: Vec<IpAddr> = batch.ips().collect();
                    prop_assert_eq!(ips, expected.iter().map(|at| address(*at)).collect::<Vec<_>>());
                    if *commit {
                        batch.commit().expect("leases");
                        continue;
                    }
                } else {
                    prop_assert_eq!(reserved.map(|_| ()).expect_err("too many").kind(), Kind::Exhausted);
                }
                (model.leases, model.next) = (before, next);
            }
            Op::TakeWanted { at, commit } => {
                let at = at & subnet.last();
                let reserved = ipam.reserve(spec.subnet, Some(address(at)), &owner, NoPool::Refuse);
                if !model.leasable.contains(&at) {
                    prop_assert_eq!(reserved.expect_err("nobody's").kind(), Kind::Invalid);
                } else if let Entry::Vacant(entry) = model.leases.entry(at) {
                    let reservation = reserved.expect("it is free");
                    if *commit {
                        reservation.commit().expect("a lease");
                        entry.insert(owner);
                    }
                } else {
                    prop_assert_eq!(reserved.expect_err("leased").kind(), Kind::Exists);
                }
            }
            Op::Release { at, as_owner } => {
                // Mostly one that is leased.
                let known: Vec<u128> = model.leases.keys().copied().collect();
                let at = known.get((at % (known.len() as u128 + 1)) as usize).copied().unwrap_or(at & subnet.last());
                let holder = model.leases.get(&at).cloned();
                let says = as_owner.map(|right| if right { holder.clone().unwrap_or(owner) } else { "nobody".into() });
                let released = ipam.release(spec.subnet, address(at), says.as_deref());
                if holder.is_some() && *as_owner == Some(false) {
                    prop_assert_eq!(released.expect_err("another's").kind(), Kind::Denied);
                } else {
                    prop_assert_eq!(released.expect("released"), model.leases.remove(&at).is_some());
                }
            }
            Op::ReleaseFrom { at, many } => {
                let from = at & subnet.last();
                let known: Vec<u128> = model.leases.range(from..).map(|(at, _)| *at).take((*many).into()).collect();
                for at in known {
                    prop_assert!(ipam.release(spec.subnet, address(at), None).expect("released"));
                    model.leases.remove(&at);
                }
            }
        }
        let leases = ipam.leases(spec.subnet).expect("leases");
        let leases: Vec<(IpAddr, String)> = leases.into_iter().map(|lease| (lease.ip, lease.owner)).collect();
        let expected: Vec<_> = model.leases.iter().map(|(at, owner)| (address(*at), owner.clone())).collect();
        prop_assert_eq!(leases, expected);
    }
    prop_assert_eq!(ipam.audit(&|_| true).expect("sound"), []);
    let usage = ipam.usage(spec.subnet).expect("usage");
    prop_assert_eq!(usage, Usage { used: model.leases.len() as u128, size: model.free.len() as u128 });
    ipam.remove_pool(spec.subnet, true).expect("removed");
    prop_assert!(store.dump().is_empty());
    Ok(())
}

/// A pool of one of some prefix lengths, of either family, with or without a gateway, a range and reserved addresses.
fn spec(v4: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = PoolSpec> {
    let more =
        (any::<Option<u16>>(), any::<Option<(u16, u16)>>(), prop::collection::vec((any::<u16>(), 0u16..40), 0..4));
    (v4, any::<bool>(), any::<u16>(), more).prop_map(|(prefix, six, place, (gateway, range, reserved))| {
        let size = 1u128 << (32 - prefix);
        let first = (u128::from(place) * size) & 0xff_ffff;
        let net = match six {
            false => IpNetwork::new(subnet::address(true, 0x0a00_0000 | first), prefix),
            true => IpNetwork::new(subnet::address(false, 0xfd << 120 | first), prefix + 96),
        };
        let subnet = Subnet::of(net.expect("a network")).expect("no host bits");
        let at = |n: u16| u128::from(n) % size;
        let address = |n: u128| subnet.nth(n.min(subnet.last())).expect("inside");
        let gateway = gateway.map(at).filter(|gateway| subnet.unusable(*gateway).is_none()).map(address);
        let range = range.map(|(a, b)| Range::new(address(at(a.min(b)).min(at(b))), address(at(a).max(at(b)))));
        let reserved = reserved
            .into_iter()
            .map(|(from, more)| Range::new(address(at(from)), address(at(from) + u128::from(more))).expect("in order"));
        PoolSpec {
            gateway,
            range: range.and_then(std::result::Result::ok),
            reserved: reserved.collect(),
            ..PoolSpec::new(subnet.net(), "web")
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn small_pools_do_as_the_model(spec in spec(24..=32), ops in ops(12)) {
        compare(&spec, &ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn pools_of_many_blocks_do_as_the_model(spec in spec(22..=23), ops in ops(300)) {
        compare(&spec, &ops)?;
    }

    #[test]
    fn pools_with_two_levels_of_marks_do_as_the_model(ops in ops(80)) {
        compare(&two_of_each(128), &ops)?;
    }
}

proptest! {
    #[test]
    fn a_free_subnet_is_the_one_that_a_search_finds(
        within in (20u8..=28, any::<u16>()),
        more in 0u8..=6,
        taken in prop::collection::vec((any::<u16>(), 22u8..=32), 0..12),
        six: bool,
    ) {
        let make = |place: u128, prefix: u8| {
            let (ip, prefix) = match six {
                false => (subnet::address(true, 0x0a00_0000 | place), prefix),
                true => (subnet::address(false, 0xfd << 120 | place), prefix + 96),
            };
            IpNetwork::new(ip, prefix).expect("a network")
        };
        let bits = if six { 96 } else { 0 };
        let (prefix, place) = within;
        let within = make(u128::from(place) << (32 - prefix) & 0xffff, prefix);
        let within = make(number(within.network()) & 0xffff, prefix);
        let wanted = (prefix + more).min(32) + bits;
        let taken: Vec<IpNetwork> =
            taken.iter().map(|(place, prefix)| make(u128::from(*place) & 0xffff, *prefix)).collect();
        let all = (0..1u128 << (wanted - within.prefix())).map(|n| {
            let first = number(within.ip()) | n << (32 + bits - wanted);
            IpNetwork::new(subnet::address(!six, first), wanted).expect("a network")
        });
        let free = |candidate: &IpNetwork| taken.iter().all(|net| !span(net).overlaps(span(candidate)));
        let expected = all.into_iter().find(free);
        let store = Memory::default();
        let found = Ipam::new(&store).free_subnet(within, wanted, &taken);
        prop_assert_eq!(found.ok(), expected);
    }
}
