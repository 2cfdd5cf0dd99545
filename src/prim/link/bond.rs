//! Bonds: several cables as one.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::attach;
use super::new_link::{self, Given};
use crate::lab::{DevEntry, Lab};
use crate::net::link::kind::{Bond, BondMode, FailOverMac, LacpRate, Primary, XmitHashPolicy};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::units::{self, Count, DevMac, Devs, Mtu};
use crate::state::{Error, Result, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "bond",
    about: "Several cables as one.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[BondOptions::SET],
};

options! {
    /// Options of `bond`.
    pub struct BondOptions of "bond" {
        /// Which of its devices it sends by: one, and another when that fails, with `active-backup`; as the other side agrees to by
        /// LACP with `802.3ad`; each in turn with `balance-rr`; all with `broadcast`. `active-backup` unless given.
        mode: BondMode,
        /// How often it looks whether its devices have a carrier; 100 ms unless given.
        miimon: Duration,
        /// How long a device must have its carrier before it is used; not at all unless given.
        updelay: Duration,
        /// How long a device must have lost its carrier before it is given up; not at all unless given.
        downdelay: Duration,
        /// The device that it sends by whenever that has a carrier; none unless given.
        primary: Dev,
        /// What packets are spread by, in the modes that spread them; `layer2` unless given.
        xmit_hash_policy: XmitHashPolicy,
        /// How often the other side shall speak LACP; `slow` unless given.
        lacp_rate: LacpRate,
        /// How many devices must have a carrier for the bond to have one; 1 unless given.
        min_links: Count,
        /// Whose hardware address it has: its own, which its devices get too, with `none`, which it is unless given; that of the
        /// device that it sends by with `active`; its own, which only that device gets, with `follow`.
        fail_over_mac: FailOverMac,
        /// The MTU, which its devices get too; 1500 unless given.
        mtu: Mtu,
        /// The hardware address; a random one of our own range unless given.
        mac: DevMac,
        /// Whether it comes up; true unless given.
        up: bool,
    }
}

/// Returns the device that is preferred, which must be one of the bond's.
fn primary_of(lab: &mut Lab, dev: &Dev, ports: &[DevEntry], mode: BondMode, doing: &str) -> Result<Primary> {
    let entry = dev.existing(lab)?;
    if !ports.iter().any(|port| port.dev.no == entry.dev.no) {
        return Err(Error::invalid(doing).because(format!("its `primary`, {}, is none of its devices", dev.shown())));
    }
    if !matches!(mode, BondMode::ActiveBackup | BondMode::BalanceTlb | BondMode::BalanceAlb) {
        return Err(Error::invalid(doing).because(format!("in mode `{}` there is no `primary`", mode.word())));
    }
    Ok(Primary { index: entry.dev.index, name: name::kernel_name(&entry.dev.name) })
}

fn millis(time: Option<Duration>) -> Option<u32> {
    time.map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Makes one device of several, which goes on when a cable of theirs fails; it comes up. The devices are in its own namespace.
    /// `attach` and `detach` change later which they are, `ports` lists them.
    ///
    /// Like `ip link add NAME type bond mode active-backup miimon 100`, `ip link set dev DEV down master NAME` for each, then
    /// `ip link set … up`.
    ///
    /// Fails with `invalid` without a device or for one in another namespace, with `exists` where the name is taken or a device is
    /// part of something already, and with `unsupported` where the kernel lacks CONFIG_BONDING.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// for n in 0..2 { veth(a[`eth${n}`], b[`eth${n}`]); }
    /// try {
    ///     bond(a["bond0"], [a["eth0"], a["eth1"]]).addr("10.0.0.1/24");
    ///     bond(b["bond0"], [b["eth0"], b["eth1"]]).addr("10.0.0.2/24");
    ///     assert(a.ping("10.0.0.2"));
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "bond", return_raw)]
    pub fn bond_with(ctx: NativeCallContext, end: Dynamic, devs: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = BondOptions::parse(options)?;
            let dev = new_link::wanted(lab, "bond", end)?;
            let doing = format!("add bond {}", dev.shown());
            let Devs(devs) = units::argument(&doing, devs)?;
            if devs.is_empty() {
                return Err(Error::invalid(doing).because("it has no devices: at least one is needed"));
            }
            let netns = dev.netns.living(lab)?;
            let mut ports: Vec<DevEntry> = Vec::new();
            for port in &devs {
                let port = port.existing(lab)?;
                attach::check_bondable(lab, &port, &netns, &doing)?;
                if ports.iter().any(|other| other.dev.no == port.dev.no) {
                    return Err(Error::invalid(doing).because(format!("{} is given twice", port.dev.shown())));
                }
                ports.push(port);
            }
            let mode = options.mode.unwrap_or(BondMode::ActiveBackup);
            let primary = options.primary.as_ref().map(|dev| primary_of(lab, dev, &ports, mode, &doing)).transpose()?;
            let miimon = millis(options.miimon).unwrap_or(100);
            let (updelay, downdelay) = (millis(options.updelay), millis(options.downdelay));
            if miimon == 0 && (updelay.is_some() || downdelay.is_some()) {
                return Err(Error::invalid(doing).because("`updelay` and `downdelay` go by `miimon`, which is off"));
            }
            if options.lacp_rate.is_some() && mode != BondMode::Lacp {
                return Err(Error::invalid(doing).because(format!("in mode `{}` there is no LACP", mode.word())));
            }
            let kind = Bond {
                mode,
                miimon,
                updelay,
                downdelay,
                primary,
                xmit_hash_policy: options.xmit_hash_policy,
                lacp_rate: options.lacp_rate,
                min_links: options.min_links.map(|count| count.0),
                fail_over_mac: options.fail_over_mac,
            };
            let given = Given { mtu: options.mtu, mac: options.mac, up: options.up };
            let made = new_link::ask(lab, &dev, None, kind, given, place.clone())?;
            let bond = made.existing(lab)?;
            for port in ports {
                attach::ask(lab, &bond, port.dev, attach::PortSettings::default(), place.clone())?;
            }
            Ok(made)
        })
    }

    /// Makes one device of several, with default options: mode `active-backup`, a look at the carriers every 100 ms.
    #[rhai_fn(name = "bond", return_raw)]
    pub fn bond(ctx: NativeCallContext, end: Dynamic, devs: Dynamic) -> RhaiResultOf<Dev> {
        bond_with(ctx, end, devs, Map::new())
    }
}
