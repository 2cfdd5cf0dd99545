//! Docker's network and IPAM driver, with a real dockerd in a machine of its own. Containers judge from inside; `ip`, `nft` and the dump of
//! the machine from outside.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{endpoints, json as read, mount_cgroups, topo};
use crate::tier::points;
use crate::world::{Ran, Running, World};

/// How long dockerd and the driver may take to be there.
const READY: Duration = Duration::from_secs(60);
const DRIVER: &str = "--driver toposcript --ipam-driver toposcript";

/// Starts dockerd, and waits until it answers.
pub(super) fn start_daemon(w: &World) -> Running {
    let daemon = w.start_run("exec dockerd --data-root $PWD/docker --storage-driver vfs >>dockerd.log 2>&1");
    w.run(
        "timeout 60 sh -c 'until /usr/bin/docker version >/dev/null 2>&1; do :; done' || { cat dockerd.log; exit 1; }",
    )
    .ok();
    daemon
}

/// Starts our driver, and waits until it listens.
pub(super) fn start_driver(w: &World, env: &str) -> Running {
    let driver = w.start_run(&format!("exec env {env} {} docker serve", w.program().display()));
    driver.wait_for_output("serving Docker at /run/docker/plugins/toposcript.sock", READY);
    driver
}

/// A machine with Docker, an image `bb`, and our driver.
pub(super) struct Machine {
    // Dropped first: it looks for containers to the end.
    daemon: Option<Running>,
    driver: Option<Running>,
    pub(super) w: World,
}

impl Machine {
    /// Makes one with a netns `out` that is a host outside, at 192.0.2.2.
    pub(super) fn new() -> Machine {
        let w = World::new();
        mount_cgroups(&w);
        w.run(
            "ip link set lo up; ip netns add out; ip link add o0 type veth peer name eth0 netns out
            ip addr add 192.0.2.1/24 dev o0; ip link set o0 up; ip -n out addr add 192.0.2.2/24 dev eth0; ip -n out link set eth0 up
            mkdir -p rootfs/bin rootfs/etc rootfs/proc rootfs/sys rootfs/dev rootfs/tmp; cp /bin/busybox rootfs/bin
            for a in sh sleep ip ping httpd true; do ln -s busybox rootfs/bin/$a; done",
        )
        .ok();
        let mut machine = Machine { daemon: None, driver: None, w };
        machine.start_daemon();
        machine.w.run("tar -C rootfs -c . | /usr/bin/docker import - bb").ok();
        machine
    }

    fn start_daemon(&mut self) {
        self.daemon = Some(start_daemon(&self.w));
    }

    fn start_driver(&mut self) {
        self.start_driver_with("");
    }

    /// Starts it with a variable of the environment.
    fn start_driver_with(&mut self, env: &str) {
        self.driver = Some(start_driver(&self.w, env));
    }

    fn stop_driver(&mut self, signal: Signal) -> Ran {
        let driver = self.driver.take().expect("the driver runs");
        driver.signal(signal);
        driver.wait()
    }

    fn stop_daemon(&mut self, signal: Signal) {
        let daemon = self.daemon.take().expect("dockerd runs");
        daemon.signal(signal);
        daemon.wait();
    }

    /// Removes what Docker removes by itself within a minute: the empty files that namespaces of containers were mounted at.
    fn tidy(&self) {
        self.w.run("find /run/docker/netns -type f -empty -delete").ok();
    }

    fn docker(&self, words: &str) -> Ran {
        self.w.run(&format!("/usr/bin/docker {words}"))
    }

    /// Runs a container to its end, and returns what its script prints.
    fn inside(&self, options: &str, script: &str) -> String {
        self.docker(&format!("run --rm {options} bb sh -ec '{script}'")).ok().stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            daemon.wait();
        }
    }
}

/// Runs `test` with Docker and the driver, and checks that nothing is left of it, once the containers and networks are removed.
fn in_docker(test: impl FnOnce(&mut Machine)) {
    let mut machine = Machine::new();
    machine.start_driver();
    // The first container leaves more than the network has: directories of Docker, locks of ours.
    let warm = |machine: &Machine| {
        machine.docker(&format!("network create {DRIVER} --ipv6 --subnet 10.5.0.0/24 --subnet fd05::/64 warm")).ok();
        machine.docker("run --rm --net warm --publish 1:1 bb true").ok();
        machine.docker("network rm warm").ok();
    };
    warm(&machine);
    machine.tidy();
    let before = machine.w.snapshot();
    test(&mut machine);
    machine.tidy();
    machine.w.assert_clean(&before);
}

