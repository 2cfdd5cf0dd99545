//! The kinds of links that are made alone: one file a kind, which says all of it, and one list. The requests, what `ip` calls it, what
//! `topo doctor` looks for and the advice for a refusal are derived from those.

mod bond;
mod dummy;
mod ifb;
mod ipvlan;
mod macvlan;
mod tunnel;
mod vlan;
mod vrf;
mod vxlan;

use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind};
use serde::{Deserialize, Serialize};

use super::feature::{self, LinkFeature};
use crate::net::netlink::rtnl::NEW;
use crate::net::{Netns, NewLink, Request};

/// What a kind of links says of itself. What is not said is as of a link that is on top of no other one.
trait LinkSort {
    /// What it needs of the kernel: one of the `FEATURES` of its file.
    fn feature(&self) -> LinkFeature;

    /// What it is made with, in the words of `ip`; `below` is the name of the link below.
    fn words(&self, _below: Option<&str>) -> Vec<Option<String>> {
        Vec::new()
    }

    /// What it is made with, for the kernel; `below` is the number of the link below.
    fn data(&self, _below: Option<u32>) -> Option<InfoData> {
        None
    }

    fn below(&self) -> Below {
        Below::Nothing
    }

    fn address(&self) -> LinkAddress {
        LinkAddress::Own
    }

    /// The kind that can't be on top of the same link.
    fn excludes(&self) -> Option<&'static str> {
        None
    }

    /// What the kernel lacks, where it does not know the kind.
    fn lacking(&self) -> String {
        format!("{}: {}", self.feature().kind, self.feature().lacking())
    }

    /// What to do where the kernel refuses one.
    fn advice(&self, _refused: &RefusedLink<'_>) -> Option<String> {
        None
    }
}

/// What a link has to do with the one below.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// It goes on when that ends, if there is one.
    Nothing,
    /// It uses the addresses of that, and ends with it.
    Addresses,
    /// It shares the cable of that, and ends with it.
    Cable,
}

/// The Ethernet address of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkAddress {
    Own,
    /// That of the link below, whatever it is given.
    OfBelow,
    /// It carries packets without Ethernet.
    None,
}

/// A link that the kernel refused to make.
#[derive(Debug, Clone, Copy)]
pub struct RefusedLink<'a> {
    /// The kernel's reason.
    pub errno: i32,
    /// The namespace that it is made from, for the message.
    pub netns: &'a str,
    /// The link below, for the message.
    pub below: &'a str,
    /// Whether it was given an MTU.
    pub has_mtu: bool,
}

/// Declares the kinds, each by its file and its type there. In a journal a kind has the name of its type in lower case.
macro_rules! link_kinds {
    ($($module:ident::$name:ident;)+) => {
        /// The kind of a link, and what it is made with.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "lowercase")]
        pub enum LinkKind {
            $($name($module::$name),)+
        }

        impl LinkKind {
            fn sort(&self) -> &dyn LinkSort {
                match self { $(LinkKind::$name(kind) => kind,)+ }
            }
        }

        $(pub use self::$module::*;)+

        $(impl From<$module::$name> for LinkKind {
            fn from(kind: $module::$name) -> LinkKind {
                LinkKind::$name(kind)
            }
        })+

        /// Returns all that links need of the kernel: those that are made alone, and the others.
        pub fn link_features() -> Vec<LinkFeature> {
            [&feature::OTHERS[..], $($module::FEATURES),+].concat()
        }
    };
}

link_kinds! {
    vlan::Vlan;
    vxlan::Vxlan;
    macvlan::Macvlan;
    ipvlan::Ipvlan;
    dummy::Dummy;
    vrf::Vrf;
    bond::Bond;
    ifb::Ifb;
    tunnel::Tunnel;
}

/// Returns the kernel's modules for all kinds of links.
pub fn link_modules() -> Vec<&'static str> {
    link_features().iter().map(|feature| feature.module).collect()
}

