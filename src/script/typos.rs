//! What can't be right by a script's words alone, and what rhai takes in silence: a key that a constant map doesn't have, a property of
//! a namespace that would name a device, a variable in a plain string.

use std::collections::BTreeSet;

use super::lexer::TokenKind;
use super::words::Words;
use crate::prim;
use crate::state::{Error, name};

/// A mistake, and the byte where it stands.
#[derive(Clone)]
pub(super) struct Typo {
    /// Where it stands.
    pub(super) at: usize,
    /// What it is.
    pub(super) error: Error,
}

/// A variable that is given a value where it is declared, and no other one.
pub(super) struct Declared<'t> {
    /// Its name.
    pub(super) name: &'t str,
    /// The first word of its value.
    pub(super) value: usize,
    /// Where its name stands in its scope.
    pub(super) places: Vec<usize>,
    is_constant: bool,
}

/// Returns where a property of something is read: the bytes of the dots, or of `?.`, before a name that is not called. That is where
/// rhai says that the index is called which it takes for a property that there isn't.
pub(super) fn properties(words: &Words<'_>) -> Vec<usize> {
    let is_before_property =
        |dot: &usize| words.is(*dot, '.') && words.word(dot + 1).is_some() && !words.is(dot + 2, '(');
    let begin = |dot: usize| dot.checked_sub(1).filter(|before| words.is(*before, '?')).unwrap_or(dot);
    let dots = (0..words.tokens.len()).filter(is_before_property);
    dots.map(|dot| words.tokens[begin(dot)].range.start).collect()
}

/// Finds keys that a constant map doesn't have: rhai puts nothing in their place, before the script runs.
pub(super) fn in_constants(words: &Words<'_>) -> Vec<Typo> {
    let mut found = Vec::new();
    for constant in declared(words).iter().filter(|one| one.is_constant) {
        let Some(keys) = keys(words, constant.value) else { continue };
        for (at, key) in read_of(words, &constant.places).filter(|(_, key)| !keys.contains(*key)) {
            let error = Error::invalid(format!("unknown property `{}` of `{}`", name::shown(key), constant.name));
            found.push(Typo { at, error: error.hint(of_keys(key, keys.iter().copied())) });
        }
    }
    found
}

/// Finds what reads like a property of a namespace, and names a device.
pub(super) fn in_namespaces(words: &Words<'_>) -> Vec<Typo> {
    let all = declared(words);
    let is_namespace = |one: &&Declared<'_>| {
        let is_call = words.word(one.value).is_some_and(|word| ["netns", "netns_get"].contains(&word));
        // All of the value: what is called on the namespace returns something else.
        is_call && words.closing(one.value + 1).is_some_and(|end| words.is(end + 1, ';'))
    };
    let properties = prim::netns_properties();
    let mut found = Vec::new();
    let host: Vec<usize> = (0..words.tokens.len()).filter(|at| words.word(*at) == Some("host")).collect();
    // Another variable may have its name.
    let host = if host.iter().any(|at| may_be_set(words, *at, "host")) { Vec::new() } else { host };
    for places in all.iter().filter(is_namespace).map(|one| &one.places).chain([&host]) {
        let unknown = read_of(words, places).filter(|(_, key)| !properties.iter().any(|property| property == key));
        found.extend(unknown.map(|(at, key)| Typo { at, error: prim::no_netns_property(key) }));
    }
    found
}

/// Finds `${name}` in a plain string, where `name` is a variable of the script.
pub(super) fn in_strings(words: &Words<'_>) -> Vec<Typo> {
    let names: BTreeSet<&str> = declarations(words).map(|(_, name)| name).collect();
    let mut found = Vec::new();
    for token in &words.tokens {
        let text = &words.text[token.range.clone()];
        if !matches!(token.kind, TokenKind::Text { .. }) || !text.starts_with('"') {
            continue;
        }
        for (at, _) in text.match_indices("${") {
            let inside = &text[at + 2..];
            let Some(name) = inside.split_once('}').map(|(name, _)| name).filter(|name| names.contains(name)) else {
                continue;
            };
            // A variable of the shell's own.
            if is_set_by_shell(text, name) {
                continue;
            }
            let error = Error::invalid(format!("`${{{name}}}` in plain quotes stays as it is"));
            let hint = format!("between backticks the variable's value is put there: `…${{{name}}}…`");
            found.push(Typo { at: token.range.start + at, error: error.hint(hint) });
        }
    }
    found
}

/// Says which keys there are, the nearest first.
pub(super) fn of_keys<'k>(wanted: &str, keys: impl Iterator<Item = &'k str> + Clone) -> String {
    const SHOWN: usize = 12;
    let mut listed: Vec<String> = keys.clone().take(SHOWN).map(|key| format!("`{}`", name::shown(key))).collect();
    if keys.clone().nth(SHOWN).is_some() {
        listed.push("…".into());
    }
    let has = if listed.is_empty() { "it has no keys".into() } else { format!("it has {}", listed.join(", ")) };
    match name::nearest(wanted, keys) {
        Some(near) => format!("did you mean `{near}`? {has}"),
        None => has,
    }
}

