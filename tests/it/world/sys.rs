//! The system calls that neither std nor nix wraps, for the rest of the harness.

use std::ffi::{c_int, c_long};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Forks, with `flags` of clone(2) in place of none; returns 0 in the child and a negative number on failure.
///
/// # Safety
///
/// As for fork(2) in a process with threads: up to its exec the child may only make system calls, on memory that was
/// prepared before. Flags that share memory with the parent are not allowed.
pub(super) unsafe fn clone(flags: c_int) -> i32 {
    let zero: c_long = 0;
    // SAFETY: without a stack and without shared memory this is fork; the kernel reads no pointer.
    let pid = unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags), zero, zero, zero, zero) };
    i32::try_from(pid).unwrap_or(-1)
}

/// Opens a handle on a child that wasn't waited for yet, so that its number can't be another process's.
pub(super) fn pidfd_of(pid: i32) -> Result<OwnedFd> {
    // SAFETY: this call takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), 0 as c_long) };
    match i32::try_from(fd) {
        // SAFETY: the kernel just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Error::last_os_error()),
    }
}

/// Sends a signal; to a process that has ended already this does nothing.
pub(super) fn signal(pidfd: BorrowedFd<'_>, signal: c_int) {
    let (fd, signal, zero) = (c_long::from(pidfd.as_raw_fd()), c_long::from(signal), 0 as c_long);
    // SAFETY: the only pointer is null, which stands for the usual signal information.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, ptr::null::<libc::siginfo_t>(), zero) };
}

/// Sets how many rows and columns a terminal has.
pub(super) fn set_window(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads no more than the structure.
    checked(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, ptr::from_ref(&size)) })
}

/// Returns the last error as its number, without memory of its own.
pub(super) fn errno() -> c_int {
    Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Turns the -1 of a system call into its error.
pub(super) fn checked(result: impl Into<i64>) -> Result<()> {
    if result.into() < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
