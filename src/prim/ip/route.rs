//! Routes of both families: to a gateway, over a device, over several, or into nowhere.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use crate::lab::{DevEntry, Footprint, Kernel, Lab, Model, OWNER_PROTOCOL, Op, Outcome, Step, StepSort};
use crate::net::{self, NextHop, Route, RouteKind};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::value::handles::{self, Dev, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::units::{self, DevOrName, FromScript, Maps, Metric, Subnet, Table, Weight};
use crate::prim::value::value::{Ip, Net};
use crate::state::{DevRef, Error, NetnsRef, Place, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "route",
    about: "Routes of a namespace.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddRoute)],
    options: &[RouteOptions::SET, HopOptions::SET],
};

options! {
    /// Options of `route`.
    pub struct RouteOptions of "route" {
        /// The gateway; for IPv4 it may be an IPv6 address.
        via: IpAddr,
        /// The device that it leaves by; found by the gateway unless given.
        dev: DevOrName,
        /// Its metric; the kernel's own unless given (0 for IPv4, 1024 for IPv6).
        metric: Metric,
        /// The routing table; `"main"`, 254, unless given.
        table: Table,
        /// The source address of packets that the namespace itself sends.
        src: IpAddr,
        /// Whether packets are dropped without a word; false unless given.
        blackhole: bool,
        /// Whether packets are answered with "unreachable"; false unless given.
        unreachable: bool,
        /// Whether packets are answered with "prohibited"; false unless given.
        prohibit: bool,
        /// Whether the gateway is taken to be on the device's link, whatever the addresses say; false unless given.
        onlink: bool,
        /// Several next hops that share the traffic, each a map with `via`, `dev` and `weight`.
        hops: Maps,
    }
}

options! {
    /// Options of one of several next hops.
    pub struct HopOptions of "route: hops" {
        /// The gateway.
        via: IpAddr,
        /// The device that it leaves by.
        dev: DevOrName,
        /// Its share of the traffic; 1 unless given.
        weight: Weight,
    }
}

/// Adds a route.
#[derive(Debug, Serialize, Deserialize)]
struct AddRoute {
    netns: NetnsRef,
    route: Route,
    devs: Vec<DevRef>,
}

impl AddRoute {
    fn text(&self) -> String {
        let names =
            |index: u32| self.devs.iter().find(|dev| dev.index == index).map(|dev| name::kernel_name(&dev.name));
        self.route.shown(&names)
    }
}

impl AddRoute {
    /// Tells whether a device that the route goes over is gone or down, and took it along: who made that device answers for it.
    fn waits_for_dev(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let gateways: Vec<IpAddr> =
            self.route.via.into_iter().chain(self.route.hops.iter().filter_map(|hop| hop.via)).collect();
        let leads = |entry: &&DevEntry| {
            entry.dev.netns.no == self.netns.no
                && entry.addresses.iter().any(|net| gateways.iter().any(|gateway| net.contains(*gateway)))
        };
        let by_address = lab.model().all_devs().filter(leads).map(|entry| &entry.dev);
        let by_name = self.devs.iter().filter_map(|dev| lab.dev(dev));
        for dev in by_name.chain(by_address) {
            if kernel.link(dev)?.is_none_or(|link| !link.up) {
                return Ok(true);
            }
        }
        // One over a device that the lab removed later.
        Ok(self.devs.iter().any(|dev| lab.dev(dev).is_none()))
    }
}

impl StepSort for AddRoute {
    const WORD: &'static str = "route";
}

impl Step for AddRoute {
    fn doing(&self) -> String {
        let netns = if self.netns.no == 0 { String::new() } else { format!(" to netns `{}`", self.netns.name) };
        format!("add route `{}`{netns}", self.text())
    }

    fn like(&self) -> Vec<String> {
        let family = if self.route.dst.is_ipv6() { " -6" } else { "" };
        vec![format!("{}{family} route add {}", ip(&self.netns), self.text())]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { lives_in: vec![&self.netns], is_atomic: true, ..Footprint::default() }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.netns)?;
        self.devs.iter().try_for_each(|dev| model.living_dev(dev.no, &dev.shown()).map(|_| ()))
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if self.netns.made {
            return Ok(());
        }
        // Another lab's, which an undo would take for ours.
        let rtnl = kernel.rtnl(&self.netns)?;
        let routes = net::ip::route::list(&rtnl)?;
        let twin = routes.iter().any(|known| known.protocol == OWNER_PROTOCOL && self.route.takes_the_place_of(known));
        if twin { Err(net::Error::new(self.doing(), libc::EEXIST)) } else { Ok(()) }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Ok(vec![Op::Ask(&self.netns, net::ip::route::add_request(&self.route))])
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        let by_gateway = self.route.via.is_some() || self.route.hops.iter().any(|hop| hop.via.is_some());
        match refusal.errno() {
            libc::EINVAL | libc::ENETUNREACH | libc::EHOSTUNREACH if by_gateway => Some(format!(
                "a gateway must be on a network that `{}` has an address in; `onlink: true` takes it to be there",
                self.netns.name
            )),
            libc::ENETDOWN => Some("the device is down: `up()` sets it up".into()),
            _ => None,
        }
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.netns)?;
        // A route of another owner to the same place has another protocol, and a deletion that names ours passes it by.
        net::ip::route::delete(&rtnl, &self.route)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        if !lab.has_netns(&self.netns) {
            return Ok(true);
        }
        let known = kernel.routes(&self.netns)?;
        Ok(known.iter().any(|known| self.route.is(known)) || self.waits_for_dev(kernel, lab)?)
    }

    // A route over a device that goes is taken back all the same: it is gone then, which counts as done.
}

