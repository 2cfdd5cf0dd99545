//! The session at a prompt: a lab built by hand, statement by statement, each of which can be taken back.
//!
//! The first line of each file says what it is for; `cargo doc --document-private-items` lists them.

mod commands;
pub mod complete;
mod helper;
mod input;
mod session;
mod show;
mod watch;

use std::cell::Cell;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::lab::{Event, Lab, Listener};
use crate::net;
use crate::prim;
use crate::script::{Dirs, Failure, Texts, Vocabulary};
use crate::terminal::{self, Style, exit, holds, report, talk, wants_colour};
use complete::Known;
use input::{Input, InputReader};
use session::{Begin, LabSession, Went};
use watch::{Above, Watch};

/// What a session is begun with.
pub struct Setup {
    /// The user's own directories of modules and workflows.
    pub dirs: Dirs,
    /// Where the lines that were typed are kept.
    pub history: Option<PathBuf>,
    /// Whether the lab was up before.
    pub joined: bool,
    /// Whether a new lab stays up at the end, unasked.
    pub keep: bool,
    /// Whether statements may run no commands and open no files.
    pub no_exec: bool,
}

/// Returns what the lab of a session has to say to, and the switch that shows each step.
pub fn listener() -> (Listener, Rc<Cell<bool>>) {
    let trace = Rc::new(Cell::new(false));
    let switch = trace.clone();
    let (mut shows, _) = terminal::listener(Style { json: false, trace: true });
    let listener = move |event: &Event| {
        if switch.get() || !matches!(event, Event::Step { .. }) {
            shows.tell(event);
        }
    };
    (Listener::new(listener), trace)
}

/// Holds a session on the terminal, or on what is piped in, and returns its exit code.
pub fn run(lab: Lab, trace: Rc<Cell<bool>>, setup: Setup) -> u8 {
    let Setup { dirs, history, joined, keep, no_exec } = setup;
    let interactive = std::io::stdin().is_terminal();
    let before = interactive.then(|| tcgetattr(std::io::stdin()).ok()).flatten();
    let known = Arc::new(Mutex::new(Known::default()));
    let above = Above::default();
    let watch = Watch::new(above.clone());
    let reader = match interactive {
        true => {
            let collected = known.clone();
            let library = dirs.clone();
            // What there is to complete takes longer to collect than the first key to be pressed.
            let collect = move || {
                let vocabulary = Arc::new(Vocabulary::collect(&library));
                collected.lock().unwrap_or_else(PoisonError::into_inner).vocabulary = vocabulary;
            };
            let _ = std::thread::Builder::new().name("vocabulary".into()).spawn(collect);
            InputReader::at_terminal(
                known.clone(),
                history,
                above.clone(),
                wants_colour(std::io::stdout().is_terminal()),
            )
        }
        false => InputReader::from_pipe(),
    };
    let reader = Rc::new(reader);
    let asked = reader.clone();
    let ask = Box::new(move |question: &str| asked.agrees(question));
    let mut session = LabSession::begin(Begin { lab, dirs, joined, interactive, no_exec, trace, ask });
    if interactive {
        let name = session.name();
        talk(&match joined {
            true => format!("lab `{name}`, which was up; `:help` lists the commands\n"),
            false => format!("a new lab, `{name}`; `:help` lists the commands\n"),
        });
    }
    let held = catch_unwind(AssertUnwindSafe(|| hold(&mut session, &reader, &known, &watch)));
    above.close();
    let code = match &held {
        Ok(end) => conclude(session, &reader, end, keep),
        // A defect of ours must leave nothing behind either.
        Err(_) => conclude(session, &reader, &SessionEnd::Cut(exit::FAILED), false),
    };
    restore(before.as_ref());
    match held {
        Ok(_) => code,
        Err(panic) => resume_unwind(panic),
    }
}

/// How a session came to its end.
enum SessionEnd {
    /// The user left, or there is no more to read.
    Left,
    /// The terminal, or what was piped in, ended: nobody is there to be asked.
    Over,
    /// It was ended, with an exit code.
    Cut(u8),
}

fn hold(session: &mut LabSession, reader: &InputReader, known: &Mutex<Known>, watch: &Watch) -> SessionEnd {
    let interactive = session.is_interactive();
    let mut checks_failed = false;
    loop {
        if interactive {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            *known = session.known(&known);
            watch.add(session.processes());
        }
        let mut line = 0;
        let went = match reader.statements(format!("{}> ", session.name())) {
            Input::Text(text, first) => {
                line = first;
                session.enter(&text)
            }
            Input::GivenUp => Went::Well,
            Input::End if interactive => return SessionEnd::Left,
            Input::End if checks_failed => return SessionEnd::Cut(exit::FAILED),
            Input::End => return SessionEnd::Over,
            Input::Failed(why) => {
                talk(&format!("error: read the next line: {why}\n"));
                return SessionEnd::Cut(exit::FAILED);
            }
            Input::Signal => Went::Well,
        };
        if let Some(signal) = net::process::signal::ending() {
            return SessionEnd::Cut(exit::of_signal(signal));
        }
        match went {
            Went::Well => {}
            Went::Failed if !interactive => {
                talk(&format!("stopped at line {line} of standard input\n"));
                return SessionEnd::Cut(exit::FAILED);
            }
            Went::Failed => {}
            Went::CheckFailed => checks_failed = true,
        }
        if session.quits() {
            return SessionEnd::Left;
        }
    }
}

/// Ends the session: the lab stays or goes.
fn conclude(session: LabSession, reader: &InputReader, end: &SessionEnd, keep: bool) -> u8 {
    let (interactive, joined) = (session.is_interactive(), session.has_joined());
    let mut code = match end {
        SessionEnd::Cut(code) => *code,
        SessionEnd::Left | SessionEnd::Over => exit::DONE,
    };
    let Some(mut lab) = session.into_lab() else { return code };
    let name = lab.name().to_string();
    let failed = |error: &crate::state::Error| report(&Failure::from(error), &Texts::default());
    if !lab.is_known() {
        talk(&format!("lab `{name}` was taken down by something else\n"));
        // What of it is left, such as devices of the host, is still known here.
        let errors = lab.take_down_lost();
        errors.iter().for_each(failed);
        return code.max(exit::FAILED);
    }
    if joined {
        // It was up all the time.
        return code;
    }
    let (any, holds) = (lab.has_made_anything(), holds(&mut lab));
    let asked = || {
        matches!(end, SessionEnd::Left) && interactive && reader.agrees(&format!("keep lab `{name}`, with {holds}?"))
    };
    if any && (keep || asked()) {
        match lab.leave_up() {
            Ok(_) => {
                talk(&format!("lab `{name}` is up: {holds}; `topo down {name}` takes it down\n"));
                return code;
            }
            // A lab of which nobody knows that it is up would be taken for a dead one.
            Err(error) => {
                failed(&error);
                code = code.max(exit::FAILED);
            }
        }
    }
    let errors = lab.take_down(&prim::steps());
    errors.iter().for_each(failed);
    if !errors.is_empty() {
        talk(&format!("lab `{name}` is not wholly gone: `topo down {name}` tries again\n"));
        return code.max(exit::FAILED);
    }
    if any && interactive {
        talk(&format!("lab `{name}` is down\n"));
    }
    code
}

/// Sets the terminal back: the editor may still wait for a key, and leaves it raw.
fn restore(before: Option<&Termios>) {
    if let Some(before) = before {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
    }
}
