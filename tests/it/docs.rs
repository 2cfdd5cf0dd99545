//! The documentation is true: every example in it runs, every output in it is what is printed, every page that is made from the
//! code is what the code makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toposcript::for_tests::{Dirs, Entry, Header, library, primitives};

use crate::page::{Block, Reader, blocks, compare, read};
use crate::world::{World, in_user_world, in_world};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `work` with the state directory there already: what a first run makes and keeps is not what it leaves behind.
fn in_used_world(work: impl FnOnce(&World)) {
    crate::stage::in_used_world("", |world, _| work(world));
}

/// Each entry's example, in a world that it must leave as it was.
#[test]
fn every_example_of_the_reference_runs() {
    let entries: Vec<Entry> = primitives().into_iter().chain(library(&Dirs::default())).collect();
    let examples: Vec<(String, String)> =
        entries.into_iter().filter_map(|entry| Some((entry.full_name(), entry.doc.example?))).collect();
    assert!(examples.len() > 30, "only {} examples were found", examples.len());
    in_used_world(|world| {
        let before = world.snapshot();
        for (name, example) in examples {
            let ran = world.topo_stdin(&example, &["run", "--rm", "-"]);
            assert_eq!(ran.code, 0, "the example of `{name}`:\n{example}\n{}{}", ran.out(), ran.err());
            world.assert_clean_so_far(&before);
        }
    });
}

/// `UPDATE_EXPECT=1 cargo test --test it docs` writes the page anew.
#[test]
fn the_reference_is_what_topo_prints() {
    let mut made = String::new();
    in_used_world(|world| {
        let print = || world.topo(&["doc", "--markdown"]).ok().out().to_string();
        made = print();
        assert!(print() == made, "made twice, it differs");
    });
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(root().join("docs/reference.md"), &made).expect("write docs/reference.md");
    }
    assert!(
        read("docs/reference.md") == made,
        "docs/reference.md is stale: `cargo run -- doc --markdown > docs/reference.md` makes it anew"
    );
}

fn scripts(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .unwrap_or_else(|err| panic!("list {folder}: {err}"))
        .map(|entry| entry.expect("list a folder").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "rhai"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no scripts");
    files
}

#[test]
fn every_shipped_script_runs_as_root() {
    in_used_world(|world| {
        let before = world.snapshot();
        for file in scripts("examples") {
            let ran = world.topo(&["run", "--rm", &file.display().to_string()]).ok();
            assert!(ran.out().contains("ok  "), "{} checks nothing", file.display());
            world.assert_clean(&before);
        }
        for file in scripts("scripts") {
            let word = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let ran = world.topo(&[&word, "--rm"]).ok();
            assert!(ran.out().contains("ok  "), "{word} checks nothing");
            world.assert_clean(&before);
        }
    });
}

/// The files of the tree may be closed to an ordinary user: they are copied to where it may read.
#[test]
fn every_example_runs_as_an_ordinary_user() {
    in_user_world(|world| {
        for file in scripts("examples") {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            world.write(&name, &fs::read_to_string(&file).expect("read an example"));
            world.topo(&["run", "--rm", &name]).ok().says("ok  ");
        }
        world.topo(&["veth-pair", "--rm", "--subnet", "10.7.0.0/24"]).ok().says("ok  ");
        world.topo(&["bridge", "--rm", "--subnet", "fd00:7::/64"]).ok().says("ok  ");
        world.run("rm -rf state/* ./*.rhai");
    });
}

/// A header says what a script shows, and its `ip` commands, typed by hand, make the same network.
#[test]
fn the_commands_in_the_headers_do_what_the_scripts_do() {
    for file in scripts("examples").into_iter().chain(scripts("scripts")) {
        let text = fs::read_to_string(&file).expect("read a script");
        let header = Header::parse(&text).unwrap_or_else(|err| panic!("{}: {err}", file.display()));
        assert!(header.about.ends_with('.'), "{}: its first sentence", file.display());
        let commands: Vec<&str> =
            header.long.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| is_command(line)).collect();
        // What takes a page of rules by hand is shown by topo's own commands.
        if commands.is_empty() && header.long.contains("topo ") {
            continue;
        }
        assert!(commands.iter().any(|line| line.contains("ip ")), "{} names no `ip` command", file.display());
        let (by_hand, by_topo) = (World::new(), World::new());
        by_hand.run(&format!("sysctl() {{ /sbin/sysctl -q \"$@\"; }}\n{}", commands.join("\n"))).ok();
        by_topo.topo(&["run", &file.display().to_string()]).ok();
        assert_eq!(network_of(&by_topo), network_of(&by_hand), "{}: topo's (left), by hand (right)", file.display());
    }
}

