//! What a person is shown who waits for a run: what the script has asked for, and what it waits for.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::Lab;
use crate::net::{self, process::signal};

/// How often it is said how long something has been waited for.
const SAY_AGAIN: Duration = Duration::from_millis(250);

impl Lab {
    /// Says that a script, or a statement of a session, begins.
    pub fn begin_running(&mut self) {
        self.listener.begin_running();
    }

    /// Says what the script has asked for so far, if it runs for long.
    pub fn show_running(&mut self) {
        self.listener.show_running();
    }

    /// Says what the script waits for since a time, if that is long ago.
    pub fn waiting(&mut self, since: Instant, text: impl FnOnce() -> String) {
        self.listener.waiting(since, text);
    }

    /// Says that what was waited for has come, or that the script has ended.
    pub fn arrived(&mut self) {
        self.listener.arrived();
    }

    /// Runs `work` to its end or until a signal is caught (EINTR), and says what the script waits for, if that takes long.
    pub fn wait_for<T>(&mut self, doing: &str, work: impl Future<Output = net::Result<T>>) -> net::Result<T> {
        self.wait_out(doing, signal::unless_caught(doing, work))
    }

    /// Runs `work` to its end, whatever signal is caught, and says what the script waits for.
    pub fn wait_out<T>(&mut self, doing: &str, work: impl Future<Output = net::Result<T>>) -> net::Result<T> {
        if !self.listener.shows_progress() {
            return self.kernel.run(work);
        }
        let (begun, listener, mut said) = (Instant::now(), &mut self.listener, false);
        let done = self.kernel.run(async {
            let mut work = pin!(work);
            loop {
                match tokio::time::timeout(SAY_AGAIN, work.as_mut()).await {
                    Ok(done) => return done,
                    Err(_) => listener.waiting(begun, || {
                        said = true;
                        format!("{doing}: {} s", begun.elapsed().as_secs())
                    }),
                }
            }
        });
        // What is around it may have said what it waits for, and goes on with that.
        if said {
            self.listener.arrived();
        }
        done
    }
}
