//! A store in memory that counts what is asked of it and can die at any write, as a process or its disk can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use crate::state::store::Guard;
use crate::state::{Error, Key, Kind, Result, Store};

#[derive(Default)]
struct Locks {
    held: Mutex<BTreeSet<Key>>,
    changed: Condvar,
}

struct Held(Arc<Locks>, Key);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.lock().expect("no panic").remove(&self.1);
        self.0.changed.notify_all();
    }
}

#[derive(Default)]
pub(super) struct Memory {
    values: Mutex<BTreeMap<Key, Value>>,
    locks: Arc<Locks>,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// The write, counted from 1, with which the store dies; 0 is never.
    dies_at: AtomicU64,
}

impl Memory {
    /// Starts counting anew, and dies with the write `at`, if that isn't 0; until this is called again.
    pub(super) fn die_at(&self, at: u64) {
        self.reads.store(0, SeqCst);
        self.writes.store(0, SeqCst);
        self.dies_at.store(at, SeqCst);
    }

    /// Returns the reads and writes since `die_at`.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.reads.load(SeqCst), self.writes.load(SeqCst))
    }

    /// Returns all there is.
    pub(crate) fn dump(&self) -> BTreeMap<Key, Value> {
        self.values.lock().expect("no panic").clone()
    }

    /// Puts all back as it was.
    pub(crate) fn restore(&self, dump: &BTreeMap<Key, Value>) {
        self.values.lock().expect("no panic").clone_from(dump);
    }

    fn pass(&self, counter: &AtomicU64, one: u64) -> Result<()> {
        counter.fetch_add(one, SeqCst);
        let dies_at = self.dies_at.load(SeqCst);
        if dies_at != 0 && self.writes.load(SeqCst) >= dies_at {
            return Err(Error::new(Kind::State, "use the store").because("it is dead"));
        }
        Ok(())
    }
}

impl Store for Memory {
    fn get(&self, key: &Key) -> Result<Option<Value>> {
        self.pass(&self.reads, 1)?;
        Ok(self.values.lock().expect("no panic").get(key).cloned())
    }

    fn list(&self, above: &Key) -> Result<Vec<Key>> {
        self.pass(&self.reads, 1)?;
        let below = |key: &&Key| key.kind_word() == above.kind_word() && key.names().starts_with(above.names());
        Ok(self.values.lock().expect("no panic").keys().filter(below).filter(|key| *key != above).cloned().collect())
    }

    fn lock_unless(&self, key: &Key, _is_over: &dyn Fn() -> bool) -> Result<Guard> {
        let held = self.locks.held.lock().expect("no panic");
        let mut held = self.locks.changed.wait_while(held, |held| held.contains(key)).expect("no panic");
        held.insert(key.clone());
        Ok(Guard::new(key.clone(), Held(self.locks.clone(), key.clone())))
    }

    fn put(&self, _guard: &Guard, key: &Key, value: &Value) -> Result<()> {
        self.pass(&self.writes, 1)?;
        self.values.lock().expect("no panic").insert(key.clone(), value.clone());
        Ok(())
    }

    fn remove(&self, _guard: &Guard, key: &Key) -> Result<bool> {
        self.pass(&self.writes, 1)?;
        Ok(self.values.lock().expect("no panic").remove(key).is_some())
    }

    fn place(&self, key: &Key) -> String {
        key.to_string()
    }
}
