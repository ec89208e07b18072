//! A simulated log: a write that was under way when the disk crashed is lost, or kept whole, as the dice say.
//!
//! A torn record is lost as a whole: the real log's check sum sees to that.

use super::Dice;
use crate::id::GroupId;
use crate::log::{LogStore, MetaKey, Op, StoreError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
struct GroupData {
    entries: BTreeMap<u64, Bytes>,
    meta: BTreeMap<MetaKey, Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
struct Disk {
    groups: BTreeMap<GroupId, GroupData>,
}

impl Disk {
    fn apply(&mut self, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::Append {
                group,
                first,
                entries,
            } => {
                let data = self.groups.entry(*group).or_default();
                let gap = data
                    .entries
                    .last_key_value()
                    .is_some_and(|(last, _)| last + 1 < *first);
                let compacted = data
                    .entries
                    .first_key_value()
                    .is_some_and(|(start, _)| first < start);
                if entries.is_empty() || gap || compacted {
                    let what = format!(
                        "an append of {} entries at {first} of {group} does not fit",
                        entries.len()
                    );
                    return Err(StoreError {
                        what,
                        damaged: true,
                    });
                }
                data.entries.split_off(first);
                data.entries.extend((*first..).zip(entries.iter().cloned()));
            }
            Op::Put { group, key, value } => {
                self.groups
                    .entry(*group)
                    .or_default()
                    .meta
                    .insert(*key, value.clone());
            }
            Op::Delete { group, key } => {
                self.groups.entry(*group).or_default().meta.remove(key);
            }
            Op::Compact { group, before } => {
                let data = self.groups.entry(*group).or_default();
                data.entries = data.entries.split_off(before);
            }
            Op::Clean { group } => {
                let data = self.groups.remove(group).unwrap_or_default();
                let left = data.meta.into_iter().find(|(key, _)| *key == MetaKey::Left);
                if let Some((key, value)) = left {
                    let data = self.groups.entry(*group).or_default();
                    data.meta.insert(key, value);
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct State {
    /// What readers see.
    now: Disk,
    /// What a crash cannot take away.
    safe: Disk,
    /// The write that is under way: in `now`, not yet in `safe`.
    under_way: Vec<Op>,
    writes: u64,
    fail_after: Option<u64>,
}

/// A log on a simulated disk. It stays when the host on it is dropped; then [`SimLog::crash`] it, and open it again.
#[derive(Debug, Default)]
pub struct SimLog {
    state: Mutex<State>,
}

impl SimLog {
    /// An empty one.
    pub fn new() -> Self {
        SimLog::default()
    }

    /// The power goes: a write that was under way reached the disk, or did not, as the dice say.
    pub fn crash(&self, dice: &mut Dice) {
        let mut state = self.state.lock();
        let under_way = std::mem::take(&mut state.under_way);
        if dice.once_in(2) {
            for op in &under_way {
                // Cannot fail: it was applied to `now` in the same state.
                drop(state.safe.apply(op));
            }
        }
        state.now = state.safe.clone();
        state.fail_after = None;
    }

    /// Makes a write fail, after `writes` more have succeeded.
    pub fn fail_after(&self, writes: u64) {
        self.state.lock().fail_after = Some(writes);
    }

    /// How many writes succeeded.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }
}

impl LogStore for SimLog {
    fn write(&self, ops: &[Op]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        match &mut state.fail_after {
            Some(0) => {
                return Err(StoreError {
                    what: "a simulated fsync failed".to_owned(),
                    damaged: false,
                });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        for op in ops {
            state.now.apply(op)?;
        }
        state.under_way.extend_from_slice(ops);
        state.writes += 1;
        Ok(())
    }

    fn settle(&self) {
        let mut state = self.state.lock();
        for op in std::mem::take(&mut state.under_way) {
            // Cannot fail: it was applied to `now` in the same state.
            drop(state.safe.apply(&op));
        }
    }

    fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let state = self.state.lock();
        let missing = |index: u64| StoreError {
            what: format!("entry {index} of {group} is not there"),
            damaged: true,
        };
        let data = state.now.groups.get(&group).ok_or_else(|| missing(from))?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for index in from..to {
            let entry = data.entries.get(&index).ok_or_else(|| missing(index))?;
            bytes += entry.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn bounds(&self, group: GroupId) -> Option<(u64, u64)> {
        let state = self.state.lock();
        let entries = &state.now.groups.get(&group)?.entries;
        Some((*entries.first_key_value()?.0, *entries.last_key_value()?.0))
    }

    fn meta(&self, group: GroupId, key: MetaKey) -> Option<Vec<u8>> {
        self.state
            .lock()
            .now
            .groups
            .get(&group)?
            .meta
            .get(&key)
            .cloned()
    }

    fn groups(&self) -> Vec<GroupId> {
        let state = self.state.lock();
        let stored = state.now.groups.iter().filter(|(_, data)| {
            !data.entries.is_empty() || data.meta.keys().any(|key| *key != MetaKey::Left)
        });
        stored.map(|(group, _)| *group).collect()
    }

    fn purge_expired(&self) -> Result<Vec<GroupId>, StoreError> {
        Ok(Vec::new())
    }

    fn used_bytes(&self) -> u64 {
        let state = self.state.lock();
        state
            .now
            .groups
            .values()
            .flat_map(|g| g.entries.values())
            .map(|e| e.len() as u64)
            .sum()
    }

    fn place(&self) -> String {
        "a simulated log".to_owned()
    }
}
