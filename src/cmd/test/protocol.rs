//! What the runner and the process that runs one test say to each other: a request on its standard input, and messages on its
//! standard output, a line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lab::CheckResult;
use crate::script::FailureKind;
use crate::state::Spot;

/// One test to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TestRequest {
    /// The file, as the user named it.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The function.
    pub test: String,
    /// Its line.
    pub line: usize,
    /// The lines of it that must fail, each in a run of its own; none for a test that must pass.
    pub marks: Vec<ExpectedError>,
    /// Whether the file has a function `setup`.
    pub setup: bool,
    /// Whether the file has a function `teardown`.
    pub teardown: bool,
    /// Whether the lab stays if the test fails.
    pub keep: bool,
    /// Whether the test may run no commands and open no files.
    pub no_exec: bool,
    /// Whether failures are told in colours.
    pub coloured: bool,
}

/// A line that must fail so: `//~ kind: text` at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExpectedError {
    pub line: usize,
    pub kind: String,
    pub text: String,
}

/// What the process says while it runs the test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum TestMessage {
    /// A part of the test is begun: "setup", "test", "teardown", "line 12".
    Phase(String),
    /// A piece of the test's output.
    Output(String),
    /// The result of a check.
    Check { sentence: String, ok: bool, measured: Option<String>, at: Vec<Spot> },
    /// The test asks for another time limit.
    TimeLimit(Duration),
    /// The test is over.
    Done(Verdict),
}

impl TestMessage {
    pub(super) fn of_check(check: &CheckResult, at: Vec<Spot>) -> TestMessage {
        let (sentence, measured) = (check.sentence.clone(), check.measured.clone());
        TestMessage::Check { sentence, ok: check.ok, measured, at }
    }
}

/// How a test ended, as the process that ran it tells.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// All that went wrong.
    pub troubles: Vec<TestTrouble>,
    /// What the machine lacks for it.
    pub lacks: Option<String>,
    /// Why it was expected to fail.
    pub expected: Option<String>,
    /// The lab as it stood at the first failure.
    pub state: Option<String>,
    /// The ends of the logs of its processes.
    pub logs: Vec<(String, String)>,
    /// Whether its lab was left up.
    pub kept: bool,
}

/// One thing that went wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TestTrouble {
    /// The part of the test in which it did.
    pub phase: TestPhase,
    /// The sort: the word of a `FailureKind`.
    pub kind: String,
    /// What went wrong, in a sentence.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Where.
    pub at: Vec<Spot>,
    /// The whole of it with its excerpt, as plain text.
    pub text: String,
    /// The same in colours, if they were asked for.
    pub shown: Option<String>,
}

/// A part of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TestPhase {
    /// The file's statements, `setup` and the test itself: what may be expected to fail.
    Test,
    /// `teardown`.
    Teardown,
    /// Taking the lab down, and the look for what was left.
    Cleanup,
    /// The runner itself: it gave the test up, or found it gone.
    Runner,
}

impl TestTrouble {
    /// Makes one that the runner itself has to tell, in a sentence.
    pub(super) fn plain(
        phase: TestPhase,
        kind: impl Into<FailureKind>,
        message: String,
        hint: Option<&str>,
    ) -> TestTrouble {
        let hinted = hint.map_or(String::new(), |hint| format!("\nhint: {hint}"));
        let text = format!("error: {message}{hinted}\n");
        let hint = hint.map(String::from);
        TestTrouble { phase, kind: kind.into().word().into(), message, hint, at: Vec::new(), text, shown: None }
    }
}
