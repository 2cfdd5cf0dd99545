//! The process in which one test runs, alone in its sandbox: `__test`. It reads a request, runs the test as `topo run` would,
//! and says how it went.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::discover::without_marks;
use super::protocol::{ExpectedError, TestMessage, TestPhase, TestRequest, TestTrouble, Verdict};
use crate::cmd::context::{self, Context};
use crate::lab::{CheckResult, Event, Lab, NetnsView, Origin};
use crate::net;
use crate::prim::{self, LabHandle};
use crate::script::{Caller, Failure, FailureKind, Script, Session, Texts};
use crate::state::{Error, Kind, LabKind, Result, StateDir};
use crate::survey::Traces;
use crate::terminal::{self, exit};

/// The word by which the program calls itself for this.
pub(in crate::cmd) const WORD: &str = "__test";

/// How long a printed text may be; what is longer is cut.
const TEXT_MAX: usize = 64 << 10;

/// Runs the test that is asked for on standard input.
pub(in crate::cmd) fn run(context: &Context) -> u8 {
    let request: TestRequest = match std::io::read_to_string(std::io::stdin()).map(|text| serde_json::from_str(&text)) {
        Ok(Ok(request)) => request,
        _ => return exit::USAGE,
    };
    let verdict = test(&request, context).unwrap_or_else(|error| Verdict {
        troubles: vec![trouble(TestPhase::Runner, &Failure::from(&error), &Texts::default(), &request)],
        ..Verdict::default()
    });
    say(&TestMessage::Done(verdict));
    exit::DONE
}

/// Writes a message. A runner that has gone away has ended this process's sandbox too.
fn say(message: &TestMessage) {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

fn test(request: &TestRequest, context: &Context) -> Result<Verdict> {
    net::process::signal::catch().map_err(|source| Error::kernel("catch signals", &source))?;
    context::arm_fault();
    let state = context.state()?;
    let mut before = Traces::now(&state)?;
    let mut verdict = Verdict::default();
    let marks: Vec<Option<&ExpectedError>> = match request.marks.is_empty() {
        true => vec![None],
        false => request.marks.iter().map(Some).collect(),
    };
    for mark in marks {
        if let Some(mark) = mark {
            say(&TestMessage::Phase(format!("line {}", mark.line)));
        }
        let one = Round { request, context, state: &state, mark }.run(&before)?;
        if verdict.state.is_none() {
            verdict.state = one.state;
        }
        verdict.expected = verdict.expected.or(one.expected);
        verdict.lacks = verdict.lacks.or(one.lacks);
        let leaked = one.troubles.iter().any(|trouble| trouble.phase == TestPhase::Cleanup);
        verdict.troubles.extend(one.troubles);
        verdict.logs.extend(one.logs);
        verdict.kept = one.kept;
        if verdict.kept || net::process::signal::caught().is_some() {
            break;
        }
        if leaked {
            before = Traces::now(&state)?;
        }
    }
    Ok(verdict)
}

/// What is learned while a script runs.
#[derive(Default)]
struct LearnedInRun {
    state: Option<String>,
    expected: Option<String>,
    failed: Option<Box<Failure>>,
    torn: Option<Box<Failure>>,
    checks: Vec<CheckResult>,
}

/// One run of a test: of all of it, or of one of its marked lines.
struct Round<'a> {
    request: &'a TestRequest,
    context: &'a Context,
    state: &'a StateDir,
    mark: Option<&'a ExpectedError>,
}

