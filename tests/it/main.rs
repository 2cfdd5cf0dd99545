//! The one integration binary. Every test that touches the kernel does so in a `World` of its own, and leaves it clean.

mod world;
