//! A small server of the public services that remembers what it applied and fails as it is told: a fault injector.
//! It runs in a runtime of its own, so that stopping it breaks its connections as a kill would.

#![allow(dead_code, reason = "each test file uses its part of it")]

mod admin;
pub mod cluster;
mod executions;

use admin::Admin;
use cluster::{Node, Topology};
use prost::Message as _;
use sojourn_client::wire::{
    self as v1, cluster_server, executions_server, journeys_server, signals_server,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What happens to one arriving signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is applied and answered.
    None,
    /// It is not applied: overloaded.
    Overload,
    /// It is not applied, and the stream ends.
    BreakBefore,
    /// It is applied, and the stream ends without an answer.
    BreakAfter,
    /// It is applied and never answered.
    Silent,
    /// It is not a valid signal.
    Invalid,
    /// The server does not know what became of it; it was applied.
    Unknown,
}

type Plan = Box<dyn Fn(u64, &v1::Signal) -> Fault + Send>;

/// What outlives the server.
#[derive(Clone)]
pub struct World(Arc<Mutex<State>>, Arc<tokio::sync::watch::Sender<u64>>);

pub struct State {
    /// By customer, the ids in the order in which they were applied.
    pub applied: HashMap<String, Vec<String>>,
    receipts: HashMap<(String, String), v1::Receipt>,
    /// Signals that arrived, those sent again included.
    pub arrived: u64,
    plan: Plan,
    pub published: HashMap<String, String>,
    pub admin: Admin,
    pub topology: Topology,
}

impl World {
    pub fn new(plan: impl Fn(u64, &v1::Signal) -> Fault + Send + 'static) -> World {
        let state = State {
            applied: HashMap::new(),
            receipts: HashMap::new(),
            arrived: 0,
            plan: Box::new(plan),
            published: HashMap::new(),
            admin: Admin::default(),
            topology: Topology::default(),
        };
        World(Arc::new(Mutex::new(state)), Arc::default())
    }

    pub fn faultless() -> World {
        World::new(|_, _| Fault::None)
    }

    pub fn plan(&self, plan: impl Fn(u64, &v1::Signal) -> Fault + Send + 'static) {
        self.state().plan = Box::new(plan);
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many signals were applied, each once.
    pub fn applied(&self) -> usize {
        self.state().applied.values().map(Vec::len).sum()
    }

    fn take(&self, signal: &v1::Signal) -> (Fault, Option<v1::item_result::Result>) {
        let mut state = self.state();
        let number = state.arrived;
        state.arrived += 1;
        let fault = (state.plan)(number, signal);
        let error = |code: tonic::Code, cause: &str, retry_after_ms| {
            Some(v1::item_result::Result::Error(v1::ItemError {
                code: code as i32,
                message: format!("{cause} (injected)"),
                cause: cause.into(),
                retry_after_ms,
                violations: if code == tonic::Code::InvalidArgument {
                    vec![v1::FieldViolation {
                        field: "signal.type".into(),
                        description: "not taken here".into(),
                    }]
                } else {
                    Vec::new()
                },
            }))
        };
        match fault {
            Fault::Overload => (
                fault,
                error(tonic::Code::ResourceExhausted, "overloaded_shard", 5),
            ),
            Fault::Invalid => (fault, error(tonic::Code::InvalidArgument, "field", 0)),
            Fault::BreakBefore => (fault, None),
            Fault::Unknown => {
                state.apply(signal);
                (
                    fault,
                    error(tonic::Code::DeadlineExceeded, "unknown_outcome", 0),
                )
            }
            Fault::None | Fault::BreakAfter | Fault::Silent => {
                let receipt = state.apply(signal);
                (fault, Some(v1::item_result::Result::Receipt(receipt)))
            }
        }
    }
}

impl State {
    /// What a signal was answered when it was applied.
    pub fn receipt(&self, source: &str, id: &str) -> Option<v1::Receipt> {
        let key = (source.to_owned(), id.to_owned());
        self.receipts.get(&key).cloned()
    }

