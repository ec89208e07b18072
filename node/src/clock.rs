//! The one place where the node reads a clock.

use sojourn_journey::time::Time;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, microseconds UTC.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}

/// The clock that a shard goes by.
#[derive(Clone, Default)]
pub enum Clock {
    /// The wall clock of this machine.
    #[default]
    Wall,
    /// A clock of somebody else's: that of a simulated world.
    Given(Arc<dyn Fn() -> Time + Send + Sync>),
}

impl Clock {
    /// What it shows, microseconds UTC.
    pub fn now(&self) -> Time {
        match self {
            Clock::Wall => wall(),
            Clock::Given(clock) => clock(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clock::Wall => "Wall",
            Clock::Given(_) => "Given",
        })
    }
}
