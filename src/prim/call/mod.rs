//! The call that a primitive is in: its place, its lab, what it may.

pub(super) mod beyond;
pub(super) mod calls;
pub(super) mod context;