impl Round<'_> {
    fn run(&self, before: &Traces) -> Result<Verdict> {
        let seen = Rc::new(RefCell::new(LearnedInRun::default()));
        let script = Script {
            text: without_marks(&self.request.text, self.mark.map(|mark| mark.line)),
            ..Script::inline(&self.request.file, "")
        };
        let origin = Origin {
            name: context::lab_name_of(std::path::Path::new(&self.request.file)),
            named: false,
            any_name: true,
            script: self.request.file.clone(),
            kind: LabKind::Lab,
            parent: None,
            tied_to: None,
        };
        let mut lab = Lab::begin(origin, self.state.clone(), listener(&seen))?;
        lab.show_failure();
        let handle = LabHandle::new(lab, &self.request.file);
        handle.confine(self.request.no_exec);
        let mut session = Session::new(&handle, &self.context.dirs, rhai::Map::new());
        let ran = catch_unwind(AssertUnwindSafe(|| {
            session.run_then(&script, self.scenario(&handle, &seen))?;
            handle.with(|lab| lab.settle()).map_err(|error| Box::new(Failure::from(&error)))
        }));
        let texts = session.texts().clone();
        // For excerpts the file is as the user has it.
        texts.keep(&Script { text: self.request.text.clone(), ..script });
        if ran.is_err() || matches!(ran, Ok(Err(_))) {
            look(&handle, &seen);
        }
        let Some(lab) = handle.take() else { return Ok(Verdict::default()) };
        let mut seen = std::mem::take(&mut *seen.borrow_mut());
        seen.checks = lab.checks().to_vec();
        let mut failed = None;
        match ran {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => failed = Some(failure),
            Err(panic) => {
                let what = panic.downcast_ref::<String>().map(String::as_str);
                let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
                let message = format!("topo itself failed, which is a defect of it: {what}");
                let failure = Failure { hint: None, ..Failure::from(&Error::invalid("run the test")) };
                failed = Some(Box::new(Failure { kind: FailureKind::Panic, message, ..failure }));
            }
        }
        Ok(self.conclude(lab, seen, failed, before, &texts))
    }

    /// Returns what is called behind the file's statements: `setup`, the test, `teardown`.
    fn scenario(&self, handle: &LabHandle, seen: &Rc<RefCell<LearnedInRun>>) -> impl Fn(&Caller<'_>) + 'static {
        let (handle, seen, request) = (handle.clone(), seen.clone(), self.request.clone());
        move |caller: &Caller<'_>| {
            let mut steps = Vec::new();
            if request.setup {
                steps.push(("setup", "setup"));
            }
            steps.push(("test", request.test.as_str()));
            for (phase, function) in steps {
                say(&TestMessage::Phase(phase.into()));
                let settle = || handle.with(|lab| lab.settle()).map_err(|error| Box::new(Failure::from(&error)));
                if let Err(mut failure) = caller.call(function).and_then(|()| settle()) {
                    failure.place = caller.in_script(&failure.place);
                    // A test that was stopped still tidies up after itself.
                    net::process::signal::forget_interrupt();
                    look(&handle, &seen);
                    seen.borrow_mut().failed = Some(failure);
                    break;
                }
            }
            if request.teardown {
                say(&TestMessage::Phase("teardown".into()));
                seen.borrow_mut().torn = caller.call("teardown").err();
            }
        }
    }

    fn conclude(
        &self,
        mut lab: Lab,
        seen: LearnedInRun,
        failed: Option<Box<Failure>>,
        before: &Traces,
        texts: &Texts,
    ) -> Verdict {
        say(&TestMessage::Phase("cleanup".into()));
        net::process::signal::forget_interrupt();
        let request = self.request;
        let mut verdict = Verdict { state: seen.state, expected: seen.expected, ..Verdict::default() };
        let failed = seen.failed.or(failed);
        let told = |phase: TestPhase, failure: &Failure| trouble(phase, failure, texts, request);
        // In the order in which they came: a check that doesn't hold stops nothing.
        if self.mark.is_none() {
            let lines = request.text.lines().count();
            let wrong = seen.checks.iter().filter(|check| !check.ok);
            verdict.troubles.extend(wrong.map(|check| told(TestPhase::Test, &failure_of(check, &request.file, lines))));
        }
        match (self.mark, failed) {
            (Some(mark), failed) => verdict.troubles.extend(self.disagrees(mark, failed.as_deref(), texts)),
            (None, Some(failure)) if failure.kind.is(Kind::Unsupported) => {
                let message = failure.message.strip_prefix("skip: ").unwrap_or(&failure.message);
                verdict.lacks = Some(message.to_string());
            }
            (None, Some(failure)) => verdict.troubles.push(told(TestPhase::Test, &failure)),
            (None, None) => {}
        }
        verdict.troubles.extend(seen.torn.map(|failure| {
            let failure = Failure { message: format!("teardown: {}", failure.message), ..*failure };
            told(TestPhase::Teardown, &failure)
        }));
        if !verdict.troubles.is_empty() {
            verdict.logs = logs(&lab, self.state);
        }
        if request.keep && !verdict.troubles.is_empty() {
            match lab.leave_up() {
                Ok(up) => verdict.kept = up,
                Err(error) => verdict.troubles.push(told(TestPhase::Cleanup, &Failure::from(&error))),
            }
            return verdict;
        }
        let errors = lab.take_down(&prim::steps());
        drop(lab);
        verdict.troubles.extend(errors.iter().map(|error| told(TestPhase::Cleanup, &Failure::from(error))));
        match before.changes_since(self.state) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => verdict.troubles.push(leak(&changes, self.mark)),
            Err(error) => verdict.troubles.push(told(TestPhase::Cleanup, &Failure::from(&error))),
        }
        verdict
    }

    /// Compares what a marked line failed with to what its mark says.
    fn disagrees(&self, mark: &ExpectedError, failed: Option<&Failure>, texts: &Texts) -> Option<TestTrouble> {
        let file = &self.request.file;
        let place =
            crate::state::Place(vec![crate::state::Spot { source: file.as_str().into(), line: mark.line, column: 1 }]);
        let wanted = format!("it should fail with `{}: {}`", mark.kind, mark.text);
        let message = match failed {
            None => "the line doesn't fail".to_string(),
            Some(failure) => {
                let hint = failure.hint.as_deref().unwrap_or_default();
                let here = |spot: &crate::state::Spot| *spot.source == **file && spot.line == mark.line;
                let but = if failure.kind.word() != mark.kind {
                    format!("the line fails with an error of kind `{}`", failure.kind)
                } else if !failure.message.contains(&mark.text) && !hint.contains(&mark.text) {
                    "the line fails with another error".to_string()
                } else if !failure.place.0.iter().any(here) {
                    format!("another line fails: {}", failure.place)
                } else if !failure.render(texts, false).contains(&format!("{file}:{}:", mark.line)) {
                    "the error doesn't show the line".to_string()
                } else {
                    return None;
                };
                format!("{but}\n{}", indented(&failure.render(texts, false)))
            }
        };
        let failure = Failure { kind: FailureKind::Mark, message, hint: Some(wanted), place, also: Vec::new() };
        Some(trouble(TestPhase::Test, &failure, texts, self.request))
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Notes how the lab stands, if nobody has yet.
fn look(handle: &LabHandle, seen: &Rc<RefCell<LearnedInRun>>) {
    if seen.borrow().state.is_some() {
        return;
    }
    let view = handle.with(|lab| lab.look_around());
    seen.borrow_mut().state = view.ok().and_then(|view| text_of(&view));
}

/// Returns the ends of the logs of a lab's processes, each with its process and how that is.
fn logs(lab: &Lab, state: &StateDir) -> Vec<(String, String)> {
    const LINES: usize = 20;
    let views = crate::survey::logs_of(state, lab.name(), None, &prim::steps()).unwrap_or_default();
    let log = |view: crate::survey::LogView| {
        let text = view.files.text().ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let end: String = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("{line}\n")).collect();
        let process = view.process;
        Some((format!("{}/{} ({})", process.netns, process.name, process.state), end))
    };
    views.into_iter().filter_map(log).collect()
}

