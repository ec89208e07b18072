//! What every door talks to: the replicas of this node, by key, and who owns the others.

use crate::actors::{Answer, Ask, CustomerKey, Reply};
use crate::catalog::Catalog;
use crate::convert::value::identifier_from;
use crate::limits;
use crate::place::shards::Shards;
use crate::place::topology::Topology;
use crate::rpc::errors;
use crate::shard::owner::Shard;
use sojourn_journey::signal::Identifier;
use sojourn_proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::Status;

/// The node's core.
pub struct Core {
    /// Its replicas of shards.
    pub shards: Arc<Shards>,
    /// Who owns which shard.
    pub topology: Arc<Topology>,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// Less disk is free than the limit: nothing is admitted.
    pub disk_full: Arc<AtomicBool>,
    /// Room for watches.
    pub watches: Arc<tokio::sync::Semaphore>,
    /// Where webhooks go.
    pub endpoints: Arc<crate::hands::endpoints::Endpoints>,
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

impl Core {
    /// This node's replica of the shard of a customer hash, if it has one.
    pub fn local(&self, hash: u64) -> Option<Arc<Shard>> {
        self.shards.local(self.shards.of(hash))
    }

    /// The same, for who cannot do without.
    ///
    /// # Errors
    /// There is none on this node.
    pub fn replica(&self, hash: u64) -> Result<Arc<Shard>, Status> {
        self.local(hash)
            .ok_or_else(|| errors::status_of(Answer::NotOwner))
    }

    /// Hands a request to its customer; refused ones come back with their answer.
    pub fn submit(
        &self,
        customer: CustomerKey,
        ask: Arc<Ask>,
        reply: Reply,
    ) -> Result<(), (Reply, Answer)> {
        if self.disk_full.load(Ordering::Relaxed) {
            let cause = "overloaded_disk";
            let retry_after = Duration::from_secs(5);
            return Err((reply, Answer::Overloaded { cause, retry_after }));
        }
        let Some(shard) = self.local(customer.hash) else {
            return Err((reply, Answer::NotOwner));
        };
        if shard.history_full() {
            let cause = "overloaded_history";
            let retry_after = Duration::from_millis(200);
            return Err((reply, Answer::Overloaded { cause, retry_after }));
        }
        shard.live.submit(customer, ask, reply)
    }

    /// Asks and waits for the answer, at most `deadline`.
    pub async fn ask(&self, customer: CustomerKey, ask: Ask, deadline: Duration) -> Answer {
        let (tx, rx) = oneshot::channel();
        let until = Instant::now() + deadline;
        if let Err((reply, answer)) = self.submit(customer, Arc::new(ask), Reply::once(tx)) {
            reply.give(answer.clone());
            return answer;
        }
        match tokio::time::timeout_at(until, rx).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Unknown("the answer was lost".into()),
            Err(_) => Answer::Unknown(format!("no answer within {deadline:?}")),
        }
    }

    /// Makes sure that what is read from a shard now is linearizable, or at least at a position; gives the age of
    /// what is shown in milliseconds.
    ///
    /// # Errors
    /// When the shard cannot say so within the deadline.
    pub async fn readable(
        &self,
        shard: &Shard,
        options: Option<&v1::ReadOptions>,
        deadline: Duration,
    ) -> Result<v1::Position, Status> {
        let until = Instant::now() + deadline;
        let at_least = options.and_then(|o| o.at_least.as_ref());
        if let Some(at) = at_least.filter(|p| p.shard == u32::from(shard.number)) {
            let mut applied = shard.group.applied();
            let reached = applied.wait_for(|p| p.is_some_and(|p| p.index >= at.index));
            match tokio::time::timeout_at(until, reached).await {
                Ok(Ok(_)) => {}
                _ => {
                    return Err(errors::with_reason(
                        tonic::Code::Unavailable,
                        "behind",
                        format!(
                            "this node has not applied position {} of shard {} yet",
                            at.index, shard.number
                        ),
                    ));
                }
            }
        } else if !options.is_some_and(|o| o.stale) {
            let read = shard.group.read_index(until).await;
            read.map_err(|e| {
                errors::with_reason(tonic::Code::Unavailable, "not_owner", e.to_string())
            })?;
        }
        Ok(v1::Position {
            shard: shard.number.into(),
            index: shard.duties.state.lock().applied,
        })
    }
}
