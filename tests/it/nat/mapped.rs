//! From where a published port works, where it does not, and which address the container sees.

use super::servers::{LOST, REFUSED};
use super::{Site, on_both_sites, on_site};

/// D3: one port, from outside and from the host itself, in both families. The container sees the client's own address wherever
/// it can answer by this host; else the bridge's.
#[test]
fn d3_a_published_port_works_from_outside_and_from_the_host() {
    on_both_sites("", |site| {
        site.web(&["8080:80", "5353:53/udp"]);
        site.answers(&[
            ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
            ("lan", "198.51.100.1:8080", "c1 saw 198.51.100.2"),
            ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
            ("host", "192.0.2.1:8080", "c1 saw 192.0.2.1"),
            ("host", "198.51.100.1:8080", "c1 saw 198.51.100.1"),
            ("host", "10.5.0.1:8080", "c1 saw 10.5.0.1"),
            ("host", "127.0.0.1:8080", "c1 saw 10.5.0.1"),
            ("host", "127.9.9.9:8080", "c1 saw 10.5.0.1"),
            ("out", "[2001:db8::1]:8080", "c1 saw 2001:db8::2"),
            ("lan", "[2001:db8::1]:8080", "c1 saw 2001:db8:1::2"),
            ("host", "[2001:db8::1]:8080", "c1 saw 2001:db8::1"),
            ("host", "[fd00:5::1]:8080", "c1 saw fd00:5::1"),
        ]);
        site.answers(&[
            ("out", "192.0.2.1:5353/udp", "c1 saw 192.0.2.2"),
            ("lan", "192.0.2.1:5353/udp", "c1 saw 198.51.100.2"),
            ("host", "192.0.2.1:5353/udp", "c1 saw 192.0.2.1"),
            ("host", "127.0.0.1:5353/udp", "c1 saw 10.5.0.1"),
            ("out", "[2001:db8::1]:5353/udp", "c1 saw 2001:db8::2"),
            ("host", "[2001:db8::1]:5353/udp", "c1 saw 2001:db8::1"),
        ]);
        // The other protocol's port, and the container's own, are nobody's here.
        site.answers(&[
            ("out", "192.0.2.1:5353", REFUSED),
            ("out", "192.0.2.1:80", REFUSED),
            ("out", "192.0.2.1:8080/udp", REFUSED),
        ]);
        site.network("rm --force web");
        site.is_clean();
        site.answers(&[("out", "192.0.2.1:8080", REFUSED), ("host", "127.0.0.1:8080", REFUSED)]);
    });
}

