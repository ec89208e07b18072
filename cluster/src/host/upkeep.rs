//! The regular care of a host: checkpoints that are due, commit marks of an idle log, old log files.
//!
//! Knows when, not how: the making is the group's, the freeing the log's.

use super::Shared;
use crate::error::{CheckpointError, OpenError};
use crate::group::Request;
use crate::seam::Running;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Commit marks of a log that has become idle are written after this long.
const MARKS_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked which checkpoints are due by time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failed checkpoint, the next one waits this long: the disk needs a moment, or an operator.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Wakes or ends the thread that frees old log files.
#[derive(Default)]
pub(super) struct PurgeSignal {
    pub(super) ended: Mutex<bool>,
    pub(super) changed: Condvar,
}

/// Makes the checkpoints that are asked for, one at a time: sled and the disk would only share.
pub(super) async fn make_checkpoints(
    shared: Weak<Shared>,
    mut requested: mpsc::UnboundedReceiver<Request>,
) {
    while let Some(request) = requested.recv().await {
        let (id, tell) = match request {
            Request::Due(id) => (id, None),
            Request::Now(id, tell) => (id, Some(tell)),
        };
        let Some(group) = shared.upgrade().and_then(|shared| shared.group(id)) else {
            if let Some(tell) = tell {
                drop(tell.send(Err(CheckpointError::Closed)));
            }
            continue;
        };
        group.asked().store(false, Ordering::Release);
        let result = group.checkpoint().await;
        let failed = result.is_err();
        if let Some(tell) = tell {
            drop(tell.send(result));
        }
        if failed {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

/// The regular care of a host: commit marks of an idle log, checkpoints due by time.
pub(super) async fn look_after(shared: Weak<Shared>) {
    let mut marks = tokio::time::interval(MARKS_EVERY);
    marks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looked = tokio::time::Instant::now();
    let mut purged = looked;
    loop {
        marks.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.writer.write_marks();
        if looked.elapsed() >= LOOK_EVERY {
            looked = tokio::time::Instant::now();
            shared.look();
        }
        if matches!(shared.seams.running, Running::Tasks { .. })
            && purged.elapsed() >= shared.cfg.purge_every
        {
            purged = tokio::time::Instant::now();
            purge_once(&shared);
        }
    }
}

/// Frees old log files, and asks for checkpoints of the groups that hold on to them.
fn purge_once(shared: &Shared) {
    if shared.failed.borrow().is_some() {
        return;
    }
    // Rarely held, and then not for long: the next time will do.
    let Ok(_freeing) = shared.freeing.try_lock() else {
        return;
    };
    match shared.seams.log.purge_expired() {
        Ok(groups) => {
            for group in groups.into_iter().filter_map(|id| shared.group(id)) {
                let (tx, _) = tokio::sync::oneshot::channel();
                if !group.asked().swap(true, Ordering::AcqRel) {
                    drop(shared.requests.send(Request::Now(group.id(), tx)));
                }
            }
        }
        Err(error) => shared.writer.give_up(&error.what),
    }
}

/// On a thread of its own, not one of the runtime's: rewriting takes long, and after a failed fsync may never return.
pub(super) fn start_purging(shared: &Arc<Shared>) -> Result<Option<JoinHandle<()>>, OpenError> {
    if matches!(shared.seams.running, Running::Tasks { .. }) {
        return Ok(None);
    }
    let (weak, signal, every) = (
        Arc::downgrade(shared),
        shared.purge.clone(),
        shared.cfg.purge_every,
    );
    let run = move || {
        loop {
            let mut ended = signal.ended.lock();
            if !*ended {
                signal.changed.wait_for(&mut ended, every);
            }
            if *ended {
                return;
            }
            drop(ended);
            let Some(shared) = weak.upgrade() else { return };
            purge_once(&shared);
        }
    };
    let started = std::thread::Builder::new()
        .name("sojourn-purge".to_owned())
        .spawn(run);
    started.map(Some).map_err(|e| {
        OpenError::io(
            "starting the thread that frees log files",
            shared.seams.log.place(),
            e,
        )
    })
}
