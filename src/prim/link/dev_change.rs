//! The steps that change a device: its name, its place, and whether it is up.

use serde::{Deserialize, Serialize};

use super::made::{add_full_name, check_free};
use super::whole;
use crate::lab::{
    Footprint, Kernel, Model, Moved, OWNER_PROTOCOL, Op, Outcome, Step, StepSort, Unfinished, link_local_request,
    put_back, set_up,
};
use crate::net::{self, Change, LinkConfig};
use crate::prim::iproute2::ip;
use crate::state::{DevRef, Result, name};

/// Gives a device another name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RenameDev {
    pub from: DevRef,
    pub to: DevRef,
    /// Settings of a device of others that labs hold, as they are without them: a holder finds them by the device's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
}

impl StepSort for RenameDev {
    const WORD: &'static str = "rename";
}

impl Step for RenameDev {
    fn doing(&self) -> String {
        format!("rename {} to `{}`", self.from.shown(), self.to.name)
    }

    fn like(&self) -> Vec<String> {
        vec![format!(
            "{} link set dev {} name {}",
            ip(&self.from.netns),
            name::kernel_name(&self.from.name),
            name::kernel_name(&self.to.name)
        )]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            // Somebody else's device leaves the namespace under its own name.
            lives_in: if self.from.made { vec![&self.from.netns] } else { Vec::new() },
            lives_on: Some(&self.from),
            sets: vec![whole::slot(self.from.no, "name")],
            waits_for: Unfinished::All,
            hides_what_follows: !self.from.made,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.from.no, &self.from.shown())?;
        check_free(model, &self.to, &self.doing())?;
        model.relocate_dev(self.from.no, self.to.clone());
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.relocate_dev(self.from.no, self.from.clone());
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if self.from.made || self.from.netns.made {
            return Ok(());
        }
        let netns = kernel.netns(&self.from.netns)?;
        let now = crate::prim::ip::sysctl::of_dev(&netns, &name::kernel_name(&self.from.name))?;
        let mut own = kernel.without_holders(&self.from.netns, now.clone())?;
        own.retain(|setting| !now.contains(setting));
        self.settings = own;
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            rename(kernel, &self.from, &self.to)?;
            rename_settings(kernel, &self.from, &self.to)?;
            add_full_name(kernel, &self.to)
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        // A run that was cut short got anywhere between the changes, so each is taken back, made or not.
        let ours = [&self.from.name, &self.to.name].map(|name| name::kernel_name(name));
        // Under a third name, it is whoever gave it that.
        if !kernel.link(&self.to)?.is_some_and(|link| ours.contains(&link.name)) {
            return Ok(());
        }
        rename(kernel, &self.to, &self.from)?;
        rename_settings(kernel, &self.to, &self.from)?;
        kernel.put_settings_back(&self.from.netns, &self.settings)?;
        match add_full_name(kernel, &self.from) {
            Err(error) if error.is_exists() => Ok(()),
            done => done,
        }
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let there = whole::there(kernel, lab, &self.to)?;
        Ok(there.is_none_or(|(_, link)| link.name == name::kernel_name(&self.to.name)))
    }

    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        match kernel.make(self) {
            // It has its full name still.
            Err(error)
                if error.is_exists() && kernel.link(&self.to)?.is_some_and(|link| link.goes_by(&self.to.name)) =>
            {
                Ok(())
            }
            done => done,
        }
    }
}

