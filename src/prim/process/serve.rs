//! Servers to be probed: processes of topo itself, in a namespace.

use std::net::IpAddr;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::ready::Ready;
use super::start::{Process, Start, begin};
use crate::lab::Lab;
use crate::net::{self, PortRefusal, Proto, Server, Service, Wanted};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::{options, shown_value};
use crate::prim::value::ports::{OnePort, TcpOrUdp};
use crate::prim::value::units::{StatusCode, argument};
use crate::state::{Error, Kind, Result, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "serve",
    about: "Servers to be probed: echo, a sink, and a web server that tells whom it sees.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[ServeOptions::SET],
};

options! {
    /// Options of `serve`.
    pub struct ServeOptions of "serve" {
        /// "tcp" unless given, or "udp" for echo and sink.
        proto: TcpOrUdp,
        /// The address that it serves at; all of the netns, of both families, unless given.
        address: IpAddr,
        /// What the web server answers; what it sees, as JSON, unless given.
        body: String,
        /// The status that the web server answers with; 200 unless given.
        status: StatusCode,
        /// The name of the process; such as `http-80` unless given.
        name: String,
    }
}

/// How long a server may take until it listens. A machine that has much to do takes some time to start a program.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// The services, by their words.
const SERVICES: [(&str, Service); 3] = [("echo", Service::Echo), ("http", Service::Http), ("sink", Service::Sink)];

fn service(doing: &str, what: &Dynamic) -> Result<(&'static str, Service)> {
    let text = what.clone().into_string().unwrap_or_default();
    if let Some(known) = SERVICES.into_iter().find(|(word, _)| *word == text) {
        return Ok(known);
    }
    let error =
        Error::invalid(doing).because(format!(r#"expected "echo", "http" or "sink", got {}"#, shown_value(what)));
    Err(match name::nearest(&text, SERVICES.iter().map(|(word, _)| *word)) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint("other servers are started by `start`"),
    })
}

/// Checks all that can be known, and says what is to be started.
fn prepare(lab: &mut Lab, netns: &NetnsHandle, what: &Dynamic, port: Dynamic, options: Map) -> Result<Start> {
    let options = ServeOptions::parse(options)?;
    let at = netns.living(lab)?;
    let doing = format!("serve in netns `{}`", at.name);
    let (word, service) = service(&doing, what)?;
    let OnePort(port) = argument(&doing, port)?;
    let doing = format!("serve {word} at port {port} of netns `{}`", at.name);
    let udp = options.proto == Some(TcpOrUdp::Udp);
    if udp && service == Service::Http {
        return Err(Error::invalid(doing).because("a web server is over tcp"));
    }
    if service != Service::Http && (options.body.is_some() || options.status.is_some()) {
        return Err(Error::invalid(doing).because("`body` and `status` are for \"http\""));
    }
    if let Some(name) = &options.name {
        name::check("process", name)?;
    }
    let (kernel, _) = lab.settled()?;
    let open = kernel.netns(&at).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let proto = if udp { Proto::Udp } else { Proto::Tcp };
    let wanted = Wanted { proto, at: options.address, ports: port..=port };
    net::port::check_free(&open, &[wanted]).map_err(|refusal| match refusal {
        PortRefusal::InUse(in_use) => Error::new(Kind::Exists, doing.clone()).because(in_use),
        PortRefusal::NotHere(_) => Error::new(Kind::Missing, doing.clone()).because(&refusal),
        PortRefusal::Kernel(source) => Error::kernel(doing.clone(), &source),
    })?;
    let program = std::env::current_exe().map_err(|source| Error::file("find the program itself", &source))?;
    let server = Server {
        service,
        udp,
        address: options.address,
        port,
        body: options.body,
        status: options.status.map_or(200, |status| status.0),
        name: at.name.clone(),
    };
    let of_proto = if udp { "-udp" } else { "" };
    let stdin = serde_json::to_string(&server).map_err(|error| Error::invalid(doing).because(error))?;
    Ok(Start {
        netns: at,
        argv: vec![program.display().to_string(), crate::prim::SERVE.into(), format!("{word}:{port}")],
        name: Some(options.name.unwrap_or_else(|| format!("{word}{of_proto}-{port}"))),
        env: Vec::new(),
        cwd: None,
        stdin: Some(stdin),
    })
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Serves at a port of a netns, and returns the process, as `start` does: "echo" sends back what it gets, "sink" takes all and says
    /// nothing, "http" answers each request.
    ///
    /// It is ready when the call returns, runs on while the lab is up, and ends with it. Unless it has a `body`, the web server answers
    /// with what it sees, as JSON: `#{ name, ip, port, client_ip, client_port, method, path }`, so that a translated address shows; `name`
    /// is the netns. Datagrams are answered from the address that they were sent to. Its log (`p.log()`) has a line for each client.
    ///
    /// Like `socat TCP-LISTEN:PORT,fork PIPE` for "echo".
    ///
    /// Fails with `exists` where the port is taken, and says by whom; with `missing` for an address that the netns does not have.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let web = h.serve("http", 80);
    /// let seen = parse_json(h.http("http://127.0.0.1/").body);
    /// assert(seen.name == "h1" && seen.client_ip == "127.0.0.1");
    /// h.serve("echo", 7);
    /// assert(h.tcp("127.0.0.1:7", #{ send: "hello" }).reply == "hello");
    /// web.stop();
    /// assert(h.tcp("127.0.0.1:80").outcome == "refused");
    /// ```
    #[rhai_fn(name = "serve", return_raw)]
    pub fn serve_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        what: Dynamic,
        port: Dynamic,
        options: Map,
    ) -> RhaiResultOf<Process> {
        let start = with_lab(&ctx, |lab| prepare(lab, &netns, &what, port, options))?;
        begin(&ctx, start, Some(&Ready::Text("serving ".into())), READY_WITHIN)
    }

    /// Serves at a TCP port of a netns, at all of its addresses.
    #[rhai_fn(name = "serve", return_raw)]
    pub fn serve_plain(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        what: Dynamic,
        port: Dynamic,
    ) -> RhaiResultOf<Process> {
        serve_with(ctx, netns, what, port, Map::new())
    }
}
