//! Devices on top of another one: several hosts on one cable, without a bridge.

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::new_link::{self, AddLink, Given};
use crate::lab::Lab;
use crate::net::link::kind::{Ipvlan, IpvlanMode, Macvlan, MacvlanMode};
use crate::net::{self, LinkKind};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevMac, Mtu};
use crate::state::{Error, Place, Result};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "links",
    about: "Devices on top of another one, which share its cable.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddLink)],
    options: &[MacvlanOptions::SET, IpvlanOptions::SET],
};

options! {
    /// Options of `macvlan`.
    pub struct MacvlanOptions of "macvlan" {
        /// Whom it hears of those on the same device: the others in this mode with `bridge`, nobody with `private`, those whose
        /// frames the switch sends back with `vepa`; with `passthru` there are no others. `bridge` unless given.
        mode: MacvlanMode,
        /// The MTU; that of the device below unless given, which is also the most.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

options! {
    /// Options of `ipvlan`.
    pub struct IpvlanOptions of "ipvlan" {
        /// What it does by itself: its own neighbours with `l2`, nothing below IP with `l3` and `l3s`, where the namespace of the
        /// device below routes for it. `l2` unless given.
        mode: IpvlanMode,
        /// The MTU; that of the device below unless given.
        mtu: Mtu,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

/// Adds a device on top of `parent`.
fn add(lab: &mut Lab, end: Dynamic, parent: &Dev, kind: LinkKind, given: Given, place: Place) -> Result<Dev> {
    let dev = new_link::wanted(lab, kind.kind(), end)?;
    let doing = format!("add {} {} on {}", kind.kind(), dev.shown(), parent.shown());
    if kind.shares_mac() && given.mac.is_some() {
        return Err(Error::invalid(doing)
            .because(format!("with `{}` it has the hardware address of the device below", kind.about())));
    }
    let below = parent.existing(lab)?;
    if below.controller.is_some() {
        return Err(Error::invalid(doing)
            .because(format!("{} is a port of a bridge", below.dev.shown()))
            .hint("put it on the bridge itself"));
    }
    new_link::ask(lab, &dev, Some(&below), kind, given, place)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Puts a device with a hardware address of its own on top of another one, whose cable it shares, and which may be in
    /// another namespace; it comes up. It hears all that is behind that cable, but never the device below itself.
    ///
    /// The new device is a reference (`h["eth0"]`), or a plain name for a device of the host.
    ///
    /// Like `ip link add link PARENT NAME netns NETNS type macvlan mode bridge`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, with `invalid` where the device below is a port of a bridge or has ipvlans
    /// on top, and with `unsupported` where the kernel lacks CONFIG_MACVLAN.
    ///
    /// ```rhai
    /// let router = netns("router");
    /// veth(router["eth0"], "lan0");
    /// router["eth0"].addr("10.0.0.254/24");
    /// for n in 1..=2 {
    ///     let h = netns(`h${n}`);
    ///     macvlan(h["eth0"], host["lan0"]);
    ///     h["eth0"].addr(`10.0.0.${n}/24`);
    /// }
    /// assert(netns_get("h1").ping("10.0.0.254"));
    /// assert(netns_get("h1").ping("10.0.0.2"));
    /// ```
    #[rhai_fn(name = "macvlan", return_raw)]
    pub fn macvlan_with(ctx: NativeCallContext, end: Dynamic, parent: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let MacvlanOptions { mode, mtu, mac, up } = MacvlanOptions::parse(options)?;
            let kind = Macvlan { mode: mode.unwrap_or(MacvlanMode::Bridge) };
            add(lab, end, &parent, kind.into(), Given { mtu, mac, up }, place)
        })
    }

    /// Puts a macvlan with default options on top of a device: mode `bridge`, up.
    #[rhai_fn(name = "macvlan", return_raw)]
    pub fn macvlan(ctx: NativeCallContext, end: Dynamic, parent: Dev) -> RhaiResultOf<Dev> {
        macvlan_with(ctx, end, parent, Map::new())
    }

    /// Puts a device on top of another one, whose cable and hardware address it shares, and which may be in another namespace;
    /// it comes up. For cables behind which only one hardware address is let in, as in many clouds and on Wi-Fi.
    ///
    /// The new device is a reference (`h["eth0"]`), or a plain name for a device of the host.
    ///
    /// Like `ip link add link PARENT NAME netns NETNS type ipvlan mode l2`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, with `invalid` where the device below is a port of a bridge or has
    /// macvlans on top, and with `unsupported` where the kernel lacks CONFIG_IPVLAN.
    ///
    /// ```rhai
    /// let router = netns("router");
    /// let h = netns("h1");
    /// veth(router["eth0"], "lan0");
    /// router["eth0"].addr("10.0.0.254/24");
    /// try {
    ///     ipvlan(h["eth0"], host["lan0"]);
    ///     h["eth0"].addr("10.0.0.1/24");
    ///     assert(h.ping("10.0.0.254"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "ipvlan", return_raw)]
    pub fn ipvlan_with(ctx: NativeCallContext, end: Dynamic, parent: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let IpvlanOptions { mode, mtu, up } = IpvlanOptions::parse(options)?;
            let kind = Ipvlan { mode: mode.unwrap_or(IpvlanMode::L2) };
            add(lab, end, &parent, kind.into(), Given { mtu, mac: None, up }, place)
        })
    }

    /// Tells whether the kernel can make devices of a kind, such as `"ipvlan"`, `"vlan"` or `"wireguard"`; a module that it needs is loaded.
    ///
    /// Like `ip link add type KIND` in a netns of its own, or `topo doctor`.
    ///
    /// Fails with the kernel's reason where no netns can be made.
    ///
    /// ```rhai
    /// assert(kernel_has("veth") && !kernel_has("zebra"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn kernel_has(ctx: NativeCallContext, kind: &str) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            let failed = |source: net::Error| Error::kernel("ask the kernel for a kind of device", &source);
            lab.settle()?;
            // What is made there is seen by nobody else, and goes with it.
            let netns = net::Netns::create("topo:probe").map_err(failed)?;
            net::Netlink::open(&netns).and_then(|rtnl| net::has_link_kind(&rtnl, kind)).map_err(failed)
        })
    }

    /// Puts an ipvlan with default options on top of a device: mode `l2`, up.
    #[rhai_fn(name = "ipvlan", return_raw)]
    pub fn ipvlan(ctx: NativeCallContext, end: Dynamic, parent: Dev) -> RhaiResultOf<Dev> {
        ipvlan_with(ctx, end, parent, Map::new())
    }
}
