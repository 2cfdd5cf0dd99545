//! One thread beside the caller's: it makes namespaces ahead of their use, and does what can be done at any time as long as nobody
//! waits for one.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SendError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use super::visit::wander;
use super::{CREATE, on_own_thread, unshare_here};
use crate::net::{Error, Netns, Result, fault};

/// How far it may be ahead with namespaces; each that waits holds two file descriptors of at most 1024.
const AHEAD_MAX: usize = 128;

/// Work that is done on whichever thread, in whichever namespace that is.
pub type Work = Box<dyn FnOnce() -> Result<()> + Send>;

/// A namespace that was made.
#[derive(Debug)]
pub struct New {
    /// The namespace, whose `lo` bears the mark.
    pub netns: Netns,
    /// Whether its `lo` is up; where somebody waited for it, that is left to them.
    pub up: bool,
}

/// What the thread is told.
enum Order {
    /// To make one more namespace.
    Make,
    /// That one was taken.
    Taken,
    /// To do something, under a number.
    Do(usize, Work),
}

/// The thread and what it has to give. Dropping it ends the thread once what it was told to do is done; namespaces that nobody took
/// are freed.
#[derive(Debug)]
pub struct Beside {
    mark: String,
    /// Both are None only while it is dropped.
    orders: Option<Sender<Order>>,
    made: Option<Receiver<Result<New>>>,
    done: Receiver<(usize, Result<()>)>,
    /// How much it was told to do that it has not been heard of.
    outstanding: usize,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Starts the thread; the `lo` of what it makes has `mark` as its alias.
    pub fn start(mark: &str) -> Beside {
        let (orders, ordered) = channel();
        let (give, made) = channel();
        let (tell, done) = channel();
        let marked = mark.to_string();
        // Without a thread, the caller does it all, and has the error to tell.
        let thread = std::thread::Builder::new().spawn(move || work(&marked, &ordered, give, &tell)).ok();
        Beside { mark: mark.to_string(), orders: Some(orders), made: Some(made), done, outstanding: 0, thread }
    }

    /// Orders one more namespace.
    pub fn order(&self) {
        self.tell(Order::Make);
    }

    /// Returns the next namespace, waiting for it if need be; there must be an order for it. Fails as `Netns::create`.
    pub fn next(&mut self) -> Result<New> {
        // Counted here and not where they are made: a fault test must meet its points in one order.
        fault::point(CREATE)?;
        match self.made.as_ref().and_then(|made| made.recv().ok()) {
            Some(netns) => {
                self.tell(Order::Taken);
                netns
            }
            None => on_own_thread(CREATE, || make(&self.mark, true))?,
        }
    }

    /// Has `work` done, soon; `wait` tells how it went, under its number.
    pub fn put(&mut self, number: usize, work: Work) -> Result<()> {
        match self.orders.as_ref().map(|orders| orders.send(Order::Do(number, work))) {
            // Without a thread, the caller does it.
            Some(Err(SendError(Order::Do(_, work)))) => work(),
            _ => {
                self.outstanding += 1;
                Ok(())
            }
        }
    }

