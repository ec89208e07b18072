//! Commands by hand: override, hold, resume, stop, and retry or skip of a failed action.

use super::errors::{self, status_of};
use super::executions::{ExecutionsService, target};
use crate::actors::{Answer, Ask, CustomerKey, ExecutionKey};
use crate::route::call::Call;
use prost::Message;
use sojourn_journey::decide::{ByHand, Command};
use sojourn_proto::v1;
use tonic::{Response, Status};

/// Bytes of an actor's name, or of a reason.
const TEXT_BYTES: usize = 1_024;

impl ExecutionsService {
    /// Does a command and shows the execution as it is afterwards.
    pub(super) async fn command(
        &self,
        request: Option<v1::CommandRequest>,
        what: ByHand,
        call: &Call,
    ) -> Result<Response<v1::CommandResponse>, Status> {
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
        let within = call.left();
        let found = self.find(&target, None, within).await?;
        let customer = CustomerKey::new(&found.workspace, found.customer.customer.key.clone());
        // the reference as it was given: a repetition gives the same
        let mut content = format!("{what:?}").into_bytes();
        content.extend(reference.encode_to_vec());
        let content = xxhash_rust::xxh3::xxh3_64(&content);
        let ask = Ask::Command {
            execution: ExecutionKey {
                journey: found.execution.journey.clone(),
                instance: found.execution.instance.clone(),
                run: found.execution.run,
            },
            command: Box::new(Command {
                id: request.id,
                actor: request.actor,
                reason: request.reason,
                expected_visit: request.expected_visit,
                what,
            }),
            content,
        };
        let receipt = match self.core.ask_here(customer, ask, call).await {
            Answer::Receipt(receipt) => receipt,
            other => return Err(status_of(other)),
        };
        let options = v1::ReadOptions {
            at_least: receipt.position,
            stale: false,
        };
        let after = self.find(&target, Some(&options), call.left()).await?;
        Ok(Response::new(v1::CommandResponse {
            execution: Some(after.shown()),
            position: receipt.position,
            duplicate: receipt.duplicate,
            content_differs: receipt.content_differs,
        }))
    }
}
