//! The device behind which an address is, of a namespace whose ports are published: by what the lab gave out, or by the kernel's
//! routes. Calls that follow each other look once.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use super::mappings::or_host;
use crate::lab::{Lab, Moment};
use crate::net;
use crate::prim::value::handles;
use crate::state::{DevRef, Error, Kind, NetnsRef, Result, name};

/// What is known of a namespace's ways, from the first question on.
pub(super) struct Ways {
    netns: NetnsRef,
    kernel: Option<Rc<SeenWays>>,
    devs: HashMap<IpAddr, String>,
    ports: HashMap<IpAddr, Option<DevRef>>,
    /// The ports that send back what came in by them, since calls like this one have seen to it.
    pub(super) hairpins: BTreeSet<u32>,
}

/// The routes and the links of a namespace.
struct SeenWays {
    routes: Vec<net::Route>,
    links: Vec<net::Link>,
}

/// What the call before has found, and when it ended.
#[derive(Default)]
struct Last {
    found: Option<(Moment, Ways)>,
}

impl Ways {
    /// Begins with what the call before has found, if nothing was asked for or done since.
    pub(in crate::prim) fn of(lab: &mut Lab, netns: &NetnsRef) -> Ways {
        let last = lab.foreign().0.note::<Last>().found.take();
        if let Some((moment, ways)) = last
            && ways.netns == *netns
            && lab.is_still(&moment)
        {
            return ways;
        }
        Ways {
            netns: netns.clone(),
            kernel: None,
            devs: HashMap::new(),
            ports: HashMap::new(),
            hairpins: BTreeSet::new(),
        }
    }

    /// Leaves what was found to the next call; what this one has asked for changes no way.
    pub(in crate::prim) fn keep(self, lab: &mut Lab) {
        let moment = lab.moment();
        lab.foreign().0.note::<Last>().found = Some((moment, self));
    }

    /// Finds the device behind which an address is: that of the lab's own network, or of the kernel's route.
    pub(super) fn dev_towards(&mut self, lab: &mut Lab, to: IpAddr) -> Result<String> {
        if let Some(dev) = self.devs.get(&to) {
            return Ok(dev.clone());
        }
        let dev = match self.dev_of_lab(lab, to) {
            Some(dev) => dev,
            None => self.dev_of_route(lab, to)?,
        };
        self.devs.insert(to, dev.clone());
        Ok(dev)
    }

    fn dev_of_lab(&self, lab: &mut Lab, to: IpAddr) -> Option<String> {
        let model = lab.model();
        let mut devs = model.devs_in(self.netns.no).filter_map(|(_, no)| model.dev(no));
        let near = devs.find(|entry| entry.addresses.iter().any(|net| net.contains(to) && net.ip() != to))?;
        Some(name::kernel_name(&near.dev.name))
    }

    fn dev_of_route(&mut self, lab: &mut Lab, to: IpAddr) -> Result<String> {
        let doing = format!("find the way from {} to `{to}`", or_host(&self.netns));
        let seen = match &self.kernel {
            Some(seen) => seen.clone(),
            None => {
                let ask = |rtnl: &net::Netlink| {
                    Ok(SeenWays { routes: net::ip::route::list(rtnl)?, links: net::link::list(rtnl)? })
                };
                self.kernel.insert(Rc::new(handles::look(lab, &self.netns, &doing, ask)?)).clone()
            }
        };
        let there = seen.routes.iter().filter(|route| route.table == net::ip::route::MAIN && route.dst.contains(to));
        let best = there.max_by_key(|route| (route.dst.prefix(), std::cmp::Reverse(route.metric)));
        let index = best.and_then(|route| route.dev.or_else(|| route.hops.iter().find_map(|hop| hop.dev)));
        let link = seen.links.iter().find(|link| Some(link.index) == index);
        link.map(|link| link.name.clone()).ok_or_else(|| {
            Error::new(Kind::Missing, doing)
                .because("there is no route to it")
                .hint("give the namespace its address or route first, or name the device: `dev: …`")
        })
    }

    /// Finds the port of a bridge behind which the lab put an address, so that what it sends to its own published port comes back.
    pub(in crate::prim) fn port_of(&mut self, lab: &mut Lab, to: IpAddr) -> Option<DevRef> {
        let find = || {
            let model = lab.model();
            let holder = model.all_devs().find(|entry| entry.addresses.iter().any(|net| net.ip() == to))?;
            let port = model.dev(holder.peer?)?;
            (port.controller.is_some() && port.dev.netns.no == self.netns.no).then(|| port.dev.clone())
        };
        self.ports.entry(to).or_insert_with(find).clone()
    }
}
