//! One customer as a replica holds it: record, chain, recent ids, executions in memory; awake, packed, or away.

use crate::convert::state::{customer_from, customer_to, execution_from, execution_to};
use crate::convert::{Unreadable, need};
use prost::Message;
use sojourn_journey::customer::Customer;
use sojourn_journey::execution::Execution;
use sojourn_journey::owed::next_due;
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::Time;
use sojourn_proto::stored;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many signal ids a customer record keeps itself; older ones stand in the receipt index.
pub const RECENT_IDS: usize = 8;

/// The id of a decision, unique for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId {
    /// The term of the leader that decided.
    pub term: u64,
    /// Its node.
    pub node: u64,
    /// When that owner's session began, microseconds: never twice the same on one node.
    pub epoch: u64,
    /// Its counter.
    pub counter: u64,
}

impl std::fmt::Display for DecisionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DecisionId {
            term,
            node,
            epoch,
            counter,
        } = self;
        write!(f, "{term:x}.{node:x}.{epoch:x}.{counter:x}")
    }
}

impl From<stored::DecisionId> for DecisionId {
    fn from(id: stored::DecisionId) -> Self {
        DecisionId {
            term: id.term,
            node: id.node,
            epoch: id.epoch,
            counter: id.counter,
        }
    }
}

impl From<DecisionId> for stored::DecisionId {
    fn from(id: DecisionId) -> Self {
        stored::DecisionId {
            term: id.term,
            node: id.node,
            epoch: id.epoch,
            counter: id.counter,
        }
    }
}

/// A recent signal: its id's hash and the log index of its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    /// See [`crate::history::id_hash`].
    pub hash: u128,
    /// Where its record is.
    pub index: u64,
}

/// One customer of one workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerState {
    /// The workspace.
    pub workspace: String,
    /// The record.
    pub customer: Arc<Customer>,
    /// Executions that move or owe something.
    pub executions: Vec<Arc<Execution>>,
    /// The last decision applied: what the next one must name.
    pub last: Option<DecisionId>,
    /// Its `at`.
    pub last_at: Time,
    /// The newest ids, oldest first.
    pub recent: VecDeque<Recent>,
    /// Older ids exist.
    pub recent_overflowed: bool,
    /// Log index of the first record.
    pub first_index: u64,
    /// Executions whose events could not be applied.
    pub quarantined: Vec<Quarantine>,
}

/// An execution whose events could not be applied: nothing is decided for it any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantine {
    /// The journey.
    pub journey: String,
    /// The instance key.
    pub instance: Option<String>,
    /// The run.
    pub run: u32,
    /// What went wrong.
    pub why: String,
    /// At which log index.
    pub index: u64,
}

impl CustomerState {
    /// A customer seen for the first time.
    pub fn new(workspace: String, customer: Customer, first_index: u64) -> Self {
        CustomerState {
            workspace,
            customer: Arc::new(customer),
            executions: Vec::new(),
            last: None,
            last_at: Time(0),
            recent: VecDeque::new(),
            recent_overflowed: false,
            first_index,
            quarantined: Vec::new(),
        }
    }

    /// Whether an execution is quarantined, and why.
    pub fn quarantine(
        &self,
        journey: &str,
        instance: Option<&str>,
        run: u32,
    ) -> Option<&Quarantine> {
        self.quarantined
            .iter()
            .find(|q| q.run == run && q.journey == journey && q.instance.as_deref() == instance)
    }

    /// Remembers an id.
    pub fn remember(&mut self, recent: Recent) {
        if self.recent.len() >= RECENT_IDS {
            self.recent.pop_front();
            self.recent_overflowed = true;
        }
        self.recent.push_back(recent);
    }

    /// The execution of a run that is in memory.
    pub fn execution(
        &self,
        journey: &str,
        instance: Option<&str>,
        run: u32,
    ) -> Option<&Arc<Execution>> {
        self.executions
            .iter()
            .find(|e| e.run == run && e.journey == journey && e.instance.as_deref() == instance)
    }

    /// Whether nothing of theirs is in memory that could move: once the dedup window is over they may leave.
    pub fn is_idle(&self) -> bool {
        self.executions.is_empty() && self.quarantined.is_empty()
    }

    /// When the next timer or retry is due; `Time(i64::MIN)`: something is owed at once; `None`: nothing.
    pub fn next_due(&self) -> Option<Time> {
        self.executions.iter().filter_map(|e| due(e)).min()
    }

