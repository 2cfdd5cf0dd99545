//! Cables: veth pairs, both ends made where they belong.

use rhai::plugin::*;
use rhai::{Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::attach::{BRIDGE_PORTS_MAX, restore_mac};
use super::made::{check_free, delete_link, full_name_request};
use super::port::{self, PortMap};
use super::whole::{self, Found};
use crate::lab::{
    DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort, Unfinished, link_local_request,
};
use crate::net::{self, Change, Mac, NewLink, VethEnd};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::value::handles::{self, Dev, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::units::{DevMac, Mtu};
use crate::state::{DevRef, Error, Kind, NetnsRef, Result, name, shown_dev};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "veth",
    about: "Cables between namespaces, and ports of bridges.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddVeth)],
    options: &[VethOptions::SET],
};

options! {
    /// Options of `veth`.
    pub struct VethOptions of "veth" {
        /// The MTU of both ends; 1500 unless given.
        mtu: Mtu,
        /// Whether both ends come up; true unless given.
        up: bool,
        /// The hardware address of the first end; a random one of our own range unless given.
        mac: DevMac,
        /// The hardware address of the second end.
        peer_mac: DevMac,
        /// What an end in a bridge is set to as its port: a map of options, as `port` takes them.
        port: PortMap,
        /// That the first end is given to another program, which moves and renames it: it stays down, and the lab knows the second one
        /// alone.
        given: bool,
    }
}

/// One end of a pair that is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct End {
    dev: DevRef,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    bridge: Option<Box<DevRef>>,
}

/// Adds a veth pair.
#[derive(Debug, Serialize, Deserialize)]
struct AddVeth {
    ends: [End; 2],
    mtu: Option<u32>,
    up: bool,
    /// Whether the first end is another program's as soon as it is made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    given: bool,
}

impl AddVeth {
    /// Returns the ends that the lab keeps.
    fn kept(&self) -> &[End] {
        if self.given { &self.ends[1..] } else { &self.ends }
    }

    fn is_kept(&self, end: &End) -> bool {
        !self.given || std::ptr::eq(end, &self.ends[1])
    }

    /// Returns the end that is born with its bridge and up, and the one that is seen to afterwards.
    fn main_and_peer(&self) -> (&End, &End) {
        let [a, b] = &self.ends;
        if a.bridge.is_none() && b.bridge.is_some() { (b, a) } else { (a, b) }
    }

    /// Returns what an end was made with; a bridge that is gone is not asked for.
    fn made_with(&self, kernel: &mut Kernel, end: &End) -> net::Result<whole::Shape> {
        let controller = match &end.bridge {
            Some(bridge) => kernel.link(bridge)?.map(|link| link.index),
            None => None,
        };
        // The MTU that every new veth has (ether_setup of net/ethernet/eth.c).
        let mtu = Some(self.mtu.unwrap_or(1500));
        Ok(whole::Shape { up: self.up, mtu, mac: end.dev.mac, controller })
    }
}

impl StepSort for AddVeth {
    const WORD: &'static str = "veth";
}