/// A container of Docker in a network that both show under one name: device, address, way out, published port, and all of it given back.
#[test]
fn a_container_of_docker() {
    in_docker(|machine| {
        machine.docker(&format!("network create {DRIVER} --ipv6 --subnet 10.5.0.0/24 --subnet fd05::/64 --ip-range 10.5.0.128/25 --aux-address router=10.5.0.128 --opt mtu=1400 web")).ok();
        topo(&machine.w, "network ls").ok().says("web   10.5.0.0/24 fd05::/64  bridge  10.5.0.1 fd05::1  up");
        machine.docker("network ls").ok().says("web       toposcript   local");
        let seen = machine.inside("--net web --mac-address 02:00:00:00:00:77", "ip addr show eth0; ip route; ip -6 route; ping -c 1 -W 2 10.5.0.1; ping -c 1 -W 2 fd05::1; ping -c 1 -W 2 192.0.2.2");
        for part in [
            "inet 10.5.0.129/24",
            "inet6 fd05::2/64",
            "02:00:00:00:00:77",
            "mtu 1400",
            "default via 10.5.0.1",
            "default via fd05::1",
        ] {
            assert!(seen.contains(part), "{part}: {seen}");
        }
        assert_eq!(seen.matches(" 0% packet loss").count(), 3, "{seen}");
        let serve = "sh -c 'echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp'";
        machine
            .docker(&format!(
                "run --detach --name shop --net web --ip 10.5.0.9 --publish 8080:80 --publish 80 bb {serve}"
            ))
            .ok();
        let known = endpoints(&machine.w, "web");
        assert_eq!(
            (&known[0]["addresses"][0], &known[0]["ports"], &known[0]["state"]),
            (&json!("10.5.0.9/24"), &json!(["49153:80/tcp", "8080:80/tcp"]), &json!("up")),
            "{known:?}"
        );
        let get = |netns: &str, url: &str| {
            machine
                .w
                .run(&format!(
                    "{netns} curl --silent --fail --retry 20 --retry-connrefused --retry-delay 0 --max-time 20 {url}"
                ))
                .ok()
                .says("hello");
        };
        get("", "http://127.0.0.1:8080/");
        get("ip netns exec out", "http://192.0.2.1:8080/");
        get("ip netns exec out", "http://192.0.2.1:49153/");
        // Two that want one port or one address, in our words.
        machine
            .docker("run --rm --net web --publish 8080:80 bb true")
            .fails(125)
            .says("port 8080/tcp is published already, to `10.5.0.9:80`");
        machine
            .docker("run --rm --net web --ip 10.5.0.9 bb true")
            .fails(125)
            .says("take `10.5.0.9` of the pool `10.5.0.0/24`");
        assert_eq!(endpoints(&machine.w, "web").len(), 1);
        machine.docker("network rm web").fails(1).says("has active endpoints");
        assert!(read(&topo(&machine.w, "network inspect web --json").ok())["drift"] == json!([]));
        machine.docker("rm --force shop").ok();
        machine.w.run("curl --silent --max-time 2 http://127.0.0.1:8080/").fails(7);
        assert_eq!(endpoints(&machine.w, "web"), Vec::<Value>::new());
        assert_eq!(read(&topo(&machine.w, "network inspect web --json").ok())["used"], json!([0, 0]));
        machine.docker("network rm web").ok();
        assert!(!topo(&machine.w, "network ls").ok().out().contains("web"));
    });
}

/// A container in several networks, connected and disconnected while it runs; an internal network has no way out.
#[test]
#[ignore = "full tier"]
fn several_networks() {
    in_docker(|machine| {
        machine.docker(&format!("network create {DRIVER} --subnet 10.5.0.0/24 web")).ok();
        machine.docker(&format!("network create {DRIVER} --internal db")).ok();
        // The addresses of Docker's own IPAM do too.
        machine.docker("network create --driver toposcript --subnet 10.7.0.0/24 --opt driver=routed own").ok();
        topo(&machine.w, "network ls").ok().says("routed");
        machine.docker("run --detach --name shop --net web bb sleep 1000").ok();
        machine.docker("network connect db shop").ok();
        machine.docker("network connect --ip 10.7.0.9 own shop").ok();
        let look = |script: &str| machine.docker(&format!("exec shop sh -ec '{script}'")).ok().stdout;
        let seen = look("ip addr; ip route; ping -c 1 -W 2 10.7.0.1");
        for part in ["inet 10.5.0.2/24", "inet 10.224.0.2/24", "inet 10.7.0.9/24", "default via", " 0% packet loss"] {
            assert!(seen.contains(part), "{part}: {seen}");
        }
        machine.docker("network disconnect web shop").ok();
        let seen = look("ip addr; ip route; ping -c 1 -W 2 192.0.2.1");
        assert!(!seen.contains("10.5.0.2") && seen.contains("default via 10.7.0.1"), "{seen}");
        assert!(endpoints(&machine.w, "web").is_empty() && endpoints(&machine.w, "db").len() == 1);
        let seen = machine.inside("--net db", "ip route; ping -c 1 -W 1 192.0.2.2 || echo none");
        assert!(!seen.contains("default") && seen.contains("none"), "{seen}");
        machine.docker("run --rm --net db --publish 8080:80 bb true").ok();
        machine.docker("rm --force shop").ok();
        machine.docker("network rm web db own").ok();
    });
}

