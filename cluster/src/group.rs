//! A group: entries are proposed to it, reads are confirmed by it, and it says who owns it.
//!
//! The one module, with its neighbours, that knows openraft. It does not know what is proposed.

mod listening;
mod members;
mod role;
mod serving;
mod transfer;
pub(crate) mod windows;

pub use members::{MemberError, Members};
pub use transfer::TransferError;

use crate::bugs::{self, Bug};
use crate::error::{CheckpointError, Failure, ProposeError};
use crate::id::{GroupId, NodeId, Position};
use crate::log::group::GroupLog;
use crate::machine::EntryKind;
use crate::replica::{Opened, Replica};
use crate::stats::GroupFigures;
use crate::transport::Transport;
use crate::types::{LogId, Proposal, Raft};
use bytes::Bytes;
use openraft::error::{CheckIsLeaderError, RaftError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// openraft is waited for this long to take note of a checkpoint; if it does not, the log is purged after the next one.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// Leadership that a majority has not confirmed is asked for again this much later.
const CONFIRM_RETRY: Duration = Duration::from_millis(20);
/// Confirming leadership for reads takes at most this long; then it begins anew for those who still wait.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// Closing waits this long for openraft's tasks to let go of the files.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);

/// What this node is to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It follows, listens, stands for election, or leads and no majority answers it.
    Follower {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// It leads, but its barrier is not applied yet: nothing may be decided.
    Leading,
    /// It owns the group: its barrier, proposed since it last became leader, is applied.
    Owner {
        /// The term of its leadership.
        term: u64,
        /// This node.
        node: NodeId,
        /// Unique in this process: no two times of owning any group have the same.
        epoch: u64,
    },
    /// The replica has stopped; it does not come back in this process.
    Closed {
        /// Why.
        reason: String,
    },
}

/// An entry that was applied on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Where it is in the log.
    pub at: Position,
    /// What the machine answered; empty for barriers and no-ops.
    pub reply: Bytes,
}

type ReadAnswer = oneshot::Sender<Result<Position, ProposeError>>;

/// Reads that wait; one round of confirmation answers all that came before it began.
#[derive(Default)]
struct Reads {
    waiting: Vec<ReadAnswer>,
    under_way: bool,
}

impl Reads {
    fn add(&mut self, reader: ReadAnswer) {
        if self.waiting.len() == self.waiting.capacity() {
            // Before more room is made: a confirmation may take longer than its readers wait.
            self.waiting.retain(|reader| !reader.is_closed());
        }
        self.waiting.push(reader);
    }
}

/// Counts a proposal while it lives.
struct Proposing<'a>(&'a watch::Sender<usize>);

impl Proposing<'_> {
    fn begin(count: &watch::Sender<usize>) -> Proposing<'_> {
        count.send_modify(|n| *n += 1);
        Proposing(count)
    }
}

impl Drop for Proposing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

pub(crate) enum Request {
    /// Make a checkpoint if one is due.
    Due(GroupId),
    /// Make one now, and tell.
    Now(
        GroupId,
        oneshot::Sender<Result<Option<Position>, CheckpointError>>,
    ),
}

/// What a group needs of its host.
pub(crate) struct GroupSettings {
    pub node: NodeId,
    pub max_entry_bytes: usize,
    pub keep_log_bytes: u64,
    pub keep_log_bytes_alone: u64,
    /// For how many heartbeats it listens before it stands for election.
    pub listens: u32,
}

pub(crate) struct GroupInner {
    id: GroupId,
    raft: Raft,
    replica: Arc<Replica>,
    log: GroupLog,
    role: watch::Sender<Role>,
    reads: Mutex<Reads>,
    requests: mpsc::UnboundedSender<Request>,
    /// Why the host has stopped, once it has.
    failed: watch::Receiver<Option<Failure>>,
    /// A request for a checkpoint is queued.
    pub(crate) asked: Arc<AtomicBool>,
    settings: GroupSettings,
    opened: Opened,
    closing: AtomicBool,
    /// The log is being purged behind a checkpoint.
    purging: AtomicBool,
    transport: Arc<dyn Transport>,
    /// To whom the leadership is being transferred: nothing new is proposed meanwhile.
    transferring: watch::Sender<Option<NodeId>>,
    /// How many proposals have been let through and have not ended.
    proposing: watch::Sender<usize>,
    /// How many reasons there are not to stand for election.
    held_back: AtomicUsize,
    /// Whether it stands for election.
    campaigns: Mutex<bool>,
    /// It has come back and does not know yet whether somebody leads.
    listening: AtomicBool,
    /// It stands at the moment, in place of one that had less.
    standing: AtomicBool,
    /// When this node last became leader.
    led_since: Mutex<Instant>,
    /// When the leader last sent something that this node took.
    heard: Mutex<Option<Instant>>,
}

