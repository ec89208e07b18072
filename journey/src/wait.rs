//! Spans and points in time as a journey writes them: `3d`, one month in Amsterdam, a date, a field and an offset,
//! sixteen business hours. Knows no timers: it says when something is due.

use crate::expr::{Base, Miss, Scope};
use crate::time::{Span, Time};

/// A span or a point in time, ready to be computed.
#[derive(Debug)]
pub struct Wait {
    /// The text, as the author wrote it.
    pub source: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Exact(Span),
}

impl Wait {
    /// When the wait is over that begins at `from`.
    ///
    /// # Errors
    /// When it needs a value that is unknown or is no time.
    pub fn due(&self, from: Time, base: &Base, scope: &Scope<'_>) -> Result<Time, Miss> {
        let _ = (base, scope);
        match self.kind {
            Kind::Exact(span) => Ok(from.plus(span)),
        }
    }
}
