//! Values: `ip("10.0.0.1")` and `net("10.0.0.0/24")`, read strictly, with the arithmetic that topologies need.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use rhai::plugin::*;
use rhai::{Array, Dynamic};

use super::units::{self, Subnet};
use crate::ipam::bits_of as longest;
pub use crate::ipam::without_host_bits;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, raise};
use crate::state::{Error, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "value",
    about: "IP addresses and networks as values.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[],
};

/// An IP address, as a script holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ip(pub IpAddr);

/// A network, as a script holds it: no host bits are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net(pub IpNetwork);

/// Reads an address the way RFC 4291 and inet_pton(3) write it; the error says what is wrong.
pub fn parse_ip(text: &str) -> std::result::Result<IpAddr, String> {
    match IpAddr::from_str(text) {
        Ok(ip) => Ok(ip),
        Err(_) if text.contains('/') => Err("an address alone has no prefix length".into()),
        Err(_) => Err("it is not an IP address".into()),
    }
}

/// Reads an address with its prefix length; stricter than `ipnetwork`, which takes `10.0.0.5`, `/024` and `/255.0.0.0`.
pub fn parse_cidr(text: &str) -> std::result::Result<IpNetwork, String> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(match parse_ip(text) {
            Ok(ip) => format!("the prefix length is missing; `{text}/{}` is one host", longest(ip)),
            Err(because) => because,
        });
    };
    let ip = parse_ip(address)?;
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
    match prefix.parse::<u8>() {
        Ok(length) if digits && length <= longest(ip) => IpNetwork::new(ip, length).map_err(|error| error.to_string()),
        _ => Err(format!("the prefix length is not a number from 0 to {}", longest(ip))),
    }
}

/// Returns the address `n` places after `ip`, if the family has one.
pub fn offset(ip: IpAddr, n: i128) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => {
            let number = i128::from(u32::from(v4)).checked_add(n)?;
            u32::try_from(number).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number)))
        }
        IpAddr::V6(v6) => {
            let number = u128::from(v6).checked_add_signed(n)?;
            Some(IpAddr::V6(Ipv6Addr::from(number)))
        }
    }
}

impl Net {
    /// Returns the `n`th address, counted from the network's own; negative counts back from the last one.
    fn host(self, n: i64) -> Option<IpAddr> {
        let from =
            if n < 0 { offset(self.last(), i128::from(n) + 1)? } else { offset(self.0.network(), i128::from(n))? };
        self.0.contains(from).then_some(from)
    }

    fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    fn subnets(self, prefix: i64) -> Result<Vec<Net>> {
        let doing = || format!("divide `{}` into networks of prefix length {prefix}", self.0);
        let longest = longest(self.0.network());
        let length = u8::try_from(prefix).ok().filter(|length| (self.0.prefix()..=longest).contains(length));
        let Some(length) = length else {
            return Err(Error::invalid(doing())
                .because(format!("the prefix length must be from {} to {longest}", self.0.prefix())));
        };
        let bits = length - self.0.prefix();
        if bits > MOST_SUBNETS_BITS {
            return Err(
                Error::invalid(doing()).because(format!("that would be more than {}", 1u32 << MOST_SUBNETS_BITS))
            );
        }
        (0..1u64 << bits).map(|n| self.nth(n, length).map_err(|why| Error::invalid(doing()).because(why))).collect()
    }

    /// Returns the `n`th network of a longer prefix length.
    fn subnet(self, prefix: i64, n: i64) -> Result<Net> {
        let doing = || format!("take network {n} of prefix length {prefix} out of `{}`", self.0);
        let longest = longest(self.0.network());
        let length = u8::try_from(prefix).ok().filter(|length| (self.0.prefix()..=longest).contains(length));
        let Some(length) = length else {
            return Err(Error::invalid(doing())
                .because(format!("the prefix length must be from {} to {longest}", self.0.prefix())));
        };
        let bits = u32::from(length - self.0.prefix());
        match u64::try_from(n).ok().filter(|n| 64 - n.leading_zeros() <= bits) {
            Some(n) => self.nth(n, length).map_err(|why| Error::invalid(doing()).because(why)),
            None if bits < 63 => {
                Err(Error::invalid(doing()).because(format!("there are {}, counted from 0", 1u64 << bits)))
            }
            None => Err(Error::invalid(doing()).because("they are counted from 0")),
        }
    }

