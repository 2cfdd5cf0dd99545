//! The order of a settling that is fast: a bridge comes up when all its ports are in, and its hosts are ready at once.

use super::stage::{KILLED, in_used_world, with_fault};

/// h1 … h30 -- sw0
const STAR: &str = r#"
let lan = net("10.0.0.0/24");
let sw = bridge("sw0");
for n in 1..=30 {
    let h = netns(`h${n}`);
    veth(h["eth0"], sw);
    h["eth0"].addr(lan.cidr(n));
    h.route("default", #{ via: lan.host(254) });
}
"#;

#[test]
fn a_bridge_comes_up_after_its_last_port() {
    in_used_world("", |w, before| {
        w.write("star.rhai", STAR);
        let killed = |at: u32| {
            let ran = with_fault(w, &format!("kill-kernel:{at}"), &["run", "--name", "star", "star.rhai"]);
            assert!(ran.code == 0 || ran.code == KILLED, "exit code {}:\n{}", ran.code, ran.err());
            ran.code == KILLED
        };
        let clean = |killed: bool| {
            w.topo(if killed { &["gc"] } else { &["down", "star"] }).ok();
            w.assert_clean(before);
        };
        // The last operation on the kernel: the highest number at which there still is one to be killed at.
        let (mut low, mut high) = (1, 1024);
        while low + 1 < high {
            let middle = (low + high) / 2;
            let was = killed(middle);
            clean(was);
            if was { low = middle } else { high = middle }
        }
        assert!(low > 30 * 4, "only {low} operations");

        assert!(killed(low), "the same run has the same operations");
        let ports = w.ip("-o link show master sw0");
        assert_eq!(ports.lines().count(), 30, "all ports are in before the last operation:\n{ports}");
        let bridge = w.ip("-o link show dev sw0");
        assert!(!bridge.contains(",UP") && !bridge.contains("<UP"), "the last operation sets the bridge up:\n{bridge}");
        assert!(w.ip("-n h30 route").contains("default via 10.0.0.254"), "routes of hosts don't wait for the bridge");
        clean(true);
        w.run("rm star.rhai").ok();
    });
}

/// The first echo after the build is answered within a second, not after the kernel's own deferred work.
#[test]
fn the_first_ping_after_a_build_is_answered() {
    in_used_world("", |w, _| {
        w.write("star.rhai", &format!("{STAR}\ncheck(\"h1 reaches h30\", netns_get(\"h1\").ping(\"10.0.0.30\"));"));
        w.topo(&["run", "--rm", "star.rhai"]).ok().says("ok   h1 reaches h30");
        w.run("rm star.rhai").ok();
    });
}
