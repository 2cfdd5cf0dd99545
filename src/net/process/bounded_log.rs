//! A log that can't fill a disk: of what is written, the beginning and the end are kept, in plain files.
//!
//! The log is in segments of 256 KiB. The first is the file itself, each later one has behind its name at which byte of the
//! whole it begins: `web.log`, `web.log.262144` … The first two and the last two stay, the others go as new ones come. So
//! the files alone tell what was dropped, whenever the writer is killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The bytes of a segment.
const SEGMENT: u64 = 256 << 10;
/// How many segments are kept of the beginning.
const FIRST: usize = 2;
/// How many segments are kept of the end, the one that is being written included.
const LAST: usize = 2;

fn segment(base: &Path, start: u64) -> PathBuf {
    if start == 0 {
        return base.to_path_buf();
    }
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{start}"));
    name.into()
}

/// Returns where the segments of a log begin, in order.
fn starts(base: &Path) -> Vec<u64> {
    let (Some(dir), Some(name)) = (base.parent(), base.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let start = |entry: fs::DirEntry| {
        let file = entry.file_name();
        let rest = file.to_str()?.strip_prefix(name)?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix('.')?.parse().ok() }
    };
    let mut found: Vec<u64> = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(start).collect();
    found.sort_unstable();
    found
}

/// Removes a log.
pub fn remove(base: &Path) -> io::Result<()> {
    for start in starts(base) {
        match fs::remove_file(segment(base, start)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The writing end.
#[derive(Debug)]
pub struct LogWriter {
    base: PathBuf,
    file: File,
    starts: Vec<u64>,
    length: u64,
}

impl LogWriter {
    /// Begins a log.
    pub fn create(base: &Path) -> io::Result<LogWriter> {
        Ok(LogWriter { base: base.to_path_buf(), file: new_file(base)?, starts: vec![0], length: 0 })
    }

    /// Writes; what can't be written, on a full disk, is lost: whoever waits to write must not wait for that.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.length >= SEGMENT && !self.turn() {
                return;
            }
            let room = usize::try_from(SEGMENT - self.length).unwrap_or(0).min(bytes.len());
            match self.file.write(&bytes[..room]) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    self.length += count as u64;
                    bytes = &bytes[count..];
                }
            }
        }
    }

    /// Begins the next segment; tells whether that went well.
    fn turn(&mut self) -> bool {
        let start = self.starts.last().unwrap_or(&0) + self.length;
        let Ok(file) = new_file(&segment(&self.base, start)) else { return false };
        self.file = file;
        self.length = 0;
        self.starts.push(start);
        if self.starts.len() > FIRST + LAST {
            let _ = fs::remove_file(segment(&self.base, self.starts.remove(FIRST)));
        }
        true
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes before it were dropped.
    pub dropped: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the next piece begins.
    pub next: u64,
}

/// Reads what a log has from the byte `from` of the whole on: up to the end of a segment. Nothing where there is no more yet, or
/// no log.
pub fn read_from(base: &Path, from: u64) -> io::Result<Piece> {
    // A segment that goes while it is looked for was an old one: the next look finds a later one.
    for _ in 0..100 {
        let starts = starts(base);
        let Some(at) = starts.iter().rposition(|start| *start <= from) else { break };
        let Some((piece, whole)) = read_segment(base, starts[at], from)? else { continue };
        if !piece.bytes.is_empty() || !whole {
            return Ok(piece);
        }
        let Some(next) = starts.get(at + 1).copied() else { return Ok(piece) };
        if let Some((piece, _)) = read_segment(base, next, next)? {
            return Ok(Piece { dropped: next.saturating_sub(from), ..piece });
        }
    }
    Ok(Piece { dropped: 0, bytes: Vec::new(), next: from })
}

/// Reads a segment from a byte of the whole on, and tells whether it is whole; nothing where it has gone.
fn read_segment(base: &Path, start: u64, from: u64) -> io::Result<Option<(Piece, bool)>> {
    let mut file = match crate::net::regular::open(&segment(base, start), OpenOptions::new().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    file.seek(SeekFrom::Start(from - start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let next = from + bytes.len() as u64;
    Ok(Some((Piece { dropped: 0, bytes, next }, next - start >= SEGMENT)))
}

impl Piece {
    /// Returns it as text, after a line that says so where something before it was dropped.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        match self.dropped {
            0 => text.into_owned(),
            dropped => format!("\n... {dropped} bytes were dropped ...\n{text}"),
        }
    }
}

/// Reads a log as text, with a line that says so where something was dropped; also where the log goes on.
pub fn read(base: &Path) -> io::Result<(String, u64)> {
    let mut text = String::new();
    let mut from = 0;
    loop {
        let piece = read_from(base, from)?;
        if piece.bytes.is_empty() {
            return Ok((text, from));
        }
        from = piece.next;
        text.push_str(&piece.text());
    }
}

/// Tells of changes in a directory of logs.
#[derive(Debug)]
pub struct LogWatch(Inotify);

impl LogWatch {
    /// Watches a directory (inotify(7)).
    pub fn open(dir: &Path) -> io::Result<LogWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let changes = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(dir, changes)?;
        Ok(LogWatch(inotify))
    }

    /// Waits until something has changed since the last look, or the time is up.
    pub fn wait(&self, within: Duration) {
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout);
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_log_is_one_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().join("web.log");
        let mut log = LogWriter::create(&base).expect("a log");
        assert_eq!(read(&base).expect("empty").0, "");
        log.write(b"one\n");
        log.write(b"two\n");
        assert_eq!(fs::read_to_string(&base).expect("plain"), "one\ntwo\n");
        assert_eq!(read(&base).expect("read").0, "one\ntwo\n");
        let rest = read_from(&base, 4).expect("the rest");
        assert_eq!((rest.bytes.as_slice(), rest.next, rest.dropped), (b"two\n".as_slice(), 8, 0));
        assert_eq!(read_from(&base, 8).expect("no more").bytes, b"");
    }

    #[test]
    fn of_a_flood_the_beginning_and_the_end_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = dir.path().join("web.log");
        let mut log = LogWriter::create(&base).expect("a log");
        let line = |number: u64| format!("line {number:010}\n");
        let (count, size) = (500_000, 16);
        for number in 0..count {
            log.write(line(number).as_bytes());
        }
        let text = read(&base).expect("read").0;
        assert!(text.starts_with(&line(0)) && text.ends_with(&line(count - 1)));
        assert!(text.len() as u64 <= (FIRST + LAST) as u64 * SEGMENT + 100, "{}", text.len());
        let dropped = text.lines().find_map(|line| line.strip_prefix("... ")?.strip_suffix(" bytes were dropped ..."));
        let dropped: u64 = dropped.expect("a note").parse().expect("a number");
        let kept = text.lines().filter(|line| line.starts_with("line ")).count() as u64;
        assert_eq!(kept * size + dropped, count * size);
        // Whoever follows and is late is told too.
        let piece = read_from(&base, FIRST as u64 * SEGMENT).expect("a later piece");
        assert_eq!((piece.dropped, piece.next > piece.dropped), (dropped, true));
        remove(&base).expect("removed");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn logs_with_like_names_are_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (a, b) = (dir.path().join("1-a.log"), dir.path().join("1-a.log.b"));
        LogWriter::create(&a).expect("a log").write(b"a\n");
        LogWriter::create(&b).expect("a log").write(b"b\n");
        assert_eq!(read(&a).expect("read").0, "a\n");
    }
}
