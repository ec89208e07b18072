//! The log on raft-engine.
//!
//! Knows raft-engine's interface and nothing of Raft. A region of raft-engine is a group plus one; region 0 has what
//! outlives a group.

use super::{LogStore, MetaKey, Op, StoreError, scan};
use crate::error::{OpenError, panic_text};
use crate::format;
use crate::id::GroupId;
use bytes::Bytes;
use raft_engine::env::FileSystem;
use raft_engine::{
    Command, Config, Engine, Error, LogBatch, MessageExt, ReadableSize, RecoveryMode,
};
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sizes of the log's files.
#[derive(Debug, Clone)]
pub struct LogFiles {
    /// A file is closed and the next begun at this size, in bytes.
    pub file_bytes: u64,
    /// Above this sum, in bytes, old files are freed, and groups that hold on to them are asked for a checkpoint.
    pub purge_bytes: u64,
}

impl Default for LogFiles {
    fn default() -> Self {
        LogFiles {
            file_bytes: 64 << 20,
            purge_bytes: 1 << 30,
        }
    }
}

/// An entry as raft-engine sees it: a message of protobuf's second version, of which only the bytes matter here.
#[derive(Clone, PartialEq, Debug, Default)]
struct RawEntry {
    index: u64,
    bytes: Bytes,
    unknown: protobuf::UnknownFields,
}

impl RawEntry {
    fn length(&self) -> u32 {
        // Proposals are bounded far below 4 GiB (`max_entry_bytes`).
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

impl protobuf::Clear for RawEntry {
    fn clear(&mut self) {
        *self = RawEntry::default();
    }
}

impl protobuf::Message for RawEntry {
    fn descriptor(&self) -> &'static protobuf::reflect::MessageDescriptor {
        // Only protobuf's own text format and error of an uninitialised message ask for it; this one is always initialised.
        Self::descriptor_static()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(
        &mut self,
        input: &mut protobuf::CodedInputStream<'_>,
    ) -> protobuf::ProtobufResult<()> {
        let mut length = [0; 4];
        for byte in &mut length {
            *byte = input.read_raw_byte()?;
        }
        let bytes = input.read_raw_bytes(u32::from_le_bytes(length))?;
        self.index = format::entry_index(&bytes).map_err(|e| {
            protobuf::ProtobufError::IoError(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                e,
            ))
        })?;
        self.bytes = bytes.into();
        Ok(())
    }

    fn write_to_with_cached_sizes(
        &self,
        output: &mut protobuf::CodedOutputStream<'_>,
    ) -> protobuf::ProtobufResult<()> {
        // A length in front, because protobuf's reader does not say how much is left.
        output.write_raw_bytes(&self.length().to_le_bytes())?;
        output.write_raw_bytes(&self.bytes)
    }

    fn compute_size(&self) -> u32 {
        self.get_cached_size()
    }

    fn get_cached_size(&self) -> u32 {
        self.length().saturating_add(4)
    }

    fn get_unknown_fields(&self) -> &protobuf::UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut protobuf::UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn new() -> Self {
        RawEntry::default()
    }

    fn default_instance() -> &'static Self {
        static INSTANCE: std::sync::OnceLock<RawEntry> = std::sync::OnceLock::new();
        INSTANCE.get_or_init(RawEntry::default)
    }
}

struct Raw;

impl MessageExt for Raw {
    type Entry = RawEntry;

    fn index(entry: &RawEntry) -> u64 {
        entry.index
    }
}

/// The log of a node on raft-engine.
pub(crate) struct EngineLog<F: FileSystem> {
    engine: Engine<F>,
    dir: PathBuf,
}

fn region(group: GroupId) -> u64 {
    group.0 + 1
}

/// What outlives the groups: a region is cleaned as a whole, so this is none of theirs.
const LASTING: u64 = 0;

/// Region and key of a mark.
fn place(group: GroupId, key: MetaKey) -> (u64, Vec<u8>) {
    let mut name = vec![b's', key as u8];
    if key != MetaKey::Left {
        return (region(group), name);
    }
    name.extend_from_slice(&group.0.to_be_bytes());
    (LASTING, name)
}

fn store_error(doing: &str, error: &Error) -> StoreError {
    let damaged = matches!(
        error,
        Error::Corruption(_) | Error::Codec(_) | Error::Protobuf(_)
    );
    StoreError {
        what: format!("{doing}: {error}"),
        damaged,
    }
}

