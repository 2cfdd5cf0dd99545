//! Containers that can't be connected: what, why, what next; and nothing is half done.

use expect_test::expect;

use super::{CONTAINERS, in_network_world, make_web, network, nothing_happens};

#[test]
fn an_address_that_cant_be() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c2 --ip 10.6.0.2
                --- stderr
                error: connect `c2` to network `web`: `10.6.0.2` is in none of its subnets
                hint: its subnets: 10.5.0.0/24
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0
                --- stderr
                error: connect `c2` to network `web`: read the IP address `10.5.0`: it is not an IP address
                hint: an address is such as `10.5.0.9`; without one the next free one is taken
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.2
                --- stderr
                error: take `10.5.0.2` of the pool `10.5.0.0/24`: `net.web.XXXXXXXXXXXX: c1` holds it
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.0
                --- stderr
                error: take `10.5.0.0` of the pool `10.5.0.0/24`: it is the network's own address
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.255
                --- stderr
                error: take `10.5.0.255` of the pool `10.5.0.0/24`: it is the broadcast address
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.1
                --- stderr
                error: take `10.5.0.1` of the pool `10.5.0.0/24`: it is the gateway's
                --- exit code 1
                $ topo network connect web c2 --ip fd00::2
                --- stderr
                error: connect `c2` to network `web`: `fd00::2` is in none of its subnets
                hint: its subnets: 10.5.0.0/24
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9/24
                --- stderr
                error: connect `c2` to network `web`: read the IP address `10.5.0.9/24`: an address alone has no prefix length
                hint: an address is such as `10.5.0.9`; without one the next free one is taken
                --- exit code 1
                $ topo network connect web c2 --ip ''
                --- stderr
                error: connect `c2` to network `web`: read the IP address ``: it is not an IP address
                hint: an address is such as `10.5.0.9`; without one the next free one is taken
                --- exit code 1
            "#]],
        );
        network(w, "rm --force web").ok();
    });
}

#[test]
fn a_target_that_cant_be() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.write("file", "no netns");
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c9
                --- stderr
                error: connect `c9` to network `web`: find netns `c9`: there is no netns of this name
                hint: did you mean `c1`?
                --- exit code 1
                $ topo network connect web 999999
                --- stderr
                error: connect `999999` to network `web`: open the netns of process PID: there is no such process
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web 0
                --- stderr
                error: connect `0` to network `web`: open the netns of process PID: a pid is a number above 0
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web 99999999999999999999
                --- stderr
                error: connect `99999999999999999999` to network `web`: find netns `99999999999999999999`: there is no netns of this name
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web -- -1
                --- stderr
                error: connect `-1` to network `web`: netns name `-1`: its first character is not a letter, digit or _
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web 1
                --- stderr
                error: connect `1` to network `web`: it shares the netns of the host, which is on the network's other side already
                hint: start the container with a netns of its own
                --- exit code 1
                $ topo network connect web /proc/self/ns/net
                --- stderr
                error: connect `/proc/self/ns/net` to network `web`: it shares the netns of the host, which is on the network's other side already
                hint: start the container with a netns of its own
                --- exit code 1
                $ topo network connect web /proc/1/ns/net
                --- stderr
                error: connect `/proc/1/ns/net` to network `web`: it shares the netns of the host, which is on the network's other side already
                hint: start the container with a netns of its own
                --- exit code 1
                $ topo network connect web /proc/1/ns/mnt
                --- stderr
                error: connect `/proc/1/ns/mnt` to network `web`: open the netns `/proc/1/ns/mnt`: `/proc/1/ns/mnt` is no network namespace
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web ./file
                --- stderr
                error: connect `./file` to network `web`: open the netns `./file`: `./file` is no network namespace
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web ./nothing
                --- stderr
                error: connect `./nothing` to network `web`: open the netns `./nothing`: No such file or directory
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web .
                --- stderr
                error: connect `.` to network `web`: netns name `.`: its first character is not a letter, digit or _
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
                $ topo network connect web host
                --- stderr
                error: connect `host` to network `web`: it shares the netns of the host, which is on the network's other side already
                hint: start the container with a netns of its own
                --- exit code 1
                $ topo network connect web ''
                --- stderr
                error: connect `` to network `web`: netns name ``: it is empty
                hint: a container is named by a process in it, by the path of its netns, or by the netns's name
                --- exit code 1
            "#]],
        );
        network(w, "rm --force web").ok();
    });
}

/// A process that has ended, and that nobody has asked about yet, has no namespace any more.
#[test]
fn a_target_that_is_a_zombie() {
    in_network_world("", |w, _| {
        network(w, "create web").ok();
        // It ends when its parent is one that waits for nobody.
        let child = "until grep -qx sleep /proc/$PPID/comm; do :; done; exec unshare -n true";
        let parent = w.start_run(&format!("sh -c '{child}' & echo $! >zombie; echo ready; exec sleep 1000"));
        parent.wait_for_output("ready", std::time::Duration::from_secs(20));
        let zombie =
            w.run("pid=$(cat zombie); while ! grep -q 'State:.Z' /proc/$pid/status; do :; done; echo $pid").ok();
        let zombie = zombie.out().trim();
        let before = w.snapshot();
        let ran = network(w, &format!("connect web {zombie}")).fails(1);
        ran.says(&format!("connect `{zombie}` to network `web`: ")).says("hint: ");
        println!("{}", ran.err());
        w.assert_clean(&before);
        drop(parent);
        network(w, "rm web").ok();
    });
}

