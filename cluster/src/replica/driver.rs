//! A replica as openraft drives it: applying, cutting, taking a snapshot over.
//!
//! Translates between openraft's state machine interface and [`Replica`]; decides nothing itself.

use super::{RETRY_AFTER, Replica};
use crate::checkpoint;
use crate::error::CheckpointError;
use crate::format::{Covering, Manifest};
use crate::id::Position;
use crate::types::{
    Entry, LogId, Reply, SnapshotHandle, SnapshotMeta, StorageError, StorageIoError,
    StoredMembership, TypeConfig,
};
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder, Snapshot};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn snapshot_error(error: &CheckpointError) -> StorageError {
    StorageIoError::write_snapshot(None, AnyError::new(error)).into()
}

/// A replica as openraft drives it.
#[derive(Clone)]
pub struct StateMachine {
    pub(crate) replica: Arc<Replica>,
}

impl StateMachine {
    /// Takes a snapshot over into the machine and the store. A store that refuses is asked again until the group is
    /// closed: half a machine must not go on, and a group that closes itself comes back only with the node.
    async fn take_over(
        &self,
        snapshot: Arc<SnapshotHandle>,
        manifest: Manifest,
    ) -> Result<Manifest, CheckpointError> {
        let replica = &*self.replica;
        loop {
            let (of, snapshot, manifest) =
                (self.replica.clone(), snapshot.clone(), manifest.clone());
            let installed = replica.running.blocking(move || {
                let (store, pins) = (&*of.store, &of.pins);
                if snapshot.own {
                    // The machine first: a manifest is there only for what it could take.
                    of.restore(&manifest).map_err(CheckpointError::from)?;
                    checkpoint::finish(store, of.group, &manifest)?;
                    return Ok(manifest);
                }
                let copied = checkpoint::copy(&*snapshot.store, store, pins, of.group, &manifest)?;
                of.restore(&copied).map_err(CheckpointError::from)?;
                Ok(copied)
            });
            let installed = installed.await.map_err(CheckpointError::Machine).flatten();
            match installed {
                Err(CheckpointError::Store(why)) if !*replica.ending.borrow() => {
                    tracing::warn!(group = %replica.group, %why, "a snapshot cannot be taken over yet; trying again");
                    let mut ending = replica.ending();
                    let ended = ending.wait_for(|ending| *ending);
                    drop(tokio::time::timeout(RETRY_AFTER, ended).await);
                }
                installed => return installed,
            }
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        // Usually a checkpoint was completed and openraft only has to hear of it; if not, one is made now.
        let unreported = {
            let state = self.replica.state.lock();
            state.manifest.as_ref().and_then(Covering::log_id) > state.reported
        };
        if !unreported {
            self.replica
                .checkpoint()
                .await
                .map_err(|e| snapshot_error(&e))?;
        }
        let snapshot = self.replica.snapshot().unwrap_or_else(|| Snapshot {
            meta: SnapshotMeta::default(),
            snapshot: Box::new(self.replica.no_snapshot()),
        });
        self.replica.state.lock().reported = snapshot.meta.last_log_id;
        Ok(snapshot)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let state = self.replica.state.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let replica = &*self.replica;
        replica.wait_for_room().await;
        let (replies, applied) = {
            // A cut takes this lock, so it falls between two entries.
            let mut state = replica.state.lock();
            let mut replies = Vec::new();
            for entry in entries {
                replies.push(replica.apply_entry(&mut state, entry)?);
            }
            (replies, state.applied)
        };
        replica.applied.send_replace(applied.map(Position::from));
        if replica.live.load(Ordering::Relaxed) && replica.is_due(Duration::MAX) {
            (replica.ask)();
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotHandle>, StorageError> {
        Ok(Box::new(self.replica.no_snapshot()))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotHandle>,
    ) -> Result<(), StorageError> {
        let replica = &*self.replica;
        let _one = replica.one_checkpoint.lock().await;
        let manifest = match snapshot.manifest.clone() {
            None => None,
            Some(manifest) => {
                let installed = self.take_over(Arc::from(snapshot), manifest).await;
                Some(installed.map_err(|e| {
                    if !*replica.ending.borrow() {
                        let why =
                            format!("a snapshot of {} cannot be taken over: {e}", replica.group);
                        *replica.broken.lock() = Some(why);
                        // the log waits for this snapshot, and would for ever
                        replica.end();
                    }
                    snapshot_error(&e)
                })?)
            }
        };
        {
            let mut state = replica.state.lock();
            state.applied = meta.last_log_id;
            state.membership = meta.last_membership.clone();
            state.reported = meta.last_log_id;
            state.manifest = manifest;
            state.replay_bytes = 0;
            state.full_next = false;
        }
        replica.delete_old().await;
        replica
            .applied
            .send_replace(meta.last_log_id.map(Position::from));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        Ok(self.replica.snapshot())
    }
}
