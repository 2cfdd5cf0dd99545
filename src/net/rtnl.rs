//! One rtnetlink socket in one namespace. Every request has a time limit, and an error carries the kernel's own text:
//! the socket asks for extended acknowledgements (Documentation/userspace-api/netlink/intro.rst, "Ext ACK").

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{
    DoneMessage, ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr, TokioSocket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use tokio::task::JoinHandle;

use super::{Error, Netns, Request, Result, fault};

/// How long the kernel may take to answer. An answer can be lost (ENOBUFS), and would then be waited for without end.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The most bytes of an answer to one question: that for a link with long names and many properties.
pub(super) const ANSWER_MAX: usize = 32 << 10;

/// How often a dump is asked for again because the table changed while it was read.
const DUMPS_MAX: u32 = 10;

/// Make it; an error if it is there.
pub(crate) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An rtnetlink socket in one namespace, and the task that serves it.
///
/// While it is open it keeps the namespace alive. The socket closes when the runtime next runs after the drop.
#[derive(Debug)]
pub struct Rtnl {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rtnl {
    /// Opens a socket that is born in `netns`. Must be called in the context of a tokio runtime with I/O and time.
    ///
    /// Fails with EMFILE when the process has no file descriptors left.
    pub fn open(netns: &Netns) -> Result<Rtnl> {
        Rtnl::open_with_events(netns, 0).map(|(rtnl, _)| rtnl)
    }

    /// Opens a socket that also hears the multicast groups of the mask `groups` (RTMGRP_… of rtnetlink(7)).
    pub(crate) fn open_with_events(
        netns: &Netns,
        groups: u32,
    ) -> Result<(Rtnl, impl Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + use<>)> {
        let failed = |error| Error::io("open an rtnetlink socket", error);
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| failed(std::io::Error::other(error)))?;
        let ready = if groups == 0 { netns.take_socket() } else { None };
        let socket = match ready {
            Some(socket) => socket,
            None if netns.is_here()? => new_socket(groups).map_err(failed)?,
            None => netns.inside(|| new_socket(groups))?.map_err(failed)?,
        };
        // SAFETY: the descriptor comes from an owner that gave it up in the same expression.
        let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
        let (mut connection, handle, events) = rtnetlink::from_socket(socket);
        // Without these an answer of success looks like a connection that broke.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        Ok((Rtnl { handle, task: runtime.spawn(connection) }, events))
    }

    /// Makes one change and waits for the kernel's acknowledgement.
    pub(crate) async fn change(&self, doing: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        fault::point(doing)?;
        self.exchange(doing, message, NLM_F_ACK | flags).await.map(|_| ())
    }

    /// Sends one request and waits for the kernel's acknowledgement.
    pub async fn send(&self, request: Request) -> Result<()> {
        let (doing, message, flags, passes) = request.into_parts();
        match self.change(&doing, message, flags).await {
            Err(error) if passes(&error) => Ok(()),
            done => done,
        }
    }

    /// Asks for one thing.
    pub(crate) async fn get(&self, doing: &str, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>> {
        // With an acknowledgement, so that an answer that the packet crate can't read doesn't look like silence.
        let (answers, _) = self.exchange(doing, message, NLM_F_ACK).await?;
        Ok(answers.into_iter().next())
    }

    /// Asks for a whole table.
    pub(crate) async fn query(&self, doing: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 1..DUMPS_MAX {
            let (answers, whole) = self.exchange(doing, message.clone(), NLM_F_DUMP).await?;
            if whole {
                return Ok(answers);
            }
        }
        // On a host that never rests the last one is as good as any.
        self.exchange(doing, message, NLM_F_DUMP).await.map(|(answers, _)| answers)
    }

    /// Sends one message; returns the answers, and whether they are one consistent view.
    async fn exchange(
        &self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool)> {
        let broken = || Error::new(doing, libc::ECONNABORTED).saying("the rtnetlink socket broke");
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(message).map_err(|_| broken())?;
        let read = async {
            let mut got = Vec::new();
            let mut whole = true;
            while let Some(answer) = answers.next().await {
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match outcome(doing, answer) {
                    Some(Ok(inner)) => got.push(inner),
                    Some(Err(error)) => return Err(error),
                    None => return Ok((got, whole)),
                }
            }
            Err(broken())
        };
        tokio::time::timeout(ANSWER_WITHIN, read).await.unwrap_or_else(|_| Err(Error::timeout(doing)))
    }
}

/// Returns what an answer says: a thing, an error, or that all was said.
pub(super) fn outcome(doing: &str, answer: NetlinkMessage<RouteNetlinkMessage>) -> Option<Result<RouteNetlinkMessage>> {
    let flags = answer.header.flags;
    match answer.payload {
        NetlinkPayload::InnerMessage(inner) => Some(Ok(inner)),
        NetlinkPayload::Error(error) => refusal(doing, &error, flags).map(Err),
        NetlinkPayload::Done(done) => broken_off(doing, &done).map(Err),
        NetlinkPayload::Overrun(_) => Some(Err(Error::new(doing, libc::ENOBUFS))),
        _ => Some(Err(Error::new(doing, libc::EBADMSG))),
    }
}

/// Makes one change over a new socket in the namespace that the calling thread is in, without a runtime; returns the
/// socket for more.
pub(crate) fn change_here(doing: &str, message: RouteNetlinkMessage, flags: u16) -> Result<OwnedFd> {
    exchange_here(doing, message, NLM_F_ACK | flags).map(|(socket, _)| socket)
}

/// Asks for one thing over a new socket in the namespace that the calling thread is in, without a runtime.
pub(super) fn ask_here(doing: &str, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>> {
    exchange_here(doing, message, 0).map(|(_, answer)| answer)
}

/// Asks for a whole table over a new socket in the namespace that the calling thread is in, without a runtime.
pub(super) fn list_here(doing: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
    let fd = new_socket(0).map_err(|error| Error::io(doing, error))?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; ANSWER_MAX.max(message.buffer_len())];
    let errno = |errno| Error::new(doing, errno as i32);
    let unreadable = |error: String| Error::new(doing, libc::EBADMSG).saying(error);
    let mut answers = Vec::new();
    for _ in 0..DUMPS_MAX {
        answers.clear();
        let mut whole = true;
        message.serialize(&mut bytes);
        send(fd.as_raw_fd(), &bytes[..message.buffer_len()], MsgFlags::empty()).map_err(errno)?;
        'dump: loop {
            let length = receive(&fd, &mut bytes).map_err(errno)?;
            let mut rest = &bytes[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| unreadable(error.to_string()))?;
                let size = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(size.max(16)..).unwrap_or_default();
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match outcome(doing, answer) {
                    Some(answer) => answers.push(answer?),
                    None => break 'dump,
                }
            }
        }
        if whole {
            break;
        }
    }
    Ok(answers)
}

