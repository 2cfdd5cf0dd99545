//! A pseudo-terminal, at which a command of a world can run.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{Termios, tcgetattr};

use super::sys::set_window;

/// A person's end of a terminal. Dropped, the terminal is closed, however many still have its other end open.
#[derive(Debug)]
pub(crate) struct Tty {
    person: PtyMaster,
    /// Held, since the kernel forgets a terminal's modes when nobody has it open.
    line: File,
}

impl Tty {
    /// Makes a terminal of so many rows and columns.
    pub(crate) fn open(rows: u16, columns: u16) -> Tty {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let person = posix_openpt(flags).expect("make a pseudo-terminal");
        grantpt(&person).expect("own a pseudo-terminal");
        unlockpt(&person).expect("unlock a pseudo-terminal");
        let name = ptsname_r(&person).expect("name a pseudo-terminal");
        // std adds O_CLOEXEC: no other test's child may keep the terminal open.
        let line = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name);
        let tty = Tty { person, line: line.unwrap_or_else(|err| panic!("open {name}: {err}")) };
        tty.resize(rows, columns);
        tty
    }

    /// Gives the terminal another size; whoever runs in it is told.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        set_window(self.person.as_fd(), rows, columns).expect("resize a terminal");
    }

    /// Returns its modes: whether it echoes, and whether it hands over lines or keys.
    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.line).expect("read the modes of a terminal")
    }

    /// Returns the end that a command gets.
    pub(super) fn line(&self) -> File {
        self.line.try_clone().expect("open a terminal again")
    }

    /// Types as much of `keys` as fits in and returns how much that is, and adds what is shown meanwhile to `shown`. Waits
    /// for either, no longer than `limit`.
    pub(crate) fn exchange(&mut self, keys: &[u8], shown: &mut Vec<u8>, limit: Duration) -> usize {
        let wanted = if keys.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.person.as_fd(), wanted)], limit).ok();
        let mut block = [0; 4096];
        if let Some(read) = done(self.person.read(&mut block)) {
            shown.extend_from_slice(&block[..read]);
        }
        if keys.is_empty() { 0 } else { done(self.person.write(keys)).unwrap_or(0) }
    }
}

/// Returns how much was read or written, if there was room.
fn done(result: io::Result<usize>) -> Option<usize> {
    match result {
        Ok(count) => Some(count),
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
        Err(err) => panic!("use a terminal: {err}"),
    }
}
