//! The device that the host is reached by: a lab does not cut the host off, neither by mistake nor on its way (PITFALLS N10).
//! What a run that is cut short leaves of it is in unwind.rs.

use nix::sys::signal::Signal;

use super::stage::{build, in_used_world};
use super::world::{Running, World};

/// isp (isp0) --- (wan0) host: what others have.
const WAY_OUT: &str = include_str!("unwind/take_over.sh");
const LAB: &str = include_str!("unwind/take_over.rhai");

/// Echoes from both sides in both families, a hundred a second each, as long as they last.
struct Echoes<'a> {
    w: &'a World,
    running: Vec<(&'static str, Running)>,
}

impl Echoes<'_> {
    fn start(w: &World) -> Echoes<'_> {
        let commands = [
            "exec nsenter --net=/run/netns/isp ping -n -i 0.01 192.0.2.2",
            "exec nsenter --net=/run/netns/isp ping -n -i 0.01 2001:db8::2",
            "exec ping -n -i 0.01 203.0.113.1",
            "exec ping -n -i 0.01 2001:db8::1",
        ];
        Echoes { w, running: commands.into_iter().map(|command| (command, w.start_run(command))).collect() }
    }

    /// Checks that hardly any of them was lost.
    fn end(self) {
        for (command, running) in self.running {
            running.signal(Signal::SIGINT);
            let ran = running.wait();
            let numbers: Vec<i32> = ran
                .out()
                .lines()
                .find(|line| line.contains("packets transmitted"))
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            let [sent, received, ..] = numbers[..] else { panic!("{command}: {}{}", ran.out(), ran.err()) };
            // Half a second: the kernel takes some of it to let a port go, on a busy machine too. An address whose uniqueness is probed
            // first (RFC 4862, 5.4), or a port that learns before it forwards, would take a second or more.
            assert!(received > 5 && sent - received <= 50, "{command}: {received} of {sent} were answered");
        }
        reached(self.w);
    }
}

/// The host is reached from outside, and reaches the world.
fn reached(w: &World) {
    w.run(
        "ping -n -c 1 -W 5 203.0.113.1; ping -n -c 1 -W 5 2001:db8::1
         nsenter --net=/run/netns/isp ping -n -c 1 -W 5 192.0.2.2
         nsenter --net=/run/netns/isp ping -n -c 1 -W 5 2001:db8::2",
    )
    .ok();
}

/// Attached by mistake, it is refused, and the error names what would be cut off; nothing has changed.
#[test]
fn n10_the_way_out_is_no_port_by_mistake() {
    in_used_world(WAY_OUT, |w, before| {
        let ran = build(w, "lab", r#"let br = bridge("br0"); br.attach(host["wan0"]);"#).fails(1);
        ran.says("error: attach `wan0` to bridge `br0`: it has the default route of `host`")
            .says("`default via 192.0.2.1 dev wan0 metric 5`, the address `192.0.2.2/24`, the address")
            .says("`host` would be cut off")
            .says("hint: `take_over: true` moves its addresses and routes to the bridge");
        w.assert_clean(before);
        // `take_over: false` is the same as nothing.
        build(w, "lab", r#"bridge("br0").attach(host["wan0"], #{ take_over: false });"#).fails(1).says("cut off");
        w.assert_clean(before);
        reached(w);
    });
}

/// With `take_over` the bridge has all that the device had, the host is reached before, during and after, and in the end
/// everything is back.
#[test]
fn n10_the_host_is_reached_all_the_time() {
    in_used_world(WAY_OUT, |w, before| {
        reached(w);
        let mac = w.run("cat /sys/class/net/wan0/address").ok().stdout;
        // Whether they are probed for being unique is a matter of the moment.
        let addresses = || w.run("ip addr show dev wan0 | grep inet | sed 's/ tentative//'").ok().stdout;
        let listed = addresses();
        let echoes = Echoes::start(w);
        build(w, "lab", LAB).ok();
        assert_eq!(w.run("cat /sys/class/net/br0/address").ok().stdout, mac);
        assert_eq!(w.run("ip -4 addr show dev wan0; ip -6 addr show dev wan0 scope global").ok().out(), "");
        w.run("ip route show default | grep 'default via 192.0.2.1 dev br0 proto static metric 5 mtu lock 1400'").ok();
        w.run("ip addr show dev br0 | grep '192.0.2.2/24 brd 192.0.2.77'; ip neigh show proxy | grep br0").ok();
        w.topo(&["show", "lab"]).ok().says("192.0.2.2/24");
        reached(w);
        w.topo(&["down", "lab"]).ok();
        echoes.end();
        w.assert_clean(before);
        assert_eq!(addresses(), listed, "in the same order");
    });
}

/// Somebody removed the bridge, and the way out with it: `down` gives the device what it had.
#[test]
fn n10_down_gives_back_what_went_with_the_bridge() {
    in_used_world(WAY_OUT, |w, before| {
        build(w, "lab", LAB).ok();
        w.ip("link del br0");
        assert!(w.run("ping -n -c 1 -W 1 203.0.113.1").code != 0, "it was cut off");
        w.topo(&["down", "lab"]).ok();
        reached(w);
        w.assert_clean(before);
    });
}

/// What the lab itself did to the bridge afterwards does not keep the device from getting back what it had: a bridge that
/// was down has lost its IPv6 addresses and its routes.
#[test]
fn n10_a_bridge_that_went_down_gives_all_back() {
    in_used_world(WAY_OUT, |w, before| {
        let more = r#"br.down(); settle(); br.addr("10.77.0.1/24"); br.rename("br9");"#;
        let lab = LAB.lines().take_while(|line| !line.starts_with("let h1")).collect::<Vec<_>>().join("\n");
        build(w, "lab", &format!("{lab}\n{more}")).ok();
        assert_eq!(w.run("ip route show dev br9").ok().out(), "");
        w.topo(&["down", "lab"]).ok();
        reached(w);
        w.assert_clean(before);
    });
}
