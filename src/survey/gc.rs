//! Removing what dead runs left: by journal, and by owner mark where a journal is lost. Never by a pattern of names, and
//! never what belongs to a lab that is up.

use std::collections::BTreeSet;

use crate::lab::down::{down_locked, end_sandbox, is_empty, is_free};
use crate::lab::leases::{Freed, release_dead};
use crate::lab::marked::collect_marked;
use crate::lab::{Collected, Listener, Steps, journal};
use crate::state::{Error, Kind, LabDir, NetnsRef, Record, Result, StateDir};

/// Removes what dead runs of this state directory left behind.
pub fn gc(state: &StateDir, steps: &Steps, listener: &mut Listener) -> Result<Collected> {
    let mut collected = Collected::default();
    // On a file system that can't be written to the kernel's part is removed all the same.
    collected.errors.extend(state.sweep().err());
    for name in state.names()? {
        match collect_lab(state, &name, steps, listener) {
            Ok(true) => collected.labs.push(name),
            Ok(false) => {}
            Err(errors) => collected.errors.extend(errors),
        }
        collected.processes.extend(listener.take_ended());
    }
    if let Err(error) = collect_marked(state, &mut collected, None) {
        collected.errors.push(error);
    }
    match state.remove_abandoned_groups() {
        Ok(groups) => collected.groups = groups,
        Err(error) => collected.errors.push(error),
    }
    if let Err(error) = state.sweep_settings() {
        collected.errors.push(error);
    }
    // The locks of the dead go last. A store that can't be opened is told of once.
    let freed = release_dead(state, |_| true).and_then(|freed| state.tidy_store().map(|()| freed));
    match freed {
        Ok(Freed { leases, pools }) => (collected.leases, collected.pools) = (leases, pools),
        Err(error) => collected.errors.push(error),
    }
    // What is damaged may not have been needed so far.
    let known: BTreeSet<String> = collected.errors.iter().map(Error::to_string).collect();
    collected.errors.extend(state.check_store().into_iter().filter(|error| !known.contains(&error.to_string())));
    Ok(collected)
}

fn collect_lab(
    state: &StateDir,
    name: &str,
    steps: &Steps,
    listener: &mut Listener,
) -> std::result::Result<bool, Vec<Error>> {
    let one = |error: Error| vec![error];
    let Ok(mut dir) = state.find(name) else { return Ok(false) };
    if let Ok(record) = dir.record()
        && !is_dead(state, &record).map_err(one)?
    {
        // Not even locked: that would keep its owner out.
        return match journal::verify(&dir, &record) {
            Err(error) if error.kind() == Kind::State => Err(one(error)),
            _ => Ok(false),
        };
    }
    end_orphaned(state, &dir).map_err(one)?;
    if !is_free(&mut dir, state).map_err(one)? {
        return Ok(false);
    }
    let record = match dir.record() {
        Ok(record) => record,
        // Killed between making the directory and writing the record: before anything else was made.
        Err(_) if is_empty(&dir) => return dir.remove(state).map(|()| true).map_err(one),
        Err(error) => return Err(one(error)),
    };
    if !is_dead(state, &record).map_err(one)? || state.is_of_other_pids(&record).map_err(one)? {
        return Ok(false);
    }
    match down_locked(state, dir, &record, steps, listener) {
        errors if errors.is_empty() => Ok(true),
        errors => Err(errors),
    }
}

/// Ends the sandbox of a run whose process outside of it was killed: it ends by itself, but some moments later.
fn end_orphaned(state: &StateDir, dir: &LabDir) -> Result<()> {
    match dir.record() {
        Ok(Record { holder: Some(holder), creator, .. }) if state.inside().is_none() && !creator.is_alive() => {
            end_sandbox(holder)
        }
        _ => Ok(()),
    }
}

/// Tells whether nobody wants the lab: its run or its removal was cut short, its sandbox ended, or the machine restarted.
fn is_dead(state: &StateDir, record: &Record) -> Result<bool> {
    if !state.is_up(record)? {
        return Ok(true);
    }
    if let Some(parent) = &record.parent {
        match state.find(parent) {
            // What it was a part of is no more.
            Err(error) if error.kind() == Kind::Missing => return Ok(true),
            _ => {}
        }
    }
    record.tied_to.as_ref().map_or(Ok(false), NetnsRef::has_ended)
}
