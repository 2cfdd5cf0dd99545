//! What hand-made networks get wrong between `create` and `rm`.

use std::time::Duration;

use super::addresses::addresses;
use super::{CONTAINERS, anonymous, in_network_world, make_web, network};
use crate::world::World;

/// All that a namespace has of a network.
fn inside(w: &World, name: &str) -> String {
    let shown = w.run(&format!(
        "ip -n {name} -o link | grep -v 'lo:' || true; ip -n {name} -o addr; ip -n {name} route show table all; ip -n {name} -6 route show table all; ip -n {name} neigh"
    ));
    shown.ok().stdout
}

/// N1: a device of somebody else, in the place of the network's bridge, is not taken over.
#[test]
fn n1_a_bridge_of_somebody_else() {
    let others =
        "ip netns add c1; ip link add br-web type bridge; ip link set br-web up; ip addr add 10.9.0.1/24 dev br-web";
    in_network_world(others, |w, before| {
        network(w, "create web --subnet 10.5.0.0/24")
            .fails(1)
            .says("there is a device `br-web` already")
            .says("hint: ");
        w.assert_clean(before);
        network(w, "connect web c1").fails(1).says("find network `web`");
        w.assert_clean(before);
        // Nor one of another state directory's.
        let elsewhere = w.dir().join("elsewhere").display().to_string();
        let env = [("TOPO_STATE", elsewhere.as_str())];
        w.topo_env(&env, &["network", "create", "db", "--subnet", "10.6.0.0/24"]).ok();
        let theirs = w.snapshot();
        network(w, "create db --subnet 10.7.0.0/24").fails(1).says("`br-db`");
        network(w, "create db --subnet 10.6.0.0/24").fails(1).says("10.6.0.1/24");
        network(w, "rm db").fails(1).says("find network `db`");
        w.topo(&["gc"]).ok();
        w.assert_clean(&theirs);
        w.topo_env(&env, &["network", "rm", "db"]).ok();
    });
}

/// N1: a bridge that was replaced since is not joined, and not removed.
#[test]
fn n1_a_bridge_that_was_replaced() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create web --subnet 10.5.0.0/24").ok();
        w.run("ip link del br-web; ip link add br-web type bridge").ok();
        network(w, "connect web c1").fails(1).says("its bridge was replaced").says("topo network rm --force web");
        network(w, "rm web").ok();
        w.run("ip link show br-web; ip link del br-web").ok();
    });
}

/// N2: whatever stands in the way, nothing is left of what was made before it.
#[test]
fn n2_obstacles() {
    in_network_world(CONTAINERS, |w, before| {
        // The bridge's table, its port's name, the container's device, its route, the port of the host.
        w.run("ip link add br-web type dummy 2>/dev/null || ip link add br-web type bridge").ok();
        network(w, "create web --subnet 10.5.0.0/24").fails(1);
        w.run("ip link del br-web").ok();
        w.assert_clean(before);

        network(w, "create web --subnet 10.5.0.0/24").ok();
        w.run("ip -n c1 link add eth0 type veth peer name eth1; ip -n c1 addr add 10.5.0.2/24 dev eth0").ok();
        let mess = inside(w, "c1");
        network(w, "connect web c2").ok();
        network(w, "disconnect web c2").ok();
        let up = w.snapshot();
        network(w, "connect web c1 --ip 10.5.0.9").ok().says("eth2 has 10.5.0.9/24");
        network(w, "disconnect web c1").ok();
        assert_eq!(inside(w, "c1"), mess);
        w.assert_clean(&up);

        let listener = w.start_run("exec python3 -c \"import socket; s = socket.socket(); s.bind(('0.0.0.0', 8080)); s.listen(); print('ready', flush=True); s.accept()\"");
        listener.wait_for_output("ready", Duration::from_secs(20));
        let alone = inside(w, "c3");
        let busy = w.snapshot();
        let ran = network(w, "connect web c3 --ip 10.5.0.9 --publish 9090:90 --publish 8080:80").fails(1);
        ran.says("8080").says("python3").says("hint: ");
        assert_eq!(inside(w, "c3"), alone);
        w.assert_clean(&busy);
        drop(listener);
        network(w, "connect web c3 --ip 10.5.0.9 --publish 9090:90 --publish 8080:80").ok();
        network(w, "rm --force web").ok();
        assert_eq!(inside(w, "c3"), alone);
    });
}

