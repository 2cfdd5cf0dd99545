//! Echo requests and what comes back, as bytes (RFC 792, RFC 4443).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// What a packet says about one of the requests.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) enum Answer {
    /// The request of this number was answered.
    Echo(u16),
    /// The request of this number was refused.
    Refusal(u16, Refusal),
}

/// By whom a request was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Refusal {
    /// Who says so.
    pub(in crate::net) from: IpAddr,
    /// In the words of ping(8).
    pub(in crate::net) text: String,
    /// Whether its hop limit ended there.
    pub(super) expired: bool,
    /// Whether it is too big for the next link, and how big that is: 0 if the router doesn't say.
    pub(in crate::net) mtu: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.text, self.from)
    }
}

/// Returns an echo request that carries `size` bytes, of which the first are `token`.
pub(super) fn echo_request(v6: bool, id: u16, seq: u16, token: &[u8; 8], size: usize) -> Vec<u8> {
    let mut packet = vec![if v6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST }, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend(token.iter().copied().chain((8..).map(|byte: usize| byte as u8)).take(size));
    if !v6 {
        // For IPv6 the kernel does it, since the sum covers the addresses (RFC 3542, 3.1).
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Returns the checksum of RFC 1071.
pub(super) fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Reads what a raw socket received, if it is about a request to `to` with this id and token. `from` is the sender for
/// IPv6; an IPv4 packet comes with its header (raw(7)).
pub(super) fn read_answer(packet: &[u8], from: Option<IpAddr>, to: IpAddr, id: u16, token: &[u8; 8]) -> Option<Answer> {
    match to {
        IpAddr::V4(to) => read_v4(packet, Some(to), id, token),
        IpAddr::V6(to) => read_v6(packet, from, Some(to), id, token),
    }
}

/// Reads what a raw socket received, if it is about a request with this id and token, whoever that went to.
pub(super) fn read_any(packet: &[u8], from: Option<IpAddr>, v6: bool, id: u16, token: &[u8; 8]) -> Option<Answer> {
    if v6 { read_v6(packet, from, None, id, token) } else { read_v4(packet, None, id, token) }
}

fn read_v4(packet: &[u8], to: Option<Ipv4Addr>, id: u16, token: &[u8; 8]) -> Option<Answer> {
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(header_length(packet)?..)?;
    if *message.first()? == ECHO_REPLY {
        return reply(message, id, token);
    }
    let seq = cited_v4(message.get(8..)?, to, id)?;
    let mtu = (message.get(..2)? == [3, 4]).then(|| u32::from(u16_at(message, 6).unwrap_or(0)));
    let text = refusal_v4(message)?;
    Some(Answer::Refusal(seq, Refusal { from: from.into(), text, expired: message[..2] == [11, 0], mtu }))
}

fn read_v6(packet: &[u8], from: Option<IpAddr>, to: Option<Ipv6Addr>, id: u16, token: &[u8; 8]) -> Option<Answer> {
    if *packet.first()? == ECHO_REPLY_V6 {
        return reply(packet, id, token);
    }
    let seq = cited_v6(packet.get(8..)?, to, id)?;
    let mtu = if packet[0] == 2 { u32_at(packet, 4) } else { None };
    let text = refusal_v6(packet)?;
    Some(Answer::Refusal(seq, Refusal { from: from?, text, expired: packet.get(..2)? == [3, 0], mtu }))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn header_length(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4)
}

fn reply(message: &[u8], id: u16, token: &[u8; 8]) -> Option<Answer> {
    let seq = number(message, id)?;
    let payload = message.get(8..)?;
    let carried = payload.len().min(token.len());
    (payload[..carried] == token[..carried]).then_some(Answer::Echo(seq))
}

/// Returns the number of an echo message that has this id.
fn number(message: &[u8], id: u16) -> Option<u16> {
    if u16_at(message, 4)? == id { u16_at(message, 6) } else { None }
}

/// Returns the number of the request that an ICMP error cites, if it is one of ours.
fn cited_v4(packet: &[u8], to: Option<Ipv4Addr>, id: u16) -> Option<u16> {
    let there = packet.get(16..20)?;
    let ours = *packet.get(9)? == libc::IPPROTO_ICMP as u8 && to.is_none_or(|to| there == to.octets());
    let message = packet.get(header_length(packet)?..)?;
    if ours && *message.first()? == ECHO_REQUEST { number(message, id) } else { None }
}

fn cited_v6(packet: &[u8], to: Option<Ipv6Addr>, id: u16) -> Option<u16> {
    let there = packet.get(24..40)?;
    if to.is_some_and(|to| there != to.octets()) {
        return None;
    }
    let (kind, message) = match i32::from(*packet.get(6)?) {
        // A fragment: its header says what comes next.
        libc::IPPROTO_FRAGMENT => (i32::from(*packet.get(40)?), packet.get(48..)?),
        kind => (kind, packet.get(40..)?),
    };
    if kind == libc::IPPROTO_ICMPV6 && *message.first()? == ECHO_REQUEST_V6 { number(message, id) } else { None }
}

/// Returns the words of ping(8) for an error that ends a request.
fn refusal_v4(message: &[u8]) -> Option<String> {
    let text = match (*message.first()?, *message.get(1)?) {
        (3, 0) => "Destination Net Unreachable",
        (3, 1) => "Destination Host Unreachable",
        (3, 2) => "Destination Protocol Unreachable",
        (3, 3) => "Destination Port Unreachable",
        (3, 4) => {
            let mtu = u16_at(message, 6)?;
            return Some(format!("Frag needed and DF set (mtu = {mtu})"));
        }
        (3, 5) => "Source Route Failed",
        (3, 6) => "Destination Net Unknown",
        (3, 7) => "Destination Host Unknown",
        (3, 9) => "Destination Net Prohibited",
        (3, 10) => "Destination Host Prohibited",
        (3, 13) => "Packet filtered",
        (3, code) => return Some(format!("Dest Unreachable, Bad Code: {code}")),
        (11, 0) => "Time to live exceeded",
        (11, _) => "Frag reassembly time exceeded",
        (12, _) => "Parameter problem",
        _ => return None,
    };
    Some(text.to_string())
}

fn refusal_v6(message: &[u8]) -> Option<String> {
    let text = match (*message.first()?, *message.get(1)?) {
        (1, 0) => "Destination unreachable: No route",
        (1, 1) => "Destination unreachable: Administratively prohibited",
        (1, 2) => "Destination unreachable: Beyond scope of source address",
        (1, 3) => "Destination unreachable: Address unreachable",
        (1, 4) => "Destination unreachable: Port unreachable",
        (1, 5) => "Destination unreachable: Source address failed ingress/egress policy",
        (1, 6) => "Destination unreachable: Reject route to destination",
        (1, code) => return Some(format!("Destination unreachable: Unknown code {code}")),
        (2, _) => {
            let mtu = u32_at(message, 4)?;
            return Some(format!("Packet too big: mtu={mtu}"));
        }
        (3, 0) => "Time exceeded: Hop limit",
        (3, _) => "Time exceeded: Defragmentation failure",
        (4, _) => "Parameter problem",
        _ => return None,
    };
    Some(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; 8] = *b"topotopo";

    fn v4_packet(from: [u8; 4], to: [u8; 4], message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend(from);
        packet.extend(to);
        packet.extend(message);
        packet
    }

    #[test]
    fn a_request_sums_to_zero() {
        for size in [0, 1, 8, 56, 57] {
            let request = echo_request(false, 0x1234, 7, &TOKEN, size);
            assert_eq!((request.len(), checksum(&request)), (8 + size, 0), "{size}");
        }
    }

    #[test]
    fn only_our_own_answers_count() {
        let to = IpAddr::from([10, 0, 0, 2]);
        let mut answer = echo_request(false, 5, 7, &TOKEN, 56);
        answer[0] = ECHO_REPLY;
        let packet = v4_packet([10, 0, 0, 2], [10, 0, 0, 1], &answer);
        assert_eq!(read_answer(&packet, None, to, 5, &TOKEN), Some(Answer::Echo(7)));
        assert_eq!(read_answer(&packet, None, to, 6, &TOKEN), None, "another id");
        assert_eq!(read_answer(&packet, None, to, 5, b"topotop0"), None, "another token");
    }

    #[test]
    fn a_refusal_is_matched_by_what_it_cites() {
        let to = [10, 9, 0, 2];
        let request = echo_request(false, 5, 7, &TOKEN, 56);
        let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
        error.extend(&v4_packet([10, 0, 0, 1], to, &request)[..28]);
        let packet = v4_packet([10, 0, 0, 254], [10, 0, 0, 1], &error);
        let text = "Destination Host Unreachable".to_string();
        let refusal = Refusal { from: [10, 0, 0, 254].into(), text, expired: false, mtu: None };
        assert_eq!(refusal.to_string(), "Destination Host Unreachable from 10.0.0.254");
        assert_eq!(read_answer(&packet, None, to.into(), 5, &TOKEN), Some(Answer::Refusal(7, refusal)));
        assert_eq!(read_answer(&packet, None, [10, 9, 0, 3].into(), 5, &TOKEN), None, "to another host");
        assert_eq!(read_answer(&packet, None, to.into(), 6, &TOKEN), None, "another id");
    }

    proptest::proptest! {
        #[test]
        fn no_packet_is_too_odd(packet: Vec<u8>, v6: bool) {
            let to = if v6 { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) };
            let _ = read_answer(&packet, Some(to), to, 0, &TOKEN);
        }
    }
}