/// Returns the keys of the map that begins at a place, where a statement ends with it.
fn keys<'t>(words: &Words<'t>, at: usize) -> Option<BTreeSet<&'t str>> {
    if !words.is(at, '#') || !words.is(at + 1, '{') {
        return None;
    }
    let end = words.closing(at + 1).filter(|end| words.is(end + 1, ';'))?;
    let (mut keys, mut depth) = (BTreeSet::new(), 0_usize);
    for place in at + 1..end {
        match words.tokens[place].kind {
            TokenKind::Symbol('(' | '[' | '{') => depth += 1,
            TokenKind::Symbol(')' | ']' | '}') => depth -= 1,
            TokenKind::Word | TokenKind::Text { .. } if depth == 1 && words.is(place + 1, ':') => {
                keys.insert(words.text[words.tokens[place].range.clone()].trim_matches('"'));
            }
            _ => {}
        }
    }
    Some(keys)
}

/// Returns where a property of the variable at some places is read, and its name.
pub(super) fn read_of<'w, 't>(
    words: &'w Words<'t>,
    places: &'w [usize],
) -> impl Iterator<Item = (usize, &'t str)> + use<'w, 't> {
    places.iter().copied().filter_map(move |at| {
        let before = |sign| at.checked_sub(1).is_some_and(|before| words.is(before, sign));
        // The name of a property, or of a module's constant; in a map, a value stands behind one colon.
        let is_alone = !(before('.') || before(':') && at > 1 && words.is(at - 2, ':'));
        if !is_alone || !words.is(at + 1, '.') || words.is(at + 3, '(') {
            return None;
        }
        // `T.key = 1` is an error of its own where `T` is a constant.
        let is_set = words.is(at + 3, '=') && !words.is(at + 4, '=');
        words.word(at + 2).filter(|_| !is_set).map(|key| (words.tokens[at + 2].range.start, key))
    })
}

/// Returns the places of all declarations, and their names: of variables, loops, parameters and closures' parameters.
fn declarations<'w, 't>(words: &'w Words<'t>) -> impl Iterator<Item = (usize, &'t str)> + use<'w, 't> {
    (1..words.tokens.len()).filter_map(move |at| {
        let word = words.word(at)?;
        let is_named = words.word(at - 1).is_some_and(|word| ["let", "const", "for"].contains(&word));
        is_named.then_some((at, word))
    })
}

/// Returns the variables that are given one value in their scope: from the declaration to the end of its block, without functions,
/// which don't see what is around them.
pub(super) fn declared<'t>(words: &Words<'t>) -> Vec<Declared<'t>> {
    let mut found = Vec::new();
    let functions = words.functions();
    let byte = |at: usize| words.tokens[at].range.start;
    for (at, name) in declarations(words) {
        let is_constant = words.word(at - 1) == Some("const");
        if words.word(at - 1) == Some("for") || !words.is(at + 1, '=') {
            continue;
        }
        let hides = |place| functions.iter().any(|(_, body)| body.contains(&byte(place)) && !body.contains(&byte(at)));
        let is_place = |place: &usize| words.word(*place) == Some(name) && !hides(*place);
        let places: Vec<usize> = (at + 1..words.end_of_block(at)).filter(is_place).collect();
        if !places.iter().any(|place| may_be_set(words, *place, name)) {
            found.push(Declared { name, value: at + 2, places, is_constant });
        }
    }
    found
}

/// Tells whether a name may get a value at a place: it is declared, it stands before `=`, or it is a parameter.
fn may_be_set(words: &Words<'_>, at: usize, name: &str) -> bool {
    if words.word(at) != Some(name) {
        return false;
    }
    let before = |sign| at.checked_sub(1).is_some_and(|before| words.is(before, sign));
    let is_declared = at
        .checked_sub(1)
        .and_then(|before| words.word(before))
        .is_some_and(|word| ["let", "const", "for", "as", "import"].contains(&word));
    let is_assigned = words.is(at + 1, '=') && !words.is(at + 2, '=') && !before('.');
    // Between the bars of a closure, or the brackets of `fn f(…)` and `catch (…)`: a name alone before a bar, a comma or a bracket.
    let ends = [',', '|', ')'].iter().any(|sign| words.is(at + 1, *sign));
    let is_parameter = ends && (before('|') || before(',') || before('(')) && is_in_parameters(words, at);
    is_declared || is_assigned || is_parameter
}

