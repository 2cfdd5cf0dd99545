//! The expressions that rules are made of, one function each: small machines that load, change and compare registers
//! (linux/netfilter/nf_tables.h).

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey,
    Operator, Payload, Register, Verdict, VerdictAttribute,
};

/// One expression of a rule.
pub(super) type Expr = ListAttribute<ExpressionAttribute>;

/// The register that nearly everything uses. As a pair, four and so on of 32-bit registers it begins with the first.
pub(super) const REG: Register = Register::Reg1;

/// Returns the 32-bit register that is `words` behind the first.
pub(super) fn register(words: u32) -> Register {
    /// NFT_REG32_00.
    const FIRST: u32 = 8;
    Register::from(FIRST + words)
}

/// Loads something about the packet.
pub(super) fn meta(key: MetaKey) -> Expr {
    meta_into(key, REG)
}

pub(super) fn meta_into(key: MetaKey, register: Register) -> Expr {
    Expressions::Meta(vec![Meta::DestinationRegister(register), Meta::Key(key)]).into()
}

/// Sets something about the packet.
pub(super) fn set_meta(key: MetaKey) -> Expr {
    Expressions::Meta(vec![Meta::Key(key), Meta::SourceRegister(REG)]).into()
}

/// Which header bytes are counted from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Network = 1,
    Transport = 2,
}

/// Loads bytes of a header.
pub(super) fn payload(header: Header, offset: u32, length: u32, register: Register) -> Expr {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register),
        Payload::Base(header as u32),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
    .into()
}

/// Goes on if the register compares.
pub(super) fn cmp(operator: Operator, value: &[u8]) -> Expr {
    let data = Cmp::Data(DataAttribute::Value(value.to_vec()));
    Expressions::Cmp(vec![Cmp::SourceRegister(REG), Cmp::Op(operator), data]).into()
}

/// Goes on if the register is equal, or if it is not.
pub(super) fn cmp_not(not: bool, value: &[u8]) -> Expr {
    cmp(if not { Operator::NotEqual } else { Operator::Equal }, value)
}

/// Keeps the bits of `mask`, then turns those of `xor`.
pub(super) fn bitwise(mask: &[u8], xor: &[u8]) -> Expr {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(REG),
        Bitwise::DestinationRegister(REG),
        Bitwise::Length(mask.len() as u32),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(xor.to_vec())),
    ])
    .into()
}

/// Loads a value.
pub(super) fn immediate(value: Vec<u8>) -> Expr {
    let data = Immediate::Data(DataAttribute::Value(value));
    Expressions::Immediate(vec![Immediate::DestinationRegister(REG), data]).into()
}

/// Goes on if a set has the register.
pub(super) fn lookup_set(set: &str, number: Option<u32>) -> Expr {
    let mut attributes = vec![Lookup::Set(set.to_string()), Lookup::SourceRegister(REG)];
    attributes.extend(number.map(Lookup::SetId));
    Expressions::Lookup(attributes).into()
}

/// Loads what a map has for the register, or gives the rule up. The number tells it from others in its transaction.
pub(super) fn lookup_map(map: &str, number: Option<u32>) -> Expr {
    let mut attributes =
        vec![Lookup::Set(map.to_string()), Lookup::SourceRegister(REG), Lookup::DestinationRegister(REG)];
    attributes.extend(number.map(Lookup::SetId));
    Expressions::Lookup(attributes).into()
}

/// NF_DROP of linux/netfilter.h.
pub(super) const DROP: Verdict = Verdict::Other(0);
/// NF_ACCEPT of linux/netfilter.h.
pub(super) const ACCEPT: Verdict = Verdict::Other(1);

/// Decides on the packet.
pub(super) fn verdict(code: Verdict, chain: Option<&str>) -> Expr {
    let mut attributes = vec![VerdictAttribute::Code(code)];
    attributes.extend(chain.map(|chain| VerdictAttribute::Chain(chain.to_string())));
    let data = Immediate::Data(DataAttribute::Verdict(attributes));
    Expressions::Immediate(vec![Immediate::DestinationRegister(Register::Verdict), data]).into()
}

/// An expression that the packet crate has no type for.
pub(super) fn other(name: &str, attributes: Vec<(u16, Vec<u8>)>) -> Expr {
    let attributes = attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value)).collect();
    Expressions::Other { expression_type: name.to_string(), attributes }.into()
}

