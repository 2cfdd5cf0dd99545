//! "Ask, then settle": a script reads as if each line took effect at once, and nothing that it can see tells otherwise, but
//! that the kernel's own refusal comes at the settling, and shows the line that asked.

use super::stage::{in_used_world, with_fault};
use super::world::{Ran, World};

/// Runs a script as `s.rhai` in a world that it must leave as it was.
fn run(script: &str, judge: impl FnOnce(&World, Ran)) {
    in_used_world("", |w, _| {
        w.write("s.rhai", script);
        let ran = w.topo(&["run", "--rm", "s.rhai"]);
        judge(w, ran);
        w.run("rm -f s.rhai lib.rhai").ok();
    });
}

#[test]
fn what_is_looked_at_is_there() {
    run(
        r#"let h = netns("h1");
           veth(h["eth0"], "up0");
           assert(h.exec("ip -o link show eth0").ok);
           h["eth0"].addr("10.0.0.1/24");
           assert(h.exec("ip -4 -o addr show eth0").stdout.contains("10.0.0.1/24"));
           assert(host.exec("ip -o link show up0").ok);"#,
        |_, ran| drop(ran.ok()),
    );
}

#[test]
fn a_refusal_shows_the_line_that_asked() {
    run(
        "let h = netns(\"h1\");\nh.route(\"default\", #{ via: \"192.0.2.1\" });\nlet x = 1;\nh.exec(\"true\");\n",
        |_, ran| drop(ran.fails(1).says("--> s.rhai:2:3").says("Nexthop has invalid gateway").clone()),
    );
}

#[test]
fn a_refusal_at_the_scripts_end_shows_the_line_that_asked() {
    run("let h = netns(\"h1\");\nh.route(\"default\", #{ via: \"192.0.2.1\" });\n", |_, ran| {
        drop(ran.fails(1).says("--> s.rhai:2:3").says("was taken back").clone());
    });
}

#[test]
fn a_refusal_shows_who_called_the_library() {
    in_used_world("", |w, _| {
        w.write("lib.rhai", "fn way_out(h) {\n    h.route(\"default\", #{ via: \"192.0.2.1\" });\n}\n");
        w.write("s.rhai", "import \"./lib\" as lib;\nlet h = netns(\"h1\");\nlib::way_out(h);\nsettle();\n");
        w.topo(&["run", "s.rhai"]).fails(1).says("--> lib.rhai:2:7").says("::: s.rhai:3:6").says("called from here");
        w.run("rm s.rhai lib.rhai").ok();
    });
}

#[test]
fn a_caught_refusal_keeps_what_came_before_it_and_drops_what_came_after() {
    run(
        r#"let h = netns("h1");
           veth(h["eth0"], "up0");
           let late = ();
           try {
               h["eth0"].addr("10.0.0.1/24");
               h.route("default", #{ via: "192.0.2.1" });
               late = netns("h2");
               settle();
               assert(false, "never reached");
           } catch (e) {
               assert(e.kind == "kernel", e.kind);
               assert(e.message.contains("Nexthop has invalid gateway"));
               assert(e.hint.contains("onlink"));
           }
           assert(h["eth0"].addrs().len() == 1, "before the refused line");
           assert(!host.exec("ip netns pids h2").ok, "after it");
           try { late.exec("true"); assert(false, "a dead handle"); } catch (e) { assert(e.kind == "gone", e.kind); }
           let again = netns("h2");
           assert(again.exec("true").ok);"#,
        |_, ran| drop(ran.ok()),
    );
}

#[test]
fn a_caught_mistake_leaves_what_was_asked_for() {
    run(
        r#"let h = netns("h1");
           try { h["eth0"].addr("10.0.0.1"); } catch (e) { assert(e.kind == "invalid"); }
           try { veth(h["a"], h["a"]); } catch (e) { assert(e.kind == "invalid"); }
           veth(h["eth0"], "up0");
           assert(h.devs().map(|d| d.name) == ["lo", "eth0"]);"#,
        |_, ran| drop(ran.ok()),
    );
}

/// The seam kills at the first operation on the kernel: a run that is not killed has made none.
#[test]
fn nothing_is_made_before_something_looks() {
    in_used_world("", |w, before| {
        let asks = r#"let h = netns("h1"); veth(h["eth0"], "up0"); h["eth0"].addr("10.0.0.1/24");"#;
        let ran = with_fault(w, "kill:1", &["run", "-e", &format!("{asks} throw \"enough\";")]);
        ran.fails(1).says("the script threw: enough");
        w.assert_clean(before);
        let ran = with_fault(w, "kill:1", &["run", "-e", &format!("{asks} settle();")]);
        assert_eq!(ran.code, 137, "settling asks the kernel");
        w.topo(&["gc"]).ok();
    });
}

/// As the terminal session will do it: each statement settled by itself, a refused one taken out alone.
#[test]
fn single_statements_are_settled_one_by_one() {
    run(
        r#"let h = netns("h1"); settle();
           veth(h["eth0"], "up0"); settle();
           try { h.route("default", #{ via: "192.0.2.1" }); settle(); } catch { }
           h["eth0"].addr("192.0.2.2/24"); settle();
           h.route("default", #{ via: "192.0.2.1" }); settle();
           assert(h.exec("ip route show default").stdout.contains("via 192.0.2.1"));"#,
        |_, ran| drop(ran.ok()),
    );
}

#[test]
fn a_kept_failure_shows_what_was_asked_for_before_it() {
    in_used_world("", |w, _| {
        w.topo(&["run", "--keep", "--name", "kept", "-e", r#"let h = netns("h1"); throw "here";"#]).fails(1);
        assert!(w.run("ip netns list").ok().out().contains("h1"));
        w.topo(&["down", "kept"]).ok();
    });
}