/// Tells whether a place is between the brackets of a function's parameters or the bars of a closure's.
fn is_in_parameters(words: &Words<'_>, at: usize) -> bool {
    let mut begin = at;
    while let Some(before) = begin.checked_sub(1) {
        begin = before;
        match words.tokens[begin].kind {
            TokenKind::Word | TokenKind::Symbol(',') => {}
            TokenKind::Symbol('|') => return true,
            TokenKind::Symbol('(') => {
                let word = |back: usize| begin.checked_sub(back).and_then(|at| words.word(at));
                return word(2) == Some("fn") || ["catch", "for"].iter().any(|opens| word(1) == Some(opens));
            }
            _ => return false,
        }
    }
    false
}

/// Tells whether a command in a string gives a variable its value itself.
fn is_set_by_shell(text: &str, name: &str) -> bool {
    [format!("{name}="), format!("for {name} "), format!("read {name}"), format!("read -r {name}")]
        .iter()
        .any(|sets| text.contains(sets.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(typos: &[Typo], text: &str) -> Vec<(String, String)> {
        let shown = |typo: &Typo| {
            let word = text[typo.at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).next();
            (word.unwrap_or("").to_string(), typo.error.hint_text().unwrap_or("").to_string())
        };
        typos.iter().map(shown).collect()
    }

    #[test]
    fn keys_that_a_constant_lacks_are_found() {
        for (text, word) in [
            ("const T = #{ name: 1 }; print(T.nmae);", "nmae"),
            ("const T = #{ a: #{ b: 1 }, \"c\": 2 }; T.b", "b"),
            ("const T = #{}; { `${T.x}` }", "x"),
            ("fn f() { const T = #{ a: 1 }; #{ b: T.x } } fn g() { const T = #{ x: 1 }; T.x }", "x"),
        ] {
            let typos = in_constants(&Words::whole(text));
            assert_eq!(found(&typos, text).len(), 1, "{text}");
            assert_eq!(found(&typos, text)[0].0, word, "{text}");
        }
        let text = "const T = #{ name: 1, mtu: 2 }; T.nmae";
        assert_eq!(found(&in_constants(&Words::of(text)), text)[0].1, "did you mean `name`? it has `mtu`, `name`");
        for text in [
            "const T = #{ a: 1, \"c\": 2 }; T.a + T.c + T.len() + x.T.b",
            "let T = #{ a: 1 }; T.b",
            "const T = #{ a: 1 }; fn f(T) { T.b }",
            "const T = #{ a: 1 }; l.map(|x, T| T.b)",
            "const T = #{ a: 1 }; { let T = g(); T.b }",
            "const T = #{ a: 1 } + other; T.b",
            "const T = #{ a: 1 }; \"T.b\"; // T.b",
        ] {
            assert!(in_constants(&Words::of(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_reads_like_a_property_of_a_namespace_is_found() {
        for text in [
            "let h = netns(\"h\"); h.nmae",
            "let h = netns_get(\"h\"); if h.mac == \"\" { 1 }",
            "host.eth0",
            "let h = netns(\"h\"); `a ${h.nmae}`",
        ] {
            assert_eq!(in_namespaces(&Words::whole(text)).len(), 1, "{text}");
        }
        for text in [
            "let h = netns(\"h\"); h.name; h[\"eth0\"].mac; h.exec(\"x\").code",
            "let h = netns(\"h\").exec(\"x\"); h.code",
            "let h = netns(\"h\"); h = #{}; h.a",
            "let h = netns(\"h\"); l.map(|h| h.a)",
            "fn f(h) { h.a } let h = netns(\"h\");",
            "let h = netns(\"h\"); for h in l { h.a }",
            "fn f(host) { host.a }",
            "for host in l { host.a }",
        ] {
            assert!(in_namespaces(&Words::of(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn variables_in_plain_quotes_are_found() {
        for text in ["let n = 1; print(\"h${n}\");", "for n in l { h.exec(\"echo ${n}\"); }"] {
            assert_eq!(in_strings(&Words::of(text)).len(), 1, "{text}");
        }
        for text in [
            "let n = 1; print(`h${n}`);",
            "h.exec(\"echo ${HOME}\")",
            "let n = 1; h.exec(\"for n in 1 2; do echo ${n}; done\")",
            "let n = 1; h.exec(\"n=2; echo ${n}\")",
        ] {
            assert!(in_strings(&Words::of(text)).is_empty(), "{text}");
        }
    }

    proptest::proptest! {
        /// No text, however broken, makes it fail.
        #[test]
        fn any_text_is_looked_at(text in "(const |let |fn |for |T|h|host| = |=|netns|#\\{|\\{|\\}|\\(|\\)|\\||,|;|:|\\.|\\?|\"|`|\\$\\{|\n|é)*") {
            let words = Words::whole(&text);
            for typo in [in_constants(&words), in_namespaces(&words), in_strings(&words)].concat() {
                proptest::prop_assert!(text.is_char_boundary(typo.at));
            }
            properties(&words);
        }
    }
}
