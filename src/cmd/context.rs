//! What every command needs: where the state is, what the user's own directories are, whether we are in a sandbox.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::net::fault::{self, Counted, FaultKind};
use crate::script::{Dirs, Workflow, workflows};
use crate::state::{Error, Inside, Result, StateDir};
use crate::terminal::environment::{self, EnvVariable};

/// What a command is run with.
pub(super) struct Context {
    /// The sandbox that this process is in.
    pub inside: Option<Inside>,
    /// The words of the command line, for running it again in a sandbox.
    pub words: Vec<OsString>,
    /// The user's own directories of scripts and modules.
    pub dirs: Dirs,
    /// Where labs and networks are; the defaults unless given.
    places: Places,
    /// The workflows, once somebody has asked for them.
    found: OnceCell<(Workflows, Vec<Error>)>,
}

/// The state directory and the store, as far as they are named: in the environment, or in a runtime's configuration.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub state: Option<PathBuf>,
    pub store: Option<PathBuf>,
}

/// Workflows by their command words.
type Workflows = BTreeMap<Vec<String>, Workflow>;

impl Context {
    pub(super) fn new(inside: Option<Inside>, words: Vec<OsString>) -> Context {
        let own = |variable: &EnvVariable, name: &str| {
            variable.path().or_else(|| config_dir().map(|dir| dir.join(name))).filter(|dir| dir.is_dir())
        };
        let dirs = Dirs { stdlib: own(&environment::STDLIB, "stdlib"), scripts: own(&environment::SCRIPTS, "scripts") };
        let places = Places { state: environment::STATE.path(), store: environment::STORE.path() };
        Context { inside, words, dirs, places, found: OnceCell::new() }
    }

    /// Makes one for what is at `places`, whatever the environment says.
    pub(super) fn at(places: Places) -> Context {
        Context { places, ..Context::new(None, Vec::new()) }
    }

    /// Fails if others than root and this user could have written the user's own scripts and modules. In a sandbox, whoever started it
    /// has looked: there the owners of files have no numbers.
    pub(super) fn trust_own_scripts(&self) -> Result<()> {
        if self.inside.is_some() { Ok(()) } else { self.dirs.trust() }
    }

    /// Returns all workflows, by their command words.
    pub(super) fn workflows(&self) -> &Workflows {
        &self.found.get_or_init(|| workflows(&self.dirs)).0
    }

    /// Returns what is wrong with those of the user's own workflows that can't be read.
    pub(super) fn unreadable(&self) -> &[Error] {
        &self.found.get_or_init(|| workflows(&self.dirs)).1
    }

    /// Opens the state directory: `TOPO_STATE`, `/run/toposcript` for root, else one in the user's runtime directory.
    pub(super) fn state(&self) -> Result<StateDir> {
        // Before the first file is opened that may be one too many.
        crate::net::raise_limit();
        let root = match self.places.state.clone() {
            Some(path) if path.is_absolute() => path,
            Some(path) => {
                std::env::current_dir().map_err(|source| Error::file("find the state directory", &source))?.join(path)
            }
            None => default_state(),
        };
        // What outlives a restart is kept apart from what does not; a directory of the user's own choice holds both.
        let store = match (self.places.store.clone(), &self.places.state) {
            (Some(path), _) => path,
            (None, Some(_)) => root.join("store"),
            (None, None) => default_store(),
        };
        StateDir::open(&root, &store, self.inside)
    }
}

/// Tells whether this is root of the machine: that of a user namespace alone (`unshare -r`) has the directories of the user who made it.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root() && crate::net::netns::userns::owns_namespaces()
}

fn default_state() -> PathBuf {
    if is_root() {
        return PathBuf::from("/run/toposcript");
    }
    let uid = crate::net::netns::userns::uid_outside();
    // Not every login has a runtime directory; one under /tmp is checked for its owner and mode like any other.
    let runtime = environment::RUNTIME_DIR.path().filter(|dir| dir.is_dir());
    runtime.map_or_else(|| PathBuf::from(format!("/tmp/toposcript-{uid}")), |dir| dir.join("toposcript"))
}

fn default_store() -> PathBuf {
    if is_root() {
        return PathBuf::from("/var/lib/toposcript");
    }
    let data = environment::DATA_HOME.path().or_else(|| environment::HOME.path().map(|home| home.join(".local/share")));
    data.map_or_else(|| default_state().join("store"), |data| data.join("toposcript"))
}

fn config_dir() -> Option<PathBuf> {
    let config = environment::CONFIG_HOME.path().or_else(|| environment::HOME.path().map(|home| home.join(".config")));
    config.map(|dir| dir.join("toposcript"))
}

/// Returns the program that this process runs, to run it again.
pub(super) fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|source| Error::file("find the program itself", &source))
}

/// Returns where the lines of sessions are kept: `toposcript/history` in `$XDG_STATE_HOME`, or `~/.local/state`.
pub(super) fn history() -> Option<PathBuf> {
    let state = environment::STATE_HOME.path().or_else(|| Some(environment::HOME.path()?.join(".local/state")));
    Some(state?.join("toposcript/history"))
}

/// Arms the seam of the crash tests, in builds with debug assertions: `TOPO_FAULT=fail:3`, `kill:3`, or
/// `kill-kernel:3`, which doesn't count changes of files.
pub(super) fn arm_fault() {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(Ok(text)) = environment::FAULT.value().map(OsString::into_string) else { return };
    let Some((kind, at)) = text.split_once(':') else { return };
    let (kind, counted) = match kind {
        "fail" => (FaultKind::Fail, Counted::All),
        "kill-kernel" => (FaultKind::Kill, Counted::Kernel),
        _ => (FaultKind::Kill, Counted::All),
    };
    fault::arm(at.parse().unwrap_or(0), counted, kind);
}

/// Returns the name that a lab gets from its script's file: `labs/star.rhai` is `star`.
pub(super) fn lab_name_of(script: &Path) -> String {
    let stem = script.file_stem().and_then(|stem| stem.to_str()).unwrap_or("lab");
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "_.@+-".contains(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).to_string();
    if name.is_empty() { "lab".into() } else { name }
}
