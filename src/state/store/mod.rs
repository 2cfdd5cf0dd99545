//! The store: where networks, endpoints and address pools are kept, as JSON values under keys.
//!
//! Nothing above knows of files. A local directory (`LocalStore`) is one way to keep values; a key-value server that many
//! machines share fits behind the same five operations: `get` and `list` are its range reads, a lock is a key with a lease
//! of time, and each write is a transaction that holds only as long as that key does.

mod key;
mod local;

use std::any::Any;

use serde_json::Value;

pub use key::Key;
pub use local::LocalStore;

use super::error::Result;

/// The kind under which records are kept: networks, endpoints, and what else scripts write down.
pub const RECORDS: &str = "records";

/// Keeps JSON values under keys, for many processes at once.
///
/// Readers need no lock: they see a value as it was before a write, or after it, never half of it. Writers hold a lock, so that
/// nobody changes what they have read. Which lock guards which keys is for the users of a kind to agree on.
pub trait Store: Send + Sync {
    /// Returns the value of `key`, or nothing where there is none; `state`, naming the place, where it is damaged.
    fn get(&self, key: &Key) -> Result<Option<Value>>;

    /// Returns all keys below `above` that have a value, sorted; `above` itself is not among them.
    fn list(&self, above: &Key) -> Result<Vec<Key>>;

    /// Waits for the lock of `key` and takes it; the key needs no value. `busy`, naming the holder, where one process has
    /// held it for half a minute.
    ///
    /// Whoever holds it and asks for it again waits for itself.
    fn lock(&self, key: &Key) -> Result<Guard> {
        self.lock_unless(key, &|| false)
    }

    /// The same; `interrupted` where `is_over` says so while it waits.
    fn lock_unless(&self, key: &Key, is_over: &dyn Fn() -> bool) -> Result<Guard>;

    /// Writes the value of `key`, whole or not at all, and so that it outlives a power cut.
    fn put(&self, guard: &Guard, key: &Key, value: &Value) -> Result<()>;

    /// Writes several values, each whole or not at all, in this order or any other; they outlive a power cut once it returns.
    fn put_all(&self, guard: &Guard, values: &[(Key, Value)]) -> Result<()> {
        values.iter().try_for_each(|(key, value)| self.put(guard, key, value))
    }

    /// Removes the value of `key`; returns whether there was one.
    fn remove(&self, guard: &Guard, key: &Key) -> Result<bool>;

    /// Returns where a person finds the value of `key`: a path, for one.
    fn place(&self, key: &Key) -> String;
}

/// A lock that is held; it is let go with this value.
#[derive(Debug)]
pub struct Guard {
    key: Key,
    // Dropped, it lets the lock go.
    _held: Box<dyn Any + Send>,
}

impl Guard {
    /// Makes the guard of `key` for a store, whose lock ends when `held` is dropped.
    pub fn new(key: Key, held: impl Any + Send) -> Guard {
        Guard { key, _held: Box::new(held) }
    }

    /// Returns the key whose lock this is.
    pub fn key(&self) -> &Key {
        &self.key
    }
}
