//! Undo: steps backwards, tolerant of what is gone, to the end in spite of failures.

use std::collections::{BTreeMap, BTreeSet};

use super::ended::{EndedProcess, end_all, end_processes};
use super::footprint::Moved;
use super::journal::Asked;
use super::kernel::Kernel;
use super::left;
use super::moved::WAY_ON;
use crate::net::{self, Change, Link, NetnsId};
use crate::state::{DevRef, Error, LabDir, Marks, NetnsRef, Result, StateDir, TableRef};

/// For `undo`: all steps are applied.
pub(super) const ALL_DONE: u64 = u64::MAX;

/// A bridge of more ports is set down before they go.
pub(super) const LARGE_BRIDGE: usize = 16;

/// What a lab's namespaces hold that are about to go, looked at before anything is changed.
#[derive(Default)]
pub(super) struct Survey {
    /// The numbers of the namespaces that are there as the lab's, or that are not there any more.
    going: BTreeSet<u32>,
    ids: BTreeSet<NetnsId>,
    /// Devices that the lab did not make.
    foreign: Vec<(NetnsRef, Vec<Link>)>,
    errors: Vec<Error>,
}

impl Survey {
    /// Looks at the namespaces that `steps` have made.
    pub(crate) fn of(kernel: &mut Kernel, steps: &[Asked]) -> Survey {
        let mut survey = Survey::default();
        let makers: Vec<(&Asked, &NetnsRef)> =
            steps.iter().filter_map(|asked| Some((asked, asked.step.footprint().makes_netns?))).collect();
        let made: Vec<&NetnsRef> = makers.iter().map(|(_, at)| *at).collect();
        let mut there = Vec::new();
        for ((asked, at), found) in makers.iter().zip(kernel.all_ours(&made)) {
            match found {
                Ok(Some(id)) => {
                    survey.going.insert(at.no);
                    survey.ids.insert(id);
                    there.push(*at);
                }
                // It is gone, or its name is another one's now: nothing of ours is inside.
                Ok(None) => {
                    survey.going.insert(at.no);
                }
                Err(source) => {
                    survey.errors.push(Error::kernel(format!("look at netns `{}`", at.name), &source).at(&asked.place));
                }
            }
        }
        let devs: Vec<&DevRef> = steps.iter().flat_map(|asked| asked.step.footprint().makes_devs).collect();
        match kernel.find_foreign(&there, &there, &devs) {
            Ok(foreign) => survey.foreign = foreign,
            Err(source) => survey.errors.push(Error::kernel("look for devices that the lab did not make", &source)),
        }
        survey
    }

    /// Checks that the devices that the lab did not make can go back where they came from.
    pub(super) fn check_ways_back(
        &self,
        kernel: &mut Kernel,
        steps: &[Asked],
        doing: impl FnOnce() -> String,
    ) -> Result<()> {
        if self.foreign.is_empty() {
            return Ok(());
        }
        let moves = moves(steps);
        let mut ways = Vec::new();
        for (at, links) in &self.foreign {
            ways.extend(kernel.ways_back(at, links, &moves, &self.going));
        }
        kernel.check_ways(&ways).map_err(|taken| taken.error(doing()))
    }

    /// Gives the devices back that the lab did not make and that are still in a namespace.
    fn give_back(&self, kernel: &mut Kernel, at: &NetnsRef, steps: &[Asked]) -> Vec<net::Error> {
        let Some((_, links)) = self.foreign.iter().find(|(netns, _)| netns.no == at.no) else { return Vec::new() };
        let now = kernel.rtnl(at).and_then(|rtnl| net::link::list(&rtnl));
        let links = match now {
            Ok(mut now) => {
                now.retain(|link| links.iter().any(|known| known.index == link.index && known.mac == link.mac));
                now
            }
            Err(error) if error.is_gone() => return Vec::new(),
            Err(error) => return vec![error],
        };
        let ways = kernel.ways_back(at, &links, &moves(steps), &self.going);
        kernel.give_back(&ways).err().unwrap_or_default()
    }
}

/// Returns how the steps moved devices that outlive the namespaces where they are.
fn moves(steps: &[Asked]) -> Vec<&Moved> {
    steps.iter().filter_map(|asked| asked.step.footprint().moves).collect()
}

