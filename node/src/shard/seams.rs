//! What a shard uses of its machine, beside log, checkpoints and history: each real, or simulated in a world.

use crate::clock::Clock;
use sojourn_cluster::Running;

/// What a shard stands on.
#[derive(Clone, Debug)]
pub struct Seams {
    /// The wall clock.
    pub clock: Clock,
    /// Threads, or tasks: where history is read that is not in memory.
    pub running: Running,
}

impl Seams {
    /// This machine's own.
    pub fn real() -> Seams {
        Seams {
            clock: Clock::Wall,
            running: Running::Threads,
        }
    }
}
