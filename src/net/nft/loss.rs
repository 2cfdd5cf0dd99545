//! A share of what comes in by a device is dropped by chance, before anything else sees it: what `netem` does on a device's way
//! out, for kernels without it. On the way out a sender's own machine would notice, and send again.

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DevHookNumber, Hook as HookAttribute, NfTablesMessage, Operator, Register,
};

use super::batch::{At, Batch, chain_attributes};
use super::expr::{DROP, Expr, REG, be, cmp, other, verdict};
use super::{Action, Family, Rule, list_tables};
use crate::net::{Netns, Result};

/// NFPROTO_NETDEV of linux/netfilter.h.
fn family() -> Family {
    Family::Other(NetfilterProtoFamily::NetDev.into())
}

const CHAIN: &str = "ingress";

/// Of how many packets the share is counted.
const OF: u32 = 1_000_000;

/// Drops a share, in percent, of what comes in by a device, by a table of its own, which bears `comment`. A share that the table
/// dropped before gives way to it at once.
///
/// Like `nft add chain netdev TABLE ingress '{ type filter hook ingress device DEV priority 0; }'`, then `nft add rule netdev TABLE
/// ingress numgen random mod 1000000 < N drop`. EOPNOTSUPP where the kernel lacks it.
pub fn drop_incoming(netns: &Netns, table: &str, comment: &str, dev: &str, percent: f64) -> Result<()> {
    let mut batch = Batch::new();
    // Both at once: a table that isn't there can't be deleted.
    batch.add_table(family(), table, Some(comment)).delete_table(family(), table);
    batch.add_table(family(), table, Some(comment));
    batch.add_ingress_chain(family(), table, CHAIN, dev);
    let dropped = (percent / 100.0 * f64::from(OF)).round() as u32;
    let rule = Rule::new(Vec::new(), Action::Drop);
    batch.add_exprs((family(), table, CHAIN), by_chance(dropped), &rule, At::End);
    batch.commit(netns)
}

/// Tells whether a table drops by chance.
pub fn drops_incoming(netns: &Netns, table: &str) -> Result<bool> {
    Ok(list_tables(netns)?.iter().any(|found| found.family == family() && found.name == table))
}

/// Drops nothing any more; a table that isn't there is as good.
pub fn drop_nothing(netns: &Netns, table: &str) -> Result<()> {
    if !drops_incoming(netns, table)? {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.delete_table(family(), table);
    batch.commit(netns)
}

/// Drops as many of a million packets (`enum nft_ng_attributes` and `nft_byteorder_attributes` of linux/netfilter/nf_tables.h).
fn by_chance(dropped: u32) -> Vec<Expr> {
    const NFTA_NG_DREG: u16 = 1;
    const NFTA_NG_MODULUS: u16 = 2;
    const NFTA_NG_TYPE: u16 = 3;
    const NFT_NG_RANDOM: u32 = 1;
    const NFTA_BYTEORDER_SREG: u16 = 1;
    const NFTA_BYTEORDER_DREG: u16 = 2;
    const NFTA_BYTEORDER_OP: u16 = 3;
    const NFTA_BYTEORDER_LEN: u16 = 4;
    const NFTA_BYTEORDER_SIZE: u16 = 5;
    const NFT_BYTEORDER_HTON: u32 = 1;
    let register = |register: Register| be(register.into());
    let number = vec![(NFTA_NG_DREG, register(REG)), (NFTA_NG_MODULUS, be(OF)), (NFTA_NG_TYPE, be(NFT_NG_RANDOM))];
    // Registers are compared from their first byte on.
    let order = vec![
        (NFTA_BYTEORDER_SREG, register(REG)),
        (NFTA_BYTEORDER_DREG, register(REG)),
        (NFTA_BYTEORDER_OP, be(NFT_BYTEORDER_HTON)),
        (NFTA_BYTEORDER_LEN, be(4)),
        (NFTA_BYTEORDER_SIZE, be(4)),
    ];
    vec![other("numgen", number), other("byteorder", order), cmp(Operator::LessThan, &be(dropped)), verdict(DROP, None)]
}

impl Batch {
    /// Adds a chain that sees what comes in by a device.
    fn add_ingress_chain(&mut self, family: Family, table: &str, name: &str, dev: &str) -> &mut Batch {
        let mut attributes = chain_attributes(table, name);
        attributes.push(ChainAttribute::Hook(vec![
            HookAttribute::Number(DevHookNumber::Ingress.into()),
            HookAttribute::Priority(0),
            HookAttribute::NetDeviceName(dev.to_string()),
        ]));
        attributes.push(ChainAttribute::Type("filter".to_string()));
        let doing = format!("add chain `{name}` of table `{family} {table}`");
        self.push(doing, family, NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE)
    }
}
