//! The sandbox that a process is in.

use crate::net::ProcessId;

/// The sandbox that a process was started in: who holds it, and who started it, by their pids outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// The process that holds the sandbox.
    pub holder: ProcessId,
    /// The process on whose behalf this one runs.
    pub creator: ProcessId,
}

impl Inside {
    /// Writes it as one word, for a command line.
    pub fn to_word(self) -> String {
        let Inside { holder, creator } = self;
        format!("{}:{}:{}:{}", holder.pid, holder.start, creator.pid, creator.start)
    }

    /// Reads it back.
    pub fn from_word(word: &str) -> Option<Inside> {
        let numbers: Option<Vec<u64>> = word.split(':').map(|number| number.parse().ok()).collect();
        let [pid, start, creator, creator_start] = *numbers?.as_slice() else { return None };
        Some(Inside {
            holder: ProcessId { pid: pid.try_into().ok()?, start },
            creator: ProcessId { pid: creator.try_into().ok()?, start: creator_start },
        })
    }
}
