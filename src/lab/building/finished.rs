//! Processes that have ended: the last ones stay known with their logs, the others are forgotten.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Lab;
use crate::lab::ProcessFiles;
use crate::lab::process_files::FINISHED_KEPT;
use crate::state::{Error, ProcessRef, Result};

/// How many processes more there are before those that have ended are looked for again. The look costs a few reads for each.
const LOOK_EVERY: usize = 16;
/// With how many processes those that have ended are looked for first.
pub(super) const LOOK_FIRST: usize = FINISHED_KEPT + LOOK_EVERY;

impl Lab {
    /// Forgets the processes that have ended and that nobody needs: the script has no handle to them, and later ones have ended since
    /// or have their names. So a script may start any number of processes one after the other.
    ///
    /// To be called before another one is started.
    pub fn forget_finished(&mut self) -> Result<()> {
        if self.model.process_count() < self.look_for_finished {
            return Ok(());
        }
        self.settle()?;
        let gone = self.unneeded()?;
        // Half as many again: where most go on running, each look is for as many new ones.
        let left = self.model.process_count() - gone.len();
        self.look_for_finished = left + LOOK_EVERY.max(left / 2);
        if gone.is_empty() {
            return Ok(());
        }
        let is_gone = |process: Option<&ProcessRef>| process.is_some_and(|process| gone.contains(&process.no));
        let over = self.applied.extract_if(.., |asked| is_gone(asked.step.footprint().starts)).collect::<Vec<_>>();
        // The journal first: a lab whose journal has a process without its record counts as damaged.
        if let Some((_, journal)) = &mut self.claimed
            && let Err(error) = journal.over(over.iter().map(|asked| asked.no).collect())
        {
            self.applied.extend(over);
            self.applied.sort_unstable_by_key(|asked| asked.no);
            return Err(error);
        }
        gone.iter().for_each(|no| self.model.forget_process(*no));
        for asked in &over {
            asked.step.undo(&mut self.kernel).map_err(|source| {
                Error::kernel(format!("forget what has ended: {}", asked.step.doing()), &source).at(&asked.place)
            })?;
        }
        Ok(())
    }

    /// Returns the numbers of the processes that have ended and that nobody needs.
    fn unneeded(&self) -> Result<BTreeSet<u32>> {
        let dir = self.kernel.processes();
        let dir = dir.map_err(|source| Error::kernel("look for processes that have ended", &source))?;
        let ended = self.model.unheld_processes().filter_map(|process| Some((ended_at(&dir, process)?, process)));
        let mut ended: Vec<(SystemTime, &ProcessRef)> = ended.collect();
        ended.sort_by_key(|(at, process)| (std::cmp::Reverse(*at), std::cmp::Reverse(process.no)));
        let latest = latest_names(self.model.all_processes());
        let (named, replaced): (Vec<_>, Vec<_>) =
            ended.iter().map(|(_, process)| process.no).partition(|no| latest.contains(no));
        Ok(named.into_iter().skip(FINISHED_KEPT).chain(replaced).collect())
    }
}

/// Returns the numbers of those that `topo logs` finds by their names: of the same name in one netns the latest is meant.
fn latest_names<'a>(processes: impl Iterator<Item = &'a ProcessRef>) -> BTreeSet<u32> {
    let latest: std::collections::BTreeMap<(u32, &str), u32> =
        processes.map(|process| ((process.netns.no, process.name.as_str()), process.no)).collect();
    latest.into_values().collect()
}

/// Returns when a process ended, by the last change of its record; nothing for one that runs, or whose end nobody has noted.
fn ended_at(dir: &std::path::Path, process: &ProcessRef) -> Option<SystemTime> {
    let files = ProcessFiles::of(dir, process);
    // In this order: the supervisor notes the end, and ends then itself.
    files.record().ok()??.ended?;
    if files.is_running() {
        return None;
    }
    std::fs::metadata(&files.record).and_then(|meta| meta.modified()).ok()
}
