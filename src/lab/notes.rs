//! What steps and primitives note for those after them: things that were looked up, and that cost more than to remember them.

use std::any::{Any, TypeId};
use std::collections::HashMap;

/// Notes, one of each type. Whether what a note says still holds is for whoever reads it to find out.
#[derive(Default)]
pub(super) struct Notes(HashMap<TypeId, Box<dyn Any>>);

impl Notes {
    /// Returns the note of a type; an empty one where there was none.
    pub(crate) fn of<T: Default + 'static>(&mut self) -> &mut T {
        let note = self.0.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
        match note.downcast_mut() {
            Some(note) => note,
            None => unreachable!("a note is filed under its own type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_note() {
        let mut notes = Notes::default();
        notes.of::<Vec<u8>>().push(1);
        notes.of::<String>().push('x');
        notes.of::<Vec<u8>>().push(2);
        assert_eq!(*notes.of::<Vec<u8>>(), [1, 2]);
        assert_eq!(notes.of::<String>(), "x");
    }
}
