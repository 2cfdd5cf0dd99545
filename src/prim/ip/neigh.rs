//! Neighbours: fixed entries of a namespace's ARP and NDP tables.

use std::net::IpAddr;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Kernel, OWNER_PROTOCOL, Op, Outcome, Step, StepSort};
use crate::net::{self, Mac};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::link::whole;
use crate::prim::value::handles::{self, Dev, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::units::{self, DevOrName};
use crate::prim::value::value::Ip;
use crate::state::{DevRef, Error, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "neigh",
    about: "Fixed neighbours of a namespace.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddNeigh)],
    options: &[NeighOptions::SET],
};

options! {
    /// Options of `neigh`.
    pub struct NeighOptions of "neigh" {
        /// The device behind which the neighbour is.
        dev: DevOrName,
        /// The neighbour's hardware address.
        mac: Mac,
    }
}

/// Adds a permanent neighbour.
#[derive(Debug, Serialize, Deserialize)]
struct AddNeigh {
    dev: DevRef,
    ip: IpAddr,
    mac: Mac,
}

impl AddNeigh {
    /// Tells whether the device has the neighbour, by a lab of ours.
    fn is_there(&self, kernel: &mut Kernel) -> net::Result<bool> {
        let neighbours = kernel.neighbours(&self.dev.netns)?;
        Ok(neighbours.iter().any(|neigh| {
            neigh.index == self.dev.index
                && neigh.ip == self.ip
                && neigh.protocol == OWNER_PROTOCOL
                && neigh.mac == Some(self.mac)
        }))
    }
}

impl StepSort for AddNeigh {
    const WORD: &'static str = "neigh";
}

impl Step for AddNeigh {
    fn doing(&self) -> String {
        format!("add neighbour `{}` to {}", self.ip, self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        vec![format!(
            "{} neigh replace {} lladdr {} nud permanent dev {}",
            ip(&self.dev.netns),
            self.ip,
            self.mac,
            name::kernel_name(&self.dev.name)
        )]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.dev.netns],
            lives_on: Some(&self.dev),
            is_atomic: true,
            ..Footprint::default()
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        // Another lab's, which an undo would take for ours.
        if !self.dev.made && !self.dev.netns.made && self.is_there(kernel)? {
            return Err(net::Error::new(self.doing(), libc::EEXIST));
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let rtnl = kernel.rtnl(&self.dev.netns)?;
            net::ip::neigh::add(&rtnl, self.dev.index, self.ip, self.mac, OWNER_PROTOCOL)
        })
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        refusal.is_exists().then(|| "something else has fixed this neighbour: `ip neigh show nud all` tells it".into())
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if kernel.link(&self.dev)?.is_none() {
            return Ok(());
        }
        if !self.is_there(kernel)? {
            return Ok(());
        }
        let rtnl = kernel.rtnl(&self.dev.netns)?;
        net::ip::neigh::delete(&rtnl, self.dev.index, self.ip)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        match whole::there(kernel, lab, &self.dev)? {
            // What goes down forgets its neighbours (net/core/neighbour.c, neigh_ifdown).
            Some((_, link)) if link.up => self.is_there(kernel),
            _ => Ok(true),
        }
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a neighbour that stays: the namespace reaches `ip` at this hardware address without asking. What the kernel has found
    /// out about `ip` by itself gives way.
    ///
    /// Like `ip neigh replace IP lladdr MAC nud permanent dev DEV`.
    ///
    /// Fails with `invalid` where `dev` or `mac` is not given, and with `exists` where somebody has added this neighbour.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].addr("10.0.0.1/24");
    /// h.neigh("10.0.0.9", #{ dev: h["eth0"], mac: "02:00:00:00:00:09" });
    /// assert(h.neighs().some(|n| n.ip == ip("10.0.0.9") && n.mac == "02:00:00:00:00:09"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn neigh(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        address: Dynamic,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let doing = "add a neighbour";
            let options = NeighOptions::parse(options)?;
            netns.living(lab)?;
            let ip: IpAddr = units::argument(doing, address)?;
            let (Some(dev), Some(mac)) = (options.dev, options.mac) else {
                return Err(Error::invalid(format!("{doing} `{ip}`")).because("it needs both `dev` and `mac`"));
            };
            let dev = match dev {
                DevOrName::Dev(dev) => dev,
                DevOrName::Name(name) => Dev::named(netns.clone(), &name),
            };
            let entry = dev.existing(lab)?;
            if entry.dev.netns.no != netns.0.no {
                return Err(
                    Error::invalid(format!("{doing} `{ip}`")).because(format!("{} is in another netns", dev.shown()))
                );
            }
            lab.ask(AddNeigh { dev: entry.dev, ip, mac }, place)
        })?;
        Ok(netns)
    }

    /// Returns the neighbours of a namespace, learnt ones included, as maps with `ip`, `mac`, `dev` and `state`.
    ///
    /// Like `ip neigh show`.
    ///
    /// Fails with `gone` where the namespace was removed.
    ///
    /// ```rhai
    /// assert(netns("h1").neighs().is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn neighs(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let doing = format!("list the neighbours of `{}`", at.name);
            let both = |rtnl: &net::Netlink| Ok((net::ip::neigh::list(rtnl)?, net::link::list(rtnl)?));
            let (neighbours, links) = handles::look(lab, &at, &doing, both)?;
            Ok(neighbours
                .iter()
                .map(|neigh| {
                    Dynamic::from_map(Map::from_iter([
                        ("ip".into(), Dynamic::from(Ip(neigh.ip))),
                        ("mac".into(), neigh.mac.map_or(Dynamic::UNIT, |mac| mac.to_string().into())),
                        ("dev".into(), handles::name_at(lab, &at, &links, neigh.index).unwrap_or_default().into()),
                        ("state".into(), neigh.state.clone().into()),
                    ]))
                })
                .collect())
        })
    }
}
