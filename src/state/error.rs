//! What goes wrong, as a person needs it: what was attempted, why it failed, where it was asked for, and what to do next.

use std::fmt;

use serde::Serialize;

use super::place::Place;
use crate::net;

/// Declares the kinds of errors, each with its word and what it says. The reference lists them from here.
macro_rules! kinds {
    ($($(#[doc = $about:literal])+ $name:ident = $word:literal;)+) => {
        /// The sort of an error: what a script's `catch` can tell apart, and what the exit code is chosen by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub enum Kind {
            $($(#[doc = $about])+ #[serde(rename = $word)] $name,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),+];

            /// Returns the word that scripts compare with: `e.kind == "exists"`.
            pub fn word(self) -> &'static str {
                match self { $(Kind::$name => $word),+ }
            }

            /// Returns what it says.
            pub fn about(self) -> &'static str {
                match self { $(Kind::$name => concat!($($about),+)),+ }
            }
        }
    };
}

kinds! {
    /// A value that can't be right: malformed, out of range, of the wrong type, an unknown option.
    Invalid = "invalid";
    /// The name, address or object is already there.
    Exists = "exists";
    /// A thing that was named isn't there.
    Missing = "missing";
    /// A handle whose thing was removed, or never came to be.
    Gone = "gone";
    /// Something else holds it, such as another run of the same lab.
    Busy = "busy";
    /// There is none left: every address of a pool is leased.
    Exhausted = "exhausted";
    /// The rights for it are missing.
    Denied = "denied";
    /// The kernel or the machine lacks the feature.
    Unsupported = "unsupported";
    /// The kernel refused for a reason of its own.
    Kernel = "kernel";
    /// A deadline passed.
    Timeout = "timeout";
    /// An `assert`, a `check` or a command failed.
    Failed = "failed";
    /// A state file is damaged, or others could have written it.
    State = "state";
    /// Ctrl-C, SIGTERM or SIGHUP ended it; a script can neither catch nor raise it.
    Interrupted = "interrupted";
}

impl Kind {
    /// Returns the kind that a script names; it can raise each but an interruption.
    pub fn of_word(word: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| *kind != Kind::Interrupted && kind.word() == word)
    }
}

/// An error with its kind, its cause, the place in the script that asked for it, and a hint.
#[derive(Debug, Clone)]
pub struct Error(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: Kind,
    doing: String,
    because: Option<String>,
    hint: Option<String>,
    place: Option<Place>,
    also: Vec<String>,
}

/// What the functions of this layer return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error of `kind`; `doing` says what was attempted, lower case, names in backticks, no period.
    pub fn new(kind: Kind, doing: impl Into<String>) -> Error {
        Error(Box::new(Parts { kind, doing: doing.into(), because: None, hint: None, place: None, also: Vec::new() }))
    }

    /// Makes an error for a value that can't be right.
    pub fn invalid(doing: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, doing)
    }

    /// Makes an error out of the kernel's refusal, with the kind that its errno stands for.
    pub fn kernel(doing: impl Into<String>, source: &net::Error) -> Error {
        let kind = if source.is_exists() {
            Kind::Exists
        } else if source.is_denied() {
            Kind::Denied
        } else if source.is_unsupported() {
            Kind::Unsupported
        } else if source.is_gone() {
            Kind::Missing
        } else if source.errno() == libc::ETIMEDOUT {
            Kind::Timeout
        } else if source.errno() == libc::EINTR {
            Kind::Interrupted
        } else {
            Kind::Kernel
        };
        let error = Error::new(kind, doing);
        // The errno's own text would be about a system call.
        if kind == Kind::Interrupted { error.because("the run was interrupted") } else { error.because(source) }
    }

    /// Makes an error out of a failed operation on a file.
    pub fn file(doing: impl Into<String>, source: &std::io::Error) -> Error {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::Missing,
            std::io::ErrorKind::PermissionDenied => Kind::Denied,
            std::io::ErrorKind::AlreadyExists => Kind::Exists,
            _ => Kind::State,
        };
        Error::new(kind, doing).because(net::io_text(source))
    }

    /// Adds the cause.
    pub fn because(mut self, cause: impl fmt::Display) -> Error {
        self.0.because = Some(cause.to_string());
        self
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Spells the cause and the hint in another way; what was attempted, which has the user's own names, stays.
    pub fn respelt(mut self, spell: impl Fn(String) -> String) -> Error {
        self.0.because = self.0.because.map(&spell);
        self.0.hint = self.0.hint.map(spell);
        self
    }

    /// Adds the place in the script, unless one is known already: the first one is the one that asked.
    pub fn at(mut self, place: &Place) -> Error {
        if self.0.place.is_none() && !place.is_empty() {
            self.0.place = Some(place.clone());
        }
        self
    }

    /// Adds further failures that were met on the way, such as those of an undo.
    pub fn also(mut self, errors: impl IntoIterator<Item = Error>) -> Error {
        self.0.also.extend(errors.into_iter().map(|error| error.to_string()));
        self
    }

    /// Makes one error out of several: the first, with the others beside it.
    pub fn joined(errors: impl IntoIterator<Item = Error>) -> Option<Error> {
        let mut errors = errors.into_iter();
        errors.next().map(|first| first.also(errors))
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the place in the script that asked for what failed.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// Returns the further failures.
    pub fn others(&self) -> &[String] {
        &self.0.also
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.doing)?;
        match &self.0.because {
            Some(because) => write!(f, ": {because}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Turns an error into a refusal, for a step: what it is about the step's own message says.
pub fn as_refusal(error: Error) -> net::Error {
    let errno = match error.kind() {
        Kind::Exists => libc::EEXIST,
        Kind::Missing | Kind::Gone => libc::ENOENT,
        Kind::Busy => libc::EBUSY,
        Kind::Denied => libc::EACCES,
        Kind::Timeout => libc::ETIMEDOUT,
        Kind::Invalid => libc::EINVAL,
        Kind::Unsupported => libc::EOPNOTSUPP,
        Kind::Interrupted => libc::EINTR,
        Kind::Exhausted => libc::ENOSPC,
        Kind::Kernel | Kind::Failed | Kind::State => libc::EIO,
    };
    let text = match error.hint_text() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    net::Error::new(error.0.doing.clone(), errno).saying(text)
}
