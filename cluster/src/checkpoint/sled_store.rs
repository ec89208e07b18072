//! The checkpoint store on sled.
//!
//! Sequential keys and packed values only: sled takes a hundred times the memory for one key per execution. Nothing is
//! flushed unless asked. Every call is guarded, for sled panics on some damage.

use super::{CheckpointStore, EachChunk, StoreFault};
use crate::error::{OpenError, panic_text};
use crate::id::GroupId;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The marker beside sled's files by which a running node asks that they be set aside when it is next opened.
const CONDEMNED: &str = "damaged";

/// A folder of checkpoints that could not be used and was renamed; nothing in it is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Its new name.
    pub to: PathBuf,
    /// Why.
    pub why: String,
}

/// Nothing is given to sled when the disk has less than this left: once a write of its own has found the disk full, its
/// next flush may never return.
const RESERVE_BYTES: u64 = 32 << 20;
/// Chunks are read this many at a time.
const READ_CHUNKS: usize = 64;

/// sled, open.
struct Opened {
    /// How often it has been opened.
    number: u64,
    db: sled::Db,
    chunks: sled::Tree,
    manifests: sled::Tree,
}

/// Checkpoints of a node in sled.
pub(crate) struct SledStore {
    /// `None` after a failure: sled then refuses everything until it is opened again.
    opened: RwLock<Option<Opened>>,
    /// Of each group that has stored something since it was last flushed: in which opening it began to. If that is over,
    /// it is gone.
    unflushed: Mutex<HashMap<GroupId, u64>>,
    cache_bytes: u64,
    dir: PathBuf,
}

fn chunk_key(group: GroupId, generation: u64, sequence: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8..16].copy_from_slice(&generation.to_be_bytes());
    key[16..].copy_from_slice(&sequence.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(u64, u32)> {
    let generation = u64::from_be_bytes(key.get(8..16)?.try_into().ok()?);
    let sequence = u32::from_be_bytes(key.get(16..)?.try_into().ok()?);
    Some((generation, sequence))
}

/// Runs a call of sled; its errors and panics become faults.
fn guarded<T>(doing: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreFault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => {
            let damaged = match &e {
                sled::Error::Io(io) => matches!(
                    io.kind(),
                    std::io::ErrorKind::InvalidData
                        | std::io::ErrorKind::UnexpectedEof
                        | std::io::ErrorKind::InvalidInput
                ),
                sled::Error::Corruption { .. }
                | sled::Error::ReportableBug(_)
                | sled::Error::Unsupported(_) => true,
                sled::Error::CollectionNotFound(_) => false,
            };
            Err(StoreFault {
                what: format!("{doing}: {e}"),
                damaged,
            })
        }
        Err(panic) => Err(StoreFault {
            what: format!("{doing}: {}", panic_text(&*panic)),
            damaged: true,
        }),
    }
}

impl SledStore {
    /// Opens the checkpoints in `dir`, made if it is not there. What cannot be opened is set aside and said.
    ///
    /// # Errors
    /// The file system refused, or another process has them open.
    pub(crate) fn open(
        dir: &Path,
        cache_bytes: u64,
    ) -> Result<(Self, Option<SetAside>), OpenError> {
        let marker = dir.join(CONDEMNED);
        let mut aside = match std::fs::read_to_string(&marker) {
            Ok(why) => Some(set_aside(dir, why)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                return Err(OpenError::io(
                    "reading the marker of damaged checkpoints",
                    &marker,
                    e,
                ));
            }
        };
        loop {
            match Self::try_open(dir, cache_bytes) {
                Ok(store) => return Ok((store, aside)),
                Err(fault) if fault.damaged && aside.is_none() => {
                    aside = Some(set_aside(dir, fault.what)?)
                }
                Err(fault) if fault.what.contains("could not acquire lock") => {
                    return Err(OpenError::Locked {
                        path: dir.to_owned(),
                    });
                }
                Err(fault) => {
                    return Err(OpenError::io("opening the checkpoints", dir, fault.what));
                }
            }
        }
    }

    fn try_open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreFault> {
        let opened = RwLock::new(Some(open_sled(dir, cache_bytes)?));
        Ok(SledStore {
            opened,
            unflushed: Mutex::default(),
            cache_bytes,
            dir: dir.to_owned(),
        })
    }

    /// Refuses before sled would find the disk full.
    fn check_room(&self, doing: &str) -> Result<(), StoreFault> {
        let refused = |what: String| {
            Err(StoreFault {
                what: format!("{doing}: {what}"),
                damaged: false,
            })
        };
        match fs2::available_space(&self.dir) {
            Ok(free) if free >= RESERVE_BYTES => Ok(()),
            Ok(free) => refused(format!(
                "the disk of {} has {free} bytes left, expected at least {RESERVE_BYTES}; free some space",
                self.dir.display()
            )),
            Err(e) => refused(format!(
                "the free space of {} is not known: {e}",
                self.dir.display()
            )),
        }
    }

