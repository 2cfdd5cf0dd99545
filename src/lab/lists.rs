//! What namespaces have. In a look at labs each list is read once: what was read for one step answers the next one too.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::rc::Rc;

use super::kernel::Kernel;
use crate::net::{self, Address, FdbEntry, Link, Neigh, Owners, Route, Rule, nft};
use crate::state::{DevRef, NetnsRef, name};

/// A thing that is read: the number of its namespace, its type, and what tells things of one type apart.
type ListedKey = (u32, TypeId, String);

/// What was read since a look began; nothing is kept where none is on.
#[derive(Default)]
pub(super) struct Lists(Option<HashMap<ListedKey, Rc<dyn Any>>>);

impl Lists {
    /// Drops what was read elsewhere than in the namespace numbered `no`.
    pub(crate) fn keep(&mut self, no: u32) {
        if let Some(lists) = &mut self.0 {
            lists.retain(|(netns, ..), _| *netns == no);
        }
    }
}

impl Kernel {
    /// Begins a look: what is read from now on is kept, and nothing may be changed through this kernel any more.
    pub(crate) fn begin_look(&mut self) {
        self.lists = Lists(Some(HashMap::new()));
    }

    /// Reads something of a namespace, or returns it as it was read before in this look. `which` tells things of one type apart.
    pub fn once<T: 'static>(
        &mut self,
        at: &NetnsRef,
        which: &str,
        read: impl FnOnce(&mut Kernel) -> net::Result<T>,
    ) -> net::Result<Rc<T>> {
        let Some(lists) = &self.lists.0 else { return read(self).map(Rc::new) };
        let key = (at.no, TypeId::of::<T>(), which.to_string());
        if let Some(known) = lists.get(&key).and_then(|known| known.clone().downcast().ok()) {
            return Ok(known);
        }
        let read = Rc::new(read(self)?);
        if let Some(lists) = &mut self.lists.0 {
            lists.insert(key, read.clone());
        }
        Ok(read)
    }

    /// Returns the routes of a namespace.
    pub fn routes(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<Route>>> {
        self.once(at, "", |kernel| {
            let rtnl = kernel.rtnl(at)?;
            net::ip::route::list(&rtnl)
        })
    }

    /// Returns the rules by which a namespace chooses a routing table.
    pub fn rules(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<Rule>>> {
        self.once(at, "", |kernel| {
            let rtnl = kernel.rtnl(at)?;
            net::ip::rule::list(&rtnl)
        })
    }

    /// Returns the addresses of a namespace.
    pub fn addresses(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<Address>>> {
        self.once(at, "", |kernel| {
            let rtnl = kernel.rtnl(at)?;
            net::ip::addr::list(&rtnl)
        })
    }

    /// Returns the neighbours of a namespace.
    pub fn neighbours(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<Neigh>>> {
        self.once(at, "", |kernel| {
            let rtnl = kernel.rtnl(at)?;
            net::ip::neigh::list(&rtnl)
        })
    }

    /// Returns the entries of the forwarding tables of a namespace.
    pub fn fdb(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<FdbEntry>>> {
        self.once(at, "", |kernel| {
            let rtnl = kernel.rtnl(at)?;
            net::link::fdb::list(&rtnl)
        })
    }

    /// Returns the tables of nf_tables of a namespace.
    pub fn nft_tables(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<nft::Table>>> {
        self.once(at, "", |kernel| nft::list_tables(&kernel.netns(at)?))
    }

    /// Returns the chains of all tables of nf_tables of a namespace.
    pub fn nft_chains(&mut self, at: &NetnsRef) -> net::Result<Rc<Vec<nft::Chain>>> {
        self.once(at, "", |kernel| nft::list_chains(&kernel.netns(at)?))
    }

    /// Returns the rules of one table of nf_tables.
    pub fn nft_rules(
        &mut self,
        at: &NetnsRef,
        family: nft::Family,
        table: &str,
    ) -> net::Result<Rc<Vec<nft::ListedRule>>> {
        let which = format!("{family} {table}");
        self.once(at, &which, |kernel| nft::list_rules(&kernel.netns(at)?, family, table))
    }

    /// Returns how many rules of one table of nf_tables have each comment.
    pub fn nft_comments(
        &mut self,
        at: &NetnsRef,
        family: nft::Family,
        table: &str,
    ) -> net::Result<Rc<HashMap<String, usize>>> {
        let which = format!("{family} {table}");
        self.once(at, &which, |kernel| {
            let mut counts = HashMap::new();
            for (_, comment) in nft::list_comments(&kernel.netns(at)?, family, table)? {
                *counts.entry(comment).or_default() += 1;
            }
            Ok(counts)
        })
    }

    /// Returns the sets and maps of one table of nf_tables, with what is in them.
    pub fn nft_sets(
        &mut self,
        at: &NetnsRef,
        family: nft::Family,
        table: &str,
    ) -> net::Result<Rc<Vec<nft::SetWithElements>>> {
        let sets = self.once(at, "", |kernel| nft::list_sets(&kernel.netns(at)?))?;
        self.once(at, &format!("{family} {table}"), |kernel| {
            let of_table = |set: &&nft::Set| set.family == family && set.table == table;
            nft::with_elements(&kernel.netns(at)?, sets.iter().filter(of_table))
        })
    }

    /// Tells whether the named namespace of `at` is there and this lab made it.
    pub fn has_ours(&mut self, at: &NetnsRef) -> net::Result<bool> {
        let owners: Rc<Owners> = self.once(&NetnsRef::host(), "", |kernel| Ok(kernel.dir().owners()))?;
        Ok(self.ours_of(at, &owners)?.is_some())
    }

    /// Returns the link with this index, of this lab or of others.
    pub fn link_at(&mut self, at: &NetnsRef, index: u32) -> net::Result<Option<Link>> {
        if self.lists.0.is_none() {
            let rtnl = self.rtnl(at)?;
            return net::link::get(&rtnl, index);
        }
        let links = self.once(at, "", |kernel| {
            let rtnl = kernel.rtnl(at)?;
            let links = net::link::list(&rtnl)?;
            Ok(links.into_iter().map(|link| (link.index, link)).collect::<HashMap<u32, Link>>())
        })?;
        Ok(links.get(&index).cloned())
    }

    /// Returns the link of `dev` as the kernel has it, if it is still the one that this lab made or opened.
    pub fn link(&mut self, dev: &DevRef) -> net::Result<Option<Link>> {
        match self.link_at(&dev.netns, dev.index) {
            Ok(link) => Ok(link.filter(|link| self.is_same(dev, link))),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells whether a link with the index of `dev` is the one that this lab made or opened: by its hardware address, or by the
    /// lab's mark, since one that shares the address of another changes it with that.
    pub fn is_same(&self, dev: &DevRef, link: &Link) -> bool {
        // Somebody else's device stays the one that it is under another name, which its owner may give it.
        let known = match dev.made {
            // One without an address to be told by is the lab's, too, where a run ended before it bore the mark.
            true => match &link.alias {
                Some(alias) => self.is_mark(Some(alias)),
                None => {
                    let names = [name::kernel_name(&dev.name), name::passing_name(dev.index)];
                    dev.mac.is_none() && link.mac.is_none() && names.contains(&link.name)
                }
            },
            false => link.goes_by(&name::kernel_name(&dev.name)),
        };
        known || link.mac.is_some() && link.mac == dev.mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Marks;

    /// In a look a list is read once; that of the host is kept for the next lab, and all of them until the next look.
    #[test]
    fn a_look_reads_each_list_once() {
        let mut kernel = Kernel::open().expect("the kernel");
        let host = NetnsRef::host();
        let inner = NetnsRef { no: 1, name: "inner".into(), ..host.clone() };
        let read = |kernel: &mut Kernel, at: &NetnsRef| kernel.routes(at).expect("the routes");
        assert!(!Rc::ptr_eq(&read(&mut kernel, &host), &read(&mut kernel, &host)), "without a look nothing is kept");
        kernel.begin_look();
        let (first, second) = (read(&mut kernel, &host), read(&mut kernel, &inner));
        assert!(Rc::ptr_eq(&first, &read(&mut kernel, &host)) && Rc::ptr_eq(&second, &read(&mut kernel, &inner)));
        assert!(!Rc::ptr_eq(&first, &second));
        kernel.turn_to("other", &Marks::default());
        assert!(Rc::ptr_eq(&first, &read(&mut kernel, &host)) && !Rc::ptr_eq(&second, &read(&mut kernel, &inner)));
        kernel.begin_look();
        assert!(!Rc::ptr_eq(&first, &read(&mut kernel, &host)));
    }
}
