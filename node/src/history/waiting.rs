//! History that waits in memory for the next checkpoint.

use super::Record;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rough cost in memory of one waiting record beside its bytes.
const RECORD_OVERHEAD: u64 = 160;

/// Where a signal's record is: (log index, place in the entry).
pub type Place = (u64, u32);

/// Receipts by id hash.
pub type Receipts = HashMap<u128, Place>;

/// Where an execution that ended is kept: customer hash, hash of journey and instance key, run.
pub type RunKey = (u64, u64, u32);

/// Something kept beside the records, and the log index that it comes from.
#[derive(Clone, Debug)]
pub struct Note {
    /// The log index.
    pub index: u64,
    /// Its place in the entry.
    pub sub: u32,
    /// Encoded.
    pub bytes: Bytes,
}

/// One batch: what was applied between two cuts.
#[derive(Default)]
pub struct Batch {
    /// Records by customer hash, in log order.
    pub records: BTreeMap<u64, Vec<Record>>,
    /// Receipts.
    pub receipts: Receipts,
    /// Executions that ended and left memory.
    pub ended: BTreeMap<RunKey, Bytes>,
    /// Customers that left memory, by hash; `None`: those of this hash came back.
    pub away: BTreeMap<u64, Option<Arc<[u8]>>>,
    /// Signals that moved nothing, in log order.
    pub unmatched: Vec<Note>,
    bytes: u64,
}

/// The history of one shard that is not in the store yet.
#[derive(Default)]
pub struct Waiting {
    now: Batch,
    /// Taken by a checkpoint that is being written: immutable, read by queries until it is written.
    taken: Option<Arc<Batch>>,
}

impl Waiting {
    /// Adds one applied decision.
    pub fn push(&mut self, customer: u64, record: Record, receipt: Option<u128>) {
        self.now.bytes += record.bytes.len() as u64 + RECORD_OVERHEAD;
        if let Some(hash) = receipt {
            self.now
                .receipts
                .entry(hash)
                .or_insert((record.index, record.sub));
        }
        self.now.records.entry(customer).or_default().push(record);
    }

    /// Adds an execution that ended and left memory.
    pub fn ended(&mut self, key: RunKey, bytes: Bytes) {
        self.now.bytes += bytes.len() as u64 + RECORD_OVERHEAD;
        self.now.ended.insert(key, bytes);
    }

    /// Adds the customers of a hash that left memory; `None`: they came back.
    pub fn away(&mut self, customer: u64, packed: Option<Arc<[u8]>>) {
        self.now.bytes += packed.as_ref().map_or(0, |p| p.len() as u64) + RECORD_OVERHEAD;
        self.now.away.insert(customer, packed);
    }

    /// Adds a signal that moved nothing.
    pub fn unmatched(&mut self, note: Note) {
        self.now.bytes += note.bytes.len() as u64 + RECORD_OVERHEAD;
        self.now.unmatched.push(note);
    }

    /// Bytes that wait, those of an unfinished checkpoint included.
    pub fn bytes(&self) -> u64 {
        self.now.bytes + self.taken.as_ref().map_or(0, |t| t.bytes)
    }

    /// Takes everything for a checkpoint. What an earlier, failed one took is taken again.
    pub fn take(&mut self) -> Arc<Batch> {
        let mut batch = std::mem::take(&mut self.now);
        if let Some(old) = self.taken.take() {
            for (customer, records) in &old.records {
                let mut all = records.clone();
                all.append(&mut batch.records.remove(customer).unwrap_or_default());
                batch.records.insert(*customer, all);
            }
            for (key, bytes) in &old.ended {
                let newer = batch.ended.entry(*key);
                newer.or_insert_with(|| bytes.clone());
            }
            for (hash, place) in &old.receipts {
                batch.receipts.insert(*hash, *place);
            }
            for (customer, packed) in &old.away {
                let newer = batch.away.entry(*customer);
                newer.or_insert_with(|| packed.clone());
            }
            let newer = std::mem::replace(&mut batch.unmatched, old.unmatched.clone());
            batch.unmatched.extend(newer);
            batch.bytes += old.bytes;
        }
        let taken = Arc::new(batch);
        self.taken = Some(taken.clone());
        taken
    }

    /// The checkpoint is durable: the store has it now.
    pub fn written(&mut self) {
        self.taken = None;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Waiting::default();
    }

    /// The place of a signal's record, if it waits.
    pub fn receipt(&self, hash: u128) -> Option<Place> {
        let taken = self.taken.as_ref().and_then(|t| t.receipts.get(&hash));
        taken.or_else(|| self.now.receipts.get(&hash)).copied()
    }

    /// The waiting records of one customer, in log order.
    pub fn records(&self, customer: u64) -> Vec<Record> {
        let of = |batch: &Batch| batch.records.get(&customer).cloned();
        self.both(of).flatten().collect()
    }

    /// The waiting executions that ended, from one key to another.
    pub fn ended_of(&self, from: RunKey, to: RunKey) -> BTreeMap<RunKey, Bytes> {
        let of = |batch: &Batch| -> Option<Vec<(RunKey, Bytes)>> {
            let range = batch.ended.range(from..=to);
            Some(range.map(|(key, bytes)| (*key, bytes.clone())).collect())
        };
        self.both(of).flatten().collect()
    }

    /// The customers of a hash that left memory, if that waits.
    pub fn away_of(&self, customer: u64) -> Option<Arc<[u8]>> {
        let newest = self.both(|batch| batch.away.get(&customer).cloned()).last();
        newest.flatten()
    }

    /// The waiting signals that moved nothing, before a place of the log, newest first: so many, and those that stand at
    /// the same place as the last.
    pub fn unmatched_before(&self, before: (u64, u32), at_most: usize) -> Vec<Note> {
        let taken = self.taken.as_deref();
        let batches = std::iter::once(&self.now).chain(taken);
        let all = batches.flat_map(|batch| {
            let older = batch
                .unmatched
                .partition_point(|n| (n.index, n.sub) < before);
            batch.unmatched[..older].iter().rev()
        });
        let mut found: Vec<Note> = Vec::new();
        for note in all {
            let last = found.last().map(|n| (n.index, n.sub));
            if found.len() >= at_most && last != Some((note.index, note.sub)) {
                break;
            }
            found.push(note.clone());
        }
        found
    }

    /// Looks in both batches, the older first.
    fn both<T>(&self, f: impl Fn(&Batch) -> Option<T>) -> impl Iterator<Item = T> {
        let taken = self.taken.as_ref().and_then(|taken| f(taken));
        taken.into_iter().chain(f(&self.now))
    }
}