/// Takes back `steps`, the last one first, and returns every failure; `each` is told before a step is taken back. Those up to the
/// number `done` are known to be applied: where their objects are there without the lab's mark, that is a failure too.
///
/// What ends with a namespace or a device that goes anyway is not taken back one by one: the kernel frees it all at
/// once, and this waits until it has.
pub(super) fn undo(kernel: &mut Kernel, steps: &[Asked], done: u64, each: &mut dyn FnMut(&Asked)) -> Vec<Error> {
    let survey = Survey::of(kernel, steps);
    undo_surveyed(kernel, survey, steps, done, each)
}

/// The same, after a look at the lab's namespaces.
pub(super) fn undo_surveyed(
    kernel: &mut Kernel,
    mut survey: Survey,
    steps: &[Asked],
    done: u64,
    each: &mut dyn FnMut(&Asked),
) -> Vec<Error> {
    let mut errors = std::mem::take(&mut survey.errors);
    let mut going = survey.going.clone();
    let mut occupied = BTreeSet::new();
    let mut unnamed = Vec::new();
    if let Err(error) = end_processes(&survey.ids, kernel.note()) {
        errors.push(error);
        // A namespace with somebody in it keeps its name: without it nobody would find them again.
        let kept =
            steps.iter().filter_map(|asked| asked.step.footprint().makes_netns).filter(|at| is_occupied(kernel, at));
        kept.for_each(|at| {
            going.remove(&at.no);
            occupied.insert(at.no);
        });
    }
    errors.extend(set_bridges_down(kernel, steps));
    let made: BTreeSet<u32> =
        steps.iter().flat_map(|asked| asked.step.footprint().makes_devs).map(|dev| dev.no).collect();
    let tables: BTreeSet<TableRef> = steps.iter().filter_map(|asked| asked.step.footprint().makes_table).collect();
    for asked in steps.iter().rev() {
        let step = &asked.step;
        let footprint = step.footprint();
        if footprint.lives_in_table.is_some_and(|table| tables.contains(&table)) {
            continue;
        }
        let with_netns =
            footprint.makes_netns.is_none() && footprint.lives_in.iter().any(|netns| going.contains(&netns.no));
        let with_dev = footprint.lives_on.is_some_and(|dev| made.contains(&dev.no));
        if with_netns || with_dev {
            for dev in footprint.makes_devs.iter().filter(|dev| !going.contains(&dev.netns.no)) {
                kernel.expect_gone(dev);
            }
            continue;
        }
        if footprint.makes_netns.is_some_and(|at| occupied.contains(&at.no)) {
            continue;
        }
        each(asked);
        if let Some(at) = footprint.makes_netns {
            let failed = survey.give_back(kernel, at, steps);
            if !failed.is_empty() {
                errors.extend(failed.iter().map(|source| failed_way_back(source.doing(), source).at(&asked.place)));
                continue;
            }
        }
        match footprint.makes_netns {
            // Many end at once, which takes the kernel as long as one: they are let go together.
            Some(at) => unnamed.push(at),
            None => let_go(kernel, &mut unnamed),
        }
        match step.undo(kernel) {
            Err(source) if !source.is_gone() => {
                let doing = format!("undo: {}", step.doing());
                let error = match footprint.moves {
                    Some(moved) => {
                        occupied.insert(moved.to.netns.no);
                        failed_way_back(&doing, &source)
                    }
                    None => Error::kernel(doing, &source),
                };
                errors.push(error.at(&asked.place));
            }
            _ => {}
        }
        errors.extend(left::errors_of(kernel, asked, asked.no <= done));
    }
    let_go(kernel, &mut unnamed);
    errors.extend(kernel.wait_gone().iter().map(|source| Error::kernel("wait until the links are gone", source)));
    errors
}

/// Says that a device could not go back, and what to do where its name is taken.
pub(super) fn failed_way_back(doing: &str, source: &net::Error) -> Error {
    let error = Error::kernel(doing, source);
    if source.is_exists() { error.hint(WAY_ON) } else { error }
}

