//! Probes: what answers at an address or a port, and what the way there is like.

pub(super) mod datagrams;
pub(super) mod echoes;
pub mod http;
pub(super) mod http_request;
pub mod icmp;
pub(super) mod icmp_packet;
pub mod path_mtu;
pub mod ping_all;
pub mod sees;
pub mod server;
pub mod socket;
pub mod tcp;
pub mod throughput;
pub mod trace;
pub mod udp;
