//! The tests of the harness itself: what it must notice, what it must not, and how a world ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::{USER, World, in_user_world, in_world, sys};

/// Returns what `test` panicked with.
fn panic_of(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("this had to panic");
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .expect("a text")
}

/// Prepares a world, lets `leak` happen in it, and checks that `assert_clean` names what was left, under its section.
fn check_leak(prepare: &str, leak: &str, section: &str, names: &str) {
    let world = World::new();
    world.run(prepare).ok();
    let before = world.snapshot();
    world.run(leak).ok();
    let said = panic_of(|| world.assert_clean_within(&before, Duration::ZERO, super::Snapshot::take));
    let mut lines = said.lines().skip_while(|line| *line != format!("{section}:")).skip(1);
    assert!(
        lines.by_ref().take_while(|line| line.starts_with(' ')).any(|line| line.contains(names)),
        "`{leak}`: expected `{names}` under `{section}`:\n{said}"
    );
}

/// Goes on when the shell's last background command is no shell any more.
const ASLEEP: &str = "until [ $(cat /proc/$!/comm) = sleep ]; do :; done";

#[test]
fn a_leaked_link_is_named() {
    check_leak("", "ip link add br7 type bridge", "links", "+ br7");
    check_leak("ip link add br7 type bridge", "ip link del br7", "links", "- br7");
    check_leak("ip link add br7 type bridge", "ip link set br7 mtu 1400", "links", "~ br7, mtu: 1500 -> 1400");
    check_leak("ip link add br7 type bridge", "ip link set br7 up", "links", "~ br7, flags");
    check_leak("ip link add br7 type bridge", "ip link property add dev br7 altname long7", "links", "long7");
}

#[test]
fn a_leaked_address_is_named() {
    check_leak("", "ip address add 10.7.0.1/24 dev lo", "addresses", "+ lo 10.7.0.1/24");
    check_leak("", "ip address add 2001:db8::7/64 dev lo", "addresses", "+ lo 2001:db8::7/64");
    check_leak("", "ip address del 127.0.0.1/8 dev lo", "addresses", "- lo 127.0.0.1/8");
}

#[test]
fn a_leaked_route_is_named() {
    check_leak("", "ip route add 10.7.0.0/24 dev lo table 77", "routes", "+ unicast 10.7.0.0/24 dev lo table 77");
    check_leak("", "ip route add blackhole 2001:db8::/32", "routes", "+ blackhole 2001:db8::/32");
    check_leak("", "ip nexthop add id 7 blackhole", "next hops", "+ 7");
}

#[test]
fn a_leaked_rule_is_named() {
    check_leak("", "ip rule add from 10.7.0.0/24 table 77", "IPv4 rules", "10.7.0.0");
    check_leak("", "ip -6 rule add from 2001:db8::/32 table 77", "IPv6 rules", "2001:db8::");
}

#[test]
fn a_leaked_neighbour_is_named() {
    let veth = "ip link add v0 type veth peer name v1; ip link set v0 up";
    check_leak(veth, "ip neigh add 10.7.0.2 lladdr 02:00:00:00:00:07 dev v0", "neighbours", "+ 10.7.0.2 v0");
    check_leak(veth, "ip neigh add proxy 10.7.0.3 dev v0", "neighbour proxies", "+ 10.7.0.3 v0");
}

#[test]
fn a_leaked_qdisc_is_named() {
    let veth = "ip link add v0 type veth peer name v1; ip link set v0 up";
    check_leak(
        veth,
        "tc qdisc add dev v0 root tbf rate 1mbit burst 10k latency 9ms",
        "queueing disciplines",
        "+ v0 tbf",
    );
}

#[test]
fn a_leaked_sysctl_is_named() {
    let set = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    check_leak("", set, "sysctls", "~ net/ipv4/ip_forward: \"0\" -> \"1\"");
}

#[test]
fn a_leaked_ruleset_is_named() {
    if World::new().run("command -v nft || true").ok().out().is_empty() {
        let dump = format!("{:?}", World::new().snapshot());
        assert!(!dump.contains("nftables"), "without nft a dump must not look as if there were no rules");
        return;
    }
    let set =
        "nft add table ip t7; nft 'add map ip t7 m { type inet_service : ipv4_addr; elements = { 80 : 10.7.0.2 }; }'";
    check_leak("", set, "nftables", "+ table ip t7 > map m > elements = { 80 : 10.7.0.2 }");
}

