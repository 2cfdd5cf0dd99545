//! One netfilter netlink socket in one namespace: dumps, single changes and transactions of nf_tables
//! (Documentation/userspace-api/netlink/intro.rst; net/netfilter/nfnetlink.c). It blocks, with a time limit.

use std::cell::Cell;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLA_TYPE_MASK, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::netns::cookie_of;
use super::rtnl::{broken_off, error_attributes, refusal};
use super::{Error, Netns, Result};

/// How long the kernel may take to answer. A transaction waits for the grace periods of those before it.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How often a dump is asked for again because the table changed while it was read.
const DUMPS_MAX: u32 = 10;

/// What netlink_dump() fills at most, and more than any other answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What the kernel adds to a message's own bytes when it looks whether they fit into the send buffer.
const SEND_OVERHEAD: usize = 4096;

/// A netfilter netlink socket that was born in one namespace.
#[derive(Debug)]
pub(super) struct Nfnl {
    fd: OwnedFd,
}

/// One answer of the kernel, of which only the header was read.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whose packets it is about.
    pub(super) family: NetfilterProtoFamily,
    /// Which message of its subsystem it is.
    pub(super) kind: u8,
    /// The attributes behind the header.
    pub(super) attributes: Vec<u8>,
}

/// A message that came: netlink's own, or an answer.
enum Received {
    Control(NetlinkMessage<NetfilterMessage>),
    Answer(Answer, u16),
}

/// The kernel's no to one message of a transaction.
pub(super) struct Refusal {
    /// Which message; none if it was to the transaction as a whole.
    pub(super) message: Option<usize>,
    /// The attribute in that message that it was about, in bytes from the message's start.
    pub(super) offset: Option<usize>,
    /// The errno and the kernel's text; what was being done is for the caller to say.
    pub(super) error: Error,
}

impl Nfnl {
    /// Opens a socket in `netns`. EPROTONOSUPPORT if the kernel has no netfilter.
    pub(super) fn open(netns: &Netns) -> Result<Nfnl> {
        let failed = |error| Error::io("open a netfilter netlink socket", error);
        let fd = match netns.is_here()? {
            true => new_socket(),
            false => netns.inside(new_socket)?,
        };
        let nfnl = Nfnl { fd: fd.map_err(failed)? };
        let within = TimeVal::new(ANSWER_WITHIN.as_secs() as i64, 0);
        setsockopt(&nfnl.fd, sockopt::ReceiveTimeout, &within).map_err(|errno| failed(errno.into()))?;
        Ok(nfnl)
    }

    /// Asks for a whole table. A kernel that lacks the subsystem asked is EOPNOTSUPP.
    pub(super) fn dump(&self, doing: &str, message: NetfilterMessage) -> Result<Vec<Answer>> {
        let bytes = frame(message, NLM_F_DUMP);
        for _ in 1..DUMPS_MAX {
            let (answers, whole) = self.dump_once(doing, &bytes)?;
            if whole {
                return Ok(answers);
            }
        }
        // On a host that never rests the last one is as good as any.
        self.dump_once(doing, &bytes).map(|(answers, _)| answers)
    }

    fn dump_once(&self, doing: &str, bytes: &[u8]) -> Result<(Vec<Answer>, bool)> {
        self.send(doing, bytes)?;
        let (mut got, mut whole) = (Vec::new(), true);
        loop {
            for received in self.receive(doing)? {
                let control = match received {
                    Received::Answer(answer, flags) => {
                        whole &= flags & NLM_F_DUMP_INTR == 0;
                        got.push(answer);
                        continue;
                    }
                    Received::Control(control) => control,
                };
                let flags = control.header.flags;
                match control.payload {
                    NetlinkPayload::Done(done) => {
                        whole &= flags & NLM_F_DUMP_INTR == 0;
                        return broken_off(doing, &done).map_or(Ok((got, whole)), Err);
                    }
                    NetlinkPayload::Error(error) => {
                        let error = refusal(doing, &error, flags).unwrap_or_else(|| Error::new(doing, libc::EBADMSG));
                        return Err(subsystem_missing(error));
                    }
                    _ => return Err(Error::new(doing, libc::EBADMSG)),
                }
            }
        }
    }

    /// Makes one change and waits for the kernel's acknowledgement.
    pub(super) fn change(&self, doing: &str, message: NetfilterMessage) -> Result<()> {
        self.send(doing, &frame(message, NLM_F_ACK))?;
        for received in self.receive(doing)? {
            if let Received::Control(NetlinkMessage { header, payload: NetlinkPayload::Error(error), .. }) = received {
                return refusal(doing, &error, header.flags).map_or(Ok(()), Err);
            }
        }
        Err(Error::new(doing, libc::EBADMSG))
    }

