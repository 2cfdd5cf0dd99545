//! What the kernel refused: what was being done, the errno, and the kernel's own words where it has some.

use std::fmt;

/// A refusal of the kernel.
///
/// `Display` is the reason alone ("Nexthop has invalid gateway", "File exists"); what was tried is in `doing`.
#[derive(Debug, Clone)]
pub struct Error {
    doing: String,
    errno: i32,
    kernel_text: Option<String>,
}

/// The result of asking the kernel for something.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Makes an error from an errno.
    pub fn new(doing: impl Into<String>, errno: i32) -> Error {
        Error { doing: doing.into(), errno, kernel_text: None }
    }

    /// Makes an error from one of the standard library; one without an errno keeps its text and becomes EIO or its like.
    pub fn io(doing: impl Into<String>, source: std::io::Error) -> Error {
        match source.raw_os_error() {
            Some(errno) => Error::new(doing, errno),
            None => Error::new(doing, errno_of(source.kind())).saying(source.to_string()),
        }
    }

    /// Makes an error for what is known to be wrong better than the kernel says it.
    pub fn because(doing: impl Into<String>, errno: i32, text: &str) -> Error {
        Error::new(doing, errno).saying(text)
    }

    /// Adds words that say more than the errno does.
    pub(crate) fn saying(mut self, text: impl Into<String>) -> Error {
        self.kernel_text = Some(text.into());
        self
    }

    /// Says anew what was tried.
    pub(crate) fn while_doing(mut self, doing: impl Into<String>) -> Error {
        self.doing = doing.into();
        self
    }

    /// Makes an error for a request that nobody answered in time.
    pub(crate) fn timeout(doing: impl Into<String>) -> Error {
        Error::new(doing, libc::ETIMEDOUT)
    }

    /// Returns what was tried, in words: "set link 7".
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// Returns the errno, as in errno(3).
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Tells whether the thing is not there (any more), which an undo takes for success.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno, libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
    }

    /// Tells whether the name, address or number is taken.
    pub fn is_exists(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// Tells whether the kernel lacks the feature.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno, libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
            || self.kernel_text.as_deref() == Some("Unknown device type")
    }

    /// Tells whether the caller lacks the right.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, libc::EPERM | libc::EACCES)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kernel_text {
            Some(text) => f.write_str(text),
            None => f.write_str(&io_text(&std::io::Error::from_raw_os_error(self.errno))),
        }
    }
}

impl std::error::Error for Error {}

/// Returns the text of an error without the " (os error 17)" that the standard library puts behind it.
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

fn errno_of(kind: std::io::ErrorKind) -> i32 {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::PermissionDenied => libc::EPERM,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::InvalidInput => libc::EINVAL,
        ErrorKind::TimedOut => libc::ETIMEDOUT,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_reads_as_strerror_has_it() {
        let error = Error::new("add bridge `br0`", libc::EEXIST);
        assert_eq!(error.to_string(), "File exists");
        assert_eq!(error.doing(), "add bridge `br0`");
        assert!(error.is_exists() && !error.is_gone());
        assert_eq!(Error::new("x", libc::EADDRNOTAVAIL).to_string(), "Cannot assign requested address");
    }

    #[test]
    fn the_kernels_words_come_first() {
        let error = Error::new("add link `w0`", libc::EINVAL).saying("Unknown device type");
        assert_eq!(error.to_string(), "Unknown device type");
        assert!(error.is_unsupported());
    }

    #[test]
    fn errors_of_the_standard_library_keep_errno_or_text() {
        let gone = Error::io("open", std::io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!((gone.errno(), gone.to_string().as_str()), (libc::ENOENT, "No such file or directory"));
        let nul = Error::io("open", std::io::Error::new(std::io::ErrorKind::InvalidInput, "a NUL byte"));
        assert_eq!((nul.errno(), nul.to_string().as_str()), (libc::EINVAL, "a NUL byte"));
    }
}
