//! How far a lab has come with what takes long, for a person who waits: `building: namespaces 310/1024, cables 0/1024`.

use std::time::{Duration, Instant};

use super::journal::Asked;

/// What is done sooner than this is shown by its end alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long after its begin something is shown of work that is one of many pieces, all of which take long.
const OF_A_PIECE: Duration = Duration::from_millis(200);

/// How long one sight of it stays.
const GLANCE: Duration = Duration::from_millis(100);

/// How far something has come.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    /// When the script began, or the statement.
    running: Instant,
    /// For each sort of steps how many were asked for that are not begun yet.
    asked: Vec<(&'static str, usize)>,
    /// Whether the script waits for something, which is shown then.
    waits: bool,
    piece: ProgressPiece,
    shown: Option<Instant>,
}

/// Steps that are applied or taken back together.
#[derive(Debug)]
struct ProgressPiece {
    begun: Instant,
    undo: bool,
    /// For each sort of steps how many are done, of how many.
    sorts: Vec<(&'static str, usize, usize)>,
}

impl Progress {
    pub(super) fn begin() -> Progress {
        let begun = Instant::now();
        let piece = ProgressPiece { begun, undo: false, sorts: Vec::new() };
        Progress { begun, running: begun, asked: Vec::new(), waits: false, piece, shown: None }
    }

    /// Begins with a script, or a statement of a session.
    pub(super) fn begin_running(&mut self) {
        self.running = Instant::now();
        self.waits = false;
    }

    /// Counts a step that is asked for.
    pub(super) fn ask(&mut self, word: &str) {
        let word = plural(word);
        match self.asked.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => self.asked.push((word, 1)),
        }
    }

    /// Says what was asked for so far, if it is time for that.
    pub(crate) fn running(&mut self) -> Option<String> {
        let now = Instant::now();
        if self.waits || now - self.running < PATIENCE || !self.is_time(now) {
            return None;
        }
        let counts: Vec<String> = self.asked.iter().map(|(word, count)| format!("{word} {count}")).collect();
        let behind = if counts.is_empty() { "" } else { ": " };
        Some(format!("running the script{behind}{}", counts.join(", ")))
    }

    /// Begins with steps that are applied or taken back together.
    pub(super) fn expect(&mut self, steps: &[Asked], undo: bool) {
        self.asked.clear();
        self.waits = false;
        let mut sorts: Vec<(&str, usize, usize)> = Vec::new();
        for word in steps.iter().map(|asked| plural(asked.step.word())) {
            match sorts.iter_mut().find(|(known, ..)| *known == word) {
                Some((_, _, all)) => *all += 1,
                None => sorts.push((word, 0, 1)),
            }
        }
        self.piece = ProgressPiece { begun: Instant::now(), undo, sorts };
    }

    /// Counts a step, and returns what is to be shown, if it is time for that.
    pub(crate) fn count(&mut self, word: &str) -> Option<String> {
        let word = plural(word);
        if let Some((_, done, all)) = self.piece.sorts.iter_mut().find(|(known, ..)| *known == word) {
            *done = (*done + 1).min(*all);
        }
        let now = Instant::now();
        let is_long =
            !self.piece.sorts.is_empty() && now - self.begun >= PATIENCE && now - self.piece.begun >= OF_A_PIECE;
        (is_long && self.is_time(now)).then(|| self.text())
    }

    /// Tells whether to show what somebody waits for since a time.
    pub(super) fn is_long(&mut self, since: Instant) -> bool {
        let now = Instant::now();
        self.waits = true;
        now - since >= PATIENCE && self.is_time(now)
    }

    /// Tells whether something was shown since the last call.
    pub(super) fn was_shown(&mut self) -> bool {
        self.waits = false;
        self.shown.take().is_some()
    }

    fn is_time(&mut self, now: Instant) -> bool {
        let is_time = self.shown.is_none_or(|shown| now - shown >= GLANCE);
        if is_time {
            self.shown = Some(now);
        }
        is_time
    }

    /// Says how far it has come, without what is done.
    fn text(&self) -> String {
        let open = self.piece.sorts.iter().filter(|(_, done, all)| done < all);
        let counts: Vec<String> = open.map(|(word, done, all)| format!("{word} {done}/{all}")).collect();
        let doing = if self.piece.undo { "taking back" } else { "building" };
        if counts.is_empty() { format!("{doing}: the last steps") } else { format!("{doing}: {}", counts.join(", ")) }
    }
}

/// Returns the word for many steps of a sort.
fn plural(word: &str) -> &'static str {
    match word {
        "netns" => "namespaces",
        "veth" => "cables",
        "bridge" => "bridges",
        "link" => "devices",
        "attach" => "ports",
        "addr" => "addresses",
        "route" => "routes",
        "rule" => "routing rules",
        "neigh" => "neighbours",
        "sysctl" => "settings",
        "start-process" => "processes",
        "nft-table" | "nft-rules" | "nft-policy" => "firewall rules",
        _ => "other steps",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_soon_is_not_shown_and_the_rest_with_its_counts() {
        let mut progress = Progress::begin();
        progress.piece.sorts = vec![("namespaces", 0, 2), ("cables", 0, 1)];
        assert_eq!(progress.count("netns"), None);
        let Some(before) = Instant::now().checked_sub(Duration::from_secs(2)) else { return };
        (progress.begun, progress.piece.begun) = (before, before);
        assert_eq!(progress.count("veth").as_deref(), Some("building: namespaces 1/2"));
        assert_eq!(progress.count("veth"), None, "it stays for a glance");
        progress.shown = None;
        assert_eq!(progress.count("netns").as_deref(), Some("building: the last steps"));
        assert!(progress.was_shown() && !progress.was_shown());
        assert!(progress.is_long(before) && !progress.is_long(before));
    }

    #[test]
    fn a_script_that_runs_for_long_is_shown_with_what_it_asked_for() {
        let mut progress = Progress::begin();
        assert_eq!(progress.running(), None);
        let Some(before) = Instant::now().checked_sub(Duration::from_secs(2)) else { return };
        progress.running = before;
        assert_eq!(progress.running().as_deref(), Some("running the script"));
        progress.shown = None;
        ["netns", "veth", "netns"].iter().for_each(|word| progress.ask(word));
        assert_eq!(progress.running().as_deref(), Some("running the script: namespaces 2, cables 1"));
        progress.shown = None;
        assert!(progress.is_long(before), "what the script waits for");
        progress.shown = None;
        assert_eq!(progress.running(), None, "what the script waits for stays");
        progress.expect(&[], false);
        assert_eq!(progress.running().as_deref(), Some("running the script"));
    }
}
