//! `topo test`: what becomes of tests that fail in every way that a test can, what a user is told of it, and that the others go on.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `told.rs` | what a user and a program see: text, TAP, JUnit, JSON, lists |
//! | `ways.rs` | the ways in which a test can fail, and be skipped |
//! | `around.rs` | Ctrl-C, kept labs, many tests at once, sandboxes side by side |

mod around;
mod told;
mod ways;

use regex_lite::Regex;
use serde_json::Value;

use crate::stage::{in_used_user_world, in_used_world};
use crate::world::World;

/// Runs `test` as root in a world that topo has used before; checks that it left nothing behind.
fn as_root(test: impl FnOnce(&World)) {
    in_used_world("", |world, _| test(world));
}

/// Runs `test` as an ordinary user in a world that topo has used before; checks that it left nothing behind.
fn as_user(test: impl FnOnce(&World)) {
    in_used_user_world("", |world, _| test(world));
}

/// Returns a text without what is another at each run: times.
fn timeless(text: &str) -> String {
    let times = [
        (r"\d+\.\d+ s\b", "T s"),
        (r"duration_ms: \d+", "duration_ms: N"),
        (r#"time="[0-9.]+""#, r#"time="T""#),
        (r#""seconds": [0-9.]+"#, r#""seconds": 0"#),
        (r"after [0-9.]+(ns|µs|ms|s)", "after T"),
    ];
    times.into_iter().fold(text.to_owned(), |text, (times, instead)| {
        Regex::new(times).expect("an expression").replace_all(&text, instead).into_owned()
    })
}

/// Runs `topo test --json` with one file of this text, and returns the report; the exit code must fit it.
fn report(w: &World, text: &str, options: &[&str]) -> Value {
    w.write("t.rhai", text);
    let ran = w.topo(&[&["test", "--json", "-j2"], options, &["t.rhai"]].concat());
    let report: Value = serde_json::from_str(ran.out()).unwrap_or_else(|err| panic!("no JSON: {err}: {ran:?}"));
    assert_eq!(ran.code, i32::from(report["failed"] != 0), "{ran:?}");
    report
}

/// Returns what a report says of a test.
fn of<'a>(report: &'a Value, test: &str) -> &'a Value {
    let mut rows = report["tests"].as_array().expect("tests").iter();
    rows.find(|row| row["test"] == test).unwrap_or_else(|| panic!("no {test} in {report:#}"))
}

/// Returns the sort and the message of the first error of a test.
fn first_error(row: &Value) -> (&str, &str) {
    let error = &row["errors"][0];
    (error["kind"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default())
}
