//! Network namespaces: made, found, looked into, removed.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::path::Path;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic};
use serde::{Deserialize, Serialize};

use crate::lab::{
    DevEntry, Event, Footprint, Kernel, Lab, Model, Moved, Op, Outcome, Step, StepSort, Unfinished, WAY_ON,
};
use crate::net::{self, Entry, Netns};
use crate::prim::Group;
use crate::prim::call::beyond::{Beyond, reach};
use crate::prim::call::context::{RhaiResultOf, ask, lab_of, place_of, raise, with_lab};
use crate::prim::value::handles::{self, Dev, NetnsHandle, no_netns_property};
use crate::state::{DevRef, Error, Identity, Kind, NetnsAt, NetnsRef, Result, lab_of_mark, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "netns",
    about: "Network namespaces: the hosts, routers and containers of a lab.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddNetns), step_sort!(RemoveNetns)],
    options: &[],
};

/// Adds a named namespace.
#[derive(Debug, Serialize, Deserialize)]
struct AddNetns {
    at: NetnsRef,
    lo: u32,
}

impl AddNetns {
    fn lo_is_up(&self, kernel: &mut Kernel) -> net::Result<bool> {
        Ok(kernel.link_at(&self.at, LO_INDEX)?.is_some_and(|lo| lo.up))
    }
}

/// The number of `lo` in every namespace (LOOPBACK_IFINDEX in include/net/flow.h).
const LO_INDEX: u32 = 1;

impl StepSort for AddNetns {
    const WORD: &'static str = "netns";
}

impl Step for AddNetns {
    fn doing(&self) -> String {
        format!("add netns `{}`", self.at.name)
    }

    fn like(&self) -> Vec<String> {
        vec![format!("ip netns add {0}", self.at.name), format!("ip -n {0} link set dev lo up", self.at.name)]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { makes_netns: Some(&self.at), ..Footprint::default() }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        if model.netns_named(&self.at.name).is_some() {
            return Err(Error::new(Kind::Exists, self.doing())
                .because("this lab has one of this name")
                .hint(format!("`netns_get(\"{}\")` returns it", self.at.name)));
        }
        model.add_netns(self.at.clone());
        model.add_dev(DevEntry::new(
            DevRef { no: self.lo, netns: self.at.clone(), name: "lo".into(), index: 1, mac: None, made: false },
            "",
        ));
        Ok(())
    }

    /// The name is given aside: what is made in the namespace doesn't go by it.
    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        let new = kernel.new_netns()?;
        kernel.keep_ours(&self.at, new.netns.clone());
        let (netns, lo_is_down) = (new.netns, !new.up);
        let (dir, name, mark) = (kernel.dir().clone(), self.at.name.clone(), kernel.mark().to_string());
        let name_it = Op::Aside(Box::new(move || dir.bind(&name, &netns, &mark)));
        let lo_up = lo_is_down.then(net::lo_up_request);
        Ok([name_it].into_iter().chain(Op::asks(&self.at, lo_up)).collect())
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let ours = match kernel.dir().entry(&self.at.name)? {
            Entry::Netns(netns) => {
                let ours = kernel.is_ours(&self.at, &netns)?;
                if !ours {
                    let mark = kernel.dir().owners().mark_of(&self.at.name, &netns)?;
                    kernel.leave_unmarked(&format!("netns `{}`", self.at.name), mark.as_deref());
                }
                ours
            }
            Entry::Placeholder(mark) => mark == kernel.mark(),
            Entry::Absent | Entry::Other => false,
        };
        if ours { kernel.dir().unbind(&self.at.name) } else { Ok(()) }
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        if !lab.has_netns(&self.at) {
            return Ok(true);
        }
        Ok(kernel.has_ours(&self.at)? && (lab.is_set(self.lo, "up") || self.lo_is_up(kernel)?))
    }

    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        if kernel.ours(&self.at)?.is_some() {
            return kernel.send([(&self.at, net::lo_up_request())]);
        }
        kernel.forget(&self.at);
        self.undo(kernel)?;
        kernel.make(self)
    }
}

/// Removes a namespace that the lab made. What was in it can't be brought back, so its undo does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct RemoveNetns {
    at: NetnsRef,
    /// The devices in it that the lab did not make, and how they go back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    back: Vec<Moved>,
}

impl StepSort for RemoveNetns {
    const WORD: &'static str = "netns-remove";
}

