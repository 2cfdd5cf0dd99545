//! What can stand at the cursor, and how the call that it is in is called: from the catalogue and from what lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::commands::{COMMANDS, Takes};
use crate::script::lexer::{Token, TokenKind, is_word, tokens};
use crate::script::{KEYWORDS, VALUES, Variable, Vocabulary};

/// What completion knows of the session: a copy, made anew after each statement.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What any script can write.
    pub vocabulary: Arc<Vocabulary>,
    /// The variables.
    pub variables: Vec<Variable>,
    /// The functions that were defined here.
    pub functions: Vec<String>,
    /// The modules that were imported here, by the names that they have here.
    pub imported: Vec<String>,
    /// The devices of each namespace that the lab knows.
    pub devs: BTreeMap<String, Vec<String>>,
}

/// Returns where what is typed begins, and what could stand there instead.
pub fn complete(known: &Known, text: &str) -> (usize, Vec<String>) {
    if text.trim_start().starts_with(':') {
        return command(known, text);
    }
    let place = CursorPlace::of(text);
    let start = text.len() - place.prefix.len();
    let found = match place.sort {
        Sort::Nothing => Vec::new(),
        Sort::Text => return in_text(known, &place),
        Sort::Member => members(known, &place),
        Sort::Module(name) => module(known, name).map(|(name, _)| format!("{name}(")).collect(),
        Sort::Option(function, used) => options(known, function, &used),
        Sort::Name => names(known),
    };
    (start, fitting(found, place.prefix))
}

/// Returns how the call that the end of the text is in is called.
pub fn hint(known: &Known, text: &str) -> Option<String> {
    if text.starts_with(':') {
        let name = text.trim_end();
        return COMMANDS.iter().find(|command| command.name == name).map(|command| format!("  {}", command.about));
    }
    let all = tokens(text);
    if all.last().is_some_and(|last| matches!(last.kind, TokenKind::Comment { .. })) {
        return None;
    }
    let call = Call::around(text, &all)?;
    let before = &all[..call.name_at];
    let signatures: Vec<String> = match before {
        [.., name, first, second] if is_path(text, first, second) => {
            let function = &text[all[call.name_at].range.clone()];
            module(known, word(text, name)?).filter(|(name, _)| name == function).map(|(_, form)| form).collect()
        }
        [receiver @ .., dot] if dot.kind == TokenKind::Symbol('.') => {
            let kind = type_of(known, text, receiver);
            known.vocabulary.signatures(call.name, kind.as_deref()).into_iter().map(String::from).collect()
        }
        _ => known.vocabulary.signatures(call.name, None).into_iter().map(String::from).collect(),
    };
    // The first form that has room for what is typed.
    let fits = |form: &&String| form.matches(": ").count() > call.commas || !form.contains(": ");
    let form = signatures.iter().find(fits).or(signatures.last())?;
    Some(format!("  {form}"))
}

/// Where the cursor is.
struct CursorPlace<'t> {
    text: &'t str,
    /// What of the word is typed.
    prefix: &'t str,
    /// What stands before that.
    before: Vec<Token>,
    sort: Sort<'t>,
}

enum Sort<'t> {
    /// In a comment.
    Nothing,
    /// In a string.
    Text,
    /// Behind a dot.
    Member,
    /// Behind `MODULE::`.
    Module(&'t str),
    /// A key of a map that is an argument of a function; and the keys that it has.
    Option(&'t str, BTreeSet<&'t str>),
    /// Anywhere else.
    Name,
}

