//! What of a module of the library is needed: the functions that its importers call, those that these call, and the imports of both. No
//! more of it is compiled, which would take longer than all else that a small script does.
//!
//! Functions and imports are found by lines: in the library each begins at the beginning of one (a test holds it to that).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

use super::words::Words;

/// What scripts call of the modules that they import, by the scripts' names.
#[derive(Debug, Clone, Default)]
pub(super) struct ModuleCalls(Rc<RefCell<HashMap<String, BTreeSet<String>>>>);

impl ModuleCalls {
    /// Enters a script whose whole text is known.
    pub(super) fn enter(&self, script: &str, text: &str) {
        self.add(script, names_called(text));
    }

    /// Adds functions of modules that a script calls.
    pub(super) fn add(&self, script: &str, names: BTreeSet<String>) {
        self.0.borrow_mut().entry(script.to_string()).or_default().extend(names);
    }

    /// Makes a script one that may call anything: more of its text may come.
    pub(super) fn open(&self, script: &str) {
        self.0.borrow_mut().remove(script);
    }

    /// Hands what a script calls to a function, `None` where it may call anything.
    pub(super) fn of<T>(&self, script: Option<&str>, with: impl FnOnce(Option<&BTreeSet<String>>) -> T) -> T {
        let calls = self.0.borrow();
        with(script.and_then(|script| calls.get(script)))
    }
}

/// What of a module's text is needed.
pub(super) struct Needed<'t> {
    /// Its words.
    pub(super) words: Words<'t>,
    /// The functions that are left out.
    pub(super) left_out: BTreeSet<String>,
    /// What the rest calls of other modules.
    pub(super) calls: BTreeSet<String>,
}

impl<'t> Needed<'t> {
    /// Takes of a text what is needed where `wanted` functions of it are called.
    pub(super) fn of(text: &'t str, wanted: &BTreeSet<String>) -> Needed<'t> {
        let pieces = pieces(text);
        let mut found: Vec<Option<Words<'t>>> = pieces.iter().map(|_| None).collect();
        let mut calls = BTreeSet::new();
        let mut to_read: Vec<Reference<'t>> = Vec::new();
        let mut read = |at: usize, to_read: &mut Vec<Reference<'t>>| {
            if found[at].is_none() {
                let words = Words::of_piece(text, pieces[at].bytes.clone());
                look(&words, to_read, &mut calls);
                found[at] = Some(words);
            }
        };
        let mut by_name: HashMap<PieceKind<'t>, Vec<usize>> = HashMap::new();
        for (at, piece) in pieces.iter().enumerate() {
            match piece.kind {
                PieceKind::Rest => read(at, &mut to_read),
                PieceKind::Function(name) if wanted.contains(name) => read(at, &mut to_read),
                other => by_name.entry(other).or_default().push(at),
            }
        }
        while let Some(reference) = to_read.pop() {
            let named = match reference {
                Reference::Function(name) => PieceKind::Function(name),
                Reference::Module(name) => PieceKind::Import(name),
            };
            by_name.remove(&named).into_iter().flatten().for_each(|at| read(at, &mut to_read));
        }
        let without = || pieces.iter().zip(&found).filter(|(_, words)| words.is_none()).map(|(piece, _)| piece);
        let name = |piece: &ModulePiece<'_>| match piece.kind {
            PieceKind::Function(name) => Some(name.to_string()),
            _ => None,
        };
        let left_out = without().filter_map(name).collect();
        let gaps = without().map(|piece| piece.bytes.clone()).collect();
        Needed { words: Words::joined(text, found.into_iter().flatten().collect(), gaps), left_out, calls }
    }
}

