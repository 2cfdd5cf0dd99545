//! Requests of rtnetlink that are sent together: in one message to the kernel, which has carried them out, one after the other,
//! by the time the call returns (net/netlink/af_netlink.c, netlink_rcv_skb).

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{MsgFlags, send};

use super::rtnl::{ANSWER_MAX, NEW, new_socket, outcome, receive};
use super::{Error, Netns, Result, fault};

/// The most requests that are sent together: their answers must fit into the receive buffer.
const TOGETHER_MAX: usize = 32;

thread_local! {
    /// Room for answers, one for all sockets: to clear it for each exchange took as long as the exchange.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One request of rtnetlink, ready to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    doing: String,
    message: RouteNetlinkMessage,
    flags: u16,
    passes: fn(&Error) -> bool,
    /// Whether it is a change of its own, before which a crash test may strike.
    point: bool,
    /// The namespaces that the message names by their descriptors.
    keeps: Vec<Netns>,
}

impl Request {
    pub(super) fn new(doing: impl Into<String>, message: RouteNetlinkMessage, flags: u16) -> Request {
        Request { doing: doing.into(), message, flags, passes: |_| false, point: true, keeps: Vec::new() }
    }

    /// Keeps `netns` open until the request is sent.
    pub(super) fn keeping(mut self, netns: &Netns) -> Request {
        self.keeps.push(netns.clone());
        self
    }

    /// Counts the refusals for which `passes` holds as success.
    pub fn unless(self, passes: fn(&Error) -> bool) -> Request {
        Request { passes, ..self }
    }

    /// Counts it as a part of the change before it, to which it belongs whether that has done it already or not.
    pub(super) fn without_point(self) -> Request {
        Request { point: false, ..self }
    }

    /// Tells whether it makes a link.
    pub fn makes_link(&self) -> bool {
        self.flags & NEW == NEW && matches!(self.message, RouteNetlinkMessage::NewLink(_))
    }

    /// Passes the point of a crash test, if it is a change.
    fn pass_point(&self) -> Result<()> {
        match self.message {
            RouteNetlinkMessage::GetLink(_) => Ok(()),
            _ if !self.point => Ok(()),
            _ => fault::point(&self.doing),
        }
    }

    pub(super) fn into_parts(self) -> (String, RouteNetlinkMessage, u16, fn(&Error) -> bool) {
        (self.doing, self.message, self.flags, self.passes)
    }
}

/// A socket in one namespace that requests are sent over. Needs no runtime.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    sequence: u32,
}

impl Sender {
    /// Opens a socket that is born in `netns`.
    pub fn open(netns: &Netns) -> Result<Sender> {
        let failed = |error| Error::io("open an rtnetlink socket", error);
        let socket = match netns.take_socket() {
            Some(socket) => socket,
            None if netns.is_here()? => new_socket(0).map_err(failed)?,
            None => netns.inside(|| new_socket(0))?.map_err(failed)?,
        };
        Ok(Sender::over(socket))
    }

    fn over(socket: OwnedFd) -> Sender {
        // Numbers that whoever had the socket before did not use.
        Sender { socket, sequence: 1 << 16 }
    }

    /// Sends requests in the namespace that the calling thread is in, and returns the socket for more. Passes no point of a crash
    /// test.
    pub(super) fn send_here(doing: &str, requests: &[Request]) -> Result<OwnedFd> {
        let mut sender = Sender::over(new_socket(0).map_err(|error| Error::io(doing, error))?);
        sender.exchange(requests).map_err(|(_, error)| error)?;
        Ok(sender.socket)
    }

    /// Sends `requests` in order, and returns the first refusal with the number of its request. The kernel goes on behind one.
    ///
    /// ETIMEDOUT if the kernel does not answer within 10 s.
    pub fn send(&mut self, requests: &[Request]) -> std::result::Result<(), (usize, Error)> {
        let together = if fault::is_armed() { 1 } else { TOGETHER_MAX };
        for (number, chunk) in requests.chunks(together).enumerate() {
            let passed =
                chunk.iter().enumerate().try_for_each(|(at, request)| request.pass_point().map_err(|e| (at, e)));
            let sent = passed.and_then(|()| self.exchange(chunk));
            sent.map_err(|(at, error)| (number * together + at, error))?;
        }
        Ok(())
    }

    /// Sends so many requests that their answers fit into the receive buffer, and reads these.
    fn exchange(&mut self, requests: &[Request]) -> std::result::Result<(), (usize, Error)> {
        let Some(last) = requests.len().checked_sub(1) else { return Ok(()) };
        let first = self.sequence;
        let mut bytes = Vec::with_capacity(256 * requests.len());
        for (at, request) in requests.iter().enumerate() {
            let mut message = NetlinkMessage::from(request.message.clone());
            message.header.sequence_number = first.wrapping_add(at as u32);
            // An error is always answered; that all is done, by the last one.
            message.header.flags = NLM_F_REQUEST | request.flags | if at == last { NLM_F_ACK } else { 0 };
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.sequence = first.wrapping_add(requests.len() as u32);
        let failed = |at: usize, errno: nix::Error| (at, Error::new(&*requests[at].doing, errno as i32));
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|errno| failed(0, errno))?;
        ANSWER.with_borrow_mut(|answer| {
            answer.resize(ANSWER_MAX, 0);
            let mut refused: Option<(usize, Error)> = None;
            loop {
                let length = receive(&self.socket, answer).map_err(|errno| failed(last, errno))?;
                let (ended, refusal) = self.read(&answer[..length], first, requests, last);
                // Answers come in the order of their requests.
                if let Some(refusal) = refusal
                    && refused.as_ref().is_none_or(|(at, _)| *at > refusal.0)
                {
                    refused = Some(refusal);
                }
                if ended {
                    return refused.map_or(Ok(()), Err);
                }
            }
        })
    }

