//! Plugging in and out: a device into a bridge, a bond or a VRF.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::dev::config_at_risk;
use super::dev_change::{config_of, there};
use super::whole;
use crate::lab::{
    DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Slot, Step, StepSort, Unfinished, put_back, set_up,
};
use crate::net::{self, AddrOptions, Change, LinkConfig};
use crate::prim::iproute2::{ip, tool};
use crate::prim::value::handles::Dev;
use crate::state::{DevRef, Error, Kind, NetnsRef, Place, Result, name};

/// The most ports that a bridge has (net/bridge/br_private.h, BR_MAX_PORTS less port 0).
pub(super) const BRIDGE_PORTS_MAX: usize = 1023;

/// What a device is plugged into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Into {
    #[default]
    Bridge,
    Bond,
    Vrf,
}

impl Into {
    fn of_kind(kind: &str) -> Option<Into> {
        match kind {
            "bridge" => Some(Into::Bridge),
            "bond" => Some(Into::Bond),
            "vrf" => Some(Into::Vrf),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Into::Bridge => "bridge",
            Into::Bond => "bond",
            Into::Vrf => "vrf",
        }
    }
}

/// What a port of a bridge is set to; what is not given is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PortSettings {
    #[serde(flatten)]
    pub options: net::PortOptions,
    /// The VLANs that it is in, and it is in no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlans: Option<net::PortVlans>,
}

impl PortSettings {
    /// Returns the commands that set the port `dev`, or with `own` the bridge's own part, to it.
    pub fn like(&self, dev: &DevRef, own: bool) -> Vec<String> {
        let short = name::kernel_name(&dev.name);
        let mut like = Vec::new();
        if self.options != net::PortOptions::default() {
            like.push(format!("{} link set dev {short} type bridge_slave {}", ip(&dev.netns), self.options.like()));
        }
        let bridge = tool("bridge", &dev.netns);
        let target = if own { " self" } else { "" };
        let vlans = self.vlans.iter().flat_map(net::PortVlans::words);
        like.extend(vlans.map(|words| format!("{bridge} vlan add dev {short} {words}{target}")));
        like.extend(
            self.vlans
                .iter()
                .flat_map(net::PortVlans::words_of_others)
                .map(|words| format!("{bridge} vlan del dev {short} {words}{target}")),
        );
        like
    }

    /// Sets the port `dev`, or with `own` the bridge's own part, to it.
    pub fn apply(&self, kernel: &mut Kernel, dev: &DevRef, own: bool) -> net::Result<()> {
        let rtnl = kernel.rtnl(&dev.netns)?;
        if self.options != net::PortOptions::default() {
            net::link::bridge::set_port(&rtnl, dev.index, &self.options)?;
        }
        match &self.vlans {
            Some(vlans) => net::link::port_vlan::set(&rtnl, dev.index, own, vlans),
            None => Ok(()),
        }
    }

    /// Reads what a port, or a bridge's own part, is set to.
    pub fn of(kernel: &mut Kernel, dev: &DevRef, link: &net::Link) -> net::Result<PortSettings> {
        let vlans = kernel.once(&dev.netns, "", |kernel| {
            let rtnl = kernel.rtnl(&dev.netns)?;
            net::link::port_vlan::list(&rtnl)
        })?;
        let options = link.port.as_ref().map(|port| port.options.clone()).unwrap_or_default();
        Ok(PortSettings { options, vlans: Some(net::PortVlans::of(&vlans, link.index)) })
    }

    /// Returns of this what `other` has as well.
    pub fn of_those_in(&self, other: &PortSettings) -> PortSettings {
        let vlans = self.vlans.clone().filter(|_| other.vlans.is_some());
        PortSettings { options: self.options.of_those_in(&other.options), vlans }
    }

    /// Sets a port that was plugged in again to what it was before, as far as it isn't.
    fn restore(&self, kernel: &mut Kernel, port: &DevRef) -> net::Result<()> {
        let Some(link) = kernel.link(port)? else { return Ok(()) };
        let now = PortSettings::of(kernel, port, &link)?;
        let options = self.options.unlike(&now.options);
        let vlans = self.vlans.clone().filter(|_| self.vlans != now.vlans);
        PortSettings { options, vlans }.apply(kernel, port, false)
    }

    /// Returns what of a port, or with `own` of the bridge's own part, this sets.
    pub fn slots(&self, no: u32, own: bool) -> Vec<Slot> {
        let part = if own { "own" } else { "port" };
        let words = self.options.given().into_iter().chain(self.vlans.is_some().then(|| "vlans".into()));
        words.map(|word| (no, format!("{part} {word}").into())).collect()
    }

