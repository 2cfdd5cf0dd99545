//! Bonds: several links as one. Like `ip link add type bond`.

use netlink_packet_route::link::{
    BondFailOverMac, BondLacpRate, BondMode as Mode, BondXmitHashPolicy as HashPolicy, InfoBond, InfoData,
};
use serde::{Deserialize, Serialize};

use super::LinkSort;
use crate::net::link::feature::LinkFeature;
use crate::net::link::worded::worded;

worded! {
    /// Which of its links a bond sends by.
    BondMode = r#"one of "active-backup", "802.3ad", "balance-rr", "balance-xor", "broadcast", "balance-tlb" and "balance-alb""# {
        /// Each in turn.
        BalanceRr = "balance-rr", 0;
        /// One, and another when that loses its carrier.
        ActiveBackup = "active-backup", 1;
        /// The one that the addresses of the packet stand for.
        BalanceXor = "balance-xor", 2;
        /// All.
        Broadcast = "broadcast", 3;
        /// As the other side agrees to (LACP).
        Lacp = "802.3ad", 4;
        /// The least loaded.
        BalanceTlb = "balance-tlb", 5;
        /// The least loaded, and it has others send to each of them.
        BalanceAlb = "balance-alb", 6;
    }
}

worded! {
    /// What the modes that spread packets go by.
    XmitHashPolicy = r#"one of "layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4" and "vlan+srcmac""# {
        /// Hardware addresses.
        Layer2 = "layer2", 0;
        /// IP addresses and ports.
        Layer34 = "layer3+4", 1;
        /// Hardware and IP addresses.
        Layer23 = "layer2+3", 2;
        /// As `layer2+3`, of what is inside a tunnel.
        Encap23 = "encap2+3", 3;
        /// As `layer3+4`, of what is inside a tunnel.
        Encap34 = "encap3+4", 4;
        /// The VLAN and the hardware address of the sender.
        VlanSrcMac = "vlan+srcmac", 5;
    }
}

worded! {
    /// How often the other side shall speak LACP.
    LacpRate = r#""slow" or "fast""# {
        /// Every 30 s.
        Slow = "slow", 0;
        /// Every second.
        Fast = "fast", 1;
    }
}

worded! {
    /// Whose hardware address the bond has.
    FailOverMac = r#"one of "none", "active" and "follow""# {
        /// Its own, which its links get as well.
        None = "none", 0;
        /// That of the link that it sends by.
        Active = "active", 1;
        /// Its own, which the link that it sends by has alone.
        Follow = "follow", 2;
    }
}

/// What a bond is made with; times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// Which of its links it sends by.
    pub mode: BondMode,
    /// How often it looks at the carrier of its links; 0 is never.
    pub miimon: u32,
    /// How long a link must have its carrier before it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updelay: Option<u32>,
    /// How long a link must have lost its carrier before it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downdelay: Option<u32>,
    /// The link that it sends by as long as that has its carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Primary>,
    /// What the modes that spread packets go by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xmit_hash_policy: Option<XmitHashPolicy>,
    /// How often the other side shall speak LACP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp_rate: Option<LacpRate>,
    /// How many of its links must have a carrier for it to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_links: Option<u32>,
    /// Whose hardware address it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_over_mac: Option<FailOverMac>,
}

/// A link in the namespace of the bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primary {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
}

pub(super) const FEATURES: &[LinkFeature] =
    &[LinkFeature { kind: "bond", option: "CONFIG_BONDING", module: "bonding", about: "several links as one" }];

impl LinkSort for Bond {
    fn feature(&self) -> LinkFeature {
        FEATURES[0]
    }

    fn data(&self, _below: Option<u32>) -> Option<InfoData> {
        let byte = |number: u32| number as u8;
        let attributes = [
            Some(InfoBond::Mode(Mode::from(byte(self.mode.number())))),
            Some(InfoBond::MiiMon(self.miimon)),
            self.updelay.map(InfoBond::UpDelay),
            self.downdelay.map(InfoBond::DownDelay),
            self.primary.as_ref().map(|primary| InfoBond::Primary(primary.index)),
            self.xmit_hash_policy.map(|one| InfoBond::XmitHashPolicy(HashPolicy::from(byte(one.number())))),
            self.lacp_rate.map(|one| InfoBond::AdLacpRate(BondLacpRate::from(byte(one.number())))),
            self.min_links.map(InfoBond::MinLinks),
            self.fail_over_mac.map(|one| InfoBond::FailOverMac(BondFailOverMac::from(byte(one.number())))),
        ];
        Some(InfoData::Bond(attributes.into_iter().flatten().collect()))
    }

    fn words(&self, _below: Option<&str>) -> Vec<Option<String>> {
        let number = |key: &str, value: Option<u32>| value.map(|value| format!("{key} {value}"));
        let word = |key: &str, value: Option<&str>| value.map(|value| format!("{key} {value}"));
        vec![
            word("mode", Some(self.mode.word())),
            number("miimon", Some(self.miimon)),
            number("updelay", self.updelay),
            number("downdelay", self.downdelay),
            word("primary", self.primary.as_ref().map(|primary| primary.name.as_str())),
            word("xmit_hash_policy", self.xmit_hash_policy.map(XmitHashPolicy::word)),
            word("lacp_rate", self.lacp_rate.map(LacpRate::word)),
            number("min_links", self.min_links),
            word("fail_over_mac", self.fail_over_mac.map(FailOverMac::word)),
        ]
    }
}
