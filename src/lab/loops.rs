//! Loops of bridges: where two ways lead from one bridge to another, and none of those on the way speaks the spanning tree
//! protocol, a broadcast goes round for ever.

use std::collections::BTreeMap;

use super::model::{DevEntry, Model};

/// A cable that closes a loop, by the numbers of its ends.
pub(super) type Cable = (u32, u32);

/// Finds the cables that close a loop of bridges, with what to say of each. A cable whose ports were put into VLANs is taken for
/// one that is there for those alone.
pub(crate) fn find(model: &Model) -> Vec<(Cable, String)> {
    let mut leader: BTreeMap<u32, u32> = BTreeMap::new();
    let mut loops = Vec::new();
    let bridge_of = |port: &DevEntry| {
        let bridge = model.dev(port.controller?)?;
        (bridge.kind == "bridge" && !bridge.switch.stp && !port.in_vlans).then_some(bridge)
    };
    for port in model.all_devs() {
        // Each cable once, from the end that was made first.
        let Some(peer) = port.peer.filter(|peer| *peer > port.dev.no).and_then(|peer| model.dev(peer)) else {
            continue;
        };
        let (Some(here), Some(there)) = (bridge_of(port), bridge_of(peer)) else { continue };
        let (a, b) = (lead(&mut leader, here.dev.no), lead(&mut leader, there.dev.no));
        if a != b {
            leader.insert(a, b);
            continue;
        }
        let bridges = match here.dev.no == there.dev.no {
            true => format!("bridge {} is joined to itself", here.dev.shown()),
            false => format!("bridges {} and {} are joined in a loop", here.dev.shown(), there.dev.shown()),
        };
        let cable = format!("{} -- {}", port.dev.shown(), peer.dev.shown());
        loops.push((
            (port.dev.no, peer.dev.no),
            format!(
                "{bridges} by the cable {cable}, and none in it has `stp: true`: as long as all of it is up, broadcasts go \
                 round for ever"
            ),
        ));
    }
    loops
}

/// Returns the bridge that stands for all that `no` is joined with.
fn lead(leader: &mut BTreeMap<u32, u32>, no: u32) -> u32 {
    let mut last = no;
    while let Some(next) = leader.get(&last) {
        last = *next;
    }
    if last != no {
        leader.insert(no, last);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::model::Switch;
    use super::*;
    use crate::state::{DevRef, NetnsRef};

    /// A model with the bridges 1 to 4, of which the last speaks the spanning tree protocol, and cables between them.
    fn joined(cables: &[(u32, u32)], in_vlans: bool) -> Vec<Cable> {
        let mut model = Model::new(0);
        let dev =
            |no: u32, name: String| DevRef { no, netns: NetnsRef::host(), name, index: no, mac: None, made: true };
        for no in 1..=4 {
            let switch = Switch { stp: no == 4, vlan_filtering: true };
            model.add_dev(DevEntry { switch, ..DevEntry::new(dev(no, format!("br{no}")), "bridge") });
        }
        for (at, (a, b)) in (0..).zip(cables) {
            let ends = [10 + 2 * at, 11 + 2 * at];
            for (end, other, bridge) in [(ends[0], ends[1], a), (ends[1], ends[0], b)] {
                let entry = DevEntry::new(dev(end, format!("p{end}")), "veth");
                model.add_dev(DevEntry { peer: Some(other), in_vlans, ..entry });
                model.set_controller(end, Some(*bridge));
            }
        }
        find(&model).into_iter().map(|(cable, _)| cable).collect()
    }

    #[test]
    fn the_cable_that_closes_a_loop_is_found() {
        assert_eq!(joined(&[(1, 2), (2, 3)], false), []);
        assert_eq!(joined(&[(1, 2), (2, 1)], false), [(12, 13)]);
        assert_eq!(joined(&[(1, 2), (2, 3), (3, 1)], false), [(14, 15)]);
        assert_eq!(joined(&[(1, 1)], false), [(10, 11)]);
    }

    #[test]
    fn the_spanning_tree_or_vlans_see_to_it() {
        assert_eq!(joined(&[(1, 4), (4, 1), (1, 2), (2, 4)], false), []);
        assert_eq!(joined(&[(1, 2), (2, 1)], true), []);
    }
}