fn dev_of(lab: &mut Lab, netns: &NetnsHandle, named: DevOrName, doing: &str) -> Result<DevRef> {
    let dev = match named {
        DevOrName::Dev(dev) => dev,
        DevOrName::Name(name) => Dev::named(netns.clone(), &name),
    };
    let entry = dev.existing(lab)?;
    if entry.dev.netns.no == netns.0.no {
        return Ok(entry.dev);
    }
    Err(Error::invalid(doing).because(format!("{} is in another netns", dev.shown())))
}

/// Reads the destination: a network, an address alone, or `default`, whose family the gateway gives.
fn destination(dst: Dynamic, gateway: Option<IpAddr>, doing: &str) -> Result<IpNetwork> {
    let text = dst.clone().into_string().unwrap_or_default();
    if text == "default" {
        let everything = if gateway.is_some_and(|via| via.is_ipv6()) { "::/0" } else { "0.0.0.0/0" };
        return units::argument::<Subnet>(doing, everything.into()).map(|subnet| subnet.0);
    }
    if let Ok(ip) = IpAddr::from_script(dst.clone()) {
        return Ok(IpNetwork::from(ip));
    }
    units::argument::<Subnet>(doing, dst).map(|subnet| subnet.0)
}

fn add(lab: &mut Lab, netns: &NetnsHandle, dst: Dynamic, options: Map, place: Place) -> Result<()> {
    let options = RouteOptions::parse(options)?;
    let at = netns.living(lab)?;
    let shown = crate::prim::value::options::shown_value(&dst);
    let doing = format!("add route to {shown}");
    let mut hops = Vec::new();
    for map in options.hops.clone().map_or(Vec::new(), |hops| hops.0) {
        hops.push(HopOptions::parse(map)?);
    }
    let ways = || std::iter::once((options.via, &options.dev)).chain(hops.iter().map(|hop| (hop.via, &hop.dev)));
    let gateways: Vec<IpAddr> = ways().filter_map(|(via, _)| via).collect();
    // An IPv6 gateway can be that of IPv4 packets, so an address of IPv4 decides.
    let family = options.src.or_else(|| gateways.iter().copied().min_by_key(IpAddr::is_ipv6));
    let mut route = Route::new(destination(dst, family, &doing)?);
    let wrong = |because: String| Err(Error::invalid(doing.clone()).because(because));
    // The kernel takes an IPv6 gateway for IPv4 (RFC 8950), and none the other way (ip6_route_info_create: no RTA_VIA).
    let of_another = |address: &IpAddr, is_gateway: bool| match route.dst {
        IpNetwork::V4(_) => address.is_ipv6() && !is_gateway,
        IpNetwork::V6(_) => address.is_ipv4(),
    };
    let foreign = gateways.iter().find(|via| of_another(via, true));
    if let Some(address) = foreign.or(options.src.as_ref().filter(|src| of_another(src, false))) {
        return wrong(format!("`{address}` is of another family than `{}`", route.dst));
    }
    let nowhere = |(via, dev): &(Option<IpAddr>, &Option<DevOrName>)| {
        dev.is_none() && matches!(via, Some(IpAddr::V6(via)) if via.is_unicast_link_local())
    };
    if let Some((Some(via), _)) = ways().find(nowhere) {
        return wrong(format!("the link-local address `{via}` is on every link: say which one by `dev`"));
    }
    let kinds = [
        (options.blackhole, RouteKind::Blackhole, "blackhole"),
        (options.unreachable, RouteKind::Unreachable, "unreachable"),
        (options.prohibit, RouteKind::Prohibit, "prohibit"),
    ];
    let chosen: Vec<_> = kinds.into_iter().filter(|(given, ..)| *given == Some(true)).collect();
    let somewhere = options.via.is_some() || options.dev.is_some() || !hops.is_empty();
    match chosen.as_slice() {
        [] if !somewhere => return wrong("it says neither `via` nor `dev` nor `hops`, so it leads nowhere".into()),
        [] => {}
        [(_, kind, word)] if !somewhere => {
            let _ = word;
            route.kind = *kind;
        }
        [(_, _, word), ..] => return wrong(format!("`{word}` leads nowhere, so it goes with nothing else")),
    }
    if !hops.is_empty() && (options.via.is_some() || options.dev.is_some()) {
        return wrong("`hops` says where it goes, so `via` and `dev` are not given beside it".into());
    }
    let mut devs = Vec::new();
    let mut index_of = |lab: &mut Lab, dev: Option<DevOrName>| -> Result<Option<u32>> {
        let Some(dev) = dev else { return Ok(None) };
        let dev = dev_of(lab, netns, dev, &doing)?;
        let index = dev.index;
        devs.push(dev);
        Ok(Some(index))
    };
    route.dev = index_of(lab, options.dev)?;
    for hop in hops {
        let dev = index_of(lab, hop.dev)?;
        route.hops.push(NextHop { via: hop.via, dev, weight: hop.weight.map_or(1, |weight| weight.0) });
    }
    route.via = options.via;
    route.metric = options.metric.map(|metric| metric.0);
    route.table = options.table.map_or(route.table, |table| table.0);
    route.src = options.src;
    route.onlink = options.onlink.unwrap_or(false);
    route.protocol = OWNER_PROTOCOL;
    lab.ask(AddRoute { netns: at, route, devs }, place)
}