    /// Returns the `n`th network of this length, of which there are more than `n`.
    fn nth(self, n: u64, length: u8) -> std::result::Result<Net, ipnetwork::IpNetworkError> {
        let net = match self.0.network() {
            IpAddr::V4(v4) => {
                let step = n << (32 - length);
                Ipv4Network::new(Ipv4Addr::from(u32::from(v4) | step as u32), length).map(IpNetwork::V4)
            }
            IpAddr::V6(v6) => {
                let step = if n == 0 { 0 } else { u128::from(n) << (128 - length) };
                Ipv6Network::new(Ipv6Addr::from(u128::from(v6) | step), length).map(IpNetwork::V6)
            }
        };
        net.map(Net)
    }
}

/// `subnets` returns at most two to this power of networks.
const MOST_SUBNETS_BITS: u8 = 16;

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// The script's word for it.
    pub type Ip = super::Ip;
    /// The script's word for it.
    pub type Net = super::Net;

    /// Reads an IP address, of either family.
    ///
    /// Like `10.0.0.1` or `fd00::1` on the command line of `ip`.
    ///
    /// Fails with `invalid` for anything else, an address with a prefix length included.
    ///
    /// ```rhai
    /// let a = ip("10.0.0.1");
    /// assert(a + 1 == ip("10.0.0.2"));
    /// assert(a.version == 4);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ip(ctx: NativeCallContext, text: &str) -> RhaiResultOf<Ip> {
        let doing = format!("read the IP address `{}`", crate::state::name::shown(text));
        raise(&ctx, parse_ip(text).map(Ip).map_err(|because| Error::invalid(doing).because(because)))
    }

    /// Reads a network: an address with its prefix length and no host bits.
    ///
    /// Like `10.0.0.0/24` in `ip route add 10.0.0.0/24`.
    ///
    /// Fails with `invalid` where the prefix length is missing or too long, or host bits are set; the error names the
    /// network that was meant.
    ///
    /// ```rhai
    /// let lan = net("10.0.0.0/24");
    /// assert(lan.host(1) == ip("10.0.0.1"));
    /// assert(lan.host(-2) == ip("10.0.0.254"));
    /// assert(lan.contains(ip("10.0.0.77")));
    /// assert(lan.subnets(26).len() == 4);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn net(ctx: NativeCallContext, text: &str) -> RhaiResultOf<Net> {
        let doing = format!("read the network `{}`", crate::state::name::shown(text));
        let net = parse_cidr(text).and_then(without_host_bits).map(Net);
        raise(&ctx, net.map_err(|because| Error::invalid(doing).because(because)))
    }

    /// Returns the `n`th address of a network, counted from 0, the network's own; a negative `n` counts back from the last.
    ///
    /// Like `ipcalc`'s host arithmetic; `ip` has no equivalent.
    ///
    /// Fails with `invalid` where the network has no such address.
    ///
    /// ```rhai
    /// assert(net("fd00:1::/64").host(1) == ip("fd00:1::1"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn host(ctx: NativeCallContext, net: Net, n: i64) -> RhaiResultOf<Ip> {
        let none = || Error::invalid(format!("take address {n} of `{}`", net.0)).because("the network ends before it");
        raise(&ctx, net.host(n).map(Ip).ok_or_else(none))
    }

    /// Tells whether an address, or all of another network, lies in a network.
    ///
    /// Like `ip route show to match ADDRESS`.
    ///
    /// Fails with `invalid` where the second value is neither.
    ///
    /// ```rhai
    /// assert(net("10.0.0.0/8").contains("10.1.2.3"));
    /// assert(!net("10.0.0.0/24").contains(net("10.0.0.0/8")));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn contains(ctx: NativeCallContext, net: Net, other: Dynamic) -> RhaiResultOf<bool> {
        if let Some(other) = other.clone().try_cast::<Net>() {
            return Ok(net.0.contains(other.0.network()) && net.0.prefix() <= other.0.prefix());
        }
        let doing = format!("look whether `{}` contains a value", net.0);
        raise(&ctx, units::argument::<IpAddr>(&doing, other)).map(|ip| net.0.contains(ip))
    }

    /// Divides a network into all its subnets of a longer prefix length, at most 65536 of them.
    ///
    /// Like `sipcalc --v4split`; `ip` has no equivalent.
    ///
    /// Fails with `invalid` where the prefix length is shorter than the network's or too long.
    ///
    /// ```rhai
    /// let halves = net("10.0.0.0/24").subnets(25);
    /// assert(halves[1] == net("10.0.0.128/25"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn subnets(ctx: NativeCallContext, net: Net, prefix: i64) -> RhaiResultOf<Array> {
        raise(&ctx, net.subnets(prefix)).map(|nets| nets.into_iter().map(Dynamic::from).collect())
    }

    /// Returns the `n`th subnet of a longer prefix length, counted from 0.
    ///
    /// Like one line of `sipcalc --v4split`; `ip` has no equivalent.
    ///
    /// Fails with `invalid` where there are not so many, and where the prefix length is shorter than the network's or too long.
    ///
    /// ```rhai
    /// assert(net("10.0.0.0/8").subnet(24, 258) == net("10.1.2.0/24"));
    /// assert(net("fd00::/16").subnet(64, 1) == net("fd00:0:0:1::/64"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn subnet(ctx: NativeCallContext, net: Net, prefix: i64, n: i64) -> RhaiResultOf<Net> {
        raise(&ctx, net.subnet(prefix, n))
    }

    /// Writes an address of a network with the network's prefix length, as `addr` takes it: `lan.cidr(1)`.
    ///
    /// Like the `10.0.0.1/24` of `ip addr add 10.0.0.1/24`.
    ///
    /// Fails with `invalid` where the network has no such address.
    ///
    /// ```rhai
    /// assert(net("10.0.0.0/24").cidr(7) == "10.0.0.7/24");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn cidr(ctx: NativeCallContext, net: Net, n: i64) -> RhaiResultOf<String> {
        host(ctx, net, n).map(|ip| format!("{}/{}", ip.0, net.0.prefix()))
    }

    /// Returns the IP version of an address: 4 or 6.
    #[rhai_fn(get = "version", pure)]
    pub fn ip_version(ip: &mut Ip) -> i64 {
        if ip.0.is_ipv4() { 4 } else { 6 }
    }

    /// Returns the IP version of a network: 4 or 6.
    #[rhai_fn(get = "version", pure)]
    pub fn net_version(net: &mut Net) -> i64 {
        if net.0.is_ipv4() { 4 } else { 6 }
    }

    /// Returns the prefix length of a network.
    #[rhai_fn(get = "prefix", pure)]
    pub fn net_prefix(net: &mut Net) -> i64 {
        i64::from(net.0.prefix())
    }

    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn ip_text(ip: &mut Ip) -> String {
        ip.0.to_string()
    }

    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn net_text(net: &mut Net) -> String {
        net.0.to_string()
    }

    #[rhai_fn(global, name = "==")]
    pub fn ip_equals(a: Ip, b: Ip) -> bool {
        a == b
    }

    #[rhai_fn(global, name = "!=")]
    pub fn ip_differs(a: Ip, b: Ip) -> bool {
        a != b
    }

    #[rhai_fn(global, name = "<")]
    pub fn ip_before(a: Ip, b: Ip) -> bool {
        a < b
    }

    #[rhai_fn(global, name = ">")]
    pub fn ip_after(a: Ip, b: Ip) -> bool {
        a > b
    }

    #[rhai_fn(global, name = "==")]
    pub fn net_equals(a: Net, b: Net) -> bool {
        a == b
    }

    #[rhai_fn(global, name = "!=")]
    pub fn net_differs(a: Net, b: Net) -> bool {
        a != b
    }

    #[rhai_fn(global, name = "+", return_raw)]
    pub fn ip_plus(ctx: NativeCallContext, ip: Ip, n: i64) -> RhaiResultOf<Ip> {
        let none = || Error::invalid(format!("add {n} to `{}`", ip.0)).because("there is no such address");
        raise(&ctx, offset(ip.0, i128::from(n)).map(Ip).ok_or_else(none))
    }

    #[rhai_fn(global, name = "-", return_raw)]
    pub fn ip_minus(ctx: NativeCallContext, ip: Ip, n: i64) -> RhaiResultOf<Ip> {
        ip_plus(ctx, ip, n.saturating_neg())
    }
}

