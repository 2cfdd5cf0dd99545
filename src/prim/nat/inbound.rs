//! The rules before routing that published ports need, whichever lab's they are. On the host all labs share them.

use serde::{Deserialize, Serialize};

use super::ruleset::{self, AddRules, LabTable, enter, in_netns};
use crate::lab::{
    Footprint, Hold, INBOUND_HELD, INBOUND_KEY, Kernel, Lab, Op, Outcome, Step, StepSort, inbound_chain, inbound_rules,
};
use crate::net;
use crate::state::{NetnsAt, NetnsRef, Place, Result};

/// Asks for the rules: on the host for those of all labs, elsewhere for some in the lab's table.
pub(super) fn ask(lab: &mut Lab, table: &LabTable, base: &mut AddRules, place: &Place) -> Result<()> {
    if table.netns.at == NetnsAt::Host {
        let no = lab.model().next_no();
        return lab.ask(HoldInbound { netns: table.netns.clone(), no }, place.clone());
    }
    for (name, priority, rule) in inbound_rules() {
        base.chains.push(inbound_chain(&table.name, name, priority));
        base.rules.push((name.into(), rule));
    }
    Ok(())
}

/// Makes the host have the rules as long as this lab is there.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HoldInbound {
    netns: NetnsRef,
    no: u32,
}

impl HoldInbound {
    fn hold(&self) -> Hold<'static> {
        Hold { key: INBOUND_KEY, value: INBOUND_HELD, no: self.no, apart: false }
    }
}

impl StepSort for HoldInbound {
    const WORD: &'static str = "inbound";
}

impl Step for HoldInbound {
    fn doing(&self) -> String {
        format!("add what all published ports need{}", in_netns(&self.netns))
    }

    fn like(&self) -> Vec<String> {
        let (enter, table) = (enter(&self.netns), "toposcript-inbound");
        let lines = |(chain, priority, rule): (&str, i32, net::nft::Rule)| {
            [
                format!(
                    "{enter}nft add chain inet {table} {chain} '{{ type filter hook prerouting priority {priority}; }}'"
                ),
                format!("{enter}nft add rule inet {table} {chain} {rule}"),
            ]
        };
        let table = format!("{enter}nft add table inet {table}");
        std::iter::once(table).chain(inbound_rules().into_iter().flat_map(lines)).collect()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { lives_in: vec![&self.netns], ..Footprint::default() }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| kernel.hold_setting(&self.netns, &self.hold()))
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        ruleset::advice(refusal)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        kernel.let_setting_go(&self.netns, &self.hold())
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        kernel.has_setting(&self.netns, &self.hold())
    }

    /// What others hold stays theirs meanwhile.
    fn mend(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<()> {
        kernel.make(self)
    }
}
