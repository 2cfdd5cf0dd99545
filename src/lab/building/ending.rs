//! The end of a run: the lab stays up, or all of it is taken back.

use super::Lab;
use crate::lab::down;
use crate::lab::error::{Error, Result};
use crate::lab::journal::Asked;
use crate::lab::state::{LabDir, Status};
use crate::lab::step::Steps;
use crate::lab::undo;

impl Lab {
    /// Ends the run and leaves the lab up; tells whether there is one (a script that made nothing leaves none).
    pub fn leave_up(&mut self) -> Result<bool> {
        self.settle()?;
        if self.kernel.has_trail() {
            self.state.tidy_trail(self.kernel.marks())?;
        }
        let Some((dir, journal)) = self.claimed.take() else { return Ok(false) };
        if self.applied.is_empty() && self.state.children(&self.origin.name)?.is_empty() {
            return dir.remove_after(&self.state, || undo::retire_dir(&self.kernel, &self.state)).map(|()| false);
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
        let mut each = |asked: &Asked| listener.tell_step(asked, true);
        errors.extend(undo::undo(&mut self.kernel, &self.applied, undo::ALL_DONE, &mut each));
        errors
    }

    /// Ends the run and takes back all that it made; returns every failure met on the way.
    pub fn take_down(&mut self, steps: &Steps) -> Vec<Error> {
        self.pending.clear();
        self.kernel.stop_beside();
        let Some((dir, _)) = self.claimed.take() else {
            // A command may have left processes, though nothing was made.
            let left = if self.acts > 0 { self.end_left(None) } else { Ok(()) };
            return left.err().into_iter().collect();
        };
        let (unnoted, mut errors) = match dir.note_undoing() {
            Ok(unnoted) => (unnoted, Vec::new()),
            Err(error) => (None, vec![error]),
        };
        let listener = &mut self.listener;
        errors.extend(down::down_children(&self.state, &self.origin.name, steps, listener));
        errors.extend(self.undo_applied(Some(&dir)));
        match errors.is_empty() {
            true => errors.extend(dir.remove_after(&self.state, || undo::retire_dir(&self.kernel, &self.state)).err()),
            false => errors.extend(unnoted),
        }
        errors
    }
}
