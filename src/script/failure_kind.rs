//! The sorts of failures: those of `lab`, those that only the language has, and those of `topo test`.

use std::fmt;

use crate::state::Kind;

/// Declares the sorts that are no `crate::state::Kind`, each with its word and what it says.
macro_rules! failure_kinds {
    ($(#[doc = $about:literal] $name:ident = $word:literal;)+) => {
        /// The sort of a failure: what `--json` and the marks of tests name it by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailureKind {
            /// An error of topo's own: scripts can catch it by its kind.
            Lab(Kind),
            $(#[doc = $about] $name,)+
        }

        /// Those that are no `crate::state::Kind`.
        const OTHERS: &[FailureKind] = &[$(FailureKind::$name),+];

        impl FailureKind {
            /// Returns its word.
            pub fn word(self) -> &'static str {
                match self {
                    FailureKind::Lab(kind) => kind.word(),
                    $(FailureKind::$name => $word,)+
                }
            }

            /// Returns what it says.
            fn about(self) -> &'static str {
                match self {
                    FailureKind::Lab(kind) => kind.about(),
                    $(FailureKind::$name => $about,)+
                }
            }
        }
    };
}

failure_kinds! {
    /// The script can't be read.
    Syntax = "syntax";
    /// There is no function, variable or module of this name.
    Unknown = "unknown";
    /// The script threw a value, and nothing caught it.
    Thrown = "thrown";
    /// The language refused: a wrong type, an unknown property, an index out of range.
    Script = "script";
    /// `topo` itself failed, which is a defect of it.
    Panic = "panic";
    /// In `topo test`: a line that must fail did not, or failed in another way.
    Mark = "mark";
    /// In `topo test`: something was left on the host.
    Leak = "leak";
    /// In `topo test`: the process that ran the test ended early.
    Died = "died";
    /// In `topo test`: the test took too long.
    Time = "time";
    /// In `topo test`: the test was meant to fail.
    Passed = "passed";
    /// In `topo test --no-skip`: the test was skipped.
    Skipped = "skipped";
}

impl FailureKind {
    /// Tells whether it is a kind of error that scripts can catch.
    pub fn is(self, kind: Kind) -> bool {
        self == FailureKind::Lab(kind)
    }
}

impl From<Kind> for FailureKind {
    fn from(kind: Kind) -> FailureKind {
        FailureKind::Lab(kind)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Writes the list for the reference.
pub(super) fn markdown() -> String {
    let row = |kind: FailureKind| format!("| `{kind}` | {} |\n", kind.about().trim());
    let caught: String = Kind::ALL.iter().map(|kind| row(FailureKind::Lab(*kind))).collect();
    let others: String = OTHERS.iter().map(|kind| row(*kind)).collect();
    format!(
        "\n## Kinds of errors\n\n`catch (e)` finds one of these words in `e.kind`, `fail` takes one, and `--json` has it as `error.kind`.\n\n\
         | kind | meaning |\n| --- | --- |\n{caught}\n\
         These are no errors of a primitive. Only `--json`, JUnit's XML and the marks of tests (`//~ kind: text`) have them.\n\n\
         | kind | meaning |\n| --- | --- |\n{others}"
    )
}

/// Returns the words that `e.kind` may be, as a sentence lists them.
pub(super) fn words() -> String {
    let mut words: Vec<String> = Kind::ALL.iter().map(|kind| format!("`{}`", kind.word())).collect();
    let last = words.pop().unwrap_or_default();
    format!("{} or {last}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word that stands for two sorts can't be told apart by who reads it.
    #[test]
    fn each_word_is_of_one_sort() {
        let all = Kind::ALL.iter().map(|kind| FailureKind::Lab(*kind)).chain(OTHERS.iter().copied());
        let mut words: Vec<&str> = all.map(FailureKind::word).collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert!(Kind::of_word("exhausted") == Some(Kind::Exhausted) && Kind::of_word("interrupted").is_none());
    }
}
