//! A seam for crash tests: every operation that changes the kernel or a file of the state passes a numbered point first, and
//! a test can make the n-th of them fail or kill the process. In a release build there are no points.

use super::Result;

/// What happens at the armed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The operation fails with EIO, "injected fault", and changes nothing.
    Fail,
    /// The process is killed with SIGKILL.
    Kill,
}

/// Which points are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// All.
    All,
    /// Those before a change of the kernel.
    Kernel,
}

/// Arms the `at`-th point of those `counted`, from now on and counted from 1; it triggers once. Counting starts anew.
pub fn arm(at: u64, counted: Counted, kind: FaultKind) {
    #[cfg(debug_assertions)]
    counter::arm(at, counted, kind);
    #[cfg(not(debug_assertions))]
    let _ = (at, counted, kind);
}

/// Returns how many points were passed since the start or the last `arm`.
#[cfg(test)]
pub fn points() -> u64 {
    counter::points()
}

/// Tells whether a point is armed: what is else done at once is then done one by one, so that it can end between any two of them.
pub(crate) fn is_armed() -> bool {
    #[cfg(debug_assertions)]
    return counter::is_armed();
    #[cfg(not(debug_assertions))]
    false
}

/// Passes a point before a change of the kernel, which fails or kills if it is the armed one.
#[cfg(debug_assertions)]
pub(crate) fn point(doing: &str) -> Result<()> {
    counter::pass(doing)
}

/// Passes a point before a change of a file.
#[cfg(debug_assertions)]
pub(crate) fn file_point(doing: &str) -> Result<()> {
    if counter::counts_files() { counter::pass(doing) } else { Ok(()) }
}

/// Passes a point: nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn point(_doing: &str) -> Result<()> {
    Ok(())
}

/// Passes a point: nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn file_point(_doing: &str) -> Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
mod counter {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

    use super::{Counted, FaultKind};
    use crate::net::{Error, Result};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    /// 0 is "not armed".
    static ARMED: AtomicU64 = AtomicU64::new(0);
    static KILLS: AtomicBool = AtomicBool::new(false);
    static COUNTS_FILES: AtomicBool = AtomicBool::new(true);

    pub(super) fn arm(at: u64, counted: Counted, kind: FaultKind) {
        COUNTS_FILES.store(counted == Counted::All, SeqCst);
        KILLS.store(kind == FaultKind::Kill, SeqCst);
        PASSED.store(0, SeqCst);
        ARMED.store(at, SeqCst);
    }

    pub(super) fn counts_files() -> bool {
        COUNTS_FILES.load(SeqCst)
    }

    pub(super) fn is_armed() -> bool {
        ARMED.load(SeqCst) != 0
    }

    #[cfg(test)]
    pub(super) fn points() -> u64 {
        PASSED.load(SeqCst)
    }

    pub(super) fn pass(doing: &str) -> Result<()> {
        let this = PASSED.fetch_add(1, SeqCst) + 1;
        if ARMED.compare_exchange(this, 0, SeqCst, SeqCst).is_err() {
            return Ok(());
        }
        if KILLS.load(SeqCst) {
            // A failure to kill oneself falls through to the injected error.
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
        Err(Error::new(doing, libc::EIO).saying("injected fault"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing;

    /// The counter is the process's, so the test has a process of its own.
    #[test]
    fn the_armed_point_fails_once() {
        testing::in_own_process("net::fault::tests::the_armed_point_fails_once", || {
            let before = points();
            point("a").expect("nothing armed");
            assert_eq!(points(), before + 1);
            arm(2, Counted::All, FaultKind::Fail);
            point("b").expect("the first point");
            let error = point("add link `x`").expect_err("the second point");
            assert_eq!((error.errno(), error.to_string().as_str()), (libc::EIO, "injected fault"));
            assert_eq!(error.doing(), "add link `x`");
            point("c").expect("only once");
            assert_eq!(points(), 3);
            arm(1, Counted::Kernel, FaultKind::Fail);
            file_point("d").expect("not a point of the kernel");
            point("e").expect_err("the first one of the kernel");
        });
    }

    #[test]
    fn the_armed_point_kills() {
        let status = testing::status_of_own_process("net::fault::tests::the_armed_point_kills", || {
            arm(1, Counted::All, FaultKind::Kill);
            let _ = point("add link `x`");
            unreachable!("the process was killed");
        });
        if let Some(status) = status {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        }
    }
}
