//! Texts with `{{ … }}` in them. Knows no actions: it makes text from text.

use crate::expr::{Base, Expression, Miss, Scope};

/// A text with expressions in it.
#[derive(Debug)]
pub struct Template {
    /// The text, as the author wrote it.
    pub source: String,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Value(Expression),
}

impl Template {
    /// The text with every expression replaced by its value.
    ///
    /// # Errors
    /// As [`Expression::eval`]; the paths of all expressions that are unknown are named.
    pub fn render(&self, base: &Base, scope: &Scope<'_>) -> Result<String, Miss> {
        let _ = (base, scope, &self.pieces);
        Err(Miss::Error("being built".to_owned()))
    }
}
