//! After a restart of the machine: what the kernel had is gone, and `/run`; what is in the store is there.

use std::path::Path;

use expect_test::expect;

use crate::cli::Terminal;
use crate::world::{Ran, Snapshot, World};

/// A machine that can be restarted: a store, and a world after the other around it.
struct Machine {
    store: tempfile::TempDir,
    boots: u32,
}

impl Machine {
    fn new() -> Machine {
        Machine { store: tempfile::Builder::new().prefix("topo-store-").tempdir().expect("a store"), boots: 0 }
    }

    fn store(&self) -> String {
        self.store.path().join("store").display().to_string()
    }

    /// Starts the machine: an empty world, with an id of its own for this boot.
    fn boot(&mut self) -> Booted {
        self.boots += 1;
        let world = World::new();
        let id = world.write("boot_id", &format!("00000000-0000-4000-8000-{:012}\n", self.boots));
        world.run(&format!("mount --bind {} /proc/sys/kernel/random/boot_id", id.display())).ok();
        world.topo(&["gc"]).ok();
        Booted { world, store: self.store() }
    }
}

/// A machine between two restarts.
struct Booted {
    world: World,
    store: String,
}

impl Booted {
    fn topo(&self, words: &str) -> Ran {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.world.topo_env(&[("TOPO_STORE", &self.store)], &words)
    }

    fn network(&self, words: &str) -> Ran {
        self.topo(&format!("network {words}"))
    }

    fn run(&self, script: &str) -> Ran {
        self.world.run(script)
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let shown = self.network(&format!("inspect {name}")).ok().stdout;
        let all: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let endpoints = all["endpoints"].as_array().expect("a list");
        endpoints
            .iter()
            .map(|endpoint| format!("{} {} {}", endpoint["target"], endpoint["addresses"], endpoint["state"]))
            .collect()
    }

    /// Compares what is seen of commands, as [`Terminal::session`] does, with this machine's store.
    fn session(&self, transcript: expect_test::Expect) {
        self.world.session_env(&[("TOPO_STORE", &self.store)], transcript);
    }

    fn snapshot(&self) -> Snapshot {
        self.world.snapshot()
    }
}

