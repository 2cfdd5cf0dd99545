//! The keys of the maps that functions return, as their documentation has them, and reads of other keys.

use std::collections::BTreeMap;

use super::catalog::{self, Entry};
use super::lexer;
use super::sources::{self, Dirs};
use super::typos::{self, Typo};
use super::words::Words;
use crate::state::{Error, Spot, name};

/// The functions that return a map with known keys, as a script calls them: `ping`, `lan::star`.
pub(super) type ResultFunctions = BTreeMap<String, Vec<String>>;

/// Methods that leave the map as it is on which they are called.
const READING: &[&str] =
    &["len", "is_empty", "keys", "values", "contains", "get", "filter", "map", "to_json", "to_string"];

/// Functions that change the map that is their first argument.
const CHANGING: &[&str] = &["set", "remove", "clear", "mixin", "fill_with", "drain", "retain"];

/// Returns the keys that the documentation of a function names as those of its result, or that of the one of `others` to which it refers.
pub fn result_keys(entry: &Entry, others: &[Entry]) -> Option<Vec<String>> {
    let find = |entry: &Entry| paragraphs(entry).find_map(|text| keys_of(text));
    find(entry).or_else(|| {
        let same = paragraphs(entry).find_map(|text| same_as(text))?;
        others.iter().find(|other| other.full_name() == same).and_then(find)
    })
}

fn paragraphs(entry: &Entry) -> impl Iterator<Item = &String> {
    std::iter::once(&entry.doc.about).chain(&entry.doc.more)
}

/// Returns the function whose result a paragraph refers to: "Returns what `topology::graph` returns."
fn same_as(paragraph: &str) -> Option<&str> {
    let (_, behind) = paragraph.split_once("eturns what `")?;
    behind.split_once("` returns").map(|(name, _)| name).filter(|name| !name.contains('`'))
}

/// Returns the keys that a paragraph names: a sentence has "returns", and then `#{ ok, sent, hops: [#{ ip }] }` between backticks.
fn keys_of(paragraph: &str) -> Option<Vec<String>> {
    let behind = |sentence: &'_ str| sentence.split_once("eturns ").map(|(_, behind)| behind.to_string());
    let map = paragraph.split(". ").filter_map(behind).find_map(|behind| {
        behind.split('`').skip(1).step_by(2).find(|code| code.starts_with("#{")).map(String::from)
    })?;
    let map = map.as_str();
    let words = Words::of(map);
    let end = words.closing(1)?;
    let mut keys = Vec::new();
    let mut at = 2;
    while at < end {
        keys.push(words.word(at)?.to_string());
        // The value of a key, where its parts are named too.
        at = words.next_comma(at, end) + 1;
    }
    Some(keys)
}

/// Returns the functions that a script can call whose results have known keys.
pub(super) fn known(words: &Words<'_>, script: &str, dirs: &Dirs) -> ResultFunctions {
    let primitives = catalog::primitives();
    let keys_of = |entry: &Entry| Some((entry.name.clone(), result_keys(entry, &primitives)?));
    let mut results: ResultFunctions = primitives.iter().filter_map(keys_of).collect();
    for (path, alias) in words.aliases() {
        let Ok(module) = sources::module(dirs, Some(script), path) else { continue };
        let entries = catalog::entries_of_module(path, &module.text);
        for entry in &entries {
            let keys = result_keys(entry, &entries);
            results.extend(keys.map(|keys| (format!("{alias}::{}", entry.name), keys)));
        }
    }
    // What the script defines itself is another function, and so is a closure that it puts into a map.
    for (name, _) in words.functions() {
        results.remove(name);
    }
    for at in 0..words.tokens.len() {
        let is_given = words.is(at + 1, ':') || words.is(at + 1, '=');
        if is_given && (words.is(at + 2, '|') || words.word(at + 2) == Some("Fn")) {
            words.word(at).map(|name| results.remove(name));
        }
    }
    results
}

/// Finds keys that the result of a function doesn't have.
pub(super) fn wrong_keys(words: &Words<'_>, results: &ResultFunctions) -> Vec<Typo> {
    let mut found = Vec::new();
    for variable in typos::declared(words) {
        let Some((function, keys)) = called(words, variable.value).and_then(|called| results.get_key_value(&called))
        else {
            continue;
        };
        if variable.places.iter().any(|at| may_change(words, *at)) {
            continue;
        }
        let known = |key: &str| keys.iter().any(|known| known == key);
        for (at, key) in typos::read_of(words, &variable.places).filter(|(_, key)| !known(key)) {
            let error = Error::invalid(format!(
                "unknown property `{}` of `{}`, which `{function}` returned",
                name::shown(key),
                variable.name
            ));
            found.push(Typo { at, error: error.hint(typos::of_keys(key, keys.iter().map(String::as_str))) });
        }
    }
    found.extend((0..words.tokens.len()).filter_map(|dot| wrong_key_of_call(words, dot, results)));
    found.sort_by_key(|typo| typo.at);
    found
}

