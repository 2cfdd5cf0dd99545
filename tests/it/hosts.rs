//! One state directory used from several network namespaces: what a lab made on `host` is undone there and nowhere else.

use super::stage::in_used_world;

const LAB: &str = r#"let h = netns("h"); let br = bridge("b0"); br.addr("10.9.0.1/24"); veth(h["eth0"], br); host.forward(true); host.route("192.0.2.0/24", #{ blackhole: true }); host.masquerade("10.9.0.0/24");"#;
/// The same things in the first namespace, made by somebody else.
const SAME: &str = "ip link add b0 type bridge; ip link set b0 up; ip addr add 10.9.0.1/24 dev b0
    ip route add blackhole 192.0.2.0/24 proto 84; sysctl -qw net.ipv4.ip_forward=1";

/// Made in `other`, a lab is not taken down, repaired or entered from the first namespace; the refusal says where to go.
#[test]
fn a_lab_of_another_network_namespace_is_refused() {
    in_used_world(&format!("mkdir -p /run/netns; ip netns add other; {SAME}"), |w, before| {
        let topo = w.program().display();
        w.run(&format!("nsenter --net=/run/netns/other {topo} run --name x -e '{LAB}'")).ok();
        // Names are kept for the next time.
        w.topo(&["exec", "x/h", "true"]).ok();
        let up = w.snapshot();
        for command in [&["down", "x"][..], &["repl", "x"], &["exec", "x/host", "true"], &["down", "--all"]] {
            w.topo(command).fails(1).says("another network namespace").says("nsenter --net=/run/netns/other topo");
            w.assert_clean(&up);
        }
        w.topo(&["show", "x"]).ok().says("not the one that topo runs in");
        w.topo(&["exec", "x/h", "true"]).ok();
        w.topo(&["down", "--forget", "y"]).fails(1);
        w.topo(&["gc"]).ok().says("nothing was left behind");
        w.assert_clean(&up);
        w.run(&format!("nsenter --net=/run/netns/other {topo} down x")).ok();
        w.assert_clean(before);
    });
}

/// The way in is found whatever holds the namespace: here a process alone.
#[test]
fn the_way_to_a_namespace_without_a_name_is_found() {
    in_used_world("mkdir -p /run/netns", |w, before| {
        let topo = w.program().display();
        w.run(&format!("ip netns add other; nsenter --net=/run/netns/other {topo} run --name x -e '{LAB}'")).ok();
        w.run(
            "ip netns exec other sleep 3001 >/dev/null 2>&1 &
             until pgrep -fx 'sleep 3001' >/dev/null; do sleep 0.02; done; ip netns del other",
        )
        .ok();
        w.topo(&["down", "x"]).fails(1).says("nsenter -t ");
        w.run(&format!(
            "nsenter -t $(pgrep -fx 'sleep 3001') -n {topo} down x; kill $(pgrep -fx 'sleep 3001'); umount /run/netns"
        ))
        .ok();
        w.assert_clean(before);
    });
}

/// The namespace has ended: what is left of the lab goes, and what others have in the first namespace stays.
#[test]
fn a_lab_whose_network_namespace_has_ended_is_taken_down_without_it() {
    in_used_world(SAME, |w, before| {
        let topo = w.program().display();
        let build = format!(
            "mkdir -p /run/netns; ip netns add other; nsenter --net=/run/netns/other {topo} run --name x -e '{LAB}'; ip netns del other; rmdir /run/netns 2>/dev/null || true"
        );
        w.run(&build).ok();
        w.topo(&["repl", "x"]).fails(1).says("has ended");
        w.topo(&["down", "x"]).ok();
        // What was noted of the settings of a host that has ended is of no use.
        w.topo(&["gc"]).ok();
        w.run("umount /run/netns 2>/dev/null; rmdir /run/netns 2>/dev/null || true").ok();
        w.assert_clean(before);
        // A run that was killed there is collected as well.
        let killed = build
            .replace(&format!("{topo} run"), &format!("env TOPO_FAULT=kill:15 {topo} run"))
            .replace("; ip netns del", " || true; ip netns del");
        w.run(&killed).ok();
        w.topo(&["gc"]).ok();
        w.run("umount /run/netns 2>/dev/null; rmdir /run/netns 2>/dev/null || true").ok();
        w.assert_clean(before);
    });
}

/// A container's endpoint can't be made where its network is not.
#[test]
fn a_part_is_made_where_its_whole_is() {
    in_used_world("mkdir -p /run/netns; ip netns add other; ip netns add c", |w, before| {
        let topo = w.program().display();
        w.run(&format!("nsenter --net=/run/netns/other {topo} network create --subnet 10.77.0.0/24 web")).ok();
        let up = w.snapshot();
        w.topo(&["network", "connect", "web", "c"]).fails(1).says("another network namespace");
        w.topo(&["network", "rm", "web"]).fails(1).says("another network namespace");
        w.assert_clean(&up);
        w.run(&format!("nsenter --net=/run/netns/other {topo} network rm web")).ok();
        w.assert_clean(before);
    });
}

/// A lab of another pid namespace, with the same state directory: its processes can't be ended from here, and nobody here can tell
/// whether its run is alive.
#[test]
fn a_lab_of_another_pid_namespace_is_refused() {
    in_used_world("", |w, before| {
        let topo = w.program().display();
        w.run(&format!("unshare -pf --mount-proc {topo} run --name x -e 'let h = netns(\"h\"); h.exec(\"sleep 3001 >/dev/null 2>&1 &\");'")).ok();
        w.topo(&["down", "x"]).fails(1).says("another pid namespace").says("topo down --forget x");
        w.topo(&["gc"]).ok().says("nothing was left behind");
        w.topo(&["down", "--forget", "x"]).ok().says("forgotten");
        w.topo(&["gc"]).ok().says("removed netns `h`");
        w.assert_clean(before);
    });
}
