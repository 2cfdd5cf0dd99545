//! Bridges: the switches of a lab.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::attach::{self, Attach, PortSettings};
use super::made::{check_free, delete_made, full_name_request};
use super::port::{self, AttachOptions};
use super::take_over::{self, TakeOver};
use super::whole::{self, Found};
use crate::lab::{
    DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort, Switch, Unfinished, link_local_request,
};
use crate::net::link::kind::VlanProtocol;
use crate::net::{self, Change, Mac, NewLink};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::nat::firewalls::ask_let_through_bridge;
use crate::prim::value::handles::{self, Dev, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::units::{DevMac, Mtu, Priority, VlanIdOrNone};
use crate::state::{DevRef, Error, Kind, NetnsRef, Place, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "bridge",
    about: "Switches, and what is plugged into them.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddBridge), step_sort!(Attach), step_sort!(TakeOver)],
    options: &[BridgeOptions::SET, AttachOptions::SET],
};

options! {
    /// Options of `bridge`.
    pub struct BridgeOptions of "bridge" {
        /// Whether it speaks the spanning tree protocol (IEEE 802.1D); false unless given.
        stp: bool,
        /// Whether it keeps VLANs apart (IEEE 802.1Q), which `attach` and `port` put ports into; false unless given.
        vlan_filtering: bool,
        /// The VLAN that a port is in which is put into none, untagged; 1 unless given, and 0 is none.
        default_pvid: VlanIdOrNone,
        /// The kind of tag that it looks at, `802.1q` or `802.1ad`; `802.1q` unless given.
        vlan_protocol: VlanProtocol,
        /// Whether it sends multicast only where it is listened to (RFC 4541); true unless given.
        mcast_snooping: bool,
        /// How long a port listens and learns before it forwards, with the spanning tree; 15 s unless given.
        forward_delay: Duration,
        /// How long between two hellos of the spanning tree; 2 s unless given.
        hello_time: Duration,
        /// How long a silent neighbour is believed in; 20 s unless given.
        max_age: Duration,
        /// How long a hardware address is remembered; 300 s unless given.
        ageing_time: Duration,
        /// Its priority in the spanning tree; 32768 unless given, the lowest becomes the root.
        priority: Priority,
        /// The MTU; the smallest of its ports' unless given.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

impl BridgeOptions {
    fn for_kernel(&self) -> net::BridgeOptions {
        let ms = |time: Option<Duration>| time.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        net::BridgeOptions {
            stp: self.stp,
            vlan_filtering: self.vlan_filtering,
            vlan_default_pvid: self.default_pvid.map(|vid| vid.0),
            vlan_protocol: self.vlan_protocol,
            mcast_snooping: self.mcast_snooping,
            forward_delay_ms: ms(self.forward_delay),
            hello_time_ms: ms(self.hello_time),
            max_age_ms: ms(self.max_age),
            ageing_time_ms: ms(self.ageing_time),
            priority: self.priority.map(|priority| priority.0),
            ..net::BridgeOptions::default()
        }
    }
}

/// Adds a bridge.
#[derive(Debug, Serialize, Deserialize)]
struct AddBridge {
    dev: DevRef,
    mtu: Option<u32>,
    up: bool,
    options: net::BridgeOptions,
}

impl AddBridge {
    fn made_with(&self) -> whole::Shape {
        whole::Shape { up: self.up, mtu: self.mtu, mac: self.dev.mac, controller: None }
    }

    /// Returns the options that others changed, as they should be.
    fn other_options(&self, kernel: &mut Kernel, found: &Found) -> net::Result<net::BridgeOptions> {
        let Found::There(dev, _) = found else { return Ok(net::BridgeOptions::default()) };
        let now = kernel.link(dev)?.and_then(|link| link.bridge).unwrap_or_default().options;
        let wanted = net::BridgeOptions {
            mcast_snooping: Some(self.options.mcast_snooping.unwrap_or(true)),
            ..self.options.clone()
        };
        Ok(wanted.unlike(&now))
    }
}

impl StepSort for AddBridge {
    const WORD: &'static str = "bridge";
}

impl Step for AddBridge {
    fn doing(&self) -> String {
        format!("add bridge {}", self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let short = name::kernel_name(&self.dev.name);
        let options = self.options.like();
        let options = if options.is_empty() { String::new() } else { format!(" {options}") };
        let mut like = vec![format!("{} link add {short} type bridge{options}", ip(&self.dev.netns))];
        if self.up {
            like.push(format!("{} link set dev {short} up", ip(&self.dev.netns)));
        }
        like
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            makes_devs: vec![&self.dev],
            wakes: vec![&self.dev],
            lives_in: vec![&self.dev.netns],
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.dev.netns)?;
        check_free(model, &self.dev, &self.doing())?;
        let is_on = |option: Option<bool>| option == Some(true);
        let switch = Switch { stp: is_on(self.options.stp), vlan_filtering: is_on(self.options.vlan_filtering) };
        model.add_dev(DevEntry { switch, up: Some(self.up), ..DevEntry::new(self.dev.clone(), "bridge") });
        Ok(())
    }

    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        let short = name::kernel_name(&self.dev.name);
        let mac = self.dev.mac.unwrap_or(Mac([0; 6]));
        let link = NewLink { name: &short, index: self.dev.index, mac, mtu: self.mtu };
        // Snooping costs each port that comes in a look at all the others: off until the end.
        let quiet = net::BridgeOptions { mcast_snooping: Some(false), ..self.options.clone() };
        let mark = Change { alias: Some(kernel.mark()), ..Change::default() };
        let requests =
            [net::link::bridge::bridge_request(&link, &quiet), net::link::change_request(self.dev.index, &mark)];
        let rest = link_local_request(&self.dev).into_iter().chain(full_name_request(&self.dev));
        let mut ops: Vec<Op<'_>> = Op::asks(&self.dev.netns, requests.into_iter().chain(rest)).collect();
        let mcast_snooping = Some(self.options.mcast_snooping.unwrap_or(true));
        let options = net::BridgeOptions { mcast_snooping, ..net::BridgeOptions::default() };
        ops.push(Op::AtEnd(&self.dev.netns, net::link::bridge::set_bridge_request(self.dev.index, &options)));
        if self.up {
            let up = Change { up: Some(true), ..Change::default() };
            ops.push(Op::AtEnd(&self.dev.netns, net::link::change_request(self.dev.index, &up)));
        }
        Ok(ops)
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        let options = &self.options;
        let vlans =
            options.vlan_filtering.is_some() || options.vlan_default_pvid.is_some() || options.vlan_protocol.is_some();
        (vlans && refusal.is_unsupported()).then(|| attach::NO_VLANS.to_string())
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        delete_made(kernel, &self.dev)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let found = whole::find(kernel, lab, &self.dev, self.made_with())?;
        Ok(found.is_whole() && self.other_options(kernel, &found)? == net::BridgeOptions::default())
    }

    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        let found = whole::find(kernel, lab, &self.dev, self.made_with())?;
        let Found::There(dev, difference) = &found else {
            return kernel.make(self);
        };
        whole::put_right(kernel, dev, difference)?;
        let options = self.other_options(kernel, &found)?;
        kernel.send([(&dev.netns, net::link::bridge::set_bridge_request(dev.index, &options))])
    }
}

fn add(lab: &mut Lab, netns: &NetnsHandle, name: &str, options: Map, place: Place) -> Result<Dev> {
    name::check("device", name)?;
    let options = BridgeOptions::parse(options)?;
    let netns = netns.living(lab)?;
    handles::know(lab, &netns, name)?;
    let no = lab.model().next_no();
    let index = handles::next_index(lab, &netns, &netns)?;
    let mac = options.mac.map_or_else(|| lab.new_mac(no), |mac| mac.0);
    let dev = DevRef { no, netns, name: name.to_string(), index, mac: Some(mac), made: true };
    let step = AddBridge {
        dev: dev.clone(),
        mtu: options.mtu.map(|mtu| mtu.0),
        up: options.up.unwrap_or(true),
        options: options.for_kernel(),
    };
    lab.ask(step, place.clone())?;
    ask_let_through_bridge(lab, &dev.netns, &name::kernel_name(name), &place)?;
    Ok(Dev::known(&dev))
}

/// Plugs a device into a bridge, a bond or a VRF of the same namespace.
fn attach_port(lab: &mut Lab, bridge: &Dev, dev: &Dev, options: Map, place: Place) -> Result<()> {
    let given = AttachOptions::parse(options)?;
    let doing = format!("attach {} to {}", dev.shown(), bridge.shown());
    let br = attach::controller_of(lab, bridge, &doing)?;
    let doing = format!("attach {} to {} {}", dev.shown(), br.kind, bridge.shown());
    let port = dev.existing(lab)?;
    if br.dev.netns.no != port.dev.netns.no {
        let error = Error::invalid(doing).because("they are in two namespaces");
        return Err(match &*br.kind {
            "bridge" => {
                error.hint("`veth(h[\"eth0\"], bridge)` lays a cable from one namespace to a bridge in another")
            }
            _ => error,
        });
    }
    if br.dev.no == port.dev.no {
        return Err(Error::invalid(doing).because(format!("a {} can't be a port of itself", br.kind)));
    }
    attach::check_free_port(lab, &port, &doing)?;
    let settings = given.settings(&doing)?;
    if br.kind != "bridge" {
        if settings != PortSettings::default() || given.take_over.is_some() {
            return Err(Error::invalid(doing).because("only ports of a bridge have options"));
        }
        match &*br.kind {
            "bond" => attach::check_bondable(lab, &port, &br.dev.netns, &doing)?,
            _ => attach::check_not_needed(lab, &port.dev, &doing)?,
        }
        return attach::ask(lab, &br, port.dev, settings, place);
    }
    // A VLAN's frames are taken out before the bridge gets the others.
    let takes_all =
        |other: &&DevEntry| other.parent == Some(port.dev.no) && matches!(&*other.kind, "macvlan" | "ipvlan");
    if let Some(other) = lab.model().all_devs().find(takes_all) {
        return Err(Error::invalid(doing)
            .because(format!("{} is on top of it, which a port has no room for", other.dev.shown()))
            .hint("put that on the bridge instead"));
    }
    port::check_vlans(&br, &settings, &doing)?;
    let takes_over = take_over::check(lab, &br, &port.dev, given.take_over == Some(true), &doing)?;
    if takes_over {
        return lab.ask(TakeOver { port: port.dev, bridge: br.dev, settings, config: None }, place);
    }
    attach::ask(lab, &br, port.dev, settings, place)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a bridge to the host; it comes up.
    ///
    /// Like `ip link add NAME type bridge; ip link set NAME up`.
    ///
    /// Fails with `exists` where there is a device of this name, whoever made it: somebody else's bridge is never adopted.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// let h = netns("h1");
    /// veth(h["eth0"], br);
    /// assert(br.ports().len() == 1);
    /// ```
    #[rhai_fn(name = "bridge", return_raw)]
    pub fn bridge_here(ctx: NativeCallContext, name: &str) -> RhaiResultOf<Dev> {
        bridge_in_with(ctx, NetnsHandle::new(NetnsRef::host()), name, Map::new())
    }

    /// Adds a bridge with options to the host.
    #[rhai_fn(name = "bridge", return_raw)]
    pub fn bridge_here_with(ctx: NativeCallContext, name: &str, options: Map) -> RhaiResultOf<Dev> {
        bridge_in_with(ctx, NetnsHandle::new(NetnsRef::host()), name, options)
    }

    /// Adds a bridge to a namespace.
    #[rhai_fn(name = "bridge", return_raw)]
    pub fn bridge_in(ctx: NativeCallContext, netns: NetnsHandle, name: &str) -> RhaiResultOf<Dev> {
        bridge_in_with(ctx, netns, name, Map::new())
    }

    /// Adds a bridge with options to a namespace.
    #[rhai_fn(name = "bridge", return_raw)]
    pub fn bridge_in_with(ctx: NativeCallContext, netns: NetnsHandle, name: &str, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| add(lab, &netns, name, options, place))
    }

    /// Plugs a device into a bridge, a bond or a VRF; both are in the same namespace.
    ///
    /// Like `ip link set dev DEV master BRIDGE`, with options also `ip link set dev DEV type bridge_slave …` and
    /// `bridge vlan add dev DEV …`.
    ///
    /// Fails with `invalid` for a device that the lab did not make and that has addresses or the default route: as a port
    /// of a bridge it can't use them, and the host would be cut off. With `take_over: true` they move to the bridge; the host is
    /// reached by the same addresses all the time, and in the end the device has them back as they were. (Lost are flags that
    /// only the kernel sets: privacy addresses and routes of a router's advertisement come back as ordinary ones, with the time
    /// that they had left. With `stp` the bridge lets nothing through for twice its `forward_delay` at first.)
    ///
    /// Fails with `invalid`, too, where they are in two namespaces, the first is no bridge, or `take_over` is asked of a bridge
    /// that is down or not the lab's.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// veth("a0", "a1");
    /// br.attach(host["a0"]);
    /// assert(br.ports().map(|d| d.name) == ["a0"]);
    /// ```
    #[rhai_fn(name = "attach", return_raw)]
    pub fn attach(ctx: NativeCallContext, bridge: Dev, dev: Dev) -> RhaiResultOf<Dev> {
        attach_with(ctx, bridge, dev, Map::new())
    }

    /// Plugs a device into a bridge, with options of the port, which `port` changes later.
    #[rhai_fn(name = "attach", return_raw)]
    pub fn attach_with(ctx: NativeCallContext, bridge: Dev, dev: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| attach_port(lab, &bridge, &dev, options, place))?;
        Ok(bridge)
    }

    /// Plugs a device out of its bridge, bond or VRF.
    ///
    /// Like `ip link set dev DEV nomaster`.
    ///
    /// Fails with `missing` where it is no port of this bridge.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// let h = netns("h1");
    /// let ends = veth(h["eth0"], br);
    /// br.detach(ends[1]);
    /// assert(br.ports().is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn detach(ctx: NativeCallContext, bridge: Dev, dev: Dev) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let doing = format!("detach {} from {}", dev.shown(), bridge.shown());
            let (br, port) = (attach::controller_of(lab, &bridge, &doing)?, dev.existing(lab)?);
            if port.controller != Some(br.dev.no) {
                return Err(Error::new(Kind::Missing, doing).because("it is not a port of it"));
            }
            if port.taken_over {
                return Err(Error::invalid(doing)
                    .because("the bridge has its addresses and routes, and would be cut off")
                    .hint("the end of the lab gives them back"));
            }
            attach::ask_out(lab, &br, port.dev, place)
        })?;
        Ok(bridge)
    }

    /// Returns the devices that are plugged into a bridge, a bond or a VRF.
    ///
    /// Like `ip link show master BRIDGE`.
    ///
    /// Fails with `invalid` where the device is no bridge.
    ///
    /// ```rhai
    /// assert(bridge("br0").ports().is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ports(ctx: NativeCallContext, bridge: Dev) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let doing = format!("list the ports of {}", bridge.shown());
            let br = attach::controller_of(lab, &bridge, &doing)?.dev;
            let links = handles::look(lab, &br.netns, &doing, net::link::list)?;
            let netns = NetnsHandle::new(br.netns);
            let ports = links.iter().filter(|link| link.controller == Some(br.index));
            Ok(ports.map(|link| Dynamic::from(handles::listed(lab, &netns, link))).collect())
        })
    }
}
