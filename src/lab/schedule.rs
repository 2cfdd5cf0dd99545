//! The scheduler: it has the operations of steps done, in order where that counts and together where that costs less, and tells
//! which step was refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::event::Listener;
use super::journal::Asked;
use super::kernel::Kernel;
use super::model::{DevEntry, Model};
use super::op::{Joint, Op};
use super::step::Step;
use super::worker::Blamed;
use crate::net::{self, Request};
use crate::state::{DevRef, Error, NetnsRef};

/// How many requests wait at most.
const WAITING_MAX: usize = 64;

/// Requests that go over one socket, and have not gone yet.
#[derive(Default)]
struct Queue(Option<Waiting>);

struct Waiting {
    netns: NetnsRef,
    /// The steps that they are of.
    steps: Vec<usize>,
    requests: Vec<Request>,
}

impl Queue {
    /// Adds a request of the step numbered `step`.
    ///
    /// In a namespace that others share, what follows the making of a link waits until that is known to have gone well: there the
    /// link of that number may be a stranger's.
    fn push(
        &mut self,
        kernel: &mut Kernel,
        step: usize,
        at: &NetnsRef,
        request: Request,
    ) -> std::result::Result<(), Blamed> {
        if self.0.as_ref().is_some_and(|waiting| waiting.netns.no != at.no) {
            self.flush(kernel)?;
        }
        let make = || Waiting { netns: at.clone(), steps: Vec::new(), requests: Vec::new() };
        let waiting = self.0.get_or_insert_with(make);
        let must_be_known = !at.made && request.makes_link();
        waiting.steps.push(step);
        waiting.requests.push(request);
        if must_be_known || waiting.requests.len() >= WAITING_MAX { self.flush(kernel) } else { Ok(()) }
    }

    /// Sends what waits.
    fn flush(&mut self, kernel: &mut Kernel) -> std::result::Result<(), Blamed> {
        let Some(waiting) = self.0.take() else { return Ok(()) };
        let first = waiting.steps.first().copied().unwrap_or(0);
        let rtnl = kernel.rtnl(&waiting.netns).map_err(|error| (first, error))?;
        rtnl.send_all(&waiting.requests).map_err(|(at, error)| (waiting.steps.get(at).copied().unwrap_or(first), error))
    }
}

impl Kernel {
    /// Sends requests now, each over a socket in its namespace.
    pub fn send<'a>(&mut self, requests: impl IntoIterator<Item = (&'a NetnsRef, Request)>) -> net::Result<()> {
        let mut queue = Queue::default();
        let queued = requests.into_iter().try_for_each(|(at, request)| queue.push(self, 0, at, request));
        queued.and_then(|()| queue.flush(self)).map_err(|(_, error)| error)
    }

    /// Does all operations of a step now.
    pub fn make<S: Step + ?Sized>(&mut self, step: &S) -> net::Result<()> {
        let mut outstanding = Outstanding::default();
        let made = step.ops(self)?.into_iter().try_for_each(|op| match op {
            Op::Aside(work) => work().map_err(|error| (0, error)),
            op => outstanding.take(op, 0, self),
        });
        let made = made.and_then(|()| outstanding.end(self, |_| true)).and_then(|()| outstanding.do_all(self));
        made.map_err(|(_, error)| error)
    }
}

/// What is still to be done of the steps so far, each with the number of its step.
#[derive(Default)]
struct Outstanding<'a> {
    queue: Queue,
    at_end: Vec<(usize, &'a NetnsRef, Request)>,
    joint: Vec<(usize, &'a dyn Joint)>,
}

impl<'a> Outstanding<'a> {
    /// Does one operation of the step numbered `at`, or keeps it.
    fn take(&mut self, op: Op<'a>, at: usize, kernel: &mut Kernel) -> std::result::Result<(), Blamed> {
        match op {
            Op::Ask(netns, request) => {
                self.do_joint(kernel)?;
                self.queue.push(kernel, at, netns, request)
            }
            Op::AtEnd(netns, request) => {
                self.at_end.push((at, netns, request));
                Ok(())
            }
            Op::Aside(work) => {
                kernel.worker.put(at, work);
                Ok(())
            }
            Op::Together(joint) => {
                if self.joint.first().is_some_and(|(_, first)| !joint.goes_with(*first)) {
                    self.do_joint(kernel)?;
                }
                self.joint.push((at, joint));
                Ok(())
            }
            Op::Now(work) => {
                self.do_all(kernel)?;
                work(kernel).map_err(|source| (at, source))
            }
        }
    }

    /// Does all that need not wait for the end.
    fn do_all(&mut self, kernel: &mut Kernel) -> std::result::Result<(), Blamed> {
        self.do_joint(kernel)?;
        self.queue.flush(kernel)?;
        kernel.worker.finish()
    }

    /// Does the work that goes together, after all that was asked for before it.
    fn do_joint(&mut self, kernel: &mut Kernel) -> std::result::Result<(), Blamed> {
        let parts = std::mem::take(&mut self.joint);
        let Some((at, first)) = parts.first().copied() else { return Ok(()) };
        self.queue.flush(kernel)?;
        kernel.worker.finish()?;
        let all: Vec<&dyn Joint> = parts.iter().map(|(_, part)| *part).collect();
        let of_first = |source| (at, source);
        match first.do_all(kernel, &all) {
            Err(refusal) if all.len() > 1 && first.splits(kernel, &all, &refusal).map_err(of_first)? => {
                parts.iter().try_for_each(|(at, one)| one.do_all(kernel, &[*one]).map_err(|source| (*at, source)))
            }
            done => done.map_err(of_first),
        }
    }

    /// Has those requests done now that wait for the end in namespaces for which `is_due` holds.
    fn end(&mut self, kernel: &mut Kernel, is_due: impl Fn(u32) -> bool) -> std::result::Result<(), Blamed> {
        if !self.at_end.iter().any(|(_, netns, _)| is_due(netns.no)) {
            return Ok(());
        }
        // If something before it is refused, it waits on.
        self.do_joint(kernel)?;
        self.queue.flush(kernel)?;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.at_end).into_iter().partition(|(_, netns, _)| is_due(netns.no));
        self.at_end = later;
        due.into_iter().try_for_each(|(at, netns, request)| self.queue.push(kernel, at, netns, request))
    }
}

