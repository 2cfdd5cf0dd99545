//! Pools: what was asked for, what it comes to, and which addresses it hands out.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::subnet::{Span, Subnet, address, number, parse_ip, span};
use crate::state::{Error, Result};

/// The longest owner, in bytes.
const OWNER_MAX: usize = 255;

/// A run of addresses of one family, both ends included: `10.0.0.10-10.0.0.20`, or `10.0.0.10` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// Makes a range; says what is wrong where the ends are in the wrong order or of two families.
    pub fn new(first: IpAddr, last: IpAddr) -> std::result::Result<Range, String> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(format!("`{first}` and `{last}` are not of one family"));
        }
        if number(first) > number(last) {
            return Err(format!("`{last}` comes before `{first}`"));
        }
        Ok(Range { first, last })
    }

    /// Returns its first address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// Returns its last address.
    pub fn last(self) -> IpAddr {
        self.last
    }

    /// Tells whether an address is in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && (number(self.first)..=number(self.last)).contains(&number(ip))
    }
}

impl Range {
    /// Returns how many addresses it has.
    pub fn count(self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// Returns its addresses, in their order.
    pub fn ips(self) -> impl Iterator<Item = IpAddr> {
        (number(self.first)..=number(self.last)).map(move |ip| address(self.first.is_ipv4(), ip))
    }

    /// Puts addresses that follow each other together.
    pub fn runs(ips: &[IpAddr]) -> Vec<Range> {
        let mut runs: Vec<Range> = Vec::new();
        for ip in ips {
            match runs.last_mut() {
                Some(run)
                    if run.last.is_ipv4() == ip.is_ipv4() && number(run.last).checked_add(1) == Some(number(*ip)) =>
                {
                    run.last = *ip
                }
                _ => runs.push(Range::from(*ip)),
            }
        }
        runs
    }
}

/// One address.
impl From<IpAddr> for Range {
    fn from(ip: IpAddr) -> Range {
        Range { first: ip, last: ip }
    }
}

/// All addresses of the network that an address with its prefix length is in.
impl From<IpNetwork> for Range {
    fn from(net: IpNetwork) -> Range {
        Range { first: net.network(), last: net.broadcast() }
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Range, String> {
        match text.split_once('-') {
            Some((first, last)) => Range::new(parse_ip(first)?, parse_ip(last)?),
            None => parse_ip(text).map(Range::from),
        }
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Range, String> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> String {
        range.to_string()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What a pool is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// The subnet, without host bits.
    pub subnet: IpNetwork,
    /// The gateway's address, which is never handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Where addresses are handed out from; everywhere unless set. One that is asked for by number may lie outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// What is never handed out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Range>,
    /// Whose it is: a network or a lab.
    pub owner: String,
}

impl PoolSpec {
    /// Asks for a pool of the whole subnet.
    pub fn new(subnet: IpNetwork, owner: impl Into<String>) -> PoolSpec {
        PoolSpec { subnet, gateway: None, range: None, reserved: Vec::new(), owner: owner.into() }
    }
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// What it was asked to be.
    pub spec: PoolSpec,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Whether it was made for a first lease, and goes with the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub implicit: bool,
}

/// A pool that was checked, with what it hands out worked out.
#[derive(Debug)]
pub(super) struct Layout {
    pub(crate) subnet: Subnet,
    gateway: Option<u128>,
    reserved: Vec<(Span, Range)>,
    /// What is handed out, as offsets, ascending and apart.
    pub(crate) free: Vec<Span>,
}

impl Layout {
    /// Checks a pool; `invalid` saying what is wrong.
    pub(crate) fn of(spec: &PoolSpec) -> Result<Layout> {
        let subnet = Subnet::of(spec.subnet)?;
        let wrong = |because: String| Error::invalid(format!("make the pool `{subnet}`")).because(because);
        check_owner(&spec.owner)?;
        let gateway = match spec.gateway {
            None => None,
            Some(ip) => {
                let offset = subnet.offset(ip).ok_or_else(|| wrong(format!("its gateway `{ip}` lies outside")))?;
                if let Some(why) = subnet.unusable(offset) {
                    return Err(wrong(format!("`{ip}` can't be its gateway: {why}")));
                }
                Some(offset)
            }
        };
        let inside = |range: Range| match (subnet.offset(range.first), subnet.offset(range.last)) {
            (Some(first), Some(last)) => Ok(Span { first, last }),
            _ => Err(wrong(format!("`{range}` does not lie in it"))),
        };
        let reserved = spec.reserved.iter().map(|range| Ok((inside(*range)?, *range))).collect::<Result<Vec<_>>>()?;
        let range = spec.range.map_or(Ok(subnet.usable()), inside)?;
        let usable = subnet.usable();
        let whole = Span { first: range.first.max(usable.first), last: range.last.min(usable.last) };
        let taken = reserved.iter().map(|(span, _)| *span).chain(gateway.map(|first| Span { first, last: first }));
        let free = if whole.first <= whole.last { without(whole, taken.collect()) } else { Vec::new() };
        if free.is_empty() {
            let from = spec.range.map_or(String::new(), |range| format!(" in `{range}`"));
            return Err(wrong(format!("it is too small: no address{from} is left to hand out")));
        }
        Ok(Layout { subnet, gateway, reserved, free })
    }

    /// Returns how many addresses it hands out by itself.
    pub(crate) fn count(&self) -> u128 {
        self.free.iter().fold(0, |sum, span| sum.saturating_add(span.count()))
    }

    /// Tells whether it hands out the address at `offset` by itself.
    pub(super) fn hands_out(&self, offset: u128) -> bool {
        self.span_at(offset).is_some_and(|span| span.first <= offset)
    }

    /// Returns the first run of addresses that ends at `offset` or after it.
    pub(super) fn span_at(&self, offset: u128) -> Option<Span> {
        self.free.get(self.free.partition_point(|span| span.last < offset)).copied()
    }

    /// Tells why nobody can have an address, or returns its offset.
    pub(super) fn offset_for_lease(&self, ip: IpAddr) -> std::result::Result<u128, String> {
        let offset = self.subnet.offset(ip).ok_or_else(|| format!("it lies outside of `{}`", self.subnet))?;
        if let Some(why) = self.subnet.unusable(offset) {
            return Err(why.into());
        }
        if self.gateway == Some(offset) {
            return Err("it is the gateway's".into());
        }
        match self.reserved.iter().find(|(span, _)| (span.first..=span.last).contains(&offset)) {
            Some((_, range)) if range.first == range.last => Err("it is reserved".into()),
            Some((_, range)) => Err(format!("it is reserved, with `{range}`")),
            None => Ok(offset),
        }
    }
}

/// Returns what is left of `whole` without `taken`, ascending.
pub(crate) fn without(whole: Span, mut taken: Vec<Span>) -> Vec<Span> {
    taken.sort_unstable();
    let mut left = Vec::new();
    let mut from = whole.first;
    for span in taken {
        if span.first > whole.last {
            break;
        }
        if span.first > from {
            left.push(Span { first: from, last: span.first - 1 });
        }
        match span.last.checked_add(1) {
            Some(next) if next <= whole.last => from = from.max(next),
            _ => return left,
        }
    }
    left.push(Span { first: from, last: whole.last });
    left
}

/// Checks the owner of a pool or of a lease: any text on one line, not empty, of at most 255 bytes.
pub(super) fn check_owner(owner: &str) -> Result<()> {
    let because = if owner.is_empty() {
        "it is empty".to_string()
    } else if owner.len() > OWNER_MAX {
        format!("it has {} bytes, at most {OWNER_MAX} are allowed", owner.len())
    } else if let Some(wrong) = owner.chars().find(|c| c.is_control()) {
        format!("{wrong:?} is not allowed in it")
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("take `{}` as an owner", crate::state::name::shown(owner))).because(because))
}

/// Returns the first subnet of `prefix` bits in `within` that has no address of `taken`; nothing where there is none.
pub(super) fn first_free(within: Subnet, prefix: u8, taken: &[IpNetwork]) -> Option<Subnet> {
    let v4 = within.net().is_ipv4();
    let taken = taken.iter().filter(|net| net.is_ipv4() == v4).map(span).collect();
    let hosts = super::subnet::ones(super::subnet::bits_of(within.net().ip()).saturating_sub(prefix));
    // A free run has room where a multiple of the size lies in it with all that follows.
    without(within.span(), taken).into_iter().find_map(|free| {
        let first = if free.first & hosts == 0 { free.first } else { (free.first | hosts).checked_add(1)? };
        let fits = first <= free.last && free.last - first >= hosts;
        let net = || IpNetwork::new(super::subnet::address(v4, first), prefix).ok();
        fits.then(net).flatten().and_then(|net| Subnet::of(net).ok())
    })
}
