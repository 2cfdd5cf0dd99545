//! What ended a script, as a person sees it: the message, the excerpt, who called, and the hint.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use rhai::{Dynamic, Engine, EvalAltResult, LexError, ParseErrorType, Position, Scope};
use serde_json::json;

use super::catalog;
use super::elsewhere;
use super::failure_kind::FailureKind;
use super::held::HeldVariable;
use super::hints;
use super::lexer;
use super::sources::{self, Dirs, Script, Texts};
use crate::prim::{Failed, LabHandle, ScriptError};
use crate::state::name::{printable, shown};
use crate::state::{Error, Kind, Place, Spot};

/// What ended a script.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The sort.
    pub kind: FailureKind,
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
            kind: error.kind().into(),
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
        if let Some(lab) = engine.default_tag().clone().try_cast::<LabHandle>() {
            // A text that does not compile is the user's, without what is put into it.
            let compiled = spots.iter_mut().skip(usize::from(matches!(inner, EvalAltResult::ErrorParsing(..))));
            for spot in compiled {
                (spot.line, spot.column) = lab.original(&spot.source, (spot.line, spot.column));
            }
        }
        // A native function that calls a closure stands where the closure's call does.
        spots.dedup_by(|one, other| (&one.source, one.line, one.column) == (&other.source, other.line, other.column));
        let place = Place(spots);
        if let EvalAltResult::ErrorRuntime(value, _) = inner
            && let Some(Failed(kept)) = value.clone().try_cast::<Failed>()
        {
            // Where it arose, and from the script that threw it again on who called that.
            let mut failure = Failure::of(&kept, script, engine);
            failure.place.0.extend(place.0.into_iter().skip(1));
            return failure;
        }
        match inner {
            EvalAltResult::ErrorRuntime(value, _) | EvalAltResult::ErrorTerminated(value, _) => {
                Failure::thrown(value, place, matches!(inner, EvalAltResult::ErrorTerminated(..)))
            }
            EvalAltResult::ErrorParsing(error, _) => syntax(error, place, engine, &script.text),
            EvalAltResult::ErrorFunctionNotFound(signature, _) => unknown_function(signature, place, engine),
            EvalAltResult::ErrorStackOverflow(_) => Failure {
                hint: Some("does a function call itself without end?".into()),
                ..Failure::plain(FailureKind::Script, "calls are nested too deep".into(), place)
            },
            EvalAltResult::ErrorPropertyNotFound(name, _) => {
                Failure::plain(FailureKind::Script, format!("unknown property `{name}`"), place)
            }
            EvalAltResult::ErrorMismatchDataType(wanted, got, _) if wanted == "bool" => {
                let (message, hint) = hints::condition(got);
                Failure { hint: Some(hint), ..Failure::plain(FailureKind::Script, message, place) }
            }
            EvalAltResult::ErrorDotExpr(text, _) => unknown_property(text, place, engine),
            EvalAltResult::ErrorDataRace(text, _) => data_race(text, place),
            other => {
                // rhai writes the position at the end; the excerpt shows it better.
                let text = other.to_string();
                let text = text.rfind(" (line ").map_or(text.as_str(), |end| &text[..end]);
                Failure::plain(FailureKind::Script, lower_first(text), place)
            }
        }
    }

    /// Says which keys the map has whose property is unknown, where the script's own variables hold it. An error in a function or a
    /// module is another one for rhai, about what these variables are not.
    pub fn name_keys(&mut self, error: &EvalAltResult, script: &Script, scope: &Scope<'_>) {
        let EvalAltResult::ErrorPropertyNotFound(name, _) = error else { return };
        let Some(spot) = self.place.spot() else { return };
        let Some(rest) = rest_of(&script.text, spot) else { return };
        let before = script.text.lines().nth(spot.line - 1).and_then(|line| line.strip_suffix(rest)).unwrap_or("");
        self.hint = hints::keys(name, before, scope);
    }

    /// Finds a comment without an end, which rhai would take in silence for one to the end of the script.
    pub fn of_comment(script: &Script) -> Option<Failure> {
        let at = lexer::unclosed_comment(&script.text)?;
        let before = &script.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        let place = Place(vec![Spot { source: script.name.as_str().into(), line, column }]);
        let hint = Some("a comment that begins with `/*` ends with `*/`".into());
        Some(Failure { hint, ..Failure::plain(FailureKind::Syntax, "comment is not terminated".into(), place) })
    }

    fn plain(kind: FailureKind, message: String, place: Place) -> Failure {
        Failure { kind, message, hint: None, place, also: Vec::new() }
    }

    fn thrown(value: &Dynamic, place: Place, terminated: bool) -> Failure {
        if let Some(ScriptError(error)) = value.clone().try_cast::<ScriptError>() {
            let failure = Failure::from(&*error);
            // Of an error that was raised at once rhai knows all callers.
            let is_at_once = failure.place.is_empty() || failure.place.spot() == place.spot();
            let place = if is_at_once { place } else { failure.place.clone() };
            return Failure { place, ..failure };
        }
        if terminated {
            let number = value.as_int().ok().and_then(|number| i32::try_from(number).ok());
            let signal = number.and_then(|number| nix::sys::signal::Signal::try_from(number).ok());
            let signal = signal.map_or_else(|| format!("signal {value}"), |signal| signal.as_str().to_string());
            let message = format!("the script was stopped by {signal}");
            return Failure::plain(Kind::Interrupted.into(), message, place);
        }
        Failure::plain(FailureKind::Thrown, format!("the script threw: {value}"), place)
    }

    /// Returns the failure as one JSON object.
    pub fn as_json(&self) -> serde_json::Value {
        json!({ "kind": self.kind.word(), "message": self.message, "hint": self.hint, "at": self.place.0, "also": self.also })
    }

    /// Writes the failure with excerpts of the sources, in colours or not.
    pub fn render(&self, texts: &Texts, coloured: bool) -> String {
        // Where in a script that came with the program an error arose helps only whoever keeps that script.
        let ours = !matches!(self.kind, FailureKind::Script | FailureKind::Syntax | FailureKind::Thrown);
        let shown = self.place.0.iter().filter(|spot| !(ours && texts.is_embedded(&spot.source)));
        let shown: Vec<&Spot> = shown.collect();
        let sources: Vec<(&Spot, String)> =
            shown.iter().filter_map(|spot| texts.get(&spot.source).map(|text| (*spot, text))).collect();
        let mut group = Group::with_title(Level::ERROR.primary_title(printable(&self.message)));
        for (depth, (spot, text)) in sources.iter().enumerate() {
            let Some(span) = span_of(text, spot) else { continue };
            let annotation = match depth {
                0 => AnnotationKind::Primary.span(span),
                _ => AnnotationKind::Context.span(span).label("called from here"),
            };
            group = group.element(Snippet::source(text.as_str()).path(printable(&spot.source)).annotation(annotation));
        }
        if sources.is_empty() && !shown.is_empty() {
            let place = Place(shown.iter().copied().cloned().collect());
            group = group.element(Level::NOTE.with_name("at").message(place.to_string()));
        }
        for also in &self.also {
            group = group.element(Level::NOTE.with_name("also").message(printable(also)));
        }
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        // Beside no excerpt the hint would hang on a bar of its own.
        let hangs = !shown.is_empty() || !self.also.is_empty();
        if let Some(hint) = self.hint.as_ref().filter(|_| hangs) {
            group = group.element(Level::HELP.with_name("hint").message(printable(hint)));
        }
        let text = renderer.render(&[group]);
        match self.hint.as_ref().filter(|_| !hangs) {
            Some(hint) => {
                let hint = Group::with_title(Level::HELP.with_name("hint").primary_title(printable(hint)));
                format!("{text}\n{}\n", renderer.render(&[hint]))
            }
            None => format!("{text}\n"),
        }
    }
}