fn exchange_here(
    doing: &str,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<(OwnedFd, Option<RouteNetlinkMessage>)> {
    let failed = |error| Error::io(doing, error);
    let fd = new_socket(0).map_err(failed)?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let errno = |errno| Error::new(doing, errno as i32);
    send(fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(errno)?;
    let mut bytes = vec![0; ANSWER_MAX];
    let length = receive(&fd, &mut bytes).map_err(errno)?;
    bytes.truncate(length);
    let answer = NetlinkMessage::deserialize(&bytes)
        .map_err(|error| Error::new(doing, libc::EBADMSG).saying(error.to_string()))?;
    Ok((fd, outcome(doing, answer).transpose()?))
}

/// Waits for a datagram on a socket that does not block. ETIMEDOUT if none comes within 10 s.
pub(super) fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> nix::Result<usize> {
    let within = PollTimeout::try_from(ANSWER_WITHIN).unwrap_or(PollTimeout::MAX);
    loop {
        match recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Err(nix::Error::EAGAIN) => {}
            Err(nix::Error::EINTR) => continue,
            done => return done,
        }
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], within) {
            Ok(0) => return Err(nix::Error::ETIMEDOUT),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(other) => return Err(other),
        }
    }
}

/// Makes a socket in the namespace of the calling thread.
pub(super) fn new_socket(groups: u32) -> std::io::Result<OwnedFd> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    socket.set_non_blocking(true)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // SAFETY: the descriptor comes from a socket that gave up its ownership in the same expression.
    Ok(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) })
}

/// Reads an NLMSG_ERROR: errno 0 is the acknowledgement.
pub(super) fn refusal(doing: &str, message: &ErrorMessage, flags: u16) -> Option<Error> {
    let error = Error::new(doing, message.code?.get().wrapping_neg());
    Some(with_text(error, error_attributes(message, flags).unwrap_or_default()))
}

/// Returns the attributes of an NLMSG_ERROR, in which the kernel says more.
pub(super) fn error_attributes(message: &ErrorMessage, flags: u16) -> Option<&[u8]> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // Behind the errno stands the header of the request, and its body too unless the message is capped.
    let body = match flags & NLM_F_CAPPED {
        0 => message.header.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize).next_multiple_of(4),
        _ => 16,
    };
    message.header.get(body..)
}

