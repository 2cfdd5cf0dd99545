//! What this kernel has: asked of the kernel itself, in a namespace that nobody else sees.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::{Result, Rtnl};

/// Tells whether the kernel knows a kind of link, by asking it to make one: a kind that it lacks is EOPNOTSUPP, any other
/// refusal is about what such a link needs besides. What is made stays in the namespace of `rtnl`.
///
/// Like `ip link add type KIND`.
pub async fn has_link_kind(rtnl: &Rtnl, kind: &str) -> Result<bool> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::from(kind))]));
    let made = rtnl
        .change(&format!("probe link kind `{kind}`"), RouteNetlinkMessage::NewLink(message), super::rtnl::NEW)
        .await;
    Ok(!made.is_err_and(|error| error.is_unsupported()))
}
