//! Devices whose other end is a program: tap, tun.

use rhai::plugin::*;
use rhai::{Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::made::{self, check_free, delete_made};
use super::new_link;
use super::whole;
use crate::lab::{DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort, Unfinished, add_link_local};
use crate::net::{self, Change, Tap};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevMac, Id, Mtu};
use crate::state::{DevRef, Place, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "tap",
    about: "Devices whose other end is a program.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddTap)],
    options: &[TapOptions::SET, TunOptions::SET],
};

options! {
    /// Options of `tap`.
    pub struct TapOptions of "tap" {
        /// The number of the user who may open it without any rights; nobody unless given.
        owner: Id,
        /// The number of the group whose members may open it; none unless given.
        group: Id,
        /// Whether several programs, or threads, can have a queue of it each; false unless given.
        multi_queue: bool,
        /// Whether each frame has the header that virtual machines use for large ones; false unless given.
        vnet_hdr: bool,
        /// The MTU; 1500 unless given.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

options! {
    /// Options of `tun`.
    pub struct TunOptions of "tun" {
        /// The number of the user who may open it without any rights; nobody unless given.
        owner: Id,
        /// The number of the group whose members may open it; none unless given.
        group: Id,
        /// Whether several programs, or threads, can have a queue of it each; false unless given.
        multi_queue: bool,
        /// The MTU; 1500 unless given.
        mtu: Mtu,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

/// Adds a device whose other end is a program.
#[derive(Debug, Serialize, Deserialize)]
struct AddTap {
    dev: DevRef,
    tap: Tap,
    mtu: Option<u32>,
    up: bool,
}

impl AddTap {
    fn made_with(&self) -> whole::Shape {
        whole::Shape { up: self.up, mtu: self.mtu, ..whole::Shape::default() }
    }
}

impl StepSort for AddTap {
    const WORD: &'static str = "tap";
}

impl Step for AddTap {
    fn doing(&self) -> String {
        format!("add {} {}", self.tap.mode(), self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let (ip, short) = (ip(&self.dev.netns), name::kernel_name(&self.dev.name));
        let mac = self.dev.mac.map_or(String::new(), |mac| format!(" address {mac}"));
        let mtu = self.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        let up = if self.up { " up" } else { "" };
        let mut like = vec![format!("{ip} tuntap add dev {short} {}", self.tap.words())];
        if !(mac.is_empty() && mtu.is_empty() && up.is_empty()) {
            like.push(format!("{ip} link set dev {short}{mac}{mtu}{up}"));
        }
        like
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            makes_devs: vec![&self.dev],
            wakes: vec![&self.dev],
            // A program that has it open keeps the namespace, and it, alive: it is deleted first.
            lives_in: vec![&self.dev.netns],
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.dev.netns)?;
        check_free(model, &self.dev, &self.doing())?;
        model.add_dev(DevEntry {
            about: self.tap.words(),
            up: Some(self.up),
            ..DevEntry::new(self.dev.clone(), "tun")
        });
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let (netns, rtnl) = (kernel.netns(&self.dev.netns)?, kernel.rtnl(&self.dev.netns)?);
            let new = net::add_tap(&netns, &name::kernel_name(&self.dev.name), self.dev.index, &self.tap)?;
            // It ends with this process until it is kept, which is when it can be told by its address and mark.
            let mark = kernel.mark().to_string();
            let change = Change { mac: self.dev.mac, mtu: self.mtu, alias: Some(&mark), ..Change::default() };
            net::link::change(&rtnl, self.dev.index, &change)?;
            new.keep()?;
            add_link_local(kernel, &self.dev)?;
            made::finish(kernel, &self.dev, self.up)
        })
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        match refusal.errno() {
            _ if refusal.is_unsupported() => {
                Some(format!("this kernel lacks {}: {}", self.tap.mode(), net::TUN.lacking()))
            }
            libc::EACCES => Some("/dev/net/tun may not be opened: the right to read and write it is missing".into()),
            libc::EBUSY => Some("something else has a device of this name".into()),
            _ => None,
        }
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        delete_made(kernel, &self.dev)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        Ok(whole::find(kernel, lab, &self.dev, self.made_with())?.is_whole())
    }

    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        whole::mend(kernel, lab, &self.dev, self.made_with(), |kernel| kernel.make(self))
    }
}

/// What both kinds take.
struct Given {
    mtu: Option<Mtu>,
    mac: Option<DevMac>,
    up: Option<bool>,
}

fn add(lab: &mut Lab, end: Dynamic, tap: Tap, given: Given, place: Place) -> Result<Dev> {
    let dev = new_link::wanted(lab, tap.mode(), end)?;
    let dev = new_link::number(lab, &dev, None, |lab, no| match given.mac {
        _ if !tap.ethernet => None,
        Some(mac) => Some(mac.0),
        None => Some(lab.new_mac(no)),
    })?;
    let known = Dev::known(&dev);
    lab.ask(AddTap { dev, tap, mtu: given.mtu.map(|mtu| mtu.0), up: given.up.unwrap_or(true) }, place)?;
    Ok(known)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a device whose cable ends in a program, such as a virtual machine, which opens it at /dev/net/tun by its name and reads and
    /// writes Ethernet frames; it comes up. It has no carrier before a program has opened it, and stays when that ends.
    ///
    /// Like `ip tuntap add dev NAME mode tap`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, with `denied` where /dev/net/tun may not be opened, and with `unsupported` where
    /// the kernel lacks CONFIG_TUN.
    ///
    /// ```rhai
    /// let vm = netns("vm");
    /// let br = vm.bridge("br0");
    /// try {
    ///     let dev = tap(vm["tap0"], #{ owner: 1000 });
    ///     br.attach(dev);
    ///     assert(dev.kind == "tun" && dev.state == "no carrier");
    /// } catch (e) {
    ///     assert(e.kind == "unsupported" || e.kind == "denied", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "tap", return_raw)]
    pub fn tap_with(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let TapOptions { owner, group, multi_queue, vnet_hdr, mtu, mac, up } = TapOptions::parse(options)?;
            let tap = Tap {
                ethernet: true,
                user: owner.map(|id| id.0),
                group: group.map(|id| id.0),
                multi_queue: multi_queue == Some(true),
                vnet_hdr: vnet_hdr == Some(true),
            };
            add(lab, end, tap, Given { mtu, mac, up }, place)
        })
    }

    /// Adds a device whose cable ends in a program, with default options.
    #[rhai_fn(name = "tap", return_raw)]
    pub fn tap(ctx: NativeCallContext, end: Dynamic) -> RhaiResultOf<Dev> {
        tap_with(ctx, end, Map::new())
    }

    /// Adds a device like `tap` whose program reads and writes IP packets without Ethernet, such as a VPN; it comes up.
    ///
    /// Like `ip tuntap add dev NAME mode tun`, then `ip link set … up`.
    ///
    /// Fails with what `tap` fails with.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// try {
    ///     tun(h["tun0"]).addr("10.0.0.1/30");
    ///     assert(h["tun0"].mac == "");
    /// } catch (e) {
    ///     assert(e.kind == "unsupported" || e.kind == "denied", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "tun", return_raw)]
    pub fn tun_with(ctx: NativeCallContext, end: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let TunOptions { owner, group, multi_queue, mtu, up } = TunOptions::parse(options)?;
            let tap = Tap {
                ethernet: false,
                user: owner.map(|id| id.0),
                group: group.map(|id| id.0),
                multi_queue: multi_queue == Some(true),
                vnet_hdr: false,
            };
            add(lab, end, tap, Given { mtu, mac: None, up }, place)
        })
    }

    /// Adds a device whose program reads and writes IP packets, with default options.
    #[rhai_fn(name = "tun", return_raw)]
    pub fn tun(ctx: NativeCallContext, end: Dynamic) -> RhaiResultOf<Dev> {
        tun_with(ctx, end, Map::new())
    }
}
