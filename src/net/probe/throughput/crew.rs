//! The threads of one measuring: told to stop, and waited for, however it ends.

use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::sync::mpsc;

use crate::net::{Error, Result};

/// The word to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    fn say(&self) {
        let (said, heard) = &*self.0;
        *said.lock().unwrap_or_else(PoisonError::into_inner) = true;
        heard.notify_all();
    }

    /// Tells whether it was said.
    pub(super) fn is_said(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a time, or until it is said; returns whether it is.
    pub(super) fn wait_until(&self, time: Instant) -> bool {
        let (said, heard) = &*self.0;
        let mut now = said.lock().unwrap_or_else(PoisonError::into_inner);
        while !*now {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            now = heard.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *now
    }
}

/// The threads, and the sockets at which they may be waiting. Dropped, it stops them and waits for them.
#[derive(Debug)]
pub(super) struct Crew {
    /// The word to stop.
    pub(super) stop: Stop,
    sockets: Vec<Socket>,
    threads: Vec<JoinHandle<()>>,
    tell: Option<mpsc::UnboundedSender<()>>,
    told: mpsc::UnboundedReceiver<()>,
}

impl Crew {
    pub(super) fn new() -> Crew {
        let (tell, told) = mpsc::unbounded_channel();
        Crew { stop: Stop::default(), sockets: Vec::new(), threads: Vec::new(), tell: Some(tell), told }
    }

    /// Starts a thread that works with a socket.
    pub(super) fn start(&mut self, socket: &Socket, work: impl FnOnce(&Socket, &Stop) + Send + 'static) -> Result<()> {
        let doing = "measure a throughput";
        let failed = |error| Error::io(doing, error);
        let (own, stop, tell) = (socket.try_clone().map_err(failed)?, self.stop.clone(), self.tell.clone());
        let work = move || {
            work(&own, &stop);
            // Nobody listens any more where the measuring was broken off.
            let _ = tell.map(|tell| tell.send(()));
        };
        self.sockets.push(socket.try_clone().map_err(failed)?);
        self.threads.push(std::thread::Builder::new().name("throughput".into()).spawn(work).map_err(failed)?);
        Ok(())
    }

    /// Waits until a time, or until all threads have ended by themselves.
    pub(super) async fn ended_until(&mut self, time: Instant) {
        self.tell = None;
        let all = async { while self.told.recv().await.is_some() {} };
        let _ = tokio::time::timeout_at(time.into(), all).await;
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.say();
        for socket in &self.sockets {
            // A reset instead of what is still under way: nobody wants to wait for that.
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            // They don't panic, and if one did there would be nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// How far a sender may be behind and still make good for it.
const BEHIND_MAX: Duration = Duration::from_millis(10);

/// What may be sent by now, at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    began: Instant,
    sent: u64,
}

impl Pace {
    /// Begins to count, at so many bits in a second.
    pub(super) fn new(rate: Option<u64>) -> Pace {
        Pace { rate, began: Instant::now(), sent: 0 }
    }

    /// Waits until more may be sent; returns whether to stop.
    pub(super) fn wait(&self, stop: &Stop) -> bool {
        match self.rate {
            None => stop.is_said(),
            Some(rate) => {
                let due = Duration::from_secs_f64(self.sent as f64 * 8.0 / rate.max(1) as f64);
                stop.wait_until(self.began + due)
            }
        }
    }

    /// Counts what was sent. A sender that was held up does not make good for it for long: the rate would be another one then.
    pub(super) fn note(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(self.sent as f64 * 8.0 / rate.max(1) as f64);
        let late = self.began.elapsed().saturating_sub(due);
        if late > BEHIND_MAX {
            self.began += late - BEHIND_MAX;
        }
    }
}

/// How long a call on a socket may take before the thread looks whether it is to stop.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Makes a socket wait, though not for long.
pub(super) fn make_patient(socket: &Socket) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    socket.set_write_timeout(Some(LOOK_UP))
}

/// Tells whether an error only says that the socket has waited long enough.
pub(super) fn is_patience(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
