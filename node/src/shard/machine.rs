//! The shard as the replication layer sees it: applies entries, is cut for checkpoints, is restored.

use super::apply::apply;
use super::checkpoint::{ShardCut, read_chunk};
use super::decision::Decision;
use super::given::{Checked, position_of};
use super::proposer::Pending;
use super::seams::Seams;
use super::state::{AppliedDecision, ShardState, Shared, Verdict};
use crate::history::{Damaged, Keep, Store};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use sojourn_cluster::id::Position;
use sojourn_cluster::{Cut, EntryKind, HistoryPieces, Machine, Rebuilt};
use sojourn_journey::time::Time;
use sojourn_proto::stored;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

/// What a watcher sees: a decision as it was applied.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The shard.
    pub shard: u16,
    /// Log index.
    pub index: u64,
    /// The decision.
    pub decision: Arc<Decision>,
}

/// One shard's machine.
pub struct ShardMachine {
    /// The shard's number.
    pub shard: u16,
    /// Its state.
    pub state: Shared,
    /// The node's history.
    pub history: Arc<Store>,
    /// What this process proposed and waits for.
    pub pending: Arc<Pending>,
    /// Told of every customer that changed, while this node owns the shard.
    pub hands: Mutex<Option<mpsc::UnboundedSender<AppliedDecision>>>,
    /// Told of every decision, when somebody watches.
    pub watchers: broadcast::Sender<Seen>,
    /// The catalog position that the shard has applied.
    pub catalog: watch::Sender<u64>,
    /// How long receipts are kept.
    pub keep: Keep,
    /// What it uses of its machine.
    pub seams: Seams,
    /// More history waits than may: nothing is admitted.
    pub history_full: AtomicBool,
    /// The newest hashes that were asked for, with the log index at which each was made.
    pub hashes: watch::Sender<VecDeque<(u64, u128)>>,
    /// Entries of decisions that were not proposed by the node that led, or that came after a later leader's: always 0.
    pub owner_conflicts: AtomicU64,
    /// The leader of the last entry of decisions: (term, node).
    led: Mutex<(u64, u64)>,
    /// A state that is being restored: until all of it is there, the one before is read.
    restoring: Mutex<Option<ShardState>>,
    /// It has had a state in this process: the next one comes from another node.
    lives: AtomicBool,
}

/// How many decisions a slow watcher may lag behind.
const WATCH_BACKLOG: usize = 4_096;
/// Hashes that are kept for whoever asks.
const HASHES: usize = 8;

impl ShardMachine {
    /// A replica without a state yet.
    pub fn new(shard: u16, history: Arc<Store>, keep: Keep, seams: Seams) -> ShardMachine {
        ShardMachine {
            shard,
            state: Arc::default(),
            history,
            pending: Arc::default(),
            hands: Mutex::new(None),
            watchers: broadcast::channel(WATCH_BACKLOG).0,
            catalog: watch::channel(0).0,
            keep,
            seams,
            history_full: AtomicBool::new(false),
            hashes: watch::channel(VecDeque::new()).0,
            owner_conflicts: AtomicU64::new(0),
            led: Mutex::default(),
            restoring: Mutex::default(),
            lives: AtomicBool::new(false),
        }
    }

    /// What history has of entries that the log does not have: it was cut, and its numbers go to other entries. To be
    /// asked once all of the log is applied, up to `applied`, as it is when this node owns the shard.
    ///
    /// # Errors
    /// History cannot be read.
    pub fn beyond_log(&self, applied: u64) -> Result<Option<String>, Damaged> {
        let Some(mark) = self.history.mark(self.shard)? else {
            return Ok(None);
        };
        let here = self.state.lock().last_entry;
        let there = mark.meta.map_or(0, |meta| meta.last_entry);
        // entries of other kinds may have taken the numbers of those that are lost
        let (up_to, ends) = if mark.up_to > applied {
            (mark.up_to, applied)
        } else {
            (there, here)
        };
        Ok((up_to > ends).then(|| {
            format!(
                "it goes up to entry {up_to} of shard {}, but the log ends at {ends}",
                self.shard
            )
        }))
    }

