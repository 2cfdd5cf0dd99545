//! The words of a script as it is typed: enough to colour it, to find what stands before the cursor, and to tell whether a
//! statement goes on. Never wrong about where a string or a comment ends; what the words mean is rhai's to say.

use std::ops::Range;

use rhai::{Engine, ParseErrorType};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands, in bytes.
    pub range: Range<usize>,
}

/// What a piece of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A name or a keyword.
    Word,
    /// A number.
    Number,
    /// A string or a character; whether its end is there.
    Text {
        /// Whether its end is there.
        closed: bool,
    },
    /// A comment; whether its end is there.
    Comment {
        /// Whether its end is there.
        closed: bool,
    },
    /// One character of anything else but space.
    Symbol(char),
}

/// Parts a text into its tokens; space is left out.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::with_capacity(text.len() / 5);
    scan(text, 0, |token| {
        found.push(token);
        true
    });
    found
}

/// Gives the tokens from a byte on to `take`, until it returns false.
pub fn scan(text: &str, from: usize, mut take: impl FnMut(Token) -> bool) {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        let (kind, length) = match bytes[at] {
            b' ' | b'\t'..=b'\r' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => (TokenKind::Number, word_length(text, at)),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => (TokenKind::Word, word_length(text, at)),
            b'/' | b'"' | b'\'' | b'`' | b'#' => lengthy(&text[at..]),
            byte if byte.is_ascii() => (TokenKind::Symbol(char::from(byte)), 1),
            _ => {
                let c = text[at..].chars().next().unwrap_or_default();
                if c.is_whitespace() {
                    at += c.len_utf8();
                    continue;
                }
                match word_length(text, at) {
                    0 => (TokenKind::Symbol(c), c.len_utf8()),
                    length => (TokenKind::Word, length),
                }
            }
        };
        if !take(Token { kind, range: at..at + length }) {
            return;
        }
        at += length;
    }
}

/// Returns the kind and length of what a text begins with that may go on for long: a comment, a string.
fn lengthy(text: &str) -> (TokenKind, usize) {
    match text.as_bytes() {
        [b'/', b'/', ..] => (TokenKind::Comment { closed: true }, text.find('\n').unwrap_or(text.len())),
        [b'/', b'*', ..] => block_comment(text),
        [b'"', ..] => quoted(text, '"'),
        [b'\'', ..] => quoted(text, '\''),
        [b'`', ..] => template(text),
        [b'#', ..] if is_raw(text) => raw(text),
        bytes => (TokenKind::Symbol(char::from(bytes[0])), 1),
    }
}

/// Returns how long the name or number is that begins at a byte.
fn word_length(text: &str, begin: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = begin;
    while at < bytes.len() {
        at += match bytes[at] {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => 1,
            byte if byte.is_ascii() => break,
            _ => match text[at..].chars().next() {
                Some(c) if is_word(c) => c.len_utf8(),
                _ => break,
            },
        };
    }
    at - begin
}

/// Tells whether a character is part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// rhai's comments nest.
fn block_comment(text: &str) -> (TokenKind, usize) {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return (TokenKind::Comment { closed: true }, at);
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    (TokenKind::Comment { closed: false }, text.len())
}

/// A string between quotes ends with its line, closed or not.
fn quoted(text: &str, quote: char) -> (TokenKind, usize) {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' if !escaped => return (TokenKind::Text { closed: false }, at),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return (TokenKind::Text { closed: true }, at + c.len_utf8()),
            _ => {}
        }
    }
    (TokenKind::Text { closed: false }, text.len())
}

/// A string between backticks goes over lines, and has expressions in it.
fn template(text: &str) -> (TokenKind, usize) {
    let (mut depth, mut at) = (0_usize, 1);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("${") {
            depth += 1;
            at += 2;
            continue;
        }
        match rest.chars().next() {
            Some('{') if depth > 0 => depth += 1,
            Some('}') if depth > 0 => depth -= 1,
            Some('`') if depth == 0 => return (TokenKind::Text { closed: true }, at + 1),
            _ => {}
        }
        at += rest.chars().next().map_or(1, char::len_utf8);
    }
    (TokenKind::Text { closed: false }, text.len())
}

fn is_raw(text: &str) -> bool {
    text.trim_start_matches('#').starts_with('"')
}

fn raw(text: &str) -> (TokenKind, usize) {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    match text[hashes + 1..].find(&end) {
        Some(at) => (TokenKind::Text { closed: true }, hashes + 1 + at + end.len()),
        None => (TokenKind::Text { closed: false }, text.len()),
    }
}

/// Returns where the comment begins that has no end, if there is one: rhai takes all behind it for a part of it.
pub fn unclosed_comment(text: &str) -> Option<usize> {
    if !text.contains("/*") {
        return None;
    }
    let last = tokens(text).pop()?;
    (last.kind == TokenKind::Comment { closed: false }).then_some(last.range.start)
}

/// Tells whether a text that does not compile as it is would with more lines behind it.
///
/// `engine` should not be strict about variables: what is in scope is not known here.
pub fn goes_on(text: &str, engine: &Engine) -> bool {
    let tokens = tokens(text);
    let depth: i64 = tokens
        .iter()
        .map(|token| match token.kind {
            TokenKind::Symbol('(' | '[' | '{') => 1,
            TokenKind::Symbol(')' | ']' | '}') => -1,
            _ => 0,
        })
        .sum();
    match tokens.last().map(|token| (token.kind, &text[token.range.clone()])) {
        None => return false,
        // rhai compiles a comment without its end.
        Some((TokenKind::Comment { closed: false }, _)) => return true,
        // One between quotes ends with its line, but for a backslash at its end.
        Some((TokenKind::Text { closed: false }, string)) => {
            return !string.starts_with(['"', '\'']) || string.trim_end_matches('\n').ends_with('\\');
        }
        _ => {}
    }
    let Err(error) = engine.compile(text) else { return false };
    match *error.0 {
        ParseErrorType::UnexpectedEOF => true,
        // A block that has not begun yet.
        ParseErrorType::MissingToken(ref token, _) if token == "{" => is_at_end(text, error.1),
        _ => depth > 0 && is_at_end(text, error.1),
    }
}