/// N2, of a container that ends while it is being connected: before its device is made, and after.
#[test]
fn n2_a_container_that_ends_meanwhile() {
    in_network_world("", |w, _| {
        for at in ["first", "last"] {
            let end = r#"host.exec(`kill ${endpoint.target}; while test -e /proc/${endpoint.target}/ns/net; do sleep 0.01; done`);"#;
            let (first, last) = if at == "first" { (end, "") } else { ("", end) };
            let driver = format!(
                r#"//! A driver whose containers end.
                   import "drivers/bridge" as bridge_driver;
                   fn create(network) {{ bridge_driver::create(network) }}
                   fn delete(network) {{}}
                   fn connect(network, endpoint, ns) {{ {first} bridge_driver::connect(network, endpoint, ns); settle(); {last} }}
                   fn disconnect(network, endpoint) {{}}"#
            );
            w.write("lib/drivers/deadly.rhai", &driver);
            let lib = w.dir().join("lib").display().to_string();
            let env = [("TOPO_STDLIB", lib.as_str())];
            w.topo_env(&env, &["network", "create", "web", "--driver", "deadly"]).ok();
            // Twice: what a bridge is like follows from its first port.
            for _ in 0..2 {
                let up = w.snapshot();
                let (container, pid) = anonymous(w);
                let ran = w.topo_env(&env, &["network", "connect", "web", &pid, "--ip", "10.224.0.9"]).fails(1);
                ran.says(&format!("connect `{pid}` to network `web`: it ended meanwhile"));
                container.wait();
                assert_eq!(w.topo(&["gc"]).ok().err(), "nothing was left behind\n");
                assert!(!w.run("ls -A state/labs").ok().out().contains("net.web."));
                if up.diff(&w.snapshot()).contains("tso_max_size") {
                    continue;
                }
                w.assert_clean(&up);
            }
            w.topo_env(&env, &["network", "rm", "web"]).ok();
        }
    });
}

/// N4: `rm --force` disconnects all, also one that has ended.
#[test]
fn n4_force_disconnects_first() {
    in_network_world("for c in c2 c3; do ip netns add $c; ip -n $c link set lo up; done", |w, _| {
        let alone = inside(w, "c2");
        w.run("ip netns add c1").ok();
        network(w, "create web --subnet 10.5.0.0/24").ok();
        for (n, c) in ["c1", "c2", "c3"].into_iter().enumerate() {
            network(w, &format!("connect web {c} --publish 808{n}:80/udp")).ok();
        }
        network(w, "rm web").fails(1).says("`c1` (10.5.0.2), `c2` (10.5.0.3), `c3` (10.5.0.4)").says("--force");
        w.run("ip netns del c1").ok();
        network(w, "rm --force web").ok();
        assert_eq!(inside(w, "c2"), alone);
    });
}

/// N5, N6: long names, and names with one beginning.
#[test]
fn n5_n6_names_of_all_lengths() {
    in_network_world("", |w, before| {
        for length in crate::tier::spread([1, 12, 13, 15, 16, 60, 80, 81, 100, 127], 5) {
            let (a, b) = (format!("{}a", "n".repeat(length - 1)), format!("{}b", "n".repeat(length - 1)));
            w.run(&format!("ip netns add {a}; ip netns add {b}")).ok();
            for name in [&a, &b] {
                network(w, &format!("create {name}")).ok();
                network(w, &format!("connect {name} {a} --publish {}:80", if name == &a { 8080 } else { 8081 })).ok();
                network(w, &format!("connect {name} {b}")).ok();
                // Beyond that the device's own full name would be too long.
                if length <= 124 {
                    w.run(&format!("ip link show br-{name}")).ok();
                }
            }
            let other = addresses(w, &a).get(1).expect("two").split('/').next().expect("an address").to_owned();
            w.run(&format!("ip netns exec {a} ping -c 1 -W 2 {other}")).ok();
            let listed = network(w, "ls").ok();
            assert!([&a, &b].iter().all(|name| listed.out().contains(name.as_str())), "{}", listed.out());
            assert!(w.ip("-o link").lines().count() == 7, "{}", w.ip("-o link"));
            network(w, &format!("disconnect {a} {b}")).ok();
            network(w, &format!("rm --force {a} {b}")).ok();
            w.run(&format!("ip netns del {a}; ip netns del {b}")).ok();
            w.assert_clean(before);
        }
    });
}

