//! The netlink socket: one type for routes, netfilter and the sockets of others (netlink(7), sock_diag(7)). It sends messages in
//! one datagram, reads the kernel's answers, its own words in a refusal included, and reads a table again that changed meanwhile.
//!
//! It blocks, with a time limit: the kernel has done what a message asks for when the system call returns that sends it
//! (net/netlink/af_netlink.c, netlink_unicast_kernel), so nobody waits for an answer beside others.

pub mod dump;
pub(super) mod nfnl;
pub(super) mod rtnl;

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NlasIterator};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::netns::cookie_of;
use super::{Error, Netns, Result};

/// How long the kernel may take to answer: a transaction of nf_tables waits for the grace periods of those before it. An answer
/// can also be lost (ENOBUFS), and would then be waited for without end.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How often a dump is asked for again because the table changed while it was read.
const DUMPS_MAX: u32 = 10;

/// More than netlink_dump() fills, and more than any other answer has.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the kernel adds to a message's own bytes when it looks whether they fit into the send buffer.
const SEND_OVERHEAD: usize = 4096;

/// The size of `struct nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;

thread_local! {
    /// Room for answers, one for all sockets of a thread: to fill it with zeros takes as long as an exchange.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whom a socket speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subsystem {
    /// Links, addresses, routes, rules, neighbours and queueing disciplines (rtnetlink(7)).
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
    /// The sockets of a namespace (sock_diag(7)).
    Sockets,
}

impl Subsystem {
    fn number(self) -> isize {
        match self {
            Subsystem::Route => NETLINK_ROUTE,
            Subsystem::Netfilter => NETLINK_NETFILTER,
            Subsystem::Sockets => NETLINK_SOCK_DIAG,
        }
    }

    fn opening(self) -> &'static str {
        match self {
            Subsystem::Route => "open an rtnetlink socket",
            Subsystem::Netfilter => "open a netfilter netlink socket",
            Subsystem::Sockets => "open a sock_diag socket",
        }
    }
}

/// A netlink socket that was born in one namespace, and keeps it alive.
#[derive(Debug)]
pub struct Netlink {
    fd: Netfd,
    /// The number of the next message: answers to older ones, which nobody waited for any more, are passed over.
    next: Cell<u32>,
}

/// The descriptor.
struct Netfd(Socket);

impl std::fmt::Debug for Netfd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.as_raw_fd())
    }
}

impl AsRawFd for Netfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Netfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the kernel says to a message.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// A thing: the kind of message, and what stands behind its header.
    Thing(u16, &'a [u8]),
    /// All is said or done; a dump is whole if nothing changed while it was read.
    Done {
        /// Whether it is.
        whole: bool,
    },
    /// No.
    Refused(Refusal),
    /// More was answered than the socket had room for.
    Lost,
}

/// The kernel's no.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The errno and the kernel's text.
    pub(super) error: Error,
    /// The attribute that it is about, in bytes from the start of the message.
    pub(super) offset: Option<usize>,
}

impl Netlink {
    /// Opens a socket for links, addresses, routes and their like that is born in `netns`: the one that is left from making the
    /// namespace, if that is still there.
    ///
    /// Fails with EMFILE when the process has no file descriptors left.
    pub fn open(netns: &Netns) -> Result<Netlink> {
        match netns.take_socket() {
            Some(socket) => Ok(socket),
            None => Netlink::open_in(netns, Subsystem::Route),
        }
    }

    /// Opens a socket that is born in `netns`. EPROTONOSUPPORT if the kernel lacks the subsystem.
    pub(super) fn open_in(netns: &Netns, subsystem: Subsystem) -> Result<Netlink> {
        match netns.is_here()? {
            true => Netlink::here(subsystem),
            false => netns.inside(|| Netlink::here(subsystem))?,
        }
    }

    /// Opens a socket in the namespace of the calling thread.
    pub(super) fn here(subsystem: Subsystem) -> Result<Netlink> {
        let open = || -> std::io::Result<Socket> {
            let socket = Socket::new(subsystem.number())?;
            // The kernel's own words in a refusal, without a copy of what it refuses
            // (Documentation/userspace-api/netlink/intro.rst, "Ext ACK").
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            let within = TimeVal::new(ANSWER_WITHIN.as_secs() as i64, 0);
            setsockopt(&socket, sockopt::ReceiveTimeout, &within)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| Error::io(subsystem.opening(), error))?;
        Ok(Netlink { fd: Netfd(socket), next: Cell::new(1) })
    }

