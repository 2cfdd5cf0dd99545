//! The servers of labs: `topo __serve WHAT`, which the primitive `serve` starts in a netns. Nobody types it.

use std::ffi::OsString;
use std::io::{Read, Write};

use crate::net::{self, Server};
use crate::prim::SERVE;
use crate::terminal::exit;

/// Looks for our word; serves without end, or returns the exit code of what went wrong. What to serve is in the standard input,
/// since a body may be longer than an argument can be; the second word is for those who list processes.
pub(super) fn begin(words: &[OsString]) -> Option<u8> {
    if words.get(1)?.to_str()? != SERVE {
        return None;
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    let server: Option<Server> = read.ok().and_then(|_| serde_json::from_str(&text).ok());
    let Some(server) = server else { return Some(exit::USAGE) };
    // A log that nobody takes any more is no reason to end.
    let note = |line: &str| {
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    match net::probe::server::serve_here(&server, note) {
        Ok(()) => Some(exit::DONE),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: {error}", error.doing());
            Some(exit::FAILED)
        }
    }
}
