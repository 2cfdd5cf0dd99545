//! Damage to plain labs: what others delete or change is seen, and `topo repair` puts it back.
//!
//! Each kind of step is broken by hand once, with the tools of others. The judge is the dump of the whole world: after a repair it is
//! as it was before the damage.

mod seen;
pub(crate) mod whole;

use std::collections::BTreeSet;
use std::fs;

use self::whole::Whole;
use super::stage::{build, in_used_world};
use super::tidy::{files, root};
use super::world::World;

/// What `topo` says that a lab has lost.
fn drift(w: &World, lab: &str) -> Vec<String> {
    let statements = format!("print(json(lab_drift(\"{lab}\")))");
    let ran = w.topo(&["run", "--rm", "--name", "looking", "-e", &statements]).ok();
    serde_json::from_str(ran.out()).unwrap_or_else(|error| panic!("{error}: {}", ran.out()))
}

/// Returns the word for the lab's state in `topo ls`.
fn state(w: &World, lab: &str) -> String {
    let ran = w.topo(&["ls", "--json"]).ok();
    let labs: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    let found = labs.as_array().expect("a list").iter().find(|one| one["name"] == lab).expect("the lab");
    found["state"].as_str().expect("a word").to_owned()
}

/// Returns what `topo show` says of a lab: its state, and what was lost.
fn shown(w: &World, lab: &str) -> (String, Vec<String>) {
    let ran = w.topo(&["show", "--json", lab]).ok();
    let view: serde_json::Value = serde_json::from_str(ran.out()).expect("JSON");
    let lost = view["damage"].as_array().map_or(Vec::new(), Clone::clone);
    let lost = lost.iter().map(|what| what.as_str().expect("a text").to_owned()).collect();
    (view["state"].as_str().expect("a word").to_owned(), lost)
}

/// A lab of which nobody took anything is whole, whatever its script did to its own things on the way.
#[test]
fn no_step_is_missed_in_a_lab_that_is_whole() {
    for (script, others) in [
        (include_str!("unwind/every-step.rhai"), include_str!("unwind/every-step.sh")),
        (include_str!("unwind/take_over.rhai"), include_str!("unwind/take_over.sh")),
    ] {
        in_used_world(others, |w, _| {
            build(w, "whole", script).ok();
            assert_eq!(drift(w, "whole"), [""; 0]);
            assert_eq!(state(w, "whole"), "up");
            assert_eq!(shown(w, "whole"), ("up".into(), Vec::new()));
            w.topo(&["repair", "whole"]).ok().says("nothing is amiss");
            w.topo(&["down", "whole"]).ok();
        });
    }
}

/// What others have beside the lab: a container, a device and a firewall.
const OTHERS: &str = "
ip netns add c; ip -n c link set lo up
ip link add ext0 type veth peer name ext1; ip link set ext0 up; ip link set ext1 up
ip link add card0 type veth peer name card1; ip link set card1 up; ip link set card0 up; ip address add 203.0.113.1/24 dev card0
nft add table ip guard; nft add chain ip guard forward '{ type filter hook forward priority 0; policy drop; }'
";

