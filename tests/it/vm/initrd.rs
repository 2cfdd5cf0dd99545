//! The machine's file system: a cpio archive in the kernel's `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst),
//! written here so that it needs neither root nor a directory to collect the files in. Not compressed: an emulated processor
//! unpacks far more slowly than the memory is filled.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written.
#[derive(Debug, Default)]
pub(super) struct Initrd {
    bytes: Vec<u8>,
    entries: u32,
    written: BTreeSet<PathBuf>,
}

impl Initrd {
    /// Begins with what the kernel itself needs: the console, which the first process writes to.
    pub(super) fn new() -> Initrd {
        let mut initrd = Initrd::default();
        initrd.directory(Path::new("/dev"));
        initrd.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
        initrd
    }

    /// Adds a directory, and those that it is in.
    pub(super) fn directory(&mut self, path: &Path) {
        let mut parts: Vec<&Path> = path.ancestors().filter(|part| part.parent().is_some()).collect();
        parts.reverse();
        for part in parts {
            if self.written.insert(part.to_path_buf()) {
                self.entry(&name_of(part), DIRECTORY, (0, 0), &[]);
            }
        }
    }

    /// Adds a file that may be run. The first one of a path stays.
    pub(super) fn file(&mut self, path: &Path, content: &[u8]) {
        self.directory(path.parent().expect("a file is in a directory"));
        if self.written.insert(path.to_path_buf()) {
            self.entry(&name_of(path), PROGRAM, (0, 0), content);
        }
    }

    /// Adds a program of this host under the path given, with the libraries that `ldd` names.
    pub(super) fn program(&mut self, path: &Path, from: &Path) -> Result<(), String> {
        let content = fs::read(from).map_err(|err| format!("read {}: {err}", from.display()))?;
        self.file(path, &content);
        let listed = Command::new("ldd").arg(from).output().map_err(|err| format!("start ldd: {err}"))?;
        // It fails for a program that is linked statically, which is what it then says.
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
            let content = fs::read(library).map_err(|err| format!("read {}: {err}", library.display()))?;
            self.file(library, &content);
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("files of less than 4 GB");
        let name_size = u32::try_from(name.len() + 1).expect("a short name");
        let (inode, links) = (self.entries, 1);
        let numbers =
            [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0].map(|number| format!("{number:08x}"));
        self.bytes.extend_from_slice(format!("070701{}{name}\0", numbers.concat()).as_bytes());
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// Finds a program of this host: on the path, or where an ordinary user's path doesn't lead.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}