impl<'t> CursorPlace<'t> {
    fn of(text: &'t str) -> CursorPlace<'t> {
        let mut before = tokens(text);
        let last = before.last().cloned().filter(|last| last.range.end == text.len());
        let place = |prefix, before, sort| CursorPlace { text, prefix, before, sort };
        let prefix = match last {
            Some(Token { kind: TokenKind::Comment { .. }, .. }) => return place("", before, Sort::Nothing),
            Some(Token { kind: TokenKind::Text { closed: false }, range }) => {
                before.pop();
                return place(&text[range.start + 1..], before, Sort::Text);
            }
            Some(Token { kind: TokenKind::Word, range }) => {
                before.pop();
                &text[range]
            }
            Some(Token { kind: TokenKind::Number, .. }) => return place("", before, Sort::Nothing),
            _ => "",
        };
        let sort = match before.as_slice() {
            // A range has two dots.
            [.., first, second] if is_pair(text, first, second, "..") => Sort::Name,
            [.., dot] if dot.kind == TokenKind::Symbol('.') => Sort::Member,
            [.., name, first, second] if is_path(text, first, second) => {
                word(text, name).map_or(Sort::Nothing, Sort::Module)
            }
            _ => option_place(text, &before).unwrap_or(Sort::Name),
        };
        place(prefix, before, sort)
    }
}

/// Tells whether two tokens are the two halves of `pair`.
fn is_pair(text: &str, first: &Token, second: &Token, pair: &str) -> bool {
    first.range.end == second.range.start && &text[first.range.start..second.range.end] == pair
}

fn is_path(text: &str, first: &Token, second: &Token) -> bool {
    is_pair(text, first, second, "::")
}

fn word<'t>(text: &'t str, token: &Token) -> Option<&'t str> {
    (token.kind == TokenKind::Word).then(|| &text[token.range.clone()])
}

/// Returns the place of the bracket that the end of `tokens` is in, and how many commas stand behind it.
fn open_bracket(tokens: &[Token]) -> Option<(usize, usize)> {
    let (mut depth, mut commas) = (0_usize, 0);
    for (at, token) in tokens.iter().enumerate().rev() {
        match token.kind {
            TokenKind::Symbol(')' | ']' | '}') => depth += 1,
            TokenKind::Symbol('(' | '[' | '{') if depth == 0 => return Some((at, commas)),
            TokenKind::Symbol('(' | '[' | '{') => depth -= 1,
            TokenKind::Symbol(',') if depth == 0 => commas += 1,
            _ => {}
        }
    }
    None
}

/// A call whose brackets are open.
struct Call<'t> {
    name: &'t str,
    name_at: usize,
    /// How many commas stand in its brackets so far.
    commas: usize,
}

impl<'t> Call<'t> {
    /// Finds the innermost call that the end of `tokens` is in.
    fn around(text: &'t str, tokens: &[Token]) -> Option<Call<'t>> {
        let mut end = tokens.len();
        loop {
            let (at, commas) = open_bracket(&tokens[..end])?;
            let name = at.checked_sub(1).and_then(|name_at| Some((name_at, word(text, &tokens[name_at])?)));
            match (tokens[at].kind, name) {
                (TokenKind::Symbol('('), Some((name_at, name))) if !KEYWORDS.contains(&name) => {
                    return Some(Call { name, name_at, commas });
                }
                // A block: what is around it is another statement's.
                (TokenKind::Symbol('{'), _) if at == 0 || tokens[at - 1].kind != TokenKind::Symbol('#') => return None,
                _ => end = at,
            }
        }
    }
}

/// Finds the function of whose options a key is to be typed: `f(x, #{ a: 1, |`.
fn option_place<'t>(text: &'t str, before: &[Token]) -> Option<Sort<'t>> {
    let (at, _) = open_bracket(before)?;
    let is_map = before[at].kind == TokenKind::Symbol('{') && at > 0 && before[at - 1].kind == TokenKind::Symbol('#');
    let is_key = before.last().is_some_and(|last| matches!(last.kind, TokenKind::Symbol('{' | ',')));
    if !is_map || !is_key {
        return None;
    }
    let call = Call::around(text, &before[..at - 1])?;
    let keys = before[at..].windows(2).filter(|pair| pair[1].kind == TokenKind::Symbol(':'));
    Some(Sort::Option(call.name, keys.filter_map(|pair| word(text, &pair[0])).collect()))
}

