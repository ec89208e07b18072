//! A cut of a shard: the pointers of what changed are taken between two entries, packed and written while apply
//! goes on.

use super::counters::Counters;
use super::customer::Slot;
use super::state::{ShardState, Shared};
use crate::clock::Clock;
use crate::convert::Unreadable;
use crate::history::waiting::Batch;
use crate::history::{Keep, Store};
use prost::Message;
use sojourn_cluster::Cut;
use sojourn_journey::time::Time;
use sojourn_proto::stored;
use std::sync::Arc;

/// Packed buckets are gathered into chunks of about this many bytes.
const CHUNK_BYTES: usize = 8 * 1024;
const FORMAT: u8 = 1;

/// A cut at one position.
pub struct ShardCut {
    shard: u16,
    shared: Shared,
    history: Arc<Store>,
    keep: Keep,
    clock: Clock,
    index: u64,
    slots: std::vec::IntoIter<(u64, Option<Slot>)>,
    taken: Arc<Batch>,
    meta: Option<stored::ShardMeta>,
}

impl ShardCut {
    /// Takes the cut: quick, under the lock.
    pub fn take(
        shard: u16,
        shared: &Shared,
        (history, keep, clock): (Arc<Store>, Keep, &Clock),
        index: u64,
        full: bool,
    ) -> Self {
        let mut state = shared.lock();
        let slots: Vec<(u64, Option<Slot>)> = if full {
            state
                .buckets
                .iter()
                .map(|(hash, slot)| (*hash, Some(slot.clone())))
                .collect()
        } else {
            let mut hashes: Vec<u64> = state.dirty.union(&state.dirty_taken).copied().collect();
            hashes.sort_unstable();
            hashes
                .into_iter()
                .map(|hash| (hash, state.buckets.get(&hash).cloned()))
                .collect()
        };
        let dirty = std::mem::take(&mut state.dirty);
        state.dirty_taken.extend(dirty);
        let taken = state.waiting.take();
        let meta = write_meta(&state, index);
        drop(state);
        ShardCut {
            shard,
            shared: shared.clone(),
            history,
            keep,
            clock: clock.clone(),
            index,
            slots: slots.into_iter(),
            taken,
            meta: Some(meta),
        }
    }
}

impl Cut for ShardCut {
    fn before(&mut self, manifest: &[u8]) -> Result<(), String> {
        let now = self.clock.now();
        let today = crate::history::day_of(now);
        let mark = stored::HistoryMark {
            up_to: self.index,
            manifest: bytes::Bytes::copy_from_slice(manifest),
            meta: self.meta.clone(),
        };
        self.history
            .write(self.shard, today, &self.taken, &mark)
            .map_err(|e| e.to_string())?;
        self.history
            .expire(self.shard, now, self.keep)
            .map_err(|e| e.to_string())
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        let mut chunk = stored::Chunk::default();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES {
            match self.slots.next() {
                Some((hash, Some(slot))) => {
                    let packed = slot.bytes();
                    bytes += packed.len() + 12;
                    chunk.hashes.push(hash);
                    chunk.customers.push(bytes::Bytes::copy_from_slice(&packed));
                }
                Some((hash, None)) => {
                    bytes += 8;
                    chunk.gone.push(hash);
                }
                None => {
                    // the last chunk carries what the shard counts
                    chunk.meta = Some(self.meta.take()?);
                    break;
                }
            }
        }
        let mut out = vec![FORMAT];
        // encoding into a Vec cannot fail: it grows
        chunk.encode(&mut out).unwrap_or_default();
        Some(out)
    }

    fn done(self: Box<Self>, ok: bool) {
        if ok {
            let mut state = self.shared.lock();
            state.dirty_taken.clear();
            state.history_up_to = state.history_up_to.max(self.index);
            state.waiting.written();
        }
    }
}

fn write_meta(state: &ShardState, index: u64) -> stored::ShardMeta {
    stored::ShardMeta {
        last_at: state.last_at.0,
        catalog: state.catalog,
        counters: state.counters.to_stored(),
        ignored: state.ignored,
        customers: state.customers,
        history_up_to: index,
        last_entry: state.last_entry,
    }
}

/// Takes over what a shard counts.
pub fn read_meta(state: &mut ShardState, meta: stored::ShardMeta) -> Result<(), Unreadable> {
    state.last_at = Time(meta.last_at);
    state.catalog = meta.catalog;
    state.counters = Counters::from_stored(meta.counters)?;
    state.ignored = meta.ignored;
    state.customers = meta.customers;
    state.last_entry = meta.last_entry;
    Ok(())
}

/// Takes over a chunk.
pub fn read_chunk(state: &mut ShardState, chunk: &[u8]) -> Result<(), Unreadable> {
    let unreadable = |why: String| Unreadable {
        what: "a chunk of a checkpoint",
        why,
    };
    let Some((&FORMAT, rest)) = chunk.split_first() else {
        let format = chunk.first();
        return Err(unreadable(format!(
            "format {format:?}, this version reads {FORMAT}"
        )));
    };
    let chunk = stored::Chunk::decode(rest).map_err(|e| unreadable(e.to_string()))?;
    if chunk.hashes.len() != chunk.customers.len() {
        return Err(unreadable("keys and values differ in number".into()));
    }
    for (hash, packed) in chunk.hashes.into_iter().zip(chunk.customers) {
        state.put(hash, Slot::from_bytes(&packed)?);
    }
    for hash in chunk.gone {
        let old = state.buckets.remove(&hash);
        state.away -= u64::from(matches!(old, Some(Slot::Away(_))));
    }
    if let Some(meta) = chunk.meta {
        read_meta(state, meta)?;
    }
    Ok(())
}
