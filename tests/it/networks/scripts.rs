//! Networks of a script's own: part of its lab, and gone with it, also in a sandbox.

use super::{CONTAINERS, in_network_world, make_web, network};
use crate::stage::{KILLED, in_used_user_world, with_fault};
use crate::world::World;

/// h1, h2 -- web (10.5.0.0/24), db (10.6.0.0/24) -- h2.
const LAB: &str = r#"
    import "network" as network;
    network::create("web", #{ subnet: "10.5.0.0/24" });
    network::create("db", #{ subnet: "10.6.0.0/24", internal: true });
    let h1 = netns("h1");
    let h2 = netns("h2");
    network::connect("web", h1, #{ publish: ["8080:80"] });
    network::connect("web", h2);
    let second = network::connect("db", "h2");
    check("the second network's device is the second", second.dev == "eth1");
    check("h1 reaches h2", h1.ping("10.5.0.3"));
    check("h2 reaches the host in both", h2.ping("10.5.0.1").ok && h2.ping("10.6.0.1").ok);
    check("h1 does not reach the other one", !h1.ping("10.6.0.2").ok);
    check("both are listed", network::list().map(|row| `${row.name} ${row.state} ${row.endpoints}`) == ["db up 1", "web up 2"]);
"#;

#[test]
fn a_scripts_networks_go_with_its_lab() {
    in_network_world("", |w, before| {
        for end in [["down", "own"].as_slice(), &["down", "--all"]] {
            w.topo(&["run", "--name", "own", "-e", LAB]).ok().says("ok   both are listed");
            network(w, "ls").ok().says("web   10.5.0.0/24");
            w.topo(end).ok();
            w.assert_clean(before);
        }
        w.topo(&["run", "--rm", "-e", LAB]).ok();
        w.assert_clean(before);
        let failing = format!("{LAB} network::connect(\"web\", netns(\"h3\"), #{{ ip: \"10.5.0.3\" }});");
        w.topo(&["run", "-e", &failing]).fails(1).says("holds it").says("everything that lab");
        w.assert_clean(before);
    });
}

/// Killed anywhere, such a run leaves nothing that `gc` does not remove.
#[test]
fn a_killed_script_leaves_nothing() {
    in_network_world("", |w, before| {
        let script = r#"
            import "network" as network;
            network::create("web", #{ subnet: "10.5.0.0/24" });
            network::connect("web", netns("h1"), #{ publish: ["53:53/udp"] });"#;
        // Every fifth point: the others are met where every step is.
        for point in (1..).step_by(crate::tier::stride(5)) {
            let ran = with_fault(w, &format!("kill:{point}"), &["run", "--rm", "--name", "killed", "-e", script]);
            println!("point {point}: {}", ran.code);
            if ran.code != KILLED {
                assert!(point > 40, "only {point} points");
                break;
            }
            w.topo(&["gc"]).ok();
            // The file of a lock stays when its holder is killed, until the next one lets go of it.
            w.run("find state/store/locks -mindepth 1 -delete").ok();
            w.assert_clean(before);
        }
    });
}

/// What a script joins to a network that stays is disconnected by `gc`, once the script's namespace is gone.
#[test]
fn a_script_that_joins_a_network_that_stays() {
    in_network_world(CONTAINERS, |w, _| {
        make_web(w);
        let up = w.snapshot();
        let script = r#"
            import "network" as network;
            let h = netns("guest");
            network::connect("web", h, #{ ip: "10.5.0.99" });
            check("it reaches c1", h.ping("10.5.0.2"));"#;
        w.topo(&["run", "--rm", "-e", script]).ok().says("ok   it reaches c1");
        w.topo(&["gc"]).ok().says("removed lab `net.web.");
        w.assert_clean(&up);
        network(w, "rm --force web").ok();
    });
}

/// An error in a lab within, caught by the script, takes that one back alone.
#[test]
fn what_fails_is_taken_back_alone() {
    in_network_world("", |w, _| {
        let script = r#"
            import "network" as network;
            let h = netns("h1");
            network::create("web", #{ subnet: "10.5.0.0/24" });
            let failed = "";
            try { network::create("two", #{ subnet: "10.5.0.0/25" }); } catch (e) { failed = e.kind; }
            check("the second one is refused", failed == "exists");
            try { network::connect("web", h, #{ publish: ["1:1", "1:2"] }); } catch (e) { failed = e.message; }
            check("so is the port", failed.contains("is published too"));
            check("nothing of it is left", h.devs().len == 1 && network::inspect("web").used == [0]);
            network::connect("web", h);
            check("and it can be connected", h.ping("10.5.0.1"));"#;
        w.topo(&["run", "--rm", "-e", script]).ok().says("ok   and it can be connected");
    });
}

fn in_sandbox(w: &World, words: &[&str]) {
    let nobody_elses = r#"check("the host's networks are not seen", network::list().len == 2);"#;
    let script = format!("{LAB} {nobody_elses}");
    w.topo(&[words, &["-e", &script]].concat()).ok().says("ok   the host's networks are not seen");
}

/// The same in a private machine, beside a network of the host with the same name and subnet.
#[test]
fn in_a_sandbox_as_root() {
    in_network_world("ip netns add c1", |w, _| {
        make_web(w);
        let up = w.snapshot();
        in_sandbox(w, &["run", "--rm", "--sandbox"]);
        w.assert_clean(&up);
        in_sandbox(w, &["run", "--sandbox", "--name", "own"]);
        assert_eq!(network(w, "ls").ok().out().lines().count(), 2);
        w.topo(&["down", "own"]).ok();
        w.assert_clean(&up);
        for words in [["network", "create", "x", "--sandbox"], ["network", "connect", "web", "--sandbox"]] {
            let more: &[&str] = if words[1] == "connect" { &["c1"] } else { &[] };
            w.topo(&[&words, more].concat()).fails(if words[1] == "create" { 3 } else { 1 });
        }
        w.assert_clean(&up);
        network(w, "rm --force web").ok();
    });
}

#[test]
fn in_a_sandbox_as_a_user() {
    in_used_user_world("", |w, before| {
        in_sandbox(w, &["run", "--rm"]);
        w.assert_clean(before);
        in_sandbox(w, &["run", "--name", "own"]);
        w.topo(&["down", "own"]).ok();
        w.assert_clean(before);
    });
}

/// Without root a network of the host can't be made, and the answer says what can be done.
#[test]
fn a_user_and_the_networks_of_the_host() {
    in_used_user_world("", |w, before| {
        let ran = network(w, "create web").fails(3);
        ran.says("it is about containers of the host").says("run it as root").says("import \"network\"");
        w.assert_clean(before);
    });
}

/// What is disconnected or removed inside of a sandbox is so there too, and the rest of it stays.
#[test]
fn a_part_of_a_sandbox_goes() {
    in_network_world("", |w, _| {
        let more = r#"
            network::disconnect("web", h1);
            check("h1 is alone", h1.devs().len == 1);
            check("h2 is not", h2.ping("10.5.0.1").ok && network::inspect("web").endpoints.len == 1);
            network::remove("db");
        "#;
        let refused = w.topo(&["run", "--rm", "--sandbox", "-e", &format!("{LAB}{more}")]).fails(1);
        refused.says("ok   h1 is alone").says("ok   h2 is not").says("connected to it: `h2`");
        let more = more.replace("remove(\"db\")", "remove(\"db\", true)");
        let last = r#"check("web stays", network::list().map(|row| row.name) == ["web"] && h2.devs().len == 2);"#;
        w.topo(&["run", "--rm", "--sandbox", "-e", &format!("{LAB}{more}{last}")]).ok().says("ok   web stays");
    });
}
