//! Requests for links, addresses, routes, rules and neighbours, and what comes of them. Several go out together: the kernel
//! carries them out one after the other (net/netlink/af_netlink.c, netlink_rcv_skb).

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;

use super::{Answer, Netlink, frame};
use crate::net::{Error, Netns, Result, fault};

/// Make it; an error if it is there.
pub(crate) const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The most requests that are sent together: their answers must fit into the receive buffer.
const TOGETHER_MAX: usize = 32;

/// Of linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;

/// One request of rtnetlink, ready to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    doing: String,
    kind: u16,
    flags: u16,
    bytes: Vec<u8>,
    passes: fn(&Error) -> bool,
    /// Whether it is a change of its own, before which a crash test may strike.
    point: bool,
    /// The namespaces that the message names by their descriptors.
    keeps: Vec<Netns>,
}

impl Request {
    pub(in crate::net) fn new(doing: impl Into<String>, message: RouteNetlinkMessage, flags: u16) -> Request {
        let kind = message.message_type();
        let bytes = written(&message, flags);
        Request { doing: doing.into(), kind, flags, bytes, passes: |_| false, point: true, keeps: Vec::new() }
    }

    /// Keeps `netns` open until the request is sent.
    pub(in crate::net) fn keeping(mut self, netns: &Netns) -> Request {
        self.keeps.push(netns.clone());
        self
    }

    /// Counts the refusals for which `passes` holds as success.
    pub fn unless(self, passes: fn(&Error) -> bool) -> Request {
        Request { passes, ..self }
    }

    /// Counts it as a part of the change before it, to which it belongs whether that has done it already or not.
    pub(in crate::net) fn without_point(self) -> Request {
        Request { point: false, ..self }
    }

    /// Tells whether it makes a link.
    pub fn makes_link(&self) -> bool {
        self.flags & NEW == NEW && self.kind == RTM_NEWLINK
    }

    /// Passes the point of a crash test, if it is a change.
    fn pass_point(&self) -> Result<()> {
        if self.point && self.kind != RTM_GETLINK { fault::point(&self.doing) } else { Ok(()) }
    }
}

impl Netlink {
    /// Sends `requests` in order, and returns the first refusal with the number of its request. The kernel goes on behind one.
    ///
    /// ETIMEDOUT if the kernel does not answer within 20 s.
    pub fn send_all(&self, requests: &[Request]) -> std::result::Result<(), (usize, Error)> {
        let together = if fault::is_armed() { 1 } else { TOGETHER_MAX };
        for (number, chunk) in requests.chunks(together).enumerate() {
            let passed =
                chunk.iter().enumerate().try_for_each(|(at, request)| request.pass_point().map_err(|e| (at, e)));
            let sent = passed.and_then(|()| self.send_together(chunk));
            sent.map_err(|(at, error)| (number * together + at, error))?;
        }
        Ok(())
    }

    /// Sends one request and waits for the kernel's acknowledgement.
    pub fn send(&self, request: Request) -> Result<()> {
        self.send_all(&[request]).map_err(|(_, error)| error)
    }

    /// Sends so many requests that their answers fit into the receive buffer, and reads these.
    fn send_together(&self, requests: &[Request]) -> std::result::Result<(), (usize, Error)> {
        let Some(last) = requests.len().checked_sub(1) else { return Ok(()) };
        let messages: Vec<&[u8]> = requests.iter().map(|request| &*request.bytes).collect();
        let mut refused: Option<(usize, Error)> = None;
        // That all is done is answered by the last one alone. Answers come in the order of their requests.
        let heard = self.exchange(&requests[last].doing, &messages, Some(last), |at, answer| {
            match answer {
                Answer::Refused(refusal) if !(requests[at].passes)(&refusal.error) => {
                    let error = refusal.error.while_doing(&*requests[at].doing);
                    refused.get_or_insert((at, error));
                }
                Answer::Lost => return Some(Err(Error::new(&*requests[last].doing, libc::ENOBUFS))),
                // A link that was asked for comes before the acknowledgement.
                Answer::Thing(..) => return None,
                Answer::Refused(_) | Answer::Done { .. } => {}
            }
            (at == last).then_some(Ok(()))
        });
        match (heard, refused) {
            (_, Some(refused)) => Err(refused),
            (Err(error), None) => Err((last, error)),
            (Ok(()), None) => Ok(()),
        }
    }

    /// Makes one change and waits for the kernel's acknowledgement.
    pub(crate) fn change(&self, doing: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.send(Request::new(doing, message, flags))
    }

