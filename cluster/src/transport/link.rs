//! One stream to one node, made again whenever it breaks, and the questions that go over it.
//!
//! Everything that waits is bounded, and what nobody waits for any more is not sent. A link does not know what it
//! carries.

use super::dial::{Dialer, said};
use super::peers::{Greeting, PeerConfig};
use super::{FrameBody, PeerFigures, TransportError};
use crate::id::{GroupId, NodeId};
use crate::runtime::Rng;
use parking_lot::Mutex;
use sojourn_proto::cluster::peers_client::PeersClient;
use sojourn_proto::cluster::{Frame, PeerMessage};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Messages that tonic may have taken from the queue and not yet put on the wire.
const MESSAGES_AHEAD: usize = 2;
/// The number and the group of a frame, and the lengths around it.
const FRAME_OVERHEAD: usize = 32;

type Answer = Result<FrameBody, TransportError>;
/// Where each node is, as host:port.
pub(super) type Book = BTreeMap<NodeId, String>;

enum State {
    /// Questions wait for the outcome.
    Connecting,
    Up,
    /// Questions are told so at once.
    Down(String),
}

struct Waiting {
    number: u64,
    group: GroupId,
    body: FrameBody,
    bytes: usize,
}

struct Inner {
    state: State,
    queue: VecDeque<Waiting>,
    queue_bytes: usize,
    asked: BTreeMap<u64, oneshot::Sender<Answer>>,
    next: u64,
    figures: PeerFigures,
}

/// The way to one node.
pub(super) struct Link {
    to: NodeId,
    inner: Mutex<Inner>,
    /// There is something to send.
    filled: Notify,
    /// It is worth trying to connect again.
    nudge: Notify,
    queue_frames: usize,
    queue_bytes: usize,
    message_bytes: usize,
}

/// Forgets the question when whoever asked no longer waits.
struct Question {
    link: Arc<Link>,
    number: u64,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.link.inner.lock().asked.remove(&self.number);
    }
}

impl Link {
    pub(super) fn new(to: NodeId, cfg: &PeerConfig) -> Arc<Link> {
        Arc::new(Link {
            to,
            inner: Mutex::new(Inner {
                state: State::Connecting,
                queue: VecDeque::new(),
                queue_bytes: 0,
                asked: BTreeMap::new(),
                next: 1,
                figures: PeerFigures {
                    node: to,
                    ..PeerFigures::default()
                },
            }),
            filled: Notify::new(),
            nudge: Notify::new(),
            queue_frames: cfg.queue_frames,
            queue_bytes: cfg.queue_bytes,
            message_bytes: cfg.message_bytes,
        })
    }

    pub(super) fn nudge(&self) {
        self.nudge.notify_one();
    }

    pub(super) fn figures(&self) -> PeerFigures {
        let inner = self.inner.lock();
        let (up, why) = match &inner.state {
            State::Up => (true, None),
            State::Connecting => (false, Some("connecting".to_owned())),
            State::Down(why) => (false, Some(why.clone())),
        };
        PeerFigures {
            up,
            why,
            queue_frames: inner.queue.len(),
            queue_bytes: inner.queue_bytes,
            unanswered: inner.asked.len().saturating_sub(inner.queue.len()),
            ..inner.figures.clone()
        }
    }

