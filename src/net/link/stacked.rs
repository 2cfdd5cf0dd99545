//! What a link on top of another one, whose cable it shares, does with the frames: macvlan, ipvlan, VLAN.

use netlink_packet_route::link::VlanProtocol as Protocol;

use super::worded::worded;

worded! {
    /// Whom a macvlan hears of those on top of the same link.
    MacvlanMode {
        /// None of them.
        Private = "private", 1;
        /// Those whose frames the switch at the other end of the cable sends back (IEEE 802.1Qbg).
        Vepa = "vepa", 2;
        /// The others in this mode, at once.
        Bridge = "bridge", 4;
        /// There are no others: it has the link and its address for itself.
        Passthru = "passthru", 8;
    }
}

worded! {
    /// What an ipvlan does by itself.
    IpvlanMode {
        /// Its own neighbours: it sees broadcasts and asks by ARP.
        L2 = "l2", 0;
        /// Nothing below IP: the namespace of the link below routes for it.
        L3 = "l3", 1;
        /// As `L3`, and the netfilter hooks of that namespace see its packets.
        L3s = "l3s", 2;
    }
}

worded! {
    /// The tag of a VLAN.
    VlanProtocol {
        /// A customer's tag, EtherType 0x8100.
        Dot1q = "802.1q", 0x8100;
        /// A provider's tag around that, EtherType 0x88a8 (Q-in-Q).
        Dot1ad = "802.1ad", 0x88a8;
    }
}

impl From<VlanProtocol> for Protocol {
    fn from(protocol: VlanProtocol) -> Protocol {
        match protocol {
            VlanProtocol::Dot1q => Protocol::Ieee8021Q,
            VlanProtocol::Dot1ad => Protocol::Ieee8021Ad,
        }
    }
}

impl From<Protocol> for VlanProtocol {
    fn from(protocol: Protocol) -> VlanProtocol {
        match protocol {
            Protocol::Ieee8021Ad => VlanProtocol::Dot1ad,
            _ => VlanProtocol::Dot1q,
        }
    }
}
