//! Whether a port answers: a connection, or a datagram, from inside a namespace.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::target::{Results, Source, Target, apart, probe, shown_target, way};
use crate::lab::Lab;
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevOrName, argument};
use crate::state::Result;

pub(in crate::prim) const GROUP: Group = Group {
    name: "tcp",
    about: "Whether a port answers, over TCP or UDP.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[TcpOptions::SET, UdpOptions::SET],
};

options! {
    /// Options of `tcp`.
    pub struct TcpOptions of "tcp" {
        /// How long the whole may take; 1s unless given.
        deadline: Duration,
        /// The address that it comes from.
        from: Source,
        /// The device that it leaves by, as a link-local IPv6 address needs it.
        dev: DevOrName,
        /// What is sent once the connection is there.
        send: String,
        /// What the reply must hold. Without it the reply is what comes until the far end closes or falls silent.
        expect: String,
    }
}

options! {
    /// Options of `udp`.
    pub struct UdpOptions of "udp" {
        /// How long the reply may take; 1s unless given.
        deadline: Duration,
        /// The address that it comes from.
        from: Source,
        /// The device that it leaves by, as a link-local IPv6 address needs it.
        dev: DevOrName,
        /// What is sent; "ping" unless given.
        send: String,
        /// What the reply must hold.
        expect: String,
    }
}

/// How long a probe waits unless told.
pub const PATIENCE: Duration = Duration::from_secs(1);

fn tcp(lab: &mut Lab, netns: &NetnsHandle, doing: &str, to: &Target, options: Map) -> Result<Map> {
    let options = TcpOptions::parse(options)?;
    let way = way(lab, netns, to, options.from, options.dev, doing)?;
    let peer = way.to;
    let tcp = net::Tcp {
        way,
        deadline: options.deadline.unwrap_or(PATIENCE),
        send: options.send.map(String::into_bytes),
        expect: options.expect.map(String::into_bytes),
    };
    let at = netns.living(lab)?;
    let report = probe(lab, &at, doing, async |netns| net::tcp(netns, &tcp).await)?;
    Ok(Results::default()
        .with("ok", report.why.is_none())
        .with("outcome", report.outcome.word())
        .ms("connect_ms", report.connect)
        .address("local", report.local)
        .address("peer", Some(peer))
        .text("reply", report.reply.as_deref())
        .maybe("why", report.why)
        .map())
}

fn udp(lab: &mut Lab, netns: &NetnsHandle, doing: &str, to: &Target, options: Map) -> Result<Map> {
    let options = UdpOptions::parse(options)?;
    let way = way(lab, netns, to, options.from, options.dev, doing)?;
    let peer = way.to;
    let udp = net::Udp {
        way,
        deadline: options.deadline.unwrap_or(PATIENCE),
        send: options.send.unwrap_or_else(|| "ping".into()).into_bytes(),
        expect: options.expect.map(String::into_bytes),
    };
    let at = netns.living(lab)?;
    let report = probe(lab, &at, doing, async |netns| net::udp(netns, &udp).await)?;
    Ok(Results::default()
        .with("ok", report.why.is_none())
        .with("outcome", report.outcome.word())
        .ms("rtt_ms", report.rtt)
        .address("local", report.local)
        .address("peer", Some(report.from.unwrap_or(peer)))
        .text("reply", report.reply.as_deref())
        .maybe("why", report.why)
        .map())
}

