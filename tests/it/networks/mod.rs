//! The life of container networks, at the level of the command: made, joined, left, removed, restored, and refused. Tests whose
//! names begin with a letter and a number are about that known fault of hand-made networks.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `commands.rs` | what `topo network …` says when all goes well |
//! | `help.rs` | its help, and words that are missing |
//! | `refused.rs` | networks that can't be made, found or removed |
//! | `unjoined.rs` | containers that can't be connected |
//! | `container.rs` | what a container is beside an address: N15 to N17 |
//! | `damaged.rs` | stores that can't be read |
//! | `broken.rs` | what others delete and change, and containers that have ended |
//! | `addresses.rs` | which addresses are handed out, to whom, and how they come back |
//! | `collected.rs` | what `topo gc` frees, and what it leaves |
//! | `life.rs` | obstacles, names, containers that end, repeated connects |
//! | `at_once.rs` | many processes at work at once |
//! | `restart.rs` | after a restart of the machine |
//! | `drivers.rs` | what each driver lets through, and drivers of one's own |
//! | `ways.rs` | several networks in one container: which gives the default route, N18 |
//! | `size.rs` | what many networks and large ones cost: lists, connections |
//! | `scripts.rs` | networks of a script's own, in a sandbox too |

mod addresses;
mod at_once;
mod broken;
mod collected;
mod commands;
mod container;
mod damaged;
mod drivers;
mod help;
mod life;
mod refused;
mod restart;
mod scripts;
mod size;
mod unjoined;
mod ways;

use std::time::Duration;

use expect_test::Expect;

use crate::cli::Terminal;
use crate::world::{Ran, Running, Snapshot, World};

/// Runs `test` in a world in which topo has had a network before, and checks that all is as before at the end. The snapshot
/// of "before" holds what topo keeps for ever: its directories, and the locks of what all networks share.
fn in_network_world(others: &str, test: impl FnOnce(&World, &Snapshot)) {
    let world = used_world(others);
    let before = world.snapshot();
    test(&world, &before);
    world.assert_clean(&before);
}

/// Makes a world in which topo has had a network before; `others` is what others made in it.
fn used_world(others: &str) -> World {
    let world = World::new();
    world.run("ip netns add first").ok();
    world.topo(&["network", "create", "first"]).ok();
    world.topo(&["network", "connect", "first", "first", "--publish", "1:1"]).ok();
    world.topo(&["network", "rm", "--force", "first"]).ok();
    world.run("ip netns del first").ok();
    // Where full blocks of a pool are marked, which takes 64 addresses.
    world.run("mkdir -m 700 state/store/full").ok();
    world.run(others).ok();
    world
}

/// What others made in most tests here: containers, as namespaces with a name.
/// Their loopback is up from the start, as every connection leaves it.
const CONTAINERS: &str = "for c in c1 c2 c3; do ip netns add $c; ip -n $c link set lo up; done";

/// Makes a network with a container.
fn make_web(w: &World) {
    network(w, "create web --subnet 10.5.0.0/24").ok();
    network(w, "connect web c1").ok();
}

/// Runs commands that are refused: what they say, and that they change nothing.
fn nothing_happens(w: &World, transcript: Expect) {
    let before = w.snapshot();
    w.session(transcript);
    w.assert_clean(&before);
}

/// Runs `topo network WORDS`.
fn network(w: &World, words: &str) -> Ran {
    let words: Vec<&str> = words.split_whitespace().collect();
    w.topo(&[&["network"], words.as_slice()].concat())
}

/// Starts a container that has no name: a process in a namespace of its own; returns it with its process id in the world.
fn anonymous(w: &World) -> (Running, String) {
    let container = w.start_run("exec unshare -n sh -c 'echo $$ >pid; echo ready; exec sleep 1000'");
    container.wait_for_output("ready", Duration::from_secs(20));
    let pid = w.run("cat pid").ok().out().trim().to_owned();
    (container, pid)
}
