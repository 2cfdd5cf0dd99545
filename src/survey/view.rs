//! A lab as it stands: what its journal says, and what the kernel says of it now.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::look::{self, Sight, Sights};
use super::names::Names;
use super::processes::{ProcessView, view_process};
use super::repair::drift;
use crate::lab::fold::fold;
use crate::lab::netns_view::{namespaces_of, view_netns};
use crate::lab::{Kernel, NetnsView, Steps};
use crate::net::ProcessId;
use crate::state::{Error, HOST_ENDED, Kind, LabDir, LabKind, Record, Result, Seen, StateDir, Status};

/// A lab in one line.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The lab's name.
    pub name: String,
    /// What it is for.
    pub kind: LabKind,
    /// "up", "damaged" where others took something of it or of a part of it away, "building", "undoing", "dead" where the process that
    /// built it or its sandbox has ended, or "gone" where the machine was restarted since. Where this process can't look into the lab, it
    /// is "up" by its record alone, and `unseen` says why.
    pub state: &'static str,
    /// How many namespaces it made.
    pub netns: usize,
    /// How many devices it made.
    pub devs: usize,
    /// Whether it runs in a sandbox.
    pub sandbox: bool,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The script that made it.
    pub script: String,
    /// Why this process can't look into it, where that is so: its host is another one, the process lacks the rights, or the look failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// The lab that it is a part of.
    #[serde(skip)]
    pub parent: Option<String>,
    /// The process that holds its sandbox, where it is in one.
    #[serde(skip)]
    pub holder: Option<ProcessId>,
}

/// A lab with all that it holds.
#[derive(Debug, Serialize)]
pub struct LabView {
    /// The lab in one line.
    #[serde(flatten)]
    pub summary: Summary,
    /// What others took away of it and of its parts, by the steps that made it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<String>,
    /// What kept it from being looked at.
    #[serde(skip)]
    pub error: Option<Error>,
    /// The namespaces in which it has something.
    pub namespaces: Vec<NetnsView>,
    /// The processes that it has started to run beside the script, in the order of their starts.
    pub processes: Vec<ProcessView>,
    /// The other steps that it made, as the commands that do the same.
    pub steps: Vec<String>,
}

/// The word for a lab that is as its script left it, as far as this process can look.
const UP: &str = "up";
/// The word for a lab of which others took something away.
const DAMAGED: &str = "damaged";

/// Returns the word for a lab's state that is written so.
pub fn state_word(text: &str) -> Option<&'static str> {
    [UP, DAMAGED, "building", "undoing", "dead", "gone"].into_iter().find(|word| *word == text)
}

/// Returns labs in one line each, and what could not be read: all, or those of the names. Each is looked into, step by step; a lab whose
/// part is damaged is damaged.
pub fn summaries(state: &StateDir, steps: &Steps, only: Option<&[String]>) -> Result<(Vec<Summary>, Vec<Error>)> {
    let (mut summaries, mut errors) = (Vec::new(), Vec::new());
    let mut sights = Sights::new();
    let names = only.map_or_else(|| state.names(), |names| Ok(names.to_vec()))?;
    for name in names {
        match state.find(&name).and_then(|dir| summary(state, &dir, steps, &mut sights)) {
            Ok(summary) => summaries.push(summary),
            // One that is just being made, or has just gone.
            Err(error) if error.kind() == Kind::Missing => {}
            Err(error) => errors.push(error),
        }
    }
    let is_clear = |summary: &&mut Summary| summary.state == UP && summary.unseen.is_none();
    let mut clear: Vec<&mut Summary> = summaries.iter_mut().filter(is_clear).collect();
    let names: Vec<String> = clear.iter().map(|summary| summary.name.clone()).collect();
    for (summary, lost) in clear.iter_mut().zip(look::lost(state, steps, &names, 1)) {
        match lost {
            Ok(lost) if lost.is_empty() => {}
            Ok(_) => summary.state = DAMAGED,
            Err(error) => {
                summary.unseen = Some(error.to_string());
                errors.push(error);
            }
        }
    }
    damage_wholes(&mut summaries);
    Ok((summaries, errors))
}

