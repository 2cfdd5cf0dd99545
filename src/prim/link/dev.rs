//! Devices: what any device in a namespace tells of itself, and how it is renamed, moved, and set up or down.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use ipnetwork::IpNetwork;
use rhai::plugin::*;

use super::dev_change::{MoveDev, RenameDev, SetUp};
use crate::lab::{Lab, Moved, OWNER_PROTOCOL};
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::{self, Dev, NetnsHandle};
use crate::state::{DevRef, Error, Kind, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "dev",
    about: "What any device can be asked, and its name, place and state.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(RenameDev), step_sort!(MoveDev), step_sort!(SetUp)],
    options: &[],
};

/// What hangs on a device of somebody else's, and what a change of it would take away for good.
pub(super) struct AtRisk {
    /// The device as the kernel has it.
    pub link: net::Link,
    /// Its addresses, for a message.
    pub addresses: Vec<String>,
    /// What it loses when it goes down: IPv6 addresses, routes and fixed neighbours.
    lost_when_down: Vec<String>,
}

/// Looks at what somebody else's device has. What labs put there is theirs to lose, and what the kernel or a router's
/// advertisement put there comes back by itself.
pub(super) fn config_at_risk(lab: &mut Lab, dev: &DevRef, doing: &str) -> Result<AtRisk> {
    const BY_ITSELF: [u8; 4] = [1, 2, 9, OWNER_PROTOCOL]; // RTPROT_REDIRECT, _KERNEL, _RA of rtnetlink(7)
    let ask = |rtnl: &net::Netlink| {
        let (link, addresses) = (net::link::get(rtnl, dev.index)?, net::ip::addr::list(rtnl)?);
        Ok((link, addresses, net::ip::route::list(rtnl)?, net::ip::neigh::list(rtnl)?))
    };
    let (link, addresses, routes, neighbours) = handles::look(lab, &dev.netns, doing, ask)?;
    let link = link.ok_or_else(|| Error::new(Kind::Gone, doing).because("something else removed it"))?;
    let here = |address: &&net::Address| {
        address.index == dev.index && address.scope != "link" && address.protocol != OWNER_PROTOCOL
    };
    let addresses: Vec<IpNetwork> = addresses.iter().filter(here).map(|address| address.net).collect();
    let mut lost: Vec<String> =
        addresses.iter().filter(|net| net.is_ipv6()).map(|net| format!("the address `{net}`")).collect();
    let routes = routes.iter().filter(|route| route.uses(dev.index) && !BY_ITSELF.contains(&route.protocol));
    lost.extend(routes.map(|route| format!("the route to `{}`", route.dst)));
    let fixed = |neigh: &&net::Neigh| {
        neigh.index == dev.index && neigh.state == "permanent" && !BY_ITSELF.contains(&neigh.protocol)
    };
    lost.extend(neighbours.iter().filter(fixed).map(|neigh| format!("the neighbour `{}`", neigh.ip)));
    let addresses = addresses.iter().map(|net| format!("the address `{net}`")).collect();
    Ok(AtRisk { link, addresses, lost_when_down: lost })
}

fn denied(doing: &str, kept: &[String], change: &str) -> Error {
    Error::new(Kind::Denied, doing)
        .because(format!("it has {}, which {change} would lose, and the lab did not make it", kept.join(", ")))
        .hint("connect it by a bridge or a route instead")
}

/// Refuses to move a device that would lose what the lab could not give back; tells whether it is up.
fn check_movable(lab: &mut Lab, dev: &DevRef, doing: &str) -> Result<bool> {
    if dev.made {
        return Ok(true);
    }
    let AtRisk { link, addresses, lost_when_down } = config_at_risk(lab, dev, doing)?;
    let mut kept = addresses;
    kept.extend(lost_when_down.into_iter().filter(|what| !kept.contains(what)).collect::<Vec<_>>());
    kept.extend(link.controller.map(|_| "its place in a bridge".to_string()));
    if kept.is_empty() { Ok(link.up) } else { Err(denied(doing, &kept, "a move")) }
}

