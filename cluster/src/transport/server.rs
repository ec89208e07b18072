//! The streams that other nodes have opened to this one: greeted, read, answered.
//!
//! Whoever does not belong to the cluster is told why and sent away. It does not know what the questions mean.

use super::incoming::Incoming;
use super::link::until;
use super::peers::{Greeting, Shared};
use super::{FrameBody, SNAPSHOT_PARTS, Serve, SnapshotIn};
use crate::id::{GroupId, NodeId};
use futures::FutureExt;
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use sojourn_proto::cluster::peers_server::{Peers, PeersServer};
use sojourn_proto::cluster::{
    Frame, PeerMessage, Refused, SnapshotAnswer as AnswerMessage, SnapshotPart as PartMessage,
};
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// Messages with answers that may wait for the network.
const ANSWERS_AHEAD: usize = 4;

/// Serves the peer port.
#[derive(Clone)]
pub(super) struct Server {
    shared: Arc<Shared>,
    node: Weak<dyn Serve>,
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>, node: Weak<dyn Serve>) -> Self {
        Server { shared, node }
    }

    pub(super) async fn run(self, incoming: Incoming, routes: Routes) {
        let cfg = self.shared.cfg.clone();
        let mut ended = self.shared.ended.subscribe();
        let service = PeersServer::new(self)
            .max_decoding_message_size(cfg.limit_bytes())
            .max_encoding_message_size(cfg.limit_bytes());
        let serving = tonic::transport::Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_concurrent_streams(cfg.streams)
            .http2_keepalive_interval(Some(cfg.keep_alive))
            .http2_keepalive_timeout(Some(cfg.keep_alive))
            .add_routes(routes)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async move { until(&mut ended).await });
        if let Err(error) = serving.await {
            tracing::error!(%error, "other nodes are no longer served");
        }
    }

    fn refuse(&self, why: String) -> Status {
        self.shared.counts.lock().strangers += 1;
        tracing::warn!(%why, "a stream on the peer port was refused");
        Status::failed_precondition(why)
    }

    /// Reads the first message of a stream.
    async fn first<M>(&self, stream: &mut Streaming<M>) -> Result<M, Status> {
        let first = tokio::time::timeout(self.shared.cfg.connect_within, stream.message());
        match first.await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(self.refuse("the stream ended without a greeting".to_owned())),
            Ok(Err(status)) => Err(self.refuse(format!(
                "the first message cannot be read: {}",
                status.message()
            ))),
            Err(_) => Err(self.refuse(format!(
                "no greeting within {} ms",
                self.shared.cfg.connect_within.as_millis()
            ))),
        }
    }

    fn node(&self) -> Result<Arc<dyn Serve>, Status> {
        self.node
            .upgrade()
            .ok_or_else(|| Status::unavailable("this node is stopping"))
    }

    async fn carry_frames(
        self,
        from: NodeId,
        mut stream: Streaming<PeerMessage>,
        answers: mpsc::Sender<Result<PeerMessage, Status>>,
    ) {
        let mut ended = self.shared.ended.subscribe();
        let mut running = FuturesUnordered::new();
        let at_once = self.shared.cfg.serving_frames;
        loop {
            let answered = tokio::select! {
                biased;
                () = until(&mut ended) => return,
                () = answers.closed() => return,
                Some(answered) = running.next(), if !running.is_empty() => Some(answered),
                message = stream.message(), if running.len() < at_once => {
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return,
                        Err(status) => {
                            // What cannot be read ends the stream; the node goes on.
                            let why = format!("a message cannot be read: {}", status.message());
                            drop(answers.send(Err(Status::invalid_argument(why))).await);
                            return;
                        }
                    };
                    let Ok(node) = self.node() else { return };
                    for frame in message.frames {
                        running.push(answer(node.clone(), from, frame));
                    }
                    None
                }
            };
            let mut frames: Vec<Frame> = answered.into_iter().collect();
            // What else is ready goes with it.
            while let Some(Some(more)) = running.next().now_or_never() {
                frames.push(more);
            }
            if frames.is_empty() {
                continue;
            }
            self.shared.counts.lock().answered += frames.len() as u64;
            let message = PeerMessage {
                hello: None,
                frames,
            };
            if answers.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }

    async fn carry_snapshot(
        self,
        from: NodeId,
        first: PartMessage,
        mut stream: Streaming<PartMessage>,
        answers: mpsc::Sender<Result<AnswerMessage, Status>>,
    ) {
        let Ok(node) = self.node() else { return };
        let mut ended = self.shared.ended.subscribe();
        let (give, parts) = mpsc::channel(SNAPSHOT_PARTS);
        let (say, mut said) = mpsc::channel(SNAPSHOT_PARTS);
        let taking = node.take_snapshot(
            from,
            SnapshotIn {
                parts,
                answers: say,
            },
        );
        drop(node);
        let reading = async move {
            let mut next = Some(first);
            while let Some(message) = next {
                if let Some(part) = message.part
                    && give.send(part).await.is_err()
                {
                    break;
                }
                next = stream.message().await.ok().flatten();
            }
        };
        let mut hello = Some(self.shared.cfg.greeting(from));
        let saying = async {
            while let Some(answer) = said.recv().await {
                let message = AnswerMessage {
                    hello: hello.take(),
                    answer: Some(answer),
                };
                if answers.send(Ok(message)).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = until(&mut ended) => {}
            _ = async { tokio::join!(reading, taking, saying) } => {}
        }
    }
}

/// Answers one frame; a panic of whoever answers would only end the stream, but says nothing to the asker.
async fn answer(node: Arc<dyn Serve>, from: NodeId, frame: Frame) -> Frame {
    let body = match frame.body {
        Some(body) => node.answer(from, GroupId(frame.group), body).await,
        None => FrameBody::Refused(Refused {
            why: "the frame has no body that this version knows".to_owned(),
            behind: false,
        }),
    };
    Frame {
        number: frame.number,
        group: frame.group,
        body: Some(body),
    }
}

#[tonic::async_trait]
impl Peers for Server {
    type CarryStream = BoxStream<'static, Result<PeerMessage, Status>>;

    async fn carry(
        &self,
        request: Request<Streaming<PeerMessage>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let mut stream = request.into_inner();
        let first = self.first(&mut stream).await?;
        let from = Greeting::check(first.hello.as_ref(), &self.shared.cfg, None)
            .map_err(|why| self.refuse(why))?;
        let (tx, rx) = mpsc::channel(ANSWERS_AHEAD);
        let hello = PeerMessage {
            hello: Some(self.shared.cfg.greeting(from)),
            frames: Vec::new(),
        };
        // There is room: the channel is new.
        drop(tx.try_send(Ok(hello)));
        // It can reach us, so it is worth trying to reach it.
        if let Some(link) = self.shared.links.lock().get(&from) {
            link.nudge();
        }
        tokio::spawn(self.clone().carry_frames(from, stream, tx));
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }

    type GiveSnapshotStream = BoxStream<'static, Result<AnswerMessage, Status>>;

    async fn give_snapshot(
        &self,
        request: Request<Streaming<PartMessage>>,
    ) -> Result<Response<Self::GiveSnapshotStream>, Status> {
        let mut stream = request.into_inner();
        let first = self.first(&mut stream).await?;
        let from = Greeting::check(first.hello.as_ref(), &self.shared.cfg, None)
            .map_err(|why| self.refuse(why))?;
        let (tx, rx) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(self.clone().carry_snapshot(from, first, stream, tx));
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }
}
