//! Ctrl-C and SIGTERM: caught once for the whole process, asked for wherever something waits.

use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, OnceLock};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use tokio::sync::Notify;

use crate::net::{Error, Foreground, Result};

static CAUGHT: AtomicI32 = AtomicI32::new(0);
/// The first signal that is more than a Ctrl-C.
static ENDING: AtomicI32 = AtomicI32::new(0);
static HOOK: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();
static WAKE: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Undoes what the caller may have set and what this program can't work with: a blocked signal, and SIGCHLD ignored, with which nobody
/// can wait for a child (wait(2)). To be called first of all.
pub fn begin() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Catches SIGINT, SIGTERM and SIGHUP from now on, on a thread that waits for them; but what the caller ignores stays ignored, as
/// `nohup` and a shell's `&` mean it.
///
/// The first one is kept for `caught`; later ones change nothing, so that an undo runs to its end. Must be called while
/// the process has one thread: threads made later inherit the blocked mask. Like `trap … INT TERM HUP` of a shell.
pub fn catch() -> Result<()> {
    let signals = block("catch signals")?;
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            // Only the first one counts: it decides the exit code.
            let _ = CAUGHT.compare_exchange(0, signal as i32, Ordering::SeqCst, Ordering::SeqCst);
            if signal != Signal::SIGINT {
                let _ = ENDING.compare_exchange(0, signal as i32, Ordering::SeqCst, Ordering::SeqCst);
            }
            WAKE.notify_waiters();
            if let Some(hook) = HOOK.get() {
                hook();
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(|e| Error::io("catch signals", e))?;
    Ok(())
}

/// Waits for a child to end, and passes SIGINT, SIGTERM and SIGHUP on to it. With `foreground`, which the child then has, it stops and
/// goes on with the child.
///
/// Without a thread: a process that has entered a pid namespace can't have a second one (clone(2), CLONE_THREAD).
pub fn wait_passing_on(child: &mut Child, foreground: Option<Foreground>) -> Result<ExitStatus> {
    let doing = "wait for a process";
    let mut signals = block(doing)?;
    signals.add(Signal::SIGCHLD);
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)
        .map_err(|errno| Error::new(doing, errno as i32))?;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    loop {
        // Looked at after the signals are blocked: an end before that sent its SIGCHLD to nobody.
        if let Some(status) = child.try_wait().map_err(|error| Error::io(doing, error))? {
            if let Some(foreground) = foreground {
                foreground.take_back(child.id());
            }
            return Ok(status);
        }
        if let Some(foreground) = foreground {
            foreground.stop_with(pid);
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = nix::sys::signal::kill(pid, signal);
            }
        }
    }
}

fn block(doing: &str) -> Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if !is_ignored(signal) {
            signals.add(signal);
        }
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)
        .map_err(|errno| Error::new(doing, errno as i32))?;
    Ok(signals)
}

/// Tells whether a signal is ignored. Blocked it would come all the same: the kernel drops what is ignored only where it is not blocked.
fn is_ignored(signal: Signal) -> bool {
    // SAFETY: without a new action the call only writes the present one into the memory given, which zeroes are fit for.
    unsafe {
        let mut now = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Returns the name of a signal: `SIGTERM`.
///
/// Like `kill -l NUMBER`.
pub fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_string())
}

/// Returns the number of a signal: of `TERM`, `SIGTERM`, `sigterm` or `15`.
pub fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return Signal::try_from(number).ok().map(|signal: Signal| signal as i32);
    }
    let name = name.to_ascii_uppercase();
    let found = |signal: &Signal| signal.as_str() == name || signal.as_str().strip_prefix("SIG") == Some(&name);
    Signal::iterator().find(found).map(|signal| signal as i32)
}

/// Returns the names of all signals, without `SIG`.
pub fn names() -> impl Iterator<Item = &'static str> {
    Signal::iterator().map(|signal| signal.as_str().trim_start_matches("SIG"))
}

/// Returns the first signal that was caught, if any was.
pub fn caught() -> Option<i32> {
    match CAUGHT.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// Returns the first signal that was caught and asks the whole process to end: SIGTERM or SIGHUP, after a Ctrl-C too.
pub fn ending() -> Option<i32> {
    match ENDING.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// Forgets a Ctrl-C: what it was for has been stopped, and the process goes on.
pub fn forget_interrupt() {
    let _ = CAUGHT.compare_exchange(libc::SIGINT, 0, Ordering::SeqCst, Ordering::SeqCst);
}

/// Calls `hook` after each signal that is caught, on the thread that waits for them. There is one hook; a second is ignored.
pub fn on_caught(hook: impl Fn() + Send + Sync + 'static) {
    let _ = HOOK.set(Box::new(hook));
}

/// Runs `work` until it is done or a signal is caught, which is EINTR.
pub async fn unless_caught<T>(doing: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let wake = WAKE.notified();
    tokio::pin!(wake);
    // Enabled before the look at the flag, so that a signal between the two is not missed.
    wake.as_mut().enable();
    if caught().is_some() {
        return Err(Error::new(doing, libc::EINTR));
    }
    tokio::select! {
        biased;
        () = wake => Err(Error::new(doing, libc::EINTR)),
        done = work => done,
    }
}