impl Step for RemoveNetns {
    fn doing(&self) -> String {
        format!("remove netns `{}`", self.at.name)
    }

    fn like(&self) -> Vec<String> {
        let back = self.back.iter().map(|way| {
            let (here, there) = (name::kernel_name(&way.to.name), name::kernel_name(&way.from.name));
            let netns = if way.from.netns.at == NetnsAt::Host { "1" } else { &way.from.netns.name };
            format!("ip -n {} link set dev {here} netns {netns} name {there}", self.at.name)
        });
        let remove = format!("ip netns pids {0} | xargs -r kill; ip netns delete {0}", self.at.name);
        back.chain([remove]).collect()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { waits_for: Unfinished::All, is_removal: true, ..Footprint::default() }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        if !self.at.made {
            return Err(Error::new(Kind::Denied, self.doing())
                .because("this lab did not make it")
                .hint("a lab removes only what it made"));
        }
        model.living_netns(&self.at)?;
        // Handles to them stay good.
        self.back.iter().for_each(|way| model.relocate_dev(way.to.no, way.from.clone()));
        model.remove_netns(self.at.no, "its netns was removed");
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let Some(netns) = kernel.ours(&self.at)? else { return Ok(()) };
            let id = netns.id();
            drop(netns);
            let (ours, others) = net::process::by_pid_namespace(net::process::in_netns(&[id].into())?);
            let mut left = net::process::end(&ours, std::time::Duration::from_secs(2))?;
            // Those of a container that has joined it are not ours to end.
            left.extend(others.into_iter().filter(net::ProcessId::is_alive));
            if let Some(process) = left.first() {
                let text = format!("process {} is in it", process.pid);
                return Err(net::Error::new(self.doing(), libc::EBUSY).saying(text));
            }
            kernel.give_back(&self.back).map_err(|errors| first_of(errors, self.doing()))?;
            // The kernel frees a namespace some time after it is let go, and until then the other end of a cable keeps its name
            // (tests/suite/netns.rhai, test_remove_frees_the_cables); so do devices elsewhere on top of one in here.
            let rtnl = kernel.rtnl(&self.at)?;
            let links = net::link::list(&rtnl)?;
            let reaches_out = |kind: &str| ["veth", "bridge", "macvlan", "ipvlan"].contains(&kind);
            for link in links.iter().filter(|link| link.kind.as_deref().is_some_and(reaches_out)) {
                match net::link::delete(&rtnl, link.index) {
                    Err(error) if !error.is_gone() => return Err(error),
                    _ => {}
                }
            }
            drop(rtnl);
            kernel.forget(&self.at);
            kernel.dir().unbind(&self.at.name)
        })
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        refusal.is_exists().then(|| WAY_ON.to_string())
    }

    fn undo(&self, _kernel: &mut Kernel) -> net::Result<()> {
        Ok(())
    }

    // A removal leaves nothing to lose.
    fn is_held(&self, _kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        Ok(true)
    }
}

fn first_of(errors: Vec<net::Error>, doing: String) -> net::Error {
    errors.into_iter().next().unwrap_or_else(|| net::Error::new(doing, libc::EIO))
}

/// Checks that no namespace of this name is on the machine.
fn check_free(lab: &mut Lab, name: &str) -> Result<()> {
    let doing = format!("add netns `{name}`");
    let (kernel, _) = lab.foreign();
    let entry = kernel.dir().entry(name).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let mark = match entry {
        Entry::Absent => return Ok(()),
        Entry::Netns(netns) => kernel.dir().owners().mark_of(name, &netns).unwrap_or_default(),
        Entry::Placeholder(mark) => Some(mark),
        Entry::Other => None,
    };
    let error = Error::new(Kind::Exists, doing);
    let owner = mark.as_deref().and_then(lab_of_mark);
    let is_of_this_state = |mark: &str| lab.mark() == mark || lab.state().lab_of(mark).is_ok_and(|lab| lab.is_some());
    Err(match owner {
        Some(owner) if !mark.as_deref().is_some_and(is_of_this_state) => error
            .because(format!("lab `{owner}` of another state directory, such as another user's, has made one of this name"))
            .hint("`TOPO_STATE` names the state directory; `--sandbox` runs labs with the same names side by side"),
        Some(owner) => error.because(format!("lab `{owner}` has made one of this name")).hint(format!(
            "`topo down {owner}` removes it, `topo gc` if its run died; `--sandbox` runs labs with the same names side by side"
        )),
        None => error
            .because("there is one of this name already, and topo did not make it")
            .hint("`ip netns list` shows it; `netns_get` opens it; `--sandbox` gives the lab a host of its own"),
    })
}

