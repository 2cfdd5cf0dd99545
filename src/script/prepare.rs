//! What is put into a script's text before it is compiled, so that its calls are noted (`prim::calls`) and its closures may read the
//! variable that they are called on.
//!
//! `f(a, b)`, a call of a script's own function, becomes `f(a, __at(b))`, and `f()` becomes `__then(__at(()), f())`. A method works on a
//! copy where a closure that it takes captures the very variable: `t.hops.some(|h| h == t.want)` becomes `__value(t.hops).some(…)`.
//! rhai locks such a variable while the method runs, and refuses to read it then.

use std::collections::BTreeSet;
use std::ops::Range;

use rhai::{AST, ASTNode, Dynamic, Engine, EvalAltResult, NativeCallContext, Position, Scope, Stmt};

use super::held::{self, HeldVariable};
use super::lexer;
use super::sources::Script;
use super::typos;
use super::words::Words;
use crate::prim::{At, Callee, Function, Insert, LabHandle, ScriptError, Source};
use crate::state::Error;

/// A script's text as it is compiled.
pub(super) struct Prepared {
    /// The text.
    pub(super) text: String,
    /// What was put into it.
    pub(super) source: Source,
}

/// A piece that is put into a text, before the byte `at`.
struct Edit {
    at: usize,
    piece: &'static str,
    stands_for: usize,
    callee: Option<Callee>,
}

/// rhai's methods that call a closure.
const CALLING: &[&str] = &[
    "all",
    "call",
    "dedup",
    "drain",
    "filter",
    "find",
    "find_map",
    "for_each",
    "index_of",
    "map",
    "order",
    "order_by",
    "reduce",
    "reduce_rev",
    "retain",
    "some",
    "sort",
    "sort_by",
    "zip",
];

/// Registers what a prepared text calls.
pub(super) fn register(engine: &mut Engine, lab: &LabHandle) {
    let lab = lab.clone();
    let at = move |ctx: NativeCallContext<'_>, value: Dynamic| {
        lab.note_call(&ctx);
        value
    };
    engine.register_fn("__at", at);
    engine.register_fn("__then", |(): (), value: Dynamic| value);
    engine.register_fn("__value", Dynamic::flatten);
}

/// Compiles the words of a script's text, and enters it as one that is about to run. `known` has its functions that are defined elsewhere.
pub(super) fn compile(
    engine: &Engine,
    lab: &LabHandle,
    scope: &Scope<'_>,
    script: &Script,
    words: &Words<'_>,
    known: &[String],
) -> Result<AST, Box<EvalAltResult>> {
    let compiled = compiled(engine, scope, script, words, known);
    let (ast, source) = compiled.inspect_err(|_| lab.enter_source(&script.name, Source::default()))?;
    lab.enter_source(&script.name, source);
    Ok(ast)
}

fn compiled(
    engine: &Engine,
    scope: &Scope<'_>,
    script: &Script,
    words: &Words<'_>,
    known: &[String],
) -> Result<(AST, Source), Box<EvalAltResult>> {
    let compile = |text: &str| engine.compile_with_scope(scope, text);
    let mut prepared = Prepared::of(words, known);
    let mut ast = match compile(&prepared.text) {
        Ok(ast) => ast,
        Err(_) => {
            // What is wrong is said of the text that the user has.
            prepared = Prepared { text: script.text.clone(), source: Source::default() };
            compile(&prepared.text)?
        }
    };
    // Without a closure there is nothing to walk for.
    let held = if script.text.contains('|') { held::in_ast(&ast) } else { Vec::new() };
    if !held.is_empty() {
        let own: Vec<&str> = ast.iter_functions().map(|function| function.name).collect();
        let own: BTreeSet<&str> = own.into_iter().chain(known.iter().map(String::as_str)).collect();
        if let Some(held) = held.iter().find(|held| !held.may_work_on_a_copy(&own, &prepared.text)) {
            return Err(held.error(prepared.original(held.method_at)));
        }
        let copies = held.iter().filter_map(|held| prepared.copy(words, held)).flatten().collect();
        let copying = prepare(words, known, copies);
        if let Ok(compiled) = compile(&copying.text) {
            (prepared, ast) = (copying, compiled);
        }
    }
    if script.text.contains("const")
        && let Some(typo) = typos::in_constants(&Words::whole(&script.text)).into_iter().next()
    {
        return Err(raised(typo.error, lexer::position_at(&script.text, typo.at)));
    }
    ast.set_source(script.name.as_str());
    // Most scripts have none, and need no walk.
    if script.text.contains("try") {
        prepared.source.tries = tries(&ast);
    }
    Ok((ast, prepared.source))
}