/// Calls labs damaged whose parts are.
fn damage_wholes(summaries: &mut [Summary]) {
    let parents: HashMap<String, Option<String>> =
        summaries.iter().map(|summary| (summary.name.clone(), summary.parent.clone())).collect();
    let mut damaged: BTreeSet<String> = BTreeSet::new();
    for summary in summaries.iter().filter(|summary| summary.state == DAMAGED) {
        let mut above = summary.parent.as_ref();
        while let Some(name) = above.filter(|name| damaged.insert((*name).clone())) {
            above = parents.get(name).and_then(Option::as_ref);
        }
    }
    let hit = |summary: &&mut Summary| summary.state == UP && damaged.contains(&summary.name);
    summaries.iter_mut().filter(hit).for_each(|summary| summary.state = DAMAGED);
}

/// Returns a lab in one line, by its record and journal, and whether it can be looked into.
fn summary(state: &StateDir, dir: &LabDir, steps: &Steps, sights: &mut Sights) -> Result<Summary> {
    let record = dir.record()?;
    let mut names = Names::of(dir, steps)?;
    names.keep(dir);
    let mut summary = summarize(state, dir, &record, &names);
    if summary.state == UP {
        match sights.of(state, &record)? {
            Sight::Clear => {}
            Sight::HostEnded => summary.state = DAMAGED,
            Sight::Hidden(because) => summary.unseen = Some(because),
        }
    }
    Ok(summary)
}

fn summarize(state: &StateDir, dir: &LabDir, record: &Record, names: &Names) -> Summary {
    let ended = state.has_ended(record);
    let word = match record.status {
        _ if record.is_of_earlier_boot().unwrap_or(false) => "gone",
        _ if ended => "dead",
        Status::Up => "up",
        _ if !dir.is_locked(state) => "dead",
        Status::Building => "building",
        Status::Undoing => "undoing",
    };
    Summary {
        name: record.name.clone(),
        kind: record.kind,
        state: word,
        netns: names.netns_made,
        devs: names.devs_made,
        sandbox: record.holder.is_some(),
        created: record.created,
        script: record.script.clone(),
        unseen: None,
        parent: record.parent.clone(),
        holder: record.holder,
    }
}

/// Returns the lab with all that it holds, as the kernel has it now.
pub fn view(state: &StateDir, name: &str, steps: &Steps) -> Result<LabView> {
    let dir = state.find(name)?;
    let record = dir.record()?;
    let (model, asked) = fold(&dir, &record, steps)?;
    let mut kernel =
        Kernel::open_for(state, name, &record.marks).map_err(|source| Error::kernel("open the kernel", &source))?;
    let seen = state.host_of(&record)?;
    if seen != Seen::Here {
        kernel.lose_host();
    }
    let ended = match record.is_of_earlier_boot()? {
        true => Some("the machine was restarted"),
        false => state.has_ended(&record).then_some("its sandbox has ended"),
    };
    let namespaces: Vec<NetnsView> =
        namespaces_of(&model).iter().map(|at| view_netns(&mut kernel, &model, at, ended)).collect();
    let mut summary = summarize(state, &dir, &record, &Names::in_model(&model));
    let (mut damage, mut error) = (Vec::new(), None);
    match seen {
        _ if summary.state != UP => {}
        Seen::Here => match drift(state, name, steps) {
            Ok(lost) => damage = lost,
            Err(why) => (summary.unseen, error) = (Some(why.to_string()), Some(why)),
        },
        Seen::Ended => damage = vec![HOST_ENDED.into()],
        Seen::Elsewhere(because, _) => summary.unseen = Some(because.into()),
    }
    if !damage.is_empty() {
        summary.state = DAMAGED;
    }
    let processes = model.all_processes().map(|process| view_process(&dir.processes(), process)).collect();
    let steps = asked.iter().flat_map(|asked| asked.step.like()).collect();
    Ok(LabView { summary, damage, error, namespaces, processes, steps })
}
