//! Commands and processes in a namespace, and what they are given.

#[expect(clippy::module_inception, reason = "the group of that name is one of several here")]
pub(super) mod process;
pub(super) mod ready;
pub(super) mod resolver;
pub(super) mod serve;
pub(super) mod start;
pub(super) mod supervised;
