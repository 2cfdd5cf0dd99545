//! Results as one JSON document.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Counts, Tested};
use crate::cmd::test::outcome::TestStatus;
use crate::cmd::test::protocol::TestTrouble;

/// Returns the whole document.
pub(in crate::cmd::test) fn document(tests: &[Tested], time: Duration, interrupted: bool) -> Value {
    let counts = Counts::of(tests);
    json!({
        "ok": counts.failed == 0 && !interrupted,
        "interrupted": interrupted,
        "passed": counts.passed,
        "failed": counts.failed,
        "expected_failures": counts.expected,
        "skipped": counts.skipped,
        "not_run": counts.not_run + counts.interrupted,
        "seconds": rounded(time),
        "tests": tests.iter().map(test).collect::<Vec<_>>(),
    })
}

fn test(tested: &Tested) -> Value {
    let outcome = &tested.outcome;
    let mut value = json!({
        "file": tested.file,
        "test": tested.test,
        "line": tested.line,
        "about": tested.about,
        "status": outcome.status.word(),
        "seconds": rounded(outcome.time),
        "checks": outcome.checks.0,
        "failed_checks": outcome.checks.1,
    });
    let Some(map) = value.as_object_mut() else { return value };
    if let Some(reason) = &outcome.reason {
        map.insert("reason".into(), json!(reason));
    }
    if !outcome.troubles.is_empty() {
        map.insert("errors".into(), outcome.troubles.iter().map(error).collect());
    }
    if outcome.status == TestStatus::Failed {
        map.insert("lab".into(), json!(outcome.state));
        let logs: serde_json::Map<String, Value> =
            outcome.logs.iter().map(|(name, log)| (name.clone(), json!(log))).collect();
        map.insert("logs".into(), logs.into());
        map.insert("rerun".into(), json!(tested.rerun()));
    }
    if !outcome.output.is_empty() {
        map.insert("output".into(), json!(outcome.output));
    }
    if let Some(kept) = &outcome.kept {
        map.insert("kept".into(), json!(kept));
    }
    value
}

fn error(trouble: &TestTrouble) -> Value {
    let TestTrouble { phase, kind, message, hint, at, text, shown: _ } = trouble;
    json!({ "phase": phase, "kind": kind, "message": message, "hint": hint, "at": at, "text": text })
}

fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
