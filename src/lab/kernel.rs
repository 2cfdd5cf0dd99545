//! Access to the kernel for steps: open namespaces and their netlink sockets, by the numbers that steps use.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::commands;
use super::etc;
use super::lists::Lists;
use super::model::Resolver;
use super::notes::Notes;
use super::worker::Worker;
use crate::net::{self, Entry, LinkConfig, Netlink, Netns, NetnsDir, NetnsId, New, Owners, Trail};
use crate::state::{DevRef, Error, Identity, Kind, Marks, NetnsAt, NetnsRef, ProcessRef, StateDir, Store};

/// How many descriptors are left for all else.
const DESCRIPTORS_ELSE: u64 = 300;
/// The most descriptors that are open for a namespace: itself and a socket.
const DESCRIPTORS_EACH: u64 = 2;
/// The most namespaces that are kept open at a time, however many there may be: each socket takes memory.
const OPEN_MAX: u64 = 4096;
/// The number of the host among the namespaces of each lab.
const HOST: u32 = 0;
/// The limit of open files that a process usually has.
const USUAL_LIMIT: u64 = 1024;

/// Returns how many namespaces are kept open under a limit of open files.
fn open_max(limit: u64) -> usize {
    let room = limit.saturating_sub(DESCRIPTORS_ELSE) / DESCRIPTORS_EACH;
    room.clamp(16, OPEN_MAX) as usize
}

thread_local! {
    /// The sockets that the kernels of this thread have open: a lab within another one takes that of the other.
    static SOCKETS: RefCell<HashMap<NetnsId, Weak<Netlink>>> = RefCell::default();
}

/// Returns the socket that is open in a namespace, or opens one.
fn socket_in(netns: &Netns) -> net::Result<Rc<Netlink>> {
    SOCKETS.with_borrow_mut(|sockets| {
        // An open socket keeps its namespace alive, and no other one has its number as long.
        if let Some(open) = sockets.get(&netns.id()).and_then(Weak::upgrade) {
            return Ok(open);
        }
        if sockets.len().is_power_of_two() {
            sockets.retain(|_, socket| socket.strong_count() > 0);
        }
        let opened = Rc::new(Netlink::open(netns)?);
        sockets.insert(netns.id(), Rc::downgrade(&opened));
        Ok(opened)
    })
}

struct Open {
    netns: Netns,
    rtnl: Option<Rc<Netlink>>,
    /// Whether it is known to bear the lab's mark.
    ours: bool,
    /// When it was last asked for.
    used: u64,
}

/// The kernel as steps work on it.
pub struct Kernel {
    /// What waits for several things at once: pings, processes, servers. Most labs need none.
    runtime: OnceCell<Runtime>,
    /// The host; none where it has ended, or is not the one that a lab was made on.
    host: Option<Netns>,
    dir: NetnsDir,
    /// The lab's name, and its marks; empty where this is for none.
    lab: String,
    marks: Marks,
    state: Option<StateDir>,
    open: HashMap<u32, Open>,
    /// How many namespaces are kept open at a time.
    pub(super) open_max: usize,
    /// Counts what is asked of `open`.
    clock: u64,
    /// The thread that works beside this one.
    pub(super) worker: Worker,
    expect_gone: Vec<DevRef>,
    exact: bool,
    /// What devices had before they were set down, by their numbers.
    configs: HashMap<u32, LinkConfig>,
    /// How what the commands of this run leave running is found again, once one has run where nothing else tells.
    trail: Option<Rc<Trail>>,
    notes: Notes,
    /// What was read in a look at labs.
    pub(super) lists: Lists,
}

impl Kernel {
    /// Opens the kernel as seen from the calling thread, to look at it: for no lab.
    pub fn open() -> net::Result<Kernel> {
        Ok(Kernel {
            runtime: OnceCell::new(),
            host: Some(Netns::current()?),
            dir: NetnsDir::system(),
            lab: String::new(),
            marks: Marks::default(),
            state: None,
            open: HashMap::new(),
            open_max: open_max(USUAL_LIMIT),
            clock: 0,
            worker: Worker::default(),
            expect_gone: Vec::new(),
            exact: false,
            configs: HashMap::new(),
            trail: None,
            notes: Notes::default(),
            lists: Lists::default(),
        })
    }

