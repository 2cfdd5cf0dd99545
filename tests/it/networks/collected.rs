//! I11: what dead labs and ended containers held is freed by `topo gc`, and nothing else.

use expect_test::expect;

use super::{CONTAINERS, anonymous, in_network_world, make_web, network};
use crate::cli::Terminal;
use crate::stage::{end_restart, restart};
use crate::world::World;

/// Returns how many addresses of a subnet are leased.
fn leased(w: &World, subnet: &str) -> usize {
    let script = format!("print(ipam_list(\"{subnet}\").len);");
    w.topo(&["run", "--rm", "-e", &script]).ok().out().trim().parse().expect("a number")
}

#[test]
fn i11_leases_of_a_lost_lab() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        let lab = r#"ipam_alloc("10.5.0.0/24", #{ ip: "10.5.0.9" }); ipam_alloc("10.6.0.0/24", #{ owner: "printer" }); ipam_pool("10.7.0.0/24", #{});"#;
        for name in ["lost", "kept"] {
            let lab = if name == "lost" {
                lab.to_owned()
            } else {
                lab.replace("10.5.0.9", "10.5.0.8").replace("10.7", "10.8")
            };
            w.topo(&["run", "--name", name, "-e", &lab]).ok();
        }
        w.session(expect![[r#"
            $ topo gc
            --- stderr
            nothing was left behind
            $ rm -r state/labs/lost
            $ topo gc
            --- stderr
            removed lease `10.5.0.9` of `lost`
            removed lease `10.6.0.1` of `lost: printer`
            removed pool `10.7.0.0/24`
            $ topo gc
            --- stderr
            nothing was left behind
        "#]]);
        assert_eq!((leased(w, "10.5.0.0/24"), leased(w, "10.6.0.0/24")), (2, 1));
        w.topo(&["down", "kept"]).ok();
        network(w, "rm --force web").ok();
    });
}

/// A lab of before a restart has nothing in the kernel, but addresses in the store; its directory may be there still.
#[test]
fn i11_leases_of_a_lab_of_before_a_restart() {
    in_network_world("", |w, before| {
        let lab = r#"ipam_alloc("10.6.0.0/24"); lab_within("inner", #{}, || { ipam_alloc("10.6.0.0/24"); });"#;
        for (end, says) in [(["down", "lab"].as_slice(), "lab `lab` is down"), (&["gc"], "removed lab `lab`")] {
            w.topo(&["run", "--name", "lab", "-e", lab]).ok();
            assert_eq!(leased(w, "10.6.0.0/24"), 2);
            restart(w);
            w.topo(end).ok().says(says);
            end_restart(w);
            w.assert_clean(before);
        }
    });
}

/// An endpoint whose container has ended goes with its address; those of the living stay.
#[test]
fn i11_endpoints_of_ended_containers() {
    in_network_world("for c in c2 c3; do ip netns add $c; done", |w, _| {
        w.run("ip netns add c1").ok();
        network(w, "create web --subnet 10.5.0.0/24").ok();
        for c in ["c1 --publish 8080:80", "c2", "c3"] {
            network(w, &format!("connect web {c}")).ok();
        }
        w.session(expect![[r#"
            $ topo gc
            --- stderr
            nothing was left behind
            $ ip netns del c1
            $ topo gc
            --- stderr
            removed lab `net.web.XXXXXXXXXXXX`
            $ topo gc
            --- stderr
            nothing was left behind
            $ topo network ls
            NAME  SUBNET       DRIVER  GATEWAY   STATE  ENDPOINTS  LABELS
            web   10.5.0.0/24  bridge  10.5.0.1  up     2
        "#]]);
        assert_eq!(leased(w, "10.5.0.0/24"), 2);
        network(w, "connect web c2").ok().says("10.5.0.3");
        network(w, "rm --force web").ok();
    });
}

/// A process that is a container ends: its namespace goes with it.
#[test]
fn i11_a_container_that_was_a_process() {
    in_network_world("", |w, _| {
        network(w, "create web").ok();
        let (container, pid) = anonymous(w);
        network(w, &format!("connect web {pid} --alias db")).ok();
        assert_eq!(w.topo(&["gc"]).ok().err(), "nothing was left behind\n");
        w.run(&format!("kill {pid}")).ok();
        container.wait();
        w.topo(&["gc"]).ok().says("removed lab `net.web.");
        network(w, "rm web").ok();
    });
}

/// Where a record can't be read, nobody is dead for sure.
#[test]
fn i11_nothing_is_freed_when_in_doubt() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        w.run("cp -a state/labs labs; rm -r state/labs/net.web*; cp state/store/records/networks.d/web.json web.json")
            .ok();
        w.run("printf '{' >state/store/records/networks.d/web.json").ok();
        let before = w.run("cat state/store/leases/*/* state/store/pools/*").ok().stdout;
        w.topo(&["gc"]).fails(1).says("records/networks.d/web.json`: byte 1");
        assert_eq!(w.run("cat state/store/leases/*/* state/store/pools/*").ok().stdout, before);
        w.run("mv web.json state/store/records/networks.d/web.json; rm -r state/labs; mv labs state/labs").ok();
        w.topo(&["gc"]).ok();
        // The device of the host was the lost lab's for the first `gc`.
        network(w, "rm --force web").ok();
    });
}
