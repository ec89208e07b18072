//! The history on disk: one fjall database per node, keys prefixed by shard; see [`super::engine`].
//!
//! `records`: shard u16 | customer hash u64 | first log index u64 -> `stored::PackedRecords`, those of one customer
//! between two checkpoints. `receipts-<day>`: shard u16 | id hash 16 bytes -> log index u64 | place u32; a keyspace
//! a day, so that expiring is dropping. `marks`: shard u16 -> `stored::HistoryMark`; for what else stands there see
//! [`super::take`]. `catalog`: the catalog's last checkpoint once more. The others stand in [`super::index`].

use super::Record;
use super::engine::{Db, Memory, Rows, Space};
use super::fault::{Damaged, Faults, listed, precheck};
use super::take::Desk;
use super::waiting::Batch;
use fjall::{Database, KeyspaceCreateOptions};
use parking_lot::Mutex;
use prost::Message;
use sojourn_cluster::Failure;
use sojourn_proto::stored;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;

/// History of all shards of this node.
pub struct Store {
    pub(super) db: Db,
    pub(super) records: Space,
    pub(super) marks: Space,
    catalog: Space,
    pub(super) ended: Space,
    pub(super) away: Space,
    pub(super) unmatched: Space,
    pub(super) days: Mutex<BTreeMap<u32, Space>>,
    /// One a shard, made when it is first asked for.
    pub(super) desks: Mutex<HashMap<u16, Arc<Mutex<Desk>>>>,
    /// The names of all keyspaces, as they stand in the list on disk.
    pub(super) names: Mutex<BTreeSet<String>>,
    pub(super) shortened: AtomicU64,
    pub(super) faults: Faults,
}

/// The catalog as it was at its last checkpoint.
pub struct CatalogCopy {
    /// Of cluster: position and membership.
    pub manifest: Vec<u8>,
    /// The catalog's own stored form.
    pub state: Vec<u8>,
}

/// What is not in tables yet is read back from the journal at a start, and is in memory until then: little of it keeps
/// both small. The least that fjall takes.
const JOURNAL_BYTES: u64 = 64 << 20;
/// What reads of history keep of the tables; the page cache keeps more.
const CACHE_BYTES: u64 = 32 << 20;
/// What one keyspace gathers in memory before it writes a table.
const MEMTABLE_BYTES: u64 = 8 << 20;

pub(super) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

pub(super) const DAY_PREFIX: &str = "receipts-";

const CATALOG_MANIFEST: &[u8] = b"manifest";
const CATALOG_STATE: &[u8] = b"state";

impl Store {
    /// Opens or creates the history in a folder.
    ///
    /// # Errors
    /// It is damaged, in use, or the file system refused.
    pub fn open(dir: &Path) -> Result<Store, Damaged> {
        precheck(dir)?;
        let faults = Faults::new(Some(dir));
        let listed = listed(dir)?;
        // the journal is synced by us, once a checkpoint
        let db = faults.reading("opening it", || {
            Database::builder(dir)
                .cache_size(CACHE_BYTES)
                .worker_threads(1)
                .manual_journal_persist(true)
                .max_journaling_size(JOURNAL_BYTES)
                .open()
        })?;
        Store::over(Db::Fjall(db), faults, listed)
    }

    /// Opens or creates the history on a simulated disk.
    ///
    /// # Errors
    /// It is damaged.
    pub fn in_memory(memory: Arc<Memory>) -> Result<Store, Damaged> {
        Store::over(Db::Memory(memory), Faults::new(None), BTreeSet::new())
    }

    /// `names`: the spaces that there must be.
    fn over(db: Db, faults: Faults, mut names: BTreeSet<String>) -> Result<Store, Damaged> {
        let found = faults.reading("opening it", || Ok(db.names()))?;
        faults.complete(&names, found.iter().map(String::as_str))?;
        let ([records, marks, catalog, ended, away, unmatched], days) =
            faults.reading("opening it", || {
                let open = |name: &str| db.space(name, options);
                let mut days = BTreeMap::new();
                for name in &found {
                    if let Some(day) = name.strip_prefix(DAY_PREFIX).and_then(|d| d.parse().ok()) {
                        days.insert(day, open(name)?);
                    }
                }
                let fixed = [
                    open("records")?,
                    open("marks")?,
                    open("catalog")?,
                    open("ended")?,
                    open("away")?,
                    open("unmatched")?,
                ];
                Ok((fixed, days))
            })?;
        let all = db.names().into_iter().collect();
        if names != all {
            faults.list(&all)?;
            names = all;
        }
        Ok(Store {
            db,
            records,
            marks,
            catalog,
            ended,
            away,
            unmatched,
            days: Mutex::new(days),
            desks: Mutex::default(),
            names: Mutex::new(names),
            shortened: AtomicU64::new(0),
            faults,
        })
    }

