//! A step: one change of the kernel, as data that knows how to make itself and how to take itself back.

use std::collections::HashMap;
use std::fmt::Debug;

use serde::Serialize;
use serde_json::value::RawValue;

use super::footprint::Footprint;
use super::kernel::Kernel;
use super::model::Model;
use super::op::Op;
use super::outcome::Outcome;
use crate::net;
use crate::state::{Error, Kind, Result};

/// A sort of steps, with its word in the journal.
pub trait StepSort: Serialize {
    /// The word.
    const WORD: &'static str;
}

/// A step as the journal has it. Every step of a `StepSort` is that.
pub trait Journaled {
    /// Returns the word for its sort.
    fn word(&self) -> &'static str;
    /// Returns its fields, as JSON.
    fn data(&self) -> serde_json::Result<Box<RawValue>>;
}

impl<T: StepSort> Journaled for T {
    fn word(&self) -> &'static str {
        T::WORD
    }

    fn data(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }
}

/// One change of the kernel.
///
/// A step is written to the journal before it is applied, so what it needs for its undo is in its own fields. `undo` is
/// also called for a step that was never applied, or only in part, by another process, after others have worked on the
/// machine: it changes only what it can tell to be this lab's, and counts what is gone as done.
pub trait Step: Journaled + Debug {
    /// Says what the step does, for messages: "add bridge `br0`".
    fn doing(&self) -> String;
    /// Returns the `ip`, `nft` or other commands that do the same.
    fn like(&self) -> Vec<String>;
    /// Returns what the step touches.
    fn footprint(&self) -> Footprint<'_>;
    /// Checks the step against what the lab holds, and enters it there. By itself it checks that what its effect lives in is there.
    fn plan(&self, model: &mut Model) -> Result<()> {
        self.footprint().check_living(model)
    }
    /// Takes the step out of what the lab holds, with all that it makes; `why` is told to handles of that.
    fn unplan(&self, model: &mut Model, why: &str) {
        self.footprint().take_out(model, why);
    }
    /// Reads what the undo will need to know, before the step is journaled.
    fn prepare(&mut self, _kernel: &mut Kernel) -> net::Result<()> {
        Ok(())
    }
    /// Says what to do about the kernel's refusal of `ops`, where more is known than the kernel says.
    fn advice(&self, _refusal: &net::Error) -> Option<String> {
        None
    }
    /// Returns what to do to make the change, in order.
    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>>;
    /// Takes the change back.
    fn undo(&self, kernel: &mut Kernel) -> net::Result<()>;
    /// Tells whether the kernel still has what the step made, as far as the lab itself did not change it later. What is on a device
    /// that is gone counts as held: the step that made the device answers for it. A step that keeps nothing in the kernel says yes.
    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool>;
    /// Makes the change again where it is not held, in whole or in part. What is left of it is kept where it can be.
    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        match self.undo(kernel) {
            Err(source) if !source.is_gone() => return Err(source),
            _ => {}
        }
        kernel.make(self)
    }
}

/// Reads a step of one sort back from its fields.
pub type ReadStep = fn(&RawValue) -> serde_json::Result<Box<dyn Step>>;

/// The sorts of steps that there are, by their words: what a journal is read with.
#[derive(Debug, Default, Clone)]
pub struct Steps(HashMap<&'static str, ReadStep>);

impl Steps {
    /// Makes a registry of the sorts given.
    pub fn new(sorts: impl IntoIterator<Item = (&'static str, ReadStep)>) -> Steps {
        Steps(sorts.into_iter().collect())
    }

    /// Returns the word of each sort.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// Reads a step back.
    pub fn read(&self, word: &str, data: &RawValue) -> Result<Box<dyn Step>> {
        let doing = || format!("read a step of sort `{}`", crate::state::name::shown(word));
        let read = self.0.get(word).ok_or_else(|| {
            Error::new(Kind::State, doing())
                .because("this release knows no such step")
                .hint("use the release of topo that made the lab")
        })?;
        read(data).map_err(|source| Error::new(Kind::State, doing()).because(source))
    }
}

/// Returns the registry entry of a step type.
#[macro_export]
macro_rules! step_sort {
    ($type:ty) => {
        (<$type as $crate::lab::StepSort>::WORD, |data| {
            Ok(Box::new(serde_json::from_str::<$type>(data.get())?) as Box<dyn $crate::lab::Step>)
        })
    };
}
