//! The environment: each variable that `topo` reads stands here once, with what it is for. Nothing else in the program reads the
//! environment; `--help` and the reference are made from this list.

use std::ffi::OsString;
use std::path::PathBuf;

/// A variable of the environment.
#[derive(Debug)]
pub struct EnvVariable {
    name: &'static str,
    about: &'static str,
}

impl EnvVariable {
    /// Returns its name, to set it for another process.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns its value.
    pub fn value(&self) -> Option<OsString> {
        std::env::var_os(self.name)
    }

    /// Returns its value as text; an empty one counts as none.
    pub fn text(&self) -> Option<String> {
        self.value().filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
    }

    /// Returns its value as a path; an empty one counts as none.
    pub fn path(&self) -> Option<PathBuf> {
        self.value().filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

/// Declares variables, each with what it is for, and a list of them.
macro_rules! variables {
    ($(#[doc = $list_about:literal])+ $list:ident: $($(#[doc = $about:literal])+ $name:ident = $variable:literal;)+) => {
        $($(#[doc = $about])+ pub const $name: EnvVariable = EnvVariable { name: $variable, about: concat!($($about),+) };)+

        $(#[doc = $list_about])+
        const $list: &[EnvVariable] = &[$($name),+];
    };
}

variables! {
    /// Those that are the user's to set for `topo`.
    OWN:
    /// The state directory; `/run/toposcript` for root, `toposcript` in `$XDG_RUNTIME_DIR` for others unless given.
    STATE = "TOPO_STATE";
    /// The store, which outlives a restart; `store` in `TOPO_STATE`, `/var/lib/toposcript` for root or `toposcript` in `$XDG_DATA_HOME` unless given.
    STORE = "TOPO_STORE";
    /// The user's own modules; `~/.config/toposcript/stdlib` unless given.
    STDLIB = "TOPO_STDLIB";
    /// The user's own workflows; `~/.config/toposcript/scripts` unless given.
    SCRIPTS = "TOPO_SCRIPTS";
    /// If it is not empty, nothing is printed in colours.
    NO_COLOR = "NO_COLOR";
}

variables! {
    /// Those of the session, and of tests.
    OTHERS:
    /// A `dumb` terminal gets no colours, and no line that is written over.
    TERM = "TERM";
    /// What `topo exec` and the session's `:sh` run where no command is given; `/bin/sh` without it.
    SHELL = "SHELL";
    /// Below it are `.config`, `.local/share` and `.local/state`, where the next three are not set.
    HOME = "HOME";
    /// `toposcript` below it has the user's own modules and workflows.
    CONFIG_HOME = "XDG_CONFIG_HOME";
    /// `toposcript` below it is the store of an ordinary user.
    DATA_HOME = "XDG_DATA_HOME";
    /// `toposcript/history` below it has the lines that were typed in `topo repl`.
    STATE_HOME = "XDG_STATE_HOME";
    /// `toposcript` below it is the state directory of an ordinary user; one in `/tmp` without it.
    RUNTIME_DIR = "XDG_RUNTIME_DIR";
    /// Where `topo doctor` looks for container runtimes.
    PATH = "PATH";
    /// For tests, in builds with debug assertions: at which change to fail or to be killed, such as `fail:3`.
    FAULT = "TOPO_FAULT";
}

variables! {
    /// Those by which a container runtime calls the CNI plugin (containernetworking/cni, SPEC.md).
    OF_RUNTIMES:
    /// What a runtime asks the CNI plugin for: `ADD`, `DEL`, `CHECK`, `GC`, `STATUS` or `VERSION`.
    CNI_COMMAND = "CNI_COMMAND";
    /// The runtime's id of the container.
    CNI_CONTAINERID = "CNI_CONTAINERID";
    /// The path of the container's netns.
    CNI_NETNS = "CNI_NETNS";
    /// The name of the container's device.
    CNI_IFNAME = "CNI_IFNAME";
    /// More about the container: `K=V;K=V`.
    CNI_ARGS = "CNI_ARGS";
    /// The directories of CNI plugins.
    CNI_PATH = "CNI_PATH";
}

variables! {
    /// Those by which systemd hands a socket over (sd_listen_fds(3)).
    OF_SYSTEMD:
    /// The process that the sockets of systemd are for, with `topo docker serve`.
    LISTEN_PID = "LISTEN_PID";
    /// How many sockets systemd hands over.
    LISTEN_FDS = "LISTEN_FDS";
}

/// Writes the list for `--help`: what is the user's to set.
pub fn help() -> String {
    let line = |variable: &EnvVariable| format!("  {:<14}{}\n", variable.name, first_part(variable.about));
    let lines: String = OWN.iter().map(line).collect();
    format!("Environment:\n{}", lines.trim_end())
}

/// Returns what stands before the default.
fn first_part(about: &str) -> &str {
    about.split(';').next().unwrap_or(about).trim().trim_end_matches('.')
}

/// Writes the list for the reference.
pub fn markdown() -> String {
    let row = |variable: &EnvVariable| format!("| `{}` | {} |\n", variable.name, variable.about.trim());
    let rows: String = OWN.iter().chain(OTHERS).chain(OF_RUNTIMES).chain(OF_SYSTEMD).map(row).collect();
    format!(
        "\n## Environment\n\nWhat `topo` reads of the environment. Commands that it runs get all of it.\n\n\
         | variable | what it is for |\n| --- | --- |\n{rows}"
    )
}
