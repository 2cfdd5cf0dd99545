//! A text as its words, by place: what stands beside what, and which bracket closes which.

use std::ops::Range;

use super::lexer::{self, Token, TokenKind};
use super::vocabulary::KEYWORDS;

/// A text in its words.
pub(super) struct Words<'t> {
    /// The text.
    pub(super) text: &'t str,
    /// Its words, signs and strings.
    pub(super) tokens: Vec<Token>,
    /// The bytes of its comments.
    pub(super) comments: Vec<Range<usize>>,
    /// The bytes that are left out: whole lines.
    pub(super) gaps: Vec<Range<usize>>,
}

impl<'t> Words<'t> {
    /// Parts a text into its words.
    pub(super) fn of(text: &'t str) -> Words<'t> {
        Words::of_piece(text, 0..text.len())
    }

    /// Parts a piece of a text into its words; nothing is said of the rest.
    pub(super) fn of_piece(text: &'t str, piece: Range<usize>) -> Words<'t> {
        let (mut tokens, mut comments) = (Vec::with_capacity(piece.len() / 5), Vec::new());
        lexer::scan(&text[..piece.end], piece.start, |token| {
            match token.kind {
                TokenKind::Comment { .. } => comments.push(token.range),
                _ => tokens.push(token),
            }
            true
        });
        Words { text, tokens, comments, gaps: Vec::new() }
    }

    /// Puts pieces of a text together, which are in their order. What lies between them is not looked at.
    pub(super) fn joined(text: &'t str, pieces: Vec<Words<'t>>, gaps: Vec<Range<usize>>) -> Words<'t> {
        let mut all = Words { text, tokens: Vec::new(), comments: Vec::new(), gaps };
        for piece in pieces {
            all.tokens.extend(piece.tokens);
            all.comments.extend(piece.comments);
        }
        all
    }

    /// Parts a text into its words, with those between the `${` and the `}` of texts in backticks; these two are brackets here.
    pub(super) fn whole(text: &'t str) -> Words<'t> {
        Words::whole_piece(text, 0..text.len())
    }

    /// Parts a piece of a text into its words, with those in texts in backticks.
    pub(super) fn whole_piece(text: &'t str, piece: Range<usize>) -> Words<'t> {
        let mut found = Words { text, tokens: Vec::new(), comments: Vec::new(), gaps: Vec::new() };
        lexer::scan(&text[..piece.end], piece.start, |token| {
            found.enter(token);
            true
        });
        found
    }

    fn enter(&mut self, token: Token) {
        let (begin, end) = (token.range.start, token.range.end);
        match token.kind {
            TokenKind::Comment { .. } => self.comments.push(token.range),
            TokenKind::Text { .. } if self.text[begin..].starts_with('`') => {
                let mut at = begin;
                while let Some(length) = self.text[at..end].find("${") {
                    let code = at + length;
                    self.tokens.push(Token { kind: token.kind, range: at..code });
                    self.tokens.push(Token { kind: TokenKind::Symbol('{'), range: code..code + 2 });
                    at = self.enter_code(code + 2, end);
                }
                self.tokens.push(Token { kind: token.kind, range: at..end });
            }
            _ => self.tokens.push(token),
        }
    }

    /// Enters the words of what is put into a text; returns where that ends.
    fn enter_code(&mut self, begin: usize, end: usize) -> usize {
        let (mut code, mut depth) = (Vec::new(), 0_usize);
        lexer::scan(&self.text[..end], begin, |token| {
            let is_end = depth == 0 && token.kind == TokenKind::Symbol('}');
            match token.kind {
                TokenKind::Symbol('{') => depth += 1,
                TokenKind::Symbol('}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            code.push(token);
            !is_end
        });
        let after = code.last().map_or(end, |last| last.range.end);
        code.into_iter().for_each(|token| self.enter(token));
        after
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

    /// Returns where the statement ends whose value begins at a place: its semicolon.
    pub(super) fn end_of_statement(&self, value: usize) -> Option<usize> {
        self.first_outside(value, self.tokens.len(), ';')
    }

    /// Returns the place of the next comma that is in no brackets, or `end`.
    pub(super) fn next_comma(&self, from: usize, end: usize) -> usize {
        self.first_outside(from, end, ',').unwrap_or(end)
    }

    /// Returns the first place of a sign that is in no brackets which begin behind `from`.
    fn first_outside(&self, from: usize, end: usize, sign: char) -> Option<usize> {
        let mut depth = 0_usize;
        for at in from..end {
            match self.tokens.get(at)?.kind {
                TokenKind::Symbol('(' | '[' | '{') => depth += 1,
                TokenKind::Symbol(')' | ']' | '}') => depth = depth.checked_sub(1)?,
                TokenKind::Symbol(c) if c == sign && depth == 0 => return Some(at),
                _ => {}
            }
        }
        None
    }

    /// Returns where the block ends that a place is in.
    pub(super) fn end_of_block(&self, from: usize) -> usize {
        let mut depth = 0_usize;
        for at in from..self.tokens.len() {
            match self.tokens[at].kind {
                TokenKind::Symbol('(' | '[' | '{') => depth += 1,
                TokenKind::Symbol(')' | ']' | '}') if depth == 0 => return at,
                TokenKind::Symbol(')' | ']' | '}') => depth -= 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    /// Tells whether an assignment stands at a place: `=`, `+=`, `<<=` …
    pub(super) fn is_assigned(&self, at: usize) -> bool {
        let sign = |at: usize| match self.tokens.get(at)?.kind {
            TokenKind::Symbol(c) => Some(c),
            _ => None,
        };
        let is_twice = sign(at).is_some() && sign(at) == sign(at + 1);
        let assigns = match sign(at) {
            Some('=') => return !matches!(sign(at + 1), Some('=' | '>')),
            Some('*') if is_twice => at + 2,
            Some('<' | '>' | '?') if is_twice => at + 2,
            Some('+' | '-' | '*' | '/' | '%' | '&' | '|' | '^') => at + 1,
            _ => return false,
        };
        sign(assigns) == Some('=') && sign(assigns + 1) != Some('=')
    }

    /// Returns the modules that the text imports under a name: their paths and names.
    pub(super) fn aliases(&self) -> Vec<(&'t str, &'t str)> {
        let text = |at: usize| {
            let token = self.tokens.get(at).filter(|token| matches!(token.kind, TokenKind::Text { closed: true }))?;
            self.text[token.range.clone()].strip_prefix('"')?.strip_suffix('"')
        };
        let import = |at: usize| {
            let is_import = self.word(at) == Some("import") && self.word(at + 2) == Some("as");
            Some((text(at + 1).filter(|_| is_import)?, self.word(at + 3)?))
        };
        (0..self.tokens.len()).filter_map(import).collect()
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
