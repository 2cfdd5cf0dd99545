//! `topo doc`: the documentation of everything that a script can call, from the catalogue.

use super::context::Context;
use super::output::Trouble;
use crate::prim::GROUPS;
use crate::script::catalog::{self, Entry};
use crate::script::elsewhere;
use crate::script::reference;
use crate::state::{Error, Kind, name};
use crate::terminal::{data, environment, exit};

/// Shows the documentation of a primitive, a library function or a workflow; without a name, lists them all.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the reference as Markdown: all primitives, library functions, exit codes and the environment
    #[arg(long, conflicts_with_all = ["name", "definitions"])]
    markdown: bool,
    /// Print definitions for editors, in the form of rhai's language server
    #[arg(long, conflicts_with = "name")]
    definitions: bool,
    /// The name: `veth`, `ping`, `lan::star`, `veth-pair`
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs `topo doc`.
pub(super) fn doc(args: &Args, context: &Context) -> Result<u8, Trouble> {
    if args.definitions {
        data(&crate::script::bare().definitions().single_file());
        return Ok(exit::DONE);
    }
    let library = catalog::library(&context.dirs);
    if args.markdown {
        data(&reference::markdown(&catalog::primitives(), &library));
        data(&exit::markdown());
        data(&environment::markdown());
        return Ok(exit::DONE);
    }
    match &args.name {
        Some(name) => one(name, &library, context),
        None => {
            list(&library, context);
            Ok(exit::DONE)
        }
    }
}

fn list(library: &[Entry], context: &Context) {
    let primitives = catalog::primitives();
    for group in GROUPS {
        data(&format!("{}\n", group.about));
        primitives.iter().filter(|entry| entry.group == group.name).for_each(line);
        data("\n");
    }
    if !library.is_empty() {
        data("Library modules, by `import \"NAME\" as NAME;`.\n");
        library.iter().for_each(line);
        data("\n");
    }
    data("Workflows, which are commands of topo.\n");
    for workflow in context.workflows().values() {
        let header = crate::script::header::Header::parse(&workflow.script.text).unwrap_or_default();
        data(&format!("  {:<20} {}\n", workflow.words.join(" "), header.about));
    }
}

fn line(entry: &Entry) {
    data(&format!("  {:<20} {}\n", entry.full_name(), entry.doc.sentence()));
}

fn one(wanted: &str, library: &[Entry], context: &Context) -> Result<u8, Trouble> {
    let entries: Vec<Entry> = catalog::primitives().into_iter().chain(library.iter().cloned()).collect();
    let found = catalog::find(&entries, wanted);
    if !found.is_empty() {
        found.iter().for_each(|entry| data(&reference::plain(entry)));
        return Ok(exit::DONE);
    }
    let words: Vec<String> = wanted.split_whitespace().map(String::from).collect();
    if let Some(workflow) = context.workflows().get(&words) {
        let header = crate::script::header::Header::parse(&workflow.script.text).unwrap_or_default();
        let help = header.command(format!("topo {wanted}")).max_term_width(100).render_long_help();
        data(&format!("{help}\n"));
        return Ok(exit::DONE);
    }
    let of_module: Vec<&Entry> = library.iter().filter(|entry| entry.is_of_module(wanted)).collect();
    if !of_module.is_empty() {
        data(&format!(
            "The library module `{wanted}`: `import \"{wanted}\" as {};`\n\n",
            wanted.rsplit('/').next().unwrap_or(wanted)
        ));
        of_module.into_iter().for_each(line);
        return Ok(exit::DONE);
    }
    if let Some(here) = elsewhere::here(wanted) {
        let found = catalog::find(&entries, here);
        data(&format!("`{wanted}` is `{here}` here.\n\n"));
        found.iter().for_each(|entry| data(&reference::plain(entry)));
        return Ok(exit::DONE);
    }
    let mut about: Vec<&Entry> = entries.iter().filter(|entry| speaks_of(entry, wanted)).collect();
    about.sort_by_key(|entry| !entry.full_name().contains(wanted));
    let names: Vec<String> =
        entries.iter().map(Entry::full_name).chain(context.workflows().keys().map(|words| words.join(" "))).collect();
    let error = Error::new(Kind::Missing, format!("find the documentation of `{}`", name::shown(wanted)));
    Err(match name::nearest(wanted, names.iter().map(String::as_str)) {
        _ if !about.is_empty() => {
            data(&format!("Nothing is called `{}`. These speak of it:\n\n", name::shown(wanted)));
            about.into_iter().for_each(line);
            return Ok(exit::DONE);
        }
        Some(near) => error.because("nothing has this name").hint(format!("did you mean `{near}`?")),
        None => error.because("nothing has this name").hint("`topo doc` lists what there is"),
    }
    .into())
}

/// Tells whether the documentation of an entry has a word, or one that begins with it.
fn speaks_of(entry: &Entry, word: &str) -> bool {
    let word = word.to_lowercase();
    if word.len() > 2 && entry.full_name().to_lowercase().contains(&word) {
        return true;
    }
    let has =
        |text: &String| text.to_lowercase().split(|c: char| !c.is_alphanumeric()).any(|known| known.starts_with(&word));
    word.len() > 2 && std::iter::once(&entry.doc.about).chain(&entry.doc.more).any(has)
}
