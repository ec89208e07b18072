//! Watches what a node stands on: the wall clock and the free disk.
//!
//! It does not know what anybody does about it: it says what it sees in the log, and keeps a mark for the doors.

use crate::folder::free_bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says when the wall clock steps: timers go by it.
pub async fn watch_clock() {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let (mut wall, mut steady) = (crate::clock::wall(), std::time::Instant::now());
    loop {
        tick.tick().await;
        let (wall_now, steady_now) = (crate::clock::wall(), std::time::Instant::now());
        let steady_micros = i64::try_from((steady_now - steady).as_micros()).unwrap_or(i64::MAX);
        let step = wall_now.since(wall).0.saturating_sub(steady_micros);
        if step.abs() > 2_000_000 {
            tracing::warn!(
                step_seconds = step / 1_000_000,
                "the wall clock stepped: timers are due by it; let the clock be slewed"
            );
        }
        (wall, steady) = (wall_now, steady_now);
    }
}

/// Looks at the free disk once a second.
pub async fn watch_disk(dir: PathBuf, least: u64, full: Arc<AtomicBool>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let Some(free) = free_bytes(&dir) else {
            continue;
        };
        let now = free < least;
        if full.swap(now, Ordering::Relaxed) != now {
            if now {
                tracing::error!(
                    free,
                    least,
                    "the disk is nearly full: no signal is admitted until there is room"
                );
            } else {
                tracing::info!(free, least, "there is room on the disk again");
            }
        }
    }
}
