//! The state directory: one directory a lab with its record, its journal and its lock.
//!
//! ```text
//! <root>/lock                   held for moments, while a lab is claimed or removed
//! <root>/secret                 what owner marks are made with (`marks`)
//! <root>/labs/NAME/lab.json     the lab's record
//! <root>/labs/NAME/journal      its steps, written ahead
//! <root>/labs/NAME/lock         held as long as a process builds the lab, changes it or takes it down
//! <root>/labs/NAME/names        its namespaces, as its journal has them, for commands that enter one
//! <root>/labs/NAME/etc/         what commands in its namespaces see of /etc
//! <root>/labs/NAME/processes/   the records and logs of the processes that run beside the script
//! <root>/labs/NAME/parts/       which labs are parts of it (`index`)
//! <root>/settings-HOST          which settings of a host labs hold (`settings`)
//! ```

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::error::{Error, Kind, Result};
use super::files::{self, open_lock};
use super::host::Host;
use super::inside::Inside;
use super::marks::{Marks, Secret};
use super::name;
use super::refs::NetnsRef;
use super::store::{LocalStore, Store};
use super::sum;
use crate::net::ProcessId;
use crate::net::regular::{self, STATE_BYTES_MAX};

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its script runs, or died while it ran.
    Building,
    /// Its script ended well and left it up.
    Up,
    /// It is being taken down, or the process that did so died.
    Undoing,
}

/// What a lab is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabKind {
    /// A topology that a script built.
    #[default]
    Lab,
    /// A container network.
    Network,
    /// A container's attachment to a network.
    Endpoint,
}

impl LabKind {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            LabKind::Lab => "lab",
            LabKind::Network => "network",
            LabKind::Endpoint => "endpoint",
        }
    }
}

/// A lab's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The lab's name.
    pub name: String,
    /// How far it has come.
    pub status: Status,
    /// Which boot of the machine its kernel objects belong to.
    pub boot_id: String,
    /// The process that made it.
    pub creator: ProcessId,
    /// The script that made it, as the user named it.
    pub script: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its owner marks.
    #[serde(flatten)]
    pub marks: Marks,
    /// The process that holds its sandbox, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<ProcessId>,
    /// What it is for.
    #[serde(default)]
    pub kind: LabKind,
    /// The lab that it is a part of, and goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The namespaces in which its script ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// The namespace of somebody else that it is for: once that has ended, nobody wants the lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_to: Option<NetnsRef>,
}

impl Record {
    /// Tells whether the machine was restarted since: nothing of the lab is in the kernel then.
    pub fn is_of_earlier_boot(&self) -> Result<bool> {
        Ok(self.boot_id != boot_id()?)
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
    store: PathBuf,
    inside: Option<Inside>,
    secret: Arc<OnceLock<Secret>>,
    host: Arc<OnceLock<Host>>,
    /// The store, once it was opened: a list of networks asks for it as many times as there are networks.
    opened: Arc<OnceLock<Arc<LocalStore>>>,
}

impl StateDir {
    /// Opens the state directory, and makes it (mode 0700) if it isn't there; one of another user is refused.
    ///
    /// `store` is where the store is, which outlives a restart. A process in a sandbox says so by `inside`: it can't see the
    /// holder, and knows that it lives.
    pub fn open(root: &Path, store: &Path, inside: Option<Inside>) -> Result<StateDir> {
        let root = files::own_dir("state directory", "TOPO_STATE", root, "labs")?;
        // A sandbox has a store of its own: what it keeps is about things that go with it.
        let store = inside.map_or_else(|| store.to_path_buf(), |inside| sandbox_store(&root, inside.holder));
        let (secret, host, opened) = (Arc::default(), Arc::default(), Arc::default());
        let state = StateDir { root, store, inside, secret, host, opened };
        state.prepare_secret();
        Ok(state)
    }

    /// Returns the directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the sandbox that this process is in.
    pub fn inside(&self) -> Option<Inside> {
        self.inside
    }