/// Goes down to the innermost error, and notes where each call stands, the outermost first.
fn descend<'e>(error: &'e EvalAltResult, source: &str, spots: &mut Vec<Spot>) -> &'e EvalAltResult {
    let mut note = |position: Position| {
        if let (Some(line), Some(column)) = (position.line(), position.position()) {
            spots.push(Spot { source: source.into(), line, column });
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
    let string = rest.strip_prefix('"').and_then(|rest| rest.find('"')).map(|end| end + 2);
    let width = match (word, string) {
        (0, Some(string)) => string,
        (0, None) => rest.chars().next().map_or(0, char::len_utf8),
        (word, _) => word,
    };
    Some(start + begin..start + begin + width)
}

fn syntax(error: &ParseErrorType, place: Place, engine: &Engine, text: &str) -> Failure {
    let failure = Failure::plain(FailureKind::Syntax, lower_first(&error.to_string()), place);
    match error {
        ParseErrorType::VariableUndefined(name) => {
            let known = catalog::names(engine);
            let called = known.iter().any(|known| known == name);
            let declared = declared(text);
            let names = declared.iter().map(|(_, name)| *name).chain(["host", "args"]);
            let near = crate::state::name::nearest(name, names);
            let around = declared.iter().find(|(_, declared)| declared == name).map(|(word, _)| *word);
            let is_new = !called && around.is_none();
            let rest = failure.place.spot().and_then(|spot| rest_of(text, spot));
            let given = rest.filter(|_| is_new).and_then(|rest| hints::undeclared(name, rest));
            let is_key = failure.place.spot().and_then(|spot| rest_of(text, spot)).is_some_and(|rest| {
                rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').trim_start().starts_with(": ")
            });
            Failure {
                kind: FailureKind::Unknown,
                message: format!("unknown variable `{}`", shown(name)),
                hint: match (called, near) {
                    _ if given.is_some() => given,
                    _ if is_key => Some("a map begins with `#{`".into()),
                    _ if is_text_with_values(name, rest) => {
                        Some("a text with values in it stands between backticks: `` `h${n}` ``".into())
                    }
                    _ if is_import(text, failure.place.spot()) => {
                        let modules = sources::module_names(&Dirs::default());
                        Some(format!("`import \"NAME\" as NAME;` reads a module: {}", modules.join(", ")))
                    }
                    (true, _) if name == "exit" => elsewhere::hint("exit").map(Into::into),
                    (true, _) => Some(format!("`{name}` is a function: call it, `{name}(…)`")),
                    _ if around == Some("const") => {
                        Some(format!("a function sees the file's constants as `global::{name}`"))
                    }
                    _ if around.is_some() => Some(format!(
                        "a function sees its parameters, not the variables around it: pass `{name}` to it"
                    )),
                    (false, Some(near)) => Some(format!("did you mean `{near}`?")),
                    _ => elsewhere::hint(name).map(Into::into),
                },
                ..failure
            }
        }
        ParseErrorType::MissingToken(token, _) if token == ";" => {
            let spot = failure.place.spot();
            let hint = spot.and_then(|spot| {
                let rest = rest_of(text, spot)?;
                let before = text.lines().nth(spot.line - 1)?.strip_suffix(rest)?;
                elsewhere::as_at_a_shell(before, rest)
            });
            Failure { hint, ..failure }
        }
        ParseErrorType::Reserved(word) => {
            let rest = failure
                .place
                .spot()
                .and_then(|spot| rest_of(text, spot))
                .filter(|rest| rest.starts_with(word.as_str()));
            let (message, hint) = hints::reserved(word, rest.unwrap_or(word));
            Failure { message, hint: Some(hint), ..failure }
        }
        ParseErrorType::ModuleUndefined(name) => Failure {
            message: format!("unknown module `{}`", shown(name)),
            hint: Some(hints::module(name, &sources::module_names(&Dirs::default()))),
            ..failure
        },
        ParseErrorType::BadInput(LexError::MalformedChar(text)) => {
            Failure { hint: Some(hints::single_quotes(text)), ..failure }
        }
        _ => failure,
    }
}

/// Tells whether a name is the letter before a text of Python's, `f"h{n}"`.
fn is_text_with_values(name: &str, rest: Option<&str>) -> bool {
    name == "f" && rest.is_some_and(|rest| rest[1..].starts_with(['"', '\'']))
}

/// Tells whether a place is that of a module's name behind `import`.
fn is_import(text: &str, spot: Option<&Spot>) -> bool {
    let Some(spot) = spot else { return false };
    let line = text.lines().nth(spot.line.saturating_sub(1)).unwrap_or("");
    let before: String = line.chars().take(spot.column.saturating_sub(1)).collect();
    before.trim_end().ends_with("import")
}

/// Returns the names of the variables that a script declares somewhere, each behind the word that declares it.
fn declared(text: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let words: Vec<&str> = text.split(|c: char| !is_part(c)).filter(|word| !word.is_empty()).collect();
    words.windows(2).filter(|pair| ["let", "const", "for"].contains(&pair[0])).map(|pair| (pair[0], pair[1])).collect()
}

/// Returns the line of a place in the script, from the place on.
fn rest_of<'t>(text: &'t str, spot: &Spot) -> Option<&'t str> {
    let line = text.lines().nth(spot.line.checked_sub(1)?)?;
    let (at, _) = line.char_indices().nth(spot.column.checked_sub(1)?)?;
    line.get(at..)
}

