//! What the history stands on: ordered keys and values in named spaces, written in batches, durable when synced. fjall in
//! earnest; in simulated worlds [`Memory`], which loses at a crash what was not synced.
//!
//! It knows nothing of what is stored, and says what goes wrong in fjall's words.

mod memory;

pub use memory::Memory;

use fjall::{Database, Keyspace, KvPair, PersistMode, Readable, Result, UserKey, UserValue};
use std::ops::RangeBounds;
use std::sync::Arc;

/// A whole store of keys and values.
pub(super) enum Db {
    Fjall(Database),
    Memory(Arc<Memory>),
}

/// One space of keys.
#[derive(Clone)]
pub(super) enum Space {
    Fjall(Keyspace),
    Memory(Arc<Memory>, Arc<str>),
}

/// Changes that are made together or not at all.
pub(super) enum Batch {
    Fjall(fjall::OwnedWriteBatch),
    Memory(Arc<Memory>, Vec<memory::Change>),
}

/// Everything as it was at one moment.
pub(super) enum Snapshot {
    Fjall(fjall::Snapshot),
    Memory(memory::Tables),
}

/// Keys and values, rising.
pub(super) enum Rows {
    Fjall(fjall::Iter),
    Memory(std::vec::IntoIter<KvPair>),
}

impl Db {
    /// Opens a space, made if it is not there. It is durable at once.
    pub(super) fn space(
        &self,
        name: &str,
        options: impl FnOnce() -> fjall::KeyspaceCreateOptions,
    ) -> Result<Space> {
        match self {
            Db::Fjall(db) => db.keyspace(name, options).map(Space::Fjall),
            Db::Memory(memory) => Ok(Space::Memory(memory.clone(), memory.space(name))),
        }
    }

    /// Removes a space, durably.
    pub(super) fn drop_space(&self, space: Space) -> Result<()> {
        match (self, space) {
            (Db::Fjall(db), Space::Fjall(space)) => db.delete_keyspace(space),
            (_, Space::Memory(memory, name)) => {
                memory.drop_space(&name);
                Ok(())
            }
            // a space belongs to the store that gave it
            (Db::Memory(_), Space::Fjall(_)) => Err(fjall::Error::KeyspaceDeleted),
        }
    }

