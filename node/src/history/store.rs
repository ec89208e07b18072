//! The history on disk: one fjall database per node, keys prefixed by shard.
//!
//! `records`: shard u16 | customer hash u64 | first log index u64 -> `stored::Records`, those of one customer
//! between two checkpoints. `receipts-<day>`: shard u16 | id hash 16 bytes -> log index u64 | place u32; a keyspace
//! a day, so that expiring is dropping. `marks`: shard u16 -> `stored::HistoryMark`.

use super::Record;
use super::waiting::{Place, Receipts, Taken};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::Mutex;
use prost::Message;
use sojourn_proto::stored;
use std::collections::BTreeMap;
use std::path::Path;

/// The history cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("history {place}: {why}")]
pub struct Damaged {
    place: String,
    why: String,
}

fn broken(place: &str) -> impl Fn(fjall::Error) -> Damaged + '_ {
    move |e| Damaged {
        place: place.to_owned(),
        why: e.to_string(),
    }
}

/// History of all shards of this node.
pub struct Store {
    db: Database,
    records: Keyspace,
    marks: Keyspace,
    days: Mutex<BTreeMap<u32, Keyspace>>,
}

const DAY_PREFIX: &str = "receipts-";

impl Store {
    /// Opens or creates the history in a folder.
    pub fn open(dir: &Path) -> Result<Store, Damaged> {
        let fail = broken("open");
        // the journal is synced by us, once a checkpoint
        let db = Database::builder(dir)
            .cache_size(64 << 20)
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()
            .map_err(&fail)?;
        let records = db
            .keyspace("records", KeyspaceCreateOptions::default)
            .map_err(&fail)?;
        let marks = db
            .keyspace("marks", KeyspaceCreateOptions::default)
            .map_err(&fail)?;
        let mut days = BTreeMap::new();
        for name in db.list_keyspace_names() {
            if let Some(day) = name.strip_prefix(DAY_PREFIX).and_then(|d| d.parse().ok()) {
                let keyspace = db
                    .keyspace(&name, KeyspaceCreateOptions::default)
                    .map_err(&fail)?;
                days.insert(day, keyspace);
            }
        }
        Ok(Store {
            db,
            records,
            marks,
            days: Mutex::new(days),
        })
    }

    /// Writes one checkpoint's worth: the receipt index, then records and mark in one atomic batch, then a sync.
    pub fn write(
        &self,
        shard: u16,
        day: u32,
        taken: &Taken,
        mark: &stored::HistoryMark,
    ) -> Result<(), Damaged> {
        self.write_receipts(shard, day, &taken.receipts)?;
        let fail = broken("write");
        let mut batch = self.db.batch();
        for (customer, records) in &taken.records {
            let Some(first) = records.first() else {
                continue;
            };
            let key = record_key(shard, *customer, first.index);
            batch.insert(&self.records, key, pack(records));
        }
        batch.insert(&self.marks, shard.to_be_bytes(), mark.encode_to_vec());
        batch.commit().map_err(&fail)?;
        self.db.persist(PersistMode::SyncAll).map_err(&fail)
    }

    fn write_receipts(&self, shard: u16, day: u32, receipts: &Receipts) -> Result<(), Damaged> {
        if receipts.is_empty() {
            return Ok(());
        }
        let fail = broken("receipts");
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
        batch.commit().map_err(&fail)
    }

    fn day(&self, day: u32) -> Result<Keyspace, Damaged> {
        let mut days = self.days.lock();
        if let Some(keyspace) = days.get(&day) {
            return Ok(keyspace.clone());
        }
        let keyspace = self
            .db
            .keyspace(
                &format!("{DAY_PREFIX}{day}"),
                KeyspaceCreateOptions::default,
            )
            .map_err(broken("receipts"))?;
        days.insert(day, keyspace.clone());
        Ok(keyspace)
    }

    /// Drops the receipt index of days before `day`.
    pub fn expire_before(&self, day: u32) -> Result<(), Damaged> {
        let mut days = self.days.lock();
        let keep = days.split_off(&day);
        for (_, old) in std::mem::replace(&mut *days, keep) {
            self.db.delete_keyspace(old).map_err(broken("receipts"))?;
        }
        Ok(())
    }

