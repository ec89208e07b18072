//! How much may be under way in one shard: as much as its group agrees on in good time.
//!
//! An entry that takes long is the sign that more is admitted than the disk, the network or the CPU takes; what waits
//! behind it would only wait longer. Additive increase, multiplicative decrease, as TCP does for the same reason.
//! It does not know what slows a group down.

use crate::actors::Gauge;
use crate::limits::IN_FLIGHT_SHARD;
use std::sync::Arc;
use std::time::Duration;

/// An entry that takes longer is slow: a good disk syncs in less than a millisecond, a bad one in tens.
const SLOW: Duration = Duration::from_millis(250);
/// However slow the group: so much is always admitted.
const LEAST: usize = 64;
/// How much more is admitted after an entry that was quick while there was hardly room.
const MORE: usize = 32;

/// The pace of one shard.
pub struct Pace {
    gauge: Arc<Gauge>,
    limit: usize,
}

impl Pace {
    /// Everything that may be admitted, is.
    pub fn new(gauge: Arc<Gauge>) -> Pace {
        gauge.set_limit(IN_FLIGHT_SHARD);
        Pace {
            gauge,
            limit: IN_FLIGHT_SHARD,
        }
    }

    /// An entry was agreed on after so long, or given up.
    pub fn entry(&mut self, took: Duration) {
        let old = self.limit;
        if took > SLOW {
            self.limit = (old - old / 4).max(LEAST);
        } else if old < IN_FLIGHT_SHARD && self.gauge.count() * 4 >= old * 3 {
            self.limit = (old + MORE).min(IN_FLIGHT_SHARD);
        }
        if self.limit != old {
            self.gauge.set_limit(self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::Permit;

    #[test]
    fn a_slow_group_is_given_less_and_a_quick_one_more_again() {
        let gauge: Arc<Gauge> = Arc::default();
        let mut pace = Pace::new(gauge.clone());
        for _ in 0..100 {
            pace.entry(SLOW * 2);
        }
        let (node, customers): (Arc<Gauge>, Vec<Arc<Gauge>>) = (
            Arc::default(),
            (0..=LEAST).map(|_| Arc::default()).collect(),
        );
        let mut permits: Vec<Permit> = Vec::new();
        for (n, customer) in customers.iter().enumerate() {
            match Permit::take(&node, &gauge, customer) {
                Ok(permit) => permits.push(permit),
                Err(cause) => assert_eq!((n, cause), (LEAST, "overloaded_shard")),
            }
        }
        assert_eq!(permits.len(), LEAST);
        // quick, and nearly full: more
        pace.entry(Duration::from_millis(1));
        assert!(Permit::take(&node, &gauge, &customers[LEAST]).is_ok());
        // quick, and nearly empty: what there is suffices
        permits.clear();
        let before = pace.limit;
        pace.entry(Duration::from_millis(1));
        assert_eq!(pace.limit, before);
    }
}
