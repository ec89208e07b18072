//! Reading what is committed: customers (those away from history), executions (ended ones from history), records,
//! first answers.

use super::customer::{Bucket, CustomerState, chain_of, unpack};
use super::decision::Decision;
use super::state::{Look, Shared};
use crate::convert::state::execution_from;
use crate::convert::value::identifier_from;
use crate::convert::{Unreadable, need};
use crate::history::{Damaged, Record, RunKey, Store};
use bytes::Bytes;
use prost::Message;
use sojourn_journey::event::Event;
use sojourn_journey::execution::Execution;
use sojourn_journey::identifier::{ExecutionId, slot_hash};
use sojourn_proto::stored;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that can be read from: one replica of a shard.
pub trait Replica {
    /// The shard's number.
    fn shard(&self) -> u16;
    /// Its state.
    fn state(&self) -> &Shared;
    /// The node's history.
    fn history(&self) -> &Arc<Store>;
}

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The state in memory.
    #[error(transparent)]
    State(#[from] Unreadable),
    /// The history on disk.
    #[error(transparent)]
    History(#[from] Damaged),
    /// A signal was decided before, and its record cannot be found.
    #[error(
        "the record of this id stood at log index {index} and is not in the history: `sojourn repair` looks at it"
    )]
    Missing {
        /// Where it was.
        index: u64,
    },
    /// A customer left memory, and is not in the history as they left.
    #[error(
        "the customers of hash {hash:016x} left memory and are not in the history as they left: `sojourn repair` looks at it"
    )]
    Lost {
        /// The hash.
        hash: u64,
    },
    /// This replica's history and its state are not of the same moment: it is being given one of them by another node,
    /// or has not applied as much as it was given. Nothing is lost.
    #[error(
        "this replica of shard {shard} is behind: it has applied the log up to entry {applied}, its history is at {history}; try again"
    )]
    Behind {
        /// The shard.
        shard: u16,
        /// Log index of the last entry applied.
        applied: u64,
        /// Up to which log index anything of its history is.
        history: u64,
    },
}

/// Why something is missing in history: because this replica is behind, or because it is lost.
fn lost(replica: &impl Replica, lost: ReadError) -> ReadError {
    let (applied, restored) = {
        let state = replica.state().lock();
        (state.applied, state.restored)
    };
    let shard = replica.shard();
    match replica.history().reach(shard) {
        Ok(history) if history > applied || history < restored => ReadError::Behind {
            shard,
            applied,
            history,
        },
        Ok(_) => lost,
        Err(damaged) => damaged.into(),
    }
}

/// The customers of a hash, in memory or away, and their packed bytes in the latter case.
///
/// # Errors
/// They cannot be read.
pub fn bucket(
    replica: &impl Replica,
    hash: u64,
) -> Result<(Arc<Bucket>, Option<Bytes>), ReadError> {
    // between the look and the read they may come back, and leave once more
    for _ in 0..3 {
        let (chain, waiting) = match replica.state().lock().look(hash)? {
            Look::Nobody => return Ok((Arc::default(), None)),
            Look::Here(bucket) => return Ok((bucket, None)),
            Look::Away { chain, waiting } => (chain, waiting),
        };
        let packed = match waiting {
            Some(packed) => Some(Bytes::copy_from_slice(&packed)),
            None => replica.history().away(replica.shard(), hash)?,
        };
        let Some(packed) = packed else { continue };
        let bucket = unpack(&packed)?;
        if chain_of(&bucket) == chain {
            return Ok((Arc::new(bucket), Some(packed)));
        }
    }
    Err(lost(replica, ReadError::Lost { hash }))
}

/// A decision of history and where it stands.
pub struct Found {
    /// The decision.
    pub decision: Decision,
    /// Log index.
    pub index: u64,
    /// Hash of the content of its input.
    pub content: u64,
}

