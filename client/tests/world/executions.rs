//! Of the `Executions` service only what tests of routing ask: the receipt of a signal that was applied.

use super::cluster::{Asked, Node};
use sojourn_client::wire::{self as v1, executions_server};
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this world"))
}

#[tonic::async_trait]
impl executions_server::Executions for Node {
    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        let r = request.into_inner();
        let customer = r.customer.unwrap_or_default();
        let asked = self
            .world
            .state()
            .asked_of(self.id, &r.workspace, &customer);
        match (&asked, asked.status()) {
            (_, Some(status)) => return Err(status),
            (Asked::Mute, _) => std::future::pending().await,
            _ => {}
        }
        let receipt = self.world.state().receipt(&r.source, &r.signal_id);
        match receipt {
            Some(receipt) => Ok(Response::new(v1::GetReceiptResponse {
                receipt: Some(receipt),
            })),
            None => Err(Status::not_found("no such signal")),
        }
    }

    async fn get(
        &self,
        _: Request<v1::GetExecutionRequest>,
    ) -> Result<Response<v1::GetExecutionResponse>, Status> {
        absent()
    }

    async fn list(
        &self,
        _: Request<v1::ListExecutionsRequest>,
    ) -> Result<Response<v1::ListExecutionsResponse>, Status> {
        absent()
    }

    async fn timeline(
        &self,
        _: Request<v1::TimelineRequest>,
    ) -> Result<Response<v1::TimelineResponse>, Status> {
        absent()
    }

    async fn why(&self, _: Request<v1::WhyRequest>) -> Result<Response<v1::WhyResponse>, Status> {
        absent()
    }

    async fn r#override(
        &self,
        _: Request<v1::OverrideRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        absent()
    }

    async fn hold(
        &self,
        _: Request<v1::CommandRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        absent()
    }

    async fn resume(
        &self,
        _: Request<v1::CommandRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        absent()
    }

    async fn stop(
        &self,
        _: Request<v1::StopRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        absent()
    }

    async fn retry_action(
        &self,
        _: Request<v1::RetryActionRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        absent()
    }

    async fn skip_action(
        &self,
        _: Request<v1::SkipActionRequest>,
    ) -> Result<Response<v1::CommandResponse>, Status> {
        absent()
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        absent()
    }
}
