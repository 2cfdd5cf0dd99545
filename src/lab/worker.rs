//! The thread beside the one that works on the kernel.

use crate::net::{self, Beside, Netns, New, Work};

/// The step that was refused, by its place among those that are settled together, and why.
pub(super) type Blamed = (usize, net::Error);

/// The thread beside this one: it makes namespaces ahead of their use, and does what is put aside.
#[derive(Default)]
pub(super) struct Worker {
    beside: Option<Beside>,
    /// How many namespaces were begun that nobody has asked for.
    expected: usize,
    /// The failure of the lowest step of those that were put aside.
    failed: Option<Blamed>,
}

impl Worker {
    /// Begins to make one more namespace with the mark, unless one was begun that nobody had asked for.
    pub(super) fn order_netns(&mut self, mark: &str) {
        match self.expected.checked_sub(1) {
            Some(left) => self.expected = left,
            None => self.begin_netns(mark),
        }
    }

    /// Begins to make a namespace that is likely to be asked for.
    pub(super) fn expect_netns(&mut self, mark: &str) {
        self.expected += 1;
        self.begin_netns(mark);
    }

    fn begin_netns(&mut self, mark: &str) {
        self.beside.get_or_insert_with(|| Beside::start(mark)).order();
    }

    /// Returns a new namespace: the next one of those begun, or one made now.
    pub(super) fn new_netns(&mut self, mark: &str) -> net::Result<New> {
        match &mut self.beside {
            Some(beside) => beside.next(),
            None => Ok(New { netns: Netns::create(mark)?, up: true }),
        }
    }

    /// Has work of the step numbered `step` done; where no thread is at it, it is done now. A failure is told by `finish`.
    pub(crate) fn put(&mut self, step: usize, work: Work) {
        // A crash test must meet its points in one order.
        let done = match self.beside.as_mut().filter(|_| !net::fault::is_armed()) {
            Some(beside) => beside.put(step, work),
            None => work(),
        };
        self.note(done.map_err(|error| (step, error)));
    }

    /// Waits until all is done that was put aside; returns the failure of the lowest step.
    pub(super) fn finish(&mut self) -> std::result::Result<(), Blamed> {
        self.wait();
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Waits until all is done that was put aside.
    pub(crate) fn wait(&mut self) {
        let done = self.beside.as_mut().map_or(Ok(()), Beside::wait);
        self.note(done);
    }

    fn note(&mut self, done: std::result::Result<(), Blamed>) {
        if let Err((step, error)) = done
            && self.failed.as_ref().is_none_or(|(lowest, _)| step < *lowest)
        {
            self.failed = Some((step, error));
        }
    }

    /// Ends the thread; namespaces that nobody took are freed.
    pub(super) fn stop(&mut self) {
        *self = Worker::default();
    }
}
