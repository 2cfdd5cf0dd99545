//! Kernel settings of a namespace, forwarding among them.

use rhai::plugin::*;
use rhai::{Dynamic, Map};
use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Hold, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::nat::ruleset::{enter, in_netns};
use crate::prim::probe::ping::Version;
use crate::prim::value::handles::{self, NetnsHandle};
use crate::prim::value::options::options;
use crate::state::{Error, NetnsAt, NetnsRef, Place, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "sysctl",
    about: "Kernel settings of a namespace.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(SetSysctl)],
    options: &[ForwardOptions::SET],
};

options! {
    /// Options of `forward`.
    pub struct ForwardOptions of "forward" {
        /// That devices of the host that did not forward before do not forward to each other now: what comes in by one of them
        /// goes out by devices that came later alone. Without effect in another netns, and as long as a lab makes the host a
        /// router without it.
        apart: bool,
        /// The version of IP, 4 or 6; both unless given.
        version: Version,
    }
}

/// Sets a kernel setting.
#[derive(Debug, Serialize, Deserialize)]
struct SetSysctl {
    netns: NetnsRef,
    key: String,
    value: String,
    before: Option<String>,
    /// Other settings that the kernel changes along with this one, as they were before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    along: Vec<(String, String)>,
    /// What tells the step from the lab's others, for a setting of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    no: u32,
    /// Whether the setting was there before.
    #[serde(default, skip_serializing_if = "is_default")]
    held: bool,
    /// For forwarding of the host: whether its devices are kept apart.
    #[serde(default, skip_serializing_if = "is_default")]
    apart: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The settings by which a namespace forwards.
const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

impl SetSysctl {
    /// Tells whether other labs may hold the setting too: one of the host, but of a device that this lab makes.
    fn is_shared(&self) -> bool {
        self.netns.at == NetnsAt::Host && self.held
    }

    fn hold(&self) -> Hold<'_> {
        Hold { key: &self.key, value: &self.value, no: self.no, apart: self.apart }
    }
}

impl StepSort for SetSysctl {
    const WORD: &'static str = "sysctl";
}

impl Step for SetSysctl {
    fn doing(&self) -> String {
        format!("set `{}` to `{}`{}", self.key, name::shown(&self.value), in_netns(&self.netns))
    }

