//! The kernel: network namespaces, rtnetlink, nf_tables, sysctls, processes, echo requests. Plain Rust over sockets
//! that were born in the namespace they work on, so that no thread ever has to be moved. Knows nothing of the language
//! or of labs.
//!
//! The first line of each file says what it is for; `cargo doc --document-private-items` lists them.

mod error;
pub mod fault;
pub mod ip;
mod iproute2;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod port;
pub mod probe;
pub mod process;
pub mod regular;
pub mod service;

#[cfg(test)]
pub(crate) mod testing;

pub use error::{Error, Result, io_text};
pub use ip::addr::{AddrOptions, Address};
pub use ip::announce::{Announcement, announce};
pub use ip::neigh::Neigh;
pub use ip::route::{NextHop, Route, RouteKind};
pub use ip::rule::{Rule, RuleKind};
pub use iproute2::{TABLES, proto_word, protocol_name, range_text, table_name};
pub use link::bridge::{BridgeOptions, PortOptions};
pub use link::config::LinkConfig;
pub use link::fdb::{Fdb, FdbEntry};
pub(crate) use link::feature::TUN;
pub use link::kind::{LinkKind, RefusedLink, link_features, link_modules};
pub use link::mac::Mac;
pub use link::port_vlan::{PortVlan, PortVlans};
pub use link::probe::has_link_kind;
pub use link::tap::{Tap, add_tap};
pub use link::tc::Shape;
pub use link::veth::VethEnd;
pub use link::worded::Worded;
pub use link::{Change, Link, NewLink};
pub use netlink::Netlink;
pub use netlink::dump::{Dump, dump};
pub use netlink::rtnl::Request;
pub use netns::beside::{Beside, New, Work};
pub use netns::dir::{Entry, NetnsDir, Owners};
pub use netns::userns::Sandbox;
pub use netns::{Netns, NetnsId, lo_up_request, mark_of};
pub use port::{PortRefusal, Proto, Wanted};
pub use probe::echoes::EchoWay;
pub use probe::http::{Http, http};
pub use probe::icmp::{Ping, PingReport, ping};
pub use probe::path_mtu::{PathMtu, path_mtu};
pub use probe::ping_all::{PingAll, PingHost, ping_all};
pub use probe::sees::{Sees, sees};
pub use probe::server::{Server, Service};
pub use probe::socket::Way;
pub use probe::tcp::{Tcp, tcp};
pub use probe::throughput::{Throughput, throughput};
pub use probe::trace::{Hop, Trace, trace};
pub use probe::udp::{Udp, udp};
pub use process::ProcessId;
pub use process::cgroup::Cgroup;
pub use process::descriptors::raise_limit;
pub use process::etc::{EtcFile, see};
pub use process::foreground::Foreground;
pub use process::fresh::OpenFiles;
pub use process::run::{OUTPUT_BYTES_MAX, Run, Trail, as_any_command, command_in, in_foreground, run};
pub use process::supervise::{Ended, ProcessRecord, Supervised};
