//! Taking down a lab that another process made: from its record and its journal, and nothing else.

use std::iter;
use std::time::{Duration, Instant};

use super::down_all::down_parts;
use super::ended::EndedProcess;
use super::event::Listener;
use super::journal;
use super::kernel::Kernel;
use super::leases::release_dead;
use super::left;
use super::marked;
use super::step::Steps;
use super::undo;
use crate::net;
use crate::state;
use crate::state::{Error, Kind, LabDir, LabKind, Record, Seen, StateDir, Status};

/// Takes down the lab `name` and returns every failure; after a failure the lab stays listed, so that it can be tried again.
pub fn down(state: &StateDir, name: &str, steps: &Steps, listener: &mut Listener) -> Vec<Error> {
    let opened = state.find(name).and_then(|mut dir| {
        dir.lock(state)?;
        let record = dir.record()?;
        Ok((dir, record))
    });
    match opened {
        Ok((dir, record)) => down_locked(state, dir, &record, steps, listener),
        Err(error) => vec![error],
    }
}

/// Takes down what can still be found of the lab `name`, by the sound part of its record and journal and by its mark, and
/// forgets it. Returns what is wrong with its files, what was left, and every failure; only after a failure it stays listed.
pub fn down_by_force(state: &StateDir, name: &str, steps: &Steps, listener: &mut Listener) -> Vec<Error> {
    let opened = state.find(name).and_then(|mut dir| dir.lock(state).map(|()| dir));
    opened.and_then(|dir| force(state, dir, steps, listener)).unwrap_or_else(|error| vec![error])
}

fn force(state: &StateDir, dir: LabDir, steps: &Steps, listener: &mut Listener) -> Result<Vec<Error>, Error> {
    let (record, mut damages) = match dir.record() {
        Ok(record) if record.holder.is_some() || record.is_of_earlier_boot()? => {
            return Ok(down_locked(state, dir, &record, steps, listener));
        }
        Ok(record) => (record, Vec::new()),
        Err(error) => {
            let (record, unmarked) = likely_record(state, &dir)?;
            let how = if unmarked.is_some() { "its journal alone" } else { "its journal and its mark" };
            (record, iter::once(error.hint(format!("the lab is taken down by {how}"))).chain(unmarked).collect())
        }
    };
    let host = host_for_down(state, &record)?;
    let here = state.inside().map(|inside| inside.holder);
    if let Some(holder) = record.holder.filter(|holder| Some(*holder) != here && holder.is_alive()) {
        end_sandbox(holder)?;
        state.drop_sandbox(holder)?;
    }
    let mut errors = Vec::new();
    for child in state.children(dir.name())? {
        errors.extend(down_by_force(state, &child, steps, listener));
    }
    let (list, unread) = journal::salvage(&dir, &record, steps);
    damages.extend(unread);
    let mut kernel = open_for_down(state, &record, &host)?;
    kernel.give_back_under_any_name();
    errors.extend(undo::end_left(state, Some(&dir), &record.name, &record.marks, record.creator, kernel.note()).err());
    listener.expect(&list.asked, true);
    let mut each = |asked: &journal::Asked| listener.tell_step(asked, true);
    errors.extend(undo::undo(&mut kernel, &list.asked, list.done, &mut each));
    listener.arrived();
    listener.warn(kernel.take_given_back());
    if !damages.is_empty() && host == Seen::Here {
        errors.extend(marked::remove_marked(state, &record.marks.mark).err());
    }
    let (left, failed): (Vec<Error>, Vec<Error>) = errors.into_iter().partition(left::is_left);
    damages.extend(left);
    if failed.is_empty() {
        let name = dir.name().to_string();
        dir.remove_after(state, Some(&record), |is_only| undo::retire_dir(&kernel, state, is_only))?;
        damages.extend(release_dead(state, |lab| lab == name).err());
    }
    damages.extend(failed);
    Ok(damages)
}

/// Returns the record of a lab whose own is damaged, as far as it can be told, and why its marks can't be.
fn likely_record(state: &StateDir, dir: &LabDir) -> Result<(Record, Option<Error>), Error> {
    let name = dir.name().to_string();
    let found = dir.damaged_record();
    // What the secret gives is more to be relied on than what a damaged record names.
    let (marks, unmarked) = match (state.marks(&name), &found) {
        (Ok(marks), _) => (marks, None),
        (Err(_), Some(record)) if record.marks.are_of(&name) => (record.marks.clone(), None),
        (Err(error), _) => {
            let error = error.hint("what has the lab's mark can't be told from what is others', and stays");
            (state.marks_of_nothing(&name)?, Some(error))
        }
    };
    if let Some(record) = found {
        return Ok((Record { name, marks, ..record }, unmarked));
    }
    let creator = net::ProcessId::current().map_err(|source| Error::kernel("look at this process", &source))?;
    let record = Record {
        name,
        status: Status::Undoing,
        boot_id: state::boot_id()?,
        creator,
        script: String::new(),
        created: 0,
        marks,
        holder: None,
        kind: LabKind::default(),
        parent: None,
        host: None,
        tied_to: None,
    };
    Ok((record, unmarked))
}

