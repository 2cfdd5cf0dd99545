//! What an undo leaves in the kernel: an object of the lab that others have changed so that it does not have the lab's mark any
//! more. It is named, while what is gone counts as done.

use super::journal::Asked;
use super::kernel::Kernel;
use crate::net;
use crate::state::{DevRef, Error, Kind, name};

/// How the marks of all labs begin, those of other state directories too.
const MARK: &str = "topo:";

/// What was left since somebody asked.
#[derive(Default)]
struct Left(Vec<String>);

impl Kernel {
    /// Notes something that an undo leaves, in words: what it is and why.
    pub fn leave(&mut self, what: impl Into<String>) {
        self.note::<Left>().0.push(what.into());
    }

    /// Notes something that an undo leaves, by the mark that it has now; what has the mark of a lab is that lab's.
    pub fn leave_unmarked(&mut self, what: &str, mark: Option<&str>) {
        match mark {
            Some(mark) if mark.starts_with(MARK) => {}
            Some(mark) if !mark.is_empty() => {
                self.leave(format!("{what} has `{}` in place of the lab's mark", name::shown(mark)));
            }
            _ => self.leave(format!("{what} has no mark of the lab")),
        }
    }

    /// Notes a device that is still there under its number and name but is not known as the lab's any more.
    pub fn leave_changed(&mut self, dev: &DevRef) -> net::Result<()> {
        let rtnl = match self.rtnl(&dev.netns) {
            Err(error) if error.is_gone() => return Ok(()),
            rtnl => rtnl?,
        };
        let Some(link) = net::link::get(&rtnl, dev.index)? else { return Ok(()) };
        // Under another name it is a stranger's: the kernel gives a number again that its user asks for.
        if link.goes_by(&name::kernel_name(&dev.name)) && !self.is_same(dev, &link) {
            self.leave_unmarked(&dev.shown(), link.alias.as_deref());
        }
        Ok(())
    }
}

/// Returns what the undo of a step left, as errors; of a step that may never have been applied, it left nothing that is the lab's.
pub(super) fn errors_of(kernel: &mut Kernel, asked: &Asked, applied: bool) -> Vec<Error> {
    let left = std::mem::take(&mut kernel.note::<Left>().0);
    if !applied {
        return Vec::new();
    }
    let error = |what: String| {
        Error::new(Kind::State, format!("undo: {}", asked.step.doing()))
            .because(format!("{what}: others changed it, and it was left"))
            .hint("if it is yours, delete it and run the command again; `topo down --force LAB` forgets the lab")
            .at(&asked.place)
    };
    left.into_iter().map(error).collect()
}

/// Tells whether an error is about something that was left, and not about a failure.
pub(super) fn is_left(error: &Error) -> bool {
    error.kind() == Kind::State
}
