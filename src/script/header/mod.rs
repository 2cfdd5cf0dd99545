//! The header of a script: its leading `//!` comment documents it and declares its arguments.
//!
//! ```text
//! #!/usr/bin/env -S topo run
//! //! Two netns joined by a veth pair, with addresses, default routes and a ping.
//! //!
//! //! Longer prose, which `--help` shows as it is written.
//! //!
//! //! Arguments:
//! //!   [TARGET]             an optional positional; `TARGET` is required   [default: x]
//! //!   [FILE...]            the rest, zero or more; `FILE...` is one or more
//! //!   --subnet CIDR        an option with a value           [default: 172.18.0.0/24]
//! //!   --driver NAME        one of a list, and not optional  [possible: bridge, routed] [required]
//! //!                        (a description goes on below its first word)
//! //!   --label K=V...       an option that may be given more than once
//! //!   -v, --verbose        a flag
//! ```
//!
//! The block ends at an empty `//!` line. Two spaces part a declaration from its description, notes in brackets end a
//! line of it, and the placeholder word is the type: see [`ValueType`]. A line that fits nowhere is an error: an
//! argument that was declared is never taken for prose.

mod parse;
mod values;

#[cfg(test)]
mod tests;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

pub use values::ValueType;

/// The options of `topo run` itself, which a script cannot declare.
pub const RESERVED_OPTIONS: &[&str] = &["rm", "keep", "sandbox", "trace", "json", "name", "help"];

/// What a script's header says: its documentation and the arguments it declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The first paragraph, on one line.
    pub about: String,
    /// All prose before the arguments, as it was written.
    pub long: String,
    /// All prose behind the arguments, as it was written: examples, and what else `--help` shows last.
    pub after: String,
    /// The declared arguments, in the order of their declaration.
    pub arguments: Vec<Argument>,
}

/// One argument that a header declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The name that the script uses, an identifier of Rhai: `no_ping` for `--no-ping`.
    pub name: String,
    /// How it is given on the command line.
    pub kind: ArgumentKind,
    /// What its values are.
    pub value: ValueType,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it may be given more than once, so that the script gets an array.
    pub repeated: bool,
    /// The value where none is given.
    pub default: Option<String>,
    /// The only values allowed, or none for no such limit.
    pub possible: Vec<String>,
    /// The description, on one line, without its notes in brackets.
    pub help: String,
    /// The letter of its short form.
    pub short: Option<char>,
    /// The placeholder word, without brackets and dots; empty for a flag.
    pub placeholder: String,
}

/// The ways to give an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// By its place: `NAME`.
    Positional,
    /// By its name and a value: `--count N`.
    Option,
    /// By its name alone: `--verbose`.
    Flag,
}

/// A mistake in a script's header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct HeaderError {
    /// The line of the script, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Header {
    /// Reads the header of a script; a script without one has an empty header.
    ///
    /// A shebang line, empty lines and plain `//` comments may stand before it. Fails at the first line that declares
    /// an argument wrongly, twice, or out of order, or that is neither a declaration nor part of a description.
    pub fn parse(source: &str) -> Result<Header, HeaderError> {
        parse::header(source)
    }

    /// Makes the clap command that parses, completes and explains the arguments.
    ///
    /// The name is the whole command as the user types it, such as `topo veth-pair`, or the last word of it where the
    /// command becomes a subcommand. Each option's id is its name in the script, each positional's its placeholder, so
    /// ids of the caller's own need only differ from the options'.
    pub fn command(&self, name: impl Into<String>) -> Command {
        let (positionals, options): (Vec<_>, Vec<_>) =
            self.arguments.iter().partition(|argument| argument.kind == ArgumentKind::Positional);
        // No `bin_name`: clap makes that of the words before, and the completion of a subcommand hangs on it.
        let mut command = Command::new(name.into())
            .disable_version_flag(true)
            .args(options.into_iter().chain(positionals).map(Argument::to_clap));
        if !self.about.is_empty() {
            command = command.about(self.about.clone());
        }
        if self.long != self.about {
            command = command.long_about(self.long.clone());
        }
        if !self.after.is_empty() {
            command = command.after_long_help(self.after.clone());
        }
        command
    }

    /// Gives each declared argument's value by its name.
    ///
    /// A flag is a bool, `N` and `PORT` are numbers, a repeated argument is an array, and all else is text. What is
    /// absent and has no default is null, or an empty array where it may be repeated.
    pub fn values(&self, matches: &ArgMatches) -> Map<String, Value> {
        self.arguments.iter().map(|argument| (argument.name.clone(), argument.value_in(matches))).collect()
    }
}

impl Argument {
    fn id(&self) -> &str {
        // Placeholders are upper case, so that a positional `NAME` cannot meet a caller's own `name`.
        if self.kind == ArgumentKind::Positional { &self.placeholder } else { &self.name }
    }

    fn shown(&self) -> String {
        if self.kind == ArgumentKind::Positional { self.placeholder.clone() } else { format!("--{}", self.long()) }
    }

    fn long(&self) -> String {
        self.name.replace('_', "-")
    }

    fn to_clap(&self) -> Arg {
        let mut arg = Arg::new(self.id().to_owned()).help(self.help.clone()).short(self.short);
        if self.kind != ArgumentKind::Positional {
            arg = arg.long(self.long());
        }
        if self.kind == ArgumentKind::Flag {
            return arg.action(ArgAction::SetTrue);
        }
        if self.repeated {
            arg = arg.action(ArgAction::Append);
            if self.kind == ArgumentKind::Positional {
                arg = arg.num_args(1..);
            }
        }
        arg.value_name(self.placeholder.clone())
            .value_parser(self.value_parser())
            .value_hint(self.value.hint())
            .allow_negative_numbers(self.value == ValueType::Integer)
            .required(self.required)
            .default_values(self.default.clone())
    }

    fn value_parser(&self) -> ValueParser {
        let value = self.value;
        if self.possible.is_empty() {
            return ValueParser::new(move |text: &str| value.parse(text));
        }
        ValueParser::new(PossibleValuesParser::new(self.possible.clone()).try_map(move |text| value.parse(&text)))
    }

    fn value_in(&self, matches: &ArgMatches) -> Value {
        if self.kind == ArgumentKind::Flag {
            return Value::Bool(matches!(matches.try_get_one::<bool>(self.id()), Ok(Some(true))));
        }
        let mut values = matches.try_get_many::<Value>(self.id()).ok().flatten().into_iter().flatten().cloned();
        if self.repeated { Value::Array(values.collect()) } else { values.next().unwrap_or(Value::Null) }
    }
}