/// Explains a closure that reads what the call around it works on.
fn data_race(text: &str, place: Place) -> Failure {
    // `held` finds most before the script runs, and says what is wrong; rhai names the argument of a closure.
    let variable = text.split('`').nth(3).filter(|_| text.ends_with("meanwhile"));
    let message = if variable.is_some() { text } else { "a closure reads a variable that the call around it works on" };
    Failure {
        hint: Some(HeldVariable::remedy(variable.unwrap_or("t"))),
        ..Failure::plain(FailureKind::Script, message.into(), place)
    }
}

/// Explains a property that a value of ours doesn't have.
fn unknown_property(text: &str, place: Place, engine: &Engine) -> Failure {
    // "Unknown property 'nam' - a getter is not registered for type 'Dev'"
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (Some(name), Some(kind)) = (quoted.next(), quoted.next()) else {
        return Failure::plain(FailureKind::Script, lower_first(text), place);
    };
    let (getters, kind) = (catalog::properties(engine), catalog::shown_type(kind));
    if text.contains("a setter is not") && getters.iter().any(|getter| getter == name) {
        return Failure::plain(
            FailureKind::Script,
            format!("property `{name}` of type `{kind}` can be read, but not set"),
            place,
        );
    }
    let near = crate::state::name::nearest(name, getters.iter().map(String::as_str));
    let hint = match near {
        Some(near) if near != name => Some(format!("did you mean `{near}`?")),
        // rhai calls the closure so (its documentation of `Array::for_each`).
        Some(_) if kind == "int" => {
            Some("the closure of `for_each` has the element as `this`, and its index as a parameter".into())
        }
        _ => None,
    };
    Failure {
        hint,
        ..Failure::plain(FailureKind::Script, format!("unknown property `{}` of type `{kind}`", shown(name)), place)
    }
}

