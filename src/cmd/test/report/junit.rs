//! Results as JUnit's XML, which every CI system reads: a suite for each file, a case for each test.
//!
//! It is written here, since quick-junit (0.8, with nine more crates) loses the line ends of a failure's message and lets U+FFFE through,
//! with which no XML parser takes the file.

use std::time::Duration;

use super::{Counts, Tested, details};
use crate::cmd::test::outcome::TestStatus;

/// Returns the whole document.
pub(in crate::cmd::test) fn document(tests: &[Tested], time: Duration) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!("<testsuites name=\"topo test\" {}>\n", numbers(tests, time)));
    for suite in tests.chunk_by(|left, right| left.file == right.file) {
        let Some(first) = suite.first() else { continue };
        let time = suite.iter().map(|tested| tested.outcome.time).sum();
        text.push_str(&format!("  <testsuite name=\"{}\" {}>\n", escaped(&first.file), numbers(suite, time)));
        suite.iter().for_each(|tested| text.push_str(&case(tested)));
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn numbers(tests: &[Tested], time: Duration) -> String {
    let counts = Counts::of(tests);
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\"",
        tests.len(),
        counts.failed,
        counts.interrupted,
        counts.skipped + counts.not_run,
        time.as_secs_f64()
    )
}

fn case(tested: &Tested) -> String {
    let outcome = &tested.outcome;
    let name = if tested.test.is_empty() { "(the file)" } else { &tested.test };
    let mut inner = String::new();
    match outcome.status {
        TestStatus::Failed => {
            let message = outcome.troubles.first().map_or("", |trouble| trouble.message.as_str());
            let kind = outcome.troubles.first().map_or("failed", |trouble| trouble.kind.as_str());
            let mut body: String = outcome.troubles.iter().map(|trouble| trouble.text.as_str()).collect();
            for (title, part) in details(tested).iter().filter(|(title, _)| *title != "output") {
                body.push_str(&format!("{title}:\n{part}"));
            }
            body.push_str(&format!("run it alone: {}\n", tested.rerun()));
            let (message, kind) = (escaped(message), escaped(kind));
            inner.push_str(&format!(
                "      <failure message=\"{message}\" type=\"{kind}\">{}</failure>\n",
                escaped(&body)
            ));
        }
        TestStatus::Skipped => {
            let reason = escaped(outcome.reason.as_deref().unwrap_or_default());
            inner.push_str(&format!("      <skipped message=\"{reason}\"/>\n"));
        }
        TestStatus::NotRun => inner.push_str("      <skipped message=\"not run\"/>\n"),
        TestStatus::Interrupted => inner.push_str("      <error message=\"interrupted\" type=\"interrupted\"/>\n"),
        TestStatus::ExpectedFailure | TestStatus::Passed => {}
    }
    if outcome.status == TestStatus::ExpectedFailure {
        let reason = outcome.reason.as_deref().unwrap_or_default();
        inner.push_str(&format!(
            "      <system-err>{}</system-err>\n",
            escaped(&format!("failed as expected: {reason}"))
        ));
    }
    if !outcome.output.is_empty() && outcome.status == TestStatus::Failed {
        inner.push_str(&format!("      <system-out>{}</system-out>\n", escaped(&outcome.output)));
    }
    let (class, name, time) = (escaped(&tested.file), escaped(name), outcome.time.as_secs_f64());
    let place = format!("file=\"{class}\" line=\"{}\"", tested.line);
    let open = format!("    <testcase classname=\"{class}\" name=\"{name}\" {place} time=\"{time:.3}\"");
    if inner.is_empty() { format!("{open}/>\n") } else { format!("{open}>\n{inner}    </testcase>\n") }
}

/// Escapes a text for XML; what XML 1.0 can't hold at all (section 2.2) becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // In an attribute a bare one would be read as a space.
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\r' => escaped.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_can_not_hold_is_replaced() {
        assert_eq!(escaped("a<b>&\"c\"\u{1b}[1m\n"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}[1m&#10;");
        assert_eq!(escaped("\u{fffe}\u{0}\u{7}"), "\u{fffd}\u{fffd}\u{fffd}");
    }
}
