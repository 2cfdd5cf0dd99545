//! What the steps of a lab come to together. A later step may change what an earlier one made, and that is no damage.

use std::borrow::Cow;
use std::collections::HashMap;

use super::footprint::Slot;
use super::journal::Asked;
use super::model::Model;
use crate::state::{DevRef, NetnsRef};

/// The steps of a lab, folded.
#[derive(Debug)]
pub(crate) struct Folded {
    model: Model,
    /// The number of the last step that sets a thing.
    last: HashMap<Slot, u64>,
}

impl Folded {
    /// Folds `asked`, whose model is `model`.
    pub(crate) fn new(model: Model, asked: &[Asked]) -> Folded {
        let mut last = HashMap::new();
        for one in asked {
            last.extend(one.step.footprint().sets.into_iter().map(|slot| (slot, one.no)));
        }
        Folded { model, last }
    }

    /// Returns the model.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Returns the lab's outcome as the step numbered `no` sees it.
    pub(crate) fn seen_by(&self, no: u64) -> Outcome<'_> {
        Outcome { folded: self, no }
    }
}

/// What a lab's steps come to, as one of them sees it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    folded: &'a Folded,
    no: u64,
}

impl<'a> Outcome<'a> {
    /// Returns where a device is in the end, and its name there. None if the lab itself removed it.
    pub fn dev(&self, dev: &'a DevRef) -> Option<&'a DevRef> {
        match self.folded.model.dev(dev.no) {
            Some(entry) => Some(&entry.dev),
            None => (!dev.made).then_some(dev),
        }
    }

    /// Returns what the lab's model has of its devices and namespaces in the end.
    pub fn model(&self) -> &'a Model {
        &self.folded.model
    }

    /// Tells whether the lab still has a namespace in the end.
    pub fn has_netns(&self, at: &NetnsRef) -> bool {
        !at.made || self.folded.model.netns(at.no).is_some()
    }

    /// Tells whether any step sets this.
    pub fn is_set(&self, no: u32, word: &'static str) -> bool {
        self.folded.last.contains_key(&(no, Cow::Borrowed(word)))
    }

    /// Tells whether this step is the last one that sets this.
    pub fn is_last(&self, slot: &Slot) -> bool {
        self.folded.last.get(slot).is_none_or(|last| *last == self.no)
    }
}
