//! The only place that sees both the wire (or stored) types and the types of the rules.
//! Knows no meaning: every function here only changes the shape of a value.

pub mod api;
pub mod event;
pub mod signal;
pub mod state;
pub mod value;

/// A stored or sent message that this version cannot read: damage, or a newer format.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be read: {why}")]
pub struct Unreadable {
    /// What was being read.
    pub what: &'static str,
    /// Why it cannot be.
    pub why: String,
}

/// A required field of a message.
pub(crate) fn need<T>(field: Option<T>, what: &'static str) -> Result<T, Unreadable> {
    field.ok_or(Unreadable {
        what,
        why: "the field is missing or of a kind that this version does not know".into(),
    })
}
