//! When the replicas of a group stand for election: by rank, the preferred owner first, each in a window of its own.
//!
//! Nothing here knows which replica has which rank.

use std::time::Duration;

/// A leader is heard of this often, in milliseconds.
pub(crate) const HEARTBEAT_MS: u64 = 100;
const FIRST_MS: u64 = 300;
const WIDE_MS: u64 = 80;
const APART_MS: u64 = 100;
/// Ranks beyond share the last window.
const RANKS: u64 = 5;

/// The window of a rank, in milliseconds. Disjoint, because 0.9 draws the time once per group: two equal draws would
/// split votes for ever. Its end is also how long the replica votes for nobody after it has heard of a leader.
pub(crate) fn election_ms(rank: usize) -> (u64, u64) {
    let rank = (rank as u64).min(RANKS - 1);
    let from = FIRST_MS + rank * APART_MS;
    (from, from + WIDE_MS)
}

/// A leader tries every heartbeat to reach a replica that was away, and needs a moment to connect.
const LISTENS: u32 = 12;

/// For timers that tick.
const MARGIN_MS: u64 = 20;

/// How long a replica of this rank votes for nobody after it has heard of a leader.
pub(crate) fn lease(rank: usize) -> Duration {
    Duration::from_millis(election_ms(rank).1 + MARGIN_MS)
}

/// For how many heartbeats a replica of this rank listens, when it comes back, before it stands for election. Afterwards its
/// time is over, and it stands at once; so the ranks are as far apart as two looks at that time are.
pub(crate) fn listens(rank: usize) -> u32 {
    LISTENS + 2 * (rank as u64).min(RANKS - 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_disjoint_and_the_first_fires_after_the_third_lease() {
        for rank in 1..RANKS as usize {
            assert!(election_ms(rank - 1).1 < election_ms(rank).0);
        }
        // A transfer among five is silent for the third lease; the first rank stands for election after its lease and
        // its window.
        let (from, upto) = election_ms(0);
        assert!(lease(2) < Duration::from_millis(upto + from));
    }

    #[test]
    fn who_has_listened_is_past_its_own_time() {
        for rank in 0..=RANKS as usize {
            let (_, upto) = election_ms(rank);
            let listened = u64::from(listens(rank)) * HEARTBEAT_MS;
            assert!(listened > 2 * upto, "rank {rank}: {listened} ms");
        }
    }
}