#[test]
fn a_leaked_netns_is_named() {
    check_leak("", "ip netns add ns7", "network namespaces", "+ netns ns7");
    check_leak("", "ip netns add ns7", "network namespaces", "mounted at /run/netns/ns7");
    check_leak("", "ip netns add ns7", "files", "+ /run/netns/ns7");
    let process = format!("unshare --net sleep 77 & {ASLEEP}");
    check_leak("", &process, "network namespaces", "the namespace of sleep `sleep 77`");
    let opened =
        format!("ip netns add ns7; exec 7</run/netns/ns7; sleep 77 & {ASLEEP}; exec 7<&-; umount -l /run/netns/ns7");
    check_leak("", &opened, "network namespaces", "held open by");
}

#[test]
fn a_leaked_mount_is_named() {
    check_leak("", "mkdir /run/m7; mount -t tmpfs m7 /run/m7", "mounts", "+ /run/m7");
}

#[test]
fn a_leaked_process_is_named() {
    check_leak("", &format!("sleep 77 & {ASLEEP}"), "processes", "+ sleep `sleep 77`");
}

#[test]
fn a_leaked_file_is_named() {
    check_leak("", "echo seven >/run/f7", "files", "+ /run/f7 {\"content\":\"seven\\n\"");
    check_leak("echo six >/run/f7", "echo seven >/run/f7", "files", "~ /run/f7, content: \"six\\n\" -> \"seven\\n\"");
    check_leak("", "touch $TOPO_STATE/f7", "files", "state/f7");
    check_leak("", "touch $TMPDIR/f7", "files", "tmp/f7");
}

/// What the kernel does by itself, beside what a test does and undoes, is not a leak.
#[test]
fn a_clean_run_passes() {
    in_world(|_| {});
    in_user_world(|_| {});
    in_world(|w| {
        w.run(
            "ip link add v0 type veth peer name v1; ip link add br0 type bridge; ip link set v0 master br0 up
             ip link set v1 up; ip link set br0 up; ip addr add 10.7.0.1/24 dev br0; ip addr add 2001:db8::1/64 dev br0
             echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/ip_forward
             ip rule add from 10.7.0.0/24 table 77; ip rule del from 10.7.0.0/24 table 77
             unshare --net sleep 0; sleep 0 & wait; touch $TOPO_STATE/x; rm $TOPO_STATE/x
             ip link del v0; ip link del br0",
        )
        .ok();
        w.write("deep/in/here.txt", "the test's own files are its own affair");
    });
}

/// h1 -- br0 -- h2, addresses and links settling: what follows later from what was there before isn't a leak either.
#[test]
fn a_busy_world_has_one_snapshot() {
    let world = World::new();
    world.ip("link add br0 type bridge");
    for host in ["h1", "h2"] {
        world
            .run(&format!(
                "ip netns add {host}; ip link add p{host} type veth peer name eth0 netns {host}
             ip link set p{host} up master br0; ip -n {host} link set eth0 up; ip -n {host} link set lo up"
            ))
            .ok();
    }
    world
        .run("ip -n h1 addr add 10.7.0.1/24 dev eth0; ip -n h2 addr add 10.7.0.2/24 dev eth0; ip link set br0 up")
        .ok();
    world.run("ip addr add 10.7.0.9/24 dev br0; ip addr add 2001:db8::9/64 dev br0").ok();
    let before = world.snapshot();
    // Makes neighbours, on the way to learn that nobody listens.
    world
        .run("for i in 1 2; do nsenter --net=/run/netns/h$i ip route get 10.7.0.9; ping -c 1 10.7.0.$i || true; done")
        .ok();
    // Until the kernel has made its link-local addresses and checked them for duplicates.
    let start = Instant::now();
    while world.ip("-6 address").contains("tentative") || !world.ip("-6 address show dev br0").contains("fe80") {
        assert!(start.elapsed() < Duration::from_secs(20), "IPv6 did not settle");
        poll(&mut [], PollTimeout::from(50_u8)).ok();
    }
    world.assert_clean_within(&before, Duration::ZERO, super::Snapshot::take);
}

