//! A person at a session: types keys, and reads the screen.

use std::time::{Duration, Instant};

use expect_test::Expect;
use nix::sys::signal::Signal;
use nix::sys::termios::Termios;

use crate::cli::masked;
use crate::world::{Running, Tty, World};

/// How long something may take to be shown. Far beyond what anything needs, so that only what never comes meets it.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long to wait for news at a time.
const BREATH: Duration = Duration::from_millis(20);

pub(crate) const ENTER: &str = "\r";
pub(crate) const TAB: &str = "\t";
pub(crate) const UP: &str = "\x1b[A";
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";
const CTRL_L: &str = "\x0c";

/// A session at a terminal, and what the terminal shows of it. Dropped, the session is killed.
pub(crate) struct Screen {
    // Before the terminal, since fields drop in this order: a killed session does not see its terminal close.
    running: Running,
    tty: Tty,
    shown: vt100::Parser,
    /// All that was ever written to the terminal.
    bytes: Vec<u8>,
}

/// A place to type at: how large it is, and with which environment.
pub(crate) struct Desk<'a> {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) env: &'a [(&'a str, &'a str)],
}

impl Desk<'static> {
    /// A usual terminal, without colours.
    pub(crate) const USUAL: Desk<'static> = Desk { rows: 40, columns: 100, env: &[("TERM", "xterm-256color")] };
}

impl Screen {
    /// Starts `topo repl ARGS` at a usual terminal, and waits for the prompt.
    pub(crate) fn open(world: &World, args: &[&str]) -> Screen {
        let mut screen = Screen::start(world, &Desk::USUAL, args);
        screen.prompt();
        screen
    }

    /// Starts `topo repl ARGS` with another environment, and waits for the prompt.
    pub(crate) fn open_with(world: &World, env: &[(&str, &str)], args: &[&str]) -> Screen {
        let mut screen = Screen::start(world, &Desk { env, ..Desk::USUAL }, args);
        screen.prompt();
        screen
    }

    /// Runs a shell script at a usual terminal.
    pub(crate) fn at_shell(world: &World, script: &str) -> Screen {
        let Desk { rows, columns, env } = Desk::USUAL;
        let tty = Tty::open(rows, columns);
        let running = world.start_run_at(&tty, env, script);
        Screen { running, tty, shown: vt100::Parser::new(size(rows), size(columns), 0), bytes: Vec::new() }
    }

    /// Starts `topo repl ARGS`, and returns at once.
    pub(crate) fn start(world: &World, desk: &Desk<'_>, args: &[&str]) -> Screen {
        let tty = Tty::open(desk.rows, desk.columns);
        let running = world.start_topo_at(&tty, desk.env, &[&["repl"], args].concat());
        let shown = vt100::Parser::new(size(desk.rows), size(desk.columns), 0);
        Screen { running, tty, shown, bytes: Vec::new() }
    }

    /// Types keys.
    pub(crate) fn keys(&mut self, keys: &str) {
        let mut rest = keys.as_bytes();
        let start = Instant::now();
        while !rest.is_empty() {
            let typed = self.exchange(rest);
            rest = &rest[typed..];
            assert!(start.elapsed() < DEADLINE, "nobody reads the keys, at `{}`:\n{}", lossy(rest), self.picture());
        }
    }

    /// Types a statement on a screen that was cleared before, and waits for the next prompt.
    pub(crate) fn enter(&mut self, statement: &str) {
        self.begin(statement);
        self.until("no prompt", |screen| screen.is_at_prompt() && screen.row() > 0);
    }

    /// Types a statement on a screen that was cleared before, and returns at once.
    pub(crate) fn begin(&mut self, statement: &str) {
        self.clear();
        self.keys(statement);
        self.keys(ENTER);
        self.until("the statement was not read", |screen| screen.row() > 0);
    }

    /// Clears the screen but for the prompt.
    pub(crate) fn clear(&mut self) {
        self.keys(CTRL_L);
        self.until("the screen was not cleared", |screen| screen.is_at_prompt() && screen.row() == 0);
    }

    /// Waits until the cursor stands behind a prompt.
    pub(crate) fn prompt(&mut self) {
        self.until("no prompt", Screen::is_at_prompt);
    }

    /// Waits until the screen contains a text.
    pub(crate) fn shows(&mut self, text: &str) {
        self.until(&format!("`{text}` is not shown"), |screen| screen.text().contains(text));
    }

    /// Compares what the screen shows at the prompt.
    pub(crate) fn looks(&mut self, picture: Expect) {
        self.prompt();
        picture.assert_eq(&masked(&self.text()));
    }

    /// Waits for the end of the session, and returns its exit code.
    pub(crate) fn ends(&mut self) -> i32 {
        self.until("the session did not end", |screen| screen.running.code().is_some());
        self.running.code().unwrap_or(-1)
    }

    /// Sends a signal to the session.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Closes the terminal, and returns the session, which goes on without it.
    pub(crate) fn close(self) -> Running {
        let Screen { running, .. } = self;
        running
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        self.shown.screen_mut().set_size(size(rows), size(columns));
        self.tty.resize(rows, columns);
    }

    /// Returns the modes of the terminal: whether it echoes, and whether it hands over lines or keys.
    pub(crate) fn modes(&self) -> Termios {
        self.tty.modes()
    }

    /// Returns what is shown: its rows, without the empty ones at the end.
    pub(crate) fn text(&self) -> String {
        let rows = self.shown.screen().rows(0, u16::from(self.shown.screen().size().1));
        let text: String = rows.map(|row| format!("{}\n", row.trim_end())).collect();
        format!("{}\n", text.trim_end())
    }

    /// Returns all that was ever written to the terminal.
    pub(crate) fn written(&self) -> String {
        lossy(&self.bytes)
    }

    /// Waits until `done`; panics with the screen if it never comes to that.
    pub(crate) fn until(&mut self, missing: &str, done: impl Fn(&Screen) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < DEADLINE, "{missing}:\n{}", self.picture());
            self.exchange(b"");
        }
    }

    /// Returns the row in which the cursor is.
    pub(crate) fn line(&self) -> String {
        self.text().lines().nth(self.row().into()).unwrap_or("").to_string()
    }

    fn exchange(&mut self, keys: &[u8]) -> usize {
        let before = self.bytes.len();
        let typed = self.tty.exchange(keys, &mut self.bytes, BREATH);
        self.shown.process(&self.bytes[before..]);
        typed
    }

    pub(crate) fn row(&self) -> u16 {
        self.shown.screen().cursor_position().0
    }

    fn column(&self) -> u16 {
        self.shown.screen().cursor_position().1
    }

    /// Tells whether the cursor stands behind a prompt, and nothing behind the cursor.
    pub(crate) fn is_at_prompt(&self) -> bool {
        let row = self.line();
        let prompt = row.strip_suffix('>').is_some_and(|name| !name.is_empty() && !name.contains(' '));
        prompt && usize::from(self.column()) == row.chars().count() + 1
    }

    fn picture(&self) -> String {
        let (row, column) = self.shown.screen().cursor_position();
        let end = if self.running.code().is_some() { "has ended" } else { "runs" };
        let line = "-".repeat(u16::from(self.shown.screen().size().1).into());
        format!("{line}\n{}{line}\nthe cursor at row {row}, column {column}; the session {end}", self.text())
    }
}

fn size(count: u16) -> std::num::NonZeroU16 {
    count.try_into().expect("a terminal has rows and columns")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