pub(crate) fn down_locked(
    state: &StateDir,
    dir: LabDir,
    record: &Record,
    steps: &Steps,
    listener: &mut Listener,
) -> Vec<Error> {
    // From inside a sandbox its labs are undone one by one: it holds others too, this process among them.
    let here = state.inside().map(|inside| inside.holder);
    let undone = match (record.holder.filter(|holder| Some(*holder) != here), state::boot_id()) {
        (_, Err(error)) => Err(error),
        (_, Ok(boot_id)) if boot_id != record.boot_id => forget_boot(state, dir, steps, listener),
        (Some(holder), _) => {
            let errors = down_parts(state, dir.name(), None, steps, listener);
            end_sandbox(holder)
                .and_then(|()| state.drop_sandbox(holder))
                .and_then(|()| dir.remove(state))
                .map(|()| errors)
        }
        (None, _) => undo_journal(state, dir, record, steps, listener),
    };
    undone.unwrap_or_else(|error| vec![error])
}

/// Tells where the host of a lab is that is to be taken down; an error where it is another one than this.
fn host_for_down(state: &StateDir, record: &Record) -> Result<Seen, Error> {
    let host = state.host_of(record)?;
    if host != Seen::Ended {
        state.check_host(record, || format!("take down lab `{}`", record.name))?;
    }
    Ok(host)
}

/// Opens the kernel for taking a lab down; without a host, if that has ended.
fn open_for_down(state: &StateDir, record: &Record, host: &Seen) -> Result<Kernel, Error> {
    let mut kernel = Kernel::open_for(state, &record.name, &record.marks)
        .map_err(|source| Error::kernel("open the kernel", &source))?;
    if *host == Seen::Ended {
        kernel.lose_host();
    }
    Ok(kernel)
}

/// Removes what is known of a lab whose host is not this one, and leaves alone what it made.
pub fn forget(state: &StateDir, name: &str) -> Vec<Error> {
    let doing = || format!("forget lab `{name}`");
    let forgotten = state.find(name).and_then(|mut dir| {
        let record = dir.record()?;
        if state.host_of(&record)? == Seen::Here && record.boot_id == state::boot_id()? {
            let hint = format!("`topo down {name}` takes it down");
            return Err(Error::new(Kind::Denied, doing()).because("what it made is on this host").hint(hint));
        }
        dir.lock(state)?;
        let children = state.children(name)?;
        let errors = children.iter().flat_map(|child| forget(state, child)).collect();
        dir.remove(state)?;
        Ok(errors)
    });
    forgotten.unwrap_or_else(|error| vec![error])
}

/// Removes what is known of a lab of before the machine was restarted: nothing of it is left in the kernel, but the addresses
/// that it held are.
fn forget_boot(state: &StateDir, dir: LabDir, steps: &Steps, listener: &mut Listener) -> Result<Vec<Error>, Error> {
    let name = dir.name().to_string();
    let mut errors = down_parts(state, &name, None, steps, listener);
    dir.remove(state)?;
    // Killed before this, `gc` sees to it.
    errors.extend(release_dead(state, |lab| lab == name).err());
    Ok(errors)
}

fn undo_journal(
    state: &StateDir,
    dir: LabDir,
    record: &Record,
    steps: &Steps,
    listener: &mut Listener,
) -> Result<Vec<Error>, Error> {
    // Read before anything is changed: a damaged journal leaves the lab as it is.
    let begun = Instant::now();
    let mut tell = |percent: usize| listener.waiting(begun, || format!("reading the lab's journal: {percent} %"));
    let list = journal::read_telling(&dir, record, steps, &mut tell)?;
    undo_list(state, dir, record, list, steps, listener)
}

