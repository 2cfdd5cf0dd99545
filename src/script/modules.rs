//! Modules: found by path, in the user's directory, in the standard library; each is read once a run.
//!
//! A module that is imported while it is itself being read would be read without an end: that is an error, which shows the chain.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use rhai::{
    AST, ASTNode, Engine, EvalAltResult, Expr, ImmutableString, Module, ModuleResolver, Position, Scope, Shared, Stmt,
};

use super::failure::Failure;
use super::lexer;
use super::needed::{self, ModuleCalls, Needed};
use super::prepare;
use super::sources::{self, Dirs, Script, ScriptIdentity, Texts};
use super::words::Words;
use crate::prim::{Beyond, LabHandle, rhai_error};
use crate::state::{Error, Place, Result, Spot, name};

/// How many modules may be read one within the other. Each takes some of the stack, and ends the process where there is no more.
pub(super) const IMPORTS_MAX: usize = 32;

/// What is being read: the script, the module that it imports, the module that this imports, and so on.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain(Rc<RefCell<Vec<ChainedScript>>>);

/// One script of a chain.
#[derive(Debug, Clone)]
struct ChainedScript {
    name: String,
    identity: ScriptIdentity,
    /// Where it is imported.
    at: Option<Spot>,
}

/// Ends the reading of a script when it is dropped.
pub(super) struct Reading(Chain);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.0.borrow_mut().pop();
    }
}

impl Chain {
    /// Begins with a script, which nothing imports.
    pub(super) fn begin(&self, script: &Script) -> Reading {
        let link = ChainedScript { name: script.name.clone(), identity: script.identity(), at: None };
        self.0.borrow_mut().push(link);
        Reading(self.clone())
    }

    /// Goes on with a module that is imported at `at`; fails if it is being read already, or the chain is too long.
    pub(super) fn enter(&self, module: &Script, at: Option<Spot>) -> Result<Reading> {
        let identity = module.identity();
        let doing = || format!("import `{}`", module.name);
        let links = self.0.borrow();
        if let Some(first) = links.iter().position(|link| link.identity == identity) {
            let mut text = format!("the import is circular: {}", links[first].name);
            let imported = links[first + 1..].iter().map(|link| (link.at.as_ref(), link.name.as_str()));
            for (at, name) in imported.chain([(at.as_ref(), module.name.as_str())]) {
                let line = at.map_or(String::new(), |at| format!(" (line {})", at.line));
                text.push_str(&format!("{line} imports {name}"));
            }
            return Err(Error::invalid(doing()).because(text).hint("move what both need to a third file"));
        }
        if links.len() > IMPORTS_MAX {
            return Err(Error::invalid(doing())
                .because(format!("modules import each other more than {IMPORTS_MAX} deep, from {} on", links[0].name))
                .hint("import what the script needs in the script itself"));
        }
        drop(links);
        self.0.borrow_mut().push(ChainedScript { name: module.name.clone(), identity, at });
        Ok(Reading(self.clone()))
    }
}

/// Finds modules for an engine.
pub(super) struct ModuleFinder {
    dirs: Dirs,
    scope: Scope<'static>,
    texts: Texts,
    chain: Chain,
    calls: ModuleCalls,
    lab: LabHandle,
    done: Rc<RefCell<HashMap<String, ReadModule>>>,
}

/// A module that was read.
struct ReadModule {
    module: Shared<Module>,
    /// The functions that it was read for.
    wanted: BTreeSet<String>,
    /// Its functions that were left out, since nobody called them.
    left_out: BTreeSet<String>,
}

impl ModuleFinder {
    /// Makes one whose modules see what is in `scope`.
    pub(super) fn new(
        lab: &LabHandle,
        dirs: &Dirs,
        scope: &Scope<'static>,
        texts: &Texts,
        chain: &Chain,
        calls: &ModuleCalls,
    ) -> ModuleFinder {
        let (dirs, scope, texts, chain) = (dirs.clone(), scope.clone(), texts.clone(), chain.clone());
        ModuleFinder { dirs, scope, texts, chain, calls: calls.clone(), lab: lab.clone(), done: Rc::default() }
    }

