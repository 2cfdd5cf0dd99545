//! Published ports in the kernel: elements of maps in a lab's table, and the rules that look into them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::published;
use super::ruleset::{self, AddRules, FAMILY, LabTable, enter, in_netns};
use crate::lab::{Footprint, HAIRPIN_MARK, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net::nft::conntrack::Flow;
use crate::net::nft::{Action, Chain, ChainKind, DnatKey, Element, Field, Hook, IpVersion, Match, Rule, Set, Value};
use crate::net::nft::{L4Proto, PortRange};
use crate::net::{self, Netns, port};
use crate::prim::value::ports::{Ports, Proto};
use crate::state::store::Guard;
use crate::state::{Error, Key, Kind, NetnsRef, Result, as_refusal};

/// The chain that looks into the maps. A word of nft's own, such as `dnat`, is no name of a chain to it.
const PUBLISHED: &str = "published";

/// The maps of a table: what they are keyed by. A mapping at one address goes before one at all.
pub(super) const MAPS: [(&str, IpVersion, DnatKey); 4] = [
    ("v4_at", IpVersion::V4, DnatKey::ProtoAddrPort),
    ("v4", IpVersion::V4, DnatKey::ProtoPort),
    ("v6_at", IpVersion::V6, DnatKey::ProtoAddrPort),
    ("v6", IpVersion::V6, DnatKey::ProtoPort),
];

/// One published port, or a range of them. The journal has it as a text, which costs a fourth of a map: `8000-8009=10.0.0.2:80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Mapping {
    pub proto: L4Proto,
    pub ports: PortRange,
    /// The address at which it is published; all unless given.
    pub host_ip: Option<IpAddr>,
    pub to: IpAddr,
    /// The port that the first one leads to; the others follow.
    pub to_port: u16,
}

impl Mapping {
    fn map(&self) -> &'static str {
        match (self.to, self.host_ip) {
            (IpAddr::V4(_), Some(_)) => "v4_at",
            (IpAddr::V4(_), None) => "v4",
            (IpAddr::V6(_), Some(_)) => "v6_at",
            (IpAddr::V6(_), None) => "v6",
        }
    }

    /// Returns each port with the port that it leads to.
    pub(in crate::prim) fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        (self.ports.from..=self.ports.to).zip(self.to_port..=u16::MAX)
    }

    fn elements(&self, tag: &str) -> impl Iterator<Item = Element> {
        self.pairs().map(move |(port, to_port)| {
            let mut key = vec![Value::Proto(self.proto)];
            key.extend(self.host_ip.map(Value::Ip));
            key.push(Value::Port(port));
            let data = Some(vec![Value::Ip(self.to), Value::Port(to_port)]);
            Element { key, data, comment: Some(tag.to_string()) }
        })
    }

    /// Returns the published side for a message: `127.0.0.1:8080/tcp`.
    fn shown(&self) -> String {
        let at = self.host_ip.map_or(String::new(), |ip| match ip {
            IpAddr::V4(ip) => format!("{ip}:"),
            IpAddr::V6(ip) => format!("[{ip}]:"),
        });
        format!("{at}{}/{}", self.ports, self.proto)
    }

    fn shown_to(&self) -> String {
        SocketAddr::new(self.to, self.to_port).to_string()
    }
}

impl From<Mapping> for String {
    fn from(mapping: Mapping) -> String {
        let at = mapping.host_ip.map_or(String::new(), |ip| format!("{ip} "));
        format!("{at}{}={}/{}", mapping.ports, mapping.shown_to(), mapping.proto)
    }
}

impl TryFrom<String> for Mapping {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Mapping, String> {
        let read = || {
            let (left, right) = text.split_once('=')?;
            let (host_ip, ports) = left.split_once(' ').map_or((None, left), |(ip, ports)| (Some(ip), ports));
            let (to, proto) = right.split_once('/')?;
            let to: SocketAddr = to.parse().ok()?;
            let ports = Ports::parse(ports).ok()?;
            Some(Mapping {
                proto: Proto::parse(proto)?,
                ports,
                host_ip: host_ip.map(|ip| ip.parse()).transpose().ok()?,
                to: to.ip(),
                to_port: to.port(),
            })
        };
        read().ok_or_else(|| format!("`{text}` is no mapping"))
    }
}

/// Adds published ports to the maps of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AddMappings {
    pub table: LabTable,
    pub mappings: Vec<Mapping>,
    /// What tells its elements from those of other steps: their comment.
    pub tag: String,
    /// Whether it was just asked for. Of one that a journal has the ports are its own already.
    #[serde(skip)]
    pub is_new: bool,
    /// Whether its namespace is made by the same settling.
    #[serde(skip)]
    pub is_fresh: bool,
}

