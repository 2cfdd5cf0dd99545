//! A lab while its script runs: steps are asked for, checked against the model, and settled together.

mod ending;
mod finished;
mod join;
mod look;
mod moment;
mod rewind;
mod shown;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::etc;
use super::event::{CheckResult, Event, Listener};
use super::journal::{Asked, Journal};
use super::kernel::Kernel;
use super::loops::{self, Cable};
use super::model::Model;
use super::schedule;
use super::step::{Step, Steps};
use super::undo;
use crate::net::{self, ProcessId};
use crate::state;
use crate::state::{Error, Kind, LabDir, LabKind, NetnsRef, Place, Record, Result, StateDir, Status, Store, name};

pub use moment::Moment;
pub use rewind::Checkpoint;

/// How many names are tried for a lab that nobody named.
const CLAIMS_MAX: usize = 100;

/// How many namespaces are begun before the first is asked for: as many as can be made meanwhile.
const EXPECTED: usize = 2;

/// What a new lab is told about the run that makes it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The name the lab gets unless the script gives it one.
    pub name: String,
    /// Whether the user gave the name, so that the script's own is not taken.
    pub named: bool,
    /// Whether nobody gave a name, so that another one will do if this one is taken.
    pub any_name: bool,
    /// The script, as the user named it.
    pub script: String,
    /// What the lab is for.
    pub kind: LabKind,
    /// The lab that it is a part of, and goes with.
    pub parent: Option<String>,
    /// The namespace of somebody else that it is for.
    pub tied_to: Option<NetnsRef>,
}

/// A lab that is being built.
pub struct Lab {
    origin: Origin,
    state: StateDir,
    claimed: Option<(LabDir, Journal)>,
    kernel: Kernel,
    model: Model,
    pending: Vec<Asked>,
    applied: Vec<Asked>,
    next_step: u64,
    seed: u64,
    checks: Vec<CheckResult>,
    /// Whether the first check that doesn't hold is to be told with how the lab stands then.
    shows_failure: bool,
    /// How often something was done that is no step, such as a command.
    acts: u64,
    /// The process that made the lab.
    creator: ProcessId,
    /// The processes that were left running when a point was noted last, and how much had been done then that is no step.
    running: Option<(u64, Vec<ProcessId>)>,
    /// With how many processes those that have ended are looked for again.
    look_for_finished: usize,
    /// The number of the step that the kernel refused last.
    refused: Option<u64>,
    /// The loops of bridges that were warned of.
    loops: BTreeSet<Cable>,
    listener: Listener,
}

impl Lab {
    /// Begins a lab; nothing is changed, and no name taken, before the first step is asked for.
    pub fn begin(origin: Origin, state: StateDir, listener: Listener) -> Result<Lab> {
        let marks = state.marks(&origin.name)?;
        let kernel = Kernel::open_for(&state, &origin.name, &marks)
            .map_err(|source| Error::kernel("open the kernel", &source))?;
        let seed = RandomState::new().hash_one(&marks.mark);
        let creator = creator_in(&state)?;
        Ok(Lab {
            origin,
            state,
            claimed: None,
            kernel,
            model: Model::new(seed),
            pending: Vec::new(),
            applied: Vec::new(),
            next_step: 1,
            seed,
            checks: Vec::new(),
            shows_failure: false,
            acts: 0,
            creator,
            running: None,
            look_for_finished: finished::LOOK_FIRST,
            refused: None,
            loops: BTreeSet::new(),
            listener,
        })
    }

    /// Begins a lab within this one, which sees what this one has made, and says what it has to say to the same listener.
    ///
    /// What this lab was asked for is settled first. The listener is lent: `rejoin` gives it back.
    pub fn begin_within(&mut self, origin: Origin) -> Result<Lab> {
        // As a part of another lab it needs none of this one's name, which another run may have: two runs of one script at once.
        if origin.parent.as_deref() == Some(self.name()) {
            self.take_name()?;
        }
        self.settle()?;
        let mut inner = Lab::begin(origin, self.state.clone(), Listener::new(|_| {}))?;
        inner.model.know(&self.model);
        std::mem::swap(&mut inner.listener, &mut self.listener);
        inner.shows_failure = self.shows_failure;
        Ok(inner)
    }

