//! VRFs: several routers in one namespace.

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::new_link::{self, Given};
use crate::net::link::kind::Vrf;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{self, DevMac, Table};
use crate::state::Error;

pub(in crate::prim) const GROUP: Group = Group {
    name: "vrf",
    about: "Several routing tables in one namespace, each with devices of its own.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[VrfOptions::SET],
};

options! {
    /// Options of `vrf`.
    pub struct VrfOptions of "vrf" {
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a device that stands for a routing table (virtual routing and forwarding); it comes up. What is attached to it routes by
    /// that table alone, so that two VRFs of one namespace can have the same addresses; `route` fills it with `table`.
    ///
    /// With the first VRF of a namespace the kernel adds rules of its own there (`from all lookup [l3mdev-table]`), which it never
    /// takes away.
    ///
    /// Like `ip link add NAME type vrf table TABLE`, then `ip link set … up`.
    ///
    /// Fails with `invalid` for one of the kernel's own tables, with `exists` where the name is taken, and with `unsupported` where
    /// the kernel lacks CONFIG_NET_VRF.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// let h = netns("h1");
    /// veth(h["eth0"], r["red0"]);
    /// h["eth0"].addr("10.0.0.1/24");
    /// try {
    ///     let red = vrf(r["red"], 10);
    ///     red.attach(r["red0"]);
    ///     r["red0"].addr("10.0.0.254/24");
    ///     assert(h.ping("10.0.0.254"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "vrf", return_raw)]
    pub fn vrf_with(ctx: NativeCallContext, end: Dynamic, table: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let VrfOptions { mac, up } = VrfOptions::parse(options)?;
            let dev = new_link::wanted(lab, "vrf", end)?;
            let doing = format!("add vrf {}", dev.shown());
            let Table(table) = units::argument(&doing, table)?;
            // RT_TABLE_DEFAULT, _MAIN and _LOCAL of linux/rtnetlink.h.
            if (253..=255).contains(&table) {
                return Err(Error::invalid(doing)
                    .because(format!("table {table} is one that all others use"))
                    .hint("take a number of its own, such as 10"));
            }
            new_link::ask(lab, &dev, None, Vrf { table }, Given { mtu: None, mac, up }, place)
        })
    }

    /// Adds a device that stands for a routing table, with default options.
    #[rhai_fn(name = "vrf", return_raw)]
    pub fn vrf(ctx: NativeCallContext, end: Dynamic, table: Dynamic) -> RhaiResultOf<Dev> {
        vrf_with(ctx, end, table, Map::new())
    }
}
