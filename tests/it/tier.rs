//! The two tiers of tests. The fast one, `cargo test`, shows each rule at least once. The full one,
//! `FULL_TESTS=1 cargo test -- --include-ignored`, tries every instance of each rule. Both are one program: nothing is built twice.
//!
//! A test that only repeats a rule at more instances is ignored in the fast tier:
//! `#[ignore = "full tier"]`. A loop over instances takes some of them, by the functions here.

use std::sync::LazyLock;

/// Tells whether this is the full tier.
pub(crate) fn full() -> bool {
    static FULL: LazyLock<bool> = LazyLock::new(|| std::env::var_os("FULL_TESTS").is_some_and(|set| set == "1"));
    *FULL
}

/// Each how manieth operation is cut short in the fast tier.
const STRIDE: usize = 6;

/// Returns all instances, or in the fast tier `some` of them: the first, the last, and others at even distances.
pub(crate) fn spread<T>(all: impl IntoIterator<Item = T>, some: usize) -> Vec<T> {
    spread_in(full(), all, some)
}

fn spread_in<T>(full: bool, all: impl IntoIterator<Item = T>, some: usize) -> Vec<T> {
    let all: Vec<T> = all.into_iter().collect();
    if full || all.len() <= some {
        return all;
    }
    let (last, gaps) = (all.len() - 1, some.saturating_sub(1).max(1));
    let chosen: Vec<usize> = (0..some).map(|n| n * last / gaps).collect();
    all.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, one)| one).collect()
}

/// Returns the numbers of the operations at which a run is cut short, without an end: all, or in the fast tier some. Which ones depends on
/// `what`, so that runs that resemble each other are cut short at different ones.
pub(crate) fn points(what: &str) -> impl Iterator<Item = u32> {
    points_in(full(), what)
}

fn points_in(full: bool, what: &str) -> impl Iterator<Item = u32> {
    let stride = if full { 1 } else { STRIDE };
    let first = 1 + (what.bytes().map(usize::from).sum::<usize>() % stride) as u32;
    (first..).step_by(stride)
}

/// Returns the stride of a loop over operations that is `stride` in the full tier.
pub(crate) fn stride(stride: usize) -> usize {
    if full() { stride } else { stride * STRIDE }
}

/// The full tier leaves nothing out; the fast one has the first and the last instance, and no point twice.
#[test]
fn the_full_tier_has_all() {
    assert_eq!(spread_in(true, 1..=9, 2), (1..=9).collect::<Vec<_>>());
    assert_eq!(spread_in(false, 1..=9, 3), [1, 5, 9]);
    assert_eq!(spread_in(false, 1..=9, 2), [1, 9]);
    assert_eq!(spread_in(false, 1..=9, 1), [1]);
    assert_eq!(spread_in(false, 1..=2, 5), [1, 2]);
    assert_eq!(points_in(true, "any").take(3).collect::<Vec<_>>(), [1, 2, 3]);
    let firsts: std::collections::BTreeSet<u32> =
        ["a", "b", "c", "d", "e", "f"].iter().filter_map(|what| points_in(false, what).next()).collect();
    assert_eq!(firsts, (1..=STRIDE as u32).collect());
}
