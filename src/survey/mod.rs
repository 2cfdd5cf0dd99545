//! Labs looked at from outside: what they hold, what others took from them, what dead runs left; and how that is put right.
//! It goes by the state directory and the kernel, as any process can that has not built the lab.

mod adopt;
mod gc;
mod glance;
mod look;
mod names;
mod processes;
mod repair;
mod traces;
mod view;

pub use gc::gc;
pub use glance::Glance;
pub use names::Names;
pub use processes::{LogView, ProcessView, logs_of, watch_logs};
pub use repair::{Repaired, drift, has_ended, repair};
pub use traces::Traces;
pub use view::{LabView, Summary, state_word, summaries, view};
