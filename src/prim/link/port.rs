//! Ports of bridges: what they are set to, and the VLANs that they are in.

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::attach::PortSettings;
use super::dev_change::there;
use crate::lab::{DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort, Unfinished};
use crate::net::{self, PortVlans};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::{self, Dev};
use crate::prim::value::options::options;
use crate::prim::value::units::{Cost, FromScript, PortPriority, VlanId, VlanIds};
use crate::state::{DevRef, Error, Result};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "port",
    about: "What ports of bridges are set to, and the VLANs that they are in.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(SetPort)],
    options: &[PortOptions::SET],
};

/// Declares the options of a port, and more for a function that has more.
macro_rules! port_options {
    ($(#[doc = $about:literal])+ $name:ident of $function:literal { $( $(#[doc = $doc:literal])+ $field:ident : $type:ty, )* }) => {
        options! {
            $(#[doc = $about])+
            pub struct $name of $function {
                /// The VLAN of frames that come in without a tag, and whose frames leave without one: that of what is plugged in and
                /// knows no VLANs. Once any of `pvid`, `tagged` and `untagged` is given, the port is in those VLANs alone.
                pvid: VlanId,
                /// VLANs whose frames leave with their tag, as over a cable to another bridge.
                tagged: VlanIds,
                /// VLANs whose frames leave without a tag, besides that of `pvid`.
                untagged: VlanIds,
                /// Whether it can't talk to other isolated ports of the bridge; false unless given.
                isolated: bool,
                /// Whether a frame may leave by the port that it came in; false unless given.
                hairpin: bool,
                /// Whether the bridge learns hardware addresses from it; true unless given.
                learning: bool,
                /// Whether frames to unknown addresses are sent to it; true unless given.
                flood: bool,
                /// Whether frames to groups that nobody asked for are sent to it; true unless given.
                mcast_flood: bool,
                /// Whether broadcasts are sent to it; true unless given.
                bcast_flood: bool,
                /// Whether it shuts when what is plugged in speaks the spanning tree protocol; false unless given.
                guard: bool,
                /// Whether it can't become the way to the root of the spanning tree; false unless given.
                root_block: bool,
                /// The cost of the way by it in the spanning tree; the kernel's unless given.
                cost: Cost,
                /// Its priority in the spanning tree; 32 unless given, and the lowest wins.
                priority: PortPriority,
                /// Whether the bridge answers in place of neighbours that it knows, and keeps the question from the port; false
                /// unless given.
                neigh_suppress: bool,
                $( $(#[doc = $doc])+ $field : $type, )*
            }
        }

        impl $name {
            /// Returns what the port is to be set to.
            pub(super) fn settings(&self, doing: &str) -> Result<PortSettings> {
                let options = net::PortOptions {
                    isolated: self.isolated,
                    hairpin: self.hairpin,
                    learning: self.learning,
                    flood: self.flood,
                    mcast_flood: self.mcast_flood,
                    bcast_flood: self.bcast_flood,
                    guard: self.guard,
                    root_block: self.root_block,
                    cost: self.cost.map(|cost| cost.0),
                    priority: self.priority.map(|priority| priority.0),
                    neigh_suppress: self.neigh_suppress,
                    ..net::PortOptions::default()
                };
                let vlans = vlans_of(self.pvid, self.tagged.as_ref(), self.untagged.as_ref(), doing)?;
                Ok(PortSettings { options, vlans })
            }
        }
    };
}

port_options! {
    /// Options of `port`.
    PortOptions of "port" {}
}

port_options! {
    /// Options of `attach`.
    AttachOptions of "attach" {
        /// Whether the addresses, routes and fixed neighbours that somebody else's device has move to the bridge until the lab
        /// ends, and the bridge takes its hardware address; false unless given.
        take_over: bool,
    }
}

/// Returns the VLANs that a port is to be in, if the script says any; each is either tagged or not.
fn vlans_of(
    pvid: Option<VlanId>,
    tagged: Option<&VlanIds>,
    untagged: Option<&VlanIds>,
    doing: &str,
) -> Result<Option<PortVlans>> {
    if pvid.is_none() && tagged.is_none() && untagged.is_none() {
        return Ok(None);
    }
    let list = |vids: Option<&VlanIds>| vids.map(|vids| vids.0.clone()).unwrap_or_default();
    let (tagged, mut untagged) = (list(tagged), list(untagged));
    let pvid = pvid.map(|vid| vid.0);
    let inside = |vid: u16, ranges: &[(u16, u16)]| ranges.iter().any(|(low, high)| (*low..=*high).contains(&vid));
    let wrong = |because: String| Err(Error::invalid(doing).because(because));
    if let Some(vid) = pvid.filter(|vid| inside(*vid, &tagged)) {
        return wrong(format!("VLAN {vid} is both its `pvid`, whose frames have no tag, and `tagged`"));
    }
    let both = untagged.iter().flat_map(|(low, high)| *low..=*high).find(|vid| inside(*vid, &tagged));
    if let Some(vid) = both {
        return wrong(format!("VLAN {vid} is both `tagged` and `untagged`"));
    }
    if let Some(vid) = pvid.filter(|vid| !inside(*vid, &untagged)) {
        untagged.push((vid, vid));
        untagged.sort_unstable();
    }
    Ok(Some(PortVlans { pvid, tagged, untagged }))
}

/// Checks that a bridge keeps those VLANs apart that its port is to be put into.
pub(super) fn check_vlans(bridge: &DevEntry, settings: &PortSettings, doing: &str) -> Result<()> {
    if settings.vlans.is_none() || bridge.switch.vlan_filtering {
        return Ok(());
    }
    Err(Error::invalid(doing)
        .because(format!("bridge {} doesn't keep VLANs apart, so that its ports can't be in any", bridge.dev.shown()))
        .hint("make it with `vlan_filtering: true`"))
}

/// The options of a port, as an option of the cable that makes it.
#[derive(Debug, Clone)]
pub struct PortMap(Map);

impl FromScript for PortMap {
    const WHAT: &'static str = "a map of a port's options, such as #{ pvid: 10 }";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        value.try_cast::<Map>().map(PortMap).ok_or_else(String::new)
    }
}

/// Returns the steps that set new ports, each with its bridge, to what `map` says.
pub(super) fn of_new<'a>(
    lab: &mut Lab,
    ports: impl Iterator<Item = (&'a DevRef, &'a DevRef)>,
    map: &Option<PortMap>,
) -> Result<Vec<SetPort>> {
    let Some(PortMap(map)) = map else { return Ok(Vec::new()) };
    let options = PortOptions::parse(map.clone())?;
    let mut steps = Vec::new();
    for (port, bridge) in ports {
        let doing = format!("set port {}", port.shown());
        let settings = options.settings(&doing)?;
        check_vlans(lab.model().living_dev(bridge.no, &bridge.shown())?, &settings, &doing)?;
        steps.push(SetPort { dev: port.clone(), own: false, settings, before: None });
    }
    match steps.is_empty() {
        true => Err(Error::invalid("add veth").because("`port` is for an end in a bridge, and neither is in one")),
        false => Ok(steps),
    }
}

/// Sets a port of a bridge, or the bridge's own part in it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SetPort {
    dev: DevRef,
    /// Whether it is the bridge itself.
    own: bool,
    settings: PortSettings,
    before: Option<PortSettings>,
}

impl StepSort for SetPort {
    const WORD: &'static str = "port";
}

impl Step for SetPort {
    fn doing(&self) -> String {
        format!("set {} {}", if self.own { "bridge" } else { "port" }, self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        self.settings.like(&self.dev, self.own)
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.dev.netns],
            lives_on: Some(&self.dev),
            sets: self.settings.slots(self.dev.no, self.own),
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.dev.no, &self.dev.shown())?;
        if let Some(entry) = model.dev_mut(self.dev.no) {
            entry.in_vlans |= self.settings.vlans.is_some();
        }
        Ok(())
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if !kernel.must_remember(self.dev.made || self.dev.netns.made) {
            return Ok(());
        }
        if let Some(link) = there(kernel, &self.dev)? {
            let now = PortSettings::of(kernel, &self.dev, &link)?;
            self.before = Some(now.of_those_in(&self.settings));
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| self.settings.apply(kernel, &self.dev, self.own))
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        self.settings.advice(refusal)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let (Some(before), Some(link)) = (&self.before, kernel.link(&self.dev)?) else { return Ok(()) };
        if !self.own && link.port.is_none() {
            return Ok(());
        }
        // What somebody else has set since stays.
        if PortSettings::of(kernel, &self.dev, &link)?.of_those_in(&self.settings) != self.settings {
            return Ok(());
        }
        before.apply(kernel, &self.dev, self.own)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        self.settings.are_held(kernel, lab, &self.dev, self.own)
    }

    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        self.settings.mend(kernel, lab, &self.dev, self.own)
    }
}

