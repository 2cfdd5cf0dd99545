//! What a container's namespace needs to be one, whoever made it: its loopback up, a device that learns nothing from strangers, and
//! neighbours that know it.

use ipnetwork::IpNetwork;
use rhai::plugin::*;
use serde::{Deserialize, Serialize};

use super::sysctl;
use crate::lab::{DevEntry, Footprint, Hold, Kernel, Model, Op, Outcome, Slot, Step, StepSort, Unfinished};
use crate::net::{self, Change, Netns};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, ask, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::link::whole;
use crate::prim::nat::ruleset::{enter, in_netns};
use crate::prim::value::handles::{Dev, NetnsHandle};
use crate::state::{DevRef, Error, NetnsAt, NetnsRef, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "endpoint",
    about: "What makes a namespace a container on a network: loopback, a device that learns nothing by itself, announcements.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(RaiseLo), step_sort!(SetAutoconf)],
    options: &[],
};

/// The number of `lo` in every namespace (net/core/dev.c, register_netdevice; the first device that is made).
const LO: u32 = 1;

/// Sets the loopback device of a namespace up.
#[derive(Debug, Serialize, Deserialize)]
struct RaiseLo {
    netns: NetnsRef,
}

impl StepSort for RaiseLo {
    const WORD: &'static str = "lo-up";
}

impl Step for RaiseLo {
    fn doing(&self) -> String {
        format!("set `lo` up{}", in_netns(&self.netns))
    }

    fn like(&self) -> Vec<String> {
        vec![format!("{} link set dev lo up", ip(&self.netns))]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { lives_in: vec![&self.netns], waits_for: Unfinished::None, ..Footprint::default() }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        let up = net::link::change_request(LO, &Change { up: Some(true), ..Change::default() });
        Ok(vec![Op::Ask(&self.netns, up)])
    }

    // Others may have come to rely on it.
    fn undo(&self, _kernel: &mut Kernel) -> net::Result<()> {
        Ok(())
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        Ok(kernel.link_at(&self.netns, LO)?.is_none_or(|link| link.up))
    }
}

/// Lets the kernel configure a device by what it receives, or not.
#[derive(Debug, Serialize, Deserialize)]
struct SetAutoconf {
    dev: DevRef,
    on: bool,
    /// Settings that were otherwise before, of what the lab did not make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<(String, String)>,
    /// Where other labs may hold the setting of all devices too: where it is noted who does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shared: Option<String>,
}

/// The setting that counts beside that of the device unless the device forwards (net/ipv4/devinet.c; IN_DEV_RX_REDIRECTS of
/// linux/inetdevice.h).
const REDIRECTS_OF_ALL: &str = "net/ipv4/conf/all/accept_redirects";

/// Settings with their values.
type Settings = Vec<(String, &'static str)>;

impl SetAutoconf {
    fn value(&self) -> &'static str {
        if self.on { "1" } else { "0" }
    }

    /// Returns the settings of the device under its name in the kernel (Documentation/networking/ip-sysctl.rst).
    fn of_dev(&self, dev: &str) -> Settings {
        // The device takes part in no choice of routers either: it sends no solicitations then (net/ipv6/addrconf.c,
        // addrconf_dad_completed).
        let settings = ["ipv6 accept_ra", "ipv6 autoconf", "ipv6 accept_redirects", "ipv4 accept_redirects"];
        let key = |(family, setting): (&str, &str)| format!("net/{family}/conf/{dev}/{setting}");
        settings.iter().filter_map(|text| text.split_once(' ')).map(|parts| (key(parts), self.value())).collect()
    }

    /// Returns all settings. That of all devices of the host is the host's own.
    fn settings(&self, dev: &str) -> Settings {
        let all = self.is_for_all().then(|| (REDIRECTS_OF_ALL.to_string(), "0"));
        self.of_dev(dev).into_iter().chain(all).collect()
    }

    fn is_for_all(&self) -> bool {
        !self.on && self.dev.netns.at != NetnsAt::Host
    }

    /// Returns the hold on the setting of all devices, of which each device of the lab has one.
    fn hold(&self) -> Hold<'_> {
        Hold { key: REDIRECTS_OF_ALL, value: "0", no: self.dev.no, apart: false }
    }

    /// Returns which settings are not held together with other labs.
    fn alone(&self, settings: Settings) -> Settings {
        settings.into_iter().filter(|(key, _)| self.shared.is_none() || key != REDIRECTS_OF_ALL).collect()
    }

    fn slot(&self, key: &str) -> Slot {
        (self.dev.netns.no, key.replace('/', ".").into())
    }

    /// Returns the settings that no later step sets, under the device's name now. None if the device is gone, or was moved: a device
    /// gets new settings in another namespace (net/ipv4/devinet.c, inetdev_event: NETDEV_UNREGISTER).
    fn wanted(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<Option<(Netns, Settings)>> {
        let Some((now, link)) = whole::there(kernel, lab, &self.dev)? else { return Ok(None) };
        if now.netns.no != self.dev.netns.no {
            return Ok(None);
        }
        let asked = self.settings(&name::kernel_name(&self.dev.name));
        let named = self.settings(&link.name);
        let last = asked.into_iter().zip(named).filter(|((key, _), _)| lab.is_last(&self.slot(key)));
        Ok(Some((kernel.netns(&now.netns)?, last.map(|(_, setting)| setting).collect())))
    }
}

