//! A text as its words, by place: what stands beside what, and which bracket closes which.

use std::ops::Range;

use super::lexer::{Token, TokenKind, tokens};
use super::vocabulary::KEYWORDS;

/// A text in its words.
pub(super) struct Words<'t> {
    /// The text.
    pub(super) text: &'t str,
    /// Its words, signs and strings.
    pub(super) tokens: Vec<Token>,
    /// The bytes of its comments.
    pub(super) comments: Vec<Range<usize>>,
}

impl<'t> Words<'t> {
    /// Parts a text into its words.
    pub(super) fn of(text: &'t str) -> Words<'t> {
        let (mut tokens, mut comments) = (tokens(text), Vec::new());
        tokens.retain(|token| {
            let is_comment = matches!(token.kind, TokenKind::Comment { .. });
            if is_comment {
                comments.push(token.range.clone());
            }
            !is_comment
        });
        Words { text, tokens, comments }
    }

    /// Tells whether a sign stands at a place.
    pub(super) fn is(&self, at: usize, symbol: char) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == TokenKind::Symbol(symbol))
    }

    /// Returns the word at a place, if it is one.
    pub(super) fn word(&self, at: usize) -> Option<&'t str> {
        self.tokens.get(at).filter(|token| token.kind == TokenKind::Word).map(|token| &self.text[token.range.clone()])
    }

    /// Returns the place of the bracket that closes the one at a place.
    pub(super) fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                TokenKind::Symbol('(' | '[' | '{') => depth += 1,
                TokenKind::Symbol(')' | ']' | '}') => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the functions that the text defines, and their bytes.
    pub(super) fn functions(&self) -> Vec<(&'t str, Range<usize>)> {
        let mut found = Vec::new();
        for (at, name) in self.definitions() {
            let Some(word) = self.word(name) else { continue };
            let body = self.closing(name + 1).filter(|end| self.is(end + 1, '{')).map(|end| end + 1);
            if let Some(end) = body.and_then(|body| self.closing(body)) {
                found.push((word, self.tokens[at].range.start..self.tokens[end].range.end));
            }
        }
        found
    }

    /// Returns the functions that the text defines, with the number of parameters, where each parameter is a name.
    pub(super) fn arities(&self) -> Vec<(&'t str, usize)> {
        let parameters = |name: usize| {
            let end = self.closing(name + 1)?;
            Some((name + 2..end).filter(|at| self.word(*at).is_some()).count())
        };
        self.definitions().filter_map(|(_, name)| Some((self.word(name)?, parameters(name)?))).collect()
    }

    /// Returns what the text imports while it is read, outside of its functions, and where each of these texts stands, in bytes.
    pub(super) fn imports(&self) -> Vec<(&'t str, usize)> {
        let mut depth = 0_usize;
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Symbol('{') => depth += 1,
                TokenKind::Symbol('}') => depth = depth.saturating_sub(1),
                TokenKind::Text { closed: true } if depth == 0 && at > 0 && self.word(at - 1) == Some("import") => {
                    let text = &self.text[token.range.clone()];
                    found.push((text.trim_matches('"'), self.tokens[at - 1].range.start));
                }
                _ => {}
            }
        }
        found
    }

    /// Returns where `fn` and the name of each function stand that the text defines.
    fn definitions(&self) -> impl Iterator<Item = (usize, usize)> {
        let is_fn = |at: &usize| self.word(*at) == Some("fn");
        // With the type of `this` before it: `fn map.add(x)`.
        let named = |at: usize| (at, if self.is(at + 2, '.') { at + 3 } else { at + 1 });
        let is_one = |(_, name): &(usize, usize)| self.word(*name).is_some() && self.is(*name + 1, '(');
        (0..self.tokens.len()).filter(is_fn).map(named).filter(is_one)
    }

    /// Returns where the chain begins that ends before a dot: `a.b(1)[2].`.
    pub(super) fn chain_before(&self, dot: usize) -> Option<usize> {
        let mut at = if dot > 0 && self.is(dot - 1, '?') { dot - 1 } else { dot };
        loop {
            // One part: a name or a value, with brackets behind it.
            at = at.checked_sub(1)?;
            while self.is(at, ')') || self.is(at, ']') {
                at = self.opening(at)?;
                match at.checked_sub(1) {
                    Some(before)
                        if self.word(before).is_some_and(|word| !KEYWORDS.contains(&word))
                            || self.is(before, ')')
                            || self.is(before, ']') =>
                    {
                        at = before
                    }
                    _ => break,
                }
            }
            let is_part = matches!(self.tokens[at].kind, TokenKind::Word | TokenKind::Number | TokenKind::Text { .. });
            if !is_part && !self.is(at, '(') && !self.is(at, '[') {
                return None;
            }
            let Some(before) = at.checked_sub(1) else { return Some(at) };
            at = match () {
                () if self.is(before, '.') && before > 0 && self.is(before - 1, '?') => before - 1,
                () if self.is(before, '.') => before,
                () if self.is(before, ':') && before > 0 && self.is(before - 1, ':') => before - 1,
                () => return Some(at),
            };
        }
    }

    /// Returns the place of the bracket that the one at a place closes.
    fn opening(&self, close: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for at in (0..=close).rev() {
            match self.tokens[at].kind {
                TokenKind::Symbol(')' | ']' | '}') => depth += 1,
                TokenKind::Symbol('(' | '[' | '{') => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Returns the bytes of the last argument between the brackets of a call.
    pub(super) fn last_argument(&self, open: usize, close: usize) -> Option<Range<usize>> {
        let (mut depth, mut begin, mut last) = (0_usize, open + 1, None);
        let mut at = open + 1;
        while at < close {
            match self.tokens[at].kind {
                TokenKind::Symbol('(' | '[' | '{') => depth += 1,
                TokenKind::Symbol(')' | ']' | '}') => depth = depth.checked_sub(1)?,
                TokenKind::Symbol('|') if self.is_operand(at - 1) && self.is(at + 1, '|') => at += 1,
                // The parameters of a closure, which commas part too.
                TokenKind::Symbol('|') if depth == 0 && !self.is_operand(at - 1) => {
                    at = (at + 1..close).find(|at| self.is(*at, '|'))?;
                }
                TokenKind::Symbol(',') if depth == 0 => {
                    last = Some(begin..at);
                    begin = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        // A comma may stand behind the last one.
        let last = if begin < close { begin..close } else { last? };
        Some(self.tokens[last.start].range.start..self.tokens[last.end - 1].range.end)
    }

    /// Tells whether what ends here can stand before an operator.
    fn is_operand(&self, at: usize) -> bool {
        match self.tokens[at].kind {
            TokenKind::Symbol(c) => matches!(c, ')' | ']' | '}'),
            _ => self.word(at) != Some("return"),
        }
    }
}
