//! What a lab holds, as far as it was asked for: the namespaces and devices that a step can be checked against before
//! the kernel is asked. It is a fold over the lab's steps: `Step::plan` enters one, `Step::unplan` takes it out again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::net::{Fdb, Shape};
use crate::state::{DevRef, Error, Kind, NetnsRef, ProcessRef, Result, TableRef};

/// The name servers of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Their addresses.
    pub servers: Vec<IpAddr>,
    /// The domains that are tried behind a short name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
}

impl Resolver {
    /// Returns them as resolv.conf(5) has them.
    pub fn text(&self) -> String {
        let search = if self.search.is_empty() { String::new() } else { format!("search {}\n", self.search.join(" ")) };
        self.servers.iter().fold(search, |text, server| format!("{text}nameserver {server}\n"))
    }
}

/// A namespace that the lab knows.
#[derive(Debug, Clone)]
pub struct NetnsEntry {
    /// How steps refer to it.
    pub at: NetnsRef,
    /// Whether its devices are known too that the kernel had in a namespace that is not ours.
    pub loaded: bool,
    next_index: u32,
    /// The indexes that its devices have had.
    indexes: HashSet<u32>,
}

/// A device that the lab knows.
#[derive(Debug, Clone)]
pub struct DevEntry {
    /// How steps refer to it.
    pub dev: DevRef,
    /// Its kind, in the kernel's word: `veth`, `bridge`, or empty for a physical one or `lo`.
    pub kind: Cow<'static, str>,
    /// The other end of a veth.
    pub peer: Option<u32>,
    /// The device that it is on top of.
    pub parent: Option<u32>,
    /// What it was made with, in iproute2's words: `id 10`.
    pub about: String,
    /// The bridge that it is a port of.
    pub controller: Option<u32>,
    /// Whether the lab set it up or down last, as far as that is known.
    pub up: Option<bool>,
    /// Whether the bridge that it is a port of has taken over its addresses and routes.
    pub taken_over: bool,
    /// The addresses that this lab gave it.
    pub addresses: Vec<IpNetwork>,
    /// How many ports it has, if it is a bridge.
    pub ports: usize,
    /// How this lab shapes what leaves it.
    pub shape: Option<Box<Shape>>,
    /// What it is set to, if it is a bridge.
    pub switch: Switch,
    /// Whether the lab put it into VLANs of its bridge.
    pub in_vlans: bool,
    /// The entries of its forwarding table that this lab added.
    pub fdb: Vec<Fdb>,
}

/// What a bridge does besides forwarding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switch {
    /// Whether it speaks the spanning tree protocol.
    pub stp: bool,
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: bool,
}

impl DevEntry {
    /// Makes the entry of a device of which nothing more is known than its kind.
    pub fn new(dev: DevRef, kind: impl Into<Cow<'static, str>>) -> DevEntry {
        DevEntry {
            dev,
            kind: kind.into(),
            peer: None,
            parent: None,
            about: String::new(),
            controller: None,
            up: None,
            taken_over: false,
            addresses: Vec::new(),
            ports: 0,
            switch: Switch::default(),
            in_vlans: false,
            fdb: Vec::new(),
            shape: None,
        }
    }

    /// Returns when its carrier is seen to, among those of one settling: a bridge's follows from those of its ports, and that of a
    /// device on top from the one below.
    pub(super) fn carrier_rank(&self) -> u8 {
        match &*self.kind {
            _ if self.parent.is_some() => 2,
            "bridge" | "bond" => 1,
            _ => 0,
        }
    }
}

/// What a lab holds.
#[derive(Debug, Clone)]
pub struct Model {
    netns: BTreeMap<u32, NetnsEntry>,
    // Boxed: the nodes of the map are half empty, where the numbers only grow.
    devs: BTreeMap<u32, Box<DevEntry>>,
    by_name: BTreeMap<String, u32>,
    /// Devices by their namespace and the user's name: in one tree, since most namespaces have one or two.
    by_place: BTreeMap<(u32, String), u32>,
    graves: BTreeMap<u32, String>,
    tables: BTreeSet<TableRef>,
    processes: BTreeMap<u32, Rc<ProcessRef>>,
    resolvers: BTreeMap<u32, Resolver>,
    next: u32,
    foreign_base: u32,
}

/// The first index that is given to a device in a namespace of ours: kernels with tunnel modules loaded put devices of
/// their own at 2 and up.
const FIRST_INDEX: u32 = 1000;

fn foreign_base(seed: u64) -> u32 {
    100_000 + (seed % 200_000) as u32 * 10_000
}

