//! What to type instead: for those whose hands write another language, and for what rhai's own words don't explain.

use rhai::{Dynamic, Map, Scope};

use super::{catalog, typos};

/// Explains a reserved word where it stands: `print x`.
pub(super) fn reserved(word: &str, rest: &str) -> (String, String) {
    let behind = rest[word.len()..].trim_start();
    let is_call =
        ["print", "debug"].contains(&word) && behind.starts_with(|c: char| c.is_alphanumeric() || "\"`'_".contains(c));
    if is_call {
        let end = behind.find([';', '\n', '}']).unwrap_or(behind.len());
        return (
            format!("`{word}` is a function, and is called with brackets"),
            format!("write `{word}({})`", behind[..end].trim_end()),
        );
    }
    (format!("`{word}` is a reserved word"), "take another name for it".into())
}

/// Explains a text between single quotes, which are for one character.
pub(super) fn single_quotes(text: &str) -> String {
    format!("a text stands between double quotes, \"{text}\"; single ones are for one character")
}

/// Explains a value that is given to a variable which nobody has declared; nothing where `rest` gives none.
pub(super) fn undeclared(name: &str, rest: &str) -> Option<String> {
    let behind = rest.get(name.len()..)?.trim_start();
    let is_given = behind.starts_with('=') && !behind.starts_with("==");
    is_given.then(|| {
        format!("`let` declares a variable: `let {name} {}`", behind.split([';', '\n']).next().unwrap_or("").trim_end())
    })
}

/// Explains a module that was not imported.
pub(super) fn module(name: &str, known: &[String]) -> String {
    let import = |module: &str| {
        format!("import it first: `import \"{module}\" as {};`", module.rsplit('/').next().unwrap_or(module))
    };
    if known.iter().any(|module| module == name) {
        return import(name);
    }
    match crate::state::name::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? {}", import(near)),
        None => format!("`import \"…\" as {name};` names a module; the program has {}", known.join(", ")),
    }
}

/// Explains a condition that is neither true nor false.
pub(super) fn condition(kind: &str) -> (String, String) {
    let kind = catalog::shown_type(kind);
    let hint = match kind {
        "map" => "a key of it may be: `h.ping(…).ok`, `h.exec(…).code == 0`",
        "int" | "i64" => "compare it: `n != 0`",
        "string" => "compare it: `text != \"\"`",
        "array" => "compare it: `list.len() > 0`",
        "()" => "compare it: `value != ()`",
        _ => "compare it with something",
    };
    (format!("a condition is true or false, and this is of type `{kind}`"), hint.into())
}

/// Says which keys the map has whose property is unknown: the one that stands before a place of a line, if the script's own variables
/// hold it.
pub(super) fn keys(wanted: &str, before: &str, scope: &Scope<'_>) -> Option<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.' || c == '?';
    let chain = before.trim_end().strip_suffix('.')?;
    let begin =
        chain.rfind(|c: char| !is_part(c)).map_or(0, |at| at + chain[at..].chars().next().map_or(1, char::len_utf8));
    let mut names = chain[begin..].split('.').map(|name| name.trim_end_matches('?'));
    let mut value: Dynamic = scope.get(names.next()?)?.flatten_clone();
    for name in names {
        let next = value.read_lock::<Map>()?.get(name)?.flatten_clone();
        value = next;
    }
    let map = value.read_lock::<Map>()?;
    Some(typos::of_keys(wanted, map.keys().map(|key| key.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_brackets_is_told_from_a_name() {
        assert_eq!(reserved("print", "print x;").1, "write `print(x)`");
        assert_eq!(reserved("print", "print \"a\" }").1, "write `print(\"a\")`");
        assert_eq!(reserved("print", "print = 1").1, "take another name for it");
        assert_eq!(reserved("is", "is = 1").1, "take another name for it");
    }

    #[test]
    fn a_value_for_nobodys_variable_is_declared() {
        assert_eq!(undeclared("x", "x = 5;").as_deref(), Some("`let` declares a variable: `let x = 5`"));
        assert_eq!(undeclared("x", "x == 5"), None);
        assert_eq!(undeclared("x", "x + 5"), None);
    }

    #[test]
    fn the_keys_are_those_of_the_map_before_the_dot() {
        let mut scope = Scope::new();
        let inner: Map = [("ok".into(), Dynamic::TRUE), ("rtt".into(), Dynamic::UNIT)].into();
        scope.push("p", Map::from([("a".into(), Dynamic::from(inner))]));
        for before in ["if p.a.", "f(p.a?.", "p.a."] {
            assert_eq!(
                keys("okk", before, &scope).as_deref(),
                Some("did you mean `ok`? it has `ok`, `rtt`"),
                "{before}"
            );
        }
        for before in ["q.a.", "f(1).", "p.x.", "", "é."] {
            assert_eq!(keys("okk", before, &scope), None, "{before}");
        }
    }
}