/// Reads an NLMSG_DONE: the kernel can break a dump off in the middle, and says why.
pub(super) fn broken_off(doing: &str, done: &DoneMessage) -> Option<Error> {
    if done.code >= 0 {
        return None;
    }
    Some(with_text(Error::new(doing, done.code.wrapping_neg()), &done.extended_ack))
}

fn with_text(error: Error, attributes: &[u8]) -> Error {
    /// The text, of `enum nlmsgerr_attrs` in linux/netlink.h.
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let text = NlasIterator::new(attributes)
        .flatten()
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches(['\0', '\n']).to_string());
    match text {
        Some(text) if !text.is_empty() => error.saying(text),
        _ => error,
    }
}

/// Returns the attribute in its raw form, for those that the packet crate has no name for.
pub(crate) fn raw_attribute(kind: u16, value: Vec<u8>) -> netlink_packet_core::DefaultNla {
    netlink_packet_core::DefaultNla::new(kind, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, netns, netns_and_rtnl};
    use crate::net::{Mac, NewLink, link, route};

    #[test]
    fn without_a_runtime_there_is_an_error_and_no_panic() {
        let error = Rtnl::open(&netns()).expect_err("no runtime");
        assert_eq!(error.doing(), "open an rtnetlink socket");
    }

    /// The first socket was left from making the namespace, the second is made for the asking.
    #[test]
    fn every_socket_is_in_its_namespace() {
        block_on(async {
            let netns = netns();
            for _ in 0..2 {
                let rtnl = Rtnl::open(&netns).expect("a socket");
                let lo = link::get(&rtnl, 1).await.expect("read").expect("lo");
                assert_eq!(lo.alias.as_deref(), Some("toposcript test"));
            }
            let host = Rtnl::open(&Netns::current().expect("ours")).expect("a socket");
            let lo = link::get(&host, 1).await.expect("read").expect("lo");
            assert_ne!(lo.alias.as_deref(), Some("toposcript test"));
        });
    }

    #[test]
    fn the_kernels_own_words_reach_the_caller() {
        block_on(async {
            let (_netns, rtnl) = netns_and_rtnl();
            let to = "10.9.0.0/16".parse().expect("a network");
            let via = "192.0.2.1".parse().expect("an address");
            let nowhere = route::Route { via: Some(via), ..route::Route::new(to) };
            let error = route::add(&rtnl, &nowhere).await.expect_err("no such gateway");
            assert_eq!((error.errno(), error.to_string().as_str()), (libc::ENETUNREACH, "Nexthop has invalid gateway"));
            assert_eq!(error.doing(), "add route 10.9.0.0/16");
            // Of a kind that no kernel has.
            let link = NewLink { name: "x0", index: 1000, mac: Mac::local(0), mtu: None };
            let mut message = link.message();
            let kind = netlink_packet_route::link::InfoKind::Other("no_such_kind".to_string());
            let info = netlink_packet_route::link::LinkInfo::Kind(kind);
            message.attributes.push(netlink_packet_route::link::LinkAttribute::LinkInfo(vec![info]));
            let made = rtnl.change("add link `x0`", RouteNetlinkMessage::NewLink(message), NEW).await;
            let error = made.expect_err("no such kind");
            assert_eq!(error.to_string(), "Unknown device type");
            assert!(error.is_unsupported());
        });
    }

    #[test]
    fn many_requests_can_be_under_way_on_one_socket() {
        block_on(async {
            let (_netns, rtnl) = netns_and_rtnl();
            let found = futures_util::future::join_all((0..200).map(|_| link::find(&rtnl, "lo"))).await;
            assert!(found.into_iter().all(|link| link.is_ok_and(|link| link.is_some_and(|link| link.index == 1))));
        });
    }

    #[test]
    fn text_behind_an_uncapped_request_is_found() {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&32u32.to_ne_bytes());
        bytes.extend([8u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
        bytes.extend(b"no!\0");
        let mut message = ErrorMessage::default();
        message.code = std::num::NonZeroI32::new(-libc::EINVAL);
        message.header = bytes;
        let error = refusal("x", &message, NLM_F_ACK_TLVS).expect("an error");
        assert_eq!((error.errno(), error.to_string().as_str()), (libc::EINVAL, "no!"));
        message.header.truncate(3);
        assert_eq!(refusal("x", &message, NLM_F_ACK_TLVS).expect("an error").to_string(), "Invalid argument");
    }
}
