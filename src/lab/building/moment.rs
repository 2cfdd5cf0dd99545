//! Moments between two things that a script does: whether something was done since.

use super::Lab;

/// A moment of a lab's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    applied: usize,
    pending: usize,
    next_step: u64,
    acts: u64,
}

impl Lab {
    /// Returns the present moment.
    pub fn moment(&self) -> Moment {
        Moment { applied: self.applied.len(), pending: self.pending.len(), next_step: self.next_step, acts: self.acts }
    }

    /// Tells whether a moment is the present one, and of a settling that is still to come: nothing was asked for, applied or
    /// run since, so that what was looked at then is as it was, but for what others do.
    pub fn is_still(&self, moment: &Moment) -> bool {
        !self.pending.is_empty() && *moment == self.moment()
    }

    /// Returns the number that the next step gets.
    pub fn next_step(&self) -> u64 {
        self.next_step
    }

    /// Returns the number of the step that the kernel has refused, once.
    pub fn take_refused(&mut self) -> Option<u64> {
        self.refused.take()
    }
}
