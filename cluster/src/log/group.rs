//! One group's log as openraft wants it: entries readable at once, durable later, truncated and purged by marks.
//!
//! Recent entries stay in memory, bounded in bytes; older ones are read from the store. It does not know what entries mean.

use super::writer::{Done, LogWriter};
use super::{MetaKey, Op};
use crate::error::{Failure, OpenError, todo};
use crate::format::{self, Left};
use crate::id::{GroupId, Position};
use crate::types::{Entry, LogId, StorageError, StorageIoError, TypeConfig, Vote};
use bytes::Bytes;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// A reader that may answer with less takes about this many bytes at once: one message to a follower.
const LIMITED_READ_BYTES: usize = 1 << 20;
/// Every so many bytes of log, a mark notes the index, so that purging can keep a number of bytes.
const MARK_BYTES: u64 = 64 << 10;

struct Cached {
    entry: Entry,
    bytes: usize,
}

struct State {
    /// What an earlier replica of the group on this node left behind.
    left: Left,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The first index that was ever appended: 0 in a group that openraft began, anything in its test suite.
    start: u64,
    /// The newest entries, without gap, up to `last`.
    recent: VecDeque<Cached>,
    recent_bytes: usize,
    /// The store still has entries from here on that no longer count.
    end_mark: bool,
    /// (index, bytes of log up to it since the group was opened), about every [`MARK_BYTES`].
    marks: VecDeque<(u64, u64)>,
    written_bytes: u64,
}

impl State {
    fn next(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1).max(self.start)
    }

    fn first_recent(&self) -> u64 {
        self.recent
            .front()
            .map_or(self.next(), |c| c.entry.log_id.index)
    }
}

/// A group's log. Clones are the same log.
#[derive(Clone)]
pub struct GroupLog {
    inner: Arc<Inner>,
}

struct Inner {
    group: GroupId,
    writer: LogWriter,
    cache_bytes: usize,
    state: Mutex<State>,
    /// Entries before this index are in the store.
    durable: Arc<AtomicU64>,
    /// What the replica on top has applied, and whether it is ending.
    replica: OnceLock<Followed>,
    /// A purge waits for a snapshot to be taken over.
    waits: AtomicBool,
}

/// What the replica on top has applied, and whether it is ending.
type Followed = (watch::Receiver<Option<Position>>, watch::Receiver<bool>);

impl GroupLog {
    /// Reads what the store has of `group`.
    pub(crate) fn open(
        group: GroupId,
        writer: LogWriter,
        cache_bytes: usize,
    ) -> Result<Self, OpenError> {
        let store = writer.store().clone();
        let damaged = |what: String| OpenError::Damaged {
            what,
            where_: format!("{} ({group})", store.place()),
            consequence: format!("the log of {group} cannot be continued"),
            todo: todo("`sojourn repair` shows what would be lost"),
        };
        let mark = |key: MetaKey| store.meta(group, key);
        let log_id = |key: MetaKey| -> Result<Option<LogId>, OpenError> {
            mark(key)
                .map(|bytes| format::decode_log_id(&bytes))
                .transpose()
                .map_err(|e| damaged(e.to_string()))
        };
        let vote = mark(MetaKey::Vote)
            .map(|bytes| format::decode_vote(&bytes))
            .transpose()
            .map_err(|e| damaged(e.to_string()))?;
        let left = mark(MetaKey::Left)
            .map(|bytes| format::decode_left(&bytes))
            .transpose()
            .map_err(|e| damaged(e.to_string()))?
            .unwrap_or_default();
        // saved votes only rise, so one of this replica's own is the higher
        let vote = vote.or(left.vote);
        let purged = log_id(MetaKey::Purged)?;
        let end = log_id(MetaKey::End)?;
        let mut committed = log_id(MetaKey::Committed)?;

        let first = purged.map_or(0, |id| id.index + 1);
        // Entries that a lost purge left behind are ignored, as are those behind a truncation's mark.
        let next = store.bounds(group).map_or(first, |(_, last)| last + 1);
        let next = end.map_or(next, |id| next.min(id.index)).max(first);
        let last = if next > first {
            match store.bounds(group) {
                Some((stored, _)) if stored > first => {
                    return Err(damaged(format!(
                        "entries {first} to {} are missing in the log",
                        stored - 1
                    )));
                }
                _ => {}
            }
            let bytes = store
                .read(group, next - 1, next, usize::MAX)
                .map_err(|e| damaged(e.what))?;
            let bytes = bytes
                .first()
                .ok_or_else(|| damaged(format!("entry {} cannot be read", next - 1)))?;
            Some(
                format::decode_entry(bytes)
                    .map_err(|e| damaged(e.to_string()))?
                    .log_id,
            )
        } else {
            purged
        };
        // The mark is written behind; it can only be older than the entries, never newer, unless a repair cut them.
        if committed > last {
            committed = last;
        }
        let state = State {
            left,
            vote,
            committed,
            purged,
            last,
            start: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            end_mark: end.is_some(),
            marks: VecDeque::new(),
            written_bytes: 0,
        };
        let durable = Arc::new(AtomicU64::new(next));
        Ok(GroupLog {
            inner: Arc::new(Inner {
                group,
                writer,
                cache_bytes,
                state: Mutex::new(state),
                durable,
                replica: OnceLock::new(),
                waits: AtomicBool::new(false),
            }),
        })
    }

