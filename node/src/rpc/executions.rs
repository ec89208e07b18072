//! The Executions service: where customers are, and why.

use super::commands::Order;
use super::errors::{self, with_reason};
use crate::actors::CustomerKey;
use crate::convert::api::{execution_to, why_to};
use crate::core::{Core, identifier, workspace};
use crate::route::call::Call;
use crate::route::seek::{Seen, executions};
use crate::shard::customer::{Bucket, CustomerState};
use crate::shard::owner::Shard;
use crate::shard::read::{self, ReadError, Wanted};
use crate::shard::receipt;
use sojourn_journey::decide::ByHand;
use sojourn_journey::execution::Execution;
use sojourn_journey::identifier::ExecutionId;
use sojourn_journey::plan::{Catalog, JourneyState};
use sojourn_proto::v1;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

/// The service.
pub struct ExecutionsService {
    /// What it talks to.
    pub core: Arc<Core>,
}

/// An execution that was found.
pub struct Found {
    /// Its shard.
    pub shard: Arc<Shard>,
    /// The hash of its customer.
    pub hash: u64,
    /// The workspace.
    pub workspace: String,
    /// Its customer.
    pub customer: CustomerState,
    /// The execution.
    pub execution: Arc<Execution>,
    /// The state that it was read from.
    pub position: v1::Position,
}

impl Found {
    fn journey_state(&self) -> JourneyState {
        let view = self.shard.view();
        let workspace = view.workspace(&self.workspace);
        workspace.map_or_else(Default::default, |w| w.state(&self.execution.journey))
    }

    /// As shown.
    pub fn shown(&self) -> v1::Execution {
        execution_to(&self.workspace, &self.execution, self.journey_state())
    }
}

/// A customer that was found, with or without executions.
pub(super) struct Known {
    pub shard: Arc<Shard>,
    pub hash: u64,
    pub workspace: String,
    pub customer: CustomerState,
    pub position: v1::Position,
}

impl From<Found> for Known {
    fn from(found: Found) -> Known {
        Known {
            shard: found.shard,
            hash: found.hash,
            workspace: found.workspace,
            customer: found.customer,
            position: found.position,
        }
    }
}

/// The status of something that cannot be read.
pub fn unreadable(error: &ReadError) -> Status {
    if let ReadError::Behind { .. } = error {
        return with_reason(Code::Unavailable, "behind", error.to_string());
    }
    tracing::error!(%error, "a read failed");
    with_reason(Code::DataLoss, "unreadable", error.to_string())
}

/// Which customers and runs a reference names.
pub(super) struct Target {
    pub workspace: String,
    pub hash: u64,
    /// The id, when it was named by id.
    pub id: Option<ExecutionId>,
    /// The customer, when it was named by customer.
    pub customer: Option<CustomerKey>,
    pub journey: String,
    pub instance: Option<String>,
}

/// Checks a reference.
pub(super) fn target(reference: Option<v1::ExecutionRef>) -> Result<Target, Status> {
    let Some(r) = reference else {
        return Err(errors::invalid_field("execution", "it is missing"));
    };
    let space = workspace(&r.workspace)?.to_owned();
    if !r.id.is_empty() {
        let id: ExecutionId =
            r.id.parse()
                .map_err(|e: String| errors::invalid_field("execution.id", e))?;
        return Ok(Target {
            workspace: space,
            hash: id.customer,
            id: Some(id),
            customer: None,
            journey: String::new(),
            instance: None,
        });
    }
    let key = identifier("execution.customer", r.customer)?;
    let customer = CustomerKey::new(&space, key);
    Ok(Target {
        workspace: space,
        hash: customer.hash,
        id: None,
        customer: Some(customer),
        journey: r.journey,
        instance: r.instance,
    })
}

impl Target {
    fn is(&self, c: &CustomerState) -> bool {
        c.workspace == self.workspace
            && self
                .customer
                .as_ref()
                .is_none_or(|k| k.key == c.customer.key)
    }

    /// The latest run of the journey that is named.
    fn latest(&self, c: &CustomerState) -> Option<(String, Option<String>, u32)> {
        c.customer
            .runs
            .iter()
            .filter(|r| self.journey.is_empty() || r.journey == self.journey)
            .filter(|r| self.instance.is_none() || r.instance == self.instance)
            .max_by_key(|r| (r.is_active(), r.started, r.run))
            .map(|r| (r.journey.clone(), r.instance.clone(), r.run))
    }

