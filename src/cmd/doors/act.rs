//! What a door does: statements with values from the runtime, run in a lab that holds nothing by itself.

use serde_json::Value;

use crate::cmd::context::{self, Context};
use crate::lab::{Lab, Origin};
use crate::net;
use crate::prim::{self, LabHandle};
use crate::script::{Failure, FailureKind, Script, Session};
use crate::state::{Error, Kind, LabKind};
use crate::terminal::{self, Style, exit};

/// Why a door refuses: the text, and what to do about it.
#[derive(Debug)]
pub(in crate::cmd) struct Refusal {
    /// What kind of error it is; `None` where the script itself is wrong.
    pub(super) kind: Option<Kind>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { kind: Some(error.kind()), ..Refusal::from(Failure::from(&error)) }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let kind = match failure.kind {
            FailureKind::Lab(kind) => Some(kind),
            _ => None,
        };
        Refusal { kind, message: failure.message, hint: failure.hint }
    }
}

impl Refusal {
    /// Makes one for input of a runtime that is wrong.
    pub(super) fn invalid(doing: impl Into<String>, because: impl std::fmt::Display, hint: &str) -> Refusal {
        Error::invalid(doing).because(because).hint(hint).into()
    }

    /// Returns the exit code of a command that is refused.
    pub(super) fn code(&self) -> u8 {
        self.kind.map_or(exit::FAILED, exit::of_kind)
    }

    /// Returns it in two lines at most, as the command line says errors.
    pub(super) fn lines(&self) -> String {
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!("hint: {hint}\n"));
        format!("error: {}\n{hint}", self.message)
    }
}

/// Runs `statements`, which see `args`, and returns what they hand to `result`. If they fail, all that they made is taken back.
///
/// What a killed call left may be in the way. A runtime tries again and knows of no `topo gc`, so it is removed first then.
pub(super) fn act(context: &Context, statements: &str, args: &Value) -> Result<Value, Refusal> {
    context.trust_own_scripts()?;
    net::process::signal::catch().map_err(|source| Error::kernel("catch signals", &source))?;
    context::arm_fault();
    match act_once(context, statements, args) {
        Err(refusal) if matches!(refusal.kind, Some(Kind::Exists | Kind::Exhausted)) && collect(context)? => {
            act_once(context, statements, args)
        }
        done => done,
    }
}

/// Removes what killed calls left, and returns whether there was anything. What can't be removed is for `topo gc` to tell.
pub(super) fn collect(context: &Context) -> Result<bool, Refusal> {
    let (mut listener, _) = terminal::listener(Style { json: true, trace: false });
    let mut collected = crate::survey::gc(&context.state()?, &prim::steps(), &mut listener)?;
    collected.errors.clear();
    Ok(!collected.is_empty())
}

fn act_once(context: &Context, statements: &str, args: &Value) -> Result<Value, Refusal> {
    let state = context.state()?;
    let (listener, said) = terminal::listener(Style { json: true, trace: false });
    let origin = Origin {
        name: state.free_name("door")?,
        named: false,
        any_name: true,
        script: "-e".into(),
        kind: LabKind::Lab,
        parent: None,
        tied_to: None,
    };
    let handle = LabHandle::new(Lab::begin(origin, state, listener)?, "-e");
    let args = rhai::serde::to_dynamic(args).ok().and_then(|args| args.try_cast::<rhai::Map>()).unwrap_or_default();
    let mut session = Session::new(&handle, &context.dirs, args);
    let ran = session.run(&Script::inline("-e", statements.to_string())).map_err(|failure| *failure);
    let ran = ran.and_then(|()| handle.with(|lab| lab.settle()).map_err(|error| Failure::from(&error)));
    let Some(mut lab) = handle.take() else { return Err(Error::new(Kind::State, "run the script").into()) };
    // What the statements made by themselves goes: a network and an endpoint are labs of their own.
    let errors = lab.take_down(&prim::steps());
    ran?;
    if let Some(error) = errors.into_iter().next() {
        return Err(error.into());
    }
    let result = said.borrow_mut().result.take();
    Ok(result.unwrap_or(Value::Null))
}
