//! containerd: pods of its CRI by the CNI plugin, and `ctr run` by the OCI hook. The containers judge from inside, another netns from
//! outside.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::oci::bundle;
use super::{FETCH, OUT, ROOTFS, endpoints, mount_cgroups, topo};
use crate::world::{Ran, Running, World};

/// An image of busybox in the layout of the OCI (opencontainers/image-spec, image-layout.md), as `rootfs` has it. As the image of a pod
/// it does what `pause` does.
const IMAGE: &str = r#"
kept() { digest=$(sha256sum <$1 | cut -c 1-64); size=$(stat -c %s $1); mv $1 image/blobs/sha256/$digest; }
mkdir -p image/blobs/sha256
tar -C rootfs -cf layer . && kept layer && layer=$digest layer_size=$size
cat >config <<END
{"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
END
kept config
cat >manifest <<END
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
 "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:$digest", "size": $size},
 "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:$layer", "size": $layer_size}]}
END
kept manifest
cat >image/index.json <<END
{"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:$digest", "size": $size,
 "annotations": {"io.containerd.image.name": "localhost/busybox:1", "org.opencontainers.image.ref.name": "1"}}]}
END
echo '{"imageLayoutVersion": "1.0.0"}' >image/oci-layout
tar -C image -cf image.tar .
"#;

/// What of containerd is not to be found in the world: snapshots by file systems that are not there, AppArmor, and the rights to lower what
/// the kernel may kill.
const CONFIG: &str = r#"
version = 2
root = "DIR/containerd"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/busybox:1"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "DIR/cni/bin"
conf_dir = "DIR/cni/net.d"
max_conf_num = 1
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"#;

const CRI: &str = include_str!("cri.py");

/// containerd of a world, with an image of busybox; it ends with this.
pub(super) struct Containerd {
    running: Running,
}

impl Containerd {
    /// Starts it, in a world that has control groups and a directory `rootfs`.
    pub(super) fn start(w: &World) -> Containerd {
        // Here it keeps what it was told by plugins, whatever its configuration says.
        w.run("mount -t tmpfs var /var/lib").ok();
        w.write("config.toml", &CONFIG.replace("DIR", &w.dir().display().to_string()));
        w.write("cri.py", CRI);
        w.run(IMAGE).ok();
        let running = w.start_run("exec containerd --config config.toml");
        running.wait_for_output("containerd successfully booted", Duration::from_secs(60));
        w.run("for space in k8s.io default; do ctr --namespace $space images import image.tar; done").ok();
        Containerd { running }
    }

    /// Ends it, as `systemctl stop` does.
    pub(super) fn stop(self) {
        self.running.signal(Signal::SIGTERM);
        self.running.wait();
    }
}

/// Makes a call of the CRI.
fn cri(w: &World, words: &str) -> Ran {
    // Debian's Python has Debian's gRPC.
    w.run(&format!("/usr/bin/python3 cri.py /run/containerd/containerd.sock {words}"))
}

fn line(ran: Ran) -> String {
    ran.ok().out().trim().to_string()
}

/// out -- the world, where containerd has the network `web` by a configuration of ours alone.
fn in_containerd_world(test: impl FnOnce(&World)) {
    let w = World::new();
    w.run("ip link set lo up; mkdir bundle; cd bundle; runc spec").ok();
    w.run(ROOTFS).ok();
    w.run(OUT).ok();
    topo(&w, "cni install --bin-dir cni/bin --conf-dir cni/net.d web").ok();
    mount_cgroups(&w);
    let containerd = Containerd::start(&w);
    topo(&w, "network create web --subnet 10.5.0.0/24").ok();
    // The first container, and the first pod, leave more than the network has: directories of containerd's, and the lock of all ports.
    // A control group has the container's name, and all worlds see the machine's groups.
    let name = w.dir().file_name().expect("a name").display().to_string();
    w.run(&format!("ctr run --rm --snapshotter native localhost/busybox:1 first-{name} true")).ok();
    let first = line(cri(&w, "run-pod first u0 1:1"));
    cri(&w, &format!("start {first} first localhost/busybox:1 true")).ok();
    cri(&w, &format!("remove {first}")).ok();
    topo(&w, "network rm web").ok();
    w.run("mkdir -m 700 state/store/full").ok();
    let before = w.snapshot();
    topo(&w, "network create web --subnet 10.5.0.0/24").ok();
    test(&w);
    topo(&w, "network rm web").ok();
    w.assert_clean(&before);
    containerd.stop();
}