fn tree(store: &str) -> String {
    let ran = std::process::Command::new("sh")
        .args([
            "-c",
            "cd \"$1\" && find . -type f ! -name '*.lock' | sort | while read -r f; do echo \"$f\"; cat \"$f\"; done",
            "sh",
            store,
        ])
        .output()
        .expect("list a store");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

const CONTAINERS: &str = "for c in c1 c2 c3; do ip netns add $c; done";

/// Makes a machine with a network and two containers, and turns it off.
fn before_restart() -> Machine {
    let mut machine = Machine::new();
    let first = machine.boot();
    first.run(CONTAINERS).ok();
    first.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64 --label tier=front").ok();
    first.network("connect web c1 --publish 8080:80 --publish 53:53/udp --alias front").ok();
    first.network("connect web c2 --ip 10.5.0.9").ok();
    machine
}

#[test]
fn a_network_is_restored() {
    let mut machine = before_restart();
    let w = machine.boot();
    let kept = tree(&w.store);
    assert_eq!(w.topo("gc").ok().err(), "nothing was left behind\n");
    assert_eq!(tree(&w.store), kept);
    w.run("ip netns add c1; ip netns add c3").ok();
    w.session(expect![[r#"
        $ topo network ls
        NAME  SUBNET                   DRIVER  GATEWAY             STATE  ENDPOINTS  LABELS
        web   10.5.0.0/24 fd00:5::/64  bridge  10.5.0.1 fd00:5::1  down   2          tier=front
        $ topo network connect web c3
        --- stderr
        error: use network `web`: nothing of it is in the kernel: the machine was restarted, or its lab was taken down
        hint: `topo network restore web` builds it again, with its addresses as they were
        --- exit code 1
        $ topo network repair web
        --- stderr
        error: use network `web`: nothing of it is in the kernel: the machine was restarted, or its lab was taken down
        hint: `topo network restore web` builds it again, with its addresses as they were
        --- exit code 1
        $ topo network repair
        $ topo network create web
        --- stderr
        error: create network `web`: there is a network of this name, with driver `bridge`
        hint: `topo network inspect web` shows it, `topo network rm web` removes it
        --- exit code 1
        $ topo network create two --subnet 10.5.0.0/25
        --- stderr
        error: make the pool `10.5.0.0/25`: it overlaps the pool `10.5.0.0/24` of `net.web`
        hint: take another subnet; `ipam_subnet` finds a free one
        --- exit code 1
        $ topo network restore
        web: network `web` is up again
        web: `c1` is connected again, as 10.5.0.2
        web: `c2` is not there: its address 10.5.0.9 waits for it
        $ topo network ls
        NAME  SUBNET                   DRIVER  GATEWAY             STATE  ENDPOINTS  LABELS
        web   10.5.0.0/24 fd00:5::/64  bridge  10.5.0.1 fd00:5::1  up     2          tier=front
        $ topo network restore web
        web: `c2` is not there: its address 10.5.0.9 waits for it
        $ topo network connect web c3
        c3 is connected to web: eth0 has 10.5.0.3/24
        c3 is connected to web: eth0 has fd00:5::4/64
    "#]]);
    assert_eq!(
        w.addresses("web"),
        [
            r#""c1" ["10.5.0.2/24","fd00:5::2/64"] "up""#,
            r#""c3" ["10.5.0.3/24","fd00:5::4/64"] "up""#,
            r#""c2" ["10.5.0.9/24","fd00:5::3/64"] "down""#
        ]
    );
    w.run("nft -s list ruleset | grep 'tcp . 8080 '; nft -s list ruleset | grep 'udp . 53 '").ok();
    w.run("ip netns exec c1 ping -c 1 -W 2 10.5.0.1; ip netns exec c3 ping -6 -c 1 -W 2 fd00:5::2").ok();
    assert_eq!(w.topo("gc").ok().err(), "nothing was left behind\n");

    // The one that was not there yet comes, and is restored then.
    w.run("ip netns add c2").ok();
    w.session(expect![[r#"
        $ topo network restore web
        web: `c2` is connected again, as 10.5.0.9
        $ topo network disconnect web front
        front is disconnected from web
        $ topo network rm --force web
        network web is removed
    "#]]);
    assert_eq!(tree(&w.store), "");
    w.run("test \"$(ip -o link | wc -l)\" = 1; test -z \"$(nft list ruleset)\"; test -z \"$(ls -A state/labs)\"").ok();
}

/// A container that waits can be given up, and its address is free then.
#[test]
fn an_endpoint_that_waits_is_disconnected() {
    let mut machine = before_restart();
    let w = machine.boot();
    w.network("restore web").ok().says("its address 10.5.0.2 waits for it").says("its address 10.5.0.9 waits for it");
    w.run("ip netns add c3").ok();
    w.network("connect web c3 --ip 10.5.0.9").fails(1).says("c2` holds it");
    w.network("disconnect web c2").ok();
    w.network("connect web c3 --ip 10.5.0.9").ok();
    w.network("rm web").fails(1).says("`c1` (10.5.0.2), `c3` (10.5.0.9)");
    w.network("rm --force web").ok();
    assert_eq!(tree(&w.store), "");
}

/// A network that is down can be removed without being restored.
#[test]
fn a_network_that_is_down_is_removed() {
    let mut machine = before_restart();
    let w = machine.boot();
    let clean = w.snapshot();
    w.network("rm web").fails(1).says("connected to it: `c1` (10.5.0.2), `c2` (10.5.0.9)");
    w.network("disconnect web c1").ok();
    w.network("rm --force web").ok();
    assert_eq!(tree(&w.store), "");
    w.world.assert_clean(&clean);
    w.network("create web --subnet 10.5.0.0/24").ok();
    w.network("rm web").ok();
}

/// What stands in the way of the restored network is named, and nothing stays; the addresses are kept all the while.
#[test]
fn a_restore_that_fails_can_be_tried_again() {
    let mut machine = before_restart();
    let w = machine.boot();
    let kept = tree(&w.store);
    w.run("ip link add br-web type bridge; ip netns add c1; ip -n c1 link add eth0 type bridge").ok();
    let mess = w.snapshot();
    w.network("restore web").fails(1).says("`br-web`");
    assert_eq!(tree(&w.store), kept);
    w.world.assert_clean(&mess);
    w.run("ip link del br-web").ok();
    w.network("restore web").fails(1).says("it has a device `eth0` already");
    assert!(w.network("ls").ok().out().contains(" up "));
    w.run("ip -n c1 link del eth0").ok();
    w.network("restore web").ok().says("`c1` is connected again, as 10.5.0.2");
    w.network("rm --force web").ok();
}

/// A state directory that outlives the restart holds labs of before it: `gc` removes them, and keeps what networks have.
#[test]
fn a_state_directory_that_outlives_a_restart() {
    let mut machine = before_restart();
    for gc_first in [true, false] {
        let w = machine.boot();
        w.run("mkdir -m 700 -p old").ok();
        let old = w.world.dir().join("old").display().to_string();
        let env = [("TOPO_STORE", w.store.as_str()), ("TOPO_STATE", old.as_str())];
        let topo = |words: &str| w.world.topo_env(&env, &words.split_whitespace().collect::<Vec<_>>());
        w.run(CONTAINERS).ok();
        topo("network restore").ok();
        // As if the machine had been restarted just now.
        crate::stage::restart(&w.world);
        w.run("nft flush ruleset; ip link del br-web").ok();
        w.run("for c in c1 c2 c3; do ip netns del $c; ip netns add $c; done").ok();
        let leases = |w: &Booted| w.run(&format!("cat {}/leases/*/*", w.store)).ok().stdout;
        let kept = leases(&w);
        if gc_first {
            topo("gc").ok().says("removed lab `net.web`");
            assert_eq!(leases(&w), kept);
        }
        topo("network ls").ok().says(" down ");
        topo("network restore")
            .ok()
            .says("`c1` is connected again, as 10.5.0.2")
            .says("`c2` is connected again, as 10.5.0.9");
        topo("gc").ok();
        assert_eq!(leases(&w), kept);
        assert_eq!(topo("network ls").ok().out().matches(" up ").count(), 1);
    }
}

/// What a script's own lab had goes with a restart: its networks too, which nobody restores.
#[test]
fn a_scripts_own_network_is_gone_after_a_restart() {
    let mut machine = Machine::new();
    let first = machine.boot();
    let script = r#"import "network" as network; network::create("lab", #{ subnet: "10.5.0.0/24" }); network::connect("lab", netns("h1"));"#;
    first.world.topo_env(&[("TOPO_STORE", &first.store)], &["run", "--name", "own", "-e", script]).ok();
    drop(first);
    let w = machine.boot();
    w.network("ls").ok().says("lab   10.5.0.0/24").says(" down ");
    w.network("rm --force lab").ok();
    assert_eq!(tree(&w.store), "");
    assert!(Path::new(&w.store).is_dir());
}
