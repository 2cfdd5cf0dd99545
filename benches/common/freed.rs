//! When removed namespaces are gone: the kernel frees them after the command that removed them has ended.

use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

/// Waits until no namespace is left but the one of this process and `others`: as long as one more is charged, none fits under the
/// limit of this user namespace.
pub(crate) fn wait(others: usize) {
    std::fs::write("/proc/sys/user/max_net_namespaces", (others + 2).to_string()).expect("the limit is set");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let made = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().expect("no panic");
        match made {
            Ok(()) => break,
            Err(error) => assert!(Instant::now() < deadline, "namespaces stay: {error}"),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    std::fs::write("/proc/sys/user/max_net_namespaces", "100000").expect("the limit is lifted");
}
