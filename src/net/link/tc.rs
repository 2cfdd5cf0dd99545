//! Queueing disciplines: what leaves a link is slowed down, delayed, lost, doubled or reordered.
//!
//! A rate is kept by `tbf`: it takes apart what TCP hands over in one piece of up to 64 KiB, and its queue is measured in bytes, so
//! that packets leave one by one as they do on a real line. `netem` keeps a rate too, but with a piece as one packet, behind which all
//! others wait, and with a queue of so many of these. All else is `netem`'s. With both, `netem` is the root and `tbf` below it:
//! the other way round a packet would wait in the queue of the rate during its delay, instead of after it.

use std::fmt;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use serde::{Deserialize, Serialize};

use crate::net::netlink::{self, rtnl};
use crate::net::{Error, Netlink, Result};

/// The handles by which ours are known: `54:` and `55:` in the words of `tc`.
const NETEM: u16 = 0x54;
const TBF: u16 = 0x55;

/// The handle that kernels give to what nobody asked for (net/sched/sch_generic.c).
const BY_ITSELF: u32 = 0;

/// An Ethernet header, which counts as part of a packet.
const HEADER_BYTES: u64 = 14;

/// How what leaves a link is shaped; what is zero or `None` is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// The rate in bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_bits: Option<u64>,
    /// What may leave at once after a pause, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_bytes: Option<u32>,
    /// How much later each packet leaves.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_ns: u64,
    /// By how much the delay varies, to both sides.
    #[serde(skip_serializing_if = "is_zero")]
    pub jitter_ns: u64,
    /// The share of packets that are lost, in percent.
    #[serde(skip_serializing_if = "is_none")]
    pub loss: f64,
    /// The share of packets that are sent twice, in percent.
    #[serde(skip_serializing_if = "is_none")]
    pub duplicate: f64,
    /// The share of packets that leave at once, before those that are delayed, in percent.
    #[serde(skip_serializing_if = "is_none")]
    pub reorder: f64,
    /// The share of packets in which one bit is wrong, in percent.
    #[serde(skip_serializing_if = "is_none")]
    pub corrupt: f64,
    /// How many packets wait at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_packets: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(share: &f64) -> bool {
    *share == 0.0
}

impl Shape {
    /// Tells whether it takes `netem`.
    pub fn needs_netem(&self) -> bool {
        let shares = [self.loss, self.duplicate, self.reorder, self.corrupt];
        self.delay_ns > 0 || self.jitter_ns > 0 || shares.iter().any(|share| *share > 0.0)
    }

    /// Returns the rate alone, if it is all that is asked for beside a loss.
    pub fn without_loss(&self) -> Option<Shape> {
        let rest = Shape { loss: 0.0, ..*self };
        (!rest.needs_netem()).then_some(rest)
    }

    /// Returns how many packets `netem` holds: all that are under way during the longest delay, if they are short.
    fn netem_limit(&self) -> u32 {
        /// The kernel's own, of net/sched/sch_netem.c's users.
        const LEAST: u64 = 1000;
        const MOST: u64 = 100_000;
        /// What a link of veths carries, and what packets have on average if they are short.
        const PACKETS_PER_S: u64 = 500_000;
        const SHORT_BITS: u64 = 8 * 200;
        if let Some(limit) = self.limit_packets {
            return limit;
        }
        let per_s = self.rate_bits.map_or(PACKETS_PER_S, |rate| (rate / SHORT_BITS).min(PACKETS_PER_S));
        let under_way = u128::from(self.delay_ns + self.jitter_ns) * u128::from(per_s) / 1_000_000_000;
        u32::try_from(under_way).unwrap_or(u32::MAX).clamp(LEAST as u32, MOST as u32)
    }

    /// Returns the burst of `tbf` in bytes: what leaves in 20 ms, so that a machine that is busy for a moment catches up, and
    /// two packets at least.
    fn burst(&self, rate_bits: u64, mtu: u32) -> u32 {
        let least = 2 * (u64::from(mtu) + HEADER_BYTES);
        let usual = (rate_bits / 8 / 50).max(least);
        self.burst_bytes.unwrap_or(u32::try_from(usual).unwrap_or(u32::MAX))
    }