    /// Calls sled. After a failure it is closed, and the next call opens it again: the disk may have space by then.
    fn with<T>(
        &self,
        doing: &str,
        call: impl FnOnce(&Opened) -> sled::Result<T>,
    ) -> Result<T, StoreFault> {
        if self.opened.read().is_none() {
            let mut opened = self.opened.write();
            if opened.is_none() {
                *opened = Some(open_sled(&self.dir, self.cache_bytes)?);
            }
        }
        let result = match &*self.opened.read() {
            Some(opened) => guarded(doing, || call(opened)),
            None => Err(StoreFault {
                what: format!("{doing}: the store has just failed"),
                damaged: false,
            }),
        };
        if result.is_err() {
            let failed = self.opened.write().take();
            // Closing tries to flush, and may fail or panic like anything else.
            drop(guarded("closing the checkpoints", || {
                drop(failed);
                Ok(())
            }));
        }
        result
    }
}

/// Openings in this process; what counts is only that no two have the same number.
static OPENINGS: AtomicU64 = AtomicU64::new(0);

fn open_sled(dir: &Path, cache_bytes: u64) -> Result<Opened, StoreFault> {
    guarded("opening the checkpoints", || {
        let db = sled::Config::new()
            .path(dir)
            .flush_every_ms(None)
            .cache_capacity(cache_bytes)
            .open()?;
        let chunks = db.open_tree("chunks")?;
        let manifests = db.open_tree("manifests")?;
        Ok(Opened {
            number: OPENINGS.fetch_add(1, Ordering::Relaxed),
            db,
            chunks,
            manifests,
        })
    })
}

fn set_aside(dir: &Path, why: String) -> Result<SetAside, OpenError> {
    let name = dir
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or("checkpoints");
    let free = (1..)
        .map(|n| dir.with_file_name(format!("{name}.damaged-{n}")))
        .find(|path| !path.exists());
    // `1..` does not end, so there is always a free name.
    let to = free.unwrap_or_else(|| dir.with_file_name(format!("{name}.damaged")));
    std::fs::rename(dir, &to)
        .map_err(|e| OpenError::io("setting damaged checkpoints aside", dir, e))?;
    tracing::warn!(to = %to.display(), %why, "the checkpoints are damaged and were set aside; they are made anew from history and log");
    Ok(SetAside { to, why })
}

impl CheckpointStore for SledStore {
    fn put_chunks(
        &self,
        group: GroupId,
        generation: u64,
        first: u32,
        chunks: &[Vec<u8>],
    ) -> Result<(), StoreFault> {
        self.check_room("storing chunks")?;
        self.with("storing chunks", |open| {
            let mut batch = sled::Batch::default();
            for (chunk, sequence) in chunks.iter().zip(first..) {
                batch.insert(
                    &chunk_key(group, generation, sequence)[..],
                    chunk.as_slice(),
                );
            }
            self.unflushed.lock().entry(group).or_insert(open.number);
            open.chunks.apply_batch(batch)
        })
    }

    fn put_manifest(&self, group: GroupId, manifest: &[u8]) -> Result<(), StoreFault> {
        self.check_room("storing a manifest")?;
        self.with("storing a manifest", |open| {
            self.unflushed.lock().entry(group).or_insert(open.number);
            open.manifests
                .insert(group.0.to_be_bytes(), manifest)
                .map(drop)
        })
    }

    fn delete_manifest(&self, group: GroupId) -> Result<(), StoreFault> {
        self.with("removing a manifest", |open| {
            self.unflushed.lock().entry(group).or_insert(open.number);
            open.manifests.remove(group.0.to_be_bytes()).map(drop)
        })
    }

    fn flush(&self, group: GroupId) -> Result<(), StoreFault> {
        let opening = self.with("flushing the checkpoints", |open| {
            let begun = self.unflushed.lock().clone();
            open.db.flush()?;
            // of others only what had been stored before the flush began
            let mut unflushed = self.unflushed.lock();
            unflushed.retain(|other, number| {
                *other == group || *number != open.number || !begun.contains_key(other)
            });
            Ok(open.number)
        })?;
        match self.unflushed.lock().remove(&group) {
            Some(begun) if begun != opening => Err(StoreFault {
                what:
                    "flushing the checkpoints: what this one had stored went when the store failed"
                        .to_owned(),
                damaged: false,
            }),
            _ => Ok(()),
        }
    }

    fn manifest(&self, group: GroupId) -> Result<Option<Vec<u8>>, StoreFault> {
        self.with("reading a manifest", |open| {
            Ok(open
                .manifests
                .get(group.0.to_be_bytes())?
                .map(|v| v.to_vec()))
        })
    }