    /// Asks for one thing, which the kernel answers with one message.
    pub(super) fn ask(&self, doing: &str, message: NetfilterMessage) -> Result<Answer> {
        self.send(doing, &frame(message, 0))?;
        for received in self.receive(doing)? {
            match received {
                Received::Answer(answer, _) => return Ok(answer),
                Received::Control(NetlinkMessage { header, payload: NetlinkPayload::Error(error), .. }) => {
                    let error =
                        refusal(doing, &error, header.flags).unwrap_or_else(|| Error::new(doing, libc::EBADMSG));
                    return Err(subsystem_missing(error));
                }
                Received::Control(_) => {}
            }
        }
        Err(Error::new(doing, libc::EBADMSG))
    }

    /// Returns the number that its namespace has to itself in this boot; none where the kernel gives none.
    pub(super) fn cookie(&self) -> Result<Option<u64>> {
        cookie_of(&self.fd)
    }

    /// Makes room for a transaction of `wanted` bytes and returns the bytes that one may have: less than wanted only
    /// without CAP_NET_ADMIN in the first user namespace, where net.core.wmem_max is the limit.
    pub(super) fn make_room(&self, wanted: usize) -> Result<usize> {
        let failed = |errno| Error::new("size the send buffer of a netlink socket", errno as i32);
        let size = || getsockopt(&self.fd, sockopt::SndBuf).map_err(failed);
        let wanted = wanted + SEND_OVERHEAD;
        if size()? < wanted && setsockopt(&self.fd, sockopt::SndBufForce, &wanted).is_err() {
            setsockopt(&self.fd, sockopt::SndBuf, &wanted).map_err(failed)?;
        }
        Ok(size()?.saturating_sub(SEND_OVERHEAD))
    }

    /// Makes all the changes of nf_tables or none, in one datagram. Each message is one that `frame` made.
    pub(super) fn transact(&self, messages: &[&[u8]]) -> std::result::Result<(), Refusal> {
        let doing = "";
        let all = |error| Refusal { message: None, offset: None, error };
        self.send(doing, &transaction(messages)).map_err(all)?;
        let mut overrun = false;
        loop {
            let answers = match self.receive(doing) {
                // So many were refused that not every refusal had room; the first ones are there.
                Err(error) if error.errno() == libc::ENOBUFS && !overrun => {
                    overrun = true;
                    continue;
                }
                answers => answers.map_err(all)?,
            };
            for answer in answers {
                let Received::Control(NetlinkMessage { header, payload: NetlinkPayload::Error(error), .. }) = answer
                else {
                    continue;
                };
                let flags = header.flags;
                // The begin is number 0, and stands for the whole.
                let message = (header.sequence_number as usize).checked_sub(1);
                match refusal(doing, &error, flags) {
                    Some(refused) => {
                        return Err(Refusal { message, offset: offset_of(&error, flags), error: refused });
                    }
                    None if message == messages.len().checked_sub(1) => return Ok(()),
                    None => {}
                }
            }
        }
    }

    fn send(&self, doing: &str, bytes: &[u8]) -> Result<()> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()).map_err(|errno| Error::new(doing, errno as i32))?;
        Ok(())
    }

    /// Waits for one datagram and returns the messages in it.
    fn receive(&self, doing: &str) -> Result<Vec<Received>> {
        thread_local! {
            /// To fill that many bytes with zeros anew takes as long as to read what is in a datagram.
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut bytes = BUFFER.take();
        bytes.resize(ANSWER_BYTES_MAX, 0);
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) => break length,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(Error::timeout(doing)),
                Err(errno) => return Err(Error::new(doing, errno as i32)),
            }
        };
        let unreadable =
            |error: netlink_packet_core::DecodeError| Error::new(doing, libc::EBADMSG).saying(error.to_string());
        let mut messages = Vec::new();
        let mut rest = bytes.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(unreadable)?;
            messages.push(read(&message).map_err(unreadable)?);
            rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        BUFFER.set(bytes);
        Ok(messages)
    }
}

fn read(message: &NetlinkBuffer<&[u8]>) -> std::result::Result<Received, netlink_packet_core::DecodeError> {
    /// NLMSG_MIN_TYPE of linux/netlink.h: below are netlink's own messages.
    const FIRST: u16 = 0x10;
    /// `struct nfgenmsg`.
    const HEADER_BYTES: usize = 4;
    let payload = message.payload();
    if message.message_type() < FIRST {
        let bytes = message.clone().into_inner();
        let one = bytes.get(..message.length() as usize).unwrap_or(bytes);
        return NetlinkMessage::deserialize(one).map(Received::Control);
    }
    let header = NetfilterHeader::parse(payload)?;
    let attributes = payload.get(HEADER_BYTES..).unwrap_or_default().to_vec();
    let [_, kind] = message.message_type().to_be_bytes();
    Ok(Received::Answer(Answer { family: header.family, kind, attributes }, message.flags()))
}

/// Returns the attributes in `bytes`, by number; those from one that is cut short on are left out.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        // The packet crate lends the value for no longer than its own view of it.
        let place = attribute.into_inner();
        let length = u16::from_ne_bytes(*place.first_chunk()?) as usize;
        Some((u16::from_ne_bytes(*place.get(2..)?.first_chunk()?) & NLA_TYPE_MASK, place.get(4..length)?))
    })
}

