//! How values of a script become values of ours: numbers in their range, addresses, times with units, handles.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use rhai::Dynamic;

use super::handles::{Dev, NetnsHandle};
use super::value::{self, Ip, Net};
use crate::net::{self, Mac, Worded};
use crate::state::{Error, Result};

/// A type that an option or an argument can have.
pub trait FromScript: Sized {
    /// What it is, for messages and the reference: "a number from 1 to 4094".
    const WHAT: &'static str;

    /// Reads it; the error says what is wrong beyond `WHAT`, or nothing.
    fn from_script(value: Dynamic) -> std::result::Result<Self, String>;
}

/// Reads an argument; `doing` says what for.
pub fn argument<T: FromScript>(doing: &str, value: Dynamic) -> Result<T> {
    let shown = super::options::shown_value(&value);
    T::from_script(value).map_err(|because| {
        let because = if because.is_empty() { String::new() } else { format!(" ({because})") };
        Error::invalid(doing).because(format!("expected {}, got {shown}{because}", T::WHAT))
    })
}

fn whole(value: &Dynamic, low: i64, high: i64) -> std::result::Result<i64, String> {
    value.as_int().ok().filter(|number| (low..=high).contains(number)).ok_or_else(String::new)
}

/// Declares a number type with its range.
macro_rules! number {
    ($(#[doc = $doc:literal])+ $name:ident($type:ty), $low:literal ..= $high:literal, $what:literal) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $type);

        impl FromScript for $name {
            const WHAT: &'static str = $what;

            fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
                whole(&value, $low, $high).map(|number| $name(number as $type))
            }
        }
    };
}

number! {
    /// An MTU in bytes: what the kernel takes for a veth (linux/if_ether.h ETH_MIN_MTU, ETH_MAX_MTU).
    Mtu(u32), 68..=65535, "a number of bytes from 68 to 65535"
}
/// A routing table. What a script compares one with is its name or its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table(pub u32);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match net::table_name(self.0) {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl Table {
    /// Tells whether a script's value means this table.
    pub(in crate::prim) fn is(self, value: &Dynamic) -> bool {
        Table::from_script(value.clone()).is_ok_and(|other| other == self)
    }
}

impl FromScript for Table {
    const WHAT: &'static str = r#"a table number from 1 to 4294967295, or "main", "default" or "local""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Some(table) = value.clone().try_cast::<Table>() {
            return Ok(table);
        }
        if let Ok(text) = value.clone().into_string() {
            let known = net::TABLES.into_iter().find(|(_, name)| *name == text);
            return known.map(|(number, _)| Table(number)).ok_or_else(String::new);
        }
        whole(&value, 1, i64::from(u32::MAX)).map(|number| Table(number as u32))
    }
}

number! {
    /// A route's metric, or a rule's priority: the lower, the sooner.
    Metric(u32), 0..=4_294_967_295, "a number from 0 to 4294967295"
}
number! {
    /// The length of a prefix, of either version of IP.
    PrefixLength(u32), 0..=128, "a number from 0 to 128"
}
number! {
    /// How many there shall be.
    Count(u32), 1..=1_000_000, "a number from 1 to 1000000"
}
number! {
    /// How many connections there are at once.
    Streams(u32), 1..=128, "a number from 1 to 128"
}
number! {
    /// A status of a web server.
    StatusCode(u16), 200..=599, "a status from 200 to 599"
}
number! {
    /// A hop limit.
    Ttl(u8), 1..=255, "a number from 1 to 255"
}
number! {
    /// The bytes of an echo's payload.
    Size(u32), 0..=65_000, "a number of bytes from 0 to 65000"
}
number! {
    /// A bridge's priority in the spanning tree.
    Priority(u16), 0..=65_535, "a number from 0 to 65535"
}
number! {
    /// A bridge's or a port's own number in the spanning tree.
    PortPriority(u16), 0..=63, "a number from 0 to 63"
}
number! {
    /// The cost of a port in the spanning tree.
    Cost(u32), 1..=65_535, "a number from 1 to 65535"
}
number! {
    /// A VLAN (IEEE 802.1Q, table 9-2).
    VlanId(u16), 1..=4094, "a VLAN from 1 to 4094: 0 means no VLAN, and 4095 is reserved"
}
number! {
    /// A VLAN, or none.
    VlanIdOrNone(u16), 0..=4094, "a VLAN from 1 to 4094, or 0 for none"
}
number! {
    /// The number of a VXLAN.
    Vni(u32), 0..=16_777_215, "a network number from 0 to 16777215, of 24 bits"
}
number! {
    /// A UDP port.
    UdpPort(u16), 1..=65_535, "a port from 1 to 65535"
}
number! {
    /// The key of a tunnel.
    TunnelKey(u32), 0..=4_294_967_295, "a number from 0 to 4294967295"
}
number! {
    /// The number of a user or a group.
    Id(u32), 0..=4_294_967_294, "the number of a user or a group, from 0 to 4294967294"
}
number! {
    /// A firewall mark.
    Mark(u32), 0..=4_294_967_295, "a number from 0 to 4294967295"
}
number! {
    /// The weight of one of several next hops.
    Weight(u8), 1..=255, "a number from 1 to 255"
}

impl<T: Worded> FromScript for T {
    const WHAT: &'static str = <T as Worded>::WHAT;

    fn from_script(value: Dynamic) -> std::result::Result<T, String> {
        value.into_string().ok().and_then(|word| T::of_word(&word)).ok_or_else(String::new)
    }
}

impl FromScript for bool {
    const WHAT: &'static str = "true or false";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        value.as_bool().map_err(|_| String::new())
    }
}

impl FromScript for String {
    const WHAT: &'static str = "a string";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        value.into_string().map_err(|_| String::new())
    }
}