    fn to_stored(&self) -> stored::CustomerState {
        let mut to = stored::CustomerState {
            workspace: self.workspace.clone(),
            last: self.last.map(Into::into),
            last_at: self.last_at.0,
            recent: self
                .recent
                .iter()
                .map(|r| stored::RecentId {
                    hash: bytes::Bytes::copy_from_slice(&r.hash.to_be_bytes()),
                    index: r.index,
                })
                .collect(),
            recent_overflowed: self.recent_overflowed,
            executions: self.executions.iter().map(|e| execution_to(e)).collect(),
            first_index: self.first_index,
            quarantined: self
                .quarantined
                .iter()
                .map(|q| stored::Quarantine {
                    journey: q.journey.clone(),
                    instance: q.instance.clone(),
                    run: q.run,
                    why: q.why.clone(),
                    index: q.index,
                })
                .collect(),
            ..stored::CustomerState::default()
        };
        customer_to(&self.customer, &mut to);
        to
    }

    fn from_stored(mut from: stored::CustomerState) -> Result<Self, Unreadable> {
        let customer = customer_from(&mut from)?;
        let executions = from
            .executions
            .into_iter()
            .map(|e| execution_from(e, &customer.key).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let recent = from
            .recent
            .into_iter()
            .map(|r| {
                let hash = <[u8; 16]>::try_from(r.hash.as_ref());
                need(hash.ok(), "a recent id").map(|hash| Recent {
                    hash: u128::from_be_bytes(hash),
                    index: r.index,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(CustomerState {
            workspace: from.workspace,
            customer: Arc::new(customer),
            executions,
            last: from.last.map(Into::into),
            last_at: Time(from.last_at),
            recent,
            recent_overflowed: from.recent_overflowed,
            first_index: from.first_index,
            quarantined: from
                .quarantined
                .into_iter()
                .map(|q| Quarantine {
                    journey: q.journey,
                    instance: q.instance,
                    run: q.run,
                    why: q.why,
                    index: q.index,
                })
                .collect(),
        })
    }
}

/// When something of an execution is due; `Time(i64::MIN)`: at once.
pub fn due(e: &Execution) -> Option<Time> {
    let owed = e.owed.iter().map(|o| o.next.unwrap_or(Time(i64::MIN)));
    let release = (e.has_waiting() && !e.is_ended() && e.hold.is_none()).then_some(Time(i64::MIN));
    owed.chain(next_due(e)).chain(release).min()
}

/// All customers of one 64-bit hash: one, except when two keys collide.
pub type Bucket = Vec<CustomerState>;

/// The customer of a key, if known.
pub fn customer_of<'a>(
    bucket: &'a Bucket,
    workspace: &str,
    key: &Identifier,
) -> Option<&'a CustomerState> {
    bucket
        .iter()
        .find(|c| c.workspace == workspace && c.customer.key == *key)
}

/// A bucket in memory.
#[derive(Clone)]
pub enum Slot {
    /// As values, because it was touched lately.
    Awake(Arc<Bucket>),
    /// As bytes.
    Packed(Arc<[u8]>),
    /// In history, because nothing of it has been active for long. The hash of the customers' last decisions stays
    /// ([`chain_of`]), so that a decision is applied to the very state it was decided on and no other.
    Away(u64),
}

/// `format u8 | flags u8 | i64 LE` stand before the messages, so that an owner looks at ten bytes each. What the number
/// is, the flags say.
const HEAD: usize = 10;
const FORMAT: u8 = 1;
/// When something is due next.
const HAS_DUE: u8 = 1;
/// Nothing can become due: the `at` of the last decision.
const IDLE: u8 = 2;
/// The format of a bucket that is away: nothing follows, and the number is the hash of its last decisions.
const AWAY: u8 = 2;

fn head(format: u8, flags: u8, number: i64) -> Vec<u8> {
    let mut out = vec![format, flags];
    out.extend_from_slice(&number.to_le_bytes());
    out
}

/// What a packed bucket begins with: flags and number.
fn head_of(packed: &[u8]) -> Option<(u8, i64)> {
    let number = packed.get(2..HEAD)?.try_into().ok()?;
    Some((packed[1], i64::from_le_bytes(number)))
}

/// Hash of the last decisions of all customers of a bucket: what the next decision of an absent bucket is checked by.
pub fn chain_of(bucket: &Bucket) -> u64 {
    let mut bytes = Vec::with_capacity(32 * bucket.len());
    for id in bucket.iter().filter_map(|c| c.last) {
        for part in [id.term, id.node, id.epoch, id.counter] {
            bytes.extend_from_slice(&part.to_be_bytes());
        }
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// The `at` of the last decision of a bucket whose only customer is idle. Two customers of one hash stay.
pub fn idle_since(bucket: &Bucket) -> Option<Time> {
    match bucket.as_slice() {
        [only] if only.is_idle() => Some(only.last_at),
        _ => None,
    }
}

/// Packs a bucket.
pub fn pack(bucket: &Bucket) -> Vec<u8> {
    let due = bucket.iter().filter_map(CustomerState::next_due).min();
    let mut out = match (due, idle_since(bucket)) {
        (Some(due), _) => head(FORMAT, HAS_DUE, due.0),
        (None, Some(since)) => head(FORMAT, IDLE, since.0),
        (None, None) => head(FORMAT, 0, 0),
    };
    for customer in bucket {
        // encoding into a Vec cannot fail: it grows
        customer
            .to_stored()
            .encode_length_delimited(&mut out)
            .unwrap_or_default();
    }
    out
}

/// Unpacks a bucket.
pub fn unpack(packed: &[u8]) -> Result<Bucket, Unreadable> {
    let unreadable = |why: String| Unreadable {
        what: "a packed customer",
        why,
    };
    if packed.first() != Some(&FORMAT) || packed.len() < HEAD {
        return Err(unreadable(format!(
            "format {:?}, this version reads {FORMAT}",
            packed.first()
        )));
    }
    let mut rest = bytes::Bytes::copy_from_slice(&packed[HEAD..]);
    let mut bucket = Vec::with_capacity(1);
    while !rest.is_empty() {
        let state = stored::CustomerState::decode_length_delimited(&mut rest)
            .map_err(|e| unreadable(e.to_string()))?;
        bucket.push(CustomerState::from_stored(state)?);
    }
    Ok(bucket)
}

impl Slot {
    /// From canonical bytes.
    ///
    /// # Errors
    /// They are of a format that this version does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Slot, Unreadable> {
        match (bytes.first(), head_of(bytes)) {
            (Some(&FORMAT), Some(_)) => Ok(Slot::Packed(bytes.into())),
            (Some(&AWAY), Some((_, chain))) => Ok(Slot::Away(chain.cast_unsigned())),
            (format, _) => Err(Unreadable {
                what: "a packed customer",
                why: format!(
                    "format {format:?} in {} bytes, this version reads {FORMAT} and {AWAY}",
                    bytes.len()
                ),
            }),
        }
    }

    /// When something of the bucket is due, without unpacking it.
    pub fn next_due(&self) -> Option<Time> {
        match self {
            Slot::Awake(bucket) => bucket.iter().filter_map(CustomerState::next_due).min(),
            Slot::Packed(bytes) => {
                let (flags, number) = head_of(bytes)?;
                (flags & HAS_DUE != 0).then_some(Time(number))
            }
            Slot::Away(_) => None,
        }
    }

    /// Since when its customer is idle, without unpacking it.
    pub fn idle_since(&self) -> Option<Time> {
        match self {
            Slot::Packed(bytes) => {
                let (flags, number) = head_of(bytes)?;
                (flags & IDLE != 0).then_some(Time(number))
            }
            Slot::Awake(bucket) => idle_since(bucket),
            Slot::Away(_) => None,
        }
    }

    /// The bucket as values; `None`: it is away.
    pub fn open(&self) -> Result<Option<Arc<Bucket>>, Unreadable> {
        match self {
            Slot::Awake(bucket) => Ok(Some(bucket.clone())),
            Slot::Packed(bytes) => unpack(bytes).map(|bucket| Some(Arc::new(bucket))),
            Slot::Away(_) => Ok(None),
        }
    }

    /// The canonical bytes.
    pub fn bytes(&self) -> Arc<[u8]> {
        match self {
            Slot::Awake(bucket) => pack(bucket).into(),
            Slot::Packed(bytes) => bytes.clone(),
            Slot::Away(chain) => head(AWAY, 0, chain.cast_signed()).into(),
        }
    }
}