    /// Returns what of this no later step of the lab sets anew.
    fn of_this_step(&self, lab: Outcome<'_>, no: u32, own: bool) -> PortSettings {
        let part = if own { "own" } else { "port" };
        let is_last = |word: &str| lab.is_last(&(no, format!("{part} {word}").into()));
        let vlans = self.vlans.clone().filter(|_| is_last("vlans"));
        PortSettings { options: self.options.only(is_last), vlans }
    }

    /// Tells whether a port is set so; one that is no port any more is not asked for.
    pub fn are_held(&self, kernel: &mut Kernel, lab: Outcome<'_>, dev: &DevRef, own: bool) -> net::Result<bool> {
        let wanted = self.of_this_step(lab, dev.no, own);
        let found = whole::there(kernel, lab, dev)?.filter(|(_, link)| own || link.port.is_some());
        let Some((dev, link)) = found.filter(|_| wanted != PortSettings::default()) else { return Ok(true) };
        Ok(PortSettings::of(kernel, &dev, &link)?.of_those_in(&wanted) == wanted)
    }

    /// Sets a port so again.
    pub fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>, dev: &DevRef, own: bool) -> net::Result<()> {
        let Some((now, _)) = whole::there(kernel, lab, dev)? else { return Ok(()) };
        self.of_this_step(lab, dev.no, own).apply(kernel, &now, own)
    }

    /// Says what the kernel lacks, where it refuses VLANs.
    pub fn advice(&self, refusal: &net::Error) -> Option<String> {
        (self.vlans.is_some() && refusal.is_unsupported()).then(|| NO_VLANS.to_string())
    }
}

/// What a kernel without VLANs in its bridges lacks.
pub(super) const NO_VLANS: &str =
    "this kernel's bridges can't keep VLANs apart: it lacks CONFIG_BRIDGE_VLAN_FILTERING, of the module `bridge`";

/// Plugs a device into a bridge, a bond or a VRF, or out of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Attach {
    port: DevRef,
    /// What it is plugged into, where it is not plugged out.
    bridge: Option<DevRef>,
    /// What it was plugged into before.
    before: Option<DevRef>,
    /// What either is.
    #[serde(default)]
    kind: Into,
    #[serde(default)]
    settings: PortSettings,
    /// What a port of a bond or a VRF had, and whether it was up: it loses both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was: Option<Was>,
    /// What a port that is plugged out of a bridge was set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    was_set: Option<PortSettings>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Was {
    up: bool,
    config: LinkConfig,
}

impl Attach {
    /// Plugs `port` out of or into `controller`. A bond takes only a device that is down, and sets it up. A VRF sets it down and
    /// up again, in which it would lose its IPv6 addresses (cycle_netdev in drivers/net/vrf.c) and get a link-local one that
    /// works only a second later: so that is done here.
    fn plug(&self, kernel: &mut Kernel, controller: Option<u32>) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.port.netns)?;
        let index = self.port.index;
        let change = Change { controller: Some(controller), ..Change::default() };
        match self.kind {
            Into::Bridge => net::link::change(&rtnl, index, &change),
            Into::Bond => {
                let down = Change { up: Some(false), ..Change::default() };
                net::link::change(&rtnl, index, &down)?;
                net::link::change(&rtnl, index, &change)
            }
            Into::Vrf => {
                let before = v6_addresses(&rtnl, index)?;
                let up = net::link::get(&rtnl, index)?.is_some_and(|link| link.up);
                let down = Change { up: Some(false), ..change };
                net::link::change(&rtnl, index, &down)?;
                for one in before {
                    let options = AddrOptions { protocol: one.protocol, nodad: true, peer: one.peer };
                    match net::ip::addr::add(&rtnl, index, one.net, &options) {
                        Err(error) if error.is_exists() => {}
                        done => done?,
                    }
                }
                if up { set_up(kernel, &self.port, true) } else { Ok(()) }
            }
        }
    }
}

impl Attach {
    /// Tells whether the port is where this step plugged it, as far as no later step changed that.
    fn is_plugged(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        if !lab.is_last(&whole::slot(self.port.no, "controller")) {
            return Ok(true);
        }
        let Some((_, link)) = whole::there(kernel, lab, &self.port)? else { return Ok(true) };
        match &self.bridge {
            // A bridge that is gone has no ports: the step that made it answers for it.
            Some(bridge) => Ok(kernel.link(bridge)?.is_none_or(|bridge| link.controller == Some(bridge.index))),
            None => Ok(link.controller.is_none()),
        }
    }
}

