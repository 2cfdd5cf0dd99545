//! The catalogue: everything that a script can call, with its documentation. Help, the reference, `topo check` and the
//! tests of the examples are all made from it; nobody keeps a list of functions by hand.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, Engine};

use super::failure_kind;
use super::sources::{self, Dirs};
use crate::prim::{GROUPS, Group, OptionSet};

/// A function that scripts can call.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The group, or the module that is imported for it.
    pub group: String,
    /// Whether it is in a module of the standard library.
    pub imported: bool,
    /// How it is called, a line for each form.
    pub signatures: Vec<String>,
    /// How many arguments each form takes.
    pub arities: BTreeSet<usize>,
    /// Its documentation.
    pub doc: Doc,
    /// The options that it takes in a map at the end.
    pub options: Option<&'static OptionSet>,
}

impl Entry {
    /// Returns the name by which a script writes it: with the module, where it is in one.
    pub fn full_name(&self) -> String {
        if self.imported { format!("{}::{}", self.group, self.name) } else { self.name.clone() }
    }

    /// Tells whether it is of a library module of this name.
    pub fn is_of_module(&self, module: &str) -> bool {
        self.imported && self.group == module
    }
}

/// The documentation of a function, in its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doc {
    /// What it does, in one paragraph whose first sentence says it.
    pub about: String,
    /// Further paragraphs.
    pub more: Vec<String>,
    /// What it is like: the commands of iproute2 or others that do the same.
    pub like: Option<String>,
    /// How it fails, by kind.
    pub fails: Option<String>,
    /// The example, which runs as a test.
    pub example: Option<String>,
}

/// Stands in a documentation comment for the list of the kinds of errors.
const KINDS: &str = "{kinds}";

impl Doc {
    /// Reads the lines of a documentation comment, without their `///`.
    pub fn parse(text: &str) -> Doc {
        let mut doc = Doc::default();
        let mut example: Option<Vec<&str>> = None;
        let mut paragraphs: Vec<String> = vec![String::new()];
        for line in text.lines() {
            match (&mut example, line.trim_end()) {
                (None, "```rhai") => example = Some(Vec::new()),
                (Some(lines), "```") => {
                    doc.example = Some(lines.join("\n"));
                    example = None;
                }
                (Some(lines), line) => lines.push(line),
                (None, "") => paragraphs.push(String::new()),
                (None, line) => {
                    if let Some(paragraph) = paragraphs.last_mut() {
                        if !paragraph.is_empty() {
                            paragraph.push(' ');
                        }
                        paragraph.push_str(&line.trim().replace(KINDS, &failure_kind::words()));
                    }
                }
            }
        }
        for paragraph in paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty()) {
            if doc.about.is_empty() {
                doc.about = paragraph;
            } else if let Some(like) = paragraph.strip_prefix("Like ") {
                doc.like = Some(like.to_string());
            } else if paragraph.starts_with("Fails with ") {
                doc.fails = Some(paragraph);
            } else {
                doc.more.push(paragraph);
            }
        }
        doc
    }

    /// Returns the first sentence.
    pub fn sentence(&self) -> &str {
        self.about.find(". ").map_or(self.about.as_str(), |end| &self.about[..=end])
    }
}

/// Returns the functions of all primitives, group by group, in the groups' order.
pub fn primitives() -> Vec<Entry> {
    GROUPS.iter().flat_map(entries_of).collect()
}

/// Returns the functions of a group, in the order of their names; forms of one name are one entry.
fn entries_of(group: &Group) -> Vec<Entry> {
    let mut engine = Engine::new_raw();
    engine.register_global_module(group.module().into());
    let mut found = engine.collect_fn_metadata(
        None,
        |info| {
            let meta = info.metadata;
            let comments: Vec<String> = meta.comments.iter().map(|comment| uncomment(comment)).collect();
            let form = signature(&meta.name, &params(&meta.params_info), &meta.return_type);
            Some((meta.name.to_string(), form, params(&meta.params_info).len(), comments.join("\n")))
        },
        true,
    );
    // rhai lists them in no order; a page is the same each time that it is made.
    found.sort();
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (name, form, count, comment) in found {
        if !is_public(&name) {
            continue;
        }
        let options = group.options.iter().find(|set| set.function == shown_name(&name));
        let entry = entries.entry(shown_name(&name)).or_insert_with(|| Entry {
            name: shown_name(&name),
            group: group.name.into(),
            imported: false,
            signatures: Vec::new(),
            arities: BTreeSet::new(),
            doc: Doc::default(),
            options,
        });
        entry.signatures.push(form);
        entry.arities.insert(count);
        // Of several forms, the one with an example carries the documentation of all.
        let doc = Doc::parse(&comment);
        if doc.example.is_some() || entry.doc.about.is_empty() {
            entry.doc = doc;
        }
    }
    let mut entries: Vec<Entry> = entries.into_values().collect();
    for entry in &mut entries {
        entry.signatures.sort_by_key(|form| (form.len(), form.clone()));
        entry.signatures.dedup();
    }
    // What the group is named after first, then functions, then properties.
    entries.sort_by_key(|entry| {
        (entry.name != group.name, !entry.name.starts_with(char::is_alphabetic), entry.name.clone())
    });
    entries
}