/// A path of a container's namespace may be as long as a path can be; its port on the bridge has a name all the same.
#[test]
fn a_target_with_a_long_path() {
    in_network_world("ip netns add c1", |w, _| {
        network(w, "create web").ok();
        let dir = format!("{}/{}", "d".repeat(200), "e".repeat(200));
        w.run(&format!("mkdir -p {dir}; ln -s /run/netns/c1 {dir}/c1")).ok();
        network(w, &format!("connect web ./{dir}/c1")).ok().says("eth0 has");
        w.run("ip netns exec c1 ping -c 1 -W 2 10.224.0.1").ok();
        network(w, &format!("disconnect web ./{dir}/c1")).ok();
        network(w, "rm web").ok();
    });
}

#[test]
fn ports_that_cant_be() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        network(w, "connect web c3 --publish 8080:80").ok();
        network(w, "create inner --internal").ok();
        // So that nothing of what a bridge is like follows from its first port, nor of a pool from its first lease.
        network(w, "connect inner c1").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c2 --ip 10.5.0.9 --publish 0:80-81
                --- stderr
                error: publish `0:80-81`: `0` is no port, which is a number from 1 to 65535
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 80:0
                --- stderr
                error: publish `80:0`: `0` is no port, which is a number from 1 to 65535
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 70000:80
                --- stderr
                error: publish `70000:80`: `70000` is no port, which is a number from 1 to 65535
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish http
                --- stderr
                error: publish `http`: `http` is no port, which is a number from 1 to 65535
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish ''
                --- stderr
                error: publish ``: `` is no port, which is a number from 1 to 65535
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 1000-1009:2000-2008
                --- stderr
                error: publish `1000-1009:2000-2008`: the ranges 1000-1009 and 2000-2008 are of different lengths
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 1009-1000:2009-2000
                --- stderr
                error: publish `1009-1000:2009-2000`: the range `2009-2000` ends before it begins
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 80:80/icmp
                --- stderr
                error: publish `80:80/icmp`: `icmp` is no protocol with ports: tcp, udp and sctp are
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 80:80/TCP
                --- stderr
                error: publish `80:80/TCP`: `TCP` is no protocol with ports: tcp, udp and sctp are
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish example.org:80:80
                --- stderr
                error: publish `example.org:80:80`: it is not an IP address
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 10.99.0.1:80:80
                --- stderr
                error: publish `10.99.0.1:80/tcp` to `10.5.0.9:80`: `10.99.0.1` is no address of the host
                hint: publish at an address that it has, or at all of them
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish ::1:80:80
                --- stderr
                error: publish `::1:80:80`: an IPv6 address before a port stands in brackets: `[::1]`
                hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish [::1]:80:80
                --- stderr
                error: publish ports of `c2`: the endpoint has no address of the family of `::1`
                hint: give a host address of the other family
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 8080:80
                --- stderr
                error: publish `8080/tcp` to `10.5.0.9:80`: port 8080/tcp is published already, to `10.5.0.3:80`, by lab `net.web.XXXXXXXXXXXX`
                hint: publish another port, or end what has this one
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 127.0.0.1:8080:80
                --- stderr
                error: publish `127.0.0.1:8080/tcp` to `10.5.0.9:80`: port 8080/tcp is published already, to `10.5.0.3:80`, by lab `net.web.XXXXXXXXXXXX`
                hint: publish another port, or end what has this one
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 8000-8100:8000-8100
                --- stderr
                error: publish `8000-8100/tcp` to `10.5.0.9:8000`: port 8080/tcp is published already, to `10.5.0.3:80`, by lab `net.web.XXXXXXXXXXXX`
                hint: publish another port, or end what has this one
                --- exit code 1
                $ topo network connect web c2 --ip 10.5.0.9 --publish 90:80 --publish 90:81
                --- stderr
                error: publish `90/tcp`: `90/tcp` is published too, to `10.5.0.9:80`
                --- exit code 1
                $ topo network connect inner c2 --ip 10.224.0.9 --publish 80:80
                --- stderr
                error: publish ports of `c2`: network `inner` is internal: nothing outside reaches its containers
                hint: publish on a network that was created without `--internal`
                --- exit code 1
            "#]],
        );
        network(w, "rm --force web inner").ok();
    });
}

#[test]
fn names_that_are_taken() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        network(w, "connect web c3 --alias db --publish 8080:80").ok();
        nothing_happens(
            w,
            expect![[r#"
                $ topo network connect web c2 --alias db
                --- stderr
                error: connect `c2` to network `web`: alias `db` is taken
                hint: take another alias
                --- exit code 1
                $ topo network connect web c2 --alias c1
                --- stderr
                error: connect `c2` to network `web`: alias `c1` is taken
                hint: take another alias
                --- exit code 1
                $ topo network connect web c2 --alias ../x
                --- stderr
                error: alias name `../x`: '/' is not allowed in it
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network connect web c3 --ip 10.5.0.77
                --- stderr
                error: connect `c3` to network `web`: it is connected already, as 10.5.0.3
                hint: `topo network disconnect web c3` first, or `network::publish` in a script adds ports
                --- exit code 1
                $ topo network connect web c3 --alias other
                --- stderr
                error: connect `c3` to network `web`: it is connected already, as 10.5.0.3
                hint: `topo network disconnect web c3` first, or `network::publish` in a script adds ports
                --- exit code 1
                $ topo network connect web c3 --publish 9090:80
                --- stderr
                error: connect `c3` to network `web`: it is connected already, as 10.5.0.3
                hint: `topo network disconnect web c3` first, or `network::publish` in a script adds ports
                --- exit code 1
            "#]],
        );
        network(w, "rm --force web").ok();
    });
}
