//! Devices: made, changed, plugged in, and what they do with frames.

pub(super) mod attach;
pub(super) mod bond;
pub(super) mod bridge;
pub(super) mod dev;
pub(super) mod dev_change;
pub(super) mod dummy;
pub(super) mod fdb;
pub(super) mod links;
mod made;
pub(super) mod new_link;
pub(super) mod port;
pub(super) mod shape;
pub(super) mod take_over;
pub(super) mod tap;
pub(super) mod tunnel;
pub(super) mod veth;
pub(super) mod vlan;
pub(super) mod vrf;
pub(super) mod vxlan;
pub(super) mod whole;
