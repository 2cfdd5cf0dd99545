//! Addresses of both families, and what else a device is asked for.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Kernel, Model, OWNER_PROTOCOL, Op, Outcome, Step, StepSort, Unfinished};
use crate::net::{self, AddrOptions};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::link::whole;
use crate::prim::value::handles::{self, Dev};
use crate::prim::value::units;
use crate::prim::value::value::Ip;
use crate::state::{DevRef, Error, Kind, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "addr",
    about: "Addresses of devices.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddAddr)],
    options: &[],
};

/// Adds an address to a device.
#[derive(Debug, Serialize, Deserialize)]
struct AddAddr {
    dev: DevRef,
    net: IpNetwork,
    /// What `promote_secondaries` of somebody else's device was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promote: Option<String>,
}

impl AddAddr {
    /// Tells whether the device has the address, by a lab of ours.
    fn is_there(&self, kernel: &mut Kernel) -> net::Result<bool> {
        Ok(self.protocol_there(kernel)? == Some(OWNER_PROTOCOL))
    }

    /// Returns the protocol number of the address that the device has, which tells whose it is.
    fn protocol_there(&self, kernel: &mut Kernel) -> net::Result<Option<u8>> {
        let addresses = kernel.addresses(&self.dev.netns)?;
        let found = addresses.iter().find(|address| address.index == self.dev.index && address.net == self.net);
        Ok(found.map(|address| address.protocol))
    }
}

impl StepSort for AddAddr {
    const WORD: &'static str = "addr";
}

impl Step for AddAddr {
    fn doing(&self) -> String {
        format!("add address `{}` to {}", self.net, self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let quiet = if self.net.is_ipv6() { " nodad" } else { " brd +" };
        vec![format!("{} addr add {}{quiet} dev {}", ip(&self.dev.netns), self.net, name::kernel_name(&self.dev.name))]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.dev.netns],
            lives_on: Some(&self.dev),
            works_later: self.net.is_ipv6().then_some((&self.dev.netns, self.net.ip())),
            waits_for: Unfinished::None,
            is_atomic: true,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.dev.no, &self.dev.shown())?;
        let Some(entry) = model.dev_mut(self.dev.no) else { return Ok(()) };
        if entry.addresses.contains(&self.net) {
            return Err(Error::new(Kind::Exists, self.doing()).because("this lab gave it that address already"));
        }
        entry.addresses.push(self.net);
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        if let Some(entry) = model.dev_mut(self.dev.no) {
            entry.addresses.retain(|net| *net != self.net);
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if self.dev.made || self.dev.netns.made {
            return Ok(());
        }
        // Another lab's, which an undo would take for ours.
        if self.is_there(kernel)? {
            return Err(net::Error::new(self.doing(), libc::EEXIST));
        }
        if self.net.is_ipv6() {
            return Ok(());
        }
        if let Some(lost) = lost_with_the_last(kernel, &self.dev)? {
            let why = format!("it has no IPv4 address now, and without one again it would lose {lost}");
            return Err(net::Error::new(self.doing(), libc::EPERM).saying(why));
        }
        let netns = kernel.netns(&self.dev.netns)?;
        self.promote = net::netns::sysctl::read(&netns, &promote_key(&name::kernel_name(&self.dev.name))).ok();
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        // Without duplicate address detection: a lab's address works at once, not a second later (RFC 4862, 5.4).
        let options = AddrOptions { protocol: OWNER_PROTOCOL, nodad: true, peer: None };
        Ok(vec![Op::Ask(&self.dev.netns, net::ip::addr::add_request(self.dev.index, self.net, &options))])
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(link) = kernel.link(&self.dev)? else { return Ok(()) };
        let rtnl = kernel.rtnl(&self.dev.netns)?;
        let protocol = self.protocol_there(kernel)?;
        let there = protocol == Some(OWNER_PROTOCOL);
        if let Some(protocol) = protocol.filter(|_| !there) {
            let (net, dev) = (self.net, self.dev.shown());
            kernel.leave(format!("address `{net}` of {dev} has protocol {protocol} in place of {OWNER_PROTOCOL}"));
        }
        if self.promote.as_deref() != Some("0") {
            return if there { net::ip::addr::delete(&rtnl, self.dev.index, self.net) } else { Ok(()) };
        }
        // With the first address of a network the kernel deletes all others of it, which may be somebody else's.
        let (netns, key) = (kernel.netns(&self.dev.netns)?, promote_key(&link.name));
        if there {
            net::netns::sysctl::write(&netns, &key, "1")?;
            net::ip::addr::delete(&rtnl, self.dev.index, self.net)?;
        }
        if net::netns::sysctl::read(&netns, &key)? == "1" {
            net::netns::sysctl::write(&netns, &key, "0")
        } else {
            Ok(())
        }
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let wanted = |dev: &DevRef| lab.model().dev(dev.no).is_none_or(|entry| entry.addresses.contains(&self.net));
        match whole::there(kernel, lab, &self.dev)? {
            // What is down has no IPv6 address (net/ipv6/addrconf.c, addrconf_ifdown), and gets it back when it comes up.
            Some((dev, link)) if wanted(&dev) && (link.up || self.net.is_ipv4()) => self.is_there(kernel),
            _ => Ok(true),
        }
    }
}

/// The setting that keeps the other addresses of a network when the first one is deleted (net/ipv4/devinet.c,
/// __inet_del_ifa).
fn promote_key(dev: &str) -> String {
    format!("net/ipv4/conf/{dev}/promote_secondaries")
}

