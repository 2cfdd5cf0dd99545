//! Keys: a kind, and a path of names that keep to the one rule.

use std::fmt;

use crate::state::error::Result;
use crate::state::name;

/// The key of a value: a kind such as `networks`, and names below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    kind: &'static str,
    names: Vec<String>,
}

impl Key {
    /// Makes the key of a whole kind, which can be locked and listed but has no value.
    pub fn kind(kind: &'static str) -> Key {
        Key { kind, names: Vec::new() }
    }

    /// Makes the key of what `name` is below this one; `invalid` where it breaks the rule for names.
    pub fn below(&self, name: &str) -> Result<Key> {
        name::check(self.kind, name)?;
        let mut names = self.names.clone();
        names.push(name.to_string());
        Ok(Key { kind: self.kind, names })
    }

    /// Returns the kind.
    pub fn kind_word(&self) -> &'static str {
        self.kind
    }

    /// Returns the names, the last one being the value's own.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the last name; empty for a whole kind.
    pub fn last(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }
}

/// Writes the key as a path: `networks/web`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        self.names.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::error::Kind;

    #[test]
    fn a_key_reads_as_a_path() {
        let key = Key::kind("endpoints").below("web").and_then(|key| key.below("c1")).expect("a key");
        assert_eq!((key.to_string().as_str(), key.last(), key.names().len()), ("endpoints/web/c1", "c1", 2));
    }

    #[test]
    fn n7_names_are_never_paths() {
        for bad in ["", ".", "..", "../x", "a/b", "line\nbreak", "a\0b", ".lock", &"n".repeat(128)] {
            let error = Key::kind("networks").below(bad).expect_err(bad);
            assert_eq!(error.kind(), Kind::Invalid, "{bad:?}");
            assert!(error.to_string().starts_with("networks name"), "{error}");
        }
        Key::kind("networks").below(&"n".repeat(127)).expect("the longest name");
    }
}
