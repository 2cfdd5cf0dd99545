//! A state directory that is damaged, somebody else's, full or from before a restart: a clear error that names the file,
//! and nothing is changed.

use std::fs;
use std::path::PathBuf;

use super::stage::{KILLED, build, end_restart, in_used_user_world, in_used_world, restart, with_fault};
use super::world::World;

const LAB: &str = r#"let h = netns("h"); veth(h["eth0"], bridge("br0")); h["eth0"].addr("10.0.0.1/24");"#;

fn file(w: &World, name: &str) -> PathBuf {
    w.state().join("labs/lab").join(name)
}

/// Damages a file of a lab that is up, and one of a lab that was killed: whatever wants it says so and changes nothing.
/// With the file as it was, all goes on.
fn damaged(name: &str, damages: &[&str]) {
    in_used_world("", |w, before| {
        for killed in [false, true] {
            match killed {
                false => drop(build(w, "lab", LAB).ok()),
                true => drop(with_fault(w, "kill:10", &["run", "--name", "lab", "-e", LAB]).fails(KILLED)),
            }
            build(w, "sound", r#"bridge("br1");"#).ok();
            let path = file(w, name);
            let shown = path.display().to_string();
            let good = fs::read(&path).expect("the file");
            for damage in damages {
                println!("{damage}");
                let with = |text: &str| [good.as_slice(), text.as_bytes()].concat();
                let bad = match *damage {
                    "empty" => Vec::new(),
                    "cut" => good[..good.len() / 2].to_vec(),
                    "binary" => vec![0, 159, 146, 150, b'\n'],
                    more => with(more),
                };
                fs::write(&path, bad).expect("damage it");
                let standing = w.snapshot();
                for words in
                    [["down", "lab"].as_slice(), &["gc"], &["show", "lab"], &["ls"], &["exec", "lab/h", "true"]]
                {
                    println!("{words:?}");
                    w.topo(words).fails(1).says(&shown);
                    w.assert_clean(&standing);
                }
                // Another lab is none the worse for it.
                assert!(w.topo(&["ls"]).out().contains("sound"));
                w.topo(&["down", "sound"]).ok();
                build(w, "sound", r#"bridge("br1");"#).ok();
                build(w, "lab", r#"bridge("br2");"#).fails(1).says("`lab`");
                fs::write(&path, &good).expect("mend it");
            }
            w.topo(&["down", "lab", "sound"]).ok();
            w.assert_clean(before);
        }
    });
}

#[test]
fn a_damaged_journal_is_named() {
    damaged(
        "journal",
        &["empty", "cut", "x", "{\"step\":\n", "nonsense\n{\"done\":{\"upto\":1}}\n", "binary", UNKNOWN_STEP, "[]\n"],
    );
}

const UNKNOWN_STEP: &str = "{\"step\":{\"no\":99,\"word\":\"no-such-step\",\"data\":{}}}\n";

#[test]
fn a_damaged_record_is_named() {
    damaged("lab.json", &["empty", "cut", "binary", "more"]);
}

/// The line at fault is told by its number.
#[test]
fn a_damaged_line_is_told_by_its_number() {
    in_used_world("", |w, before| {
        build(w, "lab", LAB).ok();
        let path = file(w, "journal");
        let good = fs::read_to_string(&path).expect("the journal");
        let bad: Vec<String> = good
            .lines()
            .enumerate()
            .map(|(n, line)| if n == 1 { line.replace(':', ";") } else { line.into() })
            .collect();
        fs::write(&path, bad.join("\n") + "\n").expect("damage it");
        w.topo(&["down", "lab"]).fails(1).says("line 2").says("nothing was changed");
        fs::write(&path, good).expect("mend it");
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// After a restart of the machine nothing of a lab is in the kernel, and what has its names is somebody else's: the lab is
/// forgotten.
#[test]
fn a_lab_from_before_a_restart_is_forgotten() {
    in_used_world("", |w, before| {
        for end in [["down", "lab"].as_slice(), &["gc"]] {
            build(w, "lab", r#"bridge("br0"); host.route("192.0.2.0/24", #{ blackhole: true });"#).ok();
            restart(w);
            // Without its mark the bridge is like one that was made after the restart.
            w.ip("link set br0 alias theirs");
            let ls = w.topo(&["ls"]).ok().out().to_owned();
            assert!(ls.lines().any(|line| line.starts_with("lab ") && line.contains("gone (restarted)")), "{ls}");
            assert_eq!(listed_state(w, "lab"), "gone");
            let show = w.topo(&["show", "lab"]).ok().out().to_owned();
            assert!(show.starts_with("lab lab: gone, ") && show.contains("the machine was restarted"), "{show}");
            w.topo(end).ok();
            assert_eq!(w.topo(&["ls"]).ok().out(), "");
            end_restart(w);
            w.run("ip link show br0; ip route | grep blackhole; ip link del br0; ip route del blackhole 192.0.2.0/24")
                .ok();
            w.assert_clean(before);
        }
    });
}

/// The same after a real restart: neither its objects nor the directory of namespaces are there.
#[test]
fn a_lab_that_ended_with_the_machine_is_forgotten() {
    in_used_world("", |w, before| {
        build(w, "lab", LAB).ok();
        w.run("ip netns del h; ip link del br0; rm state/made-netns-dir; umount /run/netns; rmdir /run/netns").ok();
        restart(w);
        w.topo(&["gc"]).ok().says("removed lab `lab`");
        end_restart(w);
        w.assert_clean(before);
    });
}

/// Returns the state of a lab as `topo ls --json` has it.
fn listed_state(w: &World, lab: &str) -> String {
    let labs: serde_json::Value = serde_json::from_str(w.topo(&["ls", "--json"]).ok().out()).expect("JSON");
    let found = labs.as_array().expect("a list").iter().find(|one| one["name"] == lab).expect("the lab").clone();
    found["state"].as_str().expect("a word").to_owned()
}

/// What isn't a lab's directory is no lab, and stays.
#[test]
fn only_labs_are_read() {
    in_used_world("", |w, before| {
        w.run("cd state/labs; echo text >notes; mkdir .hidden ..x; echo x >..x/y; ln -s /nowhere link").ok();
        let standing = w.snapshot();
        assert_eq!(w.topo(&["ls"]).ok().out(), "");
        w.topo(&["gc"]).ok();
        w.topo(&["down", "--all"]).ok();
        w.assert_clean(&standing);
        w.run("cd state/labs; rm -r notes .hidden ..x link").ok();
        w.assert_clean(before);
    });
}

/// A state directory that is no directory, can't be made, or that others can write to.
#[test]
fn a_state_directory_that_is_no_good_is_named() {
    in_used_world("", |w, before| {
        w.run("echo x >file; mkdir open; chmod 777 open; mkdir group; chmod 770 group; ln -s /nowhere dangling").ok();
        w.run("mkdir read-only; mount -t tmpfs -o ro tmpfs read-only").ok();
        let standing = w.snapshot();
        for (state, says) in [
            ("file", "TOPO_STATE"),
            ("/proc/topo", "TOPO_STATE"),
            ("read-only", "TOPO_STATE"),
            ("open", "chmod 700"),
            ("group", "chmod 700"),
            ("dangling", "TOPO_STATE"),
        ] {
            let state = w.dir().join(state).display().to_string();
            for words in
                [["run", "-e", LAB].as_slice(), &["run", "--sandbox", "-e", LAB], &["gc"], &["ls"], &["down", "lab"]]
            {
                let ran = w.topo_env(&[("TOPO_STATE", &state)], words).fails(1);
                ran.says(&state).says(says);
            }
            w.assert_clean(&standing);
        }
        w.run("umount read-only; rm -r file open group dangling read-only").ok();
        w.assert_clean(before);
    });
}

/// An ordinary user's topo neither uses root's state directory nor one that it can't write to.
#[test]
fn a_state_directory_of_another_user_is_refused() {
    in_used_user_world(
        "mkdir /run/theirs /run/theirs/labs /run/closed; chmod 755 /run/theirs /run/theirs/labs; chmod 755 /run/closed",
        |w, before| {
            if w.run("test -w /run/theirs").code == 0 {
                return; // Root and the user have one id here: there is no other user.
            }
            for (state, says) in [
                ("/run/theirs", "belongs to user 0"),
                ("/run/closed", "/run/closed"),
                ("/run/closed/new", "/run/closed/new"),
            ] {
                for words in [["run", "-e", LAB].as_slice(), &["gc"], &["ls"]] {
                    let ran = w.topo_env(&[("TOPO_STATE", state)], words).fails(1);
                    ran.says(state).says(says).says("TOPO_STATE");
                    w.assert_clean(before);
                }
            }
        },
    );
}

/// A full disk: the run fails, names the file and takes everything back, or leaves what `gc` finishes once there is room.
#[test]
fn a_full_disk_is_told() {
    in_used_world("mkdir full; mount -t tmpfs -o size=16k,mode=700 tmpfs full", |w, before| {
        let state = w.dir().join("full").display().to_string();
        let env = [("TOPO_STATE", state.as_str())];
        let many = r#"for n in 1..=200 { let h = netns(`h${n}`); settle(); }"#;
        let ran = w.topo_env(&env, &["run", "--name", "lab", "-e", many]).fails(1);
        ran.says("No space left on device").says(&state);
        // Some room, as whoever reads the message makes.
        w.run("mount -o remount,size=1m full").ok();
        w.topo_env(&env, &["gc"]).ok();
        assert_eq!(w.run("ls full/labs; ls /run/netns 2>/dev/null || true").ok().out(), "");
        // None at all: not even begun.
        w.run("dd if=/dev/zero of=full/ballast bs=1k 2>/dev/null || true").ok();
        w.topo_env(&env, &["run", "--name", "lab", "-e", LAB]).fails(1).says("No space left on device");
        w.run("rm full/ballast").ok();
        w.topo_env(&env, &["gc"]).ok();
        w.run("rm -r full/*; mount -o remount,size=16k full").ok();
        w.assert_clean(before);
    });
}