impl FromScript for Duration {
    const WHAT: &'static str = r#"a time with its unit, such as "200ms", "2s" or "1m""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        parse_time(&text).ok_or_else(String::new)
    }
}

/// Reads a time with its unit: `15ms`, `1.5s`, `250us`, `2m`.
pub fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(digits);
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

impl FromScript for IpAddr {
    const WHAT: &'static str = r#"an IP address such as "10.0.0.1" or "fd00::1""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Some(ip) = value.clone().try_cast::<Ip>() {
            return Ok(ip.0);
        }
        let text = value.into_string().map_err(|_| String::new())?;
        value::parse_ip(&text)
    }
}

impl FromScript for IpNetwork {
    const WHAT: &'static str = r#"an address with its prefix length, such as "10.0.0.1/24" or "fd00::1/64""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Some(net) = value.clone().try_cast::<Net>() {
            return Ok(net.0);
        }
        let text = value.into_string().map_err(|_| String::new())?;
        value::parse_cidr(&text)
    }
}

/// A network: an address with its prefix length and no host bits; `default` for everything is the caller's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet(pub IpNetwork);

impl FromScript for Subnet {
    const WHAT: &'static str = r#"a network such as "10.0.0.0/24" or "fd00::/64""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let net = IpNetwork::from_script(value)?;
        value::without_host_bits(net).map(Subnet)
    }
}

impl FromScript for Mac {
    const WHAT: &'static str = r#"a hardware address such as "02:00:00:00:00:01""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        value.into_string().ok().and_then(|text| text.parse().ok()).ok_or_else(String::new)
    }
}

/// The hardware address of a device of ours: one device's, so neither a group's nor all zeros (IEEE 802, 8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevMac(pub Mac);

impl FromScript for DevMac {
    const WHAT: &'static str = r#"a hardware address such as "02:00:00:00:00:01""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        match Mac::from_script(value)? {
            Mac([0, 0, 0, 0, 0, 0]) => Err("no device has this one".into()),
            Mac([first, ..]) if first & 1 == 1 => Err("it is the address of a group, not of one device".into()),
            mac => Ok(DevMac(mac)),
        }
    }
}

impl FromScript for Dev {
    const WHAT: &'static str = r#"a device such as h["eth0"]"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        value.try_cast::<Dev>().ok_or_else(String::new)
    }
}

impl FromScript for NetnsHandle {
    const WHAT: &'static str = "a netns";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        value.try_cast::<NetnsHandle>().ok_or_else(String::new)
    }
}

/// A device, or the name of one in the namespace at hand.
#[derive(Debug, Clone)]
pub enum DevOrName {
    /// A handle.
    Dev(Dev),
    /// A name.
    Name(String),
}

impl FromScript for DevOrName {
    const WHAT: &'static str = r#"a device such as h["eth0"], or its name"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        match value.clone().try_cast::<Dev>() {
            Some(dev) => Ok(DevOrName::Dev(dev)),
            None => value.into_string().map(DevOrName::Name).map_err(|_| String::new()),
        }
    }
}

/// VLANs: a list of numbers and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanIds(pub Vec<(u16, u16)>);

impl FromScript for VlanIds {
    const WHAT: &'static str = r#"a list of VLANs from 1 to 4094, such as [10, "20-29"]"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = if value.is_array() { value.into_array().unwrap_or_default() } else { vec![value] };
        let mut ranges = list.into_iter().map(vlan_range).collect::<std::result::Result<Vec<_>, String>>()?;
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (low, high) in ranges {
            match merged.last_mut() {
                Some((_, last)) if low <= *last + 1 => *last = high.max(*last),
                _ => merged.push((low, high)),
            }
        }
        Ok(VlanIds(merged))
    }
}

fn vlan_range(value: Dynamic) -> std::result::Result<(u16, u16), String> {
    let wrong = |shown: &str| format!("{shown} is no VLAN: 0 means none, and 4095 is reserved");
    if let Ok(number) = value.as_int() {
        return VlanId::from_script(value).map(|vid| (vid.0, vid.0)).map_err(|_| wrong(&number.to_string()));
    }
    let text = value.into_string().map_err(|_| String::new())?;
    let end = |text: &str| {
        let digits = text.len() <= 4 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u16>().ok().filter(|vid| digits && (1..=4094).contains(vid));
        number.ok_or_else(|| wrong(&format!("{:?}", crate::state::name::shown(text))))
    };
    let (low, high) = text.split_once('-').unwrap_or((&text, &text));
    match (end(low)?, end(high)?) {
        (low, high) if low > high => Err(format!("the range `{low}-{high}` ends before it begins")),
        range => Ok(range),
    }
}

/// A list of devices.
#[derive(Debug, Clone)]
pub struct Devs(pub Vec<Dev>);

impl FromScript for Devs {
    const WHAT: &'static str = r#"a list of devices such as [h["eth0"], h["eth1"]]"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = value.into_array().map_err(|_| String::new())?;
        list.into_iter().map(Dev::from_script).collect::<std::result::Result<Vec<Dev>, String>>().map(Devs)
    }
}

/// A list of maps, each with options of its own.
#[derive(Debug, Clone)]
pub struct Maps(pub Vec<rhai::Map>);

impl FromScript for Maps {
    const WHAT: &'static str = "a list of maps";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = value.into_array().map_err(|_| String::new())?;
        let maps: Option<Vec<rhai::Map>> = list.into_iter().map(|entry| entry.try_cast::<rhai::Map>()).collect();
        maps.map(Maps).ok_or_else(String::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_time("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(parse_time("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Some(Duration::from_secs(120)));
        for wrong in ["", "5", "ms", "-1s", "1 s", ".5s", "1.s", "1.2.3s", "9e9s", "1d"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }
}
