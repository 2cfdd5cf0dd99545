//! Where scripts come from: files, the embedded standard library and workflows, and the user's own directories.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use include_dir::{Dir, include_dir};

use crate::net::regular;
use crate::state::{Error, Kind, Result, name};

/// The largest script that is read: more is no text that a person wrote.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

static STDLIB: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/stdlib");
static SCRIPTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scripts");

/// The user's own directories, which are looked into before the embedded ones.
#[derive(Debug, Clone, Default)]
pub struct Dirs {
    /// Where modules of the standard library are overridden, and more are added.
    pub stdlib: Option<PathBuf>,
    /// Where workflows are overridden, and more are added.
    pub scripts: Option<PathBuf>,
}

/// A script: its text, and the name that messages know it by.
#[derive(Debug, Clone)]
pub struct Script {
    /// The name: a path as the user wrote it, `scripts/bridge.rhai`, `-e` or `-`.
    pub name: String,
    /// The text.
    pub text: String,
    /// Whether it came with the program, so that its lines tell a user nothing.
    pub embedded: bool,
    /// The file that it was read from: its file system and its inode.
    pub file: Option<(u64, u64)>,
}

/// What tells a script from every other one: the same file has many paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScriptIdentity {
    File(u64, u64),
    Name(String),
}

impl Script {
    /// Reads a script from a file.
    pub fn read(path: &Path) -> Result<Script> {
        let shown = path.display().to_string();
        let doing = || format!("read the script `{}`", name::shown_path(&shown));
        let text = text_of(regular::read_or_pipe(path, SCRIPT_BYTES_MAX), doing)?;
        let file = std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        Ok(Script { name: shown, text: without_shebang(text), embedded: false, file })
    }

    /// Reads a script from standard input.
    pub fn from_stdin() -> Result<Script> {
        let bytes = regular::read_at_most(std::io::stdin().lock(), SCRIPT_BYTES_MAX, 0);
        text_of(bytes, || "read the script from standard input".into()).map(|text| Script::inline("-", text))
    }

    /// Wraps a text that is in no file.
    pub fn inline(name: &str, text: impl Into<String>) -> Script {
        Script { name: name.into(), text: without_shebang(text.into()), embedded: false, file: None }
    }

    /// Returns what tells it from every other one.
    pub(super) fn identity(&self) -> ScriptIdentity {
        self.file
            .map_or_else(|| ScriptIdentity::Name(self.name.clone()), |(dev, inode)| ScriptIdentity::File(dev, inode))
    }

    /// Wraps a text that came with the program.
    fn embedded(name: &str, text: &str) -> Script {
        Script { embedded: true, ..Script::inline(name, text) }
    }
}

/// Takes what was read of a script as its text.
fn text_of(read: std::io::Result<Vec<u8>>, doing: impl Fn() -> String) -> Result<String> {
    let bytes = read.map_err(|source| match source.kind() {
        // It is no script: nothing of the machine's is damaged.
        std::io::ErrorKind::InvalidInput => Error::invalid(doing()).because(source),
        _ => Error::file(doing(), &source),
    })?;
    String::from_utf8(bytes).map_err(|source| {
        Error::invalid(doing()).because(format!("byte {} is not UTF-8 text", source.utf8_error().valid_up_to()))
    })
}

/// Turns a first line `#!…` into a comment, so that a script can be executable; lines keep their numbers.
fn without_shebang(mut text: String) -> String {
    // Editors of other systems put a mark of the byte order before a text.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    match text.strip_prefix("#!") {
        // With a space: `#!/bin/…` must not become the documentation comment `///bin/…`.
        Some(rest) => format!("// {rest}"),
        None => text,
    }
}

/// A workflow: a script that is a command of `topo`.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// The words of its command: `["network", "create"]`.
    pub words: Vec<String>,
    /// The script.
    pub script: Script,
    /// Whether it is the user's own.
    pub own: bool,
}

/// Returns all workflows by their command words: the user's own hide embedded ones of the same words.
///
/// An unreadable directory or file of the user's is passed over: it must not keep `topo down` from running. `Err` tells of
/// it, beside what was found.
pub fn workflows(dirs: &Dirs) -> (BTreeMap<Vec<String>, Workflow>, Vec<Error>) {
    let mut found = BTreeMap::new();
    let mut errors = Vec::new();
    let embedded = SCRIPTS.files().chain(SCRIPTS.dirs().flat_map(|dir| dir.files()));
    for file in embedded {
        let (Some(words), Some(text)) = (words_of(file.path()), file.contents_utf8()) else { continue };
        let script = Script::embedded(&format!("scripts/{}", file.path().display()), text);
        found.insert(words.clone(), Workflow { words, script, own: false });
    }
    for path in dirs.scripts.iter().flat_map(|dir| own_files(dir, 1)) {
        let relative = dirs.scripts.as_ref().and_then(|dir| path.strip_prefix(dir).ok());
        let Some(words) = relative.and_then(words_of) else { continue };
        match Script::read(&path) {
            Ok(script) => {
                found.insert(words.clone(), Workflow { words, script, own: true });
            }
            Err(error) => errors.push(error),
        }
    }
    (found, errors)
}

