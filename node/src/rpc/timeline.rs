//! Timelines (what happened, oldest first, in pages) and watching (what happens from now on).

use super::errors;
use super::executions::{ExecutionsService, target, unreadable};
use crate::convert::event::event_to;
use crate::core::{Core, identifier, workspace};
use crate::limits;
use crate::shard::decision::Decision;
use crate::shard::machine::Seen;
use crate::shard::read;
use prost::Message;
use sojourn_journey::identifier::ExecutionId;
use sojourn_proto::{stored, v1};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// One page of an execution's timeline, or of all of a customer's.
pub async fn timeline(
    service: &ExecutionsService,
    request: v1::TimelineRequest,
    within: Duration,
) -> Result<v1::TimelineResponse, Status> {
    let page = match request.page_size as usize {
        0 => limits::PAGE,
        n => n.min(limits::PAGE_MAX),
    };
    let whole_customer = request
        .execution
        .as_ref()
        .is_some_and(|r| r.id.is_empty() && r.journey.is_empty());
    // a token is of one reference: with another's it would skip what was never shown
    let reference = request.execution.clone().unwrap_or_default();
    let filter = xxhash_rust::xxh3::xxh3_64(&reference.encode_to_vec());
    let target = target(request.execution)?;
    let after = token(&request.page_token, filter)?;
    let options = request.options.as_ref();
    let (found, only) = if whole_customer {
        (service.find_customer(&target, options, within).await?, None)
    } else {
        let found = service.find(&target, options, within).await?;
        let e = &found.execution;
        let only = (e.journey.clone(), e.instance.clone(), e.run);
        (found.into(), Some(only))
    };
    let (from, skip) = after.unwrap_or((0, 0));
    let from = from.max(found.customer.first_index);
    let records = read::records(&*found.shard, found.hash, from).map_err(|e| unreadable(&e))?;
    let mut entries = Vec::new();
    let mut next_page_token = String::new();
    for record in records {
        if after.is_some() && (record.index, record.sub) <= (from, skip) {
            continue;
        }
        let decision = Decision::decode(&record.bytes).map_err(|e| unreadable(&e.into()))?;
        if decision.customer != found.customer.customer.key || decision.workspace != found.workspace
        {
            continue;
        }
        let concerns = |p: &crate::shard::decision::Part| match &only {
            None => true,
            Some((journey, instance, run)) => {
                p.run == *run && p.journey == *journey && p.instance == *instance
            }
        };
        // where the customer is kept is nothing that happened to them
        if matches!(decision.cause, stored::cause::Cause::Leave(_)) {
            continue;
        }
        if only.is_some() && !decision.parts.iter().any(&concerns) {
            continue;
        }
        entries.push(entry(&decision, found.shard.number, record.index, concerns));
        if entries.len() >= page {
            next_page_token = format!("{filter:016x}.{}.{}", record.index, record.sub);
            break;
        }
    }
    Ok(v1::TimelineResponse {
        entries,
        next_page_token,
        position: Some(found.position),
    })
}

fn token(text: &str, filter: u64) -> Result<Option<(u64, u32)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let mine = text.strip_prefix(&format!("{filter:016x}."));
    mine.and_then(|place| place.split_once('.'))
        .and_then(|(index, sub)| Some((index.parse().ok()?, sub.parse().ok()?)))
        .map(Some)
        .ok_or_else(|| {
            errors::invalid_field(
                "page_token",
                "it does not belong to this timeline: expected the token of an earlier page of the same request",
            )
        })
}

/// A decision as a timeline shows it.
pub fn entry(
    decision: &Decision,
    shard: u16,
    index: u64,
    concerns: impl Fn(&crate::shard::decision::Part) -> bool,
) -> v1::TimelineEntry {
    let parts = decision
        .parts
        .iter()
        .filter(|p| concerns(p))
        .map(|p| v1::ExecutionEvents {
            execution: if p.run == 0 {
                String::new()
            } else {
                execution_id(decision, p).to_string()
            },
            journey: p.journey.clone(),
            events: p.events.iter().map(event_to).collect(),
            fate: Some(p.fate()),
        })
        .collect();
    v1::TimelineEntry {
        position: Some(v1::Position {
            shard: shard.into(),
            index,
        }),
        decision: decision.id.to_string(),
        at: decision.at.0,
        occurred: decision.occurred.0,
        cause: Some(cause(&decision.cause)),
        parts,
    }
}

