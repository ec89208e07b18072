//! The one place where the node reads a clock.

use sojourn_journey::time::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, microseconds UTC.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}
