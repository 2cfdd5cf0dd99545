//! The processes that statements left running: whoever ends is told above the prompt.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::lab::Watched;
use crate::net::process;

/// At most so many are watched at a time, each by a thread that waits.
const WATCHED_MAX: usize = 64;

/// Writes above the prompt, while a line is typed.
pub(super) type Printer = Box<dyn FnMut(String) + Send>;

/// Where the watchers write: nowhere before the editor is there, and once the session is over.
#[derive(Clone, Default)]
pub(super) struct Above(Arc<Mutex<Option<Printer>>>);

impl Above {
    pub(super) fn open(&self, printer: Printer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(printer);
    }

    /// What ends from now on ends with the session.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn say(&self, text: String) {
        if let Some(printer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            printer(text);
        }
    }
}

/// Who is watched.
#[derive(Default)]
pub(super) struct Watch {
    above: Above,
    seen: Arc<Mutex<BTreeSet<(u32, u64)>>>,
}

impl Watch {
    pub(super) fn new(above: Above) -> Watch {
        Watch { above, seen: Arc::default() }
    }

    /// Watches those of `processes` that are new.
    pub(super) fn add(&self, processes: Vec<Watched>) {
        for (process, supervised) in processes {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() >= WATCHED_MAX || !seen.insert((process.pid, process.start)) {
                continue;
            }
            let (above, all) = (self.above.clone(), self.seen.clone());
            // Now: one that has ended has no command line any more.
            let line = command_of(process.pid);
            let watch = move || {
                let ended = process::wait_over(process);
                all.lock().unwrap_or_else(PoisonError::into_inner).remove(&(process.pid, process.start));
                if ended.is_ok() {
                    above.say(match supervised {
                        Some((name, files)) => format!("process {name} has ended{}\n", files.end_in_words()),
                        None => format!("process {}, `{line}`, has ended\n", process.pid),
                    });
                }
            };
            let _ = std::thread::Builder::new().name("watch".into()).spawn(watch);
        }
    }
}

/// Returns the command line of a process, as far as a line shows it.
fn command_of(pid: u32) -> String {
    const SHOWN: usize = 40;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    let plain: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.chars().count() <= SHOWN { plain } else { format!("{}…", plain.chars().take(SHOWN).collect::<String>()) }
}
