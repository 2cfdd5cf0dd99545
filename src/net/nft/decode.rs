//! A rule in the kernel's form, back as text. The expressions are run on registers that hold words in place of values.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

use super::expr::{self, Expr, Header};
use super::list::{Counter, bytes, number};
use super::rule::{CtState, L4Proto};
use super::text::{network, unless};
use super::{Family, IpVersion};

/// Reads a rule of a table of `family`: its text, and what it counted.
pub(super) fn rule(family: Family, exprs: &[Expr]) -> (String, Option<Counter>) {
    let mut reader =
        Reader { family, words: Vec::new(), loads: BTreeMap::new(), proto: None, version: None, counter: None };
    for (name, data) in exprs.iter().filter_map(parts) {
        if reader.read(&name, data).is_none() {
            reader.say(format!("[{name}]"));
        }
    }
    let words: Vec<String> = reader.words.into_iter().map(|word| word.text).collect();
    (words.join(" "), reader.counter)
}

/// Returns the name and the data of an expression.
pub(super) fn parts(expr: &Expr) -> Option<(String, &Expressions)> {
    let ListAttribute::Element(attributes) = expr else { return None };
    let (mut name, mut data) = (None, None);
    for attribute in attributes {
        match attribute {
            ExpressionAttribute::Name(text) => name = Some(text.clone()),
            ExpressionAttribute::Data(expressions) => data = Some(expressions),
            _ => {}
        }
    }
    // An expression without any data has none of its own either, such as `masq`.
    const NOTHING: &Expressions = &Expressions::Unknown(Vec::new());
    name.map(|name| (name, data.unwrap_or(NOTHING)))
}

/// Returns the comment that iptables gave a rule (`struct xt_comment_info` of linux/netfilter/xt_comment.h).
pub(super) fn xt_comment(exprs: &[Expr]) -> Option<String> {
    exprs.iter().filter_map(parts).find_map(|(name, data)| match data {
        Expressions::Other { attributes, .. } if name == "match" => {
            let is_comment = self::name(&bytes(attributes, expr::NFTA_MATCH_NAME)?) == "comment";
            is_comment.then(|| bytes(attributes, expr::NFTA_MATCH_INFO)).flatten().map(|text| self::name(&text))
        }
        _ => None,
    })
}

struct Reader {
    family: Family,
    words: Vec<Word>,
    /// What each 32-bit register holds, by its first.
    loads: BTreeMap<u32, Load>,
    proto: Option<L4Proto>,
    version: Option<IpVersion>,
    counter: Option<Counter>,
}

struct Word {
    text: String,
    /// Left out once another word implies it.
    implied_by: Option<Header>,
    /// "tcp dport", and 80, of `tcp dport >= 80`, which may become `80-90`.
    from: Option<(String, String)>,
}

/// What a register holds.
#[derive(Clone)]
struct Load {
    text: String,
    kind: ValueKind,
    /// How many 32-bit registers it takes.
    words: u32,
    mask: Option<Vec<u8>>,
    /// The value itself, of one that a rule sets.
    value: Option<Vec<u8>>,
}

/// How values are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Dev,
    Mark,
    Nfproto,
    Proto,
    Port,
    Ip(IpVersion),
    CtState,
    CtStatus,
    TcpFlags,
    AddrType,
    /// A number in the host's byte order.
    Number,
    /// In the network's.
    Bytes,
    /// The text is the value.
    Value,
}

impl Reader {
    fn say(&mut self, text: String) {
        self.words.push(Word { text, implied_by: None, from: None });
    }

    fn load(&mut self, register: u32, text: String, kind: ValueKind, length: u32) {
        let words = length.div_ceil(4).max(1);
        self.loads.insert(place(register), Load { text, kind, words, mask: None, value: None });
    }

    /// Reads one expression; none if it is not one that is known here.
    fn read(&mut self, name: &str, data: &Expressions) -> Option<()> {
        match data {
            Expressions::Meta(attributes) => self.meta(attributes),
            Expressions::Payload(attributes) => self.payload(attributes),
            Expressions::Cmp(attributes) => self.cmp(attributes),
            Expressions::Bitwise(attributes) => self.bitwise(attributes),
            Expressions::Lookup(attributes) => self.lookup(attributes),
            Expressions::Immediate(attributes) => self.immediate(attributes),
            Expressions::Other { attributes, .. } => self.other(name, attributes),
            _ => self.other(name, &[]),
        }
    }

