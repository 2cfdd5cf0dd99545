//! Container runtimes that use our networks: real ones, each in a machine of its own.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `oci.rs` | the hook of OCI runtimes: runc and crun; devices of CDI and hooks of Podman |
//! | `cni.rs` | the CNI plugin, called as runtimes call it |
//! | `containerd.rs` | containerd: pods of its CRI, and `ctr run` |
//! | `docker.rs` | the network driver of Docker, with dockerd |
//! | `netavark.rs` | the netavark plugin, called as netavark calls it |
//! | `podman.rs` | the CNI back end of Podman |
//! | `page.rs` | the commands of docs/containers.md, with runc and Podman |

mod cni;
mod containerd;
mod docker;
mod netavark;
mod oci;
mod page;
mod podman;

use crate::world::{Ran, World};

/// Makes a root file system for containers: `rootfs`.
const ROOTFS: &str = "
mkdir -p rootfs/bin rootfs/etc rootfs/proc rootfs/sys rootfs/dev rootfs/tmp; cp /bin/busybox rootfs/bin
for a in sh sleep ip ping cat true httpd wget; do ln -s busybox rootfs/bin/$a; done
";

/// Makes a netns `out` that is not of the host: the host is 192.0.2.1 to it.
const OUT: &str = "
ip netns add out; ip link add out type veth peer name eth0 netns out
ip addr add 192.0.2.1/24 dev out; ip link set out up; ip -n out addr add 192.0.2.2/24 dev eth0; ip -n out link set eth0 up
";

/// Fetches a page of a server that may be starting.
const FETCH: &str = "curl --silent --fail --retry 20 --retry-connrefused --retry-delay 0 --max-time 20";

/// Mounts the machine's control groups, which runtimes need, and which a world does not see. Without the mixed hierarchy, which crun
/// refuses.
fn mount_cgroups(w: &World) {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    let mut script = String::from("mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup\n");
    let mut any = false;
    for line in mounts.lines() {
        let [_, at, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        if kind == "cgroup" {
            let controllers: Vec<&str> = options
                .split(',')
                .filter(|word| !matches!(*word, "rw" | "ro" | "nosuid" | "nodev" | "noexec" | "relatime" | "xattr"))
                .collect();
            let controllers = controllers.join(",");
            script.push_str(&format!("mkdir -p {at}; mount -t cgroup -o {controllers} cgroup {at}\n"));
            any = true;
        }
    }
    if !any {
        script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n".into();
    }
    w.run(&script).ok();
}

/// Runs `topo` in a world where a shell finds it, with words as one would type them.
fn topo(w: &World, words: &str) -> Ran {
    w.topo(&words.split_whitespace().collect::<Vec<_>>())
}

/// Reads what a command prints as JSON.
fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(ran.out()).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Returns the endpoints of a network, as `inspect` has them.
fn endpoints(w: &World, network: &str) -> Vec<serde_json::Value> {
    let inspected = json(&topo(w, &format!("network inspect {network} --json")).ok());
    inspected["endpoints"].as_array().expect("a list").clone()
}
