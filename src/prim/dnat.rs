//! Published ports: destinations that are translated, by one look-up in a map however many there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::Group;
use super::context::{RhaiResultOf, place_of, raise, with_lab};
use super::filter::ask_let_through;
use super::handles::{self, Dev, NetnsHandle};
use super::options::options;
use super::ports::{Host, PortMapping, Ports, Proto, Target};
use super::ruleset::{self, AddRules, FAMILY, LabTable, enter, in_netns};
use super::sysctl;
use super::units::DevOrName;
use crate::lab::store::Key;
use crate::lab::{DevRef, Error, Kernel, Kind, Lab, Model, NetnsRef, Place, Result, Step, TableRef, as_refusal, name};
use crate::net::conntrack::Flow;
use crate::net::nft::{Action, Batch, Chain, ChainKind, CtState, DnatKey, Element, Field, Hook, IpVersion, Match, Rule, Set, Value};
use crate::net::nft::{self, L4Proto, Peer, PortRange, Through};
use crate::net::{self, Netns, PortOptions, port};
use crate::{step_identity, step_sort};

pub(super) const GROUP: Group = Group {
    name: "dnat",
    about: "Published ports: what comes to a port of one netns goes on to an address behind it.",
    module: || exported_module!(functions),
    steps: &[step_sort!("dnat", AddMappings), step_sort!("hairpin", SetHairpin)],
    options: &[DnatOptions::SET],
};

options! {
    /// Options of `dnat`.
    pub struct DnatOptions of "dnat" {
        /// The protocol: `tcp` unless given, `udp` or `sctp`.
        proto: Proto,
        /// The port that is published, or a range of them.
        port: Ports,
        /// Where it leads: an address, perhaps with its port or as many ports as are published.
        to: Target,
        /// The port there, or as many as are published; the same as published unless given here or in `to`.
        to_port: Ports,
        /// The address at which it is published; all of the namespace's unless given.
        host_ip: Host,
        /// The device behind which the target is; found by its address unless given.
        dev: DevOrName,
    }
}

/// The bit of a packet's mark that the first packet of a connection bears from the forward hook to the postrouting hook, if it
/// goes back out where it came in: its source must be translated too, or the answers would miss this namespace.
const HAIRPIN_MARK: u32 = 0x1000_0000;

/// The chain that looks into the maps. A word of nft's own, such as `dnat`, is no name of a chain to it.
const PUBLISHED: &str = "published";

/// The maps of a table: what they are keyed by. A mapping at one address goes before one at all.
const MAPS: [(&str, IpVersion, DnatKey); 4] = [
    ("v4_at", IpVersion::V4, DnatKey::ProtoAddrPort),
    ("v4", IpVersion::V4, DnatKey::ProtoPort),
    ("v6_at", IpVersion::V6, DnatKey::ProtoAddrPort),
    ("v6", IpVersion::V6, DnatKey::ProtoPort),
];

/// One published port, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mapping {
    proto: L4Proto,
    ports: PortRange,
    host_ip: Option<IpAddr>,
    to: IpAddr,
    to_port: u16,
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
    fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
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
        std::net::SocketAddr::new(self.to, self.to_port).to_string()
    }
}

/// Adds published ports to the maps of a table.
#[derive(Debug, Serialize, Deserialize)]
struct AddMappings {
    table: LabTable,
    mappings: Vec<Mapping>,
    tag: String,
}

