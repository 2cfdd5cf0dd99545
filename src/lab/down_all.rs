//! Taking down many labs: their cables are deleted together, since the kernel waits as long for one (some 20 ms) as for hundreds.

use std::collections::BTreeMap;

use super::down;
use super::event::Listener;
use super::journal;
use super::kernel::Kernel;
use super::step::Steps;
use super::undo::LARGE_BRIDGE;
use crate::net::{self, Change};
use crate::state::{Error, Kind, LabDir, NetnsRef, Record, Result, StateDir, Status, name};

/// How many labs are held at once: each takes an open file.
const AT_ONCE: usize = 128;

/// Takes down labs, as `down` does one by one. Those that are not there count as done. Returns whether any was there, and every failure.
pub fn down_all(state: &StateDir, names: &[String], steps: &Steps, listener: &mut Listener) -> (bool, Vec<Error>) {
    let there = |name: &&String| name::check("lab", name).is_err() || state.lab_dir(name).path().is_dir();
    let names: Vec<String> = names.iter().filter(there).cloned().collect();
    (!names.is_empty(), down_each(state, &names, None, steps, listener))
}

/// Takes down the labs that are parts of the lab `name`, whose own devices have the mark `whole` and go next. One that is not there any
/// more is down.
pub(super) fn down_parts(
    state: &StateDir,
    name: &str,
    whole: Option<&str>,
    steps: &Steps,
    listener: &mut Listener,
) -> Vec<Error> {
    match state.children(name) {
        Ok(parts) => down_each(state, &parts, whole, steps, listener),
        Err(error) => vec![error],
    }
}

fn down_each(
    state: &StateDir,
    names: &[String],
    whole: Option<&str>,
    steps: &Steps,
    listener: &mut Listener,
) -> Vec<Error> {
    let mut errors = Vec::new();
    for names in names.chunks(AT_ONCE) {
        let mut held = BTreeMap::new();
        // One alone needs no look at all that the host has.
        if names.len() > 1 {
            errors.extend(delete_cables(state, names, whole, steps, &mut held).err());
        }
        for name in names {
            let failed = match held.remove(name) {
                Some(Held { dir, record, list }) => {
                    down::undo_list(state, dir, &record, list, steps, listener).unwrap_or_else(|error| vec![error])
                }
                None => down::down(state, name, steps, listener),
            };
            errors.extend(failed.into_iter().filter(|error| error.kind() != Kind::Missing));
        }
    }
    errors
}

/// A lab whose cables are gone; its lock is held until the rest of it is.
struct Held {
    dir: LabDir,
    record: Record,
    list: journal::Steplist,
}

/// Deletes the cables that labs have on the host, before the labs go: an end finds them gone, as after a kill. Puts those labs into
/// `held`. A bridge with the mark `whole` goes too, and is set down where it has many ports: each port that leaves one that is up makes
/// the kernel look at all the others.
fn delete_cables(
    state: &StateDir,
    names: &[String],
    whole: Option<&str>,
    steps: &Steps,
    held: &mut BTreeMap<String, Held>,
) -> Result<()> {
    let failed = |source: net::Error| Error::kernel("look at the host", &source);
    let host = NetnsRef::host();
    let mut kernel = Kernel::open().map_err(failed)?;
    let rtnl = kernel.rtnl(&host).map_err(failed)?;
    let links = net::link::list(&rtnl).map_err(failed)?;
    let mut going = Vec::new();
    for name in names {
        // What is wrong with a lab is met again by its own end, and said there.
        let Ok(Some((mut lab, cables))) = open_with_cables(state, name, steps, &links) else { continue };
        // Noted first: nobody repairs it any more.
        if lab.dir.note_undoing(&lab.record)?.is_none() {
            lab.record.status = Status::Undoing;
            held.insert(name.clone(), lab);
            going.extend(cables);
        }
    }
    if going.len() < 2 {
        return Ok(());
    }
    let ports = |bridge: &net::Link| links.iter().filter(|link| link.controller == Some(bridge.index)).count();
    let is_going =
        |link: &&net::Link| link.kind.as_deref() == Some("bridge") && whole.is_some() && link.alias.as_deref() == whole;
    let large = links.iter().filter(is_going).filter(|bridge| ports(bridge) > LARGE_BRIDGE);
    let down = Change { up: Some(false), ..Change::default() };
    for bridge in large {
        let message = net::link::change_request(bridge.index, &down);
        kernel.send([(&host, message)]).map_err(|source| Error::kernel("set the bridge down", &source))?;
    }
    let deleted = net::link::group::delete_together(&rtnl, &links, &going);
    deleted.map_err(|source| Error::kernel("delete the cables of the labs", &source))
}

/// Opens a lab, with the devices of the host that are ends of its cables, by its journal, their kind and its mark. None for a lab without,
/// and for one with namespaces of its own, whose end looks at what others have in them before anything goes.
fn open_with_cables(
    state: &StateDir,
    name: &str,
    steps: &Steps,
    links: &[net::Link],
) -> Result<Option<(Held, Vec<u32>)>> {
    let mut dir = state.find(name)?;
    dir.lock(state)?;
    let record = dir.record()?;
    if record.holder.is_some() || record.is_of_earlier_boot()? || !state.is_host_here(&record)? {
        return Ok(None);
    }
    let list = journal::read(&dir, &record, steps)?;
    if list.asked.iter().any(|asked| asked.step.footprint().makes_netns.is_some()) {
        return Ok(None);
    }
    let host = NetnsRef::host();
    let made =
        list.asked.iter().flat_map(|asked| asked.step.footprint().makes_devs).filter(|dev| dev.netns.at == host.at);
    let is_cable = |index: &u32| {
        links.binary_search_by_key(index, |link| link.index).is_ok_and(|at| {
            links[at].kind.as_deref() == Some("veth") && links[at].alias.as_ref() == Some(&record.marks.mark)
        })
    };
    let cables: Vec<u32> = made.map(|dev| dev.index).filter(is_cable).collect();
    Ok((!cables.is_empty()).then_some((Held { dir, record, list }, cables)))
}