impl Step for AddVeth {
    fn doing(&self) -> String {
        format!("add veth {} -- {}", self.ends[0].dev.shown(), self.ends[1].dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let netns = |end: &End| match end.dev.netns.at {
            crate::state::NetnsAt::Host => String::new(),
            _ => format!(" netns {}", end.dev.netns.name),
        };
        let (main, peer) = self.main_and_peer();
        let mtu = self.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        let mut like = vec![format!(
            "ip link add {}{}{mtu} type veth peer name {}{}{mtu}",
            name::kernel_name(&main.dev.name),
            netns(main),
            name::kernel_name(&peer.dev.name),
            netns(peer)
        )];
        for end in [main, peer] {
            let bridge = end
                .bridge
                .as_ref()
                .map_or(String::new(), |bridge| format!(" master {}", name::kernel_name(&bridge.name)));
            let is_up = self.up && self.is_kept(end);
            let up = if is_up { " up" } else { "" };
            if !bridge.is_empty() || is_up {
                like.push(format!(
                    "{} link set dev {}{bridge}{up}",
                    ip(&end.dev.netns),
                    name::kernel_name(&end.dev.name)
                ));
            }
        }
        like
    }

    fn footprint(&self) -> Footprint<'_> {
        let foreign = self.ends.iter().filter_map(|end| end.bridge.as_ref()).any(|bridge| !bridge.made);
        Footprint {
            makes_devs: self.kept().iter().map(|end| &end.dev).collect(),
            // Somebody else's bridge has its address seen to when the port goes, which can't be left to the kernel.
            lives_in: if foreign { Vec::new() } else { self.ends.iter().map(|end| &end.dev.netns).collect() },
            // Its ends are seen to along with the rest.
            wakes: self.ends.iter().filter_map(|end| end.bridge.as_deref()).collect(),
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        for end in &self.ends {
            model.living_netns(&end.dev.netns)?;
            check_free(model, &end.dev, &self.doing())?;
            let full =
                end.bridge.as_ref().and_then(|bridge| model.dev(bridge.no)).filter(|dev| dev.ports >= BRIDGE_PORTS_MAX);
            if let Some(bridge) = full {
                return Err(Error::invalid(self.doing())
                    .because(format!(
                        "bridge {} has {BRIDGE_PORTS_MAX} ports, the most the kernel allows",
                        bridge.dev.shown()
                    ))
                    .hint("spread the hosts over several bridges, joined by a veth"));
            }
        }
        let [a, b] = &self.ends;
        for (end, other) in [(a, b), (b, a)].into_iter().filter(|(end, _)| self.is_kept(end)) {
            model.add_dev(DevEntry {
                peer: Some(other.dev.no),
                up: Some(self.up),
                ..DevEntry::new(end.dev.clone(), "veth")
            });
            if let Some(bridge) = &end.bridge {
                model.set_controller(end.dev.no, Some(bridge.no));
            }
        }
        Ok(())
    }

    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        let (main, peer) = self.main_and_peer();
        let (main_netns, peer_netns) = (kernel.netns(&main.dev.netns)?, kernel.netns(&peer.dev.netns)?);
        let (main_name, peer_name) = (name::kernel_name(&main.dev.name), name::kernel_name(&peer.dev.name));
        let link = |dev: &DevRef| (dev.index, dev.mac.unwrap_or(Mac([0; 6])));
        let ((main_index, main_mac), (peer_index, peer_mac)) = (link(&main.dev), link(&peer.dev));
        let main_end = VethEnd {
            netns: &main_netns,
            link: NewLink { name: &main_name, index: main_index, mac: main_mac, mtu: self.mtu },
            controller: main.bridge.as_ref().map(|bridge| bridge.index),
        };
        let peer_end = VethEnd {
            netns: &peer_netns,
            link: NewLink { name: &peer_name, index: peer_index, mac: peer_mac, mtu: self.mtu },
            controller: None,
        };
        let (here, there) = (&main.dev.netns, &peer.dev.netns);
        // Kernels before 6.14 refuse a name or number that is taken where they are asked, wherever the link shall be born.
        let mut ops = vec![Op::Ask(here, net::link::veth::veth_request(&main_end, &peer_end)?)];
        let local = |end: &End| link_local_request(&end.dev).filter(|_| end.bridge.is_none());
        // The mark before it comes up: of what is up the kernel tells everybody each change. Its address before the carrier comes,
        // with which the kernel would make one.
        for (end, at) in [(main, here), (peer, there)] {
            // The peer can't be born in a bridge.
            let bridge = end.bridge.as_ref().filter(|_| std::ptr::eq(end, peer));
            let mark = Change { alias: Some(kernel.mark()), ..Change::default() };
            let change = Change { controller: bridge.map(|bridge| Some(bridge.index)), ..mark };
            ops.push(Op::Ask(at, net::link::change_request(end.dev.index, &change)));
            ops.extend(Op::asks(at, full_name_request(&end.dev)));
            ops.extend(Op::asks(at, local(end).filter(|_| self.is_kept(end))));
            if self.up && self.is_kept(end) {
                let up = Change { up: Some(true), ..Change::default() };
                ops.push(Op::Ask(at, net::link::change_request(end.dev.index, &up)));
            }
        }
        if self.up {
            ops.push(Op::Ask(there, net::link::touch_request(peer_index)));
            ops.push(Op::Ask(here, net::link::touch_request(main_index)));
        }
        Ok(ops)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let mut deleted = false;
        for end in &self.ends {
            // With one end goes the other.
            deleted = deleted || delete_link(kernel, &end.dev)?;
        }
        if !deleted {
            self.kept().iter().try_for_each(|end| kernel.leave_changed(&end.dev))?;
        }
        self.ends.iter().filter_map(|end| end.bridge.as_ref()).try_for_each(|bridge| restore_mac(kernel, bridge))
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        for end in self.kept() {
            let made_with = self.made_with(kernel, end)?;
            if !whole::find(kernel, lab, &end.dev, made_with)?.is_whole() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A cable of which both ends are there is plugged in again, and not made again: who uses it goes on.
    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        let mut there = Vec::new();
        for end in self.kept() {
            let made_with = self.made_with(kernel, end)?;
            match whole::find(kernel, lab, &end.dev, made_with)? {
                Found::There(dev, difference) => there.push((dev, difference)),
                _ => continue,
            }
        }
        if there.len() == self.kept().len() {
            return there.iter().try_for_each(|(dev, difference)| whole::put_right(kernel, dev, difference));
        }
        if self.given {
            // Where its new owner put the other end is not known here.
            return Err(net::Error::new(self.doing(), libc::ENODEV));
        }
        // An end that somebody moved elsewhere goes with the one that is left.
        for (dev, _) in &there {
            delete_link(kernel, dev)?;
        }
        kernel.make(self)
    }
}

/// What the script named as an end.
enum Named {
    New(NetnsRef, String),
    Port(DevRef),
}

fn named(lab: &mut Lab, end: &Dynamic) -> Result<Named> {
    let doing = "add veth";
    if let Some(name) = end.clone().try_cast::<rhai::ImmutableString>() {
        name::check("device", &name)?;
        handles::know(lab, &NetnsRef::host(), &name)?;
        let is_it = |dev: &&DevEntry| dev.kind == "bridge" && dev.dev.name == name.as_str();
        if let Some(bridge) = lab.model().all_devs().find(is_it) {
            let netns = &bridge.dev.netns;
            let (whose, how) = if netns.no == 0 {
                ("the host".to_string(), format!(r#"host["{name}"]"#))
            } else {
                (format!("netns `{}`", netns.name), format!(r#"netns_get("{}")["{name}"]"#, netns.name))
            };
            return Err(Error::invalid(format!("{doing} end `{name}`"))
                .because(format!("`{name}` is a bridge of {whose}, and a text is the name of a new device of the host"))
                .hint(format!("`{how}`, or the bridge's variable, plugs the cable in")));
        }
        return Ok(Named::New(NetnsRef::host(), name.into()));
    }
    if end.clone().try_cast::<NetnsHandle>().is_some() {
        return Err(Error::invalid(doing)
            .because("an end is a device, and this is a netns")
            .hint(r#"name the device: `veth(h["eth0"], …)`"#));
    }
    let dev = crate::prim::value::units::argument::<EndDev>(doing, end.clone())?.0;
    match dev.find(lab)? {
        Some(entry) if entry.kind == "bridge" => Ok(Named::Port(entry.dev)),
        Some(entry) => Err(Error::new(Kind::Exists, format!("{doing} end {}", entry.dev.shown()))
            .because("there is a device of this name already")
            .hint("an end is a new device, or a bridge that gets a port")),
        None => Ok(Named::New(dev.netns.living(lab)?, dev.name.to_string())),
    }
}

/// What an end can be, for the message.
struct EndDev(Dev);

impl crate::prim::value::units::FromScript for EndDev {
    const WHAT: &'static str = r#"an end such as h["eth0"], a bridge, or a name"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        Dev::from_script(value).map(EndDev)
    }
}

/// Names the port of a bridge after the device at the other end of its cable.
fn port_name(lab: &mut Lab, bridge: &DevRef, other: &Named) -> Result<String> {
    let base = match other {
        Named::New(netns, name) if netns.no == bridge.netns.no => format!("{}-{name}", bridge.name),
        Named::New(netns, name) => format!("{}-{name}", netns.name),
        Named::Port(other) => format!("{}-{}", bridge.name, other.name),
    };
    // A pid or a path names a namespace too, and neither is a device's name.
    let base: String =
        base.chars().map(|c| if name::check("device", &format!("x{c}")).is_ok() { c } else { '-' }).collect();
    let base = shorter(base.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()));
    let mut taken = |name: &str| handles::find_dev(lab, &bridge.netns, name).map(|found| found.is_some());
    if !taken(&base)? {
        return Ok(base);
    }
    let mut n = 2;
    while taken(&format!("{base}-{n}"))? {
        n += 1;
    }
    Ok(format!("{base}-{n}"))
}

/// Shortens the name of a port, with room for a number behind it: the path of a namespace may be longer than any name.
fn shorter(base: &str) -> String {
    const ROOM: usize = 7;
    if base.len() + ROOM <= name::NAME_MAX {
        return base.to_string();
    }
    format!("{}-{}", &base[..100], name::short_hash(base.as_bytes()))
}

fn new_dev(lab: &mut Lab, netns: NetnsRef, name: String, mac: Option<Mac>) -> Result<DevRef> {
    let no = lab.model().next_no();
    let index = handles::next_index(lab, &netns, &netns)?;
    Ok(DevRef { no, netns, name, index, mac: Some(mac.unwrap_or_else(|| lab.new_mac(no))), made: true })
}

fn add(lab: &mut Lab, ends: [Dynamic; 2], options: &VethOptions, place: crate::state::Place) -> Result<[DevRef; 2]> {
    let [a, b] = [named(lab, &ends[0])?, named(lab, &ends[1])?];
    if let (Named::New(netns_a, name_a), Named::New(netns_b, name_b)) = (&a, &b)
        && netns_a.no == netns_b.no
        && name_a == name_b
    {
        return Err(Error::invalid(format!("add veth {0} -- {0}", shown_dev(name_a, &netns_a.name)))
            .because("both ends have the same name in the same netns"));
    }
    let mut make = |this: &Named, other: &Named, mac: Option<Mac>| {
        Ok(match this {
            Named::New(netns, name) => End { dev: new_dev(lab, netns.clone(), name.clone(), mac)?, bridge: None },
            Named::Port(bridge) => {
                let name = port_name(lab, bridge, other)?;
                End { dev: new_dev(lab, bridge.netns.clone(), name, mac)?, bridge: Some(Box::new(bridge.clone())) }
            }
        })
    };
    let mac = |mac: Option<DevMac>| mac.map(|mac| mac.0);
    let ends = [make(&a, &b, mac(options.mac))?, make(&b, &a, mac(options.peer_mac))?];
    let devs = [ends[0].dev.clone(), ends[1].dev.clone()];
    let mtu = options.mtu.map(|mtu| mtu.0);
    let ports =
        port::of_new(lab, ends.iter().filter_map(|end| Some((&end.dev, end.bridge.as_deref()?))), &options.port)?;
    let given = options.given.unwrap_or_default();
    lab.ask(AddVeth { ends, mtu, up: options.up.unwrap_or(true), given }, place.clone())?;
    ports.into_iter().try_for_each(|step| lab.ask(step, place.clone()))?;
    Ok(devs)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Lays a cable: a veth pair whose ends are made where they belong, and come up.
    ///
    /// An end is a device reference (`h["eth0"]`), a bridge, which gets a port that is named after the other end, or a plain
    /// name for a device of the host. Returns the two devices.
    ///
    /// Like `ip link add A netns N1 type veth peer name B netns N2`, then `ip link set … up` for both.
    ///
    /// Fails with `exists` where a name is taken, with `invalid` for both ends the same, and with `gone` where a namespace
    /// was removed.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"], #{ mtu: 1400 });
    /// a["eth0"].addr("10.0.0.1/24");
    /// b["eth0"].addr("10.0.0.2/24");
    /// assert(a.ping("10.0.0.2").ok);
    /// assert(b["eth0"].mtu == 1400);
    /// ```
    #[rhai_fn(name = "veth", return_raw)]
    pub fn veth_with(ctx: NativeCallContext, end: Dynamic, other: Dynamic, options: Map) -> RhaiResultOf<rhai::Array> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = VethOptions::parse(options)?;
            let given = options.given.unwrap_or_default();
            let [first, second] = add(lab, [end, other], &options, place)?;
            // One that is given away is looked for under its name, as any device of others.
            let first = match given {
                true => Dev::named(NetnsHandle::new(first.netns.clone()), &first.name),
                false => Dev::known(&first),
            };
            Ok([first, Dev::known(&second)].into_iter().map(Dynamic::from).collect())
        })
    }

    /// Lays a cable with default options: both ends up, MTU 1500.
    #[rhai_fn(name = "veth", return_raw)]
    pub fn veth(ctx: NativeCallContext, end: Dynamic, other: Dynamic) -> RhaiResultOf<rhai::Array> {
        veth_with(ctx, end, other, Map::new())
    }
}
