//! Devices on top of another one: several hosts on one cable, without a bridge.

use rhai::plugin::*;
use rhai::{Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::Group;
use super::context::{RhaiResultOf, place_of, with_lab};
use super::dev_change::add_link_local;
use super::handles::{self, Dev, NetnsHandle};
use super::options::options;
use super::units::{self, DevMac, FromScript, Mtu};
use super::veth::{add_full_name, check_free, delete_link, ip};
use crate::lab::{DevEntry, DevRef, Error, Kernel, Kind, Lab, Model, NetnsAt, NetnsRef, Place, Result, Step, name};
use crate::net::{self, Change, IpvlanMode, Mac, MacvlanMode, NewLink, Stacked};
use crate::{step_identity, step_sort};

pub(super) const GROUP: Group = Group {
    name: "links",
    about: "Devices on top of another one, which share its cable.",
    module: || exported_module!(functions),
    steps: &[step_sort!("stacked", AddStacked)],
    options: &[MacvlanOptions::SET, IpvlanOptions::SET],
};

options! {
    /// Options of `macvlan`.
    pub struct MacvlanOptions of "macvlan" {
        /// Whom it hears of those on the same device: the others in this mode with `bridge`, nobody with `private`, those whose
        /// frames the switch sends back with `vepa`; with `passthru` there are no others. `bridge` unless given.
        mode: MacvlanMode,
        /// The MTU; that of the device below unless given, which is also the most.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

options! {
    /// Options of `ipvlan`.
    pub struct IpvlanOptions of "ipvlan" {
        /// What it does by itself: its own neighbours with `l2`, nothing below IP with `l3` and `l3s`, where the namespace of the
        /// device below routes for it. `l2` unless given.
        mode: IpvlanMode,
        /// The MTU; that of the device below unless given.
        mtu: Mtu,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

impl FromScript for MacvlanMode {
    const WHAT: &'static str = r#"one of "bridge", "private", "vepa" and "passthru""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let modes = [MacvlanMode::Bridge, MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Passthru];
        let word = value.into_string().map_err(|_| String::new())?;
        modes.into_iter().find(|mode| Stacked::Macvlan(*mode).mode() == word).ok_or_else(String::new)
    }
}

impl FromScript for IpvlanMode {
    const WHAT: &'static str = r#"one of "l2", "l3" and "l3s""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let word = value.into_string().map_err(|_| String::new())?;
        let mut modes = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s].into_iter();
        modes.find(|mode| Stacked::Ipvlan(*mode).mode() == word).ok_or_else(String::new)
    }
}

/// A new device: a reference to one that isn't there yet, or a name on the host.
enum NewDev {
    Dev(Dev),
    Name(String),
}

impl FromScript for NewDev {
    const WHAT: &'static str = r#"a new device such as h["eth0"], or a name"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        match value.clone().try_cast::<Dev>() {
            Some(dev) => Ok(NewDev::Dev(dev)),
            None => value.into_string().map(NewDev::Name).map_err(|_| String::new()),
        }
    }
}

/// Adds a device on top of another one.
#[derive(Debug, Serialize, Deserialize)]
struct AddStacked {
    dev: DevRef,
    parent: DevRef,
    #[serde(flatten)]
    stacked: Stacked,
    mtu: Option<u32>,
    up: bool,
}

impl Step for AddStacked {
    step_identity!("stacked");

    fn doing(&self) -> String {
        format!("add {} {} on {}", self.stacked.kind(), self.dev.shown(), self.parent.shown())
    }

