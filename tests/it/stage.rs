//! What the crash and ownership tests share: a world that topo has used before and in which others have things too.

use std::collections::BTreeSet;

use super::tier::{full, points};
use super::world::{Ran, Snapshot, World};

/// Runs `test` in a world in which the shell script `others` made what isn't topo's, and checks that all is as before at
/// the end. The snapshot of "before" holds what topo keeps for ever: its empty state directory and its empty store.
pub(crate) fn in_used_world(others: &str, test: impl FnOnce(&World, &Snapshot)) {
    in_used(&World::new(), others, test);
}

/// The same for an ordinary user; `others` still runs as root.
pub(crate) fn in_used_user_world(others: &str, test: impl FnOnce(&World, &Snapshot)) {
    in_used(&World::unprivileged(), others, test);
}

fn in_used(world: &World, others: &str, test: impl FnOnce(&World, &Snapshot)) {
    world.topo(&["run", "--rm", "-e", USE_ALL]).ok();
    world.run_as_root(others).ok();
    let before = world.snapshot();
    test(world, &before);
    world.assert_clean(&before);
}

/// Makes something of each sort that the store keeps.
pub(crate) const USE_ALL: &str = r#"
    import "network" as network;
    network::create("used", #{ subnet: "10.254.254.0/24" });
    network::connect("used", netns("used"), #{ publish: ["1:1"] });"#;

/// Runs `topo ARGS` with the fault seam armed: `fail:3`, `kill:3` …
pub(crate) fn with_fault(w: &World, fault: &str, args: &[&str]) -> Ran {
    w.topo_env(&[("TOPO_FAULT", fault)], args)
}

/// Returns the sorts of steps that the journals of all labs have.
pub(crate) fn words_of_journals(w: &World) -> BTreeSet<String> {
    let journals = w.run("find state/labs -name journal -exec cat {} +").ok().stdout;
    let words = journals.split("\"word\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    words.map(str::to_owned).collect()
}

/// The exit code of a process that SIGKILL ended.
pub(crate) const KILLED: i32 = 128 + 9;

/// Collects what a `down` left that was killed at a point. Before its first two points, at which it notes what it is about to
/// do, nothing has been changed: the lab is still up, and goes by another `down`.
pub(crate) fn collect_cut_down(w: &World, point: u32, lab: &str) {
    w.topo(&["gc"]).ok();
    if point <= 2 {
        w.topo(&["down", lab]).ok();
    }
}

/// Runs statements as the lab `name`.
pub(crate) fn build(w: &World, name: &str, statements: &str) -> Ran {
    w.topo(&["run", "--name", name, "-e", statements])
}

/// Kills the same run, with `--rm`, at each of its points, or in the fast tier at some; `topo gc` then makes all as it was at `before`.
pub(crate) fn kill_at_each_point(w: &World, before: &Snapshot, statements: &str) {
    let mut killed = false;
    for point in points(statements) {
        let ran = with_fault(w, &format!("kill:{point}"), &["run", "--rm", "--name", "killed", "-e", statements]);
        // Shown only if the test fails.
        println!("point {point}: {}", ran.code);
        if ran.code != KILLED {
            assert!(killed || !full(), "nothing was changed, so nothing was tried");
            // What it ended with is another test's matter, as long as nothing stays.
            w.assert_clean(before);
            return;
        }
        killed = true;
        w.topo(&["gc"]).ok();
        w.assert_clean_so_far(before);
    }
}

/// Gives the machine another boot id, as a restart does.
pub(crate) fn restart(w: &World) {
    w.run("echo 00000000-0000-4000-8000-000000000001 >boot_id; mount --bind boot_id /proc/sys/kernel/random/boot_id")
        .ok();
}

/// Gives the machine the boot id back that it had.
pub(crate) fn end_restart(w: &World) {
    w.run("umount /proc/sys/kernel/random/boot_id; rm boot_id").ok();
}
