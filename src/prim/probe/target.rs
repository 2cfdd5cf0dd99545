//! Where a probe goes: an address or a netns, with its port, as scripts write it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use rhai::{Dynamic, Map};

use crate::lab::Lab;
use crate::net::{self, Way};
use crate::prim::value::handles::{Dev, NetnsHandle};
use crate::prim::value::options::shown_value;
use crate::prim::value::units::{DevOrName, FromScript};
use crate::prim::value::value::{self, Ip};
use crate::state::{Error, Kind, NetnsRef, Result, name};

/// A host: by an address, or by the netns that it is.
#[derive(Debug, Clone)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A netns, of which a probe takes the address that it has a route to.
    Netns(NetnsHandle),
    /// The name of a netns.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => write!(f, "{ip}"),
            Host::Netns(netns) => f.write_str(&netns.0.name),
            Host::Name(text) => f.write_str(&name::shown(text)),
        }
    }
}

impl Host {
    /// Reads a host out of text: what can be no name is no address either.
    pub fn parse(text: &str) -> std::result::Result<Host, String> {
        match value::parse_ip(text) {
            Ok(ip) => Ok(Host::Ip(ip)),
            Err(because) => {
                // `10.0.0.300` is a mistyped address, and no name that anybody would give.
                let is_name = name::check("netns", text).is_ok() && text.contains(|c: char| c.is_ascii_alphabetic());
                if is_name { Ok(Host::Name(text.to_string())) } else { Err(because) }
            }
        }
    }
}

impl FromScript for Host {
    const WHAT: &'static str = r#"an IP address such as "10.0.0.1" or "fd00::1", or a netns or its name"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Some(ip) = value.clone().try_cast::<Ip>() {
            return Ok(Host::Ip(ip.0));
        }
        if let Some(netns) = value.clone().try_cast::<NetnsHandle>() {
            return Ok(Host::Netns(netns));
        }
        Host::parse(&value.into_string().map_err(|_| String::new())?)
    }
}

/// A host and its port.
#[derive(Debug, Clone)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Divides `HOST:PORT`; an IPv6 address stands in brackets, as in a URL (RFC 3986).
pub fn split_port(text: &str) -> std::result::Result<(Host, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
            if !matches!(value::parse_ip(host), Ok(IpAddr::V6(_))) {
                return Err("in brackets stands an IPv6 address".into());
            }
            let port = if port.is_empty() {
                None
            } else {
                Some(port.strip_prefix(':').ok_or("behind the bracket stands `:` and a port")?)
            };
            (host, port)
        }
        None if text.matches(':').count() > 1 => {
            let what = "an IPv6 address with a port stands in brackets, as in `[fd00::1]:80`";
            match value::parse_ip(text) {
                Ok(ip) => return Ok((Host::Ip(ip), None)),
                Err(_) => return Err(what.into()),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(crate::prim::value::ports::port).transpose()?;
    Host::parse(host).map(|host| (host, port))
}

impl FromScript for Target {
    const WHAT: &'static str = r#"an address with its port, such as "10.0.0.1:80", "[fd00::1]:80" or "h2:80""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        match split_port(&text)? {
            (host, Some(port)) => Ok(Target { host, port }),
            (_, None) => Err("the port is missing".into()),
        }
    }
}

/// A host, with its port or without.
#[derive(Debug, Clone)]
pub struct Whither {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: Option<u16>,
}

impl FromScript for Whither {
    const WHAT: &'static str =
        r#"an address, with a port or without, such as "10.0.0.1" or "[fd00::1]:80", or a netns"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if !value.is_string() {
            return Host::from_script(value).map(|host| Whither { host, port: None });
        }
        split_port(&value.into_string().unwrap_or_default()).map(|(host, port)| Whither { host, port })
    }
}

/// The address that a probe comes from, with a port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The address.
    pub ip: IpAddr,
    /// The port; 0 for any.
    pub port: u16,
}

impl FromScript for Source {
    const WHAT: &'static str = r#"an IP address such as "10.0.0.1", with a port or without"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Some(ip) = value.clone().try_cast::<Ip>() {
            return Ok(Source { ip: ip.0, port: 0 });
        }
        let text = value.into_string().map_err(|_| String::new())?;
        match split_port(&text)? {
            (Host::Ip(ip), port) => Ok(Source { ip, port: port.unwrap_or(0) }),
            _ => Err("it is not an IP address".into()),
        }
    }
}

/// Finds the address of a host, as `from` sees it; `doing` says what for. Settles.
pub fn address(lab: &mut Lab, from: &NetnsRef, host: &Host, doing: &str, v6: Option<bool>) -> Result<IpAddr> {
    let to = match host {
        Host::Ip(ip) => return Ok(*ip),
        Host::Netns(netns) => netns.living(lab)?,
        Host::Name(text) => named(lab, text, doing)?,
    };
    if to.no == from.no {
        return Ok(if v6 == Some(true) { [0, 0, 0, 0, 0, 0, 0, 1].into() } else { [127, 0, 0, 1].into() });
    }
    let failed = |source: net::Error| Error::kernel(doing, &source);
    let (kernel, _) = lab.settled()?;
    let (there, here) = (kernel.rtnl(&to).map_err(failed)?, kernel.rtnl(from).map_err(failed)?);
    let found = net::ip::reach::address_of(&there, &here, v6).map_err(failed)?;
    found.ok_or_else(|| {
        let family = v6.map_or("", |v6| if v6 { "IPv6 " } else { "IPv4 " });
        Error::new(Kind::Missing, doing)
            .because(format!("`{}` has no {family}address that `{}` has a route to", to.name, from.name))
            .hint("an address instead of the name is tried without a question")
    })
}