/// A group that is open on this node. Clones are the same group.
#[derive(Clone)]
pub struct Group {
    inner: Arc<GroupInner>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.inner.id)
            .field("role", &*self.inner.role.borrow())
            .finish()
    }
}

impl Group {
    #[allow(clippy::too_many_arguments)] // one call, in the host, of parts that it has just made
    pub(crate) fn start(
        id: GroupId,
        raft: Raft,
        replica: Arc<Replica>,
        log: GroupLog,
        requests: mpsc::UnboundedSender<Request>,
        asked: Arc<AtomicBool>,
        failed: watch::Receiver<Option<Failure>>,
        settings: GroupSettings,
        opened: Opened,
        transport: Arc<dyn Transport>,
    ) -> Group {
        let listens = settings.listens;
        let inner = Arc::new(GroupInner {
            id,
            raft,
            replica,
            log,
            role: watch::Sender::new(Role::Follower { leader: None }),
            reads: Mutex::default(),
            requests,
            failed,
            asked,
            settings,
            opened,
            closing: AtomicBool::new(false),
            purging: AtomicBool::new(false),
            transport,
            transferring: watch::Sender::new(None),
            proposing: watch::Sender::new(0),
            held_back: AtomicUsize::new(0),
            campaigns: Mutex::new(true),
            listening: AtomicBool::new(listens > 0),
            standing: AtomicBool::new(false),
            led_since: Mutex::new(Instant::now()),
            heard: Mutex::new(None),
        });
        inner.campaign_if_whole();
        if listens > 0 {
            tokio::spawn(listening::listen(Arc::downgrade(&inner), listens));
        }
        tokio::spawn(role::watch_role(inner.clone()));
        Group { inner }
    }

