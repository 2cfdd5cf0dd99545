//! `topo test`: tests written in Rhai, each in a sandbox of its own.
//!
//! `discover` finds the tests, `runner` runs several at once, each in a process of its own (`child`) in a sandbox of its own,
//! which tells how it went (`protocol`). `outcome` says what became of a test, `report` tells it.

mod child;
mod discover;
mod outcome;
mod progress;
mod protocol;
mod report;
mod runner;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use self::outcome::{TestOutcome, TestStatus};
use self::progress::TestProgress;
use self::protocol::{TestPhase, TestRequest, TestTrouble};
use self::report::{Counts, Tested};
use super::context::Context;
use super::output::Trouble as Stop;
use crate::net;
use crate::prim::parse_time;
use crate::script::Texts;
use crate::state::{Error, Kind};
use crate::terminal::{self, data, exit, talk, wants_colour};

pub(super) use child::{WORD as CHILD, run as child};

/// Between two writings of the live line.
const TICK: Duration = Duration::from_millis(200);

/// Runs tests: each `fn test_…()` of `.rhai` files, in a sandbox of its own, several at once.
///
/// A test fails if an error leaves it, if a check in it doesn't hold, if it takes too long, or if anything is left on its host
/// once its lab is taken down. An error of kind `unsupported` makes it a skipped one.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
A file may have `fn setup()` and `fn teardown()`, which run before and after each of its tests.
{}", exit::help()))]
pub(super) struct Args {
    /// Files, directories, or single tests as FILE::NAME [default: tests]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run only tests whose FILE::NAME matches a regular expression
    #[arg(long, value_name = "RE")]
    filter: Option<String>,
    /// How many run at once [default: one for each processor]
    #[arg(short, long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// How long a test may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    timeout: Duration,
    /// Stop after the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Keep the lab of a test that fails
    #[arg(long)]
    keep: bool,
    /// Refuse the tests all commands (`exec`, `start`) and files: for tests of strangers
    #[arg(long)]
    no_exec: bool,
    /// Take a skipped test for a failed one
    #[arg(long)]
    no_skip: bool,
    /// Show what passing tests print, too
    #[arg(long)]
    show_output: bool,
    /// List the tests without running them
    #[arg(long)]
    list: bool,
    /// Print the results in the Test Anything Protocol
    #[arg(long, conflicts_with_all = ["json", "show_output"])]
    tap: bool,
    /// Print the results as JSON
    #[arg(long, conflicts_with = "show_output")]
    json: bool,
    /// Write the results to a file as JUnit's XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = parse_time(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a time with its unit, such as `500ms`, `30s` or `2m`".into())
}

/// Runs `topo test`.
pub(super) fn test(args: &Args, context: &Context) -> Result<u8, Stop> {
    let filter = match args.filter.as_deref().map(regex_lite::Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => {
            talk(&format!("error: `--filter` is no regular expression: {error}\n"));
            return Ok(exit::USAGE);
        }
    };
    let paths = match args.paths.is_empty() {
        true => vec![PathBuf::from("tests")],
        false => args.paths.clone(),
    };
    let files = match discover::discover(&paths) {
        Ok(files) => files,
        Err(error) => {
            // A path without tests is wrong usage, not a failed test.
            Stop::from(error).report();
            return Ok(exit::USAGE);
        }
    };
    let (mut tests, requests) = plan(files, args, filter.as_ref());
    if args.list {
        list(&tests, args.json);
        return Ok(exit::DONE);
    }
    if tests.is_empty() {
        let error = Error::new(Kind::Missing, "choose tests").because("`--filter` matches none of them");
        Stop::from(error.hint("`--list` lists them")).report();
        return Ok(exit::USAGE);
    }
    context.trust_own_scripts()?;
    // Before a thread is started: all of them inherit what is blocked.
    net::process::signal::catch().map_err(|source| Error::kernel("catch signals", &source))?;
    let began = Instant::now();
    if let Some(error) = run_all(args, context, &mut tests, requests)? {
        return Err(error.into());
    }
    let time = began.elapsed();
    let interrupted = net::process::signal::caught();
    conclude(args, &tests, time, interrupted)
}

/// Returns all tests, those that can't be run with their outcome, and the requests for the others.
fn plan(
    files: Vec<discover::File>,
    args: &Args,
    filter: Option<&regex_lite::Regex>,
) -> (Vec<Tested>, VecDeque<(usize, TestRequest)>) {
    let coloured = wants_colour(std::io::IsTerminal::is_terminal(&std::io::stdout()));
    let (mut tests, mut requests) = (Vec::new(), VecDeque::new());
    for file in files {
        let wanted = |tested: &Tested| filter.is_none_or(|filter| filter.is_match(&tested.id()));
        let name = &file.script.name;
        let tested = |test: &discover::Test, outcome: TestOutcome| Tested {
            file: name.clone(),
            test: test.name.clone(),
            line: test.line,
            about: test.about.clone(),
            outcome,
        };
        if let Some(failure) = &file.broken {
            let texts = Texts::default();
            texts.keep(&file.script);
            let trouble = TestTrouble {
                phase: TestPhase::Test,
                kind: failure.kind.word().into(),
                message: failure.message.clone(),
                hint: failure.hint.clone(),
                at: failure.place.0.clone(),
                text: failure.render(&texts, false),
                shown: coloured.then(|| failure.render(&texts, true)),
            };
            let line = failure.place.spot().map_or(1, |spot| spot.line);
            let whole = discover::Test { line, ..discover::Test::default() };
            tests.extend(Some(tested(&whole, TestOutcome::broken(trouble))).filter(wanted));
            continue;
        }
        for test in &file.tests {
            let tested = tested(test, TestOutcome::not_run());
            if !wanted(&tested) {
                continue;
            }
            let request = TestRequest {
                file: name.clone(),
                text: file.script.text.clone(),
                test: test.name.clone(),
                line: test.line,
                marks: test.marks.clone(),
                setup: file.setup,
                teardown: file.teardown,
                keep: args.keep,
                no_exec: args.no_exec,
                coloured,
            };
            requests.push_back((tests.len(), request));
            tests.push(tested);
        }
    }
    (tests, requests)
}