/// Returns the name of who made a route, or the number.
fn protocol(number: u8) -> Dynamic {
    let name = if number == OWNER_PROTOCOL { Some("topo") } else { net::protocol_name(number) };
    name.map_or_else(|| i64::from(number).into(), Dynamic::from)
}

/// Returns the next hops as maps that `route` takes as `hops`.
fn next_hops(route: &Route, name: &mut dyn FnMut(u32) -> Option<String>) -> Array {
    let only = NextHop { via: route.via, dev: route.dev, weight: 1 };
    let one = if route.hops.is_empty() && route.kind == RouteKind::Unicast { Some(only) } else { None };
    let mut as_map = |hop: &NextHop| {
        let via = hop.via.map_or(Dynamic::UNIT, |via| Dynamic::from(Ip(via)));
        let dev = hop.dev.and_then(&mut *name).map_or(Dynamic::UNIT, Dynamic::from);
        let weight = i64::from(hop.weight.max(1)).into();
        Dynamic::from_map(Map::from_iter([("via".into(), via), ("dev".into(), dev), ("weight".into(), weight)]))
    };
    route.hops.iter().chain(&one).map(&mut as_map).collect()
}

fn as_map(route: &Route, name: &mut dyn FnMut(u32) -> Option<String>) -> Map {
    let dev = route.dev.and_then(&mut *name);
    let mut map = Map::new();
    let mut put = |key: &str, value: Dynamic| {
        map.insert(key.into(), value);
    };
    put("dst", Dynamic::from(Net(route.dst)));
    put("kind", route.kind.word().into());
    put("table", Dynamic::from(Table(route.table)));
    put("protocol", protocol(route.protocol));
    put("hops", next_hops(route, name).into());
    put("metric", route.metric.map_or(0, i64::from).into());
    put("via", route.via.map_or(Dynamic::UNIT, |via| Dynamic::from(Ip(via))));
    put("dev", dev.map_or(Dynamic::UNIT, Dynamic::from));
    put("src", route.src.map_or(Dynamic::UNIT, |src| Dynamic::from(Ip(src))));
    map
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a route to a namespace: `dst` is a network, an address alone, or `"default"`.
    ///
    /// Like `ip route add DST via GATEWAY dev DEV metric N table T src IP`.
    ///
    /// An IPv4 route may have an IPv6 gateway (RFC 8950), as between routers without IPv4 addresses on their links; `default` is
    /// then of the family of `src`, or IPv6, and `"0.0.0.0/0"` is IPv4's.
    ///
    /// Fails with `invalid` where the destination has host bits, families are mixed or no way is given, with `exists` where
    /// there is such a route, and with the kernel's reason where it refuses: a gateway that is not reached directly.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let r = netns("r1");
    /// veth(h["eth0"], r["eth0"]);
    /// h["eth0"].addr("10.0.0.2/24");
    /// r["eth0"].addr("10.0.0.1/24");
    /// h.route("default", #{ via: "10.0.0.1" });
    /// h.route("192.0.2.0/24", #{ blackhole: true });
    /// assert(h.routes().some(|r| r.dst == net("0.0.0.0/0") && r.via == ip("10.0.0.1")));
    /// assert(h.ping("10.0.0.1").ok);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn route(ctx: NativeCallContext, netns: NetnsHandle, dst: Dynamic, options: Map) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| add(lab, &netns, dst, options, place))?;
        Ok(netns)
    }

    /// Returns the routes of a namespace, those of the local table left out, as maps with `dst`, `kind`, `via`, `dev`, `metric`,
    /// `table`, `src`, `protocol` and `hops`.
    ///
    /// `hops` has all next hops, one or several, each with `via`, `dev` and `weight`; `via` and `dev` are `()` where there are
    /// several. `table` is equal to its number, and to `"main"` or `"default"` where it is one of these; `table.number` is the number
    /// alone. `protocol` is who added the route: `"kernel"`,
    /// `"topo"`, `"boot"` (`ip route`), `"bird"` or another name of rtnetlink(7), or else a number.
    ///
    /// Like `ip route show table all`, for both families.
    ///
    /// Fails with `gone` where the namespace was removed.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].addr("10.0.0.1/24");
    /// let r = h.routes().find(|r| r.dst == net("10.0.0.0/24"));
    /// assert(r.dev == "eth0" && r.hops[0].dev == "eth0" && r.table == "main" && r.protocol == "kernel");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn routes(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let doing = format!("list the routes of `{}`", at.name);
            let both = |rtnl: &net::Netlink| Ok((net::ip::route::list(rtnl)?, net::link::list(rtnl)?));
            let (routes, links) = handles::look(lab, &at, &doing, both)?;
            let shown = routes.iter().filter(|route| route.table != net::ip::route::LOCAL);
            Ok(shown
                .map(|route| {
                    let mut name = |index| handles::name_at(lab, &at, &links, index);
                    Dynamic::from_map(as_map(route, &mut name))
                })
                .collect())
        })
    }

    /// The script's word for it.
    #[expect(dead_code, reason = "rhai reads the line and not the name")]
    pub type RoutingTable = crate::prim::value::units::Table;

    /// Returns the number of a routing table.
    #[rhai_fn(get = "number", pure)]
    pub fn table_number(table: &mut Table) -> i64 {
        i64::from(table.0)
    }

    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn table_text(table: &mut Table) -> String {
        table.to_string()
    }

    #[rhai_fn(global, name = "==")]
    pub fn tables_equal(a: Table, b: Table) -> bool {
        a == b
    }

    #[rhai_fn(global, name = "!=")]
    pub fn tables_differ(a: Table, b: Table) -> bool {
        a != b
    }

    #[rhai_fn(global, name = "==")]
    pub fn table_has_number(table: Table, number: i64) -> bool {
        table.is(&number.into())
    }

    #[rhai_fn(global, name = "!=")]
    pub fn table_lacks_number(table: Table, number: i64) -> bool {
        !table.is(&number.into())
    }

    #[rhai_fn(global, name = "==")]
    pub fn table_has_name(table: Table, name: &str) -> bool {
        table.is(&name.into())
    }

    #[rhai_fn(global, name = "!=")]
    pub fn table_lacks_name(table: Table, name: &str) -> bool {
        !table.is(&name.into())
    }

    #[rhai_fn(global, name = "==")]
    pub fn number_is_table(number: i64, table: Table) -> bool {
        table.is(&number.into())
    }

    #[rhai_fn(global, name = "!=")]
    pub fn number_is_no_table(number: i64, table: Table) -> bool {
        !table.is(&number.into())
    }

    #[rhai_fn(global, name = "==")]
    pub fn name_is_table(name: &str, table: Table) -> bool {
        table.is(&name.into())
    }

    #[rhai_fn(global, name = "!=")]
    pub fn name_is_no_table(name: &str, table: Table) -> bool {
        !table.is(&name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Kind;

    #[test]
    fn default_takes_the_family_of_its_gateway() {
        let default = |via: Option<&str>| {
            let via = via.map(|via| via.parse().expect("an address"));
            destination("default".into(), via, "add route").expect("a destination").to_string()
        };
        assert_eq!(default(None), "0.0.0.0/0");
        assert_eq!(default(Some("10.0.0.1")), "0.0.0.0/0");
        assert_eq!(default(Some("fd00::1")), "::/0");
    }

    #[test]
    fn a_destination_has_no_host_bits() {
        let error = destination("10.0.0.5/24".into(), None, "add route").expect_err("host bits");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("did you mean `10.0.0.0/24`?"), "{error}");
        assert!(destination("10.0.0.5".into(), None, "add route").is_ok());
    }
}