    /// Returns a module that was read already, if it has what the importer calls.
    fn done(&self, name: &str, importer: Option<&str>) -> Option<Shared<Module>> {
        let done = self.done.borrow();
        let done = done.get(name)?;
        let has_all = self.calls.of(importer, |called| match called {
            Some(called) => called.is_disjoint(&done.left_out),
            None => done.left_out.is_empty(),
        });
        has_all.then(|| done.module.clone())
    }

    /// Returns what is called of a module of the library, by this importer and those before it; `None` where that may be anything.
    fn wanted(&self, module: &str, importer: Option<&str>) -> Option<BTreeSet<String>> {
        let mut wanted = self.calls.of(importer, |called| called.cloned())?;
        if let Some(done) = self.done.borrow().get(module) {
            wanted.extend(done.wanted.iter().cloned());
        }
        Some(wanted)
    }

    /// Compiles a module: of the library's no more than is needed.
    fn read(
        &self,
        engine: &Engine,
        script: &Script,
        wanted: Option<BTreeSet<String>>,
    ) -> std::result::Result<ReadModule, Box<EvalAltResult>> {
        let needed = wanted.as_ref().filter(|_| script.embedded).map(|wanted| Needed::of(&script.text, wanted));
        let whole = || Needed {
            words: Words::of(&script.text),
            left_out: BTreeSet::new(),
            calls: needed::names_called(&script.text),
        };
        let needed = needed.unwrap_or_else(whole);
        self.calls.add(&script.name, needed.calls);
        let ast = prepare::compile(engine, &self.lab, &self.scope, script, &needed.words, &[])?;
        let module = Module::eval_ast_as_new(self.scope.clone(), &ast, engine)?;
        Ok(ReadModule { module: module.into(), wanted: wanted.unwrap_or_default(), left_out: needed.left_out })
    }
}

impl ModuleResolver for ModuleFinder {
    fn resolve(
        &self,
        engine: &Engine,
        importer: Option<&str>,
        path: &str,
        position: Position,
    ) -> std::result::Result<Shared<Module>, Box<EvalAltResult>> {
        let raised = |error: Error| rhai_error(error, position);
        if sources::is_path(path) {
            let allowed = self.lab.reach(Beyond::File, || format!("import \"{}\"", name::shown(path)));
            allowed.map_err(raised)?;
        }
        let script = sources::module(&self.dirs, importer, path).map_err(raised)?;
        if let Some(module) = self.done(&script.name, importer) {
            return Ok(module);
        }
        let at = importer.and_then(|importer| {
            let spot = spot(importer, position)?;
            let (line, column) = self.lab.original(importer, (spot.line, spot.column));
            Some(Spot { line, column, ..spot })
        });
        let _reading = self.chain.enter(&script, at).map_err(raised)?;
        self.texts.keep(&script);
        if let Some(failure) = Failure::of_comment(&script) {
            let error = Error::invalid(format!("read the module `{}`", script.name))
                .because(format!("{} ({})", failure.message, failure.place));
            return Err(raised(failure.hint.into_iter().fold(error, Error::hint)));
        }
        let in_module =
            |error: Box<EvalAltResult>| Box::new(EvalAltResult::ErrorInModule(script.name.clone(), error, position));
        let done = self.read(engine, &script, self.wanted(&script.name, importer)).map_err(in_module)?;
        let module = done.module.clone();
        self.done.borrow_mut().insert(script.name, done);
        Ok(module)
    }
}

/// Follows the imports of a script that is not run, and returns those that are circular or nested too deep. Of a module only what is
/// imported while it is read counts: what its functions import is read later.
pub(super) fn unreadable(script: &Script, ast: &AST, engine: &Engine, dirs: &Dirs, texts: &Texts) -> Vec<Failure> {
    let chain = Chain::default();
    let _reading = chain.begin(script);
    let mut walk =
        Walk { engine, dirs, texts, chain: chain.clone(), path: Vec::new(), seen: Vec::new(), found: Vec::new() };
    walk.follow(imports_of(script, ast), script);
    walk.found
}