/// Returns the script's word for the type of the expression that ends with `tokens`, as far as it can be told.
fn type_of(known: &Known, text: &str, tokens: &[Token]) -> Option<String> {
    let (last, before) = tokens.split_last()?;
    let opening = |close: &Token| {
        // The bracket that is open before this one closes is its own.
        open_bracket(before).map(|(at, _)| at).filter(|_| matches!(close.kind, TokenKind::Symbol(_)))
    };
    match last.kind {
        TokenKind::Word => {
            let name = &text[last.range.clone()];
            match before.last() {
                Some(dot) if dot.kind == TokenKind::Symbol('.') => known.vocabulary.result(name).map(String::from),
                _ => variable(known, name).map(|variable| variable.kind.clone()),
            }
        }
        TokenKind::Text { closed: true } => Some("string".into()),
        TokenKind::Symbol(']') => {
            let at = opening(last)?;
            let kind = type_of(known, text, &before[..at]);
            match kind.as_deref() {
                Some("Netns") => Some("Dev".into()),
                None if at == 0 || !matches!(before[at - 1].kind, TokenKind::Word | TokenKind::Symbol(')' | ']')) => {
                    Some("array".into())
                }
                _ => None,
            }
        }
        TokenKind::Symbol(')') => {
            let name = opening(last)?.checked_sub(1).and_then(|at| word(text, &before[at]))?;
            known.vocabulary.result(name).map(String::from)
        }
        _ => None,
    }
}

/// Tells whether values of a type have methods of the program.
fn is_handle(kind: &str) -> bool {
    matches!(kind, "Netns" | "Dev" | "Net" | "Ip" | "Error")
}

fn variable<'k>(known: &'k Known, name: &str) -> Option<&'k Variable> {
    known.variables.iter().find(|variable| variable.name == name)
}

/// Methods and properties of what stands before the dot; of a map, its keys too.
fn members(known: &Known, place: &CursorPlace<'_>) -> Vec<String> {
    let receiver = &place.before[..place.before.len() - 1];
    let kind = type_of(known, place.text, receiver);
    let mut found: Vec<String> = Vec::new();
    if let [.., last] = receiver
        && let Some(map) = word(place.text, last).and_then(|name| variable(known, name))
    {
        found.extend(map.keys.iter().filter(|key| key.chars().all(is_word)).cloned());
    }
    for callable in &known.vocabulary.callables {
        let fits = match &kind {
            Some(kind) => callable.receiver.as_ref() == Some(kind),
            // Of an unknown type: what handles have.
            None => callable.ours && callable.receiver.as_deref().is_some_and(is_handle),
        };
        if fits {
            found.push(match (callable.property, callable.alone) {
                (true, _) => callable.name.clone(),
                (false, true) => format!("{}()", callable.name),
                (false, false) => format!("{}(", callable.name),
            });
        }
    }
    // With a form that takes more, the brackets stay open.
    let open: BTreeSet<String> = found.iter().filter(|name| name.ends_with('(')).cloned().collect();
    found.retain(|name| name.strip_suffix(')').is_none_or(|name| !open.contains(name)));
    found
}

fn module<'k>(known: &'k Known, name: &str) -> impl Iterator<Item = (String, String)> + 'k {
    known.vocabulary.modules.get(name).into_iter().flatten().cloned()
}

fn options(known: &Known, function: &str, used: &BTreeSet<&str>) -> Vec<String> {
    let choices = known.vocabulary.options.get(function).into_iter().flatten();
    choices.filter(|choice| !used.contains(choice.name.as_str())).map(|choice| format!("{}: ", choice.name)).collect()
}

