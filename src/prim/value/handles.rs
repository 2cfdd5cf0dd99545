//! The handles that scripts hold: a netns, and a device in one.

use std::cell::Cell;
use std::rc::Rc;

use crate::lab::{DevEntry, Kernel, Lab, Switch};
use crate::net;
use crate::state::{DevRef, Error, Kind, NetnsAt, NetnsRef, Result, name, shown_dev};

/// A network namespace, as a script holds it.
#[derive(Debug, Clone)]
pub struct NetnsHandle(pub Rc<NetnsRef>);

impl NetnsHandle {
    /// Wraps a namespace that the lab knows.
    pub fn new(at: NetnsRef) -> NetnsHandle {
        NetnsHandle(Rc::new(at))
    }

    /// Checks that the namespace is still there.
    pub fn living(&self, lab: &mut Lab) -> Result<NetnsRef> {
        lab.model().living_netns(&self.0).map(|entry| entry.at.clone())
    }
}

impl std::fmt::Display for NetnsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "netns `{}`", self.0.name)
    }
}

/// A device in a namespace, as a script holds it: `h["eth0"]`.
///
/// It may be named before it exists, as an end of a `veth` is. Once it was found it stays that one device, whatever its
/// name is later.
#[derive(Debug, Clone)]
pub struct Dev {
    /// The namespace that it was named in.
    pub netns: NetnsHandle,
    /// The name that it was named by.
    pub name: Rc<str>,
    found: Rc<Cell<Option<u32>>>,
}

impl Dev {
    /// Names a device, whether it exists or not.
    pub fn named(netns: NetnsHandle, name: &str) -> Dev {
        Dev { netns, name: name.into(), found: Rc::new(Cell::new(None)) }
    }

    /// Wraps a device that the lab knows.
    pub fn known(dev: &DevRef) -> Dev {
        let found = Rc::new(Cell::new(Some(dev.no)));
        Dev { netns: NetnsHandle::new(dev.netns.clone()), name: dev.name.as_str().into(), found }
    }

    /// Returns the device for a message.
    pub fn shown(&self) -> String {
        shown_dev(&name::shown(&self.name), &self.netns.0.name)
    }

    /// Finds the device, if there is one of this name.
    pub fn find(&self, lab: &mut Lab) -> Result<Option<DevEntry>> {
        if let Some(no) = self.found.get() {
            return lab.model().living_dev(no, &self.shown()).map(|entry| Some(entry.clone()));
        }
        let netns = self.netns.living(lab)?;
        let entry = find_dev(lab, &netns, &self.name)?;
        if let Some(entry) = &entry {
            self.found.set(Some(entry.dev.no));
        }
        Ok(entry)
    }

    /// Finds the device, which must exist.
    pub fn existing(&self, lab: &mut Lab) -> Result<DevEntry> {
        if let Some(entry) = self.find(lab)? {
            return Ok(entry);
        }
        let netns = self.netns.living(lab)?;
        load(lab, &netns)?;
        let names: Vec<&str> = lab.model().devs_in(netns.no).map(|(name, _)| name).collect();
        let error =
            Error::new(Kind::Missing, format!("find device {}", self.shown())).because("there is no such device");
        Err(match name::nearest(&self.name, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if names.is_empty() => error.hint(format!("netns `{}` has no devices yet", netns.name)),
            None => error.hint(format!("it has: {}", names.join(", "))),
        })
    }
}

impl std::fmt::Display for Dev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "dev {}", self.shown())
    }
}

/// Looks at a namespace, with everything settled that was asked for; `doing` says what for.
pub fn look<T>(
    lab: &mut Lab,
    netns: &NetnsRef,
    doing: &str,
    ask: impl FnOnce(&net::Netlink) -> net::Result<T>,
) -> Result<T> {
    let (kernel, _) = lab.settled()?;
    look_with(kernel, netns, doing, ask)
}

fn look_with<T>(
    kernel: &mut Kernel,
    netns: &NetnsRef,
    doing: &str,
    ask: impl FnOnce(&net::Netlink) -> net::Result<T>,
) -> Result<T> {
    let failed = |source: net::Error| Error::kernel(doing, &source);
    let rtnl = kernel.rtnl(netns).map_err(failed)?;
    ask(&rtnl).map_err(failed)
}