/// Takes back what the journal of a lab has.
pub(super) fn undo_list(
    state: &StateDir,
    dir: LabDir,
    record: &Record,
    list: journal::Steplist,
    steps: &Steps,
    listener: &mut Listener,
) -> Result<Vec<Error>, Error> {
    let host = host_for_down(state, record)?;
    let mut kernel = open_for_down(state, record, &host)?;
    let survey = undo::Survey::of(&mut kernel, &list.asked);
    survey.check_ways_back(&mut kernel, &list.asked, || format!("take down lab `{}`", record.name))?;
    check_children(state, dir.name(), steps)?;
    // Noted before its parts go: a lab that is cut short here has lost some of them, and is not up any more.
    let unnoted = dir.note_undoing(record)?;
    let mut errors = down_parts(state, dir.name(), Some(&record.marks.mark), steps, listener);
    listener.expect(&list.asked, true);
    let mut each = |asked: &journal::Asked| listener.tell_step(asked, true);
    errors.extend(undo::end_left(state, Some(&dir), &record.name, &record.marks, record.creator, kernel.note()).err());
    let (leading, asked): (Vec<_>, Vec<_>) =
        list.asked.into_iter().partition(|asked| asked.step.footprint().leads_to_lab);
    errors.extend(undo::undo_surveyed(&mut kernel, survey, &asked, list.done, &mut each));
    // What has failed can be tried again by the name that users know: a network's container.
    if errors.is_empty() {
        errors.extend(undo::undo(&mut kernel, &leading, list.done, &mut each));
    }
    listener.arrived();
    listener.warn(kernel.take_given_back());
    listener.note_ended(kernel.note::<Vec<EndedProcess>>().drain(..));
    match errors.is_empty() {
        true => dir.remove_after(state, Some(record), |is_only| undo::retire_dir(&kernel, state, is_only))?,
        false => errors.extend(unnoted),
    }
    Ok(errors)
}

/// Checks that what the parts of the lab `name` hold of others can be given back. What else is wrong with a part is told when it goes.
fn check_children(state: &StateDir, name: &str, steps: &Steps) -> Result<(), Error> {
    for (child, record) in state.parts(name)? {
        let (Ok(dir), Some(record)) = (state.find(&child), record) else { continue };
        let (Ok(list), Ok(host)) = (journal::read(&dir, &record, steps), host_for_down(state, &record)) else {
            continue;
        };
        if list.asked.iter().any(|asked| asked.step.footprint().makes_netns.is_some()) {
            let mut kernel = open_for_down(state, &record, &host)?;
            let survey = undo::Survey::of(&mut kernel, &list.asked);
            survey.check_ways_back(&mut kernel, &list.asked, || format!("take down lab `{child}`"))?;
        }
        check_children(state, &child, steps)?;
    }
    Ok(())
}

/// Ends a sandbox with all that is in it: the kernel ends every process of a pid namespace whose pid 1 ends.
pub(crate) fn end_sandbox(holder: net::ProcessId) -> Result<(), Error> {
    let failed = |source: net::Error| Error::kernel("end the lab's sandbox", &source);
    let left = net::process::end(&[holder], Duration::ZERO).map_err(failed)?;
    if left.is_empty() {
        return Ok(());
    }
    let doing = format!("end the lab's sandbox, process {}", holder.pid);
    Err(Error::new(Kind::Timeout, doing).because("it is still running after SIGKILL"))
}

/// Ends a sandbox whose run died before it had a lab, or after; for the process that started it.
pub(super) fn end_unclaimed(state: &StateDir, holder: net::ProcessId) -> Result<bool, Error> {
    for name in state.names()? {
        let Ok(mut dir) = state.find(&name) else { continue };
        match dir.record() {
            Ok(record) if record.holder == Some(holder) => {
                if record.status == Status::Up {
                    return Ok(true);
                }
                end_sandbox(holder)?;
                state.drop_sandbox(holder)?;
                dir.lock(state)?;
                dir.remove(state)?;
                return Ok(false);
            }
            _ => {}
        }
    }
    end_sandbox(holder)?;
    state.drop_sandbox(holder)?;
    // The run may have been killed before its lab had a record.
    for name in state.names()? {
        let Ok(mut dir) = state.find(&name) else { continue };
        if is_empty(&dir) && is_free(&mut dir, state)? && is_empty(&dir) {
            dir.remove(state)?;
        }
    }
    Ok(false)
}

/// Locks a lab's directory; tells whether that was possible: not if somebody is at work on it, or has removed it.
pub(crate) fn is_free(dir: &mut LabDir, state: &StateDir) -> Result<bool, Error> {
    match dir.lock(state) {
        Err(error) if matches!(error.kind(), Kind::Busy | Kind::Missing) => Ok(false),
        locked => locked.map(|()| true),
    }
}

/// Tells whether a lab has neither a record nor a step.
pub(crate) fn is_empty(dir: &LabDir) -> bool {
    !dir.has_record() && !journal::has_steps(&dir.journal())
}