    /// Which group.
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// What this node is to the group, now and whenever it changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.inner.role.subscribe()
    }

    /// The last entry applied on this node, now and whenever it changes.
    pub fn applied(&self) -> watch::Receiver<Option<Position>> {
        self.inner.replica.applied().subscribe()
    }

    /// How old what this replica shows may be: of a leader, the time since a majority last answered it; of any other, the
    /// time since its leader last sent it something. `None`: it has heard of nobody since it was opened.
    pub fn age(&self) -> Option<Duration> {
        let metrics = self.inner.raft.metrics();
        let (leads, alone, acked) = {
            let metrics = metrics.borrow();
            let alone = metrics.membership_config.voter_ids().count() <= 1;
            let leads = metrics.state == openraft::ServerState::Leader;
            (leads, alone, metrics.millis_since_quorum_ack)
        };
        if !leads {
            return self.inner.heard.lock().map(|heard| heard.elapsed());
        }
        if alone {
            return Some(Duration::ZERO);
        }
        acked.map(Duration::from_millis)
    }

    /// Whether this replica stands for election when nobody leads: not while its history has gaps or a snapshot comes, nor,
    /// when it was opened again, before it has heard of a leader or listened for some two seconds.
    pub fn campaigns(&self) -> bool {
        *self.inner.campaigns.lock()
    }

    /// From where the replica had its state when it was opened.
    pub fn opened(&self) -> &Opened {
        &self.inner.opened
    }

    /// Proposes an entry and waits until it is applied here. Only the owner may.
    ///
    /// Entries are ordered by when these futures are first polled.
    ///
    /// # Errors
    /// `NotOwner`, `TooLarge`, `Closed`: known not to be in the log. `Unknown`: everything else, a passed `deadline` included.
    pub async fn propose(
        &self,
        kind: EntryKind,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Proposed, ProposeError> {
        let inner = &*self.inner;
        // Counted before it is asked whether the leadership is being transferred: a transfer waits for what was let
        // through, or it would be cut off with the log of the leader that was.
        let _proposing = Proposing::begin(&inner.proposing);
        inner.must_own()?;
        let limit = inner.settings.max_entry_bytes;
        if body.len() > limit {
            return Err(ProposeError::TooLarge {
                bytes: body.len(),
                limit,
            });
        }
        // From here on, every outcome but `applied` is unknown: even "forward to leader" is said of entries that
        // another leader may still commit.
        let unknown = |why: String| ProposeError::Unknown { why };
        match tokio::time::timeout_at(deadline, inner.raft.client_write(Proposal { kind, body }))
            .await
        {
            Ok(Ok(written)) => Ok(Proposed {
                at: written.log_id.into(),
                reply: written.data.0,
            }),
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(_) => Err(unknown("not applied before the deadline".to_owned())),
        }
    }

    /// Confirms that this node still leads, and waits until everything committed before this call is applied here.
    /// A read of the machine after it is linearizable. Reads that come together share one confirmation.
    ///
    /// # Errors
    /// `NotOwner`, `Closed`; `Unknown` when leadership could not be confirmed before `deadline`.
    pub async fn read_index(&self, deadline: Instant) -> Result<Position, ProposeError> {
        self.inner.must_own()?;
        if bugs::has(Bug::StaleRead)
            && let Some(at) = *self.inner.replica.applied().borrow()
        {
            return Ok(at);
        }
        let (tx, rx) = oneshot::channel();
        let begin = {
            let mut reads = self.inner.reads.lock();
            reads.add(tx);
            !std::mem::replace(&mut reads.under_way, true)
        };
        if begin {
            tokio::spawn(confirm_reads(self.inner.clone()));
        }
        match tokio::time::timeout_at(deadline, rx).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ProposeError::Unknown {
                why: "the group is closing".to_owned(),
            }),
            Err(_) => Err(ProposeError::Unknown {
                why: "leadership was not confirmed before the deadline".to_owned(),
            }),
        }
    }

    /// Asks for a checkpoint of everything applied; answers what it covers.
    pub fn checkpoint_now(&self) -> oneshot::Receiver<Result<Option<Position>, CheckpointError>> {
        let (tx, rx) = oneshot::channel();
        if let Err(refused) = self.inner.requests.send(Request::Now(self.inner.id, tx))
            && let Request::Now(_, tx) = refused.0
        {
            // The receiver may be gone; then nobody wants to know.
            drop(tx.send(Err(CheckpointError::Closed)));
        }
        rx
    }

    /// Figures of this group.
    pub fn figures(&self) -> GroupFigures {
        let replica = self.inner.replica.figures();
        GroupFigures {
            group: self.inner.id,
            first_index: self.inner.log.purged().map(|id| id.index + 1),
            last_index: self.inner.log.last().map(|id| id.index),
            applied_index: replica.applied.map(|id| id.index),
            checkpoint_index: replica.checkpoint.map(|id| id.index),
            checkpoint_bytes: replica.checkpoint_bytes,
            checkpoint_took: replica.checkpoint_took,
            checkpoints: replica.checkpoints,
            checkpoint_failed: replica.checkpoint_failed,
            replay_bytes: replica.replay_bytes,
            waiting_bytes: replica.waiting_bytes,
            held_back: replica.held_back,
        }
    }

    /// Stops taking part. What is applied stays; the log and the checkpoints are kept. Must not be called while another
    /// call on this group is under way, or it waits for that one for some seconds.
    pub async fn close(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.replica.end();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = %self.inner.id, %error, "a group did not end in order");
        }
        self.closed().await;
        // openraft's tasks let go of the log and the replica a moment after they have ended; until then the files are in
        // use. They say nothing when they do, so it is looked for.
        let until = Instant::now() + LET_GO_WITHIN;
        while (Arc::strong_count(&self.inner.replica) > 1 || !self.inner.log.is_let_go())
            && Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the group is closed on this node.
    pub(crate) async fn closed(&self) {
        let mut role = self.inner.role.subscribe();
        // Cannot fail: the sender is in `inner`.
        drop(
            role.wait_for(|role| matches!(role, Role::Closed { .. }))
                .await,
        );
    }

    /// Of a closed group: what still uses it in this process; `None` when nothing does.
    pub(crate) fn in_use(&self) -> Option<&'static str> {
        if Arc::strong_count(&self.inner.replica) > 1 || !self.inner.log.is_let_go() {
            return Some("its tasks have not ended yet");
        }
        self.inner.replica.let_go_of_store()
    }

    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.inner.replica
    }

    pub(crate) fn asked(&self) -> &AtomicBool {
        &self.inner.asked
    }

    /// Makes a checkpoint, tells openraft of it, and purges the log that it covers.
    pub(crate) async fn checkpoint(&self) -> Result<Option<Position>, CheckpointError> {
        let covered = self.inner.replica.checkpoint().await?;
        if let Some(covered) = covered
            && !self.inner.purging.swap(true, Ordering::AcqRel)
        {
            // Beside, not before the next checkpoint: openraft takes note of this one between two batches of applying,
            // and applying may be waiting for the next one.
            let inner = self.inner.clone();
            tokio::spawn(async move {
                inner.purge(covered).await;
                inner.purging.store(false, Ordering::Release);
            });
        }
        Ok(covered.map(Position::from))
    }
}

