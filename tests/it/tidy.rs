//! The house is in order: what may use what, where `unsafe` may stand, how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules, each of which may use those behind it.
const HOUSE: [&str; 10] = ["cmd", "repl", "terminal", "script", "prim", "survey", "lab", "ipam", "state", "net"];
const LINES_MAX: usize = 600;

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

impl Source {
    /// Returns the lines of code: without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = (1..).zip(self.text.lines()).take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|err| panic!("list {}: {err}", folder.display())) {
        let path = entry.expect("list a folder").path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|ext| ext == ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, "rs", &mut paths);
    assert!(paths.len() > 50, "only {} sources were found", paths.len());
    let source = |path: PathBuf| {
        let below = path.strip_prefix(&src).expect("below src");
        let module = below.iter().next().expect("a part").to_string_lossy().trim_end_matches(".rs").to_string();
        let text = fs::read_to_string(&path).expect("read a source");
        Source { path, module, text }
    };
    // What only tests use keeps to the tests' rules.
    paths
        .into_iter()
        .map(source)
        .filter(|source| !source.path.ends_with("testing.rs") && !source.path.ends_with("tests.rs"))
        .collect()
}

fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

/// Finds the lines of code for which `is_wrong` holds, in the modules given.
fn lines(modules: &[&str], is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| modules.contains(&source.module.as_str())) {
        let found = source.code().filter(|(_, line)| is_wrong(line));
        wrong.extend(found.map(|(number, line)| format!("{}: {}", source.at(number), line.trim())));
    }
    wrong
}

#[test]
fn modules_use_only_what_is_to_their_right() {
    let mut wrong = Vec::new();
    for (place, module) in HOUSE.iter().enumerate() {
        for forbidden in HOUSE[..place].iter() {
            wrong.extend(lines(&[module], |line| {
                line.contains(&format!("crate::{forbidden}::")) || line.contains(&format!("crate::{{{forbidden}"))
            }));
        }
    }
    none("arrows backwards", &wrong);
}

/// Returns which files of a room lead to which, each by its name without its folder and ending; a folder counts as one.
fn uses_in(room: &str, sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let folder = root().join("src").join(room);
    let file = |source: &Source| {
        let below = source.path.strip_prefix(&folder).ok()?;
        Some((below.iter().next()?.to_string_lossy().trim_end_matches(".rs").to_string(), below.iter().count()))
    };
    let of_room: Vec<(&Source, String, usize)> =
        sources.iter().filter_map(|source| file(source).map(|(name, depth)| (source, name, depth))).collect();
    let known: BTreeSet<&str> = of_room.iter().map(|(_, name, _)| name.as_str()).collect();
    let lent = of_room.iter().filter(|(_, name, _)| name == "mod").flat_map(|(source, ..)| lent(&source.text));
    let lent: BTreeMap<String, String> =
        lent.flat_map(|(module, names)| names.into_iter().map(move |name| (name, module.clone()))).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (source, name, depth) in of_room.iter().filter(|(_, name, _)| name != "mod") {
        let code: String = source.code().map(|(_, line)| line.trim()).collect::<Vec<_>>().join("\n");
        let from_room = format!("crate::{room}::");
        let to_room = "super::".repeat(*depth);
        for rest in code.split(&from_room).skip(1).chain(code.split(&to_room).skip(1)) {
            let list = rest.strip_prefix('{').and_then(|list| list.split('}').next()).unwrap_or(rest);
            let words = list.split(',').take(if rest.starts_with('{') { usize::MAX } else { 1 });
            for word in words.filter_map(|word| word.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next()) {
                let module = lent.get(word).map_or(word, String::as_str);
                if known.contains(module) && module != name {
                    uses.entry(name.clone()).or_default().insert(module.to_string());
                }
            }
        }
    }
    uses
}

/// Kind of fault: files that can't be read one after the other, since each leads to all the others.
#[test]
fn no_circle_has_more_than_three_files() {
    const FILES_MAX: usize = 3;
    let (sources, mut wrong, mut count) = (sources(), BTreeSet::new(), 0);
    for room in ["survey", "lab", "ipam", "state"] {
        let uses = uses_in(room, &sources);
        let reached = |from: &String| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(file) = next.pop() {
                next.extend(uses.get(file).into_iter().flatten().filter(|file| seen.insert((*file).clone())));
            }
            seen
        };
        for file in uses.keys() {
            let circle: Vec<String> = reached(file).into_iter().filter(|other| reached(other).contains(file)).collect();
            if circle.len() > FILES_MAX {
                wrong.insert(format!("{room}: {}", circle.join(" ")));
            }
        }
        count += uses.values().map(BTreeSet::len).sum::<usize>();
    }
    none("circles", &wrong.into_iter().collect::<Vec<_>>());
    assert!(count > 100, "only {count} arrows are found");
}

