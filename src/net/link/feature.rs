//! The kinds of links that this program makes, and what each needs of the kernel. Errors and `topo doctor` have it from here.

/// A kind of links, and what the kernel needs for it.
#[derive(Debug, PartialEq, Eq)]
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

/// Declares the kinds of links, and the list of them.
macro_rules! link_features {
    ($($name:ident = $kind:literal, $option:literal, $module:literal, $about:literal;)+) => {
        $(#[doc = $about] pub(crate) const $name: LinkFeature =
            LinkFeature { kind: $kind, option: $option, module: $module, about: $about };)+

        /// All kinds that this program makes.
        pub const LINK_FEATURES: &[LinkFeature] = &[$($name),+];
    };
}

link_features! {
    VETH = "veth", "CONFIG_VETH", "veth", "cables";
    BRIDGE = "bridge", "CONFIG_BRIDGE", "bridge", "switches";
    VLAN = "vlan", "CONFIG_VLAN_8021Q", "8021q", "tagged links";
    VXLAN = "vxlan", "CONFIG_VXLAN", "vxlan", "tunnels between hosts";
    MACVLAN = "macvlan", "CONFIG_MACVLAN", "macvlan", "several addresses on one link";
    IPVLAN = "ipvlan", "CONFIG_IPVLAN", "ipvlan", "several hosts on one link";
    DUMMY = "dummy", "CONFIG_DUMMY", "dummy", "links to nowhere";
    VRF = "vrf", "CONFIG_NET_VRF", "vrf", "several routing domains in one host";
    BOND = "bond", "CONFIG_BONDING", "bonding", "several links as one";
    IFB = "ifb", "CONFIG_IFB", "ifb", "shaping of incoming traffic";
    TUN = "tun", "CONFIG_TUN", "tun", "links whose other end is a program";
    GRE = "gre", "CONFIG_NET_IPGRE", "ip_gre", "GRE tunnels over IPv4";
    GRETAP = "gretap", "CONFIG_NET_IPGRE", "ip_gre", "Ethernet in GRE tunnels over IPv4";
    IP6GRE = "ip6gre", "CONFIG_IPV6_GRE", "ip6_gre", "GRE tunnels over IPv6";
    IP6GRETAP = "ip6gretap", "CONFIG_IPV6_GRE", "ip6_gre", "Ethernet in GRE tunnels over IPv6";
    IPIP = "ipip", "CONFIG_NET_IPIP", "ipip", "IPv4 in IPv4 tunnels";
    SIT = "sit", "CONFIG_IPV6_SIT", "sit", "IPv6 in IPv4 tunnels";
    IP6TNL = "ip6tnl", "CONFIG_IPV6_TUNNEL", "ip6_tunnel", "tunnels over IPv6";
}

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