    /// Tells whether `now`, as the kernel has it, is this shape: it keeps rates in bytes a second, shares in parts of 2^32, and counts
    /// times in ticks.
    pub fn is(&self, now: &Shape) -> bool {
        let rate = |shape: &Shape| shape.rate_bits.map(|bits| bits / 8);
        let near = |a: u64, b: u64, within: u64| a.abs_diff(b) <= within;
        let shares = |shape: &Shape| [shape.loss, shape.duplicate, shape.reorder, shape.corrupt];
        let burst = match (self.burst_bytes, now.burst_bytes) {
            (Some(wanted), Some(now)) => near(wanted.into(), now.into(), u64::from(wanted) / 50 + 1),
            (wanted, _) => wanted.is_none(),
        };
        rate(self) == rate(now)
            && near(self.delay_ns, now.delay_ns, 1000)
            && near(self.jitter_ns, now.jitter_ns, 1000)
            && shares(self).iter().zip(shares(now)).all(|(wanted, now)| (wanted - now).abs() < 0.01)
            && burst
    }

    /// Returns how many bytes wait at most before `tbf` lets them go: those of 100 ms, and of 32 packets at least.
    fn queue(&self, rate_bits: u64, mtu: u32) -> u32 {
        let packet = u64::from(mtu) + HEADER_BYTES;
        let usual = (rate_bits / 8 / 10).max(32 * packet);
        // The limit of `tbf` counts the burst in where `tc` writes it by its latency; here it is the queue alone.
        let bytes = self.limit_packets.map_or(usual, |limit| u64::from(limit) * packet);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Returns the `tc` commands that do the same, without `tc` itself; `None` takes a shape away.
    pub fn like(shape: Option<&Shape>, dev: &str, mtu: u32) -> Vec<String> {
        let Some(shape) = shape else { return vec![format!("qdisc del dev {dev} root")] };
        let mut lines = Vec::new();
        let mut place = format!("root handle {TBF:x}:");
        if shape.needs_netem() {
            lines.push(format!(
                "qdisc replace dev {dev} root handle {NETEM:x}: netem limit {}{shape}",
                shape.netem_limit()
            ));
            place = format!("parent {NETEM:x}:1 handle {TBF:x}:");
        }
        if let Some(rate) = shape.rate_bits {
            let (burst, limit) = (shape.burst(rate, mtu), shape.queue(rate, mtu));
            lines.push(format!("qdisc replace dev {dev} {place} tbf rate {rate}bit burst {burst} limit {limit}"));
        }
        lines
    }
}

/// Writes what is `netem`'s as `tc` does.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: u64| format!("{}us", ns as f64 / 1000.0);
        if self.delay_ns > 0 || self.jitter_ns > 0 {
            write!(f, " delay {}", us(self.delay_ns))?;
        }
        if self.jitter_ns > 0 {
            write!(f, " {}", us(self.jitter_ns))?;
        }
        let shares =
            [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder), ("corrupt", self.corrupt)];
        shares.iter().filter(|(_, share)| *share > 0.0).try_for_each(|(word, share)| write!(f, " {word} {share}%"))
    }
}

/// What stands at the root of a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Root {
    /// What the kernel put there by itself.
    Default,
    /// A shape of ours.
    Ours(Shape),
    /// Something that others put there, as `tc` names it.
    Foreign(String),
}

/// One queueing discipline as the kernel lists it.
#[derive(Debug)]
struct Qdisc {
    handle: u32,
    parent: u32,
    kind: String,
    options: Vec<u8>,
}

