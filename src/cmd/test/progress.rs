//! What a person at a terminal sees while tests run: a line that is written anew, with counts and the names of those that run.

use std::io::IsTerminal;
use std::time::Instant;

use super::report::Counts;
use crate::terminal::{talk, wants_colour};

/// The live line; elsewhere than at a terminal there is none.
pub(super) struct TestProgress {
    live: bool,
    total: usize,
    began: Instant,
    running: Vec<(usize, String)>,
    shown: bool,
}

impl TestProgress {
    pub(super) fn new(total: usize, wanted: bool) -> TestProgress {
        // A dumb terminal can't write a line anew.
        let live = wanted && wants_colour_or_dull(std::io::stderr().is_terminal());
        TestProgress { live, total, began: Instant::now(), running: Vec::new(), shown: false }
    }

    pub(super) fn begin(&mut self, index: usize, name: &str) {
        self.running.push((index, name.to_string()));
    }

    pub(super) fn end(&mut self, index: usize) {
        self.running.retain(|(running, _)| *running != index);
    }

    /// Takes the line away, so that something else can be written.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            talk("\r\x1b[K");
        }
    }

    /// Writes the line.
    pub(super) fn show(&mut self, counts: &Counts) {
        if !self.live {
            return;
        }
        let done = self.total.saturating_sub(self.running.len());
        let ended = counts.passed + counts.failed + counts.skipped + counts.expected + counts.interrupted;
        let names: Vec<&str> = self.running.iter().map(|(_, name)| name.as_str()).collect();
        let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
        let seconds = self.began.elapsed().as_secs();
        let text = format!("{}/{}{failed}, {seconds} s: {}", ended.min(done), self.total, names.join(", "));
        let width = crate::terminal::width().saturating_sub(1);
        let text: String = text.chars().take(width).collect();
        talk(&format!("\r\x1b[K{text}"));
        self.shown = true;
    }
}

/// A terminal that takes no colours may still take a line anew: only a dumb one does not.
fn wants_colour_or_dull(terminal: bool) -> bool {
    wants_colour(terminal) || terminal && !crate::terminal::is_dumb()
}
