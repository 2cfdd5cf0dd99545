//! Going on with a lab that is up: what a session at a prompt does that joins it.

use std::hash::{BuildHasher, RandomState};

use super::{Lab, Origin, finished};
use crate::lab::event::Listener;
use crate::lab::fold;
use crate::lab::journal::Journal;
use crate::lab::kernel::Kernel;
use crate::lab::step::Steps;
use crate::state::{Error, Kind, Result, StateDir};

impl Lab {
    /// Goes on with the lab `name`, which must be up, and locks it. It stays noted as up: if this process dies, the lab
    /// stays, with what was added to it.
    pub fn join(state: StateDir, name: &str, steps: &Steps, listener: Listener) -> Result<Lab> {
        let doing = || format!("join lab `{name}`");
        let mut dir = state.find(name)?;
        dir.lock(&state)?;
        let record = dir.record()?;
        if !state.is_up(&record)? {
            return Err(Error::new(Kind::Gone, doing())
                .because("it is not up: its run died, or the machine was restarted")
                .hint(format!("`topo down {name}` or `topo gc` removes what is left of it")));
        }
        state.check_host(&record, doing)?;
        let (mut model, applied) = fold::fold(&dir, &record, steps)?;
        model.spread(RandomState::new().hash_one(&record.marks.mark));
        let journal = Journal::open(&dir, &record)?;
        let kernel = Kernel::open_for(&state, name, &record.marks)
            .map_err(|source| Error::kernel("open the kernel", &source))?;
        Ok(Lab {
            origin: Origin {
                name: record.name,
                named: true,
                any_name: false,
                script: record.script,
                kind: record.kind,
                parent: record.parent,
                tied_to: record.tied_to,
            },
            state,
            claimed: Some((dir, journal)),
            kernel,
            model,
            pending: Vec::new(),
            next_step: applied.last().map_or(1, |last| last.no + 1),
            applied,
            seed: RandomState::new().hash_one(&record.marks.mark),
            checks: Vec::new(),
            shows_failure: false,
            acts: 0,
            creator: record.creator,
            running: None,
            look_for_finished: finished::LOOK_FIRST,
            refused: None,
            loops: std::collections::BTreeSet::new(),
            listener,
        })
    }
}
