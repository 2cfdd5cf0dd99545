//! The ruleset's generation: a number that every change of nf_tables in a namespace moves on.

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{GenMessage, NfTablesMessage};

use crate::net::netlink::{self, nfnl};
use crate::net::{Error, Netns, Result};

/// The state that a namespace's ruleset is in: as long as it is the same, nobody has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// The number that the namespace has to itself in this boot of the machine.
    pub cookie: u64,
    /// How often its ruleset was changed; each transaction counts by one (nf_tables_commit()).
    pub number: u32,
}

impl Generation {
    /// Returns the generation behind one more change.
    pub fn next(self) -> Generation {
        // Nought is left out.
        Generation { number: self.number.checked_add(1).unwrap_or(1), ..self }
    }
}

/// Asks for the generation of a namespace's ruleset. None where the kernel can't tell the namespace from others (before
/// Linux 5.14).
///
/// Like the number in `nft monitor`'s `# new generation`. Fails as `list`.
pub fn generation(netns: &Netns) -> Result<Option<Generation>> {
    /// NFTA_GEN_ID of `enum nft_gen_attributes`.
    const ID: u16 = 1;
    let doing = "ask for the generation of the ruleset";
    let nfnl = nfnl::open(netns)?;
    let Some(cookie) = nfnl.cookie()? else { return Ok(None) };
    let get = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
    let answer = nfnl::ask(&nfnl, doing, nfnl::message(NetfilterProtoFamily::Unspec, get))?;
    let id = netlink::attributes(&answer.attributes).find(|(kind, _)| *kind == ID).and_then(|(_, id)| id.first_chunk());
    let id = id.ok_or_else(|| Error::new(doing, libc::EBADMSG))?;
    Ok(Some(Generation { cookie, number: u32::from_be_bytes(*id) }))
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Family};
    use super::*;
    use crate::net::testing::netns;

    #[test]
    fn each_change_moves_it_on_by_one() {
        let (netns, other) = (netns(), netns());
        let now = || generation(&netns).expect("a generation").expect("a cookie");
        let first = now();
        assert_eq!(now(), first);
        let elsewhere = generation(&other).expect("a generation").expect("a cookie");
        assert_ne!(elsewhere.cookie, first.cookie);
        let mut batch = Batch::new();
        batch.add_table(Family::Inet, "one", None).add_table(Family::Inet, "two", None);
        batch.commit(&netns).expect("two tables");
        assert_eq!(now(), first.next());
        let mut batch = Batch::new();
        batch.delete_table(Family::Inet, "three");
        batch.commit(&netns).expect_err("no such table");
        assert_eq!(now(), first.next());
        assert_eq!(generation(&other).expect("a generation"), Some(elsewhere));
    }
}