    /// Tells whether there is a store yet.
    pub(crate) fn has_store(&self) -> bool {
        self.store.is_dir()
    }

    /// Opens the store.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        if let Some(store) = self.opened.get() {
            return Ok(store.clone());
        }
        let store = Arc::new(LocalStore::open(&self.store)?);
        Ok(self.opened.get_or_init(|| store).clone())
    }

    /// Removes what killed processes left in the store, if there is one.
    pub(crate) fn tidy_store(&self) -> Result<()> {
        if self.store.is_dir() { LocalStore::open(&self.store)?.tidy() } else { Ok(()) }
    }

    /// Returns what is wrong with the values in the store.
    pub(crate) fn check_store(&self) -> Vec<Error> {
        // One that can't be opened was told of by who wanted something of it, and none is made.
        let store = self.has_store().then(|| LocalStore::open(&self.store));
        store.and_then(Result::ok).map_or(Vec::new(), |store| store.check())
    }

    /// Removes the store of a sandbox that has ended.
    pub(crate) fn drop_store_of(&self, holder: ProcessId) -> Result<()> {
        let store = sandbox_store(&self.root, holder);
        match std::fs::remove_dir_all(&store) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::file(format!("remove `{}`", store.display()), &source))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether the sandbox of a lab has ended.
    pub fn has_ended(&self, record: &Record) -> bool {
        let here = self.inside.map(|inside| inside.holder);
        record.holder.is_some_and(|holder| Some(holder) != here && !holder.is_alive())
    }

    /// Tells whether a lab is up, in this boot of the machine.
    pub fn is_up(&self, record: &Record) -> Result<bool> {
        Ok(record.status == Status::Up && !record.is_of_earlier_boot()? && !self.has_ended(record))
    }

    /// Returns the host of this process, if it was looked up already.
    pub(super) fn known_host(&self) -> &OnceLock<Host> {
        &self.host
    }

    /// Returns the secret, if it was read already.
    pub(super) fn known_secret(&self) -> &OnceLock<Secret> {
        &self.secret
    }

    /// Returns the names of all labs, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = self.listed()?.collect::<Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    /// Tells whether there is a lab beside the one of this name: mostly known by the first entries.
    fn has_other(&self, name: &str) -> Result<bool> {
        for other in self.listed()? {
            if other? != name {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists the names of all labs, as the directory has them.
    fn listed(&self) -> Result<impl Iterator<Item = Result<String>>> {
        let dir = self.root.join("labs");
        let doing = format!("list the labs in `{}`", dir.display());
        let entries = std::fs::read_dir(&dir).map_err(|source| Error::file(&doing, &source))?;
        let name_of = move |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.map_err(|source| Error::file(&doing, &source));
            // Only directories are labs, not what else somebody put there.
            let is_lab = |entry: &std::fs::DirEntry, name: &str| {
                name::check("lab", name).is_ok() && entry.file_type().is_ok_and(|kind| kind.is_dir())
            };
            let named = entry.map(|entry| entry.file_name().into_string().ok().filter(|name| is_lab(&entry, name)));
            named.transpose()
        };
        Ok(entries.filter_map(name_of))
    }

    /// Returns a lab's directory; `missing` with the nearest name if there is none.
    pub fn find(&self, name: &str) -> Result<LabDir> {
        name::check("lab", name)?;
        let dir = self.lab_dir(name);
        if dir.path.is_dir() {
            return Ok(dir);
        }
        let error = Error::new(Kind::Missing, format!("find lab `{name}`")).because("there is no lab of this name");
        let names = self.names()?;
        Err(match name::nearest(name, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`topo ls` lists the labs"),
        })
    }

    pub(crate) fn lab_dir(&self, name: &str) -> LabDir {
        LabDir { name: name.to_string(), path: self.root.join("labs").join(name), lock: None }
    }

    /// Takes the name `record.name` for a new lab: makes its directory, locks it, has `begin` write its journal, without a step yet,
    /// and writes its record.
    pub(crate) fn claim<J>(&self, record: &Record, begin: impl FnOnce(&LabDir) -> Result<J>) -> Result<(LabDir, J)> {
        let doing = || format!("make lab `{}`", record.name);
        let _all = self.lock_all()?;
        if let Some(whole) = &record.parent
            && let Ok(whole) = self.lab_dir(whole).record()
        {
            self.check_host(&whole, doing)?;
        }
        let mut dir = self.lab_dir(&record.name);
        match DirBuilder::new().mode(0o700).create(&dir.path) {
            Ok(()) => {}
            Err(source) if source.kind() == ErrorKind::AlreadyExists => return Err(self.taken(&dir, doing())),
            Err(source) => return Err(Error::file(doing(), &source)),
        }
        let part = record.parent.as_ref().map_or(Ok(()), |whole| self.note_part(&record.name, whole));
        let done = part.and_then(|()| dir.take_lock()).and_then(|()| {
            // The record comes last: a lab that has one has a journal too.
            let journal = begin(&dir)?;
            dir.write_record(record).map(|()| journal)
        });
        match done {
            Ok(journal) => Ok((dir, journal)),
            Err(error) => {
                // Nothing was made yet: the directory alone would stand in the way of the next run.
                let _ = std::fs::remove_dir_all(&dir.path);
                let _ = self.forget_entries(&record.name, Some(record));
                Err(error)
            }
        }
    }

    fn taken(&self, dir: &LabDir, doing: String) -> Error {
        let name = &dir.name;
        let Ok(record) = dir.record() else {
            return Error::new(Kind::Exists, doing)
                .because("a lab of this name is there, and its record can't be read")
                .hint("`topo gc` removes it if its run died, and else says what is wrong with the record");
        };
        let held = dir.is_held();
        let (kind, because, hint) = match record.status {
            Status::Building | Status::Undoing if held => (
                Kind::Busy,
                format!("process {} is at work on it", record.creator.pid),
                format!("wait for it, or give this run another name: `--name {name}-2`"),
            ),
            Status::Up => (
                Kind::Exists,
                format!("it is up, made by `{}`", record.script),
                format!("`topo down {name}` takes it down; `--name` gives this run another name"),
            ),
            _ => (
                Kind::Exists,
                "a run that died left it behind".to_string(),
                format!("`topo gc` or `topo down {name}` removes what is left of it"),
            ),
        };
        Error::new(kind, doing).because(because).hint(hint)
    }

    /// Returns the first of `NAME`, `NAME-2`, `NAME-3` … that no lab has: for runs that nobody gave a name.
    pub fn free_name(&self, name: &str) -> Result<String> {
        let names = self.names()?;
        let free = |candidate: &String| !names.contains(candidate);
        let numbered = std::iter::once(name.to_string()).chain((2..).map(|n| format!("{name}-{n}"))).find(free);
        numbered.ok_or_else(|| Error::new(Kind::Exists, format!("find a free name like `{name}`")))
    }

    /// Makes a directory for what passes with this process; it goes with the value. Where the process is killed, `sweep` sees to it.
    pub fn scratch(&self) -> Result<Scratch> {
        let me = ProcessId::current().map_err(|source| Error::kernel("look at this process", &source))?;
        let path = self.root.join(format!("{SCRATCH}{}-{}", me.pid, me.start));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| Error::file(format!("make `{}`", path.display()), &source))?;
        Ok(Scratch(path))
    }

    /// Removes the scratch directories of processes that have ended.
    fn sweep_scratch(&self) -> Result<()> {
        let failed = |source: std::io::Error| Error::file(format!("tidy `{}`", self.root.display()), &source);
        for entry in std::fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let numbers = name.strip_prefix(SCRATCH).and_then(|numbers| numbers.split_once('-'));
            let owner = numbers.and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
            if owner.is_some_and(|(pid, start)| !ProcessId { pid, start }.is_alive()) {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes what killed processes left half removed.
    pub fn sweep(&self) -> Result<()> {
        // Seen from inside a sandbox, processes outside of it seem dead.
        if self.inside.is_none() {
            self.sweep_scratch()?;
        }
        let _all = self.lock_all()?;
        let dir = self.root.join("labs");
        let failed = |source: std::io::Error| Error::file(format!("tidy `{}`", dir.display()), &source);
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(REMOVED)) {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        self.sweep_entries()
    }

    /// Locks the state directory, for as long as the file lives.
    pub fn lock_all(&self) -> Result<File> {
        let path = self.root.join("lock");
        let doing = || format!("lock `{}`", path.display());
        let file = open_lock(&path).map_err(|source| Error::file(doing(), &source))?;
        file.lock().map_err(|source| Error::file(doing(), &source))?;
        Ok(file)
    }
}

pub(crate) fn sandbox_store(root: &Path, holder: ProcessId) -> PathBuf {
    root.join(format!("sandbox-{}-{}", holder.pid, holder.start))
}

/// How the name of a directory begins that passes with a process.
const SCRATCH: &str = "scratch-";

/// A directory for what passes with this process.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed, `sweep` removes later.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How the directory of a lab that is no more begins; a dot is in no lab's name.
const REMOVED: &str = ".removed-";

/// A lab's directory.
#[derive(Debug)]
pub struct LabDir {
    name: String,
    path: PathBuf,
    lock: Option<File>,
}

impl LabDir {
    /// Returns the lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where its journal is.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Returns where the records and logs of its processes are.
    pub(crate) fn processes(&self) -> PathBuf {
        self.path.join("processes")
    }

    /// Takes the lab's lock; `busy` if another process holds it, `missing` if the lab is gone. It is let go with this value.
    pub fn lock(&mut self, state: &StateDir) -> Result<()> {
        let _all = state.lock_all()?;
        self.take_lock()
    }

    /// Takes the lock, for whoever holds that of the state directory: neither a claim nor a removal is half done then.
    fn take_lock(&mut self) -> Result<()> {
        let doing = || format!("lock lab `{}`", self.name);
        let file = open_lock(&self.path.join("lock")).map_err(|source| Error::file(doing(), &source))?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                let who = self.record().map_or(String::new(), |record| format!(" {}", record.creator.pid));
                Err(Error::new(Kind::Busy, doing())
                    .because(format!("process{who} is at work on it"))
                    .hint("wait until it has ended, or end it"))
            }
            Err(std::fs::TryLockError::Error(source)) => Err(Error::file(doing(), &source)),
        }
    }

    /// Tells whether another process holds the lock.
    pub fn is_locked(&self, state: &StateDir) -> bool {
        // The look takes the lock for a moment, which nobody who wants it may see.
        state.lock_all().is_ok_and(|_all| self.is_held())
    }

    fn is_held(&self) -> bool {
        let Ok(file) = regular::open(&self.path.join("lock"), File::options().read(true)) else { return false };
        matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
    }

    /// Says what to do about a record or journal that is damaged.
    pub(crate) fn way_on(&self) -> String {
        let name = &self.name;
        format!(
            "the file is damaged; nothing was changed. `topo down --force {name}` takes down what can still be read or has the lab's \
             mark"
        )
    }

    /// Tells whether the lab has a record: nothing is made before.
    pub(crate) fn has_record(&self) -> bool {
        self.path.join("lab.json").exists()
    }

    /// Reads the lab's record; a damaged one is an error that names the file.
    pub fn record(&self) -> Result<Record> {
        let path = self.path.join("lab.json");
        let doing = || format!("read the record `{}`", path.display());
        let text = regular::read(&path, STATE_BYTES_MAX).map_err(|source| Error::file(doing(), &source))?;
        let damaged = |because: String| Error::new(Kind::State, doing()).because(because).hint(self.way_on());
        let record = serde_json::from_slice(&text).map_err(|source| damaged(source.to_string()))?;
        sum::check_seal(&text).map_err(|because| damaged(because.into()))?;
        Ok(record)
    }

    /// Reads the lab's record although it may be damaged, as far as that goes.
    pub(crate) fn damaged_record(&self) -> Option<Record> {
        serde_json::from_slice(&regular::read(&self.path.join("lab.json"), STATE_BYTES_MAX).ok()?).ok()
    }

    /// Writes the lab's record: to a file beside it, which then takes its place. For whoever has the lab's lock.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        self.replace_record(record).map_err(|source| self.unwritten(&source))
    }

    fn replace_record(&self, record: &Record) -> std::io::Result<()> {
        let text = sum::seal(record).map_err(std::io::Error::other)?;
        files::replace(&self.path.join("lab.json.tmp"), &self.path.join("lab.json"), &text)
    }

    fn unwritten(&self, source: &std::io::Error) -> Error {
        Error::file(format!("write the record `{}`", self.path.join("lab.json").display()), source)
    }

    /// Notes in the lab's `record` that it is being taken down. Returns why that was not possible where the disk is full or can't be
    /// written to: what the lab has in the kernel can be removed all the same.
    pub(crate) fn note_undoing(&self, record: &Record) -> Result<Option<Error>> {
        if record.status == Status::Undoing {
            return Ok(None);
        }
        let record = Record { status: Status::Undoing, ..record.clone() };
        match self.replace_record(&record) {
            Err(source) if files::is_refused(&source) => Ok(Some(self.unwritten(&source))),
            Err(source) => Err(self.unwritten(&source)),
            Ok(()) => Ok(None),
        }
    }

    /// Changes the status in the lab's record.
    pub fn set_status(&self, status: Status) -> Result<()> {
        let mut record = self.record()?;
        record.status = status;
        self.write_record(&record)
    }

    /// Removes the lab's directory: the lab is no more.
    pub fn remove(self, state: &StateDir) -> Result<()> {
        let record = self.record().ok();
        self.remove_after(state, record.as_ref(), |_| Ok(()))
    }

    /// Removes the lab's directory, after `first`, which may ask whether it is the only lab: none begins or ends meanwhile. `record` is the
    /// lab's, if it can be read.
    pub(crate) fn remove_after(
        self,
        state: &StateDir,
        record: Option<&Record>,
        first: impl FnOnce(&dyn Fn() -> Result<bool>) -> Result<()>,
    ) -> Result<()> {
        let failed = |source: std::io::Error| Error::file(format!("remove `{}`", self.path.display()), &source);
        let _all = state.lock_all()?;
        first(&|| Ok(!state.has_other(&self.name)?))?;
        // Renamed first: a process killed in the middle leaves no lab that is half there.
        let away = self.path.with_file_name(format!("{REMOVED}{}-{}", self.name, std::process::id()));
        let renamed = files::point().and_then(|()| std::fs::rename(&self.path, &away));
        let gone = match renamed {
            Ok(()) => away,
            // A full disk may have no room for the longer name.
            Err(error) if files::is_full(&error) => self.path.clone(),
            Err(error) => {
                let hint =
                    "nothing of it is left in the kernel; the same command removes the rest once that can be written";
                return Err(failed(error).hint(hint));
            }
        };
        state.forget_entries(&self.name, record)?;
        std::fs::remove_dir_all(&gone).map_err(failed)
    }
}

/// Returns the id of this boot of the machine (random(4)).
pub fn boot_id() -> Result<String> {
    static READ: OnceLock<String> = OnceLock::new();
    if let Some(read) = READ.get() {
        return Ok(read.clone());
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|source| Error::file(format!("read `{path}`"), &source))?;
    Ok(READ.get_or_init(|| text.trim().to_string()).clone())
}

/// Returns the time, in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