/// Finds a port, or a bridge that is none; tells whether it is the latter, and the bridge.
fn port_of(lab: &mut Lab, dev: &Dev, doing: &str) -> Result<(DevEntry, Option<DevEntry>)> {
    let entry = dev.existing(lab)?;
    let bridge = entry.controller.and_then(|no| lab.model().dev(no)).filter(|dev| dev.kind == "bridge").cloned();
    if bridge.is_some() || entry.kind == "bridge" {
        return Ok((entry, bridge));
    }
    if let Some(bridge) = foreign_bridge(lab, &entry, doing)? {
        return Ok((entry, Some(bridge)));
    }
    Err(Error::invalid(doing)
        .because(format!("{} is not a port of a bridge", dev.shown()))
        .hint("`attach` makes it one, and takes the same options"))
}

/// Finds the bridge that somebody else plugged a device into.
fn foreign_bridge(lab: &mut Lab, port: &DevEntry, doing: &str) -> Result<Option<DevEntry>> {
    if port.dev.made {
        return Ok(None);
    }
    let at = port.dev.netns.clone();
    let index = port.dev.index;
    let links = handles::look(lab, &at, doing, net::link::list)?;
    let link = links.iter().find(|link| link.index == index);
    let controller = link.and_then(|link| link.controller).filter(|_| link.is_some_and(|link| link.port.is_some()));
    let name = controller.and_then(|index| links.iter().find(|link| link.index == index)).map(|link| &link.name);
    name.map_or(Ok(None), |name| handles::find_dev(lab, &at, name))
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sets a port of a bridge, at any time; what is not given stays as it is. Of a bridge itself it sets the VLANs in which the
    /// bridge has a part of its own: those of its addresses, and of `vlan` devices on it.
    ///
    /// Like `ip link set dev DEV type bridge_slave …`, `bridge vlan add dev DEV …` and `bridge vlan del dev DEV …`; with `self`
    /// for a bridge.
    ///
    /// Fails with `invalid` for what is no port of a bridge, for VLANs in a bridge without `vlan_filtering`, and for one that is
    /// to be both tagged and not; with `unsupported` where the kernel lacks CONFIG_BRIDGE_VLAN_FILTERING.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// let ends = veth(netns("h1")["eth0"], br);
    /// ends[1].port(#{ isolated: true, flood: false });
    /// assert(ends[1].port().isolated);
    /// try {
    ///     let vlans = bridge("br1", #{ vlan_filtering: true });
    ///     veth(netns("h2")["eth0"], vlans, #{ port: #{ pvid: 10 } });
    ///     veth("trunk0", vlans, #{ port: #{ tagged: [10, "20-29"] } });
    ///     assert(vlans.vlans().filter(|v| v.pvid && v.dev == "h2-eth0").map(|v| v.vlan) == [10]);
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "port", return_raw)]
    pub fn set_port(ctx: NativeCallContext, dev: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let doing = format!("set port {}", dev.shown());
            let settings = PortOptions::parse(options)?.settings(&doing)?;
            let (entry, bridge) = port_of(lab, &dev, &doing)?;
            let own = bridge.is_none();
            if own && settings.options != net::PortOptions::default() {
                return Err(Error::invalid(doing)
                    .because(format!("{} is a bridge itself, of which only VLANs can be set", dev.shown())));
            }
            check_vlans(bridge.as_ref().unwrap_or(&entry), &settings, &doing)?;
            if settings == PortSettings::default() {
                return Ok(());
            }
            lab.ask(SetPort { dev: entry.dev, own, settings, before: None }, place)
        })?;
        Ok(dev)
    }

    /// Returns what a port of a bridge is set to, as a map with the options of `port` and its `state`: `forwarding`, or else what the
    /// spanning tree has it do.
    ///
    /// Like `ip -d link show dev DEV`.
    ///
    /// Fails with `invalid` for what is no port of a bridge.
    ///
    /// ```rhai
    /// let ends = veth(netns("h1")["eth0"], bridge("br0"));
    /// assert(ends[1].port().learning && ends[1].port().state == "forwarding");
    /// ```
    #[rhai_fn(name = "port", return_raw)]
    pub fn get_port(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| {
            let doing = format!("look at port {}", dev.shown());
            let (entry, bridge) = port_of(lab, &dev, &doing)?;
            let index = entry.dev.index;
            let both = |rtnl: &net::Netlink| Ok((net::link::get(rtnl, index)?, net::link::port_vlan::list(rtnl)?));
            let (link, vlans) = handles::look(lab, &entry.dev.netns, &doing, both)?;
            let mut map = Map::new();
            if let Some(port) = link.and_then(|link| link.port) {
                map.insert("state".into(), port.state.into());
                let options = serde_json::to_value(&port.options).unwrap_or_default();
                for option in PortOptions::SET.options {
                    if let Some(value) = options.get(option.name) {
                        map.insert(option.name.into(), rhai::serde::to_dynamic(value).unwrap_or_default());
                    }
                }
            }
            if bridge.as_ref().unwrap_or(&entry).switch.vlan_filtering {
                let PortVlans { pvid, tagged, untagged } = PortVlans::of(&vlans, index);
                let list = |ranges: Vec<(u16, u16)>| -> Dynamic {
                    ranges
                        .into_iter()
                        .flat_map(|(low, high)| low..=high)
                        .map(|vid| Dynamic::from(i64::from(vid)))
                        .collect::<Array>()
                        .into()
                };
                map.insert("pvid".into(), pvid.map_or(Dynamic::UNIT, |vid| i64::from(vid).into()));
                map.insert("tagged".into(), list(tagged));
                map.insert("untagged".into(), list(untagged));
            }
            Ok(map)
        })
    }

    /// Returns the VLANs of a bridge's ports and of the bridge itself, as maps with `dev`, `vlan`, `pvid` and `tagged`.
    ///
    /// Like `bridge vlan show`.
    ///
    /// Fails with `invalid` where the device is no bridge. A bridge without `vlan_filtering` has none that count.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// assert(br.vlans().all(|v| v.vlan == 1));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn vlans(ctx: NativeCallContext, bridge: Dev) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let doing = format!("list the VLANs of {}", bridge.shown());
            let entry = bridge.existing(lab)?;
            if entry.kind != "bridge" {
                return Err(Error::invalid(doing).because(format!("{} is not a bridge", bridge.shown())));
            }
            let at = entry.dev.netns.clone();
            let both = |rtnl: &net::Netlink| Ok((net::link::list(rtnl)?, net::link::port_vlan::list(rtnl)?));
            let (links, vlans) = handles::look(lab, &at, &doing, both)?;
            let index = entry.dev.index;
            let is_here = |vlan: &&net::PortVlan| {
                let port = links.iter().find(|link| link.index == vlan.index);
                vlan.index == index || port.is_some_and(|link| link.controller == Some(index))
            };
            Ok(vlans
                .iter()
                .filter(is_here)
                .map(|vlan| {
                    Dynamic::from_map(Map::from_iter([
                        ("dev".into(), handles::name_at(lab, &at, &links, vlan.index).unwrap_or_default().into()),
                        ("vlan".into(), i64::from(vlan.vid).into()),
                        ("pvid".into(), vlan.pvid.into()),
                        ("tagged".into(), (!vlan.untagged).into()),
                    ]))
                })
                .collect())
        })
    }
}