/// D4: the container itself and its neighbours reach a published port by any address of the host, and each other directly.
#[test]
fn d4_a_container_reaches_its_own_published_port_and_a_neighbours() {
    on_both_sites("", |site| {
        site.web(&["8080:80", "5353:53/udp"]);
        site.answers(&[
            ("c1", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
            ("c1", "10.5.0.1:8080", "c1 saw 10.5.0.1"),
            ("c2", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
            ("c2", "10.5.0.1:8080", "c1 saw 10.5.0.1"),
            ("c2", "10.5.0.11:80", "c1 saw 10.5.0.12"),
            ("c1", "[2001:db8::1]:8080", "c1 saw fd00:5::1"),
            ("c2", "[2001:db8::1]:8080", "c1 saw fd00:5::1"),
            ("c1", "192.0.2.1:5353/udp", "c1 saw 10.5.0.1"),
            ("c2", "192.0.2.1:5353/udp", "c1 saw 10.5.0.1"),
            ("c1", "[2001:db8::1]:5353/udp", "c1 saw fd00:5::1"),
        ]);
        site.network("rm --force web");
    });
}

/// D3: what is the host's own at `::1` stays there, since IPv6 has no way from there to a container; asked for, it is refused.
#[test]
fn d3_the_ipv6_loopback_is_not_published() {
    on_both_sites("", |site| {
        site.web(&["8080:80", "5353:53/udp"]);
        site.answers(&[("host", "[::1]:8080", REFUSED), ("host", "[::1]:5353/udp", REFUSED)]);
        site.serve("host", "::1,8080 ::1,5353/udp");
        site.answers(&[
            ("host", "[::1]:8080", "host saw ::1"),
            ("host", "[::1]:5353/udp", "host saw ::1"),
            ("host", "[2001:db8::1]:8080", "c1 saw 2001:db8::1"),
            ("host", "127.0.0.1:8080", "c1 saw 10.5.0.1"),
        ]);
        let up = site.w.snapshot();
        let refused = site.try_network("connect web c3 --publish [::1]:9090:80").fails(3);
        refused.says("the kernel can't send on what comes to `::1`").says("publish at `127.0.0.1`");
        site.w.assert_clean(&up);
        site.network("rm --force web");
    });
}

/// D3: that `127.0.0.1` works opens nothing that listens there, nor what is published there, to a container that makes its own
/// packets.
#[test]
fn d3_a_container_does_not_reach_the_hosts_loopback() {
    on_both_sites("", |site| {
        site.web(&["8080:80", "127.0.0.1:9090:80"]);
        site.serve("host", "127.0.0.1,7777 127.0.0.1,7777/udp");
        site.answers(&[
            ("host", "127.0.0.1:7777", "host saw 127.0.0.1"),
            ("host", "127.0.0.1:9090", "c1 saw 10.5.0.1"),
        ]);
        site.w
            .run(
                "ip -n c2 link set lo down; ip -n c2 route add 127.0.0.0/8 via 10.5.0.1
                 nsenter --net=/run/netns/c2 sh -c 'echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet'",
            )
            .ok();
        site.answers(&[
            ("c2", "127.0.0.1:7777", LOST),
            ("c2", "127.0.0.1:7777/udp", LOST),
            ("c2", "127.0.0.1:8080", LOST),
            ("c2", "127.0.0.1:9090", LOST),
            ("c2", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
        ]);
        site.w.ip("-n c2 link set lo up");
        site.network("rm --force web");
    });
}

/// D2: what goes through this host to another machine's same port goes there, from wherever it comes.
#[test]
fn d2_transit_to_another_machine_is_left_alone() {
    on_both_sites("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding", |site| {
        site.web(&["8080:80", "5353:53/udp"]);
        site.serve("out", "8080 5353/udp");
        site.serve("lan", "8080 5353/udp");
        site.answers(&[
            ("lan", "192.0.2.2:8080", "out saw 198.51.100.2"),
            ("lan", "192.0.2.2:5353/udp", "out saw 198.51.100.2"),
            ("out", "198.51.100.2:8080", "lan saw 192.0.2.2"),
            ("c1", "192.0.2.2:8080", "out saw 192.0.2.1"),
            ("c2", "192.0.2.2:8080", "out saw 192.0.2.1"),
            ("c2", "198.51.100.2:5353/udp", "lan saw 198.51.100.1"),
            ("host", "192.0.2.2:8080", "out saw 192.0.2.1"),
            ("lan", "[2001:db8::2]:8080", "out saw 2001:db8:1::2"),
            ("c1", "[2001:db8::2]:8080", "out saw 2001:db8::1"),
            // And that to this host is answered by the container.
            ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
            ("lan", "[2001:db8::1]:8080", "c1 saw 2001:db8:1::2"),
        ]);
        site.network("rm --force web");
    });
}

/// From another network a port that is published is reached at the host's addresses; the container itself is not.
#[test]
fn another_network_reaches_published_ports_alone() {
    on_both_sites("", |site| {
        site.web(&["8080:80"]);
        site.network("create db --subnet 10.6.0.0/24 --ipv6 fd00:6::/64");
        site.network("connect db c3 --publish 8081:80");
        site.serve("c3", "80");
        site.answers(&[
            ("c3", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
            ("c3", "10.6.0.1:8080", "c1 saw 10.5.0.1"),
            ("c3", "10.5.0.1:8080", "c1 saw 10.5.0.1"),
            ("c3", "[2001:db8::1]:8080", "c1 saw fd00:5::1"),
            ("c1", "192.0.2.1:8081", "c3 saw 10.6.0.1"),
            ("c3", "10.5.0.11:80", LOST),
            ("c1", "10.6.0.2:80", LOST),
            ("c3", "[fd00:5::11]:80", LOST),
        ]);
        // Nor from outside, even by someone who has a route to it.
        site.w.ip("-n out route add 10.5.0.0/24 via 192.0.2.1");
        site.answers(&[("out", "10.5.0.11:80", LOST), ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2")]);
        site.w.ip("-n out route del 10.5.0.0/24");
        site.network("rm --force web");
        site.answers(&[("out", "192.0.2.1:8081", "c3 saw 192.0.2.2"), ("out", "192.0.2.1:8080", REFUSED)]);
        site.network("rm --force db");
    });
}

/// D5: a range leads to a range, port by port, of either protocol.
#[test]
fn d5_ranges_of_ports() {
    on_both_sites("", |site| {
        site.web(&["8000-8002:80-82", "5000-5001:53-54/udp"]);
        site.serve("c1", "82 54/udp");
        site.answers(&[
            ("out", "192.0.2.1:7999", REFUSED),
            ("out", "192.0.2.1:8000", "c1 saw 192.0.2.2"),
            ("out", "192.0.2.1:8001", REFUSED), // by the container
            ("out", "192.0.2.1:8002", "c1 saw 192.0.2.2"),
            ("out", "192.0.2.1:8003", REFUSED),
            ("host", "127.0.0.1:8002", "c1 saw 10.5.0.1"),
            ("c1", "192.0.2.1:8002", "c1 saw 10.5.0.1"),
            ("out", "192.0.2.1:5001/udp", "c1 saw 192.0.2.2"),
            ("out", "[2001:db8::1]:8002", "c1 saw 2001:db8::2"),
        ]);
        site.network("rm --force web");
    });
}

/// D5: published at one address it is reached there alone, from everywhere; two containers have one port at two addresses.
#[test]
fn d5_one_address_of_the_host() {
    on_both_sites("", |site| {
        site.web(&["192.0.2.1:8080:80", "127.0.0.1:9090:80", "[2001:db8::1]:7070:80", "0.0.0.0:6060:80"]);
        site.network("disconnect web c2");
        site.network("connect web c2 --ip 10.5.0.12 --publish 198.51.100.1:8080:80");
        site.answers(&[
            ("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"),
            ("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2"),
            ("out", "198.51.100.1:8080", "c2 saw 192.0.2.2"),
            ("host", "192.0.2.1:8080", "c1 saw 192.0.2.1"),
            ("host", "198.51.100.1:8080", "c2 saw 198.51.100.1"),
            ("c1", "192.0.2.1:8080", "c1 saw 10.5.0.1"),
            ("c1", "198.51.100.1:8080", "c2 saw 10.5.0.1"),
            ("host", "127.0.0.1:8080", REFUSED),
            ("host", "10.5.0.1:8080", REFUSED),
            ("out", "[2001:db8::1]:8080", REFUSED),
            // Of the loopback address, for the host alone.
            ("host", "127.0.0.1:9090", "c1 saw 10.5.0.1"),
            ("out", "192.0.2.1:9090", REFUSED),
            ("host", "192.0.2.1:9090", REFUSED),
            // Of one IPv6 address, and of all of IPv4.
            ("out", "[2001:db8::1]:7070", "c1 saw 2001:db8::2"),
            ("out", "192.0.2.1:7070", REFUSED),
            ("lan", "[2001:db8:1::1]:7070", REFUSED),
            ("out", "192.0.2.1:6060", "c1 saw 192.0.2.2"),
            ("out", "[2001:db8::1]:6060", REFUSED),
        ]);
        site.network("rm --force web");
    });
}

/// D5: SCTP is mapped by the same look-up; where the kernel has no SCTP sockets, the rules tell.
#[test]
fn d5_sctp_is_mapped() {
    on_site("", |site| {
        site.web(&["132:132/sctp", "3868-3869:3868-3869/sctp"]);
        let rules = site.rules();
        for element in ["sctp . 132 ", "sctp . 3868 ", "sctp . 3869 "] {
            assert_eq!(rules.matches(element).count(), 2, "`{element}`, once a family:\n{rules}");
        }
        assert!(rules.contains("10.5.0.11 . 3869"), "{rules}");
        assert!(!rules.contains("tcp . "), "{rules}");
        // A raw SCTP INIT to the port arrives with its destination changed; its source port 40000, then the container's.
        let sniff = site.start("c1", "exec timeout 20 tcpdump -n -l -c 1 -i eth0 'ip proto 132 and dst port 3868'");
        sniff.wait_for_output("listening on", std::time::Duration::from_secs(20));
        let init = "9c40 0f1c 00000000 00000000 0100 0014 00000001 00010000 0001 0001 00000001";
        let send = site.w.write(
            "sctp.py",
            &format!(
                "import socket\n\
                 table = [0] * 256\n\
                 for n in range(256):\n    c = n\n    for _ in range(8): c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)\n    table[n] = c\n\
                 packet = bytearray.fromhex('{init}')\n\
                 crc = 0xffffffff\n\
                 for byte in packet: crc = crc >> 8 ^ table[(crc ^ byte) & 255]\n\
                 packet[8:12] = (crc ^ 0xffffffff).to_bytes(4, 'little')\n\
                 socket.socket(socket.AF_INET, socket.SOCK_RAW, 132).sendto(packet, ('192.0.2.1', 0))\n"
            ),
        );
        site.w.run(&format!("nsenter --net=/run/netns/out /usr/bin/python3 {}", send.display())).ok();
        sniff.wait_for_output("192.0.2.2.40000 > 10.5.0.11.3868: sctp", std::time::Duration::from_secs(10));
        sniff.wait().ok();
        site.network("rm --force web");
    });
}

/// What people run: a web server with its pages, and a stream of bytes through a published port.
#[test]
fn nginx_and_iperf3_are_published() {
    on_both_sites("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("connect web c1 --publish 8080:80 --publish 5201:5201");
        let dir = site.w.dir().display().to_string();
        let config = site.w.write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr;\n\
                 events {{}}\n\
                 http {{ access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};\n\
                 uwsgi_temp_path {dir}; scgi_temp_path {dir};\n\
                 server {{ listen 80; location / {{ return 200 'nginx saw $remote_addr\\n'; }} }} }}"
            ),
        );
        let nginx = site.start("c1", &format!("echo begins; exec nginx -c {}", config.display()));
        nginx.wait_for_output("begins", std::time::Duration::from_secs(10));
        site.w.run("until nsenter --net=/run/netns/c1 curl --silent http://127.0.0.1/; do sleep 0.01; done").ok();
        site.answers(&[
            ("out", "192.0.2.1:8080", "nginx saw 192.0.2.2"),
            ("host", "127.0.0.1:8080", "nginx saw 10.5.0.1"),
        ]);
        let iperf = site.start("c1", "exec iperf3 --server --one-off --forceflush");
        iperf.wait_for_output("listening", std::time::Duration::from_secs(10));
        let ran = site.w.run("nsenter --net=/run/netns/out iperf3 --client 192.0.2.1 --time 1 --json").ok();
        let report: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate");
        assert!(rate > 10e6, "{rate} bit/s");
        iperf.wait().ok();
        drop(nginx);
        site.network("rm --force web");
    });
}

/// What containers send to the world bears the host's address; to each other and to the host, their own.
#[test]
fn containers_reach_out_with_the_hosts_address() {
    on_both_sites("", |site: &Site| {
        site.web(&[]);
        site.serve("out", "80 53/udp");
        site.serve("host", "8080");
        site.answers(&[
            ("c1", "192.0.2.2:80", "out saw 192.0.2.1"),
            ("c1", "192.0.2.2:53/udp", "out saw 192.0.2.1"),
            ("c1", "[2001:db8::2]:80", "out saw 2001:db8::1"),
            ("c1", "10.5.0.12:80", "c2 saw 10.5.0.11"),
            ("c1", "10.5.0.1:8080", "host saw 10.5.0.11"),
            ("c1", "192.0.2.1:8080", "host saw 10.5.0.11"),
        ]);
        site.w.run("nsenter --net=/run/netns/c1 ping -n -c 1 -W 5 192.0.2.2").ok();
        site.network("rm --force web");
    });
}
