//! The kernel: network namespaces, rtnetlink, nf_tables, sysctls, processes, echo requests. Plain async Rust over sockets
//! that were born in the namespace they work on, so that no thread ever has to be moved. Knows nothing of the language
//! or of labs.
//!
//! | file | what |
//! | --- | --- |
//! | `netns`, `netns_dir` | namespaces, and their names under /run/netns; `visit`: the thread that goes into them; `beside`: the one that makes them ahead |
//! | `rtnl`, `request` | one rtnetlink socket in one namespace, timeouts, the kernel's own error text; and requests that are sent together |
//! | `link` (`link_group`), `veth`, `kind` (`stacked`, `vxlan`, `bond`, `tunnel`), `tap`, `addr`, `route`, `rule`, `neigh` | what `ip` does |
//! | `bridge`, `port_vlan`, `fdb` | what `bridge` does |
//! | `nft`, `conntrack` | what `nft` and `conntrack -D` do, over `nfnl`, a netfilter netlink socket |
//! | `tc` | what `tc qdisc` does: rates, delays, losses |
//! | `carry` | what a link carries, to be moved to another link and back |
//! | `dump` | all of it, to compare |
//! | `tcp`, `udp`, `http`, `sees`, `server` | probes and what they ask, over the sockets of `socket` |
//! | `trace`, `path_mtu` | the way to an address, by `echoes` |
//! | `throughput`, `ping_all` | how much goes through, and between whom |
//! | `sysctl` (`private_proc`), `icmp`, `process`, `port` (`bound`), `run` | what else is done inside a namespace |
//! | `descriptors` | how many files may be open |
//! | `fresh` | what a command begins with: signals, umask, open files; `foreground`: who has the terminal |
//! | `etc` | files of /etc that one command sees otherwise |
//! | `supervise`, `bounded_log`, `cgroup` | processes that run beside the script: their parents, their output, their end |
//! | `fault` | the seam for tests that fail or kill at each change of the kernel |

pub mod addr;
mod announce;
mod beside;
pub mod bond;
mod bound;
pub mod bounded_log;
pub mod bridge;
pub mod carry;
mod cgroup;
pub mod conntrack;
mod datagrams;
mod descriptors;
pub mod dump;
mod echoes;
mod error;
mod etc;
pub mod fault;
pub mod fdb;
mod foreground;
mod fresh;
pub mod http;
mod http_request;
pub mod icmp;
mod icmp_packet;
pub mod kind;
pub mod link;
pub mod link_group;
mod mac;
pub mod neigh;
mod netns;
mod netns_dir;
mod nfnl;
pub mod nft;
pub mod path_mtu;
pub mod ping_all;
pub mod port;
pub mod port_vlan;
mod private_proc;
mod probe;
pub mod process;
pub mod reach;
pub mod regular;
mod request;
pub mod route;
mod rtnl;
pub mod rule;
pub mod run;
pub mod sees;
pub mod server;
pub mod signal;
pub mod socket;
pub mod stacked;
pub mod supervise;
pub mod sysctl;
pub mod tap;
pub mod tc;
pub mod tcp;
mod text;
pub mod throughput;
pub mod trace;
pub mod tunnel;
pub mod udp;
pub mod userns;
pub mod veth;
mod visit;
pub mod vxlan;
mod worded;

#[cfg(test)]
pub(crate) mod testing;

pub use addr::{AddrOptions, Address};
pub use announce::announce;
pub use beside::{Beside, New, Work};
pub use bond::{Bond, BondMode, FailOverMac, LacpRate, Primary, XmitHashPolicy};
pub use bridge::{Bridge, BridgeOptions, Port, PortOptions};
pub use carry::Load;
pub use cgroup::Cgroup;
pub use descriptors::raise_limit;
pub use dump::{Dump, dump};
pub use echoes::EchoWay;
pub use error::{Error, Result, io_text};
pub use etc::{EtcFile, see};
pub use fdb::{Fdb, FdbEntry};
pub use foreground::Foreground;
pub use fresh::OpenFiles;
pub use http::{Http, HttpReport, http};
pub use icmp::{Ping, PingReport, ping};
pub use kind::LinkKind;
pub use link::{Change, Link, NewLink};
pub use mac::{InvalidMac, Mac};
pub use neigh::Neigh;
pub use netns::{Netns, NetnsId, lo_up_request, mark_of};
pub use netns_dir::{Entry, NetnsDir, Owners};
pub use path_mtu::{PathMtu, PathMtuReport, path_mtu};
pub use ping_all::{PingAll, PingAllReport, PingHost, ping_all};
pub use port::{PortInUse, PortOwner, PortRefusal, Proto, Wanted};
pub use port_vlan::{PortVlan, PortVlans};
pub use probe::has_link_kind;
pub use process::ProcessId;
pub use request::{Request, Sender};
pub use route::{NextHop, Route, RouteKind};
pub use rtnl::Rtnl;
pub use rule::{Rule, RuleKind};
pub use run::{OUTPUT_BYTES_MAX, Output, Run, Trail, as_any_command, command_in, in_foreground, run};
pub use sees::{Sees, SeesReport, sees};
pub use server::{Server, Service, serve};
pub use socket::{Outcome, Way, in_words};
pub use stacked::{IpvlanMode, MacvlanMode, VlanProtocol};
pub use supervise::{Ended, ProcessRecord, Supervised};
pub use tap::{NewTap, Tap, add_tap};
pub use tc::Shape;
pub use tcp::{Tcp, TcpReport, tcp};
pub use text::{TABLES, proto_word, protocol_name, range_text, table_name};
pub use throughput::{Throughput, ThroughputReport, throughput};
pub use trace::{Hop, Trace, TraceReport, trace};
pub use tunnel::{Tunnel, TunnelMode};
pub use udp::{Udp, UdpReport, udp};
pub use userns::Sandbox;
pub use veth::VethEnd;
pub use vxlan::Vxlan;
