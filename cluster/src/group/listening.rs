//! A replica that comes back does not know whether somebody leads, and if it stood for election, it would unseat whoever
//! does. So it listens first.
//!
//! It does not know how elections go.

use super::{GroupInner, windows};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

impl GroupInner {
    /// It listens no longer: it has heard of a leader, or long enough of nobody.
    pub(super) fn has_listened(&self) {
        if self.listening.load(Ordering::Acquire) && self.listening.swap(false, Ordering::AcqRel) {
            self.campaign_if_whole();
        }
    }

    /// There is nobody to listen to.
    fn is_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let members = metrics.borrow().membership_config.clone();
        members.voter_ids().eq([self.settings.node])
    }
}

/// Ends the listening of a replica that has heard of nobody for so many heartbeats.
///
/// They are counted, and the time is not measured: a machine that is too busy with starting to run this is too busy to
/// hear a leader, too.
pub(super) async fn listen(group: Weak<GroupInner>, beats: u32) {
    let heartbeat = Duration::from_millis(windows::HEARTBEAT_MS);
    let mut ticks = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..beats {
        ticks.tick().await;
        let Some(group) = group.upgrade() else { return };
        if !group.listening.load(Ordering::Acquire) {
            return;
        }
        if group.is_alone() {
            break;
        }
    }
    if let Some(group) = group.upgrade() {
        group.has_listened();
    }
}
