//! Texts with `{{ … }}` in them. Knows no actions: it makes text from text.

use crate::expr::{Base, Expression, Miss, Refused, Scope};

/// The most bytes that a rendered text may have; an action's body is bounded again as a whole.
pub const MAX_RENDERED: usize = 64 * 1024;

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
    /// Reads a text. A `{{` begins an expression and `}}` outside of texts within it ends it.
    ///
    /// # Errors
    /// When an expression does not end, or is none.
    pub fn parse(source: &str) -> Result<Template, Refused> {
        crate::compile::on_large_stack(|| Template::read(source)).unwrap_or_else(|| {
            Err(Refused {
                message: "could not be read: the parser failed on it; please report it".to_owned(),
                place: None,
            })
        })
    }

    /// As [`Template::parse`], for a caller that is on a large stack already.
    pub(crate) fn read(source: &str) -> Result<Template, Refused> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some(start) = rest.find("{{") {
            if start > 0 {
                pieces.push(Piece::Text(rest[..start].to_owned()));
            }
            let inner = &rest[start + 2..];
            let Some(end) = closing(inner) else {
                return Err(Refused {
                    message: "has `{{` without `}}` after it".to_owned(),
                    place: None,
                });
            };
            let text = inner[..end].trim();
            pieces.push(Piece::Value(Expression::read(text).map_err(|refused| {
                Refused {
                    message: format!(
                        "`{{{{ {} }}}}` {}",
                        crate::problem::short(text),
                        refused.message
                    ),
                    place: None,
                }
            })?));
            rest = &inner[end + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template {
            source: source.to_owned(),
            pieces,
        })
    }

    /// The text with every expression replaced by its value: texts as they are, times as RFC 3339, lists and maps as
    /// JSON, null as nothing.
    ///
    /// # Errors
    /// As [`Expression::eval`]; the paths of all expressions that are unknown are named.
    pub fn render(&self, base: &Base, scope: &Scope<'_>) -> Result<String, Miss> {
        let mut text = String::new();
        let mut missing = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value(expression) => match expression.eval(base, scope) {
                    Ok(value) => text.push_str(&value.to_text()),
                    Err(Miss::Unknown(paths)) => missing.extend(paths),
                    Err(error) => return Err(error),
                },
            }
            if text.len() > MAX_RENDERED {
                return Err(Miss::Error(format!(
                    "the text has more than {MAX_RENDERED} bytes when it is rendered"
                )));
            }
        }
        if missing.is_empty() {
            Ok(text)
        } else {
            Err(Miss::Unknown(missing))
        }
    }

    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value(expression) => Some(expression),
        })
    }

    /// Whether it is a text without expressions.
    pub fn is_plain(&self) -> bool {
        self.expressions().next().is_none()
    }
}

/// Where the `}}` stands that ends an expression: not within a text, not within braces of its own.
fn closing(inner: &str) -> Option<usize> {
    let bytes = inner.as_bytes();
    let (mut i, mut depth, mut quote) = (0, 0usize, None);
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(_), b'\\') => i += 1,
            (Some(open), b) if b == open => quote = None,
            (Some(_), _) => {}
            (None, b @ (b'"' | b'\'')) => quote = Some(b),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(i + 1) == Some(&b'}') => return Some(i),
            (None, _) => {}
        }
        i += 1;
    }
    None
}
