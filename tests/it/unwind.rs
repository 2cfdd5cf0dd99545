//! Crash safety: whatever operation on the kernel fails, or is the last one before a SIGKILL, nothing stays behind.
//!
//! The seam is `TOPO_FAULT` (src/net/fault.rs): the n-th operation of the process fails, or kills it. A kill tells by the
//! exit code whether there was an n-th one, so the kills also tell how many points the failures have to go through.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::stage::{KILLED, collect_cut_down, in_used_user_world, in_used_world, with_fault, words_of_journals};
use super::tier::{self, spread, stride};
use super::world::{Ran, Snapshot, World};

/// A run with the name `lab`, and what others have in its world.
struct Case {
    command: Vec<String>,
    file: Option<PathBuf>,
    others: &'static str,
    /// Each how manieth point is tried.
    stride: usize,
    /// The first point at which it fails; it is killed from the first one on.
    first_failure: u32,
}

impl Case {
    fn file(path: PathBuf) -> Case {
        Case { command: vec!["run".to_owned()], file: Some(path), others: "", stride: 1, first_failure: 1 }
    }

    /// Runs `test` in a world of the case's, and tells the last faults if it fails.
    fn play(&self, test: impl FnOnce(&Stage<'_>)) {
        in_used_world(self.others, |w, before| {
            test(&Stage { w, before, case: self, history: RefCell::default(), words: RefCell::default() });
        });
    }
}

/// A case in its world.
struct Stage<'a> {
    w: &'a World,
    before: &'a Snapshot,
    case: &'a Case,
    history: RefCell<Vec<String>>,
    /// The sorts of steps in the journals of the runs that were killed.
    words: RefCell<BTreeSet<String>>,
}

impl Stage<'_> {
    /// Runs the case with a fault, or none, and with more options.
    fn run(&self, fault: &str, options: &[&str]) -> Ran {
        let Case { command, file, .. } = self.case;
        let file = file.iter().map(|path| path.to_str().expect("UTF-8"));
        let named = ["--name", "lab"].iter().chain(options).copied();
        self.topo(fault, &command.iter().map(String::as_str).chain(named).chain(file).collect::<Vec<_>>())
    }

    fn topo(&self, fault: &str, words: &[&str]) -> Ran {
        let ran = with_fault(self.w, fault, words);
        let said = format!("{}{}", ran.out(), ran.err());
        self.history.borrow_mut().push(format!("TOPO_FAULT={fault} {}: {}\n{said}", words.join(" "), ran.code));
        assert!(ran.code != 101 && !said.contains("panicked"), "a panic");
        ran
    }

    fn clean(&self) {
        self.w.assert_clean_so_far(self.before);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.history.borrow().iter().rev().take(3).rev().for_each(|line| println!("{line}"));
        }
    }
}

/// All scripts below a directory of the repository.
fn scripts_in(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    let mut dirs = vec![dir.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of scripts") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => dirs.push(path),
                false => found.extend(path.extension().is_some_and(|ext| ext == "rhai").then_some(path)),
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no script in {}", dir.display());
    found
}

/// The workflows: `scripts/veth-pair.rhai` is `topo veth-pair`. Those of networks, which are about what others have built, have
/// their own tests (`unwind_networks`).
fn workflows() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let words = |path: PathBuf| -> Vec<String> {
        let words = path.strip_prefix(&root).expect("below the root").with_extension("");
        words.iter().map(|word| word.to_str().expect("UTF-8").to_owned()).collect()
    };
    let commands = scripts_in("scripts").into_iter().map(words).filter(|words| words.len() == 1);
    commands.map(|command| Case { command, file: None, others: "", stride: stride(1), first_failure: 1 }).collect()
}

/// The examples. Those built by the library have many steps of few sorts, which the others have too; what whole networks do has
/// tests of its own, at more points (`unwind_networks`).
fn examples() -> Vec<Case> {
    let by_library = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("\nimport \""));
    let scripts = scripts_in("examples").into_iter();
    let all = scripts.map(|path| Case { stride: stride(if by_library(&path) { 8 } else { 1 }), ..Case::file(path) });
    spread(all, 4)
}

fn every_step() -> Case {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/unwind");
    // Each operation is the last one before a kill or fails; in the full tier both.
    let (stride, first_failure) = if tier::full() { (1, 1) } else { (2, 2) };
    let others = include_str!("unwind/every-step.sh");
    Case { others, stride, first_failure, ..Case::file(dir.join("every-step.rhai")) }
}

fn take_over() -> Case {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/unwind");
    Case { others: include_str!("unwind/take_over.sh"), stride: stride(1), ..Case::file(dir.join("take_over.rhai")) }
}

