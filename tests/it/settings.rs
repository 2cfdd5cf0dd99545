//! Settings of the host that several labs hold: in whatever order and however many at once they come and go, each setting is in the
//! end what it was before the first of them.

use super::stage::{KILLED, build, end_restart, in_used_world, kill_at_each_point, restart, with_fault};
use super::tier::{self, points};
use super::world::{Running, World};

const TTL: &str = "net.ipv4.ip_default_ttl";

fn hold(w: &World, lab: &str, statements: &str) {
    build(w, lab, statements).ok();
}

fn ttl(value: u32) -> String {
    format!("host.sysctl(\"{TTL}\", {value});")
}

fn down(w: &World, lab: &str) {
    w.topo(&["down", lab]).ok();
}

fn read(w: &World, key: &str) -> String {
    w.run(&format!("cat /proc/sys/{key}")).ok().out().trim().to_owned()
}

/// The saved value of a chain of holders: three labs with values of their own, down in each order. As long as one is up, the value of
/// the last of them stands.
#[test]
fn each_order_of_leaving_ends_with_the_first_value() {
    in_used_world("", |w, before| {
        for order in tier::spread([[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]], 3) {
            (1..=3).for_each(|n| hold(w, &format!("l{n}"), &ttl(70 + n)));
            let mut up = vec![1, 2, 3];
            for n in order {
                let last = up.iter().max().copied().expect("one is up");
                assert_eq!(read(w, "net/ipv4/ip_default_ttl"), (70 + last).to_string(), "{order:?}, {up:?} up");
                down(w, &format!("l{n}"));
                up.retain(|one| *one != n);
            }
            w.assert_clean(before);
        }
    });
}

/// A setting of a device and the one for all devices, which sets it along: each order of coming and going, for forwarding of both
/// families, and for a device that came with another value.
#[test]
fn a_device_and_all_devices() {
    let others = "ip link add ext0 type veth peer name ext1; ip link add lan9 type bridge
                  echo 1 >/proc/sys/net/ipv4/conf/lan9/forwarding; echo 1 >/proc/sys/net/ipv6/conf/lan9/forwarding";
    for (family, key) in [("ipv4", "net.ipv4.ip_forward"), ("ipv6", "net.ipv6.conf.all.forwarding")] {
        let one = |value: u32| format!("host.sysctl(\"net.{family}.conf.ext0.forwarding\", {value});");
        in_used_world(others, |w, before| {
            let of = |dev: &str| read(w, &format!("net/{family}/conf/{dev}/forwarding"));
            for (first, last) in [("dev", "all"), ("all", "dev")] {
                for (entering, value) in [("all", 1), ("dev", 1), ("dev", 0)] {
                    let all = ("all", format!("host.sysctl(\"{key}\", 1);"));
                    let dev = ("dev", one(value));
                    let labs = if entering == "all" { [all, dev] } else { [dev, all] };
                    labs.iter().for_each(|(name, statements)| hold(w, name, statements));
                    assert_eq!(of("ext0"), if labs[1].0 == "all" { "1".to_owned() } else { value.to_string() });
                    down(w, first);
                    let stands = if last == "all" { 1 } else { value };
                    assert_eq!(of("ext0"), stands.to_string(), "{entering} first, {first} goes first");
                    assert_eq!(
                        (of("lan9"), of("ext1")),
                        ("1".to_owned(), if last == "all" { "1" } else { "0" }.to_owned())
                    );
                    down(w, last);
                    w.assert_clean(before);
                }
            }
        });
    }
}

/// What an administrator sets while labs hold it is theirs, whichever lab goes last.
#[test]
fn what_others_set_meanwhile_stays() {
    in_used_world("ip link add ext0 type veth peer name ext1", |w, before| {
        for order in [["one", "two"], ["two", "one"]] {
            hold(w, "one", &(ttl(70) + "host.forward(true);"));
            hold(w, "two", &(ttl(71) + "host.forward(true);"));
            w.run("echo 99 >/proc/sys/net/ipv4/ip_default_ttl; echo 0 >/proc/sys/net/ipv4/conf/ext0/forwarding").ok();
            order.iter().for_each(|lab| down(w, lab));
            assert_eq!(read(w, "net/ipv4/ip_default_ttl"), "99");
            assert_eq!(read(w, "net/ipv4/ip_forward"), "0");
            w.run("echo 64 >/proc/sys/net/ipv4/ip_default_ttl").ok();
            w.assert_clean(before);
        }
    });
}

