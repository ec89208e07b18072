//! Closing one group while the host goes on, and forgetting one that this node no longer belongs to.
//!
//! It does not know who belongs to a group: that somebody has left it is the caller's knowledge.

use super::{Host, Opening, Shared};
use crate::checkpoint;
use crate::error::{Failure, ForgetError};
use crate::format::{self, Left};
use crate::id::GroupId;
use crate::log::group::GroupLog;
use crate::log::{MetaKey, Op};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a closed group is waited for to be let go of, a checkpoint that is being written included.
const LET_GO_WITHIN: Duration = Duration::from_secs(30);
/// Who lets go says nothing, so it is looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Host {
    /// Closes a group; the others go on. Its log and its checkpoints stay, and it can be opened again. A group that is
    /// not open is closed already. Must not be called while another call on the group is under way, or it waits for
    /// that one for some seconds.
    ///
    /// # Errors
    /// `Busy`, while it is being opened or closed elsewhere, or when a checkpoint or snapshot of it does not end within
    /// 30 s; it takes no part any more then, and the same call again goes on.
    pub async fn close_group(&self, id: GroupId) -> Result<(), ForgetError> {
        let opening = self.shared.take_up(id)?;
        opening.close().await
    }

    /// Closes a group and durably marks it as one that is being forgotten: it cannot be opened until
    /// [`Host::forget_group`] has ended. For who has something of its own to delete first. The caller answers for the
    /// same as there.
    ///
    /// # Errors
    /// As [`Host::close_group`]; a host that has stopped.
    pub async fn mark_forgotten(&self, id: GroupId) -> Result<(), ForgetError> {
        let opening = self.shared.take_up(id)?;
        opening.close().await?;
        opening.mark().await
    }

    /// Groups whose forgetting was begun and not ended.
    pub fn half_forgotten(&self) -> Vec<GroupId> {
        let log = &self.shared.seams.log;
        let mut groups = log.groups();
        groups.retain(|id| log.meta(*id, MetaKey::Forgetting).is_some());
        groups
    }

    /// Closes a group and durably deletes its log and its checkpoints; of the machine's own history nothing is touched. Of
    /// a group that is not there, nothing is left to delete. [`Host::join_group`] begins it anew afterwards; a few bytes
    /// stay that say up to where its log went and how it voted last, for an old member may still count on both.
    ///
    /// Restartable: after an error or a crash the same call goes on, and until it has ended the group cannot be opened
    /// ([`crate::OpenError::HalfForgotten`]); [`Host::stored_groups`] still names it.
    ///
    /// The caller answers for it that this node has been removed from the group, by a change that is committed
    /// ([`crate::Group::change_voters`], [`crate::Group::remove_learner`]): its log no longer counts for the majorities
    /// that it was part of. Acknowledged entries could be lost.
    ///
    /// # Errors
    /// As [`Host::close_group`]; a log that cannot be read; the checkpoint store refused; a host that has stopped.
    pub async fn forget_group(&self, id: GroupId) -> Result<(), ForgetError> {
        let opening = self.shared.take_up(id)?;
        // A task of its own: what has begun goes on when nobody waits any more.
        let forgetting = tokio::spawn(async move {
            opening.close().await?;
            opening.forget().await
        });
        forgetting.await.unwrap_or_else(|ended| {
            Err(ForgetError::Busy {
                group: id,
                why: ended.to_string(),
            })
        })
    }
}

impl Shared {
    fn take_up(self: &Arc<Self>, id: GroupId) -> Result<Opening, ForgetError> {
        Opening::of(self, id).ok_or_else(|| ForgetError::Busy {
            group: id,
            why: "it is being opened or closed".to_owned(),
        })
    }
}

impl Opening {
    /// Closes the group if it is open. It stays known until nothing uses it, so that nobody opens it beside.
    async fn close(&self) -> Result<(), ForgetError> {
        let Some(group) = self.shared.group(self.id) else {
            return Ok(());
        };
        group.close().await;
        let until = Instant::now() + LET_GO_WITHIN;
        while let Some(why) = group.in_use() {
            if Instant::now() >= until {
                return Err(ForgetError::Busy {
                    group: self.id,
                    why: why.to_owned(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // A Raft that ended by itself waits no more for what it has asked of the log: written after the group is opened again,
        // it would take away what is read there. Refused, there is no log any more, and the host says so.
        drop(self.shared.writer.write_and_wait([]).await);
        self.shared.groups.lock().remove(&self.id);
        Ok(())
    }

    async fn mark(&self) -> Result<(), ForgetError> {
        let (shared, group) = (&*self.shared, self.id);
        shared.writer.drop_mark(group);
        let mark = Op::Put {
            group,
            key: MetaKey::Forgetting,
            value: vec![format::FORMAT],
        };
        let marked = shared.writer.write_and_wait([mark]).await;
        marked.map_err(ForgetError::Failed)
    }

    /// Deletes what is stored of a closed group. A mark first, so that what is half deleted is never taken for whole;
    /// the log, which has the mark, last.
    async fn forget(&self) -> Result<(), ForgetError> {
        self.mark().await?;
        let (shared, group) = (&*self.shared, self.id);
        let failed = |failure: Failure| ForgetError::Failed(failure);
        let store = shared.seams.checkpoints.clone();
        let deleted = shared.seams.running.blocking(move || {
            let deleted = checkpoint::forget(&*store, group);
            deleted.map_err(|fault| fault.what)
        });
        deleted
            .await
            .flatten()
            .map_err(|why| ForgetError::Store { group, why })?;
        let writer = shared.writer.clone();
        let log = shared
            .seams
            .running
            .blocking(move || GroupLog::open(group, writer, 0));
        let why = |why: String| ForgetError::Store { group, why };
        let log = log.await.map_err(why)?.map_err(|e| why(e.to_string()))?;
        let left = log.leave();
        let mut ops = vec![Op::Clean { group }];
        if left != Left::default() {
            let value = format::encode_left(&left);
            ops.push(Op::Put {
                group,
                key: MetaKey::Left,
                value,
            });
        }
        let _freeing = shared.freeing.lock().await;
        let cleaned = shared.writer.write_and_wait(ops).await;
        cleaned.map_err(failed)?;
        tracing::info!(%group, "a group was forgotten");
        Ok(())
    }
}
