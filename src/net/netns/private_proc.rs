//! A /proc of this process's own, for settings of many namespaces. The kernel keeps what was looked up in /proc/sys/net in one chain
//! for each name, whichever namespace it is of, and looks through all of it each time (fs/proc/proc_sysctl.c, proc_sys_compare): in
//! the machine's /proc that takes the longer the more namespaces there are. An instance that is renewed has short chains.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// So many files are opened in the machine's own /proc first: to make an instance costs as much as to look through some dozens.
const PLAIN: u32 = 64;
/// So many files are opened in one instance.
const RENEWED_AFTER: u32 = 128;

/// How many files were opened, and the instance if there is one.
static STATE: Mutex<(u32, Option<OwnedFd>)> = Mutex::new((0, None));

/// Opens the file `path` of /proc to be written, as it is seen from the namespace of the calling thread.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let (opened, instance) = &mut *state;
    *opened += 1;
    if *opened > PLAIN && (*opened - PLAIN - 1).is_multiple_of(RENEWED_AFTER) {
        // Where it is not allowed, as in a sandbox whose /proc is covered in part, the machine's will do.
        *instance = mount_detached().ok();
    }
    let Some(instance) = instance else { return OpenOptions::new().write(true).open(path) };
    let below = path.strip_prefix("/proc").map_err(io::Error::other)?;
    let opened = openat(instance.as_fd(), below, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(File::from(opened))
}

/// Mounts a procfs that has no place in any tree, and ends with its descriptor (fsopen(2), Linux 5.2).
fn mount_detached() -> io::Result<OwnedFd> {
    // Of linux/mount.h.
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const NOSUID_NODEV_NOEXEC: libc::c_uint = 2 | 4 | 8;
    const PROC: &CStr = c"proc";
    let owned = |done: libc::c_long| match libc::c_int::try_from(done) {
        // SAFETY: the kernel has just made the descriptor, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the text ends with a zero and lives longer than the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, PROC.as_ptr(), FSOPEN_CLOEXEC) })?;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: this command takes neither a key nor a value, and the descriptor is open for the whole call.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, NOSUID_NODEV_NOEXEC) })
}

#[cfg(test)]
mod tests {
    use super::super::sysctl;
    use super::*;
    use crate::net::testing::{in_own_process, netns};

    /// The setting is that of the namespace before, with and after an instance of its own.
    #[test]
    fn each_namespace_has_its_own_setting() {
        in_own_process("net::netns::private_proc::tests::each_namespace_has_its_own_setting", || {
            let (a, b) = (netns(), netns());
            for n in 0..PLAIN + 2 * RENEWED_AFTER {
                let (on, off) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
                for (netns, value) in [(on, "1"), (off, "0")] {
                    sysctl::write(netns, "net.ipv4.ip_forward", value).expect("written");
                    assert_eq!(sysctl::read(netns, "net.ipv4.ip_forward").expect("read"), value, "{n}");
                }
            }
            assert!(STATE.lock().expect("no panic").1.is_some(), "root may have an instance of its own");
            let error = sysctl::write(&a, "net.ipv4.no_such_setting", "1").expect_err("none such");
            assert_eq!(error.errno(), libc::ENOENT);
        });
    }
}
