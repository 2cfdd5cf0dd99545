//! The lab's hands: open namespaces and sockets, by the numbers that steps use, on one runtime.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Error, Kind};
use super::etc;
use super::model::{DevRef, NetnsAt, NetnsRef, ProcessRef, Resolver};
use super::name;
use super::state::StateDir;
use super::store::Store;
use crate::net::{self, Entry, Load, Netns, NetnsDir, NetnsId, NetnsMaker, Rtnl};

/// How many namespaces are kept open at a time: far below the usual limit of 1024 file descriptors, two for each.
const OPEN_MAX: usize = 200;

struct Open {
    no: u32,
    netns: Netns,
    rtnl: Option<Rc<Rtnl>>,
}

/// The kernel as steps work on it.
pub struct Kernel {
    runtime: tokio::runtime::Runtime,
    host: Netns,
    dir: NetnsDir,
    mark: String,
    state: Option<StateDir>,
    open: VecDeque<Open>,
    maker: Option<NetnsMaker>,
    expect_gone: Vec<DevRef>,
    exact: bool,
    /// What devices that were set down carried, by their numbers.
    loads: HashMap<u32, Load>,
}

impl Kernel {
    /// Opens the kernel as seen from the calling thread; what is made through it bears `mark`.
    pub fn open(mark: &str) -> net::Result<Kernel> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| net::Error::io("start the runtime", error))?;
        Ok(Kernel {
            runtime,
            host: Netns::current()?,
            dir: NetnsDir::system(),
            mark: mark.to_string(),
            state: None,
            open: VecDeque::new(),
            maker: None,
            expect_gone: Vec::new(),
            exact: false,
            loads: HashMap::new(),
        })
    }

    /// Opens the kernel for a lab of `state`, whose other labs it then knows of.
    pub fn open_among(state: &StateDir, mark: &str) -> net::Result<Kernel> {
        Ok(Kernel { state: Some(state.clone()), ..Kernel::open(mark)? })
    }

    /// Makes steps remember what they change of the lab's own things too: each is to be taken back alone, while the others stay.
    pub fn undo_exactly(&mut self) {
        self.exact = true;
    }

    /// Tells whether a step must remember what it changes of a thing, which the lab `made` or not: what it made goes as a whole
    /// with the lab.
    pub fn must_remember(&self, made: bool) -> bool {
        !made || self.exact
    }

    /// Returns the fields of the steps of one sort that other labs on this host have: what they hold in common with this one
    /// must not end before the last of them does.
    pub fn steps_of_others(&self, word: &str) -> Vec<serde_json::Value> {
        self.state.as_ref().map_or_else(Vec::new, |state| state.steps_of_others(&self.mark, word))
    }

    /// Opens the store; for the kernel of a lab.
    pub fn store(&self) -> super::error::Result<Arc<dyn Store>> {
        match &self.state {
            Some(state) => state.store(),
            None => Err(Error::new(Kind::State, "open the store").because("no lab is at work")),
        }
    }

    /// Returns the owner mark: every link bears it as its alias, every namespace as the alias of its `lo`.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Changes the owner mark, once the lab's name is settled and before anything is made.
    pub fn set_mark(&mut self, mark: &str) {
        self.mark = mark.to_string();
    }

    /// Returns where the lab keeps the records and logs of its processes; for the kernel of a lab.
    pub fn processes(&self) -> net::Result<PathBuf> {
        self.lab_dir().map(|dir| dir.join("processes"))
    }

    /// Returns the lab's directory; for the kernel of a lab.
    pub(super) fn lab_dir(&self) -> net::Result<PathBuf> {
        let dir = self.state.as_ref().and_then(|state| state.dir_of(&self.mark));
        dir.ok_or_else(|| net::Error::new("find the lab's directory", libc::ENOENT))
    }

    /// Returns the name of the control group that a process of the lab has for itself; for the kernel of a lab.
    pub fn group_of(&self, process: &ProcessRef) -> String {
        self.state.as_ref().map_or(String::new(), |state| state.group_name(&self.mark, process.no))
    }

    /// Writes down the name servers that commands in a namespace see, or that they see the machine's own.
    pub fn write_resolver(&self, at: &NetnsRef, resolver: Option<&Resolver>) -> net::Result<()> {
        let path = etc::resolver_file(&self.lab_dir()?, at.no);
        let doing = format!("write `{}`", path.display());
        net::fault::point(&doing)?;
        let written = match resolver {
            Some(resolver) => etc::bring_up_to_date(&path, &resolver.text()),
            // What runs already goes on to see it.
            None => std::fs::remove_file(&path),
        };
        written.map_err(|error| net::Error::io(doing, error))
    }

    /// Returns the directory of named namespaces.
    pub fn dir(&self) -> &NetnsDir {
        &self.dir
    }

    /// Runs `work` to its end.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs `work` to its end or until a signal is caught (EINTR).
    pub fn run_unless_caught<T>(&self, doing: &str, work: impl Future<Output = net::Result<T>>) -> net::Result<T> {
        self.runtime.block_on(net::signal::unless_caught(doing, work))
    }

    /// Returns the open namespace `at`; one that is no longer the one it was is ENOENT.
    pub fn netns(&mut self, at: &NetnsRef) -> net::Result<Netns> {
        Ok(self.opened(at)?.netns.clone())
    }

    /// Returns a socket in the namespace `at`.
    pub fn rtnl(&mut self, at: &NetnsRef) -> net::Result<Rc<Rtnl>> {
        // At the back then, where it is looked for next.
        self.opened(at)?;
        let _entered = self.runtime.enter();
        match self.open.back_mut() {
            Some(open) => match &open.rtnl {
                Some(rtnl) => Ok(rtnl.clone()),
                None => {
                    let rtnl = Rc::new(Rtnl::open(&open.netns)?);
                    open.rtnl = Some(rtnl.clone());
                    Ok(rtnl)
                }
            },
            None => Err(net::Error::new(format!("open netns `{}`", at.name), libc::ENOENT)),
        }
    }

    fn opened(&mut self, at: &NetnsRef) -> net::Result<&Open> {
        if let Some(position) = self.open.iter().position(|open| open.no == at.no) {
            if let Some(open) = self.open.remove(position) {
                self.open.push_back(open);
            }
        } else {
            let netns = self.find(at)?;
            self.keep(at, netns);
        }
        self.open.back().ok_or_else(|| net::Error::new(format!("open netns `{}`", at.name), libc::ENOENT))
    }

    fn find(&self, at: &NetnsRef) -> net::Result<Netns> {
        let same = |netns: Netns, id: &NetnsId| {
            if netns.id() == *id {
                return Ok(netns);
            }
            Err(net::Error::new(format!("open netns `{}`, which is another one by now", at.name), libc::ENOENT))
        };
        match &at.at {
            NetnsAt::Host => Ok(self.host.clone()),
            NetnsAt::Named => match self.dir.entry(&at.name)? {
                Entry::Netns(netns) => Ok(netns),
                // Also a file on which a killed run had not mounted it yet.
                _ => Err(net::Error::new(format!("open netns `{}`", at.name), libc::ENOENT)),
            },
            NetnsAt::Path(path, id) => same(Netns::open(path)?, id),
            NetnsAt::Process(process, id) => same(Netns::of_pid(process.pid)?, id),
        }
    }

    /// Keeps a namespace open under its number.
    pub fn keep(&mut self, at: &NetnsRef, netns: Netns) {
        if self.open.len() >= OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(Open { no: at.no, netns, rtnl: None });
    }

    /// Lets go of a namespace, so that the kernel can free it.
    pub fn forget(&mut self, at: &NetnsRef) {
        self.open.retain(|open| open.no != at.no);
    }

    /// Lets aborted socket tasks end, which closes their sockets: an open socket keeps its namespace alive.
    pub fn close_forgotten(&self) {
        self.run(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Starts making `count` namespaces beside what this thread does.
    pub fn start_making(&mut self, count: usize) {
        self.maker = (count > 1).then(|| NetnsMaker::start(&self.mark, count));
    }

    /// Returns a new namespace: the next one of those being made, or one made now.
    pub fn new_netns(&mut self) -> net::Result<Netns> {
        match &mut self.maker {
            Some(maker) => maker.next(),
            None => Netns::create(&self.mark),
        }
    }

    /// Stops making namespaces; those that nobody took are freed.
    pub fn stop_making(&mut self) {
        self.maker = None;
    }

    /// Returns the owner mark that a namespace bears, whoever made it.
    pub fn mark_in(&self, netns: &Netns) -> net::Result<Option<String>> {
        let mark = {
            let _entered = self.runtime.enter();
            let rtnl = Rtnl::open(netns)?;
            self.runtime.block_on(net::mark_of(&rtnl))
        };
        self.close_forgotten();
        mark
    }

    /// Returns the named namespace of `at` if it bears this lab's mark.
    pub fn ours(&self, at: &NetnsRef) -> net::Result<Option<Netns>> {
        let Entry::Netns(netns) = self.dir.entry(&at.name)? else { return Ok(None) };
        let mark = self.mark_in(&netns)?;
        Ok((mark.as_deref() == Some(self.mark.as_str())).then_some(netns))
    }

    /// Returns the link of `dev` as the kernel has it, if it is still the one that this lab made or opened.
    pub fn link(&mut self, dev: &DevRef) -> net::Result<Option<net::Link>> {
        let rtnl = match self.rtnl(&dev.netns) {
            Ok(rtnl) => rtnl,
            Err(error) if error.is_gone() => return Ok(None),
            Err(error) => return Err(error),
        };
        let link = self.run(net::link::get(&rtnl, dev.index))?;
        Ok(link.filter(|link| self.is_same(dev, link)))
    }

    /// Tells whether a link with the index of `dev` is the one that this lab made or opened: by its hardware address, or by the
    /// lab's mark, since one that shares the address of another changes it with that.
    pub fn is_same(&self, dev: &DevRef, link: &net::Link) -> bool {
        // Somebody else's device stays the one that it is under another name, which its owner may give it.
        let known = match dev.made {
            // One without an address to be told by is the lab's, too, where a run ended before it bore the mark.
            true => match &link.alias {
                Some(alias) => *alias == self.mark,
                None => {
                    let names = [name::kernel_name(&dev.name), name::passing_name(dev.index)];
                    dev.mac.is_none() && link.mac.is_none() && names.contains(&link.name)
                }
            },
            false => link.goes_by(&name::kernel_name(&dev.name)),
        };
        known || link.mac.is_some() && link.mac == dev.mac
    }

    /// Remembers what `dev` carries, which goes down and loses it.
    pub fn keep_load(&mut self, dev: &DevRef, load: Load) {
        self.loads.insert(dev.no, load);
    }

    /// Returns what `dev` carried when it was last set down here.
    pub fn kept_load(&self, dev: &DevRef) -> Option<Load> {
        self.loads.get(&dev.no).cloned()
    }

    /// Notes that `dev` will end by itself, with the namespace of its other end.
    pub fn expect_gone(&mut self, dev: &DevRef) {
        self.expect_gone.push(dev.clone());
    }

    /// Waits until all expected devices are gone; removes one by one those that something else keeps alive.
    pub fn wait_gone(&mut self) -> Vec<net::Error> {
        let mut errors = Vec::new();
        let devs = std::mem::take(&mut self.expect_gone);
        let namespaces: BTreeSet<u32> = devs.iter().map(|dev| dev.netns.no).collect();
        for no in namespaces {
            let here: Vec<&DevRef> = devs.iter().filter(|dev| dev.netns.no == no).collect();
            if let Err(error) = self.wait_gone_in(&here) {
                errors.push(error);
            }
        }
        errors
    }

    fn wait_gone_in(&mut self, devs: &[&DevRef]) -> net::Result<()> {
        let Some(first) = devs.first() else { return Ok(()) };
        let mut indexes = Vec::new();
        for dev in devs {
            if self.link(dev)?.is_some() {
                indexes.push(dev.index);
            }
        }
        let netns = self.netns(&first.netns)?;
        let rtnl = self.rtnl(&first.netns)?;
        let left = self.run(net::link::wait_gone(&netns, &rtnl, &indexes, Duration::from_secs(5)))?;
        for index in left {
            match self.run(net::link::delete(&rtnl, index)) {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
