//! Who called: where the calls stand that led to a primitive, for an error that comes when they have long returned.
//!
//! rhai tells a function where it is called, and not who called its caller. So each call of a script's own function is noted: the text
//! that is compiled has `__at(…)` around the last argument (`script::prepare` puts it there), which notes the place at the depth of its
//! function. A note of an earlier call at the same depth is told by its function: what it called is not where the next call stands.

use std::cell::RefCell;
use std::collections::HashMap;

use rhai::{ImmutableString, NativeCallContext, Position};

/// A place in a text: line and column, from 1.
pub type At = (usize, usize);

/// What was put into the text of a source, and what is found there.
#[derive(Debug, Default)]
pub struct Source {
    /// What was put in, in the order of the text.
    pub inserts: Vec<Insert>,
    /// The functions, in the order of the text.
    pub functions: Vec<Function>,
    /// Where its `try` blocks begin and end.
    pub tries: Vec<(Position, Position)>,
    /// Where the user's text reads a property of something, in the order of the text.
    pub properties: Vec<At>,
}

/// A piece that was put into a text.
#[derive(Debug)]
pub struct Insert {
    /// Where it stands in the text that was compiled.
    pub at: At,
    /// How long it is, in characters.
    pub length: usize,
    /// The place of the user's text that it stands for.
    pub stands_for: At,
    /// What is called where it stands, if it notes a call.
    pub callee: Option<Callee>,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// A function of this name.
    Function(ImmutableString),
    /// A closure, which may stand anywhere.
    Closure,
}

/// A function of a source.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: ImmutableString,
    /// Where its text begins and ends, as it was compiled.
    pub span: (At, At),
}

impl Source {
    /// Returns the place in the user's text of one in the text that was compiled.
    pub fn original(&self, (line, column): At) -> At {
        let mut shift = 0;
        let begin = self.inserts.partition_point(|insert| insert.at.0 < line);
        for insert in self.inserts[begin..].iter().take_while(|insert| insert.at <= (line, column)) {
            if column < insert.at.1 + insert.length {
                return insert.stands_for;
            }
            shift += insert.length;
        }
        (line, column - shift)
    }

    /// Returns what is called by the call that is noted at a place.
    fn callee(&self, at: At) -> Option<&Callee> {
        let found = self.inserts.binary_search_by_key(&at, |insert| insert.at).ok()?;
        self.inserts[found].callee.as_ref()
    }

    /// Tells whether a place is in the text of a function of this name.
    fn is_in(&self, at: At, name: &str) -> bool {
        self.functions.iter().any(|function| function.name == name && (function.span.0..=function.span.1).contains(&at))
    }

    fn is_in_try(&self, at: Position) -> bool {
        self.tries.iter().any(|(begin, end)| (begin..=end).contains(&&at))
    }
}

/// A call that was noted: the source that it stands in, none for the script's own, and where.
#[derive(Debug, Clone)]
struct Noted {
    source: Option<ImmutableString>,
    position: Position,
}

/// The calls of a run.
#[derive(Debug, Default)]
pub(super) struct Calls {
    sources: RefCell<HashMap<String, Source>>,
    /// The last call that was noted at each depth.
    noted: RefCell<Vec<Option<Noted>>>,
    has_tries: std::cell::Cell<bool>,
}

impl Calls {
    /// Enters a source that is about to run.
    pub(in crate::prim) fn enter(&self, name: &str, source: Source) {
        self.has_tries.set(self.has_tries.get() || !source.tries.is_empty());
        self.sources.borrow_mut().insert(name.into(), source);
    }

    /// Notes a call of a script's function.
    pub(in crate::prim) fn note(&self, ctx: &NativeCallContext) {
        let mut noted = self.noted.borrow_mut();
        noted.resize(ctx.call_level(), None);
        let source = ctx.global_runtime_state().source.clone();
        noted.push(Some(Noted { source, position: ctx.call_position() }));
    }

    /// Tells whether a call is made within a `try` block, of its own function or of one that has called it.
    pub(super) fn is_within_try(&self, ctx: &NativeCallContext, script: &str) -> bool {
        if !self.has_tries.get() {
            return false;
        }
        let mut found = false;
        self.each(ctx, script, |source, _, position, _| {
            found = found || source.is_some_and(|source| source.is_in_try(position));
        });
        found
    }

    /// Goes through the sources and places of a call and of those that led to it, the innermost first: places of the users' texts.
    pub(super) fn each_place(&self, ctx: &NativeCallContext, script: &str, mut see: impl FnMut(&str, At)) {
        self.each(ctx, script, |source, name, position, is_known| {
            if let Some(at) = at(position).filter(|_| is_known) {
                see(name, source.map_or(at, |source| source.original(at)));
            }
        });
    }

    /// Tells whether a call stands where the user's text reads a property.
    pub(in crate::prim) fn is_of_property(&self, ctx: &NativeCallContext, script: &str) -> bool {
        let sources = self.sources.borrow();
        let found = sources.get(ctx.call_source().unwrap_or(script)).zip(at(ctx.call_position()));
        found.is_some_and(|(source, at)| source.properties.binary_search(&source.original(at)).is_ok())
    }

    /// Returns the place in the user's text of one in the text that was compiled.
    pub(super) fn original(&self, source: &str, at: At) -> At {
        self.sources.borrow().get(source).map_or(at, |source| source.original(at))
    }

    /// Goes through the calls, and tells of each whether it is known to have led here: who called a closure may have called another since.
    fn each(&self, ctx: &NativeCallContext, script: &str, mut see: impl FnMut(Option<&Source>, &str, Position, bool)) {
        let (sources, noted) = (self.sources.borrow(), self.noted.borrow());
        let name = ctx.call_source().unwrap_or(script);
        let (mut inner, mut place) = (sources.get(name), ctx.call_position());
        see(inner, name, place, true);
        for Noted { source: caller, position } in noted.iter().take(ctx.call_level()).rev().flatten() {
            let name = caller.as_deref().unwrap_or(script);
            let source = sources.get(name);
            match at(*position).and_then(|at| source?.callee(at)) {
                Some(Callee::Function(callee)) => {
                    if let (Some(inside), Some(here)) = (inner, at(place))
                        && inside.is_in(here, callee)
                    {
                        see(source, name, *position, true);
                        (inner, place) = (source, *position);
                    }
                }
                // A primitive that was given a closure has no piece in the text.
                Some(Callee::Closure) | None => see(source, name, *position, false),
            }
        }
    }
}

fn at(position: Position) -> Option<At> {
    Some((position.line()?, position.position()?))
}