fn named(lab: &mut Lab, text: &str, doing: &str) -> Result<NetnsRef> {
    if text == "host" {
        return Ok(NetnsRef::host());
    }
    if let Some(entry) = lab.model().netns_named(text) {
        return Ok(entry.at.clone());
    }
    let known: Vec<String> = lab.model().all_netns().map(|entry| entry.at.name.clone()).collect();
    let error =
        Error::new(Kind::Missing, doing).because(format!("`{text}` is neither an IP address nor a netns of the lab"));
    Err(match name::nearest(text, known.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("names are those of the lab's netns; others are not looked up"),
    })
}

/// Makes the way of a probe out of what the script says.
pub fn way(
    lab: &mut Lab,
    netns: &NetnsHandle,
    target: &Target,
    from: Option<Source>,
    dev: Option<DevOrName>,
    doing: &str,
) -> Result<Way> {
    let at = netns.living(lab)?;
    let v6 = from.map(|from| from.ip.is_ipv6());
    let ip = address(lab, &at, &target.host, doing, v6)?;
    if v6.is_some_and(|v6| v6 != ip.is_ipv6()) {
        return Err(Error::invalid(doing).because("`from` is of another family"));
    }
    let dev = device(lab, netns, dev)?;
    if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) && dev.is_none() {
        return Err(Error::invalid(doing)
            .because(format!("`{ip}` is a link-local address, which every link may have"))
            .hint("`dev` says which link it is on"));
    }
    let from = from.map(|from| SocketAddr::new(from.ip, from.port));
    Ok(Way { to: SocketAddr::new(ip, target.port), from, dev })
}

/// Finds the device of a `dev` option, and returns its name in the kernel.
pub fn device(lab: &mut Lab, netns: &NetnsHandle, dev: Option<DevOrName>) -> Result<Option<String>> {
    let dev = match dev {
        None => return Ok(None),
        Some(DevOrName::Name(text)) => Dev::named(netns.clone(), &text),
        Some(DevOrName::Dev(dev)) => dev,
    };
    dev.existing(lab).map(|entry| Some(name::kernel_name(&entry.dev.name)))
}

/// Runs a probe in a namespace, with everything settled that was asked for, until it is done or a signal is caught.
pub fn probe<T>(
    lab: &mut Lab,
    at: &NetnsRef,
    doing: &str,
    work: impl AsyncFnOnce(&net::Netns) -> net::Result<T>,
) -> Result<T> {
    let (kernel, _) = lab.settled()?;
    let failed = |source: net::Error| Error::kernel(doing, &source);
    let netns = kernel.netns(at).map_err(failed)?;
    lab.wait_for(doing, work(&netns)).map_err(failed)
}

/// A probe's result, key by key.
#[derive(Default)]
pub struct Results(Map);

impl Results {
    /// Adds a value.
    pub fn with(mut self, key: &str, value: impl Into<Dynamic>) -> Results {
        self.0.insert(key.into(), value.into());
        self
    }

    /// Adds a value that may be none, which is `()`.
    pub fn maybe<T: Into<Dynamic>>(self, key: &str, value: Option<T>) -> Results {
        let value = value.map_or(Dynamic::UNIT, Into::into);
        self.with(key, value)
    }

    /// Adds a time in milliseconds.
    pub fn ms(self, key: &str, time: Option<std::time::Duration>) -> Results {
        self.maybe(key, time.map(|time| time.as_secs_f64() * 1e3))
    }

    /// Adds what was received, as text.
    pub fn text(self, key: &str, bytes: Option<&[u8]>) -> Results {
        self.maybe(key, bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Adds an address with its port.
    pub fn address(self, key: &str, address: Option<SocketAddr>) -> Results {
        self.maybe(key, address.map(|address| address.to_string()))
    }

    /// Returns the map.
    pub fn map(self) -> Map {
        self.0
    }
}

/// Reads a host and a port that stand apart.
pub fn apart(doing: &str, host: Dynamic, port: i64) -> Result<Target> {
    let host: Host = crate::prim::value::units::argument(doing, host)?;
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(Target { host, port }),
        _ => Err(Error::invalid(doing).because(format!("{port} is no port, which is a number from 1 to 65535"))),
    }
}

/// Returns what a probe does, for messages, before it is known whether its target can be read.
pub fn shown_target(target: &Dynamic) -> String {
    match target.clone().try_cast::<NetnsHandle>() {
        Some(netns) => netns.0.name.clone(),
        None if target.is_string() => name::shown(&crate::prim::call::context::text_of(target)),
        None => shown_value(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> std::result::Result<String, String> {
        Target::from_script(text.into()).map(|target| target.to_string())
    }

    #[test]
    fn targets_are_read_strictly() {
        for good in ["10.0.0.1:80", "[fd00::1]:80", "h2:80", "web-1.lan:65535"] {
            assert_eq!(target(good).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("10.0.0.1", "the port is missing"),
            ("h2", "the port is missing"),
            ("fd00::1", "the port is missing"),
            ("[fd00::1]", "the port is missing"),
            ("10.0.0.1:0", "`0` is no port"),
            ("10.0.0.1:65536", "`65536` is no port"),
            ("10.0.0.1:+80", "`+80` is no port"),
            ("10.0.0.1:", "`` is no port"),
            ("10.0.0.1:http", "`http` is no port"),
            ("10.0.0.300:80", "it is not an IP address"),
            (":80", "it is not an IP address"),
            ("", "it is not an IP address"),
            ("fd00::1:80x", "in brackets"),
            ("[10.0.0.1]:80", "an IPv6 address"),
            ("[fd00::1:80", "not closed"),
            ("[fd00::1]80", "behind the bracket"),
        ] {
            let said = target(bad).expect_err(bad);
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
