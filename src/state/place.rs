//! Where in a script something was asked for.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One position in one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// The source's name: a path, `stdlib/lan.rhai`, or `-e`.
    pub source: Arc<str>,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// A chain of positions, innermost first: the call that asked, then who called that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub Vec<Spot>);

impl Place {
    /// Tells whether nothing is known: a step that no script asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the innermost position.
    pub fn spot(&self) -> Option<&Spot> {
        self.0.first()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, spot) in self.0.iter().enumerate() {
            if depth > 0 {
                f.write_str(", called from ")?;
            }
            write!(f, "{spot}")?;
        }
        Ok(())
    }
}
