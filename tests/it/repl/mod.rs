//! Sessions of `topo repl`: of a person at a terminal, and of what is piped in.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `screen.rs` | `Screen`: types keys, and reads the screen |
//! | `typing.rs` | what helps while a line is typed: completion, hints, several lines, the history; sizes and sorts of terminals |
//! | `statements.rs` | statements, each wholly done or wholly taken back; `:undo`, `:save` |
//! | `foreground.rs` | who has the terminal: shells, sandboxes, Ctrl-Z |
//! | `ending.rs` | how sessions end, and what becomes of their labs; several at once |
//! | `piped.rs` | transcripts of what is piped in |
//! | `commands.rs` | transcripts of what begins with a colon |

mod commands;
mod ending;
mod foreground;
mod piped;
pub(crate) mod screen;
mod statements;
mod typing;

use std::time::{Duration, Instant};

use crate::stage::in_used_world;
use crate::unwind_networks::dump::Dump;
use crate::world::{Snapshot, World};
use screen::CTRL_D;
pub(crate) use screen::Screen;

/// How long the kernel may take for what it does behind our back.
const LATE: Duration = Duration::from_secs(5);

/// Runs `test` as root in a world that topo has used before; checks that it left nothing behind.
fn as_root(test: impl FnOnce(&World, &Snapshot)) {
    in_used_world("", test);
}

/// Panics with what differs from `before`, outside and inside of the namespaces; waits for what the kernel does late.
fn assert_same(w: &World, before: &Dump) {
    let mut diff = before.diff(&Dump::take(w));
    let start = Instant::now();
    while !diff.is_empty() {
        assert!(start.elapsed() < LATE, "not as before (+ left behind, - gone, ~ changed):\n{diff}");
        diff = before.diff(&Dump::take(w));
    }
}

impl Screen {
    /// Leaves a session that has made something, which goes with it.
    pub(crate) fn leave(mut self) {
        self.keys(CTRL_D);
        self.shows("[y/N]");
        self.keys("n\r");
        assert_eq!(self.ends(), 0);
    }

    /// Leaves a session whose lab is empty, or was up before.
    fn leave_unasked(mut self) {
        self.keys(CTRL_D);
        assert_eq!(self.ends(), 0);
    }
}
