//! A lab that works on what others made: it is listed and shown like any other, and gives back what it borrowed.

use super::stage::in_used_world;

/// theirs (netns) ---- h1, and an address on their device of the host
#[test]
fn a_lab_on_others_things_is_listed_shown_and_taken_down() {
    let others = "mkdir -p /run/netns; ip netns add theirs; ip link add d0 type veth peer name d1; ip link set d0 up";
    in_used_world(others, |w, _| {
        let script = w.write(
            "lab.rhai",
            r#"
            let theirs = netns_get("theirs");
            let h1 = netns("h1");
            veth(h1["eth0"], theirs["lan0"]);
            h1["eth0"].addr("10.0.0.1/24");
            theirs["lan0"].addr("10.0.0.2/24");
            host["d0"].addr("192.0.2.1/24");
            "#,
        );
        w.topo(&["run", script.to_str().expect("UTF-8")]).ok();

        let listed = w.topo(&["ls"]).ok();
        assert!(listed.out().contains("lab   up     1      2"), "{}", listed.out());
        let shown = w.topo(&["show", "lab"]).ok();
        for part in ["theirs  (not made by this lab)", "lan0", "10.0.0.2/24", "-- theirs/lan0"] {
            assert!(shown.out().contains(part), "`{part}` is not in:\n{}", shown.out());
        }
        assert!(w.ip("addr show d0").contains("192.0.2.1/24"));
        w.topo(&["exec", "lab/theirs", "true"]).ok();
        w.topo(&["down", "lab"]).ok();
        w.run("rm lab.rhai").ok();
    });
}