impl NetnsEntry {
    /// Tells whether its devices have had so many indexes.
    pub fn has_indexes(&self, count: usize) -> bool {
        self.indexes.len() >= count
    }
}

impl Model {
    /// Makes a model that knows only the host; `seed` spreads the indexes that labs take in shared namespaces.
    pub fn new(seed: u64) -> Model {
        let mut model = Model {
            netns: BTreeMap::new(),
            devs: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_place: BTreeMap::new(),
            graves: BTreeMap::new(),
            tables: BTreeSet::new(),
            processes: BTreeMap::new(),
            resolvers: BTreeMap::new(),
            next: 1,
            foreign_base: foreign_base(seed),
        };
        model.add_netns(NetnsRef::host());
        model
    }

    /// Returns a number that nothing in this lab has had.
    pub fn next_no(&mut self) -> u32 {
        let no = self.next;
        self.next += 1;
        no
    }

    /// Returns the first number that nothing in this lab has had, and leaves it so.
    pub(super) fn first_free_no(&self) -> u32 {
        self.next
    }

    /// Sets where the indexes of devices in shared namespaces begin, by the seed of a process that goes on with a lab.
    pub(super) fn spread(&mut self, seed: u64) {
        self.foreign_base = foreign_base(seed);
        let shared = self.netns.values_mut().filter(|entry| !entry.at.made);
        shared.for_each(|entry| entry.next_index = self.foreign_base);
    }

    /// Takes out all that was entered since `no` was free; what is in namespaces that the lab did not make is looked up anew.
    pub(super) fn forget_since(&mut self, no: u32, why: &str) {
        let netns: Vec<u32> = self.netns.range(no..).map(|(no, _)| *no).collect();
        netns.into_iter().for_each(|no| self.remove_netns(no, why));
        let devs: Vec<u32> = self.devs.range(no..).map(|(no, _)| *no).collect();
        devs.into_iter().for_each(|no| self.remove_dev(no, why));
        let processes: Vec<u32> = self.processes.range(no..).map(|(no, _)| *no).collect();
        processes.into_iter().for_each(|no| self.remove_process(no, why));
        self.look_again();
    }

    /// Has what is in namespaces that the lab did not make looked up anew.
    pub fn look_again(&mut self) {
        self.netns.values_mut().filter(|entry| !entry.at.made).for_each(|entry| entry.loaded = false);
    }

    /// Enters a namespace.
    pub fn add_netns(&mut self, at: NetnsRef) {
        self.next = self.next.max(at.no + 1);
        let next_index = if at.made { FIRST_INDEX } else { self.foreign_base };
        self.by_name.insert(at.name.clone(), at.no);
        let no = at.no;
        self.netns.insert(no, NetnsEntry { at, loaded: false, next_index, indexes: HashSet::new() });
    }

    /// Takes a namespace out, with its devices and their other ends; handles to them are told `why`.
    pub fn remove_netns(&mut self, no: u32, why: &str) {
        let Some(entry) = self.netns.remove(&no) else { return };
        self.by_name.remove(&entry.at.name);
        self.graves.insert(no, why.to_string());
        self.tables.retain(|table| table.netns != no);
        self.resolvers.remove(&no);
        let devs: Vec<u32> = self.devs_in(no).map(|(_, dev)| dev).collect();
        devs.into_iter().for_each(|dev| self.remove_dev(dev, why));
    }

    /// Returns a namespace by its number.
    pub fn netns(&self, no: u32) -> Option<&NetnsEntry> {
        self.netns.get(&no)
    }

    /// Returns a namespace by its number, to change it.
    pub fn netns_mut(&mut self, no: u32) -> Option<&mut NetnsEntry> {
        self.netns.get_mut(&no)
    }

    /// Returns a namespace by the user's name.
    pub fn netns_named(&self, name: &str) -> Option<&NetnsEntry> {
        self.by_name.get(name).and_then(|no| self.netns.get(no))
    }

    /// Returns all namespaces that the lab knows, in the order of their making.
    pub fn all_netns(&self) -> impl Iterator<Item = &NetnsEntry> {
        self.netns.values()
    }

    /// Returns all devices that the lab knows, in the order of their making.
    pub fn all_devs(&self) -> impl Iterator<Item = &DevEntry> {
        self.devs.values().map(Box::as_ref)
    }

    /// Enters a device.
    pub fn add_dev(&mut self, entry: DevEntry) {
        self.next = self.next.max(entry.dev.no + 1);
        if let Some(netns) = self.netns.get_mut(&entry.dev.netns.no) {
            self.by_place.insert((entry.dev.netns.no, entry.dev.name.clone()), entry.dev.no);
            netns.indexes.insert(entry.dev.index);
            if entry.dev.made {
                netns.next_index = netns.next_index.max(entry.dev.index + 1);
            }
        }
        self.devs.insert(entry.dev.no, Box::new(entry));
    }