    /// Puts a question into the queue. Answers what to wait for.
    fn put(
        self: &Arc<Self>,
        group: GroupId,
        body: FrameBody,
    ) -> Result<(Question, oneshot::Receiver<Answer>), TransportError> {
        let bytes = body.encoded_len() + FRAME_OVERHEAD;
        if bytes > self.message_bytes {
            return Err(TransportError::TooLarge {
                node: self.to,
                bytes,
                limit: self.message_bytes,
            });
        }
        let mut inner = self.inner.lock();
        if let State::Down(why) = &inner.state {
            return Err(TransportError::Unreachable {
                node: self.to,
                why: why.clone(),
            });
        }
        let full = if inner.queue.len() >= self.queue_frames {
            Some(("frames", inner.queue.len(), "queue_frames"))
        } else if !inner.queue.is_empty() && inner.queue_bytes + bytes > self.queue_bytes {
            Some(("bytes", inner.queue_bytes, "queue_bytes"))
        } else {
            None
        };
        if let Some((what, waiting, limit)) = full {
            inner.figures.refused_full += 1;
            return Err(TransportError::Full {
                node: self.to,
                what,
                waiting,
                limit,
            });
        }
        let number = inner.next;
        inner.next += 1;
        let (tx, rx) = oneshot::channel();
        inner.asked.insert(number, tx);
        inner.queue_bytes += bytes;
        inner.queue.push_back(Waiting {
            number,
            group,
            body,
            bytes,
        });
        drop(inner);
        self.filled.notify_one();
        let question = Question {
            link: self.clone(),
            number,
        };
        Ok((question, rx))
    }

    /// Asks, and waits at most `within`.
    pub(super) fn ask(
        self: Arc<Self>,
        group: GroupId,
        body: FrameBody,
        within: Duration,
    ) -> impl Future<Output = Answer> + Send + 'static {
        // Put at once, not when first polled: questions of one asker keep their order.
        let put = self.put(group, body);
        let node = self.to;
        async move {
            let (_question, answer) = put?;
            match tokio::time::timeout(within, answer).await {
                Ok(Ok(answer)) => answer,
                // The sender goes only with the link itself.
                Ok(Err(_)) => Err(TransportError::Unreachable {
                    node,
                    why: "the transport has stopped".to_owned(),
                }),
                Err(_) => Err(TransportError::Late { node, within }),
            }
        }
    }

    /// The next frames to send, up to about `most` bytes; those that nobody waits for are left out.
    fn take(&self, most: usize) -> Vec<Frame> {
        let mut inner = self.inner.lock();
        let mut frames = Vec::new();
        let mut bytes = 0;
        while let Some(next) = inner.queue.front() {
            if !frames.is_empty() && bytes + next.bytes > most {
                break;
            }
            let Some(next) = inner.queue.pop_front() else {
                break;
            };
            inner.queue_bytes -= next.bytes;
            if !inner.asked.contains_key(&next.number) {
                continue;
            }
            bytes += next.bytes;
            frames.push(Frame {
                number: next.number,
                group: next.group.0,
                body: Some(next.body),
            });
        }
        if !frames.is_empty() {
            inner.figures.messages_sent += 1;
            inner.figures.frames_sent += frames.len() as u64;
            inner.figures.bytes_sent += bytes as u64;
        }
        frames
    }

    fn answered(&self, frames: Vec<Frame>) {
        let mut inner = self.inner.lock();
        for frame in frames {
            inner.figures.frames_received += 1;
            if let (Some(asker), Some(body)) = (inner.asked.remove(&frame.number), frame.body) {
                // Whoever asked may just have given up.
                drop(asker.send(Ok(body)));
            }
        }
    }

    fn set(&self, state: State) {
        self.inner.lock().state = state;
    }

    /// Whatever waits is told that there is no way.
    fn down(&self, why: &str) {
        let mut inner = self.inner.lock();
        inner.state = State::Down(why.to_owned());
        inner.queue.clear();
        inner.queue_bytes = 0;
        let asked = std::mem::take(&mut inner.asked);
        drop(inner);
        for asker in asked.into_values() {
            let told = asker.send(Err(TransportError::Unreachable {
                node: self.to,
                why: why.to_owned(),
            }));
            // As in `answered`.
            drop(told);
        }
    }
}