/// Returns an error of ours as rhai's.
fn raised(error: Error, at: Position) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(ScriptError(error.into())), at))
}

/// Returns where a compiled script's `try` blocks stand.
fn tries(ast: &AST) -> Vec<(Position, Position)> {
    let mut found = Vec::new();
    ast.walk(&mut |nodes| {
        if let Some(ASTNode::Stmt(Stmt::TryCatch(block, _))) = nodes.last() {
            found.push((block.body.position(), block.body.end_position()));
        }
        true
    });
    found
}

impl Prepared {
    /// Prepares the words of a text. `known` has the script's functions that are defined elsewhere.
    pub(super) fn of(words: &Words<'_>, known: &[String]) -> Prepared {
        prepare(words, known, Vec::new())
    }

    /// Returns the place in the user's text of one in the text that was compiled.
    fn original(&self, position: Position) -> Position {
        let at = || Some(self.source.original((position.line()?, position.position()?)));
        let short = |(line, column): At| Some(Position::new(u16::try_from(line).ok()?, u16::try_from(column).ok()?));
        at().and_then(short).unwrap_or(position)
    }

    /// Returns what makes the method work on a copy. The positions are of the text as this has it.
    fn copy<'t>(&self, words: &Words<'t>, held: &HeldVariable) -> Option<[Edit; 2]> {
        let byte = |position: Position| lexer::byte_at(words.text, self.original(position));
        let begin = byte(held.root_at)?;
        let method = byte(held.method_at)?;
        // Before the method's name is a dot, or `?.`.
        let name = words.tokens.iter().position(|token| token.range.start == method)?;
        let dot = name.checked_sub(1).filter(|at| words.is(*at, '.'))?;
        let dot = dot.checked_sub(1).filter(|at| words.is(*at, '?')).unwrap_or(dot);
        let end = words.tokens[dot].range.start;
        let edit = |at, piece| Edit { at, piece, stands_for: at, callee: None };
        Some([edit(begin, "__value("), edit(end, ")")])
    }
}

fn prepare(words: &Words<'_>, known: &[String], copies: Vec<Edit>) -> Prepared {
    let functions = words.functions();
    let own: BTreeSet<&str> = functions.iter().map(|(name, _)| *name).chain(known.iter().map(String::as_str)).collect();
    let mut edits = Vec::new();
    (0..words.tokens.len()).for_each(|at| words.note_call(at, &own, &mut edits));
    edits.extend(copies);
    apply(words, edits, &functions, &typos::properties(words))
}

impl Words<'_> {
    /// Notes the call at a place, if there is one of a function of a script's.
    fn note_call(&self, at: usize, own: &BTreeSet<&str>, edits: &mut Vec<Edit>) {
        let Some(name) = self.word(at).filter(|_| self.is(at + 1, '(')) else { return };
        let mut begin = at;
        while begin >= 3 && self.is(begin - 1, ':') && self.is(begin - 2, ':') && self.word(begin - 3).is_some() {
            begin -= 3;
        }
        let before = begin.checked_sub(1);
        let is_method = before.is_some_and(|before| self.is(before, '.'));
        let is_definition = before.and_then(|before| self.word(before)) == Some("fn");
        let callee = match () {
            () if is_definition => return,
            () if begin < at || own.contains(name) => Callee::Function(name.into()),
            () if is_method && CALLING.contains(&name) => Callee::Closure,
            () => return,
        };
        let Some(end) = self.closing(at + 1) else { return };
        let stands_for = self.tokens[at].range.start;
        let mut edit = |at: usize, piece, callee| edits.push(Edit { at, piece, stands_for, callee });
        if let Some(last) = self.last_argument(at + 1, end) {
            edit(last.start, "__at(", Some(callee));
            edit(last.end, ")", None);
            return;
        }
        let begin = if is_method { begin.checked_sub(1).and_then(|dot| self.chain_before(dot)) } else { Some(begin) };
        let Some(begin) = begin else { return };
        let start = self.tokens[begin].range.start;
        edit(start, "__then(", None);
        edit(start, "__at(()), ", Some(callee));
        edit(self.tokens[end].range.end, ")", None);
    }
}

