//! The signals that moved nothing: shard after shard, newest first, with filters and pages; and a sample of those that
//! concerned nobody.

use super::errors;
use super::executions::unreadable;
use crate::convert::Unreadable;
use crate::convert::value::identifier_from;
use crate::core::{Core, workspace};
use crate::limits;
use crate::route::call::Call;
use crate::route::seek;
use crate::shard::owner::Shard;
use crate::shard::read::{self, ReadError};
use prost::Message;
use sojourn_journey::identifier::{ExecutionId, customer_hash};
use sojourn_proto::{stored, v1};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;

/// How long one page is looked for: then it is answered as it is, with the token to go on.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// A place in the log: index, place in the entry.
type Place = (u64, u32);
/// Before every place.
const NEWEST: Place = (u64::MAX, u32::MAX);
/// Another node's sample is waited for at most this long.
const SAMPLE_WITHIN: Duration = Duration::from_secs(1);
/// So many are looked at before the time of a page can be over.
const LEAST: usize = 1_024;
/// Waiting ones looked at under one lock.
const AT_ONCE: usize = 1_024;

struct Filter {
    workspace: String,
    journey: String,
    stage: String,
    kind: String,
}

impl Filter {
    fn takes(&self, s: &stored::UnmatchedSignal) -> bool {
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        s.workspace == self.workspace
            && is(&self.journey, &s.journey)
            && is(&self.stage, &s.stage)
            && is(&self.kind, &s.r#type)
    }
}

/// Answers one page: shard after shard, each from its owner.
///
/// # Errors
/// A field is wrong; a shard cannot be read within the deadline.
pub async fn list(
    core: &Core,
    request: v1::ListUnmatchedRequest,
    call: &Call,
) -> Result<v1::ListUnmatchedResponse, Status> {
    let page = super::list::page_of(request.page_size)?;
    let bare = v1::ListUnmatchedRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    };
    let hash = xxhash_rust::xxh3::xxh3_64(&bare.encode_to_vec());
    let token = token(&request.page_token, hash)?;
    let filter = &Arc::new(Filter {
        workspace: workspace(&request.workspace)?.to_owned(),
        journey: request.journey,
        stage: request.stage,
        kind: request.r#type,
    });
    let mut answer = v1::ListUnmatchedResponse::default();
    if token.is_none() && call.shard.is_none() {
        answer.no_match = sample(core, filter);
        if call.forwarded {
            // of the rest every shard is asked for by itself
            return Ok(answer);
        }
        answer
            .no_match
            .extend(samples_of_others(core, &bare, call).await);
        answer.no_match.sort_by_key(|n| std::cmp::Reverse(n.at));
        answer.no_match.truncate(limits::PAGE);
    }
    let until = Instant::now() + PAGE_TIME.min(call.left() / 2);
    let (first, mut before) = token.map_or((0, None), |(shard, place)| (shard, Some(place)));
    for number in call.shards(first, core.shards.count()) {
        let from = before.take();
        let full = answer.signals.len() >= page;
        if full || (number != first && Instant::now() >= until) {
            // the shard before gave its last with this page, or the time of the page is over
            let (index, sub) = from.unwrap_or(NEWEST);
            answer.next_page_token = format!("{hash:016x}.{number}.{index}.{sub}");
            return Ok(answer);
        }
        let room = page - answer.signals.len();
        let here = |shard: Arc<Shard>, _| async move {
            let (filter, from) = (filter.clone(), from.unwrap_or(NEWEST));
            // history may have to be read from disk
            let scanned =
                tokio::task::spawn_blocking(move || scan(&shard, &filter, from, room, until));
            let (signals, stopped) = scanned
                .await
                .map_err(|e| Status::internal(e.to_string()))?
                .map_err(|e| unreadable(&e))?;
            Ok(v1::ListUnmatchedResponse {
                signals,
                next_page_token: stopped.map_or_else(String::new, |(index, sub)| {
                    format!("{hash:016x}.{number}.{index}.{sub}")
                }),
                no_match: Vec::new(),
            })
        };
        let bare = &bare;
        let there = |channel| {
            let (index, sub) = from.unwrap_or(NEWEST);
            let part = v1::ListUnmatchedRequest {
                page_size: u32::try_from(room).unwrap_or(u32::MAX),
                page_token: format!("{hash:016x}.{number}.{index}.{sub}"),
                ..bare.clone()
            };
            let onward = call.of_shard(number).onward(core.topology.me, part);
            async move { seek::signals(channel).list_unmatched(onward).await }
        };
        let part = core.read(call, number, None, here, there).await?;
        let part = part.into_inner();
        answer.signals.extend(part.signals);
        if !part.next_page_token.is_empty() {
            answer.next_page_token = part.next_page_token;
            return Ok(answer);
        }
    }
    Ok(answer)
}

