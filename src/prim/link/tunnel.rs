//! Tunnels from one address to another: GRE, IP in IP.

use std::net::IpAddr;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::new_link::{self, Given};
use crate::lab::Lab;
use crate::net::link::kind::{Tunnel, TunnelMode};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevMac, Mtu, Ttl, TunnelKey};
use crate::state::{Error, Place, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "tunnel",
    about: "Tunnels from one address to another.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[GreOptions::SET, GretapOptions::SET, IpipOptions::SET, SitOptions::SET, Ip6tnlOptions::SET],
};

/// Declares the options of one kind of tunnel: those of all, and its own.
macro_rules! tunnel_options {
    ($(#[doc = $about:literal])+ $name:ident of $function:literal { $( $(#[doc = $doc:literal])+ $field:ident : $type:ty, )* }) => {
        options! {
            $(#[doc = $about])+
            pub struct $name of $function {
                /// The address of the other end.
                remote: IpAddr,
                /// The address that it sends from; the one that the route to `remote` has unless given.
                local: IpAddr,
                /// The device that it sends by, whatever the routes say; in the same namespace.
                dev: Dev,
                $( $(#[doc = $doc])+ $field : $type, )*
                /// The hop limit of its packets; that of the packet inside unless given, and 64 over IPv6.
                ttl: Ttl,
                /// The MTU; that of the device that leads to `remote` less what the tunnel adds unless given.
                mtu: Mtu,
                /// Whether it comes up; true unless given.
                up: bool,
            }
        }
    };
}

tunnel_options! {
    /// Options of `gre`.
    GreOptions of "gre" {
        /// A number that both ends must have; none unless given.
        key: TunnelKey,
        /// Whether each packet has a checksum; false unless given.
        csum: bool,
        /// Whether a packet that is too large on the way is told of rather than cut; true unless given, over IPv4 alone.
        pmtudisc: bool,
    }
}
tunnel_options! {
    /// Options of `gretap`.
    GretapOptions of "gretap" {
        /// A number that both ends must have; none unless given.
        key: TunnelKey,
        /// Whether each packet has a checksum; false unless given.
        csum: bool,
        /// Whether a packet that is too large on the way is told of rather than cut; true unless given, over IPv4 alone.
        pmtudisc: bool,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
    }
}
tunnel_options! {
    /// Options of `ipip`.
    IpipOptions of "ipip" {
        /// Whether a packet that is too large on the way is told of rather than cut; true unless given.
        pmtudisc: bool,
    }
}
tunnel_options! {
    /// Options of `sit`.
    SitOptions of "sit" {
        /// Whether a packet that is too large on the way is told of rather than cut; true unless given.
        pmtudisc: bool,
    }
}
tunnel_options! {
    /// Options of `ip6tnl`.
    Ip6tnlOptions of "ip6tnl" {}
}

/// What the options of a tunnel say, of whichever kind.
struct WantedTunnel {
    mode: TunnelMode,
    remote: Option<IpAddr>,
    local: Option<IpAddr>,
    dev: Option<Dev>,
    key: Option<TunnelKey>,
    csum: bool,
    ttl: Option<Ttl>,
    pmtudisc: Option<bool>,
}

/// Adds a tunnel; `word` is what the script calls it.
fn add(lab: &mut Lab, end: Dynamic, word: &str, wanted: WantedTunnel, given: Given, place: Place) -> Result<Dev> {
    let dev = new_link::wanted(lab, word, end)?;
    let wrong = |because: String| Error::invalid(format!("add {word} {}", dev.shown())).because(because);
    let Some(remote) = wanted.remote else {
        return Err(wrong("it needs a `remote`, the address of its other end".into()));
    };
    if let Some(local) = wanted.local.filter(|local| local.is_ipv4() != remote.is_ipv4()) {
        return Err(wrong(format!("{local} and {remote} are of two versions of IP")));
    }
    match (wanted.mode, remote) {
        (TunnelMode::Ipip | TunnelMode::Sit, IpAddr::V6(_)) => {
            return Err(wrong(format!("{remote} is of IPv6, and its packets are of IPv4"))
                .hint("`ip6tnl` carries both over IPv6"));
        }
        (TunnelMode::Ip6tnl, IpAddr::V4(_)) => {
            return Err(wrong(format!("{remote} is of IPv4, and its packets are of IPv6"))
                .hint("`ipip` carries IPv4 over IPv4, `sit` IPv6"));
        }
        _ => {}
    }
    if remote.is_unspecified() {
        return Err(wrong(format!("{remote} is no host's address")));
    }
    if wanted.local == Some(remote) {
        return Err(wrong("both ends have the same address".into()));
    }
    if wanted.pmtudisc == Some(false) && wanted.ttl.is_some() {
        return Err(wrong("with a `ttl` of its own it can't do without `pmtudisc`: it might loop for ever".into()));
    }
    if wanted.pmtudisc.is_some() && remote.is_ipv6() {
        return Err(wrong("over IPv6 nothing is cut on the way, so that there is no `pmtudisc`".into()));
    }
    let below = wanted.dev.map(|dev| dev.existing(lab)).transpose()?;
    // Unlike a VXLAN it would look for its addresses where it is itself (ip_tunnel_newlink in net/ipv4/ip_tunnel.c).
    if let Some(below) = below.as_ref().filter(|below| below.dev.netns.no != dev.netns.0.no) {
        return Err(wrong(format!("{} is in another namespace", below.dev.shown())));
    }
    let tunnel = Tunnel {
        mode: wanted.mode,
        local: wanted.local,
        remote,
        key: wanted.key.map(|key| key.0),
        csum: wanted.csum,
        ttl: wanted.ttl.map(|ttl| ttl.0),
        pmtudisc: wanted.pmtudisc,
    };
    new_link::ask(lab, &dev, below.as_ref(), tunnel, given, place)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a tunnel that carries packets of IPv4 and IPv6 from one router to another behind a GRE header; it comes up. Over IPv4 or
    /// IPv6, as `remote` is.
    ///
    /// Like `ip link add NAME type gre local IP remote IP`, then `ip link set … up`; over IPv6 `type ip6gre`.
    ///
    /// Fails with `invalid` without a `remote` or for addresses of two versions of IP, with `exists` where the name or the pair
    /// of addresses is taken, and with `unsupported` where the kernel lacks CONFIG_NET_IPGRE, or CONFIG_IPV6_GRE.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("192.0.2.1/24");
    /// b["eth0"].addr("192.0.2.2/24");
    /// try {
    ///     gre(a["tun0"], #{ local: "192.0.2.1", remote: "192.0.2.2", key: 7 }).addr("10.0.0.1/30");
    ///     gre(b["tun0"], #{ local: "192.0.2.2", remote: "192.0.2.1", key: 7 }).addr("10.0.0.2/30");
    ///     assert(a.ping("10.0.0.2"));
    ///     assert(a["tun0"].mtu == 1472);
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn gre(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let o = GreOptions::parse(options)?;
            let wanted = WantedTunnel {
                mode: TunnelMode::Gre,
                remote: o.remote,
                local: o.local,
                dev: o.dev,
                key: o.key,
                csum: o.csum == Some(true),
                ttl: o.ttl,
                pmtudisc: o.pmtudisc,
            };
            add(lab, end, "gre", wanted, Given { mtu: o.mtu, mac: None, up: o.up }, place)
        })
    }

    /// Adds a tunnel that carries Ethernet frames behind a GRE header, so that it can be a port of a bridge; it comes up.
    ///
    /// Like `ip link add NAME type gretap local IP remote IP`, then `ip link set … up`; over IPv6 `type ip6gretap`.
    ///
    /// Fails with what `gre` fails with.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("192.0.2.1/24");
    /// b["eth0"].addr("192.0.2.2/24");
    /// try {
    ///     gretap(a["tap0"], #{ local: "192.0.2.1", remote: "192.0.2.2" }).addr("10.0.0.1/24");
    ///     gretap(b["tap0"], #{ local: "192.0.2.2", remote: "192.0.2.1" }).addr("10.0.0.2/24");
    ///     assert(a.ping("10.0.0.2"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn gretap(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let o = GretapOptions::parse(options)?;
            let wanted = WantedTunnel {
                mode: TunnelMode::Gretap,
                remote: o.remote,
                local: o.local,
                dev: o.dev,
                key: o.key,
                csum: o.csum == Some(true),
                ttl: o.ttl,
                pmtudisc: o.pmtudisc,
            };
            add(lab, end, "gretap", wanted, Given { mtu: o.mtu, mac: o.mac, up: o.up }, place)
        })
    }

    /// Adds a tunnel that carries IPv4 packets in IPv4 packets; it comes up.
    ///
    /// Like `ip link add NAME type ipip local IP remote IP`, then `ip link set … up`.
    ///
    /// Fails with `invalid` without a `remote` or for an address of IPv6, with `exists` where the name or the pair of addresses is
    /// taken, and with `unsupported` where the kernel lacks CONFIG_NET_IPIP.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("192.0.2.1/24");
    /// b["eth0"].addr("192.0.2.2/24");
    /// try {
    ///     ipip(a["tun0"], #{ local: "192.0.2.1", remote: "192.0.2.2" }).addr("10.0.0.1/30");
    ///     ipip(b["tun0"], #{ local: "192.0.2.2", remote: "192.0.2.1" }).addr("10.0.0.2/30");
    ///     assert(a.ping("10.0.0.2"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ipip(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let IpipOptions { remote, local, dev, pmtudisc, ttl, mtu, up } = IpipOptions::parse(options)?;
            let mode = TunnelMode::Ipip;
            let wanted = WantedTunnel { mode, remote, local, dev, key: None, csum: false, ttl, pmtudisc };
            add(lab, end, "ipip", wanted, Given { mtu, mac: None, up }, place)
        })
    }

    /// Adds a tunnel that carries IPv6 packets in IPv4 packets; it comes up.
    ///
    /// Like `ip link add NAME type sit local IP remote IP`, then `ip link set … up`.
    ///
    /// Fails with what `ipip` fails with; the kernel's option is CONFIG_IPV6_SIT.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("192.0.2.1/24");
    /// b["eth0"].addr("192.0.2.2/24");
    /// try {
    ///     sit(a["tun0"], #{ local: "192.0.2.1", remote: "192.0.2.2" }).addr("fd00::1/64");
    ///     sit(b["tun0"], #{ local: "192.0.2.2", remote: "192.0.2.1" }).addr("fd00::2/64");
    ///     assert(a.ping("fd00::2"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sit(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let SitOptions { remote, local, dev, pmtudisc, ttl, mtu, up } = SitOptions::parse(options)?;
            let mode = TunnelMode::Sit;
            let wanted = WantedTunnel { mode, remote, local, dev, key: None, csum: false, ttl, pmtudisc };
            add(lab, end, "sit", wanted, Given { mtu, mac: None, up }, place)
        })
    }

    /// Adds a tunnel that carries IPv4 and IPv6 packets in IPv6 packets; it comes up.
    ///
    /// Like `ip link add NAME type ip6tnl mode any local IP remote IP encaplimit none`, then `ip link set … up`.
    ///
    /// Fails with `invalid` without a `remote` or for an address of IPv4, with `exists` where the name or the pair of addresses is
    /// taken, and with `unsupported` where the kernel lacks CONFIG_IPV6_TUNNEL.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("2001:db8::1/64");
    /// b["eth0"].addr("2001:db8::2/64");
    /// try {
    ///     ip6tnl(a["tun0"], #{ local: "2001:db8::1", remote: "2001:db8::2" }).addr("10.0.0.1/30");
    ///     ip6tnl(b["tun0"], #{ local: "2001:db8::2", remote: "2001:db8::1" }).addr("10.0.0.2/30");
    ///     assert(a.ping("10.0.0.2"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ip6tnl(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let Ip6tnlOptions { remote, local, dev, ttl, mtu, up } = Ip6tnlOptions::parse(options)?;
            let mode = TunnelMode::Ip6tnl;
            let wanted = WantedTunnel { mode, remote, local, dev, key: None, csum: false, ttl, pmtudisc: None };
            add(lab, end, "ip6tnl", wanted, Given { mtu, mac: None, up }, place)
        })
    }
}
