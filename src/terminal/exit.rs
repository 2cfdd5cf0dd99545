//! The exit codes: each stands here once, with what it says. `--help` and the reference are made from this list.

use crate::net::process::signal;
use crate::script::FailureKind;
use crate::state::Kind;

/// Declares the exit codes, each with what it says in a few words.
macro_rules! exit_codes {
    ($(#[doc = $about:literal] $name:ident = $code:literal;)+) => {
        $(#[doc = $about] #[allow(dead_code, reason = "a code that a signal gives is only listed")] pub const $name: u8 = $code;)+

        /// All of them, each with what it says.
        const ALL: &[(u8, &str)] = &[$(($code, $about)),+];
    };
}

exit_codes! {
    /// done
    DONE = 0;
    /// the command, the script, a check or a test failed
    FAILED = 1;
    /// wrong usage
    USAGE = 2;
    /// this machine lacks something (`topo doctor`)
    LACKS = 3;
    /// `topo exec` can't run the command
    CANNOT_RUN = 126;
    /// `topo exec` finds no such command
    NO_COMMAND = 127;
    /// the terminal was closed
    HUNG_UP = 129;
    /// interrupted (Ctrl-C)
    INTERRUPTED = 130;
    /// terminated
    TERMINATED = 143;
}

/// Returns the exit code of what either failed or did not.
pub fn of_failed(failed: bool) -> u8 {
    if failed { FAILED } else { DONE }
}

/// Returns the exit code of what a signal ended: that of a shell (bash(1), EXIT STATUS).
pub fn of_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(INTERRUPTED)
}

/// Returns the exit code of what ended with an error of a kind.
pub fn of_kind(kind: Kind) -> u8 {
    match kind {
        Kind::Unsupported => LACKS,
        Kind::Interrupted => signal::caught().map_or(INTERRUPTED, of_signal),
        _ => FAILED,
    }
}

/// Returns the exit code of a script that ended with a failure.
pub fn of_failure(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Lab(kind) => of_kind(kind),
        _ => FAILED,
    }
}

/// Writes the list for `--help`.
pub fn help() -> String {
    let codes: Vec<String> = ALL.iter().map(|(code, about)| format!("{code} {}", about.trim())).collect();
    format!("Exit codes: {}.", codes.join(", "))
}

/// Writes the list for the reference.
pub fn markdown() -> String {
    let rows: String = ALL.iter().map(|(code, about)| format!("| {code} | {} |\n", about.trim())).collect();
    format!(
        "\n## Exit codes\n\nWhat `topo` ends with. `topo exec` ends with the exit code of its command.\n\n\
         | code | meaning |\n| --- | --- |\n{rows}"
    )
}