impl<F: FileSystem> EngineLog<F> {
    /// Opens the log in `dir`, made if it is not there, on this file system.
    ///
    /// A record that was torn at the very end of the last file is cut and reported.
    ///
    /// # Errors
    /// Locked by another process; damaged elsewhere than at the very end; refused by the file system.
    pub(crate) fn open(
        dir: &Path,
        files: &LogFiles,
        system: Arc<F>,
    ) -> Result<(Self, Vec<scan::TornTail>), OpenError> {
        if files.file_bytes < 64 << 10 || files.purge_bytes < files.file_bytes {
            return Err(OpenError::Config {
                name: "log files".to_owned(),
                why: format!(
                    "file_bytes is {} and purge_bytes {}, expected at least 65536 and purge_bytes not below file_bytes",
                    files.file_bytes, files.purge_bytes
                ),
            });
        }
        std::fs::create_dir_all(dir).map_err(|e| OpenError::io("making the log folder", dir, e))?;
        check_lock(dir)?;
        let torn = scan::cut_torn_tail(dir)?;
        let text = dir.to_str().ok_or_else(|| OpenError::Config {
            name: "dir".to_owned(),
            why: format!("{} is not UTF-8, expected a path in UTF-8", dir.display()),
        })?;
        let config = Config {
            dir: text.to_owned(),
            // What a torn write leaves was cut above, so whatever is left must be whole.
            recovery_mode: RecoveryMode::AbsoluteConsistency,
            // Entries are packed by their makers or small; compressing here costs more than it saves.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(files.file_bytes),
            purge_threshold: ReadableSize(files.purge_bytes),
            // A recycled file has old records behind the end, which could not be told from damage.
            enable_log_recycle: false,
            ..Config::default()
        };
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Engine::open_with_file_system(config, system)
        }));
        let engine = match opened {
            Ok(Ok(engine)) => engine,
            Ok(Err(Error::Io(e))) => return Err(OpenError::io("opening the log", dir, e)),
            Ok(Err(e)) => return Err(scan::damaged(dir, &e.to_string())),
            Err(panic) => return Err(scan::damaged(dir, &panic_text(&*panic))),
        };
        Ok((
            EngineLog {
                engine,
                dir: dir.to_owned(),
            },
            torn,
        ))
    }

    fn try_write(&self, ops: &[Op]) -> Result<(), Error> {
        let mut batch = LogBatch::with_capacity(ops.len());
        for op in ops {
            match op {
                Op::Append {
                    group,
                    first,
                    entries,
                } => {
                    let raw: Vec<RawEntry> = entries
                        .iter()
                        .zip(*first..)
                        .map(|(bytes, index)| RawEntry {
                            index,
                            bytes: bytes.clone(),
                            ..RawEntry::default()
                        })
                        .collect();
                    batch.add_entries::<Raw>(region(*group), &raw)?;
                }
                Op::Put { group, key, value } => {
                    let (region, key) = place(*group, *key);
                    batch.put(region, key, value.clone())?;
                }
                Op::Delete { group, key } => {
                    let (region, key) = place(*group, *key);
                    batch.delete(region, key);
                }
                Op::Compact { group, before } => {
                    batch.add_command(region(*group), Command::Compact { index: *before });
                }
                Op::Clean { group } => batch.add_command(region(*group), Command::Clean),
            }
        }
        self.engine.write(&mut batch, true)?;
        Ok(())
    }
}

/// raft-engine reports a held lock as any error; asking first makes it a clear answer.
pub(crate) fn check_lock(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("LOCK");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(|e| OpenError::io("opening the lock", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(e)) => Err(OpenError::io("locking", &path, e)),
    }
}

impl<F: FileSystem + 'static> LogStore for EngineLog<F> {
    fn write(&self, ops: &[Op]) -> Result<(), StoreError> {
        // raft-engine panics when an fsync fails: a failed fsync must not be tried again.
        match catch_unwind(AssertUnwindSafe(|| self.try_write(ops))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(store_error("writing the log", &e)),
            Err(panic) => Err(StoreError {
                what: format!("writing the log: {}", panic_text(&*panic)),
                damaged: false,
            }),
        }
    }

    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let doing = || format!("reading entries {from} to {to} of {group}");
        let mut entries = Vec::new();
        let read = catch_unwind(AssertUnwindSafe(|| {
            self.engine.fetch_entries_to::<Raw>(
                region(group),
                from,
                to,
                Some(max_bytes),
                &mut entries,
            )
        }));
        match read {
            Ok(Ok(_)) => Ok(entries.into_iter().map(|e| e.bytes).collect()),
            Ok(Err(e)) => Err(store_error(&doing(), &e)),
            Err(panic) => Err(StoreError {
                what: format!("{}: {}", doing(), panic_text(&*panic)),
                damaged: true,
            }),
        }
    }

    fn bounds(&self, group: GroupId) -> Option<(u64, u64)> {
        Some((
            self.engine.first_index(region(group))?,
            self.engine.last_index(region(group))?,
        ))
    }

    fn meta(&self, group: GroupId, key: MetaKey) -> Option<Vec<u8>> {
        let (region, key) = place(group, key);
        self.engine.get(region, &key)
    }

    fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self
            .engine
            .raft_groups()
            .into_iter()
            .filter_map(|r| r.checked_sub(1))
            .map(GroupId)
            .collect();
        groups.sort_unstable();
        groups
    }

    fn purge_expired(&self) -> Result<Vec<GroupId>, StoreError> {
        match catch_unwind(AssertUnwindSafe(|| self.engine.purge_expired_files())) {
            Ok(Ok(regions)) => Ok(regions
                .into_iter()
                .filter_map(|r| r.checked_sub(1))
                .map(GroupId)
                .collect()),
            Ok(Err(e)) => Err(store_error("freeing old log files", &e)),
            Err(panic) => Err(StoreError {
                what: format!("freeing old log files: {}", panic_text(&*panic)),
                damaged: false,
            }),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.engine.get_used_size() as u64
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }
}
