//! rhai's functions that make far more than what they are given: they ask for room first, and then do as rhai's own.

use rhai::plugin::*;
use rhai::{Array, Blob, Dynamic, EvalAltResult, ImmutableString, Map};

use super::memory::{self, ITEM_BYTES, room_for};

type BoundedResult<T> = Result<T, Box<EvalAltResult>>;

/// What a short text of its own takes in a list: the item, the counts of its holders, and the text.
const TEXT_BYTES: usize = ITEM_BYTES + 64;

/// More parts than there is ever room for: no more are counted.
const PARTS_MAX: usize = memory::BYTES_MAX / TEXT_BYTES + 1;

/// What JSON takes as values, for each byte of it: a list in a list is two bytes.
const OF_JSON: usize = 24;

/// What a value at most takes as text, for each byte of a string: a control character as `\u{1f}`.
const AS_TEXT: usize = 6;

/// Puts another text in the place of each match.
fn replaced(ctx: &NativeCallContext, text: &mut ImmutableString, find: &str, with: &str) -> BoundedResult<()> {
    if text.is_empty() {
        return Ok(());
    }
    if with.len() > find.len() {
        room_for(ctx, text.matches(find).count(), with.len() - find.len())?;
    }
    *text = text.replace(find, with).into();
    Ok(())
}

/// Makes a list of the parts of a text, of which there are `count`.
fn parts<'t>(
    ctx: &NativeCallContext,
    text: &ImmutableString,
    count: usize,
    parts: impl Iterator<Item = &'t str>,
) -> BoundedResult<Array> {
    if count <= 1 {
        return Ok(vec![text.clone().into()]);
    }
    room_for(ctx, count, TEXT_BYTES)?;
    Ok(parts.map(Into::into).collect())
}

/// Returns how many parts a text has, of at most `most`.
fn count(text: &str, delimiter: &str, most: i64) -> usize {
    if text.is_empty() {
        1
    } else {
        text.matches(delimiter).take(limit(most.saturating_sub(1)).min(PARTS_MAX)).count() + 1
    }
}

fn limit(most: i64) -> usize {
    usize::try_from(most).unwrap_or(0)
}

/// A text that is made of the texts of values. rhai makes the text itself where one of our functions for it fails, without a limit:
/// so they don't, and the script ends at its next operation.
struct Text<'a, 'c> {
    ctx: &'a NativeCallContext<'c>,
    text: String,
    is_full: bool,
}

impl Text<'_, '_> {
    fn push(&mut self, more: &str) {
        self.is_full = self.is_full || !memory::has_room(self.text.len() + more.len());
        if !self.is_full {
            self.text.push_str(more);
        }
    }

    /// Adds a value, as rhai shows it in a list.
    fn push_value(&mut self, value: &mut Dynamic) {
        if self.is_full {
            return;
        }
        match self.ctx.call_native_fn_raw("to_debug", true, &mut [value]) {
            Ok(text) if text.is_string() => {
                let text = text.into_immutable_string().unwrap_or_default();
                self.push(&text);
            }
            Ok(other) => self.push(self.ctx.engine().map_type_name(other.type_name())),
            Err(_) => {
                let text = format!("{value:?}");
                self.push(self.ctx.engine().map_type_name(&text));
            }
        }
    }

    fn end(mut self, end: &str) -> ImmutableString {
        self.push(end);
        if self.is_full {
            memory::end_script();
        }
        self.text.into()
    }
}

/// What a script can call.
#[export_module(manifest)]
#[expect(clippy::unwrap_used, reason = "`#[export_module]` writes it for each `&mut`: rhai has checked the type")]
pub(super) mod functions {
    /// Puts a text in the place of each match of another.
    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace(ctx: NativeCallContext, text: &mut ImmutableString, find: &str, with: &str) -> BoundedResult<()> {
        replaced(&ctx, text, find, with)
    }

    /// Puts a character in the place of each match of a text.
    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_by_char(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        find: &str,
        with: char,
    ) -> BoundedResult<()> {
        replaced(&ctx, text, find, with.encode_utf8(&mut [0; 4]))
    }

    /// Puts a text in the place of each occurrence of a character.
    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_char(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        find: char,
        with: &str,
    ) -> BoundedResult<()> {
        replaced(&ctx, text, find.encode_utf8(&mut [0; 4]), with)
    }

    /// Puts a character in the place of each occurrence of another.
    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_char_by_char(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        find: char,
        with: char,
    ) -> BoundedResult<()> {
        replaced(&ctx, text, find.encode_utf8(&mut [0; 4]), with.encode_utf8(&mut [0; 4]))
    }

