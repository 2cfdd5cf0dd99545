//! Devices that the lab did not make, in a namespace of the lab: before that goes, they are given back.
//!
//! A step that moved a device there tells where it came from, be it of this lab or of another one. Any other device goes to the host:
//! the kernel would destroy a virtual one with the namespace, and move hardware to the first namespace of the machine, under another
//! name where its own is taken (net/core/dev.c, default_device_exit_net).
//!
//! What was made inside ends with the namespace. Of these the kernel tells: a bridge, a bond or a VRF, which never leave a namespace
//! (`netns_immutable`), and a device whose other end or whose parent is in a namespace of the lab. Of others, such as a dummy, it
//! does not; those that commands of the script make get the lab's mark.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dev_state::{put_back, set_up};
use super::footprint::Moved;
use super::journal;
use super::kernel::Kernel;
use crate::net::{self, Change, Link};
use crate::state::{DevRef, Error, Kind, NetnsAt, NetnsRef, lab_of_mark, name};

/// The kinds that never leave a namespace.
const STAY: [&str; 8] = ["bridge", "bond", "team", "vrf", "hsr", "batadv", "openvswitch", "dsa"];

/// The kinds of which the kernel tells where their other end, their parent or their tunnel is (`get_link_net`).
const TIED: [&str; 28] = [
    "veth",
    "netkit",
    "vxcan",
    "macvlan",
    "macvtap",
    "ipvlan",
    "ipvtap",
    "vlan",
    "macsec",
    "vxlan",
    "geneve",
    "bareudp",
    "gre",
    "gretap",
    "erspan",
    "ip6gre",
    "ip6gretap",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "vti",
    "vti6",
    "xfrm",
    "amt",
    "gtp",
    "ipoib",
    "rmnet",
];

/// What goes with each undo.
#[derive(Default)]
struct Notes {
    /// Whether a device comes back under another name where its own is taken.
    any_name: bool,
    /// What the user should know, in words.
    told: Vec<String>,
}

impl Kernel {
    /// Has devices come back under another name where their own is taken.
    pub(super) fn give_back_under_any_name(&mut self) {
        self.note::<Notes>().any_name = true;
    }

    /// Returns what the user should know of devices that were given back, since this was asked for last.
    pub fn take_given_back(&mut self) -> Vec<String> {
        std::mem::take(&mut self.note::<Notes>().told)
    }

    /// Returns the indexes of the devices in a namespace of the lab's own, before a command runs in it.
    pub fn devs_before(&mut self, at: &NetnsRef) -> net::Result<BTreeSet<u32>> {
        if !at.made {
            return Ok(BTreeSet::new());
        }
        let rtnl = self.rtnl(at)?;
        Ok(net::link::list(&rtnl)?.iter().map(|link| link.index).collect())
    }

