//! What an undo relies on is checked, what it had to leave is named, and it needs nothing that may have run out: room on the disk, the
//! right to write, file descriptors.

use std::fs;

use super::stage::{build, in_used_world};
use super::world::{Ran, Snapshot, World};

/// Makes something of each sort that an undo takes back on the host.
const LAB: &str = r#"
    let b = bridge("hb0"); b.addr("10.8.0.1/24");
    let h = netns("h"); veth(h["eth0"], b); h["eth0"].addr("10.8.0.2/24");
    host.forward(true);
    host.dnat(#{ port: 8081, to: "10.8.0.2:80" });"#;

/// Kind: what an undo relies on lost a byte and nobody notices. A journal that was emptied or cut at the end of a line, of a lab that
/// is up: each command that needs it names it, `down` does not call the lab down, and `down --force` takes down what it can.
#[test]
fn a_journal_that_was_cut_is_named_and_the_lab_is_not_called_down() {
    in_used_world("", |w, before| {
        build(w, "lab", LAB).ok();
        let path = w.state().join("labs/lab/journal");
        let good = fs::read(&path).expect("the journal");
        let ends: Vec<usize> = (0..good.len()).filter(|at| good[*at] == b'\n').map(|at| at + 1).collect();
        assert!(ends.len() > 6, "it has many lines");
        for cut in [0, ends[0], ends[ends.len() / 2], ends[ends.len() - 2]] {
            fs::write(&path, &good[..cut]).expect("cut it");
            let standing = w.snapshot();
            for words in [["down", "lab"].as_slice(), &["gc"], &["show", "lab"], &["ls"], &["exec", "lab/h", "true"]] {
                println!("{cut} bytes: {words:?}");
                let ran = w.topo(words).fails(1);
                ran.says(&path.display().to_string()).says("topo down --force lab");
                assert!(!ran.err().contains("is down"), "{}", ran.err());
                w.assert_clean(&standing);
            }
            fs::write(&path, &good).expect("mend it");
        }
        w.topo(&["gc"]).ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// The same for a network: `network repair` and `inspect` look at it, too.
#[test]
fn a_networks_damaged_journal_is_named() {
    in_used_world("ip netns add c1", |w, before| {
        w.topo(&["network", "create", "web", "--subnet", "10.5.0.0/24"]).ok();
        w.topo(&["network", "connect", "web", "c1"]).ok();
        for lab in ["net.web", "net.web.*"] {
            let path = w.run(&format!("ls state/labs/{lab}/journal | tail -n 1")).ok().out().trim().to_owned();
            let path = w.dir().join(path);
            let good = fs::read(&path).expect("the journal");
            let mut bad = good.clone();
            let at = bad.len() - 10;
            bad[at] ^= 4;
            fs::write(&path, &bad).expect("damage it");
            for words in [["network", "repair", "web"], ["network", "inspect", "web"]] {
                w.topo(&words).fails(1).says(&path.display().to_string());
            }
            w.topo(&["gc"]).fails(1).says(&path.display().to_string());
            fs::write(&path, &good).expect("mend it");
        }
        w.topo(&["network", "rm", "--force", "web"]).ok();
        w.assert_clean(before);
    });
}

/// `down --force` of a lab whose journal or record is damaged: what is sound or has the mark goes, and the damage is told.
#[test]
fn a_damaged_lab_goes_by_force() {
    in_used_world("", |w, before| {
        for (file, damage) in [
            // A line in the middle: all but that step is undone by the journal.
            ("journal", "sed -i '4s/topo/tepo/;4s/br/bx/'"),
            ("journal", "sed -i '1s/0/1/'"),
            ("lab.json", "sed -i 's/\"created\":1/\"created\":2/'"),
            ("lab.json", "truncate -s 20"),
            ("lab.json", "rm"),
        ] {
            build(w, "lab", r#"let h = netns("h"); veth(h["eth0"], bridge("br0")); h["eth0"].addr("10.0.0.1/24");"#)
                .ok();
            w.run(&format!("{damage} state/labs/lab/{file}")).ok();
            w.topo(&["down", "lab"]).fails(1).says(file);
            w.topo(&["down", "--force", "lab"]).fails(1).says(file);
            w.assert_clean(before);
        }
        // Of a lab that is whole it does what `down` does.
        build(w, "lab", LAB).ok();
        w.topo(&["down", "--force", "lab"]).ok().says("lab `lab` is down");
        w.assert_clean(before);
    });
}

/// Kind: each of two commands names the other as the way on. With the record damaged and the secret gone or damaged, the lab goes by its
/// journal, and a new one can be built.
#[test]
fn a_damaged_lab_without_a_secret_goes_by_force() {
    in_used_world("", |w, before| {
        let secret_file = w.state().join("secret");
        let kept = fs::read(&secret_file).expect("the secret");
        for (secret, record) in [
            ("rm", "sed -i 's/\"created\":1/\"created\":2/'"),
            ("truncate -s 9", "sed -i 's/\"created\":1/\"created\":2/'"),
            ("rm", "truncate -s 20"),
            ("rm", "sed -i 's/\"process_mark\":\"[^\"]*\",//'"),
        ] {
            println!("{secret}, {record}");
            build(w, "lab", r#"bridge("br0"); host.route("192.0.2.0/24", #{ blackhole: true });"#).ok();
            w.run(&format!("{secret} state/secret; {record} state/labs/lab/lab.json")).ok();
            w.topo(&["down", "--all"]).fails(1).says("lab.json").says("topo down --force lab");
            w.topo(&["down", "--force", "lab"]).fails(1).says("lab.json");
            assert_eq!(w.topo(&["ls"]).ok().out(), "");
            w.run("ip link show br0 || ip route | grep blackhole").fails(1);
            if secret != "rm" {
                w.run("rm state/secret").ok();
            }
            build(w, "lab", r#"bridge("br0");"#).ok();
            w.topo(&["down", "lab"]).ok();
            assert_ne!(fs::read(&secret_file).expect("a new secret"), kept);
            fs::write(&secret_file, &kept).expect("put back");
            w.assert_clean(before);
        }
    });
}

/// Kind: what others changed is passed over in silence. An object that is there without the lab's mark is named, and the lab is not
/// called down; one that is gone counts as done.
#[test]
fn what_down_has_to_leave_is_named() {
    in_used_world("", |w, before| {
        for (change, says, mend) in [
            ("ip link set hb0 down address 02:00:00:00:00:99 alias theirs", "`hb0` has `theirs`", "ip link del hb0"),
            ("ip netns del h; ip netns add h", "netns `h` has no mark", "ip netns del h"),
            (
                "t=$(nft list tables inet | grep -o 'topo-.*'); nft delete table inet $t; nft add table inet $t",
                "table `inet ",
                "nft delete table inet $(nft list tables inet | grep -o 'topo-.*')",
            ),
        ] {
            println!("{change}");
            build(w, "lab", LAB).ok();
            w.run(change).ok();
            let ran = w.topo(&["down", "lab"]).fails(1);
            ran.says(says).says("topo down --force");
            assert!(!ran.err().contains("is down"), "{}", ran.err());
            w.topo(&["ls"]).ok().says("lab ");
            // With it away the same command ends it.
            w.run(mend).ok();
            w.topo(&["down", "lab"]).ok().says("lab `lab` is down");
            w.assert_clean(before);
            // By force the lab is forgotten, and what is left is theirs.
            build(w, "lab", LAB).ok();
            w.run(change).ok();
            w.topo(&["down", "--force", "lab"]).fails(1).says(says);
            assert_eq!(w.topo(&["ls"]).ok().out(), "");
            w.run(mend).ok();
            // The directory of namespaces could not go with the lab.
            w.topo(&["gc"]).ok();
            w.assert_clean(before);
        }
        build(w, "lab", LAB).ok();
        w.run("ip link del hb0; ip netns del h; nft flush ruleset").ok();
        w.topo(&["down", "lab"]).ok().says("lab `lab` is down");
        w.assert_clean(before);
    });
}

/// An address on a device of the host that others made their own.
#[test]
fn an_address_that_others_took_over_is_named() {
    in_used_world("ip link add d0 type bridge; ip link set d0 up", |w, before| {
        build(w, "lab", r#"host["d0"].addr("10.9.0.1/24");"#).ok();
        w.run("ip addr change 10.9.0.1/24 dev d0").ok();
        w.topo(&["down", "lab"]).fails(1).says("address `10.9.0.1/24` of `d0`");
        w.run("ip addr del 10.9.0.1/24 dev d0").ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A state directory that is a small file system of its own, with a lab and a network in it.
fn in_small_world(test: impl FnOnce(&World, &Snapshot, &dyn Fn(&[&str]) -> Ran)) {
    in_used_world("mkdir -m 700 sd; mount -t tmpfs -o size=400k,mode=700 sd sd; ip netns add c1", |w, _| {
        let dir = w.dir().join("sd").display().to_string();
        let topo = |words: &[&str]| w.topo_env(&[("TOPO_STATE", &dir)], words);
        topo(&["run", "--rm", "-e", super::stage::USE_ALL]).ok();
        let before = w.snapshot();
        topo(&["run", "--name", "lab", "-e", LAB]).ok();
        topo(&["network", "create", "web", "--subnet", "10.5.0.0/24"]).ok();
        topo(&["network", "connect", "web", "c1", "--publish", "8080:80"]).ok();
        test(w, &before, &topo);
        w.assert_clean(&before);
    });
}

/// Nothing of the lab and the network is in the kernel.
fn assert_kernel_is_clean(w: &World) {
    let found = w.run(
        "ip netns; nft list tables; ip -o link | grep -e hb0 -e br-web || true; cat /proc/sys/net/ipv4/ip_forward",
    );
    assert_eq!(found.out().lines().filter(|line| !line.starts_with("c1")).collect::<Vec<_>>(), ["0"]);
    assert_eq!(w.run("ip -n c1 -o link | wc -l").ok().out().trim(), "1");
}

/// Kind: clean-up that needs what ran out. No room at all on the disk.
#[test]
fn a_full_disk_keeps_nothing_up() {
    in_small_world(|w, _, topo| {
        w.run("dd if=/dev/zero of=sd/fill bs=1k 2>/dev/null || true").ok();
        w.run("! echo x 2>/dev/null >sd/more").ok();
        topo(&["down", "lab"]).ok().says("lab `lab` is down");
        w.run("rm -f sd/more; dd if=/dev/zero of=sd/fill3 bs=1k 2>/dev/null || true").ok();
        topo(&["network", "disconnect", "web", "c1"]).ok();
        w.run("dd if=/dev/zero of=sd/fill4 bs=1k 2>/dev/null || true").ok();
        topo(&["network", "rm", "web"]).ok();
        topo(&["gc"]).ok();
        assert_kernel_is_clean(w);
        w.run("rm sd/fill*").ok();
    });
}

/// What a killed run left goes on a full disk, too.
#[test]
fn gc_works_on_a_full_disk() {
    in_small_world(|w, _, topo| {
        topo(&["down", "lab"]).ok();
        topo(&["network", "rm", "--force", "web"]).ok();
        let dir = w.dir().join("sd").display().to_string();
        let env = [("TOPO_STATE", dir.as_str()), ("TOPO_FAULT", "kill-kernel:9")];
        w.topo_env(&env, &["run", "--name", "lab", "-e", LAB]).fails(super::stage::KILLED);
        w.run("dd if=/dev/zero of=sd/fill bs=1k 2>/dev/null || true").ok();
        topo(&["gc"]).ok().says("removed lab `lab`");
        assert_kernel_is_clean(w);
        w.run("rm sd/fill*").ok();
    });
}

/// The state directory can't be written to: what is in the kernel goes, and what could not be noted is told.
#[test]
fn a_read_only_state_directory_keeps_nothing_up() {
    in_small_world(|w, before, topo| {
        w.run("mount -o remount,ro sd").ok();
        let ran = topo(&["down", "lab"]).fails(1);
        ran.says("Read-only file system").says("nothing of it is left in the kernel");
        topo(&["network", "disconnect", "web", "c1"]).fails(1).says("Read-only file system");
        topo(&["network", "rm", "--force", "web"]).fails(1).says("Read-only file system");
        assert_kernel_is_clean(w);
        w.run("mount -o remount,rw sd").ok();
        topo(&["down", "lab"]).ok().says("lab `lab` is down");
        topo(&["network", "rm", "--force", "web"]).ok();
        w.assert_clean(before);
    });
}

/// Several labs hold a setting of the host: one that went is known to have gone, also where that can't be noted in the state directory.
#[test]
fn settings_come_back_on_a_read_only_disk() {
    in_small_world(|w, before, topo| {
        for (lab, ttl) in [("t1", 70), ("t2", 71), ("t3", 72)] {
            topo(&["run", "--name", lab, "-e", &format!("host.sysctl(\"net.ipv4.ip_default_ttl\", {ttl});")]).ok();
        }
        w.run("mount -o remount,ro sd").ok();
        for (lab, left) in [("t1", "72"), ("t3", "71"), ("t2", "64")] {
            topo(&["down", lab]).fails(1).says("Read-only file system");
            assert_eq!(w.run("cat /proc/sys/net/ipv4/ip_default_ttl").ok().out().trim(), left, "after {lab}");
        }
        w.run("ls /run/toposcript-*; mount -o remount,rw sd").ok();
        topo(&["down", "t1", "t2", "t3", "lab"]).ok();
        topo(&["network", "rm", "--force", "web"]).ok();
        w.run("! ls /run/toposcript-* 2>/dev/null").ok();
        w.assert_clean(before);
    });
}

/// So few file descriptors that nothing can be opened beside what a removal needs.
#[test]
fn few_descriptors_are_enough() {
    in_small_world(|w, before, topo| {
        let program = w.program().display();
        let few = |count: u32, words: &str| {
            w.run(&format!("export TOPO_STATE=$PWD/sd; ulimit -n {count}; exec {program} {words}"))
        };
        // With none at all nothing is done, and nothing lost.
        few(8, "down lab").fails(1).says("Too many open files");
        few(12, "network disconnect web c1").fails(1).says("Too many open files");
        few(20, "down lab").ok().says("lab `lab` is down");
        // At any count it is done whole, or can be done again.
        for count in 12..=32 {
            if few(count, "network disconnect web c1").code != 0 {
                topo(&["network", "disconnect", "web", "c1"]).ok();
            }
            topo(&["network", "connect", "web", "c1", "--publish", "8080:80"]).ok();
        }
        few(32, "network disconnect web c1").ok();
        few(28, "network rm web").ok();
        few(20, "gc").ok();
        assert_kernel_is_clean(w);
        w.assert_clean(before);
    });
}