/// Drawings stand in headers too: a command begins with a word of the shell.
fn is_command(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or("");
    matches!(word, "ip" | "for" | "do" | "done" | "ping" | "sysctl" | "nft")
}

/// Returns the addresses and routes of every namespace of a world, as `ip` shows them, without what two runs never share.
fn network_of(world: &World) -> String {
    let names = world.run("ip netns list | cut -d' ' -f1 | sort").ok();
    let mut text = String::new();
    for netns in std::iter::once("").chain(names.out().lines()) {
        let ip = if netns.is_empty() { String::new() } else { format!("-n {netns} ") };
        text.push_str(&format!("netns {netns}\n"));
        for question in ["-br addr show", "route show", "-6 route show"] {
            let answer = world.ip(&format!("{ip}{question}"));
            let mut lines: Vec<String> =
                answer.lines().filter(|line| !line.starts_with("fe80")).map(without_chance).collect();
            lines.sort();
            text.extend(lines.iter().map(|line| format!("{line}\n")));
        }
    }
    text
}

/// Leaves out link-local addresses, the index of a veth's other end, the state, which the kernel settles a moment later, and
/// our protocol number.
fn without_chance(line: &str) -> String {
    let chance = |word: &str| word.starts_with("fe80::") || matches!(word, "UP" | "DOWN" | "UNKNOWN" | "linkdown");
    let words = line.split_whitespace().filter(|word| !chance(word));
    let mut shown: Vec<&str> = words.map(|word| word.split('@').next().unwrap_or(word)).collect();
    if let Some(at) = shown.windows(2).position(|pair| pair == ["proto", "84"]) {
        shown.drain(at..at + 2);
    }
    shown.join(" ")
}

/// The README's blocks: `rhai` is a file of the examples, `console` is what is typed and what is then printed (`page.rs`), `sh` are
/// commands.
#[test]
fn every_block_of_the_readme_is_true() {
    let blocks = blocks(&read("README.md"));
    let kinds: Vec<&str> = blocks.iter().map(|block| block.kind.as_str()).collect();
    assert!(kinds.contains(&"rhai") && kinds.contains(&"console") && kinds.contains(&"sh"), "{kinds:?}");
    in_used_world(|world| {
        let before = world.snapshot();
        world.run(&format!("ln -s {}/examples examples", root().display())).ok();
        let mut reader = Reader::new(world);
        let mut seen: Vec<(Block, String)> = Vec::new();
        for block in blocks {
            let text = &block.text;
            match block.kind.as_str() {
                "rhai" => {
                    let same = scripts("examples").iter().any(|file| {
                        fs::read_to_string(file).is_ok_and(|script| script.ends_with(&format!("\n{text}")))
                    });
                    assert!(same, "no example is this script:\n{text}");
                }
                "console" => {
                    let now = reader.types(text);
                    seen.push((block, now));
                }
                "sh" => command(world, text.trim()),
                other => panic!("a block of kind `{other}` that no test runs"),
            }
        }
        assert!(!reader.is_in_repl(), "the README leaves a session open");
        compare("README.md", &seen);
        // What the session keeps for its user: the script that it saved, and what was typed.
        world.run("rm -r examples lan.rhai home/.local").ok();
        world.topo(&["down", "--all"]).ok();
        world.assert_clean(&before);
    });
}