    /// Where a signal's record is, newest day first.
    pub fn receipt(&self, shard: u16, hash: u128) -> Result<Option<Place>, Damaged> {
        let days: Vec<Keyspace> = self.days.lock().values().rev().cloned().collect();
        for keyspace in days {
            let found = keyspace
                .get(receipt_key(shard, hash))
                .map_err(broken("receipts"))?;
            if let Some(value) = found
                && let Ok(bytes) = <[u8; 12]>::try_from(value.as_ref())
            {
                let (index, sub) = bytes.split_at(8);
                return Ok(Some((be64(index), be32(sub))));
            }
        }
        Ok(None)
    }

    /// All records of one customer from log index `from` on, in log order.
    pub fn records(&self, shard: u16, customer: u64, from: u64) -> Result<Vec<Record>, Damaged> {
        let mut all = Vec::new();
        // the value that holds `from` may begin before it
        let low = record_key(shard, customer, 0);
        let high = record_key(shard, customer, u64::MAX);
        for guard in self.records.range(low..=high) {
            let value = guard.value().map_err(broken("records"))?;
            all.extend(
                unpack(&value)?
                    .into_iter()
                    .filter(|record| record.index >= from),
            );
        }
        Ok(all)
    }

    /// Every record of a shard, customer by customer: what a shard is rebuilt from.
    pub fn each_record(
        &self,
        shard: u16,
        mut f: impl FnMut(u64, Record) -> Result<(), Damaged>,
    ) -> Result<(), Damaged> {
        for guard in self.records.prefix(shard.to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(broken("records"))?;
            let Some(customer) = key.get(2..10) else {
                return Err(Damaged {
                    place: "records".into(),
                    why: format!("a key of {} bytes", key.len()),
                });
            };
            let customer = be64(customer);
            for record in unpack(&value)? {
                f(customer, record)?;
            }
        }
        Ok(())
    }

    /// The mark of the last checkpoint of a shard.
    pub fn mark(&self, shard: u16) -> Result<Option<stored::HistoryMark>, Damaged> {
        let found = self
            .marks
            .get(shard.to_be_bytes())
            .map_err(broken("marks"))?;
        found
            .map(|value| {
                stored::HistoryMark::decode(value.as_ref()).map_err(|e| Damaged {
                    place: "marks".into(),
                    why: e.to_string(),
                })
            })
            .transpose()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }
}

fn record_key(shard: u16, customer: u64, index: u64) -> [u8; 18] {
    let mut key = [0u8; 18];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..10].copy_from_slice(&customer.to_be_bytes());
    key[10..].copy_from_slice(&index.to_be_bytes());
    key
}

fn receipt_key(shard: u16, hash: u128) -> [u8; 18] {
    let mut key = [0u8; 18];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..].copy_from_slice(&hash.to_be_bytes());
    key
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// One format byte, then `stored::Records`, compressed.
const FORMAT: u8 = 1;

fn pack(records: &[Record]) -> Vec<u8> {
    let message = stored::PackedRecords {
        records: records
            .iter()
            .map(|r| stored::PackedRecord {
                index: r.index,
                sub: r.sub,
                decision: r.bytes.clone(),
            })
            .collect(),
    };
    let mut out = vec![FORMAT];
    // encoding into a Vec cannot fail: it grows
    message.encode(&mut out).unwrap_or_default();
    out
}

fn unpack(bytes: &[u8]) -> Result<Vec<Record>, Damaged> {
    let damaged = |why: String| Damaged {
        place: "records".into(),
        why,
    };
    match bytes.split_first() {
        Some((&FORMAT, rest)) => {
            let message = stored::PackedRecords::decode(bytes::Bytes::copy_from_slice(rest))
                .map_err(|e| damaged(e.to_string()))?;
            Ok(message
                .records
                .into_iter()
                .map(|r| Record {
                    index: r.index,
                    sub: r.sub,
                    bytes: r.decision,
                })
                .collect())
        }
        Some((format, _)) => Err(damaged(format!(
            "format {format}, this version reads {FORMAT}"
        ))),
        None => Err(damaged("an empty value".into())),
    }
}