    /// Opens the kernel for a lab of `state`; what is made through it gets the lab's marks.
    pub fn open_for(state: &StateDir, lab: &str, marks: &Marks) -> net::Result<Kernel> {
        let open_max = open_max(net::raise_limit());
        let (lab, marks) = (lab.to_string(), marks.clone());
        Ok(Kernel { state: Some(state.clone()), lab, marks, open_max, ..Kernel::open()? })
    }

    /// Turns to another lab in a look at several, whose host is the same: what is open there stays open, and what was read there is kept.
    pub(crate) fn turn_to(&mut self, lab: &str, marks: &Marks) {
        (self.lab, self.marks) = (lab.to_string(), marks.clone());
        self.open.retain(|no, _| *no == HOST);
        self.lists.keep(HOST);
    }

    /// Takes the host for ended: nothing of the lab is on the one of this process.
    pub(crate) fn lose_host(&mut self) {
        self.host = None;
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

    /// Returns the state directory; for the kernel of a lab.
    pub(crate) fn state(&self) -> Option<&StateDir> {
        self.state.as_ref()
    }

    /// Opens the store; for the kernel of a lab.
    pub fn store(&self) -> crate::state::Result<Arc<dyn Store>> {
        match &self.state {
            Some(state) => state.store(),
            None => Err(Error::new(Kind::State, "open the store").because("no lab is at work")),
        }
    }

    /// Returns the owner mark: every link bears it as its alias, every namespace as the alias of its `lo`.
    pub fn mark(&self) -> &str {
        &self.marks.mark
    }

    /// Returns both marks of the lab.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Changes the lab's name, before anything is made.
    pub(super) fn set_lab(&mut self, lab: &str, marks: Marks) -> crate::state::Result<()> {
        // What was begun has the old mark.
        self.worker.stop();
        if let (Some(state), Some(trail)) = (&self.state, self.trail.take()) {
            let moved = state.rename_trail(&trail, &self.lab, lab, &marks);
            self.trail = moved.map_err(|source| Error::kernel(format!("name the lab `{lab}`"), &source))?.map(Rc::new);
        }
        (self.lab, self.marks) = (lab.to_string(), marks);
        Ok(())
    }

    /// Returns where the lab keeps the records and logs of its processes; for the kernel of a lab.
    pub fn processes(&self) -> net::Result<PathBuf> {
        self.lab_dir().map(|dir| dir.join("processes"))
    }

    /// Returns the lab's directory; for the kernel of a lab.
    pub(crate) fn lab_dir(&self) -> net::Result<PathBuf> {
        let state = self.state.as_ref().filter(|_| !self.lab.is_empty());
        let dir = state.map(|state| state.lab_dir(&self.lab).path().to_path_buf());
        dir.ok_or_else(|| net::Error::new("find the lab's directory", libc::ENOENT))
    }

    /// Returns the name of the control group that a process of the lab has for itself; for the kernel of a lab.
    pub fn group_of(&self, process: &ProcessRef) -> String {
        commands::group_of_process(self.mark(), process.no)
    }

    /// Returns how what a command in a namespace leaves running is found again; none where the namespace itself tells.
    pub fn trail_in(&mut self, at: &NetnsRef) -> net::Result<Option<Rc<Trail>>> {
        if at.made {
            return Ok(None);
        }
        if let (None, Some(state)) = (&self.trail, &self.state) {
            self.trail = state.begin_trail(&self.lab, &self.marks)?.map(Rc::new);
        }
        Ok(self.trail.clone())
    }

    /// Tells whether a command of this run has run where no namespace tells what it leaves running.
    pub(super) fn has_trail(&self) -> bool {
        self.trail.is_some()
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
    pub fn run<T>(&self, work: impl Future<Output = net::Result<T>>) -> net::Result<T> {
        self.runtime()?.block_on(work)
    }

    /// Runs `work` to its end or until a signal is caught (EINTR).
    pub fn run_unless_caught<T>(&self, doing: &str, work: impl Future<Output = net::Result<T>>) -> net::Result<T> {
        self.run(net::process::signal::unless_caught(doing, work))
    }

    fn runtime(&self) -> net::Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let failed = |error| net::Error::io("start the runtime", error);
        // The runtime panics where it can't open what it needs.
        let room = (0..3).map(|_| UnixStream::pair()).collect::<std::io::Result<Vec<_>>>();
        drop(room.map_err(failed)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// Returns the open namespace `at`; one that is no longer the one it was is ENOENT.
    pub fn netns(&mut self, at: &NetnsRef) -> net::Result<Netns> {
        Ok(self.opened(at)?.netns.clone())
    }

    /// Returns a socket in the namespace `at`.
    pub fn rtnl(&mut self, at: &NetnsRef) -> net::Result<Rc<Netlink>> {
        let open = self.opened(at)?;
        if let Some(rtnl) = &open.rtnl {
            return Ok(rtnl.clone());
        }
        let rtnl = socket_in(&open.netns)?;
        open.rtnl = Some(rtnl.clone());
        Ok(rtnl)
    }

    fn opened(&mut self, at: &NetnsRef) -> net::Result<&mut Open> {
        if !self.open.contains_key(&at.no) {
            // It may be found by a name that it is only about to get.
            self.worker.wait();
            let netns = self.find(at)?;
            self.keep(at, netns);
        }
        self.clock += 1;
        let used = self.clock;
        let open = self.open.get_mut(&at.no);
        let open = open.ok_or_else(|| net::Error::new(format!("open netns `{}`", at.name), libc::ENOENT))?;
        open.used = used;
        Ok(open)
    }

    fn find(&self, at: &NetnsRef) -> net::Result<Netns> {
        let same = |netns: Netns, seen: &Identity| {
            if seen.is(&netns)? {
                return Ok(netns);
            }
            Err(net::Error::new(format!("open netns `{}`, which is another one by now", at.name), libc::ENOENT))
        };
        match &at.at {
            NetnsAt::Host => self
                .host
                .clone()
                .ok_or_else(|| net::Error::new("open the host of the lab, which is not here", libc::ENOENT)),
            // A file on which a killed run had not mounted it yet is none.
            NetnsAt::Named => {
                self.named(at)?.ok_or_else(|| net::Error::new(format!("open netns `{}`", at.name), libc::ENOENT))
            }
            NetnsAt::NamedAs(seen) => same(self.dir.open(&at.name)?, seen),
            NetnsAt::Path(path, seen) => same(Netns::open(path)?, seen),
            NetnsAt::Process(process, seen) => same(Netns::of_pid(process.pid)?, seen),
        }
    }

    /// Keeps a namespace that bears the lab's mark open under its number.
    pub fn keep_ours(&mut self, at: &NetnsRef, netns: Netns) {
        self.keep(at, netns);
        if let Some(open) = self.open.get_mut(&at.no) {
            open.ours = true;
        }
    }

    /// Keeps a namespace open under its number.
    pub fn keep(&mut self, at: &NetnsRef, netns: Netns) {
        if self.open.len() >= self.open_max {
            self.close_some();
        }
        self.clock += 1;
        self.open.insert(at.no, Open { netns, rtnl: None, ours: false, used: self.clock });
    }

    /// Closes the quarter of the namespaces that were not asked for the longest.
    fn close_some(&mut self) {
        let mut used: Vec<u64> = self.open.values().map(|open| open.used).collect();
        let quarter = used.len() / 4;
        let (_, oldest_kept, _) = used.select_nth_unstable(quarter);
        let oldest_kept = *oldest_kept;
        self.open.retain(|_, open| open.used >= oldest_kept);
    }

    /// Lets go of a namespace, so that the kernel can free it.
    pub fn forget(&mut self, at: &NetnsRef) {
        self.open.remove(&at.no);
    }

    /// Begins to make one more namespace beside what this thread does, unless one was begun that nobody had asked for.
    pub(super) fn order_netns(&mut self) {
        self.worker.order_netns(&self.marks.mark);
    }

    /// Begins to make a namespace that is likely to be asked for.
    pub(super) fn expect_netns(&mut self) {
        self.worker.expect_netns(&self.marks.mark);
    }

    /// Returns a new namespace: the next one of those begun, or one made now.
    pub fn new_netns(&mut self) -> net::Result<New> {
        self.worker.new_netns(&self.marks.mark)
    }

    /// Returns the named namespace of `at` if this lab made it: its file has this lab's mark.
    pub fn ours(&self, at: &NetnsRef) -> net::Result<Option<Netns>> {
        self.ours_of(at, &self.dir.owners())
    }

    pub(super) fn ours_of(&self, at: &NetnsRef, owners: &Owners) -> net::Result<Option<Netns>> {
        let Some(netns) = self.named(at)? else { return Ok(None) };
        Ok(self.is_mark(owners.mark_of(&at.name, &netns)?.as_deref()).then_some(netns))
    }

    /// Does what `ours` does for many, and keeps them open as known to be ours. Returns what they are known by.
    pub(super) fn all_ours(&mut self, namespaces: &[&NetnsRef]) -> Vec<net::Result<Option<NetnsId>>> {
        let owners = self.dir.owners();
        let mut found = Vec::with_capacity(namespaces.len());
        for at in namespaces {
            found.push(self.ours_of(at, &owners).map(|ours| {
                let id = ours.as_ref().map(Netns::id);
                ours.into_iter().for_each(|netns| self.keep_ours(at, netns));
                id
            }));
        }
        found
    }

    /// Returns the namespace that is found under the name of `at`, whoever made it.
    fn named(&self, at: &NetnsRef) -> net::Result<Option<Netns>> {
        match self.dir.entry(&at.name)? {
            Entry::Netns(netns) => Ok(Some(netns)),
            _ => Ok(None),
        }
    }

    pub(super) fn is_mark(&self, mark: Option<&str>) -> bool {
        // Without a lab there is no mark, and a file of `ip netns` is empty.
        !self.marks.mark.is_empty() && mark == Some(self.mark())
    }

    /// Tells whether a namespace found under the name of `at` was made by this lab. One that is kept open as ours is not looked
    /// up again: as long as it is, no other has its number.
    pub fn is_ours(&self, at: &NetnsRef, netns: &Netns) -> net::Result<bool> {
        if self.open.get(&at.no).is_some_and(|open| open.ours && open.netns.id() == netns.id()) {
            return Ok(true);
        }
        Ok(self.is_mark(self.dir.owners().mark_of(&at.name, netns)?.as_deref()))
    }

    /// Remembers what `dev` has, which goes down and loses it.
    pub fn keep_config(&mut self, dev: &DevRef, config: LinkConfig) {
        self.configs.insert(dev.no, config);
    }

    /// Returns what `dev` had when it was last set down here.
    pub fn kept_config(&self, dev: &DevRef) -> Option<LinkConfig> {
        self.configs.get(&dev.no).cloned()
    }

    /// Returns the note of a type, for steps and primitives to leave something to those after them.
    pub fn note<T: Default + 'static>(&mut self) -> &mut T {
        self.notes.of()
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
        let netns = match self.netns(&first.netns) {
            Err(error) if error.is_gone() => return Ok(()),
            netns => netns?,
        };
        let rtnl = self.rtnl(&first.netns)?;
        let links: HashMap<u32, net::Link> =
            net::link::list(&rtnl)?.into_iter().map(|link| (link.index, link)).collect();
        let is_there = |dev: &&&DevRef| links.get(&dev.index).is_some_and(|link| self.is_same(dev, link));
        let indexes: Vec<u32> = devs.iter().filter(is_there).map(|dev| dev.index).collect();
        let left = self.run(net::link::wait_gone(&netns, &rtnl, &indexes, Duration::from_secs(5)))?;
        for index in left {
            match net::link::delete(&rtnl, index) {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