/// Kills the run at each point, and lets `topo gc` remove what it left; returns how many points there are.
fn kill_at_each_point(stage: &Stage<'_>) -> u32 {
    for point in (1..).step_by(stage.case.stride) {
        let ran = stage.run(&format!("kill:{point}"), &[]);
        if ran.code != KILLED {
            ran.ok();
            stage.topo("", &["down", "lab"]).ok();
            stage.clean();
            return point - 1;
        }
        stage.words.borrow_mut().extend(words_of_journals(stage.w));
        stage.topo("", &["gc"]).ok();
        stage.clean();
    }
    unreachable!("a run has an end")
}

/// Makes the run fail at each point: it takes everything back itself.
fn fail_at_each_point(stage: &Stage<'_>, points: u32) {
    assert!(points > 0, "a run that changes nothing proves nothing");
    for point in (stage.case.first_failure..=points).step_by(stage.case.stride) {
        stage.run(&format!("fail:{point}"), &[]).fails(1).says("injected fault");
        stage.clean();
    }
    stage.run(&format!("fail:{}", points + 1), &[]).ok();
    stage.topo("", &["down", "lab"]).ok();
    stage.clean();
}

fn fail_and_kill(case: &Case) {
    case.play(|stage| {
        let points = kill_at_each_point(stage);
        fail_at_each_point(stage, points);
    });
}

/// Fails and kills several cases, some at a time: they wait for the kernel more than they work.
fn fail_and_kill_all(cases: &[Case]) {
    const AT_ONCE: usize = 3;
    let next = AtomicUsize::new(0);
    let take = || cases.get(next.fetch_add(1, Ordering::Relaxed));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| std::iter::from_fn(take).for_each(fail_and_kill));
        }
    });
}

/// Every workflow that ships, failing and killed at every point.
#[test]
fn workflows_leave_nothing() {
    fail_and_kill_all(&workflows());
}

/// Every example, failing and killed at every point.
#[test]
fn examples_leave_nothing() {
    fail_and_kill_all(&examples());
}

/// The sorts of steps that other tests break, and which: their scripts have what this one's has not.
const ELSEWHERE: [(&str, &str); 1] = [("take-over", "n10_a_way_out_that_was_taken_over_comes_back")];

/// A lab of every step there is (see every-step.rhai), killed at every point; in the fast tier at every second one.
#[test]
fn every_step_is_undone_after_a_kill() {
    every_step().play(|stage| {
        let points = kill_at_each_point(stage);
        assert!(points > 80, "{points} points");
        let there_are: BTreeSet<String> = toposcript::for_tests::steps().words().map(str::to_owned).collect();
        let mut broken = stage.words.take();
        broken.extend(ELSEWHERE.iter().map(|(word, _)| (*word).to_owned()));
        assert_eq!(broken, there_are, "the sorts of steps that were broken (left), and that there are");
    });
}

/// A lab of every step there is, failing at every point; in the fast tier at those at which it is not killed.
#[test]
fn every_step_is_undone_after_a_failure() {
    every_step().play(|stage| {
        // As many as are passed without a kill; `kill_at_each_point` would find the same, slower.
        let killed = |point: &u32| {
            let ran = stage.run(&format!("kill:{point}"), &[]);
            stage.topo("", if ran.code == KILLED { &["gc"] } else { &["down", "lab"] }).ok();
            ran.code == KILLED
        };
        let (mut low, mut high) = (0, 1024);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if killed(&middle) { low = middle } else { high = middle }
        }
        fail_at_each_point(stage, low);
    });
}

/// The host's way out, taken over by a bridge (see take_over.rhai), comes back wherever the run fails or is killed.
#[test]
fn n10_a_way_out_that_was_taken_over_comes_back() {
    take_over().play(|stage| {
        let points = kill_at_each_point(stage);
        assert!(points > 50, "{points} points");
        assert!(stage.words.borrow().contains("take-over"));
        fail_at_each_point(stage, points);
    });
}

/// The same wherever `down` is cut short.
#[test]
fn n10_a_way_out_comes_back_from_a_down_that_was_cut_short() {
    cut_down_short(&take_over(), 40);
}

/// `down` that is killed or fails at any point is finished by another `down`, and by `gc`.
#[test]
fn a_down_that_was_cut_short_is_finished() {
    cut_down_short(&every_step(), 20);
}

/// The same with a large bridge, which goes down before its ports leave it.
#[test]
fn a_down_of_a_large_bridge_that_was_cut_short_is_finished() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/unwind/many-ports.rhai");
    cut_down_short(&Case::file(script), 4);
}