/// Finds a device by name: one that the lab knows, or one that the kernel has.
pub fn find_dev(lab: &mut Lab, netns: &NetnsRef, name: &str) -> Result<Option<DevEntry>> {
    know(lab, netns, name)?;
    if let Some(entry) = lab.model().dev_named(netns.no, name) {
        return Ok(Some(entry.clone()));
    }
    if !netns.made || !lab.model().netns(netns.no).is_some_and(|entry| entry.loaded) {
        return Ok(None);
    }
    // A command that ran in the namespace may have made it.
    let doing = format!("look for device {}", shown_dev(name, &netns.name));
    let Some(link) = look(lab, netns, &doing, |rtnl| net::link::find(rtnl, name))? else { return Ok(None) };
    let entry = foreign(lab, netns, &link);
    lab.model().add_dev(entry.clone());
    Ok(Some(entry))
}

/// Enters what the kernel has under a name in a namespace that is not ours. The host has as many devices as there are labs and containers
/// on it: of these only the one is asked for, of another namespace all.
pub fn know(lab: &mut Lab, netns: &NetnsRef, name: &str) -> Result<()> {
    if !is_asked_one_by_one(lab, netns) {
        return load(lab, netns);
    }
    let known = lab.model().dev_named(netns.no, name);
    if known.is_some_and(|known| known.dev.made || !known.kind.is_empty()) {
        return Ok(());
    }
    let (kernel, _) = lab.foreign();
    let doing = format!("look for device {}", shown_dev(name, &netns.name));
    let link = look_with(kernel, netns, &doing, |rtnl| net::link::find(rtnl, name))?;
    link.iter().for_each(|link| enter(lab, netns, link));
    Ok(())
}

/// Returns an index for a new device, free in the namespace `beside` too.
pub fn next_index(lab: &mut Lab, netns: &NetnsRef, beside: &NetnsRef) -> Result<u32> {
    /// From how many devices on it takes less to list the host than to ask for each index.
    const MANY: usize = 16;
    loop {
        let index = lab.model().next_index_beside(netns.no, beside.no);
        let mut is_taken = false;
        for at in [netns, beside] {
            if is_asked_one_by_one(lab, at) && lab.model().netns(at.no).is_some_and(|entry| entry.has_indexes(MANY)) {
                load(lab, at)?;
                is_taken |= lab.model().dev_at(at.no, index).is_some();
            } else if is_asked_one_by_one(lab, at) {
                let (kernel, _) = lab.foreign();
                let doing = format!("look into netns `{}`", at.name);
                is_taken |= look_with(kernel, at, &doing, |rtnl| net::link::get(rtnl, index))?.is_some();
            }
        }
        if !is_taken {
            return Ok(index);
        }
    }
}

/// Tells whether the devices of a namespace are asked for one by one: it is the host's, and they have not been listed.
fn is_asked_one_by_one(lab: &mut Lab, netns: &NetnsRef) -> bool {
    netns.at == NetnsAt::Host && lab.model().netns(netns.no).is_some_and(|entry| !entry.loaded)
}

/// Enters what the kernel has in a namespace that is not ours, once.
pub fn load(lab: &mut Lab, netns: &NetnsRef) -> Result<()> {
    if netns.made || lab.model().netns(netns.no).is_none_or(|entry| entry.loaded) {
        return Ok(());
    }
    let (kernel, _) = lab.foreign();
    let links = look_with(kernel, netns, &format!("look into netns `{}`", netns.name), net::link::list)?;
    links.iter().for_each(|link| enter(lab, netns, link));
    if let Some(entry) = lab.model().netns_mut(netns.no) {
        entry.loaded = true;
    }
    Ok(())
}

/// Enters a device that the lab did not make.
fn enter(lab: &mut Lab, netns: &NetnsRef, link: &net::Link) {
    let entry = foreign(lab, netns, link);
    match lab.model().dev_named(netns.no, &entry.dev.name).map(|known| known.dev.no) {
        None => lab.model().add_dev(entry),
        // A journal names devices of others without their kinds.
        Some(no) => {
            let known = lab.model().dev_mut(no).filter(|known| known.kind.is_empty());
            known.into_iter().for_each(|known| known.kind = entry.kind.clone());
        }
    }
}