fn execution_id(decision: &Decision, part: &crate::shard::decision::Part) -> ExecutionId {
    ExecutionId::new(
        &decision.workspace,
        &decision.customer,
        &part.journey,
        part.instance.as_deref(),
        part.run,
    )
}

fn cause(cause: &stored::cause::Cause) -> v1::timeline_entry::Cause {
    use stored::cause::Cause as From;
    use v1::timeline_entry::cause::Cause as To;
    let to = match cause {
        From::Signal(s) => To::Signal(s.clone()),
        From::Timer(t) => To::Timer(t.timer.clone().unwrap_or_default()),
        From::Command(c) => To::Command(format!("{} {}", c.kind, c.id)),
        From::Action(a) => To::Action(a.action),
        From::Release(_) => To::Other("release".into()),
        From::Sweep(s) => To::Other(s.why.clone()),
        From::Leave(_) => To::Other("leave".into()),
    };
    v1::timeline_entry::Cause { cause: Some(to) }
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

/// What happens from now on.
pub fn watch(core: &Core, request: v1::WatchRequest) -> Result<WatchStream, Status> {
    let space = workspace(&request.workspace)?.to_owned();
    let customer = match request.customer {
        None => None,
        some => Some(identifier("customer", some)?),
    };
    let execution: Option<ExecutionId> = match request.execution.as_str() {
        "" => None,
        id => Some(
            id.parse()
                .map_err(|e: String| errors::invalid_field("execution", e))?,
        ),
    };
    let journey = request.journey;
    let Ok(place) = core.watches.clone().try_acquire_owned() else {
        return Err(errors::with_reason(
            tonic::Code::ResourceExhausted,
            "overloaded_watches",
            format!(
                "{} watches are open on this node: close some, or watch less",
                limits::WATCHES
            ),
        ));
    };
    let place = std::sync::Arc::new(place);
    let (tx, rx) = mpsc::channel(64);
    let mut watching = tokio::task::JoinSet::new();
    for shard in core.shards.all() {
        let one_customer = customer
            .as_ref()
            .map(|c| sojourn_journey::identifier::customer_hash(&space, c))
            .or(execution.map(|id| id.customer));
        if one_customer.is_some_and(|hash| core.shards.of(hash) != shard.number) {
            continue;
        }
        let mut seen: broadcast::Receiver<Seen> = shard.machine.watchers.subscribe();
        let started = v1::Position {
            shard: shard.number.into(),
            index: shard.duties.state.lock().applied,
        };
        let (tx, space, customer, journey) =
            (tx.clone(), space.clone(), customer.clone(), journey.clone());
        let place = place.clone();
        watching.spawn(async move {
            let _place = place;
            let what = v1::watch_response::What::Started(started);
            let mut next = Some(what);
            loop {
                if let Some(what) = next.take() {
                    let response = v1::WatchResponse { what: Some(what) };
                    if tx.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                let received = tokio::select! {
                    received = seen.recv() => received,
                    () = tx.closed() => return,
                };
                next = match received {
                    Ok(seen) => {
                        let d = &seen.decision;
                        let mine = d.workspace == space
                            && customer.as_ref().is_none_or(|c| d.customer == *c);
                        let concerns = |p: &crate::shard::decision::Part| {
                            (journey.is_empty() || p.journey == journey)
                                && execution.is_none_or(|id| execution_id(d, p) == id)
                        };
                        let any = d.parts.iter().any(concerns);
                        (mine && any).then(|| {
                            v1::watch_response::What::Entry(entry(
                                d, seen.shard, seen.index, concerns,
                            ))
                        })
                    }
                    Err(broadcast::error::RecvError::Lagged(n)) => {
                        Some(v1::watch_response::What::Missed(n))
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                };
            }
        });
    }
    // the tasks end with the stream: their sender is closed then
    watching.detach_all();
    Ok(Box::pin(ReceiverStream::new(rx)))
}
