//! A look at labs: what others took from them in the kernel, found step by step. All that says what is damaged asks here.

use crate::lab::journal::Asked;
use crate::lab::outcome::Folded;
use crate::lab::{Kernel, Steps, can_build_here, fold};
use crate::state::{Error, Host, Kind, LabDir, Record, Result, Seen, StateDir, Status};

/// How often a lab is looked at that goes on to change.
const LOOKS_MAX: usize = 5;

/// Returns what the kernel no longer has of each of these labs, in words: at most `most` things of each. Nothing is missed in one that
/// a process builds or takes down.
///
/// Lists of the host are read once for all of them. What seems lost may have changed between two of them, as what ends with a namespace
/// does, which the kernel takes apart by and by: it is looked for again, until two looks agree.
pub(crate) fn lost(state: &StateDir, steps: &Steps, names: &[String], most: usize) -> Vec<Result<Vec<String>>> {
    let mut look = Look { state, steps, kernel: None };
    let mut all: Vec<_> =
        names.iter().map(|name| look.open(name).and_then(|lab| look.lost(lab.as_ref(), most))).collect();
    let mut suspects: Vec<usize> = (0..all.len()).filter(|at| !all[*at].as_ref().is_ok_and(Vec::is_empty)).collect();
    for _ in 1..LOOKS_MAX {
        // Opened first: the lists are younger than all that is known of the labs.
        let opened: Vec<_> = suspects.iter().map(|at| (*at, look.open(&names[*at]))).collect();
        look.begin_again();
        suspects.clear();
        for (at, lab) in opened {
            let lost = lab.and_then(|lab| look.lost(lab.as_ref(), most));
            // One that was taken down meanwhile has lost nothing to others.
            let lost = if look.is_up(&names[at]) { lost } else { Ok(Vec::new()) };
            if !agree(&all[at], &lost) {
                suspects.push(at);
            }
            all[at] = lost;
        }
        if suspects.is_empty() {
            break;
        }
    }
    all
}

/// Tells whether two looks at a lab found the same. A look that failed is taken as it is, as is one that found nothing missing.
fn agree(before: &Result<Vec<String>>, now: &Result<Vec<String>>) -> bool {
    match (before, now) {
        (Ok(before), Ok(now)) => now.is_empty() || before == now,
        _ => now.is_err(),
    }
}

/// Says that the namespace that a lab is for has ended, if it has.
pub(crate) fn ended(record: &Record) -> Result<Option<String>> {
    let Some(tie) = &record.tied_to else { return Ok(None) };
    Ok(tie.has_ended()?.then(|| format!("netns `{}` has ended", tie.name)))
}

/// A look at labs of one host.
struct Look<'a> {
    state: &'a StateDir,
    steps: &'a Steps,
    kernel: Option<Kernel>,
}

impl Look<'_> {
    /// Opens a lab; none if it is gone, or a process is at work on it: that one has not all of its own yet, or no more.
    fn open(&self, name: &str) -> Result<Option<Opened>> {
        let dir = match self.state.find(name) {
            Err(error) if error.kind() == Kind::Missing => return Ok(None),
            dir => dir?,
        };
        let open = |record: Record| match record.status {
            Status::Up => Opened::open(self.state, &dir, record, self.steps).map(Some),
            Status::Building | Status::Undoing => Ok(None),
        };
        match dir.record().and_then(open) {
            // It went meanwhile.
            Err(_) if !dir.path().is_dir() => Ok(None),
            opened => opened,
        }
    }

    /// Tells whether a lab is there, and nobody takes it down; one whose record is damaged is.
    fn is_up(&self, name: &str) -> bool {
        let Ok(dir) = self.state.find(name) else { return false };
        dir.record().map_or_else(|_| dir.path().is_dir(), |record| record.status == Status::Up)
    }

    fn lost(&mut self, lab: Option<&Opened>, most: usize) -> Result<Vec<String>> {
        let Some(lab) = lab else { return Ok(Vec::new()) };
        if let Some(ended) = ended(&lab.record)? {
            return Ok(vec![ended]);
        }
        let kernel = self.kernel_for(&lab.record)?;
        let mut lost = Vec::new();
        for at in 0..lab.asked.len() {
            if !lab.is_held(kernel, at)? {
                lost.push(lab.asked[at].step.doing());
                if lost.len() == most {
                    break;
                }
            }
        }
        Ok(lost)
    }

    fn kernel_for(&mut self, record: &Record) -> Result<&mut Kernel> {
        let kernel = match self.kernel.take() {
            Some(mut kernel) => {
                kernel.turn_to(&record.name, &record.marks);
                kernel
            }
            None => {
                let opened = Kernel::open_for(self.state, &record.name, &record.marks);
                let mut kernel = opened.map_err(|source| Error::kernel("open the kernel", &source))?;
                kernel.begin_look();
                kernel
            }
        };
        Ok(self.kernel.insert(kernel))
    }

    /// Lets all be read anew.
    fn begin_again(&mut self) {
        self.kernel.iter_mut().for_each(Kernel::begin_look);
    }
}

