//! How much goes from one namespace to another.

use std::net::SocketAddr;
use std::time::Duration;

use rhai::Map;
use rhai::plugin::*;

use super::target::{Host, Results, Source, Whither, address};
use crate::lab::Lab;
use crate::net::{self, Way};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::ports::{OnePort, TcpOrUdp};
use crate::prim::value::quantity::Rate;
use crate::prim::value::units::Streams;
use crate::state::{Error, Kind, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "throughput",
    about: "How much goes from one netns to another.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[ThroughputOptions::SET],
};

options! {
    /// Options of `throughput`.
    pub struct ThroughputOptions of "throughput" {
        /// How long it is measured; 1s unless given.
        time: Duration,
        /// How long it runs before it is measured; 200ms, or ten round trips where that is longer, unless given.
        omit: Duration,
        /// "tcp" unless given, or "udp".
        proto: TcpOrUdp,
        /// How many connections at once; 1 unless given. For tcp.
        streams: Streams,
        /// What is sent; as much as goes through unless given, over udp "10mbit".
        rate: Rate,
        /// Whether the second netns sends to the first; the first connects to the second all the same.
        reverse: bool,
        /// Where the first one connects to: an address of the second unless given; with a port, or the server's.
        to: Whither,
        /// The port that the second one listens at; that of `to` unless given, or else one that is free.
        port: OnePort,
        /// The address that the first one connects from.
        from: Source,
        /// How long the connecting may take; 3s unless given.
        deadline: Duration,
    }
}

fn throughput(lab: &mut Lab, client: &NetnsHandle, server: &NetnsHandle, options: Map) -> Result<Map> {
    let options = ThroughputOptions::parse(options)?;
    let doing = format!("measure the throughput from netns `{}` to `{}`", client.0.name, server.0.name);
    let udp = options.proto == Some(TcpOrUdp::Udp);
    if udp && options.streams.is_some() {
        return Err(Error::invalid(doing).because("`streams` is for tcp: over udp `rate` says how much is sent"));
    }
    let time = options.time.unwrap_or(Duration::from_secs(1));
    if time.is_zero() {
        return Err(Error::invalid(doing).because("`time` must be longer than nothing"));
    }
    let (here, there) = (client.living(lab)?, server.living(lab)?);
    let (host, to_port) = match options.to {
        Some(to) => (to.host, to.port),
        None => (Host::Netns(server.clone()), None),
    };
    let v6 = options.from.map(|from| from.ip.is_ipv6());
    let ip = address(lab, &here, &host, &doing, v6)?;
    if v6.is_some_and(|v6| v6 != ip.is_ipv6()) {
        return Err(Error::invalid(doing).because("`from` is of another family"));
    }
    let port = options.port.map(|port| port.0).or(to_port).unwrap_or(0);
    let from = options.from.map(|from| SocketAddr::new(from.ip, from.port));
    let ask = net::Throughput {
        way: Way { to: SocketAddr::new(ip, to_port.unwrap_or(port)), from, dev: None },
        port,
        udp,
        streams: options.streams.map_or(1, |streams| streams.0),
        time,
        omit: options.omit,
        rate: options.rate.map(|rate| rate.0),
        reverse: options.reverse.unwrap_or(false),
        deadline: options.deadline.unwrap_or(Duration::from_secs(3)),
    };
    let (kernel, _) = lab.settled()?;
    let failed = |source: net::Error| match source.errno() {
        libc::EADDRINUSE => Error::new(Kind::Exists, doing.clone())
            .because(format!("port {port} of netns `{}` is taken", server.0.name)),
        _ => Error::kernel(doing.clone(), &source),
    };
    let (here, there) = (kernel.netns(&here).map_err(failed)?, kernel.netns(&there).map_err(failed)?);
    let report = lab.wait_for(&doing, net::throughput(&here, &there, &ask)).map_err(failed)?;
    let results = Results::default()
        .with("ok", report.why.is_none())
        .with("mbit_per_s", report.bits_per_second() / 1e6)
        .with("bytes", i64::try_from(report.bytes).unwrap_or(i64::MAX))
        .with("seconds", report.time.as_secs_f64())
        .maybe("why", report.why);
    Ok(match udp {
        true => results
            .maybe("sent_mbit_per_s", report.sent.map(|sent| sent as f64 * 8.0 / 1e6 / time.as_secs_f64()))
            .maybe("loss_percent", report.loss.map(|loss| loss * 100.0))
            .ms("jitter_ms", report.jitter),
        false => results,
    }
    .map())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Measures how much goes from one netns to another, and returns `#{ ok, mbit_per_s, bytes, seconds, why,
    /// sent_mbit_per_s, loss_percent, jitter_ms }`, the last three over udp alone.
    ///
    /// It is the payload that counts, at the receiver: of a link that is limited to 10mbit TCP leaves about 9.6, since headers take the
    /// rest. The beginning (`omit`) does not count: TCP has to find its speed, and a shaper lets a burst pass. Datagrams are as big as the
    /// path takes in one piece. On links below about 1mbit a second is too short for TCP to find its speed: give it some more, or use udp.
    ///
    /// Like `iperf3 -c ADDRESS -t TIME -O OMIT -P STREAMS`, and for udp `-u -b RATE`, with `iperf3 -s` in the other netns.
    ///
    /// Fails with `missing` where there is no route and no `to` is given, and with `exists` where the port is taken. Where nothing goes
    /// through, that is a result.
    ///
    /// ```rhai
    /// let h1 = netns("h1");
    /// let h2 = netns("h2");
    /// veth(h1["eth0"], h2["eth0"]);
    /// h1["eth0"].addr("10.0.0.1/24");
    /// h2["eth0"].addr("10.0.0.2/24");
    /// let t = throughput(h1, h2, #{ time: "100ms", omit: "10ms" });
    /// assert(t.ok && t.mbit_per_s > 1.0);
    /// let t = throughput(h1, h2, #{ time: "100ms", proto: "udp", rate: "1mbit" });
    /// assert(t.ok && t.loss_percent == 0.0);
    /// ```
    #[rhai_fn(name = "throughput", return_raw)]
    pub fn throughput_with(
        ctx: NativeCallContext,
        from: NetnsHandle,
        to: NetnsHandle,
        options: Map,
    ) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| throughput(lab, &from, &to, options))
    }

    /// Measures for a second how much goes from one netns to another over TCP.
    #[rhai_fn(name = "throughput", return_raw)]
    pub fn throughput_plain(ctx: NativeCallContext, from: NetnsHandle, to: NetnsHandle) -> RhaiResultOf<Map> {
        throughput_with(ctx, from, to, Map::new())
    }
}
