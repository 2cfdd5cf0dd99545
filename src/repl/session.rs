//! A session: statements that build a lab, one after the other, each of which can be taken back.

use std::cell::Cell;
use std::io::Write;
use std::path::Path;
use std::process::Command as Process;
use std::rc::Rc;
use std::time::Instant;

use rhai::Dynamic;

use super::commands::{self, COMMANDS};
use super::complete::Known;
use super::show;
use crate::lab::{Checkpoint, Lab, Watched};
use crate::net;
use crate::prim::{self, LabHandle};
use crate::script::lexer::{self, TokenKind};
use crate::script::{self, Dirs, Failure, Script, StatementPoint, catalog};
use crate::state::{Error, Kind, NetnsRef, Result, name};
use crate::terminal::{self, data, environment, report, talk};

/// How many statements keep the values that the variables had before them.
const UNDO_MAX: usize = 100;

/// Asks whoever types a question; tells whether the answer is yes.
pub(super) type Ask = Box<dyn Fn(&str) -> bool>;

/// A statement that holds.
struct AppliedStatement {
    number: usize,
    script: Script,
    before: Checkpoint,
    /// What the variables were before it; only of the last ones.
    mark: Option<StatementPoint>,
}

/// How a statement went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    Well,
    /// It failed, and was taken back.
    Failed,
    /// It was done, and a check in it failed.
    CheckFailed,
}

/// A lab with the statements that build it.
pub(super) struct LabSession {
    lab: LabHandle,
    script: script::Session,
    dirs: Dirs,
    name: String,
    joined: bool,
    /// Whether somebody is there to be asked.
    interactive: bool,
    statements: Vec<AppliedStatement>,
    /// How many statements were begun.
    count: usize,
    trace: Rc<Cell<bool>>,
    times: bool,
    quits: bool,
    ask: Ask,
}

/// What a session begins with.
pub(super) struct Begin {
    pub lab: Lab,
    pub dirs: Dirs,
    pub joined: bool,
    pub interactive: bool,
    pub no_exec: bool,
    pub trace: Rc<Cell<bool>>,
    /// Asks the user a question.
    pub ask: Ask,
}

impl LabSession {
    pub(super) fn begin(begin: Begin) -> LabSession {
        let Begin { lab, dirs, joined, interactive, no_exec, trace, ask } = begin;
        let (name, mut lab) = (lab.name().to_string(), lab);
        lab.undo_exactly();
        let lab = LabHandle::new(lab, "");
        lab.confine(no_exec);
        let script = script::Session::new(&lab, &dirs, rhai::Map::new());
        LabSession {
            lab,
            script,
            dirs,
            name,
            joined,
            interactive,
            statements: Vec::new(),
            count: 0,
            trace,
            times: false,
            quits: false,
            ask,
        }
    }

    /// Returns the lab's name, which a statement may have given it.
    pub(super) fn name(&self) -> String {
        self.lab.with(|lab| Ok(lab.name().to_string())).unwrap_or_else(|_| self.name.clone())
    }

    /// Tells whether the user wants to leave.
    pub(super) fn quits(&self) -> bool {
        self.quits
    }

    /// Takes the lab out, at the end.
    pub(super) fn into_lab(self) -> Option<Lab> {
        self.lab.take()
    }

