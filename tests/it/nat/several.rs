//! A container in two networks: a published port of either answers, whatever the reverse path filter says.

use super::{Site, on_site};

/// Sets the reverse path filter of the host and of c1, of all devices and of each.
fn filter(site: &Site, on_host: u8, inside: u8) {
    let set = |value: u8| format!("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {value} >$f; done");
    site.w.run_as_root(&set(on_host)).ok();
    site.w.run_as_root(&format!("nsenter --net=/run/netns/c1 sh -c '{}'", set(inside))).ok();
}

/// Both networks' ports, from outside, from another machine, from a neighbour in either, from the host, in both families.
#[test]
fn a_port_of_either_network_answers() {
    on_site("", |site| {
        let was = site.sysctl("net/ipv4/conf/all/rp_filter");
        let each = site.w.run("grep -H . /proc/sys/net/ipv4/conf/*/rp_filter").ok().stdout;
        site.network("create front --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
        site.network("create other --subnet 10.6.0.0/24 --ipv6 fd00:6::/64");
        site.network("connect front c1 --ip 10.5.0.11 --publish 8081:80");
        site.network("connect other c1 --ip 10.6.0.11 --publish 8082:80");
        site.network("connect front c2");
        site.network("connect other c3");
        site.serve("c1", "80");
        for (on_host, inside) in crate::tier::spread([(0, 0), (1, 1), (2, 2), (0, 1), (1, 0)], 3) {
            println!("rp_filter of the host {on_host}, inside {inside}");
            filter(site, on_host, inside);
            for port in [8081, 8082] {
                let at = |address: &str| format!("{address}:{port}");
                site.answers(&[
                    ("out", &at("192.0.2.1"), "c1 saw 192.0.2.2"),
                    ("lan", &at("192.0.2.1"), "c1 saw 198.51.100.2"),
                    ("out", &at("[2001:db8::1]"), "c1 saw 2001:db8::2"),
                    ("host", &at("192.0.2.1"), "c1 saw 192.0.2.1"),
                ]);
                for from in ["c1", "c2", "c3"] {
                    assert!(site.ask(from, &at("192.0.2.1"), 5).starts_with("c1 saw "), "{from} at {port}");
                }
                assert!(site.ask("host", &at("127.0.0.1"), 5).starts_with("c1 saw "), "127.0.0.1 at {port}");
            }
        }
        // Also once the network that gave the default route is left.
        site.network("disconnect front c1");
        site.answers(&[
            ("out", "192.0.2.1:8082", "c1 saw 192.0.2.2"),
            ("lan", "[2001:db8::1]:8082", "c1 saw 2001:db8:1::2"),
        ]);
        site.network("rm --force front other");
        for line in each.lines() {
            let (file, value) = line.split_once(':').expect("a file and a value");
            site.w.run_as_root(&format!("echo {value} >{file}")).ok();
        }
        assert_eq!(site.sysctl("net/ipv4/conf/all/rp_filter"), was);
    });
}
