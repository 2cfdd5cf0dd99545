//! What a contributor is told is true: the commands are there, the paths and names on the pages exist, the files keep to `.editorconfig`,
//! and the dependencies to `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::page::read;
use crate::tidy::{files, root};

/// One page, for who looks something up in it.
const PAGE_LINES_MAX: usize = 80;

/// Returns the words in backticks of a page, without those of its blocks.
fn words(page: &str) -> Vec<String> {
    let mut words = Vec::new();
    for text in page.split("```").step_by(2) {
        words.extend(text.split('`').skip(1).step_by(2).map(String::from));
    }
    words
}

fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["docs", "benches", "examples"] {
        files(&root().join(folder), "md", &mut pages);
    }
    let top = fs::read_dir(root()).expect("list the project").map(|entry| entry.expect("an entry").path());
    pages.extend(top.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    assert!(pages.len() > 10, "only {pages:?}");
    pages
}

fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

/// The recipes of the justfile, each with its commands.
fn recipes() -> BTreeMap<String, Vec<String>> {
    let mut recipes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in read("justfile").lines().filter(|line| !line.starts_with('#')) {
        if let Some(command) = line.strip_prefix("    ") {
            recipes.get_mut(&name).expect("a recipe above").push(command.to_string());
        } else if let Some((head, "")) = line.split_once(':') {
            name = head.split(' ').next().expect("a name").to_string();
            recipes.insert(name.clone(), Vec::new());
        }
    }
    recipes
}

/// What is wrong with a command of cargo: a test, a benchmark or a module of tests that is not there.
fn wrong_in(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().skip_while(|word| word.contains('=')).collect();
    let after = |flag: &str| words.iter().skip_while(|word| **word != flag).nth(1).copied();
    let is_module = |name: &str| {
        let path = root().join("tests/it").join(name.replace("::", "/"));
        path.with_extension("rs").exists() || path.is_dir()
    };
    let is_there = match words[..] {
        ["cargo", "fmt" | "clippy" | "install" | "deny", ..] => true,
        ["cargo", "test", ..] => {
            let at = words.iter().position(|word| *word == "it").map_or(words.len(), |at| at + 1);
            let mut names = words[at..].iter().filter(|word| !word.starts_with('-'));
            after("--test").is_none_or(|name| name == "it") && names.all(|name| is_module(name))
        }
        ["cargo", "bench", ..] => after("--bench").is_some_and(|name| {
            name == "{{name}}" || read("Cargo.toml").contains(&format!("[[bench]]\nname = \"{name}\"\n"))
        }),
        ["just", name, ..] => recipes().contains_key(name),
        ["topo", "test", file] if file.starts_with("tests/suite/") => root().join(file).exists(),
        _ => return None,
    };
    (!is_there).then(|| command.to_string())
}

/// Kind of fault: a command on a page that cargo no longer has, or a recipe that nobody is told of.
#[test]
fn the_commands_for_contributors_are_there() {
    let (recipes, page) = (recipes(), read("CONTRIBUTING.md"));
    let told: BTreeSet<String> = words(&page)
        .iter()
        .filter_map(|word| Some(word.strip_prefix("just ")?.split(' ').next()?.to_string()))
        .collect();
    let there: BTreeSet<String> = recipes.keys().filter(|name| *name != "default").cloned().collect();
    assert_eq!(told, there, "the recipes that CONTRIBUTING.md names (left), and those of the justfile");
    let mut commands: Vec<String> = recipes.into_values().flatten().filter(|line| !line.starts_with('@')).collect();
    assert!(commands.iter().all(|line| line.split_whitespace().any(|word| word == "cargo")), "{commands:?}");
    for page in pages() {
        commands.extend(words(&fs::read_to_string(page).expect("read a page")));
    }
    none("commands of what is not there", &commands.iter().filter_map(|line| wrong_in(line)).collect::<Vec<_>>());
    for wrong in
        ["just fly", "cargo test --test it no::such", "cargo bench --bench none", "topo test tests/suite/none.rhai"]
    {
        assert!(wrong_in(wrong).is_some(), "`{wrong}` is not found");
    }
}