#[test]
fn thirty_worlds_at_once() {
    let worlds: Vec<_> = (0..30)
        .map(|number| {
            thread::spawn(move || {
                in_world(|w| {
                    w.ip(&format!("link add d{number} type veth peer name e{number}"));
                    assert_eq!(w.run("ls /sys/class/net").ok().out(), format!("d{number}\ne{number}\nlo\n"));
                    w.ip(&format!("link del d{number}"));
                });
            })
        })
        .collect();
    for world in worlds {
        world.join().expect("each world is its own");
    }
}

#[test]
fn one_world_serves_many_threads() {
    in_world(|w| {
        thread::scope(|scope| {
            for number in 0..10 {
                scope.spawn(move || assert_eq!(w.run(&format!("echo {number}")).ok().out(), format!("{number}\n")));
            }
        });
    });
}

#[test]
fn a_world_is_a_machine_of_its_own() {
    let world = World::new();
    world.run("test $(id -u) = 0; test $$ -gt 1; test -r /proc/1/comm; ip link show lo | grep UP,").ok();
    assert_eq!(world.run("cat /proc/1/comm; ls -A /run; ls /sys/class/net").ok().out(), "world\nmount\nlo\n");
    if !world.holder.mapped() {
        assert_eq!(world.run("grep -c ' /run' /proc/self/mountinfo").ok().out(), "1\n", "a mount of the host's shows");
    }
    assert_ne!(world.run("readlink /proc/self/ns/net").ok().out().trim(), net_of("/proc/self"));
    assert!(world.dir().join("state").is_dir());
    assert_eq!(world.run("pwd; echo $TOPO_STATE").ok().out(), format!("{0}\n{0}/state\n", world.dir().display()));
    let path = world.write("a/b.txt", "text");
    assert_eq!(world.run(&format!("cat {}", path.display())).ok().out(), "text");
}

fn net_of(proc: &str) -> String {
    fs::read_link(format!("{proc}/ns/net")).expect("a namespace").display().to_string()
}

#[test]
fn an_unprivileged_world_has_an_ordinary_user() {
    in_user_world(|w| {
        assert_eq!(
            w.run("id -u; grep CapEff /proc/self/status").ok().out(),
            format!("{USER}\nCapEff:\t0000000000000000\n")
        );
        w.run("test $XDG_RUNTIME_DIR = /run/user/$(id -u); echo 1 >$XDG_RUNTIME_DIR/x; rm $XDG_RUNTIME_DIR/x").ok();
        w.run("echo 1 >$HOME/x; echo 1 >$TOPO_STATE/x; rm $TOPO_STATE/x; echo 1 >y; test -w .").ok();
        w.run("ip link add v0 type veth peer name v1").fails(2).says("not permitted");
        w.run("mount -t tmpfs x /run").fails(32);
        w.run("mkdir /run/m").fails(1);
        let file = w.write("in/side", "mine");
        w.run(&format!("test -O {0}; echo more >>{0}; rm {0}", file.display())).ok();
        w.run("unshare --user --map-root-user --net ip link add v0 type veth peer name v1").ok();
        // Root is still at hand for what the test itself needs.
        w.ip("link add v0 type veth peer name v1");
        w.run_as_root("ip link del v0; mkdir /run/m; rmdir /run/m").ok();
    });
}

#[test]
fn topo_runs_in_both_kinds() {
    for world in [World::new(), World::unprivileged()] {
        world.topo(&["--version"]).ok();
        world.topo_env(&[("TOPO_STATE", "/nowhere")], &["--version"]).ok();
        world.topo_stdin("", &["--version"]).ok();
        world.start_topo(&["--version"]).wait().ok();
    }
}

#[test]
fn a_command_is_heard() {
    let world = World::new();
    let ran = world.run("echo out; echo err >&2; exit 7").fails(7);
    assert_eq!((ran.out(), ran.err()), ("out\n", "err\n"));
    ran.says("out").says("err");
    world.run("kill -TERM $$").fails(128 + 15);
    let said = panic_of(|| drop(world.run("echo why >&2; exit 3").ok()));
    assert!(said.contains("expected exit code 0, got 3") && said.contains("why") && said.contains("exit 3"), "{said}");
    let said = panic_of(|| drop(world.ip("link show nothing")));
    assert!(said.contains("$ ip link show nothing") && said.contains("does not exist"), "{said}");
    let long = world.run("head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2").ok();
    assert_eq!((long.out().len(), long.err().len()), (300_000, 300_000));
    // What it left running holds the pipe; that isn't waited for.
    assert_eq!(world.run("sleep 77 & echo done").ok().out(), "done\n");
    let shown = world.start(super::Login::Root, "cat".as_ref(), &["-"], &[("A", "b")], Some("in\n")).wait().ok();
    assert_eq!((shown.out(), shown.command.as_str()), ("in\n", "A=b cat -"));
}

