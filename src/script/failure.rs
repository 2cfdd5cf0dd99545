//! What ended a script, as a person sees it: the message, the excerpt, who called, and the hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use rhai::{Dynamic, Engine, EvalAltResult, ParseErrorType, Position};
use serde_json::json;

use super::catalog;
use super::sources::{Script, Texts};
use crate::lab::{Error, Kind, Place, Spot};
use crate::prim::ScriptError;

/// What ended a script.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The sort: a word of `lab::Kind`, or `syntax`, `unknown`, `thrown` or `script`.
    pub kind: String,
    /// What was attempted, and why it failed.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Where.
    pub place: Place,
    /// Further failures, such as those of an undo.
    pub also: Vec<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure {
            kind: error.kind().word().into(),
            message: error.to_string(),
            hint: error.hint_text().map(Into::into),
            place: error.place().cloned().unwrap_or_default(),
            also: error.others().to_vec(),
        }
    }
}

impl Failure {
    /// Reads what rhai says of a failed script.
    pub fn of(error: &EvalAltResult, script: &Script, engine: &Engine) -> Failure {
        let mut spots = Vec::new();
        let inner = descend(error, &script.name, &mut spots);
        spots.reverse();
        let place = Place(spots);
        match inner {
            EvalAltResult::ErrorRuntime(value, _) | EvalAltResult::ErrorTerminated(value, _) => {
                Failure::thrown(value, place, matches!(inner, EvalAltResult::ErrorTerminated(..)))
            }
            EvalAltResult::ErrorParsing(error, _) => syntax(error, place, engine, &script.text),
            EvalAltResult::ErrorFunctionNotFound(signature, _) => unknown_function(signature, place, engine),
            EvalAltResult::ErrorStackOverflow(_) => Failure {
                hint: Some("does a function call itself without end?".into()),
                ..Failure::plain("script", "calls are nested too deep".into(), place)
            },
            other => {
                // rhai writes the position at the end; the excerpt shows it better.
                let text = other.to_string();
                let text = text.rfind(" (line ").map_or(text.as_str(), |end| &text[..end]);
                Failure::plain("script", lower_first(text), place)
            }
        }
    }

    fn plain(kind: &str, message: String, place: Place) -> Failure {
        Failure { kind: kind.into(), message, hint: None, place, also: Vec::new() }
    }

    fn thrown(value: &Dynamic, place: Place, terminated: bool) -> Failure {
        if let Some(ScriptError(error)) = value.clone().try_cast::<ScriptError>() {
            let failure = Failure::from(&*error);
            let place = if failure.place.is_empty() { place } else { failure.place.clone() };
            return Failure { place, ..failure };
        }
        if terminated {
            let message = format!("the script was stopped by signal {value}");
            return Failure::plain(Kind::Interrupted.word(), message, place);
        }
        Failure::plain("thrown", format!("the script threw: {value}"), place)
    }

    /// Returns the failure as one JSON object.
    pub fn as_json(&self) -> serde_json::Value {
        json!({ "kind": self.kind, "message": self.message, "hint": self.hint, "at": self.place.0, "also": self.also })
    }

    /// Writes the failure with excerpts of the sources, in colours or not.
    pub fn render(&self, texts: &Texts, coloured: bool) -> String {
        let sources: Vec<(&Spot, String)> =
            self.place.0.iter().filter_map(|spot| texts.get(&spot.source).map(|text| (spot, text))).collect();
        let mut group = Group::with_title(Level::ERROR.primary_title(self.message.as_str()));
        for (depth, (spot, text)) in sources.iter().enumerate() {
            let Some(span) = span_of(text, spot) else { continue };
            let annotation = match depth {
                0 => AnnotationKind::Primary.span(span),
                _ => AnnotationKind::Context.span(span).label("called from here"),
            };
            group = group.element(Snippet::source(text.as_str()).path(spot.source.as_str()).annotation(annotation));
        }
        if sources.is_empty() && !self.place.is_empty() {
            group = group.element(Level::NOTE.with_name("at").message(self.place.to_string()));
        }
        for also in &self.also {
            group = group.element(Level::NOTE.with_name("also").message(also.as_str()));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        format!("{}\n", renderer.render(&[group]))
    }
}

/// Goes down to the innermost error, and notes where each call stands, the outermost first.
fn descend<'e>(error: &'e EvalAltResult, source: &str, spots: &mut Vec<Spot>) -> &'e EvalAltResult {
    let mut note = |position: Position| {
        if let (Some(line), Some(column)) = (position.line(), position.position()) {
            spots.push(Spot { source: source.to_string(), line, column });
        }
    };
    match error {
        EvalAltResult::ErrorInFunctionCall(_, inside, inner, position) => {
            note(*position);
            descend(inner, if inside.is_empty() { source } else { inside }, spots)
        }
        EvalAltResult::ErrorInModule(module, inner, position) => {
            note(*position);
            descend(inner, module, spots)
        }
        _ => {
            note(error.position());
            error
        }
    }
}

