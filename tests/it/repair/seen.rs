//! What `topo ls` and `topo show` say of damage inside of namespaces, in parts of labs, of several labs at once, and where they can't look.
//!
//! Kind of fault: a lab is called up by its record, where only the host was looked at.

use super::super::stage::{build, in_used_world};
use super::super::world::World;
use super::{drift, shown, state};

/// Namespaces of others: one with a name, and that of a process.
const OTHERS: &str = "
ip netns add c
unshare -n sleep 3001 >/dev/null 2>&1 & p=$!
until [ \"$(readlink /proc/$p/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done; echo $p >pid
";

/// ```text
/// h1 (eth0) -- (lan0) c          h2 (eth0) -- (lan0) a process
/// ```
///
/// Nothing of it is on the host.
fn inner(w: &World) -> String {
    let pid = w.run("cat pid").ok().stdout.trim().to_owned();
    let lab = r#"
        let h1 = netns("h1"); let h2 = netns("h2"); let c = netns_get("c"); let p = netns_of_pid(PID);
        for pair in [[h1, c, "10.1.0."], [h2, p, "10.2.0."]] {
            veth(pair[0]["eth0"], pair[1]["lan0"]);
            pair[0]["eth0"].addr(pair[2] + "1/24");
            pair[1]["lan0"].addr(pair[2] + "2/24");
            for ns in [pair[0], pair[1]] {
                ns.route("192.0.2.0/24", #{ blackhole: true });
                ns.rule(#{ from: "10.9.0.0/16", table: 100, priority: 500 });
                ns.sysctl("net.ipv4.ip_default_ttl", 33);
                ns.filter("input", "drop", #{ proto: "tcp", port: 22 });
            }
        }
        p.lo_up();"#;
    build(w, "lab", &lab.replace("PID", &pid)).ok();
    pid
}

/// Each damage is inside of a namespace of the lab's own, of one by `ip netns`, or of that of a process.
#[test]
fn damage_inside_of_namespaces_is_seen() {
    in_used_world(OTHERS, |w, _| {
        let pid = inner(w);
        assert_eq!(state(w, "lab"), "up");
        for (at, lost) in [
            ("ip -n h1 link set eth0 down", "add veth `eth0` of `h1`"),
            ("ip -n c link del lan0", "add veth `eth0` of `h1`"),
            ("ip -n h1 route del blackhole 192.0.2.0/24", "to netns `h1`"),
            ("ip -n c route del blackhole 192.0.2.0/24", "to netns `c`"),
            ("ip -n h1 rule del priority 500", "to netns `h1`"),
            ("ip -n c rule del priority 500", "to netns `c`"),
            ("ip netns exec h1 sysctl -qw net.ipv4.ip_default_ttl=64", "ip_default_ttl"),
            ("ip netns exec c sysctl -qw net.ipv4.ip_default_ttl=64", "ip_default_ttl"),
            ("ip netns exec h1 nft flush ruleset", "in netns `h1`"),
            ("ip netns exec c nft flush ruleset", "in netns `c`"),
            ("ip -n h1 link set lo down", "add netns `h1`"),
            ("nsenter -t PID -n ip link set lo down", "set `lo` up"),
            ("nsenter -t PID -n ip address del 10.2.0.2/24 dev lan0", "10.2.0.2/24"),
            ("nsenter -t PID -n ip route del blackhole 192.0.2.0/24", "192.0.2.0/24"),
            ("nsenter -t PID -n nft flush ruleset", "table"),
        ] {
            println!("{at}");
            w.run(&at.replace("PID", &pid)).ok();
            assert_eq!(state(w, "lab"), "damaged");
            let (word, damage) = shown(w, "lab");
            assert_eq!((word.as_str(), &damage), ("damaged", &drift(w, "lab")));
            assert!(damage.iter().any(|what| what.contains(lost)), "`{lost}` is not in {damage:?}");
            w.topo(&["show", "lab"]).ok().says(&format!("\nlost: {}\n", damage[0]));
            w.topo(&["repair", "lab"]).ok();
            assert_eq!((state(w, "lab"), shown(w, "lab")), ("up".into(), ("up".into(), Vec::new())));
        }
        w.topo(&["down", "lab"]).ok();
    });
}

/// A lab whose part is damaged is damaged too, up to the outermost one; the labs beside it are not.
#[test]
fn damage_to_a_part_is_that_of_its_whole() {
    in_used_world("ip netns add c", |w, _| {
        let statements = r#"
            let c = netns_get("c");
            lab_within("part", #{}, || {
                lab_within("inner", #{}, || { c.route("192.0.2.0/24", #{ blackhole: true }); });
                netns("h2");
            });
            lab_within("beside", #{}, || { netns("h3").route("192.0.2.0/24", #{ blackhole: true }); });
            netns("h1");"#;
        build(w, "lab", statements).ok();
        let states = |w: &World| ["lab", "part", "inner", "beside"].map(|lab| state(w, lab));
        assert_eq!(states(w), ["up"; 4]);
        w.run("ip -n c route del blackhole 192.0.2.0/24").ok();
        assert_eq!(states(w), ["damaged", "damaged", "damaged", "up"]);
        for lab in ["lab", "part", "inner"] {
            assert_eq!(
                shown(w, lab),
                ("damaged".into(), vec!["add route `blackhole 192.0.2.0/24` to netns `c`".into()])
            );
        }
        assert_eq!(shown(w, "beside"), ("up".into(), Vec::new()));
        w.topo(&["repair", "lab"]).ok();
        assert_eq!(states(w), ["up"; 4]);
        w.topo(&["down", "lab"]).ok();
    });
}

/// Labs that share the host, whose lists are read once for all: only the one is called damaged that is, by what is its own.
#[test]
fn of_many_labs_only_the_damaged_one_is_called_so() {
    in_used_world("ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up", |w, _| {
        let lab = r#"
            let h = netns("hN"); let br = bridge("brN");
            veth(h["eth0"], br);
            br.addr("10.N.0.254/24");
            host.route("192.0.N.0/24", #{ blackhole: true });
            host.rule(#{ from: "10.N.0.0/24", table: 100, priority: 50N });
            host["ext0"].addr("198.51.100.N/32");
            host.forward(true);
            host.masquerade("10.N.0.0/24", #{ not_out: "brN" });
            host.dnat(#{ port: 808N, to: "10.N.0.1:80" });
            h.sysctl("net.ipv4.ip_default_ttl", 33);"#;
        for n in ["1", "2", "3"] {
            build(w, &format!("lab{n}"), &lab.replace('N', n)).ok();
        }
        let states = |w: &World| ["lab1", "lab2", "lab3"].map(|lab| state(w, lab));
        assert_eq!(states(w), ["up"; 3]);
        for damage in [
            "ip route del blackhole 192.0.2.0/24",
            "ip rule del priority 502",
            "ip addr del 198.51.100.2/32 dev ext0",
            "ip addr del 10.2.0.254/24 dev br2",
            "nft delete table inet $(nft list tables | grep -o 'topo-[^ ]*lab2')",
            "nft flush map inet $(nft list tables | grep -o 'topo-[^ ]*lab2') v4",
            "ip netns exec h2 sysctl -qw net.ipv4.ip_default_ttl=64",
        ] {
            println!("{damage}");
            w.run(damage).ok();
            assert_eq!(states(w), ["up", "damaged", "up"]);
            w.topo(&["repair", "lab2"]).ok();
            assert_eq!(states(w), ["up"; 3]);
        }
        // What all of them hold is missed by all.
        w.run("sysctl -qw net.ipv4.ip_forward=0").ok();
        assert_eq!(states(w), ["damaged"; 3]);
        w.run("sysctl -qw net.ipv4.ip_forward=1").ok();
        assert_eq!(states(w), ["up"; 3]);
        w.topo(&["down", "--all"]).ok();
    });
}

/// Labs that come and go while somebody looks are never called damaged, and no look fails.
#[test]
fn labs_that_come_and_go_are_not_damaged() {
    in_used_world("ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up", |w, _| {
        const ROUNDS: usize = 12;
        let lab = r#"
            let h = netns("hN"); let br = bridge("brN");
            veth(h["eth0"], br);
            host["ext0"].addr("198.51.100.N/32");
            host.route("192.0.N.0/24", #{ blackhole: true });
            host.forward(true);
            host.masquerade("10.N.0.0/24", #{ not_out: "brN" });"#;
        std::thread::scope(|scope| {
            let builders = ["1", "2"].map(|n| {
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        build(w, &format!("lab{n}"), &lab.replace('N', n)).ok();
                        w.topo(&["down", &format!("lab{n}")]).ok();
                    }
                })
            });
            while builders.iter().any(|builder| !builder.is_finished()) {
                let listed = w.topo(&["ls"]).ok();
                assert!(!listed.out().contains("damaged"), "{}", listed.out());
            }
        });
    });
}

/// Where a process can't look, it does not call a lab damaged, and says that it has not looked.
#[test]
fn a_lab_that_can_not_be_looked_into_is_unseen() {
    in_used_world("mkdir -p /run/netns; ip netns add other; ip netns add c", |w, _| {
        let topo = w.program().display();
        let lab = r#"netns("h").route("192.0.2.0/24", #{ blackhole: true }); bridge("b0");"#;
        w.run(&format!("nsenter --net=/run/netns/other {topo} run --name away -e '{lab}'")).ok();
        build(w, "here", r#"netns_get("c").route("192.0.2.0/24", #{ blackhole: true });"#).ok();
        // Another network namespace.
        w.run("ip -n h route del blackhole 192.0.2.0/24; ip -n c route del blackhole 192.0.2.0/24").ok();
        let rows = w.topo(&["ls"]).ok();
        rows.says("away  lab   up (unseen)").says("here  lab   damaged");
        w.topo(&["ls", "--json"]).ok().says("it was made in another network namespace");
        w.topo(&["show", "away"])
            .ok()
            .says("lab away: up")
            .says("not looked into: it was made in another network namespace");
        w.run(&format!("nsenter --net=/run/netns/other {topo} ls"))
            .ok()
            .says("away  lab   damaged")
            .says("here  lab   up (unseen)");
        // No rights.
        let all = w.run(&format!("setpriv --bounding-set=-net_admin --inh-caps=-net_admin {topo} ls")).ok();
        all.says("away  lab   up (unseen)").says("here  lab   up (unseen)");
        w.run(&format!("nsenter --net=/run/netns/other {topo} down away")).ok();
        // Its host has ended, with all that was there.
        w.run(&format!(
            "ip netns add gone; nsenter --net=/run/netns/gone {topo} run --name away -e '{lab}'; ip netns del gone"
        ))
        .ok();
        w.topo(&["ls"]).ok().says("away  lab   damaged");
        w.topo(&["show", "away"]).ok().says("lost: the network namespace that was its host has ended");
        w.topo(&["down", "--all"]).ok();
        w.topo(&["gc"]).ok();
    });
}
