//! The index of receipts: where the record of a signal's id stands, a keyspace a day, so that expiring is dropping.
//!
//! It does not know what a receipt says.

use super::Keep;
use super::engine::Space;
use super::fault::Damaged;
use super::store::{DAY_PREFIX, Store, be32, be64, options};
use super::waiting::{Place, Receipts};
use sojourn_journey::time::Time;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

impl Store {
    pub(super) fn write_receipts(
        &self,
        shard: u16,
        day: u32,
        receipts: &Receipts,
    ) -> Result<(), Damaged> {
        if receipts.is_empty() {
            return Ok(());
        }
        let keyspace = self.day(day)?;
        let mut sorted: Vec<_> = receipts.iter().collect();
        sorted.sort_unstable();
        // written before the mark: an index entry whose record did not make it is corrected by the replay
        let mut batch = self.db.batch();
        for (hash, (index, sub)) in sorted {
            let mut value = [0u8; 12];
            value[..8].copy_from_slice(&index.to_be_bytes());
            value[8..].copy_from_slice(&sub.to_be_bytes());
            batch.insert(&keyspace, receipt_key(shard, *hash), value);
        }
        self.faults.writing("writing receipts", || batch.commit())
    }

    pub(super) fn day(&self, day: u32) -> Result<Space, Damaged> {
        let mut days = self.days.lock();
        if let Some(keyspace) = days.get(&day) {
            return Ok(keyspace.clone());
        }
        let name = day_name(day);
        let keyspace = self.faults.writing("beginning a day of receipts", || {
            self.db.space(&name, options)
        })?;
        let mut names = self.names.lock();
        names.insert(name);
        self.faults.list(&names)?;
        days.insert(day, keyspace.clone());
        Ok(keyspace)
    }

    /// Drops what is kept for a while only: the receipts of days before the window, and the oldest day while they take
    /// too many bytes; the unmatched signals of a shard.
    ///
    /// # Errors
    /// Refused by the file system.
    pub fn expire(&self, shard: u16, now: Time, keep: Keep) -> Result<(), Damaged> {
        self.expire_receipts(*keep.days(now).start())?;
        let (oldest, bytes) = {
            let days = self.days.lock();
            let oldest = days.keys().next().filter(|_| days.len() > 1).copied();
            (oldest, days.values().map(Space::disk_bytes).sum::<u64>())
        };
        if let Some(oldest) = oldest.filter(|_| bytes > keep.bytes) {
            tracing::error!(
                bytes,
                limit = keep.bytes,
                "the dedup window is shortened by a day: the index of receipts takes more than limits.dedup_bytes; \
                 signals repeated later than that are not recognised"
            );
            self.shortened.fetch_add(1, Ordering::Relaxed);
            self.expire_receipts(oldest + 1)?;
        }
        self.expire_unmatched(shard, now)
    }

    /// How often the dedup window was shortened by a day for want of room.
    pub fn shortened(&self) -> u64 {
        self.shortened.load(Ordering::Relaxed)
    }

    fn expire_receipts(&self, day: u32) -> Result<(), Damaged> {
        let mut days = self.days.lock();
        let keep = days.split_off(&day);
        let dropped = std::mem::replace(&mut *days, keep);
        if dropped.is_empty() {
            return Ok(());
        }
        let mut names = self.names.lock();
        for day in dropped.keys() {
            names.remove(&day_name(*day));
        }
        self.faults.list(&names)?;
        for (_, old) in dropped {
            self.faults
                .writing("dropping a day of receipts", || self.db.drop_space(old))?;
        }
        Ok(())
    }

    /// Where a signal's record is, newest day first.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn receipt(&self, shard: u16, hash: u128) -> Result<Option<Place>, Damaged> {
        let days: Vec<Space> = self.days.lock().values().rev().cloned().collect();
        for keyspace in days {
            let found = self.faults.reading("reading receipts", || {
                keyspace.get(receipt_key(shard, hash))
            })?;
            if let Some(value) = found
                && let Ok(bytes) = <[u8; 12]>::try_from(value.as_ref())
            {
                let (index, sub) = bytes.split_at(8);
                return Ok(Some((be64(index), be32(sub))));
            }
        }
        Ok(None)
    }

    /// The days of receipts, the oldest first.
    pub(super) fn days(&self) -> VecDeque<(u32, Space)> {
        let days = self.days.lock();
        days.iter().map(|(day, of)| (*day, of.clone())).collect()
    }
}

fn day_name(day: u32) -> String {
    format!("{DAY_PREFIX}{day}")
}

pub(super) fn receipt_key(shard: u16, hash: u128) -> [u8; 18] {
    let mut key = [0u8; 18];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..].copy_from_slice(&hash.to_be_bytes());
    key
}
