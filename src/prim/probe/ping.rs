//! Ping, built in: ICMP and ICMPv6 echoes from a socket inside the namespace.

use std::net::IpAddr;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};

use super::target::{Host, Results, address, device};
use crate::lab::Lab;
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{self, Count, DevOrName, FromScript, Size, Ttl};
use crate::state::{Error, NetnsRef, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "ping",
    about: "Whether an address answers.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[PingOptions::SET, PingAllOptions::SET],
};

options! {
    /// Options of `ping`.
    pub struct PingOptions of "ping" {
        /// How many echoes are sent; 1 unless given.
        count: Count,
        /// How long between two of them; 200ms unless given.
        interval: Duration,
        /// How long the whole may take; the intervals and 1s unless given.
        deadline: Duration,
        /// The bytes of payload; 56 unless given.
        size: Size,
        /// The hop limit; the kernel's own unless given, usually 64.
        ttl: Ttl,
        /// Whether routers may not break it into fragments; false unless given.
        dont_fragment: bool,
        /// The source address.
        src: IpAddr,
        /// The device that it leaves by, as a link-local IPv6 address needs it.
        dev: DevOrName,
    }
}

options! {
    /// Options of `ping_all`.
    pub struct PingAllOptions of "ping_all" {
        /// How long one pair may take; 1s unless given. Where there are hundreds, or the machine is busy, late ones are asked again.
        deadline: Duration,
        /// 4 or 6, for addresses of that version alone.
        version: Version,
        /// The addresses by which the netns are asked, one for each in their order; the nearest of each unless given.
        addresses: Addresses,
    }
}

/// Addresses in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<IpAddr>);

impl FromScript for Addresses {
    const WHAT: &'static str = r#"a list of addresses such as ["10.0.0.1", "10.0.0.2"]"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = value.into_array().map_err(|_| String::new())?;
        list.into_iter().map(IpAddr::from_script).collect::<std::result::Result<_, _>>().map(Addresses)
    }
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(bool);

impl Version {
    /// Tells whether it is IPv6.
    pub fn is_6(self) -> bool {
        self.0
    }
}

impl FromScript for Version {
    const WHAT: &'static str = "4 or 6";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        match value.as_int() {
            Ok(4) => Ok(Version(false)),
            Ok(6) => Ok(Version(true)),
            _ => Err(String::new()),
        }
    }
}

fn ping_all(lab: &mut Lab, list: Array, options: Map) -> Result<Map> {
    let options = PingAllOptions::parse(options)?;
    let doing = "ping all pairs";
    let mut hosts: Vec<NetnsRef> = Vec::new();
    for value in list {
        let netns: NetnsHandle = units::argument(doing, value)?;
        let at = netns.living(lab)?;
        if hosts.iter().any(|host| host.no == at.no) {
            return Err(Error::invalid(doing).because(format!("`{}` is in the list twice", at.name)));
        }
        hosts.push(at);
    }
    if hosts.len() < 2 {
        return Err(Error::invalid(doing).because("it takes two netns or more"));
    }
    let asked = options.addresses.map(|addresses| addresses.0);
    if let Some(asked) = asked.as_ref().filter(|asked| asked.len() != hosts.len()) {
        let because = format!("there are {} addresses for {} netns", asked.len(), hosts.len());
        return Err(Error::invalid(doing).because(because));
    }
    let (kernel, _) = lab.settled()?;
    let failed = |source: net::Error| Error::kernel(doing, &source);
    let mut opened = Vec::new();
    for (number, at) in hosts.iter().enumerate() {
        let rtnl = kernel.rtnl(at).map_err(failed)?;
        let addresses = net::ip::addr::list(&rtnl).map_err(failed)?;
        let neighbours = net::ip::neigh::list(&rtnl).map_err(failed)?;
        let netns = kernel.netns(at).map_err(failed)?;
        let wanted = asked.as_ref().map(|asked| asked[number]);
        opened.push(net::PingHost::open(&netns, addresses, &neighbours, wanted).map_err(failed)?);
    }
    let ask = net::PingAll {
        v6: options.version.map(|version| version.0),
        deadline: options.deadline.unwrap_or(Duration::from_secs(1)),
    };
    let began = std::time::Instant::now();
    let report = lab.wait_for(doing, net::ping_all(opened, &ask)).map_err(failed)?;
    let lost = report.lost.len();
    let row = |lost: &net::probe::ping_all::Lost| {
        let row =
            Results::default().with("from", hosts[lost.from].name.clone()).with("to", hosts[lost.to].name.clone());
        Dynamic::from(row.maybe("ip", lost.ip.map(|ip| ip.to_string())).with("why", lost.why.clone()).map())
    };
    let failed: Array = report.lost.iter().map(row).collect();
    let why = report.lost.first().map(|first| {
        let (from, to) = (&hosts[first.from].name, &hosts[first.to].name);
        format!("{lost} of {} pairs failed, the first of them `{from}` to `{to}`: {}", report.pairs, first.why)
    });
    Ok(Results::default()
        .with("ok", lost == 0)
        .with("pairs", report.pairs as i64)
        .with("sent", report.sent as i64)
        .with("lost", lost as i64)
        .with("pairs_failed", failed)
        .ms("time_ms", Some(began.elapsed()))
        .maybe("why", why)
        .map())
}

