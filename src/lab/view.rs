//! A lab as it stands: what its journal says, and what the kernel says of it now.

use std::collections::{BTreeSet, HashMap};

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::building::Lab;
use super::error::{Error, Kind, Result};
use super::host::{HOST_ENDED, Seen};
use super::journal;
use super::kernel::Kernel;
use super::look::{self, Sight, Sights};
use super::model::{DevEntry, Model, NetnsRef};
use super::names::Names;
use super::processes::{ProcessView, view_process};
use super::repair::drift;
use super::state::{LabDir, LabKind, Record, StateDir, Status};
use super::step::{Step, Steps};
use crate::net::{self, ProcessId};

/// A lab in one line.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The lab's name.
    pub name: String,
    /// What it is for.
    pub kind: LabKind,
    /// "up", "damaged" where others took something of it or of a part of it away, "building", "undoing", "dead" where the process that
    /// built it or its sandbox has ended, or "gone" where the machine was restarted since. Where this process can't look into the lab, it
    /// is "up" by its record alone, and `unseen` says why.
    pub state: &'static str,
    /// How many namespaces it made.
    pub netns: usize,
    /// How many devices it made.
    pub devs: usize,
    /// Whether it runs in a sandbox.
    pub sandbox: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The script that made it.
    pub script: String,
    /// Why this process can't look into it, where that is so: its host is another one, the process lacks the rights, or the look failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// The lab that it is a part of.
    #[serde(skip)]
    pub parent: Option<String>,
    /// The process that holds its sandbox, where it is in one.
    #[serde(skip)]
    pub holder: Option<ProcessId>,
}

/// A lab with all that it holds.
#[derive(Debug, Serialize)]
pub struct LabView {
    /// The lab in one line.
    #[serde(flatten)]
    pub summary: Summary,
    /// What others took away of it and of its parts, by the steps that made it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    /// What kept it from being looked at.
    #[serde(skip)]
    pub error: Option<Error>,
    /// The namespaces in which it has something.
    pub namespaces: Vec<NetnsView>,
    /// The processes that it has started to run beside the script, in the order of their starts.
    pub processes: Vec<ProcessView>,
    /// The other steps that it made, as the commands that do the same.
    pub steps: Vec<String>,
}

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

/// The word for a lab that is as its script left it, as far as this process can look.
const UP: &str = "up";
/// The word for a lab of which others took something away.
const DAMAGED: &str = "damaged";

/// Returns the word for a lab's state that is written so.
pub fn state_word(text: &str) -> Option<&'static str> {
    [UP, DAMAGED, "building", "undoing", "dead", "gone"].into_iter().find(|word| *word == text)
}

/// Returns labs in one line each, and what could not be read: all, or those of the names. Each is looked into, step by step; a lab whose
/// part is damaged is damaged.
pub fn summaries(state: &StateDir, steps: &Steps, only: Option<&[String]>) -> Result<(Vec<Summary>, Vec<Error>)> {
    let (mut summaries, mut errors) = (Vec::new(), Vec::new());
    let mut sights = Sights::new();
    let names = only.map_or_else(|| state.names(), |names| Ok(names.to_vec()))?;
    for name in names {
        match state.find(&name).and_then(|dir| summary(state, &dir, steps, &mut sights)) {
            Ok(summary) => summaries.push(summary),
            // One that is just being made, or has just gone.
            Err(error) if error.kind() == Kind::Missing => {}
            Err(error) => errors.push(error),
        }
    }
    let is_clear = |summary: &&mut Summary| summary.state == UP && summary.unseen.is_none();
    let mut clear: Vec<&mut Summary> = summaries.iter_mut().filter(is_clear).collect();
    let names: Vec<String> = clear.iter().map(|summary| summary.name.clone()).collect();
    for (summary, lost) in clear.iter_mut().zip(look::lost(state, steps, &names, 1)) {
        match lost {
            Ok(lost) if lost.is_empty() => {}
            Ok(_) => summary.state = DAMAGED,
            Err(error) => {
                summary.unseen = Some(error.to_string());
                errors.push(error);
            }
        }
    }
    damage_wholes(&mut summaries);
    Ok((summaries, errors))
}

/// Calls labs damaged whose parts are.
fn damage_wholes(summaries: &mut [Summary]) {
    let parents: HashMap<String, Option<String>> =
        summaries.iter().map(|summary| (summary.name.clone(), summary.parent.clone())).collect();
    let mut damaged: BTreeSet<String> = BTreeSet::new();
    for summary in summaries.iter().filter(|summary| summary.state == DAMAGED) {
        let mut above = summary.parent.as_ref();
        while let Some(name) = above.filter(|name| damaged.insert((*name).clone())) {
            above = parents.get(name).and_then(Option::as_ref);
        }
    }
    let hit = |summary: &&mut Summary| summary.state == UP && damaged.contains(&summary.name);
    summaries.iter_mut().filter(hit).for_each(|summary| summary.state = DAMAGED);
}

/// Returns a lab in one line, by its record and journal, and whether it can be looked into.
fn summary(state: &StateDir, dir: &LabDir, steps: &Steps, sights: &mut Sights) -> Result<Summary> {
    let record = dir.record()?;
    let mut names = Names::of(dir, steps)?;
    names.keep(dir);
    let mut summary = summarize(state, dir, &record, &names);
    if summary.state == UP {
        match sights.of(state, &record)? {
            Sight::Clear => {}
            Sight::HostEnded => summary.state = DAMAGED,
            Sight::Hidden(because) => summary.unseen = Some(because),
        }
    }
    Ok(summary)
}