    /// Why history cannot be written any more, once a write has failed: the node must end then.
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.faults.failed()
    }

    /// From now on nothing is written: what is here does not fit to the rest of the data folder, and writing on would
    /// hide that.
    pub fn condemn(&self, why: String) {
        self.faults.condemn(why);
    }

    /// Why it was condemned, if it was.
    ///
    /// # Errors
    /// That is the answer.
    pub fn sound(&self) -> Result<(), Damaged> {
        self.faults.sound()
    }

    /// Writes one checkpoint's worth: the receipt index, then records, indexes and mark in one atomic batch, then a
    /// sync. What another node gave already is not written again; a mark never goes back.
    ///
    /// # Errors
    /// Refused by the file system, or condemned. What was written is not known then, and nothing more is taken.
    pub fn write(
        &self,
        shard: u16,
        day: u32,
        taken: &Batch,
        mark: &stored::HistoryMark,
    ) -> Result<(), Damaged> {
        self.sound()?;
        let desk = self.desk(shard);
        let mut desk = desk.lock();
        self.ready(shard, &mut desk)?;
        let last = self.mark(shard)?.map(|m| m.up_to);
        if last.is_some_and(|last| last >= mark.up_to) {
            return Ok(());
        }
        let has = last.unwrap_or(0);
        self.write_receipts(shard, day, &taken.receipts)?;
        let mut batch = self.db.batch();
        self.catch_up(&mut batch, shard, &desk, (has, mark.up_to))?;
        for (customer, records) in &taken.records {
            let records = &records[records.partition_point(|r| r.index <= has)..];
            let Some(first) = records.first() else {
                continue;
            };
            let key = record_key(shard, *customer, first.index);
            batch.insert(&self.records, key, pack(records));
        }
        let at = mark.meta.as_ref().map_or(0, |meta| meta.last_at);
        self.index(&mut batch, shard, (at, has), taken);
        batch.insert(&self.marks, shard.to_be_bytes(), mark.encode_to_vec());
        self.faults.writing("writing records", || {
            batch.commit()?;
            self.db.sync()
        })?;
        self.caught_up(&mut desk, mark.up_to);
        Ok(())
    }

    /// All records of one customer from log index `from` on, in log order.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn records(&self, shard: u16, customer: u64, from: u64) -> Result<Vec<Record>, Damaged> {
        let mut all = Vec::new();
        self.records_while(shard, customer, from, |record| {
            all.push(record);
            true
        })?;
        Ok(all)
    }

    /// The records of one customer from log index `from` on, in log order, as long as `f` wants more. Reads no more than
    /// that, and no values that end before `from`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn records_while(
        &self,
        shard: u16,
        customer: u64,
        from: u64,
        mut f: impl FnMut(Record) -> bool,
    ) -> Result<(), Damaged> {
        const DOING: &str = "reading records";
        let first = record_key(shard, customer, 0);
        let high = record_key(shard, customer, u64::MAX);
        // the value that holds `from` may begin before it
        let before = self.faults.reading(DOING, || {
            let mut values = self
                .records
                .range(first..=record_key(shard, customer, from));
            values.next_back().transpose()
        })?;
        if let Some((_, value)) = &before {
            for record in self.unpack(value)? {
                if record.index >= from && !f(record) {
                    return Ok(());
                }
            }
        }
        let low = match &before {
            Some((key, _)) => Bound::Excluded(key.to_vec()),
            None => Bound::Included(first.to_vec()),
        };
        let bounds = (low, Bound::Included(high.to_vec()));
        let mut values = self
            .faults
            .reading(DOING, || Ok(self.records.range(bounds)))?;
        let mut next = || self.faults.reading(DOING, || values.next().transpose());
        while let Some((_, value)) = next()? {
            for record in self.unpack(&value)? {
                if !f(record) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The records of one customer that were written together with the one at `index`, in log order.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn records_beside(
        &self,
        shard: u16,
        customer: u64,
        index: u64,
    ) -> Result<Vec<Record>, Damaged> {
        let low = record_key(shard, customer, 0);
        let high = record_key(shard, customer, index);
        let found = self.faults.reading("reading records", || {
            let mut values = self.records.range(low..=high);
            values.next_back().transpose()
        })?;
        found.map_or(Ok(Vec::new()), |(_, value)| self.unpack(&value))
    }

    /// Every record of a shard, customer by customer: what a shard is rebuilt from.
    ///
    /// # Errors
    /// They cannot be read, or `f` says so.
    pub fn each_record(
        &self,
        shard: u16,
        mut f: impl FnMut(u64, Record) -> Result<(), Damaged>,
    ) -> Result<(), Damaged> {
        self.each_value(
            || self.records.prefix(shard.to_be_bytes()),
            |key, value| {
                let customer = self.customer_of(key)?;
                for record in self.unpack(value)? {
                    f(customer, record)?;
                }
                Ok(())
            },
        )
    }

    /// Goes through keys and values; every step is guarded, for damage shows up in any of them.
    pub(super) fn each_value(
        &self,
        begin: impl FnOnce() -> Rows,
        mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Damaged>,
    ) -> Result<(), Damaged> {
        const DOING: &str = "reading records";
        let mut found = self.faults.reading(DOING, || Ok(begin()))?;
        let mut next = || self.faults.reading(DOING, || found.next().transpose());
        while let Some((key, value)) = next()? {
            f(&key, &value)?;
        }
        Ok(())
    }

    /// Reads receipts and indexes through.
    ///
    /// # Errors
    /// Some cannot be read, or are none.
    pub fn check(&self) -> Result<(), Damaged> {
        self.check_indexes()?;
        let days: Vec<Space> = self.days.lock().values().cloned().collect();
        for keyspace in days {
            self.each_value(
                || keyspace.iter(),
                |key, value| match (key.len(), value.len()) {
                    (18, 12) => Ok(()),
                    (key, value) => Err(self.damaged(format!(
                        "found a receipt of {key} and {value} bytes, expected 18 and 12"
                    ))),
                },
            )?;
        }
        Ok(())
    }

    /// The mark of the last checkpoint of a shard.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn mark(&self, shard: u16) -> Result<Option<stored::HistoryMark>, Damaged> {
        self.raw_mark(shard)?
            .map(|value| {
                stored::HistoryMark::decode(value)
                    .map_err(|e| self.faults.damaged("reading marks", e.to_string()))
            })
            .transpose()
    }

    /// The same as it is stored.
    pub(super) fn raw_mark(&self, shard: u16) -> Result<Option<bytes::Bytes>, Damaged> {
        let found = self
            .faults
            .reading("reading marks", || self.marks.get(shard.to_be_bytes()))?;
        Ok(found.map(|value| bytes::Bytes::copy_from_slice(&value)))
    }

    /// The shards that have a mark, rising.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn shards(&self) -> Result<Vec<u16>, Damaged> {
        let mut shards = Vec::new();
        self.each_value(
            || self.marks.iter(),
            |key, _| {
                if let Ok(shard) = <[u8; 2]>::try_from(key) {
                    shards.push(u16::from_be_bytes(shard));
                }
                Ok(())
            },
        )?;
        Ok(shards)
    }

    /// Keeps the catalog as of its checkpoint, so that it can be made anew without one.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn write_catalog(&self, manifest: &[u8], state: &[u8]) -> Result<(), Damaged> {
        self.sound()?;
        let mut batch = self.db.batch();
        batch.insert(&self.catalog, CATALOG_MANIFEST, manifest);
        batch.insert(&self.catalog, CATALOG_STATE, state);
        self.faults.writing("writing the catalog", || {
            batch.commit()?;
            self.db.sync()
        })
    }

    /// The catalog as of its last checkpoint.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn catalog(&self) -> Result<Option<CatalogCopy>, Damaged> {
        let (manifest, state) = self.faults.reading("reading the catalog", || {
            Ok((
                self.catalog.get(CATALOG_MANIFEST)?,
                self.catalog.get(CATALOG_STATE)?,
            ))
        })?;
        Ok(manifest.zip(state).map(|(manifest, state)| CatalogCopy {
            manifest: manifest.to_vec(),
            state: state.to_vec(),
        }))
    }

    /// Moves everything from the journal to tables, which otherwise happens after many megabytes.
    #[cfg(test)]
    pub(super) fn to_tables(&self) -> fjall::Result<()> {
        let days = self.days.lock();
        let all = [
            &self.records,
            &self.marks,
            &self.catalog,
            &self.ended,
            &self.away,
            &self.unmatched,
        ];
        all.into_iter()
            .chain(days.values())
            .try_for_each(Space::to_tables)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.faults
            .reading("measuring it", || self.db.disk_bytes())
            .unwrap_or(0)
    }

    pub(super) fn damaged(&self, why: String) -> Damaged {
        self.faults.damaged("reading records", why)
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Vec<Record>, Damaged> {
        unpack(bytes).map_err(|why| self.damaged(why))
    }
}

pub(super) fn record_key(shard: u16, customer: u64, index: u64) -> [u8; 18] {
    let mut key = [0u8; 18];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..10].copy_from_slice(&customer.to_be_bytes());
    key[10..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(super) fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

pub(super) fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// One format byte, then `stored::PackedRecords`, compressed.
const FORMAT: u8 = 1;

pub(super) fn pack(records: &[Record]) -> Vec<u8> {
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

pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<Record>, String> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => {
            let message = stored::PackedRecords::decode(bytes::Bytes::copy_from_slice(rest))
                .map_err(|e| e.to_string())?;
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
        Some((format, _)) => Err(format!(
            "found format {format}, this version reads {FORMAT}"
        )),
        None => Err("found an empty value".into()),
    }
}