/// Says what somebody else's device without an IPv4 address would lose when the lab takes its own one away again: all that
/// goes over it (net/ipv4/fib_frontend.c, fib_disable_ip).
fn lost_with_the_last(kernel: &mut Kernel, dev: &DevRef) -> net::Result<Option<String>> {
    let rtnl = kernel.rtnl(&dev.netns)?;
    let addresses = net::ip::addr::list(&rtnl)?;
    if addresses.iter().any(|address| address.index == dev.index && address.net.is_ipv4()) {
        return Ok(None);
    }
    let routes = net::ip::route::list(&rtnl)?;
    let theirs = |route: &&net::Route| route.dst.is_ipv4() && route.uses(dev.index) && route.protocol != OWNER_PROTOCOL;
    if let Some(route) = routes.iter().find(theirs) {
        return Ok(Some(format!("the route to `{}`", route.dst)));
    }
    let neighbours = net::ip::neigh::list(&rtnl)?;
    let theirs = neighbours.iter().find(|neigh| {
        neigh.index == dev.index && neigh.ip.is_ipv4() && neigh.state == "permanent" && neigh.protocol != OWNER_PROTOCOL
    });
    Ok(theirs.map(|neigh| format!("the neighbour `{}`", neigh.ip)))
}

/// Returns what is wrong with a text that a device is to get as its address, if anything is.
pub fn wrong_address(text: &str) -> Option<Error> {
    let net: Result<IpNetwork> = units::argument("add an address", Dynamic::from(text.to_string()));
    let net = match net {
        Ok(net) => net,
        Err(error) => return Some(error),
    };
    let refused = |because| Error::invalid(format!("add address `{net}`")).because(because);
    check_usable(&net).err().map(refused)
}

/// Refuses what can't be a host's own address, before the kernel takes it without a word.
fn check_usable(net: &IpNetwork) -> std::result::Result<(), String> {
    let ip = net.ip();
    let wide = if net.is_ipv4() { 31 } else { 127 };
    if ip.is_unspecified() || ip.is_multicast() {
        return Err("it is not the address of a host".into());
    }
    if matches!(ip, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
        return Err(format!("it stands for `{}` inside a host, and is on no wire", ip.to_canonical()));
    }
    if net.prefix() < wide && ip == net.network() && net.is_ipv4() {
        return Err(format!("it is the address of the network itself; its first host is `{}`", first_host(net)));
    }
    if net.prefix() < wide && net.is_ipv4() && ip == net.broadcast() {
        return Err("it is the broadcast address of its network".into());
    }
    Ok(())
}

fn first_host(net: &IpNetwork) -> String {
    crate::prim::value::value::offset(net.network(), 1)
        .map_or(String::new(), |ip: IpAddr| format!("{ip}/{}", net.prefix()))
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Gives a device an address with its prefix length, IPv4 or IPv6; an IPv6 one works at once, without duplicate address
    /// detection.
    ///
    /// Like `ip addr add CIDR brd + dev DEV`, and `nodad` for IPv6.
    ///
    /// Fails with `invalid` where the text is no such address or names the network or its broadcast address, with `exists`
    /// where the device has it, and with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].addr("10.0.0.1/24");
    /// h["eth0"].addr("fd00::1/64");
    /// assert(h["eth0"].addrs().len() == 2);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn addr(ctx: NativeCallContext, dev: Dev, cidr: Dynamic) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let doing = format!("add an address to {}", dev.shown());
            let net: IpNetwork = units::argument(&doing, cidr)?;
            check_usable(&net).map_err(|because| {
                Error::invalid(format!("add address `{net}` to {}", dev.shown())).because(because)
            })?;
            let entry = dev.existing(lab)?;
            lab.ask(AddAddr { dev: entry.dev, net, promote: None }, place)
        })?;
        Ok(dev)
    }

    /// Returns the addresses of a device, as maps with `address`, `ip`, `prefix`, `version` and `scope`.
    ///
    /// The IPv6 link-local address that the kernel makes by itself is left out; one that was given is there.
    ///
    /// Like `ip addr show dev DEV`.
    ///
    /// Fails with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// h["eth0"].addr("10.0.0.1/24");
    /// let a = h["eth0"].addrs()[0];
    /// assert(a.address == "10.0.0.1/24" && a.ip == ip("10.0.0.1") && a.prefix == 24);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn addrs(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let entry = dev.existing(lab)?;
            let doing = format!("list the addresses of {}", dev.shown());
            let index = entry.dev.index;
            let both = |rtnl: &net::Netlink| Ok((net::ip::addr::list(rtnl)?, net::link::get(rtnl, index)?));
            let (addresses, link) = handles::look(lab, &entry.dev.netns, &doing, both)?;
            let mac = link.and_then(|link| link.mac);
            let here = addresses.iter().filter(|address| address.index == index && !address.is_automatic(mac));
            Ok(here
                .map(|address| {
                    Dynamic::from_map(Map::from_iter([
                        ("address".into(), address.net.to_string().into()),
                        ("ip".into(), Dynamic::from(Ip(address.net.ip()))),
                        ("prefix".into(), i64::from(address.net.prefix()).into()),
                        ("version".into(), if address.net.is_ipv4() { 4_i64 } else { 6 }.into()),
                        ("scope".into(), address.scope.clone().into()),
                    ]))
                })
                .collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_and_broadcast_addresses_are_refused() {
        let usable = |text: &str| check_usable(&text.parse().expect("an address")).is_ok();
        for good in
            ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32", "fd00::/64", "fd00::1/128", "127.0.0.2/8"]
        {
            assert!(usable(good), "{good}");
        }
        for bad in
            ["10.0.0.0/24", "10.0.0.255/24", "0.0.0.0/0", "224.0.0.1/24", "ff02::1/64", "::/64", "::ffff:10.0.0.1/120"]
        {
            assert!(!usable(bad), "{bad}");
        }
    }
}
