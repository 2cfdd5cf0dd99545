//! VLANs: devices that have the frames of another one that bear one tag.

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::new_link::{self, Given};
use crate::net::link::kind::{Vlan, VlanProtocol};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{self, DevMac, Mtu, VlanId};

pub(in crate::prim) const GROUP: Group = Group {
    name: "vlan",
    about: "Devices that have one VLAN of another one.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[VlanOptions::SET],
};

options! {
    /// Options of `vlan`.
    pub struct VlanOptions of "vlan" {
        /// The kind of tag: a customer's with `802.1q`, a provider's around it with `802.1ad`. `802.1q` unless given.
        protocol: VlanProtocol,
        /// The MTU; that of the device below unless given, which is also the most.
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
    /// Adds a device that sends the frames of another one with a VLAN's tag, and hears those that bear it; it comes up. It may be
    /// in another namespace than the device below.
    ///
    /// The new device is a reference (`h["eth0.10"]`), or a plain name for a device of the host. On a bridge with
    /// `vlan_filtering`, the bridge itself must be in the VLAN: `br.port(#{ tagged: [10] })`.
    ///
    /// Like `ip link add link PARENT NAME netns NETNS type vlan id ID`, then `ip link set … up`.
    ///
    /// Fails with `invalid` for a number that is not from 1 to 4094, with `exists` where the name is taken or the device below has
    /// that VLAN already, and with `unsupported` where the kernel lacks CONFIG_VLAN_8021Q.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// try {
    ///     vlan(a["eth0.10"], a["eth0"], 10).addr("10.0.10.1/24");
    ///     vlan(b["eth0.10"], b["eth0"], 10).addr("10.0.10.2/24");
    ///     assert(a.ping("10.0.10.2"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "vlan", return_raw)]
    pub fn vlan_with(
        ctx: NativeCallContext,
        end: Dynamic,
        parent: Dev,
        id: Dynamic,
        options: Map,
    ) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let VlanOptions { protocol, mtu, mac, up } = VlanOptions::parse(options)?;
            let dev = new_link::wanted(lab, "vlan", end)?;
            let VlanId(id) = units::argument(&format!("add vlan {} on {}", dev.shown(), parent.shown()), id)?;
            let below = parent.existing(lab)?;
            let kind = Vlan { id, protocol: protocol.unwrap_or(VlanProtocol::Dot1q) };
            new_link::ask(lab, &dev, Some(&below), kind, Given { mtu, mac, up }, place)
        })
    }

    /// Adds a device with default options for a VLAN of another one: 802.1q, up.
    #[rhai_fn(name = "vlan", return_raw)]
    pub fn vlan(ctx: NativeCallContext, end: Dynamic, parent: Dev, id: Dynamic) -> RhaiResultOf<Dev> {
        vlan_with(ctx, end, parent, id, Map::new())
    }
}