/// What can begin an expression: variables, functions that are no methods of a handle, modules, words of rhai.
fn names(known: &Known) -> Vec<String> {
    let free = known.vocabulary.callables.iter().filter(|callable| {
        let method = callable.receiver.as_deref().is_some_and(is_handle) && callable.signature.contains('.');
        !callable.property && if callable.ours { !method } else { callable.receiver.is_none() }
    });
    let called = |name: &String| format!("{name}(");
    let mut found: Vec<String> = free.map(|callable| called(&callable.name)).collect();
    found.extend(known.functions.iter().map(called));
    found.extend(known.variables.iter().map(|variable| variable.name.clone()));
    found.extend(known.imported.iter().map(|name| format!("{name}::")));
    found.extend(KEYWORDS.iter().chain(&VALUES).map(ToString::to_string));
    found.extend(["print(", "debug(", "type_of("].map(String::from));
    found
}

/// In a string: modules behind `import`, devices of the namespace behind `[`, else namespaces, devices and files.
fn in_text(known: &Known, place: &CursorPlace<'_>) -> (usize, Vec<String>) {
    let start = place.text.len() - place.prefix.len();
    let word_before = place.before.last().and_then(|last| word(place.text, last));
    if place.prefix.starts_with(['.', '/', '~']) {
        let (skipped, found) = files(place.prefix);
        return (start + skipped, found);
    }
    let found: Vec<String> = match place.before.last().map(|last| last.kind) {
        _ if word_before == Some("import") => known.vocabulary.modules.keys().cloned().collect(),
        Some(TokenKind::Symbol('[')) => {
            let receiver = place.before[..place.before.len() - 1].last().and_then(|last| word(place.text, last));
            let netns = receiver.and_then(|name| variable(known, name)).and_then(|variable| variable.netns.as_ref());
            match netns.and_then(|netns| known.devs.get(netns)) {
                Some(devs) => devs.clone(),
                None => known.devs.values().flatten().cloned().collect(),
            }
        }
        _ => known.devs.iter().flat_map(|(netns, devs)| devs.iter().chain([netns])).cloned().collect(),
    };
    (start, fitting(found, place.prefix))
}

/// Returns the files that a path could mean, and how many bytes of it stand.
fn files(path: &str) -> (usize, Vec<String>) {
    let skipped = path.rfind('/').map_or(0, |at| at + 1);
    let (dir, prefix) = path.split_at(skipped);
    let entries = std::fs::read_dir(if dir.is_empty() { "." } else { dir }).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        Some(if entry.path().is_dir() { format!("{name}/") } else { name })
    };
    let mut found: Vec<String> = entries.filter_map(name).collect();
    found.retain(|name| !name.starts_with('.') || prefix.starts_with('.'));
    (skipped, fitting(found, prefix))
}

fn command(known: &Known, text: &str) -> (usize, Vec<String>) {
    let start = text.len() - text.trim_start().len();
    let Some((name, argument)) = text[start..].split_once(char::is_whitespace) else {
        return (start, fitting(COMMANDS.iter().map(|command| command.name.to_string()).collect(), &text[start..]));
    };
    let argument = argument.trim_start();
    let at = text.len() - argument.len();
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else { return (at, Vec::new()) };
    let found = match command.takes {
        Takes::File => {
            let (skipped, found) = files(argument);
            return (at + skipped, found);
        }
        Takes::Netns => known.devs.keys().cloned().collect(),
        Takes::Switch => vec!["on".into(), "off".into()],
        Takes::Topic => {
            let commands = COMMANDS.iter().map(|command| command.name.to_string());
            let ours = known.vocabulary.callables.iter().filter(|callable| callable.ours);
            ours.map(|callable| callable.name.clone()).chain(commands).collect()
        }
        Takes::Nothing | Takes::Count => Vec::new(),
    };
    (at, fitting(found, argument))
}

fn fitting(mut found: Vec<String>, prefix: &str) -> Vec<String> {
    found.retain(|word| word.starts_with(prefix));
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests;