/// Enters a namespace that the lab did not make, or returns the entry that it has.
fn open_foreign(
    lab: &mut Lab,
    name: String,
    at: impl FnOnce(Identity) -> NetnsAt,
    netns: &Netns,
) -> Result<NetnsHandle> {
    let (kernel, _) = lab.foreign();
    let host = kernel.netns(&NetnsRef::host()).map_err(|source| Error::kernel("open the host", &source))?;
    if netns.id() == host.id() {
        return Ok(NetnsHandle::new(NetnsRef::host()));
    }
    if let Some(known) = lab.model().netns_named(&name) {
        return Ok(NetnsHandle::new(known.at.clone()));
    }
    let seen = Identity::of(netns).map_err(|source| Error::kernel(format!("look at netns `{name}`"), &source))?;
    let no = lab.model().next_no();
    let at = NetnsRef { no, name, at: at(seen), made: false };
    lab.model().add_netns(at.clone());
    Ok(NetnsHandle::new(at))
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// The script's word for it.
    #[expect(dead_code, reason = "rhai reads the line and not the name")]
    pub type Netns = super::NetnsHandle;
    /// The script's word for it.
    pub type Dev = super::Dev;

    /// Adds a network namespace with `lo` up, visible to `ip netns`.
    ///
    /// Like `ip netns add NAME; ip -n NAME link set dev lo up`.
    ///
    /// Fails with `exists` if this lab, another lab or anything else on the machine has one of this name, and with
    /// `invalid` for a name that breaks the rule for names.
    ///
    /// ```rhai
    /// let h1 = netns("h1");
    /// assert(h1.name == "h1");
    /// assert("lo" in h1.devs().map(|d| d.name));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn netns(ctx: NativeCallContext, name: &str) -> RhaiResultOf<NetnsHandle> {
        let at = with_lab(&ctx, |lab| {
            name::check("netns", name)?;
            lab.take_name()?;
            if lab.model().netns_named(name).is_none() {
                check_free(lab, name)?;
            }
            let no = lab.model().next_no();
            Ok(NetnsRef { no, name: name.to_string(), at: NetnsAt::Named, made: true })
        })?;
        let lo = with_lab(&ctx, |lab| Ok(lab.model().next_no()))?;
        ask(&ctx, AddNetns { at: at.clone(), lo })?;
        Ok(NetnsHandle::new(at))
    }

    /// Returns the namespace of this name: one that this lab made, or one that is on the machine.
    ///
    /// Like the `NAME` of `ip -n NAME …`.
    ///
    /// Fails with `missing` if there is none. One that the lab did not make is used, and never removed.
    ///
    /// ```rhai
    /// netns("h1");
    /// assert(netns_get("h1").name == "h1");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn netns_get(ctx: NativeCallContext, name: &str) -> RhaiResultOf<NetnsHandle> {
        with_lab(&ctx, |lab| {
            name::check("netns", name)?;
            if let Some(entry) = lab.model().netns_named(name) {
                return Ok(NetnsHandle::new(entry.at.clone()));
            }
            let doing = format!("find netns `{name}`");
            let (kernel, _) = lab.foreign();
            match kernel.dir().open(name) {
                Ok(netns) => open_foreign(lab, name.to_string(), NetnsAt::NamedAs, &netns),
                Err(source) if source.is_gone() => {
                    let error = Error::new(Kind::Missing, doing).because("there is no netns of this name");
                    let names = kernel.dir().list().unwrap_or_default();
                    let mut known: Vec<String> = lab.model().all_netns().map(|entry| entry.at.name.clone()).collect();
                    known.extend(names);
                    Err(match name::nearest(name, known.iter().map(String::as_str)) {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => error.hint(format!("`netns(\"{name}\")` makes it")),
                    })
                }
                Err(source) => Err(Error::kernel(doing, &source)),
            }
        })
    }

    /// Returns the namespace that a process is in.
    ///
    /// Like `nsenter --net=/proc/PID/ns/net`, or `ip netns attach`.
    ///
    /// Fails with `missing` if there is no such process, and with `denied` under `--no-exec`.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(netns_of_pid(1).devs().len() > 0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn netns_of_pid(ctx: NativeCallContext, pid: i64) -> RhaiResultOf<NetnsHandle> {
        reach(&ctx, Beyond::Process, || format!("open the netns of process {pid}"))?;
        with_lab(&ctx, |lab| {
            let doing = format!("open the netns of process {pid}");
            let failed = |source: net::Error| match source.is_gone() {
                true => Error::new(Kind::Missing, doing.clone()).because("there is no such process"),
                false => Error::kernel(doing.clone(), &source),
            };
            let number = u32::try_from(pid).ok().filter(|pid| *pid > 0);
            let number = number.ok_or_else(|| Error::invalid(doing.clone()).because("a pid is a number above 0"))?;
            let process = net::ProcessId::of(number).map_err(failed)?;
            let netns = net::Netns::of_pid(number).map_err(failed)?;
            open_foreign(lab, format!("pid {pid}"), |seen| NetnsAt::Process(process, seen), &netns)
        })
    }

    /// Returns the namespace that a path stands for: a bind mount, or a file of `/proc/PID/ns/net`.
    ///
    /// Like `nsenter --net=PATH`.
    ///
    /// Fails with `missing` if there is no such file, with `invalid` if it is no network namespace, and with `denied` under `--no-exec`.
    ///
    /// ```rhai
    /// assert(netns_open("/proc/self/ns/net").name == "host");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn netns_open(ctx: NativeCallContext, path: &str) -> RhaiResultOf<NetnsHandle> {
        reach(&ctx, Beyond::File, || format!("open the netns `{}`", name::shown_path(path)))?;
        with_lab(&ctx, |lab| {
            let doing = format!("open the netns `{}`", name::shown_path(path));
            // It may be the file of one that the lab is about to make.
            lab.settle()?;
            let netns = net::Netns::open(Path::new(path)).map_err(|source| match source.errno() {
                libc::EINVAL => Error::invalid(doing.clone()).because(&source),
                _ => Error::kernel(doing.clone(), &source),
            })?;
            open_foreign(lab, path.to_string(), |seen| NetnsAt::Path(path.into(), seen), &netns)
        })
    }

    /// Names a device of a namespace: `h["eth0"]`. The device may exist, or be about to be made by `veth`.
    ///
    /// Like the `dev NAME` of `ip -n NETNS … dev NAME`.
    ///
    /// Fails with `invalid` for a name that the kernel can't have.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(h["lo"].name == "lo");
    /// ```
    #[rhai_fn(index_get, return_raw, pure)]
    pub fn dev_of(ctx: NativeCallContext, netns: &mut NetnsHandle, name: &str) -> RhaiResultOf<Dev> {
        let is_property = lab_of(&ctx).is_ok_and(|lab| lab.is_of_property(&ctx));
        with_lab(&ctx, |_| if is_property { Err(no_netns_property(name)) } else { name::check("device", name) })?;
        Ok(Dev::named(netns.clone(), name))
    }

    /// Returns the devices of a namespace, in the order of their indexes.
    ///
    /// Like `ip -n NETNS link`.
    ///
    /// Fails with `gone` if the namespace was removed.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// veth(h["eth0"], "up0");
    /// assert(h.devs().map(|d| d.name) == ["lo", "eth0"]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn devs(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let links = handles::look(lab, &at, &format!("list the devices of `{}`", at.name), net::link::list)?;
            handles::disturbed(lab, &at);
            Ok(links.iter().map(|link| Dynamic::from(handles::listed(lab, &netns, link))).collect())
        })
    }

    /// Removes a namespace that this lab made, with all that is in it; its processes are ended.
    ///
    /// Devices that the lab did not make are given back first. `move_to` tells where one came from, also that of another lab; one
    /// that was moved in by other means goes to the host. What was made inside goes with the namespace: a device that `exec` made,
    /// a bridge, a veth with both ends in the lab. `topo down` does the same.
    ///
    /// Like `ip netns delete NAME`, after ending what `ip netns pids NAME` lists, and `ip -n NAME link set dev DEV netns 1`.
    ///
    /// Fails with `denied` for a namespace that the lab did not make, and with `exists`, before anything is changed, where the name
    /// of a device that goes back is taken there. Handles to the namespace and to its devices fail with `gone`.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// h.remove();
    /// try { h.devs(); } catch (e) { assert(e.kind == "gone"); }
    /// ```
    #[rhai_fn(name = "remove", return_raw)]
    pub fn remove_netns(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<()> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            // On its own: a removal can't be taken back, so what was asked for before it must be known to be good.
            lab.settle()?;
            let at = NetnsRef::clone(&netns.0);
            let is_there = at.made && lab.model().living_netns(&at).is_ok();
            let back = if is_there { lab.ways_back_from(&at)? } else { Vec::new() };
            lab.ask(RemoveNetns { at, back }, place)?;
            lab.settle()?;
            let told = lab.foreign().0.take_given_back();
            told.into_iter().for_each(|text| lab.say(&Event::Warning(text)));
            Ok(())
        })
    }

    /// Returns the name of a namespace.
    #[rhai_fn(get = "name", pure)]
    pub fn netns_name(netns: &mut NetnsHandle) -> String {
        netns.0.name.clone()
    }

    /// Returns what tells a namespace from every other one of this machine, those of the past and the future too.
    #[rhai_fn(get = "identity", return_raw, pure)]
    pub fn netns_identity(ctx: NativeCallContext, netns: &mut NetnsHandle) -> RhaiResultOf<String> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let failed = |source: net::Error| Error::kernel(format!("look at netns `{}`", at.name), &source);
            let boot_id = crate::state::boot_id()?;
            let (kernel, _) = lab.settled()?;
            let netns = kernel.netns(&at).map_err(failed)?;
            let number = netns.cookie().map_err(failed)?.unwrap_or(netns.id().ino);
            Ok(format!("{boot_id}/{number}"))
        })
    }

    /// Tells whether a namespace is still there: where it was found, and for one that was found by a process, as long as that
    /// runs.
    ///
    /// Like `test -e /proc/PID/ns/net`.
    ///
    /// Fails with `gone` where the lab itself removed it.
    ///
    /// ```rhai
    /// assert(netns("h1").is_alive());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn is_alive(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let (kernel, _) = lab.settled()?;
            // Found anew: one that is open here stays as long as it is.
            kernel.forget(&at);
            match kernel.netns(&at) {
                Ok(_) => Ok(!matches!(&at.at, NetnsAt::Process(process, _) if !process.is_alive())),
                Err(source) if source.is_gone() || source.errno() == libc::EINVAL => Ok(false),
                Err(source) => Err(Error::kernel(format!("look for netns `{}`", at.name), &source)),
            }
        })
    }

    /// Returns the namespace that a target stands for: a netns itself, the number of a process, a path, or a name.
    ///
    /// Like the ways in which `nsenter` and `ip -n` take one.
    ///
    /// Fails with `missing` where there is none, and with `invalid` for what can't name one.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(netns_of("h1") == h && netns_of("/run/netns/h1").identity == h.identity && netns_of(1) == netns_of("1"));
    /// ```
    #[rhai_fn(name = "netns_of", return_raw)]
    pub fn netns_of(ctx: NativeCallContext, target: Dynamic) -> RhaiResultOf<NetnsHandle> {
        if let Some(netns) = target.clone().try_cast::<NetnsHandle>() {
            return Ok(netns);
        }
        if let Ok(pid) = target.as_int() {
            return netns_of_pid(ctx, pid);
        }
        let text: String = raise(&ctx, crate::prim::value::units::argument("find a netns", target))?;
        if let Some(pid) = text.parse::<i64>().ok().filter(|_| text.chars().all(|c| c.is_ascii_digit())) {
            return netns_of_pid(ctx, pid);
        }
        if text.contains('/') { netns_open(ctx, &text) } else { netns_get(ctx, &text) }
    }

    #[rhai_fn(global, name = "to_string", pure)]
    pub fn netns_text(netns: &mut NetnsHandle) -> String {
        netns.0.name.clone()
    }

    #[rhai_fn(global, name = "to_debug", pure)]
    pub fn netns_debug(netns: &mut NetnsHandle) -> String {
        netns.to_string()
    }

    #[rhai_fn(global, name = "==")]
    pub fn netns_equals(a: NetnsHandle, b: NetnsHandle) -> bool {
        Rc::ptr_eq(&a.0, &b.0) || a.0.no == b.0.no
    }

    #[rhai_fn(global, name = "!=")]
    pub fn netns_differs(a: NetnsHandle, b: NetnsHandle) -> bool {
        !netns_equals(a, b)
    }
}