impl StepSort for SetAutoconf {
    const WORD: &'static str = "autoconf";
}

impl Step for SetAutoconf {
    fn doing(&self) -> String {
        let verb = if self.on { "let the kernel configure" } else { "keep the kernel from configuring" };
        format!("{verb} {}", self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let (enter, settings) = (enter(&self.dev.netns), self.settings(&name::kernel_name(&self.dev.name)));
        let words: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![format!("{enter}sysctl -w {}", words.join(" "))]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.dev.netns],
            // That of all devices stays when the device goes.
            lives_on: self.shared.is_none().then_some(&self.dev),
            sets: self.settings(&name::kernel_name(&self.dev.name)).iter().map(|(key, _)| self.slot(key)).collect(),
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.dev.no, &self.dev.shown()).map(|_| ())
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        let of_dev = kernel.must_remember(self.dev.made || self.dev.netns.made);
        let of_all = kernel.must_remember(self.dev.netns.made);
        if !of_dev && !of_all {
            return Ok(());
        }
        let netns = match kernel.netns(&self.dev.netns) {
            // One that this settling makes.
            Err(error) if self.dev.netns.made && error.is_gone() => return Ok(()),
            opened => opened?,
        };
        if of_all && self.is_for_all() {
            self.shared = Some(kernel.place_of_holds(&netns)?);
        }
        if of_dev {
            let asked = self.of_dev(&name::kernel_name(&self.dev.name));
            let now = sysctl::readable(&netns, asked.into_iter().map(|(key, _)| key).collect())?;
            self.before = now.into_iter().filter(|(_, now)| now != self.value()).collect();
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let netns = kernel.netns(&self.dev.netns)?;
            net::netns::sysctl::write_all(&netns, &self.alone(self.settings(&name::kernel_name(&self.dev.name))))?;
            match self.shared {
                Some(_) => kernel.hold_setting(&self.dev.netns, &self.hold()),
                None => Ok(()),
            }
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if self.before.is_empty() && self.shared.is_none() {
            return Ok(());
        }
        let netns = match (kernel.netns(&self.dev.netns), &self.shared) {
            // With the namespace went all that was held in it.
            (Err(error), Some(place)) if error.is_gone() => return kernel.forget_holds(place),
            (opened, _) => opened?,
        };
        let ours =
            |(key, _): &&(String, String)| net::netns::sysctl::read(&netns, key).is_ok_and(|now| now == self.value());
        let back: Vec<(String, String)> = self.before.iter().filter(ours).cloned().collect();
        sysctl::restore(&netns, &back)?;
        match self.shared {
            Some(_) => kernel.let_setting_go(&self.dev.netns, &self.hold()),
            None => Ok(()),
        }
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let Some((netns, settings)) = self.wanted(kernel, lab)? else { return Ok(true) };
        if self.shared.is_some() && !kernel.has_setting(&self.dev.netns, &self.hold())? {
            return Ok(false);
        }
        let now = sysctl::readable(&netns, self.alone(settings).into_iter().map(|(key, _)| key).collect())?;
        Ok(now.iter().all(|(_, value)| value == self.value()))
    }

    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        let Some((netns, settings)) = self.wanted(kernel, lab)? else { return Ok(()) };
        if self.shared.is_some() {
            kernel.hold_setting(&self.dev.netns, &self.hold())?;
        }
        net::netns::sysctl::write_all(&netns, &self.alone(settings))
    }
}

