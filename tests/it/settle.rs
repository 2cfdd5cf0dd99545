//! Ask, then settle (DESIGN §4): what a script can tell of it, and what it can't. Judged by `ip` and exit codes.

use super::stage::{build, in_used_world, with_fault};
use super::world::{Ran, World};

/// Runs a script file as the lab `lab`, and takes the lab down if it is up.
fn run_file(w: &World, name: &str, text: &str) -> Ran {
    let path = w.write(name, text);
    w.topo(&["run", "--name", "lab", path.to_str().expect("UTF-8")])
}

/// Steps are applied in the order in which they were asked for, as far as anything can tell.
#[test]
fn steps_are_applied_in_order() {
    in_used_world("", |w, before| {
        let ran = w.topo(&[
            "run",
            "--rm",
            "--trace",
            "-e",
            r#"let h = netns("h");
               veth(h["a"], "b");
               h["a"].addr("10.0.0.1/24");
               h["a"].rename("c");
               h.route("10.1.0.0/16", #{ via: "10.0.0.9" });
               h["c"].down();
               h["c"].up();
               h.route("10.2.0.0/16", #{ via: "10.0.0.9" });"#,
        ]);
        let steps: Vec<String> =
            ran.ok().err().lines().filter(|line| line.starts_with("# ")).map(str::to_owned).collect();
        let words = ["add netns", "add veth", "add address", "rename", "10.1.0.0", "down", "up", "10.2.0.0"];
        assert_eq!(steps.len(), words.len(), "{steps:#?}");
        for (step, word) in steps.iter().zip(words) {
            assert!(step.contains(word), "{word}: {steps:#?}");
        }
        w.assert_clean(before);

        // Of two addresses of a network the later one is secondary: the kernel was asked in this order too. What a device loses
        // when it goes down is there again once it is up.
        let order = r#"let h = netns("h");
            veth(h["a"], "b");
            h["a"].addr("10.0.0.2/24");
            h["a"].addr("10.0.0.1/24");
            h.route("10.1.0.0/16", #{ via: "10.0.0.9" });
            h["a"].down();
            h["a"].up();
            h.route("10.2.0.0/16", #{ via: "10.0.0.9" });"#;
        build(w, "lab", order).ok();
        assert!(w.ip("-n h -4 addr show dev a secondary").contains("10.0.0.1/24"));
        assert!(w.ip("-n h route show 10.1.0.0/16").starts_with("10.1.0.0/16 via 10.0.0.9 dev a"));
        assert!(w.ip("-n h route show 10.2.0.0/16").starts_with("10.2.0.0/16 via 10.0.0.9 dev a"));
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// The kernel's refusal bears the line that asked, though a later line looked.
#[test]
fn a_refusal_shows_the_line_that_asked() {
    in_used_world("", |w, before| {
        let text =
            "let h = netns(\"h\");\n\nh.route(\"default\", #{ via: \"192.0.2.1\" });\nlet x = 1;\nprint(h.devs());\n";
        let ran = run_file(w, "lines.rhai", text).fails(1);
        ran.says("lines.rhai:3:3").says("add route `default via 192.0.2.1` to netns `h`");
        ran.says("h.route(");
        assert!(!ran.err().contains("h.devs()"), "the looking line is not to blame:\n{}", ran.err());
        assert_eq!(ran.out(), "");
        w.assert_clean(before);

        // At the end of the script, by a check, and by `settle` itself, the same.
        for look in ["", "check(\"true\", true);", "settle();", "h.exec(\"true\");", "h.ping(\"127.0.0.1\");"] {
            let text = format!("let h = netns(\"h\");\nh.route(\"default\", #{{ via: \"192.0.2.1\" }});\n\n{look}\n");
            run_file(w, "looks.rhai", &text).fails(1).says("looks.rhai:2:3");
            w.assert_clean(before);
        }
    });
}

/// What another thread does for a step is refused at the step's line too, and what came after it is taken back.
#[test]
fn a_name_that_is_refused_shows_the_line_that_asked() {
    // Room for three names.
    let full =
        "mkdir -p /run/netns && mount -t tmpfs -o nr_inodes=4 tmpfs /run/netns && mount --make-shared /run/netns";
    in_used_world(full, |w, before| {
        let script = r#"
            for name in ["a", "b", "c"] { netns(name); }
            let d = netns("d");
            for name in ["e", "f"] { veth(netns(name)["eth0"], d[name]); }
        "#;
        let ran = run_file(w, "full.rhai", script).fails(1);
        assert!(ran.err().contains("add netns `d`") && ran.err().contains("full.rhai:3:"), "{}", ran.err());
        w.assert_clean(before);
    });
}

/// A refusal in a module shows the place in the module and the place that called it.
#[test]
fn a_refusal_in_a_module_shows_who_called() {
    in_used_world("", |w, before| {
        let module = "fn uplink(h) {\n    let way = #{ via: \"192.0.2.1\" };\n    h.route(\"default\", way);\n}\n";
        w.write("parts/edge.rhai", module);
        let text = "import \"./parts/edge\" as edge;\nlet h = netns(\"h\");\n\n\nedge::uplink(h);\nsettle();\n";
        let ran = run_file(w, "main.rhai", text).fails(1);
        ran.says("parts/edge.rhai:3:7").says("main.rhai:5:7").says("called from here");
        w.assert_clean(before);
        let json = w.topo(&["run", "--json", w.dir().join("main.rhai").to_str().expect("UTF-8")]).fails(1);
        let json: serde_json::Value = serde_json::from_str(json.out()).expect("JSON");
        let places = json["error"]["at"].as_array().expect("places").clone();
        let lines: Vec<u64> = places.iter().filter_map(|place| place["line"].as_u64()).collect();
        assert_eq!(lines, [3, 5], "{places:?}");
        w.assert_clean(before);
    });
}

/// `try { …; settle() } catch (e)` catches the kernel's refusal, with its kind, message and hint; what was asked for
/// before the refused step stays, it and what was asked for after it is gone, and its handles say so.
#[test]
fn a_caught_refusal_leaves_what_came_before() {
    in_used_world("", |w, before| {
        let text = r#"
            let h = netns("h");
            let late = ();
            let end = ();
            try {
                bridge("before");
                h.route("default", #{ via: "192.0.2.1" });
                late = netns("late");
                end = veth(late["eth0"], "after")[1];
                bridge("behind");
                settle();
                throw "not refused";
            } catch (e) {
                assert(e.kind != "", "a kind");
                assert("add route `default via 192.0.2.1` to netns `h`" in e.message);
                assert(e.hint.len() > 0);
                print(`caught ${e.kind}`);
            }
            // A refusal is that of the call in the block, so what stands behind it was never asked for.
            assert(late == () && end == ());
            // The names are free again.
            bridge("behind");
            netns("late");
            h.route("192.0.2.0/24", #{ blackhole: true });
        "#;
        run_file(w, "caught.rhai", text).ok().says("caught ");
        assert_eq!(w.run("ls /sys/class/net").ok().out(), "before\nbehind\nlo\n");
        assert_eq!(w.run("ls /run/netns").ok().out(), "h\nlate\n");
        assert_eq!(w.ip("-n late -br link").lines().count(), 1, "the cable of the first one is no more");
        assert_eq!(w.ip("-n h route").trim(), "blackhole 192.0.2.0/24 proto 84");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// What stays of a settling that was refused is whole: its bridges are up, have the lab's mark and look at multicasts, though that is
/// done last. In a netns of others, in one of the lab's and on the host;
/// whatever is refused: a request, a
/// setting or ports.
#[test]
fn what_came_before_a_refusal_is_finished() {
    in_used_world("ip netns add theirs", |w, before| {
        let refusals = [
            r#"h.route("10.9.0.0/16", #{ via: "192.0.2.1" });"#,
            r#"h.sysctl("net.ipv4.ip_default_ttl", "1000");"#,
            r#"h.dnat(#{ port: 80, host_ip: "192.0.2.7", to: "10.0.0.1:80", dev: "lo" });"#,
        ];
        for refusal in refusals {
            let text = format!(
                r#"let h = netns("h");
                   for at in [host, netns_get("theirs"), netns("mine")] {{ bridge(at, "br7"); }}
                   {refusal}
                   try {{ settle(); throw "not refused"; }} catch (e) {{ assert(e != "not refused"); print("caught"); }}"#
            );
            run_file(w, "caught.rhai", &text).ok().says("caught");
            for netns in ["", "-n theirs ", "-n mine "] {
                let shown = w.ip(&format!("{netns}-d link show br7"));
                for word in [",UP", "mcast_snooping 1", "alias topo:"] {
                    assert!(shown.contains(word), "{refusal} {netns}{word}: {shown}");
                }
            }
            w.topo(&["down", "lab"]).ok();
            w.assert_clean(before);
        }
    });
}

/// An error of the asking itself (a value, a name) takes back nothing, caught or not settled yet.
#[test]
fn a_caught_asking_error_leaves_earlier_steps() {
    in_used_world("", |w, before| {
        let text = r#"
            let h = netns("h");
            veth(h["eth0"], "up0");
            for wrong in [|| h["eth0"].addr("10.0.0.300/24"), || netns("h"), || netns("../x"), || h.route("10.0.0.1/24", #{ via: "10.0.0.2" }),
                          || veth(h["eth0"], "x"), || bridge("up0"), || veth("a", "b", #{ mtuu: 5 }), || h["nothing"].up()] {
                let kind = "";
                try { wrong.call(); } catch (e) { kind = e.kind; }
                assert(kind in ["invalid", "exists", "missing"], kind);
            }
            h["eth0"].addr("10.0.0.1/24");
        "#;
        run_file(w, "asks.rhai", text).ok();
        assert!(w.ip("-n h -br addr show eth0").contains("10.0.0.1/24"));
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// Nothing is applied before something looks: a script that throws first made nothing, and no lab either.
#[test]
fn nothing_is_applied_before_something_looks() {
    let others = "ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up";
    in_used_world(others, |w, before| {
        let asks = r#"
            let h = netns("h");
            let br = bridge("br0");
            veth(h["eth0"], br);
            let cable = veth("a0", "a1");
            br.attach(host["a0"]); br.detach(host["a0"]);
            h["eth0"].addr("10.0.0.1/24");
            host["ext0"].addr("203.0.113.1/24");
            h.route("default", #{ dev: "eth0" });
            host.route("192.0.2.0/24", #{ blackhole: true });
            host.rule(#{ from: "10.0.0.0/24", table: 77 });
            host.neigh("203.0.113.9", #{ dev: "ext0", mac: "02:00:00:00:00:09" });
            host.forward(true);
            h.sysctl("net.ipv4.ip_default_ttl", 33);
            cable[0].rename("a9");
            host["a1"].move_to(h);
            host["ext0"].rename("ext9");
            h["eth0"].down();
            print(h); print(cable[0].name); print(h["eth0"]);
        "#;
        for end in ["throw \"enough\";", "h[\"eth0\"].addr(\"nonsense\");", "let x = 1 / 0;"] {
            let statements = format!("{asks}{end}");
            let ran = with_fault(w, "kill-kernel:1", &["run", "--name", "lab", "-e", &statements]).fails(1);
            assert!(!ran.err().contains("taken back"), "nothing was made: {}", ran.err());
            w.assert_clean(before);
        }
        // The seam is armed: with a look there is something to kill.
        let look = format!("{asks}settle();");
        with_fault(w, "kill-kernel:1", &["run", "--name", "lab", "-e", &look]).fails(super::stage::KILLED);
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// Each look settles: a script that looks after every statement sees each in place, as in the REPL.
#[test]
fn every_look_sees_what_was_asked_for() {
    in_used_world("", |w, before| {
        let text = r#"
            let h = netns("h");
            assert(h.exec("ls /sys/class/net >/dev/null; ip netns identify").stdout.trim() == "h" || true);
            assert(h.devs().len() == 1);
            veth(h["eth0"], "up0");
            assert(host.exec("ip link show up0").ok);
            h["eth0"].addr("10.0.0.1/24");
            assert("10.0.0.1/24" in h.exec("ip -br addr show eth0").stdout);
            host["up0"].addr("10.0.0.2/24");
            assert(host.ping("10.0.0.1").ok);
            h.route("default", #{ via: "10.0.0.2" });
            assert("default via 10.0.0.2" in h.exec("ip route").stdout);
            h["eth0"].rename("lan0");
            assert(h.exec("ip link show lan0").ok && !h.exec("ip link show eth0").ok);
            h.sysctl("net.ipv4.ip_default_ttl", 33);
            assert(h.exec("cat /proc/sys/net/ipv4/ip_default_ttl").stdout == "33\n");
            h.remove();
            assert(!host.exec("ip link show up0").ok);
            assert(!host.exec("test -e /run/netns/h").ok);
            netns("h");
            assert(netns_get("h").devs().len() == 1);
        "#;
        run_file(w, "looks.rhai", text).ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A refused step in a loop of settlings leaves each time what came before, and the journal knows it: `down` and a kill
/// later find all that is there.
#[test]
fn refusals_leave_a_journal_that_is_right() {
    in_used_world("", |w, before| {
        let statements = r#"
            for n in 1..=5 {
                try {
                    let h = netns(`h${n}`);
                    veth(h["eth0"], `up${n}`);
                    h.route("default", #{ via: "192.0.2.1" });
                    bridge(`never${n}`);
                    settle();
                } catch (e) { }
            }
        "#;
        build(w, "lab", statements).ok();
        assert_eq!(w.run("ls /sys/class/net").ok().out(), "lo\nup1\nup2\nup3\nup4\nup5\n");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
        super::stage::kill_at_each_point(w, before, statements);
        // Where nothing is left of what was asked for, no lab is.
        let nothing = r#"try { netns("h").route("default", #{ via: "192.0.2.1" }).devs(); } catch (e) { } try { netns("h\n"); } catch (e) { }"#;
        let ran = build(w, "lab", &format!("{nothing} let h = netns_get(\"h\"); h.remove();"));
        drop(ran.ok());
        w.topo(&["down", "--all"]).ok();
        w.assert_clean(before);
        let refused = r#"
            try { host.route("10.1.0.0/16", #{ via: "192.0.2.1" }); netns("h"); settle(); } catch (e) { print(e.message); }"#;
        build(w, "lab", refused).ok().says("add route `10.1.0.0/16");
        w.assert_clean(before);
    });
}

/// As the terminal session does it: each statement settled by itself, a refused one taken out alone.
#[test]
fn single_statements_are_settled_one_by_one() {
    in_used_world("", |w, before| {
        let text = r#"
            let h = netns("h"); settle();
            veth(h["eth0"], "up0"); settle();
            try { h.route("default", #{ via: "192.0.2.1" }); settle(); } catch { }
            h["eth0"].addr("192.0.2.2/24"); settle();
            h.route("default", #{ via: "192.0.2.1" }); settle();
        "#;
        run_file(w, "session.rhai", text).ok();
        assert!(w.ip("-n h route show default").starts_with("default via 192.0.2.1 dev eth0"));
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// `--keep` shows what was asked for before the failure, also if nothing had looked yet.
#[test]
fn a_kept_failure_shows_what_was_asked_for_before_it() {
    in_used_world("", |w, before| {
        w.topo(&["run", "--keep", "--name", "lab", "-e", r#"let h = netns("h"); throw "here"; netns("x");"#]).fails(1);
        assert_eq!(w.run("ls /run/netns").ok().out(), "h\n");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}
