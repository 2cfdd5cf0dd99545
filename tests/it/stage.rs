//! What the crash and ownership tests share: a world that topo has used before and in which others have things too.

use super::world::{Ran, Snapshot, World};

/// Runs `test` in a world in which the shell script `others` made what isn't topo's, and checks that all is as before at
/// the end. The snapshot of "before" holds what topo keeps for ever: its empty state directory.
pub(crate) fn in_used_world(others: &str, test: impl FnOnce(&World, &Snapshot)) {
    in_used(&World::new(), others, test);
}

/// The same for an ordinary user; `others` still runs as root.
pub(crate) fn in_used_user_world(others: &str, test: impl FnOnce(&World, &Snapshot)) {
    in_used(&World::unprivileged(), others, test);
}

fn in_used(world: &World, others: &str, test: impl FnOnce(&World, &Snapshot)) {
    world.topo(&["gc"]).ok();
    world.run_as_root(others).ok();
    let before = world.snapshot();
    test(world, &before);
    world.assert_clean(&before);
}

/// Runs `topo ARGS` with the fault seam armed: `fail:3`, `kill:3` …
pub(crate) fn with_fault(w: &World, fault: &str, args: &[&str]) -> Ran {
    w.topo_env(&[("TOPO_FAULT", fault)], args)
}

/// The exit code of a process that SIGKILL ended.
pub(crate) const KILLED: i32 = 128 + 9;
