//! How a command ends: trouble, exit codes, and a run as JSON.

use std::io::IsTerminal;
use std::time::Instant;

use serde_json::{Value, json};

use crate::lab::CheckResult;
use crate::script::{Failure, Texts};
use crate::state::Error;
use crate::terminal::{self, Said, exit, report};

/// Reports wrong usage, or prints help, and returns the exit code.
pub(super) fn usage(error: &clap::Error) -> u8 {
    terminal::note(error.print());
    if error.use_stderr() { exit::USAGE } else { exit::DONE }
}

/// What kept a command from being done.
#[derive(Debug)]
pub(super) struct Trouble {
    failures: Vec<Failure>,
    code: u8,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble { code: exit::of_kind(error.kind()), failures: vec![Failure::from(&error)] }
    }
}

impl From<Vec<Error>> for Trouble {
    fn from(errors: Vec<Error>) -> Trouble {
        let code = errors.iter().map(|error| exit::of_kind(error.kind())).max().unwrap_or(exit::FAILED);
        Trouble { code, failures: errors.iter().map(Failure::from).collect() }
    }
}

impl Trouble {
    /// Reports it, and returns the exit code.
    pub(super) fn report(self) -> u8 {
        for failure in &self.failures {
            report(failure, &Texts::default());
        }
        self.code
    }
}

/// Returns a run as one JSON object.
pub(super) fn run_as_json(
    lab: &str,
    up: bool,
    failure: Option<&Failure>,
    checks: &[CheckResult],
    said: &Said,
) -> Value {
    if let (None, Some(result)) = (failure, &said.result) {
        return result.clone();
    }
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| json!({ "sentence": check.sentence, "ok": check.ok, "measured": check.measured, "at": check.place.0 }))
        .collect();
    json!({
        "lab": lab,
        "ok": failure.is_none() && checks.iter().all(|check| check["ok"] == true),
        "up": up,
        "checks": checks,
        "printed": said.printed,
        "tables": said.tables,
        "error": failure.map(Failure::as_json),
    })
}

/// Says how long something took, to a person who has waited for it.
pub(super) fn took(begun: Instant) -> Option<String> {
    let time = begun.elapsed();
    (time.as_secs() > 0 && std::io::stderr().is_terminal()).then(|| format!("{:.1} s", time.as_secs_f64()))
}