    /// Asks for one thing.
    pub(crate) fn get(&self, doing: &str, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>> {
        let read = |kind, body: &[u8]| {
            read(kind, body).map_err(|error| Error::new(doing, libc::EBADMSG).saying(error.to_string()))
        };
        self.ask(doing, &written(&message, 0), read)
    }

    /// Asks for a whole table. What the packet crate can't read is left out.
    pub(crate) fn query(&self, doing: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.dump(doing, &written(&message, 0), |kind, body| Ok(read(kind, body).ok()))
    }
}

/// Writes a message.
pub(in crate::net) fn written(message: &RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    frame(message.message_type(), flags, |bytes| {
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    })
}

/// Reads a message by its kind and what stands behind its header.
pub(in crate::net) fn read(
    kind: u16,
    body: &[u8],
) -> std::result::Result<RouteNetlinkMessage, netlink_packet_core::DecodeError> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, body)
}

/// Returns the attribute in its raw form, for those that the packet crate has no name for.
pub(crate) fn raw_attribute(kind: u16, value: Vec<u8>) -> netlink_packet_core::DefaultNla {
    netlink_packet_core::DefaultNla::new(kind, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, netns};
    use crate::net::{Change, Mac, Netlink, NewLink, link};

    fn bridge(name: &str, index: u32) -> Request {
        let link = NewLink { name, index, mac: Mac::local(u64::from(index)), mtu: None };
        crate::net::link::bridge::bridge_request(&link, &Default::default())
    }

    fn names(netns: &Netns) -> Vec<String> {
        block_on(async {
            let rtnl = Netlink::open(netns).expect("a socket");
            link::list(&rtnl).expect("links").into_iter().map(|link| link.name).collect()
        })
    }

    #[test]
    fn they_are_carried_out_in_order() {
        let netns = netns();
        let rtnl = Netlink::open(&netns).expect("a socket");
        let up = Change { up: Some(true), ..Change::default() };
        let requests =
            [bridge("a", 1000), link::change_request(1000, &up), link::touch_request(1000), bridge("b", 1001)];
        rtnl.send_all(&requests).expect("made");
        assert_eq!(names(&netns), ["lo", "a", "b"]);
        rtnl.send_all(&[]).expect("nothing to do");
        let many: Vec<Request> = (0..3 * TOGETHER_MAX as u32).map(|at| bridge(&format!("c{at}"), 2000 + at)).collect();
        rtnl.send_all(&many).expect("made");
        assert_eq!(names(&netns).len(), 3 + many.len());
    }

    /// The answers to as many questions as go together fit into the receive buffer, long names and all.
    #[test]
    fn answers_of_many_are_not_lost() {
        let netns = netns();
        let rtnl = Netlink::open(&netns).expect("a socket");
        let name = |at: u32| format!("{at:->127}");
        let mark = "m".repeat(255);
        let alias = Change { alias: Some(&mark), ..Change::default() };
        for at in 1000..1100 {
            let names = [link::altname_request(at, &name(at)), link::altname_request(at, &name(at + 1000))];
            rtnl.send_all(&[bridge(&format!("b{at}"), at), link::change_request(at, &alias)]).expect("made");
            rtnl.send_all(&names).expect("named");
        }
        let questions: Vec<Request> = (1000..1100).map(link::touch_request).collect();
        rtnl.send_all(&questions).expect("all are answered");
    }

    #[test]
    fn the_first_refusal_is_told_with_its_number() {
        let netns = netns();
        let rtnl = Netlink::open(&netns).expect("a socket");
        let up = Change { up: Some(true), ..Change::default() };
        let requests = [bridge("a", 1000), bridge("a", 1001), link::change_request(4711, &up), bridge("b", 1002)];
        let (at, error) = rtnl.send_all(&requests).expect_err("the second");
        assert_eq!((at, error.errno(), error.doing()), (1, libc::EEXIST, "add bridge `a`"));
        assert_eq!(names(&netns), ["lo", "a", "b"], "the kernel goes on");
        let tolerant = [bridge("a", 1003).unless(Error::is_exists), link::change_request(4711, &up)];
        let (at, error) = rtnl.send_all(&tolerant).expect_err("the second");
        assert!(at == 1 && error.is_gone(), "{error}");
        rtnl.send_all(&tolerant[..1]).expect("passed over");
        // The last of many is told too, by its place among all.
        let mut many: Vec<Request> = (0..40).map(|at| bridge(&format!("c{at}"), 2000 + at)).collect();
        many.push(bridge("c0", 3000));
        assert_eq!(rtnl.send_all(&many).expect_err("the last").0, 40);
    }
}