/// Notes that something other than the lab's steps may have changed a namespace of ours.
pub fn disturbed(lab: &mut Lab, netns: &NetnsRef) {
    if let Some(entry) = lab.model().netns_mut(netns.no) {
        entry.loaded = netns.made;
    }
}

/// Returns the handle for a device that the kernel lists: the lab's own word for it, where it knows it.
pub fn listed(lab: &mut Lab, netns: &NetnsHandle, link: &net::Link) -> Dev {
    match lab.model().dev_at(netns.0.no, link.index) {
        Some(entry) => Dev::known(&entry.dev),
        None => Dev::named(netns.clone(), &link.name),
    }
}

/// Returns the user's name of the device `index`, or else the kernel's.
pub fn name_at(lab: &mut Lab, netns: &NetnsRef, links: &[net::Link], index: u32) -> Option<String> {
    let known = lab.model().dev_at(netns.no, index).map(|entry| entry.dev.name.clone());
    known.or_else(|| links.iter().find(|link| link.index == index).map(|link| full_name(link).clone()))
}

/// Returns the name that a device was given, of which the kernel's may be a short form.
fn full_name(link: &net::Link) -> &String {
    link.altnames.first().filter(|alt| name::kernel_name(alt) == link.name).unwrap_or(&link.name)
}

fn foreign(lab: &mut Lab, netns: &NetnsRef, link: &net::Link) -> DevEntry {
    let no = lab.model().next_no();
    let dev = DevRef {
        no,
        netns: netns.clone(),
        name: full_name(link).clone(),
        index: link.index,
        mac: link.mac,
        made: false,
    };
    let bridge = link.bridge.as_ref().map(|bridge| &bridge.options);
    let is_on = |option: fn(&net::BridgeOptions) -> Option<bool>| bridge.and_then(option) == Some(true);
    let switch = Switch { stp: is_on(|bridge| bridge.stp), vlan_filtering: is_on(|bridge| bridge.vlan_filtering) };
    DevEntry { switch, ..DevEntry::new(dev, link.kind.clone().unwrap_or_default()) }
}

/// Returns the properties that a namespace has.
pub fn netns_properties() -> Vec<&'static str> {
    let mut found = Vec::new();
    for functions in crate::prim::GROUPS.iter().map(|group| group.functions) {
        functions.for_each_fn(false, &mut |function| {
            let mut is_of_netns = false;
            function.with_param_types(&mut |types| is_of_netns = types == [std::any::TypeId::of::<NetnsHandle>()]);
            found.extend(function.name().strip_prefix("get$").filter(|_| is_of_netns));
        });
    }
    found
}

/// Returns the names of the functions that a namespace has and that take nothing more.
fn netns_methods() -> Vec<String> {
    let mut found = Vec::new();
    for functions in crate::prim::GROUPS.iter().map(|group| group.functions) {
        functions.for_each_fn(false, &mut |function| {
            let mut is_of_netns = false;
            function.with_param_types(&mut |types| is_of_netns = types == [std::any::TypeId::of::<NetnsHandle>()]);
            found.extend(Some(function.name()).filter(|name| is_of_netns && !name.contains('$')).map(String::from));
        });
    }
    found
}

/// Returns the error of a property that a namespace doesn't have: rhai would take it for the name of a device.
pub fn no_netns_property(name: &str) -> Error {
    let shown = name::shown(name);
    let device = format!("a device is named in brackets: `[\"{shown}\"]`");
    let error = Error::invalid(format!("unknown property `{shown}` of a netns"));
    let methods = netns_methods();
    if let Some(method) = name::nearest(name, methods.iter().map(String::as_str))
        .filter(|method| method.replace('_', "") == name.replace('_', ""))
    {
        return error.hint(format!("a function is called with brackets: `{method}()`"));
    }
    match name::nearest(name, netns_properties()) {
        Some(near) => error.hint(format!("did you mean `{near}`? {device}")),
        None => error.hint(device),
    }
}
