//! The sandbox: the private machine in which a lab is built without root.

use std::path::Path;

use super::down::{end_sandbox, end_unclaimed};
use crate::net::{self, ProcessId};
use crate::state::{Error, Kind, Result, StateDir};

/// A sandbox that this process started, for one run.
#[derive(Debug)]
pub struct Private {
    sandbox: net::Sandbox,
}

impl Private {
    /// Starts a sandbox by running `program` with `args`, which must call `net::netns::userns::hold` at once.
    pub fn start(program: &Path, args: &[&str]) -> Result<Private> {
        let sandbox = net::Sandbox::start(program, args).map_err(|source| refused(&source))?;
        Ok(Private { sandbox })
    }

    /// Returns the process that holds it.
    pub fn holder(&self) -> ProcessId {
        self.sandbox.holder()
    }

    /// Ends the run: the sandbox stays if it holds a lab that is up, else it ends with all that is in it.
    pub fn end(self, state: &StateDir) -> Result<()> {
        if end_unclaimed(state, self.sandbox.holder())? {
            return self.sandbox.keep().map_err(|source| Error::kernel("keep the sandbox", &source));
        }
        Ok(())
    }

    /// Ends the sandbox with all that is in it, whatever that is.
    pub fn abandon(self) -> Result<()> {
        end_sandbox(self.sandbox.holder())
    }

    /// Lets the sandbox outlive this process.
    pub fn keep(self) -> Result<()> {
        self.sandbox.keep().map_err(|source| Error::kernel("keep the sandbox", &source))
    }
}

/// Enters the sandbox of a lab; the process must have one thread.
pub fn enter(lab: &str, holder: ProcessId) -> Result<()> {
    net::netns::userns::enter(holder).map_err(|source| match source.errno() {
        libc::ESRCH | libc::ENOENT => Error::new(Kind::Gone, format!("enter the sandbox of lab `{lab}`"))
            .because("the process that held it has ended")
            .hint(format!("`topo down {lab}` removes what is left of it")),
        _ => Error::kernel(format!("enter the sandbox of lab `{lab}`"), &source),
    })
}

/// Tells whether this process may build networks where it is: it has CAP_NET_ADMIN and CAP_SYS_ADMIN (capabilities(7)), and has them
/// over the namespaces that it is in: root of a new user namespace (`unshare -r`) has no rights over those of before.
pub fn can_build_here() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    effective & NET_ADMIN != 0 && effective & SYS_ADMIN != 0 && net::netns::userns::owns_namespaces()
}

/// Says why the kernel forbids a sandbox, and which switch allows it.
fn refused(source: &net::Error) -> Error {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    // ENOSPC's own text speaks of a device.
    let because = match source.errno() {
        libc::ENOSPC => "the limit of namespaces is reached".into(),
        _ => source.to_string(),
    };
    let error = Error::new(Kind::Unsupported, "make a sandbox").because(format!("{}: {because}", source.doing()));
    let hint = if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids user namespaces: `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or run topo as root"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "the kernel forbids user namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1`, or run topo as root"
    } else if is("/proc/sys/user/max_user_namespaces", "0") || source.errno() == libc::ENOSPC {
        "no user namespace is left: `sudo sysctl -w user.max_user_namespaces=10000`, or run topo as root"
    } else {
        "the kernel, or a container's seccomp filter, forbids user namespaces: run topo as root, in a container with `--privileged`"
    };
    error.hint(hint)
}
