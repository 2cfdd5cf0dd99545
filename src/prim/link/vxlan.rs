//! VXLANs: one Ethernet over a network of routers.

use std::net::IpAddr;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::new_link::{self, Given};
use crate::net::link::kind::Vxlan;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{self, DevMac, Mtu, Ttl, UdpPort, Vni};
use crate::state::{Error, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "vxlan",
    about: "One Ethernet over a network of routers.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[VxlanOptions::SET],
};

options! {
    /// Options of `vxlan`.
    pub struct VxlanOptions of "vxlan" {
        /// The address that it sends from.
        local: IpAddr,
        /// The one host behind which all is that isn't known; without it and `group` there is `fdb`.
        remote: IpAddr,
        /// The multicast group to which it sends what isn't known; with `dev`.
        group: IpAddr,
        /// The device that it sends by. It may be in another namespace: the packets go there, the frames come here.
        dev: Dev,
        /// The UDP port of all hosts; 4789 unless given.
        port: UdpPort,
        /// Whether it learns from what comes in behind which host an address is; true unless given.
        learning: bool,
        /// The hop limit of its packets; the system's unless given.
        ttl: Ttl,
        /// How long a learnt address is remembered; 300 s unless given.
        ageing: Duration,
        /// The MTU; unless given, that of `dev` less the 50 bytes that it adds to a packet, or 70 over IPv6, or 1500 less those.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

/// The MTU of most networks.
const ETHERNET: u32 = 1500;

/// Checks what its addresses are.
fn ends(options: &VxlanOptions, doing: &str) -> Result<Option<IpAddr>> {
    let wrong = |because: String| Err(Error::invalid(doing).because(because));
    let far = match (options.remote, options.group) {
        (Some(_), Some(_)) => return wrong("it has either a `remote` or a `group`, not both".into()),
        (Some(ip), None) if ip.is_multicast() => {
            return wrong(format!("{ip} is a group of hosts: give it as `group`"));
        }
        (None, Some(ip)) if !ip.is_multicast() => {
            return wrong(format!("{ip} is no group of hosts: give it as `remote`"));
        }
        (None, Some(_)) if options.dev.is_none() => {
            return wrong("a `group` needs `dev`, the device at which it is listened to".into());
        }
        (remote, group) => remote.or(group),
    };
    if let (Some(local), Some(far)) = (options.local, far)
        && local.is_ipv4() != far.is_ipv4()
    {
        return wrong(format!("{local} and {far} are of two versions of IP"));
    }
    Ok(far)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a device whose frames cross a network of routers in UDP packets, to the hosts that have one of the same number; it
    /// comes up. It is plugged into a bridge as a cable is, or has addresses of its own.
    ///
    /// Where the frames go to is a `remote` host, a `group` of them, or what `fdb` says.
    ///
    /// Like `ip link add NAME type vxlan id VNI local IP remote IP dstport 4789`, then `ip link set … up`.
    ///
    /// Fails with `invalid` for a number of more than 24 bits and for addresses of two versions of IP, with `exists` where the name
    /// is taken or the namespace has a VXLAN of this number, and with `unsupported` where the kernel lacks CONFIG_VXLAN.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("192.0.2.1/24");
    /// b["eth0"].addr("192.0.2.2/24");
    /// vxlan(a["vx0"], 42, #{ local: "192.0.2.1", remote: "192.0.2.2" }).addr("10.0.0.1/24");
    /// vxlan(b["vx0"], 42, #{ local: "192.0.2.2", remote: "192.0.2.1" }).addr("10.0.0.2/24");
    /// assert(a.ping("10.0.0.2"));
    /// assert(a["vx0"].mtu == 1450);
    /// ```
    #[rhai_fn(name = "vxlan", return_raw)]
    pub fn vxlan_with(ctx: NativeCallContext, end: Dynamic, vni: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = VxlanOptions::parse(options)?;
            let dev = new_link::wanted(lab, "vxlan", end)?;
            let doing = format!("add vxlan {}", dev.shown());
            let Vni(vni) = units::argument(&doing, vni)?;
            let remote = ends(&options, &doing)?;
            let below = options.dev.as_ref().map(|dev| dev.existing(lab)).transpose()?;
            let VxlanOptions { local, port, learning, ttl, ageing, mtu, mac, up, .. } = options;
            let vxlan = Vxlan {
                vni,
                local,
                remote,
                port: port.map(|port| port.0),
                learning,
                ttl: ttl.map(|ttl| ttl.0),
                ageing_s: ageing.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)),
            };
            // The kernel counts the headers in only where it knows the device.
            let mtu = mtu.or(below.is_none().then(|| Mtu(ETHERNET - vxlan.overhead())));
            new_link::ask(lab, &dev, below.as_ref(), vxlan, Given { mtu, mac, up }, place)
        })
    }

    /// Adds a VXLAN that reaches the hosts that `fdb` names.
    #[rhai_fn(name = "vxlan", return_raw)]
    pub fn vxlan(ctx: NativeCallContext, end: Dynamic, vni: Dynamic) -> RhaiResultOf<Dev> {
        vxlan_with(ctx, end, vni, Map::new())
    }
}