    /// The names of all spaces.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Db::Fjall(db) => {
                let names = db.list_keyspace_names();
                names.iter().map(|name| name.to_string()).collect()
            }
            Db::Memory(memory) => memory.names(),
        }
    }

    pub(super) fn batch(&self) -> Batch {
        match self {
            Db::Fjall(db) => Batch::Fjall(db.batch()),
            Db::Memory(memory) => Batch::Memory(memory.clone(), Vec::new()),
        }
    }

    /// Everything that was committed is durable.
    pub(super) fn sync(&self) -> Result<()> {
        match self {
            Db::Fjall(db) => db.persist(PersistMode::SyncAll),
            Db::Memory(memory) => memory.sync(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        match self {
            Db::Fjall(db) => Snapshot::Fjall(db.snapshot()),
            Db::Memory(memory) => Snapshot::Memory(memory.tables()),
        }
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> Result<u64> {
        match self {
            Db::Fjall(db) => db.disk_space(),
            Db::Memory(_) => Ok(0),
        }
    }
}

impl Space {
    pub(super) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<UserValue>> {
        match self {
            Space::Fjall(space) => space.get(key),
            Space::Memory(memory, name) => Ok(memory::get(&memory.tables(), name, key.as_ref())),
        }
    }

    pub(super) fn range<K: AsRef<[u8]>, R: RangeBounds<K>>(&self, range: R) -> Rows {
        match self {
            Space::Fjall(space) => Rows::Fjall(space.range(range)),
            Space::Memory(memory, name) => {
                Rows::Memory(memory::range(&memory.tables(), name, &range))
            }
        }
    }

    pub(super) fn prefix(&self, prefix: impl AsRef<[u8]>) -> Rows {
        match self {
            Space::Fjall(space) => Rows::Fjall(space.prefix(prefix)),
            Space::Memory(memory, name) => {
                Rows::Memory(memory::prefix(&memory.tables(), name, prefix.as_ref()))
            }
        }
    }

    pub(super) fn iter(&self) -> Rows {
        match self {
            Space::Fjall(space) => Rows::Fjall(space.iter()),
            Space::Memory(memory, name) => {
                Rows::Memory(memory::prefix(&memory.tables(), name, &[]))
            }
        }
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        match self {
            Space::Fjall(space) => space.disk_space(),
            Space::Memory(..) => 0,
        }
    }

    /// Moves everything from the journal to tables.
    #[cfg(test)]
    pub(super) fn to_tables(&self) -> Result<()> {
        match self {
            Space::Fjall(space) => space.rotate_memtable_and_wait(),
            Space::Memory(..) => Ok(()),
        }
    }
}

impl Batch {
    pub(super) fn insert(
        &mut self,
        to: &Space,
        key: impl Into<UserKey>,
        value: impl Into<UserValue>,
    ) {
        match (self, to) {
            (Batch::Fjall(batch), Space::Fjall(space)) => batch.insert(space, key, value),
            (Batch::Memory(_, changes), Space::Memory(_, name)) => {
                changes.push((name.clone(), key.into(), Some(value.into())));
            }
            (Batch::Fjall(_), Space::Memory(..)) | (Batch::Memory(..), Space::Fjall(_)) => {
                unreachable!("a store has one engine")
            }
        }
    }

    pub(super) fn remove(&mut self, from: &Space, key: impl Into<UserKey>) {
        match (self, from) {
            (Batch::Fjall(batch), Space::Fjall(space)) => batch.remove(space, key),
            (Batch::Memory(_, changes), Space::Memory(_, name)) => {
                changes.push((name.clone(), key.into(), None));
            }
            (Batch::Fjall(_), Space::Memory(..)) | (Batch::Memory(..), Space::Fjall(_)) => {
                unreachable!("a store has one engine")
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Batch::Fjall(batch) => batch.len(),
            Batch::Memory(_, changes) => changes.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the changes; durable with the next [`Db::sync`], after all that was committed before.
    pub(super) fn commit(self) -> Result<()> {
        match self {
            Batch::Fjall(batch) => batch.commit(),
            Batch::Memory(memory, changes) => memory.commit(changes),
        }
    }
}

impl Snapshot {
    pub(super) fn get(&self, of: &Space, key: impl AsRef<[u8]>) -> Result<Option<UserValue>> {
        match (self, of) {
            (Snapshot::Fjall(snapshot), Space::Fjall(space)) => snapshot.get(space, key),
            (Snapshot::Memory(tables), Space::Memory(_, name)) => {
                Ok(memory::get(tables, name, key.as_ref()))
            }
            _ => Err(fjall::Error::KeyspaceDeleted),
        }
    }

    pub(super) fn range<K: AsRef<[u8]>, R: RangeBounds<K>>(
        &self,
        of: &Space,
        range: R,
    ) -> Result<Rows> {
        match (self, of) {
            (Snapshot::Fjall(snapshot), Space::Fjall(space)) => {
                Ok(Rows::Fjall(snapshot.range(space, range)))
            }
            (Snapshot::Memory(tables), Space::Memory(_, name)) => {
                Ok(Rows::Memory(memory::range(tables, name, &range)))
            }
            _ => Err(fjall::Error::KeyspaceDeleted),
        }
    }

    pub(super) fn prefix(&self, of: &Space, prefix: impl AsRef<[u8]>) -> Result<Rows> {
        match (self, of) {
            (Snapshot::Fjall(snapshot), Space::Fjall(space)) => {
                Ok(Rows::Fjall(snapshot.prefix(space, prefix)))
            }
            (Snapshot::Memory(tables), Space::Memory(_, name)) => {
                Ok(Rows::Memory(memory::prefix(tables, name, prefix.as_ref())))
            }
            _ => Err(fjall::Error::KeyspaceDeleted),
        }
    }
}

impl Rows {
    /// The next key alone.
    pub(super) fn next_key(&mut self) -> Result<Option<UserKey>> {
        match self {
            Rows::Fjall(rows) => rows.next().map(fjall::Guard::key).transpose(),
            Rows::Memory(rows) => Ok(rows.next().map(|(key, _)| key)),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<KvPair>;

    fn next(&mut self) -> Option<Result<KvPair>> {
        match self {
            Rows::Fjall(rows) => rows.next().map(fjall::Guard::into_inner),
            Rows::Memory(rows) => rows.next().map(Ok),
        }
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Result<KvPair>> {
        match self {
            Rows::Fjall(rows) => rows.next_back().map(fjall::Guard::into_inner),
            Rows::Memory(rows) => rows.next_back().map(Ok),
        }
    }
}
