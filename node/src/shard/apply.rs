//! Applying: what every replica does with a committed decision. Needs no definition, no expression, no clock.
//!
//! Total: a decision that was decided on another state is ignored and counted, an execution whose events cannot be
//! applied is quarantined, on every replica alike.

use super::counters::Counters;
use super::customer::{CustomerState, Quarantine, Recent, Slot, idle_since, unpack};
use super::decision::{Decision, Part};
use super::state::{ShardState, Verdict};
use crate::bugs;
use crate::convert::Unreadable;
use crate::convert::state::{execution_to, stays};
use crate::convert::value::identifier_to;
use crate::history::{Note, Record};
use bytes::Bytes;
use prost::Message;
use sojourn_journey::customer::Customer;
use sojourn_journey::event::What;
use sojourn_journey::evolve::evolve;
use sojourn_journey::execution::Execution;
use sojourn_journey::identifier::slot_hash;
use sojourn_proto::stored::{self, cause::Cause};
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
    if let Some(Slot::Away(_)) = state.buckets.get(&decision.hash) {
        // the owner has read it: what cannot be read here is of a newer version, and never skipped
        let returned = decision.returned.as_ref().map(|b| unpack(b)).transpose()?;
        if !returned.is_some_and(|bucket| state.come_back(decision.hash, bucket, index)) {
            state.ignored += 1;
            return Ok(Verdict::Ignored);
        }
    }
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
    if !bugs::follows(last, decision.previous) {
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
    let mut notes = Notes::default();
    change_customer(&mut counters, &mut notes, customer, decision, index);
    customer.last = Some(decision.id);
    customer.last_at = decision.at;
    if let Some(hash) = decision.id_hash {
        customer.remember(Recent { hash, index });
    }
    let leaves = matches!(decision.cause, Cause::Leave(_)) && idle_since(bucket).is_some();
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
        let note = |message: Vec<u8>| Note {
            index,
            sub,
            bytes: message.into(),
        };
        for execution in notes.ended {
            let slot = slot_hash(&execution.journey, execution.instance.as_deref());
            let ended = ended(decision, index, &execution);
            state.waiting.ended(
                (decision.hash, slot, execution.run),
                ended.encode_to_vec().into(),
            );
        }
        for (signal, execution) in notes.unmatched {
            let unmatched = unmatched(decision, (index, sub), signal, &execution);
            state.waiting.unmatched(note(unmatched.encode_to_vec()));
        }
    }
    if leaves {
        state.leave(decision.hash, index);
    }
    Ok(Verdict::Applied { index, sub })
}

/// What history keeps of a decision beside its record.
#[derive(Default)]
struct Notes {
    /// Executions that ended and leave memory.
    ended: Vec<Arc<Execution>>,
    /// Signals that moved nothing, with the execution.
    unmatched: Vec<(Unmoved, Arc<Execution>)>,
}

/// A signal that moved nothing.
struct Unmoved {
    kind: String,
    id: String,
    source: String,
}

fn ended(decision: &Decision, index: u64, execution: &Execution) -> stored::EndedExecution {
    stored::EndedExecution {
        workspace: decision.workspace.clone(),
        customer: Some(identifier_to(&decision.customer)),
        execution: Some(execution_to(execution)),
        index,
    }
}

fn unmatched(
    decision: &Decision,
    (index, sub): (u64, u32),
    signal: Unmoved,
    execution: &Execution,
) -> stored::UnmatchedSignal {
    stored::UnmatchedSignal {
        index,
        sub,
        workspace: decision.workspace.clone(),
        customer: Some(identifier_to(&decision.customer)),
        r#type: signal.kind,
        signal_id: signal.id,
        source: signal.source,
        journey: execution.journey.clone(),
        instance: execution.instance.clone(),
        run: execution.run,
        version: execution.version,
        stage: execution.visit.stage.clone(),
        at: decision.at.0,
        occurred: decision.occurred.0,
    }
}

fn change_customer(
    counters: &mut Counters,
    notes: &mut Notes,
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
        // what a release takes is the first that waits
        let waited = match &decision.cause {
            Cause::Release(_) => before.as_ref().and_then(|e| e.waiting.first().cloned()),
            _ => None,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            evolve_part(counters, record, before, &decision.workspace, part)
        }));
        match (outcome, place) {
            (Ok(Some(after)), place) => {
                let keep = stays(&after);
                for event in &part.events {
                    if let What::Unmatched { kind } = &event.what {
                        let (id, source) = match (&decision.cause, &waited) {
                            (Cause::Signal(s), _) => (s.id.clone(), s.source.clone()),
                            (_, Some(s)) => (s.id.clone(), s.source.clone()),
                            (_, None) => Default::default(),
                        };
                        let kind = kind.clone();
                        let signal = Unmoved { kind, id, source };
                        notes.unmatched.push((signal, after.clone()));
                    }
                }
                if !keep {
                    notes.ended.push(after.clone());
                }
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