/// Explains a call that fits no function: an unknown name, or a known one with other arguments.
fn unknown_function(signature: &str, place: Place, engine: &Engine) -> Failure {
    let (name, arguments) = signature.split_once('(').unwrap_or((signature, ""));
    let name = name.trim();
    if name.contains("::") {
        let hint = Some("`topo check` tells what the module has, and how it is called".into());
        let message = format!("no function `{name}` takes these arguments");
        return Failure { hint, ..Failure::plain(FailureKind::Unknown, message, place) };
    }
    let arguments = arguments.trim_end_matches(')').trim();
    let signatures = catalog::signatures(engine, name);
    if !signatures.is_empty() {
        let types: Vec<&str> = arguments.split(',').map(catalog::shown_type).collect();
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            // An operator: rhai's own forms of it are no help.
            let hint = types.contains(&"()").then(|| "`()` is what a variable holds that was given nothing".into());
            let message = format!("`{name}` does not work on {}", types.join(" and "));
            return Failure { hint, ..Failure::plain(Kind::Invalid.into(), message, place) };
        }
        let wants_network = signatures.iter().all(|form| form.starts_with("`net."));
        let hint = match (name, types.first()) {
            ("range", Some(&"int")) if types.len() == 1 => elsewhere::hint("range").unwrap_or_default().into(),
            (_, Some(&"string")) if wants_network => "`net(\"10.0.0.0/24\")` makes a network of a text".into(),
            _ => format!("it is called as {}", signatures.join(" or ")),
        };
        let given = if arguments.is_empty() { "no arguments".into() } else { format!("({})", types.join(", ")) };
        return Failure {
            hint: Some(hint),
            ..Failure::plain(Kind::Invalid.into(), format!("call `{name}` with {given}: no such form of it"), place)
        };
    }
    let names = catalog::names(engine);
    let hint = match (elsewhere::hint(name), crate::state::name::nearest(name, names.iter().map(String::as_str))) {
        (Some(hint), _) => hint.into(),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => "`topo doc` lists the functions".into(),
    };
    Failure {
        hint: Some(hint),
        ..Failure::plain(FailureKind::Unknown, format!("unknown function `{}`", shown(name)), place)
    }
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
