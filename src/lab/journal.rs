//! A lab's journal: one line a step, written before the step is applied.
//!
//! Its first line has a fixed length and is written over in place: how many bytes the journal has, how many it may have while
//! some are being written, up to which step all are applied, and a check sum over all lines. Each other line is a check sum and
//! JSON. So a byte that was lost, added or changed is seen, while what a killed writer left is no damage: its steps were not
//! applied yet.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::footprint::Moved;
use super::step::{Step, Steps};
use crate::net;
use crate::net::regular::{self, STATE_BYTES_MAX};
use crate::state::sum::{CHANGED, Sum};
use crate::state::{Error, Kind, LabDir, Place, Record, Result};

/// How much is written at a time, in bytes.
const WRITE: usize = 64 << 10;

/// How many lines a journal may have that say nothing any more, and a quarter as many as it has steps.
const IDLE_LINES: usize = 16;

/// How often a journal is read again that another process writes to.
const READS_MAX: usize = 1000;

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum JournalLine {
    /// A step that is about to be applied.
    Step {
        no: u64,
        word: Cow<'static, str>,
        data: Box<RawValue>,
        #[serde(default)]
        at: Place,
    },
    /// The steps from this number on were taken back, or never applied.
    Undone { from: u64 },
    /// The steps of these numbers, in their order, have left nothing to take back: the processes that they started have ended.
    Over { steps: Vec<u64> },
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

/// The first line of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct JournalHead {
    /// What the check sums of this journal begin with, by which no other lab's is taken for it.
    id: Sum,
    /// How many bytes the journal has at least, this line included. What is behind them was being written, and not applied.
    whole: u64,
    /// How many bytes it has at most: more than `whole` only while some are being written.
    writing: u64,
    /// All steps up to this number are applied.
    done: u64,
    /// The check sum of the check sums of all lines.
    lines: Sum,
}

impl JournalHead {
    /// How many bytes it has.
    const LEN: usize = "journal id= whole= writing= done= lines= sum=\n".len() + 3 * 16 + 3 * Sum::LEN;

    fn empty(id: Sum) -> JournalHead {
        JournalHead { id, whole: JournalHead::LEN as u64, writing: JournalHead::LEN as u64, done: 0, lines: id }
    }

    fn text(&self) -> String {
        let JournalHead { id, whole, writing, done, lines } = self;
        let text = format!("journal id={id} whole={whole:016} writing={writing:016} done={done:016} lines={lines}");
        format!("{text} sum={}\n", Sum::of(text.as_bytes()))
    }

    /// Reads it from the beginning of a journal; only what `text` writes is one.
    fn parse(journal: &[u8]) -> Option<JournalHead> {
        let line = journal.get(..JournalHead::LEN)?;
        let mut words = std::str::from_utf8(line).ok()?.split_whitespace().skip(1);
        let mut word = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let id = Sum::parse(word("id")?.as_bytes())?;
        let whole = word("whole")?.parse().ok()?;
        let writing = word("writing")?.parse().ok()?;
        let done = word("done")?.parse().ok()?;
        let lines = Sum::parse(word("lines")?.as_bytes())?;
        let head = JournalHead { id, whole, writing, done, lines };
        (head.text().as_bytes() == line).then_some(head)
    }
}

/// The open journal of a lab.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    head: JournalHead,
    /// How many lines it has behind the first.
    lines: usize,
}

impl Journal {
    /// Makes the journal of a new lab.
    pub(super) fn create(dir: &LabDir, record: &Record) -> Result<Journal> {
        Journal::make(dir.journal(), id_of(record))
    }

    fn make(path: PathBuf, id: Sum) -> Result<Journal> {
        let mut options = OpenOptions::new();
        let file = regular::open(&path, options.create(true).truncate(true).read(true).write(true).mode(0o600));
        let file = file.map_err(|source| Error::file(format!("make the journal `{}`", path.display()), &source))?;
        let mut journal = Journal { file, path, head: JournalHead::empty(id), lines: 0 };
        journal.note(journal.head)?;
        Ok(journal)
    }

    /// Opens the journal of a lab to go on with it.
    pub(crate) fn open(dir: &LabDir, record: &Record) -> Result<Journal> {
        let path = dir.journal();
        let (_, JournalContent { head, lines }) = load(dir, record)?;
        let doing = || format!("open the journal `{}`", path.display());
        let failed = |source: std::io::Error| Error::file(doing(), &source);
        let file = regular::open(&path, OpenOptions::new().read(true).write(true)).map_err(failed)?;
        let mut journal = Journal { file, path: path.clone(), head, lines: lines.len() };
        if head.writing != head.whole {
            // What a killed process was writing goes.
            journal.file.set_len(head.whole).map_err(failed)?;
            journal.note(JournalHead { writing: head.whole, ..head })?;
        }
        Ok(journal)
    }

