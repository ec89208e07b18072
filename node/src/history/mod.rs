//! What happened, for ever: records of decisions by customer, the index of receipts, the executions that ended, the
//! customers that left memory, and for a while the signals that moved nothing.
//!
//! Written behind: what was applied since the last checkpoint waits in memory ([`waiting`]), for the log holds it
//! already; reads see both. Knows nothing of what a record means.

pub mod engine;
pub mod fault;
pub mod give;
pub mod index;
#[cfg(test)]
mod moved;
mod piece;
mod receipts;
pub mod store;
pub mod take;
#[cfg(test)]
mod tests;
pub mod waiting;

use sojourn_journey::time::{Span, Time};

pub use engine::Memory;
pub use fault::Damaged;
pub use store::{CatalogCopy, Store};
pub use waiting::{Note, Receipts, RunKey, Waiting};

/// How long the index of receipts is kept: the limit that is reached first counts.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The dedup window.
    pub window: Span,
    /// Bytes on disk of all shards together.
    pub bytes: u64,
}

impl Keep {
    /// The days of which receipts are kept now; tomorrow is among them, for whoever's clock is a little ahead.
    pub fn days(&self, now: Time) -> std::ops::RangeInclusive<u32> {
        let window = u32::try_from(self.window.0 / DAY.0).unwrap_or(u32::MAX);
        let today = day_of(now);
        today.saturating_sub(window.saturating_add(1))..=today.saturating_add(1)
    }
}

/// The number of a day, from the epoch on.
pub fn day_of(at: Time) -> u32 {
    u32::try_from(at.0 / DAY.0).unwrap_or(0)
}

const DAY: Span = Span::from_seconds(86_400);

/// One decision as it was applied.
#[derive(Clone, Debug)]
pub struct Record {
    /// The log index of its entry.
    pub index: u64,
    /// Its place in the entry.
    pub sub: u32,
    /// The encoded `stored::Decision`, a slice of the entry.
    pub bytes: bytes::Bytes,
}

/// The 16 bytes by which a signal (source, id) of one customer is known: xxh3-128.
pub fn id_hash(customer: u64, source: &str, id: &str) -> u128 {
    let mut bytes = Vec::with_capacity(source.len() + id.len() + 12);
    bytes.extend_from_slice(&customer.to_be_bytes());
    bytes.extend_from_slice(&(source.len() as u32).to_be_bytes());
    bytes.extend_from_slice(source.as_bytes());
    bytes.extend_from_slice(id.as_bytes());
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// The same for a command, which has no source.
pub fn command_hash(customer: u64, id: &str) -> u128 {
    id_hash(customer, "\u{0}command", id)
}
