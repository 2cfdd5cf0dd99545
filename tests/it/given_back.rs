//! Devices of others in a namespace of a lab: before the namespace goes they are given back. Judged by `ip` and the snapshot.

use super::stage::{build, in_used_world, with_fault};
use super::world::World;

/// A veth whose other end is elsewhere, a persistent tap, a VXLAN, and the parent of a macvlan.
const OTHERS: &str = "ip netns add out
ip link add eth7 type veth peer name peer7 netns out
ip link set eth7 mtu 1400 alias theirs
ip link property add dev eth7 altname the-uplink-of-others
ip tuntap add tap7 mode tap
ip link add vx7 type vxlan id 7 dstport 4790
ip link add par7 type veth peer name par8 netns out
ip link add mac7 link par7 type macvlan";

const MOVE_IN: &str = "for dev in eth7 tap7 vx7 par7; do ip link set $dev netns h1; done";

fn devices_of(w: &World, netns: &str) -> String {
    w.run(&format!("ip -n {netns} -o link show")).ok().stdout
}

/// The kernel destroys a virtual device with its namespace, and moves hardware to the first namespace of the machine: what others
/// moved in by hand is on the host again, however the namespace goes.
#[test]
fn what_others_moved_in_is_on_the_host_again() {
    in_used_world(OTHERS, |w, before| {
        let by_host = format!("let h = netns(\"h1\"); settle(); assert(host.exec(\"{MOVE_IN}\").ok);");
        // By a script that removes the namespace itself.
        let removed = format!("{by_host} h.remove(); assert(host[\"tap7\"].mtu == 1500);");
        build(w, "lab", &removed).ok().says("the lab did not make `eth7` of `h1`: it is on the host now");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
        // At the end of a run, and of one that failed.
        w.topo(&["run", "--rm", "--name", "lab", "-e", &by_host]).ok().says("`par7` of `h1`");
        w.assert_clean(before);
        build(w, "lab", &format!("{by_host} throw \"enough\";")).fails(1).says("enough");
        w.assert_clean(before);
        // By other commands: `down`, and `gc` of a lab whose `down` was cut short or that nobody knows any more.
        let cut = |point: u32| drop(with_fault(w, &format!("kill:{point}"), &["down", "lab"]));
        let ends: [&dyn Fn(); 4] = [
            &|| {
                w.topo(&["down", "lab"]).ok().says("on the host now");
            },
            &|| drop(w.topo(&["down", "--force", "lab"]).ok()),
            &|| {
                cut(4);
                w.topo(&["gc"]).ok();
                drop(w.topo(&["down", "lab"]));
            },
            &|| {
                w.run("rm -r state/labs/lab").ok();
                w.topo(&["gc"]).ok();
            },
        ];
        for end in ends {
            build(w, "lab", "netns(\"h1\"); netns(\"h2\");").ok();
            w.run(MOVE_IN).ok();
            end();
            w.assert_clean(before);
        }
    });
}

