//! Statements of a session are taken back exactly: those that fail, those that are undone, and wherever that is cut short.
//!
//! ```text
//! h1 (eth0) --- (p1) br0 (host) --- (eth0) h2
//! ```

use super::stage::{KILLED, in_used_world};
use super::tier;
use super::world::{Snapshot, World};

/// The drawing, in both families, with what a change could lose: routes, neighbours, settings.
const LAB: &str = r#"
let br = bridge("br0"); br.addr("10.0.0.254/24"); br.addr("fd00::fe/64");
let h1 = netns("h1"); let h2 = netns("h2");
let p1 = veth(h1["eth0"], br)[1]; veth(h2["eth0"], br);
h1["eth0"].addr("10.0.0.1/24"); h1["eth0"].addr("fd00::1/64"); h2["eth0"].addr("10.0.0.2/24");
h1.route("default", #{ via: "10.0.0.254" }); h1.route("default", #{ via: "fd00::fe" });
h1.route("10.9.0.0/16", #{ via: "10.0.0.2", metric: 7 });
h1.neigh("10.0.0.77", #{ dev: "eth0", mac: "02:00:00:00:00:77" });
"#;

/// Names of the lab's things, for a session that has joined it.
const NAMES: &str =
    r#"let br = host["br0"]; let h1 = netns_get("h1"); let h2 = netns_get("h2"); let p1 = host["h1-eth0"];"#;

/// One statement of each sort that changes something.
const STATEMENTS: &[&str] = &[
    r#"h1["eth0"].down();"#,
    r#"h1["eth0"].down(); h1["eth0"].up();"#,
    r#"h1["eth0"].down(); settle(); h1["eth0"].up();"#,
    "h1.forward(true);",
    "host.forward(true);",
    r#"h1.sysctl("net.ipv4.ip_default_ttl", 33);"#,
    "p1.hairpin(true);",
    r#"h1.forward(true); h1.dnat(#{ port: 8080, to: "10.0.0.2:80" });"#,
    r#"h1["eth0"].rename("wan0");"#,
    r#"h1["eth0"].move_to(netns("h3"));"#,
    r#"h1["eth0"].rename("wan0"); h1["wan0"].move_to(netns("h3"));"#,
    r#"h1["eth0"].addr("10.0.0.11/24"); h1["eth0"].addr("10.7.0.1/24"); h1["eth0"].addr("fd00::11/64");"#,
    r#"h1.route("10.8.0.0/16", #{ via: "10.0.0.2" }); h1.rule(#{ from: "10.8.0.0/16", table: 88 });"#,
    r#"h1.neigh("10.0.0.78", #{ dev: "eth0", mac: "02:00:00:00:00:78" });"#,
    "br.detach(p1);",
    r#"h1.masquerade("10.5.0.0/24"); h1.filter("input", "drop", #{ proto: "tcp", port: 99 });"#,
    r#"bridge(h1, "br9"); veth(h1["a"], netns("h4")["b"]); macvlan(h1["mac0"], h1["eth0"]);"#,
    r#"import "network" as network; network::create("web", #{ subnet: "10.6.0.0/24" }); network::connect("web", h2, #{ publish: ["81:80"] });"#,
];

/// All that a statement could leave in one of the lab's namespaces.
const DUMP: &str = r#"
# What the kernel still does by itself, such as looking whether an address is somebody else's, is waited for.
while ip -6 address show tentative | grep -q .; do :; done
for n in host h1 h2; do
    run() { if [ $n = host ]; then "$@"; else nsenter --net=/run/netns/$n "$@"; fi; }
    echo "== $n"
    run ip -d address show | sed -E 's/(valid_lft|preferred_lft) [0-9]+sec//g; s/ cost [0-9]+//; s/state [a-z]+ priority/priority/; /timer|bridge_id|designated|root_port|topology/d'
    for v in -4 -6; do run ip $v route show table all | sort; run ip $v rule; run ip $v neigh show nud permanent; done
    run nft -s list ruleset
    run sh -c "grep -rsH '' /proc/sys/net/ipv4 /proc/sys/net/ipv6" | grep -vE 'stable_secret|/neigh/.*_ms|mtu_expires|tcp_.*(mem|fastopen_key)' | sort
done
ls /run/netns
"#;

fn session(w: &World, fault: &str, lines: &str) -> super::world::Ran {
    w.write("session.rhai", lines);
    w.run(&format!("TOPO_FAULT={fault} {} repl lab <session.rhai 2>&1", w.program().display()))
}

/// Runs `test` with the lab up; its things are as they were at the end, and the lab goes.
fn with_lab(test: impl FnOnce(&World, &Snapshot)) {
    in_used_world("", |w, before| {
        w.topo(&["run", "--name", "lab", "-e", LAB]).ok();
        test(w, before);
        w.topo(&["down", "lab"]).ok();
        w.run("rm -f session.rhai").ok();
        w.assert_clean(before);
    });
}

#[track_caller]
fn assert_as_it_was(w: &World, before: &str, what: &str) {
    let after = w.run(DUMP).ok().stdout;
    if before != after {
        let [one, other] = [before, &after].map(|text| text.lines().collect::<Vec<_>>());
        let lost = one.iter().filter(|line| !other.contains(line)).map(|line| format!("- {line}\n"));
        let left = other.iter().filter(|line| !one.contains(line)).map(|line| format!("+ {line}\n"));
        panic!("not as it was after {what}:\n{}", lost.chain(left).collect::<String>());
    }
}

/// Each sort of statement, undone; and failing at its end, when it has done all.
#[test]
fn statements_are_taken_back_exactly() {
    with_lab(|w, _| {
        let before = w.run(DUMP).ok().stdout;
        for statement in tier::spread(STATEMENTS, 9) {
            let ran = session(w, "", &format!("{NAMES}\n{statement}\n:undo\n"));
            assert!(ran.code == 0 && ran.stdout.contains("undone: [2]"), "`{statement}`: {}", ran.stdout);
            assert_as_it_was(w, &before, &format!("`{statement}` was undone"));
            let ran = session(w, "", &format!("{NAMES}\n{statement} settle(); throw \"enough\";\n"));
            assert!(ran.code == 1 && ran.stdout.contains("enough"), "`{statement}`: {}", ran.stdout);
            assert_as_it_was(w, &before, &format!("`{statement}` failed"));
        }
    });
}

/// Statements that fail at any of their operations, or whose process is killed there: taken back alone, or with the lab.
#[test]
fn statements_that_are_cut_short() {
    const ALL: &str = r#"h1["eth0"].down(); h1.forward(true); veth(h1["a"], netns("h3")["b"]); h1.masquerade("10.5.0.0/24");
        h2["eth0"].addr("10.0.0.22/24"); host.forward(true);"#;
    let line: String = ALL.lines().map(str::trim).collect();
    with_lab(|w, clean| {
        let before = w.run(DUMP).ok().stdout;
        let mut points = 0;
        for point in (1..).step_by(tier::stride(1)) {
            let ran = session(w, &format!("fail:{point}"), &format!("{NAMES}\n{line}\n"));
            if ran.code == 0 {
                session(w, "", "netns_get(\"h3\")\n").ok();
                points = point;
                break;
            }
            assert!(ran.stdout.contains("injected fault"), "{}", ran.stdout);
            assert_as_it_was(w, &before, &format!("a failure at {point}"));
        }
        assert!(points > 8, "{points} points");
        w.topo(&["down", "lab"]).ok();
        w.run("rm session.rhai").ok();
        w.assert_clean(clean);
        // A statement, and its undo: killed or failing there, the lab is still up, and goes with all that it has.
        for point in (1..).step_by(if tier::full() { 2 } else { 10 }) {
            w.topo(&["run", "--name", "lab", "-e", LAB]).ok();
            let fault = if point % 4 == 1 { "kill" } else { "fail" };
            let ran = session(w, &format!("{fault}:{point}"), &format!("{NAMES}\n{line}\n:undo\n"));
            assert!([0, 1, KILLED].contains(&ran.code), "{}", ran.stdout);
            let listed = w.topo(&["ls"]).ok();
            // Cut short, it may lack what the statement was to make, or what its undo took away.
            let cut = ran.code != 0 && listed.out().contains("damaged");
            assert!(listed.out().contains(" up ") || cut, "{}", listed.out());
            w.topo(&["gc"]).ok();
            w.topo(&["down", "lab"]).ok();
            w.run("rm session.rhai").ok();
            w.assert_clean(clean);
            if ran.code == 0 {
                assert!(point > points, "the undo has points too");
                break;
            }
        }
        w.topo(&["run", "--name", "lab", "-e", LAB]).ok();
    });
}
