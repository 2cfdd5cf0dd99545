//! The terminal's foreground: the process group that may read from it and gets its Ctrl-C (tcsetpgrp(3), credentials(7)).
//!
//! A shell makes itself the foreground and gives that back at its end, by the number of the group that had it before. In a pid namespace
//! that group may have no number: then nobody is in the foreground, and the next who asks for input is stopped by SIGTTIN or SIGTTOU.
//! So a process that is run in a sandbox for a person leads a group of its own there, and who waits for it does what a shell with job
//! control does.

use std::io::{IsTerminal, stdin, stdout};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgid, getpgrp, setpgid, tcgetpgrp, tcsetpgrp};

/// The foreground of this process's terminal, which this process was in.
#[derive(Debug, Clone, Copy)]
pub struct Foreground {
    ours: Pid,
}

impl Foreground {
    /// Returns the foreground if this process is in it and a person is at the terminal: standard input and output are that. None where
    /// output goes to another program, which may need the terminal as well, or where this process's group has no number.
    pub fn ours() -> Option<Foreground> {
        let ours = getpgrp();
        let person = stdin().is_terminal() && stdout().is_terminal();
        (person && ours.as_raw() != 0 && tcgetpgrp(stdin()) == Ok(ours)).then_some(Foreground { ours })
    }

    /// Takes the foreground back from a process that has ended, or whose group has. One who has it by right keeps it.
    pub fn take_back(&self, from: u32) {
        let Ok(now) = tcgetpgrp(stdin()) else { return };
        if now != self.ours && (i32::try_from(from) == Ok(now.as_raw()) || is_over(now)) {
            let _ = give(self.ours);
        }
    }

    /// Stops with a child that has stopped in a group of its own, and goes on with it. Like a shell's `fg`.
    pub(super) fn stop_with(&self, child: Pid) {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WSTOPPED;
        let Ok(WaitStatus::Stopped(_, signal)) = waitid(Id::Pid(child), flags) else { return };
        let Ok(group) = getpgid(Some(child)) else { return };
        if group == self.ours {
            return;
        }
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        if !(wants_terminal && self.is_in_front()) {
            self.take_back(child.as_raw().unsigned_abs());
            // Who started us sees that we have stopped, and has us go on later.
            let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
        }
        if self.is_in_front() {
            let _ = give(group);
        }
        let _ = killpg(group, Signal::SIGCONT);
    }

    fn is_in_front(&self) -> bool {
        tcgetpgrp(stdin()) == Ok(self.ours)
    }
}

/// Makes this process the leader of a group in the foreground. Makes system calls alone, so that it may be called between fork and exec.
pub(super) fn lead() -> nix::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    give(getpgrp())
}

/// Puts a group into the foreground; this process may be in the background.
fn give(group: Pid) -> nix::Result<()> {
    let mut before = SigSet::empty();
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    // Blocked, SIGTTOU doesn't keep a process in the background from setting the foreground (tcsetpgrp(3)).
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), Some(&mut before))?;
    let given = tcsetpgrp(stdin(), group);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    given
}

/// Tells whether nobody is in a group.
fn is_over(group: Pid) -> bool {
    killpg(group, None) == Err(nix::Error::ESRCH)
}
