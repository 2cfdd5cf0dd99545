//! What is refused, and leaves nothing half done: mappings that can't be right, and ports that somebody has.

use super::servers::REFUSED;
use super::{on_both_sites, on_site};
use crate::stage::in_used_world;
use crate::tier;
use crate::world::Ran;

/// D6: whatever is wrong with one of several mappings, none is made, and the container is not connected.
#[test]
fn d6_a_malformed_mapping_is_an_error_and_nothing_is_half_done() {
    on_site("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        let up = site.w.snapshot();
        for (mapping, why) in [
            ("80:0", "`0` is no port, which is a number from 1 to 65535"),
            ("8080:65536", "`65536` is no port"),
            ("8080:", "`` is no port"),
            ("http:80", "`http` is no port"),
            ("8080:80/icmp", "`icmp` is no protocol with ports"),
            ("8000-8010:80-81", "the ranges 8000-8010 and 80-81 are of different lengths"),
            ("8010-8000:10-20", "ends before it begins"),
            ("192.0.2.999:8080:80", "192.0.2.999"),
            ("::1:8080:80", "in brackets"),
        ] {
            let ran = site.try_network(&format!("connect web c1 --publish 7070:70 --publish {mapping}")).fails(1);
            ran.says(&format!("error: publish `{mapping}`"))
                .says(why)
                .says("hint: a mapping is [HOSTIP:][PORT:]PORT[/PROTO]");
            site.w.assert_clean(&up);
        }
        site.network("rm web");
    });
}

/// D6: what only the host can refuse is refused before anything is done: an address that is not its own, or of a family that
/// the container has not, and one port twice.
#[test]
fn d6_a_mapping_that_the_host_can_not_have_is_an_error() {
    on_site("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("create inner --subnet 10.7.0.0/24 --internal");
        // A pool keeps a file once it has handed out an address.
        site.network("connect web c2 --ip 10.5.0.12");
        site.network("connect inner c3 --ip 10.7.0.13");
        let up = site.w.snapshot();
        for (words, why) in [
            ("connect web c1 --ip 10.5.0.11 --publish 203.0.113.5:8080:80", "`203.0.113.5` is no address of the host"),
            (
                "connect web c1 --ip 10.5.0.11 --publish [2001:db8::1]:8080:80",
                "no address of the family of `2001:db8::1`",
            ),
            ("connect web c1 --ip 10.5.0.11 --publish 8080:80 --publish 8080:81", "`8080/tcp` is published too"),
            ("connect web c1 --ip 10.5.0.11 --publish 8080-8090:80-90 --publish 127.0.0.1:8085:81", "is published too"),
            ("connect inner c1 --ip 10.7.0.11 --publish 8080:80", "network `inner` is internal"),
        ] {
            site.try_network(words).fails(1).says(why);
            site.w.assert_clean(&up);
        }
        site.network("rm --force web inner");
    });
}

/// D7: a port that a process listens on is refused, and the error names the process; where it ends, the port is to be had.
#[test]
fn d7_a_port_that_a_process_has_is_refused() {
    on_both_sites("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("create six --subnet fd00:5::/64");
        site.network("connect web c2 --ip 10.5.0.12");
        site.network("connect six c3 --ip fd00:5::13");
        site.serve("host", "8080 192.0.2.1,8081 5353/udp ::1,8082");
        let pid = site.w.run("pgrep -x python3").ok().stdout.trim().to_owned();
        let up = site.w.snapshot();
        let (connect, six) = ("connect web c1 --ip 10.5.0.11", "connect six c1 --ip fd00:5::11");
        let mappings = [
            (connect, "8080:80", "TCP port 8080 is in use at `[::]:8080`"),
            (connect, "127.0.0.1:8080:80", "TCP port 8080 is in use at `[::]:8080`"),
            (connect, "8079-8089:79-89", "TCP port 8080 is in use at `[::]:8080`"),
            (connect, "8081:80", "TCP port 8081 is in use at `192.0.2.1:8081`"),
            (connect, "192.0.2.1:8081:80", "TCP port 8081 is in use at `192.0.2.1:8081`"),
            (six, "8080:80", "TCP port 8080 is in use at `[::]:8080`"),
            (six, "8082:80", "TCP port 8082 is in use at `[::1]:8082`"),
            (connect, "5353:53/udp", "UDP port 5353 is in use at `[::]:5353`"),
        ];
        for (connect, mapping, what) in tier::spread(mappings, 4) {
            let ran = site.try_network(&format!("{connect} --publish {mapping}")).fails(1);
            ran.says(what)
                .says(&format!("by `python3` (process {pid})"))
                .says("hint: publish another port, or end what has this one");
            site.w.assert_clean(&up);
        }
        // Another address, protocol or port is nobody's.
        site.network(&format!("{connect} --publish 127.0.0.1:8081:80 --publish 8080:80/udp --publish 8083:80"));
        site.answers(&[("out", "192.0.2.1:8080", "host saw 192.0.2.2")]);
        site.network("disconnect web c1");
        site.servers.borrow_mut().clear();
        site.network(&format!("{connect} --publish 8080:80 --publish 5353:53/udp"));
        site.serve("c1", "80");
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2")]);
        site.network("rm --force web six");
    });
}

