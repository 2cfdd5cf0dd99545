//! What a step touches, as data: by it the model, the scheduler and the undo know what a step makes and what it ends with.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::model::Model;
use crate::net::LinkConfig;
use crate::state::{DevRef, NetnsRef, ProcessRef, Result, TableRef};

/// A thing that several steps may set: the number of its device or namespace, and a word for it.
pub type Slot = (u32, Cow<'static, str>);

/// What a step touches: what it makes, what its effect lives in and on, and what it means for the steps beside it.
#[derive(Debug, Default)]
pub struct Footprint<'a> {
    /// The namespace that it makes.
    pub makes_netns: Option<&'a NetnsRef>,
    /// The devices that it makes.
    pub makes_devs: Vec<&'a DevRef>,
    /// The table that it makes.
    pub makes_table: Option<TableRef>,
    /// The process that it starts to run beside the script.
    pub starts: Option<&'a ProcessRef>,
    /// The namespaces any of whose ends takes its effect along.
    pub lives_in: Vec<&'a NetnsRef>,
    /// The device whose end takes its effect along.
    pub lives_on: Option<&'a DevRef>,
    /// The table whose end takes its effect along.
    pub lives_in_table: Option<TableRef>,
    /// How it moves a device that must be given back before the namespace ends in which it is.
    pub moves: Option<&'a Moved>,
    /// The devices whose carrier it may change and has not waited for. The settling waits at its end, for them and for the bridges
    /// that they are ports of.
    pub wakes: Vec<&'a DevRef>,
    /// The address that it gives and that works a little later than it is there: an IPv6 one.
    pub works_later: Option<(&'a NetnsRef, IpAddr)>,
    /// What it sets and a later step may set anew. It is not looked for if all of it was set anew.
    pub sets: Vec<Slot>,
    /// The namespaces whose unfinished devices must be finished before it is applied.
    pub waits_for: Unfinished<'a>,
    /// Whether the kernel makes the change in one operation: refused with "exists", nothing of it was made, and what is there is
    /// another's.
    pub is_atomic: bool,
    /// Whether steps after it can't be prepared before it is applied: under the new name of a device that is not the lab's nothing is
    /// found yet.
    pub hides_what_follows: bool,
    /// Whether the change can't be taken back: a removal.
    pub is_removal: bool,
    /// Whether users find the lab by it, as they do by a record: it goes when nothing else of the lab is left.
    pub leads_to_lab: bool,
}

/// The namespaces whose devices must be finished before a step is applied. A bridge is finished at the end of a settling, once its
/// ports are in.
#[derive(Debug, Default)]
pub enum Unfinished<'a> {
    /// Those that the step's effect lives in.
    #[default]
    Own,
    /// All.
    All,
    /// One.
    In(&'a NetnsRef),
    /// None: the step does not notice.
    None,
}

impl Footprint<'_> {
    /// Checks that the device that the effect lives on is still there, or else the namespaces that it lives in.
    pub(super) fn check_living(&self, model: &Model) -> Result<()> {
        match self.lives_on {
            Some(dev) => model.living_dev(dev.no, &dev.shown()).map(|_| ()),
            None => self.lives_in.iter().try_for_each(|at| model.living_netns(at).map(|_| ())),
        }
    }

    /// Takes out of the model what the step makes.
    pub(super) fn take_out(&self, model: &mut Model, why: &str) {
        if let Some(at) = self.makes_netns {
            model.remove_netns(at.no, why);
        }
        // With one end of a cable goes the other.
        if let Some(dev) = self.makes_devs.first() {
            model.remove_dev(dev.no, why);
        }
        if let Some(table) = &self.makes_table {
            model.remove_table(table);
        }
        if let Some(process) = self.starts {
            model.remove_process(process.no, why);
        }
    }

    /// Tells whether unfinished devices in the namespace `no` must be finished before the step is applied.
    pub(super) fn needs_finished(&self, no: u32) -> bool {
        match self.waits_for {
            Unfinished::Own => self.lives_in.iter().any(|at| at.no == no),
            Unfinished::All => true,
            Unfinished::In(at) => at.no == no,
            Unfinished::None => false,
        }
    }
}

/// A device that was moved to another namespace, and what gives it back as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Moved {
    /// The device where it was.
    pub from: DevRef,
    /// The device where it is.
    pub to: DevRef,
    /// Whether it is up, before and after.
    pub up: bool,
    /// Its settings, which the kernel makes anew wherever it comes, without what labs hold of the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
    /// What a device of the lab's own has, which a move makes it lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<LinkConfig>,
}
