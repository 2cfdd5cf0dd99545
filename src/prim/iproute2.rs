//! How iproute2 is called for a namespace: for the commands that a step is like.

use crate::state::{NetnsAt, NetnsRef};

/// Returns how `ip` is called for a namespace.
pub(super) fn ip(netns: &NetnsRef) -> String {
    tool("ip", netns)
}

/// Returns how `ip` or `bridge` is called for a namespace.
pub(super) fn tool(name: &str, netns: &NetnsRef) -> String {
    match &netns.at {
        NetnsAt::Host => name.into(),
        NetnsAt::Named | NetnsAt::NamedAs(_) => format!("{name} -n {}", netns.name),
        NetnsAt::Path(path, _) => format!("nsenter --net={} {name}", path.display()),
        NetnsAt::Process(process, _) => format!("nsenter -t {} -n {name}", process.pid),
    }
}
