//! What a host counts, for metrics and for the curious.
//!
//! This module does not know how the figures are shown.

use crate::id::GroupId;
use crate::log::Op;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of the fsync histogram, in microseconds; a last bucket takes what is slower.
pub const SYNC_BUCKETS_US: [u64; 15] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600,
    1_000_000,
];

/// The running counts of a log.
#[derive(Debug, Default)]
pub(crate) struct LogStats {
    syncs: AtomicU64,
    appends: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    sync_us: AtomicU64,
    buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
}

impl LogStats {
    pub(crate) fn wrote(&self, ops: &[Op], took: Duration) {
        let (mut appends, mut count, mut bytes) = (0, 0, 0);
        for op in ops {
            if let Op::Append { entries, .. } = op {
                appends += 1;
                count += entries.len() as u64;
                bytes += entries.iter().map(|e| e.len() as u64).sum::<u64>();
            }
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = SYNC_BUCKETS_US.partition_point(|bound| *bound < us);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.appends.fetch_add(appends, Ordering::Relaxed);
        self.entries.fetch_add(count, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sync_us.fetch_add(us, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> LogFigures {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        LogFigures {
            syncs: load(&self.syncs),
            appends: load(&self.appends),
            entries: load(&self.entries),
            bytes: load(&self.bytes),
            sync_us: load(&self.sync_us),
            sync_buckets: std::array::from_fn(|i| load(&self.buckets[i])),
            used_bytes: 0,
        }
    }
}

/// What the log has done since the host was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Writes, each with its fsync.
    pub syncs: u64,
    /// Appends that they carried; above `syncs`, the groups share fsyncs.
    pub appends: u64,
    /// Entries that they carried.
    pub entries: u64,
    /// Bytes of those entries.
    pub bytes: u64,
    /// Microseconds spent writing and syncing.
    pub sync_us: u64,
    /// Writes by duration: up to [`SYNC_BUCKETS_US`], and slower.
    pub sync_buckets: [u64; SYNC_BUCKETS_US.len() + 1],
    /// Bytes of log files on disk.
    pub used_bytes: u64,
}

/// One group, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFigures {
    /// Which.
    pub group: GroupId,
    /// The index of the first entry that is still in its log, once any was purged.
    pub first_index: Option<u64>,
    /// The index of the last entry in its log.
    pub last_index: Option<u64>,
    /// The index of the last entry applied.
    pub applied_index: Option<u64>,
    /// The index that the last completed checkpoint covers.
    pub checkpoint_index: Option<u64>,
    /// Bytes of that checkpoint as stored.
    pub checkpoint_bytes: u64,
    /// How long the last checkpoint took.
    pub checkpoint_took: Duration,
    /// Checkpoints completed since the host was opened.
    pub checkpoints: u64,
    /// Why the last checkpoint failed, if it did.
    pub checkpoint_failed: Option<String>,
    /// Bytes of entries applied since the last cut: what a restart would replay.
    pub replay_bytes: u64,
    /// Bytes of history that wait for a checkpoint.
    pub waiting_bytes: u64,
    /// Whether applying waits for a checkpoint; no new work should be admitted.
    pub held_back: bool,
}

/// A host, now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostStats {
    /// The log.
    pub log: LogFigures,
    /// The open groups, by number.
    pub groups: Vec<GroupFigures>,
    /// Bytes of the checkpoint store on disk.
    pub checkpoint_disk_bytes: u64,
}