    /// Takes a device out, with the other end of a veth and all devices on top; handles to them are told `why`.
    pub fn remove_dev(&mut self, no: u32, why: &str) {
        let Some(entry) = self.devs.remove(&no) else { return };
        self.by_place.remove(&(entry.dev.netns.no, entry.dev.name));
        self.graves.insert(no, why.to_string());
        if let Some(bridge) = entry.controller.and_then(|no| self.devs.get_mut(&no)) {
            bridge.ports = bridge.ports.saturating_sub(1);
        }
        for port in self.devs.values_mut().filter(|dev| dev.controller == Some(no)) {
            port.controller = None;
        }
        let on_top = self.devs.values().filter(|dev| dev.parent == Some(no)).map(|dev| dev.dev.no);
        for dev in on_top.chain(entry.peer).collect::<Vec<u32>>() {
            self.remove_dev(dev, why);
        }
    }

    /// Returns a device by its number.
    pub fn dev(&self, no: u32) -> Option<&DevEntry> {
        self.devs.get(&no).map(Box::as_ref)
    }

    /// Returns a device by its number, to change it.
    pub fn dev_mut(&mut self, no: u32) -> Option<&mut DevEntry> {
        self.devs.get_mut(&no).map(Box::as_mut)
    }

    /// Returns a device by its namespace and the user's name.
    pub fn dev_named(&self, netns: u32, name: &str) -> Option<&DevEntry> {
        self.by_place.get(&(netns, name.to_string())).and_then(|no| self.dev(*no))
    }

    /// Returns the devices of a namespace, by the user's names and their numbers, in the order of the names.
    pub fn devs_in(&self, netns: u32) -> impl Iterator<Item = (&str, u32)> {
        let all = self.by_place.range((netns, String::new())..);
        all.take_while(move |((at, _), _)| *at == netns).map(|((_, name), no)| (name.as_str(), *no))
    }

    /// Returns a device by its namespace and index.
    pub fn dev_at(&self, netns: u32, index: u32) -> Option<&DevEntry> {
        self.all_devs().find(|dev| dev.dev.netns.no == netns && dev.dev.index == index)
    }

    /// Moves a device into another namespace, under another name or index.
    pub fn relocate_dev(&mut self, no: u32, to: DevRef) {
        let Some(entry) = self.devs.get_mut(&no) else { return };
        let from = std::mem::replace(&mut entry.dev, to.clone());
        self.by_place.remove(&(from.netns.no, from.name));
        if let Some(netns) = self.netns.get_mut(&to.netns.no) {
            self.by_place.insert((to.netns.no, to.name), no);
            netns.indexes.insert(to.index);
        }
    }

    /// Returns an index for a new device in the namespace `no` which is also free in `below`, from where it is made: kernels before
    /// 6.14 refuse one that is taken there (rtnetlink.c, __rtnl_newlink).
    pub fn next_index_beside(&mut self, no: u32, below: u32) -> u32 {
        loop {
            let index = self.next_index(no);
            if no == below {
                return index;
            }
            let beside = self.next_index(below);
            if index == beside {
                return index;
            }
            for no in [no, below] {
                if let Some(entry) = self.netns.get_mut(&no) {
                    entry.next_index = index.max(beside);
                }
            }
        }
    }

    /// Returns an index for a new device in the namespace `no`.
    pub fn next_index(&mut self, no: u32) -> u32 {
        let Some(entry) = self.netns.get_mut(&no) else { return 0 };
        while entry.indexes.contains(&entry.next_index) {
            entry.next_index += 1;
        }
        let index = entry.next_index;
        entry.next_index += 1;
        index
    }

    /// Joins a device to a bridge, or takes it out of one.
    pub fn set_controller(&mut self, port: u32, controller: Option<u32>) {
        let Some(before) = self.devs.get_mut(&port).map(|dev| std::mem::replace(&mut dev.controller, controller))
        else {
            return;
        };
        if let Some(bridge) = before.and_then(|no| self.devs.get_mut(&no)) {
            bridge.ports = bridge.ports.saturating_sub(1);
        }
        if let Some(bridge) = controller.and_then(|no| self.devs.get_mut(&no)) {
            bridge.ports += 1;
        }
    }

    /// Tells whether the lab has made a table, or what goes by the name of one: a part that is made once.
    pub fn has_table(&self, table: &TableRef) -> bool {
        self.tables.contains(table)
    }

