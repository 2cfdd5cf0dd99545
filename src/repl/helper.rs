//! What the editor asks while a line is typed: completion, hints, colours, and whether the statement goes on.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::Context;
use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::history::SearchDirection;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};

use super::complete::{self, Known};
use super::input::{is_command, lenient};
use crate::script::lexer::{self, Token, TokenKind};
use crate::script::{KEYWORDS, VALUES};

/// A text longer than this is neither coloured nor looked into at each key.
const LONG: usize = 20_000;

pub(super) struct Helper {
    known: Arc<Mutex<Known>>,
    engine: rhai::Engine,
    coloured: bool,
    /// Whether a statement is typed, and not an answer.
    pub active: bool,
    /// The bracket beside the cursor and its other half.
    brackets: Cell<Option<(usize, usize)>>,
}

impl Helper {
    pub(super) fn new(known: Arc<Mutex<Known>>, coloured: bool) -> Helper {
        Helper { known, engine: lenient(), coloured, active: true, brackets: Cell::new(None) }
    }

    fn with_known<T>(&self, work: impl FnOnce(&Known) -> T) -> T {
        work(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn looks_into(&self, line: &str) -> bool {
        self.active && line.len() <= LONG
    }
}

impl rustyline::Helper for Helper {}

impl Completer for Helper {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        match line.get(..pos) {
            Some(text) if self.looks_into(line) => Ok(self.with_known(|known| complete::complete(known, text))),
            _ => Ok((pos, Vec::new())),
        }
    }
}

/// A hint; only one of an earlier line can be taken over.
pub(super) struct ShownHint {
    text: String,
    can_be_taken: bool,
}

impl Hint for ShownHint {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.can_be_taken.then_some(&self.text)
    }
}

impl Hinter for Helper {
    type Hint = ShownHint;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<ShownHint> {
        if !self.looks_into(line) || line.is_empty() || pos < line.len() {
            return None;
        }
        if let Some(text) = self.with_known(|known| complete::hint(known, line)) {
            return Some(ShownHint { text, can_be_taken: false });
        }
        let history = context.history();
        let found = history.starts_with(line, history.len().checked_sub(1)?, SearchDirection::Reverse).ok()??;
        let rest = found.entry.get(line.len()..).filter(|rest| !rest.is_empty() && !rest.contains('\n'))?;
        Some(ShownHint { text: rest.to_string(), can_be_taken: true })
    }
}

impl Validator for Helper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        // Two empty lines end what is not whole: what is wrong with it is said then.
        let given_up = text.ends_with("\n\n");
        let goes_on = self.active && !given_up && !is_command(text) && lexer::goes_on(text, &self.engine);
        Ok(if goes_on { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Highlighter for Helper {
    fn highlight<'l>(&self, line: &'l str, pos: usize) -> Cow<'l, str> {
        if !self.coloured || !self.looks_into(line) {
            return Cow::Borrowed(line);
        }
        let tokens = lexer::tokens(line);
        self.brackets.set(matching(&tokens, pos));
        Cow::Owned(self.painted(line, &tokens))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.coloured { Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }

    fn highlight_char(&self, line: &str, _pos: usize, _kind: CmdKind) -> bool {
        self.coloured && self.looks_into(line)
    }
}

impl Helper {
    fn painted(&self, line: &str, tokens: &[Token]) -> String {
        let mut text = String::with_capacity(line.len() * 2);
        let mut end = 0;
        for (at, token) in tokens.iter().enumerate() {
            text.push_str(&line[end..token.range.start]);
            let word = &line[token.range.clone()];
            let called = tokens.get(at + 1).is_some_and(|next| next.kind == TokenKind::Symbol('('));
            let code = match token.kind {
                TokenKind::Word if KEYWORDS.contains(&word) => Some("35"),
                TokenKind::Word if VALUES.contains(&word) => Some("36"),
                TokenKind::Word if called => Some("34"),
                TokenKind::Number => Some("36"),
                TokenKind::Text { .. } => Some("32"),
                TokenKind::Comment { .. } => Some("2"),
                TokenKind::Symbol(_) => {
                    let pair = self.brackets.get();
                    pair.filter(|(one, other)| [*one, *other].contains(&token.range.start)).map(|_| "1;34")
                }
                TokenKind::Word => None,
            };
            match code {
                Some(code) => text.push_str(&format!("\x1b[{code}m{word}\x1b[0m")),
                None => text.push_str(word),
            }
            end = token.range.end;
        }
        text.push_str(&line[end..]);
        text
    }
}

/// Finds the bracket at the cursor, or before it, and its other half.
fn matching(tokens: &[Token], pos: usize) -> Option<(usize, usize)> {
    let bracket = |token: &Token| matches!(token.kind, TokenKind::Symbol('(' | ')' | '[' | ']' | '{' | '}'));
    let at = tokens.iter().position(|token| bracket(token) && (token.range.start == pos || token.range.end == pos))?;
    let mut open: Vec<usize> = Vec::new();
    for (here, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => open.push(here),
            TokenKind::Symbol(')' | ']' | '}') => {
                let other = open.pop()?;
                if here == at || other == at {
                    return Some((tokens[other].range.start, token.range.start));
                }
            }
            _ => {}
        }
    }
    None
}
