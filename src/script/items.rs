//! rhai's methods that call a closure with each item of a list.
//!
//! rhai doesn't ask how many parameters the closure has. For each item it calls the closure with none first, looks for such a function
//! through all modules, and puts an error together, before it calls it with the item. Ours ask once, and then do as rhai's own.

use rhai::plugin::*;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, Position};

type ItemResult<T> = Result<T, Box<EvalAltResult>>;

/// A method that calls a closure with each item.
struct ItemMethod<'a, 'c> {
    ctx: &'a NativeCallContext<'c>,
    name: &'static str,
    closure: &'a FnPtr,
    /// How many parameters the closure has beside the variables that it captures; none if that is not known.
    parameters: Option<usize>,
}

impl<'a, 'c> ItemMethod<'a, 'c> {
    fn new(ctx: &'a NativeCallContext<'c>, name: &'static str, closure: &'a FnPtr) -> ItemMethod<'a, 'c> {
        ItemMethod { ctx, name, closure, parameters: parameters(ctx, closure) }
    }

    /// Calls the closure as it asks for: with `given` and the item as `this`, with the item behind `given`, or with its index too.
    fn call<const N: usize>(&self, given: [Dynamic; N], item: &mut Dynamic, at: usize) -> ItemResult<Dynamic> {
        let (ctx, closure) = (self.ctx, self.closure);
        let index = || Dynamic::from(i64::try_from(at).unwrap_or(i64::MAX));
        let behind = |more: &[Dynamic]| given.iter().chain(more).cloned().collect::<Vec<_>>();
        let called = match self.parameters.and_then(|count| count.checked_sub(N)) {
            Some(0) => closure.call_raw(ctx, Some(item), given),
            Some(1) if N == 0 => closure.call_raw(ctx, None, [item.clone()]),
            Some(1) => closure.call_raw(ctx, None, behind(std::slice::from_ref(item))),
            Some(2) => closure.call_raw(ctx, None, behind(&[item.clone(), index()])),
            _ => return closure.call_raw_with_extra_args(self.name, ctx, Some(item), given, [index()], Some(N)),
        };
        called.map_err(|error| {
            let source = ctx.call_source().unwrap_or_default().to_string();
            EvalAltResult::ErrorInFunctionCall(self.name.into(), source, error, Position::NONE).into()
        })
    }

    /// Tells whether the closure returns `true` for an item.
    fn holds(&self, item: &mut Dynamic, at: usize) -> ItemResult<bool> {
        Ok(self.call([], item, at)?.as_bool().unwrap_or(false))
    }