/// Does the operations of `steps`, and waits until their devices and addresses work. Of a refusal it says which step was refused:
/// those before it are done.
pub(crate) fn run(
    steps: &[Asked],
    kernel: &mut Kernel,
    model: &Model,
    listener: &mut Listener,
) -> std::result::Result<(), (usize, Error)> {
    listener.expect(steps, false);
    let done = in_order(steps, kernel, listener);
    let done = match (done, kernel.worker.finish()) {
        (Err(first), Err(aside)) if aside.0 < first.0 => Err(aside),
        (done, aside) => done.and(aside),
    };
    kernel.worker.stop();
    listener.arrived();
    done.map_err(|(at, source)| (at, refused(&steps[at], &source)))?;
    let last = steps.len().saturating_sub(1);
    wait_working(steps, kernel, model).map_err(|source| (last, Error::kernel("wait for the links", &source)))
}

fn in_order(steps: &[Asked], kernel: &mut Kernel, listener: &mut Listener) -> std::result::Result<(), Blamed> {
    let mut outstanding = Outstanding::default();
    let Err(refused) = each(steps, kernel, listener, &mut outstanding) else { return Ok(()) };
    // The steps before it stay, and are finished: a bridge comes up.
    let at_end = std::mem::take(&mut outstanding.at_end).into_iter().filter(|(at, ..)| *at < refused.0);
    let mut of_those_before = Outstanding { at_end: at_end.collect(), ..Outstanding::default() };
    of_those_before.end(kernel, |_| true)?;
    of_those_before.queue.flush(kernel)?;
    Err(refused)
}

fn each<'a>(
    steps: &'a [Asked],
    kernel: &mut Kernel,
    listener: &mut Listener,
    outstanding: &mut Outstanding<'a>,
) -> std::result::Result<(), Blamed> {
    for (at, asked) in steps.iter().enumerate() {
        if net::process::signal::caught().is_some() {
            outstanding.do_all(kernel)?;
            return Err((at, net::Error::new(asked.step.doing(), libc::EINTR)));
        }
        if !outstanding.at_end.is_empty() {
            let footprint = asked.step.footprint();
            outstanding.end(kernel, |no| footprint.needs_finished(no))?;
        }
        listener.tell_step(asked, false);
        match asked.step.ops(kernel) {
            Ok(ops) => ops.into_iter().try_for_each(|op| outstanding.take(op, at, kernel))?,
            Err(source) => {
                outstanding.do_all(kernel)?;
                return Err((at, source));
            }
        }
    }
    outstanding.do_joint(kernel)?;
    outstanding.end(kernel, |_| true)?;
    outstanding.queue.flush(kernel)
}

/// Says what the kernel refused.
pub(super) fn refused(asked: &Asked, source: &net::Error) -> Error {
    let error = Error::kernel(asked.step.doing(), source);
    match asked.step.advice(source) {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

/// Waits for the carriers that came and went: without that the kernel does its part some moments later, and a first packet is lost.
/// First for those of plain devices, then for those of bridges, which follow from their ports', then for those of what is on top.
/// Then it waits for the addresses that another of the kernel's workers makes work.
pub(crate) fn wait_working<'a>(
    steps: impl IntoIterator<Item = &'a Asked>,
    kernel: &mut Kernel,
    model: &Model,
) -> net::Result<()> {
    const WORKER: Duration = Duration::from_secs(2);
    let mut woken: BTreeMap<(u8, u32), &DevRef> = BTreeMap::new();
    let mut later: BTreeMap<u32, (&NetnsRef, Vec<IpAddr>)> = BTreeMap::new();
    for footprint in steps.into_iter().map(|asked| asked.step.footprint()) {
        for dev in footprint.wakes {
            let entry = model.dev(dev.no);
            woken.insert((entry.map_or(0, DevEntry::carrier_rank), dev.no), dev);
            let bridge = entry.and_then(|entry| model.dev(entry.controller?));
            woken.extend(bridge.map(|bridge| ((bridge.carrier_rank(), bridge.dev.no), &bridge.dev)));
        }
        if let Some((at, ip)) = footprint.works_later {
            later.entry(at.no).or_insert((at, Vec::new())).1.push(ip);
        }
    }
    // One whose namespace has gone meanwhile has no carrier.
    woken.retain(|_, dev| !kernel.netns(&dev.netns).is_err_and(|error| error.is_gone()));
    kernel.send(woken.into_values().map(|dev| (&dev.netns, net::link::touch_request(dev.index))))?;
    for (at, ips) in later.into_values() {
        let (netns, rtnl) = (kernel.netns(at)?, kernel.rtnl(at)?);
        kernel.run(net::ip::route::wait_local(&netns, &rtnl, &ips, None, WORKER))?;
    }
    Ok(())
}
