//! The stack of the thread that runs scripts. rhai counts calls, and the depth of expressions within each; both together can need
//! more than there is, and the process would end by a signal.

use std::cell::Cell;

use crate::state::{Error, Kind};

thread_local! {
    /// Where the stack stood when the run began, and how much of it may be used from there, in bytes.
    static BOUNDS: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The largest stack that is reckoned with, whatever the limit says: where there is none, mappings stand in its way.
const BYTES_MAX: u64 = 64 << 20;

/// Notes that a script begins here.
pub(super) fn begin() {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_STACK);
    let limit = limit.map_or(BYTES_MAX, |(soft, _)| soft.min(BYTES_MAX));
    // A quarter is left for what goes deep between two looks: the compiler, a comparison of nested lists.
    let usable = usize::try_from(limit / 4 * 3).unwrap_or(usize::MAX);
    if BOUNDS.get().is_none() {
        BOUNDS.set(Some((here(), usable)));
    }
}

/// Returns the error of a script that is nested too deep to go on.
pub(super) fn exceeded() -> Option<Error> {
    let (start, usable) = BOUNDS.get()?;
    (start.saturating_sub(here()) > usable).then(|| {
        Error::new(Kind::Exhausted, "run the script")
            .because("its calls are nested too deep for the stack")
            .hint("does a function call itself without end? `ulimit -s` shows the limit of the stack")
    })
}

/// Returns about where the stack stands.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    std::hint::black_box(&raw const local) as usize
}