    /// Sends messages in one datagram. Only the message `acked` asks for an acknowledgement; refusals come unasked. `hear` gets each answer
    /// with the number of its message, until it returns a result.
    pub(super) fn exchange<T>(
        &self,
        doing: &str,
        messages: &[&[u8]],
        acked: Option<usize>,
        mut hear: impl FnMut(usize, Answer<'_>) -> Option<Result<T>>,
    ) -> Result<T> {
        let first = self.next.get();
        self.next.set(first.wrapping_add(messages.len() as u32));
        let mut bytes = Vec::with_capacity(messages.iter().map(|message| message.len() + 4).sum());
        for (at, message) in messages.iter().enumerate() {
            let start = bytes.len();
            bytes.extend_from_slice(message);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let header = &mut bytes[start..];
            header[8..12].copy_from_slice(&first.wrapping_add(at as u32).to_ne_bytes());
            if acked == Some(at) {
                let flags = u16::from_ne_bytes([header[6], header[7]]) | NLM_F_ACK;
                header[6..8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        let failed = |errno| Error::new(doing, errno as i32);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(failed)?;
        let mut whole = true;
        ROOM.with_borrow_mut(|room| {
            room.resize(ANSWER_BYTES_MAX, 0);
            loop {
                let length = match recv(self.fd.as_raw_fd(), room, MsgFlags::empty()) {
                    Ok(length) => length,
                    Err(nix::Error::EINTR) => continue,
                    Err(nix::Error::EAGAIN) => return Err(Error::timeout(doing)),
                    Err(nix::Error::ENOBUFS) => match hear(0, Answer::Lost) {
                        Some(heard) => return heard,
                        None => continue,
                    },
                    Err(errno) => return Err(failed(errno)),
                };
                for message in messages_in(&room[..length]) {
                    let at = message.number.wrapping_sub(first) as usize;
                    if at >= messages.len() {
                        continue;
                    }
                    whole &= message.flags & NLM_F_DUMP_INTR == 0;
                    let Some(answer) = message.answer(doing, whole)? else { continue };
                    if let Some(heard) = hear(at, answer) {
                        return heard;
                    }
                }
            }
        })
    }

    /// Asks for one thing, and lets `read` have its kind and what stands behind its header. None if the kernel has nothing to say.
    pub(super) fn ask<T>(
        &self,
        doing: &str,
        message: &[u8],
        read: impl Fn(u16, &[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.exchange(doing, &[message], None, |_, answer| {
            Some(match answer {
                Answer::Thing(kind, body) => read(kind, body).map(Some),
                Answer::Done { .. } => Ok(None),
                Answer::Refused(refusal) => Err(refusal.error),
                Answer::Lost => Err(Error::new(doing, libc::ENOBUFS)),
            })
        })
    }

    /// Asks for a whole table, and lets `read` have each thing in it as `ask` does.
    ///
    /// One that changed while it was read is asked for again (NLM_F_DUMP_INTR); on a host that never rests the last one is as good as
    /// any.
    pub(super) fn dump<T>(
        &self,
        doing: &str,
        message: &[u8],
        read: impl Fn(u16, &[u8]) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let mut message = message.to_vec();
        let flags = u16::from_ne_bytes([message[6], message[7]]) | NLM_F_DUMP;
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        for left in (0..DUMPS_MAX).rev() {
            let (mut found, mut unreadable) = (Vec::new(), None);
            let whole = self.exchange(doing, &[&message], None, |_, answer| match answer {
                Answer::Thing(kind, body) => {
                    // To its end all the same: the socket has one dump at a time (EBUSY).
                    match read(kind, body) {
                        Ok(thing) => found.extend(thing),
                        Err(error) => _ = unreadable.get_or_insert(error),
                    }
                    None
                }
                Answer::Done { whole } => Some(Ok(whole)),
                Answer::Refused(refusal) => Some(Err(refusal.error)),
                Answer::Lost => Some(Err(Error::new(doing, libc::ENOBUFS))),
            })?;
            match unreadable {
                Some(error) => return Err(error),
                None if whole || left == 0 => return Ok(found),
                None => {}
            }
        }
        Ok(Vec::new())
    }

    /// Returns the number that its namespace has to itself in this boot; none where the kernel gives none.
    pub(super) fn cookie(&self) -> Result<Option<u64>> {
        cookie_of(&self.fd)
    }

    /// Makes room for a datagram of `wanted` bytes and returns the bytes that one may have: less than wanted only
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
}

/// What the kernel tells everybody of what changes in a namespace.
#[derive(Debug)]
pub(super) struct Events(AsyncFd<Netfd>);

impl Events {
    /// Listens to the multicast groups of the mask `groups` (RTMGRP_… of rtnetlink(7)). Must be called in the context of a tokio
    /// runtime with I/O.
    pub(super) fn listen(netns: &Netns, groups: u32) -> Result<Events> {
        let failed = |error| Error::io(Subsystem::Route.opening(), error);
        let open = || -> std::io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, groups))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = netns.inside(open)?.map_err(failed)?;
        // SAFETY: the socket owns its descriptor, and closes it only when it is dropped with this.
        let socket = unsafe { AsyncFd::register(Netfd(socket)) }.map_err(|error| failed(error.into()))?;
        Ok(Events(socket))
    }

    /// Waits for events and calls `hear` with the kind and the body of each. False if some were lost.
    pub(super) async fn next(&self, doing: &str, mut hear: impl FnMut(u16, &[u8])) -> Result<bool> {
        let mut bytes = vec![0; ANSWER_BYTES_MAX];
        loop {
            let mut ready = self.0.readable().await.map_err(|error| Error::io(doing, error))?;
            match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) => {
                    messages_in(&bytes[..length]).for_each(|event| hear(event.kind, event.body));
                    return Ok(true);
                }
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::ENOBUFS) => return Ok(false),
                Err(errno) => return Err(Error::new(doing, errno as i32)),
            }
        }
    }
}

/// Writes a message whose body `write` writes. It gets its number when it is sent.
pub(super) fn frame(kind: u16, flags: u16, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    write(&mut bytes);
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    number: u32,
    pub(super) body: &'a [u8],
}

/// Returns the messages in a datagram, up to one that is cut short.
pub(super) fn messages_in(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0)? as usize;
        let message = Message {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            number: word(bytes, 8)?,
            body: bytes.get(HEADER_BYTES..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl<'a> Message<'a> {
    /// Reads an answer; none for what has no meaning.
    fn answer(&self, doing: &str, whole: bool) -> Result<Option<Answer<'a>>> {
        /// Of linux/netlink.h: below are netlink's own messages.
        const NLMSG_MIN_TYPE: u16 = 0x10;
        let code = || word(self.body, 0).map(u32::cast_signed).ok_or_else(|| Error::new(doing, libc::EBADMSG));
        let answer = match i32::from(self.kind) {
            // Errno 0 is the acknowledgement.
            libc::NLMSG_ERROR => match code()?.wrapping_neg() {
                0 => Answer::Done { whole },
                errno => Answer::Refused(refusal(doing, errno, self.told_more())),
            },
            // The kernel can break a dump off in the middle, and says why.
            libc::NLMSG_DONE => match code().unwrap_or(0).wrapping_neg() {
                ..=0 => Answer::Done { whole },
                errno => Answer::Refused(refusal(doing, errno, self.body.get(4..).unwrap_or_default())),
            },
            libc::NLMSG_OVERRUN => Answer::Lost,
            _ if self.kind >= NLMSG_MIN_TYPE => Answer::Thing(self.kind, self.body),
            _ => return Ok(None),
        };
        Ok(Some(answer))
    }

    /// Returns the attributes of a refusal, in which the kernel says more.
    fn told_more(&self) -> &'a [u8] {
        /// Of linux/netlink.h: the refused message is not there but for its header; attributes follow.
        const CAPPED: u16 = 0x100;
        const ACK_TLVS: u16 = 0x200;
        if self.flags & ACK_TLVS == 0 {
            return &[];
        }
        // Behind the errno stands the header of the request, and its body too unless the message is capped.
        let request = match self.flags & CAPPED {
            0 => word(self.body, 4).unwrap_or(0) as usize,
            _ => HEADER_BYTES,
        };
        self.body.get(4 + request.next_multiple_of(4)..).unwrap_or_default()
    }
}

/// Returns a refusal with the kernel's own words.
fn refusal(doing: &str, errno: i32, told_more: &[u8]) -> Refusal {
    /// Of `enum nlmsgerr_attrs` in linux/netlink.h.
    const NLMSGERR_ATTR_MSG: u16 = 1;
    const NLMSGERR_ATTR_OFFS: u16 = 2;
    let mut refusal = Refusal { error: Error::new(doing, errno), offset: None };
    for (kind, value) in attributes(told_more) {
        match kind {
            NLMSGERR_ATTR_MSG => {
                let text = String::from_utf8_lossy(value);
                let text = text.trim_end_matches(['\0', '\n']);
                if !text.is_empty() {
                    refusal.error = refusal.error.saying(text);
                }
            }
            NLMSGERR_ATTR_OFFS => refusal.offset = word(value, 0).map(|offset| offset as usize),
            _ => {}
        }
    }
    refusal
}

/// Returns the attributes in `bytes`, by number; those from one that is cut short on are left out.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        // The packet crate lends the value for no longer than its own view of it.
        let place = attribute.into_inner();
        let length = half(place, 0)? as usize;
        Some((half(place, 2)? & NLA_TYPE_MASK, place.get(4..length)?))
    })
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