    /// Does what was entered: a command, or statements.
    pub(super) fn enter(&mut self, text: &str) -> Went {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Went::Well;
        }
        let meant =
            commands::meant(trimmed).filter(|_| !self.script.variables().iter().any(|known| known.name == trimmed));
        if let Some(command) = meant.or_else(|| trimmed.starts_with(':').then_some(trimmed)) {
            return match commands::run(self, command) {
                Ok(went) => went,
                Err(error) => self.failed(&Failure::from(&error)),
            };
        }
        let script = Script::inline(&format!("[{}]", self.count + 1), text);
        self.run(script)
    }

    fn failed(&self, failure: &Failure) -> Went {
        report(failure, self.script.texts());
        Went::Failed
    }

    /// Runs statements; if they fail, what they did is taken back, and all is as before them.
    fn run(&mut self, script: Script) -> Went {
        let began = Instant::now();
        let silent = ends_with_semicolon(&script.text);
        net::process::signal::forget_interrupt();
        self.count += 1;
        let before = match self.lab.with(|lab| if lab.is_known() { lab.checkpoint() } else { Err(taken(lab.name())) }) {
            Ok(before) => before,
            Err(error) => return self.failed(&Failure::from(&error)),
        };
        let mark = self.script.mark();
        let ran = self.script.evaluate(&script).and_then(|value| {
            self.lab.with(|lab| lab.settle()).map_err(|error| Box::new(Failure::from(&error)))?;
            Ok(value)
        });
        let went = match ran {
            Ok(value) => {
                let checked = self.lab.with(|lab| Ok(!lab.checks_since(&before).is_empty())).unwrap_or(false);
                let checks_failed = self.note(script, before, mark);
                // A check has said what it found.
                if !silent && !checked {
                    self.print(&value);
                }
                if checks_failed { Went::CheckFailed } else { Went::Well }
            }
            Err(failure) => {
                let mut also: Vec<Error> = self.lab.unwind();
                also.extend(self.rewind(&before, "its statement failed, and was taken back"));
                self.script.go_back(mark);
                if self.interactive && failure.kind.is(Kind::Interrupted) {
                    // The terminal has written `^C`.
                    talk("\n");
                }
                self.failed(&failure);
                for error in &also {
                    self.failed(&Failure::from(error));
                }
                Went::Failed
            }
        };
        net::process::signal::forget_interrupt();
        if self.times {
            talk(&format!("{:.1?}\n", began.elapsed()));
        }
        went
    }

    /// Keeps a statement that did something; tells whether a check in it failed.
    fn note(&mut self, script: Script, before: Checkpoint, mark: StatementPoint) -> bool {
        let looked = self.lab.with(|lab| lab.only_looked_since(&before)).unwrap_or(false);
        if looked && self.script.is_as_at(&mark) {
            // There is nothing to take back, and a script has no use for it.
            return false;
        }
        let checks = self.lab.with(|lab| Ok(lab.checks_since(&before).iter().any(|check| !check.ok)));
        self.statements.push(AppliedStatement { number: self.count, script, before, mark: Some(mark) });
        if let Some(at) = self.statements.len().checked_sub(UNDO_MAX + 1) {
            self.statements[at].mark = None;
        }
        checks.unwrap_or(false)
    }

    fn rewind(&mut self, to: &Checkpoint, why: &str) -> Vec<Error> {
        let rewound = self.lab.with(|lab| Ok(lab.rewind(to, &prim::steps(), why)));
        rewound.unwrap_or_else(|error| vec![error])
    }

    fn print(&mut self, value: &Dynamic) {
        match self.lab.with(|lab| show::shown(lab, value)) {
            Ok(text) => data(&text),
            Err(error) => drop(self.failed(&Failure::from(&error))),
        }
    }

    /// Returns the processes that statements left running.
    pub(super) fn processes(&self) -> Vec<Watched> {
        self.lab.with(|lab| lab.watched()).unwrap_or_default()
    }

    /// Returns what completion should know now.
    pub(super) fn known(&self, before: &Known) -> Known {
        let (functions, imported) = self.script.defined();
        let devs = self.lab.with(|lab| {
            let model = lab.model();
            let mut devs: std::collections::BTreeMap<String, Vec<String>> =
                model.all_netns().map(|entry| (entry.at.name.clone(), Vec::new())).collect();
            for dev in model.all_devs() {
                devs.entry(dev.dev.netns.name.clone()).or_default().push(dev.dev.name.clone());
            }
            Ok(devs)
        });
        Known {
            vocabulary: before.vocabulary.clone(),
            variables: self.script.variables(),
            functions,
            imported,
            devs: devs.unwrap_or_default(),
        }
    }

    pub(super) fn quit(&mut self) -> Result<()> {
        self.quits = true;
        Ok(())
    }

    /// Clears the terminal: erases all of it, and goes to its first line (ECMA-48, ED and CUP).
    pub(super) fn clear(&self) -> Result<()> {
        if self.is_interactive() {
            terminal::data("\x1b[H\x1b[2J");
        }
        Ok(())
    }

    pub(super) fn help(&mut self, topic: &str) -> Result<()> {
        if topic.is_empty() {
            let width = COMMANDS.iter().map(|command| command.shown().len()).max().unwrap_or(0);
            let lines = COMMANDS.iter().map(|command| format!("{:width$}  {}\n", command.shown(), command.about));
            data(&lines.collect::<String>());
            data(
                "\nAnything else is Rhai: `let h = netns(\"h1\")` makes a namespace, `h` shows it, `topo doc` lists what there is.\n",
            );
            return Ok(());
        }
        let wanted = format!(":{}", topic.trim_start_matches(':'));
        let entries: Vec<catalog::Entry> =
            catalog::primitives().into_iter().chain(catalog::library(&self.dirs)).collect();
        let found = catalog::find(&entries, topic);
        if !found.is_empty() {
            found.iter().for_each(|entry| data(&script::reference::plain(entry)));
            return Ok(());
        }
        if let Some(command) = COMMANDS.iter().find(|command| command.name == wanted) {
            data(&format!("{}\n{}\n", command.shown(), command.about));
            return Ok(());
        }
        let names: Vec<String> = entries.iter().map(catalog::Entry::full_name).collect();
        let near = name::nearest(topic, names.iter().map(String::as_str).chain(COMMANDS.iter().map(|c| c.name)));
        let error = Error::new(Kind::Missing, format!("find help on `{}`", name::shown(topic)));
        Err(match near {
            Some(near) => error.because("nothing has this name").hint(format!("did you mean `{near}`?")),
            None => error.because("nothing has this name").hint("`:help` lists the commands"),
        })
    }

    pub(super) fn ls(&mut self, _: &str) -> Result<()> {
        let (name, namespaces, parts) = self.lab.with(|lab| {
            let parts = lab.state().children(lab.name())?;
            Ok((lab.name().to_string(), lab.look_around()?, parts))
        })?;
        data(&show::tree(&name, &namespaces, &parts));
        Ok(())
    }

    pub(super) fn undo(&mut self, count: &str) -> Result<()> {
        let doing = || format!("undo {}", if count.is_empty() { "1" } else { count });
        let wanted: usize = match count {
            "" => 1,
            _ => count.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
                Error::invalid(doing()).because("it takes a number of statements, from 1").hint("`:undo 2`")
            })?,
        };
        let Some(first) = self.statements.len().checked_sub(wanted) else {
            let held = self.statements.len();
            return Err(Error::invalid(doing())
                .because(match held {
                    0 => "there is nothing to undo".to_string(),
                    _ => format!(
                        "only {} to undo",
                        terminal::counted(held, "statement is there", "statements are there")
                    ),
                })
                .hint("`:history` lists them"));
        };
        let point = self.statements[first].before.clone();
        if self.statements[first].mark.is_none() {
            return Err(Error::invalid(doing())
                .because(format!("the values of variables are kept for the last {UNDO_MAX} statements"))
                .hint("`:reset` takes all back"));
        }
        if let Some(lost) = self.lab.with(|lab| lab.lost_since(&point))? {
            return Err(Error::invalid(doing())
                .because(format!("this can't be taken back: {lost}"))
                .hint("`:reset` takes back all that is left"));
        }
        let undone = self.statements.split_off(first);
        let errors = self.rewind(&point, "its statement was undone");
        let mut undone = undone.into_iter();
        if let Some(AppliedStatement { mark: Some(mark), number, script, .. }) = undone.next() {
            self.script.go_back(mark);
            talk(&format!("undone: {}\n", listed(number, &script)));
        }
        undone.for_each(|done| talk(&format!("undone: {}\n", listed(done.number, &done.script))));
        first_of(errors)
    }

    pub(super) fn history(&mut self, _: &str) -> Result<()> {
        for AppliedStatement { number, script, .. } in &self.statements {
            data(&format!("{}\n", listed(*number, script)));
        }
        Ok(())
    }

    pub(super) fn save(&mut self, file: &str) -> Result<()> {
        let doing = || format!("save `{}`", name::shown_path(file));
        let replaces = || (self.ask)(&format!("there is a file `{}`: write over it?", name::shown_path(file)));
        if Path::new(file).exists() && !(self.interactive && replaces()) {
            return Err(Error::new(Kind::Exists, doing())
                .because("there is a file of this name")
                .hint("take another name, or remove it"));
        }
        let failed = |source: std::io::Error| Error::file(format!("save `{}`", name::shown_path(file)), &source);
        let text = self.as_script();
        let path = Path::new(file);
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Beside it and renamed: a full disk must not leave half a script.
        let temp = dir.join(format!(".{}.{}", path.file_name().unwrap_or_default().display(), std::process::id()));
        let written = std::fs::File::create(&temp)
            .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
            .and_then(|()| std::fs::rename(&temp, path));
        if let Err(source) = written {
            let _ = std::fs::remove_file(&temp);
            return Err(failed(source));
        }
        let count = terminal::counted(self.statements.len(), "statement", "statements");
        talk(&format!("saved {count} to {file}; `topo run {file}` runs them\n"));
        if self.joined {
            talk("what the lab held before this session is not in it\n");
        }
        Ok(())
    }

    /// Returns the statements that hold as one script.
    fn as_script(&self) -> String {
        let statements = self.statements.iter().map(|done| {
            let text = done.script.text.trim_end();
            // A statement needs its end where another one follows; a comment behind it must not swallow that.
            let commented =
                lexer::tokens(text).last().is_some_and(|last| matches!(last.kind, TokenKind::Comment { .. }));
            match (ends_with_semicolon(text) || is_block(text), commented) {
                (true, _) => format!("{text}\n"),
                (false, false) => format!("{text};\n"),
                (false, true) => format!("{text}\n;\n"),
            }
        });
        statements.collect()
    }

    pub(super) fn load(&mut self, file: &str) -> Result<Went> {
        let script = Script::read(Path::new(file))?;
        Ok(self.run(script))
    }

    pub(super) fn trace(&mut self, word: &str) -> Result<()> {
        let on = switched(":trace", word, self.trace.get())?;
        self.trace.set(on);
        talk(&format!("trace is {}\n", if on { "on" } else { "off" }));
        Ok(())
    }

    pub(super) fn time(&mut self, word: &str) -> Result<()> {
        self.times = switched(":time", word, self.times)?;
        talk(&format!("time is {}\n", if self.times { "on" } else { "off" }));
        Ok(())
    }

    pub(super) fn shell(&mut self, words: &str) -> Result<()> {
        let (wanted, line) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        let netns = self.lab.with(|lab| {
            let at = find_netns(lab, wanted)?;
            let (kernel, _) = lab.settled()?;
            kernel.netns(&at).map_err(|source| Error::kernel(format!("enter netns `{wanted}`"), &source))
        })?;
        let shell = environment::SHELL.value().unwrap_or_else(|| "/bin/sh".into());
        let mut command = Process::new(if line.trim().is_empty() { shell } else { "/bin/sh".into() });
        if line.trim().is_empty() {
            // Of a shell that sets its own prompt, this comes before it.
            command.env("PS1", format!("{wanted}# "));
            command.env("PROMPT_COMMAND", format!("PS1=\"{wanted} ${{PS1#\"{wanted} \"}}\""));
        } else {
            command.args(["-c", line.trim()]);
        }
        net::command_in(&netns, &mut command, net::OpenFiles::None);
        let foreground = net::Foreground::ours();
        let failed = |source| Error::file(format!("run a shell in netns `{wanted}`"), &source);
        let mut child = command.spawn().map_err(failed)?;
        let status = child.wait().map_err(failed)?;
        // A shell that was killed had no time to.
        if let Some(foreground) = foreground {
            foreground.take_back(child.id());
        }
        // Ctrl-C was for the command.
        net::process::signal::forget_interrupt();
        if let Some(code) = status.code().filter(|code| *code != 0) {
            talk(&format!("exit code {code}\n"));
        }
        Ok(())
    }

    pub(super) fn reset(&mut self, _: &str) -> Result<()> {
        let errors = match self.statements.first() {
            Some(first) => {
                let point = first.before.clone();
                self.rewind(&point, "the session was reset")
            }
            None => Vec::new(),
        };
        let count = terminal::counted(self.statements.len(), "statement was", "statements were");
        talk(&format!("{count} taken back\n"));
        self.statements.clear();
        self.script.reset();
        first_of(errors)
    }

    /// Tells whether somebody is there to be asked.
    pub(super) fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Tells whether the lab was up before the session.
    pub(super) fn has_joined(&self) -> bool {
        self.joined
    }
}