/// Returns the bytes of the word at a position, or of one character.
fn span_of(text: &str, spot: &Spot) -> Option<std::ops::Range<usize>> {
    let start: usize = text.split_inclusive('\n').take(spot.line - 1).map(str::len).sum();
    let line = text.get(start..)?.lines().next().unwrap_or("");
    let begin = line.char_indices().nth(spot.column - 1).map_or(line.len(), |(at, _)| at);
    let rest = &line[begin..];
    let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let width = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
    Some(start + begin..start + begin + width)
}

fn syntax(error: &ParseErrorType, place: Place, engine: &Engine, text: &str) -> Failure {
    let failure = Failure::plain("syntax", lower_first(&error.to_string()), place);
    match error {
        ParseErrorType::VariableUndefined(name) => {
            let known = catalog::names(engine);
            let called = known.iter().any(|known| known == name);
            let near = crate::lab::name::nearest(name, ["host", "args"]);
            Failure {
                kind: "unknown".into(),
                message: format!("unknown variable `{name}`"),
                hint: match (called, near) {
                    (true, _) => Some(format!("`{name}` is a function: call it, `{name}(…)`")),
                    (false, Some(near)) => Some(format!("did you mean `{near}`?")),
                    _ if is_declared(name, text) => {
                        Some("a function sees its parameters and constants alone, not the variables around it".into())
                    }
                    _ => None,
                },
                ..failure
            }
        }
        ParseErrorType::Reserved(word) => Failure {
            message: format!("`{word}` is a reserved word"),
            hint: Some("take another name for it".into()),
            ..failure
        },
        _ => failure,
    }
}

/// Tells whether a script declares a variable of this name somewhere.
fn is_declared(name: &str, text: &str) -> bool {
    ["let", "const", "for"].iter().any(|word| text.contains(&format!("{word} {name}")))
}

/// Explains a call that fits no function: an unknown name, or a known one with other arguments.
fn unknown_function(signature: &str, place: Place, engine: &Engine) -> Failure {
    let (name, arguments) = signature.split_once('(').unwrap_or((signature, ""));
    let name = name.trim();
    if name.contains("::") {
        let hint = Some("`topo doc` lists the functions of each module".into());
        return Failure { hint, ..Failure::plain("unknown", format!("unknown function `{name}`"), place) };
    }
    let arguments = arguments.trim_end_matches(')').trim();
    let signatures = catalog::signatures(engine, name);
    if !signatures.is_empty() {
        let types: Vec<&str> = arguments.split(',').map(catalog::shown_type).collect();
        let given = if arguments.is_empty() { "no arguments".into() } else { format!("({})", types.join(", ")) };
        return Failure {
            hint: Some(format!("it is called as {}", signatures.join(" or "))),
            ..Failure::plain("invalid", format!("call `{name}` with {given}: no such form of it"), place)
        };
    }
    let names = catalog::names(engine);
    let hint = match crate::lab::name::nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`topo doc` lists the functions".into(),
    };
    Failure { hint: Some(hint), ..Failure::plain("unknown", format!("unknown function `{name}`"), place) }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.as_str().chars().next()) {
        // A word in capitals, such as an acronym, stays.
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_string(),
    }
}
