//! What Docker calls a network: it does not tell its drivers, but everybody who listens to its events.
//!
//! The event comes when the driver has answered. So we listen before we make the network, and call it by its name afterwards. Who asks `topo`
//! for networks meanwhile waits for that, by a lock.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::cmd::context::Context;

/// Where Docker itself listens.
pub(super) const DOCKER: &str = "/run/docker.sock";
/// How long Docker may take from the driver's answer to the event.
const EVENT_WITHIN: Duration = Duration::from_secs(10);
/// The file in the state directory that is locked while a network has not got its name.
const LOCK: &str = "docker-names";

/// Docker's events, from before the network was made.
#[derive(Debug)]
pub(super) struct DockerEvents {
    events: BufReader<UnixStream>,
    _lock: Option<NamesLock>,
}

/// The lock, whose file goes with it.
#[derive(Debug)]
struct NamesLock {
    path: PathBuf,
    _file: Flock<File>,
}

impl NamesLock {
    /// Takes the lock, shared: several networks may be made at the same time.
    fn take(state: &Path) -> Option<NamesLock> {
        let path = state.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path).ok()?;
        Some(NamesLock { path, _file: Flock::lock(file, FlockArg::LockShared).ok()? })
    }
}

impl Drop for NamesLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl DockerEvents {
    /// Begins to listen; nothing where Docker can't be reached, and the network then is called by Docker's number.
    pub(super) fn listen(docker: &Path, state: &Path) -> Option<DockerEvents> {
        let mut stream = UnixStream::connect(docker).ok()?;
        stream.set_read_timeout(Some(EVENT_WITHIN)).ok()?;
        // {"type":["network"],"event":["create"]}
        let filters = "%7B%22type%22%3A%5B%22network%22%5D%2C%22event%22%3A%5B%22create%22%5D%7D";
        let request = format!("GET /events?filters={filters} HTTP/1.1\r\nhost: docker\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut events = BufReader::new(stream);
        let mut line = String::new();
        events.read_line(&mut line).ok().filter(|_| line.contains(" 200 "))?;
        Some(DockerEvents { events, _lock: NamesLock::take(state) })
    }

    /// Waits until Docker tells of a network of this number, and returns what it calls it. The lock is held until `use_it` has done.
    pub(super) fn tell(mut self, network: &str, use_it: impl FnOnce(&str)) {
        let mut line = String::new();
        // Each event is a line of JSON in a chunk of its own.
        while self.events.read_line(&mut line).is_ok_and(|length| length > 0) {
            let event: Value = serde_json::from_str(line.trim()).unwrap_or_default();
            if event["Actor"]["ID"] == network {
                if let Some(name) = event["Actor"]["Attributes"]["name"].as_str() {
                    use_it(name);
                }
                return;
            }
            line.clear();
        }
    }
}

/// Waits while a network that Docker has made gets its name.
pub(in crate::cmd) fn wait_for_names(context: &Context) {
    let Ok(state) = context.state() else { return };
    let Ok(file) = File::open(state.root().join(LOCK)) else { return };
    drop(Flock::lock(file, FlockArg::LockExclusive));
}
