//! Small sets of choices, each with iproute2's word and the kernel's number.

/// Declares an enum whose variants have a word, which is also how they are stored, and a number.
macro_rules! worded {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal, $number:literal; )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $( $(#[doc = $doc])+ #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Returns iproute2's word.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// Returns the kernel's number.
            pub fn number(self) -> u32 {
                match self { $($name::$variant => $number),+ }
            }
        }
    };
}
pub(crate) use worded;
