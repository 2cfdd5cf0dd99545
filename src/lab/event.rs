//! What a lab has to say while it runs: this layer doesn't print, whoever runs the script does.

use std::time::{Duration, Instant};

use super::ended::EndedProcess;
use super::journal::Asked;
use super::netns_view::NetnsView;
use super::progress::Progress;
use crate::state::Place;

/// One thing to say.
#[derive(Debug, Clone)]
pub enum Event {
    /// A line of the script's own output.
    Print(String),
    /// A line of the script's for whoever debugs it, with its place.
    Debug(String),
    /// The script's result, which `--json` prints in place of an account of the run.
    Result(serde_json::Value),
    /// Something that went well and that the user should know of: it may not be what they want.
    Warning(String),
    /// A table of the script's: the column titles, and the rows.
    Table(Vec<String>, Vec<Vec<serde_json::Value>>),
    /// The result of a check.
    Check(CheckResult),
    /// The lab as it stands at the first check that doesn't hold, for whoever asked for it.
    AtFailure(Vec<NetnsView>),
    /// The test that runs is meant to fail, for this reason.
    ExpectFailure(String),
    /// The test that runs may take this long.
    TimeLimit(Duration),
    /// How far it has come with what takes long; nothing where that is over.
    Progress(Option<String>),
    /// A step that is applied, or taken back.
    Step {
        /// Whether it is taken back.
        undo: bool,
        /// What it does.
        doing: String,
        /// The commands that do the same.
        like: Vec<String>,
        /// Where it was asked for.
        place: Place,
    },
}

/// The result of one check.
#[derive(Debug, Clone)]
pub struct CheckResult {
    /// What should hold, in the script's words.
    pub sentence: String,
    /// Whether it did.
    pub ok: bool,
    /// What was measured, if the value was more than a bool.
    pub measured: Option<String>,
    /// Where it was checked.
    pub place: Place,
}

/// Takes what a lab has to say.
pub struct Listener {
    hear: Box<dyn FnMut(&Event)>,
    steps: bool,
    progress: Option<Progress>,
    ended: Vec<EndedProcess>,
}

impl Listener {
    /// Takes all of it by `hear`.
    pub fn new(hear: impl FnMut(&Event) + 'static) -> Listener {
        Listener { hear: Box::new(hear), steps: true, progress: None, ended: Vec::new() }
    }

    /// Takes all but the steps, of which a large lab has so many that to put them into words takes time.
    pub fn without_steps(self) -> Listener {
        Listener { steps: false, ..self }
    }

    /// Takes also how far the lab has come with what takes longer than a second.
    pub fn with_progress(self) -> Listener {
        Listener { progress: Some(Progress::begin()), ..self }
    }

    /// Begins with steps that are applied or taken back together.
    pub(super) fn expect(&mut self, steps: &[Asked], undo: bool) {
        if let Some(progress) = &mut self.progress {
            progress.expect(steps, undo);
        }
    }

    /// Begins with a script, or a statement of a session.
    pub(super) fn begin_running(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.begin_running();
        }
    }

    /// Notes that a step is asked for.
    pub(crate) fn asked(&mut self, word: &str) {
        if let Some(progress) = &mut self.progress {
            progress.ask(word);
        }
    }

    /// Says what was asked for so far, if the script runs for long.
    pub(super) fn show_running(&mut self) {
        let text = self.progress.as_mut().and_then(Progress::running);
        if text.is_some() {
            self.tell(&Event::Progress(text));
        }
    }

    /// Tells whether anybody is shown the progress.
    pub(super) fn shows_progress(&self) -> bool {
        self.progress.is_some()
    }

    /// Says what is waited for since a time, if that is long ago.
    pub(super) fn waiting(&mut self, since: Instant, text: impl FnOnce() -> String) {
        if self.progress.as_mut().is_some_and(|progress| progress.is_long(since)) {
            self.tell(&Event::Progress(Some(text())));
        }
    }

    /// Ends what was shown of the progress.
    pub(super) fn arrived(&mut self) {
        if self.progress.as_mut().is_some_and(Progress::was_shown) {
            self.tell(&Event::Progress(None));
        }
    }

    /// Notes processes that were ended.
    pub(super) fn note_ended(&mut self, ended: impl IntoIterator<Item = EndedProcess>) {
        self.ended.extend(ended);
    }

    /// Returns the processes that were ended since the last call.
    pub(crate) fn take_ended(&mut self) -> Vec<EndedProcess> {
        std::mem::take(&mut self.ended)
    }

    /// Says one thing.
    pub fn tell(&mut self, event: &Event) {
        (self.hear)(event);
    }

    /// Says what the user should know of.
    pub(super) fn warn(&mut self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.tell(&Event::Warning(text)));
    }

    /// Says that a step is applied, or taken back.
    pub(crate) fn tell_step(&mut self, asked: &Asked, undo: bool) {
        if self.steps {
            let (doing, like) = (asked.step.doing(), asked.step.like());
            self.tell(&Event::Step { undo, doing, like, place: asked.place.clone() });
        }
        let text = self.progress.as_mut().and_then(|progress| progress.count(asked.step.word()));
        if text.is_some() {
            self.tell(&Event::Progress(text));
        }
    }
}