/// Cuts the `down` of a case short at each of its points, of which there are more than `least`.
fn cut_down_short(case: &Case, least: u32) {
    case.play(|stage| {
        for point in tier::points("down") {
            let by_gc = || collect_cut_down(stage.w, point, "lab");
            let by_down = || drop(stage.topo("", &["down", "lab"]).ok());
            let cut_short = |fault: &str, code: i32, finish: &dyn Fn()| {
                stage.run("", &[]).ok();
                let ran = stage.topo(&format!("{fault}:{point}"), &["down", "lab"]);
                if ran.code != 0 {
                    ran.clone().fails(code);
                    finish();
                }
                stage.clean();
                ran.code != 0
            };
            let finish: &dyn Fn() = if point % 2 == 0 { &by_gc } else { &by_down };
            let (killed, failed) = (cut_short("kill", KILLED, finish), cut_short("fail", 1, &by_down));
            assert_eq!(killed, failed, "kills and failures meet the same points");
            if !killed {
                assert!(point > least || !tier::full(), "a down of {point} points");
                return;
            }
        }
    });
}

/// A run that takes its lab down at the end (`--rm`), killed or failing while it does, is finished by `gc`.
#[test]
fn an_undo_that_was_cut_short_is_finished() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/02-bridge.rhai");
    Case { stride: stride(1), ..Case::file(script) }.play(|stage| {
        let points = kill_at_each_point(stage);
        for point in (points + 1..).step_by(stride(1)) {
            let killed = stage.run(&format!("kill:{point}"), &["--rm"]);
            if killed.code == 0 {
                assert!(point > points + 3 || !tier::full(), "no point in the undo");
                return;
            }
            killed.fails(KILLED);
            stage.topo("", &["gc"]).ok();
            stage.clean();
            stage.run(&format!("fail:{point}"), &["--rm"]).fails(1).says("injected fault").says("topo down lab");
            stage.topo("", &["gc"]).ok();
            stage.clean();
        }
    });
}

/// `gc` that is killed at any point is finished by another `gc`.
#[test]
fn a_gc_that_was_killed_is_finished() {
    every_step().play(|stage| {
        for point in tier::points("gc") {
            stage.run("kill:75", &[]).fails(KILLED);
            let ran = stage.topo(&format!("kill:{point}"), &["gc"]);
            if ran.code == 0 {
                assert!(point > 10 || !tier::full(), "a gc of {point} points");
                return;
            }
            ran.fails(KILLED);
            stage.topo("", &["gc"]).ok();
            stage.clean();
        }
    });
}

/// A sandbox: whichever process of the run is killed, inside at any point or the one outside, the sandbox ends with all
/// that is in it; a failure inside is undone with it.
fn sandbox_leaves_nothing(w: &World, before: &Snapshot) {
    let statements = r#"
        let h = netns("h");
        veth(h["eth0"], bridge("br0"));
        h.exec("sleep 1000 >/dev/null 2>&1 &");
        host.exec("sleep 1000 >/dev/null 2>&1 &");
        h["eth0"].addr("10.0.0.1/24");"#;
    let words = ["run", "--sandbox", "--name", "lab", "-e", statements];
    for point in tier::points("sandbox") {
        // What kills is the seam inside; the process outside tells how it ended, and removes the sandbox.
        let killed = with_fault(w, &format!("kill:{point}"), &words);
        println!("point {point}: {}", killed.code);
        if killed.code == 0 {
            assert!(point > 8 || !tier::full(), "{point} points");
            break;
        }
        killed.fails(KILLED);
        w.assert_clean_so_far(before);
        with_fault(w, &format!("fail:{point}"), &words).fails(1).says("injected fault");
        w.assert_clean_so_far(before);
    }
    // It is up now. `down` ends it by its first process, whose number it has from the record.
    w.topo(&["ls"]).ok().says("up (sandbox)");
    assert!(w.run("pgrep -c sleep").ok().out().trim() == "2");
    with_fault(w, "kill:1", &["down", "lab"]).fails(KILLED);
    w.topo(&["down", "lab"]).ok();
    w.assert_clean(before);

    // The first process of a sandbox that is up is killed: the lab is dead, and `gc` and `down` forget it.
    for end in [["gc"].as_slice(), &["down", "lab"]] {
        w.topo(&words).ok();
        let record = fs::read_to_string(w.state().join("labs/lab/lab.json")).expect("the record");
        let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        w.run(&format!("kill -9 {}; while pgrep sleep; do :; done", record["holder"]["pid"])).ok();
        w.topo(&["ls"]).ok().says("dead");
        w.topo(end).ok();
        w.assert_clean(before);
    }
}

/// h (eth0) --- br0, in a sandbox of root's.
#[test]
fn a_sandbox_leaves_nothing() {
    in_used_world("", sandbox_leaves_nothing);
}

/// The same for an ordinary user.
#[test]
fn a_sandbox_of_an_ordinary_user_leaves_nothing() {
    in_used_user_world("", sandbox_leaves_nothing);
}
