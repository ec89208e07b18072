//! Simulated disks for worlds: they lose what was not synced, and keep torn pieces of it, when they crash.
//!
//! Everything follows from a seed. They know bytes and nothing of Raft. Also here: a file system under the real log
//! whose fsync or writes fail on command.

mod checkpoints;
mod disk;
mod log;

pub use checkpoints::SimCheckpoints;
pub use disk::{Fault, FaultyDisk};
pub use log::SimLog;

use crate::runtime::mix;

/// A row of random numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The row of this seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` rolls.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
