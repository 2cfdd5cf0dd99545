//! Veth pairs, made in one message with both ends in place.

use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::net::netlink::rtnl::NEW;
use crate::net::{Error, Netns, NewLink, Request, Result};

/// One end of a new veth pair.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Where it is born.
    pub netns: &'a Netns,
    /// What it is born with.
    pub link: NewLink<'a>,
    /// The bridge, in the same namespace, that it is born a port of. The main end only.
    pub controller: Option<u32>,
}

/// Returns the request that makes a veth pair, each end in its namespace with its name, number, address and MTU; 0.2 ms.
///
/// It may go over a socket in any namespace. Both ends are born down. Only `main` can be born into a bridge: for the peer the
/// kernel ignores it, so it is EINVAL here; call `change` afterwards.
/// Like `ip link add NAME netns A type veth peer name NAME netns B`. EEXIST if a name or number is taken, EXFULL for
/// the 1024th port of a bridge.
pub fn veth_request(main: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<Request> {
    let doing = format!("add veth `{}` with peer `{}`", main.link.name, peer.link.name);
    if peer.controller.is_some() {
        let text = "the peer end of a veth pair can't be born into a bridge";
        return Err(Error::new(doing, libc::EINVAL).saying(text));
    }
    let builder = end(main, Some(InfoKind::Veth));
    let builder = builder.set_info_data(InfoData::Veth(InfoVeth::Peer(end(peer, None).build())));
    let request = Request::new(doing, RouteNetlinkMessage::NewLink(builder.build()), NEW);
    Ok(request.keeping(main.netns).keeping(peer.netns))
}

/// Sends the request of `veth_request`.
#[cfg(test)]
pub(crate) fn add_veth(rtnl: &crate::net::Netlink, main: &VethEnd<'_>, peer: &VethEnd<'_>) -> Result<()> {
    rtnl.send(veth_request(main, peer)?)
}

fn end(end: &VethEnd<'_>, kind: Option<InfoKind>) -> LinkMessageBuilder<LinkUnspec> {
    let builder = end.link.builder(kind, true).setns_by_fd(end.netns.fd().as_raw_fd());
    // The default is one queue a CPU, which nothing here uses and which costs 0.14 ms more.
    let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let builder = queues.into_iter().fold(builder, LinkMessageBuilder::append_extra_attribute);
    match end.controller {
        Some(controller) => builder.controller(controller),
        None => builder,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::net::testing::{block_on, judge, netns, netns_and_rtnl};
    use crate::net::{Change, Mac, Netlink, link};

    fn end<'a>(netns: &'a Netns, name: &'a str, index: u32) -> VethEnd<'a> {
        let link = NewLink { name, index, mac: Mac::local(u64::from(index)), mtu: Some(1400) };
        VethEnd { netns, link, controller: None }
    }

    /// a(eth0 #1001) -- b(eth0 #1002), made from a third namespace.
    #[test]
    fn both_ends_are_born_in_place_under_one_name() {
        block_on(async {
            let (_third, rtnl) = netns_and_rtnl();
            let (a, b) = (netns(), netns());
            add_veth(&rtnl, &end(&a, "eth0", 1001), &end(&b, "eth0", 1002)).expect("a pair");
            assert_eq!(link::list(&rtnl).expect("links").len(), 1, "only lo in the third");
            for (netns, index, other) in [(&a, 1001, 1002), (&b, 1002, 1001)] {
                let rtnl = Netlink::open(netns).expect("a socket");
                let link = link::find(&rtnl, "eth0").expect("a link").expect("eth0");
                assert_eq!((link.index, link.mtu, link.up), (index, 1400, false));
                assert_eq!(link.mac, Some(Mac::local(u64::from(index))));
                assert_eq!((link.kind.as_deref(), link.link), (Some("veth"), Some(other)));
                assert!(link.link_netnsid.is_some());
                let seen = judge(netns, "ip -j -d link show eth0").await;
                assert_eq!(seen[0]["ifindex"], index);
                assert_eq!((&seen[0]["num_tx_queues"], &seen[0]["num_rx_queues"]), (&json!(1), &json!(1)));
                assert_eq!(seen[0]["address"], Mac::local(u64::from(index)).to_string());
            }
        });
    }

    /// h(eth0) -- br0: the bridge's end is born a port of it.
    #[test]
    fn the_main_end_is_born_into_its_bridge() {
        block_on(async {
            let (switch, rtnl) = netns_and_rtnl();
            let host = netns();
            let bridge = NewLink { name: "br0", index: 1000, mac: Mac::local(0), mtu: None };
            super::super::bridge::add_bridge(&rtnl, &bridge, &Default::default()).expect("a bridge");
            let main = VethEnd { controller: Some(1000), ..end(&switch, "p1", 1001) };
            add_veth(&rtnl, &main, &end(&host, "eth0", 1002)).expect("a pair");
            let up = Change { up: Some(true), ..Change::default() };
            link::change(&rtnl, 1001, &up).expect("up");
            let port = link::get(&rtnl, 1001).expect("a link").expect("p1");
            assert_eq!((port.controller, port.up, port.carrier), (Some(1000), true, false));
            assert_ne!(port.state, "up");
            let inside = Netlink::open(&host).expect("a socket");
            link::change(&inside, 1002, &up).expect("up");
            let port = link::get(&rtnl, 1001).expect("a link").expect("p1");
            assert_eq!((port.carrier, port.state.as_str()), (true, "up"));
        });
    }

    #[test]
    fn what_the_kernel_refuses() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            let port = VethEnd { controller: Some(1000), ..end(&b, "eth0", 1002) };
            let error = add_veth(&rtnl, &end(&a, "eth0", 1001), &port).expect_err("a peer can't be a port");
            assert_eq!(error.errno(), libc::EINVAL);
            add_veth(&rtnl, &end(&a, "eth0", 1001), &end(&b, "eth0", 1002)).expect("a pair");
            let error = add_veth(&rtnl, &end(&a, "eth1", 1003), &end(&b, "eth0", 1004)).expect_err("taken");
            assert!(error.is_exists(), "{error}");
            assert_eq!(error.doing(), "add veth `eth1` with peer `eth0`");
            assert_eq!(link::list(&rtnl).expect("links").len(), 2, "nothing is left of the refused pair");
        });
    }
}
