//! A private machine for one test: its own mounts, network, processes and host name, in which the test is root
//! ([`World::new`]) or an ordinary user ([`World::unprivileged`]). Nothing done inside reaches the host's network, and all
//! of it ends with the [`World`], or with the test process, however that ends.
//!
//! ```ignore
//! in_world(|w| {
//!     let script = w.write("lab.rhai", r#"bridge("br0");"#);
//!     w.topo(&["run", "--rm", script.to_str().expect("UTF-8")]).ok();
//! }); // panics if anything at all was left behind
//! ```
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod.rs` | `World`: what a test sees |
//! | `holder.rs` | pid 1 of a world: the namespaces and mounts, and how they end |
//! | `command.rs` | `Ran`, `Running`: a command inside, its output, its deadline |
//! | `launch.rs` | how a command gets in |
//! | `tty.rs` | `Tty`: a terminal at which a command runs |
//! | `snapshot.rs` | `Snapshot`: the full dump of a world, and the difference of two |
//! | `facts.rs` | the sections of a dump, from what `ip`, `nft` and the others print, and what is left out of them |
//! | `sys.rs` | system calls that neither std nor nix wraps |
//! | `selftest.rs` | the tests of all this |

mod command;
mod facts;
mod holder;
mod launch;
mod selftest;

mod snapshot;
mod sys;
mod tty;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use tempfile::TempDir;

use crate::tier;

pub(crate) use command::{Ran, Running};
use holder::Holder;
pub(crate) use snapshot::Snapshot;
pub(crate) use tty::Tty;

/// How long a command may take. Far beyond what any needs, so that only a hang ever meets it.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long the kernel may take to free what it frees behind our back (network namespaces, mostly).
const LATE: Duration = Duration::from_secs(5);

/// The ordinary user's id: one that systemd, Debian and shadow leave to nobody, and not 65534, which is also how the kernel
/// shows ids that a user namespace doesn't map.
const USER: u32 = 61_000;

const TOPO: &str = env!("CARGO_BIN_EXE_topo");
/// Where an unprivileged world has `topo`, since its own path may lead through a directory that is closed to ordinary users
/// (`/root/toposcript/target`).
const TOPO_FOR_USER: &str = "/run/world/topo";

/// A private machine. Commands see its network, mounts (`/run` empty, `/proc` and `/sys` its own, all else the host's
/// files), processes, and nothing of the host's. It may be shared by threads.
pub(crate) struct World {
    // Before the directory, since fields drop in this order: the processes end before their files go.
    holder: Holder,
    _dir: TempDir,
    path: PathBuf,
    login: Login,
}

/// As whom a command runs in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// Root of the world: all capabilities over its namespaces.
    Root,
    /// An ordinary user: id [`USER`], no capabilities.
    User,
}

/// Runs `test` in a new world as its root, and checks that it left nothing behind.
pub(crate) fn in_world(test: impl FnOnce(&World)) {
    leaves_nothing(&World::new(), test);
}

/// Runs `test` in a new world as an ordinary user, and checks that it left nothing behind.
pub(crate) fn in_user_world(test: impl FnOnce(&World)) {
    leaves_nothing(&World::unprivileged(), test);
}

fn leaves_nothing(world: &World, test: impl FnOnce(&World)) {
    let before = world.snapshot();
    test(world);
    world.assert_clean(&before);
}

impl World {
    /// Makes a machine in which commands run as root.
    ///
    /// When the test process isn't root itself, a user namespace in which its id is 0 makes up for it.
    pub(crate) fn new() -> World {
        World::with(Login::Root)
    }

    /// Makes a machine in which commands run as an ordinary user, without capabilities; `ip`, `run_as_root` and `snapshot`
    /// still work as its root.
    ///
    /// When the test process isn't root, only one id can be mapped into the user namespace of the world. It is then mapped
    /// to [`USER`] instead of 0, and "root" is that same id with all capabilities: enough for networks and mounts, not for
    /// what asks for id 0 by number.
    pub(crate) fn unprivileged() -> World {
        World::with(Login::User)
    }

    fn with(login: Login) -> World {
        let dir =
            tempfile::Builder::new().prefix("topo-world-").tempdir_in(scratch()).expect("make a scratch directory");
        // The shorter way would fail where TMPDIR goes through a link into what the world hides.
        let path = dir.path().canonicalize().expect("find the scratch directory");
        assert!(
            !["/run", "/proc", "/sys"].iter().any(|hidden| path.starts_with(hidden)),
            "{} is hidden inside a world: set TMPDIR to a directory outside of /run",
            path.display()
        );
        let holder = Holder::start(login);
        if login == Login::User {
            assert_open_to_others(&path);
        }
        let world = World { holder, _dir: dir, path, login };
        for (name, mode) in [("state", 0o700), ("home", 0o700), ("tmp", 0o700)] {
            let made = world.path.join(name);
            fs::DirBuilder::new().mode(mode).create(&made).expect("make a directory of the world");
            world.give(&made);
        }
        world.give(&world.path);
        world
    }

    /// Hands a file over to the user of an unprivileged world.
    fn give(&self, path: &Path) {
        if self.login == Login::User && !self.holder.mapped() {
            chown(path, Some(USER), Some(USER)).expect("hand a file over to the user of the world");
        }
    }

    /// Returns the scratch directory, seen under the same path inside and outside; it goes with the world.
    pub(crate) fn dir(&self) -> &Path {
        &self.path
    }

    /// Returns the directory in which `topo` keeps its state here (`TOPO_STATE`).
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Writes a file into the scratch directory, parents included, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path.join(name);
        let mut parents: Vec<&Path> =
            path.ancestors().skip(1).take_while(|parent| *parent != self.path && !parent.exists()).collect();
        while let Some(parent) = parents.pop() {
            fs::create_dir(parent).expect("make a directory in the scratch directory");
            self.give(parent);
        }
        fs::write(&path, text).unwrap_or_else(|err| panic!("write {}: {err}", path.display()));
        self.give(&path);
        path
    }

    /// Returns where `topo` is, for a command inside.
    pub(crate) fn program(&self) -> &'static Path {
        Path::new(if self.login == Login::User && !self.holder.mapped() { TOPO_FOR_USER } else { TOPO })
    }

    /// Runs `topo ARGS`, with [`DEADLINE`].
    pub(crate) fn topo(&self, args: &[&str]) -> Ran {
        self.start_topo(args).wait()
    }

    /// Runs `topo ARGS` with more, or other, environment variables.
    pub(crate) fn topo_env(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        self.start(self.login, self.program(), args, env, None).wait()
    }

    /// Runs `topo ARGS` with `input` on its standard input.
    pub(crate) fn topo_stdin(&self, input: &str, args: &[&str]) -> Ran {
        self.start(self.login, self.program(), args, &[], Some(input)).wait()
    }

    /// Starts `topo ARGS` and returns at once.
    pub(crate) fn start_topo(&self, args: &[&str]) -> Running {
        self.start(self.login, self.program(), args, &[], None)
    }

    /// Starts `topo ARGS` at a terminal, with more, or other, environment variables, and returns at once.
    pub(crate) fn start_topo_at(&self, tty: &Tty, env: &[(&str, &str)], args: &[&str]) -> Running {
        self.start_at(tty, self.login, self.program(), args, env)
    }

    /// Starts a shell script (`sh -c`) at a terminal, and returns at once.
    pub(crate) fn start_run_at(&self, tty: &Tty, env: &[(&str, &str)], script: &str) -> Running {
        self.start_at(tty, self.login, Path::new("sh"), &["-c", script], env)
    }

    /// Runs a shell script (`sh -ec`), as the user in an unprivileged world.
    pub(crate) fn run(&self, script: &str) -> Ran {
        self.start(self.login, Path::new("sh"), &["-ec", script], &[], None).wait()
    }

    /// Runs a shell script (`sh -ec`) as root of the world, also in an unprivileged one.
    pub(crate) fn run_as_root(&self, script: &str) -> Ran {
        self.start(Login::Root, Path::new("sh"), &["-ec", script], &[], None).wait()
    }

    /// Starts a shell script (`sh -ec`) and returns at once, as the user in an unprivileged world.
    pub(crate) fn start_run(&self, script: &str) -> Running {
        self.start(self.login, Path::new("sh"), &["-ec", script], &[], None)
    }

    /// Runs `ip ARGS` as root of the world and returns what it printed; panics if it fails.
    pub(crate) fn ip(&self, args: &str) -> String {
        let args: Vec<&str> = args.split_whitespace().collect();
        self.start(Login::Root, Path::new("ip"), &args, &[], None).wait().ok().stdout
    }

    /// Dumps all that can be left behind in this world, by tools that aren't ours.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }

    /// Panics with what differs from `before`, section by section; waits for what the kernel frees late.
    pub(crate) fn assert_clean(&self, before: &Snapshot) {
        self.assert_clean_within(before, LATE, Snapshot::take);
    }

    /// The same between two rounds of a test that compares all at its end. The fast tier asks for less here.
    pub(crate) fn assert_clean_so_far(&self, before: &Snapshot) {
        self.assert_clean_within(before, LATE, if tier::full() { Snapshot::take } else { Snapshot::glance });
    }

    fn assert_clean_within(&self, before: &Snapshot, late: Duration, look: fn(&World) -> Snapshot) {
        // On a busy machine one look may take as long as the kernel may.
        const LOOKS_MIN: usize = 5;
        let start = Instant::now();
        for looks in 1.. {
            let diff = before.diff(&look(self));
            if diff.is_empty() {
                return;
            }
            let is_late = start.elapsed() >= late && looks >= LOOKS_MIN;
            assert!(!is_late, "the world isn't as before (+ left behind, - gone, ~ changed):\n{diff}");
            // Not a wait for a fixed time but a breath between two looks: other tests want the processor too.
            command::breathe();
        }
    }
}

/// Returns where the directories of worlds are made: in memory where there is room for them and programs may run, for a third of what tests
/// wait for is a disk. `TMPDIR` says otherwise.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let has_room = || {
        let is_tmpfs = statfs(memory).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC);
        let suits = |about: Statvfs| {
            let bytes = about.blocks_available() * about.fragment_size();
            !about.flags().contains(FsFlags::ST_NOEXEC) && bytes > 2 << 30
        };
        is_tmpfs && statvfs(memory).is_ok_and(suits)
    };
    match std::env::var_os("TMPDIR") {
        None if has_room() => memory.to_path_buf(),
        _ => std::env::temp_dir(),
    }
}

/// Panics where an ordinary user can't reach `path`: a scratch directory below a private one.
fn assert_open_to_others(path: &Path) {
    for parent in path.ancestors().skip(1) {
        let mode = fs::metadata(parent).expect("look at a parent of the scratch directory").permissions().mode();
        assert!(
            mode & 0o001 != 0,
            "{} is closed to ordinary users, so that an unprivileged world can't have its scratch directory there: set \
             TMPDIR to a directory that anyone may enter",
            parent.display()
        );
    }
}