/// A lab as its journal has it, to be compared with the kernel.
pub(crate) struct Opened {
    pub(crate) record: Record,
    pub(crate) asked: Vec<Asked>,
    pub(crate) folded: Folded,
}

impl Opened {
    pub(crate) fn open(state: &StateDir, dir: &LabDir, record: Record, steps: &Steps) -> Result<Opened> {
        state.check_host(&record, || format!("look at lab `{}`", record.name))?;
        let (model, asked) = fold::fold(dir, &record, steps)?;
        Ok(Opened { folded: Folded::new(model, &asked), asked, record })
    }

    /// Tells whether the kernel still has the effect of a step.
    pub(crate) fn is_held(&self, kernel: &mut Kernel, at: usize) -> Result<bool> {
        let asked = &self.asked[at];
        let outcome = self.folded.seen_by(asked.no);
        let sets = asked.step.footprint().sets;
        if !sets.is_empty() && !sets.iter().any(|slot| outcome.is_last(slot)) {
            return Ok(true);
        }
        match asked.step.is_held(kernel, outcome) {
            // In a namespace that has ended with all that was in it: who made that answers for it.
            Err(source) if source.is_gone() => Ok(true),
            held => held.map_err(|source| Error::kernel(format!("look for: {}", asked.step.doing()), &source)),
        }
    }
}

/// Whether this process can look into a lab.
#[derive(Debug, Clone)]
pub(super) enum Sight {
    /// It can.
    Clear,
    /// The host of the lab has ended, with all that was on it.
    HostEnded,
    /// It can't, and why.
    Hidden(String),
}

/// What is known of the hosts of labs, each looked for once.
pub(super) struct Sights {
    can_build: bool,
    known: Vec<(Host, Sight)>,
}

impl Sights {
    pub(crate) fn new() -> Sights {
        Sights { can_build: can_build_here(), known: Vec::new() }
    }

    /// Tells whether this process can look into a lab.
    pub(crate) fn of(&mut self, state: &StateDir, record: &Record) -> Result<Sight> {
        if record.holder != state.inside().map(|inside| inside.holder) {
            return Ok(Sight::Hidden("it is in a sandbox".into()));
        }
        if !self.can_build {
            let because = "it needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this process doesn't have";
            return Ok(Sight::Hidden(because.into()));
        }
        let known = |host: &Host| self.known.iter().find(|(known, _)| known == host).map(|(_, sight)| sight.clone());
        if let Some(sight) = record.host.as_ref().and_then(known) {
            return Ok(sight);
        }
        let sight = match state.host_of(record)? {
            Seen::Here => Sight::Clear,
            Seen::Ended => Sight::HostEnded,
            Seen::Elsewhere(because, _) => Sight::Hidden(because.into()),
        };
        self.known.extend(record.host.iter().map(|host| (host.clone(), sight.clone())));
        Ok(sight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_counts_once_two_looks_agree() {
        let lost = |what: &[&str]| Ok(what.iter().map(|what| (*what).to_string()).collect());
        assert!(!agree(&lost(&["a veth", "an entry on it"]), &lost(&["a veth"])));
        assert!(agree(&lost(&["a veth"]), &lost(&["a veth"])));
        assert!(agree(&lost(&["a veth"]), &lost(&[])));
    }
}
