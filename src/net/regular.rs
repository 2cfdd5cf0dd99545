//! Regular files, opened without a wait: a FIFO, device, socket or directory in the place of a file is an error at once.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// What a state file may hold at most, in bytes: far more than the largest lab writes.
pub const STATE_BYTES_MAX: u64 = 1 << 30;

/// Opens a regular file with the options given. Any other file is an error of the kind `InvalidInput`, and is not opened: the
/// opening alone starts a watchdog or rewinds a tape.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_with_length(path, options).map(|(file, _)| file)
}

/// Opens a regular file; returns how many bytes it has, too.
fn open_with_length(path: &Path, options: &mut OpenOptions) -> io::Result<(File, u64)> {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(no_file(meta.file_type())),
        // It may be about to be made. Anything else the opening says better.
        _ => {}
    }
    // It may have been replaced since: without O_NONBLOCK the opening of a FIFO waits for its other end (fifo(7)).
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta.len())) } else { Err(no_file(meta.file_type())) }
}

/// Reads a regular file of at most `bytes_max` bytes.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let (file, bytes) = open_with_length(path, OpenOptions::new().read(true))?;
    if bytes > bytes_max {
        return Err(too_large(bytes_max));
    }
    read_whole(file, bytes_max, bytes)
}

/// Reads a regular file of at most `bytes_max` bytes that had so many when it was opened: in one call, if it has them still.
pub fn read_whole(mut file: File, bytes_max: u64, length: u64) -> io::Result<Vec<u8>> {
    // One more byte than there should be: a shorter answer is the end of the file (read(2)).
    let mut bytes = vec![0; usize::try_from(length.min(bytes_max)).unwrap_or(0) + 1];
    let read = file.read(&mut bytes)?;
    bytes.truncate(read);
    if read as u64 != length {
        file.take((bytes_max + 1).saturating_sub(read as u64)).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > bytes_max { Err(too_large(bytes_max)) } else { Ok(bytes) }
}

/// Reads a regular file of UTF-8 text of at most `bytes_max` bytes.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads a regular file, or the pipe that a shell puts in the place of one: `topo run <(command)`.
pub fn read_or_pipe(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.file_type().is_fifo() {
        return read(path, bytes_max);
    }
    let pipe = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // A pipe without a name is in the kernel's own file system of pipes; a FIFO is in that of its directory.
    let of_pipes = nix::sys::statfs::FsType(0x5049_5045);
    if nix::sys::statfs::fstatfs(&pipe)?.filesystem_type() != of_pipes {
        return Err(no_file(pipe.metadata()?.file_type()));
    }
    let flags = nix::fcntl::fcntl(pipe.as_fd(), nix::fcntl::FcntlArg::F_GETFL)?;
    let blocking = nix::fcntl::OFlag::from_bits_retain(flags) - nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(pipe.as_fd(), nix::fcntl::FcntlArg::F_SETFL(blocking))?;
    read_at_most(pipe, bytes_max, 0)
}

/// Reads at most `bytes_max` bytes; more are an error.
pub fn read_at_most(from: impl Read, bytes_max: u64, expected: usize) -> io::Result<Vec<u8>> {
    // One more byte: the end is seen without another allocation.
    let mut bytes = Vec::with_capacity(expected + 1);
    from.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { Err(too_large(bytes_max)) } else { Ok(bytes) }
}

fn too_large(bytes_max: u64) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("it has more than {} MiB", bytes_max >> 20))
}

fn no_file(kind: FileType) -> io::Error {
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    };
    io::Error::new(ErrorKind::InvalidInput, format!("it is {what}, and a regular file is expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        let error = read(path, 100).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    }

    /// A FIFO, device, socket or directory where a file is expected is an error at once.
    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
        assert_eq!(refusal(&fifo), "it is a FIFO, and a regular file is expected");
        assert_eq!(refusal(&socket), "it is a socket, and a regular file is expected");
        assert_eq!(refusal(&link), "it is a device, and a regular file is expected");
        assert_eq!(refusal(dir.path()), "it is a directory, and a regular file is expected");
        assert!(open(&fifo, OpenOptions::new().write(true)).is_err(), "a lock file is opened for writing");
        assert!(read_or_pipe(&fifo, 100).is_err(), "a FIFO with a name is no pipe of a shell");
    }

    /// An endless or huge file is an error before it is read.
    #[test]
    fn no_more_is_read_than_is_allowed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("huge");
        File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a file with a hole");
        assert_eq!(refusal(&path), "it has more than 0 MiB");
        std::fs::write(&path, [b'a'; 100]).expect("written");
        assert_eq!(read(&path, 100).expect("read").len(), 100);
        assert!(read_at_most(io::repeat(0), 100, 0).is_err());
    }

    /// A file that was changed since it was opened is read to its end, and no further than is allowed.
    #[test]
    fn a_file_that_grew_or_shrank_is_read_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let whole = |text: &str, length: u64| {
            std::fs::write(&path, text).expect("written");
            read_whole(File::open(&path).expect("opened"), 5, length).ok()
        };
        for length in [0, 3, 5, 6, 100] {
            assert_eq!(whole("12345", length).as_deref(), Some(&b"12345"[..]), "{length}");
            assert_eq!(whole("123456", length), None, "{length}");
            assert_eq!(whole("", length).as_deref(), Some(&b""[..]), "{length}");
        }
        // The kernel gives its own files a length of 0.
        assert!(read(Path::new("/proc/self/status"), 1 << 20).is_ok_and(|text| text.len() > 100));
    }
}