    /// Ends the run of a lab that `begin_within` began: leaves it up where it went `well`, and knows then what it made, else
    /// takes it down. Returns what went wrong on the way.
    pub fn end_within(&mut self, mut inner: Lab, well: bool, steps: &Steps) -> Vec<Error> {
        let left = if well { inner.leave_up().map(|_| ()) } else { Ok(()) };
        let errors = match (left, well) {
            (Ok(()), true) => {
                self.model.know(&inner.model);
                Vec::new()
            }
            (left, _) => left.err().into_iter().chain(inner.take_down(steps)).collect(),
        };
        std::mem::swap(&mut inner.listener, &mut self.listener);
        self.checks.append(&mut inner.checks);
        self.shows_failure = inner.shows_failure;
        self.acts += inner.acts;
        errors
    }

    /// Returns the state directory.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Opens the store.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.state.store()
    }

    /// Returns what the lab is for.
    pub fn kind(&self) -> LabKind {
        self.origin.kind
    }

    /// Returns the lab that it is a part of.
    pub fn parent(&self) -> Option<&str> {
        self.origin.parent.as_deref()
    }

    /// Returns the owner mark that what it makes bears.
    pub fn mark(&self) -> &str {
        self.kernel.mark()
    }

    /// Returns the script that builds the lab, as the user named it.
    pub fn script(&self) -> &str {
        &self.origin.script
    }

    /// Returns the lab's name.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// Gives the lab its name; a name that the user gave on the command line stays.
    pub fn set_name(&mut self, name: &str) -> Result<()> {
        name::check("lab", name)?;
        if self.origin.named || name == self.origin.name {
            return Ok(());
        }
        if self.claimed.is_some() {
            return Err(Error::invalid(format!("name the lab `{name}`"))
                .because(format!("it is being built as `{}` already", self.origin.name))
                .hint("call `lab` before the first thing is made"));
        }
        let marks = self.state.marks(name)?;
        self.kernel.set_lab(name, marks)?;
        self.origin.name = name.to_string();
        self.origin.any_name = false;
        Ok(())
    }

    /// Returns a hardware address that no other device has: random, so that an undo never takes a stranger for ours.
    pub fn new_mac(&self, no: u32) -> net::Mac {
        net::Mac::local(name::fnv1a(&[self.seed.to_le_bytes(), u64::from(no).to_le_bytes()].concat()))
    }

    /// Returns what the lab holds, pending steps included.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// Begins to make some namespaces, which the script is likely to ask for, while it is read.
    pub fn expect_netns(&mut self) {
        (0..EXPECTED).for_each(|_| self.kernel.expect_netns());
    }

    /// Returns the kernel with everything settled that was asked for: the only way to look at it.
    pub fn settled(&mut self) -> Result<(&mut Kernel, &mut Model)> {
        self.settle()?;
        Ok((&mut self.kernel, &mut self.model))
    }

    /// Returns the kernel without settling, to look at what this lab did not make.
    pub fn foreign(&mut self) -> (&mut Kernel, &mut Model) {
        (&mut self.kernel, &mut self.model)
    }

    /// Asks for a step: checks it against what the lab holds and puts it with those that are to be settled.
    pub fn ask(&mut self, step: impl Step + 'static, place: Place) -> Result<()> {
        self.take_name()?;
        step.plan(&mut self.model)?;
        if step.footprint().makes_netns.is_some() {
            self.kernel.order_netns();
        }
        self.listener.asked(step.word());
        self.pending.push(Asked { no: self.next_step, step: Box::new(step), place });
        self.next_step += 1;
        Ok(())
    }

    /// Applies the steps asked for so far, in order.
    ///
    /// If one is refused, it and those after it are taken out again, those before it stay, and the error bears the place
    /// that asked for it.
    pub fn settle(&mut self) -> Result<()> {
        self.warn_of_loops();
        while !self.pending.is_empty() {
            let known = self.pending.iter().position(|asked| asked.step.footprint().hides_what_follows);
            self.settle_first(known.map_or(self.pending.len(), |at| at + 1))?;
        }
        Ok(())
    }

    /// Warns of each loop of bridges that what was asked for makes, before it is there.
    fn warn_of_loops(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        for (cable, text) in loops::find(&self.model) {
            if self.loops.insert(cable) {
                self.listener.tell(&Event::Warning(text));
            }
        }
    }

    /// Applies the first `count` steps of those asked for.
    fn settle_first(&mut self, count: usize) -> Result<()> {
        let prepared = self.prepare(count);
        let ready = prepared.as_ref().map_or_else(|(at, _)| *at, |()| count);
        if let Some((_, journal)) = &mut self.claimed {
            journal.write_ahead(&self.pending[..ready])?;
        }
        let applied = self.apply(ready);
        let (upto, refused) = match (applied, prepared) {
            (Err((at, error)), _) | (Ok(()), Err((at, error))) => (at, Some(error)),
            (Ok(()), Ok(())) => (count, None),
        };
        let Some(mut error) = refused else {
            if self.applied.is_empty() {
                // Mostly all of it at once: it needs no second room.
                let left = self.pending.split_off(count);
                self.applied = std::mem::replace(&mut self.pending, left);
            } else {
                self.applied.extend(self.pending.drain(..count));
            }
            return self.note_done();
        };
        if let Some(refused) = self.pending.get(upto) {
            error = error.at(&refused.place);
            self.refused = Some(refused.no);
        }
        let errors = self.take_back(upto, ready, error.kind());
        self.cancel(upto, &error);
        self.applied.append(&mut self.pending);
        self.note_done()?;
        Err(error.also(errors))
    }

    fn note_done(&mut self) -> Result<()> {
        let Some((_, journal)) = &mut self.claimed else { return Ok(()) };
        if let Some(last) = self.applied.last() {
            journal.done(last.no)?;
        }
        journal.tidy(&self.applied);
        Ok(())
    }

    /// Takes the lab's name, and locks it: before anything is made or found in the way, so that a second run of a lab that is
    /// up is told so, and not what of it stands in the way.
    pub fn take_name(&mut self) -> Result<()> {
        if self.claimed.is_some() {
            return Ok(());
        }
        let mut claimed = self.claim_name();
        for _ in 0..CLAIMS_MAX {
            match &claimed {
                // Another run that nobody named was quicker.
                Err(error) if self.origin.any_name && matches!(error.kind(), Kind::Exists | Kind::Busy) => {
                    self.origin.name = self.state.free_name(&self.origin.name)?;
                    let marks = self.state.marks(&self.origin.name)?;
                    self.kernel.set_lab(&self.origin.name, marks)?;
                    claimed = self.claim_name();
                }
                _ => break,
            }
        }
        self.claimed = Some(claimed?);
        Ok(())
    }

    fn claim_name(&self) -> Result<(LabDir, Journal)> {
        let record = Record {
            name: self.origin.name.clone(),
            status: Status::Building,
            boot_id: state::boot_id()?,
            creator: self.creator,
            script: self.origin.script.clone(),
            created: state::now(),
            marks: self.kernel.marks().clone(),
            holder: self.state.inside().map(|inside| inside.holder),
            kind: self.origin.kind,
            parent: self.origin.parent.clone(),
            host: Some(self.state.host()?.clone()),
            tied_to: self.origin.tied_to.clone(),
        };
        self.state.claim(&record, |dir| Journal::create(dir, &record))
    }

    fn prepare(&mut self, count: usize) -> std::result::Result<(), (usize, Error)> {
        for (at, asked) in self.pending[..count].iter_mut().enumerate() {
            let prepared = asked.step.prepare(&mut self.kernel);
            prepared.map_err(|source| (at, schedule::refused(asked, &source)))?;
        }
        Ok(())
    }

    fn apply(&mut self, upto: usize) -> std::result::Result<(), (usize, Error)> {
        let steps = &self.pending[..upto];
        if let Some(first) = steps.iter().position(|asked| asked.step.footprint().makes_netns.is_some()) {
            undo::prepare_dir(&self.kernel, &self.state).map_err(|error| (first, error))?;
        }
        schedule::run(steps, &mut self.kernel, &self.model, &mut self.listener)
    }

    /// Undoes the pending steps from `from` up to `ready`: some were applied, the one at `from`, refused with an error of
    /// `kind`, perhaps in part.
    fn take_back(&mut self, from: usize, ready: usize, kind: Kind) -> Vec<Error> {
        if from >= ready {
            return Vec::new();
        }
        // Its undo would take what is there, another lab's or this one's own, for what it had made.
        let nothing_made = kind == Kind::Exists && self.pending[from].step.footprint().is_atomic;
        let first = if nothing_made { from + 1 } else { from };
        let errors = undo::undo(&mut self.kernel, &self.pending[first..ready], 0, &mut |_| {});
        match (&mut self.claimed, self.pending.get(from)) {
            (Some((_, journal)), Some(asked)) => match journal.undone(asked.no) {
                Ok(()) => errors,
                Err(error) => errors.into_iter().chain([error]).collect(),
            },
            _ => errors,
        }
    }

    /// Takes the pending steps from `from` on out of the model.
    fn cancel(&mut self, from: usize, error: &Error) {
        let why = match error.place().and_then(Place::spot) {
            Some(spot) => format!("it was not made: {error} ({spot})"),
            None => format!("it was not made: {error}"),
        };
        for asked in self.pending.drain(from..).rev() {
            asked.step.unplan(&mut self.model, &why);
        }
    }

    /// Returns the files of /etc that a command in a namespace sees otherwise, with everything settled that was asked for.
    pub fn etc_for(&mut self, at: &NetnsRef) -> Result<Vec<net::EtcFile>> {
        self.settle()?;
        let dir = self.kernel.lab_dir().map_err(|source| Error::kernel("look for the lab's directory", &source))?;
        etc::files_for(|| etc::nodes(&self.model), self.model.resolver(at.no).is_some(), &dir, at)
    }

    /// Takes back the last step that was applied, for whoever has just asked for it and found that what it made is not what it
    /// was to be. Returns what went wrong on the way.
    pub fn take_back_last(&mut self, why: &str) -> Vec<Error> {
        let Some(asked) = self.applied.pop() else { return Vec::new() };
        let mut errors = undo::undo(&mut self.kernel, std::slice::from_ref(&asked), undo::ALL_DONE, &mut |_| {});
        if !errors.is_empty() {
            // The journal has it too: the end of the lab tries again.
            self.applied.push(asked);
            return errors;
        }
        asked.step.unplan(&mut self.model, why);
        if let Some((_, journal)) = &mut self.claimed {
            errors.extend(journal.undone(asked.no).err());
        }
        errors
    }

    /// Notes that something is done which is no step: a command, an address given back.
    pub fn note_act(&mut self) {
        self.acts += 1;
    }

    /// Has the first check that doesn't hold told with how the lab stands then.
    pub fn show_failure(&mut self) {
        self.shows_failure = true;
    }

    /// Notes the result of a check.
    pub fn note_check(&mut self, check: CheckResult) {
        if !check.ok && std::mem::take(&mut self.shows_failure) {
            let view = self.look_around().unwrap_or_default();
            self.listener.tell(&Event::AtFailure(view));
        }
        self.listener.tell(&Event::Check(check.clone()));
        self.checks.push(check);
    }

    /// Returns the results of all checks so far.
    pub fn checks(&self) -> &[CheckResult] {
        &self.checks
    }

    /// Says something to whoever runs the script.
    pub fn say(&mut self, event: &Event) {
        self.listener.tell(event);
    }

    /// Returns the number of the last step that is applied; 0 where none is.
    pub fn last_applied(&self) -> u64 {
        self.applied.last().map_or(0, |asked| asked.no)
    }
}

/// Returns the process that makes a lab, as it is seen from outside of a sandbox.
fn creator_in(state: &StateDir) -> Result<ProcessId> {
    match state.inside() {
        Some(inside) => Ok(inside.creator),
        None => ProcessId::current().map_err(|source| Error::kernel("look at this process", &source)),
    }
}