/// Lines of a text that belong together.
struct ModulePiece<'t> {
    kind: PieceKind<'t>,
    bytes: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PieceKind<'t> {
    /// A function, by its name.
    Function(&'t str),
    /// An import, by the name that it gives.
    Import(&'t str),
    /// What stands between them.
    Rest,
}

/// Parts a text of the library into its functions, imports, and the rest.
fn pieces(text: &str) -> Vec<ModulePiece<'_>> {
    let mut pieces: Vec<ModulePiece<'_>> = Vec::new();
    let (mut at, mut is_open) = (0, false);
    for line in text.split_inclusive('\n') {
        let bytes = at..at + line.len();
        at = bytes.end;
        let code = line.trim_end();
        let last = pieces.last_mut();
        if let Some(function) = last.filter(|_| is_open) {
            function.bytes.end = bytes.end;
            is_open = code != "}";
            continue;
        }
        let signature = code.strip_prefix("private ").unwrap_or(code).strip_prefix("fn ");
        let kind = match signature.and_then(|signature| signature.split_once('(')) {
            Some((name, _)) => {
                is_open = !code.ends_with('}');
                PieceKind::Function(name)
            }
            None if code.starts_with("import ") => {
                let alias = code.strip_suffix(';').and_then(|code| code.rsplit_once(" as "));
                alias.map_or(PieceKind::Rest, |(_, alias)| PieceKind::Import(alias))
            }
            None => PieceKind::Rest,
        };
        match pieces.last_mut() {
            Some(last) if last.kind == PieceKind::Rest && kind == PieceKind::Rest => last.bytes.end = bytes.end,
            _ => pieces.push(ModulePiece { kind, bytes }),
        }
    }
    pieces
}

/// What a word may stand for.
enum Reference<'t> {
    /// A function of the text.
    Function(&'t str),
    /// A module, of which a function follows.
    Module(&'t str),
}

/// Notes what some words refer to, and what they call of modules.
fn look<'t>(words: &Words<'t>, references: &mut Vec<Reference<'t>>, calls: &mut BTreeSet<String>) {
    let is = |at: Option<usize>, sign| at.is_some_and(|at| words.is(at, sign));
    let variables = declared(words);
    for at in 0..words.tokens.len() {
        let Some(word) = words.word(at) else {
            let range = words.tokens[at].range.clone();
            let text = &words.text[range.clone()];
            if text.starts_with('`') && text.contains("${") {
                look(&Words::whole_piece(words.text, range), references, calls);
            } else if text.starts_with('"') && at > 1 && words.word(at - 2) == Some("Fn") {
                references.push(Reference::Function(text.trim_matches('"')));
            }
            continue;
        };
        let before = at.checked_sub(1);
        let is_of_module = is(before, ':') && is(at.checked_sub(2), ':');
        if is_of_module {
            calls.insert(word.to_string());
        } else if words.is(at + 1, ':') {
            // Else it is a key of a map.
            if words.is(at + 2, ':') {
                references.push(Reference::Module(word));
            }
        } else if !is(before, '.') && (words.is(at + 1, '(') || !variables.contains(word)) {
            // No function of the library has a `this`, so no method is one of them.
            references.push(Reference::Function(word));
        }
    }
}

/// Returns the variables that are declared among some words: `let x`, `for (x, i) in`, and the parameters of functions.
fn declared<'t>(words: &Words<'t>) -> BTreeSet<&'t str> {
    let mut found = BTreeSet::new();
    for at in 0..words.tokens.len() {
        let end = match words.word(at) {
            Some("let" | "const") => at + 2,
            Some("for") => (at..words.tokens.len()).find(|at| words.word(*at) == Some("in")).unwrap_or(at),
            Some("fn") => words.closing(at + 2).unwrap_or(at),
            _ => continue,
        };
        found.extend((at + 1..end).filter_map(|at| words.word(at)));
    }
    found
}

/// Returns the functions of modules that a text calls.
pub(super) fn names_called(text: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    if text.contains("::") {
        look(&Words::of(text), &mut Vec::new(), &mut calls);
    }
    calls
}

#[cfg(test)]
mod tests {
    use rhai::{ASTNode, Expr, FnCallExpr, Stmt};

    use super::super::check::checking_scope;
    use super::super::prepare::Prepared;
    use super::super::sources::{self, Dirs};
    use super::*;

