//! Which tests there are: `fn test_…()` in `.rhai` files, with their sentences and their marked lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::protocol::ExpectedError;
use crate::script::lexer::{TokenKind, tokens};
use crate::script::{Failure, FailureKind, Script, bare_compile};
use crate::state::{Error, Kind, Result};

/// A file with tests, or one that should have some and can't be read as a script.
#[derive(Debug)]
pub(super) struct File {
    pub script: Script,
    pub setup: bool,
    pub teardown: bool,
    pub tests: Vec<Test>,
    /// Why it has no test that could be run.
    pub broken: Option<Failure>,
}

/// A test function.
#[derive(Debug, Clone, Default)]
pub(super) struct Test {
    pub name: String,
    pub line: usize,
    /// The first sentence of its documentation.
    pub about: String,
    pub marks: Vec<ExpectedError>,
}

/// Finds the tests of all paths: files, directories, and single tests as `FILE::NAME`.
pub(super) fn discover(paths: &[PathBuf]) -> Result<Vec<File>> {
    let mut files: Vec<File> = Vec::new();
    for path in paths {
        let shown = path.display().to_string();
        let doing = || format!("find the tests of `{shown}`");
        if path.is_dir() {
            let mut found = Vec::new();
            for path in scripts_in(path)? {
                // A script that is no test is somebody else's.
                found.extend(read(&path)?.filter(|file| file.broken.is_some() || !file.tests.is_empty()));
            }
            if found.is_empty() {
                return Err(Error::new(Kind::Missing, doing())
                    .because("no `.rhai` file in it has a function whose name begins with `test_`"));
            }
            found.into_iter().for_each(|file| add(&mut files, file));
            continue;
        }
        if !path.exists() && !shown.contains("::") {
            return Err(Error::new(Kind::Missing, doing())
                .because("there is no such file or directory here")
                .hint("`topo test FILE` runs the functions of a script whose names begin with `test_`; without one, those below `tests`"));
        }
        let (path, wanted) = match shown.rsplit_once("::") {
            Some((file, test)) if !path.exists() => (PathBuf::from(file), Some(test)),
            _ => (path.clone(), None),
        };
        let Some(mut file) = read(&path)? else {
            return Err(Error::new(Kind::Missing, doing())
                .because("it has no function whose name begins with `test_`")
                .hint("a test is a function without parameters: `fn test_ping() { … }`"));
        };
        if let (Some(wanted), None) = (wanted, &file.broken) {
            let names: Vec<String> = file.tests.iter().map(|test| test.name.clone()).collect();
            file.tests.retain(|test| test.name == wanted);
            if file.tests.is_empty() {
                let near = crate::state::name::nearest(wanted, names.iter().map(String::as_str));
                let error = Error::new(Kind::Missing, doing()).because("the file has no test of this name");
                return Err(match near {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint(format!("it has: {}", names.join(", "))),
                });
            }
        }
        add(&mut files, file);
    }
    Ok(files)
}

/// Adds a file; of one that was named twice, each test once.
fn add(files: &mut Vec<File>, file: File) {
    match files.iter_mut().find(|known| known.script.name == file.script.name) {
        Some(known) => {
            let names: BTreeSet<String> = known.tests.iter().map(|test| test.name.clone()).collect();
            known.tests.extend(file.tests.into_iter().filter(|test| !names.contains(&test.name)));
            known.tests.sort_by_key(|test| test.line);
        }
        None => files.push(file),
    }
}