/// One state directory, two hosts: a setting of the one is nothing to the other.
#[test]
fn each_host_has_its_own() {
    in_used_world("ip netns add other", |w, before| {
        let topo = env!("CARGO_BIN_EXE_topo");
        let state = w.state().display().to_string();
        let there = |words: &str| w.run_as_root(&format!("TOPO_STATE={state} ip netns exec other {topo} {words}")).ok();
        for order in ["here there", "there here"] {
            hold(w, "here", &ttl(70));
            there(&format!("run --name there -e 'host.sysctl(\"{TTL}\", 71);'"));
            for lab in order.split(' ') {
                if lab == "here" { down(w, "here") } else { drop(there("down there")) }
            }
            let seen = w.run("ip netns exec other cat /proc/sys/net/ipv4/ip_default_ttl").ok();
            assert_eq!((seen.out().trim(), read(w, "net/ipv4/ip_default_ttl").as_str()), ("64", "64"));
            w.assert_clean(before);
        }
    });
}

/// Many labs up and down at once, with and without one that is killed: nothing is changed at the end. `TOPO_LABS` says how many, `TOPO_ROUNDS` how
/// often.
#[test]
fn many_at_once_leave_nothing() {
    let given = |name: &str| std::env::var(name).ok().and_then(|count| count.parse().ok());
    let (labs, rounds): (usize, usize) = (given("TOPO_LABS").unwrap_or(12), given("TOPO_ROUNDS").unwrap_or(2));
    in_used_world("ip link add ext0 type veth peer name ext1", |w, before| {
        let statements = |n: usize| match n % 3 {
            0 => "host.forward(true);".to_owned(),
            1 => ttl(70 + n as u32) + "host.forward(true, #{ apart: true });",
            _ => "host.sysctl(\"net/ipv4/conf/ext0/forwarding\", 1);".to_owned(),
        };
        for round in 0..rounds {
            let names: Vec<String> = (0..labs).map(|n| format!("x{n}")).collect();
            let runs: Vec<Running> =
                (0..labs).map(|n| w.start_topo(&["run", "--name", &names[n], "-e", &statements(n)])).collect();
            if round % 2 == 1 {
                runs[round % labs].signal(nix::sys::signal::Signal::SIGKILL);
            }
            runs.into_iter().for_each(|run| drop(run.wait()));
            let downs: Vec<Running> = names.iter().map(|name| w.start_topo(&["down", name])).collect();
            downs.into_iter().for_each(|down| drop(down.wait()));
            w.topo(&["gc"]).ok();
            w.assert_clean(before);
        }
    });
}

/// A lab is killed at each point of its run while others hold the same settings, and a `down` is.
#[test]
fn a_kill_at_each_point() {
    let statements =
        ttl(72) + "host.forward(true, #{ apart: true }); host.sysctl(\"net.ipv4.conf.ext0.forwarding\", 0);";
    in_used_world("ip link add ext0 type veth peer name ext1", |w, before| {
        hold(w, "stays", &(ttl(71) + "host.forward(true);"));
        let up = w.snapshot();
        kill_at_each_point(w, &up, &statements);
        down(w, "stays");
        w.assert_clean(before);
        kill_at_each_point(w, before, &statements);
        for point in points("down") {
            hold(w, "first", &(ttl(71) + "host.forward(true);"));
            hold(w, "second", &statements);
            let ran = with_fault(w, &format!("kill:{point}"), &["down", "first"]);
            println!("point {point}: {}", ran.code);
            if ran.code == KILLED {
                // Where nothing was changed yet, it is still up.
                w.topo(&["gc"]).ok();
                drop(w.topo(&["down", "first"]));
            }
            assert_eq!(read(w, "net/ipv4/ip_default_ttl"), "72");
            assert_eq!(
                (read(w, "net/ipv4/ip_forward"), read(w, "net/ipv4/conf/ext0/forwarding")),
                ("1".into(), "0".into())
            );
            down(w, "second");
            w.assert_clean(before);
            if ran.code == 0 {
                break;
            }
        }
    });
}

