//! The commands of a session: what begins with a colon.

use super::session::{LabSession, Went};
use crate::state::{Error, Kind, Result, name};

/// What a command's argument is, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Count,
    File,
    Netns,
    Switch,
    Topic,
}

/// A command of a session.
pub(super) struct SessionCommand {
    /// Its name, with the colon.
    pub name: &'static str,
    /// Its argument, as help shows it.
    pub usage: &'static str,
    pub takes: Takes,
    /// What it does, in one sentence.
    pub about: &'static str,
    run: fn(&mut LabSession, &str) -> Result<Went>,
}

/// All commands, in the order in which `:help` lists them.
pub(super) const COMMANDS: &[SessionCommand] = &[
    SessionCommand {
        name: ":help",
        usage: "[NAME]",
        takes: Takes::Topic,
        about: "Shows the commands, or what NAME does.",
        run: |session, argument| well(session.help(argument)),
    },
    SessionCommand {
        name: ":ls",
        usage: "",
        takes: Takes::Nothing,
        about: "Shows what the lab holds, as a tree.",
        run: |session, argument| well(session.ls(argument)),
    },
    SessionCommand {
        name: ":undo",
        usage: "[N]",
        takes: Takes::Count,
        about: "Takes the last statement back, or the last N: its steps and its variables.",
        run: |session, argument| well(session.undo(argument)),
    },
    SessionCommand {
        name: ":history",
        usage: "",
        takes: Takes::Nothing,
        about: "Lists the statements that hold.",
        run: |session, argument| well(session.history(argument)),
    },
    SessionCommand {
        name: ":save",
        usage: "FILE",
        takes: Takes::File,
        about: "Writes the statements that hold as a script that builds the lab again.",
        run: |session, argument| well(session.save(argument)),
    },
    SessionCommand {
        name: ":load",
        usage: "FILE",
        takes: Takes::File,
        about: "Runs a script here, as one statement.",
        run: |session, argument| session.load(argument),
    },
    SessionCommand {
        name: ":trace",
        usage: "[on|off]",
        takes: Takes::Switch,
        about: "Shows each step with the commands that do the same.",
        run: |session, argument| well(session.trace(argument)),
    },
    SessionCommand {
        name: ":time",
        usage: "[on|off]",
        takes: Takes::Switch,
        about: "Shows how long each statement takes.",
        run: |session, argument| well(session.time(argument)),
    },
    SessionCommand {
        name: ":sh",
        usage: "NETNS [COMMAND]",
        takes: Takes::Netns,
        about: "Runs a shell in a netns, or one command line.",
        run: |session, argument| well(session.shell(argument)),
    },
    SessionCommand {
        name: ":reset",
        usage: "",
        takes: Takes::Nothing,
        about: "Takes all back that this session made, and forgets its variables.",
        run: |session, argument| well(session.reset(argument)),
    },
    SessionCommand {
        name: ":clear",
        usage: "",
        takes: Takes::Nothing,
        about: "Clears the screen.",
        run: |session, _| well(session.clear()),
    },
    SessionCommand {
        name: ":quit",
        usage: "",
        takes: Takes::Nothing,
        about: "Ends the session.",
        run: |session, _| well(session.quit()),
    },
];

/// Returns the command that a word means which other prompts know without a colon.
pub(super) fn meant(line: &str) -> Option<&'static str> {
    match line.trim_end_matches(';') {
        "exit" | "exit()" | "quit" | "quit()" | "logout" => Some(":quit"),
        "help" | "?" => Some(":help"),
        "ls" => Some(":ls"),
        "clear" => Some(":clear"),
        _ => None,
    }
}

fn well(done: Result<()>) -> Result<Went> {
    done.map(|()| Went::Well)
}

/// Runs a line that begins with a colon.
pub(super) fn run(session: &mut LabSession, line: &str) -> Result<Went> {
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let error =
            Error::new(Kind::Missing, format!("run `{}`", name::shown(name))).because("there is no such command");
        let names = COMMANDS.iter().map(|command| command.name);
        return Err(match name::nearest(name, names) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("`:help` lists the commands"),
        });
    };
    let argument = argument.trim();
    let wrong = |because: &str| {
        Err(Error::invalid(format!("run `{}`", name::shown(line)))
            .because(because.to_string())
            .hint(format!("`{}`", command.shown())))
    };
    match command.takes {
        Takes::Nothing if !argument.is_empty() => wrong("it takes nothing more"),
        Takes::File if argument.is_empty() => wrong("it takes the name of a file"),
        Takes::Netns if argument.is_empty() => wrong("it takes the name of a netns"),
        _ => (command.run)(session, argument),
    }
}

impl SessionCommand {
    /// Returns how the command is written.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.name, self.usage).trim_end().to_string()
    }
}
