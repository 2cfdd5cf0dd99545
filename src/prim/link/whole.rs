//! Whether a device that a lab made is still as its steps left it, and how it is put right where it is.

use crate::lab::{Kernel, Outcome, Slot, set_up};
use crate::net::{self, Change, Mac};
use crate::state::{DevRef, name};

/// What a step made a device with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    /// Whether it came up.
    pub up: bool,
    /// Its MTU, where nothing else changes it.
    pub mtu: Option<u32>,
    /// Its hardware address, where nothing else changes it.
    pub mac: Option<Mac>,
    /// The bridge that it is a port of.
    pub controller: Option<u32>,
}

/// How a device is found.
pub(super) enum Found {
    /// The lab itself removed it later.
    Removed,
    /// It is gone, or another one has its place.
    Gone,
    /// It is there: where it is in the end, and what is to be changed.
    There(Box<DevRef>, Difference),
}

/// What is to be changed on a device that is there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    name: Option<String>,
    up: bool,
    mtu: Option<u32>,
    mac: Option<Mac>,
    controller: Option<u32>,
    alias: bool,
}

impl Found {
    /// Tells whether nothing is amiss.
    pub fn is_whole(&self) -> bool {
        match self {
            Found::Removed => true,
            Found::Gone => false,
            Found::There(_, difference) => *difference == Difference::default(),
        }
    }
}

/// Looks for a device that a step made, and compares it with what it was made with.
pub(super) fn find(kernel: &mut Kernel, lab: Outcome<'_>, dev: &DevRef, made: Shape) -> net::Result<Found> {
    let Some(now) = lab.dev(dev) else { return Ok(Found::Removed) };
    let Some(link) = kernel.link(now)? else { return Ok(Found::Gone) };
    let free = |word| !lab.is_set(dev.no, word);
    // A bond gives its ports its own address, and sets them up.
    let alone = free("controller");
    let name = name::kernel_name(&now.name);
    let difference = Difference {
        name: (free("name") && link.name != name).then_some(name),
        up: made.up && !link.up && free("up"),
        mtu: made.mtu.filter(|mtu| link.mtu != *mtu),
        mac: made.mac.filter(|mac| link.mac != Some(*mac) && alone && free("mac")),
        controller: made.controller.filter(|bridge| link.controller != Some(*bridge) && alone),
        alias: link.alias.as_deref() != Some(kernel.mark()),
    };
    Ok(Found::There(Box::new(now.clone()), difference))
}

/// Puts a device right that is there.
pub(super) fn put_right(kernel: &mut Kernel, dev: &DevRef, difference: &Difference) -> net::Result<()> {
    let rtnl = kernel.rtnl(&dev.netns)?;
    if let Some(name) = &difference.name {
        let rename = Change { name: Some(name), ..Change::default() };
        match net::link::change(&rtnl, dev.index, &rename) {
            // Kernels before 6.2 rename only a device that is down.
            Err(error) if error.errno() == libc::EBUSY => {
                set_up(kernel, dev, false)?;
                net::link::change(&rtnl, dev.index, &rename)?;
                set_up(kernel, dev, true)?;
            }
            done => done?,
        }
    }
    let mark = kernel.mark().to_string();
    let change = Change {
        mtu: difference.mtu,
        mac: difference.mac,
        controller: difference.controller.map(Some),
        alias: difference.alias.then_some(&mark),
        ..Change::default()
    };
    net::link::change(&rtnl, dev.index, &change)?;
    if difference.up { set_up(kernel, dev, true) } else { Ok(()) }
}

/// Puts a device right that is there, and makes any other again.
pub(super) fn mend(
    kernel: &mut Kernel,
    lab: Outcome<'_>,
    dev: &DevRef,
    made: Shape,
    make: impl FnOnce(&mut Kernel) -> net::Result<()>,
) -> net::Result<()> {
    match find(kernel, lab, dev, made)? {
        Found::There(dev, difference) => put_right(kernel, &dev, &difference),
        Found::Removed | Found::Gone => make(kernel),
    }
}

/// Returns where a device is in the end, with its link. None if it is gone: the step that made it answers for that.
pub(in crate::prim) fn there(
    kernel: &mut Kernel,
    lab: Outcome<'_>,
    dev: &DevRef,
) -> net::Result<Option<(DevRef, net::Link)>> {
    let Some(now) = lab.dev(dev) else { return Ok(None) };
    Ok(kernel.link(now)?.map(|link| (now.clone(), link)))
}

/// Returns the slot of a word that a device or a namespace has once.
pub(in crate::prim) fn slot(no: u32, word: &'static str) -> Slot {
    (no, word.into())
}
