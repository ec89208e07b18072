//! A snapshot on its way to another node: history first, then the chunks of a checkpoint, then its installation.
//!
//! The receiver says up to where it has history, so that a broken way costs only what was not yet durable there; the
//! chunks are sent from the beginning. Neither side holds more than a few parts in memory. What a piece of history or a
//! chunk means is the machine's.

mod give;
mod take;

pub(crate) use give::give;
pub(crate) use take::take;

use crate::seam::Running;

/// A part has about this many bytes.
const PART_BYTES: usize = 256 << 10;

/// How fast snapshots are given.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Bytes a second, for each snapshot.
    pub bytes_per_second: u64,
    /// Reading may block.
    pub running: Running,
}
