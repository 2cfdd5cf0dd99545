//! What the far end of a connection sees: how NAT shows itself.

use std::net::SocketAddr;
use std::time::Duration;

use rhai::Map;
use rhai::plugin::*;

use super::target::{Host, Results, Source, Whither, address};
use super::tcp::PATIENCE;
use crate::lab::Lab;
use crate::net::{self, Way};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::ports::{OnePort, TcpOrUdp};
use crate::state::{Error, Kind, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "sees",
    about: "What the far end of a connection sees: how NAT shows itself.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[SeesOptions::SET],
};

options! {
    /// Options of `sees`.
    pub struct SeesOptions of "sees" {
        /// Where the client goes: an address of the server unless given; with a port, or the server's.
        to: Whither,
        /// The port that the server listens at; that of `to` unless given, or else one that is free.
        port: OnePort,
        /// "tcp" unless given, or "udp".
        proto: TcpOrUdp,
        /// The address that the client comes from.
        from: Source,
        /// How long the whole may take; 1s unless given.
        deadline: Duration,
    }
}

fn sees(lab: &mut Lab, server: &NetnsHandle, client: &NetnsHandle, options: Map) -> Result<Map> {
    let options = SeesOptions::parse(options)?;
    let doing = format!("look what netns `{}` sees of `{}`", server.0.name, client.0.name);
    let (there, here) = (server.living(lab)?, client.living(lab)?);
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
    let sees = net::Sees {
        way: Way { to: SocketAddr::new(ip, to_port.unwrap_or(port)), from, dev: None },
        port,
        udp: options.proto.is_some_and(|proto| proto == TcpOrUdp::Udp),
        deadline: options.deadline.unwrap_or(PATIENCE),
    };
    let (kernel, _) = lab.settled()?;
    let failed = |source: net::Error| match source.errno() {
        libc::EADDRINUSE => Error::new(Kind::Exists, doing.clone())
            .because(format!("port {port} of netns `{}` is taken", server.0.name))
            .hint("a server that is there already can tell what it sees by itself, as `serve(\"http\", PORT)` does"),
        _ => Error::kernel(doing.clone(), &source),
    };
    let (there, here) = (kernel.netns(&there).map_err(failed)?, kernel.netns(&here).map_err(failed)?);
    let report = lab.wait_for(&doing, net::sees(&there, &here, &sees)).map_err(failed)?;
    Ok(Results::default()
        .with("ok", report.client.is_some())
        .with("outcome", report.outcome.word())
        .maybe("ip", report.client.map(|client| client.ip().to_string()))
        .maybe("port", report.client.map(|client| i64::from(client.port())))
        .address("local", report.local)
        .address("from", report.from)
        .maybe("why", report.why)
        .map())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Lets a client connect to a server that listens for the moment, and returns what the server saw of it:
    /// `#{ ok, ip, port, local, from, outcome, why }`.
    ///
    /// `ip` and `port` are the client's as the server saw them, `from` is what the client itself thinks, `local` is the server's own
    /// address and port: where they differ, something translates on the way. `to` is where the client goes, such as a published port;
    /// an address of the server's unless given.
    ///
    /// Like `nc -l -v PORT` in one netns and `nc ADDRESS PORT` in the other.
    ///
    /// Fails with `exists` where the server's port is taken, and with `missing` where the client has no route to the server and no `to`
    /// is given. A client that does not get there is a result, not a failure.
    ///
    /// ```rhai
    /// let h1 = netns("h1");
    /// let h2 = netns("h2");
    /// veth(h1["eth0"], h2["eth0"]);
    /// h1["eth0"].addr("10.0.0.1/24");
    /// h2["eth0"].addr("10.0.0.2/24");
    /// let seen = h2.sees(h1);
    /// assert(seen.ok && seen.ip == "10.0.0.1" && seen.from == `${seen.ip}:${seen.port}`);
    /// ```
    #[rhai_fn(name = "sees", return_raw)]
    pub fn sees_with(
        ctx: NativeCallContext,
        server: NetnsHandle,
        client: NetnsHandle,
        options: Map,
    ) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| sees(lab, &server, &client, options))
    }

    /// Returns what a server sees of a client that comes over TCP.
    #[rhai_fn(name = "sees", return_raw)]
    pub fn sees_plain(ctx: NativeCallContext, server: NetnsHandle, client: NetnsHandle) -> RhaiResultOf<Map> {
        sees_with(ctx, server, client, Map::new())
    }
}
