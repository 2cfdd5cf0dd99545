//! What this kernel has: asked of the kernel itself, in a namespace that nobody else sees.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::InfoKind;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::net::{Error, Netlink, Result};

/// Tells whether the kernel knows a kind of link, by asking it to make one: a kind that it lacks is EOPNOTSUPP and
/// "Unknown device type" (rtnl_newlink() in net/core/rtnetlink.c), any other refusal is about what such a link needs. A `tun` is
/// refused with EOPNOTSUPP where there is one, since it is made by /dev/net/tun alone (tun_validate()). What is made stays in the namespace of `rtnl`.
///
/// Like `ip link add type KIND`.
pub fn has_link_kind(rtnl: &Netlink, kind: &str) -> Result<bool> {
    let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::from(kind)).build();
    let made = rtnl.change(
        &format!("probe link kind `{kind}`"),
        RouteNetlinkMessage::NewLink(message),
        crate::net::netlink::rtnl::NEW,
    );
    let lacks = |error: Error| error.is_unsupported() && error.to_string().contains("Unknown device type");
    Ok(!made.is_err_and(lacks))
}
