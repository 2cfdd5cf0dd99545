//! Results for people: a line for each test, the failures in full, a summary.

use std::time::Duration;

use super::{Counts, Tested, details};
use crate::cmd::test::outcome::TestStatus;
use crate::terminal::painted;

/// Returns the line of a test that has ended.
pub(in crate::cmd::test) fn line(tested: &Tested) -> String {
    let outcome = &tested.outcome;
    let (word, code) = match outcome.status {
        TestStatus::Passed => ("ok   ", "1;32"),
        TestStatus::Failed => ("FAIL ", "1;31"),
        TestStatus::Skipped => ("skip ", "1;33"),
        TestStatus::ExpectedFailure => ("xfail", "1;33"),
        TestStatus::Interrupted => ("stop ", "1;33"),
        TestStatus::NotRun => return String::new(),
    };
    let reason = outcome.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let time = painted(&format!("({:.2} s)", outcome.time.as_secs_f64()), "2");
    format!("{} {}{reason}  {time}\n", painted(word, code), tested.id())
}

/// Returns all that is known of a test that failed.
pub(in crate::cmd::test) fn failure(tested: &Tested) -> String {
    let mut text = format!("{}\n", painted(&format!("---- {} ----", tested.id()), "1"));
    for trouble in &tested.outcome.troubles {
        text.push_str(trouble.shown.as_ref().unwrap_or(&trouble.text));
    }
    text.push_str(&more(tested));
    match &tested.outcome.kept {
        Some(lab) => text.push_str(&format!(
            "its lab is kept as `{lab}`: `topo show {lab}`, `topo exec {lab}/NETNS COMMAND`, `topo repl {lab}`; `topo down {lab}` takes it down\n"
        )),
        None if !tested.test.is_empty() => text.push_str(&format!("run it alone: {}\n", tested.rerun())),
        None => {}
    }
    text.push('\n');
    text
}

/// Returns the parts of a report that stand behind the errors.
pub(in crate::cmd::test) fn more(tested: &Tested) -> String {
    let part = |(title, text): &(&str, String)| format!("{}\n{}", painted(&format!("{title}:"), "1"), shortened(text));
    details(tested).iter().map(part).collect()
}

/// Indents a text; of a long one the first lines and the last are shown.
fn shortened(text: &str) -> String {
    const FIRST: usize = 20;
    const LAST: usize = 60;
    let lines: Vec<&str> = text.lines().collect();
    let indented = |lines: &[&str]| -> String {
        lines.iter().map(|line| format!("  {line}").trim_end().to_string() + "\n").collect()
    };
    if lines.len() <= FIRST + LAST + 1 {
        return indented(&lines);
    }
    let left_out = lines.len() - FIRST - LAST;
    let note = format!("  … {left_out} lines left out; `--json` and `--junit` have more …\n");
    format!("{}{note}{}", indented(&lines[..FIRST]), indented(&lines[lines.len() - LAST..]))
}

/// Returns what a test printed that did not fail.
pub(in crate::cmd::test) fn output(tested: &Tested) -> String {
    tested.outcome.output.lines().map(|line| format!("      {line}").trim_end().to_string() + "\n").collect()
}

/// Returns the last line.
pub(in crate::cmd::test) fn summary(counts: &Counts, time: Duration) -> String {
    let well = counts.failed == 0 && counts.interrupted == 0;
    format!("{}\n", painted(&counts.summary(time), if well { "1;32" } else { "1;31" }))
}
