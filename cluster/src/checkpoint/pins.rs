//! Generations that must not be removed, because they are being written, given to another node or received from one.
//!
//! One for each group. It does not know which of them a manifest names.

use super::{CheckpointStore, StoreFault};
use crate::id::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often each generation is held.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pins {
    held: Arc<Mutex<BTreeMap<u64, usize>>>,
}

/// Holds some generations while it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Pins,
    numbers: Vec<u64>,
}

impl Pins {
    /// The number of a new generation, held. Numbers that were begun and never finished are not used again.
    pub(crate) fn reserve(
        &self,
        store: &dyn CheckpointStore,
        group: GroupId,
    ) -> Result<(u64, Pin), StoreFault> {
        let mut held = self.held.lock();
        let stored = store.generations(group)?.last().copied().unwrap_or(0);
        let number = stored.max(held.keys().next_back().copied().unwrap_or(0)) + 1;
        held.insert(number, 1);
        drop(held);
        let pin = Pin {
            pins: self.clone(),
            numbers: vec![number],
        };
        Ok((number, pin))
    }

    /// Holds generations that are there.
    pub(crate) fn hold(&self, numbers: impl IntoIterator<Item = u64>) -> Pin {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let mut held = self.held.lock();
        for number in &numbers {
            *held.entry(*number).or_default() += 1;
        }
        drop(held);
        Pin {
            pins: self.clone(),
            numbers,
        }
    }

    /// Whether nothing is held.
    pub(crate) fn is_free(&self) -> bool {
        self.held.lock().is_empty()
    }

    pub(crate) fn is_held(&self, number: u64) -> bool {
        self.held.lock().contains_key(&number)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held.lock();
        for number in &self.numbers {
            if let Some(count) = held.get_mut(number) {
                *count -= 1;
                if *count == 0 {
                    held.remove(number);
                }
            }
        }
    }
}
