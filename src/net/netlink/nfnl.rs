//! Messages of netfilter: dumps, single changes and transactions of nf_tables over a netlink socket
//! (Documentation/userspace-api/netlink/intro.rst; net/netfilter/nfnetlink.c).

use netlink_packet_core::{NLM_F_ACK, NetlinkSerializable};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::{Answer, Netlink, Refusal, Subsystem};
use crate::net::netlink;
use crate::net::{Error, Netns, Result};

/// What stands before the attributes of a message: `struct nlmsghdr` and `struct nfgenmsg`.
pub(in crate::net) const HEADER_BYTES: usize = netlink::HEADER_BYTES + NFGENMSG_BYTES;

const NFGENMSG_BYTES: usize = 4;

/// NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h.
const NFTABLES: u8 = 10;

/// One thing that the kernel told, of which only the header was read.
#[derive(Debug)]
pub(in crate::net) struct NetfilterThing {
    /// Whose packets it is about.
    pub(in crate::net) family: NetfilterProtoFamily,
    /// Which message of its subsystem it is.
    pub(in crate::net) kind: u8,
    /// The attributes behind the header.
    pub(in crate::net) attributes: Vec<u8>,
}

/// Opens a socket for netfilter in `netns`. EPROTONOSUPPORT if the kernel has no netfilter.
pub(in crate::net) fn open(netns: &Netns) -> Result<Netlink> {
    Netlink::open_in(netns, Subsystem::Netfilter)
}

/// Asks for a whole table. A kernel that lacks the subsystem asked is EOPNOTSUPP.
pub(in crate::net) fn dump(netlink: &Netlink, doing: &str, message: NetfilterMessage) -> Result<Vec<NetfilterThing>> {
    let read = |kind, body: &[u8]| read(doing, kind, body).map(Some);
    netlink.dump(doing, &frame(message, 0), read).map_err(subsystem_missing)
}

/// Asks for one thing, which the kernel answers with one message.
pub(in crate::net) fn ask(netlink: &Netlink, doing: &str, message: NetfilterMessage) -> Result<NetfilterThing> {
    let answer = netlink.ask(doing, &frame(message, 0), |kind, body| read(doing, kind, body));
    answer.map_err(subsystem_missing)?.ok_or_else(|| Error::new(doing, libc::EBADMSG))
}

/// Makes one change and waits for the kernel's acknowledgement.
pub(in crate::net) fn change(netlink: &Netlink, doing: &str, message: NetfilterMessage) -> Result<()> {
    netlink.ask(doing, &frame(message, NLM_F_ACK), |_, _| Ok(())).map(drop)
}

/// Makes all the changes of nf_tables or none, in one datagram. Each message is one that `frame` made. A refusal comes with the
/// number of its message, or none if it was to the transaction as a whole.
pub(in crate::net) fn transact(
    netlink: &Netlink,
    messages: &[&[u8]],
) -> std::result::Result<(), (Option<usize>, Refusal)> {
    let edge = |edge| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES.into());
        frame(NetfilterMessage::new(header, edge), 0)
    };
    let (begin, end) = (edge(ControlMessage::BatchBegin), edge(ControlMessage::BatchEnd));
    let all: Vec<&[u8]> = [&*begin].into_iter().chain(messages.iter().copied()).chain([&*end]).collect();
    // Only the last change is acknowledged: an acknowledgement for each overruns the receive buffer at a few hundred. Not the end:
    // kernels before Linux 6.10 do not acknowledge that.
    let mut overrun = false;
    let heard = netlink.exchange("", &all, Some(messages.len()), |at, answer| match answer {
        // So many were refused that not every refusal had room; the first ones are there.
        Answer::Lost if !std::mem::replace(&mut overrun, true) => None,
        Answer::Lost => Some(Err(Error::new("", libc::ENOBUFS))),
        // The begin stands for the whole.
        Answer::Refused(refusal) => Some(Ok(Err((at.checked_sub(1), refusal)))),
        Answer::Done { .. } if at == messages.len() => Some(Ok(Ok(()))),
        Answer::Done { .. } | Answer::Thing(..) => None,
    });
    heard.unwrap_or_else(|error| Err((None, Refusal { error, offset: None })))
}

fn read(doing: &str, kind: u16, body: &[u8]) -> Result<NetfilterThing> {
    let unreadable =
        |error: netlink_packet_core::DecodeError| Error::new(doing, libc::EBADMSG).saying(error.to_string());
    let header = NetfilterHeader::parse(body).map_err(unreadable)?;
    let attributes = body.get(NFGENMSG_BYTES..).unwrap_or_default().to_vec();
    let [_, kind] = kind.to_be_bytes();
    Ok(NetfilterThing { family: header.family, kind, attributes })
}

/// Writes one message as the kernel reads it.
pub(in crate::net) fn frame(message: NetfilterMessage, flags: u16) -> Vec<u8> {
    netlink::frame(message.message_type(), flags, |bytes| {
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    })
}

/// Writes one message of nf_tables (`enum nf_tables_msg_types`) whose attributes `put` has written.
pub(in crate::net) fn frame_of(family: NetfilterProtoFamily, kind: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    netlink::frame(u16::from_be_bytes([NFTABLES, kind]), flags, |bytes| {
        bytes.extend([family.into(), 0, 0, 0]);
        bytes.extend_from_slice(attributes);
    })
}

/// Outside of a transaction nfnetlink_rcv_msg() says EINVAL, and no more, where it has no such subsystem.
fn subsystem_missing(error: Error) -> Error {
    if error.errno() != libc::EINVAL {
        return error;
    }
    Error::new(error.doing(), libc::EOPNOTSUPP).saying("the kernel lacks this part of netfilter")
}

/// Returns the header of a message to the kernel.
pub(in crate::net) fn message(
    family: impl Into<NetfilterProtoFamily>,
    inner: impl Into<NetfilterMessageInner>,
) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family.into(), 0, 0), inner)
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::nftables::{NfTablesMessage, TableMessage};

    use super::*;
    use crate::net::testing::netns;

    /// Subsystem 99 is nobody's.
    #[test]
    fn what_the_kernel_lacks_is_unsupported() {
        let netns = netns();
        let nfnl = open(&netns).expect("a socket");
        let inner = NetfilterMessageInner::Other {
            subsys: netlink_packet_netfilter::NetfilterSubsystem::Other(99),
            message_type: 0,
            attributes: Vec::new(),
        };
        let error = dump(&nfnl, "list the unknown", message(NetfilterProtoFamily::Unspec, inner)).expect_err("unknown");
        assert!(error.is_unsupported(), "{error:?}");
        assert_eq!(error.doing(), "list the unknown");
    }

    #[test]
    fn without_the_right_it_is_denied() {
        let netns = netns();
        let listed = || {
            let nfnl = open(&netns)?;
            let get = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
            // Asked from a thread without rights; the socket's own opener had them.
            std::thread::scope(|scope| {
                scope
                    .spawn(move || {
                        let nobody = nix::unistd::Uid::from_raw(65534);
                        // SAFETY: the bare system call changes the one thread only, which ends here.
                        let done = unsafe {
                            libc::syscall(libc::SYS_setresuid, nobody.as_raw(), nobody.as_raw(), nobody.as_raw())
                        };
                        assert_eq!(done, 0);
                        dump(&nfnl, "list tables", message(NetfilterProtoFamily::Unspec, get)).map(drop)
                    })
                    .join()
                    .expect("no panic")
            })
        };
        assert!(listed().expect_err("no right").is_denied());
    }
}
