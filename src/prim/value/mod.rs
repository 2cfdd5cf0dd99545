//! Values: what a script gives, and what it gets.

pub(super) mod graph;
pub(super) mod handles;
pub(super) mod options;
pub(super) mod ports;
pub(super) mod quantity;
pub(super) mod units;
#[expect(clippy::module_inception, reason = "the group of that name is one of several here")]
pub(super) mod value;