/// N9: when `connect` is back, the first packet arrives.
#[test]
fn n9_the_first_packet_arrives() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64").ok();
        network(w, "connect web c1").ok();
        w.run("ip netns exec c1 ping -c 1 -W 1 10.5.0.1").ok();
        network(w, "connect web c2").ok();
        w.run("ip netns exec c2 ping -6 -c 1 -W 1 fd00:5::2").ok();
        network(w, "rm --force web").ok();
    });
}

/// N11: after errors on the way, the process and all its threads are in the namespace in which they began.
#[test]
fn n11_no_namespace_leaks() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        let script = r#"
            import "network" as network;
            let where = || host.exec("for t in /proc/$PPID/task/*; do readlink $t/ns/net; done | sort -u; readlink /proc/self/ns/net").stdout;
            let before = where.call();
            for target in ["c2", "c9", 999999, "/proc/1/ns/mnt", "/proc/1/ns/net"] {
                for options in [#{ ip: "10.5.0.1" }, #{ ip: "10.5.0.2" }, #{ publish: ["192.0.2.1:1:1"] }, #{ dev: "lo" }, #{ dev: "../x" }] {
                    let failed = false;
                    try { network::connect("web", target, options); } catch { failed = true; }
                    assert(failed, `${target} ${options}`);
                }
            }
            check("all threads are where they were", where.call() == before);
            check("the host's devices are the host's", host.devs().map(|d| d.name).contains("br-web"));"#;
        w.topo(&["run", "--rm", "-e", script]).ok();
        network(w, "rm --force web").ok();
    });
}

/// N12: a container that is gone already is no hindrance: the host's side goes all the same.
#[test]
fn n12_a_container_that_is_gone() {
    in_network_world("", |w, before| {
        let end_all: [&[&[&str]]; 4] = [
            &[&["network", "disconnect", "web", "c1"], &["network", "rm", "web"]],
            &[&["network", "rm", "--force", "web"]],
            &[&["gc"], &["network", "rm", "web"]],
            &[&["down", "net.web"]],
        ];
        for end in end_all {
            w.run("ip netns add c1").ok();
            network(w, "create web --subnet 10.5.0.0/24").ok();
            network(w, "connect web c1 --publish 8080:80 --publish 53:53/udp").ok();
            w.run("ip netns del c1").ok();
            for words in end {
                w.topo(words).ok();
            }
            w.assert_clean(before);
        }
    });
}

/// N12: another container has taken the place of one that is gone, under its name.
#[test]
fn n12_a_namesake() {
    in_network_world("", |w, _| {
        network(w, "create web --subnet 10.5.0.0/24").ok();
        w.run("ip netns add c1").ok();
        network(w, "connect web c1").ok().says("10.5.0.2");
        w.run("ip netns del c1; ip netns add c1").ok();
        // An address rests before it is given again: neighbours know the one that it had.
        network(w, "connect web c1").ok().says("10.5.0.3").says("warning: `c1` has ended without being disconnected");
        assert_eq!(addresses(w, "web"), ["10.5.0.3/24"]);
        w.topo(&["gc"]).ok();
        assert_eq!(addresses(w, "web"), ["10.5.0.3/24"]);
        network(w, "disconnect web c1").ok();
        network(w, "rm web").ok();
        w.run("ip netns del c1").ok();
    });
}

/// N13: a container that is connected already keeps its endpoint, by whatever name it is called; another address is refused.
#[test]
fn n13_a_repeated_connect() {
    in_network_world(CONTAINERS, |w, _| {
        network(w, "create web --subnet 10.5.0.0/24").ok();
        network(w, "connect web c1 --publish 8080:80 --alias db").ok();
        let process = w.start_run("exec ip netns exec c1 sh -c 'echo ready; exec sleep 1000'");
        process.wait_for_output("ready", Duration::from_secs(20));
        let pid = w.run("ip netns pids c1").ok().out().trim().to_owned();
        let up = w.snapshot();
        for target in ["c1", "/run/netns/c1", &pid, &format!("/proc/{pid}/ns/net")] {
            for more in ["", " --ip 10.5.0.2", " --publish 8080:80", " --alias db"] {
                network(w, &format!("connect web {target}{more}")).ok().says("eth0 has 10.5.0.2/24");
            }
            for more in [" --ip 10.5.0.9", " --publish 9090:80", " --alias cache"] {
                network(w, &format!("connect web {target}{more}"))
                    .fails(1)
                    .says("it is connected already, as 10.5.0.2");
            }
        }
        w.assert_clean(&up);
        network(w, &format!("disconnect web {pid}")).ok();
        network(w, "rm web").ok();
    });
}