/// Kind of fault: `just check` passes, and the gate does not.
#[test]
fn a_recipe_checks_what_the_gate_checks() {
    let gate = read(".ci/run");
    for command in &recipes()["check"] {
        assert!(gate.lines().any(|line| line == command), ".ci/run has no line `{command}`");
    }
    let place =
        |line: &str| gate.lines().position(|other| other.starts_with(line)).unwrap_or_else(|| panic!("no `{line}`"));
    let order =
        ["cargo fmt", "cargo clippy", "cargo test --locked --test it -- tidy", "cargo test --locked"].map(place);
    assert!(order.is_sorted(), "the cheap ones come first: lines {order:?}");
    assert!(read("CONTRIBUTING.md").lines().count() <= PAGE_LINES_MAX, "CONTRIBUTING.md is longer than a page");
}

/// Kind of fault: a page leads to a file that was moved.
#[test]
fn the_paths_on_the_pages_are_there() {
    let top: Vec<String> = fs::read_dir(root())
        .expect("list the project")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "target")
        .collect();
    let mut wrong = Vec::new();
    for page in pages() {
        for word in words(&fs::read_to_string(&page).expect("read a page")) {
            let Some((first, rest)) = word.split_once('/') else { continue };
            // `src/prim/GROUP.rs` stands for any of them.
            let is_any =
                rest.split(['/', '.']).any(|part| part.len() > 1 && !part.chars().any(|c| c.is_ascii_lowercase()));
            let is_ours = !first.is_empty() && first != "..";
            let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            let in_src = root().join("src").join(first).is_dir();
            if !is_ours || is_any || !rest.chars().all(is_path) || !(in_src || top.iter().any(|name| name == first)) {
                continue;
            }
            // A module of the program is written as in Rust, without `src` and its ending.
            let below_src = root().join("src").join(&word);
            let places = [root().join(&word), below_src.with_extension("rs"), below_src];
            // `pools/10.0.0.0-24` and the like are keys of the store, and no folder has their name.
            if !places.iter().any(|path| path.exists()) {
                wrong.push(format!("{}: `{word}`", page.display()));
            }
        }
    }
    none("paths that lead nowhere", &wrong);
}

/// Kind of fault: the architecture explains a function that was renamed.
#[test]
fn the_names_in_the_architecture_are_there() {
    let mut paths = Vec::new();
    for folder in ["src", "tests"] {
        files(&root().join(folder), "rs", &mut paths);
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let texts: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).expect("read a source")).collect();
    let known: BTreeSet<&str> = texts.iter().flat_map(|text| text.split(|c: char| !is_name(c))).collect();
    let mut wrong = Vec::new();
    for page in ["docs/architecture.md", "docs/security.md", "docs/performance.md", "CONTRIBUTING.md"] {
        for word in words(&read(page)) {
            let name = word.trim_end_matches(['!', '…']);
            let is_rust = name.contains("::") || name.starts_with(|c: char| c.is_ascii_uppercase());
            let mut parts = name.split("::").filter(|part| !part.is_empty());
            // A word in capitals stands for what a reader has there, or for what the kernel calls so.
            let is_one = name.chars().all(|c| is_name(c) || c == ':') && name.chars().any(|c| c.is_ascii_lowercase());
            if is_rust && is_one && !parts.all(|part| known.contains(part)) {
                wrong.push(format!("{page}: `{word}`"));
            }
        }
    }
    none("names that the sources do not have", &wrong);
}

