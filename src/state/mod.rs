//! What is kept of labs, in files: the state directory with its records and locks, owner marks, references to what is in the kernel,
//! and the store, which outlives labs. It knows of no step, and changes nothing in the kernel.

mod dir;
mod error;
pub(crate) mod files;
mod host;
mod index;
mod inside;
mod marks;
pub mod name;
mod place;
mod refs;
pub mod store;
pub(crate) mod sum;

pub(crate) use dir::sandbox_store;
pub use dir::{LabDir, LabKind, Record, StateDir, Status, boot_id, now};
pub use error::{Error, Kind, Result, as_refusal};
pub use host::Host;
pub(crate) use host::{HOST_ENDED, Seen};
pub use inside::Inside;
pub use marks::{Marks, lab_of_mark};
pub use place::{Place, Spot};
pub use refs::{DevRef, Identity, NetnsAt, NetnsRef, ProcessRef, TableRef, shown_dev};
pub use store::{Key, LocalStore, RECORDS, Store};
