//! What `topo network …` says when all goes well.

use expect_test::expect;
use serde_json::Value;

use super::{CONTAINERS, in_network_world, network};
use crate::cli::Terminal;

#[test]
fn the_life_of_a_network() {
    in_network_world(CONTAINERS, |w, _| {
        w.session(expect![[r#"
            $ topo network ls
            NAME  SUBNET  DRIVER  GATEWAY  STATE  ENDPOINTS  LABELS
            $ topo network ls --json
            []
            $ topo network create web --subnet 10.5.0.0/24 --label tier=front --label env=test
            network web: 10.5.0.0/24, gateway 10.5.0.1, driver bridge
            $ topo network connect web c1 --publish 8080:80 --alias front
            c1 is connected to web: eth0 has 10.5.0.2/24
            published 8080:80/tcp
            $ topo network connect web c2 --ip 10.5.0.9 --publish 127.0.0.1:5353:53/udp --publish 8000-8002:9000-9002
            c2 is connected to web: eth0 has 10.5.0.9/24
            published 127.0.0.1:5353:53/udp
            published 8000-8002:9000-9002/tcp
            $ topo network ls
            NAME  SUBNET       DRIVER  GATEWAY   STATE  ENDPOINTS  LABELS
            web   10.5.0.0/24  bridge  10.5.0.1  up     2          env=test,tier=front
            $ topo network ls --json
            [
              {
                "created": DATE,
                "driver": "bridge",
                "endpoints": 2,
                "gateway": [
                  "10.5.0.1"
                ],
                "internal": false,
                "labels": {
                  "env": "test",
                  "tier": "front"
                },
                "name": "web",
                "state": "up",
                "subnet": [
                  "10.5.0.0/24"
                ]
              }
            ]
            $ topo ls
            NAME     KIND     STATE  NETNS  DEVS  AGE  SCRIPT
            net.web  network  up     0      1     Ns   scripts/network/create.rhai
            $ topo network disconnect web front
            front is disconnected from web
            $ topo network disconnect web /run/netns/c2
            /run/netns/c2 is disconnected from web
            $ topo network rm web
            network web is removed
            $ topo network ls
            NAME  SUBNET  DRIVER  GATEWAY  STATE  ENDPOINTS  LABELS
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// All about a network, as JSON.
#[test]
fn inspect() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64 --label tier=front").ok();
        network(w, "connect web c2 --ip 10.5.0.9").ok();
        network(w, "connect web c1 --publish 8080:80 --alias front").ok();
        let shown = network(w, "inspect web").ok().stdout;
        let mut all: Value = serde_json::from_str(&shown).expect("JSON");
        // The rules are another test's matter.
        let rules = all["rules"].take();
        assert!(rules.as_array().is_some_and(|rules| rules.iter().all(|rule| rule["lab"] == "net.web")), "{rules}");
        all["created"].take();
        for endpoint in all["endpoints"].as_array_mut().expect("a list") {
            endpoint["created"].take();
            endpoint["id"].take();
        }
        expect![[r#"
            {
              "created": null,
              "dev": "br-web",
              "drift": [],
              "driver": "bridge",
              "endpoints": [
                {
                  "addresses": [
                    "10.5.0.2/24",
                    "fd00:5::3/64"
                  ],
                  "aliases": [
                    "front"
                  ],
                  "created": null,
                  "dev": "eth0",
                  "id": null,
                  "ports": [
                    "8080:80/tcp"
                  ],
                  "state": "up",
                  "target": "c1"
                },
                {
                  "addresses": [
                    "10.5.0.9/24",
                    "fd00:5::2/64"
                  ],
                  "aliases": [],
                  "created": null,
                  "dev": "eth0",
                  "id": null,
                  "ports": [],
                  "state": "up",
                  "target": "c2"
                }
              ],
              "internal": false,
              "lab": "net.web",
              "labels": {
                "tier": "front"
              },
              "mtu": null,
              "name": "web",
              "parent": null,
              "rules": null,
              "state": "up",
              "subnets": [
                {
                  "gateway": "10.5.0.1",
                  "subnet": "10.5.0.0/24"
                },
                {
                  "gateway": "fd00:5::1",
                  "subnet": "fd00:5::/64"
                }
              ],
              "used": [
                2,
                2
              ]
            }"#]]
        .assert_eq(&format!("{all:#}"));
        network(w, "rm --force web").ok();
    });
}

#[test]
fn several_networks_at_once() {
    in_network_world(CONTAINERS, |w, _| {
        w.session(expect![[r#"
            $ topo network create one
            network one: 10.224.0.0/24, gateway 10.224.0.1, driver bridge
            $ topo network create two --driver routed --ipv6 fd00:2::/64
            network two: 10.224.1.0/24, gateway 10.224.1.1, driver routed
            network two: fd00:2::/64, gateway fd00:2::1, driver routed
            $ topo network create three --driver isolated --subnet fd00:3::/64
            network three: fd00:3::/64, gateway fd00:3::1, driver isolated
            $ topo network create four --subnet 10.9.0.0/24 --gateway 10.9.0.254 --mtu 1400 --internal
            network four: 10.9.0.0/24, gateway 10.9.0.254, driver bridge
            $ topo network connect one c1
            c1 is connected to one: eth0 has 10.224.0.2/24
            $ topo network connect two c1
            c1 is connected to two: eth1 has 10.224.1.2/24
            c1 is connected to two: eth1 has fd00:2::2/64
            $ topo network connect three c1
            c1 is connected to three: eth2 has fd00:3::2/64
            $ topo network connect four c1
            c1 is connected to four: eth3 has 10.9.0.1/24
            $ topo network ls
            NAME   SUBNET                     DRIVER    GATEWAY               STATE  ENDPOINTS  LABELS
            four   10.9.0.0/24                bridge    10.9.0.254            up     1
            one    10.224.0.0/24              bridge    10.224.0.1            up     1
            three  fd00:3::/64                isolated  fd00:3::1             up     1
            two    10.224.1.0/24 fd00:2::/64  routed    10.224.1.1 fd00:2::1  up     1
            $ topo network repair
            four: nothing is amiss
            one: nothing is amiss
            three: nothing is amiss
            two: nothing is amiss
            $ nft flush ruleset
            $ topo network repair
            four: put back: add table `topo-XXXXXXXX-net.four`
            four: put back: add what all published ports need
            four: put back: make table `topo-XXXXXXXX-net.four` ready for published ports
            four: put back: drop what goes the way `forward`
            four: put back: drop what goes the way `forward`
            one: put back: add table `topo-XXXXXXXX-net.one`
            one: put back: make table `topo-XXXXXXXX-net.one` ready for published ports
            one: put back: masquerade `10.224.0.0/24`
            one: put back: accept what goes the way `forward`
            one: put back: accept what goes the way `forward`
            one: put back: drop what goes the way `forward`
            three: put back: add table `topo-XXXXXXXX-net.three`
            three: put back: make table `topo-XXXXXXXX-net.three` ready for published ports
            three: put back: drop what goes the way `forward`
            three: put back: drop what goes the way `forward`
            two: put back: add table `topo-XXXXXXXX-net.two`
            two: put back: make table `topo-XXXXXXXX-net.two` ready for published ports
            two: put back: set `net.ipv6.conf.all.forwarding` to `1`
            $ topo network restore
            four: it is up
            one: it is up
            three: it is up
            two: it is up
            $ topo network rm one two three four
            --- stderr
            error: remove networks: remove network `one`: connected to it: `c1` (10.224.0.2); remove network `two`: connected to it: `c1` (10.224.1.2); remove network `three`: connected to it: `c1` (fd00:3::2); remove network `four`: connected to it: `c1` (10.9.0.1)
            hint: disconnect them, or give `--force`
            --- exit code 1
            $ topo network rm one two three four --force
            network one is removed
            network two is removed
            network three is removed
            network four is removed
        "#]]);
    });
}

/// Networks are listed and removed by what they are labelled with; what a container is connected to stays.
#[test]
fn networks_are_selected_and_pruned() {
    in_network_world(CONTAINERS, |w, _| {
        let run = |words: &str| network(w, words).ok().stdout;
        run(
            "create web --subnet 10.5.0.0/24 --label tier=front --reserve 10.5.0.2 --route 10.9.0.0/16=10.5.0.7 --no-default-route",
        );
        run("create db --subnet 10.6.0.0/24 --label tier=back");
        run("create old --subnet 10.7.0.0/24 --label tier=back");
        assert_eq!(run("ls --quiet --filter label=tier=back"), "db\nold\n");
        network(w, "ls --filter colour=red").fails(1).says("it is none of label=KEY");
        assert_eq!(
            run("connect web c1 --sysctl net.ipv4.conf.IFNAME.log_martians=1"),
            "c1 is connected to web: eth0 has 10.5.0.3/24\n"
        );
        let seen = w.run("ip -n c1 route; ip netns exec c1 cat /proc/sys/net/ipv4/conf/eth0/log_martians").ok().stdout;
        assert!(
            seen.contains("10.9.0.0/16 via 10.5.0.7 dev eth0") && !seen.contains("default") && seen.ends_with("1\n"),
            "{seen}"
        );
        assert_eq!(run("prune --filter name=o"), "network old is removed\n");
        assert_eq!(run("prune"), "network db is removed\n");
        assert_eq!(run("ls --quiet"), "web\n");
        run("disconnect web c1");
        assert_eq!(run("prune"), "network web is removed\n");
    });
}
