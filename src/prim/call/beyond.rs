//! What reaches beyond a lab: commands, files, other processes. A script of a stranger may not, under `--no-exec`; each entry that does
//! asks here first.

use rhai::NativeCallContext;

use super::context::{LabHandle, RhaiResultOf, lab_of, raise};
use crate::state::{Error, Kind, Result};

/// What lies beyond the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// A command, which runs as the user.
    Command,
    /// A file that the script names.
    File,
    /// A namespace that another process is in.
    Process,
}

impl Beyond {
    fn refused(self) -> &'static str {
        match self {
            Beyond::Command => "`--no-exec` lets a script run no commands",
            Beyond::File => "`--no-exec` lets a script open no files",
            Beyond::Process => "`--no-exec` keeps a script out of the namespaces of other processes",
        }
    }
}

impl LabHandle {
    /// Refuses what reaches beyond the lab with `denied`, if this run does. `doing` says what is attempted.
    pub fn reach(&self, beyond: Beyond, doing: impl FnOnce() -> String) -> Result<()> {
        if !self.is_confined() {
            return Ok(());
        }
        Err(Error::new(Kind::Denied, doing())
            .because(beyond.refused())
            .hint("read the script; without `--no-exec` all that it runs and opens is run and opened as you"))
    }
}

/// The same for a call of a primitive.
pub(in crate::prim) fn reach(
    ctx: &NativeCallContext,
    beyond: Beyond,
    doing: impl FnOnce() -> String,
) -> RhaiResultOf<()> {
    raise(ctx, lab_of(ctx).and_then(|lab| lab.reach(beyond, doing)))
}