/// Returns the functions of a module of the standard library, or of the user's, in the order of their names; forms of one name
/// are one entry, with the documentation of the form that has one.
pub fn module_entries(module: &str, ast: &AST) -> Vec<Entry> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let public = |name: &str, access| access == rhai::FnAccess::Public && is_public(name);
    let mut functions: Vec<_> =
        ast.iter_functions().filter(|function| public(function.name, function.access)).collect();
    // The form with the most parameters says the most.
    functions.sort_by_key(|function| (function.name, std::cmp::Reverse(function.params.len())));
    for function in functions {
        let parameters: Vec<String> = function.params.iter().map(ToString::to_string).collect();
        let comments: Vec<String> = function.comments.iter().map(|comment| uncomment(comment)).collect();
        let entry = entries.entry(function.name.to_string()).or_insert_with(|| Entry {
            name: function.name.to_string(),
            group: module.to_string(),
            imported: true,
            signatures: Vec::new(),
            arities: BTreeSet::new(),
            doc: Doc::default(),
            options: None,
        });
        entry.signatures.push(format!("{module}::{}({})", function.name, parameters.join(", ")));
        entry.arities.insert(parameters.len());
        if !comments.is_empty() {
            entry.doc = Doc::parse(&comments.join("\n"));
        }
    }
    entries.into_values().collect()
}

/// Returns the functions of all modules that `import` finds by name.
pub fn library(dirs: &Dirs) -> Vec<Entry> {
    let engine = library_engine();
    let mut entries = Vec::new();
    for module in sources::module_names(dirs) {
        let ast = sources::module(dirs, None, &module).ok().and_then(|script| engine.compile(script.text).ok());
        entries.extend(ast.iter().flat_map(|ast| module_entries(&module, ast)));
    }
    entries
}

/// Returns the functions of the module with a text; none if that can't be read.
pub(super) fn entries_of_module(module: &str, text: &str) -> Vec<Entry> {
    library_engine().compile(text).map_or_else(|_| Vec::new(), |ast| module_entries(module, &ast))
}

/// Makes an engine that compiles modules for their documentation: `host` and `args` need no value for that.
fn library_engine() -> Engine {
    let mut engine = super::engine::bare();
    engine.set_strict_variables(false);
    engine
}

/// Finds the entries that a name means: a function's, a property's without its dot, or one of a module with that.
pub fn find<'e>(entries: &'e [Entry], wanted: &str) -> Vec<&'e Entry> {
    let plain = wanted.trim_end_matches("()");
    let means = |entry: &&Entry| {
        entry.full_name() == plain || entry.name == plain || entry.name.strip_prefix('.') == Some(plain)
    };
    entries.iter().filter(means).collect()
}

/// Returns the names of all functions that need no import, rhai's own included.
pub fn names(engine: &Engine) -> Vec<String> {
    let mut names = engine.collect_fn_metadata(None, |info| Some(info.metadata.name.to_string()), true);
    names.retain(|name| name.starts_with(|c: char| c.is_alphabetic()));
    names.sort();
    names.dedup();
    names
}

/// Returns the names of all properties that a value of ours has.
pub fn properties(engine: &Engine) -> Vec<String> {
    let name = |info: rhai::FuncInfo| info.metadata.name.strip_prefix("get$").map(ToString::to_string);
    let mut names = engine.collect_fn_metadata(None, name, true);
    names.sort();
    names.dedup();
    names
}

/// Returns how a function is called, for messages; nothing if there is none of this name.
pub fn signatures(engine: &Engine, name: &str) -> Vec<String> {
    let form = |info: rhai::FuncInfo| {
        let written = info.metadata.params_info.len() >= info.metadata.num_params;
        let wanted = written && info.metadata.name == name;
        wanted.then(|| format!("`{}`", signature(name, &params(&info.metadata.params_info), "")))
    };
    let mut forms = engine.collect_fn_metadata(None, form, true);
    // The engine of a run doesn't know how its parameters are named.
    forms.extend(super::engine::bare().collect_fn_metadata(None, form, true));
    forms.sort_by_key(|form| (form.len(), form.clone()));
    forms.dedup();
    // Ranges are written `0..5`; what rhai calls them is no help.
    forms.retain(|form| !form.contains('<'));
    forms
}

/// Returns how many arguments the forms of each function take, rhai's own included.
pub fn arities(engine: &Engine) -> BTreeMap<String, BTreeSet<usize>> {
    let counted =
        engine.collect_fn_metadata(None, |info| Some((info.metadata.name.to_string(), info.metadata.num_params)), true);
    let mut arities: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (name, count) in counted {
        arities.entry(name).or_default().insert(count);
    }
    arities
}

