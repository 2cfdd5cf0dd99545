//! Devices: what any device in a namespace tells of itself, and how it is renamed, moved, and set up or down.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv6Network};
use rhai::plugin::*;
use serde::{Deserialize, Serialize};

use super::Group;
use super::context::{RhaiResultOf, place_of, with_lab};
use super::handles::{self, Dev, NetnsHandle};
use super::veth::{add_full_name, check_free, ip};
use crate::lab::{DevRef, Error, Kernel, Kind, Lab, Model, NetnsRef, OWNER_PROTOCOL, Result, Step, name};
use crate::net::{self, Change, Mac};
use crate::{step_identity, step_sort};

pub(super) const GROUP: Group = Group {
    name: "dev",
    about: "What any device can be asked, and its name, place and state.",
    module: || exported_module!(functions),
    steps: &[step_sort!("rename", RenameDev), step_sort!("move", MoveDev), step_sort!("up", SetUp)],
    options: &[],
};

/// Gives a device another name.
#[derive(Debug, Serialize, Deserialize)]
struct RenameDev {
    from: DevRef,
    to: DevRef,
}

impl Step for RenameDev {
    step_identity!("rename");

    fn doing(&self) -> String {
        format!("rename {} to `{}`", self.from.shown(), self.to.name)
    }

    fn like(&self) -> Vec<String> {
        vec![format!(
            "{} link set dev {} name {}",
            ip(&self.from.netns),
            name::kernel_name(&self.from.name),
            name::kernel_name(&self.to.name)
        )]
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.from.no, &self.from.shown())?;
        check_free(model, &self.to, &self.doing())?;
        model.relocate_dev(self.from.no, self.to.clone());
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.relocate_dev(self.from.no, self.from.clone());
    }

    fn hides_what_follows(&self) -> bool {
        !self.from.made
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        rename(kernel, &self.from, &self.to)?;
        add_full_name(kernel, &self.to)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        // A run that was cut short got anywhere between the changes, so each is taken back, made or not.
        let ours = [&self.from.name, &self.to.name].map(|name| name::kernel_name(name));
        // Under a third name, it is whoever gave it that.
        if !kernel.link(&self.to)?.is_some_and(|link| ours.contains(&link.name)) {
            return Ok(());
        }
        rename(kernel, &self.to, &self.from)?;
        match add_full_name(kernel, &self.from) {
            Err(error) if error.is_exists() => Ok(()),
            done => done,
        }
    }

    fn needs_finished(&self, _no: u32) -> bool {
        true
    }

    // Somebody else's device leaves the namespace under its own name.
    fn lives_in(&self) -> Vec<&NetnsRef> {
        if self.from.made { vec![&self.from.netns] } else { Vec::new() }
    }

    fn lives_on(&self) -> Option<&DevRef> {
        Some(&self.from)
    }
}

