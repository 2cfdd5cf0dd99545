//! The servers of labs: `topo __serve JSON`, which the primitive `serve` starts in a netns. Nobody types it.

use std::ffi::OsString;
use std::io::Write;

use crate::net::{self, Server};
use crate::prim::SERVE;

/// Looks for our word; serves without end, or returns the exit code of what went wrong.
pub(super) fn begin(words: &[OsString]) -> Option<u8> {
    if words.get(1)?.to_str()? != SERVE {
        return None;
    }
    let server: Option<Server> = words.get(2).and_then(|word| serde_json::from_str(word.to_str()?).ok());
    let Some(server) = server else { return Some(2) };
    // A log that nobody takes any more is no reason to end.
    let note = |line: &str| {
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    match net::server::serve_here(&server, note) {
        Ok(()) => Some(0),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: {error}", error.doing());
            Some(1)
        }
    }
}