/// Takes the full name of `from` away and gives the device the name that the kernel has for `to`.
fn rename(kernel: &mut Kernel, from: &DevRef, to: &DevRef) -> net::Result<()> {
    let rtnl = kernel.rtnl(&from.netns)?;
    if name::kernel_name(&from.name) != from.name {
        match net::link::delete_altname(&rtnl, from.index, &from.name) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    let new_name = name::kernel_name(&to.name);
    let rename = Change { name: Some(&new_name), ..Change::default() };
    match net::link::change(&rtnl, from.index, &rename) {
        // Kernels before 6.2 rename only a device that is down.
        Err(error) if error.errno() == libc::EBUSY => {
            net::link::change(&rtnl, from.index, &Change { up: Some(false), ..Change::default() })?;
            let both = Change { up: Some(true), ..rename };
            net::link::change(&rtnl, from.index, &both)?;
        }
        done => done?,
    }
    Ok(())
}

/// What labs hold of a device of others is found by its name.
fn rename_settings(kernel: &mut Kernel, from: &DevRef, to: &DevRef) -> net::Result<()> {
    let [old, new] = [from, to].map(|dev| name::kernel_name(&dev.name));
    if from.made { Ok(()) } else { kernel.rename_settings(&from.netns, &old, &new) }
}

/// Moves a device into another namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MoveDev(pub Moved);

impl MoveDev {
    /// Tells whether the device must outlive the namespace that it was moved to.
    fn is_fetched_back(&self) -> bool {
        !self.0.from.made || self.0.config.is_some()
    }
}

impl StepSort for MoveDev {
    const WORD: &'static str = "move";
}

impl Step for MoveDev {
    fn doing(&self) -> String {
        format!("move {} to netns `{}`", self.0.from.shown(), self.0.to.netns.name)
    }

    fn like(&self) -> Vec<String> {
        let short = name::kernel_name(&self.0.from.name);
        vec![
            format!("{} link set dev {short} netns {}", ip(&self.0.from.netns), self.0.to.netns.name),
            format!("{} link set dev {short} up", ip(&self.0.to.netns)),
        ]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            // A device that the lab made goes with the namespace that it is in. Another one is fetched back first: the kernel
            // would destroy a virtual one.
            lives_in: if self.is_fetched_back() { Vec::new() } else { vec![&self.0.to.netns] },
            moves: self.is_fetched_back().then_some(&self.0),
            sets: vec![whole::slot(self.0.from.no, "place")],
            waits_for: Unfinished::All,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.0.from.no, &self.0.from.shown())?;
        model.living_netns(&self.0.to.netns)?;
        check_free(model, &self.0.to, &self.doing())?;
        model.set_controller(self.0.from.no, None);
        model.relocate_dev(self.0.from.no, self.0.to.clone());
        if let Some(entry) = model.dev_mut(self.0.to.no) {
            // The kernel drops them with the move, and its shape.
            entry.addresses.clear();
            entry.shape = None;
        }
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.relocate_dev(self.0.from.no, self.0.from.clone());
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        let made = self.0.from.made || self.0.from.netns.made;
        if !kernel.must_remember(made) {
            return Ok(());
        }
        if !made {
            let netns = kernel.netns(&self.0.from.netns)?;
            let settings = crate::prim::ip::sysctl::of_dev(&netns, &name::kernel_name(&self.0.from.name))?;
            self.0.settings = kernel.without_holders(&self.0.from.netns, settings)?;
        } else if let Some(link) = there(kernel, &self.0.from)? {
            self.0.settings = crate::prim::ip::sysctl::of_dev(&kernel.netns(&self.0.from.netns)?, &link.name)?;
            self.0.config = Some(config_of(kernel, &self.0.from, &link)?);
        }
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| move_dev(kernel, &self.0.from, &self.0.to, self.0.up))
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        self.0.go_back(kernel)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        let moved = lab.has_netns(&self.0.to.netns) && kernel.link(&self.0.to)?.is_none();
        Ok(!moved || self.0.from.made && kernel.link(&self.0.from)?.is_none())
    }

    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        kernel.make(self)
    }
}

/// Finds a device that may be one that this settling makes.
pub(in crate::prim) fn there(kernel: &mut Kernel, dev: &DevRef) -> net::Result<Option<net::Link>> {
    match kernel.link(dev) {
        Err(error) if dev.netns.made && error.is_gone() => Ok(None),
        found => found,
    }
}

pub(super) fn config_of(kernel: &mut Kernel, dev: &DevRef, link: &net::Link) -> net::Result<LinkConfig> {
    let rtnl = kernel.rtnl(&dev.netns)?;
    LinkConfig::of(&rtnl, link)
}

fn move_dev(kernel: &mut Kernel, from: &DevRef, to: &DevRef, up: bool) -> net::Result<()> {
    let target = kernel.netns(&to.netns)?;
    let rtnl = kernel.rtnl(&from.netns)?;
    let change = Change { netns: Some(&target), new_index: Some(to.index), ..Change::default() };
    net::link::change(&rtnl, from.index, &change)?;
    if up { set_up(kernel, to, true) } else { Ok(()) }
}

