//! The end of a run: the lab stays up, or all of it is taken back.

use std::collections::BTreeSet;

use super::Lab;
use crate::lab::down_all::down_parts;
use crate::lab::footprint::Moved;
use crate::lab::journal::Asked;
use crate::lab::step::Steps;
use crate::lab::undo;
use crate::net;
use crate::state::{DevRef, Error, LabDir, NetnsRef, Result, Status};

impl Lab {
    /// Ends the run and leaves the lab up; tells whether there is one (a script that made nothing leaves none).
    pub fn leave_up(&mut self) -> Result<bool> {
        self.settle()?;
        if self.kernel.has_trail() {
            self.state.tidy_trail(self.kernel.marks())?;
        }
        let Some((dir, journal)) = self.claimed.take() else { return Ok(false) };
        if self.applied.is_empty() && self.state.children(&self.origin.name)?.is_empty() {
            let record = dir.record().ok();
            let last = |is_only: &dyn Fn() -> Result<bool>| undo::retire_dir(&self.kernel, &self.state, is_only);
            return dir.remove_after(&self.state, record.as_ref(), last).map(|()| false);
        }
        let noted = dir.set_status(Status::Up);
        // Where that can't be noted, it can still be taken down.
        self.claimed = noted.is_err().then_some((dir, journal));
        noted.map(|()| true)
    }

    /// Ends the processes that are the lab's by something else than a namespace.
    fn end_left(&self, dir: Option<&LabDir>) -> Result<()> {
        undo::end_left(&self.state, dir, &self.origin.name, self.kernel.marks(), self.creator, &mut Vec::new())
    }

    /// Takes back all steps that are applied, after the processes that were left running.
    pub(super) fn undo_applied(&mut self, dir: Option<&LabDir>) -> Vec<Error> {
        let mut errors: Vec<Error> = self.end_left(dir).err().into_iter().collect();
        let listener = &mut self.listener;
        listener.expect(&self.applied, true);
        let mut each = |asked: &Asked| listener.tell_step(asked, true);
        errors.extend(undo::undo(&mut self.kernel, &self.applied, undo::ALL_DONE, &mut each));
        self.listener.arrived();
        self.listener.warn(self.kernel.take_given_back());
        errors
    }

    /// Ends the run and takes back all that it made; returns every failure met on the way.
    pub fn take_down(&mut self, steps: &Steps) -> Vec<Error> {
        self.pending.clear();
        self.kernel.worker.stop();
        let Some((dir, _)) = self.claimed.take() else {
            // A command may have left processes, though nothing was made.
            let left = if self.acts > 0 { self.end_left(None) } else { Ok(()) };
            return left.err().into_iter().collect();
        };
        let (record, unnoted, mut errors) = match dir.record() {
            Ok(record) => match dir.note_undoing(&record) {
                Ok(unnoted) => (Some(record), unnoted, Vec::new()),
                Err(error) => (Some(record), None, vec![error]),
            },
            Err(error) => (None, None, vec![error]),
        };
        let listener = &mut self.listener;
        errors.extend(down_parts(&self.state, &self.origin.name, Some(self.kernel.mark()), steps, listener));
        errors.extend(self.undo_applied(Some(&dir)));
        match errors.is_empty() {
            true => {
                let last = |is_only: &dyn Fn() -> Result<bool>| undo::retire_dir(&self.kernel, &self.state, is_only);
                errors.extend(dir.remove_after(&self.state, record.as_ref(), last).err());
            }
            false => errors.extend(unnoted),
        }
        errors
    }

    /// Finds the devices that the lab did not make in one of its namespaces, and how they go back; an error where one can't.
    pub fn ways_back_from(&mut self, at: &NetnsRef) -> Result<Vec<Moved>> {
        self.settle()?;
        let doing = format!("remove netns `{}`", at.name);
        let failed = |source: net::Error| Error::kernel(&doing, &source);
        if self.kernel.ours(at).map_err(failed)?.is_none() {
            return Ok(Vec::new());
        }
        let all: Vec<&NetnsRef> = self.model.all_netns().map(|entry| &entry.at).filter(|at| at.made).collect();
        let made: Vec<&DevRef> = self.model.all_devs().map(|entry| &entry.dev).filter(|dev| dev.made).collect();
        let moves: Vec<&Moved> = self.applied.iter().filter_map(|asked| asked.step.footprint().moves).collect();
        let found = self.kernel.find_foreign(&[at], &all, &made).map_err(failed)?;
        let mut ways = Vec::new();
        for (at, links) in found {
            ways.extend(self.kernel.ways_back(&at, &links, &moves, &BTreeSet::from([at.no])));
        }
        self.kernel.check_ways(&ways).map_err(|taken| taken.error(doing))?;
        Ok(ways)
    }
}