/// Refuses to set down a device that would lose what the lab could not give back.
fn check_settable_down(lab: &mut Lab, dev: &DevRef) -> Result<()> {
    if dev.made || dev.netns.made {
        return Ok(());
    }
    let doing = format!("set {} down", dev.shown());
    let kept = config_at_risk(lab, dev, &doing)?.lost_when_down;
    if kept.is_empty() { Ok(()) } else { Err(denied(&doing, &kept, "going down")) }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Gives a device another name; handles to it stay good.
    ///
    /// Like `ip link set dev OLD name NEW`.
    ///
    /// Fails with `exists` where the name is taken in its namespace.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// veth(r["eth0"], "up0");
    /// let wan = r["eth0"];
    /// wan.rename("wan0");
    /// assert(wan.name == "wan0" && r["wan0"].state == "up");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn rename(ctx: NativeCallContext, dev: Dev, new_name: &str) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            name::check("device", new_name)?;
            let from = dev.existing(lab)?.dev;
            handles::know(lab, &from.netns, new_name)?;
            let to = DevRef { name: new_name.to_string(), ..from.clone() };
            lab.ask(RenameDev { from, to, settings: Vec::new() }, place)
        })?;
        Ok(dev)
    }

    /// Moves a device into another namespace, where it comes up; the kernel drops its addresses. The hardware address stays, so neighbours
    /// reach an address at once that it is given again; for one that another device had, call `announce`. A pair that `veth` makes in
    /// place is a hundred times cheaper.
    ///
    /// Like `ip link set dev DEV netns NETNS`.
    ///
    /// Fails with `exists` where the name is taken there, and with `denied` for a device that the lab did not make and that
    /// has addresses, routes, fixed neighbours or a place in a bridge.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth("left0", "right0");
    /// host["right0"].move_to(h);
    /// assert(h["right0"].state == "up");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn move_to(ctx: NativeCallContext, dev: Dev, netns: NetnsHandle) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let from = dev.existing(lab)?.dev;
            let target = netns.living(lab)?;
            handles::know(lab, &target, &from.name)?;
            let up = check_movable(lab, &from, &format!("move {} to netns `{}`", from.shown(), target.name))?;
            let index = handles::next_index(lab, &target, &target)?;
            let to = DevRef { netns: target, index, ..from.clone() };
            lab.ask(MoveDev(Moved { from, to, up, settings: Vec::new(), config: None }), place)
        })?;
        Ok(dev)
    }

    /// Sets a device up. What this script had put there before `down` took it away is there again: IPv6 addresses, routes by this
    /// device, fixed neighbours.
    ///
    /// Like `ip link set dev DEV up`, and `ip address add`, `ip route add` and `ip neighbour add` again.
    ///
    /// Fails with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0", #{ up: false });
    /// h["eth0"].up();
    /// host["up0"].up();
    /// assert(h["eth0"].state == "up");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn up(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Dev> {
        ask_up(&ctx, &dev, true)?;
        Ok(dev)
    }

    /// Sets a device down, as if its cable was pulled: its routes and its IPv6 addresses go, so that other routes take over, and what
    /// is at the other end of the cable loses its carrier. A device without a carrier keeps its routes, and the kernel goes on using
    /// them unless its setting `net.ipv4.conf.all.ignore_routes_with_linkdown` (and that of `ipv6`) is 1. `up` brings all of it back.
    ///
    /// Like `ip link set dev DEV down`.
    ///
    /// Fails with `missing` where there is no such device, and with `denied` for one that the lab did not make and that
    /// would lose IPv6 addresses, routes or fixed neighbours.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].addr("10.0.0.1/24");
    /// host["up0"].addr("10.0.0.2/24");
    /// h.route("10.9.0.0/24", #{ via: "10.0.0.2" });
    /// host["up0"].down();
    /// assert(h["eth0"].state == "no carrier");
    /// h["eth0"].down();
    /// assert(!h.routes().some(|route| route.dst == net("10.9.0.0/24")));
    /// host["up0"].up();
    /// h["eth0"].up();
    /// assert(h.routes().some(|route| route.dst == net("10.9.0.0/24")));
    /// assert(h.ping("10.0.0.2"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn down(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Dev> {
        ask_up(&ctx, &dev, false)?;
        Ok(dev)
    }

    /// Returns the name of a device.
    #[rhai_fn(get = "name", return_raw, pure)]
    pub fn dev_name(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<String> {
        with_lab(&ctx, |lab| Ok(dev.find(lab)?.map_or_else(|| dev.name.to_string(), |entry| entry.dev.name)))
    }

    /// Returns the name that the kernel has for a device: its own, or a short one where that is longer than 15 bytes.
    #[rhai_fn(get = "kernel_name", return_raw, pure)]
    pub fn dev_kernel_name(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<String> {
        with_lab(&ctx, |lab| {
            let name = dev.find(lab)?.map_or_else(|| dev.name.to_string(), |entry| entry.dev.name);
            Ok(name::kernel_name(&name))
        })
    }

    /// Returns the lab that made a device, by the mark that it bears; `()` for one that none made.
    #[rhai_fn(get = "owner", return_raw, pure)]
    pub fn dev_owner(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<Dynamic> {
        let link = link(&ctx, dev)?;
        with_lab(&ctx, |lab| {
            let owner = match link.alias.as_deref() {
                Some(alias) if alias == lab.mark() => Some(lab.name()),
                Some(alias) => lab.state().lab_of(alias)?,
                None => None,
            };
            Ok(owner.map_or(Dynamic::UNIT, |owner| owner.to_string().into()))
        })
    }

    /// Returns the namespace that a device is in.
    #[rhai_fn(get = "netns", return_raw, pure)]
    pub fn dev_netns(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<NetnsHandle> {
        with_lab(&ctx, |lab| {
            Ok(dev.find(lab)?.map_or_else(|| dev.netns.clone(), |entry| NetnsHandle::new(entry.dev.netns)))
        })
    }

    /// Returns the hardware address of a device.
    #[rhai_fn(get = "mac", return_raw, pure)]
    pub fn dev_mac(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<String> {
        link(&ctx, dev).map(|link| link.mac.map_or(String::new(), |mac| mac.to_string()))
    }

    /// Returns the MTU of a device in bytes.
    #[rhai_fn(get = "mtu", return_raw, pure)]
    pub fn dev_mtu(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<i64> {
        link(&ctx, dev).map(|link| i64::from(link.mtu))
    }

    /// Returns the kind of a device in the kernel's word: `veth`, `bridge` …; empty for `lo` and hardware.
    #[rhai_fn(get = "kind", return_raw, pure)]
    pub fn dev_kind(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<String> {
        link(&ctx, dev).map(|link| link.kind.unwrap_or_default())
    }

    /// Returns the state of a device: `up`, `down` or `no carrier`.
    #[rhai_fn(get = "state", return_raw, pure)]
    pub fn dev_state(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<String> {
        link(&ctx, dev).map(|link| {
            match (link.up, link.carrier) {
                (true, true) => "up",
                (true, false) => "no carrier",
                (false, _) => "down",
            }
            .to_string()
        })
    }

    /// Returns the index of a device in its namespace.
    #[rhai_fn(get = "index", return_raw, pure)]
    pub fn dev_index(ctx: NativeCallContext, dev: &mut Dev) -> RhaiResultOf<i64> {
        link(&ctx, dev).map(|link| i64::from(link.index))
    }

    #[rhai_fn(global, name = "to_string", pure)]
    pub fn dev_text(dev: &mut Dev) -> String {
        dev.name.to_string()
    }

    #[rhai_fn(global, name = "to_debug", pure)]
    pub fn dev_debug(dev: &mut Dev) -> String {
        dev.to_string()
    }
}

fn ask_up(ctx: &NativeCallContext, dev: &Dev, up: bool) -> RhaiResultOf<()> {
    let place = place_of(ctx);
    with_lab(ctx, |lab| {
        let entry = dev.existing(lab)?;
        if !up {
            check_settable_down(lab, &entry.dev)?;
        }
        let peer = entry.peer.and_then(|no| lab.model().dev(no)).map(|peer| peer.dev.clone());
        lab.ask(SetUp { dev: entry.dev, up, before: None, peer, config: None }, place)
    })
}

/// Returns the kernel's view of a device.
fn link(ctx: &NativeCallContext, dev: &Dev) -> RhaiResultOf<net::Link> {
    with_lab(ctx, |lab| {
        let entry = dev.existing(lab)?;
        let doing = format!("look at {}", dev.shown());
        let get = |rtnl: &net::Netlink| net::link::get(rtnl, entry.dev.index);
        let link = handles::look(lab, &entry.dev.netns, &doing, get)?;
        link.ok_or_else(|| Error::new(Kind::Gone, doing).because("something else removed it"))
    })
}
