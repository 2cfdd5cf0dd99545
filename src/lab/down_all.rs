//! Taking down many labs: their cables are deleted together, since the kernel waits as long for one (some 20 ms) as for hundreds.

use super::down::down;
use super::error::{Error, Kind, Result};
use super::event::Listener;
use super::journal;
use super::kernel::Kernel;
use super::model::NetnsRef;
use super::name;
use super::state::{LabDir, StateDir};
use super::step::Steps;
use crate::net;

/// How many labs are held at once: each takes an open file.
const AT_ONCE: usize = 128;

/// Takes down labs, as `down` does one by one. Those that are not there count as done. Returns whether any was there, and every failure.
pub fn down_all(state: &StateDir, names: &[String], steps: &Steps, listener: &mut Listener) -> (bool, Vec<Error>) {
    let there = |name: &&String| name::check("lab", name).is_err() || state.lab_dir(name).path().is_dir();
    let names: Vec<String> = names.iter().filter(there).cloned().collect();
    let mut errors = Vec::new();
    for names in names.chunks(AT_ONCE) {
        // One alone needs no look at all that the host has.
        if names.len() > 1 {
            errors.extend(delete_cables(state, names, steps).err());
        }
        let failed = names.iter().flat_map(|name| down(state, name, steps, listener));
        errors.extend(failed.filter(|error| error.kind() != Kind::Missing));
    }
    (!names.is_empty(), errors)
}

/// Deletes the cables that labs have on the host, before the labs go: an end finds them gone, as after a kill.
fn delete_cables(state: &StateDir, names: &[String], steps: &Steps) -> Result<()> {
    let failed = |source: net::Error| Error::kernel("look at the host", &source);
    let host = NetnsRef::host();
    let mut kernel = Kernel::open().map_err(failed)?;
    let rtnl = kernel.rtnl(&host).map_err(failed)?;
    let links = net::link::list(&rtnl).map_err(failed)?;
    // Held until the cables are gone: nobody repairs a lab meanwhile.
    let (mut held, mut going): (Vec<LabDir>, Vec<u32>) = (Vec::new(), Vec::new());
    for name in names {
        // What is wrong with a lab is met again by its own end, and said there.
        let Ok((dir, cables)) = cables_of(state, name, steps, &links) else { continue };
        if !cables.is_empty() && dir.note_undoing()?.is_none() {
            held.push(dir);
            going.extend(cables);
        }
    }
    if going.len() < 2 {
        return Ok(());
    }
    let deleted = net::link::group::delete_together(&rtnl, &links, &going);
    deleted.map_err(|source| Error::kernel("delete the cables of the labs", &source))
}

/// Returns the devices of the host that are ends of a lab's cables, by its journal, their kind and its mark. None for a lab with namespaces
/// of its own, whose end looks at what others have in them before anything goes.
fn cables_of(state: &StateDir, name: &str, steps: &Steps, links: &[net::Link]) -> Result<(LabDir, Vec<u32>)> {
    let mut dir = state.find(name)?;
    dir.lock(state)?;
    let record = dir.record()?;
    if record.holder.is_some() || record.is_of_earlier_boot()? || !state.is_host_here(&record)? {
        return Ok((dir, Vec::new()));
    }
    let list = journal::read(&dir, &record, steps)?;
    if list.asked.iter().any(|asked| asked.step.footprint().makes_netns.is_some()) {
        return Ok((dir, Vec::new()));
    }
    let host = NetnsRef::host();
    let made =
        list.asked.iter().flat_map(|asked| asked.step.footprint().makes_devs).filter(|dev| dev.netns.at == host.at);
    let is_cable = |index: &u32| {
        links.binary_search_by_key(index, |link| link.index).is_ok_and(|at| {
            links[at].kind.as_deref() == Some("veth") && links[at].alias.as_ref() == Some(&record.marks.mark)
        })
    };
    let cables = made.map(|dev| dev.index).filter(is_cable).collect();
    Ok((dir, cables))
}
