//! Published ports: destinations that are translated, by one look-up in a map however many there are.

use std::collections::{BTreeMap, BTreeSet};

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::firewalls::ask_let_through;
use super::inbound::{self, HoldInbound};
use super::mappings::{AddMappings, MAPS, Mapping, base, check_apart, or_host};
use super::published;
use super::ruleset::{self, FAMILY, LabTable};
use super::ways::Ways;
use crate::lab::{Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort};
use crate::net::nft::{self, Element, L4Proto, Peer, Through, Value};
use crate::net::{self, PortOptions};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, raise, with_lab};
use crate::prim::ip::sysctl;
use crate::prim::link::whole;
use crate::prim::value::handles::{Dev, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::ports::{Host, PortMapping, Ports, Proto, Target};
use crate::prim::value::units::{self, DevOrName};
use crate::state::{DevRef, Error, Kind, Place, Result, TableRef, lab_of_mark, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "dnat",
    about: "Published ports: what comes to a port of one netns goes on to an address behind it.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddMappings), step_sort!(SetHairpin), step_sort!(HoldInbound)],
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
        /// The address at which it is published, which the namespace has; all of its addresses unless given.
        host_ip: Host,
        /// The device behind which the target is; found by its address unless given.
        dev: DevOrName,
    }
}

/// Makes a bridge send back by a port what came in by it, or not.
#[derive(Debug, Serialize, Deserialize)]
struct SetHairpin {
    port: DevRef,
    on: bool,
    /// How it was, of a port of the lab's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<bool>,
}

impl SetHairpin {
    fn set(&self, kernel: &mut Kernel, on: bool) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.port.netns)?;
        let options = PortOptions { hairpin: Some(on), ..PortOptions::default() };
        net::link::bridge::set_port(&rtnl, self.port.index, &options)
    }
}

impl StepSort for SetHairpin {
    const WORD: &'static str = "hairpin";
}

impl Step for SetHairpin {
    fn doing(&self) -> String {
        format!("set hairpin {} on {}", if self.on { "on" } else { "off" }, self.port.shown())
    }

    fn like(&self) -> Vec<String> {
        let word = if self.on { "on" } else { "off" };
        let (ip, port) = (crate::prim::iproute2::ip(&self.port.netns), name::kernel_name(&self.port.name));
        vec![format!("{ip} link set dev {port} type bridge_slave hairpin {word}")]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.port.netns],
            lives_on: Some(&self.port),
            sets: vec![whole::slot(self.port.no, "port hairpin")],
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        let entry = model.living_dev(self.port.no, &self.port.shown())?;
        if entry.controller.is_none() && self.port.made {
            return Err(Error::invalid(self.doing()).because("it is no port of a bridge"));
        }
        Ok(())
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if !self.port.made || !kernel.must_remember(true) {
            return Ok(());
        }
        match kernel.link(&self.port) {
            // One that this settling makes.
            Err(error) if error.is_gone() => Ok(()),
            found => {
                self.before = found?.and_then(|link| link.port).and_then(|port| port.options.hairpin);
                Ok(())
            }
        }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| self.set(kernel, self.on))
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        // A port that is the lab's own goes with the lab, unless it is to be as it was.
        if self.port.made && self.before.is_none_or(|before| before == self.on)
            || kernel.link(&self.port)?.is_none_or(|link| link.controller.is_none())
        {
            return Ok(());
        }
        self.set(kernel, !self.on)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        // One that is no port any more can't be set.
        let port = whole::there(kernel, lab, &self.port)?.and_then(|(_, link)| link.port);
        Ok(port.and_then(|port| port.options.hairpin).is_none_or(|on| on == self.on))
    }
}

/// Reads one mapping.
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
        return Err(Error::invalid(doing)
            .because(format!(
                "{} ports are published to {}: {} and {to_ports}",
                u32::from(ports.0.to - ports.0.from) + 1,
                u32::from(to_ports.to - to_ports.from) + 1,
                ports.0
            ))
            .hint("both ranges are of one length"));
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

