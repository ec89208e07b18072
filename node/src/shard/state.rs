//! The replicated state of one shard, in memory. Changed by [`super::apply`] only; read by everybody, under one lock
//! held for microseconds.

use super::counters::Counters;
use super::customer::{Bucket, CustomerState, DecisionId, Slot, chain_of, customer_of, pack};
use crate::convert::Unreadable;
use crate::history::Waiting;
use parking_lot::Mutex;
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::Time;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

/// How many buckets of one shard stay awake at most.
pub const AWAKE_MAX: usize = 2_048;

/// The state of one shard.
#[derive(Default)]
pub struct ShardState {
    /// Buckets by customer hash.
    pub buckets: BTreeMap<u64, Slot>,
    /// How many of them are away.
    pub away: u64,
    /// Hashes changed since the last completed checkpoint began.
    pub dirty: HashSet<u64>,
    /// Hashes changed since before the checkpoint that is being written.
    pub dirty_taken: HashSet<u64>,
    /// The last `at` of the shard: `at` never goes back.
    pub last_at: Time,
    /// Decisions use the catalog at this position.
    pub catalog: u64,
    /// Counters.
    pub counters: Counters,
    /// Decisions ignored because they were decided on another state.
    pub ignored: u64,
    /// Customers.
    pub customers: u64,
    /// Log index of the last entry applied.
    pub applied: u64,
    /// Log index of the last entry applied that was for the shard itself: decisions, or a catalog's position.
    pub last_entry: u64,
    /// History up to this index is in the store: a replay makes none up to here.
    pub history_up_to: u64,
    /// Log index of the checkpoint that the state came from; 0: from none. History must go so far.
    pub restored: u64,
    /// History that is not in the store yet.
    pub waiting: Waiting,
    /// Buckets awake, in the order they were woken; some may be gone or packed.
    pub awake: VecDeque<(u64, Instant)>,
}

/// A shard's state and its lock.
pub type Shared = Arc<Mutex<ShardState>>;

impl ShardState {
    /// All customers of a hash.
    pub fn look(&self, hash: u64) -> Result<Look, Unreadable> {
        Ok(match self.buckets.get(&hash) {
            None => Look::Nobody,
            Some(Slot::Away(chain)) => Look::Away {
                chain: *chain,
                waiting: self.waiting.away_of(hash),
            },
            Some(slot) => slot.open()?.map_or(Look::Nobody, Look::Here),
        })
    }

    /// The customers of a hash, if they are in memory.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn here(&self, hash: u64) -> Result<Option<Arc<Bucket>>, Unreadable> {
        self.buckets.get(&hash).map_or(Ok(None), Slot::open)
    }

    /// The customer of a key, if known and in memory.
    ///
    /// # Errors
    /// As [`Self::here`].
    pub fn customer(
        &self,
        hash: u64,
        workspace: &str,
        key: &Identifier,
    ) -> Result<Option<CustomerState>, Unreadable> {
        let bucket = self.here(hash)?;
        Ok(bucket.and_then(|b| customer_of(&b, workspace, key).cloned()))
    }

    /// The bucket of a hash, awake, to be changed. A checkpoint that holds the old one keeps it.
    ///
    /// # Errors
    /// It cannot be read, or is away: [`Self::come_back`] goes first.
    pub fn bucket_mut(&mut self, hash: u64) -> Result<&mut Bucket, Unreadable> {
        let bucket = match self.buckets.get(&hash) {
            Some(Slot::Awake(_)) => None,
            Some(slot) => Some(slot.open()?.ok_or_else(|| Unreadable {
                what: "the customers of a hash",
                why: "they are away".into(),
            })?),
            None => Some(Arc::default()),
        };
        if let Some(bucket) = bucket {
            self.buckets.insert(hash, Slot::Awake(bucket));
            self.awake.push_back((hash, Instant::now()));
        }
        self.dirty.insert(hash);
        match self.buckets.get_mut(&hash) {
            Some(Slot::Awake(bucket)) => Ok(Arc::make_mut(bucket)),
            Some(Slot::Packed(_) | Slot::Away(_)) | None => unreachable!("made awake above"),
        }
    }

    /// A bucket leaves memory with the entry at `index`; nothing happens unless it is here.
    pub fn leave(&mut self, hash: u64, index: u64) {
        let Some(Slot::Awake(bucket)) = self.buckets.get(&hash) else {
            return;
        };
        let (chain, packed) = (chain_of(bucket), pack(bucket));
        if index > self.history_up_to {
            self.waiting.away(hash, Some(packed.into()));
        }
        self.put(hash, Slot::Away(chain));
    }

    /// The bucket of a hash comes back as it left, with the entry at `index`. Says whether it does: not if another
    /// decision was the last when it left, or if it is not away.
    pub fn come_back(&mut self, hash: u64, bucket: Bucket, index: u64) -> bool {
        match self.buckets.get(&hash) {
            Some(Slot::Away(chain)) if *chain == chain_of(&bucket) => {}
            _ => return false,
        }
        if index > self.history_up_to {
            self.waiting.away(hash, None);
        }
        self.put(hash, Slot::Awake(Arc::new(bucket)));
        self.awake.push_back((hash, Instant::now()));
        true
    }

    /// Puts a slot in its place.
    pub fn put(&mut self, hash: u64, slot: Slot) {
        self.away += u64::from(matches!(slot, Slot::Away(_)));
        let old = self.buckets.insert(hash, slot);
        self.away -= u64::from(matches!(old, Some(Slot::Away(_))));
    }

    /// Packs buckets that have been awake longest: those beyond the limit, and those awake since before `idle`.
    /// Returns how many it packed.
    pub fn pack_idle(&mut self, idle: Instant, at_most: usize) -> usize {
        let mut packed = 0;
        while packed < at_most {
            let Some((hash, since)) = self.awake.front().copied() else {
                break;
            };
            if self.awake.len() <= AWAKE_MAX && since > idle {
                break;
            }
            self.awake.pop_front();
            if let Some(slot @ Slot::Awake(_)) = self.buckets.get_mut(&hash) {
                *slot = Slot::Packed(slot.bytes());
                packed += 1;
            }
        }
        packed
    }

    /// xxh3-128 over the canonical states in key order, and what the shard counts.
    pub fn hash(&self) -> u128 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for (hash, slot) in &self.buckets {
            hasher.update(&hash.to_be_bytes());
            hasher.update(&slot.bytes());
        }
        hasher.update(&self.last_at.0.to_be_bytes());
        hasher.update(&self.catalog.to_be_bytes());
        hasher.update(&self.ignored.to_be_bytes());
        hasher.digest128()
    }
}

/// What a shard knows of a hash.
pub enum Look {
    /// Nobody of this hash.
    Nobody,
    /// The customers are in memory.
    Here(Arc<Bucket>),
    /// They are in history.
    Away {
        /// Their last decisions, hashed: what is read must have the same.
        chain: u64,
        /// The packed customers, while history waits for its checkpoint.
        waiting: Option<Arc<[u8]>>,
    },
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Applied, at this log index and place.
    Applied {
        /// Log index.
        index: u64,
        /// Place in the entry.
        sub: u32,
    },
    /// Known not applied: it was decided on another state.
    Ignored,
}

/// Something was applied: what the owner's hands and the watchers are told.
#[derive(Clone, Debug)]
pub struct AppliedDecision {
    /// Which.
    pub id: DecisionId,
    /// The customer's hash.
    pub hash: u64,
    /// What became of it.
    pub verdict: Verdict,
}