fn ping(lab: &mut Lab, netns: &NetnsHandle, to: Dynamic, options: Map) -> Result<Map> {
    let options = PingOptions::parse(options)?;
    let at = netns.living(lab)?;
    let to: Host = units::argument(&format!("ping from netns `{}`", at.name), to)?;
    let doing = format!("ping `{to}` from netns `{}`", at.name);
    let to = address(lab, &at, &to, &doing, options.src.map(|src| src.is_ipv6()))?;
    let mut ping = net::Ping::new(to);
    ping.count = options.count.map_or(ping.count, |count| count.0);
    ping.interval = options.interval.unwrap_or(ping.interval);
    let patient = ping.interval.saturating_mul(ping.count.saturating_sub(1)) + Duration::from_secs(1);
    ping.deadline = options.deadline.unwrap_or(patient);
    ping.size = options.size.map_or(ping.size, |size| size.0 as usize);
    ping.ttl = options.ttl.map(|ttl| ttl.0);
    ping.dont_fragment = options.dont_fragment.unwrap_or(false);
    ping.src = options.src;
    ping.dev = device(lab, netns, options.dev)?;
    if options.src.is_some_and(|src| src.is_ipv4() != to.is_ipv4()) {
        return Err(Error::invalid(doing).because("`src` is of another family"));
    }
    let (kernel, _) = lab.settled()?;
    let failed = |source: net::Error| Error::kernel(doing.clone(), &source);
    let netns = kernel.netns(&at).map_err(failed)?;
    let report = lab.wait_for(&doing, net::ping(&netns, &ping)).map_err(failed)?;
    Ok(as_map(&report))
}

fn as_map(report: &net::PingReport) -> Map {
    let ms = |time: Duration| Dynamic::from(time.as_secs_f64() * 1e3);
    let lost = report.sent.saturating_sub(report.received);
    let average = report.rtt.iter().sum::<Duration>().checked_div(report.rtt.len() as u32);
    Map::from_iter([
        ("ok".into(), (report.received > 0).into()),
        ("sent".into(), i64::from(report.sent).into()),
        ("received".into(), i64::from(report.received).into()),
        ("duplicates".into(), i64::from(report.duplicates).into()),
        ("loss_percent".into(), (f64::from(lost) * 100.0 / f64::from(report.sent.max(1))).into()),
        ("rtt_min_ms".into(), report.rtt.iter().min().copied().map_or(Dynamic::UNIT, ms)),
        ("rtt_avg_ms".into(), average.map_or(Dynamic::UNIT, ms)),
        ("rtt_max_ms".into(), report.rtt.iter().max().copied().map_or(Dynamic::UNIT, ms)),
        ("why".into(), report.refused.clone().map_or_else(|| why(report), Dynamic::from)),
    ])
}

