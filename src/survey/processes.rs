//! The processes that run beside a script, and their logs, as their supervisors tell of them.

use std::path::Path;

use serde::Serialize;

use crate::lab::process_files::{FINISHED_KEPT, end_in_words};
use crate::lab::{ProcessFiles, Steps, fold};
use crate::net::process::bounded_log;
use crate::state::{Error, Kind, LabDir, ProcessRef, Result, StateDir, name};

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