/// Puts the pieces in, and leaves out what rhai need not read: the comments at the ends of lines, and what is not needed. All lines are
/// there.
fn apply(
    words: &Words<'_>,
    mut edits: Vec<Edit>,
    functions: &[(&str, Range<usize>)],
    properties: &[usize],
) -> Prepared {
    let text = words.text;
    // What ends at a byte comes before what begins there; of several that begin there the outermost is first already.
    edits.sort_by_key(|edit| (edit.at, edit.piece != ")"));
    let lines = Lines::of(text);
    let mut made = String::with_capacity(text.len() + edits.iter().map(|edit| edit.piece.len()).sum::<usize>());
    let comments = words.comments.iter().filter(|range| text[range.start..].starts_with("//"));
    let mut unread: Vec<&Range<usize>> = comments.chain(&words.gaps).collect();
    unread.sort_by_key(|range| range.start);
    let mut unread = unread.into_iter().peekable();
    let mut from = 0;
    // Nothing that is not read begins or ends within what is pushed for the sake of an edit: it is no code.
    let mut push_to = |made: &mut String, to: usize| {
        while let Some(range) = unread.next_if(|range| range.end <= to) {
            made.push_str(&text[from..range.start]);
            made.extend(text[(*range).clone()].matches('\n'));
            from = range.end;
        }
        made.push_str(&text[from..to]);
        from = to;
    };
    let mut inserts: Vec<Insert> = Vec::with_capacity(edits.len());
    let mut shifts: Vec<(usize, usize)> = Vec::with_capacity(edits.len());
    // The line of the last edit, and by how much its end is shifted.
    let mut shifted = (0, 0);
    for edit in edits {
        push_to(&mut made, edit.at);
        made.push_str(edit.piece);
        let length = edit.piece.len();
        let (line, column) = lines.at(edit.at);
        let shift = if shifted.0 == line { shifted.1 } else { 0 };
        let stands_for = lines.at(edit.stands_for);
        inserts.push(Insert { at: (line, column + shift), length, stands_for, callee: edit.callee });
        shifts.push((edit.at, length));
        shifted = (line, shift + length);
    }
    push_to(&mut made, text.len());
    // The place of a byte of the text in what is made of it.
    let made_at = |byte: usize| {
        let (line, column) = lines.at(byte);
        let begin = shifts.partition_point(|(at, _)| *at < lines.start(line));
        let shift: usize = shifts[begin..].iter().take_while(|(at, _)| *at <= byte).map(|(_, length)| length).sum();
        (line, column + shift)
    };
    let functions = functions
        .iter()
        .map(|(name, range)| Function { name: (*name).into(), span: (made_at(range.start), made_at(range.end)) })
        .collect();
    let properties = properties.iter().map(|byte| lines.at(*byte)).collect();
    Prepared { text: made, source: Source { inserts, functions, properties, tries: Vec::new() } }
}