/// Reads what stands at the root of a link.
///
/// Like `tc qdisc show dev LINK`.
pub fn root(rtnl: &Netlink, index: u32) -> Result<Root> {
    let qdiscs = list(rtnl, index)?;
    let at_root = qdiscs.iter().find(|qdisc| qdisc.parent == u32::from(TcHandle::ROOT));
    let Some(found) = at_root.filter(|qdisc| qdisc.handle != BY_ITSELF) else { return Ok(Root::Default) };
    let is = |qdisc: &Qdisc, kind: &str, major: u16| qdisc.kind == kind && qdisc.handle == u32::from(major) << 16;
    if !is(found, "netem", NETEM) && !is(found, "tbf", TBF) {
        return Ok(Root::Foreign(format!("{} {:x}:", found.kind, found.handle >> 16)));
    }
    let mut shape = Shape::default();
    for qdisc in &qdiscs {
        if is(qdisc, "netem", NETEM) {
            read_netem(&qdisc.options, &mut shape);
        } else if is(qdisc, "tbf", TBF) {
            read_tbf(&qdisc.options, &mut shape);
        }
    }
    Ok(Root::Ours(shape))
}

/// Shapes what leaves a link, or no longer does; what was shaped by us before is changed in place where it can be.
///
/// Like `tc qdisc replace dev LINK root …`. EOPNOTSUPP where the kernel lacks `netem` or `tbf`.
pub fn set(rtnl: &Netlink, index: u32, mtu: u32, shape: Option<&Shape>) -> Result<()> {
    let qdiscs = list(rtnl, index)?;
    let has = |major: u16| qdiscs.iter().find(|qdisc| qdisc.handle == u32::from(major) << 16);
    let is_root = |qdisc: &&Qdisc| qdisc.parent == u32::from(TcHandle::ROOT);
    let (netem, tbf) = (has(NETEM).filter(is_root), has(TBF));
    let Some(shape) = shape else {
        let Some(ours) = netem.or(tbf.filter(is_root)) else { return Ok(()) };
        let (major, doing) = ((ours.handle >> 16) as u16, format!("take the shape from link {index}"));
        let message = message(index, TcHandle::ROOT, major, &ours.kind, None);
        return rtnl.change(&doing, RouteNetlinkMessage::DelQueueDiscipline(message), 0);
    };
    let doing = format!("shape link {index}");
    let put = |parent: TcHandle, major: u16, kind: &str, options: Vec<u8>| {
        let message = message(index, parent, major, kind, Some(options));
        let how = NLM_F_CREATE | NLM_F_REPLACE;
        let done = rtnl.change(&doing, RouteNetlinkMessage::NewQueueDiscipline(message), how);
        // A kernel that doesn't know the kind says ENOENT.
        done.map_err(|error| match error.errno() {
            libc::ENOENT => Error::new(&doing, libc::EOPNOTSUPP).saying(format!("no queueing discipline `{kind}`")),
            _ => error,
        })
    };
    // A `netem` that is no longer needed stays as one that does nothing: taken away, it would take its queue along.
    let below = shape.needs_netem() || netem.is_some();
    let inner = TcHandle { major: NETEM, minor: 1 };
    if below {
        put(TcHandle::ROOT, NETEM, "netem", netem_options(shape))?;
    }
    match shape.rate_bits {
        Some(rate) => {
            let parent = if below { inner } else { TcHandle::ROOT };
            put(parent, TBF, "tbf", tbf_options(rate, shape.burst(rate, mtu), shape.queue(rate, mtu)))
        }
        // The root that it was has gone with the new one.
        None if tbf.is_some_and(|qdisc| !is_root(&qdisc)) => {
            let message = message(index, inner, TBF, "tbf", None);
            rtnl.change(&doing, RouteNetlinkMessage::DelQueueDiscipline(message), 0)
        }
        None => Ok(()),
    }
}

fn message(index: u32, parent: TcHandle, major: u16, kind: &str, options: Option<Vec<u8>>) -> TcMessage {
    /// TCA_OPTIONS of linux/rtnetlink.h. Those of both kinds are not all attributes, which the packet crate takes them for.
    const TCA_OPTIONS: u16 = 2;
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent;
    message.header.handle = TcHandle { major, minor: 0 };
    message.attributes.push(TcAttribute::Kind(kind.to_string()));
    message.attributes.extend(options.map(|bytes| TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, bytes))));
    message
}

