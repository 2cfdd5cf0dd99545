//! The programs that are measured, installed.

use std::path::{Path, PathBuf};

/// The program as it is installed.
pub(crate) const TOPO: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/installed/topo");

/// Installs `topo` and this program as a user does, by a copy, and returns this program's. What a linker has just written lies in
/// the page cache in small pieces: it starts a millisecond later than a program that was read from the disk.
pub(crate) fn install() -> PathBuf {
    let this = std::env::current_exe().expect("this program");
    install_one(Path::new(env!("CARGO_BIN_EXE_topo")), Path::new(TOPO));
    let copy = Path::new(TOPO).with_file_name(this.file_name().expect("a name"));
    install_one(&this, &copy);
    copy
}

fn install_one(from: &Path, to: &Path) {
    let new = to.with_extension(std::process::id().to_string());
    std::fs::create_dir_all(to.parent().expect("a directory")).expect("a directory for it");
    // Put in its place whole: another benchmark may run it.
    std::fs::copy(from, &new).and_then(|_| std::fs::rename(&new, to)).expect("a copy");
}