/// A name that is taken on the way back is an error that says so before anything is changed: no device has gone back, no process has
/// ended, and the handle stays good. Once the name is free the same command succeeds.
#[test]
fn a_taken_name_is_told_before_anything_is_changed() {
    in_used_world(OTHERS, |w, before| {
        build(w, "lab", "let h = netns(\"h1\"); h.start(\"sleep 1000\"); netns(\"h2\");").ok();
        w.run(&format!("{MOVE_IN}; ip link add tap7 type bridge")).ok();
        let up = w.snapshot();
        for _ in 0..2 {
            let down = w.topo(&["down", "lab"]).fails(1);
            for part in ["take down lab `lab`", "`tap7` of `h1`", "the host", "another device", "rename or delete"] {
                down.says(part);
            }
            w.assert_clean(&up);
        }
        w.topo(&["ls"]).ok().says("up");
        w.run("ip link del tap7").ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);

        // The same by a script, which catches it.
        let script = format!(
            "let h = netns(\"h1\"); let p = h.start(\"sleep 1000\"); settle();
             assert(host.exec(\"{MOVE_IN}; ip link add tap7 type bridge\").ok);
             try {{ h.remove(); throw \"removed\"; }} catch (e) {{ assert(e.kind == \"exists\", e.to_string()); }}
             assert(p.running && h.devs().map(|d| d.name).len() == 5);
             host.exec(\"ip link del tap7\");
             h.remove();"
        );
        build(w, "lab", &script).ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);

        // Two of one name, from two namespaces of the lab.
        build(w, "lab", "netns(\"h1\"); netns(\"h2\");").ok();
        w.run("ip link set tap7 netns h1; ip tuntap add tap7 mode tap; ip link set tap7 netns h2").ok();
        w.topo(&["down", "lab"]).fails(1).says("goes there too");
        w.run("ip -n h2 link del tap7").ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// `down --force` finds another name, as the kernel does for hardware.
#[test]
fn by_force_it_comes_back_under_another_name() {
    in_used_world(OTHERS, |w, before| {
        for statements in ["let h = netns(\"h1\");", "let h = netns(\"h1\"); host[\"eth7\"].move_to(h);"] {
            build(w, "lab", statements).ok();
            w.run("ip link set eth7 netns h1 2>/dev/null || true; ip link add eth7 type bridge").ok();
            w.topo(&["down", "lab"]).fails(1).says("eth7");
            w.topo(&["down", "--force", "lab"]).ok().says("goes back as `dev");
            w.run(
                "ip link del eth7; dev=$(ip -o link show type veth | sed -n 's/.*: \\(dev[0-9]*\\)@.*/\\1/p')
                 ip link set $dev down; ip link set $dev name eth7",
            )
            .ok();
            w.assert_clean(before);
        }
    });
}

/// A device that a step moved goes back to where it came from, with its name, its state and its settings, also where it was renamed
/// in between, and where a namespace on its way has gone.
#[test]
fn what_a_step_moved_goes_back_to_where_it_came_from() {
    let others = format!(
        "{OTHERS}; ip link set eth7 up; ip netns add theirs; ip link add far7 netns theirs type veth peer name far8 netns out
         echo 2 >/proc/sys/net/ipv4/conf/eth7/rp_filter"
    );
    in_used_world(&others, |w, before| {
        let begin = "let h1 = netns(\"h1\"); let h2 = netns(\"h2\"); let dev = host[\"eth7\"];";
        for statements in [
            "dev.move_to(h1); h1.remove(); assert(host[\"eth7\"].state != \"down\"); assert(dev.netns == host);",
            "dev.move_to(h1); dev.rename(\"lan7\"); h1.remove();",
            "dev.rename(\"lan7\"); dev.move_to(h1); h1.remove();",
            "dev.move_to(h1); settle(); h1.exec(\"ip link set eth7 down; ip link set eth7 name lan7\"); h1.remove();",
            "dev.move_to(h1); dev.move_to(h2); h1.remove();",
            "dev.move_to(h1); dev.move_to(h2); h2.remove(); assert(h1[\"eth7\"].kind == \"veth\");",
            "dev.move_to(h1); dev.move_to(h2); h1.remove(); h2.remove();",
            "dev.move_to(h1); h1.remove(); dev.move_to(h2);",
            "netns_get(\"theirs\")[\"far7\"].move_to(h1); h1.remove(); netns_get(\"theirs\")[\"far7\"].move_to(h2);",
        ] {
            println!("{statements}");
            build(w, "lab", &format!("{begin} {statements}")).ok();
            w.topo(&["down", "lab"]).ok();
            w.assert_clean(before);
        }
        // Renamed by hand while the lab is up.
        build(w, "lab", &format!("{begin} dev.move_to(h1);")).ok();
        w.run("ip -n h1 link set eth7 down; ip -n h1 link set eth7 name lan7").ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A lab that is a part of this one, or another one, moved the device in: its step tells where it came from.
#[test]
fn what_another_lab_moved_in_goes_back_by_its_step() {
    let others = format!("{OTHERS}; ip link set eth7 up; echo 2 >/proc/sys/net/ipv4/conf/eth7/rp_filter");
    in_used_world(&others, |w, before| {
        let move_in = "host[\"eth7\"].move_to(netns_get(\"h1\"));";
        for (name, order) in [("a", ["a", "b"]), ("b", ["b", "a"])] {
            println!("{name} goes first");
            build(w, "a", "netns(\"h1\");").ok();
            build(w, "b", &format!("{move_in} settle();")).ok();
            assert!(devices_of(w, "h1").contains("eth7"));
            w.topo(&["down", order[0]]).ok();
            assert_eq!(w.run("cat /proc/sys/net/ipv4/conf/eth7/rp_filter").ok().out().trim(), "2");
            w.topo(&["down", order[1]]).ok();
            w.assert_clean(before);
        }
        let part = format!("let h = netns(\"h1\"); lab_within(\"part\", #{{}}, || {{ {move_in} }});");
        for end in ["h.remove(); assert(host[\"eth7\"].state != \"down\");", ""] {
            build(w, "lab", &format!("{part} {end}")).ok();
            w.topo(&["down", "lab"]).ok();
            w.assert_clean(before);
        }
    });
}

/// What was made inside goes with the namespace: by commands of the script, and by hand where the kernel tells.
#[test]
fn what_was_made_inside_goes_with_the_namespace() {
    in_used_world("ip netns add out", |w, before| {
        let make =
            "ip link add made0 type ifb; ip tuntap add made1 mode tap; ip link add made2 type vxlan id 9 dstport 4791";
        let script = format!(
            "for name in [\"h1\", \"h2\"] {{ assert(netns(name).exec(\"{make}\").ok); }}
             netns_get(\"h2\").start(\"ip link add made3 type ifb; echo up; exec sleep 1000\", #{{ ready: \"up\" }});"
        );
        build(w, "lab", &script).ok();
        w.run(
            "ip -n h1 link add br9 type bridge; ip link add one netns h1 type veth peer name two netns h2
             ip -n h1 link add mac9 link one type macvlan; ip -n h2 link add three type veth peer name four",
        )
        .ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
        build(w, "lab", &format!("{script} netns_get(\"h1\").remove();")).ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// What is kept open for each of many: a lab of more namespaces than the limit of descriptors goes down, and gives back what others
/// moved into the last of them.
#[test]
fn a_lab_of_more_namespaces_than_descriptors_goes_down() {
    in_used_world("ip netns add other; ip link add theirs type veth peer name end netns other", |w, before| {
        let few = |words: &str| w.run(&format!("ulimit -n 120; exec topo {words}"));
        few("run --name lab -e 'for i in 0..130 { netns(`h${i}`); }'").ok();
        w.ip("link set theirs netns h129");
        few("down lab").ok().says("theirs");
        w.assert_clean(before);
    });
}