fn summarize(state: &StateDir, dir: &LabDir, record: &Record, names: &Names) -> Summary {
    let ended = state.has_ended(record);
    let word = match record.status {
        _ if record.is_of_earlier_boot().unwrap_or(false) => "gone",
        _ if ended => "dead",
        Status::Up => "up",
        _ if !dir.is_locked(state) => "dead",
        Status::Building => "building",
        Status::Undoing => "undoing",
    };
    Summary {
        name: record.name.clone(),
        kind: record.kind,
        state: word,
        netns: names.netns_made,
        devs: names.devs_made,
        sandbox: record.holder.is_some(),
        created: record.created,
        script: record.script.clone(),
        unseen: None,
        parent: record.parent.clone(),
        holder: record.holder,
    }
}

pub(super) fn fold(dir: &LabDir, record: &Record, steps: &Steps) -> Result<(Model, Vec<journal::Asked>)> {
    let asked = journal::read(dir, record, steps)?.asked;
    let mut model = Model::new(0);
    for asked in &asked {
        enter_foreign(&mut model, asked.step.as_ref());
        match asked.step.plan(&mut model) {
            // A step that passed when it was asked for; what it is about was not made by this lab, and has no entry here.
            Err(error) if error.kind() == Kind::Gone => {}
            planned => planned?,
        }
    }
    Ok((model, asked))
}

/// Enters what a step is about and the lab did not make: it was looked up in the kernel when the step was asked for.
fn enter_foreign(model: &mut Model, step: &dyn Step) {
    let footprint = step.footprint();
    let ends = footprint.makes_devs.into_iter().map(|dev| &dev.netns);
    for at in footprint.lives_in.into_iter().chain(ends) {
        if !at.made && model.netns(at.no).is_none() {
            model.add_netns(at.clone());
        }
    }
    // A bridge that gets a port of this lab's is known by its carrier, which the step changes.
    for dev in footprint.lives_on.into_iter().chain(footprint.wakes).filter(|dev| !dev.made) {
        if model.dev(dev.no).is_none() {
            model.add_dev(DevEntry::new(dev.clone(), ""));
        }
    }
}

impl Lab {
    /// Returns what is in a namespace, as the kernel has it now.
    pub fn look_into(&mut self, at: &NetnsRef) -> Result<NetnsView> {
        let (kernel, model) = self.settled()?;
        Ok(view_netns(kernel, model, at, None))
    }

    /// Returns the namespaces in which the lab has something, as the kernel has them now.
    pub fn look_around(&mut self) -> Result<Vec<NetnsView>> {
        let (kernel, model) = self.settled()?;
        Ok(namespaces_of(model).iter().map(|at| view_netns(kernel, model, at, None)).collect())
    }
}

/// Returns the namespaces that the lab made, and those in which it made a device.
fn namespaces_of(model: &Model) -> Vec<NetnsRef> {
    let has_ours = |at: &NetnsRef| model.all_devs().any(|dev| dev.dev.made && dev.dev.netns.no == at.no);
    model.all_netns().map(|entry| &entry.at).filter(|at| at.made || has_ours(at)).cloned().collect()
}

/// Returns the lab with all that it holds, as the kernel has it now.
pub fn view(state: &StateDir, name: &str, steps: &Steps) -> Result<LabView> {
    let dir = state.find(name)?;
    let record = dir.record()?;
    let (model, asked) = fold(&dir, &record, steps)?;
    let mut kernel =
        Kernel::open_for(state, name, &record.marks).map_err(|source| Error::kernel("open the kernel", &source))?;
    let seen = state.host_of(&record)?;
    if seen != Seen::Here {
        kernel.lose_host();
    }
    let ended = match record.is_of_earlier_boot()? {
        true => Some("the machine was restarted"),
        false => state.has_ended(&record).then_some("its sandbox has ended"),
    };
    let namespaces: Vec<NetnsView> =
        namespaces_of(&model).iter().map(|at| view_netns(&mut kernel, &model, at, ended)).collect();
    let mut summary = summarize(state, &dir, &record, &Names::in_model(&model));
    let (mut damage, mut error) = (Vec::new(), None);
    match seen {
        _ if summary.state != UP => {}
        Seen::Here => match drift(state, name, steps) {
            Ok(lost) => damage = lost,
            Err(why) => (summary.unseen, error) = (Some(why.to_string()), Some(why)),
        },
        Seen::Ended => damage = vec![HOST_ENDED.into()],
        Seen::Elsewhere(because, _) => summary.unseen = Some(because.into()),
    }
    if !damage.is_empty() {
        summary.state = DAMAGED;
    }
    let processes = model.all_processes().map(|process| view_process(&dir.processes(), process)).collect();
    let steps = asked.iter().flat_map(|asked| asked.step.like()).collect();
    Ok(LabView { summary, damage, error, namespaces, processes, steps })
}

fn view_netns(kernel: &mut Kernel, model: &Model, at: &NetnsRef, ended: Option<&str>) -> NetnsView {
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