/// Sets a device up or down.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SetUp {
    pub dev: DevRef,
    pub up: bool,
    pub before: Option<bool>,
    /// The other end of its cable, which gains or loses its carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<DevRef>,
    /// What a device of the lab's own has, which going down makes it lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<LinkConfig>,
}

impl StepSort for SetUp {
    const WORD: &'static str = "up";
}

impl Step for SetUp {
    fn doing(&self) -> String {
        format!("set {} {}", self.dev.shown(), if self.up { "up" } else { "down" })
    }

    fn like(&self) -> Vec<String> {
        let state = if self.up { "up" } else { "down" };
        vec![format!("{} link set dev {} {state}", ip(&self.dev.netns), name::kernel_name(&self.dev.name))]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.dev.netns],
            lives_on: Some(&self.dev),
            wakes: self.peer.iter().chain([&self.dev]).collect(),
            sets: vec![whole::slot(self.dev.no, "up")],
            waits_for: Unfinished::All,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_dev(self.dev.no, &self.dev.shown())?;
        if let Some(entry) = model.dev_mut(self.dev.no) {
            entry.up = Some(self.up);
        }
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        if let Some(entry) = model.dev_mut(self.dev.no) {
            entry.up = self.before;
        }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        let made = self.dev.made || self.dev.netns.made;
        if !kernel.must_remember(made) {
            return Ok(());
        }
        let Some(link) = there(kernel, &self.dev)? else { return Ok(()) };
        self.before = Some(link.up);
        if made && link.up && !self.up {
            self.config = Some(config_of(kernel, &self.dev, &link)?);
        }
        Ok(())
    }

    /// One of the lab's that had nothing comes up without a look at it.
    fn ops(&self, kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        let touched = self.peer.iter().chain([&self.dev]);
        if !self.up || !self.dev.made || kernel.kept_config(&self.dev).is_some() {
            return Op::alone(|kernel| {
                self.change(kernel)?;
                // What the kernel does about a carrier it does when it comes to it, or when it is asked (link_watch.c).
                for dev in touched {
                    match kernel.link(dev) {
                        Err(error) if !error.is_gone() => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            });
        }
        let up = net::link::change_request(self.dev.index, &Change { up: Some(true), ..Change::default() });
        let here = Op::asks(&self.dev.netns, link_local_request(&self.dev).into_iter().chain([up]));
        Ok(here.chain(touched.map(|dev| Op::Ask(&dev.netns, net::link::touch_request(dev.index)))).collect())
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if let Some(config) = &self.config {
            match kernel.link(&self.dev)? {
                Some(link) if !link.up => set_up(kernel, &self.dev, true)?,
                Some(_) => {}
                None => return Ok(()),
            }
            return put_back(kernel, &self.dev, config);
        }
        match (self.before, kernel.link(&self.dev)?) {
            (Some(before), Some(link)) if link.up == self.up && before != self.up => set_up(kernel, &self.dev, before),
            _ => Ok(()),
        }
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        Ok(whole::there(kernel, lab, &self.dev)?.is_none_or(|(_, link)| link.up == self.up))
    }

    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        kernel.make(self)
    }
}

impl SetUp {
    /// Sets the device up or down: a failure of its cable, and the repair, after which is there again what the lab had put there.
    fn change(&self, kernel: &mut Kernel) -> net::Result<()> {
        match kernel.link(&self.dev)? {
            Some(link) if link.up && !self.up => {
                // One over a next hop object can't be read, and the lab has none.
                if let Ok(config) = config_of(kernel, &self.dev, &link) {
                    kernel.keep_config(&self.dev, config.of_protocol(OWNER_PROTOCOL));
                }
                set_up(kernel, &self.dev, false)
            }
            Some(link) if !link.up && self.up => {
                set_up(kernel, &self.dev, true)?;
                let Some(config) = kernel.kept_config(&self.dev) else { return Ok(()) };
                match put_back(kernel, &self.dev, &config) {
                    // A route over several devices waits for the last of them.
                    Err(error) if error.errno() == libc::ENETDOWN || error.is_gone() => Ok(()),
                    done => done,
                }
            }
            _ => set_up(kernel, &self.dev, self.up),
        }
    }
}
