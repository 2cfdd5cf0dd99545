//! Plugs in the device that a namespace is reached by. The bridge takes over its hardware address, addresses and routes, and gives
//! them back at the end.

use serde::{Deserialize, Serialize};

use super::attach::PortSettings;
use super::dev::config_at_risk;
use super::whole;
use crate::lab::{DevEntry, Footprint, Kernel, Lab, Model, OWNER_PROTOCOL, Op, Outcome, Step, StepSort, Unfinished};
use crate::net::{self, Change, LinkConfig};
use crate::prim::iproute2::ip;
use crate::prim::value::handles;
use crate::state::{DevRef, Error, Kind, Result, name};

/// Plugs somebody else's device into a bridge of the lab's and moves its addresses and routes there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TakeOver {
    pub(in crate::prim) port: DevRef,
    pub(in crate::prim) bridge: DevRef,
    #[serde(default)]
    pub(in crate::prim) settings: PortSettings,
    /// What the device had before, once it was looked at.
    pub(super) config: Option<LinkConfig>,
}

impl TakeOver {
    /// Returns the commands that give the device `to` all of it, and those that take it from `from`.
    fn like_moved(&self, config: &LinkConfig, to: &DevRef, from: &DevRef) -> Vec<String> {
        let ip = ip(&self.port.netns);
        let routes: Vec<net::Route> =
            config.routes().into_iter().filter(|route| route.protocol != net::ip::route::BY_KERNEL).collect();
        let address = |what: &str, address: &net::Address, dev: &DevRef| {
            let peer = address.peer.map_or(String::new(), |peer| format!(" peer {peer}"));
            format!("{ip} addr {what} {}{peer} dev {}", address.net, name::kernel_name(&dev.name))
        };
        let route = |what: &str, route: &net::Route, dev: &DevRef| {
            let family = if route.dst.is_ipv6() { " -6" } else { "" };
            let here = |index| (index == self.port.index).then(|| name::kernel_name(&dev.name));
            format!("{ip}{family} route {what} {}", route.shown(&here))
        };
        let mut like: Vec<String> = config.addresses().iter().map(|one| address("add", one, to)).collect();
        like.extend(routes.iter().map(|one| route("append", one, to)));
        like.extend(routes.iter().rev().map(|one| route("del", one, from)));
        like.extend(config.addresses().iter().rev().map(|one| address("del", one, from)));
        like
    }
}

impl StepSort for TakeOver {
    const WORD: &'static str = "take-over";
}

impl Step for TakeOver {
    fn doing(&self) -> String {
        format!("attach {} to bridge {} with its addresses and routes", self.port.shown(), self.bridge.shown())
    }

    fn like(&self) -> Vec<String> {
        let (ip, port) = (ip(&self.port.netns), name::kernel_name(&self.port.name));
        let bridge = name::kernel_name(&self.bridge.name);
        let mac = self.port.mac.map(|mac| format!("{ip} link set dev {bridge} address {mac}"));
        let mut like: Vec<String> = mac.into_iter().collect();
        like.push(format!("{ip} link set dev {port} master {bridge}"));
        like.extend(self.settings.like(&self.port, false));
        like.extend(self.config.iter().flat_map(|config| self.like_moved(config, &self.bridge, &self.port)));
        like
    }

    fn footprint(&self) -> Footprint<'_> {
        let mut slots = self.settings.slots(self.port.no, false);
        slots.extend([whole::slot(self.port.no, "controller"), whole::slot(self.bridge.no, "mac")]);
        Footprint {
            lives_in: vec![&self.port.netns],
            sets: slots,
            // The bridge must be up.
            waits_for: Unfinished::In(&self.port.netns),
            hides_what_follows: true,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.port.no, &self.port.shown())?;
        model.living_dev(self.bridge.no, &self.bridge.shown())?;
        model.set_controller(self.port.no, Some(self.bridge.no));
        if let Some(entry) = model.dev_mut(self.port.no) {
            entry.taken_over = true;
        }
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.set_controller(self.port.no, None);
        if let Some(entry) = model.dev_mut(self.port.no) {
            entry.taken_over = false;
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        let link = kernel.link(&self.port)?.ok_or_else(|| net::Error::new(self.doing(), libc::ENODEV))?;
        let rtnl = kernel.rtnl(&self.port.netns)?;
        self.config = Some(LinkConfig::of(&rtnl, &link)?);
        Ok(())
    }

