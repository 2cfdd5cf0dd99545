//! A rule in the kernel's form. The expressions are those that `nft --debug=netlink` shows for the same text, so that
//! `nft` writes the rule back as that text.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_netfilter::nftables::{MetaKey, Operator, Verdict};

use super::expr::{self, Expr, Header, REG};
use super::rule::{Action, CtState, DnatKey, L4Proto, Match, PortRange, Rule};
use super::{Family, IpVersion, wrong_dev, wrong_name};

/// Where IP headers have the source and the destination: from byte, how many.
const ADDRESSES: [(IpVersion, [u32; 2], u32); 2] = [(IpVersion::V4, [12, 16], 4), (IpVersion::V6, [8, 24], 16)];

/// The kernel's name of the loaded device has IFNAMSIZ bytes, filled up with NUL.
const DEV_BYTES: usize = 16;

/// Writes a rule for a table of `family`; `set_number` gives the numbers of the sets that the same transaction makes.
/// Fails with a text that says what is wrong with the rule.
pub(super) fn rule(
    family: Family,
    rule: &Rule,
    set_number: &dyn Fn(&str) -> Option<u32>,
) -> std::result::Result<Vec<Expr>, String> {
    let mut writer = Writer { family, l4_proto: rule.l4_proto(), version: None, exprs: Vec::new() };
    for wanted in rule.in_order() {
        writer.wanted(wanted, set_number)?;
    }
    if rule.counter {
        writer.exprs.push(expr::counter());
    }
    writer.action(&rule.action, set_number)?;
    Ok(writer.exprs)
}

struct Writer {
    family: Family,
    l4_proto: Option<L4Proto>,
    /// The version of IP that packets have here, once it was looked at.
    version: Option<IpVersion>,
    exprs: Vec<Expr>,
}

impl Writer {
    fn wanted(&mut self, wanted: &Match, set_number: &dyn Fn(&str) -> Option<u32>) -> std::result::Result<(), String> {
        match wanted {
            Match::Nfproto(version) => self.nfproto(*version),
            Match::InDev { name, not } => self.dev(MetaKey::Iifname, name, *not)?,
            Match::OutDev { name, not } => self.dev(MetaKey::Oifname, name, *not)?,
            Match::InDevOf(set) => {
                self.exprs.extend([expr::meta(MetaKey::Iifname), expr::lookup_set(set, set_number(set))]);
            }
            Match::OutDevOf(set) => {
                self.exprs.extend([expr::meta(MetaKey::Oifname), expr::lookup_set(set, set_number(set))]);
            }
            Match::Src { net, not } => self.address(0, *net, *not)?,
            Match::Dst { net, not } => self.address(1, *net, *not)?,
            Match::L4Proto(proto) => {
                self.exprs.extend([expr::meta(MetaKey::L4Proto), expr::cmp(Operator::Equal, &[proto.number()])]);
            }
            Match::SrcPort(range) => self.port(0, *range)?,
            Match::DstPort(range) => self.port(2, *range)?,
            Match::CtState(states) => {
                if states.is_empty() {
                    return Err("no state of a connection is named".into());
                }
                let bits = states.iter().fold(0, |bits, state: &CtState| bits | state.bit());
                self.exprs.extend(expr::ct_has_one_of(expr::CT_STATE, bits));
            }
            Match::CtStatusDnat => self.exprs.extend(expr::ct_has_one_of(expr::CT_STATUS, expr::STATUS_DNAT)),
            Match::DaddrLocal => {
                // In the host's byte order, unlike nearly all else (nft_fib4_eval_type()).
                let local = u32::from(libc::RTN_LOCAL).to_ne_bytes();
                self.exprs.extend([expr::fib(expr::FIB_DADDR, expr::FIB_TYPE), expr::cmp(Operator::Equal, &local)]);
            }
            Match::DaddrReachedByIn => {
                let load = expr::fib(expr::FIB_DADDR | expr::FIB_IIF, expr::FIB_OIF);
                self.exprs.extend([load, expr::cmp(Operator::NotEqual, &[0; 4])]);
            }
            Match::TcpSyn => {
                if self.l4_proto != Some(L4Proto::Tcp) {
                    return Err("only TCP has a SYN".into());
                }
                let flags = expr::payload(Header::Transport, expr::TCP_FLAGS, 1, REG);
                let keep = expr::bitwise(&[expr::TCP_SYN | expr::TCP_RST], &[0]);
                self.exprs.extend([flags, keep, expr::cmp(Operator::Equal, &[expr::TCP_SYN])]);
            }
            Match::MarkBits(bits) => {
                let bits = bits.to_ne_bytes();
                let keep = expr::bitwise(&bits, &[0; 4]);
                self.exprs.extend([expr::meta(MetaKey::Mark), keep, expr::cmp(Operator::Equal, &bits)]);
            }
        }
        Ok(())
    }

