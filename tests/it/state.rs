//! State files that are damaged, somebody else's, or of another boot: a clear error that names the file, and nothing changed.

use super::stage::{in_used_user_world, in_used_world};
use super::world::World;

fn up(w: &World) {
    w.topo(&["run", "--name", "lab", "-e", r#"let h = netns("h1"); veth(h["eth0"], "up0");"#]).ok();
}

/// Takes a damaged lab down after its file was mended.
fn mended(w: &World) {
    w.run("cd state/labs/lab; for f in journal lab.json; do [ ! -e $f.good ] || mv $f.good $f; done").ok();
    w.topo(&["down", "lab"]).ok();
}

#[test]
fn a_damaged_journal_is_named_and_kept() {
    in_used_world("", |w, _| {
        up(w);
        w.run("cd state/labs/lab; cp -p journal journal.good; sed -i '2s/step/stop/' journal").ok();
        let before = w.snapshot();
        for args in [&["down", "lab"][..], &["show", "lab"], &["ls"]] {
            w.topo(args).fails(1).says("state/labs/lab/journal`, line 2").says("damaged");
        }
        assert_eq!(before.diff(&w.snapshot()), "", "nothing was changed");
        mended(w);
    });
}

#[test]
fn a_last_line_that_was_cut_short_was_never_applied() {
    in_used_world("", |w, _| {
        up(w);
        w.run(r#"printf '{"step":{"no":9,"wo' >> state/labs/lab/journal"#).ok();
        w.topo(&["show", "lab"]).ok();
        w.topo(&["down", "lab"]).ok();
    });
}

#[test]
fn a_damaged_record_is_named_and_kept() {
    in_used_world("", |w, _| {
        up(w);
        w.run("cd state/labs/lab; cp -p lab.json lab.json.good; echo '{' > lab.json").ok();
        for args in [&["down", "lab"][..], &["gc"], &["ls"], &["exec", "lab/h1", "true"]] {
            w.topo(args).fails(1).says("state/labs/lab/lab.json`");
        }
        w.topo(&["run", "--name", "lab", "-e", "netns(\"x\")"]).fails(1).says("its record can't be read");
        assert!(w.run("ip netns list").ok().out().contains("h1"));
        mended(w);
    });
}

#[test]
fn a_lab_of_another_boot_is_forgotten() {
    in_used_world("", |w, before| {
        up(w);
        // What a restart does: the kernel has nothing of it, and another boot id.
        w.run("ip netns del h1; rm -f state/made-netns-dir; umount /run/netns; rmdir /run/netns").ok();
        w.run(
            r#"sed -i 's/"boot_id":"[^"]*"/"boot_id":"00000000-0000-0000-0000-000000000000"/' state/labs/lab/lab.json"#,
        )
        .ok();
        w.topo(&["gc"]).ok().says("removed lab `lab`");
        w.assert_clean(before);
    });
}

#[test]
fn a_state_directory_of_another_user_is_refused() {
    in_used_user_world("mkdir -m 0755 /run/roots", |w, _| {
        w.topo_env(&[("TOPO_STATE", "/run/roots")], &["ls"]).fails(1).says("`/run/roots`").says("TOPO_STATE");
        w.run_as_root("rmdir /run/roots").ok();
        w.run_as_root("mkdir -m 0755 /run/roots").ok();
    });
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    in_used_world("", |w, _| {
        w.run("mkdir -m 0777 open").ok();
        w.topo_env(&[("TOPO_STATE", "open")], &["ls"]).fails(1).says("others can write to it").says("chmod 700");
        w.run("rm -r open").ok();
    });
}

#[test]
fn a_state_directory_that_is_read_only_stops_a_run_before_it_begins() {
    in_used_world("mkdir /run/ro; mount -t tmpfs -o ro tmpfs /run/ro", |w, _| {
        w.topo_env(&[("TOPO_STATE", "/run/ro/state")], &["run", "-e", "netns(\"h1\")"])
            .fails(1)
            .says("`/run/ro/state`");
    });
}
