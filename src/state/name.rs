//! The one rule for names, and the short names that the kernel gets for long ones.

use std::borrow::Cow;
use std::path::Path;

use super::error::{Error, Result};

/// The kernel's limit for a device name, in bytes (IFNAMSIZ less its NUL; linux/if.h).
pub const DEV_NAME_MAX: usize = 15;
/// Our limit for any name, in bytes: the kernel's for an alternative name (ALTIFNAMSIZ less its NUL; linux/if.h).
pub const NAME_MAX: usize = 127;

const RULE: &str = "a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _";

/// Checks a name for a netns, a device or a lab; `what` is the word for it in the error.
pub fn check(what: &str, name: &str) -> Result<()> {
    let because = if name.is_empty() {
        "it is empty".to_string()
    } else if name.len() > NAME_MAX {
        format!("it has {} bytes, at most {NAME_MAX} are allowed", name.len())
    } else if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.@+-".contains(*c))) {
        format!("{wrong:?} is not allowed in it")
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        "its first character is not a letter, digit or _".to_string()
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("{what} name `{}`", shown(name))).because(because).hint(RULE))
}

/// Returns `name` for a message: control characters escaped, cut where it is long.
pub fn shown(name: &str) -> String {
    cut(name, 40)
}

/// Returns a path for a message, as one may have to type it: cut only where no person has such a path.
pub fn shown_path(path: impl AsRef<Path>) -> String {
    cut(&path.as_ref().to_string_lossy(), 400)
}

fn cut(text: &str, chars: usize) -> String {
    let mut shown: String = text.chars().take(chars).flat_map(char::escape_debug).collect();
    if text.chars().count() > chars {
        shown.push('…');
    }
    shown
}

/// Tells whether a character changes how a terminal shows others: the control characters of ASCII and ISO 6429, and those that
/// turn the direction of what follows (Unicode, UAX #9).
pub fn is_control(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// Returns a text for a terminal: control characters escaped, but for ends of lines and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    let odd = |c: char| is_control(c) && c != '\n' && c != '\t';
    if !text.contains(odd) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if odd(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    shown.into()
}

/// Returns a text for one line, or a cell of a table: control characters escaped, ends of lines and tabs too.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Returns the name that the kernel gets for the device `name`: itself, or its beginning and a hash where it is too long.
///
/// The hash is over the whole name, so two long names with the same beginning stay apart; the full name becomes the
/// device's alternative name.
pub fn kernel_name(name: &str) -> String {
    if name.len() <= DEV_NAME_MAX {
        return name.to_string();
    }
    format!("{}-{}", &name[..6], short_hash(name.as_bytes()))
}

/// Returns the name that a device of that number has while it is made, where its own may be taken.
pub fn passing_name(index: u32) -> String {
    format!("topo{index}")
}

/// Hashes `bytes` to eight hexadecimal digits.
pub fn short_hash(bytes: &[u8]) -> String {
    let hash = fnv1a(bytes);
    format!("{:08x}", (hash ^ (hash >> 32)) as u32)
}

/// Hashes a text to twelve hexadecimal digits, for names that scripts make of it.
pub fn hash_of(text: &str) -> String {
    format!("{:012x}", fnv1a(text.as_bytes()) & 0xffff_ffff_ffff)
}

/// Hashes `bytes` by FNV-1a, the same on every machine and in every release: names and marks are made with it.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_on(FNV_BASIS, bytes)
}

/// The hash of no bytes.
pub(super) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with a hash.
pub(super) fn fnv1a_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns the candidate nearest to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Written as in another language: `isAlive` for `is_alive`.
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let wanted = plain(word);
    candidates
        .into_iter()
        .map(|candidate| {
            let is_same = candidate != word && plain(candidate) == wanted;
            (if is_same { 0 } else { strsim::damerau_levenshtein(word, candidate) }, candidate)
        })
        .filter(|(distance, candidate)| {
            let shorter = candidate.len().min(word.len());
            // Of a name with one letter none would be left.
            *distance <= 1 + shorter / 4 && *distance < shorter.max(1)
        })
        // Of two that are as near, the one that lacks a letter is meant more often than the one that has one too many.
        .min_by_key(|(distance, candidate)| (*distance, candidate.len() < word.len(), *candidate))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_whole() {
        let path = format!("/{}", "directory/".repeat(20));
        assert_eq!(shown_path(&path), path);
        assert_eq!(shown_path("a\nb"), "a\\nb");
        assert_eq!(shown_path("x".repeat(9999)).chars().count(), 401);
        assert_eq!(shown(&path).chars().count(), 41);
    }

    #[test]
    fn names_follow_one_rule() {
        for good in ["a", "h1", "eth0.100", "_x", "very-long-name-of-a-switch", "p@h1", &"n".repeat(127)] {
            assert!(check("netns", good).is_ok(), "{good}");
        }
        for bad in ["", "../x", "a/b", "a b", "line\nbreak", "-x", ".x", "ü", &"n".repeat(300), "a\0b"] {
            let error = check("netns", bad).expect_err(bad);
            assert_eq!(error.hint_text(), Some(RULE));
        }
    }

    #[test]
    fn long_device_names_get_short_ones_that_differ() {
        assert_eq!(kernel_name("eth0"), "eth0");
        assert_eq!(kernel_name("fifteen-letters"), "fifteen-letters");
        let (a, b) = (kernel_name("access-switch-port-1"), kernel_name("access-switch-port-2"));
        assert_eq!((a.len(), b.len()), (15, 15));
        assert_ne!(a, b);
        assert!(a.starts_with("access-"));
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        assert_eq!(nearest("mtuu", ["mtu", "up"]), Some("mtu"));
        assert_eq!(nearest("bridgge", ["bridge", "veth"]), Some("bridge"));
        assert_eq!(nearest("zebra", ["mtu", "up"]), None);
        assert_eq!(nearest("netn", ["net", "netns"]), Some("netns"));
        assert_eq!(nearest("a", ["b", "c"]), None);
        assert_eq!(nearest("a", ["a"]), Some("a"));
    }
}
