//! What the tests of `net` share. They need root and the real kernel, and touch only namespaces of their own.

use std::process::{Command, ExitStatus};

use serde_json::Value;

use super::{Mac, Netlink, Netns, NewLink, Run, VethEnd};

const CHILD: &str = "TOPO_NET_TEST_CHILD";

/// Runs a test's future on a runtime like the program's.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Makes a namespace for a test.
pub(crate) fn netns() -> Netns {
    assert!(nix::unistd::geteuid().is_root(), "the tests of `net` need root: they make network namespaces");
    Netns::create("toposcript test").expect("a namespace")
}

/// Makes a namespace for a test and opens a socket in it.
pub(crate) fn netns_and_rtnl() -> (Netns, Netlink) {
    let netns = netns();
    let rtnl = Netlink::open(&netns).expect("a socket");
    (netns, rtnl)
}

/// Makes a veth pair of two ends that are down: the namespace, name and index of each.
pub(crate) async fn pair(rtnl: &Netlink, main: (&Netns, &str, u32), peer: (&Netns, &str, u32)) {
    let [main, peer] = [main, peer].map(|(netns, name, index)| {
        let link = NewLink { name, index, mac: Mac::local(u64::from(index)), mtu: None };
        VethEnd { netns, link, controller: None }
    });
    super::link::veth::add_veth(rtnl, &main, &peer).expect("a veth pair");
}

/// Asks `ip` or `bridge`, run inside `netns`, what it sees.
pub(crate) async fn judge(netns: &Netns, command: &str) -> Value {
    let argv: Vec<String> = command.split_whitespace().map(str::to_string).collect();
    let output = super::run(&Run::new(netns, &argv)).await.expect("iproute2 runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.code, stderr.as_ref()), (0, ""), "{command}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Array(Vec::new()))
}

/// Runs a command inside `netns` that must succeed, with `input` to read, and returns what it wrote.
pub(crate) fn said(netns: &Netns, command: &str, input: &str) -> String {
    let argv: Vec<String> = command.split_whitespace().map(str::to_string).collect();
    let output = block_on(super::run(&Run { stdin: Some(input.as_bytes()), ..Run::new(netns, &argv) }));
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.code, stderr.as_ref()), (0, ""), "{command}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a test in a process of its own, since it changes what belongs to the process. `name` is its full path.
pub(crate) fn in_own_process(name: &str, test: impl FnOnce()) {
    if let Some(status) = status_of_own_process(name, test) {
        assert!(status.success(), "{name} in its own process: {status}");
    }
}

/// Runs a test in a process of its own and returns how that ended; in that process itself, returns nothing.
pub(crate) fn status_of_own_process(name: &str, test: impl FnOnce()) -> Option<ExitStatus> {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        test();
        return None;
    }
    // Under another name no test would run there, and that ends well. With one thread for all tests it has no test's name.
    let here = std::thread::current();
    assert!(here.name().is_none_or(|here| here == "main" || here == name), "{name} is {:?}", here.name());
    let program = std::env::current_exe().expect("the test binary");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture"]).env(CHILD, name);
    Some(command.status().expect("the test binary runs"))
}
