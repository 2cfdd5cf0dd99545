//! Bridges: the switches of a lab.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::Group;
use super::carry::{self, Carry};
use super::context::{RhaiResultOf, place_of, with_lab};
use super::dev_change::add_link_local;
use super::firewalls::ask_let_through_bridge;
use super::handles::{self, Dev, NetnsHandle};
use super::options::options;
use super::units::{DevMac, Mtu, Priority};
use super::veth::{BRIDGE_PORTS_MAX, add_full_name, check_free, delete_link, ip, restore_mac};
use crate::lab::{DevEntry, DevRef, Error, Finish, Kernel, Kind, Lab, Model, NetnsRef, Place, Result, Step, name};
use crate::net::{self, Change, Mac, NewLink};
use crate::{step_identity, step_sort};

pub(super) const GROUP: Group = Group {
    name: "bridge",
    about: "Switches, and what is plugged into them.",
    module: || exported_module!(functions),
    steps: &[step_sort!("bridge", AddBridge), step_sort!("attach", Attach), step_sort!("carry", Carry)],
    options: &[BridgeOptions::SET, PortOptions::SET],
};

options! {
    /// Options of `bridge`.
    pub struct BridgeOptions of "bridge" {
        /// Whether it speaks the spanning tree protocol (IEEE 802.1D); false unless given.
        stp: bool,
        /// Whether it keeps VLANs apart (IEEE 802.1Q); false unless given.
        vlan_filtering: bool,
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

options! {
    /// Options of `attach`.
    pub struct PortOptions of "attach" {
        /// Whether it can't talk to other isolated ports of the bridge; false unless given.
        isolated: bool,
        /// Whether a frame may leave by the port that it came in; false unless given.
        hairpin: bool,
        /// Whether the bridge learns hardware addresses from it; true unless given.
        learning: bool,
        /// Whether frames to unknown addresses are sent to it; true unless given.
        flood: bool,
        /// Whether the addresses, routes and fixed neighbours that somebody else's device has move to the bridge until the lab
        /// ends, and the bridge takes its hardware address; false unless given.
        carry: bool,
    }
}

impl BridgeOptions {
    fn for_kernel(&self) -> net::BridgeOptions {
        let ms = |time: Option<Duration>| time.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        net::BridgeOptions {
            stp: self.stp,
            vlan_filtering: self.vlan_filtering,
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

impl Step for AddBridge {
    step_identity!("bridge");

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

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.dev.netns)?;
        check_free(model, &self.dev, &self.doing())?;
        model.add_dev(DevEntry::new(self.dev.clone(), "bridge"));
        Ok(())
    }

    fn unplan(&self, model: &mut Model, why: &str) {
        model.remove_dev(self.dev.no, why);
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.dev.netns)?;
        let short = name::kernel_name(&self.dev.name);
        let mac = self.dev.mac.unwrap_or(Mac([0; 6]));
        let link = NewLink { name: &short, index: self.dev.index, mac, mtu: self.mtu };
        // Snooping costs each port that comes in a look at all the others: off until `finish`.
        let quiet = net::BridgeOptions { mcast_snooping: Some(false), ..self.options.clone() };
        kernel.run(net::link::add_bridge(&rtnl, &link, &quiet))?;
        let mark = kernel.mark().to_string();
        kernel.run(net::link::change(&rtnl, self.dev.index, &Change { alias: Some(&mark), ..Change::default() }))?;
        add_link_local(kernel, &self.dev)?;
        add_full_name(kernel, &self.dev)
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        let vlans = self.options.vlan_filtering == Some(true) && refusal.is_unsupported();
        vlans.then(|| "this kernel's bridges can't keep VLANs apart: it lacks CONFIG_BRIDGE_VLAN_FILTERING".into())
    }

    fn finish(&self) -> Option<Finish> {
        let dev = self.dev.clone();
        let up = self.up;
        let mcast_snooping = Some(self.options.mcast_snooping.unwrap_or(true));
        let work = move |kernel: &mut Kernel| {
            let rtnl = kernel.rtnl(&dev.netns)?;
            let options = net::BridgeOptions { mcast_snooping, ..net::BridgeOptions::default() };
            kernel.run(net::link::set_bridge(&rtnl, dev.index, &options))?;
            if !up {
                return Ok(());
            }
            kernel.run(net::link::change(&rtnl, dev.index, &Change { up: Some(true), ..Change::default() }))
        };
        Some(Finish { netns: self.dev.netns.no, work: Box::new(work) })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        delete_link(kernel, &self.dev).map(|_| ())
    }

    fn needs_finished(&self, _no: u32) -> bool {
        false
    }

    fn makes_devs(&self) -> Vec<&DevRef> {
        vec![&self.dev]
    }

    fn lives_in(&self) -> Vec<&NetnsRef> {
        vec![&self.dev.netns]
    }
}

/// Plugs a device into a bridge, or out of it.
#[derive(Debug, Serialize, Deserialize)]
struct Attach {
    port: DevRef,
    bridge: Option<DevRef>,
    before: Option<DevRef>,
    #[serde(default)]
    options: net::PortOptions,
}

impl Step for Attach {
    step_identity!("attach");

    fn doing(&self) -> String {
        match &self.bridge {
            Some(bridge) => format!("attach {} to bridge {}", self.port.shown(), bridge.shown()),
            None => format!("detach {}", self.port.shown()),
        }
    }

    fn like(&self) -> Vec<String> {
        let (ip, port) = (ip(&self.port.netns), name::kernel_name(&self.port.name));
        let Some(bridge) = &self.bridge else { return vec![format!("{ip} link set dev {port} nomaster")] };
        let mut like = vec![format!("{ip} link set dev {port} master {}", name::kernel_name(&bridge.name))];
        if self.options != net::PortOptions::default() {
            like.push(format!("{ip} link set dev {port} type bridge_slave {}", self.options.like()));
        }
        like
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.port.no, &self.port.shown())?;
        if let Some(bridge) = &self.bridge {
            let entry = model.living_dev(bridge.no, &bridge.shown())?;
            if entry.ports >= BRIDGE_PORTS_MAX {
                return Err(Error::invalid(self.doing())
                    .because(format!("the bridge has {BRIDGE_PORTS_MAX} ports, the most the kernel allows")));
            }
        }
        model.set_controller(self.port.no, self.bridge.as_ref().map(|bridge| bridge.no));
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.set_controller(self.port.no, self.before.as_ref().map(|bridge| bridge.no));
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.port.netns)?;
        let controller = Some(self.bridge.as_ref().map(|bridge| bridge.index));
        kernel.run(net::link::change(&rtnl, self.port.index, &Change { controller, ..Change::default() }))?;
        if self.options == net::PortOptions::default() {
            return Ok(());
        }
        kernel.run(net::link::set_port(&rtnl, self.port.index, &self.options))
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(link) = kernel.link(&self.port)? else { return Ok(()) };
        // Somebody else may have plugged it elsewhere since.
        if link.controller != self.bridge.as_ref().map(|bridge| bridge.index) {
            return Ok(());
        }
        let before = match &self.before {
            Some(before) => kernel.link(before)?.map(|link| link.index),
            None => None,
        };
        let rtnl = kernel.rtnl(&self.port.netns)?;
        kernel.run(net::link::change(
            &rtnl,
            self.port.index,
            &Change { controller: Some(before), ..Change::default() },
        ))?;
        self.bridge.iter().try_for_each(|bridge| restore_mac(kernel, bridge))
    }

    fn needs_finished(&self, _no: u32) -> bool {
        false
    }

    fn lives_in(&self) -> Vec<&NetnsRef> {
        vec![&self.port.netns]
    }

    fn lives_on(&self) -> Option<&DevRef> {
        match &self.bridge {
            Some(bridge) if bridge.made => Some(bridge),
            Some(_) => None,
            None => Some(&self.port),
        }
    }
}