/// Says why nothing came back, where nobody said so.
fn why(report: &net::PingReport) -> Dynamic {
    match report.received {
        0 => {
            Dynamic::from(format!("no answer to {} {}", report.sent, if report.sent == 1 { "echo" } else { "echoes" }))
        }
        _ => Dynamic::UNIT,
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sends echoes to an address and returns what came back: `#{ ok, sent, received, duplicates, loss_percent, rtt_min_ms,
    /// rtt_avg_ms, rtt_max_ms, why }`.
    ///
    /// `ok` is true where at least one was answered; `why` says what was refused, or that nothing was heard. The round-trip
    /// times are `()` where there was no answer. Instead of an address there may be a netns or its name: the address is then one of its
    /// own to which there is a route.
    ///
    /// Like `ip netns exec NETNS ping -c COUNT -i INTERVAL -w DEADLINE ADDRESS`, without the binary (RFC 792, RFC 4443).
    ///
    /// Fails with `invalid` for what is no IP address, and with `missing` for a name that no netns of the lab has: other names are not
    /// looked up. No answer is a result, not a failure.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let p = h.ping("127.0.0.1", #{ count: 3, interval: "10ms" });
    /// assert(p.ok && p.received == 3 && p.loss_percent == 0.0);
    /// assert(!h.ping("192.0.2.1").ok);
    /// ```
    #[rhai_fn(name = "ping", return_raw)]
    pub fn ping_with(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| ping(lab, &netns, to, options))
    }

    /// Sends one echo to an address.
    #[rhai_fn(name = "ping", return_raw)]
    pub fn ping_once(ctx: NativeCallContext, netns: NetnsHandle, to: Dynamic) -> RhaiResultOf<Map> {
        ping_with(ctx, netns, to, Map::new())
    }

    /// Sends an echo from each of some netns to each other one, and returns who doesn't reach whom:
    /// `#{ ok, pairs, sent, lost, pairs_failed: [#{ from, to, ip, why }], time_ms, why }`.
    ///
    /// `pairs` counts both directions, `sent` also what was sent again where the first got lost; `lost` are the pairs without an answer.
    /// The address is the nearest that the other one has, unless `addresses` says it: on the same link before others, IPv4 before IPv6. As many are under way at a
    /// time as the network bears. What more than some hundred pairs make the kernel's neighbour tables learn is taken out again, since
    /// those have room for 1024 in all namespaces together. Where a few of hundreds of pairs are late, or the machine is busy, they are
    /// asked again twice when all others are done: what one machine can't do at once is no loss of the network.
    ///
    /// Like `pingall` of Mininet, or `ping -c 1` in two loops.
    ///
    /// Fails with `invalid` for less than two netns, one that is there twice, or another number of addresses. No answer is a result, not a failure.
    ///
    /// ```rhai
    /// let hosts = ["h1", "h2", "h3"].map(|name| netns(name));
    /// let sw = bridge("sw0");
    /// for (h, i) in hosts {
    ///     veth(h["eth0"], sw);
    ///     h["eth0"].addr(`10.0.0.${i + 1}/24`);
    /// }
    /// let all = ping_all(hosts);
    /// assert(all.ok && all.pairs == 6 && all.lost == 0);
    /// ```
    #[rhai_fn(name = "ping_all", return_raw)]
    pub fn ping_all_with(ctx: NativeCallContext, hosts: Array, options: Map) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| ping_all(lab, hosts, options))
    }

    /// Sends an echo from each of some netns to each other one.
    #[rhai_fn(name = "ping_all", return_raw)]
    pub fn ping_all_plain(ctx: NativeCallContext, hosts: Array) -> RhaiResultOf<Map> {
        ping_all_with(ctx, hosts, Map::new())
    }
}
