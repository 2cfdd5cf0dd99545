//! The terminal: what a run has to say, tables, errors, and their colours.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::lab::{CheckResult, Error, Event, Kind, Listener};
use crate::script::{Failure, Texts};

/// Writes data to stdout. A reader that has gone away, such as `head`, is no error of ours.
pub(super) fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes talk to stderr.
pub(super) fn talk(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes one JSON value to stdout.
pub(super) fn json(value: &Value) {
    data(&format!("{value:#}\n"));
}

fn wants_colour(terminal: bool) -> bool {
    terminal
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns a text in bold green, bold red or dim, if stdout takes colours.
fn painted(text: &str, code: &str) -> String {
    match wants_colour(std::io::stdout().is_terminal()) {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_string(),
    }
}

/// Reports wrong usage, or prints help, and returns the exit code.
pub(super) fn usage(error: &clap::Error) -> u8 {
    let _ = error.print();
    if error.use_stderr() { 2 } else { 0 }
}

/// What kept a command from being done.
#[derive(Debug)]
pub(super) struct Trouble {
    failures: Vec<Failure>,
    code: u8,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble { code: exit_code(error.kind()), failures: vec![Failure::from(&error)] }
    }
}

impl From<Vec<Error>> for Trouble {
    fn from(errors: Vec<Error>) -> Trouble {
        let code = errors.iter().map(|error| exit_code(error.kind())).max().unwrap_or(1);
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

fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Unsupported => 3,
        _ => 1,
    }
}

/// Returns the exit code for a failed script.
pub(super) fn exit_code_of(failure: &Failure) -> u8 {
    match failure.kind.as_str() {
        "unsupported" => 3,
        "interrupted" => crate::net::signal::caught().map_or(130, |signal| 128 + u8::try_from(signal).unwrap_or(2)),
        _ => 1,
    }
}

/// Writes a failure with its excerpt to stderr.
pub(super) fn report(failure: &Failure, texts: &Texts) {
    talk(&failure.render(texts, wants_colour(std::io::stderr().is_terminal())));
}

/// Lays out rows under titles.
pub(super) fn table(titles: &[String], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(titles.iter().map(|title| Cell::new(title.to_uppercase())));
    for row in rows {
        table.add_row(row.iter().map(Cell::new));
    }
    let text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    // The first column's padding would put a space before every line.
    text.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

/// Writes a JSON value as a table's cell.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// What a run says, kept for `--json`.
#[derive(Debug, Default)]
pub(super) struct Said {
    printed: Vec<String>,
    tables: Vec<Value>,
    result: Option<Value>,
}

/// How a run says things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// As one JSON object at the end.
    pub json: bool,
    /// With each step and its equivalent.
    pub trace: bool,
}

/// Returns a listener that shows a run's events, and what it keeps for `--json`.
pub(super) fn listener(style: Style) -> (Listener, Rc<RefCell<Said>>) {
    let said = Rc::new(RefCell::new(Said::default()));
    let kept = said.clone();
    let listen = move |event: &Event| match event {
        Event::Step { undo, doing, like, place } => {
            if style.trace {
                talk(&step(*undo, doing, like, &place.to_string()));
            }
        }
        Event::Print(text) if style.json => kept.borrow_mut().printed.push(text.clone()),
        Event::Print(text) => data(&format!("{text}\n")),
        Event::Debug(text) => talk(&format!("{text}\n")),
        Event::Warning(text) => talk(&format!("{}: {text}\n", painted("warning", "1;33"))),
        Event::Result(value) => kept.borrow_mut().result = Some(value.clone()),
        Event::Table(titles, rows) if style.json => kept.borrow_mut().tables.push(as_objects(titles, rows)),
        Event::Table(titles, rows) => {
            let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
            data(&table(titles, &rows));
        }
        Event::Check(_) if style.json => {}
        Event::Check(check) => data(&check_line(check)),
    };
    (Box::new(listen), said)
}

fn as_objects(titles: &[String], rows: &[Vec<Value>]) -> Value {
    let object = |row: &Vec<Value>| -> Value {
        titles.iter().cloned().zip(row.iter().cloned()).collect::<serde_json::Map<_, _>>().into()
    };
    rows.iter().map(object).collect()
}

fn step(undo: bool, doing: &str, like: &[String], place: &str) -> String {
    if undo {
        return format!("- undo: {doing}\n");
    }
    let lines: String = like.iter().map(|line| format!("+ {line}\n")).collect();
    let at = if place.is_empty() { String::new() } else { format!("  ({place})") };
    format!("# {doing}{at}\n{lines}")
}

fn check_line(check: &CheckResult) -> String {
    let measured = check.measured.as_ref().map_or(String::new(), |text| format!(": {text}"));
    match check.ok {
        true => format!("{} {}\n", painted("ok  ", "1;32"), check.sentence),
        false => format!("{} {}{measured}  ({})\n", painted("FAIL", "1;31"), check.sentence, check.place),
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

/// Returns how long ago a time was, in one unit: `12s`, `5m`, `3h`, `2d`.
pub(super) fn age(created: u64, now: u64) -> String {
    let seconds = now.saturating_sub(created);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns a count with its noun: `1 netns`, `2 devices`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
