//! Forwarding: of the devices that need it, and back as it was when the last one that needed it is gone.

use super::servers::LOST;
use super::{Site, on_both_sites, on_site};

/// The settings that make a device forward, and the one for all, with their values on the host.
fn forwarding(site: &Site) -> Vec<(String, String)> {
    let read = "cd /proc/sys/net; grep -H . ipv4/conf/*/forwarding ipv4/ip_forward ipv6/conf/*/forwarding";
    let ran = site.w.run(read).ok();
    let line = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
    ran.out().lines().filter_map(line).collect()
}

/// Returns the devices that forward IPv4.
fn forwards(site: &Site) -> Vec<String> {
    let name = |key: &str| Some(key.strip_prefix("ipv4/conf/")?.strip_suffix("/forwarding")?.to_owned());
    forwarding(site).iter().filter(|(_, value)| value == "1").filter_map(|(key, _)| name(key)).collect()
}

/// D8: the network's bridge and the way out forward, no other device; with a published port those where it can be asked for.
/// Nothing of that outlives the network.
#[test]
fn d8_only_what_needs_it_forwards() {
    on_both_sites(
        "ip link add other0 type veth peer name other1; ip link set other0 up; ip link set other1 up",
        |site| {
            assert!(forwards(site).is_empty());
            site.network("create web --subnet 10.5.0.0/24");
            assert_eq!(forwards(site), ["br-web", "wan0"]);
            assert_eq!(site.sysctl("net/ipv4/ip_forward"), "0");
            assert_eq!(site.sysctl("net/ipv6/conf/all/forwarding"), "0");
            site.network("connect web c1 --ip 10.5.0.11 --publish 8080:80");
            assert_eq!(forwards(site), ["br-web", "lan0", "wan0"]);
            site.serve("c1", "80");
            site.answers(&[("lan", "192.0.2.1:8080", "c1 saw 198.51.100.2")]);
            site.network("disconnect web c1");
            assert_eq!(forwards(site), ["br-web", "wan0"]);
            site.network("rm web");
            assert!(forwards(site).is_empty());
            site.is_clean();
        },
    );
}

/// D8: of IPv6 there is one switch for all; a host that learnt its way out by router advertisements keeps it.
#[test]
fn d8_ipv6_forwards_as_a_whole_and_back() {
    on_site("", |site| {
        site.network("create six --subnet fd00:5::/64");
        assert_eq!(site.sysctl("net/ipv6/conf/all/forwarding"), "1");
        assert_eq!(site.sysctl("net/ipv6/conf/wan0/accept_ra"), "2");
        assert!(forwards(site).is_empty(), "IPv4 has nothing to do with it");
        site.network("create seven --subnet fd00:7::/64");
        site.network("rm six");
        assert_eq!(site.sysctl("net/ipv6/conf/all/forwarding"), "1");
        assert_eq!(site.sysctl("net/ipv6/conf/wan0/accept_ra"), "2");
        site.network("rm seven");
        site.is_clean();
    });
}

/// D8: two networks, removed in either order; the one that stays still works.
#[test]
fn d8_the_last_user_turns_it_off() {
    for order in [["web", "db"], ["db", "web"]] {
        on_site("", |site| {
            site.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
            site.network("create db --subnet 10.6.0.0/24 --ipv6 fd00:6::/64");
            site.network("connect web c1 --publish 8080:80");
            site.network("connect db c2 --publish 8081:80");
            site.serve("c1", "80");
            site.serve("c2", "80");
            site.serve("out", "80");
            let [first, last] = order;
            let (from, port) = if last == "db" { ("c2", 8081) } else { ("c1", 8080) };
            let (v4, v6) = (format!("192.0.2.1:{port}"), format!("[2001:db8::1]:{port}"));
            let works = || {
                site.answers(&[
                    ("out", &v4, &format!("{from} saw 192.0.2.2")),
                    ("lan", &v4, &format!("{from} saw 198.51.100.2")),
                    ("out", &v6, &format!("{from} saw 2001:db8::2")),
                    (from, "192.0.2.2:80", "out saw 192.0.2.1"),
                ]);
            };
            works();
            site.network(&format!("rm --force {first}"));
            works();
            site.network(&format!("rm --force {last}"));
            site.is_clean();
        });
    }
}

/// D8: what forwarded before does so afterwards.
#[test]
fn d8_what_was_on_before_stays_on() {
    let on = "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
              echo 0 >/proc/sys/net/ipv4/conf/lan0/forwarding";
    on_site(on, |site| {
        let before = forwarding(site);
        for _ in 0..2 {
            site.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
            site.network("connect web c1 --publish 8080:80");
            site.network("disconnect web c1");
            site.network("rm web");
            assert_eq!(forwarding(site), before);
        }
        site.is_clean();
    });
}

/// D8: somebody turns it on, or off, while a network is up: then it is theirs.
#[test]
fn d8_what_others_set_meanwhile_is_theirs() {
    on_site("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        // The kernel gives it to every device.
        site.w.run("echo 1 >/proc/sys/net/ipv4/ip_forward").ok();
        site.network("rm web");
        assert_eq!(site.sysctl("net/ipv4/ip_forward"), "1");
        assert_eq!(site.sysctl("net/ipv4/conf/lan0/forwarding"), "1");
        site.w.run("echo 0 >/proc/sys/net/ipv4/ip_forward").ok();
    });
}

/// D8: without a network nothing passes the host, whatever there was before: neither to the containers nor past them.
#[test]
fn d8_the_host_is_no_router_for_others() {
    on_both_sites("", |site| {
        site.serve("out", "80");
        site.answers(&[("lan", "192.0.2.2:80", LOST)]);
        site.network("create web --subnet 10.5.0.0/24");
        // The bridge and the way out forward; what comes in from elsewhere does not.
        site.answers(&[("lan", "192.0.2.2:80", LOST)]);
        site.network("rm web");
        site.answers(&[("lan", "192.0.2.2:80", LOST)]);
    });
}