/// The record of a signal or command, by the hash of its id.
pub fn first_answer(
    replica: &impl Replica,
    customer: u64,
    id: u128,
) -> Result<Option<Found>, ReadError> {
    let (applied, waiting) = {
        let state = replica.state().lock();
        (state.applied, state.waiting.receipt(id))
    };
    let recent = || -> Result<Option<u64>, ReadError> {
        let (bucket, _) = bucket(replica, customer)?;
        let mut recent = bucket.iter().flat_map(|c| &c.recent);
        Ok(recent.find(|r| r.hash == id).map(|r| r.index))
    };
    let index = match waiting {
        Some((index, _)) => Some(index),
        None => recent()?,
    };
    let index = match index {
        Some(index) => Some(index),
        None => replica
            .history()
            .receipt(replica.shard(), id)?
            .map(|(index, _)| index)
            // what this replica has not applied has not happened here yet
            .filter(|index| *index <= applied),
    };
    let Some(index) = index else {
        return Ok(None);
    };
    for decision in decisions_at(replica, customer, index)? {
        if decision.id_hash == Some(id) {
            return Ok(Some(Found {
                content: decision.content,
                decision,
                index,
            }));
        }
    }
    // known for certain, and what it did is not: better no answer than to do it twice
    Err(lost(replica, ReadError::Missing { index }))
}

/// The decisions of a customer hash at one log index, in their order.
///
/// # Errors
/// They cannot be read.
pub fn decisions_at(
    replica: &impl Replica,
    customer: u64,
    index: u64,
) -> Result<Vec<Decision>, ReadError> {
    // waiting first: a checkpoint that completes in between has it in the store
    let mut records = replica.state().lock().waiting.records(customer);
    records.retain(|r| r.index == index);
    if records.is_empty() {
        let history = replica.history();
        records = history.records_beside(replica.shard(), customer, index)?;
        records.retain(|r| r.index == index);
    }
    let mut decisions = Vec::with_capacity(records.len());
    for record in records {
        decisions.push(Decision::decode(&record.bytes)?);
    }
    Ok(decisions)
}

/// The records of a customer hash from a log index on, in log order.
///
/// # Errors
/// They cannot be read.
pub fn records(replica: &impl Replica, customer: u64, from: u64) -> Result<Vec<Record>, ReadError> {
    let mut all = Vec::new();
    records_while(replica, customer, from, |record| {
        all.push(record);
        Ok(true)
    })?;
    Ok(all)
}

/// The same, those in the store, then those that wait, as long as `f` wants more: no more than that is read.
///
/// # Errors
/// They cannot be read, or `f` says so.
pub fn records_while(
    replica: &impl Replica,
    customer: u64,
    from: u64,
    mut f: impl FnMut(Record) -> Result<bool, ReadError>,
) -> Result<(), ReadError> {
    // waiting first: a checkpoint that completes in between makes some appear twice, never vanish
    let (applied, waiting) = {
        let state = replica.state().lock();
        (state.applied, state.waiting.records(customer))
    };
    let mut last = None;
    let mut more = Ok(true);
    let history = replica.history();
    history.records_while(replica.shard(), customer, from, |record| {
        // history may be ahead of what this replica has applied
        if record.index > applied {
            return false;
        }
        last = Some((record.index, record.sub));
        more = f(record);
        matches!(more, Ok(true))
    })?;
    if !more? {
        return Ok(());
    }
    for record in waiting {
        let place = (record.index, record.sub);
        if record.index >= from && Some(place) > last && !f(record)? {
            break;
        }
    }
    Ok(())
}

/// Which execution of which customer.
pub struct Wanted<'a> {
    /// The journey.
    pub journey: &'a str,
    /// The instance key.
    pub instance: Option<&'a str>,
    /// The run.
    pub run: u32,
}

/// An execution that ended and left memory.
pub struct Ended {
    /// Where it stands in the index.
    pub key: RunKey,
    /// The workspace.
    pub workspace: String,
    /// As it was in the end.
    pub execution: Arc<Execution>,
}

