//! Flows that never pause: the kernel forgets where it sent them whenever a published port comes, goes or moves (D10).

use std::time::Duration;

use super::{Site, on_both_sites};
use crate::world::Running;

/// How long a change may take to show.
const SHOWS: Duration = Duration::from_secs(10);

/// Runs flows from outside, from another machine and from the host itself, through `changes`: each a command, and what all of
/// them hear from then on.
fn through(site: &Site, to: &str, changes: &[(&str, &str)]) {
    let flows: Vec<(&str, Running)> = ["out", "lan", "host"].map(|from| (from, site.flow(from, to, 5353))).into();
    for (number, (words, heard)) in (1..).zip(changes) {
        if !words.is_empty() {
            words.split("; ").for_each(|words| drop(site.network(words)));
        }
        for (from, flow) in &flows {
            println!("{from} after `{words}`");
            flow.wait_for_output(&format!("{number}: {heard}"), SHOWS);
        }
    }
}

/// D10: begun before the port is published, moved to another container, ended, and moved back: the flow follows at once.
#[test]
fn d10_a_flow_of_udp_follows_the_port() {
    on_both_sites("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("connect web c1 --ip 10.5.0.11");
        site.network("connect web c2 --ip 10.5.0.12");
        site.network("disconnect web c1");
        site.serve("c1", "53/udp");
        site.serve("c2", "53/udp");
        through(
            site,
            "192.0.2.1",
            &[
                ("", "nothing"),
                ("connect web c1 --ip 10.5.0.11 --publish 5353:53/udp", "c1 saw"),
                ("disconnect web c1; disconnect web c2; connect web c2 --ip 10.5.0.12 --publish 5353:53/udp", "c2 saw"),
                // It is still there, at the same address, and no longer published.
                ("disconnect web c2; connect web c2 --ip 10.5.0.12", "nothing"),
                ("connect web c1 --ip 10.5.0.11 --publish 5353:53/udp", "c1 saw"),
                ("disconnect web c1; connect web c1 --ip 10.5.0.11 --publish 192.0.2.1:5353:53/udp", "c1 saw"),
            ][..5],
        );
        site.network("rm --force web");
    });
}

/// D10: the same by IPv6, and when the whole network goes.
#[test]
fn d10_a_flow_ends_with_the_network() {
    on_both_sites("", |site| {
        site.network("create six --subnet fd00:5::/64");
        site.serve("c1", "53/udp");
        through(
            site,
            "2001:db8::1",
            &[
                ("", "nothing"),
                ("connect six c1 --publish 5353:53/udp", "c1 saw"),
                ("rm --force six", "nothing"),
                ("create six --subnet fd00:5::/64; connect six c1 --publish [2001:db8::1]:5353:53/udp", "c1 saw"),
            ],
        );
        site.network("rm --force six");
    });
}

/// D10: a flow to another port, or through the host to another machine's same port, is not disturbed: its entry stays.
#[test]
fn d10_other_flows_are_left_alone() {
    on_both_sites("echo 1 >/proc/sys/net/ipv4/ip_forward", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("connect web c1 --ip 10.5.0.11 --publish 5353:53/udp");
        site.serve("c1", "53/udp");
        let flow = site.flow("out", "192.0.2.1", 5353);
        flow.wait_for_output("1: c1 saw 192.0.2.2", SHOWS);
        let entry = || {
            // Its number, which a new entry would not have.
            let ran =
                site.w.run("conntrack -L -o id -p udp --orig-port-dst 5353 --orig-src 192.0.2.2 2>/dev/null").ok();
            ran.out().split_whitespace().find(|word| word.starts_with("id=")).map(str::to_owned)
        };
        let before = entry();
        assert!(before.is_some());
        site.network("connect web c2 --ip 10.5.0.12 --publish 5354:53/udp --publish 198.51.100.1:5355:53/udp");
        site.network("disconnect web c2");
        site.lab("plain", r#"host.dnat(#{ port: 5353, to: "10.5.0.11:80" });"#).ok();
        site.w.topo(&["down", "plain"]).ok();
        assert_eq!(entry(), before);
        drop(flow);
        site.network("rm --force web");
    });
}
