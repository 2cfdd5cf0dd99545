//! What kinds of links need of the kernel: errors and `topo doctor` say it.

/// A kind of links, and what the kernel needs for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFeature {
    /// The kernel's word for the kind.
    pub kind: &'static str,
    /// The option of the kernel's configuration.
    pub option: &'static str,
    /// The module.
    pub module: &'static str,
    /// What such links are for.
    pub about: &'static str,
}

const VETH: LinkFeature = LinkFeature { kind: "veth", option: "CONFIG_VETH", module: "veth", about: "cables" };
const BRIDGE: LinkFeature =
    LinkFeature { kind: "bridge", option: "CONFIG_BRIDGE", module: "bridge", about: "switches" };
/// What a link needs whose other end is a program.
pub(crate) const TUN: LinkFeature =
    LinkFeature { kind: "tun", option: "CONFIG_TUN", module: "tun", about: "links whose other end is a program" };

/// What links need that are not made alone.
pub(super) const OTHERS: [LinkFeature; 3] = [VETH, BRIDGE, TUN];

impl LinkFeature {
    /// Tells whether no lab can do without it.
    pub fn is_needed(&self) -> bool {
        *self == VETH || *self == BRIDGE
    }

    /// Says what to look for where the kernel lacks it.
    pub fn lacking(&self) -> String {
        format!("{}, module `{}`", self.option, self.module)
    }
}
