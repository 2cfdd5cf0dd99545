//! The processes that run beside a script: where their supervisors keep records and logs, and what those tell.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{Error, Kind, Result};
use super::fold;
use super::name;
use super::refs::ProcessRef;
use super::state::{LabDir, StateDir};
use super::step::Steps;
use crate::net::process::bounded_log;
use crate::net::process::supervise;
use crate::net::{self, ProcessRecord};

/// How many of a lab's processes that have ended, and that its script has no handle to, are kept with their logs: the last ones. Not
/// those of an earlier process of the same name.
pub(super) const FINISHED_KEPT: usize = 32;

/// The files of one process.
#[derive(Debug, Clone)]
pub struct ProcessFiles {
    /// The log of its output.
    pub log: PathBuf,
    /// What its supervisor notes of it.
    pub record: PathBuf,
}

impl ProcessFiles {
    /// Returns the files of a process, in the directory for those of its lab.
    pub fn of(dir: &Path, process: &ProcessRef) -> ProcessFiles {
        let file = |extension: &str| dir.join(format!("{}-{}.{extension}", process.no, process.name));
        ProcessFiles { log: file("log"), record: file("json") }
    }

    /// Tells whether the process, or something that it has started, still runs.
    pub fn is_running(&self) -> bool {
        supervise::is_at_work(&self.log)
    }

    /// Reads what its supervisor has noted.
    pub fn record(&self) -> net::Result<Option<ProcessRecord>> {
        ProcessRecord::read(&self.record)
    }

    /// Says how it ended, after a colon, where that is known.
    pub fn end_in_words(&self) -> String {
        let ended = self.record().ok().flatten().and_then(|record| record.ended);
        ended.map_or(String::new(), |ended| format!(": {}", end_in_words(ended)))
    }

    /// Reads its whole output, as far as it was kept.
    pub fn text(&self) -> Result<String> {
        self.text_and_end().map(|(text, _)| text)
    }

    /// Reads its whole output, as far as it was kept, and returns where it goes on.
    pub fn text_and_end(&self) -> Result<(String, u64)> {
        bounded_log::read(&self.log).map_err(|source| self.failed(&source))
    }

    /// Reads its output from a byte of the whole on.
    pub fn text_from(&self, from: u64) -> Result<bounded_log::Piece> {
        bounded_log::read_from(&self.log, from).map_err(|source| self.failed(&source))
    }

    fn failed(&self, source: &std::io::Error) -> Error {
        Error::file(format!("read the log `{}`", self.log.display()), source)
    }

    /// Removes them.
    pub fn remove(&self) -> net::Result<()> {
        let doing = || format!("remove `{}`", self.record.display());
        net::fault::point(&doing())?;
        let failed = |source: std::io::Error| net::Error::io(doing(), source);
        bounded_log::remove(&self.log).map_err(failed)?;
        for file in [self.record.with_extension("new"), self.record.clone()] {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A process that a session watches: of one that was started beside the script its supervisor, with its name and its files.
pub type Watched = (net::ProcessId, Option<(String, ProcessFiles)>);

/// A process as it is now.
#[derive(Debug, Serialize)]
pub struct ProcessView {
    /// The user's name for it.
    pub name: String,
    /// The namespace that it was started in.
    pub netns: String,
    /// Its number, as it was when it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// "running", or how it ended: "exit code 3", "ended by SIGTERM", "killed with its supervisor".
    pub state: String,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code, where it has ended and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}

/// Says how a process ended.
fn end_in_words(ended: net::Ended) -> String {
    match ended.signal {
        Some(signal) => format!("ended by {}", net::process::signal::name(signal)),
        None => format!("exit code {}", ended.code),
    }
}

pub(super) fn view_process(dir: &Path, process: &ProcessRef) -> ProcessView {
    let files = ProcessFiles::of(dir, process);
    let running = files.is_running();
    let record = files.record().ok().flatten();
    let ended = record.as_ref().and_then(|record| record.ended);
    let state = match (running, ended) {
        // Between its last word and its end, the supervisor is still there.
        (_, Some(ended)) => end_in_words(ended),
        (true, None) => "running".into(),
        (false, None) => "killed with its supervisor".into(),
    };
    ProcessView {
        name: process.name.clone(),
        netns: process.netns.name.clone(),
        pid: record.map(|record| record.process.pid),
        state,
        running: running && ended.is_none(),
        code: ended.map(|ended| ended.code),
    }
}

/// The log of a process.
#[derive(Debug)]
pub struct LogView {
    /// The process.
    pub process: ProcessView,
    /// Its number within the lab.
    pub no: u32,
    /// Its files.
    pub files: ProcessFiles,
}

/// Returns the logs of a lab's processes, in the order of their starts: all, or those of the name `wanted`, `NETNS/NAME` or
/// `NAME`, of which the latest is meant.
pub fn logs_of(state: &StateDir, lab: &str, wanted: Option<&str>, steps: &Steps) -> Result<Vec<LogView>> {
    let dir: LabDir = state.find(lab)?;
    let (model, _) = fold::fold(&dir, &dir.record()?, steps)?;
    let all: Vec<&ProcessRef> = model.all_processes().collect();
    let view = |process: &&ProcessRef| LogView {
        process: view_process(&dir.processes(), process),
        no: process.no,
        files: ProcessFiles::of(&dir.processes(), process),
    };
    let Some(wanted) = wanted else { return Ok(all.iter().map(view).collect()) };
    let doing = || format!("find process `{}` of lab `{lab}`", name::shown(wanted));
    let (netns, name) = match wanted.rsplit_once('/') {
        Some((netns, name)) => (Some(netns), name),
        None => (None, wanted),
    };
    let is_it = |process: &&&ProcessRef| process.name == name && netns.is_none_or(|netns| process.netns.name == netns);
    let found: Vec<&&ProcessRef> = all.iter().filter(is_it).collect();
    let Some(last) = found.last() else {
        let ended = all.iter().filter(|process| !ProcessFiles::of(&dir.processes(), process).is_running()).count();
        let because = match ended {
            FINISHED_KEPT.. => {
                format!("there is no process of this name; of those that have ended the last {FINISHED_KEPT} are kept")
            }
            _ => "there is no process of this name".into(),
        };
        let error = Error::new(Kind::Missing, doing()).because(because);
        let names: Vec<&str> = all.iter().map(|process| process.name.as_str()).collect();
        return Err(match name::nearest(name, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if names.is_empty() => error.hint("the lab has started none: `ns.start(\"COMMAND\")` does"),
            None => error.hint(format!("it has: {}", names.join(", "))),
        });
    };
    if found.iter().any(|process| process.netns.no != last.netns.no) {
        let mut names: Vec<String> =
            found.iter().map(|process| format!("`{}/{}`", process.netns.name, process.name)).collect();
        names.dedup();
        return Err(Error::invalid(doing())
            .because("several netns have one of this name")
            .hint(format!("say which: {}", names.join(", "))));
    }
    Ok(vec![view(last)])
}

/// Watches the logs of a lab, if it has any.
pub fn watch_logs(state: &StateDir, lab: &str) -> Result<Option<bounded_log::LogWatch>> {
    let dir = state.find(lab)?.processes();
    match bounded_log::LogWatch::open(&dir) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        opened => {
            opened.map(Some).map_err(|source| Error::file(format!("watch the logs in `{}`", dir.display()), &source))
        }
    }
}
