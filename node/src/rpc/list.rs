//! Listing executions: shard after shard, customers in key order, those in memory and those that ended, with filters
//! and pages.

use super::errors;
use super::executions::unreadable;
use crate::convert::api::execution_to;
use crate::convert::event::status_from;
use crate::core::{Core, workspace};
use crate::limits;
use crate::route::call::Call;
use crate::route::seek;
use crate::shard::customer::{Bucket, CustomerState, Slot, customer_of};
use crate::shard::owner::Shard;
use crate::shard::read::{self, ReadError, Wanted};
use base64::Engine;
use prost::Message;
use sojourn_journey::execution::{Execution, Status as Stands};
use sojourn_journey::identifier::slot_hash;
use sojourn_journey::plan::Catalog;
use sojourn_journey::signal::Identifier;
use sojourn_proto::v1;
use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;

/// Buckets looked at under one lock.
const SCAN: usize = 1_024;
/// Ended executions read at once.
const ENDED: usize = 1_024;
/// How long one page is looked for: then it is answered as it is, with the token to go on.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// What is looked for.
struct Filter {
    workspace: String,
    journey: String,
    stage: String,
    statuses: Vec<Stands>,
    customer: Option<Identifier>,
    version: u32,
    incident: Option<bool>,
    overdue: Option<bool>,
    stalled: Option<bool>,
}

impl Filter {
    fn execution(&self, e: &Execution) -> bool {
        (self.journey.is_empty() || e.journey == self.journey)
            && (self.version == 0 || e.version == self.version)
            && (self.statuses.is_empty() || self.statuses.contains(&e.status))
            && (self.stage.is_empty() || e.visit.stage == self.stage)
            && self
                .incident
                .is_none_or(|want| e.incident.is_some() == want)
            && self.overdue.is_none_or(|want| e.overdue == want)
            && self.stalled.is_none_or(|want| e.stalled == want)
    }

    /// Whether one that has ended may be among those that are looked for.
    fn may_have_ended(&self) -> bool {
        let inside = |s: &Stands| matches!(s, Stands::Active | Stands::Held);
        self.statuses.is_empty() || !self.statuses.iter().all(inside)
    }

    /// Whether it is of the customer that is looked for, by any of their identifiers.
    /// `known`: the customers that were looked at last.
    fn is_of(
        &self,
        shard: &Shard,
        hash: u64,
        e: &Execution,
        known: &mut Option<(u64, Arc<Bucket>)>,
    ) -> Result<bool, ReadError> {
        let Some(wanted) = &self.customer else {
            return Ok(true);
        };
        if e.customer == *wanted {
            return Ok(true);
        }
        let bucket = match known {
            Some((of, bucket)) if *of == hash => bucket.clone(),
            _ => read::bucket(shard, hash)?.0,
        };
        *known = Some((hash, bucket.clone()));
        let customer = customer_of(&bucket, &self.workspace, &e.customer);
        Ok(customer.is_some_and(|c| c.customer.identifiers.contains(wanted)))
    }
}

/// Where an execution stands in the list: customers by hash, the executions of each by journey and run.
type Place = (u64, u64, u32);

fn place(hash: u64, e: &Execution) -> Place {
    (hash, slot_hash(&e.journey, e.instance.as_deref()), e.run)
}

/// Where a page ended: shard, place within it, and the hash of the filter that it belongs to.
struct Token {
    shard: u16,
    after: Place,
    filter: u64,
}

const TOKEN_FORMAT: u8 = 1;

impl Token {
    fn write(&self) -> String {
        let mut bytes = Vec::with_capacity(31);
        bytes.push(TOKEN_FORMAT);
        bytes.extend_from_slice(&self.shard.to_be_bytes());
        bytes.extend_from_slice(&self.after.0.to_be_bytes());
        bytes.extend_from_slice(&self.after.1.to_be_bytes());
        bytes.extend_from_slice(&self.after.2.to_be_bytes());
        bytes.extend_from_slice(&self.filter.to_be_bytes());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(text: &str) -> Option<Token> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .ok()?;
        let bytes = <[u8; 31]>::try_from(bytes).ok()?;
        if bytes[0] != TOKEN_FORMAT {
            return None;
        }
        Some(Token {
            shard: u16::from_be_bytes(bytes[1..3].try_into().ok()?),
            after: (
                u64::from_be_bytes(bytes[3..11].try_into().ok()?),
                u64::from_be_bytes(bytes[11..19].try_into().ok()?),
                u32::from_be_bytes(bytes[19..23].try_into().ok()?),
            ),
            filter: u64::from_be_bytes(bytes[23..31].try_into().ok()?),
        })
    }
}

