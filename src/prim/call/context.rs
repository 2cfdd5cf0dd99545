//! What every primitive needs of the call it is in: the lab, the place in the script, and the way to raise an error.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, FnPtr, NativeCallContext, Position};

use super::calls::{At, Calls, Source};
use crate::lab::{Lab, Origin, Step};
use crate::state::{Error, Kind, Place, Result, Spot};

/// What the engine's functions return. The name matters: the metadata of rhai knows it.
pub type RhaiResultOf<T> = std::result::Result<T, Box<EvalAltResult>>;

/// The lab that a script builds, as the engine carries it to every call; the last of several where one is built within
/// another.
#[derive(Clone)]
pub struct LabHandle {
    labs: Rc<RefCell<Vec<Lab>>>,
    script: Rc<RefCell<Arc<str>>>,
    /// Whether the script may not reach beyond the lab.
    confined: Rc<Cell<bool>>,
    calls: Rc<Calls>,
}

impl LabHandle {
    /// Wraps the lab that the script named `script` builds.
    pub fn new(lab: Lab, script: &str) -> LabHandle {
        LabHandle {
            labs: Rc::new(RefCell::new(vec![lab])),
            script: Rc::new(RefCell::new(script.into())),
            confined: Rc::default(),
            calls: Rc::default(),
        }
    }

    /// Lets the script run no commands and open no files from now on, if `confined`: `--no-exec`.
    pub fn confine(&self, confined: bool) {
        self.confined.set(confined);
    }

    pub(super) fn is_confined(&self) -> bool {
        self.confined.get()
    }

    /// Takes the lab out, at the end of the run; handles that still live then find it closed. A lab within it whose run
    /// was cut short is taken down.
    pub fn take(&self) -> Option<Lab> {
        let mut labs = std::mem::take(&mut *self.labs.borrow_mut());
        while labs.len() > 1 {
            let (Some(inner), Some(outer)) = (labs.pop(), labs.last_mut()) else { break };
            outer.end_within(inner, false, &crate::prim::steps());
        }
        labs.pop()
    }

    /// Enters a source that is about to run: what was put into its text, its functions, its `try` blocks. What is asked for in one of
    /// those is settled by the call that asks.
    pub fn enter_source(&self, name: &str, source: Source) {
        self.calls.enter(name, source);
    }

    /// Notes a call of a script's own function.
    pub fn note_call(&self, ctx: &NativeCallContext) {
        self.calls.note(ctx);
    }

    /// Returns the place in the user's text of one in the text that was compiled.
    pub fn original(&self, source: &str, at: At) -> At {
        self.calls.original(source, at)
    }

    /// Tells whether a call stands where the user's text reads a property: rhai takes the index for one that a value doesn't have.
    pub(in crate::prim) fn is_of_property(&self, ctx: &NativeCallContext) -> bool {
        self.calls.is_of_property(ctx, &self.script.borrow())
    }

    /// Tells whether a call is made within a `try` block, of its own function or of one that has called it.
    fn is_within_try(&self, ctx: &NativeCallContext) -> bool {
        self.calls.is_within_try(ctx, &self.script.borrow())
    }

    /// Names the script that goes on with the lab: the next statement of a session.
    pub fn set_script(&self, script: &str) {
        *self.script.borrow_mut() = script.into();
    }

    /// Takes down labs within the lab whose run was cut short.
    pub fn unwind(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        while self.labs.borrow().len() > 1 {
            errors.extend(self.leave(false));
        }
        errors
    }

    /// Goes on in a lab within the present one.
    pub(in crate::prim) fn enter(&self, origin: impl FnOnce(&Lab) -> Origin) -> Result<()> {
        let inner = self.with(|lab| {
            let origin = origin(lab);
            lab.begin_within(origin)
        })?;
        self.labs.borrow_mut().push(inner);
        Ok(())
    }

    /// Goes back to the lab around the present one, which stays up if all went `well`.
    pub(in crate::prim) fn leave(&self, well: bool) -> Vec<Error> {
        let Some(inner) = self.labs.borrow_mut().pop() else { return Vec::new() };
        match self.labs.borrow_mut().last_mut() {
            Some(outer) => outer.end_within(inner, well, &crate::prim::steps()),
            None => Vec::new(),
        }
    }

    /// Works on the lab.
    pub fn with<T>(&self, work: impl FnOnce(&mut Lab) -> Result<T>) -> Result<T> {
        let closed = || Error::new(Kind::Gone, "use the lab").because("its run is over");
        match self.labs.try_borrow_mut() {
            Ok(mut labs) => labs.last_mut().map_or_else(|| Err(closed()), work),
            Err(_) => Err(Error::invalid("use the lab").because("another primitive is at work on it")),
        }
    }
}

/// An error as a script's `catch` gets it.
#[derive(Debug, Clone)]
pub struct ScriptError(pub Rc<Error>);

/// Returns the lab of the call.
pub(in crate::prim) fn lab_of(ctx: &NativeCallContext) -> Result<LabHandle> {
    let lab = ctx.tag().and_then(|tag| tag.clone().try_cast::<LabHandle>());
    lab.ok_or_else(|| Error::invalid(format!("call `{}`", ctx.fn_name())).because("no lab is being built here"))
}

