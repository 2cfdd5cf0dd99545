//! The processes of a lab that no namespace of the lab proves to be its own.
//!
//! A command that a script runs on the host may leave something running. So each run has a trail for its commands: a control group,
//! or where none can be made, a file with the sessions of the commands. In a sandbox the pid namespace is proof enough.
//!
//! ```text
//! MARK:NO                               the control group of the lab's process NO
//! MARK:run-PID-START                    the control group of the commands of a run
//! <root>/commands/LAB@PID-START         or the sessions of its commands: a line `PID START` each
//! ```
//!
//! Only root can make a group at the top of the tree, and only the user can write to the state directory. A process in a group is the
//! lab's. A session's number may be given again, so there the process mark, the user and the pid namespace must fit as well.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::PROCESS_MARK;
use super::ended;
use super::ended::EndedProcess;
use crate::net::{self, Cgroup, ProcessId, ProcessRecord, Trail, process};
use crate::state::{Error, LabDir, Marks, Result, StateDir, files, lab_of_mark};

/// How the name of the group of a run's commands begins, behind the mark.
const RUN: &str = "run-";

/// Names the control group of a process that runs beside the script.
pub(super) fn group_of_process(mark: &str, no: u32) -> String {
    format!("{mark}:{no}")
}

/// What a control group or a file of commands is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Process,
    Run(ProcessId),
}

impl Of {
    fn read(text: &str) -> Option<Of> {
        match text.strip_prefix(RUN) {
            Some(run) => read_run(run).map(Of::Run),
            None => text.parse::<u32>().ok().map(|_| Of::Process),
        }
    }
}

fn write_run(run: ProcessId) -> String {
    format!("{}-{}", run.pid, run.start)
}

fn read_run(text: &str) -> Option<ProcessId> {
    let (pid, start) = text.split_once('-')?;
    Some(ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? })
}

/// A control group of a lab, or the file of a run's commands.
#[derive(Debug)]
struct Found {
    /// The mark in the name of a group.
    mark: Option<String>,
    lab: String,
    of: Of,
    at: At,
}

#[derive(Debug)]
enum At {
    Group(Cgroup),
    File(PathBuf),
}

impl StateDir {
    fn commands(&self) -> PathBuf {
        self.root().join("commands")
    }