/// Kind of fault: a tool that reads `.editorconfig` changes lines that nobody edited.
#[test]
fn the_files_keep_to_the_editor_settings() {
    let settings = read(".editorconfig");
    let free: Vec<&str> =
        settings.split("\n[").filter(|part| part.contains("trim_trailing_whitespace = false")).collect();
    let free: Vec<&str> = free.iter().filter_map(|part| part.split(']').next()).collect();
    let width = read("rustfmt.toml").lines().find_map(|line| line.strip_prefix("max_width = ").map(String::from));
    assert!(
        settings.contains(&format!("max_line_length = {}\n", width.expect("a width"))),
        "rustfmt.toml has another width"
    );
    let mut paths = pages();
    for ending in ["rs", "rhai", "sh", "py", "yml"] {
        for folder in ["src", "tests", "benches", "stdlib", "scripts", "examples"] {
            files(&root().join(folder), ending, &mut paths);
        }
    }
    for name in
        [".ci/run", ".editorconfig", "justfile", "deny.toml", "Cargo.toml", "rust-toolchain.toml", "rustfmt.toml"]
    {
        paths.push(root().join(name));
    }
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("read a file");
        let is_free = free.iter().any(|name| path.ends_with(name));
        let mut untidy: Vec<usize> = (1..)
            .zip(text.lines())
            .filter(|(_, line)| line.contains('\r') || (!is_free && line.ends_with([' ', '\t'])))
            .map(|(number, _)| number)
            .collect();
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            untidy.push(text.lines().count());
        }
        wrong.extend(untidy.iter().map(|number| format!("{}:{number}", path.display())));
    }
    none("lines with spaces at their end, or no end", &wrong);
}

/// The releases of Rust are said in three files.
#[test]
fn the_releases_of_rust_fit() {
    let value = |file: &str, key: &str| {
        let text = read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(key).map(String::from));
        line.unwrap_or_else(|| panic!("{file} has no `{key}`")).trim_matches('"').to_string()
    };
    let numbers = |text: &str| text.split('.').map(|part| part.parse::<u32>().expect("a number")).collect::<Vec<_>>();
    let (oldest, used) = (value("Cargo.toml", "rust-version = "), value("rust-toolchain.toml", "channel = "));
    assert!(numbers(&oldest) <= numbers(&used), "{used} is older than {oldest}");
    assert!(
        read("README.md").contains(&format!("Rust {oldest} or later")),
        "the README names another release than {oldest}"
    );
}

/// Tells whether a licence may be chosen so that all its parts are allowed: an expression of SPDX, or the older `A/B`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    either(&mut words.into_iter().peekable(), allowed)
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn either(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut is = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is |= both(words, allowed);
    }
    is
}

fn both(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut is = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is &= one(words, allowed);
    }
    is
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let is = either(words, allowed);
        return is && words.next() == Some(")");
    }
    // `MPL-2.0+` is that one or a later one.
    let name = words.next().unwrap_or_default().trim_end_matches('+');
    // An exception to a licence gives more than the licence does.
    if words.next_if_eq(&"WITH").is_some() {
        words.next();
    }
    allowed.iter().any(|licence| licence == name)
}

/// Kind of fault: a dependency comes in that the program can't be passed on with, or from elsewhere than crates.io.
#[test]
fn the_dependencies_are_allowed() {
    let settings = read("deny.toml");
    let list =
        settings.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']')).expect("a list of licences").0;
    let allowed: Vec<String> = list.split(',').map(|word| word.trim().trim_matches('"').to_string()).collect();
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("run cargo");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let found: Value = serde_json::from_slice(&cargo.stdout).expect("JSON");
    let packages = found["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "only {} packages", packages.len());
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| package["name"] != "toposcript") {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence}"));
        }
        if package["source"] != "registry+https://github.com/rust-lang/crates.io-index" {
            wrong.push(format!("{name}: from {}", package["source"]));
        }
    }
    none("dependencies against deny.toml", &wrong);
    for (licence, is) in [
        ("MIT/GPL-3.0", true),
        ("GPL-3.0-only", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("none", false),
    ] {
        assert_eq!(is_allowed(licence, &allowed), is, "{licence}");
    }
}

/// A heading's address, as GitHub makes it.
fn address(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Kind of fault: a link to a page or a chapter that was renamed.
#[test]
fn the_links_on_the_pages_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("read a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, chapter) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            let has_chapter = || {
                let text = fs::read_to_string(&target).unwrap_or_default();
                text.lines().any(|line| line.starts_with('#') && address(line) == chapter)
            };
            if !link.starts_with("http") && !(target.exists() && (chapter.is_empty() || has_chapter())) {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    none("links that lead nowhere", &wrong);
    assert_eq!(address("## Why `it` is so, 2"), "why-it-is-so-2");
}

#[test]
fn words_in_blocks_are_left_out() {
    assert_eq!(words("a `b/c` d\n```sh\nls `x/y`\n```\n`e`"), ["b/c", "e"]);
}