    fn meta(&mut self, attributes: &[Meta]) -> Option<()> {
        let key = attributes.iter().find_map(|a| if let Meta::Key(key) = a { Some(*key) } else { None })?;
        let (text, kind, length) = match key {
            MetaKey::Iifname => ("iifname", ValueKind::Dev, 16),
            MetaKey::Oifname => ("oifname", ValueKind::Dev, 16),
            MetaKey::Iif => ("iif", ValueKind::Number, 4),
            MetaKey::Oif => ("oif", ValueKind::Number, 4),
            MetaKey::Mark => ("meta mark", ValueKind::Mark, 4),
            MetaKey::Nfproto => ("meta nfproto", ValueKind::Nfproto, 1),
            MetaKey::L4Proto => ("meta l4proto", ValueKind::Proto, 1),
            _ => return None,
        };
        for attribute in attributes {
            match attribute {
                Meta::DestinationRegister(register) => self.load((*register).into(), text.into(), kind, length),
                Meta::SourceRegister(register) => {
                    let load = self.take((*register).into())?;
                    let value =
                        load.value.filter(|_| kind == ValueKind::Mark).map(|bytes| write_value(kind, &bytes, None));
                    self.say(format!("{text} set {}", value.unwrap_or(load.text)));
                }
                _ => {}
            }
        }
        Some(())
    }

    fn payload(&mut self, attributes: &[Payload]) -> Option<()> {
        let (mut register, mut base, mut offset, mut length) = (None, 0, 0, 0);
        for attribute in attributes {
            match attribute {
                Payload::DestinationRegister(to) => register = Some(u32::from(*to)),
                Payload::Base(number) => base = *number,
                Payload::Offset(number) => offset = *number,
                Payload::Len(number) => length = *number,
                _ => {}
            }
        }
        let register = register?;
        let (text, kind) = match base {
            1 => self.network_field(offset, length),
            2 => self.transport_field(offset, length),
            _ => None,
        }
        .unwrap_or_else(|| {
            (
                format!(
                    "@{},{},{}",
                    ["ll", "nh", "th", "ih"].get(base as usize).unwrap_or(&"?"),
                    offset * 8,
                    length * 8
                ),
                ValueKind::Bytes,
            )
        });
        self.load(register, text, kind, length);
        Some(())
    }

    fn network_field(&mut self, offset: u32, length: u32) -> Option<(String, ValueKind)> {
        let version = match (self.family, self.version) {
            (Family::Ip, _) | (_, Some(IpVersion::V4)) => IpVersion::V4,
            (Family::Ip6, _) | (_, Some(IpVersion::V6)) => IpVersion::V6,
            _ => return None,
        };
        let (field, kind) = match (version, offset, length) {
            (IpVersion::V4, 12, 1..=4) | (IpVersion::V6, 8, 1..=16) => ("saddr", ValueKind::Ip(version)),
            (IpVersion::V4, 16, 1..=4) | (IpVersion::V6, 24, 1..=16) => ("daddr", ValueKind::Ip(version)),
            (IpVersion::V4, 9, 1) => ("protocol", ValueKind::Proto),
            (IpVersion::V6, 6, 1) => ("nexthdr", ValueKind::Proto),
            _ => return None,
        };
        self.leave_out(Header::Network);
        Some((format!("{} {field}", version.word()), kind))
    }

    fn transport_field(&mut self, offset: u32, length: u32) -> Option<(String, ValueKind)> {
        let header = self.proto.and_then(L4Proto::header_with_ports);
        let (field, kind) = match (offset, length) {
            (0, 2) => ("sport", ValueKind::Port),
            (2, 2) => ("dport", ValueKind::Port),
            (expr::TCP_FLAGS, 1) if header == Some("tcp") => ("flags", ValueKind::TcpFlags),
            _ => return None,
        };
        if header.is_some() {
            self.leave_out(Header::Transport);
        }
        Some((format!("{} {field}", header.unwrap_or("th")), kind))
    }

