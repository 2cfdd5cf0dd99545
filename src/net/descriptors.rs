//! How many files this process may have open at once. Programs that it starts get the limit that it was started with: old ones break
//! when a descriptor's number is above 1023 (select(2)).

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft and the hard limit that the process was started with.
static INHERITED: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises the soft limit to the hard one, and returns it. Where it can't be raised it stays.
pub fn raise_limit() -> u64 {
    const USUAL: u64 = 1024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return USUAL };
    INHERITED.get_or_init(|| (soft, hard));
    if soft == hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Sets the limit back, in a child that is about to become another program.
pub(super) fn inherit_limit() -> nix::Result<()> {
    match INHERITED.get() {
        Some((soft, hard)) => setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{in_own_process, netns, said};

    #[test]
    fn what_is_started_has_the_limit_of_before() {
        in_own_process("net::descriptors::tests::what_is_started_has_the_limit_of_before", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limits");
            setrlimit(Resource::RLIMIT_NOFILE, 100, hard).expect("lowered");
            assert_eq!(raise_limit(), hard);
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("the limits"), (hard, hard));
            assert_eq!(said(&netns(), "sh", "ulimit -n").trim(), "100");
        });
    }
}