    /// Takes over a whole state.
    fn take_over(&self, state: ShardState) {
        // who has hands owns, and an owner is never given a state: should it happen, its term of office ends
        *self.hands.lock() = None;
        self.history_full.store(false, Ordering::Relaxed);
        let catalog = state.catalog;
        *self.state.lock() = state;
        self.catalog.send_replace(catalog);
        self.lives.store(true, Ordering::Release);
    }

    /// Looks whether an entry is of the one owner that its leadership allows.
    fn audit(&self, at: Position, proposer: u64) {
        let leader = (at.term, at.node);
        let mut led = self.led.lock();
        if (proposer != 0 && proposer != at.node) || leader < *led {
            self.owner_conflicts.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                shard = self.shard,
                %at,
                proposer,
                before = ?*led,
                "an entry was decided by a node that did not own the shard"
            );
        }
        *led = leader.max(*led);
    }

    fn decisions(&self, at: Position, body: &Bytes) {
        let index = at.index;
        let entry = stored::Decisions::decode(body.clone())
            .unwrap_or_else(|e| stop(self.shard, index, &e.to_string()));
        self.audit(at, entry.node);
        let mine = self.pending.take_entry(&entry);
        let mut verdicts = Vec::with_capacity(entry.decisions.len());
        {
            let mut state = self.state.lock();
            for (sub, bytes) in entry.decisions.iter().enumerate() {
                let decision = match &mine {
                    Some(decisions) => decisions[sub].clone(),
                    None => Arc::new(
                        Decision::decode(bytes)
                            .unwrap_or_else(|e| stop(self.shard, index, &e.to_string())),
                    ),
                };
                // one that came into the log under another leadership than the one that decided it (this node lost it
                // and got it back in between) counts as lost: its asker has been told so, or will be
                let of_leader = (decision.id.term, decision.id.node) == (at.term, at.node);
                let verdict = if of_leader {
                    apply(&mut state, index, sub as u32, &decision, bytes)
                        .unwrap_or_else(|e| stop(self.shard, index, &e.to_string()))
                } else {
                    state.ignored += 1;
                    Verdict::Ignored
                };
                verdicts.push((decision, verdict));
            }
            (state.applied, state.last_entry) = (index, index);
            // a flood of new customers must not stay awake until the next tick
            let idle = crate::actors::live::idle_since(Instant::now());
            state.pack_idle(idle, 2 * verdicts.len());
            let full = state.waiting.bytes() > crate::limits::HISTORY_WAITING_MAX;
            self.history_full.store(full, Ordering::Relaxed);
        }
        let hands = self.hands.lock().clone();
        for (decision, verdict) in verdicts {
            self.pending.resolve(self.shard, &decision, verdict);
            if let Some(hands) = &hands {
                // the hands may have stopped: then nobody needs to know
                let _ = hands.send(AppliedDecision {
                    id: decision.id,
                    hash: decision.hash,
                    verdict,
                });
            }
            if matches!(verdict, Verdict::Applied { .. }) && self.watchers.receiver_count() > 0 {
                let _ = self.watchers.send(Seen {
                    shard: self.shard,
                    index,
                    decision,
                });
            }
        }
    }

    fn catalog_at(&self, index: u64, body: &Bytes) {
        let entry = stored::CatalogAt::decode(body.clone())
            .unwrap_or_else(|e| stop(self.shard, index, &e.to_string()));
        let mut state = self.state.lock();
        state.catalog = state.catalog.max(entry.catalog);
        state.last_at = state.last_at.max(Time(entry.at));
        (state.applied, state.last_entry) = (index, index);
        self.catalog.send_replace(state.catalog);
    }
}

/// An entry that this version cannot apply: the replica stops rather than skip it.
fn stop(shard: u16, index: u64, why: &str) -> ! {
    panic!("shard {shard} cannot apply log entry {index}: {why}")
}

