//! A simulated checkpoint store: of what was not flushed, a crash keeps some, in no order, and some of it torn.

use super::Dice;
use crate::checkpoint::{CheckpointStore, EachChunk, StoreFault};
use crate::id::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;

type Chunks = BTreeMap<(GroupId, u64, u32), Vec<u8>>;

#[derive(Debug, Clone, Default)]
struct Disk {
    chunks: Chunks,
    manifests: BTreeMap<GroupId, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Change {
    Chunk((GroupId, u64, u32), Vec<u8>),
    NoChunk((GroupId, u64, u32)),
    Manifest(GroupId, Vec<u8>),
    NoManifest(GroupId),
}

impl Disk {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Chunk(key, bytes) => drop(self.chunks.insert(key, bytes)),
            Change::NoChunk(key) => drop(self.chunks.remove(&key)),
            Change::Manifest(group, bytes) => drop(self.manifests.insert(group, bytes)),
            Change::NoManifest(group) => drop(self.manifests.remove(&group)),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    now: Disk,
    safe: Disk,
    unflushed: Vec<Change>,
    fail_after: Option<u64>,
    condemned: Option<String>,
}

impl State {
    fn change(&mut self, change: Change) -> Result<(), StoreFault> {
        self.pass()?;
        self.now.apply(change.clone());
        self.unflushed.push(change);
        Ok(())
    }

    fn pass(&mut self) -> Result<(), StoreFault> {
        match &mut self.fail_after {
            Some(0) => Err(StoreFault {
                what: "a simulated disk refused".to_owned(),
                damaged: false,
            }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Checkpoints on a simulated disk.
#[derive(Debug, Default)]
pub struct SimCheckpoints {
    state: Mutex<State>,
}

impl SimCheckpoints {
    /// An empty one.
    pub fn new() -> Self {
        SimCheckpoints::default()
    }

    /// The power goes.
    pub fn crash(&self, dice: &mut Dice) {
        let mut state = self.state.lock();
        for change in std::mem::take(&mut state.unflushed) {
            match change {
                Change::Chunk(key, mut bytes) if dice.once_in(4) => {
                    bytes.truncate(dice.below(bytes.len() as u64) as usize);
                    state.safe.apply(Change::Chunk(key, bytes));
                }
                change if dice.once_in(2) => state.safe.apply(change),
                _ => {}
            }
        }
        state.now = state.safe.clone();
        state.fail_after = None;
    }

    /// Makes changes and flushes fail, after `calls` more have succeeded, until the next crash or [`SimCheckpoints::heal`].
    pub fn fail_after(&self, calls: u64) {
        self.state.lock().fail_after = Some(calls);
    }

    /// Ends what [`SimCheckpoints::fail_after`] began.
    pub fn heal(&self) {
        self.state.lock().fail_after = None;
    }

    /// Flips a bit of a stored chunk of `group`, chosen by the dice; false when there is none.
    pub fn flip_bit(&self, group: GroupId, dice: &mut Dice) -> bool {
        let mut state = self.state.lock();
        let keys: Vec<_> = state
            .safe
            .chunks
            .keys()
            .filter(|key| key.0 == group)
            .copied()
            .collect();
        let Some(key) = keys.get(dice.below(keys.len() as u64) as usize) else {
            return false;
        };
        let bit = dice.roll() as usize;
        let flip = |bytes: &mut Vec<u8>| {
            let bit = bit % (bytes.len().max(1) * 8);
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        };
        state.safe.chunks.entry(*key).and_modify(flip);
        state.now.chunks.entry(*key).and_modify(flip);
        true
    }

    /// How many chunks are stored for `group`, of generations old and new.
    pub fn chunks(&self, group: GroupId) -> usize {
        self.state
            .lock()
            .now
            .chunks
            .keys()
            .filter(|key| key.0 == group)
            .count()
    }
}

impl CheckpointStore for SimCheckpoints {
    fn put_chunks(
        &self,
        group: GroupId,
        generation: u64,
        first: u32,
        chunks: &[Vec<u8>],
    ) -> Result<(), StoreFault> {
        let mut state = self.state.lock();
        for (chunk, sequence) in chunks.iter().zip(first..) {
            state.change(Change::Chunk((group, generation, sequence), chunk.clone()))?;
        }
        Ok(())
    }

    fn put_manifest(&self, group: GroupId, manifest: &[u8]) -> Result<(), StoreFault> {
        self.state
            .lock()
            .change(Change::Manifest(group, manifest.to_vec()))
    }

    fn delete_manifest(&self, group: GroupId) -> Result<(), StoreFault> {
        self.state.lock().change(Change::NoManifest(group))
    }

    fn flush(&self, _group: GroupId) -> Result<(), StoreFault> {
        let mut state = self.state.lock();
        state.pass()?;
        for change in std::mem::take(&mut state.unflushed) {
            state.safe.apply(change);
        }
        Ok(())
    }

    fn manifest(&self, group: GroupId) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.state.lock().now.manifests.get(&group).cloned())
    }

    fn read_chunks(
        &self,
        group: GroupId,
        generation: u64,
        each: &mut EachChunk<'_>,
    ) -> Result<(), StoreFault> {
        let chunks: Vec<(u32, Vec<u8>)> = {
            let state = self.state.lock();
            let range = (group, generation, 0)..=(group, generation, u32::MAX);
            state
                .now
                .chunks
                .range(range)
                .map(|(key, bytes)| (key.2, bytes.clone()))
                .collect()
        };
        chunks
            .iter()
            .try_for_each(|(sequence, bytes)| each(*sequence, bytes))
    }

    fn generations(&self, group: GroupId) -> Result<Vec<u64>, StoreFault> {
        let state = self.state.lock();
        let mut numbers: Vec<u64> = state
            .now
            .chunks
            .keys()
            .filter(|key| key.0 == group)
            .map(|key| key.1)
            .collect();
        numbers.dedup();
        Ok(numbers)
    }

    fn delete_chunks(&self, group: GroupId, generation: u64, most: u32) -> Result<u32, StoreFault> {
        let mut state = self.state.lock();
        let range = (group, generation, 0)..=(group, generation, u32::MAX);
        let keys: Vec<_> = state
            .now
            .chunks
            .range(range)
            .take(most as usize)
            .map(|(key, _)| *key)
            .collect();
        for key in &keys {
            state.change(Change::NoChunk(*key))?;
        }
        Ok(keys.len() as u32)
    }

    fn condemn(&self, why: &str) {
        self.state.lock().condemned = Some(why.to_owned());
    }

    fn used_bytes(&self) -> u64 {
        self.state
            .lock()
            .now
            .chunks
            .values()
            .map(|c| c.len() as u64)
            .sum()
    }

    fn place(&self) -> String {
        "simulated checkpoints".to_owned()
    }
}