#[test]
fn every_module_of_the_house_is_known() {
    let mut unknown: Vec<String> = sources().iter().map(|source| source.module.clone()).collect();
    unknown.retain(|module| !HOUSE.contains(&module.as_str()) && !["lib", "main", "build"].contains(&module.as_str()));
    none("modules that are not in the house", &unknown);
}

#[test]
fn each_layer_keeps_to_its_own_world() {
    none("rhai below `prim`", &lines(&HOUSE[5..], |line| line.contains("rhai::")));
    let netlink = |line: &str| {
        ["rtnetlink::", "netlink_packet", "netlink_proto", "netlink_sys"].iter().any(|name| line.contains(name))
    };
    none("netlink above `net`", &lines(&HOUSE[..9], netlink));
    none("our names in `net`", &lines(&["net"], |line| line.contains("toposcript") || line.contains("TOPO_")));
    let prints =
        |line: &str| ["println!", "print!", "eprintln!", "stdout()", "stderr()"].iter().any(|word| line.contains(word));
    none("output below `cmd`", &lines(&HOUSE[3..9], prints));
}

/// What reads the environment somewhere else is in no documentation.
#[test]
fn the_environment_is_read_in_one_place() {
    let reads =
        |line: &str| ["env::var", "env::temp_dir", "env::home_dir", "getenv"].iter().any(|word| line.contains(word));
    let mut wrong = lines(&HOUSE, reads);
    wrong.extend(lines(&["cmd", "repl", "terminal"], |line| line.contains("\"TOPO_")));
    wrong.retain(|at| !at.contains("src/terminal/environment.rs:"));
    // A message below `terminal` may name a variable that there is; `TOPO_MARK` is set for processes, and never read.
    let declared = fs::read_to_string(root().join("src/terminal/environment.rs")).expect("read the list");
    wrong.extend(lines(&HOUSE[3..], |line| {
        let names = line.split('"').filter(|word| word.starts_with("TOPO_") && *word != "TOPO_MARK");
        names.into_iter().any(|name| !declared.contains(&format!("= \"{name}\";")))
    }));
    none("variables that are not of `terminal::environment`", &wrong);
}

/// A list of files by hand misses those that were added since: each file's first line says what it is.
#[test]
fn no_header_lists_the_files_beside_it() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path.ends_with("mod.rs")) {
        let folder = source.path.parent().expect("a folder");
        let head = source.text.lines().take_while(|line| line.starts_with("//!"));
        for cell in head.filter_map(|line| line.strip_prefix("//! | ")?.split(" |").next()) {
            let names = cell.split('`').skip(1).step_by(2);
            let mut paths = names.map(|name| folder.join(format!("{}.rs", name.trim_end_matches(".rs"))));
            if paths.any(|path| path.exists()) {
                wrong.push(format!("{}: {cell}", source.path.display()));
            }
        }
    }
    none("headers that list files by hand", &wrong);
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    let silent = sources().iter().filter(silent).map(|source| source.path.display().to_string()).collect::<Vec<_>>();
    none("files whose first line does not say what they are", &silent);
}

/// A module that its users see, with its name there.
const ROOMS: [(&str, &str); 10] = [
    ("net/mod.rs", "net"),
    ("net/nft/mod.rs", "nft"),
    ("lab/mod.rs", "lab"),
    ("survey/mod.rs", "survey"),
    ("ipam/mod.rs", "ipam"),
    ("state/mod.rs", "state"),
    ("state/store/mod.rs", "store"),
    ("prim/mod.rs", "prim"),
    ("script/mod.rs", "script"),
    ("terminal/mod.rs", "terminal"),
];

/// Returns the names between braces, or the one name: of `{A, b}` and of `A`.
fn names(list: &str) -> Vec<String> {
    let words = list.trim_start_matches('{').trim_end_matches('}').split(',').map(str::trim);
    words.filter(|word| !word.is_empty()).map(|word| word.split(" as ").next().expect("a name").to_string()).collect()
}

/// Returns what a source lends on: each module, and the names that are lent from it.
fn lent(text: &str) -> Vec<(String, Vec<String>)> {
    let statements = text.split(';').filter_map(|statement| {
        let at = statement.find("\npub use ").or_else(|| statement.find("\npub(crate) use "))?;
        let path = statement[at..].split_once(" use ")?.1.trim();
        let path = path.trim_start_matches("crate::").trim_start_matches("self::");
        let (module, names) =
            path.rsplit_once("::").filter(|_| !path.contains('{')).or_else(|| path.split_once("::{"))?;
        Some((module.to_string(), self::names(names)))
    });
    statements.collect()
}

