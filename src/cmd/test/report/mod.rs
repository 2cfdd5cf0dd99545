//! How the results of tests are told: to people, and to programs.

pub(super) mod json;
pub(super) mod junit;
pub(super) mod plain;
pub(super) mod tap;

use std::time::Duration;

use super::outcome::{TestOutcome, TestStatus};

/// A test with what became of it.
#[derive(Debug)]
pub(super) struct Tested {
    /// The file, as the user named it.
    pub file: String,
    /// The function; nothing for a file that is no script.
    pub test: String,
    pub line: usize,
    pub about: String,
    pub outcome: TestOutcome,
}

impl Tested {
    /// Returns the words by which this test alone is run.
    pub(super) fn id(&self) -> String {
        if self.test.is_empty() { self.file.clone() } else { format!("{}::{}", self.file, self.test) }
    }

    /// Returns the command that runs this test alone.
    pub(super) fn rerun(&self) -> String {
        format!("topo test {}", quoted(&self.id()))
    }
}

/// Quotes a word for a shell, if it needs that.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:+@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub expected: usize,
    pub interrupted: usize,
    pub not_run: usize,
}

impl Counts {
    pub(super) fn add(&mut self, status: TestStatus) {
        let count = match status {
            TestStatus::Passed => &mut self.passed,
            TestStatus::Failed => &mut self.failed,
            TestStatus::Skipped => &mut self.skipped,
            TestStatus::ExpectedFailure => &mut self.expected,
            TestStatus::Interrupted => &mut self.interrupted,
            TestStatus::NotRun => &mut self.not_run,
        };
        *count += 1;
    }

    pub(super) fn of(tests: &[Tested]) -> Counts {
        let mut counts = Counts::default();
        tests.iter().for_each(|tested| counts.add(tested.outcome.status));
        counts
    }

    /// Returns the last line: `12 passed, 1 failed, 2 skipped in 3.4 s`.
    pub(super) fn summary(&self, time: Duration) -> String {
        let mut parts = vec![format!("{} passed", self.passed)];
        let more = [
            (self.failed, "failed"),
            (self.expected, "failed as expected"),
            (self.skipped, "skipped"),
            (self.interrupted, "interrupted"),
            (self.not_run, "not run"),
        ];
        parts.extend(more.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
        format!("{} in {:.1} s", parts.join(", "), time.as_secs_f64())
    }
}

/// Returns all that is told of a failure but the errors themselves, each part under its title.
pub(super) fn details(tested: &Tested) -> Vec<(&'static str, String)> {
    let outcome = &tested.outcome;
    let mut parts = Vec::new();
    parts.extend(outcome.state.clone().map(|state| ("the lab at the failure", state)));
    for (name, log) in &outcome.logs {
        parts.push(("log", format!("{name}:\n{log}")));
    }
    if !outcome.output.is_empty() {
        parts.push(("output", outcome.output.clone()));
    }
    parts
}
