//! Bugs that the node could have, put back on purpose: the proof that simulated worlds find them. Without the feature
//! `put-back`, which only that proof turns on, there are none and nothing of this is compiled in.

/// A bug that can be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A decision names how many there were before it, and not which one was the last; and nobody waits for the fate of what
    /// was decided by an actor that is no more, as who trusts in such numbers would not.
    SequenceNumber,
    /// A replica that is given the history of a shard does not take the index of receipts.
    ForgottenReceipts,
    /// A new owner arms no timer of those that were armed before.
    ForgottenTimers,
}

#[cfg(feature = "put-back")]
mod there {
    use super::Bug;
    use crate::shard::customer::DecisionId;
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU8, Ordering};

    static BUG: AtomicU8 = AtomicU8::new(0);
    /// How many decisions of its customer there were before each, as its owner believed: the number that decisions would
    /// bear. All nodes of a world are in one process.
    static NUMBERS: Mutex<BTreeMap<DecisionId, u64>> = Mutex::new(BTreeMap::new());

    /// From now on, everything in this process has this bug.
    pub fn put_back(bug: Bug) {
        BUG.store(bug as u8 + 1, Ordering::Relaxed);
    }

    pub(crate) fn has(bug: Bug) -> bool {
        BUG.load(Ordering::Relaxed) == bug as u8 + 1
    }

    /// A decision is made behind another.
    pub(crate) fn decided(id: DecisionId, previous: Option<DecisionId>) {
        if has(Bug::SequenceNumber) {
            let number = number(previous) + 1;
            NUMBERS.lock().insert(id, number);
        }
    }

    fn number(id: Option<DecisionId>) -> u64 {
        id.and_then(|id| NUMBERS.lock().get(&id).copied())
            .unwrap_or(0)
    }

    /// Whether a decision was made on this very state.
    pub(crate) fn follows(last: Option<DecisionId>, previous: Option<DecisionId>) -> bool {
        last == previous || (has(Bug::SequenceNumber) && number(last) == number(previous))
    }
}

#[cfg(feature = "put-back")]
pub use there::put_back;
#[cfg(feature = "put-back")]
pub(crate) use there::{decided, follows, has};

#[cfg(not(feature = "put-back"))]
mod none {
    use super::Bug;
    use crate::shard::customer::DecisionId;

    pub(crate) const fn has(_bug: Bug) -> bool {
        false
    }

    pub(crate) const fn decided(_id: DecisionId, _previous: Option<DecisionId>) {}

    pub(crate) fn follows(last: Option<DecisionId>, previous: Option<DecisionId>) -> bool {
        last == previous
    }
}

#[cfg(not(feature = "put-back"))]
pub(crate) use none::{decided, follows, has};
