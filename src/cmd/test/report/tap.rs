//! Results in the Test Anything Protocol, version 14 (testanything.org).

use super::{Tested, details};
use crate::cmd::test::outcome::TestStatus;

/// Returns how a report begins that tells of `count` tests.
pub(in crate::cmd::test) fn head(count: usize) -> String {
    format!("TAP version 14\n1..{count}\n")
}

/// Returns the lines of one test; `number` counts them from 1.
pub(in crate::cmd::test) fn test(number: usize, tested: &Tested) -> String {
    let outcome = &tested.outcome;
    let reason = escaped(outcome.reason.as_deref().unwrap_or_default());
    let (word, directive) = match outcome.status {
        TestStatus::Passed => ("ok", String::new()),
        TestStatus::Skipped => ("ok", format!(" # SKIP {reason}")),
        TestStatus::ExpectedFailure => ("not ok", format!(" # TODO {reason}")),
        TestStatus::Failed | TestStatus::Interrupted => ("not ok", String::new()),
        TestStatus::NotRun => ("ok", " # SKIP not run".into()),
    };
    let mut text = format!("{word} {number} - {}{directive}\n", escaped(&tested.id()));
    text.push_str(&format!("  ---\n  duration_ms: {}\n", outcome.time.as_millis()));
    if !outcome.troubles.is_empty() {
        let messages: Vec<&str> = outcome.troubles.iter().map(|trouble| trouble.message.as_str()).collect();
        text.push_str(&field("message", &messages.join("\n")));
        if let Some(spot) = outcome.troubles.iter().find_map(|trouble| trouble.at.first()) {
            text.push_str(&format!(
                "  at:\n    file: {}\n    line: {}\n    column: {}\n",
                word_of(&spot.source),
                spot.line,
                spot.column
            ));
        }
        let errors: String = outcome.troubles.iter().map(|trouble| trouble.text.as_str()).collect();
        text.push_str(&field("errors", &errors));
        details(tested).iter().for_each(|(title, part)| text.push_str(&field(&title.replace(' ', "_"), part)));
        text.push_str(&field("rerun", &tested.rerun()));
    }
    text.push_str("  ...\n");
    text
}

/// Returns how a report ends that was cut short.
pub(in crate::cmd::test) fn bail_out() -> String {
    "Bail out! interrupted\n".into()
}

/// Escapes what TAP reads in a description: `#` begins a directive.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#").replace('\n', " ")
}

/// Writes a string as YAML, which takes JSON's.
fn word_of(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes a field of the YAML block: a text of many lines as one block, any other as a string.
fn field(name: &str, text: &str) -> String {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    // A block's first line gives its indentation, so it must have none of its own; control characters need escapes.
    if !text.contains('\n') || text.contains(odd) {
        return format!("  {name}: {}\n", word_of(text));
    }
    let lines: String = text.lines().map(|line| format!("    {line}").trim_end().to_string() + "\n").collect();
    format!("  {name}: |2-\n{lines}")
}