    fn like(&self) -> Vec<String> {
        let (short, below) = (name::kernel_name(&self.dev.name), name::kernel_name(&self.parent.name));
        let netns = match (&self.dev.netns, &self.parent.netns) {
            (there, here) if there.no == here.no => String::new(),
            // As `ip` names the namespace that it runs in: by its first process.
            (there, _) if there.at == NetnsAt::Host => " netns 1".into(),
            (there, _) => format!(" netns {}", there.name),
        };
        let mac = self.dev.mac.filter(|_| !self.stacked.shares_mac());
        let mac = mac.map_or(String::new(), |mac| format!(" address {mac}"));
        let mtu = self.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        let ip_below = ip(&self.parent.netns);
        let mut like = vec![format!("{ip_below} link add link {below} {short}{netns}{mac}{mtu} type {}", self.stacked)];
        if self.up {
            like.push(format!("{} link set dev {short} up", ip(&self.dev.netns)));
        }
        like
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.dev.netns)?;
        model.living_dev(self.parent.no, &self.parent.shown())?;
        check_free(model, &self.dev, &self.doing())?;
        let kind = self.stacked.kind();
        if let Some(other) = model.all_devs().find(|dev| dev.parent == Some(self.parent.no) && dev.kind != kind) {
            return Err(Error::invalid(self.doing()).because(format!(
                "{} is on it, and a device has {kind}s or {}s on top, not both",
                other.dev.shown(),
                other.kind
            )));
        }
        model.add_dev(DevEntry { parent: Some(self.parent.no), ..DevEntry::new(self.dev.clone(), kind) });
        Ok(())
    }

    fn unplan(&self, model: &mut Model, why: &str) {
        model.remove_dev(self.dev.no, why);
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        let (netns, below) = (kernel.netns(&self.dev.netns)?, kernel.rtnl(&self.parent.netns)?);
        let short = name::kernel_name(&self.dev.name);
        let mac = self.dev.mac.unwrap_or(Mac([0; 6]));
        let link = NewLink { name: &short, index: self.dev.index, mac, mtu: self.mtu };
        kernel.run(net::link::add_stacked(&below, &link, &netns, self.parent.index, self.stacked))?;
        // Of those that share one hardware address the kernel tells the link-local addresses apart (dev_id of ipvlan).
        if !self.stacked.shares_mac() {
            add_link_local(kernel, &self.dev)?;
        }
        let mark = kernel.mark().to_string();
        let rtnl = kernel.rtnl(&self.dev.netns)?;
        let change = Change { up: self.up.then_some(true), alias: Some(&mark), ..Change::default() };
        kernel.run(net::link::change(&rtnl, self.dev.index, &change))?;
        add_full_name(kernel, &self.dev)
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        let below = self.parent.shown();
        match self.stacked {
            Stacked::Ipvlan(IpvlanMode::L3s) if refusal.is_unsupported() => {
                Some("this kernel lacks CONFIG_IPVLAN_L3S, or all of ipvlan: CONFIG_IPVLAN, module `ipvlan`".into())
            }
            stacked if refusal.is_unsupported() => {
                let kind = stacked.kind();
                Some(format!("this kernel lacks {kind}: CONFIG_{}, module `{kind}`", kind.to_uppercase()))
            }
            _ if refusal.errno() == libc::EBUSY => Some(format!(
                "{below} is a port of a bridge, or has devices of another kind on top: put it on the bridge itself"
            )),
            _ if refusal.errno() == libc::EADDRINUSE => Some("another device on it has that hardware address".into()),
            _ if refusal.errno() == libc::EINVAL && self.mtu.is_some() => {
                Some(format!("its MTU is at most that of {below}"))
            }
            Stacked::Macvlan(_) if refusal.errno() == libc::EINVAL => {
                Some(format!("{below} must be of Ethernet, and a macvlan in mode `passthru` has it for itself"))
            }
            _ => None,
        }
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

    // Somebody else's device is as before once what is on it is gone, which a namespace that ends by and by can't promise.
    fn lives_in(&self) -> Vec<&NetnsRef> {
        if self.parent.made { vec![&self.dev.netns, &self.parent.netns] } else { Vec::new() }
    }

    fn lives_on(&self) -> Option<&DevRef> {
        Some(&self.parent)
    }
}

/// Adds a device on top of `parent`; the model knows the hardware address that it will have.
fn add(
    lab: &mut Lab,
    end: Dynamic,
    parent: &Dev,
    stacked: Stacked,
    (mtu, mac, up): (Option<Mtu>, Option<DevMac>, Option<bool>),
    place: Place,
) -> Result<Dev> {
    let doing = format!("add {}", stacked.kind());
    let dev = match units::argument::<NewDev>(&doing, end)? {
        NewDev::Dev(dev) => dev,
        NewDev::Name(name) => {
            name::check("device", &name)?;
            Dev::named(NetnsHandle::new(NetnsRef::host()), &name)
        }
    };
    let doing = format!("add {} {} on {}", stacked.kind(), dev.shown(), parent.shown());
    if stacked.shares_mac() && mac.is_some() {
        return Err(Error::invalid(doing)
            .because(format!("in mode `{}` it has the hardware address of the device below", stacked.mode())));
    }
    let below = parent.existing(lab)?;
    if below.controller.is_some() {
        return Err(Error::invalid(doing)
            .because(format!("{} is a port of a bridge", below.dev.shown()))
            .hint("put it on the bridge itself"));
    }
    if dev.find(lab)?.is_some() {
        return Err(Error::new(Kind::Exists, doing).because("there is a device of this name already"));
    }
    let netns = dev.netns.living(lab)?;
    let no = lab.model().next_no();
    let index = lab.model().next_index_beside(netns.no, below.dev.netns.no);
    let mac = match (stacked.shares_mac(), mac) {
        (true, _) => below.dev.mac,
        (false, Some(mac)) => Some(mac.0),
        (false, None) => Some(lab.new_mac(no)),
    };
    let dev = DevRef { no, netns, name: dev.name.to_string(), index, mac, made: true };
    let (mtu, up) = (mtu.map(|mtu| mtu.0), up.unwrap_or(true));
    handles::load(lab, &dev.netns)?;
    lab.ask(AddStacked { dev: dev.clone(), parent: below.dev, stacked, mtu, up }, place)?;
    Ok(Dev::known(&dev))
}