    /// From now on nothing is purged that the replica on top has not applied. openraft purges what a snapshot covers
    /// while the snapshot is being taken over: after a crash in between there would be neither.
    pub(crate) fn follow(
        &self,
        applied: watch::Receiver<Option<Position>>,
        ending: watch::Receiver<bool>,
    ) {
        // Cannot fail: it is opened once, and followed once.
        drop(self.inner.replica.set((applied, ending)));
    }

    /// Whether openraft waits for a snapshot to be taken over, and answers nobody.
    pub(crate) fn waits(&self) -> bool {
        self.inner.waits.load(Ordering::Acquire)
    }

    /// Waits until the replica has applied `upto`.
    async fn wait_for_replica(&self, upto: LogId) -> Result<(), StorageError> {
        let Some((mut applied, mut ending)) = self.inner.replica.get().cloned() else {
            return Ok(());
        };
        let has = |at: &Option<Position>| at.is_some_and(|at| at.index >= upto.index);
        if has(&applied.borrow()) {
            return Ok(());
        }
        self.inner.waits.store(true, Ordering::Release);
        let taken = tokio::select! {
            biased;
            taken = applied.wait_for(has) => taken.is_ok(),
            _ = ending.wait_for(|ending| *ending) => false,
        };
        self.inner.waits.store(false, Ordering::Release);
        if taken {
            return Ok(());
        }
        let why = AnyError::error("the snapshot was not taken over");
        Err(StorageIoError::write_snapshot(None, why).into())
    }

    /// Whether only the caller still holds this log.
    pub(crate) fn is_let_go(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }

    /// Whether the log still begins with the group's very first entry.
    pub(crate) fn is_whole(&self) -> bool {
        self.inner.state.lock().purged.is_none()
    }

