//! The primitives' and the standard library's own tests, written in Rhai: `tests/suite/GROUP.rhai` for `src/prim/*/GROUP.rs`,
//! `tests/stdlib/MODULE.rhai` for `stdlib/MODULE.rhai`.
//!
//! `topo test` runs them as it runs any user's tests: each `fn test_…()` in a sandbox of its own, with a look for what was left. It must
//! leave the world around it as it was, too. A wrong call is marked at its line's end:
//!
//! ```rhai
//! /// Both ends of a cable are told apart by their names.
//! fn test_ends_differ() {
//!     veth("a", "a");  //~ invalid: both ends
//! }
//! ```
//!
//! Of a function with marks, every marked line is a run of its own in which the other marked lines are blank. It must fail with an
//! error of this kind, at this line, with this text in its message or hint. A function without marks must succeed.
//!
//! A skipped test is a failure, but for those in `ON_THE_HOST`: they are about the host itself, which a sandbox is not. Those, and one
//! test of each file with marks, also run as `topo run --rm` runs them: with its exit codes, its `--json` and its text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::stage::USE_ALL;
use crate::tidy::{files, root};
use crate::tier::full;
use crate::world::{Ran, Snapshot, World};

/// Tests at once. More than there are processors, since a test mostly waits for the kernel.
const AT_ONCE: &str = "4";

/// The tests that can't be done in a sandbox, with their files.
const ON_THE_HOST: [(&str, &str); 1] = [("suite/records.rhai", "test_host_only")];

/// The tests of the full tier, with their files: each builds a bridge with all the ports that it can have.
const FULL_TIER: [(&str, &str); 2] = [("suite/bridge.rhai", "test_full"), ("suite/veth.rhai", "test_full_bridge")];

/// A file of tests.
pub(crate) struct Suite {
    path: PathBuf,
    text: String,
    pub(crate) tests: Vec<Test>,
}

/// One test function.
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) line: usize,
    documented: bool,
    pub(crate) marks: Vec<Mark>,
}

/// A line that must fail.
#[derive(Clone)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    kind: String,
    text: String,
}

impl Suite {
    pub(crate) fn read(path: PathBuf) -> Suite {
        let text = fs::read_to_string(&path).unwrap_or_else(|err| panic!("read {}: {err}", path.display()));
        let mut tests: Vec<Test> = Vec::new();
        let mut before = "";
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                let documented = before.starts_with("/// ") && before.trim_end().ends_with('.');
                tests.push(Test { name: name.into(), line: number, documented, marks: Vec::new() });
            }
            if let Some((_, mark)) = line.split_once("//~ ") {
                let (kind, said) =
                    mark.split_once(": ").unwrap_or_else(|| panic!("{}:{number}: `//~ KIND: TEXT`", path.display()));
                let test = tests.last_mut().unwrap_or_else(|| panic!("{}:{number}: outside a test", path.display()));
                test.marks.push(Mark { line: number, kind: kind.into(), text: said.trim().into() });
            }
            before = line;
        }
        // Functions that tests call are no tests.
        tests.retain(|test| test.name.starts_with("test_"));
        Suite { path, text, tests }
    }

    /// Returns the script of one case: all of the file with its line numbers, but for the marked lines that are not `mark`'s.
    pub(crate) fn script(&self, test: &Test, mark: Option<&Mark>) -> String {
        let keep = |(number, line): (usize, &str)| match line.contains("//~ ") && Some(number) != mark.map(|m| m.line) {
            true => "\n".to_owned(),
            false => format!("{line}\n"),
        };
        let body: String = (1..).zip(self.text.lines()).map(keep).collect();
        format!("{body}{}();\n", test.name)
    }

    pub(crate) fn file(&self) -> String {
        self.path.file_name().expect("a file").to_string_lossy().into_owned()
    }

    /// Returns what is wrong with the file itself: each test has a sentence, and a name of its own.
    pub(crate) fn untidy(&self) -> Vec<String> {
        let file = self.file();
        assert!(!self.tests.is_empty(), "{file} has no tests");
        let mut wrong: Vec<String> = Vec::new();
        let mut names = BTreeSet::new();
        for test in &self.tests {
            if !test.documented {
                wrong.push(format!("{file}:{}: `{}` lacks its `///` sentence", test.line, test.name));
            }
            if !names.insert(&test.name) {
                wrong.push(format!("{file}:{}: a second `{}`", test.line, test.name));
            }
        }
        wrong
    }

    /// Runs one test function in a world as `topo run` does, with its first marked line if it has any; returns what went wrong there.
    fn run(&self, test: &Test, world: &World, before: &Snapshot) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut complain = |line: usize, ran: &Ran, what: String| {
            wrong.push(format!(
                "{}:{line}: {}: {what}\n{}{}",
                self.path.display(),
                test.name,
                indented(ran.out()),
                indented(ran.err())
            ));
        };
        if test.marks.is_empty() {
            world.write(&self.file(), &self.script(test, None));
            let ran = world.topo(&["run", "--rm", &self.file()]);
            if ran.code != 0 {
                complain(test.line, &ran, format!("exit code {}", ran.code));
            }
        }
        for mark in test.marks.iter().take(1) {
            world.write(&self.file(), &self.script(test, Some(mark)));
            let ran = world.topo(&["run", "--rm", &self.file()]);
            let spot = format!("{}:{}:", self.file(), mark.line);
            if !ran.err().contains(&spot) {
                complain(mark.line, &ran, format!("`{spot}` is not named"));
            }
            let ran = world.topo(&["run", "--rm", "--json", &self.file()]);
            if ran.code != 1 {
                complain(mark.line, &ran, format!("exit code {} instead of 1", ran.code));
            } else if let Err(what) = agrees(ran.out(), &self.file(), mark) {
                complain(mark.line, &ran, what);
            }
        }
        wrong.extend(
            left_behind(world, before)
                .map(|said| format!("{}:{}: {}: {said}", self.path.display(), test.line, test.name)),
        );
        wrong
    }
}