fn v6_addresses(rtnl: &net::Netlink, index: u32) -> net::Result<Vec<net::Address>> {
    let all = net::ip::addr::list(rtnl)?;
    Ok(all.into_iter().filter(|one| one.index == index && matches!(one.net, IpNetwork::V6(_))).collect())
}

impl StepSort for Attach {
    const WORD: &'static str = "attach";
}

impl Step for Attach {
    fn doing(&self) -> String {
        match &self.bridge {
            Some(bridge) => format!("attach {} to {} {}", self.port.shown(), self.kind.word(), bridge.shown()),
            None => format!("detach {}", self.port.shown()),
        }
    }

    fn like(&self) -> Vec<String> {
        let (ip, port) = (ip(&self.port.netns), name::kernel_name(&self.port.name));
        let down = if self.kind == Into::Bond { " down" } else { "" };
        let Some(bridge) = &self.bridge else {
            let up = if self.kind == Into::Bond { " up" } else { "" };
            return vec![format!("{ip} link set dev {port} nomaster{up}")];
        };
        let mut like = vec![format!("{ip} link set dev {port}{down} master {}", name::kernel_name(&bridge.name))];
        like.extend(self.settings.like(&self.port, false));
        like
    }

    fn footprint(&self) -> Footprint<'_> {
        let mut slots = self.settings.slots(self.port.no, false);
        slots.push(whole::slot(self.port.no, "controller"));
        Footprint {
            lives_in: vec![&self.port.netns],
            lives_on: match &self.bridge {
                // The end of a bond or a VRF leaves its ports down, or without their IPv6 addresses.
                Some(_) if self.kind != Into::Bridge && !self.port.made => None,
                Some(bridge) if bridge.made => Some(bridge),
                Some(_) => None,
                None => Some(&self.port),
            },
            sets: slots,
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.port.no, &self.port.shown())?;
        if let Some(bridge) = &self.bridge {
            let entry = model.living_dev(bridge.no, &bridge.shown())?;
            if self.kind == Into::Bridge && entry.ports >= BRIDGE_PORTS_MAX {
                return Err(Error::invalid(self.doing())
                    .because(format!("the bridge has {BRIDGE_PORTS_MAX} ports, the most the kernel allows")));
            }
        }
        model.set_controller(self.port.no, self.bridge.as_ref().map(|bridge| bridge.no));
        if let Some(entry) = model.dev_mut(self.port.no) {
            entry.in_vlans = self.settings.vlans.is_some();
        }
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.set_controller(self.port.no, self.before.as_ref().map(|bridge| bridge.no));
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if !kernel.must_remember(self.port.made || self.port.netns.made) {
            return Ok(());
        }
        let Some(link) = there(kernel, &self.port)? else { return Ok(()) };
        if self.kind != Into::Bridge {
            self.was = Some(Was { up: link.up, config: config_of(kernel, &self.port, &link)? });
        } else if self.bridge.is_none() {
            self.was_set = Some(PortSettings::of(kernel, &self.port, &link)?);
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            self.plug(kernel, self.bridge.as_ref().map(|bridge| bridge.index))?;
            // As a port of a bond it was up, whose end sets it down.
            if self.kind == Into::Bond && self.bridge.is_none() {
                set_up(kernel, &self.port, true)?;
            }
            self.settings.apply(kernel, &self.port, false)
        })
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        self.settings.advice(refusal)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(link) = kernel.link(&self.port)? else { return Ok(()) };
        let asked = self.bridge.as_ref().map(|bridge| bridge.index);
        let before = match &self.before {
            Some(before) => kernel.link(before)?.map(|link| link.index),
            None => None,
        };
        if link.controller == asked && asked != before {
            self.plug(kernel, before)?;
        } else if link.controller != before || self.was.is_none() {
            // Somebody else may have plugged it elsewhere since.
            return Ok(());
        }
        if let Some(was) = &self.was {
            // A bond sets its ports up.
            let up = was.up || self.kind == Into::Bond && before.is_some();
            if kernel.link(&self.port)?.is_some_and(|link| link.up != up) {
                set_up(kernel, &self.port, up)?;
            }
            put_back(kernel, &self.port, &was.config)?;
        }
        if let Some(set) = &self.was_set {
            set.restore(kernel, &self.port)?;
        }
        self.bridge.iter().try_for_each(|bridge| restore_mac(kernel, bridge))
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let plugged = self.is_plugged(kernel, lab)?;
        Ok(plugged && self.settings.are_held(kernel, lab, &self.port, false)?)
    }

    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        if !self.is_plugged(kernel, lab)? {
            let taken = kernel.link(&self.port)?.is_some_and(|link| link.controller.is_some());
            if taken && !self.port.made && self.bridge.is_some() {
                let text = "it is a port of another device now, and the lab did not make it";
                return Err(net::Error::because(self.doing(), libc::EEXIST, text));
            }
            self.plug(kernel, self.bridge.as_ref().map(|bridge| bridge.index))?;
        }
        self.settings.mend(kernel, lab, &self.port, false)
    }
}