    fn read_chunks(
        &self,
        group: GroupId,
        generation: u64,
        each: &mut EachChunk<'_>,
    ) -> Result<(), StoreFault> {
        self.read_chunks_from(group, generation, 0, each)
    }

    fn read_chunks_from(
        &self,
        group: GroupId,
        generation: u64,
        first: u32,
        each: &mut EachChunk<'_>,
    ) -> Result<(), StoreFault> {
        let mut from = Some(first);
        // A few at a time: an iterator may not outlive the call, for a failure closes sled.
        while let Some(first) = from {
            let range =
                chunk_key(group, generation, first)..=chunk_key(group, generation, u32::MAX);
            let chunks: Vec<(sled::IVec, sled::IVec)> = self.with("reading chunks", |open| {
                open.chunks.range(range).take(READ_CHUNKS).collect()
            })?;
            from = None;
            for (key, value) in &chunks {
                let (_, sequence) = parse_key(key)
                    .ok_or_else(|| super::fault("a key is not that of a chunk".to_owned()))?;
                from = sequence.checked_add(1);
                each(sequence, value)?;
            }
        }
        Ok(())
    }

    fn generations(&self, group: GroupId) -> Result<Vec<u64>, StoreFault> {
        self.with("listing generations", |open| {
            let mut numbers = Vec::new();
            let mut from = chunk_key(group, 0, 0);
            // One look per generation, not one per chunk.
            while let Some(found) = open
                .chunks
                .range(from..=chunk_key(group, u64::MAX, u32::MAX))
                .next()
            {
                let Some((number, _)) = parse_key(&found?.0) else {
                    break;
                };
                numbers.push(number);
                let Some(next) = number.checked_add(1) else {
                    break;
                };
                from = chunk_key(group, next, 0);
            }
            Ok(numbers)
        })
    }

    fn delete_chunks(&self, group: GroupId, generation: u64, most: u32) -> Result<u32, StoreFault> {
        self.with("removing old chunks", |open| {
            let mut batch = sled::Batch::default();
            let mut count = 0;
            let all = open
                .chunks
                .range(chunk_key(group, generation, 0)..=chunk_key(group, generation, u32::MAX));
            for key in all.keys().take(most as usize) {
                batch.remove(key?);
                count += 1;
            }
            open.chunks.apply_batch(batch)?;
            Ok(count)
        })
    }

    fn condemn(&self, why: &str) {
        if let Err(e) = std::fs::write(self.dir.join(CONDEMNED), why) {
            tracing::error!(error = %e, "the checkpoints are damaged, and that could not be noted for the next start");
        }
    }

    fn used_bytes(&self) -> u64 {
        // Looked at for a metric, so it neither closes sled nor opens it.
        match &*self.opened.read() {
            Some(open) => {
                guarded("measuring the checkpoints", || open.db.size_on_disk()).unwrap_or(0)
            }
            None => 0,
        }
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GroupId = GroupId(3);
    const B: GroupId = GroupId(7);

    /// sled lets go of its files a moment after it was closed.
    fn once_open<T>(mut call: impl FnMut() -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match call() {
                Err(fault)
                    if fault.what.contains("acquire lock") && std::time::Instant::now() < until =>
                {
                    std::thread::yield_now();
                }
                other => return other,
            }
        }
    }

    fn fail(store: &SledStore) {
        let failed: Result<(), StoreFault> = store.with("failing", |_| {
            Err(sled::Error::Unsupported("on purpose".into()))
        });
        assert!(failed.is_err());
    }

    #[test]
    fn what_went_with_a_failure_of_another_group_is_not_called_durable() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, _) = SledStore::open(&dir.path().join("c"), 1 << 20).expect("opens");
        store.put_chunks(A, 1, 0, &[b"a".to_vec()]).expect("stores");
        store.put_chunks(B, 1, 0, &[b"b".to_vec()]).expect("stores");
        store.flush(B).expect("nothing has failed yet");
        fail(&store);
        // A's chunk was flushed with B's; what it stores now goes with the next failure
        once_open(|| store.flush(A)).expect("all of it is there");
        store.put_chunks(A, 2, 0, &[b"c".to_vec()]).expect("stores");
        fail(&store);
        once_open(|| store.put_chunks(A, 2, 1, &[b"d".to_vec()])).expect("stores");
        store.put_manifest(B, b"b").expect("stores");
        store.flush(B).expect("B has lost nothing");
        let error = store.flush(A).expect_err("the first chunk may be gone");
        assert!(
            error.what.contains("went when the store failed"),
            "{}",
            error.what
        );
        // the next attempt begins anew
        store.put_chunks(A, 3, 0, &[b"e".to_vec()]).expect("stores");
        store.flush(A).expect("all of it is there");
        // a manifest too
        store.put_manifest(A, b"m").expect("stores");
        fail(&store);
        let error = once_open(|| store.flush(A)).expect_err("the manifest may be gone");
        assert!(error.what.contains("went when"), "{}", error.what);
    }
}