/// The samples of the other nodes, of those that answer soon: a sample lacks most in any case.
async fn samples_of_others(
    core: &Core,
    bare: &v1::ListUnmatchedRequest,
    call: &Call,
) -> Vec<v1::NoMatchSample> {
    let cluster = core.topology.cluster();
    let others = cluster.present().filter(|n| n.id != core.topology.me);
    let asked = others.map(|node| async move {
        let way = core.ways.to(node.id).ok()?;
        let onward = call.onward(core.topology.me, bare.clone());
        let mut client = seek::signals(way.channel);
        let within = SAMPLE_WITHIN.min(call.left() / 4);
        let answer = tokio::time::timeout(within, client.list_unmatched(onward)).await;
        Some(answer.ok()?.ok()?.into_inner().no_match)
    });
    let samples = futures::future::join_all(asked).await;
    samples.into_iter().flatten().flatten().collect()
}

fn token(text: &str, filter: u64) -> Result<Option<(u16, Place)>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let mine = text.strip_prefix(&format!("{filter:016x}."));
    let read = |rest: &str| {
        let mut parts = rest.split('.');
        let shard = parts.next()?.parse().ok()?;
        let place = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some((shard, place))
    };
    let token = mine.and_then(read).ok_or_else(|| {
        errors::invalid_field(
            "page_token",
            "it does not belong to these filters: expected the token of an earlier page of the same request",
        )
    })?;
    Ok(Some(token))
}

/// The newest signals of the workspace that concerned nobody, newest first. They know no journey and no stage.
fn sample(core: &Core, filter: &Filter) -> Vec<v1::NoMatchSample> {
    if !filter.journey.is_empty() || !filter.stage.is_empty() {
        return Vec::new();
    }
    let all = core.shards.all();
    let all = all.iter().flat_map(|s| s.duties.no_match_sample());
    let mut newest: Vec<_> = all
        .filter(|n| n.workspace == filter.workspace)
        .filter(|n| filter.kind.is_empty() || n.signal.r#type == filter.kind)
        .collect();
    newest.sort_by_key(|n| std::cmp::Reverse(n.at));
    newest.truncate(limits::PAGE);
    let shown = newest.into_iter().map(|n| v1::NoMatchSample {
        at: n.at.0,
        signal: Some(n.signal),
    });
    shown.collect()
}

/// Fills a page from one shard. The place is there when the page is full, or its time over: it goes on before it.
fn scan(
    shard: &Arc<Shard>,
    filter: &Filter,
    before: Place,
    room: usize,
    until: Instant,
) -> Result<(Vec<v1::UnmatchedSignal>, Option<Place>), ReadError> {
    let mut found: Vec<stored::UnmatchedSignal> = Vec::new();
    let mut looked: Option<Place> = None;
    let mut stopped = None;
    let mut looked_at = 0;
    // of one decision all are shown, or none
    let mut take = |signal: stored::UnmatchedSignal| {
        let place = (signal.index, signal.sub);
        if let Some(last) = looked
            && last != place
            && (found.len() >= room || (looked_at > LEAST && Instant::now() >= until))
        {
            stopped = Some(last);
            return false;
        }
        looked = Some(place);
        looked_at += 1;
        if filter.takes(&signal) {
            found.push(signal);
        }
        true
    };
    // history may be ahead of what this replica has applied
    let mut from = before.min((shard.duties.state.lock().applied.saturating_add(1), 0));
    let mut more = true;
    // waiting first: a checkpoint that completes in between has them in the store
    while more {
        let waiting = shard
            .duties
            .state
            .lock()
            .waiting
            .unmatched_before(from, AT_ONCE);
        let all = waiting.len() < AT_ONCE;
        for note in waiting {
            let place = (note.index, note.sub);
            let signal = stored::UnmatchedSignal::decode(note.bytes).map_err(|e| Unreadable {
                what: "an unmatched signal",
                why: e.to_string(),
            })?;
            // several executions of one decision stand at one place: all of them, or none
            if more {
                more = take(signal);
            }
            from = place;
        }
        if all {
            break;
        }
    }
    if more {
        let history = &shard.duties.history;
        history.unmatched(shard.number, from, &mut take)?;
    }
    let mut shown = Vec::with_capacity(found.len());
    for signal in found {
        shown.push(show(shard, signal)?);
    }
    Ok((shown, stopped))
}

fn show(shard: &Shard, from: stored::UnmatchedSignal) -> Result<v1::UnmatchedSignal, ReadError> {
    let customer = from.customer.clone().unwrap_or_default();
    let key = identifier_from(customer.clone());
    let hash = customer_hash(&from.workspace, &key);
    let id = ExecutionId::new(
        &from.workspace,
        &key,
        &from.journey,
        from.instance.as_deref(),
        from.run,
    );
    let decisions = read::decisions_at(shard, hash, from.index)?;
    let signal = decisions.into_iter().find_map(|d| match d.cause {
        stored::cause::Cause::Signal(signal)
            if signal.r#type == from.r#type
                && d.customer == key
                && d.occurred.0 == from.occurred =>
        {
            Some(signal)
        }
        _ => None,
    });
    Ok(v1::UnmatchedSignal {
        signal,
        execution: id.to_string(),
        journey: from.journey,
        version: from.version,
        stage: from.stage,
        at: from.at,
        occurred: from.occurred,
        position: Some(v1::Position {
            shard: shard.number.into(),
            index: from.index,
        }),
        r#type: from.r#type,
        customer: Some(customer),
        signal_id: from.signal_id,
        source: from.source,
    })
}
