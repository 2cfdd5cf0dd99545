//! Addresses, neighbours, routes and rules of both families.

pub mod addr;
pub(super) mod announce;
pub mod neigh;
pub mod reach;
pub mod route;
pub mod rule;