/// Returns a number as most attributes have it.
pub(super) fn be(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Counts packets.
pub(super) fn counter() -> Expr {
    const NFTA_COUNTER_BYTES: u16 = 1;
    const NFTA_COUNTER_PACKETS: u16 = 2;
    other("counter", vec![(NFTA_COUNTER_BYTES, vec![0; 8]), (NFTA_COUNTER_PACKETS, vec![0; 8])])
}

/// `ct` keys (`enum nft_ct_keys`).
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;

/// IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
pub(super) const STATUS_DNAT: u32 = 1 << 5;

pub(super) const NFTA_CT_DREG: u16 = 1;
pub(super) const NFTA_CT_KEY: u16 = 2;

/// Goes on if one of the bits of something about the connection is set.
pub(super) fn ct_has_one_of(key: u32, bits: u32) -> [Expr; 3] {
    let load = other("ct", vec![(NFTA_CT_DREG, be(REG.into())), (NFTA_CT_KEY, be(key))]);
    [load, bitwise(&bits.to_ne_bytes(), &[0; 4]), cmp(Operator::NotEqual, &[0; 4])]
}

pub(super) const NFTA_FIB_DREG: u16 = 1;
pub(super) const NFTA_FIB_RESULT: u16 = 2;
pub(super) const NFTA_FIB_FLAGS: u16 = 3;
/// `enum nft_fib_flags`.
pub(super) const FIB_DADDR: u32 = 2;
pub(super) const FIB_IIF: u32 = 8;
/// `enum nft_fib_result`.
pub(super) const FIB_OIF: u32 = 1;
pub(super) const FIB_TYPE: u32 = 3;

/// Loads what the routing table says.
pub(super) fn fib(flags: u32, result: u32) -> Expr {
    other("fib", vec![(NFTA_FIB_DREG, be(REG.into())), (NFTA_FIB_RESULT, be(result)), (NFTA_FIB_FLAGS, be(flags))])
}

pub(super) const NFTA_NAT_TYPE: u16 = 1;
pub(super) const NFTA_NAT_FAMILY: u16 = 2;
pub(super) const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
pub(super) const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
/// `enum nft_nat_types`.
pub(super) const NAT_SNAT: u32 = 0;
pub(super) const NAT_DNAT: u32 = 1;

/// Translates to the address in the first register, and to the port in `port`.
pub(super) fn nat(kind: u32, family: u8, port: Option<Register>) -> Expr {
    let mut attributes =
        vec![(NFTA_NAT_TYPE, be(kind)), (NFTA_NAT_FAMILY, be(family.into())), (NFTA_NAT_REG_ADDR_MIN, be(REG.into()))];
    attributes.extend(port.map(|port| (NFTA_NAT_REG_PROTO_MIN, be(port.into()))));
    other("nat", attributes)
}

/// Where a TCP header has its flags, and two of them (RFC 9293, 3.1).
pub(super) const TCP_FLAGS: u32 = 13;
pub(super) const TCP_SYN: u8 = 2;
pub(super) const TCP_RST: u8 = 4;

pub(super) const NFTA_EXTHDR_TYPE: u16 = 2;
pub(super) const NFTA_EXTHDR_SREG: u16 = 7;
/// The TCP option of the largest segment (RFC 9293, 3.2).
pub(super) const OPTION_MAXSEG: u8 = 2;

/// Sets the largest segment that a TCP option announces to the register, unless it is less already (nft_exthdr_tcp_set_eval()).
pub(super) fn set_max_segment() -> Expr {
    const NFTA_EXTHDR_OFFSET: u16 = 3;
    const NFTA_EXTHDR_LEN: u16 = 4;
    const NFTA_EXTHDR_OP: u16 = 6;
    const TCPOPT: u32 = 1;
    other(
        "exthdr",
        vec![
            (NFTA_EXTHDR_SREG, be(REG.into())),
            (NFTA_EXTHDR_TYPE, vec![OPTION_MAXSEG]),
            (NFTA_EXTHDR_OFFSET, be(2)),
            (NFTA_EXTHDR_LEN, be(2)),
            (NFTA_EXTHDR_OP, be(TCPOPT)),
        ],
    )
}

/// Loads the largest segment that fits the MTU of the packet's route and of the way back, in the network's byte order.
pub(super) fn path_max_segment() -> [Expr; 2] {
    const NFTA_RT_DREG: u16 = 1;
    const NFTA_RT_KEY: u16 = 2;
    const NFT_RT_TCPMSS: u32 = 3;
    let load = other("rt", vec![(NFTA_RT_DREG, be(REG.into())), (NFTA_RT_KEY, be(NFT_RT_TCPMSS))]);
    // `enum nft_byteorder_attributes`: source, destination, NFT_BYTEORDER_HTON, bytes, bytes of each number.
    let turn = [REG.into(), REG.into(), 1, 2, 2].into_iter().zip(1..).map(|(value, kind)| (kind, be(value)));
    [load, other("byteorder", turn.collect())]
}

pub(super) const NFTA_REJECT_TYPE: u16 = 1;
pub(super) const NFTA_REJECT_ICMP_CODE: u16 = 2;

/// Drops the packet and tells its sender (`enum nft_reject_types`).
pub(super) fn reject(kind: u32, code: u8) -> Expr {
    other("reject", vec![(NFTA_REJECT_TYPE, be(kind)), (NFTA_REJECT_ICMP_CODE, vec![code])])
}

pub(super) const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_REV: u16 = 2;
pub(super) const NFTA_MATCH_INFO: u16 = 3;

/// A match of iptables' (linux/netfilter/nf_tables_compat.h).
pub(super) fn xt_match(name: &str, revision: u32, info: Vec<u8>) -> Expr {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    other("match", vec![(NFTA_MATCH_NAME, text), (NFTA_MATCH_REV, be(revision)), (NFTA_MATCH_INFO, info)])
}
