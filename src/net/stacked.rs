//! Links on top of another one, which share its cable: macvlan, with an Ethernet address each, and ipvlan, with the one of
//! the link below.

use std::fmt;
use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, IpVlanMode, LinkAttribute, LinkInfo, MacVlanMode,
};
use serde::{Deserialize, Serialize};

use super::rtnl::NEW;
use super::{Netns, NewLink, Result, Rtnl};

/// Whom a macvlan hears of those on top of the same link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// The others in this mode, at once.
    Bridge,
    /// None of them.
    Private,
    /// Those whose frames the switch at the other end of the cable sends back (IEEE 802.1Qbg).
    Vepa,
    /// There are no others: it has the link and its address for itself.
    Passthru,
}

/// What an ipvlan does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// Its own neighbours: it sees broadcasts and asks by ARP.
    L2,
    /// Nothing below IP: the namespace of the link below routes for it.
    L3,
    /// As `L3`, and the netfilter hooks of that namespace see its packets.
    L3s,
}

/// The kind of a link on top of another, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "mode", rename_all = "lowercase")]
pub enum Stacked {
    /// A macvlan.
    Macvlan(MacvlanMode),
    /// An ipvlan.
    Ipvlan(IpvlanMode),
}

impl Stacked {
    /// Returns the kernel's word for the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Stacked::Macvlan(_) => "macvlan",
            Stacked::Ipvlan(_) => "ipvlan",
        }
    }

    /// Returns iproute2's word for the mode.
    pub fn mode(self) -> &'static str {
        match self {
            Stacked::Macvlan(MacvlanMode::Bridge) => "bridge",
            Stacked::Macvlan(MacvlanMode::Private) => "private",
            Stacked::Macvlan(MacvlanMode::Vepa) => "vepa",
            Stacked::Macvlan(MacvlanMode::Passthru) => "passthru",
            Stacked::Ipvlan(IpvlanMode::L2) => "l2",
            Stacked::Ipvlan(IpvlanMode::L3) => "l3",
            Stacked::Ipvlan(IpvlanMode::L3s) => "l3s",
        }
    }

    /// Tells whether it has the Ethernet address of the link below, whatever it is given.
    pub fn shares_mac(self) -> bool {
        matches!(self, Stacked::Ipvlan(_) | Stacked::Macvlan(MacvlanMode::Passthru))
    }

    fn info(self) -> [LinkInfo; 2] {
        match self {
            Stacked::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Bridge => MacVlanMode::Bridge,
                    MacvlanMode::Private => MacVlanMode::Private,
                    MacvlanMode::Vepa => MacVlanMode::Vepa,
                    MacvlanMode::Passthru => MacVlanMode::Passthrough,
                };
                let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]);
                [LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(data)]
            }
            Stacked::Ipvlan(mode) => {
                let mode = match mode {
                    IpvlanMode::L2 => IpVlanMode::L2,
                    IpvlanMode::L3 => IpVlanMode::L3,
                    IpvlanMode::L3s => IpVlanMode::L3S,
                };
                let data = InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)]);
                [LinkInfo::Kind(InfoKind::IpVlan), LinkInfo::Data(data)]
            }
        }
    }
}

impl fmt::Display for Stacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mode {}", self.kind(), self.mode())
    }
}