/// Returns the 32-bit number at an offset.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_ne_bytes(*number))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|number| u16::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, IntoRawFd};
    use std::os::unix::net::UnixDatagram;

    use netlink_packet_route::RouteNetlinkMessage;

    use super::super::ip::route;
    use super::rtnl::NEW;
    use super::*;
    use crate::net::testing::{netns, netns_and_rtnl};
    use crate::net::{Mac, NewLink, link};

    /// The first socket was left from making the namespace, the second is made for the asking.
    #[test]
    fn every_socket_is_in_its_namespace() {
        let netns = netns();
        for _ in 0..2 {
            let rtnl = Netlink::open(&netns).expect("a socket");
            let lo = link::get(&rtnl, 1).expect("read").expect("lo");
            assert_eq!(lo.alias.as_deref(), Some("toposcript test"));
        }
        let host = Netlink::open(&Netns::current().expect("ours")).expect("a socket");
        let lo = link::get(&host, 1).expect("read").expect("lo");
        assert_ne!(lo.alias.as_deref(), Some("toposcript test"));
    }

    #[test]
    fn the_kernels_own_words_reach_the_caller() {
        let (_netns, rtnl) = netns_and_rtnl();
        let to = "10.9.0.0/16".parse().expect("a network");
        let via = "192.0.2.1".parse().expect("an address");
        let nowhere = route::Route { via: Some(via), ..route::Route::new(to) };
        let error = route::add(&rtnl, &nowhere).expect_err("no such gateway");
        assert_eq!((error.errno(), error.to_string().as_str()), (libc::ENETUNREACH, "Nexthop has invalid gateway"));
        assert_eq!(error.doing(), "add route 10.9.0.0/16");
        // Of a kind that no kernel has.
        let link = NewLink { name: "x0", index: 1000, mac: Mac::local(0), mtu: None };
        let kind = netlink_packet_route::link::InfoKind::Other("no_such_kind".to_string());
        let message = link.builder(Some(kind), true).build();
        let made = rtnl.change("add link `x0`", RouteNetlinkMessage::NewLink(message), NEW);
        let error = made.expect_err("no such kind");
        assert_eq!(error.to_string(), "Unknown device type");
        assert!(error.is_unsupported());
    }

    /// Returns a socket, and the other end of it in the kernel's place.
    fn with_kernel() -> (Netlink, UnixDatagram) {
        let (ours, kernel) = UnixDatagram::pair().expect("a pair");
        // SAFETY: the descriptor comes from a socket that gave up its ownership in the same expression.
        let socket = unsafe { Socket::from_raw_fd(ours.into_raw_fd()) };
        (Netlink { fd: Netfd(socket), next: Cell::new(7) }, kernel)
    }

    /// Writes what the kernel says: a message with a number.
    fn said(kind: i32, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = frame(kind as u16, 0, |bytes| bytes.extend_from_slice(body));
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_table_that_changed_while_it_was_read_is_read_again() {
        let (netlink, kernel) = with_kernel();
        let done = |number, flags| said(libc::NLMSG_DONE, flags, number, &[0; 4]);
        // The mark may stand on any message, that of the end included.
        kernel.send(&[said(99, NLM_F_DUMP_INTR, 7, b"old1"), done(7, 0)].concat()).expect("sent");
        kernel.send(&said(99, 0, 8, b"old2")).expect("sent");
        kernel.send(&done(8, NLM_F_DUMP_INTR)).expect("sent");
        kernel.send(&[said(99, 0, 9, b"new1"), said(99, 0, 9, b"new2"), done(9, 0)].concat()).expect("sent");
        let found = netlink.dump("list", &frame(98, 0, |_| {}), |_, body| Ok(Some(body.to_vec()))).expect("a table");
        assert_eq!(found, [b"new1", b"new2"]);
    }

    /// What came too late for somebody who had given up, such as the rest of a dump, is nobody's answer.
    #[test]
    fn answers_to_older_messages_are_passed_over() {
        let (netlink, kernel) = with_kernel();
        kernel.send(&said(99, 0, 6, b"late")).expect("sent");
        kernel.send(&said(libc::NLMSG_ERROR, 0, 5, &[0xff; 20])).expect("sent");
        kernel.send(&said(99, 0, 7, b"mine")).expect("sent");
        let answer = netlink.ask("ask", &frame(98, 0, |_| {}), |_, body| Ok(body.to_vec())).expect("an answer");
        assert_eq!(answer.as_deref(), Some(&b"mine"[..]));
    }

    /// A dump that can't be read is received to its end, so that the socket is free for the next one.
    #[test]
    fn what_can_not_be_read_does_not_block_the_socket() {
        let (_netns, rtnl) = netns_and_rtnl();
        let links = super::rtnl::written(&RouteNetlinkMessage::GetLink(link::question(0)), 0);
        let unreadable = |_, _: &[u8]| Err::<Option<()>, _>(Error::new("read", libc::EBADMSG));
        for _ in 0..3 {
            assert_eq!(rtnl.dump("list links", &links, unreadable).expect_err("unreadable").errno(), libc::EBADMSG);
        }
        assert_eq!(link::list(&rtnl).expect("links").len(), 1);
    }

    #[test]
    fn text_behind_a_refused_request_is_found() {
        let text = [8u16.to_ne_bytes(), 1u16.to_ne_bytes(), *b"no", [b'!', 0]].concat();
        let errno = (-libc::EINVAL).to_ne_bytes();
        // The header of a request of 32 bytes, whose body is there unless the message is capped.
        let request = [&32u32.to_ne_bytes()[..], &[0; 12]].concat();
        let whole = [&errno[..], &request, &[0; 16], &text].concat();
        let capped = [&errno[..], &request, &text].concat();
        let words = |flags, body: &[u8]| {
            let bytes = said(libc::NLMSG_ERROR, flags, 1, body);
            let message = messages_in(&bytes).next().expect("a message");
            let Ok(Some(Answer::Refused(refusal))) = message.answer("x", true) else { panic!("no refusal") };
            (refusal.error.errno(), refusal.error.to_string())
        };
        assert_eq!(words(0x200, &whole), (libc::EINVAL, "no!".to_string()));
        assert_eq!(words(0x300, &capped), (libc::EINVAL, "no!".to_string()));
        for (flags, body) in [(0, &whole[..]), (0x200, &whole[..7]), (0x300, &errno)] {
            assert_eq!(words(flags, body), (libc::EINVAL, "Invalid argument".to_string()));
        }
        // A dump that is broken off says why in the same way.
        let bytes = said(libc::NLMSG_DONE, 0, 1, &[&errno[..], &text].concat());
        let message = messages_in(&bytes).next().expect("a message");
        assert!(
            matches!(message.answer("x", true), Ok(Some(Answer::Refused(refusal))) if refusal.error.to_string() == "no!")
        );
    }
}