    fn nfproto(&mut self, version: IpVersion) {
        self.exprs.extend([expr::meta(MetaKey::Nfproto), expr::cmp(Operator::Equal, &[version.number()])]);
        self.version = Some(version);
    }

    /// Makes sure that packets here are of a version before their addresses are looked at.
    fn only(&mut self, version: IpVersion) -> std::result::Result<(), String> {
        let fits = match self.family {
            Family::Ip => version == IpVersion::V4,
            Family::Ip6 => version == IpVersion::V6,
            _ => {
                if self.version.is_none() {
                    self.nfproto(version);
                }
                self.version == Some(version)
            }
        };
        match (fits, version) {
            (true, _) => Ok(()),
            (false, IpVersion::V4) => Err("no IPv6 packet has an IPv4 address".into()),
            (false, IpVersion::V6) => Err("no IPv4 packet has an IPv6 address".into()),
        }
    }

    fn dev(&mut self, key: MetaKey, name: &str, not: bool) -> std::result::Result<(), String> {
        if let Some(wrong) = wrong_dev(name) {
            return Err(wrong);
        }
        self.exprs.extend([expr::meta(key), expr::cmp_not(not, &dev_bytes(name))]);
        Ok(())
    }

    /// Compares the source (0) or the destination (1).
    fn address(&mut self, which: usize, net: IpNetwork, not: bool) -> std::result::Result<(), String> {
        let version = IpVersion::of(net.ip());
        self.only(version)?;
        self.exprs.push(load_address(which, version, REG));
        let (network, mask) = (address_bytes(net.network()), address_bytes(net.mask()));
        if mask.iter().any(|byte| *byte != 0xff) {
            self.exprs.push(expr::bitwise(&mask, &vec![0; mask.len()]));
        }
        self.exprs.push(expr::cmp_not(not, &network));
        Ok(())
    }

    /// Compares the port that the transport header has at a byte.
    fn port(&mut self, offset: u32, range: PortRange) -> std::result::Result<(), String> {
        if let Some(proto) = self.l4_proto.filter(|proto| proto.header_with_ports().is_none()) {
            return Err(format!("protocol {proto} has no ports"));
        }
        if range.from > range.to {
            return Err(format!("ports {range} are the wrong way round"));
        }
        self.exprs.push(expr::payload(Header::Transport, offset, 2, REG));
        match range.from == range.to {
            true => self.exprs.push(expr::cmp(Operator::Equal, &range.from.to_be_bytes())),
            false => self.exprs.extend([
                expr::cmp(Operator::GreatherThanEqual, &range.from.to_be_bytes()),
                expr::cmp(Operator::LessThanEqual, &range.to.to_be_bytes()),
            ]),
        }
        Ok(())
    }