/// Takes the full name of `from` away and gives the device the name that the kernel has for `to`.
fn rename(kernel: &mut Kernel, from: &DevRef, to: &DevRef) -> net::Result<()> {
    let rtnl = kernel.rtnl(&from.netns)?;
    if name::kernel_name(&from.name) != from.name {
        match kernel.run(net::link::delete_altname(&rtnl, from.index, &from.name)) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    let new_name = name::kernel_name(&to.name);
    let rename = Change { name: Some(&new_name), ..Change::default() };
    match kernel.run(net::link::change(&rtnl, from.index, &rename)) {
        // Kernels before 6.2 rename only a device that is down.
        Err(error) if error.errno() == libc::EBUSY => {
            kernel.run(net::link::change(&rtnl, from.index, &Change { up: Some(false), ..Change::default() }))?;
            let both = Change { up: Some(true), ..rename };
            kernel.run(net::link::change(&rtnl, from.index, &both))?;
        }
        done => done?,
    }
    Ok(())
}

/// Moves a device into another namespace.
#[derive(Debug, Serialize, Deserialize)]
struct MoveDev {
    from: DevRef,
    to: DevRef,
    up: bool,
    /// The settings of somebody else's device, which the kernel makes anew wherever it comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    settings: Vec<(String, String)>,
}

impl Step for MoveDev {
    step_identity!("move");

    fn doing(&self) -> String {
        format!("move {} to netns `{}`", self.from.shown(), self.to.netns.name)
    }

    fn like(&self) -> Vec<String> {
        let short = name::kernel_name(&self.from.name);
        vec![
            format!("{} link set dev {short} netns {}", ip(&self.from.netns), self.to.netns.name),
            format!("{} link set dev {short} up", ip(&self.to.netns)),
        ]
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.from.no, &self.from.shown())?;
        model.living_netns(&self.to.netns)?;
        check_free(model, &self.to, &self.doing())?;
        model.set_controller(self.from.no, None);
        model.relocate_dev(self.from.no, self.to.clone());
        if let Some(entry) = model.dev_mut(self.to.no) {
            // The kernel drops them with the move.
            entry.addresses.clear();
        }
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.relocate_dev(self.from.no, self.from.clone());
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if !self.from.made && !self.from.netns.made {
            self.settings =
                super::sysctl::of_dev(&kernel.netns(&self.from.netns)?, &name::kernel_name(&self.from.name))?;
        }
        Ok(())
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        move_dev(kernel, &self.from, &self.to, self.up)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if kernel.link(&self.to)?.is_some() {
            move_dev(kernel, &self.to, &self.from, self.up)?;
        } else {
            // An undo that was cut short had moved it back, which sets it down, and no more.
            match kernel.link(&self.from)? {
                Some(link) if self.up && !link.up => set_up(kernel, &self.from, true)?,
                Some(_) => {}
                None => return Ok(()),
            }
        }
        super::sysctl::restore(&kernel.netns(&self.from.netns)?, &self.settings)
    }

    fn needs_finished(&self, _no: u32) -> bool {
        true
    }

    // A device that the lab made goes with the namespace that it is in. Another one is fetched back first: the kernel
    // would destroy a virtual one.
    fn lives_in(&self) -> Vec<&NetnsRef> {
        if self.from.made { vec![&self.to.netns] } else { Vec::new() }
    }

    fn holds_netns(&self) -> Option<&NetnsRef> {
        (!self.from.made).then_some(&self.to.netns)
    }
}

fn move_dev(kernel: &mut Kernel, from: &DevRef, to: &DevRef, up: bool) -> net::Result<()> {
    let target = kernel.netns(&to.netns)?;
    let rtnl = kernel.rtnl(&from.netns)?;
    let change = Change { netns: Some(&target), new_index: Some(to.index), ..Change::default() };
    kernel.run(net::link::change(&rtnl, from.index, &change))?;
    if up { set_up(kernel, to, true) } else { Ok(()) }
}

/// Sets a device up or down.
#[derive(Debug, Serialize, Deserialize)]
struct SetUp {
    dev: DevRef,
    up: bool,
    before: Option<bool>,
}

impl Step for SetUp {
    step_identity!("up");

    fn doing(&self) -> String {
        format!("set {} {}", self.dev.shown(), if self.up { "up" } else { "down" })
    }

    fn like(&self) -> Vec<String> {
        let state = if self.up { "up" } else { "down" };
        vec![format!("{} link set dev {} {state}", ip(&self.dev.netns), name::kernel_name(&self.dev.name))]
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.dev.no, &self.dev.shown()).map(|_| ())
    }

    fn unplan(&self, _model: &mut Model, _why: &str) {}

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if !self.dev.made && !self.dev.netns.made {
            self.before = kernel.link(&self.dev)?.map(|link| link.up);
        }
        Ok(())
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        set_up(kernel, &self.dev, self.up)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        match (self.before, kernel.link(&self.dev)?) {
            (Some(before), Some(link)) if link.up == self.up && before != self.up => set_up(kernel, &self.dev, before),
            _ => Ok(()),
        }
    }

    fn needs_finished(&self, _no: u32) -> bool {
        true
    }

    fn lives_in(&self) -> Vec<&NetnsRef> {
        vec![&self.dev.netns]
    }

    fn lives_on(&self) -> Option<&DevRef> {
        Some(&self.dev)
    }
}

