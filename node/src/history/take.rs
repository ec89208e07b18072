//! Taking a shard's history from another node, and forgetting a shard's history.
//!
//! What is taken goes where it belongs at once, and counts only when the mark moves, at the very end. Until then the
//! shard is *ahead*: behind its mark stands history that does not count. Records there are removed before others are
//! written there, by a checkpoint or by another taking, so that no two values of a customer overlap; of the indexes
//! nothing is removed, for what they are ahead with will be so.
//!
//! It does not know who gives, nor what a record means: [`Check`] does.

use super::Record;
use super::Store;
use super::engine::{Batch, Space};
use super::fault::Damaged;
use super::index::{FORMAT, away_key, ended_key, join_unmatched, place_of, unmatched_key};
use super::piece::{self, Unpacking};
use super::receipts::receipt_key;
use super::store::{be64, pack, record_key};
use super::waiting::Place;
use crate::bugs;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use sojourn_proto::stored::{self, history_item::Item};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Beside the mark of a shard, `shard u16 | 1` -> `stored::HistoryAhead`, while it is ahead.
const AHEAD: u8 = 1;
/// `shard u16 | 2` -> nothing: the shard is being forgotten.
const FORGOTTEN: u8 = 2;

/// Keys that are removed at once.
const TOGETHER: usize = 4_096;

/// Says whether what another node gives is what it should be.
pub trait Check {
    /// # Errors
    /// A text that says what is wrong with it.
    fn customer(&self, customer: &stored::HistoryCustomer) -> Result<(), String>;
    /// # Errors
    /// A text that says what is wrong with it.
    fn mark(&self, mark: &stored::HistoryMark) -> Result<(), String>;
}

/// Who writes the history of a shard holds its desk.
#[derive(Default)]
pub(super) struct Desk {
    /// What is below was read from disk.
    ready: bool,
    /// What stands behind the mark without counting goes up to this log index; 0: there is none.
    ahead: u64,
    taking: Option<Taking>,
}

impl Desk {
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// A checkpoint comes between: what is being taken begins anew, behind it.
    pub(super) fn interrupt(&mut self) {
        self.taking = None;
    }
}

/// History that is being taken.
struct Taking {
    pieces: Unpacking,
    mark: Option<Bytes>,
}

type Receipts = BTreeMap<u32, Vec<(u128, Place)>>;

fn marker(shard: u16, kind: u8) -> [u8; 3] {
    let [high, low] = shard.to_be_bytes();
    [high, low, kind]
}

impl Store {
    pub(super) fn desk(&self, shard: u16) -> Arc<Mutex<Desk>> {
        self.desks.lock().entry(shard).or_default().clone()
    }

    /// Sees to it that nothing stands in the way of who writes a shard's history: ends a forgetting that was broken off.
    pub(super) fn ready(&self, shard: u16, desk: &mut Desk) -> Result<(), Damaged> {
        if desk.ready {
            return Ok(());
        }
        let (ahead, forgotten) = self.faults.reading("reading marks", || {
            Ok((
                self.marks.get(marker(shard, AHEAD))?,
                self.marks.get(marker(shard, FORGOTTEN))?,
            ))
        })?;
        if forgotten.is_some() {
            self.forget_rest(shard)?;
        } else if let Some(ahead) = ahead {
            let ahead = stored::HistoryAhead::decode(ahead.as_ref())
                .map_err(|e| self.faults.damaged("reading marks", e.to_string()))?;
            desk.ahead = ahead.up_to;
        }
        desk.ready = true;
        Ok(())
    }