    /// The execution that is meant, of one of the customers of its hash.
    fn of<'a>(
        &self,
        shard: &Shard,
        bucket: &'a Bucket,
    ) -> Result<Option<(&'a CustomerState, Arc<Execution>)>, ReadError> {
        for customer in bucket.iter().filter(|c| self.is(c)) {
            let found = match self.id {
                Some(id) => read::by_id(shard, customer, id)?,
                None => {
                    let Some((journey, instance, run)) = self.latest(customer) else {
                        continue;
                    };
                    let wanted = Wanted {
                        journey: &journey,
                        instance: instance.as_deref(),
                        run,
                    };
                    read::execution(shard, customer, self.hash, &wanted)?
                }
            };
            if let Some(execution) = found {
                return Ok(Some((customer, execution)));
            }
        }
        Ok(None)
    }

    fn not_found(&self) -> Status {
        let what = match (&self.id, &self.customer) {
            (Some(id), _) => format!("no execution {id}"),
            (None, Some(c)) if self.journey.is_empty() => {
                format!("customer {} has no execution", c.key)
            }
            (None, Some(c)) => format!(
                "customer {} has no execution of journey {}",
                c.key, self.journey
            ),
            (None, None) => "no such execution".into(),
        };
        with_reason(
            Code::NotFound,
            "not_found",
            format!("{what} in workspace {}", self.workspace),
        )
    }
}

/// Reads where it may wait for the disk: who is away, and what ended, is in history.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|e| Status::internal(e.to_string()))?
}

/// Finds an execution in this node's replica, which may be read as `seen` says.
pub(super) fn find(shard: Arc<Shard>, seen: &Seen, target: &Target) -> Result<Found, Status> {
    let (bucket, _) = read::bucket(&*shard, target.hash).map_err(|e| unreadable(&e))?;
    let found = target.of(&shard, &bucket).map_err(|e| unreadable(&e))?;
    let Some((customer, execution)) = found else {
        return Err(target.not_found());
    };
    Ok(Found {
        hash: target.hash,
        workspace: target.workspace.clone(),
        customer: customer.clone(),
        execution,
        position: seen.position,
        shard,
    })
}

/// Finds a customer in this node's replica, who need not have an execution: one that was refused has records too.
pub(super) fn find_customer(
    shard: Arc<Shard>,
    seen: &Seen,
    target: &Target,
) -> Result<Known, Status> {
    let (bucket, _) = read::bucket(&*shard, target.hash).map_err(|e| unreadable(&e))?;
    let Some(customer) = bucket.iter().find(|c| target.is(c)).cloned() else {
        let who = target.customer.as_ref();
        let who = who.map_or_else(String::new, |c| format!(" {}", c.key));
        let text = format!(
            "no customer{who} is known in workspace {}",
            target.workspace
        );
        return Err(with_reason(Code::NotFound, "not_found", text));
    };
    Ok(Known {
        shard,
        hash: target.hash,
        workspace: target.workspace.clone(),
        customer,
        position: seen.position,
    })
}

/// Explains an execution that was found.
fn why(found: &Found) -> Result<v1::WhyResponse, Status> {
    let view = found.shard.view();
    let compiled = view
        .workspace(&found.workspace)
        .and_then(|w| w.version(&found.execution.journey, found.execution.version));
    let Some(compiled) = compiled else {
        return Err(with_reason(
            Code::FailedPrecondition,
            "no_version",
            format!(
                "version {} of journey {} cannot be compiled by this build of Sojourn",
                found.execution.version, found.execution.journey
            ),
        ));
    };
    let now = crate::clock::wall();
    let why = sojourn_journey::why::why(&compiled, &found.execution, &found.customer.customer, now);
    let mut response = why_to(
        &found.workspace,
        &found.execution,
        found.journey_state(),
        &why,
    );
    response.position = Some(found.position);
    Ok(response)
}

