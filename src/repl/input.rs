//! Where a session's lines come from: a person at a terminal, by an editor, or a pipe. Both are read on a thread of their own, so
//! that a signal ends the session at a prompt too.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor, ExternalPrinter};

use super::complete::Known;
use super::helper::Helper;
use super::watch::Above;
use crate::net::regular;
use crate::script::{self, lexer};
use crate::terminal::talk;

/// How many entries the history keeps.
const HISTORY_MAX: usize = 10_000;

/// The largest history that is loaded, and the longest line that is read from a pipe.
const HISTORY_BYTES_MAX: u64 = 16 << 20;
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What a session waits for.
pub(super) enum Input {
    /// Statements, or a command; and the number of their first line in a pipe.
    Text(String, usize),
    /// A line was given up, by Ctrl-C.
    GivenUp,
    /// There is no more.
    End,
    /// It can't be read.
    Failed(String),
    /// A signal was caught.
    Signal,
}

/// What the reader is asked for.
enum WantedInput {
    /// Statements, behind a prompt.
    Statements(String),
    /// An answer to a question.
    Answer(String),
}

/// The thread that reads, and the way to it.
pub(super) struct InputReader {
    asks: Sender<WantedInput>,
    inputs: Receiver<Input>,
}

impl InputReader {
    /// Starts to read from a person at a terminal. `known` is what completion goes by; it may change between two lines.
    pub(super) fn at_terminal(
        known: Arc<Mutex<Known>>,
        history: Option<PathBuf>,
        above: Above,
        coloured: bool,
    ) -> InputReader {
        InputReader::start(move |asks, inputs| edit(&asks, &inputs, known, history, &above, coloured))
    }

    /// Starts to read from a pipe.
    pub(super) fn from_pipe() -> InputReader {
        InputReader::start(|asks, inputs| read_pipe(&asks, &inputs))
    }

    fn start(work: impl FnOnce(Receiver<WantedInput>, Sender<Input>) + Send + 'static) -> InputReader {
        let (asks, asked) = channel();
        let (sender, inputs) = channel();
        let signalled = sender.clone();
        crate::net::process::signal::on_caught(move || {
            let _ = signalled.send(Input::Signal);
        });
        let told = sender.clone();
        let started = std::thread::Builder::new().name("reader".into()).spawn(move || work(asked, sender));
        if let Err(error) = started {
            let _ = told.send(Input::Failed(error.to_string()));
        }
        InputReader { asks, inputs }
    }

    /// Waits for statements, or for a signal.
    pub(super) fn statements(&self, prompt: String) -> Input {
        self.wait(WantedInput::Statements(prompt))
    }

    /// Asks a question whose answer is yes or no; anything but yes is no.
    pub(super) fn agrees(&self, question: &str) -> bool {
        match self.wait(WantedInput::Answer(format!("{question} [y/N] "))) {
            Input::Text(answer, _) => matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"),
            _ => false,
        }
    }

    fn wait(&self, wanted: WantedInput) -> Input {
        if self.asks.send(wanted).is_err() {
            return Input::End;
        }
        loop {
            match self.inputs.recv() {
                // Ctrl-C at the prompt is the editor's; one that came before it was for a statement that has ended.
                Ok(Input::Signal) if crate::net::process::signal::ending().is_none() => {}
                Ok(input) => return input,
                Err(_) => return Input::End,
            }
        }
    }
}

