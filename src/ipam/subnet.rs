//! The arithmetic of subnets: addresses as numbers, counted from the subnet's own, the same for IPv4 and IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::state::{Error, Result, name};

/// A run of numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first number.
    pub first: u128,
    /// The last number, not before the first.
    pub last: u128,
}

impl Span {
    /// Tells whether the two have a number in common.
    pub fn overlaps(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Returns how many numbers it has; one less for all there are of 128 bits.
    pub fn count(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

/// A subnet without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet(IpNetwork);

impl Subnet {
    /// Checks a network that somebody gave us; `invalid` where host bits are set, naming the network that was meant.
    pub fn of(net: IpNetwork) -> Result<Subnet> {
        without_host_bits(net)
            .map(Subnet)
            .map_err(|because| Error::invalid(format!("take `{net}` as a subnet")).because(because))
    }

    /// Returns it as a network.
    pub fn net(self) -> IpNetwork {
        self.0
    }

    /// Tells whether it is of the same family as `ip`.
    pub fn has_family_of(self, ip: IpAddr) -> bool {
        self.0.is_ipv4() == ip.is_ipv4()
    }

    /// Returns how many bits number its addresses: 8 for an IPv4 /24.
    pub fn host_bits(self) -> u8 {
        bits_of(self.0.ip()) - self.0.prefix()
    }

    /// Returns the offset of its last address; one less than its size, which 128 bits can't hold for `::/0`.
    pub fn last(self) -> u128 {
        ones(self.host_bits())
    }

    /// Returns its addresses as numbers.
    pub fn span(self) -> Span {
        span(&self.0)
    }

    /// Returns the address `offset` places after its own, if it has one.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        (offset <= self.last()).then(|| address(self.0.is_ipv4(), number(self.0.ip()) | offset))
    }

    /// Returns how many places after its own address `ip` is, if it lies in it.
    pub fn offset(self, ip: IpAddr) -> Option<u128> {
        let offset = number(ip).checked_sub(number(self.0.ip())).filter(|offset| *offset <= self.last());
        offset.filter(|_| self.has_family_of(ip))
    }

    /// Returns the offsets that hosts can have.
    ///
    /// IPv4: all but the network and the broadcast address (RFC 919, RFC 922); both of a /31 (RFC 3021), the one of a /32. IPv6:
    /// all but the subnet-router anycast address (RFC 4291, 2.6.1); both of a /127 (RFC 6164), the one of a /128.
    pub fn usable(self) -> Span {
        match self.host_bits() {
            0 | 1 => Span { first: 0, last: self.last() },
            _ if self.0.is_ipv4() => Span { first: 1, last: self.last() - 1 },
            _ => Span { first: 1, last: self.last() },
        }
    }

    /// Returns the first address that a host can have: what a gateway usually gets.
    pub fn first_usable(self) -> IpAddr {
        self.nth(self.usable().first).unwrap_or(self.0.ip())
    }

    /// Tells why a host can't have the address at `offset`, if it can't.
    pub fn unusable(self, offset: u128) -> Option<&'static str> {
        let usable = self.usable();
        if (usable.first..=usable.last).contains(&offset) {
            None
        } else if !self.0.is_ipv4() {
            Some("it is the anycast address of the subnet's routers")
        } else if offset == 0 {
            Some("it is the network's own address")
        } else {
            Some("it is the broadcast address")
        }
    }

    /// Tells whether the two have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        self.0.is_ipv4() == other.0.is_ipv4() && self.span().overlaps(other.span())
    }

    /// Returns its name in the store: `10.0.0.0-24`, `fd00__-64`, by the one rule for names.
    pub(super) fn key_name(self) -> String {
        format!("{}-{}", self.0.ip(), self.0.prefix()).replace(':', "_")
    }

    /// Reads a name in the store; nothing where it is not what `key_name` writes.
    pub(super) fn from_key_name(name: &str) -> Option<Subnet> {
        let (ip, prefix) = name.rsplit_once('-')?;
        let net = IpNetwork::new(ip.replace('_', ":").parse().ok()?, prefix.parse().ok()?).ok()?;
        Subnet::of(net).ok().filter(|subnet| subnet.key_name() == name)
    }
}