    /// Parts a text at white space.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split_words(ctx: NativeCallContext, text: &mut ImmutableString) -> BoundedResult<Array> {
        if text.is_empty() {
            return Ok(vec![text.clone().into()]);
        }
        room_for(&ctx, text.split_whitespace().take(PARTS_MAX).count(), TEXT_BYTES)?;
        Ok(text.split_whitespace().map(Into::into).collect())
    }

    /// Parts a text at each match of another.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split(ctx: NativeCallContext, text: &mut ImmutableString, at: &str) -> BoundedResult<Array> {
        parts(&ctx, text, count(text, at, i64::MAX), text.split(at))
    }

    /// Parts a text at each match of another, into at most `most` parts.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split_most(ctx: NativeCallContext, text: &mut ImmutableString, at: &str, most: i64) -> BoundedResult<Array> {
        parts(&ctx, text, count(text, at, most), text.splitn(limit(most), at))
    }

    /// Parts a text at each occurrence of a character.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split_char(ctx: NativeCallContext, text: &mut ImmutableString, at: char) -> BoundedResult<Array> {
        split(ctx, text, at.encode_utf8(&mut [0; 4]))
    }

    /// Parts a text at each occurrence of a character, into at most `most` parts.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split_char_most(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        at: char,
        most: i64,
    ) -> BoundedResult<Array> {
        split_most(ctx, text, at.encode_utf8(&mut [0; 4]), most)
    }

    /// Parts a text at each match of another, from its end.
    #[rhai_fn(name = "split_rev", return_raw, pure)]
    pub fn split_rev(ctx: NativeCallContext, text: &mut ImmutableString, at: &str) -> BoundedResult<Array> {
        parts(&ctx, text, count(text, at, i64::MAX), text.rsplit(at))
    }

    /// Parts a text at each match of another, from its end, into at most `most` parts.
    #[rhai_fn(name = "split_rev", return_raw, pure)]
    pub fn split_rev_most(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        at: &str,
        most: i64,
    ) -> BoundedResult<Array> {
        parts(&ctx, text, count(text, at, most), text.rsplitn(limit(most), at))
    }

    /// Parts a text at each occurrence of a character, from its end.
    #[rhai_fn(name = "split_rev", return_raw, pure)]
    pub fn split_rev_char(ctx: NativeCallContext, text: &mut ImmutableString, at: char) -> BoundedResult<Array> {
        split_rev(ctx, text, at.encode_utf8(&mut [0; 4]))
    }

    /// Parts a text at each occurrence of a character, from its end, into at most `most` parts.
    #[rhai_fn(name = "split_rev", return_raw, pure)]
    pub fn split_rev_char_most(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        at: char,
        most: i64,
    ) -> BoundedResult<Array> {
        split_rev_most(ctx, text, at.encode_utf8(&mut [0; 4]), most)
    }

    /// Returns the characters of a text.
    #[rhai_fn(name = "to_chars", return_raw)]
    pub fn to_chars(ctx: NativeCallContext, text: &str) -> BoundedResult<Array> {
        room_for(&ctx, text.chars().count(), ITEM_BYTES)?;
        Ok(text.chars().map(Into::into).collect())
    }

    /// Returns the bytes of a row as numbers.
    #[rhai_fn(name = "to_array", return_raw, pure)]
    pub fn to_array(ctx: NativeCallContext, blob: &mut Blob) -> BoundedResult<Array> {
        room_for(&ctx, blob.len(), ITEM_BYTES)?;
        Ok(blob.iter().map(|byte| Dynamic::from(i64::from(*byte))).collect())
    }

    /// Reads a text of JSON.
    #[rhai_fn(name = "parse_json", return_raw)]
    pub fn parse_json(ctx: NativeCallContext, json: &str) -> BoundedResult<Dynamic> {
        room_for(&ctx, json.len(), OF_JSON)?;
        serde_json::from_str(json).map_err(|error| error.to_string().into())
    }

    /// Returns a map as JSON.
    #[rhai_fn(name = "to_json", return_raw, pure)]
    pub fn to_json(ctx: NativeCallContext, map: &mut Map) -> BoundedResult<String> {
        if !fit(map.values(), AS_TEXT) {
            room_for(&ctx, usize::MAX, 1)?;
        }
        let map: std::collections::BTreeMap<&str, &Dynamic> =
            map.iter().map(|(key, value)| (key.as_str(), value)).collect();
        Ok(serde_json::to_string(&map).unwrap_or_else(|_| "ERROR".into()))
    }

    /// Returns a text as it is written in a script.
    #[rhai_fn(name = "debug", name = "to_debug")]
    pub fn debug_text(text: &str) -> ImmutableString {
        if memory::has_room(text.len().saturating_mul(AS_TEXT)) {
            return format!("{text:?}").into();
        }
        memory::end_script();
        ImmutableString::new()
    }

    /// Returns a list as text.
    #[rhai_fn(name = "print", name = "to_string", name = "debug", name = "to_debug", pure)]
    pub fn array_text(ctx: NativeCallContext, array: &mut Array) -> ImmutableString {
        let mut text = Text { ctx: &ctx, text: "[".into(), is_full: !fit(array.iter(), 1) };
        for (at, value) in array.iter_mut().enumerate() {
            text.push(if at == 0 { "" } else { ", " });
            text.push_value(value);
        }
        text.end("]")
    }

    /// Returns a map as text.
    #[rhai_fn(name = "print", name = "to_string", name = "debug", name = "to_debug", pure)]
    pub fn map_text(ctx: NativeCallContext, map: &mut Map) -> ImmutableString {
        let mut text = Text { ctx: &ctx, text: "#{".into(), is_full: !fit(map.values(), 1) };
        for (at, (key, value)) in map.iter_mut().enumerate() {
            text.push(&format!("{}{key:?}: ", if at == 0 { "" } else { ", " }));
            text.push_value(value);
        }
        text.end("}")
    }
}

/// Tells whether there is room for values as text. A text that many of them hold is written as often.
fn fit<'v>(values: impl Iterator<Item = &'v Dynamic>, each: usize) -> bool {
    fn weigh(value: &Dynamic, bytes: &mut usize, each: usize) -> bool {
        *bytes += 2;
        if let Ok(text) = value.as_immutable_string_ref() {
            *bytes += text.len().saturating_mul(each);
        } else if let Ok(array) = value.as_array_ref() {
            return array.iter().all(|value| weigh(value, bytes, each));
        } else if let Ok(map) = value.as_map_ref() {
            return map.values().all(|value| weigh(value, bytes, each));
        }
        memory::has_room(*bytes)
    }
    let mut bytes = 0;
    values.into_iter().all(|value| weigh(value, &mut bytes, each))
}
