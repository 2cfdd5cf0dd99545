//! Owner marks: how what the kernel has is told to be a lab's.
//!
//! A mark is `topo:CODE:LAB`. The code is made from the lab's name with the secret of the state directory, so that only this
//! state directory can make it, and a mark is compared as a whole. There are two for each lab. One is on objects of the kernel,
//! where others can read it. The other is in the environment of the lab's processes, and never proves anything alone.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dir::StateDir;
use super::error::{Error, Kind, Result};
use super::files;

/// The marks of a lab.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The one on objects of the kernel: the alias of a device, the comment of a table or rule, the file of a namespace.
    pub mark: String,
    /// The one in the environment of processes.
    pub process_mark: String,
}

impl Marks {
    /// Tells whether both name the lab `lab`.
    pub(crate) fn are_of(&self, lab: &str) -> bool {
        [&self.mark, &self.process_mark].into_iter().all(|mark| lab_of_mark(mark) == Some(lab))
    }
}

/// The secret of a state directory: two keys of 128 bits, for two sorts of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret([u64; 4]);

/// How many bytes the secret has.
const BYTES: usize = 32;

impl Secret {
    /// Makes a new one (random(4)).
    fn random() -> io::Result<Secret> {
        let mut bytes = [0; BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Secret::of_bytes(&bytes))
    }

    fn of_bytes(bytes: &[u8; BYTES]) -> Secret {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Secret(words)
    }

    fn to_text(self) -> String {
        self.0.iter().map(|word| format!("{word:016x}")).collect::<String>() + "\n"
    }

    /// Reads it back; none if the text is damaged.
    fn of_text(text: &str) -> Option<Secret> {
        let digits = text.strip_suffix('\n')?;
        if digits.len() != 2 * BYTES || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut words = [0; 4];
        for (at, word) in words.iter_mut().enumerate() {
            *word = u64::from_str_radix(digits.get(16 * at..16 * (at + 1))?, 16).ok()?;
        }
        Some(Secret(words))
    }

    fn marks(self, lab: &str) -> Marks {
        let [a, b, c, d] = self.0;
        let mark = |key, other| format!("topo:{:016x}:{lab}", keyed_hash(key, other, lab));
        Marks { mark: mark(a, b), process_mark: mark(c, d) }
    }
}