    /// The first signal of a customer starts, every other moves; the same again is a duplicate.
    fn apply(&mut self, signal: &v1::Signal) -> v1::Receipt {
        let key = (signal.source.clone(), signal.id.clone());
        if let Some(first) = self.receipts.get(&key) {
            return v1::Receipt {
                duplicate: true,
                ..first.clone()
            };
        }
        let customer = signal.identifiers.first().cloned().unwrap_or_default();
        let order = self.applied.entry(customer.value.clone()).or_default();
        let fate = if order.is_empty() {
            v1::fate::Fate::Started(v1::fate::Started {
                stage: "here".into(),
                via: Vec::new(),
            })
        } else {
            v1::fate::Fate::Moved(v1::fate::Moved {
                from: "here".into(),
                to: "there".into(),
                via: Vec::new(),
            })
        };
        order.push(signal.id.clone());
        let receipt = v1::Receipt {
            signal_id: signal.id.clone(),
            source: signal.source.clone(),
            customer: Some(customer),
            parts: vec![v1::ReceiptPart {
                execution: "0-0-1".into(),
                journey: "bench".into(),
                run: 1,
                fate: Some(v1::Fate { fate: Some(fate) }),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.receipts.insert(key, receipt.clone());
        receipt
    }
}

#[tonic::async_trait]
impl signals_server::Signals for Node {
    async fn send(
        &self,
        request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        let v1::SendRequest { workspace, signal } = request.into_inner();
        match self.take(&workspace, &signal.unwrap_or_default()).1 {
            Some(v1::item_result::Result::Receipt(receipt)) => {
                Ok(Response::new(v1::SendResponse {
                    receipt: Some(receipt),
                }))
            }
            _ => Err(Status::unavailable("injected")),
        }
    }

    async fn list_unmatched(
        &self,
        _: Request<v1::ListUnmatchedRequest>,
    ) -> Result<Response<v1::ListUnmatchedResponse>, Status> {
        Err(Status::unimplemented("this world keeps no timelines"))
    }

    async fn send_batch(
        &self,
        _: Request<v1::SendBatchRequest>,
    ) -> Result<Response<v1::SendBatchResponse>, Status> {
        Err(Status::unimplemented("not part of this world"))
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::StreamResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let node = self.clone();
        let mut signals = request.into_inner();
        let (answers, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(request)) = signals.message().await {
                let signal = v1::Signal::decode(request.signal).unwrap_or_default();
                let (fault, result) = node.take(&request.workspace, &signal);
                match fault {
                    Fault::BreakBefore | Fault::BreakAfter => return,
                    Fault::Silent => continue,
                    _ => {}
                }
                let ack = v1::Ack {
                    number: request.number,
                    result: Some(v1::ItemResult { result }),
                };
                if answers
                    .send(Ok(v1::StreamResponse { acks: vec![ack] }))
                    .is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }
}

/// A server of a world. Dropping it breaks all connections at once.
pub struct Server {
    pub address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    pub fn start(world: &World) -> Server {
        Server::at(world, Server::anywhere())
    }

    /// Any port of a loopback address of its own: nobody else is given it after this one is gone.
    pub fn anywhere() -> SocketAddr {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        let [.., a, b] = std::process::id().to_be_bytes();
        let c = COUNT.fetch_add(1, Ordering::Relaxed);
        ([127, a | 0x80, b, c.clamp(1, 254)], 0).into()
    }

    /// At the address of an earlier one.
    pub fn at(world: &World, address: SocketAddr) -> Server {
        Server::of_node(world, 0, address)
    }

    /// Of this node of a cluster; 0: of none.
    pub fn of_node(world: &World, id: u64, address: SocketAddr) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let guard = runtime.enter();
        // the runtime of an earlier server at this address may still be closing its socket
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let listener = loop {
            match std::net::TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(e) => assert!(std::time::Instant::now() < deadline, "{address}: {e}"),
            }
            std::thread::yield_now();
        };
        listener
            .set_nonblocking(true)
            .expect("a listener can be set so");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime is entered");
        let address = listener.local_addr().expect("it is bound");
        drop(guard);
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let node = Node {
            world: world.clone(),
            id,
        };
        let router = tonic::transport::Server::builder()
            .add_service(signals_server::SignalsServer::new(node.clone()))
            .add_service(executions_server::ExecutionsServer::new(node.clone()))
            .add_service(cluster_server::ClusterServer::new(node))
            .add_service(journeys_server::JourneysServer::new(world.clone()));
        runtime.spawn(router.serve_with_incoming(incoming));
        Server {
            address,
            runtime: Some(runtime),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this world"))
}

/// Enough of it to publish and to look whether something is published.
#[tonic::async_trait]
impl journeys_server::Journeys for World {
    async fn validate(
        &self,
        _: Request<v1::ValidateRequest>,
    ) -> Result<Response<v1::ValidateResponse>, Status> {
        absent()
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let text = request.into_inner().text;
        let name = text
            .lines()
            .find_map(|l| l.strip_prefix("journey: "))
            .unwrap_or_default()
            .to_owned();
        self.state().published.insert(name.clone(), text);
        Ok(Response::new(v1::PublishResponse {
            journey: name,
            version: 1,
            live: true,
            ..Default::default()
        }))
    }

    async fn list(
        &self,
        _: Request<v1::ListJourneysRequest>,
    ) -> Result<Response<v1::ListJourneysResponse>, Status> {
        let journeys = self
            .state()
            .published
            .keys()
            .map(|name| v1::JourneyInfo {
                name: name.clone(),
                title: "Ä title".into(),
                state: v1::JourneyState::Active.into(),
                live_version: 1,
                active: 1_234,
                ..Default::default()
            })
            .collect();
        Ok(Response::new(v1::ListJourneysResponse { journeys }))
    }

    async fn get(
        &self,
        request: Request<v1::GetJourneyRequest>,
    ) -> Result<Response<v1::GetJourneyResponse>, Status> {
        let name = request.into_inner().journey;
        match self.state().published.get(&name) {
            Some(text) => Ok(Response::new(v1::GetJourneyResponse {
                journey: Some(v1::JourneyInfo {
                    name,
                    ..Default::default()
                }),
                version: 1,
                text: text.clone(),
            })),
            None => Err(Status::not_found(format!("no journey is named {name:?}"))),
        }
    }

    async fn activate(
        &self,
        _: Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateResponse>, Status> {
        absent()
    }

    async fn deactivate(
        &self,
        _: Request<v1::DeactivateRequest>,
    ) -> Result<Response<v1::DeactivateResponse>, Status> {
        absent()
    }

    async fn report(
        &self,
        _: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        absent()
    }

    async fn put_endpoint(
        &self,
        _: Request<v1::PutEndpointRequest>,
    ) -> Result<Response<v1::PutEndpointResponse>, Status> {
        absent()
    }

    async fn list_endpoints(
        &self,
        _: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        absent()
    }

    async fn delete_endpoint(
        &self,
        _: Request<v1::DeleteEndpointRequest>,
    ) -> Result<Response<v1::DeleteEndpointResponse>, Status> {
        absent()
    }
}