/// Tells the neighbours of a device about its addresses.
fn announce(kernel: &mut Kernel, entry: &DevEntry) -> net::Result<()> {
    let dev = &entry.dev;
    let netns = kernel.netns(&dev.netns)?;
    let Some(link) = kernel.link(dev)? else { return Err(net::Error::new("find the device", libc::ENODEV)) };
    let Some(mac) = link.mac else { return Ok(()) };
    let rtnl = kernel.rtnl(&dev.netns)?;
    let addresses = match dev.made {
        // Of a device of the lab's own all is known that it gave it.
        true => entry.addresses.clone(),
        false => {
            let addresses = net::ip::addr::list(&rtnl)?;
            let here = addresses.iter().filter(|address| address.index == link.index && !address.tentative);
            here.map(|address| address.net).collect::<Vec<IpNetwork>>()
        }
    };
    if addresses.is_empty() {
        return Ok(());
    }
    if !link.up {
        return Err(net::Error::new("announce", libc::ENETDOWN));
    }
    let forwarding =
        || net::netns::sysctl::read(&netns, &format!("net/ipv6/conf/{}/forwarding", name::kernel_name(&dev.name)));
    let router = addresses.iter().any(IpNetwork::is_ipv6) && forwarding().is_ok_and(|forwarding| forwarding != "0");
    let told = net::Announcement { index: dev.index, mac, addresses: &addresses, router };
    match net::announce(&netns, &rtnl, &told) {
        // Without packet sockets the neighbours find out by themselves, a little later.
        Err(error) if error.is_unsupported() => Ok(()),
        done => done,
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sets the loopback device of a namespace up. It stays up when the lab goes: what runs there relies on it.
    ///
    /// Like `ip -n NETNS link set dev lo up`.
    ///
    /// Fails with `gone` where the namespace was removed.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// h["lo"].down();
    /// h.lo_up();
    /// assert(h.ping("127.0.0.1"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lo_up(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<NetnsHandle> {
        let at = with_lab(&ctx, |lab| netns.living(lab))?;
        ask(&ctx, RaiseLo { netns: at })?;
        Ok(netns)
    }

    /// Keeps the kernel from configuring a device by what it receives there, or lets it again: router advertisements with the
    /// addresses and routes that they give, and redirects of both families. Call it before the device comes up.
    ///
    /// Like `sysctl -w net.ipv6.conf.DEV.accept_ra=0 net.ipv6.conf.DEV.autoconf=0 net.ipv6.conf.DEV.accept_redirects=0
    /// net.ipv4.conf.DEV.accept_redirects=0`, and the last one for `all` too, which counts beside it; but never for `all` of the host.
    ///
    /// Fails with `missing` where there is no such device.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0", #{ up: false });
    /// h["eth0"].autoconf(false).up();
    /// assert(h.sysctl("net.ipv6.conf.eth0.accept_ra") == "0");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn autoconf(ctx: NativeCallContext, dev: Dev, on: bool) -> RhaiResultOf<Dev> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let entry = dev.existing(lab)?;
            lab.ask(SetAutoconf { dev: entry.dev, on, before: Vec::new(), shared: None }, place)
        })?;
        Ok(dev)
    }

    /// Tells the neighbours of a device which hardware address its addresses have: those that remember another one take this one at
    /// once. For an address that was another machine's before.
    ///
    /// Like `arping -U -I DEV ADDRESS` for each IPv4 address, and an unsolicited neighbour advertisement for each IPv6 one.
    ///
    /// Fails with `missing` where there is no such device, and with the kernel's reason where it is down.
    ///
    /// ```rhai
    /// let a = netns("a");
    /// let b = netns("b");
    /// veth(a["eth0"], b["eth0"]);
    /// a["eth0"].addr("10.0.0.1/24");
    /// b["eth0"].addr("10.0.0.2/24");
    /// assert(b.exec("ip neighbour add 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud stale").ok);
    /// a["eth0"].announce();
    /// assert(b.neighs()[0].mac == a["eth0"].mac);
    /// ```
    #[rhai_fn(name = "announce", return_raw)]
    pub fn announce_dev(ctx: NativeCallContext, dev: Dev) -> RhaiResultOf<Dev> {
        with_lab(&ctx, |lab| {
            let entry = dev.existing(lab)?;
            let (kernel, _) = lab.settled()?;
            let doing = || format!("announce the addresses of {}", dev.shown());
            super::announce(kernel, &entry).map_err(|source| Error::kernel(doing(), &source))
        })?;
        Ok(dev)
    }
}