/// How many a page may have.
///
/// # Errors
/// More than allowed are asked for.
pub(super) fn page_of(size: u32) -> Result<usize, Status> {
    match size as usize {
        0 => Ok(limits::PAGE),
        n if n > limits::PAGE_MAX => Err(errors::invalid_field(
            "page_size",
            format!("{n}: expected at most {}", limits::PAGE_MAX),
        )),
        n => Ok(n),
    }
}

/// Answers one page: shard after shard, each from its owner.
///
/// # Errors
/// A field is wrong; a shard cannot be read within the deadline.
pub async fn list(
    core: &Core,
    request: v1::ListExecutionsRequest,
    call: &Call,
) -> Result<v1::ListExecutionsResponse, Status> {
    let page = page_of(request.page_size)?;
    let bare = v1::ListExecutionsRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    };
    let filter_hash = xxhash_rust::xxh3::xxh3_64(&bare.encode_to_vec());
    let token = if request.page_token.is_empty() {
        None
    } else {
        let token = Token::read(&request.page_token).filter(|t| t.filter == filter_hash);
        Some(token.ok_or_else(|| {
            errors::invalid_field(
                "page_token",
                "it does not belong to these filters: expected the token of an earlier page of the same request",
            )
        })?)
    };
    let filter = &Arc::new(filter_of(request)?);
    let (first, mut after) = token.map_or((0, None), |t| (t.shard, Some(t.after)));
    let until = Instant::now() + PAGE_TIME.min(call.left() / 2);
    let mut executions = Vec::new();
    for number in call.shards(first, core.shards.count()) {
        let (from, room) = (after.take(), page - executions.len());
        let at = move |after| Token {
            shard: number,
            after,
            filter: filter_hash,
        };
        if number != first && Instant::now() >= until {
            // its time is over: this shard comes with the next page
            return Ok(v1::ListExecutionsResponse {
                executions,
                next_page_token: at(Place::default()).write(),
            });
        }
        let here = |shard: Arc<Shard>, _| async move {
            let filter = filter.clone();
            // history may have to be read from disk
            let scanned =
                tokio::task::spawn_blocking(move || scan(&shard, &filter, from, room, until));
            let scanned = scanned
                .await
                .map_err(|e| Status::internal(e.to_string()))?
                .map_err(|e| unreadable(&e))?;
            let token = scanned.stopped.map(at);
            Ok(v1::ListExecutionsResponse {
                executions: scanned.found,
                next_page_token: token.map_or_else(String::new, |t| t.write()),
            })
        };
        let bare = &bare;
        let there = |channel| {
            let token = from.map(at);
            let part = v1::ListExecutionsRequest {
                page_size: u32::try_from(room).unwrap_or(u32::MAX),
                page_token: token.map_or_else(String::new, |t| t.write()),
                ..bare.clone()
            };
            let onward = call.of_shard(number).onward(core.topology.me, part);
            async move { seek::executions(channel).list(onward).await }
        };
        let part = core.read(call, number, None, here, there).await?;
        let part = part.into_inner();
        executions.extend(part.executions);
        if !part.next_page_token.is_empty() {
            return Ok(v1::ListExecutionsResponse {
                executions,
                next_page_token: part.next_page_token,
            });
        }
    }
    Ok(v1::ListExecutionsResponse {
        executions,
        next_page_token: String::new(),
    })
}
fn filter_of(request: v1::ListExecutionsRequest) -> Result<Filter, Status> {
    let mut statuses = Vec::new();
    for (i, status) in request.statuses.iter().enumerate() {
        let status = status_from(*status)
            .map_err(|e| errors::invalid_field(&format!("statuses[{i}]"), e.to_string()))?;
        statuses.push(status);
    }
    let customer = match request.customer {
        None => None,
        some => Some(crate::core::identifier("customer", some)?),
    };
    Ok(Filter {
        workspace: workspace(&request.workspace)?.to_owned(),
        journey: request.journey,
        stage: request.stage,
        statuses,
        customer,
        version: request.version,
        incident: request.incident,
        overdue: request.overdue,
        stalled: request.stalled,
    })
}

/// What one shard gives to a page.
struct Scanned {
    found: Vec<v1::Execution>,
    /// The page is full, or its time is over: this is where it ended.
    stopped: Option<Place>,
}