/// Writes it as `10.0.0.0/24`.
impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Checks that a network has no host bits.
pub fn without_host_bits(net: IpNetwork) -> std::result::Result<IpNetwork, String> {
    match IpNetwork::new(net.network(), net.prefix()) {
        Ok(network) if network == net => Ok(net),
        Ok(network) => Err(format!("host bits are set; did you mean `{network}`?")),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads an address strictly; for the texts in ranges.
pub(crate) fn parse_ip(text: &str) -> std::result::Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{}` is not an IP address", name::shown(text)))
}

/// Returns how many bits an address of the family of `ip` has.
pub fn bits_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Returns an address as a number; one of IPv4 has 32 bits.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// Returns the addresses of the network that an address with its prefix length is in, as numbers.
pub fn span(net: &IpNetwork) -> Span {
    let hosts = ones(bits_of(net.ip()).saturating_sub(net.prefix()));
    let first = number(net.ip()) & !hosts;
    Span { first, last: first | hosts }
}

/// Returns the address that a number stands for; of IPv4 the lower 32 bits count.
pub(crate) fn address(v4: bool, number: u128) -> IpAddr {
    if v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

/// Returns the number whose lowest `count` bits are set.
pub(crate) fn ones(count: u8) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(count.min(128))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::Kind;

    fn subnet(text: &str) -> Subnet {
        Subnet::of(text.parse().expect(text)).expect(text)
    }

    #[test]
    fn i2_hosts_never_get_the_networks_own_or_the_broadcast_address() {
        for (net, first, last) in [
            ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
            ("10.0.0.0/22", "10.0.0.1", "10.0.3.254"),
            ("10.0.0.8/30", "10.0.0.9", "10.0.0.10"),
            ("10.0.0.8/31", "10.0.0.8", "10.0.0.9"),
            ("10.0.0.8/32", "10.0.0.8", "10.0.0.8"),
            ("0.0.0.0/0", "0.0.0.1", "255.255.255.254"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00::4/126", "fd00::5", "fd00::7"),
            ("fd00::4/127", "fd00::4", "fd00::5"),
            ("fd00::4/128", "fd00::4", "fd00::4"),
            ("::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let subnet = subnet(net);
            assert_eq!(subnet.first_usable().to_string(), first, "{net}");
            let last_usable = subnet.nth(subnet.usable().last).expect("inside");
            assert_eq!(last_usable.to_string(), last, "{net}");
            for ip in [subnet.first_usable(), last_usable] {
                assert_eq!(subnet.unusable(subnet.offset(ip).expect("inside")), None);
            }
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_network_that_was_meant() {
        let error = Subnet::of("10.0.0.5/24".parse().expect("a network")).expect_err("host bits");
        assert_eq!(error.kind(), Kind::Invalid);
        assert_eq!(error.to_string(), "take `10.0.0.5/24` as a subnet: host bits are set; did you mean `10.0.0.0/24`?");
    }

    #[test]
    fn a_name_in_the_store_is_read_back_or_not_at_all() {
        for text in ["10.0.0.0/24", "0.0.0.0/0", "::/0", "fd00:1::/64", "::ffff:10.0.0.0/120", "2001:db8::1/128"] {
            let subnet = subnet(text);
            assert!(name::check("pool", &subnet.key_name()).is_ok(), "{}", subnet.key_name());
            assert_eq!(Subnet::from_key_name(&subnet.key_name()), Some(subnet));
        }
        for bad in ["10.0.0.5-24", "10.0.0.0", "10.0.0.0-024", "10.0.0.0-33", "web", "fd00_0__-64", "-"] {
            assert_eq!(Subnet::from_key_name(bad), None, "{bad}");
        }
    }

    /// A subnet of either family and any prefix length.
    fn any_subnet() -> impl Strategy<Value = Subnet> {
        let of = |ip: IpAddr, prefix| {
            let net = IpNetwork::new(ip, prefix).expect("a prefix length");
            Subnet::of(IpNetwork::new(net.network(), prefix).expect("a prefix length")).expect("no host bits")
        };
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(move |(n, prefix)| of(Ipv4Addr::from(n).into(), prefix)),
            (any::<u128>(), 0u8..=128).prop_map(move |(n, prefix)| of(Ipv6Addr::from(n).into(), prefix)),
        ]
    }

    proptest! {
        #[test]
        fn addresses_and_offsets_are_one_to_one(subnet in any_subnet(), any in any::<u128>()) {
            let offset = any & subnet.last();
            let ip = subnet.nth(offset).expect("inside");
            prop_assert!(subnet.net().contains(ip));
            prop_assert_eq!(subnet.offset(ip), Some(offset));
            prop_assert_eq!(subnet.nth(0), Some(subnet.net().network()));
            prop_assert_eq!(subnet.nth(subnet.last()), Some(subnet.net().broadcast()));
            prop_assert_eq!(subnet.last().checked_add(1).and_then(|size| subnet.nth(size)), None);
            let span = subnet.span();
            prop_assert_eq!(span.last - span.first, subnet.last());
            prop_assert_eq!(address(ip.is_ipv4(), number(ip)), ip);
            prop_assert_eq!(Subnet::from_key_name(&subnet.key_name()), Some(subnet));
        }

        #[test]
        fn what_lies_outside_has_no_offset(subnet in any_subnet(), any in any::<u128>()) {
            let ip = address(subnet.net().is_ipv4(), any);
            prop_assert_eq!(subnet.offset(ip).is_some(), subnet.net().contains(ip));
            let other = address(!subnet.net().is_ipv4(), any);
            prop_assert_eq!(subnet.offset(other), None);
        }

        #[test]
        fn the_unusable_are_none_one_or_two(subnet in any_subnet()) {
            let ends = [subnet.unusable(0), subnet.unusable(subnet.last())].map(|why| why.is_some());
            let expected = match (subnet.host_bits(), subnet.net().is_ipv4()) {
                (0 | 1, _) => [false, false],
                (_, true) => [true, true],
                (_, false) => [true, false],
            };
            prop_assert_eq!(ends, expected);
        }

        #[test]
        fn subnets_overlap_where_one_holds_the_other(a in any_subnet(), more in 0u8..=8, any in any::<u128>()) {
            let prefix = (a.net().prefix() + more).min(bits_of(a.net().ip()));
            let inner = IpNetwork::new(a.nth(any & a.last()).expect("inside"), prefix).expect("a prefix length");
            let b = Subnet::of(IpNetwork::new(inner.network(), prefix).expect("a network")).expect("no host bits");
            prop_assert!(a.overlaps(b) && b.overlaps(a));
            let beside = number(a.net().ip()) ^ (a.last().wrapping_add(1));
            if a.net().prefix() > 0 {
                let beside = IpNetwork::new(address(a.net().is_ipv4(), beside), a.net().prefix()).expect("a network");
                prop_assert!(!a.overlaps(Subnet::of(beside).expect("no host bits")));
            }
        }
    }
}
