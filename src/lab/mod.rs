//! Ownership: what a lab is, how it comes to be step by step, and how it goes without a trace.
//!
//! Data goes one way: a primitive asks for a `Step` (`Lab::ask`), steps are checked against the `model`, written to the
//! `journal`, applied through the `Kernel` (`Lab::settle`), and taken back by `undo`. `down` does the last part for labs of other
//! processes, from the state directory alone.

mod building;
mod commands;
mod dev_state;
pub(crate) mod down;
mod down_all;
mod ended;
pub(crate) mod etc;
mod event;
pub(crate) mod fold;
mod footprint;
mod guard;
mod inbound;
pub(crate) mod journal;
mod kernel;
pub(crate) mod leases;
mod left;
mod lists;
mod loops;
pub(crate) mod marked;
mod model;
mod moved;
pub(crate) mod netns_view;
mod notes;
mod op;
pub(crate) mod outcome;
pub(crate) mod process_files;
mod progress;
mod sandbox;
pub(crate) mod schedule;
mod settings;
mod step;
mod undo;
mod worker;

pub use building::{Checkpoint, Lab, Moment, Origin};
pub use dev_state::{add_link_local, link_local_request, put_back, set_up};
pub use down::{down, down_by_force, forget};
pub use down_all::down_all;
pub use event::{CheckResult, Event, Listener};
pub use footprint::{Footprint, Moved, Slot, Unfinished};
pub use inbound::{
    HAIRPIN_MARK, HELD as INBOUND_HELD, KEY as INBOUND_KEY, chain as inbound_chain, rules as inbound_rules,
};
pub use kernel::Kernel;
pub use leases::audit;
pub use marked::Collected;
pub use model::{DevEntry, Model, Resolver, Switch};
pub use moved::WAY_ON;
pub use netns_view::{DevView, NetnsView};
pub use op::{Joint, Op};
pub use outcome::Outcome;
pub use process_files::{ProcessFiles, Watched};
pub use sandbox::{Private, can_build_here, enter};
pub use settings::Hold;
pub use step::{ReadStep, Step, StepSort, Steps};

/// The protocol number that routes, rules, addresses and neighbours of ours bear: one that rt_protos of iproute2 doesn't name.
pub const OWNER_PROTOCOL: u8 = 84;
/// The environment variable that has the lab's process mark in what a script started.
pub const PROCESS_MARK: &str = "TOPO_MARK";