/// A pod has its network before its first container, its port answers from outside, and it gives all back, however often it is stopped.
#[test]
fn a_pod_with_our_plugin_alone() {
    in_containerd_world(|w| {
        assert_eq!(line(cri(w, "network")), "True");
        let pod = line(cri(w, "run-pod web u1 8080:80"));
        let address = line(cri(w, &format!("address {pod}")));
        let known = endpoints(w, "web");
        assert_eq!((&known[0]["target"], &known[0]["ports"]), (&json!("web"), &json!(["8080:80/tcp"])));
        assert_eq!(known[0]["addresses"], json!([format!("{address}/24")]));
        let serve = "sh -c 'echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp'";
        let container = line(cri(w, &format!("start {pod} shop localhost/busybox:1 {serve}")));
        let seen = cri(w, &format!("exec {container} sh -c 'ip -o addr; ip route; ping -c 1 -W 2 10.5.0.1'")).ok();
        seen.says(&format!("eth0    inet {address}/24")).says("lo    inet 127.0.0.1/8");
        seen.says("default via 10.5.0.1 dev eth0").says(" 0% packet loss");
        w.run(&format!("ip netns exec out {FETCH} http://192.0.2.1:8080/")).ok().says("hello");
        w.run(&format!("{FETCH} http://127.0.0.1:8080/")).ok().says("hello");
        // Another pod reaches this one.
        let other = line(cri(w, "run-pod other u2"));
        let asks = line(cri(w, &format!("start {other} asks localhost/busybox:1 sleep 1000")));
        cri(w, &format!("exec {asks} wget -q -O - http://{address}/")).ok().says("hello");
        for words in ["stop", "stop", "remove", "remove"] {
            cri(w, &format!("{words} {pod}")).ok();
        }
        let left: Vec<Value> = endpoints(w, "web").iter().map(|known| known["target"].clone()).collect();
        assert_eq!(left, [json!("other")]);
        w.run("curl --silent --max-time 2 http://127.0.0.1:8080/").fails(7);
        cri(w, &format!("remove {other}")).ok();
    });
}

/// A pod that can't be connected is not there, containerd shows our reason, and nothing is left.
#[test]
fn a_pod_that_cant_be_connected() {
    in_containerd_world(|w| {
        let pod = line(cri(w, "run-pod web u1 8080:80"));
        let before = w.snapshot();
        let refused = cri(w, "run-pod late u2 8080:80").fails(1);
        refused
            .says("plugin type=\"toposcript\" failed (add): publish")
            .says("port 8080/tcp is published already, to `10.5.0.2:80`");
        w.assert_clean(&before);
        cri(w, &format!("remove {pod}")).ok();
    });
}

/// A pod whose first process is killed, whose runtime was started anew meanwhile, or whose netns is gone, gives all back all the same.
#[test]
fn a_pod_that_ends_in_another_way() {
    in_containerd_world(|w| {
        for gone in [
            "ctr --namespace k8s.io tasks kill --signal SIGKILL POD",
            "umount --lazy NETNS; rm NETNS",
            "ip -netns NETNS link del eth0 || nsenter --net=NETNS ip link del eth0",
            "ip link del br-web",
        ] {
            let pod = line(cri(w, "run-pod web u1 8080:80"));
            let netns = line(w.run("ls -d /run/containerd/state/io.containerd.grpc.v1.cri/netns/*"));
            w.run(&gone.replace("POD", &pod).replace("NETNS", &netns)).ok();
            for words in ["stop", "remove"] {
                cri(w, &format!("{words} {pod}")).ok();
            }
            assert_eq!(endpoints(w, "web"), Vec::<Value>::new(), "{gone}");
            topo(w, "network repair web").ok();
        }
    });
}

/// `ctr run` with a bundle's configuration calls the hook: in the foreground, in the background until it is killed, and with what can't be
/// connected.
#[test]
fn ctr_run_by_the_hook() {
    in_containerd_world(|w| {
        let look = ["sh", "-c", "ip -o addr show eth0; ip route; ping -c 1 -W 2 10.5.0.1"];
        let c1 = format!("c1-{}", w.dir().file_name().expect("a name").display());
        bundle(w, &look, &json!({ "dev.toposcript.ip": "10.5.0.77" }), &json!({}));
        let ran = w.run(&format!("ctr run --rm --config bundle/config.json {c1}")).ok();
        ran.says("inet 10.5.0.77/24").says("default via 10.5.0.1").says(" 0% packet loss");
        assert_eq!(endpoints(w, "web"), Vec::<Value>::new());

        let serve = ["sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp"];
        bundle(w, &serve, &json!({ "dev.toposcript.publish": "8080:80" }), &json!({}));
        w.run(&format!("ctr run --detach --config bundle/config.json {c1}")).ok();
        w.run(&format!("ip netns exec out {FETCH} http://192.0.2.1:8080/")).ok().says("hello");
        let stopped = "until ctr tasks ls | grep -q STOPPED; do :; done";
        w.run(&format!("ctr tasks kill --signal SIGKILL {c1}; {stopped}; ctr tasks rm {c1}; ctr containers rm {c1}"))
            .ok();
        assert_eq!(endpoints(w, "web"), Vec::<Value>::new());

        bundle(w, &look, &json!({ "dev.toposcript.network": "nosuch" }), &json!({}));
        let refused = w.run(&format!("ctr run --rm --config bundle/config.json {c1}")).fails(1);
        refused.says("find network `nosuch`: there is no network of this name");
        w.run(&format!("ctr containers rm {c1} || true")).ok();
    });
}
