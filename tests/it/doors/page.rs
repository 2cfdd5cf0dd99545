//! The page about container runtimes: its commands are typed, with the real runtimes, and print what it shows.

use serde_json::{Value, json};

use super::containerd::Containerd;
use super::docker::{start_daemon, start_driver};
use super::{mount_cgroups, topo};
use crate::page::{Block, blocks, compare, read, typed_in_shell};
use crate::world::World;

const PAGE: &str = "docs/containers.md";

/// What a reader has before the page begins: runtimes that keep their files in the world, a root file system, and an image of it.
const READY: &str = r#"
ip link set lo up
mkdir -p rootfs/bin rootfs/etc rootfs/proc rootfs/sys rootfs/dev rootfs/tmp shop wrong legs
cp /bin/busybox rootfs/bin; for a in sh sleep ip ping; do ln -s busybox rootfs/bin/$a; done
(cd shop && runc spec); (cd wrong && runc spec); (cd legs && runc spec)
cat >containers.conf <<'END'
[containers]
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
[engine]
cgroup_manager="cgroupfs"
runtime="runc"
events_logger="file"
END
"#;

/// Makes the runtimes that the page's commands name those of the world.
fn prelude(w: &World) -> String {
    let (dir, program) = (w.dir().display(), w.program().display());
    format!(
        "topo() {{ {program} \"$@\"; }}
        runc() {{ command runc --root {dir}/run-runc \"$@\" </dev/null; }}
        docker() {{ command /usr/bin/docker \"$@\"; }}
        export CONTAINERS_CONF={dir}/containers.conf
        crun() {{ command crun --root {dir}/run-crun \"$@\" </dev/null; }}
        podman() {{ command podman --root {dir}/podman --runroot {dir}/podman-run --storage-driver vfs \"$@\"; }}\n"
    )
}

/// Gives a bundle its hooks, and a process.
fn bundle(w: &World, name: &str, hooks: &Value, process: &[&str], annotations: Value) {
    let path = w.dir().join(name).join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("the bundle")).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(process);
    config["root"] = json!({ "path": w.dir().join("rootfs"), "readonly": false });
    config["annotations"] = annotations;
    config["hooks"] = hooks.clone();
    std::fs::write(path, config.to_string()).expect("write the bundle");
}

#[test]
fn every_block_of_the_page_is_true() {
    let w = World::new();
    mount_cgroups(&w);
    w.run(READY).ok();
    w.run(&format!("{}tar -C rootfs -c . | podman import --quiet - busybox", prelude(&w))).ok();
    let daemon = start_daemon(&w);
    let driver = start_driver(&w, "");
    // After Docker, which would use this one rather than its own.
    let containerd = Containerd::start(&w);
    w.run("tar -C rootfs -c . | /usr/bin/docker import - busybox").ok();
    let mut seen: Vec<(Block, String)> = Vec::new();
    let mut exported = String::new();
    for block in blocks(&read(PAGE)) {
        match block.kind.as_str() {
            "json" => {
                let mut hooks: Value = serde_json::from_str(&block.text).expect("the hooks");
                for hook in ["createRuntime", "poststop"]
                    .map(|stage| hooks[stage][0].take())
                    .into_iter()
                    .zip(["createRuntime", "poststop"])
                {
                    let (mut hook, stage) = hook;
                    assert_eq!(hook["path"], "/usr/local/bin/topo");
                    hook["path"] = json!(w.program());
                    hook["env"] = json!([format!("TOPO_STATE={}", w.state().display())]);
                    hooks[stage][0] = hook;
                }
                bundle(&w, "shop", &hooks, &["ip", "route"], json!({}));
                bundle(&w, "wrong", &hooks, &["ip", "route"], json!({ "dev.toposcript.network": "nosuch" }));
            }
            "rhai" => {
                let script = w.write("legs.rhai", &block.text);
                let state = format!("TOPO_STATE={}", w.state().display());
                let hook = |args: Value| json!([{ "path": w.program(), "args": args, "env": [state] }]);
                let hooks = json!({
                    "createRuntime": hook(json!(["topo", "hook", "oci", "createRuntime", "--script", script])),
                    "poststop": hook(json!(["topo", "hook", "oci", "poststop"])),
                });
                bundle(&w, "legs", &hooks, &["ip", "addr"], json!({ "com.example.address": "10.71.0.2/24" }));
            }
            "console" => {
                let mut now = String::new();
                for line in typed_in_shell(&block.text) {
                    let ran = w.run(&format!("{}{exported}{{ {line}; }} 2>&1 || true", prelude(&w))).ok();
                    let said: String = ran.out().lines().map(|line| format!("{}\n", line.trim_end())).collect();
                    now.push_str(&format!("$ {line}\n{said}"));
                    // What a reader's shell keeps for the lines below.
                    if line.starts_with("export ") {
                        exported.push_str(&format!("{line}\n"));
                    }
                }
                seen.push((block, now));
            }
            // More of the configuration of Podman.
            "toml" => {
                let path = w.dir().join("containers.conf");
                let text = std::fs::read_to_string(&path).expect("the configuration");
                let dir = w.dir().display().to_string();
                let more = block.text.replace("/etc/", &format!("{dir}/")).replace("/opt/", &format!("{dir}/"));
                // A section stands in it once.
                let (engine, network) = more.split_once("[network]\n").expect("two sections");
                let engine = engine.strip_prefix("[engine]\n").expect("the first one");
                let text = text.replace("[engine]\n", &format!("[engine]\n{engine}"));
                let text = [&text, "[network]\n", network].concat();
                std::fs::write(path, text).expect("write the configuration");
            }
            // Nomad is not among Debian's packages: that the name is a configuration's is all that can be seen.
            "hcl" => {
                assert!(block.text.contains("mode = \"cni/web\""), "{}", block.text);
                w.run("grep '\"name\": \"web\"' cni/net.d/10-web.conflist").ok();
            }
            other => panic!("a block of kind `{other}` that no test runs"),
        }
    }
    compare(PAGE, &seen);
    assert_eq!(super::endpoints(&w, "web"), Vec::<Value>::new());
    topo(&w, "network rm web").ok();
    for running in [driver, daemon] {
        running.signal(nix::sys::signal::Signal::SIGTERM);
        running.wait();
    }
    containerd.stop();
}