fn doing(what: &str, to: &Dynamic, netns: &NetnsHandle) -> String {
    format!("{what} `{}` from netns `{}`", shown_target(to), netns.0.name)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Connects to a port, and returns `#{ ok, outcome, connect_ms, local, peer, reply, why }`.
    ///
    /// `outcome` is "answered", "refused" (a reset, or a rule that rejects), "unreachable" (a router or the kernel itself said so) or
    /// "silent" (nobody said anything until the deadline: dropped, or nobody there); `why` says it in words. With `send` or `expect`,
    /// `reply` is what the far end said, and `ok` is false where that was nothing, or doesn't hold what was expected. The host may be
    /// a netns: the address is then one of its own to which there is a route. A port may stand apart: `h1.tcp(h2, 80)`.
    ///
    /// Like `ip netns exec NETNS nc -z -w 1 ADDRESS PORT`.
    ///
    /// Fails with `invalid` for what is no address with a port, and with `missing` for a name that no netns of the lab has. No answer
    /// is a result, not a failure.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let r = h.tcp("127.0.0.1:80");
    /// assert(!r.ok && r.outcome == "refused" && r.why == "connection refused");
    /// assert(h.tcp("192.0.2.1:80").outcome == "unreachable");
    /// ```
    #[rhai_fn(name = "tcp", return_raw)]
    pub fn tcp_with(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic, options: Map) -> RhaiResultOf<Map> {
        let doing = doing("connect to", &to, &netns);
        with_lab(&ctx, |lab| tcp(lab, &netns, &doing, &argument(&doing, to)?, options))
    }

    /// Connects to a port within a second.
    #[rhai_fn(name = "tcp", return_raw)]
    pub fn tcp_plain(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic) -> RhaiResultOf<Map> {
        tcp_with(ctx, netns, to, Map::new())
    }

    /// Connects to a port of a host.
    #[rhai_fn(name = "tcp", return_raw)]
    pub fn tcp_apart(ctx: NativeCallContext, netns: NetnsHandle, host: Dynamic, port: i64) -> RhaiResultOf<Map> {
        tcp_apart_with(ctx, netns, host, port, Map::new())
    }

    /// Connects to a port of a host, with options.
    #[rhai_fn(name = "tcp", return_raw)]
    pub fn tcp_apart_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        host: Dynamic,
        port: i64,
        options: Map,
    ) -> RhaiResultOf<Map> {
        let doing = doing("connect to", &host, &netns);
        with_lab(&ctx, |lab| tcp(lab, &netns, &doing, &apart(&doing, host, port)?, options))
    }

    /// Sends a datagram to a port, waits for the reply, and returns `#{ ok, outcome, rtt_ms, local, peer, reply, why }`.
    ///
    /// `outcome` is as for `tcp`: "refused" is a port that is unreachable, which the far end said by ICMP; "silent" may be a server that
    /// doesn't answer. It is sent once.
    ///
    /// Like `ip netns exec NETNS nc -u -w 1 ADDRESS PORT`.
    ///
    /// Fails with `invalid` for what is no address with a port, and with `missing` for a name that no netns of the lab has. No answer
    /// is a result, not a failure.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let r = h.udp("127.0.0.1:53", #{ send: "hello" });
    /// assert(!r.ok && r.outcome == "refused" && r.why.contains("port unreachable"));
    /// ```
    #[rhai_fn(name = "udp", return_raw)]
    pub fn udp_with(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic, options: Map) -> RhaiResultOf<Map> {
        let doing = doing("send a datagram to", &to, &netns);
        with_lab(&ctx, |lab| udp(lab, &netns, &doing, &argument(&doing, to)?, options))
    }

    /// Sends a datagram to a port and waits a second for the reply.
    #[rhai_fn(name = "udp", return_raw)]
    pub fn udp_plain(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic) -> RhaiResultOf<Map> {
        udp_with(ctx, netns, to, Map::new())
    }

    /// Sends a datagram to a port of a host.
    #[rhai_fn(name = "udp", return_raw)]
    pub fn udp_apart(ctx: NativeCallContext, netns: NetnsHandle, host: Dynamic, port: i64) -> RhaiResultOf<Map> {
        udp_apart_with(ctx, netns, host, port, Map::new())
    }

    /// Sends a datagram to a port of a host, with options.
    #[rhai_fn(name = "udp", return_raw)]
    pub fn udp_apart_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        host: Dynamic,
        port: i64,
        options: Map,
    ) -> RhaiResultOf<Map> {
        let doing = doing("send a datagram to", &host, &netns);
        with_lab(&ctx, |lab| udp(lab, &netns, &doing, &apart(&doing, host, port)?, options))
    }
}
