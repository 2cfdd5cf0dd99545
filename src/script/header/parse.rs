//! Reads a header: finds the comment, its block of arguments, and in that the declarations, descriptions and notes.

use super::{Argument, ArgumentKind, Header, HeaderError, RESERVED_OPTIONS, ValueType};

const HEADING: &str = "Arguments:";
const FORMS: &str = "a declaration is `NAME`, `[NAME]`, `NAME...`, `[NAME...]`, `--flag`, `-f, --flag` or \
    `--option VALUE`, then two spaces and its description";
const NOTES: &str = "known are `[default: VALUE]`, `[possible: A, B]` and `[required]`, each once";

/// Reads the header of a script, as `Header::parse` tells.
pub(super) fn header(source: &str) -> Result<Header, HeaderError> {
    let lines = header_lines(source)?;
    let heading = lines.iter().position(|line| line.text == HEADING).unwrap_or(lines.len());
    let (prose, rest) = lines.split_at(heading);
    let end = rest.iter().position(|line| line.text.is_empty()).unwrap_or(rest.len());
    let (block, after) = rest.split_at(end);

    check_prose(prose)?;
    let arguments = match block.split_first() {
        Some((heading, block)) => declared(*heading, block)?,
        None => Vec::new(),
    };
    check_prose(after)?;
    if let Some(line) = after.iter().find(|line| !line.text.is_empty()).filter(|line| line.indent() > 0) {
        let message = format!("`{}` stands outside of the arguments: an empty line ended them", line.text.trim());
        let hint = "remove the empty line; text behind the arguments starts without indentation";
        return Err(line.error(message, hint));
    }

    let paragraph: Vec<_> = prose.iter().map(|line| line.text.trim()).skip_while(|text| text.is_empty()).collect();
    let about = paragraph.split(|text| text.is_empty()).next().unwrap_or_default().join(" ");
    Ok(Header { about, long: text_of(prose), after: text_of(after), arguments })
}

/// A line of the header, without its `//!` and one space, or a part of such a line.
#[derive(Clone, Copy)]
struct HeaderLine<'a> {
    number: usize,
    text: &'a str,
}

impl HeaderLine<'_> {
    fn indent(self) -> usize {
        self.text.len() - self.text.trim_start_matches(' ').len()
    }

    fn error(self, message: impl Into<String>, hint: impl Into<String>) -> HeaderError {
        HeaderError { line: self.number, message: message.into(), hint: Some(hint.into()) }
    }
}

/// Finds the header, and refuses one in two pieces: what the second declares would be lost.
fn header_lines(source: &str) -> Result<Vec<HeaderLine<'_>>, HeaderError> {
    let mut lines: Vec<HeaderLine> = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if let Some(text) = line.strip_prefix("//!") {
            let line = HeaderLine { number, text: text.strip_prefix(' ').unwrap_or(text) };
            if lines.last().is_some_and(|last| last.number + 1 < number) {
                let hint = "write an empty line inside of the header as `//!`";
                return Err(line.error("the header goes on after it ended", hint));
            }
            lines.push(line);
            continue;
        }
        let is_comment = line.starts_with("//") && !line.starts_with("///");
        if !(line.is_empty() || is_comment || index == 0 && line.starts_with("#!")) {
            break;
        }
    }
    Ok(lines)
}

/// Returns prose with each paragraph on one line, for a terminal of any width; what is indented or listed keeps its lines.
fn text_of(lines: &[HeaderLine]) -> String {
    let flows = |text: &str| !text.is_empty() && !text.starts_with([' ', '-', '*', '|', '$']);
    let mut prose = String::new();
    let mut before = "";
    for line in lines {
        if !prose.is_empty() {
            prose.push(if flows(before) && flows(line.text) { ' ' } else { '\n' });
        }
        prose.push_str(line.text);
        before = line.text;
    }
    prose.trim_matches('\n').to_owned()
}

/// Finds a heading that was meant to be `Arguments:`, so that what it declares is not taken for prose.
fn check_prose(lines: &[HeaderLine]) -> Result<(), HeaderError> {
    let mut lines = lines.iter().filter(|line| !line.text.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let heading = line.text.trim_matches(|c| "#*: ".contains(c)).to_ascii_lowercase();
        let is_meant = matches!(heading.as_str(), "argument" | "arguments" | "args" | "options" | "parameters");
        if is_meant && lines.peek().is_some_and(|next| next.indent() > line.indent()) {
            let message = format!("`{}` declares nothing", line.text.trim());
            return Err(line.error(message, format!("all arguments are declared in one block below `{HEADING}`")));
        }
    }
    Ok(())
}

