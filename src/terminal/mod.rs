//! The terminal: what a run has to say, tables, errors, and their colours. Data goes to stdout, talk to stderr.

pub mod environment;
pub mod exit;
mod output;
mod view;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::lab::{CheckResult, Event, Lab, Listener};
use crate::script::{Failure, Texts};
use crate::state::name;

pub use output::{data, failed, foreign, json, note, raw, talk};
pub use view::{dev_row, lab_text, netns_text};

/// Tells whether a stream takes colours: a `terminal` that is not dumb, of a user who has not set `NO_COLOR`.
pub fn wants_colour(terminal: bool) -> bool {
    terminal
        && environment::NO_COLOR.value().is_none_or(|value| value.is_empty())
        && environment::TERM.value().is_none_or(|term| term != "dumb")
}

/// Tells whether the terminal can only be written to line by line.
pub fn is_dumb() -> bool {
    environment::TERM.value().is_some_and(|term| term == "dumb")
}

/// Returns how many characters a line of the terminal has; 80 where that is not known.
pub fn width() -> usize {
    terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
}

/// Returns a text in bold green, bold red or dim, if stdout takes colours.
pub fn painted(text: &str, code: &str) -> String {
    match wants_colour(std::io::stdout().is_terminal()) {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_string(),
    }
}

/// Writes a failure with its excerpt to stderr.
pub fn report(failure: &Failure, texts: &Texts) {
    talk(&failure.render(texts, wants_colour(std::io::stderr().is_terminal())));
}

/// Lays out rows under titles.
pub fn table(titles: &[String], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(titles.iter().map(|title| Cell::new(title.to_uppercase())));
    for row in rows {
        table.add_row(row.iter().map(|text| Cell::new(name::one_line(text))));
    }
    let text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    // The first column's padding would put a space before every line.
    text.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

/// Writes a JSON value as a table's cell; a map's fields are words, as those of `nexthop via 10.0.0.1 dev eth0`.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let between = if list.iter().any(Value::is_object) { ", " } else { " " };
            list.iter().map(cell).collect::<Vec<_>>().join(between)
        }
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| format!("{name} {}", cell(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// What a run says, kept for `--json`.
#[derive(Debug, Default)]
pub struct Said {
    /// What the script printed.
    pub printed: Vec<String>,
    /// Its tables, each a list of objects.
    pub tables: Vec<Value>,
    /// What it gave as its result.
    pub result: Option<Value>,
}

/// How a run says things.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// As one JSON object at the end.
    pub json: bool,
    /// With each step and its equivalent.
    pub trace: bool,
}

/// Returns a listener that shows a run's events, and what it keeps for `--json`.
pub fn listener(style: Style) -> (Listener, Rc<RefCell<Said>>) {
    let said = Rc::new(RefCell::new(Said::default()));
    let kept = said.clone();
    let listen = move |event: &Event| match event {
        Event::Step { undo, doing, like, place } => {
            if style.trace {
                talk(&step(*undo, doing, like, &place.to_string()));
            }
        }
        Event::Print(text) if style.json => kept.borrow_mut().printed.push(text.clone()),
        Event::Print(text) => raw(&format!("{text}\n")),
        Event::Debug(text) => talk(&format!("{text}\n")),
        Event::Warning(text) => {
            let coloured = wants_colour(std::io::stderr().is_terminal());
            let word = if coloured { "\x1b[1;33mwarning\x1b[0m" } else { "warning" };
            talk(&format!("{word}: {}\n", name::printable(text)));
        }
        Event::Result(value) => kept.borrow_mut().result = Some(value.clone()),
        Event::Table(titles, rows) if style.json => kept.borrow_mut().tables.push(as_objects(titles, rows)),
        Event::Table(titles, rows) => {
            let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
            data(&table(titles, &rows));
        }
        Event::Progress(text) => match text {
            Some(text) => output::progress(text),
            None => output::clear(),
        },
        // Only a runner of tests has an ear for these.
        Event::AtFailure(_) | Event::ExpectFailure(_) | Event::TimeLimit(_) => {}
        Event::Check(_) if style.json => {}
        Event::Check(check) => data(&check_line(check)),
    };
    let listener = Listener::new(listen);
    if style.trace {
        return (listener, said);
    }
    let listener = listener.without_steps();
    // One line that is written over: of use to a person who looks on.
    let is_seen = std::io::stderr().is_terminal() && !is_dumb();
    (if is_seen { listener.with_progress() } else { listener }, said)
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
        true => format!("{} {}\n", painted("ok  ", "1;32"), name::printable(&check.sentence)),
        false => {
            let (sentence, measured) = (name::printable(&check.sentence), name::printable(&measured));
            format!("{} {sentence}{measured}  ({})\n", painted("FAIL", "1;31"), check.place)
        }
    }
}

/// Returns how long ago a time was, in one unit: `12s`, `5m`, `3h`, `2d`.
pub fn age(created: u64, now: u64) -> String {
    let seconds = now.saturating_sub(created);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns a count with its noun: `1 netns`, `2 devices`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Returns what a lab holds, in words: `2 netns, 3 devices`.
pub fn holds(lab: &mut Lab) -> String {
    let model = lab.model();
    let netns = model.all_netns().filter(|entry| entry.at.made).count();
    let devs = model.all_devs().filter(|entry| entry.dev.made).count();
    format!("{netns} netns, {}", counted(devs, "device", "devices"))
}
