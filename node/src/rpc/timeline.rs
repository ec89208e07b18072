//! Timelines: what happened, oldest first, in pages.

use super::errors;
use super::executions::{Target, find, find_customer, target, unreadable};
use crate::convert::event::event_to;
use crate::limits;
use crate::route::seek::Seen;
use crate::shard::decision::Decision;
use crate::shard::owner::Shard;
use crate::shard::read;
use prost::Message;
use sojourn_journey::identifier::ExecutionId;
use sojourn_proto::{stored, v1};
use std::sync::Arc;
use tonic::Status;

/// What is asked for, checked.
pub(super) struct Asked {
    /// Whose timeline.
    pub target: Target,
    whole_customer: bool,
    page: usize,
    /// What a token must belong to.
    filter: u64,
    after: Option<(u64, u32)>,
}

impl Asked {
    /// Checks a request.
    ///
    /// # Errors
    /// The reference is wrong, or the token is not of this timeline.
    pub fn of(request: &v1::TimelineRequest) -> Result<Asked, Status> {
        let page = match request.page_size as usize {
            0 => limits::PAGE,
            n => n.min(limits::PAGE_MAX),
        };
        let reference = request.execution.clone().unwrap_or_default();
        // a token is of one reference: with another's it would skip what was never shown
        let filter = xxhash_rust::xxh3::xxh3_64(&reference.encode_to_vec());
        Ok(Asked {
            whole_customer: reference.id.is_empty() && reference.journey.is_empty(),
            target: target(request.execution.clone())?,
            page,
            filter,
            after: token(&request.page_token, filter)?,
        })
    }
}

/// One page of an execution's timeline, or of all of a customer's, from this node's replica.
pub(super) fn timeline(
    shard: Arc<Shard>,
    seen: &Seen,
    asked: &Asked,
) -> Result<v1::TimelineResponse, Status> {
    let (page, filter, after) = (asked.page, asked.filter, asked.after);
    let (found, only) = if asked.whole_customer {
        (find_customer(shard, seen, &asked.target)?, None)
    } else {
        let found = find(shard, seen, &asked.target)?;
        let e = &found.execution;
        let only = (e.journey.clone(), e.instance.clone(), e.run);
        (found.into(), Some(only))
    };
    let (from, skip) = after.unwrap_or((0, 0));
    let from = from.max(found.customer.first_index);
    let mut entries = Vec::new();
    let mut next_page_token = String::new();
    let concerns = |p: &crate::shard::decision::Part| match &only {
        None => true,
        Some((journey, instance, run)) => {
            p.run == *run && p.journey == *journey && p.instance == *instance
        }
    };
    let read = read::records_while(&*found.shard, found.hash, from, |record| {
        if after.is_some() && (record.index, record.sub) <= (from, skip) {
            return Ok(true);
        }
        let decision = Decision::decode(&record.bytes)?;
        if decision.customer != found.customer.customer.key || decision.workspace != found.workspace
        {
            return Ok(true);
        }
        // where the customer is kept is nothing that happened to them
        if matches!(decision.cause, stored::cause::Cause::Leave(_)) {
            return Ok(true);
        }
        if only.is_some() && !decision.parts.iter().any(concerns) {
            return Ok(true);
        }
        entries.push(entry(&decision, found.shard.number, record.index, concerns));
        if entries.len() >= page {
            next_page_token = format!("{filter:016x}.{}.{}", record.index, record.sub);
        }
        Ok(next_page_token.is_empty())
    });
    read.map_err(|e| unreadable(&e))?;
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

/// The id of the execution that a part is of.
pub fn execution_id(decision: &Decision, part: &crate::shard::decision::Part) -> ExecutionId {
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
