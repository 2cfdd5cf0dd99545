//! The connections that the kernel tracks: only how to make it forget some. Like `conntrack -D`.

use std::net::IpAddr;

use netlink_packet_core::{NLA_TYPE_MASK, Nla, ParseableParametrized};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use serde::{Deserialize, Serialize};

use super::L4Proto;
use crate::net::netlink::nfnl;
use crate::net::{Netns, Result, fault};

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Those that were begun to a port, of that address or any, whoever it was translated to. Like
    /// `--orig-port-dst PORT --orig-dst IP`.
    To {
        /// The transport protocol.
        proto: L4Proto,
        /// The port.
        port: u16,
        /// The address.
        ip: Option<IpAddr>,
    },
    /// Those that are answered from a port of an address. Like `--reply-port-src PORT --reply-src IP`.
    AnsweredBy {
        /// The transport protocol.
        proto: L4Proto,
        /// The port.
        port: u16,
        /// The address.
        ip: IpAddr,
    },
}

/// One direction of a connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct FlowWay {
    proto: Option<u8>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
}

impl Flow {
    fn is(&self, original: &FlowWay, reply: &FlowWay) -> bool {
        match self {
            Flow::To { proto, port, ip } => {
                original.proto == Some(proto.number())
                    && original.dst_port == Some(*port)
                    && (ip.is_none() || original.dst == *ip)
            }
            Flow::AnsweredBy { proto, port, ip } => {
                reply.proto == Some(proto.number()) && reply.src_port == Some(*port) && reply.src == Some(*ip)
            }
        }
    }
}

/// Makes the kernel forget the connections that are one of `flows`, and returns how many. The next packet of each is the
/// first of a new connection, for which addresses are translated anew: without that, a UDP sender that never stops is sent
/// on as it was before a mapping came, went or changed.
///
/// Reads the whole table, once. Like `conntrack -D`. EPERM without CAP_NET_ADMIN, EOPNOTSUPP on a kernel without.
pub fn flush(netns: &Netns, flows: &[Flow]) -> Result<usize> {
    if flows.is_empty() {
        return Ok(0);
    }
    let doing = "delete tracked connections";
    fault::point(doing)?;
    let nfnl = nfnl::open(netns)?;
    let get = ConntrackMessage::Get(Vec::new());
    let known = nfnl::dump(&nfnl, "list tracked connections", nfnl::message(NetfilterProtoFamily::Unspec, get))?;
    let mut deleted = 0;
    for connection in known {
        let Ok(ConntrackMessage::New(attributes)) =
            ConntrackMessage::parse_with_param(&connection.attributes, connection.kind)
        else {
            continue;
        };
        let (mut original, mut reply) = (FlowWay::default(), FlowWay::default());
        for attribute in &attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuples) => original = read(tuples),
                ConntrackAttribute::CtaTupleReply(tuples) => reply = read(tuples),
                _ => {}
            }
        }
        if !flows.iter().any(|flow| flow.is(&original, &reply)) {
            continue;
        }
        let delete = ConntrackMessage::Delete(attributes.into_iter().filter(names_it).collect());
        match nfnl::change(&nfnl, doing, nfnl::message(connection.family, delete)) {
            Ok(()) => deleted += 1,
            // It has ended by itself.
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Tells whether an attribute is part of what a connection is known by: its original direction, its zone, and its number,
/// so that one that took its place meanwhile is left alone.
fn names_it(attribute: &ConntrackAttribute) -> bool {
    /// `enum ctattr_type` of linux/netfilter/nfnetlink_conntrack.h.
    const CTA_ID: u16 = 12;
    const CTA_ZONE: u16 = 18;
    match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => {
            let kind = other.kind() & NLA_TYPE_MASK;
            kind == CTA_ID || kind == CTA_ZONE
        }
        _ => false,
    }
}

fn read(tuples: &[Tuple]) -> FlowWay {
    let mut way = FlowWay::default();
    for tuple in tuples {
        match tuple {
            Tuple::Ip(attributes) => {
                for attribute in attributes {
                    match attribute {
                        IPTuple::SourceAddress(ip) => way.src = Some(*ip),
                        IPTuple::DestinationAddress(ip) => way.dst = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(attributes) => {
                for attribute in attributes {
                    match attribute {
                        ProtoTuple::Protocol(proto) => way.proto = Some((*proto).into()),
                        ProtoTuple::SourcePort(port) => way.src_port = Some(*port),
                        ProtoTuple::DestinationPort(port) => way.dst_port = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    way
}
