//! Addresses: pools of them in the store, and who holds which.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::lease::{Lease, alloc, alloc_many};
use crate::ipam::{Ipam, PoolSpec, Range, Subnet};
use crate::lab::{Footprint, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::{self, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::units::{self, Count, DevOrName, FromScript};
use crate::prim::value::value::{Ip, Net, without_host_bits};
use crate::state::{Error, Kind, NetnsRef, Place, Result, as_refusal};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "ipam",
    about: "Addresses out of pools, which all labs of the machine share.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(Lease), step_sort!(AddPool)],
    options: &[AllocOptions::SET, PoolOptions::SET],
};

options! {
    /// Options of `ipam_alloc`.
    pub struct AllocOptions of "ipam_alloc" {
        /// The address that is wanted; the next free one unless given.
        ip: IpAddr,
        /// Who it is for, beside the lab, which holds it.
        owner: String,
    }
}

options! {
    /// Options of `ipam_pool`.
    pub struct PoolOptions of "ipam_pool" {
        /// The address that is never handed out, since it is the gateway's; the first one unless given.
        gateway: IpAddr,
        /// What is handed out, such as `"10.5.0.100-10.5.0.200"`; the whole subnet unless given.
        range: IpRange,
        /// What is never handed out: a list of addresses, ranges and networks.
        reserve: IpRanges,
        /// The namespace with whose routes and addresses it must not overlap.
        clear_of: NetnsHandle,
        /// The device of that namespace whose routes and addresses do not count.
        except: DevOrName,
    }
}

/// Addresses that follow each other, as a script writes them.
#[derive(Debug, Clone)]
pub struct IpRange(Range);

impl FromScript for IpRange {
    const WHAT: &'static str = r#"an address, a range such as "10.0.0.5-10.0.0.9", or a network"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Ok(net) = IpNetwork::from_script(value.clone()) {
            return Ok(IpRange(Range::from(net)));
        }
        let text = value.to_string();
        text.parse::<Range>().map(IpRange)
    }
}

/// A list of such.
#[derive(Debug, Clone)]
pub struct IpRanges(Vec<Range>);

impl FromScript for IpRanges {
    const WHAT: &'static str = "a list of addresses, ranges and networks";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = value.into_array().map_err(|_| String::new())?;
        let ranges: std::result::Result<Vec<Range>, String> =
            list.into_iter().map(|entry| IpRange::from_script(entry).map(|range| range.0)).collect();
        ranges.map(IpRanges)
    }
}

/// Makes a pool.
#[derive(Debug, Serialize, Deserialize)]
struct AddPool {
    spec: PoolSpec,
}

impl StepSort for AddPool {
    const WORD: &'static str = "pool";
}

impl Step for AddPool {
    fn doing(&self) -> String {
        format!("make the pool `{}`", self.spec.subnet)
    }

    fn like(&self) -> Vec<String> {
        Vec::new()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { is_atomic: true, ..Footprint::default() }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let add = || Ipam::new(kernel.store()?.as_ref()).add_pool(&self.spec);
            add().map(|_| ()).map_err(as_refusal)
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let remove = || {
            let store = kernel.store()?;
            drop_pool(&Ipam::new(store.as_ref()), self.spec.subnet, &self.spec.owner)
        };
        remove().map(|_| ()).map_err(as_refusal)
    }

    // A pool is in the store.
    fn is_held(&self, _kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        Ok(true)
    }
}