impl GroupInner {
    fn must_own(&self) -> Result<(), ProposeError> {
        if let Some(failure) = &*self.failed.borrow() {
            return Err(ProposeError::Closed {
                reason: failure.to_string(),
            });
        }
        if let Some(target) = *self.transferring.borrow() {
            return Err(ProposeError::NotOwner {
                leader: Some(target),
            });
        }
        match &*self.role.borrow() {
            Role::Owner { .. } => Ok(()),
            Role::Leading => Err(ProposeError::NotOwner {
                leader: Some(self.settings.node),
            }),
            Role::Follower { leader } => Err(ProposeError::NotOwner { leader: *leader }),
            Role::Closed { reason } => Err(ProposeError::Closed {
                reason: reason.clone(),
            }),
        }
    }

    async fn purge(&self, covered: LogId) {
        let metrics = self.raft.metrics();
        let alone = metrics.borrow().membership_config.nodes().count() <= 1;
        let keep = if alone {
            self.settings.keep_log_bytes_alone
        } else {
            self.settings.keep_log_bytes
        };
        let upto = self.log.purge_upto(covered.index, keep);
        if self.log.purged().is_some_and(|purged| purged.index >= upto) || (upto == 0 && keep > 0) {
            return;
        }
        // openraft purges only what a snapshot that it knows of covers.
        let known = async {
            let mut metrics = self.raft.metrics();
            let mut asked = false;
            while metrics.borrow_and_update().snapshot < Some(covered) {
                // Asked once: metrics change for many reasons, and each further request would make a checkpoint more.
                if !asked && self.replica.reported() < Some(covered) {
                    asked = true;
                    self.raft
                        .trigger()
                        .snapshot()
                        .await
                        .map_err(|e| e.to_string())?;
                }
                metrics.changed().await.map_err(|e| e.to_string())?;
            }
            self.raft
                .trigger()
                .purge_log(upto)
                .await
                .map_err(|e| e.to_string())
        };
        match tokio::time::timeout(SETTLE_WITHIN, known).await {
            Ok(Ok(())) => {}
            // A group that is closing purges when it is open again.
            Ok(Err(_)) if self.closing.load(Ordering::Acquire) => {}
            Ok(Err(why)) => tracing::warn!(group = %self.id, %why, "the log was not purged"),
            Err(_) => {
                tracing::warn!(group = %self.id, "the log was not purged in time; the next checkpoint tries again")
            }
        }
    }

    async fn confirm(&self) -> Result<Position, ProposeError> {
        let unknown = |why: String| ProposeError::Unknown { why };
        let confirmed = loop {
            match self.raft.ensure_linearizable().await {
                Ok(confirmed) => break confirmed,
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                    return Err(ProposeError::NotOwner {
                        leader: forward.leader_id,
                    });
                }
                // openraft waits for one interval of heartbeats only; a read may wait longer.
                Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                    tokio::time::sleep(CONFIRM_RETRY).await;
                    self.must_own()?;
                }
                Err(RaftError::Fatal(error)) => return Err(unknown(error.to_string())),
            }
        };
        let id = confirmed.ok_or_else(|| unknown("the group has no entry yet".to_owned()))?;
        // openraft's own note of what is applied may run ahead of what readers are told; wait for the latter.
        let mut applied = self.replica.applied().subscribe();
        let seen = applied
            .wait_for(|at| at.is_some_and(|at| at.index >= id.index))
            .await;
        seen.map(|at| at.unwrap_or_else(|| id.into()))
            .map_err(|e| unknown(e.to_string()))
    }
}

async fn confirm_reads(inner: Arc<GroupInner>) {
    loop {
        let waiting = {
            let mut reads = inner.reads.lock();
            if reads.waiting.is_empty() {
                reads.under_way = false;
                return;
            }
            std::mem::take(&mut reads.waiting)
        };
        let answer = tokio::time::timeout(CONFIRM_WITHIN, inner.confirm()).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(ProposeError::Unknown {
                why: "leadership was not confirmed in time".to_owned(),
            })
        });
        for reader in waiting {
            // A reader whose deadline has passed is gone.
            drop(reader.send(answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_have_gone_take_no_room() {
        let mut reads = Reads::default();
        let staying: Vec<_> = (0..10_000)
            .filter_map(|n| {
                let (tx, rx) = oneshot::channel();
                reads.add(tx);
                (n % 1000 == 0).then_some(rx)
            })
            .collect();
        assert!(reads.waiting.len() < 100, "{} wait", reads.waiting.len());
        let there = reads.waiting.iter().filter(|tx| !tx.is_closed()).count();
        assert_eq!(there, staying.len());
    }
}
