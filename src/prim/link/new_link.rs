//! Devices that are made alone: the one step for all their kinds, and what their functions have in common.

use rhai::Dynamic;
use serde::{Deserialize, Serialize};

use super::made::{self, check_free, delete_made};
use super::whole;
use crate::lab::{
    DevEntry, Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort, Unfinished, link_local_request,
};
use crate::net::link::kind::Vxlan;
use crate::net::{self, Change, Fdb, LinkKind, Mac, NewLink, RefusedLink};
use crate::prim::iproute2::ip;
use crate::prim::value::handles::{self, Dev, NetnsHandle};
use crate::prim::value::units::{self, DevMac, FromScript, Mtu};
use crate::state::{DevRef, Error, Kind, NetnsAt, NetnsRef, Place, Result, name};

/// A new device: a reference to one that isn't there yet, or a name on the host.
enum NewDev {
    Dev(Dev),
    Name(String),
}

impl FromScript for NewDev {
    const WHAT: &'static str = r#"a new device such as h["eth0"], or a name"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        match value.clone().try_cast::<Dev>() {
            Some(dev) => Ok(NewDev::Dev(dev)),
            None => value.into_string().map(NewDev::Name).map_err(|_| String::new()),
        }
    }
}

/// What the functions of all kinds take.
#[derive(Default)]
pub(super) struct Given {
    pub mtu: Option<Mtu>,
    pub mac: Option<DevMac>,
    pub up: Option<bool>,
}

/// Adds a device of any kind that is made alone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AddLink {
    dev: DevRef,
    /// The device that it is on top of, or whose addresses it uses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    parent: Option<DevRef>,
    #[serde(flatten)]
    kind: LinkKind,
    mtu: Option<u32>,
    up: bool,
}

impl AddLink {
    /// Returns the namespace from which it is made: a device on top of another one, from there.
    fn from(&self) -> &NetnsRef {
        self.parent.as_ref().map_or(&self.dev.netns, |parent| &parent.netns)
    }

    fn made_with(&self) -> whole::Shape {
        whole::Shape { up: self.up, mtu: self.mtu, ..whole::Shape::default() }
    }

    /// Tells whether it ends with the device below.
    fn ends_with_parent(&self) -> bool {
        self.kind.ends_with_below()
    }
}

impl StepSort for AddLink {
    const WORD: &'static str = "link";
}

impl Step for AddLink {
    fn doing(&self) -> String {
        let on = self.parent.as_ref().map_or(String::new(), |parent| format!(" on {}", parent.shown()));
        format!("add {} {}{on}", self.kind.kind(), self.dev.shown())
    }

    fn like(&self) -> Vec<String> {
        let short = name::kernel_name(&self.dev.name);
        let below = self.parent.as_ref().map(|parent| name::kernel_name(&parent.name));
        let link = match &below {
            Some(below) if self.kind.is_stacked() => format!("link {below} "),
            _ => String::new(),
        };
        let netns = match (&self.dev.netns, self.from()) {
            (there, here) if there.no == here.no => String::new(),
            // As `ip` names the namespace that it runs in: by its first process.
            (there, _) if there.at == NetnsAt::Host => " netns 1".into(),
            (there, _) => format!(" netns {}", there.name),
        };
        let mac = self.dev.mac.filter(|_| !self.kind.shares_mac());
        let mac = mac.map_or(String::new(), |mac| format!(" address {mac}"));
        let mtu = self.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
        let words = self.kind.words(below.as_deref());
        let mut like = vec![format!("{} link add {link}{short}{netns}{mac}{mtu} type {words}", ip(self.from()))];
        if self.up {
            like.push(format!("{} link set dev {short} up", ip(&self.dev.netns)));
        }
        like
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            makes_devs: vec![&self.dev],
            wakes: vec![&self.dev],
            // Somebody else's device is as before once what is on it is gone, which a namespace that ends by and by can't promise.
            lives_in: match &self.parent {
                Some(parent) if !parent.made => Vec::new(),
                Some(parent) if self.ends_with_parent() => vec![&self.dev.netns, &parent.netns],
                _ => vec![&self.dev.netns],
            },
            lives_on: self.parent.as_ref().filter(|_| self.ends_with_parent()),
            waits_for: Unfinished::None,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.dev.netns)?;
        if let Some(parent) = &self.parent {
            model.living_dev(parent.no, &parent.shown())?;
        }
        check_free(model, &self.dev, &self.doing())?;
        check_twins(model, self)?;
        let parent = self.parent.as_ref().filter(|_| self.ends_with_parent()).map(|parent| parent.no);
        let about = self.kind.about();
        // Where all goes that isn't known is an entry of the table, too.
        let fdb = match &self.kind {
            LinkKind::Vxlan(Vxlan { remote: remote @ Some(_), .. }) => {
                vec![Fdb { mac: Mac([0; 6]), dst: *remote, vni: None, port: None, vlan: None }]
            }
            _ => Vec::new(),
        };
        model.add_dev(DevEntry {
            parent,
            about,
            fdb,
            up: Some(self.up),
            ..DevEntry::new(self.dev.clone(), self.kind.kind())
        });
        Ok(())
    }

    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        let (netns, from, there) = (kernel.netns(&self.dev.netns)?, self.from(), &self.dev.netns);
        // Kernels before 6.14 refuse a name that is taken where they are asked, though the device shall be born elsewhere.
        let elsewhere = from.no != there.no;
        let first = if elsewhere { name::passing_name(self.dev.index) } else { name::kernel_name(&self.dev.name) };
        let mac = self.dev.mac.unwrap_or(Mac([0; 6]));
        let link = NewLink { name: &first, index: self.dev.index, mac, mtu: self.mtu };
        let below = self.parent.as_ref().map(|parent| parent.index);
        let mut ops = vec![Op::Ask(from, net::link::kind::link_request(&link, &netns, below, &self.kind))];
        // Of those that share one hardware address the kernel tells the link-local addresses apart (dev_id of ipvlan).
        let local = if self.kind.shares_mac() { None } else { link_local_request(&self.dev) };
        ops.extend(Op::asks(there, local));
        if elsewhere {
            let short = name::kernel_name(&self.dev.name);
            let rename = Change { name: Some(&short), ..Change::default() };
            ops.push(Op::Ask(there, net::link::change_request(self.dev.index, &rename)));
        }
        ops.extend(Op::asks(there, made::finish_requests(kernel, &self.dev, self.up)));
        Ok(ops)
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        if refusal.is_unsupported() {
            return Some(self.kind.lacking());
        }
        let below = self.parent.as_ref().map_or("it".to_string(), DevRef::shown);
        let refused = RefusedLink {
            errno: refusal.errno(),
            netns: &self.from().name,
            below: &below,
            has_mtu: self.mtu.is_some(),
        };
        self.kind.advice(&refused)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        delete_made(kernel, &self.dev)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        Ok(whole::find(kernel, lab, &self.dev, self.made_with())?.is_whole())
    }

    fn mend(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<()> {
        whole::mend(kernel, lab, &self.dev, self.made_with(), |kernel| kernel.make(self))
    }
}

