//! Published ports and translated sources, judged at the far end: PITFALLS.md's D lines, each a test of that name.
//!
//! ```text
//! lan (198.51.100.2) --- (lan0) host (wan0) --- out (192.0.2.2, the host's default route)
//!                                |
//!                       containers c1, c2, c3
//! ```
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod.rs` | `Site`: this drawing, with servers on it |
//! | `servers.rs` | who answers whom, and with which address as the client's |
//! | `mapped.rs` | from where a published port works, and where it does not: D2 to D5 |
//! | `rules.rs` | the rules themselves: D1, D11, D12 |
//! | `refused.rs` | what is refused: D6, D7 |
//! | `forwarding.rs` | ways out that come and move, and the host's own devices, which stay apart: D8, D15 |
//! | `firewalls.rs` | other firewalls on the host: D9 |
//! | `flows.rs` | flows that never pause: D10 |
//! | `repair.rs` | rules that others remove: D13 |
//! | `stray.rs` | packets of no connection: D14 |
//! | `several.rs` | containers in two networks |
//! | `router.rs` | the same primitives in a router of a plain lab |

mod firewalls;
mod flows;
mod forwarding;
mod mapped;
mod refused;
mod repair;
mod router;
mod rules;
mod servers;
mod several;
mod stray;

use std::cell::RefCell;

use super::stage::build;
use super::tier;
use super::world::{Ran, Running, Snapshot, World};

/// The host, the machines around it, and the containers, which are namespaces that something else made.
const OTHERS: &str = r"
mkdir -p /run/netns
ip link set lo up
for name in out lan c1 c2 c3; do ip netns add $name; ip -n $name link set lo up; done
cable() { # DEV NETNS, and the two addresses of each end
    ip link add $1 type veth peer name eth0 netns $2
    ip address add $3 dev $1; ip address add $4 dev $1 nodad; ip link set $1 up
    ip -n $2 address add $5 dev eth0; ip -n $2 address add $6 dev eth0 nodad; ip -n $2 link set eth0 up
}
cable wan0 out 192.0.2.1/24 2001:db8::1/64 192.0.2.2/24 2001:db8::2/64
cable lan0 lan 198.51.100.1/24 2001:db8:1::1/64 198.51.100.2/24 2001:db8:1::2/64
ip route add default via 192.0.2.2; ip route add default via 2001:db8::2
ip -n out route add 198.51.100.0/24 via 192.0.2.1; ip -n out route add 2001:db8:1::/64 via 2001:db8::1
ip -n lan route add default via 198.51.100.1; ip -n lan route add default via 2001:db8:1::1
";

/// The drawing in a world that topo has used before, with networks too: what it keeps for ever is there.
struct Site {
    w: World,
    before: Snapshot,
    servers: RefCell<Vec<Running>>,
}

/// Runs `test` on a site where the shell script `others` made what else there is, and checks that all is as before at the end.
fn on_site(others: &str, test: impl FnOnce(&Site)) {
    let w = World::new();
    w.run_as_root(OTHERS).ok();
    w.topo(&["network", "create", "first", "--subnet", "10.250.0.0/24"]).ok();
    w.topo(&["network", "connect", "first", "c1", "--publish", "1:1"]).ok();
    w.topo(&["network", "rm", "--force", "first"]).ok();
    w.run_as_root(others).ok();
    let before = w.snapshot();
    let site = Site { w, before, servers: RefCell::default() };
    test(&site);
    site.is_clean();
}

/// The same twice: on a host whose bridges show their packets to the firewall of IP, and on one where they do not. The fast tier has the
/// former, in which more can go wrong.
fn on_both_sites(others: &str, test: impl Fn(&Site)) {
    for on in tier::spread([1, 0], 1) {
        // Shown only if the test fails.
        println!("net.bridge.bridge-nf-call-iptables = {on}");
        let bridges = format!(
            "for name in iptables ip6tables; do echo {on} >/proc/sys/net/bridge/bridge-nf-call-$name; done\n{others}"
        );
        on_site(&bridges, &test);
    }
}

impl Site {
    /// Runs `topo network WORDS`, which must succeed. No word of it has a space.
    fn network(&self, words: &str) -> Ran {
        self.try_network(words).ok()
    }

    fn try_network(&self, words: &str) -> Ran {
        self.w.topo(&[&["network"], words.split_whitespace().collect::<Vec<_>>().as_slice()].concat())
    }

    /// Runs statements, with `network` imported, as the lab `name`.
    fn lab(&self, name: &str, statements: &str) -> Ran {
        build(&self.w, name, &format!("import \"network\" as network;\n{statements}"))
    }

    /// Makes the network `web` of both families, with containers c1 (10.5.0.11, fd00:5::11) and c2 in it, and servers in both
    /// on port 80 and 53/udp. c1 has `ports` published.
    fn web(&self, ports: &[&str]) {
        self.network("create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64");
        self.connect_web(ports);
        self.serve("c1", "80 53/udp");
        self.serve("c2", "80 53/udp");
    }

    fn connect_web(&self, ports: &[&str]) {
        let publish: String = ports.iter().map(|port| format!(" --publish {port}")).collect();
        self.network(&format!("connect web c1 --ip 10.5.0.11{publish}"));
        self.network("connect web c2 --ip 10.5.0.12");
    }

    /// Ends the servers, and checks that all is as it was before the test.
    fn is_clean(&self) {
        self.servers.borrow_mut().clear();
        self.w.assert_clean(&self.before);
    }

    /// Returns the rules as `nft` lists them, without what counts, and without those that keep the host's devices apart.
    fn rules(&self) -> String {
        let all = format!("\n{}", self.w.run("nft -s list ruleset").ok().stdout);
        let tables = all.split("\ntable ").filter(|table| !table.starts_with("inet toposcript-"));
        tables.collect::<Vec<_>>().join("\ntable ").trim_start().to_owned()
    }

    /// Returns a setting of the host.
    fn sysctl(&self, key: &str) -> String {
        self.w.run(&format!("cat /proc/sys/{key}")).ok().stdout.trim().to_owned()
    }
}
