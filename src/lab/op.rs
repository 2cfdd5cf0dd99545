//! What a step has done: a list of operations, as data for the scheduler.

use std::any::Any;

use super::kernel::Kernel;
use crate::net::{self, Request, Work};
use crate::state::NetnsRef;

/// Work on the kernel that this thread does.
pub type HereAndNow<'a> = Box<dyn FnOnce(&mut Kernel) -> net::Result<()> + 'a>;

/// One operation of a step.
pub enum Op<'a> {
    /// A request over the socket of a namespace. It is sent along with those beside it.
    Ask(&'a NetnsRef, Request),
    /// A request that waits for the end of the settling, or for a step that notices (`Footprint::waits_for`): a bridge comes up as
    /// late as that, since each port makes the kernel look at all the others in one that is up.
    AtEnd(&'a NetnsRef, Request),
    /// Work that another thread does at any time until the settling ends: no other step can tell.
    Aside(Work),
    /// Work that costs less in one go with that of the steps after it.
    Together(&'a dyn Joint),
    /// Anything else. What comes before it is made by then, or refused first.
    Now(HereAndNow<'a>),
}

impl<'a> Op<'a> {
    /// Returns work as the only operation of a step.
    pub fn alone(work: impl FnOnce(&mut Kernel) -> net::Result<()> + 'a) -> net::Result<Vec<Op<'a>>> {
        Ok(vec![Op::Now(Box::new(work))])
    }

    /// Returns requests over the socket of one namespace.
    pub fn asks(at: &'a NetnsRef, requests: impl IntoIterator<Item = Request>) -> impl Iterator<Item = Op<'a>> {
        requests.into_iter().map(move |request| Op::Ask(at, request))
    }
}

/// Work that several steps do in one go.
pub trait Joint: Any {
    /// Tells whether it can go with `first`.
    fn goes_with(&self, first: &dyn Joint) -> bool;
    /// Does the work of `all`, of which this is the first, or nothing of it.
    fn do_all(&self, kernel: &mut Kernel, all: &[&dyn Joint]) -> net::Result<()>;
    /// Tells whether a refusal may be about one of several. What is in the kernel of `all` is then taken out, and each goes alone, so
    /// that the refusal is that one's.
    fn splits(&self, kernel: &mut Kernel, all: &[&dyn Joint], refusal: &net::Error) -> net::Result<bool>;
}
