//! What is asked of the network, and what a script expects of it.

pub(super) mod check;
pub(super) mod difference;
pub(super) mod http;
pub(super) mod path;
pub(super) mod ping;
pub(super) mod sees;
pub(super) mod target;
pub(super) mod tcp;
pub(super) mod throughput;
