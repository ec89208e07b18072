//! Applying: what every replica does with a committed decision. Needs no definition, no expression, no clock.
//!
//! Total: a decision that was decided on another state is ignored and counted, an execution whose events cannot be
//! applied is quarantined, on every replica alike.

use super::counters::Counters;
use super::customer::{CustomerState, Quarantine, Recent};
use super::decision::{Decision, Part};
use super::state::{ShardState, Verdict};
use crate::convert::Unreadable;
use crate::convert::state::stays;
use crate::history::Record;
use bytes::Bytes;
use sojourn_journey::customer::Customer;
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Applies one decision.
///
/// # Errors
/// When the state in memory cannot be read: the replica must stop.
pub fn apply(
    state: &mut ShardState,
    index: u64,
    sub: u32,
    decision: &Decision,
    bytes: &Bytes,
) -> Result<Verdict, Unreadable> {
    // moved out and back, so that the bucket and the counters can be changed together
    let mut counters = std::mem::take(&mut state.counters);
    let bucket = match state.bucket_mut(decision.hash) {
        Ok(bucket) => bucket,
        Err(error) => {
            state.counters = counters;
            return Err(error);
        }
    };
    let place = bucket
        .iter()
        .position(|c| c.workspace == decision.workspace && c.customer.key == decision.customer);
    let last = place.and_then(|i| bucket[i].last);
    if last != decision.previous {
        let empty = bucket.is_empty();
        state.counters = counters;
        state.ignored += 1;
        if empty {
            state.buckets.remove(&decision.hash);
            state.dirty.remove(&decision.hash);
        }
        return Ok(Verdict::Ignored);
    }
    let place = place.unwrap_or_else(|| {
        let fresh = Customer::new(decision.customer.clone());
        bucket.push(CustomerState::new(decision.workspace.clone(), fresh, index));
        bucket.len() - 1
    });
    let new = bucket[place].last.is_none();
    let customer = &mut bucket[place];
    change_customer(&mut counters, customer, decision, index);
    customer.last = Some(decision.id);
    if let Some(hash) = decision.id_hash {
        customer.remember(Recent { hash, index });
    }
    state.counters = counters;
    state.customers += u64::from(new);
    state.last_at = state.last_at.max(decision.at);
    if index > state.history_up_to {
        let record = Record {
            index,
            sub,
            bytes: bytes.clone(),
        };
        state.waiting.push(decision.hash, record, decision.id_hash);
    }
    Ok(Verdict::Applied { index, sub })
}

fn change_customer(
    counters: &mut Counters,
    to: &mut CustomerState,
    decision: &Decision,
    index: u64,
) {
    let record = Arc::make_mut(&mut to.customer);
    record.apply(&decision.change);
    for part in &decision.parts {
        if part.events.is_empty()
            || to.quarantined.iter().any(|q| {
                q.run == part.run && q.journey == part.journey && q.instance == part.instance
            })
        {
            continue;
        }
        let place = to.executions.iter().position(|e| {
            e.run == part.run && e.journey == part.journey && e.instance == part.instance
        });
        let before = place.map(|i| to.executions[i].clone());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            evolve_part(counters, record, before, &decision.workspace, part)
        }));
        match (outcome, place) {
            (Ok(Some(after)), place) => {
                let keep = stays(&after);
                match place {
                    Some(i) if keep => to.executions[i] = after,
                    Some(i) => {
                        to.executions.remove(i);
                    }
                    None if keep => to.executions.push(after),
                    None => {}
                }
            }
            (Ok(None), _) => {}
            (Err(panic), _) => {
                let why = panic_text(panic.as_ref());
                tracing::error!(
                    journey = part.journey,
                    index,
                    why,
                    "an execution's events cannot be applied: it is quarantined"
                );
                to.quarantined.push(Quarantine {
                    journey: part.journey.clone(),
                    instance: part.instance.clone(),
                    run: part.run,
                    why,
                    index,
                });
            }
        }
    }
}

fn evolve_part(
    counters: &mut Counters,
    record: &mut Customer,
    before: Option<Arc<Execution>>,
    workspace: &str,
    part: &Part,
) -> Option<Arc<Execution>> {
    let mut events = part.events.iter();
    let mut execution = match before {
        Some(execution) => execution,
        None => {
            let first = events.next()?;
            let begun = Execution::begin(first)?;
            counters.count(workspace, None, first);
            record.note(&part.journey, part.instance.as_deref(), part.run, first);
            Arc::new(begun)
        }
    };
    let now = Arc::make_mut(&mut execution);
    for event in events {
        counters.count(workspace, Some(now), event);
        evolve(now, event);
        record.note(&part.journey, part.instance.as_deref(), part.run, event);
    }
    Some(execution)
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".into())
}