    /// Gives the lab's mark to the devices that a command has made in a namespace of the lab's own, which had those `before`.
    pub fn mark_since(&mut self, at: &NetnsRef, before: &BTreeSet<u32>) -> net::Result<()> {
        if !at.made {
            return Ok(());
        }
        let (rtnl, mark) = (self.rtnl(at)?, self.mark().to_string());
        for link in net::link::list(&rtnl)?.iter().filter(|link| !before.contains(&link.index)) {
            if link.alias.is_some() {
                continue;
            }
            let change = Change { alias: Some(&mark), ..Change::default() };
            match net::link::change(&rtnl, link.index, &change) {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks for devices that the lab did not make in some of the lab's namespaces `all`, which are about to go.
    pub(super) fn find_foreign(
        &mut self,
        going: &[&NetnsRef],
        all: &[&NetnsRef],
        made: &[&DevRef],
    ) -> net::Result<Vec<(NetnsRef, Vec<Link>)>> {
        let mut known: HashMap<(u32, u32), Vec<&DevRef>> = HashMap::new();
        for dev in made {
            known.entry((dev.netns.no, dev.index)).or_default().push(dev);
        }
        let mut found = Vec::new();
        // No more are open at once than the limit of descriptors allows.
        for some in going.chunks(self.open_max) {
            let opened = some.iter().map(|at| self.netns(at)).collect::<net::Result<Vec<_>>>()?;
            let listed = net::link::list_each(&opened)?;
            drop(opened);
            for (at, links) in some.iter().zip(listed) {
                let links = self.foreign_of(at, links?, all, &known)?;
                if !links.is_empty() {
                    found.push(((*at).clone(), links));
                }
            }
        }
        Ok(found)
    }

    /// Returns which of the links of the namespace `at` the lab did not make, where it has those that are `known`.
    fn foreign_of(
        &mut self,
        at: &NetnsRef,
        mut links: Vec<Link>,
        all: &[&NetnsRef],
        known: &HashMap<(u32, u32), Vec<&DevRef>>,
    ) -> net::Result<Vec<Link>> {
        let is_known = |link: &Link| {
            known.get(&(at.no, link.index)).is_some_and(|here| here.iter().any(|dev| self.is_same(dev, link)))
        };
        links.retain(|link| may_leave(link) && !is_known(link));
        if links.iter().any(is_tied) {
            let inside = self.numbers_in(at, all)?;
            links.retain(|link| !is_tied(link) || link.link_netnsid.is_some_and(|no| !inside.contains(&no)));
        }
        Ok(links)
    }

    /// Returns the numbers by which the namespace `at` knows others, as far as these are there.
    fn numbers_in(&mut self, at: &NetnsRef, others: &[&NetnsRef]) -> net::Result<BTreeSet<i32>> {
        let rtnl = self.rtnl(at)?;
        let mut numbers = BTreeSet::new();
        for other in others {
            match self.netns(other) {
                Ok(netns) => numbers.extend(net::link::number_of(&rtnl, &netns)?),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(numbers)
    }

    /// Finds how foreign devices of the namespace `at` go back: what the lab's steps say of it is in `moves`, in their order. A
    /// namespace in `going` is none to go back to.
    pub(super) fn ways_back(
        &mut self,
        at: &NetnsRef,
        links: &[Link],
        moves: &[&Moved],
        going: &BTreeSet<u32>,
    ) -> Vec<Moved> {
        let mut of_others = None;
        let mut ways = Vec::with_capacity(links.len());
        for link in links {
            let way = self.way_of(at, link, moves, going).or_else(|| {
                let of_others = of_others.get_or_insert_with(|| self.moves_of_others());
                self.way_of_other(at, link, of_others)
            });
            ways.push(way.unwrap_or_else(|| way_to_host(at, link)));
        }
        ways
    }

    /// Follows the steps back by which a device came, to the first namespace that stays.
    fn way_of(&mut self, at: &NetnsRef, link: &Link, moves: &[&Moved], going: &BTreeSet<u32>) -> Option<Moved> {
        let is_it = |moved: &Moved| moved.to.netns.no == at.no && moved.to.index == link.index;
        let last = moves.iter().rposition(|moved| is_it(moved) && self.is_same(&moved.to, link))?;
        let mut here = moves[last];
        for earlier in moves[..last].iter().rev() {
            if self.stays(&here.from.netns, going) {
                break;
            }
            if (earlier.to.no, earlier.to.netns.no) == (here.from.no, here.from.netns.no) {
                here = earlier;
            }
        }
        let to = DevRef { name: link.name.clone(), ..moves[last].to.clone() };
        self.stays(&here.from.netns, going).then(|| Moved { to, ..here.clone() })
    }

    fn stays(&mut self, at: &NetnsRef, going: &BTreeSet<u32>) -> bool {
        !going.contains(&at.no) && self.netns(at).is_ok()
    }

    /// Finds the step of another lab by which a device came from the host. The numbers in it are those of that lab.
    fn way_of_other(&mut self, at: &NetnsRef, link: &Link, moves: &[Moved]) -> Option<Moved> {
        let is_it = |moved: &&Moved| {
            moved.from.netns.at == NetnsAt::Host
                && moved.to.netns.name == at.name
                && moved.to.index == link.index
                && self.is_same(&moved.to, link)
        };
        let moved = moves.iter().rev().find(is_it)?;
        let from = DevRef { no: OF_ANOTHER_LAB, ..moved.from.clone() };
        let to = DevRef { no: OF_ANOTHER_LAB, netns: at.clone(), name: link.name.clone(), ..moved.to.clone() };
        Some(Moved { from, to, ..moved.clone() })
    }

    /// Returns how all labs of the state directory but this one moved devices; what can't be read is left out.
    fn moves_of_others(&self) -> Vec<Moved> {
        let Some(state) = self.state() else { return Vec::new() };
        let own = self.lab_dir().ok();
        let dirs = state.names().unwrap_or_default().into_iter().map(|name| state.lab_dir(&name));
        let others = dirs.filter(|dir| own.as_deref() != Some(dir.path()));
        others.filter_map(|dir| journal::moves(&dir, &dir.record().ok()?).ok()).flatten().collect()
    }

    /// Gives devices back: all that are still there, or none where a name is taken.
    pub fn give_back(&mut self, ways: &[Moved]) -> std::result::Result<(), Vec<net::Error>> {
        self.check_ways(ways).map_err(|taken| vec![taken.refusal()])?;
        let mut errors = Vec::new();
        for way in ways {
            match self.link(&way.to) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
            match way.go_back(self) {
                // It can't leave: it was made in here, or it is a wireless card, which the kernel gives back itself
                // (net/wireless/core.c, cfg80211_pernet_exit).
                Err(error) if error.errno() == libc::EINVAL || error.is_gone() => {}
                Err(error) => errors.push(error),
                Ok(()) if way.from.no == OF_NO_STEP => {
                    let text = format!("the lab did not make {}: it is on the host now", way.to.shown());
                    self.note::<Notes>().told.push(text);
                }
                Ok(()) => {}
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Checks that the names of devices are free where they go back to.
    pub(super) fn check_ways(&mut self, ways: &[Moved]) -> std::result::Result<(), Taken> {
        if self.note::<Notes>().any_name {
            return Ok(());
        }
        let mut seen: BTreeMap<(&str, String), &Moved> = BTreeMap::new();
        for way in ways {
            let name = name::kernel_name(&way.from.name);
            if let Some(name) = self.taken_names(way).into_iter().next() {
                return Err(Taken::new(way, &name, ANOTHER));
            }
            if let Some(other) = seen.insert((&way.from.netns.name, name.clone()), way) {
                return Err(Taken::new(way, &name, &format!("{} goes there too", other.to.shown())));
            }
        }
        Ok(())
    }

    /// Returns the names of a device that other devices have where it goes back to; none where that can't be looked at.
    fn taken_names(&mut self, way: &Moved) -> Vec<String> {
        let Some(here) = self.link(&way.to).ok().flatten() else { return Vec::new() };
        let Ok(rtnl) = self.rtnl(&way.from.netns) else { return Vec::new() };
        let mut names = vec![name::kernel_name(&way.from.name)];
        names.extend(here.altnames);
        names.retain(|name| net::link::find(&rtnl, name).is_ok_and(|link| link.is_some()));
        names
    }

    /// Returns a name that is free in a namespace, as the kernel names devices that it moves itself (default_device_exit_net).
    fn free_name(&mut self, at: &NetnsRef, index: u32) -> net::Result<String> {
        let rtnl = self.rtnl(at)?;
        for number in index.. {
            let name = format!("dev{number}");
            if net::link::find(&rtnl, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(net::Error::new("find a free name", libc::EEXIST))
    }
}

/// The number of a device that no step knows.
const OF_NO_STEP: u32 = 0;
/// The number of a device that a step of another lab knows.
const OF_ANOTHER_LAB: u32 = u32::MAX;

/// Returns the way of a device that no step had moved.
fn way_to_host(at: &NetnsRef, link: &Link) -> Moved {
    let dev = |netns: NetnsRef| DevRef {
        no: OF_NO_STEP,
        netns,
        name: link.name.clone(),
        index: link.index,
        mac: link.mac,
        made: false,
    };
    Moved { from: dev(NetnsRef::host()), to: dev(at.clone()), up: link.up, settings: Vec::new(), config: None }
}

fn is_tied(link: &Link) -> bool {
    link.kind.as_deref().is_some_and(|kind| TIED.contains(&kind))
}

/// Tells whether a link may be one that came from another namespace: hardware has no kind.
fn may_leave(link: &Link) -> bool {
    let is_of_a_lab = link.alias.as_deref().is_some_and(|alias| lab_of_mark(alias).is_some());
    let stays = link.kind.as_deref().is_some_and(|kind| STAY.contains(&kind));
    !link.loopback && !is_of_a_lab && !stays && (!is_tied(link) || link.link_netnsid.is_some())
}

/// A name that is taken where a device goes back to, in words.
#[derive(Debug)]
pub(super) struct Taken {
    doing: String,
    because: String,
}

impl Taken {
    fn new(way: &Moved, name: &str, by: &str) -> Taken {
        let home = &way.from.netns;
        let place = if home.at == NetnsAt::Host { "the host".into() } else { format!("netns `{}`", home.name) };
        let dev = way.to.shown();
        let because = format!("the lab did not make {dev}, which goes back to {place} as `{name}`, and {by}");
        Taken { doing: format!("give {dev} back"), because }
    }

    fn refusal(&self) -> net::Error {
        net::Error::because(&self.doing, libc::EEXIST, &self.because)
    }

    /// Returns the error for a command that was about to do something, and has changed nothing.
    pub(crate) fn error(&self, doing: String) -> Error {
        Error::new(Kind::Exists, doing).because(&self.because).hint(WAY_ON)
    }
}

/// Who has a name that is taken.
const ANOTHER: &str = "another device has that name there";

/// What to do where a name is taken.
pub const WAY_ON: &str = "rename or delete the other device (`ip link set dev NAME name NEW`), and run the command again; \
     `topo down --force LAB` gives the device back under another name";

impl Moved {
    /// The word for the step in the journal.
    pub(super) const WORD: &str = "move";

    /// Gives the device back: in the namespace from where it came, with the name, the index and the state that it had there.
    pub fn go_back(&self, kernel: &mut Kernel) -> net::Result<()> {
        let back = match kernel.link(&self.to)? {
            Some(link) => {
                let back = self.move_back(kernel, &link)?;
                if self.up {
                    set_up(kernel, &back, true)?;
                }
                back
            }
            // An undo that was cut short had moved it back, which sets it down, and no more.
            None => match kernel.link(&self.from)? {
                Some(link) => {
                    if self.up && !link.up {
                        set_up(kernel, &self.from, true)?;
                    }
                    self.from.clone()
                }
                None => return Ok(()),
            },
        };
        kernel.put_settings_back(&back.netns, &self.settings)?;
        self.config.as_ref().map_or(Ok(()), |config| put_back(kernel, &back, config))
    }

    fn move_back(&self, kernel: &mut Kernel, link: &Link) -> net::Result<DevRef> {
        let target = kernel.netns(&self.from.netns)?;
        let rtnl = kernel.rtnl(&self.to.netns)?;
        let own = name::kernel_name(&self.from.name);
        let mut name = own.clone();
        for taken in kernel.taken_names(self) {
            if !kernel.note::<Notes>().any_name {
                return Err(Taken::new(self, &taken, ANOTHER).refusal());
            }
            if taken != own {
                net::link::delete_altname(&rtnl, link.index, &taken)?;
                continue;
            }
            name = kernel.free_name(&self.from.netns, link.index)?;
            let text = format!("{} goes back as `{name}`: another device is `{own}` there", self.to.shown());
            kernel.note::<Notes>().told.push(text);
        }
        let change =
            Change { netns: Some(&target), name: Some(&name), new_index: Some(self.from.index), ..Change::default() };
        match net::link::change(&rtnl, link.index, &change) {
            // Its index was given to another one meanwhile.
            Err(error) if error.errno() == libc::EBUSY => {
                net::link::change(&rtnl, link.index, &Change { new_index: None, ..change })?;
            }
            done => done?,
        }
        let rtnl = kernel.rtnl(&self.from.netns)?;
        let index = net::link::find(&rtnl, &name)?.map_or(self.from.index, |link| link.index);
        Ok(DevRef { index, ..self.from.clone() })
    }
}