fn add(lab: &mut Lab, netns: &NetnsHandle, name: &str, options: Map, place: Place) -> Result<Dev> {
    name::check("device", name)?;
    let options = BridgeOptions::parse(options)?;
    let netns = netns.living(lab)?;
    handles::load(lab, &netns)?;
    let no = lab.model().next_no();
    let index = lab.model().next_index(netns.no);
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

/// Returns the entry of a device that must be a bridge.
fn bridge_of(lab: &mut Lab, dev: &Dev, doing: &str) -> Result<DevEntry> {
    let entry = dev.existing(lab)?;
    if entry.kind == "bridge" {
        return Ok(entry);
    }
    let kind = if entry.kind.is_empty() { "no virtual device" } else { &entry.kind };
    Err(Error::invalid(doing).because(format!("{} is not a bridge: its kind is {kind}", dev.shown())))
}

/// Plugs a device into a bridge of the same namespace.
fn attach_port(lab: &mut Lab, bridge: &Dev, dev: &Dev, options: Map, place: Place) -> Result<()> {
    let options = PortOptions::parse(options)?;
    let doing = format!("attach {} to bridge {}", dev.shown(), bridge.shown());
    let (br, port) = (bridge_of(lab, bridge, &doing)?, dev.existing(lab)?);
    if br.dev.netns.no != port.dev.netns.no {
        return Err(Error::invalid(doing)
            .because("they are in two namespaces")
            .hint("`veth(h[\"eth0\"], bridge)` lays a cable from one namespace to a bridge in another"));
    }
    if br.dev.no == port.dev.no {
        return Err(Error::invalid(doing).because("a bridge can't be a port of itself"));
    }
    if port.controller.is_some() {
        return Err(Error::new(Kind::Exists, doing)
            .because("it is a port of a bridge already")
            .hint("`detach` it first"));
    }
    if let Some(other) = lab.model().all_devs().find(|other| other.parent == Some(port.dev.no)) {
        return Err(Error::invalid(doing)
            .because(format!("{} is on top of it, which a port has no room for", other.dev.shown()))
            .hint("put that on the bridge instead"));
    }
    let carries = carry::check(lab, &br, &port.dev, options.carry == Some(true), &doing)?;
    let options = net::PortOptions {
        isolated: options.isolated,
        hairpin: options.hairpin,
        learning: options.learning,
        flood: options.flood,
        ..net::PortOptions::default()
    };
    if carries {
        return lab.ask(Carry { port: port.dev, bridge: br.dev, options, load: None }, place);
    }
    lab.ask(Attach { port: port.dev, bridge: Some(br.dev), before: None, options }, place)
}

/// What a script can call.
#[export_module]
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

    /// Plugs a device into a bridge; both are in the same namespace.
    ///
    /// Like `ip link set dev DEV master BRIDGE`.
    ///
    /// Fails with `invalid` for a device that the lab did not make and that carries addresses or the default route: as a port
    /// of a bridge it can't use them, and the host would be cut off. With `carry: true` they move to the bridge; the host is
    /// reached by the same addresses all the time, and in the end the device has them back as they were. (Lost are flags that
    /// only the kernel sets: privacy addresses and routes of a router's advertisement come back as ordinary ones, with the time
    /// that they had left. With `stp` the bridge lets nothing through for twice its `forward_delay` at first.)
    ///
    /// Fails with `invalid`, too, where they are in two namespaces, the first is no bridge, or `carry` is asked of a bridge
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

    /// Plugs a device into a bridge, with options of the port.
    #[rhai_fn(name = "attach", return_raw)]
    pub fn attach_with(ctx: NativeCallContext, bridge: Dev, dev: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| attach_port(lab, &bridge, &dev, options, place))?;
        Ok(bridge)
    }

    /// Plugs a device out of its bridge.
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
            let doing = format!("detach {} from bridge {}", dev.shown(), bridge.shown());
            let (br, port) = (bridge_of(lab, &bridge, &doing)?, dev.existing(lab)?);
            if port.controller != Some(br.dev.no) {
                return Err(Error::new(Kind::Missing, doing).because("it is not a port of it"));
            }
            if port.carried {
                return Err(Error::invalid(doing)
                    .because("the bridge carries its addresses and routes, and would be cut off")
                    .hint("the end of the lab gives them back"));
            }
            let options = net::PortOptions::default();
            lab.ask(Attach { port: port.dev, bridge: None, before: Some(br.dev), options }, place)
        })?;
        Ok(bridge)
    }

    /// Returns the devices that are plugged into a bridge.
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
            let br = bridge_of(lab, &bridge, &doing)?.dev;
            let links = handles::look(lab, &br.netns, &doing, net::link::list)?;
            let netns = NetnsHandle::new(br.netns);
            let ports = links.iter().filter(|link| link.controller == Some(br.index));
            Ok(ports.map(|link| Dynamic::from(handles::listed(lab, &netns, link))).collect())
        })
    }
}