fn list(tests: &[Tested], json: bool) {
    if json {
        let row = |tested: &Tested| serde_json::json!({ "file": tested.file, "test": tested.test, "line": tested.line, "about": tested.about });
        terminal::json(&tests.iter().map(row).collect());
        return;
    }
    let rows: Vec<Vec<String>> = tests.iter().map(|tested| vec![tested.id(), tested.about.clone()]).collect();
    data(&terminal::table(&["test".into(), "what it tests".into()], &rows));
}

/// Runs the tests and notes what became of them; returns why no test can be run at all, if so.
fn run_all(
    args: &Args,
    context: &Context,
    tests: &mut [Tested],
    requests: VecDeque<(usize, TestRequest)>,
) -> Result<Option<Error>, Stop> {
    let state = context.state()?;
    let scratch = state.scratch()?;
    let threads = args.jobs.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        std::num::NonZeroUsize::get,
    );
    let threads = threads.min(requests.len());
    let plan = Arc::new(runner::Plan {
        scratch: scratch.path().to_path_buf(),
        state,
        timeout: args.timeout,
        no_skip: args.no_skip,
        fail_fast: args.fail_fast,
        queue: Mutex::new(requests),
        stop: AtomicBool::new(false),
    });
    let mut told = Told::new(args, tests);
    // What can't be run has its outcome already.
    for broken in tests.iter().filter(|tested| tested.outcome.status != TestStatus::NotRun) {
        told.end(broken);
        if args.fail_fast {
            plan.stop.store(true, Ordering::SeqCst);
        }
    }
    let (sender, events) = mpsc::channel();
    let mut impossible = None;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (plan, sender) = (plan.clone(), sender.clone());
            scope.spawn(move || runner::work(&plan, &sender));
        }
        drop(sender);
        loop {
            match events.recv_timeout(TICK) {
                Ok(runner::RunnerEvent::Begun(index)) => told.begin(index, &tests[index].test),
                Ok(runner::RunnerEvent::Ended(index, outcome)) => {
                    tests[index].outcome = *outcome;
                    told.progress.end(index);
                    told.end(&tests[index]);
                }
                Ok(runner::RunnerEvent::Impossible(error)) => impossible = Some(error),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            told.progress.show(&told.counts);
        }
    });
    told.progress.clear();
    Ok(impossible)
}

/// What is said while tests run.
struct Told {
    tap: bool,
    plain: bool,
    show_output: bool,
    number: usize,
    counts: Counts,
    progress: TestProgress,
}

impl Told {
    fn new(args: &Args, tests: &[Tested]) -> Told {
        if args.tap {
            data(&report::tap::head(tests.len()));
        }
        Told {
            tap: args.tap,
            plain: !args.tap && !args.json,
            show_output: args.show_output,
            number: 0,
            counts: Counts::default(),
            progress: TestProgress::new(tests.len(), !args.tap),
        }
    }

    fn begin(&mut self, index: usize, name: &str) {
        self.progress.begin(index, name);
    }

    fn end(&mut self, tested: &Tested) {
        self.number += 1;
        self.counts.add(tested.outcome.status);
        self.progress.clear();
        if self.tap {
            data(&report::tap::test(self.number, tested));
        }
        if self.plain {
            data(&report::plain::line(tested));
            if self.show_output && !tested.outcome.status.is_failure() {
                data(&report::plain::output(tested));
            }
        }
    }
}

/// Tells the results, and returns the exit code.
fn conclude(args: &Args, tests: &[Tested], time: Duration, interrupted: Option<i32>) -> Result<u8, Stop> {
    let counts = Counts::of(tests);
    if args.tap && interrupted.is_some() {
        data(&report::tap::bail_out());
    } else if args.tap {
        // Tests that `--fail-fast` left out are in the plan.
        let left = tests.iter().filter(|tested| tested.outcome.status == TestStatus::NotRun);
        let told = tests.len() - counts.not_run;
        (told + 1..).zip(left).for_each(|(number, tested)| data(&report::tap::test(number, tested)));
    }
    if args.json {
        terminal::json(&report::json::document(tests, time, interrupted.is_some()));
    }
    if !args.tap && !args.json {
        let failed: Vec<&Tested> = tests.iter().filter(|tested| tested.outcome.status.is_failure()).collect();
        if !failed.is_empty() {
            data("\n");
        }
        failed.into_iter().for_each(|tested| data(&report::plain::failure(tested)));
        data(&report::plain::summary(&counts, time));
    }
    if let Some(file) = &args.junit {
        std::fs::write(file, report::junit::document(tests, time))
            .map_err(|source| Error::file(format!("write `{}`", file.display()), &source))?;
    }
    Ok(match interrupted {
        Some(signal) => exit::of_signal(signal),
        None => exit::of_failed(counts.failed > 0),
    })
}
