//! Giving a shard's history to another node, in pieces, as it is at one moment.
//!
//! Everything that changes in the indexes of a customer comes with a decision of that customer: an execution ends, they
//! leave memory, they come back. So whoever has history up to `after` lacks the records behind it and the indexes of
//! exactly those customers. It does not know who asks.

use super::Store;
use super::engine::{Rows, Snapshot, Space};
use super::fault::Damaged;
use super::index::{away_key, ended_key, place_of, split_unmatched, unmatched_key};
use super::piece::{PIECE_BYTES, Packing};
use super::receipts::receipt_key;
use super::store::{be32, be64, unpack};
use bytes::Bytes;
use fjall::KvPair;
use prost::Message;
use sojourn_cluster::HistoryPieces;
use sojourn_proto::stored::{self, history_item::Item};
use std::collections::VecDeque;
use std::sync::Arc;

/// Receipts of one item.
const RECEIPTS: usize = 4_096;
/// Records of one item have about this many bytes.
const RECORD_BYTES: usize = PIECE_BYTES / 2;

/// A shard's history on its way to another node.
pub struct Giving {
    store: Arc<Store>,
    shard: u16,
    after: u64,
    up_to: u64,
    mark: Bytes,
    snapshot: Snapshot,
    next: Next,
    packing: Packing,
}

/// What comes next.
enum Next {
    /// Customers; the last one whose records were given, and not yet its indexes.
    Customers(Rows, Option<u64>),
    /// Receipts: the day being given, and those that follow.
    Receipts(Option<(u32, Rows)>, VecDeque<(u32, Space)>),
    /// Unmatched signals; those read last and not yet given.
    Unmatched(Rows, Option<stored::HistoryUnmatched>),
    Mark,
    Nothing,
}

impl Store {
    /// Gives what a shard's history has behind log index `after`, up to `up_to` at least, as it is now. It holds old
    /// values of fjall back until it is dropped.
    ///
    /// # Errors
    /// A text: it cannot be read, or does not go so far.
    pub fn give(self: &Arc<Self>, shard: u16, after: u64, up_to: u64) -> Result<Giving, String> {
        let text = |e: Damaged| e.to_string();
        self.sound().map_err(text)?;
        // the mark first and the days with it, under the desk: nobody writes this shard meanwhile
        let desk = self.desk(shard);
        let mut desk = desk.lock();
        self.ready(shard, &mut desk).map_err(text)?;
        let snapshot = self
            .faults
            .reading("looking at it", || Ok(self.db.snapshot()))
            .map_err(text)?;
        let mark = self.raw_mark(shard).map_err(text)?;
        let Some(mark) = mark else {
            return Err(format!("there is no history of shard {shard}"));
        };
        let has = stored::HistoryMark::decode(mark.clone())
            .map_err(|e| format!("the mark of shard {shard} cannot be decoded: {e}"))?
            .up_to;
        if has < up_to {
            return Err(format!(
                "history of shard {shard} ends at entry {has}, expected {up_to} at least"
            ));
        }
        if desk.ahead() > has {
            return Err(format!(
                "some history of shard {shard} is of entry {} already, the rest of {has}: the next checkpoint mends that",
                desk.ahead()
            ));
        }
        let records = self
            .faults
            .reading("reading records", || {
                snapshot.prefix(&self.records, shard.to_be_bytes())
            })
            .map_err(text)?;
        Ok(Giving {
            store: self.clone(),
            shard,
            after,
            up_to: has,
            mark,
            snapshot,
            next: Next::Customers(records, None),
            packing: Packing::new(shard, after, has),
        })
    }
}

impl Giving {
    fn is_given(&self, index: u64) -> bool {
        index > self.after && index <= self.up_to
    }

    /// The next key and value.
    fn read(&self, from: &mut Rows) -> Result<Option<KvPair>, Damaged> {
        self.store
            .faults
            .reading("reading history to give", || from.next().transpose())
    }

    fn range(&self, of: &Space, low: &[u8], high: &[u8]) -> Result<Rows, Damaged> {
        self.store.faults.reading("reading history to give", || {
            self.snapshot.range(of, low..=high)
        })
    }