    /// Returns the index of the first item, from `start` on, for which the closure returns `true`.
    fn position(&self, array: &mut Array, start: i64) -> ItemResult<Option<usize>> {
        let start = index(array, start);
        for (at, item) in array.iter_mut().enumerate().skip(start) {
            if self.holds(item, at)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// Returns how many parameters a closure has beside the variables that it captures. A function with a name may have several forms.
fn parameters(ctx: &NativeCallContext<'_>, closure: &FnPtr) -> Option<usize> {
    let name = closure.is_anonymous().then(|| closure.fn_name())?;
    let modules = ctx.global_runtime_state().lib.iter().rev();
    let mut functions = modules.flat_map(|module| module.iter_script_fn_info());
    let (.., count, _) = functions.find(|(_, _, function, ..)| *function == name)?;
    count.checked_sub(closure.curry().len())
}

/// Returns the index that is meant: one below zero counts from the end.
fn index(array: &Array, at: i64) -> usize {
    let size = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
    if at < 0 { array.len().saturating_sub(size) } else { size }
}

/// What a script can call.
#[export_module(manifest)]
#[expect(clippy::unwrap_used, reason = "`#[export_module]` writes it for each `&mut`: rhai has checked the type")]
pub(super) mod functions {
    /// Returns the items for which a closure returns `true`.
    #[rhai_fn(name = "filter", return_raw, pure)]
    pub fn filter(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<Array> {
        let method = ItemMethod::new(&ctx, "filter", &closure);
        let mut found = Array::new();
        for (at, item) in array.iter_mut().enumerate() {
            if method.holds(item, at)? {
                found.push(item.clone());
            }
        }
        Ok(found)
    }

    /// Returns what a closure returns for each item.
    #[rhai_fn(name = "map", return_raw, pure)]
    pub fn map(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<Array> {
        let method = ItemMethod::new(&ctx, "map", &closure);
        array.iter_mut().enumerate().map(|(at, item)| method.call([], item, at)).collect()
    }

    /// Tells whether a closure returns `true` for any item.
    #[rhai_fn(name = "some", return_raw, pure)]
    pub fn some(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<bool> {
        Ok(ItemMethod::new(&ctx, "some", &closure).position(array, 0)?.is_some())
    }

    /// Tells whether a closure returns `true` for all items.
    #[rhai_fn(name = "all", return_raw, pure)]
    pub fn all(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<bool> {
        let method = ItemMethod::new(&ctx, "all", &closure);
        for (at, item) in array.iter_mut().enumerate() {
            if !method.holds(item, at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the index of the first item for which a closure returns `true`, or -1.
    #[rhai_fn(name = "index_of", return_raw, pure)]
    pub fn index_of(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<i64> {
        index_of_from(ctx, array, closure, 0)
    }

    /// Returns the index of the first item, from `start` on, for which a closure returns `true`, or -1.
    #[rhai_fn(name = "index_of", return_raw, pure)]
    pub fn index_of_from(ctx: NativeCallContext, array: &mut Array, closure: FnPtr, start: i64) -> ItemResult<i64> {
        let found = ItemMethod::new(&ctx, "index_of", &closure).position(array, start)?;
        Ok(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
    }

    /// Returns the first item for which a closure returns `true`, or nothing.
    #[rhai_fn(name = "find", return_raw, pure)]
    pub fn find(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<Dynamic> {
        find_from(ctx, array, closure, 0)
    }

    /// Returns the first item, from `start` on, for which a closure returns `true`, or nothing.
    #[rhai_fn(name = "find", return_raw, pure)]
    pub fn find_from(ctx: NativeCallContext, array: &mut Array, closure: FnPtr, start: i64) -> ItemResult<Dynamic> {
        // rhai says so of `find` too.
        let found = ItemMethod::new(&ctx, "index_of", &closure).position(array, start)?;
        Ok(found.map_or(Dynamic::UNIT, |at| array[at].clone()))
    }

    /// Returns the first value that a closure returns for an item, or nothing.
    #[rhai_fn(name = "find_map", return_raw, pure)]
    pub fn find_map(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<Dynamic> {
        find_map_from(ctx, array, closure, 0)
    }

    /// Returns the first value that a closure returns for an item, from `start` on, or nothing.
    #[rhai_fn(name = "find_map", return_raw, pure)]
    pub fn find_map_from(ctx: NativeCallContext, array: &mut Array, closure: FnPtr, start: i64) -> ItemResult<Dynamic> {
        let method = ItemMethod::new(&ctx, "find_map", &closure);
        let start = index(array, start);
        for (at, item) in array.iter_mut().enumerate().skip(start) {
            let value = method.call([], item, at)?;
            if !value.is_unit() {
                return Ok(value);
            }
        }
        Ok(Dynamic::UNIT)
    }

    /// Returns what a closure makes of all items: it is called with what it returned last, and the next item.
    #[rhai_fn(name = "reduce", return_raw, pure)]
    pub fn reduce(ctx: NativeCallContext, array: &mut Array, closure: FnPtr) -> ItemResult<Dynamic> {
        reduce_from(ctx, array, closure, Dynamic::UNIT)
    }

    /// Returns what a closure makes of a first value and all items.
    #[rhai_fn(name = "reduce", return_raw, pure)]
    pub fn reduce_from(
        ctx: NativeCallContext,
        array: &mut Array,
        closure: FnPtr,
        first: Dynamic,
    ) -> ItemResult<Dynamic> {
        let method = ItemMethod::new(&ctx, "reduce", &closure);
        array.iter_mut().enumerate().try_fold(first, |made, (at, item)| method.call([made], item, at))
    }
}

#[cfg(test)]
mod tests {
    use super::super::bare;

    /// What a script gets, or the error: by our methods and by rhai's own.
    fn both(text: &str) -> [String; 2] {
        let mut rhai = rhai::Engine::new();
        rhai.set_strict_variables(true);
        [bare(), rhai].map(|engine| match engine.eval::<rhai::Dynamic>(text) {
            Ok(value) => format!("{value:?}"),
            Err(error) => format!("{error:?}"),
        })
    }

    /// A method of ours that gives another result, calls a closure otherwise, or says another error than rhai's.
    #[test]
    fn our_methods_do_as_rhais() {
        let closures = [
            "|x| x > 2",
            "|x| x * 2",
            "|x, i| x == i + 1",
            "|x, i| [x, i]",
            "|| this > 2",
            "|| { this += 1; this > 3 }",
            "|x| { x += 1; x == 4 }",
            "|x| x > far",
            "|x, i| x > far + i",
            "|| this > far",
            "|x, i, more| true",
            "|x| ()",
            "|x| x.nowhere",
            "|x, i| none(x)",
            "|x| throw x",
            "|x| { if x == 2 { return true; } false }",
            "Fn(\"named\")",
            "Fn(\"print\")",
            "Fn(\"nobody\")",
            "named",
            "|x| [1, 2].some(|y| x == y)",
        ];
        let methods = ["filter", "map", "some", "all", "index_of", "find", "find_map", "reduce"];
        let begin = "fn named(x) { x == 2 } fn named(x, i) { x == i } let far = 1;";
        for closure in closures {
            for method in methods {
                for (list, more) in [("[1, 2, 3, 4]", ""), ("[]", ""), ("[3]", ""), ("[1, 2, 3, 4]", ", -2")] {
                    let call = if more.is_empty() || ["index_of", "find", "find_map", "reduce"].contains(&method) {
                        format!("a.{method}({closure}{more})")
                    } else {
                        continue;
                    };
                    let text = format!("{begin} let a = {list}; let r = {call}; `${{r}} ${{a}}`");
                    let [ours, rhais] = both(&text);
                    assert_eq!(ours, rhais, "{text}");
                }
            }
        }
        for text in [
            "[1, 2].reduce(|sum, x| sum + x, 0)",
            "[1, 2].reduce(|sum, x, i| [sum, x, i], 0)",
            "[1, 2].reduce(|sum| sum + this, 0)",
            "let far = 7; [1, 2].reduce(|sum, x| sum + x + far, 0)",
            "[1, 2].reduce(|| 1, 0)",
            "[1, 2, 3].find(|x| x > 1, 9)",
            "[1, 2, 3].find(|x| x > 0, -9)",
            "filter([1, 2], |x| x == 1)",
            "let f = |x| x == 1; [1, 2].filter(f)",
            "let f = |n, x| x == n; [1, 2].filter(f.curry(2))",
            "let f = |n, x, i| i == n; [1, 2].filter(curry(f, 1))",
            "const A = [1, 2]; A.filter(|x| x == 1)",
            "#{ a: 1, b: 2 }.filter(|k, v| v == 1)",
        ] {
            let [ours, rhais] = both(text);
            assert_eq!(ours, rhais, "{text}");
        }
    }
}
