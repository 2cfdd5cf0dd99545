//! Ping, built in: ICMP and ICMPv6 echoes from a socket inside the namespace.

use std::net::IpAddr;
use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::Group;
use super::context::{RhaiResultOf, with_lab};
use super::handles::NetnsHandle;
use super::options::options;
use super::target::{Host, address, device};
use super::units::{self, Count, DevOrName, Size, Ttl};
use crate::lab::{Error, Lab, Result};
use crate::net;

pub(super) const GROUP: Group = Group {
    name: "ping",
    about: "Whether an address answers.",
    module: || exported_module!(functions),
    steps: &[],
    options: &[PingOptions::SET],
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
    let report = kernel.run_unless_caught(&doing, net::ping(&netns, &ping)).map_err(failed)?;
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
#[export_module]
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
}
