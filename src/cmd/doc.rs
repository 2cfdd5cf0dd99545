//! `topo doc`: the documentation of everything that a script can call, from the catalogue.

use super::context::Context;
use super::output::Trouble;
use crate::lab::{Error, Kind, name};
use crate::prim::GROUPS;
use crate::script::catalog::{self, Entry};
use crate::script::reference;
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
    let names: Vec<String> =
        entries.iter().map(Entry::full_name).chain(context.workflows().keys().map(|words| words.join(" "))).collect();
    let error = Error::new(Kind::Missing, format!("find the documentation of `{}`", name::shown(wanted)));
    Err(match name::nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => error.because("nothing has this name").hint(format!("did you mean `{near}`?")),
        None => error.because("nothing has this name").hint("`topo doc` lists what there is"),
    }
    .into())
}
