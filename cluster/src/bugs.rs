//! Bugs that this crate could have, put back on purpose: the proof that simulated worlds find them. Without the feature
//! `put-back`, which only that proof turns on, there are none and nothing of this is compiled in.

/// A bug that can be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A write of the log counts before it is on disk. In simulated worlds only: their writer is a task.
    AckBeforeFsync,
    /// A read is answered from what is applied here, without asking a majority whether this node still leads.
    StaleRead,
    /// Who leads owns at once, before everything that was acknowledged is applied here.
    NoBarrier,
}

#[cfg(feature = "put-back")]
mod there {
    use super::Bug;
    use std::sync::atomic::{AtomicU8, Ordering};

    static BUG: AtomicU8 = AtomicU8::new(0);

    /// From now on, everything in this process has this bug.
    pub fn put_back(bug: Bug) {
        BUG.store(bug as u8 + 1, Ordering::Relaxed);
    }

    pub(crate) fn has(bug: Bug) -> bool {
        BUG.load(Ordering::Relaxed) == bug as u8 + 1
    }
}

#[cfg(feature = "put-back")]
pub(crate) use there::has;
#[cfg(feature = "put-back")]
pub use there::put_back;

#[cfg(not(feature = "put-back"))]
pub(crate) const fn has(_bug: Bug) -> bool {
    false
}
