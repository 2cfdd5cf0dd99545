//! N14: many processes at work on networks at once.

use std::collections::BTreeSet;

use super::addresses::addresses;
use super::{in_network_world, network};
use crate::tier::spread;
use crate::world::{Ran, Running, World};

/// Starts all of `commands` at once, and returns what became of each.
fn at_once(w: &World, commands: &[String]) -> Vec<Ran> {
    let start = |words: &String| w.start_topo(&words.split_whitespace().collect::<Vec<_>>());
    let all: Vec<Running> = commands.iter().map(start).collect();
    all.into_iter().map(Running::wait).collect()
}

/// 20 processes connect 20 containers, each with a published port: all have an address of their own, and the rules are exact.
#[test]
fn n14_twenty_connect_at_once() {
    in_network_world("for n in $(seq 20); do ip netns add c$n; done", |w, _| {
        network(w, "create web --subnet 10.5.0.0/24").ok();
        let up = w.run("nft -s list ruleset").ok().stdout;
        let connect = |n| format!("network connect web c{n} --publish {}:80", 8000 + n);
        for ran in at_once(w, &(1..=20).map(connect).collect::<Vec<_>>()) {
            ran.ok();
        }
        let all = addresses(w, "web");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 20, "{all:?}");
        assert_eq!(all, (2..=21).map(|host| format!("10.5.0.{host}/24")).collect::<Vec<_>>());
        let rules = w.run("nft -s list ruleset").ok().stdout;
        for n in 1..=20 {
            assert_eq!(rules.matches(&format!("tcp . {} ", 8000 + n)).count(), 1, "{rules}");
        }
        // All in one map: no rule came with them.
        let lines =
            |text: &str| text.lines().filter(|line| !line.contains("tcp . ") && !line.contains("elements")).count();
        assert_eq!(lines(&rules), lines(&up), "{rules}");
        let disconnect = |n| format!("network disconnect web c{n}");
        for ran in at_once(w, &(1..=20).map(disconnect).collect::<Vec<_>>()) {
            ran.ok();
        }
        assert_eq!(lines(&w.run("nft -s list ruleset").ok().stdout), lines(&up));
        network(w, "rm web").ok();
    });
}

/// Of many that create one network, one does; the others are told that there is one.
#[test]
fn n14_one_name() {
    in_network_world("", |w, _| {
        let ran = at_once(w, &vec!["network create web".to_owned(); 8]);
        assert_eq!(ran.iter().filter(|ran| ran.code == 0).count(), 1, "{ran:?}");
        for refused in ran.into_iter().filter(|ran| ran.code != 0) {
            refused.fails(1).says("create network `web`: there is a network of this name");
        }
        network(w, "rm web").ok();
    });
}

/// Ten networks for which nobody asked for a subnet have ten.
#[test]
fn n14_ten_networks() {
    in_network_world("", |w, _| {
        for ran in at_once(w, &(0..10).map(|n| format!("network create net{n}")).collect::<Vec<_>>()) {
            ran.ok();
        }
        let listed = network(w, "ls").ok();
        let subnets: BTreeSet<&str> = listed.out().split_whitespace().filter(|word| word.contains('/')).collect();
        assert_eq!(subnets.len(), 10, "{}", listed.out());
        let rm: Vec<String> = (0..10).map(|n| format!("network rm net{n}")).collect();
        for ran in at_once(w, &rm) {
            ran.ok();
        }
    });
}

/// A container is connected while the network is removed: it is connected, and the removal refused, or the network is gone.
#[test]
fn n14_connect_against_remove() {
    in_network_world("ip netns add c1; ip netns add c2", |w, before| {
        for _ in spread(0..5, 2) {
            network(w, "create web").ok();
            let commands = ["network connect web c1", "network rm web", "network connect web c2"].map(str::to_owned);
            let ran = at_once(w, &commands);
            let [first, removed, second] = ran.as_slice() else { panic!("three") };
            if removed.code == 0 {
                for connect in [first, second] {
                    connect.clone().fails(1).says("there is no network of this name");
                }
                w.run("! test -e state/labs/net.web").ok();
            } else {
                removed.says("remove network `web`: connected to it: ");
                first.clone().ok();
                second.clone().ok();
                network(w, "rm --force web").ok();
            }
            w.assert_clean(before);
        }
    });
}

/// Two that connect one container give it one endpoint.
#[test]
fn n14_one_container() {
    in_network_world("ip netns add c1", |w, _| {
        network(w, "create web").ok();
        for ran in at_once(w, &vec!["network connect web c1".to_owned(); 6]) {
            ran.ok().says("eth0 has 10.224.0.2/24");
        }
        assert_eq!(addresses(w, "web").len(), 1);
        network(w, "rm --force web").ok();
    });
}

/// Two networks of one container are joined at once, and get a device each.
#[test]
fn n14_one_container_in_many_networks() {
    in_network_world("ip netns add c1", |w, _| {
        for n in 0..4 {
            network(w, &format!("create net{n}")).ok();
        }
        for ran in at_once(w, &(0..4).map(|n| format!("network connect net{n} c1")).collect::<Vec<_>>()) {
            ran.ok();
        }
        let routes = w.ip("-n c1 route");
        assert_eq!(routes.matches("default").count(), 1, "{routes}");
        assert_eq!(routes.lines().count(), 5, "{routes}");
        network(w, "rm --force net0 net1 net2 net3").ok();
    });
}

/// Looking, and collecting what is dead, disturbs nobody's work.
#[test]
fn n14_looking_disturbs_nobody() {
    in_network_world("for n in 1 2 3 4; do ip netns add c$n; done", |w, _| {
        network(w, "create web").ok();
        std::thread::scope(|scope| {
            for n in 1..=4 {
                scope.spawn(move || {
                    for _ in spread(0..4, 2) {
                        network(w, &format!("connect web c{n} --publish {}:80", 8080 + n)).ok();
                        network(w, &format!("disconnect web c{n}")).ok();
                    }
                });
            }
            for words in
                [["gc"].as_slice(), &["network", "ls"], &["network", "inspect", "web"], &["network", "repair", "web"]]
            {
                scope.spawn(move || {
                    for _ in spread(0..8, 3) {
                        let ran = w.topo(words).ok();
                        assert!(words != ["gc"] || ran.err() == "nothing was left behind\n", "{}", ran.err());
                    }
                });
            }
        });
        network(w, "rm web").ok();
    });
}