    fn leave_out(&mut self, header: Header) {
        self.words.retain(|word| word.implied_by != Some(header));
    }

    /// Takes what a register holds; what has only been loaded is not used again.
    fn take(&mut self, register: u32) -> Option<Load> {
        self.loads.remove(&place(register))
    }

    fn cmp(&mut self, attributes: &[Cmp]) -> Option<()> {
        let (mut register, mut operator, mut value) = (None, None, None);
        for attribute in attributes {
            match attribute {
                Cmp::SourceRegister(from) => register = Some(u32::from(*from)),
                Cmp::Op(wanted) => operator = Some(*wanted),
                Cmp::Data(DataAttribute::Value(bytes)) => value = Some(bytes),
                _ => {}
            }
        }
        let (operator, value) = (operator?, value?);
        // Not taken: both ends of a range are compared with the same register.
        let load = self.loads.get(&place(register?))?.clone();
        let bits =
            matches!(load.kind, ValueKind::CtState | ValueKind::CtStatus).then_some(load.mask.as_deref()).flatten();
        if let Some(mask) = bits.filter(|_| value.iter().all(|byte| *byte == 0)) {
            let bits = bit_words(load.kind, mask);
            self.say(format!("{} {}{bits}", load.text, unless(operator == Operator::Equal)));
            return Some(());
        }
        if operator == Operator::Equal && load.mask.is_none() {
            match load.kind {
                ValueKind::Nfproto => {
                    self.version = value.first().and_then(|number| {
                        [IpVersion::V4, IpVersion::V6].into_iter().find(|version| version.number() == *number)
                    });
                }
                ValueKind::Proto => self.proto = value.first().map(|number| L4Proto::from(*number)),
                _ => {}
            }
        }
        let written = write_value(load.kind, value, load.mask.as_deref());
        if operator == Operator::LessThanEqual
            && let Some(word) = self.words.last_mut()
            && let Some((text, from)) = word.from.take_if(|(text, _)| *text == load.text)
        {
            word.text = format!("{text} {from}-{written}");
            return Some(());
        }
        let implied_by = match (load.kind, operator) {
            (ValueKind::Nfproto, Operator::Equal) => Some(Header::Network),
            (ValueKind::Proto, Operator::Equal) if load.text == "meta l4proto" => Some(Header::Transport),
            _ => None,
        };
        let from = (operator == Operator::GreatherThanEqual).then(|| (load.text.clone(), written.clone()));
        if let (Some(mask), ValueKind::TcpFlags, Operator::Equal) = (&load.mask, load.kind, operator) {
            self.say(format!("{} {written} / {}", load.text, write_value(load.kind, mask, None)));
            return Some(());
        }
        let masked = match (&load.mask, load.kind) {
            (Some(mask), kind) if !matches!(kind, ValueKind::Ip(_)) => format!(" & {}", write_value(kind, mask, None)),
            _ => String::new(),
        };
        let sign = match operator {
            Operator::Equal if masked.is_empty() => "",
            Operator::Equal => "== ",
            Operator::NotEqual => "!= ",
            Operator::LessThan => "< ",
            Operator::LessThanEqual => "<= ",
            Operator::GreaterThan => "> ",
            Operator::GreatherThanEqual => ">= ",
            _ => return None,
        };
        self.words.push(Word { text: format!("{}{masked} {sign}{written}", load.text), implied_by, from });
        Some(())
    }

