//! History that waits in memory for the next checkpoint.

use super::Record;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Rough cost in memory of one waiting record beside its bytes.
const RECORD_OVERHEAD: u64 = 160;

/// Where a signal's record is: (log index, place in the entry).
pub type Place = (u64, u32);

/// Receipts by id hash.
pub type Receipts = HashMap<u128, Place>;

/// One batch: what was applied between two cuts.
#[derive(Default)]
struct Batch {
    records: BTreeMap<u64, Vec<Record>>,
    receipts: Receipts,
    bytes: u64,
}

/// The history of one shard that is not in the store yet.
#[derive(Default)]
pub struct Waiting {
    now: Batch,
    /// Taken by a checkpoint that is being written.
    taken: Option<Arc<Taken>>,
}

/// What a checkpoint took: immutable, read by queries until it is written.
pub struct Taken {
    /// Records by customer hash, in log order.
    pub records: BTreeMap<u64, Vec<Record>>,
    /// Receipts.
    pub receipts: Receipts,
    bytes: u64,
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

    /// Bytes that wait, those of an unfinished checkpoint included.
    pub fn bytes(&self) -> u64 {
        self.now.bytes + self.taken.as_ref().map_or(0, |t| t.bytes)
    }

    /// Takes everything for a checkpoint. What an earlier, failed one took is taken again.
    pub fn take(&mut self) -> Arc<Taken> {
        let mut batch = std::mem::take(&mut self.now);
        if let Some(old) = self.taken.take() {
            for (customer, records) in &old.records {
                let mut all = records.clone();
                all.append(&mut batch.records.remove(customer).unwrap_or_default());
                batch.records.insert(*customer, all);
            }
            for (hash, place) in &old.receipts {
                batch.receipts.insert(*hash, *place);
            }
            batch.bytes += old.bytes;
        }
        let taken = Arc::new(Taken {
            records: batch.records,
            receipts: batch.receipts,
            bytes: batch.bytes,
        });
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
        let mut all = Vec::new();
        if let Some(taken) = &self.taken {
            all.extend(taken.records.get(&customer).into_iter().flatten().cloned());
        }
        all.extend(
            self.now
                .records
                .get(&customer)
                .into_iter()
                .flatten()
                .cloned(),
        );
        all
    }
}
