//! Addresses, routes, rules and neighbours of a namespace, and its settings.

pub(super) mod addr;
pub(super) mod endpoint;
pub(super) mod neigh;
pub(super) mod route;
pub(super) mod rule;
pub(super) mod sysctl;
