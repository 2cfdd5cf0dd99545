//! Tests on another kernel: what this machine's may lack (netem, VLANs, VRFs, tunnels …) is tested on the one that Debian
//! builds for clouds, in a machine that QEMU emulates, in the full tier. It needs no root and no KVM, has no network, and is booted once for all tests.
//!
//! Which tests run there is in the lists at this file's end:
//!
//! - `tests/vm/NAME.rhai` is made for the machine: nothing is lacking there, so nothing need be caught.
//! - `tests/suite/NAME.rhai` runs on this machine too, where it must pass without the feature.
//!
//! Examples that can only say here what is lacking run there for real (`EXAMPLES`).
//!
//! To add a test, write an `fn test_…()` into one of these, as tests/it/suite.rs says; to add a file, name it in its list. A
//! kernel module that isn't loaded yet goes into `MODULES` in `kernel.rs`, a tool into `TOOLS` in `machine.rs`. One file by itself:
//! `TOPO_VM_ONLY=smoke cargo test --test it vm::`; `--nocapture` shows when the machine was ready and done.
//!
//! Without QEMU, busybox or that kernel, these tests are skipped by name and say so, and where `CI` is set they fail.
//! `TOPO_VM_KERNEL` is a directory with the kernel to take instead (`boot/vmlinuz-*`, `lib/modules/*`).
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod.rs` | which tests run in the machine, and what they must say |
//! | `machine.rs` | the machine: boots, listens, gives what each case said |
//! | `kernel.rs` | where the kernel comes from, and which modules it loads |
//! | `initrd.rs` | the machine's files, as an archive |
//! | `init.sh` | the machine's first process |

mod initrd;
mod kernel;
mod machine;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use machine::{Case, Ran};

use crate::suite::{Mark, Suite, Test, agrees, files_in};

/// What the machine did, which each test looks at; or why there is none.
fn ran() -> &'static Result<Ran, String> {
    static RAN: OnceLock<Result<Ran, String>> = OnceLock::new();
    RAN.get_or_init(|| machine::run(Path::new(env!("CARGO_BIN_EXE_topo")), &all_cases()))
}

/// Looks at how the tests of one file ended.
fn check_file(file: &str) {
    if !is_wanted(file) {
        return;
    }
    let ran = match ran() {
        Ok(ran) => ran,
        Err(lacking) if std::env::var_os("CI").is_some() => panic!("no machine for {file}: {lacking}"),
        Err(lacking) => return skip(file, lacking),
    };
    let suite = read(file);
    let mut wrong = suite.untidy();
    for case in cases_of(file, &suite) {
        let spot = format!("tests/{file}:{}: {}", case.mark.map_or(case.test.line, |mark| mark.line), case.test.name);
        let Some(heard) = ran.cases.get(&case.name) else {
            wrong.push(format!("{spot}: it was not run"));
            continue;
        };
        let found = match case.mark {
            None if heard.code != 0 => Err(format!("exit code {}", heard.code)),
            None => Ok(()),
            Some(_) if heard.code != 1 => Err(format!("exit code {} instead of 1", heard.code)),
            Some(mark) => agrees(heard.said.trim(), &suite.file(), mark),
        };
        if let Err(what) = found {
            wrong.push(format!("{spot}: {what}\n{}", indented(&heard.said)));
        }
    }
    let console: Vec<&str> = ran.console.lines().collect();
    let last = console[console.len().saturating_sub(30)..].join("\n");
    assert!(wrong.is_empty(), "{} wrong in {file}:\n\n{}\nconsole:\n{last}", wrong.len(), wrong.join("\n"));
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}\n")).collect()
}

fn read(file: &str) -> Suite {
    Suite::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file))
}

/// Tells whether a file's tests are asked for: all are, unless `TOPO_VM_ONLY` names some.
fn is_wanted(file: &str) -> bool {
    let Ok(only) = std::env::var("TOPO_VM_ONLY") else { return true };
    only.split(',').any(|name| Path::new(file).file_stem().is_some_and(|stem| stem.to_string_lossy() == name))
}

/// One run of `topo` in the machine.
struct Named<'s> {
    name: String,
    test: &'s Test,
    mark: Option<&'s Mark>,
}

/// Returns the runs of a file: one for each test, or one for each marked line of it.
fn cases_of<'s>(file: &str, suite: &'s Suite) -> Vec<Named<'s>> {
    let stem = suite.file().trim_end_matches(".rhai").to_owned();
    // What is refused before the kernel is asked is refused on this machine too.
    let with_marks = file.starts_with("vm/");
    let mut cases = Vec::new();
    for test in &suite.tests {
        if test.marks.is_empty() {
            cases.push(Named { name: format!("{stem}-{}", test.name), test, mark: None });
        }
        for mark in test.marks.iter().filter(|_| with_marks) {
            cases.push(Named { name: format!("{stem}-{}-{}", test.name, mark.line), test, mark: Some(mark) });
        }
    }
    cases
}

/// Returns all that the machine shall run.
fn all_cases() -> BTreeMap<String, Case> {
    let mut cases = BTreeMap::new();
    for file in FILES.iter().filter(|file| is_wanted(file)) {
        let suite = read(file);
        for Named { name, test, mark } in cases_of(file, &suite) {
            let run = match mark {
                None => format!("topo run --rm {}\n", suite.file()),
                Some(_) => format!("topo run --rm --json {} 2>/dev/null\n", suite.file()),
            };
            let files =
                vec![(suite.file(), suite.script(test, mark).into_bytes()), ("run".to_owned(), run.into_bytes())];
            cases.insert(name, Case { files });
        }
    }
    for (name, _) in EXAMPLES.iter().filter(|(name, _)| is_wanted(name)) {
        cases.insert(format!("example-{name}"), example(name));
    }
    cases
}

/// The examples that say on this machine that something is lacking, with a line that they print where nothing is.
const EXAMPLES: &[(&str, &str)] = &[
    ("11-vlans", "ok   h1 reaches h2, through the router"),
    ("13-bad-link", "ok   nothing comes back where all answers are lost"),
];

fn example(name: &str) -> Case {
    let file = format!("{name}.rhai");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(&file);
    let text = std::fs::read(&path).unwrap_or_else(|err| panic!("read {}: {err}", path.display()));
    let run = format!("topo run --rm {file} 2>&1\n");
    Case { files: vec![(file, text), ("run".to_owned(), run.into_bytes())] }
}

/// Each example does in the machine what it is there to show.
#[test]
#[ignore = "full tier"]
fn examples_show_what_this_machine_lacks() {
    let wanted: Vec<_> = EXAMPLES.iter().filter(|(name, _)| is_wanted(name)).collect();
    if wanted.is_empty() {
        return;
    }
    let ran = match ran() {
        Ok(ran) => ran,
        Err(lacking) if std::env::var_os("CI").is_some() => panic!("no machine for the examples: {lacking}"),
        Err(lacking) => return skip("examples", lacking),
    };
    for (name, line) in wanted {
        let heard = ran.cases.get(&format!("example-{name}")).unwrap_or_else(|| panic!("{name} was not run"));
        assert!(heard.code == 0 && heard.said.contains(line), "{name}: exit code {}\n{}", heard.code, heard.said);
    }
}

/// Says past libtest, which keeps what a test that passes prints, that a test was not run.
fn skip(file: &str, lacking: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    // In one piece, beside what other tests say.
    let line = format!("\nskipped, number {count}: {file} in a machine of its own: {lacking}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// Makes a test of each file, so that one can be run by its name.
macro_rules! machine {
    ($($dir:ident: $($name:ident)+;)+) => {
        /// The files whose tests run in the machine.
        const FILES: &[&str] = &[$($(concat!(stringify!($dir), "/", stringify!($name), ".rhai")),+),+];

        $(
            mod $dir {
                $(
                    #[test]
                    #[ignore = "full tier"]
                    fn $name() {
                        super::check_file(concat!(stringify!($dir), "/", stringify!($name), ".rhai"));
                    }
                )+
            }
        )+
    };
}

machine! {
    vm: smoke links shape;
    suite: links vlan vxlan fdb dummy vrf bond tunnel port;
}

#[test]
fn every_file_of_the_machine_is_run() {
    for name in files_in("tests/vm", "rhai") {
        assert!(
            FILES.contains(&format!("vm/{name}.rhai").as_str()),
            "tests/vm/{name}.rhai is not in tests/it/vm/mod.rs"
        );
    }
}
