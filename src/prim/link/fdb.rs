//! Forwarding tables: which hardware address is behind which host of a VXLAN, or which port of a bridge.

use std::net::IpAddr;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::whole;
use crate::lab::{Footprint, Kernel, Model, Op, Outcome, Step, StepSort};
use crate::net::{self, Fdb, Mac};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::tool;
use crate::prim::value::handles::{self, Dev};
use crate::prim::value::options::options;
use crate::prim::value::units::{self, UdpPort, VlanId, Vni};
use crate::prim::value::value::Ip;
use crate::state::{DevRef, Error, Kind, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "fdb",
    about: "Forwarding tables: behind what a hardware address is.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddFdb)],
    options: &[FdbOptions::SET],
};

options! {
    /// Options of `fdb`.
    pub struct FdbOptions of "fdb" {
        /// The host behind which the address is; of a VXLAN, which needs it.
        dst: IpAddr,
        /// The same as `dst`.
        via: IpAddr,
        /// The number that the network has at that host, where it is another one; of a VXLAN.
        vni: Vni,
        /// The UDP port of that host, where it is another one; of a VXLAN.
        port: UdpPort,
        /// The VLAN in which the address is; of a bridge's port.
        vlan: VlanId,
        /// Whether the entry is in the table of the bridge that the device is a port of; true unless given, of a VXLAN false.
        master: bool,
    }
}

/// Adds an entry that stays to a forwarding table.
#[derive(Debug, Serialize, Deserialize)]
struct AddFdb {
    dev: DevRef,
    #[serde(flatten)]
    fdb: Fdb,
}

impl AddFdb {
    fn is_there(&self, kernel: &mut Kernel) -> net::Result<bool> {
        let entries = kernel.fdb(&self.dev.netns)?;
        Ok(entries.iter().any(|one| one.index == self.dev.index && one.fdb == self.fdb && one.state != "learned"))
    }
}

impl StepSort for AddFdb {
    const WORD: &'static str = "fdb";
}

