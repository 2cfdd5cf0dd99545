//! What tells that a process that was started is ready, and the wait for it.

use std::time::{Duration, Instant};

use regex_lite::Regex;
use rhai::{Dynamic, FnPtr, Map, NativeCallContext};

use super::supervised::{self, State};
use crate::lab::ProcessFiles;
use crate::net::{self, port::Proto};
use crate::prim::call::context::{RhaiResultOf, call, raise, with_lab};
use crate::prim::probe::check::{verdict, wait_a_moment};
use crate::prim::value::units::FromScript;
use crate::state::{Error, Kind, ProcessRef, Result, name};

/// How long between two looks for what tells that a process is ready: at first, and at most.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LAST: Duration = Duration::from_millis(50);

/// What tells that a process is ready.
#[derive(Debug, Clone)]
pub enum Ready {
    /// It listens at a port.
    Port(Proto, u16),
    /// A line of its output contains a text.
    Text(String),
    /// A line of its output matches.
    Line(Regex),
    /// A closure says so.
    Holds(FnPtr),
}

impl FromScript for Ready {
    const WHAT: &'static str = r#"a port, `#{ port: 53, proto: "udp" }`, a text, `#{ line: "REGEX" }` or a closure"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let port = |value: &Dynamic| {
            let number = value.as_int().ok().and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
            number.ok_or_else(|| "a port is a number from 1 to 65535".to_string())
        };
        if value.is_int() {
            return Ok(Ready::Port(Proto::Tcp, port(&value)?));
        }
        if value.is_string() {
            let text = value.into_string().unwrap_or_default();
            return if text.is_empty() { Err("any line contains an empty text".into()) } else { Ok(Ready::Text(text)) };
        }
        if let Some(closure) = value.clone().try_cast::<FnPtr>() {
            return Ok(Ready::Holds(closure));
        }
        let mut map = value.try_cast::<Map>().ok_or_else(String::new)?;
        let (line, number, proto) = (map.remove("line"), map.remove("port"), map.remove("proto"));
        if let Some(key) = map.keys().next() {
            return Err(format!("there is no `{}` in it", name::shown(key)));
        }
        match (line, number) {
            (Some(line), None) if proto.is_none() => {
                let line = line.into_string().map_err(|kind| format!("`line` is a {kind}"))?;
                Regex::new(&line).map(Ready::Line).map_err(|error| format!("`line`: {error}"))
            }
            (None, Some(number)) => {
                let proto = match proto.map(Dynamic::into_string) {
                    None => Proto::Tcp,
                    Some(Ok(word)) if word == "tcp" => Proto::Tcp,
                    Some(Ok(word)) if word == "udp" => Proto::Udp,
                    Some(_) => return Err(r#"`proto` is "tcp" or "udp""#.into()),
                };
                Ok(Ready::Port(proto, port(&number)?))
            }
            _ => Err(String::new()),
        }
    }
}

impl std::fmt::Display for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ready::Port(proto, port) => write!(f, "it does not listen at {proto} port {port}"),
            Ready::Text(text) => write!(f, "no line of its output contains {:?}", name::shown(text)),
            Ready::Line(regex) => write!(f, "no line of its output matches {:?}", name::shown(regex.as_str())),
            Ready::Holds(_) => f.write_str("what `ready` asks for does not hold"),
        }
    }
}

/// Waits until a process is ready.
pub(super) fn become_ready(
    ctx: &NativeCallContext,
    process: &ProcessRef,
    ready: &Ready,
    deadline: Duration,
) -> RhaiResultOf<()> {
    let began = Instant::now();
    let mut pause = LOOK_FIRST;
    let mut output = ReadOutput::default();
    let failed = |kind, because: String| Error::new(kind, supervised::doing(process)).because(because);
    loop {
        let (files, state) =
            with_lab(ctx, |lab| Ok((supervised::files(lab, process)?, supervised::state(lab, process)?)))?;
        let holds = match ready {
            Ready::Holds(closure) => {
                let value: Dynamic = call(ctx, closure)?;
                raise(ctx, verdict("see whether the process is ready", &value))?.ok
            }
            _ => raise(ctx, is_ready(&files, &state, ready, &mut output))?,
        };
        if holds {
            return Ok(());
        }
        if let State::Ended(ended) = state {
            let because =
                format!("it {} before it was ready{}", supervised::end_in_words(ended), supervised::tail(&files));
            // What a shell says of a program that it does not find.
            let missing = ended.is_some_and(|ended| ended.code == 127);
            return raise(ctx, Err(failed(if missing { Kind::Missing } else { Kind::Failed }, because)));
        }
        let left = deadline.saturating_sub(began.elapsed());
        if left.is_zero() {
            let because = format!("it was not ready after {deadline:?}: {ready}{}", supervised::tail(&files));
            let error = failed(Kind::Timeout, because);
            return raise(ctx, Err(match ready {
                Ready::Text(_) | Ready::Line(_) => error.hint(
                    "`deadline` gives it longer; many programs hold back what they write to anything but a terminal, which `stdbuf -oL PROGRAM` forbids",
                ),
                _ => error.hint("`deadline` gives it longer"),
            }));
        }
        wait_a_moment(ctx, pause.min(left))?;
        pause = (pause * 3 / 2).min(LOOK_LAST);
    }
}

/// What was read of a process's output so far.
#[derive(Debug, Default)]
struct ReadOutput {
    from: u64,
    /// The line that has no end yet.
    open: Vec<u8>,
}

fn is_ready(files: &ProcessFiles, state: &State, ready: &Ready, output: &mut ReadOutput) -> Result<bool> {
    match (ready, state) {
        (Ready::Port(proto, port), State::Running(record)) => {
            let served = net::port::is_served(record.supervisor, *proto, *port);
            served.map_err(|source| Error::kernel(format!("look for {proto} port {port}"), &source))
        }
        (Ready::Text(text), _) => output.any_line(files, |line, _| line.contains(text)),
        // What matches the beginning of a line need not match the whole.
        (Ready::Line(regex), _) => output.any_line(files, |line, whole| whole && regex.is_match(line)),
        _ => Ok(false),
    }
}

impl ReadOutput {
    /// Reads what is new, and tells whether one of the lines is the one; it is told whether the line has its end.
    fn any_line(&mut self, files: &ProcessFiles, is_it: impl Fn(&str, bool) -> bool) -> Result<bool> {
        loop {
            let piece = files.text_from(self.from)?;
            if piece.bytes.is_empty() {
                return Ok(!self.open.is_empty() && is_it(&String::from_utf8_lossy(&self.open), false));
            }
            self.from = piece.next;
            for byte in piece.bytes {
                if byte != b'\n' {
                    self.open.push(byte);
                    continue;
                }
                let line = std::mem::take(&mut self.open);
                if is_it(String::from_utf8_lossy(&line).trim_end_matches('\r'), true) {
                    return Ok(true);
                }
            }
        }
    }
}
