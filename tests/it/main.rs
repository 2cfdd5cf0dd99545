//! The one integration binary. Every test that touches the kernel does so in a `World` of its own, and leaves it clean.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, its helpers too"
)]

mod bad_state;
mod callers;
mod ci_files;
mod cli;
mod contributing;
mod docs;
mod doors;
mod flat;
mod foreign;
mod given_back;
mod hosts;
mod intact;
mod marks;
mod nat;
mod networks;
mod ownership;
mod page;
mod probes;
mod repair;
mod repl;
mod runner;
mod settings;
mod settle;
mod sharing;
mod signals;
mod stage;
mod star;
mod start;
mod suite;
mod take_over;
mod tidy;
mod tier;
mod tutorial;
mod unwind;
mod unwind_networks;
mod unwind_session;
mod vm;
mod world;
