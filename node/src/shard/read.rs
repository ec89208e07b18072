//! Reading what is committed: customers, executions (ended ones from history), records, first answers.

use super::customer::CustomerState;
use super::decision::Decision;
use super::state::Shared;
use crate::convert::Unreadable;
use crate::history::{Damaged, Record, Store};
use sojourn_journey::event::Event;
use sojourn_journey::execution::Execution;
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
    let (waiting, recent) = {
        let state = replica.state().lock();
        let waiting = state.waiting.receipt(id).map(|(index, _)| index);
        let bucket = state.bucket(customer)?;
        let recent = bucket
            .iter()
            .flat_map(|c| &c.recent)
            .find(|r| r.hash == id)
            .map(|r| r.index);
        (waiting, recent)
    };
    let index = match waiting.or(recent) {
        Some(index) => Some(index),
        None => replica
            .history()
            .receipt(replica.shard(), id)?
            .map(|(index, _)| index),
    };
    let Some(index) = index else {
        return Ok(None);
    };
    for record in records(replica, customer, index)? {
        if record.index > index {
            break;
        }
        let decision = Decision::decode(&record.bytes)?;
        if decision.id_hash == Some(id) {
            return Ok(Some(Found {
                content: decision.content,
                decision,
                index,
            }));
        }
    }
    // known for certain, and what it did is not: better no answer than to do it twice
    Err(ReadError::Missing { index })
}

/// The records of a customer hash from a log index on, in log order: those in the store, then those that wait.
pub fn records(replica: &impl Replica, customer: u64, from: u64) -> Result<Vec<Record>, ReadError> {
    // waiting first: a checkpoint that completes in between makes some appear twice, never vanish
    let waiting = replica.state().lock().waiting.records(customer);
    let mut all = replica.history().records(replica.shard(), customer, from)?;
    all.extend(waiting.into_iter().filter(|r| r.index >= from));
    all.sort_by_key(|r| (r.index, r.sub));
    all.dedup_by_key(|r| (r.index, r.sub));
    Ok(all)
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

/// An execution, from memory or, once it has ended, from its history.
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
    let mut events: Vec<Event> = Vec::new();
    for record in records(replica, hash, customer.first_index)? {
        let decision = Decision::decode(&record.bytes)?;
        if decision.workspace != customer.workspace || decision.customer != customer.customer.key {
            continue;
        }
        for part in decision.parts {
            if part.run == *run && part.journey == *journey && part.instance.as_deref() == *instance
            {
                events.extend(part.events);
            }
        }
    }
    Ok(Execution::replay(&events).map(Arc::new))
}