/// D7: a port that is published already is refused, by whom it may be, and the error names the lab that has it.
#[test]
fn d7_a_port_that_is_published_is_refused() {
    on_both_sites("", |site| {
        site.network("create web --subnet 10.5.0.0/24");
        site.network("create db --subnet 10.6.0.0/24");
        site.network(
            "connect web c1 --ip 10.5.0.11 --publish 8080:80 --publish 127.0.0.1:9090:80 --publish 7000-7009:1-10/udp",
        );
        site.network("connect db c2 --ip 10.6.0.12");
        site.serve("c1", "80");
        site.lab("plain", r#"host.dnat(#{ port: 6000, to: "10.5.0.12:80" });"#).ok();
        let up = site.w.snapshot();
        let mappings = [
            ("8080:80", "port 8080/tcp is published already, to `10.5.0.11:80`", "lab `net.web."),
            ("192.0.2.1:8080:80", "port 8080/tcp is published already", "lab `net.web."),
            ("8075-8085:75-85", "port 8080/tcp is published already", "lab `net.web."),
            ("9090:80", "port 9090/tcp is published already", "lab `net.web."),
            ("127.0.0.1:9090:81", "port 9090/tcp is published already", "lab `net.web."),
            ("7005:80/udp", "port 7005/udp is published already", "lab `net.web."),
            ("6000:80", "port 6000/tcp is published already, to `10.5.0.12:80`", "lab `plain`"),
        ];
        for (mapping, what, owner) in tier::spread(mappings, 3) {
            // Of the same network, of another, and in a plain lab.
            for words in ["web c3 --ip 10.5.0.13", "db c3 --ip 10.6.0.13"] {
                let ran = site.try_network(&format!("connect {words} --publish {mapping}")).fails(1);
                ran.says(what).says(owner);
                site.w.assert_clean(&up);
            }
            let statements = format!(
                r#"let p = port_mapping("{mapping}");
                   host.dnat(#{{ proto: p.proto, port: p.port, host_ip: p.host_ip ?? "0.0.0.0", to: "10.5.0.12", to_port: p.to_port }});"#
            );
            site.lab("late", &statements).fails(1).says(what).says(owner);
            site.w.assert_clean(&up);
        }
        site.network(
            "connect db c3 --ip 10.6.0.13 --publish 192.0.2.1:9090:80 --publish 8080:80/udp --publish 7005:80",
        );
        site.answers(&[("out", "192.0.2.1:8080", "c1 saw 192.0.2.2"), ("host", "127.0.0.1:9090", "c1 saw 10.5.0.1")]);
        site.w.topo(&["down", "plain"]).ok();
        site.network("rm --force web db");
    });
}

/// D7: of those that want one port at once exactly one gets it, whether in one network, in several or in plain labs.
#[test]
fn d7_of_many_at_once_exactly_one_gets_the_port() {
    on_site("", |site| {
        for n in 4..=8 {
            site.w.ip(&format!("netns add c{n}"));
        }
        // Each has a container, so that its pool has its file.
        for n in 6..=8 {
            site.network(&format!("create n{n} --subnet 10.{n}.0.0/24"));
            site.network(&format!("connect n{n} c{n} --ip 10.{n}.0.50"));
        }
        let up = site.w.snapshot();
        for _ in tier::spread(0..3, 1) {
            let containers = [(6, 1), (6, 2), (7, 3), (7, 4), (8, 5)];
            let lab = r#"host.dnat(#{ port: 8080, to: "192.0.2.2:80" });"#;
            let mut all = vec![("down plain".to_owned(), site.w.start_topo(&["run", "--name", "plain", "-e", lab]))];
            for (network, n) in containers {
                let words = format!("network connect n{network} c{n} --ip 10.{network}.0.1{n} --publish 8080:80");
                let running = site.w.start_topo(&words.split(' ').collect::<Vec<_>>());
                all.push((format!("network disconnect n{network} c{n}"), running));
            }
            let all: Vec<(String, Ran)> = all.into_iter().map(|(undo, running)| (undo, running.wait())).collect();
            let (won, lost): (Vec<_>, Vec<_>) = all.iter().partition(|(_, ran)| ran.code == 0);
            assert_eq!(won.len(), 1, "{all:#?}");
            for (_, ran) in lost {
                ran.clone().fails(1).says("port 8080/tcp is published already").says("by lab `");
            }
            let rules = site.rules();
            assert_eq!(rules.matches("tcp . 8080").count(), 1, "{rules}");
            site.w.topo(&won[0].0.split(' ').collect::<Vec<_>>()).ok();
            site.w.assert_clean(&up);
        }
        site.network("rm --force n6 n7 n8");
        (4..=8).for_each(|n| drop(site.w.ip(&format!("netns del c{n}"))));
        site.answers(&[("out", "192.0.2.1:8080", REFUSED)]);
    });
}

/// Kind: the kernel's bare word where more is known. With others' chains at each place of a hook a network is refused with what there is
/// no room for, and nothing of it is left.
#[test]
fn a_hook_that_is_full_is_told() {
    in_used_world("", |w, before| {
        w.run(
            r#"(echo 'table inet full {'; for n in $(seq 1023); do echo "chain c$n { type filter hook prerouting priority $n; }"; done
            echo '}') >full.nft; nft -f full.nft"#,
        )
        .ok();
        let full = w.snapshot();
        w.topo(&["network", "create", "web", "--subnet", "10.5.0.0/24"]).fails(1).says("1024 base chains at a hook");
        w.assert_clean(&full);
        w.run("nft delete table inet full; rm full.nft").ok();
        w.topo(&["network", "create", "web", "--subnet", "10.5.0.0/24"]).ok();
        w.topo(&["network", "rm", "web"]).ok();
        w.assert_clean(before);
    });
}
