//! `topo check`: what can be known of a script without running it. Syntax and unknown variables are the compiler's;
//! unknown functions, wrong numbers of arguments and unknown options are found by comparing calls with the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Engine, Expr, FnCallExpr, Position, Scope, Stmt};

use super::catalog;
use super::engine;
use super::failure::Failure;
use super::failure_kind::FailureKind;
use super::held;
use super::lexer;
use super::modules;
use super::nothing;
use super::results;
use super::sources::{self, Dirs, Script, Texts};
use super::typos;
use super::words::Words;
use crate::prim::{self, Args, GROUPS, NetnsHandle, OptionSet};
use crate::state::{Kind, NetnsRef, Place, Spot, name};

/// Checks a script and returns all that is wrong with it, in the order of its lines.
pub fn check(script: &Script, dirs: &Dirs, texts: &Texts) -> Vec<Failure> {
    texts.keep(script);
    if let Some(failure) = Failure::of_comment(script) {
        return vec![failure];
    }
    let engine = checking_engine();
    let ast = match engine.compile_with_scope(&checking_scope(), &script.text) {
        Ok(ast) => ast,
        Err(error) => return vec![Failure::of(&error.into(), script, &engine)],
    };
    let mut checker = Checker::new(&engine, script, dirs, texts);
    checker.learn(&ast);
    ast.walk(&mut |path| {
        if let Some(node) = path.last() {
            checker.look(node);
        }
        true
    });
    checker.look_at_words();
    checker.look_at_closures(&ast);
    checker.look_at_results(&ast);
    checker.found.extend(modules::unreadable(script, &ast, &engine, dirs, texts));
    checker.found.sort_by_key(|failure| failure.place.spot().map(|spot| (spot.line, spot.column)));
    checker.found
}

/// Checks whether a script can be compiled. What it imports is not looked at, and unknown functions are no matter.
pub fn check_syntax(script: &Script) -> Result<(), Box<Failure>> {
    if let Some(failure) = Failure::of_comment(script) {
        return Err(Box::new(failure));
    }
    let compiled = engine::without_functions().compile_with_scope(&checking_scope(), &script.text);
    compiled.map(|_| ()).map_err(|error| Box::new(Failure::of(&error.into(), script, &checking_engine())))
}

/// A function that a script defines.
pub struct Defined {
    /// Its name.
    pub name: String,
    /// How many parameters it has.
    pub parameters: usize,
    /// Its documentation comments, with their slashes.
    pub comments: Vec<String>,
}

/// Compiles a script without running it, and returns the functions that it defines.
pub fn bare_compile(script: &Script) -> Result<Vec<Defined>, Box<Failure>> {
    if let Some(failure) = Failure::of_comment(script) {
        return Err(Box::new(failure));
    }
    let engine = checking_engine();
    let compiled = engine.compile_with_scope(&checking_scope(), &script.text);
    let ast = compiled.map_err(|error| Box::new(Failure::of(&error.into(), script, &engine)))?;
    let defined = |function: rhai::ScriptFnMetadata<'_>| Defined {
        name: function.name.to_string(),
        parameters: function.params.len(),
        comments: function.comments.iter().map(ToString::to_string).collect(),
    };
    Ok(ast.iter_functions().map(defined).collect())
}

/// Makes an engine that keeps every branch: the optimizer would drop one that is never taken, with its mistakes.
fn checking_engine() -> Engine {
    let mut engine = engine::bare();
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    engine
}

/// Returns a scope with the names that a run has; their values are not looked at.
pub(super) fn checking_scope() -> Scope<'static> {
    let mut scope = Scope::new();
    scope.push_constant("host", NetnsHandle::new(NetnsRef::host()));
    scope.push_constant("args", Args::new(rhai::Map::new()));
    scope
}

struct Checker<'a> {
    engine: &'a Engine,
    script: &'a Script,
    dirs: &'a Dirs,
    texts: &'a Texts,
    known: BTreeMap<String, BTreeSet<usize>>,
    /// The functions of each imported module, by the name that it is imported as; none where the module is not known
    /// before the script runs.
    modules: BTreeMap<String, Option<BTreeMap<String, BTreeSet<usize>>>>,
    found: Vec<Failure>,
}