struct Walk<'a> {
    engine: &'a Engine,
    dirs: &'a Dirs,
    texts: &'a Texts,
    chain: Chain,
    /// Where the modules that are being read are imported, the outermost first.
    path: Vec<Spot>,
    seen: Vec<ScriptIdentity>,
    found: Vec<Failure>,
}

impl Walk<'_> {
    /// Returns what a module imports while it is read. Those of an embedded one are told by its words: to compile it takes ten times as
    /// long.
    fn imports(&self, module: &Script) -> Vec<(ImmutableString, Spot)> {
        if module.embedded {
            let words = Words::of(&module.text);
            let place = |byte| spot(&module.name, lexer::position_at(&module.text, byte));
            let imports = words.imports().into_iter();
            return imports.filter_map(|(path, byte)| Some((path.into(), place(byte)?))).collect();
        }
        match self.engine.compile_with_scope(&super::check::checking_scope(), &module.text) {
            Ok(ast) => imports_of(module, &ast.clone_statements_only()),
            Err(_) => Vec::new(),
        }
    }

    fn follow(&mut self, imports: Vec<(ImmutableString, Spot)>, script: &Script) {
        for (path, at) in imports {
            // What can't be read is found by others.
            let Ok(module) = sources::module(self.dirs, Some(&script.name), &path) else { continue };
            self.path.push(at.clone());
            match self.chain.enter(&module, Some(at)) {
                Err(error) => {
                    let place = Place(self.path.iter().rev().cloned().collect());
                    self.found.push(Failure { place, ..Failure::from(&error) });
                }
                Ok(_reading) if !self.seen.contains(&module.identity()) => {
                    self.texts.keep(&module);
                    self.follow(self.imports(&module), &module);
                    self.seen.push(module.identity());
                }
                Ok(_) => {}
            }
            self.path.pop();
        }
    }
}

/// Returns what a script imports, by the places.
fn imports_of(script: &Script, ast: &AST) -> Vec<(ImmutableString, Spot)> {
    let mut imports = Vec::new();
    ast.walk(&mut |nodes| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, position))) = nodes.last()
            && let Expr::StringConstant(path, _) = &import.0
        {
            imports.extend(spot(&script.name, *position).map(|spot| (path.as_str().into(), spot)));
        }
        true
    });
    imports
}

fn spot(source: &str, position: Position) -> Option<Spot> {
    Some(Spot { source: source.into(), line: position.line()?, column: position.position()? })
}

#[cfg(test)]
mod tests {
    use super::super::check::checking_scope;
    use super::*;

    /// What the words of an embedded module tell is what rhai reads: its imports with their places, its functions, no comment without
    /// an end.
    #[test]
    fn the_words_of_embedded_modules_tell_what_rhai_reads() {
        let (engine, dirs, texts) = (super::super::bare(), Dirs::default(), Texts::default());
        let names = sources::embedded_modules();
        assert!(names.len() > 15 && names.iter().any(|name| name.contains('/')), "{names:?}");
        let mut imported = 0;
        for name in names {
            let module = sources::module(&dirs, None, &name).expect("embedded");
            assert!(module.embedded && Failure::of_comment(&module).is_none(), "{name}");
            let ast = engine.compile_with_scope(&checking_scope(), &module.text).expect(&name);
            let walk = Walk {
                engine: &engine,
                dirs: &dirs,
                texts: &texts,
                chain: Chain::default(),
                path: Vec::new(),
                seen: Vec::new(),
                found: Vec::new(),
            };
            let imports = walk.imports(&module);
            imported += imports.len();
            assert_eq!(imports, imports_of(&module, &ast.clone_statements_only()), "{name}");
            let words = Words::of(&module.text);
            let mut told = words.arities();
            let functions = ast.iter_functions().filter(|function| !function.name.starts_with("anon$"));
            let mut read: Vec<(&str, usize)> =
                functions.map(|function| (function.name, function.params.len())).collect();
            told.sort_unstable();
            read.sort_unstable();
            assert_eq!(told, read, "{name}");
        }
        assert!(imported > 5, "{imported}");
    }
}