/// What a script can call.
#[export_module]
pub mod functions {
    /// Puts a device with a hardware address of its own on top of another one, whose cable it shares, and which may be in
    /// another namespace; it comes up. It hears all that is behind that cable, but never the device below itself.
    ///
    /// The new device is a reference (`h["eth0"]`), or a plain name for a device of the host.
    ///
    /// Like `ip link add link PARENT NAME netns NETNS type macvlan mode bridge`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, with `invalid` where the device below is a port of a bridge or has ipvlans
    /// on top, and with `unsupported` where the kernel lacks CONFIG_MACVLAN.
    ///
    /// ```rhai
    /// let router = netns("router");
    /// veth(router["eth0"], "lan0");
    /// router["eth0"].addr("10.0.0.254/24");
    /// for n in 1..=2 {
    ///     let h = netns(`h${n}`);
    ///     macvlan(h["eth0"], host["lan0"]);
    ///     h["eth0"].addr(`10.0.0.${n}/24`);
    /// }
    /// assert(netns_get("h1").ping("10.0.0.254"));
    /// assert(netns_get("h1").ping("10.0.0.2"));
    /// ```
    #[rhai_fn(name = "macvlan", return_raw)]
    pub fn macvlan_with(ctx: NativeCallContext, end: Dynamic, parent: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let MacvlanOptions { mode, mtu, mac, up } = MacvlanOptions::parse(options)?;
            let stacked = Stacked::Macvlan(mode.unwrap_or(MacvlanMode::Bridge));
            add(lab, end, &parent, stacked, (mtu, mac, up), place)
        })
    }

    /// Puts a macvlan with default options on top of a device: mode `bridge`, up.
    #[rhai_fn(name = "macvlan", return_raw)]
    pub fn macvlan(ctx: NativeCallContext, end: Dynamic, parent: Dev) -> RhaiResultOf<Dev> {
        macvlan_with(ctx, end, parent, Map::new())
    }

    /// Puts a device on top of another one, whose cable and hardware address it shares, and which may be in another namespace;
    /// it comes up. For cables behind which only one hardware address is let in, as in many clouds and on Wi-Fi.
    ///
    /// The new device is a reference (`h["eth0"]`), or a plain name for a device of the host.
    ///
    /// Like `ip link add link PARENT NAME netns NETNS type ipvlan mode l2`, then `ip link set … up`.
    ///
    /// Fails with `exists` where the name is taken, with `invalid` where the device below is a port of a bridge or has
    /// macvlans on top, and with `unsupported` where the kernel lacks CONFIG_IPVLAN.
    ///
    /// ```rhai
    /// let router = netns("router");
    /// let h = netns("h1");
    /// veth(router["eth0"], "lan0");
    /// router["eth0"].addr("10.0.0.254/24");
    /// try {
    ///     ipvlan(h["eth0"], host["lan0"]);
    ///     h["eth0"].addr("10.0.0.1/24");
    ///     assert(h.ping("10.0.0.254"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "ipvlan", return_raw)]
    pub fn ipvlan_with(ctx: NativeCallContext, end: Dynamic, parent: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let IpvlanOptions { mode, mtu, up } = IpvlanOptions::parse(options)?;
            let stacked = Stacked::Ipvlan(mode.unwrap_or(IpvlanMode::L2));
            add(lab, end, &parent, stacked, (mtu, None, up), place)
        })
    }

    /// Puts an ipvlan with default options on top of a device: mode `l2`, up.
    #[rhai_fn(name = "ipvlan", return_raw)]
    pub fn ipvlan(ctx: NativeCallContext, end: Dynamic, parent: Dev) -> RhaiResultOf<Dev> {
        ipvlan_with(ctx, end, parent, Map::new())
    }
}
