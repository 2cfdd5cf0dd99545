//! A lab's journal: one JSON line a step, written before the step is applied.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{Error, Kind, Result};
use super::place::Place;
use super::step::{Step, Steps};

/// How much is written at a time, in bytes.
const WRITE: usize = 64 << 10;

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    /// A step that is about to be applied.
    Step {
        no: u64,
        word: Cow<'static, str>,
        data: Box<RawValue>,
        #[serde(default)]
        at: Place,
    },
    /// All steps up to this number are applied.
    Done { upto: u64 },
    /// The steps from this number on were taken back, or never applied.
    Undone { from: u64 },
}

/// A step with its number in the journal and the place that asked for it.
#[derive(Debug)]
pub struct Asked {
    /// Its number within the lab, counted from 1.
    pub no: u64,
    /// The step.
    pub step: Box<dyn Step>,
    /// Where the script asked for it.
    pub place: Place,
}

/// The open journal of a lab.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal for writing at its end, and makes it if there is none.
    pub(super) fn open(path: &Path) -> Result<Journal> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|source| Error::file(format!("open the journal `{}`", path.display()), &source))?;
        Ok(Journal { file, path: path.to_path_buf() })
    }

    /// Writes down `steps`.
    pub(super) fn write_ahead(&mut self, steps: &[Asked]) -> Result<()> {
        self.write(steps.iter().map(|asked| {
            let (word, at) = (asked.step.word().into(), asked.place.clone());
            Ok(Line::Step { no: asked.no, word, data: asked.step.data()?, at })
        }))
    }

    /// Writes down that all steps up to `upto` are applied.
    pub(super) fn done(&mut self, upto: u64) -> Result<()> {
        self.write([Ok(Line::Done { upto })])
    }

    /// Writes down that the steps from `from` on are no more.
    pub(super) fn undone(&mut self, from: u64) -> Result<()> {
        self.write([Ok(Line::Undone { from })])
    }

    /// Writes lines in few writes; after an error the journal is as it was.
    fn write(&mut self, lines: impl IntoIterator<Item = serde_json::Result<Line>>) -> Result<()> {
        let doing = || format!("write the journal `{}`", self.path.display());
        let before = self.file.metadata().map_err(|source| Error::file(doing(), &source))?.len();
        let mut text = Vec::new();
        let mut written = lines.into_iter().try_for_each(|line| {
            line.and_then(|line| serde_json::to_writer(&mut text, &line))
                .map_err(|source| Error::new(Kind::State, doing()).because(source))?;
            text.push(b'\n');
            if text.len() >= WRITE { self.put(&mut text) } else { Ok(()) }
        });
        written = written.and_then(|()| self.put(&mut text));
        if written.is_err() {
            // On a full disk a part of it may have been written, which a later line must not follow.
            let _ = self.file.set_len(before);
        }
        written
    }

    /// Writes `text` to the end, and empties it.
    fn put(&self, text: &mut Vec<u8>) -> Result<()> {
        // No fsync: a lab's kernel objects die with the machine, so its journal has nothing to outlive.
        (&self.file)
            .write_all(text)
            .map_err(|source| Error::file(format!("write the journal `{}`", self.path.display()), &source))?;
        text.clear();
        Ok(())
    }
}

/// Returns the fields of the steps of one sort in a journal; what can't be read is passed over: it is another lab's affair.
pub(super) fn fields_of(path: &Path, wanted: &str) -> Vec<Value> {
    let mut found: Vec<(u64, Value)> = Vec::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        match serde_json::from_str(line) {
            Ok(Line::Step { no, word, data, .. }) if word == wanted => {
                found.extend(serde_json::from_str(data.get()).map(|data| (no, data)));
            }
            Ok(Line::Undone { from }) => found.retain(|(no, _)| *no < from),
            _ => {}
        }
    }
    found.into_iter().map(|(_, data)| data).collect()
}

/// Reads the steps of a journal that were not taken back, in their order.
///
/// A last line without its newline is what a killed writer left: its step was never applied, so it is not one. Any other
/// line that can't be read is an error, and the journal is left as it is.
pub(super) fn read(path: &Path, steps: &Steps) -> Result<Vec<Asked>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::file(format!("read the journal `{}`", path.display()), &source)),
    };
    let mut asked = Vec::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let damaged = |because: String| {
            Error::new(Kind::State, format!("read the journal `{}`, line {}", path.display(), number + 1))
                .because(because)
                .hint(
                    "the file is damaged; nothing was changed. What the lab made bears its mark: `ip -d link` shows it",
                )
        };
        match serde_json::from_str(line).map_err(|source| damaged(source.to_string()))? {
            Line::Step { no, word, data, at } => {
                let step = steps.read(&word, &data).map_err(|error| damaged(error.to_string()))?;
                asked.push(Asked { no, step, place: at });
            }
            Line::Done { .. } => {}
            Line::Undone { from } => asked.retain(|asked: &Asked| asked.no < from),
        }
    }
    Ok(asked)
}
