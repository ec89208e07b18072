//! Making checkpoints of a replica, and handing the last one to whoever needs a snapshot.
//!
//! It does not know when one is due.

use super::{HANGS_AFTER, Replica, shown};
use crate::checkpoint::{self, CheckpointStore, Pins};
use crate::error::{CheckpointError, panic_text};
use crate::format::{self, Cover, Covering, Manifest};
use crate::id::GroupId;
use crate::machine::Cut;
use crate::types::{LogId, SnapshotHandle, SnapshotMeta, TypeConfig};
use openraft::Snapshot;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

impl Replica {
    /// Makes a checkpoint of what is applied now. Answers what the last completed one covers.
    pub(crate) async fn checkpoint(&self) -> Result<Option<LogId>, CheckpointError> {
        let _one = self.one_checkpoint.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(CheckpointError::Closed);
        }
        let started = Instant::now();
        let (begun, cover, last, replay_bytes) = {
            let mut state = self.state.lock();
            let covered = state.manifest.as_ref().and_then(Covering::log_id);
            let Some(at) = state.applied else {
                return Ok(None);
            };
            if covered == Some(at) && !state.full_next {
                return Ok(covered);
            }
            let base = state.full_next || checkpoint::wants_base(state.manifest.as_ref());
            let cut = self.guard(|machine| Ok(machine.cut(at.into(), base)));
            let cover = format::cover(self.group.0, Some(at), &state.membership);
            let last = if base { None } else { state.manifest.clone() };
            state.last_try = started;
            (cut, cover, last, std::mem::take(&mut state.replay_bytes))
        };
        let written = match begun {
            Ok(cut) => self.write(cut, cover, last).await,
            Err(why) => Err(CheckpointError::Machine(why)),
        };
        let result = {
            let mut state = self.state.lock();
            match written {
                Ok(manifest) => {
                    let at = manifest.log_id();
                    state.manifest = Some(manifest);
                    state.full_next = false;
                    state.completed += 1;
                    state.took = started.elapsed();
                    state.failed = None;
                    Ok(at)
                }
                Err(error) => {
                    state.replay_bytes += replay_bytes;
                    match &error {
                        CheckpointError::Damaged(why) => {
                            self.store.condemn(why);
                            state.full_next = true;
                        }
                        // How far it came is not known, so neither is what it would give as a delta.
                        CheckpointError::Machine(_) => state.full_next = true,
                        CheckpointError::History(_)
                        | CheckpointError::Store(_)
                        | CheckpointError::Closed => {}
                    }
                    state.failed = Some(error.to_string());
                    tracing::error!(group = %self.group, %error, "a checkpoint failed; the log is kept and it is tried again");
                    Err(error)
                }
            }
        };
        self.attempts.send_modify(|n| *n += 1);
        if result.is_ok() {
            self.delete_old().await;
        }
        result
    }

    /// Writes a cut where blocking is allowed; a store that never answers stops the host.
    async fn write(
        &self,
        cut: Box<dyn Cut>,
        cover: Cover,
        last: Option<Manifest>,
    ) -> Result<Manifest, CheckpointError> {
        let (store, group, pins) = (self.store.clone(), self.group, self.pins.clone());
        let writing = self
            .running
            .blocking(move || write_cut(&*store, &pins, group, cover, last, cut));
        match tokio::time::timeout(HANGS_AFTER, writing).await {
            Ok(Ok(written)) => written,
            Ok(Err(why)) => Err(CheckpointError::Machine(why)),
            Err(_) => {
                let what = format!(
                    "the checkpoint of {group} in {} has not ended within {} s: its store hangs",
                    self.store.place(),
                    HANGS_AFTER.as_secs()
                );
                (self.give_up)(&what);
                Err(CheckpointError::Store(what))
            }
        }
    }

    /// Removes the generations that the last checkpoint does not name. Only now: whoever was handed the one before holds
    /// it, and nobody is handed it any more.
    pub(super) async fn delete_old(&self) {
        let Some(manifest) = self.state.lock().manifest.clone() else {
            return;
        };
        let (store, group, pins) = (self.store.clone(), self.group, self.pins.clone());
        let deleted = self
            .running
            .blocking(move || checkpoint::delete_old(&*store, &pins, group, &manifest));
        let failed = match tokio::time::timeout(HANGS_AFTER, deleted).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(why)) => why,
            Err(_) => "the store hangs".to_owned(),
        };
        tracing::warn!(group = %self.group, why = %failed, "old chunks could not be removed; the next checkpoint tries again");
    }

    pub(super) fn snapshot(&self) -> Option<Snapshot<TypeConfig>> {
        let state = self.state.lock();
        let manifest = state.manifest.clone()?;
        let number = manifest.generations.last().map_or(0, |g| g.number);
        let meta = SnapshotMeta {
            last_log_id: manifest.log_id(),
            last_membership: manifest.stored_membership(),
            snapshot_id: format!("{}-{}-{number}", self.group.0, shown(manifest.log_id())),
        };
        // Held before the state is let go: a checkpoint that takes its place removes it only afterwards.
        let pin = self
            .pins
            .hold(manifest.generations.iter().map(|g| g.number));
        let handle = SnapshotHandle {
            manifest: Some(manifest),
            store: self.store.clone(),
            machine: Some(self.machine.clone()),
            _pin: Some(Arc::new(pin)),
            own: false,
        };
        Some(Snapshot {
            meta,
            snapshot: Box::new(handle),
        })
    }

    /// A handle on nothing.
    pub(super) fn no_snapshot(&self) -> SnapshotHandle {
        SnapshotHandle {
            manifest: None,
            store: self.store.clone(),
            machine: None,
            _pin: None,
            own: false,
        }
    }
}

/// Writes a cut and tells it how it went.
fn write_cut(
    store: &dyn CheckpointStore,
    pins: &Pins,
    group: GroupId,
    cover: Cover,
    last: Option<Manifest>,
    mut cut: Box<dyn Cut>,
) -> Result<Manifest, CheckpointError> {
    let written = catch_unwind(AssertUnwindSafe(|| {
        checkpoint::write(store, pins, group, cover, last, &mut *cut)
    }))
    .unwrap_or_else(|panic| Err(CheckpointError::Machine(panic_text(&*panic))));
    let ok = written.is_ok();
    let told = catch_unwind(AssertUnwindSafe(|| cut.done(ok)));
    let manifest = written?;
    told.map_err(|panic| CheckpointError::Machine(panic_text(&*panic)))?;
    Ok(manifest)
}