/// A failure at each point of a run and of a `down`, which is then repeated.
#[test]
fn a_failure_at_each_point() {
    let statements = ttl(72) + "host.forward(true);";
    in_used_world("ip link add ext0 type veth peer name ext1", |w, before| {
        hold(w, "stays", &(ttl(71) + "host.forward(true, #{ apart: true });"));
        let up = w.snapshot();
        for point in points("run") {
            let ran = with_fault(w, &format!("fail:{point}"), &["run", "--name", "lab", "-e", &statements]);
            if ran.code == 0 {
                break;
            }
            w.topo(&["gc"]).ok();
            w.assert_clean(&up);
        }
        for point in points("down") {
            let ran = with_fault(w, &format!("fail:{point}"), &["down", "lab"]);
            if ran.code != 0 {
                // Where nothing but its directory was left, there is nothing to take down.
                drop(w.topo(&["down", "lab"]));
                w.topo(&["gc"]).ok();
            }
            w.assert_clean(&up);
            if ran.code == 0 {
                break;
            }
            hold(w, "lab", &statements);
        }
        down(w, "stays");
        w.assert_clean(before);
    });
}

/// The note of an earlier boot says nothing about this one; one that lost or changed a byte is an error that names it, and nothing is
/// called down.
#[test]
fn a_note_that_is_not_to_be_relied_on() {
    in_used_world("", |w, before| {
        hold(w, "lab", &ttl(70));
        let file = w.run("echo state/settings-*").ok().out().trim().to_owned();
        for damage in ["s/64/65/", "s/.$//", "s/.*//", "s/^./x/"] {
            w.run(&format!("cp {file} kept; sed -i '{damage}' {file}")).ok();
            w.topo(&["down", "lab"]).fails(1).says(&file).says("is damaged");
            w.topo(&["gc"]).fails(1).says(&file);
            assert_eq!(read(w, "net/ipv4/ip_default_ttl"), "70");
            w.run(&format!("mv kept {file}")).ok();
        }
        down(w, "lab");
        w.assert_clean(before);
        // As a machine leaves it that ended without a `down`.
        restart(w);
        hold(w, "lab", &ttl(70));
        end_restart(w);
        w.run("echo 64 >/proc/sys/net/ipv4/ip_default_ttl").ok();
        hold(w, "new", &ttl(71));
        down(w, "new");
        w.topo(&["gc"]).ok();
        w.assert_clean(before);
    });
}

/// A device of others goes to a lab's namespace or gets another name, and a holder of the host's settings comes or goes meanwhile: in
/// each order the device has in the end what it had before both.
#[test]
fn a_device_that_is_away_while_holders_come_and_go() {
    let others = "ip netns add out; ip link add ext0 type veth peer name ext1 netns out; ip link set ext0 up
        ip link add ext2 type veth peer name ext3 netns out; ip link set ext2 up; echo 1 >/proc/sys/net/ipv4/conf/ext2/forwarding
        echo 0 >/proc/sys/net/ipv6/conf/ext2/accept_ra";
    in_used_world(others, |w, before| {
        let holder = "host.forward(true); host.sysctl(\"net.ipv4.conf.default.rp_filter\", 1);";
        let all = |key: &str| ["ext0", "ext2"].map(|dev| read(w, &format!("net/{key}").replace("DEV", dev)));
        let held = || {
            for key in ["ipv4/conf/DEV/forwarding", "ipv6/conf/DEV/forwarding"] {
                assert_eq!(all(key), ["1", "1"], "{key}");
            }
            assert_eq!(all("ipv6/conf/DEV/accept_ra"), ["2", "0"]);
        };
        for away in [
            "let h = netns(\"h1\"); for name in [\"ext0\", \"ext2\"] { host[name].move_to(h); }",
            "host[\"ext0\"].rename(\"new0\"); host[\"ext2\"].rename(\"new2\");",
        ] {
            for order in [
                ["+away", "+holder", "-away", "-holder"],
                ["+away", "+holder", "-holder", "-away"],
                ["+holder", "+away", "-holder", "-away"],
                ["+holder", "+away", "-away", "-holder"],
            ] {
                println!("{away} {order:?}");
                for (at, event) in order.iter().enumerate() {
                    match (&event[..1], &event[1..]) {
                        ("+", "away") => hold(w, "away", away),
                        ("+", name) => hold(w, name, holder),
                        (_, name) => down(w, name),
                    }
                    if *event == "-away" && !order[..at].contains(&"-holder") {
                        held();
                    }
                }
                w.assert_clean(before);
            }
        }
        // Several holders, the first of which goes while the device is away, and a move within a lab that is a holder itself.
        hold(w, "first", "host.forward(true);");
        hold(w, "lab", "host.forward(true, #{ apart: true }); host[\"ext0\"].move_to(netns(\"h1\"));");
        down(w, "first");
        hold(w, "last", "host.forward(true);");
        down(w, "lab");
        assert_eq!(read(w, "net/ipv6/conf/ext0/accept_ra"), "2");
        down(w, "last");
        w.assert_clean(before);
    });
}
