//! Listing executions: shard after shard, customers in key order, with filters and pages.

use super::errors;
use super::executions::unreadable;
use crate::convert::api::execution_to;
use crate::convert::event::status_from;
use crate::core::{Core, workspace};
use crate::limits;
use crate::shard::customer::CustomerState;
use crate::shard::owner::Shard;
use crate::shard::read::{self, Wanted};
use base64::Engine;
use prost::Message;
use sojourn_journey::customer::Run;
use sojourn_journey::execution::{Execution, Status as Stands};
use sojourn_journey::signal::Identifier;
use sojourn_proto::v1;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Buckets looked at under one lock.
const SCAN: usize = 1_024;

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
    fn customer(&self, c: &CustomerState) -> bool {
        c.workspace == self.workspace
            && self
                .customer
                .as_ref()
                .is_none_or(|i| c.customer.identifiers.contains(i))
    }

    /// What the record of a run can tell.
    fn run(&self, r: &Run) -> bool {
        (self.journey.is_empty() || r.journey == self.journey)
            && (self.version == 0 || r.version == self.version)
            && (self.statuses.is_empty() || self.statuses.contains(&r.status))
    }

    fn execution(&self, e: &Execution) -> bool {
        (self.stage.is_empty() || e.visit.stage == self.stage)
            && self
                .incident
                .is_none_or(|want| e.incident.is_some() == want)
            && self.overdue.is_none_or(|want| e.overdue == want)
            && self.stalled.is_none_or(|want| e.stalled == want)
    }
}

/// Where a page ended: shard, key within it, and the hash of the filter that it belongs to.
struct Token {
    shard: u16,
    hash: u64,
    run: u32,
    filter: u64,
}

impl Token {
    fn write(&self) -> String {
        let mut bytes = Vec::with_capacity(23);
        bytes.push(1u8);
        bytes.extend_from_slice(&self.shard.to_be_bytes());
        bytes.extend_from_slice(&self.hash.to_be_bytes());
        bytes.extend_from_slice(&self.run.to_be_bytes());
        bytes.extend_from_slice(&self.filter.to_be_bytes());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(text: &str) -> Option<Token> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .ok()?;
        let bytes = <[u8; 23]>::try_from(bytes).ok()?;
        if bytes[0] != 1 {
            return None;
        }
        Some(Token {
            shard: u16::from_be_bytes(bytes[1..3].try_into().ok()?),
            hash: u64::from_be_bytes(bytes[3..11].try_into().ok()?),
            run: u32::from_be_bytes(bytes[11..15].try_into().ok()?),
            filter: u64::from_be_bytes(bytes[15..23].try_into().ok()?),
        })
    }
}

/// Answers one page.
pub async fn list(
    core: &Core,
    request: v1::ListExecutionsRequest,
    within: Duration,
) -> Result<v1::ListExecutionsResponse, Status> {
    let page = match request.page_size as usize {
        0 => limits::PAGE,
        n if n > limits::PAGE_MAX => {
            return Err(errors::invalid_field(
                "page_size",
                format!("{n}: expected at most {}", limits::PAGE_MAX),
            ));
        }
        n => n,
    };
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
    let filter = filter_of(request)?;
    let (first, mut after) = token.map_or((0, None), |t| (t.shard, Some((t.hash, t.run))));
    let mut found = Vec::new();
    for shard in core.shards.iter().skip(usize::from(first)) {
        core.readable(shard, None, within).await?;
        if let Some((hash, run)) = scan(shard, &filter, after.take(), page, &mut found)? {
            let next = Token {
                shard: shard.number,
                hash,
                run,
                filter: filter_hash,
            };
            return Ok(v1::ListExecutionsResponse {
                executions: found,
                next_page_token: next.write(),
            });
        }
    }
    Ok(v1::ListExecutionsResponse {
        executions: found,
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

/// Fills a page from one shard. `Some`: the page is full, and this is where it ended.
fn scan(
    shard: &Arc<Shard>,
    filter: &Filter,
    after: Option<(u64, u32)>,
    page: usize,
    found: &mut Vec<v1::Execution>,
) -> Result<Option<(u64, u32)>, Status> {
    // runs of one bucket are numbered in its own order, so that a page may end inside it
    let (mut from, mut skip) = match after {
        Some((hash, n)) => (Bound::Included(hash), n),
        None => (Bound::Unbounded, 0),
    };
    loop {
        let slots: Vec<_> = {
            let state = shard.duties.state.lock();
            let range = state.buckets.range((from, Bound::Unbounded)).take(SCAN);
            range.map(|(hash, slot)| (*hash, slot.clone())).collect()
        };
        let Some((last, _)) = slots.last() else {
            return Ok(None);
        };
        from = Bound::Excluded(*last);
        for (hash, slot) in slots {
            let bucket = slot.open().map_err(|e| unreadable(&e.into()))?;
            let mut n = 0u32;
            for customer in bucket.iter().filter(|c| filter.customer(c)) {
                for run in &customer.customer.runs {
                    n += 1;
                    if n <= skip || !filter.run(run) {
                        continue;
                    }
                    let wanted = Wanted {
                        journey: &run.journey,
                        instance: run.instance.as_deref(),
                        run: run.run,
                    };
                    let execution = read::execution(&**shard, customer, hash, &wanted)
                        .map_err(|e| unreadable(&e))?;
                    if let Some(e) = execution.filter(|e| filter.execution(e)) {
                        found.push(execution_to(&filter.workspace, &e));
                        if found.len() >= page {
                            return Ok(Some((hash, n)));
                        }
                    }
                }
            }
            skip = 0;
        }
    }
}