/// Kind of fault: one item is called by two names, so that who looks for its uses finds half of them. What a room lends on is used by
/// that path alone outside of it; and a file that is no room lends on what is below it, never what stands beside it.
#[test]
fn no_item_has_two_paths() {
    let sources = sources();
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in &sources {
        let beside: Vec<_> = lent(&source.text)
            .into_iter()
            .filter(|(module, _)| module == "super" || module.starts_with("super::"))
            .collect();
        wrong.extend(
            beside.iter().map(|(module, names)| format!("{} lends {module}::{names:?}", source.path.display())),
        );
    }
    for (file, room) in ROOMS {
        let of_room = sources.iter().find(|source| source.path.ends_with(Path::new("src").join(file))).expect("a room");
        let folder = of_room.path.parent().expect("a folder");
        for (module, names) in lent(&of_room.text) {
            for other in sources.iter().filter(|other| !other.path.starts_with(folder)) {
                for rest in other.text.split(&format!("{room}::{module}::")).skip(1) {
                    let list = if rest.starts_with('{') {
                        rest.split('}').next()
                    } else {
                        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
                    };
                    let used = self::names(list.unwrap_or_default());
                    let twice = used.iter().filter(|name| names.contains(name));
                    wrong.extend(twice.map(|name| format!("{}: {room}::{module}::{name}", other.path.display())));
                }
            }
            count += names.len();
        }
    }
    none("items with two paths", &wrong);
    assert!(count > 200, "only {count} items are lent on");
}

/// The library lends nothing to others: the program is the interface. Its parts are there for the tests of this project alone.
#[test]
fn the_library_is_closed() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("read src/lib.rs");
    let public: Vec<&str> = text.lines().filter(|line| line.starts_with("pub ")).collect();
    assert_eq!(public, ["pub use cmd::main;", "pub mod for_tests {"]);
    assert!(text.contains("#[doc(hidden)]\npub mod for_tests"));
}

/// What one module gives to others is said where it stands. (`missing_docs` looks at what leaves the crate alone.)
#[test]
fn what_is_public_is_said() {
    const ITEMS: [&str; 9] =
        ["fn ", "async fn ", "const ", "struct ", "enum ", "trait ", "type ", "static ", "unsafe fn "];
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| ["net", "state", "ipam", "lab", "survey", "script", "terminal"].contains(&&*source.module))
    {
        let lines: Vec<(usize, &str)> = (1..).zip(source.text.lines()).collect();
        for (at, (number, line)) in lines.iter().enumerate() {
            let Some(item) = line.trim_start().strip_prefix("pub ") else { continue };
            let is_field =
                item.split_once(": ").is_some_and(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
            if !(is_field || ITEMS.iter().any(|word| item.starts_with(word))) || item.contains('$') {
                continue;
            }
            let is_attribute = |line: &str| line.starts_with("#[") || line.ends_with(")]");
            let before = lines[..at].iter().rev().map(|(_, line)| line.trim()).find(|line| !is_attribute(line));
            if !before.is_some_and(|line| line.starts_with("///")) {
                wrong.push(format!("{}: {}", source.at(*number), line.trim()));
            }
        }
    }
    none("public items without a sentence", &wrong);
}

#[test]
fn unsafe_stands_in_net_alone() {
    none("unsafe", &lines(&[&HOUSE[..9], &["lib", "main"]].concat(), |line| line.contains("unsafe ")));
}

#[test]
fn nothing_sleeps() {
    none(
        "sleeps",
        &lines(&["cmd", "repl", "script", "survey", "lab", "ipam", "state", "net"], |line| {
            line.contains("thread::sleep") || line.contains("time::sleep(")
        }),
    );
}

/// What a few steps need goes into their footprint or their operations, not into one more method of all.
#[test]
fn a_step_has_few_methods() {
    let text = fs::read_to_string(root().join("src/lab/step.rs")).expect("the steps");
    let (_, body) = text.split_once("pub trait Step:").expect("the trait");
    let methods: Vec<&str> =
        body.lines().take_while(|line| *line != "}").filter(|line| line.starts_with("    fn ")).collect();
    assert!((5..=11).contains(&methods.len()), "{methods:#?}");
}

#[test]
fn every_group_is_listed_once() {
    let groups = fs::read_to_string(root().join("src/prim/mod.rs")).expect("read src/prim/mod.rs");
    let mut wrong = Vec::new();
    for source in
        sources().iter().filter(|source| source.module == "prim" && source.text.contains("const GROUP: Group"))
    {
        let below = source.path.strip_prefix(root().join("src/prim")).expect("below prim").with_extension("");
        let name = below.display().to_string().replace('/', "::");
        if groups.matches(&format!("    {name}::GROUP,")).count() != 1 {
            wrong.push(name);
        }
    }
    none("groups that `GROUPS` doesn't list once", &wrong);
}