/// Reads the block below the heading, and checks what concerns more than one argument.
fn declared(heading: HeaderLine, block: &[HeaderLine]) -> Result<Vec<Argument>, HeaderError> {
    let mut declared: Vec<(HeaderLine, Argument)> = Vec::new();
    for entry in entries(heading, block)? {
        let argument = entry.argument()?;
        for (earlier_line, earlier) in &declared {
            let at = format!("line {}", earlier_line.number);
            if earlier.name == argument.name {
                let message = format!("`{}` has the same name as `{}` of {at}", argument.shown(), earlier.shown());
                return Err(entry.line.error(message, format!("the script knows both as `{}`", argument.name)));
            }
            if let Some(short) = argument.short.filter(|_| argument.short == earlier.short) {
                let message = format!("`-{short}` is the short form of `{}` of {at} already", earlier.shown());
                return Err(entry.line.error(message, "choose another letter"));
            }
            if argument.kind != ArgumentKind::Positional || earlier.kind != ArgumentKind::Positional {
                continue;
            }
            if earlier.repeated {
                let (shown, earlier) = (argument.shown(), earlier.shown());
                let message = format!("`{shown}` follows `{earlier}...`, which takes all the rest");
                return Err(entry.line.error(message, "declare the repeated positional last"));
            }
            if argument.required && !earlier.required {
                let (shown, earlier) = (argument.shown(), earlier.shown());
                let message = format!("`{shown}` is required, but follows the optional `[{earlier}]`");
                return Err(entry.line.error(message, "declare the required positionals first"));
            }
        }
        declared.push((entry.line, argument));
    }
    Ok(declared.into_iter().map(|(_, argument)| argument).collect())
}

/// A declaration with the lines of its description.
struct Declaration<'a> {
    line: HeaderLine<'a>,
    declaration: &'a str,
    /// Where the description starts, if there is one.
    column: Option<usize>,
    description: Vec<HeaderLine<'a>>,
}

fn entries<'a>(heading: HeaderLine, block: &[HeaderLine<'a>]) -> Result<Vec<Declaration<'a>>, HeaderError> {
    let Some(first) = block.first() else {
        return Err(heading.error(
            format!("no argument is declared below `{HEADING}`"),
            "declare one on the next line, or remove the heading; an empty line ends the block",
        ));
    };
    let indent = first.indent();
    let mut entries: Vec<Declaration> = Vec::new();
    for line in block {
        let text = line.text.trim_start_matches(' ');
        if line.text.contains('\t') {
            return Err(line.error("a tab among the arguments", "align them with spaces"));
        }
        if line.indent() == indent && indent > 0 {
            entries.push(Declaration::new(*line));
            continue;
        }
        let entry = entries.last_mut().filter(|entry| entry.column.is_some_and(|column| line.indent() >= column));
        let Some(entry) = entry else {
            let message = format!("`{text}` is neither a declaration nor part of a description");
            let hint = format!(
                "declarations are indented by {} spaces, a description starts on the line of its declaration \
                 and goes on below its first word, and an empty `//!` line ends the block",
                indent.max(2)
            );
            return Err(line.error(message, hint));
        };
        entry.description.push(HeaderLine { text, ..*line });
    }
    Ok(entries)
}