    /// Returns the tables that the lab has made.
    pub(crate) fn tables(&self) -> &BTreeSet<TableRef> {
        &self.tables
    }

    /// Sets which tables the lab has made.
    pub(super) fn set_tables(&mut self, tables: BTreeSet<TableRef>) {
        self.tables = tables;
    }

    /// Enters a table.
    pub fn add_table(&mut self, table: TableRef) {
        self.tables.insert(table);
    }

    /// Takes a table out.
    pub fn remove_table(&mut self, table: &TableRef) {
        self.tables.remove(table);
    }

    /// Sets the name servers of a namespace, or forgets them.
    pub fn set_resolver(&mut self, netns: u32, resolver: Option<Resolver>) {
        match resolver {
            Some(resolver) => self.resolvers.insert(netns, resolver),
            None => self.resolvers.remove(&netns),
        };
    }

    /// Returns the name servers of a namespace that the lab has set.
    pub fn resolver(&self, netns: u32) -> Option<&Resolver> {
        self.resolvers.get(&netns)
    }

    /// Enters a process.
    pub fn add_process(&mut self, process: ProcessRef) {
        self.next = self.next.max(process.no + 1);
        self.processes.insert(process.no, Rc::new(process));
    }

    /// Returns a process for a handle: as long as the handle lives, the process is not forgotten.
    pub fn handle_of(&self, process: &ProcessRef) -> Result<Rc<ProcessRef>> {
        self.known_process(process).cloned()
    }

    /// Returns the processes that no handle refers to.
    pub(super) fn unheld_processes(&self) -> impl Iterator<Item = &ProcessRef> {
        self.processes.values().filter(|process| Rc::strong_count(process) == 1).map(Rc::as_ref)
    }

    /// Takes out a process that no handle refers to.
    pub(super) fn forget_process(&mut self, no: u32) {
        self.processes.remove(&no);
    }

    /// Returns how many processes the lab knows.
    pub(super) fn process_count(&self) -> usize {
        self.processes.len()
    }

    /// Takes a process out; handles to it are told `why`.
    pub fn remove_process(&mut self, no: u32, why: &str) {
        self.processes.remove(&no);
        self.graves.insert(no, why.to_string());
    }

    /// Returns the processes that the lab has started, in the order of their starts; the last ones that have ended are among them.
    pub fn all_processes(&self) -> impl Iterator<Item = &ProcessRef> {
        self.processes.values().map(Rc::as_ref)
    }

    /// Checks that a process was not taken back, for a handle that was made for it.
    pub fn known_process(&self, process: &ProcessRef) -> Result<&Rc<ProcessRef>> {
        let gone = || self.gone(process.no, format!("use process {}", process.shown()));
        self.processes.get(&process.no).ok_or_else(gone)
    }

    /// Enters all that `other` knows and this one does not, as things that this lab did not make: a lab within another one
    /// sees what is around it, and is seen afterwards. The numbers stay, so that handles are good in both.
    pub fn know(&mut self, other: &Model) {
        for entry in other.netns.values() {
            if !self.netns.contains_key(&entry.at.no) {
                self.add_netns(NetnsRef { made: false, ..entry.at.clone() });
            }
        }
        for entry in other.devs.values() {
            let dev = &entry.dev;
            if self.devs.contains_key(&dev.no) || self.dev_named(dev.netns.no, &dev.name).is_some() {
                continue;
            }
            let netns = NetnsRef { made: false, ..dev.netns.clone() };
            self.add_dev(DevEntry { dev: DevRef { netns, made: false, ..dev.clone() }, ..entry.as_ref().clone() });
        }
        self.next = self.next.max(other.next);
    }

    /// Checks that a namespace is still there, for a handle that was made for it.
    pub fn living_netns(&self, at: &NetnsRef) -> Result<&NetnsEntry> {
        self.netns.get(&at.no).ok_or_else(|| self.gone(at.no, format!("use netns `{}`", at.name)))
    }

    /// Checks that a device is still there, for a handle that was made for it; `name` is what the handle calls it.
    pub fn living_dev(&self, no: u32, name: &str) -> Result<&DevEntry> {
        self.dev(no).ok_or_else(|| self.gone(no, format!("use device {name}")))
    }

    fn gone(&self, no: u32, doing: String) -> Error {
        let why = self.graves.get(&no).map_or("it was removed", String::as_str);
        Error::new(Kind::Gone, doing)
            .because(why)
            .hint("the handle outlived its thing; make it again to go on using it")
    }
}