fn scripts_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source: std::io::Error| Error::file(format!("look for tests in `{}`", dir.display()), &source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // A link to a directory could lead in a circle.
        if entry.file_type().map_err(failed)?.is_dir() {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                found.extend(scripts_in(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rhai") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads the tests of a file; nothing of one that has none.
fn read(path: &Path) -> Result<Option<File>> {
    let script = Script::read(path)?;
    let mut file = File { setup: false, teardown: false, tests: Vec::new(), broken: None, script };
    // A line that must fail may be one that no compiler takes.
    let unmarked = Script { text: without_marks(&file.script.text, None), ..file.script.clone() };
    let functions = match bare_compile(&unmarked) {
        Ok(functions) => functions,
        Err(failure) => {
            // One that no compiler can read has tests if it looks so.
            let looks = functions_of(&file.script.text).iter().any(|(_, name)| name.starts_with("test_"));
            file.broken = Some(*failure);
            return Ok(looks.then_some(file));
        }
    };
    let lines = functions_of(&file.script.text);
    let is_there = |wanted: &str| functions.iter().any(|function| function.name == wanted && function.parameters == 0);
    (file.setup, file.teardown) = (is_there("setup"), is_there("teardown"));
    for (line, name) in lines.iter().filter(|(_, name)| name.starts_with("test_")) {
        let function = functions.iter().find(|function| function.name == *name);
        if function.is_some_and(|function| function.parameters > 0) {
            file.broken =
                Some(wrong(&file.script, *line, format!("test `{name}` has parameters"), "nobody would give it any"));
            return Ok(Some(file));
        }
        let about = function.map_or(String::new(), |function| first_sentence(&function.comments));
        file.tests.push(Test { name: name.clone(), line: *line, about, marks: Vec::new() });
    }
    if let Err(failure) = add_marks(&mut file, &lines) {
        file.broken = Some(failure);
        file.tests.clear();
    }
    Ok((!file.tests.is_empty() || file.broken.is_some()).then_some(file))
}

fn wrong(script: &Script, line: usize, message: String, hint: &str) -> Failure {
    let spot = crate::state::Spot { source: script.name.as_str().into(), line, column: 1 };
    let place = crate::state::Place(vec![spot]);
    Failure { kind: FailureKind::Syntax, message, hint: Some(hint.into()), place, also: Vec::new() }
}

/// Gives each test the lines in it that are marked.
fn add_marks(file: &mut File, functions: &[(usize, String)]) -> std::result::Result<(), Failure> {
    for (line, text) in marks_of(&file.script.text) {
        let Some((kind, said)) = text.split_once(": ") else {
            return Err(wrong(
                &file.script,
                line,
                "a mark without a text".into(),
                "a mark is `//~ kind: text of the error`",
            ));
        };
        let within = functions.iter().rfind(|(at, _)| *at <= line).map(|(_, name)| name);
        let Some(test) = file.tests.iter_mut().find(|test| Some(&test.name) == within) else {
            return Err(wrong(
                &file.script,
                line,
                "a mark outside of a test".into(),
                "only a line of a test can be one that must fail",
            ));
        };
        test.marks.push(ExpectedError { line, kind: kind.trim().into(), text: said.trim().into() });
    }
    Ok(())
}

/// Lists the functions that a text declares, with their lines.
fn functions_of(text: &str) -> Vec<(usize, String)> {
    let found = tokens(text);
    let is_word = |at: usize| found.get(at).is_some_and(|token| token.kind == TokenKind::Word);
    let named = |at: &usize| is_word(*at) && is_word(at + 1) && &text[found[*at].range.clone()] == "fn";
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    (0..found.len())
        .filter(named)
        .map(|at| (line(found[at].range.start), text[found[at + 1].range.clone()].to_string()))
        .collect()
}

/// Lists the marks of a text: comments that begin with `//~ `, with their lines.
fn marks_of(text: &str) -> Vec<(usize, String)> {
    if !text.contains("//~ ") {
        return Vec::new();
    }
    let comment = |token: &crate::script::lexer::Token| {
        let mark = text[token.range.clone()].strip_prefix("//~ ")?;
        Some((text[..token.range.start].matches('\n').count() + 1, mark.to_string()))
    };
    tokens(text).iter().filter(|token| matches!(token.kind, TokenKind::Comment { .. })).filter_map(comment).collect()
}

/// Returns a text without the lines that are marked, but for the line `keep`. Lines keep their numbers.
pub(super) fn without_marks(text: &str, keep: Option<usize>) -> String {
    let blank: Vec<usize> =
        marks_of(text).into_iter().map(|(line, _)| line).filter(|line| Some(*line) != keep).collect();
    let line = |(number, line): (usize, &str)| if blank.contains(&number) { "\n".into() } else { format!("{line}\n") };
    (1..).zip(text.lines()).map(line).collect()
}

fn first_sentence(comments: &[String]) -> String {
    let lines: Vec<&str> = comments.iter().flat_map(|comment| comment.lines()).collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_start_matches('/').trim()).collect();
    let first: Vec<&str> = lines.into_iter().take_while(|line| !line.is_empty()).collect();
    let text = first.join(" ");
    match text.find(". ") {
        Some(end) => text[..=end].to_string(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.rhai");
        std::fs::write(&path, text).expect("written");
        read(&path).expect("read").expect("tests")
    }

    #[test]
    fn tests_are_functions_of_that_name() {
        let file = file(
            "/* fn test_no() {} */\nlet x = \"fn test_no() {}\";\n/// One. And more.\nfn test_a() {\n}\nfn helper(x) { x }\n\n\
             private fn test_b() {\nveth(\"a\", \"a\"); //~ invalid: both\n}\nfn setup() {}\nfn teardown(x) {}\n",
        );
        let names: Vec<(&str, usize, &str)> =
            file.tests.iter().map(|test| (test.name.as_str(), test.line, test.about.as_str())).collect();
        assert_eq!(names, [("test_a", 4, "One."), ("test_b", 8, "")]);
        assert_eq!((file.setup, file.teardown), (true, false));
        let mark = ExpectedError { line: 9, kind: "invalid".into(), text: "both".into() };
        assert_eq!(file.tests[1].marks, [mark]);
    }

    #[test]
    fn what_looks_like_a_test_and_is_none() {
        assert!(file("fn test_a( {").broken.is_some());
        let says = |text: &str| file(text).broken.expect("broken").message;
        assert_eq!(says("fn test_a(x) {}"), "test `test_a` has parameters");
        assert_eq!(says("fn a() {\n1 //~ x: y\n}\nfn test_a() {}"), "a mark outside of a test");
        assert_eq!(says("fn test_a() {\n1 //~ x\n}"), "a mark without a text");
    }
}
