//! Toposcript builds, checks and takes down real Linux networks from a script.
//!
//! A module may use those to its right, never back: `main → cmd → repl → terminal → script → prim → lab → net`.
//!
//! - `cmd`: the command line, one file a subcommand
//! - `repl`: the session at a prompt
//! - `terminal`: what a person sees: output, tables, errors
//! - `script`: the language: engine, standard library, catalogue, diagnostics
//! - `prim`: the primitives: the steps and the functions that ask for them
//! - `lab`: ownership: steps, journal, settling, undo, state
//! - `net`: the kernel: namespaces, netlink, sysctls, processes

pub mod cmd;
pub mod lab;
pub mod net;
pub mod prim;
pub mod repl;
pub mod script;
pub mod terminal;