    /// Whether nothing was ever written for this group.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.inner.state.lock();
        state.vote.is_none() && state.last.is_none()
    }

    /// The last entry that an earlier replica of the group had on this node, as long as this one has less. It counted
    /// towards majorities: until it is passed, this replica must not help a log to lead that ends before it.
    pub(crate) fn behind_left(&self) -> Option<LogId> {
        let state = self.inner.state.lock();
        state.left.last.filter(|left| state.last < Some(*left))
    }

    /// What there is to leave behind when this replica is forgotten, with what was left behind before. The vote as one that
    /// was only given: whoever comes back does not lead, and follows nobody before it hears of one.
    pub(crate) fn leave(&self) -> Left {
        let state = self.inner.state.lock();
        let given = |vote: Vote| Vote::new(vote.leader_id.term, vote.leader_id.node_id);
        Left {
            vote: state.vote.map(given),
            last: state.last.max(state.left.last),
        }
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.inner.state.lock().purged
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.inner.state.lock().last
    }

    /// Up to which index the log may be purged so that about `keep_bytes` before `covered` stay.
    pub(crate) fn purge_upto(&self, covered: u64, keep_bytes: u64) -> u64 {
        if keep_bytes == 0 {
            return covered;
        }
        let state = self.inner.state.lock();
        let before = state
            .marks
            .iter()
            .rev()
            .find(|(index, _)| *index <= covered);
        let upto_covered = before.map_or(state.written_bytes, |(_, bytes)| *bytes);
        let limit = upto_covered.saturating_sub(keep_bytes);
        // Entries older than the first mark were written before the group was opened, and count as already old enough
        // only once newer ones fill what is to be kept.
        let kept_from = state
            .marks
            .iter()
            .rev()
            .find(|(_, bytes)| *bytes <= limit)
            .map(|(index, _)| *index);
        kept_from.unwrap_or(0).min(covered)
    }

    /// Reads entries `from..to` in memory and, for older ones, from the store; about `max_bytes`, at least one.
    #[allow(clippy::result_large_err)] // openraft's own error
    fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        // The lock is held while the store is read: a truncation in between would mix two histories.
        let state = self.inner.state.lock();
        let from = from.max(state.first());
        let to = to.min(state.next());
        if from >= to {
            return Ok(Vec::new());
        }
        let first_recent = state.first_recent();
        let mut entries = Vec::with_capacity(usize::try_from(to - from).unwrap_or(0).min(1024));
        let mut left = max_bytes;
        if from < first_recent {
            let upto = to.min(first_recent);
            let stored = self
                .inner
                .writer
                .store()
                .read(self.inner.group, from, upto, max_bytes);
            let stored = stored.map_err(|e| read_error(from, &e))?;
            let complete = stored.len() as u64 == upto - from;
            for bytes in &stored {
                left = left.saturating_sub(bytes.len());
                entries.push(format::decode_entry(bytes).map_err(|e| read_error(from, &e))?);
            }
            if !complete {
                return Ok(entries);
            }
        }
        let skip = usize::try_from(from.max(first_recent) - first_recent).unwrap_or(usize::MAX);
        for cached in state.recent.iter().skip(skip) {
            if cached.entry.log_id.index >= to || (left < cached.bytes && !entries.is_empty()) {
                break;
            }
            left = left.saturating_sub(cached.bytes);
            entries.push(cached.entry.clone());
        }
        Ok(entries)
    }
}

fn read_error(index: u64, error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIoError::read_log_at_index(index, AnyError::new(error)).into()
}

