//! Standard output and standard error: what reaches a terminal, and what is done where it can't be written.
//!
//! What others wrote (names of devices and processes, sentences, logs) may hold control characters, by which a terminal is told to
//! do things. They are shown as escapes. A script's own `print` is written as it is.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::wants_colour;
use crate::state::{Error, name};

/// Why standard output could not be written, the first time.
static FAILED: Mutex<Option<String>> = Mutex::new(None);

/// Whether a line of progress is on the terminal.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Shows how far something has come, on a line of the terminal that the next text is written over.
pub(super) fn progress(text: &str) {
    let room = super::width().saturating_sub(1);
    let line: String = name::printable(text).chars().take(room).collect();
    SHOWN.store(true, Ordering::Relaxed);
    let _ = io::stderr().lock().write_all(format!("\r\x1b[K{line}").as_bytes());
}

/// Takes the line of progress away.
pub(super) fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        let _ = io::stderr().lock().write_all(b"\r\x1b[K");
    }
}

/// Writes data to stdout.
pub fn data(text: &str) {
    raw(&bordered(text, wants_colour(io::stdout().is_terminal())));
}

/// Writes to stdout as it is: what the user's own script prints, and what a pipe or file is to have unchanged.
pub fn raw(text: &str) {
    clear();
    let mut out = io::stdout().lock();
    note(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Writes to stdout what others wrote: to a terminal with escapes, else as it is.
pub fn foreign(text: &str) {
    if io::stdout().is_terminal() { data(text) } else { raw(text) }
}

/// Writes talk to stderr.
pub fn talk(text: &str) {
    clear();
    let text = bordered(text, wants_colour(io::stderr().is_terminal()));
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes one JSON value to stdout. JSON itself escapes only some of the control characters.
pub fn json(value: &serde_json::Value) {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        match c {
            '\n' => text.push(c),
            c if name::is_control(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    raw(&text);
}

/// Notes how a write to stdout went. A reader that has gone away, such as `head`, wants no more: that is no error.
pub fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| crate::net::io_text(&error));
    }
}

/// Returns the error of an output that could not be written.
pub fn failed() -> Option<Error> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.as_ref().map(|text| Error::new(crate::state::Kind::Failed, "write to standard output").because(text))
}

/// Escapes control characters, but for the colours of a stream that takes them.
fn bordered(text: &str, coloured: bool) -> Cow<'_, str> {
    if !coloured || !text.contains('\x1b') {
        return name::printable(text);
    }
    let mut parts = text.split('\x1b');
    let mut bordered = name::printable(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let is_code = |code: &str| code.chars().all(|c| c.is_ascii_digit() || c == ';');
        let colour = part.strip_prefix('[').and_then(|rest| rest.split_once('m')).filter(|(code, _)| is_code(code));
        match colour {
            Some((code, rest)) => bordered.push_str(&format!("\x1b[{code}m{}", name::printable(rest))),
            None => bordered.push_str(&format!("\\u{{1b}}{}", name::printable(part))),
        }
    }
    bordered.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_pass_and_only_where_they_are_wanted() {
        let text = "\x1b[1;32mok\x1b[0m \x1b]0;title\x07\x1b[2Jx\r\n\tü\u{9b}31m\u{202e}\n";
        let rest = "\\u{1b}]0;title\\u{7}\\u{1b}[2Jx\\r\n\tü\\u{9b}31m\\u{202e}\n";
        assert_eq!(bordered(text, true), format!("\x1b[1;32mok\x1b[0m {rest}"));
        assert_eq!(bordered(text, false), format!("\\u{{1b}}[1;32mok\\u{{1b}}[0m {rest}"));
        assert!(matches!(bordered("plain\n", true), Cow::Borrowed(_)));
    }
}