impl<'a> Declaration<'a> {
    fn new(line: HeaderLine<'a>) -> Declaration<'a> {
        let text = line.text.trim_start_matches(' ');
        let Some((declaration, description)) = text.split_once("  ") else {
            return Declaration { line, declaration: text, column: None, description: Vec::new() };
        };
        let description = description.trim_start_matches(' ');
        let column = line.text.chars().count() - description.chars().count();
        Declaration {
            line,
            declaration,
            column: Some(column),
            description: vec![HeaderLine { text: description, ..line }],
        }
    }

    fn argument(&self) -> Result<Argument, HeaderError> {
        let mut argument = declaration(self.line, self.declaration)?;
        let first = self.description.first().and_then(|line| line.text.split("  ").next()).unwrap_or_default();
        if argument.kind == ArgumentKind::Flag && is_placeholder(first.trim_end_matches("...")) {
            let message = format!("`{}` and its placeholder `{first}` are more than one space apart", argument.shown());
            return Err(self.line.error(message, FORMS));
        }
        let mut notes = Vec::new();
        let mut help = Vec::new();
        for line in &self.description {
            let text = take_notes(*line, &mut notes)?;
            help.extend(Some(text).filter(|text| !text.is_empty()));
        }
        argument.help = help.join(" ");
        for note in &notes {
            note.apply(&mut argument)?;
        }
        for note in &notes {
            note.check(&argument)?;
        }
        Ok(argument)
    }
}

/// Reads what stands before the description: `[NAME...]`, `-v, --verbose`, `--count N`.
fn declaration(line: HeaderLine, text: &str) -> Result<Argument, HeaderError> {
    let malformed = || line.error(format!("`{text}` is not a declaration"), FORMS);
    let (short, rest) = match text.split_once(", ") {
        Some((short, rest)) => (Some(short), rest),
        None => (None, text),
    };
    let (kind, name, word) = match rest.strip_prefix("--") {
        Some(option) => match option.split_once(' ') {
            Some((name, word)) => (ArgumentKind::Option, name, word),
            None => (ArgumentKind::Flag, option, ""),
        },
        None if short.is_none() => (ArgumentKind::Positional, "", rest),
        None => return Err(malformed()),
    };
    let in_brackets = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    let placeholder = in_brackets.unwrap_or(word);
    let (placeholder, repeated) = match placeholder.strip_suffix("...") {
        Some(placeholder) => (placeholder, true),
        None => (placeholder, false),
    };
    let is_placed = kind == ArgumentKind::Positional;
    if kind != ArgumentKind::Flag && !is_placeholder(placeholder) || in_brackets.is_some() && !is_placed {
        return Err(malformed());
    }
    let long = if is_placed { placeholder.to_ascii_lowercase().replace('_', "-") } else { name.to_owned() };
    if !is_option_name(&long) {
        let hint = if is_placed { FORMS } else { "an option is named by words of a-z and 0-9 with `-` between" };
        return Err(line.error(format!("`{text}` is not a declaration"), hint));
    }
    let short = match short {
        Some(short) => Some(short_letter(short).ok_or_else(malformed)?),
        None => None,
    };
    if short == Some('h') || !is_placed && RESERVED_OPTIONS.contains(&long.as_str()) {
        let message = format!("`{text}` takes an option that is topo's own");
        let reserved: Vec<_> = RESERVED_OPTIONS.iter().map(|name| format!("`--{name}`")).collect();
        return Err(line.error(message, format!("choose another name than {} and `-h`", reserved.join(", "))));
    }
    let name = long.replace('-', "_");
    if !is_identifier(&name) {
        let message = format!("`{name}` is a reserved word of the language, so a script could not use it");
        return Err(line.error(message, "choose another name"));
    }
    Ok(Argument {
        name,
        kind,
        value: if kind == ArgumentKind::Flag { ValueType::Bool } else { ValueType::of_placeholder(placeholder) },
        required: is_placed && in_brackets.is_none(),
        repeated,
        default: None,
        possible: Vec::new(),
        help: String::new(),
        short,
        placeholder: placeholder.to_owned(),
    })
}

fn is_placeholder(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "-_=:/,".contains(c);
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(is_part)
}

fn is_option_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(|word| !word.is_empty() && word.chars().all(is_part))
}

fn short_letter(text: &str) -> Option<char> {
    let mut chars = text.strip_prefix('-')?.chars();
    chars.next().filter(|c| c.is_ascii_alphabetic() && chars.next().is_none())
}

/// Asks Rhai itself: besides its keywords it reserves words for later, and `print`, `debug`, `call` and others.
fn is_identifier(name: &str) -> bool {
    let engine = rhai::Engine::new_raw();
    matches!(engine.lex(&[name]).0.next(), Some((rhai::Token::Identifier(_), _)))
}

/// A note in brackets at the end of a line: `[default: 3]`.
struct Note<'a> {
    line: HeaderLine<'a>,
    word: &'a str,
    value: Option<&'a str>,
}