    /// Reads the answers in one datagram: tells whether the last of all is among them, and the first refusal.
    fn read(&self, mut bytes: &[u8], first: u32, requests: &[Request], last: usize) -> (bool, Option<(usize, Error)>) {
        /// `NLMSG_ERROR` of linux/netlink.h, which an acknowledgement is too.
        const NLMSG_ERROR: u16 = 2;
        let (mut ended, mut refusal) = (false, None);
        while let Some(([length, kind, sequence], whole)) = header(bytes) {
            let at = sequence.wrapping_sub(first) as usize;
            if kind == u32::from(NLMSG_ERROR)
                && let Some(request) = requests.get(at)
            {
                ended |= at == last;
                let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(whole);
                let read = read.map_err(|error| Error::new(&*request.doing, libc::EBADMSG).saying(error.to_string()));
                let error = match read.map(|answer| outcome(&request.doing, answer)) {
                    Err(error) | Ok(Some(Err(error))) => Some(error),
                    Ok(_) => None,
                };
                if let Some(error) = error.filter(|error| !(request.passes)(error)) {
                    refusal.get_or_insert((at, error));
                }
            }
            bytes = bytes.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        }
        (ended, refusal)
    }
}

/// Returns the length, the kind and the sequence number of the first message, and its bytes.
fn header(bytes: &[u8]) -> Option<([u32; 3], &[u8])> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let length = word(0)?;
    let whole = bytes.get(..length as usize).filter(|whole| whole.len() >= 16)?;
    Some(([length, u32::from(kind), word(8)?], whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, netns};
    use crate::net::{Change, Mac, NewLink, Rtnl, link};

    fn bridge(name: &str, index: u32) -> Request {
        let link = NewLink { name, index, mac: Mac::local(u64::from(index)), mtu: None };
        link::bridge_request(&link, &Default::default())
    }

    fn names(netns: &Netns) -> Vec<String> {
        block_on(async {
            let rtnl = Rtnl::open(netns).expect("a socket");
            link::list(&rtnl).await.expect("links").into_iter().map(|link| link.name).collect()
        })
    }

    #[test]
    fn they_are_carried_out_in_order() {
        let netns = netns();
        let mut sender = Sender::open(&netns).expect("a socket");
        let up = Change { up: Some(true), ..Change::default() };
        let requests =
            [bridge("a", 1000), link::change_request(1000, &up), link::touch_request(1000), bridge("b", 1001)];
        sender.send(&requests).expect("made");
        assert_eq!(names(&netns), ["lo", "a", "b"]);
        sender.send(&[]).expect("nothing to do");
        let many: Vec<Request> = (0..3 * TOGETHER_MAX as u32).map(|at| bridge(&format!("c{at}"), 2000 + at)).collect();
        sender.send(&many).expect("made");
        assert_eq!(names(&netns).len(), 3 + many.len());
    }

    /// The answers to as many questions as go together fit into the receive buffer, long names and all.
    #[test]
    fn answers_of_many_are_not_lost() {
        let netns = netns();
        let mut sender = Sender::open(&netns).expect("a socket");
        let name = |at: u32| format!("{at:->127}");
        let mark = "m".repeat(255);
        let alias = Change { alias: Some(&mark), ..Change::default() };
        for at in 1000..1100 {
            let names = [link::altname_request(at, &name(at)), link::altname_request(at, &name(at + 1000))];
            sender.send(&[bridge(&format!("b{at}"), at), link::change_request(at, &alias)]).expect("made");
            sender.send(&names).expect("named");
        }
        let questions: Vec<Request> = (1000..1100).map(link::touch_request).collect();
        sender.send(&questions).expect("all are answered");
    }

    #[test]
    fn the_first_refusal_is_told_with_its_number() {
        let netns = netns();
        let mut sender = Sender::open(&netns).expect("a socket");
        let up = Change { up: Some(true), ..Change::default() };
        let requests = [bridge("a", 1000), bridge("a", 1001), link::change_request(4711, &up), bridge("b", 1002)];
        let (at, error) = sender.send(&requests).expect_err("the second");
        assert_eq!((at, error.errno(), error.doing()), (1, libc::EEXIST, "add bridge `a`"));
        assert_eq!(names(&netns), ["lo", "a", "b"], "the kernel goes on");
        let tolerant = [bridge("a", 1003).unless(Error::is_exists), link::change_request(4711, &up)];
        let (at, error) = sender.send(&tolerant).expect_err("the second");
        assert!(at == 1 && error.is_gone(), "{error}");
        sender.send(&tolerant[..1]).expect("passed over");
        // The last of many is told too, by its place among all.
        let mut many: Vec<Request> = (0..40).map(|at| bridge(&format!("c{at}"), 2000 + at)).collect();
        many.push(bridge("c0", 3000));
        assert_eq!(sender.send(&many).expect_err("the last").0, 40);
    }
}
