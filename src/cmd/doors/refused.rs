//! What container runtimes were refused, for `topo logs`. Not every runtime shows what a hook says: crun tells only that one failed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::act::Refusal;
use crate::cmd::context::Context;

const FILE: &str = "refused";
/// How large the file becomes before it is put aside, in the place of the one before it.
const BYTES_MAX: u64 = 64 << 10;

fn put_aside(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// Notes a refusal. Where that can't be done, the runtime alone is told.
pub(super) fn note(context: &Context, door: &str, container: &str, refusal: &Refusal) {
    let Ok(state) = context.state() else { return };
    let path = state.root().join(FILE);
    if path.metadata().is_ok_and(|about| about.len() > BYTES_MAX) {
        let _ = std::fs::rename(&path, put_aside(&path));
    }
    let line = json!({
        "at": crate::state::now(), "door": door, "container": container, "error": refusal.message, "hint": refusal.hint,
    });
    // One write appends a whole line, also beside other writers (write(2), O_APPEND).
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// Returns the refusals, the latest last: maps with `at`, `door`, `container`, `error` and `hint`.
pub(in crate::cmd) fn all(root: &Path) -> Vec<Value> {
    let path = root.join(FILE);
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let text = [text(&put_aside(&path)), text(&path)].concat();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