/// Removes a pool, with what is leased of it, if it is the owner's; tells whether it was.
fn drop_pool(ipam: &Ipam, subnet: IpNetwork, owner: &str) -> Result<bool> {
    let gone = |error: &Error| error.kind() == Kind::Missing;
    match ipam.pool(subnet) {
        Ok(pool) if pool.spec.owner == owner => match ipam.remove_pool(subnet, true) {
            Err(error) if gone(&error) => Ok(false),
            removed => removed.map(|()| true),
        },
        Ok(_) => Ok(false),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn subnet_of(doing: &str, value: Dynamic) -> Result<IpNetwork> {
    let subnet: IpNetwork = units::argument(doing, value)?;
    without_host_bits(subnet).map_err(|because| Error::invalid(format!("{doing} `{subnet}`")).because(because))
}

/// Returns who holds an address.
fn holder(ipam: &Ipam, subnet: IpNetwork, ip: IpAddr) -> Result<Option<String>> {
    match ipam.holder(subnet, ip) {
        Err(error) if error.kind() == Kind::Missing => Ok(None),
        holder => holder,
    }
}

/// Tells whether an owner is a lab, for whomever it holds the address.
fn is_of(owner: &str, lab: &str) -> bool {
    owner.strip_prefix(lab).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

/// What of a namespace a pool must not overlap: each network with the words for it.
fn networks_of(lab: &mut Lab, netns: &NetnsRef, except: Option<&str>) -> Result<Vec<(IpNetwork, String)>> {
    let doing = format!("look for networks of `{}`", netns.name);
    let ask = |rtnl: &net::Netlink| {
        let (links, routes) = (net::link::list(rtnl)?, net::ip::route::list(rtnl)?);
        Ok((links, routes, net::ip::addr::list(rtnl)?))
    };
    let (links, routes, addresses) = handles::look(lab, netns, &doing, ask)?;
    let skipped = links.iter().find(|link| Some(link.name.as_str()) == except).map(|link| link.index);
    let counts = |net: &IpNetwork| match net.network() {
        _ if net.prefix() == 0 => false,
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unicast_link_local(),
    };
    let mut found = Vec::new();
    for address in addresses.iter().filter(|address| Some(address.index) != skipped && counts(&address.net)) {
        let dev = links.iter().find(|link| link.index == address.index).map_or("", |link| link.name.as_str());
        found.push((address.net, format!("the address `{}` of `{dev}`", address.net)));
    }
    let elsewhere = |route: &&net::Route| skipped.is_none_or(|index| !route.uses(index));
    for route in routes.iter().filter(elsewhere).filter(|route| counts(&route.dst)) {
        found.push((route.dst, format!("the route to `{}`", route.dst)));
    }
    Ok(found)
}

fn overlaps(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// Says why a subnet has no addresses for hosts (RFC 6890 lists those of both families).
fn not_for_hosts(subnet: &IpNetwork) -> Option<&'static str> {
    let in_any = |nets: &[&str]| nets.iter().filter_map(|net| net.parse().ok()).any(|net| overlaps(&net, subnet));
    match () {
        () if in_any(&["224.0.0.0/4", "ff00::/8"]) => Some("it has addresses of groups, which are no host's"),
        () if in_any(&["127.0.0.0/8", "::1/128"]) => Some("it has addresses with which a host reaches itself alone"),
        () if in_any(&["::ffff:0:0/96"]) => {
            Some("it has IPv4-mapped addresses, which stand for those of IPv4 inside a host and are on no wire")
        }
        () if in_any(&["100::/64"]) => Some("it has addresses whose packets every router discards"),
        () if in_any(&["0.0.0.0/8", "240.0.0.0/4", "::/96"]) => Some("it has addresses that are reserved"),
        () if in_any(&["fe80::/10", "169.254.0.0/16"]) => {
            Some("it has link-local addresses, which every device can have and no router sends on")
        }
        () => None,
    }
}

fn add_pool(lab: &mut Lab, subnet: IpNetwork, options: PoolOptions, place: Place) -> Result<Map> {
    lab.take_name()?;
    let doing = format!("make the pool `{subnet}`");
    if let Some(why) = not_for_hosts(&subnet) {
        return Err(Error::invalid(doing).because(why).hint(
            "take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8, as RFC 1918 and RFC 4193 have it",
        ));
    }
    let gateway = match options.gateway {
        Some(gateway) => gateway,
        None => Subnet::of(subnet)?.first_usable(),
    };
    let spec = PoolSpec {
        gateway: Some(gateway),
        range: options.range.map(|range| range.0),
        reserved: options.reserve.map(|ranges| ranges.0).unwrap_or_default(),
        ..PoolSpec::new(subnet, lab.name())
    };
    // Another pool is named before what that has made in the kernel.
    let store = lab.store()?;
    Ipam::new(store.as_ref()).check_pool(&spec)?;
    if let Some(netns) = &options.clear_of {
        let at = netns.living(lab)?;
        let except =
            options.except.as_ref().map(|dev| crate::prim::nat::ruleset::dev_name(lab, &at, dev)).transpose()?;
        let found = networks_of(lab, &at, except.as_deref())?;
        if let Some((_, what)) = found.iter().find(|(net, _)| overlaps(net, &subnet)) {
            let place = if at.no == 0 { "the host".to_string() } else { format!("netns `{}`", at.name) };
            return Err(Error::new(Kind::Exists, doing)
                .because(format!("it overlaps {what} of {place}"))
                .hint("take another subnet; without one a network gets one that is free, as `ipam_subnet` finds it"));
        }
    }
    lab.ask(AddPool { spec }, place)?;
    Ok(Map::from_iter([("subnet".into(), subnet.to_string().into()), ("gateway".into(), gateway.to_string().into())]))
}

/// Returns a lease for the script.
fn lease_row(lease: &crate::ipam::Lease) -> Map {
    Map::from_iter([
        ("ip".into(), Dynamic::from(Ip(lease.ip))),
        ("owner".into(), lease.owner.clone().into()),
        ("since".into(), i64::try_from(lease.since).unwrap_or(i64::MAX).into()),
    ])
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Leases an address of a subnet to the lab, and returns it: the next free one, or the one that is wanted. It is released
    /// when the lab goes. A subnet without a pool gets one for as long as something of it is leased.
    ///
    /// Addresses go on through the pool before a released one is handed out again; never the network's own, nor broadcast, nor
    /// the gateway.
    ///
    /// With a number it leases that many at once, or none, and returns them in a list: the ones that a call for each would have
    /// had, in that order. The disk is waited for once for a thousand of them, where a call for each waits every time.
    ///
    /// Like the `host-local` plugin of CNI.
    ///
    /// Fails with `exhausted` where none is free, or fewer than wanted, saying how many are left, with `exists` where the wanted one
    /// is taken, naming the holder, and with `invalid` where it is nobody's to have.
    ///
    /// ```rhai
    /// assert(ipam_alloc("10.0.0.0/24") == ip("10.0.0.1"));
    /// assert(ipam_alloc("10.0.0.0/24", #{ ip: "10.0.0.9", owner: "printer" }) == ip("10.0.0.9"));
    /// assert(ipam_alloc("10.0.0.0/24") == ip("10.0.0.2"));
    /// let all = ipam_alloc("10.1.0.0/16", 50);
    /// assert(all.len == 50 && all[49] == ip("10.1.0.50"));
    /// ```
    #[rhai_fn(name = "ipam_alloc", return_raw)]
    pub fn ipam_alloc_with(ctx: NativeCallContext, subnet: Dynamic, options: Map) -> RhaiResultOf<Ip> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = AllocOptions::parse(options)?;
            let subnet = subnet_of("lease an address of", subnet)?;
            alloc(lab, subnet, options, place).map(Ip)
        })
    }

    /// Leases the next free address of a subnet to the lab.
    #[rhai_fn(name = "ipam_alloc", return_raw)]
    pub fn ipam_alloc(ctx: NativeCallContext, subnet: Dynamic) -> RhaiResultOf<Ip> {
        ipam_alloc_with(ctx, subnet, Map::new())
    }

    /// Leases that many addresses of a subnet to the lab at once, or none; `owner` is who they are for.
    #[rhai_fn(name = "ipam_alloc", return_raw)]
    pub fn ipam_alloc_many_with(
        ctx: NativeCallContext,
        subnet: Dynamic,
        count: i64,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = AllocOptions::parse(options)?;
            let doing = "lease addresses of";
            let subnet = subnet_of(doing, subnet)?;
            let count: Count = units::argument(&format!("{doing} the pool `{subnet}`"), count.into())?;
            let ips = alloc_many(lab, subnet, count.0, options, place)?;
            Ok(ips.into_iter().map(|ip| Dynamic::from(Ip(ip))).collect())
        })
    }

    /// Leases that many addresses of a subnet to the lab at once, or none.
    #[rhai_fn(name = "ipam_alloc", return_raw)]
    pub fn ipam_alloc_many(ctx: NativeCallContext, subnet: Dynamic, count: i64) -> RhaiResultOf<Array> {
        ipam_alloc_many_with(ctx, subnet, count, Map::new())
    }

    /// Releases an address before its lab goes; tells whether it was leased, so that a second time does no harm.
    ///
    /// Like the `DEL` of a plugin of CNI.
    ///
    /// Fails with `invalid` where the address is not in the subnet, and with `denied` where another lab holds it.
    ///
    /// ```rhai
    /// let a = ipam_alloc("10.0.0.0/24");
    /// assert(ipam_release("10.0.0.0/24", a));
    /// assert(!ipam_release("10.0.0.0/24", a));
    /// ```
    #[rhai_fn(name = "ipam_release", return_raw)]
    pub fn ipam_release(ctx: NativeCallContext, subnet: Dynamic, ip: Dynamic) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            lab.note_act();
            let subnet = subnet_of("release an address of", subnet)?;
            let ip: IpAddr = units::argument("release an address", ip)?;
            lab.settle()?;
            let store = lab.store()?;
            let ipam = Ipam::new(store.as_ref());
            match holder(&ipam, subnet, ip)? {
                Some(owner) if !is_of(&owner, lab.name()) => Err(Error::new(Kind::Denied, format!("release `{ip}`"))
                    .because(format!("`{owner}` holds it, not this lab"))),
                owner => ipam.release(subnet, ip, owner.as_deref()),
            }
        })
    }

    /// Releases an address that a lab holds, for whomever; one that another lab holds by now stays.
    #[rhai_fn(name = "ipam_release", return_raw)]
    pub fn ipam_release_of(ctx: NativeCallContext, subnet: Dynamic, ip: Dynamic, owner: &str) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            lab.note_act();
            let subnet = subnet_of("release an address of", subnet)?;
            let ip: IpAddr = units::argument("release an address", ip)?;
            lab.settle()?;
            let store = lab.store()?;
            let ipam = Ipam::new(store.as_ref());
            match holder(&ipam, subnet, ip)? {
                Some(holder) if is_of(&holder, owner) => match ipam.release(subnet, ip, Some(&holder)) {
                    Err(error) if error.kind() == Kind::Denied => Ok(false),
                    released => released,
                },
                _ => Ok(false),
            }
        })
    }

    /// Returns what is leased of a subnet, by address, as maps with `ip`, `owner` and `since`, in seconds since 1970.
    ///
    /// Like `ls /var/lib/cni/networks/NAME`.
    ///
    /// Fails with `state` where the pool's file is damaged.
    ///
    /// ```rhai
    /// ipam_alloc("10.0.0.0/24", #{ owner: "printer" });
    /// let leases = ipam_list("10.0.0.0/24");
    /// assert(leases.len == 1 && leases[0].owner.ends_with("printer"));
    /// ```
    #[rhai_fn(name = "ipam_list", return_raw)]
    pub fn ipam_list(ctx: NativeCallContext, subnet: Dynamic) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let subnet = subnet_of("list the leases of", subnet)?;
            lab.settle()?;
            let store = lab.store()?;
            let leases = match Ipam::new(store.as_ref()).leases(subnet) {
                Err(error) if error.kind() == Kind::Missing => Vec::new(),
                leases => leases?,
            };
            Ok(leases.iter().map(lease_row).map(Dynamic::from_map).collect())
        })
    }

    /// Returns all pools, by subnet, as maps with `subnet`, `gateway`, `owner` and `used`.
    #[rhai_fn(name = "ipam_list", return_raw)]
    pub fn ipam_pools(ctx: NativeCallContext) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            lab.settle()?;
            let store = lab.store()?;
            let ipam = Ipam::new(store.as_ref());
            let mut rows = Array::new();
            for pool in ipam.pools()? {
                let used = match ipam.usage(pool.spec.subnet) {
                    // One that went since it was listed.
                    Err(error) if error.kind() == Kind::Missing => continue,
                    usage => usage?.used,
                };
                rows.push(Dynamic::from_map(Map::from_iter([
                    ("subnet".into(), pool.spec.subnet.to_string().into()),
                    ("gateway".into(), pool.spec.gateway.map_or(Dynamic::UNIT, |ip| ip.to_string().into())),
                    ("owner".into(), pool.spec.owner.into()),
                    ("used".into(), i64::try_from(used).unwrap_or(i64::MAX).into()),
                ])));
            }
            Ok(rows)
        })
    }

    /// Returns the leases of labs that are no more, as maps with `subnet`, `ip`, `owner` and `since`: what `topo gc` gives back.
    ///
    /// Like a look for stale files in `/var/lib/cni/networks`.
    ///
    /// Fails with `state` where a pool's file is damaged.
    ///
    /// ```rhai
    /// ipam_alloc("10.0.0.0/24");
    /// assert(ipam_audit().is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ipam_audit(ctx: NativeCallContext) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            lab.settle()?;
            let row = |held: crate::ipam::Held| {
                let mut row = lease_row(&held.lease);
                row.insert("subnet".into(), held.subnet.to_string().into());
                Dynamic::from_map(row)
            };
            Ok(crate::lab::audit(lab.state())?.into_iter().map(row).collect())
        })
    }

    /// Returns a free subnet out of a larger one: the first of that prefix length that overlaps no pool and no route or address
    /// of the host.
    ///
    /// Like the choice that `docker network create` makes without `--subnet`.
    ///
    /// Fails with `exhausted` where none is free, and with `invalid` for a prefix length that doesn't fit.
    ///
    /// ```rhai
    /// let first = ipam_subnet("10.64.0.0/10", 24);
    /// ipam_alloc(first);
    /// assert(ipam_subnet("10.64.0.0/10", 24) != first);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ipam_subnet(ctx: NativeCallContext, pool: Dynamic, prefix: i64) -> RhaiResultOf<Net> {
        with_lab(&ctx, |lab| {
            let within = subnet_of("find a subnet in", pool)?;
            let prefix = u8::try_from(prefix).map_err(|_| {
                Error::invalid(format!("find a /{prefix} in `{within}`")).because("there is no such prefix length")
            })?;
            let taken = networks_of(lab, &NetnsRef::host(), None)?;
            let taken: Vec<IpNetwork> = taken.into_iter().map(|(net, _)| net).collect();
            let store = lab.store()?;
            Ipam::new(store.as_ref()).free_subnet(within, prefix, &taken).map(Net)
        })
    }

    /// Makes a pool of a subnet, which goes with the lab. Returns `#{ subnet, gateway }`.
    ///
    /// Like the IPAM part of `docker network create --subnet --gateway`.
    ///
    /// Fails with `exists` where it overlaps another pool, or a route or an address of the namespace that it must be clear of,
    /// naming that, and with `invalid` where the gateway is not in it.
    ///
    /// ```rhai
    /// let pool = ipam_pool("10.5.0.0/24", #{ clear_of: host });
    /// assert(pool.gateway == "10.5.0.1");
    /// assert(ipam_alloc("10.5.0.0/24") == ip("10.5.0.2"));
    /// ipam_pool("10.6.0.0/24", #{ range: "10.6.0.100-10.6.0.199", reserve: ["10.6.0.100"] });
    /// assert(ipam_alloc("10.6.0.0/24") == ip("10.6.0.101"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ipam_pool(ctx: NativeCallContext, subnet: Dynamic, options: Map) -> RhaiResultOf<Map> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = PoolOptions::parse(options)?;
            let subnet = subnet_of("make the pool", subnet)?;
            add_pool(lab, subnet, options, place)
        })
    }

    /// Removes a pool with all that is leased of it, if it is that lab's; tells whether it was.
    ///
    /// Like the end of `docker network rm`.
    ///
    /// Fails with `state` where the pool's file is damaged.
    ///
    /// ```rhai
    /// lab_within("office", #{}, || { ipam_pool("10.5.0.0/24", #{}); });
    /// assert(!ipam_drop("10.5.0.0/24", "shop") && ipam_drop("10.5.0.0/24", "office"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ipam_drop(ctx: NativeCallContext, subnet: Dynamic, owner: &str) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            lab.note_act();
            let subnet = subnet_of("remove the pool", subnet)?;
            lab.settle()?;
            let store = lab.store()?;
            drop_pool(&Ipam::new(store.as_ref()), subnet, owner)
        })
    }
}
