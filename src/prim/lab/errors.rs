//! Errors that a script raises, spells and answers.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, ImmutableString};

use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, ScriptError, call, error_of, raise, rhai_error, text_of, with_lab};
use crate::state::{Error, Kind, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "errors",
    about: "Errors that a script raises, spells and answers.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[],
};

/// What a script failed with that is none of topo's errors: kept whole, so that it can be thrown again as it was.
#[derive(Debug, Clone)]
pub struct Failed(pub Rc<EvalAltResult>);

impl Failed {
    /// Returns what it says, without where.
    fn said(&self) -> String {
        match self.0.unwrap_inner() {
            EvalAltResult::ErrorRuntime(value, _) => format!("the script threw: {value}"),
            other => {
                let text = other.to_string();
                text[..text.rfind(" (line ").unwrap_or(text.len())].to_string()
            }
        }
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// The script's word for it.
    #[expect(dead_code, reason = "rhai reads the line and not the name")]
    pub type Failure = super::Failed;

    /// Stops the script with an error of a kind, as the primitives do: what was attempted, why it can't be, and what to do.
    ///
    /// Like `throw`, with the form that errors of topo have: `catch (e)` finds `e.kind`, `e.message` and `e.hint`.
    ///
    /// Fails with the kind that it is given, and with `invalid` for one that there is not.
    ///
    /// ```rhai
    /// try {
    ///     fail("missing", "find the switch", "nobody made it", "`bridge(\"sw0\")` makes it");
    /// } catch (e) {
    ///     assert(e.kind == "missing" && e.message == "find the switch: nobody made it");
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn fail(ctx: NativeCallContext, kind: &str, doing: &str, because: &str, hint: &str) -> RhaiResultOf<()> {
        let Some(found) = Kind::of_word(kind) else {
            let error = Error::invalid("raise an error").because(format!("there is no kind `{}`", name::shown(kind)));
            return raise(&ctx, Err(error));
        };
        let error = Error::new(found, doing).because(because);
        raise(&ctx, Err(if hint.is_empty() { error } else { error.hint(hint) }))
    }

    /// Does `body` and returns what it returns; an error that it ends with names these options as they are typed: `--mtu` for
    /// `mtu`. A script that gives its arguments on as options asks for it.
    ///
    /// Like nothing in iproute2, whose words have no dashes.
    ///
    /// Fails with what the body fails with.
    ///
    /// ```rhai
    /// try {
    ///     as_typed(["mtu"], || fail("invalid", "make it", "`mtu` is too small", "give `mtu` at least 68"));
    /// } catch (e) {
    ///     assert(e.message == "make it: `--mtu` is too small" && e.hint == "give `--mtu` at least 68");
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn as_typed(ctx: NativeCallContext, options: Array, body: FnPtr) -> RhaiResultOf<Dynamic> {
        let spell = |text: String| {
            let names = options.iter().map(|name| (format!("`{name}`"), format!("`--{name}`")));
            names.fold(text, |text, (name, typed)| text.replace(&name, &typed))
        };
        call(&ctx, &body).map_err(|failed| match error_of(&failed) {
            Some((error, position)) => rhai_error(error.respelt(spell), position),
            None => failed,
        })
    }

    /// Does `body` and returns what it fails with, or `()` where it does not fail. What is returned can be thrown later, and shows
    /// the line where it arose; what a `catch` throws again shows the line of that `throw`, where it is none of topo's errors.
    ///
    /// Like `trap COMMAND ERR` in bash.
    ///
    /// Fails with `interrupted`, which is kept from nobody.
    ///
    /// ```rhai
    /// let undone = false;
    /// let failed = failure_of(|| throw "no more");
    /// if failed != () { undone = true; }
    /// assert(undone && failed.message == "the script threw: no more");
    /// assert(failure_of(|| 1 + 1) == ());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn failure_of(ctx: NativeCallContext, body: FnPtr) -> RhaiResultOf<Dynamic> {
        let done = call(&ctx, &body);
        // What it asked the kernel for is part of it.
        match done.and_then(|_| with_lab(&ctx, |lab| lab.settle())) {
            Ok(()) => Ok(Dynamic::UNIT),
            Err(failed) if !failed.is_catchable() => Err(failed),
            Err(failed) => Ok(match error_of(&failed) {
                Some((error, _)) => Dynamic::from(ScriptError(error.into())),
                None => Dynamic::from(Failed(failed.into())),
            }),
        }
    }

    /// Returns a value as text between backticks, as errors show names.
    ///
    /// Like nothing in iproute2.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// assert(quoted("h1") == "`h1`" && quoted(ip("10.0.0.1")) == "`10.0.0.1`");
    /// ```
    pub fn quoted(value: Dynamic) -> ImmutableString {
        format!("`{}`", text_of(&value)).into()
    }

    /// Returns the items of a list as one text, with `between` between them.
    ///
    /// Like `paste -sd`.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// assert(["h1", "h2", "h3"].join(", ") == "h1, h2, h3");
    /// assert([].join(", ") == "" && [ip("10.0.0.1"), 7].join(" ") == "10.0.0.1 7");
    /// ```
    pub fn join(items: Array, between: &str) -> ImmutableString {
        items.iter().map(text_of).collect::<Vec<_>>().join(between).into()
    }

    /// Returns what a failure that is none of topo's errors says.
    #[rhai_fn(get = "message", name = "to_string", name = "to_debug", pure)]
    pub fn failed_text(failed: &mut Failed) -> String {
        failed.said()
    }
}
