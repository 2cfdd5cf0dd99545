//! The thread that goes into namespaces for others. It is kept for the next one who has something to do there: to start a thread
//! takes the kernel longer than most of what is done inside.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError, mpsc};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;

use crate::net::{Error, Netns, Result};

/// Work for the thread; it returns whether the thread is back where it was.
type Job = Box<dyn FnOnce(&Netns) -> bool + Send>;

/// A thread that waits for work. Without its owner it ends.
struct Visitor {
    /// The process that it is a thread of: a child that was forked has none of its parent's threads.
    process: u32,
    jobs: mpsc::Sender<Job>,
}

/// The one that nobody uses at the moment.
static IDLE: Mutex<Option<Visitor>> = Mutex::new(None);

impl Visitor {
    fn start(doing: &str) -> Result<Visitor> {
        // Not that of the calling thread, which may be on a visit itself.
        let home = Netns::of_pid(std::process::id())?;
        let (jobs, ordered) = mpsc::channel::<Job>();
        let work = move || {
            // Signals are for those who wait for them; where they can't be blocked, the thread is as any other.
            let _ = SigSet::all().thread_block();
            // One that could not come back ends: what it did next would be done in the wrong place.
            while ordered.recv().is_ok_and(|job| job(&home)) {}
        };
        std::thread::Builder::new().name("visitor".into()).spawn(work).map_err(|error| Error::io(doing, error))?;
        Ok(Visitor { process: std::process::id(), jobs })
    }
}

thread_local! {
    /// Whether the thread is at home nowhere, and goes itself.
    static WANDERS: Cell<bool> = const { Cell::new(false) };
}

/// Lets the calling thread go itself where it has something to do, and stay there: nothing that it does may depend on where it is.
pub(super) fn wander() {
    WANDERS.set(true);
}

/// Tells whether the calling thread goes itself.
pub(super) fn is_wandering() -> bool {
    WANDERS.get()
}

/// Runs `work` on a thread that is in `netns` meanwhile, and waits for it. A panic in it goes on here.
pub(in crate::net) fn visit<T: Send>(doing: &str, netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T> {
    let enter = || setns(netns.fd(), CloneFlags::CLONE_NEWNET);
    if is_wandering() {
        enter().map_err(|errno| Error::new(doing, errno as i32))?;
        return Ok(work());
    }
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let visitor = match idle.filter(|visitor| visitor.process == std::process::id()) {
        Some(visitor) => visitor,
        None => Visitor::start(doing)?,
    };
    let (give, done) = mpsc::sync_channel(1);
    let job = move |home: &Netns| {
        let entered = enter();
        let outcome = entered.map(|()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
        let back = setns(home.fd(), CloneFlags::CLONE_NEWNET).is_ok();
        // Somebody listens: `visit` does not return before.
        let _ = give.send((outcome, back));
        back
    };
    let job: Box<dyn FnOnce(&Netns) -> bool + Send + '_> = Box::new(job);
    // SAFETY: what the job borrows is borrowed for as long as this call lasts, and the call lasts until the job has sent its outcome,
    // or was dropped without having been run; once it has, the job touches only what it owns.
    let job: Job = unsafe { std::mem::transmute::<Box<dyn FnOnce(&Netns) -> bool + Send + '_>, Job>(job) };
    let lost = || Error::new(doing, libc::ECHILD);
    visitor.jobs.send(job).map_err(|_| lost())?;
    let (outcome, back) = done.recv().map_err(|_| lost())?;
    if back {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(visitor);
    }
    match outcome.map_err(|errno| Error::new(doing, errno as i32))? {
        Ok(value) => Ok(value),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use crate::net::testing::netns;
    use crate::net::{Netns, NetnsId};

    fn here() -> NetnsId {
        Netns::current().expect("a namespace").id()
    }

    #[test]
    fn each_visit_is_to_its_namespace_and_none_lingers() {
        let (home, a, b) = (here(), netns(), netns());
        for _ in 0..3 {
            for there in [&a, &b] {
                assert_eq!(there.inside(here).expect("inside"), there.id());
            }
        }
        // A visit within a visit, and many beside each other.
        let nested = a.inside(|| (b.inside(here).expect("inside"), here())).expect("inside");
        assert_eq!(nested, (b.id(), a.id()));
        std::thread::scope(|scope| {
            let visits: Vec<_> =
                [&a, &b, &a, &b].map(|there| scope.spawn(|| there.inside(here).expect("inside") == there.id())).into();
            assert!(visits.into_iter().all(|visit| visit.join().expect("no panic")));
        });
        assert_eq!(here(), home);
        let text = String::from("borrowed");
        assert_eq!(a.inside(|| text.len()).expect("inside"), 8);
    }
}
