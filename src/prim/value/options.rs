//! Options: the last argument of a primitive, a map whose keys are known. One declaration gives the parser, the errors
//! with the nearest name, the reference's table and what `topo check` knows.

use rhai::{Dynamic, Map};

use super::units::FromScript;
use crate::state::{Error, Result, name};

/// One option, for the reference.
#[derive(Debug, Clone, Copy)]
pub struct OptionDoc {
    /// Its key.
    pub name: &'static str,
    /// What its value is.
    pub what: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Reads a value as the option's type; the error says what is wrong beyond `what`, or nothing.
    pub read: fn(Dynamic) -> std::result::Result<(), String>,
}

/// The options of one function.
#[derive(Debug, Clone, Copy)]
pub struct OptionSet {
    /// The function.
    pub function: &'static str,
    /// Its options.
    pub options: &'static [OptionDoc],
}

impl OptionSet {
    /// Checks that `key` is one of the options; the error names the nearest one, or all.
    pub fn check_key(&self, key: &str) -> Result<()> {
        if self.options.iter().any(|option| option.name == key) {
            return Ok(());
        }
        let error = Error::invalid(format!("unknown option `{}` of `{}`", name::shown(key), self.function));
        Err(match name::nearest(key, self.options.iter().map(|option| option.name)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => {
                let known: Vec<String> = self.options.iter().map(|option| format!("`{}`", option.name)).collect();
                error.hint(format!("it has {}", known.join(", ")))
            }
        })
    }

    /// Checks that all keys of a map are options.
    pub fn check_keys(&self, map: &Map) -> Result<()> {
        map.keys().try_for_each(|key| self.check_key(key))
    }

    /// Checks that an option can have a value; one that is `()` counts as not given.
    pub fn check_value(&self, key: &str, value: Dynamic) -> Result<()> {
        let Some(option) = self.options.iter().find(|option| option.name == key) else { return Ok(()) };
        let kept = Kept::of(&value);
        let read = if value.is_unit() { Ok(()) } else { (option.read)(value) };
        read.map_err(|because| self.wrong(key, option.what, kept, &because))
    }

    /// Takes an option's value out of the map, as its type; one that is `()` counts as not given.
    pub fn take<T: FromScript>(&self, map: &mut Map, key: &str) -> Result<Option<T>> {
        let Some(value) = map.remove(key).filter(|value| !value.is_unit()) else { return Ok(None) };
        let kept = Kept::of(&value);
        T::from_script(value).map(Some).map_err(|because| self.wrong(key, T::WHAT, kept, &because))
    }

    fn wrong(&self, key: &str, what: &str, got: Kept, because: &str) -> Error {
        let because = if because.is_empty() { String::new() } else { format!(" ({because})") };
        Error::invalid(format!("option `{key}` of `{}`", self.function))
            .because(format!("expected {what}, got {}{because}", got.shown()))
    }
}

/// What of a value a message would show: few values are wrong, and a text of each would be made for nothing.
pub(super) enum Kept {
    /// One that costs nothing to copy.
    Value(Dynamic),
    /// The text of any other one.
    Shown(String),
}

impl Kept {
    pub(in crate::prim) fn of(value: &Dynamic) -> Kept {
        match value.is_string() || value.is_int() || value.is_bool() {
            true => Kept::Value(value.clone()),
            false => Kept::Shown(shown_value(value)),
        }
    }

    pub(in crate::prim) fn shown(self) -> String {
        match self {
            Kept::Value(value) => shown_value(&value),
            Kept::Shown(shown) => shown,
        }
    }
}

/// Returns a value for a message: a string in quotes, a number as it is, anything else by its type.
pub fn shown_value(value: &Dynamic) -> String {
    match value.read_lock::<rhai::ImmutableString>() {
        Some(text) => format!("{:?}", name::shown(&text)),
        None if value.is_int() || value.is_bool() || value.is_float() => value.to_string(),
        None => format!("a value of type {}", value.type_name().rsplit("::").next().unwrap_or("unknown")),
    }
}

/// Declares the options of a primitive: a struct of `Option`s, its `SET`, and `parse`.
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident of $function:literal {
            $( $(#[doc = $doc:literal])+ $field:ident : $type:ty ),+ $(,)?
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Default, Clone)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: Option<$type>, )+
        }

        impl $name {
            /// The options as the reference and `topo check` know them.
            pub const SET: $crate::prim::OptionSet = $crate::prim::OptionSet {
                function: $function,
                options: &[$($crate::prim::OptionDoc {
                    name: stringify!($field),
                    what: <$type as $crate::prim::value::units::FromScript>::WHAT,
                    doc: concat!($($doc),+),
                    read: |value| <$type as $crate::prim::value::units::FromScript>::from_script(value).map(drop),
                }),+],
            };

            /// Reads the options out of a script's map.
            pub fn parse(mut map: rhai::Map) -> $crate::state::Result<$name> {
                Self::SET.check_keys(&map)?;
                Ok($name { $($field: Self::SET.take(&mut map, stringify!($field))?),+ })
            }
        }
    };
}
pub(in crate::prim) use options;
