//! What the history keeps beside records and receipts.
//!
//! `ended`: shard u16 | customer hash u64 | hash of journey and instance key u64 | run u32 -> `stored::EndedExecution`,
//! the index of executions that are over. `away`: shard u16 | customer hash u64 -> the packed customers of that hash, while they are not in
//! memory. `unmatched`: shard u16 | log index u64 | place in the entry u32, of the first -> some
//! `stored::UnmatchedSignals` in log order behind the time of the newest (i64), dropped after [`crate::limits::UNMATCHED_DAYS`].

use super::engine;
use super::fault::Damaged;
use super::store::{Store, be32, be64};
use super::waiting::{Batch, Place, RunKey};
use bytes::{BufMut, Bytes};
use prost::Message;
use sojourn_journey::time::{Span, Time};
use sojourn_proto::stored;

/// One format byte stands before each value of `ended` and `unmatched`; packed customers bring their own.
pub(super) const FORMAT: u8 = 1;

/// Unmatched signals that are stored together.
const UNMATCHED_TOGETHER: usize = 512;

/// How many expired values of `unmatched` one checkpoint drops at most.
const EXPIRE: usize = 64;

impl Store {
    /// Puts what a checkpoint took into its batch. `at`: the shard's last `at`; unmatched signals up to log index `has`
    /// are there already.
    pub(super) fn index(
        &self,
        batch: &mut engine::Batch,
        shard: u16,
        (at, has): (i64, u64),
        taken: &Batch,
    ) {
        for (key, bytes) in &taken.ended {
            let mut value = Vec::with_capacity(1 + bytes.len());
            value.push(FORMAT);
            value.extend_from_slice(bytes);
            batch.insert(&self.ended, ended_key(shard, *key), value);
        }
        for (customer, packed) in &taken.away {
            let key = away_key(shard, *customer);
            match packed {
                Some(packed) => batch.insert(&self.away, key, packed.as_ref()),
                None => batch.remove(&self.away, key),
            }
        }
        let new = taken.unmatched.partition_point(|n| n.index <= has);
        for notes in taken.unmatched[new..].chunks(UNMATCHED_TOGETHER) {
            let Some(first) = notes.first() else { continue };
            let key = unmatched_key(shard, (first.index, first.sub));
            let value = join_unmatched(at, notes.iter().map(|n| &n.bytes));
            batch.insert(&self.unmatched, key, value);
        }
    }

    /// The executions that ended with log index `last` or before, from one key to another, so many at most.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn ended(
        &self,
        shard: u16,
        from: RunKey,
        to: RunKey,
        at_most: usize,
        last: u64,
    ) -> Result<Vec<(RunKey, stored::EndedExecution)>, Damaged> {
        let mut all = Vec::new();
        let range = ended_key(shard, from)..=ended_key(shard, to);
        let mut values = self
            .faults
            .reading("reading executions", || Ok(self.ended.range(range)))?;
        while all.len() < at_most {
            let next = self
                .faults
                .reading("reading executions", || values.next().transpose())?;
            let Some((key, value)) = next else { break };
            let ended: stored::EndedExecution = self.decode(&value, 0)?;
            if ended.index <= last {
                all.push((self.run_of(&key)?, ended));
            }
        }
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
        let low = unmatched_key(shard, (0, 0));
        let high = unmatched_key(shard, before);
        let mut values = self.faults.reading("reading unmatched signals", || {
            Ok(self.unmatched.range(low..=high).rev())
        })?;
        let mut next = || {
            self.faults
                .reading("reading unmatched signals", || values.next().transpose())
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
            let next = self
                .faults
                .reading("reading unmatched signals", || values.next().transpose())?;
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
            |_, value| self.decode::<stored::EndedExecution>(value, 0).map(|_| ()),
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

    pub(super) fn run_of(&self, key: &[u8]) -> Result<RunKey, Damaged> {
        match (key.get(2..10), key.get(10..18), key.get(18..22)) {
            (Some(customer), Some(slot), Some(run)) => Ok((be64(customer), be64(slot), be32(run))),
            _ => Err(self.damaged(format!("a key of {} bytes", key.len()))),
        }
    }

    /// Decodes what stands behind the format byte and `skip` more.
    pub(super) fn decode<M: Message + Default>(
        &self,
        value: &[u8],
        skip: usize,
    ) -> Result<M, Damaged> {
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

/// Encoded unmatched signals as the repeated field number 1 of a message, behind the format byte and the time of the
/// newest.
pub(super) fn join_unmatched<'a>(
    at: i64,
    signals: impl Iterator<Item = &'a Bytes> + Clone,
) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let bytes: usize = signals.clone().map(|s| s.len() + 6).sum();
    let mut out = Vec::with_capacity(9 + bytes);
    out.push(FORMAT);
    out.put_i64(at);
    for signal in signals {
        encode_key(1, WireType::LengthDelimited, &mut out);
        encode_varint(signal.len() as u64, &mut out);
        out.extend_from_slice(signal);
    }
    out
}

/// The unmatched signals of a value as they are encoded, and the time before them.
pub(super) fn split_unmatched(value: &[u8]) -> Result<(i64, Vec<Bytes>), String> {
    #[derive(Clone, PartialEq, Message)]
    struct Encoded {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        signals: Vec<Bytes>,
    }
    match (value.first(), value.get(1..9), value.get(9..)) {
        (Some(&FORMAT), Some(at), Some(rest)) => {
            let all = Encoded::decode(Bytes::copy_from_slice(rest)).map_err(|e| e.to_string())?;
            Ok((be64(at).cast_signed(), all.signals))
        }
        (format, ..) => Err(format!(
            "found format {format:?} in {} bytes, this version reads {FORMAT}",
            value.len()
        )),
    }
}

/// Where an encoded unmatched signal stands.
pub(super) fn place_of(signal: &Bytes) -> Result<Place, String> {
    let signal = stored::UnmatchedSignal::decode(signal.clone())
        .map_err(|e| format!("an unmatched signal cannot be decoded: {e}"))?;
    Ok((signal.index, signal.sub))
}

pub(super) fn ended_key(shard: u16, (customer, slot, run): RunKey) -> [u8; 22] {
    let mut key = [0u8; 22];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..10].copy_from_slice(&customer.to_be_bytes());
    key[10..18].copy_from_slice(&slot.to_be_bytes());
    key[18..].copy_from_slice(&run.to_be_bytes());
    key
}

pub(super) fn away_key(shard: u16, customer: u64) -> [u8; 10] {
    let mut key = [0u8; 10];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..].copy_from_slice(&customer.to_be_bytes());
    key
}

pub(super) fn unmatched_key(shard: u16, (index, sub): (u64, u32)) -> [u8; 14] {
    let mut key = [0u8; 14];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..10].copy_from_slice(&index.to_be_bytes());
    key[10..].copy_from_slice(&sub.to_be_bytes());
    key
}