fn scan(
    shard: &Arc<Shard>,
    filter: &Filter,
    after: Option<Place>,
    room: usize,
    until: Instant,
) -> Result<Scanned, ReadError> {
    let view = shard.view();
    let workspace = view.workspace(&filter.workspace);
    let mut found = Vec::new();
    let mut after = after;
    let mut known: Option<(u64, Arc<Bucket>)> = None;
    loop {
        let from = match after {
            None => Bound::Unbounded,
            Some((hash, u64::MAX, u32::MAX)) => Bound::Excluded(hash),
            Some((hash, ..)) => Bound::Included(hash),
        };
        let slots: Vec<(u64, Slot)> = {
            let state = shard.duties.state.lock();
            let range = state.buckets.range((from, Bound::Unbounded)).take(SCAN);
            range.map(|(hash, slot)| (*hash, slot.clone())).collect()
        };
        let (Some((first, _)), Some((last, _))) = (slots.first(), slots.last()) else {
            return Ok(Scanned {
                found,
                stopped: None,
            });
        };
        let (first, last, all) = (*first, *last, slots.len() < SCAN);
        let lowest = after.unwrap_or_default().max((first, 0, 0));
        let mut end = (last, u64::MAX, u32::MAX);
        let mut executions: Vec<(Place, Arc<Execution>)> = Vec::new();
        if filter.may_have_ended() {
            let ended = read::ended(&**shard, lowest, end, ENDED)?;
            if ended.len() == ENDED {
                // the rest of these customers comes with the next look
                end = ended.last().map_or(end, |e| e.key);
            }
            let ours = ended
                .into_iter()
                .filter(|e| e.workspace == filter.workspace);
            executions.extend(ours.map(|e| (e.key, e.execution)));
        }
        let wanted = |place: &Place| after.is_none_or(|a| *place > a) && *place <= end;
        let mut over: Vec<(u64, CustomerState)> = Vec::new();
        for (hash, slot) in slots {
            let bucket = slot.open()?.unwrap_or_default();
            for customer in bucket.iter().filter(|c| c.workspace == filter.workspace) {
                let here = customer.executions.iter();
                executions.extend(here.map(|e| (place(hash, e), e.clone())));
                let ended = customer.customer.runs.iter().any(|r| !r.is_active());
                if ended && filter.may_have_ended() {
                    over.push((hash, customer.clone()));
                }
            }
        }
        executions.extend(unindexed(shard, &over, &executions, wanted)?);
        executions.retain(|(place, e)| wanted(place) && filter.execution(e));
        // one that ended between the two looks is there twice: shown as it ended
        executions.sort_by_key(|(place, _)| *place);
        executions.dedup_by(|b, a| a.0 == b.0 && a.1.customer == b.1.customer);
        for (place, e) in executions {
            if filter.is_of(shard, place.0, &e, &mut known)? {
                let state = workspace.map_or_else(Default::default, |w| w.state(&e.journey));
                found.push(execution_to(&filter.workspace, &e, state));
                if found.len() >= room {
                    return Ok(Scanned {
                        found,
                        stopped: Some(place),
                    });
                }
            }
        }
        if all && end == (last, u64::MAX, u32::MAX) {
            return Ok(Scanned {
                found,
                stopped: None,
            });
        }
        after = Some(end);
        if Instant::now() >= until {
            return Ok(Scanned {
                found,
                stopped: after,
            });
        }
    }
}

/// Runs that ended before there was an index of them: from their timelines.
fn unindexed(
    shard: &Shard,
    over: &[(u64, CustomerState)],
    known: &[(Place, Arc<Execution>)],
    wanted: impl Fn(&Place) -> bool,
) -> Result<Vec<(Place, Arc<Execution>)>, ReadError> {
    let places: HashSet<Place> = known.iter().map(|(place, _)| *place).collect();
    let mut found = Vec::new();
    for (hash, customer) in over {
        for run in customer.customer.runs.iter().filter(|r| !r.is_active()) {
            let slot = slot_hash(&run.journey, run.instance.as_deref());
            let place = (*hash, slot, run.run);
            if places.contains(&place) || !wanted(&place) {
                continue;
            }
            let run = Wanted {
                journey: &run.journey,
                instance: run.instance.as_deref(),
                run: run.run,
            };
            let execution = read::execution(shard, customer, *hash, &run)?;
            found.extend(execution.map(|e| (place, e)));
        }
    }
    Ok(found)
}