impl AddMappings {
    fn elements(&self) -> BTreeMap<&'static str, Vec<Element>> {
        let mut elements: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        for mapping in &self.mappings {
            elements.entry(mapping.map()).or_default().extend(mapping.elements(&self.tag));
        }
        elements
    }

    /// Checks that nobody in the namespace has the ports: no other lab's mapping, and no process.
    fn check_free(&self, netns: &Netns) -> net::Result<()> {
        self.check_unmapped(netns)?;
        for mapping in &self.mappings {
            let at = mapping.host_ip.or(Some(any_of(mapping.to)));
            let proto = match mapping.proto {
                L4Proto::Udp => port::Proto::Udp,
                L4Proto::Sctp => port::Proto::Sctp,
                _ => port::Proto::Tcp,
            };
            let taken = |text: String| net::Error::new(self.doing(), libc::EEXIST).saying(text);
            port::check_free(netns, proto, at, mapping.ports.from..=mapping.ports.to).map_err(|refusal| match refusal {
                port::PortRefusal::InUse(in_use) => taken(in_use.to_string()),
                port::PortRefusal::NotHere(ip) => {
                    let text = format!("`{ip}` is no address of {}", or_host(&self.table.netns));
                    net::Error::new(self.doing(), libc::EADDRNOTAVAIL).saying(text)
                }
                port::PortRefusal::Kernel(error) => error,
            })?;
        }
        Ok(())
    }

    /// Checks that no lab has published any of the ports.
    fn check_unmapped(&self, netns: &Netns) -> net::Result<()> {
        for table in nft::list_tables(netns)?.iter().filter(|table| ruleset::is_a_labs(table)) {
            for (map, version, _) in MAPS {
                let wanted: Vec<&Mapping> =
                    self.mappings.iter().filter(|mapping| IpVersion::of(mapping.to) == version).collect();
                if wanted.is_empty() {
                    continue;
                }
                let found = match nft::elements(netns, FAMILY, &table.name, map) {
                    Err(error) if error.is_gone() => continue,
                    found => found?,
                };
                self.check_against(&found, &wanted)?;
            }
        }
        Ok(())
    }

    fn check_against(&self, found: &[Element], wanted: &[&Mapping]) -> net::Result<()> {
        for element in found.iter().filter(|element| element.comment.as_deref() != Some(self.tag.as_str())) {
            let (proto, port, at) = match element.key.as_slice() {
                [Value::Proto(proto), Value::Port(port)] => (proto, port, None),
                [Value::Proto(proto), Value::Ip(at), Value::Port(port)] => (proto, port, Some(*at)),
                _ => continue,
            };
            let clash = wanted.iter().find(|mapping| {
                mapping.proto == *proto
                    && (mapping.ports.from..=mapping.ports.to).contains(port)
                    && (mapping.host_ip.is_none() || at.is_none() || mapping.host_ip == at)
            });
            if clash.is_some() {
                let to: Vec<String> = element.data.iter().flatten().map(ToString::to_string).collect();
                let owner = element.comment.as_deref().map_or("", ruleset::lab_of_mark);
                let owner = owner.rsplit_once(':').map_or(owner, |(owner, _)| owner);
                let text = format!("port {port}/{proto} is published already, to `{}`, by lab `{owner}`", to.join(":"));
                return Err(net::Error::new(self.doing(), libc::EEXIST).saying(text));
            }
        }
        Ok(())
    }

    /// Makes the kernel forget the flows that the mappings change the way of: a UDP sender that never stops would be sent on
    /// as before.
    fn flush(&self, netns: &Netns) -> net::Result<()> {
        let udp = self.mappings.iter().filter(|mapping| mapping.proto == L4Proto::Udp);
        let flows: Vec<Flow> = udp
            .flat_map(|mapping| {
                mapping.pairs().map(|(port, _)| Flow::To { proto: mapping.proto, port, ip: mapping.host_ip })
            })
            .collect();
        if flows.is_empty() {
            return Ok(());
        }
        match net::conntrack::flush(netns, &flows) {
            // Without connection tracking there is nothing to forget.
            Err(error) if !error.is_unsupported() => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns the elements of this step that the kernel has.
    fn present(&self, netns: &Netns) -> net::Result<BTreeMap<&'static str, Vec<Element>>> {
        let mut present = self.elements();
        for (map, elements) in &mut present {
            *elements = match nft::elements(netns, FAMILY, &self.table.name, map) {
                Err(error) if error.is_gone() => Vec::new(),
                found => found?,
            };
            elements.retain(|element| element.comment.as_deref() == Some(self.tag.as_str()));
        }
        Ok(present)
    }
}

