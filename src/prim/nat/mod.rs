//! Translation and filters: the tables of nf_tables that labs have.

pub(super) mod dnat;
pub(super) mod filter;
pub(super) mod firewalls;
pub(super) mod inbound;
pub(super) mod mappings;
pub(super) mod masquerade;
pub(super) mod published;
pub(super) mod ruleset;
pub(super) mod ways;