/// Finds what `dev` names, which things can be plugged into.
pub(super) fn controller_of(lab: &mut Lab, dev: &Dev, doing: &str) -> Result<DevEntry> {
    let entry = dev.existing(lab)?;
    if Into::of_kind(&entry.kind).is_some() {
        return Ok(entry);
    }
    let kind = if entry.kind.is_empty() { "no virtual device" } else { &entry.kind };
    let because = format!("{} is not a bridge: its kind is {kind}", dev.shown());
    Err(Error::invalid(doing).because(because).hint("bridges, bonds and VRFs have ports"))
}

/// Checks that a device can become a port of something in the namespace of its own.
pub(super) fn check_free_port(lab: &mut Lab, port: &DevEntry, doing: &str) -> Result<()> {
    let Some(controller) = port.controller else { return Ok(()) };
    let what = lab.model().dev(controller).map_or("bridge".to_string(), |dev| dev.kind.to_string());
    Err(Error::new(Kind::Exists, doing)
        .because(format!("{} is a port of a {what} already", port.dev.shown()))
        .hint("`detach` it first"))
}

/// Checks that a device can become a port of a bond in `netns`.
pub(super) fn check_bondable(lab: &mut Lab, port: &DevEntry, netns: &NetnsRef, doing: &str) -> Result<()> {
    let shown = port.dev.shown();
    if port.dev.netns.no != netns.no {
        return Err(Error::invalid(doing).because(format!("{shown} is in another namespace than the bond")));
    }
    check_free_port(lab, port, doing)?;
    if matches!(&*port.kind, "bond" | "vrf") || port.dev.name == "lo" {
        return Err(Error::invalid(doing).because(format!("{shown} can't be a part of a bond")));
    }
    check_not_needed(lab, &port.dev, doing)
}

/// Refuses to take from somebody else's device what it is reached by.
pub(super) fn check_not_needed(lab: &mut Lab, port: &DevRef, doing: &str) -> Result<()> {
    if port.made {
        return Ok(());
    }
    let found = config_at_risk(lab, port, doing)?;
    if found.link.controller.is_some() {
        return Err(Error::new(Kind::Exists, doing)
            .because(format!("{} is a port of something already, by somebody else", port.shown())));
    }
    if found.addresses.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Denied, doing).because(format!(
        "{} has {}, which it would not be reached by any more, and the lab did not make it",
        port.shown(),
        found.addresses.join(", ")
    )))
}

/// Asks for a device to be plugged in.
pub(super) fn ask(
    lab: &mut Lab,
    controller: &DevEntry,
    port: DevRef,
    settings: PortSettings,
    place: Place,
) -> Result<()> {
    let kind = Into::of_kind(&controller.kind).unwrap_or_default();
    let bridge = Some(controller.dev.clone());
    lab.ask(Attach { port, bridge, before: None, kind, settings, was: None, was_set: None }, place)
}

/// Asks for a device to be plugged out.
pub(super) fn ask_out(lab: &mut Lab, controller: &DevEntry, port: DevRef, place: Place) -> Result<()> {
    let kind = Into::of_kind(&controller.kind).unwrap_or_default();
    let before = Some(controller.dev.clone());
    lab.ask(
        Attach { port, bridge: None, before, kind, settings: PortSettings::default(), was: None, was_set: None },
        place,
    )
}

/// Gives somebody else's bridge the hardware address back that it had: one that was never set is that of a port, and changes
/// as ports come and go (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
pub(super) fn restore_mac(kernel: &mut Kernel, bridge: &DevRef) -> net::Result<()> {
    let now = if bridge.made { None } else { kernel.link(bridge)? };
    if bridge.mac.is_none() || now.is_none_or(|link| link.mac == bridge.mac) {
        return Ok(());
    }
    let rtnl = kernel.rtnl(&bridge.netns)?;
    net::link::change(&rtnl, bridge.index, &Change { mac: bridge.mac, ..Change::default() })
}