    /// What one function of a module needs, each of the library's in its turn: all that it calls, here and in other modules, is there, and
    /// what is there can be compiled by itself. Something is left out of nearly all of them.
    #[test]
    fn each_function_of_the_library_has_all_that_it_calls() {
        let engine = super::super::bare();
        let (mut functions, mut partial) = (0, 0);
        for name in sources::embedded_modules() {
            let module = sources::module(&Dirs::default(), None, &name).expect("embedded");
            let whole = engine.compile_with_scope(&checking_scope(), &module.text).expect(&name);
            let names = |ast: &rhai::AST| -> BTreeSet<String> {
                let names = ast.iter_functions().map(|function| function.name.to_string());
                names.filter(|name| !name.starts_with("anon$")).collect()
            };
            let all = names(&whole);
            let found = pieces(&module.text);
            let told = found.iter().filter_map(|piece| match piece.kind {
                PieceKind::Function(name) => Some(name.to_string()),
                _ => None,
            });
            assert_eq!(told.collect::<BTreeSet<_>>(), all, "{name}");
            let words = Words::whole(&module.text);
            let has_this = (0..words.tokens.len()).any(|at| words.word(at) == Some("this"));
            assert!(!has_this, "{name} has a `this`: a method may be a function of it");
            for wanted in &all {
                let needed = Needed::of(&module.text, &[wanted.clone()].into());
                let text = Prepared::of(&needed.words, &[]).text;
                assert_eq!(text.lines().count(), module.text.lines().count(), "{name}: {wanted}");
                let ast = engine
                    .compile_with_scope(&checking_scope(), &text)
                    .unwrap_or_else(|error| panic!("{name}: {wanted}: {error}"));
                let there = names(&ast);
                assert!(there.contains(wanted) && there.is_disjoint(&needed.left_out), "{name}: {wanted}");
                assert_eq!(there.len() + needed.left_out.len(), all.len(), "{name}: {wanted}");
                let mut imported: BTreeSet<String> = BTreeSet::new();
                let mut called: Vec<FnCallExpr> = Vec::new();
                ast.walk(&mut |nodes| {
                    match nodes.last() {
                        Some(ASTNode::Stmt(Stmt::Import(import, _))) => _ = imported.insert(import.1.name.to_string()),
                        Some(
                            ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _))
                            | ASTNode::Stmt(Stmt::FnCall(call, _)),
                        ) => called.push((**call).clone()),
                        // A function's name without brackets is a pointer to it.
                        Some(ASTNode::Expr(Expr::Variable(variable, _, _))) => {
                            let name = variable.1.as_str();
                            assert!(
                                !needed.left_out.contains(name) || declared(&needed.words).contains(name),
                                "{name}"
                            );
                        }
                        _ => {}
                    }
                    true
                });
                for call in called {
                    let namespace = call.namespace.to_string();
                    match namespace.trim_end_matches("::") {
                        "" => assert!(
                            !needed.left_out.contains(call.name.as_str()),
                            "{name}: {wanted} calls {}",
                            call.name
                        ),
                        alias => {
                            assert!(imported.contains(alias), "{name}: {wanted} calls {alias}::{}", call.name);
                            assert!(needed.calls.contains(call.name.as_str()), "{name}: {wanted}: {:?}", needed.calls);
                        }
                    }
                }
                functions += 1;
                partial += usize::from(!needed.left_out.is_empty());
            }
        }
        assert!(functions > 150 && partial * 10 > functions * 9, "{partial} of {functions}");
    }

    #[test]
    fn what_is_named_is_needed() {
        let needed = |code: &str| {
            let text = format!(
                "import \"x\" as x;\nfn a() {{\n    {code}\n}}\nfn b(y) {{ y }}\nprivate fn c() {{ x::d() }}\n"
            );
            let needed = Needed::of(&text, &["a".into()].into());
            (
                needed.left_out.into_iter().collect::<Vec<_>>().join(" "),
                needed.calls.into_iter().collect::<Vec<_>>().join(" "),
            )
        };
        for (code, left_out, calls) in [
            ("1", "b c", ""),
            ("b(1)", "c", ""),
            ("[1].map(b)", "c", ""),
            ("[1].map(Fn(\"b\"))", "c", ""),
            ("`${b(1)} c()`", "c", ""),
            ("`${`${c()}`}`", "b", "d"),
            ("\"b(1)\"", "b c", ""),
            ("// b(1)", "b c", ""),
            ("#{ b: 1 }.b", "b c", ""),
            ("[1].b()", "b c", ""),
            ("x::b(1)", "b c", "b"),
            ("let b = 1; b", "b c", ""),
            ("for (b, c) in [1] { print(b + c) }", "b c", ""),
            ("for b in [1] { c() }", "b", "d"),
        ] {
            assert_eq!(needed(code), (left_out.into(), calls.into()), "{code}");
        }
    }
}