fn write_error(failure: &Failure) -> StorageError {
    StorageIoError::write_logs(AnyError::error(failure)).into()
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, LIMITED_READ_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = self.inner.state.lock();
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last,
        })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let op = Op::Put {
            group: self.inner.group,
            key: MetaKey::Vote,
            value: format::encode_vote(vote),
        };
        let written = self.inner.writer.write_and_wait([op]).await;
        written.map_err(|failure| StorageIoError::write_vote(AnyError::error(failure)))?;
        self.inner.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.inner.state.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.inner.state.lock().committed = committed;
        if let Some(id) = committed {
            // Buffered: losing it costs a replay that waits for the barrier, never an entry.
            self.inner
                .writer
                .note_committed(self.inner.group, format::encode_log_id(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.inner.state.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let inner = &*self.inner;
        let mut encoded: Vec<Bytes> = Vec::new();
        let mut ops = Vec::new();
        let (first, next) = {
            let mut state = inner.state.lock();
            let mut first = None;
            for entry in entries {
                first.get_or_insert(entry.log_id.index);
                if state.last.is_none() {
                    state.start = entry.log_id.index;
                }
                let bytes = format::encode_entry(&entry);
                state.last = Some(entry.log_id);
                state.recent_bytes += bytes.len();
                state.written_bytes += bytes.len() as u64;
                let written = state.written_bytes;
                if state
                    .marks
                    .back()
                    .is_none_or(|(_, at)| written - at >= MARK_BYTES)
                {
                    state.marks.push_back((entry.log_id.index, written));
                }
                state.recent.push_back(Cached {
                    entry,
                    bytes: bytes.len(),
                });
                encoded.push(bytes);
            }
            let durable = inner.durable.load(Ordering::Acquire);
            while state.recent_bytes > inner.cache_bytes
                && state
                    .recent
                    .front()
                    .is_some_and(|c| c.entry.log_id.index < durable)
            {
                if let Some(old) = state.recent.pop_front() {
                    state.recent_bytes -= old.bytes;
                }
            }
            if first.is_some() && std::mem::take(&mut state.end_mark) {
                ops.push(Op::Delete {
                    group: inner.group,
                    key: MetaKey::End,
                });
            }
            (first, state.next())
        };
        let done = match first {
            Some(first) => {
                ops.push(Op::Append {
                    group: inner.group,
                    first,
                    entries: encoded,
                });
                Done::Flushed {
                    callback,
                    durable: inner.durable.clone(),
                    next,
                }
            }
            None => Done::Flushed {
                callback,
                durable: inner.durable.clone(),
                next,
            },
        };
        inner.writer.write(ops, done);
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        let inner = &*self.inner;
        let previous = match since.index.checked_sub(1) {
            None => None,
            Some(index) => self
                .read(index, index + 1, usize::MAX)?
                .first()
                .map(|e| e.log_id),
        };
        {
            let mut state = inner.state.lock();
            while state
                .recent
                .back()
                .is_some_and(|c| c.entry.log_id.index >= since.index)
            {
                if let Some(cut) = state.recent.pop_back() {
                    state.recent_bytes -= cut.bytes;
                }
            }
            while state
                .marks
                .back()
                .is_some_and(|(index, _)| *index >= since.index)
            {
                state.marks.pop_back();
            }
            state.last = previous.or(state.purged);
            state.end_mark = true;
        }
        let value = format::encode_log_id(&since);
        let op = Op::Put {
            group: inner.group,
            key: MetaKey::End,
            value,
        };
        let written = inner.writer.write_and_wait([op]).await;
        // Only now: an append that was still being written when the truncation began has counted its entries by now,
        // and what comes in their place is not in the store yet.
        inner.durable.fetch_min(since.index, Ordering::AcqRel);
        written.map_err(|failure| write_error(&failure))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.wait_for_replica(upto).await?;
        let inner = &*self.inner;
        {
            let mut state = inner.state.lock();
            if state.purged >= Some(upto) && state.last >= Some(upto) {
                return Ok(());
            }
            state.purged = state.purged.max(Some(upto));
            while state
                .recent
                .front()
                .is_some_and(|c| c.entry.log_id.index <= upto.index)
            {
                if let Some(old) = state.recent.pop_front() {
                    state.recent_bytes -= old.bytes;
                }
            }
            // One mark at or before the purge stays: it says how many bytes were written up to there.
            while state
                .marks
                .get(1)
                .is_some_and(|(index, _)| *index <= upto.index)
            {
                state.marks.pop_front();
            }
            if state.last < Some(upto) {
                state.last = Some(upto);
                state.recent.clear();
                state.recent_bytes = 0;
            }
        }
        let ops = [
            Op::Put {
                group: inner.group,
                key: MetaKey::Purged,
                value: format::encode_log_id(&upto),
            },
            Op::Compact {
                group: inner.group,
                before: upto.index + 1,
            },
        ];
        // Nobody waits: entries that come back after a crash are ignored, they are before the checkpoint.
        inner.writer.write(ops, Done::Nobody);
        Ok(())
    }
}