/// Finds the key that the result of a call doesn't have, where it is read behind the call: `okk` of `h.ping("x").okk`.
fn wrong_key_of_call(words: &Words<'_>, dot: usize, results: &ResultFunctions) -> Option<Typo> {
    let close = dot.checked_sub(1).filter(|close| words.is(dot, '.') && words.is(*close, ')'))?;
    let key = words.word(dot + 1).filter(|_| !words.is(dot + 2, '('))?;
    let function = function_of(words, words.chain_before(dot)?, close)?;
    let keys = results.get(&function).filter(|keys| !keys.iter().any(|known| known == key))?;
    let error = Error::invalid(format!("unknown property `{}` of what `{function}` returned", name::shown(key)));
    let hint = typos::of_keys(key, keys.iter().map(String::as_str));
    Some(Typo { at: words.tokens[dot + 1].range.start, error: error.hint(hint) })
}

/// Says which keys there are, where a place reads one that the result of a function doesn't have.
pub(super) fn hint_at(text: &str, spot: &Spot, dirs: &Dirs) -> Option<String> {
    let words = Words::whole(text);
    let results = known(&words, &spot.source, dirs);
    let is_there = |typo: &Typo| {
        let at = lexer::position_at(text, typo.at);
        (at.line(), at.position()) == (Some(spot.line), Some(spot.column))
    };
    let typo = wrong_keys(&words, &results).into_iter().find(is_there)?;
    typo.error.hint_text().map(Into::into)
}

/// Returns the function whose result is the value that begins at a place and ends its statement: `ping` of `h.ping("x");`.
fn called(words: &Words<'_>, value: usize) -> Option<String> {
    let end = words.end_of_statement(value)?;
    let close = end.checked_sub(1).filter(|close| words.is(*close, ')'))?;
    function_of(words, value, close)
}

/// Returns the function whose call makes up all from `value` to the bracket `close`.
fn function_of(words: &Words<'_>, value: usize, close: usize) -> Option<String> {
    let open = (value..close).find(|open| words.is(*open, '(') && words.closing(*open) == Some(close))?;
    let at = open.checked_sub(1)?;
    let name = words.word(at)?;
    if at == value {
        return Some(name.to_string());
    }
    let before = at.checked_sub(1)?;
    if words.is(before, '.') {
        let is_whole = words.chain_before(before) == Some(value) && !(value..before).any(|at| words.is(at, '?'));
        return is_whole.then(|| name.to_string());
    }
    let is_of_module = words.is(before, ':') && before == value + 2 && words.is(value + 1, ':');
    Some(format!("{}::{name}", words.word(value).filter(|_| is_of_module)?))
}

