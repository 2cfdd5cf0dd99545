//! Processes that are ended with a lab.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::net::{self, NetnsId};
use crate::state::{Error, Kind, Result, name};

/// How long processes in a lab's namespaces have between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// A process that was ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EndedProcess {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// Ends the processes in namespaces `ids` that a lab made: SIGTERM, then SIGKILL. Those of another pid namespace stay, which is an
/// error: a container has joined the namespace, and its engine ends it.
pub(super) fn end_processes(ids: &BTreeSet<NetnsId>, ended: &mut Vec<EndedProcess>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let doing = "end the lab's processes";
    let found = net::process::in_netns(ids).map_err(|source| Error::kernel(doing, &source))?;
    let (ours, others) = net::process::by_pid_namespace(found);
    end_all(&ours, ended)?;
    let others: Vec<String> = others
        .iter()
        .filter(|process| process.is_alive())
        .map(|process| format!("process {} (`{}`)", process.pid, name::shown(&net::process::words(process.pid))))
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Busy, doing)
        .because(format!(
            "in a netns of the lab are processes of another pid namespace, such as a container's: {}",
            others.join(", ")
        ))
        .hint("topo ends no container: stop it, and run the command again"))
}

/// Ends processes, SIGTERM, then SIGKILL, and adds them to `ended`.
pub(super) fn end_all(processes: &[net::ProcessId], ended: &mut Vec<EndedProcess>) -> Result<()> {
    let doing = "end the lab's processes";
    ended.extend(
        processes.iter().map(|process| EndedProcess { pid: process.pid, command: net::process::words(process.pid) }),
    );
    let left = net::process::end(processes, GRACE).map_err(|source| Error::kernel(doing, &source))?;
    if left.is_empty() {
        return Ok(());
    }
    let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
    Err(Error::new(Kind::Timeout, doing).because(format!("still running: {}", pids.join(", "))))
}