    fn like(&self) -> Vec<String> {
        let enter = enter(&self.netns);
        vec![format!("{enter}sysctl -w {}={}", self.key, self.value)]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.netns],
            sets: vec![(self.netns.no, self.key.replace('/', ".").into())],
            ..Footprint::default()
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if !kernel.must_remember(self.netns.made) {
            return Ok(());
        }
        let netns = match kernel.netns(&self.netns) {
            // One that this settling makes.
            Err(error) if self.netns.made && error.is_gone() => return Ok(()),
            opened => opened?,
        };
        match net::netns::sysctl::read(&netns, &self.key) {
            // What it was before is noted once for all labs that hold it.
            Ok(_) if self.netns.at == NetnsAt::Host => self.held = true,
            Ok(now) => {
                self.before = Some(now);
                self.along = changed_along(&netns, &self.key)?;
            }
            // A setting of a device that this settling makes: it goes with the device.
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Forwarding is set aside in a namespace of the lab's own: its devices come to the same whether they were there before or not,
    /// and nothing else in a settling goes by it (inet_forward_change, addrconf_fixup_forwarding).
    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        if !self.netns.made || !FORWARDING.contains(&self.key.as_str()) {
            return Op::alone(|kernel| {
                if self.is_shared() {
                    return kernel.hold_setting(&self.netns, &self.hold());
                }
                let netns = kernel.netns(&self.netns)?;
                net::netns::sysctl::write(&netns, &self.key, &self.value)
            });
        }
        let (netns, key, value) = (kernel.netns(&self.netns)?, self.key.clone(), self.value.clone());
        Ok(vec![Op::Aside(Box::new(move || net::netns::sysctl::write(&netns, &key, &value)))])
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        match refusal.errno() {
            libc::ENOENT | libc::EACCES | libc::EPERM if !self.is_shared() && is_of_the_machine(&self.key, refusal) => {
                Some(format!(
                    "the kernel has `{}` once for the whole machine, and a netns can't change it; `host.sysctl(…)`, run as root, \
                     sets it for all",
                    self.key
                ))
            }
            libc::ENOENT => Some(format!("this kernel has no setting `{}` in a netns", self.key)),
            libc::EINVAL => Some(format!("`{}` does not take this value", self.key)),
            _ => None,
        }
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if self.is_shared() {
            return kernel.let_setting_go(&self.netns, &self.hold());
        }
        let Some(before) = &self.before else { return Ok(()) };
        let netns = kernel.netns(&self.netns)?;
        let now = net::netns::sysctl::read(&netns, &self.key)?;
        // Somebody else may have set it since: then it is theirs.
        if same(&self.value, before) || !same(&now, &self.value) && !same(&now, before) {
            return Ok(());
        }
        // An undo that was cut short came this far; what follows is still to do.
        if !same(&now, before) {
            net::netns::sysctl::write(&netns, &self.key, before)?;
        }
        restore(&netns, &self.along)
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        if self.is_shared() {
            return kernel.has_setting(&self.netns, &self.hold());
        }
        let netns = kernel.netns(&self.netns)?;
        match net::netns::sysctl::read(&netns, &self.key) {
            Ok(now) => Ok(same(&now, &self.value)),
            // It went with its device.
            Err(error) if error.is_gone() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What others hold stays theirs meanwhile: the host does not stop forwarding for a moment.
    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        if !self.is_shared() {
            self.undo(kernel)?;
        }
        kernel.make(self)
    }
}

/// Tells whether a netns lacks a setting, or may not change it, because it is that of the whole machine. Such a file is not in a netns, or
/// nobody may write to it there (net/netfilter/nf_conntrack_standalone.c, net/core/sysctl_net_core.c: mode 0444).
fn is_of_the_machine(key: &str, refusal: &net::Error) -> bool {
    let here = net::netns::sysctl::path(key).is_ok_and(|path| path.exists());
    here || refusal.errno() != libc::ENOENT
}

/// Writes a key as the kernel has it: a device with a long name has a short one there, which its directory bears.
fn kernel_key(lab: &mut Lab, netns: &NetnsRef, key: &str) -> Result<String> {
    let Ok(path) = net::netns::sysctl::path(key) else { return Ok(key.into()) };
    let parts: Vec<&str> = path.iter().skip(4).filter_map(|part| part.to_str()).collect();
    let &[family, table @ ("conf" | "neigh"), dev, setting] = parts.as_slice() else { return Ok(key.into()) };
    if dev.len() < libc::IFNAMSIZ {
        return Ok(key.into());
    }
    let known = handles::find_dev(lab, netns, dev)?.map(|entry| entry.dev.name);
    let dev = name::kernel_name(known.as_deref().unwrap_or(dev));
    Ok(format!("net/{family}/{table}/{dev}/{setting}"))
}

/// Reads the settings that the kernel changes along with `key`: a setting of all devices is given to each of them, and
/// forwarding turns redirects off (net/ipv4/devinet.c, inet_forward_change; net/ipv6/addrconf.c, addrconf_fixup_forwarding).
fn changed_along(netns: &net::Netns, key: &str) -> net::Result<Vec<(String, String)>> {
    let parts: Vec<&str> = key.split(['.', '/']).collect();
    let (family, setting) = match parts.as_slice() {
        ["net", "ipv4", "ip_forward"] => ("ipv4", "forwarding"),
        ["net", family, "conf", "all", setting] => (*family, *setting),
        _ => return Ok(Vec::new()),
    };
    let mut keys = Vec::new();
    for dev in net::netns::sysctl::list(netns, &format!("net/{family}/conf"))? {
        keys.push(format!("net/{family}/conf/{dev}/{setting}"));
    }
    if family == "ipv4" && setting == "forwarding" {
        keys.push("net/ipv4/conf/all/accept_redirects".into());
    }
    readable(netns, keys)
}

/// Reads those of the settings that are there and can be read.
pub(in crate::prim) fn readable(netns: &net::Netns, keys: Vec<String>) -> net::Result<Vec<(String, String)>> {
    let mut values = Vec::new();
    for key in keys {
        match net::netns::sysctl::read(netns, &key) {
            Ok(value) => values.push((key, value)),
            // Of a device that went since the list was made, or a secret, which is EIO as long as nobody has set it.
            Err(error) if error.is_gone() || error.is_denied() || error.errno() == libc::EIO => {}
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

/// Reads all settings of a device.
pub(in crate::prim) fn of_dev(netns: &net::Netns, dev: &str) -> net::Result<Vec<(String, String)>> {
    let mut keys = Vec::new();
    for dir in ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"].map(|dir| format!("net/{dir}/{dev}")) {
        match net::netns::sysctl::list(netns, &dir) {
            Ok(names) => keys.extend(names.iter().map(|name| format!("{dir}/{name}"))),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    readable(netns, keys)
}

/// Writes settings back that are no longer what they were; one that went with its device is left out.
pub(in crate::prim) fn restore(netns: &net::Netns, settings: &[(String, String)]) -> net::Result<()> {
    for (key, before) in settings {
        match net::netns::sysctl::read(netns, key) {
            Ok(now) if !same(&now, before) => net::netns::sysctl::write(netns, key, before)?,
            _ => {}
        }
    }
    Ok(())
}

/// Compares two values the way the kernel reads them: several numbers are parted by any white space.
fn same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

pub(in crate::prim) fn set(lab: &mut Lab, netns: &NetnsHandle, key: &str, value: String, place: Place) -> Result<()> {
    ask(lab, netns, key, value, false, place)
}

fn ask(lab: &mut Lab, netns: &NetnsHandle, key: &str, value: String, apart: bool, place: Place) -> Result<()> {
    let at = netns.living(lab)?;
    check_key(key)?;
    if value.contains(['\n', '\0']) {
        return Err(Error::invalid(format!("set `{key}`")).because("its value is more than one line"));
    }
    let key = kernel_key(lab, &at, key)?;
    let is_host = at.at == NetnsAt::Host;
    let (no, apart) = (if is_host { lab.model().next_no() } else { 0 }, apart && is_host);
    let step = SetSysctl { netns: at, key, value, before: None, along: Vec::new(), no, held: false, apart };
    lab.ask(step, place)
}

fn check_key(key: &str) -> Result<()> {
    net::netns::sysctl::path(key).map(|_| ()).map_err(|source| {
        Error::invalid(format!("use the setting `{}`", name::shown(key)))
            .because(&source)
            .hint("a netns has the settings below `net.`, such as `net.ipv4.ip_forward`")
    })
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sets a kernel setting of a namespace. One of the host is set back when the last lab goes that set it; where several labs set
    /// it, the value of the last one that is left stands.
    ///
    /// In a key, dots part the names, and a slash stands for a dot in a device's name; or slashes part the names, as in
    /// `net/ipv4/conf/eth0.10/rp_filter`. A device with a long name may be written with it. Some settings are the whole machine's, such as
    /// `net.netfilter.nf_conntrack_max` and `net.core.rmem_max`: only the host, run as root, can set those.
    ///
    /// Like `ip netns exec NETNS sysctl -w KEY=VALUE`.
    ///
    /// Fails with `invalid` for a key that is not below `net.`, with `missing` for one that the kernel lacks, and with the
    /// kernel's reason for a value that it refuses.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// r.sysctl("net.ipv4.ip_default_ttl", 33);
    /// assert(r.sysctl("net.ipv4.ip_default_ttl") == "33");
    /// ```
    #[rhai_fn(name = "sysctl", return_raw)]
    pub fn set_sysctl(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        key: &str,
        value: Dynamic,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        let value = match value.as_bool() {
            Ok(on) => if on { "1" } else { "0" }.to_string(),
            Err(_) => value.to_string(),
        };
        with_lab(&ctx, |lab| set(lab, &netns, key, value, place))?;
        Ok(netns)
    }

    /// Returns a kernel setting of a namespace, as text.
    #[rhai_fn(name = "sysctl", return_raw)]
    pub fn get_sysctl(ctx: NativeCallContext, netns: NetnsHandle, key: &str) -> RhaiResultOf<String> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            check_key(key)?;
            let failed = |source: net::Error| Error::kernel(format!("read `{key}` of netns `{}`", at.name), &source);
            let key = &kernel_key(lab, &at, key)?;
            let (kernel, _) = lab.settled()?;
            let netns = kernel.netns(&at).map_err(failed)?;
            net::netns::sysctl::read(&netns, key).map_err(failed)
        })
    }

    /// Makes a namespace a router, for IPv4 and IPv6, or stops it being one.
    ///
    /// Like `sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`.
    ///
    /// Fails with `gone` where the namespace was removed. Forwarding of the host is set back when the last lab goes that set it; a
    /// host that accepts router advertisements goes on to do so.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// r.forward(true);
    /// assert(r.sysctl("net.ipv4.ip_forward") == "1");
    /// assert(r.sysctl("net.ipv6.conf.all.forwarding") == "1");
    /// ```
    #[rhai_fn(name = "forward", return_raw)]
    pub fn forward(ctx: NativeCallContext, netns: NetnsHandle, on: bool) -> RhaiResultOf<NetnsHandle> {
        forward_with(ctx, netns, on, Map::new())
    }

    /// Makes a namespace a router, with options.
    #[rhai_fn(name = "forward", return_raw)]
    pub fn forward_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        on: bool,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        let value = if on { "1" } else { "0" };
        with_lab(&ctx, |lab| {
            let options = ForwardOptions::parse(options)?;
            let apart = on && options.apart.unwrap_or(false);
            for (version, key) in [(4, FORWARDING[0]), (6, FORWARDING[1])] {
                // A kernel without IPv6, or booted with ipv6.disable=1, has nothing to set.
                let lacks = version == 6 && !std::path::Path::new("/proc/sys/net/ipv6").exists();
                if !lacks && options.version.is_none_or(|wanted| wanted.is_6() == (version == 6)) {
                    ask(lab, &netns, key, value.into(), apart, place.clone())?;
                }
            }
            Ok(())
        })?;
        Ok(netns)
    }
}