#[test]
fn no_file_is_longer_than_one_thought() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files(&root().join(folder), "rs", &mut paths);
    }
    for folder in ["scripts", "stdlib", "examples", "tests"] {
        files(&root().join(folder), "rhai", &mut paths);
    }
    let long = |path: &PathBuf| {
        let count = fs::read_to_string(path).expect("read a file").lines().count();
        (count > LINES_MAX).then(|| format!("{}: {count} lines", path.display()))
    };
    none("files over 600 lines", &paths.iter().filter_map(long).collect::<Vec<_>>());
}

/// The exit codes are in one list: what ends with a number of its own, or lists them by hand, drifts from it.
#[test]
fn exit_codes_are_in_one_list() {
    let literal = |line: &str| {
        let number = |rest: &str| {
            let (text, after) = rest.split_once(')').unwrap_or((rest, ""));
            text.parse::<u8>().is_ok() && !after.starts_with(" =>")
        };
        ["Ok(", "Err(", "Cut(", "max("].iter().any(|word| line.split(word).skip(1).any(number))
            || ["{ 0 } else", "else { 1 }", "else { 2 }", "else { 3 }", "128 +"].iter().any(|word| line.contains(word))
    };
    let mut wrong = lines(&["cmd", "repl", "main"], literal);
    for page in pages() {
        let text = fs::read_to_string(&page).expect("read a page");
        if text.contains("Exit codes:") || text.matches("## Exit codes").count() != usize::from(is_reference(&page)) {
            wrong.push(page.display().to_string());
        }
    }
    wrong.extend(lines(&HOUSE, |line| line.contains("Exit codes:")).into_iter().filter(|at| !at.contains("exit.rs")));
    none("exit codes that are not of `terminal::exit`", &wrong);
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    files(&root().join("docs"), "md", &mut pages);
    pages
}

fn is_reference(page: &Path) -> bool {
    page.ends_with("docs/reference.md")
}

/// The README tells a reader to install what `.ci/run` installs.
#[test]
fn the_readme_and_the_gate_name_the_same_packages() {
    let named = |path: &str, begin: &str, end: &str| -> Vec<String> {
        let text = fs::read_to_string(root().join(path)).expect("read a file");
        let list = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
        let (list, _) = list.unwrap_or_else(|| panic!("{path} has no list of packages"));
        let mut names: Vec<String> = list.split_whitespace().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(named("README.md", "`apt-get install ", "`"), named(".ci/run", "packages=(", ")"));
}

/// The program's own code is at a random address: its file is one that may be loaded anywhere (ET_DYN, elf(5)).
#[test]
fn the_program_is_position_independent() {
    const TYPE: std::ops::Range<usize> = 16..18;
    const ET_DYN: [u8; 2] = 3_u16.to_ne_bytes();
    let program = std::fs::read(env!("CARGO_BIN_EXE_topo")).expect("the program");
    assert_eq!(program[TYPE], ET_DYN);
}

/// The names that two types have. `Error` and `Result` are of `net` and of `lab`, `Args` of each subcommand, a `Rule` of routing and of
/// nf_tables. Of the others one should have another name: the list only shrinks.
const NAMED_TWICE: &[&str] = &[
    "Answer", "Args", "At", "Batch", "Call", "Entry", "Error", "Found", "Given", "Held", "Holder", "Host", "Known",
    "Lease", "Message", "Notes", "Opened", "Proto", "Record", "Refusal", "Request", "Result", "Rule", "Seen", "Shape",
    "Source", "State", "Subnet", "Target", "Wanted",
];

/// Kind of fault: one word for two things, so that a reader takes the one for the other. A new type has a name that no other one has.
#[test]
fn a_type_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| !source.path.iter().any(|part| part == "tests")) {
        for (number, line) in source.code() {
            // Behind `pub `, `pub(super) `, `pub(in crate::net) `.
            let public = line.strip_prefix("pub").and_then(|rest| Some(rest.split_once(' ')?.1));
            let item = match line.strip_prefix("pub(in ") {
                Some(rest) => rest.split_once(") ").map_or(line, |(_, item)| item),
                None => public.unwrap_or(line),
            };
            let name = ["struct ", "enum ", "trait ", "type "].iter().find_map(|word| item.strip_prefix(word));
            let name = name.map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                places.entry(name.to_string()).or_default().push(source.at(number));
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    let twice: Vec<&str> = places.keys().map(String::as_str).collect();
    let new: Vec<String> = places
        .iter()
        .filter(|(name, _)| !NAMED_TWICE.contains(&name.as_str()))
        .map(|(name, at)| format!("{name}: {at:?}"))
        .collect();
    none("types of one name", &new);
    assert_eq!(twice, NAMED_TWICE, "the names that two types have (left), and the list of them");
}
