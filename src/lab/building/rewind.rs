//! Taking a lab back to an earlier point: what a session at a prompt does with a statement that failed, or that is undone.

use std::collections::BTreeSet;

use super::Lab;
use crate::lab::event::CheckResult;
use crate::lab::journal::Asked;
use crate::state::{Error, NetnsRef, Result, TableRef};

use crate::lab::step::Steps;
use crate::lab::{ProcessFiles, Watched, commands, down, ended, undo};
use crate::net::{self, ProcessId};

/// A point in the building of a lab, with nothing left to settle.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The number of the last step that was applied.
    applied: u64,
    next_no: u32,
    tables: BTreeSet<TableRef>,
    parts: BTreeSet<String>,
    checks: usize,
    acts: u64,
    processes: Vec<ProcessId>,
}

impl Lab {
    /// Makes what follows possible to take back step by step: what the lab's own things are before a change is written down too.
    pub fn undo_exactly(&mut self) {
        self.kernel.undo_exactly();
    }

    /// Notes the present point; what was asked for so far is settled first.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.settle()?;
        Ok(Checkpoint {
            applied: self.last_applied(),
            next_no: self.model.first_free_no(),
            tables: self.model.tables().clone(),
            parts: self.parts()?,
            checks: self.checks.len(),
            acts: self.acts,
            processes: self.running()?,
        })
    }

    /// Returns the processes that are left running; looks for them only if something may have started one since the last time.
    fn running(&mut self) -> Result<Vec<ProcessId>> {
        if let Some((_, processes)) = self.running.as_ref().filter(|(acts, _)| *acts == self.acts) {
            return Ok(processes.clone());
        }
        let processes = self.processes()?;
        self.running = Some((self.acts, processes.clone()));
        Ok(processes)
    }

    /// Ends the processes that were started since `point`, but for those that an earlier one has started.
    fn end_since(&self, point: &Checkpoint) -> Result<()> {
        let mut processes = self.processes()?;
        processes.retain(|process| !point.processes.contains(process) && !process.comes_from(&point.processes));
        ended::end_all(&processes, &mut Vec::new())
    }

    /// Returns the names of all labs that are parts of this one, and of those parts.
    fn parts(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut left = match self.claimed {
            Some(_) => vec![self.origin.name.clone()],
            None => Vec::new(),
        };
        while let Some(name) = left.pop() {
            for part in self.state.children(&name)? {
                if found.insert(part.clone()) {
                    left.push(part);
                }
            }
        }
        Ok(found)
    }

    /// Returns how many of the applied steps have a number up to `no`. Those of processes that have ended go from among them.
    fn count_upto(&self, no: u64) -> usize {
        self.applied.partition_point(|asked| asked.no <= no)
    }

    /// Says what was done since `point` that can't be taken back, if anything was: a removal.
    pub fn lost_since(&self, point: &Checkpoint) -> Result<Option<String>> {
        let removal =
            self.applied[self.count_upto(point.applied)..].iter().find(|asked| asked.step.footprint().is_removal);
        if let Some(asked) = removal {
            return Ok(Some(asked.step.doing()));
        }
        let parts = self.parts()?;
        Ok(point.parts.difference(&parts).next().map(|part| format!("take down lab `{part}`")))
    }

    /// Takes back all that was done since `point`, and returns every failure met on the way. What can't be taken back stays as
    /// it is; handles to what is gone are told `why`.
    pub fn rewind(&mut self, point: &Checkpoint, steps: &Steps, why: &str) -> Vec<Error> {
        for asked in self.pending.drain(..).rev() {
            asked.step.unplan(&mut self.model, why);
        }
        // Namespaces that were made ahead for what is not made now.
        self.kernel.worker.stop();
        let mut errors: Vec<Error> = self.end_since(point).err().into_iter().collect();
        match self.parts() {
            Ok(parts) => {
                for part in parts.difference(&point.parts) {
                    let done = down::down(&self.state, part, steps, &mut self.listener);
                    errors.extend(done.into_iter().filter(|error| error.kind() != crate::state::Kind::Missing));
                }
            }
            Err(error) => errors.push(error),
        }
        let undone = self.applied.split_off(self.count_upto(point.applied));
        let listener = &mut self.listener;
        listener.expect(&undone, true);
        let mut each = |asked: &Asked| listener.tell_step(asked, true);
        errors.extend(undo::undo(&mut self.kernel, &undone, undo::ALL_DONE, &mut each));
        self.listener.arrived();
        self.listener.warn(self.kernel.take_given_back());
        if let (Some((_, journal)), Some(first), true) = (&mut self.claimed, undone.first(), errors.is_empty()) {
            errors.extend(journal.undone(first.no).err());
        }
        for asked in undone.iter().rev() {
            asked.step.unplan(&mut self.model, why);
        }
        if !errors.is_empty() {
            // The journal has them too: the end of the lab tries again.
            self.applied.extend(undone);
        }
        self.model.forget_since(point.next_no, why);
        self.model.set_tables(point.tables.clone());
        self.checks.truncate(point.checks);
        errors
    }

    /// Tells whether the lab holds anything, in its own steps or in parts.
    pub fn has_made_anything(&self) -> bool {
        !self.applied.is_empty() || self.parts().map_or(true, |parts| !parts.is_empty())
    }

    /// Returns the results of the checks since `point`.
    pub fn checks_since(&self, point: &Checkpoint) -> &[CheckResult] {
        self.checks.get(point.checks..).unwrap_or(&[])
    }

    /// Tells whether nothing was done since `point` but to look.
    pub fn only_looked_since(&self, point: &Checkpoint) -> Result<bool> {
        let done = (self.last_applied(), self.checks.len(), self.acts);
        Ok(done == (point.applied, point.checks, point.acts) && self.parts()? == point.parts)
    }

    /// Returns the processes that the lab's statements left running, in whatever namespace.
    pub fn processes(&self) -> Result<Vec<ProcessId>> {
        let mut found = commands::with_mark(&self.kernel.marks().process_mark)?;
        if found.is_empty() || self.state.inside().is_some() {
            return Ok(found);
        }
        // The environment alone is no proof.
        let (name, marks) = (&self.origin.name, self.kernel.marks());
        let dir = self.claimed.as_ref().map(|(dir, _)| dir);
        let proven = self.state.processes_of(dir, name, marks, self.creator)?;
        let made: Vec<&NetnsRef> = self.model.all_netns().map(|entry| &entry.at).filter(|at| at.made).collect();
        let ids = made.iter().filter_map(|at| self.kernel.ours(at).ok().flatten()).map(|netns| netns.id()).collect();
        let inside =
            net::process::in_netns(&ids).map_err(|source| Error::kernel("look for the lab's processes", &source))?;
        found.retain(|process| proven.contains(process) || inside.contains(process) || process.comes_from(&proven));
        Ok(found)
    }

    /// Returns the processes that the lab's statements left running, by their supervisors where they have such, which is then
    /// told with them; those that these have started are left out.
    pub fn watched(&self) -> Result<Vec<Watched>> {
        let mut supervised = Vec::new();
        if let Ok(dir) = self.kernel.processes() {
            for process in self.model.all_processes() {
                let files = ProcessFiles::of(&dir, process);
                let Ok(Some(record)) = files.record() else { continue };
                if record.ended.is_none() {
                    supervised.push((record.supervisor, Some((process.shown(), files))));
                }
            }
        }
        let supervisors: Vec<ProcessId> = supervised.iter().map(|(supervisor, _)| *supervisor).collect();
        let mut others = self.processes()?;
        others.retain(|process| !supervisors.contains(process) && !process.comes_from(&supervisors));
        supervised.extend(others.into_iter().map(|process| (process, None)));
        Ok(supervised)
    }

    /// Takes back all that the lab made, although its directory is not there any more or is another lab's.
    pub fn take_down_lost(&mut self) -> Vec<Error> {
        self.claimed = None;
        self.pending.clear();
        self.kernel.worker.stop();
        let mut errors = self.undo_applied(None);
        let last = self.state.lock_all().and_then(|_all| match self.state.names()?.is_empty() {
            true => undo::retire_dir(&self.kernel, &self.state, &|| Ok(true)),
            false => Ok(()),
        });
        errors.extend(last.err());
        errors
    }

    /// Tells whether the lab's directory is still there, or was never made: nobody took it from this process.
    pub fn is_known(&self) -> bool {
        self.claimed
            .as_ref()
            .is_none_or(|(dir, _)| dir.record().is_ok_and(|record| record.marks == *self.kernel.marks()))
    }
}
