//! Doors: how container runtimes use our networks. Each file is the protocol of one: what it hands over, and what it is answered. What
//! happens is a script of the library, the module `container`, which is behind all of them.

pub(super) mod act;
pub(super) mod cdi;
pub(super) mod cni;
pub(super) mod hook;
mod oci;

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Does what the program is asked for under a name that is a runtime's; `None` where that is `topo`.
pub(super) fn begin(words: &[OsString]) -> Option<u8> {
    let name = words.first().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str)?;
    match name {
        cni::PLUGIN => Some(cni::plugin(words)),
        cni::LOOPBACK => Some(cni::loopback()),
        _ => None,
    }
}

/// Reads all that a runtime hands over on standard input; what is larger than any runtime's is refused.
fn read_stdin() -> std::io::Result<String> {
    use std::io::Read;
    const MAX: u64 = 4 << 20;
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}