/// The executions that ended, from one key to another, so many at most, in the order of their keys.
///
/// # Errors
/// They cannot be read.
pub fn ended(
    replica: &impl Replica,
    from: RunKey,
    to: RunKey,
    at_most: usize,
) -> Result<Vec<Ended>, ReadError> {
    // waiting first: a checkpoint that completes in between makes some appear twice, never vanish
    let (applied, waiting) = {
        let state = replica.state().lock();
        (state.applied, state.waiting.ended_of(from, to))
    };
    let stored = replica
        .history()
        .ended(replica.shard(), from, to, at_most, applied)?;
    let mut all: BTreeMap<RunKey, stored::EndedExecution> = stored.into_iter().collect();
    for (key, bytes) in waiting {
        let ended = stored::EndedExecution::decode(bytes).map_err(|e| Unreadable {
            what: "an ended execution",
            why: e.to_string(),
        })?;
        all.insert(key, ended);
    }
    let mut found = Vec::with_capacity(all.len().min(at_most));
    for (key, ended) in all.into_iter().take(at_most) {
        let customer = need(ended.customer, "the customer of an ended execution")?;
        let execution = need(ended.execution, "an ended execution")?;
        let execution = execution_from(execution, &identifier_from(customer))?;
        found.push(Ended {
            key,
            workspace: ended.workspace,
            execution: Arc::new(execution),
        });
    }
    Ok(found)
}

/// An execution, from memory or, once it has ended, from the index.
///
/// # Errors
/// It cannot be read.
pub fn execution(
    replica: &impl Replica,
    customer: &CustomerState,
    hash: u64,
    wanted: &Wanted<'_>,
) -> Result<Option<Arc<Execution>>, ReadError> {
    let Wanted {
        journey,
        instance,
        run,
    } = wanted;
    if let Some(execution) = customer.execution(journey, *instance, *run) {
        return Ok(Some(execution.clone()));
    }
    let key = (hash, slot_hash(journey, *instance), *run);
    let indexed = ended_of(replica, customer, key)?;
    match indexed {
        Some(execution) => Ok(Some(execution)),
        None => replayed(replica, customer, hash, wanted),
    }
}

/// An execution that ended before there was an index: from its timeline.
fn replayed(
    replica: &impl Replica,
    customer: &CustomerState,
    hash: u64,
    wanted: &Wanted<'_>,
) -> Result<Option<Arc<Execution>>, ReadError> {
    let mut events: Vec<Event> = Vec::new();
    records_while(replica, hash, customer.first_index, |record| {
        let decision = Decision::decode(&record.bytes)?;
        if decision.workspace != customer.workspace || decision.customer != customer.customer.key {
            return Ok(true);
        }
        let ours = decision.parts.into_iter().filter(|p| {
            p.run == wanted.run
                && p.journey == wanted.journey
                && p.instance.as_deref() == wanted.instance
        });
        events.extend(ours.flat_map(|p| p.events));
        Ok(true)
    })?;
    Ok(Execution::replay(&events).map(Arc::new))
}

/// The execution of an id, if it is one of this customer.
///
/// # Errors
/// It cannot be read.
pub fn by_id(
    replica: &impl Replica,
    customer: &CustomerState,
    id: ExecutionId,
) -> Result<Option<Arc<Execution>>, ReadError> {
    let is =
        |e: &Execution| e.run == id.run && slot_hash(&e.journey, e.instance.as_deref()) == id.slot;
    if let Some(execution) = customer.executions.iter().find(|e| is(e)) {
        return Ok(Some(execution.clone()));
    }
    let key = (id.customer, id.slot, id.run);
    if let Some(execution) = ended_of(replica, customer, key)? {
        return Ok(Some(execution));
    }
    let run = customer.customer.runs.iter().find(|r| {
        slot_hash(&r.journey, r.instance.as_deref()) == id.slot && (1..=r.run).contains(&id.run)
    });
    let Some(run) = run else { return Ok(None) };
    let wanted = Wanted {
        journey: &run.journey,
        instance: run.instance.as_deref(),
        run: id.run,
    };
    replayed(replica, customer, id.customer, &wanted)
}

fn ended_of(
    replica: &impl Replica,
    customer: &CustomerState,
    key: RunKey,
) -> Result<Option<Arc<Execution>>, ReadError> {
    // of two customers of one hash, the other's may stand there
    let ours = ended(replica, key, key, 1)?.into_iter().find(|e| {
        e.workspace == customer.workspace && e.execution.customer == customer.customer.key
    });
    Ok(ours.map(|e| e.execution))
}