    /// Writes down `steps`.
    pub(super) fn write_ahead(&mut self, steps: &[Asked]) -> Result<()> {
        self.write(steps.iter().map(|asked| {
            let (word, at) = (asked.step.word().into(), asked.place.clone());
            Ok(JournalLine::Step { no: asked.no, word, data: asked.step.data()?, at })
        }))
    }

    /// Writes down that all steps up to `upto` are applied.
    pub(crate) fn done(&mut self, upto: u64) -> Result<()> {
        self.note(JournalHead { done: upto, ..self.head })
    }

    /// Writes down that the steps from `from` on are no more.
    pub(super) fn undone(&mut self, from: u64) -> Result<()> {
        self.write([Ok(JournalLine::Undone { from })])?;
        self.note(JournalHead { done: self.head.done.min(from.saturating_sub(1)), ..self.head })
    }

    /// Writes down that the steps of these numbers have left nothing to take back.
    pub(super) fn over(&mut self, steps: Vec<u64>) -> Result<()> {
        self.write([Ok(JournalLine::Over { steps })])
    }

    /// Writes the journal anew once many of its lines say nothing any more; `steps` are all that it has, and all are applied.
    pub(super) fn tidy(&mut self, steps: &[Asked]) {
        if self.lines > steps.len() + steps.len() / 4 + IDLE_LINES {
            // Where there is no room for it the old one goes on: it says the same.
            let _ = self.write_anew(steps);
        }
    }

