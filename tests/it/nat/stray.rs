//! A path past NAT: the kernel translates packets of connections alone, and what belongs to none would leave with its inner
//! source (D14).

use std::time::Duration;

use super::servers::PYTHON;
use super::{Site, on_site};

const STRAY: &str = include_str!("stray.py");

impl Site {
    /// Has `from` send packets of no connection from `source` to `target`, and returns the sources that `out` sees, each
    /// once; the last packet is an ordinary one.
    fn stray_sources(&self, from: &str, source: &str, target: &str) -> Vec<String> {
        let program = self.program("stray.py", STRAY);
        let sniff = self
            .start("out", "exec timeout 30 tcpdump -n -l -i eth0 'not arp and not (icmp6 and ip6[40] >= 130)' 2>&1");
        sniff.wait_for_output("listening on", Duration::from_secs(20));
        self.start(from, &format!("{PYTHON} {} {source} {target}", program.display())).wait().ok();
        sniff.wait_for_output(".9999: UDP", Duration::from_secs(20));
        sniff.signal(nix::sys::signal::Signal::SIGINT);
        let seen = sniff.wait();
        let mut sources: Vec<String> = seen.out().lines().filter_map(|line| source_of(line, target)).collect();
        sources.sort();
        sources.dedup();
        sources
    }
}

/// Returns the source of a packet to `target`, as tcpdump prints it, without its port.
fn source_of(line: &str, target: &str) -> Option<String> {
    let (before, after) = line.split_once(" > ")?;
    if !after.starts_with(target) {
        return None;
    }
    let source = before.rsplit(' ').next()?;
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    let bare = source.rsplit_once('.').map_or(source, |(bare, _)| bare);
    Some(if is_address(source) { source } else { bare }.to_string())
}

/// D14: of a container, in both families; each driver that translates.
#[test]
fn d14_what_has_no_connection_does_not_leave_a_network() {
    on_site("", |site| {
        site.web(&["8080:80"]);
        assert_eq!(site.stray_sources("c1", "10.5.0.11", "192.0.2.2"), ["192.0.2.1"]);
        assert_eq!(site.stray_sources("c1", "fd00:5::2", "2001:db8::2"), ["2001:db8::1"]);
        site.network("rm --force web");
    });
}

/// D14: `masquerade` and `snat` by themselves, whatever else a filter accepts before them.
#[test]
fn d14_what_has_no_connection_is_not_forwarded_untranslated() {
    on_site("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding", |site| {
        let rules = r#"host.filter("forward", "accept", #{ in_dev: "lan0" });
                       host.masquerade("198.51.100.0/24", #{ out: "wan0" });
                       host.snat("2001:db8:1::/64", #{ to: "2001:db8::1", not_out: "lan0" });"#;
        site.lab("hides", rules).ok();
        assert_eq!(site.stray_sources("lan", "198.51.100.2", "192.0.2.2"), ["192.0.2.1"]);
        assert_eq!(site.stray_sources("lan", "2001:db8:1::2", "2001:db8::2"), ["2001:db8::1"]);
        site.w.topo(&["down", "hides"]).ok();
    });
}

/// What isn't translated is left alone: the host may see one direction of others' connections only.
#[test]
fn packets_of_others_pass_as_before() {
    on_site("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding", |site| {
        site.web(&["8080:80"]);
        site.network("create plain --driver routed --subnet 10.6.0.0/24");
        site.network("connect plain c3 --ip 10.6.0.3");
        site.w.run("ip -n out route add 10.6.0.0/24 via 192.0.2.1").ok();
        let stray = |from: &str, source: &str, target: &str| {
            let seen = site.stray_sources(from, source, target);
            assert_eq!(seen, [source]);
        };
        stray("lan", "198.51.100.2", "192.0.2.2");
        stray("lan", "2001:db8:1::2", "2001:db8::2");
        stray("c3", "10.6.0.3", "192.0.2.2");
        site.network("rm --force web plain");
        site.w.run("ip -n out route del 10.6.0.0/24").ok();
    });
}
