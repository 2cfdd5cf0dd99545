//! What all steps have in common that make a device: its name is free, it gets its mark and its full name, it is deleted.

use crate::lab::{Kernel, Model};
use crate::net::{self, Change, Request};
use crate::state::{DevRef, Error, Kind, Result, name};

/// Checks that a device's name is free in its namespace, as far as the lab knows it.
pub(super) fn check_free(model: &Model, dev: &DevRef, doing: &str) -> Result<()> {
    let Some(taken) = model.dev_named(dev.netns.no, &dev.name) else { return Ok(()) };
    let error = Error::new(Kind::Exists, doing).because(format!("there is a device {} already", taken.dev.shown()));
    Err(match taken.dev.made {
        true => error.hint("this lab made it: take another name"),
        false => error.hint("this lab did not make it, and leaves it alone: take another name"),
    })
}

/// Gives a device with a long name its full name as an alternative one.
pub(super) fn add_full_name(kernel: &mut Kernel, dev: &DevRef) -> net::Result<()> {
    kernel.send(full_name_request(dev).map(|request| (&dev.netns, request)))
}

/// Returns the request that gives a device with a long name its full name as an alternative one.
pub(super) fn full_name_request(dev: &DevRef) -> Option<Request> {
    (name::kernel_name(&dev.name) != dev.name).then(|| net::link::altname_request(dev.index, &dev.name))
}

/// Deletes a device if it is still the one that the lab made; tells whether it was.
pub(super) fn delete_link(kernel: &mut Kernel, dev: &DevRef) -> net::Result<bool> {
    if kernel.link(dev)?.is_none() {
        return Ok(false);
    }
    let rtnl = kernel.rtnl(&dev.netns)?;
    net::link::delete(&rtnl, dev.index).map(|()| true)
}

/// Deletes a device that the lab made, if it is there; one that others have changed is named and left.
pub(super) fn delete_made(kernel: &mut Kernel, dev: &DevRef) -> net::Result<()> {
    if delete_link(kernel, dev)? { Ok(()) } else { kernel.leave_changed(dev) }
}

/// Marks a device that was just made, brings it up, and gives it its full name.
pub(super) fn finish(kernel: &mut Kernel, dev: &DevRef, up: bool) -> net::Result<()> {
    let requests = finish_requests(kernel, dev, up);
    kernel.send(requests.map(|request| (&dev.netns, request)))
}

/// Returns the requests of `finish`.
pub(super) fn finish_requests(kernel: &Kernel, dev: &DevRef, up: bool) -> impl Iterator<Item = Request> + use<> {
    let change = Change { up: up.then_some(true), alias: Some(kernel.mark()), ..Change::default() };
    [net::link::change_request(dev.index, &change)].into_iter().chain(full_name_request(dev))
}
