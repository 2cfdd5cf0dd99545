//! Toposcript builds, checks and takes down real Linux networks from a script.
//!
//! A module may use those to its right, never back: `main → cmd → repl → terminal → script → prim → survey → lab → ipam → state → net`.
//!
//! - `cmd`: the command line, one file a subcommand
//! - `repl`: the session at a prompt
//! - `terminal`: what a person sees: output, tables, errors
//! - `script`: the language: engine, standard library, catalogue, diagnostics
//! - `prim`: the primitives: the steps and the functions that ask for them
//! - `survey`: labs looked at from outside: views, damage and repair, what dead runs left
//! - `lab`: ownership: steps, journal, settling, undo
//! - `ipam`: address pools and leases
//! - `state`: the state directory, owner marks, the store
//! - `net`: the kernel: namespaces, netlink, sysctls, processes
//!
//! The program is the interface. The library has none: nothing but `main` is for others, and `for_tests` lends its parts to the
//! tests and the benchmarks of this project.

mod cmd;
mod ipam;
mod lab;
mod net;
mod prim;
mod repl;
mod script;
mod state;
mod survey;
mod terminal;

pub use cmd::main;

/// What the tests and the benchmarks in this project use beside the program.
#[doc(hidden)]
pub mod for_tests {
    pub use crate::ipam::{Ipam, NoPool, PoolSpec};
    pub use crate::net::link_modules;
    pub use crate::prim::steps;
    pub use crate::repl::complete::{Known, complete, hint};
    pub use crate::script::catalog::{Entry, library, primitives};
    pub use crate::script::header::Header;
    pub use crate::script::{Dirs, Script, Texts, Variable, Vocabulary, check, result_keys};
    pub use crate::state::{LocalStore, Store};
}