fn any_of(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn or_host(netns: &NetnsRef) -> String {
    if netns.no == 0 { "the host".into() } else { format!("netns `{}`", netns.name) }
}

impl Step for AddMappings {
    step_identity!("dnat");

    fn doing(&self) -> String {
        let what = match self.mappings.as_slice() {
            [] => "publish nothing".into(),
            [one] => format!("publish `{}` to `{}`", one.shown(), one.shown_to()),
            [first, rest @ ..] => format!("publish `{}` to `{}` and {} more", first.shown(), first.shown_to(), rest.len()),
        };
        format!("{what}{}", in_netns(&self.table.netns))
    }

    fn like(&self) -> Vec<String> {
        let (enter, table) = (enter(&self.table.netns), &self.table.name);
        let line = |mapping: &Mapping| {
            let elements: Vec<String> = mapping.elements("").map(|element| Element { comment: None, ..element }.to_string()).collect();
            format!("{enter}nft add element inet {table} {} '{{ {} }}'", mapping.map(), elements.join(", "))
        };
        self.mappings.iter().map(line).collect()
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.table.netns).map(|_| ())
    }

    fn unplan(&self, _model: &mut Model, _why: &str) {}

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        match kernel.netns(&self.table.netns) {
            Ok(netns) => self.check_free(&netns),
            // One that this settling makes has nothing in it.
            Err(error) if error.is_gone() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        let netns = kernel.netns(&self.table.netns)?;
        // Two labs have two tables: that both publish a port at once, the kernel would not notice.
        let _ports = match self.table.netns.made {
            true => None,
            false => {
                let lock = kernel.store().and_then(|store| store.lock(&Key::kind("ports")));
                Some(lock.map_err(as_refusal)?)
            }
        };
        self.check_unmapped(&netns)?;
        let mut batch = Batch::new();
        for (map, elements) in &self.elements() {
            batch.add_elements(FAMILY, &self.table.name, map, elements, true);
        }
        batch.commit(&netns)?;
        self.flush(&netns)
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        match refusal.errno() {
            libc::EEXIST => Some("publish another port, or end what has this one".into()),
            libc::EADDRNOTAVAIL => Some("publish at an address that it has, or at all of them".into()),
            libc::ENOENT if !self.table.own => Some("somebody has removed the network's rules: `topo network repair` puts them back".into()),
            _ => ruleset::no_nftables(refusal),
        }
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(netns) = self.table.find(kernel)? else { return Ok(()) };
        let mut batch = Batch::new();
        for (map, elements) in &self.present(&netns)? {
            if !elements.is_empty() {
                batch.delete_elements(FAMILY, &self.table.name, map, elements);
            }
        }
        batch.commit(&netns)?;
        self.flush(&netns)
    }

    fn is_held(&self, kernel: &mut Kernel) -> net::Result<bool> {
        let Some(netns) = self.table.find(kernel)? else { return Ok(false) };
        let count = |elements: &BTreeMap<&str, Vec<Element>>| elements.values().map(Vec::len).sum::<usize>();
        Ok(count(&self.present(&netns)?) == count(&self.elements()))
    }

    fn lives_in(&self) -> Vec<&NetnsRef> {
        vec![&self.table.netns]
    }

    fn lives_in_table(&self) -> Option<TableRef> {
        // Its flows are forgotten when the table goes as well.
        let has_flows = self.mappings.iter().any(|mapping| mapping.proto == L4Proto::Udp);
        (!has_flows).then(|| self.table.reference())
    }
}

/// Makes a bridge send back by a port what came in by it, or not.
#[derive(Debug, Serialize, Deserialize)]
struct SetHairpin {
    port: DevRef,
    on: bool,
}

impl SetHairpin {
    fn set(&self, kernel: &mut Kernel, on: bool) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.port.netns)?;
        let options = PortOptions { hairpin: Some(on), ..PortOptions::default() };
        kernel.run(net::link::set_port(&rtnl, self.port.index, &options))
    }
}

impl Step for SetHairpin {
    step_identity!("hairpin");

    fn doing(&self) -> String {
        format!("set hairpin {} on {}", if self.on { "on" } else { "off" }, self.port.shown())
    }

    fn like(&self) -> Vec<String> {
        let word = if self.on { "on" } else { "off" };
        let (ip, port) = (super::veth::ip(&self.port.netns), name::kernel_name(&self.port.name));
        vec![format!("{ip} link set dev {port} type bridge_slave hairpin {word}")]
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        let entry = model.living_dev(self.port.no, &self.port.shown())?;
        if entry.controller.is_none() && self.port.made {
            return Err(Error::invalid(self.doing()).because("it is no port of a bridge"));
        }
        Ok(())
    }

