//! The one integration binary. Every test that touches the kernel does so in a `World` of its own, and leaves it clean.

#![expect(clippy::panic, clippy::expect_used, reason = "a test fails by a panic, its helpers too")]

mod cli;
mod docs;
mod foreign;
mod ownership;
mod stage;
mod star;
mod suite;
mod tidy;
mod unwind;
mod world;
