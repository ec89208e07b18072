//! A replica that comes back does not know whether somebody leads, and if it stood for election, it would unseat whoever
//! does. So it listens first.
//!
//! It does not know how elections go.

use super::{GroupInner, windows};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Lets a replica that is held back stand for election once it has heard of a leader, or has listened for so many
/// heartbeats.
///
/// They are counted, and the time is not measured: a machine that is too busy with starting to run this is too busy to
/// hear a leader, too.
pub(super) async fn listen(group: Weak<GroupInner>, beats: u32) {
    let heartbeat = Duration::from_millis(windows::HEARTBEAT_MS);
    let mut ticks = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deaf = || group.upgrade().is_some_and(|g| g.heard.lock().is_none());
    for _ in 0..beats {
        ticks.tick().await;
        if !deaf() {
            break;
        }
    }
    if let Some(group) = group.upgrade() {
        group.stands_again();
    }
}