impl<'a> Checker<'a> {
    fn new(engine: &'a Engine, script: &'a Script, dirs: &'a Dirs, texts: &'a Texts) -> Checker<'a> {
        let mut known = catalog::arities(engine);
        // What rhai's own keywords do looks like a call.
        for (keyword, arities) in [
            ("Fn", 1..=1),
            ("call", 0..=20),
            ("curry", 1..=20),
            ("is_def_var", 1..=1),
            ("is_def_fn", 2..=3),
            ("is_shared", 0..=1),
            ("type_of", 0..=1),
            ("print", 0..=1),
            ("debug", 0..=1),
        ] {
            known.entry(keyword.into()).or_default().extend(arities);
        }
        Checker { engine, script, dirs, texts, known, modules: BTreeMap::new(), found: Vec::new() }
    }

    /// Notes the functions that the script defines, and those of the modules that it imports.
    fn learn(&mut self, ast: &AST) {
        for function in ast.iter_functions() {
            self.known.entry(function.name.to_string()).or_default().insert(function.params.len());
        }
        let mut imports = Vec::new();
        ast.walk(&mut |path| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, position))) = path.last() {
                imports.push((import.0.clone(), import.1.name.to_string(), *position));
            }
            true
        });
        for (path, alias, position) in imports {
            let module = match path {
                Expr::StringConstant(path, _) => self.import(&path, position),
                _ => None,
            };
            self.modules.insert(alias, module);
        }
    }

    fn import(&mut self, path: &str, position: Position) -> Option<BTreeMap<String, BTreeSet<usize>>> {
        let module = match sources::module(self.dirs, Some(&self.script.name), path) {
            Ok(module) => module,
            Err(error) => {
                let failure = Failure { place: self.place(position), ..Failure::from(&error) };
                self.found.push(failure);
                return None;
            }
        };
        self.texts.keep(&module);
        if module.embedded {
            // Nothing is wrong with it, and its functions are told by their words.
            let mut functions: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
            for (name, parameters) in Words::of(&module.text).arities() {
                functions.entry(name.to_string()).or_default().insert(parameters);
            }
            return Some(functions);
        }
        match self.engine.compile_with_scope(&checking_scope(), &module.text) {
            Ok(ast) => {
                let mut functions: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
                for function in ast.iter_functions() {
                    functions.entry(function.name.to_string()).or_default().insert(function.params.len());
                }
                Some(functions)
            }
            Err(error) => {
                self.found.push(Failure::of(&error.into(), &module, self.engine));
                None
            }
        }
    }

    fn place(&self, position: Position) -> Place {
        match (position.line(), position.position()) {
            (Some(line), Some(column)) => Place(vec![Spot { source: self.script.name.as_str().into(), line, column }]),
            _ => Place::default(),
        }
    }

    fn look(&mut self, node: &ASTNode<'_>) {
        match node {
            ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position)) => {
                self.look_at_call(call, 0, *position);
            }
            ASTNode::Expr(Expr::MethodCall(call, position)) => self.look_at_call(call, 1, *position),
            _ => {}
        }
    }

    fn look_at_call(&mut self, call: &FnCallExpr, receiver: usize, position: Position) {
        let name = call.name.as_str();
        // Operators, and the closures that rhai names itself, are not written as calls.
        if call.op_token.is_some()
            || !name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            || name.starts_with("anon$")
        {
            return;
        }
        let given = call.args.len() + receiver;
        let module = call.namespace.to_string();
        let module = module.trim_end_matches("::");
        if module.is_empty() {
            let arities = self.known.get(name).cloned();
            self.judge(name, arities.as_ref(), given, receiver, position);
        } else if let Some(Some(functions)) = self.modules.get(module) {
            let arities = functions.get(name).cloned();
            let names: Vec<String> = functions.keys().cloned().collect();
            self.judge_in_module(module, name, arities.as_ref(), &names, given, position);
            return;
        }
        self.look_at_options(name, call.args.last());
        self.look_at_constant(name, receiver, &call.args, position);
    }

    /// Finds constants that the function takes as names or addresses, and that are none.
    fn look_at_constant(&mut self, function: &str, receiver: usize, arguments: &[Expr], position: Position) {
        let Some(Expr::StringConstant(text, _)) = arguments.first() else { return };
        let wrong = match (function, receiver) {
            ("netns", 0) => name::check("netns", text).err(),
            ("addr", 1) => prim::wrong_address(text),
            _ => None,
        };
        if let Some(error) = wrong {
            let failure = Failure { place: self.place(position), ..Failure::from(&error) };
            self.found.push(failure);
        }
    }

    fn judge(
        &mut self,
        name: &str,
        arities: Option<&BTreeSet<usize>>,
        given: usize,
        receiver: usize,
        position: Position,
    ) {
        let Some(arities) = arities else {
            let names: Vec<&str> = self.known.keys().map(String::as_str).collect();
            let hint = match name::nearest(name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`topo doc` lists the functions".into(),
            };
            return self.note(FailureKind::Unknown, format!("unknown function `{name}`"), hint, position);
        };
        // A property may hold a closure that takes anything.
        if arities.contains(&given) || name == "call" {
            return;
        }
        let forms = catalog::signatures(self.engine, name);
        let hint = match forms.is_empty() {
            true => {
                format!("it takes {}", join(arities.iter().map(|count| count.saturating_sub(receiver).to_string())))
            }
            false => format!("it is called as {}", forms.join(" or ")),
        };
        let count = given - receiver;
        self.note(
            Kind::Invalid,
            format!("call `{name}` with {}: no such form of it", arguments(count)),
            hint,
            position,
        );
    }

    fn judge_in_module(
        &mut self,
        module: &str,
        name: &str,
        arities: Option<&BTreeSet<usize>>,
        names: &[String],
        given: usize,
        position: Position,
    ) {
        match arities {
            None => {
                let hint = match name::nearest(name, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{module}::{near}`?"),
                    None => format!("it has: {}", names.join(", ")),
                };
                self.note(FailureKind::Unknown, format!("unknown function `{module}::{name}`"), hint, position);
            }
            Some(arities) if !arities.contains(&given) => {
                let hint = format!("it takes {}", join(arities.iter().map(ToString::to_string)));
                self.note(Kind::Invalid, format!("call `{module}::{name}` with {}", arguments(given)), hint, position);
            }
            Some(_) => {}
        }
    }

    /// Compares the keys of a map that stands as the last argument with the options of the function, and the values that are constants
    /// with what these take.
    fn look_at_options(&mut self, function: &str, last: Option<&Expr>) {
        let (Some(Expr::Map(map, _)), Some(set)) = (last, option_set(function)) else { return };
        for (key, value) in &map.0 {
            let constant = value.get_literal_value(None);
            let read = constant.map_or(Ok(()), |constant| set.check_value(&key.name, constant));
            if let Err(error) = set.check_key(&key.name).and(read) {
                let failure = Failure { place: self.place(key.pos), ..Failure::from(&error) };
                self.found.push(failure);
            }
        }
    }

    /// Finds what can't be right by the script's words alone.
    fn look_at_words(&mut self) {
        let words = Words::whole(&self.script.text);
        let results = results::known(&words, &self.script.name, self.dirs);
        let typos = [
            typos::in_constants(&words),
            typos::in_namespaces(&words),
            typos::in_strings(&words),
            results::wrong_keys(&words, &results),
        ];
        for typo in typos.concat() {
            let place = self.place(lexer::position_at(&self.script.text, typo.at));
            self.found.push(Failure { place, ..Failure::from(&typo.error) });
        }
    }

    /// Finds closures that read what the method works on which calls them.
    fn look_at_closures(&mut self, ast: &AST) {
        let own: BTreeSet<&str> = ast.iter_functions().map(|function| function.name).collect();
        for held in held::in_ast(ast).iter().filter(|held| !held.may_work_on_a_copy(&own, &self.script.text)) {
            let error = held.error(held.method_at);
            self.found.push(Failure::of(&error, self.script, self.engine));
        }
    }

    /// Finds results that are used though there are none.
    fn look_at_results(&mut self, ast: &AST) {
        for (name, position) in nothing::used(ast) {
            if ast.iter_functions().any(|function| function.name == name) {
                continue;
            }
            let message = format!("`{name}` changes what it is called on, and returns nothing");
            self.note(
                Kind::Invalid,
                message,
                format!("call it in a statement before: `out.{name}(…);`, and use `out`"),
                position,
            );
        }
    }

    fn note(&mut self, kind: impl Into<FailureKind>, message: String, hint: String, position: Position) {
        let place = self.place(position);
        self.found.push(Failure { kind: kind.into(), message, hint: Some(hint), place, also: Vec::new() });
    }
}

fn option_set(function: &str) -> Option<&'static OptionSet> {
    GROUPS.iter().flat_map(|group| group.options).find(|set| set.function == function)
}

fn arguments(count: usize) -> String {
    match count {
        0 => "no arguments".into(),
        1 => "1 argument".into(),
        count => format!("{count} arguments"),
    }
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" or ")
}
