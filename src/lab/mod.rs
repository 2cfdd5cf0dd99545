//! Ownership: what a lab is, how it comes to be step by step, and how it goes without a trace.
//!
//! Data goes one way: a primitive asks for a `Step` (`Lab::ask`), steps are checked against the `model`, written to the
//! `journal`, applied through the `Kernel` (`Lab::settle`), and taken back by `undo`. `down` and `gc` do the last part for
//! labs of other processes, from the `state` directory alone.
//!
//! What outlives labs is in the `store`; `ipam` hands out addresses from pools that it keeps there.

mod adopt;
mod building;
mod commands;
mod dev_state;
mod down;
mod down_all;
mod ended;
mod error;
mod etc;
mod event;
mod files;
mod fold;
mod footprint;
mod gc;
mod glance;
mod guard;
mod host;
mod inbound;
mod index;
mod inside;
pub mod ipam;
mod journal;
mod kernel;
mod leases;
mod left;
mod lists;
mod look;
mod loops;
mod marked;
mod marks;
mod model;
mod moved;
pub mod name;
mod names;
mod netns_view;
mod notes;
mod op;
mod outcome;
mod place;
mod processes;
mod progress;
mod refs;
mod repair;
mod sandbox;
mod schedule;
mod settings;
mod state;
mod step;
pub mod store;
mod sum;
mod traces;
mod undo;
mod view;
mod worker;

pub use building::{Checkpoint, Lab, Moment, Origin};
pub use dev_state::{add_link_local, link_local_request, put_back, set_up};
pub use down::{down, down_by_force, forget};
pub use down_all::down_all;
pub use error::{Error, Kind, Result, as_refusal};
pub use event::{CheckResult, Event, Listener};
pub use footprint::Moved;
pub use footprint::Slot;
pub use footprint::{Footprint, Unfinished};
pub use gc::gc;
pub use glance::Glance;
pub use inbound::{
    HAIRPIN_MARK, HELD as INBOUND_HELD, KEY as INBOUND_KEY, chain as inbound_chain, rules as inbound_rules,
};
pub use inside::Inside;
pub use kernel::Kernel;
pub use leases::audit;
pub use marked::Collected;
pub use marks::{Marks, lab_of_mark};
pub use model::{DevEntry, Model, Resolver, Switch};
pub use moved::WAY_ON;
pub use names::Names;
pub use netns_view::{DevView, NetnsView};
pub use op::{Joint, Op};
pub use outcome::Outcome;
pub use place::{Place, Spot};
pub use processes::{LogView, ProcessFiles, ProcessView, Watched, logs_of, watch_logs};
pub use refs::{DevRef, Identity, NetnsAt, NetnsRef, ProcessRef, TableRef, shown_dev};
pub use repair::{Repaired, drift, has_ended, repair};
pub use sandbox::{Private, can_build_here, enter};
pub use settings::Hold;
pub use state::{LabDir, LabKind, Record, StateDir, boot_id, now};
pub use step::{ReadStep, Step, StepSort, Steps};
pub use store::{LocalStore, Store};
pub use traces::Traces;
pub use view::{LabView, Summary, state_word, summaries, view};

/// The protocol number that routes, rules, addresses and neighbours of ours bear: one that rt_protos of iproute2 doesn't name.
pub const OWNER_PROTOCOL: u8 = 84;
/// The environment variable that has the lab's process mark in what a script started.
pub const PROCESS_MARK: &str = "TOPO_MARK";
