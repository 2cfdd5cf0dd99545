//! Podman 4's CNI back end: it calls our plugin for its own networks. The containers judge from inside, another netns from outside.

use serde_json::{Value, json};

use super::{FETCH, OUT, ROOTFS, endpoints, mount_cgroups, topo};
use crate::world::{Ran, World};

/// out -- the world, where Podman has the network `web` by a configuration of ours, beside the plugins of Debian.
fn in_podman_world(test: impl FnOnce(&World)) {
    let w = World::new();
    mount_cgroups(&w);
    w.run("mount -t tmpfs var /var/lib; ip link set lo up").ok();
    w.run(ROOTFS).ok();
    w.run(OUT).ok();
    let dir = w.dir().display();
    w.write(
        "containers.conf",
        &format!(
            r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
[network]
network_backend = "cni"
network_config_dir = "{dir}/cni/net.d"
cni_plugin_dirs = ["{dir}/cni/bin", "/usr/lib/cni"]
"#
        ),
    );
    topo(&w, "cni install --bin-dir cni/bin --conf-dir cni/net.d web").ok();
    topo(&w, "network create web --subnet 10.5.0.0/24").ok();
    w.run("tar -C rootfs -c . >image.tar").ok();
    podman(&w, "import --quiet image.tar busybox").ok();
    podman(&w, "run --rm --network web --publish 1:1 busybox true").ok();
    topo(&w, "network rm web").ok();
    w.run("mkdir -m 700 state/store/full").ok();
    let before = w.snapshot();
    topo(&w, "network create web --subnet 10.5.0.0/24").ok();
    test(&w);
    topo(&w, "network rm web").ok();
    w.assert_clean(&before);
}

fn podman(w: &World, words: &str) -> Ran {
    w.run(&format!(
        "CONTAINERS_CONF=$PWD/containers.conf podman --root $PWD/podman --runroot $PWD/podman-run --storage-driver vfs {words}"
    ))
}

/// A container of a network of ours: Podman lists the network, the published port answers, and all is given back.
#[test]
fn a_container_of_the_cni_back_end() {
    in_podman_world(|w| {
        podman(w, "network ls").ok().says("web");
        let serve = "sh -c 'echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp'";
        podman(w, &format!("run --detach --name shop --network web --publish 8080:80 busybox {serve}")).ok();
        let known = endpoints(w, "web");
        assert_eq!((&known[0]["target"], &known[0]["ports"]), (&json!("shop"), &json!(["8080:80/tcp"])));
        w.run(&format!("ip netns exec out {FETCH} http://192.0.2.1:8080/")).ok().says("hello");
        w.run(&format!("{FETCH} http://127.0.0.1:8080/")).ok().says("hello");
        let address = known[0]["addresses"][0].as_str().expect("an address").replace("/24", "");
        let told = podman(w, "inspect --format '{{.NetworkSettings.Networks.web.IPAddress}}' shop").ok();
        assert_eq!(told.out().trim(), address);
        podman(w, &format!("run --rm --network web busybox wget -q -O - http://{address}/")).ok().says("hello");
        podman(w, "rm --force --time 0 shop").ok();
        assert_eq!(endpoints(w, "web"), Vec::<Value>::new());
        w.run("curl --silent --max-time 2 http://127.0.0.1:8080/").fails(7);
    });
}

/// What a command line asks for: addresses, hardware addresses, other names. A port that is taken is refused with our words.
#[test]
fn what_a_command_line_asks_for() {
    in_podman_world(|w| {
        let ran = podman(w, "run --rm --network web:ip=10.5.0.77,mac=02:00:00:00:00:77 busybox ip addr show eth0").ok();
        ran.says("inet 10.5.0.77/24").says("02:00:00:00:00:77");
        let options = "--network web --network-alias front --publish 8080:80 --publish 8053:53/udp";
        podman(w, &format!("run --detach --name shop {options} busybox sleep 1000")).ok();
        let known = &endpoints(w, "web")[0];
        // Podman hands lists over in any order.
        let has = |key: &str, text: &str| known[key].as_array().is_some_and(|list| list.contains(&json!(text)));
        assert!(has("ports", "8080:80/tcp") && has("ports", "8053:53/udp") && has("aliases", "front"), "{known}");
        let before = w.snapshot();
        let refused = podman(w, "run --rm --network web --publish 8081:80 --publish 8080:80 busybox true").fails(126);
        refused.says("port 8080/tcp is published already, to `10.5.0.2:80`").says("publish another port");
        w.assert_clean(&before);
        podman(w, "rm --force --time 0 shop").ok();
    });
}

/// A container that is stopped gives its endpoint back, and has one again when it is started; so does one that is taken out of the network.
#[test]
fn a_container_that_comes_and_goes() {
    in_podman_world(|w| {
        podman(w, "run --detach --name shop --network web --publish 8080:80 busybox sleep 1000").ok();
        for (gone, there) in [("stop --time 0", "start"), ("kill", "restart"), ("pause", "unpause")] {
            podman(w, &format!("{gone} shop")).ok();
            podman(w, "wait --condition stopped --condition exited --condition paused shop").ok();
            assert_eq!(endpoints(w, "web").len(), usize::from(gone == "pause"), "{gone}");
            podman(w, &format!("{there} shop")).ok();
            let known = endpoints(w, "web");
            assert_eq!((known.len(), &known[0]["state"]), (1, &json!("up")), "{there}");
        }
        podman(w, "rm --force --time 0 shop").ok();
        // Else its monitor has the port, which stands in its own way.
        w.run("sed -i '/^.engine/a enable_port_reservation = false' containers.conf").ok();
        podman(w, "run --detach --name shop --network web --publish 8080:80 busybox sleep 1000").ok();
        podman(w, "network disconnect web shop").ok();
        assert_eq!(endpoints(w, "web"), Vec::<Value>::new());
        podman(w, "network connect --ip 10.5.0.99 web shop").ok();
        podman(w, "exec shop ip addr show eth0").ok().says("10.5.0.99/24");
        podman(w, "network reload shop").ok();
        podman(w, "exec shop ping -c 1 -W 2 10.5.0.1").ok();
        assert_eq!(endpoints(w, "web")[0]["ports"], json!(["8080:80/tcp"]));
        podman(w, "rm --force --time 0 shop").ok();
    });
}