/// Tells whether there is a folder of workflows by this name, whose commands are `NAME …`.
pub fn has_workflows_below(dirs: &Dirs, name: &str) -> bool {
    SCRIPTS.get_dir(name).is_some() || dirs.scripts.as_ref().is_some_and(|dir| dir.join(name).is_dir())
}

/// Returns the scripts in a directory of the user's and in its folders.
pub(super) fn own_scripts(dir: &Path) -> Vec<PathBuf> {
    own_files(dir, 1).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rhai")).collect()
}

fn own_files(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            files.extend(own_files(&path, depth - 1));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// Returns the command words of a script's path; none for a file that is no script.
fn words_of(path: &Path) -> Option<Vec<String>> {
    if path.extension()? != "rhai" {
        return None;
    }
    let words: Option<Vec<String>> =
        path.with_extension("").iter().map(|word| word.to_str().map(ToString::to_string)).collect();
    words.filter(|words| words.iter().all(|word| name::check("command", word).is_ok()))
}

/// Returns the names of all modules that `import` finds by name, sorted.
pub fn module_names(dirs: &Dirs) -> Vec<String> {
    let own = dirs.stdlib.iter().flat_map(|dir| own_files(dir, 0));
    let paths = own.chain(STDLIB.files().map(|file| file.path().to_path_buf()));
    let mut names: Vec<String> = paths.filter_map(|path| words_of(Path::new(path.file_name()?))).flatten().collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the names of the modules in a folder of the standard library or of the user's directory, sorted.
fn modules_in(dirs: &Dirs, folder: &str) -> Vec<String> {
    let own = dirs.stdlib.iter().flat_map(|dir| own_files(&dir.join(folder), 0));
    let embedded = STDLIB.get_dir(folder).into_iter().flat_map(|dir| dir.files());
    let paths = own.chain(embedded.map(|file| file.path().to_path_buf()));
    let mut names: Vec<String> = paths.filter_map(|path| words_of(Path::new(path.file_name()?))).flatten().collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the names of all embedded modules.
#[cfg(test)]
pub(super) fn embedded_modules() -> Vec<String> {
    let folders = STDLIB.dirs().flat_map(|dir| dir.files());
    let files = STDLIB.files().chain(folders).map(|file| file.path().with_extension(""));
    files.map(|path| path.display().to_string()).collect()
}

/// Tells whether `import "wanted"` names a file, and not a module of the library or of the user's directory.
pub(super) fn is_path(wanted: &str) -> bool {
    wanted.starts_with(['.', '/']) || wanted.ends_with(".rhai")
}

/// Finds the module that `import "wanted"` means in the script `importer`.
///
/// A name that begins with `.` or `/`, or ends with `.rhai`, is a path, from the directory of the importing script. Any other
/// is a module of the user's directory, or of the standard library, perhaps in a folder of it: `drivers/bridge`.
pub(super) fn module(dirs: &Dirs, importer: Option<&str>, wanted: &str) -> Result<Script> {
    if is_path(wanted) {
        let from = importer.map(Path::new).and_then(Path::parent).unwrap_or(Path::new(""));
        let path: PathBuf = from.join(wanted).components().filter(|part| *part != Component::CurDir).collect();
        return Script::read(&if path.extension().is_some() { path } else { path.with_extension("rhai") });
    }
    wanted.split('/').try_for_each(|part| name::check("module", part))?;
    let file = format!("{wanted}.rhai");
    if let Some(path) = dirs.stdlib.as_ref().map(|dir| dir.join(&file)).filter(|path| path.is_file()) {
        return Script::read(&path);
    }
    if let Some(text) = STDLIB.get_file(&file).and_then(|file| file.contents_utf8()) {
        return Ok(Script::embedded(&format!("stdlib/{file}"), text));
    }
    let error = Error::new(Kind::Missing, format!("import \"{wanted}\"")).because("there is no module of this name");
    let Some((folder, last)) = wanted.rsplit_once('/') else {
        let names = module_names(dirs);
        return Err(match name::nearest(wanted, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint(format!("the standard library has: {}; a path begins with `./`", names.join(", "))),
        });
    };
    let names = modules_in(dirs, folder);
    let all = format!("there are: {}", names.join(", "));
    Err(match name::nearest(last, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`? {all}")),
        None if names.is_empty() => error.hint("a path begins with `./`"),
        None => error.hint(all),
    })
}

/// The texts of all scripts that a run has read, for the excerpts in messages.
#[derive(Debug, Clone, Default)]
pub struct Texts(Rc<RefCell<HashMap<String, Script>>>);

impl Texts {
    /// Keeps a script's text.
    pub fn keep(&self, script: &Script) {
        self.0.borrow_mut().insert(script.name.clone(), script.clone());
    }

    /// Returns the text of the script of this name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.borrow().get(name).map(|script| script.text.clone())
    }

    /// Tells whether the script of this name came with the program.
    pub fn is_embedded(&self, name: &str) -> bool {
        self.0.borrow().get(name).is_some_and(|script| script.embedded)
    }
}
