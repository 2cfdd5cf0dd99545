//! The lab, its namespaces and its parts, and what it keeps.

pub(super) mod errors;
pub(super) mod ipam;
pub(super) mod labs;
pub(super) mod lease;
pub(super) mod netns;
pub(super) mod records;
pub(super) mod within;
