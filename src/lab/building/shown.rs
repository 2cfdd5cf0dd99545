//! What a person is shown who waits for a run: what the script has asked for, and what it waits for.

use std::time::Instant;

use super::Lab;

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
}
