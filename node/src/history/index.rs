//! What the history keeps beside records and receipts.
//!
//! `ended`: shard u16 | customer hash u64 | first log index u64 -> `stored::EndedExecutions`, the index of executions
//! that are over. `away`: shard u16 | customer hash u64 -> the packed customers of that hash, while they are not in
//! memory. `unmatched`: shard u16 | first log index u64 -> `stored::UnmatchedSignals` between two checkpoints, dropped
//! after [`crate::limits::UNMATCHED_DAYS`].

use super::fault::Damaged;
use super::store::{Store, be64, record_key};
use super::waiting::{Batch, Note};
use bytes::{BufMut, Bytes};
use fjall::OwnedWriteBatch;
use prost::Message;
use sojourn_journey::time::{Span, Time};
use sojourn_proto::stored;

/// One format byte stands before each value of `ended` and `unmatched`; packed customers bring their own.
const FORMAT: u8 = 1;

/// How many expired values of `unmatched` one checkpoint drops at most.
const EXPIRE: usize = 64;

impl Store {
    /// Puts what a checkpoint took into its batch. `at`: the shard's last `at`.
    pub(super) fn index(&self, batch: &mut OwnedWriteBatch, shard: u16, at: i64, taken: &Batch) {
        for (customer, notes) in &taken.ended {
            if let Some(first) = notes.first() {
                let key = record_key(shard, *customer, first.index);
                batch.insert(&self.ended, key, joined(notes));
            }
        }
        for (customer, packed) in &taken.away {
            let key = away_key(shard, *customer);
            match packed {
                Some(packed) => batch.insert(&self.away, key, packed.as_ref()),
                None => batch.remove(&self.away, key),
            }
        }
        if let Some(first) = taken.unmatched.first() {
            let mut value = vec![FORMAT];
            value.put_i64(at);
            value.extend_from_slice(&joined(&taken.unmatched)[1..]);
            batch.insert(&self.unmatched, unmatched_key(shard, first.index), value);
        }
    }

    /// The executions that ended, of the customers from one hash to another, in the order of customers and of the log.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn ended(
        &self,
        shard: u16,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, stored::EndedExecution)>, Damaged> {
        let mut all = Vec::new();
        let low = record_key(shard, from, 0);
        let high = record_key(shard, to, u64::MAX);
        self.each_value(
            || self.ended.range(low..=high),
            |key, value| {
                let customer = self.customer_of(key)?;
                let ended: stored::EndedExecutions = self.decode(value, 0)?;
                all.extend(ended.executions.into_iter().map(|e| (customer, e)));
                Ok(())
            },
        )?;
        Ok(all)
    }

    /// The packed customers of a hash, as they left memory.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn away(&self, shard: u16, customer: u64) -> Result<Option<Bytes>, Damaged> {
        let found = self.faults.reading("reading customers", || {
            self.away.get(away_key(shard, customer))
        })?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Signals that moved nothing, newest first, from before a place of the log on. Ends when `f` says false.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn unmatched(
        &self,
        shard: u16,
        before: (u64, u32),
        mut f: impl FnMut(stored::UnmatchedSignal) -> bool,
    ) -> Result<(), Damaged> {
        let low = unmatched_key(shard, 0);
        let high = unmatched_key(shard, before.0);
        let mut values = self.faults.reading("reading unmatched signals", || {
            Ok(self.unmatched.range(low..=high).rev())
        })?;
        let mut next = || {
            self.faults.reading("reading unmatched signals", || {
                values.next().map(fjall::Guard::into_inner).transpose()
            })
        };
        while let Some((_, value)) = next()? {
            let all: stored::UnmatchedSignals = self.decode(&value, size_of::<i64>())?;
            for signal in all.signals.into_iter().rev() {
                if (signal.index, signal.sub) < before && !f(signal) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Drops unmatched signals that are older than they are kept.
    ///
    /// # Errors
    /// Refused by the file system.
    pub(super) fn expire_unmatched(&self, shard: u16, now: Time) -> Result<(), Damaged> {
        let kept = Span::from_seconds(i64::from(crate::limits::UNMATCHED_DAYS) * 86_400);
        let oldest = now.0.saturating_sub(kept.0);
        let mut expired = Vec::new();
        let mut values = self.faults.reading("reading unmatched signals", || {
            Ok(self.unmatched.prefix(shard.to_be_bytes()))
        })?;
        while expired.len() < EXPIRE {
            let next = self.faults.reading("reading unmatched signals", || {
                values.next().map(fjall::Guard::into_inner).transpose()
            })?;
            let Some((key, value)) = next else { break };
            let at = value.get(1..9).map_or(0, |at| be64(at) as i64);
            if at >= oldest {
                break;
            }
            expired.push(key);
        }
        if expired.is_empty() {
            return Ok(());
        }
        let mut batch = self.db.batch();
        for key in expired {
            batch.remove(&self.unmatched, key);
        }
        self.faults
            .writing("dropping unmatched signals", || batch.commit())
    }

    /// Reads all indexes through.
    pub(super) fn check_indexes(&self) -> Result<(), Damaged> {
        self.each_value(
            || self.ended.iter(),
            |_, value| self.decode::<stored::EndedExecutions>(value, 0).map(|_| ()),
        )?;
        // what a packed customer is, others know: the store's own checksums tell damage
        self.each_value(|| self.away.iter(), |_, _| Ok(()))?;
        self.each_value(
            || self.unmatched.iter(),
            |_, value| {
                self.decode::<stored::UnmatchedSignals>(value, size_of::<i64>())
                    .map(|_| ())
            },
        )
    }

    pub(super) fn customer_of(&self, key: &[u8]) -> Result<u64, Damaged> {
        key.get(2..10)
            .map(be64)
            .ok_or_else(|| self.damaged(format!("a key of {} bytes", key.len())))
    }

    /// Decodes what stands behind the format byte and `skip` more.
    fn decode<M: Message + Default>(&self, value: &[u8], skip: usize) -> Result<M, Damaged> {
        match value.split_first() {
            Some((&FORMAT, rest)) => M::decode(rest.get(skip..).unwrap_or_default())
                .map_err(|e| self.damaged(e.to_string())),
            found => Err(self.damaged(format!(
                "found format {:?}, this version reads {FORMAT}",
                found.map(|(format, _)| format)
            ))),
        }
    }
}

/// Notes as the repeated field number 1 of a message, behind the format byte.
fn joined(notes: &[Note]) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let bytes: usize = notes.iter().map(|n| n.bytes.len() + 6).sum();
    let mut out = Vec::with_capacity(1 + bytes);
    out.push(FORMAT);
    for note in notes {
        encode_key(1, WireType::LengthDelimited, &mut out);
        encode_varint(note.bytes.len() as u64, &mut out);
        out.extend_from_slice(&note.bytes);
    }
    out
}

fn away_key(shard: u16, customer: u64) -> [u8; 10] {
    let mut key = [0u8; 10];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..].copy_from_slice(&customer.to_be_bytes());
    key
}

fn unmatched_key(shard: u16, index: u64) -> [u8; 10] {
    away_key(shard, index)
}
