//! The files of a process that runs beside a script: where its supervisor keeps its record and its log.

use std::path::{Path, PathBuf};

use crate::net::process::{bounded_log, supervise};
use crate::net::{self, ProcessRecord};
use crate::state::{Error, ProcessRef, Result};

/// How many of a lab's processes that have ended, and that its script has no handle to, are kept with their logs: the last ones. Not
/// those of an earlier process of the same name.
pub(crate) const FINISHED_KEPT: usize = 32;

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

/// Says how a process ended.
pub(crate) fn end_in_words(ended: net::Ended) -> String {
    match ended.signal {
        Some(signal) => format!("ended by {}", net::process::signal::name(signal)),
        None => format!("exit code {}", ended.code),
    }
}