/// Returns the script's value for an address.
pub fn ip_value(text: &str) -> Option<Dynamic> {
    parse_ip(text).ok().map(|ip| Dynamic::from(Ip(ip)))
}

/// Returns the script's value for a network.
pub fn net_value(text: &str) -> Option<Dynamic> {
    parse_cidr(text).and_then(without_host_bits).ok().map(|net| Dynamic::from(Net(net)))
}

/// Turns a subnet into the script's value.
impl From<Subnet> for Net {
    fn from(subnet: Subnet) -> Net {
        Net(subnet.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_with_prefix_are_read_strictly() {
        for good in ["10.0.0.1/24", "0.0.0.0/0", "10.0.0.1/32", "fd00::1/64", "::/0", "::1/128"] {
            assert!(parse_cidr(good).is_ok(), "{good}");
        }
        for bad in [
            "10.0.0.1",
            "10.0.0.0/33",
            "10.0.0/24",
            "10.0.0.0/024",
            "10.0.0.0/+24",
            "10.0.0.0/255.255.255.0",
            "010.0.0.1/24",
            "fd00::/129",
            "",
            "/",
            "x/24",
            "10.0.0.0/",
        ] {
            assert!(parse_cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_bits_are_named() {
        let net = parse_cidr("10.0.0.5/24").and_then(without_host_bits);
        assert_eq!(net, Err("host bits are set; did you mean `10.0.0.0/24`?".into()));
    }

    proptest! {
        #[test]
        fn every_subnet_lies_in_its_network_and_none_overlap(number: u32, prefix in 0u8..=32, more in 0u8..=8) {
            let network = IpNetwork::new(Ipv4Addr::from(number).into(), prefix).and_then(|net| IpNetwork::new(net.network(), prefix));
            let net = Net(network.expect("a prefix up to 32"));
            let length = (prefix + more).min(32);
            let subnets = net.subnets(length.into()).expect("a longer prefix");
            prop_assert_eq!(subnets.len(), 1 << (length - prefix));
            for pair in subnets.windows(2) {
                prop_assert_eq!(offset(pair[0].last(), 1), Some(pair[1].0.network()));
            }
            prop_assert_eq!(subnets[0].0.network(), net.0.network());
            prop_assert_eq!(subnets[subnets.len() - 1].last(), net.last());
        }

        #[test]
        fn hosts_count_from_both_ends(number: u128, prefix in 0u8..=128) {
            let network = IpNetwork::new(Ipv6Addr::from(number).into(), prefix).and_then(|net| IpNetwork::new(net.network(), prefix));
            let net = Net(network.expect("a prefix up to 128"));
            prop_assert_eq!(net.host(0), Some(net.0.network()));
            prop_assert_eq!(net.host(-1), Some(net.last()));
            prop_assert_eq!(net.host(1).is_some(), prefix < 128);
        }
    }
}
