//! The step that starts a process beside the script, and what is known of one afterwards.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Kernel, Lab, Model, Op, Outcome, PROCESS_MARK, ProcessFiles, Step, StepSort, Unfinished};
use crate::net::process::{self, supervise};
use crate::net::{self, Cgroup, ProcessRecord, Supervised};
use crate::state::{Error, Kind, Marks, ProcessRef, Result};

/// The word by which the program calls itself as the supervisor of a process.
pub const SUPERVISE: &str = "__supervise";

/// How long a supervisor has between SIGTERM and SIGKILL: longer than it gives those below it.
const GRACE: Duration = Duration::from_secs(2);
/// How long processes may take to be gone after SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// How many lines of a log an error shows, and how much of each.
const SHOWN_LINES: usize = 10;
const SHOWN_CHARS: usize = 160;

/// Starts a process that runs beside the script.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StartProcess {
    pub(in crate::prim) process: ProcessRef,
    pub(super) argv: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cwd: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stdin: Option<String>,
    /// The files of /etc that it sees otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) etc: Vec<net::EtcFile>,
}

impl StartProcess {
    fn files(&self, kernel: &Kernel) -> net::Result<ProcessFiles> {
        Ok(ProcessFiles::of(&kernel.processes()?, &self.process))
    }
}

impl StepSort for StartProcess {
    const WORD: &'static str = "start-process";
}

impl Step for StartProcess {
    fn doing(&self) -> String {
        doing(&self.process)
    }

    fn like(&self) -> Vec<String> {
        let words: Vec<String> = self.argv.iter().map(|word| quoted(word)).collect();
        let env: String = self.env.iter().map(|(name, value)| format!("{name}={} ", quoted(value))).collect();
        let env = if env.is_empty() { env } else { format!("env {env}") };
        let netns = match self.process.netns.no {
            0 => String::new(),
            _ => format!("ip netns exec {} ", self.process.netns.name),
        };
        let input = if self.stdin.is_some() { " < INPUT" } else { "" };
        vec![format!("{netns}{env}{}{input} > {}.log 2>&1 &", words.join(" "), self.process.name)]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            starts: Some(&self.process),
            // Not in its namespace: what it has started may have left that.
            lives_in: Vec::new(),
            // What it starts may look at all that was made before it.
            waits_for: Unfinished::All,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.add_process(self.process.clone());
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let netns = kernel.netns(&self.process.netns)?;
            let files = self.files(kernel)?;
            let dir = kernel.processes()?;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|error| net::Error::io(format!("make `{}`", dir.display()), error))?;
            let group = Cgroup::make(&kernel.group_of(&self.process))?;
            let what = Supervised {
                argv: self.argv.clone(),
                env: self.env.clone(),
                cwd: self.cwd.clone(),
                stdin: self.stdin.clone(),
                log: files.log,
                record: files.record,
                etc: self.etc.clone(),
                cgroup: group.map(|group| group.path().to_path_buf()),
            };
            let Marks { mark, process_mark } = kernel.marks().clone();
            let shown = format!("{}/{}", self.process.netns.name, self.process.name);
            supervise::start(&netns, &what, (PROCESS_MARK, &process_mark), &[SUPERVISE, &mark, &shown])
                .map(|_| ())
                .map_err(|error| match error.errno() {
                    libc::ENOENT => error.saying(format!("there is no program `{}`", self.argv[0])),
                    libc::EACCES => error.saying(format!("`{}` can't be executed", self.argv[0])),
                    _ => error,
                })
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let files = self.files(kernel)?;
        // One that was killed between its start and its record is found by its group, or by its session.
        if let Some(record) = files.record()? {
            end(&record)?;
        }
        if let Some(group) = Cgroup::find(&kernel.group_of(&self.process)) {
            group.end()?;
        }
        files.remove()
    }

    /// One that ended by itself, or was stopped, is not missed. One whose supervisor was killed is, and one that is in a namespace
    /// that has lost its name.
    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        if !lab.has_netns(&self.process.netns) {
            return Ok(true);
        }
        let files = self.files(kernel)?;
        let running = files.is_running();
        match files.record()? {
            Some(record) if running => {
                let here = kernel.netns(&self.process.netns)?.id();
                Ok(net::Netns::of_pid(record.supervisor.pid).is_ok_and(|netns| netns.id() == here))
            }
            record => Ok(record.is_some_and(|record| record.ended.is_some())),
        }
    }
}

pub(in crate::prim) fn doing(process: &ProcessRef) -> String {
    match process.netns.no {
        0 => format!("start process `{}`", process.name),
        _ => format!("start process `{}` in netns `{}`", process.name, process.netns.name),
    }
}