impl Step for AddFdb {
    fn doing(&self) -> String {
        let behind = self.fdb.dst.map_or(String::new(), |dst| format!(" behind `{dst}`"));
        format!("add `{}`{behind} to the forwarding table of {}", self.fdb.mac, self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let (bridge, short) = (tool("bridge", &self.dev.netns), name::kernel_name(&self.dev.name));
        let number = |key: &str, value: Option<u32>| value.map_or(String::new(), |value| format!(" {key} {value}"));
        let (vni, port) = (number("vni", self.fdb.vni), number("port", self.fdb.port.map(u32::from)));
        let vlan = number("vlan", self.fdb.vlan.map(u32::from));
        vec![match self.fdb.dst {
            Some(dst) => format!("{bridge} fdb append {} dev {short} dst {dst}{vni}{port}", self.fdb.mac),
            None => format!("{bridge} fdb replace {} dev {short} master static{vlan}", self.fdb.mac),
        }]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.dev.netns],
            lives_on: Some(&self.dev),
            is_atomic: true,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        let entry = model.living_dev(self.dev.no, &self.dev.shown())?;
        if entry.fdb.contains(&self.fdb) {
            return Err(Error::new(Kind::Exists, self.doing()).because("it has this entry already"));
        }
        if let Some(entry) = model.dev_mut(self.dev.no) {
            entry.fdb.push(self.fdb.clone());
        }
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        if let Some(entry) = model.dev_mut(self.dev.no) {
            entry.fdb.retain(|one| *one != self.fdb);
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        // Another's, which an undo would take for ours.
        if !self.dev.made && !self.dev.netns.made && self.is_there(kernel)? {
            return Err(net::Error::new(self.doing(), libc::EEXIST));
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let rtnl = kernel.rtnl(&self.dev.netns)?;
            match net::link::fdb::add(&rtnl, self.dev.index, &self.fdb) {
                // Not a lack of the kernel's.
                Err(error) if error.errno() == libc::EAFNOSUPPORT => Err(net::Error::because(
                    self.doing(),
                    libc::EINVAL,
                    "the addresses of this VXLAN are of the other version of IP",
                )),
                done => done,
            }
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if kernel.link(&self.dev)?.is_none() || !self.is_there(kernel)? {
            return Ok(());
        }
        let rtnl = kernel.rtnl(&self.dev.netns)?;
        net::link::fdb::delete(&rtnl, self.dev.index, &self.fdb)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        match whole::there(kernel, lab, &self.dev)? {
            // A port that is out of its bridge has no entries there, and who plugged it in answers for that.
            Some((_, link)) if self.fdb.dst.is_some() || link.controller.is_some() => self.is_there(kernel),
            _ => Ok(true),
        }
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds an entry that stays to a forwarding table: a VXLAN sends what is for a hardware address to the host `dst`, a bridge by the
    /// port that this is called on. Of a VXLAN, `00:00:00:00:00:00` stands for all addresses that it doesn't know and for
    /// broadcasts, and may be behind several hosts, which all get them.
    ///
    /// A VXLAN that is a port of a bridge has an address twice: `dst` says behind which host, `master: true` tells the bridge to send
    /// what is for it to the VXLAN. What was learnt gives way to what is added.
    ///
    /// Like `bridge fdb append MAC dev DEV dst IP`, or `bridge fdb replace MAC dev DEV master static` for a port.
    ///
    /// Fails with `invalid` for a device that is neither a VXLAN nor a bridge's port, for a VXLAN with neither `dst` nor `master`, and
    /// with `exists` where somebody has added the address.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// veth(a["eth0"], netns("b")["eth0"]);
    /// a["eth0"].addr("192.0.2.1/24");
    /// let vx = vxlan(a["vx0"], 42, #{ local: "192.0.2.1", learning: false });
    /// vx.fdb("00:00:00:00:00:00", #{ dst: "192.0.2.2" });
    /// vx.fdb("02:00:00:00:00:09", #{ dst: "192.0.2.2" });
    /// assert(vx.fdb().some(|e| e.mac == "02:00:00:00:00:09" && e.dst == ip("192.0.2.2")));
    /// a.bridge("br0").attach(vx, #{ learning: false });
    /// vx.fdb("02:00:00:00:00:09", #{ master: true });
    /// assert(vx.fdb().some(|e| e.mac == "02:00:00:00:00:09" && e.master));
    /// ```
    #[rhai_fn(name = "fdb", return_raw)]
    pub fn fdb_with(ctx: NativeCallContext, dev: Dev, mac: Dynamic, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = FdbOptions::parse(options)?;
            let doing = format!("add to the forwarding table of {}", dev.shown());
            let mac: Mac = units::argument(&doing, mac)?;
            let wrong = |because: String| Err(Error::invalid(&*doing).because(because));
            let entry = dev.existing(lab)?;
            let dst = match (options.dst, options.via) {
                (Some(_), Some(_)) => return wrong("`dst` and `via` are the same: give one of them".into()),
                (dst, via) => dst.or(via),
            };
            // A VXLAN that is a port of a bridge has two tables: its own, and its place in the bridge's.
            let kind = if options.master == Some(true) { "" } else { &*entry.kind };
            match (kind, dst) {
                ("", Some(_)) => {
                    return wrong("`dst` is for a VXLAN's own table, and `master` for its bridge's".into());
                }
                ("vxlan", Some(dst)) if dst.is_unspecified() => return wrong(format!("{dst} is no host's address")),
                ("vxlan", Some(_)) if options.vlan.is_some() => return wrong("a VXLAN's table has no VLANs".into()),
                ("vxlan", Some(_)) => {}
                ("vxlan", None) => {
                    let error = Error::invalid(&*doing).because("a VXLAN needs to know the host, `dst`");
                    return Err(
                        error.hint("`master: true` adds it to the table of the bridge that the VXLAN is a port of")
                    );
                }
                _ if options.master == Some(false) => {
                    return wrong(format!("only a VXLAN has a table of its own, and {} is none", dev.shown()));
                }
                (_, Some(_)) => return wrong(format!("`dst` is for a VXLAN, and {} is none", dev.shown())),
                _ if options.vni.is_some() || options.port.is_some() => {
                    return wrong(format!("`vni` and `port` are for a VXLAN, and {} is none", dev.shown()));
                }
                // A device of others may be a port of theirs, which the kernel knows.
                _ if entry.dev.made && entry.controller.is_none() => {
                    let what = if kind.is_empty() { "not" } else { "neither a VXLAN nor" };
                    return wrong(format!("{} is {what} a port of a bridge", dev.shown()));
                }
                _ if mac.0[0] & 1 == 1 || mac == Mac([0; 6]) => {
                    return wrong(format!("{mac} is no device's address"));
                }
                _ => {}
            }
            let fdb = Fdb {
                mac,
                dst,
                vni: options.vni.map(|vni| vni.0),
                port: options.port.map(|port| port.0),
                vlan: options.vlan.map(|vlan| vlan.0),
            };
            lab.ask(AddFdb { dev: entry.dev, fdb }, place)
        })?;
        Ok(dev)
    }

    /// Adds a hardware address behind a port to the forwarding table of its bridge.
    #[rhai_fn(name = "fdb", return_raw)]
    pub fn fdb_add(ctx: NativeCallContext, dev: Dev, mac: Dynamic) -> RhaiResultOf<Dev> {
        fdb_with(ctx, dev, mac, Map::new())
    }

    /// Returns what a VXLAN, a port of a bridge or a bridge has in its forwarding table, as maps with `mac`, `dev`, `dst`, `vni`, `port`,
    /// `vlan`, `master` and `state`: `learned`, `static`, or `permanent`. `master` is whether the entry is in the bridge's table. What an
    /// entry has not is `()`.
    ///
    /// Like `bridge fdb show dev DEV`, or `bridge fdb show br BRIDGE`.
    ///
    /// Fails with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let ends = veth(h["eth0"], bridge("br0"));
    /// ends[1].fdb("02:00:00:00:00:09");
    /// assert(ends[1].fdb().some(|e| e.mac == "02:00:00:00:00:09" && e.state == "static"));
    /// ```
    #[rhai_fn(name = "fdb", return_raw)]
    pub fn fdb_list(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let doing = format!("list the forwarding table of {}", dev.shown());
            let entry = dev.existing(lab)?;
            let (at, index) = (entry.dev.netns, entry.dev.index);
            let both = |rtnl: &net::Netlink| Ok((net::link::fdb::list(rtnl)?, net::link::list(rtnl)?));
            let (entries, links) = handles::look(lab, &at, &doing, both)?;
            let is_port = |of: u32| links.iter().any(|link| link.index == of && link.controller == Some(index));
            let number = |value: Option<u32>| value.map_or(Dynamic::UNIT, |value| i64::from(value).into());
            Ok(entries
                .iter()
                .filter(|one| one.index == index || one.of_bridge && is_port(one.index))
                .map(|one| {
                    Dynamic::from_map(Map::from_iter([
                        ("mac".into(), one.fdb.mac.to_string().into()),
                        ("dev".into(), handles::name_at(lab, &at, &links, one.index).unwrap_or_default().into()),
                        ("dst".into(), one.fdb.dst.map_or(Dynamic::UNIT, |dst| Dynamic::from(Ip(dst)))),
                        ("vni".into(), number(one.fdb.vni)),
                        ("port".into(), number(one.fdb.port.map(u32::from))),
                        ("vlan".into(), number(one.fdb.vlan.map(u32::from))),
                        ("master".into(), one.of_bridge.into()),
                        ("state".into(), one.state.into()),
                    ]))
                })
                .collect())
        })
    }
}