/// Finds a namespace of the lab by the user's name.
fn find_netns(lab: &mut Lab, wanted: &str) -> Result<NetnsRef> {
    if let Some(entry) = lab.model().netns_named(wanted) {
        return Ok(entry.at.clone());
    }
    let names: Vec<String> = lab.model().all_netns().map(|entry| entry.at.name.clone()).collect();
    let error =
        Error::new(Kind::Missing, format!("find netns `{}`", name::shown(wanted))).because("the lab has no such netns");
    Err(match name::nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("it has: {}", names.join(", "))),
    })
}

/// Says that another process took the lab down.
fn taken(name: &str) -> Error {
    Error::new(Kind::Gone, format!("go on with lab `{name}`"))
        .because("something else took it down")
        .hint("`:save FILE` keeps the statements, `:quit` ends the session")
}

fn listed(number: usize, script: &Script) -> String {
    let first = script.text.trim().lines().next().unwrap_or("");
    let more = if script.text.trim().lines().count() > 1 { " …" } else { "" };
    match script.name.starts_with('[') {
        true => {
            let first: String = first.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("[{number}] {first}{more}")
        }
        false => format!("[{number}] :load {}", script.name),
    }
}

/// Tells whether a text is one statement with a block at its end, which needs no semicolon.
fn is_block(text: &str) -> bool {
    let tokens = lexer::tokens(text);
    let first = tokens.first().map_or("", |first| &text[first.range.clone()]);
    let ends = tokens.last().is_some_and(|last| last.kind == TokenKind::Symbol('}'));
    ends && ["for", "while", "loop", "if", "fn", "switch", "try", "private"].contains(&first)
}

/// Tells whether a text ends with a semicolon, perhaps with a comment behind it: its value is not asked for.
fn ends_with_semicolon(text: &str) -> bool {
    let tokens = lexer::tokens(text);
    let mut said = tokens.iter().rev().filter(|token| !matches!(token.kind, TokenKind::Comment { .. }));
    said.next().is_some_and(|last| last.kind == TokenKind::Symbol(';'))
}

fn switched(command: &str, word: &str, now: bool) -> Result<bool> {
    match word {
        "" => Ok(!now),
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Error::invalid(format!("run `{command} {}`", name::shown(word)))
            .because("it takes `on` or `off`, or nothing to change over")),
    }
}

fn first_of(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors.into_iter();
    match errors.next() {
        Some(first) => Err(first.also(errors)),
        None => Ok(()),
    }
}