/// Keeps the link: connects, carries, and connects again, until `ended`.
pub(super) async fn keep(
    link: Arc<Link>,
    cfg: Arc<PeerConfig>,
    dialer: Dialer,
    mut book: watch::Receiver<Book>,
    mut ended: watch::Receiver<bool>,
) {
    let mut pause = cfg.retry_min;
    loop {
        let address = book.borrow_and_update().get(&link.to).cloned();
        let why = match &address {
            None => "no address of it is known".to_owned(),
            Some(address) => {
                link.set(State::Connecting);
                tokio::select! {
                    biased;
                    () = until(&mut ended) => "this node is stopping".to_owned(),
                    _ = moved(&mut book, link.to, address) => "its address has changed".to_owned(),
                    why = session(&link, &cfg, &dialer, address, &mut pause) => why,
                }
            }
        };
        link.down(&why);
        tracing::debug!(node = link.to, %why, "no way to a node");
        let jitter = Rng.draw() % 256;
        let wait = pause.mul_f64(0.75 + jitter as f64 / 1024.0);
        pause = (pause * 2).min(cfg.retry_max);
        tokio::select! {
            biased;
            () = until(&mut ended) => break,
            changed = book.changed() => {
                if changed.is_err() {
                    break;
                }
                pause = cfg.retry_min;
            }
            () = link.nudge.notified() => {}
            () = tokio::time::sleep(wait), if address.is_some() => {}
        }
        if *ended.borrow() {
            break;
        }
    }
    link.down("this node is stopping");
}

/// Until it is true, or can no longer become so.
pub(super) async fn until(ended: &mut watch::Receiver<bool>) {
    drop(ended.wait_for(|ended| *ended).await);
}

/// Until the book has another address for the node.
async fn moved(book: &mut watch::Receiver<Book>, node: NodeId, address: &str) {
    let other = book.wait_for(|book| book.get(&node).map(String::as_str) != Some(address));
    if other.await.is_err() {
        // Nobody can change the book any more.
        std::future::pending::<()>().await;
    }
}

/// A connection to the node at `address`.
pub(super) async fn connect(
    cfg: &PeerConfig,
    dialer: &Dialer,
    address: &str,
) -> Result<PeersClient<Channel>, String> {
    let channel = dialer.connect(address).await?;
    Ok(PeersClient::new(channel)
        .max_decoding_message_size(cfg.limit_bytes())
        .max_encoding_message_size(cfg.limit_bytes()))
}

/// One stream, from connecting to its end. Answers why it ended.
async fn session(
    link: &Link,
    cfg: &PeerConfig,
    dialer: &Dialer,
    address: &str,
    pause: &mut Duration,
) -> String {
    let open = async {
        let mut client = connect(cfg, dialer, address).await?;
        let (tx, rx) = mpsc::channel(MESSAGES_AHEAD);
        let hello = PeerMessage {
            hello: Some(cfg.greeting(link.to)),
            frames: Vec::new(),
        };
        // There is room: the channel is new.
        drop(tx.try_send(hello));
        let mut answers = client
            .carry(ReceiverStream::new(rx))
            .await
            .map_err(|e| format!("{address} refused: {}", said(&e)))?
            .into_inner();
        let first = answers
            .message()
            .await
            .map_err(|e| format!("{address} refused: {}", said(&e)))?;
        Greeting::check(first.and_then(|m| m.hello).as_ref(), cfg, Some(link.to))
            .map_err(|why| format!("{address}: {why}"))?;
        Ok::<_, String>((tx, answers))
    };
    let (tx, mut answers) = match tokio::time::timeout(cfg.connect_within, open).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(why)) => return why,
        Err(_) => {
            return format!(
                "{address} has not greeted within {} ms",
                cfg.connect_within.as_millis()
            );
        }
    };
    *pause = cfg.retry_min;
    {
        let mut inner = link.inner.lock();
        inner.state = State::Up;
        inner.figures.connects += 1;
    }
    let sending = async {
        loop {
            let frames = link.take(cfg.send_bytes);
            if frames.is_empty() {
                link.filled.notified().await;
                continue;
            }
            let message = PeerMessage {
                hello: None,
                frames,
            };
            if tx.send(message).await.is_err() {
                return "the stream has ended".to_owned();
            }
        }
    };
    let receiving = async {
        loop {
            match answers.message().await {
                Ok(Some(message)) => link.answered(message.frames),
                Ok(None) => return "the other node has ended the stream".to_owned(),
                Err(status) => return format!("the stream broke: {}", said(&status)),
            }
        }
    };
    tokio::select! {
        why = receiving => why,
        why = sending => why,
    }
}
