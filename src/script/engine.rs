//! The engine: rhai with our primitives, limits, the module resolver and the lab.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use rhai::packages::*;
use rhai::plugin::*;
use rhai::{AST, Dynamic, Engine, EvalAltResult, Expr, Module, Scope, Shared, Stmt};

use super::bounded;
use super::catalog;
use super::failure::Failure;
use super::items;
use super::memory;
use super::modules::{Chain, ModuleFinder};
use super::needed::ModuleCalls;
use super::prepare;
use super::results;
use super::sources::{Dirs, Script, Texts};
use super::stack;
use super::words::Words;
use crate::lab::Event;
use crate::net;
use crate::prim::{self, Args, Dev, GROUPS, LabHandle, NetnsHandle, ScriptError};
use crate::state::{NetnsRef, Place, Spot};

/// Limits that a script meets before the machine does; that of memory has a file of its own. None on the number of operations:
/// Ctrl-C ends a loop.
const CALL_LEVELS_MAX: usize = 64;
const EXPR_DEPTH_MAX: usize = 128;

/// After how many operations it is asked whether a person is to be shown that the script runs: some tens of microseconds.
const LOOK_AGAIN: u32 = 1024;

/// A script engine with a lab to build.
pub struct Session {
    lab: LabHandle,
    dirs: Dirs,
    args: rhai::Map,
    engine: Engine,
    scope: Scope<'static>,
    texts: Texts,
    /// What is being read at the moment.
    chain: Chain,
    /// What the scripts call of modules.
    calls: ModuleCalls,
    /// What the statements so far have defined and imported, in their order.
    kept: Vec<LeftByStatement>,
}

/// What a statement leaves to those after it, beside variables.
#[derive(Clone)]
enum LeftByStatement {
    /// The functions that it defined.
    Functions(Shared<Module>),
    /// A module that it imported, under its name.
    Import(String, Shared<Module>),
}

/// A point between two statements of a session.
pub struct StatementPoint {
    scope: Scope<'static>,
    kept: usize,
}

/// A variable of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The script's word for its type.
    pub kind: String,
    /// The keys of a map.
    pub keys: Vec<String>,
    /// The namespace that it is, or that the device is in.
    pub netns: Option<String>,
}

impl Session {
    /// Makes an engine for the lab, in which scripts see `host` and `args`.
    pub fn new(lab: &LabHandle, dirs: &Dirs, args: rhai::Map) -> Session {
        stack::begin();
        let (texts, chain, calls) = (Texts::default(), Chain::default(), ModuleCalls::default());
        let (engine, scope) = engine_for(lab, dirs, &args, &texts, &chain, &calls);
        Session { lab: lab.clone(), dirs: dirs.clone(), args, engine, scope, texts, chain, calls, kept: Vec::new() }
    }

    /// Compiles a script.
    pub fn compile(&self, script: &Script) -> Result<AST, Box<Failure>> {
        self.texts.keep(script);
        if let Some(failure) = Failure::of_comment(script) {
            return Err(Box::new(failure));
        }
        let known = self.defined().0;
        prepare::compile(&self.engine, &self.lab, &self.scope, script, &Words::of(&script.text), &known)
            .map_err(|error| self.failure(&error, script))
    }

    /// Runs a script to its end.
    pub fn run(&mut self, script: &Script) -> Result<(), Box<Failure>> {
        let ast = self.compile(script)?;
        self.calls.enter(&script.name, &script.text);
        let _reading = self.chain.begin(script);
        let done = self.engine.run_ast_with_scope(&mut self.scope, &ast);
        self.ended(done, script)
    }

    /// Runs a script to its end, and then `scenario`, which calls functions of the script as if it stood behind its last line.
    ///
    /// What the scenario's calls end with is the scenario's alone; the error is one of the script's own statements.
    pub fn run_then(&mut self, script: &Script, scenario: impl Fn(&Caller<'_>) + 'static) -> Result<(), Box<Failure>> {
        let lines = script.text.lines().count();
        let (called, dir) = (script.clone(), self.texts.clone());
        self.engine.register_fn(SCENARIO, move |ctx: NativeCallContext<'_>| {
            scenario(&Caller { ctx, script: &called, lines });
        });
        let longer = Script { text: format!("{}\n;{SCENARIO}();", script.text), ..script.clone() };
        let compiled = match self.compile(&longer) {
            // Where the text ends is said of the text that the user has.
            Err(_) => self.compile(script),
            compiled => compiled,
        };
        dir.keep(script);
        let ast = compiled?;
        self.calls.enter(&script.name, &script.text);
        let _reading = self.chain.begin(script);
        let done = self.engine.run_ast_with_scope(&mut self.scope, &ast);
        self.ended(done, script)
    }