impl AddMappings {
    pub(super) fn elements(&self) -> BTreeMap<&'static str, Vec<Element>> {
        let mut elements: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        for mapping in &self.mappings {
            elements.entry(mapping.map()).or_default().extend(mapping.elements(&self.tag));
        }
        elements
    }

    /// Checks that the namespace has the addresses of steps in it, and no process their ports; those of a repair have been its own
    /// already. Nothing runs in a namespace that the same settling makes.
    pub(in crate::prim) fn check_free(netns: &Netns, steps: &[&AddMappings]) -> net::Result<()> {
        let (fresh, steps): (Vec<&AddMappings>, Vec<&AddMappings>) =
            steps.iter().copied().filter(|step| step.is_new).partition(|step| step.is_fresh);
        let at: BTreeSet<IpAddr> =
            fresh.iter().flat_map(|step| step.mappings.iter().filter_map(|mapping| mapping.host_ip)).collect();
        if let Some(first) = fresh.first().filter(|_| !at.is_empty()) {
            port::check_addresses(netns, &at).map_err(|refusal| first.refused(refusal))?;
        }
        let wanted = |mapping: &Mapping| port::Wanted {
            proto: socket_proto(mapping.proto),
            at: mapping.host_ip.or(Some(any_of(mapping.to))),
            ports: mapping.ports.from..=mapping.ports.to,
        };
        let wanted: Vec<port::Wanted> = steps.iter().flat_map(|step| step.mappings.iter().map(wanted)).collect();
        let Some(first) = steps.first().filter(|_| !wanted.is_empty()) else { return Ok(()) };
        port::check_free(netns, &wanted).map_err(|refusal| first.refused(refusal))
    }

    fn refused(&self, refusal: port::PortRefusal) -> net::Error {
        let refused = |errno: i32, text: String| net::Error::new(self.doing(), errno).saying(text);
        match refusal {
            port::PortRefusal::InUse(in_use) => refused(libc::EEXIST, in_use.to_string()),
            port::PortRefusal::NotHere(ip) => {
                refused(libc::EADDRNOTAVAIL, format!("`{ip}` is no address of {}", or_host(&self.table.netns)))
            }
            port::PortRefusal::Kernel(error) => error,
        }
    }

    /// Keeps other labs from publishing ports meanwhile, in a namespace that this lab shares with them.
    pub(super) fn lock_ports(&self, kernel: &Kernel) -> net::Result<Option<Guard>> {
        if self.table.netns.made {
            return Ok(None);
        }
        kernel.store().and_then(|store| store.lock(&Key::kind("ports"))).map(Some).map_err(as_refusal)
    }

    /// Makes the kernel forget the flows that the mappings change the way of: a UDP sender that never stops would be sent on
    /// as before.
    pub(super) fn flush(&self, netns: &Netns) -> net::Result<()> {
        let udp = self.mappings.iter().filter(|mapping| mapping.proto == L4Proto::Udp);
        let flows: Vec<Flow> = udp
            .flat_map(|mapping| {
                mapping.pairs().map(|(port, _)| Flow::To { proto: mapping.proto, port, ip: mapping.host_ip })
            })
            .collect();
        if flows.is_empty() {
            return Ok(());
        }
        match net::nft::conntrack::flush(netns, &flows) {
            // Without connection tracking there is nothing to forget.
            Err(error) if !error.is_unsupported() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Returns the protocol as sockets have it.
pub(super) fn socket_proto(proto: L4Proto) -> port::Proto {
    match proto {
        L4Proto::Udp => port::Proto::Udp,
        L4Proto::Sctp => port::Proto::Sctp,
        _ => port::Proto::Tcp,
    }
}

fn any_of(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

pub(super) fn or_host(netns: &NetnsRef) -> String {
    if netns.no == 0 { "the host".into() } else { format!("netns `{}`", netns.name) }
}

impl StepSort for AddMappings {
    const WORD: &'static str = "dnat";
}

impl Step for AddMappings {
    fn doing(&self) -> String {
        let what = match self.mappings.as_slice() {
            [] => "publish nothing".into(),
            [one] => format!("publish `{}` to `{}`", one.shown(), one.shown_to()),
            [first, rest @ ..] => {
                format!("publish `{}` to `{}` and {} more", first.shown(), first.shown_to(), rest.len())
            }
        };
        format!("{what}{}", in_netns(&self.table.netns))
    }

    fn like(&self) -> Vec<String> {
        let (enter, table) = (enter(&self.table.netns), &self.table.name);
        let mut lines = BTreeMap::<&str, String>::new();
        for mapping in &self.mappings {
            let map = mapping.map();
            let line = lines.entry(map).or_insert_with(|| format!("{enter}nft add element inet {table} {map} '{{"));
            for (port, to_port) in mapping.pairs() {
                let at = mapping.host_ip.map_or(String::new(), |ip| format!("{ip} . "));
                let comma = if line.ends_with('{') { "" } else { "," };
                // A text that is written always has room.
                let _ = write!(line, "{comma} {} . {at}{port} : {} . {to_port}", mapping.proto, mapping.to);
            }
        }
        lines.into_values().map(|line| line + " }'").collect()
    }

    fn footprint(&self) -> Footprint<'_> {
        // Its flows are forgotten when the table goes as well.
        let has_flows = self.mappings.iter().any(|mapping| mapping.proto == L4Proto::Udp);
        Footprint {
            lives_in: vec![&self.table.netns],
            lives_in_table: (!has_flows).then(|| self.table.reference()),
            ..Footprint::default()
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        match kernel.netns(&self.table.netns) {
            Ok(_) => {}
            // One that this settling makes has no process in it.
            Err(error) if error.is_gone() => self.is_fresh = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Ok(vec![Op::Together(self)])
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        match refusal.errno() {
            libc::EEXIST => Some("publish another port, or end what has this one".into()),
            libc::EADDRNOTAVAIL => Some("publish at an address that it has, or at all of them".into()),
            libc::ENOENT if !self.table.own => {
                Some("somebody has removed the network's rules: `topo network repair` puts them back".into())
            }
            _ => ruleset::no_nftables(refusal),
        }
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(netns) = self.table.find(kernel)? else { return Ok(()) };
        published::withdraw(&netns, &self.table.name, &[self])?;
        self.flush(&netns)
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        if self.table.find(kernel)?.is_none() {
            return Ok(false);
        }
        let sets = kernel.nft_sets(&self.table.netns, FAMILY, &self.table.name)?;
        let ours = |element: &&Element| element.comment.as_deref() == Some(self.tag.as_str());
        let held = sets.iter().flat_map(|set| &set.elements).filter(ours).count();
        Ok(held == self.elements().values().map(Vec::len).sum::<usize>())
    }
}

/// Returns the step that makes a table ready for mappings: the maps, the rules that look into them, and those that make a
/// published port work from everywhere.
pub(super) fn base(lab: &mut Lab, table: &LabTable) -> AddRules {
    let mut step = AddRules::new(lab, table.clone(), format!("make table `{}` ready for published ports", table.name));
    let nat = |name: &str, hook| table.base_chain(name, ChainKind::Nat, hook, -100);
    step.chains = vec![
        Chain { family: FAMILY, table: table.name.clone(), name: PUBLISHED.into(), base: None },
        nat("prerouting", Hook::Prerouting),
        nat("local", Hook::Output),
        table.postrouting(),
    ];
    step.sets = MAPS.map(|(name, version, key)| set(table, name, version, key)).to_vec();
    let loopback: IpNetwork = IpNetwork::V4(ipnetwork::Ipv4Network::from(Ipv4Addr::LOCALHOST));
    let loopback = IpNetwork::new(loopback.ip(), 8).unwrap_or(loopback);
    let to_this_host = || Rule::new(vec![Match::DaddrLocal], Action::Jump(PUBLISHED.into()));
    let look_up = |(map, family, key): (&str, IpVersion, DnatKey)| {
        (PUBLISHED.to_string(), Rule::new(Vec::new(), Action::DnatByMap { family, key, map: map.into() }))
    };
    step.rules.extend(MAPS.map(look_up));
    let rules = [
        ("prerouting", to_this_host()),
        // What the host sends to `::1` bears that as its source, and the kernel lets it out by no other device: it stays here.
        (
            "local",
            Rule::new(vec![Match::Dst { net: IpAddr::from(Ipv6Addr::LOCALHOST).into(), not: false }], Action::Return),
        ),
        ("local", to_this_host()),
        ("postrouting", Rule::new(vec![Match::CtStatusDnat, Match::MarkBits(HAIRPIN_MARK)], Action::Masquerade)),
        (
            "postrouting",
            Rule::new(vec![Match::CtStatusDnat, Match::Src { net: network(loopback), not: false }], Action::Masquerade),
        ),
    ];
    step.rules.extend(rules.map(|(chain, rule)| (chain.to_string(), rule)));
    step
}

fn network(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

fn set(table: &LabTable, name: &str, version: IpVersion, key: DnatKey) -> Set {
    let address = if version == IpVersion::V4 { Field::Ipv4 } else { Field::Ipv6 };
    let key = match key {
        DnatKey::ProtoPort => vec![Field::Proto, Field::Port],
        DnatKey::ProtoAddrPort => vec![Field::Proto, address, Field::Port],
    };
    Set { family: FAMILY, table: table.name.clone(), name: name.into(), key, data: Some(vec![address, Field::Port]) }
}

/// Refuses two mappings of one call that have a port in common.
pub(super) fn check_apart(mappings: &[Mapping]) -> Result<()> {
    let mut sorted: Vec<&Mapping> = mappings.iter().collect();
    sorted.sort_by_key(|mapping| (mapping.proto.number(), mapping.to.is_ipv4(), mapping.ports.from));
    for (at, mapping) in sorted.iter().enumerate() {
        let same = |other: &&&Mapping| {
            other.proto == mapping.proto
                && other.to.is_ipv4() == mapping.to.is_ipv4()
                && other.ports.from <= mapping.ports.to
        };
        let clash = sorted[at + 1..]
            .iter()
            .take_while(same)
            .find(|other| other.host_ip.is_none() || mapping.host_ip.is_none() || other.host_ip == mapping.host_ip);
        if let Some(other) = clash {
            return Err(Error::new(Kind::Exists, format!("publish `{}`", other.shown())).because(format!(
                "`{}` is published too, to `{}`",
                mapping.shown(),
                mapping.shown_to()
            )));
        }
    }
    Ok(())
}
