//! Keys and values in memory, as a disk would keep them: for simulated worlds.

use fjall::{KvPair, Result, UserKey, UserValue};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// One key of one space becomes another value, or goes.
pub(crate) type Change = (Arc<str>, UserKey, Option<UserValue>);
type Table = BTreeMap<UserKey, UserValue>;
pub(crate) type Tables = BTreeMap<Arc<str>, Arc<Table>>;

/// A disk with history. What was committed and not synced is lost at a crash, from some batch on: as the journal of fjall
/// keeps the order of batches, and each whole or not at all.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    now: Tables,
    /// What is on disk.
    safe: Tables,
    /// On the way there, the oldest first.
    unsynced: VecDeque<Vec<Change>>,
    /// The next write after so many is refused, and every other.
    refuses_after: Option<u64>,
}

fn put(tables: &mut Tables, changes: &[Change]) {
    for (space, key, value) in changes {
        // a space that was dropped meanwhile takes nothing any more
        let Some(table) = tables.get_mut(space) else {
            continue;
        };
        let table = Arc::make_mut(table);
        match value {
            Some(value) => drop(table.insert(key.clone(), value.clone())),
            None => drop(table.remove(key)),
        }
    }
}

impl Inner {
    fn keep(&mut self, batches: usize) {
        for changes in self.unsynced.drain(..batches.min(self.unsynced.len())) {
            put(&mut self.safe, &changes);
        }
    }

    fn may_write(&mut self) -> Result<()> {
        match &mut self.refuses_after {
            None => Ok(()),
            Some(0) => Err(fjall::Error::Io(std::io::Error::other(
                "the simulated disk of history refuses",
            ))),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Memory {
    /// The power goes: of the batches that were not synced, `kept(n)` of all `n` are on disk, the oldest ones. Nobody may
    /// use it meanwhile. It refuses nothing afterwards.
    pub fn crash(&self, kept: impl FnOnce(usize) -> usize) {
        let mut inner = self.inner.lock();
        let kept = kept(inner.unsynced.len());
        inner.keep(kept);
        inner.unsynced.clear();
        inner.now = inner.safe.clone();
        inner.refuses_after = None;
    }

    /// Writes are refused after so many more, until the next crash.
    pub fn fail_after(&self, writes: u64) {
        self.inner.lock().refuses_after = Some(writes);
    }

    /// Nothing is refused any more, if nothing was yet.
    pub fn heal(&self) {
        self.inner.lock().refuses_after = None;
    }

    pub(super) fn space(&self, name: &str) -> Arc<str> {
        let name: Arc<str> = name.into();
        let mut inner = self.inner.lock();
        inner.now.entry(name.clone()).or_default();
        inner.safe.entry(name.clone()).or_default();
        name
    }

    pub(super) fn drop_space(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.now.remove(name);
        inner.safe.remove(name);
    }

    pub(super) fn names(&self) -> Vec<String> {
        let inner = self.inner.lock();
        inner.now.keys().map(|name| name.to_string()).collect()
    }

    pub(super) fn tables(&self) -> Tables {
        self.inner.lock().now.clone()
    }

    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.may_write()?;
        put(&mut inner.now, &changes);
        inner.unsynced.push_back(changes);
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.may_write()?;
        inner.keep(usize::MAX);
        Ok(())
    }
}

pub(super) fn get(tables: &Tables, space: &str, key: &[u8]) -> Option<UserValue> {
    tables.get(space)?.get(key).cloned()
}

pub(super) fn range<K: AsRef<[u8]>>(
    tables: &Tables,
    space: &str,
    range: &impl RangeBounds<K>,
) -> std::vec::IntoIter<KvPair> {
    let Some(table) = tables.get(space) else {
        return Vec::new().into_iter();
    };
    let low = range.start_bound().map(AsRef::as_ref);
    let high = range.end_bound().map(AsRef::as_ref);
    let found = table.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>((low, high));
    let found: Vec<KvPair> = found.map(|(k, v)| (k.clone(), v.clone())).collect();
    found.into_iter()
}

pub(super) fn prefix(tables: &Tables, space: &str, prefix: &[u8]) -> std::vec::IntoIter<KvPair> {
    let Some(table) = tables.get(space) else {
        return Vec::new().into_iter();
    };
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let found = table.range::<[u8], (Bound<&[u8]>, Bound<&[u8]>)>(from);
    let found = found.take_while(|(key, _)| key.starts_with(prefix));
    let found: Vec<KvPair> = found.map(|(k, v)| (k.clone(), v.clone())).collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Db};
    use super::*;

    fn write(db: &Db, key: &str) -> Result<()> {
        let space = db.space("some", Default::default)?;
        let mut batch = db.batch();
        batch.insert(&space, key, "there");
        batch.commit()
    }

    fn there(db: &Db) -> Result<Vec<String>> {
        let space = db.space("some", Default::default)?;
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        space
            .iter()
            .map(|row| row.map(|(key, _)| text(&key)))
            .collect()
    }

    #[test]
    fn what_was_not_synced_is_lost_from_some_batch_on() -> Result<()> {
        for (kept, left) in [(0, "a"), (1, "ab"), (2, "abc")] {
            let memory: Arc<Memory> = Arc::default();
            let db = Db::Memory(memory.clone());
            write(&db, "a")?;
            db.sync()?;
            write(&db, "b")?;
            write(&db, "c")?;
            assert_eq!(there(&db)?.concat(), "abc");
            memory.crash(|batches| {
                assert_eq!(batches, 2);
                kept
            });
            assert_eq!(there(&db)?.concat(), left);
        }
        Ok(())
    }

    #[test]
    fn ranges_and_prefixes_are_those_of_the_keys() -> Result<()> {
        let db = Db::Memory(Arc::default());
        for key in ["a", "ba", "bb", "c"] {
            write(&db, key)?;
        }
        let space = db.space("some", Default::default)?;
        let keys = |rows: &mut dyn Iterator<Item = Result<KvPair>>| -> Result<String> {
            let keys: Result<Vec<String>> = rows
                .map(|row| row.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()))
                .collect();
            keys.map(|keys| keys.join(" "))
        };
        assert_eq!(keys(&mut space.prefix("b"))?, "ba bb");
        assert_eq!(keys(&mut space.range("ba"..="c").rev())?, "c bb ba");
        let mut gone: Batch = db.batch();
        gone.remove(&space, "bb");
        let before = db.snapshot();
        gone.commit()?;
        assert_eq!(keys(&mut space.iter())?, "a ba c");
        assert_eq!(keys(&mut before.prefix(&space, "b")?)?, "ba bb");
        Ok(())
    }
}