    /// Runs a statement of a session: its variables, functions and imports are there for those after it.
    pub fn evaluate(&mut self, script: &Script) -> Result<Dynamic, Box<Failure>> {
        self.lab.set_script(&script.name);
        let ast = self.compile(script)?;
        // Later statements may call anything of what this one imports.
        self.calls.open(&script.name);
        let _reading = self.chain.begin(script);
        let _ = self.lab.with(|lab| {
            lab.begin_running();
            Ok(())
        });
        let value = self.engine.eval_ast_with_scope::<Dynamic>(&mut self.scope, &ast);
        let value = self.ended(value, script)?;
        let kept = self.to_keep(&ast, script);
        for kept in kept.map_err(|error| self.failure(&error, script))? {
            register(&mut self.engine, &kept);
            self.kept.push(kept);
        }
        Ok(value)
    }

    fn to_keep(&self, ast: &AST, script: &Script) -> Result<Vec<LeftByStatement>, Box<EvalAltResult>> {
        let mut kept = Vec::new();
        for statement in ast.statements() {
            let Stmt::Import(import, position) = statement else { continue };
            let Expr::StringConstant(path, _) = &import.0 else { continue };
            let resolver = self.engine.module_resolver();
            let module = resolver.resolve(&self.engine, Some(&script.name), path, *position)?;
            let alias = if import.1.name.is_empty() { path.as_str() } else { import.1.name.as_str() };
            kept.push(LeftByStatement::Import(alias.to_string(), module));
        }
        if ast.has_functions() {
            let mut functions = ast.clone_functions_only();
            functions.set_source(script.name.as_str());
            kept.push(LeftByStatement::Functions(
                Module::eval_ast_as_new(Scope::new(), &functions, &self.engine)?.into(),
            ));
        }
        Ok(kept)
    }

    /// Notes the present point.
    pub fn mark(&self) -> StatementPoint {
        StatementPoint { scope: self.scope.clone(), kept: self.kept.len() }
    }

