//! Commands by hand: override, hold, resume, stop, and retry or skip of a failed action.

use super::errors::{self, status_of};
use super::executions::{ExecutionsService, Found, Target, find, target};
use crate::actors::{Answer, Ask, CustomerKey, ExecutionKey};
use crate::route::call::Call;
use crate::route::seek::{Kind, Seen, applied};
use crate::shard::owner::Shard;
use prost::Message;
use sojourn_journey::decide::{ByHand, Command};
use sojourn_proto::v1;
use std::future::Future;
use std::sync::Arc;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// Bytes of an actor's name, or of a reason.
const TEXT_BYTES: usize = 1_024;

/// A command that was checked.
pub(super) struct Order {
    target: Target,
    command: Command,
    content: u64,
}

impl Order {
    /// Checks a command.
    ///
    /// # Errors
    /// A field is missing or too long.
    pub fn of(request: Option<v1::CommandRequest>, what: ByHand) -> Result<Order, Status> {
        let Some(request) = request else {
            return Err(errors::invalid_field("command", "it is missing"));
        };
        for (field, text, least) in [
            ("id", &request.id, 1),
            ("actor", &request.actor, 1),
            ("reason", &request.reason, 1),
        ] {
            let most = if field == "id" { 128 } else { TEXT_BYTES };
            if text.len() < least || text.len() > most {
                return Err(errors::invalid_field(
                    field,
                    format!("it has {} bytes: expected {least} to {most}", text.len()),
                ));
            }
        }
        let reference = request.execution.clone().unwrap_or_default();
        let target = target(request.execution)?;
        // the reference as it was given: a repetition gives the same
        let mut content = format!("{what:?}").into_bytes();
        content.extend(reference.encode_to_vec());
        Ok(Order {
            target,
            content: xxhash_rust::xxh3::xxh3_64(&content),
            command: Command {
                id: request.id,
                actor: request.actor,
                reason: request.reason,
                expected_visit: request.expected_visit,
                what,
            },
        })
    }
}

impl ExecutionsService {
    /// Does a command where the execution is decided, and shows the execution as it is afterwards.
    pub(super) async fn command<T>(
        &self,
        call: &Call,
        order: &Order,
        there: impl Fn(Channel) -> T,
    ) -> Result<Response<v1::CommandResponse>, Status>
    where
        T: Future<Output = Result<Response<v1::CommandResponse>, Status>>,
    {
        let shard = self.core.shards.of(order.target.hash);
        let here = |shard| self.command_here(shard, call, order);
        self.core
            .at_owner(call, Kind::Change, shard, here, there)
            .await
    }

    async fn command_here(
        &self,
        shard: Arc<Shard>,
        call: &Call,
        order: &Order,
    ) -> Result<v1::CommandResponse, Status> {
        let confirmed = shard.group.read_index(call.until).await;
        confirmed.map_err(|e| {
            errors::with_reason(Code::Unavailable, errors::NOT_OWNER, e.to_string())
        })?;
        let found = as_it_is(&shard, &order.target)?;
        let customer = CustomerKey::new(&found.workspace, found.customer.customer.key.clone());
        let ask = Ask::Command {
            execution: ExecutionKey {
                journey: found.execution.journey.clone(),
                instance: found.execution.instance.clone(),
                run: found.execution.run,
            },
            command: Box::new(order.command.clone()),
            content: order.content,
        };
        let receipt = match self.core.ask_here(customer, ask, call).await {
            Answer::Receipt(receipt) => receipt,
            other => return Err(status_of(other)),
        };
        if let Some(at) = receipt.position
            && !applied(&shard, at.index, call.answer_by()).await
        {
            return Err(errors::unknown(&format!(
                "entry {} of shard {} is not applied here yet",
                at.index, shard.number
            )));
        }
        let after = as_it_is(&shard, &order.target)?;
        Ok(v1::CommandResponse {
            execution: Some(after.shown()),
            position: receipt.position,
            duplicate: receipt.duplicate,
            content_differs: receipt.content_differs,
        })
    }
}

/// The execution in the state that is applied here.
fn as_it_is(shard: &Arc<Shard>, target: &Target) -> Result<Found, Status> {
    let seen = Seen {
        position: v1::Position {
            shard: shard.number.into(),
            index: shard.duties.state.lock().applied,
        },
        age_ms: 0,
    };
    find(shard.clone(), &seen, target)
}
