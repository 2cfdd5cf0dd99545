//! Repair: what others took from a lab in the kernel is found by its journal, and made again.

use std::collections::BTreeSet;

use super::error::{Error, Kind, Result};
use super::event::Listener;
use super::journal;
use super::kernel::Kernel;
use super::state::{LabDir, StateDir, Status};
use super::step::Steps;

/// Returns what the kernel no longer has of a lab and of the labs that are parts of it, in words.
pub fn drift(state: &StateDir, name: &str, steps: &Steps) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    each(state, name, &mut |dir| {
        // One that a process is at work on has not all of its own yet, or no more.
        if dir.record()?.status != Status::Up {
            return Ok(());
        }
        visit(state, dir, steps, &mut |asked, held, _| {
            if !held {
                lost.push(asked.step.doing());
            }
            Ok(())
        })
    })?;
    Ok(lost)
}

/// Makes again what the kernel no longer has of a lab and of the labs that are parts of it; returns what that was, in words.
pub fn repair(state: &StateDir, name: &str, steps: &Steps, listener: &mut Listener) -> Result<Vec<String>> {
    let mut made = Vec::new();
    each(state, name, &mut |dir| {
        dir.lock(state)?;
        let mut tables = BTreeSet::new();
        visit(state, dir, steps, &mut |asked, held, kernel| {
            let table = asked.step.lives_in_table();
            // The rules behind a lost one are made again too: their order is what they mean.
            if held && !table.as_ref().is_some_and(|table| tables.contains(table)) {
                return Ok(());
            }
            tables.extend(table);
            listener.tell_step(asked, false);
            asked
                .step
                .repair(kernel)
                .map_err(|source| Error::kernel(format!("repair: {}", asked.step.doing()), &source))?;
            if !held {
                made.push(asked.step.doing());
            }
            Ok(())
        })
    })?;
    Ok(made)
}

/// Goes through a lab and the labs that are parts of it, the outer ones first.
fn each(state: &StateDir, name: &str, work: &mut dyn FnMut(&mut LabDir) -> Result<()>) -> Result<()> {
    work(&mut state.find(name)?)?;
    for child in state.children(name)? {
        match each(state, &child, work) {
            // One that somebody took down since it was listed.
            Err(_) if state.find(&child).is_err_and(|error| error.kind() == Kind::Missing) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Goes through the steps of a lab in their order, and tells of each whether the kernel still has its effect.
fn visit(
    state: &StateDir,
    dir: &LabDir,
    steps: &Steps,
    work: &mut dyn FnMut(&journal::Asked, bool, &mut Kernel) -> Result<()>,
) -> Result<()> {
    let record = dir.record()?;
    state.check_host(&record, || format!("look at lab `{}`", record.name))?;
    let mut kernel = Kernel::open_for(state, &record.name, &record.marks)
        .map_err(|source| Error::kernel("open the kernel", &source))?;
    for asked in journal::read(dir, &record, steps)?.asked {
        let held = match asked.step.is_held(&mut kernel) {
            Ok(held) => held,
            // In a namespace that has ended with all that was in it.
            Err(source) if source.is_gone() => continue,
            Err(source) => return Err(Error::kernel(format!("look for: {}", asked.step.doing()), &source)),
        };
        work(&asked, held, &mut kernel)?;
    }
    Ok(())
}