    /// Tells whether variables have the values that they had at a point, and nothing was defined or imported since.
    pub fn is_as_at(&self, mark: &StatementPoint) -> bool {
        let values = |scope: &Scope<'_>| -> Vec<String> {
            scope.iter_raw().map(|(name, _, value)| format!("{name}={value:?}")).collect()
        };
        self.kept.len() == mark.kept
            && self.scope.len() == mark.scope.len()
            && values(&self.scope) == values(&mark.scope)
    }

    /// Goes back to a point: variables have the values that they had, what was defined or imported since is not there.
    pub fn go_back(&mut self, mark: StatementPoint) {
        self.scope = mark.scope;
        if self.kept.len() > mark.kept {
            self.kept.truncate(mark.kept);
            // An engine forgets nothing: another one takes its place.
            self.engine = engine_for(&self.lab, &self.dirs, &self.args, &self.texts, &self.chain, &self.calls).0;
            self.kept.iter().for_each(|kept| register(&mut self.engine, kept));
        }
    }

    /// Forgets all that the statements so far have left.
    pub fn reset(&mut self) {
        self.kept.clear();
        (self.engine, self.scope) =
            engine_for(&self.lab, &self.dirs, &self.args, &self.texts, &self.chain, &self.calls);
    }

    /// Returns the variables, the last of each name, in the order of their names.
    pub fn variables(&self) -> Vec<Variable> {
        let mut found: BTreeMap<String, Variable> = BTreeMap::new();
        for (name, _, value) in self.scope.iter() {
            let keys = value.read_lock::<rhai::Map>().map(|map| map.keys().map(ToString::to_string).collect());
            let netns =
                value.clone().try_cast::<NetnsHandle>().or_else(|| Some(value.clone().try_cast::<Dev>()?.netns));
            let variable = Variable {
                name: name.to_string(),
                kind: catalog::shown_type(self.engine.map_type_name(value.type_name())).to_string(),
                keys: keys.unwrap_or_default(),
                netns: netns.map(|netns| netns.0.name.clone()),
            };
            found.insert(variable.name.clone(), variable);
        }
        found.into_values().collect()
    }

    /// Returns the names of the functions that the statements so far have defined, and of the modules that they imported.
    pub fn defined(&self) -> (Vec<String>, Vec<String>) {
        let (mut functions, mut modules) = (Vec::new(), Vec::new());
        for kept in &self.kept {
            match kept {
                LeftByStatement::Functions(module) => {
                    functions.extend(module.iter_script_fn_info().map(|(_, _, name, ..)| name.to_string()));
                }
                LeftByStatement::Import(alias, _) => modules.push(alias.clone()),
            }
        }
        functions.retain(|name| !name.starts_with("anon$"));
        (functions, modules)
    }

    /// Returns how a script ended: its very last operation may have been one too many.
    fn ended<T>(&self, done: Result<T, Box<EvalAltResult>>, script: &Script) -> Result<T, Box<Failure>> {
        let _ = self.lab.with(|lab| {
            lab.arrived();
            Ok(())
        });
        let value = done.map_err(|error| self.failure(&error, script))?;
        memory::exceeded().map_or(Ok(value), |error| Err(Box::new(Failure::from(&error))))
    }

    fn failure(&self, error: &EvalAltResult, script: &Script) -> Box<Failure> {
        let mut failure = Failure::of(error, script, &self.engine);
        failure.name_keys(error, script, &self.scope);
        if matches!(error.unwrap_inner(), EvalAltResult::ErrorPropertyNotFound(..)) && failure.hint.is_none() {
            failure.hint = self.keys_of_result(&failure);
        }
        Box::new(failure)
    }

    /// Says which keys the map has whose property is unknown, where it is what a function returned.
    fn keys_of_result(&self, failure: &Failure) -> Option<String> {
        let spot = failure.place.spot()?;
        let text = self.texts.get(&spot.source)?;
        results::hint_at(&text, spot, &self.dirs)
    }

    /// Returns the texts of all scripts that were read, for the excerpts in messages.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }
}

/// What is called behind a script's last line.
const SCENARIO: &str = "__scenario";

/// Calls functions of a script that has run.
pub struct Caller<'a> {
    ctx: NativeCallContext<'a>,
    script: &'a Script,
    lines: usize,
}

impl Caller<'_> {
    /// Calls a function of the script without arguments.
    pub fn call(&self, name: &str) -> Result<(), Box<Failure>> {
        let done = rhai::FnPtr::new(name).and_then(|call| call.call_within_context::<Dynamic>(&self.ctx, ()));
        done.map(|_| ()).map_err(|error| {
            let mut failure = Failure::of(&error, self.script, self.ctx.engine());
            failure.place = self.in_script(&failure.place);
            Box::new(failure)
        })
    }

    /// Returns a place without the call behind the script's last line.
    pub fn in_script(&self, place: &Place) -> Place {
        let ours = |spot: &&Spot| *spot.source != *self.script.name || spot.line <= self.lines;
        Place(place.0.iter().filter(ours).cloned().collect())
    }
}

fn register(engine: &mut Engine, kept: &LeftByStatement) {
    match kept {
        LeftByStatement::Functions(module) => engine.register_global_module(module.clone()),
        LeftByStatement::Import(alias, module) => engine.register_static_module(alias, module.clone()),
    };
}