    fn action(&mut self, action: &Action, set_number: &dyn Fn(&str) -> Option<u32>) -> std::result::Result<(), String> {
        match action {
            Action::Accept => self.exprs.push(expr::verdict(expr::ACCEPT, None)),
            Action::Drop => self.exprs.push(expr::verdict(expr::DROP, None)),
            Action::Return => self.exprs.push(expr::verdict(Verdict::Return, None)),
            Action::Jump(chain) => {
                if let Some(wrong) = wrong_name("chain", chain) {
                    return Err(wrong);
                }
                self.exprs.push(expr::verdict(Verdict::Jump, Some(chain)));
            }
            // "Port unreachable": of ICMP, of ICMPv6, and the number that stands for whichever it is.
            Action::Reject => self.exprs.push(match self.family {
                Family::Ip => expr::reject(0, 3),
                Family::Ip6 => expr::reject(0, 4),
                _ => expr::reject(2, 1),
            }),
            Action::Masquerade => self.exprs.push(expr::other("masq", Vec::new())),
            Action::Snat { to } => {
                let family = IpVersion::of(*to).number();
                self.exprs.extend([expr::immediate(address_bytes(*to)), expr::nat(expr::NAT_SNAT, family, None)]);
            }
            Action::SetMarkBits(bits) => {
                let or = expr::bitwise(&(!bits).to_ne_bytes(), &bits.to_ne_bytes());
                self.exprs.extend([expr::meta(MetaKey::Mark), or, expr::set_meta(MetaKey::Mark)]);
            }
            Action::SetMark(mark) => {
                self.exprs.extend([expr::immediate(mark.to_ne_bytes().to_vec()), expr::set_meta(MetaKey::Mark)]);
            }
            Action::ClampMss(Some(bytes)) => {
                self.exprs.extend([expr::immediate(bytes.to_be_bytes().to_vec()), expr::set_max_segment()]);
            }
            Action::ClampMss(None) => {
                self.exprs.extend(expr::path_max_segment());
                self.exprs.push(expr::set_max_segment());
            }
            Action::DnatByMap { family, key, map } => self.dnat_by_map(*family, *key, map, set_number(map))?,
        }
        Ok(())
    }

    fn dnat_by_map(
        &mut self,
        version: IpVersion,
        key: DnatKey,
        map: &str,
        number: Option<u32>,
    ) -> std::result::Result<(), String> {
        if let Some(wrong) = wrong_name("map", map) {
            return Err(wrong);
        }
        if key == DnatKey::ProtoAddrPort {
            self.only(version)?;
        }
        // The fields of the key stand side by side, each from a 32-bit register on; so do those of the data.
        let words = match version {
            IpVersion::V4 => 1,
            IpVersion::V6 => 4,
        };
        self.exprs.push(expr::meta_into(MetaKey::L4Proto, expr::register(0)));
        let mut next = 1;
        if key == DnatKey::ProtoAddrPort {
            self.exprs.push(load_address(1, version, expr::register(next)));
            next += words;
        }
        self.exprs.extend([
            expr::payload(Header::Transport, 2, 2, expr::register(next)),
            expr::lookup_map(map, number),
            expr::nat(expr::NAT_DNAT, version.number(), Some(expr::register(words))),
        ]);
        Ok(())
    }
}

fn load_address(which: usize, version: IpVersion, register: netlink_packet_netfilter::nftables::Register) -> Expr {
    let [v4, v6] = ADDRESSES;
    let (_, offsets, length) = if version == IpVersion::V4 { v4 } else { v6 };
    expr::payload(Header::Network, offsets[which], length, register)
}

/// Returns an address as it stands in a packet.
pub(super) fn address_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Returns a device's name as the kernel compares it. A name that is too long is cut.
pub(super) fn dev_bytes(name: &str) -> [u8; DEV_BYTES] {
    let mut bytes = [0; DEV_BYTES];
    for (to, from) in bytes.iter_mut().take(DEV_BYTES - 1).zip(name.bytes()) {
        *to = from;
    }
    bytes
}
