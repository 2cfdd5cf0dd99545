//! The language: the engine and its limits, where scripts come from, the catalogue of what they can call, and what is said
//! when one fails.

mod bounded;
pub mod catalog;
mod check;
pub mod elsewhere;
mod engine;
mod failure;
mod failure_kind;
pub mod header;
mod held;
mod hints;
mod items;
pub mod lexer;
mod memory;
mod modules;
mod needed;
mod nothing;
mod prepare;
pub mod reference;
mod results;
mod sources;
mod stack;
mod trust;
mod typos;
mod vocabulary;
mod words;

pub use check::{bare_compile, check, check_syntax};
pub use engine::{Caller, Session, StatementPoint, Variable, bare};
pub use failure::Failure;
pub use failure_kind::FailureKind;
pub use results::result_keys;
pub use sources::{Dirs, Script, Texts, Workflow, has_workflows_below, workflows};
pub use vocabulary::{KEYWORDS, VALUES, Vocabulary};
