//! How many files this process may have open at once. Programs that it starts get the limit that it was started with: old ones break
//! when a descriptor's number is above 1023 (select(2)).

use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft and the hard limit that the process was started with.
static INHERITED: OnceLock<(u64, u64)> = OnceLock::new();

/// How many more files are needed at least, and how many more root is given where there are fewer.
const ROOM: u64 = 64;
const MORE: u64 = 256;

/// Raises the soft limit to the hard one, and returns it. Where it can't be raised it stays.
///
/// The first time it raises the hard limit too where the caller left nearly none, which only root can (setrlimit(2)): a removal
/// must not fail since a script has many files open.
pub fn raise_limit() -> u64 {
    const USUAL: u64 = 1024;
    let Ok((soft, mut hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return USUAL };
    INHERITED.get_or_init(|| {
        let (given, more) = (hard, hard.saturating_add(MORE));
        if lacks_room(given) && setrlimit(Resource::RLIMIT_NOFILE, soft, more).is_ok() {
            hard = more;
        }
        (soft, given)
    });
    if soft == hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Tells whether few descriptors are left: a new one has the lowest free number.
fn lacks_room(limit: u64) -> bool {
    match nix::unistd::dup(std::io::stdin()) {
        Ok(new) => (new.as_raw_fd() as u64).saturating_add(ROOM) > limit,
        Err(error) => error == nix::Error::EMFILE,
    }
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
        in_own_process("net::process::descriptors::tests::what_is_started_has_the_limit_of_before", || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limits");
            setrlimit(Resource::RLIMIT_NOFILE, 100, hard).expect("lowered");
            assert_eq!(raise_limit(), hard);
            assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("the limits"), (hard, hard));
            assert_eq!(said(&netns(), "sh", "ulimit -n").trim(), "100");
        });
    }

    #[test]
    fn a_caller_with_many_files_open_leaves_room() {
        in_own_process("net::process::descriptors::tests::a_caller_with_many_files_open_leaves_room", || {
            let open: Vec<_> = (0..30).map_while(|_| nix::unistd::dup(std::io::stdin()).ok()).collect();
            let limit = 40;
            setrlimit(Resource::RLIMIT_NOFILE, limit, limit).expect("lowered");
            let raised = raise_limit();
            // Without CAP_SYS_RESOURCE it stays.
            assert!([limit, limit + MORE].contains(&raised), "{raised}");
            assert_eq!(raise_limit(), raised, "only once");
            drop(open);
        });
    }
}