    fn unplan(&self, _model: &mut Model, _why: &str) {}

    fn apply(&self, kernel: &mut Kernel) -> net::Result<()> {
        self.set(kernel, self.on)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        // A port that is the lab's own goes with the lab.
        if self.port.made || kernel.link(&self.port)?.is_none_or(|link| link.controller.is_none()) {
            return Ok(());
        }
        self.set(kernel, !self.on)
    }

    fn is_held(&self, kernel: &mut Kernel) -> net::Result<bool> {
        // One that is no port any more can't be set.
        let port = kernel.link(&self.port)?.and_then(|link| link.port);
        Ok(port.and_then(|port| port.options.hairpin).is_none_or(|on| on == self.on))
    }

    fn lives_in(&self) -> Vec<&NetnsRef> {
        vec![&self.port.netns]
    }

    fn lives_on(&self) -> Option<&DevRef> {
        Some(&self.port)
    }
}

/// Returns the step that makes a table ready for mappings: the maps, the rules that look into them, and those that make a
/// published port work from everywhere.
fn base(lab: &mut Lab, table: &LabTable) -> AddRules {
    let mut step = AddRules::new(lab, table.clone(), format!("make table `{}` ready for published ports", table.name));
    let nat = |name: &str, hook| table.base_chain(name, ChainKind::Nat, hook, -100);
    step.chains = vec![
        Chain { family: FAMILY, table: table.name.clone(), name: PUBLISHED.into(), base: None },
        nat("prerouting", Hook::Prerouting),
        nat("local", Hook::Output),
        table.base_chain("martians", ChainKind::Filter, Hook::Prerouting, -300),
        table.base_chain("hairpin", ChainKind::Filter, Hook::Forward, -10),
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
        ("local", Rule::new(vec![Match::Dst { net: IpAddr::from(Ipv6Addr::LOCALHOST).into(), not: false }], Action::Return)),
        ("local", to_this_host()),
        // `route_localnet` lets 127.0.0.0/8 out and in by a device; nobody there may reach what listens on it.
        (
            "martians",
            Rule::new(
                vec![Match::InDev { name: "lo".into(), not: true }, Match::Dst { net: network(loopback), not: false }],
                Action::Drop,
            ),
        ),
        (
            "hairpin",
            Rule::new(
                vec![Match::CtState(vec![CtState::New]), Match::CtStatusDnat, Match::DaddrReachedByIn],
                Action::SetMarkBits(HAIRPIN_MARK),
            ),
        ),
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

/// Reads one mapping; `()` for options that only say where the others lead.
fn mapping(options: &DnatOptions) -> Result<Mapping> {
    let doing = "publish a port";
    let (Some(ports), Some(target)) = (&options.port, &options.to) else {
        return Err(Error::invalid(doing)
            .because("it needs both `port` and `to`")
            .hint(r#"such as `#{ port: 8080, to: "10.0.0.2:80" }`"#));
    };
    let to_ports = match (&target.ports, &options.to_port) {
        (Some(_), Some(_)) => return Err(Error::invalid(doing).because("`to` has a port, and `to_port` is given too")),
        (Some(ports), None) | (None, Some(Ports(ports))) => *ports,
        (None, None) => ports.0,
    };
    if to_ports.to - to_ports.from != ports.0.to - ports.0.from {
        return Err(Error::invalid(doing).because(format!(
            "{} ports are published to {}: {} and {to_ports}",
            u32::from(ports.0.to - ports.0.from) + 1,
            u32::from(to_ports.to - to_ports.from) + 1,
            ports.0
        )).hint("both ranges are of one length"));
    }
    let host_ip = options.host_ip.as_ref().map(|host| host.0).filter(|ip| !ip.is_unspecified());
    let named = options.host_ip.as_ref().map(|host| host.0);
    if let Some(ip) = named.filter(|ip| ip.is_ipv4() != target.ip.is_ipv4()) {
        return Err(Error::invalid(doing)
            .because(format!("it is published at `{ip}` and leads to `{}`, which is of the other family", target.ip)));
    }
    if host_ip.is_some_and(|ip| ip.is_ipv6() && ip.is_loopback()) {
        return Err(Error::new(Kind::Unsupported, doing)
            .because("the kernel can't send on what comes to `::1`: IPv6 has no `route_localnet`")
            .hint("publish at `127.0.0.1`, or at another address of the host"));
    }
    let proto = options.proto.map_or(L4Proto::Tcp, |proto| proto.0);
    Ok(Mapping { proto, ports: ports.0, host_ip, to: target.ip, to_port: to_ports.from })
}

/// Refuses two mappings of one call that have a port in common.
fn check_apart(mappings: &[Mapping]) -> Result<()> {
    let mut sorted: Vec<&Mapping> = mappings.iter().collect();
    sorted.sort_by_key(|mapping| (mapping.proto.number(), mapping.to.is_ipv4(), mapping.ports.from));
    for (at, mapping) in sorted.iter().enumerate() {
        let same = |other: &&&Mapping| {
            other.proto == mapping.proto
                && other.to.is_ipv4() == mapping.to.is_ipv4()
                && other.ports.from <= mapping.ports.to
        };
        let clash = sorted[at + 1..].iter().take_while(same).find(|other| {
            other.host_ip.is_none() || mapping.host_ip.is_none() || other.host_ip == mapping.host_ip
        });
        if let Some(other) = clash {
            return Err(Error::new(Kind::Exists, format!("publish `{}`", other.shown()))
                .because(format!("`{}` is published too, to `{}`", mapping.shown(), mapping.shown_to())));
        }
    }
    Ok(())
}

/// Finds the device behind which an address is: that of the lab's own network, or of the kernel's route.
fn dev_towards(lab: &mut Lab, netns: &NetnsRef, to: IpAddr) -> Result<String> {
    let near = lab.model().all_devs().find(|entry| {
        entry.dev.netns.no == netns.no && entry.addresses.iter().any(|net| net.contains(to) && net.ip() != to)
    });
    if let Some(entry) = near {
        return Ok(name::kernel_name(&entry.dev.name));
    }
    let doing = format!("find the way from {} to `{to}`", or_host(netns));
    let ask = async |rtnl: &net::Rtnl| Ok((net::route::list(rtnl).await?, net::link::list(rtnl).await?));
    let (routes, links) = handles::look(lab, netns, &doing, ask)?;
    let best = routes
        .iter()
        .filter(|route| route.table == net::route::MAIN && route.dst.contains(to))
        .max_by_key(|route| (route.dst.prefix(), std::cmp::Reverse(route.metric)));
    let index = best.and_then(|route| route.dev.or_else(|| route.hops.iter().find_map(|hop| hop.dev)));
    let link = links.into_iter().find(|link| Some(link.index) == index);
    link.map(|link| link.name).ok_or_else(|| {
        Error::new(Kind::Missing, doing)
            .because("there is no route to it")
            .hint("give the namespace its address or route first, or name the device: `dev: …`")
    })
}

/// Finds the port of a bridge behind which the lab put an address, so that what it sends to its own published port comes back.
fn port_of(lab: &mut Lab, netns: &NetnsRef, to: IpAddr) -> Option<DevRef> {
    let model = lab.model();
    let holder = model.all_devs().find(|entry| entry.addresses.iter().any(|net| net.ip() == to))?;
    let port = model.dev(holder.peer?)?;
    (port.controller.is_some() && port.dev.netns.no == netns.no).then(|| port.dev.clone())
}

fn publish(lab: &mut Lab, netns: &NetnsHandle, list: Vec<Map>, common: Map, place: &Place) -> Result<()> {
    let at = netns.living(lab)?;
    let common = DnatOptions::parse(common)?;
    let mut mappings = Vec::new();
    let mut devs = Vec::new();
    for map in list {
        let options = DnatOptions::parse(map)?;
        let mapping = mapping(&options)?;
        let dev = match options.dev.as_ref().or(common.dev.as_ref()) {
            Some(dev) => ruleset::dev_name(lab, &at, dev)?,
            None => dev_towards(lab, &at, mapping.to)?,
        };
        devs.push((dev, mapping.to.is_ipv4() && mapping.host_ip.is_none_or(|ip| ip.is_loopback())));
        mappings.push(mapping);
    }
    if let Some(dev) = &common.dev {
        devs.push((ruleset::dev_name(lab, &at, dev)?, true));
    }
    check_apart(&mappings)?;
    let table = LabTable::of(lab, &at)?;
    table.ask(lab, place)?;
    let ready = TableRef { name: format!("{} ready for dnat", table.name), ..table.reference() };
    if table.own && !lab.model().has_table(&ready) {
        let base = base(lab, &table);
        lab.ask(base, place.clone())?;
        lab.model().add_table(ready);
    }
    if table.own {
        devs.sort();
        devs.dedup();
        for (dev, to_localhost) in &devs {
            let done = TableRef { name: format!("{dev} ready for dnat {to_localhost}"), ..table.reference() };
            if lab.model().has_table(&done) {
                continue;
            }
            if *to_localhost {
                let key = format!("net/ipv4/conf/{dev}/route_localnet");
                sysctl::set(lab, netns, &key, "1".into(), place.clone())?;
            }
            let peer = || Peer::Dev(dev.clone());
            ask_let_through(lab, &at, vec![Through::From(peer()), Through::Replies(peer())], place)?;
            lab.model().add_table(done);
        }
    }
    let mut ports: Vec<DevRef> = mappings.iter().filter_map(|mapping| port_of(lab, &at, mapping.to)).collect();
    ports.sort_by_key(|port| port.no);
    ports.dedup_by_key(|port| port.no);
    for port in ports {
        lab.ask(SetHairpin { port, on: true }, place.clone())?;
    }
    if mappings.is_empty() {
        return Ok(());
    }
    let tag = ruleset::tag(lab);
    lab.ask(AddMappings { table, mappings, tag }, place.clone())
}

/// What a script can call.
#[export_module]
pub mod functions {
    /// Publishes ports of a namespace: what comes to them, at the namespace's own addresses alone, goes on to an address behind
    /// it. It works from outside, from the namespace itself, by `127.0.0.1` too, from the target itself and from its neighbours.
    ///
    /// A list of maps publishes many at once; options that they have in common come behind it. An empty list makes the
    /// namespace ready and publishes nothing. The namespace must forward (`ns.forward(true)`).
    ///
    /// Like `nft add rule … fib daddr type local dnat to meta l4proto . th dport map …`.
    ///
    /// Fails with `exists` where a port is published already or a process has it, naming that, with `invalid` for ports that
    /// can't be right, and with `missing` where there is no route to the target, or the namespace lacks the address.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// let c = netns("c1");
    /// veth(r["lan0"], c["eth0"]);
    /// r["lan0"].addr("10.0.0.1/24");
    /// c["eth0"].addr("10.0.0.2/24");
    /// c.route("default", #{ via: "10.0.0.1" });
    /// r.forward(true);
    /// r.dnat(#{ port: 8080, to: "10.0.0.2:80" });
    /// r.dnat([
    ///     #{ proto: "udp", port: "5000-5009", to: "10.0.0.2:6000-6009" },
    ///     #{ port: 2222, to: "10.0.0.2:22", host_ip: "127.0.0.1" },
    /// ]);
    /// assert(r.mappings().len == 12);
    /// ```
    #[rhai_fn(name = "dnat", return_raw)]
    pub fn dnat(ctx: NativeCallContext, netns: NetnsHandle, options: Map) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| publish(lab, &netns, vec![options], Map::new(), &place))?;
        Ok(netns)
    }

    /// Publishes many ports at once.
    #[rhai_fn(name = "dnat", return_raw)]
    pub fn dnat_list(ctx: NativeCallContext, netns: NetnsHandle, list: Array) -> RhaiResultOf<NetnsHandle> {
        dnat_list_with(ctx, netns, list, Map::new())
    }

    /// Publishes many ports at once, with options that they have in common.
    #[rhai_fn(name = "dnat", return_raw)]
    pub fn dnat_list_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        list: Array,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let maps: Option<Vec<Map>> = list.into_iter().map(|entry| entry.try_cast::<Map>()).collect();
            let maps = maps.ok_or_else(|| Error::invalid("publish ports").because("expected a list of maps"))?;
            publish(lab, &netns, maps, options, &place)
        })?;
        Ok(netns)
    }

    /// Returns the ports that labs have published in a namespace, as maps with `proto`, `host_ip`, `port`, `to`, `to_port` and
    /// `lab`.
    ///
    /// Like `nft list map inet TABLE v4`, for all tables of labs.
    ///
    /// Fails with `gone` where the namespace was removed.
    ///
    /// ```rhai
    /// assert(netns("r1").mappings().is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn mappings(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let failed = |source: net::Error| Error::kernel(format!("list the ports of {}", or_host(&at)), &source);
            let (kernel, _) = lab.settled()?;
            let netns = kernel.netns(&at).map_err(failed)?;
            let mut found = Vec::new();
            for table in nft::list_tables(&netns).map_err(failed)?.iter().filter(|table| ruleset::is_a_labs(table)) {
                for (map, _, _) in MAPS {
                    match nft::elements(&netns, FAMILY, &table.name, map) {
                        Err(error) if error.is_gone() => {}
                        elements => found.extend(elements.map_err(failed)?.iter().filter_map(as_map)),
                    }
                }
            }
            Ok(found.into_iter().map(Dynamic::from_map).collect())
        })
    }

    /// Makes a bridge send back by a port what came in by it, or not: a container then reaches its own published port. `dnat`
    /// sees to it for the ports that the same lab made.
    ///
    /// Like `ip link set dev PORT type bridge_slave hairpin on`.
    ///
    /// Fails with `invalid` where the device is no port of a bridge.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// let ends = veth(netns("c1")["eth0"], br);
    /// ends[1].hairpin(true);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn hairpin(ctx: NativeCallContext, port: Dev, on: bool) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let entry = port.existing(lab)?;
            lab.ask(SetHairpin { port: entry.dev, on }, place)
        })?;
        Ok(port)
    }

    /// Reads a mapping as commands take it, `[HOSTIP:]PORT:PORT[/PROTO]`, as a map with `host_ip`, `port`, `to_port`, `proto`
    /// and `text`, its one form.
    ///
    /// Like the `--publish` of `docker run`.
    ///
    /// Fails with `invalid` for one that can't be right.
    ///
    /// ```rhai
    /// let p = port_mapping("127.0.0.1:8000-8010:9000-9010/udp");
    /// assert(p.port == "8000-8010" && p.proto == "udp" && p.host_ip == "127.0.0.1");
    /// assert(port_mapping("8080:80").text == "8080:80/tcp");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn port_mapping(ctx: NativeCallContext, text: &str) -> RhaiResultOf<Map> {
        let mapping = raise(&ctx, PortMapping::parse(text))?;
        Ok(Map::from_iter([
            ("text".into(), mapping.to_string().into()),
            ("host_ip".into(), mapping.host_ip.map_or(Dynamic::UNIT, |ip| ip.to_string().into())),
            ("port".into(), mapping.ports.to_string().into()),
            ("to_port".into(), mapping.to_ports.to_string().into()),
            ("proto".into(), mapping.proto.to_string().into()),
        ]))
    }
}

/// Returns an element of a map for the script.
fn as_map(element: &Element) -> Option<Map> {
    let (proto, port, at) = match element.key.as_slice() {
        [Value::Proto(proto), Value::Port(port)] => (proto, port, None),
        [Value::Proto(proto), Value::Ip(at), Value::Port(port)] => (proto, port, Some(at)),
        _ => return None,
    };
    let [Value::Ip(to), Value::Port(to_port)] = element.data.as_deref()? else { return None };
    let owner = element.comment.as_deref().map_or("", ruleset::lab_of_mark);
    let owner = owner.rsplit_once(':').map_or(owner, |(owner, _)| owner);
    Some(Map::from_iter([
        ("proto".into(), proto.to_string().into()),
        ("port".into(), i64::from(*port).into()),
        ("host_ip".into(), at.map_or(Dynamic::UNIT, |ip| ip.to_string().into())),
        ("to".into(), to.to_string().into()),
        ("to_port".into(), i64::from(*to_port).into()),
        ("lab".into(), owner.to_string().into()),
    ]))
}
