//! One request to a web server, from inside a namespace.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::target::{Results, Source, Target, probe, split_port, way};
use crate::lab::Lab;
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, text_of, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{DevOrName, FromScript, argument};
use crate::state::{Result, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "http",
    about: "Requests to web servers.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[HttpOptions::SET],
};

options! {
    /// Options of `http`.
    pub struct HttpOptions of "http" {
        /// The method; GET unless given, or POST with a body.
        method: Method,
        /// Fields of the header.
        headers: Fields,
        /// What is sent.
        body: String,
        /// How long the whole may take; 5s unless given.
        deadline: Duration,
        /// The address that it comes from.
        from: Source,
        /// The device that it leaves by, as a link-local IPv6 address needs it.
        dev: DevOrName,
    }
}

/// How long a request may take unless told.
const PATIENCE: Duration = Duration::from_secs(5);

/// A URL of the web, as far as topo can go there.
#[derive(Debug, Clone)]
struct Url {
    target: Target,
    host: String,
    path: String,
}

impl FromScript for Url {
    const WHAT: &'static str = r#"a URL such as "http://10.0.0.1/", "http://[fd00::1]:8080/path" or "http://h2/""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err("there is no TLS in topo; `exec` with `curl` has it".into()),
            Some((scheme, _)) => return Err(format!("`{}` is not spoken here", name::shown(scheme))),
            None => return Err("it begins with `http://`".into()),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        if host.contains('@') {
            return Err("a user in the URL is not supported; `headers` can have `authorization`".into());
        }
        // What is behind the mark is for the one who reads, and is not sent (RFC 9110, 7.1).
        let path = path.split('#').next().unwrap_or("");
        if let Some(odd) = path.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("{odd:?} can't stand in a URL; it is written as %XX"));
        }
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let (at, port) = split_port(host)?;
        Ok(Url { target: Target { host: at, port: port.unwrap_or(80) }, host: host.to_string(), path })
    }
}

/// Tells whether text is one word of HTTP (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A method.
#[derive(Debug, Clone)]
pub struct Method(String);

impl FromScript for Method {
    const WHAT: &'static str = r#"a method such as "GET" or "POST""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        if is_token(&text) { Ok(Method(text)) } else { Err(String::new()) }
    }
}

/// The fields of a header.
#[derive(Debug, Clone)]
pub struct Fields(Vec<(String, String)>);

impl FromScript for Fields {
    const WHAT: &'static str = r#"a map such as #{ accept: "text/plain", "x-id": "7" }"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let map = value.try_cast::<Map>().ok_or_else(String::new)?;
        let mut fields = Vec::new();
        for (name, value) in map {
            let value = text_of(&value);
            if !is_token(&name) {
                return Err(format!("`{}` is no name of a field", name::shown(&name)));
            }
            if value.contains(|c: char| c.is_control() && c != '\t') {
                return Err(format!("the value of `{name}` has a control character"));
            }
            fields.push((name.to_string(), value));
        }
        Ok(Fields(fields))
    }
}

fn http(lab: &mut Lab, netns: &NetnsHandle, url: Dynamic, options: Map) -> Result<Map> {
    let options = HttpOptions::parse(options)?;
    let shown = name::shown(&text_of(&url));
    let method = options.method.map(|method| method.0);
    let method = method.unwrap_or_else(|| if options.body.is_some() { "POST" } else { "GET" }.to_string());
    let doing = format!("{method} `{shown}` from netns `{}`", netns.0.name);
    let url: Url = argument(&doing, url)?;
    let way = way(lab, netns, &url.target, options.from, options.dev, &doing)?;
    let http = net::Http {
        way,
        host: url.host,
        target: url.path,
        method,
        headers: options.headers.map_or_else(Vec::new, |fields| fields.0),
        body: options.body.map(String::into_bytes),
        deadline: options.deadline.unwrap_or(PATIENCE),
    };
    let at = netns.living(lab)?;
    let report = probe(lab, &at, &doing, async |netns| net::http(netns, &http).await)?;
    let refused = report.answer.as_ref().filter(|answer| !(200..400).contains(&answer.status));
    let why = report
        .why
        .or_else(|| refused.map(|answer| format!("status {} {}", answer.status, answer.reason).trim_end().to_string()));
    let results = Results::default()
        .with("ok", why.is_none())
        .with("outcome", report.outcome.word())
        .ms("time_ms", Some(report.time))
        .address("local", report.local)
        .address("peer", Some(http.way.to))
        .maybe("why", why);
    Ok(match report.answer {
        Some(answer) => {
            let headers: Map = answer.headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            results.with("status", i64::from(answer.status)).with("headers", headers).text("body", Some(&answer.body))
        }
        None => results.with("status", ()).with("headers", Map::new()).with("body", ""),
    }
    .map())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sends a request to a web server and returns `#{ ok, status, headers, body, time_ms, outcome, local, peer, why }`.
    ///
    /// `ok` is true for a status from 200 to 399. Redirects are not followed: `headers.location` says where one leads. The names in
    /// `headers` are in lower case. Without an answer `status` is `()`, and `why` and `outcome` say what `tcp` would. The host may be
    /// a netns: `http://h2:8080/`.
    ///
    /// Like `ip netns exec NETNS curl -X METHOD -d BODY URL`, without TLS.
    ///
    /// Fails with `invalid` for what is no URL of `http://`, and with `missing` for a name that no netns of the lab has. No answer, or
    /// one of another status, is a result, not a failure.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let r = h.http("http://127.0.0.1/");
    /// assert(!r.ok && r.status == () && r.why == "connection refused");
    /// ```
    #[rhai_fn(name = "http", return_raw)]
    pub fn http_with(ctx: NativeCallContext, netns: NetnsHandle, url: Dynamic, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| http(lab, &netns, url, options))
    }

    /// Gets what a URL leads to.
    #[rhai_fn(name = "http", return_raw)]
    pub fn http_plain(ctx: NativeCallContext, netns: NetnsHandle, url: Dynamic) -> RhaiResultOf<Map> {
        http_with(ctx, netns, url, Map::new())
    }
}