/// Tells what isn't as before.
fn left_behind(world: &World, before: &Snapshot) -> Option<String> {
    let clean = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.assert_clean(before)));
    clean.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

/// Compares the error that `--json` gives with what the mark says.
pub(crate) fn agrees(printed: &str, file: &str, mark: &Mark) -> Result<(), String> {
    let json: Value = serde_json::from_str(printed).map_err(|err| format!("`--json` printed no JSON: {err}"))?;
    let error = &json["error"];
    let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    if word("kind") != mark.kind {
        return Err(format!("the kind is `{}`, not `{}`", word("kind"), mark.kind));
    }
    if !word("message").contains(&mark.text) && !word("hint").contains(&mark.text) {
        return Err(format!("neither message nor hint says `{}`", mark.text));
    }
    // The innermost place may be in a module.
    let here = |spot: &Value| spot["source"] == file && spot["line"].as_u64() == Some(mark.line as u64);
    match error["at"].as_array().is_some_and(|spots| spots.iter().any(here)) {
        true => Ok(()),
        false => Err(format!("the line is none of {}", error["at"])),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Makes a world that topo has used before, as its state directory tells from then on: with the lock of the host's ports.
fn used_world() -> (World, Snapshot) {
    let world = World::new();
    world.topo(&["run", "--rm", "--name", "first", "-e", USE_ALL]).ok();
    let before = world.snapshot();
    (world, before)
}

/// Runs all tests of a file by `topo test`, and some by `topo run`.
fn check_file(file: &str) {
    let suite = Suite::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file));
    let mut wrong = suite.untidy();
    wrong.extend(known_before(&suite));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (world, before) = used_world();
    let path = suite.path.display().to_string();
    let is_run = |test: &&Test| full() || !FULL_TIER.contains(&(file, &test.name));
    let there: Vec<&Test> = suite.tests.iter().filter(is_run).collect();
    // All, as a user names them, or those that are left.
    let named = match there.len() == suite.tests.len() {
        true => vec![path.clone()],
        false => there.iter().map(|test| format!("{path}::{}", test.name)).collect(),
    };
    let options = ["test", "--json", "--jobs", AT_ONCE, "--timeout", "10m"].into_iter();
    let running = world.start_topo(&options.chain(named.iter().map(String::as_str)).collect::<Vec<_>>());
    // The report comes at the end, and a bridge with all the ports that it can have takes minutes where others build, too.
    running.wait_for_output("\"tests\": [", Duration::from_secs(900));
    let ran = running.wait();
    let report: Value =
        serde_json::from_str(ran.out()).unwrap_or_else(|err| panic!("`topo test --json`: {err}: {ran:?}"));
    let rows = report["tests"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["test"].as_str()).collect();
    let wanted: Vec<&str> = there.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names, wanted, "the tests that `topo test` finds in {file}");
    let mut host_only = Vec::new();
    for (row, test) in rows.iter().zip(there) {
        let on_the_host = ON_THE_HOST.contains(&(file, &test.name));
        match (row["status"].as_str().unwrap_or_default(), on_the_host) {
            ("skipped", true) => host_only.push(test),
            ("passed" | "expected_failure", false) => {}
            (status, _) => {
                let errors = row["errors"].as_array().cloned().unwrap_or_default();
                let texts: String = errors.iter().filter_map(|error| error["text"].as_str()).collect();
                let more = format!("{} {}", row["reason"], row["output"]);
                wrong.push(format!(
                    "{path}:{}: {}: {status}\n{}{}",
                    test.line,
                    test.name,
                    indented(&texts),
                    indented(&more)
                ));
            }
        }
    }
    if ran.code != i32::from(report["failed"] != 0) {
        wrong.push(format!("{path}: exit code {}", ran.code));
    }
    wrong.extend(left_behind(&world, &before));
    let marked = suite.tests.iter().find(|test| !test.marks.is_empty());
    for test in host_only.into_iter().chain(marked) {
        wrong.extend(suite.run(test, &world, &before));
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{} wrong in {file}:\n\n{}", wrong.len(), wrong.join("\n"));
}