/// A network of `topo` that is there is used by `--opt network=`, together with containers of others, and stays when Docker's is removed.
#[test]
#[ignore = "full tier"]
fn a_network_that_is_there() {
    in_docker(|machine| {
        topo(&machine.w, "network create web --subnet 10.5.0.0/24 --route 10.9.0.0/16=10.5.0.7 --no-default-route")
            .ok();
        machine.w.run("ip netns add c1").ok();
        topo(&machine.w, "network connect web c1").ok();
        machine.docker(&format!("network create {DRIVER} --subnet 10.5.0.0/24 --opt network=web other")).ok();
        machine.docker("run --detach --name shop --net other bb sleep 1000").ok();
        machine.w.run("ip netns exec c1 ping -c 1 -W 2 10.5.0.3").ok();
        assert_eq!(endpoints(&machine.w, "web").len(), 2);
        let routes = machine.docker("exec shop ip route").ok().stdout;
        assert!(routes.contains("10.9.0.0/16 via 10.5.0.7") && !routes.contains("default"), "{routes}");
        machine
            .docker(&format!("network create {DRIVER} --subnet 10.6.0.0/24 --opt network=web wrong"))
            .fails(1)
            .says("it has 10.5.0.0/24, and Docker's has 10.6.0.0/24");
        machine.docker("rm --force shop").ok();
        machine.docker("network rm other").ok();
        assert_eq!(endpoints(&machine.w, "web").len(), 1);
        topo(&machine.w, "network rm --force web").ok();
        machine.w.run("ip netns del c1").ok();
    });
}

/// What Docker is refused is told in our words, and nothing is made.
#[test]
#[ignore = "full tier"]
fn what_is_refused() {
    in_docker(|machine| {
        topo(&machine.w, "network create web --subnet 10.5.0.0/24").ok();
        for (words, said) in [
            ("--opt colour=red x", "read the option `colour`: there is no such option"),
            ("--opt mtu=fast x", "it is `fast`"),
            ("--opt mtu=1000 --ipv6 --subnet fd07::/64 --subnet 10.7.0.0/24 x", "IPv6 needs 1280"),
            ("--opt driver=nosuch x", "there is no driver of this name"),
            ("--opt network=../x x", "is not allowed in it"),
            ("--ipam-opt colour=red x", "`--ipam-opt` has none here"),
            ("--opt driver=macvlan --opt parent=o0 x", "`bridge`, `routed` and `isolated` work"),
            ("--subnet 10.5.0.0/25 x", "it overlaps the pool `10.5.0.0/24`"),
            ("--subnet 192.0.2.0/24 x", "it overlaps the address `192.0.2.1/24`"),
            ("--subnet 224.0.0.0/24 x", "it has addresses of groups"),
            ("--subnet 10.7.0.0/24 --gateway 10.7.0.0 x", "the network's own address"),
        ] {
            let ran = machine.docker(&format!("network create {DRIVER} {words}"));
            ran.fails(1).says(said);
            assert_eq!(topo(&machine.w, "network ls").ok().out().lines().count(), 2, "{words}");
        }
        topo(&machine.w, "network rm web").ok();
        // What is no request of Docker's.
        let ask = |path: &str, body: &str| {
            machine
                .w
                .run(&format!(
                    "curl --silent --unix-socket /run/docker/plugins/toposcript.sock --data '{body}' http://x/{path}"
                ))
                .ok()
                .stdout
        };
        assert!(ask("NetworkDriver.Nonsense", "{}").contains("topo has no"));
        assert!(ask("NetworkDriver.Join", "nonsense").contains("\"Err\""));
        assert!(ask("NetworkDriver.Join", "{}").contains("it has no `NetworkID`"));
        assert!(ask("IpamDriver.RequestAddress", "[]").contains("\"Error\""));
    });
}

