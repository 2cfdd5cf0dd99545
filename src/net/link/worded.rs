//! Small sets of choices, each with iproute2's word and the kernel's number.

/// A set of choices.
pub trait Worded: Sized {
    /// The words, for a message.
    const WHAT: &'static str;

    /// Returns the choice that has a word.
    fn of_word(word: &str) -> Option<Self>;
}

/// Declares an enum whose variants have a word, which is also how they are stored, and a number. The text names the words.
macro_rules! worded {
    (
        $(#[doc = $about:literal])+
        $name:ident = $what:literal { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, $number:literal; )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[doc = $doc])+ #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// Returns iproute2's word.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// Returns the kernel's number.
            pub fn number(self) -> u32 {
                match self { $($name::$variant => $number),+ }
            }
        }

        impl $crate::net::Worded for $name {
            const WHAT: &'static str = $what;

            fn of_word(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use worded;