/// Makes a socket in the namespace of the calling thread.
fn new_socket() -> std::io::Result<OwnedFd> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // SAFETY: the descriptor comes from a socket that gave up its ownership in the same expression.
    Ok(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) })
}

/// Writes one message as the kernel reads it.
pub(super) fn frame(message: NetfilterMessage, flags: u16) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// What stands before the attributes of a message: `struct nlmsghdr` and `struct nfgenmsg`.
pub(super) const HEADER_BYTES: usize = 16 + 4;

/// Writes one message of nf_tables (`enum nf_tables_msg_types`) whose attributes `put` has written.
pub(super) fn frame_of(family: NetfilterProtoFamily, kind: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    /// NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h.
    const NFTABLES: u8 = 10;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + attributes.len());
    bytes.extend(((HEADER_BYTES + attributes.len()) as u32).to_ne_bytes());
    bytes.extend(u16::from_be_bytes([NFTABLES, kind]).to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family.into(), 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// Writes an attribute whose value `write` writes, filled up to 4 bytes.
pub(super) fn put(bytes: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    write(bytes);
    let length = (bytes.len() - start) as u16;
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Puts a begin before the messages and an end behind them, and numbers them. Only the last is acknowledged: an
/// acknowledgement for each overruns the receive buffer at a few hundred, and refusals come unasked. Not the end: kernels
/// before Linux 6.10 do not acknowledge that.
fn transaction(messages: &[&[u8]]) -> Vec<u8> {
    /// The place of the flags, and of the number, in `struct nlmsghdr`.
    const FLAGS: std::ops::Range<usize> = 6..8;
    const NUMBER: std::ops::Range<usize> = 8..12;
    let edge = |edge| {
        /// NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h: whose transaction it is.
        const NFTABLES: u16 = 10;
        frame(NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES), edge), 0)
    };
    let mut bytes = edge(ControlMessage::BatchBegin);
    for (at, message) in messages.iter().enumerate() {
        let start = bytes.len();
        bytes.extend_from_slice(message);
        let header = &mut bytes[start..];
        header[NUMBER].copy_from_slice(&(at as u32 + 1).to_ne_bytes());
        if at + 1 == messages.len() {
            let flags = u16::from_ne_bytes([header[FLAGS.start], header[FLAGS.start + 1]]) | NLM_F_ACK;
            header[FLAGS].copy_from_slice(&flags.to_ne_bytes());
        }
    }
    bytes.extend(edge(ControlMessage::BatchEnd));
    bytes
}

/// Tells which attribute of the refused message the kernel points to.
fn offset_of(message: &netlink_packet_core::ErrorMessage, flags: u16) -> Option<usize> {
    /// The place of the attribute, of `enum nlmsgerr_attrs` in linux/netlink.h.
    const NLMSGERR_ATTR_OFFS: u16 = 2;
    let (_, offset) = attributes(error_attributes(message, flags)?).find(|(kind, _)| *kind == NLMSGERR_ATTR_OFFS)?;
    offset.first_chunk().map(|offset| u32::from_ne_bytes(*offset) as usize)
}

/// Outside of a transaction nfnetlink_rcv_msg() says EINVAL, and no more, where it has no such subsystem.
fn subsystem_missing(error: Error) -> Error {
    if error.errno() != libc::EINVAL {
        return error;
    }
    Error::new(error.doing(), libc::EOPNOTSUPP).saying("the kernel lacks this part of netfilter")
}

/// Returns the header of a message to the kernel.
pub(super) fn message(
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
        let nfnl = Nfnl::open(&netns).expect("a socket");
        let inner = NetfilterMessageInner::Other {
            subsys: netlink_packet_netfilter::NetfilterSubsystem::Other(99),
            message_type: 0,
            attributes: Vec::new(),
        };
        let error = nfnl.dump("list the unknown", message(NetfilterProtoFamily::Unspec, inner)).expect_err("unknown");
        assert!(error.is_unsupported(), "{error:?}");
        assert_eq!(error.doing(), "list the unknown");
    }

    #[test]
    fn without_the_right_it_is_denied() {
        let netns = netns();
        let dump = || {
            let nfnl = Nfnl::open(&netns)?;
            let get = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
            // Asked from a thread without rights; the socket's own opener had them.
            std::thread::scope(|scope| {
                scope
                    .spawn(|| {
                        let nobody = nix::unistd::Uid::from_raw(65534);
                        // SAFETY: the bare system call changes the one thread only, which ends here.
                        let done = unsafe {
                            libc::syscall(libc::SYS_setresuid, nobody.as_raw(), nobody.as_raw(), nobody.as_raw())
                        };
                        assert_eq!(done, 0);
                        nfnl.dump("list tables", message(NetfilterProtoFamily::Unspec, get)).map(drop)
                    })
                    .join()
                    .expect("no panic")
            })
        };
        assert!(dump().expect_err("no right").is_denied());
    }
}
