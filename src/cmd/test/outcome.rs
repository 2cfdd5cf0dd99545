//! What became of a test.

use std::time::Duration;

use super::protocol::{TestPhase, TestTrouble, Verdict};
use crate::script::FailureKind;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TestStatus {
    Passed,
    Failed,
    Skipped,
    /// It failed, as it was meant to.
    ExpectedFailure,
    /// The runner was interrupted while it ran.
    Interrupted,
    /// The runner ended before its turn.
    NotRun,
}

impl TestStatus {
    pub(super) fn is_failure(self) -> bool {
        matches!(self, TestStatus::Failed)
    }

    /// Returns its word in JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            TestStatus::Passed => "passed",
            TestStatus::Failed => "failed",
            TestStatus::Skipped => "skipped",
            TestStatus::ExpectedFailure => "expected_failure",
            TestStatus::Interrupted => "interrupted",
            TestStatus::NotRun => "not_run",
        }
    }
}

/// What became of a test.
#[derive(Debug, Clone)]
pub(super) struct TestOutcome {
    pub status: TestStatus,
    pub time: Duration,
    /// Why it was skipped, or was expected to fail.
    pub reason: Option<String>,
    pub troubles: Vec<TestTrouble>,
    pub state: Option<String>,
    pub logs: Vec<(String, String)>,
    /// What it printed.
    pub output: String,
    /// How many checks there were, and how many of them didn't hold.
    pub checks: (usize, usize),
    /// The lab that was left up.
    pub kept: Option<String>,
}

impl TestOutcome {
    fn plain(status: TestStatus) -> TestOutcome {
        TestOutcome {
            status,
            time: Duration::ZERO,
            reason: None,
            troubles: Vec::new(),
            state: None,
            logs: Vec::new(),
            output: String::new(),
            checks: (0, 0),
            kept: None,
        }
    }

    pub(super) fn interrupted() -> TestOutcome {
        TestOutcome::plain(TestStatus::Interrupted)
    }

    pub(super) fn not_run() -> TestOutcome {
        TestOutcome::plain(TestStatus::NotRun)
    }

    /// Makes the outcome of a file that is no script.
    pub(super) fn broken(trouble: TestTrouble) -> TestOutcome {
        TestOutcome { troubles: vec![trouble], ..TestOutcome::plain(TestStatus::Failed) }
    }

    /// Judges what a test's process said.
    pub(super) fn of(
        mut verdict: Verdict,
        output: String,
        checks: (usize, usize),
        time: Duration,
        no_skip: bool,
    ) -> TestOutcome {
        let (own, others): (Vec<TestTrouble>, Vec<TestTrouble>) =
            std::mem::take(&mut verdict.troubles).into_iter().partition(|trouble| trouble.phase == TestPhase::Test);
        let mut outcome = TestOutcome {
            time,
            output,
            checks,
            state: verdict.state,
            logs: verdict.logs,
            ..TestOutcome::plain(TestStatus::Passed)
        };
        match (verdict.expected, verdict.lacks) {
            (_, Some(lacks)) if own.is_empty() && others.is_empty() && !no_skip => {
                outcome.status = TestStatus::Skipped;
                outcome.reason = Some(lacks);
            }
            (Some(reason), _) if !own.is_empty() && others.is_empty() => {
                outcome.status = TestStatus::ExpectedFailure;
                outcome.reason = Some(reason);
                outcome.troubles = own;
            }
            (expected, lacks) => {
                // What was expected is not worth a word where something else went wrong too.
                let meant = expected.is_some() && !own.is_empty();
                outcome.troubles.extend(own.into_iter().filter(|_| !meant));
                outcome.troubles.extend(others);
                if let Some(lacks) = lacks {
                    let message = format!("it was skipped, which `--no-skip` forbids: {lacks}");
                    if no_skip {
                        outcome.troubles.push(TestTrouble::plain(
                            TestPhase::Runner,
                            FailureKind::Skipped,
                            message,
                            None,
                        ));
                    }
                } else if let Some(reason) = expected.filter(|_| !meant) {
                    let message = format!("it passed unexpectedly; it was expected to fail: {reason}");
                    let hint = "if it is mended, take `expect_failure` out of it";
                    outcome.troubles.push(TestTrouble::plain(
                        TestPhase::Runner,
                        FailureKind::Passed,
                        message,
                        Some(hint),
                    ));
                }
                if !outcome.troubles.is_empty() {
                    outcome.status = TestStatus::Failed;
                }
            }
        }
        outcome
    }

    /// Adds what went wrong after the test.
    pub(super) fn fail(&mut self, trouble: TestTrouble) {
        self.troubles.push(trouble);
        self.status = TestStatus::Failed;
    }
}

/// What a test prints: all of it while that is little, else its beginning and its end.
#[derive(Debug, Default)]
pub(super) struct TestOutput {
    head: String,
    tail: String,
    lost: usize,
}

/// So many bytes are kept of the beginning, and of the end.
const KEPT_MAX: usize = 32 << 10;

impl TestOutput {
    pub(super) fn add(&mut self, text: &str) {
        let room = KEPT_MAX.saturating_sub(self.head.len());
        let cut = if self.tail.is_empty() { boundary(text, room) } else { 0 };
        self.head.push_str(&text[..cut]);
        self.tail.push_str(&text[cut..]);
        if self.tail.len() > 2 * KEPT_MAX {
            let from = boundary(&self.tail, self.tail.len() - KEPT_MAX);
            self.lost += from;
            self.tail.drain(..from);
        }
    }

    pub(super) fn text(&self) -> String {
        let from = boundary(&self.tail, self.tail.len().saturating_sub(KEPT_MAX));
        match self.lost + from {
            0 => format!("{}{}", self.head, self.tail),
            lost => format!("{}\n… {lost} bytes left out …\n{}", self.head, &self.tail[from..]),
        }
    }
}

/// Returns the last boundary of characters at or before a byte.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_beginning_and_the_end_are_kept() {
        let mut output = TestOutput::default();
        for line in 0..100_000 {
            output.add(&format!("line {line} é\n"));
        }
        let text = output.text();
        assert!(text.starts_with("line 0 é\nline 1 é\n") && text.ends_with("line 99999 é\n"), "{} bytes", text.len());
        assert!(text.len() < 3 * KEPT_MAX && text.contains(" bytes left out …\n"));
        let mut little = TestOutput::default();
        little.add("a\n");
        assert_eq!(little.text(), "a\n");
    }
}