fn publish(lab: &mut Lab, netns: &NetnsHandle, list: Vec<Map>, common: Map, place: &Place) -> Result<()> {
    let at = netns.living(lab)?;
    let common = DnatOptions::parse(common)?;
    let mut ways = Ways::of(lab, &at);
    let mut mappings = Vec::with_capacity(list.len());
    let mut devs = BTreeSet::new();
    for map in list {
        let options = DnatOptions::parse(map)?;
        let mapping = mapping(&options)?;
        let dev = match options.dev.as_ref().or(common.dev.as_ref()) {
            Some(dev) => ruleset::dev_name(lab, &at, dev)?,
            None => ways.dev_towards(lab, mapping.to)?,
        };
        devs.insert((dev, mapping.to.is_ipv4() && mapping.host_ip.is_none_or(|ip| ip.is_loopback())));
        mappings.push(mapping);
    }
    if let Some(dev) = &common.dev {
        devs.insert((ruleset::dev_name(lab, &at, dev)?, true));
    }
    check_apart(&mappings)?;
    let table = LabTable::of(lab, &at)?;
    table.ask(lab, place)?;
    let ready = TableRef { name: format!("{} ready for dnat", table.name), ..table.reference() };
    if table.own && !lab.model().has_table(&ready) {
        let mut base = base(lab, &table);
        inbound::ask(lab, &table, &mut base, place)?;
        lab.ask(base, place.clone())?;
        lab.model().add_table(ready);
    }
    if table.own {
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
    let mut ports = BTreeMap::new();
    for mapping in &mappings {
        ports.extend(ways.port_of(lab, mapping.to).map(|port| (port.no, port)));
    }
    for (no, port) in ports {
        if ways.hairpins.insert(no) {
            lab.ask(SetHairpin { port, on: true, before: None }, place.clone())?;
        }
    }
    if !mappings.is_empty() {
        let tag = ruleset::tag(lab);
        let step = AddMappings { table, mappings, tag, is_new: true, is_fresh: false };
        lab.ask(step, place.clone())?;
    }
    ways.keep(lab);
    Ok(())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Publishes ports of a namespace: what comes to them, at the namespace's own addresses alone, goes on to an address behind
    /// it. It works from outside, from the namespace itself, by `127.0.0.1` too, from the target itself and from its neighbours.
    /// `::1` does not work: the kernel lets what has it as source leave by no device but `lo`.
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
            lab.ask(SetHairpin { port: entry.dev, on, before: None }, place)
        })?;
        Ok(port)
    }

    /// Returns the first port of a range, such as `"8000-8010"`, that is neither published by a lab nor in use at any address.
    ///
    /// Like `docker run --publish 80`, which takes a free one too.
    ///
    /// Fails with `exhausted` where none is free, and with `invalid` for what is no range or no protocol.
    ///
    /// ```rhai
    /// let r1 = netns("r1");
    /// r1.serve("http", 8000);
    /// assert(r1.free_port("8000-8010", "tcp") == 8001);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn free_port(ctx: NativeCallContext, netns: NetnsHandle, ports: Dynamic, proto: Dynamic) -> RhaiResultOf<i64> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let doing = format!("find a free port of {}", or_host(&at));
            let (ports, proto): (Ports, Proto) = (units::argument(&doing, ports)?, units::argument(&doing, proto)?);
            let (kernel, _) = lab.settled()?;
            let failed = |source: net::Error| Error::kernel(doing.clone(), &source);
            published::free_port(kernel, &at, ports.0, proto.0).map_err(failed)?.map(i64::from).ok_or_else(|| {
                Error::new(Kind::Exhausted, doing.clone())
                    .because(format!("all of {}/{} are taken", ports.0, proto.0))
                    .hint("give a larger range, or end what has one of them")
            })
        })
    }

    /// Reads a mapping as commands take it, `[HOSTIP:][PORT:]PORT[/PROTO]`. Returns `#{ host_ip, port, to_port, proto, text, choice }`;
    /// `text` is its one form. `choice` says that one port of the range `port` is to be chosen: `"80"` and `"0:80"` leave that of the
    /// host open.
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
            ("choice".into(), mapping.is_choice().into()),
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
    let owner = element.comment.as_deref().and_then(lab_of_mark).unwrap_or_default();
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