    // What comes in by the port is the bridge's from the moment it is one, and the bridge takes it for the host, since it has
    // the host's hardware address. What goes out may still leave by the port. So first it becomes one, then everything is on
    // both, then on the bridge alone: a packet may be lost, a connection is not.
    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let gone = || net::Error::new(self.doing(), libc::ENODEV);
            let config = self.config.as_ref().ok_or_else(gone)?;
            let port = kernel.link(&self.port)?.ok_or_else(gone)?;
            let bridge = kernel.link(&self.bridge)?.ok_or_else(gone)?;
            let (netns, rtnl) = (kernel.netns(&self.port.netns)?, kernel.rtnl(&self.port.netns)?);
            net::link::change(&rtnl, bridge.index, &Change { mac: port.mac, ..Change::default() })?;
            let controller = Some(Some(bridge.index));
            net::link::change(&rtnl, port.index, &Change { controller, ..Change::default() })?;
            self.settings.apply(kernel, &self.port, false)?;
            config.put_on(&rtnl, &bridge, None)?;
            kernel.run(config.wait_working(&netns, &rtnl, &bridge))?;
            config.take_off(&rtnl, &port)
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let (Some(config), Some(port)) = (&self.config, kernel.link(&self.port)?) else { return Ok(()) };
        let bridge = kernel.link(&self.bridge)?;
        let (netns, rtnl) = (kernel.netns(&self.port.netns)?, kernel.rtnl(&self.port.netns)?);
        let Some(bridge) = bridge else {
            // Somebody removed it, and what the host was reached by with it.
            return config.put_on(&rtnl, &port, None);
        };
        let plugged = port.controller == Some(bridge.index);
        // The hardware address is the first thing to change and the last to change back.
        if !plugged && bridge.mac != port.mac {
            return Ok(());
        }
        // All of it, even if something fails: what is given back is given back.
        let mut first = config.put_on(&rtnl, &port, Some(bridge.index));
        first = first.and(kernel.run(config.wait_working(&netns, &rtnl, &port)));
        first = first.and(config.take_off(&rtnl, &bridge));
        if plugged {
            let out = Change { controller: Some(None), ..Change::default() };
            first = first.and(net::link::change(&rtnl, port.index, &out));
        }
        first?;
        net::link::change(&rtnl, bridge.index, &Change { mac: self.bridge.mac, ..Change::default() })
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let (Some((_, port)), Some((_, bridge))) =
            (whole::there(kernel, lab, &self.port)?, whole::there(kernel, lab, &self.bridge)?)
        else {
            return Ok(true);
        };
        let plugged = port.controller == Some(bridge.index) && port.mac == bridge.mac;
        Ok(plugged && self.settings.are_held(kernel, lab, &self.port, false)?)
    }

    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        kernel.make(self)
    }
}

/// Refuses to cut a namespace off: as a port, a device of somebody else's is not reached at its addresses any more, and its
/// routes lead nowhere. Tells whether it has any, which `take_over` allows to move to the bridge.
pub(in crate::prim) fn check(
    lab: &mut Lab,
    bridge: &DevEntry,
    port: &DevRef,
    take_over: bool,
    doing: &str,
) -> Result<bool> {
    if port.made {
        let because = "this lab made it, so there is nothing of others to take over";
        let refused = Error::invalid(doing).because(because).hint("give the addresses to the bridge");
        return if take_over { Err(refused) } else { Ok(false) };
    }
    let found = config_at_risk(lab, port, doing)?;
    if found.link.controller.is_some() {
        return Err(Error::new(Kind::Exists, doing).because("it is a port of a bridge already, by somebody else"));
    }
    let config = handles::look(lab, &port.netns, doing, |rtnl| {
        let routes = net::ip::route::list(rtnl)?;
        let default = routes.into_iter().find(|route| route.dst.prefix() == 0 && route.uses(port.index));
        Ok((default, if take_over { Some(LinkConfig::of(rtnl, &found.link)?) } else { None }))
    });
    let (default, config) = config?;
    if default.is_none() && found.addresses.is_empty() {
        return Ok(false);
    }
    let netns = &port.netns.name;
    let Some(config) = config else {
        let here = |index| (index == port.index).then(|| port.name.clone());
        let route = default.map(|route| format!("the default route of `{netns}`, `{}`", route.shown(&here)));
        let all: Vec<String> = route.into_iter().chain(found.addresses).collect();
        return Err(Error::invalid(doing)
            .because(format!(
                "it has {}, which a port of a bridge can't use: `{netns}` would be cut off",
                all.join(", ")
            ))
            .hint("`take_over: true` moves its addresses and routes to the bridge, and back in the end"));
    };
    check_bridge(lab, bridge, doing)?;
    let of_labs = config.addresses().iter().any(|address| address.protocol == OWNER_PROTOCOL)
        || config.routes().iter().any(|route| route.protocol == OWNER_PROTOCOL)
        || config.neighbours().iter().any(|neighbour| neighbour.protocol == OWNER_PROTOCOL);
    if of_labs {
        return Err(Error::invalid(doing)
            .because("a lab gave it an address, a route or a neighbour, which would outlast that lab")
            .hint("attach it first, and give them to the bridge"));
    }
    Ok(true)
}

/// Checks that a bridge can take over a device's addresses and routes.
fn check_bridge(lab: &mut Lab, bridge: &DevEntry, doing: &str) -> Result<()> {
    let shown = bridge.dev.shown();
    if !bridge.dev.made {
        return Err(Error::invalid(doing)
            .because(format!("{shown} is not this lab's, and would get another hardware address"))
            .hint("`bridge` makes one"));
    }
    if lab.model().all_devs().any(|dev| dev.taken_over && dev.controller == Some(bridge.dev.no)) {
        return Err(Error::invalid(doing).because(format!("{shown} has another device's addresses already")));
    }
    let index = bridge.dev.index;
    let link = handles::look(lab, &bridge.dev.netns, doing, |rtnl| net::link::get(rtnl, index))?;
    if link.is_some_and(|link| link.up) {
        return Ok(());
    }
    Err(Error::invalid(doing).because(format!("{shown} is down: nothing would be reached over it")))
}