    /// Up to which log index anything of a shard's history may be: its mark, or beyond it what is being taken. A replica
    /// that has not applied so much may find there what it does not know yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn reach(&self, shard: u16) -> Result<u64, Damaged> {
        let desk = self.desk(shard);
        let mut desk = desk.lock();
        self.ready(shard, &mut desk)?;
        let mark = self.mark(shard)?.map_or(0, |mark| mark.up_to);
        Ok(mark.max(desk.ahead))
    }

    /// Takes one piece of a shard's history. `days`: those of which receipts are kept; of a later day than the last, they
    /// are kept with that one.
    ///
    /// # Errors
    /// A text: it is no piece, not the next one, of another shard, has a gap before it, or cannot be written. The taking
    /// has ended then, and nothing of it counts.
    pub fn take_piece(
        &self,
        shard: u16,
        bytes: &[u8],
        days: RangeInclusive<u32>,
        check: &dyn Check,
    ) -> Result<(), String> {
        self.sound().map_err(|e| e.to_string())?;
        let desk = self.desk(shard);
        let mut desk = desk.lock();
        let taken = self.try_take(shard, &mut desk, bytes, &days, check);
        if taken.is_err() {
            desk.taking = None;
        }
        taken
    }

    fn try_take(
        &self,
        shard: u16,
        desk: &mut Desk,
        bytes: &[u8],
        days: &RangeInclusive<u32>,
        check: &dyn Check,
    ) -> Result<(), String> {
        let text = |e: Damaged| e.to_string();
        let piece = piece::decode(bytes)?;
        if piece.shard != u32::from(shard) {
            return Err(format!(
                "found history of shard {}, expected that of shard {shard}",
                piece.shard
            ));
        }
        self.ready(shard, desk).map_err(text)?;
        let has = self.mark(shard).map_err(text)?.map_or(0, |m| m.up_to);
        let begins = piece.number == 0;
        let mut taking = if begins {
            if piece.after > has {
                return Err(format!(
                    "found history behind entry {}, expected it behind {has} or before",
                    piece.after
                ));
            }
            Taking {
                pieces: Unpacking::new(&piece),
                mark: None,
            }
        } else {
            desk.taking.take().ok_or_else(|| {
                format!(
                    "found piece {} of history, expected piece 0: none is being taken",
                    piece.number
                )
            })?
        };
        let (after, up_to) = (taking.pieces.after, taking.pieces.up_to);
        // all of it is looked at before any of it is written
        let mut customers = Vec::new();
        let mut unmatched = Vec::new();
        let mut receipts = Receipts::new();
        for item in taking.pieces.take(piece)? {
            if taking.mark.is_some() {
                return Err("an item of history comes after the mark, the last one".to_owned());
            }
            let inside = |index: u64| {
                if index > after && index <= up_to {
                    return Ok(());
                }
                Err(format!(
                    "found history of entry {index}, expected it of {after} (without it) to {up_to}"
                ))
            };
            match item {
                Item::Customer(customer) => {
                    customer.records.iter().try_for_each(|r| inside(r.index))?;
                    check.customer(&customer)?;
                    customers.push(customer);
                }
                Item::Receipts(_) if bugs::has(bugs::Bug::ForgottenReceipts) => {}
                Item::Receipts(some) => {
                    let day = some.day.min(*days.end());
                    for receipt in some.receipts {
                        inside(receipt.index)?;
                        let hash = <[u8; 16]>::try_from(receipt.hash.as_ref()).map_err(|_| {
                            let found = receipt.hash.len();
                            format!("found a receipt's hash of {found} bytes, expected 16")
                        })?;
                        let receipt = (u128::from_be_bytes(hash), (receipt.index, receipt.sub));
                        // it may have expired on its way
                        if day >= *days.start() {
                            receipts.entry(day).or_default().push(receipt);
                        }
                    }
                }
                Item::Unmatched(some) => {
                    for signal in &some.signals {
                        inside(place_of(signal)?.0)?;
                    }
                    unmatched.push(some);
                }
                Item::Mark(mark) => {
                    let found = stored::HistoryMark::decode(mark.clone())
                        .map_err(|e| format!("the mark of history cannot be decoded: {e}"))?;
                    if found.up_to != up_to {
                        return Err(format!(
                            "the mark is at entry {}, the pieces go up to {up_to}",
                            found.up_to
                        ));
                    }
                    check.mark(&found)?;
                    taking.mark = Some(mark);
                }
            }
        }
        if begins {
            self.begin_taking(shard, desk, has, up_to).map_err(text)?;
        }
        let mut batch = self.db.batch();
        for customer in &customers {
            self.put_customer(&mut batch, shard, has, customer);
        }
        for some in &unmatched {
            let signals = some.signals.iter().filter_map(|signal| {
                let place = place_of(signal).ok()?;
                (place.0 > has).then_some((place, signal))
            });
            let signals: Vec<(Place, &Bytes)> = signals.collect();
            if let Some((first, _)) = signals.first() {
                let key = unmatched_key(shard, *first);
                let value = join_unmatched(some.at, signals.iter().map(|(_, s)| *s));
                batch.insert(&self.unmatched, key, value);
            }
        }
        self.put_receipts(batch, shard, &receipts).map_err(text)?;
        desk.taking = Some(taking);
        Ok(())
    }

    /// From now on the shard is ahead; what was behind its mark before is gone.
    fn begin_taking(
        &self,
        shard: u16,
        desk: &mut Desk,
        has: u64,
        up_to: u64,
    ) -> Result<(), Damaged> {
        if desk.ahead > 0 {
            self.clear_behind(shard, has)?;
        }
        let up_to = desk.ahead.max(up_to);
        let ahead = stored::HistoryAhead { up_to };
        let mut batch = self.db.batch();
        batch.insert(&self.marks, marker(shard, AHEAD), ahead.encode_to_vec());
        // on disk before anything of it: the journal keeps the order
        self.faults.writing("writing marks", || batch.commit())?;
        desk.ahead = up_to;
        Ok(())
    }

    fn put_customer(
        &self,
        batch: &mut Batch,
        shard: u16,
        has: u64,
        customer: &stored::HistoryCustomer,
    ) {
        let records: Vec<Record> = customer
            .records
            .iter()
            .filter(|r| r.index > has)
            .map(|r| Record {
                index: r.index,
                sub: r.sub,
                bytes: r.decision.clone(),
            })
            .collect();
        if let Some(first) = records.first() {
            let key = record_key(shard, customer.hash, first.index);
            batch.insert(&self.records, key, pack(&records));
        }
        for ended in &customer.ended {
            let key = ended_key(shard, (customer.hash, ended.slot, ended.run));
            let mut value = Vec::with_capacity(1 + ended.ended.len());
            value.push(FORMAT);
            value.extend_from_slice(&ended.ended);
            batch.insert(&self.ended, key, value);
        }
        let key = away_key(shard, customer.hash);
        match &customer.away {
            Some(away) if away.is_empty() => batch.remove(&self.away, key),
            Some(away) => batch.insert(&self.away, key, away.as_ref()),
            None => {}
        }
    }

    /// Writes a batch, and these receipts with it.
    fn put_receipts(
        &self,
        mut batch: Batch,
        shard: u16,
        receipts: &Receipts,
    ) -> Result<(), Damaged> {
        for day in receipts.keys() {
            self.day(*day)?;
        }
        // held until they are written: a day that is dropped meanwhile takes nothing any more
        let days = self.days.lock();
        for (day, receipts) in receipts {
            let Some(keyspace) = days.get(day) else {
                continue;
            };
            for (hash, (index, sub)) in receipts {
                let mut value = [0u8; 12];
                value[..8].copy_from_slice(&index.to_be_bytes());
                value[8..].copy_from_slice(&sub.to_be_bytes());
                batch.insert(keyspace, receipt_key(shard, *hash), value);
            }
        }
        self.faults.writing("writing history", || batch.commit())
    }

    /// All history up to log index `up_to` was given: the mark moves, and it is durable. Answers how far it goes now.
    ///
    /// # Errors
    /// A text: something is missing, or it cannot be written. Nothing of it counts then.
    pub fn taken(&self, shard: u16, up_to: u64) -> Result<u64, String> {
        let text = |e: Damaged| e.to_string();
        self.sound().map_err(text)?;
        let desk = self.desk(shard);
        let mut desk = desk.lock();
        self.ready(shard, &mut desk).map_err(text)?;
        let taking = desk.taking.take();
        let has = self.mark(shard).map_err(text)?.map(|m| m.up_to);
        let Some(taking) = taking else {
            return Err(format!(
                "no history of shard {shard} is being taken: a piece of it was refused, or a checkpoint was made meanwhile"
            ));
        };
        let given = taking.pieces.up_to;
        let Some(mark) = taking.mark.filter(|_| !taking.pieces.is_open()) else {
            return Err(format!(
                "history of shard {shard} is not complete: its mark is missing"
            ));
        };
        if given < up_to {
            return Err(format!(
                "history of shard {shard} goes up to entry {given}, expected {up_to} at least"
            ));
        }
        let has = match has {
            Some(has) if has >= given => has,
            _ => given,
        };
        let mut batch = self.db.batch();
        if has == given {
            batch.insert(&self.marks, shard.to_be_bytes(), mark.as_ref());
        }
        if desk.ahead <= has {
            batch.remove(&self.marks, marker(shard, AHEAD));
        }
        self.faults
            .writing("writing marks", || {
                batch.commit()?;
                self.db.sync()
            })
            .map_err(text)?;
        if desk.ahead <= has {
            desk.ahead = 0;
        }
        Ok(has)
    }

    /// Before a checkpoint up to `up_to` writes behind the mark: what stands there goes. Its batch says so.
    pub(super) fn catch_up(
        &self,
        batch: &mut Batch,
        shard: u16,
        desk: &Desk,
        (has, up_to): (u64, u64),
    ) -> Result<(), Damaged> {
        if desk.ahead > 0 {
            self.clear_behind(shard, has)?;
            if desk.ahead <= up_to {
                batch.remove(&self.marks, marker(shard, AHEAD));
            }
        }
        Ok(())
    }

    /// The checkpoint of [`Self::catch_up`] is written.
    pub(super) fn caught_up(&self, desk: &mut Desk, up_to: u64) {
        desk.interrupt();
        if desk.ahead <= up_to {
            desk.ahead = 0;
        }
    }

    /// Removes the records and unmatched signals behind log index `has`.
    fn clear_behind(&self, shard: u16, has: u64) -> Result<(), Damaged> {
        let prefix = shard.to_be_bytes();
        self.remove(&self.records, &prefix, None, |key| {
            key.get(10..18).is_some_and(|index| be64(index) > has)
        })?;
        self.remove(&self.unmatched, &prefix, None, |key| {
            key.get(2..10).is_some_and(|index| be64(index) > has)
        })
    }

    /// Removes keys that begin so, if they are to go; of a day's receipts, while the day is kept.
    fn remove(
        &self,
        from: &Space,
        prefix: &[u8],
        day: Option<u32>,
        goes: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Damaged> {
        const DOING: &str = "removing history";
        let mut keys = self.faults.reading(DOING, || Ok(from.prefix(prefix)))?;
        loop {
            let mut batch = self.db.batch();
            let mut ended = false;
            while batch.len() < TOGETHER {
                let next = self.faults.reading(DOING, || keys.next_key())?;
                match next {
                    Some(key) if goes(&key) => batch.remove(from, key),
                    Some(_) => {}
                    None => {
                        ended = true;
                        break;
                    }
                }
            }
            if !batch.is_empty() {
                // no write may meet a day that is being dropped; signals ask for days, so it is not held for longer
                let days = day.map(|day| (day, self.days.lock()));
                if let Some((day, days)) = &days
                    && !days.contains_key(day)
                {
                    return Ok(());
                }
                self.faults.writing(DOING, || batch.commit())?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Forgets the history of a shard of which this node has no replica any more; the group must be closed. The mark goes
    /// first, and durably, so that nobody takes the rest for whole. Broken off, it is ended by the next call, by
    /// [`Self::take_piece`], or by the next checkpoint of the shard.
    ///
    /// # Errors
    /// Refused by the file system, or condemned.
    pub fn forget_shard(&self, shard: u16) -> Result<(), Damaged> {
        self.sound()?;
        let desk = self.desk(shard);
        let mut desk = desk.lock();
        self.begin_forgetting(shard)?;
        self.forget_rest(shard)?;
        *desk = Desk::default();
        Ok(())
    }

    pub(super) fn begin_forgetting(&self, shard: u16) -> Result<(), Damaged> {
        let mut batch = self.db.batch();
        batch.insert(&self.marks, marker(shard, FORGOTTEN), [FORMAT]);
        batch.remove(&self.marks, shard.to_be_bytes());
        batch.remove(&self.marks, marker(shard, AHEAD));
        self.faults.writing("forgetting a shard", || {
            batch.commit()?;
            self.db.sync()
        })
    }

    fn forget_rest(&self, shard: u16) -> Result<(), Damaged> {
        let prefix = shard.to_be_bytes();
        for keyspace in [&self.records, &self.ended, &self.away, &self.unmatched] {
            self.remove(keyspace, &prefix, None, |_| true)?;
        }
        for (day, keyspace) in self.days() {
            self.remove(&keyspace, &prefix, Some(day), |_| true)?;
        }
        let mut batch = self.db.batch();
        batch.remove(&self.marks, marker(shard, FORGOTTEN));
        self.faults.writing("forgetting a shard", || {
            batch.commit()?;
            self.db.sync()
        })
    }

    /// The shards whose forgetting was begun and not ended, rising.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn half_forgotten(&self) -> Result<Vec<u16>, Damaged> {
        let mut shards = Vec::new();
        self.each_value(
            || self.marks.iter(),
            |key, _| {
                if let [high, low, FORGOTTEN] = key {
                    shards.push(u16::from_be_bytes([*high, *low]));
                }
                Ok(())
            },
        )?;
        Ok(shards)
    }
}