    /// Writes the journal anew, beside the old one, whose place it then takes: a killed process leaves the old one or the new one.
    fn write_anew(&mut self, steps: &[Asked]) -> Result<()> {
        let beside = self.path.with_extension("new");
        let written = Journal::make(beside.clone(), self.head.id).and_then(|mut new| {
            new.write_ahead(steps)?;
            new.done(self.head.done)?;
            let failed = |source: net::Error| Error::kernel(self.doing(), &source);
            net::fault::file_point(&self.doing()).map_err(failed)?;
            std::fs::rename(&beside, &self.path).map_err(|source| Error::file(self.doing(), &source))?;
            Ok(new)
        });
        match written {
            Ok(new) => *self = Journal { path: std::mem::take(&mut self.path), ..new },
            Err(error) => {
                let _ = std::fs::remove_file(&beside);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes lines in few writes; after an error the journal is as it was.
    fn write(&mut self, lines: impl IntoIterator<Item = serde_json::Result<JournalLine>>) -> Result<()> {
        let before = self.head;
        let mut text = Vec::new();
        let mut sum = before.lines;
        let mut count = 0;
        let mut written = lines.into_iter().try_for_each(|line| {
            count += 1;
            let json = line.and_then(|line| serde_json::to_vec(&line));
            let json = json.map_err(|source| Error::new(Kind::State, self.doing()).because(source))?;
            let of_line = before.id.and(&json).to_string();
            sum = sum.and(of_line.as_bytes());
            text.extend_from_slice(of_line.as_bytes());
            text.push(b' ');
            text.extend_from_slice(&json);
            text.push(b'\n');
            if text.len() >= WRITE { self.put(&mut text, sum) } else { Ok(()) }
        });
        written = written.and_then(|()| if text.is_empty() { Ok(()) } else { self.put(&mut text, sum) });
        if written.is_err() {
            // On a full disk a part of it may have been written.
            let _ = self.file.set_len(before.whole);
            let _ = self.note(before);
            return written;
        }
        self.lines += count;
        written
    }

    /// Writes `text` to the end, and empties it; `sum` is that of all lines then.
    fn put(&mut self, text: &mut Vec<u8>, sum: Sum) -> Result<()> {
        let end = self.head.whole + text.len() as u64;
        self.note(JournalHead { writing: end, ..self.head })?;
        // No fsync: a lab's kernel objects die with the machine, so its journal has nothing to outlive.
        let written = self.file.write_all_at(text, self.head.whole);
        written.map_err(|source| Error::file(self.doing(), &source))?;
        text.clear();
        self.note(JournalHead { whole: end, writing: end, lines: sum, ..self.head })
    }

    /// Writes the first line. It stands in one block of the file, so a killed process leaves the old one or the new one.
    fn note(&mut self, head: JournalHead) -> Result<()> {
        let written = self.file.write_all_at(head.text().as_bytes(), 0);
        written.map_err(|source| Error::file(self.doing(), &source))?;
        self.head = head;
        Ok(())
    }

    fn doing(&self) -> String {
        format!("write the journal `{}`", self.path.display())
    }
}

/// Returns what the check sums of a lab's journal begin with.
fn id_of(record: &Record) -> Sum {
    let id = [record.created, u64::from(record.creator.pid), record.creator.start];
    Sum::of(&id.map(u64::to_le_bytes).concat())
}

/// What a journal says.
struct JournalContent {
    head: JournalHead,
    lines: Vec<JournalLine>,
}

/// What is wrong with a journal: in which line, counted from 1, or in all of it.
#[derive(Debug, PartialEq, Eq)]
struct Damage {
    line: Option<usize>,
    because: String,
}

impl Damage {
    fn in_line(line: usize, because: impl Into<String>) -> Damage {
        Damage { line: Some(line), because: because.into() }
    }
}

/// Reads a line behind the first one, without its end, and its check sum; nothing where that does not fit.
fn sum_of_line(line: &[u8], id: Sum) -> Option<(&[u8], &[u8])> {
    let (sum, json) = line.split_at_checked(Sum::LEN)?;
    let json = json.strip_prefix(b" ")?;
    (id.and(json).to_string().as_bytes() == sum).then_some((sum, json))
}

/// Takes how far the reading of a journal is, in per cent.
type Tell<'t> = &'t mut dyn FnMut(usize);

fn percent(done: usize, all: usize) -> usize {
    done * 100 / all.max(1)
}

/// Reads a whole journal, which must have the id `id`.
fn parse(text: &[u8], id: Sum, tell: Tell<'_>) -> std::result::Result<JournalContent, Damage> {
    let Some(head) = JournalHead::parse(text) else { return Err(Damage::in_line(1, CHANGED)) };
    if head.id != id {
        return Err(Damage { line: None, because: "it is the journal of another lab".into() });
    }
    let (has, least, most) = (text.len() as u64, head.whole, head.writing);
    if has < least || has > most {
        return Err(Damage { line: None, because: format!("it has {has} bytes, and {least} were written") });
    }
    let (mut lines, mut read) = (Vec::new(), 0);
    let mut sum = id;
    let whole = text.get(JournalHead::LEN..usize::try_from(least).unwrap_or(0)).unwrap_or_default();
    for (at, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged = |because: String| Damage::in_line(at + 2, because);
        let parts = line.strip_suffix(b"\n").and_then(|line| sum_of_line(line, id));
        let (of_line, json) = parts.ok_or_else(|| damaged(CHANGED.into()))?;
        sum = sum.and(of_line);
        lines.push(serde_json::from_slice(json).map_err(|source| damaged(source.to_string()))?);
        read += line.len();
        tell(percent(read, whole.len()) / 2);
    }
    if sum != head.lines {
        let because = "its lines are not those that were written, or not in their order".into();
        return Err(Damage { line: None, because });
    }
    Ok(JournalContent { head, lines })
}

/// Reads the journal of a lab; one that is damaged is an error that names it.
fn load(dir: &LabDir, record: &Record) -> Result<(PathBuf, JournalContent)> {
    load_telling(dir, record, &mut |_| {})
}

fn load_telling(dir: &LabDir, record: &Record, tell: Tell<'_>) -> Result<(PathBuf, JournalContent)> {
    let path = dir.journal();
    let id = id_of(record);
    let mut text = read_file(dir, &path)?;
    for _ in 0..READS_MAX {
        match parse(&text, id, tell) {
            Ok(content) => return Ok((path, content)),
            Err(damage) => {
                let again = read_file(dir, &path)?;
                if again == text {
                    return Err(damaged(dir, &damage));
                }
                // A process is writing to it.
                text = again;
            }
        }
    }
    Err(damaged(dir, &Damage { line: None, because: "it changes all the time".into() }))
}

fn read_file(dir: &LabDir, path: &Path) -> Result<Vec<u8>> {
    regular::read(path, STATE_BYTES_MAX).map_err(|source| match source.kind() {
        // Not even a run that was killed early leaves a lab without one.
        ErrorKind::NotFound if dir.path().is_dir() => {
            damaged(dir, &Damage { line: None, because: "the file is missing".into() })
        }
        _ => Error::file(format!("read the journal `{}`", path.display()), &source),
    })
}

fn damaged(dir: &LabDir, damage: &Damage) -> Error {
    let path = dir.journal();
    let doing = match damage.line {
        Some(line) => format!("read the journal `{}`, line {line}", path.display()),
        None => format!("read the journal `{}`", path.display()),
    };
    Error::new(Kind::State, doing).because(&damage.because).hint(dir.way_on())
}

/// Returns the lines whose own check sum fits, and the numbers of the others; the first line is not looked at.
fn readable(text: &[u8], id: Sum) -> (Vec<JournalLine>, Vec<usize>) {
    let mut lines = Vec::new();
    let mut bad = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        match sum_of_line(line, id).and_then(|(_, json)| serde_json::from_slice(json).ok()) {
            Some(line) => lines.push(line),
            None => bad.push(at + 1),
        }
    }
    (lines, bad)
}

/// The steps of a journal.
#[derive(Debug)]
pub(crate) struct Steplist {
    /// Those that were not taken back, in their order.
    pub(crate) asked: Vec<Asked>,
    /// All of them up to this number are applied; of the others nobody knows.
    pub(crate) done: u64,
}

/// Reads the steps of a journal that were not taken back, in their order.
///
/// One that lost, gained or changed a byte is an error, and is left as it is. What a killed process was writing was not applied
/// yet, and is not among them.
pub(crate) fn read(dir: &LabDir, record: &Record, steps: &Steps) -> Result<Steplist> {
    read_telling(dir, record, steps, &mut |_| {})
}

/// The same; `tell` gets how far it is, for each line.
pub(super) fn read_telling(dir: &LabDir, record: &Record, steps: &Steps, tell: Tell<'_>) -> Result<Steplist> {
    let (path, JournalContent { head, lines }) = load_telling(dir, record, tell)?;
    let (mut asked, all) = (Vec::new(), lines.len());
    for (at, line) in lines.into_iter().enumerate() {
        enter(&mut asked, line, steps).map_err(|error| {
            let doing = format!("read the journal `{}`, line {}", path.display(), at + 2);
            let hint = error.hint_text().map(String::from);
            let error = Error::new(Kind::State, doing).because(error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        tell(50 + percent(at + 1, all) / 2);
    }
    Ok(Steplist { asked, done: head.done })
}

/// Reads how the steps of a lab moved devices, in their order.
pub(super) fn moves(dir: &LabDir, record: &Record) -> Result<Vec<Moved>> {
    let mut found: Vec<(u64, Moved)> = Vec::new();
    for line in load(dir, record)?.1.lines {
        match line {
            JournalLine::Step { no, word, data, .. } if word == Moved::WORD => {
                found.extend(serde_json::from_str(data.get()).ok().map(|moved| (no, moved)));
            }
            JournalLine::Step { .. } | JournalLine::Over { .. } => {}
            JournalLine::Undone { from } => found.retain(|(no, _)| *no < from),
        }
    }
    Ok(found.into_iter().map(|(_, moved)| moved).collect())
}

/// Tells what is wrong with the journal of a lab, if anything is.
pub(crate) fn verify(dir: &LabDir, record: &Record) -> Result<()> {
    load(dir, record).map(|_| ())
}

/// Reads what can be read of a journal that may be damaged, and returns what is wrong with it.
pub(super) fn salvage(dir: &LabDir, record: &Record, steps: &Steps) -> (Steplist, Vec<Error>) {
    let mut errors = match read(dir, record, steps) {
        Ok(list) => return (list, Vec::new()),
        Err(error) => vec![error.hint("what else the lab changed there stays: look for it yourself")],
    };
    let text = regular::read(&dir.journal(), STATE_BYTES_MAX).unwrap_or_default();
    let head = JournalHead::parse(&text);
    let (lines, bad) = readable(&text, head.map_or_else(|| id_of(record), |head| head.id));
    let mut asked = Vec::new();
    errors.extend(lines.into_iter().filter_map(|line| enter(&mut asked, line, steps).err()));
    // The first one is in the error itself.
    errors.extend(bad.iter().skip(1).map(|line| damaged(dir, &Damage::in_line(*line, CHANGED))));
    (Steplist { asked, done: head.map_or(0, |head| head.done) }, errors)
}

fn enter(asked: &mut Vec<Asked>, line: JournalLine, steps: &Steps) -> Result<()> {
    match line {
        JournalLine::Step { no, word, data, at } => {
            asked.push(Asked { no, step: steps.read(&word, &data)?, place: at })
        }
        JournalLine::Undone { from } => asked.retain(|asked: &Asked| asked.no < from),
        JournalLine::Over { steps } => asked.retain(|asked| steps.binary_search(&asked.no).is_err()),
    }
    Ok(())
}

/// Tells whether a journal has more than its first line.
pub(super) fn has_steps(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.len() > JournalHead::LEN as u64)
}

#[cfg(test)]
mod tests;
