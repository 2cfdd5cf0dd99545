use std::fs;

use super::*;
use crate::net::ProcessId;
use crate::state::{LabKind, StateDir, Status};

fn record(name: &str) -> Record {
    Record {
        name: name.into(),
        status: Status::Building,
        boot_id: "0".into(),
        creator: ProcessId { pid: 7, start: name.len() as u64 },
        script: "-e".into(),
        created: 1,
        marks: crate::state::Marks::default(),
        holder: None,
        kind: LabKind::Lab,
        parent: None,
        host: None,
        tied_to: None,
    }
}

/// A lab with three steps, the last one taken back, as data that no step has to understand.
fn lab() -> (tempfile::TempDir, LabDir, Journal) {
    let dir = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(&dir.path().join("state"), &dir.path().join("store"), None).expect("a state directory");
    let (lab, mut journal) = state.claim(&record("a"), |dir| Journal::create(dir, &record("a"))).expect("a lab");
    for no in 1..=3 {
        journal.write([Ok(step(no))]).expect("written");
        journal.done(no).expect("noted");
    }
    journal.undone(3).expect("written");
    (dir, lab, journal)
}

fn step(no: u64) -> JournalLine {
    let data = serde_json::value::to_raw_value(&format!("h{no}")).expect("JSON");
    JournalLine::Step { no, word: "netns".into(), data, at: Place::default() }
}

fn load_of(lab: &LabDir) -> Result<JournalContent> {
    load(lab, &lab.record().expect("its record")).map(|(_, content)| content)
}

#[test]
fn what_is_written_is_read() {
    let (_dir, lab, mut journal) = lab();
    let content = load_of(&lab).expect("whole");
    assert_eq!((content.lines.len(), content.head.done), (4, 2));
    journal.write([Ok(step(4)), Ok(step(5))]).expect("written");
    drop(journal);
    // Another process goes on with it.
    let mut journal = Journal::open(&lab, &lab.record().expect("its record")).expect("opened");
    journal.write([Ok(step(6))]).expect("written");
    assert_eq!(load_of(&lab).expect("whole").lines.len(), 7);
    assert!(has_steps(&lab.journal()));
}

/// A byte that is lost, added or changed anywhere in a journal that nobody writes to.
#[test]
fn each_cut_and_each_flipped_bit_is_seen() {
    let (_dir, _lab, journal) = lab();
    let good = fs::read(&journal.path).expect("the journal");
    let is_seen = |text: &[u8], what: &str| {
        assert!(parse(text, journal.head.id, &mut |_| {}).is_err(), "{what} is not seen");
    };
    for at in 0..good.len() {
        is_seen(&good[..at], &format!("a cut at byte {at}"));
        is_seen(&[&good[..at], &good[at + 1..]].concat(), &format!("the loss of byte {at}"));
        is_seen(&[&good[..at], &[good[at]], &good[at..]].concat(), &format!("byte {at} twice"));
        for bit in 0..8 {
            let mut text = good.clone();
            text[at] ^= 1 << bit;
            is_seen(&text, &format!("bit {bit} of byte {at}"));
        }
    }
    is_seen(&[&good[..], b"x"].concat(), "a byte behind it");
    parse(&good, journal.head.id, &mut |_| {}).expect("whole");
}

/// The error names the file, the line and the way on; the file is left as it is.
#[test]
fn a_damaged_journal_is_named() {
    let (_dir, lab, journal) = lab();
    let good = fs::read(&journal.path).expect("the journal");
    let third =
        JournalHead::LEN + good[JournalHead::LEN..].iter().position(|byte| *byte == b'\n').expect("a line") + 20;
    for (at, begins) in [(0, "line 1: its check sum"), (JournalHead::LEN, "line 2: its check sum"), (third, "line 3: ")]
    {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&journal.path, &bad).expect("damage it");
        let error = load_of(&lab).err().expect("damaged");
        let expected = format!("read the journal `{}`, {begins}", journal.path.display());
        assert!(error.to_string().starts_with(&expected), "{error} does not begin with {expected}");
        assert_eq!(error.kind(), Kind::State);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("topo down --force a")), "{error}");
        assert_eq!(fs::read(&journal.path).expect("the journal"), bad);
    }
    fs::write(&journal.path, &good[..good.len() - 1]).expect("damage it");
    let error = load_of(&lab).err().expect("cut").to_string();
    assert!(error.ends_with(&format!("it has {} bytes, and {} were written", good.len() - 1, good.len())), "{error}");
    fs::remove_file(&journal.path).expect("remove it");
    assert!(load_of(&lab).err().expect("missing").to_string().ends_with("the file is missing"));
}

/// Whole lines that are not where they were written, or not of this lab.
#[test]
fn lines_that_are_lost_doubled_swapped_or_of_another_lab_are_seen() {
    let (_dir, lab, _journal) = lab();
    let path = lab.journal();
    let good = fs::read(&path).expect("the journal");
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let (head, steps) = lines.split_first().expect("a first line");
    for (what, order) in
        [("lost", vec![0, 1, 2]), ("doubled", vec![0, 0, 1, 2]), ("swapped", vec![1, 0, 2, 3]), ("all lost", vec![])]
    {
        let text = order.iter().fold(head.to_vec(), |text, at| [text.as_slice(), steps[*at]].concat());
        fs::write(&path, text).expect("damage it");
        load_of(&lab).err().unwrap_or_else(|| panic!("{what} lines are not seen"));
    }
    let state = StateDir::open(lab.path().ancestors().nth(2).expect("the root"), lab.path(), None).expect("the state");
    let (_other, mut journal) =
        state.claim(&record("another"), |dir| Journal::create(dir, &record("another"))).expect("a lab");
    journal.write([Ok(step(1))]).expect("written");
    fs::copy(&journal.path, &path).expect("the other's journal");
    let error = load_of(&lab).err().expect("another lab's");
    assert!(error.to_string().ends_with("it is the journal of another lab"), "{error}");
}

/// What a killed process was writing was not applied: however much of it is there, it is no damage and not among the steps.
#[test]
fn what_a_killed_process_was_writing_is_no_damage() {
    let (_dir, lab, mut journal) = lab();
    let before = fs::read(lab.journal()).expect("the journal");
    journal.write([Ok(step(4)), Ok(step(5))]).expect("written");
    let after = fs::read(lab.journal()).expect("the journal");
    let head = JournalHead { writing: after.len() as u64, ..JournalHead::parse(&before).expect("a first line") };
    for length in before.len()..=after.len() {
        let text = [head.text().as_bytes(), &after[JournalHead::LEN..length]].concat();
        fs::write(lab.journal(), &text).expect("as a killed process leaves it");
        assert_eq!(load_of(&lab).expect("no damage").lines.len(), 4, "{length} bytes");
    }
    // The next who writes takes its place.
    let mut journal = Journal::open(&lab, &lab.record().expect("its record")).expect("opened");
    journal.write([Ok(step(6))]).expect("written");
    assert_eq!(load_of(&lab).expect("no damage").lines.len(), 5);
}

/// Each line whose own sum fits can be used where the others can't; the sound ones of a damaged journal are found.
#[test]
fn the_sound_lines_of_a_damaged_journal_are_found() {
    let (_dir, lab, journal) = lab();
    let good = fs::read_to_string(lab.journal()).expect("the journal");
    let bad = good.replace("\"h2\"", "\"h9\"");
    let (lines, bad) = readable(bad.as_bytes(), journal.head.id);
    assert_eq!((lines.len(), bad), (3, vec![3]));
}
