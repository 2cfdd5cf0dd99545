//! A step: one change of the kernel, as data that knows how to make itself and how to take itself back.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::IpAddr;

use serde_json::value::RawValue;

use super::error::{Error, Kind, Result};
use super::kernel::Kernel;
use super::model::{DevRef, Model, NetnsRef, ProcessRef, TableRef};
use super::moved::Moved;
use super::outcome::{Outcome, Slot};
use crate::net::{self, Request, Work};

/// One change of the kernel.
///
/// A step is written to the journal before it is applied, so what it needs for its undo is in its own fields. `undo` is
/// also called for a step that was never applied, or only in part, by another process, after others have worked on the
/// machine: it changes only what it can tell to be this lab's, and counts what is gone as done.
pub trait Step: Debug {
    /// Returns the word for this sort of step in the journal.
    fn word(&self) -> &'static str;
    /// Returns the step's fields, as JSON.
    fn data(&self) -> serde_json::Result<Box<RawValue>>;
    /// Says what the step does, for messages: "add bridge `br0`".
    fn doing(&self) -> String;
    /// Returns the `ip`, `nft` or other commands that do the same.
    fn like(&self) -> Vec<String>;
    /// Checks the step against what the lab holds, and enters it there.
    fn plan(&self, model: &mut Model) -> Result<()>;
    /// Takes the step out of what the lab holds; `why` is told to handles of what it made.
    fn unplan(&self, model: &mut Model, why: &str);
    /// Reads what the undo will need to know, before the step is journaled.
    fn prepare(&mut self, _kernel: &mut Kernel) -> net::Result<()> {
        Ok(())
    }
    /// Says what to do about the kernel's refusal of `apply`, where more is known than the kernel says.
    fn advice(&self, _refusal: &net::Error) -> Option<String> {
        None
    }
    /// Tells whether steps after it can't be prepared before it is applied: under the new name of a device that is not the
    /// lab's nothing is found yet.
    fn hides_what_follows(&self) -> bool {
        false
    }
    /// Returns the change as requests, where it is nothing but these and what is done aside: they are sent along with those of the
    /// steps beside it.
    fn requests(&self, _kernel: &mut Kernel) -> net::Result<Option<Requests<'_>>> {
        Ok(None)
    }
    /// Makes the change; for a step with neither `requests` nor `aside`.
    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        self.aside(kernel)?.map_or(Ok(()), |work| work())?;
        self.requests(kernel)?.map_or(Ok(()), |requests| kernel.send(requests))
    }
    /// Returns the change, or what of it comes before its requests, as work that may be done at any time until the settling ends, by
    /// another thread: no other step can tell.
    fn aside(&self, _kernel: &mut Kernel) -> net::Result<Option<Work>> {
        Ok(None)
    }
    /// Tells whether the kernel makes the change in one operation: refused with "exists", nothing of it was made, and what
    /// is there is another's.
    fn is_one_operation(&self) -> bool {
        false
    }
    /// Returns the address that the step gives and that works a little later than it is there: an IPv6 one.
    fn works_later(&self) -> Option<(&NetnsRef, IpAddr)> {
        None
    }
    /// Tells whether the change can't be taken back: a removal.
    fn is_removal(&self) -> bool {
        false
    }
    /// Takes the change back.
    fn undo(&self, kernel: &mut Kernel) -> net::Result<()>;
    /// Returns what the step sets and a later step may set anew. It is not looked for if all of it was set anew.
    fn sets(&self) -> Vec<Slot> {
        Vec::new()
    }
    /// Tells whether the kernel still has what `apply` made, as far as the lab itself did not change it later. What is on a device
    /// that is gone counts as held: the step that made the device answers for it. A step that keeps nothing in the kernel says yes.
    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool>;
    /// Makes the change again where it is not held, in whole or in part. What is left of it is kept where it can be.
    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        match self.undo(kernel) {
            Err(source) if !source.is_gone() => return Err(source),
            _ => {}
        }
        self.apply(kernel)?;
        match self.finish() {
            Some(finish) => kernel.send(finish.requests.into_iter().map(|request| (finish.netns, request))),
            None => Ok(()),
        }
    }
    /// Returns what is left to do after `apply` and can wait until the settling's other links are in, if anything is.
    fn finish(&self) -> Option<Finish<'_>> {
        None
    }
    /// Tells whether unfinished work in the namespace `no` must be done before this step is applied.
    fn needs_finished(&self, no: u32) -> bool {
        self.lives_in().iter().any(|netns| netns.no == no)
    }
    /// Returns the namespace that the step makes.
    fn makes_netns(&self) -> Option<&NetnsRef> {
        None
    }
    /// Returns the devices that the step makes.
    fn makes_devs(&self) -> Vec<&DevRef> {
        Vec::new()
    }
    /// Returns the process that the step starts to run beside the script.
    fn starts(&self) -> Option<&ProcessRef> {
        None
    }
    /// Returns the devices whose carrier the step may change and has not seen to: they are at the end of the settling, and so are
    /// the bridges that they are ports of.
    fn wakes(&self) -> Vec<&DevRef> {
        self.makes_devs()
    }
    /// Returns the table that the step makes.
    fn makes_table(&self) -> Option<TableRef> {
        None
    }
    /// Returns the table whose end takes the step's effect along.
    fn lives_in_table(&self) -> Option<TableRef> {
        None
    }
    /// Returns the namespaces any of whose ends takes the step's effect along.
    fn lives_in(&self) -> Vec<&NetnsRef>;
    /// Returns how a device was moved that must be given back before the namespace ends in which it is.
    fn moved(&self) -> Option<&Moved> {
        None
    }
    /// Returns the device whose end takes the step's effect along.
    fn lives_on(&self) -> Option<&DevRef> {
        None
    }
}

/// Requests, each with the namespace over whose socket it goes.
pub type Requests<'a> = Vec<(&'a NetnsRef, Request)>;

/// What is put off to the end of a settling: a bridge comes up once its ports are in.
pub struct Finish<'a> {
    /// The namespace over whose socket the requests go.
    pub netns: &'a NetnsRef,
    /// The requests.
    pub requests: Vec<Request>,
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
        let doing = || format!("read a step of sort `{}`", super::name::shown(word));
        let read = self.0.get(word).ok_or_else(|| {
            Error::new(Kind::State, doing())
                .because("this release knows no such step")
                .hint("use the release of topo that made the lab")
        })?;
        read(data).map_err(|source| Error::new(Kind::State, doing()).because(source))
    }
}

/// Gives a serde type the two methods of `Step` that store it: its word and its fields.
#[macro_export]
macro_rules! step_identity {
    ($word:literal) => {
        fn word(&self) -> &'static str {
            $word
        }
        fn data(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
            serde_json::value::to_raw_value(self)
        }
    };
}

/// Returns the registry entry of a step type.
#[macro_export]
macro_rules! step_sort {
    ($word:literal, $type:ty) => {
        ($word, |data| Ok(Box::new(serde_json::from_str::<$type>(data.get())?) as Box<dyn $crate::lab::Step>))
    };
}