/// Networks and containers outlive the driver and Docker; what ended meanwhile is given back.
#[test]
#[ignore = "full tier"]
fn driver_and_docker_are_restarted() {
    let mut machine = Machine::new();
    machine.start_driver();
    machine.docker(&format!("network create {DRIVER} --subnet 10.5.0.0/24 web")).ok();
    machine.docker("run --detach --name shop --net web --ip 10.5.0.9 --publish 8080:80 bb sleep 1000").ok();
    machine.stop_driver(Signal::SIGTERM).ok();
    assert!(machine.w.run("ls /run/docker/plugins").ok().out().is_empty());
    machine.start_driver();
    machine.inside("--net web", "ping -c 1 -W 2 10.5.0.9");
    // A driver that is killed leaves its socket, which the next one takes over.
    machine.stop_driver(Signal::SIGKILL);
    // A container ends, and nobody is there to be told.
    machine.w.run("pid=$(/usr/bin/docker inspect --format '{{.State.Pid}}' shop); kill -9 $pid; timeout 60 sh -c \"while [ -e /proc/$pid ]; do :; done\"").ok();
    // Its cable ends with its netns, which dockerd keeps open while it looks for the driver.
    machine.w.run("ip link del $(ip -o link show type veth | grep master | sed 's/^[0-9]*: \\([^@:]*\\).*/\\1/')").ok();
    machine.start_driver();
    // Its port and address are free for others.
    machine.docker("run --rm --net web --ip 10.5.0.9 --publish 8080:80 bb true").ok();
    machine.docker("run --detach --name next --net web --publish 8080:80 bb sleep 1000").ok();
    machine.stop_daemon(Signal::SIGTERM);
    machine.start_daemon();
    assert_eq!(endpoints(&machine.w, "web"), Vec::<Value>::new());
    machine.docker("start next").ok();
    assert_eq!(endpoints(&machine.w, "web").len(), 1);
    machine.inside("--net web", "ping -c 1 -W 2 10.5.0.1");
    machine.docker("rm --force shop next").ok();
    machine.docker("network rm web").ok();
    // Docker's own files have changed; of ours there are none.
    machine.w.run("nft list tables; ip -o link; ip route; topo ls").ok().stdout.lines().for_each(|line| {
        assert!(!["topo", "br-", "tp", "10.5.0"].iter().any(|ours| line.contains(ours)), "{line}");
    });
}

/// Systemd's socket starts the driver; one that nobody asks ends, and the next request starts it again.
#[test]
#[ignore = "full tier"]
fn started_by_its_socket() {
    let mut machine = Machine::new();
    machine.w.run("mkdir -p /run/docker/plugins").ok();
    let program = machine.w.program().display().to_string();
    let activate = |w: &World| {
        w.start_run(&format!(
        "exec systemd-socket-activate --listen=/run/docker/plugins/toposcript.sock --setenv=TOPO_STATE --setenv=PATH {program} docker serve --idle 1"
    ))
    };
    let driver = activate(&machine.w);
    driver.wait_for_output("Listening on", READY);
    machine.docker(&format!("network create {DRIVER} --subnet 10.5.0.0/24 web")).ok();
    machine.docker("run --rm --net web bb ping -c 1 -W 2 10.5.0.1").ok();
    driver.wait().ok();
    let driver = activate(&machine.w);
    driver.wait_for_output("Listening on", READY);
    machine.docker("run --rm --net web bb ping -c 1 -W 2 10.5.0.1").ok();
    machine.docker("network rm web").ok();
    driver.wait().ok();
    machine.driver = None;
}

/// A request that is killed at any of its changes: Docker is told, cleans up as it does, and `gc` removes the rest.
#[test]
fn a_request_that_is_killed() {
    in_docker(|machine| {
        let flow = |machine: &Machine| {
            let made = machine.docker(&format!("network create {DRIVER} --subnet 10.5.0.0/24 web"));
            let ran = machine.docker("run --rm --name shop --net web --publish 8080:80 bb true");
            let gone = machine.docker("network rm web");
            [made, ran, gone].iter().all(|ran| ran.code == 0)
        };
        machine.tidy();
        let before = machine.w.snapshot();
        for point in points("docker") {
            machine.stop_driver(Signal::SIGTERM).ok();
            machine.start_driver_with(&format!("TOPO_FAULT=kill:{point}"));
            let is_whole = flow(machine);
            machine.stop_driver(Signal::SIGTERM).ok();
            machine.start_driver();
            machine.docker("rm --force shop");
            machine.docker("network rm web");
            topo(&machine.w, "gc").ok();
            machine.tidy();
            assert_eq!(topo(&machine.w, "network ls").ok().out().lines().count(), 1, "killed at {point}");
            machine.w.assert_clean_so_far(&before);
            if is_whole {
                break;
            }
        }
    });
}

/// The units of systemd are ones that it takes.
#[test]
fn the_units_are_valid() {
    let w = World::new();
    for unit in ["topo-docker.socket", "topo-docker.service"] {
        let text = std::fs::read_to_string(format!("{}/packaging/systemd/{unit}", env!("CARGO_MANIFEST_DIR")))
            .expect("the unit");
        w.write(unit, &text.replace("/usr/local/bin/topo", &w.program().display().to_string()));
    }
    let ran = w.run("systemd-analyze verify ./topo-docker.socket ./topo-docker.service").ok();
    assert_eq!((ran.out(), ran.err()), ("", ""));
}