/// Writes one attribute.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    netlink::put(&mut bytes, kind, |bytes| bytes.extend_from_slice(value));
    bytes
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// Of linux/pkt_sched.h.
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;

/// Returns a share of packets as the kernel counts it: of all 32 bits.
fn probability(percent: f64) -> u32 {
    (percent / 100.0 * f64::from(u32::MAX)).round() as u32
}

/// Returns the share again, without what the rounding added.
fn percent(probability: u32) -> f64 {
    let exact = f64::from(probability) / f64::from(u32::MAX) * 100.0;
    (exact * 1e6).round() / 1e6
}

/// Writes the options of `netem`: `struct tc_netem_qopt`, then attributes. All of them each time: a change leaves those alone that
/// it doesn't name.
fn netem_options(shape: &Shape) -> Vec<u8> {
    // The times in the structure are of 64 ns, and give way to those in the attributes.
    let gap = u32::from(shape.reorder > 0.0);
    let mut bytes = words(&[0, shape.netem_limit(), probability(shape.loss), gap, probability(shape.duplicate), 0]);
    bytes.extend(attribute(TCA_NETEM_REORDER, &words(&[probability(shape.reorder), 0])));
    bytes.extend(attribute(TCA_NETEM_CORRUPT, &words(&[probability(shape.corrupt), 0])));
    bytes.extend(attribute(TCA_NETEM_LATENCY64, &shape.delay_ns.to_ne_bytes()));
    bytes.extend(attribute(TCA_NETEM_JITTER64, &shape.jitter_ns.to_ne_bytes()));
    bytes
}

/// Writes the options of `tbf`: `struct tc_tbf_qopt` in an attribute, with the rate in 32 bits as far as it fits.
fn tbf_options(rate_bits: u64, burst: u32, limit: u32) -> Vec<u8> {
    /// TC_LINKLAYER_ETHERNET: the kernel reckons by itself, without a table of ours.
    const ETHERNET: u8 = 1;
    let rate = rate_bits / 8;
    let mut parms = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parms.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    // No rate of peaks. The burst as a time gives way to the one in bytes.
    parms.extend([0; 12]);
    parms.extend(words(&[limit, 0, 0]));
    let mut bytes = attribute(TCA_TBF_PARMS, &parms);
    if u32::try_from(rate).is_err() {
        bytes.extend(attribute(TCA_TBF_RATE64, &rate.to_ne_bytes()));
    }
    bytes.extend(attribute(TCA_TBF_BURST, &burst.to_ne_bytes()));
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    netlink::word(bytes, at).unwrap_or(0)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

fn read_netem(options: &[u8], shape: &mut Shape) {
    /// `struct tc_netem_qopt`.
    const HEAD: usize = 24;
    shape.limit_packets = Some(u32_at(options, 4));
    shape.loss = percent(u32_at(options, 8));
    shape.duplicate = percent(u32_at(options, 16));
    for (kind, value) in netlink::attributes(options.get(HEAD..).unwrap_or_default()) {
        match kind {
            TCA_NETEM_REORDER => shape.reorder = percent(u32_at(value, 0)),
            TCA_NETEM_CORRUPT => shape.corrupt = percent(u32_at(value, 0)),
            TCA_NETEM_LATENCY64 => shape.delay_ns = u64_at(value, 0),
            TCA_NETEM_JITTER64 => shape.jitter_ns = u64_at(value, 0),
            _ => {}
        }
    }
}

fn read_tbf(options: &[u8], shape: &mut Shape) {
    let (mut rate, mut buffer) = (0, 0);
    for (kind, value) in netlink::attributes(options) {
        match kind {
            TCA_TBF_PARMS => {
                rate = u64::from(u32_at(value, 8)).max(rate);
                // Of 64 ns.
                buffer = u64::from(u32_at(value, 28)) * 64;
            }
            TCA_TBF_RATE64 => rate = u64_at(value, 0),
            _ => {}
        }
    }
    shape.rate_bits = Some(rate * 8);
    shape.burst_bytes = u32::try_from(u128::from(buffer) * u128::from(rate) / 1_000_000_000).ok();
}

/// Lists the queueing disciplines of a link. Not as the packet crate reads them, which can't read what `netem` says.
fn list(rtnl: &Netlink, index: u32) -> Result<Vec<Qdisc>> {
    let doing = format!("list the queueing disciplines of link {index}");
    let request = rtnl::written(&RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), 0);
    let of_link = |body: &[u8]| netlink::word(body, 4) == Some(index);
    rtnl.dump(&doing, &request, |_, body| Ok(of_link(body).then(|| read(body))))
}