/// Takes the notes off the end of a line and gives the text before them.
fn take_notes<'a>(line: HeaderLine<'a>, notes: &mut Vec<Note<'a>>) -> Result<&'a str, HeaderError> {
    let mut text = line.text;
    while let Some((before, inside)) = last_brackets(text) {
        let (word, value) = match inside.split_once(':') {
            Some((word, value)) => (word, Some(value.trim()).filter(|value| !value.is_empty())),
            None => (inside, None),
        };
        // `[::1]:80` and `[1]` are prose.
        if word.is_empty() || !word.chars().all(|c| c.is_ascii_alphabetic()) {
            break;
        }
        notes.push(Note { line, word, value });
        text = before;
    }
    let Some(note) = ["[default:", "[possible:", "[required]"].into_iter().find(|note| text.contains(note)) else {
        return Ok(text);
    };
    Err(line.error(format!("`{note}` does not end its line"), "a note stands whole at the end of a line"))
}

/// Splits `text [inside]`, where what is inside may have brackets of its own.
fn last_brackets(text: &str) -> Option<(&str, &str)> {
    let content = text.strip_suffix(']')?;
    let mut depth = 1;
    let (open, _) = content.char_indices().rev().find(|(_, c)| {
        depth += i32::from(*c == ']') - i32::from(*c == '[');
        depth == 0
    })?;
    let (before, inside) = (&content[..open], &content[open + 1..]);
    (before.is_empty() || before.ends_with(' ')).then_some((before.trim_end(), inside))
}

impl Note<'_> {
    fn apply(&self, argument: &mut Argument) -> Result<(), HeaderError> {
        if argument.kind == ArgumentKind::Flag {
            let message = format!("`{}` is a flag, which has no `[{}]`", argument.shown(), self.word);
            return Err(self.line.error(message, "an option has a placeholder: `--count N`"));
        }
        match (self.word, self.value) {
            ("required", None) if argument.kind == ArgumentKind::Positional => {
                let message = format!("`[required]` on the positional `{}`", argument.shown());
                return Err(self.line.error(message, "a positional is required unless it stands in brackets"));
            }
            ("required", None) if !argument.required => argument.required = true,
            ("default", Some(value)) if argument.default.is_none() => argument.default = Some(value.to_owned()),
            ("possible", Some(list)) if argument.possible.is_empty() => {
                argument.possible = list.split(',').map(|value| value.trim().to_owned()).collect();
            }
            _ => {
                let value = self.value.map(|value| format!(": {value}")).unwrap_or_default();
                let message = format!("`[{}{value}]` is unknown, lacks its value, or is given twice", self.word);
                return Err(self.line.error(message, NOTES));
            }
        }
        Ok(())
    }

    fn check(&self, argument: &Argument) -> Result<(), HeaderError> {
        let shown = argument.shown();
        match (self.word, &argument.default) {
            ("possible", _) => {
                for (index, value) in argument.possible.iter().enumerate() {
                    if value.is_empty() || argument.possible.iter().take(index).any(|earlier| earlier == value) {
                        let message = format!("a possible value of `{shown}` is empty or listed twice");
                        return Err(self.line.error(message, NOTES));
                    }
                    self.check_type(argument, value)?;
                }
                Ok(())
            }
            ("default", Some(_)) if argument.required => {
                let message = format!("`{shown}` is required, so its default would never be used");
                Err(self.line.error(message, "remove the default, or make it optional"))
            }
            ("default", Some(default)) => {
                if !argument.possible.is_empty() && !argument.possible.contains(default) {
                    let message = format!("the default `{default}` of `{shown}` is not one of its possible values");
                    return Err(self.line.error(message, format!("possible are: {}", argument.possible.join(", "))));
                }
                self.check_type(argument, default)
            }
            _ => Ok(()),
        }
    }

    fn check_type(&self, argument: &Argument, value: &str) -> Result<(), HeaderError> {
        let Err(reason) = argument.value.parse(value) else { return Ok(()) };
        let (shown, word) = (argument.shown(), &argument.placeholder);
        let message = format!("`{value}` of `{shown}` is not of the type {word}: {reason}");
        Err(self.line.error(message, "the placeholder word is the type of an argument's values"))
    }
}