/// The receipt of a signal that was sent before.
fn receipt_of(
    shard: &Shard,
    customer: &CustomerKey,
    request: &v1::GetReceiptRequest,
) -> Result<v1::GetReceiptResponse, Status> {
    let hash = crate::history::id_hash(customer.hash, &request.source, &request.signal_id);
    let first = read::first_answer(shard, customer.hash, hash).map_err(|e| unreadable(&e))?;
    let Some(first) = first else {
        return Err(with_reason(
            Code::NotFound,
            "not_found",
            format!(
                "no receipt of signal {} from {} for customer {} inside the dedup window",
                request.signal_id, request.source, customer.key
            ),
        ));
    };
    Ok(v1::GetReceiptResponse {
        receipt: Some(receipt::of(&first.decision, shard.number, first.index)),
    })
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::executions_server::Executions for ExecutionsService {
    type WatchStream = WatchStream;

    async fn get(
        &self,
        request: Request<v1::GetExecutionRequest>,
    ) -> Result<Response<v1::GetExecutionResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let target = Arc::new(target(request.execution.clone())?);
        let shard = self.core.shards.of(target.hash);
        let here = |shard, seen: Seen| {
            let target = target.clone();
            reading(move || {
                let found = find(shard, &seen, &target)?;
                Ok(v1::GetExecutionResponse {
                    execution: Some(found.shown()),
                    position: Some(found.position),
                    age_ms: seen.age_ms,
                })
            })
        };
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).get(onward).await }
        };
        let options = request.options.as_ref();
        self.core.read(&call, shard, options, here, there).await
    }

    async fn list(
        &self,
        request: Request<v1::ListExecutionsRequest>,
    ) -> Result<Response<v1::ListExecutionsResponse>, Status> {
        let call = Call::of(request.metadata())?;
        super::list::list(&self.core, request.into_inner(), &call)
            .await
            .map(Response::new)
    }

    async fn timeline(
        &self,
        request: Request<v1::TimelineRequest>,
    ) -> Result<Response<v1::TimelineResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let asked = Arc::new(super::timeline::Asked::of(&request)?);
        let shard = self.core.shards.of(asked.target.hash);
        let here = |shard, seen: Seen| {
            let asked = asked.clone();
            reading(move || super::timeline::timeline(shard, &seen, &asked))
        };
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).timeline(onward).await }
        };
        let options = request.options.as_ref();
        self.core.read(&call, shard, options, here, there).await
    }

    async fn why(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let target = Arc::new(target(request.execution.clone())?);
        let shard = self.core.shards.of(target.hash);
        let here = |shard, seen: Seen| {
            let target = target.clone();
            reading(move || why(&find(shard, &seen, &target)?))
        };
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).why(onward).await }
        };
        let options = request.options.as_ref();
        self.core.read(&call, shard, options, here, there).await
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let call = Call::of(request.metadata())?;
        let stream = super::watch::watch(&self.core, request.into_inner(), &call)?;
        Ok(Response::new(stream))
    }

    async fn r#override(
        &self,
        request: Request<v1::OverrideRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let (to, run_actions) = (request.to.clone(), request.run_actions);
        if to.is_empty() {
            return Err(errors::invalid_field(
                "to",
                "it is missing: expected the name of a stage",
            ));
        }
        let order = Order::of(
            request.command.clone(),
            ByHand::Override { to, run_actions },
        )?;
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).r#override(onward).await }
        };
        self.command(&call, &order, there).await
    }

    async fn hold(
        &self,
        request: Request<v1::CommandRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let order = Order::of(Some(request.clone()), ByHand::Hold)?;
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).hold(onward).await }
        };
        self.command(&call, &order, there).await
    }

    async fn resume(
        &self,
        request: Request<v1::CommandRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let order = Order::of(Some(request.clone()), ByHand::Resume)?;
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).resume(onward).await }
        };
        self.command(&call, &order, there).await
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let outcome = request.outcome.clone();
        let order = Order::of(request.command.clone(), ByHand::Stop { outcome })?;
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).stop(onward).await }
        };
        self.command(&call, &order, there).await
    }

    async fn retry_action(
        &self,
        request: Request<v1::RetryActionRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let (action, new_key) = (request.action, request.new_key);
        let order = Order::of(
            request.command.clone(),
            ByHand::RetryAction { action, new_key },
        )?;
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).retry_action(onward).await }
        };
        self.command(&call, &order, there).await
    }

    async fn skip_action(
        &self,
        request: Request<v1::SkipActionRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let action = request.action;
        let order = Order::of(request.command.clone(), ByHand::SkipAction { action })?;
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).skip_action(onward).await }
        };
        self.command(&call, &order, there).await
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        let call = Call::of(request.metadata())?;
        let request = request.into_inner();
        let key = identifier("customer", request.customer.clone())?;
        let customer = CustomerKey::new(workspace(&request.workspace)?, key);
        let shard = self.core.shards.of(customer.hash);
        let here = |shard: Arc<Shard>, _| {
            let (customer, request) = (customer.clone(), request.clone());
            reading(move || receipt_of(&shard, &customer, &request))
        };
        let there = |channel| {
            let onward = call.onward(self.core.topology.me, request.clone());
            async move { executions(channel).get_receipt(onward).await }
        };
        self.core.read(&call, shard, None, here, there).await
    }
}
