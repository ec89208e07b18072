//! A replica: a machine that follows its group's log, is cut into checkpoints and comes back from them.
//!
//! Knows openraft's state machine interface; does not know who leads, nor what entries mean.

mod driver;
mod making;

pub use driver::StateMachine;

use crate::checkpoint::{self, CheckpointStore, Pins, Received, StoreFault};
use crate::error::{CheckpointError, OpenError, panic_text, todo};
use crate::format::{self, Covering, Manifest};
use crate::id::{GroupId, Position};
use crate::log::group::GroupLog;
use crate::machine::{EntryKind, Machine};
use crate::seam::Running;
use crate::types::{Entry, LogId, Reply, StorageError, StorageIoError, StoredMembership};
use openraft::{AnyError, EntryPayload};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Beside its body, an entry costs about this many bytes in the log.
const ENTRY_OVERHEAD: u64 = 32;
/// After a failed checkpoint, applying that waits for one tries again this much later.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// A checkpoint that takes longer hangs: sled has ways of never returning from a flush. Only a restart helps then.
const HANGS_AFTER: Duration = Duration::from_secs(600);

/// When a replica asks for a checkpoint; applying waits at twice these bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub log_bytes: u64,
    pub waiting_bytes: u64,
}

/// From where a replica had its state when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// There was nothing: a new group, or one whose whole log was replayed.
    Log,
    /// The last completed checkpoint.
    Checkpoint {
        /// What it covers.
        at: Option<Position>,
    },
    /// History, because there was no readable checkpoint.
    History {
        /// Up to where it was complete.
        at: Option<Position>,
    },
}

/// How a replica was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// From where it had its state; the log behind it was replayed.
    pub source: Source,
    /// What was wrong with its checkpoint, if there was one that could not be used.
    pub damage: Option<String>,
}

struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The last completed checkpoint.
    manifest: Option<Manifest>,
    /// The last checkpoint that openraft was told of.
    reported: Option<LogId>,
    /// What is stored cannot be continued with a delta.
    full_next: bool,
    replay_bytes: u64,
    last_try: Instant,
    took: Duration,
    completed: u64,
    failed: Option<String>,
}

/// One replica. Shared by openraft, by whoever makes checkpoints and by its group.
pub(crate) struct Replica {
    pub(crate) group: GroupId,
    machine: Arc<dyn Machine>,
    store: Arc<dyn CheckpointStore>,
    running: Running,
    bounds: Bounds,
    state: Mutex<State>,
    applied: watch::Sender<Option<Position>>,
    /// Counts attempts to make a checkpoint that have ended.
    attempts: watch::Sender<u64>,
    one_checkpoint: tokio::sync::Mutex<()>,
    /// Held while a snapshot is taken from another node.
    one_snapshot: tokio::sync::Mutex<()>,
    pins: Pins,
    /// Asks the host for a checkpoint.
    ask: Box<dyn Fn() + Send + Sync>,
    /// Stops the host.
    give_up: Box<dyn Fn(&str) + Send + Sync>,
    /// Replayed: from now on, applying may wait for checkpoints.
    live: AtomicBool,
    held_back: AtomicBool,
    broken: Mutex<Option<String>>,
    /// The group is being closed: what is tried again and again is given up.
    ending: watch::Sender<bool>,
    /// Nothing is written for it any more.
    closed: AtomicBool,
}

/// What a replica counts.
pub(crate) struct ReplicaFigures {
    pub applied: Option<LogId>,
    pub checkpoint: Option<LogId>,
    pub checkpoint_bytes: u64,
    pub checkpoint_took: Duration,
    pub checkpoints: u64,
    pub checkpoint_failed: Option<String>,
    pub replay_bytes: u64,
    pub waiting_bytes: u64,
    pub held_back: bool,
}

