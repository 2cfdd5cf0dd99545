//! Toposcript builds, checks and takes down real Linux networks from a script.
//!
//! A module may use those to its right, never back: `main → cmd → repl → script → prim → lab → net`.
//!
//! - `cmd`: the command line, one file a subcommand
//! - `script`: the language: engine, standard library, catalogue, diagnostics
//! - `prim`: the primitives: the steps and the functions that ask for them
//! - `lab`: ownership: steps, journal, settling, undo, state
//! - `net`: the kernel: namespaces, netlink, sysctls, processes

pub mod cmd;
pub mod lab;
pub mod net;
pub mod prim;
pub mod script;