/// Ends a process: its supervisor sees to it; where that was killed, whoever does this.
fn end(record: &ProcessRecord) -> net::Result<()> {
    let mut left = process::end(&[record.supervisor], GRACE)?;
    if record.ended.is_none() && record.process.is_alive() {
        left.extend(process::end(&[record.process], GRACE)?);
    }
    match left.first() {
        Some(left) => Err(net::Error::new("end a process", libc::ETIMEDOUT)
            .saying(format!("process {} is still running after SIGKILL", left.pid))),
        None => Ok(()),
    }
}

/// Writes a word as a shell needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A process as its supervisor knows it now.
pub(in crate::prim) enum State {
    Running(ProcessRecord),
    /// None where its supervisor was killed, and nobody knows.
    Ended(Option<net::Ended>),
}

/// Returns the files of a process that was not taken back.
pub(in crate::prim) fn files(lab: &mut Lab, process: &ProcessRef) -> Result<ProcessFiles> {
    let (kernel, model) = lab.foreign();
    model.known_process(process)?;
    let dir = kernel.processes().map_err(|source| Error::kernel(format!("look at {}", process.shown()), &source))?;
    Ok(ProcessFiles::of(&dir, process))
}

pub(in crate::prim) fn state(lab: &mut Lab, process: &ProcessRef) -> Result<State> {
    let files = files(lab, process)?;
    // In this order: what ends in between has noted how.
    let running = files.is_running();
    let failed = |source: net::Error| Error::kernel(format!("look at process {}", process.shown()), &source);
    Ok(match files.record().map_err(failed)? {
        Some(ProcessRecord { ended: Some(ended), .. }) => State::Ended(Some(ended)),
        Some(record) if running => State::Running(record),
        _ => State::Ended(None),
    })
}

/// Says how a process has ended.
pub(super) fn end_in_words(ended: Option<net::Ended>) -> String {
    match ended {
        Some(net::Ended { signal: Some(signal), .. }) => format!("was ended by {}", net::process::signal::name(signal)),
        Some(net::Ended { code, .. }) => format!("ended with exit code {code}"),
        None => "was killed with its supervisor".into(),
    }
}

/// Waits until a process and all that it has started have ended; tells how, or nothing if the time is up before that.
pub(in crate::prim) fn wait(
    lab: &mut Lab,
    process: &ProcessRef,
    within: Option<Duration>,
) -> Result<Option<Option<net::Ended>>> {
    let record = match state(lab, process)? {
        State::Ended(ended) => return Ok(Some(ended)),
        State::Running(record) => record,
    };
    let doing = format!("wait for process {}", process.shown());
    let over = lab
        .wait_for(&doing, process::over_within(record.supervisor, within))
        .map_err(|source| Error::kernel(&doing, &source))?;
    match (over, state(lab, process)?) {
        (_, State::Ended(ended)) => Ok(Some(ended)),
        (true, State::Running(_)) => Ok(Some(None)),
        (false, State::Running(_)) => Ok(None),
    }
}

/// Ends a process and all that it has started: by `signal`, and after `deadline` by SIGKILL. Tells how it ended, and whether it
/// had to be killed.
pub(super) fn stop(
    lab: &mut Lab,
    process: &ProcessRef,
    signal: i32,
    deadline: Duration,
) -> Result<(Option<net::Ended>, bool)> {
    let doing = format!("stop process {}", process.shown());
    for (signal, within, killed) in [(signal, deadline, false), (libc::SIGKILL, KILLED_WITHIN, true)] {
        let record = match state(lab, process)? {
            State::Ended(ended) => return Ok((ended, false)),
            State::Running(record) => record,
        };
        let send = |signal| record.pass_on(signal).map_err(|source| Error::kernel(&doing, &source));
        send(signal)?;
        // One that was stopped gets it only so.
        send(libc::SIGCONT)?;
        if let Some(ended) = wait(lab, process, Some(within))? {
            return Ok((ended, killed));
        }
    }
    Err(Error::new(Kind::Timeout, doing).because("something of it is still running after SIGKILL"))
}

/// Returns the last lines of a log, for an error.
pub(super) fn tail(files: &ProcessFiles) -> String {
    let text = files.text().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    if last.is_empty() {
        return "; it wrote nothing".into();
    }
    let line = |line: &&str| -> String {
        let plain: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
        format!("\n    {}", plain.trim_end())
    };
    format!("; its log ends with:{}", last.iter().map(line).collect::<String>())
}