    /// Begins the trail of this run's commands; none in a sandbox.
    pub(super) fn begin_trail(&self, lab: &str, marks: &Marks) -> net::Result<Option<Trail>> {
        if self.inside().is_some() {
            return Ok(None);
        }
        let run = write_run(ProcessId::current()?);
        if let Some(group) = Cgroup::make(&format!("{}:{RUN}{run}", marks.mark))? {
            return Ok(Some(Trail::Group(group)));
        }
        let dir = self.commands();
        let path = dir.join(format!("{lab}@{run}"));
        let doing = format!("write `{}`", path.display());
        net::fault::point(&doing)?;
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let made = match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => open(),
        };
        made.map(|file| Some(Trail::List(file))).map_err(|error| net::Error::io(doing, error))
    }

    /// Gives this run's trail the lab's new name: what its commands left running is this lab's, and not that of a lab within it.
    pub(super) fn rename_trail(
        &self,
        trail: &Trail,
        old: &str,
        lab: &str,
        marks: &Marks,
    ) -> net::Result<Option<Trail>> {
        let run = write_run(ProcessId::current()?);
        let Trail::Group(group) = trail else {
            let (from, to) =
                (self.commands().join(format!("{old}@{run}")), self.commands().join(format!("{lab}@{run}")));
            let doing = format!("rename `{}`", from.display());
            std::fs::rename(&from, &to).map_err(|error| net::Error::io(&doing, error))?;
            let file = OpenOptions::new().append(true).open(&to).map_err(|error| net::Error::io(doing, error))?;
            return Ok(Some(Trail::List(file)));
        };
        let new = self.begin_trail(lab, marks)?;
        if let Some(Trail::Group(new)) = &new {
            group.move_into(new)?;
        }
        Ok(new)
    }

    /// Finds the control groups whose mark `is_wanted`, whose is still to be told, and all files of commands of this state directory.
    fn trails(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Found> {
        let mut found = Vec::new();
        let has_mark = |name: &str| name.rsplit_once(':').is_some_and(|(mark, _)| is_wanted(mark));
        for (name, group) in Cgroup::all(has_mark) {
            let Some((mark, of)) = name.rsplit_once(':') else { continue };
            let (Some(lab), Some(of)) = (lab_of_mark(mark), Of::read(of)) else { continue };
            let mark = Some(mark.to_string());
            found.push(Found { mark, lab: lab.to_string(), of, at: At::Group(group) });
        }
        for entry in std::fs::read_dir(self.commands()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((lab, run)) = name.rsplit_once('@') else { continue };
            let Some(run) = read_run(run) else { continue };
            found.push(Found { mark: None, lab: lab.to_string(), of: Of::Run(run), at: At::File(entry.path()) });
        }
        found
    }

    /// Tells whether a trail is one of this state directory.
    fn is_of_this_state(&self, found: &Found) -> Result<bool> {
        found.mark.as_ref().map_or(Ok(true), |mark| self.lab_of(mark).map(|lab| lab.is_some()))
    }

    /// Returns the trails of a lab: those of its processes, of its creator's commands, and of the commands of runs of its name that
    /// have ended or are this one.
    fn trails_of(&self, lab: &str, marks: &Marks, creator: ProcessId) -> Result<Vec<Found>> {
        let me = ProcessId::current().map_err(|source| Error::kernel("look at this process", &source))?;
        // A damaged secret is no reason to leave what has the lab's own mark.
        let is_named = |found: &Found| found.lab == lab && found.mark.as_ref().is_none_or(|mark| *mark == marks.mark);
        let is_its = |found: &Found| match found.of {
            Of::Process => is_named(found),
            Of::Run(run) => is_named(found) && (run == me || run == creator || !run.is_alive()),
        };
        Ok(self.trails(|mark| mark == marks.mark).into_iter().filter(is_its).collect())
    }

    /// Returns the processes of a lab that are proven to be its own by something else than a namespace: its supervisors, what is in its
    /// control groups, and what its commands and processes left in their process groups and sessions.
    ///
    /// `dir` is the lab's directory, if it has one; `creator` is the process that made the lab.
    pub(super) fn processes_of(
        &self,
        dir: Option<&LabDir>,
        lab: &str,
        marks: &Marks,
        creator: ProcessId,
    ) -> Result<Vec<ProcessId>> {
        self.left_of(dir, lab, marks, creator).map(|(processes, _)| processes)
    }

    /// Returns the processes of a lab, as `processes_of` does, and whether there are trails of it to be removed.
    pub(super) fn left_of(
        &self,
        dir: Option<&LabDir>,
        lab: &str,
        marks: &Marks,
        creator: ProcessId,
    ) -> Result<(Vec<ProcessId>, bool)> {
        if self.inside().is_some() {
            return with_mark(&marks.process_mark).map(|processes| (processes, false));
        }
        let records = dir.map_or(Vec::new(), supervised);
        let running = records.iter().filter(|record| record.ended.is_none()).map(|record| record.supervisor);
        let mut found: BTreeSet<ProcessId> = running.filter(ProcessId::is_alive).collect();
        let mut leaders: Vec<ProcessId> =
            records.iter().flat_map(|record| [record.supervisor, record.process]).collect();
        let trails = self.trails_of(lab, marks, creator)?;
        for trail in &trails {
            match &trail.at {
                At::Group(group) => found.extend(group.members()),
                At::File(path) => leaders.extend(read_list(path)?),
            }
        }
        // The look at all processes is for nothing where there was no command.
        if !leaders.is_empty() {
            found.extend(process::led_by(&leaders, &with_mark(&marks.process_mark)?, files::me()));
        }
        let me = std::process::id();
        Ok((found.into_iter().filter(|process| process.pid != me).collect(), !trails.is_empty()))
    }

    /// Removes the trails of a lab whose processes were ended; what is still in a group is killed.
    pub(super) fn end_trails(&self, lab: &str, marks: &Marks, creator: ProcessId) -> Result<()> {
        if self.inside().is_some() {
            return Ok(());
        }
        self.trails_of(lab, marks, creator)?.iter().try_for_each(|found| self.end_trail(found))
    }

    /// Removes the trail of this run for a lab where its commands left nothing running.
    pub(super) fn tidy_trail(&self, marks: &Marks) -> Result<()> {
        let me = ProcessId::current().map_err(|source| Error::kernel("look at this process", &source))?;
        if self.inside().is_some() {
            return Ok(());
        }
        let is_its = |found: &&Found| {
            let is_named = found.mark.as_ref().is_none_or(|mark| *mark == marks.mark);
            found.of == Of::Run(me) && is_named && lab_of_mark(&marks.mark) == Some(&found.lab)
        };
        for found in self.trails(|mark| mark == marks.mark).iter().filter(is_its) {
            let is_empty = match &found.at {
                At::Group(group) => group.members().is_empty(),
                At::File(path) => {
                    process::led_by(&read_list(path)?, &with_mark(&marks.process_mark)?, files::me()).is_empty()
                }
            };
            if is_empty {
                self.end_trail(found)?;
            }
        }
        Ok(())
    }

    fn end_trail(&self, found: &Found) -> Result<()> {
        match &found.at {
            At::Group(group) => group.end().map_err(|source| Error::kernel("end the lab's processes", &source)),
            At::File(path) => {
                files::remove(path).map_err(|source| Error::file(format!("remove `{}`", path.display()), &source))?;
                // One with something in it stays.
                let _ = std::fs::remove_dir(self.commands());
                Ok(())
            }
        }
    }

    /// Removes the control groups of other state directories that nobody can need: those are empty, and who made them has ended. Returns
    /// their names.
    ///
    /// They stay where a run was killed whose state directory is gone too, such as that of a test.
    pub(crate) fn remove_abandoned_groups(&self) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        if self.inside().is_some() {
            return Ok(removed);
        }
        for found in self.trails(|mark| lab_of_mark(mark).is_some()) {
            let At::Group(group) = &found.at else { continue };
            let failed = |source: net::Error| Error::kernel("remove what lost runs left", &source);
            if !self.is_of_this_state(&found)? && group.remove_abandoned().map_err(failed)? {
                removed.extend(group.path().file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok(removed)
    }

    /// Ends what labs left that are not `known`, and runs that have ended and are none of the `creators` of labs.
    pub(super) fn end_lost_trails(
        &self,
        known: impl Fn(&str) -> bool,
        creators: &[ProcessId],
        ended: &mut Vec<EndedProcess>,
    ) -> Result<()> {
        for found in self.trails(|mark| lab_of_mark(mark).is_some()) {
            let is_lost = !known(&found.lab)
                && self.is_of_this_state(&found)?
                && match found.of {
                    Of::Process => true,
                    Of::Run(run) => !creators.contains(&run) && !run.is_alive(),
                };
            if !is_lost {
                continue;
            }
            let left = match &found.at {
                At::Group(group) => group.members(),
                At::File(path) => {
                    let marked = with_mark(&self.marks(&found.lab)?.process_mark)?;
                    process::led_by(&read_list(path)?, &marked, files::me())
                }
            };
            ended::end_all(&left, ended)?;
            self.end_trail(&found)?;
        }
        Ok(())
    }
}

pub(super) fn with_mark(mark: &str) -> Result<Vec<ProcessId>> {
    process::with_env(PROCESS_MARK, |known| known == mark)
        .map_err(|source| Error::kernel("look for the lab's processes", &source))
}

/// Returns what the supervisors of a lab have noted.
fn supervised(dir: &LabDir) -> Vec<ProcessRecord> {
    let entries = std::fs::read_dir(dir.processes()).into_iter().flatten().flatten();
    let records = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "json"));
    records.filter_map(|path| ProcessRecord::read(&path).ok().flatten()).collect()
}

fn read_list(path: &std::path::Path) -> Result<Vec<ProcessId>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| read_run(&line.replace(' ', "-"))).collect()),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::file(format!("read `{}`", path.display()), &source)),
    }
}
