//! What every door talks to: the replicas of this node, by key, and who owns the others.

use crate::actors::{Answer, Ask, CustomerKey, Refusal, Reply};
use crate::catalog::Catalog;
use crate::convert::value::identifier_from;
use crate::limits;
use crate::place::Place;
use crate::place::shards::Shards;
use crate::place::topology::{Owner, Topology};
use crate::route::call::Call;
use crate::route::lines::Lines;
use crate::route::ways::Ways;
use crate::rpc::errors::{self, Moved};
use crate::shard::owner::Shard;
use sojourn_cluster::NodeId;
use sojourn_journey::signal::Identifier;
use sojourn_proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The node's core.
pub struct Core {
    /// Its replicas of shards.
    pub shards: Arc<Shards>,
    /// Who owns which shard.
    pub topology: Arc<Topology>,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// What the node is to its cluster.
    pub place: Arc<Place>,
    /// Connections to the doors of the other nodes.
    pub ways: Arc<Ways>,
    /// The way of signals to their owners.
    pub lines: Arc<Lines>,
    /// Less disk is free than the limit: nothing is admitted.
    pub disk_full: Arc<AtomicBool>,
    /// Room for watches.
    pub watches: Arc<tokio::sync::Semaphore>,
    /// Room for those that other nodes hand over, shard by shard; they were counted there.
    pub watches_handed: Arc<tokio::sync::Semaphore>,
    /// Where webhooks go.
    pub endpoints: Arc<crate::hands::endpoints::Endpoints>,
    /// The doors close: streams take nothing more, answer what they took and end.
    pub closing: CancellationToken,
    /// The counters of the doors.
    pub metrics: Arc<crate::metrics::Doors>,
}

/// A workspace's name as given: empty means `default`.
///
/// # Errors
/// When it is no slug.
pub fn workspace(name: &str) -> Result<&str, Status> {
    if name.is_empty() {
        return Ok("default");
    }
    let slug = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if slug {
        Ok(name)
    } else {
        Err(errors::invalid_field(
            "workspace",
            "expected a lower-case letter, then letters, digits, _ and -, at most 64 bytes",
        ))
    }
}

/// The identifier of a request, normalised.
///
/// # Errors
/// When it is missing or wrong.
pub fn identifier(field: &str, identifier: Option<v1::Identifier>) -> Result<Identifier, Status> {
    let Some(identifier) = identifier else {
        return Err(errors::invalid_field(
            field,
            "it is missing: expected name and value",
        ));
    };
    let raw = identifier_from(identifier);
    Identifier::new(&raw.name, &raw.value).map_err(|why| errors::invalid_field(field, why))
}

/// How long a call may take: what its `grpc-timeout` says, within our limits.
pub fn deadline(metadata: &tonic::metadata::MetadataMap) -> Duration {
    metadata
        .get("grpc-timeout")
        .and_then(|v| v.to_str().ok())
        .and_then(parse_timeout)
        .map_or(limits::DEADLINE, |d| d.min(limits::DEADLINE_MAX))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n.checked_mul(3600)?),
        "M" => Duration::from_secs(n.checked_mul(60)?),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Hands a request to its customer on this node; refused ones come back with their answer.
///
/// # Errors
/// This node does not own the shard, or too much is under way.
pub fn submit_here(
    shards: &Shards,
    disk_full: &AtomicBool,
    customer: CustomerKey,
    ask: Arc<Ask>,
    reply: Reply,
) -> Result<(), Refusal> {
    let answer = match shards.local(shards.of(customer.hash)) {
        None => Answer::NotOwner,
        Some(shard) => {
            let cause = if disk_full.load(Ordering::Relaxed) {
                Some(("overloaded_disk", Duration::from_secs(5)))
            } else if shard.history_full() {
                Some(("overloaded_history", Duration::from_millis(200)))
            } else {
                None
            };
            match cause {
                None => return shard.live.submit(customer, ask, reply),
                // it is nothing to who does not own the shard
                Some(_) if shard.live.session().is_none() => Answer::NotOwner,
                Some((cause, retry_after)) => Answer::Overloaded { cause, retry_after },
            }
        }
    };
    Err(Refusal {
        customer,
        ask,
        reply,
        answer,
    })
}

async fn answered(
    submitted: Result<(), Refusal>,
    answer: oneshot::Receiver<Answer>,
    call: &Call,
) -> Answer {
    if let Err(Refusal { reply, answer, .. }) = submitted {
        reply.give(answer.clone());
        return answer;
    }
    match tokio::time::timeout_at(call.answer_by(), answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::Unknown("the answer was lost".into()),
        Err(_) => Answer::Unknown(format!("no answer within {:?}", call.within)),
    }
}

impl Core {
    /// This node's replica of the shard of a customer hash, if it has one.
    pub fn local(&self, hash: u64) -> Option<Arc<Shard>> {
        self.shards.local(self.shards.of(hash))
    }

    /// Sends a signal to its customer, wherever that one is decided; one that another node handed over, only here.
    /// Refused ones come back with their answer.
    pub fn submit(
        &self,
        customer: CustomerKey,
        ask: Arc<Ask>,
        reply: Reply,
        call: &Call,
    ) -> Result<(), Refusal> {
        if !call.forwarded {
            return self.lines.submit(customer, ask, reply, call.until);
        }
        let submitted = submit_here(&self.shards, &self.disk_full, customer, ask, reply);
        submitted.map_err(|refusal| match refusal.answer {
            Answer::NotOwner => {
                let elsewhere = self.not_owner(self.shards.of(refusal.customer.hash));
                let answer = Answer::Told(errors::item_error(&elsewhere));
                Refusal { answer, ..refusal }
            }
            _ => refusal,
        })
    }

    /// Sends a signal and waits for the answer.
    pub async fn send(&self, customer: CustomerKey, ask: Ask, call: &Call) -> Answer {
        let (tx, rx) = oneshot::channel();
        let submitted = self.submit(customer, Arc::new(ask), Reply::once(tx), call);
        answered(submitted, rx, call).await
    }

    /// Asks a customer of a shard that this node owns, and waits for the answer.
    pub async fn ask_here(&self, customer: CustomerKey, ask: Ask, call: &Call) -> Answer {
        let (tx, rx) = oneshot::channel();
        let (ask, reply) = (Arc::new(ask), Reply::once(tx));
        let submitted = submit_here(&self.shards, &self.disk_full, customer, ask, reply);
        answered(submitted, rx, call).await
    }

    /// Nothing was done: this node does not own the shard. Says who does, as far as is known.
    pub fn not_owner(&self, shard: u16) -> Status {
        let owner = match self.topology.owner(shard) {
            Owner::There(node) => Some(node),
            Owner::Here(_) | Owner::Unknown => None,
        };
        self.moved(Some(shard), owner)
    }

    /// Nothing was done: `owner` owns the shard, or the catalog.
    pub fn moved(&self, shard: Option<u16>, owner: Option<NodeId>) -> Status {
        let address = owner.and_then(|node| self.ways.address(node));
        errors::not_owner(&Moved {
            shard,
            owner,
            address,
        })
    }
}