/// What is open in a text that grows by lines; what was read of it is not read again.
#[derive(Debug, Default)]
pub struct OpenText {
    depth: i64,
    read: usize,
}

impl OpenText {
    /// Tells whether a bracket, a comment or a string is open behind the last line of `text`, which begins as it did before.
    pub fn in_text(&mut self, text: &str) -> bool {
        let begin = self.read;
        for token in tokens(&text[begin..]) {
            match token.kind {
                // A string that ended with its line, by mistake, ends before the newline.
                TokenKind::Text { closed: false } | TokenKind::Comment { closed: false }
                    if begin + token.range.end == text.len() =>
                {
                    self.read = begin + token.range.start;
                    return true;
                }
                TokenKind::Symbol('(' | '[' | '{') => self.depth += 1,
                TokenKind::Symbol(')' | ']' | '}') => self.depth -= 1,
                _ => {}
            }
        }
        self.read = text.len();
        self.depth > 0
    }
}

/// Returns the byte of a text at a position.
pub(super) fn byte_at(text: &str, position: rhai::Position) -> Option<usize> {
    let start: usize = text.split_inclusive('\n').take(position.line()? - 1).map(str::len).sum();
    let rest = text.get(start..)?;
    Some(start + rest.char_indices().nth(position.position()?.checked_sub(1)?)?.0)
}

/// Returns the line and column of a byte of a text.
pub(super) fn position_at(text: &str, byte: usize) -> rhai::Position {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    match (u16::try_from(line), u16::try_from(column)) {
        (Ok(line), Ok(column)) => rhai::Position::new(line, column),
        _ => rhai::Position::NONE,
    }
}

/// Tells whether a position is behind the last word of a text.
fn is_at_end(text: &str, position: rhai::Position) -> bool {
    let (Some(line), Some(column)) = (position.line(), position.position()) else { return true };
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text.get(start..).unwrap_or("");
    let at = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
    tokens(&rest[at..]).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(TokenKind, &str)> {
        tokens(text).iter().map(|token| (token.kind, &text[token.range.clone()])).collect()
    }

    #[test]
    fn a_line_is_parted() {
        let (closed, open) = (TokenKind::Text { closed: true }, TokenKind::Text { closed: false });
        assert_eq!(
            kinds("let h1 = \"a\\\"b\" + 10; // x"),
            [
                (TokenKind::Word, "let"),
                (TokenKind::Word, "h1"),
                (TokenKind::Symbol('='), "="),
                (closed, "\"a\\\"b\""),
                (TokenKind::Symbol('+'), "+"),
                (TokenKind::Number, "10"),
                (TokenKind::Symbol(';'), ";"),
                (TokenKind::Comment { closed: true }, "// x"),
            ]
        );
        assert_eq!(kinds("`a ${ #{b: 1} } c`"), [(closed, "`a ${ #{b: 1} } c`")]);
        assert_eq!(kinds("`a\nb"), [(open, "`a\nb")]);
        assert_eq!(kinds("\"ab\nc"), [(open, "\"ab"), (TokenKind::Word, "c")]);
        assert_eq!(
            kinds("#\"a\"b\"#"),
            [(TokenKind::Text { closed: false }, "#\"a\"b\"#")].map(|_| (closed, "#\"a\"b\"#"))
        );
        assert_eq!(kinds("/* a /* b */ c"), [(TokenKind::Comment { closed: false }, "/* a /* b */ c")]);
        assert_eq!(kinds("é'ü'"), [(TokenKind::Word, "é"), (closed, "'ü'")]);
    }

    #[test]
    fn a_statement_goes_on_while_something_is_open() {
        let engine = Engine::new();
        for text in [
            "fn f() {",
            "f(1,",
            "let x =",
            "for i in 0..3 {\n f(i);",
            "`a",
            "\"a\\\n",
            "/* a",
            "x.map(|y| {",
            "1 +",
            "if true",
            "#{ a: 1,",
        ] {
            assert!(goes_on(text, &engine), "{text:?}");
        }
        for text in ["", "f(1)", "let x = 1", "f(1))", "\"a", "}", "let let", "// a", "f(1) g(2)", "x[1] }"] {
            assert!(!goes_on(text, &engine), "{text:?}");
        }
    }

    #[test]
    fn what_is_open_is_found_line_by_line() {
        let lines = ["f(#{ a: [1, // (", "\"a)\", `b)", ")`, /* )", ") */ \"c\\", ")\"", "]", "}", ")"];
        let (mut open, mut text) = (OpenText::default(), String::new());
        let found: Vec<bool> = lines
            .iter()
            .map(|line| {
                text.push_str(&format!("{line}\n"));
                open.in_text(&text)
            })
            .collect();
        assert_eq!(found, [true, true, true, true, true, true, true, false]);
        assert!(!OpenText::default().in_text("\"a\n"));
        assert!(!OpenText::default().in_text("}\n"));
    }

    proptest::proptest! {
        /// No text, however broken, is parted wrongly: the tokens are in order and within it.
        #[test]
        fn any_text_is_parted(text in ".*") {
            let mut end = 0;
            for token in tokens(&text) {
                assert!(token.range.start >= end && token.range.end > token.range.start);
                assert!(text.get(token.range.clone()).is_some());
                end = token.range.end;
            }
        }
    }
}
