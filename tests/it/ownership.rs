//! Ownership: what others have stays as it is, whatever its name; what a lab made is found again by the lab's journal and
//! by its mark. Judged by `ip` and the snapshot.

use super::stage::{build, in_used_world, kill_at_each_point};

/// Tries each script, which wants what is somebody else's already: it is refused, with an error of the kind given (an
/// empty one where the kernel allows both), and a run that is killed on the way to the refusal takes nothing of theirs along.
fn refused(others: &str, tries: &[(&str, &str)]) {
    in_used_world(others, |w, before| {
        for (statements, kind) in tries {
            let ran = w.topo(&["run", "--json", "--name", "lab", "-e", statements]);
            match *kind {
                "" => w.topo(&["down", "lab"]).ok(),
                kind => ran.fails(1).says(&format!(r#""kind": "{kind}""#)).clone(),
            };
            w.assert_clean_so_far(before);
            w.topo(&["gc"]).ok();
            w.assert_clean_so_far(before);
            // Something of its own first, so that there is a journal to undo.
            kill_at_each_point(w, before, &format!("bridge(\"mine\"); settle(); {statements}"));
            w.assert_clean(before);
        }
    });
}

#[test]
fn a_device_of_the_same_name_is_refused() {
    refused(
        "ip link add taken type veth peer name taken2
         ip link property add dev taken altname a-long-name-of-theirs
         ip link add cable--ad1befc5 type bridge # what cable-end-with-a-long-name is shortened to",
        &[
            (r#"bridge("taken");"#, "exists"),
            (r#"veth("a", "taken");"#, "exists"),
            (r#"veth(netns("h")["a"], "taken");"#, "exists"),
            (r#"veth("a", "b"); host["a"].rename("taken");"#, "exists"),
            (r#"let h = netns("h"); veth(h["taken"], "b"); h["taken"].move_to(host);"#, "exists"),
            (r#"bridge("a-long-name-of-theirs");"#, "exists"),
            (r#"bridge("cable-end-with-a-long-name");"#, "exists"),
        ],
    );
}

#[test]
fn a_bridge_of_the_same_name_is_not_adopted() {
    refused(
        "ip link add br0 type bridge; ip link set br0 up; ip addr add 10.0.0.1/24 dev br0",
        &[(r#"bridge("br0");"#, "exists"), (r#"bridge("br0", #{ mtu: 1400 });"#, "exists")],
    );
}

#[test]
fn a_netns_of_the_same_name_is_refused() {
    refused(
        "ip netns add h1
         ip -n h1 link add inside type bridge
         echo theirs >/run/netns/file
         mkdir /run/netns/dir
         ln -s h1 /run/netns/link",
        &[
            (r#"netns("h1");"#, "exists"),
            (r#"netns("file");"#, "exists"),
            (r#"netns("dir");"#, "exists"),
            (r#"netns("link");"#, "exists"),
            (r#"netns_get("h1").remove();"#, "denied"),
        ],
    );
}

/// What is on a device that others share: the same content is one thing, whoever added it.
const SHARED: [(&str, &str); 9] = [
    ("ip route add blackhole 192.0.2.0/24", r#"host.route("192.0.2.0/24", #{ blackhole: true });"#),
    ("ip route add 192.0.2.0/24 via 198.51.100.9", r#"host.route("192.0.2.0/24", #{ via: "198.51.100.9" });"#),
    ("ip route add 192.0.2.0/24 dev ext0 table 77", r#"host.route("192.0.2.0/24", #{ dev: "ext0", table: 77 });"#),
    ("ip route add unreachable 2001:db8:5::/48", r#"host.route("2001:db8:5::/48", #{ unreachable: true });"#),
    ("ip route add 2001:db8:6::/48 dev ext0", r#"host.route("2001:db8:6::/48", #{ dev: "ext0" });"#),
    (
        "ip rule add from 10.0.0.0/24 table 77 priority 500",
        r#"host.rule(#{ from: "10.0.0.0/24", table: 77, priority: 500 });"#,
    ),
    ("ip addr add 203.0.113.5/24 dev ext0", r#"host["ext0"].addr("203.0.113.5/24");"#),
    ("ip addr add 2001:db8::5/64 dev ext0 nodad", r#"host["ext0"].addr("2001:db8::5/64");"#),
    (
        "ip neigh add 198.51.100.77 lladdr 02:00:00:00:00:77 dev ext0 nud permanent",
        r#"host.neigh("198.51.100.77", #{ dev: "ext0", mac: "02:00:00:00:00:77" });"#,
    ),
];

const EXT0: &str = "ip link add ext0 type veth peer name ext1
ip link set ext0 up
ip link set ext1 up
ip addr add 198.51.100.1/24 dev ext0
";

#[test]
fn the_same_route_rule_address_or_neighbour_of_others_stays() {
    let others: String =
        SHARED.iter().filter(|(theirs, _)| !theirs.contains("via")).map(|(theirs, _)| format!("{theirs}\n")).collect();
    // Rules of two owners are two rules to the kernel.
    let kind = |ours: &str| if ours.contains("host.rule") { "" } else { "exists" };
    let tries: Vec<(&str, &str)> = SHARED.iter().map(|(_, ours)| (*ours, kind(ours))).collect();
    refused(&format!("{EXT0}{others}"), &tries);
}

/// What one lab has, another one asks for too: refused, and the first one's stays, whatever becomes of the second run.
#[test]
fn the_same_route_rule_address_or_neighbour_of_another_lab_stays() {
    in_used_world(EXT0, |w, _| {
        for (_, statements) in SHARED {
            build(w, "first", statements).ok();
            let up = w.snapshot();
            build(w, "second", statements).fails(1).says("exists");
            w.assert_clean(&up);
            kill_at_each_point(w, &up, &format!("bridge(\"mine\"); {statements}"));
            w.assert_clean(&up);
            w.topo(&["down", "first"]).ok();
        }
    });
}

/// What the lab has already is refused the second time, and stays.
#[test]
fn the_same_route_rule_address_or_neighbour_twice_stays() {
    in_used_world(EXT0, |w, before| {
        for (_, statements) in SHARED {
            build(w, "first", statements).ok();
            let once = w.snapshot();
            w.topo(&["down", "first"]).ok();
            w.assert_clean(before);
            let caught = format!(
                r#"{statements} settle();
                   let caught = "";
                   try {{ {statements} settle(); }} catch (e) {{ caught = e.kind; }}
                   assert(caught == "exists");"#
            );
            build(w, "first", &caught).ok();
            assert_eq!(without_files(&once.diff(&w.snapshot())), "", "{statements}");
            w.topo(&["down", "first"]).ok();
            w.assert_clean(before);
        }
    });
}

/// Leaves the section of files, with the state directory's journals, out of a difference.
fn without_files(diff: &str) -> &str {
    diff.split("files:\n").next().unwrap_or_default()
}

/// A device of others goes through everything that a script can do with it, and comes back as it was.
#[test]
fn a_device_of_others_comes_back_as_it_was() {
    let others = format!(
        "{EXT0}ip link set ext1 down
         ip link add mov0 type veth peer name mov1
         ip link set mov0 up mtu 1400 alias theirs
         ip link property add dev mov0 altname another-name-of-theirs
         ip addr add 2001:db8::7/64 dev ext0 nodad"
    );
    in_used_world(&others, |w, before| {
        for statements in [
            r#"host["mov0"].rename("mov9");"#,
            r#"host["mov0"].rename("a-name-that-is-longer-than-theirs");"#,
            r#"host["mov0"].rename("mov9"); settle(); host["mov9"].down();"#,
            r#"host["mov0"].rename("mov9"); host["mov9"].down();"#,
            r#"host["mov0"].rename("mov9"); host.sysctl("net.ipv4.conf.mov9.rp_filter", 2);"#,
            r#"host["mov0"].down(); host["mov0"].rename("mov9"); host["mov9"].up();"#,
            r#"host["mov0"].down(); settle(); host["mov0"].up(); settle(); host["mov0"].down();"#,
            r#"host["mov0"].move_to(netns("h1"));"#,
            r#"let h = netns("h1"); host["mov0"].rename("mov9"); host["mov9"].move_to(h); h["mov9"].addr("10.0.0.1/24");"#,
            r#"let h = netns("h1"); host["mov0"].move_to(h); h["mov0"].rename("mov9"); h["mov9"].down();"#,
            r#"let d = host["mov0"]; d.move_to(netns("h1")).move_to(netns("h2"));"#,
            r#"bridge("br0").attach(host["mov0"]);"#,
            r#"let br = bridge("br0"); br.attach(host["mov0"]); br.detach(host["mov0"]); settle();"#,
            r#"host["ext1"].up();"#,
        ] {
            println!("{statements}");
            build(w, "lab", &format!("{statements} settle(); throw \"enough\";")).fails(1).says("enough");
            w.assert_clean(before);
            build(w, "lab", statements).ok();
            w.topo(&["down", "lab"]).ok();
            w.assert_clean(before);
            kill_at_each_point(w, before, statements);
        }
    });
}

/// What a change would take from a device of others for good is refused, with the reason: the kernel drops addresses and
/// routes of a device that goes down, moves or becomes a port.
#[test]
fn what_could_not_be_given_back_is_not_taken() {
    let devices: String = ["port", "addr6", "routed", "plain"]
        .iter()
        .map(|name| {
            format!("ip link add {name} type veth peer name {name}-p; ip link set {name} up; ip link set {name}-p up\n")
        })
        .collect();
    let others = format!(
        "{devices}ip link add theirs type bridge; ip link set theirs up; ip link set port master theirs
         ip addr add 2001:db8::9/64 dev addr6 nodad
         ip addr add 192.0.2.1/24 dev addr6
         ip route add 10.66.0.0/16 dev routed
         ip route add 10.67.0.0/16 via 192.0.2.9 dev addr6
         ip neigh add 10.66.0.9 lladdr 02:00:00:00:00:09 dev routed nud permanent
         echo 2 >/proc/sys/net/ipv4/conf/plain/rp_filter"
    );
    in_used_world(&others, |w, before| {
        for statements in [
            r#"host["addr6"].move_to(netns("h"));"#,
            r#"host["routed"].move_to(netns("h"));"#,
            r#"host["port"].move_to(netns("h"));"#,
            r#"host["plain"].move_to(netns("h"));"#,
            r#"host["addr6"].down();"#,
            r#"host["routed"].down();"#,
            r#"host["addr6"].rename("other");"#,
            r#"host["routed"].rename("other");"#,
            r#"host["port"].rename("other");"#,
            r#"bridge("br0").attach(host["addr6"]);"#,
            r#"bridge("br0").attach(host["port"]);"#,
            r#"host["theirs"].detach(host["port"]);"#,
            r#"host["theirs"].attach(host["plain"]);"#,
        ] {
            // Refused or done, as the script's author likes; in the end all is there.
            println!("{statements}");
            let ran = build(w, "lab", statements);
            assert!(ran.code < 2 && !ran.err().contains("panicked"), "{}", ran.err());
            w.topo(&["down", "--all"]).ok();
            w.assert_clean(before);
        }
    });
}

/// A bridge of others without ports takes the hardware address of the first one that it gets, and gets its own back.
#[test]
fn a_bridge_of_others_keeps_its_address() {
    let others = "ip link add theirs type bridge; ip link set theirs up
         ip link add p0 type veth peer name p1; ip link set p0 master theirs; ip link set p0 nomaster; ip link del p0
         ip link set theirs address 02:00:00:00:00:0b
         ip link add empty type bridge; ip link set empty up";
    // Made and removed in here: that they were ports' bridges once shows in their offloads, which others may change.
    in_used_world("", |w, _| {
        w.run(others).ok();
        let mac = |name: &str| w.run(&format!("cat /sys/class/net/{name}/address")).ok().stdout;
        let before = (mac("theirs"), mac("empty"));
        build(w, "lab", r#"for br in ["theirs", "empty"] { veth(netns(`h-${br}`)["eth0"], host[br]); }"#).ok();
        w.topo(&["down", "lab"]).ok();
        assert_eq!((mac("theirs"), mac("empty")), before);
        w.run("ip link del empty; ip link del theirs").ok();
    });
}

/// Settings of the host that belong together are set back together: forwarding for all devices is also each one's, and
/// turns redirects off.
#[test]
fn settings_of_the_host_come_back_one_by_one() {
    let others = format!(
        "{EXT0}echo 1 >/proc/sys/net/ipv4/conf/ext0/forwarding
         echo 0 >/proc/sys/net/ipv4/conf/all/accept_redirects
         echo 1 >/proc/sys/net/ipv6/conf/ext1/forwarding"
    );
    in_used_world(&others, |w, before| {
        for statements in [
            "host.forward(true);",
            "host.forward(true); settle(); host.forward(false);",
            "host.forward(false); host.forward(true);",
            r#"host.sysctl("net.ipv4.conf.all.forwarding", 1);"#,
            r#"host.sysctl("net.ipv6.conf.all.disable_ipv6", 1);"#,
            r#"host.sysctl("net.ipv4.conf.ext0.rp_filter", 2); host.sysctl("net.ipv4.conf.ext0.rp_filter", 1);"#,
            r#"host.sysctl("net.ipv4.ip_local_port_range", "30000 40000"); host.sysctl("net.ipv4.tcp_rmem", "4096 8192 16384");"#,
        ] {
            println!("{statements}");
            build(w, "lab", statements).ok();
            w.topo(&["down", "lab"]).ok();
            w.assert_clean(before);
            kill_at_each_point(w, before, statements);
        }
    });
}

/// A name that was given again: what a lab set in a namespace of others is not taken back in a later one of that name, by `down`, `gc`
/// and a part of another lab alike.
#[test]
fn a_later_namespace_of_the_same_name_is_left_alone() {
    const THEIRS: &str = "ip netns add c1; ip netns exec c1 sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv4.conf.all.accept_redirects=0
        ip netns exec c1 nft add table inet theirs; ip -n c1 link set lo up; ip -n c1 route add blackhole 10.9.0.0/16";
    let ways = [r#"let c = netns_get("c1");"#, r#"let c = netns_open("/run/netns/c1");"#, r#"let c = netns_of("c1");"#];
    in_used_world("ip netns add other", |w, _| {
        for way in ways {
            w.run("ip netns add c1").ok();
            let does = r#"c.forward(true); c.route("10.9.0.0/16", #{ blackhole: true }); veth("up0", c["eth0"])[1].autoconf(false);"#;
            let does = format!("{way} {does} c.filter(\"input\", \"drop\", #{{ proto: \"tcp\", port: 1 }});");
            w.topo(&["run", "--name", "lab", "-e", &does]).ok();
            w.run("ip netns del c1").ok();
            w.run(THEIRS).ok();
            let look = "ip netns exec c1 sh -c 'grep -rsH . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward; nft list ruleset'; ip -n c1 route; ip -n c1 link";
            let before = w.run(look).ok().stdout;
            assert!(before.contains("blackhole 10.9.0.0/16") && before.contains("table inet theirs"), "{before}");
            w.topo(&["ls"]).ok();
            w.topo(&["down", "lab"]).ok();
            assert_eq!(w.run(look).ok().stdout, before, "{way}");
            w.run("ip netns del c1").ok();
        }
    });
}