#[test]
fn a_command_in_the_background_is_heard_and_told() {
    let world = World::new();
    let running = world.start_run("trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done");
    running.wait_for_output("ready", Duration::from_secs(10));
    assert!(fs::read_to_string(format!("/proc/{}/cmdline", running.pid())).expect("ours to see").contains("caught"));
    running.signal(Signal::SIGTERM);
    running.wait_for_output("caught", Duration::from_secs(10));
    assert_eq!(running.wait().fails(9).out(), "ready\ncaught\n");

    let silent = world.start_run("exec sleep 77");
    let said = panic_of(|| silent.wait_for_output("never", Duration::from_millis(20)));
    assert!(said.contains("did not say `never` within 20ms") && said.contains("sleep 77"), "{said}");
    drop(silent);
    let flood = world.start_run("yes");
    panic_of(|| flood.wait_for_output("never", Duration::from_millis(20)));
    drop(flood);
    let said = panic_of(|| world.start_run("echo no").wait_for_output("yes", Duration::from_secs(10)));
    assert!(said.contains("ended (exit code 0) and did not say `yes`") && said.contains("no\n"), "{said}");
    let said = panic_of(|| drop(world.start(super::Login::Root, "no-such-program".as_ref(), &[], &[], None)));
    assert!(said.contains("start `no-such-program`"), "{said}");
}

/// Waits for the end of a process, and tells whether it came in time.
fn ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(10_000_u16)).expect("wait for a process") == 1
}

#[test]
fn nothing_outlives_its_world() {
    let own = net_of("/proc/self");
    let world = World::new();
    let (pid, dir) = (world.holder.pid(), world.dir().to_owned());
    let on_host =
        || fs::read_to_string("/proc/self/mountinfo").expect("the host's mounts").contains(&*dir.to_string_lossy());
    let running =
        world.start_run("mkdir m; mount -t tmpfs x m; ip link add v0 type veth peer name v1; echo ready; sleep 77");
    running.wait_for_output("ready", Duration::from_secs(10));
    assert!(!on_host(), "a mount reached the host");
    let holder = sys::pidfd_of(pid).expect("a living holder");
    drop(world);
    assert!(ended(&holder), "the holder lives on");
    assert!(!fs::exists(format!("/proc/{pid}")).expect("a look at /proc"), "the holder was not reaped");
    assert!(!dir.exists(), "the scratch directory stayed");
    running.wait().fails(128 + 9);
    assert!(!on_host(), "a mount reached the host");
    assert_eq!(net_of("/proc/self"), own);
}

#[test]
fn a_world_ends_when_it_is_let_go() {
    let mut world = World::new();
    let running = world.start_run("exec sleep 77");
    let holder = sys::pidfd_of(world.holder.pid()).expect("a living holder");
    world.holder.let_go();
    assert!(ended(&holder), "the holder waits for something else");
    running.wait().fails(128 + 9);
}

/// Starts this test binary again, as a test process that is killed while it has a world.
#[test]
fn a_world_ends_with_a_killed_test_process() {
    const VICTIM: &str = "WORLD_OF_A_VICTIM";
    if std::env::var_os(VICTIM).is_some() {
        let world = World::new();
        let _running = world.start_run("exec sleep 77");
        writeln!(std::io::stdout(), "holder {}", world.holder.pid()).expect("tell");
        loop {
            thread::park();
        }
    }
    // Killed, it can't remove its scratch directory.
    let scratch = tempfile::tempdir().expect("a directory for the victim's");
    let itself =
        format!("{}::a_world_ends_with_a_killed_test_process", module_path!().split_once("::").expect("a crate").1);
    let mut victim = Command::new(std::env::current_exe().expect("a test binary"))
        .args(["--exact", &itself, "--nocapture"])
        .env(VICTIM, "1")
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the victim");
    let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let pid = lines.find_map(|line| line.split_once("holder ")?.1.parse().ok()).expect("the victim tells its holder");
    let holder = sys::pidfd_of(pid).expect("a living holder");
    victim.kill().expect("kill");
    victim.wait().expect("reap");
    assert!(ended(&holder), "the holder outlived its test process");
}