/// ```text
/// h1 (eth0) -- br0 -- (eth0) c          h2 (eth0) -- cable0 in br0, ext0 in br0
/// ```
const LAB: &str = r#"
let h1 = netns("h1"); let h2 = netns("h2"); let c = netns_get("c");
let br = bridge("br0", #{ forward_delay: "2s" });
br.addr("10.0.0.254/24").addr("fd00::fe/64");
veth(h1["eth0"], br);
h1["eth0"].addr("10.0.0.1/24").addr("fd00::1/64");
veth(c["eth0"], br, #{ port: #{ cost: 9 } });
c["eth0"].addr("10.0.0.3/24");
c.lo_up();
veth("cable0", h2["lan0"]);
br.attach(host["cable0"]);
br.attach(host["ext0"], #{ isolated: true });
h2["lan0"].rename("eth0");
h2["eth0"].addr("10.0.0.2/24");
vxlan("vx0", 42, #{ remote: "10.0.0.1" }).addr("10.9.0.1/24");
ifb("mov0");
host["mov0"].move_to(h2);
ifb("down0");
host["down0"].down();
h1.route("default", #{ via: "10.0.0.254" });
h1.route("10.77.0.0/16", #{ hops: [#{ via: "10.0.0.2" }, #{ via: "10.0.0.3" }] });
h1.rule(#{ from: "10.0.0.0/24", table: 100, priority: 500 });
h1.neigh("10.0.0.9", #{ dev: "eth0", mac: "02:00:00:00:00:09" });
host["cable0"].fdb("02:00:00:00:00:0a").port(#{ flood: false });
host["cable0"].hairpin(true);
h1.sysctl("net.ipv4.ip_default_ttl", 33);
h1["eth0"].shape(#{ rate: "10mbit" });
h1.filter("input", "drop", #{ proto: "tcp", port: 22 });
h1.filter("forward", "drop");
host.masquerade("10.0.0.0/24", #{ not_out: "br0" });
host.dnat(#{ port: 8080, to: "10.0.0.1:80" });
host.let_through(br);
"#;

/// A way to break something of `LAB`: the kinds of steps, the command, and what is missed then.
type Damage = (&'static str, &'static str, &'static str);

const DAMAGES: &[Damage] = &[
    ("netns", "ip -n h1 link set lo down", "add netns `h1`"),
    ("netns", "ip netns del h1", "add netns `h1`"),
    ("netns", "ip netns del h1; ip netns del h2", "add netns `h2`"),
    ("lo-up", "ip -n c link set lo down", "set `lo` up"),
    ("bridge", "ip link del br0", "add bridge `br0`"),
    ("bridge", "ip link set br0 name other0", "add bridge `br0`"),
    ("bridge", "ip link set br0 down", "add bridge `br0`"),
    ("bridge", "ip link set br0 type bridge forward_delay 900", "add bridge `br0`"),
    ("veth", "ip -n h1 link del eth0", "add veth `eth0` of `h1`"),
    ("veth", "ip -n c link del eth0", "add veth `eth0` of `c`"),
    ("veth", "ip -n h1 link set eth0 name x0", "add veth `eth0` of `h1`"),
    ("veth", "ip -n h1 link set eth0 down", "add veth `eth0` of `h1`"),
    ("veth", "ip -n h1 link set eth0 netns h2 name stray0", "add veth `eth0` of `h1`"),
    ("veth", "ip -n h1 link set eth0 mtu 1300", "add veth `eth0` of `h1`"),
    (
        "veth",
        "ip link set dev $(ip -br link show master br0 | grep -o '^h1-eth0[^@ ]*') nomaster",
        "add veth `eth0` of `h1`",
    ),
    ("link", "ip link del vx0", "add vxlan `vx0`"),
    ("link", "ip link set vx0 name vx9", "add vxlan `vx0`"),
    ("rename", "ip -n h2 link set eth0 name y0", "rename `lan0` of `h2`"),
    ("move", "ip -n h2 link set mov0 netns c", "add ifb `mov0`"),
    ("move", "ip -n h2 link del mov0", "add ifb `mov0`"),
    ("up", "ip link set down0 up", "set `down0` down"),
    ("addr", "ip -n h1 addr del 10.0.0.1/24 dev eth0", "add address `10.0.0.1/24`"),
    ("addr", "ip addr flush dev br0 scope global", "add address `fd00::fe/64`"),
    ("route", "ip -n h1 route del default", "add route `default via 10.0.0.254`"),
    ("route", "ip -n h1 route del 10.77.0.0/16", "add route `10.77.0.0/16"),
    ("route", "ip -n h1 route flush proto 84", "add route `default via 10.0.0.254`"),
    ("rule", "ip -n h1 rule del priority 500", "add rule"),
    (
        "neigh",
        "ip -n h1 neigh flush nud permanent; ip -n h1 neigh del 10.0.0.9 dev eth0 || true",
        "add neighbour `10.0.0.9`",
    ),
    ("fdb", "bridge fdb del 02:00:00:00:00:0a dev cable0 master", "add `02:00:00:00:00:0a`"),
    ("port", "bridge link set dev cable0 flood on", "set port `cable0`"),
    ("hairpin", "bridge link set dev cable0 hairpin off", "set hairpin on"),
    ("attach", "ip link set cable0 nomaster", "attach `cable0`"),
    ("attach", "ip link set ext0 nomaster", "attach `ext0`"),
    ("attach", "bridge link set dev ext0 isolated off", "attach `ext0`"),
    ("sysctl", "ip netns exec h1 sysctl -qw net.ipv4.ip_default_ttl=64", "net.ipv4.ip_default_ttl"),
    ("shape", "tc -n h1 qdisc del dev eth0 root", "shape `eth0`"),
    (
        "shape",
        "tc -n h1 qdisc change dev eth0 root handle 7070: tbf rate 1mbit burst 10kb latency 50ms 2>/dev/null || tc -n h1 qdisc del dev eth0 root",
        "shape `eth0`",
    ),
    ("nft-table", "ip netns exec h1 nft flush ruleset", "add table"),
    (
        "nft-rules",
        "ip netns exec h1 nft flush chain inet $(ip netns exec h1 nft list tables | grep -o 'topo-[^ ]*') input",
        "drop what goes the way `input`",
    ),
    (
        "nft-policy",
        "ip netns exec h1 nft chain inet $(ip netns exec h1 nft list tables | grep -o 'topo-[^ ]*') forward '{ policy accept; }'",
        "policy",
    ),
    ("dnat", "nft flush map inet $(nft list tables | grep -o 'topo-[^ ]*') v4", "publish `8080/tcp`"),
    (
        "inbound",
        "nft delete table inet $(nft list tables | grep -o 'toposcript-inbound-.*')",
        "what all published ports need",
    ),
    (
        "inbound",
        "nft flush chain inet $(nft list tables | grep -o 'toposcript-inbound-.*') hairpin",
        "what all published ports need",
    ),
    ("let-through", "nft flush chain ip guard forward", "let "),
];

/// The kinds of steps that no damage is for, each with its reason.
const NOT_BROKEN: &[(&str, &str)] = &[
    ("netns-remove", "it leaves nothing"),
    ("autoconf", "networks::container"),
    ("record", "it is in the store"),
    ("lease", "it is in the store"),
    ("pool", "it is in the store"),
    ("set-resolver", "it is a file of the lab's directory"),
    ("take-over", "addresses_are_taken_over_again"),
    ("start-process", "a_server_whose_supervisor_was_killed_is_started_again"),
    ("tap", "a_tap_is_made_again"),
];

/// Kind of fault: nobody looks at the kernel again, so that `topo` calls up what is gone. Each kind of step is broken once: it is
/// missed, by the words of its step, by `lab_drift`, `ls` and `show` alike, and put back, so that all is as it was.
#[test]
fn each_kind_of_step_is_missed_and_put_back() {
    in_used_world(OTHERS, |w, _| {
        build(w, "lab", LAB).ok();
        let whole = Whole::of(w);
        for (kind, damage, lost) in DAMAGES {
            println!("{kind}: {damage}");
            w.run(damage).ok();
            let told = drift(w, "lab");
            assert!(told.iter().any(|what| what.contains(lost)), "`{lost}` is not in {told:?}");
            assert_eq!(state(w, "lab"), "damaged");
            assert_eq!(shown(w, "lab"), ("damaged".into(), told.clone()));
            let repaired = w.topo(&["repair", "lab"]).ok();
            for what in &told {
                repaired.says(&format!("put back: {what}"));
            }
            // What others moved to a namespace of their own stays there.
            w.run("ip -n c link del mov0 || true").ok();
            assert_eq!(drift(w, "lab"), [""; 0]);
            whole.assert_is(w);
        }
        w.topo(&["down", "lab"]).ok();
    });
}

/// A kind of step that comes new is broken here, or says why not.
#[test]
fn each_kind_of_step_is_in_the_list() {
    let (mut sources, mut kinds) = (Vec::new(), BTreeSet::new());
    files(&root().join("src/prim"), "rs", &mut sources);
    for path in sources {
        let text = fs::read_to_string(path).expect("a source file");
        kinds.extend(
            text.split("const WORD: &'static str = \"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .map(str::to_owned),
        );
    }
    let listed = DAMAGES.iter().map(|(kind, ..)| *kind).chain(NOT_BROKEN.iter().map(|(kind, _)| *kind));
    let listed: BTreeSet<String> = listed.map(str::to_owned).collect();
    assert_eq!(kinds, listed);
}

/// `show` says what was lost, and how the devices are now.
#[test]
fn ls_and_show_say_what_is_damaged() {
    in_used_world(OTHERS, |w, _| {
        build(w, "lab", LAB).ok();
        assert_eq!(state(w, "lab"), "up");
        for (damage, shown) in [
            ("ip link del br0", "bridge gone"),
            ("ip link set br0 name other0", "br0 (other0)"),
            ("ip link set br0 down", "bridge down"),
            ("ip link set cable0 nomaster", "lab lab: damaged"),
            ("ip netns del h1", "gone: something else removed it"),
        ] {
            println!("{damage}");
            w.run(damage).ok();
            assert_eq!(state(w, "lab"), "damaged");
            w.topo(&["show", "lab"]).ok().says("lab lab: damaged").says("lost: ").says("`topo repair lab`").says(shown);
            w.topo(&["repair", "lab"]).ok();
            assert_eq!(state(w, "lab"), "up");
            w.topo(&["show", "lab"]).ok().says("lab lab: up");
        }
        w.run("ip -n h1 addr del 10.0.0.1/24 dev eth0").ok();
        w.topo(&["show", "lab"]).ok().says("lab lab: damaged").says("without 10.0.0.1/24");
        w.topo(&["down", "lab"]).ok();
    });
}

/// What others put in the place of a lab's thing is theirs: it is named, it stays, the rest is put back, and the exit code is 1.
#[test]
fn what_others_have_in_its_place_stays() {
    in_used_world(OTHERS, |w, _| {
        build(w, "lab", LAB).ok();
        let whole = Whole::of(w);
        for (take, give_back, lost, hint) in [
            (
                "ip link set br0 name other0; ip link add br0 type veth peer name br1",
                "ip link del br0",
                "put back: add bridge `br0`: File exists",
                "another device has the name or the number of `br0`",
            ),
            (
                "ip link del br0; ip link add br0 type bridge",
                "ip link del br0",
                "put back: add bridge `br0`: File exists",
                "another device has the name or the number of `br0`",
            ),
            (
                "ip netns del h2; ip netns add h2",
                "ip netns del h2",
                "put back: add netns `h2`: File exists",
                "another netns `h2`",
            ),
            (
                "ip -n h1 route replace default via 10.0.0.2",
                "ip -n h1 route del default",
                "put back: add route `default via 10.0.0.254`",
                "the same was made by others",
            ),
        ] {
            println!("{take}");
            w.run(take).ok();
            w.run("ip -n h1 rule del priority 500 || true").ok();
            w.topo(&["repair", "lab"]).fails(1).says(lost).says(hint);
            let told = drift(w, "lab");
            assert!(!told.iter().any(|what| what.starts_with("add rule")), "the rest was put back: {told:?}");
            w.run(give_back).ok();
            w.topo(&["repair", "lab"]).ok();
            whole.assert_is(w);
        }
        w.topo(&["down", "lab"]).ok();
    });
}

/// After a repair the lab is the same to an undo: what was made again goes with it.
#[test]
fn what_was_put_back_goes_with_the_lab() {
    in_used_world(OTHERS, |w, before| {
        build(w, "lab", LAB).ok();
        w.run("ip link del br0; ip netns del h1; nft flush ruleset; ip link del vx0; ip -n c link del eth0 || true")
            .ok();
        w.run("nft add table ip guard; nft add chain ip guard forward '{ type filter hook forward priority 0; policy drop; }'").ok();
        w.topo(&["repair", "lab"]).ok();
        w.topo(&["down", "lab"]).ok();
        w.assert_clean(before);
    });
}

/// A device of the host whose addresses a bridge of the lab's has: the bridge is deleted, and the host's address with it.
#[test]
fn addresses_are_taken_over_again() {
    in_used_world(OTHERS, |w, _| {
        build(w, "lab", r#"bridge("br0").attach(host["card0"], #{ take_over: true });"#).ok();
        let whole = Whole::of(w);
        for damage in ["ip link del br0", "ip link set card0 nomaster"] {
            println!("{damage}");
            w.run(damage).ok();
            assert_ne!(drift(w, "lab"), [""; 0]);
            w.topo(&["repair", "lab"]).ok();
            whole.assert_is(w);
        }
        w.topo(&["down", "lab"]).ok();
    });
}

/// A process that ended by itself is not missed; one that was killed with its supervisor is.
#[test]
fn a_server_whose_supervisor_was_killed_is_started_again() {
    in_used_world("", |w, _| {
        let statements = r#"
            let h = netns("h");
            h.start("exec sleep 1001", #{ name: "server" });
            h.start("exit 3", #{ name: "short" }).wait();"#;
        build(w, "lab", statements).ok();
        assert_eq!(drift(w, "lab"), [""; 0]);
        w.run("kill -9 $(pgrep -f '[_]_supervise.*server')").ok();
        assert_eq!(drift(w, "lab"), ["start process `server` in netns `h`"]);
        w.topo(&["repair", "lab"]).ok();
        assert_eq!(drift(w, "lab"), [""; 0]);
        w.run("pgrep -f 'sleep 1001'").ok();
        w.topo(&["down", "lab"]).ok();
    });
}

/// The same for a device whose other end is a program.
#[test]
fn a_tap_is_made_again() {
    in_used_world("", |w, _| {
        build(w, "lab", r#"try { tap("tap0").addr("10.0.0.1/24"); } catch (e) { ifb("tap0").addr("10.0.0.1/24"); }"#)
            .ok();
        let whole = Whole::of(w);
        w.run("ip link del tap0").ok();
        assert_eq!(drift(w, "lab").len(), 1);
        w.topo(&["repair", "lab"]).ok();
        whole.assert_is(w);
        w.topo(&["down", "lab"]).ok();
    });
}
