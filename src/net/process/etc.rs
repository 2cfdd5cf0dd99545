//! Files of /etc that one command alone sees otherwise: its names of hosts, its name servers. What `ip netns exec` does with
//! /etc/netns/NAME (ip-netns(8)), without the rest of what that does.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// A file, and the one of /etc whose place it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcFile {
    /// What is seen.
    pub shown: PathBuf,
    /// Where it is seen.
    pub at: PathBuf,
}

/// Makes `command` see `files` in mounts of its own, which end with it. Without files it keeps the caller's mounts.
///
/// Like `unshare --mount --propagation slave sh -c 'mount --bind FILE /etc/hosts; exec COMMAND'`.
pub fn see(files: &[EtcFile], command: &mut Command) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let pairs: Vec<(CString, CString)> =
        files.iter().map(|file| Ok((text(&file.shown)?, text(&file.at)?))).collect::<io::Result<_>>()?;
    let enter = move || {
        let none = None::<&CStr>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        // As a slave: what is unmounted outside goes here too, above all the namespaces of labs, which a mount keeps alive.
        mount(none, c"/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
        for (shown, at) in &pairs {
            mount(Some(shown.as_c_str()), at.as_c_str(), none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are system calls on texts that were made
    // before, without allocation or locks (signal-safety(7)).
    unsafe { command.pre_exec(enter) };
    Ok(())
}
