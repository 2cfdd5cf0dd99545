//! The engine: rhai with our primitives, limits, the module resolver and the lab.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rhai::debugger::DebuggerCommand;
use rhai::{AST, Dynamic, Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};

use super::failure::Failure;
use super::sources::{self, Dirs, Script, Texts};
use crate::lab::{Event, NetnsRef};
use crate::net;
use crate::prim::{Args, GROUPS, LabHandle, NetnsHandle, rhai_error};

/// Limits that a script meets before the machine does. None on the number of operations: Ctrl-C ends a loop.
const CALL_LEVELS_MAX: usize = 64;
const EXPR_DEPTH_MAX: usize = 128;
const STRING_BYTES_MAX: usize = 64 << 20;
const ITEMS_MAX: usize = 10_000_000;

/// A script engine with a lab to build.
pub struct Session {
    engine: Engine,
    scope: Scope<'static>,
    texts: Texts,
}

impl Session {
    /// Makes an engine for the lab, in which scripts see `host` and `args`.
    pub fn new(lab: &LabHandle, dirs: &Dirs, args: rhai::Map) -> Session {
        let texts = Texts::default();
        let mut engine = bare();
        engine.set_default_tag(Dynamic::from(lab.clone()));
        let mut scope = Scope::new();
        let mut globals = Module::new();
        let host = Dynamic::from(NetnsHandle::new(NetnsRef::host()));
        for (name, value) in [("host", host), ("args", Dynamic::from(Args::new(args)))] {
            // In the scope for strict variables at compile time, and in a global module for functions at run time.
            scope.push_constant_dynamic(name, value.clone());
            globals.set_var(name, value);
        }
        engine.register_global_module(globals.into());
        engine.set_module_resolver(Resolver {
            dirs: dirs.clone(),
            scope: scope.clone(),
            texts: texts.clone(),
            done: Rc::default(),
        });
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
            let at = source.map_or_else(|| position.to_string(), |source| format!("{source}:{position:?}"));
            let _ = noted.with(|lab| {
                lab.say(&Event::Debug(format!("{at}: {text}")));
                Ok(())
            });
        });
        engine.on_progress(|_| net::signal::caught().map(|signal| Dynamic::from(i64::from(signal))));
        Session { engine, scope, texts }
    }

    /// Compiles a script.
    pub fn compile(&self, script: &Script) -> Result<AST, Box<Failure>> {
        self.texts.keep(script);
        let mut ast = self
            .engine
            .compile_with_scope(&self.scope, &script.text)
            .map_err(|error| self.failure(&error.into(), script))?;
        ast.set_source(script.name.as_str());
        Ok(ast)
    }

    /// Runs a script to its end.
    pub fn run(&mut self, script: &Script) -> Result<(), Box<Failure>> {
        let ast = self.compile(script)?;
        let done = self.engine.run_ast_with_scope(&mut self.scope, &ast);
        done.map_err(|error| self.failure(&error, script))
    }

    fn failure(&self, error: &EvalAltResult, script: &Script) -> Box<Failure> {
        Box::new(Failure::of(error, script, &self.engine))
    }

    /// Returns the texts of all scripts that were read, for the excerpts in messages.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }
}

/// Makes an engine that knows our functions and limits, and no lab: enough to compile, and to list what there is.
pub fn bare() -> Engine {
    let mut engine = Engine::new();
    for group in GROUPS {
        engine.register_global_module((group.module)().into());
    }
    engine
        // A closure inside a function sees `host` and `args` only because the optimizer puts the constants there.
        .set_optimization_level(rhai::OptimizationLevel::Simple)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .set_max_call_levels(CALL_LEVELS_MAX)
        .set_max_expr_depths(EXPR_DEPTH_MAX, EXPR_DEPTH_MAX)
        .set_max_string_size(STRING_BYTES_MAX)
        .set_max_array_size(ITEMS_MAX)
        .set_max_map_size(ITEMS_MAX)
        .disable_symbol("eval");
    // Never entered, but registered it makes rhai keep a call stack: a refusal at a settling shows who asked.
    #[expect(deprecated, reason = "the marker for an interface that may change; this release is pinned")]
    engine.register_debugger(|_, debugger| debugger, |_, _, _, _, _| Ok(DebuggerCommand::Continue));
    engine
}

/// Finds modules: by path, in the user's directory, in the standard library. Each is read once a run.
struct Resolver {
    dirs: Dirs,
    scope: Scope<'static>,
    texts: Texts,
    done: Rc<RefCell<HashMap<String, Shared<Module>>>>,
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        importer: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let script = sources::module(&self.dirs, importer, path).map_err(|error| rhai_error(error, position))?;
        if let Some(module) = self.done.borrow().get(&script.name) {
            return Ok(module.clone());
        }
        self.texts.keep(&script);
        let in_module =
            |error: Box<EvalAltResult>| Box::new(EvalAltResult::ErrorInModule(script.name.clone(), error, position));
        let mut ast =
            engine.compile_with_scope(&self.scope, &script.text).map_err(|error| in_module(Box::new(error.into())))?;
        ast.set_source(script.name.as_str());
        let module = Module::eval_ast_as_new(self.scope.clone(), &ast, engine).map_err(in_module)?;
        let module: Shared<Module> = module.into();
        self.done.borrow_mut().insert(script.name, module.clone());
        Ok(module)
    }
}
