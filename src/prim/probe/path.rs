//! The way to an address: its routers, and the largest packet that goes through.

use std::net::IpAddr;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};

use super::target::{Host, Results, address, device, probe, shown_target};
use super::tcp::PATIENCE;
use crate::lab::Lab;
use crate::net::{self, EchoWay};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevOrName, Ttl, argument};
use crate::state::{Error, NetnsRef, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "path",
    about: "The way to an address: its routers, and the largest packet that goes through.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[TraceOptions::SET, MtuOptions::SET],
};

options! {
    /// Options of `trace`.
    pub struct TraceOptions of "trace" {
        /// The longest way that is looked at; 30 unless given.
        hops_max: Ttl,
        /// How long the whole may take; 1s unless given.
        deadline: Duration,
        /// The source address.
        src: IpAddr,
        /// The device that it leaves by, as a link-local IPv6 address needs it.
        dev: DevOrName,
    }
}

options! {
    /// Options of `mtu`.
    pub struct MtuOptions of "mtu" {
        /// How long the whole may take; 5s unless given.
        deadline: Duration,
        /// The source address.
        src: IpAddr,
        /// The device that it leaves by, as a link-local IPv6 address needs it.
        dev: DevOrName,
    }
}

/// How long the measuring of a path may take unless told.
const MTU_PATIENCE: Duration = Duration::from_secs(5);

/// Makes the way of echoes out of what the script says.
fn echo_way(
    lab: &mut Lab,
    netns: &NetnsHandle,
    doing: &str,
    to: Dynamic,
    src: Option<IpAddr>,
    dev: Option<DevOrName>,
) -> Result<(NetnsRef, EchoWay)> {
    let at = netns.living(lab)?;
    let host: Host = argument(doing, to)?;
    let to = address(lab, &at, &host, doing, src.map(|src| src.is_ipv6()))?;
    if src.is_some_and(|src| src.is_ipv4() != to.is_ipv4()) {
        return Err(Error::invalid(doing).because("`src` is of another family"));
    }
    let dev = device(lab, netns, dev)?;
    Ok((at, EchoWay { to, src, dev }))
}

fn trace(lab: &mut Lab, netns: &NetnsHandle, to: Dynamic, options: Map) -> Result<Map> {
    let options = TraceOptions::parse(options)?;
    let doing = format!("trace the way to `{}` from netns `{}`", shown_target(&to), netns.0.name);
    let (at, way) = echo_way(lab, netns, &doing, to, options.src, options.dev)?;
    let hops_max = options.hops_max.map_or(30, |hops| hops.0);
    let trace = net::Trace { way, hops_max, deadline: options.deadline.unwrap_or(PATIENCE) };
    let report = probe(lab, &at, &doing, async |netns| net::trace(netns, &trace).await)?;
    let hop = |hop: &net::Hop| {
        let row = Results::default().with("hop", i64::from(hop.hop));
        Dynamic::from(row.maybe("ip", hop.ip.map(|ip| ip.to_string())).ms("rtt_ms", hop.rtt).map())
    };
    let hops: Array = report.hops.iter().map(hop).collect();
    Ok(Results::default()
        .with("ok", report.reached)
        .with("reached", report.reached)
        .with("hops", hops)
        .maybe("why", report.why)
        .map())
}

fn mtu(lab: &mut Lab, netns: &NetnsHandle, to: Dynamic, options: Map) -> Result<Map> {
    let options = MtuOptions::parse(options)?;
    let doing = format!("measure the path to `{}` from netns `{}`", shown_target(&to), netns.0.name);
    let (at, way) = echo_way(lab, netns, &doing, to, options.src, options.dev)?;
    let path = net::PathMtu { way, deadline: options.deadline.unwrap_or(MTU_PATIENCE) };
    let (kernel, _) = lab.settled()?;
    let rtnl = kernel.rtnl(&at).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let report = probe(lab, &at, &doing, async |netns| net::path_mtu(netns, &rtnl, &path).await)?;
    Ok(Results::default()
        .with("ok", report.why.is_none())
        .maybe("mtu_bytes", report.mtu.map(i64::from))
        .maybe("narrowed_by", report.narrowed_by.map(|ip| ip.to_string()))
        .with("black_hole", report.black_hole)
        .maybe("why", report.why)
        .map())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Finds the routers on the way to an address, and returns `#{ ok, reached, hops: [#{ hop, ip, rtt_ms }], why }`.
    ///
    /// All hops are asked at once. `ip` and `rtt_ms` are `()` for a hop that says nothing. `ok` is true where the address itself
    /// answered; else `why` says how far it goes. Routers limit how many such answers they give to one host: after some traces in one
    /// second they may be silent. The host may be a netns.
    ///
    /// Like `ip netns exec NETNS traceroute -I -n ADDRESS`.
    ///
    /// Fails with `invalid` for what is no address, and with `missing` for a name that no netns of the lab has. No answer is a result,
    /// not a failure.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let t = h.trace("127.0.0.1");
    /// assert(t.ok && t.hops.len() == 1 && t.hops[0].ip == "127.0.0.1");
    /// ```
    #[rhai_fn(name = "trace", return_raw)]
    pub fn trace_with(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| trace(lab, &netns, to, options))
    }

    /// Finds the routers on the way to an address.
    #[rhai_fn(name = "trace", return_raw)]
    pub fn trace_plain(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic) -> RhaiResultOf<Map> {
        trace_with(ctx, netns, to, Map::new())
    }

    /// Measures the largest packet that goes to an address in one piece, and returns
    /// `#{ ok, mtu_bytes, narrowed_by, black_hole, why }`.
    ///
    /// `mtu_bytes` counts the IP header. `narrowed_by` is the router that says that more doesn't fit the link behind it; `()` where the
    /// first link is the narrowest. `black_hole` is true where bigger packets vanish and nobody says so: then the sizes are tried, many
    /// at once. Only the way there counts, not the way back, and nothing that was learnt of the path before.
    ///
    /// Like `ip netns exec NETNS tracepath -n ADDRESS`.
    ///
    /// Fails with `invalid` for what is no address, and with `missing` for a name that no netns of the lab has. No answer is a result,
    /// not a failure.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(h.mtu("127.0.0.1").mtu_bytes == 65535);
    /// ```
    #[rhai_fn(name = "mtu", return_raw)]
    pub fn mtu_with(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| mtu(lab, &netns, to, options))
    }

    /// Measures the largest packet that goes to an address in one piece.
    #[rhai_fn(name = "mtu", return_raw)]
    pub fn mtu_plain(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic) -> RhaiResultOf<Map> {
        mtu_with(ctx, netns, to, Map::new())
    }
}