/// Makes a link on top of the link `parent`, in the namespace `netns`, with its name, number, address and MTU; it is down.
/// An alias is not taken at birth (rtnl_create_link in net/core/rtnetlink.c): `change` gives it afterwards.
///
/// `rtnl` is a socket in the namespace of `parent`. Like `ip link add link PARENT NAME netns NETNS type macvlan mode MODE`.
/// EEXIST if the name or number is taken, EBUSY if the parent is a port of a bridge or has links of the other kind on top,
/// EINVAL for an MTU above the parent's, a second link beside one in mode passthru, or a parent that has no Ethernet.
pub async fn add_stacked(rtnl: &Rtnl, link: &NewLink<'_>, netns: &Netns, parent: u32, stacked: Stacked) -> Result<()> {
    let mut message = link.message();
    if stacked.shares_mac() {
        message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::Address(_)));
    }
    message.attributes.extend([
        LinkAttribute::NetNsFd(netns.fd().as_raw_fd()),
        LinkAttribute::Link(parent),
        LinkAttribute::LinkInfo(stacked.info().to_vec()),
    ]);
    let doing = format!("add {} `{}` on link {parent}", stacked.kind(), link.name);
    rtnl.change(&doing, RouteNetlinkMessage::NewLink(message), NEW).await
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::link::LinkMessage;

    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl, pair};
    use crate::net::{Mac, link};

    fn new(name: &str, index: u32) -> NewLink<'_> {
        NewLink { name, index, mac: Mac::local(u64::from(index)), mtu: Some(1400) }
    }

    /// a(up0) -- b(up1); m0 in c on up0, made from a.
    #[test]
    fn it_is_born_in_place_with_all_that_it_was_given() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let (b, c) = (netns(), netns());
            pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
            let modes = [MacvlanMode::Bridge, MacvlanMode::Private, MacvlanMode::Vepa];
            for (at, mode) in modes.into_iter().enumerate() {
                let (name, index) = (format!("m{at}"), 2000 + at as u32);
                let stacked = Stacked::Macvlan(mode);
                add_stacked(&rtnl, &new(&name, index), &c, 1001, stacked).await.expect("a macvlan");
                let inside = Rtnl::open(&c).expect("a socket");
                let link = link::find(&inside, &name).await.expect("read").expect("a link");
                assert_eq!((link.index, link.mtu, link.up), (index, 1400, false));
                assert_eq!((link.mac, link.link), (Some(Mac::local(u64::from(index))), Some(1001)));
                let seen = &judge(&c, &format!("ip -j -d link show {name}")).await[0]["linkinfo"];
                assert_eq!(
                    (&seen["info_kind"], &seen["info_data"]["mode"]),
                    (&"macvlan".into(), &stacked.mode().into())
                );
            }
            assert_eq!(link::list(&rtnl).await.expect("links").len(), 2, "lo and up0, no more");
        });
    }

    #[test]
    fn in_mode_passthru_it_has_the_link_and_its_address_for_itself() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let (b, c) = (netns(), netns());
            pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
            let alone = Stacked::Macvlan(MacvlanMode::Passthru);
            add_stacked(&rtnl, &new("m0", 2000), &c, 1001, alone).await.expect("a macvlan");
            let inside = Rtnl::open(&c).expect("a socket");
            let link = link::find(&inside, "m0").await.expect("read").expect("m0");
            assert_eq!(link.mac, Some(Mac::local(1001)));
            let second = add_stacked(&rtnl, &new("m1", 2001), &c, 1001, alone).await.expect_err("it has it for itself");
            assert_eq!(second.errno(), libc::EINVAL);
        });
    }

    #[test]
    fn what_the_kernel_refuses() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
            let bridge = Stacked::Macvlan(MacvlanMode::Bridge);
            let refused = async |link: NewLink<'_>, parent| {
                add_stacked(&rtnl, &link, &b, parent, bridge).await.expect_err("refused")
            };
            let taken = refused(new("up1", 2000), 1001).await;
            assert!(taken.is_exists() && taken.doing() == "add macvlan `up1` on link 1001", "{taken:?}");
            assert!(refused(new("m0", 2000), 4711).await.is_gone());
            assert_eq!(refused(new("m0", 2000), 1).await.errno(), libc::EINVAL, "on lo");
            let wide = NewLink { mtu: Some(1501), ..new("m0", 2000) };
            assert_eq!(refused(wide, 1001).await.errno(), libc::EINVAL);
            let inside = Rtnl::open(&b).expect("a socket");
            assert_eq!(link::list(&inside).await.expect("links").len(), 2, "nothing is left of those refused");
        });
    }

    /// A kernel without ipvlan says so; one with it makes the link.
    #[test]
    fn an_ipvlan_is_made_or_said_to_be_lacking() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let (b, c) = (netns(), netns());
            pair(&rtnl, (&a, "up0", 1001), (&b, "up1", 1002)).await;
            let known = crate::net::has_link_kind(&rtnl, "ipvlan").await.expect("probed");
            for (at, mode) in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s].into_iter().enumerate() {
                let name = format!("i{at}");
                let made = add_stacked(&rtnl, &new(&name, 2000 + at as u32), &c, 1001, Stacked::Ipvlan(mode)).await;
                match made {
                    Ok(()) => {
                        let inside = Rtnl::open(&c).expect("a socket");
                        let link = link::find(&inside, &name).await.expect("read").expect("a link");
                        assert_eq!((link.mac, link.link), (Some(Mac::local(1001)), Some(1001)));
                        link::delete(&inside, link.index).await.expect("deleted");
                    }
                    // The mode l3s has an option of its own in the kernel's configuration.
                    Err(error) => assert!(error.is_unsupported() && (!known || mode == IpvlanMode::L3s), "{error:?}"),
                }
            }
        });
    }

    /// What this machine's kernel may lack is compared with what linux/if_link.h says.
    #[test]
    fn an_ipvlan_is_asked_for_in_the_kernels_words() {
        for (mode, number) in [(IpvlanMode::L2, 0), (IpvlanMode::L3, 1), (IpvlanMode::L3s, 2)] {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::LinkInfo(Stacked::Ipvlan(mode).info().to_vec())];
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            // IFLA_LINKINFO { IFLA_INFO_KIND "ipvlan", IFLA_INFO_DATA { IFLA_IPVLAN_MODE: u16 } }, behind the header.
            let words = |pair: [u16; 2]| pair.map(u16::to_ne_bytes).concat();
            let expected = [
                words([28, 18]),
                words([11, 1]),
                b"ipvlan\0\0".to_vec(),
                words([12, 2]),
                words([6, 1]),
                words([number, 0]),
            ];
            assert_eq!(bytes[16..], expected.concat());
        }
    }
}