/// Tells whether a map may have other keys after what is done with it at a place.
fn may_change(words: &Words<'_>, at: usize) -> bool {
    let before = |sign| at.checked_sub(1).is_some_and(|before| words.is(before, sign));
    // The name of something else: a property, a key, a module.
    if before('.') || before(':') && at > 1 && words.is(at - 2, ':') {
        return false;
    }
    if before('(') {
        let function = at.checked_sub(2).and_then(|at| words.word(at));
        if function.is_some_and(|function| CHANGING.contains(&function)) {
            return true;
        }
    }
    if words.is(at + 1, '[') {
        return words.closing(at + 1).is_none_or(|end| words.is_assigned(end + 1));
    }
    if words.is(at + 1, '.') {
        let is_call = words.is(at + 3, '(');
        let reads = words.word(at + 2).is_some_and(|method| READING.contains(&method));
        return if is_call { !reads } else { words.is_assigned(at + 3) };
    }
    words.is_assigned(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let words = Words::whole(text);
        let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
        let results = [
            ("ping".to_string(), keys(&["ok", "sent"])),
            ("exec".to_string(), keys(&["code"])),
            ("lan::star".to_string(), keys(&["hosts"])),
        ];
        let typos = wrong_keys(&words, &results.into());
        typos.iter().map(|typo| text[typo.at..].chars().take_while(|c| c.is_alphanumeric()).collect()).collect()
    }

    #[test]
    fn the_keys_are_read_from_the_documentation() {
        let keys = |about| keys_of(about).map(|keys| keys.join(" "));
        assert_eq!(keys("Pings and returns `#{ ok, sent }`: it.").as_deref(), Some("ok sent"));
        assert_eq!(keys("Returns `#{ ok, hops: [#{ hop, ip }], why }`.").as_deref(), Some("ok hops why"));
        assert_eq!(keys("Takes `#{ ok }`, and returns nothing."), None);
        assert_eq!(keys("Returns `x`."), None);
        assert_eq!(keys("It is ready when the call returns. It answers `#{ name }`."), None);
        assert_eq!(keys("Returns `#{ a: ` b"), None);
    }

    #[test]
    fn keys_that_a_result_lacks_are_found() {
        for (text, word) in [
            ("let p = h.ping(\"x\"); p.okk", "okk"),
            ("fn f(h) { let p = h[\"a\"].b(1).ping(\"x\", #{ a: 1 }); p.len() + p.lost } fn g(p) { p.lost }", "lost"),
            ("fn f(h) { let p = h.ping(1); p.ok } fn g(h) { let p = h.exec(\"x\"); p.ok }", "ok"),
            ("let p = ping(h, \"x\"); print(`${p.okk} ${p.sent}`);", "okk"),
            ("let s = lan::star(1); check(\"x\", s.hsts[0].ping(2));", "hsts"),
            ("let p = h.ping(1); l.map(|x| p.lst + x); fn f(p) { p.x = 1; }", "lst"),
            ("if a { let p = h.ping(1); p.no; } else { let p = #{}; p.no }", "no"),
            ("const P = h.exec(\"x\"); if P.cod == 0 { 1 }", "cod"),
            ("if h.ping(\"x\").okk { 1 }", "okk"),
            ("fn f(h) { check(\"x\", h[\"a\"].ping(1, #{ a: h.exec(1).code }).lost == 0) }", "lost"),
            ("print(`${h.exec(\"x\").cod}`);", "cod"),
            ("let n = lan::star(1).hsts.len();", "hsts"),
            ("l.filter(|h| !h.ping(1).okk)", "okk"),
            ("let p = ping(h, 1).sentt;", "sentt"),
            ("return h.ping(1).okk;", "okk"),
            ("let m = #{ a: h.ping(1).okk };", "okk"),
        ] {
            assert_eq!(found(text), [word], "{text}");
        }
    }

    #[test]
    fn what_may_have_got_other_keys_is_left_alone() {
        for text in [
            "let p = h.ping(1); p.ok + p.sent + p.len()",
            "let p = h.ping(1); p = #{}; p.x",
            "let p = h.ping(1); p.x = 1; p.x",
            "let p = h.ping(1); p.x += 1; p.x",
            "let p = h.ping(1); p[\"x\"] = 1; p.x",
            "let p = h.ping(1); p += #{ x: 1 }; p.x",
            "let p = h.ping(1); p.set(\"x\", 1); p.x",
            "let p = h.ping(1); set(p, \"x\", 1); p.x",
            "let p = h.ping(1); p.own(); p.x",
            "let p = h.ping(1) + #{ x: 1 }; p.x",
            "let p = h.ping(1).ok; p.x",
            "let p = if a { h.ping(1) }; p.x",
            "let p = h?.ping(1); p.x",
            "let p = other::ping(1); p.x",
            "let p = h.ping(1); { let p = #{ x: 1 }; p.x }",
            "let p = h.ping(1); l.map(|p| p.x)",
            "let p = h.ping(1); for p in l { p.x }",
            "let p = h.ping(1); try { f() } catch (p) { p.x }",
            "{ let p = h.ping(1); } let q = p.x;",
            "let p = h.ping(1); q.p.x; #{ p: 1 }; \"p.x\"; // p.x",
            "fn f() { let p = h.ping(1); } fn g(p) { p.x }",
            "let p = h.ping(1); fn g(p) { p.x }",
            "let p = h.ping(1); p?.x",
            "h.ping(1).ok; h.exec(1).code; lan::star(1).hosts[0].x; h.ping(1).len()",
            "h?.ping(1).x; h.ping(1)?.x; other::ping(1).x; h.pings(1).x",
            "(h.ping(1) + more).x; f(h.ping(1)).x; h.ping(1).ok.x; h.ping(1)[0].x",
            "for i in h.ping(1)..x { 1 }",
            "fn ping(x) { x }",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }

    proptest::proptest! {
        /// No text, however broken, makes it fail.
        #[test]
        fn any_text_is_looked_at(text in "(let |fn |p|q|h|ping|lan::star| = |=|\\[|\\]|#\\{|\\{|\\}|\\(|\\)|\\||,|;|:|\\.|\\?|\"|`|\\$\\{|\n|é)*") {
            found(&text);
            let _ = keys_of(&text);
        }
    }
}