/// Gives a device that is about to come up the link-local address that the kernel would give it, but without duplicate
/// address detection. That takes a second or two, in which a router asks for no neighbour and drops what it should forward
/// (net/ipv6/ndisc.c, ndisc_send_ns); `tests/suite/route.rhai` shows it. The kernel then finds the address there.
pub(super) fn add_link_local(kernel: &mut Kernel, dev: &DevRef) -> net::Result<()> {
    let Some(mac) = dev.mac.filter(|_| dev.made) else { return Ok(()) };
    let rtnl = kernel.rtnl(&dev.netns)?;
    let options = net::AddrOptions { protocol: OWNER_PROTOCOL, nodad: true, peer: None };
    match kernel.run(net::addr::add(&rtnl, dev.index, link_local(mac), &options)) {
        // Without IPv6, in the kernel or on the device, there is nothing to be ready for.
        Err(error)
            if error.is_exists() || error.is_unsupported() || error.is_denied() || error.errno() == libc::EINVAL =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Returns the link-local address that a hardware address makes.
fn link_local(mac: Mac) -> IpNetwork {
    let ip = mac.link_local();
    // A prefix length of 64 is one that every IPv6 address can have.
    Ipv6Network::new(ip, 64).map_or_else(|_| IpNetwork::from(IpAddr::V6(ip)), IpNetwork::V6)
}

fn set_up(kernel: &mut Kernel, dev: &DevRef, up: bool) -> net::Result<()> {
    if up {
        add_link_local(kernel, dev)?;
    }
    let rtnl = kernel.rtnl(&dev.netns)?;
    kernel.run(net::link::change(&rtnl, dev.index, &Change { up: Some(up), ..Change::default() }))
}

/// What hangs on a device of somebody else's, and what a change of it would take away for good.
pub(super) struct Carried {
    /// The device as the kernel has it.
    pub link: net::Link,
    /// Its addresses, for a message.
    pub addresses: Vec<String>,
    /// What it loses when it goes down: IPv6 addresses, routes and fixed neighbours.
    lost_when_down: Vec<String>,
}

/// Looks at what somebody else's device carries. What labs put there is theirs to lose, and what the kernel or a router's
/// advertisement put there comes back by itself.
pub(super) fn carried(lab: &mut Lab, dev: &DevRef, doing: &str) -> Result<Carried> {
    const BY_ITSELF: [u8; 4] = [1, 2, 9, OWNER_PROTOCOL]; // RTPROT_REDIRECT, _KERNEL, _RA of rtnetlink(7)
    let ask = async |rtnl: &net::Rtnl| {
        let (link, addresses) = (net::link::get(rtnl, dev.index).await?, net::addr::list(rtnl).await?);
        Ok((link, addresses, net::route::list(rtnl).await?, net::neigh::list(rtnl).await?))
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
    Ok(Carried { link, addresses, lost_when_down: lost })
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
    let Carried { link, addresses, lost_when_down } = carried(lab, dev, doing)?;
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
    let kept = carried(lab, dev, &doing)?.lost_when_down;
    if kept.is_empty() { Ok(()) } else { Err(denied(&doing, &kept, "going down")) }
}

/// What a script can call.
#[export_module]
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
            handles::load(lab, &from.netns)?;
            let to = DevRef { name: new_name.to_string(), ..from.clone() };
            lab.ask(RenameDev { from, to }, place)
        })?;
        Ok(dev)
    }

    /// Moves a device into another namespace, where it comes up; the kernel drops its addresses. A pair that `veth` makes in
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
            handles::load(lab, &target)?;
            let up = check_movable(lab, &from, &format!("move {} to netns `{}`", from.shown(), target.name))?;
            let index = lab.model().next_index(target.no);
            let to = DevRef { netns: target, index, ..from.clone() };
            lab.ask(MoveDev { from, to, up, settings: Vec::new() }, place)
        })?;
        Ok(dev)
    }

    /// Sets a device up.
    ///
    /// Like `ip link set dev DEV up`.
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

    /// Sets a device down: its routes go, and what is at the other end of the cable loses its carrier.
    ///
    /// Like `ip link set dev DEV down`.
    ///
    /// Fails with `missing` where there is no such device, and with `denied` for one that the lab did not make and that
    /// would lose IPv6 addresses, routes or fixed neighbours.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// host["up0"].down();
    /// assert(h["eth0"].state == "no carrier");
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
            let prefix = lab.state().mark_prefix();
            let owner = link.alias.as_deref().and_then(|alias| alias.strip_prefix(prefix.as_str()));
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
        lab.ask(SetUp { dev: entry.dev, up, before: None }, place)
    })
}

/// Returns the kernel's view of a device.
fn link(ctx: &NativeCallContext, dev: &Dev) -> RhaiResultOf<net::Link> {
    with_lab(ctx, |lab| {
        let entry = dev.existing(lab)?;
        let doing = format!("look at {}", dev.shown());
        let get = async |rtnl: &net::Rtnl| net::link::get(rtnl, entry.dev.index).await;
        let link = handles::look(lab, &entry.dev.netns, &doing, get)?;
        link.ok_or_else(|| Error::new(Kind::Gone, doing).because("something else removed it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 4291, appendix A.
    #[test]
    fn a_link_local_address_is_made_of_the_hardware_address() {
        assert_eq!(link_local(Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde])).to_string(), "fe80::3656:78ff:fe9a:bcde/64");
    }
}