/// What `topo check` finds in a file of tests is a line that is marked: it has no false alarms.
fn known_before(suite: &Suite) -> Vec<String> {
    let world = World::new();
    let path = suite.path.display().to_string();
    let ran = world.topo(&["check", "--json", &path]);
    let found: Vec<Value> =
        serde_json::from_str(ran.out()).unwrap_or_else(|err| panic!("`topo check --json`: {err}: {ran:?}"));
    let marked: BTreeSet<u64> = suite.tests.iter().flat_map(|test| &test.marks).map(|mark| mark.line as u64).collect();
    let alarm = |failure: &&Value| failure["at"][0]["line"].as_u64().is_none_or(|line| !marked.contains(&line));
    found.iter().filter(alarm).map(|failure| format!("{path}: a false alarm of `topo check`: {failure}")).collect()
}

/// Makes a test function of each file, so that one can be run by its name. libtest-mimic would list the folder, but in a binary of its
/// own, which compiles `world` a second time; here a test holds the list complete.
macro_rules! suites {
    ($dir:literal: $($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                super::check_file(concat!($dir, "/", stringify!($name), ".rhai"));
            }
        )+

        #[test]
        fn every_file_is_run() {
            let mut files = super::files_in(concat!("tests/", $dir), "rhai");
            let mut named = vec![$(stringify!($name)),+];
            files.sort();
            named.sort();
            assert_eq!(files, named, "the files of tests/{} and the list in tests/it/suite.rs", $dir);
        }
    };
}

pub(crate) fn files_in(dir: &str, extension: &str) -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = fs::read_dir(&dir).unwrap_or_else(|err| panic!("list {}: {err}", dir.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let named = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    named.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

mod primitives {
    suites!("suite": netns veth dev bridge port links vlan vxlan fdb tunnel bond vrf dummy tap shape addr route rule neigh sysctl endpoint
        masquerade dnat filter process start resolver ping check errors value labs ipam records within graph tcp http sees path
        serve throughput refusals);
}

mod stdlib {
    suites!("stdlib": lan network container topology segment router nat expect bird dhcp dns wan);
}

/// Every group of primitives has its file of tests, and every module of the library.
#[test]
fn every_group_has_its_tests() {
    let mut groups: Vec<PathBuf> = Vec::new();
    files(&root().join("src/prim"), "rs", &mut groups);
    groups.retain(|path| fs::read_to_string(path).expect("a source").contains("const GROUP: Group"));
    assert!(groups.len() > 30, "only {groups:?}");
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let tested = files_in("tests/suite", "rhai");
    let missing: Vec<_> =
        groups.iter().map(|path| name(path.as_path())).filter(|group| !tested.contains(group)).collect();
    assert!(missing.is_empty(), "tests/suite lacks {missing:?}");
    let tested = files_in("tests/stdlib", "rhai");
    let missing: Vec<_> = files_in("stdlib", "rhai").into_iter().filter(|module| !tested.contains(module)).collect();
    assert!(missing.is_empty(), "tests/stdlib lacks {missing:?}");
}
