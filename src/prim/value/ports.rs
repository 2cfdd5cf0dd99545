//! Ports, ranges of them, and mappings, as scripts and commands write them.

use std::fmt;
use std::net::IpAddr;

use rhai::Dynamic;

use super::units::FromScript;
use super::value::{self, Ip};
use crate::net::nft::{L4Proto, PortRange};
use crate::state::{Error, Result, name};

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proto(pub L4Proto);

impl Proto {
    pub(in crate::prim) fn parse(text: &str) -> Option<L4Proto> {
        match text {
            "tcp" => Some(L4Proto::Tcp),
            "udp" => Some(L4Proto::Udp),
            "sctp" => Some(L4Proto::Sctp),
            _ => None,
        }
    }
}

impl FromScript for Proto {
    const WHAT: &'static str = r#""tcp", "udp" or "sctp""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        Proto::parse(&text).map(Proto).ok_or_else(String::new)
    }
}

/// TCP or UDP, for what knows no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOrUdp {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl FromScript for TcpOrUdp {
    const WHAT: &'static str = r#""tcp" or "udp""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        match value.into_string().as_deref() {
            Ok("tcp") => Ok(TcpOrUdp::Tcp),
            Ok("udp") => Ok(TcpOrUdp::Udp),
            _ => Err(String::new()),
        }
    }
}

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnePort(pub u16);

impl FromScript for OnePort {
    const WHAT: &'static str = "a port from 1 to 65535";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let port = value.as_int().ok().and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
        port.map(OnePort).ok_or_else(String::new)
    }
}

/// A port, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports(pub PortRange);

impl Ports {
    pub(in crate::prim) fn parse(text: &str) -> std::result::Result<PortRange, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (port(from)?, port(to)?);
        if from > to {
            return Err(format!("the range `{text}` ends before it begins"));
        }
        Ok(PortRange { from, to })
    }
}

/// Reads one port, as strict as a person needs it.
pub(in crate::prim) fn port(text: &str) -> std::result::Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => Err(format!("`{}` is no port, which is a number from 1 to 65535", name::shown(text))),
    }
}

impl FromScript for Ports {
    const WHAT: &'static str = r#"a port from 1 to 65535, or a range such as "8000-8010""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Ok(number) = value.as_int() {
            let port = u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(String::new)?;
            return Ok(Ports(port.into()));
        }
        let text = value.into_string().map_err(|_| String::new())?;
        Ports::parse(&text).map(Ports)
    }
}

/// An address at which ports are published; `0.0.0.0` and `::` are all of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host(pub IpAddr);

impl FromScript for Host {
    const WHAT: &'static str = <IpAddr as FromScript>::WHAT;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        IpAddr::from_script(value).map(Host)
    }
}

/// Where published ports lead: an address, perhaps with a port or a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub ip: IpAddr,
    /// The ports.
    pub ports: Option<PortRange>,
}

impl FromScript for Target {
    const WHAT: &'static str =
        r#"an address with its port, such as "10.0.0.2:80" or "[fd00::2]:80-90", or an address alone"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Some(ip) = value.clone().try_cast::<Ip>() {
            return Ok(Target { ip: ip.0, ports: None });
        }
        let text = value.into_string().map_err(|_| String::new())?;
        if let Ok(ip) = value::parse_ip(&text) {
            return Ok(Target { ip, ports: None });
        }
        let (ip, ports) = text.rsplit_once(':').ok_or_else(|| "it is not an IP address".to_string())?;
        let ip = address(ip)?;
        Ok(Target { ip, ports: Some(Ports::parse(ports)?) })
    }
}

/// Reads an address before a colon: an IPv6 one stands in brackets.
fn address(text: &str) -> std::result::Result<IpAddr, String> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => match value::parse_ip(inner)? {
            IpAddr::V4(_) => Err("only an IPv6 address stands in brackets".into()),
            ip => Ok(ip),
        },
        None => match value::parse_ip(text)? {
            IpAddr::V6(ip) => Err(format!("an IPv6 address before a port stands in brackets: `[{ip}]`")),
            ip => Ok(ip),
        },
    }
}

/// Of these ports a free one is taken where none is named: the last that IANA assigns to nobody (RFC 6335, 6), as Docker does.
const FREE: PortRange = PortRange { from: 49_153, to: 65_535 };

