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
use sojourn_journey::signal::Signal;
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

impl Notes {
    /// What an execution's part leaves: `waited`, the signal that a release took.
    fn take(
        &mut self,
        decision: &Decision,
        part: &Part,
        after: &Arc<Execution>,
        waited: Option<&Signal>,
    ) {
        for event in &part.events {
            if let What::Unmatched { kind } = &event.what {
                let (id, source) = match (&decision.cause, waited) {
                    (Cause::Signal(s), _) => (s.id.clone(), s.source.clone()),
                    (_, Some(s)) => (s.id.clone(), s.source.clone()),
                    (_, None) => Default::default(),
                };
                let kind = kind.clone();
                self.unmatched
                    .push((Unmoved { kind, id, source }, after.clone()));
            }
        }
        if !stays(after) {
            self.ended.push(after.clone());
        }
    }
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
    // a quarantined execution stays as it is, whatever its events say
    let outcome = decision.outcome.as_ref();
    let outcome = outcome.filter(|_| to.quarantined.is_empty());
    #[cfg(debug_assertions)]
    let evolved = outcome.is_some().then(|| evolved(to, decision, index));
    match outcome {
        Some(outcome) => to.customer = outcome.customer.clone(),
        None => Arc::make_mut(&mut to.customer).apply(&decision.change),
    }
    for part in decision.parts.iter().filter(|p| !p.events.is_empty()) {
        let is_quarantined = to
            .quarantined
            .iter()
            .any(|q| q.run == part.run && q.journey == part.journey && q.instance == part.instance);
        if is_quarantined {
            continue;
        }
        let is_it = |e: &Arc<Execution>| {
            e.run == part.run && e.journey == part.journey && e.instance == part.instance
        };
        let place = to.executions.iter().position(is_it);
        let before = place.map(|i| &to.executions[i]);
        counters.count(&decision.workspace, before.map(|b| &**b), &part.events);
        // what a release takes is the first that waits
        let waited = match &decision.cause {
            Cause::Release(_) => before.and_then(|e| e.waiting.first().cloned()),
            _ => None,
        };
        let decided = outcome.and_then(|o| o.executions.iter().find(|e| is_it(e)));
        let after = match decided {
            Some(after) => Ok(Some(after.clone())),
            None => {
                let before = before.cloned();
                let record = Arc::make_mut(&mut to.customer);
                catch_unwind(AssertUnwindSafe(|| evolve_part(record, before, part)))
            }
        };
        match after {
            Ok(Some(after)) => {
                notes.take(decision, part, &after, waited.as_ref());
                match (place, stays(&after)) {
                    (Some(i), true) => to.executions[i] = after,
                    (Some(i), false) => {
                        to.executions.remove(i);
                    }
                    (None, true) => to.executions.push(after),
                    (None, false) => {}
                }
            }
            Ok(None) => {}
            Err(panic) => {
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
    #[cfg(debug_assertions)]
    if let Some(evolved) = evolved {
        assert_eq!(
            *to, evolved,
            "the owner decided another state than its events make"
        );
    }
}

/// What any other replica makes of a decision.
#[cfg(debug_assertions)]
fn evolved(before: &CustomerState, decision: &Decision, index: u64) -> CustomerState {
    let mut state = before.clone();
    let decision = Decision {
        outcome: None,
        ..decision.clone()
    };
    let (mut counters, mut notes) = (Counters::default(), Notes::default());
    change_customer(&mut counters, &mut notes, &mut state, &decision, index);
    state
}

fn evolve_part(
    record: &mut Customer,
    before: Option<Arc<Execution>>,
    part: &Part,
) -> Option<Arc<Execution>> {
    let mut events = part.events.iter();
    let mut execution = match before {
        Some(execution) => execution,
        None => {
            let first = events.next()?;
            let begun = Execution::begin(first)?;
            record.note(&part.journey, part.instance.as_deref(), part.run, first);
            Arc::new(begun)
        }
    };
    let now = Arc::make_mut(&mut execution);
    for event in events {
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
