//! What a command begins with, whatever `topo` itself was started with: default signal dispositions, no blocked signal, a sane umask, the
//! limit of open files that `topo` was started with, and no open file but its own.
//!
//! An ignored signal stays ignored across execve(2), and a descriptor without FD_CLOEXEC stays open. So what a script starts would
//! depend on who started `topo`: `nohup` ignores SIGHUP, a shell ignores SIGINT and SIGQUIT for what it runs behind `&`.

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};

use super::descriptors::inherit_limit;

/// Which of the caller's open files a command gets, beyond its standard input and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFiles {
    /// All of them: the command takes the place of `topo` at a shell, where `<(…)` is a descriptor.
    Callers,
    /// None: the command may outlive the caller.
    None,
}

/// Prepares a process for the program that it is about to run. Makes system calls alone, so that it may be called between fork and exec.
pub(in crate::net) fn begin(files: OpenFiles) -> nix::Result<()> {
    default_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    sane_umask();
    inherit_limit()?;
    match files {
        OpenFiles::Callers => Ok(()),
        // Closed by the exec only: until then std reports a failure of it by a pipe.
        OpenFiles::None => close_range(libc::CLOSE_RANGE_CLOEXEC),
    }
}

/// Makes this process, which stays, one of nobody's: none of the caller's descriptors but the standard ones, signals and umask as for
/// any command. To be called before it opens anything.
pub(in crate::net) fn be_nobodys() -> nix::Result<()> {
    default_signals();
    sane_umask();
    close_range(0)
}

/// Sets a umask of 022, and beyond that what the caller's keeps from its group and from others, as sudo does (sudoers(5), `umask`): what
/// a private user's script writes stays private. One that takes rights from the owner is none that anybody works with.
fn sane_umask() {
    let least = Mode::S_IWGRP | Mode::S_IWOTH;
    let callers = umask(least);
    if !callers.intersects(Mode::S_IRWXU) {
        umask(least | callers);
    }
}

/// Sets all signals back to what they do by default.
fn default_signals() {
    /// The kernel's own structure is shorter, and all of it is zero for the default (rt_sigaction(2)).
    const DEFAULT: [u64; 8] = [0; 8];
    // Not by libc's function, which refuses the two signals that libc keeps for itself: the caller may have them ignored, too.
    for signal in 1..=libc::SIGRTMAX() {
        let size = libc::c_long::from(libc::SIGRTMAX() / 8);
        // SAFETY: no handler is installed, and the memory read is longer than what the kernel reads. SIGKILL and SIGSTOP are refused,
        // which is well.
        unsafe {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, libc::c_long::from(signal), DEFAULT.as_ptr(), none, size);
        }
    }
}

/// Closes all descriptors but the standard ones, or has the next exec close them: close_range(2), since Linux 5.11.
fn close_range(flags: libc::c_uint) -> nix::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: numbers alone. With the flag nothing is closed yet; without it the caller has opened nothing.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    nix::Error::result(done).map(|_| ())
}
