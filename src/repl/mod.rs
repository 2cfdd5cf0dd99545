//! The session at a prompt.
