//! What a journal comes to: its steps, folded into a model.

use super::journal;
use super::model::{DevEntry, Model};
use super::step::{Step, Steps};
use crate::state::{Kind, LabDir, Record, Result};

/// Reads the steps of a lab, and what it holds by them.
pub(crate) fn fold(dir: &LabDir, record: &Record, steps: &Steps) -> Result<(Model, Vec<journal::Asked>)> {
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