/// Sets large bridges down that are about to go with their ports: each port that leaves one that is up makes the kernel look at all
/// the others.
fn set_bridges_down(kernel: &mut Kernel, steps: &[Asked]) -> Vec<Error> {
    let mut ports: BTreeMap<u32, usize> = BTreeMap::new();
    for bridge in steps.iter().flat_map(|asked| asked.step.footprint().wakes) {
        *ports.entry(bridge.no).or_default() += 1;
    }
    let mut errors = Vec::new();
    for asked in steps {
        let devs = asked.step.footprint().makes_devs;
        for dev in devs.iter().filter(|dev| ports.get(&dev.no).is_some_and(|ports| *ports > LARGE_BRIDGE)) {
            match set_down(kernel, dev) {
                Err(source) if !source.is_gone() => {
                    errors.push(Error::kernel(format!("set {} down", dev.shown()), &source).at(&asked.place));
                }
                _ => {}
            }
        }
    }
    errors
}

fn set_down(kernel: &mut Kernel, dev: &DevRef) -> net::Result<()> {
    if kernel.link(dev)?.is_none() {
        return Ok(());
    }
    let down = Change { up: Some(false), ..Change::default() };
    kernel.send([(&dev.netns, net::link::change_request(dev.index, &down))])
}

/// Lets go of namespaces whose names are taken away, so that the kernel can free them.
fn let_go(kernel: &mut Kernel, unnamed: &mut Vec<&NetnsRef>) {
    if unnamed.is_empty() {
        return;
    }
    unnamed.drain(..).for_each(|at| kernel.forget(at));
}

/// Tells whether a namespace of ours has processes in it; if that can't be told, it may.
fn is_occupied(kernel: &Kernel, at: &NetnsRef) -> bool {
    match kernel.ours(at) {
        Ok(Some(netns)) => net::process::in_netns(&[netns.id()].into()).map_or(true, |found| !found.is_empty()),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// Ends the processes of a lab that are proven to be its own by something else than a namespace.
pub(super) fn end_left(
    state: &StateDir,
    dir: Option<&LabDir>,
    lab: &str,
    marks: &Marks,
    creator: net::ProcessId,
    ended: &mut Vec<EndedProcess>,
) -> Result<()> {
    let (processes, has_trails) = state.left_of(dir, lab, marks, creator)?;
    end_all(&processes, ended)?;
    // They are listed anew: what was ended may have left others.
    if has_trails || !processes.is_empty() { state.end_trails(lab, marks, creator) } else { Ok(()) }
}

/// Makes the directory of named namespaces, as `ip netns add` does; notes it if it is ours to remove again.
pub(super) fn prepare_dir(kernel: &Kernel, state: &StateDir) -> Result<()> {
    if state.inside().is_some() {
        // A sandbox has a directory of its own, which goes with it.
        return kernel.dir().prepare().map(|_| ()).map_err(|source| failed_dir(&source));
    }
    let _all = state.lock_all()?;
    let note = state.root().join(DIR_NOTE);
    let noted = note.exists();
    if !noted {
        let failed = |source: std::io::Error| Error::file(format!("write `{}`", note.display()), &source);
        std::fs::write(&note, "").map_err(failed)?;
    }
    let made = kernel.dir().prepare().map_err(|source| failed_dir(&source))?;
    if !made && !noted {
        std::fs::remove_file(&note).map_err(|source| Error::file(format!("remove `{}`", note.display()), &source))?;
    }
    Ok(())
}

fn failed_dir(source: &net::Error) -> Error {
    Error::kernel("make the directory of named netns", source)
}

/// Removes the directory of named namespaces if a lab made it, it is empty, and `is_only` says that no other lab may use it. The caller
/// holds the lock of the state directory.
pub(super) fn retire_dir(kernel: &Kernel, state: &StateDir, is_only: &dyn Fn() -> Result<bool>) -> Result<()> {
    let note = state.root().join(DIR_NOTE);
    if state.inside().is_some() || !note.exists() || !is_only()? {
        return Ok(());
    }
    let failed = |source: &net::Error| Error::kernel("remove the empty directory of named netns", source);
    // A run that was killed between the note and the directory leaves the note alone.
    if kernel.dir().retire().map_err(|source| failed(&source))? || !kernel.dir().exists() {
        std::fs::remove_file(&note).map_err(|source| Error::file(format!("remove `{}`", note.display()), &source))?;
    }
    Ok(())
}

/// The file that notes that the directory of named namespaces is ours to remove.
const DIR_NOTE: &str = "made-netns-dir";
