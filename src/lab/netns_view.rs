//! A namespace as it stands: what the kernel says of it now, in the names of the lab.

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::kernel::Kernel;
use super::model::{DevEntry, Model};
use crate::net;
use crate::state::NetnsRef;

/// A namespace with the devices and routes in it.
#[derive(Debug, Clone, Serialize)]
pub struct NetnsView {
    /// The user's name for it.
    pub name: String,
    /// Whether the lab made it.
    pub made: bool,
    /// The devices: all in a namespace that the lab made, else those that the lab made.
    pub devs: Vec<DevView>,
    /// The routes of the main tables that the kernel did not make by itself, as `ip route` writes them.
    pub routes: Vec<String>,
    /// Why the kernel's state can't be shown, if it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
}

/// A device with its addresses.
#[derive(Debug, Clone, Serialize)]
pub struct DevView {
    /// The user's name for it.
    pub name: String,
    /// The kernel's name, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_name: Option<String>,
    /// Its kind: `veth`, `bridge` …
    pub kind: String,
    /// "up", "down", "no carrier", or "gone" where others deleted it.
    pub state: &'static str,
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<net::Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// The addresses that the lab gave it and that others took away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// The bridge that it is a port of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// What it was made with, as `ip` writes it: `id 10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// The device that it is on top of, and its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The other end of a veth: the device and its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// Returns the namespaces that the lab made, and those in which it made a device.
pub(crate) fn namespaces_of(model: &Model) -> Vec<NetnsRef> {
    let has_ours = |at: &NetnsRef| model.all_devs().any(|dev| dev.dev.made && dev.dev.netns.no == at.no);
    model.all_netns().map(|entry| &entry.at).filter(|at| at.made || has_ours(at)).cloned().collect()
}

/// Returns what is in a namespace, as the kernel has it now.
pub(crate) fn view_netns(kernel: &mut Kernel, model: &Model, at: &NetnsRef, ended: Option<&str>) -> NetnsView {
    let mut view = NetnsView { name: at.name.clone(), made: at.made, devs: Vec::new(), routes: Vec::new(), gone: None };
    if let Some(why) = ended {
        // A namespace of this name on the host would be another one.
        view.gone = Some(why.into());
        return view;
    }
    let dump = kernel.rtnl(at).and_then(|rtnl| net::dump(&rtnl));
    match dump {
        Ok(dump) => fill(&mut view, &dump, kernel, model, at),
        Err(source) if source.is_gone() && at.no == 0 => {
            view.gone = Some("it is not the one that topo runs in now".into())
        }
        Err(source) if source.is_gone() => view.gone = Some("something else removed it".into()),
        Err(source) => view.gone = Some(source.to_string()),
    }
    view
}

fn fill(view: &mut NetnsView, dump: &net::Dump, kernel: &Kernel, model: &Model, at: &NetnsRef) {
    let entry = |link: &net::Link| {
        let mut here = model.all_devs().filter(|dev| dev.dev.netns.no == at.no && dev.dev.index == link.index);
        here.find(|dev| kernel.is_same(&dev.dev, link))
    };
    let user_name = |index: u32| {
        let link = dump.links.iter().find(|link| link.index == index)?;
        Some(entry(link).map_or_else(|| link.name.clone(), |dev| dev.dev.name.clone()))
    };
    for link in dump.links.iter().filter(|link| !link.loopback && (at.made || entry(link).is_some())) {
        let dev = entry(link);
        let name = dev.map_or_else(|| link.name.clone(), |dev| dev.dev.name.clone());
        let peer = dev.and_then(|dev| dev.peer).and_then(|peer| model.dev(peer)).map(|peer| match peer.controller {
            Some(bridge) => {
                let bridge = model.dev(bridge).map_or("?", |bridge| bridge.dev.name.as_str());
                format!("{} ({bridge})", place_of(&peer.dev.name, &peer.dev.netns.name))
            }
            None => place_of(&peer.dev.name, &peer.dev.netns.name),
        });
        view.devs.push(DevView {
            kernel_name: (name != link.name).then(|| link.name.clone()),
            kind: link.kind.clone().unwrap_or_else(|| "physical".into()),
            lost: dev.map(|dev| lost_addresses(dev, link, dump)).unwrap_or_default(),
            state: match (link.up, link.carrier) {
                (true, true) => "up",
                (true, false) => "no carrier",
                (false, _) => "down",
            },
            mac: link.mac,
            mtu: link.mtu,
            addresses: dump
                .addresses
                .iter()
                .filter(|address| address.index == link.index && !address.is_automatic(link.mac))
                .map(|address| address.net.to_string())
                .collect(),
            controller: link.controller.and_then(user_name),
            about: dev.map(|dev| dev.about.clone()).filter(|about| !about.is_empty()),
            on: dev
                .and_then(|dev| model.dev(dev.parent?))
                .map(|below| place_of(&below.dev.name, &below.dev.netns.name)),
            peer,
            name,
        });
    }
    let is_there =
        |dev: &&DevEntry| dump.links.iter().any(|link| link.index == dev.dev.index && kernel.is_same(&dev.dev, link));
    for dev in model.all_devs().filter(|dev| dev.dev.made && dev.dev.netns.no == at.no).filter(|dev| !is_there(dev)) {
        view.devs.push(gone_dev(dev));
    }
    if at.made {
        view.routes =
            dump.routes.iter().filter(|route| is_worth_showing(route)).map(|route| route.shown(&user_name)).collect();
    }
}

/// Returns a device of the lab's that others deleted.
fn gone_dev(dev: &DevEntry) -> DevView {
    DevView {
        name: dev.dev.name.clone(),
        kernel_name: None,
        kind: dev.kind.to_string(),
        state: "gone",
        mac: dev.dev.mac,
        mtu: 0,
        addresses: Vec::new(),
        lost: dev.addresses.iter().map(ToString::to_string).collect(),
        controller: None,
        about: None,
        on: None,
        peer: None,
    }
}

/// Returns the addresses that a device should have and has not; one that is down has no IPv6 addresses.
fn lost_addresses(dev: &DevEntry, link: &net::Link, dump: &net::Dump) -> Vec<String> {
    let has = |net: &IpNetwork| dump.addresses.iter().any(|one| one.index == link.index && one.net == *net);
    let wanted = dev.addresses.iter().filter(|net| link.up || net.is_ipv4());
    wanted.filter(|net| !has(net)).map(ToString::to_string).collect()
}

fn place_of(name: &str, netns: &str) -> String {
    if netns == "host" { name.to_string() } else { format!("{netns}/{name}") }
}

/// Leaves out what the kernel makes by itself: the local table, and the routes that come with an address.
fn is_worth_showing(route: &net::Route) -> bool {
    route.table != net::ip::route::LOCAL && route.protocol != net::ip::route::BY_KERNEL
}