    fn bitwise(&mut self, attributes: &[Bitwise]) -> Option<()> {
        let (mut from, mut to, mut mask, mut xor) = (None, None, None, None);
        for attribute in attributes {
            match attribute {
                Bitwise::SourceRegister(register) => from = Some(u32::from(*register)),
                Bitwise::DestinationRegister(register) => to = Some(u32::from(*register)),
                Bitwise::Mask(DataAttribute::Value(bytes)) => mask = Some(bytes.clone()),
                Bitwise::Xor(DataAttribute::Value(bytes)) => xor = Some(bytes.clone()),
                _ => {}
            }
        }
        let (mask, xor) = (mask?, xor?);
        let mut load = self.take(from?)?;
        let value = |bytes: &[u8]| write_value(load.kind, bytes, None);
        let inverse: Vec<u8> = mask.iter().map(|byte| !byte).collect();
        if xor.iter().all(|byte| *byte == 0) {
            load.mask = Some(mask);
        } else if inverse == xor {
            load.text = format!("{} | {}", load.text, value(&xor));
        } else {
            load.text = format!("{} & {} ^ {}", load.text, value(&mask), value(&xor));
        }
        self.loads.insert(place(to?), load);
        Some(())
    }

    fn lookup(&mut self, attributes: &[Lookup]) -> Option<()> {
        let (mut set, mut from, mut to, mut not) = (None, None, None, false);
        for attribute in attributes {
            match attribute {
                Lookup::Set(name) => set = Some(name.clone()),
                Lookup::SourceRegister(register) => from = Some(u32::from(*register)),
                Lookup::DestinationRegister(register) => to = Some(u32::from(*register)),
                Lookup::Flags(flags) => not = flags & 1 != 0,
                _ => {}
            }
        }
        // A key of several fields is one load behind the other.
        let (mut next, mut fields) = (place(from?), Vec::new());
        while let Some(load) = self.loads.remove(&next) {
            next += load.words;
            fields.push(load.text);
        }
        let (key, set) = (fields.join(" . "), set?);
        match to {
            Some(0) => self.say(format!("{key} vmap @{set}")),
            Some(register) => self.load(register, format!("{key} map @{set}"), ValueKind::Value, 4),
            None => self.say(format!("{key} {}@{set}", unless(not))),
        }
        Some(())
    }

    fn immediate(&mut self, attributes: &[Immediate]) -> Option<()> {
        let register = attributes.iter().find_map(|attribute| match attribute {
            Immediate::DestinationRegister(register) => Some(*register),
            _ => None,
        });
        for attribute in attributes {
            match attribute {
                Immediate::Data(DataAttribute::Verdict(attributes)) => self.say(verdict(attributes)),
                Immediate::Data(DataAttribute::Value(bytes)) => {
                    let text = match bytes.len() {
                        2 => write_value(ValueKind::Port, bytes, None),
                        4 => Ipv4Addr::from_bits(u32::from_be_bytes(*bytes.first_chunk()?)).to_string(),
                        16 => write_value(ValueKind::Ip(IpVersion::V6), bytes, None),
                        _ => hex(bytes),
                    };
                    let register = register.map_or(0, Register::into);
                    self.load(register, text, ValueKind::Value, bytes.len() as u32);
                    self.loads.entry(place(register)).and_modify(|load| load.value = Some(bytes.clone()));
                }
                _ => {}
            }
        }
        Some(())
    }

    fn other(&mut self, name: &str, attributes: &[DefaultNla]) -> Option<()> {
        match name {
            "ct" => {
                let (text, kind) = match number(attributes, expr::NFTA_CT_KEY)? {
                    expr::CT_STATE => ("ct state", ValueKind::CtState),
                    expr::CT_STATUS => ("ct status", ValueKind::CtStatus),
                    3 => ("ct mark", ValueKind::Mark),
                    _ => return None,
                };
                self.load(number(attributes, expr::NFTA_CT_DREG)?, text.into(), kind, 4);
            }
            "fib" => self.fib(attributes)?,
            "counter" => {
                let count = |kind| bytes(attributes, kind)?.first_chunk().map(|count| u64::from_be_bytes(*count));
                self.counter = Some(Counter { packets: count(2).unwrap_or(0), bytes: count(1).unwrap_or(0) });
                self.say("counter".into());
            }
            "reject" => self.reject(attributes)?,
            "masq" => self.say("masquerade".into()),
            "redir" => self.say("redirect".into()),
            "nat" => self.nat(attributes)?,
            // Of what a route says, the largest segment alone is known; its bytes are turned before it is written.
            "rt" if number(attributes, 2) == Some(3) => {
                self.load(number(attributes, 1)?, "rt mtu".into(), ValueKind::Value, 2);
            }
            "byteorder" => {}
            "exthdr" if bytes(attributes, expr::NFTA_EXTHDR_TYPE)? == [expr::OPTION_MAXSEG] => {
                let value = self.take(number(attributes, expr::NFTA_EXTHDR_SREG)?)?.text;
                self.say(format!("tcp option maxseg size set {value}"));
            }
            "notrack" => self.say("notrack".into()),
            "match" | "target" => {
                let xt = self::name(&bytes(attributes, expr::NFTA_MATCH_NAME)?);
                self.say(format!("[xt {name} {xt}]"));
            }
            _ => return None,
        }
        Some(())
    }