/// Works on the call's lab; an error is raised at the place in the script.
///
/// Within a `try` block the steps that `work` asks for are settled at once, so that their refusal is caught there. The refusal of a
/// step that was asked for before the block is not the block's: it ends the script, as it would have at its own line.
pub(in crate::prim) fn with_lab<T>(
    ctx: &NativeCallContext,
    work: impl FnOnce(&mut Lab) -> Result<T>,
) -> RhaiResultOf<T> {
    let handle = match lab_of(ctx) {
        Ok(handle) => handle,
        Err(error) => return raise(ctx, Err(error)),
    };
    let mut is_of_before = false;
    let done = handle.with(|lab| {
        let first = lab.next_step();
        let mut done = work(lab);
        if lab.next_step() != first && handle.is_within_try(ctx) {
            let settled = lab.settle();
            done = done.and_then(|value| settled.map(|()| value));
        }
        is_of_before = done.is_err() && lab.take_refused().is_some_and(|refused| refused < first);
        done
    });
    match done {
        Err(error) if is_of_before && handle.is_within_try(ctx) => {
            let error = Dynamic::from(ScriptError(Rc::new(error.at(&place_of(ctx)))));
            Err(Box::new(EvalAltResult::ErrorTerminated(error, ctx.call_position())))
        }
        done => raise(ctx, done),
    }
}

/// Calls a closure that the script gave.
pub(in crate::prim) fn call(ctx: &NativeCallContext, closure: &FnPtr) -> RhaiResultOf<Dynamic> {
    if let Ok(lab) = lab_of(ctx) {
        lab.note_call(ctx);
    }
    closure.call_within_context(ctx, ())
}

/// Settles because the script says so: whatever is refused then can be caught there.
pub(in crate::prim) fn settle(ctx: &NativeCallContext) -> RhaiResultOf<()> {
    raise(ctx, lab_of(ctx).and_then(|lab| lab.with(Lab::settle)))
}

/// Asks the call's lab for a step.
pub(in crate::prim) fn ask(ctx: &NativeCallContext, step: impl Step + 'static) -> RhaiResultOf<()> {
    let place = place_of(ctx);
    with_lab(ctx, |lab| lab.ask(step, place))
}

/// Turns an error into one that rhai raises at the call, and that the script can catch, but for an interruption.
pub(in crate::prim) fn raise<T>(ctx: &NativeCallContext, result: Result<T>) -> RhaiResultOf<T> {
    result.map_err(|error| rhai_error(error.at(&place_of(ctx)), ctx.call_position()))
}

/// Returns the error of ours that a script failed with, and where it was raised; an interruption is none that it could change.
pub(in crate::prim) fn error_of(failed: &EvalAltResult) -> Option<(Error, Position)> {
    let EvalAltResult::ErrorRuntime(value, position) = failed.unwrap_inner() else { return None };
    let ScriptError(error) = value.clone().try_cast::<ScriptError>()?;
    Some((Error::clone(&error), *position))
}

/// Wraps an error for rhai.
pub fn rhai_error(error: Error, position: Position) -> Box<EvalAltResult> {
    let interrupted = error.kind() == Kind::Interrupted;
    let error = Dynamic::from(ScriptError(Rc::new(error)));
    Box::new(match interrupted {
        true => EvalAltResult::ErrorTerminated(error, position),
        false => EvalAltResult::ErrorRuntime(error, position),
    })
}

/// Returns where in the script a call stands, and who called that.
pub fn place_of(ctx: &NativeCallContext) -> Place {
    let mut spots: Vec<Spot> = Vec::new();
    if let Ok(lab) = lab_of(ctx) {
        let script = lab.script.borrow().clone();
        lab.calls.each_place(ctx, &script, |source, (line, column)| {
            let source = if *source == *script { script.clone() } else { source.into() };
            spots.push(Spot { source, line, column });
        });
    }
    // Each step keeps its place: no more room than it needs.
    spots.shrink_to_fit();
    Place(spots)
}

/// Returns a value of ours, or any other, as the text that `print` shows.
pub(in crate::prim) fn text_of(value: &Dynamic) -> String {
    let dev = value.clone().try_cast::<crate::prim::Dev>().map(|dev| dev.name.to_string());
    let netns = || value.clone().try_cast::<crate::prim::NetnsHandle>().map(|netns| netns.0.name.clone());
    let ip = || value.clone().try_cast::<crate::prim::Ip>().map(|ip| ip.0.to_string());
    let net = || value.clone().try_cast::<crate::prim::Net>().map(|net| net.0.to_string());
    let process = || value.clone().try_cast::<crate::prim::Process>().map(|process| process.0.name.clone());
    let table = || value.clone().try_cast::<crate::prim::value::units::Table>().map(|table| table.to_string());
    dev.or_else(netns).or_else(process).or_else(ip).or_else(net).or_else(table).unwrap_or_else(|| value.to_string())
}