/// Where the lines of a text begin, in bytes.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl Lines<'_> {
    fn of(text: &str) -> Lines<'_> {
        let mut starts = vec![0];
        while let Some(length) = text[starts[starts.len() - 1]..].find('\n') {
            starts.push(starts[starts.len() - 1] + length + 1);
        }
        Lines { text, starts }
    }

    /// Returns the line and column of a byte.
    fn at(&self, byte: usize) -> At {
        let line = self.starts.partition_point(|start| *start <= byte);
        (line, 1 + self.text[self.start(line)..byte].chars().count())
    }

    fn start(&self, line: usize) -> usize {
        self.starts[line - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(text: &str) -> String {
        let engine = super::super::bare();
        let mut scope = Scope::new();
        for name in ["a", "b", "t"] {
            scope.push_dynamic(name, Dynamic::UNIT);
        }
        let script = Script::inline("-e", text);
        let (words, known) = (Words::of(text), ["far".into()]);
        let prepared = Prepared::of(&words, &known);
        match compiled(&engine, &scope, &script, &words, &known) {
            Ok((_, source)) if source.inserts.len() > prepared.source.inserts.len() => {
                let ast = engine.compile_with_scope(&scope, &prepared.text).unwrap();
                let held = held::in_ast(&ast);
                let copies = held.iter().filter_map(|held| prepared.copy(&words, held)).flatten().collect();
                prepare(&words, &[], copies).text
            }
            Ok(_) => prepared.text,
            Err(error) => error.to_string(),
        }
    }

    /// Comments at the ends of lines go, and nothing else: what stands in a text or in a comment within a line, and the places of all.
    #[test]
    fn comments_are_left_out() {
        assert_eq!(prepared("// a\n/// b\nlet x = 1; // c\r\nx // d"), "\n\nlet x = 1; \nx ");
        assert_eq!(prepared("far(1, // one\n  2) // two"), "far(1, \n  __at(2)) ");
        assert_eq!(prepared("far(1 // one\n)"), "far(__at(1) \n)");
        for text in ["\"http://a\"", "`//${1}//`", "1 /* a // b */ + 2", "#\"//\"#", "'/' + \"/\""] {
            assert_eq!(prepared(text), text);
        }
        let source = Prepared::of(&Words::of("// a\nfar(1, far(// b\n2)) // c"), &["far".into()]).source;
        let places: Vec<_> = source.inserts.iter().map(|insert| (insert.at, insert.stands_for)).collect();
        assert_eq!(places, [((2, 8), (2, 1)), ((3, 1), (2, 8)), ((3, 7), (2, 8)), ((3, 9), (2, 1))]);
        assert_eq!(source.original((3, 6)), (3, 1));
    }

    /// The lists of rhai's methods: each is a function that rhai has, and all that call a closure are known.
    #[test]
    fn the_lists_of_methods_are_rhais() {
        // What is only said of a closure.
        const ABOUT: &[&str] =
            &["debug", "get$is_anonymous", "get$name", "is_anonymous", "name", "print", "to_debug", "to_string"];
        let closure = std::any::TypeId::of::<rhai::FnPtr>();
        let takes = |info: rhai::FuncInfo<'_>| {
            Some((info.metadata.name.to_string(), info.metadata.param_types.contains(&closure)))
        };
        let all = rhai::Engine::new().collect_fn_metadata(None, takes, true);
        let is_known = |name: &str| name == "call" || all.iter().any(|(known, _)| known == name);
        let unknown: Vec<_> = CALLING.iter().chain(held::CHANGING).filter(|name| !is_known(name)).collect();
        let mut missing: Vec<&str> = all.iter().filter(|(_, takes)| *takes).map(|(name, _)| name.as_str()).collect();
        missing.retain(|name| !CALLING.contains(name) && !ABOUT.contains(name));
        assert!(unknown.is_empty() && missing.is_empty(), "{unknown:?} {missing:?}");
    }

    #[test]
    fn calls_of_a_scripts_functions_are_noted() {
        for (text, wanted) in [
            ("fn f(x) {} f(1)", "fn f(x) {} f(__at(1))"),
            ("fn f() {} f()", "fn f() {} __then(__at(()), f())"),
            ("fn f(x, y) {} f(f(a, b), [1, 2],);", "fn f(x, y) {} f(f(a, __at(b)), __at([1, 2]),);"),
            ("fn f(x) {} f(|a, b| a + b)", "fn f(x) {} f(__at(|a, b| a + b))"),
            ("fn f(x, y) {} f(|a, b| f(a, b), a)", "fn f(x, y) {} f(|a, b| f(a, __at(b)), __at(a))"),
            ("fn f(x) {} f(|| a)", "fn f(x) {} f(__at(|| a))"),
            ("fn f(x) {} f(a | b)", "fn f(x) {} f(__at(a | b))"),
            ("fn f(x, y) {} f(a || b, |a, b| a)", "fn f(x, y) {} f(a || b, __at(|a, b| a))"),
            ("if (t.c).call() { a }", "if __then(__at(()), (t.c).call()) { a }"),
            ("far(a)", "far(__at(a))"),
            ("print(a)", "print(a)"),
            ("import \"lan\" as lan; lan::star(1, \")\")", "import \"lan\" as lan; lan::star(1, __at(\")\"))"),
            ("import \"lan\" as lan; lan::f().a[0]", "import \"lan\" as lan; __then(__at(()), lan::f()).a[0]"),
            ("fn f() { this } a.b(1)[2]?.f()", "fn f() { this } __then(__at(()), a.b(1)[2]?.f())"),
            ("a.map(|x| x)", "a.map(__at(|x| x))"),
            ("if a { t.c.call() }", "if a { __then(__at(()), t.c.call()) }"),
            ("fn f(x) {} f( // )\n a /* , */)", "fn f(x) {} f( \n __at(a) /* , */)"),
        ] {
            assert_eq!(prepared(text), wanted);
        }
    }

    #[test]
    fn a_method_whose_closure_captures_what_it_works_on_gets_a_copy() {
        for (text, wanted) in [
            ("let t = #{}; t.hops.some(|h| h == t.want)", "let t = #{}; __value(t.hops).some(__at(|h| h == t.want))"),
            (
                "let t = []; t.filter(|h| h > t.len()).len()",
                "let t = []; __value(t).filter(__at(|h| h > t.len())).len()",
            ),
            ("let t = #{}; t.a[0].b?.map(|h| t.c)", "let t = #{}; __value(t.a[0].b)?.map(__at(|h| t.c))"),
            ("let t = #{}; let u = #{}; t.a.map(|h| u.c)", "let t = #{}; let u = #{}; t.a.map(__at(|h| u.c))"),
            ("let t = #{}; t.a.for_each(|h| t.b)", "let t = #{}; __value(t.a).for_each(__at(|h| t.b))"),
            (
                "fn f() { let t = #{}; t.a.all(|x| x == t.b) }",
                "fn f() { let t = #{}; __value(t.a).all(__at(|x| x == t.b)) }",
            ),
            ("let t = #{}; a[t.n.index_of(|x| x == t.m)]", "let t = #{}; a[__value(t.n).index_of(__at(|x| x == t.m))]"),
        ] {
            assert_eq!(prepared(text), wanted);
        }
        for text in [
            "let t = #{}; t.a.retain(|x| x != t.b)",
            "let t = #{}; t.a.for_each(|| this = t.b)",
            "let t = #{}; t.a.push(|| t.b)",
            "fn own(f) { this = 1; } let t = #{}; t.a.own(|| t.b)",
        ] {
            assert!(prepared(text).contains("which its closure reads meanwhile"), "{text}: {}", prepared(text));
        }
    }

    /// A place in what is compiled is the user's again, on each line and beside what is put in.
    #[test]
    fn places_are_the_users() {
        let text = "fn f(x) { x }\n  f(\"é\" + f(1)); a.b\nf(2)";
        let prepared = Prepared::of(&Words::of(text), &[]);
        let at = |text: &str, byte: usize| {
            let before = &text[..byte];
            let line = before.matches('\n').count() + 1;
            (line, before.rsplit('\n').next().unwrap().chars().count() + 1)
        };
        for word in ["x }", "\"é\"", "+", "; a.b", "a.b"] {
            let here = at(&prepared.text, prepared.text.find(word).unwrap());
            let expected = at(text, text.find(word).unwrap());
            assert_eq!(prepared.source.original(here), expected, "{word}");
        }
        let noted: Vec<At> = prepared
            .text
            .match_indices("__at")
            .map(|(byte, _)| prepared.source.original(at(&prepared.text, byte)))
            .collect();
        assert_eq!(noted, [(2, 3), (2, 11), (3, 1)]);
        assert_eq!(prepared.source.functions[0].span, ((1, 1), (1, 14)));
    }

    proptest::proptest! {
        /// No text, however broken, makes it fail, and what is put in is all that it changes.
        #[test]
        fn any_text_is_prepared(text in "(fn |f|\\(|\\)|\\||,|\\{|\\}|::|\\.| |a|1|\"|\n|call|\\[|\\]|\\?|é)*") {
            let prepared = Prepared::of(&Words::of(&text), &["a".into()]);
            let mut left = prepared.text.clone();
            for piece in ["__then(", "__at(()), ", "__at("] {
                left = left.replace(piece, "");
            }
            let closers: usize = prepared.source.inserts.iter().filter(|insert| insert.length == 1).count();
            proptest::prop_assert_eq!(left.len(), text.len() + closers);
        }
    }
}
