//! What leaves a device: how fast, how late, and what of it is lost.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::whole;
use crate::lab::{DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort};
use crate::net::link::tc::{self, Root};
use crate::net::{self, Shape, nft};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::value::handles::Dev;
use crate::prim::value::options::options;
use crate::prim::value::quantity::{Bytes, Percent, Rate, rate_text, time_text};
use crate::prim::value::units::Count;
use crate::state::{DevRef, Error, Place, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "shape",
    about: "What leaves a device: how fast, how late, and what of it is lost.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(ShapeDev)],
    options: &[ShapeOptions::SET],
};

options! {
    /// Options of `shape`.
    pub struct ShapeOptions of "shape" {
        /// The rate at which it leaves, Ethernet headers counted in.
        rate: Rate,
        /// What may leave at once after a pause; what the rate carries in 20 ms unless given.
        burst: Bytes,
        /// How much later each packet leaves.
        delay: Duration,
        /// By how much the delay varies, to both sides, which also changes the order of packets.
        jitter: Duration,
        /// The share of packets that are lost.
        loss: Percent,
        /// The share of packets that are sent twice.
        duplicate: Percent,
        /// The share of packets that leave without the delay, and so before others.
        reorder: Percent,
        /// The share of packets in which one bit is turned over.
        corrupt: Percent,
        /// How many packets wait at most; for a rate, those of 100 ms unless given.
        limit: Count,
    }
}

impl ShapeOptions {
    /// Returns the shape; one that asks for nothing is an error, as is what needs another option.
    fn shape(&self, doing: &str) -> Result<Shape> {
        let ns = |time: Option<Duration>| {
            let ns = time.map_or(0, |time| time.as_nanos());
            // A longer one overflows where the kernel adds it to the clock.
            u64::try_from(ns).ok().filter(|ns| *ns <= 3600 * 1_000_000_000)
        };
        let share = |percent: Option<Percent>| percent.map_or(0.0, |percent| percent.0);
        let wrong = |because: &str| Error::invalid(doing.to_string()).because(because);
        let too_long = || wrong("a delay is an hour at most");
        let shape = Shape {
            rate_bits: self.rate.map(|rate| rate.0),
            burst_bytes: self.burst.map(|burst| burst.0),
            delay_ns: ns(self.delay).ok_or_else(too_long)?,
            jitter_ns: ns(self.jitter).ok_or_else(too_long)?,
            loss: share(self.loss),
            duplicate: share(self.duplicate),
            reorder: share(self.reorder),
            corrupt: share(self.corrupt),
            limit_packets: self.limit.map(|limit| limit.0),
        };
        if shape.burst_bytes.is_some() && shape.rate_bits.is_none() {
            return Err(wrong("`burst` is of a `rate`, which isn't given"));
        }
        if shape.jitter_ns > shape.delay_ns {
            return Err(wrong("`jitter` varies the `delay` to both sides, so it is no more than that"));
        }
        if shape.reorder > 0.0 && shape.delay_ns == 0 {
            return Err(wrong(
                "`reorder` lets packets leave before those that wait for their `delay`, which isn't given",
            ));
        }
        if shape.rate_bits.is_none() && !shape.needs_netem() {
            return Err(wrong("it asks for nothing").hint("`shape(())` takes a shape away"));
        }
        Ok(shape)
    }
}

/// Shapes what leaves a device, or no longer does.
#[derive(Debug, Serialize, Deserialize)]
struct ShapeDev {
    dev: DevRef,
    shape: Option<Shape>,
    before: Option<Shape>,
    /// The other end of the cable, where packets are lost on a kernel without `netem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    far_end: Option<DevRef>,
}

