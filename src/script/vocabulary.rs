//! What can be written where: the catalogue, made ready for completion and hints. Plain data, which any thread can hold.

use std::collections::BTreeMap;

use super::catalog;
use super::sources::{self, Dirs};
use crate::prim::GROUPS;

/// Words of rhai that begin something.
pub const KEYWORDS: [&str; 21] = [
    "let", "const", "if", "else", "for", "in", "while", "loop", "do", "until", "break", "continue", "return", "fn",
    "switch", "try", "catch", "throw", "import", "as", "private",
];
/// Words of rhai that are values.
pub const VALUES: [&str; 3] = ["true", "false", "this"];

/// A form of a function or property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callable {
    /// Its name.
    pub name: String,
    /// The script's word for the type of its first argument: what stands before the dot.
    pub receiver: Option<String>,
    /// Whether it is a property, which takes no brackets.
    pub property: bool,
    /// Whether it takes no more than what stands before the dot, or nothing at all.
    pub alone: bool,
    /// The script's word for the type of its result; empty where that is not known.
    pub result: String,
    /// How it is called.
    pub signature: String,
    /// Whether it is of the program, and not of rhai.
    pub ours: bool,
}

/// An option of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub what: String,
}

/// All that a script can write.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// The forms of functions and properties, in the order of their names.
    pub callables: Vec<Callable>,
    /// The options of each function.
    pub options: BTreeMap<String, Vec<Choice>>,
    /// The functions of each module that can be imported: their names and how they are called.
    pub modules: BTreeMap<String, Vec<(String, String)>>,
}

impl Vocabulary {
    /// Collects what the engine and the library have.
    pub fn collect(dirs: &Dirs) -> Vocabulary {
        let engine = super::engine::bare();
        let ours: std::collections::BTreeSet<String> =
            catalog::primitives().into_iter().map(|entry| entry.name.trim_start_matches('.').to_string()).collect();
        let callable = |info: rhai::FuncInfo| {
            let meta = &info.metadata;
            let name = meta.name.strip_prefix("get$").unwrap_or(&meta.name);
            let public = catalog::is_public(&meta.name) && name != "index$get$";
            let params = catalog::params(&meta.params_info);
            let receiver = params.first().and_then(|first| first.rsplit_once(": ")).map(|(_, kind)| kind.to_string());
            public.then(|| Callable {
                property: name.len() != meta.name.len(),
                alone: params.len() <= 1,
                signature: catalog::signature(&meta.name, &params, &meta.return_type),
                result: catalog::shown_type(&meta.return_type).to_string(),
                ours: ours.contains(name),
                name: name.to_string(),
                receiver,
            })
        };
        let mut callables = engine.collect_fn_metadata(None, callable, true);
        callables.sort_by(|a, b| {
            (&a.name, a.signature.len(), &a.signature).cmp(&(&b.name, b.signature.len(), &b.signature))
        });
        callables.dedup();
        let choices = |set: &crate::prim::OptionSet| {
            let choice =
                |option: &crate::prim::OptionDoc| Choice { name: option.name.into(), what: option.what.into() };
            (set.function.to_string(), set.options.iter().map(choice).collect())
        };
        let mut modules: BTreeMap<String, Vec<(String, String)>> =
            sources::module_names(dirs).into_iter().map(|name| (name, Vec::new())).collect();
        for entry in catalog::library(dirs) {
            let signature = entry.signatures.last().cloned().unwrap_or_default();
            modules.entry(entry.group).or_default().push((entry.name, signature));
        }
        Vocabulary { callables, options: GROUPS.iter().flat_map(|group| group.options).map(choices).collect(), modules }
    }

    /// Returns how a function is called, the shortest form first; of methods, those of the type that stands before the dot.
    pub fn signatures(&self, name: &str, receiver: Option<&str>) -> Vec<&str> {
        let fits = |callable: &&Callable| {
            callable.name == name
                && !callable.property
                && receiver.is_none_or(|kind| callable.receiver.as_deref().is_none_or(|known| known == kind))
        };
        self.callables.iter().filter(fits).map(|callable| callable.signature.as_str()).collect()
    }

    /// Returns the type of what a function or a property gives, where all its forms agree.
    pub fn result(&self, name: &str) -> Option<&str> {
        let mut results =
            self.callables.iter().filter(|callable| callable.name == name).map(|callable| &callable.result);
        let first = results.next()?;
        (!first.is_empty() && results.all(|other| other == first)).then_some(first)
    }
}