/// A mapping as commands take it: `[HOSTIP:][PORT:]PORT[/PROTO]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// The address at which it is published; all unless given.
    pub host_ip: Option<IpAddr>,
    /// The published ports; of more than there are in `to_ports` a free one is to be chosen.
    pub ports: PortRange,
    /// The ports that they lead to.
    pub to_ports: PortRange,
    /// The protocol.
    pub proto: L4Proto,
}

impl PortMapping {
    /// Reads a mapping; the error says which part is wrong.
    pub fn parse(text: &str) -> Result<PortMapping> {
        let wrong = |because: String| {
            Error::invalid(format!("publish `{}`", name::shown(text))).because(because).hint(
                "a mapping is [HOSTIP:][PORT:]PORT[/PROTO], such as `8080:80` or `127.0.0.1:8000-8010:9000-9010/udp`",
            )
        };
        let (rest, proto) = match text.split_once('/') {
            Some((rest, proto)) => {
                let known = Proto::parse(proto);
                let known = known.ok_or_else(|| {
                    wrong(format!("`{}` is no protocol with ports: tcp, udp and sctp are", name::shown(proto)))
                })?;
                (rest, known)
            }
            None => (text, L4Proto::Tcp),
        };
        // A port alone is the container's; that of the host is chosen then, as it is for 0.
        let (rest, to_ports) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let (host, ports) = match rest.rsplit_once(':') {
            Some((host, ports)) => (Some(address(host).map_err(wrong)?), ports),
            None => (None, rest),
        };
        let to_ports = Ports::parse(to_ports).map_err(wrong)?;
        let is_one = to_ports.from == to_ports.to;
        let ports = match ports {
            "0" if is_one => FREE,
            "" if is_one && host.is_some() => FREE,
            ports => Ports::parse(ports).map_err(wrong)?,
        };
        if ports.to - ports.from != to_ports.to - to_ports.from && !is_one {
            return Err(wrong(format!("the ranges {ports} and {to_ports} are of different lengths")));
        }
        Ok(PortMapping { host_ip: host, ports, to_ports, proto })
    }
}

impl PortMapping {
    /// Tells whether one of its ports of the host is to be chosen.
    pub fn is_choice(&self) -> bool {
        self.ports.to - self.ports.from != self.to_ports.to - self.to_ports.from
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.ports, self.to_ports, self.proto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_and_written_in_one_form() {
        for (text, form) in [
            ("8080:80", "8080:80/tcp"),
            ("8080:80/udp", "8080:80/udp"),
            ("127.0.0.1:53:5353/sctp", "127.0.0.1:53:5353/sctp"),
            ("[fd00::1]:1-3:11-13/tcp", "[fd00::1]:1-3:11-13/tcp"),
            ("1:65535", "1:65535/tcp"),
            ("80", "49153-65535:80/tcp"),
            ("0:53/udp", "49153-65535:53/udp"),
            ("127.0.0.1::80", "127.0.0.1:49153-65535:80/tcp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
        ] {
            assert_eq!(PortMapping::parse(text).expect(text).to_string(), form);
        }
    }

    #[test]
    fn d6_a_malformed_mapping_says_what_is_wrong() {
        for (text, because) in [
            ("", "`` is no port"),
            ("80:0", "`0` is no port"),
            ("0:80-81", "`0` is no port"),
            (":80", "`` is no port"),
            ("8080:70000", "`70000` is no port"),
            ("8080:", "`` is no port"),
            ("+80:80", "`+80` is no port"),
            ("8080:80/", "`` is no protocol"),
            ("8080:80/icmp", "`icmp` is no protocol"),
            ("8080:80/TCP", "`TCP` is no protocol"),
            ("1-3:1-4", "of different lengths"),
            ("3-1:1-3", "ends before it begins"),
            ("::1:80:80", "in brackets"),
            ("[10.0.0.1]:80:80", "only an IPv6 address"),
            ("host:80:80", "it is not an IP address"),
            ("1.2.3.4:1:2:3", "it is not an IP address"),
        ] {
            let error = PortMapping::parse(text).expect_err(text);
            assert!(error.to_string().contains(because), "{text}: {error}");
            assert!(error.hint_text().is_some());
        }
    }
}