impl LinkKind {
    /// Returns the kernel's word for the kind.
    pub fn kind(&self) -> &'static str {
        self.sort().feature().kind
    }

    /// Tells whether it is on top of one link, whose end is its own.
    pub fn is_stacked(&self) -> bool {
        self.sort().below() == Below::Cable
    }

    /// Tells whether it ends with the link below, if there is one.
    pub fn ends_with_below(&self) -> bool {
        self.sort().below() != Below::Nothing
    }

    /// Tells whether it has the Ethernet address of the link below, whatever it is given.
    pub fn shares_mac(&self) -> bool {
        self.sort().address() == LinkAddress::OfBelow
    }

    /// Tells whether it carries packets without Ethernet, and so has no Ethernet address.
    pub fn has_no_mac(&self) -> bool {
        self.sort().address() == LinkAddress::None
    }

    /// Returns the kind that can't be on top of the same link.
    pub fn excludes(&self) -> Option<&'static str> {
        self.sort().excludes()
    }

    /// Writes it as `ip link add` takes it behind `type`; `below` is the name of the link below.
    pub fn words(&self, below: Option<&str>) -> String {
        let words = [vec![Some(self.kind().to_string())], self.sort().words(below)].concat();
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Writes what it is made with, as `ip` does.
    pub fn about(&self) -> String {
        self.sort().words(None).into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Says what the kernel lacks, where it does not know the kind.
    pub fn lacking(&self) -> String {
        format!("this kernel lacks {}", self.sort().lacking())
    }

    /// Says what to do where the kernel refuses one.
    pub fn advice(&self, refused: &RefusedLink<'_>) -> Option<String> {
        let below = refused.below;
        match refused.errno {
            libc::EBUSY if self.is_stacked() => Some(format!(
                "{below} is a port of a bridge, or has devices of another kind on top: put it on the bridge itself"
            )),
            libc::EADDRINUSE if self.is_stacked() => Some("another device on it has that hardware address".into()),
            libc::EINVAL if self.is_stacked() && refused.has_mtu => Some(format!("its MTU is at most that of {below}")),
            _ => self.sort().advice(refused),
        }
    }
}

/// Returns the request that makes a link in the namespace `netns`, with its name, number, address and MTU; it is down. `below` is the link that it is
/// on top of, or whose addresses it uses; the request goes over a socket in the namespace of that one, or else in `netns`.
/// An alias is not taken at birth (rtnl_create_link in net/core/rtnetlink.c): `change` gives it afterwards.
///
/// Like `ip link add [link BELOW] NAME netns NETNS type KIND …`. EOPNOTSUPP if the kernel lacks the kind, EEXIST if the name or
/// number is taken, or there is such a link already: one VLAN of that id on a link, one VXLAN of that number in a namespace.
/// Of a macvlan, an ipvlan: EBUSY if the parent is a port of a bridge or has links of the other kind on top, EINVAL for an
/// MTU above the parent's, a second link beside one in mode passthru, or a parent that has no Ethernet.
pub fn link_request(link: &NewLink<'_>, netns: &Netns, below: Option<u32>, kind: &LinkKind) -> Request {
    let has_mac = !kind.shares_mac() && !kind.has_no_mac();
    let mut builder = link.builder(Some(InfoKind::from(kind.kind())), has_mac).setns_by_fd(netns.fd().as_raw_fd());
    if let Some(below) = below.filter(|_| kind.is_stacked()) {
        builder = builder.link(below);
    }
    if let Some(data) = kind.sort().data(below) {
        builder = builder.set_info_data(data);
    }
    let on = below.map_or(String::new(), |below| format!(" on link {below}"));
    let doing = format!("add {} `{}`{on}", kind.kind(), link.name);
    Request::new(doing, RouteNetlinkMessage::NewLink(builder.build()), NEW).keeping(netns)
}

/// Sends the request of `link_request`.
#[cfg(test)]
pub(crate) fn add_link(
    rtnl: &crate::net::Netlink,
    link: &NewLink<'_>,
    netns: &Netns,
    below: Option<u32>,
    kind: &LinkKind,
) -> crate::net::Result<()> {
    rtnl.send(link_request(link, netns, below, kind))
}

#[cfg(test)]
mod tests;