fn read(body: &[u8]) -> Qdisc {
    /// `struct tcmsg`.
    const HEAD: usize = 20;
    let mut qdisc =
        Qdisc { handle: u32_at(body, 8), parent: u32_at(body, 12), kind: String::new(), options: Vec::new() };
    for (kind, value) in netlink::attributes(body.get(HEAD..).unwrap_or_default()) {
        match kind {
            1 => qdisc.kind = String::from_utf8_lossy(value).trim_end_matches('\0').to_string(),
            2 => qdisc.options = value.to_vec(),
            _ => {}
        }
    }
    qdisc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, netns_and_rtnl, pair};

    #[test]
    fn a_rate_is_set_changed_in_place_read_and_taken_away() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            pair(&rtnl, (&netns, "a", 1001), (&netns, "b", 1002)).await;
            assert_eq!(root(&rtnl, 1001).expect("read"), Root::Default);
            for rate_bits in [8_000_000, 10_000_000, 100_000_000_000] {
                let shape = Shape { rate_bits: Some(rate_bits), ..Shape::default() };
                set(&rtnl, 1001, 1500, Some(&shape)).expect("shaped");
                let Root::Ours(now) = root(&rtnl, 1001).expect("read") else { panic!("not ours") };
                assert_eq!(now.rate_bits, Some(rate_bits));
            }
            set(&rtnl, 1001, 1500, None).expect("taken away");
            assert_eq!(root(&rtnl, 1001).expect("read"), Root::Default);
            set(&rtnl, 1001, 1500, None).expect("twice");
        });
    }

    #[test]
    fn a_kernel_without_netem_says_so() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            pair(&rtnl, (&netns, "a", 1001), (&netns, "b", 1002)).await;
            let shape = Shape { delay_ns: 1_000_000, ..Shape::default() };
            match set(&rtnl, 1001, 1500, Some(&shape)) {
                Ok(()) => {
                    assert!(matches!(root(&rtnl, 1001).expect("read"), Root::Ours(now) if now.delay_ns == 1_000_000))
                }
                Err(error) => assert!(error.is_unsupported(), "{error:?}"),
            }
        });
    }

    /// What this machine's kernel may lack is compared with what linux/pkt_sched.h says.
    #[test]
    fn netem_is_asked_for_in_the_kernels_words_and_read_again() {
        let shape = Shape {
            delay_ns: 15_000_000,
            jitter_ns: 2_000_000,
            loss: 1.0,
            duplicate: 2.0,
            reorder: 25.0,
            corrupt: 0.1,
            limit_packets: Some(77),
            ..Shape::default()
        };
        let bytes = netem_options(&shape);
        assert_eq!(bytes[..24], words(&[0, 77, 42_949_673, 1, 85_899_346, 0]));
        assert_eq!(bytes[24..36], [[12_u16, 3].map(u16::to_ne_bytes).concat(), words(&[1_073_741_824, 0])].concat());
        let mut again = Shape::default();
        read_netem(&bytes, &mut again);
        assert_eq!(again, shape);
    }
}