    /// Goes a little further.
    fn step(&mut self) -> Result<(), Damaged> {
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Customers(mut records, open) => {
                let Some((key, value)) = self.read(&mut records)? else {
                    self.close(open)?;
                    self.next = Next::Receipts(None, self.store.days());
                    return Ok(());
                };
                let hash = self.store.customer_of(&key)?;
                let mut open = open;
                if open.is_some_and(|open| open != hash) {
                    self.close(open.take())?;
                }
                if self.give_records(hash, &value)? {
                    open = Some(hash);
                }
                self.next = Next::Customers(records, open);
            }
            Next::Receipts(None, mut days) => {
                let Some((day, keyspace)) = days.pop_front() else {
                    let low = unmatched_key(self.shard, (0, 0));
                    let high = unmatched_key(self.shard, (u64::MAX, u32::MAX));
                    let unmatched = self.range(&self.store.unmatched, &low, &high)?;
                    self.next = Next::Unmatched(unmatched, None);
                    return Ok(());
                };
                let low = receipt_key(self.shard, 0);
                let high = receipt_key(self.shard, u128::MAX);
                let receipts = self.range(&keyspace, &low, &high)?;
                self.next = Next::Receipts(Some((day, receipts)), days);
            }
            Next::Receipts(Some((day, mut receipts)), days) => {
                let more = self.give_receipts(day, &mut receipts)?;
                self.next = Next::Receipts(more.then_some((day, receipts)), days);
            }
            Next::Unmatched(mut values, last) => {
                let Some((_, value)) = self.read(&mut values)? else {
                    if let Some(last) = last {
                        self.packing.push(Item::Unmatched(last));
                    }
                    self.next = Next::Mark;
                    return Ok(());
                };
                let last = self.give_unmatched(last, &value)?;
                self.next = Next::Unmatched(values, last);
            }
            Next::Mark => self.packing.push(Item::Mark(self.mark.clone())),
            Next::Nothing => {}
        }
        Ok(())
    }

    /// Gives the records of a value that are wanted; says whether there are any.
    fn give_records(&mut self, hash: u64, value: &[u8]) -> Result<bool, Damaged> {
        let records = unpack(value).map_err(|why| self.store.damaged(why))?;
        let mut some = Vec::new();
        let mut bytes = 0;
        let mut any = false;
        for record in records {
            if !self.is_given(record.index) {
                continue;
            }
            any = true;
            bytes += record.bytes.len();
            some.push(stored::PackedRecord {
                index: record.index,
                sub: record.sub,
                decision: record.bytes,
            });
            if bytes >= RECORD_BYTES {
                self.push_records(hash, std::mem::take(&mut some));
                bytes = 0;
            }
        }
        if !some.is_empty() {
            self.push_records(hash, some);
        }
        Ok(any)
    }

    fn push_records(&mut self, hash: u64, records: Vec<stored::PackedRecord>) {
        self.packing.push(Item::Customer(stored::HistoryCustomer {
            hash,
            records,
            ended: Vec::new(),
            away: None,
        }));
    }

    /// Gives what the indexes have of a customer of whom records were given.
    fn close(&mut self, hash: Option<u64>) -> Result<(), Damaged> {
        let Some(hash) = hash else { return Ok(()) };
        let low = ended_key(self.shard, (hash, 0, 0));
        let high = ended_key(self.shard, (hash, u64::MAX, u32::MAX));
        let mut values = self.range(&self.store.ended, &low, &high)?;
        let mut ended = Vec::new();
        let mut bytes = 0;
        while let Some((key, value)) = self.read(&mut values)? {
            let found: stored::EndedExecution = self.store.decode(&value, 0)?;
            if !self.is_given(found.index) {
                continue;
            }
            let (_, slot, run) = self.store.run_of(&key)?;
            bytes += value.len();
            ended.push(stored::HistoryEnded {
                slot,
                run,
                ended: Bytes::copy_from_slice(value.get(1..).unwrap_or_default()),
            });
            if bytes >= RECORD_BYTES {
                self.push_ended(hash, std::mem::take(&mut ended), None);
                bytes = 0;
            }
        }
        let away = self.store.faults.reading("reading customers", || {
            self.snapshot
                .get(&self.store.away, away_key(self.shard, hash))
        })?;
        let away = away.map_or_else(Bytes::new, |packed| Bytes::copy_from_slice(&packed));
        self.push_ended(hash, ended, Some(away));
        Ok(())
    }

    fn push_ended(&mut self, hash: u64, ended: Vec<stored::HistoryEnded>, away: Option<Bytes>) {
        self.packing.push(Item::Customer(stored::HistoryCustomer {
            hash,
            records: Vec::new(),
            ended,
            away,
        }));
    }

    /// Gives some receipts of a day; says whether there may be more.
    fn give_receipts(&mut self, day: u32, from: &mut Rows) -> Result<bool, Damaged> {
        let mut receipts = Vec::new();
        let mut more = true;
        while more && receipts.len() < RECEIPTS {
            let Some((key, value)) = self.read(from)? else {
                more = false;
                break;
            };
            let (Some(hash), Some(index), Some(sub)) =
                (key.get(2..18), value.get(..8), value.get(8..12))
            else {
                return Err(self.store.damaged(format!(
                    "found a receipt of {} and {} bytes, expected 18 and 12",
                    key.len(),
                    value.len()
                )));
            };
            let index = be64(index);
            if self.is_given(index) {
                receipts.push(stored::HistoryReceipt {
                    hash: Bytes::copy_from_slice(hash),
                    index,
                    sub: be32(sub),
                });
            }
        }
        if !receipts.is_empty() {
            let receipts = stored::HistoryReceipts { day, receipts };
            self.packing.push(Item::Receipts(receipts));
        }
        Ok(more)
    }

    /// Takes those of a value that are wanted. They are stored under the place of their first one, so what stands at one
    /// place is never given apart.
    fn give_unmatched(
        &mut self,
        last: Option<stored::HistoryUnmatched>,
        value: &[u8],
    ) -> Result<Option<stored::HistoryUnmatched>, Damaged> {
        let damaged = |why: String| self.store.damaged(why);
        let place = |signal: Option<&Bytes>| signal.map(place_of).transpose().map_err(damaged);
        let (at, signals) = split_unmatched(value).map_err(damaged)?;
        let mut given = Vec::with_capacity(signals.len());
        for signal in signals {
            if self.is_given(place_of(&signal).map_err(damaged)?.0) {
                given.push(signal);
            }
        }
        if given.is_empty() {
            return Ok(last);
        }
        let mut new = stored::HistoryUnmatched { at, signals: given };
        let Some(mut last) = last else {
            return Ok(Some(new));
        };
        if place(last.signals.last())? == place(new.signals.first())? {
            last.at = last.at.max(at);
            last.signals.append(&mut new.signals);
            return Ok(Some(last));
        }
        self.packing.push(Item::Unmatched(last));
        Ok(Some(new))
    }
}

impl HistoryPieces for Giving {
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, String> {
        while !self.packing.is_full() && !matches!(self.next, Next::Nothing) {
            self.step().map_err(|e| e.to_string())?;
        }
        Ok(self.packing.next())
    }
}
