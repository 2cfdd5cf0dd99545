//! Check sums: what an undo relies on is refused if a byte of it was lost, added or changed.
//!
//! FNV-1a finds each change of one byte for sure, since each of its steps is a bijection; others it misses once in 2^64. It is
//! no defence against a person who forges: the state directory belongs to its user alone.

use std::fmt;

use serde::Serialize;

use super::name::{FNV_BASIS, fnv1a_on};

/// A check sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// How many bytes it has as text.
    pub(crate) const LEN: usize = 16;

    /// Returns the sum of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Sum {
        Sum(FNV_BASIS).and(bytes)
    }

    /// Returns the sum of what this is the sum of and of `bytes` behind it.
    pub(crate) fn and(self, bytes: &[u8]) -> Sum {
        Sum(fnv1a_on(self.0, bytes))
    }

    /// Reads the text of a sum; only the one that `Display` writes is one, so that a change of case is seen.
    pub(crate) fn parse(text: &[u8]) -> Option<Sum> {
        let sum = Sum(u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()?);
        (sum.to_string().as_bytes() == text).then_some(sum)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What stands between the last field and the sum.
const BEFORE: &str = ",\"sum\":\"";
/// What stands behind the sum.
const BEHIND: &str = "\"}\n";

/// Writes `value`, which must be a map with at least one field, as JSON whose last field is its check sum.
pub(crate) fn seal(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    seal_padded(value, 0)
}

/// Does the same, and makes the text at least so long.
pub(super) fn seal_padded(value: &impl Serialize, length: usize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    // Its closing brace comes behind the sum.
    text.pop();
    let body = length.saturating_sub(BEFORE.len() + Sum::LEN + BEHIND.len());
    text.resize(text.len().max(body), b' ');
    let sum = Sum::of(&text);
    text.extend_from_slice(format!("{BEFORE}{sum}{BEHIND}").as_bytes());
    Ok(text)
}

/// Says what is wrong with a text that `seal` is to have written, if anything is.
pub(crate) fn check_seal(text: &[u8]) -> Result<(), &'static str> {
    let body = text.len().saturating_sub(BEFORE.len() + Sum::LEN + BEHIND.len());
    let (body, end) = text.split_at(body);
    let expected = format!("{BEFORE}{}{BEHIND}", Sum::of(body));
    if end == expected.as_bytes() { Ok(()) } else { Err(CHANGED) }
}

/// What is said where a check sum does not fit.
pub(crate) const CHANGED: &str = "its check sum does not match: a byte of it was lost, added or changed";

/// Gives a text that a test has changed a sum that fits.
#[cfg(test)]
pub(crate) fn reseal(text: &str) -> String {
    let body = match text.split_once(BEFORE) {
        Some((body, _)) => body,
        None => text.strip_suffix('}').unwrap_or(text),
    };
    format!("{body}{BEFORE}{}{BEHIND}", Sum::of(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cut_and_each_flipped_bit_of_a_sealed_text_is_seen() {
        let text = seal(&serde_json::json!({ "name": "a", "list": [1, 2], "text": "ä\n" })).expect("JSON");
        check_seal(&text).expect("as it was written");
        serde_json::from_slice::<serde_json::Value>(&text).expect("it is JSON");
        for at in 0..text.len() {
            check_seal(&text[..at]).expect_err("cut");
            check_seal(&text[at + 1..]).expect_err("cut in front");
            let longer = [&text[..at], b"x", &text[at..]].concat();
            check_seal(&longer).expect_err("a byte more");
            for bit in 0..8 {
                let mut text = text.clone();
                text[at] ^= 1 << bit;
                check_seal(&text).expect_err("a flipped bit");
            }
        }
        check_seal(&[&text[..], b"\n"].concat()).expect_err("a byte behind it");
        let padded = seal_padded(&serde_json::json!({ "name": "a" }), text.len()).expect("JSON");
        assert_eq!(padded.len(), text.len());
        check_seal(&padded).expect("as it was written");
        serde_json::from_slice::<serde_json::Value>(&padded).expect("it is JSON");
    }
}
