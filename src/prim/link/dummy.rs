//! Devices without a cable: dummy, ifb.

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::new_link::{self, Given};
use crate::net::link::kind::{Dummy, Ifb};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevMac, Mtu};

pub(in crate::prim) const GROUP: Group = Group {
    name: "dummy",
    about: "Devices without a cable.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[DummyOptions::SET, IfbOptions::SET],
};

options! {
    /// Options of `dummy`.
    pub struct DummyOptions of "dummy" {
        /// The MTU; 1500 unless given.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

options! {
    /// Options of `ifb`.
    pub struct IfbOptions of "ifb" {
        /// The MTU; 1500 unless given.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a device that drops whatever it is given: a place for addresses that are up whatever happens to cables, as a router
    /// has them; it comes up.
    ///
    /// Like `ip link add NAME type dummy`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, and with `unsupported` where the kernel lacks CONFIG_DUMMY.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// try {
    ///     dummy(r["lo1"]).addr("192.0.2.1/32");
    ///     assert(r.ping("192.0.2.1"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "dummy", return_raw)]
    pub fn dummy_with(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let DummyOptions { mtu, mac, up } = DummyOptions::parse(options)?;
            let dev = new_link::wanted(lab, "dummy", end)?;
            new_link::ask(lab, &dev, None, Dummy {}, Given { mtu, mac, up }, place)
        })
    }

    /// Adds a device that drops whatever it is given, with default options.
    #[rhai_fn(name = "dummy", return_raw)]
    pub fn dummy(ctx: NativeCallContext, end: Dynamic) -> RhaiResultOf<Dev> {
        dummy_with(ctx, end, Map::new())
    }

    /// Adds an intermediate functional block: a device to which `tc` redirects what another one receives, so that it can be
    /// shaped; it comes up.
    ///
    /// Like `ip link add NAME type ifb`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, and with `unsupported` where the kernel lacks CONFIG_IFB.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(ifb(h["ifb0"]).kind == "ifb");
    /// ```
    #[rhai_fn(name = "ifb", return_raw)]
    pub fn ifb_with(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let IfbOptions { mtu, mac, up } = IfbOptions::parse(options)?;
            let dev = new_link::wanted(lab, "ifb", end)?;
            new_link::ask(lab, &dev, None, Ifb {}, Given { mtu, mac, up }, place)
        })
    }

    /// Adds an intermediate functional block with default options.
    #[rhai_fn(name = "ifb", return_raw)]
    pub fn ifb(ctx: NativeCallContext, end: Dynamic) -> RhaiResultOf<Dev> {
        ifb_with(ctx, end, Map::new())
    }
}