    /// Waits until all is done that it was told to do; returns the failure of the lowest number.
    pub fn wait(&mut self) -> std::result::Result<(), (usize, Error)> {
        let mut failed: Option<(usize, Error)> = None;
        for _ in 0..std::mem::take(&mut self.outstanding) {
            let lost = |_| (0, Err(Error::new("wait for the thread beside", libc::ECHILD)));
            let (number, outcome) = self.done.recv().unwrap_or_else(lost);
            if let Err(error) = outcome
                && failed.as_ref().is_none_or(|(lowest, _)| number < *lowest)
            {
                failed = Some((number, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn tell(&self, order: Order) {
        // Where the thread has ended, the caller does without it.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.made = None;
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It can't have panicked, and if it had there would be nothing left to do about it.
            let _ = thread.join();
        }
    }
}

fn make(mark: &str, up: bool) -> Result<New> {
    Ok(New { netns: unshare_here(mark, up)?, up })
}

/// What the thread does.
fn work(mark: &str, ordered: &Receiver<Order>, give: Sender<Result<New>>, tell: &Sender<(usize, Result<()>)>) {
    wander();
    let (mut to_make, mut ahead) = (0_usize, 0_usize);
    let mut to_do: VecDeque<(usize, Work)> = VecDeque::new();
    let mut give = Some(give);
    loop {
        let can_make = to_make > 0 && give.is_some() && (ahead == 0 || ahead < AHEAD_MAX && to_do.is_empty());
        let order = match can_make || !to_do.is_empty() {
            true => ordered.try_recv(),
            false => ordered.recv().map_err(|_| TryRecvError::Disconnected),
        };
        match order {
            Ok(Order::Make) => to_make += 1,
            Ok(Order::Taken) => ahead = ahead.saturating_sub(1),
            Ok(Order::Do(number, work)) => to_do.push_back((number, work)),
            Err(TryRecvError::Empty) if can_make => {
                let new = make(mark, ahead > 0);
                let failed = new.is_err();
                (to_make, ahead) = (to_make - 1, ahead + 1);
                // One that fails is the last: whoever wants the next makes it, and has an error of their own.
                give = give.filter(|give| give.send(new).is_ok() && !failed);
            }
            // What there is to do is done even if nobody wants to know of it.
            Err(nothing_new) => match to_do.pop_front() {
                Some((number, work)) => drop(tell.send((number, work()))),
                None if nothing_new == TryRecvError::Disconnected => return,
                None => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::net::NetnsId;

    #[test]
    fn namespaces_are_made_ahead() {
        let mut beside = Beside::start("m");
        (0..5).for_each(|_| beside.order());
        let mut ids: Vec<NetnsId> = (0..5).map(|_| beside.next().expect("a namespace").netns.id()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
        // Dropped with many under way.
        let beside = Beside::start("m");
        (0..2 * AHEAD_MAX).for_each(|_| beside.order());
    }

    /// A mark that is too long fails each; what else there is to do is done none the less.
    #[test]
    fn one_that_fails_says_why_and_is_the_last() {
        let mut beside = Beside::start(&"m".repeat(256));
        (0..2).for_each(|_| beside.order());
        (0..2).for_each(|_| assert_eq!(beside.next().expect_err("too long").errno(), libc::ERANGE));
        let done = Arc::new(AtomicUsize::new(0));
        let counted = done.clone();
        beside
            .put(1, Box::new(move || (counted.fetch_add(1, Ordering::SeqCst), Ok(())).1))
            .and_then(|()| beside.wait().map_err(|(_, error)| error))
            .expect("done");
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn work_is_done_in_order_and_the_first_failure_told() {
        let mut beside = Beside::start("m");
        (0..2 * AHEAD_MAX).for_each(|_| beside.order());
        let done = Arc::new(Mutex::new(Vec::new()));
        for number in 0..10 {
            let done = done.clone();
            let work = move || {
                done.lock().expect("no panic").push(number);
                if number % 4 == 3 { Err(Error::new(format!("do {number}"), libc::EIO)) } else { Ok(()) }
            };
            beside.put(number, Box::new(work)).expect("put");
        }
        // Though more namespaces are ordered than may wait, and nobody takes one.
        let (number, error) = beside.wait().expect_err("two fail");
        assert_eq!((number, error.doing()), (3, "do 3"));
        assert_eq!(*done.lock().expect("no panic"), (0..10).collect::<Vec<_>>());
        beside.wait().expect("nothing is left");
        // What was not waited for is done before the thread ends.
        let late = done.clone();
        beside.put(0, Box::new(move || (late.lock().expect("no panic").push(99), Ok(())).1)).expect("put");
        drop(beside);
        assert_eq!(done.lock().expect("no panic").last(), Some(&99));
    }
}