/// Makes an engine for a lab, and the scope that its scripts begin with.
fn engine_for(
    lab: &LabHandle,
    dirs: &Dirs,
    args: &rhai::Map,
    texts: &Texts,
    chain: &Chain,
    calls: &ModuleCalls,
) -> (Engine, Scope<'static>) {
    let mut engine = lean();
    engine.set_default_tag(Dynamic::from(lab.clone()));
    prepare::register(&mut engine, lab);
    let mut scope = Scope::new();
    let mut globals = Module::new();
    let host = Dynamic::from(NetnsHandle::new(NetnsRef::host()));
    for (name, value) in [("host", host), ("args", Dynamic::from(Args::new(args.clone())))] {
        // In the scope for strict variables at compile time, and in a global module for functions at run time.
        scope.push_constant_dynamic(name, value.clone());
        globals.set_var(name, value);
    }
    engine.register_global_module(globals.into());
    engine.set_module_resolver(ModuleFinder::new(lab, dirs, &scope, texts, chain, calls));
    let said = lab.clone();
    engine.on_print(move |text| {
        // The lab is gone only once the run is over, and then nobody prints.
        let _ = said.with(|lab| {
            lab.say(&Event::Print(text.to_string()));
            Ok(())
        });
    });
    let noted = lab.clone();
    engine.on_debug(move |text, source, position| {
        let at = match (source, position.line(), position.position()) {
            (Some(source), Some(line), Some(column)) => {
                let (line, column) = noted.original(source, (line, column));
                format!("{source}:{line}:{column}")
            }
            _ => position.to_string(),
        };
        let _ = noted.with(|lab| {
            lab.say(&Event::Debug(format!("{at}: {text}")));
            Ok(())
        });
    });
    let (run, operations) = (lab.clone(), Cell::new(0_u32));
    engine.on_progress(move |_| {
        if let Some(signal) = net::process::signal::caught() {
            return Some(Dynamic::from(i64::from(signal)));
        }
        if operations.replace(operations.get().wrapping_add(1)).is_multiple_of(LOOK_AGAIN) {
            // A primitive that is at work shows itself what it does.
            let _ = run.with(|lab| {
                lab.show_running();
                Ok(())
            });
        }
        let exceeded = memory::exceeded().or_else(stack::exceeded);
        exceeded.map(|error| Dynamic::from(ScriptError(Rc::new(error))))
    });
    (engine, scope)
}

/// Makes an engine that knows our functions and limits, and no lab: enough to compile, and to list what there is.
pub fn bare() -> Engine {
    let mut engine = Engine::new();
    for group in GROUPS {
        engine.register_global_module(group.module().into());
    }
    engine.register_global_module(exported_module!(memory::functions).into());
    engine.register_global_module(exported_module!(bounded::functions).into());
    engine.register_global_module(exported_module!(items::functions).into());
    set_up(&mut engine);
    engine
}

/// Makes an engine that reads a script as a run does, and knows no function: enough to tell whether it can be compiled.
pub(super) fn without_functions() -> Engine {
    let mut engine = Engine::new_raw();
    set_up(&mut engine);
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    engine
}

/// Makes the engine of a run: it has the same functions as the bare one, without what is written about them.
fn lean() -> Engine {
    let mut engine = Engine::new_raw();
    // To keep one copy of equal strings, rhai looks through all that it has each time that it has too many.
    engine.set_max_strings_interned(0);
    let mut standard = Module::new();
    StandardPackage::init(&mut standard);
    standard.register_lazy_functions();
    engine.register_global_module(standard.into());
    let mut ours = prim::functions();
    prim::enter(&mut ours, exported_manifest!(memory::functions));
    prim::enter(&mut ours, exported_manifest!(bounded::functions));
    prim::enter(&mut ours, exported_manifest!(items::functions));
    engine.register_global_module(ours.into());
    set_up(&mut engine);
    engine
}

fn set_up(engine: &mut Engine) {
    engine
        // A closure inside a function sees `host` and `args` only because the optimizer puts the constants there.
        .set_optimization_level(rhai::OptimizationLevel::Simple)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .set_max_call_levels(CALL_LEVELS_MAX)
        .set_max_expr_depths(EXPR_DEPTH_MAX, EXPR_DEPTH_MAX)
        .disable_symbol("eval");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run must not lack a function that `topo doc` and `topo check` know.
    #[test]
    fn a_run_has_all_functions_that_are_written_about() {
        let functions = |engine: &Engine| {
            let function =
                |info: rhai::FuncInfo| Some((info.metadata.name.to_string(), info.metadata.param_types.clone()));
            let mut functions = engine.collect_fn_metadata(None, function, true);
            functions.sort();
            functions.dedup();
            functions
        };
        assert_eq!(functions(&lean()), functions(&bare()));
    }
}
