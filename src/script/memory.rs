//! What a script may hold in memory: it ends at a limit, before the machine does.
//!
//! rhai's own limits walk the whole of an array or a map after each call on it, which makes a loop of `push` quadratic. Here
//! the heap is counted instead, and looked at between two operations of a script. A single operation at most doubles what
//! there is, but for those that are told a length, or that make many values of one: these are ours (here and in `bounded`), and ask
//! first.

use std::alloc::System;
use std::cell::Cell;

use cap::Cap;
use rhai::plugin::*;
use rhai::{Array, Blob, Dynamic, EvalAltResult, ImmutableString};

use crate::prim::rhai_error;
use crate::state::{Error, Kind};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// What a script may hold, with all that the program itself does.
pub(super) const BYTES_MAX: usize = 1 << 30;

/// What an item of an array takes at least.
pub(super) const ITEM_BYTES: usize = size_of::<Dynamic>();

thread_local! {
    /// Whether the script is to end, since what it asked for could not be made.
    static IS_OVER: Cell<bool> = const { Cell::new(false) };
}

/// Returns the error of a script that holds too much, or would.
pub(super) fn exceeded() -> Option<Error> {
    (HEAP.allocated() > BYTES_MAX || IS_OVER.take()).then(error)
}

/// Ends the script at its next operation: for what can't fail.
pub(super) fn end_script() {
    IS_OVER.set(true);
}

/// Tells whether so many bytes more can be held.
pub(super) fn has_room(bytes: usize) -> bool {
    bytes.saturating_add(HEAP.allocated()) <= BYTES_MAX
}

fn error() -> Error {
    Error::new(Kind::Exhausted, "run the script")
        .because(format!("it holds more than {} MiB in memory", BYTES_MAX >> 20))
        .hint("a list or a text that grows in a loop without an end does that")
}

/// Makes sure that so many items more can be held, and returns the number.
pub(super) fn room_for(
    ctx: &NativeCallContext,
    len: impl TryInto<usize>,
    item_bytes: usize,
) -> Result<usize, Box<EvalAltResult>> {
    let len = len.try_into().unwrap_or(0);
    match has_room(len.saturating_mul(item_bytes)) {
        true => Ok(len),
        false => Err(rhai_error(error(), ctx.call_position())),
    }
}

/// rhai's functions that make something of a given length.
#[export_module(manifest)]
#[expect(clippy::unwrap_used, reason = "`#[export_module]` writes it for each `&mut`: rhai has checked the type")]
pub(super) mod functions {
    /// Makes an array longer, by copies of an item, until it has `len` of them.
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_array(
        ctx: NativeCallContext,
        array: &mut Array,
        len: i64,
        item: Dynamic,
    ) -> Result<(), Box<EvalAltResult>> {
        // A copy of an item that is a list itself copies what is in it.
        let before = HEAP.allocated();
        let copy = item.clone();
        let item_bytes = ITEM_BYTES + HEAP.allocated().saturating_sub(before);
        drop(copy);
        let len = room_for(&ctx, len, item_bytes)?;
        if len > array.len() {
            array.resize(len, item);
        }
        Ok(())
    }

    /// Makes a text longer, by copies of a character, until it has `len` characters.
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_char(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        len: i64,
        with: char,
    ) -> Result<(), Box<EvalAltResult>> {
        let len = room_for(&ctx, len, with.len_utf8())?;
        let missing = len.saturating_sub(text.chars().count());
        text.make_mut().push_str(&with.to_string().repeat(missing));
        Ok(())
    }

    /// Makes a text longer, by copies of another one, until it has `len` characters.
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_text(
        ctx: NativeCallContext,
        text: &mut ImmutableString,
        len: i64,
        with: &str,
    ) -> Result<(), Box<EvalAltResult>> {
        let len = room_for(&ctx, len, 4)?;
        let missing = len.saturating_sub(text.chars().count());
        // At once: rhai's texts grow by the character.
        let length = with.chars().count().max(1);
        let end = with.char_indices().nth(missing % length).map_or(0, |(end, _)| end);
        text.make_mut().push_str(&(with.repeat(missing / length) + &with[..end]));
        Ok(())
    }

    /// Makes a row of bytes of zeros.
    #[rhai_fn(name = "blob", return_raw)]
    pub fn blob(ctx: NativeCallContext, len: i64) -> Result<Blob, Box<EvalAltResult>> {
        blob_of(ctx, len, 0)
    }

    /// Makes a row of bytes of one value.
    #[rhai_fn(name = "blob", return_raw)]
    pub fn blob_of(ctx: NativeCallContext, len: i64, value: i64) -> Result<Blob, Box<EvalAltResult>> {
        let len = room_for(&ctx, len, 1)?;
        Ok(vec![(value & 0xff) as u8; len])
    }

    /// Makes a row of bytes longer, by one value, until it has `len` bytes.
    #[rhai_fn(name = "pad", return_raw)]
    pub fn pad_blob(ctx: NativeCallContext, blob: &mut Blob, len: i64, value: i64) -> Result<(), Box<EvalAltResult>> {
        let len = room_for(&ctx, len, 1)?;
        if len > blob.len() {
            blob.resize(len, (value & 0xff) as u8);
        }
        Ok(())
    }
}