/// Hashes a text with a key, so that nobody without the key can make the hash of another text: SipHash-2-4.
#[expect(
    deprecated,
    reason = "std's other hashers promise neither the algorithm nor the same result in the next release"
)]
fn keyed_hash(key: u64, other: u64, text: &str) -> u64 {
    use std::hash::{Hasher, SipHasher};
    let mut hasher = SipHasher::new_with_keys(key, other);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Returns the lab that a mark names, whichever state directory made it; none where the text is no mark.
pub fn lab_of_mark(mark: &str) -> Option<&str> {
    mark.strip_prefix("topo:")?.split_once(':').map(|(_, lab)| lab)
}

impl StateDir {
    fn secret_file(&self) -> PathBuf {
        self.root().join("secret")
    }

    /// Reads the secret; none if there is none yet. A damaged one is an error that names the file.
    fn read_secret(&self) -> Result<Option<Secret>> {
        let path = self.secret_file();
        let doing = || format!("read the secret of the state directory `{}`", path.display());
        match std::fs::read_to_string(&path) {
            Ok(text) => Secret::of_text(&text).map(Some).ok_or_else(|| {
                Error::new(Kind::State, doing())
                    .because("the file is damaged; nothing was changed")
                    .hint("`topo down --all` still works; once no lab is left, remove the file, and a new one is made")
            }),
            Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file(doing(), &source)),
        }
    }

    /// Makes the secret of a new state directory. Where that fails, the first lab tries again, and says why.
    pub(super) fn prepare_secret(&self) {
        if !self.secret_file().exists() && self.names().is_ok_and(|names| names.is_empty()) {
            let _ = self.make_secret();
        }
    }

    /// Returns the secret. One that is missing while there are labs is an error.
    fn secret(&self) -> Result<Secret> {
        if let Some(secret) = self.known_secret().get() {
            return Ok(*secret);
        }
        let secret = match self.read_secret()? {
            Some(secret) => secret,
            None => self.make_secret()?,
        };
        Ok(*self.known_secret().get_or_init(|| secret))
    }

    fn make_secret(&self) -> Result<Secret> {
        let _all = self.lock_all()?;
        // Another process may have been quicker.
        if let Some(secret) = self.read_secret()? {
            return Ok(secret);
        }
        let path = self.secret_file();
        if let Some(lab) = self.names()?.first() {
            return Err(Error::new(Kind::State, format!("read the secret `{}`", path.display()))
                .because(format!("there is none, and there are labs, such as `{lab}`, whose marks were made with it"))
                .hint("`topo down --all` still works, with --force where a record is damaged too; once no lab is left, a new one is made"));
        }
        let failed = |source: io::Error| Error::file(format!("write the secret `{}`", path.display()), &source);
        let secret = Secret::random().map_err(failed)?;
        files::replace(&path.with_extension("tmp"), &path, secret.to_text().as_bytes()).map_err(failed)?;
        Ok(secret)
    }

    /// Returns the marks of the lab `name`.
    pub fn marks(&self, name: &str) -> Result<Marks> {
        self.secret().map(|secret| secret.marks(name))
    }

    /// Returns marks that nothing has, for a lab whose own can't be told.
    pub(crate) fn marks_of_nothing(&self, name: &str) -> Result<Marks> {
        let secret = Secret::random().map_err(|source| Error::file("make a secret", &source))?;
        Ok(secret.marks(name))
    }

    /// Returns the lab of this state directory that an object of the kernel was marked for; none where the mark is another's.
    pub fn lab_of<'a>(&self, mark: &'a str) -> Result<Option<&'a str>> {
        let Some(lab) = lab_of_mark(mark) else { return Ok(None) };
        // Without a secret, nothing was ever marked.
        let secret = match self.known_secret().get() {
            Some(secret) => Some(*secret),
            None => self.read_secret()?,
        };
        Ok(secret.filter(|secret| secret.marks(lab).mark == mark).map(|_| lab))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &tempfile::TempDir, name: &str) -> StateDir {
        StateDir::open(&dir.path().join(name), &dir.path().join("store"), None).expect("a state directory")
    }

    #[test]
    fn a_text_is_read_back_and_damage_is_seen() {
        let secret = Secret::random().expect("random bytes");
        let text = secret.to_text();
        assert_eq!(Secret::of_text(&text), Some(secret));
        assert_ne!(secret, Secret::random().expect("random bytes"));
        for at in 0..=text.len() {
            assert!(at == text.len() || Secret::of_text(&text[..at]).is_none(), "cut at {at}");
        }
        for damaged in [text.to_uppercase().replace('\n', ""), format!("{text}0"), text.replacen(&text[..1], "+", 1)] {
            assert_eq!(Secret::of_text(&damaged), None, "{damaged:?}");
        }
    }

    /// The test vector of SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", appendix A).
    #[test]
    fn the_hash_is_the_published_one() {
        let bytes: Vec<u8> = (0..15).collect();
        let text = std::str::from_utf8(&bytes).expect("ASCII");
        assert_eq!(keyed_hash(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908, text), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn marks_are_of_one_lab_one_state_directory_and_one_sort() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, two) = (state(&dir, "one"), state(&dir, "two"));
        let marks = one.marks("lab").expect("marks");
        assert_eq!(one.lab_of(&marks.mark).expect("read"), Some("lab"));
        assert_eq!(state(&dir, "one").marks("lab").expect("marks"), marks, "as another process makes them");
        assert_ne!(marks.mark, marks.process_mark);
        assert_ne!(two.marks("lab").expect("marks"), marks);
        for other in [
            marks.process_mark.clone(),
            marks.mark.replace(":lab", ":lab2"),
            format!("{}x", marks.mark),
            "topo:lab".into(),
        ] {
            assert_eq!(one.lab_of(&other).expect("read"), None, "{other}");
        }
        assert_eq!(two.lab_of(&marks.mark).expect("read"), None);
    }

    #[test]
    fn a_secret_that_is_damaged_or_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let one = state(&dir, "one");
        one.marks("lab").expect("marks");
        std::fs::create_dir(one.root().join("labs/lab")).expect("a lab");
        std::fs::remove_file(one.root().join("secret")).expect("removed");
        let error = state(&dir, "one").marks("lab").expect_err("no secret");
        assert!(error.kind() == Kind::State && error.to_string().contains("there are labs, such as `lab`"), "{error}");
        std::fs::write(one.root().join("secret"), "0123\n").expect("damaged");
        let error = state(&dir, "one").marks("lab").expect_err("a damaged secret");
        assert!(error.kind() == Kind::State && error.to_string().contains("/one/secret"), "{error}");
        let error = state(&dir, "one").lab_of("topo:0:lab").expect_err("a damaged secret");
        assert_eq!(error.kind(), Kind::State);
    }
}