fn text_of(view: &[NetnsView]) -> Option<String> {
    let text: String =
        view.iter().map(|netns| terminal::netns_text(netns).trim_start_matches('\n').to_string()).collect();
    (!text.is_empty()).then_some(text)
}

fn listener(seen: &Rc<RefCell<LearnedInRun>>) -> crate::lab::Listener {
    let seen = seen.clone();
    let output = |text: &str| {
        let cut = text.char_indices().nth(TEXT_MAX).map_or(text.len(), |(at, _)| at);
        let more = if cut < text.len() { "…" } else { "" };
        say(&TestMessage::Output(format!("{}{more}\n", &text[..cut])));
    };
    let listener = crate::lab::Listener::new(move |event| match event {
        Event::Print(text) | Event::Debug(text) => output(text),
        Event::Warning(text) => output(&format!("warning: {text}")),
        Event::Table(titles, rows) => {
            let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(terminal::cell).collect()).collect();
            output(terminal::table(titles, &rows).trim_end());
        }
        Event::Check(check) => say(&TestMessage::of_check(check, check.place.0.clone())),
        Event::AtFailure(view) => seen.borrow_mut().state = text_of(view),
        Event::ExpectFailure(reason) => seen.borrow_mut().expected = Some(reason.clone()),
        Event::TimeLimit(time) => say(&TestMessage::TimeLimit(*time)),
        Event::Result(_) | Event::Step { .. } | Event::Progress(_) => {}
    });
    listener.without_steps()
}

/// Returns a check that doesn't hold as a failure at its line.
fn failure_of(check: &CheckResult, file: &str, lines: usize) -> Failure {
    let measured = check.measured.as_deref().filter(|text| !text.is_empty()).unwrap_or("it is false");
    let mut place = check.place.clone();
    place.0.retain(|spot| *spot.source != *file || spot.line <= lines);
    let message = format!("check \"{}\": {measured}", check.sentence);
    Failure { kind: Kind::Failed.into(), message, hint: None, place, also: Vec::new() }
}

fn trouble(phase: TestPhase, failure: &Failure, texts: &Texts, request: &TestRequest) -> TestTrouble {
    TestTrouble {
        phase,
        kind: failure.kind.word().into(),
        message: failure.message.clone(),
        hint: failure.hint.clone(),
        at: failure.place.0.clone(),
        text: failure.render(texts, false),
        shown: request.coloured.then(|| failure.render(texts, true)),
    }
}

fn leak(changes: &[String], mark: Option<&ExpectedError>) -> TestTrouble {
    const SHOWN: usize = 20;
    let at = mark.map_or(String::new(), |mark| format!(" by line {}", mark.line));
    let mut lines: Vec<String> = changes.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    if changes.len() > SHOWN {
        lines.push(format!("\n  and {} more", changes.len() - SHOWN));
    }
    let message = format!("the host isn't as before the test, after its lab was taken down{at}:{}", lines.concat());
    TestTrouble::plain(TestPhase::Cleanup, FailureKind::Leak, message, None)
}