/// Reads lines by an editor.
fn edit(
    asks: &Receiver<WantedInput>,
    inputs: &Sender<Input>,
    known: Arc<Mutex<Known>>,
    history: Option<PathBuf>,
    above: &Above,
    coloured: bool,
) {
    let colours = if coloured { ColorMode::Enabled } else { ColorMode::Disabled };
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .color_mode(colours)
        .max_history_size(HISTORY_MAX)
        .map(|config| config.build());
    let editor = config.and_then(Editor::<Helper, FileHistory>::with_config);
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => return drop(inputs.send(Input::Failed(error.to_string()))),
    };
    // A dumb terminal has none: then nobody is told.
    if let Ok(mut printer) = editor.create_external_printer() {
        above.open(Box::new(move |text| drop(printer.print(text))));
    }
    editor.set_helper(Some(Helper::new(known, coloured)));
    let mut kept = true;
    if let Some(path) = &history
        && path.exists()
        && let Err(error) = load(&mut editor, path)
    {
        talk(&format!("the history `{}` can't be read: {error}\n", path.display()));
        // What is no history is not written to either.
        kept = error.kind() != std::io::ErrorKind::InvalidInput;
    }
    while let Ok(wanted) = asks.recv() {
        let (prompt, statements) = match &wanted {
            WantedInput::Statements(prompt) => (prompt, true),
            WantedInput::Answer(question) => (question, false),
        };
        if let Some(helper) = editor.helper_mut() {
            helper.active = statements;
        }
        let input = match editor.readline(prompt) {
            Ok(line) => {
                if statements && !line.trim().is_empty() {
                    let added = editor.add_history_entry(line.as_str());
                    kept = kept && keep(&mut editor, added, history.as_ref());
                }
                Input::Text(line, 1)
            }
            Err(ReadlineError::Interrupted) => Input::GivenUp,
            Err(ReadlineError::Eof) => Input::End,
            // A terminal that was closed.
            Err(ReadlineError::Io(error)) if error.raw_os_error() == Some(libc::EIO) => Input::End,
            Err(ReadlineError::Errno(errno)) if errno as i32 == libc::EIO => Input::End,
            Err(error) => Input::Failed(error.to_string()),
        };
        if inputs.send(input).is_err() {
            return;
        }
    }
}

/// Loads the history; a file that is no regular one, or huge, is refused with the kind `InvalidInput`.
fn load(editor: &mut Editor<Helper, FileHistory>, path: &Path) -> std::io::Result<()> {
    regular::read(path, HISTORY_BYTES_MAX)?;
    editor.load_history(path).map_err(std::io::Error::other)
}

/// Writes what was added to the history; tells whether it is worth to try again the next time.
fn keep(editor: &mut Editor<Helper, FileHistory>, added: rustyline::Result<bool>, history: Option<&PathBuf>) -> bool {
    let Some(path) = history else { return false };
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let kept = made
        .map_err(ReadlineError::Io)
        .and(added)
        .and_then(|added| if added { editor.append_history(path) } else { Ok(()) });
    if let Err(error) = &kept {
        talk(&format!("the history is not kept: `{}`: {error}\n", path.display()));
    }
    kept.is_ok()
}

/// Reads statements from a pipe: lines, until what they say is whole.
fn read_pipe(asks: &Receiver<WantedInput>, inputs: &Sender<Input>) {
    let engine = lenient();
    let mut stdin = std::io::stdin().lock();
    let mut next_line = || {
        let mut line = Vec::new();
        match std::io::Read::take(&mut stdin, LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(read) if read as u64 == LINE_BYTES_MAX => {
                let text = format!("a line has more than {} MiB", LINE_BYTES_MAX >> 20);
                Some(Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text)))
            }
            Ok(_) => {
                line.pop_if(|last| *last == b'\n');
                Some(Ok(line))
            }
            Err(error) => Some(Err(error)),
        }
    };
    let mut number = 0;
    while asks.recv().is_ok() {
        let (mut text, first, mut open) = (String::new(), number + 1, lexer::OpenText::default());
        let input = loop {
            let Some(line) = next_line() else {
                break if text.trim().is_empty() { Input::End } else { Input::Text(std::mem::take(&mut text), first) };
            };
            number += 1;
            match line.map(String::from_utf8) {
                Err(error) => break Input::Failed(error.to_string()),
                Ok(Err(error)) => {
                    let at = error.utf8_error().valid_up_to() + 1;
                    break Input::Failed(format!("line {number}, byte {at} is not UTF-8 text"));
                }
                Ok(Ok(line)) => text.push_str(&line),
            }
            text.push('\n');
            // A statement of many lines is compiled once its brackets are closed, and not at each line.
            if is_command(&text) || !(open.in_text(&text) || lexer::goes_on(&text, &engine)) {
                break Input::Text(std::mem::take(&mut text), first);
            }
        };
        if inputs.send(input).is_err() {
            return;
        }
    }
}

/// Tells whether a text is a command.
pub(super) fn is_command(text: &str) -> bool {
    text.trim_start().starts_with(':')
}

/// Makes an engine that compiles statements whose variables it doesn't know.
pub(super) fn lenient() -> rhai::Engine {
    let mut engine = script::bare();
    engine.set_strict_variables(false);
    engine
}