/// Refuses what can't stand beside what is there.
fn check_twins(model: &Model, step: &AddLink) -> Result<()> {
    let (Some(excluded), Some(parent)) = (step.kind.excludes(), step.parent.as_ref()) else { return Ok(()) };
    let mut on_it = model.all_devs().filter(|dev| dev.parent == Some(parent.no));
    let Some(other) = on_it.find(|dev| *dev.kind == *excluded) else { return Ok(()) };
    let kind = step.kind.kind();
    Err(Error::invalid(step.doing()).because(format!(
        "{} is on it, and a device has {kind}s or {}s on top, not both",
        other.dev.shown(),
        other.kind
    )))
}

/// Reads which device a script wants made.
pub(in crate::prim) fn wanted(lab: &mut Lab, kind: &str, end: Dynamic) -> Result<Dev> {
    let doing = format!("add {kind}");
    let dev = match units::argument::<NewDev>(&doing, end)? {
        NewDev::Dev(dev) => dev,
        NewDev::Name(name) => {
            name::check("device", &name)?;
            Dev::named(NetnsHandle::new(NetnsRef::host()), &name)
        }
    };
    if dev.find(lab)?.is_some() {
        return Err(Error::new(Kind::Exists, format!("{doing} {}", dev.shown()))
            .because("there is a device of this name already"));
    }
    Ok(dev)
}

/// Numbers a device that is to be made, in a way that is free in the namespace `from` as well; `mac` is the hardware address
/// that it will have.
pub(in crate::prim) fn number(
    lab: &mut Lab,
    dev: &Dev,
    from: Option<&NetnsRef>,
    mac: impl FnOnce(&Lab, u32) -> Option<Mac>,
) -> Result<DevRef> {
    let netns = dev.netns.living(lab)?;
    handles::know(lab, &netns, &dev.name)?;
    let no = lab.model().next_no();
    let index = handles::next_index(lab, &netns, from.unwrap_or(&netns))?;
    let mac = mac(lab, no);
    Ok(DevRef { no, netns, name: dev.name.to_string(), index, mac, made: true })
}

/// Asks for a device of a kind; the model knows the hardware address that it will have.
pub(super) fn ask(
    lab: &mut Lab,
    dev: &Dev,
    parent: Option<&DevEntry>,
    kind: impl Into<LinkKind>,
    given: Given,
    place: Place,
) -> Result<Dev> {
    let kind = kind.into();
    let below = parent.and_then(|below| below.dev.mac);
    let from = parent.map(|below| &below.dev.netns);
    let dev = number(lab, dev, from, |lab, no| match given.mac {
        _ if kind.has_no_mac() => None,
        _ if kind.shares_mac() => below,
        Some(mac) => Some(mac.0),
        None => Some(lab.new_mac(no)),
    })?;
    let known = Dev::known(&dev);
    let parent = parent.map(|below| below.dev.clone());
    let (mtu, up) = (given.mtu.map(|mtu| mtu.0), given.up.unwrap_or(true));
    lab.ask(AddLink { dev, parent, kind, mtu, up }, place)?;
    Ok(known)
}