impl Machine for ShardMachine {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        match kind {
            EntryKind::Decisions => self.decisions(at, body),
            EntryKind::CatalogAt => self.catalog_at(at.index, body),
            EntryKind::Verify => {
                let hash = self.hash();
                tracing::info!(shard = self.shard, index = at.index, hash = %format!("{hash:032x}"), "state hash");
                self.hashes.send_modify(|all| {
                    if all.len() == HASHES {
                        all.pop_front();
                    }
                    all.push_back((at.index, hash));
                });
                return Bytes::copy_from_slice(&hash.to_be_bytes());
            }
            EntryKind::Barrier | EntryKind::NoOp => self.state.lock().applied = at.index,
        }
        Bytes::new()
    }

    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut> {
        Box::new(ShardCut::take(
            self.shard,
            &self.state,
            (self.history.clone(), self.keep, &self.seams.clock),
            at.index,
            full,
        ))
    }

    fn waiting_bytes(&self) -> u64 {
        let bytes = self.state.lock().waiting.bytes();
        let full = bytes > crate::limits::HISTORY_WAITING_MAX;
        self.history_full.store(full, Ordering::Relaxed);
        bytes
    }

    fn restore_begin(&self) {
        *self.restoring.lock() = Some(ShardState::default());
    }

    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        let mut restoring = self.restoring.lock();
        let state = restoring.get_or_insert_default();
        read_chunk(state, chunk).map_err(|e| e.to_string())
    }

    fn restore_end(&self, at: Option<Position>) -> Result<(), String> {
        let mut state = self.restoring.lock().take().unwrap_or_default();
        let mark = self.history.mark(self.shard).map_err(|e| e.to_string())?;
        let up_to = mark.map_or(0, |m| m.up_to);
        if let Some(at) = at
            && up_to < at.index
        {
            let why = format!(
                "it ends at entry {up_to} of shard {}, but was complete up to {}",
                self.shard, at.index
            );
            if self.lives.load(Ordering::Acquire) {
                // a snapshot whose history did not come first: the state before it stays
                return Err(format!("history does not go as far as the snapshot: {why}"));
            }
            // history is synced before its checkpoint: it lost what it had. Writing on would hide the gap.
            self.history.condemn(why);
        }
        state.applied = at.map_or(0, |p| p.index);
        state.restored = state.applied;
        state.history_up_to = up_to;
        self.take_over(state);
        self.pending.overtaken();
        Ok(())
    }

    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        let Some(mark) = self.history.mark(self.shard).map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        self.restoring.lock().take();
        let mut fresh = ShardState {
            history_up_to: mark.up_to,
            ..Default::default()
        };
        let mut bad = None;
        let read = self.history.each_record(self.shard, |_, record| {
            if record.index <= mark.up_to && bad.is_none() {
                let applied = Decision::decode(&record.bytes).and_then(|decision| {
                    apply(
                        &mut fresh,
                        record.index,
                        record.sub,
                        &decision,
                        &record.bytes,
                    )
                });
                if let Err(e) = applied {
                    bad = Some(e.to_string());
                }
                fresh.pack_idle(Instant::now(), 64);
            }
            Ok(())
        });
        read.map_err(|e| e.to_string())?;
        if let Some(why) = bad {
            return Err(why);
        }
        let meta = mark.meta.unwrap_or_default();
        super::checkpoint::read_meta(&mut fresh, meta).map_err(|e| e.to_string())?;
        fresh.applied = mark.up_to;
        self.take_over(fresh);
        Ok(Some(Rebuilt {
            manifest: mark.manifest.to_vec(),
        }))
    }

    fn hash(&self) -> u128 {
        self.state.lock().hash()
    }

    fn history_upto(&self) -> Option<Position> {
        // a mark that does not say so is as good as none: everything is asked for again
        let mark = self.history.mark(self.shard).ok().flatten()?;
        position_of(self.shard, &mark).ok()
    }

    fn history_is_whole(&self) -> bool {
        let state = self.state.lock();
        state.restored <= state.history_up_to
    }

    fn history_after(
        &self,
        after: Option<Position>,
        upto: Position,
    ) -> Result<Option<Box<dyn HistoryPieces>>, String> {
        let after = after.map_or(0, |after| after.index);
        let giving = self.history.give(self.shard, after, upto.index)?;
        Ok(Some(Box::new(giving)))
    }

    fn take_history(&self, piece: &[u8]) -> Result<(), String> {
        let days = self.keep.days(self.seams.clock.now());
        let check = Checked { shard: self.shard };
        self.history.take_piece(self.shard, piece, days, &check)
    }

    fn history_taken(&self, upto: Position) -> Result<(), String> {
        let up_to = self.history.taken(self.shard, upto.index)?;
        let mut state = self.state.lock();
        state.history_up_to = state.history_up_to.max(up_to);
        Ok(())
    }
}