impl Replica {
    pub(crate) fn new(
        group: GroupId,
        machine: Arc<dyn Machine>,
        store: Arc<dyn CheckpointStore>,
        running: Running,
        bounds: Bounds,
        ask: Box<dyn Fn() + Send + Sync>,
        give_up: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        Replica {
            group,
            machine,
            store,
            running,
            bounds,
            state: Mutex::new(State {
                applied: None,
                membership: StoredMembership::default(),
                manifest: None,
                reported: None,
                full_next: false,
                replay_bytes: 0,
                last_try: Instant::now(),
                took: Duration::ZERO,
                completed: 0,
                failed: None,
            }),
            applied: watch::Sender::new(None),
            attempts: watch::Sender::new(0),
            one_checkpoint: tokio::sync::Mutex::new(()),
            one_snapshot: tokio::sync::Mutex::new(()),
            pins: Pins::default(),
            ask,
            give_up,
            live: AtomicBool::new(false),
            held_back: AtomicBool::new(false),
            broken: Mutex::new(None),
            ending: watch::Sender::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The group is being closed: what is tried again and again is given up.
    pub(crate) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Whether it is being closed, or cannot go on.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// From now on no checkpoint is begun. Answers why the store is still used for it; `None` when it is not.
    pub(crate) fn let_go_of_store(&self) -> Option<&'static str> {
        self.closed.store(true, Ordering::Release);
        if self.one_checkpoint.try_lock().is_err() {
            Some("a checkpoint of it is being written")
        } else if self.one_snapshot.try_lock().is_err() {
            Some("a snapshot of it is being taken")
        } else if !self.pins.is_free() {
            Some("a snapshot of it is being given")
        } else {
            None
        }
    }

    /// Takes back the state: from the checkpoint, else from the whole log, else from history. Blocks.
    pub(crate) fn load(&self, log: &GroupLog) -> Result<Opened, OpenError> {
        let damage = match self.load_checkpoint(log) {
            Ok(Some(at)) => {
                return Ok(Opened {
                    source: Source::Checkpoint { at },
                    damage: None,
                });
            }
            Ok(None) => None,
            Err(fault) => {
                tracing::warn!(group = %self.group, what = fault.what, "the checkpoint cannot be used; the state is made anew");
                if fault.damaged {
                    // Not trusted again: at the next start all of it is set aside.
                    self.store.condemn(&fault.what);
                }
                Some(fault.what)
            }
        };
        // The manifest stays until a new base takes its place: nothing is lost when there is nothing to make it from.
        self.state.lock().full_next = damage.is_some();
        if log.is_whole() {
            let begun = self.guard(|machine| {
                machine.restore_begin();
                machine.restore_end(None)
            });
            begun.map_err(|why| self.broken(why))?;
            return Ok(Opened {
                source: Source::Log,
                damage,
            });
        }
        let rebuilt = self
            .guard(|machine| {
                machine.restore_begin();
                machine.rebuild()
            })
            .map_err(|why| self.unusable(damage.as_deref(), &why))?;
        let Some(rebuilt) = rebuilt else {
            return Err(self.unusable(damage.as_deref(), "there is no history to rebuild it from"));
        };
        let cover = format::decode_cover(&rebuilt.manifest)
            .map_err(|e| self.unusable(damage.as_deref(), &e.to_string()))?;
        if cover.group != self.group.0 || cover.log_id() < log.purged() {
            return Err(self.unusable(
                damage.as_deref(),
                &format!(
                    "history is complete up to {}, but the log begins after {}",
                    shown(cover.log_id()),
                    shown(log.purged())
                ),
            ));
        }
        let at = cover.log_id();
        let mut state = self.state.lock();
        state.applied = at;
        state.membership = cover.stored_membership();
        state.full_next = true;
        drop(state);
        self.applied.send_replace(at.map(Position::from));
        Ok(Opened {
            source: Source::History {
                at: at.map(Position::from),
            },
            damage,
        })
    }

    fn load_checkpoint(&self, log: &GroupLog) -> Result<Option<Option<Position>>, StoreFault> {
        let Some(manifest) = checkpoint::manifest(&*self.store, self.group)? else {
            return Ok(None);
        };
        let at = manifest.log_id();
        if at < log.purged() {
            let what = format!(
                "the checkpoint covers up to {}, but the log begins after {}",
                shown(at),
                shown(log.purged())
            );
            return Err(StoreFault {
                what,
                damaged: true,
            });
        }
        self.restore(&manifest)?;
        let mut state = self.state.lock();
        state.applied = at;
        state.membership = manifest.stored_membership();
        state.reported = at;
        state.manifest = Some(manifest);
        drop(state);
        self.applied.send_replace(at.map(Position::from));
        Ok(Some(at.map(Position::from)))
    }

    fn restore(&self, manifest: &Manifest) -> Result<(), StoreFault> {
        let fault = |what: String| StoreFault {
            what,
            damaged: true,
        };
        let at = manifest.log_id().map(Position::from);
        self.guard(|machine| {
            machine.restore_begin();
            Ok(())
        })
        .map_err(fault)?;
        checkpoint::read(&*self.store, self.group, manifest, &mut |raw| {
            self.guard(|machine| machine.restore_chunk(raw))
        })?;
        self.guard(|machine| machine.restore_end(at)).map_err(fault)
    }

    /// Calls the machine; its panics become errors.
    pub(crate) fn guard<T>(
        &self,
        call: impl FnOnce(&dyn Machine) -> Result<T, String>,
    ) -> Result<T, String> {
        guarded(&*self.machine, call)
    }

    pub(crate) fn machine(&self) -> Arc<dyn Machine> {
        self.machine.clone()
    }

    pub(crate) fn store(&self) -> Arc<dyn CheckpointStore> {
        self.store.clone()
    }

    pub(crate) fn running(&self) -> Running {
        self.running.clone()
    }

    pub(crate) fn applied_log_id(&self) -> Option<LogId> {
        self.state.lock().applied
    }

    /// The right to take a snapshot; `None` while another one is being taken.
    pub(crate) fn try_receive(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.one_snapshot.try_lock().ok()
    }

    /// Begins to take a checkpoint from another node.
    pub(crate) fn begin_received(&self) -> Result<Received, CheckpointError> {
        Received::begin(self.store.clone(), &self.pins, self.group)
    }

    fn broken(&self, why: String) -> OpenError {
        OpenError::Machine {
            group: self.group,
            why,
        }
    }

    fn unusable(&self, damage: Option<&str>, why: &str) -> OpenError {
        OpenError::Damaged {
            what: format!(
                "no readable checkpoint ({}), and {why}",
                damage.unwrap_or("there is none")
            ),
            where_: format!("{} ({})", self.store.place(), self.group),
            consequence: format!(
                "the state of {} cannot be made anew on this node",
                self.group
            ),
            todo: todo("restore the data folder from a copy"),
        }
    }

    /// Replaying is over.
    pub(crate) fn go_live(&self) {
        self.live.store(true, Ordering::Release);
        if self.is_due(Duration::MAX) {
            (self.ask)();
        }
    }

    /// The last entry applied.
    pub(crate) fn applied(&self) -> &watch::Sender<Option<Position>> {
        &self.applied
    }

    /// Why this replica stopped, if its machine made it.
    pub(crate) fn broken_reason(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// Whether a checkpoint is due: by bytes, or because the last try is `every` ago and something was applied since.
    pub(crate) fn is_due(&self, every: Duration) -> bool {
        let waiting = self.machine.waiting_bytes();
        let state = self.state.lock();
        if !state.full_next && state.applied == state.manifest.as_ref().and_then(Covering::log_id) {
            return false;
        }
        state.replay_bytes >= self.bounds.log_bytes
            || waiting >= self.bounds.waiting_bytes
            || state.full_next
            || state.last_try.elapsed() >= every
    }

    /// The newest checkpoint that openraft was handed.
    pub(crate) fn reported(&self) -> Option<LogId> {
        self.state.lock().reported
    }

    /// Bytes of log that a restart would replay.
    pub(crate) fn replay_bytes(&self) -> u64 {
        self.state.lock().replay_bytes
    }

    fn is_over(&self) -> bool {
        let waiting = self.machine.waiting_bytes();
        let state = self.state.lock();
        // Nothing that a checkpoint could take away: then waiting for one would not end.
        let covered = state.applied == state.manifest.as_ref().and_then(Covering::log_id);
        !covered
            && (state.replay_bytes >= self.bounds.log_bytes.saturating_mul(2)
                || waiting >= self.bounds.waiting_bytes.saturating_mul(2))
    }

    /// At the hard bound, applying waits for a checkpoint.
    async fn wait_for_room(&self) {
        if !self.live.load(Ordering::Acquire) || !self.is_over() {
            return;
        }
        self.held_back.store(true, Ordering::Relaxed);
        let mut attempts = self.attempts.subscribe();
        while self.is_over() && !*self.ending.borrow() {
            (self.ask)();
            // Cannot fail: this replica holds the sender.
            drop(attempts.changed().await);
            if self.state.lock().failed.is_some() {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        self.held_back.store(false, Ordering::Relaxed);
    }

    #[allow(clippy::result_large_err)] // openraft's own error
    fn apply_entry(&self, state: &mut State, entry: Entry) -> Result<Reply, StorageError> {
        let reply = match entry.payload {
            EntryPayload::Blank => Reply::default(),
            EntryPayload::Membership(membership) => {
                state.membership = StoredMembership::new(Some(entry.log_id), membership);
                Reply::default()
            }
            EntryPayload::Normal(proposal) => {
                state.replay_bytes += proposal.body.len() as u64;
                match proposal.kind {
                    EntryKind::Barrier | EntryKind::NoOp => Reply::default(),
                    kind @ (EntryKind::Decisions | EntryKind::CatalogAt | EntryKind::Verify) => {
                        let at = entry.log_id.into();
                        let applied =
                            self.guard(|machine| Ok(machine.apply(at, kind, &proposal.body)));
                        Reply(applied.map_err(|why| self.stop(entry.log_id, why))?)
                    }
                }
            }
        };
        state.replay_bytes += ENTRY_OVERHEAD;
        state.applied = Some(entry.log_id);
        Ok(reply)
    }

    fn stop(&self, at: LogId, why: String) -> StorageError {
        let reason = format!(
            "entry {} of {} cannot be applied: {why}",
            Position::from(at),
            self.group
        );
        tracing::error!(%reason, "this replica stops; the others go on");
        *self.broken.lock() = Some(reason.clone());
        StorageIoError::apply(at, AnyError::error(reason)).into()
    }

    pub(crate) fn figures(&self) -> ReplicaFigures {
        let waiting_bytes = self.machine.waiting_bytes();
        let state = self.state.lock();
        ReplicaFigures {
            applied: state.applied,
            checkpoint: state.manifest.as_ref().and_then(Covering::log_id),
            checkpoint_bytes: state
                .manifest
                .iter()
                .flat_map(|m| &m.generations)
                .map(|g| g.stored_bytes)
                .sum(),
            checkpoint_took: state.took,
            checkpoints: state.completed,
            checkpoint_failed: state.failed.clone(),
            replay_bytes: state.replay_bytes,
            waiting_bytes,
            held_back: self.held_back.load(Ordering::Relaxed),
        }
    }
}

/// Calls a machine; its panics become errors.
pub(crate) fn guarded<T>(
    machine: &dyn Machine,
    call: impl FnOnce(&dyn Machine) -> Result<T, String>,
) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(|| call(machine)))
        .unwrap_or_else(|panic| Err(format!("the machine panicked: {}", panic_text(&*panic))))
}

fn shown(at: Option<LogId>) -> String {
    at.map_or_else(|| "nothing".to_owned(), |id| Position::from(id).to_string())
}
