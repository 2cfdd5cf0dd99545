//! Repair: what others took from a lab in the kernel is found by its journal, and made again.

use std::collections::BTreeSet;

use super::look::{self, Opened};
use crate::lab::{Kernel, Listener, Step, Steps};
use crate::net;
use crate::state::{Error, Kind, LabDir, Result, StateDir};

/// How often a lab is gone through: what one step makes again may be what an earlier one waits for.
const ROUNDS_MAX: usize = 4;

/// What a repair did, and what it could not do.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was made again, in words.
    pub made: Vec<String>,
    /// What could not be.
    pub errors: Vec<Error>,
}

/// Returns what the kernel no longer has of a lab and of the labs that are parts of it, in words.
///
/// What is on a device that is gone is not named beside it.
pub fn drift(state: &StateDir, name: &str, steps: &Steps) -> Result<Vec<String>> {
    let mut names = Vec::new();
    each(state, name, &mut |dir| {
        names.push(dir.name().to_string());
        Ok(())
    })?;
    let looked: Result<Vec<_>> = look::lost(state, steps, &names, usize::MAX).into_iter().collect();
    Ok(looked?.concat())
}

/// Makes again what the kernel no longer has of a lab and of the labs that are parts of it. What can't be made is told, and does not
/// keep the rest from being made.
pub fn repair(state: &StateDir, name: &str, steps: &Steps, listener: &mut Listener) -> Result<Repaired> {
    let mut repaired = Repaired::default();
    if !state.is_up(&state.find(name)?.record()?)? {
        return Err(Error::new(Kind::Gone, format!("repair lab `{name}`"))
            .because("it is not up: its run died, or the machine was restarted")
            .hint(format!("`topo down {name}` or `topo gc` removes what is left of it")));
    }
    each(state, name, &mut |dir| {
        dir.lock(state)?;
        let record = dir.record()?;
        if let Some(ended) = look::ended(&record)? {
            let error = Error::new(Kind::Gone, format!("repair lab `{}`", dir.name())).because(ended);
            repaired.errors.push(error.hint("`topo gc` removes what is left of it"));
            return Ok(());
        }
        let lab = Opened::open(state, dir, record, steps)?;
        let mut kernel = Kernel::open_for(state, dir.name(), &lab.record.marks)
            .map_err(|source| Error::kernel("open the kernel", &source))?;
        let mut made = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let (mended, errors) = lab.mend(&mut kernel, listener)?;
            let failed = !errors.is_empty();
            repaired.errors.extend(errors);
            if mended.is_empty() || failed {
                break;
            }
            made.extend(mended);
        }
        lab.fence(&mut kernel, &made)?;
        repaired.made.extend(made.iter().map(|at| lab.asked[*at].step.doing()));
        Ok(())
    })?;
    Ok(repaired)
}

/// Tells whether the namespace that a lab is for has ended.
pub fn has_ended(dir: &LabDir) -> Result<bool> {
    Ok(look::ended(&dir.record()?)?.is_some())
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

impl Opened {
    /// Makes again what is not held, in the order of the steps; returns the places of those steps, and what failed.
    fn mend(&self, kernel: &mut Kernel, listener: &mut Listener) -> Result<(Vec<usize>, Vec<Error>)> {
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        let mut tables = BTreeSet::new();
        for at in 0..self.asked.len() {
            let held = self.is_held(kernel, at)?;
            let asked = &self.asked[at];
            let table = asked.step.footprint().lives_in_table;
            // The rules behind a lost one are made again too: their order is what they mean.
            if held && !table.as_ref().is_some_and(|table| tables.contains(table)) {
                continue;
            }
            tables.extend(table);
            listener.tell_step(asked, false);
            match asked.step.mend(kernel, self.folded.seen_by(asked.no)) {
                Ok(()) if held => {}
                Ok(()) => made.push(at),
                Err(source) => errors.push(not_mended(asked.step.as_ref(), &source)),
            }
        }
        Ok((made, errors))
    }

    /// Waits until what was made again works.
    fn fence(&self, kernel: &mut Kernel, made: &BTreeSet<usize>) -> Result<()> {
        let failed = |source: net::Error| Error::kernel("wait for what was put back", &source);
        let steps = made.iter().map(|at| &self.asked[*at]);
        crate::lab::schedule::wait_working(steps, kernel, self.folded.model()).map_err(failed)
    }
}

fn not_mended(step: &dyn Step, source: &net::Error) -> Error {
    let error = Error::kernel(format!("put back: {}", step.doing()), source);
    if !source.is_exists() {
        return match step.advice(source) {
            Some(advice) => error.hint(advice),
            None => error,
        };
    }
    let footprint = step.footprint();
    let what = match (footprint.makes_netns, footprint.makes_devs.first()) {
        (Some(at), _) => {
            format!("another netns `{}` is there, which this lab did not make: rename or delete that", at.name)
        }
        (None, Some(dev)) => {
            format!("another device has the name or the number of {}: rename or delete that", dev.shown())
        }
        (None, None) => "the same was made by others: remove that".into(),
    };
    error.hint(format!("{what}, and repair again"))
}