/// Tells whether a name is one that scripts write: a function's, or a property's, which rhai calls `get$name`.
pub(super) fn is_public(name: &str) -> bool {
    let name = name.strip_prefix("get$").unwrap_or(name);
    // rhai gives the functions of closures names such as `anon$1e6f`.
    name.starts_with(|c: char| c.is_alphabetic())
        && !name.starts_with("anon$")
        && !matches!(name, "to_string" | "to_debug")
        || name == "index$get$"
}

fn shown_name(name: &str) -> String {
    match name.strip_prefix("get$") {
        Some(property) => format!(".{property}"),
        None if name == "index$get$" => "[]".into(),
        None => name.into(),
    }
}

/// Returns the parameters that a caller writes: not the context, with short type names.
pub(super) fn params(info: &[impl AsRef<str>]) -> Vec<String> {
    let mut names: Vec<String> = info.iter().map(|param| shown_param(param.as_ref())).collect();
    // rhai lists the result last, as a type alone.
    if names.last().is_some_and(|last| !last.contains(':')) {
        names.pop();
    }
    names.retain(|name| !name.ends_with(": NativeCallContext"));
    names
}

fn shown_param(param: &str) -> String {
    let Some((name, kind)) = param.split_once(':') else { return String::new() };
    format!("{}: {}", name.trim(), shown_type(kind))
}

/// Returns the script's word for a type: the last part of its path, without what only Rust needs to know.
pub(super) fn shown_type(kind: &str) -> &str {
    let kind = kind.trim().trim_start_matches('&').trim_start_matches("mut ").trim();
    // What takes any kind of string is listed as all of them.
    let kind = kind.split('|').next().unwrap_or(kind).trim();
    let kind = kind.strip_prefix("RhaiResultOf<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(kind);
    match kind.rsplit("::").next().unwrap_or(kind).trim() {
        "NetnsHandle" => "Netns",
        "ImmutableString" | "str" | "String" => "string",
        "INT" | "i64" => "int",
        "FLOAT" | "f64" => "float",
        "Dynamic" => "any",
        "FnPtr" => "closure",
        "Map" => "map",
        "Array" | "Vec<Dynamic>" => "array",
        "ScriptError" => "Error",
        other => other,
    }
}

/// Writes a form of a function: as a method where its first argument is a handle.
pub(super) fn signature(name: &str, parameters: &[String], result: &str) -> String {
    let typed = |param: &String| param.split_once(": ").map_or(param.clone(), |(name, _)| name.to_string());
    let first = parameters.first().map(|first| (typed(first), first.rsplit(": ").next().unwrap_or("").to_string()));
    let rest: Vec<String> = parameters.iter().skip(1).cloned().collect();
    let call = match first {
        Some((receiver, _)) if name.starts_with("get$") => format!("{receiver}{}", shown_name(name)),
        Some((receiver, _)) if name == "index$get$" => format!("{receiver}[{}]", rest.join(", ")),
        Some((receiver, kind)) if matches!(kind.as_str(), "Netns" | "Dev" | "Net" | "Process") => {
            format!("{receiver}.{name}({})", rest.join(", "))
        }
        _ => format!("{name}({})", parameters.join(", ")),
    };
    match shown_type(result) {
        "" | "()" => call,
        kind => format!("{call} -> {kind}"),
    }
}

fn uncomment(comment: &str) -> String {
    let line = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("///").unwrap_or(line);
        line.strip_prefix(' ').unwrap_or(line).to_string()
    };
    comment.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_in_its_parts() {
        let doc = Doc::parse(
            "Adds a thing. It is\ngood.\n\nMore.\n\nLike `ip x`.\n\nFails with `exists`.\n\n```rhai\nlet a = 1;\n```",
        );
        assert_eq!(doc.sentence(), "Adds a thing.");
        assert_eq!(doc.about, "Adds a thing. It is good.");
        assert_eq!(doc.more, ["More."]);
        assert_eq!(doc.like.as_deref(), Some("`ip x`."));
        assert_eq!(doc.fails.as_deref(), Some("Fails with `exists`."));
        assert_eq!(doc.example.as_deref(), Some("let a = 1;"));
    }

    /// The catalogue is what help, reference and tests are made from: an entry without its parts would be a hole in all.
    #[test]
    fn every_primitive_has_its_sentence_its_equivalent_its_failures_and_its_example() {
        let mut holes = Vec::new();
        for entry in primitives() {
            let doc = &entry.doc;
            if !doc.sentence().ends_with('.') {
                holes.push(format!("{}: a first sentence", entry.name));
            }
            // A property is a noun: its sentence says all.
            let property = entry.name.starts_with('.');
            let parts = [
                ("Like", doc.like.is_some()),
                ("Fails with", doc.fails.is_some()),
                ("an example", doc.example.is_some()),
            ];
            holes.extend(
                parts
                    .iter()
                    .filter(|(_, there)| !there && !property)
                    .map(|(part, _)| format!("{}: {part}", entry.name)),
            );
        }
        assert!(holes.is_empty(), "missing:\n{}", holes.join("\n"));
    }
}
