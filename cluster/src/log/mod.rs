//! The log: one store for all groups of a node, one writer, one fsync for what arrives together.
//!
//! [`LogStore`] is the seam: raft-engine behind it in earnest, a simulated disk in worlds. It knows bytes, groups and
//! indexes, and does not know what an entry means nor what Raft is.

pub(crate) mod engine;
pub(crate) mod group;
pub(crate) mod scan;
pub(crate) mod writer;

use crate::id::GroupId;
use bytes::Bytes;
use std::fmt;

/// What a log keeps beside the entries of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MetaKey {
    /// For whom the node voted.
    Vote = b'v',
    /// Up to where entries are known committed; may lag.
    Committed = b'c',
    /// The last entry that was purged.
    Purged = b'p',
    /// The first index that no longer counts although the store still has it: set by a truncation, cleared by the next append.
    End = b'e',
    /// Set while the group is being forgotten: nothing of it may be opened any more.
    Forgetting = b'f',
    /// What the forgotten replica leaves behind: outlives [`Op::Clean`], and names no group in [`LogStore::groups`].
    Left = b'l',
}

/// One change of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Entries `first`, `first + 1`, …; what the store had from `first` on is dropped.
    Append {
        /// The group.
        group: GroupId,
        /// The index of the first of them.
        first: u64,
        /// The entries, as [`crate::format::encode_entry`] makes them. Never empty.
        entries: Vec<Bytes>,
    },
    /// Sets a mark.
    Put {
        /// The group.
        group: GroupId,
        /// Which mark.
        key: MetaKey,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes a mark.
    Delete {
        /// The group.
        group: GroupId,
        /// Which mark.
        key: MetaKey,
    },
    /// Drops the entries before `before`.
    Compact {
        /// The group.
        group: GroupId,
        /// The first index that stays.
        before: u64,
    },
    /// Drops all entries and marks of the group but [`MetaKey::Left`].
    Clean {
        /// The group.
        group: GroupId,
    },
}

impl Op {
    /// Bytes of the entries that it carries.
    pub(crate) fn entry_bytes(&self) -> usize {
        match self {
            Op::Append { entries, .. } => entries.iter().map(Bytes::len).sum(),
            Op::Put { .. } | Op::Delete { .. } | Op::Compact { .. } | Op::Clean { .. } => 0,
        }
    }
}

/// Why the store failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// What was being done and what was found, with the operating system's words.
    pub what: String,
    /// Whether stored bytes do not match their check sum (as opposed to: the file system refused).
    pub damaged: bool,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StoreError {}

/// A log for many groups.
///
/// `write` has one caller at a time; the other methods may be called beside it.
pub trait LogStore: Send + Sync + 'static {
    /// Applies `ops` in order, all or (after a crash) none of them; on return they are durable.
    ///
    /// Every write is synced before the next begins, so that a crash can tear the last record only: a bad record with
    /// good ones behind it is damage, and is not mistaken for a torn write.
    ///
    /// # Errors
    /// Any error means that nobody knows what the disk holds: the caller stops writing for good.
    fn write(&self, ops: &[Op]) -> Result<(), StoreError>;

    /// Said when a write took its time and its callers are about to be told. A simulated disk may lose a write in a
    /// crash until then; a real one has nothing to do.
    fn settle(&self) {}

    /// The entries `from..to`, at least one of them, at most about `max_bytes`.
    ///
    /// # Errors
    /// The entries are not there, or their bytes are damaged.
    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError>;

    /// First and last index that the store has for `group`.
    fn bounds(&self, group: GroupId) -> Option<(u64, u64)>;

    /// A mark of `group`.
    fn meta(&self, group: GroupId, key: MetaKey) -> Option<Vec<u8>>;

    /// Every group of which something is stored, except that it was left.
    fn groups(&self) -> Vec<GroupId>;

    /// Frees what is no longer needed, and names the groups that should be checkpointed so that more can be freed.
    ///
    /// # Errors
    /// As for `write`.
    fn purge_expired(&self) -> Result<Vec<GroupId>, StoreError>;

    /// Bytes that the log takes on disk.
    fn used_bytes(&self) -> u64;

    /// Where the log is, for messages.
    fn place(&self) -> String;
}