/// Runs a block's command: `cargo run` as the binary that these tests were built with, `cargo test` is what runs this.
fn command(world: &World, line: &str) {
    if line == "cargo test" {
        return;
    }
    let words = line.strip_prefix("cargo run --release -- ").unwrap_or_else(|| panic!("no test runs `{line}`"));
    world.topo(&words.split(' ').collect::<Vec<_>>()).ok();
}

/// The blocks of the guide to topologies are scripts, each whole by itself; each checks something that holds.
#[test]
fn every_block_of_the_guide_to_topologies_runs() {
    let blocks = blocks(&read("docs/topologies.md"));
    assert!(blocks.len() >= 5 && blocks.iter().all(|block| block.kind == "rhai"), "{} blocks", blocks.len());
    in_used_world(|world| {
        let before = world.snapshot();
        for block in blocks {
            world.topo_stdin(&block.text, &["run", "--rm", "-"]).ok().says("ok  ");
            world.assert_clean(&before);
        }
    });
}

/// The scripts of the guide to tests are files of tests that pass.
#[test]
fn every_block_of_the_guide_to_tests_passes() {
    let blocks: Vec<Block> =
        blocks(&read("docs/testing.md")).into_iter().filter(|block| block.kind == "rhai").collect();
    assert!(blocks.len() >= 4, "{} blocks", blocks.len());
    in_used_world(|world| {
        for (number, block) in blocks.iter().enumerate() {
            world.write(&format!("tests/{number}.rhai"), &block.text);
        }
        let ran = world.topo(&["test", "--no-skip"]).ok();
        ran.says(&format!("{} passed", blocks.len()));
    });
}

/// A world's own smoke test, so that a hole in `in_world` shows here and not as a clean run.
#[test]
fn the_first_run_makes_only_the_state_directory() {
    in_world(|world| {
        world.topo(&["run", "--rm", "-e", "netns(\"h1\")"]).ok();
        let left = world.run("find state -mindepth 1 | sort").ok();
        assert_eq!(left.out(), "state/labs\nstate/lock\nstate/secret\n");
        world.run("rm -r state/labs state/lock state/secret").ok();
    });
}

/// Each line of the page of pitfalls has a test that holds it: one whose name has its code, or those that the line names. And each code of
/// a test has its line.
#[test]
fn each_pitfall_has_its_tests() {
    let mut files: Vec<PathBuf> = ["src", "tests"].map(|folder| root().join(folder)).into();
    let mut functions: Vec<String> = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).expect("list a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ext| ext == "rs" || ext == "rhai") {
            let text = fs::read_to_string(&path).expect("read a source");
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split_once('('));
            functions.extend(names.map(|(name, _)| name.to_string()));
        }
    }
    let is_code = |word: &str| {
        let digits = word.strip_prefix(['i', 'n', 'd']).unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let codes = |name: &str| name.split('_').take_while(|word| is_code(word)).map(String::from).collect::<Vec<_>>();
    let held: BTreeSet<String> = functions.iter().flat_map(|name| codes(name)).collect();
    let page = read("docs/pitfalls.md");
    let mut told = BTreeSet::new();
    let mut wrong = Vec::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let code = cells[0].to_lowercase();
        match cells.get(3) {
            _ if code == "code" || code.starts_with("---") => {}
            Some(names) => {
                let named: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
                let is_there = |name: &&str| functions.iter().any(|function| function == *name);
                if named.is_empty() || !named.iter().all(is_there) {
                    wrong.push(format!("{code}: a test of {named:?} is not there"));
                }
            }
            None if !held.contains(&code) => wrong.push(format!("{code} has no test")),
            None => _ = told.insert(code),
        }
    }
    wrong.extend(held.difference(&told).map(|code| format!("{code} is not on the page")));
    assert!(wrong.is_empty() && told.len() > 40, "{wrong:#?}");
}