    fn fib(&mut self, attributes: &[DefaultNla]) -> Option<()> {
        const FLAGS: [&str; 5] = ["saddr", "daddr", "mark", "iif", "oif"];
        let flags = number(attributes, expr::NFTA_FIB_FLAGS)?;
        let asked: Vec<&str> =
            FLAGS.iter().enumerate().filter(|(at, _)| flags & 1 << at != 0).map(|(_, word)| *word).collect();
        let (result, kind) = match number(attributes, expr::NFTA_FIB_RESULT)? {
            expr::FIB_OIF => ("oif", ValueKind::Number),
            2 => ("oifname", ValueKind::Dev),
            expr::FIB_TYPE => ("type", ValueKind::AddrType),
            _ => return None,
        };
        let text = format!("fib {} {result}", asked.join(" . "));
        self.load(number(attributes, expr::NFTA_FIB_DREG)?, text, kind, 4);
        Some(())
    }

    fn reject(&mut self, attributes: &[DefaultNla]) -> Option<()> {
        let code = bytes(attributes, expr::NFTA_REJECT_ICMP_CODE).and_then(|code| code.first().copied()).unwrap_or(0);
        let v6 = self.family == Family::Ip6 || self.version == Some(IpVersion::V6);
        let text = match (number(attributes, expr::NFTA_REJECT_TYPE)?, v6, code) {
            (0, false, 3) | (0, true, 4) if self.family != Family::Inet => "reject".into(),
            (2, _, 1) => "reject".into(),
            (0, false, 3) => "reject with icmp port-unreachable".into(),
            (0, true, 4) => "reject with icmpv6 port-unreachable".into(),
            (0, false, 13) => "reject with icmp admin-prohibited".into(),
            (0, true, 1) => "reject with icmpv6 admin-prohibited".into(),
            (2, _, 3) => "reject with icmpx admin-prohibited".into(),
            (1, ..) => "reject with tcp reset".into(),
            (2, ..) => format!("reject with icmpx {code}"),
            (_, true, _) => format!("reject with icmpv6 {code}"),
            (_, false, _) => format!("reject with icmp {code}"),
        };
        self.say(text);
        Some(())
    }

    fn nat(&mut self, attributes: &[DefaultNla]) -> Option<()> {
        let word = match number(attributes, expr::NFTA_NAT_TYPE)? {
            expr::NAT_SNAT => "snat",
            expr::NAT_DNAT => "dnat",
            _ => return None,
        };
        let version = match number(attributes, expr::NFTA_NAT_FAMILY)? as u8 {
            number if number == IpVersion::V4.number() => "ip ",
            _ => "ip6 ",
        };
        let version = if matches!(self.family, Family::Ip | Family::Ip6) { "" } else { version };
        let address = number(attributes, expr::NFTA_NAT_REG_ADDR_MIN).and_then(|register| self.take(register));
        let port = number(attributes, expr::NFTA_NAT_REG_PROTO_MIN).and_then(|register| self.take(register));
        let address = address.map(|load| load.text).unwrap_or_default();
        let port = port.map(|load| format!(":{}", load.text)).unwrap_or_default();
        self.say(format!("{word} {version}to {address}{port}"));
        Some(())
    }
}

/// Returns the 32-bit register that a register begins with; the old ones are four of them each, from 1 on.
fn place(register: u32) -> u32 {
    match register {
        1..=4 => 4 + register * 4,
        other => other,
    }
}

