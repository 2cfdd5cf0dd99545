//! Links the program position-independent, and as cheap to load as that can be: its relative relocations are packed
//! (`-z pack-relative-relocs`, DT_RELR), and gcc's unwinder is linked in, which is one library less to load.
//!
//! Rhai's functions and the program's own are found by tables of some 20 000 addresses, which the loader corrects at each start
//! (docs/performance.md). glibc takes packed relocations since 2.36 and refuses such a program before. So they are packed only where the
//! program is built for a machine like this one, with such a glibc. A linker that does not know the word warns, and goes on without it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    let here = std::env::var("HOST").is_ok_and(|host| std::env::var("TARGET").is_ok_and(|target| target == host));
    if !here || target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    if glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // `cc` answers with a path only for a file that it has.
    if said("cc", "-print-file-name=libgcc_eh.a").is_some_and(|path| Path::new(path.trim()).is_absolute()) {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// Returns the version of this machine's glibc: `getconf` says `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = said("getconf", "GNU_LIBC_VERSION")?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn said(program: &str, argument: &str) -> Option<String> {
    String::from_utf8(Command::new(program).arg(argument).output().ok()?.stdout).ok()
}