impl ShapeDev {
    fn put(&self, kernel: &mut Kernel, shape: Option<&Shape>) -> net::Result<()> {
        let Some(link) = kernel.link(&self.dev)? else {
            return Err(net::Error::new(self.doing(), libc::ENODEV));
        };
        let rtnl = kernel.rtnl(&self.dev.netns)?;
        match tc::set(&rtnl, link.index, link.mtu, shape) {
            Err(error) if error.is_unsupported() => {
                let alone = shape.and_then(|shape| Some((shape.loss, shape.without_loss()?, self.far_end.as_ref()?)));
                let Some((loss, rest, far_end)) = alone.filter(|(loss, ..)| *loss > 0.0) else { return Err(error) };
                let rest = rest.rate_bits.is_some().then_some(rest);
                tc::set(&rtnl, link.index, link.mtu, rest.as_ref())?;
                let (there, mark) = (kernel.netns(&far_end.netns)?, kernel.mark().to_string());
                nft::drop_incoming(&there, &table_of(far_end), &mark, &name::kernel_name(&far_end.name), loss)
            }
            done => done.and_then(|()| self.lose_nothing(kernel)),
        }
    }

    /// Takes away what loses packets at the far end, if that is there.
    fn lose_nothing(&self, kernel: &mut Kernel) -> net::Result<()> {
        if !self.is_lossy() {
            return Ok(());
        }
        let Some(far_end) = &self.far_end else { return Ok(()) };
        match kernel.netns(&far_end.netns) {
            Ok(there) => nft::drop_nothing(&there, &table_of(far_end)),
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells whether the shape loses packets, or the one before it.
    fn is_lossy(&self) -> bool {
        [&self.shape, &self.before].into_iter().flatten().any(|shape| shape.loss > 0.0)
    }
}

/// Names the table that loses what comes in by a device.
fn table_of(far_end: &DevRef) -> String {
    format!("topo_loss-{}", far_end.index)
}

impl StepSort for ShapeDev {
    const WORD: &'static str = "shape";
}

impl Step for ShapeDev {
    fn doing(&self) -> String {
        match &self.shape {
            Some(_) => format!("shape {}", self.dev.shown()),
            None => format!("take the shape from {}", self.dev.shown()),
        }
    }

    fn like(&self) -> Vec<String> {
        /// As devices have it unless told otherwise.
        const MTU: u32 = 1500;
        let ip = ip(&self.dev.netns);
        let tc = ip.strip_suffix("ip").map_or_else(|| ip.replacen("ip ", "tc ", 1), |enter| format!("{enter}tc"));
        let lines = Shape::like(self.shape.as_ref(), &name::kernel_name(&self.dev.name), MTU);
        lines.into_iter().map(|line| format!("{tc} {line}")).collect()
    }

    fn footprint(&self) -> Footprint<'_> {
        let at_far_end = self.is_lossy() && self.far_end.is_some();
        Footprint {
            // The table at the far end goes with the namespace there, but not with the device.
            lives_in: match &self.far_end {
                Some(far_end) if self.is_lossy() => vec![&far_end.netns],
                _ => vec![&self.dev.netns],
            },
            lives_on: (!at_far_end).then_some(&self.dev),
            sets: vec![whole::slot(self.dev.no, "shape")],
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.dev.no, &self.dev.shown())?;
        note(model, &self.dev, self.shape);
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        note(model, &self.dev, self.before);
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        // One that this settling makes has nothing of others.
        let link = match kernel.link(&self.dev) {
            Err(error) if self.dev.netns.made && error.is_gone() => return Ok(()),
            found => found?,
        };
        let Some(link) = link else { return Ok(()) };
        let taken = |by: String| Err(net::Error::new(self.doing(), libc::EEXIST).saying(by));
        match tc::root(kernel.rtnl(&self.dev.netns)?.as_ref(), link.index)? {
            Root::Foreign(what) => taken(format!("it has `{what}` of others at its root")),
            Root::Ours(_) if self.before.is_none() && !self.dev.made => taken("another lab shapes it".into()),
            _ => Ok(()),
        }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| self.put(kernel, self.shape.as_ref()))
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        if refusal.is_unsupported() {
            return Some(match self.shape {
                Some(shape) if shape.without_loss().is_some() && self.far_end.is_none() => {
                    "this kernel lacks netem: CONFIG_NET_SCH_NETEM, module `sch_netem`; without it packets are lost only on \
                     cables of which the lab has both ends"
                        .into()
                }
                Some(shape) if shape.needs_netem() => {
                    "this kernel lacks netem: CONFIG_NET_SCH_NETEM, module `sch_netem`; `rate` and `loss` do without it"
                        .into()
                }
                _ => "this kernel lacks tbf: CONFIG_NET_SCH_TBF, module `sch_tbf`".into(),
            });
        }
        refusal.is_exists().then(|| {
            "what others put there can't be given back, so it is left alone; `tc qdisc del dev DEV root` removes it"
                .into()
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        self.lose_nothing(kernel)?;
        let Some(link) = kernel.link(&self.dev)? else { return Ok(()) };
        match tc::root(kernel.rtnl(&self.dev.netns)?.as_ref(), link.index)? {
            // Others have put theirs in its place since.
            Root::Foreign(_) => Ok(()),
            Root::Default if self.shape.is_some() && self.before.is_none() => Ok(()),
            _ => self.put(kernel, self.before.as_ref()),
        }
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let (Some(shape), Some((dev, link))) = (self.shape, whole::there(kernel, lab, &self.dev)?) else {
            return Ok(true);
        };
        // A move takes the shape along (`MoveDev::plan`).
        if lab.model().dev(dev.no).is_some_and(|entry| entry.shape.is_none()) {
            return Ok(true);
        }
        // Without netem the loss is at the far end, and here is the rest, if there is any.
        let wanted = match loses_at_far_end(kernel, self.far_end.as_ref())? {
            true => shape.without_loss().filter(|rest| rest.rate_bits.is_some()),
            false => Some(shape),
        };
        let root = tc::root(kernel.rtnl(&dev.netns)?.as_ref(), link.index)?;
        Ok(wanted.is_none_or(|wanted| matches!(root, Root::Ours(now) if wanted.is(&now))))
    }
}

fn loses_at_far_end(kernel: &mut Kernel, far_end: Option<&DevRef>) -> net::Result<bool> {
    let Some(far_end) = far_end else { return Ok(false) };
    let there = kernel.netns(&far_end.netns)?;
    nft::drops_incoming(&there, &table_of(far_end))
}

fn note(model: &mut Model, dev: &DevRef, shape: Option<Shape>) {
    if let Some(entry) = model.dev_mut(dev.no) {
        entry.shape = shape.map(Box::new);
    }
}

fn ask(lab: &mut Lab, entry: &DevEntry, shape: Option<Shape>, place: Place) -> Result<()> {
    let far_end = far_end(lab.model(), entry);
    lab.ask(ShapeDev { dev: entry.dev.clone(), shape, before: entry.shape.as_deref().copied(), far_end }, place)
}

/// Returns the other end of a cable that the lab has made.
fn far_end(model: &Model, entry: &DevEntry) -> Option<DevRef> {
    let peer = entry.peer?;
    model.all_devs().find(|dev| dev.dev.no == peer).map(|dev| dev.dev.clone())
}

/// Returns a shape as a script writes it.
fn shown(shape: &Shape) -> Map {
    let mut map = Map::new();
    let mut put = |key: &str, value: Option<Dynamic>| {
        if let Some(value) = value {
            map.insert(key.into(), value);
        }
    };
    let share = |share: f64| (share > 0.0).then(|| format!("{share}%").into());
    let time = |ns: u64| (ns > 0).then(|| time_text(ns).into());
    put("rate", shape.rate_bits.map(|bits| rate_text(bits).into()));
    put("burst", shape.burst_bytes.map(|bytes| format!("{bytes}B").into()));
    put("delay", time(shape.delay_ns));
    put("jitter", time(shape.jitter_ns));
    put("loss", share(shape.loss));
    put("duplicate", share(shape.duplicate));
    put("reorder", share(shape.reorder));
    put("corrupt", share(shape.corrupt));
    put("limit", shape.limit_packets.map(|limit| i64::from(limit).into()));
    map
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Shapes what leaves a device: a rate, a delay, and shares of packets that are lost, doubled, reordered or corrupted. What comes
    /// in is shaped at the other end, so the two directions of a cable may differ. Called again it changes what is there in place,
    /// and what was given before and isn't now no longer holds.
    ///
    /// The rate is kept packet by packet, with a queue of 100 ms. Everything else is by packets as the kernel hands them over, and TCP
    /// hands over up to 64 KiB as one.
    ///
    /// Like `tc qdisc replace dev DEV root handle 55: tbf rate 10mbit …` for a rate alone; with anything else `… root handle 54:
    /// netem delay 15ms …`, and `tbf` below it for the rate. On a kernel without `netem`, a loss is what the other end of a cable
    /// drops of what comes in, like `nft add rule netdev TABLE ingress numgen random mod 100 < 1 drop`.
    ///
    /// Fails with `invalid` for a value without its unit or out of its range, with `exists` where others have shaped the
    /// device, and with `unsupported` where the kernel lacks CONFIG_NET_SCH_TBF for a rate, or CONFIG_NET_SCH_NETEM for anything
    /// but a rate and a loss.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].addr("10.0.0.1/24");
    /// host["up0"].addr("10.0.0.2/24");
    /// h["eth0"].shape(#{ rate: "2mbit" });         // from the host
    /// host["up0"].shape(#{ rate: "10mbit" });      // to it
    /// assert(h["eth0"].shape().rate == "2mbit");
    /// try {
    ///     host["up0"].shape(#{ rate: "10mbit", delay: "30ms", loss: "0.1%" });
    ///     assert(h.ping("10.0.0.2", #{ count: 3 }).rtt_min_ms >= 30.0);
    /// } catch (e) {
    ///     assert(e.kind == "unsupported", e.message);
    /// }
    /// ```
    #[rhai_fn(name = "shape", return_raw)]
    pub fn shape_with(ctx: NativeCallContext, dev: Dev, options: Map) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let entry = dev.existing(lab)?;
            let shape = ShapeOptions::parse(options)?.shape(&format!("shape {}", dev.shown()))?;
            ask(lab, &entry, Some(shape), place)
        })?;
        Ok(dev)
    }

    /// Takes away what `shape` gave a device: `dev.shape(())`.
    ///
    /// Like `tc qdisc del dev DEV root`.
    ///
    /// Fails with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].shape(#{ rate: "2mbit" });
    /// h["eth0"].shape(());
    /// assert(h["eth0"].shape() == ());
    /// ```
    #[rhai_fn(name = "shape", return_raw)]
    pub fn shape_off(ctx: NativeCallContext, dev: Dev, nothing: ()) -> RhaiResultOf<Dev> {
        let (place, ()) = (place_of(&ctx), nothing);
        with_lab(&ctx, |lab| {
            let entry = dev.existing(lab)?;
            // Nothing of this lab's is nothing to take.
            if entry.shape.is_some() { ask(lab, &entry, None, place) } else { Ok(()) }
        })?;
        Ok(dev)
    }

    /// Tells how a device is shaped, as the kernel has it, in the words that `shape` takes; `()` where it isn't.
    ///
    /// Like `tc qdisc show dev DEV`.
    ///
    /// Fails with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].shape(#{ rate: "2mbit", burst: "10kB" });
    /// assert(h["eth0"].shape() == #{ rate: "2mbit", burst: "10000B" });
    /// ```
    #[rhai_fn(name = "shape", return_raw)]
    pub fn shape_now(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Dynamic> {
        with_lab(&ctx, |lab| {
            let entry = dev.existing(lab)?;
            let doing = format!("look at the shape of {}", dev.shown());
            let far_end = far_end(lab.model(), &entry);
            let (kernel, _) = lab.settled()?;
            let rtnl = kernel.rtnl(&entry.dev.netns).map_err(|source| Error::kernel(&doing, &source))?;
            let root = tc::root(&rtnl, entry.dev.index).map_err(|source| Error::kernel(&doing, &source))?;
            let lost = match &entry.shape {
                Some(asked) if asked.loss > 0.0 => {
                    let at_far_end = loses_at_far_end(kernel, far_end.as_ref());
                    at_far_end.map_err(|source| Error::kernel(&doing, &source))?.then_some(asked.loss)
                }
                _ => None,
            };
            let now = match root {
                Root::Ours(now) => now,
                _ if lost.is_some() => Shape::default(),
                _ => return Ok(Dynamic::UNIT),
            };
            // What was left to us is not shown.
            let asked = entry.shape.as_deref().copied().unwrap_or(now);
            let loss = lost.unwrap_or(now.loss);
            let now = Shape { burst_bytes: asked.burst_bytes, limit_packets: asked.limit_packets, loss, ..now };
            Ok(shown(&now).into())
        })
    }
}