/// Writes what a rule or a map decides.
pub(super) fn verdict(attributes: &[VerdictAttribute]) -> String {
    let (mut word, mut chain) = (String::new(), String::new());
    for attribute in attributes {
        match attribute {
            VerdictAttribute::Chain(name) => chain = format!(" {name}"),
            VerdictAttribute::Code(code) => {
                word = match *code {
                    expr::DROP => "drop".into(),
                    expr::ACCEPT => "accept".into(),
                    Verdict::Jump => "jump".into(),
                    Verdict::Goto => "goto".into(),
                    Verdict::Return => "return".into(),
                    Verdict::Continue => "continue".into(),
                    other => format!("[verdict {}]", u32::from(other)),
                }
            }
            _ => {}
        }
    }
    format!("{word}{chain}")
}

fn bit_words(kind: ValueKind, mask: &[u8]) -> String {
    let bits = host_order(mask);
    if kind == ValueKind::CtStatus {
        return if bits == expr::STATUS_DNAT { "dnat".into() } else { format!("{bits:#x}") };
    }
    let states = CtState::ALL.iter().filter(|state| bits & state.bit() != 0).map(|state| state.word());
    let untracked = (bits & 64 != 0).then_some("untracked");
    states.chain(untracked).collect::<Vec<_>>().join(",")
}

fn host_order(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |number| u32::from_ne_bytes(*number))
}

fn write_value(kind: ValueKind, value: &[u8], mask: Option<&[u8]>) -> String {
    match kind {
        ValueKind::Dev if value.len() < 16 => format!("\"{}*\"", name(value)),
        ValueKind::Dev => format!("\"{}\"", name(value)),
        ValueKind::Mark => format!("{:#010x}", host_order(value)),
        ValueKind::Number => host_order(value).to_string(),
        ValueKind::Nfproto => match value.first() {
            Some(2) => "ipv4".into(),
            Some(10) => "ipv6".into(),
            _ => hex(value),
        },
        ValueKind::Proto => value.first().map_or_else(String::new, |number| L4Proto::from(*number).to_string()),
        ValueKind::Port => value.first_chunk().map_or_else(|| hex(value), |port| u16::from_be_bytes(*port).to_string()),
        ValueKind::AddrType => match host_order(value) as u8 {
            libc::RTN_UNICAST => "unicast".into(),
            libc::RTN_LOCAL => "local".into(),
            libc::RTN_BROADCAST => "broadcast".into(),
            other => other.to_string(),
        },
        ValueKind::Ip(version) => write_network(version, value, mask).unwrap_or_else(|| hex(value)),
        ValueKind::CtState | ValueKind::CtStatus => bit_words(kind, value),
        ValueKind::TcpFlags => {
            let set = |(_, bit): &(&str, u8)| value.first().is_some_and(|byte| byte & bit != 0);
            let words: Vec<&str> = TCP_FLAGS.into_iter().filter(set).map(|(word, _)| word).collect();
            words.join(",")
        }
        ValueKind::Bytes | ValueKind::Value => hex(value),
    }
}

/// The flags of TCP in the order in which `nft` writes them (RFC 9293, 3.1).
const TCP_FLAGS: [(&str, u8); 8] =
    [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ecn", 64), ("cwr", 128)];

/// Writes an address: with a mask a network, and also if only its first bytes are looked at.
fn write_network(version: IpVersion, value: &[u8], mask: Option<&[u8]>) -> Option<String> {
    let whole = if version == IpVersion::V4 { 4 } else { 16 };
    let mut bytes = value.to_vec();
    bytes.resize(whole, 0);
    let ip = match version {
        IpVersion::V4 => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        IpVersion::V6 => IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
    };
    let prefix = match mask {
        Some(mask) => {
            let ones = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
            let first =
                mask.iter().flat_map(|byte| (0..8).map(move |bit| byte << bit & 0x80)).take_while(|bit| *bit != 0);
            (first.count() == ones as usize).then_some(ones)?
        }
        None => value.len() as u32 * 8,
    };
    Some(network(&IpNetwork::new(ip, prefix as u8).ok()?))
}

/// Returns bytes up to the first NUL as text.
pub(super) fn name(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Writes bytes as a number.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}
